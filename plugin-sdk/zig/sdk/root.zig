//! What the router calls. The plugin itself is the module `plugin`.

const std = @import("std");
const plugin = @import("plugin");
const quipu = @import("quipu");
const abi = quipu.abi;

/// Every panic is said before the trap, a failed bounds check too.
pub const panic = std.debug.FullPanic(quipu.panicked);

/// A plugin without configuration needs none of its own.
const Config = if (@hasDecl(plugin, "Config")) plugin.Config else struct {};

var config: Config = undefined;

comptime {
    @export(&cabiRealloc, .{ .name = "cabi_realloc" });
    @export(&configure, .{ .name = "quipu:plugin/handler@0.1.0#configure" });
    @export(&process, .{ .name = "quipu:plugin/handler@0.1.0#process" });
}

/// The router takes memory for what it hands over.
fn cabiRealloc(old: ?[*]u8, old_len: usize, alignment: usize, len: usize) callconv(.c) [*]u8 {
    // An empty list needs a place all the same, and the allocator has none of no size.
    const memory = quipu.arena.rawAlloc(@max(len, 1), .fromByteUnits(alignment), 0) orelse @panic("out of memory");
    if (old) |from| @memcpy(memory[0..@min(old_len, len)], from[0..@min(old_len, len)]);
    return memory;
}

var configured: abi.Configured = .{};

fn configure() callconv(.c) *const abi.Configured {
    const problem = quipu.readConfig(Config, &config) orelse check() orelse {
        quipu.keepForever();
        return &configured;
    };
    configured = .{ .failed = 1, .problem = .of(problem) };
    return &configured;
}

/// What the plugin itself has against its configuration.
fn check() ?[]const u8 {
    return if (@hasDecl(plugin, "check")) plugin.check(config) else null;
}

var wire: abi.Verdict = undefined;

fn process() callconv(.c) *const abi.Verdict {
    quipu.beginMessage();
    var message: quipu.Message = .{};
    const verdict = run(&message) catch |problem| quipu.reject(message.textOf(problem));
    wire = verdict.wire();
    return &wire;
}

fn run(message: *quipu.Message) anyerror!quipu.Verdict {
    return if (@typeInfo(@TypeOf(plugin.process)).@"fn".param_types.len == 1)
        plugin.process(message)
    else
        plugin.process(message, config);
}
