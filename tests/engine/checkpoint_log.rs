//! The log as a driver uses it, over replicas in memory and a real runtime: what is found again, and what errors say.
//!
//! It deliberately has no fault that comes by chance; those are the simulation's business. Here are the ends that a person
//! sees: the first start, the second driver, the wrong list, the lost replica, and the changes that are made offline.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tidemill::checkpoint::members::Change;
use tidemill::checkpoint::replica::faulty::{Fault, FaultyReplica};
use tidemill::checkpoint::replica::{Key, MemoryReplica, Put, Replica, ReplicaErrorKind, Reply};
use tidemill::checkpoint::runtime::{Runtime, here};
use tidemill::checkpoint::{Checkpoint, ChunkRef, Content, Entry, Log, Report, Settings, Standby, Standing};
use tidemill::error::{Error, ErrorKind};
use tidemill::time::BatchId;

/// A replica that can be taken down, damaged and emptied.
#[derive(Clone)]
struct Disk {
    memory: MemoryReplica,
    down: Arc<AtomicBool>,
}

impl Disk {
    fn new(url: &str) -> Self {
        Self { memory: MemoryReplica::new(url), down: Arc::default() }
    }

    fn replica(&self) -> Arc<dyn Replica> {
        let down = Arc::clone(&self.down);
        let refuses = move || down.load(Ordering::Relaxed);
        let script =
            move |_: &_| if refuses() { Fault::Refused(ReplicaErrorKind::Unavailable) } else { Fault::None };
        Arc::new(FaultyReplica::new(Arc::new(self.memory.clone()), script))
    }

    fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    async fn keys(&self) -> Vec<Key> {
        self.memory.list(&Key::root()).await.unwrap().into_iter().map(|(key, _)| key).collect()
    }

    async fn empty(&self) {
        for key in self.keys().await {
            self.memory.tamper(&key, None);
        }
    }

    fn damage(&self, key: &Key) {
        self.memory.tamper(key, Some(Bytes::from_static(b"not what it was")));
    }
}

fn disks(count: usize) -> Vec<Disk> {
    (1..=count).map(|number| Disk::new(&format!("memory:{number}"))).collect()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(future)
}

fn settings() -> Settings {
    let millis = Duration::from_millis;
    Settings {
        lease: millis(40),
        request: millis(500),
        grace: millis(20),
        retry: (millis(1), millis(10)),
        ..Settings::new("sums", here())
    }
}

fn with(disks: &[Disk], settings: Settings) -> Checkpoint {
    let replicas: Vec<Arc<dyn Replica>> = disks.iter().map(Disk::replica).collect();
    let runtime = Arc::new(Runtime::new(tokio::runtime::Handle::current()));
    Checkpoint::new(&replicas, settings, runtime, Arc::new(|_| {})).unwrap()
}

fn open(disks: &[Disk]) -> Checkpoint {
    with(disks, settings())
}

async fn start(disks: &[Disk]) -> Log {
    open(disks).take_over().await.unwrap().start(Content::default(), &[]).await.unwrap()
}

/// Does a batch, up to and with its COMMIT.
async fn batch(log: &Log, batch: u64) -> ChunkRef {
    let id = BatchId(batch);
    log.append(Entry::plan(id, "ranges")).await.unwrap();
    let state = log.put_chunk(format!("state {batch}").as_bytes()).await.unwrap();
    let prepare = log.append(Entry::prepare(id, "digest", vec![state])).await.unwrap();
    log.append(Entry::commit(id, prepare, "digest")).await.unwrap();
    state
}

async fn found(disks: &[Disk]) -> Standing {
    let takeover = open(disks).take_over().await.unwrap();
    takeover.adopted().unwrap().standing.clone()
}

fn says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not all in {text:?}");
}

#[test]
fn what_is_planned_and_prepared_and_not_committed_is_found_again() {
    wait(async {
        let disks = disks(3);
        let log = start(&disks).await;
        batch(&log, 0).await;
        log.append(Entry::plan(BatchId(1), "ranges")).await.unwrap();
        let state = log.put_chunk(b"state 1").await.unwrap();
        let prepare = log.append(Entry::prepare(BatchId(1), "digest", vec![state])).await.unwrap();
        drop(log);

        let takeover =
            with(&disks, Settings { standby: Standby::Depose, ..settings() }).take_over().await.unwrap();
        let standing = &takeover.adopted().unwrap().standing;
        assert_eq!(standing.next_batch(), BatchId(1));
        assert_eq!(standing.plan(BatchId(1)).map(|plan| &plan.payload[..]), Some(&b"ranges"[..]));
        let attempts: Vec<_> = standing.attempts(BatchId(1)).map(|attempt| attempt.at).collect();
        assert_eq!(attempts, [prepare]);
        assert_eq!(takeover.get_chunk(&state).await.unwrap(), &b"state 1"[..]);
        let log = takeover.start(Content::default(), &[]).await.unwrap();
        log.append(Entry::commit(BatchId(1), prepare, "digest")).await.unwrap();
    });
}

