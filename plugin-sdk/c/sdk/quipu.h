/// Plugins for Quipu in C.
///
/// A plugin is two functions: `configure` reads its configuration, once, and `process` says what becomes of the message
/// in hand. See README.md beside this folder.
///
/// Memory: all that these functions give lives in one arena. What they give in `configure` stays; what they give in
/// `process` is gone with the message. There is nothing to free.
///
/// Text is UTF-8 and ends with a NUL. Formats are those of `printf`, without `%g`, `%e`, `%a` and `%n`.
///
/// What goes wrong: a value that is not as asked for (`quipu_json_number` on a text, say) is remembered, and the first
/// one becomes the verdict: a reject with its text, whatever `process` returns. So a plugin may read on with the 0, NaN
/// or "" that it was given instead; edits and emitted messages are undone by the reject. `quipu_fault` is for what must
/// not happen: it ends the attempt where it stands.
#ifndef QUIPU_H
#define QUIPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUIPU_FORMAT(at, values) __attribute__((format(printf, at, values)))

// ---------------------------------------------------------------------------------------------------------------------
// What the plugin defines

/// The configuration of this use of the plugin.
typedef struct quipu_config quipu_config;
/// The message in hand, as the plugins before this one left it.
typedef struct quipu_message quipu_message;
/// What becomes of it.
typedef struct quipu_verdict quipu_verdict;

/// Reads the configuration, once per instance. Keys that it does not read are refused, so a plugin without
/// configuration defines it all the same, with nothing in it.
void configure(quipu_config *config);

/// Says what becomes of the message in hand.
quipu_verdict process(quipu_message *message);

// ---------------------------------------------------------------------------------------------------------------------
// Verdicts

struct quipu_verdict {
    uint32_t kind;
    uint32_t count;
    uint64_t delay_ms;
    const void *said;
};

/// To the next plugin of the chain; after the last one, to the route's `to`.
quipu_verdict quipu_forward(void);
/// As forward, but these subjects, 1 to 64, take the place of `to`: `quipu_route("alerts", "big")`.
#define quipu_route(...) \
    quipu_route_to((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))
/// As `quipu_route`, for a list that is made at run time.
quipu_verdict quipu_route_to(const char *const *subjects, size_t count);
/// Settled and gone. Drops are counted by their reason: leave out what differs from message to message.
quipu_verdict quipu_drop(const char *reason, ...) QUIPU_FORMAT(1, 2);
/// Try again after the route's own backoff.
quipu_verdict quipu_retry(const char *reason, ...) QUIPU_FORMAT(1, 2);
/// Try again after so many milliseconds.
quipu_verdict quipu_retry_after(uint64_t ms, const char *reason, ...) QUIPU_FORMAT(2, 3);
/// To the dead-letter queue now.
quipu_verdict quipu_reject(const char *reason, ...) QUIPU_FORMAT(1, 2);

// ---------------------------------------------------------------------------------------------------------------------
// The message in hand. Each of these asks the router; the payload is fetched once, on first use.

/// Bytes with their length, followed by a NUL that does not count. `data` is NULL where there are none.
typedef struct quipu_bytes {
    const uint8_t *data;
    size_t length;
} quipu_bytes;

/// Name and value. Lists of headers end with a name that is NULL.
typedef struct quipu_pair {
    const char *name;
    const char *value;
} quipu_pair;

