//! The header names that are properties of a message and not headers.

use quipu_protocol::limits::PRIORITY_MAX;
use quipu_protocol::{HeaderError, Headers, MessageId};

use super::{Misuse, SEED_MAX};
use crate::text::start;

/// A property and its value, as said by a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Property {
    Id(MessageId),
    ExpiresMs(u64),
    DeliverAtMs(u64),
    Priority(u8),
}

/// Which property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Id,
    ExpiresMs,
    DeliverAtMs,
    Priority,
}

impl Name {
    /// None for the name of an ordinary header; an error for those of the router.
    pub(super) fn of(header: &str) -> Result<Option<Self>, Misuse> {
        if !Headers::is_reserved(header) {
            return Ok(None);
        }
        let all = [Self::Id, Self::ExpiresMs, Self::DeliverAtMs, Self::Priority];
        match all.into_iter().find(|name| name.header().eq_ignore_ascii_case(header)) {
            Some(name) => Ok(Some(name)),
            None => Err(HeaderError::Reserved(start(header, SHOWN_BYTES_MAX).into()).into()),
        }
    }

    pub(super) fn header(self) -> &'static str {
        match self {
            Self::Id => "quipu-id",
            Self::ExpiresMs => "quipu-expires-ms",
            Self::DeliverAtMs => "quipu-deliver-at-ms",
            Self::Priority => "quipu-priority",
        }
    }

    pub(super) fn read(self, value: &str) -> Result<Property, Misuse> {
        let invalid = |expected: String| Misuse::Property {
            name: self.header(),
            value: start(value, SHOWN_BYTES_MAX).into(),
            expected,
        };
        let time = || {
            let ms = value.parse().ok().filter(|ms| (1..SEED_MAX).contains(ms));
            ms.ok_or_else(|| invalid("Unix milliseconds from 1 to 2^53 are allowed".into()))
        };
        match self {
            Self::Id => MessageId::new(value).map(Property::Id).map_err(|e| invalid(e.to_string())),
            Self::ExpiresMs => Ok(Property::ExpiresMs(time()?)),
            Self::DeliverAtMs => Ok(Property::DeliverAtMs(time()?)),
            Self::Priority => match value.parse() {
                Ok(priority) if priority <= PRIORITY_MAX => Ok(Property::Priority(priority)),
                _ => Err(invalid(format!("0 to {PRIORITY_MAX} are allowed"))),
            },
        }
    }
}

/// How much of a wrong name or value an error quotes, in bytes.
const SHOWN_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_case_and_the_routers_own_are_refused() {
        assert!(matches!(Name::of("content-type"), Ok(None)));
        assert!(matches!(Name::of("Quipu-Priority"), Ok(Some(Name::Priority))));
        assert!(matches!(Name::of("quipu-root"), Err(Misuse::Header(HeaderError::Reserved(_)))));
    }

    #[test]
    fn values_are_checked_and_quoted() {
        assert_eq!(Name::Priority.read("9").expect("a priority"), Property::Priority(9));
        assert_eq!(Name::ExpiresMs.read("1").expect("a time"), Property::ExpiresMs(1));
        for (name, wrong) in [(Name::Priority, "10"), (Name::ExpiresMs, "0"), (Name::DeliverAtMs, "9007199254740992")] {
            let text = name.read(wrong).expect_err("refused").to_string();
            assert!(text.contains(name.header()) && text.contains(wrong), "{text}");
        }
        assert!(Name::Id.read("a b").expect_err("refused").to_string().contains("quipu-id"));
    }
}
