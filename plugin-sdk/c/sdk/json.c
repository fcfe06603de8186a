/// JSON by path. The text is checked as a whole once; after that, values are found by walking it, and nothing is built.
#include <string.h>

#include "internal.h"

/// Whether the document is JSON; looked at once.
static bool is_valid(document *document)
{
    if (!document->checked) {
        const char *why;
        size_t at;
        document->checked = true;
        if (!json_is_valid(document->text, document->length, &why, &at))
            document->invalid = quipu_format("%s at byte %zu", why, at);
    }
    return !document->invalid;
}

// ---------------------------------------------------------------------------------------------------------------------
// Walking what is known to be valid

typedef struct slice {
    const char *begin, *end;
} slice;

static const char *skip_string(const char *at)
{
    for (at++; *at != '"'; at++)
        at += *at == '\\';
    return at + 1;
}

/// Behind the value that begins here.
static const char *skip_value(const char *at, const char *end)
{
    int depth = 0;
    do {
        switch (*at) {
        case '"': at = skip_string(at); break;
        case '{': case '[': depth++, at++; break;
        case '}': case ']': depth--, at++; break;
        case ',': case ':': case ' ': case '\n': case '\t': case '\r': at++; break;
        default:
            while (at < end && !strchr(",:]} \n\t\r", *at))
                at++;
        }
    } while (depth);
    return at;
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
        return to;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t first[] = {0, 0xc0, 0xe0, 0xf0};
    *to++ = (char)(first[more] | c >> (6 * more));
    while (more--)
        *to++ = (char)(0x80 | (c >> (6 * more) & 0x3f));
    return to;
}

/// What the text between these quotes says. `length` is without the NUL.
static char *unescaped(slice quoted, size_t *length)
{
    char *made = quipu_alloc((size_t)(quoted.end - quoted.begin)), *to = made;
    for (const char *at = quoted.begin + 1; at < quoted.end - 1;) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        static const char plain[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
        char escape = at[1];
        at += 2;
        if (escape != 'u') {
            for (size_t i = 0; plain[i]; i += 2)
                if (plain[i] == escape)
                    *to++ = plain[i + 1];
            continue;
        }
        uint32_t c = (uint32_t)json_hex(at, quoted.end);
        at += 4;
        if (c >= 0xd800 && c <= 0xdbff) {
            c = 0x10000 + ((c - 0xd800) << 10) + ((uint32_t)json_hex(at + 2, quoted.end) - 0xdc00);
            at += 6;
        }
        to = put_utf8(to, c);
    }
    *length = (size_t)(to - made);
    return made;
}

static bool same_name(slice quoted, slice name)
{
    size_t length = (size_t)(quoted.end - quoted.begin) - 2, wanted = (size_t)(name.end - name.begin);
    if (!memchr(quoted.begin + 1, '\\', length))
        return length == wanted && memcmp(quoted.begin + 1, name.begin, length) == 0;
    char *plain = unescaped(quoted, &length);
    return length == wanted && memcmp(plain, name.begin, length) == 0;
}

/// The members of an object or the elements of an array, one after another.
typedef struct members {
    const char *at, *end;
    bool object;
    slice name, value;
} members;

static members members_of(slice container)
{
    return (members){.at = container.begin + 1, .end = container.end, .object = *container.begin == '{'};
}

static bool next(members *in)
{
    in->at = json_space(in->at, in->end);
    if (*in->at == ',')
        in->at = json_space(in->at + 1, in->end);
    if (*in->at == '}' || *in->at == ']')
        return false;
    if (in->object) {
        in->name = (slice){in->at, skip_string(in->at)};
        in->at = json_space(json_space(in->name.end, in->end) + 1, in->end);
    }
    in->value = (slice){in->at, skip_value(in->at, in->end)};
    in->at = in->value.end;
    return true;
}

/// The next name of a path as it is written, and what follows its dot.
static slice next_name(const char **path)
{
    const char *at = *path;
    for (; *at && *at != '.'; at++)
        at += *at == '\\' && at[1];
    slice name = {*path, at};
    *path = *at ? at + 1 : at;
    return name;
}

