/// The message in hand, verdicts and faults: the canonical ABI of the contract, by hand.
///
/// A text or list goes in as pointer and length. A result that is more than one number comes back through a pointer,
/// its texts in memory that the router takes by `cabi_realloc`: the arena.
#include <string.h>

#include "internal.h"

#define MESSAGE "quipu:plugin/message@0.1.0"
#define EDIT "quipu:plugin/edit@0.1.0"
#define EMIT "quipu:plugin/emit@0.1.0"
#define CONTEXT "quipu:plugin/context@0.1.0"
#define LOG "quipu:plugin/log@0.1.0"
#define IMPORT(interface, name) __attribute__((import_module(interface), import_name(name))) extern
#define EXPORT(name) __attribute__((export_name(name)))

typedef struct option_view {
    uint32_t some;
    view value;
} option_view;

typedef struct option_u64 {
    uint64_t some;
    uint64_t value;
} option_u64;

typedef struct result_refusal {
    uint8_t refused;
    uint8_t refusal;
} result_refusal;

typedef struct pair_view {
    view name, value;
} pair_view;

IMPORT(MESSAGE, "id") void message_id(view *result);
IMPORT(MESSAGE, "subject") void message_subject(view *result);
IMPORT(MESSAGE, "origin-subject") void message_origin_subject(view *result);
IMPORT(MESSAGE, "key") void message_key(option_view *result);
IMPORT(MESSAGE, "header") void message_header(const char *name, size_t length, option_view *result);
IMPORT(MESSAGE, "header-values") void message_header_values(const char *name, size_t length, view *result);
IMPORT(MESSAGE, "headers") void message_headers(view *result);
IMPORT(MESSAGE, "payload-len") size_t message_payload_len(void);
IMPORT(MESSAGE, "payload") void message_payload(view *result);
IMPORT(MESSAGE, "payload-range") void message_payload_range(uint32_t offset, uint32_t length, view *result);
IMPORT(MESSAGE, "published-ms") uint64_t message_published_ms(void);
IMPORT(MESSAGE, "expires-ms") void message_expires_ms(option_u64 *result);
IMPORT(MESSAGE, "attempt") uint32_t message_attempt(void);
IMPORT(MESSAGE, "priority") uint32_t message_priority(void);
IMPORT(MESSAGE, "reply-to") void message_reply_to(option_view *result);
IMPORT(EDIT, "set-header") void edit_set_header(const char *name, size_t name_length, const char *value, size_t length);
IMPORT(EDIT, "add-header") void edit_add_header(const char *name, size_t name_length, const char *value, size_t length);
IMPORT(EDIT, "remove-header") void edit_remove_header(const char *name, size_t length);
IMPORT(EDIT, "set-key") void edit_set_key(const void *key, size_t length);
IMPORT(EDIT, "remove-key") void edit_remove_key(void);
IMPORT(EDIT, "set-payload") void edit_set_payload(const void *data, size_t length);
IMPORT(EDIT, "set-payload-text") void edit_set_payload_text(const char *text, size_t length);
IMPORT(EMIT, "publish") void emit_publish(const char *subject, size_t subject_length, uint32_t has_key, const void *key,
                                          size_t key_length, const pair_view *headers, size_t headers_count,
                                          const void *payload, size_t payload_length, result_refusal *result);
IMPORT(EMIT, "copy") void emit_copy(const char *subject, size_t length, result_refusal *result);
IMPORT(CONTEXT, "plugin") void context_plugin(view *result);
IMPORT(CONTEXT, "route") void context_route(view *result);
IMPORT(CONTEXT, "config") void context_config(view *result);
IMPORT(CONTEXT, "now-ms") uint64_t context_now_ms(void);
IMPORT(CONTEXT, "seed") uint64_t context_seed(void);
IMPORT(LOG, "log") void log_log(uint32_t level, const char *text, size_t length);
IMPORT(LOG, "fault") void log_fault(const char *text, size_t length, const char *trace, size_t trace_length);

// ---------------------------------------------------------------------------------------------------------------------
// The arena: memory from the end of the program's own on, given out in order. What `configure` took stays below
// `floor`; each message begins there anew, so the verdict's texts live until the router has read them.

extern uint8_t __heap_base[];

