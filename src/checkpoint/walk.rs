//! The way down: every older epoch's log is sealed, from the newest to the first that has a START.
//!
//! It deliberately judges nothing: it puts SEALs, and notes how long each replica's log of each epoch is. Because logs have
//! no gaps, what a replica has not acknowledged when its log is sealed it never will; so once F voters are sealed, nothing
//! more can be decided in that epoch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::checkpoint::container::{Damaged, Place};
use crate::checkpoint::entry::Position;
use crate::checkpoint::id::{DriverId, Epoch, Incarnation, Index, JobId};
use crate::checkpoint::panel::Seat;
use crate::checkpoint::replica::{Key, PutOrEqual, Replica, ReplicaError, put_or_equal};
use crate::checkpoint::rules::{Gaps, Rules};
use crate::checkpoint::secret::CheckpointKey;
use crate::checkpoint::slot::{self, Sealer, Slot};

/// How many slots a listing may have missed.
const MISSED: usize = 64;

/// One replica's log of one epoch, once nothing can be added to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// How many slots come before the SEAL. One of them may be damaged, and the last of them then a SEAL itself.
    pub(super) length: u64,
    /// Slots that are not there, though later ones are: a collector's work, or a disk's.
    pub(super) holes: bool,
}

/// Why a log was not sealed.
#[derive(Debug)]
pub(super) enum Unsealed {
    /// The replica failed.
    Replica(ReplicaError),
    /// There is an object that this reader has no way to judge.
    Unreadable(Position, Damaged),
}

impl From<ReplicaError> for Unsealed {
    fn from(error: ReplicaError) -> Self {
        Self::Replica(error)
    }
}

/// A log of which the end is looked for.
pub(super) struct Open<'a> {
    pub(super) replica: &'a dyn Replica,
    pub(super) incarnation: Incarnation,
    pub(super) sealer: Sealer<'a>,
}

impl Open<'_> {
    /// Puts SEAL at the first free slot of the log of `epoch`, unless one ends it already.
    ///
    /// A damaged slot may be an entry or a SEAL. SEAL comes behind it either way: whatever it was, nothing can be added.
    pub(super) async fn seal(&self, epoch: Epoch) -> Result<Sealed, Unsealed> {
        let slots = self.slots(epoch).await?;
        let Some(last) = slots.last().copied() else { return self.seal_from(epoch, 0, &slots).await };
        let at = Position { epoch, index: Index(last) };
        match self.look(at).await? {
            Look::Seal => Ok(sealed(self.first_seal(at).await?, &slots)),
            Look::Other => self.seal_from(epoch, last + 1, &slots).await,
        }
    }

    /// The first of the SEALs that end the log: there are two where the first could not be read for a while.
    async fn first_seal(&self, mut at: Position) -> Result<u64, Unsealed> {
        while let Some(before) = at.index.0.checked_sub(1).map(|index| Position { index: Index(index), ..at })
        {
            if self.look(before).await? == Look::Other {
                break;
            }
            at = before;
        }
        Ok(at.index.0)
    }

    async fn seal_from(&self, epoch: Epoch, first: u64, slots: &BTreeSet<u64>) -> Result<Sealed, Unsealed> {
        let mut index = first;
        loop {
            let at = Position { epoch, index: Index(index) };
            let bytes = self.sealer.seal(at, &Slot::Seal);
            match put_or_equal(self.replica, &self.key(at), bytes).await? {
                PutOrEqual::Stored => break,
                PutOrEqual::Other(bytes) if self.judge(at, &bytes)? == Look::Seal => break,
                PutOrEqual::Other(_) => index += 1, // the old driver was faster
            }
        }
        let slots = slots.iter().copied().chain(first..index).collect();
        Ok(sealed(index, &slots))
    }

    async fn slots(&self, epoch: Epoch) -> Result<BTreeSet<u64>, ReplicaError> {
        let listed = self.replica.list(&Key::log(self.incarnation, epoch)).await?;
        let index = |key: &Key| match key.place() {
            Some((_, Place::Slot(_, index))) => Some(index.0),
            _ => None,
        };
        let mut slots: BTreeSet<u64> = listed.iter().filter_map(|(key, _)| index(key)).collect();
        self.fill(epoch, &mut slots).await?;
        Ok(slots)
    }

    /// Looks for the slots that a listing missed: it may leave out what is put while it is made. Only the last can be such,
    /// so a log of which much is gone is not looked through.
    async fn fill(&self, epoch: Epoch, slots: &mut BTreeSet<u64>) -> Result<(), ReplicaError> {
        let Some(last) = slots.last().copied() else { return Ok(()) };
        let missing: Vec<u64> = (0..last).rev().filter(|index| !slots.contains(index)).take(MISSED).collect();
        for index in missing {
            if self.replica.get(&self.key(Position { epoch, index: Index(index) })).await?.is_some() {
                slots.insert(index);
            }
        }
        Ok(())
    }

    async fn look(&self, at: Position) -> Result<Look, Unsealed> {
        match self.replica.get(&self.key(at)).await? {
            Some(bytes) => self.judge(at, &bytes),
            None => Ok(Look::Other), // a collector was faster; who finds the hole knows what it means
        }
    }

    fn judge(&self, at: Position, bytes: &Bytes) -> Result<Look, Unsealed> {
        match slot::open(bytes, self.sealer.job, at, self.sealer.secret) {
            Ok(Slot::Seal) => Ok(Look::Seal),
            Err(why) if why.is_unreadable_here() => Err(Unsealed::Unreadable(at, why)),
            Ok(_) | Err(_) => Ok(Look::Other),
        }
    }

    fn key(&self, at: Position) -> Key {
        Key::of(self.incarnation, &at.place())
    }
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Seal,
    /// An entry, or something damaged.
    Other,
}

