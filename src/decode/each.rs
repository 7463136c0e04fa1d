//! The way of a chunk that formats without structure between records share: each payload becomes a row or is bad.
//!
//! It deliberately reads no byte of a payload; JSON, whose loop is hot down to single instructions, has its own.

use crate::decode::bad;
use crate::decode::utf8::{self, Utf8};
use crate::decode::{Kept, OnBad};
use crate::error::Result;
use crate::raw::RawChunk;

/// A format that reads one payload at a time into columns of its own.
pub(super) trait Records {
    /// Why a record is bad.
    type Bad;

    /// Reads a payload into `row` of all columns; `known` tells whether it lies in a buffer that is UTF-8.
    fn record(&mut self, payload: &[u8], known: Utf8, row: usize) -> Result<(), Self::Bad>;

    /// Forgets all rows after the first `rows`.
    fn truncate(&mut self, rows: usize);

    /// The byte where a bad record goes wrong, and what would have fitted there.
    fn explain(&self, bad: &Self::Bad) -> (usize, String);
}

/// Reads every payload of a chunk; a bad one leaves nothing behind.
pub(super) fn decode<R: Records>(records: &mut R, chunk: &RawChunk, on_bad: OnBad) -> Result<Kept> {
    records.truncate(0); // what a chunk that failed has left
    let known = utf8::check_together(&chunk.payloads);
    let mut kept = Kept::with_capacity(chunk.len());
    for (row, payload) in chunk.payloads.iter().enumerate() {
        match payload.map(|payload| records.record(payload, known, kept.rows.len())) {
            None => kept.tombstones += 1,
            Some(Ok(())) => kept.rows.push(row),
            Some(Err(bad)) => {
                records.truncate(kept.rows.len());
                bad::settle(on_bad, chunk, row, &mut kept, || records.explain(&bad))?;
            }
        }
    }
    Ok(kept)
}
