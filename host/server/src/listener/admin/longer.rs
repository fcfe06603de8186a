//! Calls that take longer than an answer may: begun by the first, awaited by each, done for all who call meanwhile.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quipu_protocol::code::Code;
use quipu_protocol::proto;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Services;

/// A call is answered within this time, done or not.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

type Outcome = Option<Result<Value, String>>;

/// What is under way, by what was asked.
#[derive(Debug, Default)]
pub(crate) struct Longer(Mutex<HashMap<String, watch::Receiver<Outcome>>>);

impl Longer {
    /// Begins the work where it is not under way, and waits a moment for it: whether it is done, and what it came to.
    pub(super) async fn wait(
        &self,
        what: String,
        work: impl Future<Output = Result<Value, String>> + Send + 'static,
    ) -> Result<Value, proto::Error> {
        let mut outcome = self.begin(&what, work);
        let waited = tokio::time::timeout(ANSWER_WAIT, outcome.wait_for(Option::is_some)).await;
        let done = match waited {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => Some(Err("it was given up".into())),
            Err(_) => None,
        };
        if done.is_some() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&what);
        }
        match done {
            Some(Err(why)) => Err(Code::Internal.error(why)),
            Some(Ok(result)) => Ok(json!({ "done": true, "result": result })),
            None => Ok(json!({ "done": false })),
        }
    }

    fn begin(
        &self,
        what: &str,
        work: impl Future<Output = Result<Value, String>> + Send + 'static,
    ) -> watch::Receiver<Outcome> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = running.get(what) {
            return outcome.clone();
        }
        // Nobody called again for those.
        running.retain(|_, outcome| outcome.borrow().is_none());
        let (sender, outcome) = watch::channel(None);
        running.insert(what.to_owned(), outcome.clone());
        tokio::spawn(async move { sender.send_replace(Some(work.await)) });
        outcome
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backup {
    path: PathBuf,
}

pub(super) async fn backup(services: &Services, Backup { path }: Backup) -> Result<Value, proto::Error> {
    if !path.is_absolute() {
        let text = format!("store.backup: {} is no absolute path; it is on the router's machine", path.display());
        return Err(Code::InvalidCall.error(text));
    }
    let (plugins, store) = (services.plugins.clone(), services.store.clone());
    let what = format!("backup {}", path.display());
    let work = async move {
        let copied = async { Ok(store.backup(path.clone()).await?) };
        let all = plugins.store.backup(&path.join("plugins"), copied).await;
        all.map(|()| Value::Null).map_err(|e| format!("{e:#}"))
    };
    services.longer.wait(what, work).await
}

pub(super) async fn compact(services: &Services) -> Result<Value, proto::Error> {
    let store = services.store.clone();
    let work = async move { store.compact().await.map(|()| Value::Null).map_err(|e| e.to_string()) };
    services.longer.wait("compact".into(), work).await
}
