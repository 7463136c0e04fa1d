//! What a running log knows: its slots, how far each replica has come with them, and what is decided.
//!
//! It deliberately does no I/O: it is asked what to do next on a replica, and told what came of it. All rules of an
//! append are here: a replica gets a slot only after all before it and all chunks that it names; a slot is decided once W
//! voters have it; nothing comes after START before START is decided.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::entry::{EntryKind, Record};
use crate::checkpoint::failure;
use crate::checkpoint::id::{Epoch, Incarnation, Index};
use crate::checkpoint::quorum::Voters;
use crate::checkpoint::report::Report;
use crate::checkpoint::rules::Rules;
use crate::checkpoint::standing::Standing;
use crate::error::{Error, ErrorKind, Result};

/// A log keeps the names of so many COMMITs.
const COMMITS_KEPT: usize = 3;

/// A slot's object, and the chunks that must be on a replica before it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) names: Arc<[ChunkRef]>,
}

impl Held {
    fn size(&self) -> u64 {
        (self.bytes.len() + size_of_val(&*self.names)) as u64
    }
}

/// A chunk that an entry names, or will name.
#[derive(Clone, Debug, Default)]
struct Chunk {
    /// Its object; none where it is to be read again.
    bytes: Option<Bytes>,
    on: Places,
}

/// The places of replicas on which something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Places(u64);

impl Places {
    fn contains(self, place: usize) -> bool {
        self.0 & Self::bit(place) != 0
    }

    fn insert(&mut self, place: usize) {
        self.0 |= Self::bit(place);
    }

    fn remove(&mut self, place: usize) {
        self.0 &= !Self::bit(place);
    }

    /// There are never so many replicas that one has no bit; one that had none would never count.
    fn bit(place: usize) -> u64 {
        u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place)).unwrap_or(0)
    }
}

/// How a replica does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// As it should.
    Works,
    /// It fails, and is asked again.
    Fails,
    /// It gets no more of this epoch: it is not what it was, or something unknown stands in its next slot.
    Parked,
}

/// One replica, and how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) url: String,
    /// What is on it, as far as it was found out since it last failed.
    pub(super) incarnation: Option<Incarnation>,
    /// What was on it when that was found out first: it counts as nothing else in this epoch.
    known: Option<Incarnation>,
    claimed: bool,
    surveyed: bool,
    /// All slots before this one are on it.
    next: u64,
    /// But for these; always empty where the rules are kept.
    skipped: BTreeSet<u64>,
    /// The slot for which `awaiting` has been drawn up.
    prepared: Option<u64>,
    /// Chunks that are still to come before the next slot.
    awaiting: HashSet<ChunkRef>,
    todo: VecDeque<ChunkRef>,
    busy: HashSet<ChunkRef>,
    recalled: Option<(u64, Held)>,
    pub(super) health: Health,
    /// How often in a row it has failed.
    pub(super) failures: u32,
}

impl Lane {
    /// A replica, and what is on it where that is known.
    pub(super) fn new(url: String, incarnation: Option<Incarnation>, health: Health) -> Self {
        Self {
            url,
            incarnation,
            known: incarnation,
            claimed: false,
            surveyed: false,
            next: 0,
            skipped: BTreeSet::new(),
            prepared: None,
            awaiting: HashSet::new(),
            todo: VecDeque::new(),
            busy: HashSet::new(),
            recalled: None,
            health,
            failures: 0,
        }
    }

    fn has(&self, index: u64) -> bool {
        index < self.next && !self.skipped.contains(&index)
    }

    fn votes(&self, voters: &Voters) -> bool {
        self.known.is_some_and(|incarnation| voters.contains(incarnation))
    }

