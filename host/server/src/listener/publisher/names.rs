//! The streams of named publishers: opening a name ends the stream that had it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Names of different shards are opened at the same time.
const SHARDS: usize = 64;

type Shard = Mutex<HashMap<String, (u64, CancellationToken)>>;

/// Who has which name.
#[derive(Debug)]
pub(crate) struct Names {
    shards: Arc<[Shard]>,
    hasher: RandomState,
    next: AtomicU64,
}

/// A stream that has a name, until it is dropped.
#[derive(Debug)]
pub(super) struct Named {
    /// When another has taken it.
    pub(super) fenced: CancellationToken,
    name: String,
    number: u64,
    shards: Arc<[Shard]>,
    shard: usize,
}

impl Names {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, hasher: RandomState::new(), next: AtomicU64::new(0) }
    }

    /// Opens a name as `opens` does, and takes it from the stream that had it. Two that open one name do so one after the
    /// other, so that the last to have opened it is the last to have it.
    pub(super) async fn open<T, E>(
        &self,
        name: &str,
        opens: impl Future<Output = Result<T, E>>,
    ) -> Result<(T, Named), E> {
        let shard = usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).unwrap_or(0);
        let mut names = self.shards[shard].lock().await;
        let opened = opens.await?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let fenced = CancellationToken::new();
        if let Some((_, before)) = names.insert(name.to_owned(), (number, fenced.clone())) {
            before.cancel();
        }
        Ok((opened, Named { fenced, name: name.to_owned(), number, shards: self.shards.clone(), shard }))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let (shards, shard, number) = (self.shards.clone(), self.shard, self.number);
        let name = std::mem::take(&mut self.name);
        // None: the router is at its end, and the names with it.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let mut names = shards[shard].lock().await;
            if names.get(&name).is_some_and(|(has, _)| *has == number) {
                names.remove(&name);
            }
        });
    }
}
