//! The engine, tested through its public modules: one binary, one module a topic.
#![expect(clippy::indexing_slicing, reason = "a test that reads outside its own data fails, as it should")]

mod decode;
mod detect;
mod driver;
mod driver_simulation;
mod exec;
mod expr;
mod ingest;
mod sink;
mod state;
