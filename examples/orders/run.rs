//! One order to invoice, stock and shipping; one of them poisons a plugin, and is made good by another version.

mod consumer;
mod producer;

use anyhow::{Context as _, Result};

use crate::Router;
use consumer::Department;

/// The order that the first version of the plugin fails on.
const SAMPLE: u64 = 13;
/// Orders before the second version is there.
const FIRST: u64 = 20;

const VERSION_1: &str = env!("WASM_QUIPU_EXAMPLE_INVOICE_1_0_0");
const VERSION_2: &str = env!("WASM_QUIPU_EXAMPLE_INVOICE_1_0_1");

/// What came of it all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Orders that the shop took.
    pub orders: u64,
    /// Orders that each department has, in the end.
    pub invoices: usize,
    /// See [`Counts::invoices`].
    pub stock: usize,
    /// See [`Counts::invoices`].
    pub shipping: usize,
    /// Why the poison order was a dead letter meanwhile.
    pub poison: String,
    /// What its invoice says in the end.
    pub cents_each: u64,
}

/// Runs it.
///
/// # Errors
///
/// Where anything is missing, comes twice or does not work.
pub async fn run(router: &Router) -> Result<Counts> {
    router.quipu(&["plugin", "push", VERSION_1, "--name", "invoice", "--tag", "1.0.0"]).await?;
    let (shop, office) = (router.client("shop").await?, router.client("office").await?);
    producer::publish(&shop, 1..=FIRST).await?;

    let mut invoices = Department::open(&office, "invoices").await?;
    let mut stock = Department::open(&office, "stock").await?;
    let mut shipping = Department::open(&office, "shipping").await?;
    let to_ship = |orders: u64| usize::try_from(orders - orders / 4);
    // All but the free sample.
    invoices.take(usize::try_from(FIRST)? - 1).await?;
    stock.take(usize::try_from(FIRST)?).await?;
    shipping.take(to_ship(FIRST)?).await?;
    let poison = dead_letter(&office).await?;
    println!("Order {SAMPLE} has no invoice: {poison}\n");

    // The shop goes on while another version takes over, and knows nothing of it.
    router.quipu(&["plugin", "push", VERSION_2, "--name", "invoice", "--tag", "1.0.1"]).await?;
    let deploying = router.quipu(&["plugin", "deploy", "invoice@1.0.1", "--route", "invoice"]);
    let (deployed, all) = producer::publish_during(&shop, FIRST + 1, deploying).await?;
    deployed?;
    router.quipu(&["queue", "redrive", "orders-dead"]).await?;

    invoices.take(usize::try_from(all)?).await?;
    stock.take(usize::try_from(all)?).await?;
    shipping.take(to_ship(all)?).await?;
    // Fails where a subscription's sum is wrong.
    router.quipu(&["ledger"]).await?;
    let counts = Counts {
        orders: all,
        invoices: invoices.orders.len(),
        stock: stock.orders.len(),
        shipping: shipping.orders.len(),
        poison,
        cents_each: invoices.orders[&SAMPLE]["cents_each"].as_u64().context("a price")?,
    };
    let (invoices, stock, shipping) = (counts.invoices, counts.stock, counts.shipping);
    println!("{all} orders: {invoices} invoices, {stock} for stock, {shipping} parcels");
    println!("The invoice of order {SAMPLE} is there as well: {} cents for each piece", counts.cents_each);
    shop.close().await;
    office.close().await;
    Ok(counts)
}

/// Looks at the dead letter of the queue `orders`, and leaves it there.
async fn dead_letter(client: &quipu_client::Client) -> Result<String> {
    // It is made when the first letter dies, which is soon.
    let waiting = async {
        loop {
            match client.subscribe(quipu_client::Subscribe::new("orders-dead", "look")).await {
                Err(quipu_client::SubscribeError::Refused(_)) => tokio::task::yield_now().await,
                subscribed => return subscribed,
            }
        }
    };
    let mut letters = tokio::time::timeout(crate::PATIENCE, waiting).await.context("no dead letter")??;
    let letter = crate::next(&mut letters).await?;
    Ok(letter.message.headers.first("quipu-dead-reason").context("a reason")?.to_owned())
}
