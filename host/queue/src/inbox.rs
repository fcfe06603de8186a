//! Inboxes: where replies go, straight to whoever asked.
//!
//! An inbox is a place in the memory of this process and no part of the state: nothing that goes there is written to any
//! disk, and it is gone with its reader. What is for an inbox is planned with the commit that it belongs to, and handed
//! over once that commit is as durable as promised; so a route's reply and the settlement of its input are one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use quipu_protocol::Subject;
use tokio::sync::mpsc;

use crate::commit::{DedupKey, Stored};
use crate::request::Request;

/// Inboxes from which on it is looked for some that nobody reads: one that was asked for and not waited for is never
/// closed by anybody.
const LOOKED_AT_MIN: usize = 64;
/// Replies of one inbox that wait for its reader.
const WAITING_MAX: usize = 64;
/// Bytes of one inbox's replies that wait for its reader; the last one may pass it.
const WAITING_BYTES: u64 = 1 << 20;
/// Bytes of replies that wait in all inboxes together; those that are being planned may pass it.
pub(crate) const ALL_BYTES: u64 = 64 << 20;

/// Every inbox that is open.
#[derive(Debug, Default)]
pub(crate) struct Inboxes {
    open: HashMap<Subject, Place>,
    /// Once there are so many, those whose readers are gone are looked for.
    look_at: usize,
    all_bytes: Arc<AtomicU64>,
}

/// One that is open, as those who reply see it.
#[derive(Debug)]
struct Place {
    sender: mpsc::Sender<InboxMessage>,
    waiting: Arc<Waiting>,
    /// Ids that it was given, so that a reply which is sent again comes once. At most as many as it takes replies.
    known: HashSet<DedupKey>,
}

#[derive(Debug)]
struct Waiting {
    /// Replies that it still takes.
    left: AtomicU32,
    messages: AtomicUsize,
    bytes: AtomicU64,
    all_bytes: Arc<AtomicU64>,
}

/// Why an inbox takes no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not there (any more), or has all that it asked for.
    Gone,
    /// Its reader is behind.
    Full,
    /// It has a reply with this id.
    Duplicate,
}

/// Room for one reply; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    sender: mpsc::Sender<InboxMessage>,
    waiting: Arc<Waiting>,
    bytes: u64,
    /// Whether it counts among those that the inbox was to take.
    is_used: bool,
}

/// A reply that was planned, to be handed over with its commit.
#[derive(Debug)]
pub(crate) struct Planned {
    ticket: Ticket,
    stored: Stored,
}

/// A reply in the hands of who asked. It takes its room until it is dropped.
#[derive(Debug)]
pub struct InboxMessage {
    stored: Stored,
    _ticket: Waited,
}

/// The room of a reply that waits.
#[derive(Debug)]
struct Waited {
    waiting: Arc<Waiting>,
    bytes: u64,
}

/// Reads an inbox. Dropping it closes the inbox: later replies are refused.
#[derive(Debug)]
pub struct Inbox {
    subject: Subject,
    replies: mpsc::Receiver<InboxMessage>,
    requests: mpsc::Sender<Request>,
}

impl Inboxes {
    /// Opens one that takes so many replies; one of this subject before it is closed.
    pub(crate) fn open(&mut self, subject: Subject, most: u32) -> mpsc::Receiver<InboxMessage> {
        if self.open.len() >= self.look_at.max(LOOKED_AT_MIN) {
            self.open.retain(|_, place| !place.sender.is_closed());
            // Each look costs as much as what was opened since the last one.
            self.look_at = 2 * self.open.len();
        }
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let waiting = Arc::new(Waiting {
            left: AtomicU32::new(most),
            messages: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            all_bytes: self.all_bytes.clone(),
        });
        self.open.insert(subject, Place { sender, waiting, known: HashSet::new() });
        receiver
    }

    pub(crate) fn close(&mut self, subject: &Subject) {
        self.open.remove(subject);
    }

    /// Ends all readers.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// Room for one more reply; with a key, one that it does not have yet.
    pub(crate) fn ticket(&mut self, subject: &Subject, key: Option<DedupKey>) -> Result<Ticket, Refused> {
        let place = self.open.get_mut(subject).filter(|place| !place.sender.is_closed()).ok_or(Refused::Gone)?;
        if key.is_some_and(|key| place.known.contains(&key)) {
            return Err(Refused::Duplicate);
        }
        let waiting = &place.waiting;
        let left = |left: u32| left.checked_sub(1);
        let is_full = waiting.messages.load(Ordering::Acquire) >= WAITING_MAX
            || waiting.bytes.load(Ordering::Acquire) >= WAITING_BYTES
            || waiting.all_bytes.load(Ordering::Acquire) >= ALL_BYTES;
        match waiting.left.load(Ordering::Acquire) {
            0 => return Err(Refused::Gone),
            _ if is_full => return Err(Refused::Full),
            _ => {}
        }
        // Only this thread takes; others give back.
        waiting.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, left).map_err(|_| Refused::Gone)?;
        waiting.messages.fetch_add(1, Ordering::AcqRel);
        place.known.extend(key);
        Ok(Ticket { sender: place.sender.clone(), waiting: waiting.clone(), bytes: 0, is_used: false })
    }
}

