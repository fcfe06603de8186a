//! Stock plugin `sample`: forwards a part of the messages, and drops the rest.
//!
//! By a share, the choice is a matter of the message alone: XXH3 with 64 bits of what it is chosen by, as a number
//! between 0 and 1, is below the share or not. So it is the same on each attempt, in each lane and after each restart,
//! and what is in a small sample is in each larger one as well.

use quipu_plugin::FillError;
use quipu_plugin::prelude::*;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The window of `at_most`, unless said otherwise.
const WINDOW_MS: u64 = 1_000;
/// The longest window: a day.
const WINDOW_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// The configuration of one use: one of `rate`, `one_in` and `at_most`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    rate: Option<f64>,
    one_in: Option<u64>,
    at_most: Option<u64>,
    /// What `rate` and `one_in` choose by; the id unless said otherwise.
    by: Option<Template>,
    #[serde(default)]
    seed: u64,
    window_ms: Option<u64>,
    /// What becomes of a message that lacks what it is chosen by; it is rejected unless said otherwise.
    missing: Option<Otherwise>,
    #[serde(skip)]
    choice: Choice,
}

/// How messages are chosen, made in `configure`.
#[derive(Debug)]
enum Choice {
    /// Those whose hash is below this: 2^64 times the share, where all are chosen 2^64.
    Below(u128),
    /// The first so many of each window.
    First { at_most: u64, window: Duration, current: u64, seen: u64 },
}

impl Default for Choice {
    fn default() -> Self {
        Self::Below(0)
    }
}

