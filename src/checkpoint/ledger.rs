//! What of a running log is decided, and which chunks its entries name.
//!
//! It deliberately counts no votes: it is told when the next slot is decided.

use std::collections::{BTreeSet, VecDeque};

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::entry::{EntryKind, Position, Record};
use crate::checkpoint::standing::Standing;

/// A log keeps the names of so many COMMITs.
const COMMITS_KEPT: usize = 3;

/// The entries of a running log, as far as they still count.
#[derive(Debug)]
pub(super) struct Ledger {
    /// All slots before this one are decided.
    decided: u64,
    undecided: VecDeque<Record>,
    standing: Standing,
    /// What START names.
    start_names: BTreeSet<ChunkRef>,
    /// What the last COMMITs name, with their PREPAREs.
    recent: VecDeque<Vec<ChunkRef>>,
    /// Chunks of this epoch that no entry names yet.
    unnamed: BTreeSet<ChunkRef>,
}

impl Ledger {
    /// The ledger of a log whose START carries `standing` and names these chunks.
    pub(super) fn new(standing: Standing, start_names: BTreeSet<ChunkRef>) -> Self {
        Self {
            decided: 0,
            undecided: VecDeque::new(),
            standing,
            start_names,
            recent: VecDeque::new(),
            unnamed: BTreeSet::new(),
        }
    }

    /// How many slots are decided.
    pub(super) fn decided(&self) -> u64 {
        self.decided
    }

    /// Whether a COMMIT may complete what stands there.
    pub(super) fn is_open_prepare(&self, at: Position) -> bool {
        let open = self.standing.prepares.iter().chain(&self.undecided);
        open.into_iter().any(|record| record.at == at && record.entry.kind == EntryKind::Prepare)
    }

    pub(super) fn append(&mut self, record: Record) {
        for chunk in record.entry.all_names() {
            self.unnamed.remove(chunk);
        }
        self.undecided.push_back(record);
    }

    /// The next slot is decided. `Err` names the PREPARE that a COMMIT completes and that is not open.
    pub(super) fn decide(&mut self) -> Result<(), Position> {
        self.decided += 1;
        if self.decided == 1 {
            return Ok(()); // START stands in the ledger from the beginning
        }
        let Some(record) = self.undecided.pop_front() else { return Ok(()) };
        let closes = matches!(record.entry.kind, EntryKind::Commit | EntryKind::Checkpoint);
        self.standing.apply(record)?;
        if closes {
            self.remember_commit();
        }
        Ok(())
    }

    fn remember_commit(&mut self) {
        let Some(committed) = &self.standing.committed else { return };
        let records = committed.prepare.iter().chain([&committed.commit]);
        self.recent.push_back(records.flat_map(|record| record.entry.all_names().copied()).collect());
        if self.recent.len() > COMMITS_KEPT {
            self.recent.pop_front();
        }
    }

    // ---- chunks

    /// An entry is going to name this chunk.
    pub(super) fn will_name(&mut self, chunk: ChunkRef) {
        self.unnamed.insert(chunk);
    }

    /// The chunks that no entry names yet.
    pub(super) fn unnamed(&self) -> Vec<ChunkRef> {
        self.unnamed.iter().copied().collect()
    }

    /// What START names.
    pub(super) fn start_names(&self) -> &BTreeSet<ChunkRef> {
        &self.start_names
    }

    /// What some manifest names that is kept: START's, the last COMMITs', that of every entry that is open or undecided.
    pub(super) fn kept(&self) -> BTreeSet<ChunkRef> {
        let mut kept = self.start_names.clone();
        kept.extend(self.standing.names());
        kept.extend(self.recent.iter().flatten());
        kept.extend(self.undecided.iter().flat_map(|record| record.entry.all_names()));
        kept.extend(&self.unnamed);
        kept
    }
}
