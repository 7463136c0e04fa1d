//! What every replica must do, as checks that any implementation can be put through.
//!
//! It deliberately knows no replica: a [`Fixture`] makes handles of one, and says whether its answers can be lost. What
//! only a loss of power shows is not checked here, since no request can bring one about.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;

use super::{Key, Put, PutOrEqual, Replica, ReplicaError, ReplicaErrorKind, Reply, put_or_equal};
use crate::checkpoint::container::{MAX_OBJECT, Place};
use crate::checkpoint::id::{ChunkHash, DriverId, Epoch, Incarnation, Index};

/// A replica under test.
pub trait Fixture {
    /// A handle of it; each sees what was done through the others.
    fn replica(&mut self) -> Arc<dyn Replica>;

    /// Whether what is asked is always answered.
    fn answers(&self) -> Answers {
        Answers::Sure
    }

    /// Makes it refuse to be written from now on (`Broken::Yes`) or take writes again. Says whether this can be done.
    fn set_broken(&mut self, broken: Broken) -> Breakable;
}

/// Whether what is asked of a replica is always answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// It is.
    Sure,
    /// Requests and answers are lost, come late, or come twice; asked often enough, there is an answer.
    Lost,
}

/// Whether a replica refuses to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It refuses.
    Yes,
    /// It takes writes.
    No,
}

/// Whether a replica can be made to refuse writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakable {
    /// It can.
    Yes,
    /// Nothing that a test can do makes it refuse.
    No,
}

/// Runs every check.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn check(fixture: &mut dyn Fixture) {
    keeps_what_is_put(fixture);
    says_when_nothing_is_there(fixture);
    never_puts_twice(fixture);
    takes_the_same_bytes_again(fixture);
    lets_one_of_many_writers_win(fixture);
    lists_by_whole_parts_in_order(fixture);
    replaces_what_is_damaged(fixture);
    removes_what_is_deleted(fixture);
    refuses_what_is_no_object(fixture);
    says_so_when_it_cannot_write(fixture);
}

/// An object is there, byte by byte, when `put_new` has answered, for this handle and for every other.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn keeps_what_is_put(fixture: &mut dyn Fixture) {
    let asked = Asked::of(fixture);
    for (index, length) in [0, 1, 4_096, (1 << 20) + 3].into_iter().enumerate() {
        let (key, bytes) = (slot(1, 1, index as u64), content(length));
        asked.creates(&key, &bytes);
        asked.has(&key, &bytes);
        Asked::of(fixture).has(&key, &bytes);
    }
    asked.creates(&chunk(1, b"chunk"), &content(10));
    asked.creates(&claim(1, 1), &content(11));
}

/// What was never put is absent, and a listing of it is empty.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn says_when_nothing_is_there(fixture: &mut dyn Fixture) {
    let asked = Asked::of(fixture);
    asked.creates(&slot(2, 1, 0), &content(5));
    for absent in [slot(2, 1, 1), slot(2, 2, 0), claim(2, 1), chunk(2, b"absent"), Key::probe(DriverId(2))] {
        assert_eq!(asked.get(&absent), None, "{absent} was never put");
    }
    assert_eq!(asked.list(&Key::log(Incarnation(2), Epoch(2))), [], "a log that nobody began");
    assert_eq!(asked.list(&slot(2, 1, 0)), [], "below an object");
    assert_eq!(asked.get(&Key::logs(Incarnation(2))), None, "what is no object's key");
}

/// A second put is refused, with the same bytes and with others, and changes nothing.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn never_puts_twice(fixture: &mut dyn Fixture) {
    let (asked, key, first) = (Asked::of(fixture), slot(3, 1, 0), content(100));
    asked.creates(&key, &first);
    for second in [content(100), content(99), content(0), content(5_000)] {
        for asked in [&asked, &Asked::of(fixture)] {
            let put = asked.ask(|replica| replica.put_new(&key, second.clone()));
            assert_eq!(put, Put::Exists, "a second put of {} bytes", second.len());
            asked.has(&key, &first);
        }
    }
}

/// Whoever puts their own bytes again finds them stored, and others are told what is there.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn takes_the_same_bytes_again(fixture: &mut dyn Fixture) {
    let (asked, key) = (Asked::of(fixture), claim(4, 7));
    for _ in 0..2 {
        assert_eq!(asked.put_or_equal(&key, &content(64)), PutOrEqual::Stored);
    }
    assert_eq!(asked.put_or_equal(&key, &content(65)), PutOrEqual::Other(content(64)));
    asked.has(&key, &content(64));
}

