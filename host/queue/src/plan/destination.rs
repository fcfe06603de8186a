//! Where a message goes: into queues, or straight to the inbox of a request.

use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::Subject;

use super::{Output, Plan, PublishError, Published, Receipt, SettleError, Target};
use crate::commit::QueueId;
use crate::inbox::{Refused, Ticket};

/// Where an output goes.
#[derive(Debug)]
pub(super) enum Destination {
    Queues(Arc<[QueueId]>),
    Inbox(Ticket),
}

/// Why it goes nowhere.
#[derive(Debug)]
pub(super) enum Nowhere {
    NoQueue(Subject),
    NoInbox(Subject),
    InboxFull(Subject),
}

impl Destination {
    /// None where it is an inbox.
    pub(super) fn queues(&self) -> &[QueueId] {
        match self {
            Self::Queues(queues) => queues,
            Self::Inbox(_) => &[],
        }
    }
}

/// Bytes of a payload that copies of it take in inboxes: unlike a queue, an inbox holds each of them.
pub(super) fn copied_to_inboxes(outputs: &[Output], targets: &[Destination], payload: &Bytes) -> usize {
    let copies = outputs.iter().zip(targets);
    let copies = copies.filter(|(output, to)| output.payload.is_none() && matches!(to, Destination::Inbox(_)));
    payload.len() * copies.count()
}

impl Plan<'_> {
    /// Where outputs go, one for each: all of them, or why one of them goes nowhere.
    pub(super) fn destinations(&mut self, outputs: &[Output]) -> Result<Vec<Destination>, Nowhere> {
        let mut destinations = Vec::with_capacity(outputs.len());
        for Output { target: Target::Subject(subject), .. } in outputs {
            destinations.push(match subject.is_inbox() {
                true => Destination::Inbox(self.ticket(subject)?),
                false => match self.state.bound(subject) {
                    queues if queues.is_empty() => return Err(Nowhere::NoQueue(subject.clone())),
                    queues => Destination::Queues(queues),
                },
            });
        }
        Ok(destinations)
    }

    fn ticket(&mut self, subject: &Subject) -> Result<Ticket, Nowhere> {
        let ticket = self.inboxes.as_mut().map(|inboxes| inboxes.ticket(subject, None));
        ticket.unwrap_or(Err(Refused::Gone)).map_err(|why| match why {
            Refused::Full => Nowhere::InboxFull(subject.clone()),
            // Outputs have no key by which they could be known.
            Refused::Gone | Refused::Duplicate => Nowhere::NoInbox(subject.clone()),
        })
    }

    /// A reply that was published.
    pub(super) fn publish_reply(&mut self, published: &Published) -> Result<Receipt, PublishError> {
        let subject = &published.subject;
        let ticket = self.inboxes.as_mut().map(|inboxes| inboxes.ticket(subject, published.dedup));
        match ticket.unwrap_or(Err(Refused::Gone)) {
            Ok(ticket) => {
                self.reply(ticket, published.stored.header.clone(), published.stored.payload.clone());
                Ok(Receipt::Stored(Vec::new()))
            }
            Err(Refused::Duplicate) => Ok(Receipt::Duplicate(Vec::new())),
            Err(Refused::Gone) => Err(PublishError::NoInbox(subject.clone())),
            Err(Refused::Full) => Err(PublishError::Full(subject.as_str().into())),
        }
    }

    /// Hands a message to who asked, with this commit. It counts for the commit's size, so that one commit does not hold
    /// replies without end.
    pub(super) fn reply(&mut self, ticket: Ticket, header: Bytes, payload: Bytes) {
        self.bytes += header.len() + payload.len();
        self.planned.replies.push(ticket.plan(header, payload));
    }
}

impl From<Nowhere> for PublishError {
    fn from(nowhere: Nowhere) -> Self {
        match nowhere {
            Nowhere::NoQueue(subject) => Self::NoQueue(subject),
            Nowhere::NoInbox(subject) => Self::NoInbox(subject),
            Nowhere::InboxFull(subject) => Self::Full(subject.as_str().into()),
        }
    }
}

impl From<Nowhere> for SettleError {
    fn from(nowhere: Nowhere) -> Self {
        match nowhere {
            Nowhere::NoQueue(subject) => Self::NoQueue(subject),
            Nowhere::NoInbox(subject) => Self::NoInbox(subject),
            Nowhere::InboxFull(subject) => Self::InboxFull(subject),
        }
    }
}
