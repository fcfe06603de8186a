//! A schema reduced to what matters for reading, always in the same words, and its fingerprint.

use super::{Id, Kind, Schema};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// Avro's Parsing Canonical Form (<https://avro.apache.org/docs/1.12.0/specification/#parsing-canonical-form-for-schemas>).
pub(super) fn form(schema: &Schema) -> String {
    let mut form = String::new();
    put(&mut form, schema, schema.root, &mut BTreeSet::new());
    form
}

/// Names are letters, digits, dots and `_`, so that nothing has to be escaped.
fn put(form: &mut String, schema: &Schema, id: Id, defined: &mut BTreeSet<Id>) {
    let kind = &schema.get(id).kind;
    let is_named = matches!(kind, Kind::Record { .. } | Kind::Enum { .. } | Kind::Fixed { .. });
    if is_named && !defined.insert(id) {
        put_name(form, kind.name());
        return;
    }
    match kind {
        Kind::Record { name, fields } => {
            form.push_str("{\"name\":");
            put_name(form, name);
            form.push_str(",\"type\":\"record\",\"fields\":[");
            for (n, field) in fields.iter().enumerate() {
                form.push_str(if n > 0 { ",{\"name\":" } else { "{\"name\":" });
                put_name(form, &field.name);
                form.push_str(",\"type\":");
                put(form, schema, field.of, defined);
                form.push('}');
            }
            form.push_str("]}");
        }
        Kind::Enum { name, symbols } => {
            let symbols: Vec<_> = symbols.iter().map(|symbol| format!("\"{symbol}\"")).collect();
            let symbols = symbols.join(",");
            put_text(form, format_args!("{{\"name\":\"{name}\",\"type\":\"enum\",\"symbols\":[{symbols}]}}"));
        }
        Kind::Fixed { name, size } => {
            put_text(form, format_args!("{{\"name\":\"{name}\",\"type\":\"fixed\",\"size\":{size}}}"));
        }
        Kind::Array(items) => {
            form.push_str("{\"type\":\"array\",\"items\":");
            put(form, schema, *items, defined);
            form.push('}');
        }
        Kind::Map(values) => {
            form.push_str("{\"type\":\"map\",\"values\":");
            put(form, schema, *values, defined);
            form.push('}');
        }
        Kind::Union(branches) => {
            for (n, branch) in branches.iter().enumerate() {
                form.push(if n > 0 { ',' } else { '[' });
                put(form, schema, *branch, defined);
            }
            form.push(']');
        }
        primitive => put_name(form, primitive.name()),
    }
}

fn put_name(form: &mut String, name: &str) {
    put_text(form, format_args!("\"{name}\""));
}

fn put_text(form: &mut String, text: fmt::Arguments<'_>) {
    form.write_fmt(text).expect("a text takes all");
}

/// CRC-64-AVRO, without a table: it is made once.
pub(super) fn fingerprint(form: &[u8]) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    form.iter().fold(EMPTY, |crc, byte| {
        let mut low = (crc ^ u64::from(*byte)) & 0xff;
        for _ in 0..8 {
            low = (low >> 1) ^ (EMPTY & 0_u64.wrapping_sub(low & 1));
        }
        (crc >> 8) ^ low
    })
}
