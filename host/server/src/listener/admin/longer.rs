//! Calls that take longer than an answer may: begun by the first, awaited by each, done for all who call meanwhile.
//!
//! A call may carry an id. Who asks with it again, because the answer was lost on the way, is told what came of it then,
//! and nothing is done twice.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use quipu_protocol::code::Code;
use quipu_protocol::proto;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Services;

/// So many are known, the latest of them.
const KEPT_MAX: usize = 64;
/// A larger result, in bytes, is not kept once it was told: those tell, and change nothing.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// Longest id of a call, in bytes.
const ID_BYTES_MAX: usize = 64;

type Outcome = Option<Result<Value, String>>;

/// What is under way and what came of it, by what was asked.
#[derive(Debug, Default)]
pub(crate) struct Longer {
    all: Mutex<HashMap<What, Work>>,
    times: Times,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    /// A call is answered within this time, done or not.
    answer_wait: Duration,
    /// What came of a call with an id is known so long after it was last asked for, …
    kept: Duration,
    /// … and of one without so long for who has not been told: another may ask the same anew.
    kept_without_id: Duration,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct What {
    what: String,
    /// The call's id.
    id: Option<String>,
}

#[derive(Debug)]
struct Work {
    outcome: watch::Receiver<Outcome>,
    asked: Instant,
}

impl Default for Times {
    fn default() -> Self {
        let kept = Duration::from_mins(10);
        Self { answer_wait: Duration::from_secs(10), kept, kept_without_id: Duration::from_mins(1) }
    }
}

impl What {
    /// This, asked by a call with this id.
    pub(super) fn new(what: String, id: Option<String>) -> Self {
        Self { what, id }
    }
}

impl Work {
    /// Whether it is over, in whichever way.
    fn is_done(&self) -> bool {
        self.outcome.borrow().is_some() || self.outcome.has_changed().is_err()
    }
}

impl Longer {
    /// Begins the work where it is not under way, and waits a moment for it: whether it is done, and what it came to.
    pub(super) async fn wait(
        &self,
        what: What,
        work: impl Future<Output = Result<Value, String>> + Send + 'static,
    ) -> Result<Value, proto::Error> {
        if let Some(id) = what.id.as_ref().filter(|id| id.len() > ID_BYTES_MAX) {
            return Err(
                Code::InvalidCall.error(format!("a call's id has at most {ID_BYTES_MAX} bytes, not {}", id.len()))
            );
        }
        let mut outcome = self.begin(&what, work);
        let waited = tokio::time::timeout(self.times.answer_wait, outcome.wait_for(Option::is_some)).await;
        let done = match waited {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => Some(Err("it was given up".into())),
            Err(_) => None,
        };
        if let Some(done) = &done {
            self.told(&what, done);
        }
        match done {
            Some(Err(why)) => Err(Code::Internal.error(why)),
            Some(Ok(result)) => Ok(json!({ "done": true, "result": result })),
            None => Ok(json!({ "done": false })),
        }
    }

    fn begin(
        &self,
        what: &What,
        work: impl Future<Output = Result<Value, String>> + Send + 'static,
    ) -> watch::Receiver<Outcome> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        sweep(&mut all, self.times);
        if let Some(known) = all.get_mut(what) {
            known.asked = Instant::now();
            return known.outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        all.insert(what.clone(), Work { outcome: outcome.clone(), asked: Instant::now() });
        tokio::spawn(async move { sender.send_replace(Some(work.await)) });
        outcome
    }

