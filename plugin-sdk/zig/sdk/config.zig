//! The configuration: JSON into the plugin's own type. Keys that the type does not have are refused.

const std = @import("std");
const json = @import("json.zig");
const Allocator = std.mem.Allocator;
const Value = std.json.Value;

const Problem = Allocator.Error!?[]const u8;

/// Reads it; gives what is wrong, where something is.
pub fn read(comptime Config: type, allocator: Allocator, text: []const u8, config: *Config) Problem {
    var problem: json.Problem = .{};
    const value = json.tree(allocator, if (text.len == 0) "{}" else text, &problem) catch |failure| switch (failure) {
        error.OutOfMemory => return error.OutOfMemory,
        else => return "the configuration is no JSON",
    };
    if (value != .object) return "the configuration is not an object";
    var unknown: std.ArrayList([]const u8) = .empty;
    try listUnknown(Config, allocator, value, "", &unknown);
    const stray = if (unknown.items.len == 0) null else try std.fmt.allocPrint(allocator, "unknown key{s} {s}", .{
        if (unknown.items.len == 1) "" else "s",
        try std.mem.join(allocator, ", ", unknown.items),
    });
    config.* = json.typed(Config, allocator, value, "", &problem) catch |failure| {
        if (failure == error.OutOfMemory) return error.OutOfMemory;
        // Often the misspelt form of the one that is missed.
        const keys = stray orelse return problem.text;
        return try std.fmt.allocPrint(allocator, "{s} ({s})", .{ problem.text, keys });
    };
    return stray;
}

fn listUnknown(
    comptime T: type,
    allocator: Allocator,
    value: Value,
    path: []const u8,
    unknown: *std.ArrayList([]const u8),
) Allocator.Error!void {
    switch (@typeInfo(T)) {
        .optional => |optional| return listUnknown(optional.child, allocator, value, path, unknown),
        .pointer => |pointer| {
            if (pointer.size != .slice or pointer.child == u8 or value != .array) return;
            for (value.array.items, 0..) |item, i| {
                const at = try std.fmt.allocPrint(allocator, "{s}[{d}]", .{ path, i });
                try listUnknown(pointer.child, allocator, item, at, unknown);
            }
        },
        .@"struct" => |info| {
            if (T == Value or value != .object or info.is_tuple or @hasDecl(T, "jsonParseFromValue")) return;
            var members = value.object.iterator();
            next: while (members.next()) |member| {
                const at = try json.join(allocator, path, member.key_ptr.*);
                inline for (info.field_names, info.field_types) |name, Field| {
                    if (std.mem.eql(u8, name, member.key_ptr.*)) {
                        try listUnknown(Field, allocator, member.value_ptr.*, at, unknown);
                        continue :next;
                    }
                }
                try unknown.append(allocator, try std.fmt.allocPrint(allocator, "`{s}`", .{at}));
            }
        },
        else => {},
    }
}
