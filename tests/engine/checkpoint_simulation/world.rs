//! A world for the log: disks, a broker, drivers that come, pause and die, and everything that goes wrong with them.
//!
//! It deliberately judges nothing: the checker does. What goes wrong is drawn from the seed before anything happens.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill::checkpoint::chunk::ChunkRef;
use tidemill::checkpoint::container::Place;
use tidemill::checkpoint::entry::Position;
use tidemill::checkpoint::id::Epoch;
use tidemill::checkpoint::open::Checkpoint;
use tidemill::checkpoint::replica::{Key, Replica};
use tidemill::checkpoint::settings::{Settings, Standby};
use tidemill::checkpoint::standing::Standing;
use tidemill::checkpoint::surroundings::{Surroundings, Task, Whereabouts};
use tidemill::error::{Error, ErrorKind};

use super::checker::Checker;
use super::disk::{Disk, Mood, SimReplica, is_seal};
use super::driver::{self, End};
use super::executor::{Executor, Moment, Order, Orders, Owner, Sim};
use super::network::Weather;
use super::sabotage::Sabotage;
use super::sink::Broker;

/// How many drivers may live at once.
const DRIVERS: usize = 3;

/// How long the last driver may take once nothing goes wrong any more.
const TO_END: Moment = 60_000;

/// So many lines of a trace are shown with a violation.
const SHOWN: usize = 120;

/// What a run is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) replicas: usize,
    pub(crate) sabotage: Option<Sabotage>,
}

/// What became of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    /// Words for what happened, for the count of how rich the schedules are.
    pub(crate) seen: BTreeMap<&'static str, u64>,
    pub(crate) trace: Vec<String>,
}

/// How much damage there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// Never to more replicas than the log promises to bear, and always the same.
    Borne,
    /// To any: the job may have to be given up, and must not be wrong.
    Any,
}

#[derive(Debug)]
struct Alive {
    lives: bool,
    paused: bool,
    epoch: Epoch,
}

pub(crate) struct World {
    pub(crate) random: fastrand::Rng,
    pub(crate) weather: Weather,
    pub(crate) now: Moment,
    pub(crate) disks: Vec<Disk>,
    /// Which disk is mounted where.
    pub(crate) mounts: Vec<usize>,
    pub(crate) broker: Broker,
    pub(crate) checker: Checker,
    pub(crate) sabotage: Option<Sabotage>,
    write: usize,
    damage: Damage,
    /// The disks that may be damaged.
    bad: Vec<usize>,
    damaged: BTreeMap<(usize, Key), Bytes>,
    drivers: Vec<Alive>,
    orders: Vec<Order>,
    last: Option<Owner>,
    finished: bool,
    /// Whether the last driver has lost to an older one, and another must be started.
    deposed: bool,
    pub(crate) seen: BTreeMap<&'static str, u64>,
    trace: Option<Vec<String>>,
}

impl Orders for World {
    fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }
}

/// Runs one seed to its end.
pub(crate) fn run(plan: Plan) -> Outcome {
    play(plan, false)
}

/// The same with a trace.
pub(crate) fn replay(plan: Plan) -> Outcome {
    play(plan, true)
}

fn play(plan: Plan, traced: bool) -> Outcome {
    let world = World::new(plan, traced);
    let sim = Sim::new(world);
    let quiet = schedule(&sim);
    let mut executor = Executor::new(sim.clone(), plan.seed ^ 0x5eed);
    executor.run(quiet + TO_END);
    drop(executor);
    sim.world(World::judge)
}

impl World {
    fn new(plan: Plan, traced: bool) -> Self {
        let Plan { seed, replicas, sabotage } = plan;
        let mut random = fastrand::Rng::with_seed(seed);
        let majority = replicas / 2 + 1;
        let write = if random.u32(0..6) == 0 { random.usize(majority..=replicas) } else { majority };
        let damage = if random.u32(0..4) == 0 { Damage::Any } else { Damage::Borne };
        let mut bad: Vec<usize> = (0..replicas).collect();
        random.shuffle(&mut bad);
        bad.truncate(match damage {
            Damage::Any => replicas.max(2) - 1,
            Damage::Borne => replicas - write,
        });
        let trouble = *random.choice(&[0.0, 0.01, 0.03, 0.1, 0.2]).unwrap();
        let latency = *random.choice(&[1, 4, 15, 40]).unwrap();
        Self {
            weather: Weather { trouble, latency },
            now: 0,
            disks: (0..replicas).map(|_| Disk::new()).collect(),
            mounts: (0..replicas).collect(),
            broker: Broker::default(),
            checker: Checker::default(),
            sabotage,
            write,
            damage,
            bad,
            damaged: BTreeMap::new(),
            drivers: Vec::new(),
            orders: Vec::new(),
            last: None,
            finished: false,
            deposed: false,
            seen: BTreeMap::new(),
            trace: traced.then(Vec::new),
            random,
        }
    }

