//! The readings of the Rust benchmarks: the fleet's records as text, and as the raw chunks that a fetcher gives.
//!
//! It deliberately draws nothing at random: the same record has the same bytes in every run.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark ends at a mistake")]

use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidemill::offset::TopicPartition;
use tidemill::raw::{Bytes, RawChunk};

/// The spacing that producers write between tokens.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) name: &'static str,
    pub(crate) colon: &'static str,
    pub(crate) comma: &'static str,
}

/// A reading of the fleet: figures differ from record to record, as they do in life, but not from run to run.
pub(crate) fn reading(index: usize, style: Style) -> String {
    let noise = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let status = ["ok", "warn", "ok", "ok"][(noise % 4) as usize];
    let members = [
        ("device", format!("\"dev-{:04}\"", noise % 1_000)),
        ("ts", time_ms(index).to_string()),
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

/// The event time of a reading: ten a millisecond.
pub(crate) fn time_ms(index: usize) -> u64 {
    1_700_000_000_000 + index as u64 / 10
}

/// Records of a partition, the first of which has offset `first`.
pub(crate) fn chunk(partition: i32, first: usize, texts: &[String]) -> RawChunk {
    let mut payloads = Bytes::default();
    let buffer = payloads.share(Buffer::from(texts.concat().into_bytes()));
    let mut start = 0;
    for text in texts {
        payloads.push(buffer, start..start + text.len());
        start += text.len();
    }
    let offsets = (i64::try_from(first).unwrap()..).take(texts.len()).collect();
    RawChunk {
        at: TopicPartition::new("readings", partition),
        offsets,
        payloads,
        keys: None,
        timestamps: None,
        headers: None,
    }
}

/// All columns of a reading.
pub(crate) fn full() -> SchemaRef {
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
