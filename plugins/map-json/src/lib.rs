//! Stock plugin `map-json`: changes the shape of a JSON payload by a list of operations, one after the other.

mod shape;

use quipu_plugin::json::Cast;
use quipu_plugin::prelude::*;
use shape::Separator;
use std::fmt::Display;

/// Most operations of one list.
const OPERATIONS_MAX: usize = 256;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapJson {
    operations: Vec<Operation>,
    #[serde(default)]
    missing: Missing,
}

/// What becomes of an operation on a field that is absent.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Missing {
    /// It does nothing.
    #[default]
    Skip,
    /// The message is rejected.
    Reject,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Operation {
    Rename {
        from: FieldPath,
        to: FieldPath,
    },
    Copy {
        from: FieldPath,
        to: FieldPath,
    },
    Insert {
        field: FieldPath,
        value: Option<Value>,
        text: Option<Template>,
        #[serde(default)]
        only_if_absent: bool,
    },
    Delete(Vec<FieldPath>),
    Keep(Vec<FieldPath>),
    Cast {
        field: FieldPath,
        to: Cast,
        #[serde(default)]
        on_error: OnError,
    },
    Flatten {
        field: Option<FieldPath>,
        #[serde(default)]
        separator: Separator,
        #[serde(default)]
        arrays: bool,
    },
    Unflatten {
        field: Option<FieldPath>,
        #[serde(default)]
        separator: Separator,
    },
    Each {
        field: FieldPath,
        operations: Vec<Operation>,
    },
}

/// What becomes of a value that cannot be cast.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnError {
    #[default]
    Reject,
    Keep,
    Null,
    Delete,
}

impl Plugin for MapJson {
    fn check(&self) -> Result<(), String> {
        check("operations", &self.operations)
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let mut payload = message.json()?;
        Job { message, missing: self.missing }.run("operations", &self.operations, &mut payload)?;
        message.set_json(&payload)?;
        Ok(forward())
    }
}
plugin!(MapJson);

fn check(path: &str, operations: &[Operation]) -> Result<(), String> {
    let count = operations.len();
    if !(1..=OPERATIONS_MAX).contains(&count) {
        return Err(format!("{path}: {count} operations, expected 1 to {OPERATIONS_MAX}"));
    }
    for (n, operation) in operations.iter().enumerate() {
        let path = format!("{path}[{n}].{}", operation.name());
        match operation {
            Operation::Insert { value, text, .. } if value.is_some() == text.is_some() => {
                return Err(format!("{path}: one of value, text is required, and not both"));
            }
            Operation::Delete(fields) | Operation::Keep(fields) if fields.is_empty() => {
                return Err(format!("{path}: names no field"));
            }
            Operation::Each { operations, .. } => check(&format!("{path}.operations"), operations)?,
            _ => {}
        }
    }
    Ok(())
}

impl Operation {
    /// As in the configuration.
    fn name(&self) -> &'static str {
        match self {
            Self::Rename { .. } => "rename",
            Self::Copy { .. } => "copy",
            Self::Insert { .. } => "insert",
            Self::Delete(_) => "delete",
            Self::Keep(_) => "keep",
            Self::Cast { .. } => "cast",
            Self::Flatten { .. } => "flatten",
            Self::Unflatten { .. } => "unflatten",
            Self::Each { .. } => "each",
        }
    }
}

/// What all operations on one message have in common.
struct Job<'a> {
    message: &'a Message,
    missing: Missing,
}

impl Job<'_> {
    /// Does all, in order; an error begins with the key of the operation.
    fn run(&self, path: &str, operations: &[Operation], value: &mut Value) -> Result<(), String> {
        for (n, operation) in operations.iter().enumerate() {
            let path = || format!("{path}[{n}].{}", operation.name());
            if let Operation::Each { field, operations } = operation {
                let Some(elements) = self.elements(field, value).map_err(|error| format!("{}: {error}", path()))?
                else {
                    continue;
                };
                let path = format!("{}.operations", path());
                elements.iter_mut().try_for_each(|element| self.run(&path, operations, element))?;
            } else {
                self.apply(operation, value).map_err(|error| format!("{}: {error}", path()))?;
            }
        }
        Ok(())
    }

    fn apply(&self, operation: &Operation, value: &mut Value) -> Result<(), String> {
        match operation {
            Operation::Rename { from, to } => match from.remove(value) {
                Some(field) => to.set(value, field).map_err(text),
                None => self.absent(from),
            },
            Operation::Copy { from, to } => match from.get(value).cloned() {
                Some(field) => to.set(value, field).map_err(text),
                None => self.absent(from),
            },
            Operation::Insert { field, only_if_absent: true, .. } if field.get(value).is_some() => Ok(()),
            Operation::Insert { field, value: given, text: template, .. } => {
                let given = match template {
                    Some(template) => Value::String(template.fill(self.message).map_err(text)?),
                    None => given.clone().unwrap_or_default(),
                };
                field.set(value, given).map_err(text)
            }
            Operation::Delete(fields) => fields.iter().try_for_each(|field| match field.remove(value) {
                Some(_) => Ok(()),
                None => self.absent(field),
            }),
            Operation::Keep(fields) => {
                let missing = fields.iter().find(|field| field.get(value).is_none());
                missing.map_or(Ok(()), |field| self.absent(field))?;
                shape::keep(value, &fields.iter().map(FieldPath::names).collect::<Vec<_>>());
                Ok(())
            }
            Operation::Cast { field, to, on_error } => self.cast(field, *to, *on_error, value),
            Operation::Flatten { field, separator, arrays } => {
                self.at(field.as_ref(), value, |value| shape::flatten(value, separator, *arrays))
            }
            Operation::Unflatten { field, separator } => {
                self.at(field.as_ref(), value, |value| shape::unflatten(value, separator))
            }
            Operation::Each { .. } => unreachable!("`run` has them"),
        }
    }

    fn cast(&self, field: &FieldPath, to: Cast, on_error: OnError, value: &mut Value) -> Result<(), String> {
        let Some(found) = field.get_mut(value) else { return self.absent(field) };
        match (to.apply(found), on_error) {
            (Ok(cast), _) => *found = cast,
            (Err(error), OnError::Reject) => return Err(format!("{field}: {error}")),
            (Err(_), OnError::Keep) => {}
            (Err(_), OnError::Null) => *found = Value::Null,
            (Err(_), OnError::Delete) => _ = field.remove(value),
        }
        Ok(())
    }

    /// Changes a field, or the whole where none is named.
    fn at(
        &self,
        field: Option<&FieldPath>,
        value: &mut Value,
        change: impl FnOnce(&mut Value) -> Result<(), String>,
    ) -> Result<(), String> {
        let Some(field) = field else { return change(value) };
        match field.get_mut(value) {
            Some(found) => change(found).map_err(|error| format!("{field}: {error}")),
            None => self.absent(field),
        }
    }

    fn elements<'v>(&self, field: &FieldPath, value: &'v mut Value) -> Result<Option<&'v mut Vec<Value>>, String> {
        match field.get_mut(value) {
            Some(Value::Array(elements)) => Ok(Some(elements)),
            Some(other) => Err(format!("{field}: {}, not an array", quipu_plugin::json::kind(other))),
            None => self.absent(field).map(|()| None),
        }
    }

    fn absent(&self, field: &FieldPath) -> Result<(), String> {
        match self.missing {
            Missing::Skip => Ok(()),
            Missing::Reject => Err(format!("{field}: absent")),
        }
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
