//! The columns that every source yields: views over shared buffers, one chunk of one partition at a time.
//!
//! It deliberately interprets nothing: what the bytes mean is the decoder's business, and who filled the buffers
//! (a copy of librdkafka's messages, a fetch response straight from a socket) is the source's.

use arrow::buffer::Buffer;

use crate::offset::{Offset, TopicPartition};

/// A chunk ends at this many rows, counted from the start of the range.
pub const CHUNK_ROWS: usize = 16_384;

/// A chunk ends when its payloads and keys reach this many bytes.
pub const CHUNK_BYTES: usize = 4 << 20;

/// Which columns a source must yield beside offset and payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawColumns {
    /// The records' keys.
    pub key: bool,
    /// The records' own timestamps.
    pub timestamp: bool,
    /// The records' headers.
    pub headers: bool,
}

/// Where one value lies: `len` bytes at `start` of buffer `buffer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    buffer: u32,
    start: u32,
    len: u32,
}

/// The length that marks a null, which no value can have: buffers are smaller than 4 GiB.
const NULL: u32 = u32::MAX;

/// A column of byte strings, each null or a view over one of a few shared buffers.
///
/// ```
/// use arrow::buffer::Buffer;
/// use tidemill::raw::Bytes;
/// let mut column = Bytes::default();
/// let buffer = column.share(Buffer::from(b"{\"a\":1}{\"a\":2}".to_vec()));
/// column.push(buffer, 0..7);
/// column.push_null();
/// assert_eq!(column.get(0), Some(&b"{\"a\":1}"[..]));
/// assert_eq!((column.get(1), column.len()), (None, 2));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    buffers: Vec<Buffer>,
    spans: Vec<Span>,
}

impl Bytes {
    /// An empty column with room for `rows` values.
    pub fn with_capacity(rows: usize) -> Self {
        Self { buffers: Vec::new(), spans: Vec::with_capacity(rows) }
    }

    /// Adds a buffer for values to point into, and says its number. Must be smaller than 4 GiB.
    pub fn share(&mut self, buffer: Buffer) -> u32 {
        self.buffers.push(buffer);
        u32::try_from(self.buffers.len() - 1).unwrap_or(NULL)
    }

    /// Appends the value at `range` of buffer `buffer`; a range outside it reads as null.
    pub fn push(&mut self, buffer: u32, range: std::ops::Range<usize>) {
        let span = u32::try_from(range.start).ok().zip(u32::try_from(range.len()).ok());
        let (start, len) = span.unwrap_or((0, NULL));
        self.spans.push(Span { buffer, start, len });
    }

    /// Appends a null.
    pub fn push_null(&mut self) {
        self.spans.push(Span { buffer: 0, start: 0, len: NULL });
    }

    /// How many values there are, nulls included.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The value of `row`; `None` where it is null.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let span = self.spans.get(row)?;
        let start = span.start as usize;
        match span.len {
            NULL => None,
            len => self.buffers.get(span.buffer as usize)?.get(start..start + len as usize),
        }
    }

    /// All values, in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// The buffers that the values lie in, for checks over whole buffers.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// The bytes of all values together.
    pub fn value_bytes(&self) -> usize {
        self.spans.iter().filter(|span| span.len != NULL).map(|span| span.len as usize).sum()
    }

    /// A column of copies: one buffer, filled value by value.
    pub fn copied<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>) -> Self {
        let (mut bytes, mut spans) = (Vec::new(), Vec::new());
        for value in values {
            let start = u32::try_from(bytes.len()).unwrap_or(NULL);
            bytes.extend_from_slice(value.unwrap_or_default());
            let len = value.map_or(NULL, |value| u32::try_from(value.len()).unwrap_or(NULL));
            spans.push(Span { buffer: 0, start, len });
        }
        Self { buffers: vec![Buffer::from(bytes)], spans }
    }
}

/// The headers of a chunk's records: of record `i`, those at `ends[i-1]..ends[i]`.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// For each record, where its headers end in `names` and `values`.
    pub ends: Vec<u32>,
    /// The headers' names, UTF-8 as the protocol says.
    pub names: Vec<String>,
    /// The headers' values.
    pub values: Bytes,
}

/// Records of one partition, in order of offset, as a source took them.
#[derive(Clone, Debug)]
pub struct RawChunk {
    /// The partition they come from.
    pub at: TopicPartition,
    /// The offset of each.
    pub offsets: Vec<i64>,
    /// The payload of each; null is a tombstone.
    pub payloads: Bytes,
    /// The key of each, where asked for.
    pub keys: Option<Bytes>,
    /// The timestamp of each in milliseconds since the epoch (negative: none), where asked for.
    pub timestamps: Option<Vec<i64>>,
    /// The headers of each, where asked for.
    pub headers: Option<Headers>,
}

impl RawChunk {
    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The offset of the record in `row`.
    pub fn offset(&self, row: usize) -> Option<Offset> {
        self.offsets.get(row).copied().map(Offset)
    }

    /// The bytes of its payloads and keys.
    pub fn value_bytes(&self) -> usize {
        self.payloads.value_bytes() + self.keys.as_ref().map_or(0, Bytes::value_bytes)
    }
}
