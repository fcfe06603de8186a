//! The demo's change in flight: halfway through the feed the filter of `regions` gets another threshold, by the
//! configuration file and `config.reload`, as with any router.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use quipu_client::Client;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::commands::define::swapped;
use crate::commands::output::say;

/// The route whose filter changes.
pub(super) const ROUTE: &str = "regions";
/// Its threshold to begin with, and from then on.
pub(super) const THRESHOLDS: [f64; 2] = [2.5, 4.5];

/// For the filter to work on something; a feed may have nothing for it.
const WORK_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at the route.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Where publishing and the change meet: messages flow meanwhile, and some come after it.
pub(super) struct Meeting {
    lines: u64,
    begin: Option<oneshot::Sender<()>>,
    over: Option<oneshot::Receiver<()>>,
}

impl Meeting {
    /// To be told of each line before it is published.
    pub(super) async fn before(&mut self, line: u64) {
        if line > self.lines / 2 {
            // Ignored: what fails over there is said there.
            self.begin.take().map(|begin| begin.send(()).ok());
        }
        if line > self.lines / 4 * 3
            && let Some(over) = self.over.take()
        {
            over.await.ok();
        }
    }
}

/// Prepares the change for a feed of so many lines; what the router says of it.
pub(super) fn prepare(lines: u64, client: Client, file: PathBuf, aloud: bool) -> (Meeting, JoinHandle<Result<Value>>) {
    let ((begin, begun), (end, over)) = (oneshot::channel(), oneshot::channel());
    let changing = tokio::spawn(async move {
        // A feed that ends before has no second half.
        let changed = match begun.await {
            Ok(()) => change_at_work(&client, file, aloud).await,
            Err(_) => change(&client, file, aloud).await,
        };
        end.send(()).ok();
        changed
    });
    (Meeting { lines, begin: Some(begin), over: Some(over) }, changing)
}

/// Waits until the filter has worked on something.
async fn change_at_work(client: &Client, file: PathBuf, aloud: bool) -> Result<Value> {
    let begun = Instant::now();
    while begun.elapsed() < WORK_WAIT {
        let answer = client.call("route.list", json!({})).await?;
        let mut routes = answer["routes"].as_array().into_iter().flatten();
        if routes.any(|route| route["name"] == ROUTE && route["attempts"].as_u64() > Some(0)) {
            break;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    change(client, file, aloud).await
}

async fn change(client: &Client, file: PathBuf, aloud: bool) -> Result<Value> {
    let text = tokio::fs::read_to_string(&file).await?;
    let [before, after] = THRESHOLDS.map(|threshold| format!("at_least = {threshold:.1} "));
    ensure!(text.matches(&before).count() == 1, "the demo's configuration has another threshold than {before}");
    tokio::fs::write(&file, text.replace(&before, &after)).await?;
    let answer = client.call("config.reload", json!({})).await?;
    let swap = answer["swaps"].get(0).cloned().with_context(|| format!("no route was swapped: {answer}"))?;
    if aloud {
        let [before, after] = THRESHOLDS;
        say!("swap   at_least {before:.1} → {after:.1}: {}", swapped(&swap))?;
    }
    Ok(swap)
}