/// Of many that put different bytes at once, exactly one is told that it did, and its bytes are there, whole.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn lets_one_of_many_writers_win(fixture: &mut dyn Fixture) {
    const WRITERS: usize = 6;
    for round in 0..10 {
        let key = slot(5, 1, round);
        let writers: Vec<Asked> = (0..WRITERS).map(|_| Asked::of(fixture)).collect();
        let outcomes: Vec<PutOrEqual> = thread::scope(|scope| {
            let put = |(asked, length)| {
                let key = &key;
                scope.spawn(move || Asked::put_or_equal(asked, key, &content(length)))
            };
            let threads: Vec<_> = writers.iter().zip(10_000..).map(put).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let winners: Vec<usize> = (10_000..)
            .zip(&outcomes)
            .filter(|(_, put)| **put == PutOrEqual::Stored)
            .map(|(at, _)| at)
            .collect();
        let [winner] = winners.as_slice() else { panic!("of {WRITERS} writers at once {winners:?} won") };
        assert_eq!(outcomes.len(), WRITERS, "a writer panicked");
        let lost = outcomes.iter().filter(|put| **put == PutOrEqual::Other(content(*winner))).count();
        assert_eq!(lost, WRITERS - 1, "those that did not win must see what did");
    }
}

/// A listing has every object below the prefix, once, with its length, in order; whole parts only.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn lists_by_whole_parts_in_order(fixture: &mut dyn Fixture) {
    let asked = Asked::of(fixture);
    let keys = [
        slot(6, 10, 0),
        slot(6, 2, 0),
        slot(6, 2, 11),
        slot(6, 2, 9),
        claim(6, 2),
        chunk(6, b"a"),
        chunk(6, b"b"),
    ];
    for (key, length) in keys.iter().zip(1..) {
        asked.creates(key, &content(length));
    }
    asked.creates(&slot(7, 2, 0), &content(1));
    let mut all: Vec<(Key, u64)> = keys.iter().cloned().zip(1..).collect();
    all.sort();
    let incarnation = Incarnation(6);
    let prefixes = [
        Key::incarnation(incarnation),
        Key::claims(incarnation),
        Key::logs(incarnation),
        Key::log(incarnation, Epoch(2)),
        Key::log(incarnation, Epoch(1)),
        Key::chunks(incarnation),
        Key::chunks_of(incarnation, Epoch(1)),
    ];
    for prefix in prefixes {
        let expected: Vec<(Key, u64)> =
            all.iter().filter(|(key, _)| key.is_below(&prefix)).cloned().collect();
        assert_eq!(asked.list(&prefix), expected, "below {prefix}");
    }
    let root = asked.list(&Key::root());
    assert!(all.iter().all(|object| root.contains(object)), "the root's listing lacks some of {all:?}");
    assert!(root.is_sorted(), "the root's listing is not in order");
}

/// An overwritten object has the new bytes, for every handle; one that is missing is put.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn replaces_what_is_damaged(fixture: &mut dyn Fixture) {
    let (asked, key) = (Asked::of(fixture), slot(8, 1, 0));
    asked.creates(&key, &content(300));
    for length in [301, 20, 301] {
        asked.ask(|replica| replica.overwrite(&key, content(length)));
        asked.has(&key, &content(length));
        Asked::of(fixture).has(&key, &content(length));
    }
    asked.ask(|replica| replica.overwrite(&slot(8, 1, 1), content(7)));
    asked.has(&slot(8, 1, 1), &content(7));
    assert_eq!(asked.list(&Key::incarnation(Incarnation(8))), [(key, 301), (slot(8, 1, 1), 7)]);
}

/// A deleted object is gone, its neighbours stay, and deleting what is absent is fine.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn removes_what_is_deleted(fixture: &mut dyn Fixture) {
    let asked = Asked::of(fixture);
    let keys = [slot(9, 1, 0), slot(9, 1, 1), slot(9, 1, 2)];
    for key in &keys {
        asked.creates(key, &content(30));
    }
    for key in &keys {
        asked.has(key, &content(30));
    }
    let [first, middle, last] = keys;
    for _ in 0..2 {
        asked.ask(|replica| replica.delete(&middle));
        assert_eq!(asked.get(&middle), None);
    }
    asked.ask(|replica| replica.delete(&slot(9, 99, 0)));
    assert_eq!(asked.list(&Key::incarnation(Incarnation(9))), [(first, 30), (last, 30)]);
}

/// What has no object's key, and what is too long, is refused, surely undone.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn refuses_what_is_no_object(fixture: &mut dyn Fixture) {
    let asked = Asked::of(fixture);
    let too_long = Bytes::from(vec![0; MAX_OBJECT + 1]);
    let prefix = Key::incarnation(Incarnation(10));
    for key in [Key::root(), prefix.clone(), Key::log(Incarnation(10), Epoch(1))] {
        asked.refuses(|replica| replica.put_new(&key, content(3)));
        asked.refuses(|replica| replica.overwrite(&key, content(3)));
        asked.refuses(|replica| replica.delete(&key));
    }
    asked.refuses(|replica| replica.put_new(&slot(10, 1, 0), too_long.clone()));
    asked.refuses(|replica| replica.overwrite(&slot(10, 1, 0), too_long.clone()));
    assert_eq!(asked.list(&prefix), [], "a refused request left something behind");
}

