// Fields of JSON by a dotted path, and what a value is called.

/** The names on the way: `a.b\.c` is `a`, then `b.c`. */
export function parsePath(path) {
  const names = [""];
  for (let i = 0; i < path.length; i++) {
    if (path[i] === ".") names.push("");
    else names[names.length - 1] += path[i] === "\\" && i + 1 < path.length ? path[++i] : path[i];
  }
  if (names.includes("")) throw new TypeError(`invalid path ${JSON.stringify(path)}: an empty name`);
  return names;
}

/** Either the `value` at these names, or the `problem` on the way to it. */
export function fieldOf(json, names) {
  let value = json;
  for (const [depth, name] of names.entries()) {
    const place = depth === 0 ? "the payload" : JSON.stringify(names.slice(0, depth).join("."));
    const hasNames = Array.isArray(value) ? /^[0-9]+$/.test(name) : value !== null && typeof value === "object";
    if (!hasNames) return { problem: `absent: ${place} is ${kind(value)}, not an object` };
    const isThere = Object.hasOwn(value, name);
    if (!isThere) return { problem: `absent: ${place} has no ${JSON.stringify(name)}` };
    value = value[name];
  }
  return { value };
}

const EXPECTED = new Map([
  [Number, "a number"],
  [String, "text"],
  [Boolean, "a boolean"],
  [Array, "an array"],
  [Object, "an object"],
]);

/** How a value of JSON differs from what was asked for, by its constructor; undefined where it does not. */
export function expectJson(value, type) {
  const expected = EXPECTED.get(type);
  if (expected === undefined) {
    throw new TypeError("a type is one of Number, String, Boolean, Array, Object");
  }
  return kind(value) === expected ? undefined : `found ${kind(value)}, expected ${expected}`;
}

/** As people call it. */
export function kind(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  switch (typeof value) {
    case "number":
      return "a number";
    case "string":
      return "text";
    case "boolean":
      return "a boolean";
    default:
      return "an object";
  }
}
