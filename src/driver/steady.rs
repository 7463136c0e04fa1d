//! The time of day without steps back: a clock that was set back must not hold a stream up.
//!
//! It deliberately leaves a clock alone that only runs a little slower or faster, and one that is set forward: the
//! stream's time is the time of day but for the sum of the steps back.

use std::time::Duration;

use crate::driver::machine::Moment;
use crate::time::BatchTime;

/// A step back of less than this is waited out. What looks like one may be nothing but a thread that was kept from
/// running between its looks at the two clocks.
const SHORTEST_STEP: Duration = Duration::from_secs(1);

/// The stream's time: strides with what never goes back wherever the time of day does.
#[derive(Clone, Debug)]
pub(crate) struct Steady {
    step: Duration, // a change of less than this is no step
    ahead: Duration,
    last: Option<Moment>, // its `now` is the stream's
}

impl Steady {
    /// The time of a stream that would stand still for less than `patience` anyway.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { step: patience.max(SHORTEST_STEP), ahead: Duration::ZERO, last: None }
    }

    /// The time of a stream that has been at `reached`: where the time of day, `now`, is behind that by more than a step,
    /// it goes on from there. Says by how much, if so.
    pub(crate) fn resumed(
        patience: Duration,
        now: BatchTime,
        reached: BatchTime,
    ) -> (Self, Option<Duration>) {
        let mut steady = Self::new(patience);
        let back = reached.since(now);
        if back > steady.step {
            steady.ahead = back;
        }
        let told = (back > steady.step).then_some(back);
        (steady, told)
    }

    /// Looks at the clocks; says by how much the time of day was set back since the last look, if it was.
    pub(crate) fn look(&mut self, moment: Moment) -> Option<Duration> {
        let expected = self.expected(moment);
        let found = moment.now.plus(self.ahead);
        let back = expected.since(found);
        if back > self.step || found.since(expected) > self.step {
            // Forward: a clock that is set right again takes the stream back to the time of day, and no further.
            self.ahead = expected.since(moment.now).min(self.ahead + back);
        }
        self.last = Some(Moment { now: self.of_day(moment.now), elapsed: moment.elapsed });
        (back > self.step).then_some(back)
    }

    /// What the stream's time is if no clock was set.
    fn expected(&self, moment: Moment) -> BatchTime {
        let Some(last) = self.last else { return moment.now };
        last.now.plus(moment.elapsed.saturating_sub(last.elapsed))
    }

    /// The stream's time when it is `time` of the day.
    pub(crate) fn of_day(&self, time: BatchTime) -> BatchTime {
        time.plus(self.ahead)
    }

    /// The time of day when the stream's is `time`.
    pub(crate) fn to_day(&self, time: BatchTime) -> BatchTime {
        let ahead = i64::try_from(self.ahead.as_millis()).unwrap_or(i64::MAX);
        BatchTime(time.0.saturating_sub(ahead))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Steady;
    use crate::driver::machine::Moment;
    use crate::time::BatchTime;

    /// Looks at each (time of day, elapsed), in seconds; the stream's time at each.
    fn times(looks: &[(i64, u64)]) -> Vec<i64> {
        let mut steady = Steady::new(Duration::from_secs(2));
        let look = |(day, elapsed): &(i64, u64)| {
            let now = BatchTime(day * 1_000);
            steady.look(Moment { now, elapsed: Duration::from_secs(*elapsed) });
            assert_eq!(steady.to_day(steady.of_day(now)), now);
            steady.of_day(now).0 / 1_000
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn a_clock_that_nobody_sets_is_the_time_of_day() {
        assert_eq!(times(&[(100, 0), (101, 1), (105, 5), (106, 5)]), [100, 101, 105, 106]);
    }

    #[test]
    fn after_a_step_back_the_time_goes_on_with_what_has_elapsed() {
        assert_eq!(times(&[(5_000, 0), (1_400, 1), (1_410, 11)]), [5_000, 5_001, 5_011]);
        assert_eq!(times(&[(5_000, 0), (1_400, 1), (400, 2)]), [5_000, 5_001, 5_002], "and after another");
    }

    #[test]
    fn a_small_step_back_is_followed() {
        assert_eq!(times(&[(100, 0), (99, 1), (100, 2)]), [100, 99, 100]);
    }

    #[test]
    fn a_clock_that_is_set_forward_is_followed() {
        assert_eq!(times(&[(100, 0), (3_700, 1)]), [100, 3_700]);
    }

    #[test]
    fn a_stream_that_goes_on_where_the_clock_is_behind_goes_on_from_where_it_was() {
        let patience = Duration::from_secs(2);
        let (steady, told) = Steady::resumed(patience, BatchTime(1_000), BatchTime(3_601_000));
        assert_eq!(
            (steady.of_day(BatchTime(1_500)), told),
            (BatchTime(3_601_500), Some(Duration::from_hours(1)))
        );
        let (steady, told) = Steady::resumed(patience, BatchTime(1_000), BatchTime(2_500));
        assert_eq!(
            (steady.of_day(BatchTime(1_500)), told),
            (BatchTime(1_500), None),
            "a small step is waited out"
        );
    }

    #[test]
    fn a_clock_that_is_set_right_again_is_the_time_of_day_again() {
        assert_eq!(times(&[(5_000, 0), (1_400, 1), (5_010, 10)]), [5_000, 5_001, 5_010]);
        assert_eq!(times(&[(5_000, 0), (1_400, 1), (8_000, 10)]), [5_000, 5_001, 8_000]);
        assert_eq!(times(&[(5_000, 0), (1_400, 1), (2_010, 11)]), [5_000, 5_001, 5_011], "only half-way");
    }
}
