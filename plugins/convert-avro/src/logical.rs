//! Logical types that the plain style has text for: dates, timestamps and decimals. Others are what lies beneath them.

use crate::schema::Kind;
use quipu_plugin::prelude::Value;
use quipu_plugin::serde_json::Map;

/// Digits of a decimal that an i128 surely has.
const PRECISION_MAX: u64 = 38;
const DAY_SECONDS: i64 = 86_400;
/// Days of the years 0 to 9999, for which RFC 3339 has a text, from 1970 on.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logical {
    /// In days from 1970 on.
    Date,
    /// In parts of a second from 1970 on; how many a second has, and digits of its fraction.
    Timestamp { parts: i64, digits: usize },
    /// An integer in so many parts of a power of ten.
    Decimal { precision: u32, scale: u32 },
}

impl Logical {
    /// That of a schema. One that makes no sense does not count, as the specification has it.
    pub(crate) fn of(kind: &Kind, object: &Map<String, Value>) -> Option<Self> {
        let name = object.get("logicalType")?.as_str()?;
        match (kind, name) {
            (Kind::Int, "date") => Some(Self::Date),
            (Kind::Long, "timestamp-millis") => Some(Self::Timestamp { parts: 1_000, digits: 3 }),
            (Kind::Long, "timestamp-micros") => Some(Self::Timestamp { parts: 1_000_000, digits: 6 }),
            (Kind::Long, "timestamp-nanos") => Some(Self::Timestamp { parts: 1_000_000_000, digits: 9 }),
            (Kind::Bytes | Kind::Fixed { .. }, "decimal") => {
                let precision =
                    object.get("precision")?.as_u64().filter(|digits| (1..=PRECISION_MAX).contains(digits))?;
                let scale = object.get("scale").map_or(Some(0), Value::as_u64).filter(|scale| *scale <= precision)?;
                Some(Self::Decimal { precision: u32::try_from(precision).ok()?, scale: u32::try_from(scale).ok()? })
            }
            _ => None,
        }
    }

    /// A number of days or parts as text; none outside of the years 0 to 9999.
    pub(crate) fn time_text(self, number: i64) -> Option<String> {
        match self {
            Self::Date => DAYS.contains(&number).then(|| date_text(number)),
            Self::Timestamp { parts, digits } => {
                let (seconds, part) = (number.div_euclid(parts), number.rem_euclid(parts));
                let (day, second) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
                let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
                DAYS.contains(&day)
                    .then(|| format!("{}T{hour:02}:{minute:02}:{second:02}.{part:0digits$}Z", date_text(day)))
            }
            Self::Decimal { .. } => None,
        }
    }

    /// The number of days or parts that a text says.
    pub(crate) fn time_number(self, text: &str) -> Option<i64> {
        match self {
            Self::Date => Some(date_number(text)?).filter(|_| text.len() == 10),
            Self::Timestamp { parts, digits } => {
                let (day, rest) = (date_number(text)?, text.get(10..)?);
                let (seconds, rest) = clock(rest.strip_prefix(['T', 't', ' '])?)?;
                let (part, rest) = match rest.strip_prefix('.') {
                    None => (0, rest),
                    Some(rest) => {
                        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
                        let (fraction, zeros) = rest[..length].split_at(length.min(digits));
                        if length == 0 || zeros.bytes().any(|zero| zero != b'0') {
                            return None;
                        }
                        (format!("{fraction:0<digits$}").parse::<i64>().ok()?, &rest[length..])
                    }
                };
                let seconds = day * DAY_SECONDS + seconds - zone(rest)?;
                seconds.checked_mul(parts)?.checked_add(part)
            }
            Self::Decimal { .. } => None,
        }
    }
}

/// Big-endian two's complement as text with so many digits behind the point.
pub(crate) fn decimal_text(bytes: &[u8], scale: u32) -> Option<String> {
    let is_negative = bytes.first().is_some_and(|first| *first >= 0x80);
    let sign = if is_negative { 0xff } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    if bytes[..extra].iter().any(|byte| *byte != sign) {
        return None;
    }
    let mut whole = [sign; 16];
    whole[16 - (bytes.len() - extra)..].copy_from_slice(&bytes[extra..]);
    let number = i128::from_be_bytes(whole);
    if (number < 0) != is_negative {
        return None;
    }
    let scale = scale as usize;
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
    let (front, back) = digits.split_at(digits.len() - scale);
    let (sign, point) = (if is_negative { "-" } else { "" }, if scale > 0 { "." } else { "" });
    Some(format!("{sign}{front}{point}{back}"))
}

/// The shortest big-endian two's complement of a number in text, at that scale; none where digits would be lost.
pub(crate) fn decimal_bytes(text: &str, precision: u32, scale: u32) -> Option<Vec<u8>> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (front, back) = digits.split_once('.').unwrap_or((digits, ""));
    let back = back.trim_end_matches('0');
    let all = format!("{front}{back:0<width$}", width = scale as usize);
    if front.is_empty() || back.len() > scale as usize || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if all.trim_start_matches('0').len() > precision as usize {
        return None;
    }
    let bytes = (sign * all.parse::<i128>().ok()?).to_be_bytes();
    // A first byte goes where the next one has the same sign.
    let spare = (0..15).take_while(|n| match bytes[*n] {
        0 => bytes[n + 1] < 0x80,
        0xff => bytes[n + 1] >= 0x80,
        _ => false,
    });
    Some(bytes[spare.count()..].to_vec())
}

/// After `civil_from_days` and `days_from_civil` of <https://howardhinnant.github.io/date_algorithms.html>.
fn date_text(day: i64) -> String {
    let shifted = day + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The day that the first ten characters say.
fn date_number(text: &str) -> Option<i64> {
    let (year, month, day) = (number(text, 0, 4)?, number(text, 5, 7)?, number(text, 8, 10)?);
    if text.as_bytes().get(4) != Some(&b'-') || text.as_bytes().get(7) != Some(&b'-') {
        return None;
    }
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let found = era * 146_097 + day_of_era - 719_468;
    // What is no date, February 30, comes back as another.
    (date_text(found) == text[..10]).then_some(found)
}

/// Seconds of `12:34:56`, and what follows.
fn clock(text: &str) -> Option<(i64, &str)> {
    let (hour, minute, second) = (number(text, 0, 2)?, number(text, 3, 5)?, number(text, 6, 8)?);
    let fits = text.as_bytes()[2] == b':' && text.as_bytes()[5] == b':' && hour < 24 && minute < 60 && second < 60;
    fits.then(|| (hour * 3_600 + minute * 60 + second, &text[8..]))
}

/// Seconds that a zone is ahead of UTC.
fn zone(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(0),
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hour, minute) = (number(rest, 0, 2)?, number(rest, 3, 5)?);
    let fits = rest.len() == 5 && rest.as_bytes()[2] == b':' && hour < 24 && minute < 60;
    fits.then_some(sign * (hour * 3_600 + minute * 60))
}

/// Digits alone, without a sign.
fn number(text: &str, from: usize, to: usize) -> Option<i64> {
    let digits = text.get(from..to)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
