//! What a running log knows: its slots, how far each replica has come with them, and what is decided.
//!
//! It deliberately does no I/O: it is asked what to do next on a replica, and told what came of it. All rules of an
//! append are here: a replica gets a slot only after all before it and all chunks that it names; a slot is decided once W
//! voters have it; nothing comes after START before START is decided.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::backlog::{Backlog, Held, Places};
use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::entry::Record;
use crate::checkpoint::failure;
use crate::checkpoint::id::{Epoch, Incarnation, Index};
use crate::checkpoint::ledger::Ledger;
use crate::checkpoint::progress::{Health, Progress};
use crate::checkpoint::quorum::Voters;
use crate::checkpoint::report::Report;
use crate::checkpoint::rules::Rules;
use crate::checkpoint::standing::Standing;
use crate::error::{Error, ErrorKind, Result};

/// A log of so many slots is long: every start lists them, and each takes some memory of the driver.
const LONG: u64 = 30_000;

/// What is to be done on a replica next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Nothing ever again.
    End,
    /// Find out what is on it.
    Identify,
    /// Put the claim, before anything else of the epoch.
    Claim(Incarnation),
    /// Find out which chunks of these epochs are on it.
    Survey(Incarnation, BTreeSet<Epoch>),
    /// Read the slot again from another replica.
    Recall(u64),
    /// Put the slot.
    Put(Incarnation, u64, Bytes),
}

/// What is to be done about chunks on a replica next.
#[derive(Clone, Debug)]
pub(super) enum ChunkStep {
    /// Nothing ever again.
    End,
    /// Put the chunk; its object is to be read elsewhere where it is not at hand.
    Put(Incarnation, ChunkRef, Option<Bytes>),
}

/// What a running log knows.
#[derive(Debug)]
pub(super) struct State {
    epoch: Epoch,
    rules: Rules,
    /// On whom START is decided; the first of these are the voters, on whom all else is.
    deciders: Vec<Voters>,
    lanes: Vec<Progress>,
    backlog: Backlog,
    ledger: Ledger,
    chunks_made: u64,
    end: Option<Error>,
    closed: bool,
    paused: bool,
}

impl State {
    pub(super) fn new(
        epoch: Epoch,
        (rules, backlog): (Rules, u64),
        deciders: Vec<Voters>,
        lanes: Vec<Progress>,
        (start, standing): (Held, Standing),
    ) -> Self {
        let ledger = Ledger::new(standing, start.names.iter().copied().collect());
        let backlog = Backlog::new(backlog, start);
        Self {
            epoch,
            rules,
            deciders,
            lanes,
            backlog,
            ledger,
            chunks_made: 0,
            end: None,
            closed: false,
            paused: false,
        }
    }

    // ---- what others ask

    /// The error that ended the log, or that it was closed.
    pub(super) fn must_go_on(&self) -> Result<()> {
        match &self.end {
            Some(error) => Err(error.clone()),
            None if self.closed => Err(failure::closed(self.epoch)),
            None => Ok(()),
        }
    }

    /// Whether the slot is decided, or will never be.
    pub(super) fn outcome(&self, index: u64) -> Option<Result<()>> {
        self.once(self.ledger.decided() > index)
    }

    /// Whether every voter that works has all slots.
    pub(super) fn caught_up(&self) -> Option<Result<()>> {
        let all = self.backlog.slots();
        self.once(self.voting(Health::Works).all(|lane| lane.next() == all))
    }

    /// Whether W voters have the chunk, or never will.
    pub(super) fn chunk_outcome(&self, chunk: &ChunkRef) -> Option<Result<()>> {
        self.once(self.is_safe(self.backlog.places(chunk).unwrap_or_default()))
    }

    /// What is done, or an error where it will never be.
    fn once(&self, done: bool) -> Option<Result<()>> {
        match self.must_go_on() {
            Err(error) => Some(Err(error)),
            Ok(()) => done.then_some(Ok(())),
        }
    }

    fn voting(&self, health: Health) -> impl Iterator<Item = &Progress> {
        let set = self.deciders.first();
        let votes = move |lane: &&Progress| set.is_some_and(|voters| lane.votes(voters));
        self.lanes.iter().filter(votes).filter(move |lane| lane.health == health)
    }

    /// Whether W voters are at these places.
    fn is_safe(&self, on: Places) -> bool {
        self.deciders.first().is_some_and(|voters| self.is_enough(voters, |place, _| on.contains(place)))
    }

    fn is_enough(&self, voters: &Voters, has: impl Fn(usize, &Progress) -> bool) -> bool {
        count(&self.lanes, voters, has) >= self.rules.write.of(voters.write())
    }

    pub(super) fn lanes(&self) -> &[Progress] {
        &self.lanes
    }

