//! How many records a batch may take when batches take longer than their interval: one number that flows back.
//!
//! The estimate is Spark's (`PIDRateEstimator` of Spark Streaming 4.3, whose recorded sequences the tests hold it to). It
//! deliberately knows no partitions: the planner splits what is allowed by lag, and keeps its other limits.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::event::Progress;
use crate::time::BatchTime;

/// The settings of back-pressure, with Spark's names and defaults.
///
/// ```
/// use tidemill::driver::BackPressure;
/// assert!(BackPressure::default().check().is_ok());
/// let mistake = BackPressure { min_rate: 0.0, ..BackPressure::default() }.check().unwrap_err();
/// assert!(mistake.to_string().contains("min_rate must be above 0, found 0"), "{mistake}");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackPressure {
    /// How much of the difference between the last rate and that at which a batch was worked off is corrected at once.
    pub proportional: f64,
    /// How much of what the last batch was late is made up for.
    pub integral: f64,
    /// How much of the difference's change is corrected.
    pub derivative: f64,
    /// No estimate is below so many records a second.
    pub min_rate: f64,
    /// So many records a second until there is an estimate; as memory allows where none is given.
    pub initial_rate: Option<f64>,
}

impl Default for BackPressure {
    fn default() -> Self {
        Self { proportional: 1.0, integral: 0.2, derivative: 0.0, min_rate: 100.0, initial_rate: None }
    }
}

impl BackPressure {
    /// An error where a setting is none that Spark would take.
    pub fn check(&self) -> Result<()> {
        let gains = [
            ("proportional", self.proportional),
            ("integral", self.integral),
            ("derivative", self.derivative),
        ];
        let negative = gains.into_iter().find(|(_, gain)| !gain.is_finite() || *gain < 0.0);
        let rates = [("min_rate", Some(self.min_rate)), ("initial_rate", self.initial_rate)];
        let nothing = rates.into_iter().find_map(|(name, rate)| {
            rate.filter(|rate| !rate.is_finite() || *rate <= 0.0).map(|rate| (name, rate))
        });
        match (negative, nothing) {
            (Some((name, found)), _) => {
                Err(Error::config(format!("backpressure: {name} must be 0 or above, found {found}")))
            }
            (_, Some((name, found))) => {
                Err(Error::config(format!("backpressure: {name} must be above 0, found {found}"))
                    .help("it is in records a second"))
            }
            _ => Ok(()),
        }
    }
}

/// Spark's estimate of the rate that a stream can work off, in records a second.
#[derive(Clone, Debug)]
pub struct PidRateEstimator {
    settings: BackPressure,
    interval: Duration,
    last: Option<Estimate>,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    time: BatchTime,
    rate: f64,
    error: f64,
}

impl PidRateEstimator {
    /// An estimator that has seen no batch.
    pub fn new(settings: BackPressure, interval: Duration) -> Self {
        Self { settings, interval, last: None }
    }

    /// Learns from a batch of `records` that was done at `time` after `work`, which had begun `delay` late. The first
    /// gives no estimate; one without records, without work, or not later than the one before, teaches nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidemill::driver::{BackPressure, PidRateEstimator};
    /// use tidemill::time::BatchTime;
    /// let second = Duration::from_secs(1);
    /// let mut estimator = PidRateEstimator::new(BackPressure::default(), second);
    /// assert_eq!(estimator.estimate(BatchTime(1_000), 1_000, second, Duration::ZERO), None);
    /// assert_eq!(estimator.estimate(BatchTime(2_000), 1_000, second * 2, Duration::ZERO), Some(500.0));
    /// ```
    pub fn estimate(
        &mut self,
        time: BatchTime,
        records: u64,
        work: Duration,
        delay: Duration,
    ) -> Option<f64> {
        if records == 0 || work.is_zero() || self.last.is_some_and(|last| time <= last.time) {
            return None;
        }
        let worked_off = records as f64 / millis(work) * 1_000.0;
        let Some(last) = self.last else {
            self.last = Some(Estimate { time, rate: worked_off, error: 0.0 });
            return None;
        };
        let error = last.rate - worked_off;
        let late = millis(delay) * worked_off / millis(self.interval);
        let change = (error - last.error) / ((time.0 - last.time.0) as f64 / 1_000.0);
        let BackPressure { proportional, integral, derivative, min_rate, .. } = self.settings;
        let rate = last.rate - proportional * error - integral * late - derivative * change;
        let rate = rate.max(min_rate);
        self.last = Some(Estimate { time, rate, error });
        Some(rate)
    }

    /// The last estimate; after the first batch, which gives none, the rate at which that was worked off.
    pub fn rate(&self) -> Option<f64> {
        self.last.map(|last| last.rate)
    }
}

/// Exact for whole milliseconds, which is what Spark counts in.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

/// Follows the batches of a stream with ticks, and says what the next may take.
///
/// It limits from the first batch that took longer than its interval until one has taken all there was: a stream that
/// keeps up is never held, whatever the estimate says of its small batches. While nothing is known, since the first batch
/// is still at work when the next is planned, that one takes no more than the first: it would else take the whole backlog.
#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    estimator: PidRateEstimator,
    interval: Duration,
    initial: Option<f64>,
    limits: bool,
    untried: Option<u64>, // the records of the first batch, while it is at work
}

