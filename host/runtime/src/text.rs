//! Small things about text that guests and people see.

use std::fmt;

/// The longest start of the text that has at most so many bytes, cut between characters.
pub(crate) fn start(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Cuts the text to at most so many bytes, between characters.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// A number of bytes as people write it: `64 MiB`, `100 bytes`.
pub(crate) struct Size(pub(crate) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n.is_multiple_of(1 << 20) => write!(f, "{} MiB", n >> 20),
            n if n > 0 && n.is_multiple_of(1 << 10) => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n} bytes"),
        }
    }
}

/// Text of a guest as one line: control characters are escaped, so that it cannot forge a line of its own.
pub(crate) struct Line<'a>(pub(crate) &'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|c| c.is_control() && *c != '\t') {
                Some(control) => write!(f, "{}{}", &part[..part.len() - control.len_utf8()], control.escape_default())?,
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters() {
        assert_eq!(start("aü", 2), "a");
        assert_eq!(cut("aü".into(), 3), "aü");
    }

    #[test]
    fn sizes() {
        let text = |n| Size(n).to_string();
        assert_eq!([text(64 << 20), text(4096), text(100), text(0)], ["64 MiB", "4 KiB", "100 bytes", "0 bytes"]);
    }

    #[test]
    fn a_line_stays_one() {
        assert_eq!(Line("a\tb\nfake\x1b[31m ü").to_string(), "a\tb\\nfake\\u{1b}[31m ü");
    }
}
