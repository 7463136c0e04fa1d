//! The Kafka sink, against librdkafka's mock cluster and, where one is named, a real broker.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    StructBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tidemill::cancel::Cancel;
use tidemill::kafka::Cluster;
use tidemill::sink::contract::{self, Breakable, Broken, Fixture, Row, delivery, schema};
use tidemill::sink::encode::{HeaderSpec, KeySpec, OutputFormat};
use tidemill::sink::kafka::{KafkaSink, KafkaSinkSettings, Partitioner, RecordTime};
use tidemill::sink::{Delivery, Sink};

use super::support::{Got, Kafka};

struct Topic {
    kafka: Kafka,
    name: String,
    time: RecordTime,
}

impl Topic {
    fn new(kafka: Kafka, time: RecordTime) -> Self {
        let name = kafka.topic(1);
        Self { kafka, name, time }
    }
}

impl Fixture for Topic {
    fn sink(&mut self) -> Box<dyn Sink> {
        let settings = KafkaSinkSettings::new(self.kafka.cluster(&[]), self.name.clone());
        Box::new(KafkaSink::new(KafkaSinkSettings { time: self.time, ..settings }))
    }

    fn arrived(&mut self) -> Vec<Row> {
        let records = self.kafka.read(&self.name).into_iter();
        let row =
            |row: serde_json::Value| (row["row"].as_i64().unwrap(), row["text"].as_str().map(str::to_owned));
        records.map(|got| row(json(&got))).collect()
    }

    fn refused(&self) -> Option<SchemaRef> {
        let union =
            arrow::datatypes::UnionFields::try_new([0], [Field::new("i", DataType::Int8, true)]).unwrap();
        let union = DataType::Union(union, arrow::datatypes::UnionMode::Dense);
        Some(Arc::new(Schema::new(vec![Field::new("odd", union, true)])))
    }

    fn set_broken(&mut self, broken: Broken) -> Breakable {
        let Some(mock) = &self.kafka.mock else { return Breakable::No };
        mock.clear_request_errors(RDKafkaApiKey::Produce);
        if broken == Broken::Yes {
            let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
            mock.request_errors(RDKafkaApiKey::Produce, &[refusal; 50]);
        }
        Breakable::Yes
    }
}

fn json(got: &Got) -> serde_json::Value {
    serde_json::from_str(got.value.as_deref().unwrap()).unwrap()
}

#[test]
fn the_kafka_sink_keeps_the_contract_on_the_mock() {
    for time in [RecordTime::Batch, RecordTime::Sending] {
        contract::check(&mut Topic::new(Kafka::mock(), time));
    }
}

#[test]
fn the_kafka_sink_keeps_the_contract_on_a_real_broker() {
    for time in [RecordTime::Batch, RecordTime::Sending] {
        if let Some(kafka) = Kafka::real() {
            contract::check(&mut Topic::new(kafka, time));
        }
    }
}

fn settings(kafka: &Kafka, partitions: i32) -> KafkaSinkSettings {
    KafkaSinkSettings::new(kafka.cluster(&[]), kafka.topic(partitions))
}

fn columns(names: &[&str]) -> KeySpec {
    KeySpec::Columns(names.iter().map(|name| (*name).to_owned()).collect())
}

fn opened(settings: &KafkaSinkSettings, schema: &SchemaRef) -> KafkaSink {
    let mut sink = KafkaSink::new(settings.clone());
    sink.open(schema, &Cancel::default()).unwrap();
    sink
}

fn rows_of(batch: RecordBatch) -> Delivery {
    Delivery { schema: batch.schema(), rows: vec![batch], ..delivery(3, 0..0) }
}

fn keyed_records_go_where_java_puts_them(kafka: &Kafka, time: RecordTime) {
    let settings = KafkaSinkSettings { key: columns(&["row"]), time, ..settings(kafka, 5) };
    let mut sink = opened(&settings, &schema());
    sink.deliver(&delivery(3, 0..300)).unwrap();
    let records = kafka.read(&settings.topic);
    assert_eq!((sink.partitions(), records.len()), (Some(5), 300));
    for got in &records {
        let key = got.key.clone().unwrap();
        assert_eq!(got.partition, Partitioner::Murmur2.partition(key.as_bytes(), 5));
        assert_eq!(json(got)["row"].to_string(), key);
    }
    if time == RecordTime::Batch {
        assert!(records.iter().all(|got| got.time == Some(1_700_000_003_000)));
    }
}

