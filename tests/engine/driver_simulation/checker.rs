//! Decides whether the machine did right, from its commands and the answers to them.
//!
//! It is written from the rules and not from the machine, and shares nothing with it but the words.

use std::collections::{BTreeMap, BTreeSet};

use tidemill::driver::log::{Entry, EntryKind};
use tidemill::driver::machine::{Command, Input, Settings, Task};
use tidemill::driver::watermark::Place;
use tidemill::driver::{OpenWindows, Stop};
use tidemill::error::{Error, ErrorKind};
use tidemill::event::{Event, Positions};
use tidemill::exec::MapTask;
use tidemill::offset::{Offset, OffsetRange};
use tidemill::plan::SourceId;
use tidemill::time::{BatchId, BatchTime, EventTime};

use super::world::Partition;

/// A rule that was broken.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

type Check = Result<(), Violation>;

fn rule(holds: bool, broken: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Violation(broken())) }
}

/// What has been asked for, or has ended well, of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Mark {
    PlanAsked,
    Planned,
    MapAsked,
    Mapped,
    ReduceAsked,
    Reduced,
    PrepareAsked,
    Prepared,
    DeliverAsked,
    Delivered,
    CommitAsked,
    Committed,
    Reported,
}

#[derive(Debug)]
struct Planned {
    time: BatchTime,
    ranges: Vec<(SourceId, Vec<OffsetRange>)>,
}

pub(crate) struct Checker {
    max_records: u64,
    bounded: Vec<bool>,
    at_end: OpenWindows,
    closing: Option<BatchId>, // the one that was to close all windows
    starts: BTreeMap<Place, Offset>,
    positions: BTreeMap<Place, Offset>,
    endings: BTreeMap<Place, Offset>,
    plans: BTreeMap<BatchId, Planned>,
    marks: BTreeSet<(BatchId, Mark)>,
    after: BTreeMap<BatchId, Option<EventTime>>, // W(n), as reduce got it
    before: BTreeMap<BatchId, Option<EventTime>>, // W(n-1), as map got it
    committed: BTreeMap<Place, Offset>,
    told: BTreeMap<Place, Offset>,
    asked: BTreeSet<&'static str>,
    lost: bool,
    begun: bool,
    ended: Option<Stop>,
    failed_from: Option<BatchId>,
    called_off: BTreeSet<BatchId>, // by their sinks, which were asked to
    first: Option<String>,         // the first error that counts
    reported: Option<Error>,
    closed: bool,
}

impl Checker {
    pub(crate) fn new(settings: &Settings) -> Self {
        let available = settings.trigger == tidemill::driver::Trigger::AvailableNow;
        Self {
            max_records: settings.limits.max_records,
            bounded: settings.sources.iter().map(|source| available || source.ending.is_some()).collect(),
            at_end: settings.at_end,
            closing: None,
            starts: BTreeMap::new(),
            positions: BTreeMap::new(),
            endings: BTreeMap::new(),
            plans: BTreeMap::new(),
            marks: BTreeSet::new(),
            after: BTreeMap::new(),
            before: BTreeMap::new(),
            committed: BTreeMap::new(),
            told: BTreeMap::new(),
            asked: BTreeSet::new(),
            lost: false,
            begun: false,
            ended: None,
            failed_from: None,
            called_off: BTreeSet::new(),
            first: None,
            reported: None,
            closed: false,
        }
    }

    pub(crate) fn starts_at(&mut self, source: SourceId, positions: &Positions) {
        let places = positions.iter().map(|(at, offset)| ((source, at.clone()), *offset));
        self.starts.extend(places);
        self.positions.extend(self.starts.clone());
    }

    pub(crate) fn ends_at(&mut self, source: SourceId, positions: &Positions) {
        for (at, offset) in positions {
            let ending = self.endings.entry((source, at.clone())).or_insert(*offset);
            *ending = (*ending).min(*offset);
        }
    }

