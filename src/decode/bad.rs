//! Why a record is bad, and how that is told.
//!
//! It deliberately holds no text of its own making until somebody asks: with `on_bad="drop"` a flood of bad
//! records costs no formatting.

use crate::decode::dead::Dead;
use crate::decode::{Kept, OnBad};
use crate::error::{Error, Result};
use crate::raw::RawChunk;

/// How much of what was found an error shows.
const EXCERPT: usize = 24;

/// What a parser wanted at the place where it stopped, in words that follow "expected".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected(pub(super) &'static str);

/// Why one record is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is not exactly one JSON object in valid UTF-8.
    Syntax {
        /// The byte of the payload where it ceases to be one.
        at: usize,
        /// What would have fitted there.
        expected: Expected,
    },
    /// The value of a column that is read does not fit.
    Misfit {
        /// The byte of the payload where the value starts; its end where there is none.
        at: usize,
        /// Which of the columns that are read.
        column: usize,
    },
}

/// What becomes of the bad record in `row`; `explain` says at which byte it goes wrong, and what would have fitted
/// there. None of it stays in any column by now.
pub(super) fn settle(
    on_bad: OnBad,
    chunk: &RawChunk,
    row: usize,
    kept: &mut Kept,
    explain: impl FnOnce() -> (usize, String),
) -> Result<()> {
    match on_bad {
        OnBad::Drop => {}
        OnBad::Fail => {
            let (at, expected) = explain();
            return Err(error(chunk, row, at, &expected));
        }
        OnBad::DeadLetter => {
            let (at, expected) = explain();
            kept.dead.push(Dead { row, at, reason: reason(chunk, row, at, &expected) });
        }
    }
    kept.bad += 1;
    Ok(())
}

/// What would have fitted at byte `at` of the record in `row`, and what is there.
fn reason(chunk: &RawChunk, row: usize, at: usize, expected: &str) -> String {
    let payload = chunk.payloads.get(row).unwrap_or_default();
    format!("expected {expected}, found {}", excerpt(payload, at))
}

/// The error that fails a batch for the record in `row`: `expected` says what would have fitted at byte `at`.
fn error(chunk: &RawChunk, row: usize, at: usize, expected: &str) -> Error {
    let payload = chunk.payloads.get(row).unwrap_or_default();
    let offset = chunk.offset(row).unwrap_or_default();
    Error::data(format!("bad record: {}", reason(chunk, row, at, expected)))
        .help("on_bad=\"drop\" drops and counts such records, on_bad=\"dead_letter\" keeps them as rows")
        .at(format!("byte {at} of {}", payload.len()))
        .at(format!("topic {:?}, partition {}, offset {offset}", chunk.at.topic.as_str(), chunk.at.partition))
}

/// The bytes from `at`, cut short, as text that is safe to print.
fn excerpt(payload: &[u8], at: usize) -> String {
    match payload.get(at..).unwrap_or_default() {
        [] => "the end of the record".to_owned(),
        rest => {
            let shown = rest.get(..EXCERPT).unwrap_or(rest);
            let more = if shown.len() < rest.len() { "…" } else { "" };
            format!("`{}{more}`", shown.utf8_chunks().map(printable).collect::<String>())
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "mapped over chunks, which come by value")]
fn printable(chunk: std::str::Utf8Chunk<'_>) -> String {
    let text =
        chunk.valid().chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() });
    text.chain(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"))).collect()
}
