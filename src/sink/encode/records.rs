//! Records on their way out, column by column: the whole output of a batch in a handful of buffers.
//!
//! It deliberately knows no topic and no sink: whoever fills it has decided the partitions, and whoever reads it sends
//! the rows one after the other.

use super::ByteRows;
use super::headers::HeaderLists;
use crate::sink::digest::Digester;

/// A header: its name and its value.
pub(crate) type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// Rows as records, kept from batch to batch so that their memory is reused.
#[derive(Debug, Default)]
pub(crate) struct Records {
    partitions: Vec<i32>,
    keys: ByteRows,
    values: ByteRows,
    constant: Vec<(String, Vec<u8>)>,
    headers: OwnHeaders,
}

/// The headers that rows have of their own, row after row; no rows where no row has any.
#[derive(Debug, Default)]
struct OwnHeaders {
    ends: Vec<usize>,
    names: ByteRows,
    values: ByteRows,
}

impl Records {
    /// None yet, each to have the headers `constant`.
    pub(crate) fn with_headers(constant: &[(String, Vec<u8>)]) -> Self {
        Self { constant: constant.to_vec(), ..Self::default() }
    }

    /// Forgets the rows and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.partitions.clear();
        self.keys.clear();
        self.values.clear();
        self.headers.ends.clear();
        self.headers.names.clear();
        self.headers.values.clear();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// The keys, to be appended to.
    pub(crate) fn keys(&mut self) -> &mut ByteRows {
        &mut self.keys
    }

    /// The values, to be appended to.
    pub(crate) fn values(&mut self) -> &mut ByteRows {
        &mut self.values
    }

    /// Appends the headers of a chunk's `rows`.
    pub(crate) fn push_headers(&mut self, lists: &HeaderLists<'_>, rows: usize) {
        let OwnHeaders { ends, names, values } = &mut self.headers;
        for row in 0..rows {
            for (name, value) in lists.of(row) {
                names.push(Some(name.as_bytes()));
                values.push(value);
            }
            ends.push(names.len());
        }
    }

    /// Gives each of the `rows` that were appended last its partition, which `place` decides from its number among these
    /// and its key.
    pub(crate) fn place(&mut self, rows: usize, place: impl Fn(u64, Option<&[u8]>) -> i32) {
        let from = self.partitions.len();
        let keys = &self.keys;
        let placed = (0..).zip(from..from + rows).map(|(number, row)| place(number, keys.get(row)));
        self.partitions.extend(placed);
    }

    /// The partition of `row`.
    #[inline]
    pub(crate) fn partition(&self, row: usize) -> i32 {
        self.partitions.get(row).copied().unwrap_or(0)
    }

    /// The key of `row`.
    #[inline]
    pub(crate) fn key(&self, row: usize) -> Option<&[u8]> {
        self.keys.get(row)
    }

    /// The value of `row`.
    #[inline]
    pub(crate) fn value(&self, row: usize) -> Option<&[u8]> {
        self.values.get(row)
    }

    /// Whether no record has headers.
    pub(crate) fn has_no_headers(&self) -> bool {
        self.constant.is_empty() && self.headers.names.is_empty()
    }

    /// Puts the headers of `row` into `out`, which is emptied first: the constant ones, then its own.
    pub(crate) fn read_headers<'a>(&'a self, row: usize, out: &mut Vec<Header<'a>>) {
        let OwnHeaders { ends, names, values } = &self.headers;
        let end = ends.get(row).copied().unwrap_or(0);
        let start = row.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
        out.clear();
        out.extend(self.constant.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_slice()))));
        out.extend((start..end).map(|entry| (names.get(entry).unwrap_or_default(), values.get(entry))));
    }

    /// Takes all of them up into a digest, in order: the same records give the same one, however they came in chunks.
    pub(crate) fn digest(&self, into: &mut Digester) {
        into.numbers(self.partitions.iter().map(|partition| u64::from(partition.cast_unsigned())));
        into.rows(&self.keys);
        into.rows(&self.values);
        into.number(self.constant.len() as u64);
        for (name, value) in &self.constant {
            into.text(name);
            into.bytes(value);
        }
        into.numbers(self.headers.ends.iter().map(|end| *end as u64));
        into.rows(&self.headers.names);
        into.rows(&self.headers.values);
    }
}
