//! RabbitMQ: a quorum queue for each work, publisher confirms, one ack for up to 50 messages.

use std::pin::Pin;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use super::Broker;
use super::server::Server;
use crate::load::{Consume, Publish};
use crate::process::Usage;

/// Deliveries without an ack, at the most.
const PREFETCH: u16 = 1_000;
/// Deliveries that one ack covers, where so many are there.
const ACK_MESSAGES: usize = 50;

pub(super) struct RabbitMq {
    server: Server,
    connection: Connection,
}

pub(super) struct Publisher {
    _connection: Connection,
    channel: Channel,
    queue: String,
}

pub(super) struct Consumer {
    _connection: Connection,
    deliveries: lapin::Consumer,
}

impl RabbitMq {
    pub(super) async fn new(server: Server) -> Result<Self> {
        let connection = server.ready(|| connect(&server)).await?;
        Ok(Self { server, connection })
    }
}

async fn connect(server: &Server) -> Result<Connection> {
    let address = format!("amqp://guest:guest@127.0.0.1:{}/%2f", server.port());
    Ok(Connection::connect(&address, ConnectionProperties::default()).await?)
}

impl Broker for RabbitMq {
    type Publisher = Publisher;
    type Consumer = Consumer;

    async fn prepare(&self, work: &str) -> Result<()> {
        let channel = self.connection.create_channel().await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(work.into(), options, arguments).await?;
        Ok(())
    }

    async fn publisher(&self, work: &str) -> Result<Publisher> {
        let connection = connect(&self.server).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Publisher { _connection: connection, channel, queue: work.into() })
    }

    async fn consumer(&self, work: &str) -> Result<Consumer> {
        let connection = connect(&self.server).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let deliveries = channel.basic_consume(work.into(), "bench".into(), options, FieldTable::default()).await?;
        Ok(Consumer { _connection: connection, deliveries })
    }

    fn usage(&self) -> Result<Usage> {
        self.server.usage()
    }
}

impl Publish for Publisher {
    type Confirm = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

    async fn publish(&mut self, payload: Bytes) -> Result<Self::Confirm> {
        // 2: persistent.
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let queue = self.queue.as_str().into();
        let confirm = self.channel.basic_publish("".into(), queue, options, &payload, properties).await?;
        Ok(async {
            let confirmed = confirm.await?;
            ensure!(matches!(confirmed, Confirmation::Ack(None)), "not confirmed: {confirmed:?}");
            Ok(())
        }
        .boxed())
    }
}

impl Consume for Consumer {
    async fn take(&mut self, payloads: &mut Vec<Bytes>) -> Result<()> {
        let mut last = self.deliveries.next().await.context("the consumer ended")??;
        let mut count = 1;
        loop {
            payloads.push(std::mem::take(&mut last.data).into());
            let more = if count < ACK_MESSAGES { self.deliveries.next().now_or_never() } else { None };
            match more {
                Some(delivery) => last = delivery.context("the consumer ended")??,
                None => break,
            }
            count += 1;
        }
        last.ack(BasicAckOptions { multiple: true }).await?;
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        // Its acks have no answer.
        Ok(())
    }
}
