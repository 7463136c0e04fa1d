//! The driver's decisions, as a pure state machine: what happened goes in, what to do comes out.
//!
//! It does no I/O, reads no clock and has no thread: the time comes with each input. The loop in production and
//! the simulation in the tests perform its commands and tell it what became of them, in whatever order. It holds
//! no row: payloads wait with whoever performs the commands.

use std::sync::Arc;
use std::time::Duration;

use crate::driver::log::{Entry, EntryKind};
use crate::driver::memory::Memory;
use crate::driver::pipeline::{Fate, OpenWindows, Pipeline};
use crate::driver::planning::{Draft, Pace, Planner, SourceRule, check_there, restart};
use crate::driver::rate::RateLimit;
use crate::driver::schedule::Schedule;
use crate::driver::shutdown::{Acknowledging, Shutdown};
use crate::driver::steady::Steady;
use crate::driver::watermark::{EventTimeRule, Idleness, Place, Standing, longest_step};
use crate::driver::{Limits, Stop, Trigger};
use crate::error::{Error, Result};
use crate::event::{Counts, Event, Positions};
use crate::exec::{MapTask, PartitionReport, StateSize};
use crate::ingest::{Bound, Head, Loss, OnLoss};
use crate::plan::SourceId;
use crate::time::{BatchId, BatchTime, EventTime};

/// So long a start is tried again while the sources say that what they lack passes by itself: a broker that comes back, a
/// partition whose leader is being chosen.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// When something happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// The time of day.
    pub now: BatchTime,
    /// Time that never goes back, for measuring.
    pub elapsed: Duration,
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Begin. The first input, once.
    Start,
    /// Every sink is open.
    Opened,
    /// The answers to [`Command::Resolve`], in its order.
    Resolved(Vec<Positions>),
    /// The answer to [`Command::AskHeads`]: of each source, in order.
    Heads(Vec<Vec<Head>>),
    /// A source says that records may have arrived.
    Woken,
    /// The time asked for by [`Command::WakeAt`] may have come.
    Due,
    /// The entry is safe.
    Recorded(BatchId, EntryKind),
    /// The batch has been mapped.
    Mapped {
        /// The batch.
        batch: BatchId,
        /// What each partition brought.
        partitions: Vec<PartitionReport>,
        /// What was counted.
        counts: Counts,
    },
    /// The batch has been reduced.
    Reduced {
        /// The batch.
        batch: BatchId,
        /// How much state there is now.
        state: StateSize,
        /// What was counted.
        counts: Counts,
    },
    /// Every sink has the batch.
    Delivered(BatchId),
    /// The sources were told the positions; what each refused.
    Acknowledged(Vec<Error>),
    /// Every sink is closed.
    Closed,
    /// A command failed.
    Failed(Task, Error),
    /// The stream is to end.
    Stop(Stop),
}

/// Which command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// [`Command::OpenSinks`].
    Open,
    /// [`Command::Resolve`].
    Resolve,
    /// [`Command::AskHeads`].
    Heads,
    /// [`Command::Record`].
    Record(BatchId),
    /// [`Command::Map`].
    Map(BatchId),
    /// [`Command::Reduce`].
    Reduce(BatchId),
    /// [`Command::Deliver`].
    Deliver(BatchId),
    /// [`Command::Acknowledge`], in a way that is a defect: a refusal is [`Input::Acknowledged`].
    Acknowledge,
    /// [`Command::CloseSinks`].
    Close,
}

/// A question to a source, asked once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The source.
    pub source: SourceId,
    /// What the answer is for.
    pub purpose: Purpose,
    /// What is meant.
    pub bound: Bound,
}

/// What a resolved bound is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading starts there.
    Starting,
    /// Reading ends there, or before.
    Ending,
    /// The log ends there now: reading cannot start beyond.
    Limit,
    /// The log begins there: what would start beyond its end starts there instead.
    Beginning,
}

