//! The contract's functions and types, as the canonical ABI has them. A text or list goes in as pointer and length; a
//! result that is more than one number comes back through a pointer, its texts in the arena of the message in hand.

const std = @import("std");

/// A string or list.
pub const View = extern struct {
    data: ?[*]const u8 = null,
    len: usize = 0,

    pub fn of(text: []const u8) View {
        return .{ .data = start(u8, text), .len = text.len };
    }

    pub fn bytes(view: View) []const u8 {
        return if (view.len == 0) "" else view.data.?[0..view.len];
    }

    pub fn items(view: View, comptime T: type) []const T {
        if (view.len == 0) return &.{};
        return @as([*]const T, @ptrCast(@alignCast(view.data.?)))[0..view.len];
    }
};

/// Where a list begins. An empty one may have an address of any kind here, and must have one within memory there.
pub fn start(comptime T: type, items: []const T) [*]const T {
    return if (items.len == 0) @ptrFromInt(@alignOf(T)) else items.ptr;
}

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

/// The contract's functions, by what they are given; a result comes back through the last pointer.
const Ask = fn (*View) callconv(.c) void;
const AskOptional = fn (*OptionView) callconv(.c) void;
const AskByName = fn ([*]const u8, usize, *View) callconv(.c) void;
const AskOptionalByName = fn ([*]const u8, usize, *OptionView) callconv(.c) void;
const Hand = fn ([*]const u8, usize) callconv(.c) void;
const HandTwo = fn ([*]const u8, usize, [*]const u8, usize) callconv(.c) void;

fn import(comptime interface: []const u8, comptime name: []const u8, comptime Function: type) *const Function {
    return @extern(*const Function, .{ .name = name, .library_name = "quipu:plugin/" ++ interface ++ "@0.1.0" });
}

pub const message = struct {
    pub const id = import("message", "id", Ask);
    pub const subject = import("message", "subject", Ask);
    pub const originSubject = import("message", "origin-subject", Ask);
    pub const key = import("message", "key", AskOptional);
    pub const header = import("message", "header", AskOptionalByName);
    pub const headerValues = import("message", "header-values", AskByName);
    pub const headers = import("message", "headers", Ask);
    pub const payloadLen = import("message", "payload-len", fn () callconv(.c) usize);
    pub const payload = import("message", "payload", Ask);
    pub const payloadRange = import("message", "payload-range", fn (u32, u32, *View) callconv(.c) void);
    pub const publishedMs = import("message", "published-ms", fn () callconv(.c) u64);
    pub const expiresMs = import("message", "expires-ms", fn (*OptionU64) callconv(.c) void);
    pub const attempt = import("message", "attempt", fn () callconv(.c) u32);
    pub const priority = import("message", "priority", fn () callconv(.c) u32);
    pub const replyTo = import("message", "reply-to", AskOptional);
};

pub const edit = struct {
    pub const setHeader = import("edit", "set-header", HandTwo);
    pub const addHeader = import("edit", "add-header", HandTwo);
    pub const removeHeader = import("edit", "remove-header", Hand);
    pub const setKey = import("edit", "set-key", Hand);
    pub const removeKey = import("edit", "remove-key", fn () callconv(.c) void);
    pub const setPayload = import("edit", "set-payload", Hand);
    pub const setPayloadText = import("edit", "set-payload-text", Hand);
};

pub const emit = struct {
    const Publish = fn (
        subject: [*]const u8,
        subject_len: usize,
        has_key: u32,
        key: [*]const u8,
        key_len: usize,
        headers: [*]const Pair,
        headers_len: usize,
        payload: [*]const u8,
        payload_len: usize,
        said: *Refused,
    ) callconv(.c) void;

    pub const publish = import("emit", "publish", Publish);
    pub const copy = import("emit", "copy", fn ([*]const u8, usize, *Refused) callconv(.c) void);
};

pub const context = struct {
    pub const plugin = import("context", "plugin", Ask);
    pub const route = import("context", "route", Ask);
    pub const config = import("context", "config", Ask);
    pub const nowMs = import("context", "now-ms", fn () callconv(.c) u64);
    pub const seed = import("context", "seed", fn () callconv(.c) u64);
};

pub const log = struct {
    pub const log = import("log", "log", fn (u32, [*]const u8, usize) callconv(.c) void);
    pub const fault = import("log", "fault", HandTwo);
};
