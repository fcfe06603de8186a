//! Schemas: read from JSON, with errors that say the key, and their fingerprints.

mod canonical;

use crate::logical::Logical;
use quipu_plugin::json::kind;
use quipu_plugin::prelude::Value;
use quipu_plugin::serde_json::Map;
use std::collections::{BTreeMap, BTreeSet};

/// Most types of one schema, and most of its fields, symbols and branches.
const TYPES_MAX: usize = 10_000;
/// Largest `fixed`, in bytes. No payload is larger.
const FIXED_BYTES_MAX: u64 = 64 << 20;

/// A schema; its types refer to each other by number, since they may do so in circles.
#[derive(Debug)]
pub(crate) struct Schema {
    types: Vec<Type>,
    root: Id,
}

/// The number of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(usize);

#[derive(Debug)]
pub(crate) struct Type {
    pub(crate) kind: Kind,
    pub(crate) logical: Option<Logical>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Record { name: String, fields: Vec<Field> },
    Enum { name: String, symbols: Vec<String> },
    Fixed { name: String, size: usize },
    Array(Id),
    Map(Id),
    Union(Vec<Id>),
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) of: Id,
    pub(crate) default: Option<Value>,
    /// Its key in the configuration.
    pub(crate) key: String,
}

impl Schema {
    pub(crate) fn parse(schema: &Value) -> Result<Self, String> {
        let mut parser = Parser { types: Vec::new(), names: BTreeMap::new() };
        let root = parser.any(schema, "schema", "")?;
        Ok(Self { types: parser.types, root })
    }

    pub(crate) fn root(&self) -> Id {
        self.root
    }

    pub(crate) fn get(&self, id: Id) -> &Type {
        &self.types[id.0]
    }

    /// All fields of all records.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.types.iter().flat_map(|of| match &of.kind {
            Kind::Record { fields, .. } => fields.as_slice(),
            _ => &[],
        })
    }

    /// CRC-64-AVRO of the schema's canonical form (<https://avro.apache.org/docs/1.12.0/specification/#schema-fingerprints>).
    pub(crate) fn fingerprint(&self) -> u64 {
        canonical::fingerprint(canonical::form(self).as_bytes())
    }
}

impl Kind {
    /// What a union calls it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Union(_) => "union",
            Self::Record { name, .. } | Self::Enum { name, .. } | Self::Fixed { name, .. } => name,
        }
    }

    fn primitive(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "string" => Self::String,
            _ => return None,
        })
    }
}

struct Parser {
    types: Vec<Type>,
    names: BTreeMap<String, Id>,
}

type Parsed<T = Id> = Result<T, String>;

impl Parser {
    fn any(&mut self, schema: &Value, key: &str, namespace: &str) -> Parsed {
        match schema {
            Value::String(name) => self.by_name(name, key, namespace),
            Value::Array(branches) => self.union(branches, key, namespace),
            Value::Object(object) => self.object(object, key, namespace),
            other => Err(format!("{key}: {}, expected a schema: a name, an object or a list", kind(other))),
        }
    }

    fn by_name(&mut self, name: &str, key: &str, namespace: &str) -> Parsed {
        if let Some(kind) = Kind::primitive(name) {
            return self.add(kind, None, key);
        }
        let found = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
        found.copied().ok_or_else(|| format!("{key}: there is no type {name:?}"))
    }

    fn union(&mut self, branches: &[Value], key: &str, namespace: &str) -> Parsed {
        let id = self.reserve(key)?;
        let mut ids = Vec::new();
        let mut names = BTreeSet::new();
        for (n, branch) in branches.iter().enumerate() {
            let key = format!("{key}[{n}]");
            let branch = self.any(branch, &key, namespace)?;
            let kind = &self.types[branch.0].kind;
            if matches!(kind, Kind::Union(_)) {
                return Err(format!("{key}: a union within a union"));
            }
            if !names.insert(kind.name().to_owned()) {
                return Err(format!("{key}: the type {:?} for the second time", kind.name()));
            }
            ids.push(branch);
        }
        if ids.is_empty() {
            return Err(format!("{key}: a union of nothing"));
        }
        self.types[id.0].kind = Kind::Union(ids);
        Ok(id)
    }

    fn object(&mut self, object: &Map<String, Value>, key: &str, namespace: &str) -> Parsed {
        let of = object.get("type").ok_or_else(|| format!("{key}.type: missing"))?;
        let Value::String(of) = of else { return self.any(of, &format!("{key}.type"), namespace) };
        match of.as_str() {
            "record" | "error" => self.record(object, key, namespace),
            "enum" => self.enumeration(object, key, namespace),
            "fixed" => self.fixed(object, key, namespace),
            "array" => {
                let id = self.reserve(key)?;
                self.types[id.0].kind = Kind::Array(self.inner(object, "items", key, namespace)?);
                Ok(id)
            }
            "map" => {
                let id = self.reserve(key)?;
                self.types[id.0].kind = Kind::Map(self.inner(object, "values", key, namespace)?);
                Ok(id)
            }
            name => match Kind::primitive(name) {
                Some(kind) => {
                    let logical = Logical::of(&kind, object);
                    self.add(kind, logical, key)
                }
                None => self.by_name(name, &format!("{key}.type"), namespace),
            },
        }
    }