const char *quipu_id(quipu_message *message);
/// The subject that brought it here.
const char *quipu_subject(quipu_message *message);
/// The subject it was first published to.
const char *quipu_origin_subject(quipu_message *message);
/// The subject that waits for a reply, or NULL.
const char *quipu_reply_to(quipu_message *message);
/// Its key; `data` is NULL where it has none.
quipu_bytes quipu_key(quipu_message *message);
/// First value of this header, or NULL. Names compare without case.
const char *quipu_header(quipu_message *message, const char *name);
/// All values of this header, in order, and a NULL behind them.
const char *const *quipu_header_values(quipu_message *message, const char *name);
/// All headers, in order, and one whose name is NULL behind them.
const quipu_pair *quipu_headers(quipu_message *message);
/// Its payload; `data` is never NULL.
quipu_bytes quipu_payload(quipu_message *message);
/// Length of the payload in bytes, without fetching it.
size_t quipu_payload_length(quipu_message *message);
/// The payload as text, or NULL where it is not UTF-8 or has a NUL in it.
const char *quipu_payload_text(quipu_message *message);
/// Part of the payload, clamped to it, without fetching the rest.
quipu_bytes quipu_payload_range(quipu_message *message, uint32_t offset, uint32_t length);
/// When it was published, in Unix milliseconds.
uint64_t quipu_published_ms(quipu_message *message);
/// Whether it expires, and when, in Unix milliseconds.
bool quipu_expires_ms(quipu_message *message, uint64_t *ms);
/// 1 on the first try.
uint32_t quipu_attempt(quipu_message *message);
/// 0 to 9.
uint8_t quipu_priority(quipu_message *message);

// ---------------------------------------------------------------------------------------------------------------------
// Changes. They count once the verdict is to forward or to route. An invalid name or value is a fault.

/// Takes the place of all values of this header.
void quipu_set_header(quipu_message *message, const char *name, const char *value);
/// Adds a value.
void quipu_add_header(quipu_message *message, const char *name, const char *value);
/// Removes all values.
void quipu_remove_header(quipu_message *message, const char *name);
void quipu_set_key(quipu_message *message, quipu_bytes key);
void quipu_remove_key(quipu_message *message);
void quipu_set_payload(quipu_message *message, quipu_bytes payload);
void quipu_set_payload_text(quipu_message *message, const char *text);

// ---------------------------------------------------------------------------------------------------------------------
// New messages. They go out before the message in hand; undone on retry, reject and a fault, kept on drop.

/// What the router said to a new message.
typedef enum quipu_refusal {
    QUIPU_TAKEN,
    /// Too many of them for one message in hand, or too large together.
    QUIPU_LIMIT,
    /// An invalid subject, key, header or property.
    QUIPU_INVALID,
    /// The route does not let this plugin publish there.
    QUIPU_NOT_GRANTED,
    /// It would come back to this route.
    QUIPU_LOOP,
} quipu_refusal;

/// A new message. The headers `quipu-id`, `quipu-expires-ms`, `quipu-deliver-at-ms` and `quipu-priority` set those
/// properties.
typedef struct quipu_outgoing {
    const char *subject;
    /// NULL: no key.
    quipu_bytes key;
    /// NULL, or a list that ends with a name that is NULL: `(quipu_pair[]){{"type", "alarm"}, {0}}`.
    const quipu_pair *headers;
    quipu_bytes payload;
} quipu_outgoing;

/// Publishes a new message: `quipu_emit(message, (quipu_outgoing){.subject = "alarms"})`.
quipu_refusal quipu_emit(quipu_message *message, quipu_outgoing outgoing);
/// Publishes a copy of the message in hand, as edited so far. Its payload stays with the router.
quipu_refusal quipu_emit_copy(quipu_message *message, const char *subject);
/// `limit`, `invalid`, `not-granted` or `loop`; `taken` where it was not refused.
const char *quipu_refusal_name(quipu_refusal refusal);

// ---------------------------------------------------------------------------------------------------------------------
// JSON payloads. A path is names with dots between: `properties.mag`. A number picks an element of an array:
// `coordinates.0`. A dot that belongs to a name is written `\\.`, and a backslash `\\\\`. Of names that occur twice the
// last one counts. The payload is checked as a whole, on first use.

typedef enum quipu_kind {
    /// The payload is no JSON.
    QUIPU_NO_JSON,
    QUIPU_ABSENT,
    QUIPU_NULL,
    QUIPU_BOOL,
    QUIPU_NUMBER,
    QUIPU_TEXT,
    QUIPU_ARRAY,
    QUIPU_OBJECT,
} quipu_kind;

