//! State as chunks of bytes, and back: the one form in which an operator's rows are kept.
//!
//! | part | bytes |
//! |---|---|
//! | magic | 8: `tm-state` |
//! | version | 2: [`VERSION`] |
//! | length of the heading | 4 |
//! | heading | kind, operator, form, batch, groups, encoding of keys, panes that are gone, and the index |
//! | sum of all before | 8: XXH3 |
//! | parts | each at a multiple of 16: an Arrow IPC message and its body, uncompressed |
//!
//! The index says of each part its key groups, rows, place and sum, so that a new owner decodes only the parts that its
//! groups are in. Chunks hold at most [`LONGEST`] bytes; a larger state is several, one after the other in the order of
//! rows. The same rows under the same heading are the same bytes.
//!
//! Whoever keeps chunks has verified them by hash before they come here; they are deliberately believed no more for it.
//! A heading of another version, operator or form is an error that says both sides. A part goes to Arrow only when
//! its sum is right and its message describes exactly the columns of the form within the part's own bytes; what Arrow
//! makes of it is then held to the order of rows.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{FieldNode, MessageHeader, MetadataVersion, root_as_message};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, ErrorKind, Result, in_bytes};
use crate::state::form::StateForm;
use crate::state::group::KeyGroup;
use crate::state::key::ENCODING_VERSION;
use crate::state::rows::{Dropped, Rows};
use crate::state::window::PaneNumber;
use crate::time::BatchId;
use crate::wire::{Reader, Writer};

/// The version of the form that is written, and the only one that is read.
pub const VERSION: u16 = 1;

/// No chunk holds more bytes.
pub const LONGEST: usize = 64 << 20;

/// About so many bytes a part: to read one for a few of its groups is no great waste, and a part has some hundred bytes
/// beside its rows.
const PART: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"tm-state";
/// Magic, version and the length of the heading.
const FRONT: usize = 14;
const SUM: usize = 8;
/// That of the widest type, so that no buffer has to be copied to be read.
const ALIGNMENT: usize = 16;
/// The fewest bytes of an entry of the index.
const INDEX_ENTRY: usize = 36;
/// The bytes of a run of panes.
const RUN: usize = 16;

/// What a chunk holds of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All of it.
    Snapshot,
    /// What changed since the capture before.
    Delta,
}

impl Kind {
    /// Writes the kind.
    pub fn write(self, out: &mut Writer) {
        out.u8(match self {
            Self::Snapshot => 1,
            Self::Delta => 2,
        });
    }

    /// The kind that [`Self::write`] wrote.
    pub fn read(from: &mut Reader<'_>) -> Result<Self> {
        match from.u8()? {
            1 => Ok(Self::Snapshot),
            2 => Ok(Self::Delta),
            other => Err(from.wrong(format!("a snapshot or a delta was expected, found number {other}"))),
        }
    }
}

/// Writes a range of key groups.
pub fn write_groups(groups: &Range<KeyGroup>, out: &mut Writer) {
    out.u16(groups.start.0);
    out.u16(groups.end.0);
}

/// The range that [`write_groups`] wrote.
pub fn read_groups(from: &mut Reader<'_>) -> Result<Range<KeyGroup>> {
    let (start, end) = (from.u16()?, from.u16()?);
    if start > end || end > KeyGroup::COUNT {
        return Err(from.wrong(format!("key groups were expected, found {start} to {end}")));
    }
    Ok(KeyGroup(start)..KeyGroup(end))
}

/// What is said of the rows of a capture, in each of its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// All, or what changed.
    pub kind: Kind,
    /// The name of the operator.
    pub operator: String,
    /// What its state is.
    pub form: StateForm,
    /// The batch after which it was captured.
    pub batch: BatchId,
    /// The panes that were gone before the rows came.
    pub dropped: Dropped,
}

/// A chunk that has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The groups that it covers.
    pub groups: Range<KeyGroup>,
    /// How many rows it has.
    pub rows: u64,
    /// The chunk.
    pub bytes: Vec<u8>,
}

/// The chunks of `rows`, which follow each other and belong to `groups`; at least one, whether there are rows or not.
pub fn write(heading: &Heading, groups: &Range<KeyGroup>, rows: &[Rows]) -> Result<Vec<Written>> {
    write_within(heading, groups, rows, LONGEST)
}