impl Plugin for Sample {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        plugin.check()?;
        plugin.choice = plugin.choice();
        if plugin.by.is_none() {
            plugin.by = Some("{id}".parse()?);
        }
        Ok(plugin)
    }

    fn check(&self) -> Result<(), String> {
        let given = [self.rate.is_some(), self.one_in.is_some(), self.at_most.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err("one of rate, one_in, at_most is required, and no two of them".into());
        }
        if let Some(rate) = self.rate.filter(|rate| !(0.0..=1.0).contains(rate)) {
            return Err(format!("rate: {rate} is not between 0 and 1"));
        }
        if self.one_in == Some(0) {
            return Err("one_in: 0 is below 1".into());
        }
        match (self.at_most, self.window_ms) {
            (Some(_), Some(0)) => Err("window_ms: 0 is below 1".into()),
            (Some(_), Some(ms)) if ms > WINDOW_MS_MAX => {
                Err(format!("window_ms: {ms} is above {WINDOW_MS_MAX}, a day"))
            }
            (None, Some(_)) => Err("window_ms: goes with at_most".into()),
            (Some(_), _) if self.by.is_some() => Err("by: goes with rate and one_in".into()),
            _ => Ok(()),
        }
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let below = match &mut self.choice {
            Choice::First { at_most, window, current, seen } => {
                return Ok(first(*at_most, *window, current, seen));
            }
            Choice::Below(below) => *below,
        };
        match self.by.as_ref().map_or(Ok(Vec::new()), |by| by.fill_bytes(message)) {
            Ok(by) if u128::from(xxh3_64_with_seed(&by, self.seed)) < below => Ok(forward()),
            Ok(_) => Ok(drop("not in the sample")),
            Err(error @ FillError::Absent(_)) => {
                Ok(self.missing.unwrap_or(Otherwise::Reject).verdict(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
plugin!(Sample);

impl Sample {
    fn choice(&self) -> Choice {
        const ALL: u128 = 1 << 64;
        match (self.rate, self.one_in, self.at_most) {
            (Some(rate), ..) => Choice::Below(share_of_all(rate)),
            (_, Some(count), _) => Choice::Below(ALL / u128::from(count)),
            (_, _, at_most) => {
                let window = Duration::from_millis(self.window_ms.unwrap_or(WINDOW_MS));
                Choice::First { at_most: at_most.unwrap_or_default(), window, current: 0, seen: 0 }
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^64: the rate has been checked")]
fn share_of_all(rate: f64) -> u128 {
    (rate * 18_446_744_073_709_551_616.0) as u128
}

/// Windows begin at multiples of their length, so that a new instance agrees with the one before on where they are.
fn first(at_most: u64, window: Duration, current: &mut u64, seen: &mut u64) -> Verdict {
    let number = context::now_ms() / u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    if number != *current {
        (*current, *seen) = (number, 0);
    }
    *seen = seen.saturating_add(1);
    if *seen <= at_most { forward() } else { drop("over the limit of the window") }
}

#[cfg(test)]
mod tests {
    use super::Sample;
    use quipu_plugin::prelude::*;
    use quipu_plugin::testing::{Harness, MockMessage, run, survives};

    /// Which of 4,000 ids are forwarded.
    fn chosen(config: Value) -> Vec<usize> {
        let mut plugin = Harness::<Sample>::new(config).unwrap();
        let mut verdict = |n: usize| plugin.process(MockMessage::new("a").id(format!("id-{n}"))).verdict;
        (0..4_000).filter(|n| verdict(*n) == forward()).collect()
    }

    #[track_caller]
    fn refused(config: Value, expected: &str) {
        assert_eq!(Harness::<Sample>::new(config).err().as_deref(), Some(expected));
    }

    #[test]
    fn chooses_the_share_that_is_asked() {
        let count = |config| chosen(config).len();
        assert_eq!(
            (count(json!({ "rate": 0 })), count(json!({ "rate": 1 })), count(json!({ "one_in": 1 }))),
            (0, 4_000, 4_000)
        );
        assert!((350..=450).contains(&count(json!({ "rate": 0.1 }))), "{}", count(json!({ "rate": 0.1 })));
        assert!((350..=450).contains(&count(json!({ "one_in": 10 }))));
    }

    #[test]
    fn a_small_sample_is_part_of_a_larger_one() {
        let (small, large) = (chosen(json!({ "rate": 0.1 })), chosen(json!({ "rate": 0.3 })));
        assert!(small.iter().all(|id| large.contains(id)));
        assert_eq!(small, chosen(json!({ "rate": 0.1 })), "the same at any time");
    }

    #[test]
    fn another_seed_is_another_sample() {
        let (one, other) = (chosen(json!({ "rate": 0.1 })), chosen(json!({ "rate": 0.1, "seed": 1 })));
        let both = one.iter().filter(|id| other.contains(id)).count();
        assert!((15..=75).contains(&both), "a tenth of a tenth, not {both}");
    }

    /// Samples taken before and after an upgrade are to fit together.
    #[test]
    fn the_hash_is_the_same_for_ever() {
        assert_eq!(chosen(json!({ "one_in": 500 })), [523, 1_627, 1_696, 2_609, 3_042, 3_434, 3_868]);
    }

    #[test]
    fn chooses_by_what_is_asked() {
        let config = json!({ "rate": 0.5, "by": "{key}" });
        let verdict = |key: &str, id: &str| run::<Sample>(&config, MockMessage::new("a").id(id).key(key)).verdict;
        assert!((0..50).all(|n| verdict("k-1", &n.to_string()) == verdict("k-1", "x")));
        let keyless = run::<Sample>(&config, MockMessage::new("a")).verdict;
        assert_eq!(keyless, reject("the message has no key"));
        let kept = run::<Sample>(json!({ "rate": 0.5, "by": "{key}", "missing": "forward" }), MockMessage::new("a"));
        assert_eq!(kept.verdict, forward());
    }

    #[test]
    fn takes_the_first_of_each_window() {
        let mut plugin = Harness::<Sample>::new(json!({ "at_most": 2, "window_ms": 100 })).unwrap();
        let mut forwarded = |now: u64| plugin.process(MockMessage::new("a").now_ms(now)).verdict == forward();
        let times = [1_000, 1_050, 1_099, 1_100, 1_101, 1_102, 1_350];
        assert_eq!(times.map(&mut forwarded), [true, true, false, true, true, false, true]);
        let third = plugin.process(MockMessage::new("a").now_ms(1_351)).verdict;
        assert_eq!(third, forward());
        let fourth = plugin.process(MockMessage::new("a").now_ms(1_352)).verdict;
        assert_eq!(fourth, drop("over the limit of the window"));
    }

    #[test]
    fn survives_what_comes() {
        survives::<Sample>(json!({ "rate": 0.5, "by": "{key}{payload}" }));
        survives::<Sample>(json!({ "one_in": 2, "by": "{field.a}", "missing": "drop" }));
        survives::<Sample>(json!({ "at_most": 0 }));
    }

    #[test]
    fn names_what_is_wrong_with_a_configuration() {
        refused(json!({}), "one of rate, one_in, at_most is required, and no two of them");
        refused(json!({ "rate": 0.1, "one_in": 3 }), "one of rate, one_in, at_most is required, and no two of them");
        refused(json!({ "rate": 1.5 }), "rate: 1.5 is not between 0 and 1");
        refused(json!({ "rate": "10%" }), r#"rate: invalid type: string "10%", expected f64"#);
        refused(json!({ "one_in": 0 }), "one_in: 0 is below 1");
        refused(json!({ "at_most": 1, "window_ms": 0 }), "window_ms: 0 is below 1");
        refused(json!({ "at_most": 1, "window_ms": 86_400_001 }), "window_ms: 86400001 is above 86400000, a day");
        refused(json!({ "rate": 0.1, "window_ms": 5 }), "window_ms: goes with at_most");
        refused(json!({ "at_most": 1, "by": "{key}" }), "by: goes with rate and one_in");
        refused(
            json!({ "rate": 0.1, "by": "{kee}" }),
            "by: invalid template \"{kee}\": unknown placeholder {kee}; there are {id}, {subject}, {subject.1}, \
             {origin_subject}, {key}, {header.NAME}, {field.PATH}, {payload}, {now}, {now_ms}, {published}, \
             {published_ms}, {attempt}, {priority}, {route} and {plugin}",
        );
    }
}
