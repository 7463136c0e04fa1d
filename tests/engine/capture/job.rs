//! Random jobs over a scripted source, and small ones that a test moves by hand.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use fastrand::Rng;
use tidemill::decode::{EventTimeSpec, Format, OnBad};
use tidemill::detect::{DetectSpec, ewma::Ewma};
use tidemill::exec::local::{LocalEngine, LocalSettings};
use tidemill::exec::{Engine, MapTask, Reduced};
use tidemill::expr::Expression;
use tidemill::ingest::Source;
use tidemill::ingest::scripted::ScriptedSource;
use tidemill::offset::{Offset, OffsetRange, TopicPartition};
use tidemill::plan::{AggregateSpec, Emit, Named, NodeId, Operator, Plan, SourceId, SourceSpec, WindowSpec};
use tidemill::state::window::WindowShape;
use tidemill::time::{BatchId, BatchTime, EventTime};

const PARTITIONS: i32 = 3;
const START: i64 = 1_700_000_000_000;

/// One call of every family of aggregates that may be kept, over each type that it holds in a way of its own.
pub(super) const AGGREGATES: [&str; 38] = [
    "count(*)",
    "count(v)",
    "sum(v)",
    "sum(n)",
    "avg(v)",
    "avg(n)",
    "min(v)",
    "max(n)",
    "min(s)",
    "max(s)",
    "var(v)",
    "stddev_pop(n)",
    "first(v)",
    "last(n)",
    "first(s)",
    "last(s)",
    "first(l)",
    "approx_quantile(v, 0.9)",
    "approx_median(v)",
    "approx_distinct(s)",
    "approx_distinct(n)",
    "top_k(v, 3)",
    "top_k(n, 2)",
    "top_k(s, 2)",
    "collect(v)",
    "collect(s)",
    "collect(l)",
    "median(v)",
    "string_agg(s, '-')",
    "count(distinct n)",
    "collect(distinct s)",
    "corr(v, n)",
    "regr_count(v, n)",
    "bit_xor(n)",
    "bool_or(n > 3)",
    "any_value(s)",
    "sum(v) FILTER (WHERE n > 2)",
    "count(distinct s) FILTER (WHERE v > 0.5)",
];

fn spec() -> SourceSpec {
    let ts = DataType::Timestamp(TimeUnit::Millisecond, None);
    let fields = vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("site", DataType::Int64, true),
        Field::new("ts", ts, true),
        Field::new("v", DataType::Float64, true),
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("l", DataType::new_list(DataType::Int64, true), true),
    ];
    SourceSpec {
        name: "readings".to_owned(),
        format: Format::Json(Arc::new(Schema::new(fields))),
        metadata: Vec::new(),
        on_bad: OnBad::Fail,
        event_time: Some(EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_hours(1) }),
    }
}

/// What a small job does with its rows.
#[derive(Clone, Copy)]
pub(super) enum Reads {
    Detect,
    /// In windows of two seconds.
    Windows(&'static str),
}

/// A job of one source.
pub(super) struct Job {
    pub(super) plan: Plan,
    pub(super) source: ScriptedSource,
    pub(super) shards: usize,
    next: Cell<u64>,
    read: Cell<i64>,
    watermark: Cell<Option<EventTime>>,
}

impl Job {
    /// A job that is given to it, of a plan that `add` adds to behind the source.
    pub(super) fn planned(add: impl FnOnce(&mut Plan, NodeId)) -> Self {
        let mut plan = Plan::default();
        let id = plan.add_source(spec());
        let rows = plan.add(Operator::Source(id), vec![], None);
        add(&mut plan, rows);
        let source = ScriptedSource::with_partitions("readings", PARTITIONS);
        Self { plan, source, shards: 8, next: Cell::new(0), read: Cell::new(0), watermark: Cell::new(None) }
    }

    /// A small job that a test moves by hand.
    pub(super) fn of(keys: &[&str], reads: Reads) -> Self {
        Self::planned(|plan, rows| {
            let last = match reads {
                Reads::Detect => detect(plan, rows, keys, Ewma::default()),
                Reads::Windows(call) => windows(plan, rows, keys, &[call], [2_000, 2_000], Emit::Final),
            };
            plan.add_output(last, None);
        })
    }

