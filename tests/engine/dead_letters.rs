//! Dead letters on their way through a plan: the same rows in the same order with any executors and threads, and every
//! job that would lose them refused.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use tidemill::decode::{Format, OnBad};
use tidemill::error::Result;
use tidemill::exec::local::{LocalEngine, LocalSettings};
use tidemill::exec::{Engine, MapTask};
use tidemill::expr::Expression;
use tidemill::ingest::Source;
use tidemill::ingest::scripted::ScriptedSource;
use tidemill::offset::OffsetRange;
use tidemill::plan::{
    AggregateSpec, CallSite, DeadLetterHeaders, Named, NodeId, Operator, Plan, SourceId, SourceSpec,
};
use tidemill::time::{BatchId, BatchTime};

fn spec(name: &str, on_bad: OnBad) -> SourceSpec {
    let fields = vec![Field::new("n", DataType::Int64, true)];
    let format = Format::Json(Arc::new(Schema::new(fields)));
    SourceSpec { name: name.to_owned(), format, metadata: vec![], on_bad, event_time: None }
}

/// A plan over sources of four partitions, of whose records every third is bad.
struct Job {
    plan: Plan,
    sources: Vec<ScriptedSource>,
}

impl Job {
    /// The job, and the nodes of its sources.
    fn new(sources: usize, rows: i64) -> (Self, Vec<NodeId>) {
        let (mut plan, mut nodes, mut made) = (Plan::default(), Vec::new(), Vec::new());
        for number in 0..sources {
            let name = format!("readings-{number}");
            let id = plan.add_source(spec(&name, OnBad::DeadLetter));
            nodes.push(plan.add(Operator::Source(id), vec![], Some(site(7))));
            let source = ScriptedSource::with_partitions(&name, 4);
            for n in 0..rows {
                let payload =
                    if n % 3 == 0 { format!("{{\"n\": \"no {n}\"}}") } else { format!("{{\"n\": {n}}}") };
                source.push(i32::try_from(n % 4).unwrap(), Some(b"key"), Some(payload.as_bytes()), n);
            }
            made.push(source);
        }
        (Self { plan, sources: made }, nodes)
    }

    fn dead(&mut self, source: NodeId) -> NodeId {
        self.plan.add_dead_letters(source, None).unwrap()
    }

    /// All rows of every output as text, in one batch.
    fn run(&self, executors: usize, threads: usize) -> Result<String> {
        let sources: Vec<Arc<dyn Source>> =
            self.sources.iter().map(|source| Arc::new(source.clone()) as Arc<dyn Source>).collect();
        let settings = LocalSettings { executors, threads: Some(threads), ..LocalSettings::default() };
        let engine = LocalEngine::start(&self.plan.check()?, &sources, settings)?;
        let whole = |source: &ScriptedSource| -> Result<Vec<OffsetRange>> {
            Ok(source
                .heads()?
                .into_iter()
                .map(|head| OffsetRange::new(head.at, head.earliest, head.stable))
                .collect())
        };
        let ranges = self.sources.iter().enumerate().map(|(id, source)| Ok((SourceId(id), whole(source)?)));
        let ranges = ranges.collect::<Result<_>>()?;
        let task = MapTask { batch: BatchId(0), time: BatchTime(0), ranges, watermark: None };
        let reduced = engine.map(&task).and_then(|mapped| engine.reduce(&task, mapped, None))?;
        let mut text = String::new();
        for (output, rows) in &reduced.outputs {
            for rows in rows {
                write_rows(&mut text, output.0, rows);
            }
        }
        Ok(text)
    }

    fn same_everywhere(&self) -> String {
        let texts = [(1, 1), (1, 4), (3, 3), (3, 8)]
            .map(|(executors, threads)| self.run(executors, threads).unwrap());
        for text in &texts {
            assert_eq!(text, &texts[0]);
        }
        texts[0].clone()
    }
}

fn site(line: u32) -> CallSite {
    CallSite { file: "job.py".to_owned(), line }
}

fn write_rows(text: &mut String, output: usize, rows: &RecordBatch) {
    for row in 0..rows.num_rows() {
        let cell = |column: &Arc<dyn Array>| array_value_to_string(column, row).unwrap();
        let cells: Vec<String> = rows.columns().iter().map(cell).collect();
        writeln!(text, "{output} {}", cells.join("|")).unwrap();
    }
}

fn named(names: &[&str]) -> Vec<Named> {
    names.iter().map(|name| Named { name: (*name).to_owned(), expression: Expression::col(*name) }).collect()
}

