//! Decoding as a caller sees it: against the model, against hostile input, and every rule by its name.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "helpers of tests: a wrong one ends the test"
)]

#[path = "decode/check.rs"]
mod check;
#[path = "decode/documents.rs"]
mod documents;
#[path = "decode/lines.rs"]
mod lines;
#[path = "decode/model.rs"]
mod model;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType};
use tidemill::decode::{DecodeSpec, Decoded, Decoder, EventTimeSpec, Format, Metadata, OnBad, full_schema};
use tidemill::error::{Error, ErrorKind};
use tidemill::raw::{Bytes, Headers, RawChunk, RawColumns};
use tidemill::time::{BatchTime, EventTime};

use check::{Expectation, chunk, compare, compare_within, documents, every_field, projection};
use documents::{Dice, payload};
use model::{Row, row};

/// The same bytes for the same seed.
fn bytes_of(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// How many thousand hostile documents each format is given: 100, or what `TIDEMILL_DOCUMENTS` says, in documents.
fn thousands() -> u64 {
    let asked = std::env::var("TIDEMILL_DOCUMENTS");
    asked.map_or(100, |count| count.parse::<u64>().expect("TIDEMILL_DOCUMENTS is a number") / 1_000)
}

#[test]
fn any_documents_decode_as_the_model_says() {
    // Short draws first: the first failure is then a simple one.
    (0..1_500).for_each(|seed| documents(&bytes_of(seed, seed as usize)));
}

/// The body of the fuzz target, over inputs that a small mutator makes of those before: what a fuzzer does, for some
/// seconds and with a fixed seed, and without the compiler that it needs.
#[test]
fn mutated_documents_decode_as_the_model_says() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut corpus: Vec<Vec<u8>> = (0..64).map(|seed| bytes_of(seed, 24)).collect();
    for _ in 0..mutations() {
        let mut input = corpus[random.usize(..corpus.len())].clone();
        for _ in 0..random.usize(1..4) {
            mutate(&mut input, &corpus, &mut random);
        }
        input.truncate(96); // short inputs: many of them, and a failure is simple
        documents(&input);
        let place = random.usize(..corpus.len());
        corpus[place] = input;
    }
}

/// How many inputs the mutator makes; another number where `TIDEMILL_MUTATIONS` says so.
fn mutations() -> usize {
    let asked = std::env::var("TIDEMILL_MUTATIONS");
    asked.map_or(20_000, |count| count.parse().expect("TIDEMILL_MUTATIONS is a number"))
}

/// Changes, inserts, takes or doubles some bytes, or goes on as another input does.
fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(..=input.len());
    match random.u8(..5) {
        0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
        1 if at < input.len() => drop(input.remove(at)),
        2 => {
            let doubled = input[at..].iter().copied().take(8).collect::<Vec<_>>();
            input.splice(at..at, doubled);
        }
        3 => {
            let other = &corpus[random.usize(..corpus.len())];
            input.truncate(at);
            input.extend(other.iter().skip(at));
        }
        _ => input.insert(at, random.u8(..)),
    }
}

#[test]
fn any_bytes_decode_as_the_model_says() {
    for seed in 0..1_000 {
        let bytes = bytes_of(seed, 200);
        let payloads: Vec<_> =
            bytes.split(|byte| byte % 16 == 0).map(|payload| Some(payload.to_vec())).collect();
        compare(&payloads, &every_field());
    }
}

#[test]
fn a_hundred_thousand_hostile_documents_are_counted_and_kept_exactly() {
    let mut total = Expectation::default();
    let mut add = |part: Expectation| {
        total.good.extend(part.good.into_iter().map(|_| Vec::new()));
        total.bad += part.bad;
        total.tombstones += part.tombstones;
    };
    for seed in 0..thousands() {
        let bytes = bytes_of(seed, 300_000);
        let mut dice = Dice::new(&bytes);
        let payloads: Vec<_> = (0..1_000).map(|_| payload(&mut dice)).collect();
        assert!(!dice.is_empty(), "documents drawn from no bytes are all the same");
        add(compare(&payloads, &projection(seed as usize)));
    }
    let huge: Vec<_> = huge_documents().into_iter().map(Some).collect();
    let counted = compare(&huge, &every_field());
    assert_eq!((counted.good.len(), counted.bad), (3, 7));
    assert_eq!(total.good.len() as u64 + total.bad + total.tombstones, thousands() * 1_000);
    assert!(total.good.len() > 10_000 && total.bad > 10_000 && total.tombstones > 1_000, "{}", total.bad);
}

