//! Which files a module was made from: cargo's dep-info has the sources, of path dependencies too, and the contract
//! that the bindings are generated from; the manifests are found beside them.

use crate::BuildError;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn sources(wasm: &Path, workspace_root: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let path = wasm.with_extension("d");
    let text = fs::read_to_string(&path).map_err(|source| BuildError::Io { path, source })?;
    let mut all: BTreeSet<PathBuf> = parse(&text).collect();
    let manifests: Vec<_> = all.iter().filter_map(|source| manifest_of(source)).collect();
    all.extend(manifests);
    let of_workspace = ["Cargo.toml", "Cargo.lock"].map(|name| workspace_root.join(name));
    all.extend(of_workspace.into_iter().filter(|path| path.exists()));
    Ok(all.into_iter().collect())
}

/// The nearest one up. The contract's files have none but the workspace's.
fn manifest_of(source: &Path) -> Option<PathBuf> {
    source.ancestors().map(|dir| dir.join("Cargo.toml")).find(|manifest| manifest.is_file())
}

/// `OUTPUT: SOURCE SOURCE …`, where a blank inside of a name is written `\ `.
fn parse(text: &str) -> impl Iterator<Item = PathBuf> {
    let line = text.lines().next().unwrap_or_default();
    let sources = line.split_once(": ").map_or("", |(_, sources)| sources);
    let joined = sources.replace("\\ ", "\0");
    joined.split_whitespace().map(|path| path.replace('\0', " ").into()).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::{parse, sources};
    use std::fs;
    use std::path::{Path, PathBuf};

    #[test]
    fn reads_names_with_blanks() {
        let found: Vec<_> = parse("/t/p.wasm: /w/a.rs /w/my\\ own/b.rs\n").collect();
        assert_eq!(found, [PathBuf::from("/w/a.rs"), PathBuf::from("/w/my own/b.rs")]);
        assert_eq!(parse("").count(), 0);
    }

    #[test]
    fn adds_the_manifests() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let source = file("plugins/p/src/lib.rs", "");
        file("plugins/p/Cargo.toml", "");
        file("Cargo.toml", "");
        let wasm = root.path().join("p.wasm");
        file("p.d", &format!("{}: {}\n", wasm.display(), source.display()));
        let found = sources(&wasm, root.path()).unwrap();
        let found: Vec<_> = found.iter().map(|path| path.strip_prefix(root.path()).unwrap()).collect();
        assert_eq!(found, ["Cargo.toml", "plugins/p/Cargo.toml", "plugins/p/src/lib.rs"].map(Path::new));
    }
}
