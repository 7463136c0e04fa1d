//! What it costs to remember: captures between batches, the bytes of deltas, and taking state back.
//!
//! Prints one JSON line a figure. One key in a million has a state of its own, of `Ewma`, or of a mean and a count in one
//! window. It deliberately keeps chunks as plain files, without the log around them: what replicas, hashes and compression
//! add is measured with the log. `cargo bench --bench capture [-- keys]`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark ends at a mistake, and prints"
)]

mod figure;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::json;
use tidemill::cancel::Cancel;
use tidemill::decode::{EventTimeSpec, Format, OnBad};
use tidemill::detect::{DetectSpec, ewma::Ewma};
use tidemill::error::{Error, Result};
use tidemill::event::Positions;
use tidemill::exec::capture::{Capture, CapturedChunks};
use tidemill::exec::local::{LocalEngine, LocalSettings};
use tidemill::exec::manifest::{ChunkName, Manifest, OnStateChange, Saved};
use tidemill::exec::resume::{Archive, ChunkSource};
use tidemill::exec::{Engine, Epoch, MapTask};
use tidemill::expr::Expression;
use tidemill::ingest::{Bound, ChunkSink, Fetcher, Head, Source};
use tidemill::offset::{Offset, OffsetRange, TopicPartition};
use tidemill::plan::{AggregateSpec, Emit, Named, Operator, Plan, SourceId, SourceSpec, WindowSpec};
use tidemill::raw::{Bytes, CHUNK_ROWS, RawChunk, RawColumns};
use tidemill::state::chunk::{Chunk, Kind};
use tidemill::state::group::KeyGroup;
use tidemill::state::window::WindowShape;
use tidemill::time::{BatchId, BatchTime, SystemClock, Waker};

use crate::figure::{Figure, Rounds};

const KEYS: usize = 1_000_000;
const ROUNDS: usize = 5;
const PARTITIONS: usize = 8;

fn main() {
    let keys = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(KEYS);
    let bench = Bench { clock: SystemClock::new(), keys };
    bench.noted(Remembers::Ewma);
    bench.captured();
    for remembers in [Remembers::Ewma, Remembers::Window] {
        bench.deltas(remembers);
        bench.taken_back(remembers);
    }
}

/// What the job remembers of each key.
#[derive(Clone, Copy)]
enum Remembers {
    Ewma,
    Window,
}

impl Remembers {
    fn name(self) -> &'static str {
        match self {
            Self::Ewma => "Ewma",
            Self::Window => "mean and count in one window",
        }
    }
}

struct Bench {
    clock: SystemClock,
    keys: usize,
}

impl Bench {
    /// What it costs a batch that changes are noted: all keys come in each.
    fn noted(&self, remembers: Remembers) {
        let (fleet, mut without, mut with) = (Fleet::new(self.keys), Rounds::default(), Rounds::default());
        let [plain, noting] = [0, 1].map(|_| fleet.engine(remembers));
        let (mut at, mut manifest) = (0, Manifest::new(SHARDS));
        run_batch(&plain, 0, self.keys);
        run_batch(&noting, 0, self.keys);
        drop(noting.capture(&manifest).unwrap());
        for _ in 0..ROUNDS {
            at += self.keys;
            run_reduce(&self.clock, &plain, at, self.keys, &mut without);
            run_reduce(&self.clock, &noting, at, self.keys, &mut with);
            manifest = Manifest::new(SHARDS);
            drop(noting.capture(&manifest).unwrap()); // lets what was noted go
        }
        Figure {
            name: "reduce of a batch with its changes noted",
            unit: "rows/s",
            value: &|seconds| self.keys as f64 / seconds,
            ours: &with,
            theirs: Some((&without, "nothing noted")),
            reach: "≥ 0.98",
            details: json!({"keys": self.keys, "state": remembers.name()}),
        }
        .print();
    }

