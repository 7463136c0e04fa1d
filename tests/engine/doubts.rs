//! What a source's declaration says that its records do not: told once, and only where it is so.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tidemill::decode::{DecodeSpec, Decoder, Doubts, EventTimeSpec, Format, OnBad, with_date_unit};
use tidemill::offset::TopicPartition;
use tidemill::raw::{Bytes, RawChunk};
use tidemill::time::BatchTime;

/// 2024-11-22 00:00:00 UTC.
const NOW_S: i64 = 1_732_233_600;

/// A source that is fed by hand, a chunk a batch.
struct Fed {
    doubts: Doubts,
    decoder: Decoder,
    batch: i64,
}

impl Fed {
    fn new(spec: DecodeSpec) -> Self {
        let doubts = Doubts::of(&spec).unwrap();
        let decoder = Decoder::new(spec).unwrap().doubting(&doubts);
        Self { doubts, decoder, batch: 0 }
    }

    /// What is said after a batch of these records, half a second after the one before.
    fn batch<S: AsRef<str>>(&mut self, records: &[S]) -> Vec<String> {
        let payloads = records.iter().map(|record| Some(record.as_ref().as_bytes()));
        let chunk = RawChunk {
            at: TopicPartition::new("readings", 0),
            offsets: (0..).take(records.len()).collect(),
            payloads: Bytes::copied(payloads),
            keys: None,
            timestamps: None,
            headers: None,
        };
        let time = BatchTime(NOW_S * 1_000 + 500 * self.batch);
        self.batch += 1;
        self.decoder.decode(&chunk, time).unwrap();
        self.doubts.judge(time).iter().map(ToString::to_string).collect()
    }
}

fn spec(fields: Vec<(&str, DataType)>) -> DecodeSpec {
    let fields: Vec<Field> =
        fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    let format = Format::Json(Arc::new(Schema::new(fields)));
    DecodeSpec { format, metadata: Vec::new(), on_bad: OnBad::Drop, event_time: None, columns: None }
}

fn columns(names: &[&str]) -> Fed {
    Fed::new(spec(names.iter().map(|name| (*name, DataType::Float64)).collect()))
}

#[test]
fn a_misspelt_column_is_told_at_once_and_once_with_what_was_meant() {
    let mut fed = columns(&["device", "temprature"]);
    let record = r#"{"device": 1, "ts": 3, "temperature": 21.5}"#;
    let said = fed.batch(&[record, record]);
    assert_eq!(
        said,
        [
            "no record so far (2 looked at) has the column \"temprature\": it is null in every row; a record has \"device\", \
          \"ts\", \"temperature\"; did you mean \"temperature\"?"
        ]
    );
    assert!(fed.batch(&[record]).is_empty());
}