/// A write that fails is an error; what was there stays and can be read, and once the replica is back the same write
/// succeeds.
///
/// # Panics
/// Where the replica breaks the contract.
pub fn says_so_when_it_cannot_write(fixture: &mut dyn Fixture) {
    let (before, during) = (slot(11, 1, 0), slot(11, 1, 1));
    Asked::of(fixture).creates(&before, &content(50));
    if fixture.set_broken(Broken::Yes) == Breakable::No {
        return;
    }
    let replica = fixture.replica();
    let error = wait(replica.put_new(&during, content(5_000))).err();
    let named = error.as_ref().is_some_and(|error| error.is_retriable() && error.to_string().len() > 20);
    assert!(named, "a put said that the object is safe while it is refused, or not why: {error:?}");
    assert!(wait(replica.overwrite(&before, content(5_000))).is_err(), "an overwrite that was refused");
    assert_eq!(wait(replica.get(&before)).ok(), Some(Some(content(50))), "what is there can be read");
    fixture.set_broken(Broken::No);
    let asked = Asked::of(fixture);
    assert_eq!(asked.put_or_equal(&during, &content(5_000)), PutOrEqual::Stored);
    assert_eq!(asked.list(&Key::incarnation(Incarnation(11))), [(before, 50), (during, 5_000)]);
}

/// Waits for a future on this thread; for tests and tools that have no runtime.
pub fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(), // a wake before the park is not lost
        }
    }
}

/// A replica that is asked until it answers, where answers can be lost.
struct Asked {
    replica: Arc<dyn Replica>,
    answers: Answers,
}

/// More often than any script loses requests in a row.
const ATTEMPTS: usize = 100;

impl Asked {
    fn of(fixture: &mut dyn Fixture) -> Self {
        Self { replica: fixture.replica(), answers: fixture.answers() }
    }

    fn ask<'a, T>(&'a self, request: impl Fn(&'a dyn Replica) -> Reply<'a, T>) -> T {
        self.until_answered(|| wait(request(&*self.replica)))
    }

    fn until_answered<T>(&self, attempt: impl Fn() -> Result<T, ReplicaError>) -> T {
        let attempts = if self.answers == Answers::Sure { 1 } else { ATTEMPTS };
        let mut last = None;
        for _ in 0..attempts {
            match attempt() {
                Ok(answer) => return answer,
                Err(error) => last = Some(error),
            }
        }
        panic!("{:?} did not do as asked: {last:?}", self.replica)
    }

    /// Puts an object that is not there yet.
    fn creates(&self, key: &Key, bytes: &Bytes) {
        let put = self.ask(|replica| replica.put_new(key, bytes.clone()));
        let told = put == Put::Created || self.answers == Answers::Lost;
        assert!(told, "{key} was not there, and put_new said {put:?}");
    }

    fn put_or_equal(&self, key: &Key, bytes: &Bytes) -> PutOrEqual {
        self.until_answered(|| wait(put_or_equal(&*self.replica, key, bytes.clone())))
    }

    fn get(&self, key: &Key) -> Option<Bytes> {
        self.ask(|replica| replica.get(key))
    }

    fn has(&self, key: &Key, bytes: &Bytes) {
        let found = self.get(key);
        let lengths = (found.as_ref().map(Bytes::len), bytes.len());
        assert!(found.as_ref() == Some(bytes), "{key} is not what was put; lengths: {lengths:?}");
    }

    fn list(&self, prefix: &Key) -> Vec<(Key, u64)> {
        self.ask(|replica| replica.list(prefix))
    }

    /// Refused for good: a request that may succeed later, or may be done yet, is none of these.
    fn refuses<'a, T>(&'a self, request: impl Fn(&'a dyn Replica) -> Reply<'a, T>) {
        let refused = (0..ATTEMPTS).find_map(|_| match wait(request(&*self.replica)) {
            Ok(_) => panic!("{:?} took what no replica takes", self.replica),
            Err(error) => (error.kind() == ReplicaErrorKind::Other).then_some(error),
        });
        let for_good = refused.as_ref().is_some_and(|error| error.is_undone() && !error.is_retriable());
        assert!(for_good, "{:?} should refuse for good: {refused:?}", self.replica);
    }
}

/// Bytes that are another for every length.
fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + length * 7 + (at >> 8)).to_le_bytes()[0]).collect()
}

fn slot(incarnation: u128, epoch: u64, index: u64) -> Key {
    Key::of(Incarnation(incarnation), &Place::Slot(Epoch(epoch), Index(index)))
}

fn claim(incarnation: u128, epoch: u64) -> Key {
    Key::of(Incarnation(incarnation), &Place::Claim(Epoch(epoch)))
}

fn chunk(incarnation: u128, content: &[u8]) -> Key {
    Key::of(Incarnation(incarnation), &Place::Chunk(Epoch(1), ChunkHash::of(content)))
}
