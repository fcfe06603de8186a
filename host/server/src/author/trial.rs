//! Cases of a project, tried on its plugin: what each came to, and capsules of those that failed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use quipu_runtime::{Capsule, Component, Use};
use regex::Regex;

use crate::files;
use crate::plugins::cases::file::{CaseFile, Placed};
use crate::plugins::cases::{Case, Difference, Tried};
use crate::plugins::version::unix_ms;

/// Longest name of a capsule's file, in bytes.
const FILE_NAME_BYTES_MAX: usize = 64;

/// A case that was tried.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Which of the files.
    pub(crate) file: usize,
    /// Which of its cases.
    pub(crate) index: usize,
    pub(crate) line: usize,
    pub(crate) case: Case,
    pub(crate) tried: Tried,
    /// Where what it saw was written, where it failed.
    pub(crate) capsule: Option<PathBuf>,
}

impl Outcome {
    pub(crate) fn passed(&self) -> bool {
        self.tried.differences.is_empty()
    }
}

/// Tries every case whose name the filter finds, each on an instance of its own.
///
/// Blocks, for at most two deadlines a case.
///
/// # Errors
///
/// A capsule cannot be written.
pub(crate) fn run(
    component: &Component,
    r#use: &Use,
    files: &[CaseFile],
    filter: Option<&Regex>,
    dir: &Path,
) -> Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut names = Names::default();
    for (file, cases) in files.iter().enumerate() {
        for (index, Placed { case, line }) in cases.cases.iter().enumerate() {
            let name = names.of(&case.name);
            if filter.is_some_and(|filter| !filter.is_match(&case.name)) {
                continue;
            }
            let mut tried = case.try_on(component, r#use, unix_ms())?;
            if case.expect.is_empty() {
                tried.differences.push(nothing_expected());
            }
            let path = failed_dir(dir).join(name);
            let capsule = if tried.differences.is_empty() {
                // Of an earlier run; that there is none is as good.
                std::fs::remove_file(&path).ok();
                None
            } else {
                write_capsule(&path, &tried.capsule)?;
                Some(path)
            };
            outcomes.push(Outcome { file, index, line: *line, case: case.clone(), tried, capsule });
        }
    }
    Ok(outcomes)
}

/// A test that cannot fail is none.
fn nothing_expected() -> Difference {
    let found = "nothing; --bless writes down what the plugin does now".to_owned();
    Difference { what: "expect".into(), place: None, expected: "something".into(), found }
}

/// Where capsules of a project go.
pub(crate) fn failed_dir(dir: &Path) -> PathBuf {
    let dir = if dir == Path::new(".") { Path::new("") } else { dir };
    dir.join(".quipu").join("failed")
}

/// Writes a capsule, with the folders that it is in. It has the plugin's configuration in it, and whatever secrets that has.
///
/// # Errors
///
/// It cannot be written.
pub(crate) fn write_capsule(path: &Path, capsule: &Capsule) -> Result<()> {
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = written.and_then(|()| files::write_private(path, &(capsule.to_json() + "\n")));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// File names made of other names, each once.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeSet<String>);

impl Names {
    pub(crate) fn of(&mut self, text: &str) -> String {
        let mut name = String::new();
        for c in text.chars() {
            match c {
                c if c.is_ascii_alphanumeric() || c == '.' || c == '_' => name.push(c),
                _ if name.ends_with('-') => {}
                _ => name.push('-'),
            }
        }
        let name = name.trim_matches(['-', '.']);
        let name = if name.is_empty() { "case" } else { &name[..name.len().min(FILE_NAME_BYTES_MAX)] };
        let numbered = (2_usize..).map(|n| format!("{name}-{n}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        let free = names.find(|name| self.0.insert(name.clone()));
        free.unwrap_or_default() // the names do not end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capsules_have_names_that_files_can_have() {
        let mut names = Names::default();
        assert_eq!(names.of("keeps the place"), "keeps-the-place");
        assert_eq!(names.of("keeps: the place!"), "keeps-the-place-2");
        // What a number was put to may be a name of its own.
        assert_eq!(
            [names.of("keeps the place 2"), names.of("keeps the place")],
            ["keeps-the-place-2-2", "keeps-the-place-3"]
        );
        assert_eq!(names.of("../../etc/passwd"), "etc-passwd");
        assert_eq!(names.of("ü"), "case");
        assert_eq!(names.of(&"a".repeat(200)).len(), FILE_NAME_BYTES_MAX);
    }

    #[test]
    fn capsules_go_into_the_projects_own_folder() {
        assert_eq!(failed_dir(Path::new(".")), Path::new(".quipu/failed"));
        assert_eq!(failed_dir(Path::new("a/b")), Path::new("a/b/.quipu/failed"));
    }
}
