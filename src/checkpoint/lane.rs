//! The tasks that bring one replica up to date: one for its slots, in order, and some for chunks.
//!
//! It deliberately decides nothing: `State` says what comes next, and hears what came of it. A replica that fails is asked
//! again, after longer and longer waits, and first of all what is on it: it may have been exchanged meanwhile.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::backlog::Held;
use crate::checkpoint::chunk::{self, ChunkRef};
use crate::checkpoint::claim;
use crate::checkpoint::container::{Damaged, Place};
use crate::checkpoint::entry::Position;
use crate::checkpoint::failure;
use crate::checkpoint::fetch::{Fetched, Source, fetch, fetch_chunk};
use crate::checkpoint::id::{DriverId, Epoch, Incarnation, Index, JobId};
use crate::checkpoint::panel::{Found, Named, identify, must_be};
use crate::checkpoint::replica::{Key, PutOrEqual, Replica, ReplicaError, put_or_equal};
use crate::checkpoint::report::Report;
use crate::checkpoint::settings::Common;
use crate::checkpoint::shared::Shared;
use crate::checkpoint::slot::{self, Sealer, Slot};
use crate::checkpoint::state::{ChunkStep, State, Step};
use crate::error::Error;

/// A running log, as its tasks and its handle share it.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) common: Common,
    pub(super) job: JobId,
    pub(super) epoch: Epoch,
    pub(super) writer: DriverId,
    pub(super) claim: Bytes,
    /// In the order of the lanes.
    pub(super) replicas: Vec<Arc<dyn Replica>>,
    pub(super) state: Shared<State>,
}

impl Core {
    pub(super) fn sealer(&self) -> Sealer<'_> {
        Sealer { job: self.job, writer: self.writer, secret: self.common.secret() }
    }

    pub(super) fn at(&self, index: u64) -> Position {
        Position { epoch: self.epoch, index: Index(index) }
    }

    pub(super) fn sources(&self, places: &[(usize, Incarnation)]) -> Vec<Source<'_>> {
        let source = |(place, incarnation): &(usize, Incarnation)| {
            let replica = self.replicas.get(*place)?;
            Some(Source { place: *place, replica: &**replica, incarnation: *incarnation })
        };
        places.iter().filter_map(source).collect()
    }

    /// Tells whether the log has come to a halt, or goes on.
    pub(super) fn report_halt(&self) {
        if let Some(report) = self.state.quietly(State::pause_or_resume) {
            self.common.report(report);
        }
    }
}

/// Starts the tasks of all replicas.
pub(super) fn start(core: &Arc<Core>) {
    for (place, replica) in core.replicas.iter().enumerate() {
        let lane =
            || Lane { core: Arc::clone(core), place, replica: Arc::clone(replica), file: Bytes::new() };
        core.common.surroundings.spawn(Box::pin(lane().bring_slots()));
        for _ in 0..core.common.settings.uploads {
            core.common.surroundings.spawn(Box::pin(lane().bring_chunks()));
        }
    }
}

/// What a step came to.
enum Outcome {
    Done,
    Failed(ReplicaError),
    /// No replica has what is to be put here, for now.
    NotYet,
}

impl From<ReplicaError> for Outcome {
    fn from(error: ReplicaError) -> Self {
        Self::Failed(error)
    }
}

/// One task of one replica.
struct Lane {
    core: Arc<Core>,
    place: usize,
    replica: Arc<dyn Replica>,
    /// The `job.json` that says that it is what it was.
    file: Bytes,
}

impl Lane {
    async fn bring_slots(mut self) {
        let mut waits = self.core.common.back_off();
        loop {
            let step = self.core.state.until(|state| state.next_step(self.place)).await;
            let slot = if let Step::Put(_, index, _) = &step { Some(*index) } else { None };
            if matches!(step, Step::Identify) && self.has_failed() {
                waits.wait(&*self.core.common.surroundings).await;
            }
            let outcome = match step {
                Step::End => return,
                Step::Identify => self.identify().await,
                Step::Claim(incarnation) => self.claim(incarnation).await,
                Step::Survey(incarnation, epochs) => self.survey(incarnation, epochs).await,
                Step::Recall(index) => self.recall(index).await,
                Step::Put(incarnation, index, bytes) => self.put(incarnation, index, bytes).await,
            };
            match outcome {
                Outcome::Failed(error) => self.failed(&error, slot),
                Outcome::NotYet => waits.wait(&*self.core.common.surroundings).await,
                Outcome::Done if slot.is_some() => {
                    waits.reset();
                    self.worked();
                }
                Outcome::Done => {}
            }
        }
    }

