//! How fast records come from Kafka, as raw chunks and decoded, against librdkafka reading the same records and
//! throwing them away.
//!
//! It deliberately judges nothing: each figure is a line of JSON, measured side by side in one run.
//! `TIDEMILL_BENCH_KAFKA=host:port` names the broker, without which there is no figure; `TIDEMILL_BENCH_TOPIC` and
//! `TIDEMILL_BENCH_RECORDS` the topic and how many records of it are read; a topic that does not exist is made and
//! filled with readings.
#![expect(unsafe_code, reason = "the other side of the comparison is librdkafka's own call")]
#![expect(clippy::unwrap_used, reason = "a benchmark ends where anything is wrong")]

mod figure;
mod topic;

use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use rdkafka::ClientConfig;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use serde_json::json;
use tidemill::cancel::Cancel;
use tidemill::decode::{DecodeSpec, Decoder, EventTimeSpec, Format, OnBad};
use tidemill::error::Result;
use tidemill::ingest::kafka::{KafkaSettings, KafkaSource};
use tidemill::ingest::{Bound, Fetcher, Source, deal};
use tidemill::offset::{Offset, OffsetRange, TopicPartition};
use tidemill::raw::{RawChunk, RawColumns};
use tidemill::time::{BatchTime, SystemClock};

use crate::figure::{Figure, Rounds};
use crate::topic::PARTITIONS;

const ROUNDS: usize = 5;
const BUDGET: usize = 256 << 20;
/// The argument with which only librdkafka reads, once: the other side of a figure that is measured elsewhere.
const THEIRS_ONLY: &str = "theirs";
/// A batch time later than all readings.
const FUTURE_MS: i64 = 1_900_000_000_000;

/// How far the engine takes what it fetched; on the thread that fetched it.
#[derive(Clone, Copy)]
enum Upto {
    Chunks,
    Columns,
}

/// Our sides: name, fetchers, how far, what is to be reached.
const SIDES: [(&str, usize, Upto, &str); 3] = [
    ("Kafka to raw chunks, one fetcher", 1, Upto::Chunks, ""),
    ("Kafka to raw chunks, two fetchers", 2, Upto::Chunks, ""),
    ("Kafka to decoded Arrow, two fetchers", 2, Upto::Columns, "≥ 1.2"),
];

