//! A source, an engine and a sink that do next to nothing and tell the test what they are asked.
//!
//! They hold no thread and never sleep: a test makes one of them wait at a [`Step`] and lets it go again.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use tidemill::cancel::Cancel;
use tidemill::driver::{Job, JobSink, JobSource, Limits, OpenWindows, Trigger};
use tidemill::error::{Error, Result};
use tidemill::event::{Counts, Event, Positions};
use tidemill::exec::{Engine, MapTask, Mapped, PartitionReport, Reduced, StateSize};
use tidemill::ingest::{Bound, Fetcher, Head, Source};
use tidemill::offset::{Offset, TopicPartition};
use tidemill::plan::OutputId;
use tidemill::raw::RawColumns;
use tidemill::sink::{Delivery, Sink};
use tidemill::time::{BatchId, BatchTime, EventTime, ManualClock, Waker};

/// Longer than anything here takes: only a defect makes a test wait for it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A place where a fake tells the test that it is there, and may be made to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Open,
    Resolve,
    Heads,
    Map,
    Reduce,
    Deliver,
    Acknowledge,
    Close,
    /// The rows of a batch have been let go.
    Freed,
}

type Hook = Arc<dyn Fn(Step, Option<BatchId>) -> Result<()> + Send + Sync>;

/// What all fakes of one test share: the steps they have begun, and what to do there.
#[derive(Default)]
pub(crate) struct Stage {
    steps: Mutex<Vec<(Step, Option<BatchId>)>>,
    events: Mutex<Vec<Event>>,
    rows: Mutex<Vec<(BatchId, Vec<i64>)>>,
    hook: Mutex<Option<Hook>>,
    cancelled: Mutex<bool>,
    held: Mutex<Option<Step>>,
    changed: Condvar,
    guard: Mutex<()>,
}

impl Stage {
    pub(crate) fn hook(&self, hook: impl Fn(Step, Option<BatchId>) -> Result<()> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub(crate) fn at(&self, step: Step, batch: Option<BatchId>) -> Result<()> {
        self.steps.lock().unwrap().push((step, batch));
        self.notify();
        let hook = self.hook.lock().unwrap().clone();
        hook.map_or(Ok(()), |hook| hook(step, batch))
    }

    /// Whoever comes to `step` waits there until it is cancelled, and gives up.
    pub(crate) fn until_cancelled(&self, step: Step) {
        *self.held.lock().unwrap() = Some(step);
    }

    fn may_be_held(&self, step: Step, cancel: &Cancel) -> Result<()> {
        if *self.held.lock().unwrap() != Some(step) {
            return Ok(());
        }
        assert!(cancel.wait_timeout(LONG), "nobody cancelled {step:?}");
        Err(Error::cancelled(format!("gave up {step:?}")))
    }

    pub(crate) fn notify(&self) {
        let _guard = self.guard.lock().unwrap();
        self.changed.notify_all();
    }

    /// Waits until `holds`; whatever changes it notifies.
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let guard = self.guard.lock().unwrap();
        let (_guard, waited) = self.changed.wait_timeout_while(guard, LONG, |()| !holds(self)).unwrap();
        assert!(!waited.timed_out(), "never came: {what}; steps {:?}", self.steps.lock().unwrap());
    }

    pub(crate) fn wait_for(&self, step: Step, batch: u64) {
        self.wait_until(&format!("{step:?} {batch}"), |stage| stage.has_begun(step, batch));
    }

    pub(crate) fn has_begun(&self, step: Step, batch: u64) -> bool {
        self.steps.lock().unwrap().contains(&(step, Some(BatchId(batch))))
    }

    pub(crate) fn count(&self, step: Step) -> usize {
        self.steps.lock().unwrap().iter().filter(|(begun, _)| *begun == step).count()
    }

    pub(crate) fn cancelled(&self) -> bool {
        *self.cancelled.lock().unwrap()
    }

    /// The offsets of each batch that the sink has.
    pub(crate) fn delivered(&self) -> Vec<(u64, Vec<i64>)> {
        self.rows.lock().unwrap().iter().map(|(batch, rows)| (batch.0, rows.clone())).collect()
    }

