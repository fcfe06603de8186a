//! Texts with holes that a message fills, `{subject.2}-{field.properties.net}`: for configurations that name what to
//! take of a message. On purpose no language: nothing is computed, so nothing can run for long.

use crate::json::{FieldPath, JsonError, PathError};
use crate::{Message, context, json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use thiserror::Error;

/// Most placeholders of one template.
const PLACEHOLDERS_MAX: usize = 64;
/// What is there, for error messages.
const KNOWN: &str = "{id}, {subject}, {subject.1}, {origin_subject}, {key}, {header.NAME}, {field.PATH}, {payload}, \
                     {now}, {now_ms}, {published}, {published_ms}, {attempt}, {priority}, {route} and {plugin}";

/// A text that may hold placeholders, at most 64.
///
/// | Placeholder | Becomes |
/// |---|---|
/// | `{id}`, `{subject}`, `{origin_subject}`, `{attempt}`, `{priority}` | that of the message |
/// | `{subject.1}` | that token of the subject, counted from 1 |
/// | `{key}`, `{header.NAME}` | that of the message; the first value of the header |
/// | `{field.PATH}` | a field of a JSON payload, by [`FieldPath`]: text as it is, all else as JSON; null counts as absent |
/// | `{payload}` | the whole payload |
/// | `{now}`, `{published}` | the time, as RFC 3339 with milliseconds |
/// | `{now_ms}`, `{published_ms}` | the time, in Unix milliseconds |
/// | `{route}`, `{plugin}` | where this runs |
///
/// A brace that is meant is written twice: `{{` and `}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Id,
    Subject,
    Token(usize),
    OriginSubject,
    Key,
    Header(String),
    Field(FieldPath),
    Payload,
    Now,
    NowMs,
    Published,
    PublishedMs,
    Attempt,
    Priority,
    Route,
    Plugin,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("invalid template {0:?}: a brace without its partner; one that is meant is written twice")]
    Brace(String),
    /// A placeholder of no known kind.
    #[error("invalid template {text:?}: unknown placeholder {{{name}}}; there are {KNOWN}")]
    Unknown {
        /// The whole text.
        text: String,
        /// What is between the braces.
        name: String,
    },
    /// A field whose path makes no sense.
    #[error("invalid template {text:?}: {problem}")]
    Path {
        /// The whole text.
        text: String,
        /// What is wrong with the path.
        problem: PathError,
    },
    /// More placeholders than there may be.
    #[error("invalid template {0:?}: more than {PLACEHOLDERS_MAX} placeholders")]
    Many(String),
}

/// Why a message does not fill a template.
#[derive(Debug, Error)]
pub enum FillError {
    /// The message lacks what a placeholder asks for.
    #[error("the message has no {0}")]
    Absent(String),
    /// It has bytes there that are no text.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
    /// A field is asked for, and the payload is no JSON.
    #[error(transparent)]
    Json(JsonError),
}

impl Template {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text for the message in hand.
    ///
    /// # Errors
    ///
    /// The message lacks something, or has something else than text where text is needed.
    pub fn fill(&self, message: &Message) -> Result<String, FillError> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Key => filled.push_str(&String::from_utf8(key(message)?).map_err(|_| FillError::NotText("key"))?),
                Part::Payload => filled.push_str(message.payload_text().ok_or(FillError::NotText("the payload"))?),
                part => part.push(message, &mut filled)?,
            }
        }
        Ok(filled)
    }

    /// As [`Template::fill`], where keys and payloads need not be text: to be hashed, say.
    ///
    /// # Errors
    ///
    /// The message lacks something, or is no JSON where a field is asked for.
    pub fn fill_bytes(&self, message: &Message) -> Result<Vec<u8>, FillError> {
        let mut filled = Vec::new();
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Key => filled.append(&mut key(message)?),
                Part::Payload => filled.extend_from_slice(message.payload()),
                part => {
                    text.clear();
                    part.push(message, &mut text)?;
                    filled.extend_from_slice(text.as_bytes());
                }
            }
        }
        Ok(filled)
    }
}

fn key(message: &Message) -> Result<Vec<u8>, FillError> {
    message.key().ok_or_else(|| FillError::Absent("key".into()))
}

impl Part {
    /// The placeholder of this name; nothing where there is none.
    fn named(name: &str) -> Result<Option<Self>, PathError> {
        if let Some(path) = name.strip_prefix("field.") {
            return path.parse().map(|path| Some(Self::Field(path)));
        }
        if let Some(token) = name.strip_prefix("subject.") {
            return Ok(token.parse().ok().filter(|token| *token > 0).map(Self::Token));
        }
        if let Some(header) = name.strip_prefix("header.") {
            return Ok((!header.is_empty()).then(|| Self::Header(header.into())));
        }
        Ok(Some(match name {
            "id" => Self::Id,
            "subject" => Self::Subject,
            "origin_subject" => Self::OriginSubject,
            "key" => Self::Key,
            "payload" => Self::Payload,
            "now" => Self::Now,
            "now_ms" => Self::NowMs,
            "published" => Self::Published,
            "published_ms" => Self::PublishedMs,
            "attempt" => Self::Attempt,
            "priority" => Self::Priority,
            "route" => Self::Route,
            "plugin" => Self::Plugin,
            _ => return Ok(None),
        }))
    }

