//! A route of either kind, as far as its plugins are concerned.

use anyhow::Result;
use quipu_router::ChainSettings;

use super::Chains;
use crate::app;
use crate::config::{Config, InlineConfig, PluginUse, RouteConfig};

/// A route of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Route<'a> {
    /// From a queue.
    Queue(&'a RouteConfig),
    /// On messages as they are published.
    Inline(&'a InlineConfig),
}

impl<'a> Route<'a> {
    /// All of them.
    pub(crate) fn all(config: &'a Config) -> impl Iterator<Item = Self> {
        config.routes.iter().map(Self::Queue).chain(config.inline.iter().map(Self::Inline))
    }

    /// Those that use a plugin.
    pub(crate) fn with(config: &'a Config, plugin: &str) -> impl Iterator<Item = Self> {
        Self::all(config).filter(move |route| route.plugins().iter().any(|used| used.name == plugin))
    }

    pub(crate) fn name(self) -> &'a str {
        match self {
            Self::Queue(route) => &route.name,
            Self::Inline(route) => &route.name,
        }
    }

    pub(crate) fn plugins(self) -> &'a [PluginUse] {
        match self {
            Self::Queue(route) => &route.plugins,
            Self::Inline(route) => &route.plugins,
        }
    }

    pub(crate) fn parallel(self) -> usize {
        match self {
            Self::Queue(route) => route.parallel,
            Self::Inline(route) => route.parallel,
        }
    }

    /// The queue that it reads, where it reads one.
    pub(crate) fn queue(self) -> Option<&'a str> {
        match self {
            Self::Queue(route) => Some(route.from.as_str()),
            Self::Inline(_) => None,
        }
    }

    /// What of it changes while it runs, with these chains.
    pub(crate) fn chain_settings(self, chains: Chains) -> Result<ChainSettings> {
        match self {
            Self::Queue(route) => app::chain_settings(route, chains),
            Self::Inline(route) => app::inline_chain_settings(route, chains),
        }
    }
}
