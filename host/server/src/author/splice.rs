//! Changes of a TOML text that leave all of it as it was but the values that change: comments, order, the way it is laid
//! out.
//!
//! What it is not: an editor of any TOML. It knows tables of a `[[case]]`, in each of the ways in which they are written.

use std::ops::Range;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::plugins::cases::content::json_value;

/// What comes first in a table that is new, in this order.
const FIRST: [&str; 5] = ["verdict", "reason", "subject", "subjects", "headers"];

/// Makes a table of one case what the object says: what is the same stays as it is written.
///
/// # Errors
///
/// There is no such case, or TOML cannot say the value.
pub(crate) fn set_in_case(text: &str, index: usize, name: &str, value: &Value) -> Result<String> {
    let root = DeTable::parse(text).context("the file has changed")?;
    let before: toml::Table = toml::from_str(text).context("the file has changed")?;
    let before = json_value(serde_json::to_value(before)?);
    let case = root.get_ref().get("case").and_then(|cases| cases.get_ref().as_array()?.get(index));
    let case = case.context("the file has changed")?;
    let Value::Object(mut new) = before["case"][index].clone() else { bail!("a case is no table") };
    new.insert(name.to_owned(), value.clone());
    let mut splice = Splice { text, edits: Vec::new() };
    splice.value(case, &before["case"][index], &Value::Object(new))?;
    Ok(splice.done())
}

struct Splice<'a> {
    text: &'a str,
    /// What takes the place of which bytes; none overlap.
    edits: Vec<(Range<usize>, String)>,
}

type Entry<'a> = (&'a Spanned<toml::de::DeString<'a>>, &'a Spanned<DeValue<'a>>);

impl<'a> Splice<'a> {
    fn value(&mut self, at: &Spanned<DeValue<'_>>, before: &Value, new: &Value) -> Result<()> {
        match (at.get_ref(), before, new) {
            _ if before == new => {}
            (DeValue::Table(table), Value::Object(before), Value::Object(new)) => {
                self.table(at, table, before, new)?;
            }
            (DeValue::Array(items), Value::Array(before), Value::Array(new)) if items.len() == new.len() => {
                for (n, item) in items.iter().enumerate() {
                    self.value(item, &before[n], &new[n])?;
                }
            }
            _ => self.edits.push((at.span(), rendered(new)?)),
        }
        Ok(())
    }

