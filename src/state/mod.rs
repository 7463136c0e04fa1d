//! What a stream remembers of each key: canonical key bytes, key groups, dense slots, window panes, their snapshots, and
//! these as chunks of bytes.
//!
//! State is an argument and a result of an operator, moved in and moved out. This module deliberately knows neither
//! what the state columns of an operator mean nor where a snapshot is stored: an operator brings columns with one
//! row a slot, and takes them back in another order of slots.

mod canonical;
pub mod chunk;
mod class;
pub mod columns;
pub mod form;
pub mod group;
pub mod key;
pub mod pane;
pub mod rows;
pub mod snapshot;
pub mod table;
pub mod touched;
pub mod values;
pub mod window;