/// A name of a path without its backslashes.
static slice plain(slice name)
{
    if (!memchr(name.begin, '\\', (size_t)(name.end - name.begin)))
        return name;
    char *made = quipu_alloc((size_t)(name.end - name.begin)), *to = made;
    for (const char *from = name.begin; from < name.end; from++) {
        from += *from == '\\' && from + 1 < name.end;
        *to++ = *from;
    }
    return (slice){made, to};
}

static bool is_index(slice name, size_t *index)
{
    *index = 0;
    for (const char *at = name.begin; at < name.end; at++) {
        if (*at < '0' || *at > '9' || *index > 100000000)
            return false;
        *index = *index * 10 + (size_t)(*at - '0');
    }
    return name.begin < name.end;
}

/// The member of this name, the last of them; or the element with this number.
static bool member(slice container, slice name, slice *found)
{
    size_t index = 0;
    bool object = *container.begin == '{', there = false;
    if (!object && !is_index(name, &index))
        return false;
    members in = members_of(container);
    for (size_t i = 0; next(&in); i++) {
        if (object ? !same_name(in.name, name) : i != index)
            continue;
        *found = in.value;
        there = true;
        if (!object)
            break;
    }
    return there;
}

static quipu_kind kind_of(slice value)
{
    switch (*value.begin) {
    case '{': return QUIPU_OBJECT;
    case '[': return QUIPU_ARRAY;
    case '"': return QUIPU_TEXT;
    case 't': case 'f': return QUIPU_BOOL;
    case 'n': return QUIPU_NULL;
    default: return QUIPU_NUMBER;
    }
}

static const char *const kinds[] = {"no JSON",  "absent", "null",     "a boolean",
                                    "a number", "text",   "an array", "an object"};

// ---------------------------------------------------------------------------------------------------------------------
// By path

void complain(document *document, const char *format, ...)
{
    if (document->problem)
        return;
    va_list values;
    va_start(values, format);
    document->problem = format_list(format, values);
    va_end(values);
}

/// Why there is nothing: names the last value on the way that was there. `name` is the name in `path` that it has not.
static void complain_of_absence(document *document, const char *path, slice name, slice last)
{
    if (document->keep_asked) {
        complain(document, "missing field `%s`", path);
        return;
    }
    size_t passed = (size_t)(name.begin - path);
    const char *place = passed ? quipu_format("\"%.*s\"", (int)passed - 1, path) : document->name;
    quipu_kind kind = kind_of(last);
    size_t index;
    if (kind == QUIPU_OBJECT || (kind == QUIPU_ARRAY && is_index(name, &index)))
        complain(document, "%s: absent: %s has no \"%.*s\"", path, place, (int)(name.end - name.begin), name.begin);
    else
        complain(document, "%s: absent: %s is %s, not an object", path, place, kinds[kind]);
}

static void remember(document *document, const char *path)
{
    asked *asked = quipu_alloc(sizeof *asked);
    asked->before = document->asked;
    asked->path = quipu_format("%s", path);
    document->asked = asked;
}

static quipu_kind find(document *document, const char *path, slice *found, bool required)
{
    if (document->keep_asked)
        remember(document, path);
    if (!is_valid(document)) {
        if (required || document->keep_asked)
            complain(document, "%s is no JSON: %s", document->name, document->invalid);
        return QUIPU_NO_JSON;
    }
    const char *end = document->text + document->length, *begin = json_space(document->text, end);
    *found = (slice){begin, skip_value(begin, end)};
    for (const char *rest = path; *rest;) {
        slice name = next_name(&rest), last = *found;
        quipu_kind kind = kind_of(last);
        if ((kind == QUIPU_OBJECT || kind == QUIPU_ARRAY) && member(last, plain(name), found))
            continue;
        if (required)
            complain_of_absence(document, path, name, last);
        return QUIPU_ABSENT;
    }
    return kind_of(*found);
}

