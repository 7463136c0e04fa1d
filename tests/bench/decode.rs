//! JSON → 3 of 8 columns on one core: our decoder against arrow-json's, on the same bytes, in turn, in one run.
//!
//! Prints one JSON line a figure. It deliberately reads no topic and starts no thread: what is compared is the work
//! per byte alone. `cargo bench --bench decode [-- records]`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark ends at a mistake")]

mod figure;

use std::sync::Arc;
use std::time::Duration;

use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow_json::ReaderBuilder;
use serde_json::json;
use tidemill::decode::{DecodeSpec, Decoder, EventTimeSpec, Format, OnBad};
use tidemill::offset::TopicPartition;
use tidemill::raw::{Bytes, CHUNK_ROWS, RawChunk};
use tidemill::time::{BatchTime, SystemClock};

use crate::figure::{Figure, Rounds};

const ROUNDS: usize = 7;
const READ: [&str; 3] = ["device", "ts", "temp"];

/// The spacing that producers write between tokens.
#[derive(Clone, Copy)]
struct Style {
    name: &'static str,
    colon: &'static str,
    comma: &'static str,
}

const STYLES: [Style; 2] =
    [Style { name: "compact", colon: ":", comma: "," }, Style { name: "spaced", colon: ": ", comma: ", " }];

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    for style in STYLES {
        compare(&Readings::new(asked.unwrap_or(500_000), style), style);
    }
}

/// The same records as chunks, and as lines.
struct Readings {
    chunks: Vec<RawChunk>,
    lines: Vec<Vec<u8>>,
    records: usize,
    bytes: usize,
}

impl Readings {
    fn new(records: usize, style: Style) -> Self {
        let (mut chunks, mut lines, mut bytes) = (Vec::new(), Vec::new(), 0);
        for start in (0..records).step_by(CHUNK_ROWS) {
            let texts: Vec<String> =
                (start..records.min(start + CHUNK_ROWS)).map(|i| reading(i, style)).collect();
            bytes += texts.iter().map(String::len).sum::<usize>();
            lines.push(texts.iter().flat_map(|text| format!("{text}\n").into_bytes()).collect());
            chunks.push(chunk(&texts));
        }
        Self { chunks, lines, records, bytes }
    }
}

/// A reading of the fleet: figures differ from record to record, as they do in life, but not from run to run.
fn reading(index: usize, style: Style) -> String {
    let noise = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let status = ["ok", "warn", "ok", "ok"][(noise % 4) as usize];
    let members = [
        ("device", format!("\"dev-{:04}\"", noise % 1_000)),
        ("ts", (1_700_000_000_000 + index as u64 / 10).to_string()),
        ("temp", format!("{}.{:02}", 15 + noise % 20, noise / 7 % 100)),
        ("hum", format!("{}.{}", 30 + noise % 60, noise / 3 % 10)),
        ("status", format!("\"{status}\"")),
        ("seq", index.to_string()),
        ("fw", "\"2.4.1\"".to_owned()),
        ("site", format!("\"site-{}\"", noise % 20)),
    ];
    let members = members.map(|(key, value)| format!("\"{key}\"{}{value}", style.colon));
    format!("{{{}}}", members.join(style.comma))
}

fn chunk(texts: &[String]) -> RawChunk {
    let mut payloads = Bytes::default();
    let buffer = payloads.share(Buffer::from(texts.concat().into_bytes()));
    let mut start = 0;
    for text in texts {
        payloads.push(buffer, start..start + text.len());
        start += text.len();
    }
    let offsets = (0..).take(texts.len()).collect();
    RawChunk {
        at: TopicPartition::new("readings", 0),
        offsets,
        payloads,
        keys: None,
        timestamps: None,
        headers: None,
    }
}

fn full() -> SchemaRef {
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    Arc::new(Schema::new(vec![
        Field::new("device", DataType::Utf8, true),
        Field::new("ts", millis, true),
        Field::new("temp", DataType::Float64, true),
        Field::new("hum", DataType::Float64, true),
        Field::new("status", DataType::Utf8, true),
        Field::new("seq", DataType::Int64, true),
        Field::new("fw", DataType::Utf8, true),
        Field::new("site", DataType::Utf8, true),
    ]))
}

/// Hands over each batch as it comes, as the engine does: a batch is gone before the next is decoded.
type Take<'a> = &'a mut dyn FnMut(RecordBatch);

fn ours(readings: &Readings, take: Take<'_>) {
    let event_time = EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_hours(1) };
    let mut decoder = Decoder::new(DecodeSpec {
        format: Format::Json(full()),
        metadata: Vec::new(),
        on_bad: OnBad::Fail,
        event_time: Some(event_time),
        columns: Some(READ.map(str::to_owned).to_vec()),
    })
    .unwrap();
    let now = BatchTime(1_800_000_000_000);
    readings.chunks.iter().for_each(|chunk| take(decoder.decode(chunk, now).unwrap().batch));
}

fn theirs(readings: &Readings, take: Take<'_>) {
    let read = READ.map(|name| full().index_of(name).unwrap());
    let schema = Arc::new(full().project(&read).unwrap());
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(CHUNK_ROWS).build_decoder().unwrap();
    for lines in &readings.lines {
        assert_eq!(decoder.decode(lines).unwrap(), lines.len());
        take(decoder.flush().unwrap().unwrap());
    }
}

type Decode = fn(&Readings, Take<'_>);

fn collect(decode: Decode, readings: &Readings) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    decode(readings, &mut |batch| batches.push(batch));
    batches
}

fn compare(readings: &Readings, style: Style) {
    assert!(collect(ours, readings) == collect(theirs, readings), "the two decoders disagree");
    let clock = SystemClock::new();
    let sides: [Decode; 2] = [ours, theirs];
    let mut rounds = [Rounds::default(), Rounds::default()];
    for _ in 0..ROUNDS {
        for (side, rounds) in sides.iter().zip(&mut rounds) {
            rounds.measure(&clock, || side(readings, &mut |batch| drop(std::hint::black_box(batch))));
        }
    }
    let bytes = readings.bytes as f64 / readings.records as f64;
    Figure {
        name: &format!("JSON decode, 3 of 8 columns, {}", style.name),
        unit: "records/s",
        value: &|seconds| readings.records as f64 / seconds,
        ours: &rounds[0],
        theirs: Some((&rounds[1], "arrow-json's decoder")),
        reach: "≥ 4",
        details: json!({"records": readings.records, "bytes a record": bytes.round()}),
    }
    .print();
}
