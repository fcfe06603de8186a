//! Prints the messages of a queue, and acks each once it is printed.
//!
//! ```sh
//! cargo run --example subscribe -- 127.0.0.1:4433 path/to/certificate.pem orders printer
//! ```
//!
//! Ctrl-C gives back what was not acked and says goodbye.

use anyhow::Context;
use quipu_client::{Client, ClientConfig, Subscribe, Trust};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument =
        |name| arguments.next().with_context(|| format!("missing {name}: SERVER CERTIFICATE QUEUE SUBSCRIPTION"));
    let server = argument("SERVER")?;
    let trust = Trust::CertificateFile(argument("CERTIFICATE")?.into());
    let subscribe = Subscribe::new(&argument("QUEUE")?, &argument("SUBSCRIPTION")?);

    let client = Client::connect(ClientConfig { server, trust, ..ClientConfig::default() }).await?;
    let mut subscriber = client.subscribe(subscribe).await?;
    loop {
        let delivery = tokio::select! {
            next = subscriber.next() => match next {
                Some(delivery) => delivery?,
                None => break,
            },
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                break;
            }
        };
        let message = &delivery.message;
        println!("{} {} {}", delivery.offset, message.subject, String::from_utf8_lossy(&message.payload));
        delivery.ack_later().await?;
    }
    subscriber.close().await?;
    client.close().await;
    Ok(())
}
