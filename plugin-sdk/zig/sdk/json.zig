//! JSON by path and by type, with errors that say where and what. Reading one field skips over the rest.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Scanner = std.json.Scanner;
const Value = std.json.Value;
const print = std.fmt.allocPrint;

/// Where a walk along a path ended. Numbers count the names that were passed.
const Found = union(enum) {
    /// As it stands in the text.
    value: []const u8,
    no_name: usize,
    other: struct { depth: usize, kind: []const u8 },
};

pub const Failure = error{ NotJson, Absent, Unfit, OutOfMemory };

/// What went wrong, for people.
pub const Problem = struct { text: []const u8 = "" };

/// One field of a text, by its dotted path. An optional type is null where there is no such field.
pub fn field(comptime T: type, allocator: Allocator, text: []const u8, path: []const u8, problem: *Problem) Failure!T {
    const names = try split(allocator, path);
    var scanner = Scanner.initCompleteInput(allocator, text);
    var place: Scanner.Diagnostics = .{};
    scanner.enableDiagnostics(&place);
    const found = whole(&scanner, allocator, names) catch |failure|
        return notJson(allocator, failure, &place, problem);
    const optional = @typeInfo(T) == .optional;
    switch (found) {
        .value => |raw| {
            const value = std.json.parseFromSliceLeaky(Value, allocator, raw, tree_options) catch
                return error.OutOfMemory;
            return typed(T, allocator, value, path, problem);
        },
        .no_name => |depth| {
            if (optional) return null;
            const it = try above(allocator, names[0..depth]);
            problem.text = try print(allocator, "{s}: absent: {s} has no \"{s}\"", .{ path, it, names[depth] });
        },
        .other => |other| {
            if (optional) return null;
            const it = try above(allocator, names[0..other.depth]);
            problem.text = try print(allocator, "{s}: absent: {s} is {s}, not an object", .{ path, it, other.kind });
        },
    }
    return error.Absent;
}

/// All of a text, in one pass; said more closely where it does not fit.
pub fn all(comptime T: type, allocator: Allocator, text: []const u8, problem: *Problem) Failure!T {
    const options: std.json.ParseOptions = .{ .ignore_unknown_fields = true, .duplicate_field_behavior = .use_last };
    return std.json.parseFromSliceLeaky(T, allocator, text, options) catch |failure| switch (failure) {
        error.OutOfMemory => error.OutOfMemory,
        else => typed(T, allocator, try tree(allocator, text, problem), "", problem) catch |said| said,
    };
}

const tree_options: std.json.ParseOptions = .{ .duplicate_field_behavior = .use_last };

/// A text as a tree of values.
pub fn tree(allocator: Allocator, text: []const u8, problem: *Problem) Failure!Value {
    var scanner = Scanner.initCompleteInput(allocator, text);
    var place: Scanner.Diagnostics = .{};
    scanner.enableDiagnostics(&place);
    return std.json.parseFromTokenSourceLeaky(Value, allocator, &scanner, tree_options) catch |failure|
        notJson(allocator, failure, &place, problem);
}

fn notJson(allocator: Allocator, failure: anyerror, place: *const Scanner.Diagnostics, problem: *Problem) Failure {
    if (failure == error.OutOfMemory) return error.OutOfMemory;
    const why = if (failure == error.UnexpectedEndOfInput) "it ends too early" else "a syntax error";
    problem.text = try print(allocator, "the payload is no JSON: {s} at byte {d}", .{ why, place.getByteOffset() });
    return error.NotJson;
}

fn whole(scanner: *Scanner, allocator: Allocator, names: []const []const u8) !Found {
    const found = try walk(scanner, allocator, names, 0);
    if (try scanner.next() != .end_of_document) return error.SyntaxError;
    return found;
}

