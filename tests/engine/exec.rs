//! Plans executed over a scripted source, on one executor and on several, with one thread and with many.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use tidemill::decode::{Format, Metadata, OnBad};
use tidemill::detect::DetectSpec;
use tidemill::detect::ewma::Ewma;
use tidemill::error::{Error, ErrorKind, Result};
use tidemill::exec::local::{LocalEngine, LocalSettings};
use tidemill::exec::{Engine, MapTask, Reduced};
use tidemill::expr::Expression;
use tidemill::ingest::Source;
use tidemill::ingest::scripted::ScriptedSource;
use tidemill::kafka::Cluster;
use tidemill::offset::{Offset, OffsetRange};
use tidemill::plan::{
    AggregateSpec, BatchFunction, BatchInfo, CallSite, Demand, FunctionSchema, Named, NodeId, Operator, Plan,
    SourceId, SourceSpec,
};
use tidemill::sink::encode::{HeaderSpec, KeySpec, OutputFormat};
use tidemill::sink::kafka::KafkaSinkSettings;
use tidemill::time::{BatchId, BatchTime};

/// Every operator is run on each of these: (executors, threads).
pub(crate) const SETTINGS: [(usize, usize); 4] = [(1, 1), (1, 4), (3, 3), (3, 8)];

/// A plan over sources whose records are `{"device", "site", "temp", "n"}`.
pub(crate) struct Job {
    pub(crate) plan: Plan,
    pub(crate) sources: Vec<ScriptedSource>,
}

impl Job {
    pub(crate) fn new(sources: usize) -> Self {
        let mut plan = Plan::default();
        let names: Vec<String> = (0..sources).map(|i| format!("readings-{i}")).collect();
        for name in &names {
            plan.add_source(spec(name));
        }
        let sources = names.iter().map(|name| ScriptedSource::with_partitions(name, 4)).collect();
        Self { plan, sources }
    }

    pub(crate) fn source(&mut self, source: usize) -> NodeId {
        self.add(Operator::Source(SourceId(source)), &[])
    }

    pub(crate) fn add(&mut self, operator: Operator, inputs: &[NodeId]) -> NodeId {
        let line = u32::try_from(self.plan.nodes.len() + 1).unwrap();
        self.plan.add(operator, inputs.to_vec(), Some(CallSite { file: "job.py".to_owned(), line }))
    }

    pub(crate) fn output(&mut self, input: NodeId) {
        self.plan.add_output(input, None);
    }

    pub(crate) fn engine(&self, executors: usize, threads: usize) -> LocalEngine {
        let settings = LocalSettings { executors, threads: Some(threads), ..LocalSettings::default() };
        self.engine_with(settings).unwrap()
    }

    fn engine_with(&self, settings: LocalSettings) -> Result<LocalEngine> {
        let sources: Vec<Arc<dyn Source>> =
            self.sources.iter().map(|source| Arc::new(source.clone()) as Arc<dyn Source>).collect();
        LocalEngine::start(&self.plan.check()?, &sources, settings)
    }

    /// Puts `rows` records into the partitions of each source, in turn.
    pub(crate) fn fill(&self, rows: i64) {
        for source in &self.sources {
            for n in 0..rows {
                let payload = format!(
                    r#"{{"device":"d{}","site":"s{}","temp":{}.5,"n":{n}}}"#,
                    n % 7,
                    n % 3,
                    (n * 31) % 97
                );
                source.push(i32::try_from(n % 4).unwrap(), None, Some(payload.as_bytes()), 0);
            }
        }
    }

