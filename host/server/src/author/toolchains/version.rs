//! Versions as tools tell them: numbers with dots between.

use std::cmp::Ordering;

/// The first thing in a text that has the look of a version: `1.95.0` of `cargo 1.95.0 (f2d3ce0bd 2026-03-21)`.
pub(super) fn first_version(text: &str) -> Option<&str> {
    let words = text.split(|c: char| c.is_whitespace() || c == ',' || c == '(');
    let versions = words.map(|word| word.trim_start_matches(|c: char| !c.is_ascii_digit()));
    versions.map(|word| &word[..length(word)]).find(|word| word.contains('.'))
}

/// Whether a version is this one or a later one. A part that is no number, as in `1.28rc1`, counts by its digits.
pub(crate) fn at_least(version: &str, least: &str) -> bool {
    let parts = |text: &str| text.split('.').map(number).collect::<Vec<u64>>();
    let (mut version, mut least) = (parts(version), parts(least));
    let longest = version.len().max(least.len());
    version.resize(longest, 0);
    least.resize(longest, 0);
    version.cmp(&least) != Ordering::Less
}

fn length(word: &str) -> usize {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    word[..end].trim_end_matches('.').len()
}

fn number(part: &str) -> u64 {
    let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
    part[..digits].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_say() {
        for (said, version) in [
            ("cargo 1.95.0 (f2d3ce0bd 2026-03-21)", "1.95.0"),
            ("go version go1.27.3 linux/amd64", "1.27.3"),
            ("Python 3.11.7\n", "3.11.7"),
            ("v20.20.2", "20.20.2"),
            ("Version 0.28.20", "0.28.20"),
            ("0.17.0-dev.3+abc", "0.17.0"),
        ] {
            assert_eq!(first_version(said), Some(version), "{said}");
        }
        assert_eq!(first_version("no version 7 here"), None);
    }

    #[test]
    fn later_versions_are_later() {
        for (version, least) in [("1.95.0", "1.95"), ("1.100", "1.95"), ("20", "20.0.0"), ("2.0", "1.99.9")] {
            assert!(at_least(version, least), "{version} {least}");
        }
        for (version, least) in [("1.9.0", "1.95"), ("0.17.0", "0.17.1"), ("19.9", "20")] {
            assert!(!at_least(version, least), "{version} {least}");
        }
    }
}
