//! The machine fed by hand: what a test tells it, and at which moment, and what it answers.

use std::time::Duration;

use tidemill::driver::log::{Entry, EntryKind};
use tidemill::driver::machine::{Command, EmptyBatches, Input, Machine, Moment, Settings, SourceSettings};
use tidemill::driver::memory::Memory;
use tidemill::driver::watermark::EventTimeRule;
use tidemill::driver::{Limits, OpenWindows, Trigger};
use tidemill::event::Counts;
use tidemill::exec::StateSize;
use tidemill::ingest::{Bound, Head, OnLoss};
use tidemill::offset::{Offset, TopicPartition};
use tidemill::time::{BatchId, BatchTime, Interval};

/// A machine with one source of one partition, at a moment that the test moves.
pub(crate) struct Hand {
    machine: Machine,
    pub(crate) now: i64,
    pub(crate) set_back: i64,      // what the time of day lacks
    pub(crate) wakes: Option<i64>, // the last that was asked for
    pub(crate) records: i64,
    pub(crate) earliest: i64,
}

fn source(starting: Bound, event_time: Option<EventTimeRule>) -> SourceSettings {
    let (name, on_loss) = ("readings".to_owned(), OnLoss::Fail);
    SourceSettings { name, starting, ending: None, event_time, max_rate: None, on_loss }
}

fn settings(source: SourceSettings, limits: Limits, trigger: Trigger) -> Settings {
    Settings {
        sources: vec![source],
        trigger,
        limits,
        empty: EmptyBatches::WhenDue,
        at_end: OpenWindows::Stay,
    }
}

impl Hand {
    pub(crate) fn new(trigger: Trigger, event_time: Option<EventTimeRule>) -> Self {
        Self::starting(Bound::Earliest, trigger, event_time)
    }

    pub(crate) fn starting(starting: Bound, trigger: Trigger, event_time: Option<EventTimeRule>) -> Self {
        let limits = Limits { max_records: 100, max_memory: 1 << 30, back_pressure: None };
        Self::limited(limits, starting, trigger, event_time)
    }

    /// One that goes on without what is gone.
    pub(crate) fn skipping(starting: Bound, trigger: Trigger) -> Self {
        let limits = Limits { max_records: 100, max_memory: 1 << 30, back_pressure: None };
        let on_loss = OnLoss::Skip;
        Self::reading(SourceSettings { on_loss, ..source(starting, None) }, limits, trigger)
    }

    pub(crate) fn limited(
        limits: Limits,
        starting: Bound,
        trigger: Trigger,
        event_time: Option<EventTimeRule>,
    ) -> Self {
        Self::reading(source(starting, event_time), limits, trigger)
    }

    fn reading(source: SourceSettings, limits: Limits, trigger: Trigger) -> Self {
        Self::of(Machine::new(settings(source, limits, trigger), BatchTime(10)), 10).0
    }

    /// One that notes what it would need to go on elsewhere.
    pub(crate) fn remembering(trigger: Trigger, event_time: Option<EventTimeRule>) -> Self {
        let limits = Limits { max_records: 100, max_memory: 1 << 30, back_pressure: None };
        let settings = settings(source(Bound::Latest, event_time), limits, trigger);
        Self::of(Machine::new(settings, BatchTime(10)).remembering(), 10).0
    }

    /// One that goes on from a memory, at `now`, with what it said as it began.
    pub(crate) fn resumed(
        memory: &Memory,
        trigger: Trigger,
        event_time: Option<EventTimeRule>,
        now: i64,
    ) -> (Self, Vec<Command>) {
        let limits = Limits { max_records: 100, max_memory: 1 << 30, back_pressure: None };
        let settings = settings(source(Bound::Latest, event_time), limits, trigger);
        Self::of(Machine::resumed(settings, BatchTime(now), memory).remembering(), now)
    }

    fn of(machine: Machine, now: i64) -> (Self, Vec<Command>) {
        let mut hand = Self { machine, now, set_back: 0, wakes: None, records: 0, earliest: 0 };
        let began = hand.tell(Input::Start);
        hand.tell(Input::Opened);
        (hand, began)
    }

    /// What is to be remembered as of a batch.
    pub(crate) fn memory(&self, batch: u64) -> Option<Memory> {
        self.machine.memory(BatchId(batch))
    }

    pub(crate) fn begin(&mut self) -> Vec<Command> {
        self.tell(Input::Resolved(vec![vec![(TopicPartition::new("t", 0), Offset(0))]]))
    }

    pub(crate) fn tell(&mut self, input: Input) -> Vec<Command> {
        let elapsed = Duration::from_millis(self.now.unsigned_abs());
        let moment = Moment { now: BatchTime(self.now - self.set_back), elapsed };
        let commands = self.machine.handle(moment, input);
        self.wakes = wakes(&commands).or(self.wakes);
        commands
    }

    pub(crate) fn at(&mut self, now: i64, input: Input) -> Vec<Command> {
        self.now = now;
        self.tell(input)
    }

    pub(crate) fn heads(&mut self) -> Vec<Command> {
        let (at, records) = (TopicPartition::new("t", 0), Offset(self.records));
        let head =
            Head { at, topic_id: None, earliest: Offset(self.earliest), stable: records, leader_epoch: None };
        self.tell(Input::Heads(vec![vec![head]]))
    }

    /// Sees a planned batch through.
    pub(crate) fn finish(&mut self, batch: u64) -> Vec<Command> {
        self.finish_with(batch, 0)
    }

    /// The same, with windows open after it.
    pub(crate) fn finish_with(&mut self, batch: u64, windows: u64) -> Vec<Command> {
        let (batch, state) = (BatchId(batch), StateSize { windows, ..StateSize::default() });
        self.tell(Input::Recorded(batch, EntryKind::Plan));
        self.tell(Input::Mapped { batch, partitions: Vec::new(), counts: Counts::default() });
        self.tell(Input::Reduced { batch, state, counts: Counts::default() });
        self.tell(Input::Recorded(batch, EntryKind::Prepare));
        self.tell(Input::Delivered(batch));
        self.tell(Input::Recorded(batch, EntryKind::Commit))
    }

    /// The times of the empty batches of ten seconds, with so many windows open after each.
    pub(crate) fn empty_batches(&mut self, windows: impl Fn(usize) -> u64) -> Vec<i64> {
        let mut commands = self.begin();
        let mut times = Vec::new();
        while self.now < 10_000 {
            if asks(&commands) {
                commands = self.heads();
            }
            if let Some(time) = planned(&commands) {
                commands = self.finish_with(times.len() as u64, windows(times.len()));
                times.push(time);
            }
            if !asks(&commands) {
                let now = self.now + 10;
                commands = self.at(now, Input::Due);
            }
        }
        times
    }
}

pub(crate) fn asks(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::AskHeads))
}

pub(crate) fn planned(commands: &[Command]) -> Option<i64> {
    commands.iter().find_map(|command| match command {
        Command::Record(Entry::Plan { time, .. }) => Some(time.0),
        _ => None,
    })
}

pub(crate) fn wakes(commands: &[Command]) -> Option<i64> {
    commands.iter().find_map(|command| match command {
        Command::WakeAt(time) => time.map(|time| time.0),
        _ => None,
    })
}

pub(crate) fn interval(millis: u64) -> Trigger {
    Trigger::Interval(Interval::new(Duration::from_millis(millis)).unwrap())
}
