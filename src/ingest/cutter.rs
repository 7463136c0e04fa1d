//! Cuts the records of one partition's range into chunks, by what the records are and never by when they came.
//!
//! It deliberately knows nothing of where records come from: it is told one at a time, copies each once, and
//! allocates per chunk, never per record.

use arrow::buffer::Buffer;

use crate::error::{Error, Result};
use crate::offset::TopicPartition;
use crate::raw::{Bytes, CHUNK_BYTES, CHUNK_ROWS, Headers, RawChunk, RawColumns};

/// One record, borrowed from wherever it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) offset: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) timestamp: i64,
}

/// Spans number bytes with 32 bits, and the largest number stands for null.
const BUFFER_LIMIT: usize = u32::MAX as usize - 1;

/// Byte strings on their way into one contiguous buffer.
#[derive(Debug, Default)]
struct Column {
    bytes: Vec<u8>,
    values: Bytes,
}

impl Column {
    fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), values: Bytes::with_capacity(rows) }
    }

    /// The one buffer of a column has number 0.
    fn push(&mut self, value: Option<&[u8]>) {
        let Some(value) = value else { return self.values.push_null() };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.values.push(0, start..self.bytes.len());
    }

    fn fits(&self, value: Option<&[u8]>) -> bool {
        value.is_none_or(|value| self.bytes.len() + value.len() <= BUFFER_LIMIT)
    }

    fn finish(mut self) -> Bytes {
        self.values.share(Buffer::from(self.bytes));
        self.values
    }
}

/// Headers on their way into a chunk.
#[derive(Debug, Default)]
struct HeaderColumns {
    ends: Vec<u32>,
    names: Vec<String>,
    values: Column,
}

/// A chunk in the making.
#[derive(Debug)]
struct Growing {
    offsets: Vec<i64>,
    payloads: Column,
    keys: Option<Column>,
    timestamps: Option<Vec<i64>>,
    headers: Option<HeaderColumns>,
    /// Payloads and keys, also where keys are not wanted: where a chunk ends must not depend on the columns.
    bytes: usize,
}

impl Growing {
    fn new(columns: RawColumns, size: Size) -> Self {
        Self {
            offsets: Vec::with_capacity(size.rows),
            payloads: Column::with_capacity(size.rows, size.payload_bytes),
            keys: columns.key.then(|| Column::with_capacity(size.rows, size.key_bytes)),
            timestamps: columns.timestamp.then(|| Vec::with_capacity(size.rows)),
            headers: columns.headers.then(HeaderColumns::default),
            bytes: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.offsets.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES
    }

    fn finish(self, at: TopicPartition) -> RawChunk {
        RawChunk {
            at,
            offsets: self.offsets,
            payloads: self.payloads.finish(),
            keys: self.keys.map(Column::finish),
            timestamps: self.timestamps,
            headers: self.headers.map(|headers| Headers {
                ends: headers.ends,
                names: headers.names,
                values: headers.values.finish(),
            }),
        }
    }
}

/// How large a chunk is expected to be, so that a buffer is allocated once and rarely grows.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    rows: usize,
    payload_bytes: usize,
    key_bytes: usize,
}

impl Size {
    /// That of `chunk`, for `rows` rows and a little to spare.
    fn like(chunk: &Growing, rows: usize) -> Self {
        let per_row = |bytes: usize| bytes.div_ceil(chunk.offsets.len().max(1));
        let scaled = |bytes: usize| (per_row(bytes) * rows + per_row(bytes) * rows / 16).min(CHUNK_BYTES);
        let key_bytes = chunk.keys.as_ref().map_or(0, |keys| keys.bytes.len());
        Self { rows, payload_bytes: scaled(chunk.payloads.bytes.len()), key_bytes: scaled(key_bytes) }
    }
}

