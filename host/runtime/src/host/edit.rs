//! `edit`: changing the message in hand. What is invalid traps, and is named.

use quipu_protocol::limits::PAYLOAD_BYTES_MAX;
use quipu_protocol::{Headers, Key};
use wasmtime::Result;

use super::property::{Name, Property};
use super::{Host, Misuse};
use crate::bindings::quipu::plugin::edit;

impl edit::Host for Host {
    fn set_header(&mut self, name: String, value: String) -> Result<()> {
        Ok(self.edit_header(&name, &value, Headers::set)?)
    }

    fn add_header(&mut self, name: String, value: String) -> Result<()> {
        Ok(self.edit_header(&name, &value, Headers::add)?)
    }

    fn remove_header(&mut self, name: String) -> Result<()> {
        let hand = self.hand()?;
        match Name::of(&name)? {
            Some(Name::Id) => return Err(Misuse::Id(name).into()),
            Some(Name::ExpiresMs) => hand.message.expires_ms = None,
            Some(Name::DeliverAtMs) => hand.message.deliver_at_ms = None,
            Some(Name::Priority) => hand.message.priority = 0,
            None => {
                if !hand.message.headers.remove(&name) {
                    // A name that is there is valid; of others only this can tell.
                    return Ok(Headers::new().add(&name, "").map_err(Misuse::from)?);
                }
            }
        }
        hand.header_changed = true;
        Ok(())
    }

    fn set_key(&mut self, key: Vec<u8>) -> Result<()> {
        self.hand()?;
        let key = Key::new(key).map_err(Misuse::from)?;
        self.spend(key.as_bytes().len())?;
        self.hand.message.key = Some(key);
        self.hand.header_changed = true;
        Ok(())
    }

    fn remove_key(&mut self) -> Result<()> {
        let hand = self.hand()?;
        hand.message.key = None;
        hand.header_changed = true;
        Ok(())
    }

    fn set_payload(&mut self, data: Vec<u8>) -> Result<()> {
        Ok(self.replace_payload(data)?)
    }

    fn set_payload_text(&mut self, text: String) -> Result<()> {
        Ok(self.replace_payload(text.into_bytes())?)
    }
}

/// [`Headers::set`] or [`Headers::add`].
type Put = fn(&mut Headers, &str, &str) -> std::result::Result<(), quipu_protocol::HeaderError>;

impl Host {
    fn edit_header(&mut self, name: &str, value: &str, put: Put) -> std::result::Result<(), Misuse> {
        self.hand()?;
        self.spend(name.len().saturating_add(value.len()))?;
        let message = &mut self.hand.message;
        match Name::of(name)? {
            Some(Name::Id) => return Err(Misuse::Id(name.into())),
            Some(property) => match property.read(value)? {
                Property::Id(_) => {} // refused above
                Property::ExpiresMs(ms) => message.expires_ms = Some(ms),
                Property::DeliverAtMs(ms) => message.deliver_at_ms = Some(ms),
                Property::Priority(priority) => message.priority = priority,
            },
            None => put(&mut message.headers, name, value)?,
        }
        self.hand.header_changed = true;
        Ok(())
    }

    fn replace_payload(&mut self, payload: Vec<u8>) -> std::result::Result<(), Misuse> {
        self.hand()?;
        self.spend(payload.len())?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Misuse::Payload(payload.len()));
        }
        self.hand.message.payload = payload.into();
        self.hand.payload_changed = true;
        Ok(())
    }
}
