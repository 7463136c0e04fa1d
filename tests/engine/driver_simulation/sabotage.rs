//! Drivers that are wrong on purpose, each in one way: a checker that lets one pass checks nothing.
//!
//! Each bends what the real machine hears or says; none repeats its logic.

use tidemill::driver::Stop;
use tidemill::driver::log::{Entry, EntryKind};
use tidemill::driver::machine::{Command, Input, Machine, Moment};
use tidemill::event::Positions;
use tidemill::exec::MapTask;
use tidemill::offset::Offset;
use tidemill::plan::SourceId;
use tidemill::time::BatchTime;

/// What the simulation drives.
pub(crate) trait Driver {
    fn handle(&mut self, moment: Moment, input: Input) -> Vec<Command>;
}

impl Driver for Machine {
    fn handle(&mut self, moment: Moment, input: Input) -> Vec<Command> {
        Machine::handle(self, moment, input)
    }
}

/// What is done wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sabotage {
    AcknowledgesBeforeDelivery,
    CancelsAtAGracefulStop,
    DeliversBeforePrepareIsSafe,
    DeliversTwice,
    TakesAFailureForSuccess,
    DoesNotAwaitCommit,
    DoesNotAwaitPlan,
    ForgetsTheError,
    ForgetsToAcknowledge,
    HearsNoStop,
    ReadsOneTwice,
    RepeatsABatchTime,
    SkipsOne,
    SleepsForEver,
    TurnsTheWatermarkBack,
}

pub(crate) const ALL: [Sabotage; 15] = [
    Sabotage::AcknowledgesBeforeDelivery,
    Sabotage::CancelsAtAGracefulStop,
    Sabotage::DeliversBeforePrepareIsSafe,
    Sabotage::DeliversTwice,
    Sabotage::TakesAFailureForSuccess,
    Sabotage::DoesNotAwaitCommit,
    Sabotage::DoesNotAwaitPlan,
    Sabotage::ForgetsTheError,
    Sabotage::ForgetsToAcknowledge,
    Sabotage::HearsNoStop,
    Sabotage::ReadsOneTwice,
    Sabotage::RepeatsABatchTime,
    Sabotage::SkipsOne,
    Sabotage::SleepsForEver,
    Sabotage::TurnsTheWatermarkBack,
];

pub(crate) struct Sabotaged {
    pub(crate) machine: Machine,
    pub(crate) how: Sabotage,
}

impl Driver for Sabotaged {
    fn handle(&mut self, moment: Moment, input: Input) -> Vec<Command> {
        let input = self.bend_input(input);
        let cancels =
            matches!((self.how, &input), (Sabotage::CancelsAtAGracefulStop, Input::Stop(Stop::Graceful)));
        let commands = Machine::handle(&mut self.machine, moment, input);
        let commands = cancels.then_some(Command::CancelAll).into_iter().chain(commands);
        commands.flat_map(|command| self.bend(moment, command)).collect()
    }
}

impl Sabotaged {
    fn bend_input(&self, input: Input) -> Input {
        use tidemill::driver::machine::Task;
        match (self.how, input) {
            (Sabotage::HearsNoStop, Input::Stop(_)) => Input::Woken,
            (Sabotage::TakesAFailureForSuccess, Input::Failed(Task::Deliver(batch), _)) => {
                Input::Delivered(batch)
            }
            (_, input) => input,
        }
    }

    fn bend(&mut self, moment: Moment, command: Command) -> Vec<Command> {
        match (self.how, command) {
            (Sabotage::AcknowledgesBeforeDelivery, Command::Deliver(task)) => {
                vec![Command::Acknowledge(positions(&task)), Command::Deliver(task)]
            }
            (Sabotage::DeliversTwice, Command::Deliver(task)) => {
                vec![Command::Deliver(task.clone()), Command::Deliver(task)]
            }
            (Sabotage::DoesNotAwaitCommit, Command::Record(entry @ Entry::Commit { .. })) => {
                self.at_once(moment, entry, EntryKind::Commit)
            }
            (Sabotage::DeliversBeforePrepareIsSafe, Command::Record(entry @ Entry::Prepare { .. })) => {
                self.at_once(moment, entry, EntryKind::Prepare)
            }
            (Sabotage::DoesNotAwaitPlan, Command::Record(entry @ Entry::Plan { .. })) => {
                self.at_once(moment, entry, EntryKind::Plan)
            }
            (Sabotage::ForgetsTheError, Command::Finish(Some(_))) => vec![Command::Finish(None)],
            (Sabotage::ForgetsToAcknowledge, Command::Acknowledge(_)) => {
                Machine::handle(&mut self.machine, moment, Input::Acknowledged(Vec::new()))
            }
            (Sabotage::SleepsForEver, Command::WakeAt(_)) => Vec::new(),
            (Sabotage::TurnsTheWatermarkBack, Command::Reduce(task, watermark)) => {
                let back = std::time::Duration::from_secs(task.batch.0);
                vec![Command::Reduce(task, watermark.map(|watermark| watermark.minus(back)))]
            }
            (_, Command::Record(plan @ Entry::Plan { .. })) => vec![Command::Record(self.bend_plan(plan))],
            (_, command) => vec![command],
        }
    }

    /// Says that an entry is safe before anybody has kept it.
    fn at_once(&mut self, moment: Moment, entry: Entry, kind: EntryKind) -> Vec<Command> {
        let batch = entry.batch();
        let then = Machine::handle(&mut self.machine, moment, Input::Recorded(batch, kind));
        std::iter::once(Command::Record(entry)).chain(then).collect()
    }

    fn bend_plan(&self, mut plan: Entry) -> Entry {
        let Entry::Plan { time, ranges, .. } = &mut plan else { return plan };
        let by = match self.how {
            Sabotage::SkipsOne => 1,
            Sabotage::ReadsOneTwice => -1,
            _ => 0,
        };
        for range in ranges.iter_mut().flat_map(|(_, ranges)| ranges).filter(|range| !range.is_empty()) {
            range.from = Offset(range.from.0 + by);
        }
        if matches!(self.how, Sabotage::RepeatsABatchTime) {
            *time = BatchTime(7);
        }
        plan
    }
}

fn positions(task: &MapTask) -> Vec<(SourceId, Positions)> {
    let of = |ranges: &[tidemill::offset::OffsetRange]| {
        ranges.iter().map(|range| (range.at.clone(), range.until)).collect()
    };
    task.ranges.iter().map(|(source, ranges)| (*source, of(ranges))).collect()
}
