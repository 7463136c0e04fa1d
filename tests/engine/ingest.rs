//! Sources: the contract over each of them, and what only a real broker can show.
//!
//! It deliberately starts no broker: `TIDEMILL_TEST_KAFKA` names one.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside of the test functions"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::Level;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::bindings as rd;
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::broker;
use tidemill::cancel::Cancel;
use tidemill::error::{Error, Result};
use tidemill::ingest::contract::{Fixture, TestTopic, check};
use tidemill::ingest::kafka::{Isolation, KafkaSettings, KafkaSource, Topics};
use tidemill::ingest::scripted::{Call, ScriptedRecord, ScriptedSource};
use tidemill::ingest::{Bound, Fetcher, Source};
use tidemill::offset::{Offset, OffsetRange, TopicPartition};
use tidemill::raw::{RawChunk, RawColumns};
use tidemill::time::{BatchTime, Clock, ManualClock, SystemClock, Waker};

const BUDGET: usize = 64 << 20;

struct Scripted;

impl Fixture for Scripted {
    fn topic(&self, partitions: i32) -> Result<Box<dyn TestTopic>> {
        Ok(Box::new(ScriptedTopic(ScriptedSource::with_partitions("scripted", partitions))))
    }
}

struct ScriptedTopic(ScriptedSource);

impl TestTopic for ScriptedTopic {
    fn source(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(self.0.clone()))
    }

    fn at(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(self.0.name(), partition)
    }

    fn append(&self, partition: i32, records: &[ScriptedRecord]) -> Result<()> {
        for record in records {
            self.0.push_record(partition, record.clone());
        }
        Ok(())
    }

    fn append_hole(&self, partition: i32) -> Result<bool> {
        self.0.hole(partition, 2);
        Ok(true)
    }

    fn trim(&self, partition: i32, earliest: Offset) -> Result<bool> {
        self.0.trim(partition, earliest);
        Ok(true)
    }

    fn grow(&self, partitions: i32) -> Result<bool> {
        (0..partitions).for_each(|partition| self.0.add_partition(partition));
        Ok(true)
    }
}

#[test]
fn the_scripted_source_keeps_the_contract() {
    check(&Scripted).unwrap();
}

fn range(at: &TopicPartition, from: i64, until: i64) -> OffsetRange {
    OffsetRange::new(at.clone(), Offset(from), Offset(until))
}

fn read(fetcher: &mut dyn Fetcher, ranges: &[OffsetRange]) -> Result<Vec<RawChunk>> {
    let mut chunks = Vec::new();
    fetcher.fetch(ranges, &Cancel::default(), &mut |chunk| {
        chunks.push(chunk);
        Ok(())
    })?;
    Ok(chunks)
}

fn offsets(chunks: &[RawChunk]) -> Vec<i64> {
    chunks.iter().flat_map(|chunk| chunk.offsets.iter().copied()).collect()
}

