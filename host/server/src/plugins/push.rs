//! How versions come into the store: pushed, or taken in from files of the configuration and from the stock.

use std::sync::Arc;

use anyhow::{Result, ensure};
use quipu_runtime::{Component, FILE_BYTES_MAX};

use super::Plugins;
use super::cases::{self, Case};
use super::offline::{Found, find};
use super::version::{self, SOURCE_BYTES_MAX, Version, check_name, check_tag, is_own, unix_ms};
use crate::config::Config;

/// Function names that the index keeps of one version, in bytes.
const FUNCTIONS_BYTES_MAX: usize = 16 << 10;

/// A version that is to be added.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) name: String,
    /// None: the beginning of its digest.
    pub(crate) tag: Option<String>,
    pub(crate) cases: Vec<Case>,
    pub(crate) source: String,
    pub(crate) who: String,
    pub(crate) bytes: Vec<u8>,
}

impl Plugins {
    /// Compiles a version and adds it. What is no plugin is not kept.
    pub(crate) async fn push(&self, push: Push) -> Result<Arc<Version>> {
        check_name(&push.name)?;
        if let Some(tag) = &push.tag {
            check_tag(tag)?;
        }
        cases::check(&push.cases)?;
        ensure!(push.bytes.len() <= FILE_BYTES_MAX, "{}: a plugin has at most {FILE_BYTES_MAX} bytes", push.source);
        let mut loaded = self.compiler.load(&push.name, &push.source, push.bytes.clone()).await?;
        let version = described(&push, &loaded.component, self.known_tag(&push, &loaded.component));
        let version = self.store.put(version, &push.bytes).await?;
        self.compiler.keep(&mut loaded).await;
        if is_own(&version.tag) {
            self.prune(&version).await?;
        }
        Ok(version)
    }

    /// The tag that it gets: a version keeps what somebody gave it, unless somebody gives it another.
    fn known_tag(&self, push: &Push, component: &Component) -> String {
        let digest = component.digest();
        let known = self.store.get(&push.name, &digest.to_string()).map(|known| known.tag.clone());
        match (&push.tag, known) {
            (Some(tag), Some(known)) if is_own(tag) && !is_own(&known) => known,
            (Some(tag), _) => tag.clone(),
            (None, Some(known)) if !is_own(&known) => known,
            (None, _) => digest.short(),
        }
    }

    /// Of what the router took in by itself, the last five are kept, and those that somebody deployed.
    async fn prune(&self, latest: &Version) -> Result<()> {
        let deployed = self.store.deployments();
        let used = |version: &Version| {
            let of = deployed.iter().filter(|(_, name, _)| *name == version.name);
            let mut digests = of.flat_map(|(_, _, deployed)| deployed.previous.iter().chain([&deployed.digest]));
            digests.any(|digest| *digest == version.digest)
        };
        let versions = self.store.versions(Some(&latest.name));
        let same = versions.into_iter().filter(|version| version.tag == latest.tag);
        for old in same.skip(KEPT_OF_OWN).filter(|version| !used(version)) {
            self.store.remove(&old).await?;
        }
        Ok(())
    }

    /// Copies a file of the configuration, or a stock plugin, into the store where it is not there: the version that it
    /// is. None where there is neither.
    pub(super) async fn take_in(&self, config: &Config, name: &str) -> Result<Option<Arc<Version>>> {
        let Some(Found { source, bytes }) = self.found(config, name).await? else { return Ok(None) };
        let tag = if source == version::STOCK { version::STOCK } else { version::FILE };
        let digest = quipu_runtime::Digest::of(&bytes).to_string();
        if let Some(known) = self.store.get(name, &digest) {
            let latest = self.store.versions(Some(name)).into_iter().find(|version| version.tag == known.tag);
            if !is_own(&known.tag) || latest.is_some_and(|latest| latest.digest == digest) {
                return Ok(Some(known));
            }
        }
        let (tag, who) = (Some(tag.to_owned()), "router".to_owned());
        self.push(Push { name: name.to_owned(), tag, cases: Vec::new(), source, who, bytes }).await.map(Some)
    }

    /// The file of the configuration as it is now, or the stock plugin.
    pub(super) async fn found(&self, config: &Config, name: &str) -> Result<Option<Found>> {
        let file = config.plugin.get(name).and_then(|plugin| plugin.file.clone());
        let (dir, name) = (config.plugins.dir.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || find(&name, file, dir.as_deref())).await?
    }

    /// Copies what the configuration names and no route uses yet into the store. Nobody waits for it, so what is wrong
    /// with it is only said.
    pub(crate) async fn take_in_all(&self, config: &Config) {
        for name in super::names(config) {
            if let Err(e) = self.take_in(config, &name).await {
                tracing::warn!(plugin = name, "its file is not taken: {e:#}");
            }
        }
    }
}

/// So many versions of each plugin that the router took in by itself.
const KEPT_OF_OWN: usize = 5;

fn described(push: &Push, component: &Component, tag: String) -> Version {
    let mut bytes = 0;
    let short = |name: &&String| {
        bytes += name.len() + 3;
        bytes <= FUNCTIONS_BYTES_MAX
    };
    let [mut source, mut who] = [push.source.clone(), push.who.clone()];
    for text in [&mut source, &mut who] {
        quipu_protocol::code::truncate(text, SOURCE_BYTES_MAX);
    }
    Version {
        name: push.name.clone(),
        digest: component.digest().to_string(),
        tag,
        sequence: 0,
        when_ms: unix_ms(),
        who,
        size_bytes: push.bytes.len() as u64,
        contract: component.contract_version().to_owned(),
        imports: component.imports().to_vec(),
        functions: component.functions().iter().take_while(short).cloned().collect(),
        has_names: component.has_names(),
        source,
        cases: push.cases.clone(),
    }
}
