//! Publishes lines from standard input, each as one message, and waits until all of them are on disk.
//!
//! ```sh
//! seq 1000 | cargo run --example publish -- 127.0.0.1:4433 path/to/certificate.pem orders.eu
//! ```

use anyhow::Context;
use quipu_client::{Client, ClientConfig, OutgoingMessage, PendingReceipt, PublisherOptions, Trust};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name| arguments.next().with_context(|| format!("missing {name}: SERVER CERTIFICATE SUBJECT"));
    let server = argument("SERVER")?;
    let trust = Trust::CertificateFile(argument("CERTIFICATE")?.into());
    let subject = argument("SUBJECT")?;

    let client = Client::connect(ClientConfig { server, trust, ..ClientConfig::default() }).await?;
    let publisher = client.publisher(PublisherOptions::default()).await?;

    // One task hands the lines over, the other waits for their receipts: many are under way at once.
    let (pending, mut receipts) = tokio::sync::mpsc::channel::<PendingReceipt>(10_000);
    let counting = tokio::spawn(async move {
        let (mut stored, mut refused) = (0, 0);
        while let Some(receipt) = receipts.recv().await {
            match receipt.await {
                Ok(_) => stored += 1,
                Err(error) => {
                    refused += 1;
                    eprintln!("{error}");
                }
            }
        }
        println!("{stored} stored, {refused} refused");
    });
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(tokio::io::stdin()));
    while let Some(line) = lines.next_line().await? {
        pending.send(publisher.publish(OutgoingMessage::new(&subject, line)).await?).await?;
    }
    drop(pending);
    counting.await?;

    publisher.close().await?;
    client.close().await;
    Ok(())
}
