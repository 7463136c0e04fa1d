//! Samples: the same rows whoever does the work and wherever batches are cut, as many as they should be, and nothing of
//! what they are drawn by for anyone to see.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tidemill::decode::{EventTimeSpec, Format, OnBad};
use tidemill::error::{Error, Result};
use tidemill::expr::Expression;
use tidemill::ingest::scripted::ScriptedSource;
use tidemill::offset::TopicPartition;
use tidemill::plan::{
    AggregateSpec, BatchFunction, BatchInfo, CallSite, Emit, FunctionSchema, Named, NodeId, Operator, Plan,
    Seed, SourceId, SourceSpec, WindowSpec,
};
use tidemill::provenance::{Descent, Draw, Provenance};
use tidemill::state::window::WindowShape;

use crate::exec::{Job, SETTINGS, col, detect, map_batches, named, run, same_everywhere, strings, text};

/// Where batches are cut, in offsets of each partition.
const STEPS: [i64; 3] = [5, 64, 1 << 30];

impl Job {
    fn sample(&mut self, input: NodeId, fraction: f64, seed: i64) -> NodeId {
        let line = u32::try_from(self.plan.nodes.len() + 1).unwrap();
        let site = Some(CallSite { file: "job.py".to_owned(), line });
        self.plan.add_sample(input, fraction, Some(seed), site)
    }

    /// A job over one source with these columns, whose four partitions get `rows` records made by `record`.
    fn over(spec: SourceSpec, rows: i64, record: impl Fn(i64) -> String) -> (Self, NodeId) {
        let mut plan = Plan::default();
        let source = ScriptedSource::with_partitions(&spec.name, 4);
        plan.add_source(spec);
        for n in 0..rows {
            source.push(i32::try_from(n % 4).unwrap(), None, Some(record(n).as_bytes()), 0);
        }
        let mut job = Self { plan, sources: vec![source] };
        let source = job.add(Operator::Source(SourceId(0)), &[]);
        (job, source)
    }

    /// The rows of output `output`, without their batch, in order of their text.
    fn rows(&self, output: usize, step: i64) -> Vec<String> {
        let text = text(&run(&self.engine(1, 2), &self.tasks(step)).unwrap());
        let mark = format!("{output} ");
        let mut rows: Vec<String> = text
            .lines()
            .filter_map(|line| line.split_once(' ')?.1.strip_prefix(&mark))
            .map(str::to_owned)
            .collect();
        rows.sort();
        rows
    }

    /// The rows of the job's one output, which are the same with every setting and wherever batches are cut.
    fn sampled(&self) -> Vec<String> {
        let all: Vec<Vec<String>> = STEPS
            .iter()
            .map(|step| {
                same_everywhere(self, *step);
                self.rows(0, *step)
            })
            .collect();
        for (rows, step) in all.iter().zip(STEPS) {
            assert_eq!(rows, &all[0], "batches of {step} offsets");
        }
        all[0].clone()
    }
}

fn spec(fields: Vec<Field>) -> SourceSpec {
    SourceSpec {
        name: "readings-0".to_owned(),
        format: Format::Json(Arc::new(Schema::new(fields))),
        metadata: vec![],
        on_bad: OnBad::Fail,
        event_time: None,
    }
}

fn number() -> SourceSpec {
    spec(vec![Field::new("n", DataType::Int64, true)])
}

/// The same, of whose records every second is bad.
fn half_dead(rows: i64) -> (Job, NodeId) {
    let spec = SourceSpec { on_bad: OnBad::DeadLetter, ..number() };
    Job::over(spec, rows, |n| if n % 2 == 0 { format!("{{\"n\": {n}}}") } else { "oops".to_owned() })
}

/// A job over the rows `n`, of which record `n / 4` of partition `n % 4` is one.
fn numbers(rows: i64) -> (Job, NodeId) {
    Job::over(number(), rows, |n| format!("{{\"n\": {n}}}"))
}

fn provenance(n: i64) -> Provenance {
    let at = TopicPartition::new("readings-0", i32::try_from(n % 4).unwrap());
    Provenance::of_partition(&at).of_record(n / 4)
}

/// The rows that a draw keeps of the first `rows`, as text in order.
fn drawn(rows: i64, draw: &Draw) -> Vec<String> {
    let mut kept: Vec<String> =
        (0..rows).filter(|n| draw.keeps(provenance(*n))).map(|n| n.to_string()).collect();
    kept.sort();
    kept
}

