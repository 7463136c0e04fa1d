//! What one fetcher holds of its partitions: where each stands, and what was taken of it and not yet given.
//!
//! It deliberately plans nothing: a lane gives exactly the range it is told, and remembers how far it has seen.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode;

use crate::error::{Error, Result};
use crate::ingest::ChunkSink;
use crate::ingest::cutter::{Cutter, Record};
use crate::ingest::kafka::client::Client;
use crate::ingest::kafka::native::{self, Batch, Kind, Message, PartitionQueue};
use crate::ingest::kafka::signal::Signal;
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::raw::RawColumns;

/// Messages taken from librdkafka at once: fewer cost a lock each more often, more fall out of the cache.
pub(super) const TAKE: usize = 10_000;

/// Messages that a look ahead may hold back for one partition, beyond what the memory budget counts.
const LOOK_AHEAD: usize = 1_000;

/// One partition of one fetcher.
pub(super) struct Lane {
    pub(super) at: TopicPartition,
    kept: VecDeque<Message>, // before the queue: messages go back to librdkafka before their queue and client do
    queue: PartitionQueue,
    cutter: Cutter,
    /// Where the next range must start for reading to go on; none while a range is being read and after one was
    /// interrupted: what was given of it cannot be taken back, so that reading starts anew.
    stands: Option<Offset>,
    /// Every record before this offset has been taken.
    seen: i64,
    /// librdkafka's position tells of transaction markers only beyond this: before the first message its position
    /// is that of the assignment before, and news of an end or an error move it as if it were a record.
    trusted_after: Option<i64>,
}

/// How far one turn of a lane has brought its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Done,
    Moved,
    /// Nothing is there; the signal tells when it is.
    Empty,
}

impl Lane {
    pub(super) fn stands_at(&self, from: Offset) -> bool {
        self.stands == Some(from)
    }

    /// Starts to read `range`.
    pub(super) fn begin(&mut self, range: &OffsetRange) {
        self.stands = None;
        self.cutter.begin(range.len());
    }

    /// Gives what is there of `range`, one batch at most, and says how far that brought it.
    pub(super) fn turn(
        &mut self,
        range: &OffsetRange,
        columns: RawColumns,
        io: &mut Io<'_>,
        sink: &mut ChunkSink<'_>,
    ) -> Result<Turn> {
        let until = range.until.0;
        if self.kept.is_empty() && self.seen < until {
            // No more than the range may hold: what lies beyond it then stays in librdkafka's own count.
            let missing = usize::try_from(until - self.seen).unwrap_or(TAKE);
            self.take(missing.min(TAKE), io);
        }
        let moved = self.give(until, columns, sink)?;
        if !self.has_reached(until) {
            return Ok(if moved { Turn::Moved } else { Turn::Empty });
        }
        self.cutter.take_rest().map_or(Ok(()), sink)?;
        self.stands = Some(range.until);
        Ok(Turn::Done)
    }

    /// Takes what is there so as to know how far reading could go; says the first offset not known to be there.
    pub(super) fn look_ahead(&mut self, io: &mut Io<'_>) -> Offset {
        self.take(LOOK_AHEAD.saturating_sub(self.kept.len()), io);
        Offset(self.seen)
    }

    /// A message at or after `until`, an end or a position there: records are never counted, since compaction and
    /// transaction markers leave holes.
    fn has_reached(&self, until: i64) -> bool {
        match self.kept.front() {
            Some(next) => matches!(next.kind(), Kind::Record) && next.offset() >= until,
            None => self.seen >= until,
        }
    }

    fn take(&mut self, max: usize, io: &mut Io<'_>) {
        if max == 0 {
            return;
        }
        self.queue.take(max, io.batch);
        let mut taken = 0;
        for message in io.batch.drain() {
            taken += 1;
            self.note(message);
        }
        if taken < max {
            self.note_position(io.client);
        }
    }

    /// Transaction markers are no messages, but they move librdkafka's position.
    fn note_position(&mut self, client: &Client) {
        let Some(trusted_after) = self.trusted_after else { return };
        let position = native::position(client, &self.at).filter(|position| *position > trusted_after);
        self.seen = self.seen.max(position.unwrap_or(self.seen));
    }

    fn note(&mut self, message: Message) {
        self.trusted_after = match message.kind() {
            Kind::Record => self.trusted_after.or(Some(-1)),
            Kind::EndOfPartition | Kind::Failure(_) => Some(message.offset() + 1),
        };
        match message.kind() {
            Kind::EndOfPartition => self.seen = self.seen.max(message.offset()),
            Kind::Record => {
                self.seen = message.offset() + 1;
                self.kept.push_back(message);
            }
            Kind::Failure(_) => self.kept.push_back(message),
        }
    }

    fn give(&mut self, until: i64, columns: RawColumns, sink: &mut ChunkSink<'_>) -> Result<bool> {
        let mut moved = false;
        while let Some(message) = self.kept.pop_front_if(|message| !is_beyond(message, until)) {
            moved = true;
            if let Kind::Failure(code) = message.kind() {
                self.fail(code, &message)?;
                continue;
            }
            self.append(&message, columns)?;
            if let Some(chunk) = self.cutter.take_full() {
                sink(chunk)?;
            }
        }
        Ok(moved)
    }