    /// All records of each partition, cut into batches at every `step` offsets.
    pub(crate) fn tasks(&self, step: i64) -> Vec<MapTask> {
        let heads: Vec<Vec<_>> = self.sources.iter().map(|source| source.heads().unwrap()).collect();
        let end = heads.iter().flatten().map(|head| head.stable.0).max().unwrap();
        let cut = |from: i64| {
            let range = |head: &tidemill::ingest::Head| {
                let clamp = |offset: i64| Offset(offset.min(head.stable.0));
                OffsetRange::new(head.at.clone(), clamp(from), clamp(from + step))
            };
            heads
                .iter()
                .enumerate()
                .map(|(i, heads)| (SourceId(i), heads.iter().map(range).collect()))
                .collect()
        };
        (0_u64..)
            .zip((0..end).step_by(usize::try_from(step).unwrap()))
            .map(|(n, from)| MapTask {
                batch: BatchId(n),
                time: BatchTime(1_700_000_000_000 + i64::try_from(n).unwrap()),
                ranges: cut(from),
                watermark: None,
            })
            .collect()
    }
}

fn spec(name: &str) -> SourceSpec {
    let fields = vec![
        Field::new("device", DataType::Utf8, true),
        Field::new("site", DataType::Utf8, true),
        Field::new("temp", DataType::Float64, true),
        Field::new("n", DataType::Int64, true),
    ];
    SourceSpec {
        name: name.to_owned(),
        format: Format::Json(Arc::new(Schema::new(fields))),
        metadata: vec![Metadata::Partition],
        on_bad: OnBad::Fail,
        event_time: None,
    }
}

pub(crate) fn run(engine: &LocalEngine, tasks: &[MapTask]) -> Result<Vec<Reduced>> {
    tasks.iter().map(|task| engine.map(task).and_then(|mapped| engine.reduce(task, mapped, None))).collect()
}

/// The rows of every output as text, one line a row: equal texts, equal bits.
pub(crate) fn text(results: &[Reduced]) -> String {
    let mut text = String::new();
    for (batch, result) in results.iter().enumerate() {
        for (output, rows) in &result.outputs {
            for line in rows.iter().flat_map(lines) {
                writeln!(text, "{batch} {} {line}", output.0).unwrap();
            }
        }
    }
    text
}

pub(crate) fn lines(rows: &RecordBatch) -> Vec<String> {
    let cell = |row: usize| {
        move |column: &Arc<dyn Array>| match column.data_type() {
            DataType::Float64 if column.is_valid(row) => {
                column.as_primitive::<Float64Type>().value(row).to_bits().to_string()
            }
            _ => array_value_to_string(column, row).unwrap(),
        }
    };
    (0..rows.num_rows())
        .map(|row| rows.columns().iter().map(cell(row)).collect::<Vec<_>>().join("|"))
        .collect()
}

/// Runs the job with every setting and checks that each gives the same bits; they are returned.
pub(crate) fn same_everywhere(job: &Job, step: i64) -> String {
    let tasks = job.tasks(step);
    let texts =
        SETTINGS.map(|(executors, threads)| text(&run(&job.engine(executors, threads), &tasks).unwrap()));
    for other in &texts {
        assert_eq!(&texts[0], other);
    }
    texts[0].clone()
}

pub(crate) fn col(name: &str) -> Expression {
    Expression::col(name)
}

pub(crate) fn named(name: &str, expression: Expression) -> Named {
    Named { name: name.to_owned(), expression }
}

pub(crate) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn detect(column: &str, prefix: &str) -> Operator {
    let ewma = Ewma::default().warmup(3).unwrap();
    Operator::Detect(DetectSpec {
        columns: strings(&[column]),
        detector: Arc::new(ewma),
        threshold: None,
        prefix: prefix.to_owned(),
    })
}