    /// How long batches wait for a capture of many keys, beside what the batch itself took.
    fn captured(&self) {
        for (what, touched) in [("all", self.keys), ("a tenth", self.keys / 10)] {
            let (fleet, mut manifest) = (Fleet::new(self.keys), Manifest::new(SHARDS));
            let engine = fleet.engine(Remembers::Ewma);
            run_batch(&engine, 0, self.keys);
            keep_large(&engine, &mut manifest);
            let (mut capturing, mut encoding, mut reduced) =
                (Rounds::default(), Rounds::default(), Rounds::default());
            for round in 1..=ROUNDS {
                run_reduce(&self.clock, &engine, round * self.keys, touched, &mut reduced);
                let captures = capturing.measure(&self.clock, || engine.capture(&manifest).unwrap());
                assert!(captures.iter().all(|capture| capture.kind() == Kind::Delta));
                encoding.measure(&self.clock, || encode(captures));
            }
            let longest = encoding.seconds.iter().copied().fold(0.0, f64::max);
            Figure {
                name: &format!("capture of Ewma, {what} of the keys changed"),
                unit: "ms",
                value: &|seconds| seconds * 1e3,
                ours: &capturing,
                theirs: Some((&reduced, "reduce of the batch")),
                reach: "",
                details: json!({"keys": self.keys, "changed": touched, "then encoded in at most ms": longest * 1e3}),
            }
            .print();
        }
    }

    /// The bytes of a delta beside those of the keys and states that changed.
    fn deltas(&self, remembers: Remembers) {
        for touched in [self.keys / 100, self.keys / 2].map(|touched| touched.max(1)) {
            let (fleet, mut manifest) = (Fleet::new(self.keys), Manifest::new(SHARDS));
            let engine = fleet.engine(remembers);
            run_batch(&engine, 0, self.keys);
            keep_large(&engine, &mut manifest);
            run_batch(&engine, self.keys, touched);
            let captured = encode(engine.capture(&manifest).unwrap());
            let (bytes, changed) =
                (captured.iter().map(CapturedChunks::bytes).sum::<u64>(), changed(&captured));
            let line = json!({
                "figure": format!("bytes of a delta, {}", remembers.name()),
                "unit": "bytes",
                "ours": bytes,
                "theirs": changed,
                "against": "keys and states that changed",
                "reach": "≤ 1.5",
                "ratio": bytes as f64 / changed as f64,
                "keys": self.keys,
                "changed": touched,
            });
            println!("{line}");
        }
    }

    /// Taking state back from files beside reading the same files.
    fn taken_back(&self, remembers: Remembers) {
        let folder = Folder::new();
        let (fleet, mut manifest) = (Fleet::new(self.keys), Manifest::new(SHARDS));
        let engine = fleet.engine(remembers);
        run_batch(&engine, 0, self.keys);
        folder.keep(&engine, &mut manifest, 0);
        for batch in 1..4 {
            run_batch(&engine, batch * self.keys, self.keys / 10);
            folder.keep(&engine, &mut manifest, batch as u64);
        }
        let expected = engine.snapshot().unwrap();
        drop(engine);
        let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            let archive = Archive { manifest: &manifest, chunks: &folder };
            let engine = fleet.engine(remembers);
            drop_cache();
            ours.measure(&self.clock, || engine.resume(archive, OnStateChange::Fail).unwrap());
            assert!(engine.snapshot().unwrap() == expected, "the state is not what it was");
            drop_cache();
            theirs.measure(&self.clock, || folder.read_all(&manifest));
        }
        let bytes: u64 = manifest.chunks().iter().map(|chunk| chunk.length).sum();
        Figure {
            name: &format!("state taken back, {}", remembers.name()),
            unit: "s",
            value: &|seconds| seconds,
            ours: &ours,
            theirs: Some((&theirs, "the same files read")),
            reach: "≤ 3",
            details: json!({"keys": self.keys, "bytes": bytes, "chunks": manifest.chunks().len(), "cache": drop_cache()}),
        }
        .print();
    }
}

fn encode(captures: Vec<Capture>) -> Vec<CapturedChunks> {
    captures.into_iter().map(|capture| capture.encode(BatchId(0)).unwrap()).collect()
}