fn sealed(length: u64, slots: &BTreeSet<u64>) -> Sealed {
    Sealed { length, holes: slots.range(..length).count() as u64 != length }
}

/// The logs of one epoch, by the place of the replica.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) epoch: Epoch,
    /// Those that are sealed.
    pub(super) logs: BTreeMap<usize, Sealed>,
    /// Those of which it is not known what they hold: corrupt means unknown, never absent.
    pub(super) unknown: BTreeSet<usize>,
}

impl Scan {
    pub(super) fn new(epoch: Epoch, logs: BTreeMap<usize, Sealed>, rules: Rules) -> Self {
        let is_unknown = |log: &Sealed| log.holes && rules.gaps == Gaps::Never;
        let unknown = logs.iter().filter(|(_, log)| is_unknown(log)).map(|(place, _)| *place).collect();
        Self { epoch, logs, unknown }
    }

    /// Whether it is known what the replica has of this epoch, for good.
    pub(super) fn knows(&self, place: usize) -> bool {
        self.logs.contains_key(&place) && !self.unknown.contains(&place)
    }

    /// The replicas that are known to have the slot, or something in its place.
    pub(super) fn holders(&self, index: u64) -> impl Iterator<Item = usize> {
        let holds = move |(place, log): (&usize, &Sealed)| {
            (self.knows(*place) && log.length > index).then_some(*place)
        };
        self.logs.iter().filter_map(holds)
    }

    /// The length of the longest log of those that are known.
    pub(super) fn length(&self) -> u64 {
        self.logs
            .iter()
            .filter(|(place, _)| self.knows(**place))
            .map(|(_, log)| log.length)
            .max()
            .unwrap_or(0)
    }

    /// Takes the holders of a slot that nobody has whole out of those that are known.
    pub(super) fn give_up(&mut self, index: u64) {
        let holders: Vec<usize> = self.holders(index).collect();
        self.unknown.extend(holders);
    }
}

/// The name of the seat's log, for sealing it.
pub(super) fn open_log<'a>(
    seat: &'a Seat,
    (job, writer): (JobId, DriverId),
    secret: Option<&'a CheckpointKey>,
) -> Option<Open<'a>> {
    let incarnation = seat.incarnation()?;
    Some(Open { replica: &*seat.replica, incarnation, sealer: Sealer { job, writer, secret } })
}
