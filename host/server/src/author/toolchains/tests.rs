use std::fs;
use std::path::Path;

use super::*;

/// A toolbox whose folder holds these files.
fn toolbox(dir: &Path, files: &[(&str, &str)]) -> Toolbox {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    Toolbox { dir: dir.into(), asked_from: dir.into() }
}

#[test]
fn the_list_is_whole() {
    for (name, tool) in &Toolchains::embedded().0 {
        match tool.registry {
            Registry::System => {
                assert!(!tool.ask.is_empty() && tool.at_least.is_some() && !tool.get.is_empty(), "{name}");
            }
            Registry::Rustup => assert!(name.starts_with("wasm32"), "{name}"),
            Registry::Pypi | Registry::Npm => {
                assert!(!tool.package.is_empty() && tool.version.is_some() && !tool.program.is_empty(), "{name}");
            }
        }
    }
}

#[test]
fn a_package_is_found_where_it_was_installed() {
    let dir = tempfile::tempdir().expect("a folder");
    let pinned = Toolchains::embedded().tool("componentize-py").expect("listed").wanted();
    let info = format!("venv/lib/python3.11/site-packages/componentize_py-{pinned}.dist-info/METADATA");
    let tools = toolbox(dir.path(), &[("venv/bin/componentize-py", ""), (&info, "")]);
    let found = tools.find("componentize-py").expect("found");
    assert_eq!((found.program, found.version), (dir.path().join("venv/bin/componentize-py"), pinned));
}

#[test]
fn a_package_of_another_version_will_not_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let package = "node/node_modules/componentize-qjs/package.json";
    let missing = toolbox(dir.path(), &[(package, "{ \"version\": \"0.3.0\" }")]).find("componentize-qjs");
    let pinned = Toolchains::embedded().tool("componentize-qjs").expect("listed").wanted();
    assert_eq!(
        missing.expect_err("an old one").to_string(),
        format!("needs componentize-qjs {pinned}, found 0.3.0; get it: quipu plugin doctor --install")
    );
}

#[test]
fn what_is_on_the_path_is_asked_for_its_version() {
    let dir = tempfile::tempdir().expect("a folder");
    let found = toolbox(dir.path(), &[]).find("cargo").expect("these tests are built by one");
    assert_eq!(found.place, "PATH");
    assert!(at_least(&found.version, "1.95"), "{}", found.version);
}
