//! How fast records come from Kafka into chunks, against librdkafka reading the same records and throwing them away.
//!
//! It deliberately decodes nothing and judges nothing: each figure is a line of JSON, measured side by side in one
//! run. `TIDEMILL_BENCH_KAFKA=host:port` names the broker; `TIDEMILL_BENCH_TOPIC` and `TIDEMILL_BENCH_RECORDS` the
//! topic and how many records of it are read; a topic that does not exist is made and filled with readings.
#![expect(unsafe_code, reason = "the other side of the comparison is librdkafka's own call")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark ends where anything is wrong, and prints its figures"
)]

use std::collections::BTreeMap;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::bindings as rd;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;

use tidemill::error::Result;
use tidemill::ingest::kafka::{KafkaSettings, KafkaSource};
use tidemill::ingest::{Bound, Cancel, Fetcher, Source, deal};
use tidemill::offset::{Offset, OffsetRange, TopicPartition};
use tidemill::raw::RawColumns;
use tidemill::time::{Clock, SystemClock};

const PARTITIONS: i32 = 4;
const ROUNDS: usize = 5;
const BUDGET: usize = 256 << 20;

fn main() {
    let Ok(servers) = std::env::var("TIDEMILL_BENCH_KAFKA") else {
        println!(
            "{{\"bench\": \"ingest\", \"skipped\": \"TIDEMILL_BENCH_KAFKA=host:port names no broker\"}}"
        );
        return;
    };
    let topic =
        std::env::var("TIDEMILL_BENCH_TOPIC").unwrap_or_else(|_| "tidemill-bench-readings".to_owned());
    let records =
        std::env::var("TIDEMILL_BENCH_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000_000);
    fill(&servers, &topic, records);
    let bench = Bench::new(&servers, &topic, records).unwrap();
    let mut sides: BTreeMap<&str, Vec<Spent>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        sides.entry("librdkafka").or_default().push(bench.spent(|| bench.throw_away()));
        sides.entry("one fetcher").or_default().push(bench.spent(|| bench.fetch(1)));
        sides.entry("two fetchers").or_default().push(bench.spent(|| bench.fetch(2)));
    }
    let base = median(&sides["librdkafka"]);
    for (side, spent) in &sides {
        report(side, &median(spent), &base, bench.records());
    }
}

/// What one reading of all records took.
#[derive(Clone, Copy)]
struct Spent {
    seconds: f64,
    cpu_seconds: f64,
}

fn median(spent: &[Spent]) -> Spent {
    let middle = |of: fn(&Spent) -> f64| {
        let mut values: Vec<f64> = spent.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Spent { seconds: middle(|spent| spent.seconds), cpu_seconds: middle(|spent| spent.cpu_seconds) }
}

fn report(side: &str, spent: &Spent, base: &Spent, records: u64) {
    let (rate, ratio) = (records as f64 / spent.seconds, base.seconds / spent.seconds);
    let micros = spent.cpu_seconds * 1e6 / records as f64;
    println!(
        "{{\"bench\": \"ingest\", \"side\": \"{side}\", \"records\": {records}, \"records_per_second\": {rate:.0}, \
         \"ratio\": {ratio:.3}, \"cpu_micros_per_record\": {micros:.3}}}"
    );
}

/// The CPU time that this process has used, as Linux counts it: in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / 100.0
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

    /// Runs `read`, which answers with how many records it read and with what is to be closed afterwards.
    fn spent<T>(&self, read: impl FnOnce() -> (u64, T)) -> Spent {
        let (start, cpu) = (self.clock.elapsed(), cpu_seconds());
        let (records, open) = read();
        assert_eq!(records, self.records());
        let spent = Spent {
            seconds: self.clock.elapsed().saturating_sub(start).as_secs_f64(),
            cpu_seconds: cpu_seconds() - cpu,
        };
        drop(open);
        spent
    }

    fn fetch(&self, fetchers: usize) -> (u64, Vec<Box<dyn Fetcher>>) {
        std::thread::scope(|threads| {
            let lanes = deal(&self.ranges, &[], fetchers);
            let reading: Vec<_> =
                lanes.into_iter().map(|ranges| threads.spawn(move || self.fetch_lane(&ranges))).collect();
            let (records, open): (Vec<u64>, Vec<_>) =
                reading.into_iter().map(|lane| lane.join().unwrap()).unzip();
            (records.iter().sum(), open)
        })
    }

    fn fetch_lane(&self, ranges: &[OffsetRange]) -> (u64, Box<dyn Fetcher>) {
        let mut fetcher = self.source.fetcher(RawColumns::default(), BUDGET).unwrap();
        let mut records = 0;
        let mut sink = |chunk: tidemill::raw::RawChunk| {
            records += chunk.len() as u64;
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
    create(&config, topic);
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

fn create(config: &ClientConfig, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let wanted = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    let options = AdminOptions::new();
    let mut creating = std::pin::pin!(admin.create_topics([&wanted], &options));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while creating.as_mut().poll(&mut context).is_pending() {
        std::thread::yield_now();
    }
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
