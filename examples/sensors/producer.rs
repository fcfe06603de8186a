//! A sensor: a program of its own that sends what it measures, and now and then nonsense.

use anyhow::Result;
use quipu_client::{Client, OutgoingMessage, PublisherOptions};
use serde_json::json;

/// Sends so many readings of one sensor, the sensor's name as their key.
pub(super) async fn measure(client: Client, sensor: String, readings: u32) -> Result<()> {
    let publisher = client.publisher(PublisherOptions::default()).await?;
    for n in 0..readings {
        // Every tenth is what a loose contact measures.
        let celsius = if n % 10 == 9 { 999.0 } else { 20.0 + f64::from(n % 7) / 2.0 };
        let reading = json!({ "sensor": sensor, "n": n, "celsius": celsius }).to_string();
        let message = OutgoingMessage::new(&format!("sensors.{sensor}"), reading).key(sensor.clone());
        // The receipt comes later: closing waits for all of them.
        drop(publisher.publish(message).await?);
    }
    publisher.close().await?;
    client.close().await;
    Ok(())
}