    #[inline]
    fn append(&mut self, message: &Message, columns: RawColumns) -> Result<()> {
        let timestamp = if columns.timestamp { message.timestamp() } else { -1 };
        let (offset, key, payload) = (message.offset(), message.key(), message.payload());
        self.cutter.append(Record { offset, key, payload, timestamp })?;
        if columns.headers {
            message.for_each_header(|name, value| self.cutter.header(name, value))?;
        }
        Ok(())
    }

    /// An error that passes is librdkafka's to heal; any other ends the fetch.
    fn fail(&self, code: RDKafkaErrorCode, message: &Message) -> Result<()> {
        if crate::kafka::is_passing(code) {
            log::warn!(target: "tidemill::ingest::kafka", "{}: {code}: {}", self.at, message.reason());
            return Ok(());
        }
        Err(Error::source(format!("{} at offset {}: {}", self.at, self.seen, message.reason()))
            .caused_by(Failed { code, at: self.at.clone(), seen: Offset(self.seen) }))
    }
}

fn is_beyond(message: &Message, until: i64) -> bool {
    matches!(message.kind(), Kind::Record) && message.offset() >= until
}

/// Which error of librdkafka ended a lane, and how far it had come: the fetcher knows how to explain it.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: RDKafkaErrorCode,
    pub(super) at: TopicPartition,
    pub(super) seen: Offset,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.code.fmt(f)
    }
}

impl std::error::Error for Failed {}

/// What lanes need of their fetcher to take messages.
pub(super) struct Io<'a> {
    pub(super) client: &'a Client,
    pub(super) batch: &'a mut Batch,
}

/// All lanes of one fetcher.
pub(super) struct Lanes {
    by_partition: HashMap<TopicPartition, Lane>, // before the client, for the same reason as in a lane
    batch: Batch,
    columns: RawColumns,
    signal: Arc<Signal>,
    client: Arc<Client>,
}

impl Lanes {
    pub(super) fn new(client: Arc<Client>, signal: Arc<Signal>, columns: RawColumns) -> Self {
        Self { by_partition: HashMap::new(), batch: Batch::new(TAKE), columns, signal, client }
    }

    /// Brings the assignment to what `ranges` name: each partition at its `from`, no other.
    pub(super) fn settle(&mut self, ranges: &[OffsetRange]) -> Result<(), rdkafka::error::KafkaError> {
        let stay = |lane: &Lane| ranges.iter().any(|range| range.at == lane.at && lane.stands_at(range.from));
        let gone: Vec<TopicPartition> =
            self.by_partition.values().filter(|lane| !stay(lane)).map(|lane| lane.at.clone()).collect();
        if !gone.is_empty() {
            self.client.unassign(&gone)?;
            // With its queue goes what is left in it: nothing of an earlier assignment may be taken for the next.
            for at in &gone {
                self.remove(at);
            }
        }
        let new: Vec<(TopicPartition, Offset)> = ranges
            .iter()
            .filter(|range| !self.by_partition.contains_key(&range.at))
            .map(|range| (range.at.clone(), range.from))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        for (at, from) in &new {
            self.add(at, *from)?;
        }
        self.client.assign(&new)
    }

    fn remove(&mut self, at: &TopicPartition) {
        let Some(lane) = self.by_partition.remove(at) else { return };
        loop {
            lane.queue.take(TAKE, &mut self.batch);
            if self.batch.drain().count() == 0 {
                return;
            }
        }
    }

    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<(), rdkafka::error::KafkaError> {
        let queue = PartitionQueue::new(&self.client, at, &self.signal)?;
        let cutter = Cutter::new(at.clone(), self.columns);
        let (stands, seen) = (Some(from), from.0);
        let lane =
            Lane { at: at.clone(), kept: VecDeque::new(), queue, cutter, stands, seen, trusted_after: None };
        self.by_partition.insert(at.clone(), lane);
        Ok(())
    }

    /// Starts to read `ranges`, which have been settled.
    pub(super) fn begin(&mut self, ranges: &[OffsetRange]) {
        for range in ranges {
            if let Some(lane) = self.by_partition.get_mut(&range.at) {
                lane.begin(range);
            }
        }
    }

    /// One turn of each of `open`; those that are done are taken out of it.
    pub(super) fn turn(&mut self, open: &mut Vec<&OffsetRange>, sink: &mut ChunkSink<'_>) -> Result<Turn> {
        let (columns, mut io) = (self.columns, Io { client: &self.client, batch: &mut self.batch });
        let mut moved = false;
        let mut still_open = Vec::with_capacity(open.len());
        for range in open.drain(..) {
            let Some(lane) = self.by_partition.get_mut(&range.at) else { continue };
            match lane.turn(range, columns, &mut io, sink).map_err(|error| error.at(range.to_string()))? {
                Turn::Done => moved = true,
                turn => {
                    moved |= turn == Turn::Moved;
                    still_open.push(range);
                }
            }
        }
        *open = still_open;
        Ok(match (open.is_empty(), moved) {
            (true, _) => Turn::Done,
            (false, true) => Turn::Moved,
            (false, false) => Turn::Empty,
        })
    }

    /// How far each partition could be read without asking the cluster.
    pub(super) fn look_ahead(&mut self) -> Vec<(TopicPartition, Offset)> {
        let mut io = Io { client: &self.client, batch: &mut self.batch };
        self.by_partition.values_mut().map(|lane| (lane.at.clone(), lane.look_ahead(&mut io))).collect()
    }
}
