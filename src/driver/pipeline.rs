//! The batches in flight: which step of which batch comes next.
//!
//! At most two: while one is reduced and delivered, the one after it is planned, fetched and mapped. It
//! deliberately does not decide what a batch reads or when it is due, and never looks at a row.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::Trigger;
use crate::driver::laggard::Laggard;
use crate::driver::log::{Entry, EntryKind};
use crate::driver::machine::{Command, Moment};
use crate::driver::memory::Memory;
use crate::driver::planning::Planner;
use crate::driver::timing::Timing;
use crate::driver::watermark::{EventTimeRule, Place, Silence, Watermark};
use crate::error::Error;
use crate::event::{Counts, Positions, Progress, Totals};
use crate::exec::{MapTask, PartitionReport, StateSize};
use crate::offset::OffsetRange;
use crate::plan::SourceId;
use crate::time::{BatchId, BatchTime, EventTime};

/// The one that is delivered, and at most one planned ahead of it: a failure throws away little work, and memory
/// holds two batches.
const IN_FLIGHT: usize = 2;

/// How far a batch has come. Each `…ing` waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Planning,
    Planned,
    Mapping,
    Mapped,
    Reducing,
    Reduced,
    Preparing,
    Prepared,
    Delivering,
    Delivered,
    Committing,
    Committed,
}

impl Step {
    fn is_busy(self) -> bool {
        matches!(
            self,
            Self::Planning
                | Self::Mapping
                | Self::Reducing
                | Self::Preparing
                | Self::Delivering
                | Self::Committing
        )
    }
}

/// Whether a batch will be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It will, unless it fails.
    Live,
    /// It will not: the command under way, if any, is waited for, and nothing follows it.
    GivenUp,
}

/// What becomes of the windows that are still open after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenWindows {
    /// They wait for later rows.
    Stay,
    /// Nothing can come after it: they end with it.
    Close,
}

/// One batch in flight.
#[derive(Debug)]
struct Flight {
    task: Arc<MapTask>,
    silence: Silence,
    windows: OpenWindows,
    step: Step,
    fate: Fate,
    watermark: Option<EventTime>,
    holder: Option<Place>,
    counts: Counts,
    state: StateSize,
    timing: Timing,
    /// What is remembered as of it, where anything is.
    memory: Option<Box<Memory>>,
}

/// A batch that every sink has and the log has committed.
#[derive(Debug)]
pub(crate) struct Done {
    /// What the sources may be told.
    pub(crate) positions: Vec<(SourceId, Positions)>,
    /// What it did.
    pub(crate) progress: Progress,
}

/// The batches in flight.
#[derive(Debug)]
pub(crate) struct Pipeline {
    flights: VecDeque<Flight>,
    dropped: Vec<BatchId>, // their rows are still held
    watermark: Watermark,
    laggard: Laggard,
    previous: Option<BatchTime>, // of the last batch completed
    open_windows: u64,           // after the last batch reduced
    totals: Totals,              // of all batches completed
    first: Duration,
    remembers: Remembers,
}

/// Whether it is noted what a stream would need to go on elsewhere: that costs a few copies a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Remembers {
    #[default]
    Nothing,
    EachBatch,
}

impl Pipeline {
    /// Nothing in flight; the first batch is taken to span `first`.
    pub(crate) fn new(rules: Vec<Option<EventTimeRule>>, first: Duration) -> Self {
        Self {
            flights: VecDeque::new(),
            dropped: Vec::new(),
            watermark: Watermark::new(rules),
            laggard: Laggard::default(),
            previous: None,
            open_windows: 0,
            totals: Totals::default(),
            first,
            remembers: Remembers::default(),
        }
    }

    /// Nothing in flight, after the batch that `memory` is of.
    pub(crate) fn resumed(rules: Vec<Option<EventTimeRule>>, first: Duration, memory: &Memory) -> Self {
        Self {
            watermark: Watermark::resumed(rules.clone(), memory),
            laggard: Laggard::resumed(memory),
            previous: Some(memory.time),
            open_windows: memory.open_windows,
            totals: memory.totals,
            ..Self::new(rules, first)
        }
    }

    /// From here on, what a stream would need to go on after each batch is noted.
    pub(crate) fn remember(&mut self) {
        self.remembers = Remembers::EachBatch;
    }

    /// What is to be remembered as of a batch that has been reduced, where that is noted.
    pub(crate) fn memory(&self, batch: BatchId) -> Option<Memory> {
        let flight = self.flights.iter().find(|flight| flight.task.batch == batch)?;
        let memory = flight.memory.as_deref().filter(|_| flight.step >= Step::Reduced)?;
        let mut totals = self.totals;
        let before = self.flights.iter().take_while(|other| other.task.batch <= batch);
        before.for_each(|flight| totals += flight.counts);
        Some(Memory { totals, open_windows: flight.state.windows, ..memory.clone() })
    }

    /// Whether no batch is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether windows were open after the last batch that was reduced.
    pub(crate) fn has_open_windows(&self) -> bool {
        self.open_windows > 0
    }

