//! Regular expressions: what `test`, `match`, `capture`, `scan`, `split`, `sub` and `gsub` are made of.

use super::{Answer, Data, utf8};
use jaq_core::{Cv, Error};
use jaq_json::{Num, Val};
use regex_lite::{Captures, Regex, RegexBuilder};
use std::cell::RefCell;
use std::collections::HashMap;

/// Compiled patterns that are kept; a program that makes more of them from payloads begins anew.
const CACHED_MAX: usize = 64;

thread_local!(static CACHE: RefCell<HashMap<(String, String), Regex>> = RefCell::default());

/// What of a text is given back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Matches,
    Rest,
    Both,
}

/// The input, taken apart by a pattern and its flags, the two arguments: matches as arrays of groups, the rest as text.
pub(super) fn find(mut cv: Cv<'_, Data>, keep: Keep) -> Answer {
    let (flags, pattern) = (cv.0.pop_var(), cv.0.pop_var());
    let (flags, pattern, text) = (utf8(&flags)?, utf8(&pattern)?, utf8(&cv.1)?);
    let regex = compiled(pattern, flags)?;
    let mut parts = Vec::new();
    let mut last = 0;
    for captures in regex.captures_iter(text) {
        let Some(whole) = captures.get(0) else { continue };
        if flags.contains('n') && whole.as_str().is_empty() {
            continue;
        }
        if keep != Keep::Matches {
            parts.push(Val::from(text[last..whole.start()].to_owned()));
            last = whole.end();
        }
        if keep != Keep::Rest {
            parts.push(groups(text, &regex, &captures));
        }
        if !flags.contains('g') {
            break;
        }
    }
    if keep != Keep::Matches {
        parts.push(Val::from(text[last..].to_owned()));
    }
    Ok(parts.into_iter().collect())
}

fn compiled(pattern: &str, flags: &str) -> Result<Regex, Error<Val>> {
    let id = (pattern.to_owned(), flags.to_owned());
    if let Some(regex) = CACHE.with_borrow(|cache| cache.get(&id).cloned()) {
        return Ok(regex);
    }
    if let Some(unknown) = flags.chars().find(|flag| !"gnimslxp".contains(*flag)) {
        return Err(Error::str(format_args!("invalid regex flag: {unknown}")));
    }
    let has = |flag| flags.contains(flag);
    let built = RegexBuilder::new(pattern)
        .case_insensitive(has('i'))
        .multi_line(has('m') || has('p'))
        .dot_matches_new_line(has('s') || has('p'))
        .swap_greed(has('l'))
        .ignore_whitespace(has('x'))
        .build();
    let regex = built.map_err(|error| Error::str(format_args!("invalid regex: {error}")))?;
    CACHE.with_borrow_mut(|cache| {
        if cache.len() >= CACHED_MAX {
            cache.clear();
        }
        cache.insert(id, regex.clone());
    });
    Ok(regex)
}

/// The whole match and its groups, as objects; a group that took no part is left out.
fn groups(text: &str, regex: &Regex, captures: &Captures<'_>) -> Val {
    let found = captures.iter().zip(regex.capture_names()).filter_map(|(group, name)| Some((group?, name)));
    let objects = found.map(|(group, name)| {
        let chars = |part: &str| Val::Num(Num::from_integral(part.chars().count()));
        let mut entries = vec![
            (Val::from("offset".to_owned()), chars(&text[..group.start()])),
            (Val::from("length".to_owned()), chars(group.as_str())),
            (Val::from("string".to_owned()), Val::from(group.as_str().to_owned())),
        ];
        entries.extend(name.map(|name| (Val::from("name".to_owned()), Val::from(name.to_owned()))));
        Val::obj(entries.into_iter().collect())
    });
    objects.collect()
}