/// What the machine wants done. Each command down to [`Command::CloseSinks`] is answered by exactly one input; once
/// it has been stopped, the machine may finish without the answers of the sources.
#[derive(Clone, Debug)]
pub enum Command {
    /// Open every sink.
    OpenSinks,
    /// Ask the sources.
    Resolve(Vec<Question>),
    /// Ask every source for its heads.
    AskHeads,
    /// Make an entry safe.
    Record(Entry),
    /// Map a batch.
    Map(Arc<MapTask>),
    /// Reduce a batch that was mapped; with W(n).
    Reduce(Arc<MapTask>, Option<EventTime>),
    /// Deliver a batch that was reduced.
    Deliver(Arc<MapTask>),
    /// Tell the sources what has been processed.
    Acknowledge(Vec<(SourceId, Positions)>),
    /// Close every sink that was opened.
    CloseSinks,
    /// Give [`Input::Due`] at this time; replaces the one asked for before. `None`: no more.
    WakeAt(Option<BatchTime>),
    /// Tell the listeners.
    Emit(Event),
    /// Ask the running map to give up.
    CancelMap,
    /// Ask everybody to give up: the running map, the sinks, opening or delivering, and whoever tells the sources.
    CancelAll,
    /// Let go of the rows of a batch that will not be finished: the memory that they count to may be what the
    /// cancelled map waits for.
    Discard(BatchId),
    /// The stream has ended, with this error if any; the last command.
    Finish(Option<Error>),
}

/// A source as the machine sees it.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// The name, for errors.
    pub name: String,
    /// Where it starts.
    pub starting: Bound,
    /// Where it ends, if it does.
    pub ending: Option<Bound>,
    /// How it tells event time, if it does.
    pub event_time: Option<EventTimeRule>,
    /// At most this many records a second and partition.
    pub max_rate: Option<f64>,
    /// What becomes of it where records are gone.
    pub on_loss: OnLoss,
}

/// What an interval without records comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyBatches {
    /// A batch only when a partition falls idle by it.
    WhenDue,
    /// A batch at every tick: some sink wants to hear of each.
    Always,
}

/// What the machine is to do, as values.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sources, in the order of their numbers.
    pub sources: Vec<SourceSettings>,
    /// When batches are due.
    pub trigger: Trigger,
    /// How much a batch may take on.
    pub limits: Limits,
    /// What an interval without records comes to.
    pub empty: EmptyBatches,
    /// What becomes of open windows when every source has been read to its end.
    pub at_end: OpenWindows,
}

impl Settings {
    fn pace(&self) -> Pace {
        match self.trigger {
            Trigger::Interval(interval) => {
                Pace { first: interval.duration(), longest: longest_step(Some(interval)) }
            }
            Trigger::AsSoonAsPossible | Trigger::AvailableNow => {
                Pace { first: longest_step(None), longest: longest_step(None) }
            }
        }
    }

    /// How long a stream of this trigger may do nothing.
    fn patience(&self) -> Duration {
        match self.trigger {
            Trigger::Interval(interval) => interval.duration(),
            Trigger::AsSoonAsPossible | Trigger::AvailableNow => Duration::ZERO,
        }
    }

    /// Batches without ticks have no interval that they could outlast.
    fn rate_limit(&self) -> Option<RateLimit> {
        let Trigger::Interval(interval) = self.trigger else { return None };
        self.limits.back_pressure.map(|settings| RateLimit::new(settings, interval.duration()))
    }

    fn event_times(&self) -> Vec<Option<EventTimeRule>> {
        self.sources.iter().map(|source| source.event_time).collect()
    }

    fn source_rules(&self) -> Vec<SourceRule> {
        let available = self.trigger == Trigger::AvailableNow;
        let rule = |source: &SourceSettings| SourceRule {
            name: source.name.clone(),
            bounded: available || source.ending.is_some(),
            max_rate: source.max_rate,
            on_loss: source.on_loss,
        };
        self.sources.iter().map(rule).collect()
    }

