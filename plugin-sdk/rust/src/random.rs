//! Randomness for dependencies that ask the crate `getrandom` for it: the router's, so that a replay sees the same.
//!
//! On this target `getrandom` has no source of its own but a browser's. Built with `--cfg getrandom_backend="custom"`,
//! as `quipu plugin build` does, it asks the function below. Good for hash tables and for what programs call
//! random; no source of secrets.

use crate::context;
use getrandom::Error;
use std::cell::Cell;

thread_local!(static STATE: Cell<Option<(u64, u64)>> = const { Cell::new(None) });

/// SplitMix64, begun anew with each attempt's seed (<https://prng.di.unimi.it/splitmix64.c>).
fn next() -> u64 {
    let seed = context::seed();
    let (_, state) = STATE.get().filter(|(of, _)| *of == seed).unwrap_or((seed, seed));
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(Some((seed, state)));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What `getrandom` calls, in each of its versions since 0.3.
///
/// # Safety
///
/// `dest` has room for `len` bytes.
#[expect(unsafe_code, reason = "the signature and the name are getrandom's")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(dest: *mut u8, len: usize) -> Result<(), Error> {
    for at in 0..len {
        let [byte, ..] = next().to_le_bytes();
        // SAFETY: `at` is below `len`.
        unsafe { dest.add(at).write(byte) };
    }
    Ok(())
}
