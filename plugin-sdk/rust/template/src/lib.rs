use quipu_plugin::prelude::*;

#[derive(Deserialize)]
struct {{Type}} {
    at_least: f64, // the route's config; a wrong key is named
}

impl Plugin for {{Type}} {
    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let magnitude: f64 = message.json_at("properties.mag")?; // absent: reject, says where
        Ok(if magnitude >= self.at_least { forward() } else { drop("small") })
    }
}
plugin!({{Type}});