/// Takes a snapshot that is said to be so large that deltas follow it.
fn keep_large(engine: &LocalEngine, manifest: &mut Manifest) {
    for captured in encode(engine.capture(manifest).unwrap()) {
        let name = |_| ChunkName { epoch: Epoch(1), hash: [0; 32], length: 1 << 40 };
        let names: Vec<ChunkName> = captured.chunks.iter().map(name).collect();
        let saved = Saved::new(&captured, &names).unwrap();
        manifest.add(&captured.heading.operator, &captured.heading.form, saved);
    }
}

/// The bytes of the keys that changed, of their panes, and of the values of their states.
fn changed(captured: &[CapturedChunks]) -> u64 {
    let mut bytes = 0;
    for captured in captured {
        for chunk in &captured.chunks {
            let form = &captured.heading.form;
            let all = KeyGroup(0)..KeyGroup(KeyGroup::COUNT);
            for rows in Chunk::open(chunk.bytes.clone().into()).unwrap().read(form, &all).unwrap() {
                let columns = rows.batch().columns();
                let keys: usize = columns[0].as_binary::<i32>().iter().flatten().map(<[u8]>::len).sum();
                let values = columns[1..].iter().map(|column| width(column.data_type()) * rows.len());
                bytes += keys + values.sum::<usize>();
            }
        }
    }
    bytes as u64
}

/// The bytes of a value.
fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeList(item, size) => width(item.data_type()) * usize::try_from(*size).unwrap(),
        other => other.primitive_width().unwrap(),
    }
}

/// The page cache without what was read before: where that is not allowed, both sides read from memory.
fn drop_cache() -> &'static str {
    let _ = std::process::Command::new("sync").status();
    if std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok() { "dropped" } else { "warm" }
}

/// Chunks as files of a folder of their own.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("tidemill-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn keep(&self, engine: &LocalEngine, manifest: &mut Manifest, batch: u64) {
        for (operator, capture) in engine.capture(manifest).unwrap().into_iter().enumerate() {
            let captured = capture.encode(BatchId(batch)).unwrap();
            let name = |(place, chunk): (usize, &tidemill::state::chunk::Written)| {
                let mut hash = [0; 32];
                let numbers = [batch, operator as u64, place as u64];
                for (to, from) in hash.chunks_mut(8).zip(numbers) {
                    to.copy_from_slice(&from.to_le_bytes());
                }
                let name = ChunkName { epoch: Epoch(1), hash, length: chunk.bytes.len() as u64 };
                std::fs::write(self.path(&name), &chunk.bytes).unwrap();
                name
            };
            let names: Vec<ChunkName> = captured.chunks.iter().enumerate().map(name).collect();
            let saved = Saved::new(&captured, &names).unwrap();
            manifest.add(&captured.heading.operator, &captured.heading.form, saved);
        }
    }

    fn path(&self, name: &ChunkName) -> PathBuf {
        self.0.join(blake3::Hash::from_bytes(name.hash).to_hex().as_str())
    }

    fn read_all(&self, manifest: &Manifest) -> u64 {
        manifest.chunks().iter().map(|name| std::fs::read(self.path(name)).unwrap().len() as u64).sum()
    }
}

impl ChunkSource for Folder {
    fn get(&self, name: &ChunkName) -> Result<Buffer> {
        let bytes = std::fs::read(self.path(name));
        bytes.map(Buffer::from).map_err(|error| Error::internal("a chunk cannot be read").caused_by(error))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.0));
    }
}

const SHARDS: usize = 8;

/// A fleet that sends one reading of each device after the other, made as they are fetched.
#[derive(Clone, Debug)]
struct Fleet {
    keys: usize,
}

impl Fleet {
    fn new(keys: usize) -> Self {
        Self { keys }
    }

    fn engine(&self, remembers: Remembers) -> LocalEngine {
        let settings = LocalSettings {
            shards: SHARDS,
            max_state: 1 << 40,
            max_memory: 1 << 33,
            ..LocalSettings::default()
        };
        LocalEngine::start(&plan(remembers).check().unwrap(), &[Arc::new(self.clone())], settings).unwrap()
    }