#[test]
fn stateless_operators_give_what_they_say() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let hot = job.add(Operator::Filter(col("temp").gt(Expression::lit(50.0))), &[source]);
    let even = job.add(Operator::Filter(Expression::sql("n % 2 = 0")), &[hot]);
    let more =
        job.add(Operator::WithColumns(vec![named("n", col("n") + Expression::lit(1_000_i64))]), &[even]);
    let renamed = job.add(Operator::Rename(vec![("device".to_owned(), "id".to_owned())]), &[more]);
    let fewer = job.add(Operator::Drop(strings(&["site"])), &[renamed]);
    let selected = job.add(
        Operator::Select(vec![named("id", col("id")), named("n", col("n")), named("t", col("temp"))]),
        &[fewer],
    );
    job.output(selected);
    job.fill(200);
    let expected: Vec<String> = (0..4)
        .flat_map(|partition| (0..200_i64).filter(move |n| n % 4 == partition))
        .map(|n| (n, ((n * 31) % 97) as f64 + 0.5))
        .filter(|(n, temp)| *temp > 50.0 && n % 2 == 0)
        .map(|(n, temp)| format!("0 0 d{}|{}|{}", n % 7, n + 1_000, temp.to_bits()))
        .collect();
    assert_eq!(same_everywhere(&job, 1_000).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn batches_of_any_size_bring_the_same_rows() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let keyed = job.add(Operator::KeyBy(strings(&["device"])), &[source]);
    let scored = job.add(detect("temp", ""), &[keyed]);
    job.output(scored);
    job.fill(400);
    let rows = |step: i64| {
        let mut rows: Vec<String> = text(&run(&job.engine(1, 2), &job.tasks(step)).unwrap())
            .lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect();
        rows.sort();
        rows
    };
    // Each key lives in several partitions here, so the order between them, and with it the score, follows the
    // batches; what arrives is the same rows.
    let columns = |rows: Vec<String>| -> Vec<String> {
        let mut rows: Vec<String> =
            rows.iter().map(|row| row.split('|').take(5).collect::<Vec<_>>().join("|")).collect();
        rows.sort();
        rows
    };
    assert_eq!(columns(rows(1_000)), columns(rows(7)));
}

#[test]
fn the_rows_of_a_union_come_in_the_order_of_sources() {
    let mut job = Job::new(2);
    let (first, second) = (job.source(0), job.source(1));
    let narrow = |n: NodeId, job: &mut Job, columns: [&str; 2]| {
        let columns = columns.iter().map(|name| named(name, col(name))).collect();
        job.add(Operator::Select(columns), &[n])
    };
    let first = narrow(first, &mut job, ["n", "device"]);
    let second = narrow(second, &mut job, ["device", "n"]);
    let both = job.add(Operator::Union, &[second, first]);
    job.output(both);
    job.fill(8);
    let rows = same_everywhere(&job, 100);
    let devices: Vec<&str> = rows.lines().map(|line| line.split([' ', '|']).nth(2).unwrap()).collect();
    let once = ["d0", "d4", "d1", "d5", "d2", "d6", "d3", "d0"];
    assert_eq!(devices, [once, once].concat());
}

/// A function that records what it is given.
#[derive(Debug)]
struct Recorder {
    calls: Mutex<Vec<(Option<i32>, usize)>>, // executors call from their own threads
    adds: Option<SchemaRef>,
}

impl Recorder {
    fn new(adds: Option<SchemaRef>) -> Arc<Self> {
        Arc::new(Self { calls: Mutex::default(), adds })
    }
}

impl BatchFunction for Recorder {
    fn call(&self, rows: RecordBatch, info: &BatchInfo) -> Result<RecordBatch> {
        self.calls.lock().unwrap().push((info.partition.map(|p| p.0), rows.num_rows()));
        let Some(adds) = &self.adds else { return Ok(rows) };
        let doubled: Float64Array = rows.column(0).as_primitive::<Float64Type>().unary(|value| value * 2.0);
        Ok(RecordBatch::try_new(Arc::clone(adds), vec![Arc::new(doubled)])?)
    }
}

pub(crate) fn map_batches(
    function: Arc<dyn BatchFunction>,
    schema: FunctionSchema,
    reads: Option<&[&str]>,
) -> Operator {
    Operator::MapBatches { function, schema, reads: reads.map(strings), label: "map_batches".to_owned() }
}

