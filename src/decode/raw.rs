//! Payloads as they are: one binary column called `value`.
//!
//! It deliberately looks at no byte, so no record is ever bad; a null payload is a tombstone as in every format.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder};

use crate::decode::Kept;
use crate::raw::RawChunk;

#[derive(Debug)]
pub(super) struct RawPayloads {
    /// Whether somebody reads the column; without a reader no payload is copied.
    read: bool,
}

impl RawPayloads {
    pub(super) fn new(read: bool) -> Self {
        Self { read }
    }

    pub(super) fn decode(&self, chunk: &RawChunk) -> (Kept, Vec<ArrayRef>) {
        let mut kept = Kept::with_capacity(chunk.len());
        for (row, payload) in chunk.payloads.iter().enumerate() {
            match payload {
                Some(_) => kept.rows.push(row),
                None => kept.tombstones += 1,
            }
        }
        let arrays = if self.read { vec![values(chunk)] } else { Vec::new() };
        (kept, arrays)
    }
}

fn values(chunk: &RawChunk) -> ArrayRef {
    let mut builder = BinaryBuilder::with_capacity(chunk.len(), chunk.payloads.value_bytes());
    chunk.payloads.iter().flatten().for_each(|payload| builder.append_value(payload));
    Arc::new(builder.finish())
}
