//! The trace of a fault, read again for people: what the plugin's language said, then the functions it came through.

use crate::fingerprint::{bare, is_own, rust};
use crate::plugin::Fault;

/// A function that a failed call came through, as the engine saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its name; `<wasm function 7>` where the file has no names.
    pub function: String,
    /// `src/lib.rs:9:41`, where the file carries debug information and lines were asked for.
    pub place: Option<String>,
    /// Whether it is the author's own, as far as its name tells: not of a standard library, an SDK, or glue.
    pub is_own: bool,
}

impl Fault {
    /// What the plugin itself said of the way to its failure: the traceback of its language, or the place of a panic.
    pub fn said(&self) -> &[String] {
        &self.trace[..self.said_lines()]
    }

    /// Where it happened, where that is all that was said: `src/lib.rs:9:41`.
    pub fn place(&self) -> Option<&str> {
        match self.said() {
            [place] if rust(place).is_some() => Some(place),
            _ => None,
        }
    }

    /// What happened, and where it did, as far as that is known: `boom, at src/lib.rs:9:41`.
    pub fn with_place(&self) -> String {
        match self.place().filter(|place| !self.text.contains(place)) {
            Some(place) => format!("{}, at {place}", self.text),
            None => self.text.clone(),
        }
    }

    /// The functions that it came through, innermost first.
    pub fn frames(&self) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        for line in &self.trace[self.said_lines()..] {
            let line = line.trim();
            if let (Some(place), Some(frame)) = (line.strip_prefix("at "), frames.last_mut()) {
                frame.place.get_or_insert_with(|| place.to_owned());
                continue;
            }
            // What was inlined into the function after it has no offset of its own.
            let name = line.strip_prefix("- ").unwrap_or(line);
            let name = name.rsplit_once(" (0x").map_or(name, |(name, _)| name);
            let function = bare(name);
            frames.push(Frame { is_own: is_own(&function), function, place: None });
        }
        frames
    }

    /// The engine's own lines begin with the first that ends in an offset.
    fn said_lines(&self) -> usize {
        let is_frame = |line: &String| line.ends_with(')') && line.contains(" (0x");
        self.trace.iter().position(is_frame).unwrap_or(self.trace.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::FaultKind;

    fn fault(trace: &[&str]) -> Fault {
        Fault { kind: FaultKind::Said, text: "x".into(), trace: trace.iter().map(|&line| line.into()).collect() }
    }

    #[test]
    fn functions_have_their_places() {
        let fault = fault(&[
            "src/lib.rs:9:41",
            "core::panicking::panic (0x1)",
            "at /rustc/x/panicking.rs:1",
            "big::magnitude::h0123456789abcdef (0x2)",
            "at src/lib.rs:9:41",
            "- big::outer",
            "at src/lib.rs:15:1",
        ]);
        assert_eq!((fault.place(), fault.said()), (Some("src/lib.rs:9:41"), &["src/lib.rs:9:41".to_owned()][..]));
        let frame = |function: &str, place: &str, is_own| Frame {
            function: function.into(),
            place: Some(place.into()),
            is_own,
        };
        let expected = [
            frame("core::panicking::panic", "/rustc/x/panicking.rs:1", false),
            frame("big::magnitude", "src/lib.rs:9:41", true),
            frame("big::outer", "src/lib.rs:15:1", true),
        ];
        assert_eq!(fault.frames(), expected);
        assert_eq!(fault.with_place(), "x, at src/lib.rs:9:41");
    }

    #[test]
    fn a_traceback_is_what_the_plugin_said() {
        let python = ["  File \"app.py\", line 5, in process", "    x = y", "process (0x77)"];
        let fault = fault(&python);
        assert_eq!((fault.said().len(), fault.place()), (2, None));
        assert_eq!(fault.frames().len(), 1);
        assert_eq!((super::tests::fault(&[]).frames(), fault.with_place().as_str()), (vec![], "x"));
    }
}
