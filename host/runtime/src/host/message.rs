//! `message`: reading the message in hand. Only what is asked for is copied.

use wasmtime::Result;

use super::Host;
use crate::bindings::quipu::plugin::message;

impl message::Host for Host {
    fn id(&mut self) -> Result<String> {
        Ok(self.hand()?.message.id.as_str().into())
    }

    fn subject(&mut self) -> Result<String> {
        Ok(self.hand()?.message.subject.as_str().into())
    }

    fn origin_subject(&mut self) -> Result<String> {
        Ok(self.hand()?.message.origin_subject.as_str().into())
    }

    fn key(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.hand()?.message.key.as_ref().map(|key| key.as_bytes().to_vec()))
    }

    fn header(&mut self, name: String) -> Result<Option<String>> {
        Ok(self.hand()?.message.headers.first(&name).map(Into::into))
    }

    fn header_values(&mut self, name: String) -> Result<Vec<String>> {
        Ok(self.hand()?.message.headers.all(&name).map(Into::into).collect())
    }

    fn headers(&mut self) -> Result<Vec<(String, String)>> {
        Ok(self.hand()?.message.headers.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn payload_len(&mut self) -> Result<u32> {
        Ok(u32::try_from(self.hand()?.message.payload.len())?)
    }

    fn payload(&mut self) -> Result<Vec<u8>> {
        Ok(self.hand()?.message.payload.to_vec())
    }

    fn payload_text(&mut self) -> Result<Option<String>> {
        Ok(std::str::from_utf8(&self.hand()?.message.payload).ok().map(Into::into))
    }

    fn payload_range(&mut self, offset: u32, length: u32) -> Result<Vec<u8>> {
        let payload = &self.hand()?.message.payload;
        let from = payload.len().min(offset as usize);
        let length = (payload.len() - from).min(length as usize);
        Ok(payload[from..from + length].to_vec())
    }

    fn published_ms(&mut self) -> Result<u64> {
        Ok(self.hand()?.message.published_ms)
    }

    fn expires_ms(&mut self) -> Result<Option<u64>> {
        Ok(self.hand()?.message.expires_ms)
    }

    fn attempt(&mut self) -> Result<u32> {
        Ok(self.hand()?.attempt)
    }

    fn priority(&mut self) -> Result<u8> {
        Ok(self.hand()?.message.priority)
    }

    fn reply_to(&mut self) -> Result<Option<String>> {
        Ok(self.hand()?.message.reply_to.as_ref().map(|subject| subject.as_str().into()))
    }
}
