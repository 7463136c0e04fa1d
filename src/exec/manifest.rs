//! Which chunks are the state of a stream: plain data, as bytes and back.
//!
//! Of each operator, by name and form, its captures in order: a key group's state is the last snapshot that covers it, and
//! the deltas after that. What is to be captured next follows from the sizes alone. A manifest is complete: nothing
//! else is needed to find all state again, whatever executors there were and will be. It deliberately holds no path and no
//! code, and does not know how chunks are kept.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::exec::Epoch;
use crate::exec::capture::CapturedChunks;
use crate::state::chunk::{Kind, read_groups, write_groups};
use crate::state::form::StateForm;
use crate::state::group::KeyGroup;
use crate::state::key::ENCODING_VERSION;
use crate::time::BatchId;
use crate::wire::{Reader, Writer};

/// The version of the form that is written, and the only one that is read.
const VERSION: u16 = 1;

/// No manifest has more bytes: that is the state of some 200,000 chunks.
pub const LONGEST: usize = 16 << 20;

/// So many deltas of one operator and executor are followed before they are folded: a start reads them all, and a manifest
/// names them all.
const MOST_DELTAS: usize = 32;

/// The fewest bytes of a chunk, of a capture and of an operator.
const LEAST_CHUNK: usize = 60;
const LEAST_CAPTURE: usize = 17;
const LEAST_OPERATOR: usize = 17;

/// What a chunk is kept under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName {
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// The hash of its content.
    pub hash: [u8; 32],
    /// How many bytes it is kept in.
    pub length: u64,
}

/// A chunk of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedChunk {
    /// The key groups that it covers.
    pub groups: Range<KeyGroup>,
    /// How many rows it has.
    pub rows: u64,
    /// What it is kept under.
    pub name: ChunkName,
}

/// A capture that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// All state of its key groups, or what changed.
    pub kind: Kind,
    /// The batch after which it was captured.
    pub batch: BatchId,
    /// Its key groups.
    pub groups: Range<KeyGroup>,
    /// Its chunks, in the order of their rows.
    pub chunks: Vec<SavedChunk>,
}

impl Saved {
    /// A capture whose chunks are kept under these names, in order.
    pub fn new(captured: &CapturedChunks, names: &[ChunkName]) -> Result<Self> {
        if names.len() != captured.chunks.len() {
            let (names, chunks) = (names.len(), captured.chunks.len());
            return Err(Error::internal(format!(
                "a name for each of {chunks} chunks was expected, found {names}"
            )));
        }
        let pairs = captured.chunks.iter().zip(names);
        let chunks = pairs.map(|(chunk, name)| SavedChunk {
            groups: chunk.groups.clone(),
            rows: chunk.rows,
            name: *name,
        });
        let heading = &captured.heading;
        Ok(Self {
            kind: heading.kind,
            batch: heading.batch,
            groups: captured.groups.clone(),
            chunks: chunks.collect(),
        })
    }

    /// About the bytes that belong to `groups`.
    fn bytes_of(&self, groups: &Range<KeyGroup>) -> u64 {
        let own = |chunk: &SavedChunk| {
            let (part, whole) = (width(&common(&chunk.groups, groups)), width(&chunk.groups));
            chunk.name.length.saturating_mul(part).checked_div(whole).unwrap_or_default()
        };
        self.chunks.iter().map(own).sum()
    }

    fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.name.length).sum()
    }
}

fn common(a: &Range<KeyGroup>, b: &Range<KeyGroup>) -> Range<KeyGroup> {
    a.start.max(b.start)..a.end.min(b.end)
}

fn width(groups: &Range<KeyGroup>) -> u64 {
    u64::from(groups.end.0.saturating_sub(groups.start.0))
}

fn meet(a: &Range<KeyGroup>, b: &Range<KeyGroup>) -> bool {
    !common(a, b).is_empty()
}

fn holds(a: &Range<KeyGroup>, b: &Range<KeyGroup>) -> bool {
    a.start <= b.start && b.end <= a.end
}

/// What is kept of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What its state is.
    pub form: StateForm,
    /// Its captures, in the order in which they were taken.
    pub captures: Vec<Saved>,
}

impl Kept {
    /// The captures that the state of `groups` is made of, in order: a snapshot of all of them, and what came after; none
    /// where nothing was ever captured.
    pub fn layers(&self, groups: &Range<KeyGroup>) -> Result<Vec<&Saved>> {
        let own: Vec<&Saved> = self.captures.iter().filter(|saved| meet(&saved.groups, groups)).collect();
        if own.is_empty() {
            return Ok(own);
        }
        let split = own.iter().find(|saved| !holds(&saved.groups, groups));
        let base = own.iter().rposition(|saved| saved.kind == Kind::Snapshot);
        match (split, base) {
            (None, Some(base)) => Ok(own.into_iter().skip(base).collect()),
            (Some(saved), _) => Err(damaged(format!(
                "captures of whole shards were expected, found one of the key groups {:?} beside {groups:?}",
                saved.groups
            ))),
            (None, None) => {
                Err(damaged(format!("a snapshot of the key groups {groups:?} was expected, found none")))
            }
        }
    }

