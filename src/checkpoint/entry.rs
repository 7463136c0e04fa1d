//! What a slot of the log holds: an entry, and perhaps a PLAN that rides with it.
//!
//! It deliberately knows positions, batch numbers and the names of chunks, and of everything else only bytes: which
//! positions a PLAN reads, what a digest covers and what a marker says is the driver's business.

use bytes::{Bytes, BytesMut};

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::codec::Coded;
use crate::checkpoint::container::Kind;
use crate::checkpoint::id::{Epoch, Index};
use crate::time::BatchId;

/// A slot of the log, over all epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The epoch.
    pub epoch: Epoch,
    /// The slot in its log.
    pub index: Index,
}

/// What an entry says of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// What it reads.
    Plan,
    /// What it comes to: its state and its output are decided.
    Prepare,
    /// That it is done.
    Commit,
    /// That it and all before it are done, of a stream that delivers at least once.
    Checkpoint,
    /// Nothing: the driver lives, or asks whether it has been deposed.
    Noop,
    /// Nothing: the stream was stopped on purpose.
    Stopped,
}

const KINDS: [(EntryKind, Kind); 6] = [
    (EntryKind::Plan, Kind::Plan),
    (EntryKind::Prepare, Kind::Prepare),
    (EntryKind::Commit, Kind::Commit),
    (EntryKind::Checkpoint, Kind::Checkpoint),
    (EntryKind::Noop, Kind::Noop),
    (EntryKind::Stopped, Kind::Stopped),
];

impl EntryKind {
    /// The kind of the object that holds such an entry.
    pub(super) fn container(self) -> Kind {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or(Kind::Noop, |(_, kind)| *kind)
    }

    fn of(container: Kind) -> Option<Self> {
        KINDS.iter().find(|(_, kind)| *kind == container).map(|(kind, _)| *kind)
    }
}

/// One decision about a batch, and what it needs to be read again.
///
/// ```
/// use tidemill::checkpoint::entry::{Entry, EntryKind};
/// use tidemill::time::BatchId;
/// let plan = Entry::plan(BatchId(7), "readings[0] 5..8");
/// let checkpoint = Entry::checkpoint(BatchId(6), "positions", Vec::new()).riding(plan);
/// assert_eq!(checkpoint.kind, EntryKind::Checkpoint);
/// assert_eq!(checkpoint.rider.map(|plan| plan.batch), Some(BatchId(7)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub kind: EntryKind,
    /// The batch.
    pub batch: BatchId,
    /// The PREPARE that a COMMIT completes: several may be open for one batch, one an attempt.
    pub of: Option<Position>,
    /// All chunks that must be there for the entry to be of use. A replica has an entry only once it has these.
    pub names: Vec<ChunkRef>,
    /// What the driver wrote.
    pub payload: Bytes,
    /// The PLAN of a later batch, which falls due with this entry: one slot holds both.
    pub rider: Option<Box<Entry>>,
}

impl Entry {
    /// An entry that names no chunk and completes none.
    pub fn new(kind: EntryKind, batch: BatchId, payload: impl Into<Bytes>) -> Self {
        Self { kind, batch, of: None, names: Vec::new(), payload: payload.into(), rider: None }
    }

    /// What the batch reads, and all else that a repetition must be told: from here on it is the same.
    pub fn plan(batch: BatchId, payload: impl Into<Bytes>) -> Self {
        Self::new(EntryKind::Plan, batch, payload)
    }

    /// What an attempt at the batch came to; `names` are all chunks that rebuild the state after it, and its outbox.
    pub fn prepare(batch: BatchId, payload: impl Into<Bytes>, names: Vec<ChunkRef>) -> Self {
        Self::new(EntryKind::Prepare, batch, payload).naming(names)
    }

    /// That the batch is done, as the attempt whose PREPARE stands at `prepare`.
    pub fn commit(batch: BatchId, prepare: Position, payload: impl Into<Bytes>) -> Self {
        Self::new(EntryKind::Commit, batch, payload).completing(prepare)
    }

    /// That the batch and all before it are done, of a stream that delivers at least once.
    pub fn checkpoint(batch: BatchId, payload: impl Into<Bytes>, names: Vec<ChunkRef>) -> Self {
        Self::new(EntryKind::Checkpoint, batch, payload).naming(names)
    }

