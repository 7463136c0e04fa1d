//! The replicated log: what a job must remember, as write-once objects on several replicas.
//!
//! It deliberately knows bytes, places and positions, not what state means, and neither sources nor sinks. From the
//! bottom up: [`id`] has the names, [`container`] is the form of every object, [`replica`] is one copy of the
//! checkpoint, [`job`] is the file that says whose it is, and [`probe`] tells whether a place can be a replica.

pub mod container;
pub mod id;
pub mod job;
pub mod probe;
pub mod replica;
pub mod secret;