/// The number is as large as it should be, but for chance: four standard deviations, which the fixed seeds keep.
fn assert_about(found: usize, rows: f64, fraction: f64) {
    let (found, expected) = (found as f64, rows * fraction);
    let off = 4.0 * (expected * (1.0 - fraction)).sqrt();
    assert!((found - expected).abs() <= off, "{found} rows, expected {expected} ± {off}");
}

#[test]
fn a_row_is_kept_by_its_record_and_the_seed_alone() {
    for (fraction, seed) in [(0.3, 7), (0.05, -1), (0.5, i64::MIN)] {
        let (mut job, source) = numbers(2_000);
        let sampled = job.sample(source, fraction, seed);
        job.output(sampled);
        assert_eq!(job.sampled(), drawn(2_000, &Draw::new(fraction, seed)));
    }
}

#[test]
fn a_sample_is_the_same_in_every_version() {
    let kept = |seed| -> Vec<i64> {
        let draw = Draw::new(0.1, seed);
        (0..100).filter(|n| draw.keeps(provenance(*n))).collect()
    };
    // As another implementation of XXH3 says.
    assert_eq!(kept(1), [7, 12, 30, 31, 40, 49, 80, 90]);
    assert_eq!(kept(-2), [21, 24, 37, 48, 88]);
    assert_eq!(provenance(3), Provenance(9_984_159_241_929_818_318));
    assert_eq!(provenance(3).by(Descent::Element, 2), Provenance(17_667_511_389_814_961_883));
}

#[test]
fn about_the_fraction_is_kept() {
    const ROWS: i64 = 40_000;
    for fraction in [0.0, 0.001, 0.1, 0.5, 0.9, 1.0] {
        let (mut job, source) = numbers(ROWS);
        let sampled = job.sample(source, fraction, 5);
        job.output(sampled);
        assert_about(job.rows(0, 10_000).len(), ROWS as f64, fraction);
    }
}

#[test]
fn samples_of_other_seeds_are_independent_and_of_the_same_seed_equal() {
    let (mut job, source) = numbers(20_000);
    for seed in [1, 2, 1] {
        let sampled = job.sample(source, 0.2, seed);
        job.output(sampled);
    }
    let [first, other, again] = [0, 1, 2].map(|output| BTreeSet::from_iter(job.rows(output, 1 << 30)));
    assert_eq!(first, again);
    assert_about(first.intersection(&other).count(), 20_000.0, 0.04);
}

#[test]
fn a_filter_before_a_sample_keeps_the_rows_that_one_behind_it_keeps() {
    let (mut job, source) = numbers(3_000);
    let even = || Operator::Filter(Expression::sql("n % 2 = 0"));
    let filtered = job.add(even(), &[source]);
    let before = job.sample(filtered, 0.4, 3);
    let sampled = job.sample(source, 0.4, 3);
    let behind = job.add(even(), &[sampled]);
    job.output(before);
    job.output(behind);
    let rows = job.rows(0, 64);
    assert_eq!(rows, job.rows(1, 64));
    assert_about(rows.len(), 1_500.0, 0.4);
}

#[test]
fn a_sample_of_a_sample_draws_anew() {
    let (mut job, source) = numbers(10_000);
    let first = job.sample(source, 0.5, 9);
    let second = job.sample(first, 0.5, 9);
    let third = job.sample(second, 0.5, 9);
    job.output(third);
    assert_about(job.sampled().len(), 10_000.0, 0.125);
}

#[test]
fn rows_that_come_to_a_union_twice_are_drawn_independently() {
    let (mut job, source) = numbers(10_000);
    let both = job.add(Operator::Union, &[source, source]);
    let sampled = job.sample(both, 0.3, 4);
    job.output(sampled);
    let rows = job.sampled();
    let once = BTreeSet::from_iter(rows.clone());
    assert_about(rows.len(), 20_000.0, 0.3);
    assert_about(rows.len() - once.len(), 10_000.0, 0.09);
    let of_first = BTreeSet::from_iter(drawn(10_000, &Draw::new(0.3, 4)));
    assert!(once.is_superset(&of_first), "the rows of the first stream are those of its own sample");
}

