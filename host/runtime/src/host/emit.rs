//! `emit`: new messages. What is wrong with one is answered, not trapped, so that a plugin can go on without it.

use quipu_protocol::limits::{HEADERS_MAX, HOPS_MAX, PAYLOAD_BYTES_MAX};
use quipu_protocol::{Headers, Key, Subject};
use wasmtime::Result;

use super::property::{Name, Property};
use super::{Host, Misuse};
use crate::bindings::quipu::plugin::emit;
use crate::bindings::quipu::plugin::types::{Outgoing, Refusal};
use crate::plugin::Emitted;

impl emit::Host for Host {
    fn publish(&mut self, message: Outgoing) -> Result<std::result::Result<(), Refusal>> {
        self.hand()?;
        Ok(self.emit(|_| read(message)))
    }

    fn copy(&mut self, subject: String) -> Result<std::result::Result<(), Refusal>> {
        self.hand()?;
        Ok(self.emit(|host| host.copied(&subject)))
    }
}

/// Headers that set properties; each may stand once besides the ordinary ones.
const PROPERTIES: usize = 4;

impl Host {
    fn emit(
        &mut self,
        message: impl FnOnce(&Self) -> std::result::Result<Emitted, Refusal>,
    ) -> std::result::Result<(), Refusal> {
        if self.hand.message.hops >= HOPS_MAX {
            return Err(Refusal::Loop);
        }
        if self.used.emits >= self.limits.emits {
            return Err(Refusal::Limit);
        }
        let message = message(self)?;
        self.spend(size(&message)).map_err(|_: Misuse| Refusal::Limit)?;
        self.used.emits += 1;
        self.hand.emitted.push(message);
        Ok(())
    }

    fn copied(&self, to: &str) -> std::result::Result<Emitted, Refusal> {
        let message = &self.hand.message;
        Ok(Emitted {
            subject: subject(to)?,
            key: message.key.clone(),
            headers: message.headers.clone(),
            payload: self.hand.payload_changed.then(|| message.payload.clone()),
            id: None,
            reply_to: message.reply_to.clone(),
            expires_ms: message.expires_ms,
            deliver_at_ms: message.deliver_at_ms,
            priority: message.priority,
        })
    }
}

fn read(message: Outgoing) -> std::result::Result<Emitted, Refusal> {
    if message.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Refusal::Limit);
    }
    if message.headers.len() > HEADERS_MAX + PROPERTIES {
        return Err(Refusal::Invalid);
    }
    let mut emitted = Emitted {
        subject: subject(&message.subject)?,
        key: message.key.map(Key::new).transpose().map_err(|_| Refusal::Invalid)?,
        headers: Headers::new(),
        payload: Some(message.payload.into()),
        id: None,
        reply_to: None,
        expires_ms: None,
        deliver_at_ms: None,
        priority: 0,
    };
    for (name, value) in &message.headers {
        put(&mut emitted, name, value).map_err(|_| Refusal::Invalid)?;
    }
    Ok(emitted)
}

fn put(emitted: &mut Emitted, name: &str, value: &str) -> std::result::Result<(), Misuse> {
    match Name::of(name)?.map(|property| property.read(value)).transpose()? {
        None => emitted.headers.add(name, value)?,
        Some(Property::Id(id)) => emitted.id = Some(id),
        Some(Property::ExpiresMs(ms)) => emitted.expires_ms = Some(ms),
        Some(Property::DeliverAtMs(ms)) => emitted.deliver_at_ms = Some(ms),
        Some(Property::Priority(priority)) => emitted.priority = priority,
    }
    Ok(())
}

/// The router's own subjects are granted to no plugin, but for inboxes: whoever knows one may reply to it.
fn subject(text: &str) -> std::result::Result<Subject, Refusal> {
    match Subject::new(text) {
        Ok(subject) if subject.is_internal() && !subject.is_inbox() => Err(Refusal::NotGranted),
        Ok(subject) => Ok(subject),
        Err(_) => Err(Refusal::Invalid),
    }
}

/// What an emitted message counts. A copy's payload was counted when it was set, if it was.
fn size(message: &Emitted) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let key = message.key.as_ref().map_or(0, |key| key.as_bytes().len());
    let payload = message.payload.as_ref().map_or(0, bytes::Bytes::len);
    message.subject.as_str().len() + headers + key + payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_routers_own_subjects_inboxes_alone_are_granted() {
        assert!(subject("$inbox.0af3").is_ok());
        assert!(matches!(subject("$sys.health"), Err(Refusal::NotGranted)));
    }
}
