//! A job's checkpoint, from the places that a user named to one that has been taken over.
//!
//! It deliberately decides nothing of the log: it opens and probes the replicas, and hands them to the driver.

use std::sync::Arc;

use crate::checkpoint::id::DriverId;
use crate::checkpoint::open::Checkpoint;
use crate::checkpoint::probe::probe;
use crate::checkpoint::replica::{Replica, open_url};
use crate::checkpoint::report::Report;
use crate::checkpoint::runtime::{Runtime as Surroundings, here};
use crate::checkpoint::settings::{Settings as LogSettings, Standby};
use crate::checkpoint::surroundings::Surroundings as _;
use crate::driver::Job;
use crate::driver::durable::runtime::LogRuntime;
use crate::driver::durable::{Durability, DurableJob, take_over};
use crate::error::Result;
use crate::exec::local::LocalSettings;
use crate::exec::manifest::OnStateChange;

/// Where and how a job's progress and state are kept.
#[derive(Clone, Debug, Default)]
pub struct CheckpointSettings {
    /// The replicas: directories, or URLs.
    pub replicas: Vec<String>,
    /// What becomes of an operator whose state is of another form than before.
    pub on_change: OnStateChange,
    /// What to do where another driver of the job runs.
    pub standby: Standby,
}

impl CheckpointSettings {
    /// Opens the replicas and takes the checkpoint of `job` over.
    pub(super) fn take_over(&self, job: Job) -> Result<DurableJob> {
        let runtime = LogRuntime::start()?;
        let surroundings = Arc::new(Surroundings::new(runtime.handle().clone()));
        let replicas = self.replicas.iter().map(|text| open_url(text)).collect::<Result<Vec<_>>>()?;
        probe_all(&replicas, &surroundings, &runtime)?;
        let settings = LogSettings { standby: self.standby, ..LogSettings::new(job.name.clone(), here()) };
        let lease = settings.lease;
        let checkpoint =
            Checkpoint::new(&replicas, settings, surroundings, Arc::new(|report| tell(&report)))?;
        let (shards, on_change) = (LocalSettings::default().shards, self.on_change);
        take_over(job, Durability { checkpoint, runtime, shards, on_change, lease })
    }
}

/// An error that names the first replica that is none.
fn probe_all(replicas: &[Arc<dyn Replica>], surroundings: &Surroundings, runtime: &LogRuntime) -> Result<()> {
    for replica in replicas {
        let driver = DriverId(u128::from(surroundings.random()) << 64 | u128::from(surroundings.random()));
        runtime.handle().block_on(probe(&**replica, driver))?;
    }
    Ok(())
}

/// What a user should know is a warning, all else is for who looks closely.
fn tell(report: &Report) {
    match report {
        Report::Failing { .. } | Report::Paused { .. } => log::warn!("checkpoint: {report}"),
        Report::Back { .. } | Report::Resumed => log::info!("checkpoint: {report}"),
        _ => log::debug!("checkpoint: {report}"),
    }
}
