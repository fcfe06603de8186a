//! How attempts are shown to an author: verdicts, times, faults with their places.

use std::path::Path;
use std::time::Duration;

use quipu_runtime::{Attempt, ConfigureError, Digest, Fault, FaultKind, Limits, Verdict};

/// Frames that are shown where not all are asked for.
const FRAMES_SHOWN: usize = 8;
/// Lines of a language's own traceback that are shown where not all are asked for.
const SAID_SHOWN: usize = 12;
/// Where the places of frames begin, in characters.
const PLACE_COLUMN: usize = 48;

/// `3.8 µs`, `31 ms`, `1.9 s`.
pub(super) fn duration(time: Duration) -> String {
    let ns = time.as_nanos();
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => scaled(time.as_secs_f64() * 1e6, "µs"),
        1_000_000..1_000_000_000 => scaled(time.as_secs_f64() * 1e3, "ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn scaled(value: f64, unit: &str) -> String {
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `64 MiB`, `1.1 MiB`, `84 KiB`.
pub(super) fn size(bytes: usize) -> String {
    const UNITS: [(&str, u64); 2] = [("MiB", 1 << 20), ("KiB", 1 << 10)];
    let bytes = bytes as u64;
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) if bytes.is_multiple_of(*unit) || bytes / unit >= 10 => {
            format!("{} {name}", (bytes + unit / 2) / unit)
        }
        Some((name, unit)) => {
            let tenths = (bytes * 10 + unit / 2) / unit;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

/// `limits as in production: 50 ms, 64 MiB`.
pub(super) fn limits(limits: &Limits) -> String {
    let whose = if *limits == Limits::default() { "as in production" } else { "of plugin.toml" };
    format!("limits {whose}: {}, {}", duration(limits.deadline), size(limits.memory_bytes))
}

/// `forward`, `drop "small"`, `route alerts, big`.
pub(super) fn verdict(verdict: &Result<Verdict, Fault>) -> String {
    match verdict {
        Ok(Verdict::Forward) => "forward".into(),
        Ok(Verdict::Route(subjects)) => {
            let subjects: Vec<&str> = subjects.iter().map(quipu_protocol::Subject::as_str).collect();
            format!("route {}", subjects.join(", "))
        }
        Ok(said @ (Verdict::Drop(reason) | Verdict::Reject(reason) | Verdict::Retry { reason, .. })) => {
            if reason.is_empty() { said.name().into() } else { format!("{} {reason:?}", said.name()) }
        }
        Err(fault) => format!("fault {}", fault.kind),
    }
}

/// The first so many characters, with `…` where there are more.
pub(super) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A text of others, for a terminal: what would move its cursor or change its colours is written out.
pub(super) fn visible(text: &str) -> String {
    let is_shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if is_shown(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

/// A text and as many spaces as make it this wide, two at least.
pub(super) fn padded(text: &str, width: usize) -> String {
    let spaces = width.saturating_sub(text.chars().count()).max(2);
    format!("{text}{}", " ".repeat(spaces))
}

/// The lines of a fault: what happened and where, what the plugin's language said of it, the functions it came through.
pub(super) fn fault(fault: &Fault, all: bool) -> Vec<String> {
    let mut lines = vec![format!("fault     {}", headline(fault))];
    if fault.place().is_none() {
        let said = fault.said();
        let shown = if all { said.len() } else { said.len().min(SAID_SHOWN) };
        lines.extend(said[..shown].iter().map(|line| format!("          {line}")));
        if shown < said.len() {
            lines.push(format!("          {} more lines: --trace", said.len() - shown));
        }
        // Below a traceback of its own, the functions are those of the language's interpreter.
        if said.is_empty() || all {
            lines.extend(frames(fault, all));
        }
    } else {
        lines.extend(frames(fault, all));
    }
    lines.extend(advice(fault.kind).map(|advice| format!("          {advice}")));
    lines
}

/// What to do about a fault that its own text says nothing of.
fn advice(kind: FaultKind) -> Option<&'static str> {
    Some(match kind {
        FaultKind::Deadline => {
            "an endless loop, or more work than `deadline` allows: [limits] in plugin.toml, [plugin.NAME] of a router"
        }
        FaultKind::Memory => "more than `memory` allows: [limits] in plugin.toml, [plugin.NAME] of a router",
        FaultKind::Output => "more than `output` allows: [limits] in plugin.toml, [plugin.NAME] of a router",
        FaultKind::Calls => "a limit that nothing raises: ask the router once, and keep what it says",
        FaultKind::Said => {
            "a route tries it again; a message that lacks a field is rejected where it is read by path: json_at, jsonAt"
        }
        FaultKind::Trap(_) => "the plugin ended itself, or ran into a bug: `build --debug` gives the trace its lines",
        FaultKind::Abi => "the SDK and the router do not speak alike: build it again with the SDK of this quipu",
        _ => return None,
    })
}

/// The lines of why a plugin does not start: what it refuses, or how it fails, and where its configuration is from, which
/// may be a project.
pub(super) fn refused(error: &ConfigureError, of_project: bool, all: bool) -> Vec<String> {
    let mut lines = vec![error.to_string()];
    match error {
        ConfigureError::Fault { fault: failed, .. } => lines.extend(fault(failed, all).into_iter().skip(1)),
        ConfigureError::Refused { .. } => {
            let project = if of_project { ", [config] of plugin.toml" } else { "" };
            lines.push(format!("          its configuration: -c KEY=VALUE, --config FILE{project}"));
        }
        _ => {}
    }
    lines
}

/// With the place, where the text does not say it.
fn headline(fault: &Fault) -> String {
    let text = fault.text.trim_end().replace('\n', "\n          ");
    match fault.place() {
        Some(place) if !text.contains(place) => {
            let how = if place.contains(".rs:") || place.contains(".zig:") { "panic at" } else { "at" };
            format!("{how} {place}: {text}")
        }
        _ => text,
    }
}

fn frames(fault: &Fault, all: bool) -> Vec<String> {
    let frames = fault.frames();
    let shown: Vec<_> = match all {
        true => frames.iter().collect(),
        false => frames.iter().filter(|frame| frame.is_own).take(FRAMES_SHOWN).collect(),
    };
    let hidden = frames.len() - shown.len();
    let has_lines = frames.iter().any(|frame| frame.place.is_some());
    let mut notes = Vec::new();
    if hidden > 0 {
        notes.push(format!("{hidden} runtime frames: --trace"));
    }
    if !frames.is_empty() && !has_lines {
        notes.push("(lines need build --debug)".to_owned());
    }
    let mut lines: Vec<String> = Vec::new();
    for (n, frame) in shown.iter().enumerate() {
        let named = format!("{n:>11}  {}", frame.function);
        let place = frame.place.as_deref().map(without_column).unwrap_or_default();
        lines.push(format!("{} {place}", padded(&named, PLACE_COLUMN)).trim_end().to_owned());
    }
    match lines.last_mut() {
        Some(last) if !notes.is_empty() => *last = format!("{} {}", padded(last, PLACE_COLUMN + 17), notes.join("  ")),
        None if !notes.is_empty() => lines.push(format!("          {}", notes.join("  "))),
        _ => {}
    }
    lines
}

/// `src/lib.rs:9` of `src/lib.rs:9:41`.
fn without_column(place: &str) -> &str {
    let shorter = place.rsplit_once(':').filter(|(_, column)| column.bytes().all(|b| b.is_ascii_digit()));
    match shorter {
        Some((line, _)) if line.rsplit(':').next().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) => line,
        _ => place,
    }
}

/// `message   ak0247  quakes.all  812 bytes      plugin big-quakes@a3f19c02   config 51d0be   used 0.04 of 50 ms, 1.1 of
/// 64 MiB`, on one line.
pub(super) fn message(attempt: &Attempt, name: &str, digest: &Digest, config: &Digest, limits: &Limits) -> String {
    let input = &attempt.input;
    let memory = attempt.usage.memory_bytes.max(attempt.usage.memory_peak_bytes);
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    // In the unit of the limit.
    let scale = if limits.deadline < Duration::from_secs(1) { 1e3 } else { 1.0 };
    format!(
        "message   {}  {}  {} bytes      plugin {name}@{}   config {}   used {:.2} of {}, {:.1} of {}",
        input.id.as_str(),
        input.subject,
        input.payload.len(),
        digest.short(),
        &config.short()[..6],
        attempt.time.as_secs_f64() * scale,
        duration(limits.deadline),
        mib(memory),
        size(limits.memory_bytes),
    )
}

/// A path as one types it in a shell.
pub(super) fn typed(path: &Path) -> String {
    let inside = path.strip_prefix("./").ok().filter(|inside| !inside.as_os_str().is_empty());
    let text = inside.unwrap_or(path).display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%=,:".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        let ns = |ns: u64| duration(Duration::from_nanos(ns));
        assert_eq!(
            [ns(850), ns(3_812), ns(31_000), ns(31_000_000), ns(1_900_000_000)],
            ["850 ns", "3.8 µs", "31 µs", "31 ms", "1.9 s"]
        );
        assert_eq!(
            [size(64 << 20), size(1_150_000), size(84 << 10), size(12)],
            ["64 MiB", "1.1 MiB", "84 KiB", "12 bytes"]
        );
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(visible("a\u{1b}[2J\tb\n"), "a\\u{1b}[2J\tb\n");
        assert_eq!(limits(&Limits::default()), "limits as in production: 50 ms, 64 MiB");
    }

    #[test]
    fn a_panic_shows_its_place_and_the_authors_functions() {
        let trace = [
            "src/lib.rs:9:41",
            "core::panicking::panic (0x1)",
            "big::magnitude (0x2)",
            "at src/lib.rs:9:41",
            "big::process (0x3)",
        ];
        let panic = Fault { kind: FaultKind::Said, text: "boom".into(), trace: trace.map(str::to_owned).to_vec() };
        let expected = [
            "fault     panic at src/lib.rs:9:41: boom",
            "          0  big::magnitude                      src/lib.rs:9",
            "          1  big::process                                         1 runtime frames: --trace",
            &format!("          {}", advice(FaultKind::Said).expect("what to do")),
        ];
        assert_eq!(fault(&panic, false), expected);
        assert_eq!(fault(&panic, true).len(), 5);
    }

    #[test]
    fn a_traceback_is_shown_as_it_was_said() {
        let trace = ["  File \"app.py\", line 5, in process", "    x = message", "PyEval (0x2)"];
        let error =
            Fault { kind: FaultKind::Said, text: "KeyError: 'mag'".into(), trace: trace.map(str::to_owned).to_vec() };
        let expected = [
            "fault     KeyError: 'mag'",
            "            File \"app.py\", line 5, in process",
            "              x = message",
            &format!("          {}", advice(FaultKind::Said).expect("what to do")),
        ];
        assert_eq!(fault(&error, false), expected);
    }

    #[test]
    fn paths_can_be_typed() {
        assert_eq!(typed(Path::new("./a/b.wasm")), "a/b.wasm");
        assert_eq!(typed(Path::new("a b")), "'a b'");
    }
}
