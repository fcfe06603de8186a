//! What is wrong with a payload, and where. The path is put together on the way out, so that what is right costs nothing.

use std::fmt;

#[derive(Debug)]
pub(crate) struct Problem {
    /// The byte of the payload, of one in Avro.
    at: Option<usize>,
    /// Names and numbers, the innermost first.
    path: Vec<String>,
    text: String,
}

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { at: None, path: Vec::new(), text: text.into() }
    }

    pub(crate) fn at(byte: usize, text: impl Into<String>) -> Self {
        Self { at: Some(byte), ..Self::new(text) }
    }

    /// The same, seen from one level further out.
    pub(crate) fn within(mut self, name: impl fmt::Display) -> Self {
        self.path.push(name.to_string().replace('\\', r"\\").replace('.', r"\."));
        self
    }

    pub(crate) fn path(&self) -> String {
        self.path.iter().rev().map(String::as_str).collect::<Vec<_>>().join(".")
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at, self.path.is_empty()) {
            (Some(at), true) => write!(f, "byte {at} of the payload: {}", self.text),
            (Some(at), false) => write!(f, "{}: byte {at} of the payload: {}", self.path(), self.text),
            (None, true) => write!(f, "the payload: {}", self.text),
            (None, false) => write!(f, "{}: {}", self.path(), self.text),
        }
    }
}

impl std::error::Error for Problem {}
