/// Whether a text is JSON: RFC 8259, in UTF-8, without lone surrogates.
#include <string.h>

#include "internal.h"

/// Deepest nesting that is read.
static const int depth_max = 128;

typedef struct reader {
    const char *at, *end;
    const char *why;
} reader;

static bool fail(reader *in, const char *why)
{
    if (!in->why)
        in->why = in->at == in->end ? "it ends too early" : why;
    return false;
}

const char *json_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

static bool take(reader *in, char wanted)
{
    in->at = json_space(in->at, in->end);
    if (in->at == in->end || *in->at != wanted)
        return false;
    in->at++;
    return true;
}

int json_hex(const char *at, const char *end)
{
    int value = 0;
    for (int i = 0; i < 4; i++, at++) {
        if (at >= end)
            return -1;
        int lower = *at | 0x20;
        int digit = *at >= '0' && *at <= '9' ? *at - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static bool check_escape(reader *in)
{
    if (in->at == in->end || !strchr("\"\\/bfnrtu", *in->at) || !*in->at)
        return fail(in, "invalid escape");
    if (*in->at++ != 'u')
        return true;
    int unit = json_hex(in->at, in->end);
    if (unit < 0)
        return fail(in, "invalid escape");
    in->at += 4;
    if (unit < 0xd800 || unit > 0xdfff)
        return true;
    bool low = in->end - in->at >= 6 && in->at[0] == '\\' && in->at[1] == 'u';
    int second = low ? json_hex(in->at + 2, in->end) : -1;
    if (unit > 0xdbff || second < 0xdc00 || second > 0xdfff)
        return fail(in, "lone surrogate");
    in->at += 6;
    return true;
}

static bool check_string(reader *in)
{
    if (!take(in, '"'))
        return fail(in, "a text is expected");
    while (in->at < in->end) {
        uint8_t c = (uint8_t)*in->at;
        if (c < 0x20)
            return fail(in, "control character in a text");
        in->at++;
        if (c == '"')
            return true;
        if (c == '\\' && !check_escape(in))
            return false;
    }
    return fail(in, "");
}

static size_t check_digits(reader *in)
{
    const char *begin = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return (size_t)(in->at - begin);
}

static bool next_is(const reader *in, const char *any)
{
    return in->at < in->end && *in->at && strchr(any, *in->at);
}

static bool check_number(reader *in)
{
    in->at += *in->at == '-';
    bool zero = next_is(in, "0");
    size_t whole = check_digits(in);
    if (!whole || (zero && whole > 1))
        return fail(in, "invalid number");
    if (next_is(in, ".")) {
        in->at++;
        if (!check_digits(in))
            return fail(in, "invalid number");
    }
    if (next_is(in, "eE")) {
        in->at++;
        in->at += next_is(in, "+-");
        if (!check_digits(in))
            return fail(in, "invalid number");
    }
    return true;
}

static bool check_word(reader *in, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(in->end - in->at) < length || memcmp(in->at, word, length) != 0)
        return fail(in, "a value is expected");
    in->at += length;
    return true;
}

static bool check_value(reader *in, int depth);

static bool check_members(reader *in, int depth, bool object, char close)
{
    in->at++;
    if (take(in, close))
        return true;
    do {
        if (object && !(check_string(in) && (take(in, ':') || fail(in, "`:` is expected"))))
            return false;
        if (!check_value(in, depth + 1))
            return false;
    } while (take(in, ','));
    return take(in, close) || fail(in, object ? "`,` or `}` is expected" : "`,` or `]` is expected");
}

static bool check_value(reader *in, int depth)
{
    in->at = json_space(in->at, in->end);
    if (depth > depth_max)
        return fail(in, "nested too deeply");
    if (in->at == in->end)
        return fail(in, "");
    switch (*in->at) {
    case '{': return check_members(in, depth, true, '}');
    case '[': return check_members(in, depth, false, ']');
    case '"': return check_string(in);
    case 't': return check_word(in, "true");
    case 'f': return check_word(in, "false");
    case 'n': return check_word(in, "null");
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        return check_number(in);
    default: return fail(in, "a value is expected");
    }
}

bool json_is_valid(const char *text, size_t length, const char **why, size_t *at)
{
    reader in = {.at = text, .end = text + length};
    if (!is_utf8((const uint8_t *)text, length)) {
        *why = "it is not UTF-8";
        *at = 0;
        return false;
    }
    bool valid = check_value(&in, 0);
    if (valid) {
        in.at = json_space(in.at, in.end);
        valid = in.at == in.end || fail(&in, "something follows the value");
    }
    *why = in.why;
    *at = (size_t)(in.at - text);
    return valid;
}