#[test]
fn a_function_is_called_once_a_partition_with_all_its_rows() {
    let recorder = Recorder::new(None);
    let mut job = Job::new(1);
    let source = job.source(0);
    let mapped = job.add(map_batches(recorder.clone(), FunctionSchema::Same, None), &[source]);
    job.output(mapped);
    job.fill(100_000); // more than one chunk a partition
    run(&job.engine(1, 2), &job.tasks(1 << 30)).unwrap();
    let mut calls = recorder.calls.lock().unwrap().clone();
    calls.sort_unstable();
    assert_eq!(calls, [(Some(0), 25_000), (Some(1), 25_000), (Some(2), 25_000), (Some(3), 25_000)]);
}

#[test]
fn a_function_that_adds_columns_keeps_the_stream_keyed() {
    let adds = Arc::new(Schema::new(vec![Field::new("double", DataType::Float64, true)]));
    let recorder = Recorder::new(Some(Arc::clone(&adds)));
    let mut job = Job::new(1);
    let source = job.source(0);
    let keyed = job.add(Operator::KeyBy(strings(&["device"])), &[source]);
    let doubled = job.add(map_batches(recorder, FunctionSchema::Adds(adds), Some(&["temp"])), &[keyed]);
    let scored = job.add(detect("double", ""), &[doubled]);
    job.output(scored);
    job.fill(300);
    let rows = same_everywhere(&job, 20);
    assert_eq!(rows.lines().count(), 300);
    for line in rows.lines() {
        let cells: Vec<&str> = line.split('|').collect();
        let bits = |cell: &str| f64::from_bits(cell.parse().unwrap());
        assert!((bits(cells[5]) - 2.0 * bits(cells[2])).abs() < 1e-12, "{line}");
    }
}

