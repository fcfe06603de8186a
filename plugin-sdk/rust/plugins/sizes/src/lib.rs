//! Sorts earthquakes by their size, and touches every function of the contract on the way. What it must do is said in
//! `plugin-sdk/vectors/README.md`; it is the same plugin in every language.

use std::time::Duration;

use quipu_plugin::prelude::*;

#[derive(Deserialize)]
struct Sizes {
    at_least: f64,
    #[serde(default = "audit")]
    audit: String,
    #[serde(default = "alarm_at")]
    alarm_at: f64,
}

fn audit() -> String {
    "audit".into()
}

fn alarm_at() -> f64 {
    6.0
}

impl Plugin for Sizes {
    fn check(&self) -> Result<(), String> {
        if self.audit.is_empty() {
            return Err("audit: empty".into());
        }
        if self.alarm_at < self.at_least {
            return Err("alarm_at: below at_least".into());
        }
        Ok(())
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        match message.header("type").as_deref() {
            Some("quarry blast") => {
                log::debug("a quarry blast is left out");
                return Ok(drop("quarry blast"));
            }
            Some("later") => return Ok(retry_after(Duration::from_millis(1_500), "comes later")),
            Some("fault") => {
                message.set_header("size", "lost");
                message.emit_copy(&self.audit)?;
                panic!("asked to fail");
            }
            Some("swap") => return Ok(swap(message)),
            Some("echo") => return Ok(echo(message)),
            _ => {}
        }
        if message.payload_len() == 0 {
            return Ok(reject("empty payload"));
        }
        let Ok(payload) = message.json() else { return Ok(reject("the payload is no JSON")) };
        let quake = &payload["properties"];
        let Some(magnitude) = quake["mag"].as_f64() else { return Ok(reject("no magnitude")) };
        let network = quake["net"].as_str().unwrap_or_default();
        if network.is_empty() {
            log::warn("no network");
        }
        if magnitude < self.at_least {
            message.set_header("size", "small");
            message.remove_header("trace");
            return Ok(forward());
        }
        Ok(self.big(message, magnitude, network, quake["place"].as_str().unwrap_or("unknown")))
    }
}
plugin!(Sizes);

impl Sizes {
    fn big(&self, message: &mut Message, magnitude: f64, network: &str, place: &str) -> Verdict {
        message.set_header("size", "big");
        message.add_header("seen", "sizes");
        match network {
            "" => message.remove_key(),
            network => message.set_key(network),
        }
        let audit = message.header("audit").unwrap_or_else(|| self.audit.clone());
        if let Err(refusal) = message.emit_copy(audit) {
            let reason = format!("audit refused: {}", name(refusal));
            return retry_after(Duration::from_secs(5), reason);
        }
        if magnitude >= self.alarm_at {
            let alarm = Outgoing::new("alarms").header("type", "alarm").priority(9).payload(place);
            let alarm = if network.is_empty() { alarm } else { alarm.key(network) };
            if let Err(refusal) = message.emit(alarm) {
                panic!("alarm refused: {}", name(refusal));
            }
        }
        route(["alerts", "big"])
    }
}

fn swap(message: &mut Message) -> Verdict {
    let reversed: Vec<u8> = message.payload().iter().rev().copied().collect();
    message.set_payload(reversed);
    message.set_key("swapped");
    forward()
}

/// What the rest leaves out of the contract.
fn echo(message: &mut Message) -> Verdict {
    let part = message.payload_range(4, 6);
    let echo = Outgoing { key: message.key(), headers: message.headers(), ..Outgoing::new("echoes").payload(part) };
    if let Err(refusal) = message.emit(echo) {
        panic!("echo refused: {}", name(refusal));
    }
    assert!(!context::plugin().is_empty() && !context::route().is_empty(), "no context");
    assert!(context::now_ms() >= message.published_ms(), "no clock");
    context::seed();

    let (id, subject, origin) = (message.id(), message.subject(), message.origin_subject());
    let (attempt, priority, length) = (message.attempt(), message.priority(), message.payload_len());
    let expires = message.expires_ms().map_or("none".into(), |at| at.to_string());
    let reply_to = message.reply_to().unwrap_or("none".into());
    let traces = message.header_values("trace").join("|");
    let traces = if traces.is_empty() { "none" } else { &traces };
    log::info(format!("{id} {subject} {origin} {attempt} {priority} {length} {expires} {reply_to} {traces}"));

    let text = match message.payload_text() {
        Some(text) => format!("echo {text}"),
        None => format!("echo of {length} bytes"),
    };
    message.set_payload_text(&text);
    message.remove_key();
    message.remove_header("trace");
    forward()
}

/// As the contract spells it.
fn name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Limit => "limit",
        Refusal::Invalid => "invalid",
        Refusal::NotGranted => "not-granted",
        Refusal::Loop => "loop",
    }
}
