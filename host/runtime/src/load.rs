//! From a file's bytes to compiled code that is known to fit the contract. Runs nothing of the plugin.

mod encode;
mod survey;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{self, Linker};

use crate::bindings::PluginPre;
use crate::bindings::quipu::plugin::types::Verdict;
use crate::component::Compiled;
use crate::host::Host;
use crate::plugin::Digest;
use crate::slots::Slots;
use crate::text::{Line, Size, start};

/// Largest plugin file, in bytes. The time and memory that compiling takes grow with it.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// Why a file is no plugin that this router can run. Each text names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Larger than 64 MiB.
    #[error("{file} has {bytes} bytes; a plugin has at most {}", Size(FILE_BYTES_MAX))]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: usize,
    },
    /// Something else than WebAssembly.
    #[error("{file} is not WebAssembly: it {begins}")]
    NotWasm {
        /// The file.
        file: String,
        /// How it begins.
        begins: String,
    },
    /// Cut off, damaged, or made for an engine with other features.
    #[error("{file} is damaged, or WebAssembly that this router does not run: {reason}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// Needs something from outside that nobody gives it.
    #[error(
        "{file} imports `{import}`, which the router does not offer: plugins have the interfaces of quipu:plugin@0.1 and \
         nothing else"
    )]
    Import {
        /// The file.
        file: String,
        /// The first such import.
        import: String,
    },
    /// Made for a contract of another age.
    #[error(
        "{file} is made for version {version} of the plugin contract, as its `{name}` says; this router has 0.1: build it \
         against the contract of this router"
    )]
    ContractVersion {
        /// The file.
        file: String,
        /// Which one.
        version: String,
        /// The import or export that says so.
        name: String,
    },
    /// Needs something that is there, with another type.
    #[error("{file} imports something of the plugin contract with another type than it has there: {reason}")]
    ImportType {
        /// The file.
        file: String,
        /// Which import, and how it differs.
        reason: String,
    },
    /// Lacks what a plugin must have.
    #[error("{file} does not export `{export}`")]
    Export {
        /// The file.
        file: String,
        /// What is missing.
        export: String,
    },
    /// Has what a plugin must have, with another type.
    #[error("{file} exports `{export}` with another type than the plugin contract says: {reason}")]
    ExportType {
        /// The file.
        file: String,
        /// What it exports.
        export: String,
        /// How it differs.
        reason: String,
    },
    /// A core module that does not become a component by the contract's rules.
    #[error("{file} does not keep to the plugin contract: {reason}")]
    Contract {
        /// The file.
        file: String,
        /// Which name or type is at fault.
        reason: String,
    },
    /// Small or not, it would take too much to compile.
    #[error("{file} has {found} {what}; a plugin has at most {most}")]
    TooComplex {
        /// The file.
        file: String,
        /// Of what there is too much.
        what: &'static str,
        /// How many there are, or how many were counted before counting ended.
        found: u64,
        /// How many are allowed.
        most: u64,
    },
    /// Compiled code that is not this file's, or that the engine does not take.
    #[error("the compiled code of {file} cannot be used: {reason}")]
    Compiled {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The system gave no thread, or no compiler.
    #[error("{file} cannot be compiled now: {reason}")]
    System {
        /// The file.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// More than the whole pool has.
    #[error("{file} needs {needed} {what}; the router has {total} in all")]
    Slots {
        /// The file.
        file: String,
        /// Linear memories or tables.
        what: &'static str,
        /// How many one instance takes.
        needed: u32,
        /// How many there are.
        total: u32,
    },
}

/// What a plugin must export; a later 0.1 version of it will do.
const HANDLER: &str = "quipu:plugin/handler@0.1.0";

/// Interfaces of `quipu:plugin` that plugins may import.
const OFFERED: [&str; 6] = ["types", "message", "edit", "emit", "context", "log"];

/// Refuses what is too large to look at.
pub(crate) fn check_size(file: &str, bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { file: file.into(), bytes: bytes.len() });
    }
    Ok(())
}

