const quipu = @import("quipu");

pub const Config = struct { at_least: f64 }; // the route's config; a wrong key is named

pub fn process(message: *quipu.Message, config: Config) !quipu.Verdict {
    const magnitude = try message.jsonAt(f64, "properties.mag"); // absent: reject, says where
    return if (magnitude >= config.at_least) quipu.forward() else quipu.drop("small");
}
