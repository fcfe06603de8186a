//! Cuts fields out of JSON text, in one walk over it that keeps nothing but where the cuts are: what is not on the way
//! to a field is only checked.

use quipu_plugin::prelude::FieldPath;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Paths as a tree: what is to go, and what is on the way there.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    goes: bool,
    below: BTreeMap<String, Fields>,
}

impl<'a> FromIterator<&'a FieldPath> for Fields {
    fn from_iter<I: IntoIterator<Item = &'a FieldPath>>(paths: I) -> Self {
        let mut root = Self::default();
        for path in paths {
            let leaf = path.names().iter().fold(&mut root, |node, name| node.below.entry(name.clone()).or_default());
            leaf.goes = true;
        }
        root
    }
}

impl Fields {
    fn has_numbers(&self) -> bool {
        self.below.keys().any(|name| name.parse::<usize>().is_ok())
    }
}

/// The text without these fields, or with the replacement in their places; `None` where it has none of them.
pub(crate) fn redact(text: &str, fields: &Fields, replacement: Option<&str>) -> serde_json::Result<Option<String>> {
    let mut cuts = Cuts { text, whole_members: replacement.is_none(), ranges: Vec::new() };
    let mut json = serde_json::Deserializer::from_str(text);
    Walk { cuts: &mut cuts, fields: &[fields] }.deserialize(&mut json)?;
    json.end()?;
    if cuts.ranges.is_empty() {
        return Ok(None);
    }
    let replacement = replacement.map(serde_json::to_string).transpose()?.unwrap_or_default();
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for cut in cuts.ranges {
        kept.push_str(&text[from..cut.start]);
        kept.push_str(&replacement);
        from = cut.end;
    }
    kept.push_str(&text[from..]);
    Ok(Some(kept))
}

/// What goes from one text.
struct Cuts<'a> {
    text: &'a str,
    /// Fields go together with their names and a comma; else their values alone.
    whole_members: bool,
    /// In the order of the text, and apart from each other.
    ranges: Vec<Range<usize>>,
}

impl Cuts<'_> {
    /// Cuts a member of an object or an array that begins at `start`. With the comma before it, or, as long as no
    /// member before it is left, with the one behind it.
    fn cut(&mut self, start: usize, value: &RawValue, is_first: bool) {
        let value_start = self.place(value);
        let end = value_start + value.get().len();
        let range = if !self.whole_members {
            value_start..end
        } else if is_first {
            let behind = self.text[end..].trim_ascii_start();
            let next = behind.strip_prefix(',').map(|next| self.text.len() - next.trim_ascii_start().len());
            start..next.unwrap_or(end)
        } else {
            let before = self.text[..start].trim_ascii_end();
            before.strip_suffix(',').unwrap_or(before).trim_ascii_end().len()..end
        };
        self.ranges.push(range);
    }

    /// Where an excerpt begins in the text that it borrows from.
    fn place(&self, excerpt: &RawValue) -> usize {
        excerpt.get().as_ptr().addr() - self.text.as_ptr().addr()
    }
}

/// Walks one value. `fields` has more than one node where an array is on the way: a node goes on for each element, and
/// what it has under the element's number for that one.
struct Walk<'w, 'a> {
    cuts: &'w mut Cuts<'a>,
    fields: &'w [&'w Fields],
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        if self.fields.is_empty() {
            json.deserialize_ignored_any(IgnoredAny).map(|_| ())
        } else {
            json.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { cuts, fields } = self;
        let mut is_first = true;
        while let Some(name) = map.next_key::<&RawValue>()? {
            let text = unescaped(name.get()).map_err(A::Error::custom)?;
            let below: Vec<_> = fields.iter().filter_map(|node| node.below.get(&*text)).collect();
            if below.iter().any(|node| node.goes) {
                let start = cuts.place(name);
                cuts.cut(start, map.next_value()?, is_first);
            } else {
                map.next_value_seed(Walk { cuts, fields: &below })?;
                is_first = false;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { cuts, fields } = self;
        if !fields.iter().any(|node| node.has_numbers()) {
            while elements.next_element_seed(Walk { cuts, fields })?.is_some() {}
            return Ok(());
        }
        let mut is_first = true;
        for index in 0_usize.. {
            let index = index.to_string();
            let picked = || fields.iter().filter_map(|node| node.below.get(&index));
            if picked().any(|node| node.goes) {
                let Some(value) = elements.next_element::<&RawValue>()? else { break };
                cuts.cut(cuts.place(value), value, is_first);
            } else {
                let below: Vec<_> = fields.iter().copied().chain(picked()).collect();
                if elements.next_element_seed(Walk { cuts, fields: &below })?.is_none() {
                    break;
                }
                is_first = false;
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A name as it is meant; borrowed, as nearly all are written without escapes.
fn unescaped(name: &str) -> serde_json::Result<Cow<'_, str>> {
    if name.contains('\\') {
        serde_json::from_str(name).map(Cow::Owned)
    } else {
        Ok(Cow::Borrowed(name.trim_matches('"')))
    }
}