    /// Nothing: a sign of life, or the question whether this driver has been deposed.
    pub fn noop() -> Self {
        Self::new(EntryKind::Noop, BatchId::default(), Bytes::new())
    }

    /// That the stream was stopped on purpose.
    pub fn stopped() -> Self {
        Self::new(EntryKind::Stopped, BatchId::default(), Bytes::new())
    }

    /// Adds the chunks that it names.
    #[must_use]
    pub fn naming(mut self, names: Vec<ChunkRef>) -> Self {
        self.names = names;
        self
    }

    /// Says which PREPARE it completes.
    #[must_use]
    pub fn completing(mut self, prepare: Position) -> Self {
        self.of = Some(prepare);
        self
    }

    /// Lets a PLAN ride with it.
    #[must_use]
    pub fn riding(mut self, plan: Self) -> Self {
        self.rider = Some(Box::new(plan));
        self
    }

    /// The chunks that it and its rider name.
    pub fn all_names(&self) -> impl Iterator<Item = &ChunkRef> {
        self.names.iter().chain(self.rider.iter().flat_map(|rider| &rider.names))
    }
}

/// An entry, and the slot that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The slot that it was written to first; a later START carries it along.
    pub at: Position,
    /// The entry.
    pub entry: Entry,
}

impl Coded for Entry {
    fn put_into(&self, out: &mut BytesMut) {
        KINDS
            .iter()
            .zip(0_u8..)
            .filter(|((kind, _), _)| *kind == self.kind)
            .for_each(|(_, byte)| byte.put_into(out));
        self.batch.0.put_into(out);
        self.of.put_into(out);
        self.names.put_into(out);
        self.payload.put_into(out);
        self.rider.as_deref().cloned().put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        let entry = Self::take_entry(from)?;
        let rider = match u8::take_from(from)? {
            0 => None,
            // A rider has no rider: bytes cannot make this call itself for ever.
            1 => Some(Box::new(Self::take_entry(from).filter(|_| u8::take_from(from) == Some(0))?)),
            _ => return None,
        };
        Some(Self { rider, ..entry })
    }
}

impl Entry {
    fn take_entry(from: &mut Bytes) -> Option<Self> {
        let (kind, _) = *KINDS.get(usize::from(u8::take_from(from)?))?;
        let (batch, of) = (BatchId(u64::take_from(from)?), Option::take_from(from)?);
        let (names, payload) = (Vec::take_from(from)?, Bytes::take_from(from)?);
        Some(Self { kind, batch, of, names, payload, rider: None })
    }

    /// Whether an object of this kind may hold it.
    pub(super) fn fits(&self, container: Kind) -> bool {
        EntryKind::of(container) == Some(self.kind)
    }
}

impl Coded for Record {
    fn put_into(&self, out: &mut BytesMut) {
        self.at.put_into(out);
        self.entry.put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        Some(Self { at: Position::take_from(from)?, entry: Entry::take_from(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::codec::{decode, encode};
    use crate::checkpoint::id::ChunkHash;

    fn entry() -> Entry {
        let chunk = ChunkRef { epoch: Epoch(1), hash: ChunkHash::of(b"c"), length: 9 };
        let at = Position { epoch: Epoch(2), index: Index(4) };
        let plan = Entry::new(EntryKind::Plan, BatchId(8), &b"plan"[..]);
        Entry::new(EntryKind::Commit, BatchId(7), &b"commit"[..])
            .naming(vec![chunk])
            .completing(at)
            .riding(plan)
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let written = entry();
        assert!(written.fits(Kind::Commit) && !written.fits(Kind::Plan) && !written.fits(Kind::Seal));
        assert_eq!(decode::<Entry>(encode(&written)), Some(written));
    }

    #[test]
    fn bytes_that_are_cut_off_are_no_entry() {
        let whole = encode(&entry());
        assert!((0..whole.len()).all(|length| decode::<Entry>(whole.slice(..length)).is_none()));
    }

    #[test]
    fn a_rider_has_no_rider() {
        let plan = || Entry::new(EntryKind::Plan, BatchId(8), &b"plan"[..]);
        let nested = entry().riding(plan().riding(plan()));
        assert_eq!(decode::<Entry>(encode(&nested)), None);
    }
}
