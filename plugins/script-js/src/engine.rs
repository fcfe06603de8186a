//! The engine: one for each instance of the plugin, started with its script.

use crate::modules::{Modules, RUNTIME, parse};
use crate::natives;
use crate::thrown::{CODE, Thrown, unreadable};
use boa_engine::builtins::promise::PromiseState;
use boa_engine::context::time::JsInstant;
use boa_engine::context::{Clock, HostHooks};
use boa_engine::{Context, JsError, JsObject, JsString, JsValue, Module, js_string};
use quipu_plugin::context as router;
use quipu_plugin::prelude::*;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// Calls within calls. The engine's own stack has room for as many, through callbacks too.
const RECURSION_MAX: usize = 200;
/// Frames of a trace.
const FRAMES_MAX: usize = 16;
/// Largest buffer, in bytes: as large as a message gets.
const BUFFER_BYTES_MAX: u64 = 64 << 20;
/// Shows what a script defines, exported or not.
const TAIL: &str = "
export const __plugin = {
  process: typeof process === 'undefined' ? undefined : process,
  configure: typeof configure === 'undefined' ? undefined : configure,
  schema: typeof schema === 'undefined' ? undefined : schema,
};";

pub(crate) struct Engine {
    code: String,
    context: Context,
    process: JsObject,
    message: JsValue,
    config: JsValue,
    begin: JsObject,
    rejected: JsObject,
}

impl Engine {
    /// Runs a script up to where messages can come.
    pub(crate) fn start(code: &str, config: &Value) -> Result<Self, String> {
        let mut context = context()?;
        let context_mut = &mut context;
        let ours = |error: JsError| format!("the runtime of scripts does not start: {error}");
        let runtime = parse(RUNTIME, "runtime.js", context_mut).map_err(ours)?;
        evaluate(&runtime, context_mut).map_err(ours)?;
        let runtime = runtime.namespace(context_mut);

        // By itself first: an error should not be at what is put behind it. The parser misses the end of some that have none.
        parse(&format!("{code}\n;"), CODE, context_mut).map_err(|error| unreadable(&error))?;
        let script = parse(&format!("{code}{TAIL}"), CODE, context_mut).map_err(|error| unreadable(&error))?;
        call(&runtime, "loaded", &[], context_mut).map_err(ours)?;
        evaluate(&script, context_mut).map_err(|error| Thrown::new(error, code, context_mut).refusal())?;
        let script = Script { code, exports: script.namespace(context_mut) };

        let process = script.get("process", context_mut).map_err(ours)?;
        let process =
            process.as_callable().ok_or_else(|| format!("{CODE}: it has no function `process(message, config)`"))?;
        let config = script.configure(&runtime, config, context_mut)?;
        let message = runtime.get(js_string!("message"), context_mut).map_err(ours)?;
        let begin = function(&runtime, "begin", context_mut).map_err(ours)?;
        let rejected = function(&runtime, "rejected", context_mut).map_err(ours)?;
        Ok(Self { code: code.into(), context, process, message, config, begin, rejected })
    }

    /// Hands the script the message in hand.
    pub(crate) fn process(&mut self) -> Result<Verdict, Thrown> {
        let context = &mut self.context;
        let said = self.begin.call(&JsValue::undefined(), &[], context).and_then(|_| {
            let said =
                self.process.call(&JsValue::undefined(), &[self.message.clone(), self.config.clone()], context)?;
            // What promises have left to do belongs to this message.
            context.run_jobs()?;
            Ok(said)
        });
        let error = match said {
            Ok(said) => return verdict(&said, context).map_err(|error| Thrown::new(error, &self.code, context))?,
            Err(error) => error,
        };
        if let Some(value) = error.as_opaque()
            && let Ok(reason) = self.rejected.call(&JsValue::undefined(), std::slice::from_ref(value), context)
            && let Some(reason) = reason.as_string()
        {
            return Ok(reject(reason.to_std_string_lossy()));
        }
        Err(Thrown::new(error, &self.code, context))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// What a script defines.
struct Script<'c> {
    code: &'c str,
    exports: JsObject,
}

impl Script<'_> {
    /// By what it exports, else by what it is called.
    fn get(&self, name: &str, context: &mut Context) -> Result<JsValue, JsError> {
        let name = JsString::from(name);
        let exported = self.exports.get(name.clone(), context)?;
        if !exported.is_undefined() {
            return Ok(exported);
        }
        let defined = self.exports.get(js_string!("__plugin"), context)?;
        defined.as_object().map_or(Ok(JsValue::undefined()), |defined| defined.get(name, context))
    }

