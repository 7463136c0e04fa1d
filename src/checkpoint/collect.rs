//! Removing what nobody will ever read again.
//!
//! It deliberately removes nothing on the strength of what a driver believes alone: it may have been deposed long ago. So
//! first the list is drawn up, then an entry is appended, and only once that entry is decided is anything removed: then
//! whoever takes over later adopts at least what this driver knew when it drew up the list. For older epochs that entry is
//! START. On each replica the entry must have arrived, too: so none is ever left with less than it needs by itself.
//!
//! Claims and SEALs stay for ever, and so does everything of the newest epoch's log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::container::Place;
use crate::checkpoint::entry::{Entry, Position};
use crate::checkpoint::id::{Epoch, Incarnation, Index};
use crate::checkpoint::lane::{Core, named};
use crate::checkpoint::log::Log;
use crate::checkpoint::replica::{Key, Replica, ReplicaError};
use crate::checkpoint::rules::Collect;
use crate::checkpoint::slot::{self, Slot};
use crate::checkpoint::state::State;
use crate::error::Result;

impl Log {
    /// Removes the chunks of this epoch that no manifest names any more, but for those in `keep`. Says how many these are;
    /// they go in the background.
    ///
    /// A driver calls it now and then after a COMMIT; it costs one entry where there is something to remove.
    ///
    /// Kept are those that START names, the last three COMMITs with their PREPAREs, every open PLAN and PREPARE, every entry
    /// that is not decided yet, and those that no entry names yet. What an older epoch left behind goes by itself after START.
    pub async fn collect(&self, keep: &[ChunkRef]) -> Result<usize> {
        let core = &self.core;
        let garbage = core.state.look(|state| state.garbage(keep));
        if garbage.is_empty() {
            return Ok(0);
        }
        let proof = match core.common.rules().collect {
            Collect::AfterAppend => self.append(Entry::noop()).await?.index.0,
            Collect::AtOnce => 0,
        };
        let garbage = core.state.change(|state| state.forget(garbage));
        let count = garbage.len();
        let garbage: Arc<[Place]> = garbage.iter().map(ChunkRef::place).collect();
        for (place, incarnation) in core.state.look(|state| state.holders(proof)) {
            let (core, garbage) = (Arc::clone(core), Arc::clone(&garbage));
            let surroundings = Arc::clone(&core.common.surroundings);
            surroundings.spawn(Box::pin(async move {
                // A replica that fails keeps its garbage until the next epoch's collector comes.
                remove(&core, (place, incarnation), garbage.iter().copied()).await.unwrap_or_default();
            }));
        }
        Ok(count)
    }
}

/// Removes objects from a replica, for as long as the log goes on.
async fn remove(
    core: &Core,
    (seat, incarnation): (usize, Incarnation),
    places: impl Iterator<Item = Place>,
) -> std::result::Result<(), ReplicaError> {
    let Some(replica) = core.replicas.get(seat) else { return Ok(()) };
    for place in places {
        if core.state.look(State::must_go_on).is_err() {
            return Ok(());
        }
        replica.delete(&Key::of(incarnation, &place)).await?;
    }
    Ok(())
}

/// Starts the tasks that remove what older epochs left behind, one a replica.
pub(super) fn start(core: &Arc<Core>, keep: &[ChunkRef]) {
    let mut kept = core.state.look(State::kept);
    kept.extend(keep);
    let kept = Arc::new(kept);
    for (place, replica) in core.replicas.iter().enumerate() {
        let (core, kept, replica) = (Arc::clone(core), Arc::clone(&kept), Arc::clone(replica));
        let surroundings = Arc::clone(&core.common.surroundings);
        surroundings.spawn(Box::pin(async move {
            let Some(incarnation) = wait_for_start(&core, place).await else { return };
            let old = Old { core: &core, replica: &*replica, seat: (place, incarnation) };
            // A replica that fails keeps its garbage until the next epoch's collector comes.
            old.collect(&kept).await.unwrap_or_default();
        }));
    }
}

/// Waits until START is decided and is on the replica; tells what the replica is, unless the log has ended before.
async fn wait_for_start(core: &Core, place: usize) -> Option<Incarnation> {
    let is_due = |state: &mut State| {
        if state.must_go_on().is_err() {
            return Some(None);
        }
        let lane = state.lanes().get(place)?;
        let proved = state.decided() > 0 && state.is_at(place, 0);
        let proved = proved || core.common.rules().collect == Collect::AtOnce;
        lane.incarnation.filter(|_| proved).map(Some)
    };
    core.state.until(is_due).await
}

/// What older epochs left on a replica.
struct Old<'a> {
    core: &'a Core,
    replica: &'a dyn Replica,
    seat: (usize, Incarnation),
}

impl Old<'_> {
    async fn collect(&self, kept: &BTreeSet<ChunkRef>) -> std::result::Result<(), ReplicaError> {
        let listed = self.replica.list(&Key::chunks(self.seat.1)).await?;
        let chunks = listed.iter().filter_map(|(key, length)| named(key, *length));
        let hashes: BTreeSet<Place> = kept.iter().map(ChunkRef::place).collect(); // of whatever length
        let garbage =
            chunks.filter(|chunk| chunk.epoch < self.core.epoch && !hashes.contains(&chunk.place()));
        remove(self.core, self.seat, garbage.map(|chunk| chunk.place())).await?;
        for (epoch, slots) in self.old_slots().await? {
            self.collect_log(epoch, slots).await?;
        }
        Ok(())
    }

    async fn old_slots(&self) -> std::result::Result<BTreeMap<Epoch, Vec<Index>>, ReplicaError> {
        let mut epochs: BTreeMap<Epoch, Vec<Index>> = BTreeMap::new();
        for (key, _) in self.replica.list(&Key::logs(self.seat.1)).await? {
            if let Some((_, Place::Slot(epoch, index))) = key.place().filter(|(_, place)| self.is_old(place))
            {
                epochs.entry(epoch).or_default().push(index);
            }
        }
        Ok(epochs)
    }

    fn is_old(&self, place: &Place) -> bool {
        matches!(place, Place::Slot(epoch, _) if *epoch < self.core.epoch)
    }

    /// Removes a log but for the SEAL that ends it, and what may be one: all from the end to the last whole entry.
    async fn collect_log(
        &self,
        epoch: Epoch,
        mut slots: Vec<Index>,
    ) -> std::result::Result<(), ReplicaError> {
        while let Some(index) = slots.last().copied() {
            if self.is_entry(Position { epoch, index }).await? {
                break;
            }
            slots.pop();
        }
        let places = slots.into_iter().map(|index| Position { epoch, index }.place());
        remove(self.core, self.seat, places).await
    }

    async fn is_entry(&self, at: Position) -> std::result::Result<bool, ReplicaError> {
        let found = self.replica.get(&Key::of(self.seat.1, &at.place())).await?;
        let open = |bytes: Bytes| slot::open(&bytes, self.core.job, at, self.core.common.secret());
        Ok(found.is_some_and(|bytes| open(bytes).is_ok_and(|slot| slot != Slot::Seal)))
    }
}
