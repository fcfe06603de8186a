//! Operations on the shape of a whole value: keep, flatten, unflatten.

use quipu_plugin::json::kind;
use quipu_plugin::prelude::{Deserialize, Value};
use quipu_plugin::serde_json::Map;

/// Most bytes of the names that one `flatten` makes: a long name on the way stands in each of those below it.
const NAMES_BYTES_MAX: usize = 4 << 20;
/// Most levels that one name makes in `unflatten`.
const LEVELS_MAX: usize = 64;

/// What stands between the names of a flat name.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Separator(String);

impl Default for Separator {
    fn default() -> Self {
        Self(".".into())
    }
}

impl TryFrom<String> for Separator {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.is_empty() { Err("an empty text separates nothing") } else { Ok(Self(text)) }
    }
}

/// Takes out all that is neither on the way to one of these fields nor below one.
pub(crate) fn keep(value: &mut Value, fields: &[&[String]]) {
    let stays = |name: &str, child: &mut Value| {
        let below: Vec<_> = fields.iter().filter(|names| names[0] == name).map(|names| &names[1..]).collect();
        if below.iter().any(|names| names.is_empty()) {
            return true;
        }
        let is_on_the_way = !below.is_empty() && matches!(child, Value::Object(_) | Value::Array(_));
        if is_on_the_way {
            keep(child, &below);
        }
        is_on_the_way
    };
    match value {
        Value::Object(map) => map.retain(|name, child| stays(name, child)),
        Value::Array(elements) => {
            let mut indices = 0_usize..;
            elements.retain_mut(|child| indices.next().is_some_and(|index| stays(&index.to_string(), child)));
        }
        _ => {}
    }
}

/// One level of names out of many. Empty objects and arrays stay.
pub(crate) fn flatten(value: &mut Value, separator: &Separator, arrays: bool) -> Result<(), String> {
    let mut flat = Flat { names: Map::new(), bytes: 0, separator: &separator.0, arrays };
    match value.take() {
        Value::Object(map) => flat.add_all("", map)?,
        Value::Array(elements) if arrays => flat.add_all("", numbered(elements))?,
        other => return Err(format!("{}, not an object", kind(&other))),
    }
    *value = Value::Object(flat.names);
    Ok(())
}

fn numbered(elements: Vec<Value>) -> impl Iterator<Item = (String, Value)> {
    elements.into_iter().enumerate().map(|(index, element)| (index.to_string(), element))
}

struct Flat<'a> {
    names: Map<String, Value>,
    bytes: usize,
    separator: &'a str,
    arrays: bool,
}

impl Flat<'_> {
    fn add_all(&mut self, above: &str, children: impl IntoIterator<Item = (String, Value)>) -> Result<(), String> {
        children.into_iter().try_for_each(|(name, child)| {
            let name = if above.is_empty() { name } else { format!("{above}{}{name}", self.separator) };
            self.add(name, child)
        })
    }

    /// No deeper than the payload, which has 127 levels at most.
    fn add(&mut self, name: String, value: Value) -> Result<(), String> {
        self.bytes += name.len();
        if self.bytes > NAMES_BYTES_MAX {
            return Err(format!("the flat names take more than {} MiB", NAMES_BYTES_MAX >> 20));
        }
        match value {
            Value::Object(map) if !map.is_empty() => self.add_all(&name, map),
            Value::Array(elements) if self.arrays && !elements.is_empty() => self.add_all(&name, numbered(elements)),
            single if !self.names.contains_key(&name) => {
                self.names.insert(name, single);
                Ok(())
            }
            _ => Err(format!("two fields become {name:?}")),
        }
    }
}

/// Levels out of flat names: the reverse of `flatten` for objects. Names that are no flat ones stay.
pub(crate) fn unflatten(value: &mut Value, separator: &Separator) -> Result<(), String> {
    let Value::Object(flat) = value.take() else { return Err("not an object".into()) };
    let mut root = Map::new();
    for (name, child) in flat {
        let levels = name.split(&separator.0);
        if levels.clone().any(str::is_empty) {
            insert(&mut root, [name.as_str()], child, &name)?;
        } else if levels.clone().nth(LEVELS_MAX).is_some() {
            return Err(format!("a name has more than {LEVELS_MAX} levels"));
        } else {
            insert(&mut root, levels, child, &name)?;
        }
    }
    *value = Value::Object(root);
    Ok(())
}

fn insert<'a>(
    root: &mut Map<String, Value>,
    levels: impl IntoIterator<Item = &'a str>,
    child: Value,
    name: &str,
) -> Result<(), String> {
    let clash = || format!("{name:?} stands where another field does");
    let mut levels = levels.into_iter().peekable();
    let mut here = root;
    while let Some(level) = levels.next() {
        if levels.peek().is_none() {
            return match here.insert(level.to_owned(), child) {
                None => Ok(()),
                Some(_) => Err(clash()),
            };
        }
        let below = here.entry(level).or_insert_with(|| Value::Object(Map::new()));
        here = below.as_object_mut().ok_or_else(clash)?;
    }
    Ok(())
}