    pub(crate) fn appears(&mut self, place: &Place, earliest: Offset) {
        if !self.bounded[place.0.0] {
            self.positions.insert(place.clone(), earliest);
        }
    }

    pub(crate) fn records_lost(&mut self) {
        self.lost = true;
    }

    fn has(&self, batch: BatchId, mark: Mark) -> bool {
        self.marks.contains(&(batch, mark))
    }

    fn has_before(&self, batch: BatchId, mark: Mark) -> bool {
        batch.0 == 0 || self.has(BatchId(batch.0 - 1), mark)
    }

    fn mark(&mut self, batch: BatchId, mark: Mark) -> Check {
        rule(self.marks.insert((batch, mark)), || format!("{mark:?} of batch {batch} came twice"))
    }

    /// What the machine is told.
    pub(crate) fn input(&mut self, input: &Input) {
        match input {
            Input::Opened | Input::Closed => _ = self.asked.remove("sinks"),
            Input::Resolved(_) | Input::Heads(_) => _ = self.asked.remove("ask"),
            Input::Acknowledged(_) => _ = self.asked.remove("acknowledge"),
            Input::Recorded(batch, EntryKind::Plan) => self.marks.extend([(*batch, Mark::Planned)]),
            Input::Recorded(batch, EntryKind::Prepare) => self.marks.extend([(*batch, Mark::Prepared)]),
            Input::Recorded(batch, EntryKind::Commit) => self.commit(*batch),
            Input::Mapped { batch, .. } => self.end("map", *batch, Mark::Mapped),
            Input::Reduced { batch, .. } => self.end("reduce", *batch, Mark::Reduced),
            Input::Delivered(batch) => self.end("sinks", *batch, Mark::Delivered),
            Input::Stop(stop) => self.stop(*stop),
            Input::Failed(task, error) => self.fail(*task, error),
            Input::Start | Input::Woken | Input::Due => {}
        }
    }

    fn end(&mut self, worker: &'static str, batch: BatchId, mark: Mark) {
        self.asked.remove(worker);
        self.marks.insert((batch, mark));
    }

    fn commit(&mut self, batch: BatchId) {
        self.marks.insert((batch, Mark::Committed));
        for (source, ranges) in &self.plans[&batch].ranges {
            for range in ranges {
                self.committed.insert((*source, range.at.clone()), range.until);
            }
        }
    }

    fn stop(&mut self, stop: Stop) {
        if self.ended != Some(Stop::Now) {
            self.ended = Some(stop);
        }
        self.asked.remove("ask"); // it may end without the answer, which counts no more
    }

    fn fail(&mut self, task: Task, error: &Error) {
        let worker = match task {
            Task::Open | Task::Close | Task::Deliver(_) => "sinks",
            Task::Resolve | Task::Heads => "ask",
            Task::Map(_) => "map",
            Task::Reduce(_) => "reduce",
            Task::Acknowledge => "acknowledge",
            Task::Record(_) => "log",
        };
        let awaited = self.asked.remove(worker);
        if worker == "ask" && !awaited {
            return;
        }
        let batch = match task {
            Task::Record(batch) | Task::Map(batch) | Task::Reduce(batch) | Task::Deliver(batch) => {
                Some(batch)
            }
            _ => None,
        };
        if task == Task::Open && error.is_cancelled() {
            return; // the world has it given up only where it was called off
        }
        if let (Task::Deliver(batch), Some(Stop::Now), true) = (task, self.ended, error.is_cancelled()) {
            self.called_off.insert(batch);
        }
        let given_up = batch.is_some_and(|batch| self.is_given_up(batch));
        let may_pass = task == Task::Heads && error.is_retriable();
        if given_up || may_pass {
            return;
        }
        self.first.get_or_insert_with(|| error.to_string());
        let from = batch.unwrap_or(BatchId(self.plans.len() as u64));
        self.failed_from = Some(self.failed_from.map_or(from, |before| before.min(from)));
    }

