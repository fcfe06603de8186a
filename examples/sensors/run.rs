//! Many sensors send to one queue; a route drops nonsense; two panels share the rest, each sensor's readings in order.

mod consumer;
mod producer;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Router;

const SENSORS: u32 = 8;
const READINGS: u32 = 50;

/// What came of it all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Readings that were sent.
    pub sent: u64,
    /// Readings that the route dropped.
    pub dropped: u64,
    /// Readings that the panels got together, in order for each sensor.
    pub shown: u64,
}

/// Runs it.
///
/// # Errors
///
/// Where anything is missing, out of order or does not work.
pub async fn run(router: &Router) -> Result<Counts> {
    let sent = u64::from(SENSORS * READINGS);
    let plausible = sent - u64::from(SENSORS * READINGS / 10);
    let (shown, done) = (Arc::new(AtomicU64::new(0)), watch::Sender::new(false));
    let mut panels = JoinSet::new();
    for n in 0..2 {
        let client = router.client(&format!("panel-{n}")).await?;
        panels.spawn(consumer::show(client, shown.clone(), plausible, done.clone()));
    }
    let mut sensors = JoinSet::new();
    for n in 0..SENSORS {
        let client = router.client(&format!("sensor-{n}")).await?;
        sensors.spawn(producer::measure(client, format!("s{n}"), READINGS));
    }
    while let Some(sensor) = sensors.join_next().await {
        sensor??;
    }
    let mut by_panel = Vec::new();
    while let Some(panel) = panels.join_next().await {
        by_panel.push(panel??);
    }
    router.quipu(&["route", "list"]).await?;
    let listed = router.client("count").await?;
    let routes = listed.call("route.list", serde_json::json!({})).await?;
    let dropped = routes["routes"][0]["dropped"].as_u64().context("a count")?;
    listed.close().await;
    let counts = Counts { sent, dropped, shown: by_panel.iter().sum() };
    println!("{sent} readings of {SENSORS} sensors: {dropped} dropped, {} shown, in order", counts.shown);
    println!("by the panels: {by_panel:?}");
    Ok(counts)
}
