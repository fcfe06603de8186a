//! Looks through a file before anything compiles it: what would cost too much is refused by size, and the names of its
//! functions are noted.
//!
//! A file is small beside what it can make a compiler do: a component of a few hundred bytes that instantiates another
//! twice, which instantiates another twice, and so on, is 2^n instances; types inside of types overflow the stack of
//! whoever reads them. Sizes that grow with the file alone are left to the limits of the process that compiles.

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Instance, KnownCustom, Name, Operator, Parser, Payload,
};

use super::{LoadError, reason};
use crate::host::{TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::runtime::MEMORIES_MAX;
use crate::text::{Line, start};

/// Components inside of each other; those of toolchains have two.
const NESTING_MAX: u64 = 8;
/// Instances that one instance of the plugin comes to, of components and modules, all of them together.
const INSTANCES_MAX: u64 = 256;
/// Core modules in one file.
const MODULES_MAX: u64 = 64;
/// Functions of all modules together; a Python interpreter has some 12,000.
const FUNCTIONS_MAX: u64 = 200_000;
/// Bytes of one function: compiling takes more than twice as long for twice as many.
const FUNCTION_BYTES_MAX: u64 = 1 << 20;
/// Blocks inside of each other, in one function; a switch of an interpreter has some hundreds. Compiling takes four times
/// as long for twice as many.
const BLOCKS_MAX: u64 = 4_096;
/// Local variables of all functions together, at 2 bytes of the file for 50,000.
const LOCALS_MAX: u64 = 10_000_000;
/// Types of components and instances inside of others, in one section. Their reader calls itself for each.
const TYPE_NESTING_MAX: u64 = 512;

/// Most names of functions that are kept.
const NAMES_MAX: usize = 256;
/// Longest such name, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What a look at the file has shown.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Of defined functions, by the name section, in order: the first 256.
    pub(super) functions: Vec<String>,
    /// Whether a name section has any.
    pub(super) has_names: bool,
}

/// Looks at every section of the file, and into those that matter.
pub(super) fn survey(file: &str, bytes: &[u8]) -> Result<Survey, LoadError> {
    let mut surveyor = Surveyor::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let seen = payload.map_err(Stop::from).and_then(|payload| surveyor.see(payload, bytes));
        match seen {
            Ok(()) => {}
            Err(Stop::Damaged(why)) => return Err(LoadError::Invalid { file: file.into(), reason: reason(&why) }),
            Err(Stop::Foreign(why)) => return Err(LoadError::Contract { file: file.into(), reason: why.into() }),
            Err(Stop::TooMuch { what, found, most }) => {
                return Err(LoadError::TooComplex { file: file.into(), what, found, most });
            }
        }
    }
    Ok(surveyor.survey)
}

