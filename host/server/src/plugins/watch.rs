//! A directory that is watched, for development: a file that changed is pushed, and deployed to every route that uses
//! the plugin of its name. What fails leaves what served before.
//!
//! It is looked at a few times a second; that works on any file system, and a build that is still writing is left alone
//! until two looks find the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use quipu_runtime::{Digest, FILE_BYTES_MAX};
use tokio_util::sync::CancellationToken;

use super::deploy::{Order, Target, deploy};
use super::version::{self, check_name};
use super::{Push, routes_with};
use crate::files;
use crate::services::Services;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// Files that are looked at.
const FILES_MAX: usize = 1_000;

/// What tells that a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

/// Pushes and deploys what changes, until told to stop.
pub(crate) async fn run(services: Arc<Services>, dir: PathBuf, stop: CancellationToken) {
    tracing::info!(dir = %dir.display(), "plugins in this directory are deployed as they change");
    let (mut handled, mut before): (BTreeMap<String, Stamp>, _) = Default::default();
    let mut was_readable = true;
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        let now = match look(dir.clone()).await {
            Ok(now) => now,
            Err(e) => {
                if std::mem::take(&mut was_readable) {
                    tracing::warn!("plugins.watch: {e:#}");
                }
                continue;
            }
        };
        was_readable = true;
        for (name, stamp) in &now {
            if handled.get(name) != Some(stamp) && before == now {
                handled.insert(name.clone(), *stamp);
                if let Err(e) = take(&services, name, &dir.join(name).with_extension("wasm")).await {
                    tracing::warn!(plugin = name, "the changed file is not taken, what served before goes on: {e:#}");
                }
            }
        }
        handled.retain(|name, _| now.contains_key(name));
        before = now;
    }
}

/// The plugins in the directory, as they are now.
async fn look(dir: PathBuf) -> Result<BTreeMap<String, Stamp>> {
    let look = move || -> Result<_> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).filter(|name| check_name(name).is_ok());
            if let (Some(name), Ok(file)) = (name.filter(|_| is_wasm(&path)), path.metadata())
                && file.is_file()
                && found.len() < FILES_MAX
            {
                found.insert(name.to_owned(), Stamp { modified: file.modified().ok(), bytes: file.len() });
            }
        }
        Ok(found)
    };
    tokio::task::spawn_blocking(look).await?
}

fn is_wasm(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "wasm")
}

/// Pushes a file, and deploys it where its plugin is used and does not serve yet.
async fn take(services: &Arc<Services>, name: &str, file: &Path) -> Result<()> {
    let path = file.to_owned();
    let bytes = tokio::task::spawn_blocking(move || files::read(&path, FILE_BYTES_MAX as u64)).await??;
    let digest = Digest::of(&bytes).to_string();
    let source = file.display().to_string();
    let (tag, who) = (Some(version::WATCH.to_owned()), "watch".to_owned());
    // The cases of the version before go on to the next.
    let cases = services.plugins.store.versions(Some(name)).first().map(|latest| latest.cases.clone());
    let push = Push { name: name.to_owned(), tag, cases: cases.unwrap_or_default(), source, who: who.clone(), bytes };
    services.plugins.push(push).await?;
    for route in routes_with(&services.config(), name) {
        let serves = services.router.routes().into_iter().find(|info| info.name == route.name);
        if serves.is_some_and(|info| info.plugins.iter().any(|p| *p.name == *name && *p.digest == *digest)) {
            continue;
        }
        let (to, route) = (Target::Version(digest.clone()), route.name);
        let order = Order { name: name.to_owned(), route: route.clone(), to, who: who.clone() };
        match deploy(services, order).await {
            Ok(_) => tracing::info!(plugin = name, route, digest = version::short(&digest), "serves, probed"),
            Err(_) => tracing::warn!(plugin = name, route, "what served before goes on"),
        }
    }
    Ok(())
}
