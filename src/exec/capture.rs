//! What is to be remembered of a stream, copied between two batches and made into chunks beside the next.
//!
//! A [`Capture`] holds copies: of all state of an operator in an executor, or of what changed since the one before.
//! Operators note what changes from their first capture on; without one they note nothing. To put the copies in order and
//! into bytes is most of the work, and is done wherever the caller likes. It deliberately does not know where chunks are kept,
//! nor when a capture is due.

use std::ops::Range;

use crate::detect::CopiedStates;
use crate::error::Result;
use crate::state::chunk::{Heading, Kind, Written, write};
use crate::state::form::StateForm;
use crate::state::group::KeyGroup;
use crate::state::rows::{Dropped, PaneStates, Rows};
use crate::state::table::CopiedKeys;
use crate::state::window::PaneNumber;
use crate::time::BatchId;

/// Copies of what one shard of an operator remembers.
pub enum Copied {
    /// Of keys, and of the states of these.
    Keys(CopiedKeys, Box<dyn CopiedStates>),
    /// Of panes, by their numbers, and which are gone.
    Panes(Vec<PaneStates>, Vec<PaneNumber>),
}

impl Copied {
    /// Whether there is nothing to tell.
    fn is_empty(&self) -> bool {
        match self {
            Self::Keys(keys, _) => keys.is_empty(),
            Self::Panes(panes, dropped) => panes.is_empty() && dropped.is_empty(),
        }
    }

    fn rows(&self, form: &StateForm) -> Result<Rows> {
        match self {
            Self::Keys(keys, states) => Rows::of_keys(form, keys, |order| states.rows(order)),
            Self::Panes(panes, _) => Rows::of_panes(form, panes),
        }
    }

    fn dropped(&self) -> &[PaneNumber] {
        match self {
            Self::Keys(..) => &[],
            Self::Panes(_, dropped) => dropped,
        }
    }
}

/// What an operator remembers in one executor, or what of it has changed.
pub struct Capture {
    pub(crate) operator: String,
    pub(crate) form: StateForm,
    pub(crate) kind: Kind,
    pub(crate) groups: Range<KeyGroup>,
    /// In the order of their key groups.
    pub(crate) shards: Vec<Copied>,
}

/// A capture as bytes, to be kept as so many chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedChunks {
    /// What is said of all of them.
    pub heading: Heading,
    /// The key groups of the executor.
    pub groups: Range<KeyGroup>,
    /// The chunks, in the order of their rows; at least one.
    pub chunks: Vec<Written>,
}

impl CapturedChunks {
    /// The bytes of all chunks.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum()
    }
}

impl Capture {
    /// The name of the operator.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// All, or what changed.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The key groups of the executor.
    pub fn groups(&self) -> &Range<KeyGroup> {
        &self.groups
    }

    /// Whether nothing has changed: there is no need to keep it then.
    pub fn is_empty(&self) -> bool {
        self.kind == Kind::Delta && self.shards.iter().all(Copied::is_empty)
    }

    /// Its chunks, as of after `batch`. It takes as long as there is much, and needs nothing of the stream.
    pub fn encode(self, batch: BatchId) -> Result<CapturedChunks> {
        let Self { operator, form, kind, groups, shards } = self;
        let at = format!("state of the operator \"{operator}\"");
        let rows = shards.iter().map(|shard| shard.rows(&form)).collect::<Result<Vec<_>>>();
        let rows = rows.map_err(|error| error.at(at.clone()))?;
        // W is one for all shards: a pane that is gone in one of them is in none.
        let dropped = Dropped::new(shards.iter().flat_map(Copied::dropped).copied().collect());
        let heading = Heading { kind, operator, form, batch, dropped };
        let chunks = write(&heading, &groups, &rows).map_err(|error| error.at(at))?;
        Ok(CapturedChunks { heading, groups, chunks })
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("operator", &self.operator)
            .field("kind", &self.kind)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}
