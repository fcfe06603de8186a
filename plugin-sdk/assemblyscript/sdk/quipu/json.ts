// JSON by path. The text is checked as a whole once; after that, values are found by walking it, and nothing is built.

import {
  BACKSLASH, BRACE, BRACE_END, BRACKET, BRACKET_END, COLON, COMMA, Checker, DOT, QUOTE, hex, isSpace, isUtf8,
} from "./check";
import { parseNumber } from "./number";

/** What stands at a path. */
export enum Kind {
  NoJson,
  Absent,
  Null,
  Bool,
  Number,
  Text,
  Array,
  Object,
}

// Walking what is known to be valid.

function skipSpace(at: usize, end: usize): usize {
  while (at < end && isSpace(load<u8>(at))) at++;
  return at;
}

function skipText(at: usize): usize {
  for (at++; load<u8>(at) != QUOTE; at++) if (load<u8>(at) == BACKSLASH) at++;
  return at + 1;
}

/** Behind the value that begins here. */
function skipValue(at: usize, end: usize): usize {
  let depth = 0;
  do {
    const c = load<u8>(at);
    if (c == QUOTE) at = skipText(at);
    else if (c == BRACE || c == BRACKET) depth++, at++;
    else if (c == BRACE_END || c == BRACKET_END) depth--, at++;
    else if (c == COMMA || c == COLON || isSpace(c)) at++;
    else {
      while (at < end) {
        const c = load<u8>(at);
        if (c == COMMA || c == BRACE_END || c == BRACKET_END || isSpace(c)) break;
        at++;
      }
    }
  } while (depth);
  return at;
}

function kindAt(at: usize): Kind {
  const c = load<u8>(at);
  if (c == BRACE) return Kind.Object;
  if (c == BRACKET) return Kind.Array;
  if (c == QUOTE) return Kind.Text;
  if (c == 0x74 || c == 0x66) return Kind.Bool;
  return c == 0x6e ? Kind.Null : Kind.Number;
}

/** What a backslash makes of this character. */
function unescapedByte(c: u8): i32 {
  switch (c) {
    case 0x62: return 0x08;
    case 0x66: return 0x0c;
    case 0x6e: return 0x0a;
    case 0x72: return 0x0d;
    case 0x74: return 0x09;
    default: return c;
  }
}

/** What the text between these quotes says. */
function unescaped(begin: usize, end: usize): string {
  let said = "", from = begin + 1;
  const last = end - 1;
  for (let at = from; at < last;) {
    if (load<u8>(at) != BACKSLASH) {
      at++;
      continue;
    }
    said += String.UTF8.decodeUnsafe(from, at - from);
    const c = load<u8>(at + 1);
    at += 2;
    if (c == 0x75) {
      said += String.fromCharCode(hex(at, last));
      at += 4;
    } else {
      said += String.fromCharCode(unescapedByte(c));
    }
    from = at;
  }
  return said + String.UTF8.decodeUnsafe(from, last - from);
}

/** The members of an object or the elements of an array, one after another. */
class Members {
  object: bool;
  name: usize = 0;
  nameEnd: usize = 0;
  value: usize = 0;
  private at: usize;

  constructor(container: usize, private end: usize) {
    this.object = load<u8>(container) == BRACE;
    this.at = container + 1;
  }

  next(): bool {
    let at = skipSpace(this.at, this.end);
    if (load<u8>(at) == COMMA) at = skipSpace(at + 1, this.end);
    if (load<u8>(at) == BRACE_END || load<u8>(at) == BRACKET_END) return false;
    if (this.object) {
      this.name = at;
      this.nameEnd = skipText(at);
      at = skipSpace(skipSpace(this.nameEnd, this.end) + 1, this.end);
    }
    this.value = at;
    this.at = skipValue(at, this.end);
    return true;
  }

