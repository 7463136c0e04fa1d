//! A world for the log: disks, a broker, and drivers that come and go; what they tell, and what is to be thought of it.
//!
//! It deliberately keeps no history: the checker does. It says which ends of a driver are right, and which are not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidemill::checkpoint::chunk::ChunkRef;
use tidemill::checkpoint::container::Place;
use tidemill::checkpoint::entry::Position;
use tidemill::checkpoint::id::Epoch;
use tidemill::checkpoint::replica::Key;
use tidemill::checkpoint::standing::Standing;
use tidemill::error::{Error, ErrorKind};

use super::checker::{Checker, Fault};
use super::disk::{Disk, Mood, is_seal};
use super::driver::End;
use super::executor::{Moment, Order, Orders, Owner};
use super::mishap::EMPTIED;
use super::network::Weather;
use super::sabotage::Sabotage;
use super::schedule::{Outcome, Plan};
use super::sink::Broker;

/// So many lines of a trace are shown with a violation.
const SHOWN: usize = 300;

/// How much damage there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Never to more replicas than the log promises to bear, and always the same.
    Borne,
    /// To any: the job may have to be given up, and must not be wrong.
    Any,
}

/// A driver.
#[derive(Debug)]
pub(crate) struct Alive {
    pub(crate) lives: bool,
    pub(crate) paused: bool,
    /// Whether its START is decided.
    pub(crate) started: bool,
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
    pub(crate) write: usize,
    pub(crate) damage: Damage,
    /// The disks that may be damaged.
    pub(crate) bad: Vec<usize>,
    pub(crate) damaged: BTreeMap<(usize, Key), Bytes>,
    /// The disks that have had a START.
    copies: BTreeMap<Epoch, BTreeSet<usize>>,
    /// Since when so many have had it that it is decided.
    decided: BTreeMap<Epoch, Moment>,
    pub(crate) drivers: Vec<Alive>,
    pub(crate) orders: Vec<Order>,
    pub(crate) last: Option<Owner>,
    pub(crate) finished: bool,
    /// Whether the last driver has lost to an older one, and another must be started.
    pub(crate) deposed: bool,
    pub(crate) seen: BTreeMap<&'static str, u64>,
    trace: Option<Vec<String>>,
}

impl Orders for World {
    fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }
}

impl World {
    pub(crate) fn new(plan: Plan, traced: bool) -> Self {
        let Plan { seed, replicas, sabotage, script } = plan;
        let mut random = fastrand::Rng::with_seed(seed);
        let majority = replicas / 2 + 1;
        let write = if random.u32(0..6) == 0 { random.usize(majority..=replicas) } else { majority };
        let damage = if random.u32(0..4) == 0 { Damage::Any } else { Damage::Borne };
        let (write, damage) = if script.is_some() { (majority, Damage::Borne) } else { (write, damage) };
        let mut bad: Vec<usize> = (0..replicas).collect();
        random.shuffle(&mut bad);
        bad.truncate(match damage {
            Damage::Any => replicas.max(2) - 1,
            Damage::Borne => replicas - write,
        });
        let trouble = *random.choice(&[0.0, 0.01, 0.03, 0.1, 0.2]).unwrap();
        let latency = *random.choice(&[1, 4, 15, 40]).unwrap();
        Self {
            weather: if script.is_some() { Weather::FAIR } else { Weather { trouble, latency } },
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
            copies: BTreeMap::new(),
            decided: BTreeMap::new(),
            drivers: Vec::new(),
            orders: Vec::new(),
            last: None,
            finished: false,
            deposed: false,
            seen: BTreeMap::new(),
            trace: traced
                .then(|| vec![format!("W {write}, {damage:?}, {trouble} trouble, {latency} latency")]),
            random,
        }
    }

    pub(crate) fn is_gone(&self, owner: Owner) -> bool {
        self.drivers.get(owner).is_some_and(|driver| !driver.lives)
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
        self.note(|| {
            format!("driver {owner} begins epoch {epoch}, from {:?}", adopted.map(|(until, _)| until))
        });
        self.drivers[owner].started = false;
        // Assumed by the design: that of a majority on which an epoch is claimed not all is lost. Where it may be, and the job
        // has not begun, the epoch may be claimed again: nobody was told that anything of it is decided, or will be.
        if self.damage == Damage::Any && !self.checker.has_begun() {
            self.checker.forgets(epoch);
        }
        self.checker.begins((owner, epoch), adopted, names);
    }

    pub(crate) fn started(&mut self, owner: Owner, epoch: Epoch, proof: Position) {
        self.drivers[owner].started = true;
        self.checker.started(epoch);
        self.checker.acknowledged(proof);
    }

    pub(crate) fn ended(&mut self, owner: Owner, end: &End) {
        self.note(|| format!("driver {owner} ends: {end:?}"));
        self.drivers[owner].lives = false;
        match end {
            End::Done => self.saw("a driver that stops"),
            End::Foreign(marker) => {
                self.checker
                    .broken(Fault::Output, format!("driver {owner} does not know the marker {marker:?}"));
            }
            End::Failed(error) => self.failed(owner, error),
        }
        if self.last == Some(owner) {
            // One that was still starting when this one was started may have deposed it.
            let deposed = matches!(end, End::Failed(error) if error.kind() == ErrorKind::Fenced);
            (self.finished, self.deposed) = (!deposed, deposed);
            let may = deposed || self.may_refuse() || self.is_named_by_two(end);
            self.checker.rule(Fault::Stuck, may || matches!(end, End::Done), || {
                format!("the last driver ended: {end:?}")
            });
            self.judge_output();
        }
    }