    /// Appends what it stands for. What may be no text is the caller's.
    fn push(&self, message: &Message, filled: &mut String) -> Result<(), FillError> {
        match self {
            Self::Text(text) => filled.push_str(text),
            Self::Id => filled.push_str(&message.id()),
            Self::Subject => filled.push_str(&message.subject()),
            Self::Token(n) => {
                let subject = message.subject();
                let token = subject.split('.').nth(n - 1);
                filled.push_str(token.ok_or_else(|| FillError::Absent(format!("token {n} in its subject")))?);
            }
            Self::OriginSubject => filled.push_str(&message.origin_subject()),
            Self::Header(name) => {
                let value = message.header(name);
                filled.push_str(&value.ok_or_else(|| FillError::Absent(format!("header {name:?}")))?);
            }
            Self::Field(path) => filled.push_str(&field(message, path)?),
            Self::Now => filled.push_str(&context::rfc3339(context::now_ms())),
            Self::NowMs => push_number(filled, context::now_ms()),
            Self::Published => filled.push_str(&context::rfc3339(message.published_ms())),
            Self::PublishedMs => push_number(filled, message.published_ms()),
            Self::Attempt => push_number(filled, message.attempt()),
            Self::Priority => push_number(filled, message.priority()),
            Self::Route => filled.push_str(&context::route()),
            Self::Plugin => filled.push_str(&context::plugin()),
            Self::Key | Self::Payload => unreachable!("the caller has them"),
        }
        Ok(())
    }
}

fn field(message: &Message, path: &FieldPath) -> Result<String, FillError> {
    let absent = || FillError::Absent(format!("field {path}"));
    match message.json_field::<Value>(path) {
        Ok(Value::Null) | Err(JsonError::Absent { .. }) => Err(absent()),
        Ok(value @ (Value::Array(_) | Value::Object(_))) => Ok(value.to_string()),
        Ok(value) => json::scalar_text(value).ok_or_else(absent),
        Err(error) => Err(FillError::Json(error)),
    }
}

fn push_number(filled: &mut String, number: impl fmt::Display) {
    write!(filled, "{number}").expect("a String takes all that fits into memory");
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        match parse(&text)? {
            parts if parts.iter().filter(|part| !matches!(part, Part::Text(_))).count() > PLACEHOLDERS_MAX => {
                Err(TemplateError::Many(text))
            }
            parts => Ok(Self { text, parts }),
        }
    }
}

fn parse(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, behind) = rest.split_at(at);
        literal.push_str(before);
        if let Some(doubled) = ["{{", "}}"].into_iter().find(|brace| behind.starts_with(brace)) {
            literal.push_str(&doubled[1..]);
            rest = &behind[2..];
            continue;
        }
        let inside = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let (name, behind) = inside.ok_or_else(|| TemplateError::Brace(text.into()))?;
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal)));
        }
        let part = Part::named(name).map_err(|problem| TemplateError::Path { text: text.into(), problem })?;
        parts.push(part.ok_or_else(|| TemplateError::Unknown { text: text.into(), name: name.into() })?);
        rest = behind;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok(parts)
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::Template;
    use crate::host::{Scene, replace_scene};
    use crate::testing::MockMessage;
    use crate::{Message, context};

    fn in_hand(message: MockMessage) -> Message {
        replace_scene(Scene { now_ms: message.now_ms, hand: Some(message), route: "r".into(), ..Scene::default() });
        Message::in_hand()
    }

    fn quake() -> MockMessage {
        let payload = r#"{"net":"ak","mag":4.60,"at":[1, 2],"none":null}"#;
        MockMessage::new("quakes.us.raw").key("k").header("Type", "quake").payload(payload)
    }

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let message = in_hand(quake());
        let filled = template.parse::<Template>().map_err(|error| error.to_string());
        let filled = filled.and_then(|template| template.fill(&message).map_err(|error| error.to_string()));
        assert_eq!(filled.unwrap_or_else(|error| error), expected);
    }

    #[test]
    fn fills_in_what_the_message_has() {
        check("", "");
        check("{id}/{subject}/{subject.2}/{key}", "m-1/quakes.us.raw/us/k");
        check("{header.type}: {field.mag} {field.net} {field.at.1} {field.at}", "quake: 4.6 ak 2 [1,2]");
        check("{{{id}}} }}{{", "{m-1} }{");
        check("{now} {now_ms} {published}", "2026-05-28T20:26:40.000Z 1780000000000 2026-05-28T20:26:40.000Z");
        check("{attempt} {priority} {route} {origin_subject}", "1 0 r quakes.us.raw");
        assert_eq!(context::rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn says_what_is_missing() {
        check("{subject.4}", "the message has no token 4 in its subject");
        check("{header.x}", r#"the message has no header "x""#);
        check("{field.a.b}", "the message has no field a.b");
        check("{field.none}", "the message has no field none");
        let message = in_hand(MockMessage::new("a").key(b"\xff").payload("x"));
        let fill = |template: &str| template.parse::<Template>().unwrap().fill(&message).unwrap_err().to_string();
        assert_eq!(fill("{key}"), "key is not UTF-8");
        assert!(fill("{field.a}").starts_with("the payload is no JSON"));
        let bytes = "{key}-{payload}".parse::<Template>().unwrap().fill_bytes(&message).unwrap();
        assert_eq!(bytes, b"\xff-x");
    }

    #[test]
    fn says_what_is_no_template() {
        let brace = "a brace without its partner; one that is meant is written twice";
        check("{id", &format!(r#"invalid template "{{id": {brace}"#));
        check("id}", &format!(r#"invalid template "id}}": {brace}"#));
        check("{field.a..b}", r#"invalid template "{field.a..b}": invalid path "a..b": empty name"#);
        for name in ["", "idd", "subject.0", "header."] {
            let error = format!("{{{name}}}").parse::<Template>().unwrap_err().to_string();
            assert!(error.contains(&format!("unknown placeholder {{{name}}}; there are {{id}}, ")), "{error}");
        }
        assert!("{id}".repeat(65).parse::<Template>().unwrap_err().to_string().ends_with("more than 64 placeholders"));
    }
}
