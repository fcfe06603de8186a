//! Sorts earthquakes by their size, and touches every function of the contract on the way. What it must do is said in
//! `plugin-sdk/vectors/README.md`; it is the same plugin in every language.

const std = @import("std");
const quipu = @import("quipu");

pub const Config = struct {
    at_least: f64,
    alarm_at: f64 = 6,
    audit: []const u8 = "audit",
};

pub fn check(config: Config) ?[]const u8 {
    if (config.audit.len == 0) return "audit: empty";
    if (config.alarm_at < config.at_least) return "alarm_at: below at_least";
    return null;
}

const Type = enum { @"quarry blast", later, fault, swap, echo };

pub fn process(message: *quipu.Message, config: Config) !quipu.Verdict {
    const of = std.meta.stringToEnum(Type, message.header("type") orelse "") orelse return quake(message, config);
    switch (of) {
        .@"quarry blast" => {
            quipu.log.debug("a quarry blast is left out", .{});
            return quipu.drop("quarry blast");
        },
        .later => return quipu.retryAfter(1500, "comes later"),
        .fault => {
            message.setHeader("size", "lost");
            try message.emitCopy(config.audit);
            quipu.fault(@src(), "asked to fail", .{});
        },
        .swap => return swap(message),
        .echo => return echo(message),
    }
}

fn swap(message: *quipu.Message) !quipu.Verdict {
    const reversed = try quipu.arena.dupe(u8, message.payload());
    std.mem.reverse(u8, reversed);
    message.setPayload(reversed);
    message.setKey("swapped");
    return quipu.forward();
}

/// What the rest leaves out of the contract.
fn echo(message: *quipu.Message) !quipu.Verdict {
    message.emit(.{
        .subject = "echoes",
        .key = message.key(),
        .headers = message.headers(),
        .payload = message.payloadRange(4, 6),
    }) catch |refusal| quipu.fault(@src(), "echo refused: {s}", .{quipu.refusalName(refusal)});
    if (quipu.context.plugin().len == 0 or quipu.context.route().len == 0) quipu.fault(@src(), "no context", .{});
    if (quipu.context.nowMs() < message.publishedMs()) quipu.fault(@src(), "no clock", .{});
    _ = quipu.context.seed();

    const expires = if (message.expiresMs()) |ms| quipu.format("{d}", .{ms}) else "none";
    const traces = message.headerValues("trace");
    quipu.log.info("{s} {s} {s} {d} {d} {d} {s} {s} {s}", .{
        message.id(),
        message.subject(),
        message.originSubject(),
        message.attempt(),
        message.priority(),
        message.payloadLen(),
        expires,
        message.replyTo() orelse "none",
        if (traces.len == 0) "none" else try std.mem.join(quipu.arena, "|", traces),
    });

    message.setPayloadText(if (message.payloadText()) |text|
        quipu.format("echo {s}", .{text})
    else
        quipu.format("echo of {d} bytes", .{message.payloadLen()}));
    message.removeKey();
    message.removeHeader("trace");
    return quipu.forward();
}

fn quake(message: *quipu.Message, config: Config) !quipu.Verdict {
    if (message.payloadLen() == 0) return quipu.reject("empty payload");
    const magnitude = message.jsonAt(f64, "properties.mag") catch |failure| switch (failure) {
        error.NotJson => return quipu.reject("the payload is no JSON"),
        error.Absent, error.Unfit => return quipu.reject("no magnitude"),
        error.OutOfMemory => |other| return other,
    };
    const network = message.jsonAt([]const u8, "properties.net") catch "";
    if (network.len == 0) quipu.log.warn("no network", .{});
    if (magnitude >= config.at_least) return big(message, config, magnitude, network);
    message.setHeader("size", "small");
    message.removeHeader("trace");
    return quipu.forward();
}

fn big(message: *quipu.Message, config: Config, magnitude: f64, network: []const u8) !quipu.Verdict {
    message.setHeader("size", "big");
    message.addHeader("seen", "sizes");
    if (network.len == 0) message.removeKey() else message.setKey(network);
    message.emitCopy(message.header("audit") orelse config.audit) catch |refusal|
        return quipu.retryAfter(5000, quipu.format("audit refused: {s}", .{quipu.refusalName(refusal)}));
    if (magnitude >= config.alarm_at) {
        message.emit(.{
            .subject = "alarms",
            .key = if (network.len == 0) null else network,
            .headers = &.{ .{ .name = "type", .value = "alarm" }, .{ .name = "quipu-priority", .value = "9" } },
            .payload = message.jsonAt([]const u8, "properties.place") catch "unknown",
        }) catch |refusal| quipu.fault(@src(), "alarm refused: {s}", .{quipu.refusalName(refusal)});
    }
    return quipu.route(&.{ "alerts", "big" });
}