    fn is_ready(&self) -> bool {
        self.incarnation.is_some() && self.health != Health::Parked
    }
}

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
    lanes: Vec<Lane>,
    slots: Vec<Option<Held>>,
    chunks: HashMap<ChunkRef, Chunk>,
    /// Chunks that were collected: old slots name them, and nobody needs them.
    gone: HashSet<ChunkRef>,
    /// Chunks of this epoch that no entry names yet.
    unnamed: BTreeSet<ChunkRef>,
    /// All slots before this one are decided.
    decided: u64,
    undecided: VecDeque<Record>,
    standing: Standing,
    /// What START names.
    start_names: BTreeSet<ChunkRef>,
    /// What the last COMMITs name, with their PREPAREs.
    recent: VecDeque<Vec<ChunkRef>>,
    chunks_made: u64,
    /// How many bytes are held for slots and chunks, and at most should be.
    held: (u64, u64),
    held_slots: VecDeque<u64>,
    held_chunks: VecDeque<ChunkRef>,
    end: Option<Error>,
    closed: bool,
    paused: bool,
}

impl State {
    pub(super) fn new(
        epoch: Epoch,
        (rules, backlog): (Rules, u64),
        deciders: Vec<Voters>,
        lanes: Vec<Lane>,
        (start, standing): (Held, Standing),
    ) -> Self {
        let start_names: BTreeSet<ChunkRef> = start.names.iter().copied().collect();
        let mut state = Self {
            epoch,
            rules,
            deciders,
            lanes,
            slots: Vec::new(),
            chunks: start_names.iter().map(|chunk| (*chunk, Chunk::default())).collect(),
            gone: HashSet::new(),
            unnamed: BTreeSet::new(),
            decided: 0,
            undecided: VecDeque::new(),
            standing,
            start_names,
            recent: VecDeque::new(),
            chunks_made: 0,
            held: (0, backlog),
            held_slots: VecDeque::new(),
            held_chunks: VecDeque::new(),
            end: None,
            closed: false,
            paused: false,
        };
        state.hold_slot(start);
        state
    }

    // ---- what others ask

    /// The error that ended the log, or that it was closed.
    pub(super) fn must_go_on(&self) -> Result<()> {
        match &self.end {
            Some(error) => Err(error.clone()),
            None if self.closed => Err(failure::fenced(self.epoch, "it has rolled to another epoch itself")),
            None => Ok(()),
        }
    }

    /// Whether the slot is decided, or will never be.
    pub(super) fn outcome(&self, index: u64) -> Option<Result<()>> {
        match self.must_go_on() {
            Err(error) => Some(Err(error)),
            Ok(()) => (self.decided > index).then_some(Ok(())),
        }
    }

    /// Whether every voter that works has all slots.
    pub(super) fn caught_up(&self) -> Option<Result<()>> {
        if let Err(error) = self.must_go_on() {
            return Some(Err(error));
        }
        let voters = self.deciders.first()?;
        let works = self.lanes.iter().filter(|lane| lane.votes(voters) && lane.health == Health::Works);
        let all = self.slots.len() as u64;
        works.into_iter().all(|lane| lane.next == all).then_some(Ok(()))
    }

    /// Whether W voters have the chunk, or never will.
    pub(super) fn chunk_outcome(&self, chunk: &ChunkRef) -> Option<Result<()>> {
        if let Err(error) = self.must_go_on() {
            return Some(Err(error));
        }
        self.is_chunk_safe(chunk).then_some(Ok(()))
    }

    fn is_chunk_safe(&self, chunk: &ChunkRef) -> bool {
        let on = self.chunks.get(chunk).map(|chunk| chunk.on);
        let has = |place: usize, _: &Lane| on.is_some_and(|on| on.contains(place));
        self.deciders.first().is_some_and(|voters| self.is_enough(voters, has))
    }

    fn is_enough(&self, voters: &Voters, has: impl Fn(usize, &Lane) -> bool) -> bool {
        let lanes = self.lanes.iter().enumerate();
        let count = lanes.filter(|(place, lane)| lane.votes(voters) && has(*place, lane)).count();
        count >= self.rules.write.of(voters.write())
    }

    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The places of replicas that may have the chunk, the likeliest first, each with what is on it.
    pub(super) fn sources(&self, chunk: &ChunkRef) -> Vec<(usize, Incarnation)> {
        let on = self.chunks.get(chunk).map(|chunk| chunk.on);
        let mut sources = self.readable();
        sources.sort_by_key(|(place, _)| on.is_none_or(|on| !on.contains(*place)));
        sources
    }

