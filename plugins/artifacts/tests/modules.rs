//! What every stock plugin is: small, a core module, and in need of nothing but the contract.

use quipu_plugin_artifacts::{ALL, StockPlugin, by_name};
use std::fs;
use wasmparser::{KnownCustom, Parser, Payload};

fn payloads(plugin: &StockPlugin) -> impl Iterator<Item = Payload<'static>> {
    Parser::new(0).parse_all(plugin.wasm).map(Result::unwrap)
}

#[test]
fn all_keep_their_limit_of_size() {
    for plugin in ALL {
        let (bytes, kib_max) = (plugin.wasm.len(), plugin.kib_max);
        assert!(bytes <= kib_max << 10, "{plugin:?}: {kib_max} KiB at most");
    }
}

#[test]
fn the_table_of_plugins_has_their_limits_of_size() {
    let table = fs::read_to_string("../README.md").unwrap();
    for StockPlugin { name, kib_max, .. } in ALL {
        let row = table.lines().find(|line| line.starts_with(&format!("| [`{name}`]({name}) |")));
        let limit = match kib_max {
            0..1_000 => format!("| {kib_max} KiB |"),
            _ => format!("| {},{:03} KiB |", kib_max / 1_000, kib_max % 1_000),
        };
        assert!(row.is_some_and(|row| row.ends_with(&limit)), "{name}: {row:?} does not end with {limit}");
    }
}

#[test]
fn all_are_core_modules_with_a_component_type() {
    for plugin in ALL {
        assert!(plugin.wasm.starts_with(b"\0asm\x01\0\0\0"), "{plugin:?}");
        let custom = |starts: &str| {
            payloads(plugin).any(|payload| matches!(payload, Payload::CustomSection(s) if s.name().starts_with(starts)))
        };
        assert!(custom("component-type"), "{plugin:?} has no component type");
        assert!(!custom(".debug"), "{plugin:?} has debug information");
    }
}

#[test]
fn all_import_the_contract_alone() {
    for plugin in ALL {
        let mut count = 0;
        for payload in payloads(plugin) {
            let Payload::ImportSection(imports) = payload else { continue };
            for import in imports.into_imports() {
                let import = import.unwrap();
                assert!(
                    import.module.starts_with("quipu:plugin/"),
                    "{plugin:?} imports {} {}",
                    import.module,
                    import.name
                );
                count += 1;
            }
        }
        assert!(count > 0, "{plugin:?} imports nothing");
    }
}

#[test]
fn all_keep_their_names_for_backtraces() {
    for plugin in ALL {
        let named = payloads(plugin).any(|payload| {
            matches!(payload, Payload::CustomSection(section) if matches!(section.as_known(), KnownCustom::Name(_)))
        });
        assert!(named, "{plugin:?} has no name section");
    }
}

#[test]
fn all_are_on_disk() {
    for plugin in ALL {
        assert_eq!(fs::read(plugin.path).unwrap(), plugin.wasm, "{plugin:?}");
    }
    assert!(by_name("no-such-plugin").is_none());
}