#[test]
fn a_function_that_returns_other_columns_is_told_so() {
    let adds = Arc::new(Schema::new(vec![Field::new("double", DataType::Float64, true)]));
    let recorder = Recorder::new(Some(adds));
    let mut job = Job::new(1);
    let source = job.source(0);
    let narrow = job.add(Operator::Select(vec![named("temp", col("temp"))]), &[source]);
    let mapped = job.add(map_batches(recorder, FunctionSchema::Same, None), &[narrow]);
    job.output(mapped);
    job.fill(1);
    let error = run(&job.engine(1, 1), &job.tasks(10)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Schema);
    let said = error.to_string();
    for part in [
        "expected the columns (temp: float64)",
        "returned (double: float64)",
        "readings-0[0]",
        "job.py:3",
        "batch 0",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn all_rows_of_a_key_come_to_one_shard_in_order() {
    let recorder = Recorder::new(None);
    let mut job = Job::new(1);
    let source = job.source(0);
    let keyed = job.add(Operator::KeyBy(strings(&["device"])), &[source]);
    let mapped = job.add(map_batches(recorder.clone(), FunctionSchema::Same, None), &[keyed]);
    job.output(mapped);
    job.fill(280);
    let results = run(&job.engine(1, 2), &job.tasks(1_000)).unwrap();
    let mut shard_of: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for rows in results.iter().flat_map(|result| &result.outputs).flat_map(|(_, rows)| rows) {
        let numbers: &Int64Array = rows.column(3).as_primitive::<Int64Type>();
        for row in 0..rows.num_rows() {
            let place = numbers.value(row) % 4 * 1_000 + numbers.value(row);
            shard_of.entry(rows.column(0).as_string::<i32>().value(row).to_owned()).or_default().push(place);
        }
    }
    assert_eq!(shard_of.len(), 7);
    for (device, places) in shard_of {
        assert_eq!(places.len(), 40, "{device}");
        assert!(places.is_sorted(), "the rows of {device} are not in the order of partition and offset");
    }
    let calls = recorder.calls.lock().unwrap();
    assert!(calls.iter().all(|(shard, rows)| shard.is_some_and(|s| s < 8) && *rows > 0), "{calls:?}");
}

#[test]
fn two_exchanges_over_different_keys_give_the_same_bits_everywhere() {
    let mut job = Job::new(2);
    let (first, second) = (job.source(0), job.source(1));
    let both = job.add(Operator::Union, &[first, second]);
    let by_device = job.add(Operator::KeyBy(strings(&["device"])), &[both]);
    let scored = job.add(detect("temp", "device_"), &[by_device]);
    let warm = job.add(Operator::Filter(Expression::sql("device_score > 0.1")), &[scored]);
    let by_site = job.add(Operator::KeyBy(strings(&["site"])), &[warm]);
    let again = job.add(detect("device_score", "site_"), &[by_site]);
    job.output(again);
    job.output(warm);
    job.fill(1_000);
    let rows = same_everywhere(&job, 50);
    assert!(rows.lines().count() > 1_000, "{}", rows.lines().count());
}

#[test]
fn keys_that_nobody_reads_after_the_exchange_need_not_be_kept() {
    let by_device = |after: &dyn Fn(&mut Job, NodeId) -> NodeId| {
        let mut job = Job::new(1);
        let source = job.source(0);
        let keyed = job.add(Operator::KeyBy(strings(&["device"])), &[source]);
        let last = after(&mut job, keyed);
        job.output(last);
        job.fill(60);
        same_everywhere(&job, 1_000)
    };
    let numbers = |job: &mut Job, keyed| job.add(Operator::Select(vec![named("n", col("n"))]), &[keyed]);
    assert_eq!(by_device(&numbers).lines().count(), 60);
    let dropped = |job: &mut Job, keyed| job.add(Operator::Drop(strings(&["device"])), &[keyed]);
    assert_eq!(by_device(&dropped).lines().count(), 60);
    let ones = |job: &mut Job, keyed| {
        job.add(Operator::Select(vec![named("one", Expression::lit(1_i64))]), &[keyed])
    };
    assert_eq!(by_device(&ones), "0 0 1\n".repeat(60), "no column at all is moved");
    let by_site = |job: &mut Job, keyed| {
        let columns = vec![named("rows", Expression::sql("count(*)"))];
        let spec = AggregateSpec { keys: strings(&["site"]), columns, window: None };
        job.add(Operator::Aggregate(spec), &[keyed])
    };
    let mut rows: Vec<String> = by_device(&by_site).lines().map(str::to_owned).collect();
    rows.sort();
    assert_eq!(rows, ["0 0 s0|20", "0 0 s1|20", "0 0 s2|20"]);
}

#[test]
fn state_moved_out_and_in_again_goes_on_with_the_same_bits() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let keyed = job.add(Operator::KeyBy(strings(&["device", "site"])), &[source]);
    let scored = job.add(detect("temp", ""), &[keyed]);
    job.output(scored);
    job.fill(500);
    let tasks = job.tasks(25);
    let whole = job.engine(1, 1);
    let (before, after) = tasks.split_at(2);
    run(&whole, before).unwrap();
    let moved = job.engine(3, 3);
    moved.restore(&whole.snapshot().unwrap()).unwrap();
    let (expected, found) = (run(&whole, after).unwrap(), run(&moved, after).unwrap());
    assert_eq!(text(&expected), text(&found));
    assert_eq!(whole.snapshot().unwrap(), moved.snapshot().unwrap());
    assert_eq!(found.last().unwrap().state.entries, 21);
}

#[test]
fn only_columns_that_somebody_reads_are_decoded() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let narrow = job.add(Operator::Select(vec![named("n", col("n"))]), &[source]);
    job.output(narrow);
    job.sources[0].push(0, None, Some(br#"{"n":1,"temp":"not a number, and nobody reads it"}"#), 0);
    let rows = text(&run(&job.engine(1, 1), &job.tasks(10)).unwrap());
    assert_eq!(rows, "0 0 1\n");
}

#[test]
fn a_row_that_a_filter_removed_is_not_evaluated_again() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let safe = job.add(Operator::Filter(Expression::sql("n <> 0")), &[source]);
    let divided = job.add(Operator::Filter(Expression::sql("100 / n > 10")), &[safe]);
    job.output(divided);
    job.fill(200);
    assert_eq!(same_everywhere(&job, 1_000).lines().count(), 9);
}

#[test]
fn rows_without_columns_are_still_counted() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let ones = job.add(Operator::Select(vec![named("one", Expression::lit(1_i64))]), &[source]);
    job.output(ones);
    job.fill(40);
    assert_eq!(same_everywhere(&job, 1_000).lines().count(), 40);
}

