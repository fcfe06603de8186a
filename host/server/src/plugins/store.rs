//! The store of plugins: which versions there are, and which of them routes serve.
//!
//! The index is in the records of the router's store, the files are beside it, named by their digest. A file is there
//! before its entry is, and its entry goes before it does: an entry whose file is missing means damage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use quipu_queue::Store;
use quipu_runtime::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::blobs::Blobs;
use super::version::{Deployed, Version, is_own, short, unix_ms};
use crate::nearest::{did_you_mean, nearest};

/// Most versions of all plugins.
const VERSIONS_MAX: usize = 1_000;
/// Versions, by name and digest.
pub(super) const VERSIONS: &str = "plugin/";
const DEPLOYED: &str = "deploy/";
/// Configurations that were served, by the first 16 digits of their digests, so that dead letters can be replayed.
const CONFIGS: &str = "config/";
/// Most of them, and bytes of one and of all; the oldest go.
const CONFIGS_MAX: usize = 1_000;
const CONFIG_BYTES_MAX: usize = 64 << 10;
const CONFIGS_BYTES_MAX: usize = 8 << 20;
/// A time in Unix milliseconds before each.
const STAMP_BYTES: usize = 8;

/// Versions of plugins, on disk.
pub(crate) struct PluginStore {
    store: Store,
    pub(crate) blobs: Blobs,
    bytes_max: u64,
    index: Mutex<Index>,
    /// Held while entries and files change: one change at a time, and none during a copy.
    change: tokio::sync::Mutex<()>,
}

/// What the records say.
#[derive(Default)]
struct Index {
    /// By name and digest.
    versions: BTreeMap<(String, String), Arc<Version>>,
    /// By route and name.
    deployed: BTreeMap<(String, String), Deployed>,
    /// When each configuration was first served, in Unix milliseconds, and its bytes.
    configs: BTreeMap<String, (u64, usize)>,
}

impl PluginStore {
    /// Reads the index, and takes away files that are not in it.
    pub(crate) async fn open(store: Store, blobs: Blobs, bytes_max: u64) -> Result<Self> {
        let mut index = Index::default();
        for (version, entry) in read::<Version>(&store, VERSIONS).await? {
            index.versions.insert((entry.name.clone(), entry.digest.clone()), Arc::new(entry));
            tracing::debug!(version, "a plugin's version");
        }
        for (key, entry) in read::<Deployed>(&store, DEPLOYED).await? {
            if let Some((route, name)) = key.split_once('/') {
                index.deployed.insert((route.to_owned(), name.to_owned()), entry);
            }
        }
        for (key, value) in store.records(CONFIGS).await? {
            let when_ms = value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            index.configs.insert(key[CONFIGS.len()..].to_owned(), (when_ms, value.len()));
        }
        blobs.sweep(&index.versions.keys().map(|(_, digest)| digest.as_str()).collect())?;
        Ok(Self { store, blobs, bytes_max, index: Mutex::new(index), change: tokio::sync::Mutex::default() })
    }

    /// All versions, of one plugin or of all, the latest of each first.
    pub(crate) fn versions(&self, name: Option<&str>) -> Vec<Arc<Version>> {
        let index = self.index();
        let wanted = index.versions.values().filter(|version| name.is_none_or(|name| version.name == name));
        let mut versions: Vec<_> = wanted.cloned().collect();
        versions.sort_by(|a, b| a.name.cmp(&b.name).then(b.sequence.cmp(&a.sequence)));
        versions
    }

    /// The version with this digest.
    pub(crate) fn get(&self, name: &str, digest: &str) -> Option<Arc<Version>> {
        self.index().versions.get(&(name.to_owned(), digest.to_owned())).cloned()
    }

    /// The one that was pushed last; what the router took in by itself counts only for its own tag.
    pub(crate) fn latest(&self, name: &str) -> Option<Arc<Version>> {
        self.versions(Some(name))
            .into_iter()
            .find(|version| !is_own(&version.tag) || version.tag == super::version::WATCH)
    }

    /// The one that a tag or the beginning of a digest names.
    pub(crate) fn find(&self, name: &str, version: &str) -> Result<Arc<Version>> {
        let mut versions = self.versions(Some(name));
        ensure!(!versions.is_empty(), "{}", self.missing(name));
        if let Some(at) = versions.iter().position(|known| known.tag == version) {
            return Ok(versions.swap_remove(at));
        }
        let known: Vec<String> =
            versions.iter().take(10).map(|known| format!("{} ({})", known.tag, known.short())).collect();
        let mut found = versions.into_iter().filter(|known| known.begins_with(version));
        match (found.next(), found.next()) {
            (Some(version), None) => Ok(version),
            (Some(_), Some(_)) => bail!("{name}@{version} is more than one version: give more of the digest"),
            (None, _) => {
                let versions = self.versions(Some(name));
                let near = did_you_mean(version, versions.iter().map(|known| known.tag.as_str()));
                let there = if near.is_empty() { "; there are" } else { " There are" };
                bail!("there is no {name}@{version}{near}{there} {}", known.join(", "))
            }
        }
    }