static const size_t page = 64 << 10;
static uintptr_t floor, top;

static void *take(size_t align, size_t size)
{
    if (!top)
        floor = top = (uintptr_t)__heap_base;
    uintptr_t begin = (top + align - 1) & ~(uintptr_t)(align - 1);
    uintptr_t end = begin + size;
    uintptr_t room = __builtin_wasm_memory_size(0) * page;
    if (begin < top || end < begin)
        quipu_fault("out of memory: %zu bytes", size);
    if (end > room && __builtin_wasm_memory_grow(0, (end - room + page - 1) / page) == SIZE_MAX)
        // The text of this must not need the arena.
        log_fault("out of memory", 13, "", 0), __builtin_trap();
    top = end;
    return (void *)begin;
}

void *quipu_alloc(size_t size)
{
    void *memory = take(_Alignof(max_align_t), size);
    memset(memory, 0, size);
    return memory;
}

/// The router takes memory for what it hands over. One byte more than asked for: a text ends with a NUL.
EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size)
{
    uint8_t *memory = take(align, size + 1);
    if (old_size)
        memcpy(memory, old, old_size < size ? old_size : size);
    memory[size] = 0;
    return memory;
}

// ---------------------------------------------------------------------------------------------------------------------
// Faults and log

void quipu_fault_at(const char *file, int line, const char *function, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    const char *text = format_list(format, values);
    va_end(values);
    const char *place = quipu_format("%s:%d in %s", file, line, function);
    log_fault(text, strlen(text), place, strlen(place));
    __builtin_trap();
}

#define LOG_FUNCTION(name, level)                            \
    void name(const char *format, ...)                       \
    {                                                        \
        va_list values;                                      \
        va_start(values, format);                            \
        const char *text = format_list(format, values);      \
        va_end(values);                                      \
        log_log(level, text, strlen(text));                  \
    }

LOG_FUNCTION(quipu_trace, 0)
LOG_FUNCTION(quipu_debug, 1)
LOG_FUNCTION(quipu_info, 2)
LOG_FUNCTION(quipu_warn, 3)
LOG_FUNCTION(quipu_error, 4)

// ---------------------------------------------------------------------------------------------------------------------
// Context

static const char *text_of(void (*ask)(view *result))
{
    view text;
    ask(&text);
    // An empty text is handed over without memory, and so without a NUL.
    return text.length ? text.data : "";
}

static const char *optional(option_view text)
{
    return !(uint8_t)text.some ? NULL : text.value.length ? text.value.data : "";
}

const char *quipu_plugin_name(void) { return text_of(context_plugin); }
const char *quipu_route_name(void) { return text_of(context_route); }
uint64_t quipu_now_ms(void) { return context_now_ms(); }
uint64_t quipu_seed(void) { return context_seed(); }

// ---------------------------------------------------------------------------------------------------------------------
// The message in hand

static quipu_bytes bytes(view view)
{
    return (quipu_bytes){view.length ? view.data : "", view.length};
}

const char *quipu_id(quipu_message *) { return text_of(message_id); }
const char *quipu_subject(quipu_message *) { return text_of(message_subject); }
const char *quipu_origin_subject(quipu_message *) { return text_of(message_origin_subject); }

const char *quipu_reply_to(quipu_message *)
{
    option_view subject;
    message_reply_to(&subject);
    return optional(subject);
}

quipu_bytes quipu_key(quipu_message *)
{
    option_view key;
    message_key(&key);
    return (uint8_t)key.some ? bytes(key.value) : (quipu_bytes){0};
}

const char *quipu_header(quipu_message *, const char *name)
{
    option_view value;
    message_header(name, strlen(name), &value);
    return optional(value);
}

const char *const *quipu_header_values(quipu_message *, const char *name)
{
    view list;
    message_header_values(name, strlen(name), &list);
    const view *values = list.data;
    const char **texts = quipu_alloc((list.length + 1) * sizeof *texts);
    for (size_t i = 0; i < list.length; i++)
        texts[i] = values[i].length ? values[i].data : "";
    return texts;
}

