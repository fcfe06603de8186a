//! Conditions: the CEL expressions that say which messages a route is for.
//!
//! A condition may come from afar, so it is held to what ends soon: 4 KiB of text, 32 levels, no comprehensions and no
//! regular expressions.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::{Expression, Parser};
use cel::{Context, Env, Value};
use quipu_protocol::Message;

/// Longest source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 4 << 10;
/// Deepest nesting.
pub const DEPTH_MAX: u16 = 32;

/// What an expression may speak of.
const VARIABLES: [&str; 12] = [
    "attempt",
    "headers",
    "hops",
    "id",
    "json",
    "key",
    "origin_subject",
    "payload_size",
    "priority",
    "published_ms",
    "reply_to",
    "subject",
];

/// A checked expression over `subject`, `headers["name"]` (names in lower case), `key`, `json` (the payload) and the
/// message's other properties.
#[derive(Clone)]
pub struct Condition {
    source: Arc<str>,
    expression: Arc<Expression>,
    used: Vec<&'static str>,
    env: Arc<Env>,
}

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Too much of it.
    #[error("the expression has {0} bytes; at most {SOURCE_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// No CEL.
    #[error("no valid CEL expression: {0}")]
    Syntax(String),
    /// Something that might not end soon.
    #[error("{0} is not allowed: conditions must end in bounded time")]
    Unbounded(String),
    /// A name that stands for nothing.
    #[error("unknown variable `{0}`; there are {list}", list = VARIABLES.join(", "))]
    Variable(String),
}

