//! The handle on a connection.

use std::sync::Arc;
use std::time::Duration;

use quipu_protocol::Message;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::call::{self, CallError};
use crate::config::ClientConfig;
use crate::connect::{ConnectError, connect};
use crate::connection::{CLOSE_WAIT, keep};
use crate::link::{Link, Shared};
use crate::message::OutgoingMessage;
use crate::publisher::{Publisher, PublisherOptions};
use crate::request::{self, Replies, RequestError};
use crate::responder::{RespondError, Responder};
use crate::stream::OpenError;
use crate::subscriber::{Subscribe, SubscribeError, Subscriber};

/// A connection to a router, kept and made again as needed. Cloning gives another handle on the same one.
///
/// Once every handle, publisher and subscriber is dropped, the connection is closed without waiting for anything;
/// [`close`](Self::close) waits.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Connects, once: only a connection that was had is made again when lost.
    ///
    /// Cancelling gives the attempt up.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] tells silence, a wrong certificate, something else listening there and a refusal apart.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let connected = connect(&config).await?;
        let (link, seen) = watch::channel(Link::Up(connected.session.clone()));
        let (closing, orders) = mpsc::channel(1);
        tokio::spawn(keep(Arc::new(config.clone()), connected, link, orders));
        Ok(Self { shared: Arc::new(Shared { config, link: seen, closing }) })
    }

    /// Opens a publisher, on a stream of its own.
    ///
    /// Cancelling gives it up.
    ///
    /// # Errors
    ///
    /// [`OpenError`] where there is no stream left, the router refuses, or the connection is lost meanwhile.
    pub async fn publisher(&self, options: PublisherOptions) -> Result<Publisher, OpenError> {
        Publisher::open(self.shared.clone(), options).await
    }

    /// Subscribes to a queue, on a stream of its own.
    ///
    /// Cancelling gives it up; the subscription may exist in the router nonetheless.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] where there is no stream left, the router refuses (as for an unknown queue), or the
    /// connection is lost meanwhile.
    pub async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscriber, SubscribeError> {
        Subscriber::open(self.shared.clone(), subscribe).await
    }

    /// Publishes a message and waits so long (1 ms to 1 h) for the reply to it.
    ///
    /// The request is as durable as any message; its reply is not: it comes at most once, to this connection alone. Each
    /// request has a stream of its own. It is not repeated when the connection is lost. Cancelling gives the reply up,
    /// not the request.
    ///
    /// # Errors
    ///
    /// [`RequestError`] tells apart what nothing takes, what nobody replies to in time, a reply that says it failed, and
    /// a lost connection.
    pub async fn request(&self, message: impl Into<OutgoingMessage>, wait: Duration) -> Result<Message, RequestError> {
        let mut replies = self.request_many(message, wait, 1).await?;
        match replies.next().await {
            Some(reply) => request::payload(reply?),
            None => Err(RequestError::Unanswered("the router ended the stream".into())),
        }
    }

    /// As [`request`](Self::request), for as many replies (1 to 1,024) as come in that time: of several responders, or
    /// several of one. Returns once the request is stored.
    ///
    /// # Errors
    ///
    /// As for [`request`](Self::request).
    pub async fn request_many(
        &self,
        message: impl Into<OutgoingMessage>,
        wait: Duration,
        replies: u32,
    ) -> Result<Replies, RequestError> {
        request::request(&self.shared, message.into(), wait, replies).await
    }

    /// Takes requests from a queue and replies to them: a subscriber and a publisher.
    ///
    /// # Errors
    ///
    /// [`RespondError`] where there is no stream left, the router refuses, or the connection is lost meanwhile.
    pub async fn respond(&self, subscribe: Subscribe) -> Result<Responder, RespondError> {
        Responder::open(self.shared.clone(), subscribe).await
    }

    /// Calls an admin method (`queue.list`, `queue.show`, …) with its arguments, an object.
    ///
    /// Waits at most 30 s for the answer. It is not repeated when the connection is lost: it may have been carried
    /// out. The same goes for cancelling.
    ///
    /// # Errors
    ///
    /// [`CallError`] where the router refuses, or there is no answer.
    pub async fn call(&self, method: &str, arguments: Value) -> Result<Value, CallError> {
        self.call_within(method, arguments, call::ANSWER_WAIT).await
    }

    /// As [`call`](Self::call), but waits so long for the answer: for what takes its time, as `store.backup` does.
    ///
    /// # Errors
    ///
    /// [`CallError`] where the router refuses, or there is no answer.
    pub async fn call_within(&self, method: &str, arguments: Value, wait: Duration) -> Result<Value, CallError> {
        call::call(&self.shared, method, &arguments, wait).await
    }

    /// What the router calls this connection now; none while there is no connection.
    pub fn session(&self) -> Option<String> {
        match &*self.shared.link.borrow() {
            Link::Up(session) => Some(session.name.clone()),
            _ => None,
        }
    }

    /// Closes everything as it should be: waits for outstanding receipts, sends outstanding settlements, says goodbye
    /// and waits for the router's, 5 s at most in all. What is then left fails with [`Lost::Closed`](crate::Lost).
    ///
    /// Cancelling does not stop it.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        // Both fail where it is closed already.
        if self.shared.closing.send(done).await.is_ok() {
            tokio::time::timeout(CLOSE_WAIT + Duration::from_millis(100), closed).await.ok();
        }
    }
}