/// Between a path and what is said of it; the whole has no path.
static const char *colon(const char *path)
{
    return *path ? ": " : "";
}

/// Finds a value of this kind. False where it is not there, which is a problem where it is `required`, and where it is
/// of another kind, which always is.
static bool find_kind(document *document, const char *path, quipu_kind wanted, slice *found, bool required)
{
    quipu_kind kind = find(document, path, found, required);
    if (kind == wanted)
        return true;
    if (kind == QUIPU_NO_JSON)
        complain(document, "%s is no JSON: %s", document->name, document->invalid);
    else if (kind > QUIPU_NULL || required)
        complain(document, "%s%s%s, not %s", path, colon(path), kinds[kind], kinds[wanted]);
    return false;
}

static double number(document *document, const char *path, double otherwise, bool required)
{
    slice found;
    if (!find_kind(document, path, QUIPU_NUMBER, &found, required))
        return otherwise;
    double value = parse_number(found.begin, found.end);
    if (value - value == 0)
        return value;
    complain(document, "%s%s%.*s: out of range", path, colon(path), (int)(found.end - found.begin), found.begin);
    return otherwise;
}

static int64_t integer(document *document, const char *path, int64_t otherwise, bool required)
{
    slice found;
    if (!find_kind(document, path, QUIPU_NUMBER, &found, required))
        return otherwise;
    double value = parse_number(found.begin, found.end);
    if (value >= -0x1p53 && value <= 0x1p53 && value == (double)(int64_t)value)
        return (int64_t)value;
    complain(document, "%s%s%.*s, not an integer", path, colon(path), (int)(found.end - found.begin), found.begin);
    return otherwise;
}

static const char *text(document *document, const char *path, const char *otherwise, bool required)
{
    slice found;
    if (!find_kind(document, path, QUIPU_TEXT, &found, required))
        return otherwise;
    size_t length;
    const char *plain = unescaped(found, &length);
    if (strlen(plain) == length)
        return plain;
    complain(document, "%s%stext with a NUL in it", path, colon(path));
    return otherwise;
}

static bool boolean(document *document, const char *path, bool otherwise, bool required)
{
    slice found;
    return find_kind(document, path, QUIPU_BOOL, &found, required) ? *found.begin == 't' : otherwise;
}

static const char *raw(document *document, const char *path)
{
    slice found;
    if (find(document, path, &found, true) < QUIPU_NULL)
        return "";
    return quipu_format("%.*s", (int)(found.end - found.begin), found.begin);
}

static size_t count(document *document, const char *path)
{
    slice found;
    quipu_kind kind = find(document, path, &found, true);
    if (kind < QUIPU_ARRAY) {
        if (kind >= QUIPU_NULL)
            complain(document, "%s%s%s, not an array or an object", path, colon(path), kinds[kind]);
        return 0;
    }
    members in = members_of(found);
    size_t count = 0;
    while (next(&in))
        count++;
    return count;
}

quipu_kind quipu_json_kind(quipu_message *message, const char *path)
{
    slice found;
    return find(payload_json(message), path, &found, false);
}

quipu_kind quipu_config_kind(quipu_config *config, const char *path)
{
    slice found;
    return find(&config->json, path, &found, false);
}

size_t quipu_json_count(quipu_message *message, const char *path) { return count(payload_json(message), path); }
size_t quipu_config_count(quipu_config *config, const char *path) { return count(&config->json, path); }
const char *quipu_json_raw(quipu_message *message, const char *path) { return raw(payload_json(message), path); }
const char *quipu_config_raw(quipu_config *config, const char *path) { return raw(&config->json, path); }

/// The four functions of one type: of the message and of the configuration, required and not.
#define READERS(type, name, read, none)                                                        \
    type quipu_json_##name(quipu_message *message, const char *path)                           \
    {                                                                                          \
        return read(payload_json(message), path, none, true);                                  \
    }                                                                                          \
    type quipu_json_##name##_or(quipu_message *message, const char *path, type otherwise)      \
    {                                                                                          \
        return read(payload_json(message), path, otherwise, false);                            \
    }                                                                                          \
    type quipu_config_##name(quipu_config *config, const char *path)                           \
    {                                                                                          \
        return read(&config->json, path, none, true);                                          \
    }                                                                                          \
    type quipu_config_##name##_or(quipu_config *config, const char *path, type otherwise)      \
    {                                                                                          \
        return read(&config->json, path, otherwise, false);                                    \
    }

