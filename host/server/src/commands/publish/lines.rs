//! Lines of any input, none longer than a payload may be.

use std::io;

use quipu_protocol::limits::PAYLOAD_BYTES_MAX;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// One line that is not blank, without its line break.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Its number, from 1, and what is in it.
    Text { number: u64, bytes: Vec<u8> },
    /// It was passed over; how long it was.
    TooLong { number: u64, bytes: usize },
}

/// Reads lines with bounded memory.
pub(crate) struct Lines<R> {
    input: R,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, number: 0 }
    }

    /// The next line; none at the end. Cancelled, a part of a line may be lost.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let (mut bytes, mut length, mut ended) = (Vec::new(), 0, false);
            while !ended {
                let part = self.input.fill_buf().await?;
                if part.is_empty() {
                    break;
                }
                let end = part.iter().position(|b| *b == b'\n');
                let text = &part[..end.unwrap_or(part.len())];
                length += text.len();
                if length <= PAYLOAD_BYTES_MAX {
                    bytes.extend_from_slice(text);
                }
                ended = end.is_some();
                let used = text.len() + usize::from(ended);
                self.input.consume(used);
            }
            if length == 0 && !ended {
                return Ok(None);
            }
            self.number += 1;
            let number = self.number;
            if length > PAYLOAD_BYTES_MAX {
                return Ok(Some(Line::TooLong { number, bytes: length }));
            }
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(Line::Text { number, bytes }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(input: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(tokio::io::BufReader::with_capacity(3, input));
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.expect("memory does not fail") {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn blank_lines_are_passed_over_and_counted() {
        let text = |number, text: &str| Line::Text { number, bytes: text.into() };
        assert_eq!(read(b"abcd\r\n\n \nlast").await, [text(1, "abcd"), text(4, "last")]);
        assert_eq!(read(b"").await, []);
    }

    #[tokio::test]
    async fn a_line_too_long_is_told_and_the_next_one_read() {
        let mut input = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
        input.extend_from_slice(b"\nnext\n");
        let next = Line::Text { number: 2, bytes: b"next".into() };
        assert_eq!(read(&input).await, [Line::TooLong { number: 1, bytes: PAYLOAD_BYTES_MAX + 1 }, next]);
    }
}
