//! One core and two: the job over data in memory, from raw chunks to closed windows, on one core and on two.
//!
//! Prints one JSON line. It deliberately has neither broker nor driver: what is compared is how far the work of batches,
//! of which one is reduced while the next is mapped, is shared by cores. Each side is a process of its own, which
//! `taskset` of Linux keeps to its cores. `cargo bench --bench scale [-- records]`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark ends at a mistake")]

mod figure;
mod readings;

use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use serde_json::json;
use tidemill::cancel::Cancel;
use tidemill::decode::{EventTimeSpec, Format, OnBad};
use tidemill::error::Result;
use tidemill::event::Positions;
use tidemill::exec::local::{LocalEngine, LocalSettings};
use tidemill::exec::{Engine, MapTask, Mapped};
use tidemill::expr::Expression;
use tidemill::ingest::{Bound, ChunkSink, Fetcher, Head, Source};
use tidemill::offset::{Offset, OffsetRange, TopicPartition};
use tidemill::plan::{AggregateSpec, Emit, Named, Operator, Plan, SourceId, SourceSpec, WindowSpec};
use tidemill::raw::{CHUNK_ROWS, RawChunk, RawColumns};
use tidemill::state::window::WindowShape;
use tidemill::time::{BatchId, BatchTime, EventTime, SystemClock, Waker};

use crate::figure::{Figure, Rounds};
use crate::readings::{Style, chunk, full, reading, time_ms};

const ROUNDS: usize = 7;
const STYLE: Style = Style { name: "compact", colon: ":", comma: "," };
const PARTITIONS: usize = 8;
/// Of each partition, in a batch.
const CHUNKS_A_BATCH: usize = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name);
        place.and_then(|place| arguments.get(place + 1)?.parse::<usize>().ok())
    };
    match number("--cores") {
        Some(cores) => run_side(number("--records").unwrap(), cores),
        None => compare(arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(4_000_000)),
    }
}

/// One side, in a process that is kept to so many cores: prints what each round took, after one that counts not.
#[expect(clippy::print_stdout, reason = "the other process reads it")]
fn run_side(records: usize, cores: usize) {
    let (topic, clock) = (Topic::new(records), SystemClock::new());
    for round in 0..=ROUNDS {
        let (engine, mut taken) = (topic.engine(cores), Rounds::default());
        assert!(taken.measure(&clock, || topic.run(&engine)) > 0, "no window has closed");
        if round > 0 {
            println!("{} {}", taken.seconds[0], taken.cpu_seconds);
        }
    }
}

fn compare(records: usize) {
    let [one, two] = [1, 2].map(|cores| side(records, cores));
    Figure {
        name: "the job over data in memory, two cores",
        unit: "records/s",
        value: &|seconds| Topic::records_of(records) as f64 / seconds,
        ours: &two,
        theirs: Some((&one, "one core")),
        reach: "≥ 1.8",
        details: json!({"records": Topic::records_of(records), "partitions": PARTITIONS, "JSON": STYLE.name}),
    }
    .print();
}

fn side(records: usize, cores: usize) -> Rounds {
    let this = std::env::current_exe().unwrap();
    let kept_to = format!("0-{}", cores - 1);
    let mut side = Command::new("taskset");
    side.args(["-c", &kept_to]).arg(this);
    side.args(["--records", &records.to_string(), "--cores", &cores.to_string()]);
    let said = side.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let mut rounds = Rounds::default();
    for line in String::from_utf8(said.stdout).unwrap().lines() {
        let (seconds, cpu_seconds) = line.split_once(' ').unwrap();
        rounds.seconds.push(seconds.parse().unwrap());
        rounds.cpu_seconds += cpu_seconds.parse::<f64>().unwrap();
    }
    rounds
}

/// A topic whose chunks lie in memory, in order of partition and offset.
#[derive(Clone, Debug)]
struct Topic(Arc<Vec<Vec<RawChunk>>>);

impl Topic {
    /// As many as there are of about so many, in whole chunks.
    fn records_of(asked: usize) -> usize {
        asked.div_ceil(PARTITIONS * CHUNK_ROWS) * PARTITIONS * CHUNK_ROWS
    }

    /// About so many records.
    fn new(records: usize) -> Self {
        let chunks = Self::records_of(records) / (PARTITIONS * CHUNK_ROWS);
        let of = |partition: usize| (0..chunks).map(|place| Self::chunk(partition, place)).collect();
        Self(Arc::new((0..PARTITIONS).map(of).collect()))
    }

    fn chunk(partition: usize, place: usize) -> RawChunk {
        let first = place * CHUNK_ROWS;
        let texts: Vec<String> =
            (first..first + CHUNK_ROWS).map(|row| reading(row * PARTITIONS + partition, STYLE)).collect();
        chunk(i32::try_from(partition).unwrap(), first, &texts)
    }

