//! How a stream ends: what the sources are still owed, the sinks' close, the one error that counts.
//!
//! It deliberately does not decide which batches are finished first; that is the pipeline's.

use crate::driver::machine::Command;
use crate::error::Error;
use crate::event::{Event, Positions};
use crate::plan::SourceId;

/// Positions of every source.
type AllPositions = Vec<(SourceId, Positions)>;

/// What the sources have been told of the batches that are done. One telling at a time, and always the newest: a
/// slow group coordinator holds nobody, and an older position is of no use to anyone.
#[derive(Debug, Default)]
pub(crate) struct Acknowledging {
    starting: Option<AllPositions>, // until a batch is done
    owed: Option<AllPositions>,
    telling: Option<AllPositions>,
    refused: Option<AllPositions>,
    refusals: Vec<String>, // the last ones reported
    tried_last: bool,
}

impl Acknowledging {
    /// Reading starts here. A stream that ends before it has read anything tells so at its end: whoever goes on from what
    /// the group knows would otherwise begin somewhere else, and miss what has come meanwhile.
    pub(crate) fn start(&mut self, positions: AllPositions) {
        self.starting = Some(positions);
    }

    /// These positions are done with.
    pub(crate) fn owe(&mut self, positions: AllPositions) {
        self.starting = None;
        self.owed = Some(positions);
    }

    /// What to tell now, if anything.
    pub(crate) fn next(&mut self) -> Option<Command> {
        if self.telling.is_some() {
            return None;
        }
        self.telling = self.owed.take();
        self.telling.clone().map(Command::Acknowledge)
    }

    /// The sources were told; gives the refusals back where they differ from those before, so that a group that
    /// refuses every batch is reported once and not every time.
    pub(crate) fn answered(&mut self, refusals: Vec<Error>) -> Vec<Error> {
        let told = self.telling.take();
        self.refused = if refusals.is_empty() { None } else { told };
        let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        let known = std::mem::replace(&mut self.refusals, texts);
        if self.refusals == known { Vec::new() } else { refusals }
    }

    /// At the end: what was refused is told once more, since no later batch will repeat it; or where reading started, if it
    /// has not gone on from there.
    pub(crate) fn last(&mut self) -> Option<Command> {
        if self.tried_last || self.telling.is_some() || self.owed.is_some() {
            return None;
        }
        self.tried_last = true;
        self.owed = self.refused.take().or_else(|| self.starting.take());
        self.next()
    }

    /// Whether nothing is owed or under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.telling.is_none() && self.owed.is_none()
    }
}

/// How far the end has come, once nothing is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Closing {
    #[default]
    Open,
    Asked,
    Closed,
    Finished,
}

/// Whether and why the stream ends.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    begun: bool,
    error: Option<Error>,
    closing: Closing,
}

impl Shutdown {
    /// Whether nothing more is to be planned.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The stream ends because it was asked to, or has nothing left to read.
    pub(crate) fn stop(&mut self) {
        self.begun = true;
    }

    /// The stream ends because of `error`; says whether it is the first, which is the one that counts.
    pub(crate) fn fail(&mut self, error: &Error) -> bool {
        self.begun = true;
        let first = self.error.is_none();
        self.error.get_or_insert_with(|| error.clone());
        first
    }

    /// Every sink is closed.
    pub(crate) fn closed(&mut self) {
        self.closing = Closing::Closed;
    }

    /// What comes next, nothing being in flight or owed.
    pub(crate) fn next(&mut self) -> Vec<Command> {
        match self.closing {
            Closing::Open => {
                self.closing = Closing::Asked;
                vec![Command::CloseSinks]
            }
            Closing::Asked | Closing::Finished => Vec::new(),
            Closing::Closed => {
                self.closing = Closing::Finished;
                vec![Command::Emit(Event::Stopped), Command::Finish(self.error.take())]
            }
        }
    }
}