#[test]
fn a_batch_larger_than_the_memory_is_a_named_error() {
    let mut job = Job::new(1);
    let source = job.source(0);
    job.output(source);
    job.fill(50_000);
    let engine = job.engine_with(LocalSettings { max_memory: 100_000, ..LocalSettings::default() }).unwrap();
    let error = run(&engine, &job.tasks(1 << 30)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    assert!(
        error.to_string().contains("more than max_memory allows for rows: 73.2 KiB (75,000 bytes)"),
        "{error}"
    );
}

/// A job whose rows are all let go at once, with `memory` for rows.
fn keeping_nothing(memory: u64, threads: usize) -> (Job, LocalEngine) {
    let mut job = Job::new(1);
    let source = job.source(0);
    let none = job.add(Operator::Filter(col("n").lt(Expression::lit(0_i64))), &[source]);
    job.output(none);
    job.fill(40_000); // 10,000 a partition, each a chunk of about 700,000 bytes, and 350,000 when decoded
    let max_memory = memory / 3 * 4;
    let settings = LocalSettings { threads: Some(threads), max_memory, ..LocalSettings::default() };
    let engine = job.engine_with(settings).unwrap();
    (job, engine)
}

#[test]
fn the_chunks_at_hand_count_to_the_memory_though_nothing_of_them_is_kept() {
    for threads in [1, 4] {
        let (job, engine) = keeping_nothing(2_000_000, threads);
        let error = run(&engine, &job.tasks(10_000)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::MemoryLimit);
        assert!(error.to_string().contains("at partition readings-0["), "{error}");
        let (job, engine) = keeping_nothing(8_000_000, threads);
        assert_eq!(run(&engine, &job.tasks(10_000)).unwrap().len(), 1);
        let (job, engine) = keeping_nothing(2_000_000, threads);
        assert_eq!(run(&engine, &job.tasks(2_500)).unwrap().len(), 4);
    }
}

#[test]
fn rows_that_have_gone_on_count_no_more() {
    let mut job = Job::new(1);
    let mut last = job.source(0);
    for keyed in [false, true] {
        if keyed {
            last = job.add(Operator::KeyBy(strings(&["device"])), &[last]);
        }
        for _ in 0..6 {
            last = job.add(map_batches(Recorder::new(None), FunctionSchema::Same, None), &[last]);
        }
    }
    job.output(last);
    job.fill(10_000); // about 380,000 bytes of rows
    for (executors, threads) in SETTINGS {
        let settings = LocalSettings {
            executors,
            threads: Some(threads),
            max_memory: 2_200_000, // with the chunks, of 1,000,000 bytes and more
            ..LocalSettings::default()
        };
        let results = run(&job.engine_with(settings).unwrap(), &job.tasks(2_500)).unwrap();
        assert_eq!(text(&results).lines().count(), 10_000);
    }
}

#[test]
fn a_partition_that_fails_is_reported_though_another_waits() {
    let mut job = Job::new(2);
    let (first, second) = (job.source(0), job.source(1));
    let both = job.add(Operator::Union, &[first, second]);
    job.output(both);
    job.fill(10);
    job.sources[1].push(1, None, Some(b"not JSON"), 0);
    let tasks = job.tasks(100);
    for (executors, threads) in SETTINGS {
        let engine = job.engine(executors, threads);
        job.sources[0].stall();
        let error = run(&engine, &tasks).err().unwrap();
        job.sources[0].release();
        assert!(error.is_data(), "{error:?}");
    }
}

#[test]
fn a_bad_record_fails_the_batch_with_its_place() {
    let mut job = Job::new(1);
    let source = job.source(0);
    job.output(source);
    job.fill(5);
    job.sources[0].push(2, None, Some(b"{\"n\": x}"), 0);
    let error = run(&job.engine(3, 3), &job.tasks(100)).err().unwrap();
    assert!(error.is_data(), "{error:?}");
    assert!(error.to_string().contains("readings-0"), "{error}");
}

#[test]
fn every_mistake_is_found_before_start_with_its_line() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let typo = job.add(Operator::Filter(col("temprature").gt(Expression::lit(1.0))), &[source]);
    job.output(typo);
    let dropped = job.add(Operator::Drop(strings(&["device", "nothing"])), &[source]);
    let unkeyed = job.add(detect("temp", ""), &[source]);
    job.output(dropped);
    job.output(unkeyed);
    let error = job.plan.check().err().unwrap();
    let said = error.to_string();
    let parts = [
        "3 mistakes",
        "\"temprature\"",
        "did you mean \"temp\"",
        "device, site, temp, n, kafka_partition",
        "job.py:2",
        "\"nothing\"",
        "job.py:4",
        "call key_by",
        "job.py:5",
    ];
    for part in parts {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}

#[test]
fn a_mistake_hides_none_of_those_after_it() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let filtered = job.add(Operator::Filter(col("xx").gt(Expression::lit(3.0))), &[source]);
    let dropped = job.add(Operator::Drop(strings(&["site", "zz"])), &[filtered]);
    let keyed = job.add(Operator::KeyBy(strings(&["kk"])), &[dropped]);
    let scored = job.add(detect("vv", ""), &[keyed]);
    let narrow = job.add(Operator::Select(vec![named("y", col("yy")), named("s", col("score"))]), &[scored]);
    job.output(narrow);
    let said = job.plan.check().err().unwrap().to_string();
    for part in ["5 mistakes", "\"xx\"", "\"zz\"", "\"kk\"", "\"vv\"", "\"yy\""] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
    assert!(job.plan.schema(filtered).is_err(), "the columns of a wrong operator are not given out");
    assert!(job.plan.schema(source).is_ok());
}

