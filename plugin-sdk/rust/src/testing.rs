//! Unit tests of plugins, without a router and without WebAssembly.
//!
//! ```
//! # use quipu_plugin::prelude::*;
//! # #[derive(Deserialize)]
//! # struct BigQuakes { at_least: f64 }
//! # impl Plugin for BigQuakes {
//! #     fn process(&mut self, message: &mut Message) -> Result<Verdict> {
//! #         let magnitude: f64 = message.json_at("properties.mag")?;
//! #         Ok(if magnitude >= self.at_least { forward() } else { drop("small") })
//! #     }
//! # }
//! use quipu_plugin::testing::{MockMessage, run};
//!
//! let small = MockMessage::new("quakes.raw").json(json!({ "properties": { "mag": 2.1 } }));
//! assert_eq!(run::<BigQuakes>(json!({ "at_least": 4.5 }), small).verdict, drop("small"));
//! ```
//!
//! The mock takes what the router takes, as far as that is cheap to say: names, values, numbers and sizes. Where the
//! router would trap (an invalid header, a message read outside of `process`), it panics with the reason, and so does a
//! panic of the plugin's own: the test fails at its place.
//!
//! It has no limits of time and memory, and grants every subject unless told otherwise by [`MockMessage::refusing`].

mod hostile;

pub use hostile::{hostile_payloads, survives};

use crate::host::{Scene, replace_scene};
use crate::{Message, Outgoing, Plugin, Refusal, Subject, Verdict, log::Level};
use serde::Serialize;
use std::fmt::Display;

/// Most subjects of one verdict.
const SUBJECTS_MAX: usize = 64;
/// Some day in 2026: a plugin that measures ages should not see the year 1970.
const NOW_MS: u64 = 1_780_000_000_000;

/// A message to hand to a plugin, and what the plugin made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MockMessage {
    /// Its id.
    pub id: String,
    /// The subject that brought it here.
    pub subject: String,
    /// The subject it was first published to.
    pub origin_subject: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, String)>,
    /// Its payload.
    pub payload: Vec<u8>,
    /// When it was published, in Unix milliseconds.
    pub published_ms: u64,
    /// When it expires, in Unix milliseconds.
    pub expires_ms: Option<u64>,
    /// When it is delivered, in Unix milliseconds; a plugin can only set it.
    pub deliver_at_ms: Option<u64>,
    /// 1 on the first try.
    pub attempt: u32,
    /// Its priority.
    pub priority: u8,
    /// The subject that waits for a reply.
    pub reply_to: Option<String>,
    /// The time that the plugin sees, in Unix milliseconds.
    pub now_ms: u64,
    /// The random number that the plugin sees.
    pub seed: u64,
    /// What every emitted message is answered with.
    pub refusal: Option<Refusal>,
}

impl MockMessage {
    /// A message just published: no key, no headers, no payload, first attempt.
    pub fn new(subject: impl Into<String>) -> Self {
        let subject = subject.into();
        Self {
            id: "m-1".into(),
            origin_subject: subject.clone(),
            subject,
            key: None,
            headers: Vec::new(),
            payload: Vec::new(),
            published_ms: NOW_MS,
            expires_ms: None,
            deliver_at_ms: None,
            attempt: 1,
            priority: 0,
            reply_to: None,
            now_ms: NOW_MS,
            seed: 7,
            refusal: None,
        }
    }

    /// Sets the id.
    #[must_use]
    pub fn id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }

    /// Sets the subject it was first published to.
    #[must_use]
    pub fn origin_subject(self, subject: impl Into<String>) -> Self {
        Self { origin_subject: subject.into(), ..self }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(self, key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the payload; takes text as well.
    #[must_use]
    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    /// Sets the payload to this value as JSON.
    ///
    /// # Panics
    ///
    /// If JSON cannot say the value.
    #[must_use]
    pub fn json(self, value: impl Serialize) -> Self {
        self.payload(serde_json::to_vec(&value).expect("the payload of a test is a value that JSON can say"))
    }

    /// Sets when it was published, in Unix milliseconds.
    #[must_use]
    pub fn published_ms(self, at: u64) -> Self {
        Self { published_ms: at, ..self }
    }

    /// Sets when it expires, in Unix milliseconds.
    #[must_use]
    pub fn expires_ms(self, at: u64) -> Self {
        Self { expires_ms: Some(at), ..self }
    }

    /// Sets the number of the attempt, from 1.
    #[must_use]
    pub fn attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }

    /// Sets the subject that waits for a reply.
    #[must_use]
    pub fn reply_to(self, subject: impl Into<String>) -> Self {
        Self { reply_to: Some(subject.into()), ..self }
    }

    /// Sets the time that the plugin sees, in Unix milliseconds.
    #[must_use]
    pub fn now_ms(self, now: u64) -> Self {
        Self { now_ms: now, ..self }
    }

    /// Sets the random number that the plugin sees.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Refuses every message that the plugin emits.
    #[must_use]
    pub fn refusing(self, refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..self }
    }
}