    /// What is to be captured next of `groups`: a snapshot where there is none of all of them, or where what changed since
    /// comes to more than half of it.
    fn wants(&self, groups: &Range<KeyGroup>) -> Kind {
        let (mut base, mut deltas) = (Cover::default(), 0);
        for saved in self.captures.iter().rev().filter(|saved| meet(&saved.groups, groups)) {
            let own = base.missing(&common(&saved.groups, groups));
            let bytes: u64 = own.iter().map(|groups| saved.bytes_of(groups)).sum();
            match saved.kind {
                Kind::Delta => deltas += bytes,
                Kind::Snapshot => base.add(own, bytes),
            }
        }
        let whole = base.missing(groups).is_empty();
        if whole && deltas <= base.bytes / 2 { Kind::Delta } else { Kind::Snapshot }
    }

    /// Lets the captures go that later snapshots have replaced wholly.
    fn prune(&mut self) {
        let mut cover = Cover::default();
        let mut live = Vec::new();
        while let Some(saved) = self.captures.pop() {
            let own = cover.missing(&saved.groups);
            if own.is_empty() && !saved.groups.is_empty() {
                continue;
            }
            if saved.kind == Kind::Snapshot {
                cover.add(own, 0);
            }
            live.push(saved);
        }
        live.reverse();
        self.captures = live;
    }

    /// The newest deltas of exactly these groups that should become one, where there are too many: those that are small
    /// beside what they are folded with, so that each byte is written again a logarithmic number of times.
    fn foldable(&self, groups: &Range<KeyGroup>) -> Vec<&Saved> {
        let own = self.captures.iter().rev().filter(|saved| meet(&saved.groups, groups));
        let tail: Vec<&Saved> =
            own.take_while(|saved| saved.kind == Kind::Delta && saved.groups == *groups).collect();
        if tail.len() <= MOST_DELTAS {
            return Vec::new();
        }
        let (mut folded, mut sum): (Vec<&Saved>, u64) = (Vec::new(), 0);
        for saved in tail {
            if folded.len() >= 2 && saved.bytes() > sum.saturating_mul(2) {
                break;
            }
            sum += saved.bytes();
            folded.push(saved);
        }
        folded.reverse();
        folded
    }
}

/// Key groups that have been met, as ranges that lie apart.
#[derive(Default)]
struct Cover {
    ranges: BTreeMap<KeyGroup, KeyGroup>,
    bytes: u64,
}

impl Cover {
    /// Those of `groups` that have not been met.
    fn missing(&self, groups: &Range<KeyGroup>) -> Vec<Range<KeyGroup>> {
        let (mut missing, mut from) = (Vec::new(), groups.start);
        for (start, end) in self.ranges.range(..groups.end).filter(|(_, end)| **end > groups.start) {
            if *start > from {
                missing.push(from..*start);
            }
            from = from.max(*end);
        }
        if from < groups.end {
            missing.push(from..groups.end);
        }
        missing
    }

    fn add(&mut self, groups: Vec<Range<KeyGroup>>, bytes: u64) {
        self.ranges.extend(groups.into_iter().map(|groups| (groups.start, groups.end)));
        self.bytes += bytes;
    }
}

/// What becomes of an operator whose state is of another form than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStateChange {
    /// The job does not start.
    #[default]
    Fail,
    /// It begins without state.
    Reset,
}

/// A manifest held against the operators of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// What goes on: of the job's operators alone.
    pub manifest: Manifest,
    /// The operators that were not there before: they begin without state.
    pub added: Vec<String>,
    /// The operators that are there no more: their state is let go.
    pub removed: Vec<String>,
    /// The operators that begin without state because theirs is of another form.
    pub reset: Vec<String>,
}

impl Matched {
    /// What is to be told of it, a line each; nothing where all is as before.
    pub fn notes(&self) -> Vec<String> {
        let note = |names: &[String], what: &str| {
            let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            (!names.is_empty()).then(|| format!("{}: {what}", names.join(", ")))
        };
        let notes = [
            note(&self.added, "not in the checkpoint, begins without state"),
            note(&self.removed, "in the checkpoint but not in the job, its state is let go"),
            note(
                &self.reset,
                "its state is of another form than the checkpoint's, begins without state as asked",
            ),
        ];
        notes.into_iter().flatten().collect()
    }
}

