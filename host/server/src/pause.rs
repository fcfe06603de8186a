//! Which inline routes are paused. Those that read a queue are paused by their subscription; these have none, so it is in
//! the records of the store.

use anyhow::Result;
use bytes::Bytes;
use quipu_queue::Store;
use quipu_router::Router;

/// What the keys of these records begin with, before the route's name.
const RECORDS: &str = "paused/";

/// Keeps that a route is paused, or no longer.
pub(crate) async fn set(store: &Store, route: &str, paused: bool) -> Result<()> {
    let value = paused.then(|| Bytes::from_static(b"{}"));
    Ok(store.set_records(vec![(format!("{RECORDS}{route}"), value)]).await??)
}

/// Pauses the routes that were paused before a restart. What is kept of others is forgotten.
pub(crate) async fn restore(store: &Store, router: &Router) -> Result<()> {
    let inline: Vec<String> =
        router.routes().into_iter().filter(|route| route.from.is_empty()).map(|route| route.name).collect();
    for (key, _) in store.records(RECORDS).await? {
        let name = &key[RECORDS.len()..];
        if inline.iter().any(|route| route == name) {
            router.set_paused(name, true)?;
        } else {
            set(store, name, false).await?;
        }
    }
    Ok(())
}
