//! Replicas: the contract suite over each of them, and what each alone promises.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use tidemill::checkpoint::container::{Epoch, Incarnation, Index, MAX_OBJECT, Place};
use tidemill::checkpoint::replica::contract::{self, Answers, Breakable, Broken, Fixture, wait};
use tidemill::checkpoint::replica::disk::{Disk, SystemDisk};
use tidemill::checkpoint::replica::faulty::{Fault, FaultyReplica, Request, Verb};
use tidemill::checkpoint::replica::full::FullReplica;
use tidemill::checkpoint::replica::read_only::{Access, ReadOnlyReplica};
use tidemill::checkpoint::replica::{
    Key, LocalReplica, MemoryReplica, ObjectStoreReplica, Put, PutOrEqual, Replica, ReplicaErrorKind, Reply,
    put_or_equal,
};

use super::model_disk::ModelDisk;

/// A directory of the test's own, removed at its end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidemill-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn slot(index: u64) -> Key {
    Key::of(Incarnation(99), &Place::Slot(Epoch(1), Index(index)))
}

/// A replica whose handles are made by a function, and a way to break it, if there is one.
struct Made<'a> {
    make: Box<dyn FnMut() -> Arc<dyn Replica> + 'a>,
    answers: Answers,
    break_it: Option<Box<dyn FnMut(Broken) + 'a>>,
}

impl<'a> Made<'a> {
    fn by(make: impl FnMut() -> Arc<dyn Replica> + 'a) -> Self {
        Self { make: Box::new(make), answers: Answers::Sure, break_it: None }
    }

    fn of(replica: impl Replica + 'static) -> Self {
        let replica: Arc<dyn Replica> = Arc::new(replica);
        Self::by(move || Arc::clone(&replica))
    }

    fn broken_by(mut self, break_it: impl FnMut(Broken) + 'a) -> Self {
        self.break_it = Some(Box::new(break_it));
        self
    }

    fn answers_lost(mut self) -> Self {
        self.answers = Answers::Lost;
        self
    }
}

impl Fixture for Made<'_> {
    fn replica(&mut self) -> Arc<dyn Replica> {
        (self.make)()
    }

    fn answers(&self) -> Answers {
        self.answers
    }

    fn set_broken(&mut self, broken: Broken) -> Breakable {
        let Some(break_it) = &mut self.break_it else { return Breakable::No };
        break_it(broken);
        Breakable::Yes
    }
}

fn memory() -> Arc<MemoryReplica> {
    Arc::new(MemoryReplica::new("memory:test"))
}

#[test]
fn the_memory_replica_keeps_the_contract() {
    contract::check(&mut Made::of(MemoryReplica::new("memory:test")));
}

#[test]
fn the_local_replica_keeps_the_contract() {
    let folder = Folder::new("local");
    // A new handle each time, as of another process.
    let open = || -> Arc<dyn Replica> { Arc::new(LocalReplica::open(folder.path()).unwrap()) };
    contract::check(&mut Made::by(open));
}

#[test]
fn the_local_replica_keeps_the_contract_in_a_runtime() {
    let folder = Folder::new("runtime");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    contract::check(&mut Made::of(LocalReplica::open(folder.path()).unwrap()));
}

#[test]
fn the_local_replica_keeps_the_contract_on_a_disk_that_fills_up() {
    let disk = ModelDisk::without_history();
    let open = || -> Arc<dyn Replica> {
        Arc::new(LocalReplica::open_on(Arc::new(disk.clone()), Path::new("/app")).unwrap())
    };
    contract::check(&mut Made::by(open).broken_by(|broken| disk.set_full(broken == Broken::Yes)));
}

#[test]
fn the_object_store_replica_keeps_the_contract() {
    let store = Arc::new(InMemory::new());
    let make = move || -> Arc<dyn Replica> {
        Arc::new(ObjectStoreReplica::new("memory:app", Arc::clone(&store) as _, StorePath::from("some/app")))
    };
    contract::check(&mut Made::by(make));
}

#[test]
fn the_full_replica_keeps_the_contract() {
    let replica = Arc::new(FullReplica::new(memory(), u64::MAX));
    let handle = Arc::clone(&replica);
    let make = move || -> Arc<dyn Replica> { Arc::clone(&handle) as _ };
    contract::check(&mut Made::by(make).broken_by(|broken| match broken {
        Broken::Yes => replica.fill(),
        Broken::No => replica.make_room(1 << 30),
    }));
}