#[test]
fn keyed_records_carry_the_batchs_time_and_go_where_java_puts_them() {
    for kafka in [Some(Kafka::mock()), Kafka::real()].into_iter().flatten() {
        keyed_records_go_where_java_puts_them(&kafka, RecordTime::Batch);
        keyed_records_go_where_java_puts_them(&kafka, RecordTime::Sending);
    }
}

#[test]
fn records_without_key_go_to_the_same_partitions_again() {
    let kafka = Kafka::mock();
    let settings = settings(&kafka, 3);
    let mut sink = opened(&settings, &schema());
    sink.deliver(&delivery(3, 0..3_000)).unwrap();
    let once = kafka.read(&settings.topic);
    sink.deliver(&delivery(3, 0..3_000)).unwrap();
    let twice = kafka.read(&settings.topic);
    for partition in 0..3 {
        let of =
            |all: &[Got]| all.iter().filter(|got| got.partition == partition).cloned().collect::<Vec<_>>();
        assert!(!of(&once).is_empty(), "partition {partition} got nothing");
        assert_eq!(of(&twice), [of(&once), of(&once)].concat());
    }
}

fn with_headers() -> RecordBatch {
    let entry = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)];
    let entries =
        StructBuilder::new(entry, vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())]);
    let mut lists = ListBuilder::new(entries);
    for (name, value) in [("trace", Some(&b"1"[..])), ("empty", None)] {
        let entry = lists.values();
        entry.field_builder::<StringBuilder>(0).unwrap().append_value(name);
        entry.field_builder::<BinaryBuilder>(1).unwrap().append_option(value);
        entry.append(true);
    }
    lists.append(true);
    lists.append(false);
    let columns: [(&str, ArrayRef); 2] =
        [("row", Arc::new(Int64Array::from(vec![1, 2]))), ("kafka_headers", Arc::new(lists.finish()))];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn headers_come_from_the_settings_and_from_the_column() {
    let kafka = Kafka::mock();
    let constant = vec![("from".to_owned(), b"tidemill".to_vec())];
    let headers = HeaderSpec { constant, column: Some("kafka_headers".to_owned()) };
    let settings = KafkaSinkSettings { headers, ..settings(&kafka, 1) };
    let batch = rows_of(with_headers());
    opened(&settings, &batch.schema).deliver(&batch).unwrap();
    let [first, second] = kafka.read(&settings.topic).try_into().unwrap();
    let from = ("from".to_owned(), Some(b"tidemill".to_vec()));
    let trace = [("trace".to_owned(), Some(b"1".to_vec())), ("empty".to_owned(), None)];
    assert_eq!(first.headers, [vec![from.clone()], trace.to_vec()].concat());
    assert_eq!((first.value.as_deref(), second.headers), (Some(r#"{"row":1}"#), vec![from]));
}

#[test]
fn a_headers_column_of_another_type_is_refused() {
    let kafka = Kafka::mock();
    let headers = HeaderSpec { constant: vec![], column: Some("text".to_owned()) };
    let mut sink = KafkaSink::new(KafkaSinkSettings { headers, ..settings(&kafka, 1) });
    let error = sink.open(&schema(), &Cancel::default()).unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("list<struct<key: string, value: binary>>"),
        "{error}"
    );
}

#[test]
fn raw_writes_one_column_as_it_is_and_null_as_a_tombstone() {
    let kafka = Kafka::mock();
    let values: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&b"a"[..]), None, Some(b"")]));
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "z"]));
    let batch = rows_of(RecordBatch::try_from_iter([("payload", values), ("id", keys)]).unwrap());
    let value = OutputFormat::Raw { column: Some("payload".to_owned()) };
    let settings = KafkaSinkSettings { value, key: columns(&["id"]), ..settings(&kafka, 1) };
    opened(&settings, &batch.schema).deliver(&batch).unwrap();
    let got = kafka.read(&settings.topic);
    let got: Vec<_> = got.iter().map(|got| (got.key.as_deref(), got.value.as_deref())).collect();
    assert_eq!(got, [(Some("x"), Some("a")), (Some("y"), None), (Some("z"), Some(""))]);
}

#[test]
fn raw_is_refused_for_several_columns_and_for_numbers() {
    let kafka = Kafka::mock();
    let refused = |column: Option<&str>| {
        let value = OutputFormat::Raw { column: column.map(str::to_owned) };
        KafkaSink::new(KafkaSinkSettings { value, ..settings(&kafka, 1) })
            .open(&schema(), &Cancel::default())
            .unwrap_err()
            .to_string()
    };
    assert!(refused(None).contains("writes one column, found 2: \"row\", \"text\""), "{}", refused(None));
    assert!(refused(Some("row")).contains("found \"row\" of int64"), "{}", refused(Some("row")));
    assert!(refused(Some("txt")).contains("did you mean \"text\""), "{}", refused(Some("txt")));
}

