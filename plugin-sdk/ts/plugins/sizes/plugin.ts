// Sorts earthquakes by size: marks small ones, sends big ones on with a copy for the audit, raises alarms.

import {
  ConfigError,
  Refused,
  context,
  drop,
  forward,
  log,
  reject,
  retry,
  route,
  type ConfigOf,
  type Message,
  type Outgoing,
  type Verdict,
} from "quipu";

export const schema = { at_least: Number, audit: "audit", alarm_at: 6 };
type Config = ConfigOf<typeof schema>;

/** What a quake may have; nobody has checked it. */
interface Quake {
  mag?: unknown;
  net?: unknown;
  place?: unknown;
}

export function configure(config: Config): void {
  if (config.audit === "") throw new ConfigError("audit: empty");
  if (config.alarm_at < config.at_least) throw new ConfigError("alarm_at: below at_least");
}

export function process(message: Message, config: Config): Verdict {
  switch (message.header("type")) {
    case "quarry blast":
      log.debug("a quarry blast is left out");
      return drop("quarry blast");
    case "later":
      return retry("comes later", 1500);
    case "fault":
      message.setHeader("size", "lost");
      message.emitCopy(config.audit);
      throw new Error("asked to fail");
    case "swap":
      message.setPayload(message.payload.slice().reverse());
      message.setKey("swapped");
      return forward();
    case "echo":
      return echo(message);
  }
  if (message.payloadLength === 0) return reject("empty payload");
  let quake: Quake | null | undefined;
  try {
    quake = message.json?.properties;
  } catch {
    return reject("the payload is no JSON");
  }
  const mag = quake?.mag;
  if (typeof mag !== "number") return reject("no magnitude");
  const net = typeof quake?.net === "string" ? quake.net : "";
  if (net === "") log.warn("no network");
  if (mag < config.at_least) {
    message.setHeader("size", "small");
    message.removeHeader("trace");
    return forward();
  }
  return big(message, config, mag, net, typeof quake?.place === "string" ? quake.place : "unknown");
}

function big(message: Message, config: Config, mag: number, net: string, place: string): Verdict {
  message.setHeader("size", "big");
  message.addHeader("seen", "sizes");
  if (net === "") message.removeKey();
  else message.setKey(net);
  try {
    message.emitCopy(message.header("audit") ?? config.audit);
  } catch (e) {
    if (e instanceof Refused) return retry(`audit refused: ${e.refusal}`, 5000);
    throw e;
  }
  if (mag >= config.alarm_at) {
    const key = net === "" ? null : net;
    emit(message, "alarm", { subject: "alarms", key, headers: { type: "alarm" }, priority: 9, payload: place });
  }
  return route("alerts", "big");
}

function emit(message: Message, what: string, outgoing: Outgoing): void {
  try {
    message.emit(outgoing);
  } catch (e) {
    throw e instanceof Refused ? new Error(`${what} refused: ${e.refusal}`) : e;
  }
}

function echo(message: Message): Verdict {
  const { key, headers } = message;
  emit(message, "echo", { subject: "echoes", key, headers, payload: message.payloadRange(4, 6) });
  if (context.plugin === "" || context.route === "") throw new Error("no context");
  if (context.nowMs < message.publishedMs) throw new Error("no clock");
  void context.seed;
  const { id, subject, originSubject, attempt, priority, payloadLength: length } = message;
  const traces = message.headerValues("trace").join("|") || "none";
  log.info(
    `${id} ${subject} ${originSubject} ${attempt} ${priority} ${length} ` +
      `${message.expiresMs ?? "none"} ${message.replyTo ?? "none"} ${traces}`,
  );
  message.setPayload(message.text === null ? `echo of ${length} bytes` : `echo ${message.text}`);
  message.removeKey();
  message.removeHeader("trace");
  return forward();
}
