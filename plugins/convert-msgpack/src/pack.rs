//! JSON to MessagePack, each value in its shortest form.

use quipu_plugin::prelude::Value;
use rmp::encode as write;
use std::io;

/// Why a value cannot be packed: a text, list or object past what a length can say.
type Packed = Result<(), write::ValueWriteError<io::Error>>;

pub(crate) fn pack(value: &Value) -> Result<Vec<u8>, String> {
    let mut packed = Vec::new();
    put(&mut packed, value).map_err(|error| error.to_string())?;
    Ok(packed)
}

fn put(packed: &mut Vec<u8>, value: &Value) -> Packed {
    match value {
        Value::Null => write::write_nil(packed).map_err(write::ValueWriteError::InvalidMarkerWrite)?,
        Value::Bool(boolean) => {
            write::write_bool(packed, *boolean).map_err(write::ValueWriteError::InvalidMarkerWrite)?;
        }
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(unsigned), ..) => _ = write::write_uint(packed, unsigned)?,
            (None, Some(signed), _) => _ = write::write_sint(packed, signed)?,
            (None, None, float) => write::write_f64(packed, float.unwrap_or_default())?,
        },
        Value::String(text) => write::write_str(packed, text)?,
        Value::Array(elements) => {
            write::write_array_len(packed, length(elements.len()))?;
            elements.iter().try_for_each(|element| put(packed, element))?;
        }
        Value::Object(entries) => {
            write::write_map_len(packed, length(entries.len()))?;
            for (name, value) in entries {
                write::write_str(packed, name)?;
                put(packed, value)?;
            }
        }
    }
    Ok(())
}

/// A payload has fewer elements than bytes, and is far below 4 GiB.
fn length(length: usize) -> u32 {
    u32::try_from(length).expect("no payload is that large")
}
