// What a plugin imports: import { forward, drop } from "quipu". Described by quipu.d.ts.

import * as contextCalls from "quipu:plugin/context@0.1.0";
import * as editCalls from "quipu:plugin/edit@0.1.0";
import * as emitCalls from "quipu:plugin/emit@0.1.0";
import * as logCalls from "quipu:plugin/log@0.1.0";
import * as messageCalls from "quipu:plugin/message@0.1.0";
import { decode, encode } from "./utf8.js";
import { expectJson, fieldOf, parsePath } from "./json.js";

/** Thrown out of `process`, it rejects the message with its text. */
export class Reject extends Error {
  name = "Reject";
}

/** Thrown out of `configure`, it refuses the configuration with its text. */
export class ConfigError extends Error {
  name = "ConfigError";
}

/** The router did not take a new message; `refusal` is `limit`, `invalid`, `not-granted` or `loop`. */
export class Refused extends Error {
  name = "Refused";
  constructor(subject, refusal) {
    super(`the router refused the message to ${JSON.stringify(subject)}: ${refusal}`);
    this.refusal = refusal;
  }
}

const FORWARD = Object.freeze({ tag: "forward" });

export const forward = () => FORWARD;
export const drop = (reason) => ({ tag: "drop", val: text("drop", "a reason", reason) });
export const reject = (reason) => ({ tag: "reject", val: text("reject", "a reason", reason) });

export function route(...subjects) {
  const all = subjects.flat().map((subject) => text("route", "subjects", subject));
  return { tag: "route", val: all };
}

export function retry(reason, ms = 0) {
  if (!Number.isSafeInteger(ms) || ms < 0) {
    throw new TypeError(`retry takes whole milliseconds from 0 on, not ${shown(ms)}`);
  }
  return { tag: "retry", val: { ms, reason: text("retry", "a reason", reason) } };
}

function text(taker, what, value) {
  if (typeof value !== "string") throw new TypeError(`${taker} takes ${what} as text, not ${shown(value)}`);
  return value;
}

