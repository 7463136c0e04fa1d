//! Batches that outlive the driver: the log under the machine's decisions, the state under its batches, and outputs that
//! are there once.
//!
//! ```text
//! PLAN n → map, reduce → state as chunks → outputs encoded → PREPARE n → publish with a marker → COMMIT n
//! ```
//!
//! From PREPARE on, what batch n comes to is decided; its marker tells a later driver whether it was published. This
//! module deliberately holds no rule of the log (that is [`checkpoint`](crate::checkpoint)'s), none of publishing
//! ([`sink::outputs`](crate::sink::outputs)) and none of when a batch is due (the machine): it brings them together.

mod keeper;
mod payload;
mod publisher;
mod resume;
pub mod runtime;

use std::fmt;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::checkpoint::open::Checkpoint;
use crate::driver::Job;
use crate::driver::durable::runtime::LogRuntime;
use crate::error::Result;
use crate::exec::manifest::OnStateChange;

pub(crate) use keeper::Keeper;
pub(crate) use publisher::Publisher;
pub(crate) use resume::Resumed;

/// Where and how a job's checkpoint is kept.
pub struct Durability {
    /// The replicas.
    pub checkpoint: Checkpoint,
    /// What the log's work runs on.
    pub runtime: LogRuntime,
    /// The number of shards of the job's state, which never changes.
    pub shards: usize,
    /// What becomes of an operator whose state is of another form than before.
    pub on_change: OnStateChange,
    /// For how long nothing must have happened before a driver counts as gone.
    pub lease: Duration,
}

impl fmt::Debug for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durability").field("checkpoint", &self.checkpoint).finish_non_exhaustive()
    }
}

/// A job whose checkpoint has been taken over, with its sinks open and its operators as they were.
pub struct DurableJob {
    pub(crate) job: Job,
    pub(crate) resumed: Resumed,
    /// Asks the sinks, and whoever waits for the log, to give up.
    pub(crate) cancel: Cancel,
    pub(crate) runtime: LogRuntime,
}

/// Takes over the checkpoint of `job`; blocks until that is done, for as long as too few replicas answer.
pub fn take_over(mut job: Job, durability: Durability) -> Result<DurableJob> {
    let cancel = Cancel::default();
    let resumed = resume::resume(&mut job, &durability, &cancel)?;
    Ok(DurableJob { job, resumed, cancel, runtime: durability.runtime })
}