#[test]
fn good_rows_and_dead_letters_come_in_the_same_order_whoever_makes_them() {
    let (mut job, sources) = Job::new(2, 60_000); // more than one chunk a partition
    let (first, second) = (job.dead(sources[0]), job.dead(sources[1]));
    let both = job.plan.add(Operator::Union, vec![second, first], None);
    let some = named(&["kafka_topic", "kafka_partition", "kafka_offset", "reason"]);
    let places = job.plan.add(Operator::Select(some), vec![both], None);
    job.plan.add_output(places, None);
    for source in sources {
        job.plan.add_output(source, None);
    }
    let text = job.same_everywhere();
    let letters: Vec<&str> = text.lines().filter(|line| line.starts_with("0 ")).collect();
    let expected: Vec<String> = (0..2)
        .flat_map(|source| (0..4).map(move |partition| (source, partition)))
        .flat_map(|(source, partition)| {
            (0..60_000).filter(move |n| n % 4 == partition && n % 3 == 0).map(move |n| {
                let found = format!("found `\"no {n}\"}}`");
                let expected = "expected a whole number within int64 in column \"n\"";
                format!("0 readings-{source}|{partition}|{}|{expected}, {found}", n / 4)
            })
        })
        .collect();
    assert_eq!(letters, expected);
    assert_eq!(text.lines().filter(|line| line.starts_with("1 ")).count(), 40_000);
}

#[test]
fn a_value_of_a_column_that_nobody_reads_makes_no_dead_letter() {
    let (mut job, sources) = Job::new(1, 6);
    let dead = job.dead(sources[0]);
    job.plan.add_output(dead, None);
    assert_eq!(job.same_everywhere(), "");
}

#[test]
fn dead_letters_are_rows_like_any_others() {
    let (mut job, sources) = Job::new(1, 300);
    let first = job.dead(sources[0]);
    let late = job.plan.add(Operator::Filter(Expression::sql("kafka_offset >= 50")), vec![first], None);
    let counted = Operator::Aggregate(AggregateSpec {
        keys: vec!["kafka_partition".to_owned()],
        columns: vec![Named { name: "n".to_owned(), expression: Expression::sql("count(*)") }],
        window: None,
    });
    let counted = job.plan.add(counted, vec![late], None);
    job.plan.add_output(counted, None);
    let second = job.dead(sources[0]);
    let own = job.plan.add(Operator::Select(named(&["position", "value"])), vec![second], None);
    job.plan.add_output(own, None);
    job.plan.add_output(sources[0], None);
    let text = job.same_everywhere();
    let mut counts: Vec<&str> = text.lines().filter(|line| line.starts_with("0 ")).collect();
    counts.sort_unstable();
    assert_eq!(counts, ["0 0|8", "0 1|9", "0 2|8", "0 3|8"]);
    let values = text.lines().filter(|line| line.starts_with("1 6|")).count();
    assert_eq!(values, 100);
}

#[test]
fn the_headers_of_a_dead_letter_are_its_own_and_where_it_came_from() {
    let (mut job, sources) = Job::new(1, 2);
    let dead = job.dead(sources[0]);
    let labelled = job.plan.add(DeadLetterHeaders::operator(), vec![dead], None);
    let headers = job.plan.add(Operator::Select(named(&["kafka_key", "headers"])), vec![labelled], None);
    job.plan.add_output(headers, None);
    job.plan.add_output(sources[0], None);
    let text = job.same_everywhere();
    let line = text.lines().find(|line| line.starts_with("0 ")).unwrap();
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    for (name, value) in [
        ("reason", "expected a whole number within int64 in column \"n\", found `\"no 0\"}`"),
        ("topic", "readings-0"),
        ("partition", "0"),
        ("offset", "0"),
        ("position", "6"),
    ] {
        let header = format!("{{key: tidemill.{name}, value: {}}}", hex(value));
        assert!(line.contains(&header), "{header} in {line}");
    }
}

#[test]
fn dead_letters_that_come_to_no_output_are_told_before_the_start() {
    let (mut job, sources) = Job::new(1, 1);
    job.plan.add_output(sources[0], None);
    job.dead(sources[0]); // taken by nobody
    let mistake = job.plan.check().unwrap_err().to_string();
    assert!(mistake.contains("the source \"readings-0\" has on_bad=\"dead_letter\""), "{mistake}");
    assert!(mistake.contains("in source, job.py:7"), "{mistake}");
}

#[test]
fn only_a_source_that_keeps_them_has_dead_letters() {
    for (on_bad, does) in [(OnBad::Fail, "fails at a bad record"), (OnBad::Drop, "drops bad records")] {
        let mut plan = Plan::default();
        let id = plan.add_source(spec("readings", on_bad));
        let source = plan.add(Operator::Source(id), vec![], None);
        let mistake = plan.add_dead_letters(source, None).unwrap_err().to_string();
        assert!(mistake.contains(does) && mistake.contains("pass on_bad=\"dead_letter\""), "{mistake}");
        plan.add(Operator::DeadLetters(id), vec![source], None);
        assert!(plan.check().unwrap_err().to_string().contains(does));
    }
    let (mut job, sources) = Job::new(1, 1);
    let filtered = job.plan.add(Operator::Filter(Expression::sql("n > 0")), vec![sources[0]], None);
    let mistake = job.plan.add_dead_letters(filtered, None).unwrap_err().to_string();
    assert!(mistake.contains("this stream is made by filter"), "{mistake}");
}