  /** Whether the name is this one: as bytes, or where it has escapes, as what it says. */
  is(name: string, bytes: ArrayBuffer): bool {
    const begin = this.name + 1, length = this.nameEnd - this.name - 2;
    for (let i: usize = 0; i < length; i++) {
      const c = load<u8>(begin + i);
      if (c == BACKSLASH) return unescaped(this.name, this.nameEnd) == name;
      if (i >= <usize>bytes.byteLength || c != load<u8>(changetype<usize>(bytes) + i)) return false;
    }
    return length == <usize>bytes.byteLength;
  }
}

/** A name of a path. */
class Name {
  constructor(public text: string, public bytes: ArrayBuffer, public index: i32) {}
}

/** The number that a name is, or -1. */
function indexOf(name: string): i32 {
  if (!name.length || name.length > 9) return -1;
  for (let i = 0; i < name.length; i++) if (name.charCodeAt(i) - 0x30 > 9 || name.charCodeAt(i) < 0x30) return -1;
  return <i32>parseInt(name);
}

function split(path: string): Name[] {
  const names: Name[] = [];
  if (!path.length) return names;
  let name = "";
  for (let i = 0; i <= path.length; i++) {
    const c = i < path.length ? path.charCodeAt(i) : DOT;
    if (c == DOT) {
      names.push(new Name(name, String.UTF8.encode(name), indexOf(name)));
      name = "";
      continue;
    }
    if (c == BACKSLASH && i + 1 < path.length) i++;
    name += path.charAt(i);
  }
  return names;
}

/** Paths are mostly literals: the names of each are made once. */
const paths = new Map<string, Name[]>();
const PATHS_MAX = 256;

function namesOf(path: string): Name[] {
  if (paths.has(path)) return paths.get(path);
  const names = split(path);
  if (paths.size < PATHS_MAX) paths.set(path, names);
  return names;
}

function kindName(kind: Kind): string {
  switch (kind) {
    case Kind.NoJson: return "no JSON";
    case Kind.Absent: return "absent";
    case Kind.Null: return "null";
    case Kind.Bool: return "a boolean";
    case Kind.Number: return "a number";
    case Kind.Text: return "text";
    case Kind.Array: return "an array";
    default: return "an object";
  }
}

/**
 * JSON, read by path: names with dots between, `properties.mag`. A number picks an element of an array:
 * `coordinates.0`. A dot that belongs to a name is written `\\.`, and a backslash `\\\\`. Of names that occur twice, the
 * last one counts.
 *
 * What is not as asked for is remembered. The first such thing of a payload rejects the message with its text, whatever
 * `process` returns; of a configuration it refuses the plugin. The plugin may go on with the NaN, 0 or "" that it got.
 */
export class Json {
  /** The first thing that was not as asked for, or "". */
  problem: string = "";
  private checked: bool = false;
  private invalid: string = "";
  protected begin: usize;
  protected end: usize;
  protected found: usize = 0;

  constructor(protected data: Uint8Array, private name: string) {
    this.begin = data.dataStart;
    this.end = data.dataStart + data.byteLength;
  }

  /** What is there; "" is the whole. Never an error. */
  kind(path: string): Kind {
    return this.find(path, false);
  }

  /** A number; anything else is a problem, and NaN. */
  number(path: string): f64 {
    return this.numberAt(path, NaN, true);
  }

  /** A number without fraction, between -2^53 and 2^53; anything else is a problem, and 0. */
  integer(path: string): i64 {
    return this.integerAt(path, 0, true);
  }

  /** A text; anything else is a problem, and "". */
  text(path: string): string {
    return this.textAt(path, "", true);
  }

  /** true or false; anything else is a problem, and false. */
  bool(path: string): bool {
    return this.boolAt(path, false, true);
  }

  /** As `number`, but where there is nothing, or null, it is `otherwise`. */
  numberOr(path: string, otherwise: f64): f64 {
    return this.numberAt(path, otherwise, false);
  }

