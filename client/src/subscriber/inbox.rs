//! Deliveries between the task that gets them and the one that takes them. Never more than the prefetch, because the
//! router has no credit for more.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Delivery, SubscribeError};

pub(super) struct Inbox {
    state: Mutex<State>,
    /// Wakes the driver: enough was taken, or the subscriber closes.
    changed: Notify,
}

#[derive(Default)]
struct State {
    deliveries: VecDeque<Delivery>,
    /// Of this stream.
    taken: u64,
    /// Wake the driver once so many are taken.
    wake_at: u64,
    closed: bool,
    end: End,
    ack_deadline: Option<Duration>,
    waker: Option<Waker>,
}

#[derive(Default)]
enum End {
    #[default]
    Open,
    Failed(SubscribeError),
    Over,
}

impl Inbox {
    pub(super) fn new(ack_deadline: Option<Duration>) -> Self {
        let state = State { ack_deadline, ..State::default() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    pub(super) fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<Result<Delivery, SubscribeError>>> {
        let mut state = self.lock();
        if let Some(delivery) = state.deliveries.pop_front() {
            state.taken += 1;
            if state.taken >= state.wake_at {
                state.wake_at = u64::MAX;
                self.changed.notify_one();
            }
            return Poll::Ready(Some(Ok(delivery)));
        }
        match std::mem::replace(&mut state.end, End::Over) {
            End::Open => {
                state.end = End::Open;
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            End::Failed(error) => Poll::Ready(Some(Err(error))),
            End::Over => Poll::Ready(None),
        }
    }

    /// No more are taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for the next change; one that came before is not missed. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn push(&self, delivery: Delivery) {
        let mut state = self.lock();
        state.deliveries.push_back(delivery);
        wake(state);
    }

    /// How many of this stream's were taken; wakes the driver again once there are so many more.
    pub(super) fn taken(&self, wake_after: u64) -> u64 {
        let mut state = self.lock();
        state.wake_at = state.taken + wake_after;
        state.taken
    }

    pub(super) fn ack_deadline(&self) -> Option<Duration> {
        self.lock().ack_deadline
    }

    /// What the router says to a new stream.
    pub(super) fn subscribed(&self, ack_deadline: Option<Duration>) {
        self.lock().ack_deadline = ack_deadline;
    }

    /// For a new stream: what waits came on the old one and is stale.
    pub(super) fn restart(&self) {
        let mut state = self.lock();
        state.deliveries.clear();
        (state.taken, state.wake_at) = (0, u64::MAX);
    }

    /// Nothing more comes; what waits cannot be settled and is not given out.
    pub(super) fn end(&self, error: Option<SubscribeError>) {
        let mut state = self.lock();
        state.deliveries.clear();
        state.end = error.map_or(End::Over, End::Failed);
        wake(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
