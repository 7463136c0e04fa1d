//! What goes wrong with drivers and disks, beside the network: drawn by chance, or written down in a schedule.
//!
//! It deliberately keeps to what the design assumes of the world; where it does, it says which assumption that is.

use tidemill::checkpoint::replica::Key;
use tidemill::checkpoint::settings::Standby;

use super::disk::Mood;
use super::executor::{Moment, Order, Owner, Sim};
use super::sabotage::Sabotage;
use super::surroundings::start;
use super::world::{Alive, Damage, World};

/// How many drivers may live at once.
const DRIVERS: usize = 3;

/// What is counted as "a disk that is emptied".
pub(crate) const EMPTIED: &str = "a disk that is emptied";

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mishap {
    /// Another driver is started, though one may be running.
    Start(Standby),
    /// A driver stands still for a while.
    Pause(Owner, Moment),
    /// A driver dies.
    Crash(Owner),
    /// A disk does not do all that it is asked for a while.
    Upset(usize, Mood, Moment),
    /// A disk is exchanged for an empty one.
    Empty(usize),
    /// A bit flips, or the end of an object is gone, on a disk.
    Damage(usize),
    /// Two disks are mounted in each other's place.
    Exchange(usize, usize),
}

impl World {
    /// Draws what goes wrong next; nothing, where what was drawn cannot happen now.
    pub(crate) fn draw(&mut self) -> Option<Mishap> {
        match self.random.u32(0..100) {
            0..22 => self.draw_start(),
            22..34 => self.draw_pause(),
            34..44 => self.draw_living(|_| true).map(Mishap::Crash),
            44..62 => Some(self.draw_upset()),
            62..72 => self.draw_empty(),
            72..92 => self.draw_bad().map(Mishap::Damage),
            92..96 => self.draw_exchange(),
            _ => None,
        }
    }

    fn living(&self) -> Vec<Owner> {
        (0..self.drivers.len()).filter(|owner| self.drivers[*owner].lives).collect()
    }

    fn draw_living(&mut self, is: impl Fn(&Alive) -> bool) -> Option<Owner> {
        let living: Vec<Owner> =
            self.living().into_iter().filter(|owner| is(&self.drivers[*owner])).collect();
        self.random.choice(living)
    }

    fn draw_start(&mut self) -> Option<Mishap> {
        let standby =
            *self.random.choice(&[Standby::Depose, Standby::Depose, Standby::Wait, Standby::Refuse])?;
        (self.living().len() < DRIVERS).then_some(Mishap::Start(standby))
    }

    fn draw_pause(&mut self) -> Option<Mishap> {
        let owner = self.draw_living(|driver| !driver.paused)?;
        Some(Mishap::Pause(owner, *self.random.choice(&[20, 200, 1_000, 3_000])?))
    }

    fn draw_upset(&mut self) -> Mishap {
        let disk = self.random.usize(0..self.disks.len());
        let mood = *self.random.choice(&[Mood::Down, Mood::Down, Mood::Full, Mood::ReadOnly]).unwrap();
        Mishap::Upset(disk, mood, *self.random.choice(&[10, 100, 500, 2_000]).unwrap())
    }

    /// Assumed by the design: that no more than N − W replicas are lost, unless the stream may refuse to go on; that of one
    /// replica alone nothing is lost, since nothing would be left to tell that there was a job; and that all are there, and
    /// stay, for the first start, which only then is told from the loss of a job.
    fn draw_empty(&mut self) -> Option<Mishap> {
        let may = self.disks.len() > 1 && (self.damage == Damage::Any || self.checker.has_begun());
        self.draw_bad().filter(|_| may).map(Mishap::Empty)
    }

    fn draw_bad(&mut self) -> Option<usize> {
        let bad = self.bad.clone();
        self.random.choice(bad)
    }

    /// Assumed by the design: that what a URL stands for changes only while nobody runs.
    fn draw_exchange(&mut self) -> Option<Mishap> {
        let (a, b) = (self.random.usize(0..self.mounts.len()), self.random.usize(0..self.mounts.len()));
        (self.living().is_empty() && self.mounts.len() > 1).then_some(Mishap::Exchange(a, b))
    }

    /// Lets something go wrong.
    pub(crate) fn befall(&mut self, sim: &Sim<Self>, mishap: Mishap) {
        self.note(|| format!("{mishap:?}"));
        match mishap {
            Mishap::Start(standby) => _ = self.start(sim, standby, None),
            Mishap::Pause(owner, time) => self.pause(sim, owner, time),
            Mishap::Crash(owner) => self.crash(owner),
            Mishap::Upset(disk, mood, time) => self.upset(sim, (disk, mood), time),
            Mishap::Empty(disk) => self.empty(disk),
            Mishap::Damage(disk) => self.damage(disk),
            Mishap::Exchange(a, b) => self.exchange(a, b),
        }
    }

    /// Starts a driver, to do so many batches where a number is given.
    pub(crate) fn start(&mut self, sim: &Sim<Self>, standby: Standby, batches: Option<u64>) -> Owner {
        let owner = self.drivers.len();
        self.note(|| format!("driver {owner} is started: {standby:?}"));
        self.drivers.push(Alive { lives: true, paused: false, started: false });
        // Everything else that a start needs takes the world: so it happens a moment later.
        sim.after(0, move |world, sim| {
            if !world.drivers[owner].lives {
                return;
            }
            let settings = world.settings(owner, standby);
            let (sim, mounts) = (sim.clone(), world.mounts.len());
            sim.clone().spawn(owner, Box::pin(async move { start(&sim, owner, mounts, settings, batches) }));
        });
        owner
    }

    fn pause(&mut self, sim: &Sim<Self>, owner: Owner, time: Moment) {
        self.saw("a pause");
        self.drivers[owner].paused = true;
        self.orders.push(Order::Pause(owner));
        sim.after(time, move |world, sim| {
            world.now = sim.now();
            world.resume(owner);
        });
    }

    pub(crate) fn resume(&mut self, owner: Owner) {
        if std::mem::replace(&mut self.drivers[owner].paused, false) {
            self.note(|| format!("driver {owner} wakes up"));
            self.orders.push(Order::Resume(owner));
        }
    }

    fn crash(&mut self, owner: Owner) {
        self.saw("a crash");
        (self.drivers[owner].lives, self.drivers[owner].paused) = (false, false);
        self.orders.push(Order::Crash(owner));
    }

    fn upset(&mut self, sim: &Sim<Self>, (disk, mood): (usize, Mood), time: Moment) {
        self.saw("a disk that is down, full or read-only");
        self.disks[disk].mood = mood;
        sim.after(time, move |world, _| world.disks[disk].mood = Mood::Works);
    }

    fn empty(&mut self, disk: usize) {
        self.saw(EMPTIED);
        self.damaged.retain(|(at, _), _| *at != disk);
        let job = self.disks[disk].objects.remove(&Key::job());
        self.disks[disk].objects.clear();
        self.disks[disk].life += 1;
        if let Some(job) = job.filter(|_| self.sabotage == Some(Sabotage::WipedVotes)) {
            self.disks[disk].objects.insert(Key::job(), job);
        }
    }

    /// Damages an object. The newest are the likeliest: they matter most.
    fn damage(&mut self, disk: usize) {
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

    fn exchange(&mut self, a: usize, b: usize) {
        self.saw("disks that are exchanged");
        self.mounts.swap(a, b);
        self.disks.iter_mut().for_each(|disk| disk.life += 1);
    }
}