/// The same, in chunks of at most `longest` bytes: for tests, which have no large states.
#[doc(hidden)]
pub fn write_within(
    heading: &Heading,
    groups: &Range<KeyGroup>,
    rows: &[Rows],
    longest: usize,
) -> Result<Vec<Written>> {
    let parts = Parts::new(&heading.form, heading.overhead(), longest)?.of(rows)?;
    let mut chunks: Vec<Vec<Part>> = vec![Vec::new()];
    let mut length = heading.overhead();
    for part in parts {
        let own = part.length();
        if length + own > longest && chunks.last().is_some_and(|parts| !parts.is_empty()) {
            chunks.push(Vec::new());
            length = heading.overhead();
        }
        length += own;
        chunks.last_mut().into_iter().for_each(|parts| parts.push(part.clone()));
    }
    let bounds = bounds(groups, &chunks);
    Ok(chunks.iter().zip(bounds).map(|(parts, groups)| heading.chunk(groups, parts)).collect())
}

/// The groups that each chunk covers: from the first of its rows to where the next begins, so that together they cover
/// all, gaps included. Where a group is in two chunks, both cover it.
fn bounds(groups: &Range<KeyGroup>, chunks: &[Vec<Part>]) -> Vec<Range<KeyGroup>> {
    let first = |parts: &Vec<Part>| parts.first().map_or(groups.start, |part| part.groups.start);
    let end = |parts: &Vec<Part>| parts.last().map_or(groups.start, |part| part.groups.end);
    let mut bounds = Vec::new();
    for (place, parts) in chunks.iter().enumerate() {
        let start = if place == 0 { groups.start } else { first(parts) };
        let until = chunks.get(place + 1).map_or(groups.end, |next| first(next).max(end(parts)));
        bounds.push(start..until);
    }
    bounds
}

impl Heading {
    /// At least the bytes of a chunk beside its parts and their entries in the index.
    fn overhead(&self) -> usize {
        let mut out = Writer::default();
        self.write(&(KeyGroup(0)..KeyGroup(0)), &mut out);
        FRONT + out.as_bytes().len() + 4 + SUM + ALIGNMENT
    }

    fn chunk(&self, groups: Range<KeyGroup>, parts: &[Part]) -> Written {
        let mut heading = Writer::default();
        self.write(&groups, &mut heading);
        heading.count(parts.len());
        let length = heading.as_bytes().len() + parts.len() * INDEX_ENTRY;
        let mut at = aligned(FRONT + length + SUM);
        for part in parts {
            part.write(at, &mut heading);
            at += part.bytes.len();
        }
        let mut out = Vec::with_capacity(at);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(heading.as_bytes());
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        out.resize(aligned(out.len()), 0);
        for part in parts {
            out.extend_from_slice(&part.bytes);
        }
        Written { groups, rows: parts.iter().map(|part| u64::from(part.rows)).sum(), bytes: out }
    }

