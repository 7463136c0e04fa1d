//! Rows of any type that belong to slots: an append-only log of Arrow arrays, and rows that replace each other in it.
//!
//! Arrow arrays cannot be written to, so what is new is appended, and what is dead is dropped when it is the greater
//! part. It deliberately looks at no value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{concat, interleave};

use crate::aggregate::column::{bytes_of, check_slots};
use crate::error::{Error, Result};

/// The position of a row that there is not.
pub(super) const NOWHERE: u32 = u32::MAX;

/// So many dead rows are kept in any case: to drop fewer is not worth the call.
const KEPT_DEAD: usize = 1024;

/// Chunks of so many rows are not joined: what is copied has room twice for a moment, which must not be the whole log.
const LONG: usize = 1 << 17;

/// Rows of some columns; a row's position never changes.
///
/// A chunk is long, or at least twice as long as the one after it: a row is copied a logarithmic number of times.
#[derive(Debug, Default)]
pub(super) struct Log {
    chunks: Vec<Chunk>,
    rows: usize,
}

#[derive(Debug)]
struct Chunk {
    start: usize,
    rows: usize,
    columns: Vec<ArrayRef>,
}

impl Chunk {
    fn joined(self, next: &Self) -> Result<Self> {
        let pairs = self.columns.iter().zip(&next.columns);
        let columns = pairs.map(|(left, right)| concat(&[left.as_ref(), right.as_ref()]));
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(Self { start: self.start, rows: self.rows + next.rows, columns })
    }
}

impl Log {
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Appends rows; gives the position of the first.
    pub(super) fn push(&mut self, columns: Vec<ArrayRef>) -> Result<u32> {
        let rows = columns.first().map_or(0, Array::len);
        let start = u32::try_from(self.rows).map_err(|_| full())?;
        if self.rows + rows >= NOWHERE as usize {
            return Err(full());
        }
        let mut chunk = Chunk { start: self.rows, rows, columns };
        self.rows += rows;
        while let Some(before) = self.chunks.pop_if(|before| before.rows < LONG.min(2 * chunk.rows)) {
            chunk = before.joined(&chunk)?;
        }
        self.chunks.push(chunk);
        Ok(start)
    }

    /// The rows at these positions; that of `absent`, which has one, where there is none.
    pub(super) fn gather(&self, positions: &[u32], absent: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let places: Vec<(usize, usize)> = positions.iter().map(|position| self.place(*position)).collect();
        let gathered = absent.iter().enumerate().map(|(column, absent)| {
            let chunks = self.chunks.iter().filter_map(|chunk| chunk.columns.get(column)).map(AsRef::as_ref);
            let arrays: Vec<&dyn Array> = chunks.chain([absent.as_ref()]).collect();
            Ok(interleave(&arrays, &places)?)
        });
        gathered.collect()
    }

    /// The chunk and the row in it; what is absent stands behind the chunks.
    fn place(&self, position: u32) -> (usize, usize) {
        if position == NOWHERE {
            return (self.chunks.len(), 0);
        }
        let position = position as usize;
        let chunk = self.chunks.partition_point(|chunk| chunk.start <= position).saturating_sub(1);
        (chunk, position - self.chunks.get(chunk).map_or(0, |chunk| chunk.start))
    }

    pub(super) fn bytes(&self) -> usize {
        let columns = self.chunks.iter().flat_map(|chunk| &chunk.columns);
        columns.map(Array::get_array_memory_size).sum::<usize>() + bytes_of(&self.chunks)
    }
}

fn full() -> Error {
    Error::memory_limit("an aggregate holds at most 4,294,967,294 values in one shard").help(
        "use more shards, shorter windows, or an aggregate that keeps no values, such as approx_quantile",
    )
}

/// At most one row a slot, of some columns.
#[derive(Debug)]
pub(super) struct Rows {
    log: Log,
    /// The position of a slot's row.
    places: Vec<u32>,
    live: usize,
    /// What is read where there is no row.
    absent: Vec<ArrayRef>,
}

impl Rows {
    pub(super) fn new(absent: Vec<ArrayRef>) -> Self {
        Self { log: Log::default(), places: Vec::new(), live: 0, absent }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn grow(&mut self, slots: usize) {
        self.places.resize(slots.max(self.places.len()), NOWHERE);
    }

    pub(super) fn has(&self, slot: u32) -> bool {
        self.places.get(slot as usize).is_some_and(|place| *place != NOWHERE)
    }

    /// Gives each of these slots, none of which comes twice, a new row.
    pub(super) fn put(&mut self, slots: &[u32], columns: Vec<ArrayRef>) -> Result<()> {
        let start = self.log.push(columns)?;
        for (slot, position) in slots.iter().zip(start..) {
            if let Some(place) = self.places.get_mut(*slot as usize) {
                self.live += usize::from(*place == NOWHERE);
                *place = position;
            }
        }
        if self.log.len() > 2 * self.live + KEPT_DEAD { self.compact() } else { Ok(()) }
    }

    /// The rows of these slots.
    pub(super) fn get(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        check_slots(slots, self.places.len())?;
        let places: Vec<u32> =
            slots.iter().filter_map(|slot| self.places.get(*slot as usize)).copied().collect();
        self.log.gather(&places, &self.absent)
    }

    fn compact(&mut self) -> Result<()> {
        let live: Vec<u32> = self.places.iter().copied().filter(|place| *place != NOWHERE).collect();
        let columns = self.log.gather(&live, &self.absent)?;
        self.log = Log::default();
        let start = self.log.push(columns)?;
        let places = self.places.iter_mut().filter(|place| **place != NOWHERE);
        for (place, position) in places.zip(start..) {
            *place = position;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.log.bytes() + bytes_of(&self.places)
    }
}

/// Numbers the slots of some rows from 0, in the order in which they come.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// Each slot's number during a call, and nowhere between calls.
    numbers: Vec<u32>,
}

/// The slots of some rows, each once, and for each row its slot's place among them.
pub(super) struct Numbered {
    pub(super) slots: Vec<u32>,
    pub(super) numbers: Vec<u32>,
}

impl Numbering {
    pub(super) fn grow(&mut self, slots: usize) {
        self.numbers.resize(slots.max(self.numbers.len()), NOWHERE);
    }

    pub(super) fn number(&mut self, rows: &[u32]) -> Numbered {
        let mut slots = Vec::new();
        let mut next = 0;
        let numbers = rows.iter().map(|slot| {
            let Some(number) = self.numbers.get_mut(*slot as usize) else { return NOWHERE };
            if *number == NOWHERE {
                *number = next;
                next += 1;
                slots.push(*slot);
            }
            *number
        });
        let numbers = numbers.collect();
        for slot in &slots {
            if let Some(number) = self.numbers.get_mut(*slot as usize) {
                *number = NOWHERE;
            }
        }
        Numbered { slots, numbers }
    }

    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.numbers)
    }
}

/// A row of nulls of these types.
pub(super) fn nulls<'a>(types: impl IntoIterator<Item = &'a arrow::datatypes::DataType>) -> Vec<ArrayRef> {
    types.into_iter().map(|data_type| arrow::array::new_null_array(data_type, 1)).collect()
}

/// The array behind the only column.
pub(super) fn single(mut columns: Vec<ArrayRef>) -> Result<ArrayRef> {
    match columns.pop() {
        Some(column) if columns.is_empty() => Ok(Arc::clone(&column)),
        _ => Err(Error::internal("expected one column of state")),
    }
}