/// What came of one message.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict; an `Err` of the plugin is here as the reject that it amounts to.
    pub verdict: Verdict,
    /// The message as the plugin left it.
    pub message: MockMessage,
    /// What goes out besides; nothing after a retry or a reject, which undo it.
    pub emitted: Vec<Outgoing>,
    /// What the plugin logged.
    pub logs: Vec<LogLine>,
}

impl Outcome {
    /// First value of this header of the message; names compare without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The payload of the message as text, with marks in place of what is no UTF-8.
    pub fn payload_text(&self) -> String {
        String::from_utf8_lossy(&self.message.payload).into_owned()
    }

    /// The payload of the message as JSON.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.message.payload)
            .unwrap_or_else(|error| panic!("the payload is no JSON: {error}: {}", self.payload_text()))
    }
}

/// A line of the plugin's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub text: String,
}

/// A configured plugin, for tests that hand it more than one message.
#[derive(Debug)]
pub struct Harness<P> {
    plugin: P,
    logs: Vec<LogLine>,
}

impl<P: Plugin> Harness<P> {
    /// Configures a plugin. The configuration is JSON, as text or as a `serde_json::Value`.
    ///
    /// # Errors
    ///
    /// What whoever deploys the plugin would read.
    pub fn new(config: impl Display) -> Result<Self, String> {
        replace_scene(Scene { now_ms: NOW_MS, seed: 7, ..named() });
        let configured = P::configure(&config.to_string()).map_err(|error| crate::text(&*error));
        let logs = replace_scene(named()).logs;
        Ok(Self { plugin: configured?, logs })
    }

    /// What the plugin logged in `configure`.
    pub fn logs(&self) -> &[LogLine] {
        &self.logs
    }

    /// Hands it a message.
    ///
    /// # Panics
    ///
    /// Where the plugin panics, or does what the router traps on.
    pub fn process(&mut self, message: MockMessage) -> Outcome {
        replace_scene(Scene { now_ms: message.now_ms, seed: message.seed, hand: Some(message), ..named() });
        let said = self.plugin.process(&mut Message::in_hand());
        let Scene { hand, mut emitted, logs, .. } = replace_scene(named());
        let verdict = said.unwrap_or_else(|error| Verdict::Reject(crate::text(&*error)));
        match &verdict {
            Verdict::Route(subjects) => check_subjects(subjects),
            Verdict::Retry { .. } | Verdict::Reject(_) => emitted.clear(),
            Verdict::Forward | Verdict::Drop(_) => {}
        }
        Outcome { verdict, message: hand.expect("the scene keeps the message in hand"), emitted, logs }
    }
}

/// Configures a plugin and hands it one message.
///
/// # Panics
///
/// If the plugin refuses the configuration, and where [`Harness::process`] does.
pub fn run<P: Plugin>(config: impl Display, message: MockMessage) -> Outcome {
    let mut harness = Harness::<P>::new(config).unwrap_or_else(|error| panic!("the configuration is refused: {error}"));
    harness.process(message)
}

fn named() -> Scene {
    Scene { plugin: "mock-plugin".into(), route: "mock-route".into(), ..Scene::default() }
}

fn check_subjects(subjects: &[String]) {
    assert!(
        (1..=SUBJECTS_MAX).contains(&subjects.len()),
        "routed to {} subjects, not 1 to {SUBJECTS_MAX}",
        subjects.len()
    );
    for subject in subjects {
        if let Err(error) = subject.parse::<Subject>() {
            panic!("routed to an {error}");
        }
    }
}
