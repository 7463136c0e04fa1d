//! Losses of power at every moment of a replica's life: what it once told is so for good, and nothing is ever torn.
//!
//! Two processes live one after the other. The first is killed at any of its calls of the disk; the second finds what is
//! there and goes on; power is lost at any of its calls, and whatever was not synced is lost or kept, in any
//! combination. `TIDEMILL_DISK_STATES=50000 cargo test --test engine checkpoint::power_loss` looks at more of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidemill::checkpoint::container::{ChunkHash, Epoch, Incarnation, Index, Place};
use tidemill::checkpoint::replica::contract::wait;
use tidemill::checkpoint::replica::disk::Disk;
use tidemill::checkpoint::replica::{Key, LocalReplica, Put, PutOrEqual, Replica, put_or_equal};

use super::model_disk::{Model, ModelDisk, Sabotage};

const STATES: usize = 20_000;

fn states() -> usize {
    std::env::var("TIDEMILL_DISK_STATES")
        .map_or(STATES, |count| count.parse().expect("TIDEMILL_DISK_STATES is a number"))
}

/// Two levels of it are there to be made, too.
const DIRECTORY: &str = "/disks/one/app";

const INCARNATION: Incarnation = Incarnation(1);

fn slot(index: u64) -> Key {
    Key::of(INCARNATION, &Place::Slot(Epoch(1), Index(index)))
}

fn chunk(content: &[u8]) -> Key {
    Key::of(INCARNATION, &Place::Chunk(Epoch(1), ChunkHash::of(content)))
}

fn claim(epoch: u64) -> Key {
    Key::of(INCARNATION, &Place::Claim(Epoch(epoch)))
}

/// What may be found at a key: absent (none) or bytes.
type Found = Option<Bytes>;

/// What a process was told, and what it has asked for and was not yet told.
#[derive(Clone, Debug, Default)]
struct Knowledge {
    /// From the moment of the disk's history on, exactly this may be found.
    told: Vec<(usize, Key, Vec<Found>)>,
}

impl Knowledge {
    /// What may be found at each key when power is lost at `moment`.
    fn at(&self, moment: usize) -> BTreeMap<Key, Vec<Found>> {
        let known = self.told.iter().filter(|(from, ..)| *from <= moment);
        known.map(|(_, key, found)| (key.clone(), found.clone())).collect()
    }
}

/// A process that has the replica open, and whoever watches it.
struct Process<'a> {
    disk: &'a ModelDisk,
    replica: LocalReplica,
    knowledge: Knowledge,
}

impl<'a> Process<'a> {
    fn start(disk: &'a ModelDisk, knowledge: Knowledge) -> Self {
        let replica = LocalReplica::open_on(Arc::new(disk.clone()), Path::new(DIRECTORY)).unwrap();
        Self { disk, replica, knowledge }
    }

    /// From now on one of `found` may be found at `key`.
    fn may_find(&mut self, key: &Key, found: impl IntoIterator<Item = Found>) {
        // The state of the disk that is there now is the first of which this is so.
        let moment = self.disk.moments() - 1;
        self.knowledge.told.push((moment, key.clone(), found.into_iter().collect()));
    }

    /// What may be found at `key` as things stand.
    fn possible(&self, key: &Key) -> Vec<Found> {
        self.knowledge.at(usize::MAX).remove(key).unwrap_or_else(|| vec![None])
    }

    /// What may be found, as if that had been so from the first state on.
    fn possible_from_the_start(&self) -> Vec<(usize, Key, Vec<Found>)> {
        self.knowledge.at(usize::MAX).into_iter().map(|(key, found)| (0, key, found)).collect()
    }

    fn put(&mut self, key: &Key, bytes: &'static [u8]) {
        let bytes = Bytes::from_static(bytes);
        let mut during = self.possible(key);
        during.push(Some(bytes.clone()));
        self.may_find(key, during);
        match wait(put_or_equal(&self.replica, key, bytes.clone())).unwrap() {
            PutOrEqual::Stored => self.may_find(key, [Some(bytes)]),
            PutOrEqual::Other(found) => self.may_find(key, [Some(found)]),
        }
    }