    /// What has to be asked at start. With `available_now` what is there is asked for beside an `ending` of the
    /// source's own, since that may lie in the future.
    fn questions(&self) -> Vec<Question> {
        let available = (self.trigger == Trigger::AvailableNow).then_some(Bound::Latest);
        let of_source = |(source, settings): (usize, &SourceSettings)| {
            let question =
                move |purpose| move |bound: Bound| Question { source: SourceId(source), purpose, bound };
            let starting = std::iter::once(settings.starting.clone()).map(question(Purpose::Starting));
            let endings = settings.ending.clone().into_iter().chain(available.clone());
            starting.chain(endings.map(question(Purpose::Ending))).collect::<Vec<_>>()
        };
        let mut questions: Vec<Question> = Vec::new();
        for source in self.sources.iter().enumerate() {
            questions.extend(of_source(source));
            let remembered = source.1.starting.is_remembered();
            questions.extend(self.limits_of(|id| remembered && id.0 == source.0));
        }
        questions
    }

    /// What has to be asked of sources that start at offsets which were known before: after the start and of the log
    /// itself, since heads may be older than a position that is right.
    fn limits_of(&self, which: impl Fn(SourceId) -> bool) -> Vec<Question> {
        let of_source = |(source, settings): (usize, &SourceSettings)| {
            let question = move |purpose, bound| Question { source: SourceId(source), purpose, bound };
            let beginning =
                (settings.on_loss == OnLoss::Skip).then(|| question(Purpose::Beginning, Bound::Earliest));
            std::iter::once(question(Purpose::Limit, Bound::Latest)).chain(beginning).collect::<Vec<_>>()
        };
        let chosen = self.sources.iter().enumerate().filter(|(source, _)| which(SourceId(*source)));
        chosen.flat_map(of_source).collect()
    }
}

/// What is known of the sources before the first plan, and whether a plan is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    Nothing,
    Bounds,
    /// The bounds could not be had, and are asked for again in a while.
    BoundsAgain,
    Heads,
}

/// The driver's decisions.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    questions: Vec<Question>,
    planner: Planner,
    rate_limit: Option<RateLimit>,
    schedule: Schedule,
    steady: Steady,
    idleness: Idleness,
    pipeline: Pipeline,
    acknowledging: Acknowledging,
    shutdown: Shutdown,
    asking: Asking,
    failing_since: Option<Duration>, // since when the bounds cannot be had
    opening: bool,
    started: bool,
    at_once: bool,        // it was asked to stop so
    lost: u64,            // offsets, which no batch has counted yet
    past: Option<Memory>, // what it goes on from
    next: BatchId,
    wake: Option<BatchTime>,
    commands: Vec<Command>,
}

impl Machine {
    /// A machine that has not begun; ticks count from `now`.
    pub fn new(settings: Settings, now: BatchTime) -> Self {
        let (pace, rate_limit) = (settings.pace(), settings.rate_limit());
        let mut planner = Planner::new(settings.source_rules(), settings.limits, pace);
        planner.allow(rate_limit.as_ref().and_then(RateLimit::records));
        Self {
            questions: settings.questions(),
            planner,
            rate_limit,
            schedule: Schedule::new(settings.trigger, now),
            steady: Steady::new(settings.patience()),
            idleness: Idleness::new(settings.event_times(), pace.longest),
            pipeline: Pipeline::new(settings.event_times(), pace.first),
            acknowledging: Acknowledging::default(),
            shutdown: Shutdown::default(),
            asking: Asking::Nothing,
            failing_since: None,
            opening: false,
            started: false,
            at_once: false,
            lost: 0,
            past: None,
            next: BatchId(0),
            wake: None,
            commands: Vec::new(),
            settings,
        }
    }

    /// A machine that has not begun, and goes on after the batch that `memory` is of: with the same watermark, the next
    /// number, a later time, and from where each partition was read to. Sources that were not there before start where
    /// their settings say, and so do none of a source's new partitions, which are read from their beginning.
    pub fn resumed(settings: Settings, now: BatchTime, memory: &Memory) -> Self {
        let names: Vec<String> = settings.sources.iter().map(|source| source.name.clone()).collect();
        let memory = memory.of_sources(&names);
        let (steady, set_back_by) = Steady::resumed(settings.patience(), now, memory.time);
        let (pace, rules) = (settings.pace(), settings.event_times());
        let mut questions = settings.questions();
        questions.retain(|question| question.purpose != Purpose::Starting || !memory.knows(question.source));
        let asked: Vec<Question> = questions.clone();
        let is_asked =
            |source| asked.iter().any(|other| other.source == source && other.purpose == Purpose::Limit);
        questions.extend(settings.limits_of(|source| memory.knows(source) && !is_asked(source)));
        let warnings = set_back_by.map(|back| Command::Emit(Event::Warning(set_back(back))));
        Self {
            questions,
            schedule: Schedule::resumed(settings.trigger, steady.of_day(now), memory.time),
            steady,
            idleness: Idleness::resumed(rules.clone(), pace.longest, &memory),
            pipeline: Pipeline::resumed(rules, pace.first, &memory),
            next: memory.batch.next(),
            past: Some(memory),
            commands: warnings.into_iter().collect(),
            ..Self::new(settings, now)
        }
    }

