//! Dates: seconds since 1970 to and from `2026-05-01T12:00:00Z`.

use jaq_json::Val;
use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999, which is the last that the format can say.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// A time as text; what is less than a second is cut.
pub(super) fn to_text(seconds: f64) -> Result<String, String> {
    if !(0.0..SECONDS_MAX + 1.0).contains(&seconds) {
        return Err(format!("cannot show {seconds} as a date: it is before 1970 or after 9999"));
    }
    let time = UNIX_EPOCH + Duration::from_secs_f64(seconds.floor());
    Ok(humantime::format_rfc3339_seconds(time).to_string())
}

/// The seconds of a text, with those digits behind the point that it has.
pub(super) fn from_text(text: &str) -> Result<Val, String> {
    let time = humantime::parse_rfc3339(text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let since = time.ok_or_else(|| format!("cannot read {text:?} as a date such as 2026-05-01T12:00:00Z"))?;
    Ok(if since.subsec_nanos() == 0 { super::whole(since.as_secs()) } else { Val::from(since.as_secs_f64()) })
}

#[cfg(test)]
mod tests {
    use super::{from_text, to_text};

    #[test]
    fn reads_and_writes() {
        assert_eq!(to_text(0.0).as_deref(), Ok("1970-01-01T00:00:00Z"));
        assert_eq!(to_text(1_709_208_000.9).as_deref(), Ok("2024-02-29T12:00:00Z"));
        assert_eq!(to_text(253_402_300_799.9).as_deref(), Ok("9999-12-31T23:59:59Z"));
        for out in [f64::NAN, f64::INFINITY, -1.0, 253_402_300_800.0] {
            assert!(to_text(out).is_err(), "{out}");
        }
        let read = |text| from_text(text).map(|value| value.to_string());
        assert_eq!(read("2024-02-29T12:00:00Z").as_deref(), Ok("1709208000"));
        assert_eq!(read("2024-02-29T12:00:00.5Z").as_deref(), Ok("1709208000.5"));
        for wrong in ["", "2023-02-29T12:00:00Z", "1969-12-31T23:59:59Z", "2024-02-29", "äöü4-02-29T12:00:00Z"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
