//! The columns that come from the record around the payload, called `kafka_…`, and where a row comes from.
//!
//! It deliberately builds them for given rows only, after the payloads are decoded: good ones and bad ones never meet
//! in one column, and a tombstone reaches none.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, Int32Array, Int64Array, ListArray, StringArray, StringBuilder,
    StructArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use crate::decode::Metadata;
use crate::error::{Error, Result};
use crate::provenance::Provenance;
use crate::raw::{Headers, RawChunk};

impl Metadata {
    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "kafka_key",
            Self::Topic => "kafka_topic",
            Self::Partition => "kafka_partition",
            Self::Offset => "kafka_offset",
            Self::Timestamp => "kafka_timestamp",
            Self::Headers => "kafka_headers",
            Self::Provenance => "\0provenance",
        }
    }

    /// The column's name and type. All are nullable, so that they compare equal to the same types written by a
    /// user, who never says "not null".
    pub(crate) fn field(self) -> Field {
        Field::new(self.name(), self.data_type(), true)
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Key => DataType::Binary,
            Self::Topic => DataType::Utf8,
            Self::Partition => DataType::Int32,
            Self::Offset => DataType::Int64,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Headers => DataType::List(Arc::new(header_item())),
            Self::Provenance => DataType::UInt64,
        }
    }

    /// The column for `rows` of `chunk`.
    pub(super) fn array(self, chunk: &RawChunk, rows: &[usize]) -> Result<ArrayRef> {
        match self {
            Self::Key => keys(chunk, rows),
            Self::Topic => Ok(topics(chunk, rows.len())),
            Self::Partition => Ok(Arc::new(Int32Array::from_value(chunk.at.partition.0, rows.len()))),
            Self::Offset => Ok(Arc::new(pick(&chunk.offsets, rows).collect::<Int64Array>())),
            Self::Timestamp => timestamps(chunk, rows),
            Self::Headers => headers(chunk, rows),
            Self::Provenance => Ok(provenances(chunk, rows)),
        }
    }
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Binary, true)])
}

fn header_item() -> Field {
    Field::new_list_field(DataType::Struct(header_fields()), true)
}

fn pick<'a, T: Copy>(values: &'a [T], rows: &'a [usize]) -> impl Iterator<Item = Option<T>> + 'a {
    rows.iter().map(|row| values.get(*row).copied())
}

/// The part of a chunk that a decoder asked its source for in [`crate::raw::RawColumns`].
fn asked_for<T>(part: Option<&T>, metadata: Metadata) -> Result<&T> {
    part.ok_or_else(|| Error::internal(format!("expected a source to yield {}, found none", metadata.name())))
}

fn keys(chunk: &RawChunk, rows: &[usize]) -> Result<ArrayRef> {
    let keys = asked_for(chunk.keys.as_ref(), Metadata::Key)?;
    let mut builder = BinaryBuilder::with_capacity(rows.len(), keys.value_bytes());
    for row in rows {
        builder.append_option(keys.get(*row));
    }
    Ok(Arc::new(builder.finish()))
}

fn topics(chunk: &RawChunk, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(chunk.at.topic.as_str(), rows)))
}

fn provenances(chunk: &RawChunk, rows: &[usize]) -> ArrayRef {
    let records = Provenance::of_partition(&chunk.at);
    let of_record = |offset: Option<i64>| offset.map(|offset| records.of_record(offset).0);
    Arc::new(pick(&chunk.offsets, rows).map(of_record).collect::<UInt64Array>())
}

/// A record without a time carries a negative one.
fn timestamps(chunk: &RawChunk, rows: &[usize]) -> Result<ArrayRef> {
    let times = asked_for(chunk.timestamps.as_ref(), Metadata::Timestamp)?;
    let known = pick(times, rows).map(|time| time.filter(|time| *time >= 0));
    Ok(Arc::new(known.collect::<TimestampMillisecondArray>().with_timezone("UTC")))
}

fn headers(chunk: &RawChunk, rows: &[usize]) -> Result<ArrayRef> {
    let headers = asked_for(chunk.headers.as_ref(), Metadata::Headers)?;
    let (mut names, mut values) = (StringBuilder::new(), BinaryBuilder::new());
    let mut ends = vec![0];
    for row in rows {
        for header in header_range(headers, *row) {
            names.append_option(headers.names.get(header));
            values.append_option(headers.values.get(header));
        }
        let end = i32::try_from(names.len()).map_err(|_| Error::internal("too many headers in a chunk"))?;
        ends.push(end);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(names.finish()), Arc::new(values.finish())];
    let structs = StructArray::try_new(header_fields(), columns, None)?;
    let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
    Ok(Arc::new(ListArray::try_new(Arc::new(header_item()), ends, Arc::new(structs), None)?))
}

/// Where the headers of the record in `row` lie.
fn header_range(headers: &Headers, row: usize) -> std::ops::Range<usize> {
    let end = |row: usize| headers.ends.get(row).map_or(0, |end| *end as usize);
    row.checked_sub(1).map_or(0, end)..end(row)
}
