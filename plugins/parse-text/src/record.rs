//! The three forms of a record, and how a text is read as one.

use quipu_plugin::prelude::{Deserialize, Value};
use quipu_plugin::serde_json::Map;
use regex_lite::Regex;

/// A regular expression whose named groups are the parts.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pattern = Regex::new(&text).map(Self).map_err(|error| format!("invalid pattern {text:?}: {error}"))?;
        if pattern.names().next().is_none() {
            return Err(format!("the pattern {text:?} has no named group, (?<name>…)"));
        }
        Ok(pattern)
    }
}

impl Pattern {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.capture_names().flatten()
    }

    /// Groups that take no part in the match are left out.
    pub(crate) fn parse(&self, text: &str) -> Option<Map<String, Value>> {
        let captures = self.0.captures(text)?;
        let parts = self.names().filter_map(|name| Some((name.to_owned(), captures.name(name)?.as_str().into())));
        Some(parts.collect())
    }
}

/// `level=info msg="a text"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyValues {
    /// Between pairs; blanks of any kind and number unless said otherwise.
    pairs: Option<Sign>,
    /// Between key and value; `=` unless said otherwise.
    between: Option<Sign>,
}

/// A text that is not empty.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Sign(String);

impl TryFrom<String> for Sign {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.is_empty() { Err("an empty text separates nothing") } else { Ok(Self(text)) }
    }
}

impl KeyValues {
    /// Of keys that are there twice, the last one counts.
    pub(crate) fn parse(&self, text: &str) -> Result<Map<String, Value>, String> {
        let between = self.between.as_ref().map_or("=", |sign| &sign.0);
        let mut parts = Map::new();
        let mut rest = self.skip(text);
        while !rest.is_empty() {
            let number = parts.len() + 1;
            let end = self.end(rest);
            let (key, behind) = rest[..end]
                .split_once(between)
                .map(|(key, _)| (key.trim(), &rest[key.len() + between.len()..]))
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| format!("pair {number} is no key, {between:?} and value"))?;
            let (value, behind) = match behind.trim_start_matches([' ', '\t']).strip_prefix('"') {
                Some(quoted) => unquoted(quoted).ok_or_else(|| format!("pair {number} has no closing quote"))?,
                None => {
                    let (value, behind) = behind.split_at(self.end(behind));
                    (value.trim().to_owned(), behind)
                }
            };
            if self.end(behind) != 0 {
                return Err(format!("pair {number} goes on behind its closing quote"));
            }
            parts.insert(key.to_owned(), value.into());
            rest = self.skip(behind);
        }
        if parts.is_empty() { Err("no pairs".into()) } else { Ok(parts) }
    }

    /// What is behind the signs between pairs that the text begins with.
    fn skip<'a>(&self, text: &'a str) -> &'a str {
        match &self.pairs {
            None => text.trim_start(),
            Some(sign) => {
                let mut rest = text.trim_start();
                while let Some(behind) = rest.strip_prefix(sign.0.as_str()) {
                    rest = behind.trim_start();
                }
                rest
            }
        }
    }

    /// Where the next sign between pairs begins, or the text ends.
    fn end(&self, text: &str) -> usize {
        let found = match &self.pairs {
            None => text.find(char::is_whitespace),
            // Blanks before the sign belong to it, so that nothing is left behind a closing quote.
            Some(sign) => match text.find(&sign.0) {
                Some(at) if text[..at].trim().is_empty() => Some(0),
                None if text.trim().is_empty() => Some(0),
                found => found,
            },
        };
        found.unwrap_or(text.len())
    }
}

/// A text up to its closing quote, and what is behind that. A backslash takes the next character as it is; `\n` and
/// `\t` are what they are in JSON.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, next)) = chars.next() {
        match next {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

/// Cells between separators; those that have one in them are in quotes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delimited {
    /// A comma unless said otherwise.
    separator: Option<char>,
    pub(crate) columns: Vec<String>,
}

impl Delimited {
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(separator) = self.separator.filter(|sign| !sign.is_ascii() || matches!(sign, '"' | '\r' | '\n')) {
            return Err(format!("delimited.separator: {separator:?} is no ASCII character, or ends a cell by itself"));
        }
        if self.columns.is_empty() {
            return Err("delimited.columns: names no column".into());
        }
        let twice = (1..self.columns.len()).find(|at| self.columns[..*at].contains(&self.columns[*at]));
        twice.map_or(Ok(()), |at| Err(format!("delimited.columns[{at}]: {:?} is there twice", self.columns[at])))
    }

    pub(crate) fn parse(&self, text: &str) -> Result<Map<String, Value>, String> {
        /// The reader copies the text through a buffer, whatever its length.
        const BUFFER_BYTES_MAX: usize = 8 << 10;
        let separator = self.separator.and_then(|sign| u8::try_from(sign).ok()).unwrap_or(b',');
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(separator)
            .buffer_capacity(text.len().clamp(1, BUFFER_BYTES_MAX))
            .from_reader(text.as_bytes());
        let mut records = reader.records();
        let record = records.next().ok_or("no cells")?.map_err(|_| "no cells that can be read")?;
        if record.len() != self.columns.len() {
            return Err(format!("{} cells for {} columns", record.len(), self.columns.len()));
        }
        if records.next().is_some() {
            return Err("more than one line".into());
        }
        let named = self.columns.iter().zip(&record);
        Ok(named.map(|(name, cell)| (name.clone(), cell.into())).collect())
    }
}
