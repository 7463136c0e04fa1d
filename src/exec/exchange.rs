//! The exchange: rows go to the shard of their key, inside one process gathered once and never serialised.
//!
//! The map side sorts each chunk by shard while it is in the cache; the reduce side takes slices. It
//! deliberately keeps the order of rows within a slot and shard, whoever does the work.

use arrow::array::UInt32Array;
use arrow::compute::{concat_batches, take};
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::exec::mailbox::bytes_of;
use crate::exec::pipeline::{Rows, batch_of, pick};
use crate::exec::program::RowExchange;
use crate::state::group::KeyGroup;
use crate::state::key::Keys;

/// A shard's slices are joined into one batch where they are smaller than this on average: below it, the fixed
/// cost of an operator's call outweighs a second copy.
const JOIN_BELOW: usize = 1_024;

/// A chunk whose rows are sorted by shard: those of shard `s` lie at `ends[s - 1]..ends[s]`.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    rows: RecordBatch,
    keys: Keys,
    ends: Vec<u32>,
}

impl Split {
    /// Rows that are sorted by shard already.
    pub(crate) fn new(rows: RecordBatch, keys: Keys, ends: Vec<u32>) -> Self {
        Self { rows, keys, ends }
    }

    /// The bytes of its rows.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_of(&self.rows)
    }

    /// The rows of `shard`, with their keys; nothing where it has none.
    pub(crate) fn shard(&self, shard: usize) -> Option<(RecordBatch, Keys)> {
        let end = *self.ends.get(shard)? as usize;
        let start =
            shard.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        (end > start).then(|| (self.rows.slice(start, end - start), self.keys.slice(start, end - start)))
    }
}

impl RowExchange {
    /// Sorts the rows of a chunk by the shard of their key, which is often of no more use after it: keys come from all
    /// columns, and only those that somebody reads are moved.
    pub(crate) fn split(&self, batch: &RecordBatch, shards: usize) -> Result<Split> {
        let keys = self.encoder.encode(batch)?;
        let (order, ends) = sorted(&self.shards_of(&keys, shards), shards);
        let order = UInt32Array::from(order);
        let columns = pick(batch, &self.columns)?;
        let columns = columns.iter().map(|column| take(column, &order, None)).collect::<Result<_, _>>()?;
        let rows = batch_of(&self.schema, columns, batch.num_rows())?;
        Ok(Split { rows, keys: keys.take(&order)?, ends })
    }

    /// The shard of each row. Where fewer than all are to have rows, those lie as far apart as they can: on as many
    /// executors as possible.
    fn shards_of(&self, keys: &Keys, shards: usize) -> Vec<usize> {
        let parts = self.parts.map_or(shards, |parts| parts.get().min(shards)).max(1);
        keys.hashes().iter().map(|hash| KeyGroup::of(*hash).shard_of(parts) * shards / parts).collect()
    }
}

/// The rows in order of shard (a counting sort, so that order within a shard is kept), and where each shard ends.
pub(crate) fn sort_by_shard(hashes: &[u64], shards: usize) -> (Vec<u32>, Vec<u32>) {
    let shard_of_row: Vec<usize> = hashes.iter().map(|hash| KeyGroup::of(*hash).shard_of(shards)).collect();
    sorted(&shard_of_row, shards)
}

fn sorted(shard_of_row: &[usize], shards: usize) -> (Vec<u32>, Vec<u32>) {
    let mut next = starts(shard_of_row, shards);
    let mut order = vec![0_u32; shard_of_row.len()];
    for (row, shard) in (0_u32..).zip(shard_of_row) {
        let Some(place) = next.get_mut(*shard) else { continue };
        order.get_mut(*place as usize).into_iter().for_each(|slot| *slot = row);
        *place += 1;
    }
    (order, next)
}

/// Where the rows of each shard start, once sorted.
fn starts(shard_of_row: &[usize], shards: usize) -> Vec<u32> {
    let mut counts = vec![0_u32; shards];
    for shard in shard_of_row {
        counts.get_mut(*shard).into_iter().for_each(|count| *count += 1);
    }
    let before = |total: &mut u32, count: &mut u32| {
        let start = *total;
        *total += *count;
        Some(start)
    };
    counts.iter_mut().scan(0, before).collect()
}

/// What `splits` bring to `shard`, in order: many small slices joined into one.
pub(crate) fn gather<'a>(splits: impl IntoIterator<Item = &'a Split>, shard: usize) -> Result<Vec<Rows>> {
    let slices: Vec<(RecordBatch, Keys)> =
        splits.into_iter().filter_map(|split| split.shard(shard)).collect();
    let rows: usize = slices.iter().map(|(rows, _)| rows.num_rows()).sum();
    match slices.first() {
        Some((first, _)) if slices.len() > 1 && rows / slices.len() < JOIN_BELOW => {
            let joined =
                concat_batches(&first.schema(), slices.iter().map(|(rows, _)| rows)).map_err(Error::from)?;
            Ok(vec![Rows::all(joined)])
        }
        _ => Ok(slices.into_iter().map(|(rows, keys)| Rows::keyed(rows, Some(keys))).collect()),
    }
}
