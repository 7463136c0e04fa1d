//! The Kafka sink where it publishes by transactions, against a real broker: librdkafka's mock neither fences nor
//! isolates.
//!
//! What only a broker that fails shows is in `tests/kafka/test_transactions.py`.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tidemill::cancel::Cancel;
use tidemill::error::{Error, Result};
use tidemill::offset::{Offset, TopicPartition};
use tidemill::sink::contract::{self, Breakable, Broken, Fixture, Row, delivery, schema};
use tidemill::sink::encode::{HeaderSpec, KeySpec, OutputFormat};
use tidemill::sink::kafka::{KafkaSink, KafkaSinkSettings};
use tidemill::sink::marker::{Epoch, Marker, Owner};
use tidemill::sink::outputs::{Outputs, PreparedBatch};
use tidemill::sink::transactional::{GroupOffsets, Published};
use tidemill::sink::{Delivery, Sink};

use super::support::{Got, Kafka};

struct Topic {
    kafka: Kafka,
    name: String,
}

impl Fixture for Topic {
    fn sink(&mut self) -> Box<dyn Sink> {
        Box::new(KafkaSink::new(KafkaSinkSettings::new(self.kafka.cluster(&[]), self.name.clone())))
    }

    fn arrived(&mut self) -> Vec<Row> {
        self.kafka.read_committed(&self.name).iter().map(row).collect()
    }

    fn refused(&self) -> Option<SchemaRef> {
        let union =
            arrow::datatypes::UnionFields::try_new([0], [Field::new("i", DataType::Int8, true)]).unwrap();
        let union = DataType::Union(union, arrow::datatypes::UnionMode::Dense);
        Some(Arc::new(Schema::new(vec![Field::new("odd", union, true)])))
    }

    fn set_broken(&mut self, _: Broken) -> Breakable {
        Breakable::No
    }
}

fn row(got: &Got) -> Row {
    let value: serde_json::Value = serde_json::from_str(got.value.as_deref().unwrap()).unwrap();
    (value["row"].as_i64().unwrap(), value["text"].as_str().map(str::to_owned))
}

fn rows(records: &[Got]) -> Vec<i64> {
    records.iter().map(|got| row(got).0).collect()
}

#[test]
fn the_kafka_sink_keeps_the_contract_of_what_publishes() {
    if let Some(kafka) = Kafka::real() {
        let name = kafka.topic(1);
        contract::transactional::check(&mut Topic { kafka, name });
    }
}

/// A driver with Kafka outputs.
struct Driver {
    sinks: Vec<KafkaSink>,
    outputs: Outputs,
    owner: Owner,
    cancel: Cancel,
}

fn all(sinks: &mut [KafkaSink]) -> Vec<&mut dyn Sink> {
    sinks.iter_mut().map(|sink| sink as &mut dyn Sink).collect()
}

impl Driver {
    fn new(job: &str, epoch: u64, settings: &[KafkaSinkSettings]) -> Self {
        let mut sinks: Vec<_> = settings.iter().cloned().map(KafkaSink::new).collect();
        let outputs = Outputs::of(&mut all(&mut sinks)).unwrap();
        let schemas = vec![schema(); sinks.len()];
        outputs.open(&mut all(&mut sinks), &schemas, &Cancel::default()).unwrap();
        let owner = Owner { job: job.to_owned(), epoch: Epoch(epoch) };
        Self { sinks, outputs, owner, cancel: Cancel::default() }
    }

    fn init(&mut self) -> Result<Option<Marker>> {
        self.outputs.init(&mut all(&mut self.sinks), &self.owner, &self.cancel)
    }

    fn prepare(&mut self, deliveries: &[Delivery]) -> PreparedBatch {
        self.outputs.prepare(&mut all(&mut self.sinks), deliveries, self.owner.epoch).unwrap()
    }

    fn publish(&mut self, batch: &PreparedBatch, offsets: &[GroupOffsets]) -> Result<Published> {
        self.outputs.publish(&mut all(&mut self.sinks), batch, offsets, &self.cancel)
    }

    fn deliver(&mut self, batch: u64, rows: Range<i64>) -> Result<Marker> {
        let prepared = self.prepare(&[delivery(batch, rows)]);
        self.publish(&prepared, &[]).map(|_| *prepared.marker())
    }
}

/// A job that no other test has.
fn job(topic: &str) -> String {
    format!("job-of-{topic}")
}

