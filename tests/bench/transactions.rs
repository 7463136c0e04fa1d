//! Results into Kafka exactly once: a small transaction beside the same one in C, and throughput beside at-least-once.
//!
//! It deliberately prints figures and judges none: one JSON line each, the median of the rounds. The broker is the one that
//! `TIDEMILL_BENCH_KAFKA=host:port` names, else librdkafka's mock in this process, which does no I/O: its figures are of the
//! client alone. `TIDEMILL_BENCH_RECORDS` says how many rows a round of the throughput has, up to 500,000, and bounds the
//! number of small transactions, of which there are at most 1,000.
#![expect(unsafe_code, reason = "the side compared with is librdkafka's C functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark ends at a mistake")]

mod figure;
mod topic;

use std::ffi::CString;
use std::ptr;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use rdkafka::bindings as native;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tidemill::cancel::Cancel;
use tidemill::kafka::Cluster;
use tidemill::sink::encode::{KeySpec, OutputFormat, json_rows};
use tidemill::sink::kafka::{KafkaSink, KafkaSinkSettings};
use tidemill::sink::marker::{Epoch, Owner};
use tidemill::sink::outputs::Outputs;
use tidemill::sink::{Delivery, Sink};
use tidemill::time::{BatchId, BatchTime, SystemClock};

use crate::figure::{Figure, Rounds};
use crate::topic::PARTITIONS;

const ROUNDS: u64 = 5;
const SMALL: usize = 50;
const TRANSACTIONS: u64 = 1_000;
/// Transactions that are not counted: they connect, and find the coordinators.
const WARM_UP: u64 = 20;
const MOST_ROWS: usize = 500_000;
const WAIT_MS: i32 = 30_000;

