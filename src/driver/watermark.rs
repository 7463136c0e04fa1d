//! How far event time has come: W(n), computed from figures that every run of the same batches has alike.
//!
//! [`Idleness`] follows the plans and says which partitions are silent; [`Watermark`] follows the mapped batches
//! and moves W. They are two, because the plan of batch n + 1 is made while batch n is still being mapped. Neither
//! reads a clock: the only time here is that of the batches, so that a batch run again finds the same W.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::driver::memory::Memory;
use crate::offset::TopicPartition;
use crate::plan::SourceId;
use crate::time::{BatchTime, EventTime, Interval};

/// One partition of one source: the same topic may be read by two sources.
pub type Place = (SourceId, TopicPartition);

/// A step between two batches counts at most this much where no interval says more: a stream that was not run for
/// an hour has not been silent for an hour.
const SHORTEST_CAP: Duration = Duration::from_secs(1);

/// How much of the time between two plans may count.
pub fn longest_step(interval: Option<Interval>) -> Duration {
    interval.map_or(SHORTEST_CAP, |interval| (interval.duration() * 2).max(SHORTEST_CAP))
}

/// How a source tells event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTimeRule {
    /// How far W stays behind the largest event time.
    pub delay: Duration,
    /// After how long at its end a partition holds W no more; none where it always does.
    pub idle_timeout: Option<Duration>,
}

/// How a partition stands in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The batch reads some of it, and leaves some.
    Reads,
    /// The batch reads all there is.
    CatchesUp,
    /// It has records that this batch does not read.
    Lags,
    /// There is nothing to read, for now.
    AtEnd,
    /// There is nothing to read and never will be: it has reached its `ending`.
    Ended,
}

/// What a plan says about silence; with the figures of its batch it decides W(n).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// The part of the time since the plan before that counts.
    pub step: Duration,
    /// The partitions with event time that W waits for.
    pub awake: BTreeSet<Place>,
    /// The partitions with event time that are idle.
    pub idle: BTreeSet<Place>,
    /// Those of the awake that have more to read than the batch does: what they did not tell may still come.
    pub behind: BTreeSet<Place>,
}

/// Follows the plans and counts how long each partition has been silent.
#[derive(Clone, Debug)]
pub struct Idleness {
    rules: Vec<Option<EventTimeRule>>,
    longest_step: Duration,
    last: Option<BatchTime>,
    silent: BTreeMap<Place, Silent>,
}

/// How silent one partition has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silent {
    /// So long, up to the last plan.
    For(Duration),
    /// It has reached its `ending`.
    Forever,
}

impl Idleness {
    /// Follows sources with these rules, in the order of their numbers; none where a source has no event time.
    pub fn new(rules: Vec<Option<EventTimeRule>>, longest_step: Duration) -> Self {
        Self { rules, longest_step, last: None, silent: BTreeMap::new() }
    }

    /// Goes on from what was remembered; the time in between does not count.
    pub fn resumed(rules: Vec<Option<EventTimeRule>>, longest_step: Duration, memory: &Memory) -> Self {
        let silent = memory.places.iter().filter_map(|(place, known)| Some((place.clone(), known.silent?)));
        Self { silent: silent.collect(), ..Self::new(rules, longest_step) }
    }

    /// Has `memory` take in what it knows.
    pub fn remember(&self, memory: &mut Memory) {
        for (place, silent) in &self.silent {
            memory.place(place).silent = Some(*silent);
        }
    }

    /// Takes in the next plan. The first after a start counts no time.
    pub fn plan(&mut self, time: BatchTime, standings: &[(Place, Standing)]) -> Silence {
        let step = self.step(time);
        self.last = Some(time);
        let mut silence = Silence { step, ..Silence::default() };
        for (place, standing) in standings {
            let Some(rule) = self.rule(place) else { continue };
            let silent = self.count(place, *standing, step);
            if matches!(standing, Standing::Reads | Standing::Lags) {
                silence.behind.insert(place.clone());
            }
            let group = if is_idle(rule, silent) { &mut silence.idle } else { &mut silence.awake };
            group.insert(place.clone());
        }
        silence
    }