#[test]
fn output_marker_and_source_offsets_are_one_transaction_over_all_topics() {
    let Some(kafka) = Kafka::real() else { return };
    let [first, second, source] = [3, 1, 2].map(|partitions| kafka.topic(partitions));
    let settings = [&first, &second].map(|topic| KafkaSinkSettings::new(kafka.cluster(&[]), topic.clone()));
    let (job, group) = (job(&first), format!("group-of-{source}"));
    let mut driver = Driver::new(&job, 4, &settings);
    assert_eq!(driver.init().unwrap(), None);
    let batch = driver.prepare(&[delivery(7, 0..1_000), delivery(7, 1_000..1_010)]);
    let positions =
        vec![(TopicPartition::new(&source, 0), Offset(11)), (TopicPartition::new(&source, 1), Offset(22))];
    let offsets = [GroupOffsets { group: group.clone(), positions }];
    assert!(driver.publish(&batch, &offsets).unwrap().warnings.is_empty());

    let mut found = rows(&kafka.read_committed(&first));
    found.sort_unstable();
    assert_eq!(found, (0..1_000).collect::<Vec<_>>());
    let found = kafka.read_committed(&second);
    assert_eq!(rows(&found), (1_000..1_010).collect::<Vec<_>>());
    assert!(found.iter().all(|got| got.time == Some(1_700_000_007_000)), "a record has another time");
    let marker = kafka.committed(&format!("tidemill-{job}"), &first, 0).unwrap();
    assert_eq!(marker, (7, format!("tm1:7:4:{}", batch.marker().digest)));
    let reached = [0, 1].map(|partition| kafka.committed(&group, &source, partition).unwrap().0);
    assert_eq!(reached, [11, 22]);
}

#[test]
fn a_batch_that_is_given_up_is_aborted_and_leaves_neither_rows_nor_offsets() {
    let Some(kafka) = Kafka::real() else { return };
    let topic = kafka.topic(1);
    let settings = [KafkaSinkSettings::new(kafka.cluster(&[]), topic.clone())];
    let (job, group) = (job(&topic), format!("group-of-{topic}"));
    let mut driver = Driver::new(&job, 1, &settings);
    driver.init().unwrap();
    let last = driver.deliver(0, 0..5).unwrap();
    let batch = driver.prepare(&[delivery(1, 5..5_000)]);
    let offsets =
        [GroupOffsets { group: group.clone(), positions: vec![(TopicPartition::new(&topic, 0), Offset(1))] }];
    driver.cancel.cancel();
    let error = driver.publish(&batch, &offsets).unwrap_err();
    assert!(error.is_cancelled() && error.to_string().contains("not committed"), "{error}");
    driver.cancel = Cancel::default();
    driver.owner.epoch = Epoch(2);
    assert_eq!(driver.init().unwrap(), Some(last));
    assert_eq!(rows(&kafka.read_committed(&topic)), [0, 1, 2, 3, 4]);
    assert_eq!(kafka.committed(&group, &topic, 0), None);
}

#[test]
fn the_driver_that_was_replaced_is_fenced_and_says_so() {
    let Some(kafka) = Kafka::real() else { return };
    let topic = kafka.topic(1);
    let settings = [KafkaSinkSettings::new(kafka.cluster(&[]), topic.clone())];
    let mut old = Driver::new(&job(&topic), 1, &settings);
    old.init().unwrap();
    let last = old.deliver(0, 0..5).unwrap();
    let mut new = Driver::new(&job(&topic), 2, &settings);
    assert_eq!(new.init().unwrap(), Some(last));
    let error = old.deliver(1, 5..10).unwrap_err();
    assert!(error.is_fenced() && error.needs_take_over(), "{error:?}");
    assert!(error.to_string().contains(&format!("tidemill-{}-0-0", job(&topic))), "{error}");
    new.deliver(1, 10..12).unwrap();
    assert_eq!(rows(&kafka.read_committed(&topic)), [0, 1, 2, 3, 4, 10, 11]);
}

/// Records of a transaction that is open are in the topic, and nobody who reads what is committed sees them.
#[test]
fn what_a_driver_has_left_open_is_aborted_by_the_next_ones_init() {
    let Some(kafka) = Kafka::real() else { return };
    let topic = kafka.topic(1);
    let settings = [KafkaSinkSettings::new(kafka.cluster(&[]), topic.clone())];
    let job = job(&topic);
    let stranger = left_open(&kafka, &format!("tidemill-{job}-0-0"), &topic);
    assert!(kafka.read_stable(&topic).is_empty());
    let mut driver = Driver::new(&job, 1, &settings);
    assert_eq!(driver.init().unwrap(), None);
    driver.deliver(0, 0..3).unwrap();
    assert_eq!(rows(&kafka.read_committed(&topic)), [0, 1, 2]);
    drop(stranger);
}

