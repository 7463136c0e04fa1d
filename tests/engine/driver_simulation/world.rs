//! A world for the driver's machine: seeded, with commands that end late, out of order, or in failure.
//!
//! It performs no command: it remembers what was asked and answers when the seed says so. The checker decides
//! whether what the machine did was right, from commands and answers alone.

use std::time::Duration;

use tidemill::driver::machine::{
    Command, EmptyBatches, Input, Machine, Moment, Purpose, Question, Settings, SourceSettings, Task,
};
use tidemill::driver::watermark::{EventTimeRule, Place};
use tidemill::driver::{BackPressure, Limits, OpenWindows, Stop, Trigger};
use tidemill::error::Error;
use tidemill::event::{Counts, Positions};
use tidemill::exec::{MapTask, PartitionReport, StateSize};
use tidemill::ingest::{Bound, Head, OnLoss};
use tidemill::offset::{Offset, TopicPartition};
use tidemill::plan::SourceId;
use tidemill::time::{BatchTime, EventTime, Interval};

use super::checker::{Checker, Violation};
use super::sabotage::Driver;

/// After so many steps the stream is asked to stop …
const STEPS: usize = 160;

/// … and must have ended after so many more.
const STEPS_TO_END: usize = 2_000;

/// So many lines of a trace are shown with a violation.
const SHOWN: usize = 60;

/// What is there to read, as nobody but the world knows it.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) place: Place,
    pub(crate) earliest: i64,
    pub(crate) stable: i64,
    seen: bool, // by a resolve or a heads
}

pub(crate) struct World {
    random: fastrand::Rng,
    moment: Moment,
    settings: Settings,
    partitions: Vec<Partition>,
    under_way: Vec<Command>,
    timer: Option<BatchTime>,
    /// When the timer runs out: it takes no notice of a clock that is set back.
    due: Option<Duration>,
    checker: Checker,
    trouble: f64,
    cancelled: bool,
    trace: Vec<String>,
    finished: bool,
}

