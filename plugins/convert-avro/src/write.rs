//! JSON to Avro.

use crate::logical::{Logical, decimal_bytes};
use crate::problem::Problem;
use crate::schema::{Field, Id, Kind, Schema};
use crate::{Style, Unknown};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use quipu_plugin::json::{DEPTH_MAX, kind as found};
use quipu_plugin::prelude::Value;
use quipu_plugin::serde_json::{Map, Number};

/// Integers of a float are exact up to here: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

pub(crate) fn write(
    schema: &Schema,
    value: &Value,
    style: Style,
    unknown: Unknown,
    written: &mut Vec<u8>,
) -> Result<(), Problem> {
    let plain = style == Style::Plain;
    let form = Form { tagged: !plain, code_points: !plain, logical: plain };
    Writer { schema, form, unknown, written }.value(schema.root(), value, 0)
}

/// Whether each default is a value of its field's type.
pub(crate) fn check_defaults(schema: &Schema) -> Result<(), String> {
    for field in schema.fields() {
        let Some(default) = &field.default else { continue };
        let mut written = Vec::new();
        let mut writer = Writer { schema, form: Form::DEFAULT, unknown: Unknown::Reject, written: &mut written };
        writer.value(field.of, default, 0).map_err(|problem| {
            let path = problem.path();
            let dot = if path.is_empty() { "" } else { "." };
            format!("{}.default{dot}{path}: {}", field.key, problem.text())
        })?;
    }
    Ok(())
}

/// How a value says what JSON has no words for.
#[derive(Clone, Copy)]
struct Form {
    /// Values of unions are named by their type.
    tagged: bool,
    /// Bytes are text of their code points, not base64.
    code_points: bool,
    /// Times and decimals are text.
    logical: bool,
}

impl Form {
    /// That of defaults, as the specification has it.
    const DEFAULT: Self = Self { tagged: false, code_points: true, logical: false };
}

struct Writer<'w> {
    schema: &'w Schema,
    form: Form,
    unknown: Unknown,
    written: &'w mut Vec<u8>,
}

type Written<T = ()> = Result<T, Problem>;