#[test]
fn a_scripted_failure_happens_once_and_where_it_was_asked_for() {
    let source = ScriptedSource::new("t");
    for _ in 0..5 {
        source.push(0, None, Some(b"x"), 0);
    }
    source.fail_next(Call::Fetch { after: 3 }, Error::source("torn"));
    source.fail_next(Call::Heads, Error::source("gone").retriable());
    source.fail_next(Call::Acknowledge, Error::source("refused"));
    let at = TopicPartition::new("t", 0);
    assert!(source.heads().unwrap_err().is_retriable());
    assert!(source.acknowledge(&vec![(at.clone(), Offset(1))], &Cancel::default()).is_err());
    let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
    assert!(read(&mut *fetcher, &[range(&at, 0, 5)]).is_err());
    assert_eq!(offsets(&read(&mut *fetcher, &[range(&at, 0, 5)]).unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!((source.heads().unwrap().len(), source.fetched().len()), (1, 1));
}

#[test]
fn a_stalled_fetch_goes_on_when_it_is_released() {
    let source = ScriptedSource::new("t");
    source.push(0, None, Some(b"x"), 0);
    source.stall();
    std::thread::scope(|threads| {
        let fetch = threads.spawn(|| {
            let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
            offsets(&read(&mut *fetcher, &[range(&TopicPartition::new("t", 0), 0, 1)]).unwrap())
        });
        source.await_waiting_fetch();
        source.release();
        assert_eq!(fetch.join().unwrap(), [0]);
    });
}

#[test]
fn records_of_an_open_transaction_are_not_stable() {
    let source = ScriptedSource::new("t");
    source.push(0, None, Some(b"x"), 0);
    source.open_transaction(0);
    source.push(0, None, Some(b"y"), 0);
    assert_eq!(source.heads().unwrap()[0].stable, Offset(1));
    source.commit_transaction(0);
    assert_eq!(source.heads().unwrap()[0].stable, Offset(3), "the marker takes up an offset");
}

/// Topics on a cluster, real or mocked.
struct Kafka {
    servers: String,
    real: bool,
}

static NUMBER: AtomicU32 = AtomicU32::new(0); // names of topics, one a test

fn fresh_name() -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("ingest-{}-{number}", std::process::id())
}

/// The broker that the tests may use; where there is none they say so and pass, except on CI.
fn kafka() -> Option<Kafka> {
    broker::real().map(|servers| Kafka { servers, real: true })
}

impl Kafka {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config
    }

    fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        let mut config = self.config();
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.set("linger.ms", "1").create().unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    fn create(&self, partitions: i32, settings: &[(&str, &str)]) -> KafkaTopic {
        let name = fresh_name();
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let created = wait(self.admin().create_topics([&topic], &AdminOptions::new())).unwrap();
        assert!(created.iter().all(std::result::Result::is_ok), "{created:?}");
        let settings = KafkaSettings {
            group_id: Some(format!("group-{name}")),
            ..KafkaSettings::new(&self.servers, &name)
        };
        KafkaTopic { servers: self.servers.clone(), real: self.real, name, settings }
    }
}

/// rdkafka's admin calls are futures that need no runtime: they are woken from a thread of librdkafka's client.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

struct KafkaTopic {
    servers: String,
    real: bool,
    name: String,
    settings: KafkaSettings,
}

impl KafkaTopic {
    fn kafka(&self) -> Kafka {
        Kafka { servers: self.servers.clone(), real: self.real }
    }

    fn connect(&self) -> Result<KafkaSource> {
        KafkaSource::connect(self.settings.clone(), Arc::new(SystemClock::new()))
    }

    fn produce(&self, producer: &BaseProducer, partition: i32, records: &[ScriptedRecord]) {
        for record in records {
            loop {
                let mut message: BaseRecord<'_, [u8], [u8]> =
                    BaseRecord::to(&self.name).partition(partition).timestamp(record.timestamp);
                message.key = record.key.as_deref();
                message.payload = record.payload.as_deref();
                let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header { key, value: value.as_deref() })
                });
                if !record.headers.is_empty() {
                    message = message.headers(headers);
                }
                if producer.send(message).is_ok() {
                    break;
                }
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Returns once its end is in the log: the coordinator answers before it has written that.
    fn transaction(&self, partition: i32, records: &[ScriptedRecord], commit: bool) {
        let end_of_it = self.stable_end(partition) + i64::try_from(records.len()).unwrap() + 1;
        let id = fresh_name();
        let producer = self.kafka().producer(&[("transactional.id", &id)]);
        producer.init_transactions(Duration::from_secs(30)).unwrap();
        producer.begin_transaction().unwrap();
        self.produce(&producer, partition, records);
        if commit {
            producer.commit_transaction(Duration::from_secs(30)).unwrap();
        } else {
            producer.abort_transaction(Duration::from_secs(30)).unwrap();
        }
        let written = (0..1_000).any(|_| self.stable_end(partition) >= end_of_it);
        assert!(written, "the end of the transaction was not written");
    }

    fn stable_end(&self, partition: i32) -> i64 {
        let ends = self.connect().unwrap().resolve(&Bound::Latest).unwrap();
        ends.iter().find(|(at, _)| at.partition.0 == partition).unwrap().1.0
    }
}

impl Fixture for Kafka {
    fn topic(&self, partitions: i32) -> Result<Box<dyn TestTopic>> {
        Ok(Box::new(self.create(partitions, &[("retention.ms", "-1")])))
    }
}

