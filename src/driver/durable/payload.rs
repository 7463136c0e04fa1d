//! What the driver writes into the entries of its log, as bytes and back.
//!
//! A PLAN says what a batch reads; a PREPARE says all that the batch comes to. It deliberately names no path and holds no
//! code: only numbers, hashes and the names that the job gave.

use crate::driver::log::Entry;
use crate::driver::memory::Memory;
use crate::error::Result;
use crate::event::Positions;
use crate::exec::manifest::Manifest;
use crate::offset::{Offset, TopicPartition};
use crate::plan::SourceId;
use crate::sink::digest::Digest;
use crate::sink::marker::{Epoch, Marker};
use crate::time::BatchId;
use crate::wire::{Reader, Writer};

/// The version of the form that is written, and the only one that is read.
const VERSION: u16 = 1;

/// The fewest bytes of an output's record, of a source and of a range.
const LEAST_RECORD: usize = 8;
const LEAST_SOURCE: usize = 8;
const LEAST_RANGE: usize = 24;

/// What a batch comes to: from its PREPARE on, its state and its output are decided.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    /// The state of all operators after the batch.
    pub(crate) manifest: Manifest,
    /// What the driver remembers after the batch.
    pub(crate) memory: Memory,
    /// What the place of the outputs keeps of the batch, where it publishes.
    pub(crate) marker: Marker,
    /// Whether there is any output to publish.
    pub(crate) publishes: bool,
    /// What the place kept before the batch.
    pub(crate) before: Option<Marker>,
    /// By the numbers of the outputs, what another driver needs to publish what follows.
    pub(crate) records: Vec<(usize, Vec<u8>)>,
}

impl Decided {
    /// What the place keeps once the batch has been published.
    pub(crate) fn after(&self) -> Option<Marker> {
        if self.publishes { Some(self.marker) } else { self.before }
    }

    /// As the payload of a PREPARE.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(VERSION);
        out.bytes(&self.manifest.encode());
        out.bytes(&self.memory.encode());
        write_marker(&mut out, self.marker);
        out.u8(u8::from(self.publishes));
        out.option(self.before, write_marker);
        out.count(self.records.len());
        for (output, record) in &self.records {
            out.u32(u32::try_from(*output).unwrap_or(u32::MAX));
            out.bytes(record);
        }
        out.into_bytes()
    }

    /// The payload of a PREPARE. Whatever does not fit is an error of kind
    /// [`ErrorKind::Checkpoint`](crate::error::ErrorKind::Checkpoint).
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Reader::new("a PREPARE", bytes);
        expect_version(&mut from)?;
        let (manifest, memory) = (Manifest::decode(from.bytes()?)?, Memory::decode(from.bytes()?)?);
        let marker = read_marker(&mut from)?;
        let publishes = read_bool(&mut from)?;
        let before = from.option(read_marker)?;
        let mut records = Vec::new();
        for _ in 0..from.count(LEAST_RECORD)? {
            records.push((from.u32()? as usize, from.bytes()?.to_vec()));
        }
        from.end()?;
        Ok(Self { manifest, memory, marker, publishes, before, records })
    }
}

/// The payload of a PLAN: its time, what it reads of each source, and where that is all there is.
pub(crate) fn encode_plan(entry: &Entry) -> Vec<u8> {
    let mut out = Writer::default();
    out.u16(VERSION);
    let Entry::Plan { time, ranges, at_end, .. } = entry else { return out.into_bytes() };
    out.i64(time.0);
    out.count(ranges.len());
    for (source, ranges) in ranges {
        out.u32(u32::try_from(source.0).unwrap_or(u32::MAX));
        out.count(ranges.len());
        for range in ranges {
            out.text(range.at.topic.as_str());
            out.i32(range.at.partition.0);
            out.i64(range.from.0);
            out.i64(range.until.0);
        }
    }
    out.count(at_end.len());
    for (source, at) in at_end {
        out.u32(u32::try_from(source.0).unwrap_or(u32::MAX));
        out.text(at.topic.as_str());
        out.i32(at.partition.0);
    }
    out.into_bytes()
}

