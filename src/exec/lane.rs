//! An ingest thread: fetches, decodes and runs stage 0 over each chunk while it is in the cache.
//!
//! No chunk is handed to another thread: a thread for the fetch and a pool for the rest was measured at three
//! quarters of this. A lane lives as long as its executor and deliberately keeps nothing of a batch between two.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::record_batch::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::cancel::Cancel;
use crate::decode::{Decoded, Decoder, believed};
use crate::error::{Error, Result};
use crate::event::Counts;
use crate::exec::budget::Budget;
use crate::exec::mailbox::{Mailbox, bytes_of};
use crate::exec::pipeline::{Rows, Run};
use crate::exec::program::{Program, SourceProgram};
use crate::exec::{BatchContext, PartitionReport, Slot};
use crate::ingest::Fetcher;
use crate::offset::{OffsetRange, TopicPartition};
use crate::plan::SourceId;
use crate::raw::RawChunk;

/// What a chunk takes for a record beside its bytes: its offset, and where its payload lies.
const RAW_ROW: usize = 24;

/// What a lane is to do for one batch.
pub(crate) struct Work {
    pub(crate) context: Arc<BatchContext>,
    pub(crate) ranges: Vec<OffsetRange>,
    pub(crate) cancel: Cancel,
    pub(crate) shards: usize,
}

/// What a lane made of it.
pub(crate) struct Yield {
    pub(crate) mailbox: Mailbox,
    pub(crate) partitions: Vec<PartitionReport>,
    pub(crate) counts: Counts,
    /// The bytes that were reserved for what the lane had at hand, to be given back when the map is over.
    pub(crate) at_hand: u64,
}

type Answer = Sender<Result<Yield>>;

/// A running ingest thread of one source.
#[derive(Debug)]
pub(crate) struct Lane {
    work: Option<Sender<(Work, Answer)>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread owns.
pub(crate) struct Ingest {
    pub(crate) program: Arc<Program>,
    /// The source's place in the program.
    pub(crate) source: usize,
    pub(crate) fetcher: Box<dyn Fetcher>,
    pub(crate) decoder: Decoder,
    pub(crate) budget: Arc<Budget>,
}

impl Lane {
    /// Starts the thread.
    pub(crate) fn start(name: &str, ingest: Ingest) -> Result<Self> {
        // Unbounded: a map asks each lane once and waits for the answer, so one request is the most there is.
        let (work, requests) = unbounded();
        let thread = std::thread::Builder::new().name(format!("tidemill-ingest-{name}"));
        let thread = thread.spawn(move || ingest.serve(&requests));
        let failed = |error| Error::internal("an ingest thread cannot be started").caused_by(error);
        Ok(Self { work: Some(work), thread: Some(thread.map_err(failed)?) })
    }

    /// Gives the lane its share of a batch; the answer comes through the channel.
    pub(crate) fn ask(&self, work: Work) -> Receiver<Result<Yield>> {
        let (answer, receiver) = bounded(1); // one answer
        if let Some(lane) = &self.work {
            // A lane whose thread is gone drops the answer's sender, and the receiver says so.
            let _ = lane.send((work, answer));
        }
        receiver
    }
}

impl Lane {
    /// Lets the thread end, and does not wait for it.
    pub(crate) fn hang_up(&mut self) {
        self.work = None;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.hang_up();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Ingest {
    fn serve(mut self, requests: &Receiver<(Work, Answer)>) {
        for (work, answer) in requests {
            let made = catch_unwind(AssertUnwindSafe(|| self.run(&work)));
            let made = made.unwrap_or_else(|_| Err(Error::internal("an ingest thread panicked")));
            // The other lanes may wait for records that never come; nobody needs theirs any more.
            let made = made.inspect_err(|_| work.cancel.cancel());
            let _ = answer.send(made);
        }
    }

    fn run(&mut self, work: &Work) -> Result<Yield> {
        let lost = || Error::internal("a source is missing from the program");
        let source = self.program.sources.get(self.source).ok_or_else(lost)?;
        let mut stage = Stage {
            program: &self.program,
            source,
            decoder: &mut self.decoder,
            budget: &self.budget,
            work,
            mailbox: Mailbox::new(work.shards),
            partitions: BTreeMap::new(),
            counts: Counts::default(),
            at_hand: AtHand::default(),
        };
        self.fetcher.fetch(&work.ranges, &work.cancel, &mut |chunk| stage.take(&chunk))?;
        // Here, and not where the lanes' mailboxes come together: each core readies its own.
        stage.mailbox.finish_partials()?;
        stage.counts += stage.mailbox.take_counts();
        let partitions = stage.partitions.into_values().collect();
        let at_hand = stage.at_hand.bytes();
        Ok(Yield { mailbox: stage.mailbox, partitions, counts: stage.counts, at_hand })
    }
}

/// One batch on its way through decode and stage 0.
struct Stage<'a> {
    program: &'a Program,
    source: &'a SourceProgram,
    decoder: &'a mut Decoder,
    budget: &'a Budget,
    work: &'a Work,
    mailbox: Mailbox,
    partitions: BTreeMap<TopicPartition, PartitionReport>,
    counts: Counts,
    at_hand: AtHand,
}

impl Stage<'_> {
    fn take(&mut self, chunk: &RawChunk) -> Result<()> {
        let mut decoded = self.decoder.decode(chunk, self.work.context.time)?;
        let slot = Slot::Partition(self.source.id, chunk.at.clone());
        let timed = self.timed(&mut decoded).map_err(|error| error.at(place(&slot, chunk)))?;
        self.report(chunk, &decoded);
        let more = self.at_hand.grow(chunk, &decoded);
        self.reserve(more, &slot)?;
        let before = self.mailbox.bytes();
        let mut run = Run {
            program: self.program,
            context: &self.work.context,
            slot: &slot,
            operators: &mut Vec::new(),
            mailbox: &mut self.mailbox,
        };
        if let (Some(rows), Some(program)) = (timed, &self.source.timed) {
            run.push(&program.ports, Rows::all(rows)).map_err(|error| error.at(place(&slot, chunk)))?;
        }
        if decoded.batch.num_rows() > 0 {
            run.push(&self.source.ports, Rows::all(decoded.batch))
                .map_err(|error| error.at(place(&slot, chunk)))?;
        }
        if let (Some(dead), Some(program)) = (decoded.dead, &self.source.dead) {
            run.push(&program.ports, Rows::all(dead)).map_err(|error| error.at(place(&slot, chunk)))?;
        }
        let kept = self.mailbox.bytes().saturating_sub(before);
        self.reserve(kept, &slot)
    }

