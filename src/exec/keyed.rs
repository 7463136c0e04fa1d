//! What an operator with state per key is to the stage that runs it.
//!
//! It deliberately says nothing of threads or shards: a stage gives each shard its own operator, and calls it with
//! the shard's rows in order.

use arrow::array::RecordBatch;

use crate::error::Result;
use crate::exec::StateSize;
use crate::state::key::Keys;

/// An operator with state per key, over the keys of one shard.
pub trait KeyedOperator: Send {
    /// The output of these rows; the state then is that after them. Keys are those of the rows, one a row.
    fn apply(&mut self, rows: &RecordBatch, keys: &Keys) -> Result<RecordBatch>;

    /// How much state there is.
    fn size(&self) -> StateSize;

    /// All state, sorted by key group and key.
    fn snapshot(&self) -> Result<RecordBatch>;

    /// Replaces all state by that of a snapshot; after an error it is as it was.
    fn restore(&mut self, snapshot: &RecordBatch) -> Result<()>;
}
