//! Stock plugin `route-hash`: spreads messages over subjects, and what is alike always to the same one.
//!
//! Rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998): each subject
//! has a score for what the messages are told apart by, and the highest wins. A subject that comes takes its share from
//! all others, one that goes leaves its share to all others, and the rest stays where it is, whatever the order of the
//! list. The score is XXH3 with 64 bits (<https://github.com/Cyan4973/xxHash>), which never changes from run to run.

use quipu_plugin::prelude::*;
use quipu_plugin::{FillError, Subject};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Most subjects: each message looks at all of them.
const SUBJECTS_MAX: usize = 1_024;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteHash {
    /// What messages are told apart by; the key unless said otherwise.
    by: Option<Template>,
    subjects: Vec<Subject>,
    /// What becomes of a message without it; it is rejected unless said otherwise.
    missing: Option<Otherwise>,
    /// Of each subject, the hash of its name.
    #[serde(skip)]
    seeds: Vec<u64>,
}

impl Plugin for RouteHash {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        plugin.check()?;
        if plugin.by.is_none() {
            plugin.by = Some("{key}".parse()?);
        }
        plugin.seeds = plugin.subjects.iter().map(|subject| xxh3_64(subject.as_str().as_bytes())).collect();
        Ok(plugin)
    }

    fn check(&self) -> Result<(), String> {
        let count = self.subjects.len();
        if !(1..=SUBJECTS_MAX).contains(&count) {
            return Err(format!("subjects: {count} subjects, expected 1 to {SUBJECTS_MAX}"));
        }
        let twice = (1..count).find(|at| self.subjects[..*at].contains(&self.subjects[*at]));
        twice.map_or(Ok(()), |at| Err(format!("subjects[{at}]: {} is there twice", self.subjects[at])))
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let by = self.by.as_ref().map_or(Ok(Vec::new()), |by| by.fill_bytes(message));
        match (by, self.missing) {
            (Ok(by), _) => Ok(route(self.highest(&by))),
            (Err(error @ FillError::Absent(_)), otherwise) => {
                Ok(otherwise.unwrap_or(Otherwise::Reject).verdict(error.to_string()))
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}
plugin!(RouteHash);

impl RouteHash {
    /// The subject with the highest score; of equal ones, which take a collision of 64 bits, the first by name.
    fn highest(&self, by: &[u8]) -> Option<&Subject> {
        let scored =
            self.seeds.iter().zip(&self.subjects).map(|(seed, subject)| (xxh3_64_with_seed(by, *seed), subject));
        scored.max_by(|(a, first), (b, second)| a.cmp(b).then_with(|| second.cmp(first))).map(|(_, subject)| subject)
    }
}

#[cfg(test)]
mod tests {
    use super::RouteHash;
    use quipu_plugin::prelude::*;
    use quipu_plugin::testing::{Harness, MockMessage, hostile_payloads, run, survives};
    use std::collections::BTreeMap;

    fn shards(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("shard.{n}")).collect()
    }

    /// Where each of 4,000 keys goes.
    fn spread(subjects: &[String]) -> Vec<String> {
        let mut plugin = Harness::<RouteHash>::new(json!({ "subjects": subjects })).unwrap();
        let goes = (0..4_000).map(|n| match plugin.process(MockMessage::new("a").key(format!("order-{n}"))).verdict {
            Verdict::Route(mut subjects) if subjects.len() == 1 => subjects.remove(0),
            other => panic!("{other:?}"),
        });
        goes.collect()
    }

    #[track_caller]
    fn refused(config: Value, expected: &str) {
        assert_eq!(Harness::<RouteHash>::new(config).err().as_deref(), Some(expected));
    }

    #[test]
    fn every_subject_has_its_share() {
        let mut counts = BTreeMap::<_, usize>::new();
        for subject in spread(&shards(8)) {
            *counts.entry(subject).or_default() += 1;
        }
        assert_eq!(counts.len(), 8);
        assert!(counts.values().all(|count| (400..=600).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_new_subject_takes_its_share_and_moves_nothing_else() {
        let (before, after) = (spread(&shards(8)), spread(&shards(9)));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| *after == "shard.8"));
        assert!((350..=540).contains(&moved.len()), "{} of 4,000 moved", moved.len());
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let mut backwards = shards(8);
        backwards.reverse();
        assert_eq!(spread(&shards(8)), spread(&backwards));
    }

    /// What is in queues was spread by these: they may never change.
    #[test]
    fn the_hash_is_the_same_for_ever() {
        let found: Vec<_> =
            spread(&shards(8)).into_iter().take(8).map(|subject| subject.replace("shard.", "")).collect();
        assert_eq!(found.join(" "), "4 3 1 2 2 1 3 6");
    }

    #[test]
    fn spreads_by_what_is_asked() {
        let config = json!({ "by": "{field.customer}", "subjects": shards(8) });
        let goes = |payload: &str| run::<RouteHash>(&config, MockMessage::new("a").payload(payload)).verdict;
        assert_eq!(goes(r#"{"customer":7,"n":1}"#), goes(r#"{"n":2,"customer":7}"#));
        assert_eq!(goes("{}"), reject("the message has no field customer"));
        assert_eq!(goes("x"), reject("the payload is no JSON: expected value at line 1 column 1"));
        let keyless =
            |missing| run::<RouteHash>(json!({ "subjects": ["a"], "missing": missing }), MockMessage::new("a")).verdict;
        assert_eq!(keyless("forward"), forward());
        assert_eq!(keyless("drop"), drop("the message has no key"));
    }

    #[test]
    fn survives_what_comes() {
        survives::<RouteHash>(json!({ "by": "{header.h-1}{field.a}", "subjects": ["a", "b"] }));
        let mut plugin = Harness::<RouteHash>::new(json!({ "by": "{payload}", "subjects": ["a", "b"] })).unwrap();
        for payload in hostile_payloads() {
            assert!(matches!(plugin.process(MockMessage::new("a").payload(payload)).verdict, Verdict::Route(_)));
        }
    }

    #[test]
    fn names_what_is_wrong_with_a_configuration() {
        refused(json!({}), "missing field `subjects`");
        refused(json!({ "subjects": [] }), "subjects: 0 subjects, expected 1 to 1024");
        refused(json!({ "subjects": ["a", "b", "a"] }), "subjects[2]: a is there twice");
        refused(json!({ "subjects": ["a", "b."] }), r#"subjects[1]: invalid subject "b.": empty token"#);
        refused(
            json!({ "by": "{key", "subjects": ["a"] }),
            r#"by: invalid template "{key": a brace without its partner; one that is meant is written twice"#,
        );
        refused(
            json!({ "subjects": ["a"], "missing": "skip" }),
            "missing: unknown variant `skip`, expected one of `forward`, `drop`, `reject`",
        );
        refused(
            json!({ "subjects": ["a"], "field": "b" }),
            "field: unknown field `field`, expected one of `by`, `subjects`, `missing`",
        );
    }
}