/// Collects the records of one partition's range and hands out a chunk whenever one is complete.
///
/// For each record: [`append`](Self::append), then [`header`](Self::header) for each of its headers where they
/// are wanted, then [`take_full`](Self::take_full); at the end of the range [`take_rest`](Self::take_rest).
#[derive(Debug)]
pub(crate) struct Cutter {
    at: TopicPartition,
    columns: RawColumns,
    growing: Option<Growing>,
    expected: Size,
}

impl Cutter {
    /// A cutter for ranges of `at`.
    pub(crate) fn new(at: TopicPartition, columns: RawColumns) -> Self {
        Self { at, columns, growing: None, expected: Size::default() }
    }

    /// Starts a range of `len` offsets, forgetting what an interrupted one has left.
    pub(crate) fn begin(&mut self, len: u64) {
        self.growing = None;
        self.expected.rows = usize::try_from(len).map_or(CHUNK_ROWS, |len| len.min(CHUNK_ROWS));
    }

    /// Copies `record` into the chunk in the making.
    #[inline]
    pub(crate) fn append(&mut self, record: Record<'_>) -> Result<()> {
        let growing = self.growing.get_or_insert_with(|| Growing::new(self.columns, self.expected));
        if !growing.payloads.fits(record.payload) || !growing.keys.as_ref().is_none_or(|k| k.fits(record.key))
        {
            return Err(too_large(&self.at, record.offset));
        }
        growing.offsets.push(record.offset);
        growing.payloads.push(record.payload);
        growing.bytes += record.payload.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
        if let Some(keys) = &mut growing.keys {
            keys.push(record.key);
        }
        if let Some(timestamps) = &mut growing.timestamps {
            timestamps.push(record.timestamp);
        }
        if let Some(headers) = &mut growing.headers {
            headers.ends.push(length(&headers.names));
        }
        Ok(())
    }

    /// Adds a header to the record appended last.
    pub(crate) fn header(&mut self, name: &str, value: Option<&[u8]>) -> Result<()> {
        let Some(Growing { headers: Some(headers), offsets, .. }) = &mut self.growing else { return Ok(()) };
        if !headers.values.fits(value) {
            return Err(too_large(&self.at, offsets.last().copied().unwrap_or_default()));
        }
        headers.names.push(name.to_owned());
        headers.values.push(value);
        let end = length(&headers.names);
        headers.ends.last_mut().into_iter().for_each(|last| *last = end);
        Ok(())
    }

    /// The chunk in the making, if the record appended last completes it.
    #[inline]
    pub(crate) fn take_full(&mut self) -> Option<RawChunk> {
        if self.growing.as_ref().is_some_and(Growing::is_full) { self.take_rest() } else { None }
    }

    /// The chunk in the making, if there is one: what remains at the end of a range.
    pub(crate) fn take_rest(&mut self) -> Option<RawChunk> {
        let growing = self.growing.take()?;
        self.expected = Size::like(&growing, self.expected.rows);
        Some(growing.finish(self.at.clone()))
    }
}

/// A chunk holds 16,384 records and a record's headers fit a message: their count fits 32 bits many times over.
fn length(names: &[String]) -> u32 {
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}

