//! Stock plugin `template`: makes payload, headers and key out of Jinja templates, by
//! [minijinja](https://docs.rs/minijinja).
//!
//! Templates come with the configuration and are trusted as much as it is; messages are not. Nothing of a message is ever
//! read as a template, and rendering has a budget.

mod scope;

use minijinja::{AutoEscape, Environment, Error as RenderError, UndefinedBehavior};
use quipu_plugin::prelude::*;
use quipu_plugin::serde_json;
use scope::Scope;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// What rendering one message may cost unless said otherwise: instructions, and 64 bytes for the price of one.
const FUEL: u64 = 200_000;
const FUEL_MAX: u64 = 100_000_000;
/// Levels of macros and blocks within each other; far less than the stack of a plugin holds.
const RECURSION_MAX: usize = 100;

/// The configuration of one use. One of `payload`, `headers`, `key` is required.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    payload: Option<String>,
    #[serde(default)]
    headers: BTreeMap<HeaderName, String>,
    key: Option<String>,
    #[serde(default)]
    output: Output,
    #[serde(default)]
    undefined: Undefined,
    fuel: Option<u64>,
    #[serde(skip)]
    made: Made,
}

/// What the payload becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Output {
    #[default]
    Text,
    /// Values are written as JSON, and what comes out has to be JSON.
    Json,
}

/// What a value that is not there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Undefined {
    /// An error.
    #[default]
    Strict,
    /// An empty text, without fields.
    Lenient,
}

/// What `configure` makes of the configuration.
#[derive(Debug, Default)]
struct Made {
    templates: Environment<'static>,
    scope: Scope,
}

impl Plugin for Template {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        plugin.check()?;
        plugin.made = plugin.make()?;
        Ok(plugin)
    }

    fn check(&self) -> Result<(), String> {
        if self.payload.is_none() && self.headers.is_empty() && self.key.is_none() {
            return Err("one of payload, headers, key is required".into());
        }
        if self.output == Output::Json && self.payload.is_none() {
            return Err("output: goes with payload".into());
        }
        match self.fuel {
            Some(fuel) if !(1..=FUEL_MAX).contains(&fuel) => {
                Err(format!("fuel: {fuel} is not between 1 and {FUEL_MAX}"))
            }
            _ => Ok(()),
        }
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let values = self.made.scope.values(message)?;
        // All of them see the message as it came.
        let payload = self.payload.as_ref().map(|_| self.render("payload", &values)).transpose()?;
        let key = self.key.as_ref().map(|_| self.render("key", &values)).transpose()?;
        for name in self.headers.keys() {
            let value = self.render(&header_key(name), &values)?;
            message.try_set_header(name, &value)?;
        }
        if let Some(key) = key {
            message.try_set_key(key)?;
        }
        if let Some(payload) = payload {
            if self.output == Output::Json {
                serde_json::from_str::<IgnoredAny>(&payload)
                    .map_err(|error| format!("payload: what comes out is no JSON: {error}"))?;
            }
            message.set_payload_text(&payload);
        }
        Ok(forward())
    }
}
plugin!(Template);

impl Template {
    fn make(&self) -> Result<Made, String> {
        let mut templates = Environment::new();
        templates.set_fuel(Some(self.fuel.unwrap_or(FUEL)));
        templates.set_recursion_limit(RECURSION_MAX);
        templates.set_undefined_behavior(match self.undefined {
            Undefined::Strict => UndefinedBehavior::Strict,
            Undefined::Lenient => UndefinedBehavior::Lenient,
        });
        let output = self.output;
        templates.set_auto_escape_callback(move |name| match (name, output) {
            ("payload", Output::Json) => AutoEscape::Json,
            _ => AutoEscape::None,
        });
        let headers = self.headers.iter().map(|(name, text)| (header_key(name), text));
        let others = [("payload", &self.payload), ("key", &self.key)];
        let others = others.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.as_ref()?)));
        let mut scope = Scope::default();
        for (name, text) in others.chain(headers) {
            templates.add_template_owned(name.clone(), text.clone()).map_err(|error| place(&error))?;
            scope.needs(&templates.get_template(&name).map_err(|error| place(&error))?);
        }
        Ok(Made { templates, scope })
    }

    fn render(&self, name: &str, values: &minijinja::Value) -> Result<String, String> {
        let rendered = self.made.templates.get_template(name).and_then(|template| template.render(values.clone()));
        rendered.map_err(|error| place(&error))
    }
}

fn header_key(name: &HeaderName) -> String {
    format!("headers.{name}")
}

/// An error with the key of its template and its line, before what it says.
fn place(error: &RenderError) -> String {
    let mut said = error.kind().to_string();
    if let Some(detail) = error.detail() {
        said = format!("{said}: {detail}");
    }
    match (error.name(), error.line()) {
        (Some(name), Some(line)) => format!("{name}: line {line}: {said}"),
        (Some(name), None) => format!("{name}: {said}"),
        _ => said,
    }
}

#[cfg(test)]
mod tests;