    /// What is said of a plugin that is not in the store: the one that was most likely meant, or how to push it.
    pub(crate) fn missing(&self, name: &str) -> String {
        let versions = self.versions(None);
        match nearest(name, versions.iter().map(|version| version.name.as_str())) {
            Some(near) => format!("plugin {name:?} is not in the store; did you mean {near:?}?"),
            None => format!("plugin {name:?} is not in the store: quipu plugin push {name}.wasm"),
        }
    }

    /// Adds a version, or what is new about one that is there: its tag and its cases.
    pub(crate) async fn put(&self, mut version: Version, bytes: &[u8]) -> Result<Arc<Version>> {
        let _turn = self.change.lock().await;
        version.sequence = self.check_room(&version)?;
        let (blobs, digest, bytes) = (self.blobs.clone(), version.digest.clone(), Bytes::copy_from_slice(bytes));
        tokio::task::spawn_blocking(move || blobs.write(&digest, &bytes)).await??;
        let key = format!("{VERSIONS}{}/{}", version.name, version.digest);
        self.write(vec![(key, Some(json(&version)?))]).await?;
        let version = Arc::new(version);
        self.index().versions.insert((version.name.clone(), version.digest.clone()), version.clone());
        Ok(version)
    }

    /// Whether it may be added; its place in the order.
    fn check_room(&self, version: &Version) -> Result<u64> {
        let index = self.index();
        let same = |known: &&Arc<Version>| known.name == version.name && known.tag == version.tag;
        if !is_own(&version.tag)
            && let Some(other) = index.versions.values().filter(same).find(|known| known.digest != version.digest)
        {
            let (name, tag, digest) = (&version.name, &version.tag, other.short());
            bail!("{name}@{tag} is {digest} already: push with another tag, or remove that one first");
        }
        let is_new = !index.versions.contains_key(&(version.name.clone(), version.digest.clone()));
        ensure!(
            !is_new || index.versions.len() < VERSIONS_MAX,
            "{VERSIONS_MAX} versions of plugins are kept; remove some"
        );
        let mut sizes: BTreeMap<&str, u64> =
            index.versions.values().map(|v| (v.digest.as_str(), v.size_bytes)).collect();
        sizes.insert(&version.digest, version.size_bytes);
        let (bytes, max) = (sizes.values().sum::<u64>(), self.bytes_max);
        ensure!(
            bytes <= max,
            "plugins.store_max: {bytes} bytes of plugins with this one, and {max} are allowed; remove some"
        );
        Ok(index.versions.values().map(|version| version.sequence).max().unwrap_or(0) + 1)
    }

    /// Takes away a version. Whether it is in use is for the caller.
    pub(crate) async fn remove(&self, version: &Version) -> Result<()> {
        let _turn = self.change.lock().await;
        let key = format!("{VERSIONS}{}/{}", version.name, version.digest);
        self.write(vec![(key, None)]).await?;
        let shared = {
            let mut index = self.index();
            index.versions.remove(&(version.name.clone(), version.digest.clone()));
            index.versions.keys().any(|(_, digest)| *digest == version.digest)
        };
        if !shared {
            let (blobs, digest) = (self.blobs.clone(), version.digest.clone());
            tokio::task::spawn_blocking(move || blobs.remove(&digest)).await??;
        }
        Ok(())
    }

    /// Which version a route serves by somebody's word.
    pub(crate) fn deployed(&self, route: &str, name: &str) -> Option<Deployed> {
        self.index().deployed.get(&(route.to_owned(), name.to_owned())).cloned()
    }

    /// Every such word: route, name, and which.
    pub(crate) fn deployments(&self) -> Vec<(String, String, Deployed)> {
        let index = self.index();
        index.deployed.iter().map(|((route, name), deployed)| (route.clone(), name.clone(), deployed.clone())).collect()
    }

    /// Keeps which version a route serves now.
    pub(crate) async fn set_deployed(&self, route: &str, name: &str, deployed: Deployed) -> Result<()> {
        let _turn = self.change.lock().await;
        self.write(vec![(format!("{DEPLOYED}{route}/{name}"), Some(json(&deployed)?))]).await?;
        self.index().deployed.insert((route.to_owned(), name.to_owned()), deployed);
        Ok(())
    }