#[test]
fn a_hundred_thousand_hostile_flat_documents_are_counted_and_kept_exactly() {
    let [mut good, mut bad, mut tombstones] = [0; 3];
    for seed in 0..thousands() {
        let bytes = bytes_of(seed + 1_000_000, 300_000);
        let mut dice = Dice::new(&bytes);
        let payloads: Vec<_> = (0..1_000).map(|_| payload(&mut dice)).collect();
        let all = check::fields();
        let read: Vec<Field> =
            all.iter().skip(seed as usize % 3).step_by(1 + seed as usize % 4).cloned().collect();
        let part = compare_within(&payloads, &all, &read);
        good += part.good.len() as u64;
        bad += part.bad;
        tombstones += part.tombstones;
    }
    assert_eq!(good + bad + tombstones, thousands() * 1_000);
    assert!(good > 10_000 && bad > 10_000 && tombstones > 1_000, "{good} {bad} {tombstones}");
}

#[test]
fn a_hundred_thousand_hostile_payloads_are_kept_byte_for_byte_where_they_are_raw() {
    let raw = |on_bad| DecodeSpec { format: Format::Raw, on_bad, ..spec(Vec::new()) };
    let (mut kept, mut tombstones) = (0, 0);
    for seed in 0..thousands() {
        let bytes = bytes_of(seed, 300_000);
        let mut dice = Dice::new(&bytes);
        let payloads: Vec<_> = (0..1_000).map(|_| payload(&mut dice)).collect();
        for on_bad in [OnBad::Fail, OnBad::Drop, OnBad::DeadLetter] {
            let plain = Decoder::new(raw(on_bad)).unwrap();
            let mut decoder = plain.with_dead_letters(&["value".to_owned()]).unwrap();
            let found = decoder.decode(&chunk(&payloads), BatchTime(0)).unwrap();
            let values = found.batch.column(0).as_binary::<i32>();
            assert_eq!(values.null_count(), 0);
            assert!(values.iter().eq(payloads.iter().flatten().map(|payload| Some(payload.as_slice()))));
            assert_eq!((found.counts.records, found.counts.bad), (1_000, 0));
            assert_eq!(found.counts.tombstones + values.len() as u64, 1_000);
            assert!(found.dead.is_none());
            (kept, tombstones) = (kept + values.len() as u64, tombstones + found.counts.tombstones);
        }
    }
    assert_eq!(kept + tombstones, 3 * thousands() * 1_000);
    assert!(tombstones > 1_000, "{tombstones}");
}

/// Ten documents of 10 MB, of which three are good.
fn huge_documents() -> Vec<Vec<u8>> {
    const HUGE: usize = 10_000_000;
    let around = |before: &str, filling: &str, after: &str| {
        let filling = filling.repeat(HUGE / filling.len());
        format!("{before}{filling}{after}").into_bytes()
    };
    let mut half_a_character = around("{\"must\":1,\"text\":\"", "a", "\"}");
    half_a_character[HUGE / 2] = 0xe2;
    vec![
        around("{\"must\":1,\"text\":\"", "é", "\"}"),
        around("{\"must\":1,\"unknown\":[0", ",\"\\n\"", "]}"),
        around("{\"must\":1}", " \n", ""),
        around("{\"must\":1,\"unknown\":", "[", ""),
        around("{\"must\":1,\"unknown\":", "{\"a\":", ""),
        around("{\"must\":1,\"long\":", "9", "}"),
        around("{\"must\":1,\"double\":1e", "9", "}"),
        around("{\"must\":1,\"text\":\"", "a", ""),
        around("", " ", ""),
        half_a_character,
    ]
}

fn spec(fields: Vec<Field>) -> DecodeSpec {
    let format = Format::Json(Arc::new(Schema::new(fields)));
    DecodeSpec { format, metadata: Vec::new(), on_bad: OnBad::Fail, event_time: None, columns: None }
}

