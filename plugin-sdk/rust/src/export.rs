//! What the router calls, in terms of [`Plugin`]: the hidden half of [`plugin!`](crate::plugin).

pub use crate::bindings::exports::quipu::plugin::handler::{Guest, Verdict as WireVerdict};

use crate::bindings::quipu::plugin::types::RetryAfter;
use crate::{Error, Message, Plugin, Verdict, host};
use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};
use std::thread::LocalKey;

/// Where the one plugin of an instance lives; empty until it is configured.
pub type Slot<P> = RefCell<Option<P>>;

/// The largest delay that the contract can say, in milliseconds.
const DELAY_MS_MAX: u64 = (1 << 53) - 1;

/// Makes the plugin from the configuration of its use.
///
/// # Errors
///
/// The plugin does not take its configuration.
pub fn configure<P: Plugin>(slot: &'static LocalKey<Slot<P>>) -> Result<(), String> {
    panic::set_hook(Box::new(say_fault));
    slot.set(Some(P::configure(&host::config()).map_err(|error| crate::text(&*error))?));
    Ok(())
}

/// Hands the plugin the message in hand.
pub fn process<P: Plugin>(slot: &'static LocalKey<Slot<P>>) -> WireVerdict {
    slot.with_borrow_mut(|plugin| {
        let plugin = plugin.as_mut().expect("the router configures an instance before it sends messages");
        wire(plugin.process(&mut Message::in_hand()))
    })
}

/// The trap that follows a panic says nothing of its own, and this target has no backtrace to give.
fn say_fault(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    host::say_fault(info.payload_as_str().unwrap_or("a panic without text"), &place);
}

fn wire(verdict: Result<Verdict, Error>) -> WireVerdict {
    match verdict {
        Ok(Verdict::Forward) => WireVerdict::Forward,
        Ok(Verdict::Route(subjects)) => WireVerdict::Route(subjects),
        Ok(Verdict::Drop(reason)) => WireVerdict::Drop(reason),
        Ok(Verdict::Retry { after, reason }) => {
            let ms = u64::try_from(after.as_millis()).map_or(DELAY_MS_MAX, |ms| ms.min(DELAY_MS_MAX));
            WireVerdict::Retry(RetryAfter { ms, reason })
        }
        Ok(Verdict::Reject(reason)) => WireVerdict::Reject(reason),
        Err(error) => WireVerdict::Reject(crate::text(&*error)),
    }
}
