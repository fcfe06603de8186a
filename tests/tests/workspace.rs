//! The workspace's shape: dependencies point down only, and guests and host share no crate.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Which floor a crate is on; one may depend on lower floors alone, and on its own where it says so.
const FLOORS: [(&str, u8); 6] = [
    ("quipu-protocol", 0),
    ("quipu-client", 1),
    ("quipu-queue", 1),
    ("quipu-runtime", 1),
    ("quipu-router", 2),
    ("quipu", 3),
];

/// Folders of crates that are compiled into plugins, and those in them that are not.
const GUESTS: [&str; 4] = ["plugin-sdk/", "plugins/", "tests/guests/", "examples/orders/plugin/"];
const NO_GUESTS: [&str; 2] = ["quipu-plugin-artifacts", "quipu-plugin-builder"];

fn packages() -> BTreeMap<String, Package> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata");
    metadata.packages.into_iter().map(|package| (package.name.to_string(), package)).collect()
}

fn dependencies(package: &Package) -> BTreeSet<&str> {
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.as_str()).collect()
}

fn guests(packages: &BTreeMap<String, Package>) -> BTreeSet<&str> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
    let root = std::fs::canonicalize(root).expect("the workspace's folder");
    let is_guest = |package: &Package| {
        let folder = package.manifest_path.as_std_path().strip_prefix(&root).expect("a member's path");
        GUESTS.iter().any(|guests| folder.starts_with(guests))
    };
    let names = packages.iter().filter(|(_, package)| is_guest(package)).map(|(name, _)| name.as_str());
    names.filter(|name| !NO_GUESTS.contains(name)).collect()
}

#[test]
fn dependencies_point_down() {
    let packages = packages();
    let floors = BTreeMap::from(FLOORS);
    for (name, floor) in &floors {
        for dependency in dependencies(&packages[*name]) {
            if let Some(lower) = floors.get(dependency) {
                assert!(lower < floor, "{name} (floor {floor}) depends on {dependency} (floor {lower})");
            }
        }
    }
}

#[test]
fn heavy_dependencies_are_in_one_place() {
    for (crate_name, owner) in [("wasmtime", "quipu-runtime"), ("redb", "quipu-queue"), ("cel", "quipu-router")] {
        for (name, package) in packages() {
            assert!(name == owner || !dependencies(&package).contains(crate_name), "{name} depends on {crate_name}");
        }
    }
}

#[test]
fn the_protocol_knows_no_runtime_and_no_network() {
    let packages = packages();
    for banned in ["tokio", "quinn", "rustls", "rand", "uuid"] {
        assert!(!dependencies(&packages["quipu-protocol"]).contains(banned), "quipu-protocol depends on {banned}");
    }
    assert!(!dependencies(&packages["quipu-queue"]).contains("quinn"));
}

#[test]
fn guests_and_host_share_no_crate_of_ours() {
    let packages = packages();
    let guests = guests(&packages);
    assert!(guests.contains("quipu-plugin") && guests.contains("quipu-filter-json"));
    for guest in &guests {
        for dependency in dependencies(&packages[*guest]) {
            let ours = packages.contains_key(dependency);
            assert!(!ours || dependency == "quipu-plugin", "{guest} depends on {dependency}");
        }
    }
    for (name, _) in FLOORS {
        for dependency in dependencies(&packages[name]) {
            assert!(!guests.contains(dependency), "{name} depends on {dependency}");
        }
    }
}
