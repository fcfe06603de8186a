//! Random modules and components through load and call: whatever they are, they are refused, or come to a verdict or a
//! fault, twice the same.

mod forge;

use std::time::{Duration, Instant};

use forge::{Tally, runtime, try_seed};

/// As many seeds as there is time for.
const TIME: Duration = Duration::from_secs(30);

#[test]
fn random_webassembly_breaks_nothing() {
    let (runtime, begun) = (runtime(), Instant::now());
    let mut tally = Tally::default();
    for seed in 0.. {
        if begun.elapsed() > TIME {
            break;
        }
        try_seed(&runtime, seed, &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.decided > 0 && tally.faulted > 0 && tally.refused > 0, "{tally:?}");
}
