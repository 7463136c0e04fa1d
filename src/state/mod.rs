//! What a stream remembers of each key: canonical key bytes, key groups, dense slots, window panes, and their snapshots.
//!
//! State is an argument and a result of an operator, moved in and moved out. This module deliberately knows neither
//! what the state columns of an operator mean nor where a snapshot is stored: an operator brings columns with one
//! row a slot, and takes them back in another order of slots.

mod canonical;
mod class;
pub mod group;
pub mod key;
pub mod pane;
pub mod snapshot;
pub mod table;
pub mod values;
pub mod window;
