//! Aggregates and windows executed over a scripted source: settings, batch boundaries and moved state do not show.
//!
//! What the results are is held to a plain model by the Python suite; here it is that nothing changes them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use tidemill::decode::{EventTimeSpec, Format, OnBad};
use tidemill::error::ErrorKind;
use tidemill::exec::local::{LocalEngine, LocalSettings};
use tidemill::exec::{Engine, MapTask, Reduced};
use tidemill::expr::Expression;
use tidemill::ingest::Source;
use tidemill::ingest::scripted::ScriptedSource;
use tidemill::offset::{Offset, OffsetRange, TopicPartition};
use tidemill::plan::{AggregateSpec, Emit, Named, Operator, Plan, SourceId, SourceSpec, WindowSpec};
use tidemill::state::window::WindowShape;
use tidemill::time::{BatchId, BatchTime, EventTime};

const PARTITIONS: i32 = 4;
/// Every job is run on each of these: (executors, threads).
const SETTINGS: [(usize, usize); 4] = [(1, 1), (1, 8), (3, 3), (2, 1)];

fn spec() -> SourceSpec {
    let ts = DataType::Timestamp(TimeUnit::Millisecond, None);
    let fields = vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("ts", ts, true),
        Field::new("v", DataType::Float64, true),
    ];
    SourceSpec {
        name: "readings".to_owned(),
        format: Format::Json(Arc::new(Schema::new(fields))),
        metadata: Vec::new(),
        on_bad: OnBad::Fail,
        event_time: Some(EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_hours(1) }),
    }
}

const AGGREGATES: [&str; 16] = [
    "count(*)",
    "count(v)",
    "sum(v)",
    "avg(v) + max(v)",
    "min(k)",
    "var(v)",
    "stddev(v)",
    "first(v)",
    "last(v)",
    "approx_quantile(v, 0.9)",
    "approx_distinct(v)",
    "top_k(v, 3)",
    "collect(v)",
    "median(v)",
    "corr(v, v * v)",
    "count(distinct k)",
];
const FILTERED: [&str; 3] = [
    "sum(v) FILTER (WHERE v > 0.5)",
    "last(v) FILTER (WHERE v > 0.5)",
    "approx_quantile(v, 0.5) FILTER (WHERE k <> 'k1')",
];

/// Columns made of these expressions.
fn columns<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Vec<Named> {
    let column = |(number, text): (usize, S)| Named {
        name: format!("a{number}"),
        expression: Expression::sql(text.as_ref()),
    };
    texts.into_iter().enumerate().map(column).collect()
}

fn window(length: u64, slide: u64, emit: Emit) -> WindowSpec {
    let [length, slide] = [length, slide].map(Duration::from_millis);
    WindowSpec { shape: WindowShape { length, slide, offset: Duration::ZERO }, on: "ts".to_owned(), emit }
}

/// A plan of two sources that believe times so far ahead of their batches, with one window over both.
fn over_two_sources(max_future: [Duration; 2]) -> Plan {
    let mut plan = Plan::default();
    let sources = max_future.map(|max_future| {
        let event_time = Some(EventTimeSpec { column: "ts".to_owned(), max_future });
        let id = plan.add_source(SourceSpec { event_time, ..spec() });
        plan.add(Operator::Source(id), vec![], None)
    });
    let both = plan.add(Operator::Union, sources.to_vec(), None);
    let columns = columns(["count(*)"]);
    let window = Some(window(1_000, 1_000, Emit::Final));
    let counted = AggregateSpec { keys: vec!["k".to_owned()], columns, window };
    let counted = plan.add(Operator::Aggregate(counted), vec![both], None);
    plan.add_output(counted, None);
    plan
}

/// Whose a row is shows nowhere behind a union: one that only its own source believes would move the watermark and come
/// to no window.
#[test]
fn windows_over_sources_that_believe_different_times_are_refused() {
    let (hour, day) = (Duration::from_hours(1), Duration::from_hours(24));
    over_two_sources([hour, hour]).check().unwrap();
    for max_future in [[hour, day], [day, hour]] {
        let error = over_two_sources(max_future).check().unwrap_err();
        assert!(error.is_config(), "{error:?}");
        for part in ["window(on=\"ts\") needs one max_future", "3600s", "86400s", "give the sources the same"]
        {
            assert!(error.to_string().contains(part), "{part} is not in {error}");
        }
    }
}

/// A job of one source whose rows are aggregated by `keys`.
struct Job {
    plan: Plan,
    source: ScriptedSource,
}

impl Job {
    fn new(keys: &[&str], window: Option<WindowSpec>) -> Self {
        Self::of(columns(AGGREGATES.iter().chain(&FILTERED)), None, keys, window)
    }