const quipu_pair *quipu_headers(quipu_message *)
{
    view list;
    message_headers(&list);
    const pair_view *headers = list.data;
    quipu_pair *pairs = quipu_alloc((list.length + 1) * sizeof *pairs);
    for (size_t i = 0; i < list.length; i++) {
        pairs[i].name = headers[i].name.data;
        pairs[i].value = headers[i].value.length ? headers[i].value.data : "";
    }
    return pairs;
}

quipu_bytes quipu_payload(quipu_message *message)
{
    if (!message->fetched) {
        view payload;
        message_payload(&payload);
        message->payload = bytes(payload);
        message->fetched = true;
    }
    return message->payload;
}

size_t quipu_payload_length(quipu_message *message)
{
    return message->fetched ? message->payload.length : message_payload_len();
}

const char *quipu_payload_text(quipu_message *message)
{
    quipu_bytes payload = quipu_payload(message);
    bool text = is_utf8(payload.data, payload.length) && !memchr(payload.data, 0, payload.length);
    return text ? (const char *)payload.data : NULL;
}

quipu_bytes quipu_payload_range(quipu_message *, uint32_t offset, uint32_t length)
{
    view part;
    message_payload_range(offset, length, &part);
    return bytes(part);
}

uint64_t quipu_published_ms(quipu_message *) { return message_published_ms(); }
uint32_t quipu_attempt(quipu_message *) { return message_attempt(); }
uint8_t quipu_priority(quipu_message *) { return (uint8_t)message_priority(); }

bool quipu_expires_ms(quipu_message *, uint64_t *ms)
{
    option_u64 expires;
    message_expires_ms(&expires);
    *ms = (uint8_t)expires.some ? expires.value : 0;
    return (uint8_t)expires.some;
}

document *payload_json(quipu_message *message)
{
    quipu_bytes payload = quipu_payload(message);
    message->json.text = (const char *)payload.data;
    message->json.length = payload.length;
    return &message->json;
}

// ---------------------------------------------------------------------------------------------------------------------
// Changes

void quipu_set_header(quipu_message *, const char *name, const char *value)
{
    edit_set_header(name, strlen(name), value, strlen(value));
}

void quipu_add_header(quipu_message *, const char *name, const char *value)
{
    edit_add_header(name, strlen(name), value, strlen(value));
}

void quipu_remove_header(quipu_message *, const char *name) { edit_remove_header(name, strlen(name)); }
void quipu_set_key(quipu_message *, quipu_bytes key) { edit_set_key(key.data, key.length); }
void quipu_remove_key(quipu_message *) { edit_remove_key(); }

/// What was read of the old payload stays, and so does what was found wrong with it.
static void forget_payload(quipu_message *message)
{
    message->fetched = false;
    message->json.checked = false;
    message->json.invalid = NULL;
}

void quipu_set_payload(quipu_message *message, quipu_bytes payload)
{
    edit_set_payload(payload.data, payload.length);
    forget_payload(message);
}

void quipu_set_payload_text(quipu_message *message, const char *text)
{
    edit_set_payload_text(text, strlen(text));
    forget_payload(message);
}

// ---------------------------------------------------------------------------------------------------------------------
// New messages

static quipu_refusal refusal(result_refusal result)
{
    return result.refused ? (quipu_refusal)(result.refusal + 1) : QUIPU_TAKEN;
}

quipu_refusal quipu_emit(quipu_message *, quipu_outgoing outgoing)
{
    if (!outgoing.subject)
        quipu_fault("quipu_emit without a subject");
    size_t count = 0;
    while (outgoing.headers && outgoing.headers[count].name)
        count++;
    pair_view *headers = quipu_alloc(count * sizeof *headers);
    for (size_t i = 0; i < count; i++) {
        const quipu_pair *header = &outgoing.headers[i];
        const char *value = header->value ? header->value : "";
        headers[i] = (pair_view){{header->name, strlen(header->name)}, {value, strlen(value)}};
    }
    result_refusal result;
    emit_publish(outgoing.subject, strlen(outgoing.subject), outgoing.key.data != NULL, outgoing.key.data,
                 outgoing.key.length, headers, count, outgoing.payload.data, outgoing.payload.length, &result);
    return refusal(result);
}

quipu_refusal quipu_emit_copy(quipu_message *, const char *subject)
{
    result_refusal result;
    emit_copy(subject, strlen(subject), &result);
    return refusal(result);
}