    /// The places of replicas that are known to have the chunk.
    pub(super) fn having(&self, chunk: &ChunkRef) -> Vec<(usize, Incarnation)> {
        let on = self.chunks.get(chunk).map_or(Places::default(), |known| known.on);
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
        let missing = |lane: &Lane| lane.health == Health::Fails || lane.incarnation.is_none();
        self.lanes.iter().any(|lane| lane.health != Health::Parked && missing(lane))
    }

    /// Whether a replica has this slot and so counts as one that is up to date with it.
    pub(super) fn is_at(&self, place: usize, index: u64) -> bool {
        self.lanes.get(place).is_some_and(|lane| lane.has(index))
    }

    /// How many slots are decided.
    pub(super) fn decided(&self) -> u64 {
        self.decided
    }

    /// The URLs of replicas that can take no more entries of this epoch, and could of the next.
    pub(super) fn parked(&self) -> Vec<String> {
        let parked = self.lanes.iter().filter(|lane| lane.health == Health::Parked);
        parked.map(|lane| lane.url.clone()).collect()
    }

    // ---- appending

    /// Takes up the entry in the next slot; the object is made for that slot.
    pub(super) fn append(&mut self, make: impl FnOnce(Index) -> (Record, Bytes)) -> Result<Index> {
        self.must_go_on()?;
        let index = Index(self.slots.len() as u64);
        let (record, bytes) = make(index);
        self.check(&record)?;
        let names: Arc<[ChunkRef]> = record.entry.all_names().copied().collect();
        for chunk in names.iter() {
            self.unnamed.remove(chunk);
        }
        self.undecided.push_back(record);
        self.hold_slot(Held { bytes, names });
        Ok(index)
    }

    /// What an entry refers to must be there.
    fn check(&self, record: &Record) -> Result<()> {
        if let Some(chunk) = record.entry.all_names().find(|chunk| !self.chunks.contains_key(chunk)) {
            return Err(Error::internal(format!("an entry names chunk {}, which is not there", chunk.hash)));
        }
        let Some(of) = record.entry.of else { return Ok(()) };
        let open = self.standing.prepares.iter().chain(&self.undecided);
        let is_it = |open: &Record| open.at == of && open.entry.kind == EntryKind::Prepare;
        if open.into_iter().any(is_it) {
            return Ok(());
        }
        Err(Error::internal(format!("a COMMIT completes {of:?}, which is no open PREPARE")))
    }

    fn hold_slot(&mut self, slot: Held) {
        self.held.0 += slot.size();
        self.held_slots.push_back(self.slots.len() as u64);
        self.slots.push(Some(slot));
    }

    /// The number of the next chunk, which no other chunk of the epoch has.
    pub(super) fn next_chunk_number(&mut self) -> u64 {
        self.chunks_made += 1;
        self.chunks_made
    }

