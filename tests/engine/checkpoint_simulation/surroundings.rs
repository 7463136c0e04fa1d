//! What a driver has of the world: its replicas, time, chance, tasks, and somebody to report to.
//!
//! It deliberately has no will of its own: what goes wrong is drawn up elsewhere.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidemill::checkpoint::open::Checkpoint;
use tidemill::checkpoint::replica::Replica;
use tidemill::checkpoint::report::Report;
use tidemill::checkpoint::settings::{Settings, Standby};
use tidemill::checkpoint::surroundings::{Surroundings, Task, Whereabouts};

use super::checker::Fault;
use super::disk::SimReplica;
use super::driver;
use super::executor::{Owner, Sim};
use super::sabotage::Sabotage;
use super::world::World;

/// Starts a driver's program.
pub(crate) fn start(sim: &Sim<World>, owner: Owner, mounts: usize, settings: Settings, batches: Option<u64>) {
    let replica = |mount: usize| -> Arc<dyn Replica> {
        let url = format!("sim://{mount}");
        Arc::new(SimReplica { sim: sim.clone(), owner, mount, url })
    };
    let replicas: Vec<Arc<dyn Replica>> = (0..mounts).map(replica).collect();
    let surroundings = Arc::new(Around { sim: sim.clone(), owner });
    let reporter = sim.clone();
    let report = move |report| {
        reporter.world(|world| {
            world.saw(word(&report));
            world.note(|| format!("driver {owner}: {report}"));
        });
    };
    match Checkpoint::new(&replicas, settings, surroundings, Arc::new(report)) {
        Ok(checkpoint) => driver::spawn(sim, owner, checkpoint, batches),
        Err(error) => {
            sim.world(|world| world.checker.broken(Fault::Stuck, format!("no checkpoint: {error}")));
        }
    }
}

fn word(report: &Report) -> &'static str {
    match report {
        Report::Failing { .. } => "report: failing",
        Report::Back { .. } => "report: back",
        Report::Paused { .. } => "report: paused",
        Report::Resumed => "report: resumed",
        Report::TryingAgain { .. } => "report: trying again",
        Report::Emptied { .. } => "report: emptied",
        Report::Readmitted { .. } => "report: readmitted",
        Report::Damaged { .. } => "report: damaged",
        Report::Repaired { .. } => "report: repaired",
        Report::StandingBy { .. } => "report: standing by",
        Report::TookOver { .. } => "report: took over",
        _ => "report: something else",
    }
}

fn whereabouts(owner: Owner) -> Whereabouts {
    Whereabouts { host: "here".into(), boot: "today".into(), pid: u32::try_from(owner).unwrap() }
}

impl World {
    /// How a driver's log is set up.
    pub(crate) fn settings(&mut self, owner: Owner, standby: Standby) -> Settings {
        let millis = Duration::from_millis;
        Settings {
            write: Some(self.write),
            standby,
            lease: millis(150),
            request: millis(250),
            grace: millis(self.random.u64(0..60)),
            retry: (millis(4), millis(100)),
            backlog: *self.random.choice(&[0, 2_000, 1 << 20]).unwrap(),
            uploads: self.random.usize(1..3),
            rules: Sabotage::rules(self.sabotage),
            ..Settings::new("simulated", whereabouts(owner))
        }
    }
}

/// Time, chance and tasks of one driver.
struct Around {
    sim: Sim<World>,
    owner: Owner,
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver {}", self.owner)
    }
}

impl Surroundings for Around {
    fn sleep(&self, time: Duration) -> Task {
        let order = self.sim.world(|world| world.random.u32(..));
        Box::pin(self.sim.sleep(u64::try_from(time.as_millis()).unwrap(), order))
    }

    fn spawn(&self, task: Task) {
        self.sim.spawn(self.owner, task);
    }

    fn random(&self) -> u64 {
        self.sim.world(|world| world.random.u64(..))
    }

    fn is_gone(&self, whereabouts: &Whereabouts) -> bool {
        let owner = usize::try_from(whereabouts.pid).unwrap();
        self.sim.world(|world| world.is_gone(owner))
    }
}