fn lines(payloads: &[&str]) -> RawChunk {
    chunk(&payloads.iter().map(|payload| Some(payload.as_bytes().to_vec())).collect::<Vec<_>>())
}

fn decode(spec: DecodeSpec, chunk: &RawChunk) -> Decoded {
    Decoder::new(spec).unwrap().decode(chunk, BatchTime(0)).unwrap()
}

fn refused(spec: DecodeSpec) -> Error {
    Decoder::new(spec).expect_err("the spec should be refused")
}

fn millis(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), true)
}

fn long(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

#[test]
fn a_bad_record_is_told_with_its_place_and_the_remedy() {
    let chunk = lines(&["{\"a\": 1}", "{\"a\": \"warm\"}"]);
    let error = Decoder::new(spec(vec![long("a")])).unwrap().decode(&chunk, BatchTime(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bad record: expected a whole number within int64 in column \"a\", found `\"warm\"}`; \
         on_bad=\"drop\" drops and counts such records, on_bad=\"dead_letter\" keeps them as rows \
         (byte 6 of 13, topic \"readings\", partition 3, offset 101)",
    );
}

#[test]
fn a_value_deep_in_a_record_is_named_by_its_path() {
    let told = |text: &str| {
        let mut decoder = Decoder::new(spec(every_field())).unwrap();
        decoder.decode(&lines(&[text]), BatchTime(0)).unwrap_err().to_string()
    };
    for (text, expected, place) in [
        (
            r#"{"must":1,"readings":[{"value":1},{},null,{"at":1,"value":"x"}]}"#,
            "expected a number within float64 in column \"readings.3.value\", found `\"x\"}]}`",
            "byte 58 of 64",
        ),
        (
            r#"{"must":1,"point":{"y":1,"readings":[{},null]}}"#,
            "expected an object, not null, in column \"point.readings.1\", found `null]}}`",
            "byte 40 of 47",
        ),
        (
            r#"{"must":1,"point":{"x":1}}"#,
            "expected a whole number within int32, not null, in column \"point.y\", found `}`",
            "byte 25 of 26",
        ),
        (
            r#"{"must":1,"named":{"a b":{"at":0},"c":{"at":true}}}"#,
            "expected ISO 8601 text such as \"2024-02-29T12:00:00Z\", or a number, within timestamp[ms] \
             in column \"named.c.at\", found `true}}}`",
            "byte 44 of 51",
        ),
        (
            r#"{"must":1,"grid":[[1],7]}"#,
            "expected an array in column \"grid.1\", found `7]}`",
            "byte 22 of 25",
        ),
        (
            r#"{"must":1,"tags":{"a":1}}"#,
            "expected an array in column \"tags\", found `{\"a\":1}}`",
            "byte 17 of 25",
        ),
    ] {
        let found = told(text);
        assert!(found.contains(expected) && found.contains(place), "{text}: {found}");
    }
}

#[test]
fn of_a_key_that_comes_twice_the_last_one_counts_at_every_depth() {
    let texts = [
        r#"{"must":1,"named":{"a":{"value":1},"b":{"value":2},"a":{"value":3}}}"#,
        r#"{"must":1,"named":{"a":7,"b":{"value":"?","value":2},"a":{"value":3,"at":"?","at":null}}}"#,
    ];
    let payloads: Vec<_> = texts.iter().map(|text| Some(text.as_bytes().to_vec())).collect();
    let counted = compare(&payloads, &every_field());
    assert_eq!((counted.good.len(), counted.bad), (2, 0));
    assert_eq!(counted.good[0], counted.good[1]);
}

/// A retry within a retry would double the work at each level, and this would not come to an end.
#[test]
fn keys_that_come_twice_at_every_depth_are_read_again_once_and_not_once_a_level() {
    const LEVELS: usize = 60;
    let map_of = |value: DataType| {
        let entry = vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)];
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry.into()), false)), false)
    };
    let deep = vec![Field::new("m", (0..LEVELS).fold(DataType::Int64, |inner, _| map_of(inner)), true)];
    let within = |innermost: &str| {
        let level = |inner: String, _| format!("{{\"a\":{inner},\"b\":null,\"b\":null}}");
        format!("{{\"m\":{}}}", (0..LEVELS).fold(innermost.to_owned(), level))
    };
    let payloads = [within("7"), within("?"), within("\"x\"")].map(|text| Some(text.into_bytes()));
    let chunk = chunk(&payloads);
    for on_bad in [OnBad::Drop, OnBad::DeadLetter] {
        let decoded = decode(DecodeSpec { on_bad, ..spec(deep.clone()) }, &chunk);
        assert_eq!((decoded.batch.num_rows(), decoded.counts.bad), (1, 2));
        let Row::Good(expected) = row(payloads[0].as_deref(), &deep) else { panic!("the model says bad") };
        assert_eq!(check::cells(&decoded.batch), [expected]);
    }
    let lone = lines(&[&within("\"x\"")]);
    let error = Decoder::new(spec(deep)).unwrap().decode(&lone, BatchTime(0)).unwrap_err().to_string();
    assert!(error.contains(&format!("in column \"m{}\"", ".a".repeat(LEVELS))), "{error}");
}