    /// The same, noting from here on what a stream would need to go on after each batch.
    #[must_use]
    pub fn remembering(mut self) -> Self {
        self.pipeline.remember();
        self
    }

    /// What is to be remembered as of a batch that has been reduced and not been completed, where that is noted.
    pub fn memory(&self, batch: BatchId) -> Option<Memory> {
        let sources = self.settings.sources.iter().map(|source| source.name.clone()).collect();
        self.pipeline.memory(batch).map(|memory| Memory { sources, ..memory })
    }

    /// Takes in what happened at `moment` and says what to do about it.
    pub fn handle(&mut self, moment: Moment, input: Input) -> Vec<Command> {
        let moment = self.look(moment);
        match input {
            Input::Start => self.start(),
            Input::Opened => self.opening = false,
            // An answer that came after the machine had given up on it tells nothing that is still wanted.
            Input::Resolved(answers) if self.asking == Asking::Bounds => self.resolved(&answers),
            Input::Heads(heads) if self.asking == Asking::Heads => self.observed(moment, &heads),
            Input::Failed(Task::Heads | Task::Resolve, _) if self.asking == Asking::Nothing => {}
            Input::Resolved(_) | Input::Heads(_) => {}
            Input::Woken => self.schedule.wake(),
            Input::Due => self.wake = None,
            Input::Acknowledged(refusals) => {
                let warnings = self.acknowledging.answered(refusals);
                self.commands.extend(warnings.into_iter().map(|error| Command::Emit(Event::Warning(error))));
            }
            Input::Closed => self.shutdown.closed(),
            Input::Stop(stop) => self.stop(stop),
            Input::Failed(task, error) => self.failed(moment, task, error),
            Input::Recorded(..) | Input::Mapped { .. } | Input::Reduced { .. } | Input::Delivered(_) => {
                self.progressed(moment, input);
            }
        }
        self.proceed(moment);
        std::mem::take(&mut self.commands)
    }

    /// The moment in the stream's own time, which is what all decisions go by.
    fn look(&mut self, moment: Moment) -> Moment {
        if let Some(back) = self.steady.look(moment) {
            self.commands.push(Command::Emit(Event::Warning(set_back(back))));
        }
        Moment { now: self.steady.of_day(moment.now), ..moment }
    }

    fn start(&mut self) {
        self.opening = true;
        self.asking = Asking::Bounds;
        self.commands.push(Command::OpenSinks);
        self.commands.push(Command::Resolve(self.questions.clone()));
    }

    fn resolved(&mut self, answers: &[Positions]) {
        self.asking = Asking::Nothing;
        self.schedule.reached();
        let mut begun = Vec::new();
        for source in (0..self.settings.sources.len()).map(SourceId) {
            let asked = self.questions.iter().zip(answers).filter(|(question, _)| question.source == source);
            let asked: Vec<_> = asked.map(|(question, answer)| (question.purpose, answer)).collect();
            let of = |wanted| {
                asked.iter().filter(move |(purpose, _)| *purpose == wanted).map(|(_, answer)| *answer)
            };
            let past = self.past.as_ref().filter(|past| past.knows(source));
            let remembered = past.map(|past| past.positions(source));
            let Some(mut starting) = remembered.or_else(|| of(Purpose::Starting).next().cloned()) else {
                continue;
            };
            let ending = of(Purpose::Ending).cloned().reduce(|a, b| earlier(&a, &b));
            let (limit, beginning) = (of(Purpose::Limit).next(), of(Purpose::Beginning).next());
            let losses = match (limit, beginning) {
                (Some(limit), Some(beginning)) => Ok(restart(&mut starting, limit, beginning)),
                (Some(limit), None) => check_there(&starting, limit).map(|()| Vec::new()),
                (None, _) => Ok(Vec::new()),
            };
            self.planner.follow(source, &starting, ending.as_ref());
            begun.push((source, starting));
            if let Some(past) = &self.past {
                self.planner.recall(source, past);
            }
            self.settle(
                source,
                losses.map_err(|error| error.at(format!("source {}", self.source_name(source)))),
            );
        }
        self.acknowledging.start(begun);
    }

