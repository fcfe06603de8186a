//! Responders: requests in from a queue, replies out to where each says.

use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::Message;
use quipu_protocol::code::Code;
use quipu_protocol::limits::{HEADER_VALUE_BYTES_MAX, ID_BYTES_MAX};

use crate::link::Shared;
use crate::message::OutgoingMessage;
use crate::publisher::{PublishError, Publisher, PublisherOptions, Receipt, ReceiptError};
use crate::request::ERROR_HEADER;
use crate::stream::OpenError;
use crate::subscriber::{Delivery, SettleError, Settled, Subscribe, SubscribeError, Subscriber};

/// Takes requests from a queue and replies to them, together with the other consumers of its subscription.
///
/// A request is settled once its reply is where it goes. A responder that dies before that leaves the request to
/// another: it may be worked on twice, but who asked gets one reply of each subscription, since its id follows from the
/// request's.
#[derive(Debug)]
pub struct Responder {
    subscriber: Subscriber,
    publisher: Arc<Publisher>,
    /// Queue and subscription, as they stand in the ids of replies.
    place: Arc<str>,
}

/// A request to work on and to reply to.
#[derive(Debug)]
pub struct Asked {
    /// The request, to be settled by hand where it is not to be replied to.
    pub delivery: Delivery,
    publisher: Arc<Publisher>,
    place: Arc<str>,
    /// Replies sent so far.
    sent: u32,
}

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replied {
    /// In the hands of who asked, or in the queues that take the subject it was to go to.
    Sent,
    /// It was there already: the request was worked on before.
    Again,
    /// Nobody waits for it any more: who asked has all it asked for, gave up, or is gone. Nothing is stored.
    TooLate,
    /// The request does not say where a reply is to go.
    NotAsked,
}

/// Why a reply is nowhere, or its request not settled.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The reply breaks a rule of messages, or the publisher works no more. The request is not settled.
    #[error("the reply cannot be sent: {0}")]
    Publish(#[from] PublishError),
    /// The router refuses the reply, or its receipt was lost. The request is not settled.
    #[error("the reply: {0}")]
    Receipt(#[from] ReceiptError),
    /// The reply is sent and its request not settled: it is delivered again.
    #[error("the request is replied to and not settled: {0}")]
    Settle(#[from] SettleError),
}

/// Why there is no responder.
#[derive(Debug, thiserror::Error)]
pub enum RespondError {
    /// It cannot publish its replies.
    #[error("replies: {0}")]
    Publisher(#[from] OpenError),
    /// It cannot take requests.
    #[error(transparent)]
    Subscriber(#[from] SubscribeError),
}

impl Responder {
    pub(crate) async fn open(shared: Arc<Shared>, subscribe: Subscribe) -> Result<Self, RespondError> {
        // A reply that finds no room, since who asked reads slowly, waits a while.
        let options = PublisherOptions { retry_refused: true, ..PublisherOptions::default() };
        let publisher = Arc::new(Publisher::open(shared.clone(), options).await?);
        let place = format!("{}:{}", subscribe.queue, subscribe.subscription).into();
        Ok(Self { subscriber: Subscriber::open(shared, subscribe).await?, publisher, place })
    }

    /// The next request; nothing after an error, or once closed. Cancel-safe: no request is lost.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`], once, where the subscription is over.
    pub async fn next(&mut self) -> Option<Result<Asked, SubscribeError>> {
        let delivery = self.subscriber.next().await?;
        let (publisher, place) = (self.publisher.clone(), self.place.clone());
        Some(delivery.map(|delivery| Asked { delivery, publisher, place, sent: 0 }))
    }

    /// Waits until what is settled is on disk, and gives back the requests that are not.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] where the subscription had come to another end before.
    pub async fn close(self) -> Result<(), SubscribeError> {
        self.subscriber.close().await
    }
}

impl Asked {
    /// The request.
    pub fn message(&self) -> &Message {
        &self.delivery.message
    }

    /// Replies, and settles the request once the reply is where it goes, on disk both.
    ///
    /// Cancelled, either may be done or not.
    ///
    /// # Errors
    ///
    /// [`ReplyError`]; the request is not settled then, and comes again.
    pub async fn reply(mut self, payload: impl Into<Bytes>) -> Result<Replied, ReplyError> {
        let replied = self.send(payload).await?;
        self.delivery.ack().await?;
        Ok(replied)
    }

    /// Replies that the request failed, in the header `error` (4 KiB at most are kept, control characters become
    /// spaces), and settles it. For what the asker can mend; what may go better later is a
    /// [nack](Delivery::nack) of [`delivery`](Self::delivery).
    ///
    /// # Errors
    ///
    /// [`ReplyError`]; the request is not settled then, and comes again.
    pub async fn fail(mut self, why: &str) -> Result<Replied, ReplyError> {
        let mut why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        quipu_protocol::code::truncate(&mut why, HEADER_VALUE_BYTES_MAX);
        let replied = self.send_with(Bytes::new(), |reply| reply.header(ERROR_HEADER, &why)).await?;
        self.delivery.ack().await?;
        Ok(replied)
    }

    /// Sends one of several replies. [`done`](Self::done) settles the request.
    ///
    /// # Errors
    ///
    /// [`ReplyError`].
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<Replied, ReplyError> {
        self.send_with(payload.into(), |reply| reply).await
    }

    /// Settles the request, after [`send`](Self::send) or without any reply.
    ///
    /// # Errors
    ///
    /// [`SettleError`] where there is no answer.
    pub async fn done(self) -> Result<Settled, SettleError> {
        self.delivery.ack().await
    }

    async fn send_with(
        &mut self,
        payload: Bytes,
        finish: impl FnOnce(OutgoingMessage) -> OutgoingMessage,
    ) -> Result<Replied, ReplyError> {
        let Some(reply_to) = &self.message().reply_to else { return Ok(Replied::NotAsked) };
        let mut reply = OutgoingMessage::new(reply_to.as_str(), payload);
        // The same for whoever replies again, so that it comes once; where it does not fit, it may come twice.
        let id = format!("re:{}:{}:{}", self.sent, self.place, self.message().id);
        if id.len() <= ID_BYTES_MAX {
            reply = reply.id(&id);
        }
        self.sent += 1;
        match self.publisher.publish(finish(reply)).await?.await {
            Ok(Receipt::Stored(_) | Receipt::Routed) => Ok(Replied::Sent),
            Ok(Receipt::Duplicate(_)) => Ok(Replied::Again),
            Err(e) if e.code() == Some(Code::NoInbox) => Ok(Replied::TooLate),
            Err(e) => Err(e.into()),
        }
    }
}