const char *quipu_refusal_name(quipu_refusal refusal)
{
    static const char *const names[] = {"taken", "limit", "invalid", "not-granted", "loop"};
    return (size_t)refusal < sizeof names / sizeof *names ? names[refusal] : "unknown";
}

// ---------------------------------------------------------------------------------------------------------------------
// Verdicts. `kind` is the contract's number of each.

enum { FORWARD, ROUTE, DROP, RETRY, REJECT };

/// The largest delay that the contract can say, in milliseconds.
static const uint64_t delay_ms_max = ((uint64_t)1 << 53) - 1;

static quipu_verdict verdict(uint32_t kind, const char *reason)
{
    return (quipu_verdict){.kind = kind, .said = reason};
}

#define VERDICT_FUNCTION(name, kind)                         \
    quipu_verdict name(const char *reason, ...)              \
    {                                                        \
        va_list values;                                      \
        va_start(values, reason);                            \
        const char *text = format_list(reason, values);      \
        va_end(values);                                      \
        return verdict(kind, text);                          \
    }

VERDICT_FUNCTION(quipu_drop, DROP)
VERDICT_FUNCTION(quipu_retry, RETRY)
VERDICT_FUNCTION(quipu_reject, REJECT)

quipu_verdict quipu_forward(void) { return verdict(FORWARD, NULL); }

quipu_verdict quipu_retry_after(uint64_t ms, const char *reason, ...)
{
    va_list values;
    va_start(values, reason);
    quipu_verdict made = verdict(RETRY, format_list(reason, values));
    va_end(values);
    made.delay_ms = ms < delay_ms_max ? ms : delay_ms_max;
    return made;
}

quipu_verdict quipu_route_to(const char *const *subjects, size_t count)
{
    view *list = quipu_alloc(count * sizeof *list);
    for (size_t i = 0; i < count; i++)
        list[i] = (view){subjects[i], strlen(subjects[i])};
    quipu_verdict made = verdict(ROUTE, NULL);
    made.said = list;
    made.count = (uint32_t)count;
    return made;
}

// ---------------------------------------------------------------------------------------------------------------------
// Small things

bool quipu_is(const char *a, const char *b) { return a && b && strcmp(a, b) == 0; }

quipu_bytes quipu_bytes_of(const char *text)
{
    return text ? (quipu_bytes){(const uint8_t *)text, strlen(text)} : (quipu_bytes){0};
}

// ---------------------------------------------------------------------------------------------------------------------
// What the router calls

typedef struct result_string {
    uint32_t failed;
    view problem;
} result_string;

/// A verdict, as the canonical ABI has it.
typedef struct wire_verdict {
    uint64_t kind;
    union {
        view said;
        struct {
            uint64_t ms;
            view reason;
        } retry;
    };
} wire_verdict;

EXPORT("quipu:plugin/handler@0.1.0#configure") const result_string *export_configure(void)
{
    static result_string result;
    view text;
    context_config(&text);
    if (!text.length)
        text = (view){"{}", 2};
    quipu_config config = {
        .json = {.text = text.data, .length = text.length, .name = "the configuration", .keep_asked = true},
    };
    configure(&config);
    const char *unknown = unknown_keys(&config.json), *problem = config.json.problem;
    if (problem && unknown)
        problem = quipu_format("%s (%s)", problem, unknown);
    else if (!problem)
        problem = unknown;
    result.failed = problem != NULL;
    if (problem)
        result.problem = (view){problem, strlen(problem)};
    floor = top;
    return &result;
}

EXPORT("quipu:plugin/handler@0.1.0#process") const wire_verdict *export_process(void)
{
    static wire_verdict wire;
    top = floor;
    quipu_message message = {.json = {.name = "the payload"}};
    quipu_verdict said = process(&message);
    if (message.json.problem)
        said = verdict(REJECT, message.json.problem);
    wire.kind = said.kind;
    const char *reason = said.said ? said.said : "";
    if (said.kind == ROUTE)
        wire.said = (view){said.said, said.count};
    else if (said.kind == RETRY) {
        wire.retry.ms = said.delay_ms;
        wire.retry.reason = (view){reason, strlen(reason)};
    } else
        wire.said = (view){reason, said.kind == FORWARD ? 0 : strlen(reason)};
    return &wire;
}
