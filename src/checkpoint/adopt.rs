//! What a new driver adopts of the log that it has sealed: its longest whole prefix, and what of that still counts.
//!
//! It deliberately changes nothing on a replica, and reads no more than it needs: START, and from the end backwards to the
//! PLAN of the last COMMIT. A slot, or a chunk that it names, of which no copy is whole takes the replicas that hold the
//! slot out of those that are known: then the prefix ends before it, and whether enough replicas are left to say so is
//! judged afterwards.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::entry::{EntryKind, Position, Record};
use crate::checkpoint::failure;
use crate::checkpoint::fetch::{Fetched, Source, fetch, fetch_chunk};
use crate::checkpoint::id::{Index, JobId};
use crate::checkpoint::panel::Panel;
use crate::checkpoint::quorum::Voters;
use crate::checkpoint::round::{self, Asked};
use crate::checkpoint::settings::Common;
use crate::checkpoint::slot::{self, Slot};
use crate::checkpoint::standing::Standing;
use crate::checkpoint::start::Start;
use crate::checkpoint::walk::Scan;
use crate::error::{Error, ErrorKind, Result};

/// What is adopted.
#[derive(Clone, Debug)]
pub(super) struct Adoption {
    /// The START of the epoch that is gone on from.
    pub(super) start: Start,
    /// The first slot that is not adopted.
    pub(super) until: Position,
    /// What of it all still counts.
    pub(super) standing: Standing,
    /// The sets of voters on which everything was decided, and must be from here on.
    pub(super) deciders: Vec<Voters>,
    /// Chunks that have been read and are whole: as many as fit the backlog.
    pub(super) chunks: BTreeMap<ChunkRef, Bytes>,
}

/// Whether one whole copy of each chunk is looked for before anything is adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// It is: they will be restored.
    Read,
    /// It is not: this driver has restored or written them itself.
    Trusted,
}

/// Something that had to be given up: it is to be looked at again from the start.
struct GaveWay;

/// Reads logs that are sealed.
pub(super) struct Adopter<'a> {
    pub(super) common: &'a Common,
    pub(super) panel: &'a mut Panel,
    pub(super) job: JobId,
    pub(super) chunks: Chunks,
}

/// How many chunks are read at once.
const READS: usize = 8;

impl Adopter<'_> {
    /// What is to be adopted of the epoch; none where no START of it is left.
    pub(super) async fn adopt(&mut self, scan: &mut Scan) -> Result<Option<Adoption>> {
        while scan.length() > 0 {
            if let Ok(adoption) = self.attempt(scan).await? {
                return Ok(Some(adoption));
            }
        }
        Ok(None)
    }

    async fn attempt(&mut self, scan: &mut Scan) -> Result<Result<Adoption, GaveWay>> {
        let length = scan.length();
        let Ok((start, records)) = self.slots(scan, length).await? else { return Ok(Err(GaveWay)) };
        let standing = folded(start.standing.clone(), records).map_err(no_prepare)?;
        let chunks = match self.chunks {
            Chunks::Trusted => Ok(BTreeMap::new()),
            Chunks::Read => self.read_chunks(scan, &start, &standing).await?,
        };
        let Ok(chunks) = chunks else { return Ok(Err(GaveWay)) };
        let deciders = deciders(&start, length);
        let until = Position { epoch: scan.epoch, index: Index(length) };
        Ok(Ok(Adoption { start, until, standing, deciders, chunks }))
    }

    /// START, and the entries before `length` that still count, in order.
    async fn slots(&mut self, scan: &mut Scan, length: u64) -> Result<Result<(Start, Vec<Record>), GaveWay>> {
        let mut records = Vec::new();
        let mut seen = Seen::default();
        for index in (1..length).rev() {
            if seen.is_enough() {
                break;
            }
            let at = Position { epoch: scan.epoch, index: Index(index) };
            match self.slot(scan, at).await? {
                Some(Slot::Entry(entry)) => {
                    let record = Record { at, entry };
                    seen.see(&record);
                    records.push(record);
                }
                _ => return Ok(Err(GaveWay)),
            }
        }
        records.reverse();
        let first = Position { epoch: scan.epoch, index: Index(0) };
        match self.slot(scan, first).await? {
            Some(Slot::Start(start)) => Ok(Ok((*start, records))),
            _ => Ok(Err(GaveWay)),
        }
    }

    /// What stands in a slot; none where no copy is whole, and then its holders are given up.
    async fn slot(&mut self, scan: &mut Scan, at: Position) -> Result<Option<Slot>> {
        let holders: Vec<usize> = scan.holders(at.index.0).collect();
        let open = |bytes: &Bytes| slot::open(bytes, self.job, at, self.common.secret());
        let fetched = fetch(&self.sources(&holders), at.place(), self.common, open).await;
        let found = self.heard(fetched, &format!("slot {} of epoch {}", at.index, at.epoch))?;
        if found.is_none() || found == Some(Slot::Seal) {
            scan.give_up(at.index.0);
            return Ok(None);
        }
        Ok(found)
    }

    /// Takes note of who failed; an object that cannot be judged here is an error, since it may be whole.
    fn heard<T>(&mut self, fetched: Fetched<T>, what: &str) -> Result<Option<T>> {
        for (place, error) in fetched.failed {
            self.panel.silence(place, &error.to_string());
        }
        match (fetched.copy, fetched.unreadable) {
            (Some((_, meaning)), _) => Ok(Some(meaning)),
            (None, Some((url, why))) => Err(failure::unreadable(&url, what, &why)),
            (None, None) => Ok(None),
        }
    }

    fn sources(&self, places: &[usize]) -> Vec<Source<'_>> {
        let source = |place: &usize| {
            let seat = self.panel.seats.get(*place)?;
            Some(Source { place: *place, replica: &*seat.replica, incarnation: seat.incarnation()? })
        };
        places.iter().filter_map(source).collect()
    }

    /// Reads one copy of each chunk that counts.
    async fn read_chunks(
        &mut self,
        scan: &mut Scan,
        start: &Start,
        standing: &Standing,
    ) -> Result<Result<BTreeMap<ChunkRef, Bytes>, GaveWay>> {
        let named = named_by(scan, start, standing);
        let chunks: Vec<ChunkRef> = named.keys().copied().collect();
        let mut kept = BTreeMap::new();
        let mut room = self.common.settings.backlog;
        for some in chunks.chunks(READS) {
            for (chunk, fetched) in some.iter().zip(self.fetch_chunks(some).await) {
                let Some(content) = self.heard(fetched, &format!("chunk {}", chunk.hash))? else {
                    scan.give_up(named.get(chunk).copied().unwrap_or(0));
                    return Ok(Err(GaveWay));
                };
                if let Some(left) = room.checked_sub(content.len() as u64) {
                    room = left;
                    kept.insert(*chunk, content);
                }
            }
        }
        Ok(Ok(kept))
    }

    async fn fetch_chunks(&self, chunks: &[ChunkRef]) -> Vec<Fetched<Bytes>> {
        let everywhere: Vec<usize> = (0..self.panel.seats.len()).collect();
        let sources = self.sources(&everywhere);
        let question =
            |chunk| -> Asked<'_, _> { Box::pin(fetch_chunk(&sources, chunk, self.job, self.common)) };
        let questions = chunks.iter().map(question).collect();
        let (surroundings, grace) = (&*self.common.surroundings, self.common.settings.grace);
        round::ask(questions, surroundings, grace, |_| false).await.into_iter().flatten().collect()
    }
}