    /// The small job with a detector of another setting.
    pub(super) fn with_quiet(&self, quiet: u32) -> Self {
        let job = Self::planned(|plan, rows| {
            let last = detect(plan, rows, &["k"], Ewma::default().quiet(quiet));
            plan.add_output(last, None);
        });
        Self { source: self.source.clone(), ..job }
    }

    /// A detector and one or two aggregations in windows, over random rows.
    pub(super) fn random(random: &mut Rng) -> Self {
        let job = Self::planned(|plan, rows| {
            if random.u8(..3) > 0 {
                let ewma = Ewma::default().warmup(2).unwrap();
                let scored = detect(plan, rows, some_keys(random, &["k"]), ewma);
                plan.add_output(scored, None);
            }
            for _ in 0..random.usize(1..3) {
                let calls: Vec<&str> =
                    (0..random.usize(1..5)).map(|_| random.choice(AGGREGATES).unwrap()).collect();
                // Of one pane a window, of some, and of so many that parts of windows are kept.
                let shape = random.choice([[1_000, 1_000], [1_000, 300], [900, 300], [2_000, 20]]).unwrap();
                let emit = random.choice([Emit::Final, Emit::Updates]).unwrap();
                let counted = windows(plan, rows, some_keys(random, &[]), &calls, shape, emit);
                plan.add_output(counted, None);
            }
        });
        job.fill(random, 400);
        Self { shards: random.choice([8, 8, 1, 5]).unwrap(), ..job }
    }

    /// Rows whose times wander up and down while they rise, of few keys at a time.
    fn fill(&self, random: &mut Rng, rows: i64) {
        let few = random.bool();
        for n in 0..rows {
            let key = if few { n / 60 + random.i64(0..2) } else { random.i64(0..12) };
            let ts = n * 10 + random.i64(-200..200);
            let values = [
                ("k", format!("\"k{key}\"")),
                ("site", (key % 3).to_string()),
                ("v", random.f64().to_string()),
                ("n", random.i64(-3..9).to_string()),
                ("s", format!("\"text {}\"", random.u8(..20))),
                ("l", format!("[{},null]", random.u8(..9))),
            ];
            let mut payload = format!("{{\"ts\":{ts}");
            for (name, value) in values {
                write!(payload, ",\"{name}\":{}", or_null(random, value)).unwrap();
            }
            payload.push('}');
            self.source.push(random.i32(0..PARTITIONS), None, Some(payload.as_bytes()), 0);
        }
    }

    pub(super) fn engine(&self, executors: usize) -> LocalEngine {
        self.engine_of(executors, 2)
    }

    pub(super) fn engine_of(&self, executors: usize, threads: usize) -> LocalEngine {
        let settings = LocalSettings {
            executors,
            threads: Some(threads),
            shards: self.shards,
            ..LocalSettings::default()
        };
        let source = Arc::new(self.source.clone()) as Arc<dyn Source>;
        LocalEngine::start(&self.plan.check().unwrap(), &[source], settings).unwrap()
    }

    /// Each partition cut at every `step` offsets; the watermark follows the offsets.
    pub(super) fn tasks(&self, step: i64) -> Vec<MapTask> {
        let heads = self.source.heads().unwrap();
        let end = heads.iter().map(|head| head.stable.0).max().unwrap();
        let range = |at: &TopicPartition, stable: Offset, from: i64| {
            let clamp = |offset: i64| Offset(offset.min(stable.0));
            OffsetRange::new(at.clone(), clamp(from), clamp(from + step))
        };
        let task = |(batch, from): (u64, i64)| MapTask {
            batch: BatchId(batch),
            time: BatchTime(START + from),
            ranges: vec![(
                SourceId(0),
                heads.iter().map(|head| range(&head.at, head.stable, from)).collect(),
            )],
            watermark: watermark(from),
        };
        (0_u64..).zip((0..end).step_by(usize::try_from(step).unwrap())).map(task).collect()
    }

    /// W(n) of the task at `place`; the last one closes all windows.
    pub(super) fn closing(tasks: &[MapTask], place: usize) -> Option<EventTime> {
        tasks.get(place + 1).map_or(Some(EventTime::END), |next| next.watermark)
    }

    pub(super) fn step(engine: &LocalEngine, task: &MapTask, closing: Option<EventTime>) -> Reduced {
        engine.reduce(task, engine.map(task).unwrap(), closing).unwrap()
    }