    fn failed(&mut self, owner: Owner, error: &Error) {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::Fenced => self.saw("a driver that is fenced"),
            ErrorKind::Checkpoint if text.contains("is being run by") => {
                self.saw("a driver that lets another run");
            }
            ErrorKind::Checkpoint if text.contains("cannot tell a new job") => {
                self.saw("a start that cannot tell");
            }
            // Its START changes who votes, or is the first: and so it needs replicas that are not needed later.
            ErrorKind::Checkpoint if text.contains("can take no more") && !self.drivers[owner].started => {
                self.saw("a START that is cut short");
            }
            ErrorKind::Checkpoint if names_two_jobs(error) && self.seen.contains_key(EMPTIED) => {
                self.saw("a disk that is named by two");
            }
            ErrorKind::Checkpoint if self.may_refuse() => self.saw("a driver that refuses"),
            _ => self.checker.broken(Fault::Stuck, format!("driver {owner} failed: {text}")),
        }
    }

    /// Assumed by the design: that whoever begins a job's first start ends it before a disk is emptied. A driver that slept
    /// through that names the empty disk for a job of its own; then the list of replicas is that of no one job, nobody can
    /// tell which is meant, and a human must decide.
    fn is_named_by_two(&self, end: &End) -> bool {
        self.seen.contains_key(EMPTIED) && matches!(end, End::Failed(error) if names_two_jobs(error))
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
        self.checker
            .rule(Fault::Replaced, right, || format!("{key} on disk {disk} was replaced by something else"));
    }

    /// An object is there that was not: with the last of W copies of a START, the START is decided.
    pub(crate) fn came(&mut self, disk: usize, key: &Key, bytes: &Bytes) {
        let Some((_, Place::Slot(epoch, index))) = key.place() else { return };
        if index.0 == 0 && !is_seal(bytes) {
            let copies = self.copies.entry(epoch).or_default();
            copies.insert(disk); // a copy that is lost later was one all the same
            if copies.len() >= self.write {
                self.checker.is_decided(epoch);
                self.decided.entry(epoch).or_insert(self.now);
            }
        }
    }

    /// An object is removed: nobody may need it.
    pub(crate) fn removed(&mut self, owner: Owner, disk: usize, key: &Key) {
        let Some((bytes, since)) = self.disks[disk].objects.get(key).cloned() else { return };
        self.damaged.remove(&(disk, key.clone()));
        self.note(|| format!("driver {owner} removes {key} on disk {disk}"));
        if !self.disks[disk].objects.contains_key(&Key::job()) {
            return; // it was emptied under the driver's hands: what is on it counts for nobody any more
        }
        match key.place() {
            Some((_, Place::Chunk(at, hash))) => {
                self.saw("a chunk that is removed");
                let needed = self.checker.live().iter().any(|chunk| chunk.epoch == at && chunk.hash == hash);
                self.checker
                    .rule(Fault::Removed, !needed, || format!("{key} is removed, and somebody may need it"));
            }
            Some((_, Place::Slot(at, _))) => {
                self.saw("a slot that is removed");
                let newest = self.checker.newest();
                let old = Some(at) < newest && (!is_seal(&bytes) || self.ends_nothing(since, at));
                self.checker.rule(Fault::Removed, old, || {
                    format!("{key} is removed, and the newest epoch is {newest:?}")
                });
            }
            _ => self.checker.broken(Fault::Removed, format!("{key} is removed")),
        }
    }

    /// Whether a later epoch was decided before the SEAL came: then its log was of no use any more, and the SEAL ends nothing.
    /// Its request was so late that what stood in its slot, or in its log, has been collected since.
    fn ends_nothing(&self, seal: Moment, of: Epoch) -> bool {
        self.decided.iter().any(|(epoch, since)| *epoch > of && *since <= seal)
    }

    // ---- the end

    /// Nothing goes wrong from here on.
    pub(crate) fn heal(&mut self) {
        self.note(|| "nothing goes wrong any more".into());
        self.weather.trouble = 0.0;
        self.disks.iter_mut().for_each(|disk| disk.mood = Mood::Works);
        (0..self.drivers.len()).for_each(|owner| self.resume(owner));
        self.checker.output_so_far(&self.broker.rows);
    }

    /// What is in the sink when the last driver has ended, and before anybody else does anything.
    fn judge_output(&mut self) {
        self.checker.output_so_far(&self.broker.rows);
        let went_on = self.last.is_some_and(|last| self.drivers[last].started);
        if self.finished && went_on {
            self.checker.output(&self.broker.rows);
        }
    }

    pub(crate) fn judge(&mut self) -> Outcome {
        if self.checker.violation.is_none() {
            let finished = self.finished;
            self.checker.rule(Fault::Stuck, finished, || "the last driver did not come to its end".into());
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

fn names_two_jobs(error: &Error) -> bool {
    error.to_string().contains("belongs to job")
}
