//! Decides whether a history is right, from what drivers asked for and were told, and from what was removed.
//!
//! It is written from the rules and not from the log, and shares nothing with it but the words: what a log should have
//! adopted it works out for itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidemill::checkpoint::chunk::ChunkRef;
use tidemill::checkpoint::entry::{Entry, EntryKind, Position, Record};
use tidemill::checkpoint::id::{Epoch, Index};
use tidemill::checkpoint::standing::Standing;

use super::executor::Owner;
use super::sink::{Digest, Row};

/// What a history may be guilty of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// What a driver was told is decided is not there for a later one, or was told to one that had been deposed.
    Lost,
    /// Something is believed that nobody wrote, or that two wrote.
    Believed,
    /// The output is not what was committed, or is there twice or in part, or its marker fits nothing.
    Output,
    /// Something is removed that somebody may need.
    Removed,
    /// Something is replaced by other bytes.
    Replaced,
    /// A driver ends, or comes to no end, where it should go on.
    Stuck,
}

/// The first thing that was wrong with a history.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) fault: Fault,
    pub(crate) what: String,
}

/// What still counts of a log, as positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    committed: Option<(Position, Option<Position>)>,
    plans: BTreeMap<u64, Position>,
    prepares: BTreeMap<Position, u64>,
}

impl Model {
    fn of(standing: &Standing) -> Self {
        let committed = standing.committed.as_ref();
        let at = |record: &Record| (record.at, record.entry.batch.0);
        Self {
            committed: committed
                .map(|done| (done.commit.at, done.prepare.as_ref().map(|prepare| prepare.at))),
            plans: standing.plans.iter().map(at).map(|(at, batch)| (batch, at)).collect(),
            prepares: standing.prepares.iter().map(at).collect(),
        }
    }

    fn go_on(&mut self, at: Position, entry: &Entry) {
        let batch = entry.batch.0;
        match entry.kind {
            EntryKind::Plan => drop(self.plans.insert(batch, at)),
            EntryKind::Prepare => drop(self.prepares.insert(at, batch)),
            EntryKind::Commit | EntryKind::Checkpoint => {
                self.committed = Some((at, entry.of));
                self.plans.retain(|planned, _| *planned > batch);
                self.prepares.retain(|_, prepared| *prepared > batch);
            }
            EntryKind::Noop | EntryKind::Stopped => {}
        }
        if let Some(rider) = &entry.rider {
            self.go_on(at, rider);
        }
    }

    /// The slots that still count.
    fn slots(&self) -> BTreeSet<Position> {
        let committed =
            self.committed.iter().flat_map(|(commit, prepare)| [Some(*commit), *prepare]).flatten();
        committed.chain(self.plans.values().copied()).chain(self.prepares.keys().copied()).collect()
    }
}

/// A START, as it was issued.
#[derive(Debug)]
struct Begun {
    owner: Owner,
    /// How much of which log it goes on from.
    from: Option<Position>,
    model: Model,
    /// What it names besides.
    content: Vec<ChunkRef>,
}

/// The history so far.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    begun: BTreeMap<Epoch, Begun>,
    issued: BTreeMap<Position, Entry>,
    next: BTreeMap<Epoch, u64>,
    acknowledged: BTreeSet<Position>,
    decided: BTreeSet<Epoch>,
    chunks: BTreeMap<ChunkRef, Bytes>,
    pub(crate) violation: Option<Violation>,
}