#[test]
fn a_column_without_a_likeness_is_told_after_three_batches_or_a_thousand_records() {
    let mut slow = columns(&["a", "pressure"]);
    assert!(slow.batch(&[r#"{"a": 1}"#]).is_empty());
    assert!(slow.batch(&[r#"{"a": 1}"#]).is_empty());
    let said = slow.batch(&[r#"{"a": 1}"#]);
    assert!(said[0].contains("no record so far (3 looked at) has the column \"pressure\""), "{said:?}");
    assert!(said[0].ends_with("check those of the schema"), "{said:?}");
    let mut fast = columns(&["a", "pressure"]);
    assert!(fast.batch(&vec![r#"{"a": 1}"#; 999]).is_empty());
    assert_eq!(fast.batch(&[r#"{"a": 1}"#]).len(), 1);
}

#[test]
fn a_path_into_an_object_is_told_for_what_it_is() {
    let mut dotted = columns(&["id", "engine.rpm"]);
    let said = dotted.batch(&[r#"{"id": 1, "engine": {"rpm": 900}}"#]);
    assert!(said[0].contains("\"rpm\" lies inside of \"engine\""), "{said:?}");
    let mut bare = columns(&["id", "rpm"]);
    assert!(bare.batch(&[r#"{"id": 1, "engine": {"rpm": 900}}"#])[0].contains("inside of \"engine\""));
}

#[test]
fn a_column_that_one_record_has_or_that_is_null_is_no_mistake() {
    let mut rare = columns(&["a", "pressure"]);
    let mut records = vec![r#"{"a": 1}"#; 999];
    records.push(r#"{"a": 1, "pressure": 3}"#);
    assert!(rare.batch(&records).is_empty());
    let mut null = columns(&["a", "pressure"]);
    for _ in 0..5 {
        assert!(null.batch(&[r#"{"a": 1, "pressure": null}"#]).is_empty());
    }
}

#[test]
fn a_column_that_falls_silent_later_is_no_mistake() {
    let mut fed = columns(&["a", "pressure"]);
    assert!(fed.batch(&[r#"{"a": 1, "pressure": 3}"#]).is_empty());
    assert!(fed.batch(&vec![r#"{"a": 1, "presure": 3}"#; 2_000]).is_empty());
}

fn timed(unit: TimeUnit, date_unit: Option<&str>) -> Fed {
    let mut spec = spec(vec![("ts", DataType::Timestamp(unit, None))]);
    if let (Format::Json(schema), Some(unit)) = (&spec.format, date_unit) {
        spec.format = Format::Json(Arc::new(with_date_unit(schema, unit).unwrap()));
    }
    spec.event_time = Some(EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_hours(1) });
    Fed::new(spec)
}

fn times(values: impl IntoIterator<Item = impl std::fmt::Display>) -> Vec<String> {
    values.into_iter().map(|value| format!("{{\"ts\": {value}}}")).collect()
}

#[test]
fn a_unit_that_is_not_the_declared_one_is_told_with_the_one_that_fits() {
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let units = [(Second, "s", 1), (Millisecond, "ms", 1_000), (Microsecond, "us", 1_000_000)];
    let units = units.into_iter().chain([(Nanosecond, "ns", 1_000_000_000)]);
    for (declared, own, _) in units.clone() {
        for (_, name, a_second) in units.clone() {
            let said = timed(declared, None).batch(&times([NOW_S * a_second]));
            if name == own {
                assert!(said.is_empty(), "{said:?}");
            } else {
                let fits = format!("declare \"ts\" as \"timestamp[{name}]\"");
                assert!(said.len() == 1 && said[0].ends_with(&fits), "{own} for {name}: {said:?}");
            }
        }
    }
}

#[test]
fn the_doubt_names_the_column_a_value_and_what_it_was_read_as() {
    let said = timed(TimeUnit::Millisecond, None).batch(&times([NOW_S]));
    assert_eq!(
        said,
        [
            "(nearly) all event times of late (1 looked at) lie in the first years after 1970; \"ts\" is, say, \
          1732233600, read as milliseconds, 1970-01-21 01:10:33.600 UTC (timestamp[ms]); it looks like seconds: declare \
          \"ts\" as \"timestamp[s]\""
        ]
    );
    let said = timed(TimeUnit::Second, None).batch(&times([NOW_S * 1_000]));
    assert!(said[0].contains("are more than max_future (3600s) ahead of the batch"), "{said:?}");
}

#[test]
fn seconds_with_a_fraction_are_told_to_be_read_by_date_unit_and_then_are() {
    let said = timed(TimeUnit::Microsecond, None).batch(&times(["1732233600.25"]));
    assert!(
        said[0].ends_with("declare \"ts\" as \"timestamp[us]\" and pass date_unit=\"s\" to tm.Json"),
        "{said:?}"
    );
    assert!(timed(TimeUnit::Microsecond, Some("s")).batch(&times(["1732233600.25"])).is_empty());
}

#[test]
fn times_far_ahead_that_no_unit_explains_are_told_after_three_batches() {
    let mut fed = timed(TimeUnit::Second, None);
    let tomorrow_week = times([NOW_S + 7 * 86_400]);
    assert!(fed.batch(&tomorrow_week).is_empty());
    assert!(fed.batch(&tomorrow_week).is_empty());
    let said = fed.batch(&tomorrow_week);
    assert!(said[0].ends_with("look at the clock of whoever writes them, or raise max_future"), "{said:?}");
    assert!(fed.batch(&tomorrow_week).is_empty());
}

#[test]
fn one_wrong_clock_among_others_old_data_and_text_are_no_wrong_unit() {
    let mut mixed = timed(TimeUnit::Second, None);
    for _ in 0..5 {
        assert!(mixed.batch(&times([NOW_S, NOW_S, NOW_S * 1_000])).is_empty());
    }
    let mut old = timed(TimeUnit::Second, None);
    assert!(old.batch(&times(0..2_000)).is_empty());
    let mut text = timed(TimeUnit::Millisecond, None);
    assert!(text.batch(&times(["\"1970-01-21T01:10:33Z\""])).is_empty());
}

#[test]
fn many_records_are_shown_by_a_few_of_their_keys() {
    let mut record = "{\"a\":1".to_owned();
    (0..40).for_each(|key| write!(record, ",\"k{key}\":0").unwrap());
    record.push('}');
    let said = columns(&["a", "altogether"]).batch(&vec![record; 1_000]);
    assert!(said[0].contains("\"k10\", …;") && !said[0].contains("k11"), "{said:?}");
}