#[test]
fn rows_that_come_through_several_unions_are_drawn_independently_too() {
    let (mut job, source) = numbers(4_000);
    let both = job.add(Operator::Union, &[source, source]);
    let three = job.add(Operator::Union, &[both, source]);
    let all = job.add(Operator::Union, &[three, both]);
    let sampled = job.sample(all, 0.5, 4);
    job.output(sampled);
    let rows = job.sampled();
    let mut counts = vec![0; 4_000];
    for row in &rows {
        counts[row.parse::<usize>().unwrap()] += 1;
    }
    for (drawn, of) in [(0, 1.0), (1, 5.0), (2, 10.0), (3, 10.0), (4, 5.0), (5, 1.0)] {
        let found = counts.iter().filter(|count| **count == drawn).count();
        assert_about(found, 4_000.0, of / 32.0);
    }
}

/// Lists of 0 to 4 elements, n * 10 and what follows.
fn lists(rows: i64) -> (Job, NodeId) {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let fields = vec![Field::new("n", DataType::Int64, true), Field::new("l", list, true)];
    Job::over(spec(fields), rows, |n| {
        let elements: Vec<String> = (0..n % 5).map(|element| (n * 10 + element).to_string()).collect();
        format!("{{\"n\": {n}, \"l\": [{}]}}", elements.join(","))
    })
}

#[test]
fn the_elements_of_a_list_are_drawn_one_by_one() {
    let (mut job, source) = lists(5_000);
    let elements = job.add(Operator::Explode(strings(&["l"])), &[source]);
    let sampled = job.sample(elements, 0.25, 6);
    job.output(sampled);
    let draw = Draw::new(0.25, 6);
    let mut expected: Vec<String> = (0..5_000_i64)
        .flat_map(|n| (0..(n % 5).max(1)).map(move |element| (n, element)))
        .filter(|(n, element)| draw.keeps(provenance(*n).by(Descent::Element, element.cast_unsigned())))
        .map(|(n, element)| if n % 5 == 0 { format!("{n}|") } else { format!("{n}|{}", n * 10 + element) })
        .collect();
    expected.sort();
    assert_eq!(job.sampled(), expected);
    assert_about(expected.len(), 11_000.0, 0.25);
}

/// Gives rows back, all or those of its half, and sees to it that it is given what is declared and nothing else.
#[derive(Debug)]
struct Gives {
    columns: Vec<String>,
    half: bool,
}

impl BatchFunction for Gives {
    fn call(&self, rows: RecordBatch, _: &BatchInfo) -> Result<RecordBatch> {
        let found: Vec<&String> = rows.schema_ref().fields().iter().map(|field| field.name()).collect();
        if found != self.columns.iter().collect::<Vec<_>>() {
            return Err(Error::user(format!("given {found:?}")));
        }
        let kept = if self.half { rows.num_rows().div_ceil(2) } else { rows.num_rows() };
        Ok(rows.slice(0, kept))
    }
}

fn gives(half: bool) -> Operator {
    map_batches(Arc::new(Gives { columns: strings(&["n"]), half }), FunctionSchema::Same, None)
}

#[test]
fn what_a_function_made_of_as_many_rows_comes_from_those() {
    let (mut job, source) = numbers(2_000);
    let mapped = job.add(gives(false), &[source]);
    let sampled = job.sample(mapped, 0.3, 7);
    job.output(sampled);
    assert_eq!(job.sampled(), drawn(2_000, &Draw::new(0.3, 7)));
}

#[test]
fn what_a_function_made_of_more_rows_is_drawn_by_its_place() {
    let (mut job, source) = numbers(8_000);
    let mapped = job.add(gives(true), &[source]);
    let sampled = job.sample(mapped, 0.3, 7);
    job.output(sampled);
    for step in [100, 1 << 30] {
        assert_about(same_everywhere(&job, step).lines().count(), 4_000.0, 0.3);
    }
}

/// Gives the only column under another name.
#[derive(Debug)]
struct Copies(Arc<Schema>);
impl BatchFunction for Copies {
    fn call(&self, rows: RecordBatch, _: &BatchInfo) -> Result<RecordBatch> {
        assert_eq!(rows.num_columns(), 1);
        Ok(RecordBatch::try_new(Arc::clone(&self.0), vec![Arc::clone(rows.column(0))])?)
    }
}

#[test]
fn what_a_function_adds_leaves_the_rows_what_they_are() {
    let (mut job, source) = numbers(2_000);
    let added = Arc::new(Schema::new(vec![Field::new("m", DataType::Int64, true)]));
    let function = Arc::new(Copies(Arc::clone(&added)));
    let mapped = job.add(map_batches(function, FunctionSchema::Adds(added), None), &[source]);
    let sampled = job.sample(mapped, 0.3, 7);
    let narrow = job.add(Operator::Select(vec![named("m", col("m"))]), &[sampled]);
    job.output(narrow);
    assert_eq!(job.sampled(), drawn(2_000, &Draw::new(0.3, 7)));
}

