//! Functions of the language that jaq offers only together with a clock, an environment and an output of their own:
//! regular expressions, formats, numbers, dates and the log, by what the router offers instead.

mod dates;
mod patterns;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jaq_core::data::JustLut;
use jaq_core::native::{Filter, Fun, bome, run, v};
use jaq_core::{Bind, Cv, Error, RunPtr, ValR};
use jaq_json::{Num, Val};
use jaq_std::ValT as _;
use quipu_plugin::prelude::{context, log};

type Data = JustLut<Val>;
type Native = Filter<RunPtr<Data>>;

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = Fun<Data>> {
    [functions(), numbers(), formats()].into_iter().flatten().map(run::<Data>)
}

fn functions() -> Vec<Native> {
    vec![
        ("matches", two(), |cv| bome(patterns::find(cv, patterns::Keep::Matches))),
        ("split_matches", two(), |cv| bome(patterns::find(cv, patterns::Keep::Both))),
        ("split_", two(), |cv| bome(patterns::find(cv, patterns::Keep::Rest))),
        ("now", v(0), |_| bome(Ok(Val::from(seconds(context::now_ms()))))),
        ("todateiso8601", v(0), |cv| {
            bome(number(&cv.1).and_then(|at| dates::to_text(at).map(Val::from).map_err(Error::str)))
        }),
        ("fromdateiso8601", v(0), |cv| bome(utf8(&cv.1).and_then(|at| dates::from_text(at).map_err(Error::str)))),
        ("debug_empty", v(0), |cv| {
            log::debug(cv.1.to_string());
            Box::new(std::iter::empty())
        }),
        ("stderr_empty", v(0), |cv| {
            log::info(cv.1.to_string());
            Box::new(std::iter::empty())
        }),
    ]
}

fn two() -> Box<[Bind]> {
    v(2)
}

/// Those of numbers: of the input alone, or of two arguments.
fn numbers() -> Vec<Native> {
    macro_rules! of_input {
        ($($name:literal => $function:expr),* $(,)?) => {
            vec![$(($name, v(0), |cv| bome(number(&cv.1).map(|x| Val::from($function(x)))))),*]
        };
    }
    macro_rules! of_two {
        ($($name:literal => $function:expr),* $(,)?) => {
            vec![$(($name, v(2), |cv| bome(pair(cv).map(|(x, y)| Val::from($function(x, y)))))),*]
        };
    }
    let mut all: Vec<Native> = of_input! {
        "acos" => f64::acos, "acosh" => f64::acosh, "asin" => f64::asin, "asinh" => f64::asinh,
        "atan" => f64::atan, "atanh" => f64::atanh, "cbrt" => f64::cbrt, "cos" => f64::cos, "cosh" => f64::cosh,
        "exp" => f64::exp, "exp10" => |x: f64| 10_f64.powf(x), "exp2" => f64::exp2, "expm1" => f64::exp_m1,
        "fabs" => f64::abs, "log" => f64::ln, "log10" => f64::log10, "log1p" => f64::ln_1p, "log2" => f64::log2,
        "rint" => f64::round_ties_even, "sin" => f64::sin, "sinh" => f64::sinh, "sqrt" => f64::sqrt,
        "tan" => f64::tan, "tanh" => f64::tanh, "trunc" => f64::trunc,
    };
    all.extend::<Vec<Native>>(of_two! {
        "atan2" => f64::atan2, "copysign" => f64::copysign, "fmax" => f64::max, "fmin" => f64::min,
        "fmod" => |x: f64, y: f64| x % y, "hypot" => f64::hypot, "pow" => f64::powf,
    });
    all
}

fn formats() -> Vec<Native> {
    vec![
        ("@csv", v(0), |cv| bome(row(&cv.1, ",", quote_csv))),
        ("@tsv", v(0), |cv| bome(row(&cv.1, "\t", escape_tsv))),
        ("escape_html", v(0), |cv| bome(utf8(&cv.1).map(|text| Val::from(escape_html(text))))),
        ("unescape_html", v(0), |cv| bome(utf8(&cv.1).map(|text| Val::from(unescape_html(text))))),
        ("encode_uri", v(0), |cv| bome(utf8(&cv.1).map(|text| Val::from(encode_uri(text))))),
        ("decode_uri", v(0), |cv| bome(utf8(&cv.1).map(|text| Val::utf8_str(decode_uri(text))))),
        ("encode_base64", v(0), |cv| bome(utf8(&cv.1).map(|text| Val::from(BASE64.encode(text))))),
        ("decode_base64", v(0), |cv| {
            bome(utf8(&cv.1).and_then(|text| BASE64.decode(text).map(Val::utf8_str).map_err(Error::str)))
        }),
    ]
}

/// The elements of an array in one line.
fn row(value: &Val, separator: &str, quoted: fn(&str) -> String) -> Answer {
    let Val::Arr(elements) = value else { return Err(Error::typ(value.clone(), "array")) };
    let fields = elements.iter().map(|element| match element {
        Val::Null => Ok(String::new()),
        Val::Bool(_) | Val::Num(_) => Ok(element.to_string()),
        Val::TStr(_) => utf8(element).map(quoted),
        Val::BStr(_) | Val::Arr(_) | Val::Obj(_) => Err(Error::typ(element.clone(), "field of a row")),
    });
    Ok(Val::from(fields.collect::<Result<Vec<_>, _>>()?.join(separator)))
}

fn quote_csv(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn escape_tsv(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match HTML.iter().find(|(plain, _)| *plain == c) {
            Some((_, entity)) => escaped.push_str(entity),
            None => escaped.push(c),
        }
    }
    escaped
}

const HTML: [(char, &str); 5] = [('<', "&lt;"), ('>', "&gt;"), ('\'', "&#39;"), ('"', "&quot;"), ('&', "&amp;")];

fn unescape_html(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let (c, length) =
            HTML.iter().find(|(_, entity)| rest.starts_with(entity)).map_or(('&', 1), |(c, entity)| (*c, entity.len()));
        plain.push(c);
        rest = &rest[length..];
    }
    plain + rest
}

fn encode_uri(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn decode_uri(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        let escaped = rest.get(..2).filter(|_| *first == b'%').and_then(|digits| str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                bytes = &rest[2..];
            }
            None => {
                decoded.push(*first);
                bytes = rest;
            }
        }
    }
    decoded
}

/// Two arguments, both numbers.
fn pair(mut cv: Cv<'_, Data>) -> Result<(f64, f64), Error<Val>> {
    let (second, first) = (cv.0.pop_var(), cv.0.pop_var());
    Ok((number(&first)?, number(&second)?))
}

fn number(value: &Val) -> Result<f64, Error<Val>> {
    value.as_f64().ok_or_else(|| Error::typ(value.clone(), "number"))
}

fn utf8(value: &Val) -> Result<&str, Error<Val>> {
    let bytes = value.as_utf8_bytes().ok_or_else(|| Error::typ(value.clone(), "string"))?;
    str::from_utf8(bytes).map_err(|_| Error::str("text that is not UTF-8"))
}

/// Seconds of the milliseconds that the router counts in; exact for the next 285,000 years.
#[expect(clippy::cast_precision_loss, reason = "the contract keeps times below 2^53")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// A whole number where it is one.
fn whole(seconds: u64) -> Val {
    Val::Num(Num::from_integral(seconds))
}

type Answer = ValR<Val>;
