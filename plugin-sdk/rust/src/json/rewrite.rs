//! Changes fields in the text of JSON, in one walk over it that keeps nothing but where the changes are: what is not on
//! the way to a field is only checked, and every other byte stays as it was.

use super::FieldPath;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// What becomes of a value in a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It stays.
    Keep,
    /// It goes, with its name and a comma.
    Remove,
    /// This JSON text takes its place.
    Replace(String),
}

/// Paths as a tree: what is asked for, and what is on the way there. An array on the way stands for each of its
/// elements, however the arrays are nested.
#[derive(Debug, Default)]
pub struct Fields {
    /// The number of the path that ends here.
    path: Option<usize>,
    below: BTreeMap<String, Fields>,
}

/// Of paths that are there twice, the first counts.
impl<'a> FromIterator<&'a FieldPath> for Fields {
    fn from_iter<I: IntoIterator<Item = &'a FieldPath>>(paths: I) -> Self {
        let mut root = Self::default();
        for (number, path) in paths.into_iter().enumerate() {
            let leaf = path.names().iter().fold(&mut root, |node, name| node.below.entry(name.clone()).or_default());
            leaf.path.get_or_insert(number);
        }
        root
    }
}

impl Fields {
    /// The text with its fields changed as `change` says, which gets the number of the path, from 0, and the value as it
    /// stands there; nothing where all is kept. Below a field that was asked about, no other is looked for. Of a name
    /// that occurs twice, both are asked about.
    ///
    /// # Errors
    ///
    /// The text is no JSON, or the way to a field goes through more than about 125 levels.
    pub fn rewrite(
        &self,
        text: &str,
        change: &mut dyn FnMut(usize, &str) -> Change,
    ) -> serde_json::Result<Option<String>> {
        let mut changes = Changes { text, change, ranges: Vec::new() };
        let mut json = serde_json::Deserializer::from_str(text);
        Walk { changes: &mut changes, fields: &[self] }.deserialize(&mut json)?;
        json.end()?;
        if changes.ranges.is_empty() {
            return Ok(None);
        }
        let mut changed = String::with_capacity(text.len());
        let mut from = 0;
        for (range, replacement) in changes.ranges {
            changed.push_str(&text[from..range.start]);
            changed.push_str(&replacement);
            from = range.end;
        }
        changed.push_str(&text[from..]);
        Ok(Some(changed))
    }

    fn has_numbers(&self) -> bool {
        self.below.keys().any(|name| name.parse::<usize>().is_ok())
    }
}

/// What changes in one text.
struct Changes<'a, 'c> {
    text: &'a str,
    change: &'c mut dyn FnMut(usize, &str) -> Change,
    /// In the order of the text, and apart from each other; each with what takes its place.
    ranges: Vec<(Range<usize>, String)>,
}

impl Changes<'_, '_> {
    /// Asks about a member of an object or an array that begins at `start`; says whether it is still there. One that
    /// goes takes the comma before it along, or, as long as no member before it is left, the one behind it.
    fn ask(&mut self, path: usize, start: usize, value: &RawValue, is_first: bool) -> bool {
        let value_start = self.place(value);
        let end = value_start + value.get().len();
        match (self.change)(path, value.get()) {
            Change::Keep => return true,
            Change::Replace(replacement) => {
                self.ranges.push((value_start..end, replacement));
                return true;
            }
            Change::Remove => {}
        }
        let range = if is_first {
            let behind = self.text[end..].trim_ascii_start();
            let next = behind.strip_prefix(',').map(|next| self.text.len() - next.trim_ascii_start().len());
            start..next.unwrap_or(end)
        } else {
            let before = self.text[..start].trim_ascii_end();
            before.strip_suffix(',').unwrap_or(before).trim_ascii_end().len()..end
        };
        self.ranges.push((range, String::new()));
        false
    }

    /// Where an excerpt begins in the text that it borrows from.
    fn place(&self, excerpt: &RawValue) -> usize {
        excerpt.get().as_ptr().addr() - self.text.as_ptr().addr()
    }
}

/// Walks one value. `fields` has more than one node where an array is on the way: a node goes on for each element, and
/// what it has under the element's number for that one.
struct Walk<'w, 'a, 'c> {
    changes: &'w mut Changes<'a, 'c>,
    fields: &'w [&'w Fields],
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        if self.fields.is_empty() {
            json.deserialize_ignored_any(IgnoredAny).map(|_| ())
        } else {
            json.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { changes, fields } = self;
        let mut is_first = true;
        while let Some(name) = map.next_key::<&RawValue>()? {
            let text = unescaped(name.get()).map_err(A::Error::custom)?;
            let below: Vec<_> = fields.iter().filter_map(|node| node.below.get(&*text)).collect();
            if let Some(path) = below.iter().find_map(|node| node.path) {
                let start = changes.place(name);
                is_first &= !changes.ask(path, start, map.next_value()?, is_first);
            } else {
                map.next_value_seed(Walk { changes, fields: &below })?;
                is_first = false;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { changes, fields } = self;
        if !fields.iter().any(|node| node.has_numbers()) {
            while elements.next_element_seed(Walk { changes, fields })?.is_some() {}
            return Ok(());
        }
        let mut is_first = true;
        for index in 0_usize.. {
            let index = index.to_string();
            let picked = || fields.iter().filter_map(|node| node.below.get(&index));
            if let Some(path) = picked().find_map(|node| node.path) {
                let Some(value) = elements.next_element::<&RawValue>()? else { break };
                is_first &= !changes.ask(path, changes.place(value), value, is_first);
            } else {
                let below: Vec<_> = fields.iter().copied().chain(picked()).collect();
                if elements.next_element_seed(Walk { changes, fields: &below })?.is_none() {
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

#[cfg(test)]
mod tests {
    use super::{Change, Fields};

    #[track_caller]
    fn check(text: &str, paths: &[&str], expected: Option<&str>) {
        let paths: Vec<_> = paths.iter().map(|path| path.parse().unwrap()).collect();
        let fields: Fields = paths.iter().collect();
        let changed = fields.rewrite(text, &mut |path, value| match value {
            "1" => Change::Remove,
            "2" => Change::Replace(format!("\"{path}\"")),
            _ => Change::Keep,
        });
        assert_eq!(changed.unwrap().as_deref(), expected);
    }

    #[test]
    fn each_field_has_a_change_of_its_own() {
        check(r#"{"a":1, "b":2, "c":3}"#, &["a", "b", "c"], Some(r#"{"b":"1", "c":3}"#));
        check(r#"{"c":3, "a":1, "b":1}"#, &["a", "b", "c"], Some(r#"{"c":3}"#));
        check(r#"[{"a":2},{"a":3},{"a":[1]}]"#, &["a"], Some(r#"[{"a":"0"},{"a":3},{"a":[1]}]"#));
        check(r#"{"q":[1,2,3]}"#, &["q.0", "q.1", "q.2"], Some(r#"{"q":["1",3]}"#));
        check(r#"{"a":{"b":1}}"#, &["a", "a.b"], None);
    }
}