impl Ticket {
    /// Takes room for the bytes of this message.
    pub(crate) fn plan(mut self, header: Bytes, payload: Bytes) -> Planned {
        // Copies of its own: slices would keep all of the buffers they are in.
        let stored = Stored { header: Bytes::copy_from_slice(&header), payload: Bytes::copy_from_slice(&payload) };
        self.bytes = stored.size() as u64;
        self.waiting.bytes.fetch_add(self.bytes, Ordering::AcqRel);
        self.waiting.all_bytes.fetch_add(self.bytes, Ordering::AcqRel);
        Planned { ticket: self, stored }
    }
}

impl Planned {
    pub(crate) fn hand_over(self) {
        let Self { mut ticket, stored } = self;
        ticket.is_used = true;
        let room = Waited { waiting: ticket.waiting.clone(), bytes: std::mem::take(&mut ticket.bytes) };
        // Every ticket has its place in the channel, so this fails only where the reader has gone meanwhile: nobody is
        // there to miss it.
        ticket.sender.try_send(InboxMessage { stored, _ticket: room }).ok();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_used {
            self.waiting.left.fetch_add(1, Ordering::AcqRel);
            drop(Waited { waiting: self.waiting.clone(), bytes: self.bytes });
        }
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        self.waiting.messages.fetch_sub(1, Ordering::AcqRel);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.waiting.all_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl InboxMessage {
    /// The message.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }
}

impl Inbox {
    pub(crate) fn new(
        subject: Subject,
        replies: mpsc::Receiver<InboxMessage>,
        requests: mpsc::Sender<Request>,
    ) -> Self {
        Self { subject, replies, requests }
    }

    /// Where replies are to go.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The next reply, once it is there; none where the store has failed or stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<InboxMessage> {
        self.replies.recv().await
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // Replies are refused from here on, whenever the store hears of it.
        self.replies.close();
        let request = Request::CloseInbox { subject: self.subject.clone() };
        // Where there is no room to say so, it is found among those that nobody reads.
        self.requests.try_send(request).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(text: &str) -> Subject {
        Subject::new(text).expect("a subject")
    }

    fn planned(inboxes: &mut Inboxes, payload: &[u8]) -> Result<Planned, Refused> {
        let ticket = inboxes.ticket(&subject("$inbox.a"), None)?;
        Ok(ticket.plan(Bytes::new(), Bytes::copy_from_slice(payload)))
    }

    #[test]
    fn takes_as_many_as_it_asked_for() {
        let mut inboxes = Inboxes::default();
        let mut replies = inboxes.open(subject("$inbox.a"), 2);
        assert_eq!(inboxes.ticket(&subject("$inbox.b"), None).map(drop), Err(Refused::Gone));
        // One that comes to nothing does not count.
        drop(planned(&mut inboxes, b"never").expect("room"));
        planned(&mut inboxes, b"one").expect("room").hand_over();
        let waits = planned(&mut inboxes, b"two").expect("room");
        assert_eq!(planned(&mut inboxes, b"three").map(drop), Err(Refused::Gone));
        waits.hand_over();
        let mut next = || replies.try_recv().expect("a reply").stored().payload.clone();
        assert_eq!([next(), next()], [Bytes::from("one"), Bytes::from("two")]);
        assert_eq!(inboxes.all_bytes.load(Ordering::Acquire), 0, "all room is given back");
    }

    #[test]
    fn what_nobody_reads_is_forgotten() {
        let mut inboxes = Inboxes::default();
        let kept = inboxes.open(subject("$inbox.kept"), 1);
        for n in 0..10_000 {
            drop(inboxes.open(subject(&format!("$inbox.gone-{n}")), 1));
            assert!(inboxes.open.len() <= LOOKED_AT_MIN, "{n}");
        }
        assert!(inboxes.ticket(&subject("$inbox.kept"), None).is_ok());
        drop(kept);
    }

    #[test]
    fn what_is_not_read_is_bounded_and_a_reply_comes_once() {
        let mut inboxes = Inboxes::default();
        let mut replies = inboxes.open(subject("$inbox.a"), 1_000);
        let mut sent = 0;
        let full = loop {
            match planned(&mut inboxes, &[0; 100_000]) {
                Ok(planned) => planned.hand_over(),
                Err(why) => break why,
            }
            sent += 1;
        };
        assert_eq!((full, sent), (Refused::Full, 11), "a mebibyte, and the one that passes it");
        drop(replies.try_recv().expect("a reply"));
        planned(&mut inboxes, b"room again").expect("room").hand_over();
        while replies.try_recv().is_ok() {}
        let key = Some(DedupKey::new("$inbox.a", "m"));
        inboxes.ticket(&subject("$inbox.a"), key).expect("room").plan(Bytes::new(), Bytes::new()).hand_over();
        assert_eq!(inboxes.ticket(&subject("$inbox.a"), key).map(drop), Err(Refused::Duplicate));
        drop(replies);
        assert_eq!(planned(&mut inboxes, b"late").map(drop), Err(Refused::Gone));
    }
}