#[test]
fn what_nests_deeper_than_a_record_may_is_no_schema() {
    let nested = |levels: usize| {
        let item = |data_type| DataType::List(Arc::new(Field::new("item", data_type, true)));
        let data_type = (0..levels).fold(DataType::Int8, |inner, _| item(inner));
        Decoder::new(spec(vec![Field::new("deep", data_type, true)]))
    };
    assert!(nested(126).is_ok());
    let refused = nested(127).unwrap_err().to_string();
    assert!(refused.contains("more than 126 levels"), "{refused}");
    let deepest = format!("{{\"deep\":{}1{}}}", "[".repeat(126), "]".repeat(126));
    assert!(nested(126).unwrap().decode(&lines(&[&deepest]), BatchTime(0)).is_ok());
}

#[test]
fn a_type_deep_in_a_schema_that_json_has_no_form_for_is_named_by_its_path() {
    let time = Field::new("t", DataType::Time32(TimeUnit::Second), true);
    let item = Field::new("item", DataType::Struct(vec![time].into()), true);
    let error = refused(spec(vec![Field::new("a", DataType::List(Arc::new(item)), true)]));
    assert!(error.message().contains("column \"a.[].t\": expected a type that JSON"), "{error}");
    assert!(error.to_string().contains("list<T>"), "{error}");
}

#[test]
fn a_syntax_error_names_the_byte_where_it_starts() {
    for (text, place) in [
        ("", "byte 0 of 0"),
        ("[1]", "byte 0 of 3"),
        ("{\"a\":1", "byte 6 of 6"),
        ("{\"a\":1} x", "byte 8 of 9"),
        ("{\"a\":NaN}", "byte 5 of 9"),
        ("{\"a\":1,}", "byte 7 of 8"),
    ] {
        let mut decoder = Decoder::new(spec(vec![long("a")])).unwrap();
        let error = decoder.decode(&lines(&[text]), BatchTime(0)).unwrap_err();
        assert_eq!(error.places().first().map(String::as_str), Some(place), "{text}: {error}");
    }
}

#[test]
fn a_decoder_goes_on_after_a_chunk_that_failed() {
    let mut decoder = Decoder::new(spec(vec![long("a")])).unwrap();
    assert!(decoder.decode(&lines(&["{\"a\":1}", "{\"a\":2}", "{"]), BatchTime(0)).is_err());
    let result = decoder.decode(&lines(&["{\"a\":3}"]), BatchTime(0)).unwrap();
    assert_eq!(result.batch.column(0).as_primitive::<Int64Type>().values(), &[3]);
}

#[test]
fn keys_in_any_order_left_out_or_added_decode_the_same() {
    let texts = [
        r#"{"a":1,"b":2,"c":3}"#,
        r#"{"c":3,"b":2,"a":1}"#,
        r#"{"a":1,"x":0,"b":2,"c":3}"#,
        r#"{ "a":1, "b":2, "c":3}"#,
        r#"{"b":2,"a":1,"c":3}"#,
        r#"{"a":9,"a":1,"b":"?","b":2,"c":3}"#,
        r#"{"\u0061":1,"b":2.0,"c":3e0}"#,
    ];
    let decoded = decode(spec(vec![long("a"), long("b"), long("c")]), &lines(&texts));
    for (column, expected) in decoded.batch.columns().iter().zip([1, 2, 3]) {
        assert_eq!(column.as_primitive::<Int64Type>().values(), &[expected; 7]);
    }
}

