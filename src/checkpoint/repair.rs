//! Making damaged copies whole again.
//!
//! It deliberately repairs only where it is known what belongs there. Of a chunk, its name says it. Of a slot, only that
//! the replica has acknowledged it: any other that is damaged may be a SEAL, and writing an entry in its place would let
//! a driver go on that a later one has ended. So a repair is always an overwrite with the bytes of a whole copy, never a
//! removal.

use bytes::Bytes;

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::container::Place;
use crate::checkpoint::fetch::{fetch, fetch_chunk};
use crate::checkpoint::id::Incarnation;
use crate::checkpoint::lane::Core;
use crate::checkpoint::log::Log;
use crate::checkpoint::replica::{Key, ReplicaError};
use crate::checkpoint::report::Report;
use crate::checkpoint::slot;
use crate::checkpoint::state::State;
use crate::error::Result;

/// What a scrub came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// How many copies were whole.
    pub whole: u64,
    /// How many were not, and are now.
    pub repaired: u64,
    /// How many could not be read, or not be repaired.
    pub left: u64,
}

impl Log {
    /// Reads every copy of everything that counts, on all replicas that answer, and repairs what is damaged.
    pub async fn scrub(&self) -> Result<Scrubbed> {
        let mut scrubbed = Scrubbed::default();
        let chunks = self.core.state.look(State::kept);
        for chunk in chunks {
            for (place, incarnation) in self.core.state.look(|state| state.having(&chunk)) {
                self.core.state.look(State::must_go_on)?;
                let copy = Copy { core: &self.core, place, incarnation };
                copy.scrub_chunk(&chunk).await.count(&mut scrubbed);
            }
        }
        for index in 0..self.core.state.look(State::decided) {
            for (place, incarnation) in self.core.state.look(|state| state.holders(index)) {
                self.core.state.look(State::must_go_on)?;
                let copy = Copy { core: &self.core, place, incarnation };
                copy.scrub_slot(index).await.count(&mut scrubbed);
            }
        }
        Ok(scrubbed)
    }
}

/// How a copy is.
#[derive(Clone, Copy)]
enum Found {
    Whole,
    Repaired,
    Left,
}

impl Found {
    fn count(self, scrubbed: &mut Scrubbed) {
        let count = match self {
            Self::Whole => &mut scrubbed.whole,
            Self::Repaired => &mut scrubbed.repaired,
            Self::Left => &mut scrubbed.left,
        };
        *count += 1;
    }
}

/// One replica's copy of something.
struct Copy<'a> {
    core: &'a Core,
    place: usize,
    incarnation: Incarnation,
}

impl Copy<'_> {
    async fn scrub_chunk(&self, chunk: &ChunkRef) -> Found {
        let Core { job, common, .. } = self.core;
        let here = self.core.sources(&[(self.place, self.incarnation)]);
        let here = fetch_chunk(&here, chunk, *job, common).await;
        match (here.copy, here.damaged.is_empty()) {
            (Some(_), _) => Found::Whole,
            (None, true) => Found::Left,
            (None, false) => match self.core.fetch_chunk(chunk).await.0.copy {
                Some((bytes, _)) => self.replace(chunk.place(), bytes).await,
                None => Found::Left,
            },
        }
    }

    /// A slot that the replica has acknowledged: it is not a SEAL.
    async fn scrub_slot(&self, index: u64) -> Found {
        let at = self.core.at(index);
        let open = |bytes: &Bytes| slot::open(bytes, self.core.job, at, self.core.common.secret());
        let here = self.core.sources(&[(self.place, self.incarnation)]);
        let here = fetch(&here, at.place(), &self.core.common, open).await;
        if here.copy.is_some() || here.damaged.is_empty() {
            return if here.copy.is_some() { Found::Whole } else { Found::Left };
        }
        let holders = self.core.state.look(|state| state.holders(index));
        match fetch(&self.core.sources(&holders), at.place(), &self.core.common, open).await.copy {
            Some((bytes, _)) => self.replace(at.place(), bytes).await,
            None => Found::Left,
        }
    }

    async fn replace(&self, place: Place, bytes: Bytes) -> Found {
        match self.core.overwrite((self.place, self.incarnation), place, bytes).await {
            Ok(()) => Found::Repaired,
            Err(_) => Found::Left, // whoever needs the replica finds that it fails
        }
    }
}

impl Core {
    /// Puts a whole copy in the place of damaged ones, as far as their replicas take it.
    pub(super) async fn repair_chunk(&self, chunk: &ChunkRef, bytes: &Bytes, damaged: &[usize]) {
        let all = self.state.look(|state| state.sources(chunk));
        for (place, incarnation) in all.into_iter().filter(|(place, _)| damaged.contains(place)) {
            if self.state.look(|state| state.is_gone(chunk)) {
                return;
            }
            if self.overwrite((place, incarnation), chunk.place(), bytes.clone()).await.is_err() {
                self.state.change(|state| state.chunk_lost(place, chunk));
            }
        }
    }

    async fn overwrite(
        &self,
        (seat, incarnation): (usize, Incarnation),
        place: Place,
        bytes: Bytes,
    ) -> std::result::Result<(), ReplicaError> {
        let Some(replica) = self.replicas.get(seat) else { return Ok(()) };
        replica.overwrite(&Key::of(incarnation, &place), bytes).await?;
        self.common.report(Report::Repaired { url: replica.url().to_owned(), place });
        Ok(())
    }
}
