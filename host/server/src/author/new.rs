//! A new project from a language's template.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::embedded::write_sdk;
use super::languages::Language;
use super::project::{ProjectName, WORK_DIR};

/// What may be in a folder that counts as empty.
const REPOSITORIES: [&str; 3] = [".git", ".hg", ".jj"];

/// Why no project was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewError {
    /// Something is there, and would be mixed with it.
    #[error("{} is there and not empty; a project gets a folder of its own: say another name, or --dir", .0.display())]
    NotEmpty(PathBuf),
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Writes a project that builds and passes its test into a folder that is not there, or empty but for a repository.
///
/// # Errors
///
/// [`NewError`]; what was written until then stays.
pub(crate) fn create(name: &ProjectName, language: &Language, dir: &Path) -> Result<(), NewError> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            let is_content = |entry: DirEntry| !REPOSITORIES.iter().any(|name| entry.file_name() == *name);
            if entries.filter_map(Result::ok).any(is_content) {
                return Err(NewError::NotEmpty(dir.into()));
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(NewError::Io { path: dir.into(), source }),
    }
    for file in language.template {
        let path = dir.join(fill(file.path, name));
        let bytes = match std::str::from_utf8(file.bytes) {
            Ok(text) => fill(text, name).into_bytes(),
            Err(_) => file.bytes.to_vec(),
        };
        let write = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, bytes)
        };
        write().map_err(|source| NewError::Io { path: path.clone(), source })?;
    }
    // An editor finds it before the first build does.
    let sdk = dir.join(WORK_DIR).join("sdk");
    write_sdk(&sdk, language.sdk).map_err(|source| NewError::Io { path: sdk.clone(), source })
}

/// What an author edits, in the order of a first look.
pub(crate) fn files_to_edit(language: &Language) -> [&'static str; 4] {
    [language.source, "plugin.toml", "tests/first.toml", "sample.ndjson"]
}

fn fill(text: &str, name: &ProjectName) -> String {
    let text = text.replace("{{name}}", name.as_str()).replace("{{ident}}", &name.snake_case());
    text.replace("{{Type}}", &name.camel_case())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::author::languages::ALL;
    use crate::author::project::Project;

    #[test]
    fn each_template_becomes_a_project_of_its_name() {
        let name: ProjectName = "my-3-quakes".parse().expect("a name");
        for language in ALL {
            let dir = tempfile::tempdir().expect("a folder");
            let dir = dir.path().join("new");
            // As `git init` leaves a folder.
            fs::create_dir_all(dir.join(".git")).expect("made");
            create(&name, language, &dir).expect("made");
            let project = Project::open(&dir).expect("its plugin.toml is right");
            assert_eq!((&project.name, project.language.name), (&name, language.name));
            for file in files_to_edit(language) {
                let text = fs::read_to_string(dir.join(file)).expect("it is there");
                assert!(!text.contains("{{"), "{}: {file}: {text}", language.name);
            }
            assert!(dir.join(".quipu/sdk/wit/0.1.0/plugin.wit").exists());
            let ignored = fs::read_to_string(dir.join(".gitignore")).expect("it is there");
            assert!(ignored.lines().any(|line| line == ".quipu/"), "{}", language.name);
            assert!(matches!(create(&name, language, &dir), Err(NewError::NotEmpty(_))));
        }
    }
}