#[test]
fn more_columns_than_bits_in_a_word_decode_the_same() {
    let names: Vec<String> = (0..130).map(|index| format!("c{index}")).collect();
    let text =
        |value: i64| names.iter().map(|name| format!("\"{name}\":{value}")).collect::<Vec<_>>().join(",");
    let texts = [format!("{{{}}}", text(1)), format!("{{{},{}}}", text(7), text(1)), "{}".to_owned()];
    let chunk = lines(&texts.each_ref().map(String::as_str));
    let decoded = decode(spec(names.iter().map(|name| long(name)).collect()), &chunk);
    for column in decoded.batch.columns() {
        let values: Vec<_> = column.as_primitive::<Int64Type>().iter().collect();
        assert_eq!(values, [Some(1), Some(1), None]);
    }
}

#[test]
fn a_character_that_spans_two_payloads_makes_both_bad() {
    let mut payloads = Bytes::default();
    let text = "{\"a\":\"é\"}";
    let buffer = payloads.share(Buffer::from(text.as_bytes().to_vec()));
    payloads.push(buffer, 0..7);
    payloads.push(buffer, 7..text.len());
    payloads.push(buffer, 0..text.len());
    let chunk = RawChunk { payloads, ..lines(&["", "", ""]) };
    let spec = DecodeSpec { on_bad: OnBad::Drop, ..spec(vec![Field::new("a", DataType::Utf8, true)]) };
    let decoded = decode(spec, &chunk);
    assert_eq!((decoded.batch.num_rows(), decoded.counts.bad), (1, 2));
}

