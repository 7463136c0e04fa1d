//! The engine, tested through its public modules: one binary, one module a topic.

mod detect;
mod state;
