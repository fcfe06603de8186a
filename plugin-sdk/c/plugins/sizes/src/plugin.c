/// Sorts earthquakes by their size, and touches every function of the contract on the way. What it must do is said in
/// `plugin-sdk/vectors/README.md`; it is the same plugin in every language.
#include <string.h>

#include "quipu.h"

static double at_least;
static double alarm_at;
static const char *audit;

void configure(quipu_config *config)
{
    at_least = quipu_config_number(config, "at_least");
    alarm_at = quipu_config_number_or(config, "alarm_at", 6);
    audit = quipu_config_text_or(config, "audit", "audit");
    if (!*audit)
        quipu_config_refuse(config, "audit: empty");
    if (alarm_at < at_least)
        quipu_config_refuse(config, "alarm_at: below at_least");
}

static quipu_verdict swap(quipu_message *message)
{
    quipu_bytes payload = quipu_payload(message);
    uint8_t *reversed = quipu_alloc(payload.length);
    for (size_t i = 0; i < payload.length; i++)
        reversed[i] = payload.data[payload.length - 1 - i];
    quipu_set_payload(message, (quipu_bytes){reversed, payload.length});
    quipu_set_key(message, quipu_bytes_of("swapped"));
    return quipu_forward();
}

static const char *joined(const char *const *values)
{
    const char *line = *values ? *values : "none";
    for (size_t i = 1; *values && values[i]; i++)
        line = quipu_format("%s|%s", line, values[i]);
    return line;
}

/// What the rest leaves out of the contract.
static quipu_verdict echo(quipu_message *message)
{
    quipu_outgoing copy = {
        .subject = "echoes",
        .key = quipu_key(message),
        .headers = quipu_headers(message),
        .payload = quipu_payload_range(message, 4, 6),
    };
    quipu_refusal refusal = quipu_emit(message, copy);
    if (refusal)
        quipu_fault("echo refused: %s", quipu_refusal_name(refusal));
    if (!*quipu_plugin_name() || !*quipu_route_name())
        quipu_fault("no context");
    if (quipu_now_ms() < quipu_published_ms(message))
        quipu_fault("no clock");
    (void)quipu_seed();

    uint64_t expires_ms;
    const char *expires = quipu_expires_ms(message, &expires_ms) ? quipu_format("%llu", expires_ms) : "none";
    const char *reply_to = quipu_reply_to(message);
    quipu_info("%s %s %s %u %u %zu %s %s %s", quipu_id(message), quipu_subject(message), quipu_origin_subject(message),
               quipu_attempt(message), quipu_priority(message), quipu_payload_length(message), expires,
               reply_to ? reply_to : "none", joined(quipu_header_values(message, "trace")));

    const char *text = quipu_payload_text(message);
    quipu_set_payload_text(message, text ? quipu_format("echo %s", text)
                                         : quipu_format("echo of %zu bytes", quipu_payload_length(message)));
    quipu_remove_key(message);
    quipu_remove_header(message, "trace");
    return quipu_forward();
}

static void alarm(quipu_message *message, const char *network)
{
    bool named = quipu_json_kind(message, "properties.place") == QUIPU_TEXT;
    const char *place = named ? quipu_json_text(message, "properties.place") : "unknown";
    quipu_outgoing outgoing = {
        .subject = "alarms",
        .key = *network ? quipu_bytes_of(network) : (quipu_bytes){0},
        .headers = (quipu_pair[]){{"type", "alarm"}, {"quipu-priority", "9"}, {0}},
        .payload = quipu_bytes_of(place),
    };
    quipu_refusal refusal = quipu_emit(message, outgoing);
    if (refusal)
        quipu_fault("alarm refused: %s", quipu_refusal_name(refusal));
}

static quipu_verdict big(quipu_message *message, double magnitude, const char *network)
{
    quipu_set_header(message, "size", "big");
    quipu_add_header(message, "seen", "sizes");
    if (*network)
        quipu_set_key(message, quipu_bytes_of(network));
    else
        quipu_remove_key(message);
    const char *to = quipu_header(message, "audit");
    quipu_refusal refusal = quipu_emit_copy(message, to ? to : audit);
    if (refusal)
        return quipu_retry_after(5000, "audit refused: %s", quipu_refusal_name(refusal));
    if (magnitude >= alarm_at)
        alarm(message, network);
    return quipu_route("alerts", "big");
}

static quipu_verdict quake(quipu_message *message)
{
    if (quipu_payload_length(message) == 0)
        return quipu_reject("empty payload");
    quipu_kind kind = quipu_json_kind(message, "properties.mag");
    if (kind == QUIPU_NO_JSON)
        return quipu_reject("the payload is no JSON");
    if (kind != QUIPU_NUMBER)
        return quipu_reject("no magnitude");
    double magnitude = quipu_json_number(message, "properties.mag");
    bool has_network = quipu_json_kind(message, "properties.net") == QUIPU_TEXT;
    const char *network = has_network ? quipu_json_text(message, "properties.net") : "";
    if (!*network)
        quipu_warn("no network");
    if (magnitude >= at_least)
        return big(message, magnitude, network);
    quipu_set_header(message, "size", "small");
    quipu_remove_header(message, "trace");
    return quipu_forward();
}

quipu_verdict process(quipu_message *message)
{
    const char *type = quipu_header(message, "type");
    if (quipu_is(type, "quarry blast")) {
        quipu_debug("a quarry blast is left out");
        return quipu_drop("quarry blast");
    }
    if (quipu_is(type, "later"))
        return quipu_retry_after(1500, "comes later");
    if (quipu_is(type, "fault")) {
        quipu_set_header(message, "size", "lost");
        quipu_emit_copy(message, audit);
        quipu_fault("asked to fail");
    }
    if (quipu_is(type, "swap"))
        return swap(message);
    if (quipu_is(type, "echo"))
        return echo(message);
    return quake(message);
}
