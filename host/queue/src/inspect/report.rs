//! What was found, for programs and for people.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::commit::Offset;

/// What a store holds, and what is wrong with it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The directory.
    pub path: PathBuf,
    /// Format of its rows; none where the state file does not say.
    pub format: Option<u32>,
    /// The last journal record that the state file has; none where it does not say.
    pub position: Option<u64>,
    /// Whole records of the journal behind that, or all of them where it does not say.
    pub records: u64,
    /// What opening the store would give, by name.
    pub queues: Vec<QueueReport>,
    /// Message ids remembered, so that a repeated one is a duplicate.
    pub message_ids: usize,
    /// Named publishers.
    pub publishers: usize,
    /// Keys of what the router noted in it.
    #[serde(skip)]
    pub noted: Vec<String>,
    /// What is damaged or lost; empty of a sound store.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub problems_left_out: usize,
    /// What is no damage and good to know.
    pub notes: Vec<String>,
}

/// A queue of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueReport {
    /// Its name.
    pub name: String,
    /// Messages that somebody still waits for.
    pub messages: u64,
    /// Of those, the ones that can be read.
    pub readable: u64,
    /// Their bytes, near enough.
    pub bytes: u64,
    /// The first that is still needed.
    pub first: Offset,
    /// The offset of the next message.
    pub next: Offset,
    /// Each with what it has not settled.
    pub subscriptions: Vec<(String, u64)>,
}

/// Something that is damaged or lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: the file.
    pub file: String,
    /// And in there.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// The queue, where it is one queue's.
    pub queue: Option<String>,
    /// The first and the last of its messages that this is about; none of all.
    pub offsets: Option<(Offset, Offset)>,
    /// Whether any part of the store may be affected.
    pub is_of_store: bool,
}

impl Report {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            format: None,
            position: None,
            records: 0,
            queues: Vec::new(),
            message_ids: 0,
            publishers: 0,
            noted: Vec::new(),
            problems: Vec::new(),
            problems_left_out: 0,
            notes: Vec::new(),
        }
    }

    /// Whether nothing is damaged or lost.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether a message may be affected by what was found.
    pub fn concerns(&self, queue: &str, offset: Offset) -> bool {
        self.problems_left_out > 0 || self.problems.iter().any(|problem| problem.concerns(queue, offset))
    }
}

impl Problem {
    /// Whether a message may be affected by this.
    pub fn concerns(&self, queue: &str, offset: Offset) -> bool {
        let its_own = self.queue.as_deref() == Some(queue);
        self.is_of_store || its_own && self.offsets.is_none_or(|(first, last)| (first..=last).contains(&offset))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store {}", self.path.display())?;
        match (self.format, self.position) {
            (Some(format), Some(position)) => writeln!(
                f,
                ": format {format}, checkpoint at journal record {position}, {} behind it",
                counted(self.records, "record")
            )?,
            _ => writeln!(f, ": the state file says nothing; {} in the journal", counted(self.records, "record"))?,
        }
        for queue in &self.queues {
            writeln!(f, "queue {}: {}, {} bytes", queue.name, counted(queue.messages, "message"), queue.bytes)?;
            for (name, outstanding) in &queue.subscriptions {
                writeln!(f, "  subscription {name}: {outstanding} unsettled")?;
            }
        }
        writeln!(
            f,
            "{} remembered, {}",
            counted(self.message_ids as u64, "message id"),
            counted(self.publishers as u64, "named publisher")
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        if self.is_sound() {
            return writeln!(f, "no damage");
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "damage: {problem}"))?;
        if self.problems_left_out > 0 {
            writeln!(f, "and {} more", self.problems_left_out)?;
        }
        writeln!(
            f,
            "Keep a copy of this directory. `quipu store salvage` makes a new store of what can be read and leaves this one as \
             it is."
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: ", self.file, self.place)?;
        if let Some(queue) = &self.queue {
            write!(f, "queue {queue}: ")?;
        }
        match self.offsets {
            Some((first, last)) if first == last => write!(f, "message {first}: ")?,
            Some((first, last)) => write!(f, "messages {first} to {last}: ")?,
            None => {}
        }
        f.write_str(&self.what)
    }
}

pub(crate) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
