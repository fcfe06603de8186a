/// `printf` without a C library, into the arena.
#include <string.h>

#include "internal.h"

/// Most decimals of `%f`.
static const int decimals_max = 9;

/// The text so far: the last thing in the arena is asked to grow only where it has no room.
typedef struct text {
    char *data;
    size_t length;
    size_t room;
} text;

static void put(text *to, const char *data, size_t length)
{
    if (to->length + length + 1 > to->room) {
        size_t room = (to->length + length + 1) * 2;
        char *moved = quipu_alloc(room);
        memcpy(moved, to->data, to->length);
        to->data = moved;
        to->room = room;
    }
    memcpy(to->data + to->length, data, length);
    to->length += length;
}

/// How a value is to be written: `%-08.3f`.
typedef struct shape {
    bool left, zeros, plus, blank, alternate;
    int width;
    int precision;
} shape;

/// A value of one of its forms, `sign` first, padded to its width.
static void put_padded(text *to, const shape *shape, const char *sign, const char *data, size_t length, bool zeros)
{
    size_t whole = strlen(sign) + length;
    size_t padding = shape->width > 0 && (size_t)shape->width > whole ? (size_t)shape->width - whole : 0;
    if (!shape->left && !zeros)
        for (size_t i = 0; i < padding; i++)
            put(to, " ", 1);
    put(to, sign, strlen(sign));
    if (zeros && !shape->left)
        for (size_t i = 0; i < padding; i++)
            put(to, "0", 1);
    put(to, data, length);
    if (shape->left)
        for (size_t i = 0; i < padding; i++)
            put(to, " ", 1);
}

static const char *sign_of(const shape *shape, bool negative)
{
    return negative ? "-" : shape->plus ? "+" : shape->blank ? " " : "";
}

/// Writes digits to the end of `room` and gives where they begin.
static char *digits(char *end, uint64_t value, unsigned base, bool upper, int least)
{
    const char *set = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    char *at = end;
    while (value || end - at < least) {
        *--at = set[value % base];
        value /= base;
    }
    return at;
}

static void put_integer(text *to, const shape *shape, uint64_t value, const char *sign, unsigned base, bool upper)
{
    char room[64];
    int least = shape->precision < 0 ? 1 : shape->precision < 40 ? shape->precision : 40;
    char *end = room + sizeof room, *at = digits(end, value, base, upper, least);
    put_padded(to, shape, sign, at, (size_t)(end - at), shape->zeros && shape->precision < 0);
}

/// The value times `scale` without its whole part, to the nearest, and halfway to the even one, as C does.
static uint64_t fraction_of(double size, uint64_t *whole, uint64_t scale)
{
    *whole = (uint64_t)size;
    // With more bits than a double has, for the product to be exact: 0.95 is below the half of 0.9 and 1.0.
    long double rest = (long double)(size - (double)*whole) * (long double)scale;
    uint64_t fraction = (uint64_t)rest;
    long double over = rest - (long double)fraction;
    if (over > 0.5 || (over == 0.5 && ((scale > 1 ? fraction : *whole) & 1)))
        fraction++;
    if (fraction >= scale) {
        fraction -= scale;
        ++*whole;
    }
    return fraction;
}

static void put_double(text *to, const shape *shape, double value)
{
    bool negative = __builtin_signbit(value);
    const char *sign = sign_of(shape, negative);
    if (value != value || value - value != 0) {
        put_padded(to, shape, sign, value != value ? "nan" : "inf", 3, false);
        return;
    }
    double size = negative ? -value : value;
    // Past what 64 bits hold it is written with an exponent: 1.5e+25.
    unsigned exponent = 0;
    if (size >= 1e19)
        for (; size >= 10; exponent++)
            size /= 10;
    int decimals = shape->precision < 0 ? 6 : shape->precision < decimals_max ? shape->precision : decimals_max;
    uint64_t whole, scale = 1;
    for (int i = 0; i < decimals; i++)
        scale *= 10;
    uint64_t fraction = fraction_of(size, &whole, scale);
    // From the end to the beginning.
    char room[64];
    char *end = room + sizeof room, *at = end;
    if (exponent) {
        at = digits(at, exponent, 10, false, 2);
        *--at = '+';
        *--at = 'e';
    }
    if (decimals) {
        at = digits(at, fraction, 10, false, decimals);
        *--at = '.';
    }
    at = digits(at, whole, 10, false, 1);
    put_padded(to, shape, sign, at, (size_t)(end - at), shape->zeros);
}