    fn write(&self, groups: &Range<KeyGroup>, out: &mut Writer) {
        self.kind.write(out);
        out.text(&self.operator);
        self.form.write(out);
        out.u64(self.batch.0);
        write_groups(groups, out);
        out.u32(ENCODING_VERSION);
        out.count(self.dropped.runs().len());
        for run in self.dropped.runs() {
            out.i64(run.start);
            out.i64(run.end);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<(Self, Range<KeyGroup>)> {
        let kind = Kind::read(from)?;
        let operator = from.text()?.to_owned();
        let form = StateForm::read(from)?;
        let batch = BatchId(from.u64()?);
        let groups = read_groups(from)?;
        let encoding = from.u32()?;
        if encoding != ENCODING_VERSION {
            return Err(from
                .wrong(format!(
                    "keys in encoding {ENCODING_VERSION} were expected, found encoding {encoding}"
                ))
                .help("restore it with the version of tidemill that wrote it"));
        }
        let count = from.count(RUN)?;
        let runs: Vec<Range<PaneNumber>> =
            (0..count).map(|_| Ok(from.i64()?..from.i64()?)).collect::<Result<_>>()?;
        Ok((Self { kind, operator, form, batch, dropped: Dropped::checked(runs)? }, groups))
    }
}

fn is_aligned(place: usize) -> bool {
    place.is_multiple_of(ALIGNMENT)
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// A run of rows as it stands in a chunk.
#[derive(Clone, Debug)]
struct Part {
    groups: Range<KeyGroup>,
    rows: u32,
    /// Of the message, before it was aligned.
    message: u32,
    sum: u64,
    /// The message and its body, aligned.
    bytes: Arc<[u8]>,
}

impl Part {
    /// With its entry in the index.
    fn length(&self) -> usize {
        self.bytes.len() + INDEX_ENTRY
    }

    fn write(&self, at: usize, out: &mut Writer) {
        write_groups(&self.groups, out);
        out.u32(self.rows);
        out.u64(at as u64);
        out.u64(self.bytes.len() as u64);
        out.u32(self.message);
        out.u64(self.sum);
    }
}

/// Cuts rows into parts.
struct Parts<'a> {
    options: IpcWriteOptions,
    form: &'a StateForm,
    /// What a part may have at most, so that a chunk has room for it.
    most: usize,
    /// What a part is to have.
    wanted: usize,
}

impl<'a> Parts<'a> {
    fn new(form: &'a StateForm, overhead: usize, longest: usize) -> Result<Self> {
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
        let most = longest.saturating_sub(overhead + INDEX_ENTRY);
        Ok(Self { options, form, most, wanted: PART.min(most / 2) })
    }

    fn of(&self, rows: &[Rows]) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for rows in self.joined(rows)?.iter().filter(|rows| !rows.is_empty()) {
            for piece in self.pieces(rows) {
                self.encode(&piece, &mut parts)?;
            }
        }
        Ok(parts)
    }

    /// The rows of several shards as one where they are few: each part costs some hundred bytes.
    fn joined(&self, rows: &[Rows]) -> Result<Vec<Rows>> {
        let (mut joined, mut few, mut bytes): (Vec<Rows>, Vec<Rows>, usize) = (Vec::new(), Vec::new(), 0);
        for own in rows.iter().filter(|rows| !rows.is_empty()) {
            bytes += size_of(own);
            few.push(own.clone());
            if bytes >= self.wanted {
                joined.push(Rows::concat(self.form, &few)?);
                (few, bytes) = (Vec::new(), 0);
            }
        }
        if !few.is_empty() {
            joined.push(Rows::concat(self.form, &few)?);
        }
        Ok(joined)
    }

    /// Runs of about as many bytes as a part is to have, cut between groups where that is possible.
    fn pieces(&self, rows: &Rows) -> Vec<Rows> {
        let a_row = (size_of(rows) / rows.len().max(1)).max(1);
        let wanted = (self.wanted / a_row).max(1);
        let groups: Vec<KeyGroup> = rows.groups().collect();
        let (mut pieces, mut start) = (Vec::new(), 0);
        while start < groups.len() {
            let mut end = (start + wanted).min(groups.len());
            if let (Some(last), Some(next)) = (groups.get(end - 1), groups.get(end))
                && last == next
            {
                // The group goes on: the part ends before it, unless the group is all that the part has.
                let before = groups.partition_point(|group| group < last);
                end = if before > start { before } else { end };
            }
            pieces.push(rows.slice(start, end - start));
            start = end;
        }
        pieces
    }

    /// Encodes `rows` as one part, or as several where it comes out larger than a chunk may be.
    fn encode(&self, rows: &Rows, parts: &mut Vec<Part>) -> Result<()> {
        let part = self.encoded(rows)?;
        if part.bytes.len() <= self.most {
            parts.push(part);
            return Ok(());
        }
        if rows.len() < 2 {
            return Err(too_large(part.bytes.len(), self.most));
        }
        let half = rows.len() / 2;
        self.encode(&rows.slice(0, half), parts)?;
        self.encode(&rows.slice(half, rows.len() - half), parts)
    }

    fn encoded(&self, rows: &Rows) -> Result<Part> {
        let (mut tracker, mut context) = (DictionaryTracker::new(true), IpcWriteContext::default());
        let (_, encoded) =
            IpcDataGenerator::default().encode(rows.batch(), &mut tracker, &self.options, &mut context)?;
        let message = encoded.ipc_message.len();
        let mut bytes = encoded.ipc_message;
        bytes.resize(aligned(message), 0);
        bytes.extend_from_slice(&encoded.arrow_data);
        bytes.resize(aligned(bytes.len()), 0);
        let (mut groups, rows) = (rows.groups(), rows.len());
        let first = groups.next().unwrap_or(KeyGroup(0));
        let last = groups.last().unwrap_or(first);
        Ok(Part {
            groups: first..KeyGroup(last.0 + 1),
            rows: u32::try_from(rows)
                .map_err(|_| Error::internal("a part has more rows than a chunk has bytes"))?,
            message: u32::try_from(message)
                .map_err(|_| Error::internal("a message is longer than a chunk"))?,
            sum: xxh3_64(&bytes),
            bytes: bytes.into(),
        })
    }
}

/// About the bytes of the rows themselves.
fn size_of(rows: &Rows) -> usize {
    let columns = rows.batch().columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

fn too_large(found: usize, most: usize) -> Error {
    let (found, most) = (in_bytes(found as u64), in_bytes(most as u64));
    let message = format!("the state of one key was expected to fit a chunk of {most}, found {found}");
    Error::new(ErrorKind::Checkpoint, message).at("state as chunks").help(
        "use shorter windows, or an aggregate that keeps no values, such as approx_quantile instead of median",
    )
}

/// A chunk whose heading has been read.
#[derive(Clone, Debug)]
pub struct Chunk {
    heading: Heading,
    groups: Range<KeyGroup>,
    index: Vec<Entry>,
    bytes: Buffer,
}

/// A part as the index has it.
#[derive(Clone, Debug)]
struct Entry {
    groups: Range<KeyGroup>,
    rows: u32,
    at: Range<usize>,
    message: usize,
    sum: u64,
}

impl Chunk {
    /// Reads the heading of a chunk. Whatever does not fit is an error of kind [`ErrorKind::Checkpoint`].
    pub fn open(bytes: Buffer) -> Result<Self> {
        // Aligned in memory as it is in the chunk; what comes from a file or a socket nearly always is.
        let is_aligned = bytes.as_ptr().align_offset(ALIGNMENT) == 0;
        let bytes = if is_aligned { bytes } else { Buffer::from_slice_ref(bytes.as_slice()) };
        let mut front = Reader::new("a chunk of state", &bytes);
        if front.plain(MAGIC.len())? != MAGIC {
            return Err(front.wrong("a chunk of state was expected, found other bytes"));
        }
        let version = front.u16()?;
        if version != VERSION {
            return Err(front
                .wrong(format!("state in version {VERSION} was expected, found version {version}"))
                .help("restore it with the version of tidemill that wrote it"));
        }
        let length = front.count(1)?;
        let heading = front.plain(length)?;
        let end = front.position();
        let sum = front.u64()?;
        if xxh3_64(bytes.get(..end).unwrap_or_default()) != sum {
            return Err(front.wrong("the sum of its heading was expected, found another: it is damaged"));
        }
        let mut reader = Reader::new("a chunk's heading", heading);
        let (heading, groups) = Heading::read(&mut reader)?;
        let index = read_index(&mut reader, &groups, aligned(end + SUM)..bytes.len())?;
        reader.end()?;
        Ok(Self { heading, groups, index, bytes })
    }

    /// What it says of itself.
    pub fn heading(&self) -> &Heading {
        &self.heading
    }

    /// The groups that it covers.
    pub fn groups(&self) -> &Range<KeyGroup> {
        &self.groups
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.index.iter().map(|entry| u64::from(entry.rows)).sum()
    }

    /// An error that says both sides, unless the chunk is of this operator, form and kind.
    pub fn expect(&self, kind: Kind, operator: &str, form: &StateForm) -> Result<()> {
        let Heading { kind: found_kind, operator: found, form: found_form, .. } = &self.heading;
        if found != operator {
            let message =
                format!("state of the operator \"{operator}\" was expected, found that of \"{found}\"");
            return Err(Error::new(ErrorKind::Checkpoint, message));
        }
        let at = || format!("operator \"{operator}\"");
        if *found_kind != kind {
            let message = format!("a {kind:?} was expected, found a {found_kind:?}").to_lowercase();
            return Err(Error::new(ErrorKind::Checkpoint, message).at(at()));
        }
        form.expect(found_form).map_err(|error| error.at(at()))
    }

    /// The rows of `groups`, in order, of the parts that they are in. The columns are those of `form`, which is the
    /// chunk's own.
    pub fn read(&self, form: &StateForm, groups: &Range<KeyGroup>) -> Result<Vec<Rows>> {
        let schema = form.columns();
        let mut found: Vec<Rows> = Vec::new();
        for (number, entry) in self.index.iter().enumerate() {
            if entry.groups.start >= groups.end || entry.groups.end <= groups.start {
                continue;
            }
            let rows = self.part(entry, form, &schema).map_err(|error| {
                error.at(format!("part {number} of a chunk of the operator \"{}\"", self.heading.operator))
            })?;
            found.push(rows.of_groups(groups));
        }
        Rows::expect_in_order(&found)?;
        Ok(found)
    }

    fn part(&self, entry: &Entry, form: &StateForm, schema: &SchemaRef) -> Result<Rows> {
        let whole = self.bytes.slice_with_length(entry.at.start, entry.at.len());
        if xxh3_64(&whole) != entry.sum {
            return Err(damaged("the sum of its bytes was expected, found another"));
        }
        let body = aligned(entry.message);
        let rows = entry.rows as usize;
        let message = whole.get(..entry.message).unwrap_or_default();
        let body = whole.slice_with_length(body.min(whole.len()), whole.len().saturating_sub(body));
        let batch = decode(message, &body, schema, rows)?;
        Rows::checked(form, batch, &entry.groups)
    }
}

fn read_index(from: &mut Reader<'_>, groups: &Range<KeyGroup>, within: Range<usize>) -> Result<Vec<Entry>> {
    let count = from.count(INDEX_ENTRY)?;
    let (mut index, mut next, mut first): (Vec<Entry>, usize, KeyGroup) =
        (Vec::with_capacity(count), within.start, groups.start);
    for _ in 0..count {
        let entry = read_entry(from)?;
        let in_order = entry.groups.start >= first && entry.groups.end <= groups.end;
        let in_place = entry.at.start == next && entry.at.end <= within.end;
        if !in_order || !in_place || entry.message > entry.at.len() {
            return Err(from.wrong(format!("parts one after the other were expected, found {entry:?}")));
        }
        // The group in which a part ends may go on in the next.
        first = KeyGroup(entry.groups.end.0.saturating_sub(1));
        next = entry.at.end;
        index.push(entry);
    }
    if next != within.end {
        return Err(from.wrong(format!("a chunk of {next} bytes was expected, found {}", within.end)));
    }
    Ok(index)
}

fn read_entry(from: &mut Reader<'_>) -> Result<Entry> {
    let groups = read_groups(from)?;
    let rows = from.u32()?;
    let (at, length) = (from.u64()?, from.u64()?);
    let (message, sum) = (from.u32()?, from.u64()?);
    let far = |_| from.wrong("a place within a chunk was expected");
    let start = usize::try_from(at).map_err(far)?;
    let end = start.saturating_add(usize::try_from(length).map_err(far)?);
    if groups.is_empty() || !is_aligned(end) {
        return Err(
            from.wrong(format!("groups and an aligned end were expected, found {groups:?} and {end}"))
        );
    }
    Ok(Entry { groups, rows, at: start..end, message: message as usize, sum })
}

/// The rows that a message and its body hold. The message has been written here, or is none that Arrow should see.
fn decode(message: &[u8], body: &Buffer, schema: &SchemaRef, rows: usize) -> Result<RecordBatch> {
    let message = root_as_message(message)
        .map_err(|error| damaged(format!("an Arrow message was expected, found other bytes: {error}")))?;
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        _ => None,
    };
    let batch = batch.ok_or_else(|| damaged("an Arrow record batch was expected, found another message"))?;
    let version = message.version();
    let is_plain =
        batch.compression().is_none() && batch.variadicBufferCounts().is_none_or(|counts| counts.is_empty());
    if version != MetadataVersion::V5 || !is_plain || usize::try_from(batch.length()) != Ok(rows) {
        return Err(damaged(format!(
            "{rows} uncompressed rows in Arrow's version 5 were expected, found others"
        )));
    }
    let (nodes, buffers) = (batch.nodes().ok_or_else(no_parts)?, batch.buffers().ok_or_else(no_parts)?);
    let mut expected = Expected { nodes: nodes.iter(), buffers: buffers.iter(), body: body.len() };
    schema.fields().iter().try_for_each(|field| expected.column(field, Some(rows)))?;
    expected.end()?;
    let read = read_record_batch(body, batch, Arc::clone(schema), &HashMap::new(), None, &version);
    let read =
        read.map_err(|error| damaged("columns of the form were expected, found others").caused_by(error))?;
    // The batch's own count of rows was compared before; without columns it stands for itself.
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(read.schema(), read.columns().to_vec(), &options)?)
}

