//! The engine, tested through its public modules: one binary, one module a topic.

mod decode;
mod detect;
mod driver;
mod driver_simulation;
mod exec;
mod expr;
mod ingest;
mod sink;
mod state;
