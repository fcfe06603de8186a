//! Stock plugin `filter-json`: forwards messages by one field of their JSON payload, and drops the rest with a reason.
//!
//! A field either holds to what the configuration asks, or falls short of it in a way that has a name, or cannot be
//! asked (it is absent, or text where a number is asked for); `missing` says what becomes of those.

mod ask;

use ask::{Asked, Patterns, Scalar};
use quipu_plugin::json::JsonError;
use quipu_plugin::prelude::*;

/// The configuration of one use. Of the operators, all that are given have to hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterJson {
    field: FieldPath,
    at_least: Option<f64>,
    at_most: Option<f64>,
    equals: Option<Scalar>,
    one_of: Option<Vec<Scalar>>,
    matches: Option<Patterns>,
    matches_none: Option<Patterns>,
    exists: Option<bool>,
    #[serde(default)]
    invert: bool,
    /// What becomes of a message whose field is absent, or cannot be compared; it is dropped unless said otherwise.
    missing: Option<Otherwise>,
}

impl Plugin for FilterJson {
    fn check(&self) -> Result<(), String> {
        if !self.asks_value() && self.exists.is_none() {
            return Err("one of at_least, at_most, equals, one_of, matches, matches_none, exists is required".into());
        }
        if self.exists == Some(false) && self.asks_value() {
            return Err("exists: false leaves nothing for the other operators to look at".into());
        }
        if let (Some(least), Some(most)) = (self.at_least, self.at_most)
            && least > most
        {
            return Err(format!("at_most: {most} is below at_least, {least}"));
        }
        if self.one_of.as_ref().is_some_and(Vec::is_empty) {
            return Err("one_of: names no value".into());
        }
        Ok(())
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let asked = match message.json_field::<Value>(&self.field) {
            Ok(value) => self.ask(&value),
            Err(JsonError::Absent { .. }) => self.ask_absent(),
            Err(error) => return Err(error.into()),
        };
        Ok(self.verdict(asked))
    }
}
plugin!(FilterJson);

impl FilterJson {
    fn asks_value(&self) -> bool {
        self.at_least.is_some()
            || self.at_most.is_some()
            || self.equals.is_some()
            || self.one_of.is_some()
            || self.matches.is_some()
            || self.matches_none.is_some()
    }

    fn ask_absent(&self) -> Asked {
        match self.exists {
            Some(true) => Asked::No("absent".into()),
            Some(false) => Asked::Yes,
            None => Asked::Unanswered("absent"),
        }
    }

    /// The operators in the order of the documentation; the first that does not hold gives the reason.
    fn ask(&self, value: &Value) -> Asked {
        if self.exists == Some(false) {
            return Asked::No("present".into());
        }
        let answers = [
            self.at_least.map(|least| ask::number(value, |found| found >= least, || format!("below {least}"))),
            self.at_most.map(|most| ask::number(value, |found| found <= most, || format!("above {most}"))),
            self.equals.as_ref().map(|wanted| ask::holds(wanted.is(value), "differs")),
            self.one_of
                .as_ref()
                .map(|all| ask::holds(all.iter().any(|wanted| wanted.is(value)), "not one of those asked")),
            self.matches.as_ref().map(|patterns| ask::text(value, |text| patterns.any(text), "does not match")),
            self.matches_none.as_ref().map(|patterns| ask::text(value, |text| !patterns.any(text), "matches")),
        ];
        answers.into_iter().flatten().find(|asked| *asked != Asked::Yes).unwrap_or(Asked::Yes)
    }

