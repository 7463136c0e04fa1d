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
use crate::ingest::kafka::share::{MESSAGE_OVERHEAD, Share};
use crate::ingest::kafka::signal::Signal;
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::raw::RawColumns;

/// Messages taken from librdkafka at once: fewer cost a lock each more often, more fall out of the cache.
pub(super) const TAKE: usize = 1_000;

/// Messages that a look ahead may hold back for one partition: they are looked at again and again, and a batch needs
/// no more to be worth its while.
const LOOK_AHEAD: usize = 1_000;

/// One partition of one fetcher.
pub(super) struct Lane {
    pub(super) at: TopicPartition,
    kept: Kept, // before the queue: messages go back to librdkafka before their queue and client do
    queue: PartitionQueue,
    cutter: Cutter,
    /// Where the next range must start for reading to go on; none while a range is being read and after one was
    /// interrupted: what was given of it cannot be taken back, so that reading starts anew.
    stands: Option<Offset>,
    /// Every record before this offset has been taken.
    seen: i64,
    /// librdkafka's position tells of transaction markers only beyond this: before the first message its position
    /// is that of the start before, and news of an end or an error move it as if it were a record.
    trusted_after: Option<i64>,
}

/// Messages that were taken and not yet given.
#[derive(Default)]
struct Kept {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Of the largest message since there was none: no more are taken than would fit if all were as large.
    largest: usize,
}

impl Kept {
    fn push(&mut self, message: Message) {
        let size = size(&message);
        self.bytes += size;
        self.largest = self.largest.max(size);
        self.messages.push_back(message);
    }

    fn pop_before(&mut self, until: i64) -> Option<Message> {
        let message = self.messages.pop_front_if(|message| !is_beyond(message, until))?;
        self.bytes -= size(&message);
        if self.messages.is_empty() {
            self.largest = 0;
        }
        Some(message)
    }

    /// How many more may be taken so as to keep within `limit` bytes: one, as long as nothing is known of their size.
    fn room(&self, limit: usize) -> usize {
        let fit = match self.largest {
            _ if self.bytes >= limit => 0,
            0 => 1,
            largest => ((limit - self.bytes) / largest).max(1),
        };
        fit.min(LOOK_AHEAD.saturating_sub(self.messages.len()))
    }
}