#[test]
fn the_read_only_replica_keeps_the_contract() {
    let replica = Arc::new(ReadOnlyReplica::new(memory()));
    replica.set(Access::Write);
    let handle = Arc::clone(&replica);
    let make = move || -> Arc<dyn Replica> { Arc::clone(&handle) as _ };
    contract::check(&mut Made::by(make).broken_by(|broken| {
        replica.set(if broken == Broken::Yes { Access::ReadOnly } else { Access::Write });
    }));
}

#[test]
fn the_faulty_replica_keeps_the_contract_without_faults() {
    let broken = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&broken);
    let refuse = move |request: &Request| match request.verb {
        Verb::Get | Verb::List => Fault::None,
        _ if seen.load(Ordering::SeqCst) => Fault::Refused(ReplicaErrorKind::Unavailable),
        _ => Fault::SlowAnswer(2),
    };
    let fixture = Made::of(FaultyReplica::new(memory(), refuse));
    contract::check(&mut fixture.broken_by(|wanted| broken.store(wanted == Broken::Yes, Ordering::SeqCst)));
}

#[test]
fn any_faults_but_loss_keep_the_contract_for_who_asks_again() {
    for seed in 0..12 {
        let folder = (seed % 3 == 0).then(|| Folder::new("faulty"));
        let inner: Arc<dyn Replica> = match &folder {
            Some(folder) => Arc::new(LocalReplica::open(folder.path()).unwrap()),
            None => memory(),
        };
        let mut random = fastrand::Rng::with_seed(seed);
        let script = move |_: &Request| match random.u32(..16) {
            0 => Fault::RequestLost,
            1 | 2 => Fault::AnswerLost,
            3 => Fault::Late(random.u32(..2)),
            4 | 5 => Fault::Twice,
            6 => Fault::SlowRequest(random.u32(..5)),
            7 => Fault::SlowAnswer(random.u32(..5)),
            8 => Fault::Refused(ReplicaErrorKind::Unavailable),
            _ => Fault::None,
        };
        contract::check(&mut Made::of(FaultyReplica::new(inner, script)).answers_lost());
    }
}

/// A way in which a replica may break its word.
#[derive(Clone, Copy, Debug)]
enum Broke {
    PutsTwice,
    SaysCreatedTwice,
    ListsByText,
    ListsUnsorted,
    ForgetsTheEnd,
    DeletesNothing,
    MissesDeletedOnes,
    OverwritesNothing,
    TakesPrefixes,
    HidesFailures,
}

/// A replica that breaks its word in one way.
#[derive(Debug)]
struct Breaker(Arc<MemoryReplica>, Broke, AtomicBool);

impl Breaker {
    fn is_broken(&self) -> bool {
        self.2.load(Ordering::SeqCst)
    }
}

impl Replica for Breaker {
    fn url(&self) -> &str {
        self.0.url()
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        let key = key.clone();
        Box::pin(async move {
            match self.1 {
                Broke::PutsTwice => self.0.overwrite(&key, bytes).await.map(|()| Put::Created),
                Broke::SaysCreatedTwice => self.0.put_new(&key, bytes).await.map(|_| Put::Created),
                Broke::ForgetsTheEnd => self.0.put_new(&key, bytes.slice(..bytes.len().min(1 << 20))).await,
                Broke::TakesPrefixes if !key.is_object() => Ok(Put::Created),
                Broke::HidesFailures if self.is_broken() => Ok(Put::Created),
                _ => self.0.put_new(&key, bytes).await,
            }
        })
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        match self.1 {
            Broke::OverwritesNothing => Box::pin(async { Ok(()) }),
            _ => self.0.overwrite(key, bytes),
        }
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        self.0.get(key)
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        let prefix = prefix.clone();
        Box::pin(async move {
            match self.1 {
                Broke::ListsByText => {
                    let all = self.0.list(&Key::root()).await?;
                    Ok(all.into_iter().filter(|(key, _)| key.as_str().starts_with(prefix.as_str())).collect())
                }
                Broke::ListsUnsorted => {
                    self.0.list(&prefix).await.map(|found| found.into_iter().rev().collect())
                }
                _ => self.0.list(&prefix).await,
            }
        })
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        let key = key.clone();
        Box::pin(async move {
            match self.1 {
                Broke::DeletesNothing => Ok(()),
                Broke::MissesDeletedOnes if self.0.get(&key).await?.is_none() => Err(
                    tidemill::checkpoint::replica::ReplicaError::new(ReplicaErrorKind::Other, "not there"),
                ),
                _ => self.0.delete(&key).await,
            }
        })
    }
}

