//! When a batch is due, and when the sources are to be asked for their heads.
//!
//! It deliberately knows neither partitions nor batches in flight: it is asked once there is room for a batch.

use std::time::Duration;

use crate::driver::Trigger;
use crate::time::{BatchTime, Interval};

/// Heads older than this are not planned from: the last stable offset moves without a waker being called when a
/// transaction ends.
const HEADS_FRESH: Duration = Duration::from_millis(100);

/// Without ticks, what arrives while a batch is in flight gathers for this long, unless that batch is done before: a batch
/// costs half a millisecond of work whatever it holds, so that a thousand records a second in a thousand batches kept the
/// machine busier, and waited longer, than in three hundred. It is short, since a model or a sink that takes its time is
/// to work while the next batch is read.
const GATHERING: Duration = Duration::from_millis(5);

/// After the heads could not be had, they are asked for again first after this long, then after twice as long …
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// … and at last in steps of this, which a broker that is back may cost.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Follows the ticks and the age of the heads.
#[derive(Clone, Debug)]
pub struct Schedule {
    trigger: Trigger,
    tick: BatchTime, // the last tick that was used or skipped
    batch: Option<BatchTime>,
    heads: Option<BatchTime>, // when they were taken
    answered: bool,           // and nothing was decided from them yet
    woken: bool,
    retry: Option<Retry>,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at: BatchTime,
    after: Duration,
}

impl Schedule {
    /// A schedule that begins at `now`: the first tick is a later one.
    pub fn new(trigger: Trigger, now: BatchTime) -> Self {
        let tick = match trigger {
            Trigger::Interval(interval) => tick_at(interval, now),
            Trigger::AsSoonAsPossible | Trigger::AvailableNow => now,
        };
        Self { trigger, tick, batch: None, heads: None, answered: false, woken: false, retry: None }
    }

    /// A schedule that begins at `now` and goes on after the batch at `last`: no later batch has its time, or an earlier one.
    pub fn resumed(trigger: Trigger, now: BatchTime, last: BatchTime) -> Self {
        let fresh = Self::new(trigger, now);
        Self { tick: fresh.tick.max(last), batch: Some(last), ..fresh }
    }

    /// The time of the batch that is due at `now`; none when it is too early. A tick missed is skipped: the batch
    /// has the time of the last tick there was.
    pub fn due(&self, now: BatchTime) -> Option<BatchTime> {
        match self.trigger {
            Trigger::Interval(interval) => Some(tick_at(interval, now)).filter(|tick| *tick > self.tick),
            Trigger::AsSoonAsPossible | Trigger::AvailableNow => Some(self.after_last(now)),
        }
    }

    fn after_last(&self, now: BatchTime) -> BatchTime {
        self.batch.map_or(now, |last| now.max(BatchTime(last.0.saturating_add(1))))
    }

    /// Until when what arrives gathers, while the last batch is in flight.
    pub fn gathers_until(&self) -> Option<BatchTime> {
        let last = self.batch.filter(|_| !matches!(self.trigger, Trigger::Interval(_)));
        last.map(|last| last.plus(GATHERING))
    }

    /// Whether the sources must be asked before a batch is planned at `now`. Never twice for one decision: sources
    /// that wake all the time, or take long to answer, would otherwise be asked for ever.
    pub fn must_ask(&self, now: BatchTime) -> bool {
        let stale = |taken: BatchTime| now < taken || now >= taken.plus(HEADS_FRESH);
        !self.answered && (self.woken || self.heads.is_none_or(stale))
    }

    /// Whether asking again has to wait, since the last time it failed.
    pub fn is_backing_off(&self, now: BatchTime) -> bool {
        self.retry.is_some_and(|retry| now < retry.at)
    }

    /// A source says that records may have arrived.
    pub fn wake(&mut self) {
        self.woken = true;
    }

    /// The sources are asked. What wakes the stream from here on counts anew.
    pub fn ask(&mut self) {
        self.woken = false;
    }

    /// The sources have answered.
    pub fn answered(&mut self, now: BatchTime) {
        self.heads = Some(now);
        self.answered = true;
        self.retry = None;
    }

    /// The sources could not answer. Says whether this is the first time in a row.
    pub fn unanswered(&mut self, now: BatchTime) -> bool {
        let first = self.retry.is_none();
        let after = self.retry.map_or(RETRY_FIRST, |retry| (retry.after * 2).min(RETRY_LONGEST));
        self.retry = Some(Retry { at: now.plus(after), after });
        self.heads = None;
        first
    }

    /// The sources have answered another question than that for their heads.
    pub fn reached(&mut self) {
        self.retry = None;
    }

    /// When to ask again, where asking has failed.
    pub fn retry_at(&self) -> Option<BatchTime> {
        self.retry.map(|retry| retry.at)
    }

    /// The batch at `time` has been planned.
    pub fn planned(&mut self, time: BatchTime) {
        self.skipped(time);
        self.batch = Some(time);
    }

    /// There was nothing to plan at `time`.
    pub fn skipped(&mut self, time: BatchTime) {
        self.answered = false;
        self.tick = self.tick.max(time);
    }

    /// When to look again, nothing else happening: at the next tick, when the heads grow old, or when `silence` is
    /// due, whichever the trigger goes by.
    pub fn next_look(&self, now: BatchTime, silence: Option<BatchTime>) -> BatchTime {
        let next = match self.trigger {
            Trigger::Interval(_) if self.due(now).is_some() => now,
            Trigger::Interval(interval) => interval.tick_after(now.max(self.tick)),
            // It was woken while it asked, and the answer told of nothing: what woke it came later.
            Trigger::AsSoonAsPossible | Trigger::AvailableNow if self.woken => now,
            Trigger::AsSoonAsPossible | Trigger::AvailableNow => {
                let old = self.heads.map_or(now, |taken| taken.plus(HEADS_FRESH));
                silence.map_or(old, |silence| old.min(silence))
            }
        };
        let after = self.retry.map_or(now, |retry| retry.at).max(BatchTime(now.0.saturating_add(1)));
        next.max(after)
    }
}

/// The last multiple of `interval` that is not after `now`.
fn tick_at(interval: Interval, now: BatchTime) -> BatchTime {
    let length = i64::try_from(interval.duration().as_millis()).unwrap_or(i64::MAX);
    BatchTime(interval.tick_after(now).0.saturating_sub(length))
}