    /// Whether another batch may be planned. Without ticks it waits until the one before has been mapped: what
    /// arrives in between then comes to one batch and not to a queue of small ones.
    pub(crate) fn has_room(&self, trigger: Trigger) -> bool {
        let mapped = self.flights.back().is_none_or(|last| last.step >= Step::Mapped);
        self.flights.len() < IN_FLIGHT && (matches!(trigger, Trigger::Interval(_)) || mapped)
    }

    /// Takes in the next batch, whose PLAN is being recorded.
    pub(crate) fn push(
        &mut self,
        moment: Moment,
        batch: BatchId,
        time: BatchTime,
        ranges: Vec<(SourceId, Vec<OffsetRange>)>,
        silence: Silence,
        windows: OpenWindows,
    ) {
        self.flights.push_back(Flight {
            task: Arc::new(MapTask { batch, time, ranges, watermark: None }),
            silence,
            windows,
            step: Step::Planning,
            fate: Fate::Live,
            watermark: None,
            holder: None,
            counts: Counts::default(),
            state: StateSize::default(),
            timing: Timing::planned(moment.elapsed),
            memory: None,
        });
    }

    /// Notes what is known once a batch has been planned, where anything is remembered.
    pub(crate) fn planned(&mut self, batch: BatchId, known: impl FnOnce(&mut Memory)) {
        let flight = self.flights.iter_mut().find(|flight| flight.task.batch == batch);
        let Some(flight) = flight.filter(|_| self.remembers == Remembers::EachBatch) else { return };
        let mut memory = Memory { batch, time: flight.task.time, ..Memory::default() };
        known(&mut memory);
        for (source, ranges) in &flight.task.ranges {
            for range in ranges {
                memory.place(&(*source, range.at.clone())).position = Some(range.until);
            }
        }
        flight.memory = Some(Box::new(memory));
    }

    /// Counts offsets that were found lost when the batch was planned.
    pub(crate) fn lost(&mut self, batch: BatchId, offsets: u64) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.task.batch == batch) {
            flight.counts.lost += offsets;
        }
    }

    /// An entry of a batch is safe.
    pub(crate) fn recorded(&mut self, batch: BatchId, kind: EntryKind) {
        let step = match kind {
            EntryKind::Plan => Step::Planned,
            EntryKind::Prepare => Step::Prepared,
            EntryKind::Commit => Step::Committed,
        };
        self.reach(batch, step);
    }

    /// A batch has been mapped: W(n) is known. A warning where somebody holds it far back.
    pub(crate) fn mapped(
        &mut self,
        moment: Moment,
        batch: BatchId,
        partitions: &[PartitionReport],
        counts: Counts,
    ) -> Option<Error> {
        self.reach(batch, Step::Mapped);
        let flight = self.flights.iter_mut().find(|flight| flight.task.batch == batch);
        let flight = flight.filter(|flight| flight.fate == Fate::Live)?;
        let places =
            partitions.iter().map(|report| ((report.source, report.at.clone()), report.max_event_time));
        let largest: Vec<(Place, EventTime)> =
            places.filter_map(|(place, time)| Some((place, time?))).collect();
        let times = largest.iter().map(|(place, time)| (place, *time));
        flight.watermark = self.watermark.advance(&flight.silence, times);
        flight.holder = self.watermark.holder().cloned();
        flight.counts += counts;
        flight.timing.mapped(moment.elapsed);
        let told = largest.iter().map(|(place, _)| place).collect();
        let warning = self.laggard.look(&self.watermark, &flight.silence, &told);
        if let Some(memory) = flight.memory.as_deref_mut() {
            self.watermark.remember(memory);
            self.laggard.remember(memory);
        }
        warning
    }

    /// A batch has been reduced.
    pub(crate) fn reduced(&mut self, moment: Moment, batch: BatchId, state: StateSize, counts: Counts) {
        if let Some(flight) = self.reach(batch, Step::Reduced) {
            flight.state = state;
            flight.counts += counts;
            flight.timing.reduced(moment.elapsed);
            self.open_windows = state.windows;
        }
    }

    /// Every sink has the batch.
    pub(crate) fn delivered(&mut self, moment: Moment, batch: BatchId) {
        if let Some(flight) = self.reach(batch, Step::Delivered) {
            flight.timing.delivered(moment.elapsed);
        }
    }

    fn reach(&mut self, batch: BatchId, step: Step) -> Option<&mut Flight> {
        let flight = self.flights.iter_mut().find(|flight| flight.task.batch == batch)?;
        flight.step = step;
        Some(flight)
    }

    /// A command of `batch` has failed; says what was to become of the batch before.
    pub(crate) fn failed(&mut self, batch: BatchId) -> Fate {
        let fate = self.flights.iter().find(|flight| flight.task.batch == batch).map(|flight| flight.fate);
        self.drop_where(|flight| flight.task.batch == batch);
        fate.unwrap_or(Fate::GivenUp)
    }

    /// Gives up every batch from `batch` on; those before it are finished. Says what becomes of the running map.
    pub(crate) fn cut(&mut self, batch: BatchId) -> Fate {
        self.give_up(|flight| flight.task.batch >= batch)
    }

    /// Gives up every batch that no sink has begun to take: one that some sink may have is finished, since it
    /// would otherwise come again, unless that sink gives it up itself.
    pub(crate) fn abandon(&mut self) {
        self.give_up(|flight| flight.step < Step::Delivering);
    }

    fn give_up(&mut self, which: impl Fn(&Flight) -> bool) -> Fate {
        let mut map = Fate::Live;
        for flight in self.flights.iter_mut().filter(|flight| flight.fate == Fate::Live && which(flight)) {
            flight.fate = Fate::GivenUp;
            if flight.step == Step::Mapping {
                map = Fate::GivenUp;
            }
        }
        map
    }

    /// The next command of every batch that can have one.
    pub(crate) fn advance(&mut self, moment: Moment) -> Vec<Command> {
        self.drop_where(|flight| flight.fate == Fate::GivenUp && !flight.step.is_busy());
        let mut commands: Vec<_> = self.dropped.drain(..).map(Command::Discard).collect();
        let mut before = None;
        for flight in &mut self.flights {
            if flight.fate == Fate::Live {
                commands.extend(flight.next(moment, before, &self.watermark));
            }
            before = Some(flight.step);
        }
        commands
    }

    fn drop_where(&mut self, which: impl Fn(&Flight) -> bool) {
        self.dropped
            .extend(self.flights.iter().filter(|flight| which(flight)).map(|flight| flight.task.batch));
        self.flights.retain(|flight| !which(flight));
    }

    /// Takes out the oldest batch if it has been committed.
    pub(crate) fn complete(&mut self, moment: Moment, planner: &Planner) -> Option<Done> {
        self.flights.front().filter(|flight| flight.step == Step::Committed)?;
        let flight = self.flights.pop_front()?;
        let span = self.previous.map_or(self.first, |previous| flight.task.time.since(previous));
        self.previous = Some(flight.task.time);
        self.totals += flight.counts;
        let positions = positions(&flight.task);
        let progress = Progress { totals: self.totals, ..flight.progress(moment, planner, span) };
        Some(Done { positions, progress })
    }
}

