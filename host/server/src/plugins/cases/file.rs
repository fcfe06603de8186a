//! Files of cases: TOML with `[[case]]` tables, or a JSON list.

use std::fs::DirEntry;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Deserialize;
use toml::Spanned;

use super::Case;
use crate::config::Problem;
use crate::files;

/// Largest file of cases, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most files of one project.
const FILES_MAX: usize = 256;

/// Cases of one file.
#[derive(Debug, Clone)]
pub(crate) struct CaseFile {
    pub(crate) path: PathBuf,
    /// As it was read.
    pub(crate) text: String,
    pub(crate) cases: Vec<Placed>,
}

/// A case, and the line that it begins in; 1 in JSON, which nobody reads by lines.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) case: Case,
    pub(crate) line: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    #[serde(default)]
    case: Vec<Spanned<Case>>,
}

/// Reads and checks a file: JSON where it ends in `.json`, else TOML.
///
/// # Errors
///
/// What is wrong with it, with file, line and key.
pub(crate) fn read(path: &Path) -> Result<CaseFile> {
    let text = files::read_text(path, FILE_BYTES_MAX)?;
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let cases = if is_json { json(&text) } else { toml(&text) };
    let cases = cases.map_err(|e| anyhow!("{}:{e:#}", path.display()))?;
    Ok(CaseFile { path: path.to_owned(), text, cases })
}

/// The files `*.toml` of a project's folder `tests`, by name.
///
/// # Errors
///
/// As for [`read`], and where there are none.
pub(crate) fn read_all(project: &Path) -> Result<Vec<CaseFile>> {
    let folder = project.join("tests");
    let entries = std::fs::read_dir(&folder);
    let entries = entries.with_context(|| format!("no cases: cannot read {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if is_cases(&path) {
            paths.push(path);
        }
    }
    ensure!(!paths.is_empty(), "no cases: {} has no file that ends in .toml", folder.display());
    ensure!(paths.len() <= FILES_MAX, "{} has {} files; at most {FILES_MAX} are read", folder.display(), paths.len());
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// As [`read_all`]; a project need not have any.
///
/// # Errors
///
/// As for [`read`].
pub(crate) fn read_any(project: &Path) -> Result<Vec<CaseFile>> {
    let has_extension = |entry: DirEntry| is_cases(&entry.path());
    let mut entries = std::fs::read_dir(project.join("tests")).into_iter().flatten().filter_map(Result::ok);
    if entries.any(has_extension) { read_all(project) } else { Ok(Vec::new()) }
}

fn is_cases(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

fn json(text: &str) -> Result<Vec<Placed>> {
    let cases = super::parse(text).map_err(|e| anyhow!(" {e:#}"))?;
    Ok(cases.into_iter().map(|case| Placed { case, line: 1 }).collect())
}

fn toml(text: &str) -> Result<Vec<Placed>> {
    let deserializer = toml::Deserializer::parse(text).map_err(|e| anyhow!("{}", Problem::syntax(text, &e)))?;
    let cases: Cases =
        serde_path_to_error::deserialize(deserializer).map_err(|e| anyhow!("{}", Problem::shape(text, &e)))?;
    let placed = |spanned: Spanned<Case>| {
        let line = line(text, &spanned.span());
        let case = spanned.into_inner();
        case.check().map_err(|e| anyhow!("{line}: {e:#}"))?;
        Ok(Placed { case, line })
    };
    cases.case.into_iter().map(placed).collect()
}

fn line(text: &str, span: &Range<usize>) -> usize {
    text.get(..span.start).unwrap_or(text).matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Cases.\n\n[[case]]\nname = \"a\"\nmessage = { payload = { n = 1 } }\nexpect = { verdict = \"drop\" }\n\n\
        [[case]]\nname = \"b\"\n[case.message]\nkey = \"k\"\n[case.expect]\nheaders = { h = [\"1\", \"2\"] }\n";

    #[test]
    fn cases_know_their_lines() {
        let cases = toml(TEXT).expect("cases");
        let lines: Vec<_> = cases.iter().map(|placed| (placed.case.name.as_str(), placed.line)).collect();
        assert_eq!(lines, [("a", 3), ("b", 8)]);
        assert_eq!(cases[0].case.message.payload, Some(serde_json::json!({ "n": 1 })));
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let error = |text: &str| format!("{:#}", toml(text).expect_err("refused"));
        assert_eq!(
            error(&TEXT.replace("verdict", "verdikt")),
            "6:12: case[0].expect.verdikt: unknown key; did you mean `verdict`?"
        );
        assert_eq!(
            error(&TEXT.replace("\"drop\"", "\"dropped\"")),
            "6:22: case[0].expect.verdict: expected \"forward\", \"route\", \"drop\", \"retry\", \"reject\" or \"fault\", \
             found \"dropped\""
        );
        assert_eq!(
            error(&TEXT.replace("key = \"k\"", "subject = \"a b\"")),
            "8: case \"b\": message: subject: subject \"a b\" has ' ' in it; a token is made of letters, digits, `-` and `_`"
        );
    }
}
