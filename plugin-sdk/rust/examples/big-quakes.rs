//! The smallest useful plugin: earthquakes from some magnitude on.

use quipu_plugin::prelude::*;

#[derive(Deserialize)]
struct BigQuakes {
    at_least: f64, // the route's config; a wrong key is named
}

impl Plugin for BigQuakes {
    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let magnitude: f64 = message.json_at("properties.mag")?; // absent: reject, says where
        Ok(if magnitude >= self.at_least { forward() } else { drop("small") })
    }
}
plugin!(BigQuakes);

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_plugin::testing::{Harness, MockMessage, run};

    fn quake(properties: Value) -> MockMessage {
        MockMessage::new("quakes.raw").json(json!({ "properties": properties }))
    }

    #[test]
    fn forwards_what_is_big() {
        let config = json!({ "at_least": 4.5 });
        assert_eq!(run::<BigQuakes>(&config, quake(json!({ "mag": 4.6 }))).verdict, forward());
        assert_eq!(run::<BigQuakes>(&config, quake(json!({ "mag": 2.1 }))).verdict, drop("small"));
    }

    #[test]
    fn rejects_what_has_no_magnitude() {
        let outcome = run::<BigQuakes>(json!({ "at_least": 4.5 }), quake(json!({})));
        assert_eq!(outcome.verdict, reject(r#"properties.mag: absent: "properties" has no "mag""#));
    }

    #[test]
    fn names_a_wrong_key() {
        let error = Harness::<BigQuakes>::new(json!({ "at_leest": 4.5 })).err();
        assert_eq!(error.as_deref(), Some("missing field `at_least` (unknown key `at_leest`)"));
    }
}