    /// The configuration as its `schema` has it, once its `configure` has seen it.
    fn configure(&self, runtime: &JsObject, config: &Value, context: &mut Context) -> Result<JsValue, String> {
        let made = JsValue::from_json(config, context).and_then(|config| {
            let schema = self.get("schema", context)?;
            let config = call(runtime, "checked", &[config, schema], context)?;
            let configure = self.get("configure", context)?;
            if let Some(configure) = configure.as_callable() {
                configure.call(&JsValue::undefined(), std::slice::from_ref(&config), context)?;
            }
            context.run_jobs()?;
            Ok(config)
        });
        made.map_err(|error| {
            let answer = error.as_opaque().cloned();
            let answer = answer.and_then(|value| call(runtime, "refused", &[value], context).ok());
            match answer.as_ref().and_then(JsValue::as_string) {
                Some(text) => format!("config: {}", text.to_std_string_lossy()),
                None => Thrown::new(error, self.code, context).refusal(),
            }
        })
    }
}

fn context() -> Result<Context, String> {
    let built = Context::builder()
        .clock(Rc::new(RouterClock))
        .host_hooks(Rc::new(Hooks))
        .module_loader(Rc::new(Modules::default()))
        .build();
    let mut context = built.map_err(|error| format!("the engine does not start: {error}"))?;
    let limits = context.runtime_limits_mut();
    limits.set_recursion_limit(RECURSION_MAX);
    limits.set_backtrace_limit(FRAMES_MAX);
    Ok(context)
}

/// Runs a module and all it imports. There is nothing to wait for: what is not done then never is.
fn evaluate(module: &Module, context: &mut Context) -> Result<(), JsError> {
    let promise = module.load_link_evaluate(context);
    context.run_jobs()?;
    match promise.state() {
        PromiseState::Fulfilled(_) => Ok(()),
        PromiseState::Rejected(error) => Err(JsError::from_opaque(error)),
        PromiseState::Pending => Err(boa_engine::js_error!(TypeError: "it waits for what never comes")),
    }
}

fn function(of: &JsObject, name: &str, context: &mut Context) -> Result<JsObject, JsError> {
    let value = of.get(JsString::from(name), context)?;
    value.as_callable().ok_or_else(|| boa_engine::js_error!(TypeError: "{} is no function", name))
}

fn call(of: &JsObject, name: &str, arguments: &[JsValue], context: &mut Context) -> Result<JsValue, JsError> {
    function(of, name, context)?.call(&JsValue::undefined(), arguments, context)
}

/// What the SDK's `forward()` and so on make.
fn verdict(said: &JsValue, context: &mut Context) -> Result<Result<Verdict, Thrown>, JsError> {
    let Some(object) = said.as_object() else { return Ok(Err(no_verdict(said, context))) };
    if object.get(js_string!("then"), context)?.is_callable() {
        let text = "TypeError: process gave a promise: it cannot be async, since there is nothing to wait for";
        return Ok(Err(Thrown::plain(text)));
    }
    let (tag, value) = (object.get(js_string!("tag"), context)?, object.get(js_string!("val"), context)?);
    let tag = tag.as_string().map(|tag| tag.to_std_string_lossy());
    let text = |value: &JsValue| value.as_string().map(|text| text.to_std_string_lossy());
    let made = match (tag.as_deref(), &value) {
        (Some("forward"), _) => Some(forward()),
        (Some("drop"), value) => text(value).map(drop),
        (Some("reject"), value) => text(value).map(reject),
        (Some("route"), value) => natives::texts(value, context)?.map(route),
        (Some("retry"), value) => match value.as_object() {
            Some(after) => {
                let ms = after.get(js_string!("ms"), context)?.as_number().filter(|ms| *ms >= 0.0);
                let reason = after.get(js_string!("reason"), context)?;
                let after = ms.map(|ms| Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or(Duration::MAX));
                after.zip(text(&reason)).map(|(after, reason)| retry_after(after, reason))
            }
            None => None,
        },
        _ => None,
    };
    Ok(made.ok_or_else(|| no_verdict(said, context)))
}

fn no_verdict(said: &JsValue, context: &mut Context) -> Thrown {
    let shown = match said.to_string(context) {
        _ if said.is_undefined() => "nothing".to_owned(),
        Ok(text) => text.to_std_string_lossy(),
        Err(_) => said.display().to_string(),
    };
    Thrown::plain(format!(
        "TypeError: process gave {shown}: it has to return forward(), route(…), drop(…), retry(…) or reject(…)"
    ))
}

/// The router's clock, which stands still within an attempt.
struct RouterClock;

impl Clock for RouterClock {
    fn now(&self) -> JsInstant {
        let now = Duration::from_millis(router::now_ms());
        JsInstant::new(now.as_secs(), now.subsec_nanos())
    }

    fn system_time_millis(&self) -> i64 {
        i64::try_from(router::now_ms()).unwrap_or(i64::MAX)
    }
}

/// A machine without a place.
struct Hooks;

impl HostHooks for Hooks {
    fn local_timezone_offset_seconds(&self, _: i64) -> i32 {
        0
    }

    fn max_buffer_size(&self, _: &mut Context) -> u64 {
        BUFFER_BYTES_MAX
    }
}