impl TestTopic for KafkaTopic {
    fn source(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(self.connect()?))
    }

    fn at(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(&self.name, partition)
    }

    fn append(&self, partition: i32, records: &[ScriptedRecord]) -> Result<()> {
        self.produce(&self.kafka().producer(&[]), partition, records);
        Ok(())
    }

    fn append_hole(&self, partition: i32) -> Result<bool> {
        if self.real {
            self.transaction(partition, &[record(b"aborted")], false);
        }
        Ok(self.real)
    }

    fn trim(&self, partition: i32, earliest: Offset) -> Result<bool> {
        if self.real {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&self.name, partition, rdkafka::Offset::Offset(earliest.0)).unwrap();
            wait(self.kafka().admin().delete_records(&list, &AdminOptions::new())).unwrap();
        }
        Ok(self.real)
    }

    fn grow(&self, partitions: i32) -> Result<bool> {
        if self.real {
            let wanted = NewPartitions::new(&self.name, usize::try_from(partitions).unwrap());
            wait(self.kafka().admin().create_partitions([&wanted], &AdminOptions::new())).unwrap();
        }
        Ok(self.real)
    }
}

fn record(payload: &[u8]) -> ScriptedRecord {
    let timestamp = 1_700_000_000_000;
    ScriptedRecord { payload: Some(payload.to_vec()), timestamp, ..ScriptedRecord::default() }
}

fn payloads(chunks: &[RawChunk]) -> Vec<String> {
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    chunks.iter().flat_map(|chunk| chunk.payloads.iter().map(text).collect::<Vec<_>>()).collect()
}

#[test]
fn the_kafka_source_keeps_the_contract() {
    if let Some(kafka) = kafka() {
        check(&kafka).unwrap();
    }
}

#[test]
fn the_news_of_an_end_is_no_record() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.create(1, &[]);
    topic.append(0, &[record(b"a"), record(b"b")]).unwrap();
    let source = topic.connect().unwrap();
    let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
    assert_eq!(offsets(&read(&mut *fetcher, &[range(&topic.at(0), 0, 2)]).unwrap()), [0, 1]);
    let clock = SystemClock::new();
    while clock.elapsed() < Duration::from_millis(300) {
        assert_eq!(source.heads().unwrap()[0].stable, Offset(2)); // looks ahead, and so takes the end
    }
}

fn numbered(count: i64) -> Vec<ScriptedRecord> {
    (0..count).map(|number| record(number.to_string().as_bytes())).collect()
}

fn stable(source: &KafkaSource) -> i64 {
    source.resolve(&Bound::Latest).unwrap()[0].1.0
}

#[test]
fn aborted_records_are_left_out_and_their_markers_end_ranges() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.create(1, &[]);
    topic.transaction(0, &[record(b"kept")], true);
    topic.transaction(0, &[record(b"dropped"), record(b"dropped")], false);
    topic.transaction(0, &[record(b"kept too")], true);
    let source = topic.connect().unwrap();
    let end = stable(&source);
    assert_eq!(end, 7, "four records and three markers");
    let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
    let all = read(&mut *fetcher, &[range(&topic.at(0), 0, end)]).unwrap();
    assert_eq!((offsets(&all), payloads(&all)), (vec![0, 5], vec!["kept".to_owned(), "kept too".to_owned()]));
    for (from, until) in [(1, 2), (2, 5), (5, 6), (6, 7), (3, 4)] {
        let part = read(&mut *fetcher, &[range(&topic.at(0), from, until)]).unwrap();
        assert_eq!(offsets(&part), if from == 5 { vec![5] } else { vec![] }, "{from}..{until}");
    }
}

#[test]
fn records_of_aborted_transactions_are_read_where_all_are_wanted() {
    let Some(kafka) = kafka() else { return };
    let mut topic = kafka.create(1, &[]);
    topic.settings.isolation = Isolation::Uncommitted;
    topic.transaction(0, &[record(b"aborted")], false);
    let source = topic.connect().unwrap();
    let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
    assert_eq!(payloads(&read(&mut *fetcher, &[range(&topic.at(0), 0, 2)]).unwrap()), ["aborted"]);
}

#[test]
fn an_open_transaction_holds_the_head() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.create(1, &[]);
    topic.append(0, &[record(b"before")]).unwrap();
    let producer = topic.kafka().producer(&[("transactional.id", &fresh_name())]);
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer.begin_transaction().unwrap();
    topic.produce(&producer, 0, &[record(b"open")]);
    let source = topic.connect().unwrap();
    assert_eq!(source.heads().unwrap()[0].stable, Offset(1));
    producer.commit_transaction(Duration::from_secs(30)).unwrap();
    while stable(&source) < 3 {} // the broker writes the marker after it has answered
}

