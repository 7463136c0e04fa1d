//! A sink that keeps a stream's last rows in memory, for whoever asks: a notebook, a test, a page.
//!
//! It deliberately is no database: rows stay in the order in which they came, none is ever changed, and what the bound
//! pushes out is gone.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;

use super::transactional::Part;
use super::{Delivery, Sink};
use crate::cancel::Cancel;
use crate::error::Result;

/// Small chunks are put together up to so many rows: a snapshot of a stream of tiny batches has few chunks then.
const MERGED_ROWS: usize = 16_384;

/// How many rows a table keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The last so many.
    Last(NonZeroUsize),
    /// All of them, whatever memory they take.
    All,
}

/// The last rows of a stream. Clones are the same table.
///
/// ```
/// use tidemill::cancel::Cancel;
/// use tidemill::sink::Sink;
/// use tidemill::sink::contract::{delivery, schema};
/// use tidemill::sink::table::{Keep, Table, TableSink};
/// let table = Table::new(Keep::Last(3.try_into().unwrap()));
/// let mut sink = TableSink::new("alerts", table.clone());
/// sink.open(&schema(), &Cancel::default()).unwrap();
/// sink.deliver(&delivery(0, 0..5)).unwrap();
/// assert_eq!((table.snapshot().num_rows(), table.snapshot().delivered), (3, 5));
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    keep: Keep,
    kept: Arc<Mutex<Kept>>, // written by the delivery thread, a batch at a time; held by a reader for a copy of pointers
}

/// What a table held at one moment, between two batches.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The columns; none before the stream has started.
    pub schema: Option<SchemaRef>,
    /// The rows, the oldest first.
    pub rows: Vec<RecordBatch>,
    /// How many rows have been delivered, those that were pushed out included.
    pub delivered: u64,
}

impl Snapshot {
    /// How many rows it has.
    pub fn num_rows(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }
}

impl Table {
    /// A table without rows.
    pub fn new(keep: Keep) -> Self {
        Self { keep, kept: Arc::default() }
    }

    /// The rows as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let kept = self.lock();
        Snapshot {
            schema: kept.schema.clone(),
            rows: kept.chunks.iter().cloned().collect(),
            delivered: kept.delivered,
        }
    }

    /// Forgets all rows, as at a new start.
    pub fn clear(&self) {
        *self.lock() = Kept::default();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the rows of every batch into a [`Table`].
#[derive(Debug)]
pub struct TableSink {
    name: String,
    table: Table,
}

impl TableSink {
    /// A sink for `table`, called `name` in errors.
    pub fn new(name: impl Into<String>, table: Table) -> Self {
        Self { name: name.into(), table }
    }
}

impl Sink for TableSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, schema: &SchemaRef, _: &Cancel) -> Result<()> {
        self.table.lock().schema = Some(Arc::clone(schema));
        Ok(())
    }

    /// A reader sees all rows of a batch or none.
    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        let mut kept = self.table.lock();
        for chunk in &delivery.rows {
            kept.push(chunk)?;
        }
        match self.table.keep {
            Keep::Last(rows) => kept.trim(rows.get()),
            Keep::All => Ok(()),
        }
    }

    fn part(&mut self) -> Part<'_> {
        Part::Shows
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Kept {
    schema: Option<SchemaRef>,
    chunks: VecDeque<RecordBatch>,
    rows: usize,
    delivered: u64,
}

impl Kept {
    fn push(&mut self, chunk: &RecordBatch) -> Result<()> {
        self.rows += chunk.num_rows();
        self.delivered += chunk.num_rows() as u64;
        let mut last = chunk.clone();
        // A chunk is merged only with one that is no larger, so that each row is copied a few times at most.
        while let Some(before) = self.chunks.pop_back() {
            if before.num_rows() > last.num_rows() || before.num_rows() + last.num_rows() > MERGED_ROWS {
                self.chunks.push_back(before);
                break;
            }
            last = concat_batches(&before.schema(), [&before, &last])?;
        }
        self.chunks.push_back(last);
        Ok(())
    }

    /// Pushes out the oldest rows beyond `limit`.
    fn trim(&mut self, limit: usize) -> Result<()> {
        while self.rows > limit
            && let Some(oldest) = self.chunks.pop_front()
        {
            let excess = (self.rows - limit).min(oldest.num_rows());
            self.rows -= excess;
            if excess < oldest.num_rows() {
                self.chunks.push_front(without_first(&oldest, excess)?);
            }
        }
        Ok(())
    }
}

/// The rows after the first `gone`. A slice keeps the memory of the whole: where less than half would be left of it, the
/// rest is copied.
fn without_first(chunk: &RecordBatch, gone: usize) -> Result<RecordBatch> {
    let left = chunk.num_rows() - gone;
    if left >= gone {
        return Ok(chunk.slice(gone, left));
    }
    let rest: UInt64Array = (gone as u64..chunk.num_rows() as u64).collect();
    Ok(take_record_batch(chunk, &rest)?)
}
