// Whether a text is JSON: RFC 8259, in UTF-8, without lone surrogates.

/** Deepest nesting that is read. */
const DEPTH_MAX = 128;

export const QUOTE: u8 = 0x22, BACKSLASH: u8 = 0x5c, COMMA: u8 = 0x2c, COLON: u8 = 0x3a, DOT: u8 = 0x2e;
export const BRACE: u8 = 0x7b, BRACE_END: u8 = 0x7d, BRACKET: u8 = 0x5b, BRACKET_END: u8 = 0x5d;

// @ts-ignore: decorator
@inline export function isSpace(c: u8): bool {
  return c == 0x20 || c == 0x0a || c == 0x0d || c == 0x09;
}

// @ts-ignore: decorator
@inline function isDigit(c: u8): bool {
  return <u8>(c - 0x30) < 10;
}

function hexDigit(c: u8): i32 {
  if (isDigit(c)) return c - 0x30;
  const lower = c | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** Four hexadecimal digits, or -1. */
export function hex(at: usize, end: usize): i32 {
  if (at + 4 > end) return -1;
  let value = 0;
  for (let i: usize = 0; i < 4; i++) {
    const digit = hexDigit(load<u8>(at + i));
    if (digit < 0) return -1;
    value = (value << 4) | digit;
  }
  return value;
}

/** Whether all of it is UTF-8. */
export function isUtf8(at: usize, end: usize): bool {
  while (at < end) {
    const c = load<u8>(at++);
    if (c < 0x80) continue;
    const more: usize = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    if (c < 0xc2 || c > 0xf4 || end - at < more) return false;
    // What follows the first byte rules out what has a shorter form, surrogates, and what is past U+10FFFF.
    const low: u8 = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high: u8 = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (load<u8>(at) < low || load<u8>(at) > high) return false;
    for (let i: usize = 1; i < more; i++) if (load<u8>(at + i) >> 6 != 2) return false;
    at += more;
  }
  return true;
}

/** A walk over the whole text. */
export class Checker {
  why: string = "";

  constructor(public at: usize, public end: usize) {}

  /** Whether all of it is one value. */
  all(): bool {
    if (!this.value(0)) return false;
    this.space();
    return this.at == this.end || this.fail("something follows the value");
  }

  private fail(why: string): bool {
    if (!this.why.length) this.why = this.at >= this.end ? "it ends too early" : why;
    return false;
  }

  private space(): void {
    while (this.at < this.end && isSpace(load<u8>(this.at))) this.at++;
  }

  private peek(): u8 {
    return this.at < this.end ? load<u8>(this.at) : 0;
  }

  private take(wanted: u8): bool {
    this.space();
    if (this.peek() != wanted || this.at == this.end) return false;
    this.at++;
    return true;
  }

  private value(depth: i32): bool {
    this.space();
    if (depth > DEPTH_MAX) return this.fail("nested too deeply");
    const c = this.peek();
    if (c == BRACE) return this.members(depth, true, BRACE_END);
    if (c == BRACKET) return this.members(depth, false, BRACKET_END);
    if (c == QUOTE) return this.text();
    if (c == 0x2d || isDigit(c)) return this.number();
    if (c == 0x74) return this.word("true");
    if (c == 0x66) return this.word("false");
    if (c == 0x6e) return this.word("null");
    return this.fail("a value is expected");
  }

  private members(depth: i32, object: bool, close: u8): bool {
    this.at++;
    if (this.take(close)) return true;
    do {
      if (object) {
        this.space();
        if (!this.text()) return false;
        if (!this.take(COLON)) return this.fail("`:` is expected");
      }
      if (!this.value(depth + 1)) return false;
    } while (this.take(COMMA));
    return this.take(close) || this.fail(object ? "`,` or `}` is expected" : "`,` or `]` is expected");
  }

  private text(): bool {
    if (this.peek() != QUOTE) return this.fail("a text is expected");
    this.at++;
    while (this.at < this.end) {
      const c = load<u8>(this.at);
      if (c < 0x20) return this.fail("control character in a text");
      this.at++;
      if (c == QUOTE) return true;
      if (c == BACKSLASH && !this.escape()) return false;
    }
    return this.fail("");
  }

  private escape(): bool {
    const c = this.peek();
    this.at++;
    if (c != 0x75) {
      return c == QUOTE || c == BACKSLASH || c == 0x2f || c == 0x62 || c == 0x66 || c == 0x6e || c == 0x72 || c == 0x74
        || this.fail("invalid escape");
    }
    const unit = hex(this.at, this.end);
    if (unit < 0) return this.fail("invalid escape");
    this.at += 4;
    if (unit < 0xd800 || unit > 0xdfff) return true;
    const low = this.at + 6 <= this.end && load<u16>(this.at) == 0x755c ? hex(this.at + 2, this.end) : -1;
    if (unit > 0xdbff || low < 0xdc00 || low > 0xdfff) return this.fail("lone surrogate");
    this.at += 6;
    return true;
  }

  private digits(): usize {
    const begin = this.at;
    while (isDigit(this.peek())) this.at++;
    return this.at - begin;
  }

  private number(): bool {
    if (this.peek() == 0x2d) this.at++;
    const zero = this.peek() == 0x30;
    const whole = this.digits();
    if (!whole || (zero && whole > 1)) return this.fail("invalid number");
    if (this.peek() == DOT) {
      this.at++;
      if (!this.digits()) return this.fail("invalid number");
    }
    if ((this.peek() | 0x20) == 0x65) {
      this.at++;
      if (this.peek() == 0x2b || this.peek() == 0x2d) this.at++;
      if (!this.digits()) return this.fail("invalid number");
    }
    return true;
  }

  private word(word: string): bool {
    for (let i = 0; i < word.length; i++) {
      if (this.peek() != <u8>word.charCodeAt(i)) return this.fail("a value is expected");
      this.at++;
    }
    return true;
  }
}