#[test]
fn a_wrong_rename_hides_none_of_the_mistakes_after_it() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let pairs = [("site", "place"), ("zz", "z")].map(|(old, new)| (old.to_owned(), new.to_owned()));
    let renamed = job.add(Operator::Rename(pairs.to_vec()), &[source]);
    let narrow = job.add(Operator::Select(vec![named("p", col("place")), named("y", col("yy"))]), &[renamed]);
    job.output(narrow);
    let said = job.plan.check().err().unwrap().to_string();
    assert!(said.contains("2 mistakes") && said.contains("\"zz\"") && said.contains("\"yy\""), "{said}");
}

#[test]
fn a_wrong_column_hides_no_other_mistake_and_causes_none() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let columns = vec![named("device", col("device")), named("bad", col("xx")), named("n", col("n"))];
    let narrow = job.add(Operator::Select(columns), &[source]);
    let filtered = job.add(Operator::Filter(col("bad").gt(Expression::lit(3.0))), &[narrow]);
    let keyed = job.add(Operator::KeyBy(strings(&["device"])), &[filtered]);
    let scored = job.add(detect("bad", ""), &[keyed]);
    let columns = vec![named("more", col("bad") + col("n")), named("y", col("yy"))];
    let wide = job.add(Operator::WithColumns(columns), &[scored]);
    let dropped = job.add(Operator::Drop(strings(&["more", "y", "zz"])), &[wide]);
    job.output(dropped);
    let said = job.plan.check().err().unwrap().to_string();
    for part in ["3 mistakes", "\"xx\"", "\"yy\"", "\"zz\""] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}

