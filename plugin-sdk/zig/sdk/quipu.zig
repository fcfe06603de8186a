//! Plugins for Quipu in Zig.
//!
//! A plugin is a file with `pub fn process(message: *quipu.Message, config: Config) !quipu.Verdict` and, where it has a
//! configuration, `pub const Config = struct { ... }`. `pub fn check(config: Config) ?[]const u8` may say what is wrong
//! with one that fits the type; begin its text with the key.
//!
//! Memory: whatever these functions give lives in `quipu.arena` and is gone with the message; there is nothing to free.
//! The arena is good for the plugin's own needs too.
//!
//! An error out of `process` rejects the message, with the SDK's account of it or else with its name. A panic fails the
//! attempt: its text is told, and by `fault` its place as well.

const std = @import("std");
const json = @import("json.zig");
const reader = @import("config.zig");

/// For the SDK's own `root.zig`.
pub const abi = @import("abi.zig");

/// Memory of the message in hand.
pub const arena = memory.allocator();

var memory: std.heap.ArenaAllocator = .init(std.heap.wasm_allocator);

/// Memory that the arena keeps from one message to the next, in bytes.
const kept_bytes_max = 1 << 20;

/// What becomes of the message in hand; made by the functions of the same names.
pub const Verdict = union(enum) {
    forward,
    route: []const abi.View,
    drop: []const u8,
    retry: struct { ms: u64, reason: []const u8 },
    reject: []const u8,

    pub fn wire(verdict: Verdict) abi.Verdict {
        return switch (verdict) {
            .forward => .{ .kind = .forward, .said = .{ .view = .{} } },
            .route => |subjects| .{ .kind = .route, .said = .{
                .view = .{ .data = @ptrCast(abi.start(abi.View, subjects)), .len = subjects.len },
            } },
            .drop => |reason| .{ .kind = .drop, .said = .{ .view = .of(reason) } },
            .retry => |after| .{ .kind = .retry, .said = .{
                .retry = .{ .ms = after.ms, .reason = .of(after.reason) },
            } },
            .reject => |reason| .{ .kind = .reject, .said = .{ .view = .of(reason) } },
        };
    }
};

/// The largest delay that the contract can say, in milliseconds.
const delay_ms_max = (1 << 53) - 1;

/// To the next plugin of the chain; after the last one, to the route's `to`.
pub fn forward() Verdict {
    return .forward;
}

/// As forward, but these subjects, 1 to 64, take the place of `to`: `quipu.route(&.{ "alerts", "big" })`.
pub fn route(subjects: []const []const u8) Verdict {
    const views = arena.alloc(abi.View, subjects.len) catch @panic("out of memory");
    for (subjects, views) |subject, *view| view.* = .of(kept(subject));
    return .{ .route = views };
}

/// Settled and gone. Drops are counted by their reason: leave out what differs from message to message.
pub fn drop(reason: []const u8) Verdict {
    return .{ .drop = kept(reason) };
}

/// Try again after the route's own backoff.
pub fn retry(reason: []const u8) Verdict {
    return retryAfter(0, reason);
}

/// Try again after so many milliseconds.
pub fn retryAfter(ms: u64, reason: []const u8) Verdict {
    return .{ .retry = .{ .ms = @min(ms, delay_ms_max), .reason = kept(reason) } };
}

/// To the dead-letter queue now.
pub fn reject(reason: []const u8) Verdict {
    return .{ .reject = kept(reason) };
}

/// A copy in the arena: what lies on the stack of `process` is gone when the verdict is read.
fn kept(reason: []const u8) []const u8 {
    return arena.dupe(u8, reason) catch @panic("out of memory");
}

/// A text in the arena.
pub fn format(comptime pattern: []const u8, values: anytype) []const u8 {
    return std.fmt.allocPrint(arena, pattern, values) catch @panic("out of memory");
}

pub const Header = struct { name: []const u8, value: []const u8 };