    pub(crate) fn offsets(&self) -> Vec<i64> {
        self.delivered().into_iter().flat_map(|(_, rows)| rows).collect()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn completed(&self) -> usize {
        self.events().iter().filter(|event| matches!(event, Event::Completed(_))).count()
    }
}

/// A gate that a fake waits at until the test opens it.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    pub(crate) fn pass(&self) {
        let open = self.open.lock().unwrap();
        let (_open, waited) = self.opened.wait_timeout_while(open, LONG, |open| !*open).unwrap();
        assert!(!waited.timed_out(), "nobody opened the gate");
    }
}

/// A source of one topic; its records are their offsets.
pub(crate) struct FakeSource {
    stage: Arc<Stage>,
    state: Mutex<FakeState>,
}

#[derive(Default)]
struct FakeState {
    heads: Vec<Head>,
    told: Vec<Positions>,
    wakers: Vec<Waker>,
}

impl fmt::Debug for FakeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeSource")
    }
}

impl FakeSource {
    pub(crate) fn new(stage: &Arc<Stage>, records: &[i64]) -> Arc<Self> {
        let heads = records.iter().enumerate().map(|(number, records)| head(number, *records)).collect();
        let shared = Mutex::new(FakeState { heads, ..FakeState::default() });
        Arc::new(Self { stage: Arc::clone(stage), state: shared })
    }

    /// Records arrive in partition 0.
    pub(crate) fn push(&self, records: i64) {
        let wakers = {
            let mut state = self.state.lock().unwrap();
            state.heads[0].stable.0 += records;
            state.wakers.clone()
        };
        for wake in wakers {
            wake();
        }
    }

    /// A partition appears, with these records.
    pub(crate) fn add_partition(&self, records: i64) {
        let mut state = self.state.lock().unwrap();
        let number = state.heads.len();
        state.heads.push(head(number, records));
        drop(state);
        self.push(0);
    }

    /// The positions it was told last.
    pub(crate) fn told(&self) -> Option<Positions> {
        self.state.lock().unwrap().told.last().cloned()
    }
}

fn head(number: usize, records: i64) -> Head {
    let at = TopicPartition::new("t", i32::try_from(number).unwrap());
    Head { at, topic_id: None, earliest: Offset(0), stable: Offset(records), leader_epoch: None }
}

impl Source for FakeSource {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn heads(&self) -> Result<Vec<Head>> {
        self.stage.at(Step::Heads, None)?;
        Ok(self.state.lock().unwrap().heads.clone())
    }

    fn resolve(&self, bound: &Bound) -> Result<Positions> {
        self.stage.at(Step::Resolve, None)?;
        let state = self.state.lock().unwrap();
        let offset = |head: &Head| if *bound == Bound::Earliest { head.earliest } else { head.stable };
        Ok(state.heads.iter().map(|head| (head.at.clone(), offset(head))).collect())
    }

    fn fetcher(&self, _: RawColumns, _: usize) -> Result<Box<dyn Fetcher>> {
        Err(Error::internal("the fake engine reads no bytes"))
    }

    fn acknowledge(&self, positions: &Positions, cancel: &Cancel) -> Result<()> {
        self.stage.at(Step::Acknowledge, None)?;
        self.stage.may_be_held(Step::Acknowledge, cancel)?;
        self.state.lock().unwrap().told.push(positions.clone());
        Ok(())
    }

    fn subscribe(&self, waker: Waker) {
        self.state.lock().unwrap().wakers.push(waker);
    }
}

/// An engine whose rows are the offsets it was told to read.
pub(crate) struct FakeEngine(pub(crate) Arc<Stage>);

impl fmt::Debug for FakeEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeEngine")
    }
}

impl Engine for FakeEngine {
    fn map(&self, task: &MapTask) -> Result<Mapped> {
        self.0.at(Step::Map, Some(task.batch))?;
        let ranges =
            || task.ranges.iter().flat_map(|(source, ranges)| ranges.iter().map(|range| (*source, range)));
        let offsets: Vec<i64> = ranges().flat_map(|(_, range)| range.from.0..range.until.0).collect();
        let report = |(source, range): (_, &tidemill::offset::OffsetRange)| PartitionReport {
            source,
            at: range.at.clone(),
            records: range.len(),
            bytes: range.len() * 100,
            max_event_time: (!range.is_empty()).then_some(EventTime(range.until.0 * 1_000_000)),
        };
        let counts = Counts { records: offsets.len() as u64, ..Counts::default() };
        Ok(Mapped {
            tickets: Box::new(offsets),
            partitions: ranges().map(report).collect(),
            counts,
            warnings: Vec::new(),
        })
    }

