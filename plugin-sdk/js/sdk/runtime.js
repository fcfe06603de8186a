// What the router calls: takes a plugin's module, gives the contract's handler. Exceptions are said before they trap.

import * as contextCalls from "quipu:plugin/context@0.1.0";
import * as logCalls from "quipu:plugin/log@0.1.0";
import { checked } from "./config.js";
import { Reject, ConfigError, context, loaded, log, message } from "./quipu.js";
import { located } from "./stack.js";

// The engine's own clock and console need a system that is not there.
const EngineDate = Date;
globalThis.Date = class Date extends EngineDate {
  constructor(...given) {
    if (given.length > 0) super(...given);
    else super(context.nowMs);
  }
  static now() {
    return context.nowMs;
  }
};
globalThis.console = { ...log, log: log.info };

// Its chance was frozen when the plugin was built. This one begins anew with each message, by the router's own seed, so
// that a replay sees the same: xorshift32.
let chance = 0;
Math.random = () => {
  if (chance === 0) chance = context.seed >>> 0 || 1;
  chance ^= chance << 13;
  chance ^= chance >>> 17;
  chance ^= chance << 5;
  return (chance >>> 0) / 2 ** 32;
};

/** Errors that the language throws for mistakes; anything else that `configure` throws is its answer. */
const MISTAKES = [TypeError, ReferenceError, RangeError, SyntaxError, URIError, EvalError];

export function handler(plugin) {
  if (typeof plugin.process !== "function") {
    throw new Error("the plugin exports no function `process`: export function process(message, config) { … }");
  }
  let config;
  return {
    configure() {
      loaded();
      try {
        config = checked(JSON.parse(contextCalls.config() || "{}"), plugin.schema);
        plugin.configure?.(config);
      } catch (e) {
        if (typeof e === "string") throw e;
        if (e instanceof ConfigError) throw e.message;
        if (e instanceof Error && !MISTAKES.some((kind) => e instanceof kind)) throw withPlace(e);
        fault(e);
      }
    },
    process() {
      message.begin();
      chance = 0;
      try {
        return verdict(plugin.process(message, config));
      } catch (e) {
        if (e instanceof Reject) return { tag: "reject", val: e.message };
        fault(e);
      }
    },
  };
}

function withPlace(error) {
  const [first] = located(error);
  return first === undefined ? error.message : `${error.message} (${first.place})`;
}

function fault(error) {
  const isError = error instanceof Error;
  const frames = isError ? located(error) : [];
  // The text has the place too: it is often all that is shown.
  const place = frames.length > 0 ? ` (${frames[0].place})` : "";
  const text = (isError ? String(error) : `thrown: ${String(error)}`) + place;
  const lines = frames.flatMap(({ shown, source }) => (source ? [shown, `    | ${source}`] : [shown]));
  logCalls.fault(text, lines.join("\n"));
  throw error;
}

const TAGS = ["forward", "route", "drop", "retry", "reject"];

function verdict(value) {
  if (TAGS.includes(value?.tag)) return value;
  if (typeof value?.then === "function") {
    throw new TypeError("process gave a promise: it cannot be async, since there is nothing to wait for");
  }
  throw new TypeError(
    `process gave ${value === undefined ? "nothing" : String(value)}: ` +
      "it has to return forward(), route(…), drop(…), retry(…) or reject(…)",
  );
}