/// Why looking ends.
enum Stop {
    Damaged(BinaryReaderError),
    Foreign(&'static str),
    TooMuch { what: &'static str, found: u64, most: u64 },
}

impl From<BinaryReaderError> for Stop {
    fn from(e: BinaryReaderError) -> Self {
        Self::Damaged(e)
    }
}

fn within(what: &'static str, found: u64, most: u64) -> Result<(), Stop> {
    if found > most { Err(Stop::TooMuch { what, found, most }) } else { Ok(()) }
}

#[derive(Default)]
struct Surveyor {
    survey: Survey,
    /// The component that is read, behind those around it.
    scopes: Vec<Scope>,
    modules: u64,
    functions: u64,
    locals: u64,
    memories: u64,
    tables: u64,
    /// Of the module that is read: its first functions are imported and have no code.
    imported: u32,
}

/// A component or module while it is read.
#[derive(Default)]
struct Scope {
    is_module: bool,
    /// Instances that one instance of this comes to, itself included.
    cost: u64,
    /// That of each component that it knows, by index.
    components: Vec<u64>,
}

impl Surveyor {
    fn see(&mut self, payload: Payload<'_>, bytes: &[u8]) -> Result<(), Stop> {
        match payload {
            Payload::Version { encoding, .. } => self.begin(encoding == wasmparser::Encoding::Module)?,
            Payload::End(_) => self.end()?,
            Payload::ImportSection(section) => self.imports(section)?,
            Payload::MemorySection(section) => {
                self.memories = self.memories.saturating_add(section.count().into());
                within("linear memories", self.memories, MEMORIES_MAX.into())?;
            }
            Payload::TableSection(section) => self.tables(section)?,
            Payload::CodeSectionStart { count, .. } => {
                self.functions = self.functions.saturating_add(count.into());
                within("functions", self.functions, FUNCTIONS_MAX)?;
            }
            Payload::CodeSectionEntry(body) => self.function(&body)?,
            Payload::ComponentTypeSection(section) => type_nesting(&bytes[section.range()])?,
            Payload::InstanceSection(section) => {
                for instance in section {
                    let one = matches!(instance?, Instance::Instantiate { .. });
                    self.pay(u64::from(one))?;
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                        self.pay(self.cost(0, component_index))?;
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(&alias?)?;
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    if matches!(import?.ty, ComponentTypeRef::Component(_)) {
                        return Err(Stop::Foreign("it imports a component"));
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.kind == ComponentExternalKind::Component {
                        let cost = self.cost(0, export.index);
                        self.know(cost);
                    }
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    self.names(names);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, is_module: bool) -> Result<(), Stop> {
        if is_module {
            self.modules += 1;
            self.imported = 0;
            within("core modules", self.modules, MODULES_MAX)?;
        }
        self.scopes.push(Scope { is_module, cost: 1, components: Vec::new() });
        within("components inside of each other", self.scopes.len() as u64, NESTING_MAX + 1)
    }

    fn end(&mut self) -> Result<(), Stop> {
        let done = self.scopes.pop().unwrap_or_default();
        if !done.is_module {
            self.know(done.cost);
        }
        Ok(())
    }

    /// A component of this cost is the next that may be instantiated here.
    fn know(&mut self, cost: u64) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.components.push(cost);
        }
    }

    /// That of a component, so many scopes further out. One that is not there is for the compiler to refuse.
    fn cost(&self, outward: u32, index: u32) -> u64 {
        let scope = self.scopes.iter().rev().nth(outward as usize);
        scope.and_then(|scope| scope.components.get(index as usize)).copied().unwrap_or(1)
    }

    fn pay(&mut self, cost: u64) -> Result<(), Stop> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        scope.cost = scope.cost.saturating_add(cost);
        within("instances of components and modules", scope.cost, INSTANCES_MAX)
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), Stop> {
        match alias {
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                Err(Stop::Foreign("it takes a component from an instance"))
            }
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                let cost = self.cost(*count, *index);
                self.know(cost);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn imports(&mut self, section: wasmparser::ImportSectionReader<'_>) -> Result<(), Stop> {
        for import in section.into_imports() {
            if matches!(import?.ty, wasmparser::TypeRef::Func(_) | wasmparser::TypeRef::FuncExact(_)) {
                self.imported += 1;
            }
        }
        Ok(())
    }

    fn tables(&mut self, section: wasmparser::TableSectionReader<'_>) -> Result<(), Stop> {
        self.tables = self.tables.saturating_add(section.count().into());
        within("tables", self.tables, TABLES_MAX.into())?;
        for table in section {
            within("elements in one table", table?.ty.initial, TABLE_ELEMENTS_MAX as u64)?;
        }
        Ok(())
    }

    fn function(&mut self, body: &wasmparser::FunctionBody<'_>) -> Result<(), Stop> {
        within("bytes in one function", body.range().len() as u64, FUNCTION_BYTES_MAX)?;
        for local in body.get_locals_reader()? {
            self.locals = self.locals.saturating_add(local?.0.into());
        }
        within("local variables", self.locals, LOCALS_MAX)?;
        blocks(body)
    }

    /// A name section may be damaged without harm; what is readable is taken.
    fn names(&mut self, names: wasmparser::NameSectionReader<'_>) {
        let functions = names.into_iter().map_while(Result::ok).filter_map(|part| match part {
            Name::Function(map) => Some(map),
            _ => None,
        });
        for naming in functions.flatten().map_while(Result::ok) {
            self.survey.has_names = true;
            if self.survey.functions.len() >= NAMES_MAX {
                return;
            }
            if naming.index >= self.imported {
                self.survey.functions.push(shown(naming.name));
            }
        }
    }
}

/// As people read it: without the mangling and its hash, on one line.
fn shown(name: &str) -> String {
    // A mangled name may stand for one that is much longer.
    let name = start(name, 1 << 10);
    let mut demangled = Short(String::new());
    match rustc_demangle::try_demangle(name) {
        Ok(known) => drop(std::fmt::write(&mut demangled, format_args!("{known:#}"))),
        Err(_) => demangled.0 = start(name, NAME_BYTES_MAX).into(),
    }
    Line(&demangled.0).to_string()
}

/// Takes the start of what is written, and ends the writing then.
struct Short(String);

impl std::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = NAME_BYTES_MAX.saturating_sub(self.0.len());
        self.0.push_str(start(text, room));
        if text.len() > room { Err(std::fmt::Error) } else { Ok(()) }
    }
}

fn blocks(body: &wasmparser::FunctionBody<'_>) -> Result<(), Stop> {
    let (mut open, mut most) = (0_u64, 0);
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        match operators.read()? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::TryTable { .. } => {
                open += 1;
                most = most.max(open);
            }
            Operator::End => open = open.saturating_sub(1),
            _ => {}
        }
    }
    within("blocks inside of each other in one function", most, BLOCKS_MAX)
}