    /// Counts and tells of what a source has lost, or fails where it may not.
    fn settle(&mut self, source: SourceId, losses: Result<Vec<Loss>>) {
        match losses {
            Ok(losses) => {
                self.lost += losses.iter().map(Loss::offsets).sum::<u64>();
                let place = format!("source {}", self.source_name(source));
                let warnings = losses.iter().map(|loss| loss.warning().at(place.clone()));
                self.commands.extend(warnings.map(|warning| Command::Emit(Event::Warning(warning))));
            }
            Err(error) => self.fail(error),
        }
    }

    fn source_name(&self, source: SourceId) -> &str {
        self.settings.sources.get(source.0).map_or("", |source| source.name.as_str())
    }

    fn observed(&mut self, moment: Moment, heads: &[Vec<Head>]) {
        self.asking = Asking::Nothing;
        self.schedule.answered(moment.now);
        for (source, heads) in heads.iter().enumerate() {
            let losses = self.planner.observe(SourceId(source), heads);
            self.settle(SourceId(source), losses);
        }
    }

    fn progressed(&mut self, moment: Moment, input: Input) {
        match input {
            Input::Recorded(batch, kind) => self.pipeline.recorded(batch, kind),
            Input::Mapped { batch, partitions, counts } => {
                self.planner.learn(&partitions);
                let warning = self.pipeline.mapped(moment, batch, &partitions, counts);
                self.commands.extend(warning.map(|error| Command::Emit(Event::Warning(error))));
            }
            Input::Reduced { batch, state, counts } => self.pipeline.reduced(moment, batch, state, counts),
            Input::Delivered(batch) => self.pipeline.delivered(moment, batch),
            _ => {}
        }
    }

    fn stop(&mut self, stop: Stop) {
        self.shutdown.stop();
        // A source that does not answer must not hold the end: nothing is planned from its answer any more.
        self.asking = Asking::Nothing;
        if stop == Stop::Now {
            self.at_once = true;
            self.pipeline.abandon();
            self.commands.push(Command::CancelAll);
        } else {
            self.call_off_opening();
        }
    }

    /// Before the sinks are open nothing has been planned: an end, of whatever kind, has nothing to wait for.
    fn call_off_opening(&mut self) {
        if self.opening {
            self.commands.push(Command::CancelAll);
        }
    }

    fn failed(&mut self, moment: Moment, task: Task, error: Error) {
        match task {
            // Sources that cannot be asked for a while cost time, not the stream: nothing was planned from them.
            Task::Heads if error.is_retriable() => {
                self.asking = Asking::Nothing;
                return self.unanswered(moment, error);
            }
            Task::Resolve if error.is_retriable() && self.may_start_later(moment) => {
                self.asking = Asking::BoundsAgain;
                return self.unanswered(moment, error);
            }
            Task::Heads | Task::Resolve => self.asking = Asking::Nothing,
            Task::Open => {
                self.opening = false;
                // Given up because it was asked to: there was nothing to open for any more.
                if self.shutdown.has_begun() && error.is_cancelled() {
                    return;
                }
            }
            Task::Close => self.shutdown.closed(),
            Task::Acknowledge => _ = self.acknowledging.answered(Vec::new()),
            // Given up because it was asked to: not delivered, and so neither committed nor told to the sources.
            Task::Deliver(batch) if self.at_once && error.is_cancelled() => {
                self.pipeline.failed(batch);
                self.commands.push(Command::Emit(Event::Warning(error)));
                return;
            }
            Task::Record(batch) | Task::Map(batch) | Task::Reduce(batch) | Task::Deliver(batch) => {
                // A batch that was given up on fails because of that: the reason is known already.
                if self.pipeline.failed(batch) == Fate::GivenUp {
                    return;
                }
                if self.pipeline.cut(batch) == Fate::GivenUp {
                    self.commands.push(Command::CancelMap);
                }
            }
        }
        self.fail(error);
    }