impl Writer<'_> {
    fn value(&mut self, id: Id, value: &Value, depth: usize) -> Written {
        let schema = self.schema;
        let of = schema.get(id);
        // A payload is no deeper, but defaults within defaults may be.
        if depth > DEPTH_MAX {
            return Err(Problem::new(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let logical = of.logical.filter(|_| self.form.logical);
        match (&of.kind, value) {
            (Kind::Null, Value::Null) => {}
            (Kind::Boolean, Value::Bool(boolean)) => self.written.push(u8::from(*boolean)),
            (Kind::Int, value) => self.long(integer(value, logical, "an int")?, i32::MIN.into(), i32::MAX.into())?,
            (Kind::Long, value) => self.long(integer(value, logical, "a long")?, i64::MIN, i64::MAX)?,
            (Kind::Float, Value::Number(number)) => self.float(number)?,
            (Kind::Double, Value::Number(number)) => {
                self.written.extend(number.as_f64().unwrap_or_default().to_le_bytes());
            }
            (Kind::Bytes, value) => {
                let bytes = bytes(value, logical, self.form, None)?;
                self.length(bytes.len());
                self.written.extend(bytes);
            }
            (Kind::Fixed { size, .. }, value) => self.written.extend(bytes(value, logical, self.form, Some(*size))?),
            (Kind::String, Value::String(text)) => self.text(text),
            (Kind::Enum { name, symbols }, Value::String(text)) => {
                let index = symbols.iter().position(|symbol| symbol == text);
                let index = index.ok_or_else(|| Problem::new(format!("{name} has no symbol {text:?}")))?;
                self.length(index);
            }
            (Kind::Record { fields, name }, Value::Object(object)) => self.record(name, fields, object, depth)?,
            (Kind::Array(items), Value::Array(elements)) => {
                if !elements.is_empty() {
                    self.length(elements.len());
                }
                for (n, element) in elements.iter().enumerate() {
                    self.value(*items, element, depth + 1).map_err(|problem| problem.within(n))?;
                }
                self.length(0);
            }
            (Kind::Map(values), Value::Object(entries)) => {
                if !entries.is_empty() {
                    self.length(entries.len());
                }
                for (name, value) in entries {
                    self.text(name);
                    self.value(*values, value, depth + 1).map_err(|problem| problem.within(name))?;
                }
                self.length(0);
            }
            (Kind::Union(branches), value) => self.union(branches, value, depth)?,
            (kind, value) => return Err(Problem::new(format!("{}, expected {}", found(value), expected(kind)))),
        }
        Ok(())
    }

    fn record(&mut self, name: &str, fields: &[Field], object: &Map<String, Value>, depth: usize) -> Written {
        if self.unknown == Unknown::Reject {
            let unknown = object.keys().find(|key| fields.iter().all(|field| field.name != **key));
            if let Some(key) = unknown {
                return Err(Problem::new(format!("{name} has no such field")).within(key));
            }
        }
        for field in fields {
            let done = match (object.get(&field.name), &field.default) {
                (Some(value), _) => self.value(field.of, value, depth + 1),
                (None, Some(default)) => {
                    let form = std::mem::replace(&mut self.form, Form::DEFAULT);
                    let done = self.value(field.of, default, depth + 1);
                    self.form = form;
                    done
                }
                (None, None) => Err(Problem::new("absent")),
            };
            done.map_err(|problem| problem.within(&field.name))?;
        }
        Ok(())
    }

    fn union(&mut self, branches: &[Id], value: &Value, depth: usize) -> Written {
        let schema = self.schema;
        let named = |name: &str| branches.iter().position(|id| schema.get(*id).kind.name() == name);
        if self.form.tagged {
            let (name, inner) = match value {
                Value::Null => ("null", value),
                Value::Object(object) if object.len() == 1 => match object.iter().next() {
                    Some((name, inner)) => (name.as_str(), inner),
                    None => unreachable!("it has one"),
                },
                other => {
                    let problem = format!("{}, expected null or an object of one type and its value", found(other));
                    return Err(Problem::new(problem));
                }
            };
            let index = named(name).ok_or_else(|| Problem::new(format!("the union has no type {name:?}")))?;
            self.length(index);
            return self.value(branches[index], inner, depth + 1);
        }
        // One look at each, and no way back: trying them out would take time by the power of the depth.
        let index = match branches {
            // Where only one can be meant, it says what is wrong.
            [a, b] if !value.is_null() && matches!(schema.get(*a).kind, Kind::Null) => Some((1, b)),
            [a, b] if !value.is_null() && matches!(schema.get(*b).kind, Kind::Null) => Some((0, a)),
            all => all.iter().enumerate().find(|(_, id)| self.fits(**id, value)),
        };
        let Some((index, branch)) = index else {
            let names: Vec<_> = branches.iter().map(|id| schema.get(*id).kind.name()).collect();
            return Err(Problem::new(format!("{} that fits none of {}", found(value), names.join(", "))));
        };
        self.length(index);
        self.value(*branch, value, depth)
    }

    /// Whether a value is of a type, as far as one look tells.
    fn fits(&self, id: Id, value: &Value) -> bool {
        let of = self.schema.get(id);
        let logical = of.logical.filter(|_| self.form.logical);
        match (&of.kind, value) {
            (Kind::Null, Value::Null)
            | (Kind::Boolean, Value::Bool(_))
            | (Kind::Float | Kind::Double, Value::Number(_))
            | (Kind::String, Value::String(_))
            | (Kind::Array(_), Value::Array(_))
            | (Kind::Map(_), Value::Object(_)) => true,
            (Kind::Int, value) => integer(value, logical, "").is_ok_and(|number| i32::try_from(number).is_ok()),
            (Kind::Long, value) => integer(value, logical, "").is_ok(),
            (Kind::Enum { symbols, .. }, Value::String(text)) => symbols.contains(text),
            (Kind::Bytes, value) => bytes(value, logical, self.form, None).is_ok(),
            (Kind::Fixed { size, .. }, value) => bytes(value, logical, self.form, Some(*size)).is_ok(),
            (Kind::Record { fields, .. }, Value::Object(object)) => {
                fields.iter().all(|field| field.default.is_some() || object.contains_key(&field.name))
                    && object.keys().all(|key| fields.iter().any(|field| field.name == *key))
            }
            _ => false,
        }
    }

    fn float(&mut self, number: &Number) -> Written {
        let double = number.as_f64().unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "rounding to 32 bits is what a float is")]
        let float = double as f32;
        if float.is_infinite() {
            return Err(Problem::new(format!("{number} is beyond a float")));
        }
        self.written.extend(float.to_le_bytes());
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.written.extend(text.as_bytes());
    }

    /// Also an index, and how many there are. A payload is far from the limit.
    fn length(&mut self, length: usize) {
        self.put(length as u64 * 2);
    }

    fn long(&mut self, number: i64, min: i64, max: i64) -> Written {
        if !(min..=max).contains(&number) {
            return Err(Problem::new(format!("{number} is beyond an int")));
        }
        self.put(((number << 1) ^ (number >> 63)).cast_unsigned());
        Ok(())
    }

    /// In groups of seven bits, the lowest first.
    fn put(&mut self, mut zigzag: u64) {
        while zigzag >= 0x80 {
            self.written.push((zigzag & 0x7f) as u8 | 0x80);
            zigzag >>= 7;
        }
        self.written.push((zigzag & 0x7f) as u8);
    }
}