#[test]
fn heads_tell_the_topic_apart_from_one_made_again() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.create(1, &[]);
    let first = topic.connect().unwrap().heads().unwrap().remove(0);
    assert!(first.topic_id.is_some() && first.leader_epoch.is_some(), "{first:?}");
    wait(kafka.admin().delete_topics(&[&topic.name], &AdminOptions::new())).unwrap();
    let made = || {
        let topic = NewTopic::new(&topic.name, 1, TopicReplication::Fixed(1));
        wait(kafka.admin().create_topics([&topic], &AdminOptions::new())).unwrap().remove(0)
    };
    while made().is_err() {} // the broker takes its time to forget the first
    let second = loop {
        if let Ok(heads) = topic.connect().and_then(|source| source.heads()) {
            break heads[0].clone();
        }
    };
    assert_ne!(first.topic_id, second.topic_id);
}

#[test]
fn compacted_records_leave_holes_that_ranges_may_end_in() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.create(
        1,
        &[
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.001"),
            ("segment.ms", "100"),
            ("min.compaction.lag.ms", "0"),
        ],
    );
    let keyed = |value: &[u8]| ScriptedRecord { key: Some(b"same".to_vec()), timestamp: -1, ..record(value) };
    let clock = SystemClock::new();
    let (source, mut written) = (topic.connect().unwrap(), 0);
    // Only closed segments are compacted, and only a later record closes one.
    let (survivors, end) = loop {
        topic.append(0, &[keyed(b"a"), keyed(b"b"), keyed(b"c")]).unwrap();
        written += 3;
        let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
        let survivors = offsets(&read(&mut *fetcher, &[range(&topic.at(0), 0, written)]).unwrap());
        if survivors.len() < usize::try_from(written).unwrap() - 3 {
            break (survivors, written);
        }
        assert!(clock.elapsed() < Duration::from_mins(1), "the broker has not compacted anything");
    };
    let there: BTreeSet<i64> = survivors.into_iter().collect();
    let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
    for until in 1..=end {
        let read = offsets(&read(&mut *fetcher, &[range(&topic.at(0), until - 1, until)]).unwrap());
        assert!(read.iter().all(|offset| there.contains(offset)), "{until}: {read:?}");
    }
}

#[test]
fn a_topic_that_is_missing_is_named_with_the_nearest_that_exists() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.create(1, &[]);
    let misspelt = format!("{}x", topic.name);
    let settings = KafkaSettings::new(&kafka.servers, &misspelt);
    let error = KafkaSource::connect(settings, Arc::new(SystemClock::new())).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("topic {misspelt:?} does not exist")), "{text}");
    assert!(text.contains("did you mean") && text.contains(&topic.name[..7]), "{text}");
}

#[test]
fn a_partition_that_is_missing_is_named() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.create(2, &[]);
    let settings = KafkaSettings {
        topics: Topics::Partitions(vec![topic.at(1), topic.at(7)]),
        ..KafkaSettings::new(&kafka.servers, &topic.name)
    };
    let error = KafkaSource::connect(settings.clone(), Arc::new(SystemClock::new())).unwrap_err();
    assert!(error.to_string().contains("[7] does not exist"), "{error}");
    let settings = KafkaSettings { topics: Topics::Partitions(vec![topic.at(1)]), ..settings };
    let source = KafkaSource::connect(settings, Arc::new(SystemClock::new())).unwrap();
    assert_eq!(source.heads().unwrap().len(), 1);
}

#[test]
fn a_broker_that_is_not_there_is_an_error_in_finite_time() {
    let settings = KafkaSettings::new("127.0.0.1:1", "readings");
    let error = KafkaSource::connect(settings, Arc::new(SystemClock::new())).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("check bootstrap_servers"), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[test]
fn a_setting_that_librdkafka_does_not_know_is_a_config_error() {
    let mut settings = KafkaSettings::new("127.0.0.1:1", "readings");
    settings.cluster.config.insert("no.such.setting".into(), "1".into());
    let error = KafkaSource::connect(settings, Arc::new(SystemClock::new())).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("no.such.setting"), "{error}");
}