/// A sink to a topic, as the plan knows it.
#[derive(Debug)]
struct ToKafka(KafkaSinkSettings);

impl Demand for ToKafka {
    fn check(&self, schema: &Schema, keys: Option<&[String]>) -> Vec<Error> {
        assert_eq!(keys, Some(&strings(&["device"])[..]));
        self.0.check(schema)
    }
}

#[test]
fn mistakes_in_an_output_are_found_before_start_with_all_others() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let typo = job.add(Operator::Filter(col("temprature").gt(Expression::lit(1.0))), &[source]);
    let keyed = job.add(Operator::KeyBy(strings(&["device"])), &[typo]);
    let cluster = Cluster::at("nowhere:1");
    let mut settings = KafkaSinkSettings::new(cluster, "alerts");
    settings.key = KeySpec::Columns(strings(&["devise"]));
    settings.value = OutputFormat::Raw { column: Some("temp".to_owned()) };
    settings.headers = HeaderSpec { constant: Vec::new(), column: Some("site".to_owned()) };
    let site = CallSite { file: "job.py".to_owned(), line: 9 };
    job.plan.add_demanding_output(keyed, Some(Arc::new(ToKafka(settings.clone()))), Some(site.clone()));
    settings = KafkaSinkSettings { value: OutputFormat::Raw { column: None }, ..settings };
    settings.headers = HeaderSpec::default();
    job.plan.add_demanding_output(keyed, Some(Arc::new(ToKafka(settings))), Some(site));
    let said = job.plan.check().err().unwrap().to_string();
    let parts = [
        "6 mistakes",
        "\"temprature\"",
        "did you mean \"device\"? (key of to_kafka(alerts), in output, job.py:9)",
        "format Raw writes a binary or string column, found \"temp\" of float64",
        "headers column \"site\" must be list<struct<key: string, value: binary>>, found string;",
        "format Raw writes one column, found 5",
    ];
    for part in parts {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}

#[test]
fn who_ended_the_keying_is_named_to_the_detector_after_it() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let keyed = job.add(Operator::KeyBy(strings(&["device"])), &[source]);
    let replaced = Operator::WithColumns(vec![named("device", col("site"))]);
    let replaced = job.add(replaced, &[keyed]);
    let filtered = job.add(Operator::Filter(col("temp").gt(Expression::lit(3.0))), &[replaced]);
    let scored = job.add(detect("temp", ""), &[filtered]);
    job.output(scored);
    let said = job.plan.check().err().unwrap().to_string();
    assert!(said.contains("the keying by device ended in with_columns, job.py:3"), "{said}");
    assert!(said.contains("job.py:5") && !said.contains("before it"), "{said}");
}

#[test]
fn a_plan_explains_where_its_barriers_are() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let keyed = job.add(Operator::KeyBy(strings(&["device"])), &[source]);
    let scored = job.add(detect("temp", ""), &[keyed]);
    job.output(scored);
    let text = job.plan.check().unwrap().explain().unwrap();
    for part in
        ["key_by device [exchange by key group]", "detect temp with", "score: float64", "at least once"]
    {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_error_of_a_function_says_where() {
    #[derive(Debug)]
    struct Fails;
    impl BatchFunction for Fails {
        fn call(&self, _: RecordBatch, _: &BatchInfo) -> Result<RecordBatch> {
            Err(Error::user("division by zero"))
        }
    }
    let mut job = Job::new(1);
    let source = job.source(0);
    let failing = job.add(map_batches(Arc::new(Fails), FunctionSchema::Same, None), &[source]);
    job.output(failing);
    job.fill(1);
    let error = run(&job.engine(1, 1), &job.tasks(10)).err().unwrap();
    assert_eq!(
        error.to_string(),
        "division by zero (partition readings-0[0], in map_batches, job.py:2, batch 0)"
    );
}