/// Of names that occur twice, the last one counts.
fn walk(scanner: *Scanner, allocator: Allocator, names: []const []const u8, depth: usize) !Found {
    const next = try scanner.peekNextTokenType();
    if (depth == names.len) {
        const start = scanner.cursor;
        try scanner.skipValue();
        return .{ .value = scanner.input[start..scanner.cursor] };
    }
    switch (next) {
        .object_begin => return object(scanner, allocator, names, depth),
        .array_begin => return array(scanner, allocator, names, depth),
        else => {
            try scanner.skipValue();
            const kind = switch (next) {
                .string => "text",
                .number => "a number",
                .null => "null",
                else => "a boolean",
            };
            return .{ .other = .{ .depth = depth, .kind = kind } };
        },
    }
}

const WalkError = Scanner.AllocError || Scanner.NextError || Scanner.PeekError;

fn object(scanner: *Scanner, allocator: Allocator, names: []const []const u8, depth: usize) WalkError!Found {
    var found: Found = .{ .no_name = depth };
    _ = try scanner.next();
    while (true) {
        const name = switch (try scanner.nextAlloc(allocator, .alloc_if_needed)) {
            .object_end => return found,
            inline .string, .allocated_string => |name| name,
            else => return error.SyntaxError,
        };
        if (std.mem.eql(u8, name, names[depth])) {
            found = try walk(scanner, allocator, names, depth + 1);
        } else {
            try scanner.skipValue();
        }
    }
}

fn array(scanner: *Scanner, allocator: Allocator, names: []const []const u8, depth: usize) WalkError!Found {
    const index: ?usize = std.fmt.parseInt(usize, names[depth], 10) catch null;
    var found: Found = .{ .no_name = depth };
    if (index == null) found = .{ .other = .{ .depth = depth, .kind = "an array" } };
    _ = try scanner.next();
    var i: usize = 0;
    while (try scanner.peekNextTokenType() != .array_end) : (i += 1) {
        if (i == index) {
            found = try walk(scanner, allocator, names, depth + 1);
        } else {
            try scanner.skipValue();
        }
    }
    _ = try scanner.next();
    return found;
}

/// The names of a path; `\.` is a dot of a name, and `\\` a backslash.
fn split(allocator: Allocator, path: []const u8) Allocator.Error![]const []const u8 {
    var names: std.ArrayList([]const u8) = .empty;
    var name: std.ArrayList(u8) = .empty;
    if (path.len == 0) return &.{};
    var i: usize = 0;
    while (i < path.len) : (i += 1) {
        if (path[i] == '.') {
            try names.append(allocator, name.items);
            name = .empty;
            continue;
        }
        if (path[i] == '\\' and i + 1 < path.len) i += 1;
        try name.append(allocator, path[i]);
    }
    try names.append(allocator, name.items);
    return names.items;
}

fn above(allocator: Allocator, names: []const []const u8) Allocator.Error![]const u8 {
    if (names.len == 0) return "the payload";
    return print(allocator, "\"{s}\"", .{try std.mem.join(allocator, ".", names)});
}

// A value of a type. Stricter than std.json, which takes the text "5" for a number.