    /// Told once, however often it is tried again.
    fn unanswered(&mut self, moment: Moment, error: Error) {
        if self.schedule.unanswered(moment.now) {
            self.commands.push(Command::Emit(Event::Warning(error)));
        }
    }

    fn may_start_later(&mut self, moment: Moment) -> bool {
        let since = *self.failing_since.get_or_insert(moment.elapsed);
        moment.elapsed.saturating_sub(since) < START_PATIENCE
    }

    /// Asks for the bounds again once it is time to.
    fn resolve_again(&mut self, moment: Moment) {
        if self.asking == Asking::BoundsAgain && !self.schedule.is_backing_off(moment.now) {
            self.asking = Asking::Bounds;
            self.commands.push(Command::Resolve(self.questions.clone()));
        }
    }

    fn fail(&mut self, error: Error) {
        if self.shutdown.fail(&error) {
            self.commands.push(Command::Emit(Event::Failed(error)));
            self.call_off_opening();
        }
    }

    fn proceed(&mut self, moment: Moment) {
        self.resolve_again(moment);
        self.begin();
        self.commands.extend(self.pipeline.advance(moment));
        self.complete(moment);
        if self.started && !self.shutdown.has_begun() {
            self.plan(moment);
        }
        self.commands.extend(self.acknowledging.next());
        self.finish();
        self.sleep(moment);
    }

    fn begin(&mut self) {
        let ready = !self.opening && self.asking == Asking::Nothing;
        if !self.started && ready && !self.shutdown.has_begun() {
            self.started = true;
            self.commands.push(Command::Emit(Event::Started(self.next)));
        }
    }

    /// Lets go of a batch that has been committed; the next one may then be prepared, and another planned.
    fn complete(&mut self, moment: Moment) {
        while let Some(mut done) = self.pipeline.complete(moment, &self.planner) {
            self.limit(|limit| limit.learn(moment.now, &done.progress));
            done.progress.rate_limit = self.rate_limit.as_ref().and_then(RateLimit::rate);
            self.acknowledging.owe(done.positions);
            self.commands.push(Command::Emit(Event::Completed(Arc::new(done.progress))));
            self.commands.extend(self.pipeline.advance(moment));
        }
    }

    /// Has back-pressure, where there is any, take in what has happened.
    fn limit(&mut self, happened: impl FnOnce(&mut RateLimit)) {
        let Some(limit) = &mut self.rate_limit else { return };
        happened(limit);
        self.planner.allow(limit.records());
    }

    fn plan(&mut self, moment: Moment) {
        if self.planner.has_ended() && self.lost == 0 {
            if self.pipeline.is_empty() {
                self.shutdown.stop();
            }
            return;
        }
        if self.asking != Asking::Nothing || !self.pipeline.has_room(self.settings.trigger) {
            return;
        }
        let Some(time) = self.schedule.due(moment.now) else { return };
        if !self.schedule.must_ask(moment.now) {
            return self.decide(moment, time);
        }
        if !self.schedule.is_backing_off(moment.now) && self.gathers_until(moment).is_none() {
            self.schedule.ask();
            self.asking = Asking::Heads;
            self.commands.push(Command::AskHeads);
        }
    }

    /// Until when the sources are not asked what else there is: the batch in flight took all that they knew of.
    fn gathers_until(&self, moment: Moment) -> Option<BatchTime> {
        let took_all = !self.pipeline.is_empty() && !self.planner.has_backlog();
        let end = self.schedule.gathers_until().filter(|end| moment.now < *end);
        end.filter(|_| took_all && self.schedule.must_ask(moment.now))
    }

    fn decide(&mut self, moment: Moment, time: BatchTime) {
        self.planner.begin(time.min(moment.now));
        let draft = self.planner.draft(time, moment.now);
        if self.is_wanted(&draft) {
            self.adopt(moment, draft);
        } else {
            self.schedule.skipped(time);
        }
    }

