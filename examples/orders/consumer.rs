//! A department: it takes what is for it, each message once.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use quipu_client::{Client, Subscribe, Subscriber};
use serde_json::Value;

/// What came to a department, by order.
pub(super) struct Department {
    subscriber: Subscriber,
    pub(super) orders: BTreeMap<u64, Value>,
}

impl Department {
    pub(super) async fn open(client: &Client, queue: &str) -> Result<Self> {
        let subscriber = client.subscribe(Subscribe::new(queue, "department")).await?;
        Ok(Self { subscriber, orders: BTreeMap::new() })
    }

    /// Takes messages until it has so many orders in all.
    pub(super) async fn take(&mut self, count: usize) -> Result<()> {
        while self.orders.len() < count {
            let delivery = crate::next(&mut self.subscriber).await?;
            let content = crate::json(&delivery)?;
            let order = content["order"].as_u64().unwrap_or_default();
            ensure!(self.orders.insert(order, content).is_none(), "order {order} came twice");
            delivery.ack().await?;
        }
        Ok(())
    }
}