fn left_open(kafka: &Kafka, id: &str, topic: &str) -> rdkafka::producer::BaseProducer {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.servers).set("transactional.id", id);
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<(), str>::to(topic).payload("open").partition(0)).unwrap();
    producer.flush(LIMIT).unwrap();
    producer
}

#[test]
fn the_marker_is_found_when_the_first_output_is_another_topic() {
    let Some(kafka) = Kafka::real() else { return };
    let [before, after] = [1, 1].map(|partitions| kafka.topic(partitions));
    let settings = |topic: &String| KafkaSinkSettings::new(kafka.cluster(&[]), topic.clone());
    let mut driver = Driver::new(&job(&before), 1, &[settings(&before)]);
    driver.init().unwrap();
    driver.deliver(0, 0..3).unwrap();
    let last = driver.deliver(1, 3..5).unwrap();
    let mut driver = Driver::new(&job(&before), 2, &[settings(&after)]);
    assert_eq!(driver.init().unwrap(), Some(last));
    let last = driver.deliver(2, 5..7).unwrap();
    let mut driver = Driver::new(&job(&before), 3, &[settings(&before)]);
    assert_eq!(driver.init().unwrap(), Some(last));
}

#[test]
fn a_group_with_live_members_takes_the_offsets_of_a_transaction_all_the_same() {
    let Some(kafka) = Kafka::real() else { return };
    let [topic, source] = [1, 1].map(|partitions| kafka.topic(partitions));
    let group = format!("group-of-{source}");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.servers).set("group.id", &group).set("group.protocol", "consumer");
    config.set("enable.auto.commit", "false");
    let member: BaseConsumer = config.create().unwrap();
    member.subscribe(&[&source]).unwrap();
    while member.assignment().unwrap().count() == 0 {
        drop(member.poll(std::time::Duration::from_millis(20)));
    }
    let settings = [KafkaSinkSettings::new(kafka.cluster(&[]), topic.clone())];
    let mut driver = Driver::new(&job(&topic), 1, &settings);
    driver.init().unwrap();
    let positions = vec![(TopicPartition::new(&source, 0), Offset(7))];
    let batch = driver.prepare(&[delivery(0, 0..3)]);
    let published = driver.publish(&batch, &[GroupOffsets { group: group.clone(), positions }]).unwrap();
    assert!(published.warnings.is_empty(), "{published:?}");
    assert_eq!(kafka.committed(&group, &source, 0).unwrap().0, 7);
}

/// On librdkafka's mock, which refuses as it is told; without rows, since it gives no new epoch after an abort.
#[test]
fn a_group_that_takes_no_offsets_is_a_warning_and_the_batch_is_published_without_it() {
    let kafka = Kafka::mock();
    let topic = kafka.topic(1);
    let settings = [KafkaSinkSettings::new(kafka.cluster(&[]), topic.clone())];
    let mut driver = Driver::new("job", 1, &settings);
    driver.init().unwrap();
    let refusals = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, // the marker's
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
    ];
    kafka.mock.as_ref().unwrap().request_errors(RDKafkaApiKey::TxnOffsetCommit, &refusals);
    let positions = vec![(TopicPartition::new(&topic, 0), Offset(0))];
    let offsets = [GroupOffsets { group: "readers".to_owned(), positions }];
    let mut publish = |batch| {
        let prepared = driver.prepare(&[delivery(batch, 0..0)]);
        driver.publish(&prepared, &offsets).unwrap().warnings
    };
    let (first, second) = (publish(0), publish(1));
    assert!(first[0].to_string().contains("group \"readers\""), "{first:?}");
    assert!(second.is_empty(), "the group is asked again: {second:?}");
}

fn text_of(bytes: usize) -> RecordBatch {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(bytes)]));
    RecordBatch::try_from_iter([("text", text)]).unwrap()
}

