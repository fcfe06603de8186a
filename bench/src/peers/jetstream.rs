//! NATS JetStream: a stream in files for each work, a durable pull consumer with explicit acks.

use std::future::IntoFuture as _;
use std::pin::Pin;

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{self, StorageType};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};

use super::Broker;
use super::server::Server;
use crate::load::{Consume, Publish};
use crate::process::Usage;

/// Messages that the consumer asks for at once.
const BATCH: usize = 500;

pub(super) struct JetStream {
    server: Server,
    context: Context,
}

pub(super) struct Publisher {
    context: Context,
    subject: String,
}

pub(super) struct Consumer(pull::Stream);

impl JetStream {
    pub(super) async fn new(server: Server) -> Result<Self> {
        let context = server.ready(|| connect(&server)).await?;
        Ok(Self { server, context })
    }
}

async fn connect(server: &Server) -> Result<Context> {
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port())).await?;
    Ok(jetstream::new(client))
}

impl Broker for JetStream {
    type Publisher = Publisher;
    type Consumer = Consumer;

    async fn prepare(&self, work: &str) -> Result<()> {
        let config = stream::Config {
            name: work.into(),
            subjects: vec![work.into()],
            storage: StorageType::File,
            ..Default::default()
        };
        // Connecting is sooner than JetStream.
        self.server.ready(|| self.context.create_stream(config.clone())).await?;
        Ok(())
    }

    async fn publisher(&self, work: &str) -> Result<Publisher> {
        Ok(Publisher { context: connect(&self.server).await?, subject: work.into() })
    }

    async fn consumer(&self, work: &str) -> Result<Consumer> {
        let stream = connect(&self.server).await?.get_stream(work).await?;
        let config = pull::Config { durable_name: Some("bench".into()), max_ack_pending: 10_000, ..Default::default() };
        let consumer = stream.create_consumer(config).await?;
        Ok(Consumer(consumer.stream().max_messages_per_batch(BATCH).messages().await?))
    }

    fn usage(&self) -> Result<Usage> {
        self.server.usage()
    }
}

impl Publish for Publisher {
    type Confirm = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

    async fn publish(&mut self, payload: Bytes) -> Result<Self::Confirm> {
        let ack = self.context.publish(self.subject.clone(), payload).await?;
        Ok(ack.into_future().map(|acked| acked.map(drop).context("not acked")).boxed())
    }
}

impl Consume for Consumer {
    async fn take(&mut self, payloads: &mut Vec<Bytes>) -> Result<()> {
        let message = self.0.next().await.context("the consumer ended")??;
        message.ack().await.map_err(|e| anyhow::anyhow!("no ack: {e}"))?;
        payloads.push(message.payload.clone());
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        // Its acks have no answer.
        Ok(())
    }
}
