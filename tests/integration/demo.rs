//! The demo's counts, against those computed from the file.

use std::collections::{BTreeMap, HashSet};

use quipu_tests::output_of;
use serde_json::Value;

use crate::QUIPU;

const FEED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/earthquakes/earthquakes.ndjson");
const REGIONS: [&str; 6] = ["ak", "ci", "hv", "nc", "pr", "us"];

/// What the routes must make of a feed, by rules written here once more. From the message with this offset on, the filter
/// of the regions has its second threshold.
fn expected(feed: &str, swapped_at: u64) -> Value {
    let mut ids = HashSet::new();
    let mut queues: BTreeMap<String, u64> = REGIONS.map(|region| (format!("region.{region}"), 0)).into();
    queues.insert("region.other".into(), 0);
    queues.insert("alerts".into(), 0);
    let (mut lines, mut set_aside, mut dropped) = (0, 0, 0);
    let mut filters = [(2.5, 0, 0), (4.5, 0, 0)];
    for line in feed.lines().filter(|line| !line.trim().is_empty()) {
        lines += 1;
        let feature: Value = serde_json::from_str(line).expect("JSON");
        if !ids.insert(feature["id"].as_str().expect("an id").to_owned()) {
            continue;
        }
        let properties = &feature["properties"];
        if properties["type"] != "earthquake" {
            set_aside += 1;
            continue;
        }
        let magnitude = properties["mag"].as_f64().unwrap_or(f64::NEG_INFINITY);
        if magnitude >= 4.5 {
            *queues.get_mut("alerts").expect("a queue") += 1;
        }
        let offset = ids.len() as u64 - 1;
        let (at_least, forwarded, refused) = &mut filters[usize::from(offset >= swapped_at)];
        if magnitude < *at_least {
            *refused += 1;
            dropped += 1;
            continue;
        }
        *forwarded += 1;
        let net = properties["net"].as_str().expect("a network");
        let region = if REGIONS.contains(&net) { net } else { "other" };
        *queues.get_mut(&format!("region.{region}")).expect("a queue") += 1;
    }
    let published = ids.len() as u64;
    let filtered = |(at_least, forwarded, dropped): (f64, u64, u64)| {
        let calls = forwarded + dropped;
        serde_json::json!({ "at_least": at_least, "calls": calls, "forwarded": forwarded, "dropped": dropped })
    };
    serde_json::json!({
        "published": published,
        "duplicates": 2 * lines - published,
        "set_aside": set_aside,
        "dropped": dropped,
        "queues": queues,
        "dead_lettered": 0,
        "lost": 0,
        "swap": {
            "route": "regions",
            "queue": "quakes",
            "offset": swapped_at,
            "before": filtered(filters[0]),
            "after": filtered(filters[1]),
        },
    })
}

/// A demo's counts are those of the feed, whenever the filter changed; and it changed in the midst of the feed.
fn check(mut counts: Value, feed: &str) {
    let swap = counts["swap"].as_object_mut().expect("an object");
    // These depend on the time.
    for field in ["drained", "took_ms"] {
        assert!(swap.remove(field).is_some_and(|value| value.is_u64()), "{field}");
    }
    let offset = swap["offset"].as_u64().expect("an offset");
    assert_eq!(counts, expected(feed, offset));
    assert!(0 < offset && offset < counts["published"].as_u64().expect("a number"), "{counts}");
}

async fn demo(arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let (code, out, err) = output_of(QUIPU, directory.path(), arguments).await;
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(out.lines().last().expect("a line")).expect("JSON")
}

#[tokio::test]
async fn the_demo_accounts_for_every_earthquake() {
    let feed = std::fs::read_to_string(FEED).expect("the feed");
    check(demo(&["demo", "--json"]).await, &feed);
}

#[tokio::test]
async fn another_feed_of_the_same_form_is_counted_as_well() {
    let feed = std::fs::read_to_string(FEED).expect("the feed");
    // Every third line, one of them twice, and one with another network.
    let mut lines: Vec<String> = feed.lines().step_by(3).map(str::to_owned).collect();
    lines.push(lines[0].clone());
    lines[5] = lines[5].replace("\"net\":\"", "\"net\":\"x");
    let input = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(input.path(), lines.join("\n")).expect("written");
    let path = input.path().to_str().expect("text");
    check(demo(&["demo", "--json", "--input", path]).await, &lines.join("\n"));
}

#[tokio::test]
async fn the_table_says_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let (code, out, err) = output_of(QUIPU, directory.path(), &["demo"]).await;
    assert_eq!(code, Some(0), "{err}");
    let row = |what: &str| {
        let line = out.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("no {what}:\n{out}"));
        line.split_whitespace().last().expect("a number").replace(',', "").parse::<u64>().expect("a number")
    };
    let swap = out.lines().find(|line| line.starts_with("swap ")).unwrap_or_else(|| panic!("no swap:\n{out}"));
    let (_, after) = swap.split_once(" offset ").expect("an offset");
    let offset = after.split(';').next().expect("a number").replace(',', "").parse().expect("a number");
    let expected = expected(&std::fs::read_to_string(FEED).expect("the feed"), offset);
    for (what, key) in
        [("published", "published"), ("duplicates", "duplicates"), ("dropped", "dropped"), ("lost", "lost")]
    {
        assert_eq!(row(what), expected[key], "{what}");
    }
    assert_eq!(row("stored in region.us"), expected["queues"]["region.us"]);
    let alerts = out.lines().filter(|line| line.starts_with("alert  M ")).count() as u64;
    assert_eq!(alerts, expected["queues"]["alerts"]);
}
