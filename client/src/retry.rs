//! Streams that fail on a connection that lives: when to open the next, and when to stop trying.

use std::sync::Arc;
use std::time::Instant;

use crate::backoff::{Backoff, seed};
use crate::error::Lost;
use crate::link::{Session, Shared};
use crate::stream::Setback;

/// One publisher's or subscriber's patience. A lost connection does not try it: that is made again in its own time.
pub(crate) struct Retry {
    shared: Arc<Shared>,
    backoff: Backoff,
}

impl Retry {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let backoff = Backoff::new(shared.config.reconnect, seed());
        Self { shared, backoff }
    }

    /// A stream did what it is for.
    pub(crate) fn worked(&mut self) {
        self.backoff.reset();
    }

    /// Waits until another stream may be tried in the place of one that failed.
    pub(crate) async fn failed(&mut self, session: &Session, setback: &Setback) -> Result<(), Lost> {
        if session.connection.close_reason().is_some() {
            self.backoff.reset();
            return Ok(());
        }
        let Setback { why, after: asked } = setback;
        tracing::debug!(why, "stream lost");
        let after = self.shared.config.reconnect.give_up_after;
        let gave_up = || Lost::GaveUp { after, last: why.clone() };
        let pause = self.backoff.pause(Instant::now()).ok_or_else(gave_up)?;
        tokio::time::sleep(pause.max((*asked).min(after))).await;
        Ok(())
    }
}
