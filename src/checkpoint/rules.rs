//! The rules that keep the log safe, as switches, so that a simulation can show that it notices when one is broken.
//!
//! Nobody else can turn one: production takes [`Rules::default`], which keeps them all, and no setting reaches it.

/// What the protocol does right, or on purpose wrong.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How many voters a reader must have heard.
    pub read: Enough,
    /// How many voters must have an entry.
    pub write: Enough,
    /// What happens to a slot that a replica did not take.
    pub gaps: Gaps,
    /// When a collector removes what it has found to be garbage.
    pub collect: Collect,
}

/// How many voters are enough.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enough {
    /// A quorum of each set of voters.
    #[default]
    Quorum,
    /// Any one: broken.
    One,
}

impl Enough {
    pub(super) fn of(self, quorum: usize) -> usize {
        match self {
            Self::Quorum => quorum,
            Self::One => 1,
        }
    }
}

/// What happens to a slot that a replica did not take.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gaps {
    /// It is put again until the replica has it, and no later one before.
    #[default]
    Never,
    /// The next one is put instead: broken.
    Skipped,
}

/// When a collector removes what it has found to be garbage.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collect {
    /// Once an entry that was appended after the list was drawn up is decided.
    #[default]
    AfterAppend,
    /// As soon as the list is drawn up: broken.
    AtOnce,
}
