//! What a user may choose of the log, and what its parts share.
//!
//! It deliberately holds no setting on which safety rests: a wrong time-out costs time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::report::{Report, Reporter};
use crate::checkpoint::rules::Rules;
use crate::checkpoint::secret::CheckpointKey;
use crate::checkpoint::surroundings::{BackOff, Surroundings, Whereabouts};

/// What to do where another driver runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standby {
    /// Fail, naming it.
    #[default]
    Refuse,
    /// Wait until it has gone.
    Wait,
    /// Depose it at once: no safety rests on waiting.
    Depose,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The job's name.
    pub name: String,
    /// W at the first start; a majority unless given.
    pub write: Option<usize>,
    /// What objects are sealed with where others can write the replicas.
    pub secret: Option<CheckpointKey>,
    /// Where this driver runs.
    pub whereabouts: Whereabouts,
    /// What to do where another driver runs.
    pub standby: Standby,
    /// For how long nothing must have happened before a driver counts as gone.
    pub lease: Duration,
    /// After how long a replica that has not answered counts as failing.
    pub request: Duration,
    /// How long to wait for the other replicas once enough have answered.
    pub grace: Duration,
    /// The first and the longest wait before something is tried again.
    pub retry: (Duration, Duration),
    /// How many bytes are kept at hand for replicas that are behind; beyond, they are read again.
    pub backlog: u64,
    /// How many chunks are put on one replica at once.
    pub uploads: usize,
    #[doc(hidden)]
    pub rules: Rules,
}

impl Settings {
    /// The settings of a driver that runs there, with what fits most jobs for the rest.
    pub fn new(name: impl Into<String>, whereabouts: Whereabouts) -> Self {
        Self {
            name: name.into(),
            write: None,
            secret: None,
            whereabouts,
            standby: Standby::default(),
            lease: Duration::from_secs(10),
            request: Duration::from_secs(30),
            grace: Duration::from_secs(1),
            retry: (Duration::from_millis(100), Duration::from_secs(10)),
            backlog: 256 << 20,
            uploads: 4,
            rules: Rules::default(),
        }
    }
}

/// What all parts of the log share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) settings: Arc<Settings>,
    pub(super) surroundings: Arc<dyn Surroundings>,
    reporter: Reporter,
}

impl Common {
    pub(super) fn new(settings: Settings, surroundings: Arc<dyn Surroundings>, reporter: Reporter) -> Self {
        Self { settings: Arc::new(settings), surroundings, reporter }
    }

    pub(super) fn report(&self, report: Report) {
        (self.reporter)(report);
    }

    pub(super) fn secret(&self) -> Option<&CheckpointKey> {
        self.settings.secret.as_ref()
    }

    pub(super) fn rules(&self) -> Rules {
        self.settings.rules
    }

    pub(super) fn back_off(&self) -> BackOff {
        let (first, most) = self.settings.retry;
        BackOff::new(first, most)
    }
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