    pub(crate) fn disk_at(&mut self, mount: usize) -> &mut Disk {
        let disk = self.mounts[mount];
        &mut self.disks[disk]
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>6} {}", what()));
        }
    }

    pub(crate) fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_insert(0) += 1;
    }

    // ---- what drivers tell

    pub(crate) fn begins(
        &mut self,
        owner: Owner,
        epoch: Epoch,
        adopted: Option<(Position, &Standing)>,
        names: Vec<ChunkRef>,
    ) {
        self.drivers[owner].epoch = epoch;
        self.note(|| format!("driver {owner} begins epoch {epoch}, from {:?}", adopted.map(|(until, _)| until)));
        self.checker.begins((owner, epoch), adopted, names);
    }

    pub(crate) fn ended(&mut self, owner: Owner, end: &End) {
        self.note(|| format!("driver {owner} ends: {end:?}"));
        self.drivers[owner].lives = false;
        match end {
            End::Done => self.saw("a driver that stops"),
            End::Foreign(marker) => {
                self.checker.broken(format!("driver {owner} does not know the marker {marker:?}"));
            }
            End::Failed(error) => self.failed(owner, error),
        }
        if self.last == Some(owner) {
            // One that was still starting when this one was started may have deposed it.
            let deposed = matches!(end, End::Failed(error) if error.kind() == ErrorKind::Fenced);
            (self.finished, self.deposed) = (!deposed, deposed);
        }
    }

    fn failed(&mut self, owner: Owner, error: &Error) {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::Fenced => self.saw("a driver that is fenced"),
            ErrorKind::Checkpoint if text.contains("is being run by") => self.saw("a driver that lets another run"),
            ErrorKind::Checkpoint if text.contains("cannot tell a new job") => self.saw("a start that cannot tell"),
            ErrorKind::Checkpoint if self.may_refuse() => self.saw("a driver that refuses"),
            _ => self.checker.broken(format!("driver {owner} failed: {text}")),
        }
    }

    /// Whether the log may say that too much is lost.
    fn may_refuse(&self) -> bool {
        self.damage == Damage::Any || !self.checker.has_begun()
    }

    // ---- what disks tell

    pub(crate) fn is_damaged(&self, disk: usize, key: &Key) -> bool {
        self.damaged.contains_key(&(disk, key.clone()))
    }

    /// An object is replaced: nothing but the bytes that were there first may come in its place.
    pub(crate) fn overwritten(&mut self, disk: usize, key: &Key, bytes: &Bytes) {
        let was = self.damaged.remove(&(disk, key.clone())).or_else(|| self.disks[disk].get(key));
        self.saw("a repair");
        let right = was.is_none_or(|was| was == *bytes);
        self.checker.rule(right, || format!("{key} on disk {disk} was replaced by something else"));
    }

    /// An object is removed: nobody may need it.
    pub(crate) fn removed(&mut self, owner: Owner, disk: usize, key: &Key) {
        let Some(bytes) = self.disks[disk].get(key) else { return };
        self.damaged.remove(&(disk, key.clone()));
        self.note(|| format!("driver {owner} removes {key} on disk {disk}"));
        if !self.disks[disk].objects.contains_key(&Key::job()) {
            return; // it was emptied under the driver's hands: what is on it counts for nobody any more
        }
        let epoch = self.drivers[owner].epoch;
        if self.copies_of_start(epoch) >= self.write {
            self.checker.is_decided(epoch);
        }
        match key.place() {
            Some((_, Place::Chunk(at, hash))) => {
                self.saw("a chunk that is removed");
                let needed = self.checker.live().iter().any(|chunk| chunk.epoch == at && chunk.hash == hash);
                self.checker.rule(!needed, || format!("{key} is removed, and somebody may need it"));
            }
            Some((_, Place::Slot(at, _))) => {
                self.saw("a slot that is removed");
                let newest = self.checker.newest();
                let old = Some(at) < newest && !is_seal(&bytes);
                self.checker.rule(old, || format!("{key} is removed, and the newest epoch is {newest:?}"));
            }
            _ => self.checker.broken(format!("{key} is removed")),
        }
    }

    fn copies_of_start(&self, epoch: Epoch) -> usize {
        let end = format!("/log/{:020}/{:020}", epoch.0, 0);
        let has = |disk: &&Disk| {
            disk.objects.iter().any(|(key, (bytes, _))| key.as_str().ends_with(&end) && !is_seal(bytes))
        };
        self.disks.iter().filter(has).count()
    }

    // ---- what goes wrong

    fn living(&self) -> Vec<Owner> {
        (0..self.drivers.len()).filter(|owner| self.drivers[*owner].lives).collect()
    }

    fn fault(&mut self, sim: &Sim<Self>) {
        match self.random.u32(0..100) {
            0..22 => self.start(sim),
            22..34 => self.pause(sim),
            34..44 => self.crash(),
            44..62 => self.upset(sim),
            62..72 => self.wipe(),
            72..92 => self.corrupt(),
            92..96 => self.exchange(),
            _ => {}
        }
    }

    fn start(&mut self, sim: &Sim<Self>) {
        if self.living().len() < DRIVERS {
            let standby = *self.random.choice(&[Standby::Depose, Standby::Depose, Standby::Wait, Standby::Refuse]).unwrap();
            self.spawn(sim, standby, None);
        }
    }

    fn spawn(&mut self, sim: &Sim<Self>, standby: Standby, batches: Option<u64>) -> Owner {
        let owner = self.drivers.len();
        self.note(|| format!("driver {owner} is started: {standby:?}"));
        self.drivers.push(Alive { lives: true, paused: false, epoch: Epoch(0) });
        // Everything else that a start needs takes the world: so it happens a moment later.
        sim.after(0, move |world, sim| {
            let settings = world.settings(owner, standby);
            let (sim, mounts) = (sim.clone(), world.mounts.len());
            sim.clone().spawn(owner, Box::pin(async move { start(&sim, owner, mounts, settings, batches) }));
        });
        owner
    }

    fn settings(&mut self, owner: Owner, standby: Standby) -> Settings {
        let millis = Duration::from_millis;
        Settings {
            write: Some(self.write),
            standby,
            lease: millis(150),
            request: millis(250),
            grace: millis(self.random.u64(0..60)),
            retry: (millis(4), millis(100)),
            backlog: *self.random.choice(&[0, 2_000, 1 << 20]).unwrap(),
            uploads: 1,
            rules: Sabotage::rules(self.sabotage),
            ..Settings::new("simulated", whereabouts(owner))
        }
    }

    fn pause(&mut self, sim: &Sim<Self>) {
        let living: Vec<Owner> = self.living().into_iter().filter(|owner| !self.drivers[*owner].paused).collect();
        let Some(owner) = self.random.choice(living) else { return };
        let time = *self.random.choice(&[20, 200, 1_000, 3_000]).unwrap();
        self.saw("a pause");
        self.note(|| format!("driver {owner} is paused for {time}"));
        self.drivers[owner].paused = true;
        self.orders.push(Order::Pause(owner));
        sim.after(time, move |world, sim| {
            world.now = sim.now();
            world.resume(owner);
        });
    }

    fn resume(&mut self, owner: Owner) {
        if std::mem::replace(&mut self.drivers[owner].paused, false) {
            self.note(|| format!("driver {owner} wakes up"));
            self.orders.push(Order::Resume(owner));
        }
    }

    fn crash(&mut self) {
        let living = self.living();
        let Some(owner) = self.random.choice(living) else { return };
        self.saw("a crash");
        self.note(|| format!("driver {owner} crashes"));
        self.drivers[owner].lives = false;
        self.drivers[owner].paused = false;
        self.orders.push(Order::Crash(owner));
    }

    fn upset(&mut self, sim: &Sim<Self>) {
        let disk = self.random.usize(0..self.disks.len());
        let mood = *self.random.choice(&[Mood::Down, Mood::Down, Mood::Full, Mood::ReadOnly]).unwrap();
        let time = *self.random.choice(&[10, 100, 500, 2_000]).unwrap();
        self.saw("a disk that is down, full or read-only");
        self.note(|| format!("disk {disk} is {mood:?} for {time}"));
        self.disks[disk].mood = mood;
        sim.after(time, move |world, _| world.disks[disk].mood = Mood::Works);
    }

    fn wipe(&mut self) {
        if self.disks.len() == 1 {
            return; // of one alone nothing is left to tell that there was a job
        }
        let bad = self.bad.clone();
        let Some(disk) = self.random.choice(bad) else { return };
        self.saw("a disk that is emptied");
        self.note(|| format!("disk {disk} is emptied"));
        self.damaged.retain(|(at, _), _| *at != disk);
        let job = self.disks[disk].objects.remove(&Key::job());
        self.disks[disk].objects.clear();
        self.disks[disk].life += 1;
        if let Some(job) = job.filter(|_| self.sabotage == Some(Sabotage::WipedVotes)) {
            self.disks[disk].objects.insert(Key::job(), job);
        }
    }

    /// A bit flips, or the end of an object is gone. The newest objects are the likeliest: they matter most.
    fn corrupt(&mut self) {
        let bad = self.bad.clone();
        let Some(disk) = self.random.choice(bad) else { return };
        let mut keys: Vec<Key> = self.disks[disk].objects.keys().cloned().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(self.disks[disk].objects[key].1));
        let among = if self.random.bool() { keys.len() } else { keys.len().min(4) };
        let Some(key) = self.random.choice(keys.into_iter().take(among)) else { return };
        let Some((bytes, since)) = self.disks[disk].objects.get(&key).cloned() else { return };
        if bytes.is_empty() {
            return;
        }
        let mut changed = bytes.to_vec();
        match self.random.u32(0..3) {
            0 => changed.truncate(self.random.usize(0..bytes.len())),
            _ => changed[self.random.usize(0..bytes.len())] ^= 1 << self.random.u32(0..8),
        }
        self.saw("an object that is damaged");
        self.note(|| format!("{key} on disk {disk} is damaged"));
        self.disks[disk].objects.insert(key.clone(), (changed.into(), since));
        self.damaged.entry((disk, key)).or_insert(bytes);
    }

    /// Two disks are mounted in each other's place while nobody runs.
    fn exchange(&mut self) {
        if self.living().is_empty() && self.mounts.len() > 1 {
            let (a, b) = (self.random.usize(0..self.mounts.len()), self.random.usize(0..self.mounts.len()));
            self.saw("disks that are exchanged");
            self.note(|| format!("disks {a} and {b} are exchanged"));
            self.mounts.swap(a, b);
            self.disks.iter_mut().for_each(|disk| disk.life += 1);
        }
    }

    /// Nothing goes wrong from here on, and one more driver is started.
    fn heal(&mut self, sim: &Sim<Self>) {
        self.note(|| "nothing goes wrong any more".into());
        self.weather.trouble = 0.0;
        self.disks.iter_mut().for_each(|disk| disk.mood = Mood::Works);
        (0..self.drivers.len()).for_each(|owner| self.resume(owner));
        self.checker.output_so_far(&self.broker.rows);
        self.last = Some(self.spawn(sim, Standby::Depose, Some(3)));
    }

    fn judge(&mut self) -> Outcome {
        if self.checker.violation.is_none() {
            let finished = self.finished;
            self.checker.rule(finished, || "the last driver did not come to its end".into());
        }
        if self.checker.violation.is_none() {
            self.checker.output_so_far(&self.broker.rows);
            if self.damage == Damage::Borne && self.checker.has_begun() {
                self.checker.output(&self.broker.rows);
            }
        }
        let mut trace = self.trace.take().unwrap_or_default();
        let shown = trace.len().saturating_sub(SHOWN);
        Outcome {
            violation: self.checker.violation.take(),
            seen: std::mem::take(&mut self.seen),
            trace: trace.split_off(shown),
        }
    }
}