  /** As `integer`, but where there is nothing, or null, it is `otherwise`. */
  integerOr(path: string, otherwise: i64): i64 {
    return this.integerAt(path, otherwise, false);
  }

  /** As `text`, but where there is nothing, or null, it is `otherwise`. */
  textOr(path: string, otherwise: string): string {
    return this.textAt(path, otherwise, false);
  }

  /** As `bool`, but where there is nothing, or null, it is `otherwise`. */
  boolOr(path: string, otherwise: bool): bool {
    return this.boolAt(path, otherwise, false);
  }

  /** Elements of an array, or members of an object; of anything else a problem, and 0. */
  count(path: string): i32 {
    const kind = this.find(path, true);
    if (kind < Kind.Array) {
      if (kind >= Kind.Null) this.complain(this.place(path) + kindName(kind) + ", not an array or an object");
      return 0;
    }
    const members = new Members(this.found, this.end);
    let count = 0;
    while (members.next()) count++;
    return count;
  }

  /** What stands there, as JSON; where there is nothing a problem, and "". */
  raw(path: string): string {
    if (this.find(path, true) < Kind.Null) return "";
    return String.UTF8.decodeUnsafe(this.found, skipValue(this.found, this.end) - this.found);
  }

  /** Remembers a problem, unless there is one. */
  protected complain(problem: string): void {
    if (!this.problem.length) this.problem = problem;
  }

  protected isValid(): bool {
    if (!this.checked) {
      this.checked = true;
      const checker = new Checker(this.begin, this.end);
      if (!isUtf8(this.begin, this.end)) this.invalid = "it is not UTF-8";
      else if (!checker.all()) this.invalid = checker.why + " at byte " + (checker.at - this.begin).toString();
    }
    return !this.invalid.length;
  }

  protected notJson(): void {
    this.complain(this.name + " is no JSON: " + this.invalid);
  }

  /** Finds what is at a path; where that is nothing it may be a problem. */
  protected find(path: string, required: bool): Kind {
    if (!this.isValid()) {
      if (required) this.notJson();
      return Kind.NoJson;
    }
    this.found = skipSpace(this.begin, this.end);
    const names = namesOf(path);
    for (let i = 0; i < names.length; i++) {
      const last = this.found;
      if (this.member(names[i])) continue;
      if (required) this.absent(path, names, i, last);
      return Kind.Absent;
    }
    return kindAt(this.found);
  }

  /** The member of this name in what was found, the last of them; or the element with this number. */
  private member(name: Name): bool {
    const kind = kindAt(this.found);
    if (kind != Kind.Object && kind != Kind.Array) return false;
    const members = new Members(this.found, this.end);
    let there = false;
    for (let i = 0; members.next(); i++) {
      if (kind == Kind.Object ? members.is(name.text, name.bytes) : i == name.index) {
        this.found = members.value;
        there = true;
      }
    }
    return there;
  }

  /** Says that there is nothing: of the names, `missing` is the first that is not there, in the value `last`. */
  protected absent(path: string, names: Name[], missing: i32, last: usize): void {
    let place = this.name;
    if (missing > 0) {
      place = names[0].text;
      for (let i = 1; i < missing; i++) place += "." + names[i].text;
      place = '"' + place + '"';
    }
    const kind = kindAt(last);
    if (kind == Kind.Object || (kind == Kind.Array && names[missing].index >= 0)) {
      this.complain(path + ": absent: " + place + ' has no "' + names[missing].text + '"');
    } else {
      this.complain(path + ": absent: " + place + " is " + kindName(kind) + ", not an object");
    }
  }

  private place(path: string): string {
    return path.length ? path + ": " : "";
  }

  /** Finds a value of this kind. Another kind is a problem, and nothing, or null, where it is required. */
  private findKind(path: string, wanted: Kind, required: bool): bool {
    const kind = this.find(path, required);
    if (kind == wanted) return true;
    if (kind == Kind.NoJson) this.notJson();
    else if (kind > Kind.Null || required) {
      this.complain(this.place(path) + kindName(kind) + ", not " + kindName(wanted));
    }
    return false;
  }