    /// Keeps configurations of plugins that are served, so that what fails with them can be replayed later.
    pub(crate) async fn keep_configs(&self, configs: impl Iterator<Item = &str>) -> Result<()> {
        let fits = |config: &&str| config.len() <= CONFIG_BYTES_MAX;
        let all: BTreeMap<String, &str> =
            configs.filter(fits).map(|config| (Digest::of(config.as_bytes()).prefix(), config)).collect();
        let _turn = self.change.lock().await;
        let now = unix_ms();
        let (mut known, mut records) = (self.index().configs.clone(), Vec::new());
        for (digest, config) in &all {
            if known.insert(digest.clone(), (now, STAMP_BYTES + config.len())).is_none() {
                let value = [&now.to_be_bytes(), config.as_bytes()].concat();
                records.push((format!("{CONFIGS}{digest}"), Some(Bytes::from(value))));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        while known.len() > CONFIGS_MAX || known.values().map(|(_, bytes)| bytes).sum::<usize>() > CONFIGS_BYTES_MAX {
            let others = known.iter().filter(|(digest, _)| !all.contains_key(*digest));
            let Some(oldest) = others.min_by_key(|(_, (when_ms, _))| *when_ms).map(|(digest, _)| digest.clone()) else {
                break;
            };
            known.remove(&oldest);
            records.push((format!("{CONFIGS}{oldest}"), None));
        }
        self.write(records).await?;
        self.index().configs = known;
        Ok(())
    }

    /// The configuration whose digest has these first 16 digits, where it is kept.
    pub(crate) async fn config(&self, digest: &str) -> Result<Option<String>> {
        let key = format!("{CONFIGS}{digest}");
        let found = self.store.records(&key).await?.into_iter().find(|(known, _)| *known == key);
        let text = found.and_then(|(_, value)| String::from_utf8(value.get(STAMP_BYTES..)?.to_vec()).ok());
        Ok(text.filter(|text| Digest::of(text.as_bytes()).prefix() == digest))
    }

    /// Copies every file of the index to where a copy of the store is being made.
    pub(crate) async fn backup(&self, to: &Path, copied: impl Future<Output = Result<()>>) -> Result<()> {
        // Until the files are copied, none of the copy's index may go.
        let _turn = self.change.lock().await;
        copied.await?;
        let digests: BTreeSet<String> = self.index().versions.keys().map(|(_, digest)| digest.clone()).collect();
        if digests.is_empty() {
            return Ok(());
        }
        let (blobs, to) = (self.blobs.clone(), to.to_owned());
        tokio::task::spawn_blocking(move || blobs.copy(&digests, &to)).await?
    }

    async fn write(&self, records: Vec<(String, Option<Bytes>)>) -> Result<()> {
        self.store.set_records(records).await?.context("the index of plugins")
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records below a prefix, with the rest of their keys. One that cannot be read is of a later version: it is said,
/// and left as it is.
async fn read<T: DeserializeOwned>(store: &Store, prefix: &str) -> Result<Vec<(String, T)>> {
    let mut entries = Vec::new();
    for (key, value) in store.records(prefix).await? {
        match serde_json::from_slice(&value) {
            Ok(entry) => entries.push((key[prefix.len()..].to_owned(), entry)),
            Err(e) => tracing::warn!(key, %e, "a record that this router does not know"),
        }
    }
    Ok(entries)
}

fn json(value: &impl Serialize) -> Result<Bytes> {
    Ok(Bytes::from(serde_json::to_vec(value)?))
}

/// `1.5.0 (b81f77d4)`, or the digest alone.
pub(crate) fn named(version: &Version) -> String {
    if version.label() == version.short() {
        short(&version.digest).to_owned()
    } else {
        format!("{} ({})", version.tag, version.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_queue::StoreConfig;
    use quipu_queue::journal::JournalConfig;

    #[tokio::test]
    async fn the_oldest_configurations_go_and_what_serves_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let journal = JournalConfig { segments: 4, segment_bytes: 1 << 20 };
        let store = Store::open(&StoreConfig { journal, ..StoreConfig::new(directory.path()) }).expect("a store");
        let blobs = || Blobs::open(directory.path().join("plugins")).expect("a directory");
        let plugins = PluginStore::open(store.clone(), blobs(), 1 << 20).await.expect("an index");
        let config = |n: usize| format!("{{\"n\":{n}}}");
        let digest = |n: usize| Digest::of(config(n).as_bytes()).prefix();
        let keep = async |range: std::ops::Range<usize>| {
            let configs: Vec<String> = range.map(config).collect();
            plugins.keep_configs(configs.iter().map(String::as_str)).await.expect("kept");
        };
        keep(0..10).await;
        let times: BTreeSet<u64> = plugins.index().configs.values().map(|(when_ms, _)| *when_ms).collect();
        // Those that come are later than those that are there.
        while times.contains(&unix_ms()) {
            tokio::task::yield_now().await;
        }
        keep(10..CONFIGS_MAX + 4).await;
        assert_eq!(plugins.index().configs.len(), CONFIGS_MAX);
        let mut gone = 0;
        for n in 0..10 {
            gone += usize::from(plugins.config(&digest(n)).await.expect("read").is_none());
        }
        assert_eq!(gone, 4, "of the oldest, and no more than had to");
        assert_eq!(plugins.config(&digest(CONFIGS_MAX)).await.expect("read"), Some(config(CONFIGS_MAX)));
        let long = format!("\"{}\"", "x".repeat(CONFIG_BYTES_MAX));
        plugins.keep_configs([long.as_str()].into_iter()).await.expect("passed over");
        assert_eq!(plugins.config(&Digest::of(long.as_bytes()).prefix()).await.expect("read"), None);
        // What is read at a start is what was left.
        let known = plugins.index().configs.clone();
        let again = PluginStore::open(store.clone(), blobs(), 1 << 20).await.expect("an index");
        assert_eq!(again.index().configs, known);
        store.stop().await.expect("a clean stop");
    }
}
