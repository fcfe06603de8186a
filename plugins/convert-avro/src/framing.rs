//! What stands before a value and says its schema: nothing, the fingerprint of Avro's single-object encoding, or the id that
//! a schema registry gave it.

use crate::problem::Problem;
use crate::schema::Schema;
use serde::Deserialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Framing {
    #[default]
    None,
    SingleObject,
    Confluent,
}

/// What is written before each value, and asked for in each.
#[derive(Debug)]
pub(crate) struct Frame {
    framing: Framing,
    begins: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(framing: Framing, schema_id: Option<u32>, schema: &Schema) -> Self {
        let begins = match framing {
            Framing::None => Vec::new(),
            Framing::SingleObject => [[0xc3, 0x01].as_slice(), &schema.fingerprint().to_le_bytes()].concat(),
            Framing::Confluent => [[0].as_slice(), &schema_id.unwrap_or_default().to_be_bytes()].concat(),
        };
        Self { framing, begins }
    }

    pub(crate) fn begin(&self) -> Vec<u8> {
        self.begins.clone()
    }

    /// Where the value begins.
    pub(crate) fn take_off(&self, payload: &[u8]) -> Result<usize, Problem> {
        let length = self.begins.len();
        let Some(frame) = payload.get(..length) else {
            return Err(Problem::at(payload.len(), "it ends within its frame"));
        };
        match self.framing {
            // Whatever the id: which schema it stands for, the registry alone knows.
            Framing::Confluent if frame[0] != 0 => Err(Problem::at(0, "it does not begin with a zero and an id")),
            Framing::SingleObject if frame[..2] != self.begins[..2] => {
                Err(Problem::at(0, "it does not begin with c3 01, as a single object does"))
            }
            Framing::SingleObject if frame != self.begins => {
                let found: String = frame[2..].iter().rev().map(|byte| format!("{byte:02x}")).collect();
                Err(Problem::at(2, format!("it is written with another schema, of the fingerprint {found}")))
            }
            _ => Ok(length),
        }
    }
}