/// An upper bound, without reading the types: one inside of another begins with these two bytes.
fn type_nesting(section: &[u8]) -> Result<(), Stop> {
    let begins = section.windows(2).filter(|pair| matches!(pair, [0x01, 0x41 | 0x42])).count() as u64;
    within("types of components inside of others", begins, TYPE_NESTING_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey_of(text: &str) -> Result<Survey, String> {
        survey("p.wasm", &wat::parse_str(text).expect("valid WAT")).map_err(|e| e.to_string())
    }

    /// Each of so many components instantiates the one before it twice.
    fn doubling(levels: usize) -> String {
        let mut text = String::from("(component (component $c0)");
        for level in 1..=levels {
            let before = level - 1;
            text += &format!(
                "(component $c{level} (alias outer 1 $c{before} (component $c)) \
                 (instance (instantiate $c)) (instance (instantiate $c)))"
            );
        }
        text + &format!("(instance (instantiate $c{levels})))")
    }

    #[test]
    fn instances_that_double_are_counted_before_they_are_made() {
        survey_of(&doubling(5)).expect("some 64");
        let error = survey_of(&doubling(40)).expect_err("2^40");
        assert!(error.starts_with("p.wasm has 511 instances of components and modules"), "{error}");
    }

    #[test]
    fn components_inside_of_each_other_are_counted() {
        let nested = |levels| format!("{}{}", "(component ".repeat(levels), ")".repeat(levels));
        survey_of(&nested(8)).expect("within");
        let error = survey_of(&nested(40)).expect_err("too deep");
        assert!(error.contains("10 components inside of each other"), "{error}");
    }

    #[test]
    fn blocks_inside_of_each_other_are_counted() {
        let nested = |levels| format!("(module (func {}))", "block ".repeat(levels) + &"end ".repeat(levels));
        survey_of(&nested(4_096)).expect("within");
        survey_of(&format!("(module (func {}))", "block end ".repeat(10_000))).expect("beside each other");
        let error = survey_of(&nested(5_000)).expect_err("too deep");
        assert!(error.starts_with("p.wasm has 5000 blocks inside of each other"), "{error}");
    }

    #[test]
    fn functions_are_listed_by_name() {
        let module =
            "(module (import \"a\" \"b\" (func $imported)) (func $one) (func $_ZN3big5quake17h0123456789abcdefE))";
        let survey = survey_of(module).expect("a module");
        assert_eq!((survey.functions, survey.has_names), (vec!["one".to_owned(), "big::quake".to_owned()], true));
        let many: String = (0..1_000).map(|n| format!("(func $f{n})")).collect();
        assert_eq!(survey_of(&format!("(module {many})")).expect("a module").functions.len(), NAMES_MAX);
        assert!(!survey_of("(module (func))").expect("a module").has_names);
    }
}