    /// When a plan that reads nothing is due, because only a plan lets silence count: at the moment when the next
    /// partition falls idle, but before more time has passed than one step may count.
    pub fn due(&self, standings: &[(Place, Standing)]) -> Option<BatchTime> {
        let waits = standings.iter().filter_map(|(place, standing)| self.wait(place, *standing));
        let wait = waits.min()?;
        Some(self.last.map_or(BatchTime(i64::MIN), |last| last.plus(wait)))
    }

    /// When a plan that reads nothing is due because windows wait: where all are idle, W grows with the plans alone.
    pub fn grows(&self, standings: &[(Place, Standing)]) -> Option<BatchTime> {
        let mut timed =
            standings.iter().filter_map(|(place, at)| Some((place, *at, self.rule(place)?))).peekable();
        timed.peek()?;
        let idle = |(place, standing, rule): (&Place, Standing, EventTimeRule)| {
            let at_end = matches!(standing, Standing::AtEnd | Standing::Ended);
            at_end
                && rule.idle_timeout.is_some()
                && self.silent.get(place).is_some_and(|silent| is_idle(rule, *silent))
        };
        if timed.all(idle) { Some(self.last?.plus(self.longest_step)) } else { None }
    }

    fn step(&self, time: BatchTime) -> Duration {
        self.last.map_or(Duration::ZERO, |last| time.since(last).min(self.longest_step))
    }

    fn rule(&self, (source, _): &Place) -> Option<EventTimeRule> {
        self.rules.get(source.0).copied().flatten()
    }

    fn count(&mut self, place: &Place, standing: Standing, step: Duration) -> Silent {
        let before = self.silent.get(place).copied().unwrap_or(Silent::For(Duration::ZERO));
        let silent = match (standing, before) {
            (Standing::Ended, _) | (Standing::AtEnd, Silent::Forever) => Silent::Forever,
            (Standing::AtEnd, Silent::For(sum)) => Silent::For(sum.saturating_add(step)),
            (Standing::Reads | Standing::CatchesUp | Standing::Lags, _) => Silent::For(Duration::ZERO),
        };
        self.silent.insert(place.clone(), silent);
        silent
    }

    fn wait(&self, place: &Place, standing: Standing) -> Option<Duration> {
        let rule = self.rule(place)?;
        let silent = self.silent.get(place).copied().unwrap_or(Silent::For(Duration::ZERO));
        match (standing, silent) {
            (Standing::Reads | Standing::CatchesUp | Standing::Lags, _) | (_, Silent::Forever) => None,
            (Standing::Ended, Silent::For(_)) => Some(Duration::ZERO),
            (Standing::AtEnd, Silent::For(sum)) => {
                let left = rule.idle_timeout?.checked_sub(sum).filter(|left| !left.is_zero())?;
                Some(left.min(self.longest_step))
            }
        }
    }
}

fn is_idle(rule: EventTimeRule, silent: Silent) -> bool {
    match silent {
        Silent::Forever => true,
        Silent::For(sum) => rule.idle_timeout.is_some_and(|timeout| sum >= timeout),
    }
}

/// Follows the mapped batches and moves W; it never goes back.
#[derive(Clone, Debug)]
pub struct Watermark {
    rules: Vec<Option<EventTimeRule>>,
    largest: BTreeMap<Place, EventTime>,
    /// For how long a partition that was read to its end has told no time that could be believed.
    untold: BTreeMap<Place, Duration>,
    value: Option<EventTime>,
    holder: Option<Place>,
}

impl Watermark {
    /// No W yet, over sources with these rules.
    pub fn new(rules: Vec<Option<EventTimeRule>>) -> Self {
        Self { rules, largest: BTreeMap::new(), untold: BTreeMap::new(), value: None, holder: None }
    }