    /// The rows with the event time that is computed of them, where there is one; it is taken into what is known of the
    /// chunk, as the decoder does with one that is a column.
    fn timed(&self, decoded: &mut Decoded) -> Result<Option<RecordBatch>> {
        let Some(program) = &self.source.timed else { return Ok(None) };
        if decoded.batch.num_rows() == 0 {
            return Ok(None);
        }
        let time = self.work.context.time;
        let told = program.time.evaluate(&decoded.batch, time);
        let told = told.map_err(|error| self.program.locate(program.node, error))?;
        decoded.max_event_time = believed(&told, program.max_future, time, &mut decoded.counts)?;
        program.rows(&decoded.batch, &told).map(Some)
    }

    fn reserve(&self, bytes: u64, slot: &Slot) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.budget.reserve(self.work.context.batch, bytes, &self.work.cancel, &slot.to_string())
    }

    fn report(&mut self, chunk: &RawChunk, decoded: &Decoded) {
        self.counts += decoded.counts;
        let report =
            self.partitions.entry(chunk.at.clone()).or_insert_with(|| empty(self.source.id, &chunk.at));
        report.records += decoded.counts.records;
        report.bytes += decoded.counts.bytes;
        report.max_event_time = report.max_event_time.max(decoded.max_event_time);
    }
}

/// The bytes that a lane has at hand of a batch, beside the rows that it keeps: of each partition the chunk in the making
/// or just made, and the rows that one was decoded to.
///
/// The largest of each so far counts until the map is over, and not what is there at the moment: so what a batch needs,
/// and whether it fits, does not depend on which lane is how far when another asks.
#[derive(Default)]
struct AtHand {
    chunks: BTreeMap<TopicPartition, u64>,
    decoded: u64,
}

impl AtHand {
    /// Takes in a chunk and what it was decoded to; says how many bytes it became more by that.
    fn grow(&mut self, chunk: &RawChunk, decoded: &Decoded) -> u64 {
        let raw = decoded.counts.bytes + (chunk.len() * RAW_ROW) as u64;
        let largest = self.chunks.entry(chunk.at.clone()).or_default();
        let dead = decoded.dead.as_ref().map_or(0, bytes_of);
        raise(largest, raw) + raise(&mut self.decoded, bytes_of(&decoded.batch) + dead)
    }

    fn bytes(&self) -> u64 {
        self.chunks.values().sum::<u64>() + self.decoded
    }
}

/// Where rows are that an operator failed for: the offsets of a chunk, in which the one that it failed for can be looked up.
fn place(slot: &Slot, chunk: &RawChunk) -> String {
    match (chunk.offsets.first(), chunk.offsets.last()) {
        (Some(first), Some(last)) => format!("{slot}, offsets {first} to {last}"),
        _ => slot.to_string(),
    }
}

/// Raises `largest` to `bytes`, and says by how much.
fn raise(largest: &mut u64, bytes: u64) -> u64 {
    let more = bytes.saturating_sub(*largest);
    *largest += more;
    more
}

fn empty(source: SourceId, at: &TopicPartition) -> PartitionReport {
    PartitionReport { source, at: at.clone(), records: 0, bytes: 0, max_event_time: None }
}
