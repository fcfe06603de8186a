//! Changes to built files that some compilers cannot be told to make: debug information out, exports under other names.
//! And what a file needs from outside, for those who cannot read its bytes.
//!
//! Nothing here says whether a file is a plugin: that is for the runtime.

use wasm_encoder::{Encode as _, RawSection, Section as _};
use wasmparser::{BinaryReader, BinaryReaderError, Parser, Payload};

/// Magic and version, before the first section.
const HEADER_BYTES: usize = 8;
const CUSTOM_SECTION: u8 = 0;
const EXPORT_SECTION: u8 = 7;
/// Sections of a component that hold a whole module or component.
const NESTED_SECTIONS: [u8; 2] = [1, 4];
/// Deepest nesting of components that is gone into. Compilers make two or three levels.
const NESTING_MAX: usize = 32;

/// Why a file cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WasmError {
    /// It is none, or damaged.
    #[error("the compiler's file is no WebAssembly that can be read: {0}")]
    Damaged(#[from] BinaryReaderError),
    /// It is too short, or begins otherwise.
    #[error("the compiler's file is no WebAssembly")]
    Foreign,
    /// Nobody nests components like this.
    #[error("the compiler's file has components inside of each other, more than {NESTING_MAX} deep")]
    Nesting,
    /// There is nothing of this name to give another to.
    #[error("the compiler's file has no export `{0}`")]
    NoExport(String),
}

/// Takes debug information out of a module or a component. Names of functions stay: a fault's trace shows them.
///
/// # Errors
///
/// The file cannot be read.
pub(crate) fn strip(bytes: &[u8]) -> Result<Vec<u8>, WasmError> {
    strip_nested(bytes, 0)
}

fn strip_nested(bytes: &[u8], depth: usize) -> Result<Vec<u8>, WasmError> {
    if depth > NESTING_MAX {
        return Err(WasmError::Nesting);
    }
    let is_component = is_component(bytes)?;
    each_section(bytes, |id, data, out| {
        if id == CUSTOM_SECTION && is_for_debuggers(BinaryReader::new(data, 0).read_string()?) {
            return Ok(());
        }
        if is_component && NESTED_SECTIONS.contains(&id) {
            RawSection { id, data: &strip_nested(data, depth + 1)? }.append_to(out);
        } else {
            RawSection { id, data }.append_to(out);
        }
        Ok(())
    })
}

/// Gives exports of a core module other names, or takes them away where the new name is none. The others stay.
///
/// # Errors
///
/// The file is no module, or has no export of one of these names.
pub(crate) fn rename_exports(bytes: &[u8], names: &[(&str, Option<&str>)]) -> Result<Vec<u8>, WasmError> {
    if is_component(bytes)? {
        return Err(WasmError::Foreign);
    }
    let mut missing: Vec<&str> = names.iter().map(|(from, _)| *from).collect();
    let renamed = each_section(bytes, |id, data, out| {
        if id == EXPORT_SECTION {
            let data = rename(data, names, &mut missing)?;
            RawSection { id, data: &data }.append_to(out);
        } else {
            RawSection { id, data }.append_to(out);
        }
        Ok(())
    })?;
    match missing.first() {
        Some(name) => Err(WasmError::NoExport((*name).to_owned())),
        None => Ok(renamed),
    }
}

/// What a file shows to the outside.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    /// Each interface or module once, in the file's order.
    pub(crate) imports: Vec<Import>,
    pub(crate) exports: Vec<String>,
}

/// Something from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// An interface; of a core module, the module that it imports from.
    pub(crate) module: String,
    /// Of a core module, the first name that it imports from there.
    pub(crate) name: String,
}

/// Reads imports and exports of a module or a component.
///
/// # Errors
///
/// The file cannot be read.
pub(crate) fn outline(bytes: &[u8]) -> Result<Outline, WasmError> {
    let (mut outline, mut depth) = (Outline::default(), 0_usize);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            // What is inside of a component is answered in there.
            _ if depth > 0 => {}
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    outline.import(import.module, import.name);
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    outline.import(import?.name.name, "");
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    outline.exports.push(export?.name.into());
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    outline.exports.push(export?.name.name.into());
                }
            }
            _ => {}
        }
    }
    Ok(outline)
}

impl Outline {
    fn import(&mut self, module: &str, name: &str) {
        if !self.imports.iter().any(|known| known.module == module) {
            self.imports.push(Import { module: module.into(), name: name.into() });
        }
    }
}

/// Hands each section to `put`, which writes what should stand there.
fn each_section(
    bytes: &[u8],
    mut put: impl FnMut(u8, &[u8], &mut Vec<u8>) -> Result<(), WasmError>,
) -> Result<Vec<u8>, WasmError> {
    let header = bytes.get(..HEADER_BYTES).ok_or(WasmError::Foreign)?;
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(header);
    let mut reader = BinaryReader::new(&bytes[HEADER_BYTES..], HEADER_BYTES);
    while !reader.eof() {
        let id = reader.read_u8()?;
        let length = reader.read_var_u32()?;
        put(id, reader.read_bytes(length as usize)?, &mut out)?;
    }
    Ok(out)
}