function shown(value) {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

// While a plugin is built its modules are run once, with no router there to call.
let loading = true;
export function loaded() {
  loading = false;
}

function called(name) {
  if (loading) {
    throw new Error(
      `${name} was used while the module loads, and that happens when the plugin is built: ` +
        "there is no router yet. Use it in configure or process",
    );
  }
}

const say = (level) => (...parts) => {
  called(`log.${level}`);
  logCalls.log(level, parts.map((part) => (typeof part === "string" ? part : inspect(part))).join(" "));
};

function inspect(value) {
  if (value instanceof Error) return String(value);
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

export const log = Object.freeze({
  trace: say("trace"),
  debug: say("debug"),
  info: say("info"),
  warn: say("warn"),
  error: say("error"),
});

export const context = Object.freeze({
  get plugin() {
    called("context.plugin");
    return contextCalls.plugin();
  },
  get route() {
    called("context.route");
    return contextCalls.route();
  },
  get nowMs() {
    called("context.nowMs");
    return contextCalls.nowMs();
  },
  get seed() {
    called("context.seed");
    return contextCalls.seed();
  },
});

/** The message in hand. One object stands for all of them, one after the other. */
class Message {
  #payload;
  #text;
  #json;

  /** Forgets what was read of the message before. */
  begin() {
    this.#payload = this.#text = this.#json = undefined;
  }

  get id() {
    return messageCalls.id();
  }
  get subject() {
    return messageCalls.subject();
  }
  get originSubject() {
    return messageCalls.originSubject();
  }
  get key() {
    return messageCalls.key();
  }
  get keyText() {
    const key = messageCalls.key();
    return key === null ? null : decode(key);
  }
  get headers() {
    return messageCalls.headers();
  }
  get publishedMs() {
    return messageCalls.publishedMs();
  }
  get expiresMs() {
    return messageCalls.expiresMs();
  }
  get attempt() {
    return messageCalls.attempt();
  }
  get priority() {
    return messageCalls.priority();
  }
  get replyTo() {
    return messageCalls.replyTo();
  }
  header(name) {
    return messageCalls.header(name);
  }
  headerValues(name) {
    return messageCalls.headerValues(name);
  }

  get payload() {
    return (this.#payload ??= messageCalls.payload());
  }
  get payloadLength() {
    return messageCalls.payloadLen();
  }
  payloadRange(offset, length) {
    return messageCalls.payloadRange(offset, length);
  }
  get text() {
    // The engine has no decoder; the router's own is a hundred times as fast as one written here.
    if (this.#text === undefined) this.#text = messageCalls.payloadText();
    return this.#text;
  }
  get json() {
    if (this.#json === undefined) {
      if (this.text === null) throw new Reject("the payload is no JSON: it is not UTF-8");
      try {
        this.#json = JSON.parse(this.text);
      } catch (e) {
        throw new Reject(`the payload is no JSON: ${e.message}`);
      }
    }
    return this.#json;
  }
  jsonAt(path, type) {
    const field = fieldOf(this.json, parsePath(path));
    if (field.problem !== undefined) throw new Reject(`${path}: ${field.problem}`);
    if (type !== undefined) {
      const problem = expectJson(field.value, type);
      if (problem !== undefined) throw new Reject(`${path}: ${problem}`);
    }
    return field.value;
  }

  setHeader(name, value) {
    editCalls.setHeader(name, text("setHeader", "a value", value));
  }
  addHeader(name, value) {
    editCalls.addHeader(name, text("addHeader", "a value", value));
  }
  removeHeader(name) {
    editCalls.removeHeader(name);
  }
  setKey(key) {
    editCalls.setKey(bytes("setKey", key));
  }
  removeKey() {
    editCalls.removeKey();
  }
  setPayload(payload) {
    if (typeof payload === "string") editCalls.setPayloadText(payload);
    else editCalls.setPayload(bytes("setPayload", payload));
    this.begin();
  }
  setJson(value) {
    this.setPayload(json("setJson", value));
  }

  emit(outgoing) {
    const { subject } = outgoing;
    sent(subject, () => emitCalls.publish(wire(outgoing)));
  }
  emitCopy(subject) {
    sent(subject, () => emitCalls.copy(text("emitCopy", "a subject", subject)));
  }
}

export const message = new Message();

function bytes(taker, value) {
  if (typeof value === "string") return encode(value);
  if (value instanceof Uint8Array) return value;
  throw new TypeError(`${taker} takes a text or a Uint8Array, not ${shown(value)}`);
}

function json(taker, value) {
  const made = JSON.stringify(value);
  if (made === undefined) throw new TypeError(`${taker} takes what JSON can say, not ${shown(value)}`);
  return made;
}

/** What the router refuses is thrown by the engine as the `payload` of an Error. */
function sent(subject, send) {
  try {
    send();
  } catch (e) {
    if (typeof e?.payload === "string") throw new Refused(subject, e.payload);
    throw e;
  }
}

/** Properties of a new message, by the headers that stand for them. */
const PROPERTIES = {
  id: "quipu-id",
  expiresMs: "quipu-expires-ms",
  deliverAtMs: "quipu-deliver-at-ms",
  priority: "quipu-priority",
};

function wire({ subject, key = null, headers = [], payload, json: value, ...rest }) {
  const all = (Array.isArray(headers) ? headers : Object.entries(headers)).map(([name, value]) => [
    name,
    text("emit", "values of headers", value),
  ]);
  for (const [name, value] of Object.entries(rest)) {
    if (!Object.hasOwn(PROPERTIES, name)) throw new TypeError(`emit: a message has no ${JSON.stringify(name)}`);
    if (value !== undefined && value !== null) all.push([PROPERTIES[name], String(value)]);
  }
  if (payload !== undefined && value !== undefined) throw new TypeError("emit: either payload or json");
  return {
    subject: text("emit", "a subject", subject),
    key: key === null ? null : bytes("emit", key),
    headers: all,
    payload: bytes("emit", value === undefined ? (payload ?? "") : json("emit", value)),
  };
}