/// Deltas that are to become one.
#[derive(Clone, Debug)]
pub struct Fold {
    /// The name of the operator.
    pub operator: String,
    /// What its state is.
    pub form: StateForm,
    /// The deltas, in order.
    pub captures: Vec<Saved>,
}

/// Which chunks are the state of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    shards: usize,
    operators: BTreeMap<String, Kept>,
}

impl Manifest {
    /// That of a job which has no state yet, in so many shards; their number never changes.
    pub fn new(shards: usize) -> Self {
        Self { shards, operators: BTreeMap::new() }
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The operators by name, with what is kept of each.
    pub fn operators(&self) -> impl Iterator<Item = (&str, &Kept)> {
        self.operators.iter().map(|(name, kept)| (name.as_str(), kept))
    }

    /// What is kept of an operator.
    pub fn operator(&self, name: &str) -> Option<&Kept> {
        self.operators.get(name)
    }

    /// Every chunk that it names, each once.
    pub fn chunks(&self) -> BTreeSet<ChunkName> {
        let captures = self.operators.values().flat_map(|kept| &kept.captures);
        captures.flat_map(|saved| saved.chunks.iter().map(|chunk| chunk.name)).collect()
    }

    /// What is to be captured next of an operator whose state is of `form`, in an executor that has these key groups.
    pub fn wants(&self, operator: &str, form: &StateForm, groups: &Range<KeyGroup>) -> Kind {
        let kept = self.operators.get(operator);
        // States that were written under other settings are no base for a delta.
        let kept = kept.filter(|kept| kept.form == *form && kept.form.has_settings_of(form));
        kept.map_or(Kind::Snapshot, |kept| kept.wants(groups))
    }

    /// Takes in a capture of an operator whose state is of `form`, after all that were taken in before.
    pub fn add(&mut self, operator: &str, form: &StateForm, saved: Saved) {
        let fresh = || Kept { form: form.clone(), captures: Vec::new() };
        let kept = self.operators.entry(operator.to_owned()).or_insert_with(fresh);
        kept.form = form.clone();
        kept.captures.push(saved);
        kept.prune();
    }

    /// The deltas that should become one, of the executors that have these key groups.
    pub fn folds(&self, executors: &[Range<KeyGroup>]) -> Vec<Fold> {
        let mut folds = Vec::new();
        for (operator, kept) in &self.operators {
            for groups in executors {
                let captures: Vec<Saved> = kept.foldable(groups).into_iter().cloned().collect();
                if !captures.is_empty() {
                    folds.push(Fold { operator: operator.clone(), form: kept.form.clone(), captures });
                }
            }
        }
        folds
    }

    /// Puts `saved` in the place of the deltas of `fold`; changes nothing where these are not all there any more.
    pub fn replace(&mut self, fold: &Fold, saved: Saved) {
        let Some(kept) = self.operators.get_mut(&fold.operator) else { return };
        let is_folded = |other: &Saved| fold.captures.contains(other);
        let places = kept.captures.iter().enumerate().filter(|(_, other)| is_folded(other));
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        let Some(last) = places.last().copied().filter(|_| places.len() == fold.captures.len()) else {
            return;
        };
        if let Some(place) = kept.captures.get_mut(last) {
            *place = saved;
        }
        let mut place = 0;
        kept.captures.retain(|_| {
            let goes = places.contains(&place) && place != last;
            place += 1;
            !goes
        });
    }

    /// Holds it against the operators of a job, whose names and forms these are, and its number of shards.
    pub fn matched(
        &self,
        shards: usize,
        operators: &[(String, StateForm)],
        on_change: OnStateChange,
    ) -> Result<Matched> {
        if shards != self.shards {
            let message = format!(
                "{} shards were expected, as at the job's first checkpoint, found {shards}",
                self.shards
            );
            return Err(Error::new(ErrorKind::Checkpoint, message)
                .help("the number of shards of a job never changes: state is dealt to executors by them"));
        }
        let mut matched = Matched {
            manifest: Self::new(shards),
            added: Vec::new(),
            removed: self.removed(operators),
            reset: Vec::new(),
        };
        let mut mistakes = Vec::new();
        for (name, form) in operators {
            match self.operators.get(name) {
                None => matched.added.push(name.clone()),
                Some(kept) if kept.form == *form => {
                    matched.manifest.operators.insert(name.clone(), kept.clone());
                }
                Some(_) if on_change == OnStateChange::Reset => matched.reset.push(name.clone()),
                Some(kept) => mistakes.push(changed(name, &kept.form, form)),
            }
        }
        match Error::of_all(mistakes) {
            Some(error) => Err(error),
            None => Ok(matched),
        }
    }

    fn removed(&self, operators: &[(String, StateForm)]) -> Vec<String> {
        let known: HashSet<&str> = operators.iter().map(|(name, _)| name.as_str()).collect();
        self.operators.keys().filter(|name| !known.contains(name.as_str())).cloned().collect()
    }

    /// The manifest as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(VERSION);
        out.u16(KeyGroup::COUNT);
        out.u32(ENCODING_VERSION);
        out.u32(u32::try_from(self.shards).unwrap_or(u32::MAX));
        out.count(self.operators.len());
        for (name, kept) in &self.operators {
            out.text(name);
            kept.form.write(&mut out);
            out.count(kept.captures.len());
            kept.captures.iter().for_each(|saved| write_saved(saved, &mut out));
        }
        out.into_bytes()
    }