impl Flight {
    /// What comes next, given how far the batch before has come. Maps, reduces and deliveries each go in order of
    /// the batches, and a batch is prepared only once the one before has been committed.
    fn next(&mut self, moment: Moment, before: Option<Step>, watermark: &Watermark) -> Option<Command> {
        let after = |step| before.is_none_or(|before| before >= step);
        match self.step {
            Step::Planned if after(Step::Mapped) => Some(self.map(moment, watermark)),
            Step::Mapped if after(Step::Reduced) => Some(self.reduce(moment)),
            Step::Reduced if before.is_none() => Some(self.prepare()),
            Step::Prepared => Some(self.deliver(moment)),
            Step::Delivered => Some(self.commit()),
            _ => None,
        }
    }

    fn map(&mut self, moment: Moment, watermark: &Watermark) -> Command {
        self.step = Step::Mapping;
        self.timing.mapping(moment.elapsed);
        self.task = Arc::new(MapTask { watermark: watermark.value(), ..MapTask::clone(&self.task) });
        Command::Map(Arc::clone(&self.task))
    }

    fn reduce(&mut self, moment: Moment) -> Command {
        self.step = Step::Reducing;
        self.timing.reducing(moment.elapsed);
        let closing = match self.windows {
            OpenWindows::Stay => self.watermark,
            OpenWindows::Close => Some(EventTime::END),
        };
        Command::Reduce(Arc::clone(&self.task), closing)
    }

    fn prepare(&mut self) -> Command {
        self.step = Step::Preparing;
        Command::Record(Entry::Prepare { batch: self.task.batch, watermark: self.watermark })
    }

    fn deliver(&mut self, moment: Moment) -> Command {
        self.step = Step::Delivering;
        self.timing.delivering(moment.elapsed);
        Command::Deliver(Arc::clone(&self.task))
    }

    fn commit(&mut self) -> Command {
        self.step = Step::Committing;
        Command::Record(Entry::Commit { batch: self.task.batch })
    }

    fn progress(self, moment: Moment, planner: &Planner, span: Duration) -> Progress {
        let ranges = || {
            self.task.ranges.iter().flat_map(|(source, ranges)| ranges.iter().map(|range| (*source, range)))
        };
        let mut progress = Progress {
            batch: self.task.batch,
            time: self.task.time,
            ranges: ranges().map(|(_, range)| range.clone()).collect(),
            counts: self.counts,
            lag: ranges().map(|(source, range)| (range.at.clone(), planner.lag(source, range))).collect(),
            watermark: self.watermark,
            watermark_holder: self.holder.map(|(_, at)| at),
            state_bytes: self.state.bytes,
            state_entries: self.state.entries,
            open_windows: self.state.windows,
            ..Progress::default()
        };
        self.timing.write(&mut progress, moment.elapsed, span);
        progress
    }
}

fn positions(task: &MapTask) -> Vec<(SourceId, Positions)> {
    let of = |ranges: &[OffsetRange]| ranges.iter().map(|range| (range.at.clone(), range.until)).collect();
    task.ranges.iter().map(|(source, ranges)| (*source, of(ranges))).collect()
}