    fn is_wanted(&self, draft: &Draft) -> bool {
        let always = || self.settings.empty == EmptyBatches::Always && self.ticks();
        let silent = || self.silence_due(&draft.standings).is_some_and(|due| draft.time >= due);
        !draft.is_empty() || self.lost > 0 || always() || silent()
    }

    /// When a plan that reads nothing is due: for silence to count, and for open windows to end.
    fn silence_due(&self, standings: &[(Place, Standing)]) -> Option<BatchTime> {
        let waiting = self.pipeline.has_open_windows();
        self.idleness.due(standings).or_else(|| self.idleness.grows(standings).filter(|_| waiting))
    }

    fn ticks(&self) -> bool {
        matches!(self.settings.trigger, Trigger::Interval(_))
    }

    fn adopt(&mut self, moment: Moment, draft: Draft) {
        let batch = self.next;
        self.next = batch.next();
        let at_end = draft.at_end(&self.planner);
        self.planner.adopt(&draft);
        self.limit(|limit| limit.planned(draft.records()));
        if !self.planner.has_backlog() {
            self.limit(RateLimit::caught_up);
        }
        self.schedule.planned(draft.time);
        let silence = self.idleness.plan(draft.time, &draft.standings);
        let Draft { time, ranges, .. } = draft;
        let flat = ranges.iter().flat_map(|(_, ranges)| ranges.iter().cloned()).collect();
        self.commands.push(Command::Emit(Event::Planned { batch, time, ranges: flat, at: moment.now }));
        self.commands.push(Command::Record(Entry::Plan { batch, time, ranges: ranges.clone(), at_end }));
        let windows = if self.planner.has_ended() { self.settings.at_end } else { OpenWindows::Stay };
        self.pipeline.push(moment, batch, time, ranges, silence, windows);
        let (planner, idleness) = (&self.planner, &self.idleness);
        self.pipeline.planned(batch, |memory| {
            planner.remember(memory);
            idleness.remember(memory);
        });
        self.pipeline.lost(batch, std::mem::take(&mut self.lost));
    }

    /// Ends once nothing is under way: first what the sources are owed, then the sinks, then everything.
    fn finish(&mut self) {
        let busy = self.opening || self.asking != Asking::Nothing || !self.pipeline.is_empty();
        if !self.shutdown.has_begun() || busy {
            return;
        }
        if self.started && !self.at_once {
            self.commands.extend(self.acknowledging.last());
        }
        if self.acknowledging.is_settled() {
            self.commands.extend(self.shutdown.next());
        }
    }

    fn sleep(&mut self, moment: Moment) {
        let wake = self.next_wake(moment).map(|time| self.steady.to_day(time));
        if wake != self.wake {
            self.wake = wake;
            self.commands.push(Command::WakeAt(wake));
        }
    }

    fn next_wake(&self, moment: Moment) -> Option<BatchTime> {
        if self.asking == Asking::BoundsAgain {
            return self.schedule.retry_at();
        }
        let looks = self.started && !self.shutdown.has_begun() && self.asking == Asking::Nothing;
        if !looks || self.planner.has_ended() || !self.pipeline.has_room(self.settings.trigger) {
            return None;
        }
        let gathers_until = self.gathers_until(moment);
        if gathers_until.is_some() {
            return gathers_until;
        }
        let silence = self.silence_due(&self.planner.draft(moment.now, moment.now).standings);
        Some(self.schedule.next_look(moment.now, silence))
    }
}

fn set_back(by: Duration) -> Error {
    Error::source(format!(
        "expected the machine's clock to go on, found that it was set back by {by:.1?}: batches go on as if it had not been"
    ))
    .help("restart the stream where its batch times should be the time of day again")
}

/// Of each partition, the earlier of two ends; a partition that only one of them knows was not there for both.
fn earlier(a: &Positions, b: &Positions) -> Positions {
    let of_b = |at| b.iter().find(|(other, _)| other == at).map(|(_, offset)| *offset);
    a.iter().filter_map(|(at, offset)| Some((at.clone(), (*offset).min(of_b(at)?)))).collect()
}