    fn inner(&mut self, object: &Map<String, Value>, name: &str, key: &str, namespace: &str) -> Parsed {
        let inner = object.get(name).ok_or_else(|| format!("{key}.{name}: missing"))?;
        self.any(inner, &format!("{key}.{name}"), namespace)
    }

    fn record(&mut self, object: &Map<String, Value>, key: &str, namespace: &str) -> Parsed {
        let (id, name) = self.define(object, key, namespace)?;
        // What is inside is in the record's namespace.
        let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let listed = list(object, "fields", key)?;
        let mut fields: Vec<Field> = Vec::new();
        let mut names = BTreeSet::new();
        for (n, field) in listed.iter().enumerate() {
            let key = format!("{key}.fields[{n}]");
            let Value::Object(field) = field else {
                return Err(format!("{key}: {}, expected a field: an object", kind(field)));
            };
            let name = checked_name(text(field, "name", &key)?, &format!("{key}.name"))?;
            if !names.insert(name) {
                return Err(format!("{key}.name: {name:?} for the second time"));
            }
            let of = self.inner(field, "type", &key, &namespace)?;
            fields.push(Field { name: name.into(), of, default: field.get("default").cloned(), key });
        }
        self.types[id.0].kind = Kind::Record { name, fields };
        Ok(id)
    }

    fn enumeration(&mut self, object: &Map<String, Value>, key: &str, namespace: &str) -> Parsed {
        let (id, name) = self.define(object, key, namespace)?;
        let mut symbols: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        for (n, symbol) in list(object, "symbols", key)?.iter().enumerate() {
            let key = format!("{key}.symbols[{n}]");
            let Value::String(symbol) = symbol else { return Err(format!("{key}: {}, expected text", kind(symbol))) };
            if !seen.insert(checked_name(symbol, &key)?) {
                return Err(format!("{key}: {symbol:?} for the second time"));
            }
            symbols.push(symbol.clone());
        }
        self.types[id.0].kind = Kind::Enum { name, symbols };
        Ok(id)
    }

    fn fixed(&mut self, object: &Map<String, Value>, key: &str, namespace: &str) -> Parsed {
        let (id, name) = self.define(object, key, namespace)?;
        let size = object.get("size").and_then(Value::as_u64).filter(|size| *size <= FIXED_BYTES_MAX);
        let size = size.and_then(|size| usize::try_from(size).ok());
        let size = size.ok_or_else(|| format!("{key}.size: expected a number of bytes, {FIXED_BYTES_MAX} at most"))?;
        let kind = Kind::Fixed { name, size };
        let logical = Logical::of(&kind, object);
        self.types[id.0] = Type { kind, logical };
        Ok(id)
    }

    /// A named type, which what is inside of it may refer to.
    fn define(&mut self, object: &Map<String, Value>, key: &str, namespace: &str) -> Parsed<(Id, String)> {
        let name = text(object, "name", key)?;
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        full.split('.').try_for_each(|part| checked_name(part, &format!("{key}.name")).map(drop))?;
        if Kind::primitive(&full).is_some() {
            return Err(format!("{key}.name: {full:?} is a type of Avro's own"));
        }
        let placeholder = Kind::Record { name: full.clone(), fields: Vec::new() };
        let id = self.add(placeholder, None, key)?;
        if self.names.insert(full.clone(), id).is_some() {
            return Err(format!("{key}.name: {full:?} for the second time"));
        }
        Ok((id, full))
    }

    /// A place for a type that is not known yet.
    fn reserve(&mut self, key: &str) -> Parsed {
        self.add(Kind::Null, None, key)
    }

    fn add(&mut self, kind: Kind, logical: Option<Logical>, key: &str) -> Parsed {
        if self.types.len() == TYPES_MAX {
            return Err(format!("{key}: the schema has more than {TYPES_MAX} types"));
        }
        self.types.push(Type { kind, logical });
        Ok(Id(self.types.len() - 1))
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') { name.into() } else { format!("{namespace}.{name}") }
}

fn checked_name<'n>(name: &'n str, key: &str) -> Parsed<&'n str> {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(name)
    } else {
        Err(format!("{key}: {name:?}: a name is letters, digits and `_`, and begins with no digit"))
    }
}

fn text<'o>(object: &'o Map<String, Value>, name: &str, key: &str) -> Parsed<&'o str> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("{key}.{name}: {}, expected text", kind(other))),
        None => Err(format!("{key}.{name}: missing")),
    }
}

fn list<'o>(object: &'o Map<String, Value>, name: &str, key: &str) -> Parsed<&'o [Value]> {
    match object.get(name) {
        Some(Value::Array(list)) if list.len() <= TYPES_MAX => Ok(list),
        Some(Value::Array(list)) => Err(format!("{key}.{name}: {} of them, {TYPES_MAX} at most", list.len())),
        Some(other) => Err(format!("{key}.{name}: {}, expected a list", kind(other))),
        None => Err(format!("{key}.{name}: missing")),
    }
}
