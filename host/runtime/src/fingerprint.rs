//! A short name for a failure: the same for the same mistake, whatever the message and, where it can be, the build.
//!
//! What a language's own traceback says comes first. Without one it is the frames of WebAssembly, those of the plugin's
//! own functions: what is in between (allocators, panic machinery, glue) says nothing. Numbers and quoted parts are left
//! out of the text, line numbers and offsets out of the frames.

use crate::plugin::{Fault, FaultKind};

/// Frames that count.
const FRAMES_MAX: usize = 4;

/// Hex digits of a fingerprint.
const DIGITS: usize = 12;

/// Functions that are in every plugin of some language.
const GLUE: [&str; 28] = [
    "core::",
    "std::",
    "alloc::",
    "<core::",
    "<std::",
    "<alloc::",
    "quipu_plugin::",
    "<quipu_plugin::",
    "quipu:plugin/",
    "wit_bindgen",
    "cabi_",
    "__rust",
    "rust_",
    "_rust",
    "__rg_",
    "__rdl_",
    "dlmalloc",
    "<dlmalloc",
    "__wasm",
    "_start",
    "_initialize",
    "runtime.",
    "JS_",
    "js_",
    "Py",
    "_Py",
    "wit-component",
    "adapter ",
];

impl Fault {
    /// 12 hex digits that stay the same for the same mistake: its kind, its text without numbers and quoted parts, and
    /// the functions that it came through. Line numbers and offsets are left out, so that it outlives most builds.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut part = |text: &str| {
            hasher.update(text.as_bytes()).update(&[0]);
        };
        part(self.kind.as_str());
        part(&masked(self.text.lines().next().unwrap_or_default()));
        for frame in self.places() {
            part(&frame);
        }
        hasher.finalize().to_hex()[..DIGITS].to_owned()
    }

    /// Where it came from, innermost first.
    fn places(&self) -> Vec<String> {
        // Python puts the innermost frame last.
        let python: Vec<String> = self.trace.iter().filter_map(|line| python(line)).collect();
        if !python.is_empty() {
            return python.into_iter().rev().take(FRAMES_MAX).collect();
        }
        let said: Vec<String> = self.trace.iter().filter_map(|line| javascript(line)).take(FRAMES_MAX).collect();
        if !said.is_empty() {
            return said;
        }
        let file = self.trace.iter().find_map(|line| rust(line));
        let mut own = self.trace.iter().filter_map(|line| wasm(line));
        match self.kind {
            // It may have been anywhere when its time was over, but always came in by the same door.
            FaultKind::Deadline => file.into_iter().chain(own.next_back()).collect(),
            // The frames above a panic are the machinery's; what was inlined differs from build to build.
            _ if file.is_some() => file.into_iter().collect(),
            _ => own.take(FRAMES_MAX).collect(),
        }
    }
}

/// `File "app.py", line 5, in process`.
fn python(line: &str) -> Option<String> {
    let (file, rest) = line.trim().strip_prefix("File \"")?.split_once('"')?;
    let function = rest.split_once(", in ").map_or("", |(_, function)| function);
    Some(format!("{} {function}", last(file)))
}

/// `at process (plugin.js:5:12)`, `at plugin.js:5:12`, and `process@plugin.js:5:12` of other engines.
fn javascript(line: &str) -> Option<String> {
    let line = line.trim();
    let (function, place) = match line.strip_prefix("at ") {
        Some(rest) => match rest.rsplit_once(" (") {
            Some((function, place)) => (function, place.trim_end_matches(')')),
            None => ("", rest),
        },
        None => line.split_once('@').filter(|(_, place)| place.contains(':'))?,
    };
    let file = without_place(place);
    let scripts = [".js", ".mjs", ".cjs", ".ts", "native"];
    scripts.iter().any(|end| file.ends_with(end)).then(|| format!("{} {function}", last(file)))
}

/// `src/lib.rs:9:41`, and other languages that name a file and a line and nothing else.
pub(crate) fn rust(line: &str) -> Option<String> {
    let line = line.trim();
    let file = without_place(line);
    let is_place = file.len() < line.len() && !file.contains(' ') && file.contains('.');
    is_place.then(|| last(file).to_owned())
}

/// `big_quakes::magnitude (0x1f)`; none for glue.
fn wasm(line: &str) -> Option<String> {
    let (name, _) = line.rsplit_once(" (0x")?;
    let name = bare(name);
    is_own(&name).then_some(name)
}

/// A function's name without its module, and without the hashes that are new with each build: Rust's `::h` and 16 digits
/// at the end, or digits in brackets behind each crate, `std[9a6d2f0c41b7e853]::panicking`.
pub(crate) fn bare(name: &str) -> String {
    let name =
        name.split_once('!').filter(|(module, _)| !module.contains([' ', ':', '<'])).map_or(name, |(_, name)| name);
    let name = match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && is_hash(hash) => path,
        _ => name,
    };
    let (mut bare, mut rest) = (String::new(), name);
    while let Some((before, after)) = rest.split_once('[') {
        bare.push_str(before);
        rest = match after.split_once(']').filter(|(hash, _)| is_hash(hash)) {
            Some((_, after)) => after,
            None => {
                bare.push('[');
                after
            }
        };
    }
    bare + rest
}