#[test]
fn a_column_that_nobody_reads_is_checked_for_syntax_only() {
    let read_b = |text: &str| {
        let spec = DecodeSpec { columns: Some(vec!["b".to_owned()]), ..spec(vec![long("a"), long("b")]) };
        Decoder::new(spec).unwrap().decode(&lines(&[text]), BatchTime(0)).is_ok()
    };
    assert!(read_b(r#"{"a":"no number","b":1}"#));
    assert!(!read_b(r#"{"a":no number,"b":1}"#));
}

#[test]
fn columns_come_in_declared_order_whatever_the_order_asked_for() {
    let columns = Some(["kafka_offset", "b", "a"].map(str::to_owned).to_vec());
    let metadata = vec![Metadata::Offset];
    let mut decoder =
        Decoder::new(DecodeSpec { columns, metadata, ..spec(vec![long("a"), long("x"), long("b")]) })
            .unwrap();
    let names: Vec<String> = decoder.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["a", "b", "kafka_offset"]);
    let batch = decoder.decode(&lines(&["{\"b\":2,\"a\":1}"]), BatchTime(0)).unwrap().batch;
    assert_eq!(batch.column(2).as_primitive::<Int64Type>().values(), &[100]);
}

#[test]
fn dead_letters_have_what_surrounds_them_and_only_what_is_read() {
    let keeping = |columns: &[&str]| {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let spec = DecodeSpec { on_bad: OnBad::DeadLetter, ..spec(vec![long("a")]) };
        Decoder::new(spec).unwrap().with_dead_letters(&columns).unwrap()
    };
    let none = RawColumns::default();
    assert_eq!(keeping(&["value", "reason", "position", "kafka_topic"]).wanted(), none);
    assert_eq!(keeping(&["kafka_key"]).wanted(), RawColumns { key: true, ..none });
    assert_eq!(keeping(&["kafka_timestamp"]).wanted(), RawColumns { timestamp: true, ..none });
    assert_eq!(keeping(&["kafka_headers"]).wanted(), RawColumns { headers: true, ..none });
    let chunk = RawChunk {
        keys: Some(Bytes::copied([Some(&b"good"[..]), Some(b"\xff")])),
        ..lines(&["{\"a\":1}", "{\"a\":true}"])
    };
    let dead =
        keeping(&["kafka_key", "position", "kafka_partition"]).decode(&chunk, BatchTime(0)).unwrap().dead;
    let dead = dead.unwrap();
    let names: Vec<String> = dead.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["position", "kafka_partition", "kafka_key"]);
    assert_eq!(dead.column(0).as_primitive::<Int64Type>().values(), &[5]);
    assert_eq!(dead.column(2).as_binary::<i32>().iter().collect::<Vec<_>>(), [Some(&b"\xff"[..])]);
    assert!(keeping(&["value"]).decode(&lines(&["{}"]), BatchTime(0)).unwrap().dead.is_none());
}

#[test]
fn rows_without_columns_are_still_counted() {
    let spec = DecodeSpec { columns: Some(Vec::new()), on_bad: OnBad::Drop, ..spec(vec![long("a")]) };
    let decoded = decode(spec, &lines(&["{}", "{\"a\":2}", "{"]));
    assert_eq!((decoded.batch.num_columns(), decoded.batch.num_rows(), decoded.counts.bad), (0, 2, 1));
}

#[test]
fn metadata_stand_beside_the_rows_that_were_kept() {
    use Metadata::{Headers as KafkaHeaders, Key, Offset, Partition, Timestamp, Topic};
    let metadata = vec![Key, Topic, Partition, Offset, Timestamp, KafkaHeaders];
    let mut decoder =
        Decoder::new(DecodeSpec { metadata, on_bad: OnBad::Drop, ..spec(vec![long("a")]) }).unwrap();
    assert_eq!(decoder.wanted(), RawColumns { key: true, timestamp: true, headers: true });
    let chunk = RawChunk {
        payloads: Bytes::copied([Some(&b"{"[..]), Some(b"{}"), None, Some(b"{\"a\":4}")]),
        keys: Some(Bytes::copied([Some(&b"k0"[..]), None, Some(b"k2"), Some(b"k3")])),
        timestamps: Some(vec![5, -1, 7, 8]),
        headers: Some(Headers {
            ends: vec![1, 1, 2, 4],
            names: ["w", "x", "y", "z"].map(str::to_owned).to_vec(),
            values: Bytes::copied([Some(&b"0"[..]), Some(b"1"), Some(b"2"), None]),
        }),
        ..lines(&["", "", "", ""])
    };
    let batch = decoder.decode(&chunk, BatchTime(0)).unwrap().batch;
    let column = |name: &str| batch.column_by_name(name).unwrap();
    assert_eq!(column("kafka_key").as_binary::<i32>().iter().collect::<Vec<_>>(), [None, Some(&b"k3"[..])]);
    assert_eq!(column("kafka_topic").as_string::<i32>().value(1), "readings");
    assert_eq!(column("kafka_offset").as_primitive::<Int64Type>().values(), &[101, 103]);
    let times = column("kafka_timestamp").as_primitive::<TimestampMillisecondType>();
    assert_eq!(times.iter().collect::<Vec<_>>(), [None, Some(8)]);
    let headers = column("kafka_headers").as_list::<i32>();
    assert_eq!((headers.value_length(0), headers.value_length(1)), (0, 2));
    let last = headers.value(1);
    assert_eq!(last.as_struct().column(0).as_string::<i32>().value(0), "y");
    assert!(last.as_struct().column(1).is_null(1));
}

#[test]
fn a_source_is_asked_only_for_what_is_read() {
    let metadata = vec![Metadata::Key, Metadata::Timestamp, Metadata::Headers];
    let read = |columns: &[&str], event_time: Option<&str>| {
        let columns = Some(columns.iter().map(|name| (*name).to_owned()).collect());
        let event_time =
            event_time.map(|column| EventTimeSpec { column: column.to_owned(), max_future: Duration::ZERO });
        let metadata = metadata.clone();
        Decoder::new(DecodeSpec { columns, metadata, event_time, ..spec(vec![long("a")]) }).unwrap().wanted()
    };
    assert_eq!(read(&["a"], None), RawColumns::default());
    assert_eq!(read(&["kafka_key"], None), RawColumns { key: true, ..RawColumns::default() });
    assert_eq!(
        read(&["a"], Some("kafka_timestamp")),
        RawColumns { timestamp: true, ..RawColumns::default() }
    );
}

#[test]
fn raw_payloads_are_kept_as_they_are_and_tombstones_skipped() {
    let spec = DecodeSpec {
        format: Format::Raw,
        metadata: vec![Metadata::Offset],
        on_bad: OnBad::Fail,
        event_time: None,
        columns: None,
    };
    let decoded = decode(spec, &chunk(&[Some(b"\xff".to_vec()), None, Some(Vec::new())]));
    assert_eq!(
        decoded.batch.column(0).as_binary::<i32>().iter().flatten().collect::<Vec<_>>(),
        [&b"\xff"[..], b""]
    );
    assert_eq!(decoded.batch.column(1).as_primitive::<Int64Type>().values(), &[100, 102]);
    assert_eq!((decoded.counts.records, decoded.counts.tombstones, decoded.counts.bytes), (3, 1, 1));
}

#[test]
fn event_times_are_taken_from_a_column_that_nobody_reads() {
    let event_time = Some(EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_millis(100) });
    let columns = Some(vec!["a".to_owned()]);
    let spec = DecodeSpec { event_time, columns, ..spec(vec![millis("ts"), long("a")]) };
    let mut decoder = Decoder::new(spec).unwrap();
    let chunk = lines(&["{\"ts\":1050}", "{\"ts\":1100,\"a\":1}", "{\"ts\":1101}", "{}", "{\"ts\":null}"]);
    let result = decoder.decode(&chunk, BatchTime(1_000)).unwrap();
    assert_eq!(result.max_event_time, Some(EventTime(1_100_000)));
    assert_eq!((result.counts.without_time, result.counts.future), (2, 1));
    assert_eq!((result.batch.num_columns(), result.batch.num_rows()), (1, 5));
}

#[test]
fn event_times_finer_than_microseconds_are_rounded_down() {
    let field = Field::new("ts", DataType::Timestamp(TimeUnit::Nanosecond, None), true);
    let event_time = Some(EventTimeSpec { column: "ts".to_owned(), max_future: Duration::ZERO });
    let decoded =
        decode(DecodeSpec { event_time, ..spec(vec![field]) }, &lines(&["{\"ts\":-1}", "{\"ts\":-1500}"]));
    assert_eq!(decoded.max_event_time, Some(EventTime(-1)));
}

#[test]
fn floats_keep_every_bit() {
    let decoded = decode(
        spec(vec![Field::new("a", DataType::Float64, true)]),
        &lines(&["{\"a\":-0.0}", "{\"a\":1e23}"]),
    );
    let bits: Vec<u64> =
        decoded.batch.column(0).as_primitive::<Float64Type>().values().iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, [(-0.0f64).to_bits(), 1e23f64.to_bits()]);
}