    fn reduce(&self, task: &MapTask, mapped: Mapped, _: Option<EventTime>) -> Result<Reduced> {
        self.0.at(Step::Reduce, Some(task.batch))?;
        let offsets = *mapped.tickets.downcast::<Vec<i64>>().unwrap();
        let counts = Counts { output_rows: offsets.len() as u64, ..Counts::default() };
        let rows = RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(offsets))])?;
        let outputs = vec![(OutputId(0), vec![rows])];
        Ok(Reduced {
            outputs,
            state: StateSize { entries: 3, bytes: 24, windows: 0 },
            counts,
            warnings: Vec::new(),
            hold: Some(Box::new(Hold(Arc::clone(&self.0), task.batch))),
        })
    }

    fn cancel(&self) {
        *self.0.cancelled.lock().unwrap() = true;
        self.0.notify();
    }
}

/// Tells when the rows of a batch are let go.
struct Hold(Arc<Stage>, BatchId);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.at(Step::Freed, Some(self.1)).unwrap();
    }
}

pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("offset", DataType::Int64, false)]))
}

/// A sink that keeps what it gets.
#[derive(Clone)]
pub(crate) struct FakeSink {
    pub(crate) stage: Arc<Stage>,
    pub(crate) wants_empty: bool,
}

impl fmt::Debug for FakeSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeSink")
    }
}

impl Sink for FakeSink {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn open(&mut self, schema: &SchemaRef, cancel: &Cancel) -> Result<()> {
        assert_eq!(schema, &self::schema());
        self.stage.at(Step::Open, None)?;
        self.stage.may_be_held(Step::Open, cancel)
    }

    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        self.stage.at(Step::Deliver, Some(delivery.batch))?;
        self.stage.may_be_held(Step::Deliver, &delivery.cancel)?;
        let rows = delivery
            .rows
            .iter()
            .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec());
        self.stage.rows.lock().unwrap().push((delivery.batch, rows.collect()));
        self.stage.notify();
        Ok(())
    }

    fn wants_empty(&self) -> bool {
        self.wants_empty
    }

    fn close(&mut self) -> Result<()> {
        self.stage.at(Step::Close, None)
    }
}

/// When every test's clock begins.
pub(crate) const START: BatchTime = BatchTime(1_000_000_050);

/// A stage with a source of one partition and a clock that stands.
pub(crate) struct Fixture {
    pub(crate) stage: Arc<Stage>,
    pub(crate) source: Arc<FakeSource>,
    pub(crate) clock: Arc<ManualClock>,
}

impl Fixture {
    pub(crate) fn new(records: &[i64]) -> Self {
        let stage = Arc::new(Stage::default());
        let source = FakeSource::new(&stage, records);
        Self { stage, source, clock: Arc::new(ManualClock::new(START)) }
    }

    pub(crate) fn job(&self, trigger: Trigger) -> Job {
        let heard = Arc::clone(&self.stage);
        let listener = move |event: &Event| {
            heard.events.lock().unwrap().push(event.clone());
            heard.notify();
        };
        Job {
            name: "job".to_owned(),
            sources: vec![self.job_source()],
            engine: Arc::new(FakeEngine(Arc::clone(&self.stage))),
            sinks: vec![JobSink { sink: Box::new(self.sink(false)), schema: schema() }],
            trigger,
            limits: Limits { max_records: 10, max_memory: 1 << 30, back_pressure: None },
            at_end: OpenWindows::Stay,
            clock: Arc::clone(&self.clock) as _,
            listeners: vec![Box::new(listener)],
        }
    }

    pub(crate) fn sink(&self, wants_empty: bool) -> FakeSink {
        FakeSink { stage: Arc::clone(&self.stage), wants_empty }
    }

    fn job_source(&self) -> JobSource {
        JobSource {
            source: Arc::clone(&self.source) as _,
            starting: Bound::Earliest,
            ending: None,
            watermark: None,
            idle_timeout: None,
            max_rate_per_partition: None,
        }
    }
}
