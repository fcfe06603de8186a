//! Standard output.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};

/// Prints a line as `println!` does, but without a panic: a reader that has seen enough, as `head`, is no error, and any
/// other failure is one.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::commands::output::line(format_args!($($text)*))
    };
}
pub(crate) use say;

/// What [`say!`] does.
pub(crate) fn line(text: Arguments<'_>) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(io::Error::new(e.kind(), format!("standard output: {e}"))),
        _ => Ok(()),
    }
}
