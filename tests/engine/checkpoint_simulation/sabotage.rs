//! Protocols that are wrong on purpose, each in one way: a checker that lets one pass checks nothing.
//!
//! Most are the real code with one rule switched off; the others lie to it about a replica, or use the sink wrongly.

use tidemill::checkpoint::rules::{Collect, Enough, Gaps, Rules};

use super::checker::Fault;
use super::scripts::{MISSED, Script};

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Any replica's word is taken, and any one replica is enough to write to.
    NewestReadable,
    /// A driver that has claimed nothing goes on, and nobody is ever sealed.
    NoClaimsNoSeals,
    /// What a replica did not take is left out there.
    SlotsSkipped,
    /// After a time-out the next transaction is begun by the same producer.
    SameProducer,
    /// A replica that was emptied is taken for what it was.
    WipedVotes,
    /// A damaged object is taken for one that is not there.
    CorruptTakenForAbsent,
    /// One replica that can be read is enough to go on from.
    OneIsEnough,
    /// After an error the sink is initialised again without taking over.
    SinkInitialisedAgain,
    /// What looks like garbage is removed before anything is appended.
    CollectsAtOnce,
}

pub(crate) const ALL: [Sabotage; 9] = [
    Sabotage::NewestReadable,
    Sabotage::NoClaimsNoSeals,
    Sabotage::SlotsSkipped,
    Sabotage::SameProducer,
    Sabotage::WipedVotes,
    Sabotage::CorruptTakenForAbsent,
    Sabotage::OneIsEnough,
    Sabotage::SinkInitialisedAgain,
    Sabotage::CollectsAtOnce,
];

/// Where a sabotage is looked for.
pub(crate) struct Hunt {
    pub(crate) replicas: usize,
    /// What it does harm to; what else goes wrong under it proves nothing.
    pub(crate) harm: Fault,
    /// What goes wrong meanwhile, where chance seldom brings it about.
    pub(crate) script: Option<Script>,
}

impl Sabotage {
    pub(crate) fn hunt(self) -> Hunt {
        let (replicas, harm) = match self {
            Self::SameProducer | Self::SinkInitialisedAgain => (1, Fault::Output),
            Self::CorruptTakenForAbsent => (1, Fault::Lost),
            Self::CollectsAtOnce => (3, Fault::Removed),
            _ => (3, Fault::Lost),
        };
        Hunt { replicas, harm, script: (self == Self::SlotsSkipped).then_some(MISSED) }
    }

    /// The rules that the real code keeps under it.
    pub(crate) fn rules(how: Option<Self>) -> Rules {
        let right = Rules::default();
        match how {
            Some(Self::NewestReadable) => Rules { read: Enough::One, write: Enough::One, ..right },
            Some(Self::OneIsEnough) => Rules { read: Enough::One, ..right },
            Some(Self::SlotsSkipped) => Rules { gaps: Gaps::Skipped, ..right },
            Some(Self::CollectsAtOnce) => Rules { collect: Collect::AtOnce, ..right },
            _ => right,
        }
    }
}