    /// A reason names the field and what was asked, never the value: drops are counted by reason.
    fn verdict(&self, asked: Asked) -> Verdict {
        let field = &self.field;
        match asked {
            Asked::Unanswered(why) => self.missing.unwrap_or(Otherwise::Drop).verdict(format!("{field} {why}")),
            Asked::Yes if self.invert => drop(format!("{field} as asked, inverted")),
            Asked::No(_) if self.invert => forward(),
            Asked::Yes => forward(),
            Asked::No(why) => drop(format!("{field} {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FilterJson;
    use quipu_plugin::prelude::*;
    use quipu_plugin::testing::{Harness, MockMessage, run};

    /// A configuration on the field `p.x`, a value of it (null: no such field), and the verdict.
    #[track_caller]
    fn check(mut config: Value, x: Value, expected: Verdict) {
        config["field"] = json!("p.x");
        let payload = if x.is_null() { json!({ "p": {} }) } else { json!({ "p": { "x": x } }) };
        assert_eq!(run::<FilterJson>(config, MockMessage::new("a").json(payload)).verdict, expected);
    }

    #[track_caller]
    fn refused(config: Value, expected: &str) {
        assert_eq!(Harness::<FilterJson>::new(config).err().as_deref(), Some(expected));
    }

    #[test]
    fn compares_numbers() {
        let config = json!({ "at_least": 2.5, "at_most": 9 });
        check(config.clone(), json!(2.5), forward());
        check(config.clone(), json!(9), forward());
        check(config.clone(), json!(2.4), drop("p.x below 2.5"));
        check(config.clone(), json!(-1), drop("p.x below 2.5"));
        check(config.clone(), json!(9.1), drop("p.x above 9"));
        check(config, json!("9.1"), drop("p.x not a number"));
    }

    #[test]
    fn compares_values() {
        check(json!({ "equals": "ak" }), json!("ak"), forward());
        check(json!({ "equals": "ak" }), json!("us"), drop("p.x differs"));
        check(json!({ "equals": 2 }), json!(2.0), forward());
        check(json!({ "equals": 2 }), json!("2"), drop("p.x differs"));
        check(json!({ "equals": true }), json!(true), forward());
        check(json!({ "equals": 9_007_199_254_740_993_u64 }), json!(9_007_199_254_740_992_u64), drop("p.x differs"));
        check(json!({ "one_of": ["ak", 7] }), json!(7), forward());
        check(json!({ "one_of": ["ak", 7] }), json!(["ak"]), drop("p.x not one of those asked"));
    }

    #[test]
    fn matches_text() {
        check(json!({ "matches": "^a[kl]$" }), json!("al"), forward());
        check(json!({ "matches": "^a[kl]$" }), json!("all"), drop("p.x does not match"));
        check(json!({ "matches": ["^x", "k$"] }), json!("ak"), forward());
        check(json!({ "matches_none": ["^x", "k$"] }), json!("ak"), drop("p.x matches"));
        check(json!({ "matches_none": "^x" }), json!("ak"), forward());
        check(json!({ "matches": "1" }), json!(1), drop("p.x not text"));
    }

    #[test]
    fn asks_for_presence() {
        check(json!({ "exists": true }), json!(0), forward());
        check(json!({ "exists": true }), json!(null), drop("p.x absent"));
        check(json!({ "exists": false }), json!(null), forward());
        check(json!({ "exists": false }), json!(0), drop("p.x present"));
        check(json!({ "exists": true, "at_least": 1, "missing": "forward" }), json!(null), drop("p.x absent"));
    }

    #[test]
    fn inverts() {
        check(json!({ "at_least": 2, "invert": true }), json!(1), forward());
        check(json!({ "at_least": 2, "invert": true }), json!(3), drop("p.x as asked, inverted"));
        check(json!({ "at_least": 2, "invert": true }), json!(null), drop("p.x absent"));
    }

    #[test]
    fn treats_what_is_missing_as_told() {
        check(json!({ "at_least": 2 }), json!(null), drop("p.x absent"));
        check(json!({ "at_least": 2, "missing": "reject" }), json!(null), reject("p.x absent"));
        check(json!({ "at_least": 2, "missing": "forward" }), json!(null), forward());
        check(json!({ "at_least": 2, "missing": "reject" }), json!("3"), reject("p.x not a number"));
        let null = MockMessage::new("a").payload(r#"{"p":{"x":null}}"#);
        let config = json!({ "field": "p.x", "at_least": 2 });
        assert_eq!(run::<FilterJson>(config, null).verdict, drop("p.x not a number"));
    }

    #[test]
    fn rejects_what_is_no_json() {
        let config = json!({ "field": "p.x", "at_least": 2, "missing": "forward" });
        let outcome = run::<FilterJson>(config, MockMessage::new("a").payload("p.x=3"));
        assert_eq!(outcome.verdict, reject("the payload is no JSON: expected value at line 1 column 1"));
    }

    #[test]
    fn names_what_is_wrong_with_a_configuration() {
        refused(json!({ "at_least": 1 }), "missing field `field`");
        refused(
            json!({ "field": "x" }),
            "one of at_least, at_most, equals, one_of, matches, matches_none, exists is required",
        );
        refused(json!({ "field": "a..b", "exists": true }), r#"field: invalid path "a..b": empty name"#);
        refused(json!({ "field": "x", "at_least": "2" }), r#"at_least: invalid type: string "2", expected f64"#);
        refused(json!({ "field": "x", "at_least": 3, "at_most": 2 }), "at_most: 2 is below at_least, 3");
        refused(json!({ "field": "x", "one_of": [] }), "one_of: names no value");
        refused(
            json!({ "field": "x", "one_of": [1, {}] }),
            "one_of[1]: an object, expected text, a number or a boolean",
        );
        refused(json!({ "field": "x", "equals": [1] }), "equals: an array, expected text, a number or a boolean");
        refused(
            json!({ "field": "x", "exists": false, "equals": 1 }),
            "exists: false leaves nothing for the other operators to look at",
        );
        let error = Harness::<FilterJson>::new(json!({ "field": "x", "matches": ["a", "("] })).err().unwrap();
        assert!(error.starts_with(r#"matches[1]: invalid pattern "(": "#), "{error}");
        let error = Harness::<FilterJson>::new(json!({ "field": "x", "atleast": 1 })).err().unwrap();
        assert!(error.starts_with("atleast: unknown field `atleast`, expected one of `field`, `at_least`"), "{error}");
    }
}