fn no_parts() -> Error {
    damaged("an Arrow record batch was expected, found one without columns")
}

/// Walks over what a message says of its columns as Arrow will, and refuses whatever Arrow would not survive.
struct Expected<'a, N: Iterator<Item = &'a FieldNode>, B: Iterator<Item = &'a arrow::ipc::Buffer>> {
    nodes: N,
    buffers: B,
    body: usize,
}

impl<'a, N: Iterator<Item = &'a FieldNode>, B: Iterator<Item = &'a arrow::ipc::Buffer>> Expected<'a, N, B> {
    /// One column, of so many rows where that is known.
    fn column(&mut self, field: &FieldRef, rows: Option<usize>) -> Result<()> {
        let node = self.nodes.next().ok_or_else(|| damaged("a column was expected, found none"))?;
        let length =
            usize::try_from(node.length()).ok().filter(|length| rows.is_none_or(|rows| rows == *length));
        let length = length.ok_or_else(|| {
            damaged(format!(
                "{rows:?} rows of the column \"{}\" were expected, found {}",
                field.name(),
                node.length()
            ))
        })?;
        let nulls = usize::try_from(node.null_count()).ok().filter(|nulls| *nulls <= length);
        let nulls = nulls.ok_or_else(|| damaged("fewer nulls than rows were expected, found more"))?;
        match field.data_type() {
            DataType::Null => Ok(()),
            data_type => {
                let validity = self.buffer()?;
                if nulls > 0 && validity < length.div_ceil(8) {
                    return Err(damaged("a bit for each row was expected, found fewer"));
                }
                self.values(data_type, length)
            }
        }
    }

