//! The messages that a route makes of one.

use bytes::Bytes;
use quipu_protocol::limits::HEADER_VALUE_BYTES_MAX;
use quipu_protocol::{Headers, Message, MessageId, Subject};
use quipu_queue::{Output, Target};
use quipu_runtime::Emitted;

/// Headers that every output carries: whose child it is, where that began, and the routes on the way.
pub(crate) const PARENT: &str = "quipu-parent";
pub(crate) const ROOT: &str = "quipu-root";
pub(crate) const PATH: &str = "quipu-path";
/// Plugins that the message went past because they were broken.
const BYPASSED: &str = "quipu-bypassed";

/// Makes outputs of one input, with ids that are the same whenever the same input is processed again.
pub(crate) struct Outputs<'a> {
    route: &'a str,
    parent: MessageId,
    root: String,
    path: String,
    hops: u8,
    origin: Subject,
    published_ms: u64,
    index: u32,
    bypassed: String,
    made: Vec<Output>,
}

impl<'a> Outputs<'a> {
    pub(crate) fn of(route: &'a str, input: &Message) -> Self {
        let root = input.headers.first(ROOT).unwrap_or(input.id.as_str()).to_owned();
        Self {
            route,
            parent: input.id.clone(),
            root,
            path: path(route, &input.headers),
            hops: input.hops.saturating_add(1),
            origin: input.origin_subject.clone(),
            published_ms: input.published_ms,
            index: 0,
            bypassed: String::new(),
            made: Vec::new(),
        }
    }

    /// A message that the plugin at this place emitted.
    pub(crate) fn emitted(&mut self, position: usize, emitted: Emitted) {
        let id = emitted.id.unwrap_or_else(|| self.id(position));
        let mut message = Message::new(id, emitted.subject, Bytes::new());
        message.key = emitted.key;
        message.headers = emitted.headers;
        message.reply_to = emitted.reply_to;
        message.expires_ms = emitted.expires_ms;
        message.deliver_at_ms = emitted.deliver_at_ms;
        message.priority = emitted.priority;
        self.push(message, emitted.payload);
    }

    /// The message in hand as the chain left it; no payload: the input's own.
    pub(crate) fn forward(&mut self, position: usize, subject: Subject, hand: &Message, payload: Option<Bytes>) {
        let mut message = hand.clone();
        message.id = self.id(position);
        message.subject = subject;
        self.push(message, payload);
    }

    /// What follows went past this plugin.
    pub(crate) fn bypassed(&mut self, plugin: &str) {
        if !self.bypassed.is_empty() {
            self.bypassed.push(' ');
        }
        self.bypassed.push_str(plugin);
        quipu_protocol::code::truncate(&mut self.bypassed, HEADER_VALUE_BYTES_MAX);
    }

    pub(crate) fn finish(self) -> Vec<Output> {
        self.made
    }

    fn push(&mut self, mut message: Message, payload: Option<Bytes>) {
        message.origin_subject = self.origin.clone();
        message.published_ms = self.published_ms;
        message.hops = self.hops;
        let said = [(PARENT, self.parent.as_str()), (ROOT, &self.root), (PATH, &self.path), (BYPASSED, &self.bypassed)];
        for (name, value) in said.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Err(e) = message.headers.set(name, value) {
                tracing::warn!(route = self.route, parent = %self.parent, name, %e, "a header of an output is left out");
            }
        }
        let header = message.encode_header();
        self.made.push(Output { target: Target::Subject(message.subject), header, payload });
        self.index += 1;
    }

    /// blake3(parent id, route, plugin position, output index): the same input gives the same outputs.
    fn id(&self, position: usize) -> MessageId {
        let mut hasher = blake3::Hasher::new();
        for part in [self.parent.as_str(), self.route, &position.to_string(), &self.index.to_string()] {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        MessageId::new(&hasher.finalize().to_hex()[..32]).expect("hex digits are an id")
    }
}

/// The routes so far and this one.
pub(crate) fn path(route: &str, headers: &Headers) -> String {
    let mut path = match headers.first(PATH) {
        Some(so_far) => format!("{so_far} {route}"),
        None => route.to_owned(),
    };
    quipu_protocol::code::truncate(&mut path, HEADER_VALUE_BYTES_MAX);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_say_where_they_come_from_and_have_lasting_ids() {
        let subject = |text: &str| Subject::new(text).expect("a subject");
        let mut input = Message::new(MessageId::new("m").expect("an id"), subject("in"), "payload");
        input.headers.set(PATH, "first").expect("room");
        input.hops = 1;
        let make = || {
            let mut outputs = Outputs::of("second", &input);
            outputs.forward(2, subject("a"), &input, None);
            outputs.forward(2, subject("b"), &input, Some("new".into()));
            outputs.finish()
        };
        let read = |o: Output| Message::decode(o.header, o.payload.unwrap_or_default()).expect("a message");
        let [a, b] = <[Output; 2]>::try_from(make()).expect("two").map(read);
        assert_eq!((a.subject.as_str(), a.origin_subject.as_str(), a.hops), ("a", "in", 2));
        let said = |name| a.headers.first(name).unwrap_or_default();
        assert_eq!((said(PARENT), said(ROOT), said(PATH)), ("m", "m", "first second"));
        assert_ne!(a.id, b.id);
        let again: Vec<MessageId> = make().into_iter().map(|o| read(o).id).collect();
        assert_eq!(again, [a.id, b.id]);
    }
}