/// Draws up what goes wrong when; tells when it is over.
fn schedule(sim: &Sim<World>) -> Moment {
    let (faults, quiet) = sim.world(|world| {
        let quiet = world.random.u64(300..2_500);
        let faults: Vec<Moment> = (0..world.random.usize(2..24)).map(|_| world.random.u64(0..quiet)).collect();
        (faults, quiet)
    });
    sim.after(0, |world, sim| {
        world.spawn(sim, Standby::Depose, None);
    });
    for at in faults {
        sim.after(at, |world, sim| {
            world.now = sim.now();
            world.fault(sim);
        });
    }
    sim.after(quiet, |world, sim| {
        world.now = sim.now();
        world.heal(sim);
    });
    watch(sim);
    quiet
}

/// Ends the run when there is nothing more to see.
fn watch(sim: &Sim<World>) {
    sim.after(50, |world, sim| {
        world.now = sim.now();
        if world.finished || world.checker.violation.is_some() {
            sim.stop();
        } else {
            if std::mem::take(&mut world.deposed) {
                world.last = Some(world.spawn(sim, Standby::Depose, Some(3)));
            }
            watch(sim);
        }
    });
}

fn start(sim: &Sim<World>, owner: Owner, mounts: usize, settings: Settings, batches: Option<u64>) {
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
        Err(error) => sim.world(|world| world.checker.broken(format!("no checkpoint: {error}"))),
    }
}

fn word(report: &tidemill::checkpoint::report::Report) -> &'static str {
    use tidemill::checkpoint::report::Report;
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
        let tie = self.sim.world(|world| world.random.u32(..));
        Box::pin(self.sim.sleep(u64::try_from(time.as_millis()).unwrap(), tie))
    }

    fn spawn(&self, task: Task) {
        self.sim.spawn(self.owner, task);
    }

    fn random(&self) -> u64 {
        self.sim.world(|world| world.random.u64(..))
    }

    fn is_gone(&self, whereabouts: &Whereabouts) -> bool {
        let owner = usize::try_from(whereabouts.pid).unwrap();
        self.sim.world(|world| world.drivers.get(owner).is_some_and(|driver| !driver.lives))
    }
}