impl Condition {
    /// Checks and takes an expression.
    ///
    /// # Errors
    ///
    /// [`ConditionError`] says what is wrong with the text.
    pub fn new(source: &str) -> Result<Self, ConditionError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(ConditionError::TooLong(source.len()));
        }
        let parser = Parser::default().max_recursion_depth(DEPTH_MAX);
        let syntax = |e: cel::ParseErrors| ConditionError::Syntax(e.to_string().replace('\n', "; "));
        let expression = parser.parse(source).map_err(syntax)?;
        bounded(&expression.expr, 0)?;
        let references = expression.references();
        let named: HashSet<&str> = references.variables().into_iter().collect();
        if let Some(unknown) = named.iter().find(|name| !VARIABLES.contains(name)) {
            return Err(ConditionError::Variable((*unknown).to_owned()));
        }
        let used = VARIABLES.into_iter().filter(|name| named.contains(name)).collect();
        Ok(Self { source: source.into(), expression: Arc::new(expression), used, env: Arc::new(Env::stdlib()) })
    }

    /// The text it was made of.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the message is meant.
    ///
    /// # Errors
    ///
    /// A text, where the expression cannot be evaluated on this message, or gives no boolean.
    pub fn matches(&self, message: &Message, attempt: u32) -> Result<bool, String> {
        let mut context = Context::with_env(self.env.clone());
        for name in &self.used {
            context.add_variable_from_value(*name, variable(name, message, attempt)?);
        }
        match context.resolve(&self.expression) {
            Ok(Value::Bool(matches)) => Ok(matches),
            Ok(other) => Err(format!("the condition is {}, not a boolean", other.type_of())),
            Err(e) => Err(e.to_string()),
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

fn variable(name: &str, message: &Message, attempt: u32) -> Result<Value, String> {
    let text = |text: &str| Value::String(Arc::new(text.to_owned()));
    let whole = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    Ok(match name {
        "attempt" => whole(attempt.into()),
        "headers" => {
            let mut headers: HashMap<String, Value> = HashMap::with_capacity(message.headers.len());
            for (name, value) in message.headers.iter() {
                // The first value of a name, as plugins see it.
                headers.entry(name.to_ascii_lowercase()).or_insert_with(|| text(value));
            }
            headers.into()
        }
        "hops" => whole(message.hops.into()),
        "id" => text(message.id.as_str()),
        "json" => {
            let json: serde_json::Value =
                serde_json::from_slice(&message.payload).map_err(|e| format!("`json`: the payload is no JSON: {e}"))?;
            cel::to_value(json).map_err(|e| format!("`json`: {e}"))?
        }
        "key" => message.key.as_ref().map_or(Value::Null, |key| text(&String::from_utf8_lossy(key.as_bytes()))),
        "origin_subject" => text(message.origin_subject.as_str()),
        "payload_size" => whole(message.payload.len() as u64),
        "priority" => whole(message.priority.into()),
        "published_ms" => whole(message.published_ms),
        "reply_to" => message.reply_to.as_ref().map_or(Value::Null, |subject| text(subject.as_str())),
        _ => text(message.subject.as_str()),
    })
}

/// Refuses what may take long, and nesting beyond the limit that the parser's own count lets through.
fn bounded(expr: &Expr, depth: u16) -> Result<(), ConditionError> {
    if depth > DEPTH_MAX {
        return Err(ConditionError::Unbounded(format!("nesting deeper than {DEPTH_MAX}")));
    }
    let mut inner: Vec<&Expr> = Vec::new();
    match expr {
        Expr::Comprehension(_) => {
            return Err(ConditionError::Unbounded("a comprehension (`all`, `exists`, `map`, `filter`)".into()));
        }
        Expr::Call(call) => {
            if call.func_name == "matches" {
                return Err(ConditionError::Unbounded("a regular expression (`matches`)".into()));
            }
            inner.extend(call.target.iter().map(|target| &target.expr));
            inner.extend(call.args.iter().map(|arg| &arg.expr));
        }
        Expr::List(list) => inner.extend(list.elements.iter().map(|element| &element.expr)),
        Expr::Map(map) => map.entries.iter().for_each(|entry| inner.extend(entry_exprs(&entry.expr))),
        Expr::Struct(made) => made.entries.iter().for_each(|entry| inner.extend(entry_exprs(&entry.expr))),
        Expr::Select(select) => inner.push(&select.operand.expr),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
    inner.into_iter().try_for_each(|expr| bounded(expr, depth + 1))
}

fn entry_exprs(entry: &EntryExpr) -> Vec<&Expr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value.expr],
        EntryExpr::MapEntry(entry) => vec![&entry.key.expr, &entry.value.expr],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_protocol::{MessageId, Subject};

    fn check(source: &str, expect: &str) {
        let id = MessageId::new("m7").expect("an id");
        let payload = r#"{"properties":{"mag":4.6,"net":"us"},"n":[1,2]}"#;
        let mut message = Message::new(id, Subject::new("quakes.raw").expect("a subject"), payload);
        message.headers.add("Type", "earthquake").expect("a header");
        let text = match Condition::new(source) {
            Ok(condition) => condition.matches(&message, 2).map_or_else(|e| format!("error: {e}"), |b| b.to_string()),
            Err(e) => format!("refused: {e}"),
        };
        assert!(text.starts_with(expect), "{source}: {text}");
    }

    #[test]
    fn says_what_a_message_is_like() {
        check(r#"headers["type"] == "earthquake""#, "true");
        check(r#"headers["type"] != "earthquake" || attempt > 1"#, "true");
        check(r#"subject.startsWith("quakes.") && payload_size < 10"#, "false");
        check(r#"json.properties.mag >= 4.5 && json.n[1] == 2"#, "true");
        check(r#""region" in headers"#, "false");
        check("key == null", "true");
    }

    #[test]
    fn what_cannot_be_evaluated_is_an_error() {
        check(r#"headers["region"] == "x""#, "error: No such key: region");
        check("payload_size", "error: the condition is");
        check("json.properties.depth > 1", "error: No such key: depth");
    }

    #[test]
    fn what_is_not_bounded_is_refused() {
        check("[1, 2].all(x, x > 0)", "refused: a comprehension");
        check(r#"subject.matches("a+")"#, "refused: a regular expression");
        check("nonsense > 1", "refused: unknown variable `nonsense`; there are attempt, headers");
        check("1 +", "refused: no valid CEL expression");
        check(&"a".repeat(5000), "refused: the expression has 5000 bytes");
        check(&format!("{}true{}", "(".repeat(200), ")".repeat(200)), "refused:");
        check(&vec!["1"; 1000].join("+"), "refused:");
    }
}