    fn values(&mut self, data_type: &DataType, length: usize) -> Result<()> {
        match data_type {
            DataType::Utf8 | DataType::Binary => self.offsets(length, std::mem::size_of::<i32>())?,
            DataType::LargeUtf8 | DataType::LargeBinary => {
                self.offsets(length, std::mem::size_of::<i64>())?;
            }
            DataType::List(item) | DataType::Map(item, _) => {
                self.offsets(length, std::mem::size_of::<i32>())?;
                return self.column(item, None);
            }
            DataType::LargeList(item) => {
                self.offsets(length, std::mem::size_of::<i64>())?;
                return self.column(item, None);
            }
            DataType::FixedSizeList(item, size) => {
                let size = usize::try_from(*size).ok();
                let items = size.and_then(|size| size.checked_mul(length));
                return self
                    .column(item, Some(items.ok_or_else(|| damaged("lists are longer than a chunk"))?));
            }
            DataType::Struct(fields) => {
                return fields.iter().try_for_each(|field| self.column(field, Some(length)));
            }
            other => {
                let width = other.primitive_width();
                return self.numbers(length, width);
            }
        }
        self.buffer().map(drop)
    }

    /// Where each value begins, and where the last ends. Arrow asserts that the buffer is whole numbers.
    fn offsets(&mut self, length: usize, size: usize) -> Result<()> {
        self.numbers(length.saturating_add(1), Some(size))
    }

