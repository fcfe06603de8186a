// What the module "quipu" has, for TypeScript and for editors.

declare module "quipu" {
  /** What becomes of the message in hand: made by forward, route, drop, retry or reject. */
  export type Verdict =
    | { readonly tag: "forward" }
    | { readonly tag: "route"; readonly val: readonly string[] }
    | { readonly tag: "drop"; readonly val: string }
    | { readonly tag: "retry"; readonly val: { readonly ms: number; readonly reason: string } }
    | { readonly tag: "reject"; readonly val: string };

  /** To the next plugin of the chain; after the last one, to the route's `to`. */
  export function forward(): Verdict;
  /** As forward, but these 1 to 64 subjects take the place of `to`. */
  export function route(...subjects: string[] | [readonly string[]]): Verdict;
  /** Settled and gone. Reasons are counted: leave out what differs from message to message. */
  export function drop(reason: string): Verdict;
  /** Try again after so many milliseconds; 0, which it is if left out, means the route's own backoff. */
  export function retry(reason: string, ms?: number): Verdict;
  /** To the dead-letter queue now. */
  export function reject(reason: string): Verdict;

  /** Thrown out of `process`, it rejects the message with its text. Any other exception is a fault. */
  export class Reject extends Error {}
  /** Thrown out of `configure`, it refuses the configuration with its text. */
  export class ConfigError extends Error {}
  /** The router did not take a new message. */
  export class Refused extends Error {
    readonly refusal: "limit" | "invalid" | "not-granted" | "loop";
  }

  /** A value of JSON. */
  export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
  /** Types that `schema` and `jsonAt` can name. */
  export type Type =
    | NumberConstructor
    | StringConstructor
    | BooleanConstructor
    | ArrayConstructor
    | ObjectConstructor;
  /** The value that a Type stands for. */
  export type ValueOf<T> = T extends NumberConstructor | number
    ? number
    : T extends StringConstructor | string
      ? string
      : T extends BooleanConstructor | boolean
        ? boolean
        : T extends ArrayConstructor
          ? Json[]
          : T extends ObjectConstructor
            ? { [name: string]: Json }
            : T;
  /** Keys of a configuration: a Type is required, any other value is the default. Exported as `schema`. */
  export type Schema = { readonly [key: string]: Type | Json };
  /** The configuration that a schema lets through: `type Config = ConfigOf<typeof schema>`. */
  export type ConfigOf<S> = { readonly [K in keyof S]: ValueOf<S[K]> };

  /** A new message. Without `payload` and `json` it is empty. */
  export interface Outgoing {
    subject: string;
    key?: string | Uint8Array | null;
    headers?: { [name: string]: string } | readonly (readonly [name: string, value: string])[];
    payload?: string | Uint8Array;
    json?: unknown;
    /** Stores a repeated message once. Without it the router derives one. */
    id?: string;
    expiresMs?: number;
    deliverAtMs?: number;
    /** 0 to 9. */
    priority?: number;
  }

  /** The message in hand, as the plugins before this one left it. Payload, text and JSON are read on first use. */
  export interface Message {
    readonly id: string;
    readonly subject: string;
    /** The subject it was first published to. */
    readonly originSubject: string;
    readonly key: Uint8Array | null;
    /** The key, where it is UTF-8. */
    readonly keyText: string | null;
    /** All, in order. */
    readonly headers: [name: string, value: string][];
    /** Unix time. */
    readonly publishedMs: number;
    readonly expiresMs: number | null;
    /** 1 on the first try. */
    readonly attempt: number;
    readonly priority: number;
    readonly replyTo: string | null;
    /** The first value; names compare without case. */
    header(name: string): string | null;
    headerValues(name: string): string[];

    readonly payload: Uint8Array;
    /** In bytes, without fetching it. */
    readonly payloadLength: number;
    /** Part of the payload, clamped to it; fetches that part alone. */
    payloadRange(offset: number, length: number): Uint8Array;
    /** The payload, where it is UTF-8. */
    readonly text: string | null;
    /** The payload as JSON; where it is none, the message is rejected. Changing the value does not change the
     * message: that is `setJson`. */
    readonly json: any;
    /** One field by its dotted path, as `properties.mag`. Absent, or of another type: the message is rejected, and the
     * reason says where. */
    jsonAt(path: string): any;
    jsonAt<T extends Type>(path: string, type: T): ValueOf<T>;

    /** Takes the place of all values of this header. */
    setHeader(name: string, value: string): void;
    addHeader(name: string, value: string): void;
    removeHeader(name: string): void;
    setKey(key: string | Uint8Array): void;
    removeKey(): void;
    setPayload(payload: string | Uint8Array): void;
    setJson(value: unknown): void;

    /** Publishes a new message. Throws Refused. */
    emit(message: Outgoing): void;
    /** Publishes a copy of the message in hand, as changed so far; the payload stays with the router. Throws
     * Refused. */
    emitCopy(subject: string): void;
  }

  /** Lines for people. Parts that are no text are shown as JSON. `console` does the same. */
  export const log: {
    trace(...parts: unknown[]): void;
    debug(...parts: unknown[]): void;
    info(...parts: unknown[]): void;
    warn(...parts: unknown[]): void;
    error(...parts: unknown[]): void;
  };

  export const context: {
    /** The plugin's name. */
    readonly plugin: string;
    readonly route: string;
    /** Unix time; stands still while one message is processed. `Date.now()` is the same. */
    readonly nowMs: number;
    /** Random, below 2^53; the same for each look at one message. `Math.random()` begins with it. */
    readonly seed: number;
  };
}

declare const console: typeof import("quipu").log & { log(...parts: unknown[]): void };
