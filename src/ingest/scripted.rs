//! A source in memory that does what a test tells it to: the test source of every other module.
//!
//! It deliberately knows no clock and no network: records are there once they are pushed, failures happen where
//! they were asked for, and everything that waits is woken by the test's next call.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::event::Positions;
use crate::ingest::cutter::{Cutter, Record};
use crate::ingest::{Bound, ChunkSink, Fetcher, Head, Source, data_loss, named_offsets};
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::raw::RawColumns;
use crate::time::Waker;

/// A record as a test writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptedRecord {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload; none is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Milliseconds since the epoch; negative: none.
    pub timestamp: i64,
    /// Names and values of its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A call of a source or its fetchers that a test can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Fetcher::fetch`], once it has given this many records.
    Fetch {
        /// How many records come before the failure.
        after: u64,
    },
    /// [`Source::heads`], and so [`Source::resolve`].
    Heads,
    /// [`Source::acknowledge`].
    Acknowledge,
}

/// A source of one topic whose partitions, records, holes and failures a test writes while it is being read.
///
/// Clones share everything: keep one, give the other to the driver.
///
/// ```
/// use tidemill::cancel::Cancel;
/// use tidemill::ingest::Source;
/// use tidemill::ingest::scripted::ScriptedSource;
/// use tidemill::offset::OffsetRange;
/// use tidemill::raw::RawColumns;
///
/// let source = ScriptedSource::new("readings");
/// source.push(0, Some(b"pump-1"), Some(br#"{"temp": 21.5}"#), 1_700_000_000_000);
/// source.hole(0, 2); // offsets that compaction has emptied
/// let head = source.heads()?.remove(0);
/// assert_eq!((head.earliest.0, head.stable.0), (0, 3));
///
/// let mut rows = 0;
/// let range = OffsetRange::new(head.at, head.earliest, head.stable);
/// let mut fetcher = source.fetcher(RawColumns::default(), 1 << 20)?;
/// fetcher.fetch(&[range], &Cancel::default(), &mut |chunk| {
///     rows += chunk.len();
///     Ok(())
/// })?;
/// assert_eq!(rows, 1);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone)]
pub struct ScriptedSource {
    name: Arc<str>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>, // written by the test, read by the driver and by every fetcher
    changed: Condvar,      // the script, or what a fetch is to do
    held: Condvar, // one more fetch waits; apart from the other, or two that wait would wake each other for ever
}

#[derive(Default)]
struct Script {
    partitions: BTreeMap<i32, Log>,
    failures: VecDeque<(Call, Error)>,
    acknowledged: Positions,
    fetched: Vec<OffsetRange>,
    stalled: bool,
    waiting: usize,
    wakers: Vec<Waker>,
}

/// One partition: a record an offset, none where there is a hole.
#[derive(Default)]
struct Log {
    records: Vec<Option<Arc<ScriptedRecord>>>,
    earliest: usize,
    open_transaction: Option<usize>,
}

impl Log {
    fn stable(&self) -> usize {
        self.open_transaction.unwrap_or(self.records.len())
    }

    fn head(&self, at: TopicPartition) -> Head {
        let (earliest, stable) = (offset(self.earliest), offset(self.stable()));
        Head { at, topic_id: None, earliest, stable, leader_epoch: None }
    }

    fn first_since(&self, timestamp: i64) -> usize {
        let is_since = |record: &Option<Arc<ScriptedRecord>>| {
            record.as_ref().is_some_and(|record| record.timestamp >= timestamp)
        };
        let readable = self.records.iter().take(self.stable()).enumerate().skip(self.earliest);
        readable.into_iter().find(|(_, record)| is_since(record)).map_or(self.stable(), |(place, _)| place)
    }
}

impl ScriptedSource {
    /// A source without partitions; `name` is also the name of its topic.
    pub fn new(name: &str) -> Self {
        Self { name: Arc::from(name), shared: Arc::default() }
    }

    /// A source with `partitions` empty partitions.
    pub fn with_partitions(name: &str, partitions: i32) -> Self {
        let source = Self::new(name);
        (0..partitions).for_each(|partition| source.add_partition(partition));
        source
    }

    /// Makes `partition` exist, empty where it did not.
    pub fn add_partition(&self, partition: i32) {
        self.change(|script| {
            script.log(partition);
        });
    }

    /// Appends a record to `partition` and says its offset.
    pub fn push(&self, partition: i32, key: Option<&[u8]>, payload: Option<&[u8]>, timestamp: i64) -> Offset {
        let (key, payload) = (key.map(<[u8]>::to_vec), payload.map(<[u8]>::to_vec));
        self.push_record(partition, ScriptedRecord { key, payload, timestamp, headers: Vec::new() })
    }

    /// Appends `record` to `partition` and says its offset.
    pub fn push_record(&self, partition: i32, record: ScriptedRecord) -> Offset {
        self.change(|script| {
            let log = script.log(partition);
            log.records.push(Some(Arc::new(record)));
            offset(log.records.len() - 1)
        })
    }

