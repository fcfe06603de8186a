// Sorts earthquakes by their size, and touches every function of the contract on the way. What it must do is said in
// `plugin-sdk/vectors/README.md`; it is the same plugin in every language.

import {
  Config, Kind, Message, Outgoing, Verdict, context, drop, forward, log, refusalName, reject, retryAfter, route, utf8,
} from "quipu";

let atLeast: f64 = 0;
let alarmAt: f64 = 0;
let audit: string = "";

export function configure(config: Config): void {
  atLeast = config.number("at_least");
  alarmAt = config.numberOr("alarm_at", 6);
  audit = config.textOr("audit", "audit");
  if (!audit.length) config.refuse("audit: empty");
  if (alarmAt < atLeast) config.refuse("alarm_at: below at_least");
}

export function process(message: Message): Verdict {
  const type = message.header("type");
  if (type == "quarry blast") {
    log.debug("a quarry blast is left out");
    return drop("quarry blast");
  }
  if (type == "later") return retryAfter(1500, "comes later");
  if (type == "fault") {
    message.setHeader("size", "lost");
    message.emitCopy(audit);
    throw new Error("asked to fail");
  }
  if (type == "swap") return swap(message);
  if (type == "echo") return echo(message);
  return quake(message);
}

function swap(message: Message): Verdict {
  message.setPayload(message.payload.slice(0).reverse());
  message.setKey(utf8("swapped"));
  return forward();
}

/** What the rest leaves out of the contract. */
function echo(message: Message): Verdict {
  const copy = new Outgoing("echoes");
  copy.key = message.key;
  copy.headers = message.headers();
  copy.payload = message.payloadRange(4, 6);
  const refusal = message.emit(copy);
  if (refusal) throw new Error("echo refused: " + refusalName(refusal));
  if (!context.plugin().length || !context.route().length) throw new Error("no context");
  if (context.nowMs() < message.publishedMs) throw new Error("no clock");
  context.seed();

  const replyTo = message.replyTo, traces = message.headerValues("trace");
  log.info([
    message.id,
    message.subject,
    message.originSubject,
    message.attempt.toString(),
    message.priority.toString(),
    message.payloadLength.toString(),
    message.expires ? message.expiresMs.toString() : "none",
    replyTo === null ? "none" : replyTo,
    traces.length ? traces.join("|") : "none",
  ].join(" "));

  const text = message.payloadText;
  message.setPayloadText(text === null ? "echo of " + message.payloadLength.toString() + " bytes" : "echo " + text);
  message.removeKey();
  message.removeHeader("trace");
  return forward();
}

function quake(message: Message): Verdict {
  if (!message.payloadLength) return reject("empty payload");
  const json = message.json, kind = json.kind("properties.mag");
  if (kind == Kind.NoJson) return reject("the payload is no JSON");
  if (kind != Kind.Number) return reject("no magnitude");
  const magnitude = json.number("properties.mag");
  const network = json.kind("properties.net") == Kind.Text ? json.text("properties.net") : "";
  if (!network.length) log.warn("no network");
  if (magnitude >= atLeast) return big(message, magnitude, network);
  message.setHeader("size", "small");
  message.removeHeader("trace");
  return forward();
}

function big(message: Message, magnitude: f64, network: string): Verdict {
  message.setHeader("size", "big");
  message.addHeader("seen", "sizes");
  if (network.length) message.setKey(utf8(network));
  else message.removeKey();
  const to = message.header("audit");
  const refusal = message.emitCopy(to === null ? audit : to);
  if (refusal) return retryAfter(5000, "audit refused: " + refusalName(refusal));
  if (magnitude >= alarmAt) alarm(message, network);
  return route(["alerts", "big"]);
}

function alarm(message: Message, network: string): void {
  const json = message.json, named = json.kind("properties.place") == Kind.Text;
  const outgoing = new Outgoing("alarms").header("type", "alarm").header("quipu-priority", "9");
  if (network.length) outgoing.key = utf8(network);
  outgoing.payload = utf8(named ? json.text("properties.place") : "unknown");
  const refusal = message.emit(outgoing);
  if (refusal) throw new Error("alarm refused: " + refusalName(refusal));
}