impl Checker {
    pub(crate) fn broken(&mut self, fault: Fault, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| Violation { fault, what: what.into() });
    }

    pub(crate) fn rule(&mut self, fault: Fault, holds: bool, broken: impl FnOnce() -> String) {
        if !holds {
            self.broken(fault, broken());
        }
    }

    /// Whether any driver was ever told that it may begin.
    pub(crate) fn has_begun(&self) -> bool {
        !self.acknowledged.is_empty()
    }

    // ---- what drivers ask for

    /// A driver is about to append START.
    pub(crate) fn begins(
        &mut self,
        (owner, epoch): (Owner, Epoch),
        adopted: Option<(Position, &Standing)>,
        content: Vec<ChunkRef>,
    ) {
        let (from, model) = match adopted {
            None => (None, Model::default()),
            Some((until, standing)) => {
                let model = Model::of(standing);
                let expected = self.expected(until);
                self.rule(Fault::Believed, expected.as_ref() == Ok(&model), || {
                    format!("epoch {epoch} adopts {model:?} of {until:?}, expected {expected:?}")
                });
                (Some(until), model)
            }
        };
        let before = self.begun.insert(epoch, Begun { owner, from, model, content });
        self.rule(Fault::Believed, before.is_none(), || {
            format!("drivers {:?} and {owner} own epoch {epoch}", before.map(|begun| begun.owner))
        });
        self.next.insert(epoch, 1);
    }

    /// That an epoch was begun counts for nothing.
    pub(crate) fn forgets(&mut self, epoch: Epoch) {
        self.begun.remove(&epoch);
    }

    /// What should be found in a log of so many slots.
    fn expected(&self, until: Position) -> Result<Model, String> {
        let begun = self.begun.get(&until.epoch).ok_or("an epoch that nobody began")?;
        let mut model = begun.model.clone();
        for index in 1..until.index.0 {
            let at = Position { index: Index(index), ..until };
            let entry = self.issued.get(&at).ok_or_else(|| format!("nobody wrote {at:?}"))?;
            model.go_on(at, entry);
        }
        Ok(model)
    }

    /// A driver is about to append an entry.
    pub(crate) fn issues(&mut self, epoch: Epoch, entry: Entry) -> Position {
        let next = self.next.entry(epoch).or_insert(1);
        let at = Position { epoch, index: Index(*next) };
        *next += 1;
        self.issued.insert(at, entry);
        at
    }

    /// It turned out not to.
    pub(crate) fn takes_back(&mut self, at: Position) {
        self.issued.remove(&at);
        self.next.insert(at.epoch, at.index.0);
    }

    pub(crate) fn chunk_put(&mut self, chunk: ChunkRef, content: Bytes) {
        let before = self.chunks.insert(chunk, content);
        self.rule(Fault::Believed, before.is_none(), || format!("two chunks have the name {chunk:?}"));
    }

    pub(crate) fn chunk_read(&mut self, chunk: &ChunkRef, content: &Bytes) {
        let known = self.chunks.get(chunk);
        let right = known.is_none_or(|known| known == content); // its driver may have died before it heard of it
        self.rule(Fault::Believed, right, || format!("{chunk:?} is not what was put"));
    }

    // ---- what drivers are told

    pub(crate) fn started(&mut self, epoch: Epoch) {
        self.decided.insert(epoch);
        self.acknowledged(Position { epoch, index: Index(0) });
        let lost: Vec<Position> = self
            .acknowledged
            .iter()
            .filter(|at| at.epoch < epoch && !self.is_in_lineage(epoch, **at))
            .copied()
            .collect();
        self.rule(Fault::Lost, lost.is_empty(), || {
            format!("epoch {epoch} has lost {lost:?}, which had been acknowledged")
        });
    }

    pub(crate) fn acknowledged(&mut self, at: Position) {
        let first = self.acknowledged.insert(at);
        self.rule(Fault::Lost, first, || format!("{at:?} was acknowledged twice"));
        let later: Vec<Epoch> =
            self.decided.range(at.epoch..).copied().filter(|epoch| *epoch > at.epoch).collect();
        for epoch in later {
            let kept = self.is_in_lineage(epoch, at);
            self.rule(Fault::Lost, kept, || {
                format!("{at:?} was acknowledged to a driver that epoch {epoch} had deposed")
            });
        }
    }

    fn is_in_lineage(&self, epoch: Epoch, at: Position) -> bool {
        let mut from = self.begun.get(&epoch).and_then(|begun| begun.from);
        while let Some(until) = from {
            if at.epoch >= until.epoch {
                return at.epoch == until.epoch && at.index < until.index;
            }
            from = self.begun.get(&until.epoch).and_then(|begun| begun.from);
        }
        false
    }

    // ---- what is removed

    /// The newest START is decided, whether or not its driver knows.
    pub(crate) fn is_decided(&mut self, epoch: Epoch) {
        self.decided.insert(epoch);
    }

    pub(crate) fn newest(&self) -> Option<Epoch> {
        self.decided.last().copied()
    }

    /// What a driver that takes over now may need.
    pub(crate) fn live(&self) -> BTreeSet<ChunkRef> {
        let Some(epoch) = self.newest() else { return BTreeSet::new() };
        let Some(begun) = self.begun.get(&epoch) else { return BTreeSet::new() };
        let mut model = begun.model.clone();
        let named = |model: &Model| -> Vec<ChunkRef> {
            let entries = model.slots().into_iter().filter_map(|at| self.issued.get(&at));
            entries.flat_map(|entry| entry.all_names().copied().collect::<Vec<_>>()).collect()
        };
        let mut live: BTreeSet<ChunkRef> = begun.content.iter().copied().chain(named(&model)).collect();
        for at in self.acknowledged.iter().filter(|at| at.epoch == epoch && at.index.0 > 0) {
            if let Some(entry) = self.issued.get(at) {
                model.go_on(*at, entry);
            }
        }
        live.extend(named(&model));
        live
    }

    // ---- the end

    /// All entries that count for good, in order, by the newest START that is decided and what was acknowledged after.
    pub(crate) fn history(&self) -> Vec<(Position, Entry)> {
        let Some(newest) = self.newest() else { return Vec::new() };
        let last =
            self.acknowledged.iter().filter(|at| at.epoch == newest).map(|at| at.index.0).max().unwrap_or(0);
        let mut parts = vec![Position { epoch: newest, index: Index(last + 1) }];
        let mut epoch = newest;
        while let Some(until) = self.begun.get(&epoch).and_then(|begun| begun.from) {
            parts.push(until);
            epoch = until.epoch;
        }
        let slots = parts
            .iter()
            .rev()
            .flat_map(|until| (1..until.index.0).map(|index| Position { index: Index(index), ..*until }));
        slots.filter_map(|at| Some((at, self.issued.get(&at)?.clone()))).collect()
    }

    /// Whether each batch is in the output once, and in order, as its COMMIT says.
    pub(crate) fn output(&mut self, rows: &[Row]) {
        let mut expected = Vec::new();
        let mut plans: BTreeMap<u64, u64> = BTreeMap::new();
        let mut prepares: BTreeMap<Position, Vec<u64>> = BTreeMap::new();
        let (mut next, mut state): (u64, Digest) = (0, 0);
        for (at, entry) in self.history() {
            let parts = [Some(&entry), entry.rider.as_deref()];
            for part in parts.into_iter().flatten() {
                let numbers = numbers(&part.payload);
                match part.kind {
                    EntryKind::Plan => drop(plans.insert(part.batch.0, numbers[0])),
                    EntryKind::Prepare => drop(prepares.insert(at, numbers)),
                    EntryKind::Commit => {
                        let prepare = part.of.and_then(|of| prepares.get(&of)).cloned().unwrap_or(vec![0; 4]);
                        let [parent, digest, publishes, seed] = prepare[..] else { continue };
                        let batch = part.batch.0;
                        self.rule(Fault::Output, batch == next, || {
                            format!("batch {batch} is committed, expected {next}")
                        });
                        self.rule(Fault::Output, parent == state, || {
                            format!("batch {batch} does not go on from the one before")
                        });
                        self.rule(Fault::Output, digest == numbers[0], || {
                            format!("batch {batch} is committed as another attempt")
                        });
                        let planned = plans.get(&batch).copied();
                        self.rule(Fault::Output, planned == Some(seed), || {
                            format!("batch {batch} is not what was planned")
                        });
                        (next, state) = (batch + 1, digest);
                        if publishes == 1 {
                            expected.extend((0..2).map(|number| Row { batch, number, digest }));
                        }
                    }
                    _ => {}
                }
            }
        }
        self.rule(Fault::Output, rows == expected, || {
            format!("the output is {rows:?}, expected {expected:?}")
        });
    }

    /// Whether no batch is in the output twice, or out of order, or in part.
    pub(crate) fn output_so_far(&mut self, rows: &[Row]) {
        let mut last = None;
        for pair in rows.chunks(2) {
            let batch = pair[0].batch;
            let whole = pair.len() == 2 && pair[1] == Row { number: 1, ..pair[0] } && pair[0].number == 0;
            self.rule(Fault::Output, whole && last < Some(batch), || {
                format!("the output is broken at {pair:?}: {rows:?}")
            });
            last = Some(batch);
        }
    }
}

/// Numbers as a payload.
pub(crate) fn payload(numbers: &[u64]) -> Bytes {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// The numbers of a payload.
pub(crate) fn numbers(payload: &Bytes) -> Vec<u64> {
    payload.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect()
}