    /// Somebody is told: who asks without an id asks for another time.
    fn told(&self, what: &What, result: &Result<Value, String>) {
        let bytes = result.as_ref().map_or(0, |result| result.to_string().len());
        if what.id.is_none() || bytes > KEPT_BYTES_MAX {
            self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
        }
    }
}

/// Lets go of what nobody asked for again, and of the oldest where there are too many. What is under way stays.
fn sweep(all: &mut HashMap<What, Work>, times: Times) {
    let kept = |what: &What| if what.id.is_some() { times.kept } else { times.kept_without_id };
    all.retain(|what, work| !work.is_done() || work.asked.elapsed() < kept(what));
    let mut done: Vec<(Instant, What)> =
        all.iter().filter(|(_, work)| work.is_done()).map(|(what, work)| (work.asked, what.clone())).collect();
    if let Some(too_many) = done.len().checked_sub(KEPT_MAX).filter(|count| *count > 0) {
        done.sort_by_key(|(asked, _)| *asked);
        for (_, what) in done.drain(..too_many) {
            all.remove(&what);
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backup {
    path: PathBuf,
    call: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Compact {
    call: Option<String>,
}

pub(super) async fn backup(services: &Services, Backup { path, call }: Backup) -> Result<Value, proto::Error> {
    if !path.is_absolute() {
        let text = format!("store.backup: {} is no absolute path; it is on the router's machine", path.display());
        return Err(Code::InvalidCall.error(text));
    }
    let (plugins, store) = (services.plugins.clone(), services.store.clone());
    let what = What::new(format!("backup {}", path.display()), call);
    let work = async move {
        let copied = async { Ok(store.backup(path.clone()).await?) };
        let all = plugins.store.backup(&path.join("plugins"), copied).await;
        all.map(|()| Value::Null).map_err(|e| format!("{e:#}"))
    };
    services.longer.wait(what, work).await
}

pub(super) async fn compact(services: &Services, Compact { call }: Compact) -> Result<Value, proto::Error> {
    let store = services.store.clone();
    let work = async move { store.compact().await.map(|()| Value::Null).map_err(|e| e.to_string()) };
    services.longer.wait(What::new("compact".into(), call), work).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Counts how often it was done. Each time needs a permit.
    #[derive(Clone)]
    struct Count(Arc<AtomicU64>, Arc<Semaphore>);

    impl Count {
        fn new(permits: usize) -> Self {
            Self(Arc::default(), Arc::new(Semaphore::new(permits)))
        }

        fn work(&self) -> impl Future<Output = Result<Value, String>> + Send + 'static {
            let Self(count, permits) = self.clone();
            async move {
                let nth = count.fetch_add(1, Ordering::Relaxed) + 1;
                permits.acquire().await.map_err(|e| e.to_string())?.forget();
                Ok(json!(nth))
            }
        }
    }

    fn with_id(id: &str) -> What {
        What::new("rollback".into(), Some(id.into()))
    }

    fn without_id() -> What {
        What::new("rollback".into(), None)
    }

    fn longer(times: Times) -> Longer {
        Longer { times, ..Longer::default() }
    }

    async fn done(longer: &Longer, what: What, count: &Count) -> Value {
        let mut answer = longer.wait(what, count.work()).await.expect("an answer");
        assert_eq!(answer["done"], true);
        answer["result"].take()
    }

    #[tokio::test]
    async fn what_is_done_is_not_done_again_because_nobody_was_told() {
        let hasty = longer(Times { answer_wait: Duration::ZERO, ..Times::default() });
        for what in [without_id(), with_id("a")] {
            let count = Count::new(0);
            assert_eq!(hasty.wait(what.clone(), count.work()).await.expect("an answer")["done"], false);
            count.1.add_permits(1);
            let finished = hasty.begin(&what, count.work()).wait_for(Option::is_some).await.is_ok();
            assert!(finished);
            // Others call meanwhile.
            hasty.begin(&What::new("compact".into(), None), Count::new(1).work()).wait_for(Option::is_some).await.ok();
            assert_eq!((done(&hasty, what, &count).await, count.0.load(Ordering::Relaxed)), (json!(1), 1));
        }
    }

    #[tokio::test]
    async fn who_asks_again_with_an_id_is_told_the_same_for_a_while() {
        let (all, count) = (Longer::default(), Count::new(1_000));
        let ask = async |what: What| done(&all, what, &count).await;
        assert_eq!([ask(with_id("a")).await, ask(with_id("a")).await, ask(with_id("b")).await], [1, 1, 2]);
        assert_eq!([ask(without_id()).await, ask(without_id()).await], [3, 4], "each for itself");
        for n in 0..2 * KEPT_MAX {
            ask(with_id(&format!("n{n}"))).await;
        }
        assert!(all.all.lock().expect("a lock").len() <= KEPT_MAX + 1, "no more than so many");
        assert_ne!(ask(with_id("a")).await, 1, "forgotten");
        let long = all.wait(with_id(&"x".repeat(65)), count.work()).await;
        assert!(long.expect_err("too long").text.contains("at most 64 bytes"));
        let forgetful = longer(Times { kept: Duration::ZERO, ..Times::default() });
        let count = Count::new(2);
        assert_eq!(done(&forgetful, with_id("a"), &count).await, 1);
        assert_eq!(done(&forgetful, with_id("a"), &count).await, 2, "the time is over");
    }
}
