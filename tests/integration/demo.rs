//! The demo's counts, against those computed from the file.

use std::collections::{BTreeMap, HashSet};

use quipu_tests::output_of;
use serde_json::Value;

use crate::QUIPU;

const FEED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/earthquakes/earthquakes.ndjson");
const REGIONS: [&str; 6] = ["ak", "ci", "hv", "nc", "pr", "us"];

/// What the routes must make of a feed, by rules written here once more.
fn expected(feed: &str) -> Value {
    let mut ids = HashSet::new();
    let mut queues: BTreeMap<String, u64> = REGIONS.map(|region| (format!("region.{region}"), 0)).into();
    queues.insert("region.other".into(), 0);
    queues.insert("alerts".into(), 0);
    let (mut lines, mut set_aside, mut dropped) = (0, 0, 0);
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
        if magnitude < 2.5 {
            dropped += 1;
            continue;
        }
        let net = properties["net"].as_str().expect("a network");
        let region = if REGIONS.contains(&net) { net } else { "other" };
        *queues.get_mut(&format!("region.{region}")).expect("a queue") += 1;
    }
    let published = ids.len() as u64;
    serde_json::json!({
        "published": published,
        "duplicates": 2 * lines - published,
        "set_aside": set_aside,
        "dropped": dropped,
        "queues": queues,
        "dead_lettered": 0,
        "lost": 0,
    })
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
    assert_eq!(demo(&["demo", "--json"]).await, expected(&feed));
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
    assert_eq!(demo(&["demo", "--json", "--input", path]).await, expected(&lines.join("\n")));
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
    let expected = expected(&std::fs::read_to_string(FEED).expect("the feed"));
    for (what, key) in
        [("published", "published"), ("duplicates", "duplicates"), ("dropped", "dropped"), ("lost", "lost")]
    {
        assert_eq!(row(what), expected[key], "{what}");
    }
    assert_eq!(row("stored in region.us"), expected["queues"]["region.us"]);
    let alerts = out.lines().filter(|line| line.starts_with("alert  M ")).count() as u64;
    assert_eq!(alerts, expected["queues"]["alerts"]);
}
