//! Documents drawn from the fuzzer's bytes, decoded and compared with the model, row by row.
//!
//! It deliberately has no checks of its own: the body is the one that the suite runs with seeds, and over 20,000 inputs
//! of a mutator (`TIDEMILL_MUTATIONS` of them, where that is set).
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz decode`.

#![no_main]

#[path = "../../engine/decode/check.rs"]
mod check;
#[path = "../../engine/decode/documents.rs"]
mod documents;
#[path = "../../engine/decode/model.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::documents(data));