    /// A job whose rows must fulfil a condition first, where there is one.
    fn of(columns: Vec<Named>, condition: Option<&str>, keys: &[&str], window: Option<WindowSpec>) -> Self {
        let mut plan = Plan::default();
        let id = plan.add_source(spec());
        let mut last = plan.add(Operator::Source(id), vec![], None);
        if let Some(condition) = condition {
            last = plan.add(Operator::Filter(Expression::sql(condition)), vec![last], None);
        }
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let aggregated =
            plan.add(Operator::Aggregate(AggregateSpec { keys, columns, window }), vec![last], None);
        plan.add_output(aggregated, None);
        Self { plan, source: ScriptedSource::with_partitions("readings", PARTITIONS) }
    }

    /// Rows whose times wander up and down while they rise.
    fn fill(&self, rows: i64) {
        let mut random = fastrand::Rng::with_seed(7);
        for n in 0..rows {
            let (key, ts) = (random.u8(0..9), n * 10 + random.i64(-200..200));
            let key = if key == 8 { "null".to_owned() } else { format!("\"k{key}\"") };
            let value = if random.u8(0..10) == 0 { "null".to_owned() } else { random.f64().to_string() };
            let payload = format!(r#"{{"k":{key},"ts":{ts},"v":{value}}}"#);
            self.source.push(random.i32(0..PARTITIONS), None, Some(payload.as_bytes()), 0);
        }
    }

    fn engine(&self, executors: usize, threads: usize) -> LocalEngine {
        let settings = LocalSettings { executors, threads: Some(threads), ..LocalSettings::default() };
        let source = Arc::new(self.source.clone()) as Arc<dyn Source>;
        LocalEngine::start(&self.plan.check().unwrap(), &[source], settings).unwrap()
    }

    /// Each partition cut at every `step` offsets; the watermark follows the offsets.
    fn tasks(&self, step: i64) -> Vec<MapTask> {
        let heads = self.source.heads().unwrap();
        let end = heads.iter().map(|head| head.stable.0).max().unwrap();
        let range = |at: &TopicPartition, stable: Offset, from: i64| {
            let clamp = |offset: i64| Offset(offset.min(stable.0));
            OffsetRange::new(at.clone(), clamp(from), clamp(from + step))
        };
        (0_u64..)
            .zip((0..end).step_by(usize::try_from(step).unwrap()))
            .map(|(batch, from)| MapTask {
                batch: BatchId(batch),
                time: BatchTime(1_700_000_000_000 + from),
                ranges: vec![(
                    SourceId(0),
                    heads.iter().map(|head| range(&head.at, head.stable, from)).collect(),
                )],
                watermark: watermark(from),
            })
            .collect()
    }
}

/// What has surely come once each partition has been read up to `offset`, give or take some late rows.
fn watermark(offset: i64) -> Option<EventTime> {
    (offset > 0).then(|| EventTime((offset * 40 - 300) * 1_000))
}

/// Maps and reduces every task; the last one closes all windows.
fn run(engine: &LocalEngine, tasks: &[MapTask]) -> Vec<Reduced> {
    let closing = |place: usize| tasks.get(place + 1).map_or(Some(EventTime::END), |next| next.watermark);
    let one = |(place, task): (usize, &MapTask)| {
        let mapped = engine.map(task).unwrap();
        engine.reduce(task, mapped, closing(place)).unwrap()
    };
    tasks.iter().enumerate().map(one).collect()
}

/// The rows of every batch as text, floats by their bits: equal texts, equal bits.
fn text(results: &[Reduced]) -> String {
    let mut text = String::new();
    for (batch, result) in results.iter().enumerate() {
        for rows in result.outputs.iter().flat_map(|(_, rows)| rows) {
            for row in 0..rows.num_rows() {
                writeln!(text, "{batch} {}", line(rows, row)).unwrap();
            }
        }
    }
    text
}

fn line(rows: &RecordBatch, row: usize) -> String {
    let cell = |column: &arrow::array::ArrayRef| match column.as_primitive_opt::<Float64Type>() {
        Some(floats) if floats.is_valid(row) => floats.value(row).to_bits().to_string(),
        _ => array_value_to_string(column, row).unwrap(),
    };
    rows.columns().iter().map(cell).collect::<Vec<_>>().join("|")
}

#[test]
fn windows_and_groups_are_the_same_bits_with_any_threads_and_executors() {
    for (keys, window) in [
        (vec!["k"], Some(window(1_000, 1_000, Emit::Final))),
        (vec!["k"], Some(window(1_000, 300, Emit::Updates))),
        (vec!["k"], Some(window(2_000, 20, Emit::Final))),
        (vec!["k"], Some(window(2_000, 20, Emit::Updates))),
        (vec![], Some(window(900, 300, Emit::Final))),
        (vec!["k", "v"], None),
        (vec![], None),
    ] {
        let job = Job::new(&keys, window);
        job.fill(1_000);
        let results =
            SETTINGS.map(|(executors, threads)| text(&run(&job.engine(executors, threads), &job.tasks(40))));
        assert!(results[0].lines().count() > 5, "{}", results[0]);
        assert!(results.iter().all(|result| *result == results[0]), "{keys:?}");
    }
}

#[test]
fn a_condition_behind_each_aggregate_gives_what_a_filter_before_all_gives() {
    const CONDITION: &str = "v > 0.3 AND k <> 'k1'";
    for window in [Some(window(1_000, 1_000, Emit::Final)), Some(window(1_000, 300, Emit::Final)), None] {
        let calls = || AGGREGATES.iter().filter(|text| !text.contains('+'));
        let behind = columns(calls().map(|text| format!("{text} FILTER (WHERE {CONDITION})")));
        let behind = Job::of(behind, None, &[], window.clone());
        let before = Job::of(columns(calls()), Some(CONDITION), &[], window);
        let found = [behind, before].map(|job| {
            job.fill(1_000);
            text(&run(&job.engine(2, 2), &job.tasks(40)))
        });
        assert!(found[0].lines().count() > 5, "{}", found[0]);
        assert_eq!(found[0], found[1]);
    }
}

#[test]
fn panes_moved_out_and_in_again_go_on_with_the_same_bits() {
    // Few panes a window, and so many that parts of windows are kept from batch to batch. Rows that come to panes of which
    // parts were made have these made again for their keys: the parts that are made after the move hold them from the start.
    for slide in [500, 20] {
        moved_out_and_in_again(&Job::new(&["k"], Some(window(2_000, slide, Emit::Final))));
    }
}

fn moved_out_and_in_again(job: &Job) {
    job.fill(1_000);
    let tasks = job.tasks(20);
    let whole = job.engine(1, 1);
    let (before, after) = tasks.split_at(5);
    for (task, next) in before.iter().zip(&tasks[1..]) {
        whole.reduce(task, whole.map(task).unwrap(), next.watermark).unwrap();
    }
    let moved = job.engine(3, 3);
    moved.restore(&whole.snapshot().unwrap()).unwrap();
    assert_eq!(whole.snapshot().unwrap(), moved.snapshot().unwrap());
    let (expected, found) = (run(&whole, after), run(&moved, after));
    assert!(text(&expected).lines().count() > 50);
    assert_eq!(text(&expected), text(&found));
}

/// A key that comes in each of these batches, and one that comes for some earlier pane of the window about to end.
fn fill_with_stragglers(job: &Job, batches: i64) {
    for n in 0..batches {
        let straggler = (n * 20 - (n * 331) % 1_900).max(0);
        for (key, ts, v) in
            [("steady".to_owned(), n * 20, 0.1), (format!("straggler{}", n % 7), straggler, 0.3)]
        {
            let payload = format!(r#"{{"k":"{key}","ts":{ts},"v":{v}}}"#);
            job.source.push(0, None, Some(payload.as_bytes()), 0);
        }
    }
}

#[test]
fn rows_behind_the_watermark_come_to_the_parts_of_the_windows_that_are_open() {
    const BATCHES: i64 = 250;
    const COLUMNS: [&str; 6] = ["count(*)", "sum(v)", "var(v)", "first(v)", "last(v)", "top_k(v, 3)"];
    let job = Job::of(columns(COLUMNS), None, &["k"], Some(window(2_000, 20, Emit::Final)));
    fill_with_stragglers(&job, BATCHES);
    let at = TopicPartition::new("readings", 0);
    let watermark = |n: i64| (n >= 0).then(|| EventTime(n * 20 * 1_000));
    let (kept, fresh) = (job.engine(1, 1), job.engine(1, 1));
    for n in 0..BATCHES {
        let task = MapTask {
            batch: BatchId(n.unsigned_abs()),
            time: BatchTime(1_700_000_000_000 + n),
            ranges: vec![(SourceId(0), vec![OffsetRange::new(at.clone(), Offset(2 * n), Offset(2 * n + 2))])],
            watermark: watermark(n - 1),
        };
        // What was restored makes all parts anew, from the same panes.
        fresh.restore(&kept.snapshot().unwrap()).unwrap();
        let results = [&kept, &fresh].map(|engine| {
            let mapped = engine.map(&task).unwrap();
            text(&[engine.reduce(&task, mapped, watermark(n)).unwrap()])
        });
        assert_eq!(results[0], results[1], "batch {n}");
    }
}

#[test]
fn closed_panes_leave_nothing_behind() {
    let job = Job::new(&["k"], Some(window(1_000, 500, Emit::Final)));
    job.fill(500);
    let results = run(&job.engine(1, 2), &job.tasks(25));
    let open: Vec<u64> = results.iter().map(|result| result.state.windows).collect();
    assert!(open[..open.len() - 1].iter().all(|open| *open > 0), "{open:?}");
    let last = results.last().unwrap().state;
    assert_eq!((last.entries, last.bytes, last.windows), (0, 0, 0));
}

#[test]
fn late_rows_are_counted_once_for_each_aggregation() {
    let job = Job::new(&["k"], Some(window(100, 100, Emit::Final)));
    job.fill(1_000);
    let tasks = job.tasks(25);
    let engine = job.engine(1, 1);
    let late: u64 = tasks.iter().map(|task| engine.map(task).unwrap().counts.late).sum();
    assert!(late > 0);
    let three = job.engine(3, 8);
    assert_eq!(late, tasks.iter().map(|task| three.map(task).unwrap().counts.late).sum::<u64>());
}

#[test]
fn state_beyond_its_limit_is_an_error_that_says_how_much_there_is() {
    let job = Job::new(&["k"], Some(window(1_000, 1_000, Emit::Final)));
    job.fill(100);
    let settings = LocalSettings { max_state: 1_000, ..LocalSettings::default() };
    let source = Arc::new(job.source.clone()) as Arc<dyn Source>;
    let engine = LocalEngine::start(&job.plan.check().unwrap(), &[source], settings).unwrap();
    let task = &job.tasks(100)[0];
    let error = engine.reduce(task, engine.map(task).unwrap(), None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    let text = error.to_string();
    assert!(text.contains("18 states in "), "{text}");
    assert!(
        text.contains(" bytes), more than max_state_bytes allows: 1,000 bytes; use fewer keys"),
        "{text}"
    );
}

#[test]
fn a_damaged_snapshot_of_panes_is_refused() {
    let job = Job::new(&["k"], Some(window(1_000, 1_000, Emit::Final)));
    job.fill(100);
    let engine = job.engine(1, 1);
    let task = &job.tasks(100)[0];
    engine.reduce(task, engine.map(task).unwrap(), None).unwrap();
    let mut states = engine.snapshot().unwrap();
    for (_, parts) in &mut states {
        let pane = parts[0].schema().index_of("pane").unwrap();
        parts[0].remove_column(pane);
    }
    let error = engine.restore(&states).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
}

#[test]
fn states_of_other_aggregates_or_of_another_version_are_refused() {
    let states = |texts: &[&str]| {
        let job = Job::of(columns(texts), None, &["k"], Some(window(1_000, 1_000, Emit::Final)));
        job.fill(100);
        let engine = job.engine(1, 1);
        let task = &job.tasks(100)[0];
        engine.reduce(task, engine.map(task).unwrap(), None).unwrap();
        let states = engine.snapshot().unwrap();
        (engine, states)
    };
    let (counts, own) = states(&["count(*)"]);
    counts.restore(&own).unwrap();
    let (_, others) = states(&["sum(v)"]);
    let error = counts.restore(&others).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(error.to_string().contains("states of 0.count int64"), "{error}");
    assert!(error.to_string().contains("found 0.sum float64"), "{error}");
    let aged = own.into_iter().map(|(shard, parts)| (shard, parts.iter().map(aged).collect())).collect();
    let error = counts.restore(&aged).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(error.to_string().contains("tidemill.aggregate_state 1 were expected"), "{error}");
    assert!(error.to_string().contains("tidemill.aggregate_state 0"), "{error}");
}

/// The same states, as of a version before the first.
fn aged(states: &RecordBatch) -> RecordBatch {
    let mut metadata = states.schema().metadata().clone();
    metadata.insert("tidemill.aggregate_state".to_owned(), "0".to_owned());
    let schema = Schema::new_with_metadata(states.schema().fields().clone(), metadata);
    RecordBatch::try_new(Arc::new(schema), states.columns().to_vec()).unwrap()
}

#[test]
fn what_windows_are_put_together_from_is_refused_before_it_is_there() {
    let job = Job::of(columns(["count(*)", "var(v)"]), None, &["k"], Some(window(2_000, 20, Emit::Final)));
    job.fill(1_000);
    let tasks = job.tasks(1_000);
    let run = |max_state: u64| {
        let settings = LocalSettings { max_state, threads: Some(1), ..LocalSettings::default() };
        let source = Arc::new(job.source.clone()) as Arc<dyn Source>;
        let engine = LocalEngine::start(&job.plan.check().unwrap(), &[source], settings).unwrap();
        let mapped = engine.map(&tasks[0]).unwrap();
        engine.reduce(&tasks[0], mapped, Some(EventTime(3_000_000))).map(|reduced| reduced.state.bytes)
    };
    let enough = run(1 << 30).unwrap();
    let error = run(enough - enough / 4).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    assert!(error.to_string().contains("to put windows together from their panes"), "{error}");
}
