//! `--bless`: what was found goes into the file of cases as what is expected, with comments, order and all else kept.
//!
//! Only what is wrong is changed, and of a payload only the fields that the case speaks of. A case that expects nothing
//! gets all that was found. How the text is changed is for [`splice`].

use anyhow::{Context as _, Result, bail};
use quipu_protocol::{Headers, Key};
use quipu_runtime::{Attempt, ConfigureError};
use serde_json::{Map, Value, json};

use super::splice;
use super::trial::Outcome;
use crate::plugins::cases::content::readable;
use crate::plugins::cases::{Expect, Tried, at, fits, found, remains};

/// The file's text with what these outcomes of its cases found.
///
/// # Errors
///
/// A case has found what TOML cannot say; nothing is to be written then.
pub(crate) fn blessed(text: &str, outcomes: &[&Outcome]) -> Result<String> {
    let mut text = text.to_owned();
    for outcome in outcomes {
        let place = || format!("case {:?}", outcome.case.name);
        let expect = expect(&outcome.case.expect, &outcome.tried).with_context(place)?;
        text = splice::set_in_case(&text, outcome.index, "expect", &Value::Object(expect)).with_context(place)?;
    }
    Ok(text)
}

/// What the case should expect from now on.
fn expect(before: &Expect, tried: &Tried) -> Result<Map<String, Value>> {
    let Some(attempt) = &tried.attempt else {
        let said = match &tried.refused {
            Some(ConfigureError::Refused { reason, .. }) => reason.clone(),
            Some(other) => other.to_string(),
            None => bail!("it was not tried"),
        };
        return Ok(Map::from_iter([("error".to_owned(), said.into())]));
    };
    let mut found = found(attempt);
    found.remove("kind");
    if before.is_empty() || before.error.is_some() {
        return Ok(whole(found));
    }
    let Value::Object(mut expect) = serde_json::to_value(before)? else { bail!("no table") };
    verdict(&mut expect, &found);
    logs(&mut expect, attempt);
    if !remains(&attempt.verdict) {
        undone(&mut expect);
        return Ok(expect);
    }
    let message = &attempt.output.message;
    headers(&mut expect, &message.headers);
    key(&mut expect, message.key.as_ref());
    let numbers = [
        ("priority", json!(message.priority)),
        ("expires_ms", json!(message.expires_ms)),
        ("deliver_at_ms", json!(message.deliver_at_ms)),
        ("emitted", json!(attempt.output.emitted.len())),
    ];
    numbers.into_iter().for_each(|(name, value)| replace(&mut expect, name, value));
    payload(&mut expect, &message.payload);
    outputs(&mut expect, &found, attempt);
    Ok(expect)
}

/// Of what the plugin did nothing remains, so that nothing of it can be expected.
fn undone(expect: &mut Map<String, Value>) {
    for name in ["headers", "key", "key_base64", "priority", "expires_ms", "deliver_at_ms"] {
        expect.remove(name);
    }
    for name in ["payload", "payload_text", "payload_base64"] {
        expect.remove(name);
    }
    replace(expect, "emitted", json!(0));
    replace(expect, "outputs", json!([]));
}

/// All that was found, as far as it can be expected: headers that are gone in a list of their own, since TOML has no null.
fn whole(mut found: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(headers)) = found.get_mut("headers") {
        let is_gone = |(_, value): &(&String, &Value)| value.is_null();
        let gone: Vec<Value> = headers.iter().filter(is_gone).map(|(name, _)| name.clone().into()).collect();
        headers.retain(|_, value| !value.is_null());
        if headers.is_empty() {
            found.remove("headers");
        }
        if !gone.is_empty() {
            found.insert("no_headers".into(), gone.into());
        }
    }
    found.retain(|_, value| !value.is_null());
    found
}

fn verdict(expect: &mut Map<String, Value>, found: &Map<String, Value>) {
    let before = expect.get("verdict").cloned();
    replace(expect, "verdict", found["verdict"].clone());
    let is_new = before.is_some_and(|before| before != found["verdict"]);
    for name in ["reason", "subjects", "delay_ms"] {
        let value = found.get(name).cloned().unwrap_or_default();
        let part = expect.get(name).and_then(Value::as_str);
        if part.zip(value.as_str()).is_some_and(|(part, reason)| reason.contains(part)) {
            continue;
        }
        if is_new && name != "delay_ms" && !value.is_null() {
            expect.insert(name.into(), value);
        } else {
            replace(expect, name, value);
        }
    }
}