    /// Takes up a chunk that is on no replica yet.
    pub(super) fn add_chunk(&mut self, chunk: ChunkRef, bytes: Bytes) -> Result<()> {
        self.must_go_on()?;
        self.held.0 += bytes.len() as u64;
        self.held_chunks.push_back(chunk);
        self.unnamed.insert(chunk);
        self.chunks.insert(chunk, Chunk { bytes: Some(bytes), on: Places::default() });
        self.lanes.iter_mut().filter(|lane| lane.is_ready()).for_each(|lane| lane.todo.push_back(chunk));
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
            let epochs = self.start_names.iter().map(|chunk| chunk.epoch).collect();
            return Some(Step::Survey(incarnation, epochs));
        }
        let index = lane.next;
        self.is_due(place, index).then(|| self.slot_step(place, incarnation, index))?
    }

    /// START goes to all who decide on it; what comes after it to the voters, once START is decided.
    fn is_due(&self, place: usize, index: u64) -> bool {
        let votes = |voters: &Voters| self.lanes.get(place).is_some_and(|lane| lane.votes(voters));
        index < self.slots.len() as u64
            && match index {
                0 => self.deciders.iter().any(votes),
                _ => self.decided > 0 && self.deciders.first().is_some_and(votes),
            }
    }

    fn slot_step(&mut self, place: usize, incarnation: Incarnation, index: u64) -> Option<Step> {
        let recalled = self.lanes.get(place)?.recalled.clone().filter(|(recalled, _)| *recalled == index);
        let held = self.slots.get(usize::try_from(index).ok()?)?.clone();
        let Some(slot) = held.or(recalled.map(|(_, slot)| slot)) else { return Some(Step::Recall(index)) };
        if self.lanes.get(place)?.prepared != Some(index) {
            self.prepare(place, index, &slot.names);
        }
        let lane = self.lanes.get(place)?;
        lane.awaiting.is_empty().then_some(Step::Put(incarnation, index, slot.bytes))
    }

    /// Draws up which chunks must come before the slot.
    fn prepare(&mut self, place: usize, index: u64, names: &[ChunkRef]) {
        let (chunks, gone) = (&self.chunks, &self.gone);
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let on = |chunk: &ChunkRef| chunks.get(chunk).is_some_and(|chunk| chunk.on.contains(place));
        lane.awaiting = names.iter().filter(|chunk| !gone.contains(chunk) && !on(chunk)).copied().collect();
        lane.prepared = Some(index);
        let missing: BTreeSet<ChunkRef> = lane.awaiting.iter().copied().collect(); // in an order that never differs
        lane.todo.extend(missing);
    }

    pub(super) fn next_chunk(&mut self, place: usize) -> Option<ChunkStep> {
        if self.must_go_on().is_err() {
            return Some(ChunkStep::End);
        }
        let (chunks, gone) = (&self.chunks, &self.gone);
        let lane = self.lanes.get_mut(place).filter(|lane| lane.is_ready() && lane.surveyed)?;
        let incarnation = lane.incarnation?;
        while let Some(chunk) = lane.todo.pop_front() {
            let known = chunks.get(&chunk).filter(|known| !known.on.contains(place));
            let Some(known) = known.filter(|_| !gone.contains(&chunk) && !lane.busy.contains(&chunk)) else {
                continue;
            };
            lane.busy.insert(chunk);
            return Some(ChunkStep::Put(incarnation, chunk, known.bytes.clone()));
        }
        None
    }

    // ---- what came of it

    /// The replica turned out to be this; true where it is what it was, and a voter.
    pub(super) fn identified(&mut self, place: usize, found: Option<Incarnation>) -> bool {
        let taken = |incarnation| {
            let others = self.lanes.iter().enumerate().filter(|(other, _)| *other != place);
            others.into_iter().any(|(_, lane)| lane.known == Some(incarnation))
        };
        let votes = |incarnation| self.deciders.iter().any(|voters| voters.contains(incarnation));
        let fits = |lane: &Lane, incarnation| lane.known.is_none_or(|known| known == incarnation);
        let lane = self.lanes.get(place);
        let found = found.filter(|found| votes(*found) && !taken(*found) && lane.is_some_and(|lane| fits(lane, *found)));
        let unnamed: Vec<ChunkRef> = self.unnamed.iter().copied().collect();
        let Some(lane) = self.lanes.get_mut(place) else { return false };
        (lane.incarnation, lane.known) = (found, lane.known.or(found));
        match found {
            Some(_) => lane.todo.extend(unnamed),
            None => self.park(place),
        }
        found.is_some()
    }

    pub(super) fn claimed(&mut self, place: usize) {
        self.with(place, |lane| lane.claimed = true);
    }

    /// These chunks are on the replica, as far as their lengths tell.
    pub(super) fn surveyed(&mut self, place: usize, found: &HashSet<ChunkRef>) {
        for (chunk, known) in &mut self.chunks {
            if found.contains(chunk) {
                known.on.insert(place);
            }
        }
        self.with(place, |lane| lane.surveyed = true);
    }

    pub(super) fn recalled(&mut self, place: usize, index: u64, slot: Held) {
        self.with(place, |lane| lane.recalled = Some((index, slot)));
    }

    pub(super) fn put(&mut self, place: usize, index: u64) {
        self.with(place, |lane| {
            if lane.next == index {
                (lane.next, lane.prepared, lane.recalled) = (index + 1, None, None);
            }
        });
        self.decide();
        self.trim();
    }

    pub(super) fn chunk_put(&mut self, place: usize, chunk: &ChunkRef) {
        if let Some(known) = self.chunks.get_mut(chunk) {
            known.on.insert(place);
        }
        self.with(place, |lane| {
            lane.awaiting.remove(chunk);
            lane.busy.remove(chunk);
        });
        if self.is_everywhere(chunk) {
            self.let_go(chunk);
        }
        self.trim();
    }

    /// The chunk did not reach the replica: it is put again, unless nobody needs it any more.
    pub(super) fn chunk_back(&mut self, place: usize, chunk: ChunkRef) {
        let gone = self.gone.contains(&chunk);
        self.with(place, |lane| {
            lane.busy.remove(&chunk);
            if gone {
                lane.awaiting.remove(&chunk);
            } else {
                lane.todo.push_front(chunk);
            }
        });
    }

    /// A chunk is not on the replica after all, or not whole.
    pub(super) fn chunk_lost(&mut self, place: usize, chunk: &ChunkRef) {
        if let Some(known) = self.chunks.get_mut(chunk) {
            known.on.remove(place);
        }
    }

    pub(super) fn failed(&mut self, place: usize, slot: Option<u64>) {
        let skips = self.rules.gaps == crate::checkpoint::rules::Gaps::Skipped;
        self.with(place, |lane| {
            (lane.incarnation, lane.failures) = (None, lane.failures + 1);
            if lane.health == Health::Works {
                lane.health = Health::Fails;
            }
            if let Some(index) = slot.filter(|index| skips && *index == lane.next) {
                lane.skipped.insert(index);
                lane.next += 1;
            }
        });
    }

    /// True where the replica had failed before.
    pub(super) fn worked(&mut self, place: usize) -> bool {
        self.with(place, |lane| {
            lane.failures = 0;
            let failed = lane.health == Health::Fails;
            if failed {
                lane.health = Health::Works;
            }
            failed
        })
        .unwrap_or(false)
    }

    /// The replica gets nothing more of this epoch.
    pub(super) fn park(&mut self, place: usize) {
        self.with(place, |lane| lane.health = Health::Parked);
        let hopeless = |voters: &Voters| {
            let may = |lane: &&Lane| {
                lane.health != Health::Parked && (lane.known.is_none() || lane.votes(voters))
            };
            self.lanes.iter().filter(may).count() < self.rules.write.of(voters.write())
        };
        let until_start = self.decided == 0;
        let relevant = self.deciders.iter().take(if until_start { usize::MAX } else { 1 });
        if relevant.into_iter().any(hopeless) {
            let parked = self.parked();
            self.end(failure::run_down(&parked));
        }
    }

    fn with<R>(&mut self, place: usize, change: impl FnOnce(&mut Lane) -> R) -> Option<R> {
        self.lanes.get_mut(place).map(change)
    }

    // ---- what is decided

    fn decide(&mut self) {
        while self.decided < self.slots.len() as u64 && self.is_decided(self.decided) {
            self.decided += 1;
            if self.decided > 1 {
                self.apply();
            }
        }
    }

    fn is_decided(&self, index: u64) -> bool {
        let sets = self.deciders.iter().take(if index == 0 { usize::MAX } else { 1 });
        let has = |_: usize, lane: &Lane| lane.has(index);
        sets.into_iter().all(|voters| self.is_enough(voters, has))
    }

    fn apply(&mut self) {
        let Some(record) = self.undecided.pop_front() else { return };
        let closes = matches!(record.entry.kind, EntryKind::Commit | EntryKind::Checkpoint);
        if self.standing.apply(record).is_err() {
            return self.end(Error::internal("a COMMIT without its PREPARE was decided"));
        }
        if let Some(committed) = self.standing.committed.as_ref().filter(|_| closes) {
            let records = committed.prepare.iter().chain([&committed.commit]);
            let names = records.flat_map(|record| record.entry.all_names().copied()).collect();
            self.recent.push_back(names);
            if self.recent.len() > COMMITS_KEPT {
                self.recent.pop_front();
            }
        }
    }

    // ---- memory

    /// Lets go of what all voters have, and of what is decided where too much is held.
    fn trim(&mut self) {
        let Some(voters) = self.deciders.first() else { return };
        let of_voters = self.lanes.iter().filter(|lane| lane.votes(voters) && lane.health != Health::Parked);
        let everywhere = of_voters.map(|lane| lane.next).min().unwrap_or(0);
        while let Some(index) = self.held_slots.front().copied() {
            let is_due = index < everywhere || (index < self.decided && self.is_too_much());
            let Some(slot) = self.slot_mut(index).filter(|_| is_due) else { break };
            let size = slot.take().map_or(0, |slot| slot.size());
            self.held.0 -= size;
            self.held_slots.pop_front();
        }
        self.trim_chunks();
    }

    fn trim_chunks(&mut self) {
        while let Some(chunk) = self.held_chunks.front().copied() {
            let is_held = self.chunks.get(&chunk).is_some_and(|known| known.bytes.is_some());
            if is_held && !(self.is_too_much() && self.is_chunk_safe(&chunk)) {
                break;
            }
            self.let_go(&chunk);
            self.held_chunks.pop_front();
        }
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Option<Held>> {
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    fn is_too_much(&self) -> bool {
        self.held.0 > self.held.1
    }

    /// Drops a chunk's object: it can be read again.
    fn let_go(&mut self, chunk: &ChunkRef) {
        let dropped = self.chunks.get_mut(chunk).and_then(|known| known.bytes.take());
        self.held.0 -= dropped.map_or(0, |bytes| bytes.len() as u64);
    }

    fn is_everywhere(&self, chunk: &ChunkRef) -> bool {
        let Some(voters) = self.deciders.first() else { return false };
        let on = self.chunks.get(chunk).map_or(Places::default(), |known| known.on);
        self.lanes.iter().enumerate().all(|(place, lane)| on.contains(place) || !lane.votes(voters))
    }

    // ---- collecting

    /// What some manifest names that is kept: START's, the last COMMITs', that of every entry that is open or undecided.
    pub(super) fn kept(&self) -> BTreeSet<ChunkRef> {
        let mut kept = self.start_names.clone();
        kept.extend(self.standing.names());
        kept.extend(self.recent.iter().flatten());
        kept.extend(self.undecided.iter().flat_map(|record| record.entry.all_names()));
        kept.extend(&self.unnamed);
        kept
    }

    /// The chunks of this epoch that no kept manifest names any more.
    pub(super) fn garbage(&self, keep: &[ChunkRef]) -> Vec<ChunkRef> {
        let kept = self.kept();
        let is_kept = |chunk: &&ChunkRef| kept.contains(chunk) || keep.contains(chunk);
        let own = self.chunks.keys().filter(|chunk| chunk.epoch == self.epoch);
        let mut garbage: Vec<ChunkRef> = own.filter(|chunk| !is_kept(chunk)).copied().collect();
        garbage.sort_unstable();
        garbage
    }

    /// These chunks are about to be removed: no replica needs them for an old slot.
    pub(super) fn forget(&mut self, garbage: &[ChunkRef]) {
        for chunk in garbage {
            self.gone.insert(*chunk);
            let dropped = self.chunks.remove(chunk).and_then(|known| known.bytes);
            self.held.0 -= dropped.map_or(0, |bytes| bytes.len() as u64);
            for lane in &mut self.lanes {
                lane.awaiting.remove(chunk);
            }
        }
    }

    /// Whether nobody needs the chunk any more.
    pub(super) fn is_gone(&self, chunk: &ChunkRef) -> bool {
        self.gone.contains(chunk)
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
        let Some(voters) = self.deciders.first() else { return None };
        let works = |_: usize, lane: &Lane| lane.health == Health::Works;
        let paused = !self.is_enough(voters, works);
        if std::mem::replace(&mut self.paused, paused) == paused {
            return None;
        }
        let failing = self.lanes.iter().filter(|lane| lane.health != Health::Works);
        let waiting_for = failing.map(|lane| lane.url.clone()).collect();
        Some(if paused { Report::Paused { waiting_for } } else { Report::Resumed })
    }
}