/// Where a PLAN begins to read each source.
pub(crate) fn decode_plan(bytes: &[u8]) -> Result<Vec<(SourceId, Positions)>> {
    let mut from = Reader::new("a PLAN", bytes);
    expect_version(&mut from)?;
    from.i64()?;
    let mut sources = Vec::new();
    for _ in 0..from.count(LEAST_SOURCE)? {
        let source = SourceId(from.u32()? as usize);
        let mut positions = Positions::new();
        for _ in 0..from.count(LEAST_RANGE)? {
            let topic = from.text()?;
            let at = TopicPartition::new(topic, from.i32()?);
            let (begin, _) = (from.i64()?, from.i64()?);
            positions.push((at, Offset(begin)));
        }
        sources.push((source, positions));
    }
    Ok(sources)
}

/// The payload of a COMMIT: the digest of what was published.
pub(crate) fn encode_commit(marker: &Marker) -> Vec<u8> {
    let mut out = Writer::default();
    out.u16(VERSION);
    out.plain(&marker.digest.0);
    out.into_bytes()
}

fn expect_version(from: &mut Reader<'_>) -> Result<()> {
    let version = from.u16()?;
    if version == VERSION {
        return Ok(());
    }
    let message = format!("version {VERSION} was expected, found version {version}");
    Err(from.wrong(message).help("restore it with the version of tidemill that wrote it"))
}

fn write_marker(out: &mut Writer, marker: Marker) {
    out.u64(marker.batch.0);
    out.u64(marker.epoch.0);
    out.plain(&marker.digest.0);
}

fn read_marker(from: &mut Reader<'_>) -> Result<Marker> {
    let (batch, epoch) = (BatchId(from.u64()?), Epoch(from.u64()?));
    let digest = from.plain(32)?.try_into().map_err(|_| from.wrong("a digest of 32 bytes was expected"))?;
    Ok(Marker { batch, epoch, digest: Digest(digest) })
}

fn read_bool(from: &mut Reader<'_>) -> Result<bool> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(from.wrong(format!("0 or 1 was expected, found {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::offset::OffsetRange;
    use crate::time::BatchTime;

    fn decided() -> Decided {
        let marker = Marker { batch: BatchId(7), epoch: Epoch(2), digest: Digest::of(b"output") };
        Decided {
            manifest: Manifest::new(8),
            memory: Memory { batch: BatchId(7), ..Memory::default() },
            marker,
            publishes: true,
            before: Some(Marker { batch: BatchId(5), ..marker }),
            records: vec![(1, b"files".to_vec())],
        }
    }

    #[test]
    fn a_decision_is_read_as_it_was_written() {
        let (written, read) = (decided(), Decided::decode(&decided().encode()).unwrap());
        assert_eq!((read.manifest, read.memory), (written.manifest, written.memory));
        assert_eq!((read.marker, read.publishes, read.before), (written.marker, true, written.before));
        assert_eq!(read.records, written.records);
    }

    #[test]
    fn a_batch_without_output_leaves_the_marker_before_it() {
        assert_eq!(decided().after(), Some(decided().marker));
        let silent = Decided { publishes: false, ..decided() };
        assert_eq!(silent.after(), decided().before);
    }

    #[test]
    fn a_plan_says_where_it_begins() {
        let at = TopicPartition::new("readings", 3);
        let range = OffsetRange::new(at.clone(), Offset(5), Offset(9));
        let plan = Entry::Plan {
            batch: BatchId(0),
            time: BatchTime(1),
            ranges: vec![(SourceId(0), vec![range])],
            at_end: vec![(SourceId(0), at.clone())],
        };
        assert_eq!(decode_plan(&encode_plan(&plan)).unwrap(), [(SourceId(0), vec![(at, Offset(5))])]);
    }

    #[test]
    fn bytes_that_are_cut_off_are_no_decision() {
        let bytes = decided().encode();
        for length in 0..bytes.len() {
            let error = Decided::decode(&bytes[..length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
        }
    }
}