/// Runs one seed to its end; gives its trace, or what was wrong with it.
pub(crate) fn run(
    seed: u64,
    driver: impl FnOnce(Machine) -> Box<dyn Driver>,
) -> Result<Vec<String>, Violation> {
    let mut world = World::new(seed);
    let machine = Machine::new(world.settings.clone(), world.moment.now);
    let played = world.play(&mut *driver(machine));
    let shown = world.trace.len().saturating_sub(SHOWN);
    let with_trace =
        |violation: Violation| Violation(format!("{}\n{}", violation.0, world.trace[shown..].join("\n")));
    played.map_err(with_trace)?;
    Ok(world.trace)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = random_settings(&mut random);
        let partitions = random_partitions(&mut random, settings.sources.len());
        let trouble = *random.choice(&[0.0, 0.0, 0.01, 0.05]).unwrap();
        let now = BatchTime(random.i64(1_000_000..1_010_000));
        let checker = Checker::new(&settings);
        let moment = Moment { now, elapsed: Duration::ZERO };
        let (under_way, trace) = (Vec::new(), Vec::new());
        Self {
            random,
            moment,
            settings,
            partitions,
            under_way,
            timer: None,
            due: None,
            checker,
            trouble,
            cancelled: false,
            trace,
            finished: false,
        }
    }

    fn play(&mut self, driver: &mut dyn Driver) -> Result<(), Violation> {
        self.tell(driver, Input::Start)?;
        for step in 0..STEPS + STEPS_TO_END {
            if self.finished {
                return Ok(());
            }
            match step {
                0..STEPS => self.step(driver)?,
                STEPS => self.end(driver)?,
                _ => self.settle(driver)?,
            }
        }
        Err(Violation(format!("did not end; under way: {:?}", self.under_way)))
    }

    /// Nothing fails from here on, and the stream is asked to end.
    fn end(&mut self, driver: &mut dyn Driver) -> Result<(), Violation> {
        self.trouble = 0.0;
        self.tell(driver, Input::Stop(Stop::Graceful))
    }

    /// One thing happens: time passes, records arrive, a command ends, someone stops the stream.
    fn step(&mut self, driver: &mut dyn Driver) -> Result<(), Violation> {
        match self.random.u32(0..100) {
            0..20 => self.pass_time(driver),
            20..45 => self.change_sources(driver),
            45..95 => self.answer_one(driver),
            95..98 if self.trouble > 0.0 => self.stop(driver),
            98 if self.random.u32(0..4) == 0 => {
                self.set_clock();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Only what brings the end nearer.
    fn settle(&mut self, driver: &mut dyn Driver) -> Result<(), Violation> {
        if self.under_way.is_empty() { self.pass_time(driver) } else { self.answer_one(driver) }
    }

    fn pass_time(&mut self, driver: &mut dyn Driver) -> Result<(), Violation> {
        let by = *self.random.choice(&[1, 7, 40, 100, 250, 1_000]).unwrap();
        self.moment.now = self.moment.now.plus(Duration::from_millis(by));
        self.moment.elapsed += Duration::from_millis(by);
        match self.due {
            Some(due) if due <= self.moment.elapsed => self.tell(driver, Input::Due),
            _ => Ok(()),
        }
    }

    /// Someone sets the clock, most often back; nobody is told.
    fn set_clock(&mut self) {
        let by = *self.random.choice(&[-400_000, -20_000, -3_000, -300, 3_000, 50_000]).unwrap();
        self.moment.now = BatchTime(self.moment.now.0 + by);
    }

    fn stop(&mut self, driver: &mut dyn Driver) -> Result<(), Violation> {
        // Of all moments the one at which most can go wrong: some sink may have some of the rows.
        let delivering = self.under_way.iter().any(|command| matches!(command, Command::Deliver(_)));
        let stop = if !delivering && self.random.bool() { Stop::Graceful } else { Stop::Now };
        self.tell(driver, Input::Stop(stop))
    }

    fn change_sources(&mut self, driver: &mut dyn Driver) -> Result<(), Violation> {
        let index = self.random.usize(0..self.partitions.len());
        let grow = *self.random.choice(&[1, 3, 50, 400]).unwrap();
        self.partitions[index].stable += grow;
        if self.random.f64() < 0.02 {
            let (source, number) = (self.random.usize(0..self.settings.sources.len()), self.partitions.len());
            self.partitions.push(new_partition(source, number, &mut self.random));
        }
        if self.trouble > 0.0 && self.random.f64() < 0.02 {
            let partition = &mut self.partitions[index];
            partition.earliest = partition.stable;
            self.checker.records_lost();
        }
        if self.random.bool() { self.tell(driver, Input::Woken) } else { Ok(()) }
    }

    fn answer_one(&mut self, driver: &mut dyn Driver) -> Result<(), Violation> {
        if self.under_way.is_empty() {
            return Ok(());
        }
        let index = self.random.usize(0..self.under_way.len());
        let command = self.under_way.remove(index);
        let input =
            if self.random.f64() < self.trouble { self.failure(&command) } else { self.success(&command) };
        self.tell(driver, input)
    }

    fn failure(&mut self, command: &Command) -> Input {
        let number = self.trace.len();
        let error = Error::source(format!("injected {number}"));
        match command {
            Command::OpenSinks => Input::Failed(Task::Open, error),
            Command::Resolve(_) => Input::Failed(Task::Resolve, error),
            Command::AskHeads if self.random.bool() => Input::Failed(Task::Heads, error.retriable()),
            Command::AskHeads => Input::Failed(Task::Heads, error),
            Command::Record(entry) => Input::Failed(Task::Record(entry.batch()), error),
            Command::Map(task) => Input::Failed(Task::Map(task.batch), error),
            Command::Reduce(task, _) => Input::Failed(Task::Reduce(task.batch), error),
            Command::Deliver(task) => Input::Failed(Task::Deliver(task.batch), error),
            Command::Acknowledge(_) => Input::Acknowledged(vec![error]),
            Command::CloseSinks => Input::Failed(Task::Close, error),
            other => panic!("{other:?} has no answer"),
        }
    }

    fn success(&mut self, command: &Command) -> Input {
        match command {
            Command::OpenSinks if self.cancelled && self.random.bool() => {
                Input::Failed(Task::Open, Error::cancelled("the opening gave up"))
            }
            Command::OpenSinks => Input::Opened,
            Command::Resolve(questions) => {
                Input::Resolved(questions.iter().map(|q| self.resolve(q)).collect())
            }
            Command::AskHeads => Input::Heads(self.heads()),
            Command::Record(entry) => Input::Recorded(entry.batch(), entry.kind()),
            Command::Map(task) => self.map(task),
            Command::Reduce(task, _) => {
                Input::Reduced { batch: task.batch, state: StateSize::default(), counts: Counts::default() }
            }
            Command::Deliver(task) if self.cancelled && self.random.bool() => {
                Input::Failed(Task::Deliver(task.batch), Error::cancelled("the sink gave up"))
            }
            Command::Deliver(task) => Input::Delivered(task.batch),
            Command::Acknowledge(_) => Input::Acknowledged(Vec::new()),
            Command::CloseSinks => Input::Closed,
            other => panic!("{other:?} has no answer"),
        }
    }

    fn resolve(&mut self, question: &Question) -> Positions {
        let of_source = (0..self.partitions.len()).filter(|i| self.partitions[*i].place.0 == question.source);
        let of_source: Vec<usize> = of_source.collect();
        let positions: Positions = of_source.into_iter().map(|i| self.meant(i, &question.bound)).collect();
        match question.purpose {
            Purpose::Starting => self.checker.starts_at(question.source, &positions),
            Purpose::Ending => self.checker.ends_at(question.source, &positions),
            Purpose::Limit | Purpose::Beginning => {}
        }
        positions
    }

    /// Which offset of a partition is meant. What was remembered lies anywhere in the log, and where there is trouble
    /// now and then before or behind it.
    fn meant(&mut self, partition: usize, bound: &Bound) -> (TopicPartition, Offset) {
        let partition = &mut self.partitions[partition];
        partition.seen = true;
        let offset = match bound {
            Bound::Earliest => partition.earliest,
            Bound::Committed { .. } if self.random.f64() < self.trouble => {
                self.checker.records_lost();
                *self.random.choice(&[partition.earliest - 1, partition.stable + 1]).unwrap()
            }
            Bound::Committed { .. } => self.random.i64(partition.earliest..=partition.stable),
            _ => partition.stable,
        };
        (partition.place.1.clone(), Offset(offset))
    }

    fn heads(&mut self) -> Vec<Vec<Head>> {
        let mut heads = vec![Vec::new(); self.settings.sources.len()];
        for partition in &mut self.partitions {
            if !std::mem::replace(&mut partition.seen, true) {
                self.checker.appears(&partition.place, Offset(partition.earliest));
            }
            heads[partition.place.0.0].push(Head {
                at: partition.place.1.clone(),
                topic_id: None,
                earliest: Offset(partition.earliest),
                stable: Offset(partition.stable),
                leader_epoch: None,
            });
        }
        heads
    }

    fn map(&mut self, task: &MapTask) -> Input {
        let ranges =
            task.ranges.iter().flat_map(|(source, ranges)| ranges.iter().map(|range| (*source, range)));
        let time = task.time;
        let report = |(source, range): (SourceId, &tidemill::offset::OffsetRange)| PartitionReport {
            source,
            at: range.at.clone(),
            records: range.len(),
            bytes: range.len() * self.random.u64(1..500),
            max_event_time: (!range.is_empty())
                .then(|| EventTime::from(time).minus(Duration::from_millis(self.random.u64(0..3_000)))),
        };
        let partitions: Vec<PartitionReport> = ranges.map(report).collect();
        let records = partitions.iter().map(|report| report.records).sum();
        Input::Mapped { batch: task.batch, partitions, counts: Counts { records, ..Counts::default() } }
    }

    fn tell(&mut self, driver: &mut dyn Driver, input: Input) -> Result<(), Violation> {
        self.trace.push(format!("{:?} < {input:?}", self.moment.now));
        self.checker.input(&input);
        for command in driver.handle(self.moment, input) {
            self.trace.push(format!("> {command:?}"));
            self.checker.command(&command, &self.partitions)?;
            match command {
                Command::WakeAt(time) => self.timer = time,
                Command::Finish(_) => self.finished = true,
                Command::CancelAll => self.cancelled = true,
                Command::Emit(_) | Command::CancelMap | Command::Discard(_) => {}
                command => self.under_way.push(command),
            }
        }
        self.due = self.timer.map(|time| self.moment.elapsed + time.since(self.moment.now));
        Checker::at_rest(self.under_way.is_empty() && self.timer.is_none() && !self.finished)
    }
}

fn random_settings(random: &mut fastrand::Rng) -> Settings {
    let triggers = [
        Trigger::Interval(Interval::new(Duration::from_millis(100)).unwrap()),
        Trigger::Interval(Interval::new(Duration::from_millis(700)).unwrap()),
        Trigger::AsSoonAsPossible,
        Trigger::AvailableNow,
    ];
    let sources = (0..random.usize(1..3)).map(|number| random_source(random, number)).collect();
    let trigger = *random.choice(&triggers).unwrap();
    let limits = Limits {
        max_records: random.u64(1..600),
        max_memory: random.u64(1_000..1_000_000),
        back_pressure: random.bool().then(BackPressure::default),
    };
    let at_end = if limits.max_records.is_multiple_of(2) { OpenWindows::Close } else { OpenWindows::Stay };
    Settings {
        sources,
        trigger,
        limits,
        at_end,
        empty: *random.choice(&[EmptyBatches::WhenDue, EmptyBatches::Always]).unwrap(),
    }
}

fn random_source(random: &mut fastrand::Rng, number: usize) -> SourceSettings {
    let timeouts = [None, Some(Duration::from_millis(300)), Some(Duration::from_secs(5))];
    let rule = EventTimeRule {
        delay: Duration::from_millis(random.u64(0..2_000)),
        idle_timeout: *random.choice(&timeouts).unwrap(),
    };
    let remembered = Bound::Committed { fallback: Box::new(Bound::Latest) };
    SourceSettings {
        name: format!("source {number}"),
        starting: random.choice(&[Bound::Earliest, Bound::Latest, remembered]).unwrap().clone(),
        ending: (random.f64() < 0.2).then_some(Bound::Latest),
        event_time: (random.f64() < 0.8).then_some(rule),
        max_rate: (random.f64() < 0.2).then(|| random.f64() * 1_000.0 + 1.0),
        on_loss: OnLoss::Fail,
    }
}

fn random_partitions(random: &mut fastrand::Rng, sources: usize) -> Vec<Partition> {
    let count = random.usize(sources..sources + 6);
    (0..count).map(|number| new_partition(number % sources, number, random)).collect()
}

fn new_partition(source: usize, number: usize, random: &mut fastrand::Rng) -> Partition {
    let earliest = random.i64(0..100);
    let place = (SourceId(source), TopicPartition::new("t", i32::try_from(number).unwrap()));
    Partition { place, earliest, stable: earliest + random.i64(0..500), seen: false }
}