    /// Appends `count` offsets without records to `partition`, as compaction and transaction markers leave them.
    pub fn hole(&self, partition: i32, count: usize) {
        self.change(|script| {
            let log = script.log(partition);
            log.records.resize(log.records.len() + count, None);
        });
    }

    /// Removes what lies before `earliest` in `partition`, as retention does.
    pub fn trim(&self, partition: i32, earliest: Offset) {
        let earliest = usize::try_from(earliest.0).unwrap_or(0);
        self.change(|script| {
            let log = script.log(partition);
            log.earliest = earliest.clamp(log.earliest, log.records.len());
        });
    }

    /// Opens a transaction in `partition`: what is pushed from now on is not stable until
    /// [`commit_transaction`](Self::commit_transaction).
    pub fn open_transaction(&self, partition: i32) {
        self.change(|script| {
            let log = script.log(partition);
            log.open_transaction = log.open_transaction.or(Some(log.records.len()));
        });
    }

    /// Commits the open transaction of `partition`; its marker takes up an offset.
    pub fn commit_transaction(&self, partition: i32) {
        self.change(|script| {
            let log = script.log(partition);
            if log.open_transaction.take().is_some() {
                log.records.push(None);
            }
        });
    }

    /// Makes the next such call fail with `error`, once.
    pub fn fail_next(&self, call: Call, error: Error) {
        self.change(|script| script.failures.push_back((call, error)));
    }

    /// Makes every fetch wait, before it gives its first record, until [`release`](Self::release).
    pub fn stall(&self) {
        self.change(|script| script.stalled = true);
    }

    /// Lets stalled fetches go on.
    pub fn release(&self) {
        self.change(|script| script.stalled = false);
    }

    /// Blocks until a fetch waits: stalled, or for records that are not there yet.
    pub fn await_waiting_fetch(&self) {
        let mut script = self.shared.lock();
        while script.waiting == 0 {
            script = self.shared.held.wait(script).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The same for at most `limit`, and says whether a fetch waits.
    pub fn await_waiting_fetch_for(&self, limit: Duration) -> bool {
        let (script, idle) = (self.shared.lock(), |script: &mut Script| script.waiting == 0);
        let waited = self.shared.changed.wait_timeout_while(script, limit, idle);
        waited.unwrap_or_else(PoisonError::into_inner).0.waiting > 0
    }

    /// What was acknowledged, by partition.
    pub fn acknowledged(&self) -> Positions {
        self.shared.lock().acknowledged.clone()
    }

    /// The ranges of all fetches that were completed, in order, empty ones included.
    pub fn fetched(&self) -> Vec<OffsetRange> {
        self.shared.lock().fetched.clone()
    }

    fn at(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(&self.name, partition)
    }

    /// The wakers are called without the lock: they may ask this source what has changed.
    fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let (result, wakers) = {
            let mut script = self.shared.lock();
            (change(&mut script), script.wakers.clone())
        };
        self.shared.changed.notify_all();
        for wake in wakers {
            wake();
        }
        result
    }
}

impl fmt::Debug for ScriptedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScriptedSource({})", self.name)
    }
}

impl Script {
    fn log(&mut self, partition: i32) -> &mut Log {
        self.partitions.entry(partition).or_default()
    }

    fn take_failure(&mut self, wanted: impl Fn(Call) -> bool) -> Result<()> {
        let place = self.failures.iter().position(|(call, _)| wanted(*call));
        place.and_then(|place| self.failures.remove(place)).map_or(Ok(()), |(_, error)| Err(error))
    }

    fn acknowledge(&mut self, positions: &Positions) {
        for (at, offset) in positions {
            match self.acknowledged.iter_mut().find(|(known, _)| known == at) {
                Some((_, known)) => *known = *offset,
                None => self.acknowledged.push((at.clone(), *offset)),
            }
        }
        self.acknowledged.sort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next change.
    fn wait<'a>(&'a self, mut script: MutexGuard<'a, Script>) -> MutexGuard<'a, Script> {
        script.waiting += 1;
        self.held.notify_all();
        let mut script = self.changed.wait(script).unwrap_or_else(PoisonError::into_inner);
        script.waiting -= 1;
        script
    }

    /// Wakes every fetch that waits. The lock makes sure that none is between its look and its wait.
    fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }
}

