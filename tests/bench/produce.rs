//! Results into Kafka: our sink beside `rd_kafka_produce_batch` called as a C program would, in one run, in turns.
//!
//! It deliberately prints figures and judges none: one JSON line each, the median of the rounds. The broker is the
//! one that `TIDEMILL_BENCH_KAFKA=host:port` names, in a topic that is made for the run and removed after it, else
//! librdkafka's mock in this process; `TIDEMILL_BENCH_RECORDS` says how many rows a round has, up to 500,000, which
//! both sides hold in memory. `TIDEMILL_BENCH_TOPIC`, which the other benchmarks read, is left alone.
#![expect(unsafe_code, reason = "the side compared with is librdkafka's C function")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark ends at a mistake")]

mod figure;
mod topic;

use std::ffi::CString;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};
use serde_json::{Value, json};
use tidemill::cancel::Cancel;
use tidemill::kafka::Cluster;
use tidemill::sink::encode::{KeySpec, OutputFormat, json_rows};
use tidemill::sink::kafka::{KafkaSink, KafkaSinkSettings, RecordTime};
use tidemill::sink::{Delivery, Sink};
use tidemill::time::{BatchId, BatchTime, SystemClock};

use crate::figure::{Figure, Rounds};
use crate::topic::PARTITIONS;

const ROUNDS: usize = 5;
const ROWS_A_CALL: usize = 10_000;
const VALUE_BYTES: usize = 100;
const ENCODED_ROWS: usize = 200_000;
const SMALL_BATCH: usize = 50;
const SMALL_BATCHES: u64 = 200;
/// More at once do not fit librdkafka's queue, whatever the broker's speed.
const MOST_ROWS: usize = 500_000;