    /// Puts bytes and looks at the answer alone: that something is there, it says, whatever it may be.
    fn collide(&mut self, key: &Key, bytes: &'static [u8]) {
        let bytes = Bytes::from_static(bytes);
        let mut possible = self.possible(key);
        possible.push(Some(bytes.clone()));
        self.may_find(key, possible.clone());
        match wait(self.replica.put_new(key, bytes.clone())).unwrap() {
            Put::Created => self.may_find(key, [Some(bytes)]),
            Put::Exists => self.may_find(key, possible.into_iter().flatten().map(Some)),
        }
    }

    fn overwrite(&mut self, key: &Key, bytes: &'static [u8]) {
        let bytes = Bytes::from_static(bytes);
        let mut during = self.possible(key);
        during.push(Some(bytes.clone()));
        self.may_find(key, during);
        wait(self.replica.overwrite(key, bytes.clone())).unwrap();
        self.may_find(key, [Some(bytes)]);
    }

    fn delete(&mut self, key: &Key) {
        let mut found = self.possible(key);
        found.push(None);
        self.may_find(key, found);
        wait(self.replica.delete(key)).unwrap();
    }

    /// Reads what is there: from now on it must stay.
    fn get(&mut self, key: &Key) -> Found {
        let found = wait(self.replica.get(key)).unwrap();
        if found.is_some() {
            self.may_find(key, [found.clone()]);
        }
        found
    }
}

fn first_life(process: &mut Process<'_>) {
    process.put(&Key::job(), b"whose it is");
    process.put(&claim(1), b"the claim of epoch 1");
    process.put(&slot(0), b"START");
    process.put(&chunk(b"a"), b"a chunk of state");
    process.put(&slot(1), b"PREPARE with a chunk");
    process.put(&slot(1), b"PREPARE with a chunk");
    process.overwrite(&slot(0), b"START, repaired");
    process.delete(&chunk(b"a"));
    process.put(&slot(2), b"COMMIT");
}

/// Lives differ in what they do first: only so is a name that was not made durable believed in every way there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecondLife {
    /// Lists and reads, as a take-over does, then seals.
    Reads,
    /// Reads without a listing.
    ReadsBlindly,
    /// Puts the same once more, as after a lost answer.
    Repeats,
    /// Puts other bytes where something may be, and believes the answer without a look.
    Collides,
    /// Puts something else in the same directories.
    GoesOn,
}

const SECOND_LIVES: [SecondLife; 5] = [
    SecondLife::Reads,
    SecondLife::ReadsBlindly,
    SecondLife::Repeats,
    SecondLife::Collides,
    SecondLife::GoesOn,
];

fn second_life(process: &mut Process<'_>, how: SecondLife) {
    match how {
        SecondLife::Reads => {
            let listed = wait(process.replica.list(&Key::root())).unwrap();
            for (key, length) in listed {
                let found = process.get(&key).expect("what is listed is there");
                assert_eq!(found.len() as u64, length);
            }
            process.put(&claim(2), b"the claim of epoch 2");
            let free = (0..10).find(|index| process.get(&slot(*index)).is_none()).unwrap();
            process.put(&slot(free), b"SEAL");
        }
        SecondLife::ReadsBlindly => {
            for key in [Key::job(), claim(1), slot(2), slot(1), slot(0), chunk(b"a")] {
                process.get(&key);
            }
        }
        SecondLife::Repeats => {
            process.put(&slot(2), b"COMMIT");
            process.put(&slot(1), b"PREPARE with a chunk");
            process.put(&claim(1), b"the claim of epoch 1");
            process.put(&Key::job(), b"whose it is");
        }
        SecondLife::Collides => {
            for key in [slot(2), slot(1), claim(1), Key::job()] {
                process.collide(&key, b"a rival's");
            }
        }
        SecondLife::GoesOn => {
            process.put(&slot(3), b"NOOP");
            process.put(&chunk(b"b"), b"another chunk");
        }
    }
}

