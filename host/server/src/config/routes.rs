//! `[[route]]`: where messages come from, what is done with them, and where they go.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use quipu_protocol::{Subject, SubjectPattern};
use quipu_router::{BROKEN_AFTER, BROKEN_AFTER_MAX, Condition, LANES_MAX, OnBroken};
use toml::Spanned;

use super::check::{Checker, Placed, taken};
use super::graph::Output;
use super::problem::join;
use super::raw::{self, Table};
use super::{
    OnError, PluginUse, QueueConfig, ROUTE_PLUGINS_MAX, ROUTE_SUBJECTS_MAX, ROUTES_MAX, RouteConfig, Source, Template,
    values,
};

use crate::nearest::nearest;
use crate::plugins::check_tag;

const ATTEMPTS_MAX: u32 = 100;
const ATTEMPTS: u32 = 5;

/// What was found of routes.
pub(super) struct Checked {
    /// Those that come from somewhere.
    pub(super) routes: Vec<Placed<RouteConfig>>,
    /// Every subject of theirs that is the same for all messages.
    pub(super) outputs: Vec<Placed<Output>>,
}

/// The routes that come from somewhere.
pub(super) fn check(checker: &mut Checker<'_>, raw: Vec<Spanned<Table<raw::Route>>>, defined: &[String]) -> Checked {
    checker.at_most(raw.len(), ROUTES_MAX, "routes", &(0..0), "route");
    let mut names = HashMap::new();
    let mut checked = Checked { routes: Vec::new(), outputs: Vec::new() };
    for (n, route) in raw.into_iter().enumerate() {
        let (key, span) = (format!("route[{n}]"), route.span());
        let Table(route) = route.into_inner();
        let first = *names.entry(route.name.as_ref().clone()).or_insert(n);
        if first != n {
            let message = format!("`{}` is the name of route[{first}] already", route.name.as_ref());
            checker.report(&route.name.span(), &join(&key, "name"), message);
        }
        check_route(checker, route, Placed { value: (), key, span }, defined, &mut checked);
    }
    checked
}

/// A message that fails for good has to go somewhere.
pub(super) fn check_dead_letters(checker: &mut Checker<'_>, routes: &[Placed<RouteConfig>], queues: &[QueueConfig]) {
    let ends = queues.iter().filter(|queue| queue.dead_letter.is_none()).map(|queue| &queue.name);
    let ends: HashSet<&Subject> = ends.collect();
    for Placed { value: route, key, span } in routes {
        let Some(from) = route.queue() else { continue };
        if route.on_error.then.is_none() && ends.contains(from) {
            let message = format!("queue `{from}` has no dead-letter queue: say where failed messages go, as `then`");
            checker.report(span, &join(key, "on_error"), message);
        }
    }
}

fn check_route(
    checker: &mut Checker<'_>,
    raw: raw::Route,
    Placed { key, span, .. }: Placed<()>,
    defined: &[String],
    checked: &mut Checked,
) {
    let of = |field: &str| join(&key, field);
    checker.name(raw.name.as_ref(), &raw.name.span(), &of("name"));
    check_when(checker, &raw, &key);
    let source = check_source(checker, &raw, &span, &key, defined);
    let plugins = check_chain(checker, raw.plugins, &of("plugins"));
    if raw.to.is_empty() && plugins.is_empty() {
        checker.report(&span, &of("to"), "a route without plugins needs the subjects that messages go to");
    }
    let to = checker.list(raw.to, &of("to"), ROUTE_SUBJECTS_MAX, Template::new);
    let otherwise = checker.list(raw.otherwise, &of("else"), ROUTE_SUBJECTS_MAX, Template::new);
    let on_error = raw.on_error.map(|Table(raw)| raw).unwrap_or_default();
    let from = source.as_ref().and_then(Source::queue);
    let on_error = check_on_error(checker, on_error, &of("on_error"), from);
    let broken_after =
        checker.within(raw.broken_after, &of("broken_after"), 1..=BROKEN_AFTER_MAX).unwrap_or(BROKEN_AFTER);
    let on_broken = raw.on_broken.map(OnBroken::from).unwrap_or_default();
    let parallel = checker.within(raw.parallel, &of("parallel"), 1..=LANES_MAX).unwrap_or(1);
    let (name, Some(source)) = (raw.name.into_inner(), source) else { return };
    for Placed { value: template, key, span } in to.iter().chain(&otherwise) {
        checked.outputs.extend(template.fixed().map(|subject| Placed {
            value: Output { route: name.clone(), from: source.queue().cloned(), subject: subject.clone() },
            key: key.clone(),
            span: span.clone(),
        }));
    }
    let bare = |templates: Vec<Placed<Template>>| templates.into_iter().map(|template| template.value).collect();
    let (to, otherwise, when) = (bare(to), bare(otherwise), raw.when.map(Spanned::into_inner));
    let start = raw.start.map(Spanned::into_inner).unwrap_or_default();
    let order = raw.order.map(Spanned::into_inner).unwrap_or_default();
    let value = RouteConfig {
        name,
        source,
        start,
        when,
        otherwise,
        plugins,
        to,
        parallel,
        order,
        on_error,
        on_broken,
        broken_after,
    };
    checked.routes.push(Placed { value, key, span });
}