#[test]
fn a_second_driver_names_the_first_and_one_that_deposes_it_ends_it() {
    wait(async {
        let disks = disks(3);
        let log = start(&disks).await;
        let noops = async {
            loop {
                log.append(Entry::noop()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let second = open(&disks);
        let (mut noops, mut second) = (std::pin::pin!(noops), std::pin::pin!(second.take_over()));
        let refused = std::future::poll_fn(|context| {
            assert!(noops.as_mut().poll(context).is_pending());
            second.as_mut().poll(context)
        });
        let pid = std::process::id().to_string();
        says(&refused.await.unwrap_err(), ErrorKind::Checkpoint, &["is being run by", &pid, "stop it first"]);

        let third = with(&disks, Settings { standby: Standby::Depose, ..settings() });
        third.take_over().await.unwrap().start(Content::default(), &[]).await.unwrap();
        let fenced = log.append(Entry::noop()).await.unwrap_err();
        says(&fenced, ErrorKind::Fenced, &["a later driver has taken over"]);
        says(&log.roll().await.unwrap_err(), ErrorKind::Fenced, &[]);
    });
}

#[test]
fn a_first_start_needs_all_replicas_and_no_later_one_does() {
    wait(async {
        let disks = disks(3);
        disks[2].set_down(true);
        let error = open(&disks).take_over().await.unwrap_err();
        says(
            &error,
            ErrorKind::Checkpoint,
            &["cannot tell a new job from a lost one", "memory:3 does not answer"],
        );
        disks[2].set_down(false);
        let log = start(&disks).await;
        disks[2].set_down(true);
        batch(&log, 0).await;
        log.close().await.unwrap();
        assert_eq!(found(&disks).await.next_batch(), BatchId(1));
    });
}

#[test]
fn a_replica_that_was_emptied_is_taken_in_again_and_two_are_too_many() {
    wait(async {
        let disks = disks(3);
        let log = start(&disks).await;
        batch(&log, 0).await;
        log.close().await.unwrap();
        disks[0].empty().await;
        let log = start(&disks).await;
        log.catch_up().await.unwrap();
        log.close().await.unwrap();
        disks[1].empty().await; // the first holds it all again
        let log = start(&disks).await;
        log.close().await.unwrap();
        assert_eq!(found(&disks).await.next_batch(), BatchId(1));

        disks[0].empty().await;
        disks[1].empty().await;
        let error = open(&disks).take_over().await.unwrap_err();
        says(&error, ErrorKind::Checkpoint, &["found 1", "memory:1, memory:2 is empty", "bring back"]);
    });
}

#[test]
fn the_list_of_replicas_is_a_wish_and_start_rules() {
    wait(async {
        let disks = disks(4);
        start(&disks[..3]).await.close().await.unwrap();
        let error = open(&disks).take_over().await.unwrap_err();
        says(
            &error,
            ErrorKind::Checkpoint,
            &["4 replicas are given", "memory:4 does not vote", "name the same replicas"],
        );
        let error = open(&disks[..2]).take_over().await.unwrap_err();
        says(&error, ErrorKind::Checkpoint, &["2 replicas are given, and the job has 3"]);

        let other = self::disks(1);
        start(&other).await.close().await.unwrap();
        let mixed = [disks[0].clone(), disks[1].clone(), other[0].clone()];
        says(&open(&mixed).take_over().await.unwrap_err(), ErrorKind::Checkpoint, &["belongs to job"]);
    });
}

#[test]
fn replicas_are_added_replaced_and_removed_while_nobody_runs() {
    wait(async {
        let disks = disks(5);
        let log = start(&disks[..3]).await;
        let state = batch(&log, 0).await;
        log.close().await.unwrap();

        let url = |number: usize| format!("memory:{number}");
        let voters = open(&disks[..4]).change_voters(Change::Add { url: url(4) }).await.unwrap();
        assert_eq!((voters.len(), voters.write()), (4, 3));
        assert_eq!(found(&disks[..4]).await.next_batch(), BatchId(1));

        let replaced = open(&disks).change_voters(Change::Replace { number: 1, url: url(5) }).await.unwrap();
        assert_eq!(replaced.len(), 4);
        assert_eq!(found(&disks[1..]).await.next_batch(), BatchId(1));

        let removed = open(&disks[1..]).change_voters(Change::Remove { number: 2 }).await.unwrap();
        assert_eq!((removed.len(), removed.write()), (3, 2));
        let takeover = open(&disks[2..]).take_over().await.unwrap();
        assert_eq!(takeover.get_chunk(&state).await.unwrap(), &b"state 0"[..]);

        let twice = open(&disks[2..]).change_voters(Change::Remove { number: 9 }).await.unwrap_err();
        says(&twice, ErrorKind::Config, &["there is no replica 9"]);
    });
}

#[test]
fn what_is_left_goes_on_where_somebody_accepts_the_loss() {
    wait(async {
        let disks = disks(3);
        let log = start(&disks).await;
        batch(&log, 0).await;
        log.catch_up().await.unwrap();
        log.close().await.unwrap();
        disks[1].empty().await;
        disks[2].empty().await;
        assert!(open(&disks).take_over().await.is_err());
        let recovered = open(&disks).recover_accepting_loss().await.unwrap();
        assert_eq!((recovered.gone, recovered.voters.len()), (vec![2, 3], 1));
        assert_eq!(found(&disks[..1]).await.next_batch(), BatchId(1));
    });
}

#[test]
fn a_scrub_makes_damaged_copies_whole() {
    wait(async {
        let disks = disks(3);
        let log = start(&disks).await;
        batch(&log, 0).await;
        log.catch_up().await.unwrap();
        let slots: Vec<Key> =
            disks[0].keys().await.into_iter().filter(|key| key.as_str().contains("/log/")).collect();
        for key in &slots {
            disks[0].damage(key);
        }
        let scrubbed = log.scrub().await.unwrap();
        assert_eq!((scrubbed.repaired, scrubbed.left), (slots.len() as u64, 0));
        assert_eq!(log.scrub().await.unwrap().repaired, 0);
    });
}

#[test]
fn a_log_waits_for_replicas_and_says_for_which() {
    wait(async {
        let disks = disks(3);
        let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
        let heard = Arc::clone(&reports);
        let replicas: Vec<Arc<dyn Replica>> = disks.iter().map(Disk::replica).collect();
        let runtime = Arc::new(Runtime::new(tokio::runtime::Handle::current()));
        let reporter = Arc::new(move |report| heard.lock().unwrap().push(report));
        let checkpoint = Checkpoint::new(&replicas, settings(), runtime, reporter).unwrap();
        let log = checkpoint.take_over().await.unwrap().start(Content::default(), &[]).await.unwrap();
        disks[0].set_down(true);
        disks[1].set_down(true);
        let waiting = tokio::time::timeout(Duration::from_millis(60), log.append(Entry::noop())).await;
        assert!(waiting.is_err(), "one of three took a decision: {waiting:?}");
        disks[1].set_down(false);
        log.append(Entry::noop()).await.unwrap();
        let reports = reports.lock().unwrap();
        let paused =
            |report: &Report| matches!(report, Report::Paused { waiting_for } if waiting_for.len() == 2);
        assert!(reports.iter().any(paused) && reports.contains(&Report::Resumed), "{reports:?}");
    });
}

#[test]
fn a_place_that_forgets_conditions_is_no_replica_and_one_that_is_down_may_be() {
    wait(async {
        let disks = disks(3);
        disks[0].set_down(true);
        open(&disks).probe().await.unwrap();
        disks[0].set_down(false);
        let mut replicas: Vec<Arc<dyn Replica>> = disks.iter().map(Disk::replica).collect();
        replicas[1] = Arc::new(Heedless(disks[1].memory.clone()));
        let runtime = Arc::new(Runtime::new(tokio::runtime::Handle::current()));
        let checkpoint = Checkpoint::new(&replicas, settings(), runtime, Arc::new(|_| {})).unwrap();
        let error = checkpoint.probe().await.unwrap_err();
        says(&error, ErrorKind::Checkpoint, &["memory:2", "let a second writer put"]);
    });
}

/// A store that does not heed the condition of a put.
#[derive(Debug)]
struct Heedless(MemoryReplica);

impl Replica for Heedless {
    fn url(&self) -> &str {
        self.0.url()
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        self.0.tamper(key, Some(bytes));
        Box::pin(std::future::ready(Ok(Put::Created)))
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        self.0.overwrite(key, bytes)
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        self.0.get(key)
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        self.0.list(prefix)
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        self.0.delete(key)
    }
}