/// Of a crate, leading zeros are left out.
fn is_hash(text: &str) -> bool {
    (8..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a function is of the plugin's author, as far as its name tells.
pub(crate) fn is_own(name: &str) -> bool {
    !GLUE.iter().any(|glue| name.starts_with(glue)) && !name.starts_with("<wasm function")
}

/// Without the `:9:41` or `:9` at its end.
fn without_place(text: &str) -> &str {
    let mut rest = text;
    for _ in 0..2 {
        match rest.rsplit_once(':') {
            Some((before, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => rest = before,
            _ => break,
        }
    }
    rest
}

/// The file's name: directories differ from machine to machine.
fn last(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// The text with `#` for each word that has a digit in it, and without what is quoted.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if word > 0 {
            let (word, after) = rest.split_at(word);
            masked.push_str(if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
            rest = after;
            continue;
        }
        rest = &rest[first.len_utf8()..];
        masked.push(first);
        if matches!(first, '"' | '\'' | '`')
            && let Some(end) = rest.find(first)
        {
            rest = &rest[end + 1..];
            masked.push(first);
        }
    }
    masked
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind, text: &str, trace: &[&str]) -> Fault {
        Fault { kind, text: text.into(), trace: trace.iter().map(|&line| line.into()).collect() }
    }

    #[test]
    fn names_lose_what_is_new_with_each_build() {
        let names = [
            ("big.wasm!big::magnitude::h0123456789abcdef", "big::magnitude"),
            ("std[9a6d2f0c41b7e853]::panicking::begin", "std::panicking::begin"),
            ("big.wasm!std[9a6d2f0c41b7e853]::end::<core[16f0c41b7e8531]::Never, !>", "std::end::<core::Never, !>"),
            ("big::all::<[u8; 4]>", "big::all::<[u8; 4]>"),
        ];
        for (name, expected) in names {
            assert_eq!(bare(name), expected);
        }
        assert!(!is_own(&bare("std[9a6d2f0c41b7e853]::panicking::begin")));
    }

    #[test]
    fn numbers_and_what_is_quoted_are_masked() {
        assert_eq!(masked("index 7 out of 3 for 'a 1' of 0x1f"), "index # out of # for '' of #");
        assert_eq!(masked("called `Option::unwrap()` on a `None` value"), "called `` on a `` value");
        assert_eq!(masked("it's ü"), "it's ü");
    }

    #[test]
    fn what_languages_say_of_places_is_read() {
        assert_eq!(python("  File \"/x/app.py\", line 5, in process").as_deref(), Some("app.py process"));
        assert_eq!(javascript("    at process (plugin.js:5:12)").as_deref(), Some("plugin.js process"));
        assert_eq!(javascript("at /a/plugin.js:5:12").as_deref(), Some("plugin.js "));
        assert_eq!(javascript("process@plugin.js:5:12").as_deref(), Some("plugin.js process"));
        assert_eq!(rust("src/lib.rs:9:41").as_deref(), Some("lib.rs"));
        assert_eq!(wasm("big::mag::h0123456789abcdef (0x1f)").as_deref(), Some("big::mag"));
        assert_eq!(wasm("core::panicking::panic (0x1f)"), None);
        for other in ["KeyError: 'mag'", "at once", "boom (0x1f)", "a sentence. with: 1"] {
            assert_eq!((python(other), javascript(other), rust(other)), (None, None, None), "{other}");
        }
    }

    #[test]
    fn the_same_mistake_has_the_same_fingerprint() {
        let python = |line: u32, key: &str| {
            let trace = [
                "Traceback (most recent call last):",
                "  File \"/sdk/quipu.py\", line 90, in process",
                &format!("  File \"/home/a/app.py\", line {line}, in process"),
                "process (0x77)",
            ];
            fault(FaultKind::Said, &format!("KeyError: '{key}'"), &trace).fingerprint()
        };
        assert_eq!(python(5, "mag"), python(7, "place"));
        assert_eq!(python(5, "mag").len(), 12);
        let trap = |frames: &[&str]| fault(FaultKind::Trap("unreachable"), "plugin trapped: unreachable", frames);
        let first = trap(&["core::panicking::panic (0x1)", "mine::f (0x2)", "mine::g (0x3)"]).fingerprint();
        assert_eq!(first, trap(&["mine::f (0x22)", "std::x (0x9)", "mine::g (0x33)"]).fingerprint());
        assert_ne!(first, trap(&["mine::h (0x22)", "mine::g (0x33)"]).fingerprint());
    }

    #[test]
    fn a_deadline_is_one_wherever_it_hit() {
        let late = |inner: &str| {
            let trace = [inner, "mine::process (0x3)", "quipu:plugin/handler@0.1.0#process (0x4)"];
            fault(FaultKind::Deadline, "plugin ran over 50 ms", &trace).fingerprint()
        };
        assert_eq!(late("mine::a (0x1)"), late("mine::b (0x2)"));
    }
}
