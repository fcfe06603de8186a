//! `explain`: walks a message through the routes as they are, with plugins of its own, and changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quipu_protocol::limits::PAYLOAD_BYTES_MAX;
use quipu_protocol::{Headers, Key, Message, MessageId, Subject, SubjectPattern, proto};
use quipu_queue::{QueueInfo, ROUTE_PREFIX, StoreInfo};
use quipu_router::{Condition, Explain, Explained, RouteInfo};
use quipu_runtime::{Component, Digest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::RUNNING;
use super::longer::What;
use crate::config::{Config, RouteConfig};
use crate::nearest::did_you_mean;
use crate::plugins::version::unix_ms;
use crate::services::Services;

/// Messages that are followed at most, the first one and those that are made of it.
const STEPS_MAX: usize = 256;
/// How far one is followed.
const DEPTH_MAX: usize = 16;
/// Bytes of messages that wait to be followed; past that none is added.
const WAITING_BYTES_MAX: usize = 64 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    subject: String,
    /// Base64.
    payload: Option<String>,
    /// In its place one that was uploaded, as a plugin's file is.
    payload_upload: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// A text.
    key: Option<String>,
    id: Option<String>,
    with: Option<With>,
    call: Option<String>,
}

/// The state of a route with a plugin that fails on everything, and what such a route does where it stands still.
const BROKEN: &str = "broken";
const HOLD: &str = "hold";

/// A file in place of a plugin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct With {
    upload: String,
    plugin: String,
    route: Option<String>,
}

/// The file, as it is compiled.
struct Other {
    plugin: (String, Component),
    route: Option<String>,
}

/// A message somewhere on its way.
struct Here {
    /// The queue that has it; none as it is published.
    queue: Option<String>,
    depth: usize,
    /// The step that made it, from 1.
    from: usize,
    message: Message,
}

/// What is walked through, as it is at this moment.
struct Walk<'a> {
    services: &'a Services,
    config: Arc<Config>,
    store: StoreInfo,
    routes: Vec<RouteInfo>,
    other: Option<Other>,
    waiting: VecDeque<Here>,
    waiting_bytes: usize,
    steps: Vec<Value>,
    ends: Vec<Value>,
    is_cut: bool,
}

pub(super) async fn explain(
    services: &Arc<Services>,
    arguments: Arguments,
    payload: &Bytes,
) -> Result<Value, proto::Error> {
    let what = What::new(format!("explain {}", Digest::of(payload)), arguments.call.clone());
    let services_of = services.clone();
    let work = async move { walked(&services_of, arguments).await.map_err(|e| format!("{e:#}")) };
    services.longer.wait(what, work).await
}

async fn walked(services: &Services, arguments: Arguments) -> Result<Value> {
    let message = message(&arguments, services)?;
    let _turn = services.trials.clone().acquire_owned().await?;
    let other = match arguments.with {
        Some(With { upload, plugin, route }) => {
            let bytes = services.plugins.uploads.finish(&upload)?;
            let loaded = services.plugins.compiler.load(&plugin, "the file of --with", bytes).await?;
            Some(Other { plugin: (plugin, loaded.component), route })
        }
        None => None,
    };
    let store = services.store.info().await?;
    let routes = super::routes(services, &store);
    let mut walk = Walk {
        services,
        config: services.config(),
        store,
        routes,
        other,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        steps: Vec::new(),
        ends: Vec::new(),
        is_cut: false,
    };
    walk.check_other()?;
    let id = message.id.as_str().to_owned();
    walk.publish(message).await?;
    while let Some(here) = walk.next() {
        walk.at_queue(here).await?;
    }
    Ok(json!({
        "id": id, "subject": arguments.subject, "steps": walk.steps, "ends": walk.ends, "cut": walk.is_cut,
        "with": walk.other.as_ref().map(|other| format!("{}@{}", other.plugin.0, other.plugin.1.digest().short())),
    }))
}

