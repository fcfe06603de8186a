//! Subjects with holes: `orders.{subject.2}.{header.region}`.

use std::fmt;

use quipu_protocol::{Message, Subject, SubjectError};

/// A subject whose text may hold `{subject.N}` (its Nth token, from 1), `{header.NAME}`, `{key}` and `{reply_to}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    /// The subject itself, where there is no hole.
    fixed: Option<Subject>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Token(usize),
    Header(String),
    Key,
    ReplyTo,
}

/// Why a text is no template, or a message does not fit one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("`{0}`: a `{{` without its `}}`, or the other way round")]
    Brace(String),
    /// A hole of no known kind.
    #[error(
        "`{template}`: unknown placeholder {{{name}}}; there are {{subject.1}}, {{header.NAME}}, {{key}} and {{reply_to}}"
    )]
    Placeholder {
        /// The whole text.
        template: String,
        /// What is between the braces.
        name: String,
    },
    /// No subject, whatever is put in.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The message lacks what a hole asks for.
    #[error("`{template}`: the message has no {what}")]
    Absent {
        /// The whole text.
        template: String,
        /// What is missing.
        what: String,
    },
    /// What the message has there leads to the router's own subjects, where nothing of a message may lead.
    #[error("`{template}` becomes `{subject}`: subjects that begin with `$` are the router's own")]
    Internal {
        /// The whole text.
        template: String,
        /// With the holes filled.
        subject: Subject,
    },
    /// What the message has there cannot be part of a subject.
    #[error("`{template}` becomes {subject:?}, which is no subject: {source}")]
    Unfit {
        /// The whole text.
        template: String,
        /// With the holes filled.
        subject: String,
        /// What is wrong with it.
        source: SubjectError,
    },
}

impl Template {
    /// Checks and takes a template.
    ///
    /// # Errors
    ///
    /// [`TemplateError`] says what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        let parts = parse(text)?;
        let filled: String = parts.iter().map(|p| if let Part::Text(text) = p { text } else { "x" }).collect();
        let subject = Subject::new(&filled)?;
        let fixed = matches!(parts[..], [Part::Text(_)]).then_some(subject);
        Ok(Self { text: text.into(), fixed, parts })
    }

    /// The text it was made of.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The subject, where it is the same for every message.
    pub fn fixed(&self) -> Option<&Subject> {
        self.fixed.as_ref()
    }

    /// The subject for a message.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Absent`] and [`TemplateError::Unfit`].
    pub fn expand(&self, message: &Message) -> Result<Subject, TemplateError> {
        if let Some(subject) = &self.fixed {
            return Ok(subject.clone());
        }
        let absent = |what: String| TemplateError::Absent { template: self.text.clone(), what };
        let mut subject = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => subject.push_str(text),
                Part::Token(n) => {
                    let token = message.subject.tokens().nth(n - 1);
                    subject.push_str(
                        token.ok_or_else(|| absent(format!("token {n} in its subject {}", message.subject)))?,
                    );
                }
                Part::Header(name) => {
                    subject.push_str(message.headers.first(name).ok_or_else(|| absent(format!("header {name:?}")))?);
                }
                Part::Key => {
                    let key = message.key.as_ref().ok_or_else(|| absent("key".into()))?;
                    subject.push_str(&String::from_utf8_lossy(key.as_bytes()));
                }
                Part::ReplyTo => {
                    let reply_to = message.reply_to.as_ref().ok_or_else(|| absent("reply_to".into()))?;
                    subject.push_str(reply_to.as_str());
                }
            }
        }
        let unfit = |source| TemplateError::Unfit { template: self.text.clone(), subject: subject.clone(), source };
        // Where nothing else says so: a header is anybody's.
        let may_be_inbox = matches!(self.parts[..], [Part::ReplyTo]);
        match Subject::new(&subject).map_err(unfit)? {
            subject if subject.is_internal() && !(may_be_inbox && subject.is_inbox()) => {
                Err(TemplateError::Internal { template: self.text.clone(), subject })
            }
            subject => Ok(subject),
        }
    }
}

fn parse(text: &str) -> Result<Vec<Part>, TemplateError> {
    let unbalanced = || TemplateError::Brace(text.into());
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').ok_or_else(unbalanced)?;
        if before.contains('}') || name.contains('{') {
            return Err(unbalanced());
        }
        if !before.is_empty() {
            parts.push(Part::Text(before.into()));
        }
        parts.push(placeholder(text, name)?);
        rest = behind;
    }
    if rest.contains('}') {
        return Err(unbalanced());
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    Ok(parts)
}

fn placeholder(template: &str, name: &str) -> Result<Part, TemplateError> {
    let unknown = || TemplateError::Placeholder { template: template.into(), name: name.into() };
    match name.split_once('.') {
        None if name == "key" => Ok(Part::Key),
        None if name == "reply_to" => Ok(Part::ReplyTo),
        Some(("header", header)) if !header.is_empty() => Ok(Part::Header(header.into())),
        Some(("subject", n)) => match n.parse() {
            Ok(n) if n > 0 => Ok(Part::Token(n)),
            _ => Err(unknown()),
        },
        _ => Err(unknown()),
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_protocol::{Key, MessageId};

    fn check(template: &str, expect: &str) {
        let id = MessageId::new("m").expect("an id");
        let mut message = Message::new(id, Subject::new("orders.eu.created").expect("a subject"), "");
        message.headers.add("Region", "alaska").expect("a header");
        message.headers.add("bad", "a b").expect("a header");
        message.headers.add("own", "$quipu.x").expect("a header");
        message.key = Some(Key::new("k7").expect("a key"));
        message.headers.add("inbox", "$inbox.1").expect("a header");
        message.reply_to = Some(Subject::new("$inbox.1").expect("a subject"));
        let result = Template::new(template).and_then(|template| template.expand(&message));
        let text = result.map_or_else(|e| e.to_string(), |subject| subject.to_string());
        assert_eq!(text, expect, "{template}");
    }

    #[test]
    fn holes_are_filled_from_the_message() {
        check("a.b", "a.b");
        check("x.{subject.2}", "x.eu");
        check("{header.region}.{key}.n-{subject.3}", "alaska.k7.n-created");
        check("{reply_to}", "$inbox.1");
    }

    #[test]
    fn errors_say_what_is_missing() {
        check("x.{subject.4}", "`x.{subject.4}`: the message has no token 4 in its subject orders.eu.created");
        check("x.{header.net}", "`x.{header.net}`: the message has no header \"net\"");
        let own = "`{header.own}` becomes `$quipu.x`: subjects that begin with `$` are the router's own";
        check("{header.own}", own);
        let inbox = "`{header.inbox}` becomes `$inbox.1`: subjects that begin with `$` are the router's own";
        check("{header.inbox}", inbox);
        let unfit = "`x.{header.bad}` becomes \"x.a b\", which is no subject: subject \"x.a b\" has ' ' in it; \
                     a token is made of letters, digits, `-` and `_`";
        check("x.{header.bad}", unfit);
        let unknown = "`{who}`: unknown placeholder {who}; there are {subject.1}, {header.NAME}, {key} and \
                       {reply_to}";
        check("{who}", unknown);
        check("{key", "`{key`: a `{` without its `}`, or the other way round");
        check("key}", "`key}`: a `{` without its `}`, or the other way round");
        check("a..{key}", "subject \"a..x\" has an empty token; join tokens with single dots, as in `orders.eu`");
    }
}
