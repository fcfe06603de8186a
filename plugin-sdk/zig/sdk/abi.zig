//! The contract's functions and types, as the canonical ABI has them. A text or list goes in as pointer and length; a
//! result that is more than one number comes back through a pointer, its texts in the arena of the message in hand.

const std = @import("std");

/// A string or list.
pub const View = extern struct {
    data: ?[*]const u8 = null,
    len: usize = 0,

    pub fn of(text: []const u8) View {
        return .{ .data = text.ptr, .len = text.len };
    }

    pub fn bytes(view: View) []const u8 {
        return if (view.len == 0) "" else view.data.?[0..view.len];
    }

    pub fn items(view: View, comptime T: type) []const T {
        if (view.len == 0) return &.{};
        return @as([*]const T, @ptrCast(@alignCast(view.data.?)))[0..view.len];
    }
};

pub const OptionView = extern struct {
    some: u8,
    value: View,

    pub fn bytes(option: OptionView) ?[]const u8 {
        return if (option.some == 0) null else option.value.bytes();
    }
};

pub const OptionU64 = extern struct { some: u8, value: u64 };
pub const Refused = extern struct { refused: u8, refusal: u8 };
pub const Pair = extern struct { name: View, value: View };
pub const Configured = extern struct { failed: u8 = 0, problem: View = .{} };

pub const Verdict = extern struct {
    kind: Kind,
    said: extern union {
        view: View,
        retry: extern struct { ms: u64, reason: View },
    },

    pub const Kind = enum(u8) { forward, route, drop, retry, reject };
};

pub const message = struct {
    const from = "quipu:plugin/message@0.1.0";
    pub const id = @extern(*const fn (*View) callconv(.c) void, .{ .name = "id", .library_name = from });
    pub const subject = @extern(*const fn (*View) callconv(.c) void, .{ .name = "subject", .library_name = from });
    pub const originSubject = @extern(*const fn (*View) callconv(.c) void, .{ .name = "origin-subject", .library_name = from });
    pub const key = @extern(*const fn (*OptionView) callconv(.c) void, .{ .name = "key", .library_name = from });
    pub const header = @extern(*const fn ([*]const u8, usize, *OptionView) callconv(.c) void, .{ .name = "header", .library_name = from });
    pub const headerValues = @extern(*const fn ([*]const u8, usize, *View) callconv(.c) void, .{ .name = "header-values", .library_name = from });
    pub const headers = @extern(*const fn (*View) callconv(.c) void, .{ .name = "headers", .library_name = from });
    pub const payloadLen = @extern(*const fn () callconv(.c) usize, .{ .name = "payload-len", .library_name = from });
    pub const payload = @extern(*const fn (*View) callconv(.c) void, .{ .name = "payload", .library_name = from });
    pub const payloadRange = @extern(*const fn (u32, u32, *View) callconv(.c) void, .{ .name = "payload-range", .library_name = from });
    pub const publishedMs = @extern(*const fn () callconv(.c) u64, .{ .name = "published-ms", .library_name = from });
    pub const expiresMs = @extern(*const fn (*OptionU64) callconv(.c) void, .{ .name = "expires-ms", .library_name = from });
    pub const attempt = @extern(*const fn () callconv(.c) u32, .{ .name = "attempt", .library_name = from });
    pub const priority = @extern(*const fn () callconv(.c) u32, .{ .name = "priority", .library_name = from });
    pub const replyTo = @extern(*const fn (*OptionView) callconv(.c) void, .{ .name = "reply-to", .library_name = from });
};

pub const edit = struct {
    const from = "quipu:plugin/edit@0.1.0";
    pub const setHeader = @extern(*const fn ([*]const u8, usize, [*]const u8, usize) callconv(.c) void, .{ .name = "set-header", .library_name = from });
    pub const addHeader = @extern(*const fn ([*]const u8, usize, [*]const u8, usize) callconv(.c) void, .{ .name = "add-header", .library_name = from });
    pub const removeHeader = @extern(*const fn ([*]const u8, usize) callconv(.c) void, .{ .name = "remove-header", .library_name = from });
    pub const setKey = @extern(*const fn ([*]const u8, usize) callconv(.c) void, .{ .name = "set-key", .library_name = from });
    pub const removeKey = @extern(*const fn () callconv(.c) void, .{ .name = "remove-key", .library_name = from });
    pub const setPayload = @extern(*const fn ([*]const u8, usize) callconv(.c) void, .{ .name = "set-payload", .library_name = from });
    pub const setPayloadText = @extern(*const fn ([*]const u8, usize) callconv(.c) void, .{ .name = "set-payload-text", .library_name = from });
};

pub const emit = struct {
    const from = "quipu:plugin/emit@0.1.0";
    const Publish = fn ([*]const u8, usize, u32, ?[*]const u8, usize, [*]const Pair, usize, [*]const u8, usize, *Refused) callconv(.c) void;
    pub const publish = @extern(*const Publish, .{ .name = "publish", .library_name = from });
    pub const copy = @extern(*const fn ([*]const u8, usize, *Refused) callconv(.c) void, .{ .name = "copy", .library_name = from });
};

pub const context = struct {
    const from = "quipu:plugin/context@0.1.0";
    pub const plugin = @extern(*const fn (*View) callconv(.c) void, .{ .name = "plugin", .library_name = from });
    pub const route = @extern(*const fn (*View) callconv(.c) void, .{ .name = "route", .library_name = from });
    pub const config = @extern(*const fn (*View) callconv(.c) void, .{ .name = "config", .library_name = from });
    pub const nowMs = @extern(*const fn () callconv(.c) u64, .{ .name = "now-ms", .library_name = from });
    pub const seed = @extern(*const fn () callconv(.c) u64, .{ .name = "seed", .library_name = from });
};

pub const log = struct {
    const from = "quipu:plugin/log@0.1.0";
    pub const log = @extern(*const fn (u32, [*]const u8, usize) callconv(.c) void, .{ .name = "log", .library_name = from });
    pub const fault = @extern(*const fn ([*]const u8, usize, [*]const u8, usize) callconv(.c) void, .{ .name = "fault", .library_name = from });
};
