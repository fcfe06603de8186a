//! A mock of the router, one per thread. Valid is what the router takes; what it traps on panics here, with the same
//! words.

use crate::header::{HEADERS_MAX, KEY_BYTES_MAX, is_property, is_reserved, plain, problem, property_fits};
use crate::testing::{LogLine, MockMessage};
use crate::{Outgoing, Refusal, Subject, log::Level};
use std::cell::RefCell;

/// Most messages emitted for one in hand.
const EMITTED_MAX: usize = 1_024;
/// Most bytes emitted for one message in hand.
const EMITTED_BYTES_MAX: usize = 4 << 20;

/// All that the mock knows.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    pub(crate) plugin: String,
    pub(crate) route: String,
    pub(crate) now_ms: u64,
    pub(crate) seed: u64,
    pub(crate) hand: Option<MockMessage>,
    pub(crate) emitted: Vec<Outgoing>,
    pub(crate) logs: Vec<LogLine>,
}

thread_local!(static SCENE: RefCell<Scene> = RefCell::default());

/// Sets the scene, and hands back the one before.
pub(crate) fn replace_scene(scene: Scene) -> Scene {
    SCENE.replace(scene)
}

fn scene<T>(read: impl FnOnce(&mut Scene) -> T) -> T {
    SCENE.with_borrow_mut(read)
}

#[track_caller]
fn hand<T>(use_it: impl FnOnce(&mut MockMessage) -> T) -> T {
    let used = scene(|scene| scene.hand.as_mut().map(use_it));
    used.expect("no message in hand")
}

pub(crate) fn plugin() -> String {
    scene(|scene| scene.plugin.clone())
}

pub(crate) fn route() -> String {
    scene(|scene| scene.route.clone())
}

pub(crate) fn now_ms() -> u64 {
    scene(|scene| scene.now_ms)
}

pub(crate) fn seed() -> u64 {
    scene(|scene| scene.seed)
}

pub(crate) fn log(level: Level, text: &str) {
    scene(|scene| scene.logs.push(LogLine { level, text: text.to_owned() }));
}

#[track_caller]
pub(crate) fn fault(text: &str, trace: &str) -> ! {
    panic!("{text}\n{trace}")
}

#[track_caller]
pub(crate) fn id() -> String {
    hand(|message| message.id.clone())
}

#[track_caller]
pub(crate) fn subject() -> String {
    hand(|message| message.subject.clone())
}

#[track_caller]
pub(crate) fn origin_subject() -> String {
    hand(|message| message.origin_subject.clone())
}

#[track_caller]
pub(crate) fn key() -> Option<Vec<u8>> {
    hand(|message| message.key.clone())
}

#[track_caller]
pub(crate) fn header(name: &str) -> Option<String> {
    header_values(name).into_iter().next()
}

#[track_caller]
pub(crate) fn header_values(name: &str) -> Vec<String> {
    headers().into_iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[track_caller]
pub(crate) fn headers() -> Vec<(String, String)> {
    hand(|message| message.headers.clone())
}

#[track_caller]
pub(crate) fn payload_len() -> u32 {
    hand(|message| u32::try_from(message.payload.len()).expect("no message is that large"))
}

#[track_caller]
pub(crate) fn payload() -> Vec<u8> {
    hand(|message| message.payload.clone())
}

#[track_caller]
pub(crate) fn payload_range(offset: u32, length: u32) -> Vec<u8> {
    hand(|message| message.payload.iter().skip(offset as usize).take(length as usize).copied().collect())
}

#[track_caller]
pub(crate) fn published_ms() -> u64 {
    hand(|message| message.published_ms)
}

#[track_caller]
pub(crate) fn expires_ms() -> Option<u64> {
    hand(|message| message.expires_ms)
}

#[track_caller]
pub(crate) fn attempt() -> u32 {
    hand(|message| message.attempt)
}

#[track_caller]
pub(crate) fn priority() -> u8 {
    hand(|message| message.priority)
}

#[track_caller]
pub(crate) fn reply_to() -> Option<String> {
    hand(|message| message.reply_to.clone())
}

#[track_caller]
pub(crate) fn set_header(name: &str, value: &str) {
    trap_if(problem(name, value));
    if set_property(name, Some(value)) {
        return;
    }
    // In the place of the first value; the others go.
    let mut is_first = true;
    let is_there = hand(|message| {
        message.headers.retain_mut(|(other, there)| {
            if !other.eq_ignore_ascii_case(name) {
                return true;
            }
            value.clone_into(there);
            std::mem::take(&mut is_first)
        });
        !is_first
    });
    if !is_there {
        add_header(name, value);
    }
}

#[track_caller]
pub(crate) fn add_header(name: &str, value: &str) {
    trap_if(problem(name, value));
    if set_property(name, Some(value)) {
        return;
    }
    let full = hand(|message| {
        message.headers.push((name.to_owned(), value.to_owned()));
        plain(&message.headers) > HEADERS_MAX
    });
    assert!(!full, "header {name:?}: {HEADERS_MAX} headers at most");
}

#[track_caller]
pub(crate) fn remove_header(name: &str) {
    trap_if(problem(name, ""));
    if !set_property(name, None) {
        hand(|message| message.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name)));
    }
}