impl Source for ScriptedSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn heads(&self) -> Result<Vec<Head>> {
        let mut script = self.shared.lock();
        script.take_failure(|call| call == Call::Heads)?;
        Ok(script.partitions.iter().map(|(partition, log)| log.head(self.at(*partition))).collect())
    }

    fn resolve(&self, bound: &Bound) -> Result<Positions> {
        let heads = self.heads()?;
        let positions =
            |of: fn(&Head) -> Offset| heads.iter().map(|head| (head.at.clone(), of(head))).collect();
        match bound {
            Bound::Earliest => Ok(positions(|head| head.earliest)),
            Bound::Latest => Ok(positions(|head| head.stable)),
            Bound::Timestamp(since) => {
                let script = self.shared.lock();
                let first =
                    |(partition, log): (&i32, &Log)| (self.at(*partition), offset(log.first_since(*since)));
                Ok(script.partitions.iter().map(first).collect())
            }
            Bound::Offsets(wanted) => {
                let there: Vec<TopicPartition> = heads.into_iter().map(|head| head.at).collect();
                named_offsets(&self.name, &there, wanted)
            }
            Bound::Committed { fallback } => {
                let acknowledged = self.acknowledged();
                let others = if acknowledged.is_empty() { &**fallback } else { &Bound::Earliest };
                let mut positions = self.resolve(others)?;
                for (at, position) in &mut positions {
                    if let Some((_, known)) = acknowledged.iter().find(|(known, _)| known == at) {
                        *position = *known;
                    }
                }
                Ok(positions)
            }
        }
    }

    fn fetcher(&self, columns: RawColumns, _budget: usize) -> Result<Box<dyn Fetcher>> {
        Ok(Box::new(ScriptedFetcher { shared: Arc::clone(&self.shared), columns }))
    }

    fn acknowledge(&self, positions: &Positions, _: &Cancel) -> Result<()> {
        let mut script = self.shared.lock();
        script.take_failure(|call| call == Call::Acknowledge)?;
        script.acknowledge(positions);
        Ok(())
    }

    fn subscribe(&self, waker: Waker) {
        self.shared.lock().wakers.push(waker);
    }
}

/// Reads from the script; it holds nothing of its own, so that what a test changes is seen at once.
struct ScriptedFetcher {
    shared: Arc<Shared>,
    columns: RawColumns,
}

/// How a wait for a record ended.
enum Next {
    Record(Arc<ScriptedRecord>),
    Hole,
    Cancelled,
}

impl Fetcher for ScriptedFetcher {
    fn fetch(&mut self, ranges: &[OffsetRange], cancel: &Cancel, sink: &mut ChunkSink<'_>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let _guard = cancel.on_cancel(Arc::new(move || shared.wake()));
        let mut given = 0;
        self.await_release(cancel);
        for range in ranges {
            if !self.fetch_range(range, &mut given, cancel, sink)? {
                return Ok(());
            }
        }
        self.fail_if_told(u64::MAX)?;
        self.shared.lock().fetched.extend_from_slice(ranges);
        Ok(())
    }
}

impl ScriptedFetcher {
    fn await_release(&self, cancel: &Cancel) {
        let mut script = self.shared.lock();
        while script.stalled && !cancel.is_cancelled() {
            script = self.shared.wait(script);
        }
    }

    /// False where the fetch was cancelled.
    fn fetch_range(
        &self,
        range: &OffsetRange,
        given: &mut u64,
        cancel: &Cancel,
        sink: &mut ChunkSink<'_>,
    ) -> Result<bool> {
        let mut cutter = Cutter::new(range.at.clone(), self.columns);
        cutter.begin(range.len());
        for at in range.from.0..range.until.0 {
            self.fail_if_told(*given)?;
            match self.await_offset(range, at, cancel)? {
                Next::Record(record) => append(&mut cutter, at, &record)?,
                Next::Hole => continue,
                Next::Cancelled => return Ok(false),
            }
            *given += 1;
            cutter.take_full().map_or(Ok(()), &mut *sink)?;
        }
        cutter.take_rest().map_or(Ok(()), &mut *sink)?;
        Ok(!cancel.is_cancelled())
    }

    fn fail_if_told(&self, given: u64) -> Result<()> {
        self.shared.lock().take_failure(|call| matches!(call, Call::Fetch { after } if after <= given))
    }

    fn await_offset(&self, range: &OffsetRange, at: i64, cancel: &Cancel) -> Result<Next> {
        let mut script = self.shared.lock();
        loop {
            if cancel.is_cancelled() {
                return Ok(Next::Cancelled);
            }
            let Some(log) = script.partitions.get(&range.at.partition.0) else {
                return Err(Error::source(format!("{} does not exist", range.at)));
            };
            let place = usize::try_from(at).unwrap_or(usize::MAX);
            if place < log.earliest {
                return Err(data_loss(&range.at, Offset(at), offset(log.earliest)));
            }
            if place < log.stable() {
                let record = log.records.get(place).cloned().flatten();
                return Ok(record.map_or(Next::Hole, Next::Record));
            }
            script = self.shared.wait(script);
        }
    }
}

fn append(cutter: &mut Cutter, offset: i64, record: &ScriptedRecord) -> Result<()> {
    let (key, payload) = (record.key.as_deref(), record.payload.as_deref());
    cutter.append(Record { offset, key, payload, timestamp: record.timestamp })?;
    record.headers.iter().try_for_each(|(name, value)| cutter.header(name, value.as_deref()))
}

fn offset(place: usize) -> Offset {
    Offset(i64::try_from(place).unwrap_or(i64::MAX))
}