    /// So many numbers of so many bytes, where these are known.
    fn numbers(&mut self, count: usize, size: Option<usize>) -> Result<()> {
        let found = self.buffer()?;
        let is_whole = size.is_none_or(|size| {
            found.is_multiple_of(size) && count.checked_mul(size).is_some_and(|least| found >= least)
        });
        if is_whole {
            return Ok(());
        }
        Err(damaged(format!("{count} numbers of {size:?} bytes were expected, found {found} bytes")))
    }

    /// The length of the next buffer, which lies within the body.
    fn buffer(&mut self) -> Result<usize> {
        let buffer = self.buffers.next().ok_or_else(|| damaged("a buffer was expected, found none"))?;
        let (start, length) = (usize::try_from(buffer.offset()).ok(), usize::try_from(buffer.length()).ok());
        let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
        match (end, length) {
            (Some(end), Some(length)) if end <= self.body && start.is_some_and(is_aligned) => Ok(length),
            _ => Err(damaged(format!("a buffer within {} bytes was expected, found {buffer:?}", self.body))),
        }
    }

    fn end(mut self) -> Result<()> {
        if self.nodes.next().is_none() && self.buffers.next().is_none() {
            return Ok(());
        }
        Err(damaged("the columns of the form were expected, found more"))
    }
}

fn damaged(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Checkpoint, message)
}
