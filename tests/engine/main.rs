//! The engine, tested through its public modules: one binary, one module a topic.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that panics has failed, as it should"
)]

mod aggregate;
mod broker;
mod capture;
mod checkpoint;
mod checkpoint_log;
mod checkpoint_simulation;
mod dead_letters;
mod decode;
mod detect;
mod doubts;
mod driver;
mod driver_simulation;
mod exec;
mod expr;
mod ingest;
mod sample;
mod sink;
mod state;
mod windows;