/// On whom everything is decided: the voters that START names. The others that START names besides, too, unless there is
/// an entry after it: that proves that START was decided.
fn deciders(start: &Start, length: u64) -> Vec<Voters> {
    match length {
        0 | 1 => start.deciders().cloned().collect(),
        _ => vec![start.voters.clone()],
    }
}

/// What has been seen of a log that is read from its end.
#[derive(Default)]
struct Seen {
    /// The last COMMIT's batch and PREPARE.
    commit: Option<(u64, Option<Position>)>,
    prepared: bool,
    planned: bool,
    all: bool,
}

impl Seen {
    fn see(&mut self, record: &Record) {
        let entry = &record.entry;
        match (self.commit, entry.kind) {
            (None, EntryKind::Checkpoint) => self.all = true,
            (None, EntryKind::Commit) => {
                self.commit = Some((entry.batch.0, entry.of));
                self.prepared = entry.of.is_none();
            }
            (Some((_, of)), EntryKind::Prepare) if of == Some(record.at) => self.prepared = true,
            _ => {}
        }
        let plan = [Some(entry), entry.rider.as_deref()]
            .into_iter()
            .flatten()
            .find(|entry| entry.kind == EntryKind::Plan);
        self.planned |= self.commit.is_some_and(|(batch, _)| plan.is_some_and(|plan| plan.batch.0 == batch));
    }

    /// Whether nothing before counts any more: PLANs come in the order of their batches, so that before the PLAN of the last
    /// COMMIT there is none of a later batch, and no PREPARE either.
    fn is_enough(&self) -> bool {
        self.all || (self.commit.is_some() && self.prepared && self.planned)
    }
}

/// What still counts after `records`, of which those before the PLAN of the last COMMIT may be missing: an earlier COMMIT
/// closes nothing that the last does not close.
fn folded(mut standing: Standing, records: Vec<Record>) -> Result<Standing, Position> {
    let closes = |record: &Record| matches!(record.entry.kind, EntryKind::Commit | EntryKind::Checkpoint);
    let last = records.iter().rposition(closes).unwrap_or(0);
    for (place, mut record) in records.into_iter().enumerate() {
        if place < last && closes(&record) {
            record.entry.kind = EntryKind::Noop; // what rides with it still counts
        }
        standing.apply(record)?;
    }
    Ok(standing)
}

/// The chunks that count, each with the slot that names it: START's for what it carries.
fn named_by(scan: &Scan, start: &Start, standing: &Standing) -> BTreeMap<ChunkRef, u64> {
    let mut named = BTreeMap::new();
    for record in standing.records() {
        let slot = if record.at.epoch == scan.epoch { record.at.index.0 } else { 0 };
        for chunk in record.entry.all_names() {
            let first = named.entry(*chunk).or_insert(slot);
            *first = slot.min(*first);
        }
    }
    named.extend(start.content.names.iter().map(|chunk| (*chunk, 0)));
    named
}

fn no_prepare(of: Position) -> Error {
    let message = format!(
        "a COMMIT completes the PREPARE at slot {} of epoch {}, which is not there",
        of.index, of.epoch
    );
    Error::new(ErrorKind::Checkpoint, message).help("this is a defect, worth reporting")
}
