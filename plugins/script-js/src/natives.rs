//! The router's functions, as the SDK for JavaScript imports them.

use crate::json;
use boa_engine::native_function::NativeFunctionPointer;
use boa_engine::object::builtins::{JsArray, JsUint8Array};
use boa_engine::{Context, JsArgs, JsError, JsNativeError, JsObject, JsResult, JsString, JsValue, js_string};
use quipu_plugin::log::Level;
use quipu_plugin::prelude::{HeaderName, Message, Outgoing, Refusal, context as router, log};
use std::fmt::Display;

/// Functions by name.
pub(crate) type Table = [(&'static str, NativeFunctionPointer)];

/// Modules by name. UTF-8 is here too: the SDK's own is for engines without any.
pub(crate) const MODULES: [(&str, &Table); 7] = [
    ("quipu:plugin/context@0.1.0", CONTEXT),
    ("quipu:plugin/edit@0.1.0", EDIT),
    ("quipu:plugin/emit@0.1.0", EMIT),
    ("quipu:plugin/log@0.1.0", LOG),
    ("quipu:plugin/message@0.1.0", MESSAGE),
    ("./utf8.js", UTF8),
    ("./parse.js", PARSE),
];

const CONTEXT: &Table = &[
    ("plugin", |_, _, _| Ok(text(router::plugin()))),
    ("route", |_, _, _| Ok(text(router::route()))),
    ("nowMs", |_, _, _| Ok(number(router::now_ms()))),
    ("seed", |_, _, _| Ok(number(router::seed()))),
];

const MESSAGE: &Table = &[
    ("id", |_, _, _| Ok(text(hand().id()))),
    ("subject", |_, _, _| Ok(text(hand().subject()))),
    ("originSubject", |_, _, _| Ok(text(hand().origin_subject()))),
    ("key", |_, _, context| match hand().key() {
        Some(key) => bytes(key, context),
        None => Ok(JsValue::null()),
    }),
    ("header", |_, args, _| Ok(or_null(hand().header(&text_of(args, 0)?).map(text)))),
    ("headerValues", |_, args, context| {
        let values = hand().header_values(&text_of(args, 0)?).into_iter().map(text);
        Ok(JsArray::from_iter(values, context).into())
    }),
    ("headers", |_, _, context| {
        let pairs = hand().headers().into_iter().map(|(name, value)| [text(name), text(value)]);
        let pairs: Vec<JsValue> = pairs.map(|pair| JsArray::from_iter(pair, context).into()).collect();
        Ok(JsArray::from_iter(pairs, context).into())
    }),
    ("payloadLen", |_, _, _| Ok(number(hand().payload_len() as u64))),
    ("payload", |_, _, context| bytes(hand().payload().to_vec(), context)),
    ("payloadText", |_, _, _| Ok(or_null(hand().payload_text().map(text)))),
    ("payloadRange", |_, args, context| {
        let (offset, length) = (args.get_or_undefined(0).to_u32(context)?, args.get_or_undefined(1).to_u32(context)?);
        bytes(hand().payload_range(offset, length), context)
    }),
    ("publishedMs", |_, _, _| Ok(number(hand().published_ms()))),
    ("expiresMs", |_, _, _| Ok(or_null(hand().expires_ms().map(number)))),
    ("attempt", |_, _, _| Ok(number(hand().attempt().into()))),
    ("priority", |_, _, _| Ok(number(hand().priority().into()))),
    ("replyTo", |_, _, _| Ok(or_null(hand().reply_to().map(text)))),
];

const EDIT: &Table = &[
    ("setHeader", |_, args, _| {
        hand().try_set_header(&header_of(args)?, &text_of(args, 1)?).map_err(wrong)?;
        Ok(JsValue::undefined())
    }),
    ("addHeader", |_, args, _| {
        hand().add_header(header_of(args)?.as_str(), &text_of(args, 1)?);
        Ok(JsValue::undefined())
    }),
    ("removeHeader", |_, args, _| {
        hand().remove_header(header_of(args)?.as_str());
        Ok(JsValue::undefined())
    }),
    ("setKey", |_, args, context| {
        hand().try_set_key(bytes_of(args.get_or_undefined(0), context)?).map_err(wrong)?;
        Ok(JsValue::undefined())
    }),
    ("removeKey", |_, _, _| {
        hand().remove_key();
        Ok(JsValue::undefined())
    }),
    ("setPayload", |_, args, context| {
        hand().set_payload(bytes_of(args.get_or_undefined(0), context)?);
        Ok(JsValue::undefined())
    }),
    ("setPayloadText", |_, args, _| {
        hand().set_payload_text(&text_of(args, 0)?);
        Ok(JsValue::undefined())
    }),
];

const EMIT: &Table = &[
    ("publish", |_, args, context| {
        let outgoing = outgoing_of(args.get_or_undefined(0), context)?;
        hand().emit(outgoing).map_err(|refusal| refused(refusal, context))?;
        Ok(JsValue::undefined())
    }),
    ("copy", |_, args, context| {
        hand().emit_copy(text_of(args, 0)?).map_err(|refusal| refused(refusal, context))?;
        Ok(JsValue::undefined())
    }),
];

const LOG: &Table = &[("log", |_, args, _| {
    let level = match text_of(args, 0)?.as_str() {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" => Level::Warn,
        _ => Level::Error,
    };
    log::log(level, text_of(args, 1)?);
    Ok(JsValue::undefined())
})];

const UTF8: &Table = &[
    ("encode", |_, args, context| bytes(text_of(args, 0)?.into_bytes(), context)),
    ("decode", |_, args, context| {
        let bytes = bytes_of(args.get_or_undefined(0), context)?;
        Ok(or_null(String::from_utf8(bytes).ok().map(text)))
    }),
];

/// A list of texts; none where it is something else.
pub(crate) fn texts(value: &JsValue, context: &mut Context) -> JsResult<Option<Vec<String>>> {
    let Some(list) = value.as_object().and_then(|list| JsArray::from_object(list).ok()) else { return Ok(None) };
    let mut texts = Vec::new();
    for index in 0..list.length(context)? {
        let Some(text) = list.get(index, context)?.as_string() else { return Ok(None) };
        texts.push(text.to_std_string_lossy());
    }
    Ok(Some(texts))
}

/// The engine's own goes through a parser of the whole language, which calls itself some twenty times for each level.
const PARSE: &Table = &[("parse", |_, args, context| json::parse(&text_of(args, 0)?, context))];

const fn hand() -> Message {
    Message::in_hand()
}

fn text(text: impl AsRef<str>) -> JsValue {
    JsString::from(text.as_ref()).into()
}

/// The contract keeps below 2^53, which a number of the language has exactly.
fn number(number: u64) -> JsValue {
    (number as f64).into()
}

fn or_null(value: Option<JsValue>) -> JsValue {
    value.unwrap_or_else(JsValue::null)
}

fn bytes(bytes: Vec<u8>, context: &mut Context) -> JsResult<JsValue> {
    Ok(JsUint8Array::from_iter(bytes, context)?.into())
}

fn text_of(args: &[JsValue], index: usize) -> JsResult<String> {
    let value = args.get_or_undefined(index);
    // Half of a surrogate pair becomes U+FFFD.
    let text = value.as_string().map(|text| text.to_std_string_lossy());
    text.ok_or_else(|| wrong(format!("expected text, not {}", value.display())))
}

fn header_of(args: &[JsValue]) -> JsResult<HeaderName> {
    text_of(args, 0)?.parse().map_err(wrong)
}

fn bytes_of(value: &JsValue, context: &mut Context) -> JsResult<Vec<u8>> {
    let object = value.as_object().ok_or_else(|| wrong(format!("expected bytes, not {}", value.display())))?;
    JsUint8Array::from_object(object)?.to_vec(context)
}

/// What the SDK makes of a new message.
fn outgoing_of(value: &JsValue, context: &mut Context) -> JsResult<Outgoing> {
    let object = value.as_object().ok_or_else(|| wrong("expected a message"))?;
    let mut get = |name: &str| object.get(JsString::from(name), context);
    let (subject, key, headers, payload) = (get("subject")?, get("key")?, get("headers")?, get("payload")?);
    let mut outgoing = Outgoing::new(text_of(&[subject], 0)?).payload(bytes_of(&payload, context)?);
    if !key.is_null() {
        outgoing = outgoing.key(bytes_of(&key, context)?);
    }
    let headers = headers.as_object().ok_or_else(|| wrong("expected headers"))?;
    let headers = JsArray::from_object(headers)?;
    for index in 0..headers.length(context)? {
        let header = headers.get(index, context)?;
        let header = texts(&header, context)?;
        let Some([name, value]) = header.as_deref() else { return Err(wrong("a header is a name and a value")) };
        outgoing = outgoing.header(name, value);
    }
    Ok(outgoing)
}

/// As engines of components throw it: the SDK makes a `Refused` of it.
fn refused(refusal: Refusal, context: &mut Context) -> JsError {
    let name = match refusal {
        Refusal::Limit => "limit",
        Refusal::Invalid => "invalid",
        Refusal::NotGranted => "not-granted",
        Refusal::Loop => "loop",
    };
    let thrown = JsObject::with_object_proto(context.intrinsics());
    match thrown.set(js_string!("payload"), js_string!(name), true, context) {
        Ok(_) => JsError::from_opaque(thrown.into()),
        Err(error) => error,
    }
}

fn wrong(problem: impl Display) -> JsError {
    JsNativeError::typ().with_message(problem.to_string()).into()
}