fn size(message: &Message) -> usize {
    message.value_bytes() + MESSAGE_OVERHEAD
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
        let moved = if self.kept.messages.is_empty() {
            self.give_new(until, columns, io, sink)?
        } else {
            self.give_kept(until, columns, sink)?
        };
        if !self.has_reached(until) {
            return Ok(if moved { Turn::Moved } else { Turn::Empty });
        }
        self.cutter.take_rest().map_or(Ok(()), sink)?;
        self.stands = Some(range.until);
        Ok(Turn::Done)
    }

    /// Reads on at `from`, which lies behind what is gone: what was given of the range stays given.
    fn restart(&mut self, from: Offset) -> Result<(), rdkafka::error::KafkaError> {
        self.kept = Kept::default();
        (self.seen, self.trusted_after) = (from.0, None);
        self.queue.restart(from)
    }

    /// Takes what is there so as to know how far reading could go; says the first offset not known to be there.
    pub(super) fn look_ahead(&mut self, io: &mut Io<'_>) -> Offset {
        loop {
            let room = self.kept.room(io.look_ahead);
            if room == 0 || self.keep_some(room, io) < room {
                return Offset(self.seen);
            }
        }
    }

    /// Takes up to `max` messages and keeps them; says how many there were.
    fn keep_some(&mut self, max: usize, io: &mut Io<'_>) -> usize {
        let messages = self.queue.take(max, io.batch);
        let taken = messages.len();
        for message in messages {
            self.note(&message);
            self.keep(message);
        }
        if taken < max {
            self.note_position(io.client);
        }
        taken
    }

    /// A message at or after `until`, an end or a position there: records are never counted, since compaction and
    /// transaction markers leave holes.
    fn has_reached(&self, until: i64) -> bool {
        match self.kept.messages.front() {
            Some(next) => is_beyond(next, until),
            None => self.seen >= until,
        }
    }

    /// Transaction markers are no messages, but they move librdkafka's position.
    fn note_position(&mut self, client: &Client) {
        let Some(trusted_after) = self.trusted_after else { return };
        let position = native::position(client, &self.at).filter(|position| *position > trusted_after);
        self.seen = self.seen.max(position.unwrap_or(self.seen));
    }

    #[inline]
    fn note(&mut self, message: &Message) {
        match message.kind() {
            Kind::Record => {
                self.trusted_after = self.trusted_after.or(Some(-1));
                self.seen = message.offset() + 1;
            }
            Kind::EndOfPartition => {
                self.trusted_after = Some(message.offset() + 1);
                self.seen = self.seen.max(message.offset());
            }
            Kind::Failure(_) => self.trusted_after = Some(message.offset() + 1),
        }
    }

    fn keep(&mut self, message: Message) {
        if !matches!(message.kind(), Kind::EndOfPartition) {
            self.kept.push(message);
        }
    }

    /// Each message is noted, given and freed while it is in the cache, and kept only where it lies beyond `until`.
    fn give_new(
        &mut self,
        until: i64,
        columns: RawColumns,
        io: &mut Io<'_>,
        sink: &mut ChunkSink<'_>,
    ) -> Result<bool> {
        if self.seen >= until {
            return Ok(false);
        }
        // No more than the range may hold: what lies beyond it then stays in librdkafka's own count.
        let max = usize::try_from(until - self.seen).unwrap_or(TAKE).min(TAKE);
        let messages = self.queue.take(max, io.batch);
        let (taken, mut moved) = (messages.len(), false);
        for message in messages {
            self.note(&message);
            if is_beyond(&message, until) || !self.kept.messages.is_empty() {
                self.keep(message);
            } else {
                moved |= self.give(&message, columns, sink)?;
            }
        }
        if taken < max {
            self.note_position(io.client);
        }
        Ok(moved)
    }

    fn give_kept(&mut self, until: i64, columns: RawColumns, sink: &mut ChunkSink<'_>) -> Result<bool> {
        let mut moved = false;
        while let Some(message) = self.kept.pop_before(until) {
            moved |= self.give(&message, columns, sink)?;
        }
        Ok(moved)
    }

    /// False where `message` is only news.
    #[inline]
    fn give(&mut self, message: &Message, columns: RawColumns, sink: &mut ChunkSink<'_>) -> Result<bool> {
        match message.kind() {
            Kind::Record => self.append(message, columns)?,
            Kind::EndOfPartition => return Ok(false),
            Kind::Failure(code) => self.fail(code, message)?,
        }
        self.cutter.take_full().map_or(Ok(()), sink)?;
        Ok(true)
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
        Err(Error::source(format!("{} at offset {}: {}", self.at, self.seen, message.reason())).caused_by(
            Failed {
                code,
                at: self.at.clone(),
                seen: Offset(self.seen),
                offset: message.offset(),
                reason: message.reason(),
            },
        ))
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
    /// Which offset librdkafka tells of.
    pub(super) offset: i64,
    /// What librdkafka says of it.
    pub(super) reason: String,
}

impl Failed {
    /// Whether records may be gone, or all of the topic: only the cluster knows.
    pub(super) fn may_be_loss(&self) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(
            self.code,
            Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::LogTruncation
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicId
        )
    }
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
    /// The bytes that a look ahead may hold of each partition.
    pub(super) look_ahead: usize,
}

/// All lanes of one fetcher.
pub(super) struct Lanes {
    by_partition: HashMap<TopicPartition, Lane>, // before the client, for the same reason as in a lane
    batch: Batch,
    columns: RawColumns,
    share: Share,
    signal: Arc<Signal>,
    client: Arc<Client>,
}

impl Lanes {
    pub(super) fn new(client: Arc<Client>, signal: Arc<Signal>, columns: RawColumns, share: Share) -> Self {
        Self { by_partition: HashMap::new(), batch: Batch::new(TAKE), columns, share, signal, client }
    }

    /// What it may hold of each partition.
    pub(super) fn share(&self) -> Share {
        self.share
    }

    /// The same through another client, with another share: what was taken and not given is taken again.
    pub(super) fn anew(&mut self, client: Arc<Client>, share: Share) {
        *self = Self::new(client, Arc::clone(&self.signal), self.columns, share);
    }

