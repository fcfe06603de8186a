//! What templates see of a message. What none of them names is not fetched, and the payload is read as JSON only for
//! templates that ask for `json`.

use minijinja::Value;
use minijinja::value::Serde;
use quipu_plugin::prelude::{Message, Result, context};
use std::collections::{BTreeMap, BTreeSet};

/// The names that there are.
const NAMES: [&str; 8] = ["message", "headers", "json", "text", "now", "now_ms", "route", "plugin"];

/// The names that the templates ask for.
#[derive(Debug, Default)]
pub(crate) struct Scope(BTreeSet<&'static str>);

impl Scope {
    /// Notes what a template asks for.
    pub(crate) fn needs(&mut self, template: &minijinja::Template<'_, '_>) {
        let asked = template.undeclared_variables(false);
        self.0.extend(NAMES.iter().filter(|name| asked.contains(**name)));
    }

    /// The values of the message in hand.
    pub(crate) fn values(&self, message: &Message) -> Result<Value> {
        let mut values = BTreeMap::new();
        for name in &self.0 {
            let value = match *name {
                "message" => properties(message),
                "headers" => headers(message),
                "json" => Serde(message.json()?).into(),
                "text" => message.payload_text().map_or(Value::UNDEFINED, Value::from),
                "now" => context::rfc3339(context::now_ms()).into(),
                "now_ms" => context::now_ms().into(),
                "route" => context::route().into(),
                _ => context::plugin().into(),
            };
            values.insert(*name, value);
        }
        Ok(Value::from_pairs(values))
    }
}

/// The first value of each, by its name in small letters.
fn headers(message: &Message) -> Value {
    let mut headers = BTreeMap::new();
    for (name, value) in message.headers() {
        headers.entry(name.to_ascii_lowercase()).or_insert(value);
    }
    Value::from_pairs(headers)
}

fn properties(message: &Message) -> Value {
    let subject = message.subject();
    let tokens: Value = subject.split('.').collect();
    let key = message.key().map(|key| String::from_utf8_lossy(&key).into_owned());
    let properties: [(&str, Value); 11] = [
        ("id", message.id().into()),
        ("tokens", tokens),
        ("origin_subject", message.origin_subject().into()),
        ("key", key.map_or(Value::from(()), Value::from)),
        ("published", context::rfc3339(message.published_ms()).into()),
        ("published_ms", message.published_ms().into()),
        ("expires_ms", message.expires_ms().map_or(Value::from(()), Value::from)),
        ("attempt", message.attempt().into()),
        ("priority", message.priority().into()),
        ("reply_to", message.reply_to().map_or(Value::from(()), Value::from)),
        ("subject", subject.into()),
    ];
    Value::from_pairs(properties)
}