    async fn bring_chunks(self) {
        let mut waits = self.core.common.back_off();
        loop {
            let step = self.core.state.until(|state| state.next_chunk(self.place)).await;
            let ChunkStep::Put(incarnation, chunk, bytes) = step else { return };
            match self.put_chunk(incarnation, &chunk, bytes).await {
                Outcome::Done => {
                    waits.reset();
                    self.core.state.change(|state| state.chunk_put(self.place, &chunk));
                    self.worked();
                }
                Outcome::Failed(error) => {
                    self.core.state.change(|state| state.chunk_back(self.place, chunk));
                    self.failed(&error, None);
                }
                Outcome::NotYet => {
                    waits.wait(&*self.core.common.surroundings).await;
                    self.core.state.change(|state| state.chunk_back(self.place, chunk));
                }
            }
        }
    }

    fn url(&self) -> String {
        self.replica.url().to_owned()
    }

    // ---- steps

    /// A replica that failed may have come back as another.
    async fn identify(&self) -> Outcome {
        let found = match identify(&*self.replica).await {
            Ok(found) => found,
            Err(error) => return error.into(),
        };
        let (incarnation, returns) = match found {
            Found::Job(Named { file, .. }) if file.job == self.core.job => (Some(file.incarnation), true),
            Found::Blank | Found::Orphaned => (None, true),
            Found::Job(_) | Found::Damaged | Found::Unknown => (None, false),
        };
        if !self.core.state.change(|state| state.identified(self.place, incarnation, returns)) {
            self.core.common.report(Report::Emptied { url: self.url() });
        }
        self.core.report_halt();
        Outcome::Done
    }

    async fn claim(&self, incarnation: Incarnation) -> Outcome {
        let Core { epoch, claim, .. } = &*self.core;
        match claim::put(&*self.replica, incarnation, *epoch, claim.clone()).await {
            // Whoever else's it is could not claim a majority; it stands here before anything of this epoch all the same.
            Ok(_) => self.core.state.change(|state| state.claimed(self.place)),
            Err(error) => return error.into(),
        }
        Outcome::Done
    }

    async fn survey(&self, incarnation: Incarnation, epochs: BTreeSet<Epoch>) -> Outcome {
        let mut found = HashSet::new();
        for epoch in epochs {
            match self.replica.list(&Key::chunks_of(incarnation, epoch)).await {
                Ok(listed) => found.extend(listed.iter().filter_map(|(key, length)| named(key, *length))),
                Err(error) => return error.into(),
            }
        }
        self.core.state.change(|state| state.surveyed(self.place, &found));
        Outcome::Done
    }

    /// Reads a slot again that is no longer at hand.
    async fn recall(&self, index: u64) -> Outcome {
        let at = self.core.at(index);
        let holders = self.core.state.look(|state| state.holders(index));
        let open = |bytes: &Bytes| slot::open(bytes, self.core.job, at, self.core.common.secret());
        let fetched = fetch(&self.core.sources(&holders), at.place(), &self.core.common, open).await;
        let Some((bytes, slot)) = fetched.copy else { return Outcome::NotYet };
        let names = match slot {
            Slot::Entry(entry) => entry.all_names().copied().collect(),
            Slot::Start(start) => start.names().into_iter().collect(),
            Slot::Seal => return Outcome::NotYet,
        };
        self.core.state.change(|state| state.recalled(self.place, index, Held { bytes, names }));
        Outcome::Done
    }

    async fn put(&mut self, incarnation: Incarnation, index: u64, bytes: Bytes) -> Outcome {
        let at = self.core.at(index);
        let key = Key::of(incarnation, &at.place());
        match put_or_equal(&*self.replica, &key, bytes).await {
            Ok(PutOrEqual::Stored) => {}
            Ok(PutOrEqual::Other(bytes)) => {
                self.met(at, &bytes);
                return Outcome::Done;
            }
            Err(error) => return error.into(),
        }
        if let Err(error) = self.must_be(incarnation).await {
            return error.into();
        }
        self.core.state.change(|state| state.put(self.place, index));
        Outcome::Done
    }

    /// Asked after a slot was put, and before it counts.
    async fn must_be(&mut self, incarnation: Incarnation) -> Result<(), ReplicaError> {
        self.file = must_be(&*self.replica, incarnation, &self.file).await?;
        Ok(())
    }