fn main() {
    let Ok(servers) = std::env::var("TIDEMILL_BENCH_KAFKA") else {
        return;
    };
    let topic =
        std::env::var("TIDEMILL_BENCH_TOPIC").unwrap_or_else(|_| "tidemill-bench-readings".to_owned());
    let records =
        std::env::var("TIDEMILL_BENCH_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000_000);
    fill(&servers, &topic, records);
    let bench = Bench::new(&servers, &topic, records).unwrap();
    if std::env::args().any(|argument| argument == THEIRS_ONLY) {
        return bench.print_theirs();
    }
    let (mut ours, mut theirs) = (SIDES.map(|_| Rounds::default()), Rounds::default());
    for _ in 0..ROUNDS {
        bench.spent(&mut theirs, || bench.throw_away());
        for ((_, fetchers, upto, _), rounds) in SIDES.iter().zip(&mut ours) {
            bench.spent(rounds, || bench.fetch(*fetchers, *upto));
        }
    }
    for ((name, _, _, reach), ours) in SIDES.into_iter().zip(&ours) {
        Figure {
            name,
            unit: "records/s",
            value: &|seconds| bench.records() as f64 / seconds,
            ours,
            theirs: Some((&theirs, "rd_kafka_consume_batch_queue, one handle")),
            reach,
            details: json!({"records": bench.records()}),
        }
        .print();
    }
}

/// A topic, and the ranges of it that every side reads.
struct Bench {
    servers: String,
    ranges: Vec<OffsetRange>,
    clock: SystemClock,
    source: KafkaSource,
}

impl Bench {
    fn new(servers: &str, topic: &str, records: i64) -> Result<Self> {
        let source = KafkaSource::connect(KafkaSettings::new(servers, topic), Arc::new(SystemClock::new()))?;
        let (first, last) = (source.resolve(&Bound::Earliest)?, source.resolve(&Bound::Latest)?);
        let each = records / i64::try_from(first.len()).unwrap();
        let range = |((at, from), (_, end)): ((TopicPartition, Offset), (TopicPartition, Offset))| {
            OffsetRange::new(at, from, Offset(end.0.min(from.0 + each)))
        };
        let ranges = first.into_iter().zip(last).map(range).collect();
        Ok(Self { servers: servers.to_owned(), ranges, clock: SystemClock::new(), source })
    }

    fn records(&self) -> u64 {
        self.ranges.iter().map(OffsetRange::len).sum()
    }

    fn print_theirs(&self) {
        let mut theirs = Rounds::default();
        self.spent(&mut theirs, || self.throw_away());
        Figure {
            name: "rd_kafka_consume_batch_queue, one handle",
            unit: "records/s",
            value: &|seconds| self.records() as f64 / seconds,
            ours: &theirs,
            theirs: None,
            reach: "",
            details: json!({}),
        }
        .print();
    }

    /// Runs `read`, which answers with how many records it read and with what is to be closed afterwards.
    fn spent<T>(&self, rounds: &mut Rounds, read: impl FnOnce() -> (u64, T)) {
        let (records, _open) = rounds.measure(&self.clock, read);
        assert_eq!(records, self.records());
    }

    fn fetch(&self, fetchers: usize, upto: Upto) -> (u64, Vec<Box<dyn Fetcher>>) {
        std::thread::scope(|threads| {
            let lanes = deal(&self.ranges, &[], fetchers);
            let reading: Vec<_> = lanes
                .into_iter()
                .map(|ranges| threads.spawn(move || self.fetch_lane(&ranges, upto)))
                .collect();
            let (records, open): (Vec<u64>, Vec<_>) =
                reading.into_iter().map(|lane| lane.join().unwrap()).unzip();
            (records.iter().sum(), open)
        })
    }

    fn fetch_lane(&self, ranges: &[OffsetRange], upto: Upto) -> (u64, Box<dyn Fetcher>) {
        let mut fetcher = self.source.fetcher(RawColumns::default(), BUDGET).unwrap();
        let (mut records, mut decoder) = (0, decoder());
        let mut sink = |chunk: RawChunk| {
            records += match upto {
                Upto::Chunks => chunk.len(),
                Upto::Columns => decoder.decode(&chunk, BatchTime(FUTURE_MS))?.batch.num_rows(),
            } as u64;
            Ok(())
        };
        fetcher.fetch(ranges, &Cancel::default(), &mut sink).unwrap();
        (records, fetcher)
    }

    /// One handle with the same settings, all partitions in one queue, 10,000 messages a call, nothing kept.
    fn throw_away(&self) -> (u64, BaseConsumer) {
        let consumer = self.plain_consumer();
        let mut messages = vec![ptr::null_mut(); 10_000];
        let mut records = 0;
        // SAFETY: queue and buffer outlive the calls, each message is destroyed once, and the queue before its client.
        unsafe {
            let queue = rd::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
            while records < self.records() {
                let taken =
                    rd::rd_kafka_consume_batch_queue(queue, 10, messages.as_mut_ptr(), messages.len());
                for message in messages.iter().take(usize::try_from(taken).unwrap()) {
                    records +=
                        u64::from((**message).err == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
                    rd::rd_kafka_message_destroy(*message);
                }
            }
            rd::rd_kafka_queue_destroy(queue);
        }
        (records.min(self.records()), consumer)
    }

    fn plain_consumer(&self) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("group.id", "tidemill-bench")
            .set("enable.auto.commit", "false")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.min.messages", "100000")
            .set("check.crcs", "true")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        for range in &self.ranges {
            let from = rdkafka::Offset::Offset(range.from.0);
            assignment.add_partition_offset(range.at.topic.as_str(), range.at.partition.0, from).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        consumer
    }
}

/// Makes the topic with `records` readings of about 120 bytes where it does not exist.
fn fill(servers: &str, topic: &str, records: i64) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("queue.buffering.max.messages", "500000")
        .set("linger.ms", "5");
    let producer: BaseProducer = config.create().unwrap();
    let there = producer.client().fetch_metadata(None, Duration::from_secs(10)).unwrap();
    if there.topics().iter().any(|known| known.name() == topic) {
        return;
    }
    topic::create(servers, topic);
    for number in 0..records {
        let payload = reading(number);
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(payload.as_bytes());
        record.partition = Some(i32::try_from(number % i64::from(PARTITIONS)).unwrap());
        while let Err((_, back)) = producer.send(record) {
            producer.poll(Duration::from_millis(5));
            record = back;
        }
    }
    producer.flush(Duration::from_mins(1)).unwrap();
}

/// Three of the readings' eight columns, as the job reads them.
fn decoder() -> Decoder {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let fields = vec![
        text("device"),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("temp", DataType::Float64, true),
        Field::new("hum", DataType::Float64, true),
        text("status"),
        Field::new("seq", DataType::Int64, true),
        text("fw"),
        text("site"),
    ];
    Decoder::new(DecodeSpec {
        format: Format::Json(Arc::new(Schema::new(fields))),
        metadata: Vec::new(),
        on_bad: OnBad::Fail,
        event_time: Some(EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_hours(1) }),
        columns: Some(["device", "ts", "temp"].map(str::to_owned).to_vec()),
    })
    .unwrap()
}

fn reading(number: i64) -> String {
    let (device, at) = (number % 1_000, 1_700_000_000_000 + number / 10);
    let (tenths, humidity) = (150 + (number * 7_919) % 150, 30 + number % 50);
    format!(
        "{{\"device\":\"device-{device:04}\",\"ts\":{at},\"temp\":{}.{},\"hum\":{humidity},\"status\":\"ok\",\
         \"seq\":{number},\"fw\":\"1.4.2\",\"site\":\"plant-{}\"}}",
        tenths / 10,
        tenths % 10,
        number % 7
    )
}