/// Refuses what no pool of this size could ever hold.
pub(crate) fn check_slots(file: &str, needed: Slots, total: Slots) -> Result<(), LoadError> {
    let pairs = [("linear memories", needed.memories, total.memories), ("tables", needed.tables, total.tables)];
    match pairs.into_iter().find(|(_, needed, total)| needed > total) {
        Some((what, needed, total)) => Err(LoadError::Slots { file: file.into(), what, needed, total }),
        None => Ok(()),
    }
}

/// What is known of a file besides its code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Of the functions that the file defines: the first 256.
    pub(crate) functions: Vec<String>,
    pub(crate) has_names: bool,
}

/// Stack of the thread that reads a file. Readers of nested types call themselves; the survey bounds how often.
const STACK_BYTES: usize = 16 << 20;

/// Looks through the file, encodes it where needed, and compiles it, on a thread with room.
pub(crate) fn compile(
    engine: &wasmtime::Engine,
    file: &str,
    bytes: &[u8],
) -> Result<(component::Component, Facts), LoadError> {
    let work = || {
        let kind = kind(file, bytes)?;
        let survey::Survey { functions, has_names } = survey::survey(file, bytes)?;
        let encoded = match kind {
            Kind::Component => Cow::Borrowed(bytes),
            Kind::Module => Cow::Owned(encode::component(file, bytes)?),
        };
        let component = component::Component::from_binary(engine, &encoded)
            .map_err(|e| LoadError::Invalid { file: file.into(), reason: reason(&format_args!("{e:#}")) })?;
        Ok((component, Facts { functions, has_names }))
    };
    let system = |reason: String| LoadError::System { file: file.into(), reason };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("quipu-compile".into()).stack_size(STACK_BYTES);
        let compiling = thread.spawn_scoped(scope, work).map_err(|e| system(e.to_string()))?;
        compiling.join().unwrap_or_else(|_| Err(system("the compiler panicked".into())))
    })
}

/// Checks imports and exports of what was compiled, and ties it to the router's functions.
pub(crate) fn link(
    linker: &Linker<Host>,
    file: &str,
    (component, facts): (component::Component, Facts),
    (digest, bytes): (Digest, usize),
) -> Result<Compiled, LoadError> {
    let engine = linker.engine();
    let outside = component.component_type();
    let imports: Vec<String> = outside.imports(engine).map(|(name, _)| name.to_owned()).collect();
    check_imports(file, imports.iter().map(String::as_str))?;
    let needs = component.resources_required();
    let needed = |count: u32| count.max(1);
    let slots = Slots {
        instances: 1,
        memories: needed(needs.as_ref().map_or(1, |n| n.num_memories)),
        tables: needed(needs.as_ref().map_or(1, |n| n.num_tables)),
    };
    let pre = linker
        .instantiate_pre(&component)
        .map_err(|e| LoadError::ImportType { file: file.into(), reason: reason(&format_args!("{e:#}")) })?;
    let version = check_exports(file, &outside, engine)?;
    let pre = PluginPre::new(pre).map_err(|e| LoadError::ExportType {
        file: file.into(),
        export: HANDLER.into(),
        reason: reason(&format_args!("{e:#}")),
    })?;
    Ok(Compiled { pre, digest, bytes, imports, slots, version, facts })
}

enum Kind {
    Component,
    Module,
}

fn kind(file: &str, bytes: &[u8]) -> Result<Kind, LoadError> {
    let not_wasm = |begins: String| LoadError::NotWasm { file: file.into(), begins };
    match bytes {
        [] => Err(not_wasm("is empty".into())),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Kind::Module),
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(Kind::Component),
        [0, b'a', b's', b'm', rest @ ..] => {
            let version = &rest[..rest.len().min(4)];
            let reason =
                format!("version bytes {version:02x?}; a module has [01, 00, 00, 00], a component [0d, 00, 01, 00]");
            Err(LoadError::Invalid { file: file.into(), reason })
        }
        other => Err(not_wasm(format!("begins with \"{}\"", other[..other.len().min(8)].escape_ascii()))),
    }
}