fn rename(section: &[u8], names: &[(&str, Option<&str>)], missing: &mut Vec<&str>) -> Result<Vec<u8>, WasmError> {
    let mut reader = BinaryReader::new(section, 0);
    let (mut count, mut entries) = (0_u32, Vec::new());
    for _ in 0..reader.read_var_u32()? {
        let (name, kind, index) = (reader.read_string()?, reader.read_u8()?, reader.read_var_u32()?);
        missing.retain(|wanted| *wanted != name);
        let renamed = names.iter().find(|(from, _)| *from == name).map_or(Some(name), |(_, to)| *to);
        if let Some(name) = renamed {
            count += 1;
            name.encode(&mut entries);
            entries.push(kind);
            index.encode(&mut entries);
        }
    }
    let mut section = Vec::new();
    count.encode(&mut section);
    section.extend_from_slice(&entries);
    Ok(section)
}

fn is_component(bytes: &[u8]) -> Result<bool, WasmError> {
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(false),
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(true),
        _ => Err(WasmError::Foreign),
    }
}

fn is_for_debuggers(section: &str) -> bool {
    section.starts_with(".debug")
        || section.starts_with("reloc.")
        || ["linking", "sourceMappingURL", "external_debug_info"].contains(&section)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("valid WAT")
    }

    const MODULE: &str = r#"(module (import "quipu:plugin/log@0.1.0" "fault" (func $fault (param i32 i32 i32 i32)))
        (func $one (export "one")) (memory (export "memory") 1) (func $two (export "two"))
        (@custom ".debug_info" "long") (@custom "component-type:x" "kept"))"#;

    fn custom_sections(bytes: &[u8]) -> Vec<String> {
        let sections = Parser::new(0).parse_all(bytes).filter_map(|payload| match payload.expect("valid") {
            Payload::CustomSection(section) => Some(section.name().to_owned()),
            _ => None,
        });
        sections.collect()
    }

    #[test]
    fn debug_information_goes_and_names_stay() {
        let before = module(MODULE);
        assert_eq!(custom_sections(&before).len(), 3);
        let mut kept = custom_sections(&strip(&before).expect("stripped"));
        kept.sort();
        assert_eq!(kept, ["component-type:x", "name"]);
        let nested = format!("(component (core module {}", &MODULE["(module".len()..]);
        let mut kept = custom_sections(&strip(&module(&format!("{nested})"))).expect("stripped"));
        kept.sort();
        assert_eq!(kept, ["component-type:x", "name"]);
    }

    #[test]
    fn what_is_stripped_is_the_same_otherwise() {
        let plain = module(r#"(module (func (export "f") (result i32) i32.const 7))"#);
        assert_eq!(strip(&plain).expect("stripped"), plain);
    }

    #[test]
    fn exports_get_other_names() {
        let names = [("one", Some("quipu:plugin/handler@0.1.0#process")), ("two", None)];
        let renamed = rename_exports(&module(MODULE), &names).expect("renamed");
        assert_eq!(outline(&renamed).expect("valid").exports, ["quipu:plugin/handler@0.1.0#process", "memory"]);
        wasmparser::validate(&renamed).expect("still valid");
        let error = rename_exports(&module(MODULE), &[("three", None)]).expect_err("not there").to_string();
        assert_eq!(error, "the compiler's file has no export `three`");
    }

    #[test]
    fn an_outline_is_of_the_outside() {
        let found = outline(&module(MODULE)).expect("valid");
        let import = |module: &str, name: &str| Import { module: module.into(), name: name.into() };
        assert_eq!(found.imports, [import("quipu:plugin/log@0.1.0", "fault")]);
        assert_eq!(found.exports, ["one", "memory", "two"]);
        let component = r#"(component (import "wasi:cli/exit@0.2.0" (instance))
            (core module (import "inside" "f" (func)) (func (export "g"))))"#;
        let found = outline(&module(component)).expect("valid");
        assert_eq!(found, Outline { imports: vec![import("wasi:cli/exit@0.2.0", "")], exports: Vec::new() });
    }

    #[test]
    fn what_is_no_webassembly_is_refused() {
        for bytes in [&b""[..], b"\0asm", b"#!/bin/sh\necho"] {
            assert!(matches!(strip(bytes), Err(WasmError::Foreign)), "{bytes:?}");
        }
        let mut cut = module(MODULE);
        cut.truncate(cut.len() - 3);
        assert!(matches!(strip(&cut), Err(WasmError::Damaged(_))));
    }
}