#[track_caller]
pub(crate) fn set_key(key: &[u8]) {
    assert!(key.len() <= KEY_BYTES_MAX, "key of {} bytes, {KEY_BYTES_MAX} at most", key.len());
    hand(|message| message.key = Some(key.to_vec()));
}

#[track_caller]
pub(crate) fn remove_key() {
    hand(|message| message.key = None);
}

#[track_caller]
pub(crate) fn set_payload(data: &[u8]) {
    hand(|message| message.payload = data.to_vec());
}

#[track_caller]
pub(crate) fn set_payload_text(text: &str) {
    set_payload(text.as_bytes());
}

#[track_caller]
pub(crate) fn publish(message: Outgoing) -> Result<(), Refusal> {
    if let Some(refusal) = hand(|message| message.refusal) {
        return Err(refusal);
    }
    if !is_valid(&message) {
        return Err(Refusal::Invalid);
    }
    scene(|scene| {
        let bytes: usize = scene.emitted.iter().map(|earlier| earlier.payload.len()).sum();
        if scene.emitted.len() >= EMITTED_MAX || bytes + message.payload.len() > EMITTED_BYTES_MAX {
            return Err(Refusal::Limit);
        }
        scene.emitted.push(message);
        Ok(())
    })
}

#[track_caller]
pub(crate) fn copy(subject: &str) -> Result<(), Refusal> {
    let subject = subject.to_owned();
    let copy = hand(|message| {
        // The router's own headers of the message in hand, its parent and so on, are not those of a copy.
        let headers = message.headers.iter().filter(|(name, _)| !is_reserved(name)).cloned().collect();
        Outgoing { subject, key: message.key.clone(), headers, payload: message.payload.clone() }
    });
    publish(copy)
}

/// A header of the message in hand that stands for one of its properties; false where the name is an ordinary one.
#[track_caller]
fn set_property(name: &str, value: Option<&str>) -> bool {
    if !is_reserved(name) {
        return false;
    }
    let lower = name.to_ascii_lowercase();
    assert!(lower != "quipu-id" && is_property(&lower), "header {name:?} is the router's own");
    let fits = value.is_none_or(|text| property_fits(&lower, text));
    assert!(fits, "header {name:?}: {:?} does not fit", value.unwrap_or_default());
    // Both readings are total: what does not fit has failed above.
    hand(|message| match lower.as_str() {
        "quipu-expires-ms" => message.expires_ms = value.and_then(|text| text.parse().ok()),
        "quipu-deliver-at-ms" => message.deliver_at_ms = value.and_then(|text| text.parse().ok()),
        _ => message.priority = value.and_then(|text| text.parse().ok()).unwrap_or_default(),
    });
    true
}

fn is_valid(message: &Outgoing) -> bool {
    let headers_fit = message.headers.iter().all(|(name, value)| {
        let lower = name.to_ascii_lowercase();
        let is_allowed = !is_reserved(name) || is_property(&lower) && property_fits(&lower, value);
        is_allowed && problem(name, value).is_none()
    });
    headers_fit
        && plain(&message.headers) <= HEADERS_MAX
        && message.subject.parse::<Subject>().is_ok()
        && message.key.as_ref().is_none_or(|key| key.len() <= KEY_BYTES_MAX)
}

#[track_caller]
fn trap_if(problem: Option<String>) {
    if let Some(problem) = problem {
        panic!("{problem}");
    }
}