#[test]
fn rows_that_went_to_the_shard_of_their_key_are_the_same_ones() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let keyed = job.add(Operator::KeyBy(strings(&["device"])), &[source]);
    let scored = job.add(detect("temp", ""), &[keyed]);
    let sampled = job.sample(scored, 0.3, 7);
    let narrow = job.add(Operator::Select(vec![named("n", col("n"))]), &[sampled]);
    job.output(narrow);
    job.fill(2_000);
    assert_eq!(job.sampled(), drawn(2_000, &Draw::new(0.3, 7)));
}

fn count(keys: &[&str], window: Option<WindowSpec>) -> Operator {
    let columns = vec![Named { name: "rows".to_owned(), expression: Expression::sql("count(*)") }];
    Operator::Aggregate(AggregateSpec { keys: strings(keys), columns, window })
}

#[test]
fn the_groups_of_a_batch_are_drawn_by_key_and_batch() {
    let (mut job, source) = numbers(4_000);
    let keyed = job.add(Operator::WithColumns(vec![named("k", Expression::sql("n % 50"))]), &[source]);
    let grouped = job.add(count(&["k"], None), &[keyed]);
    let sampled = job.sample(grouped, 0.2, 7);
    job.output(sampled);
    let rows = same_everywhere(&job, 100); // ten batches, of 50 groups
    assert_about(rows.lines().count(), 500.0, 0.2);
    let keys: BTreeSet<&str> = rows.lines().filter_map(|line| line.split([' ', '|']).nth(2)).collect();
    assert!(keys.len() > 40, "in other batches other keys are drawn: {keys:?}");
}

#[test]
fn all_updates_of_a_window_are_kept_or_none() {
    let ts = DataType::Timestamp(TimeUnit::Millisecond, None);
    let fields = vec![Field::new("k", DataType::Int64, true), Field::new("ts", ts, true)];
    let event_time = EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_hours(1) };
    let spec = SourceSpec { event_time: Some(event_time), ..spec(fields) };
    let record = |n: i64| format!("{{\"k\": {}, \"ts\": {}}}", n % 40, n / 400 * 1_000);
    let (mut job, source) = Job::over(spec, 4_000, record);
    let second = Duration::from_secs(1);
    let shape = WindowShape { length: second, slide: second, offset: Duration::ZERO };
    let window = WindowSpec { shape, on: "ts".to_owned(), emit: Emit::Updates };
    let counted = job.add(count(&["k"], Some(window)), &[source]);
    let sampled = job.sample(counted, 0.3, 2);
    job.output(counted);
    job.output(sampled);
    let place = |row: &String| row.rsplit_once('|').unwrap().0.to_owned();
    let places = |output, step| job.rows(output, step).iter().map(place).collect::<BTreeSet<_>>();
    let kept = places(1, 30);
    assert_eq!(kept, places(1, 1 << 30), "whatever the batches, the same windows");
    assert_about(kept.len(), 400.0, 0.3);
    let all = job.rows(0, 30);
    let expected: Vec<&String> = all.iter().filter(|row| kept.contains(&place(row))).collect();
    assert_eq!(job.rows(1, 30).iter().collect::<Vec<_>>(), expected);
}

#[test]
fn dead_letters_are_drawn_by_their_records_too() {
    let (mut job, source) = half_dead(4_000);
    let dead = job.plan.add_dead_letters(source, None).unwrap();
    let sampled = job.sample(dead, 0.3, 7);
    let place = Expression::sql("kafka_offset * 4 + kafka_partition");
    let narrow = job.add(Operator::Select(vec![named("n", place)]), &[sampled]);
    job.output(narrow);
    job.output(source);
    let draw = Draw::new(0.3, 7);
    let mut expected: Vec<String> =
        (0..4_000).filter(|n| n % 2 == 1 && draw.keeps(provenance(*n))).map(|n| n.to_string()).collect();
    expected.sort();
    for step in STEPS {
        same_everywhere(&job, step);
        assert_eq!(job.rows(0, step), expected);
        assert_eq!(job.rows(1, step).len(), 2_000);
    }
}