#[test]
fn a_source_without_a_group_commits_nothing_and_says_so() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.create(1, &[]);
    let settings = KafkaSettings::new(&kafka.servers, &topic.name);
    let source = KafkaSource::connect(settings, Arc::new(SystemClock::new())).unwrap();
    source.acknowledge(&vec![(topic.at(0), Offset(1))], &Cancel::default()).unwrap();
    let error = source.resolve(&Bound::Committed { fallback: Box::new(Bound::Latest) }).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("group_id"), "{error}");
}

#[test]
fn a_record_of_ten_megabytes_comes_whole() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.create(1, &[("max.message.bytes", "16000000")]);
    let producer = kafka.producer(&[("message.max.bytes", "16000000")]);
    let large = vec![b'x'; 10 << 20];
    topic.produce(&producer, 0, &[record(b"before"), record(&large), record(b"after")]);
    let source = topic.connect().unwrap();
    let mut fetcher = source.fetcher(RawColumns::default(), 1 << 20).unwrap();
    let chunks = read(&mut *fetcher, &[range(&topic.at(0), 0, 3)]).unwrap();
    let sizes: Vec<usize> =
        chunks.iter().flat_map(|c| c.payloads.iter().map(|p| p.unwrap().len()).collect::<Vec<_>>()).collect();
    assert_eq!((sizes, chunks.len()), (vec![6, 10 << 20, 5], 2));
}

#[test]
fn a_fetch_goes_on_when_its_broker_comes_back() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let kafka = Kafka { servers: cluster.bootstrap_servers(), real: false };
    let settings = KafkaSettings::new(&kafka.servers, "t");
    let topic = KafkaTopic { servers: kafka.servers.clone(), real: false, name: "t".into(), settings };
    topic.append(0, &numbered(100)).unwrap();
    let source = topic.connect().unwrap();
    let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
    assert_eq!(offsets(&read(&mut *fetcher, &[range(&topic.at(0), 0, 50)]).unwrap()).len(), 50);
    cluster.broker_down(1).unwrap();
    let rest = std::thread::scope(|threads| {
        let fetch = threads.spawn(|| offsets(&read(&mut *fetcher, &[range(&topic.at(0), 50, 150)]).unwrap()));
        cluster.broker_up(1).unwrap();
        topic.append(0, &numbered(50)).unwrap();
        fetch.join().unwrap()
    });
    assert_eq!(rest, (50..150).collect::<Vec<_>>());
}

#[test]
fn a_commit_that_nobody_answers_is_given_up_once_it_is_cancelled() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let settings =
        KafkaSettings { group_id: Some("g".into()), ..KafkaSettings::new(&cluster.bootstrap_servers(), "t") };
    let source = KafkaSource::connect(settings, Arc::new(SystemClock::new())).unwrap();
    let (cancel, position) =
        (Cancel::default(), |offset| vec![(TopicPartition::new("t", 0), Offset(offset))]);
    source.acknowledge(&position(1), &cancel).unwrap();
    cluster.broker_down(1).unwrap();
    let (answer, answered) = std::sync::mpsc::channel();
    let cancelled = cancel.clone();
    std::thread::spawn(move || answer.send(source.acknowledge(&position(2), &cancelled).is_err()));
    assert!(answered.try_recv().is_err(), "nobody is there to answer");
    cancel.cancel();
    assert_eq!(answered.recv_timeout(Duration::from_secs(8)), Ok(true)); // less than it waits otherwise
}

#[test]
fn a_refused_commit_is_returned_and_may_be_tried_again() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let settings =
        KafkaSettings { group_id: Some("g".into()), ..KafkaSettings::new(&cluster.bootstrap_servers(), "t") };
    let source = KafkaSource::connect(settings, Arc::new(SystemClock::new())).unwrap();
    let refusal = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    cluster.request_errors(rdkafka::types::RDKafkaApiKey::OffsetCommit, &[refusal]);
    let error =
        source.acknowledge(&vec![(TopicPartition::new("t", 0), Offset(1))], &Cancel::default()).unwrap_err();
    assert!(error.is_retriable() && error.to_string().contains("group \"g\""), "{error}");
    source.acknowledge(&vec![(TopicPartition::new("t", 0), Offset(1))], &Cancel::default()).unwrap();
}