    fn table(
        &mut self,
        at: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
        before: &Map<String, Value>,
        new: &Map<String, Value>,
    ) -> Result<()> {
        let same_keys = before.len() == new.len() && before.keys().all(|name| new.contains_key(name));
        let is_inline = self.begins(at, '{');
        if is_inline && !same_keys {
            let inline = self.inline(table, before, new)?;
            self.edits.push((at.span(), inline));
            return Ok(());
        }
        let mut added: Vec<(&str, &Value)> = added(before, new);
        for (key, value) in entries(table) {
            let name: &str = key.get_ref();
            match new.get(name) {
                None => self.remove(key, value),
                // Tables with headers of their own, more or fewer than before, become a list on one line.
                Some(new) if self.begins(value, '[') && is_other_length(&before[name], new) && has_tables(value) => {
                    self.remove(key, value);
                    added.push((name, new));
                }
                Some(new) => self.value(value, &before[name], new)?,
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        added.sort_by_key(|(name, _)| rank(name));
        self.add(at, table, &added)
    }

    /// After the last line of the table's own, or after its header.
    fn add(&mut self, at: &Spanned<DeValue<'_>>, table: &DeTable<'_>, added: &[(&str, &Value)]) -> Result<()> {
        let own = entries(table).into_iter().filter(|(_, value)| !(self.begins(value, '[') && has_tables(value)));
        let own: Vec<Entry<'_>> = own.filter(|(key, value)| !self.has_header(key, value)).collect();
        let (after, prefix) = match own.last() {
            Some((key, value)) => {
                let start = key.span().start;
                (self.extent(value).end.max(key.span().end), &self.text[self.line_start(start)..start])
            }
            None => (at.span().end, ""),
        };
        let position = self.line_end(after);
        let mut lines = String::new();
        if position == self.text.len() && !self.text.ends_with('\n') {
            lines.push('\n');
        }
        for (name, value) in added {
            lines += &format!("{prefix}{} = {}\n", key_text(name), rendered(value)?);
        }
        self.edits.push((position..position, lines));
        Ok(())
    }

    /// The table anew, with what stays as it was written.
    fn inline(&self, table: &DeTable<'_>, before: &Map<String, Value>, new: &Map<String, Value>) -> Result<String> {
        let mut parts = Vec::new();
        for (key, value) in entries(table) {
            let name: &str = key.get_ref();
            let Some(new) = new.get(name) else { continue };
            let is_dotted = !self.begins(value, '{') && matches!(value.get_ref(), DeValue::Table(_));
            let text = match is_dotted || before[name] != *new {
                true => rendered(new)?,
                false => self.text[value.span()].to_owned(),
            };
            parts.push(format!("{} = {text}", &self.text[key.span()]));
        }
        for (name, value) in added(before, new) {
            parts.push(format!("{} = {}", key_text(name), rendered(value)?));
        }
        Ok(if parts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", parts.join(", ")) })
    }

    /// The lines of a key, or of a table with all that is in it.
    fn remove(&mut self, key: &Spanned<toml::de::DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) if !self.begins(value, '{') => {
                if self.begins(value, '[') {
                    self.remove_lines(value.span());
                }
                entries(table).into_iter().for_each(|(key, value)| self.remove(key, value));
            }
            DeValue::Array(tables) if has_tables(value) => {
                for table in tables.iter() {
                    self.remove(key, table);
                }
            }
            _ => self.remove_lines(key.span().start..value.span().end),
        }
    }

    fn remove_lines(&mut self, range: Range<usize>) {
        self.edits.push((self.line_start(range.start)..self.line_end(range.end), String::new()));
    }

    /// Whether a table is under a `[header]` of its own, and not among its parent's keys.
    fn has_header(&self, key: &Spanned<toml::de::DeString<'_>>, value: &Spanned<DeValue<'_>>) -> bool {
        let line = &self.text[self.line_start(key.span().start)..key.span().start];
        matches!(value.get_ref(), DeValue::Table(_)) && line.trim_start().starts_with('[')
    }

    /// All that is in a value: of a table that is written as dotted keys, the lines of those.
    fn extent(&self, value: &Spanned<DeValue<'_>>) -> Range<usize> {
        match value.get_ref() {
            DeValue::Table(table) if !self.begins(value, '{') => {
                let all = entries(table).into_iter().map(|(_, value)| self.extent(value));
                all.fold(value.span(), |a, b| a.start.min(b.start)..a.end.max(b.end))
            }
            _ => value.span(),
        }
    }

    fn begins(&self, value: &Spanned<DeValue<'_>>, with: char) -> bool {
        self.text[value.span().start..].starts_with(with)
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// After the line break.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline + 1)
    }

    fn done(mut self) -> String {
        self.edits.sort_by_key(|(range, _)| std::cmp::Reverse((range.start, range.end)));
        let mut text = self.text.to_owned();
        for (range, new) in self.edits {
            text.replace_range(range, &new);
        }
        text
    }
}

/// In the order in which they are written.
fn entries<'t>(table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let mut entries: Vec<Entry<'t>> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Whether a list is one of `[[tables]]`.
fn has_tables(value: &Spanned<DeValue<'_>>) -> bool {
    value.get_ref().as_array().is_some_and(|items| {
        let is_header =
            |item: &Spanned<DeValue<'_>>| item.get_ref().is_table() && item.span().start == value.span().start;
        items.iter().next().is_some_and(is_header)
    })
}

fn is_other_length(before: &Value, new: &Value) -> bool {
    before.as_array().map(Vec::len) != new.as_array().map(Vec::len)
}

/// What is there now and was not before.
fn added<'m>(before: &Map<String, Value>, new: &'m Map<String, Value>) -> Vec<(&'m str, &'m Value)> {
    let mut added: Vec<_> = new
        .iter()
        .filter(|(name, _)| !before.contains_key(*name))
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    added.sort_by_key(|(name, _)| rank(name));
    added
}

fn rank(name: &str) -> usize {
    FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len())
}

fn key_text(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_bare { name.to_owned() } else { toml::Value::from(name).to_string() }
}

