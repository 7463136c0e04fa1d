//! One object of a log: START, an entry, or the SEAL that ends it.
//!
//! It deliberately does no I/O. A slot is believed only if its container is whole, stands where it says, and holds what
//! its kind promises.

use bytes::Bytes;

use crate::checkpoint::codec::{decode, encode};
use crate::checkpoint::container::{self, Damaged, Expected, Header, Kind, Place};
use crate::checkpoint::entry::{Entry, Position};
use crate::checkpoint::id::{DriverId, JobId};
use crate::checkpoint::secret::CheckpointKey;
use crate::checkpoint::start::Start;

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Start(Box<Start>),
    Entry(Entry),
    /// Nothing may follow; put there by the driver of the epoch that it names.
    Seal,
}

impl Position {
    pub(super) fn place(self) -> Place {
        Place::Slot(self.epoch, self.index)
    }
}

/// Whose slots these are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealer<'a> {
    pub(super) job: JobId,
    pub(super) writer: DriverId,
    pub(super) secret: Option<&'a CheckpointKey>,
}

impl Sealer<'_> {
    /// The object that holds `slot` at `at`.
    pub(super) fn seal(&self, at: Position, slot: &Slot) -> Bytes {
        match slot {
            Slot::Start(start) => self.object(at, Kind::Start, &encode(&**start)),
            Slot::Entry(entry) => self.seal_entry(at, entry),
            Slot::Seal => self.object(at, Kind::Seal, &Bytes::new()),
        }
    }

    /// The object that holds `entry` at `at`.
    pub(super) fn seal_entry(&self, at: Position, entry: &Entry) -> Bytes {
        self.object(at, entry.kind.container(), &encode(entry))
    }

    fn object(&self, Position { epoch, index }: Position, kind: Kind, payload: &Bytes) -> Bytes {
        let header = Header { kind, job: self.job, epoch, index, writer: self.writer };
        container::seal(&header, payload, self.secret)
    }
}

/// What the object at `at` holds.
pub(super) fn open(
    bytes: &Bytes,
    job: JobId,
    at: Position,
    secret: Option<&CheckpointKey>,
) -> Result<Slot, Damaged> {
    let object = container::open(bytes, &Expected { job, place: at.place() }, secret)?;
    let slot = match object.header.kind {
        Kind::Seal => Some(Slot::Seal),
        Kind::Start => decode(object.payload).map(|start| Slot::Start(Box::new(start))),
        kind => decode::<Entry>(object.payload).filter(|entry| entry.fits(kind)).map(Slot::Entry),
    };
    // START comes first and nowhere else, but for a log that was sealed before it began.
    let fits = |slot: &Slot| *slot == Slot::Seal || matches!(slot, Slot::Start(_)) == (at.index.0 == 0);
    slot.filter(fits).ok_or(Damaged::Field("payload"))
}