    /// Goes on from what was remembered.
    pub fn resumed(rules: Vec<Option<EventTimeRule>>, memory: &Memory) -> Self {
        let mut resumed = Self { value: memory.watermark, ..Self::new(rules) };
        for (place, known) in &memory.places {
            resumed.largest.extend(known.largest.map(|time| (place.clone(), time)));
            resumed.untold.extend(known.untold.map(|untold| (place.clone(), untold)));
        }
        resumed
    }

    /// Has `memory` take in what it knows.
    pub fn remember(&self, memory: &mut Memory) {
        memory.watermark = self.value;
        for (place, time) in &self.largest {
            memory.place(place).largest = Some(*time);
        }
        for (place, untold) in &self.untold {
            memory.place(place).untold = Some(*untold);
        }
    }

    /// W as it stands.
    pub fn value(&self) -> Option<EventTime> {
        self.value
    }

    /// The partition that W waits for; none where all are idle or no source has event time.
    pub fn holder(&self) -> Option<&Place> {
        self.holder.as_ref()
    }

    /// The largest event time that a partition has told.
    pub(crate) fn largest(&self, place: &Place) -> Option<EventTime> {
        self.largest.get(place).copied()
    }

    /// How far W stays behind that.
    pub(crate) fn delay(&self, place: &Place) -> Option<Duration> {
        self.rules.get(place.0.0).copied().flatten().map(|rule| rule.delay)
    }

    /// Takes in batch n: who was silent in its plan, and the largest event time of each partition in it.
    pub fn advance<'a>(
        &mut self,
        silence: &Silence,
        largest: impl IntoIterator<Item = (&'a Place, EventTime)>,
    ) -> Option<EventTime> {
        self.wait_for_times(silence);
        for (place, time) in largest {
            let known = self.largest.entry(place.clone()).or_insert(time);
            *known = time.max(*known);
            self.untold.remove(place);
        }
        match self.slowest(silence) {
            Some((reached, holder)) => {
                // A partition that never told a time (`None`, the least of all) leaves W where it is.
                self.value = self.value.max(reached);
                self.holder = Some(holder);
            }
            None => self.grow(silence),
        }
        self.value
    }

    /// Records without a time that can be believed are no sign of life: a device whose clock is wrong, alone on its
    /// partition, would hold all others for ever. While there is more to read, its times may still come.
    fn wait_for_times(&mut self, silence: &Silence) {
        for place in &silence.awake {
            let untold = self.untold.entry(place.clone()).or_default();
            *untold = if silence.behind.contains(place) {
                Duration::ZERO
            } else {
                untold.saturating_add(silence.step)
            };
        }
    }

    fn slowest(&self, silence: &Silence) -> Option<(Option<EventTime>, Place)> {
        let holding = silence.awake.iter().filter(|place| !self.is_mute(place));
        holding.map(|place| (self.reached(place), place.clone())).min()
    }

    fn is_mute(&self, place: &Place) -> bool {
        let timeout = self.timeout(place.0);
        self.untold.get(place).zip(timeout).is_some_and(|(untold, timeout)| *untold >= timeout)
    }

    fn timeout(&self, source: SourceId) -> Option<Duration> {
        self.rules.get(source.0).copied().flatten()?.idle_timeout
    }

    fn reached(&self, place: &Place) -> Option<EventTime> {
        let rule = self.rules.get(place.0.0).copied().flatten()?;
        self.largest.get(place).map(|time| time.minus(rule.delay))
    }

    /// Nobody holds W: it follows the batches' time by what counts of it, and never jumps to where the fastest
    /// partition was. A source whose time-out is turned off has asked for no such growth. Where there was no W yet, since
    /// all fell idle at once, it is what those that told a time had reached.
    fn grow(&mut self, silence: &Silence) {
        self.holder = None;
        let mut places = silence.idle.iter().chain(&silence.awake).peekable();
        if places.peek().is_some() && places.all(|(source, _)| self.timeout(*source).is_some()) {
            let grown = self.value.map(|value| value.plus(silence.step));
            self.value = grown.or_else(|| self.largest.keys().filter_map(|place| self.reached(place)).min());
        }
    }
}