/// A value on one line. A field that is null is as one that is not there.
fn rendered(value: &Value) -> Result<String> {
    Ok(match value {
        Value::Null => bail!("TOML has no null"),
        Value::Bool(value) => value.to_string(),
        Value::String(text) => toml::Value::from(text.as_str()).to_string(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.to_string(),
            (None, Some(float)) if number.is_f64() => toml::Value::from(float).to_string(),
            _ => bail!("TOML has no number as large as {number}"),
        },
        Value::Array(list) => {
            let items = list.iter().map(rendered).collect::<Result<Vec<_>>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_by_key(|(name, _)| rank(name));
            let field = |(name, value): (&String, &Value)| Ok(format!("{} = {}", key_text(name), rendered(value)?));
            let fields = fields.into_iter().map(field).collect::<Result<Vec<_>>>()?;
            if fields.is_empty() { "{}".into() } else { format!("{{ {} }}", fields.join(", ")) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, value: Value, expected: &str) {
        let changed = set_in_case(text, 0, "expect", &value).expect("it can be said");
        assert_eq!(changed, expected);
        let read: toml::Table = changed.parse().expect("still TOML");
        let read = serde_json::to_value(&read["case"][0]["expect"]).expect("JSON");
        assert_eq!(read, value, "what is read is what was meant");
    }

    #[test]
    fn values_change_and_comments_stay() {
        let text = "# a\n[[case]]\nname = \"a\" # b\nexpect = { verdict = \"drop\", n = [1, { x = 2 }] } # c\n\n# d\n";
        let value = json!({ "verdict": "forward", "n": [1, { "x": 3.5 }] });
        check(text, value, &text.replace("drop", "forward").replace("x = 2", "x = 3.5"));
    }

    #[test]
    fn inline_tables_gain_and_lose_keys() {
        let text = "[[case]]\nexpect = { verdict  =  \"drop\", reason = \"x\", a.b = 1 }\n";
        let value = json!({ "verdict": "drop", "a": { "b": 1 }, "key": "k" });
        check(text, value, "[[case]]\nexpect = { verdict = \"drop\", a = { b = 1 }, key = \"k\" }\n");
    }

    #[test]
    fn dotted_keys_gain_and_lose_lines() {
        let text = "[[case]]\n  expect.verdict = \"drop\" # why\n  expect.reason = \"x\"\n  message.key = \"k\"\n";
        let value = json!({ "verdict": "forward", "headers": { "a b": "c\"d" } });
        let expected = "[[case]]\n  expect.verdict = \"forward\" # why\n  expect.headers = { \"a b\" = 'c\"d' }\n  message.key = \"k\"\n";
        check(text, value, expected);
    }

    #[test]
    fn tables_with_headers_gain_and_lose_lines() {
        let text = "[[case]]\nname = \"a\"\n[case.expect]\n# first\nverdict = \"drop\"\n[case.expect.headers]\nh = \"v\"\ng = \"v\"\n\
                    [[case.expect.outputs]]\nsubject = \"a\"\n\n[[case]]\nname = \"b\"\n";
        let value = json!({ "verdict": "forward", "headers": { "h": "w" }, "outputs": [{ "subject": "b" }] });
        let expected = text.replace("drop", "forward").replace("h = \"v\"\ng = \"v\"", "h = \"w\"");
        check(text, value, &expected.replace("subject = \"a\"", "subject = \"b\""));
        let value = json!({ "verdict": "drop", "outputs": [{ "subject": "a" }, { "subject": "b" }] });
        let expected = "[[case]]\nname = \"a\"\n[case.expect]\n# first\nverdict = \"drop\"\n\
                        outputs = [{ subject = \"a\" }, { subject = \"b\" }]\n\n[[case]]\nname = \"b\"\n";
        check(text, value, expected);
    }

    #[test]
    fn a_case_without_the_table_gets_it_among_its_own_keys() {
        let text = "[[case]]\nname = \"a\"\n[case.message]\nkey = \"k\"";
        let expected =
            "[[case]]\nname = \"a\"\nexpect = { verdict = \"drop\", reason = \"r\" }\n[case.message]\nkey = \"k\"";
        check(text, json!({ "reason": "r", "verdict": "drop" }), expected);
        let text = "[[case]]\nname = \"a\"\nmessage.key = \"k\"";
        check(
            text,
            json!({ "verdict": "drop" }),
            "[[case]]\nname = \"a\"\nmessage.key = \"k\"\nexpect = { verdict = \"drop\" }\n",
        );
        let text = "case = [{ name = \"a\" }]\n";
        check(text, json!({ "verdict": "drop" }), "case = [{ name = \"a\", expect = { verdict = \"drop\" } }]\n");
    }

    #[test]
    fn what_toml_cannot_say_is_refused() {
        assert_eq!(rendered(&json!([1, null])).expect_err("refused").to_string(), "TOML has no null");
        assert!(rendered(&json!(u64::MAX)).expect_err("refused").to_string().contains("18446744073709551615"));
    }
}
