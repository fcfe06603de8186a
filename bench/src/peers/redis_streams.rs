//! Redis: a stream for each work with `XADD`, a consumer group that takes up to 500 and acks them with one `XACK`.

use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult, cmd};
use tokio::task::JoinHandle;

use super::Broker;
use super::server::Server;
use crate::load::{Consume, Publish};
use crate::process::Usage;

/// Messages that the consumer takes at once.
const BATCH: usize = 500;

/// What `XREADGROUP` answers: streams, of entries, of fields.
type Read = Option<Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>>;

pub(super) struct RedisStreams {
    server: Server,
    connection: MultiplexedConnection,
}

pub(super) struct Publisher {
    connection: MultiplexedConnection,
    stream: String,
}

/// A command is sent while it is polled; a task does that.
pub(super) struct Confirm(JoinHandle<RedisResult<()>>);

pub(super) struct Consumer {
    connection: MultiplexedConnection,
    stream: String,
}

impl RedisStreams {
    pub(super) async fn new(server: Server) -> Result<Self> {
        let connection = server.ready(|| connect(&server)).await?;
        Ok(Self { server, connection })
    }
}

async fn connect(server: &Server) -> Result<MultiplexedConnection> {
    let client = Client::open(format!("redis://127.0.0.1:{}/", server.port()))?;
    // A read that waits has no answer for a while.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

impl Broker for RedisStreams {
    type Publisher = Publisher;
    type Consumer = Consumer;

    async fn prepare(&self, work: &str) -> Result<()> {
        let mut create = cmd("XGROUP");
        create.arg(&["CREATE", work, "bench", "0", "MKSTREAM"]);
        create.exec_async(&mut self.connection.clone()).await?;
        Ok(())
    }

    async fn publisher(&self, work: &str) -> Result<Publisher> {
        Ok(Publisher { connection: connect(&self.server).await?, stream: work.into() })
    }

    async fn consumer(&self, work: &str) -> Result<Consumer> {
        Ok(Consumer { connection: connect(&self.server).await?, stream: work.into() })
    }

    fn usage(&self) -> Result<Usage> {
        self.server.usage()
    }
}

impl Publish for Publisher {
    type Confirm = Confirm;

    async fn publish(&mut self, payload: Bytes) -> Result<Confirm> {
        let mut connection = self.connection.clone();
        let mut add = cmd("XADD");
        add.arg(&self.stream).arg("*").arg("m").arg(&payload[..]);
        Ok(Confirm(tokio::spawn(async move { add.exec_async(&mut connection).await })))
    }
}

impl Future for Confirm {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll(cx).map(|done| Ok(done??))
    }
}

impl Consume for Consumer {
    async fn take(&mut self, payloads: &mut Vec<Bytes>) -> Result<()> {
        let mut read = cmd("XREADGROUP");
        read.arg(&["GROUP", "bench", "consumer", "COUNT"]).arg(BATCH).arg(&[
            "BLOCK",
            "1000",
            "STREAMS",
            &self.stream,
            ">",
        ]);
        let mut ack = cmd("XACK");
        ack.arg(&self.stream).arg("bench");
        let before = payloads.len();
        while payloads.len() == before {
            let answer: Read = read.query_async(&mut self.connection).await?;
            for (id, fields) in answer.into_iter().flatten().flat_map(|(_, entries)| entries) {
                ack.arg(id);
                payloads.extend(fields.into_iter().nth(1).map(Bytes::from));
            }
        }
        ack.exec_async(&mut self.connection).await?;
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        // Every ack was answered.
        Ok(())
    }
}