#[test]
fn what_no_take_over_heals_says_so() {
    let Some(kafka) = Kafka::real() else { return };
    let topic = kafka.topic(1);
    let cluster = kafka.cluster(&[("message.max.bytes", "2000")]);
    let value = OutputFormat::Raw { column: None };
    let settings = KafkaSinkSettings { value, ..KafkaSinkSettings::new(cluster, topic.clone()) };
    let mut sink = KafkaSink::new(settings);
    let (large, cancel) = (text_of(3_000), Cancel::default());
    let outputs = Outputs::of(&mut [&mut sink]).unwrap();
    outputs.open(&mut [&mut sink], &[large.schema()], &cancel).unwrap();
    let owner = Owner { job: job(&topic), epoch: Epoch(1) };
    outputs.init(&mut [&mut sink], &owner, &cancel).unwrap();
    let rows = Delivery { schema: large.schema(), rows: vec![large], ..delivery(0, 0..0) };
    let batch = outputs.prepare(&mut [&mut sink], &[rows], owner.epoch).unwrap();
    let error = outputs.publish(&mut [&mut sink], &batch, &[], &cancel).unwrap_err();
    assert!(error.to_string().contains("3000 bytes") && !error.needs_take_over(), "{error}");
}

#[test]
fn a_time_out_that_the_cluster_does_not_take_is_a_setting_to_change() {
    let Some(kafka) = Kafka::real() else { return };
    let topic = kafka.topic(1);
    let cluster = kafka.cluster(&[("transaction.timeout.ms", "3600000")]);
    let mut driver = Driver::new(&job(&topic), 1, &[KafkaSinkSettings::new(cluster, topic.clone())]);
    let error = driver.init().unwrap_err();
    assert!(error.is_config() && !error.needs_take_over(), "{error:?}");
    for part in ["3600000 ms", "transaction.max.timeout.ms", "transaction.timeout.ms"] {
        assert!(error.to_string().contains(part), "{part} is not in {error}");
    }
}

#[test]
fn an_init_at_a_broker_that_is_away_is_given_up_when_that_is_asked_for() {
    let Some(kafka) = Kafka::real() else { return };
    let topic = kafka.topic(1);
    let mut driver = Driver::new(&job(&topic), 1, &[KafkaSinkSettings::new(kafka.cluster(&[]), topic)]);
    driver.cancel.cancel();
    // It may have come through; what it says is then true.
    let given_up = driver.init().err().filter(|error| !error.is_cancelled());
    assert!(given_up.is_none(), "{given_up:?}");
}

/// The digest is of what goes out: keys, headers and topic count, and chunks do not.
#[test]
fn digests_tell_outputs_apart_by_topic_key_and_headers() {
    let Some(kafka) = Kafka::real() else { return };
    let [one, two] = [3, 3].map(|partitions| kafka.topic(partitions));
    let plain = |topic: &String| KafkaSinkSettings::new(kafka.cluster(&[]), topic.clone());
    let key = KeySpec::Columns(vec!["row".to_owned()]);
    let headers = HeaderSpec { constant: vec![("from".to_owned(), b"x".to_vec())], column: None };
    let settings = [
        plain(&one),
        plain(&two),
        KafkaSinkSettings { key, ..plain(&one) },
        KafkaSinkSettings { headers, ..plain(&one) },
    ];
    let digest = |settings: &KafkaSinkSettings| {
        let mut driver = Driver::new("digests", 1, std::slice::from_ref(settings));
        driver.prepare(&[delivery(0, 0..3_000)]).marker().digest
    };
    let mut digests: Vec<_> = settings.iter().map(digest).collect();
    assert_eq!(digest(&settings[0]), digests[0]);
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), settings.len());
}

#[test]
fn a_sink_that_joins_has_no_producer_of_its_own() {
    let Some(kafka) = Kafka::real() else { return };
    let [one, two] = [1, 1].map(|partitions| kafka.topic(partitions));
    let settings = [&one, &two].map(|topic| KafkaSinkSettings::new(kafka.cluster(&[]), topic.clone()));
    let mut driver = Driver::new(&job(&one), 1, &settings);
    driver.init().unwrap();
    let batch = driver.prepare(&[delivery(0, 0..0), delivery(0, 0..3)]);
    driver.publish(&batch, &[]).unwrap();
    assert_eq!(rows(&kafka.read_committed(&two)), [0, 1, 2]);
    let closed: Result<Vec<()>, Error> = driver.sinks.iter_mut().map(Sink::close).collect();
    closed.unwrap();
    let marker = Driver::new(&job(&one), 2, &settings).init().unwrap();
    assert_eq!(marker, Some(*batch.marker()));
}