    fn is_given_up(&self, batch: BatchId) -> bool {
        let stopped = self.ended == Some(Stop::Now) && !self.has(batch, Mark::DeliverAsked);
        let called_off = self.called_off.contains(&batch);
        stopped || called_off || self.failed_from.is_some_and(|from| batch >= from)
    }

    /// What the machine wants done.
    pub(crate) fn command(&mut self, command: &Command, world: &[Partition]) -> Check {
        rule(!self.closed, || format!("{command:?} after the end"))?;
        self.begun |= matches!(command, Command::Emit(Event::Started(_)));
        match command {
            Command::OpenSinks => self.busy("sinks"),
            Command::Resolve(_) | Command::AskHeads => self.busy("ask"),
            Command::Record(Entry::Plan { batch, time, ranges, .. }) => {
                self.plan(*batch, *time, ranges, world)
            }
            Command::Record(Entry::Prepare { batch, watermark }) => self.prepare(*batch, *watermark),
            Command::Record(Entry::Commit { batch }) => self.commits(*batch),
            Command::Map(task) => self.map(task),
            Command::Reduce(task, watermark) => self.reduce(task.batch, *watermark),
            Command::Deliver(task) => self.deliver(task.batch),
            Command::Acknowledge(positions) => self.acknowledge(positions),
            Command::CloseSinks => self.close(),
            Command::Emit(Event::Completed(progress)) => self.report(progress.batch),
            Command::Emit(Event::Failed(error)) => self.report_failure(error),
            Command::Finish(error) => self.finish(error.as_ref()),
            Command::CancelAll => rule(!self.begun || self.ended == Some(Stop::Now), || {
                "batches that were to be finished are cancelled".to_owned()
            }),
            Command::WakeAt(_) | Command::Emit(_) | Command::CancelMap => Ok(()),
            Command::Discard(batch) => {
                rule(self.is_given_up(*batch), || format!("batch {batch} was discarded alive"))
            }
        }
    }

    fn busy(&mut self, worker: &'static str) -> Check {
        rule(self.asked.insert(worker), || format!("{worker} was asked while busy"))
    }

    fn plan(
        &mut self,
        batch: BatchId,
        time: BatchTime,
        ranges: &[(SourceId, Vec<OffsetRange>)],
        world: &[Partition],
    ) -> Check {
        self.mark(batch, Mark::PlanAsked)?;
        rule(self.ended.is_none() && self.reported.is_none(), || {
            format!("PLAN {batch} after the end had begun")
        })?;
        rule(batch.0 == self.plans.len() as u64, || format!("PLAN {batch} out of order"))?;
        let uncommitted = self.plans.keys().filter(|batch| !self.has(**batch, Mark::Committed)).count();
        rule(uncommitted <= 1, || format!("PLAN {batch} is more than one ahead"))?;
        let last = self.plans.values().last().map(|planned| planned.time);
        rule(last.is_none_or(|last| last < time), || format!("the time of batch {batch} does not increase"))?;
        let total: u64 = ranges.iter().flat_map(|(_, ranges)| ranges).map(OffsetRange::len).sum();
        rule(total <= self.max_records, || format!("batch {batch} reads {total} records"))?;
        let count = ranges.iter().map(|(_, ranges)| ranges.len()).sum::<usize>();
        rule(count == self.positions.len(), || format!("PLAN {batch} names {count} partitions"))?;
        for (source, ranges) in ranges {
            ranges.iter().try_for_each(|range| self.range(*source, range, world))?;
        }
        self.plans.insert(batch, Planned { time, ranges: ranges.to_vec() });
        Ok(())
    }

