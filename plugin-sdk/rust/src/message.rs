//! The message in hand: read, change, emit.

use crate::json::{self, FieldPath, JsonError};
use crate::{Outgoing, Refusal, Subject, host};
use serde::{Serialize, de::DeserializeOwned};
use std::cell::OnceCell;
use std::marker::PhantomData;
use thiserror::Error;

/// The message in hand, as the plugins before this one left it.
///
/// Reads go to the router and cost some 100 ns each; the payload is fetched on first use and then kept, so a plugin
/// that looks at headers alone never pays for it.
#[derive(Debug)]
pub struct Message {
    payload: OnceCell<Vec<u8>>,
    // Good on the thread that handles the message, and there alone.
    here: PhantomData<*const ()>,
}

impl Message {
    /// The message in hand, for code that no reference can be handed to, such as a callback from an embedded language.
    /// [`Plugin::process`](crate::Plugin::process) has one already, with a copy of the payload of its own: what one of
    /// them sets, the other sees only if it has not looked at the payload before. Outside of `process` every call on it
    /// traps.
    pub const fn in_hand() -> Self {
        Self { payload: OnceCell::new(), here: PhantomData }
    }

    /// Its id.
    pub fn id(&self) -> String {
        host::id()
    }

    /// The subject that brought it here.
    pub fn subject(&self) -> String {
        host::subject()
    }

    /// The subject it was first published to.
    pub fn origin_subject(&self) -> String {
        host::origin_subject()
    }

    /// Its key: messages of one key keep their order.
    pub fn key(&self) -> Option<Vec<u8>> {
        host::key()
    }

    /// First value of this header; names compare without case.
    pub fn header(&self, name: &str) -> Option<String> {
        host::header(name)
    }

    /// All values of this header, in order.
    pub fn header_values(&self, name: &str) -> Vec<String> {
        host::header_values(name)
    }

    /// All headers, in order.
    pub fn headers(&self) -> Vec<(String, String)> {
        host::headers()
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.payload.get_or_init(host::payload)
    }

    /// Length of the payload in bytes, without fetching it.
    pub fn payload_len(&self) -> usize {
        self.payload.get().map_or_else(|| host::payload_len() as usize, Vec::len)
    }

    /// The payload, where it is UTF-8.
    pub fn payload_text(&self) -> Option<&str> {
        str::from_utf8(self.payload()).ok()
    }

    /// Part of the payload, clamped to it. Fetches that part alone, which pays for a look at the head of a large
    /// payload.
    pub fn payload_range(&self, offset: u32, length: u32) -> Vec<u8> {
        host::payload_range(offset, length)
    }

    /// When it was published, in Unix milliseconds.
    pub fn published_ms(&self) -> u64 {
        host::published_ms()
    }

    /// When it expires, in Unix milliseconds.
    pub fn expires_ms(&self) -> Option<u64> {
        host::expires_ms()
    }

    /// 1 on the first try.
    pub fn attempt(&self) -> u32 {
        host::attempt()
    }

    /// Its priority, 0 to 9.
    pub fn priority(&self) -> u8 {
        host::priority()
    }

    /// The subject that waits for a reply.
    pub fn reply_to(&self) -> Option<String> {
        host::reply_to()
    }
}

/// JSON payloads.
impl Message {
    /// The payload as JSON.
    ///
    /// # Errors
    ///
    /// The payload is no JSON.
    pub fn json(&self) -> Result<serde_json::Value, JsonError> {
        self.json_as()
    }

    /// The whole payload as a type of one's own: the way to read many fields at once.
    ///
    /// # Errors
    ///
    /// The payload is no JSON, or does not fit the type.
    pub fn json_as<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        json::whole(self.payload())
    }

    /// One field of a JSON payload, by its dotted path (see [`FieldPath`]); the rest is skipped over.
    ///
    /// # Errors
    ///
    /// The payload is no JSON, or there is no such field, or it does not fit the type. The text says the path, and what
    /// was found.
    pub fn json_at<T: DeserializeOwned>(&self, path: &str) -> Result<T, JsonError> {
        self.json_field(&path.parse()?)
    }

    /// As [`Message::json_at`], for a path that came with the configuration.
    ///
    /// # Errors
    ///
    /// As [`Message::json_at`].
    pub fn json_field<T: DeserializeOwned>(&self, path: &FieldPath) -> Result<T, JsonError> {
        json::field(self.payload(), path)
    }

    /// Replaces the payload with this value as JSON. Keys of a `serde_json::Value` come out sorted.
    ///
    /// # Errors
    ///
    /// A value that JSON cannot say, such as a map whose keys are no text.
    pub fn set_json(&mut self, value: &impl Serialize) -> Result<(), serde_json::Error> {
        self.set_payload(serde_json::to_vec(value)?);
        Ok(())
    }
}

/// Changes. They count once the verdict is to forward or to route; an invalid name or value is a fault of the plugin,
/// and fails the attempt.
impl Message {
    /// Takes the place of all values of this header.
    pub fn set_header(&mut self, name: &str, value: &str) {
        host::set_header(name, value);
    }

    /// Adds a value.
    pub fn add_header(&mut self, name: &str, value: &str) {
        host::add_header(name, value);
    }

    /// Removes all values.
    pub fn remove_header(&mut self, name: &str) {
        host::remove_header(name);
    }

    /// Sets the key.
    pub fn set_key(&mut self, key: impl AsRef<[u8]>) {
        host::set_key(key.as_ref());
    }

    /// Removes the key.
    pub fn remove_key(&mut self) {
        host::remove_key();
    }

    /// Replaces the payload.
    pub fn set_payload(&mut self, data: impl AsRef<[u8]>) {
        host::set_payload(data.as_ref());
        self.payload.take();
    }

    /// Replaces the payload with text.
    pub fn set_payload_text(&mut self, text: &str) {
        host::set_payload_text(text);
        self.payload.take();
    }
}

/// New messages. They go out in the order of the calls, before the message in hand; undone on retry, reject and a
/// fault, kept on drop.
impl Message {
    /// Publishes a new message.
    ///
    /// # Errors
    ///
    /// The router refuses it; the plugin may go on.
    pub fn emit(&mut self, message: Outgoing) -> Result<(), Refusal> {
        host::publish(message)
    }

    /// Publishes a copy of the message in hand, as edited so far. The payload stays with the router, whatever its size.
    ///
    /// # Errors
    ///
    /// The router refuses it; the plugin may go on.
    pub fn emit_copy(&mut self, subject: impl AsRef<str>) -> Result<(), Refusal> {
        host::copy(subject.as_ref())
    }

    /// Publishes a copy of the message in hand for each of these payloads, in their order; the last of them is the
    /// payload of the message in hand from then on. The answer is how many there were.
    ///
    /// # Errors
    ///
    /// The first that the router refuses, counted from 1. Those before it have gone out, unless the verdict is a reject:
    /// hand the error on with `?`.
    pub fn emit_parts<P: AsRef<[u8]>>(
        &mut self,
        subject: &Subject,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<usize, PartRefused> {
        let mut count = 0;
        for payload in payloads {
            count += 1;
            self.set_payload(payload);
            self.emit_copy(subject).map_err(|refusal| PartRefused {
                part: count,
                subject: subject.clone(),
                refusal,
            })?;
        }
        Ok(count)
    }
}

/// Why a part of a message did not go out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("part {part} to {subject}: {refusal}")]
pub struct PartRefused {
    /// Which one, from 1.
    pub part: usize,
    /// Where it was to go.
    pub subject: Subject,
    /// Why not.
    pub refusal: Refusal,
}
