//! The replicated log: what a job must remember, as write-once objects on several replicas.
//!
//! It deliberately knows bytes, places and positions, not what state means, and neither sources nor sinks. From the
//! bottom up: [`id`] has the names, [`container`] is the form of every object, [`replica`] is one copy of the
//! checkpoint, [`job`] is the file that says whose it is, and [`probe`] tells whether a place can be a replica.

mod adopt;
pub mod chunk;
mod claim;
mod codec;
mod collect;
pub mod container;
pub mod entry;
mod failure;
mod fetch;
mod first;
pub mod id;
pub mod job;
mod lane;
mod lease;
pub mod log;
pub mod members;
pub mod open;
mod panel;
pub mod probe;
pub mod quorum;
pub mod repair;
pub mod recover;
pub mod replica;
pub mod report;
mod round;
#[doc(hidden)]
pub mod rules;
pub mod runtime;
pub mod secret;
pub mod settings;
mod shared;
mod slot;
pub mod standing;
pub mod start;
mod state;
pub mod surroundings;
mod takeover;
mod timed;
mod verdict;
mod walk;