/// Where the records go.
struct Target {
    servers: String,
    topic: String,
    rows: usize,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Target {
    fn new() -> Self {
        let topic = format!("tidemill-bench-transactions-{}", std::process::id());
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

    fn transactions(&self) -> u64 {
        ((self.rows / SMALL) as u64).clamp(WARM_UP, TRANSACTIONS)
    }

    fn remove(self) {
        if self.mock.is_none() {
            let (topics, admin) = ([self.topic.as_str()], topic::admin(&self.servers));
            topic::wait(admin.delete_topics(&topics, &topic::options())).unwrap();
        }
    }

    fn details(&self, rows: usize) -> Value {
        json!({"rows": rows, "broker": if self.mock.is_some() { "mock" } else { "real" }})
    }

    fn sink(&self) -> KafkaSink {
        let key = KeySpec::Columns(vec!["key".to_owned()]);
        let settings = KafkaSinkSettings::new(Cluster::at(&*self.servers), self.topic.clone());
        KafkaSink::new(KafkaSinkSettings { key, value: OutputFormat::Json, ..settings })
    }
}

/// A typical result, about a hundred bytes as JSON.
fn results(count: usize) -> RecordBatch {
    let keys: StringArray = (0..count).map(|row| Some(format!("d{:07}", row % 1_000))).collect();
    let scores: Float64Array = (0..count).map(|row| Some(row as f64 / 7.0)).collect();
    let counts: Int64Array = (0..count).map(|row| i64::try_from(row).ok()).collect();
    let notes: StringArray = (0..count).map(|row| Some(format!("{row:0>40}"))).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("key", Arc::new(keys)),
        ("score", Arc::new(scores)),
        ("n", Arc::new(counts)),
        ("note", Arc::new(notes)),
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

/// Our sink as a driver uses it: each batch is prepared and published, with its marker.
struct Ours {
    sink: KafkaSink,
    outputs: Outputs,
    batch: u64,
}

impl Ours {
    fn new(target: &Target, rows: &RecordBatch) -> Self {
        let (mut sink, cancel) = (target.sink(), Cancel::default());
        let outputs = Outputs::of(&mut [&mut sink]).unwrap();
        outputs.open(&mut [&mut sink], &[rows.schema()], &cancel).unwrap();
        let owner = Owner { job: format!("bench-{}", rows.num_rows()), epoch: Epoch(1) };
        outputs.init(&mut [&mut sink], &owner, &cancel).unwrap();
        Self { sink, outputs, batch: 0 }
    }

    fn deliver(&mut self, rows: &RecordBatch) {
        let deliveries = [delivery(self.batch, rows)];
        let batch = self.outputs.prepare(&mut [&mut self.sink], &deliveries, Epoch(1)).unwrap();
        self.outputs.publish(&mut [&mut self.sink], &batch, &[], &Cancel::default()).unwrap();
        self.batch += 1;
    }
}

/// Whether the C program's transactions have an offset, as ours have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marker {
    Offset,
    Nothing,
}

/// The same transaction as a C program's at its best: one call for all messages, and polling by itself until they are
/// acknowledged, before the commit.
struct Direct {
    client: BaseProducer,
    topic: *mut native::rd_kafka_topic_t,
    group: *mut native::rd_kafka_consumer_group_metadata_t,
    topic_name: String,
    marker: Marker,
    batch: i64,
}

impl Direct {
    fn new(target: &Target, marker: Marker) -> Self {
        let id = if marker == Marker::Offset { "with-offset" } else { "without-offset" };
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &target.servers).set("transactional.id", format!("bench-{id}"));
        config.set("retry.backoff.ms", "1").set("retry.backoff.max.ms", "20");
        config.set("partitioner", "murmur2_random").set("linger.ms", "1");
        let client: BaseProducer = config.create().unwrap();
        let handle = client.client().native_ptr();
        let (topic, group) =
            (CString::new(target.topic.clone()).unwrap(), CString::new(format!("group-{id}")).unwrap());
        // SAFETY: the client is alive, and the names are C strings.
        let (topic, group) = unsafe {
            check(native::rd_kafka_init_transactions(handle, WAIT_MS));
            (
                native::rd_kafka_topic_new(handle, topic.as_ptr(), ptr::null_mut()),
                native::rd_kafka_consumer_group_metadata_new(group.as_ptr()),
            )
        };
        Self { client, topic, group, topic_name: target.topic.clone(), marker, batch: 0 }
    }

    fn deliver(&mut self, keys: &StringArray, values: &[&[u8]]) {
        let client = self.client.client().native_ptr();
        let mut messages: Vec<_> =
            keys.iter().zip(values).map(|(key, value)| message(key.unwrap_or_default(), value)).collect();
        let count = i32::try_from(messages.len()).unwrap();
        // SAFETY: the messages point into the columns, which outlive the call, and are copied by it.
        unsafe {
            check(native::rd_kafka_begin_transaction(client));
            let flags = native::RD_KAFKA_MSG_F_COPY;
            let taken = native::rd_kafka_produce_batch(self.topic, -1, flags, messages.as_mut_ptr(), count);
            assert_eq!(taken, count, "the queue holds all");
        }
        if self.marker == Marker::Offset {
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset(&self.topic_name, 0, Offset::Offset(self.batch)).unwrap();
            // SAFETY: client, list and group are alive.
            unsafe {
                check(native::rd_kafka_send_offsets_to_transaction(
                    client,
                    offsets.ptr(),
                    self.group,
                    WAIT_MS,
                ));
            }
        }
        while self.client.in_flight_count() > 0 {
            self.poll();
        }
        // SAFETY: the client is alive.
        unsafe { check(native::rd_kafka_commit_transaction(client, WAIT_MS)) }
        self.batch += 1;
    }

    fn poll(&self) {
        // SAFETY: the queue and its events are freed as librdkafka says.
        unsafe {
            let queue = native::rd_kafka_queue_get_main(self.client.client().native_ptr());
            let event = native::rd_kafka_queue_poll(queue, 1);
            if !event.is_null() {
                native::rd_kafka_event_destroy(event);
            }
            native::rd_kafka_queue_destroy(queue);
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        // SAFETY: made by the functions that pair with these, and freed once.
        unsafe {
            native::rd_kafka_topic_destroy(self.topic);
            native::rd_kafka_consumer_group_metadata_destroy(self.group);
        }
    }
}

/// # Safety
/// `error` is null or an error that is alive.
unsafe fn check(error: *mut native::rd_kafka_error_t) {
    // SAFETY: what the caller promises.
    assert!(error.is_null(), "{:?}", unsafe { native::rd_kafka_error_code(error) });
}

fn message(key: &str, value: &[u8]) -> native::rd_kafka_message_t {
    native::rd_kafka_message_t {
        err: native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: ptr::null_mut(),
        partition: 0,
        payload: value.as_ptr().cast_mut().cast(),
        len: value.len(),
        key: key.as_ptr().cast_mut().cast(),
        key_len: key.len(),
        offset: 0,
        _private: ptr::null_mut(),
    }
}

/// How long a small batch takes from its rows to the end of its transaction. The C side has its JSON already.
fn small(target: &Target, clock: &SystemClock) {
    let rows = results(SMALL);
    let json = json_rows(&rows).unwrap();
    let values: Vec<&[u8]> = json.split(|byte| *byte == b'\n').take(SMALL).collect();
    let keys = rows.column(0).as_any().downcast_ref::<StringArray>().unwrap();
    let mut ours = Ours::new(target, &rows);
    let mut sides = [
        (Direct::new(target, Marker::Nothing), Rounds::default(), "C API, without offsets"),
        (Direct::new(target, Marker::Offset), Rounds::default(), "C API, with an offset"),
    ];
    let mut rounds = Rounds::default();
    for batch in 0..target.transactions() + WARM_UP {
        let is_counted = batch >= WARM_UP;
        let mut uncounted = Rounds::default();
        let counted = if is_counted { &mut rounds } else { &mut uncounted };
        counted.measure(clock, || ours.deliver(&rows));
        for (direct, rounds, _) in &mut sides {
            let counted = if is_counted { rounds } else { &mut uncounted };
            counted.measure(clock, || direct.deliver(keys, &values));
        }
    }
    for (_, theirs, against) in &sides {
        Figure {
            name: &format!("a transaction of {SMALL} results"),
            unit: "ms",
            value: &|seconds| seconds * 1e3,
            ours: &rounds,
            theirs: Some((theirs, against)),
            reach: "≤ 1.5",
            details: target.details(SMALL),
        }
        .print();
    }
}

/// Rows a second of large batches, prepared and published, beside the same rows delivered at least once.
fn throughput(target: &Target, clock: &SystemClock) {
    let rows = results(target.rows);
    let mut at_least_once = target.sink();
    at_least_once.open(&rows.schema(), &Cancel::default()).unwrap();
    let mut exactly_once = Ours::new(target, &rows);
    let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
    for round in 0..=ROUNDS {
        let mut first = (Rounds::default(), Rounds::default());
        // The first round connects.
        let (ours, theirs) = if round > 0 { (&mut ours, &mut theirs) } else { (&mut first.0, &mut first.1) };
        theirs.measure(clock, || at_least_once.deliver(&delivery(round, &rows)).unwrap());
        ours.measure(clock, || exactly_once.deliver(&rows));
    }
    Figure {
        name: "produce JSON exactly once, encoding and digest included",
        unit: "rows/s",
        value: &|seconds| target.rows as f64 / seconds,
        ours: &ours,
        theirs: Some((&theirs, "at least once")),
        reach: "≥ 0.8",
        details: target.details(target.rows),
    }
    .print();
}

fn main() {
    let (target, clock) = (Target::new(), SystemClock::new());
    small(&target, &clock);
    throughput(&target, &clock);
    target.remove();
}