#[test]
fn the_contract_finds_every_way_to_break_it() {
    use Broke::{
        DeletesNothing, ForgetsTheEnd, HidesFailures, ListsByText, ListsUnsorted, MissesDeletedOnes,
        OverwritesNothing, PutsTwice, SaysCreatedTwice, TakesPrefixes,
    };
    let ways = [
        PutsTwice,
        SaysCreatedTwice,
        ListsByText,
        ListsUnsorted,
        ForgetsTheEnd,
        DeletesNothing,
        MissesDeletedOnes,
        OverwritesNothing,
        TakesPrefixes,
        HidesFailures,
    ];
    for broke in ways {
        let replica = Arc::new(Breaker(memory(), broke, AtomicBool::new(false)));
        let handle = Arc::clone(&replica);
        let make = move || -> Arc<dyn Replica> { Arc::clone(&handle) as _ };
        let mut fixture =
            Made::by(make).broken_by(|broken| replica.2.store(broken == Broken::Yes, Ordering::SeqCst));
        let checked = catch_unwind(AssertUnwindSafe(|| contract::check(&mut fixture)));
        assert!(checked.is_err(), "{broke:?} passes for a replica that keeps the contract");
    }
}

#[test]
fn a_put_whose_answer_is_lost_is_known_again() {
    let inner = memory();
    let mine = Bytes::from_static(b"mine");
    for faults in [
        vec![Fault::AnswerLost],
        vec![Fault::RequestLost],
        vec![Fault::AnswerLost, Fault::RequestLost],
        vec![Fault::AnswerLost, Fault::None, Fault::AnswerLost],
        vec![Fault::Late(0)],
        vec![Fault::Twice],
    ] {
        let replica = FaultyReplica::scripted(Arc::clone(&inner) as _, faults.clone());
        let stored = wait(put_or_equal(&replica, &slot(1), mine.clone()));
        assert_eq!(stored.unwrap(), PutOrEqual::Stored, "{faults:?}");
        wait(inner.delete(&slot(1))).unwrap();
    }
}

#[test]
fn a_put_that_is_never_answered_stays_in_doubt() {
    let put = |faults: &[Fault]| {
        let replica = FaultyReplica::scripted(memory(), faults.iter().copied());
        wait(put_or_equal(&replica, &slot(1), Bytes::from_static(b"mine"))).unwrap_err()
    };
    let refused = Fault::Refused(ReplicaErrorKind::Full);
    assert!(!put(&[Fault::RequestLost; 3]).is_undone());
    assert!(put(&[refused]).is_undone(), "nothing came of the only attempt");
    assert!(!put(&[Fault::RequestLost, refused]).is_undone(), "the first attempt may yet arrive");
    assert_eq!(put(&[refused]).kind(), ReplicaErrorKind::Full);
}

#[test]
fn a_look_that_fails_after_exists_leaves_the_put_in_doubt() {
    let inner = memory();
    wait(inner.put_new(&slot(1), Bytes::from_static(b"mine"))).unwrap();
    let refused = Fault::Refused(ReplicaErrorKind::Unavailable);
    let faults = [Fault::None, refused, Fault::None, refused, Fault::None, refused];
    let replica = FaultyReplica::scripted(inner, faults);
    let error = wait(put_or_equal(&replica, &slot(1), Bytes::from_static(b"mine"))).unwrap_err();
    assert!(!error.is_undone(), "our bytes are there: {error}");
}