    /// Fetches what `ranges` name: each partition from its `from`, no other.
    pub(super) fn settle(&mut self, ranges: &[OffsetRange]) -> Result<(), rdkafka::error::KafkaError> {
        let stay = |lane: &Lane| ranges.iter().any(|range| range.at == lane.at && lane.stands_at(range.from));
        let gone: Vec<TopicPartition> =
            self.by_partition.values().filter(|lane| !stay(lane)).map(|lane| lane.at.clone()).collect();
        for at in &gone {
            self.by_partition.remove(at);
        }
        for range in ranges {
            if !self.by_partition.contains_key(&range.at) {
                self.add(&range.at, range.from)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<(), rdkafka::error::KafkaError> {
        let queue = PartitionQueue::new(&self.client, at, &self.signal)?;
        queue.start(from)?;
        let cutter = Cutter::new(at.clone(), self.columns);
        let (stands, seen) = (Some(from), from.0);
        let lane =
            Lane { at: at.clone(), kept: Kept::default(), queue, cutter, stands, seen, trusted_after: None };
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
        let (columns, look_ahead) = (self.columns, self.share.look_ahead());
        let mut io = Io { client: &self.client, batch: &mut self.batch, look_ahead };
        let (mut moved, mut failed) = (false, None);
        open.retain(|range| {
            let Some(lane) = self.by_partition.get_mut(&range.at) else { return false };
            if failed.is_some() {
                return true; // as it is: whoever heals the failure goes on with all that were open
            }
            match lane.turn(range, columns, &mut io, sink) {
                Ok(turn) => {
                    moved |= turn != Turn::Empty;
                    turn != Turn::Done
                }
                Err(error) => {
                    failed = Some(error.at(range.to_string()));
                    true
                }
            }
        });
        failed.map_or(Ok(()), Err)?;
        Ok(match (open.is_empty(), moved) {
            (true, _) => Turn::Done,
            (false, true) => Turn::Moved,
            (false, false) => Turn::Empty,
        })
    }

    /// Before which offset every record of `at` has been taken.
    pub(super) fn seen(&self, at: &TopicPartition) -> Option<Offset> {
        self.by_partition.get(at).map(|lane| Offset(lane.seen))
    }

    /// Has `at` be read on at `from`, behind what is gone.
    pub(super) fn restart(
        &mut self,
        at: &TopicPartition,
        from: Offset,
    ) -> Result<(), rdkafka::error::KafkaError> {
        self.by_partition.get_mut(at).map_or(Ok(()), |lane| lane.restart(from))
    }

    /// Ends the range of `at` with what has been given of it.
    pub(super) fn finish(&mut self, at: &TopicPartition, sink: &mut ChunkSink<'_>) -> Result<()> {
        let rest = self.by_partition.remove(at).and_then(|mut lane| lane.cutter.take_rest());
        rest.map_or(Ok(()), sink)
    }

    /// How far each partition could be read without asking the cluster.
    pub(super) fn look_ahead(&mut self) -> Vec<(TopicPartition, Offset)> {
        let look_ahead = self.share.look_ahead();
        let mut io = Io { client: &self.client, batch: &mut self.batch, look_ahead };
        self.by_partition.values_mut().map(|lane| (lane.at.clone(), lane.look_ahead(&mut io))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;
    use crate::ingest::kafka::KafkaSettings;

    const SIZE: usize = 100_000;

    /// A cluster whose topic `t` has ten large records.
    fn cluster() -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let mut config = rdkafka::ClientConfig::new();
        let producer: BaseProducer =
            config.set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
        let large = vec![b'x'; SIZE];
        for _ in 0..10 {
            producer.send(BaseRecord::<(), [u8]>::to("t").partition(0).payload(&large)).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        cluster
    }

    fn lanes(servers: &str, share: Share) -> Lanes {
        let signal = Arc::new(Signal::new(Arc::default()));
        let (config, _) = KafkaSettings::new(servers, "t").fetcher_client(share);
        let client = Arc::new(Client::with_signal(&config, None, &signal).unwrap());
        Lanes::new(client, signal, RawColumns::default(), share)
    }

    #[test]
    fn a_look_ahead_holds_no_more_bytes_than_its_share_and_one_record() {
        let cluster = cluster();
        let share = Share::of(5 * 300_000, 1);
        let mut lanes = lanes(&cluster.bootstrap_servers(), share);
        let at = TopicPartition::new("t", 0);
        let range = |until| OffsetRange::new(at.clone(), Offset(0), Offset(until));
        lanes.settle(&[range(0)]).unwrap();
        while lanes.look_ahead()[0].1 < Offset(3) {
            lanes.signal.wait(None);
        }
        for _ in 0..10 {
            assert_eq!(lanes.look_ahead()[0].1, Offset(3));
        }
        let mut given = 0;
        let ranges = [range(10)];
        let mut open = ranges.iter().collect();
        while lanes
            .turn(&mut open, &mut |chunk| {
                given += chunk.len();
                Ok(())
            })
            .unwrap()
            != Turn::Done
        {}
        assert_eq!(given, 10, "what was kept is given all the same");
    }
}