/// Refuses the first import that is not offered.
fn check_imports<'a>(file: &str, imports: impl IntoIterator<Item = &'a str>) -> Result<(), LoadError> {
    match imports.into_iter().find(|import| !is_offered(import)) {
        Some(import) => Err(other_version(file, import)
            .unwrap_or_else(|| LoadError::Import { file: file.into(), import: import.into() })),
        None => Ok(()),
    }
}

/// Where a name of the contract has another version than 0.1.n.
fn other_version(file: &str, name: &str) -> Option<LoadError> {
    let (_, rest) = name.strip_prefix("quipu:plugin/")?.split_once('@')?;
    let version = rest.split('#').next().filter(|version| !version.starts_with("0.1."))?;
    let [version, name] = [version, name].map(|text| reason(&text));
    Some(LoadError::ContractVersion { file: file.into(), version, name })
}

/// Whether this is an interface of the contract, in any version 0.1.n: those that are newer than the router's link where
/// they have what is imported.
fn is_offered(import: &str) -> bool {
    let interface = import.strip_prefix("quipu:plugin/").and_then(|rest| rest.split_once("@0.1."));
    interface.is_some_and(|(name, patch)| OFFERED.contains(&name) && patch.bytes().all(|b| b.is_ascii_digit()))
}

/// Looks for the handler and both its functions, and at their types, so that the error can name what is wrong; the engine
/// would find out only when it makes an instance. The version of the contract that the handler was made for.
fn check_exports(file: &str, outside: &types::Component, engine: &wasmtime::Engine) -> Result<String, LoadError> {
    let missing = |export: String| LoadError::Export { file: file.into(), export };
    let mistyped = |export: String, reason: String| LoadError::ExportType { file: file.into(), export, reason };
    let handler = outside.exports(engine).find(|(name, _)| name.starts_with("quipu:plugin/handler@0.1."));
    let (name, handler) = handler.ok_or_else(|| {
        let mut others = outside.exports(engine).filter_map(|(name, _)| other_version(file, name));
        others.next().unwrap_or_else(|| missing(HANDLER.into()))
    })?;
    let ComponentItem::ComponentInstance(handler) = handler.ty else {
        return Err(mistyped(name.into(), "it is no interface".into()));
    };
    let context = outside.instance_type();
    for (function, fits) in HANDLER_FUNCTIONS {
        let export = format!("{name}#{function}");
        match handler.get_export(engine, function).map(|item| item.ty) {
            None => return Err(missing(export)),
            Some(ComponentItem::ComponentFunc(found)) => {
                fits(&found, &context).map_err(|e| mistyped(export, reason(&format_args!("{e:#}"))))?;
            }
            Some(_) => return Err(mistyped(export, "it is no function".into())),
        }
    }
    Ok(name.rsplit_once('@').map_or("", |(_, version)| version).to_owned())
}

type Fits = fn(&types::ComponentFunc, &component::__internal::InstanceType<'_>) -> wasmtime::Result<()>;

/// The handler's functions, by the types that the bindings have for them.
const HANDLER_FUNCTIONS: [(&str, Fits); 2] = [
    ("configure", |found, context| found.typecheck::<(), (Result<(), String>,)>(context)),
    ("process", |found, context| found.typecheck::<(), (Verdict,)>(context)),
];

/// A text that may quote the file: one line, and not too long.
fn reason(text: &dyn std::fmt::Display) -> String {
    Line(start(&text.to_string(), REASON_BYTES_MAX)).to_string()
}

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_of_the_contract_is_offered_and_nothing_else() {
        for good in ["quipu:plugin/message@0.1.0", "quipu:plugin/log@0.1.17"] {
            assert!(is_offered(good), "{good}");
        }
        for other in [
            "quipu:plugin/message",
            "quipu:plugin/message@0.2.0",
            "quipu:plugin/message@0.1.0-rc",
            "quipu:plugin/state@0.1.1",
            "wasi:sockets/tcp@0.2.0",
            "env",
        ] {
            assert!(!is_offered(other), "{other}");
        }
    }
}