/// A new message. The headers `quipu-id`, `quipu-expires-ms`, `quipu-deliver-at-ms` and `quipu-priority` set those
/// properties.
pub const Outgoing = struct {
    subject: []const u8,
    key: ?[]const u8 = null,
    headers: []const Header = &.{},
    payload: []const u8 = "",
};

/// Why the router did not take a new message.
pub const Refusal = error{
    /// Too many of them for one message in hand, or too large together.
    Limit,
    /// An invalid subject, key, header or property.
    Invalid,
    /// The route does not let this plugin publish there.
    NotGranted,
    /// It would come back to this route.
    Loop,
};

/// `limit`, `invalid`, `not-granted` or `loop`.
pub fn refusalName(refusal: Refusal) []const u8 {
    return switch (refusal) {
        error.Limit => "limit",
        error.Invalid => "invalid",
        error.NotGranted => "not-granted",
        error.Loop => "loop",
    };
}

/// Why a payload, or a field of it, could not be had.
pub const JsonError = json.Failure;

/// The message in hand, as the plugins before this one left it. Each read asks the router; the payload is fetched once,
/// on first use.
pub const Message = struct {
    fetched: ?[]const u8 = null,
    /// The SDK's account of the error that it gave last.
    told: ?struct { failure: anyerror, text: []const u8 } = null,

    pub fn id(_: *const Message) []const u8 {
        return text(abi.message.id);
    }

    /// The subject that brought it here.
    pub fn subject(_: *const Message) []const u8 {
        return text(abi.message.subject);
    }

    /// The subject it was first published to.
    pub fn originSubject(_: *const Message) []const u8 {
        return text(abi.message.originSubject);
    }

    /// The subject that waits for a reply.
    pub fn replyTo(_: *const Message) ?[]const u8 {
        var found: abi.OptionView = undefined;
        abi.message.replyTo(&found);
        return found.bytes();
    }

    pub fn key(_: *const Message) ?[]const u8 {
        var found: abi.OptionView = undefined;
        abi.message.key(&found);
        return found.bytes();
    }

    /// First value of this header; names compare without case.
    pub fn header(_: *const Message, name: []const u8) ?[]const u8 {
        var found: abi.OptionView = undefined;
        abi.message.header(abi.start(u8, name), name.len, &found);
        return found.bytes();
    }

    /// All values of this header, in order.
    pub fn headerValues(_: *const Message, name: []const u8) []const []const u8 {
        var found: abi.View = .{};
        abi.message.headerValues(abi.start(u8, name), name.len, &found);
        const views = found.items(abi.View);
        const values = arena.alloc([]const u8, views.len) catch @panic("out of memory");
        for (views, values) |view, *value| value.* = view.bytes();
        return values;
    }

    /// All headers, in order.
    pub fn headers(_: *const Message) []const Header {
        var found: abi.View = .{};
        abi.message.headers(&found);
        const pairs = found.items(abi.Pair);
        const all = arena.alloc(Header, pairs.len) catch @panic("out of memory");
        for (pairs, all) |pair, *one| one.* = .{ .name = pair.name.bytes(), .value = pair.value.bytes() };
        return all;
    }

    pub fn payload(message: *Message) []const u8 {
        if (message.fetched) |bytes| return bytes;
        const bytes = text(abi.message.payload);
        message.fetched = bytes;
        return bytes;
    }

    /// In bytes, without fetching it.
    pub fn payloadLen(message: *const Message) usize {
        return if (message.fetched) |bytes| bytes.len else abi.message.payloadLen();
    }

    /// The payload where it is UTF-8.
    pub fn payloadText(message: *Message) ?[]const u8 {
        const bytes = message.payload();
        return if (std.unicode.utf8ValidateSlice(bytes)) bytes else null;
    }

    /// Part of the payload, clamped to it, without fetching the rest.
    pub fn payloadRange(_: *const Message, offset: u32, length: u32) []const u8 {
        var found: abi.View = .{};
        abi.message.payloadRange(offset, length, &found);
        return found.bytes();
    }

    /// Unix milliseconds.
    pub fn publishedMs(_: *const Message) u64 {
        return abi.message.publishedMs();
    }

    /// Unix milliseconds.
    pub fn expiresMs(_: *const Message) ?u64 {
        var found: abi.OptionU64 = undefined;
        abi.message.expiresMs(&found);
        return if (found.some == 0) null else found.value;
    }

    /// 1 on the first try.
    pub fn attempt(_: *const Message) u32 {
        return abi.message.attempt();
    }

    /// 0 to 9.
    pub fn priority(_: *const Message) u8 {
        return @truncate(abi.message.priority());
    }

    /// One field of a JSON payload, by its path: names with dots between, numbers for elements of arrays, `\.` for a
    /// dot of a name. An optional type is null where there is nothing.
    pub fn jsonAt(message: *Message, comptime T: type, path: []const u8) JsonError!T {
        var problem: json.Problem = .{};
        return json.field(T, arena, message.payload(), path, &problem) catch |failure|
            message.tell(failure, problem.text);
    }

    /// The whole of a JSON payload as a type, read by std.json: the way to have many fields at once. Fields that the
    /// type does not have are skipped. As std.json has it, the text "5" will do for a number.
    pub fn jsonAs(message: *Message, comptime T: type) JsonError!T {
        var problem: json.Problem = .{};
        return json.all(T, arena, message.payload(), &problem) catch |failure| message.tell(failure, problem.text);
    }

    // Changes. They count once the verdict is to forward or to route. An invalid name or value is a fault.

    /// Takes the place of all values of this header.
    pub fn setHeader(_: *Message, name: []const u8, value: []const u8) void {
        abi.edit.setHeader(abi.start(u8, name), name.len, abi.start(u8, value), value.len);
    }

    /// Adds a value.
    pub fn addHeader(_: *Message, name: []const u8, value: []const u8) void {
        abi.edit.addHeader(abi.start(u8, name), name.len, abi.start(u8, value), value.len);
    }

    /// Removes all values.
    pub fn removeHeader(_: *Message, name: []const u8) void {
        abi.edit.removeHeader(abi.start(u8, name), name.len);
    }

    pub fn setKey(_: *Message, bytes: []const u8) void {
        abi.edit.setKey(abi.start(u8, bytes), bytes.len);
    }

    pub fn removeKey(_: *Message) void {
        abi.edit.removeKey();
    }

    pub fn setPayload(message: *Message, bytes: []const u8) void {
        abi.edit.setPayload(abi.start(u8, bytes), bytes.len);
        message.fetched = null;
    }

    pub fn setPayloadText(message: *Message, said: []const u8) void {
        abi.edit.setPayloadText(abi.start(u8, said), said.len);
        message.fetched = null;
    }

    /// Replaces the payload with this value as JSON.
    pub fn setJson(message: *Message, value: anytype) void {
        message.setPayloadText(format("{f}", .{std.json.fmt(value, .{})}));
    }

    // New messages. They go out before the message in hand; undone on retry, reject and a panic, kept on drop.

    /// Publishes a new message.
    pub fn emit(message: *Message, outgoing: Outgoing) Refusal!void {
        const pairs = arena.alloc(abi.Pair, outgoing.headers.len) catch @panic("out of memory");
        for (outgoing.headers, pairs) |one, *pair| pair.* = .{ .name = .of(one.name), .value = .of(one.value) };
        const of = outgoing.subject;
        const bytes = outgoing.key orelse "";
        var said: abi.Refused = undefined;
        abi.emit.publish(
            abi.start(u8, of),
            of.len,
            @intFromBool(outgoing.key != null),
            abi.start(u8, bytes),
            bytes.len,
            abi.start(abi.Pair, pairs),
            pairs.len,
            abi.start(u8, outgoing.payload),
            outgoing.payload.len,
            &said,
        );
        return message.refused(of, said);
    }

    /// Publishes a copy of the message in hand, as edited so far. Its payload stays with the router.
    pub fn emitCopy(message: *Message, to: []const u8) Refusal!void {
        var said: abi.Refused = undefined;
        abi.emit.copy(abi.start(u8, to), to.len, &said);
        return message.refused(to, said);
    }

    fn refused(message: *Message, of: []const u8, said: abi.Refused) Refusal!void {
        if (said.refused == 0) return;
        const refusal: Refusal = switch (said.refusal) {
            0 => error.Limit,
            1 => error.Invalid,
            2 => error.NotGranted,
            else => error.Loop,
        };
        return message.tell(refusal, format("a message to {s} was refused: {s}", .{ of, refusalName(refusal) }));
    }

    fn tell(message: *Message, failure: anytype, account: []const u8) @TypeOf(failure) {
        message.told = .{ .failure = failure, .text = account };
        return failure;
    }

    /// What is said of an error: the SDK's own account where it comes from there, else its name.
    pub fn textOf(message: *const Message, failure: anyerror) []const u8 {
        const told = message.told orelse return @errorName(failure);
        return if (told.failure == failure and told.text.len > 0) told.text else @errorName(failure);
    }
};

