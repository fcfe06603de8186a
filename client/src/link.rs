//! The connection as publishers, subscribers and calls see it: there, going, away, gone.

use quipu_protocol::limits::{PAYLOAD_BYTES_MAX, SETTLE_TOKENS_MAX};
use quipu_protocol::proto;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::config::ClientConfig;
use crate::error::Lost;

/// What the connection is now.
#[derive(Debug, Clone)]
pub(crate) enum Link {
    /// Use it.
    Up(Session),
    /// End what is on it; another comes.
    Draining,
    /// Finish everything; no other comes.
    Closing,
    /// Wait.
    Down,
    /// There will be none.
    Gone(Lost),
}

/// One connection that the router has welcomed.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) connection: quinn::Connection,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) limits: Limits,
    pub(crate) name: String,
    /// Counts the streams in use.
    pub(crate) streams: TaskTracker,
}

/// What the router grants, within what the protocol allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) payload_bytes: usize,
    pub(crate) bidirectional_streams: u32,
    pub(crate) settle_tokens: usize,
}

impl From<proto::Limits> for Limits {
    fn from(granted: proto::Limits) -> Self {
        // Zero is a router that does not say.
        let within = |n: u64, most: usize| match usize::try_from(n) {
            Ok(0) | Err(_) => most,
            Ok(n) => n.min(most),
        };
        Self {
            payload_bytes: within(granted.payload_bytes, PAYLOAD_BYTES_MAX),
            bidirectional_streams: granted.bidirectional_streams,
            settle_tokens: within(granted.settle_tokens.into(), SETTLE_TOKENS_MAX),
        }
    }
}

/// What every part of one client shares. The connection goes away with the last of them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) closing: mpsc::Sender<oneshot::Sender<()>>,
}

impl Shared {
    /// The connection, once there is one. Cancel-safe.
    pub(crate) async fn session(&self) -> Result<Session, Lost> {
        let mut link = self.link.clone();
        let settled = link
            .wait_for(|link| match link {
                Link::Up(session) => session.connection.close_reason().is_none(),
                Link::Gone(_) => true,
                Link::Draining | Link::Closing | Link::Down => false,
            })
            .await;
        match settled.as_deref() {
            Ok(Link::Up(session)) => Ok(session.clone()),
            Ok(Link::Gone(lost)) => Err(lost.clone()),
            Ok(_) | Err(_) => Err(Lost::Closed),
        }
    }
}