fn message(arguments: &Arguments, services: &Services) -> Result<Message> {
    let subject = Subject::new(&arguments.subject).context("the subject")?;
    ensure!(!subject.is_internal(), "the subject: those that begin with `$` are the router's own");
    let payload = match (&arguments.payload, &arguments.payload_upload) {
        (Some(payload), None) => STANDARD.decode(payload).context("the payload")?,
        (None, Some(upload)) => services.plugins.uploads.finish(upload).context("the payload")?,
        _ => bail!("say `payload` or `payload_upload`"),
    };
    ensure!(payload.len() <= PAYLOAD_BYTES_MAX, "the payload: {} bytes; at most {PAYLOAD_BYTES_MAX}", payload.len());
    let id = arguments.id.clone().unwrap_or_else(|| "explained".into());
    let mut message = Message::new(MessageId::new(&id).context("the id")?, subject, payload);
    let mut headers = Headers::new();
    for (name, value) in &arguments.headers {
        headers.add(name, value).with_context(|| format!("the header {name:?}"))?;
    }
    message.headers = headers;
    if let Some(key) = &arguments.key {
        message.key = Some(Key::new(key.as_bytes().to_vec()).context("the key")?);
    }
    message.published_ms = unix_ms();
    Ok(message)
}

impl Walk<'_> {
    /// A file that takes nobody's place would show nothing.
    fn check_other(&self) -> Result<()> {
        let Some(Other { plugin: (name, _), route }) = &self.other else { return Ok(()) };
        if let Some(name) = route
            && !self.config.routes.iter().any(|known| known.name == *name)
        {
            let near = did_you_mean(name, self.config.routes.iter().map(|known| known.name.as_str()));
            bail!("there is no route {name:?}{near}");
        }
        let is_in = |known: &&RouteConfig| route.as_ref().is_none_or(|route| known.name == *route);
        let mut routes = self.config.routes.iter().filter(is_in);
        if !routes.any(|route| route.plugins.iter().any(|plugin| plugin.name == *name)) {
            let place =
                route.as_ref().map_or_else(|| "no route uses".into(), |route| format!("route {route:?} has no"));
            let plugins = self.config.routes.iter().filter(is_in).flat_map(|route| &route.plugins);
            let near = did_you_mean(name, plugins.map(|plugin| plugin.name.as_str()));
            let say = if near.is_empty() { ": say" } else { " Say" };
            bail!("{place} plugin {name:?}{near}{say} --plugin NAME");
        }
        Ok(())
    }

    /// As it is published: inline routes first, then the queues that take it.
    async fn publish(&mut self, message: Message) -> Result<()> {
        let subject = message.subject.clone();
        let inline: Vec<String> = self.routes.iter().filter(|route| takes(&route.on, &subject)).map(name).collect();
        let queues = self.queues(&subject);
        self.steps.push(
            json!({ "at": "publish", "depth": 0, "subject": subject.as_str(), "inline": inline, "queues": queues }),
        );
        let (mut outputs, mut taken) = (Vec::new(), false);
        for name in &inline {
            let step = self.steps.len() + 1;
            let Some(explained) = self.route(name, None, (0, 1), &message).await? else {
                self.end(1, "refused", format!("route {name} stands still: the publisher is told to try again later"));
                return Ok(());
            };
            if let Some(how) = self.stands_still(name) {
                let text = format!("route {name} is {how}: the publisher is told to try again later");
                self.end(step, "refused", text);
                return Ok(());
            }
            match explained.end {
                "forward" | "drop" => taken = true,
                "filtered" => taken |= !explained.outputs.is_empty(),
                end => {
                    let why = explained.reason.unwrap_or_default();
                    self.end(step, "refused", format!("the publisher gets {end}: {why}; nothing is stored"));
                    return Ok(());
                }
            }
            outputs.extend(explained.outputs.into_iter().map(|(subject, message)| (step, subject, message)));
        }
        if queues.is_empty() && !taken {
            self.end(1, "refused", format!("no queue takes {}: the publisher is told so", subject.as_str()));
            return Ok(());
        }
        self.append(1, 1, &subject, &message);
        for (from, subject, message) in outputs {
            self.send(from, 1, &subject, &message);
        }
        Ok(())
    }

    /// In a queue: its routes, each for itself; what it has of other subscriptions, it waits for.
    async fn at_queue(&mut self, here: Here) -> Result<()> {
        let Here { queue: Some(queue), depth, from, message } = here else { return Ok(()) };
        let Some(info) = self.store.queues.iter().find(|known| known.name == queue) else { return Ok(()) };
        let others: Vec<String> = info.subscriptions.iter().map(|s| s.name.clone()).collect();
        let others: Vec<String> = others.into_iter().filter(|name| !name.starts_with(ROUTE_PREFIX)).collect();
        let dead_letter = info.dead_letter.clone();
        let routes: Vec<String> = self.routes.iter().filter(|route| route.from == queue).map(name).collect();
        if !others.is_empty() {
            self.end(from, "queue", format!("{queue}, for {}", others.join(", ")));
        } else if routes.is_empty() {
            self.end(from, "queue", format!("{queue}, which nobody reads yet"));
        }
        for name in routes {
            if self.steps.len() >= STEPS_MAX {
                self.is_cut = true;
                return Ok(());
            }
            let step = self.steps.len() + 1;
            let Some(explained) = self.route(&name, Some(&queue), (from, depth), &message).await? else {
                let route = self.routes.iter().find(|route| route.name == name);
                let why = route.and_then(|route| route.state_reason.clone()).unwrap_or_default();
                let state = route.map_or("gone", |route| route.state);
                self.end(step, "waits", format!("in {queue}: route {name} is {state}{}{why}", sep(&why)));
                continue;
            };
            let reason = explained.reason.clone().unwrap_or_default();
            match explained.end {
                "retry" | "fault" | "reject" => {
                    let text = self.failed(&name, explained.end, dead_letter.as_deref());
                    self.end(step, "dead-letter", format!("{text}: {reason}"));
                }
                end if explained.outputs.is_empty() => {
                    self.end(step, end, format!("route {name}{}{reason}", sep(&reason)))
                }
                _ => {}
            }
            for (subject, message) in &explained.outputs {
                self.send(step, depth + 1, subject, message);
            }
        }
        Ok(())
    }

    fn failed(&self, name: &str, end: &str, dead_letter: Option<&str>) -> String {
        let route = self.config.routes.iter().find(|route| route.name == name);
        let then = route.and_then(|route| route.on_error.then.as_ref()).map(Subject::as_str).or(dead_letter);
        let then = then.unwrap_or("no queue");
        let attempts = route.map_or(1, |route| route.on_error.attempts_max);
        match end {
            "reject" => format!("{then}, at once"),
            _ => format!("{then}, after {attempts} attempts that fail like this one ({end})"),
        }
    }

    /// What goes out of a route, to every queue that takes it. Where none does, the message is dead-lettered.
    fn send(&mut self, from: usize, depth: usize, subject: &Subject, message: &Message) {
        if subject.is_inbox() {
            return self.end(from, "reply", format!("{subject}, if whoever asked still waits"));
        }
        if self.queues(subject).is_empty() {
            self.end(from, "no-queue", format!("no queue takes {}: its input becomes a dead letter", subject.as_str()));
        }
        self.append(from, depth, subject, message);
    }

    fn append(&mut self, from: usize, depth: usize, subject: &Subject, message: &Message) {
        for queue in self.queues(subject) {
            let is_room = depth < DEPTH_MAX && self.waiting.len() < STEPS_MAX && self.waiting_bytes < WAITING_BYTES_MAX;
            if !is_room {
                self.is_cut = true;
                return;
            }
            let mut message = message.clone();
            message.subject = subject.clone();
            self.waiting_bytes += message.payload.len();
            self.waiting.push_back(Here { queue: Some(queue), depth, from, message });
        }
    }

    fn next(&mut self) -> Option<Here> {
        let here = self.waiting.pop_front()?;
        self.waiting_bytes -= here.message.payload.len();
        Some(here)
    }

    fn end(&mut self, step: usize, how: &str, text: String) {
        if self.ends.len() < STEPS_MAX {
            self.ends.push(json!({ "step": step, "how": how, "text": text }));
        }
    }

    /// One route; none where it stands still.
    async fn route(
        &mut self,
        name: &str,
        queue: Option<&str>,
        (from, depth): (usize, usize),
        message: &Message,
    ) -> Result<Option<Explained>> {
        let info = self.routes.iter().find(|route| route.name == name).cloned();
        let info = info.with_context(|| format!("route {name:?} is gone; ask again"))?;
        let mut step = json!({
            "at": "route", "depth": depth, "from": from, "queue": queue, "route": name, "state": info.state,
            "state_reason": info.state_reason,
        });
        let config = self.config.routes.iter().find(|route| route.name == name).cloned();
        let config = config.with_context(|| format!("route {name:?} is being changed; ask again"))?;
        // One that is paused or broken has its chain, and shows what it would do; one that waits for a plugin has none.
        if info.plugins.len() != config.plugins.len() {
            self.steps.push(step);
            return Ok(None);
        }
        let digests: Vec<String> = info.plugins.iter().map(|plugin| plugin.digest.to_string()).collect();
        let with = self.other.as_ref().filter(|other| other.route.as_ref().is_none_or(|route| route == name));
        let with = with.map(|other| &other.plugin);
        let trial = self.services.plugins.trial(&self.config, &config, &digests, with).await;
        let trial = trial.with_context(|| format!("route {name:?}"))?;
        let (plugins, logs) = trial.into_iter().unzip();
        let explain = Explain {
            route: name.to_owned(),
            when: config.when.as_deref().map(Condition::new).transpose()?,
            otherwise: config.otherwise.clone(),
            plugins,
            logs,
            to: config.to.clone(),
        };
        let message = message.clone();
        let explained = tokio::task::spawn_blocking(move || explain.run(&message, 1, unix_ms())).await?;
        if let (Value::Object(step), Value::Object(said)) = (&mut step, explained.to_json()) {
            step.extend(said);
        }
        for output in step["outputs"].as_array_mut().into_iter().flatten() {
            let subject = Subject::new(output["subject"].as_str().unwrap_or_default());
            output["queues"] = subject.map(|subject| json!(self.queues(&subject))).unwrap_or_default();
        }
        self.steps.push(step);
        if info.state != RUNNING && queue.is_some() {
            let why = info.state_reason.unwrap_or_default();
            self.end(self.steps.len(), "waits", format!("route {name} is {} now{}{why}", info.state, sep(&why)));
        }
        Ok(Some(explained))
    }

    /// How, where an inline route refuses everything for now.
    fn stands_still(&self, name: &str) -> Option<String> {
        let route = self.routes.iter().find(|route| route.name == name)?;
        let goes_on = route.state == RUNNING || (route.state == BROKEN && route.on_broken != HOLD);
        let why = route.state_reason.clone().unwrap_or_default();
        (!goes_on).then(|| format!("{}{}{why}", route.state, sep(&why)))
    }

    /// The queues that take a subject.
    fn queues(&self, subject: &Subject) -> Vec<String> {
        let is_taken = |queue: &&QueueInfo| queue.name == subject.as_str() || takes(&queue.subjects, subject);
        self.store.queues.iter().filter(is_taken).map(|queue| queue.name.clone()).collect()
    }
}

fn takes(patterns: &[String], subject: &Subject) -> bool {
    patterns.iter().any(|pattern| SubjectPattern::new(pattern).is_ok_and(|pattern| pattern.matches(subject)))
}

fn name(route: &RouteInfo) -> String {
    route.name.clone()
}

fn sep(why: &str) -> &'static str {
    if why.is_empty() { "" } else { ": " }
}