    fn engine(&self, threads: usize) -> LocalEngine {
        let settings = LocalSettings { threads: Some(threads), ..LocalSettings::default() };
        LocalEngine::start(&plan().check().unwrap(), &[Arc::new(self.clone())], settings).unwrap()
    }

    /// Every batch, one mapped while the one before is reduced, as the driver has it; says how many windows closed.
    fn run(&self, engine: &LocalEngine) -> usize {
        let batches = self.0[0].len().div_ceil(CHUNKS_A_BATCH);
        std::thread::scope(|scope| {
            let (mapped, reducing) = sync_channel::<(MapTask, Mapped)>(0);
            let reducer = scope.spawn(move || {
                let closed = |(task, mapped): (MapTask, Mapped)| {
                    let until = watermark_before(usize::try_from(task.batch.0).unwrap() + 1);
                    let reduced = engine.reduce(&task, mapped, Some(until)).unwrap();
                    reduced
                        .outputs
                        .iter()
                        .flat_map(|(_, rows)| rows)
                        .map(RecordBatch::num_rows)
                        .sum::<usize>()
                };
                reducing.iter().map(closed).sum()
            });
            for batch in 0..batches {
                let task = self.task(batch);
                let rows = engine.map(&task).unwrap();
                mapped.send((task, rows)).unwrap();
            }
            drop(mapped);
            reducer.join().unwrap()
        })
    }

    fn task(&self, batch: usize) -> MapTask {
        MapTask {
            batch: BatchId(batch as u64),
            time: BatchTime(1_800_000_000_000),
            ranges: vec![(SourceId(0), self.ranges(batch))],
            watermark: Some(watermark_before(batch)),
        }
    }

    fn ranges(&self, batch: usize) -> Vec<OffsetRange> {
        let last = self.0[0].len();
        let offset = |chunk: usize| Offset(i64::try_from(chunk.min(last) * CHUNK_ROWS).unwrap());
        let (from, until) = (offset(batch * CHUNKS_A_BATCH), offset((batch + 1) * CHUNKS_A_BATCH));
        self.0.iter().map(|chunks| OffsetRange::new(chunks[0].at.clone(), from, until)).collect()
    }
}

/// That of the first record of `batch`: nothing in it is late.
fn watermark_before(batch: usize) -> EventTime {
    let records = batch * CHUNKS_A_BATCH * CHUNK_ROWS * PARTITIONS;
    EventTime(i64::try_from(time_ms(records)).unwrap() * 1_000)
}

fn plan() -> Plan {
    let event_time = EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_hours(1) };
    let mut plan = Plan::default();
    let source = plan.add_source(SourceSpec {
        name: "readings".to_owned(),
        format: Format::Json(full()),
        metadata: Vec::new(),
        on_bad: OnBad::Fail,
        event_time: Some(event_time),
    });
    let shape =
        WindowShape { length: Duration::from_secs(1), slide: Duration::from_secs(1), offset: Duration::ZERO };
    let column =
        |(name, text): (&str, &str)| Named { name: name.to_owned(), expression: Expression::sql(text) };
    let aggregate = AggregateSpec {
        keys: vec!["device".to_owned()],
        columns: [("mean", "avg(temp)"), ("n", "count(*)")].map(column).to_vec(),
        window: Some(WindowSpec { shape, on: "ts".to_owned(), emit: Emit::Final }),
    };
    let rows = plan.add(Operator::Source(source), vec![], None);
    let warm = plan.add(Operator::Filter(Expression::sql("temp >= 20")), vec![rows], None);
    let means = plan.add(Operator::Aggregate(aggregate), vec![warm], None);
    plan.add_output(means, None);
    plan
}

impl Source for Topic {
    fn name(&self) -> &'static str {
        "readings"
    }

    fn heads(&self) -> Result<Vec<Head>> {
        Ok(Vec::new()) // the benchmark plans by itself
    }

    fn resolve(&self, _: &Bound) -> Result<Positions> {
        Ok(Vec::new())
    }

    fn fetcher(&self, _: RawColumns, _: usize) -> Result<Box<dyn Fetcher>> {
        Ok(Box::new(self.clone()))
    }

    fn acknowledge(&self, _: &Positions, _: &Cancel) -> Result<()> {
        Ok(())
    }

    fn subscribe(&self, _: Waker) {}
}

impl Fetcher for Topic {
    fn fetch(&mut self, ranges: &[OffsetRange], _: &Cancel, sink: &mut ChunkSink<'_>) -> Result<()> {
        let of = |at: &TopicPartition| &self.0[usize::try_from(at.partition.0).unwrap()];
        for range in ranges {
            let is_in = |chunk: &&RawChunk| (range.from.0..range.until.0).contains(&chunk.offsets[0]);
            of(&range.at).iter().filter(is_in).cloned().try_for_each(&mut *sink)?;
        }
        Ok(())
    }
}
