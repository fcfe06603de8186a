//! What a dead letter says of the plugin that it died in.

use quipu_protocol::limits::HEADER_VALUE_BYTES_MAX;
use quipu_runtime::{Fault, Plugin};
use serde_json::json;

use crate::chain::{Chain, Seen};

pub(crate) const ROUTE: &str = "quipu-dead-route";
const PLUGIN: &str = "quipu-dead-plugin";
const FAULT: &str = "quipu-dead-fault";
const TRACE: &str = "quipu-dead-trace";
const FINGERPRINT: &str = "quipu-dead-fingerprint";
/// What the attempt can be repeated from, as JSON: which plugin of the chain, which attempt, clock, seed, route, the
/// chain's plugins with the first digits of their digests and of their configurations', and the clocks that they were
/// configured by.
const CAPSULE: &str = "quipu-dead-capsule";

/// Headers of a message that the plugin at this place ended.
pub(crate) fn headers(chain: &Chain, position: usize, seen: Seen, fault: Option<&Fault>) -> Vec<(String, String)> {
    let mut said = vec![(PLUGIN, chain.plugin_name(position)), (CAPSULE, capsule(chain, position, seen))];
    if let Some(fault) = fault {
        said.push((FAULT, fault.kind.to_string()));
        said.push((FINGERPRINT, fault.fingerprint()));
        said.push((TRACE, fault.trace.join(" | ")));
    }
    said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn capsule(chain: &Chain, position: usize, seen: Seen) -> String {
    let of_chain = |plugin: &dyn Fn(&dyn Plugin) -> String| {
        let plugins: Vec<String> = chain.plugins.iter().map(|one| plugin(one.as_ref())).collect();
        let started: Vec<u64> = chain.plugins.iter().map(|one| one.usage().started_ms).collect();
        json!({
            "at": position + 1, "of": plugins.len(), "attempt": seen.attempt, "clock": seen.now_ms, "seed": seen.seed,
            "route": chain.route, "chain": plugins, "started": started,
        })
        .to_string()
    };
    let versions = |plugin: &dyn Plugin| format!("{}/{}", plugin.digest().prefix(), plugin.config_digest().prefix());
    let whole = of_chain(&|plugin| format!("{}@{}", plugin.name(), versions(plugin)));
    match whole.len() <= HEADER_VALUE_BYTES_MAX {
        true => whole,
        // A long chain of long names: the digests say it too.
        false => of_chain(&versions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_runtime::{Digest, Hand, Usage, Verdict};

    struct Named(String, Digest);

    impl Plugin for Named {
        fn name(&self) -> &str {
            &self.0
        }

        fn digest(&self) -> &Digest {
            &self.1
        }

        fn usage(&self) -> Usage {
            Usage { started_ms: 1_999_999_999_999, ..Usage::default() }
        }

        fn process(&mut self, _: &mut Hand) -> Result<Verdict, Fault> {
            Ok(Verdict::Forward)
        }
    }

    #[test]
    fn a_capsule_of_the_longest_chain_fits_a_header() {
        let plugin = |n: usize| Box::new(Named(format!("{}{n}", "x".repeat(62)), Digest::of(b"p"))) as Box<dyn Plugin>;
        let chain =
            |count| Chain { route: "r".repeat(64), plugins: (0..count).map(plugin).collect(), ..Chain::default() };
        let seen = Seen { attempt: u32::MAX, now_ms: u64::MAX, seed: u64::MAX };
        for count in [1, 64] {
            let text = capsule(&chain(count), count - 1, seen);
            assert!(text.len() <= HEADER_VALUE_BYTES_MAX, "{}", text.len());
            let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!((read["at"].as_u64(), read["of"].as_u64()), (Some(count as u64), Some(count as u64)));
            let last = read["chain"][count - 1].as_str().expect("a text").to_owned();
            let digests = format!("{}/", Digest::of(b"p").prefix());
            assert!(last.contains(&digests) && last.starts_with('x') == (count == 1), "{last}");
        }
    }
}
