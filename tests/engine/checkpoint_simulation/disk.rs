//! A replica on a disk that may be down, full, emptied, exchanged or corrupt.
//!
//! It deliberately checks nothing that the log does; it only tells the checker what was removed.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use tidemill::checkpoint::container::Place;
use tidemill::checkpoint::replica::{Key, Put, Replica, ReplicaError, ReplicaErrorKind, Reply};

use super::executor::{Moment, Owner, Sim};
use super::network::request;
use super::sabotage::Sabotage;
use super::world::World;

/// What a disk does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Works,
    Down,
    Full,
    ReadOnly,
}

/// A disk: what is on it, and since when.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) objects: BTreeMap<Key, (Bytes, Moment)>,
    pub(crate) mood: Mood,
    /// Counts how often it was emptied: requests from before do not reach it any more.
    pub(crate) life: u64,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { objects: BTreeMap::new(), mood: Mood::Works, life: 0 }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Bytes> {
        self.objects.get(key).map(|(bytes, _)| bytes.clone())
    }

    fn put(&mut self, key: &Key, bytes: &Bytes, now: Moment) -> Put {
        if self.objects.contains_key(key) {
            return Put::Exists;
        }
        self.objects.insert(key.clone(), (bytes.clone(), now));
        Put::Created
    }

    fn below(&self, prefix: &Key) -> impl Iterator<Item = (&Key, &(Bytes, Moment))> {
        let prefix = prefix.clone();
        self.objects.range(prefix.clone()..).take_while(move |(key, _)| {
            key.is_below(&prefix) || **key == prefix || key.as_str().starts_with(prefix.as_str())
        })
    }
}

/// The byte of an object that says what it is.
fn kind(bytes: &Bytes) -> Option<u8> {
    bytes.get(10).copied()
}

/// Whether it is a SEAL.
pub(crate) fn is_seal(bytes: &Bytes) -> bool {
    kind(bytes) == Some(10)
}

/// A disk, as one driver reaches it.
pub(crate) struct SimReplica {
    pub(crate) sim: Sim<World>,
    pub(crate) owner: Owner,
    pub(crate) mount: usize,
    pub(crate) url: String,
}

impl fmt::Debug for SimReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// What a disk may refuse.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Remove,
    Write,
}

impl SimReplica {
    fn ask<T: Send + 'static>(
        &self,
        access: Access,
        work: impl Fn(&mut World, usize, Moment) -> T + Send + Sync + 'static,
    ) -> Reply<'static, T> {
        let (sim, mount, url) = (self.sim.clone(), self.mount, self.url.clone());
        let life = sim.world(|world| world.disk_at(mount).life);
        let clock = sim.clone();
        Box::pin(async move {
            let answer = request(sim, move |world, asked| {
                let place = world.mounts[mount];
                let disk = world.disk_at(mount);
                let refused = match (disk.mood, access) {
                    _ if disk.life != life => Some(ReplicaErrorKind::Unavailable),
                    (Mood::Down, _) => Some(ReplicaErrorKind::Unavailable),
                    (Mood::Full, Access::Write) => Some(ReplicaErrorKind::Full),
                    (Mood::ReadOnly, Access::Write | Access::Remove) => Some(ReplicaErrorKind::ReadOnly),
                    _ => None,
                };
                refused.map_or_else(|| Ok(work(world, place, asked)), Err)
            });
            match answer.await {
                Some(Ok(answer)) => Ok(answer),
                Some(Err(kind)) => {
                    Err(ReplicaError::new(kind, format!("{url}: {kind:?} at {}", clock.now())))
                }
                None => Err(ReplicaError::new(ReplicaErrorKind::Unavailable, format!("{url}: nobody knows"))),
            }
        })
    }

    fn sabotage(&self) -> Option<Sabotage> {
        self.sim.world(|world| world.sabotage)
    }
}

fn place(key: &Key) -> Option<Place> {
    key.place().map(|(_, place)| place)
}

impl Replica for SimReplica {
    fn url(&self) -> &str {
        &self.url
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        let (key, sabotage) = (key.clone(), self.sabotage());
        self.ask(Access::Write, move |world, disk, _| {
            let now = world.now;
            let exists = world.disks[disk].objects.contains_key(&key);
            if sabotage == Some(Sabotage::NoClaimsNoSeals)
                && (is_seal(&bytes) || matches!(place(&key), Some(Place::Claim(_))))
            {
                if !is_seal(&bytes) {
                    world.disks[disk].put(&key, &bytes, now);
                }
                return Put::Created;
            }
            if sabotage == Some(Sabotage::CorruptTakenForAbsent) && exists && world.is_damaged(disk, &key) {
                world.disks[disk].objects.insert(key.clone(), (bytes.clone(), now));
                return Put::Created;
            }
            let put = world.disks[disk].put(&key, &bytes, now);
            if put == Put::Created {
                world.came(disk, &key, &bytes);
            }
            put
        })
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        let key = key.clone();
        self.ask(Access::Write, move |world, disk, _| {
            world.overwritten(disk, &key, &bytes);
            let now = world.now;
            world.disks[disk].objects.insert(key.clone(), (bytes.clone(), now));
        })
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        let (key, sabotage) = (key.clone(), self.sabotage());
        self.ask(Access::Read, move |world, disk, _| {
            if sabotage == Some(Sabotage::CorruptTakenForAbsent) && world.is_damaged(disk, &key) {
                return None;
            }
            world.disks[disk].get(&key)
        })
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        let (prefix, sabotage) = (prefix.clone(), self.sabotage());
        self.ask(Access::Read, move |world, disk, asked| {
            let (mut found, mut chance) = (Vec::new(), world.random.u64(..));
            for (key, (bytes, since)) in world.disks[disk].below(&prefix) {
                // What is put while a listing is made may be missing from it.
                chance = chance.rotate_left(1);
                let missed = *since > asked && chance & 1 == 0;
                let hidden = sabotage == Some(Sabotage::CorruptTakenForAbsent) && world.is_damaged(disk, key);
                if !missed && !hidden && key.is_below(&prefix) {
                    found.push((key.clone(), bytes.len() as u64));
                }
            }
            found
        })
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        let (key, owner) = (key.clone(), self.owner);
        self.ask(Access::Remove, move |world, disk, _| {
            world.removed(owner, disk, &key);
            world.disks[disk].objects.remove(&key);
        })
    }
}
