//! Makes a component of a core module, so that no author needs component tools.
//!
//! A module is taken at its names (`quipu:plugin/handler@0.1.0#process`) and typed by the router's own contract. The
//! component type that an SDK leaves in it is dropped unread but for its string encoding: it could only repeat the
//! contract, and the reader of such types is not made for hostile ones (a cycle between packages ends in a stack overflow).
//! What toolchains import of WASI 0.1 without being asked is answered inside the component by `stub.wat`.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::LazyLock;

use wasmparser::{BinaryReaderError, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use super::{HANDLER, LoadError, is_offered, other_version, reason};

/// The released contract, as plugin authors have it.
const CONTRACT: &str = include_str!("../../../../plugin-sdk/wit/0.1.0/plugin.wit");

/// The module name of WASI 0.1.
const WASI: &str = "wasi_snapshot_preview1";

/// Answers to WASI 0.1, compiled, with the names that it has.
static STUB: LazyLock<(Vec<u8>, BTreeSet<String>)> = LazyLock::new(|| {
    let bytes = wat::parse_str(include_str!("stub.wat")).expect("our own text is valid");
    let outline = Outline::of(&bytes).expect("our own module is valid");
    (bytes, outline.exports)
});

/// Encodes a core module.
pub(super) fn component(file: &str, module: &[u8]) -> Result<Vec<u8>, LoadError> {
    let outline = Outline::of(module).map_err(|e| LoadError::Invalid { file: file.into(), reason: reason(&e) })?;
    outline.check_imports(file)?;
    let version = outline.version();
    outline.check_exports(file, version)?;
    encode(outline, version).map_err(|e| LoadError::Contract { file: file.into(), reason: reason(&e) })
}

fn encode(outline: Outline, version: u32) -> Result<Vec<u8>, impl Display> {
    let mut module = outline.untyped;
    let mut embed = || {
        let mut resolve = Resolve::default();
        let contract = CONTRACT.replace("package quipu:plugin@0.1.0;", &format!("package quipu:plugin@0.1.{version};"));
        let package = resolve.push_str("plugin.wit", &contract)?;
        let world = resolve.select_world(&[package], Some("plugin"))?;
        wit_component::embed_component_metadata(&mut module, &resolve, world, outline.strings)?;
        ComponentEncoder::default().module(&module)?.adapter(WASI, &STUB.0)?.encode()
    };
    embed().map_err(|e| format!("{e:#}"))
}

/// Magic and version, before the first section.
const HEADER_BYTES: usize = 8;

/// What a core module shows to the outside.
struct Outline {
    imports: Vec<(String, String)>,
    exports: BTreeSet<String>,
    /// As its bindings have them.
    strings: StringEncoding,
    /// The module without its component type.
    untyped: Vec<u8>,
}

impl Outline {
    fn of(module: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut kept = module.len().min(HEADER_BYTES);
        let mut outline = Self {
            imports: Vec::new(),
            exports: BTreeSet::new(),
            strings: StringEncoding::UTF8,
            untyped: module[..kept].to_vec(),
        };
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload?;
            let end = payload.as_section().map(|(_, range)| range.end);
            match payload {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        outline.imports.push((import.module.into(), import.name.into()));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        outline.exports.insert(export?.name.into());
                    }
                }
                Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                    outline.strings = strings(section.data()).unwrap_or(outline.strings);
                    kept = section.range().end;
                    continue;
                }
                _ => {}
            }
            // A code section is announced before it is known to be there; the error comes with its first function.
            if let Some((end, section)) = end.and_then(|end| Some((end, module.get(kept..end)?))) {
                outline.untyped.extend_from_slice(section);
                kept = end;
            }
        }
        Ok(outline)
    }

    /// The patch version of the contract that the module was made for, by the first name that says one.
    fn version(&self) -> u32 {
        let names = self.exports.iter().chain(self.imports.iter().map(|(module, _)| module));
        let patch = |name: &String| {
            let (_, rest) = name.strip_prefix("quipu:plugin/")?.split_once("@0.1.")?;
            rest.split('#').next()?.parse().ok()
        };
        names.filter_map(patch).next().unwrap_or(0)
    }

    /// Refuses the first import that neither the contract nor the stub answers.
    fn check_imports(&self, file: &str) -> Result<(), LoadError> {
        let answered = |module: &str, name: &str| match module {
            WASI => STUB.1.contains(name),
            _ => is_offered(module),
        };
        match self.imports.iter().find(|(module, name)| !answered(module, name)) {
            Some((module, name)) => {
                if let Some(other) = other_version(file, module) {
                    return Err(other);
                }
                let import = if module.contains('/') { module.clone() } else { format!("{module}::{name}") };
                Err(LoadError::Import { file: file.into(), import: reason(&import) })
            }
            None => Ok(()),
        }
    }

    fn check_exports(&self, file: &str, version: u32) -> Result<(), LoadError> {
        let handler = HANDLER.replace("0.1.0", &format!("0.1.{version}"));
        let mut wanted = ["configure", "process"].into_iter().map(|function| format!("{handler}#{function}"));
        match wanted.find(|name| !self.exports.contains(name)) {
            Some(export) => Err(self
                .exports
                .iter()
                .find_map(|name| other_version(file, name))
                .unwrap_or_else(|| LoadError::Export { file: file.into(), export })),
            None => Ok(()),
        }
    }
}

/// The string encoding that a component type says in its section `wit-component-encoding`: a version, then a code.
fn strings(component_type: &[u8]) -> Option<StringEncoding> {
    let mut sections = Parser::new(0).parse_all(component_type).map_while(Result::ok);
    sections.find_map(|payload| match payload {
        Payload::CustomSection(section) if section.name() == "wit-component-encoding" => match section.data() {
            [_, 1] => Some(StringEncoding::UTF16),
            [_, 2] => Some(StringEncoding::CompactUTF16),
            _ => Some(StringEncoding::UTF8),
        },
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_answers_all_of_wasi_0_1() {
        assert_eq!(STUB.1.len(), 46, "{:?}", STUB.1);
    }
}