fn integer(value: &Value, logical: Option<Logical>, expected: &str) -> Written<i64> {
    match (value, logical) {
        (Value::Number(number), _) => {
            let whole = number.as_i64().or_else(|| {
                let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT_MAX)?;
                #[expect(clippy::cast_possible_truncation, reason = "a whole number that a float has exactly")]
                Some(float as i64)
            });
            whole.ok_or_else(|| Problem::new(format!("{number} is not {expected}")))
        }
        (Value::String(text), Some(logical)) => {
            let form = if logical == Logical::Date { "a date" } else { "a time" };
            logical.time_number(text).ok_or_else(|| Problem::new(format!("{text:?} is not {form} that fits")))
        }
        (other, Some(Logical::Date)) => Err(Problem::new(format!("{}, expected a date", found(other)))),
        (other, Some(_)) => Err(Problem::new(format!("{}, expected a time", found(other)))),
        (other, None) => Err(Problem::new(format!("{}, expected {expected}", found(other)))),
    }
}

fn bytes(value: &Value, logical: Option<Logical>, form: Form, size: Option<usize>) -> Written<Vec<u8>> {
    let bytes = match (value, logical) {
        (Value::String(_) | Value::Number(_), Some(Logical::Decimal { precision, scale })) => {
            let text = match value {
                Value::String(text) => text.clone(),
                number => number.to_string(),
            };
            let bytes = decimal_bytes(&text, precision, scale);
            let bytes = bytes.ok_or_else(|| {
                Problem::new(format!("{text:?} is no decimal of {precision} digits, {scale} of them behind the point"))
            })?;
            size.map_or(Ok(bytes.clone()), |size| widened(&bytes, size))?
        }
        (Value::String(text), _) if form.code_points => {
            let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
            bytes.map_err(|_| Problem::new("text with code points beyond a byte"))?
        }
        (Value::String(text), _) => {
            BASE64.decode(text).map_err(|error| Problem::new(format!("text that is no base64: {error}")))?
        }
        (other, Some(Logical::Decimal { .. })) => {
            return Err(Problem::new(format!("{}, expected a decimal", found(other))));
        }
        (other, _) => return Err(Problem::new(format!("{}, expected bytes as text", found(other)))),
    };
    match size {
        Some(size) if size != bytes.len() => Err(Problem::new(format!("{} bytes, expected {size}", bytes.len()))),
        _ => Ok(bytes),
    }
}

/// A number in more bytes, which its sign fills.
fn widened(bytes: &[u8], size: usize) -> Written<Vec<u8>> {
    let missing = size.checked_sub(bytes.len());
    let missing = missing.ok_or_else(|| Problem::new(format!("a decimal of {} bytes, {size} at most", bytes.len())))?;
    let sign = if bytes.first().is_some_and(|first| *first >= 0x80) { 0xff } else { 0 };
    Ok([vec![sign; missing], bytes.to_vec()].concat())
}

fn expected(kind: &Kind) -> &str {
    match kind {
        Kind::Null => "null",
        Kind::Boolean => "a boolean",
        Kind::Float | Kind::Double => "a number",
        Kind::Array(_) => "an array",
        Kind::Record { .. } | Kind::Map(_) => "an object",
        Kind::Enum { .. } | Kind::String => "text",
        other => other.name(),
    }
}
