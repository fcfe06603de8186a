//! Durations and sizes as they are written in the configuration: `"50ms"`, `"64MiB"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

const EXPECTED_DURATION: &str = "a duration such as \"50ms\"";
const EXPECTED_SIZE: &str = "a size such as \"64MiB\", or a number of bytes";

/// A duration, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HumanDuration(pub(crate) Duration);

/// A number of bytes, written with a binary unit or without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ByteSizeError {
    /// Not a whole number, or an unknown unit.
    #[error("expected {EXPECTED_SIZE}, found {0:?}")]
    Malformed(String),
    /// `KB` and the like, which mean 1,000 to some and 1,024 to others.
    #[error("sizes are in binary units: write {binary} instead of {written}, as in \"{number}{binary}\"")]
    DecimalUnit { number: u64, written: String, binary: &'static str },
    /// More than 2^64 bytes.
    #[error("{0:?} is more bytes than there can be")]
    TooLarge(String),
}

const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let malformed = || ByteSizeError::Malformed(text.into());
        let too_large = || ByteSizeError::TooLarge(text.into());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits);
        if digits.is_empty() {
            return Err(malformed());
        }
        let number: u64 = digits.parse().map_err(|_| too_large())?;
        let unit = unit.trim_start();
        if unit.is_empty() || unit == "B" {
            return Ok(Self(number));
        }
        if let Some((_, shift)) = UNITS.iter().find(|(name, _)| *name == unit) {
            return number.checked_mul(1 << shift).map(Self).ok_or_else(too_large);
        }
        let decimal = |name: &str| {
            let letter = &name[..1];
            unit.eq_ignore_ascii_case(name)
                || unit.eq_ignore_ascii_case(letter)
                || unit.eq_ignore_ascii_case(&format!("{letter}B"))
        };
        match UNITS.iter().find(|(name, _)| decimal(name)) {
            Some((binary, _)) => Err(ByteSizeError::DecimalUnit { number, written: unit.into(), binary }),
            None => Err(malformed()),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().rev().find(|(_, shift)| self.0 > 0 && self.0.is_multiple_of(1 << shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED_SIZE)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<ByteSize, E> {
        let negative = |_| E::invalid_value(Unexpected::Signed(number), &self);
        u64::try_from(number).map(ByteSize).map_err(negative)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(number))
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = HumanDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED_DURATION)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<HumanDuration, E> {
        let unexpected = |_| E::invalid_value(Unexpected::Str(text), &self);
        humantime::parse_duration(text).map(HumanDuration).map_err(unexpected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        let size = |text: &str| text.parse().map(|ByteSize(bytes)| bytes).map_err(|e: ByteSizeError| e.to_string());
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("4096"), Ok(4_096));
        assert_eq!(size("12 B"), Ok(12));
        assert_eq!(size("512KiB"), Ok(512 << 10));
        assert_eq!(size("64 MiB"), Ok(64 << 20));
        assert_eq!(size("4GiB"), Ok(4 << 30));
        for wrong in ["", "MiB", "-1", "1.5MiB", "64XiB", "64MiB!", "64BK"] {
            assert_eq!(size(wrong), Err(format!("expected {EXPECTED_SIZE}, found {wrong:?}")));
        }
        for wrong in ["64MB", "64M", "64mb", "64mib"] {
            let unit = &wrong[2..];
            let expected = format!("sizes are in binary units: write MiB instead of {unit}, as in \"64MiB\"");
            assert_eq!(size(wrong), Err(expected));
        }
        assert_eq!(size("17179869184GiB"), Err("\"17179869184GiB\" is more bytes than there can be".into()));
        assert_eq!(size(&"9".repeat(20)), Err(format!("\"{}\" is more bytes than there can be", "9".repeat(20))));
    }

    #[test]
    fn sizes_read_back() {
        let sizes = [0, 1, 1_024, 4_097, 64 << 20, 4 << 30].map(|bytes| ByteSize(bytes).to_string());
        assert_eq!(sizes, ["0 bytes", "1 bytes", "1KiB", "4097 bytes", "64MiB", "4GiB"]);
    }
}