/// The value as this type; `path` is where it stands.
pub fn typed(comptime T: type, allocator: Allocator, value: Value, path: []const u8, problem: *Problem) Failure!T {
    switch (@typeInfo(T)) {
        .bool => if (value == .bool) return value.bool else return unfit(allocator, value, path, "a boolean", problem),
        .float => return switch (value) {
            .float => |number| @floatCast(number),
            .integer => |number| @floatFromInt(number),
            // Of more digits than 64 bits hold, or out of the range of a float.
            .number_string => |digits| {
                const number = std.fmt.parseFloat(f64, digits) catch std.math.inf(f64);
                if (std.math.isFinite(number)) return @floatCast(number);
                return unfit(allocator, value, path, "in the range of a float", problem);
            },
            else => unfit(allocator, value, path, "a number", problem),
        },
        .optional => |optional| {
            if (value == .null) return null;
            return try typed(optional.child, allocator, value, path, problem);
        },
        .pointer => |pointer| {
            if (pointer.size != .slice) @compileError("cannot be read from JSON: " ++ @typeName(T));
            if (pointer.child == u8) {
                if (value == .string) return value.string;
                return unfit(allocator, value, path, "text", problem);
            }
            return list(pointer.child, allocator, value, path, problem);
        },
        .@"struct" => |info| {
            if (T == Value) return value;
            if (!info.is_tuple and !@hasDecl(T, "jsonParseFromValue"))
                return record(T, allocator, value, path, problem);
        },
        .@"union" => if (T == Value) return value,
        else => {},
    }
    // Integers, enums, arrays, tuples, and types that read themselves.
    if (@typeInfo(T) == .int and value != .integer and value != .float and value != .number_string)
        return unfit(allocator, value, path, "an integer", problem);
    const wanted = comptime switch (@typeInfo(T)) {
        .int => "an integer that fits " ++ @typeName(T),
        .@"enum" => |info| "one of " ++ joined(info.field_names),
        else => @typeName(T),
    };
    return std.json.parseFromValueLeaky(T, allocator, value, .{ .ignore_unknown_fields = true }) catch
        unfit(allocator, value, path, wanted, problem);
}

fn list(
    comptime Item: type,
    allocator: Allocator,
    value: Value,
    path: []const u8,
    problem: *Problem,
) Failure![]const Item {
    if (value != .array) return unfit(allocator, value, path, "an array", problem);
    const items = try allocator.alloc(Item, value.array.items.len);
    for (value.array.items, items, 0..) |from, *item, i| {
        item.* = try typed(Item, allocator, from, try print(allocator, "{s}[{d}]", .{ path, i }), problem);
    }
    return items;
}

fn record(comptime T: type, allocator: Allocator, value: Value, path: []const u8, problem: *Problem) Failure!T {
    if (value != .object) return unfit(allocator, value, path, "an object", problem);
    const info = @typeInfo(T).@"struct";
    var made: T = undefined;
    inline for (info.field_names, info.field_types, info.field_attrs) |name, Field, attrs| {
        const at = try join(allocator, path, name);
        if (value.object.get(name)) |inner| {
            @field(made, name) = try typed(Field, allocator, inner, at, problem);
        } else if (attrs.defaultValue(Field)) |default| {
            @field(made, name) = default;
        } else if (@typeInfo(Field) == .optional) {
            @field(made, name) = null;
        } else {
            problem.text = try print(allocator, "missing field `{s}`", .{at});
            return error.Absent;
        }
    }
    return made;
}

fn joined(comptime names: []const [:0]const u8) []const u8 {
    var text: []const u8 = "";
    for (names, 0..) |name, i| text = text ++ (if (i == 0) "" else ", ") ++ name;
    return text;
}

pub fn join(allocator: Allocator, path: []const u8, name: []const u8) Allocator.Error![]const u8 {
    return if (path.len == 0) name else print(allocator, "{s}.{s}", .{ path, name });
}

fn unfit(allocator: Allocator, value: Value, path: []const u8, wanted: []const u8, problem: *Problem) Failure {
    const at = try print(allocator, "{s}: ", .{if (path.len == 0) "the payload" else path});
    problem.text = switch (value) {
        .integer => |number| try print(allocator, "{s}{d}, not {s}", .{ at, number, wanted }),
        .float => |number| try print(allocator, "{s}{d}, not {s}", .{ at, number, wanted }),
        .number_string => |number| try print(allocator, "{s}{s}, not {s}", .{ at, number, wanted }),
        else => try print(allocator, "{s}{s}, not {s}", .{ at, kindOf(value), wanted }),
    };
    return error.Unfit;
}

fn kindOf(value: Value) []const u8 {
    return switch (value) {
        .null => "null",
        .bool => "a boolean",
        .integer, .float, .number_string => "a number",
        .string => "text",
        .array => "an array",
        .object => "an object",
    };
}
