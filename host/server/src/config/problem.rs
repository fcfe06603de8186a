//! What is wrong in a configuration, and where: serde's errors and our own in one form.

use std::fmt;
use std::ops::Range;

use serde_path_to_error::{Path, Segment};

use crate::nearest::nearest;

/// Longest quotation of a wrong value, in characters.
const QUOTE_CHARS_MAX: usize = 80;

/// One thing that is wrong, as `line:column: key path: what was expected`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    /// As in `route[0].plugins[1].name`; empty for what concerns no key.
    pub(crate) key: String,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

impl Problem {
    /// Something wrong at these bytes of the text.
    pub(crate) fn at(text: &str, span: &Range<usize>, key: impl Into<String>, message: impl Into<String>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key: key.into(),
            message: message.into(),
        }
    }

    /// What the parser says.
    pub(crate) fn syntax(text: &str, error: &toml::de::Error) -> Self {
        let lines: Vec<&str> = error.message().lines().collect();
        Self::at(text, &error.span().unwrap_or_default(), "", lines.join("; "))
    }

    /// What serde says, in our words.
    pub(crate) fn shape(text: &str, error: &serde_path_to_error::Error<toml::de::Error>) -> Self {
        let path = key_path(error.path());
        let span = error.inner().span().unwrap_or_default();
        let said = error.inner().message();
        let message = if let Some((unknown, known)) = between(said, "unknown field `", "`, ") {
            unknown_key(&path, unknown, known, is_header(text, span.start))
        } else if let Some((missing, _)) = between(said, "missing field `", "`") {
            format!("the key `{missing}` is missing")
        } else {
            mismatch(said).unwrap_or_else(|| said.to_owned())
        };
        let hint = if path == "route" && message.ends_with("found a table") { "; write [[route]]" } else { "" };
        Self::at(text, &span, path, message + hint)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A key below a path, quoted where TOML would want it quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// `path` ends with the unknown key; `known` is how serde lists the others.
fn unknown_key(path: &str, unknown: &str, known: &str, is_header: bool) -> String {
    // Odd pieces are inside backticks.
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let table = path.strip_suffix(&join("", unknown)).and_then(|table| table.strip_suffix('.')).unwrap_or_default();
    if let Some(queue) = table.strip_prefix("queue.").filter(|queue| is_header && !queue.contains('"')) {
        return format!("a queue's name with dots is quoted, as in [queue.\"{queue}.{unknown}\"]");
    }
    if table.contains("].plugins[") && ["deadline", "memory", "output"].contains(&unknown) {
        return format!("`{unknown}` is the same in every route: set it in [plugin.NAME]");
    }
    if let Some(nearest) = nearest(unknown, known.iter().copied()) {
        return format!("unknown key; did you mean `{nearest}`?");
    }
    let keys: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
    format!("unknown key; the keys here are {}", keys.join(", "))
}

/// Whether what is at this byte is in a `[header]`.
fn is_header(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    before.lines().next_back().is_some_and(|line| line.trim_start().starts_with('[')) && !before.ends_with('\n')
}

/// Turns `invalid type: integer `50`, expected a string` into `expected a string, found 50`.
fn mismatch(said: &str) -> Option<String> {
    if let Some((found, known)) = between(said, "unknown variant `", "`, expected ") {
        let known: Vec<String> = known.split('`').skip(1).step_by(2).map(|name| format!("{name:?}")).collect();
        let (last, others) = known.split_last()?;
        let or = if others.is_empty() { "" } else { " or " };
        return Some(format!("expected {}{or}{last}, found {found:?}", others.join(", ")));
    }
    let said = said.strip_prefix("invalid type: ").or_else(|| said.strip_prefix("invalid value: "))?;
    let (found, expected) = said.rsplit_once(", expected ")?;
    let found = match found {
        "map" => "a table",
        "sequence" => "an array",
        other => ["integer `", "boolean `", "floating point `"]
            .iter()
            .find_map(|kind| other.strip_prefix(kind)?.strip_suffix('`'))
            .or_else(|| other.strip_prefix("string "))
            .unwrap_or(other),
    };
    let expected = match expected {
        "a map" => "a table",
        "a sequence" => "an array",
        "u32" | "u64" | "usize" => "a whole number",
        "path string" => "a path",
        other => other,
    };
    match found.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => Some(format!("expected {expected}, found {}…", &found[..end])),
        None => Some(format!("expected {expected}, found {found}")),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(before)?.split_once(after)
}

fn key_path(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text += &format!("[{index}]"),
            // How `Spanned` passes through serde.
            Segment::Map { key } if key.starts_with("$__serde_spanned") => {}
            Segment::Map { key } => text = join(&text, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_characters() {
        let text = "a\nüb = 1\n";
        let problem = Problem::at(text, &(4..5), "b", "wrong");
        assert_eq!(problem.to_string(), "2:2: b: wrong");
    }
}