#[test]
fn nobody_sees_what_a_sample_is_drawn_by() {
    let (mut job, source) = half_dead(8);
    let dead = job.plan.add_dead_letters(source, None).unwrap();
    let some_dead = job.sample(dead, 1.0, 7);
    let sampled = job.sample(source, 1.0, 7);
    let both = job.add(Operator::Union, &[sampled, source]);
    let again = job.sample(both, 1.0, 7);
    for output in [source, sampled, both, again, dead, some_dead] {
        job.output(output);
    }
    let checked = job.plan.check().unwrap();
    let explained = checked.explain().unwrap();
    assert!(!explained.contains("provenance"), "{explained}");
    for node in [source, sampled, both, again] {
        assert_eq!(checked.schema(node).unwrap().fields().len(), 1);
    }
    for (executors, threads) in SETTINGS {
        let results = run(&job.engine(executors, threads), &job.tasks(3)).unwrap();
        for (output, rows) in results.iter().flat_map(|result| &result.outputs) {
            for rows in rows {
                let expected = if output.0 < 4 { 1 } else { 9 };
                assert_eq!(rows.num_columns(), expected, "output {}: {:?}", output.0, rows.schema());
            }
        }
    }
}

fn wrong(job: &Job) -> String {
    job.plan.check().unwrap_err().to_string()
}

#[test]
fn a_fraction_that_is_none_is_told_before_start_with_its_line() {
    for (fraction, said) in [
        (1.5, "found 1.5; write 0.015 for 1.5 %"),
        (-0.1, "found -0.1; 0.1 keeps about every tenth row"),
        (f64::NAN, "found NaN"),
        (f64::INFINITY, "found inf"),
    ] {
        let (mut job, source) = numbers(1);
        let sampled = job.sample(source, fraction, 7);
        let typo = job.add(Operator::Filter(col("m").gt(Expression::lit(1_i64))), &[sampled]);
        job.output(typo);
        let error = wrong(&job);
        for part in ["2 mistakes", said, "in sample, job.py:2", "in filter, job.py:3"] {
            assert!(error.contains(part), "{part} is missing in {error}");
        }
    }
}

#[test]
fn a_seed_of_its_own_is_the_same_in_every_run_and_another_for_each_sample() {
    let seeds = || {
        let (mut job, source) = numbers(1);
        let mut seed = |given| {
            let node = job.plan.add_sample(source, 0.5, given, None);
            let Operator::Sample(spec) = job.plan.node(node).unwrap().operator else { panic!("no sample") };
            spec.seed
        };
        [None, Some(3), None, None].map(&mut seed)
    };
    let [first, given, second, third] = seeds();
    assert_eq!([first, given, second, third], seeds());
    assert_eq!(given, Seed::Given(3));
    assert_eq!(BTreeSet::from([first, second, third].map(Seed::value)).len(), 3);
    assert!([first, second, third].iter().all(|seed| matches!(seed, Seed::Own(value) if *value >= 0)));
}

#[test]
fn explain_shows_fraction_and_seed() {
    let mut job = Job::new(1);
    let source = job.source(0);
    let given = job.sample(source, 0.25, -3);
    let own = job.plan.add_sample(given, 0.5, None, None);
    job.output(own);
    let explained = job.plan.check().unwrap().explain().unwrap();
    assert!(explained.contains("sample 0.25 [seed -3]  (job.py:2)"), "{explained}");
    assert!(explained.contains("sample 0.5 [seed 7") && explained.contains(", its own]"), "{explained}");
}

#[test]
fn the_name_of_the_hidden_column_is_nobodys() {
    let hidden = "\0provenance";
    let (mut job, source) = numbers(1);
    let renamed = job.add(Operator::Rename(vec![("n".to_owned(), hidden.to_owned())]), &[source]);
    let filtered = job.add(Operator::Filter(col(hidden).gt(Expression::lit(1_i64))), &[renamed]);
    job.output(filtered);
    let error = wrong(&job);
    assert!(
        error.contains("no column can have the name \"\\0provenance\"") && error.contains("job.py:2"),
        "{error}"
    );
    assert!(!error.contains("mistakes"), "told once: {error}");
    let (mut job, source) = numbers(1);
    let sampled = job.sample(source, 0.5, 1);
    let read = job.add(Operator::Select(vec![named("x", col(hidden))]), &[sampled]);
    job.output(read);
    assert!(wrong(&job).contains("there is no column"), "{}", wrong(&job));
}