#[test]
fn an_object_that_is_too_long_cannot_be_taken_for_a_whole_one() {
    let folder = Folder::new("too-long");
    let local = LocalReplica::open(folder.path()).unwrap();
    wait(local.put_new(&Key::job(), Bytes::new())).unwrap();
    let file = fs::OpenOptions::new().write(true).open(folder.path().join("job.json")).unwrap();
    file.set_len(10 * MAX_OBJECT as u64).unwrap(); // a hole: it takes no room on the disk
    let memory = memory();
    memory.tamper(&Key::job(), Some(Bytes::from(vec![0; MAX_OBJECT + 10])));
    let store = Arc::new(InMemory::new());
    let remote = ObjectStoreReplica::new("memory:app", Arc::clone(&store) as _, StorePath::from("app"));
    let path = StorePath::from("app/job.json");
    let put = object_store::ObjectStoreExt::put(&*store, &path, vec![0; MAX_OBJECT + 10].into());
    wait(put).unwrap();
    let replicas: [&dyn Replica; 3] = [&local, &*memory, &remote];
    for replica in replicas {
        let found = wait(replica.get(&Key::job())).unwrap().unwrap();
        assert_eq!(found.len(), MAX_OBJECT + 1, "{replica:?}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_not_ours_is_left_alone_and_not_listed() {
    let folder = Folder::new("foreign");
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    fs::create_dir_all(folder.path().join("lost+found/log")).unwrap();
    let replica = LocalReplica::open(folder.path()).unwrap();
    wait(replica.put_new(&slot(0), Bytes::from_static(b"x"))).unwrap();
    let log = folder.path().join(slot(0).parent().unwrap().as_str());
    fs::write(log.join("00000000000000000001.tmp"), "").unwrap();
    fs::create_dir(log.join("00000000000000000002")).unwrap();
    assert_eq!(wait(replica.list(&Key::root())).unwrap(), [(slot(0), 1)]);
    drop(LocalReplica::open(folder.path()).unwrap());
    assert!(folder.path().join("notes.txt").exists() && folder.path().join("lost+found/log").exists());
}

#[test]
fn what_nobody_finished_is_swept_up_at_the_start() {
    let folder = Folder::new("sweep");
    let staging = folder.path().join("#staging");
    let replica = LocalReplica::open(folder.path()).unwrap();
    wait(replica.put_new(&slot(0), Bytes::from_static(b"x"))).unwrap();
    assert_eq!(names(&staging), Vec::<String>::new(), "a put leaves nothing behind");
    wait(replica.put_new(&slot(0), Bytes::from_static(b"y"))).unwrap();
    assert_eq!(names(&staging), Vec::<String>::new(), "nor does one that came too late");
    fs::write(staging.join("1-0000-7"), "half").unwrap();
    drop(LocalReplica::open(folder.path()).unwrap());
    assert_eq!(names(&staging), Vec::<String>::new());
    assert_eq!(wait(replica.list(&Key::root())).unwrap(), [(slot(0), 1)]);
}

/// The system's disk, with a rival that starts, and sweeps up, before each of the first links.
#[derive(Debug)]
struct SweptDisk {
    root: PathBuf,
    sweeps: AtomicU32,
}

impl Disk for SweptDisk {
    fn identity(&self, path: &Path) -> std::io::Result<tidemill::checkpoint::replica::disk::Identity> {
        SystemDisk.identity(path)
    }
    fn make_directory(&self, path: &Path) -> std::io::Result<()> {
        SystemDisk.make_directory(path)
    }
    fn sync_directory(&self, path: &Path) -> std::io::Result<()> {
        SystemDisk.sync_directory(path)
    }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn tidemill::checkpoint::replica::disk::DiskFile>> {
        SystemDisk.create(path)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        if self.sweeps.load(Ordering::SeqCst) > 0 {
            self.sweeps.fetch_sub(1, Ordering::SeqCst);
            drop(LocalReplica::open(&self.root).unwrap());
        }
        SystemDisk.hard_link(from, to)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        SystemDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        SystemDisk.remove(path)
    }
    fn read(
        &self,
        path: &Path,
        limit: usize,
    ) -> std::io::Result<tidemill::checkpoint::replica::disk::Content> {
        SystemDisk.read(path, limit)
    }
    fn read_directory(
        &self,
        path: &Path,
    ) -> std::io::Result<Vec<tidemill::checkpoint::replica::disk::Entry>> {
        SystemDisk.read_directory(path)
    }
}

#[test]
fn a_rival_that_sweeps_up_does_no_harm() {
    let folder = Folder::new("swept");
    let disk = Arc::new(SweptDisk { root: folder.path().to_owned(), sweeps: AtomicU32::new(0) });
    let replica = LocalReplica::open_on(Arc::clone(&disk) as _, folder.path()).unwrap();
    disk.sweeps.store(2, Ordering::SeqCst);
    assert_eq!(wait(replica.put_new(&slot(0), Bytes::from_static(b"x"))).unwrap(), Put::Created);
    assert_eq!(wait(replica.get(&slot(0))).unwrap().as_deref(), Some(&b"x"[..]));
    disk.sweeps.store(u32::MAX, Ordering::SeqCst);
    let error = wait(replica.put_new(&slot(1), Bytes::from_static(b"x"))).unwrap_err();
    assert!(error.is_undone() && error.to_string().contains("swept away"), "{error}");
    assert_eq!(wait(replica.get(&slot(1))).unwrap(), None);
}