    fn range(&mut self, source: SourceId, range: &OffsetRange, world: &[Partition]) -> Check {
        let place = (source, range.at.clone());
        let expected = self.positions.insert(place.clone(), range.until);
        rule(expected == Some(range.from), || format!("{range} does not begin at {expected:?}"))?;
        rule(range.from <= range.until, || format!("{range} goes back"))?;
        let stable =
            world.iter().find(|partition| partition.place == place).map(|partition| partition.stable);
        let there = range.is_empty() || stable.is_some_and(|stable| range.until.0 <= stable);
        rule(there, || format!("{range} is not there yet: {stable:?}"))?;
        let ending = self.endings.get(&place).copied();
        rule(range.is_empty() || ending.is_none_or(|ending| range.until <= ending), || {
            format!("{range} is behind its ending {ending:?}")
        })
    }

    fn alive(&self, what: &str, batch: BatchId) -> Check {
        rule(!self.is_given_up(batch), || format!("{what} {batch} after it was given up"))
    }

    fn map(&mut self, task: &MapTask) -> Check {
        let batch = task.batch;
        self.busy("map")?;
        self.alive("MAP", batch)?;
        self.mark(batch, Mark::MapAsked)?;
        rule(self.has(batch, Mark::Planned), || format!("MAP {batch} before its PLAN was safe"))?;
        rule(self.has_before(batch, Mark::Mapped), || {
            format!("MAP {batch} before the map of the one before")
        })?;
        let planned = &self.plans[&batch];
        let same = planned.time == task.time && planned.ranges == task.ranges;
        rule(same, || format!("MAP {batch} is not what was planned"))?;
        self.before.insert(batch, task.watermark);
        self.one_watermark(batch)
    }

    fn reduce(&mut self, batch: BatchId, watermark: Option<EventTime>) -> Check {
        self.busy("reduce")?;
        self.alive("REDUCE", batch)?;
        self.mark(batch, Mark::ReduceAsked)?;
        rule(self.has(batch, Mark::Mapped), || format!("REDUCE {batch} before its map"))?;
        rule(self.has_before(batch, Mark::Reduced), || {
            format!("REDUCE {batch} before that of the one before")
        })?;
        let closes = watermark == Some(EventTime::END);
        let due = self.at_end == OpenWindows::Close && self.is_last(batch);
        rule(closes == due, || format!("REDUCE {batch}: its windows close: {closes}, expected: {due}"))?;
        if closes {
            self.closing = Some(batch);
            return Ok(());
        }
        let last = self.after.values().last().copied().flatten();
        rule(watermark >= last, || format!("W({batch}) goes back from {last:?} to {watermark:?}"))?;
        self.after.insert(batch, watermark);
        self.one_watermark(batch)?;
        self.one_watermark(batch.next())
    }

    /// Whether nothing can come after this batch: every source ends, and has been read to its end.
    fn is_last(&self, batch: BatchId) -> bool {
        let read = |(place, ending): (&Place, &Offset)| self.positions.get(place) >= Some(ending);
        let newest = self.plans.keys().last() == Some(&batch);
        newest && self.bounded.iter().all(|bounded| *bounded) && self.endings.iter().all(read)
    }

    /// What map(n+1) got is what reduce(n) got, whichever came first.
    fn one_watermark(&self, batch: BatchId) -> Check {
        let Some(before) = self.before.get(&batch) else { return Ok(()) };
        let Some(after) = batch.0.checked_sub(1).and_then(|one| self.after.get(&BatchId(one))) else {
            return Ok(());
        };
        rule(before == after, || format!("MAP {batch} got {before:?}, the reduce before it {after:?}"))
    }

    fn prepare(&mut self, batch: BatchId, watermark: Option<EventTime>) -> Check {
        self.alive("PREPARE", batch)?;
        self.mark(batch, Mark::PrepareAsked)?;
        rule(self.has(batch, Mark::Reduced), || format!("PREPARE {batch} before its reduce"))?;
        // What closes the windows is no watermark: it is not kept.
        let same = match self.closing {
            Some(closing) if closing == batch => watermark != Some(EventTime::END),
            _ => self.after.get(&batch) == Some(&watermark),
        };
        rule(same, || format!("PREPARE {batch} with another watermark"))?;
        rule(self.has_before(batch, Mark::Committed), || format!("PREPARE {batch} before the COMMIT before"))
    }