fn check_source(
    checker: &mut Checker<'_>,
    raw: &raw::Route,
    span: &Range<usize>,
    key: &str,
    defined: &[String],
) -> Option<Source> {
    match (&raw.from, &raw.on) {
        (Some(_), Some(on)) => {
            let message = "a route has either `from`, a queue, or `on`, subjects on whose messages it runs inline";
            checker.report(&on.span(), &join(key, "on"), message);
            None
        }
        (Some(from), None) => check_from(checker, from, &join(key, "from"), defined).map(Source::Queue),
        (None, Some(on)) => Some(Source::Inline(check_on(checker, raw, on, key))),
        (None, None) => {
            let message = "the key `from` is missing: the queue that messages come from; or `on`, to run inline";
            checker.report(span, &join(key, "from"), message);
            None
        }
    }
}

fn check_on(
    checker: &mut Checker<'_>,
    raw: &raw::Route,
    on: &Spanned<raw::OneOrMore>,
    key: &str,
) -> Vec<SubjectPattern> {
    let place = join(key, "on");
    let texts = on.as_ref().clone().into_vec();
    if texts.is_empty() {
        checker.report(&on.span(), &place, "expected a subject pattern or more, found none");
    }
    let texts = texts.into_iter().map(|text| Spanned::new(on.span(), text)).collect();
    let on = checker.list(texts, &place, ROUTE_SUBJECTS_MAX, taken);
    let span = raw.name.span();
    let one_attempt = "an inline route has one attempt, and tells the publisher of it";
    let reads = "an inline route reads no queue";
    for (field, is_given, why) in [
        ("on_error", raw.on_error.is_some(), one_attempt),
        ("start", raw.start.is_some(), reads),
        ("order", raw.order.is_some(), reads),
    ] {
        if is_given {
            checker.report(&span, &join(key, field), format!("`{field}` is for routes with `from`: {why}"));
        }
    }
    on.into_iter().map(|pattern| pattern.value).collect()
}

fn check_from(checker: &mut Checker<'_>, from: &Spanned<String>, key: &str, defined: &[String]) -> Option<Subject> {
    let name = from.as_ref();
    if defined.contains(name) {
        // Its own table says what is wrong with a name that is none.
        return Subject::new(name).ok();
    }
    let hint = match nearest(name, defined.iter().map(String::as_str)) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("add [queue.{name:?}]"),
    };
    checker.report(&from.span(), key, format!("there is no queue `{name}`; {hint}"));
    None
}

fn check_when(checker: &mut Checker<'_>, raw: &raw::Route, key: &str) {
    match &raw.when {
        Some(when) if when.as_ref().trim().is_empty() => {
            checker.report(&when.span(), &join(key, "when"), "expected a CEL expression, found nothing");
        }
        Some(when) => {
            if let Err(e) = Condition::new(when.as_ref()) {
                checker.report(&when.span(), &join(key, "when"), e.to_string());
            }
        }
        None => {
            if let Some(first) = raw.otherwise.first() {
                checker.report(
                    &first.span(),
                    &join(key, "else"),
                    "`else` is for what `when` refuses: there is no `when`",
                );
            }
        }
    }
}

fn check_chain(checker: &mut Checker<'_>, raw: Vec<Spanned<Table<raw::Use>>>, key: &str) -> Vec<PluginUse> {
    if let Some(beyond) = raw.get(ROUTE_PLUGINS_MAX) {
        checker.at_most(raw.len(), ROUTE_PLUGINS_MAX, "plugins", &beyond.span(), key);
    }
    let mut chain = Vec::new();
    for (n, plugin) in raw.into_iter().enumerate() {
        let key = format!("{key}[{n}]");
        let Table(raw) = plugin.into_inner();
        let (name, version) = check_reference(checker, &raw.name, &join(&key, "name"));
        let (mut config, mut has_secret) = (serde_json::Value::Object(serde_json::Map::new()), false);
        if let Some(given) = raw.config {
            let (span, base) = (given.span(), checker.base);
            let toml = toml::Value::Table(given.into_inner());
            has_secret = values::has_secret(&toml);
            let mut report = |key: String, message: String| checker.report(&span, &key, message);
            config = values::to_json(toml, &join(&key, "config"), base, &mut report);
        }
        chain.push(PluginUse { name, version, config, has_secret });
    }
    chain
}

/// `NAME`, or `NAME@VERSION`.
fn check_reference(checker: &mut Checker<'_>, given: &Spanned<String>, key: &str) -> (String, Option<String>) {
    let (name, version) = match given.as_ref().split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (given.as_ref().as_str(), None),
    };
    checker.name(name, &given.span(), key);
    if let Some(version) = version
        && let Err(e) = check_tag(version)
    {
        checker.report(&given.span(), key, e.to_string());
    }
    (name.to_owned(), version.map(str::to_owned))
}

fn check_on_error(checker: &mut Checker<'_>, raw: raw::OnError, key: &str, from: Option<&Subject>) -> OnError {
    let attempts = checker.within(raw.attempts, &join(key, "attempts"), 1..=ATTEMPTS_MAX);
    let backoff = checker.backoff(raw.backoff, &join(key, "backoff"));
    let mut then = None;
    if let Some(given) = raw.then {
        let (key, span) = (join(key, "then"), given.span());
        then = checker.queue_name(given.as_ref(), &span, &key);
        if then.is_some() && then.as_ref() == from {
            checker.report(&span, &key, "failed messages cannot go back to the queue they come from");
        }
    }
    OnError { attempts_max: attempts.unwrap_or(ATTEMPTS), backoff, then }
}
