//! The router's own functions, with this crate's types in place of the generated ones.

pub(crate) use crate::bindings::quipu::plugin::context::{config, now_ms, plugin, route, seed};
pub(crate) use crate::bindings::quipu::plugin::edit::{
    add_header, remove_header, remove_key, set_header, set_key, set_payload, set_payload_text,
};
pub(crate) use crate::bindings::quipu::plugin::log::fault as say_fault;
pub(crate) use crate::bindings::quipu::plugin::message::{
    attempt, expires_ms, header, header_values, headers, id, key, origin_subject, payload, payload_len, payload_range,
    priority, published_ms, reply_to, subject,
};

use crate::bindings::quipu::plugin::{emit, log as wire_log, types};
use crate::{Outgoing, Refusal, log::Level};

pub(crate) fn log(level: Level, text: &str) {
    let level = match level {
        Level::Trace => wire_log::Level::Trace,
        Level::Debug => wire_log::Level::Debug,
        Level::Info => wire_log::Level::Info,
        Level::Warn => wire_log::Level::Warn,
        Level::Error => wire_log::Level::Error,
    };
    wire_log::log(level, text);
}

pub(crate) fn fault(text: &str, trace: &str) -> ! {
    say_fault(text, trace);
    core::arch::wasm32::unreachable()
}

pub(crate) fn publish(message: Outgoing) -> Result<(), Refusal> {
    let Outgoing { subject, key, headers, payload } = message;
    emit::publish(&types::Outgoing { subject, key, headers, payload }).map_err(refusal)
}

pub(crate) fn copy(subject: &str) -> Result<(), Refusal> {
    emit::copy(subject).map_err(refusal)
}

fn refusal(refusal: types::Refusal) -> Refusal {
    match refusal {
        types::Refusal::Limit => Refusal::Limit,
        types::Refusal::Invalid => Refusal::Invalid,
        types::Refusal::NotGranted => Refusal::NotGranted,
        types::Refusal::Loop => Refusal::Loop,
    }
}