fn text(ask: *const fn (*abi.View) callconv(.c) void) []const u8 {
    var found: abi.View = .{};
    ask(&found);
    return found.bytes();
}

/// Where the plugin runs.
pub const context = struct {
    /// The plugin's name, as the route knows it.
    pub fn plugin() []const u8 {
        return text(abi.context.plugin);
    }

    /// Name of the route that uses it.
    pub fn route() []const u8 {
        return text(abi.context.route);
    }

    /// Unix time in milliseconds. Stands still within an attempt.
    pub fn nowMs() u64 {
        return abi.context.nowMs();
    }

    /// Random; the same throughout an attempt and its replay.
    pub fn seed() u64 {
        return abi.context.seed();
    }
};

/// Lines for the router's log. Their number and length are limited.
pub const log = struct {
    pub fn trace(comptime line: []const u8, values: anytype) void {
        say(0, line, values);
    }

    pub fn debug(comptime line: []const u8, values: anytype) void {
        say(1, line, values);
    }

    pub fn info(comptime line: []const u8, values: anytype) void {
        say(2, line, values);
    }

    pub fn warn(comptime line: []const u8, values: anytype) void {
        say(3, line, values);
    }

    pub fn err(comptime line: []const u8, values: anytype) void {
        say(4, line, values);
    }

    fn say(level: u32, comptime line: []const u8, values: anytype) void {
        const said = format(line, values);
        abi.log.log(level, abi.start(u8, said), said.len);
    }
};

/// A panic that also says its place: `quipu.fault(@src(), "no table for {s}", .{net})`.
pub fn fault(comptime at: std.lang.SourceLocation, comptime line: []const u8, values: anytype) noreturn {
    const place = std.fmt.comptimePrint("{s}:{d}:{d} in {s}", .{ at.file, at.line, at.column, at.fn_name });
    const said = format(line, values);
    abi.log.fault(abi.start(u8, said), said.len, place, place.len);
    @trap();
}

// What `root.zig` needs.

pub fn panicked(said: []const u8, _: ?usize) noreturn {
    abi.log.fault(abi.start(u8, said), said.len, "", 0);
    @trap();
}

pub fn beginMessage() void {
    // That the arena could not be made as large as before is no matter.
    _ = memory.reset(.{ .retain_with_limit = kept_bytes_max });
}

/// What `configure` read stays: the messages get an arena of their own.
pub fn keepForever() void {
    memory = .init(std.heap.wasm_allocator);
}

pub fn readConfig(comptime Config: type, config: *Config) ?[]const u8 {
    return reader.read(Config, arena, text(abi.context.config), config) catch @panic("out of memory");
}
