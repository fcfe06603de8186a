//! Quipu's own client at the bench's work.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use quipu_client::{Client, OutgoingMessage, PendingReceipt, PublisherOptions, Receipt, Subscribe};

use crate::load::{Consume, Publish};

/// Publishes to some subjects, one after the other.
pub(crate) struct Publisher {
    publisher: quipu_client::Publisher,
    subjects: Vec<String>,
    next: usize,
}

/// A receipt that says that the message is stored.
pub(crate) struct Confirm(PendingReceipt);

/// Consumes one queue.
pub(crate) struct Subscriber(quipu_client::Subscriber);

impl Publisher {
    /// Opens one; with `ids` each message gets an id that the router looks up.
    pub(crate) async fn open(client: &Client, subjects: Vec<String>, ids: bool) -> Result<Self> {
        let publisher = client.publisher(PublisherOptions { ids, ..Default::default() }).await?;
        Ok(Self { publisher, subjects, next: 0 })
    }
}

impl Confirm {
    pub(crate) fn of(receipt: PendingReceipt) -> Self {
        Self(receipt)
    }
}

impl Subscriber {
    pub(crate) async fn open(client: &Client, queue: &str) -> Result<Self> {
        Ok(Self(client.subscribe(Subscribe::new(queue, "bench")).await?))
    }
}

impl Publish for Publisher {
    type Confirm = Confirm;

    async fn publish(&mut self, payload: Bytes) -> Result<Confirm> {
        let message = OutgoingMessage::new(&self.subjects[self.next], payload);
        self.next = (self.next + 1) % self.subjects.len();
        Ok(Confirm(self.publisher.publish(message).await?))
    }
}

impl Future for Confirm {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll(cx).map(|receipt| match receipt? {
            Receipt::Stored(places) if places.len() == 1 => Ok(()),
            other => anyhow::bail!("expected one place, got {other:?}"),
        })
    }
}

impl Consume for Subscriber {
    async fn take(&mut self, payloads: &mut Vec<Bytes>) -> Result<()> {
        let delivery = self.0.next().await.context("the subscription ended")??;
        payloads.push(delivery.message.payload.clone());
        delivery.ack_later().await?;
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(self.0.flush().await?)
    }
}
