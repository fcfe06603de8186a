//! Answers that are larger than a frame: kept for a while, and fetched part by part.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quipu_protocol::code::Code;
use quipu_protocol::limits::PAYLOAD_BYTES_MAX;
use quipu_protocol::proto;
use serde::Deserialize;
use serde_json::{Value, json};

/// An answer of more bytes does not go as it is.
pub(super) const ANSWER_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
/// One of more is not kept.
const WHOLE_BYTES_MAX: usize = 64 << 20;
/// At a time; the one that nobody asked for the longest goes.
const ANSWERS_MAX: usize = 4;
/// One that nobody asks for any more is forgotten.
const IDLE_MAX: Duration = Duration::from_mins(2);
/// Bytes of one part, before base64.
const PART_BYTES: usize = 4 << 20;

/// Answers on their way, by a name that nobody guesses.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<HashMap<String, Answer>>);

#[derive(Debug)]
struct Answer {
    text: Bytes,
    touched: Instant,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fetch {
    id: String,
    #[serde(default)]
    offset: usize,
}

impl Parts {
    /// Keeps an answer: what is told in its place.
    pub(super) fn keep(&self, method: &str, text: Bytes) -> Result<Value, proto::Error> {
        let size = text.len();
        if size > WHOLE_BYTES_MAX {
            let text = format!("{method}: the answer has {size} bytes; at most {WHOLE_BYTES_MAX} are handed out");
            return Err(Code::TooLarge.error(text));
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, answer| answer.touched.elapsed() < IDLE_MAX);
        while all.len() >= ANSWERS_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, answer)| answer.touched).map(|(id, _)| id.clone())
        {
            all.remove(&oldest);
        }
        let id = uuid::Uuid::new_v4().to_string();
        all.insert(id.clone(), Answer { text, touched: Instant::now() });
        Ok(json!({ "parts": { "id": id, "size": size } }))
    }

    /// A part of one. With the last it is forgotten.
    pub(super) fn fetch(&self, Fetch { id, offset }: &Fetch) -> Result<Value, proto::Error> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || Code::InvalidCall.error("answer.part: that answer is not kept any more: ask the whole again");
        let answer = all.get_mut(id).ok_or_else(gone)?;
        answer.touched = Instant::now();
        let end = answer.text.len().min(offset.saturating_add(PART_BYTES));
        let part = answer.text.get(*offset..end).unwrap_or_default();
        let told = json!({ "data": STANDARD.encode(part) });
        if end == answer.text.len() {
            all.remove(id);
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_the_answer_and_few_answers_are_kept() {
        let parts = Parts::default();
        let text =
            Bytes::from((0..PART_BYTES + 10).map(|n| b'a' + u8::try_from(n % 26).expect("small")).collect::<Vec<u8>>());
        let keep =
            || parts.keep("explain", text.clone()).expect("kept")["parts"]["id"].as_str().expect("an id").to_owned();
        let fetch = |id: &str, offset: usize| {
            let part = parts.fetch(&Fetch { id: id.into(), offset })?;
            Ok::<_, proto::Error>(STANDARD.decode(part["data"].as_str().expect("text")).expect("base64"))
        };
        let id = keep();
        let whole = [fetch(&id, 0).expect("a part"), fetch(&id, PART_BYTES).expect("the rest")].concat();
        assert_eq!(whole, text);
        assert!(fetch(&id, 0).expect_err("told").text.contains("ask the whole again"));
        let ids: Vec<String> = (0..=ANSWERS_MAX).map(|_| keep()).collect();
        assert!(fetch(&ids[0], 0).is_err() && fetch(&ids[1], 0).is_ok(), "the oldest went");
        let large = parts.keep("explain", vec![b'x'; WHOLE_BYTES_MAX + 1].into()).expect_err("too large");
        assert!(large.text.contains("at most 67108864"), "{}", large.text);
    }
}
