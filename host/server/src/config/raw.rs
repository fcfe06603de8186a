//! The configuration as it is written: its tables and keys, with the places of what is checked later.
//!
//! Only types are checked here. What each key means is said in [`super`]; a key that is not in these structs is unknown.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use quipu_queue::{Durability, OnFull};
use quipu_runtime::Isolation;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::units::{ByteSize, HumanDuration};
use super::{Kind, Order, Start};

/// A value that has a default, with its place.
pub(super) type Given<T> = Option<Spanned<T>>;
/// Tables by name.
pub(super) type Named<T> = BTreeMap<String, Spanned<Table<T>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) listen: Table<Listen>,
    pub(super) tls: Option<Table<Tls>>,
    pub(super) user: Named<User>,
    pub(super) limits: Table<Limits>,
    pub(super) store: Table<Store>,
    pub(super) plugins: Table<Plugins>,
    pub(super) trace: Table<Trace>,
    pub(super) plugin: Named<Plugin>,
    pub(super) queue: Named<Queue>,
    pub(super) route: Vec<Spanned<Table<Route>>>,
}

impl Raw {
    /// Whether it has a queue or route of this name.
    pub(super) fn defines(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Queue => self.queue.contains_key(name),
            Kind::Route => self.route.iter().any(|route| route.as_ref().0.name.as_ref() == name),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) quic: Given<String>,
    pub(super) grace: Given<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) sessions: Given<usize>,
    pub(super) publishers: Given<usize>,
    pub(super) consumers: Given<usize>,
    pub(super) requests: Given<usize>,
    pub(super) connection_window: Given<ByteSize>,
    pub(super) message: Given<ByteSize>,
    pub(super) ingest: Given<ByteSize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct User {
    pub(super) token: Given<Hidden>,
    pub(super) certificate: Given<String>,
    pub(super) certificate_name: Given<String>,
    pub(super) revoked: bool,
    pub(super) publish: Vec<Spanned<String>>,
    pub(super) consume: Vec<Spanned<String>>,
    /// A boolean or a list, which only a value can hold with its place.
    pub(super) read: Given<toml::Value>,
    pub(super) admin: bool,
}

/// A text that may be a secret, by mistake.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Hidden(pub(super) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Store {
    pub(super) path: Option<PathBuf>,
    pub(super) journal_segments: Given<usize>,
    pub(super) journal_segment: Given<ByteSize>,
    pub(super) memory: Given<ByteSize>,
    pub(super) disk_reserve: Given<ByteSize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Plugins {
    pub(super) dir: Option<PathBuf>,
    pub(super) workers: Given<usize>,
    pub(super) watch: Option<PathBuf>,
    pub(super) store_max: Given<ByteSize>,
    pub(super) instances: Given<u32>,
    pub(super) memories: Given<u32>,
    pub(super) compile_time: Given<HumanDuration>,
    pub(super) compile_memory: Given<ByteSize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Trace {
    pub(super) mode: Traced,
    pub(super) one_in: Given<u32>,
    pub(super) memory: Given<ByteSize>,
}

/// Which messages are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Traced {
    #[default]
    Off,
    Sampled,
    All,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Plugin {
    pub(super) file: Option<PathBuf>,
    pub(super) deadline: Given<HumanDuration>,
    pub(super) memory: Given<ByteSize>,
    pub(super) output: Given<ByteSize>,
    pub(super) isolation: Isolation,
    pub(super) recycle_memory: Given<ByteSize>,
    pub(super) recycle_messages: Given<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Queue {
    pub(super) subjects: Vec<Spanned<String>>,
    pub(super) max_attempts: Given<u32>,
    pub(super) backoff: Given<Vec<Spanned<HumanDuration>>>,
    pub(super) dead_letter: Given<String>,
    pub(super) durability: Given<Durability>,
    pub(super) retention: Given<Kept>,
    pub(super) retention_age: Given<HumanDuration>,
    pub(super) retention_bytes: Given<ByteSize>,
    pub(super) retention_messages: Given<u64>,
    pub(super) max_messages: Given<u64>,
    pub(super) max_bytes: Given<ByteSize>,
    pub(super) on_full: Given<OnFull>,
    pub(super) max_in_flight: Given<u32>,
    pub(super) ack_deadline: Given<HumanDuration>,
}

/// `retention`, without how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kept {
    Work,
    Log,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) name: Spanned<String>,
    pub(super) from: Given<String>,
    pub(super) on: Given<OneOrMore>,
    pub(super) start: Given<Start>,
    pub(super) when: Given<String>,
    #[serde(rename = "else", default)]
    pub(super) otherwise: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) plugins: Vec<Spanned<Table<Use>>>,
    #[serde(default)]
    pub(super) to: Vec<Spanned<String>>,
    pub(super) parallel: Given<usize>,
    pub(super) order: Given<Order>,
    pub(super) on_error: Option<Table<OnError>>,
    pub(super) on_broken: Option<Broken>,
    pub(super) broken_after: Given<u32>,
}

/// A text, or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts")]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

/// `on_broken`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Broken {
    Hold,
    Bypass,
    DeadLetter,
}

impl From<Broken> for quipu_router::OnBroken {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Hold => Self::Hold,
            Broken::Bypass => Self::Bypass,
            Broken::DeadLetter => Self::DeadLetter,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Use {
    pub(super) name: Spanned<String>,
    pub(super) config: Given<toml::Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OnError {
    pub(super) attempts: Given<u32>,
    pub(super) backoff: Given<Vec<Spanned<HumanDuration>>>,
    pub(super) then: Given<String>,
}

/// A struct that is written as a table; derived code alone would also take an array of its values.
#[derive(Debug, Default)]
pub(crate) struct Table<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = Table<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Table)
    }
}