  private numberAt(path: string, otherwise: f64, required: bool): f64 {
    if (!this.findKind(path, Kind.Number, required)) return otherwise;
    const value = parseNumber(this.found, skipValue(this.found, this.end));
    if (isFinite(value)) return value;
    this.complain(this.place(path) + this.raw(path) + ": out of range");
    return otherwise;
  }

  private integerAt(path: string, otherwise: i64, required: bool): i64 {
    if (!this.findKind(path, Kind.Number, required)) return otherwise;
    const value = parseNumber(this.found, skipValue(this.found, this.end));
    if (Math.abs(value) <= 9007199254740992 && value == <f64>(<i64>value)) return <i64>value;
    this.complain(this.place(path) + this.raw(path) + ", not an integer");
    return otherwise;
  }

  private textAt(path: string, otherwise: string, required: bool): string {
    if (!this.findKind(path, Kind.Text, required)) return otherwise;
    return unescaped(this.found, skipText(this.found));
  }

  private boolAt(path: string, otherwise: bool, required: bool): bool {
    return this.findKind(path, Kind.Bool, required) ? load<u8>(this.found) == 0x74 : otherwise;
  }
}

/** The configuration. Keys that are not read are refused. */
export class Config extends Json {
  private asked: string[] = [];

  constructor(data: Uint8Array) {
    super(data, "the configuration");
  }

  /** Refuses the configuration; begin with the key: `config.refuse("at_most: below at_least")`. */
  refuse(problem: string): void {
    this.complain(problem);
  }

  protected find(path: string, required: bool): Kind {
    this.asked.push(path);
    return super.find(path, required || !this.isValid());
  }

  protected absent(path: string, names: Name[], missing: i32, last: usize): void {
    this.complain("missing field `" + path + "`");
  }

  /** All that is wrong with it, or "". */
  verdict(): string {
    const kind = this.find("\0", false);
    this.asked.pop();
    if (kind == Kind.NoJson) return this.problem;
    const root = skipSpace(this.begin, this.end);
    if (kindAt(root) != Kind.Object) return "the configuration is " + kindName(kindAt(root)) + ", not an object";
    const unknown: string[] = [];
    this.listUnknown(root, "", unknown);
    if (!unknown.length) return this.problem;
    const stray = "unknown key" + (unknown.length == 1 ? " " : "s ") + unknown.join(", ");
    return this.problem.length ? this.problem + " (" + stray + ")" : stray;
  }

  private listUnknown(container: usize, above: string, unknown: string[]): void {
    const members = new Members(container, this.end);
    for (let i = 0; members.next(); i++) {
      const name = members.object ? escaped(unescaped(members.name, members.nameEnd)) : i.toString();
      const path = above.length ? above + "." + name : name;
      let read = false, within = false;
      for (let j = 0; j < this.asked.length; j++) {
        if (this.asked[j] == path || !this.asked[j].length) read = true;
        if (this.asked[j].startsWith(path + ".")) within = true;
      }
      if (read) continue;
      const kind = kindAt(members.value);
      if (within && (kind == Kind.Object || kind == Kind.Array)) this.listUnknown(members.value, path, unknown);
      else unknown.push("`" + path + "`");
    }
  }
}

/** A name as paths have it. */
function escaped(name: string): string {
  return name.replaceAll("\\", "\\\\").replaceAll(".", "\\.");
}

/** The text in quotes and escaped, for JSON that is put together by hand. */
export function quoted(text: string): string {
  let made = '"';
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c == QUOTE || c == BACKSLASH) made += "\\";
    if (c >= 0x20) made += text.charAt(i);
    else made += "\\u00" + (c >> 4).toString() + "0123456789abcdef".charAt(c & 15);
  }
  return made + '"';
}