    /// Adds rows of a key and a value, in the first partition.
    pub(super) fn push(&self, rows: &[(&str, f64)]) {
        for (key, value) in rows {
            self.source.push(0, None, Some(format!(r#"{{"k":"{key}","ts":0,"v":{value}}}"#).as_bytes()), 0);
        }
    }

    /// Adds rows of a key and a time.
    pub(super) fn push_at(&self, rows: &[(&str, i64)]) {
        for (key, ts) in rows {
            self.source.push(0, None, Some(format!(r#"{{"k":"{key}","ts":{ts},"v":1}}"#).as_bytes()), 0);
        }
    }

    /// Runs what has been added as the next batch.
    pub(super) fn run_next(&self, engine: &LocalEngine) -> Reduced {
        self.run_to(engine, self.watermark.get())
    }

    /// The same, after which no row before `millis` is expected.
    pub(super) fn run_next_until(&self, engine: &LocalEngine, millis: i64) -> Reduced {
        self.run_to(engine, Some(EventTime(millis * 1_000)))
    }

    fn run_to(&self, engine: &LocalEngine, closing: Option<EventTime>) -> Reduced {
        let task = self.next_task(closing);
        Self::step(engine, &task, closing)
    }

    /// What has been added, as the next batch.
    pub(super) fn next_task(&self, closing: Option<EventTime>) -> MapTask {
        let at = TopicPartition::new("readings", 0);
        let end = self.source.heads().unwrap()[0].stable;
        let range = OffsetRange::new(at, Offset(self.read.replace(end.0)), end);
        let batch = self.next.replace(self.next.get() + 1);
        MapTask {
            batch: BatchId(batch),
            time: BatchTime(START + i64::try_from(batch).unwrap()),
            ranges: vec![(SourceId(0), vec![range])],
            watermark: self.watermark.replace(closing),
        }
    }
}

fn or_null(random: &mut Rng, value: String) -> String {
    if random.u8(..9) == 0 { "null".to_owned() } else { value }
}

fn some_keys(random: &mut Rng, least: &'static [&'static str]) -> &'static [&'static str] {
    let all: [&[&str]; 4] = [least, &["k"], &["k", "site"], &["site"]];
    random.choice(all).unwrap()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) fn detect(plan: &mut Plan, rows: NodeId, keys: &[&str], ewma: Ewma) -> NodeId {
    let keyed = plan.add(Operator::KeyBy(owned(keys)), vec![rows], None);
    let spec = DetectSpec {
        columns: owned(&["v"]),
        detector: Arc::new(ewma),
        threshold: None,
        prefix: String::new(),
    };
    plan.add(Operator::Detect(spec), vec![keyed], None)
}

pub(super) fn windows(
    plan: &mut Plan,
    rows: NodeId,
    keys: &[&str],
    calls: &[&str],
    shape: [u64; 2],
    emit: Emit,
) -> NodeId {
    let column = |(number, text): (usize, &&str)| Named {
        name: format!("a{number}"),
        expression: Expression::sql(text),
    };
    let [length, slide] = shape.map(Duration::from_millis);
    let window = WindowSpec {
        shape: WindowShape { length, slide, offset: Duration::ZERO },
        on: "ts".to_owned(),
        emit,
    };
    let columns = calls.iter().enumerate().map(column).collect();
    let spec = AggregateSpec { keys: owned(keys), columns, window: Some(window) };
    plan.add(Operator::Aggregate(spec), vec![rows], None)
}

/// What has surely come once each partition has been read up to `offset`, give or take some late rows.
fn watermark(offset: i64) -> Option<EventTime> {
    (offset > 0).then(|| EventTime((offset * 30 - 300) * 1_000))
}

/// The rows of a batch as text, floats by their bits: equal texts, equal bits.
pub(super) fn text(result: &Reduced) -> String {
    let mut text = String::new();
    for (output, batches) in &result.outputs {
        for rows in batches {
            for row in 0..rows.num_rows() {
                writeln!(text, "{} {}", output.0, line(rows, row)).unwrap();
            }
        }
    }
    text
}

fn line(rows: &RecordBatch, row: usize) -> String {
    let cell = |column: &ArrayRef| match column.as_primitive_opt::<Float64Type>() {
        Some(floats) if floats.is_valid(row) => floats.value(row).to_bits().to_string(),
        _ => array_value_to_string(column, row).unwrap(),
    };
    rows.columns().iter().map(cell).collect::<Vec<_>>().join("|")
}
