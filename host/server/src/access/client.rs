//! One session's client: what it may do now.

use std::collections::HashSet;
use std::sync::Arc;

use quinn::Connection;
use quipu_protocol::code::Code;
use quipu_protocol::{Subject, proto};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::Access;
use super::refusals::Reason;
use super::rights::Right;
use super::users::{Denied, Evidence, Shown, Users, Who};

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 1_024;
/// Subjects that a publisher is known to be allowed.
const ALLOWED_MAX: usize = 256;
/// Of a text that a client chose, what an error quotes, in characters.
const QUOTED_CHARS_MAX: usize = 128;

/// A client that was let in. What it may do follows from the users of the moment.
pub(crate) struct Client {
    access: Arc<Access>,
    evidence: Evidence,
    /// What it calls itself.
    name: String,
}

impl Access {
    /// Finds out who came.
    ///
    /// # Errors
    ///
    /// `Forbidden`, and why; it is counted.
    pub(crate) fn welcome(
        self: &Arc<Self>,
        hello: &proto::Hello,
        connection: &Connection,
    ) -> Result<Client, proto::Error> {
        let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let client = self.admit(&hello.credential, chain.map(|chain| *chain).unwrap_or_default())?;
        Ok(Client { name: hello.client.clone(), ..client })
    }

    pub(super) fn admit(
        self: &Arc<Self>,
        token: &str,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Client, proto::Error> {
        if token.len() > TOKEN_BYTES_MAX {
            let text = format!("a token of {} bytes; {TOKEN_BYTES_MAX} are the most", token.len());
            return Err(self.refuse(Reason::Token, text));
        }
        let token = (!token.is_empty()).then(|| blake3::hash(token.as_bytes()));
        let client = Client {
            access: self.clone(),
            evidence: Evidence { token, certificate: Shown::new(chain) },
            name: String::new(),
        };
        client.who()?;
        Ok(client)
    }

    fn refuse(&self, reason: Reason, text: String) -> proto::Error {
        self.refusals.note(reason, &text);
        Code::Forbidden.error(text)
    }

    fn deny(&self, Denied { reason, text }: Denied) -> proto::Error {
        self.refuse(reason, text)
    }
}

impl Client {
    /// Its user's name, where there are users.
    pub(crate) fn user(&self) -> Option<String> {
        self.who().ok().and_then(|who| who.name().map(str::to_owned))
    }

    /// What it calls itself, for people alone.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it needs to publish. Who may consume may reply to what it gets, and nothing else.
    ///
    /// # Errors
    ///
    /// `Forbidden` where it may do neither.
    pub(crate) fn publishing(self: &Arc<Self>) -> Result<Publishing, proto::Error> {
        let users = self.access.users.subscribe();
        let who = self.who()?;
        if !who.publishes() && !who.consumes() {
            return Err(self.missing(&who, Reason::Publish, "publish"));
        }
        Ok(Publishing { client: self.clone(), users, who, allowed: HashSet::new() })
    }

    /// What it needs to consume from this queue.
    ///
    /// # Errors
    ///
    /// `Forbidden` where it may not.
    pub(crate) fn consuming(self: &Arc<Self>, queue: &str) -> Result<Consuming, proto::Error> {
        let consuming =
            Consuming { client: self.clone(), queue: queue.to_owned(), users: self.access.users.subscribe() };
        consuming.check()?;
        Ok(consuming)
    }

    /// Whether it may look at this queue, and so see its name.
    pub(crate) fn may_read(&self, queue: &str) -> bool {
        self.who().is_ok_and(|who| who.may_read(queue))
    }

    /// Whether it may consume from this queue.
    pub(crate) fn may_consume(&self, queue: &str) -> bool {
        self.who().is_ok_and(|who| who.may_consume(queue))
    }

