// The contract's functions by the canonical ABI. A text or list goes in as pointer and length. A result that is more
// than one number comes back through a pointer; its texts and lists are in memory that the router takes by
// `cabi_realloc`.
//
// That memory is managed as every other: nothing is freed by hand, and nothing is collected while a message is in hand.

// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "id")
export declare function message_id(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "subject")
export declare function message_subject(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "origin-subject")
export declare function message_origin_subject(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "key")
export declare function message_key(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "header")
export declare function message_header(name: usize, length: u32, result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "header-values")
export declare function message_header_values(name: usize, length: u32, result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "headers")
export declare function message_headers(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "payload-len")
export declare function message_payload_len(): u32;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "payload")
export declare function message_payload(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "payload-text")
export declare function message_payload_text(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "payload-range")
export declare function message_payload_range(offset: u32, length: u32, result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "published-ms")
export declare function message_published_ms(): u64;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "expires-ms")
export declare function message_expires_ms(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "attempt")
export declare function message_attempt(): u32;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "priority")
export declare function message_priority(): u32;
// @ts-ignore: decorator
@external("quipu:plugin/message@0.1.0", "reply-to")
export declare function message_reply_to(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/edit@0.1.0", "set-header")
export declare function edit_set_header(name: usize, n: u32, value: usize, v: u32): void;
// @ts-ignore: decorator
@external("quipu:plugin/edit@0.1.0", "add-header")
export declare function edit_add_header(name: usize, n: u32, value: usize, v: u32): void;
// @ts-ignore: decorator
@external("quipu:plugin/edit@0.1.0", "remove-header")
export declare function edit_remove_header(name: usize, length: u32): void;
// @ts-ignore: decorator
@external("quipu:plugin/edit@0.1.0", "set-key")
export declare function edit_set_key(key: usize, length: u32): void;
// @ts-ignore: decorator
@external("quipu:plugin/edit@0.1.0", "remove-key")
export declare function edit_remove_key(): void;
// @ts-ignore: decorator
@external("quipu:plugin/edit@0.1.0", "set-payload")
export declare function edit_set_payload(data: usize, length: u32): void;
// @ts-ignore: decorator
@external("quipu:plugin/edit@0.1.0", "set-payload-text")
export declare function edit_set_payload_text(text: usize, length: u32): void;
// @ts-ignore: decorator
@external("quipu:plugin/emit@0.1.0", "publish")
export declare function emit_publish(
  subject: usize, s: u32, has_key: u32, key: usize, k: u32,
  headers: usize, h: u32, payload: usize, p: u32, result: usize,
): void;
// @ts-ignore: decorator
@external("quipu:plugin/emit@0.1.0", "copy")
export declare function emit_copy(subject: usize, length: u32, result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/context@0.1.0", "plugin")
export declare function context_plugin(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/context@0.1.0", "route")
export declare function context_route(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/context@0.1.0", "config")
export declare function context_config(result: usize): void;
// @ts-ignore: decorator
@external("quipu:plugin/context@0.1.0", "now-ms")
export declare function context_now_ms(): u64;
// @ts-ignore: decorator
@external("quipu:plugin/context@0.1.0", "seed")
export declare function context_seed(): u64;
// @ts-ignore: decorator
@external("quipu:plugin/log@0.1.0", "log")
export declare function log_log(level: u32, text: usize, length: u32): void;
// @ts-ignore: decorator
@external("quipu:plugin/log@0.1.0", "fault")
export declare function log_fault(text: usize, n: u32, trace: usize, t: u32): void;

/** Where results come back: the largest is an option of 64 bits, or of a text. */
export const RESULT: usize = memory.data(16, 8);

/** Most bytes, and most messages, between two collections. */
const BYTES_MAX: usize = 256 << 10;
const MESSAGES_MAX: u32 = 64;

let bytes: usize = 0;
let messages: u32 = 0;

/** The router takes memory for what it hands over. Collections are the SDK's to begin, so it need not be referenced. */
export function realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  const taken = __new(size, idof<ArrayBuffer>());
  bytes += size;
  if (old) memory.copy(taken, old, oldSize < size ? oldSize : size);
  return taken;
}

/** Between two messages: collects now and then, and early where much was handed over. */
export function settle(): void {
  messages++;
  if (messages < MESSAGES_MAX && bytes < BYTES_MAX) return;
  __collect();
  messages = 0;
  bytes = 0;
}

/** The pointer of a text or list at `at`. */
export function pointerAt(at: usize): usize {
  return load<u32>(at);
}

/** Its length. */
export function lengthAt(at: usize): usize {
  return load<u32>(at, 4);
}

/** The text at `at`. */
export function textAt(at: usize): string {
  return String.UTF8.decodeUnsafe(pointerAt(at), lengthAt(at));
}

/** The optional text at `at`. */
export function optionalTextAt(at: usize): string | null {
  return load<u8>(at) ? textAt(at + 4) : null;
}

/** The bytes at `at`, as they were handed over. */
export function bytesAt(at: usize): Uint8Array {
  const length = <i32>lengthAt(at);
  if (!length) return new Uint8Array(0);
  return Uint8Array.wrap(changetype<ArrayBuffer>(pointerAt(at)), 0, length);
}
