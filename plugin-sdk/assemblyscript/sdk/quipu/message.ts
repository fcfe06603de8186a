// The message in hand, verdicts, new messages, log and context.

import * as abi from "./abi";
import { Json } from "./json";

/** What becomes of the message in hand; made by the functions below. */
export class Verdict {
  delayMs: u64 = 0;
  subjects: string[] = [];

  constructor(public kind: u8, public reason: string) {}
}

/** To the next plugin of the chain; after the last one, to the route's `to`. */
export function forward(): Verdict {
  return new Verdict(0, "");
}

/** As forward, but these subjects, 1 to 64, take the place of `to`. */
export function route(subjects: string[]): Verdict {
  const verdict = new Verdict(1, "");
  verdict.subjects = subjects;
  return verdict;
}

/** Settled and gone. Drops are counted by their reason: leave out what differs from message to message. */
export function drop(reason: string): Verdict {
  return new Verdict(2, reason);
}

/** Try again after the route's own backoff. */
export function retry(reason: string): Verdict {
  return new Verdict(3, reason);
}

/** Try again after so many milliseconds, below 2^53. */
export function retryAfter(ms: u64, reason: string): Verdict {
  const verdict = new Verdict(3, reason);
  verdict.delayMs = min<u64>(ms, (1 << 53) - 1);
  return verdict;
}

/** To the dead-letter queue now. */
export function reject(reason: string): Verdict {
  return new Verdict(4, reason);
}

export class Header {
  constructor(public name: string, public value: string) {}
}

/** Text as bytes, for keys and payloads. */
export function utf8(text: string): Uint8Array {
  return Uint8Array.wrap(String.UTF8.encode(text));
}

/**
 * A new message. The headers `quipu-id`, `quipu-expires-ms`, `quipu-deliver-at-ms` and `quipu-priority` set those
 * properties.
 */
export class Outgoing {
  key: Uint8Array | null = null;
  headers: Header[] = [];
  payload: Uint8Array = new Uint8Array(0);

  constructor(public subject: string) {}

  /** Adds a header. */
  header(name: string, value: string): Outgoing {
    this.headers.push(new Header(name, value));
    return this;
  }
}

/** What the router said to a new message. */
export enum Refusal {
  Taken,
  /** Too many of them for one message in hand, or too large together. */
  Limit,
  /** An invalid subject, key, header or property. */
  Invalid,
  /** The route does not let this plugin publish there. */
  NotGranted,
  /** It would come back to this route. */
  Loop,
}

/** `limit`, `invalid`, `not-granted` or `loop`; `taken` where it was not refused. */
export function refusalName(refusal: Refusal): string {
  switch (refusal) {
    case Refusal.Taken: return "taken";
    case Refusal.Limit: return "limit";
    case Refusal.Invalid: return "invalid";
    case Refusal.NotGranted: return "not-granted";
    default: return "loop";
  }
}

/**
 * The message in hand, as the plugins before this one left it. Each read asks the router; the payload is fetched once,
 * on first use.
 */
export class Message {
  private fetched: Uint8Array | null = null;
  private parsed: Json | null = null;
  /** What was wrong with a payload that has been replaced since. */
  private problem: string = "";

  get id(): string {
    abi.message_id(abi.RESULT);
    return abi.textAt(abi.RESULT);
  }

  /** The subject that brought it here. */
  get subject(): string {
    abi.message_subject(abi.RESULT);
    return abi.textAt(abi.RESULT);
  }

  /** The subject it was first published to. */
  get originSubject(): string {
    abi.message_origin_subject(abi.RESULT);
    return abi.textAt(abi.RESULT);
  }

  /** The subject that waits for a reply. */
  get replyTo(): string | null {
    abi.message_reply_to(abi.RESULT);
    return abi.optionalTextAt(abi.RESULT);
  }

  get key(): Uint8Array | null {
    abi.message_key(abi.RESULT);
    return load<u8>(abi.RESULT) ? abi.bytesAt(abi.RESULT + 4) : null;
  }

  /** First value of this header; names compare without case. */
  header(name: string): string | null {
    const n = String.UTF8.encode(name);
    abi.message_header(changetype<usize>(n), n.byteLength, abi.RESULT);
    return abi.optionalTextAt(abi.RESULT);
  }

  /** All values of this header, in order. */
  headerValues(name: string): string[] {
    const n = String.UTF8.encode(name);
    abi.message_header_values(changetype<usize>(n), n.byteLength, abi.RESULT);
    const list = abi.pointerAt(abi.RESULT), count = <i32>abi.lengthAt(abi.RESULT);
    const values = new Array<string>(count);
    for (let i = 0; i < count; i++) values[i] = abi.textAt(list + i * 8);
    return values;
  }

  /** All headers, in order. */
  headers(): Header[] {
    abi.message_headers(abi.RESULT);
    const list = abi.pointerAt(abi.RESULT), count = <i32>abi.lengthAt(abi.RESULT);
    const headers = new Array<Header>(count);
    for (let i = 0; i < count; i++) headers[i] = new Header(abi.textAt(list + i * 16), abi.textAt(list + i * 16 + 8));
    return headers;
  }

  get payload(): Uint8Array {
    let payload = this.fetched;
    if (payload === null) {
      abi.message_payload(abi.RESULT);
      payload = abi.bytesAt(abi.RESULT);
      this.fetched = payload;
    }
    return payload;
  }

  /** In bytes, without fetching it. */
  get payloadLength(): u32 {
    return abi.message_payload_len();
  }

  /** The payload where it is UTF-8. */
  get payloadText(): string | null {
    abi.message_payload_text(abi.RESULT);
    return abi.optionalTextAt(abi.RESULT);
  }