    /// The manifest that [`Self::encode`] made bytes of. Whatever does not fit is an error of kind
    /// [`ErrorKind::Checkpoint`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Reader::new("a manifest of state", bytes);
        if bytes.len() > LONGEST {
            return Err(from.wrong(format!("at most {LONGEST} bytes were expected, found {}", bytes.len())));
        }
        expect(&from, "version", u32::from(VERSION), u32::from(from.clone().u16()?))?;
        from.u16()?;
        let groups = from.u16()?;
        expect(&from, "key groups", u32::from(KeyGroup::COUNT), u32::from(groups))?;
        let encoding = from.u32()?;
        expect(&from, "encoding of keys", ENCODING_VERSION, encoding)?;
        let shards = from.u32()? as usize;
        let mut operators = BTreeMap::new();
        for _ in 0..from.count(LEAST_OPERATOR)? {
            let name = from.text()?.to_owned();
            let form = StateForm::read(&mut from)?;
            let count = from.count(LEAST_CAPTURE)?;
            let captures = (0..count).map(|_| read_saved(&mut from)).collect::<Result<_>>()?;
            if operators.insert(name.clone(), Kept { form, captures }).is_some() {
                return Err(from.wrong(format!("each operator once was expected, found \"{name}\" again")));
            }
        }
        from.end()?;
        Ok(Self { shards, operators })
    }
}

fn expect(from: &Reader<'_>, what: &str, expected: u32, found: u32) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(from
        .wrong(format!("{what} {expected} was expected, found {found}"))
        .help("restore it with the version of tidemill that wrote it"))
}

fn write_saved(saved: &Saved, out: &mut Writer) {
    saved.kind.write(out);
    out.u64(saved.batch.0);
    write_groups(&saved.groups, out);
    out.count(saved.chunks.len());
    for chunk in &saved.chunks {
        write_groups(&chunk.groups, out);
        out.u64(chunk.rows);
        out.u64(chunk.name.epoch.0);
        out.plain(&chunk.name.hash);
        out.u64(chunk.name.length);
    }
}

fn read_saved(from: &mut Reader<'_>) -> Result<Saved> {
    let kind = Kind::read(from)?;
    let batch = BatchId(from.u64()?);
    let groups = read_groups(from)?;
    let count = from.count(LEAST_CHUNK)?;
    let chunks: Vec<SavedChunk> = (0..count).map(|_| read_chunk(from)).collect::<Result<_>>()?;
    let within = chunks.iter().all(|chunk| holds(&groups, &chunk.groups));
    let in_order = chunks.windows(2).all(|pair| matches!(pair, [a, b] if a.groups.start <= b.groups.start));
    if chunks.is_empty() || groups.is_empty() || !within || !in_order {
        return Err(
            from.wrong(format!("chunks of the key groups {groups:?} in order were expected, found others"))
        );
    }
    Ok(Saved { kind, batch, groups, chunks })
}

fn read_chunk(from: &mut Reader<'_>) -> Result<SavedChunk> {
    let groups = read_groups(from)?;
    let rows = from.u64()?;
    let epoch = Epoch(from.u64()?);
    let hash = from.plain(32)?.try_into().map_err(|_| Error::internal("32 bytes are not 32 bytes"))?;
    Ok(SavedChunk { groups, rows, name: ChunkName { epoch, hash, length: from.u64()? } })
}

fn changed(name: &str, before: &StateForm, now: &StateForm) -> Error {
    let message = format!(
        "the state of the operator \"{name}\" has changed: the checkpoint has {before}; the job has {now}"
    );
    Error::new(ErrorKind::Checkpoint, message).help(
        "put the operator back as it was, give it another name to begin without state, or start with \
         on_state_change=\"reset\" to let go what it remembers",
    )
}

fn damaged(message: String) -> Error {
    Error::new(ErrorKind::Checkpoint, message).at("manifest of state")
}
