//! MessagePack to JSON. Every error says the byte it is at.

use crate::Binary;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use quipu_plugin::json::DEPTH_MAX;
use quipu_plugin::prelude::{Value, json};
use quipu_plugin::serde_json::{Map, Number};
use rmp::Marker;

pub(crate) fn unpack(payload: &[u8], binary: Binary) -> Result<Value, String> {
    let mut reader = Reader { payload, at: 0, binary };
    let value = reader.value(0)?;
    if reader.at < payload.len() {
        return Err(reader.problem(reader.at, "it goes on after its value"));
    }
    Ok(value)
}

struct Reader<'p> {
    payload: &'p [u8],
    at: usize,
    binary: Binary,
}

impl<'p> Reader<'p> {
    fn value(&mut self, depth: usize) -> Result<Value, String> {
        let start = self.at;
        if depth > DEPTH_MAX {
            return Err(self.problem(start, &format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(match Marker::from_u8(self.byte()?) {
            Marker::Null => Value::Null,
            Marker::False => false.into(),
            Marker::True => true.into(),
            Marker::FixPos(number) => number.into(),
            Marker::FixNeg(number) => number.into(),
            Marker::U8 => u8::from_be_bytes(self.array()?).into(),
            Marker::U16 => u16::from_be_bytes(self.array()?).into(),
            Marker::U32 => u32::from_be_bytes(self.array()?).into(),
            Marker::U64 => u64::from_be_bytes(self.array()?).into(),
            Marker::I8 => i8::from_be_bytes(self.array()?).into(),
            Marker::I16 => i16::from_be_bytes(self.array()?).into(),
            Marker::I32 => i32::from_be_bytes(self.array()?).into(),
            Marker::I64 => i64::from_be_bytes(self.array()?).into(),
            Marker::F32 => {
                let float = f32::from_be_bytes(self.array()?);
                self.float(start, float.into())?
            }
            Marker::F64 => {
                let float = f64::from_be_bytes(self.array()?);
                self.float(start, float)?
            }
            marker => self.sized(start, marker, depth)?,
        })
    }

    /// What has a length.
    fn sized(&mut self, start: usize, marker: Marker, depth: usize) -> Result<Value, String> {
        match marker {
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                let length = self.length(marker)?;
                let text = str::from_utf8(self.take(length)?);
                text.map(Into::into).map_err(|_| self.problem(start, "text that is not UTF-8"))
            }
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let length = self.length(marker)?;
                let bytes = self.take(length)?;
                self.bytes(start, bytes)
            }
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
                let length = self.length(marker)?;
                // Not made for a length that the payload may not keep.
                let mut elements = Vec::new();
                for _ in 0..length {
                    elements.push(self.value(depth + 1)?);
                }
                Ok(elements.into())
            }
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                let length = self.length(marker)?;
                self.object(length, depth)
            }
            Marker::Reserved => Err(self.problem(start, "no value begins with 0xc1")),
            _ => {
                let length = self.length(marker)?;
                let kind = i8::from_be_bytes(self.array()?);
                let data = self.take(length)?;
                Ok(json!({ "ext": kind, "data": self.bytes(start, data)? }))
            }
        }
    }

    fn object(&mut self, length: usize, depth: usize) -> Result<Value, String> {
        let mut object = Map::new();
        for _ in 0..length {
            let start = self.at;
            let name = match self.value(depth + 1)? {
                Value::String(name) => name,
                number @ (Value::Number(_) | Value::Bool(_)) => number.to_string(),
                _ => return Err(self.problem(start, "a name that is neither text, number nor boolean")),
            };
            if object.contains_key(&name) {
                return Err(self.problem(start, &format!("the name {name:?} for the second time")));
            }
            let value = self.value(depth + 1)?;
            object.insert(name, value);
        }
        Ok(object.into())
    }

    /// The length that a marker has in itself, or in the bytes behind it.
    fn length(&mut self, marker: Marker) -> Result<usize, String> {
        Ok(match marker {
            Marker::FixStr(length) | Marker::FixArray(length) | Marker::FixMap(length) => length.into(),
            Marker::FixExt1 => 1,
            Marker::FixExt2 => 2,
            Marker::FixExt4 => 4,
            Marker::FixExt8 => 8,
            Marker::FixExt16 => 16,
            Marker::Str8 | Marker::Bin8 | Marker::Ext8 => self.byte()?.into(),
            Marker::Str16 | Marker::Bin16 | Marker::Ext16 | Marker::Array16 | Marker::Map16 => {
                u16::from_be_bytes(self.array()?).into()
            }
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn float(&self, start: usize, float: f64) -> Result<Value, String> {
        let number = Number::from_f64(float).map(Value::Number);
        number.ok_or_else(|| self.problem(start, &format!("{float}, which JSON cannot say")))
    }

    fn bytes(&self, start: usize, bytes: &[u8]) -> Result<Value, String> {
        match self.binary {
            Binary::Base64 => Ok(BASE64.encode(bytes).into()),
            Binary::Reject => Err(self.problem(start, "bytes, which JSON cannot say (binary = \"base64\" would)")),
        }
    }

    fn byte(&mut self) -> Result<u8, String> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many as asked for"))
    }

    fn take(&mut self, length: usize) -> Result<&'p [u8], String> {
        let rest = &self.payload[self.at..];
        let Some(bytes) = rest.get(..length) else {
            return Err(self.problem(self.payload.len(), "it ends within a value"));
        };
        self.at += length;
        Ok(bytes)
    }

    fn problem(&self, at: usize, problem: &str) -> String {
        format!("byte {at} of the payload: {problem}")
    }
}
