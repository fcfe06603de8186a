// UTF-8 by hand: the engine has neither TextEncoder nor TextDecoder.

/** The bytes of a text; half a surrogate pair becomes U+FFFD. */
export function encode(text) {
  const whole = text.toWellFormed();
  const ascii = new Uint8Array(whole.length);
  for (let i = 0; i < whole.length; i++) {
    const unit = whole.charCodeAt(i);
    if (unit >= 0x80) return Uint8Array.from(unescape(encodeURIComponent(whole)), (c) => c.charCodeAt(0));
    ascii[i] = unit;
  }
  return ascii;
}

/** The text of these bytes, or null where they are no UTF-8. */
export function decode(bytes) {
  const PIECE = 4096; // arguments of one call
  let raw = "";
  for (let i = 0; i < bytes.length; i += PIECE) raw += String.fromCharCode(...bytes.subarray(i, i + PIECE));
  try {
    return decodeURIComponent(escape(raw));
  } catch {
    return null;
  }
}