  /** Part of the payload, clamped to it, without fetching the rest. */
  payloadRange(offset: u32, length: u32): Uint8Array {
    abi.message_payload_range(offset, length, abi.RESULT);
    return abi.bytesAt(abi.RESULT);
  }

  /** The payload as JSON, read by path. */
  get json(): Json {
    let json = this.parsed;
    if (json === null) {
      json = new Json(this.payload, "the payload");
      this.parsed = json;
    }
    return json;
  }

  /** Unix milliseconds. */
  get publishedMs(): u64 {
    return abi.message_published_ms();
  }

  /** Whether it ever expires. */
  get expires(): bool {
    abi.message_expires_ms(abi.RESULT);
    return load<u8>(abi.RESULT) != 0;
  }

  /** Unix milliseconds; 0 where it never expires. */
  get expiresMs(): u64 {
    abi.message_expires_ms(abi.RESULT);
    return load<u8>(abi.RESULT) ? load<u64>(abi.RESULT, 8) : 0;
  }

  /** 1 on the first try. */
  get attempt(): u32 {
    return abi.message_attempt();
  }

  /** 0 to 9. */
  get priority(): u8 {
    return <u8>abi.message_priority();
  }

  // Changes. They count once the verdict is to forward or to route. An invalid name or value is a fault.

  /** Takes the place of all values of this header. */
  setHeader(name: string, value: string): void {
    const n = String.UTF8.encode(name), v = String.UTF8.encode(value);
    abi.edit_set_header(changetype<usize>(n), n.byteLength, changetype<usize>(v), v.byteLength);
  }

  /** Adds a value. */
  addHeader(name: string, value: string): void {
    const n = String.UTF8.encode(name), v = String.UTF8.encode(value);
    abi.edit_add_header(changetype<usize>(n), n.byteLength, changetype<usize>(v), v.byteLength);
  }

  /** Removes all values. */
  removeHeader(name: string): void {
    const n = String.UTF8.encode(name);
    abi.edit_remove_header(changetype<usize>(n), n.byteLength);
  }

  setKey(key: Uint8Array): void {
    abi.edit_set_key(key.dataStart, key.byteLength);
  }

  removeKey(): void {
    abi.edit_remove_key();
  }

  setPayload(payload: Uint8Array): void {
    abi.edit_set_payload(payload.dataStart, payload.byteLength);
    this.forget();
  }

  setPayloadText(text: string): void {
    const t = String.UTF8.encode(text);
    abi.edit_set_payload_text(changetype<usize>(t), t.byteLength);
    this.forget();
  }

  private forget(): void {
    this.problem = this.wrong;
    this.fetched = null;
    this.parsed = null;
  }

  /** The first thing in the payload that was not as asked for, or "". */
  get wrong(): string {
    const json = this.parsed;
    return this.problem.length || json === null ? this.problem : json.problem;
  }

  // New messages. They go out before the message in hand; undone on retry, reject and a fault, kept on drop.

  /** Publishes a new message. */
  emit(message: Outgoing): Refusal {
    const subject = String.UTF8.encode(message.subject);
    const count = message.headers.length;
    // Pointers and lengths for the router, and the texts that they point to.
    const list = new StaticArray<u32>(count * 4);
    const texts: ArrayBuffer[] = [];
    for (let i = 0; i < count; i++) {
      const name = String.UTF8.encode(message.headers[i].name), value = String.UTF8.encode(message.headers[i].value);
      texts.push(name);
      texts.push(value);
      list[i * 4] = changetype<u32>(name);
      list[i * 4 + 1] = name.byteLength;
      list[i * 4 + 2] = changetype<u32>(value);
      list[i * 4 + 3] = value.byteLength;
    }
    const key = message.key;
    abi.emit_publish(
      changetype<usize>(subject), subject.byteLength,
      key === null ? 0 : 1, key === null ? 0 : key.dataStart, key === null ? 0 : key.byteLength,
      changetype<usize>(list), count,
      message.payload.dataStart, message.payload.byteLength,
      abi.RESULT,
    );
    return refusal();
  }

  /** Publishes a copy of the message in hand, as edited so far. Its payload stays with the router. */
  emitCopy(subject: string): Refusal {
    const s = String.UTF8.encode(subject);
    abi.emit_copy(changetype<usize>(s), s.byteLength, abi.RESULT);
    return refusal();
  }
}

function refusal(): Refusal {
  return load<u8>(abi.RESULT) ? <Refusal>(load<u8>(abi.RESULT, 1) + 1) : Refusal.Taken;
}

/** Lines for the router's log. Their number and length are limited. */
export namespace log {
  function say(level: u32, text: string): void {
    const t = String.UTF8.encode(text);
    abi.log_log(level, changetype<usize>(t), t.byteLength);
  }

  export function trace(text: string): void { say(0, text); }
  export function debug(text: string): void { say(1, text); }
  export function info(text: string): void { say(2, text); }
  export function warn(text: string): void { say(3, text); }
  export function error(text: string): void { say(4, text); }
}

/** Where the plugin runs. */
export namespace context {
  /** The plugin's name, as the route knows it. */
  export function plugin(): string {
    abi.context_plugin(abi.RESULT);
    return abi.textAt(abi.RESULT);
  }

  /** Name of the route that uses it. */
  export function route(): string {
    abi.context_route(abi.RESULT);
    return abi.textAt(abi.RESULT);
  }

  /** Unix time in milliseconds. Stands still within an attempt. */
  export function nowMs(): u64 {
    return abi.context_now_ms();
  }

  /** Random; the same throughout an attempt and its replay. */
  export function seed(): u64 {
    return abi.context_seed();
  }
}