/// What is there. Never an error; "" is the whole payload.
quipu_kind quipu_json_kind(quipu_message *message, const char *path);
/// Elements of an array, or fields of an object, there; anything else rejects.
size_t quipu_json_count(quipu_message *message, const char *path);
/// What stands there, as JSON; absent rejects.
const char *quipu_json_raw(quipu_message *message, const char *path);
/// A number; anything else, or nothing, rejects and gives NaN.
double quipu_json_number(quipu_message *message, const char *path);
/// A number without fraction between -2^53 and 2^53; anything else rejects and gives 0.
int64_t quipu_json_integer(quipu_message *message, const char *path);
/// A text; anything else rejects and gives "". So does a text with a NUL in it.
const char *quipu_json_text(quipu_message *message, const char *path);
/// true or false; anything else rejects and gives false.
bool quipu_json_bool(quipu_message *message, const char *path);

// The same, with a value where there is nothing, or null. Any other kind rejects all the same.
double quipu_json_number_or(quipu_message *message, const char *path, double otherwise);
int64_t quipu_json_integer_or(quipu_message *message, const char *path, int64_t otherwise);
const char *quipu_json_text_or(quipu_message *message, const char *path, const char *otherwise);
bool quipu_json_bool_or(quipu_message *message, const char *path, bool otherwise);

/// The text in quotes and escaped, for JSON that is made by `quipu_format`.
const char *quipu_quoted(const char *text);

// ---------------------------------------------------------------------------------------------------------------------
// The configuration: as JSON payloads, but the first thing that is wrong refuses the plugin.

quipu_kind quipu_config_kind(quipu_config *config, const char *path);
size_t quipu_config_count(quipu_config *config, const char *path);
const char *quipu_config_raw(quipu_config *config, const char *path);
double quipu_config_number(quipu_config *config, const char *path);
int64_t quipu_config_integer(quipu_config *config, const char *path);
const char *quipu_config_text(quipu_config *config, const char *path);
bool quipu_config_bool(quipu_config *config, const char *path);
double quipu_config_number_or(quipu_config *config, const char *path, double otherwise);
int64_t quipu_config_integer_or(quipu_config *config, const char *path, int64_t otherwise);
const char *quipu_config_text_or(quipu_config *config, const char *path, const char *otherwise);
bool quipu_config_bool_or(quipu_config *config, const char *path, bool otherwise);
/// Refuses the configuration; begin with the key: `quipu_config_refuse(config, "at_most: below at_least")`.
void quipu_config_refuse(quipu_config *config, const char *problem, ...) QUIPU_FORMAT(2, 3);

// ---------------------------------------------------------------------------------------------------------------------
// Log, faults, context

/// Lines for the router's log. Their number and length are limited.
void quipu_trace(const char *format, ...) QUIPU_FORMAT(1, 2);
void quipu_debug(const char *format, ...) QUIPU_FORMAT(1, 2);
void quipu_info(const char *format, ...) QUIPU_FORMAT(1, 2);
void quipu_warn(const char *format, ...) QUIPU_FORMAT(1, 2);
void quipu_error(const char *format, ...) QUIPU_FORMAT(1, 2);

/// Ends the attempt with this text and the place where it stands: `quipu_fault("no table for %s", net)`.
#define quipu_fault(...) quipu_fault_at(__FILE__, __LINE__, __func__, __VA_ARGS__)
/// A fault where the condition does not hold.
#define quipu_assert(condition) ((condition) ? (void)0 : quipu_fault("assertion failed: %s", #condition))
[[noreturn]] void quipu_fault_at(const char *file, int line, const char *function, const char *format, ...)
    QUIPU_FORMAT(4, 5);

/// The plugin's name, as the route knows it.
const char *quipu_plugin_name(void);
/// Name of the route that uses it.
const char *quipu_route_name(void);
/// Unix time in milliseconds. Stands still within an attempt.
uint64_t quipu_now_ms(void);
/// Random; the same throughout an attempt and its replay.
uint64_t quipu_seed(void);

// ---------------------------------------------------------------------------------------------------------------------
// Small things

/// Memory of the arena, zeroed, good for any type; NULL never.
void *quipu_alloc(size_t size);
/// A text made as `printf` would.
const char *quipu_format(const char *format, ...) QUIPU_FORMAT(1, 2);
/// Whether both texts are the same; false where one is NULL.
bool quipu_is(const char *a, const char *b);
/// A text's bytes, without its NUL. Of NULL: none.
quipu_bytes quipu_bytes_of(const char *text);

#endif
