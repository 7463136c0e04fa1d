//! What the log tells of itself while it runs: which replica it waits for, what was damaged, what was repaired.
//!
//! It deliberately carries nothing that a decision rests on; whoever listens may show it, count it or drop it.

use std::fmt;
use std::sync::Arc;

use crate::checkpoint::container::Place;
use crate::checkpoint::id::Epoch;
use crate::checkpoint::surroundings::Whereabouts;

/// Hears of what happens to the replicas; must be quick and never block.
pub type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// A replica does not do what it is asked; it is asked again until it does.
    Failing {
        /// The replica.
        url: String,
        /// What it said.
        error: String,
    },
    /// A replica that was failing works again.
    Back {
        /// The replica.
        url: String,
    },
    /// Too few replicas work: nothing is decided until one of these does.
    Paused {
        /// Those that do not.
        waiting_for: Vec<String>,
    },
    /// Enough replicas work again.
    Resumed,
    /// A take-over could not be finished, and is tried again.
    TryingAgain {
        /// Why.
        why: String,
    },
    /// A replica is there, but is not the voter that it was: it does not vote until the epoch is rolled.
    Emptied {
        /// The replica.
        url: String,
    },
    /// A replica that was emptied or exchanged is taken in again, with this driver's epoch.
    Readmitted {
        /// The replica.
        url: String,
        /// The epoch.
        epoch: Epoch,
    },
    /// An object is damaged.
    Damaged {
        /// The replica.
        url: String,
        /// The object.
        place: Place,
        /// How.
        why: String,
    },
    /// A damaged object is whole again.
    Repaired {
        /// The replica.
        url: String,
        /// The object.
        place: Place,
    },
    /// Another driver runs; this one waits.
    StandingBy {
        /// The other.
        who: Whereabouts,
    },
    /// This driver owns an epoch.
    TookOver {
        /// The epoch.
        epoch: Epoch,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing { url, error } => write!(f, "{url} fails: {error}"),
            Self::Back { url } => write!(f, "{url} works again"),
            Self::Paused { waiting_for } => write!(f, "paused: waiting for {}", waiting_for.join(" or ")),
            Self::Resumed => f.write_str("enough replicas work again"),
            Self::TryingAgain { why } => write!(f, "taking over once more: {why}"),
            Self::Emptied { url } => write!(f, "{url} was emptied or exchanged, and does not count"),
            Self::Readmitted { url, epoch } => write!(f, "{url} is taken in again with epoch {epoch}"),
            Self::Damaged { url, place, why } => write!(f, "{place:?} on {url} is damaged: {why}"),
            Self::Repaired { url, place } => write!(f, "{place:?} on {url} is whole again"),
            Self::StandingBy { who } => write!(f, "standing by: the job is being run by {who}"),
            Self::TookOver { epoch } => write!(f, "took over with epoch {epoch}"),
        }
    }
}
