//! The QUIC client of Quipu: publishers, subscribers and admin calls over one connection.
//!
//! ```no_run
//! use quipu_client::{Client, ClientConfig, OutgoingMessage, PublisherOptions, Subscribe, Trust};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let trust = Trust::CertificateFile("quipu-cert.pem".into());
//! let client = Client::connect(ClientConfig { trust, ..ClientConfig::default() }).await?;
//!
//! let publisher = client.publisher(PublisherOptions::default()).await?;
//! let receipt = publisher.publish(OutgoingMessage::new("orders.eu", "{}")).await?;
//! println!("{:?}", receipt.await?); // on disk
//!
//! let mut subscriber = client.subscribe(Subscribe::new("orders", "billing")).await?;
//! if let Some(delivery) = subscriber.next().await {
//!     delivery?.ack().await?;
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! **Reconnecting.** A lost connection is made again, with growing pauses, until [`Reconnect::give_up_after`] has
//! passed. Publishers then send again, in order and under the same ids, what has no receipt, and the router leaves out
//! what it has, where it had it within its dedup window; a publisher with a [name](PublisherOptions::name) needs neither
//! ids nor a window. Subscribers subscribe again, and what they held comes to them, or to others, once more.
//!
//! **Requests.** [`Client::request`] publishes a message and waits for its reply; [`Client::respond`] takes requests from
//! a queue and replies. A request is not repeated when the connection is lost, since it may have been worked on.
//!
//! **Bounds.** Nothing here grows without a limit: a publisher holds so many unanswered messages, a subscriber so many
//! deliveries, and who asks for more waits.
//!
//! Inside, each publisher and each subscriber is a task that owns its state (`publisher/window.rs` and
//! `subscriber/ledger.rs`, which know neither clock nor socket) and a task that reads its stream; one more task keeps
//! the connection. `PROTOCOL.md` is the specification they follow.

mod backoff;
mod call;
mod client;
mod config;
mod connect;
mod connection;
mod credit;
mod error;
mod link;
mod message;
mod publisher;
mod request;
mod responder;
mod retry;
mod stream;
mod subscriber;
mod tls;

pub use call::CallError;
pub use client::Client;
pub use config::{ClientConfig, Identity, Reconnect, Trust};
pub use connect::ConnectError;
pub use error::{Lost, Refusal};
pub use message::OutgoingMessage;
pub use publisher::{PendingReceipt, Position, PublishError, Publisher, PublisherOptions, Receipt, ReceiptError};
pub use quipu_protocol::code::Code;
pub use quipu_protocol::{Headers, Key, Message, MessageError, MessageId, Subject};
pub use request::{Replies, RequestError};
pub use responder::{Asked, Replied, ReplyError, RespondError, Responder};
pub use stream::OpenError;
pub use subscriber::{Delivery, Mode, SettleError, Settled, Start, Subscribe, SubscribeError, Subscriber, Why};
pub use tls::{IdentityError, TrustError};
