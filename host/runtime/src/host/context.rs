//! `context`: where the plugin is used, and the attempt's clock and chance.

use wasmtime::Result;

use super::Host;
use crate::bindings::quipu::plugin::context;

impl context::Host for Host {
    fn plugin(&mut self) -> Result<String> {
        self.called()?;
        Ok(self.identity.plugin.clone())
    }

    fn route(&mut self) -> Result<String> {
        self.called()?;
        Ok(self.identity.route.clone())
    }

    fn config(&mut self) -> Result<String> {
        self.called()?;
        Ok(self.identity.config_json.clone())
    }

    // Outside of an attempt the hand holds the time of the instance's start and a seed of its own.
    fn now_ms(&mut self) -> Result<u64> {
        self.called()?;
        Ok(self.hand.now_ms)
    }

    fn seed(&mut self) -> Result<u64> {
        self.called()?;
        Ok(self.hand.seed)
    }
}