fn too_large(at: &TopicPartition, offset: i64) -> Error {
    Error::source(format!("{at} offset {offset}: a record of 4 GiB or more cannot be read"))
        .help("keep large objects outside of the topic and send where they lie")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, payload: &[u8]) -> Record<'_> {
        Record { offset, key: None, payload: Some(payload), timestamp: -1 }
    }

    fn cut<'a>(cutter: &mut Cutter, records: impl IntoIterator<Item = Record<'a>>) -> Vec<RawChunk> {
        cutter.begin(100_000);
        let mut chunks = Vec::new();
        for record in records {
            cutter.append(record).unwrap();
            chunks.extend(cutter.take_full());
        }
        chunks.extend(cutter.take_rest());
        chunks
    }

    fn cutter(columns: RawColumns) -> Cutter {
        Cutter::new(TopicPartition::new("t", 0), columns)
    }

    #[test]
    fn a_chunk_ends_at_its_number_of_rows() {
        let rows = i64::try_from(CHUNK_ROWS).unwrap();
        let chunks = cut(&mut cutter(RawColumns::default()), (0..=2 * rows).map(|i| record(i, b"x")));
        assert_eq!(chunks.iter().map(RawChunk::len).collect::<Vec<_>>(), [CHUNK_ROWS, CHUNK_ROWS, 1]);
        assert_eq!(chunks[2].offsets, [2 * rows]);
    }

    #[test]
    fn a_chunk_ends_with_the_record_that_reaches_its_number_of_bytes() {
        let half = vec![b'x'; CHUNK_BYTES / 2];
        let chunks = cut(&mut cutter(RawColumns::default()), (0..5).map(|i| record(i, &half)));
        assert_eq!(chunks.iter().map(RawChunk::len).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn a_record_larger_than_a_chunk_is_whole_and_ends_its_chunk() {
        let large = vec![b'x'; 10 << 20];
        let chunks = cut(&mut cutter(RawColumns::default()), [record(0, &large), record(1, b"small")]);
        assert_eq!(chunks[0].payloads.get(0).unwrap().len(), 10 << 20);
        assert_eq!(chunks[1].payloads.get(0), Some(&b"small"[..]));
    }

    #[test]
    fn chunks_end_at_the_same_records_whichever_columns_are_wanted() {
        let (key, payload) = (vec![b'k'; CHUNK_BYTES / 4], vec![b'p'; CHUNK_BYTES / 4]);
        let records = |i| Record { offset: i, key: Some(&key), payload: Some(&payload), timestamp: i };
        let all = RawColumns { key: true, timestamp: true, headers: true };
        let lengths =
            |columns| cut(&mut cutter(columns), (0..5).map(records)).iter().map(RawChunk::len).collect();
        let (with, without): (Vec<_>, Vec<_>) = (lengths(all), lengths(RawColumns::default()));
        assert_eq!((with.as_slice(), without.as_slice()), (&[2, 2, 1][..], &[2, 2, 1][..]));
    }

    #[test]
    fn nulls_and_empty_values_stay_apart() {
        let tombstone = Record { offset: 0, key: Some(b""), payload: None, timestamp: 7 };
        let columns = RawColumns { key: true, timestamp: true, headers: false };
        let chunk = cut(&mut cutter(columns), [tombstone]).remove(0);
        assert_eq!((chunk.payloads.get(0), chunk.keys.unwrap().get(0)), (None, Some(&b""[..])));
        assert_eq!((chunk.timestamps, chunk.headers.is_none()), (Some(vec![7]), true));
    }

    #[test]
    fn headers_belong_to_the_record_they_followed() {
        let mut cutter = cutter(RawColumns { headers: true, ..RawColumns::default() });
        cutter.append(record(0, b"a")).unwrap();
        cutter.header("one", Some(b"1")).unwrap();
        cutter.header("two", None).unwrap();
        cutter.append(record(1, b"b")).unwrap();
        cutter.append(record(2, b"c")).unwrap();
        cutter.header("three", Some(b"3")).unwrap();
        let headers = cutter.take_rest().unwrap().headers.unwrap();
        assert_eq!(headers.ends, [2, 2, 3]);
        assert_eq!(headers.names, ["one", "two", "three"]);
        assert_eq!(headers.values.iter().collect::<Vec<_>>(), [Some(&b"1"[..]), None, Some(&b"3"[..])]);
    }

    #[test]
    fn what_an_interrupted_range_left_is_forgotten() {
        let mut cutter = cutter(RawColumns::default());
        cutter.append(record(0, b"old")).unwrap();
        assert_eq!(cut(&mut cutter, [record(5, b"new")])[0].offsets, [5]);
    }
}
