/// Numbers and characters: what JSON needs of a C library.
#include "internal.h"

/// Digits that 128 bits hold whatever they are; what follows them is less than the rounding of what they say.
static const int digits_max = 38;

/// Powers of ten that a double holds exactly.
static const double exact[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                               1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/// `value` times ten to the `exponent`, in 113 bits: wrong only where the number lies within 2^-100 of halfway between
/// two doubles.
static double scaled(unsigned __int128 value, int exponent)
{
    long double result = value, power = 10;
    bool divide = exponent < 0;
    for (unsigned left = (unsigned)(divide ? -exponent : exponent); left; left >>= 1, power *= power)
        if (left & 1)
            result = divide ? result / power : result * power;
    return (double)result;
}

static const char *digit_run(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

static int parse_exponent(const char *at, const char *end)
{
    if (at == end)
        return 0;
    at++;
    bool minus = *at == '-';
    int said = 0;
    for (at += *at == '-' || *at == '+'; at < end; at++)
        if (said < 100000)
            said = said * 10 + (*at - '0');
    return minus ? -said : said;
}

/// A number with many digits, or far from 1.
static double parse_slowly(const char *at, const char *end)
{
    unsigned __int128 value = 0;
    int digits = 0, exponent = 0;
    bool fraction = false;
    for (; at < end && *at != 'e' && *at != 'E'; at++) {
        if (*at == '.') {
            fraction = true;
            continue;
        }
        if (digits < digits_max) {
            value = value * 10 + (unsigned)(*at - '0');
            digits += value != 0;
            exponent -= fraction;
        } else
            exponent += !fraction;
    }
    exponent += parse_exponent(at, end);
    // Past these nothing is left, and nothing fits.
    exponent = exponent < -400 ? -400 : exponent > 400 ? 400 : exponent;
    return value ? scaled(value, exponent) : 0;
}

double parse_number(const char *at, const char *end)
{
    bool negative = *at == '-';
    at += negative;
    const char *point = digit_run(at, end), *behind = point;
    if (point < end && *point == '.')
        behind = digit_run(point + 1, end);
    double size;
    int digits = (int)(behind - at), decimals = behind > point ? (int)(behind - point) - 1 : 0;
    int exponent = parse_exponent(behind, end) - decimals;
    uint64_t value = 0;
    if (digits <= 19)
        for (const char *digit = at; digit < behind; digit++)
            if (*digit != '.')
                value = value * 10 + (uint64_t)(*digit - '0');
    if (digits <= 19 && value >> 53 == 0 && exponent >= -22 && exponent <= 22)
        // Both are exact, and so one operation rounds once.
        size = exponent < 0 ? (double)value / exact[-exponent] : (double)value * exact[exponent];
    else
        size = parse_slowly(at, end);
    return negative ? -size : size;
}

bool is_utf8(const uint8_t *at, size_t length)
{
    for (const uint8_t *end = at + length; at < end;) {
        uint8_t c = *at++;
        if (c < 0x80)
            continue;
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || end - at < more)
            return false;
        // What follows the first byte rules out what has a shorter form, surrogates, and what is past U+10FFFF.
        uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        if (*at < low || *at > high)
            return false;
        for (at++; --more; at++)
            if (*at >> 6 != 2)
                return false;
    }
    return true;
}