/// What was seen, or the first thing that should not have been.
struct Tally {
    states: usize,
    /// In how many ways power is lost at one moment, at the most.
    ways: usize,
    random: fastrand::Rng,
}

impl Tally {
    fn new(ways: usize) -> Self {
        Self { states: 0, ways, random: fastrand::Rng::with_seed(1) }
    }

    /// Loses power at every moment of a life, in as many ways as are granted.
    fn lose_power(&mut self, history: &[Model], knowledge: &Knowledge, ways: usize) -> Result<(), String> {
        for (moment, model) in history.iter().enumerate() {
            let known = knowledge.at(moment);
            for answers in self.ways(&model.choices(), ways) {
                self.states += 1;
                look(&model.after_power_loss(&answers), &known).map_err(|wrong| {
                    format!("power lost at moment {moment} of {}: {wrong}", history.len() - 1)
                })?;
            }
        }
        Ok(())
    }

    /// Every combination where they are few; else everything lost, everything kept, and some in between.
    fn ways(&mut self, choices: &[usize], most: usize) -> Vec<Vec<usize>> {
        let all = choices.iter().try_fold(1_usize, |product, choices| product.checked_mul(*choices));
        if all.is_some_and(|all| all <= most) {
            return every_combination(choices);
        }
        let mut ways = vec![vec![0; choices.len()], choices.iter().map(|choices| choices - 1).collect()];
        let random = &mut self.random;
        let mut draw = || choices.iter().map(|choices| random.usize(..choices)).collect();
        ways.extend((2..most).map(|_| draw()));
        ways
    }
}

fn every_combination(choices: &[usize]) -> Vec<Vec<usize>> {
    choices.iter().fold(vec![Vec::new()], |ways, choices| {
        let longer = |way: &Vec<usize>| {
            let way = way.clone();
            (0..*choices).map(move |answer| [way.as_slice(), &[answer]].concat()).collect::<Vec<_>>()
        };
        ways.iter().flat_map(longer).collect()
    })
}

/// Opens the replica on what is left, and finds everything that must be there, whole, and nothing that may not be.
fn look(left: &Model, known: &BTreeMap<Key, Vec<Found>>) -> Result<(), String> {
    let disk = Arc::new(ModelDisk::new(left.clone(), Sabotage::None));
    let replica = LocalReplica::open_on(disk, Path::new(DIRECTORY)).map_err(|error| error.to_string())?;
    for (key, possible) in known {
        let found = wait(replica.get(key)).map_err(|error| error.to_string())?;
        if !possible.contains(&found) {
            return Err(format!("at {key} is {found:?}, and not one of {possible:?}"));
        }
    }
    for (key, length) in wait(replica.list(&Key::root())).map_err(|error| error.to_string())? {
        let whole = |found: &Found| found.as_ref().is_some_and(|bytes| bytes.len() as u64 == length);
        if !known.get(&key).is_some_and(|possible| possible.iter().any(whole)) {
            return Err(format!("a listing has {key} with {length} bytes"));
        }
    }
    Ok(())
}

/// Lives, kills and losses of power on a disk that does what `sabotage` leaves of its promises.
fn live(sabotage: Sabotage, tally: &mut Tally) -> Result<(), String> {
    let disk = ModelDisk::new(Model::new(), sabotage);
    let mut first = Process::start(&disk, Knowledge::default());
    first_life(&mut first);
    let (history, knowledge) = (disk.history(), first.knowledge);
    let ways = tally.ways;
    tally.lose_power(&history, &knowledge, 64 * ways)?;
    for (killed, model) in history.iter().enumerate() {
        for how in SECOND_LIVES {
            let known = knowledge.at(killed).into_iter().map(|(key, found)| (0, key, found));
            let disk = ModelDisk::new(model.clone(), sabotage);
            let mut second = Process::start(&disk, Knowledge { told: known.collect() });
            second_life(&mut second, how);
            tally
                .lose_power(&disk.history(), &second.knowledge, ways)
                .map_err(|wrong| format!("killed at moment {killed}, then {how:?}, {wrong}"))?;
        }
    }
    Ok(())
}

