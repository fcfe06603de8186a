/// What the files of the SDK share. Not for plugins.
#ifndef QUIPU_INTERNAL_H
#define QUIPU_INTERNAL_H

#include <stdarg.h>

#include "quipu.h"

/// A string or list, as the canonical ABI has it.
typedef struct view {
    const void *data;
    size_t length;
} view;

/// JSON that is read by path.
typedef struct document {
    const char *text;
    size_t length;
    /// `the payload` or `the configuration`.
    const char *name;
    /// What is wrong with it as a whole, once it was looked for.
    const char *invalid;
    bool checked;
    /// The first thing that was not as asked for.
    const char *problem;
    /// The paths that were asked for, the last one first; kept of a configuration alone.
    struct asked *asked;
    bool keep_asked;
} document;

typedef struct asked {
    struct asked *before;
    const char *path;
} asked;

struct quipu_message {
    document json;
    bool fetched;
    quipu_bytes payload;
};

struct quipu_config {
    document json;
};

/// Whether a text is JSON; else why not, and at which byte.
bool json_is_valid(const char *text, size_t length, const char **why, size_t *at);

/// Behind white space.
const char *json_space(const char *at, const char *end);

/// Four hexadecimal digits, or -1.
int json_hex(const char *at, const char *end);

/// Remembers the first problem of a document.
void complain(document *document, const char *format, ...) QUIPU_FORMAT(2, 3);

/// The keys that nothing read, as in "unknown key `a.b`"; NULL where there are none.
const char *unknown_keys(document *document);

/// The payload, fetched on first use.
document *payload_json(quipu_message *message);

const char *format_list(const char *format, va_list values);

/// The number that begins here in valid JSON, rounded to the nearest.
double parse_number(const char *at, const char *end);

/// Whether all of it is UTF-8.
bool is_utf8(const uint8_t *data, size_t length);

#endif