    /// Something else stands where this log's next slot was to be.
    fn met(&self, at: Position, bytes: &Bytes) {
        let url = self.url();
        match slot::open(bytes, self.core.job, at, self.core.common.secret()) {
            Ok(Slot::Seal) => self.end(failure::fenced(at.epoch, &format!("its log is sealed on {url}"))),
            Ok(_) => {
                self.end(failure::fenced(at.epoch, &format!("another driver writes to its log on {url}")));
            }
            Err(why) if why.is_unreadable_here() => {
                self.end(failure::unreadable(
                    &url,
                    &format!("slot {} of epoch {}", at.index, at.epoch),
                    &why,
                ));
            }
            Err(why) => self.unknown(at, &why),
        }
    }

    /// It may be our entry, and it may be a SEAL: so it is neither counted nor replaced.
    fn unknown(&self, at: Position, why: &Damaged) {
        let report = Report::Damaged { url: self.url(), place: at.place(), why: why.to_string() };
        self.core.common.report(report);
        self.core.state.change(|state| state.park(self.place, true));
        self.core.report_halt();
    }

    /// Puts a chunk, in the place of a damaged one too: what belongs there, its name says.
    async fn put_chunk(&self, incarnation: Incarnation, chunk: &ChunkRef, bytes: Option<Bytes>) -> Outcome {
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => match self.find(chunk).await {
                Some(bytes) => bytes,
                None => return Outcome::NotYet,
            },
        };
        let key = Key::of(incarnation, &chunk.place());
        let found = match put_or_equal(&*self.replica, &key, bytes.clone()).await {
            Ok(PutOrEqual::Stored) => return Outcome::Done,
            Ok(PutOrEqual::Other(found)) => found,
            Err(error) => return error.into(),
        };
        if chunk::open(&found, self.core.job, chunk, self.core.common.secret()).is_ok() {
            return Outcome::Done;
        }
        match self.replica.overwrite(&key, bytes).await {
            Ok(()) => {
                self.core.common.report(Report::Repaired { url: self.url(), place: chunk.place() });
                Outcome::Done
            }
            Err(error) => error.into(),
        }
    }

    /// A whole copy of a chunk, from another replica. Where nobody has one, and nobody is left to ask, the log ends.
    async fn find(&self, chunk: &ChunkRef) -> Option<Bytes> {
        let (fetched, all) = self.core.fetch_chunk(chunk).await;
        let is_hopeless = |state: &State| !state.is_gone(chunk) && !state.anyone_missing();
        if fetched.is_nowhere() && all && self.core.state.look(is_hopeless) {
            let error = self.core.no_chunk(chunk).await;
            self.core.state.change(|state| {
                if let Some(error) = error.filter(|_| is_hopeless(state)) {
                    state.end(error);
                }
            });
        }
        fetched.copy.map(|(bytes, _)| bytes)
    }

    // ---- how it does

    fn has_failed(&self) -> bool {
        self.core.state.look(|state| state.lanes().get(self.place).is_some_and(|lane| lane.failures > 0))
    }

    fn failed(&self, error: &ReplicaError, slot: Option<u64>) {
        let first = !self.has_failed();
        self.core.state.change(|state| state.failed(self.place, slot));
        if first {
            self.core.common.report(Report::Failing { url: self.url(), error: error.to_string() });
        }
        self.core.report_halt();
    }

    fn worked(&self) {
        if self.core.state.quietly(|state| state.worked(self.place)) {
            self.core.common.report(Report::Back { url: self.url() });
        }
        self.core.report_halt();
    }

    fn end(&self, error: Error) {
        self.core.state.change(|state| state.end(error));
    }
}

impl Core {
    /// Looks for a chunk on all replicas that answer; says whether none is left that might have it.
    pub(super) async fn fetch_chunk(&self, chunk: &ChunkRef) -> (Fetched<Bytes>, bool) {
        // Both at once: one that is missing now may be back, and not have been asked, when the others have answered.
        let (places, all) = self.state.look(|state| (state.sources(chunk), !state.anyone_missing()));
        (fetch_chunk(&self.sources(&places), chunk, self.job, &self.common).await, all)
    }

    /// A chunk is nowhere: it is lost, or this driver has been deposed. None where that cannot be told now.
    pub(super) async fn no_chunk(&self, chunk: &ChunkRef) -> Option<Error> {
        let places = self.state.look(|state| state.sources(chunk));
        claim::deposed_or(failure::no_chunk(chunk), self.epoch, &self.sources(&places)).await
    }
}

/// The chunk that a listing names.
pub(super) fn named(key: &Key, length: u64) -> Option<ChunkRef> {
    match key.place() {
        Some((_, Place::Chunk(epoch, hash))) => Some(ChunkRef { epoch, hash, length }),
        _ => None,
    }
}