#[test]
fn what_was_told_outlives_a_loss_of_power() {
    // Twice as many ways each time, until there are states enough, or no more.
    let mut seen = 0;
    for ways in (1..24).map(|power| 1 << power) {
        let mut tally = Tally::new(ways);
        if let Err(wrong) = live(Sabotage::None, &mut tally) {
            panic!("{wrong}");
        }
        let is_all = tally.states == seen;
        seen = tally.states;
        if is_all || seen >= states() {
            break;
        }
    }
    assert!(seen >= states(), "there are no more than {seen} states");
}

#[test]
fn a_repair_by_a_rival_that_died_is_made_durable_by_who_reads_it() {
    let disk = ModelDisk::new(Model::new(), Sabotage::None);
    let mut process = Process::start(&disk, Knowledge::default());
    process.put(&slot(0), b"damaged");
    wait(process.replica.list(&Key::root())).unwrap();
    // The rival is killed between the new name and the sync.
    let [staged, place] = ["#staging/rival", slot(0).as_str()].map(|path| Path::new(DIRECTORY).join(path));
    let mut file = disk.create(&staged).unwrap();
    file.write(b"repaired").and_then(|()| file.sync()).unwrap();
    disk.rename(&staged, &place).unwrap();
    process.knowledge.told.clear();
    assert_eq!(process.get(&slot(0)).as_deref(), Some(&b"repaired"[..]));
    let last = disk.history().split_off(disk.moments() - 1);
    let knowledge = Knowledge { told: process.possible_from_the_start() };
    Tally::new(2).lose_power(&last, &knowledge, 64).unwrap();
}

#[test]
fn without_the_syncs_it_does_not() {
    for sabotage in [Sabotage::Files, Sabotage::Directories, Sabotage::NewDirectories, Sabotage::OthersNames]
    {
        let wrong = live(sabotage, &mut Tally::new(2));
        assert!(wrong.is_err(), "a disk that does not sync ({sabotage:?}) passes for one that does");
    }
}

#[test]
fn the_model_forgets_what_was_not_synced_and_keeps_what_was() {
    let disk = ModelDisk::new(Model::new(), Sabotage::None);
    let [file, directory] = [Path::new("/a/file"), Path::new("/a")];
    disk.make_directory(directory).unwrap();
    let mut written = disk.create(file).unwrap();
    written.write(b"content").unwrap();
    let left = |disk: &ModelDisk| {
        let model = disk.history().pop().unwrap();
        let ways = every_combination(&model.choices());
        let read = |answers: &Vec<usize>| {
            ModelDisk::new(model.after_power_loss(answers), Sabotage::None)
                .read(file, 100)
                .ok()
                .map(|found| found.bytes)
        };
        let mut left: Vec<_> = ways.iter().map(read).collect();
        left.sort();
        left.dedup();
        left
    };
    let [all, half, zeros] = [&b"content"[..], b"con", &[0; 7]].map(|bytes| Some(bytes.to_vec()));
    assert_eq!(left(&disk), [None, Some(Vec::new()), zeros, half, all.clone()]);
    written.sync().unwrap();
    assert_eq!(left(&disk), [None, all.clone()], "the name may be lost");
    disk.sync_directory(directory).unwrap();
    assert_eq!(left(&disk), [None, all.clone()], "the name of the directory may be lost");
    disk.sync_directory(Path::new("/")).unwrap();
    assert_eq!(left(&disk), [all]);
}
