//! Objects of a checkpoint, changed and forged as the fuzzer's bytes say: none may pass for what it is not.
//!
//! It deliberately has no checks of its own: the body is the one that the suite runs with seeds.
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz container`.

#![no_main]

use std::sync::OnceLock;

#[path = "../../engine/checkpoint/mutants.rs"]
mod mutants;

/// Made once: a run of the fuzzer sees them millions of times.
static OBJECTS: OnceLock<Vec<mutants::Sealed>> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let objects = OBJECTS.get_or_init(mutants::objects);
    mutants::check(&mut mutants::Dice::new(data), objects);
    mutants::check_any(data, objects);
});