    fn deliver(&mut self, batch: BatchId) -> Check {
        self.busy("sinks")?;
        self.alive("DELIVER", batch)?;
        self.mark(batch, Mark::DeliverAsked)?;
        rule(self.has(batch, Mark::Prepared), || format!("DELIVER {batch} before its PREPARE was safe"))?;
        rule(self.has_before(batch, Mark::Committed), || format!("DELIVER {batch} before the COMMIT before"))
    }

    fn commits(&mut self, batch: BatchId) -> Check {
        self.mark(batch, Mark::CommitAsked)?;
        rule(self.has(batch, Mark::Delivered), || format!("COMMIT {batch} before its delivery"))
    }

    fn acknowledge(&mut self, positions: &[(SourceId, Positions)]) -> Check {
        self.busy("acknowledge")?;
        let each = positions.iter().flat_map(|(source, positions)| {
            positions.iter().map(|(at, offset)| ((*source, at.clone()), *offset))
        });
        self.told = each.collect();
        let done = if self.committed.is_empty() { &self.starts } else { &self.committed };
        let too_far = self.told.iter().find(|(place, offset)| done.get(*place) < Some(*offset));
        rule(too_far.is_none(), || format!("told of {too_far:?}, which is not committed"))
    }

    fn report(&mut self, batch: BatchId) -> Check {
        self.mark(batch, Mark::Reported)?;
        rule(self.has(batch, Mark::Committed), || format!("batch {batch} reported before its COMMIT"))?;
        rule(self.has_before(batch, Mark::Reported), || format!("batch {batch} reported out of order"))
    }

    fn report_failure(&mut self, error: &Error) -> Check {
        rule(self.reported.is_none(), || format!("a second failure was reported: {error}"))?;
        let lost = self.lost && error.kind() == ErrorKind::DataLoss;
        if lost && self.first.is_none() {
            self.first = Some(error.to_string());
            self.failed_from = Some(BatchId(self.plans.len() as u64));
        }
        rule(self.first.as_ref() == Some(&error.to_string()), || {
            format!("{error} was reported, but first came {:?}", self.first)
        })?;
        self.reported = Some(error.clone());
        Ok(())
    }

    fn close(&mut self) -> Check {
        self.busy("sinks")?;
        rule(!self.asked.contains("map") && !self.asked.contains("reduce"), || {
            "closed while busy".to_owned()
        })?;
        // Where nothing was read, it is where reading would have begun.
        let unread = self.committed.is_empty() && self.told == self.starts;
        rule(unread || self.told == self.committed, || {
            format!("ends with {:?} told and {:?} committed", self.told, self.committed)
        })
    }

    fn finish(&mut self, error: Option<&Error>) -> Check {
        self.closed = true;
        rule(self.asked.is_empty(), || format!("ended while {:?} was under way", self.asked))?;
        let shown = error.map(ToString::to_string);
        rule(shown == self.first, || format!("ended with {shown:?}, but first came {:?}", self.first))?;
        for batch in self.plans.keys().filter(|batch| !self.is_given_up(**batch)) {
            rule(self.has(*batch, Mark::Reported), || {
                format!("batch {batch} was planned and never finished")
            })?;
        }
        let by_itself = self.ended.is_none() && error.is_none();
        rule(!by_itself || self.reached_endings(), || format!("ended too early: {:?}", self.positions))
    }

    fn reached_endings(&self) -> bool {
        self.endings
            .iter()
            .all(|(place, ending)| self.committed.get(place).or(self.positions.get(place)) >= Some(ending))
    }

    /// Nothing is under way and nothing will wake the machine: it would stand for ever.
    pub(crate) fn at_rest(rests: bool) -> Check {
        rule(!rests, || {
            "nothing is under way, no time was asked for, and the stream has not ended".to_owned()
        })
    }
}
