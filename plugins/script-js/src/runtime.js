// Between the plugin and the SDK for JavaScript, whose names a script has without importing them.

import { parse } from "./parse.js";
import * as quipu from "quipu";

export { checked } from "./config.js";
export const { loaded, message } = quipu;

const NAMES = ["forward", "route", "drop", "reject", "retry", "log", "context", "Reject", "ConfigError", "Refused"];
for (const name of NAMES) globalThis[name] = quipu[name];
globalThis.console = { ...quipu.log, log: quipu.log.info };

// Begins anew with each message, by the router's own seed, so that a replay sees the same: xorshift32.
let chance = 0;
Math.random = () => {
  if (chance === 0) chance = quipu.context.seed >>> 0 || 1;
  chance ^= chance << 13;
  chance ^= chance >>> 17;
  chance ^= chance << 5;
  return (chance >>> 0) / 2 ** 32;
};

JSON.parse = (text, reviver) => {
  const value = parse(String(text));
  return typeof reviver === "function" ? revived({ "": value }, "", reviver) : value;
};

function revived(holder, name, reviver) {
  const value = holder[name];
  if (value !== null && typeof value === "object") {
    for (const key of Object.keys(value)) {
      const made = revived(value, key, reviver);
      if (made === undefined) delete value[key];
      else value[key] = made;
    }
  }
  return reviver.call(holder, name, value);
}

/** Forgets the message before. */
export function begin() {
  quipu.message.begin();
  chance = 0;
}

/** The texts of exceptions that are answers. */
export const rejected = (e) => (e instanceof quipu.Reject ? e.message : undefined);
export const refused = (e) => (e instanceof quipu.ConfigError ? e.message : undefined);