    fn chunk(&self, at: &TopicPartition, from: usize, until: usize) -> RawChunk {
        let partition = usize::try_from(at.partition.0).unwrap();
        let (mut payloads, mut text, mut spans) =
            (Bytes::with_capacity(until - from), Vec::new(), Vec::new());
        for offset in from..until {
            let (start, device) = (text.len(), (offset * PARTITIONS + partition) % self.keys);
            let value = (offset * 31) % 97;
            text.extend_from_slice(
                format!(r#"{{"device":"dev-{device:08}","ts":1000,"temp":{value}.5}}"#).as_bytes(),
            );
            spans.push(start..text.len());
        }
        let buffer = payloads.share(Buffer::from(text));
        for span in spans {
            payloads.push(buffer, span);
        }
        let offsets = (from..until).map(|offset| i64::try_from(offset).unwrap()).collect();
        RawChunk { at: at.clone(), offsets, payloads, keys: None, timestamps: None, headers: None }
    }
}

/// A batch of the next `rows` readings from `first` on.
fn run_batch(engine: &LocalEngine, first: usize, rows: usize) {
    run_reduce(&SystemClock::new(), engine, first, rows, &mut Rounds::default());
}

/// The same, with what its reduce took.
fn run_reduce(clock: &SystemClock, engine: &LocalEngine, first: usize, rows: usize, into: &mut Rounds) {
    let share = |number: usize| number / PARTITIONS;
    let range = |partition: usize| {
        let at = TopicPartition::new("readings", i32::try_from(partition).unwrap());
        let offset = |number: usize| Offset(i64::try_from(share(number)).unwrap());
        OffsetRange::new(at, offset(first), offset(first + rows))
    };
    let ranges = vec![(SourceId(0), (0..PARTITIONS).map(range).collect())];
    let time = BatchTime(1_800_000_000_000);
    let task = MapTask { batch: BatchId(first as u64), time, ranges, watermark: None };
    let mapped = engine.map(&task).unwrap();
    into.measure(clock, || engine.reduce(&task, mapped, None).unwrap());
}

fn plan(remembers: Remembers) -> Plan {
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    let fields = vec![
        Field::new("device", DataType::Utf8, true),
        Field::new("ts", millis, true),
        Field::new("temp", DataType::Float64, true),
    ];
    let mut plan = Plan::default();
    let source = plan.add_source(SourceSpec {
        name: "readings".to_owned(),
        format: Format::Json(Arc::new(Schema::new(fields))),
        metadata: Vec::new(),
        on_bad: OnBad::Fail,
        event_time: Some(EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_hours(1) }),
    });
    let rows = plan.add(Operator::Source(source), vec![], None);
    let keys = vec!["device".to_owned()];
    let last = match remembers {
        Remembers::Ewma => {
            let keyed = plan.add(Operator::KeyBy(keys), vec![rows], None);
            let (columns, detector) = (vec!["temp".to_owned()], Arc::new(Ewma::default()));
            let spec = DetectSpec { columns, detector, threshold: None, prefix: String::new() };
            let scored = plan.add(Operator::Detect(spec), vec![keyed], None);
            plan.add(Operator::Filter(Expression::sql("is_anomaly")), vec![scored], None)
        }
        Remembers::Window => {
            let (length, offset) = (Duration::from_hours(1), Duration::ZERO);
            let shape = WindowShape { length, slide: length, offset };
            let column = |(name, text): (&str, &str)| Named {
                name: name.to_owned(),
                expression: Expression::sql(text),
            };
            let columns = [("mean", "avg(temp)"), ("n", "count(*)")].map(column).to_vec();
            let window = Some(WindowSpec { shape, on: "ts".to_owned(), emit: Emit::Final });
            plan.add(Operator::Aggregate(AggregateSpec { keys, columns, window }), vec![rows], None)
        }
    };
    plan.add_output(last, None);
    plan
}

impl Source for Fleet {
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

impl Fetcher for Fleet {
    fn fetch(&mut self, ranges: &[OffsetRange], _: &Cancel, sink: &mut ChunkSink<'_>) -> Result<()> {
        for range in ranges {
            let [first, until] = [range.from, range.until].map(|offset| usize::try_from(offset.0).unwrap());
            for from in (first..until).step_by(CHUNK_ROWS) {
                sink(self.chunk(&range.at, from, until.min(from + CHUNK_ROWS)))?;
            }
        }
        Ok(())
    }
}