impl RateLimit {
    pub(crate) fn new(settings: BackPressure, interval: Duration) -> Self {
        let (estimator, initial) = (PidRateEstimator::new(settings, interval), settings.initial_rate);
        Self { estimator, interval, initial, limits: initial.is_some(), untried: None }
    }

    /// A batch of so many records has been planned.
    pub(crate) fn planned(&mut self, records: u64) {
        if self.estimator.rate().is_none() && records > 0 {
            self.untried.get_or_insert(records);
        }
    }

    /// A batch is done.
    pub(crate) fn learn(&mut self, now: BatchTime, progress: &Progress) {
        self.untried = None;
        let work = work_of(progress);
        self.estimator.estimate(now, progress.counts.records, work, progress.scheduling_delay);
        self.limits |= work > self.interval;
    }

    /// A batch has been planned that leaves nothing behind.
    pub(crate) fn caught_up(&mut self) {
        self.limits = false;
    }

    /// The records a second that batches are held to, where they are.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.estimator.rate().or(self.initial).filter(|_| self.limits)
    }

    /// How many records the next batch may take, where that is limited: one at least, or nothing would be learnt.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, as is wanted"
    )]
    pub(crate) fn records(&self) -> Option<u64> {
        let rated = self.rate().map(|rate| (rate * self.interval.as_secs_f64()).max(1.0) as u64);
        rated.or(self.untried)
    }
}

/// How long the stream was held by a batch. Two are in flight, of which one may be mapped and reduced while the other is
/// delivered: so it is the longest of the three, or half of them all.
fn work_of(progress: &Progress) -> Duration {
    let Progress { map_time, reduce_time, deliver_time, .. } = *progress;
    map_time.max(reduce_time).max(deliver_time).max(progress.processing_time() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Counts;

    const SECOND: Duration = Duration::from_secs(1);

    fn done(records: u64, deliver_time: Duration) -> Progress {
        Progress { counts: Counts { records, ..Counts::default() }, deliver_time, ..Progress::default() }
    }

    #[test]
    fn a_stream_that_keeps_up_is_not_held() {
        let mut limit = RateLimit::new(BackPressure::default(), SECOND);
        for n in 1..10 {
            limit.learn(BatchTime(n * 1_000), &done(5, SECOND / 2));
            assert_eq!((limit.rate(), limit.records()), (None, None));
        }
    }

    #[test]
    fn batches_that_take_longer_than_the_interval_are_cut_until_one_takes_all_there_is() {
        let mut limit = RateLimit::new(BackPressure::default(), SECOND);
        limit.learn(BatchTime(1_000), &done(10_000, 10 * SECOND));
        assert_eq!(
            limit.records(),
            Some(1_000),
            "from the first on, though Spark's estimate begins with the second"
        );
        limit.learn(BatchTime(20_000), &done(10_000, 5 * SECOND));
        assert_eq!(limit.records(), Some(2_000));
        limit.learn(BatchTime(21_000), &done(1_000, SECOND / 4));
        assert_eq!(limit.records(), Some(4_000), "and follows what is faster");
        limit.caught_up();
        assert_eq!(limit.records(), None);
    }

    #[test]
    fn what_is_planned_while_the_first_batch_is_at_work_takes_no_more_than_that() {
        let mut limit = RateLimit::new(BackPressure::default(), SECOND);
        limit.planned(10_000);
        limit.caught_up();
        assert_eq!(limit.records(), Some(10_000));
        limit.planned(4_000);
        assert_eq!(limit.records(), Some(10_000));
        limit.learn(BatchTime(1_000), &done(10_000, SECOND / 2));
        assert_eq!(limit.records(), None, "it keeps up");
        limit.planned(500);
        assert_eq!(limit.records(), None);
    }

    #[test]
    fn the_initial_rate_holds_until_there_is_an_estimate() {
        let settings = BackPressure { initial_rate: Some(50.0), ..BackPressure::default() };
        let mut limit = RateLimit::new(settings, 2 * SECOND);
        assert_eq!((limit.rate(), limit.records()), (Some(50.0), Some(100)));
        limit.learn(BatchTime(1_000), &done(0, SECOND));
        assert_eq!(limit.records(), Some(100));
        limit.learn(BatchTime(2_000), &done(100, SECOND));
        assert_eq!(limit.records(), Some(200));
    }

    #[test]
    fn a_batch_holds_the_stream_for_its_longest_part_or_half_of_all() {
        let of = |map: u64, reduce: u64, deliver: u64| {
            let [map_time, reduce_time, deliver_time] = [map, reduce, deliver].map(Duration::from_millis);
            work_of(&Progress { map_time, reduce_time, deliver_time, ..Progress::default() }).as_millis()
        };
        assert_eq!([of(9, 1, 2), of(1, 9, 2), of(1, 2, 9), of(4, 4, 4)], [9, 9, 9, 6]);
    }
}