/// What the engine has logged, of all tests in this process.
struct Logged(Mutex<Vec<(Level, String)>>);

impl log::Log for Logged {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("tidemill::ingest")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

static LOGGED: Logged = Logged(Mutex::new(Vec::new())); // the log crate knows one logger a process

/// What was logged at `level` with `part` in it.
fn logged(level: Level, part: &str) -> Vec<String> {
    let all = LOGGED.0.lock().unwrap();
    let mut found: Vec<String> =
        all.iter().filter(|(at, _)| *at == level).map(|(_, text)| text.clone()).collect();
    found.retain(|text| text.contains(part));
    found
}

fn collect_log() {
    if log::set_logger(&LOGGED).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Calls `again` until it says that what is waited for is there.
fn until(mut again: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !again() {
        assert!(clock.elapsed() < Duration::from_secs(30), "it does not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_broker_that_is_gone_is_told_once_and_so_is_its_return() {
    collect_log();
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let settings = KafkaSettings { name: "gone and back".into(), ..KafkaSettings::new(&servers, "t") };
    let topic =
        KafkaTopic { servers: servers.clone(), real: false, name: "t".into(), settings: settings.clone() };
    let clock = Arc::new(ManualClock::new(BatchTime(0)));
    topic.append(0, &numbered(10)).unwrap();
    let source = KafkaSource::connect(settings, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
    read(&mut *fetcher, &[range(&topic.at(0), 0, 10)]).unwrap();
    cluster.broker_down(1).unwrap();
    std::thread::scope(|threads| {
        let fetch = threads
            .spawn(|| read(&mut *fetcher, &[range(&topic.at(0), 10, 20)]).map(|chunks| offsets(&chunks)));
        until(|| !logged(Level::Info, &servers).is_empty());
        assert_eq!(logged(Level::Warn, "gone and back"), [""; 0], "a broker may be gone for a moment");
        until(|| {
            clock.advance(Duration::from_secs(2));
            !logged(Level::Warn, "gone and back").is_empty()
        });
        (0..100).for_each(|_| clock.advance(Duration::from_secs(2)));
        cluster.broker_up(1).unwrap();
        topic.append(0, &numbered(10)).unwrap();
        assert_eq!(fetch.join().unwrap().unwrap(), (10..20).collect::<Vec<_>>());
    });
    let (warnings, back) = (logged(Level::Warn, "gone and back"), logged(Level::Info, "come again"));
    assert_eq!((warnings.len(), back.len()), (1, 1), "{warnings:?} {back:?}");
    for part in ["t[0]", &servers, "failed", "check that the broker runs"] {
        assert!(warnings[0].contains(part), "{part} is not in {}", warnings[0]);
    }
}

#[test]
fn all_settings_that_are_not_the_users_are_told_at_once() {
    let mut settings = KafkaSettings::new("127.0.0.1:1", "t");
    let wrong = [("group.id", "g"), ("enable.auto.commit", "true"), ("check.crcs", "false")];
    settings.cluster.config.extend(wrong.map(|(name, value)| (name.into(), value.into())));
    let error = KafkaSource::connect(settings, Arc::new(SystemClock::new())).unwrap_err();
    assert!(error.is_config(), "{error:?}");
    for part in ["3 mistakes", "group.id is not", "enable.auto.commit is not", "check.crcs is not"] {
        assert!(error.to_string().contains(part), "{part} is not in {error}");
    }
}

#[test]
fn a_cluster_that_answers_again_is_told_of_once_with_how_long_it_was_away() {
    collect_log();
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let settings = KafkaSettings { name: "away".into(), ..KafkaSettings::new(&servers, "t") };
    let clock = Arc::new(ManualClock::new(BatchTime(0)));
    let source = KafkaSource::connect(settings, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    source.heads().unwrap();
    // An error that librdkafka does not try to heal: of one that it does it would be silent for ten seconds.
    let refusal = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let (api, hour) = (rdkafka::types::RDKafkaApiKey::ListOffsets, Duration::from_hours(1));
    cluster.request_errors(api, &[refusal; 100]);
    for _ in 0..2 {
        clock.advance(hour);
        source.heads().unwrap_err();
    }
    cluster.clear_request_errors(api);
    for _ in 0..2 {
        clock.advance(hour);
        source.heads().unwrap();
    }
    let told = format!("away: Kafka at {servers} is back after 7200 s, and reading goes on");
    assert_eq!(logged(Level::Info, "away: "), [told]);
}

#[test]
fn a_transaction_that_is_left_open_is_told_with_both_offsets_and_so_is_its_end() {
    collect_log();
    let Some(kafka) = kafka() else { return };
    let mut topic = kafka.create(1, &[]);
    topic.settings.name = "held".into();
    topic.append(0, &[record(b"before")]).unwrap();
    let producer = topic.kafka().producer(&[("transactional.id", &fresh_name())]);
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer.begin_transaction().unwrap();
    topic.produce(&producer, 0, &[record(b"open"), record(b"open too")]);
    let clock = Arc::new(ManualClock::new(BatchTime(0)));
    let settings = topic.settings.clone();
    let source = KafkaSource::connect(settings, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let stable_after = |seconds| {
        clock.advance(Duration::from_secs(seconds));
        source.heads().unwrap()[0].stable.0
    };
    assert_eq!((stable_after(0), stable_after(19)), (1, 1));
    assert_eq!(logged(Level::Warn, "held: "), [""; 0], "transactions that are meant last as long");
    assert_eq!((stable_after(2), stable_after(100)), (1, 1));
    let warnings = logged(Level::Warn, "held: ");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in
        [&topic.name, "partition 0", "from offset 1 on", "for 21 s", "goes on to 3", "transaction.timeout.ms"]
    {
        assert!(warnings[0].contains(part), "{part} is not in {}", warnings[0]);
    }
    producer.commit_transaction(Duration::from_secs(30)).unwrap();
    until(|| stable_after(1) == 4);
    let told = logged(Level::Info, "held: ");
    assert!(told.iter().any(|text| text.contains("the transaction has ended after")), "{told:?}");
}

/// A clock that stands still, so that no wait ends by itself, and counts how often it is looked at.
#[derive(Debug, Default)]
struct Still(AtomicU32);

impl Clock for Still {
    fn now(&self) -> BatchTime {
        BatchTime(0)
    }

    fn elapsed(&self) -> Duration {
        self.0.fetch_add(1, Ordering::SeqCst);
        Duration::ZERO
    }

    fn sleep_until(&self, _: BatchTime) -> Option<Duration> {
        None
    }

    fn subscribe(&self, _: Waker) {}
}

#[test]
fn a_fetch_that_waits_ends_when_it_is_cancelled() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let settings = KafkaSettings::new(&cluster.bootstrap_servers(), "t");
    let clock = Arc::new(Still::default());
    let source = KafkaSource::connect(settings, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let mut fetcher = source.fetcher(RawColumns::default(), BUDGET).unwrap();
    let (heard, at) = (Arc::new(AtomicU32::new(0)), TopicPartition::new("t", 0));
    let ear = Arc::clone(&heard);
    source.subscribe(Arc::new(move || _ = ear.fetch_add(1, Ordering::SeqCst)));
    read(&mut *fetcher, &[range(&at, 0, 0)]).unwrap();
    until(|| heard.load(Ordering::SeqCst) > 0); // else the news of the end would wake the fetch
    let (cancel, never) = (Cancel::default(), [range(&at, 0, 10)]);
    let before = clock.0.load(Ordering::SeqCst);
    std::thread::scope(|threads| {
        let fetch = threads.spawn(|| fetcher.fetch(&never, &cancel, &mut |_| Ok(())));
        until(|| clock.0.load(Ordering::SeqCst) > before); // it looks before each wait
        cancel.cancel();
        fetch.join().unwrap().unwrap();
    });
}

#[test]
fn a_setting_that_would_hold_more_than_the_memory_granted_is_cut_and_told() {
    collect_log();
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let mut settings =
        KafkaSettings { name: "greedy".into(), ..KafkaSettings::new(&cluster.bootstrap_servers(), "t") };
    settings.cluster.config.insert("queued.max.messages.kbytes".into(), "1048576".into());
    let source = KafkaSource::connect(settings, Arc::new(SystemClock::new())).unwrap();
    let _two = [0; 2].map(|_| source.fetcher(RawColumns::default(), 5 << 20).unwrap());
    let told = logged(Level::Warn, "greedy");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("queued.max.messages.kbytes=1048576 counts as 1024"), "{told:?}");
}
