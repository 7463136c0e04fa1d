//! Payloads that are text: one string column called `value`.
//!
//! It deliberately looks for nothing in the text: whatever is UTF-8 is a value, and all else is a bad record.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use crate::decode::bad::Expected;
use crate::decode::each::{self, Records};
use crate::decode::json::columns::{Column, new_column};
use crate::decode::utf8::{self, Utf8};
use crate::decode::{Kept, OnBad};
use crate::error::{Error, Result};
use crate::raw::RawChunk;

/// The decoder of text payloads.
#[derive(Debug)]
pub(super) struct TextPayloads {
    /// The column, if somebody reads it; without a reader a payload is checked and not copied.
    column: Option<Box<dyn Column>>,
    on_bad: OnBad,
}

impl TextPayloads {
    pub(super) fn new(read: bool, on_bad: OnBad) -> Result<Self> {
        let strings = || new_column(&DataType::Utf8).ok_or_else(|| Error::internal("there are no strings"));
        Ok(Self { column: read.then(strings).transpose()?, on_bad })
    }

    pub(super) fn decode(&mut self, chunk: &RawChunk) -> Result<(Kept, Vec<ArrayRef>)> {
        self.column.iter_mut().for_each(|column| column.reserve(chunk.len()));
        let on_bad = self.on_bad;
        let kept = each::decode(self, chunk, on_bad)?;
        let arrays = self.column.iter_mut().map(|column| column.finish()).collect::<Result<_>>()?;
        Ok((kept, arrays))
    }
}

impl Records for TextPayloads {
    type Bad = (usize, Expected);

    fn record(&mut self, payload: &[u8], known: Utf8, _: usize) -> Result<(), Self::Bad> {
        utf8::check_whole(payload, known)?;
        let Some(column) = &mut self.column else { return Ok(()) };
        column.text(payload, payload).map_err(|_| (0, Expected("a string")))
    }

    fn truncate(&mut self, rows: usize) {
        self.column.iter_mut().for_each(|column| column.truncate(rows));
    }

    fn explain(&self, (at, expected): &Self::Bad) -> (usize, String) {
        (*at, expected.0.to_owned())
    }
}
