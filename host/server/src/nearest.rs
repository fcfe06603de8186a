//! What somebody most likely meant: the nearest name, the one place for it. Names of subcommands and of values that are
//! fixed are the argument parser's, which has its own.

/// The candidate that the word was most likely meant to be; none where none is near. Of several the first.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let near = |candidate: &&str| {
        let (chars, distance) = (candidate.chars().count(), distance(word, candidate));
        // Two names that have nothing in common are not near, however short they are.
        distance <= 1 + chars / 4 && distance < chars.max(length)
    };
    candidates.into_iter().filter(near).min_by_key(|candidate| distance(word, candidate))
}

/// What an error about an unknown name ends with: `; did you mean "NAME"?`, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_near() {
        let keys = ["subjects", "max_attempts", "backoff", "dead_letter"];
        assert_eq!(nearest("subject", keys), Some("subjects"));
        assert_eq!(nearest("deadletter", keys), Some("dead_letter"));
        assert_eq!(nearest("max_atempt", keys), Some("max_attempts"));
        assert_eq!(nearest("retention", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest("x", ["a", "b"]), None);
        assert_eq!(nearest("ab", ["a", "b"]), Some("a"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn an_error_ends_with_it_or_with_nothing() {
        assert_eq!(did_you_mean("qakes", ["alerts", "quakes"]), "; did you mean \"quakes\"?");
        assert_eq!(did_you_mean("orders", ["alerts", "quakes"]), "");
        assert_eq!(did_you_mean("orders", []), "");
    }
}