static void put_text(text *to, const shape *shape, const char *said)
{
    if (!said)
        said = "(null)";
    size_t length = 0;
    while ((shape->precision < 0 || length < (size_t)shape->precision) && said[length])
        length++;
    put_padded(to, shape, "", said, length, false);
}

/// How a value is passed: `hh`, `h` and none are an `int`.
typedef enum width { INT, LONG, LONG_LONG, SIZE } width;

static uint64_t take_unsigned(va_list *values, width width)
{
    switch (width) {
    case LONG: return va_arg(*values, unsigned long);
    case LONG_LONG: return va_arg(*values, unsigned long long);
    case SIZE: return va_arg(*values, size_t);
    default: return va_arg(*values, unsigned);
    }
}

static int64_t take_signed(va_list *values, width width)
{
    switch (width) {
    case LONG: return va_arg(*values, long);
    case LONG_LONG: return va_arg(*values, long long);
    case SIZE: return (int64_t)(ptrdiff_t)va_arg(*values, size_t);
    default: return va_arg(*values, int);
    }
}

/// A number in the format, or `*` for one of the values.
static const char *read_number(const char *at, va_list *values, int *number)
{
    if (*at == '*') {
        *number = va_arg(*values, int);
        return at + 1;
    }
    for (*number = 0; *at >= '0' && *at <= '9'; at++)
        if (*number < 4096)
            *number = *number * 10 + (*at - '0');
    return at;
}

static const char *read_shape(const char *at, va_list *values, shape *shape)
{
    for (;; at++) {
        if (*at == '-')
            shape->left = true;
        else if (*at == '0')
            shape->zeros = true;
        else if (*at == '+')
            shape->plus = true;
        else if (*at == ' ')
            shape->blank = true;
        else if (*at == '#')
            shape->alternate = true;
        else
            break;
    }
    at = read_number(at, values, &shape->width);
    if (shape->width < 0) {
        shape->left = true;
        shape->width = -shape->width;
    }
    if (*at == '.')
        at = read_number(at + 1, values, &shape->precision);
    return at;
}

static const char *read_width(const char *at, width *width)
{
    for (; *at == 'h' || *at == 'l' || *at == 'z' || *at == 't' || *at == 'j'; at++)
        *width = *at == 'h' ? INT : *at == 'j' ? LONG_LONG : *at != 'l' ? SIZE : *width == LONG ? LONG_LONG : LONG;
    return at;
}

/// One `%…` of the format; gives what follows it.
static const char *put_value(text *to, const char *at, va_list *values)
{
    shape shape = {.precision = -1};
    width width = INT;
    at = read_width(read_shape(at, values, &shape), &width);
    switch (*at) {
    case 'd':
    case 'i': {
        int64_t value = take_signed(values, width);
        uint64_t size = value < 0 ? -(uint64_t)value : (uint64_t)value;
        put_integer(to, &shape, size, sign_of(&shape, value < 0), 10, false);
        break;
    }
    case 'u': put_integer(to, &shape, take_unsigned(values, width), "", 10, false); break;
    case 'o': put_integer(to, &shape, take_unsigned(values, width), shape.alternate ? "0" : "", 8, false); break;
    case 'x': put_integer(to, &shape, take_unsigned(values, width), shape.alternate ? "0x" : "", 16, false); break;
    case 'X': put_integer(to, &shape, take_unsigned(values, width), shape.alternate ? "0X" : "", 16, true); break;
    case 'p': put_integer(to, &shape, (uintptr_t)va_arg(*values, void *), "0x", 16, false); break;
    case 'c': put_padded(to, &shape, "", &(char){(char)va_arg(*values, int)}, 1, false); break;
    case 's': put_text(to, &shape, va_arg(*values, const char *)); break;
    case 'f':
    case 'F': put_double(to, &shape, va_arg(*values, double)); break;
    case '%': put(to, "%", 1); break;
    default: quipu_fault("a format with %%%c; %%d %%i %%u %%x %%X %%o %%c %%s %%p %%f are known", *at ? *at : '?');
    }
    return at + 1;
}

const char *format_list(const char *format, va_list values)
{
    va_list rest;
    va_copy(rest, values);
    text made = {0};
    for (const char *at = format; *at;) {
        const char *begin = at;
        while (*at && *at != '%')
            at++;
        put(&made, begin, (size_t)(at - begin));
        if (*at)
            at = put_value(&made, at + 1, &rest);
    }
    va_end(rest);
    put(&made, "", 0);
    made.data[made.length] = 0;
    return made.data;
}

const char *quipu_format(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    const char *made = format_list(format, values);
    va_end(values);
    return made;
}