#[test]
fn a_missing_topic_is_named_with_those_there_are_and_is_not_created() {
    for kafka in [Some(Kafka::mock()), Kafka::real()].into_iter().flatten() {
        let there = kafka.topic(1);
        let missing = format!("{there}x");
        for _ in 0..2 {
            let settings = KafkaSinkSettings::new(kafka.cluster(&[]), missing.clone());
            let error = KafkaSink::new(settings).open(&schema(), &Cancel::default()).unwrap_err().to_string();
            assert!(error.contains(&format!("topic {missing:?} does not exist")), "{error}");
            assert!(error.contains(&there) && error.contains("did you mean"), "{error}");
        }
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_when_the_sink_is_opened() {
    let mut settings = KafkaSinkSettings::new(Cluster::at("127.0.0.1:1"), "alerts");
    settings
        .cluster
        .config
        .extend([("acks", "1"), ("transactional.id", "t")].map(|(name, value)| (name.into(), value.into())));
    settings.key = columns(&["txt"]);
    let error = KafkaSink::new(settings).open(&schema(), &Cancel::default()).unwrap_err();
    assert!(error.is_config(), "{error:?}");
    for part in ["3 mistakes", "acks is not set", "transactional.id is not set", "did you mean \"text\""] {
        assert!(error.to_string().contains(part), "{part} is not in {error}");
    }
}

/// A sink whose opening ended with its time-out would say that no broker has answered.
#[test]
fn a_cancelled_opening_at_a_broker_that_is_away_ends_long_before_its_time_out() {
    let settings = KafkaSinkSettings::new(Cluster::at("127.0.0.1:1"), "alerts");
    let cancel = Cancel::default();
    let mut sink = KafkaSink::new(settings);
    let asked = cancel.clone();
    let opening = thread::spawn(move || (sink.open(&schema(), &asked), sink.close()));
    assert!(!opening.is_finished());
    cancel.cancel();
    let (opened, closed) = opening.join().unwrap();
    let error = opened.unwrap_err();
    assert!(error.is_cancelled() && error.to_string().contains("127.0.0.1:1"), "{error}");
    closed.unwrap();
}

#[test]
fn an_endless_delivery_time_out_is_refused() {
    let kafka = Kafka::mock();
    let cluster = kafka.cluster(&[("delivery.timeout.ms", "0")]);
    let error = KafkaSink::new(KafkaSinkSettings { cluster, ..settings(&kafka, 1) })
        .open(&schema(), &Cancel::default())
        .unwrap_err();
    assert!(error.is_config() && error.to_string().contains("must be finite"), "{error}");
}

#[test]
fn a_record_that_is_too_large_is_named_with_its_size_and_the_limit() {
    for time in [RecordTime::Batch, RecordTime::Sending] {
        let kafka = Kafka::mock();
        let cluster = kafka.cluster(&[("message.max.bytes", "2000")]);
        let settings = KafkaSinkSettings {
            cluster,
            time,
            value: OutputFormat::Raw { column: None },
            ..settings(&kafka, 1)
        };
        let text: ArrayRef =
            Arc::new(StringArray::from(vec!["short".to_owned(), "x".repeat(3_000), "after".to_owned()]));
        let batch = rows_of(RecordBatch::try_from_iter([("text", text)]).unwrap());
        let mut sink = opened(&settings, &batch.schema);
        let error = sink.deliver(&batch).unwrap_err().to_string();
        assert!(error.contains("3000 bytes") && error.contains("limit of 2000 bytes"), "{error}");
        assert!(error.contains(&format!("{}[0]", settings.topic)), "{error}");
    }
}

#[test]
fn a_refusal_names_topic_partition_reason_and_count() {
    let kafka = Kafka::mock();
    let settings = settings(&kafka, 1);
    let mut sink = opened(&settings, &schema());
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    kafka.mock.as_ref().unwrap().request_errors(RDKafkaApiKey::Produce, &[refusal; 50]);
    let error = sink.deliver(&delivery(1, 0..7)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("of 7 rows") && text.contains(&format!("{}[0]", settings.topic)), "{text}");
    assert!(text.contains("Topic authorization failed"), "{text}");
}

/// One request at a time: unlike a broker, the mock looks at no sequence number, so that of several on their way a
/// later one could be appended before one that was refused.
fn one_at_a_time(kafka: &Kafka) -> KafkaSinkSettings {
    let cluster = kafka.cluster(&[("max.in.flight.requests.per.connection", "1")]);
    KafkaSinkSettings { cluster, ..settings(kafka, 1) }
}

fn rows_there(kafka: &Kafka, settings: &KafkaSinkSettings) -> Vec<i64> {
    kafka.read(&settings.topic).iter().map(|got| json(got)["row"].as_i64().unwrap()).collect()
}

#[test]
fn a_leader_that_has_moved_loses_and_doubles_nothing() {
    let kafka = Kafka::mock();
    let settings = one_at_a_time(&kafka);
    let mut sink = opened(&settings, &schema());
    let moved = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    kafka.mock.as_ref().unwrap().request_errors(RDKafkaApiKey::Produce, &[moved, moved]);
    sink.deliver(&delivery(1, 0..5_000)).unwrap();
    sink.deliver(&delivery(2, 5_000..5_010)).unwrap();
    let rows = rows_there(&kafka, &settings);
    assert!(rows == (0..5_010).collect::<Vec<_>>(), "{} rows, lost, doubled or out of order", rows.len());
}

/// The mock appends a second time what is sent again because the broker went before it answered; a broker knows the
/// producer's sequence numbers and does not.
#[test]
fn a_broker_that_is_gone_and_back_loses_nothing_and_keeps_the_order() {
    let kafka = Kafka::mock();
    let settings = one_at_a_time(&kafka);
    let mut sink = opened(&settings, &schema());
    sink.deliver(&delivery(1, 0..10)).unwrap();
    let mock = kafka.mock.as_ref().unwrap();
    mock.broker_down(1).unwrap();
    let thread = thread::spawn(move || sink.deliver(&delivery(2, 10..5_000)).map(|()| sink));
    mock.broker_up(1).unwrap();
    let mut sink = thread.join().unwrap().unwrap();
    sink.deliver(&delivery(3, 5_000..5_010)).unwrap();
    let mut seen = HashSet::new();
    let mut rows = rows_there(&kafka, &settings);
    rows.retain(|row| seen.insert(*row));
    assert!(rows == (0..5_010).collect::<Vec<_>>(), "{} different rows, lost or out of order", rows.len());
}

#[test]
fn a_broker_that_stays_away_fails_the_batch_when_the_time_is_over() {
    let kafka = Kafka::mock();
    let cluster = kafka.cluster(&[("delivery.timeout.ms", "300")]);
    let settings = KafkaSinkSettings { cluster, ..settings(&kafka, 1) };
    let mut sink = opened(&settings, &schema());
    kafka.mock.as_ref().unwrap().broker_down(1).unwrap();
    let error = sink.deliver(&delivery(1, 0..5)).unwrap_err().to_string();
    assert!(error.contains("within delivery.timeout.ms: 5 of 5 rows failed"), "{error}");
    sink.close().unwrap();
}

#[test]
fn a_cancelled_delivery_to_a_broker_that_is_away_ends_long_before_its_time_out() {
    let full = [("queue.buffering.max.messages", "100")];
    for (time, config) in
        [(RecordTime::Batch, &full[..0]), (RecordTime::Batch, &full), (RecordTime::Sending, &full)]
    {
        let kafka = Kafka::mock();
        let settings = KafkaSinkSettings { cluster: kafka.cluster(config), time, ..settings(&kafka, 1) };
        let mut sink = opened(&settings, &schema());
        sink.deliver(&delivery(1, 0..3)).unwrap();
        kafka.mock.as_ref().unwrap().broker_down(1).unwrap();
        let batch = delivery(2, 3..5_003);
        let cancel = batch.cancel.clone();
        let delivering = thread::spawn(move || (sink.deliver(&batch), sink.close()));
        assert!(!delivering.is_finished());
        cancel.cancel();
        let (delivered, closed) = delivering.join().unwrap();
        let error = delivered.unwrap_err();
        assert!(error.is_cancelled(), "{error}");
        assert!(error.to_string().contains("Kafka had acknowledged 0 of 5000 rows"), "{error}");
        closed.unwrap();
    }
}

#[test]
fn a_batch_larger_than_the_queue_goes_through_it() {
    for time in [RecordTime::Batch, RecordTime::Sending] {
        let kafka = Kafka::mock();
        let cluster = kafka.cluster(&[("queue.buffering.max.messages", "100")]);
        let settings = KafkaSinkSettings { cluster, time, ..settings(&kafka, 1) };
        opened(&settings, &schema()).deliver(&delivery(1, 0..20_000)).unwrap();
        let rows: Vec<_> =
            kafka.read(&settings.topic).iter().map(|got| json(got)["row"].as_i64().unwrap()).collect();
        assert!(rows == (0..20_000).collect::<Vec<_>>(), "{} rows", rows.len());
    }
}
