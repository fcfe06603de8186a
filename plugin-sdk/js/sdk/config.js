// A configuration against the `schema` that a plugin may export: { at_least: Number, label: "big" }. A type is
// required, any other value is the default, and its own type is required.

import { expectJson, kind } from "./json.js";
import { ConfigError } from "./quipu.js";

export function checked(config, schema) {
  if (schema === undefined) return config;
  const unknown = Object.keys(config).filter((key) => !Object.hasOwn(schema, key));
  const whole = {};
  for (const [key, wanted] of Object.entries(schema)) {
    const required = typeof wanted === "function";
    if (!Object.hasOwn(config, key)) {
      if (required) throw new ConfigError(`missing key \`${key}\`${hint(unknown)}`);
      whole[key] = wanted;
      continue;
    }
    const problem = expectJson(config[key], required ? wanted : Object(wanted).constructor);
    if (problem !== undefined) {
      const found = kind(config[key]) === "text" ? `${problem}: ${JSON.stringify(config[key])}` : problem;
      throw new ConfigError(`${key}: ${found}`);
    }
    whole[key] = config[key];
  }
  if (unknown.length > 0) throw new ConfigError(`unknown ${keys(unknown)}; known: ${Object.keys(schema).join(", ")}`);
  return whole;
}

function hint(unknown) {
  return unknown.length === 0 ? "" : ` (unknown ${keys(unknown)})`;
}

function keys(names) {
  return `key${names.length === 1 ? "" : "s"} ${names.map((name) => `\`${name}\``).join(", ")}`;
}