READERS(double, number, number, __builtin_nan(""))
READERS(int64_t, integer, integer, 0)
READERS(const char *, text, text, "")
READERS(bool, bool, boolean, false)

void quipu_config_refuse(quipu_config *config, const char *problem, ...)
{
    va_list values;
    va_start(values, problem);
    complain(&config->json, "%s", format_list(problem, values));
    va_end(values);
}

// ---------------------------------------------------------------------------------------------------------------------
// Keys that nothing read

typedef enum interest { NOT_READ, READ_WITHIN, READ } interest;

/// Whether this path was asked for, or one below it.
static interest interest_in(const document *document, const char *path)
{
    size_t length = strlen(path);
    interest found = NOT_READ;
    for (const asked *asked = document->asked; asked; asked = asked->before) {
        if (strcmp(asked->path, path) == 0 || !*asked->path)
            return READ;
        if (strncmp(asked->path, path, length) == 0 && asked->path[length] == '.')
            found = READ_WITHIN;
    }
    return found;
}

/// A member's name as paths have it: a dot or backslash of its own after a backslash.
static const char *path_to(const char *above, const members *in, size_t index)
{
    const char *dot = *above ? "." : "";
    if (!in->object)
        return quipu_format("%s%s%zu", above, dot, index);
    size_t length;
    const char *name = unescaped(in->name, &length);
    char *escaped = quipu_alloc(2 * length + 1), *to = escaped;
    for (size_t i = 0; i < length; i++) {
        if (name[i] == '.' || name[i] == '\\')
            *to++ = '\\';
        *to++ = name[i];
    }
    return quipu_format("%s%s%s", above, dot, escaped);
}

static void list_unknown(const document *document, slice container, const char *above, const char **list, size_t *count)
{
    members in = members_of(container);
    for (size_t i = 0; next(&in); i++) {
        const char *path = path_to(above, &in, i);
        interest interest = interest_in(document, path);
        quipu_kind kind = kind_of(in.value);
        if (interest == READ)
            continue;
        if (interest == READ_WITHIN && (kind == QUIPU_OBJECT || kind == QUIPU_ARRAY)) {
            list_unknown(document, in.value, path, list, count);
            continue;
        }
        *list = *count ? quipu_format("%s, `%s`", *list, path) : quipu_format("`%s`", path);
        ++*count;
    }
}

const char *unknown_keys(document *document)
{
    if (!is_valid(document))
        return NULL;
    const char *end = document->text + document->length, *begin = json_space(document->text, end);
    if (*begin != '{') {
        complain(document, "the configuration is %s, not an object", kinds[kind_of((slice){begin, end})]);
        return NULL;
    }
    const char *list = "";
    size_t count = 0;
    list_unknown(document, (slice){begin, end}, "", &list, &count);
    return count ? quipu_format("unknown key%s %s", count == 1 ? "" : "s", list) : NULL;
}

// ---------------------------------------------------------------------------------------------------------------------
// Writing

const char *quipu_quoted(const char *text)
{
    // Each byte becomes six at most.
    char *made = quipu_alloc(strlen(text) * 6 + 3), *to = made;
    *to++ = '"';
    for (; *text; text++) {
        uint8_t c = (uint8_t)*text;
        if (c == '"' || c == '\\')
            *to++ = '\\';
        if (c >= 0x20) {
            *to++ = (char)c;
            continue;
        }
        memcpy(to, "\\u00", 4);
        to[4] = "0123456789abcdef"[c >> 4];
        to[5] = "0123456789abcdef"[c & 15];
        to += 6;
    }
    *to++ = '"';
    return made;
}
