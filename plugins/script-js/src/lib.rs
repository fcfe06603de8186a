//! Stock plugin `script-js`: JavaScript in the configuration says what becomes of a message. Nothing is built.
//!
//! The language is that of Boa, an engine in Rust; what a script can reach is the SDK for JavaScript, whose own source runs
//! here. Time and chance are the router's. There are no files, no network and nothing to wait for.

mod engine;
mod json;
mod modules;
mod natives;
mod thrown;

use engine::Engine;
use quipu_plugin::prelude::*;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptJs {
    /// Has a function `process(message, config)`.
    code: String,
    /// What the script gets as `config`.
    #[serde(default = "nothing")]
    config: Value,
    /// The script, running since `configure`.
    #[serde(skip)]
    engine: Option<Engine>,
}

fn nothing() -> Value {
    json!({})
}

impl Plugin for ScriptJs {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        plugin.engine = Some(Engine::start(&plugin.code, &plugin.config)?);
        Ok(plugin)
    }

    fn process(&mut self, _: &mut Message) -> Result<Verdict> {
        // The script's own calls have the message.
        let engine = self.engine.as_mut().expect("configure starts it");
        engine.process().map_err(|thrown| quipu_plugin::fault(&thrown.text(), &thrown.trace()))
    }
}
plugin!(ScriptJs);

#[cfg(test)]
mod tests;
