// Numbers of JSON as floats, rounded to the nearest: the standard library's `parseFloat` is not, and far off past 1e39.

/** Powers of ten that a float holds exactly. */
const EXACT: StaticArray<f64> = [
  1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

const DOT: u8 = 0x2e;

/** Digits that are looked at; those behind only say that there is more. */
const DIGITS_MAX = 800;
/** Limbs of 32 bits: room for 800 digits before a division by 5^1130. */
const LIMBS_MAX = 192;
/** 5^13, the largest power of five in 32 bits. */
const FIVES: u64 = 1220703125;
const FIVES_POWER = 13;

/** A whole number, the lowest limb first, and whether something was cut off below it. */
const limbs = new StaticArray<u32>(LIMBS_MAX);
let used = 0;
let sticky = false;

/** The number that stands there, in JSON that is known to be valid. */
export function parseNumber(begin: usize, end: usize): f64 {
  let at = begin, value: u64 = 0, digits = 0, exponent = 0, fraction = 0;
  const negative = load<u8>(at) == 0x2d;
  if (negative) at++;
  const first = at;
  for (; at < end && (load<u8>(at) | 0x20) != 0x65; at++) {
    const c = load<u8>(at);
    if (c == DOT) {
      fraction = 1;
      continue;
    }
    value = value * 10 + (c - 0x30);
    exponent -= fraction;
    if (value) digits++;
  }
  const behind = at;
  if (at < end) exponent += parseExponent(at + 1, end);
  // Both are exact, and so one operation rounds once.
  const quick = digits < 19 && !(value >> 53) && exponent >= -22 && exponent <= 22;
  const size = !quick
    ? parseSlowly(first, behind, exponent)
    : exponent < 0 ? <f64>value / EXACT[-exponent] : <f64>value * EXACT[exponent];
  return negative ? -size : size;
}

function parseExponent(at: usize, end: usize): i32 {
  const minus = load<u8>(at) == 0x2d;
  if (minus || load<u8>(at) == 0x2b) at++;
  let said = 0;
  for (; at < end; at++) if (said < 100000) said = said * 10 + (load<u8>(at) - 0x30);
  return minus ? -said : said;
}

/** The digits as one whole number, times ten to the exponent, in as many bits as it takes. */
function parseSlowly(begin: usize, end: usize, exponent: i32): f64 {
  used = 0;
  sticky = false;
  let digits = 0;
  for (let at = begin; at < end; at++) {
    const c = load<u8>(at);
    if (c == DOT || (!digits && c == 0x30)) continue;
    digits++;
    if (digits <= DIGITS_MAX) multiply(10, c - 0x30);
    else {
      exponent++;
      if (c != 0x30) sticky = true;
    }
  }
  if (!used) return 0;
  // It is below ten to this power: past these bounds nothing fits, and nothing is left.
  const power = min(digits, DIGITS_MAX) + exponent;
  if (power > 310) return Infinity;
  if (power < -330) return 0;
  if (exponent >= 0) {
    raise(exponent);
    return rounded(exponent);
  }
  // 64 bits more than the division takes, in whole limbs.
  const shift = (64 + (-exponent * 7) / 3 + 32) >> 5;
  for (let i = used - 1; i >= 0; i--) limbs[i + shift] = limbs[i];
  for (let i = 0; i < shift; i++) limbs[i] = 0;
  used += shift;
  lower(-exponent);
  return rounded(exponent - shift * 32);
}

function multiply(by: u64, plus: u64): void {
  for (let i = 0; i < used; i++) {
    plus += <u64>limbs[i] * by;
    limbs[i] = <u32>plus;
    plus >>= 32;
  }
  if (plus) limbs[used++] = <u32>plus;
}

function divide(by: u64): void {
  let rest: u64 = 0;
  for (let i = used - 1; i >= 0; i--) {
    rest = (rest << 32) | limbs[i];
    limbs[i] = <u32>(rest / by);
    rest %= by;
  }
  if (rest) sticky = true;
  while (used && !limbs[used - 1]) used--;
}

/** Times five to this power. */
function raise(power: i32): void {
  for (; power >= FIVES_POWER; power -= FIVES_POWER) multiply(FIVES, 0);
  for (; power > 0; power--) multiply(5, 0);
}

/** Divided by five to this power. */
function lower(power: i32): void {
  for (; power >= FIVES_POWER; power -= FIVES_POWER) divide(FIVES);
  for (; power > 0; power--) divide(5);
}

function bit(index: i32): u64 {
  return index < 0 ? 0 : (limbs[index >> 5] >> (index & 31)) & 1;
}

/** The whole number times two to this power as a float: to the nearest, and halfway to the even one. */
function rounded(binary: i32): f64 {
  const length = used * 32 - <i32>clz(limbs[used - 1]);
  const exponent = length - 1 + binary;
  if (exponent > 1023) return Infinity;
  const subnormal = exponent < -1022;
  const precision = subnormal ? 53 + 1022 + exponent : 53;
  if (precision < 0) return 0;
  let mantissa: u64 = 0;
  for (let i = 1; i <= precision; i++) mantissa = (mantissa << 1) | bit(length - i);
  const half = length - precision - 1;
  let below = sticky;
  for (let i = 0; i < half && !below; i++) below = bit(i) != 0;
  if (bit(half) && (below || mantissa & 1)) mantissa++;
  // A mantissa that is rounded up past its bits carries into the exponent, as it should.
  return reinterpret<f64>(subnormal ? mantissa : (<u64>(exponent + 1023) << 52) + mantissa - (1 << 52));
}