/// Where the records go. The mock keeps 5 MiB a partition and does no I/O, so its figures are of the client alone.
struct Target {
    servers: String,
    topic: String,
    rows: usize,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Target {
    fn new() -> Self {
        let topic = format!("tidemill-bench-produce-{}", std::process::id());
        let asked = std::env::var("TIDEMILL_BENCH_RECORDS").ok().and_then(|rows| rows.parse().ok());
        let rows = asked.unwrap_or(MOST_ROWS).min(MOST_ROWS);
        if let Ok(servers) = std::env::var("TIDEMILL_BENCH_KAFKA") {
            topic::create(&servers, &topic);
            return Self { servers, topic, rows, mock: None };
        }
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(&topic, PARTITIONS, 1).unwrap();
        Self { servers: mock.bootstrap_servers(), topic, rows, mock: Some(mock) }
    }

    /// Removes the topic; the mock goes as a whole.
    fn remove(self) {
        if self.mock.is_none() {
            let (topics, admin) = ([self.topic.as_str()], topic::admin(&self.servers));
            topic::wait(admin.delete_topics(&topics, &topic::options())).unwrap();
        }
    }

    fn details(&self) -> Value {
        json!({"rows": self.rows, "broker": if self.mock.is_some() { "mock" } else { "real" }})
    }

    fn sink(&self, value: OutputFormat, time: RecordTime, schema: &RecordBatch) -> KafkaSink {
        let linger = linger().map(|linger| ("linger.ms".to_owned(), linger));
        let cluster = Cluster { config: linger.into_iter().collect(), ..Cluster::at(&*self.servers) };
        let key = KeySpec::Columns(vec!["key".to_owned()]);
        let settings =
            KafkaSinkSettings { value, time, key, ..KafkaSinkSettings::new(cluster, self.topic.clone()) };
        let mut sink = KafkaSink::new(settings);
        sink.open(&schema.schema(), &Cancel::default()).unwrap();
        sink
    }
}

/// `linger.ms` of both sides; where it is not given each has its own default (librdkafka's is 5, the sink's 1).
fn linger() -> Option<String> {
    std::env::var("TIDEMILL_BENCH_LINGER").ok()
}

/// The rows of both sides: a key of eight bytes out of a thousand, and a value of a hundred.
fn rows(count: usize) -> RecordBatch {
    let keys: StringArray = (0..count).map(|row| Some(format!("d{:07}", row % 1_000))).collect();
    let values: StringArray = (0..count).map(|row| Some(format!("{row:0>VALUE_BYTES$}"))).collect();
    let columns: [(&str, ArrayRef); 2] = [("key", Arc::new(keys)), ("value", Arc::new(values))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A typical result, about a hundred bytes as JSON.
fn results(count: usize) -> RecordBatch {
    let number = |row: usize| i64::try_from(row).unwrap_or(0);
    let keys: StringArray = (0..count).map(|row| Some(format!("d{:07}", row % 1_000))).collect();
    let times = (0..count).map(|row| Some(1_700_000_000_000 + number(row)));
    let times = times.collect::<TimestampMillisecondArray>().with_timezone("UTC");
    let scores: Float64Array = (0..count).map(|row| (row % 7 != 0).then(|| row as f64 / 7.0)).collect();
    let counts: Int64Array = (0..count).map(|row| Some(number(row))).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("key", Arc::new(keys)),
        ("ts", Arc::new(times)),
        ("score", Arc::new(scores)),
        ("n", Arc::new(counts)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn delivery(batch: u64, rows: &RecordBatch) -> Delivery {
    let chunks = (0..rows.num_rows()).step_by(16_384);
    let chunks = chunks.map(|start| rows.slice(start, 16_384.min(rows.num_rows() - start)));
    Delivery {
        batch: BatchId(batch),
        time: BatchTime(1_700_000_000_000),
        watermark: None,
        ranges: Arc::from([]),
        schema: rows.schema(),
        rows: chunks.collect(),
        cancel: Cancel::default(),
    }
}

/// librdkafka as a C program uses it: messages point at the rows, one call for ten thousand, and then polling until
/// the out-queue is empty. Idempotent, with the same partitioner, as the sink is.
struct Direct {
    client: BaseProducer,
    topic: *mut native::rd_kafka_topic_t,
}

impl Direct {
    fn new(target: &Target) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &target.servers).set("enable.idempotence", "true");
        config.set("queue.buffering.max.messages", "1000000").set("partitioner", "murmur2_random");
        if let Some(linger) = linger() {
            config.set("linger.ms", linger);
        }
        let client: BaseProducer = config.create().unwrap();
        let name = CString::new(target.topic.clone()).unwrap();
        // SAFETY: the client is alive, and the name is a C string.
        let topic = unsafe {
            native::rd_kafka_topic_new(client.client().native_ptr(), name.as_ptr(), std::ptr::null_mut())
        };
        Self { client, topic }
    }

    fn produce(&self, keys: &StringArray, values: &StringArray) {
        let messages = keys.iter().zip(values.iter()).map(|(key, value)| message(key, value));
        let mut messages: Vec<_> = messages.collect();
        for call in messages.chunks_mut(ROWS_A_CALL) {
            let count = i32::try_from(call.len()).unwrap();
            let flags = native::RD_KAFKA_MSG_F_COPY;
            // SAFETY: the messages point into the columns, which outlive the call, and are copied by it.
            let taken =
                unsafe { native::rd_kafka_produce_batch(self.topic, -1, flags, call.as_mut_ptr(), count) };
            assert_eq!(taken, count, "the queue holds all");
            self.poll(0);
        }
        while self.client.in_flight_count() > 0 {
            self.poll(1);
        }
    }

    fn poll(&self, wait_ms: i32) {
        // SAFETY: the queue and its events are freed as librdkafka says.
        unsafe {
            let queue = native::rd_kafka_queue_get_main(self.client.client().native_ptr());
            let event = native::rd_kafka_queue_poll(queue, wait_ms);
            if !event.is_null() {
                native::rd_kafka_event_destroy(event);
            }
            native::rd_kafka_queue_destroy(queue);
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_topic_new`, freed once.
        unsafe { native::rd_kafka_topic_destroy(self.topic) }
    }
}

fn message(key: Option<&str>, value: Option<&str>) -> native::rd_kafka_message_t {
    let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
    native::rd_kafka_message_t {
        err: native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: std::ptr::null_mut(),
        partition: 0,
        payload: value.as_ptr().cast_mut().cast(),
        len: value.len(),
        key: key.as_ptr().cast_mut().cast(),
        key_len: key.len(),
        offset: 0,
        _private: std::ptr::null_mut(),
    }
}

const DIRECT: &str = "rd_kafka_produce_batch, raw";

fn throughput(target: &Target, clock: &SystemClock) {
    let (input, json) = (rows(target.rows), results(target.rows));
    let raw = || OutputFormat::Raw { column: Some("value".to_owned()) };
    let direct = Direct::new(target);
    let (keys, values) = (text(&input, 0), text(&input, 1));
    let mut sinks = [
        (DIRECT, "", None, &input),
        (
            "produce raw, time of sending",
            "≥ 0.8",
            Some(target.sink(raw(), RecordTime::Sending, &input)),
            &input,
        ),
        (
            "produce raw, time of the batch",
            "≥ 0.8",
            Some(target.sink(raw(), RecordTime::Batch, &input)),
            &input,
        ),
        (
            "produce JSON, encoding included",
            "",
            Some(target.sink(OutputFormat::Json, RecordTime::Batch, &json)),
            &json,
        ),
    ];
    let mut rounds: Vec<Rounds> = sinks.iter().map(|_| Rounds::default()).collect();
    for round in 0..=ROUNDS {
        for ((.., sink, rows), rounds) in sinks.iter_mut().zip(&mut rounds) {
            let batch = delivery(round as u64, rows);
            // The first round connects.
            let rounds = if round > 0 { rounds } else { &mut Rounds::default() };
            rounds.measure(clock, || match sink {
                None => direct.produce(&keys, &values),
                Some(sink) => sink.deliver(&batch).unwrap(),
            });
        }
    }
    for ((name, reach, ..), ours) in sinks.iter().zip(&rounds).skip(1) {
        let theirs = Some((&rounds[0], DIRECT));
        let value: &dyn Fn(f64) -> f64 = &|seconds| target.rows as f64 / seconds;
        Figure { name, unit: "rows/s", value, ours, theirs, reach, details: target.details() }.print();
    }
}

fn text(rows: &RecordBatch, column: usize) -> StringArray {
    rows.column(column).as_any().downcast_ref::<StringArray>().unwrap().clone()
}

/// How long a small batch takes from handing it over to its last acknowledgement.
fn small_batches(target: &Target, clock: &SystemClock) {
    let rows = results(SMALL_BATCH);
    let mut sink = target.sink(OutputFormat::Json, RecordTime::Batch, &rows);
    let (keys, direct) = (text(&rows, 0), Direct::new(target));
    let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
    for batch in 0..SMALL_BATCHES {
        let delivery = delivery(batch, &rows);
        ours.measure(clock, || sink.deliver(&delivery).unwrap());
        theirs.measure(clock, || direct.produce(&keys, &keys));
    }
    Figure {
        name: &format!("produce a small batch of {SMALL_BATCH} rows"),
        unit: "ms",
        value: &|seconds| seconds * 1e3,
        ours: &ours,
        theirs: Some((&theirs, DIRECT)),
        reach: "",
        details: target.details(),
    }
    .print();
}

/// JSON text of rows in memory, ours beside arrow-json's own writer with its own settings.
fn encoding(clock: &SystemClock) {
    let rows = results(ENCODED_ROWS);
    let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        ours.measure(clock, || drop(json_rows(&rows).unwrap()));
        theirs.measure(clock, || arrow_json_writer(&rows));
    }
    Figure {
        name: "JSON encoding, one core",
        unit: "rows/s",
        value: &|seconds| ENCODED_ROWS as f64 / seconds,
        ours: &ours,
        theirs: Some((&theirs, "arrow-json's writer")),
        reach: "",
        details: json!({"rows": ENCODED_ROWS}),
    }
    .print();
}

fn arrow_json_writer(rows: &RecordBatch) {
    let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
    writer.write(rows).unwrap();
    writer.finish().unwrap();
}

fn main() {
    let (target, clock) = (Target::new(), SystemClock::new());
    throughput(&target, &clock);
    small_batches(&target, &clock);
    encoding(&clock);
    target.remove();
}