    /// The places of replicas that may have the chunk, the likeliest first, each with what is on it.
    pub(super) fn sources(&self, chunk: &ChunkRef) -> Vec<(usize, Incarnation)> {
        let on = self.backlog.places(chunk);
        let mut sources = self.readable();
        sources.sort_by_key(|(place, _)| on.is_none_or(|on| !on.contains(*place)));
        sources
    }

    /// The places of replicas that are known to have the chunk.
    pub(super) fn having(&self, chunk: &ChunkRef) -> Vec<(usize, Incarnation)> {
        let on = self.backlog.places(chunk).unwrap_or_default();
        self.readable().into_iter().filter(|(place, _)| on.contains(*place)).collect()
    }

    /// The places of replicas that have the slot.
    pub(super) fn holders(&self, index: u64) -> Vec<(usize, Incarnation)> {
        let has = |place: &usize| self.lanes.get(*place).is_some_and(|lane| lane.has(index));
        self.readable().into_iter().filter(|(place, _)| has(place)).collect()
    }

    fn readable(&self) -> Vec<(usize, Incarnation)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(place, lane)| Some((place, lane.incarnation?))).collect()
    }

    /// Whether any replica that may have something does not answer.
    pub(super) fn anyone_missing(&self) -> bool {
        self.lanes.iter().any(Progress::is_missing)
    }

    /// Whether a replica has this slot and so counts as one that is up to date with it.
    pub(super) fn is_at(&self, place: usize, index: u64) -> bool {
        self.lanes.get(place).is_some_and(|lane| lane.has(index))
    }

    /// How many slots are decided.
    pub(super) fn decided(&self) -> u64 {
        self.ledger.decided()
    }

    /// The URLs of replicas that can take no more entries of this epoch, and could of the next.
    pub(super) fn parked(&self) -> Vec<String> {
        let parked = self.lanes.iter().filter(|lane| lane.health == Health::Parked);
        parked.map(|lane| lane.url.clone()).collect()
    }

    /// Whether an epoch of its own would take in again a replica that gets no more of this one, or be shorter.
    pub(super) fn wants_roll(&self) -> bool {
        self.backlog.slots() >= LONG || self.lanes.iter().any(Progress::returns)
    }

    // ---- appending

    /// Takes up the entry in the next slot; the object is made for that slot.
    pub(super) fn append(&mut self, make: impl FnOnce(Index) -> (Record, Bytes)) -> Result<Index> {
        self.must_go_on()?;
        let index = Index(self.backlog.slots());
        let (record, bytes) = make(index);
        self.check(&record)?;
        let names: Arc<[ChunkRef]> = record.entry.all_names().copied().collect();
        self.ledger.append(record);
        self.backlog.push(Held { bytes, names });
        Ok(index)
    }

    /// What an entry refers to must be there.
    fn check(&self, record: &Record) -> Result<()> {
        if let Some(chunk) = record.entry.all_names().find(|chunk| !self.backlog.knows(chunk)) {
            return Err(Error::internal(format!("an entry names chunk {}, which is not there", chunk.hash)));
        }
        match record.entry.of.filter(|of| !self.ledger.is_open_prepare(*of)) {
            None => Ok(()),
            Some(of) => Err(Error::internal(format!("a COMMIT completes {of:?}, which is no open PREPARE"))),
        }
    }

    /// The number of the next chunk, which no other chunk of the epoch has.
    pub(super) fn next_chunk_number(&mut self) -> u64 {
        self.chunks_made += 1;
        self.chunks_made
    }

    /// Takes up a chunk that is on no replica yet.
    pub(super) fn add_chunk(&mut self, chunk: ChunkRef, bytes: Bytes) -> Result<()> {
        self.must_go_on()?;
        self.ledger.will_name(chunk);
        self.backlog.add_chunk(chunk, bytes);
        self.lanes.iter_mut().filter(|lane| lane.is_ready()).for_each(|lane| lane.add_chunks([chunk]));
        Ok(())
    }

    // ---- one replica's next step

    pub(super) fn next_step(&mut self, place: usize) -> Option<Step> {
        if self.must_go_on().is_err() {
            return Some(Step::End);
        }
        let lane = self.lanes.get(place).filter(|lane| lane.health != Health::Parked)?;
        let Some(incarnation) = lane.incarnation else { return Some(Step::Identify) };
        if !lane.claimed {
            return Some(Step::Claim(incarnation));
        }
        if !lane.surveyed {
            let epochs = self.ledger.start_names().iter().map(|chunk| chunk.epoch).collect();
            return Some(Step::Survey(incarnation, epochs));
        }
        let index = lane.next();
        self.is_due(place, index).then(|| self.slot_step(place, incarnation, index))?
    }

    /// START goes to all who decide on it; what comes after it to the voters, once START is decided.
    fn is_due(&self, place: usize, index: u64) -> bool {
        let votes = |voters: &Voters| self.lanes.get(place).is_some_and(|lane| lane.votes(voters));
        index < self.backlog.slots()
            && match index {
                0 => self.deciders.iter().any(votes),
                _ => self.decided() > 0 && self.deciders.first().is_some_and(votes),
            }
    }

    fn slot_step(&mut self, place: usize, incarnation: Incarnation, index: u64) -> Option<Step> {
        let Self { lanes, backlog, .. } = self;
        let lane = lanes.get_mut(place)?;
        let Some(slot) = backlog.slot(index).cloned().or_else(|| lane.recalled(index)) else {
            return Some(Step::Recall(index));
        };
        if !lane.is_prepared(index) {
            let on = |chunk: &&ChunkRef| backlog.places(chunk).is_some_and(|on| on.contains(place));
            let missing = slot.names.iter().filter(|chunk| !backlog.is_gone(chunk) && !on(chunk));
            lane.prepare(index, missing.copied().collect());
        }
        lane.has_chunks().then_some(Step::Put(incarnation, index, slot.bytes))
    }

    pub(super) fn next_chunk(&mut self, place: usize) -> Option<ChunkStep> {
        if self.must_go_on().is_err() {
            return Some(ChunkStep::End);
        }
        let Self { lanes, backlog, .. } = self;
        let lane = lanes.get_mut(place).filter(|lane| lane.is_ready() && lane.surveyed)?;
        let incarnation = lane.incarnation?;
        let chunk = lane.next_chunk(|chunk| backlog.is_wanted_at(place, chunk))?;
        Some(ChunkStep::Put(incarnation, chunk, backlog.chunk(&chunk)))
    }

    // ---- what came of it

    /// The replica turned out to be this; true where it is what it was, and a voter. If not, `returns` says whether the next
    /// epoch may take it in again.
    pub(super) fn identified(&mut self, place: usize, found: Option<Incarnation>, returns: bool) -> bool {
        let found = found.filter(|found| self.may_be(place, *found));
        let unnamed = self.ledger.unnamed();
        let Some(lane) = self.lanes.get_mut(place) else { return false };
        lane.identify(found);
        match found {
            Some(_) => lane.add_chunks(unnamed),
            None => self.park(place, returns),
        }
        found.is_some()
    }

    /// Whether the replica may be this: a voter that no other replica was.
    fn may_be(&self, place: usize, incarnation: Incarnation) -> bool {
        let fits = |(other, lane): (usize, &Progress)| {
            if other == place { lane.may_be(incarnation) } else { !lane.was(incarnation) }
        };
        let votes = self.deciders.iter().any(|voters| voters.contains(incarnation));
        votes && self.lanes.iter().enumerate().all(fits)
    }

    pub(super) fn claimed(&mut self, place: usize) {
        self.with(place, |lane| lane.claimed = true);
    }

    /// These chunks are on the replica, as far as their lengths tell.
    pub(super) fn surveyed(&mut self, place: usize, found: &HashSet<ChunkRef>) {
        self.backlog.surveyed(place, found);
        self.with(place, |lane| lane.surveyed = true);
    }

    pub(super) fn recalled(&mut self, place: usize, index: u64, slot: Held) {
        self.with(place, |lane| lane.recall(index, slot));
    }

    pub(super) fn put(&mut self, place: usize, index: u64) {
        self.with(place, |lane| lane.put(index));
        self.decide();
        self.trim();
    }

    pub(super) fn chunk_put(&mut self, place: usize, chunk: &ChunkRef) {
        self.backlog.chunk_is_at(place, chunk);
        self.with(place, |lane| lane.chunk_put(chunk));
        if self.is_everywhere(chunk) {
            self.backlog.let_go(chunk);
        }
        self.trim();
    }

    /// The chunk did not reach the replica: it is put again, unless nobody needs it any more.
    pub(super) fn chunk_back(&mut self, place: usize, chunk: ChunkRef) {
        let gone = self.backlog.is_gone(&chunk);
        self.with(place, |lane| if gone { lane.chunk_put(&chunk) } else { lane.chunk_back(chunk) });
    }

    /// A chunk is not on the replica after all, or not whole.
    pub(super) fn chunk_lost(&mut self, place: usize, chunk: &ChunkRef) {
        self.backlog.chunk_is_not_at(place, chunk);
    }

    pub(super) fn failed(&mut self, place: usize, slot: Option<u64>) {
        let gaps = self.rules.gaps;
        self.with(place, |lane| lane.failed(slot, gaps));
    }

    /// True where the replica had failed before.
    pub(super) fn worked(&mut self, place: usize) -> bool {
        self.with(place, Progress::worked).unwrap_or(false)
    }

    /// The replica gets nothing more of this epoch.
    pub(super) fn park(&mut self, place: usize, returns: bool) {
        self.with(place, |lane| lane.park(returns));
        let hopeless = |voters: &Voters| {
            let may = self.lanes.iter().filter(|lane| lane.may_vote(voters)).count();
            may < self.rules.write.of(voters.write())
        };
        if self.who_decides(self.decided()).any(hopeless) {
            let parked = self.parked();
            self.end(failure::run_down(&parked));
        }
    }

    fn with<R>(&mut self, place: usize, change: impl FnOnce(&mut Progress) -> R) -> Option<R> {
        self.lanes.get_mut(place).map(change)
    }

    // ---- what is decided

    fn decide(&mut self) {
        while self.decided() < self.backlog.slots() && self.is_decided(self.decided()) {
            if self.ledger.decide().is_err() {
                return self.end(Error::internal("a COMMIT without its PREPARE was decided"));
            }
        }
    }

    fn is_decided(&self, index: u64) -> bool {
        self.who_decides(index).all(|voters| self.is_enough(voters, |_, lane| lane.has(index)))
    }

    /// On START all deciders decide, on what comes after it the voters alone.
    fn who_decides(&self, index: u64) -> impl Iterator<Item = &Voters> {
        self.deciders.iter().take(if index == 0 { usize::MAX } else { 1 })
    }

    // ---- memory

    /// Lets go of what all voters have, and of what is decided where too much is held.
    fn trim(&mut self) {
        let working = self.voting(Health::Works).chain(self.voting(Health::Fails));
        let everywhere = working.map(Progress::next).min().unwrap_or(0);
        self.backlog.trim_slots(everywhere, self.ledger.decided());
        let Self { backlog, deciders, lanes, rules, .. } = self;
        let Some(voters) = deciders.first() else { return };
        let need = rules.write.of(voters.write());
        backlog.trim_chunks(|on| count(lanes, voters, |place, _| on.contains(place)) >= need);
    }

    fn is_everywhere(&self, chunk: &ChunkRef) -> bool {
        let Some(voters) = self.deciders.first() else { return false };
        let on = self.backlog.places(chunk).unwrap_or_default();
        self.lanes.iter().enumerate().all(|(place, lane)| on.contains(place) || !lane.votes(voters))
    }

    // ---- collecting

    /// What some manifest names that is kept.
    pub(super) fn kept(&self) -> BTreeSet<ChunkRef> {
        self.ledger.kept()
    }

    /// The chunks of this epoch that no kept manifest names any more.
    pub(super) fn garbage(&self, keep: &[ChunkRef]) -> Vec<ChunkRef> {
        let kept = self.kept();
        let is_kept = |chunk: &&ChunkRef| kept.contains(chunk) || keep.contains(chunk);
        let mut garbage: Vec<ChunkRef> =
            self.backlog.chunks_of(self.epoch).filter(|chunk| !is_kept(chunk)).copied().collect();
        garbage.sort_unstable();
        garbage
    }

    /// These chunks are about to be removed: no replica needs them for an old slot. Gives those of which that is still so:
    /// an entry that has come since may name one.
    pub(super) fn forget(&mut self, mut garbage: Vec<ChunkRef>) -> Vec<ChunkRef> {
        let kept = self.kept();
        garbage.retain(|chunk| !kept.contains(chunk));
        for chunk in &garbage {
            self.backlog.forget(chunk);
            self.lanes.iter_mut().for_each(|lane| lane.forget(chunk));
        }
        garbage
    }

    /// Whether nobody needs the chunk any more.
    pub(super) fn is_gone(&self, chunk: &ChunkRef) -> bool {
        self.backlog.is_gone(chunk)
    }

    // ---- the end

    /// Ends the log: whoever waits for it hears why. The first reason counts.
    pub(super) fn end(&mut self, error: Error) {
        self.end.get_or_insert(error);
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.end.as_ref().is_some_and(|error| error.kind() == ErrorKind::Fenced)
    }

    /// Whether the log has just come to a halt for want of replicas, or goes on again.
    pub(super) fn pause_or_resume(&mut self) -> Option<Report> {
        let voters = self.deciders.first()?;
        let works = |_: usize, lane: &Progress| lane.health == Health::Works;
        let paused = !self.is_enough(voters, works);
        if std::mem::replace(&mut self.paused, paused) == paused {
            return None;
        }
        let failing = self.lanes.iter().filter(|lane| lane.health != Health::Works);
        let waiting_for = failing.map(|lane| lane.url.clone()).collect();
        Some(if paused { Report::Paused { waiting_for } } else { Report::Resumed })
    }
}

/// How many of the voters are at a place that is as `is` says.
fn count(lanes: &[Progress], voters: &Voters, is: impl Fn(usize, &Progress) -> bool) -> usize {
    lanes.iter().enumerate().filter(|(place, lane)| lane.votes(voters) && is(*place, lane)).count()
}
