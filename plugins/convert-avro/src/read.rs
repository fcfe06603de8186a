//! Avro to JSON. Nothing is made for a length before its bytes are there.

use crate::Style;
use crate::logical::{Logical, decimal_text};
use crate::problem::Problem;
use crate::schema::{Id, Kind, Schema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use quipu_plugin::json::DEPTH_MAX;
use quipu_plugin::prelude::Value;
use quipu_plugin::serde_json::{Map, Number};

/// Elements that take no byte, such as those of an array of null, that one payload may have.
const EMPTY_ELEMENTS_MAX: usize = 10_000;

/// The one value of a payload, from this byte on.
pub(crate) fn read(schema: &Schema, payload: &[u8], at: usize, style: Style) -> Result<Value, Problem> {
    let mut reader = Reader { schema, payload, at, style, empty_elements: 0 };
    let value = reader.value(schema.root(), 0)?;
    if reader.at < payload.len() {
        return Err(Problem::at(reader.at, "it goes on after its value"));
    }
    Ok(value)
}

struct Reader<'p> {
    schema: &'p Schema,
    payload: &'p [u8],
    at: usize,
    style: Style,
    empty_elements: usize,
}

type Read<T = Value> = Result<T, Problem>;

impl<'p> Reader<'p> {
    fn value(&mut self, id: Id, depth: usize) -> Read {
        let (schema, start) = (self.schema, self.at);
        let of = schema.get(id);
        // Only what nests JSON counts, and only that can be in itself.
        if depth > DEPTH_MAX {
            return Err(Problem::at(start, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let logical = of.logical.filter(|_| self.style == Style::Plain);
        Ok(match &of.kind {
            Kind::Null => Value::Null,
            Kind::Boolean => match self.byte()? {
                0 => false.into(),
                1 => true.into(),
                other => return Err(Problem::at(start, format!("a boolean of {other}"))),
            },
            Kind::Int => {
                let number = i32::try_from(self.long()?).map_err(|_| Problem::at(start, "an int beyond 32 bits"))?;
                time(logical, number.into())
            }
            Kind::Long => time(logical, self.long()?),
            Kind::Float => {
                let float = f32::from_le_bytes(self.array()?);
                // By way of its shortest text: 4.6 stays 4.6.
                self.float(start, float.to_string().parse().unwrap_or_else(|_| f64::from(float)))?
            }
            Kind::Double => {
                let float = f64::from_le_bytes(self.array()?);
                self.float(start, float)?
            }
            Kind::Bytes => {
                let length = self.length("bytes")?;
                let bytes = self.take(length)?;
                self.bytes(start, bytes, logical)?
            }
            Kind::Fixed { size, .. } => {
                let bytes = self.take(*size)?;
                self.bytes(start, bytes, logical)?
            }
            Kind::String => self.text()?.into(),
            Kind::Enum { symbols, name } => {
                let index = self.long()?;
                let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
                symbol
                    .map(String::as_str)
                    .ok_or_else(|| Problem::at(start, format!("{name} has no symbol {index}")))?
                    .into()
            }
            Kind::Record { fields, .. } => {
                let mut object = Map::new();
                for field in fields {
                    let value = self.value(field.of, depth + 1).map_err(|problem| problem.within(&field.name))?;
                    object.insert(field.name.clone(), value);
                }
                object.into()
            }
            Kind::Array(items) => self.elements(*items, depth)?,
            Kind::Map(values) => self.entries(*values, depth)?,
            Kind::Union(branches) => self.branch(branches, depth)?,
        })
    }

    fn branch(&mut self, branches: &[Id], depth: usize) -> Read {
        let start = self.at;
        let index = self.long()?;
        let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
        let branch = *branch.ok_or_else(|| Problem::at(start, format!("the union has no type {index}")))?;
        let kind = &self.schema.get(branch).kind;
        if self.style == Style::Plain || matches!(kind, Kind::Null) {
            return self.value(branch, depth);
        }
        let mut tagged = Map::new();
        tagged.insert(kind.name().into(), self.value(branch, depth + 1)?);
        Ok(tagged.into())
    }

    fn elements(&mut self, items: Id, depth: usize) -> Read {
        let mut elements = Vec::new();
        loop {
            let count = self.block()?;
            if count == 0 {
                return Ok(elements.into());
            }
            for _ in 0..count {
                let start = self.at;
                let element = self.value(items, depth + 1).map_err(|problem| problem.within(elements.len()))?;
                self.count_empty(start)?;
                elements.push(element);
            }
        }
    }

    fn entries(&mut self, values: Id, depth: usize) -> Read {
        let mut entries = Map::new();
        loop {
            let count = self.block()?;
            if count == 0 {
                return Ok(entries.into());
            }
            for _ in 0..count {
                let start = self.at;
                let name = self.text()?;
                if entries.contains_key(name) {
                    return Err(Problem::at(start, format!("the name {name:?} for the second time")));
                }
                let value = self.value(values, depth + 1).map_err(|problem| problem.within(name))?;
                entries.insert(name.to_owned(), value);
            }
        }
    }

    /// How many elements the next block has. Its size in bytes, which some writers say, is for those who skip it.
    fn block(&mut self) -> Read<u64> {
        let count = self.long()?;
        if count < 0 {
            self.long()?;
        }
        Ok(count.unsigned_abs())
    }

    /// A count that no byte stands behind would be a loop of its length.
    fn count_empty(&mut self, start: usize) -> Read<()> {
        self.empty_elements += usize::from(self.at == start);
        if self.empty_elements > EMPTY_ELEMENTS_MAX {
            return Err(Problem::at(start, format!("more than {EMPTY_ELEMENTS_MAX} elements without bytes")));
        }
        Ok(())
    }

    fn bytes(&self, start: usize, bytes: &[u8], logical: Option<Logical>) -> Read {
        if let Some(Logical::Decimal { scale, .. }) = logical {
            let text = decimal_text(bytes, scale);
            return text.map(Value::from).ok_or_else(|| Problem::at(start, "a decimal beyond 128 bits"));
        }
        Ok(match self.style {
            Style::Plain => BASE64.encode(bytes).into(),
            Style::Avro => bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
        })
    }

    fn float(&self, start: usize, float: f64) -> Read {
        let number = Number::from_f64(float).map(Value::Number);
        number.ok_or_else(|| Problem::at(start, format!("{float}, which JSON cannot say")))
    }

    fn text(&mut self) -> Read<&'p str> {
        let start = self.at;
        let length = self.length("text")?;
        str::from_utf8(self.take(length)?).map_err(|_| Problem::at(start, "text that is not UTF-8"))
    }

    fn length(&mut self, what: &str) -> Read<usize> {
        let start = self.at;
        let length = self.long()?;
        if length < 0 {
            return Err(Problem::at(start, format!("{what} of length {length}")));
        }
        // Past what an address can say is past the payload as well.
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A zigzag number in groups of seven bits, the lowest first.
    fn long(&mut self) -> Read<i64> {
        let start = self.at;
        let mut zigzag = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            // Of the tenth byte one bit is left.
            if shift == 63 && byte > 1 {
                break;
            }
            zigzag |= group << shift;
            if byte < 0x80 {
                return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        Err(Problem::at(start, "a number beyond 64 bits"))
    }

    fn byte(&mut self) -> Read<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many as asked for"))
    }

    fn take(&mut self, length: usize) -> Read<&'p [u8]> {
        let rest = &self.payload[self.at..];
        let Some(bytes) = rest.get(..length) else {
            return Err(Problem::at(self.payload.len(), "it ends within a value"));
        };
        self.at += length;
        Ok(bytes)
    }
}

/// A number, or the date or time that it stands for.
fn time(logical: Option<Logical>, number: i64) -> Value {
    logical.and_then(|logical| logical.time_text(number)).map_or_else(|| number.into(), Value::from)
}
