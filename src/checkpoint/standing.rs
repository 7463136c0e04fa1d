//! What of the log still counts: the last COMMIT, and every PLAN and PREPARE that no COMMIT has closed.
//!
//! It deliberately reads no payload. It is the fold of the log's entries in their order, so that a START which carries it
//! can stand for all that came before.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::codec::Coded;
use crate::checkpoint::entry::{Entry, EntryKind, Position, Record};
use crate::time::BatchId;

/// The last batch that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its COMMIT, or the CHECKPOINT.
    pub commit: Record,
    /// The PREPARE that the COMMIT completed.
    pub prepare: Option<Record>,
}

/// What still counts of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last batch that is done; none before the first.
    pub committed: Option<Committed>,
    /// The PLANs of later batches, one a batch, in their order.
    pub plans: Vec<Record>,
    /// The PREPAREs of later batches, of whatever epoch and attempt, in their order.
    pub prepares: Vec<Record>,
    /// Whether the stream was stopped on purpose, and nothing came after that.
    pub stopped: bool,
}

impl Standing {
    /// Goes on by one entry. `Err` names the PREPARE that a COMMIT completes and that is not open.
    pub fn apply(&mut self, record: Record) -> Result<(), Position> {
        let rider = record.entry.rider.clone();
        let at = record.at;
        self.apply_alone(record)?;
        rider.map_or(Ok(()), |plan| self.apply_alone(Record { at, entry: *plan }))
    }

    fn apply_alone(&mut self, record: Record) -> Result<(), Position> {
        self.stopped = record.entry.kind == EntryKind::Stopped;
        match record.entry.kind {
            EntryKind::Plan => {
                self.plans.retain(|plan| plan.entry.batch != record.entry.batch);
                self.plans.push(record);
            }
            EntryKind::Prepare => self.prepares.push(record),
            EntryKind::Commit | EntryKind::Checkpoint => self.close(record)?,
            EntryKind::Noop | EntryKind::Stopped => {}
        }
        Ok(())
    }

    fn close(&mut self, commit: Record) -> Result<(), Position> {
        let completes =
            |of: Position| self.prepares.iter().find(|prepare| prepare.at == of).cloned().ok_or(of);
        let prepare = commit.entry.of.map(completes).transpose()?;
        let batch = commit.entry.batch;
        self.plans.retain(|plan| plan.entry.batch > batch);
        self.prepares.retain(|prepare| prepare.entry.batch > batch);
        self.committed = Some(Committed { commit, prepare });
        Ok(())
    }

    /// The batch that comes next.
    pub fn next_batch(&self) -> BatchId {
        self.committed.as_ref().map_or_else(BatchId::default, |done| done.commit.entry.batch.next())
    }

    /// The PLAN of a batch that is not done; what it says is to be done, and nothing else.
    pub fn plan(&self, batch: BatchId) -> Option<&Entry> {
        self.plans.iter().map(|plan| &plan.entry).find(|plan| plan.batch == batch)
    }

    /// The PREPAREs of a batch that is not done, one an attempt, in their order. The sink's marker tells which of them was
    /// published, if any was.
    pub fn attempts(&self, batch: BatchId) -> impl DoubleEndedIterator<Item = &Record> {
        self.prepares.iter().filter(move |prepare| prepare.entry.batch == batch)
    }

    /// All records that still count.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let committed = self.committed.iter();
        let committed = committed.flat_map(|committed| committed.prepare.iter().chain([&committed.commit]));
        committed.chain(&self.plans).chain(&self.prepares)
    }

    /// The chunks that they name.
    pub fn names(&self) -> BTreeSet<ChunkRef> {
        self.records().flat_map(|record| record.entry.all_names()).copied().collect()
    }
}

impl Coded for Committed {
    fn put_into(&self, out: &mut BytesMut) {
        self.commit.put_into(out);
        self.prepare.put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        Some(Self { commit: Record::take_from(from)?, prepare: Option::take_from(from)? })
    }
}

impl Coded for Standing {
    fn put_into(&self, out: &mut BytesMut) {
        self.committed.put_into(out);
        self.plans.put_into(out);
        self.prepares.put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        let (committed, plans, prepares) =
            (Option::take_from(from)?, Vec::take_from(from)?, Vec::take_from(from)?);
        Some(Self { committed, plans, prepares, stopped: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::codec::{decode, encode};
    use crate::checkpoint::id::{Epoch, Index};

    fn at(index: u64) -> Position {
        Position { epoch: Epoch(1), index: Index(index) }
    }

    fn record(index: u64, kind: EntryKind, batch: u64) -> Record {
        Record { at: at(index), entry: Entry::new(kind, BatchId(batch), Bytes::new()) }
    }

    fn commit(index: u64, batch: u64, prepare: u64) -> Record {
        let record = record(index, EntryKind::Commit, batch);
        Record { entry: record.entry.completing(at(prepare)), ..record }
    }

    fn after(records: Vec<Record>) -> Standing {
        let mut standing = Standing::default();
        for record in records {
            standing.apply(record).unwrap();
        }
        standing
    }

    fn batches(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.entry.batch.0).collect()
    }

    #[test]
    fn a_commit_closes_its_batch_and_keeps_the_attempt_that_it_completes() {
        let standing = after(vec![
            record(1, EntryKind::Plan, 0),
            record(2, EntryKind::Prepare, 0),
            record(3, EntryKind::Prepare, 0),
            record(4, EntryKind::Plan, 1),
            commit(5, 0, 2),
        ]);
        let committed = standing.committed.clone().unwrap();
        assert_eq!((committed.commit.at, committed.prepare.unwrap().at), (at(5), at(2)));
        assert_eq!((batches(&standing.plans), batches(&standing.prepares)), (vec![1], vec![]));
        assert_eq!(standing.next_batch(), BatchId(1));
        assert!(standing.plan(BatchId(0)).is_none() && standing.plan(BatchId(1)).is_some());
        assert_eq!(decode::<Standing>(encode(&standing)), Some(standing));
    }

    #[test]
    fn the_attempts_at_a_batch_are_in_their_order() {
        let records = [(1, 0), (2, 1), (3, 0)].map(|(index, batch)| record(index, EntryKind::Prepare, batch));
        let standing = after(records.to_vec());
        let attempts: Vec<Position> = standing.attempts(BatchId(0)).map(|prepare| prepare.at).collect();
        assert_eq!((attempts, standing.next_batch()), (vec![at(1), at(3)], BatchId(0)));
    }

    #[test]
    fn a_plan_that_rides_counts_after_the_entry_that_carries_it() {
        let carrier = commit(3, 0, 2);
        let plan = Entry::new(EntryKind::Plan, BatchId(1), Bytes::new());
        let carrier = Record { entry: carrier.entry.riding(plan), ..carrier };
        let standing = after(vec![record(1, EntryKind::Plan, 0), record(2, EntryKind::Prepare, 0), carrier]);
        assert_eq!(batches(&standing.plans), [1]);
        assert!(standing.committed.is_some());
    }

    #[test]
    fn a_commit_of_a_prepare_that_is_not_open_is_refused() {
        assert_eq!(Standing::default().apply(commit(5, 0, 2)), Err(at(2)));
    }

    #[test]
    fn a_stream_is_stopped_until_something_comes_after() {
        let stopped = after(vec![record(1, EntryKind::Stopped, 0)]);
        assert!(stopped.stopped);
        assert!(!after(vec![record(1, EntryKind::Stopped, 0), record(2, EntryKind::Noop, 0)]).stopped);
    }
}
