//! Exceptions, in the words and lines of the script.

use boa_engine::builtins::error::Error as ErrorObject;
use boa_engine::{Context, JsError, JsValue, js_string};
use std::fmt;

/// What the script is called where the engine names places.
pub(crate) const CODE: &str = "code";
/// What begins the line of a frame.
const AT: &str = "    at ";

/// What was thrown, and where.
#[derive(Debug)]
pub(crate) struct Thrown {
    text: String,
    frames: Vec<Frame>,
}

/// A place in the script, the innermost first.
#[derive(Debug)]
struct Frame {
    function: String,
    line: usize,
    column: usize,
    /// The line of the script.
    source: String,
    /// The engine knows no more than the function: the place is where its body begins.
    is_body: bool,
}

impl Thrown {
    pub(crate) fn new(error: JsError, code: &str, context: &mut Context) -> Self {
        // Below the text, whose own place is that of the caller.
        let mut frames = frames(&error.to_string(), code);
        if frames.is_empty()
            && let Some(thrown) = error.as_opaque().and_then(JsValue::as_object)
            && let Ok(stack) = thrown.get(js_string!("stack"), context)
            && let Some(stack) = stack.as_string()
        {
            // Out of a promise only the error itself knows its place.
            frames = self::frames(&stack.to_std_string_lossy(), code);
        }
        let text = match (error.as_engine(), error.as_native()) {
            (Some(engine), _) => engine.to_string(),
            (None, Some(native)) => format!("{}: {}", native.kind(), native.message()),
            (None, None) => shown(error, context),
        };
        Self { text, frames }
    }

    /// An answer of the script that is none.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), frames: Vec::new() }
    }

    /// With the place as well: it is often all that is shown.
    pub(crate) fn text(&self) -> String {
        let place = self.frames.first().map(|frame| format!(" ({frame})"));
        format!("{}{}", self.text, place.unwrap_or_default())
    }

    /// The frames, each with its line of the script.
    pub(crate) fn trace(&self) -> String {
        let lines = self.frames.iter().map(|frame| format!("at {} ({frame})\n    | {}", frame.function, frame.source));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// As the configuration's error: by key, line and column.
    pub(crate) fn refusal(&self) -> String {
        let place = self.frames.first().map(|Frame { line, column, is_body, .. }| {
            let function = if *is_body { "in the function at " } else { "" };
            format!(" {function}line {line}, column {column}:")
        });
        format!("{CODE}:{} {}", place.unwrap_or_default(), self.text)
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = if self.is_body { "in the function at " } else { "" };
        write!(f, "{function}{CODE}:{}:{}", self.line, self.column)
    }
}

/// What a syntax error says of its place stands at the end of it.
pub(crate) fn unreadable(error: &JsError) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("SyntaxError: ").unwrap_or(&text);
    let place = text.rsplit_once(" at line ").and_then(|(problem, place)| {
        let (line, column) = place.split_once(", col ")?;
        let column: String = column.chars().take_while(char::is_ascii_digit).collect();
        Some(format!("{CODE}: line {line}, column {column}: {problem}"))
    });
    // It has no line where it should have gone on.
    place.unwrap_or_else(|| format!("{CODE}: {}", text.strip_suffix(" (native)").unwrap_or(text)))
}

/// As the language shows it, `TypeError: not a function`; what is no error is named as such.
fn shown(error: JsError, context: &mut Context) -> String {
    let described = error.to_string().lines().next().unwrap_or_default().to_owned();
    let Ok(value) = error.into_opaque(context) else { return described };
    let text = value.to_string(context).map(|text| text.to_std_string_lossy());
    match (value.as_object().is_some_and(|object| object.is::<ErrorObject>()), text) {
        (true, Ok(text)) => text,
        (false, Ok(text)) => format!("thrown: {text}"),
        (_, Err(_)) => format!("thrown: {described}"),
    }
}

fn frames(stack: &str, code: &str) -> Vec<Frame> {
    stack.lines().filter_map(|line| frame(line, code)).collect()
}

/// `    at NAME (code:3:13)`, of the script alone.
fn frame(line: &str, code: &str) -> Option<Frame> {
    let (function, place) = line.strip_prefix(AT)?.strip_suffix(')')?.rsplit_once(" (")?;
    let mut parts = place.strip_prefix(CODE)?.strip_prefix(':')?.split(':');
    let (line, column): (usize, usize) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let source = code.lines().nth(line.checked_sub(1)?)?;
    let is_body = source.chars().nth(column.checked_sub(1)?) == Some('{');
    Some(Frame { function: function.into(), line, column, source: source.trim().into(), is_body })
}