fn headers(expect: &mut Map<String, Value>, headers: &Headers) {
    let found = |name: &str| match headers.all(name).collect::<Vec<_>>().as_slice() {
        [] => Value::Null,
        [one] => Value::from(*one),
        several => Value::from(several.to_vec()),
    };
    let said = match expect.remove("headers") {
        Some(Value::Object(said)) => said,
        _ => Map::new(),
    };
    let absent = match expect.remove("no_headers") {
        Some(Value::Array(absent)) => absent,
        _ => Vec::new(),
    };
    let names = said.keys().map(String::as_str).chain(absent.iter().filter_map(Value::as_str));
    let (mut there, mut gone) = (Map::new(), Vec::new());
    for name in names {
        match found(name) {
            Value::Null => gone.push(Value::from(name)),
            value => drop(there.insert(name.to_owned(), value)),
        }
    }
    if !there.is_empty() {
        expect.insert("headers".into(), there.into());
    }
    if !gone.is_empty() {
        expect.insert("no_headers".into(), gone.into());
    }
}

fn key(expect: &mut Map<String, Value>, key: Option<&Key>) {
    let before = [expect.remove("key"), expect.remove("key_base64")];
    if before.iter().any(Option::is_some) {
        let (form, value) = readable("key", key.map_or(&[][..], |key| key.as_bytes()));
        expect.insert(form, value);
    }
}

fn payload(expect: &mut Map<String, Value>, payload: &[u8]) {
    let json: Option<Value> = serde_json::from_slice(payload).ok();
    let text = || match std::str::from_utf8(payload) {
        Ok(text) => ("payload_text".to_owned(), text.into()),
        Err(_) => readable("payload", payload),
    };
    if let Some(said) = expect.get_mut("payload") {
        match &json {
            Some(found) => subset(said, found),
            None => {
                expect.remove("payload");
                expect.extend([text()]);
            }
        }
    }
    let before = [expect.remove("payload_text"), expect.remove("payload_base64")];
    if before.iter().any(Option::is_some) {
        expect.extend([text()]);
    }
    if let (Some(Value::Array(absent)), Some(found)) = (expect.get_mut("absent"), &json) {
        absent.retain(|path| path.as_str().is_none_or(|path| at(found, path).is_none()));
        remove_empty(expect, "absent");
    }
}

/// Of objects, the fields that are said; anything else as a whole.
fn subset(said: &mut Value, found: &Value) {
    if fits(said, Some(found)) {
        return;
    }
    if let (Value::Object(fields), Value::Object(found)) = (&mut *said, found) {
        fields.retain(|name, _| found.get(name).is_some_and(|value| !value.is_null()));
        for (name, value) in fields {
            subset(value, &found[name.as_str()]);
        }
        return;
    }
    *said = found.clone();
}

fn outputs(expect: &mut Map<String, Value>, found: &Map<String, Value>, attempt: &Attempt) {
    let Some(Value::Array(said)) = expect.get_mut("outputs") else { return };
    let found = found.get("outputs").and_then(Value::as_array).cloned().unwrap_or_default();
    let emitted = &attempt.output.emitted;
    if said.len() != emitted.len() || said.len() != found.len() {
        *said = found;
        return;
    }
    for ((said, emitted), found) in said.iter_mut().zip(emitted).zip(found) {
        let Value::Object(said) = said else { continue };
        for name in ["subject", "id", "priority", "expires_ms", "deliver_at_ms"] {
            replace(said, name, found[name].clone());
        }
        headers(said, &emitted.headers);
        key(said, emitted.key.as_ref());
        payload(said, emitted.payload.as_ref().unwrap_or(&attempt.input.payload));
    }
}

fn logs(expect: &mut Map<String, Value>, attempt: &Attempt) {
    if let Some(Value::Array(parts)) = expect.get_mut("logs") {
        let is_said = |part: &str| attempt.logs.iter().any(|(_, line)| line.contains(part));
        parts.retain(|part| part.as_str().is_some_and(is_said));
        remove_empty(expect, "logs");
    }
}

fn remove_empty(expect: &mut Map<String, Value>, name: &str) {
    if expect.get(name).and_then(Value::as_array).is_some_and(Vec::is_empty) {
        expect.remove(name);
    }
}

/// Puts a value in the place of another, where there is one; null takes it away.
fn replace(expect: &mut Map<String, Value>, name: &str, value: Value) {
    match (expect.get_mut(name), value.is_null()) {
        (Some(_), true) => drop(expect.remove(name)),
        (Some(before), false) if !fits(before, Some(&value)) => *before = value,
        _ => {}
    }
}

#[cfg(test)]
mod tests;