#[test]
fn what_cannot_be_decoded_is_refused_before_anything_runs() {
    let nested = refused(spec(vec![Field::new("a", DataType::Date64, true)]));
    assert!(
        nested.message().contains("column \"a\"") && nested.message().contains("timestamp[s|ms|us|ns]"),
        "{nested}"
    );

    let unknown = refused(DecodeSpec { columns: Some(vec!["tmp".to_owned()]), ..spec(vec![long("temp")]) });
    assert_eq!(unknown.message(), "unknown column \"tmp\"; the source has temp; did you mean \"temp\"?");

    let clash = full_schema(&spec(vec![long("kafka_offset")]).format, &[Metadata::Offset]).unwrap_err();
    assert!(clash.message().contains("\"kafka_offset\" twice"), "{clash}");

    let event_time = Some(EventTimeSpec { column: "a".to_owned(), max_future: Duration::ZERO });
    let timeless = refused(DecodeSpec { event_time, ..spec(vec![long("a")]) });
    assert!(timeless.message().contains("to be a timestamp, found int64"), "{timeless}");

    let kinds = [nested, unknown, clash, timeless].map(|error| error.kind());
    assert_eq!(kinds, [ErrorKind::Config; 4]);
}

#[test]
fn a_decoder_can_be_given_to_an_ingest_thread() {
    fn is_send<T: Send>() {}
    is_send::<Decoder>();
}