    /// Whether it may call this admin method.
    ///
    /// # Errors
    ///
    /// `Forbidden` where it may not.
    pub(crate) fn check_call(&self, method: &str, arguments: &[u8]) -> Result<(), proto::Error> {
        let who = self.who()?;
        let call = || format!("call {}", quoted(method));
        match Right::of(method) {
            Right::Admin if !who.is_admin() => Err(self.missing(&who, Reason::Admin, &call())),
            Right::Consume if !who.is_admin() => match queue_in(arguments) {
                Some(queue) if who.may_consume(&queue) => Ok(()),
                Some(queue) => Err(self.missing(&who, Reason::Consume, &format!("look into queue {}", quoted(&queue)))),
                None => Err(self.missing(&who, Reason::Consume, &call())),
            },
            Right::Read if !who.reads_all() => Err(self.missing(&who, Reason::Read, &call())),
            Right::ReadQueue(_) if !who.reads() => Err(self.missing(&who, Reason::Read, &call())),
            Right::ReadQueue(listing) if !who.reads_all() => match queue_in(arguments) {
                Some(queue) if who.may_read(&queue) => Ok(()),
                Some(queue) => Err(self.missing(&who, Reason::Read, &format!("look at queue {}", quoted(&queue)))),
                None if listing.is_some() => Ok(()),
                None => Err(self.missing(&who, Reason::Read, &call())),
            },
            _ => Ok(()),
        }
    }

    /// Of an answer to this method, what it may see.
    pub(crate) fn visible(&self, method: &str, mut answer: Value) -> Value {
        if let (Right::ReadQueue(Some(listing)), Ok(who)) = (Right::of(method), self.who())
            && !who.reads_all()
        {
            listing.keep(&mut answer, |queue| who.may_read(queue));
        }
        answer
    }

    /// Waits until it is nobody any more who may be here, and says why.
    pub(crate) async fn lost(&self) -> proto::Error {
        let mut users = self.access.users.subscribe();
        loop {
            if let Err(error) = self.who() {
                return error;
            }
            changed(&mut users).await;
        }
    }

    fn who(&self) -> Result<Who, proto::Error> {
        let users = self.access.users.borrow().clone();
        users.who(&self.evidence).map_err(|denied| self.access.deny(denied))
    }

    /// Refuses what needs the right of this name.
    fn missing(&self, who: &Who, right: Reason, what: &str) -> proto::Error {
        let (name, right_name) = (who.name().unwrap_or_default(), right.as_str());
        self.access.refuse(right, format!("user {name:?} may not {what}: needs `{right_name}`"))
    }
}

/// A client that publishes. Costs one look at a flag and at a set for each message.
pub(crate) struct Publishing {
    client: Arc<Client>,
    users: watch::Receiver<Arc<Users>>,
    who: Who,
    allowed: HashSet<Subject>,
}

impl Publishing {
    /// Whether it may publish to this subject. An inbox is known to who got its request, and that is the right to reply.
    ///
    /// # Errors
    ///
    /// `Forbidden` where it may not.
    pub(crate) fn check(&mut self, subject: &Subject) -> Result<(), proto::Error> {
        if self.users.has_changed().unwrap_or(false) {
            self.users.mark_unchanged();
            self.who = self.client.who()?;
            self.allowed.clear();
        }
        if matches!(self.who, Who::Anyone) || subject.is_inbox() || self.allowed.contains(subject) {
            return Ok(());
        }
        if !self.who.may_publish(subject) {
            return Err(self.client.missing(&self.who, Reason::Publish, &format!("publish to `{subject}`")));
        }
        if self.allowed.len() >= ALLOWED_MAX {
            self.allowed.clear();
        }
        self.allowed.insert(subject.clone());
        Ok(())
    }
}

/// A client that consumes from a queue.
pub(crate) struct Consuming {
    client: Arc<Client>,
    queue: String,
    users: watch::Receiver<Arc<Users>>,
}

impl Consuming {
    /// Waits until it may not any more, and says why.
    pub(crate) async fn lost(&mut self) -> proto::Error {
        loop {
            changed(&mut self.users).await;
            if let Err(error) = self.check() {
                return error;
            }
        }
    }

    fn check(&self) -> Result<(), proto::Error> {
        let who = self.client.who()?;
        if who.may_consume(&self.queue) {
            return Ok(());
        }
        Err(self.client.missing(&who, Reason::Consume, &format!("consume from queue {}", quoted(&self.queue))))
    }
}

/// Waits for other users than those of the call before.
async fn changed(users: &mut watch::Receiver<Arc<Users>>) {
    if users.changed().await.is_err() {
        // Who asks holds the sender.
        std::future::pending().await
    }
}

/// The argument `queue` of a call. Arguments that make no sense are refused by the method.
fn queue_in(arguments: &[u8]) -> Option<String> {
    serde_json::from_slice::<OfQueue>(arguments).ok()?.queue
}

#[derive(Deserialize)]
struct OfQueue {
    queue: Option<String>,
}

fn quoted(text: &str) -> String {
    format!("`{}`", text.chars().take(QUOTED_CHARS_MAX).collect::<String>().escape_debug())
}
