//! Admin calls: a question and its answer, on a short stream each.

use std::time::Duration;

use bytes::Bytes;
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::proto;
use serde_json::Value;

use crate::error::{Lost, Refusal};
use crate::link::Shared;
use crate::stream::{OpenError, Stream};

/// For the answer, where the caller does not say.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The router says no.
    #[error(transparent)]
    Refused(Refusal),
    /// There is no stream, or it was lost before the answer; then the call may have been carried out.
    #[error(transparent)]
    Open(OpenError),
    /// The answer is no JSON.
    #[error("the answer is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The client works no more.
    #[error(transparent)]
    Lost(#[from] Lost),
}

pub(crate) async fn call(shared: &Shared, method: &str, arguments: &Value, wait: Duration) -> Result<Value, CallError> {
    let payload = Bytes::from(serde_json::to_vec(arguments)?);
    let frame = Frame::with_payload(proto::AdminCall { method: method.into() }, payload);
    let session = shared.session().await?;
    let mut stream = Stream::open(&session, frame, shared.config.open_timeout).await.map_err(told_apart)?;
    stream.writer.finish_once_written();
    let answer = stream.answer(wait).await.map_err(told_apart)?;
    match answer.body {
        Body::AdminAnswer(_) => Ok(serde_json::from_slice(&answer.payload)?),
        other => Err(Lost::Protocol(format!("{} in answer to a call", other.name())).into()),
    }
}

fn told_apart(error: OpenError) -> CallError {
    match error {
        OpenError::Refused(refusal) => CallError::Refused(refusal),
        OpenError::Lost(lost) => CallError::Lost(lost),
        other => CallError::Open(other),
    }
}
