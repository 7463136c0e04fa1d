//! Whether enough is known of the older epochs to go on from what was found: the one place where voters are counted.
//!
//! It deliberately does no I/O, so that it can be read beside checkpoint's rules. It says that all is sound, that a replica
//! which does not answer might make it so, or that nothing can.

use crate::checkpoint::id::Incarnation;
use crate::checkpoint::panel::Panel;
use crate::checkpoint::quorum::{Voter, Voters};
use crate::checkpoint::rules::Rules;
use crate::checkpoint::walk::Scan;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Sound,
    /// Wait for a replica that does not answer.
    Wait(String),
    /// Give up: too many are gone for good.
    Lost(String),
}

impl Verdict {
    /// The worse of the two.
    fn and(self, then: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Sound => then(),
            Self::Wait(why) => match then() {
                Self::Lost(lost) => Self::Lost(lost),
                Self::Sound | Self::Wait(_) => Self::Wait(why),
            },
            lost @ Self::Lost(_) => lost,
        }
    }
}

/// Whether of each set of voters F are known in each of the epochs. `scans` are from the newest down to the one whose START
/// is adopted, and of that the voters alone count who were to decide what comes after START.
pub(super) fn known(panel: &Panel, scans: &[Scan], deciders: &[Voters], rules: Rules) -> Verdict {
    let mut verdict = Verdict::Sound;
    for (place, scan) in scans.iter().enumerate() {
        let is_adopted = place + 1 == scans.len();
        let sets = if is_adopted { deciders.get(..1).unwrap_or_default() } else { deciders };
        for voters in sets {
            let knows = |incarnation| panel.place_of(incarnation).is_some_and(|place| scan.knows(place));
            let what = || format!("with a whole log of epoch {}", scan.epoch);
            verdict = verdict.and(|| enough(panel, voters, rules.read.of(voters.read()), knows, what));
        }
    }
    verdict
}

/// Whether of each set of voters so many are there, or may come back, that they could decide anything.
pub(super) fn writable(panel: &Panel, deciders: &[Voters]) -> Verdict {
    let there = |incarnation| panel.place_of(incarnation).is_some();
    let judge = |voters: &Voters| match enough(panel, voters, voters.write(), there, || "at hand".into()) {
        Verdict::Wait(_) => Verdict::Sound, // whoever appends waits by itself
        verdict => verdict,
    };
    deciders.iter().fold(Verdict::Sound, |verdict, voters| verdict.and(|| judge(voters)))
}

/// Whether `need` of the voters are as `is` says, now or once all replicas answer.
fn enough(
    panel: &Panel,
    voters: &Voters,
    need: usize,
    is: impl Fn(Incarnation) -> bool,
    what: impl Fn() -> String,
) -> Verdict {
    let count = voters.count(is);
    if count >= need {
        return Verdict::Sound;
    }
    let absent = voters.count(|incarnation| panel.place_of(incarnation).is_none());
    let hoped = count + absent.min(panel.silent());
    let what = what();
    let text = format!("{need} of {} voters are needed {what}, found {count}", voters.len());
    if hoped >= need {
        let silent = panel.urls(|seat| seat.silent).join(", ");
        return Verdict::Wait(format!("{text}; {silent} does not answer"));
    }
    Verdict::Lost(format!("{text}{}", missing(panel, voters)))
}

fn missing(panel: &Panel, voters: &Voters) -> String {
    let gone = |voter: &&Voter| panel.place_of(voter.incarnation).is_none();
    let gone: Vec<String> =
        voters.members().iter().filter(gone).map(|voter| voter.number.to_string()).collect();
    let empty = panel.urls(super::panel::Seat::is_empty);
    let gone = if gone.is_empty() { String::new() } else { format!("; replica {} is gone", gone.join(", ")) };
    let empty = if empty.is_empty() { String::new() } else { format!("; {} is empty", empty.join(", ")) };
    gone + &empty
}
