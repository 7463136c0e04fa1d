//! W(n), sentence by sentence: each test is one rule, told as a table of plans and what comes of them.

use std::time::Duration;

use tidemill::driver::watermark::{EventTimeRule, Idleness, Place, Standing, Watermark, longest_step};
use tidemill::offset::TopicPartition;
use tidemill::plan::SourceId;
use tidemill::time::{BatchTime, EventTime, Interval};

use Standing::{AtEnd, CatchesUp, Ended, Lags, Reads};

const SECOND: i64 = 1_000;

#[expect(
    clippy::unnecessary_wraps,
    reason = "a source without event time has none, and so every row of a table is an option"
)]
fn rule(delay: u64, idle: Option<u64>) -> Option<EventTimeRule> {
    Some(EventTimeRule { delay: Duration::from_secs(delay), idle_timeout: idle.map(Duration::from_secs) })
}

/// What a partition does in a batch; its largest event time in seconds where it has one.
type Row = (Standing, Option<i64>);

/// A stream of partitions, each of the source named; batches are played one by one.
struct Stream {
    places: Vec<Place>,
    idleness: Idleness,
    watermark: Watermark,
}

impl Stream {
    fn new(rules: Vec<Option<EventTimeRule>>, sources: &[usize], cap: Duration) -> Self {
        let place = |(number, source): (usize, &usize)| {
            (SourceId(*source), TopicPartition::new("t", i32::try_from(number).unwrap()))
        };
        let places = sources.iter().enumerate().map(place).collect();
        Self { places, idleness: Idleness::new(rules.clone(), cap), watermark: Watermark::new(rules) }
    }

    /// One source with a delay of 2 s and a time-out of 3 s; a step counts up to 1 s.
    fn of(partitions: usize) -> Self {
        Self::new(vec![rule(2, Some(3))], &vec![0; partitions], longest_step(None))
    }

    /// Plays a batch at `at` (in milliseconds): W(n) in milliseconds, and the partition that holds it.
    fn batch(&mut self, at: i64, rows: &[Row]) -> (Option<i64>, Option<i32>) {
        let standings: Vec<_> = self.places.iter().cloned().zip(rows.iter().map(|row| row.0)).collect();
        let silence = self.idleness.plan(BatchTime(at), &standings);
        let times = self.places.iter().zip(rows);
        let times = times.filter_map(|(place, row)| Some((place, EventTime(row.1? * 1_000_000))));
        let value = self.watermark.advance(&silence, times).map(|value| value.0 / 1_000);
        (value, self.watermark.holder().map(|(_, at)| at.partition.0))
    }
}

const QUIET: Row = (AtEnd, None);

/// Records came, of which none told a time that could be believed.
const UNTOLD: Row = (CatchesUp, None);

fn at(second: i64) -> Row {
    (CatchesUp, Some(second))
}

#[test]
fn w_is_the_slowest_partitions_largest_time_less_the_delay() {
    let mut stream = Stream::of(2);
    assert_eq!(stream.batch(0, &[at(10), at(20)]), (Some(8 * SECOND), Some(0)));
    assert_eq!(stream.batch(500, &[at(30), at(21)]), (Some(19 * SECOND), Some(1)));
}

#[test]
fn a_partitions_largest_time_is_kept_over_batches_that_bring_none() {
    let mut stream = Stream::of(2);
    assert_eq!(stream.batch(0, &[at(100), at(10)]).0, Some(8 * SECOND));
    assert_eq!(stream.batch(500, &[QUIET, at(90)]), (Some(88 * SECOND), Some(1)));
}

#[test]
fn w_never_goes_back() {
    let mut stream = Stream::of(1);
    assert_eq!(stream.batch(0, &[at(10)]).0, Some(8 * SECOND));
    assert_eq!(stream.batch(500, &[at(3)]).0, Some(8 * SECOND));
    assert_eq!(stream.batch(900, &[at(11)]).0, Some(9 * SECOND));
}

#[test]
fn several_sources_give_the_minimum_over_all_their_partitions_each_with_its_own_delay() {
    let mut stream = Stream::new(vec![rule(0, Some(3)), rule(5, Some(3))], &[0, 1], longest_step(None));
    assert_eq!(stream.batch(0, &[at(10), at(12)]), (Some(7 * SECOND), Some(1)));
    assert_eq!(stream.batch(500, &[at(10), at(20)]), (Some(10 * SECOND), Some(0)));
}

#[test]
fn several_sources_fall_idle_each_by_its_own_time_out() {
    let mut stream = Stream::new(vec![rule(0, Some(2)), rule(0, None)], &[0, 1], longest_step(None));
    assert_eq!(stream.batch(0, &[at(10), at(10)]).0, Some(10 * SECOND));
    assert_eq!(stream.batch(SECOND, &[QUIET, at(20)]), (Some(10 * SECOND), Some(0)));
    assert_eq!(stream.batch(2 * SECOND, &[QUIET, at(21)]), (Some(21 * SECOND), Some(1)));
    for second in 3..9 {
        assert_eq!(stream.batch(second * SECOND, &[at(30), QUIET]), (Some(21 * SECOND), Some(1)), "{second}");
    }
}

#[test]
fn a_source_without_event_time_does_not_count() {
    let mut stream = Stream::new(vec![rule(0, None), None], &[0, 1], longest_step(None));
    assert_eq!(stream.batch(0, &[at(10), (Reads, None)]), (Some(10 * SECOND), Some(0)));
    let mut none = Stream::new(vec![None], &[0], longest_step(None));
    assert_eq!(none.batch(0, &[(Reads, None)]), (None, None));
}

#[test]
fn a_partition_that_never_had_a_record_holds_until_it_is_idle() {
    let mut stream = Stream::of(2);
    assert_eq!(
        stream.batch(0, &[at(10), QUIET]),
        (None, Some(1)),
        "the step into the first plan counts zero"
    );
    assert_eq!(stream.batch(SECOND, &[at(11), QUIET]), (None, Some(1)));
    assert_eq!(stream.batch(2 * SECOND, &[at(12), QUIET]), (None, Some(1)));
    assert_eq!(stream.batch(3 * SECOND, &[at(13), QUIET]), (Some(11 * SECOND), Some(0)));
}

#[test]
fn a_partition_at_its_ending_is_idle_at_once_but_counts_in_the_batch_that_reads_its_last_records() {
    let mut stream = Stream::of(2);
    assert_eq!(
        stream.batch(0, &[at(10), (Ended, None)]),
        (Some(8 * SECOND), Some(0)),
        "it never had a record"
    );
    let mut stream = Stream::of(2);
    assert_eq!(stream.batch(0, &[at(50), at(10)]), (Some(8 * SECOND), Some(1)));
    assert_eq!(stream.batch(1, &[at(60), (Ended, None)]), (Some(58 * SECOND), Some(0)));
}

#[test]
fn lag_never_counts_as_silence() {
    let mut stream = Stream::of(2);
    stream.batch(0, &[at(10), at(1)]);
    for second in 1..20 {
        let (value, holder) = stream.batch(second * SECOND, &[at(10 + second), (Lags, None)]);
        assert_eq!((value, holder), (Some(-SECOND), Some(1)), "at {second} s");
    }
}

#[test]
fn records_wake_an_idle_partition_and_its_silence_starts_from_nothing() {
    let mut stream = Stream::of(2);
    stream.batch(0, &[at(10), at(5)]);
    for second in 1..=3 {
        stream.batch(second * SECOND, &[at(10), QUIET]);
    }
    assert_eq!(stream.batch(4 * SECOND, &[at(10), at(6)]), (Some(8 * SECOND), Some(1)), "it holds again");
    assert_eq!(stream.batch(6 * SECOND, &[at(30), QUIET]).1, Some(1), "1 s of silence");
    assert_eq!(stream.batch(7 * SECOND, &[at(30), QUIET]).1, Some(1), "2 s");
    assert_eq!(stream.batch(8 * SECOND, &[at(30), QUIET]).1, Some(0), "3 s");
}

#[test]
fn a_step_counts_at_most_twice_the_interval_and_never_less_than_a_second() {
    let interval = |millis| Some(Interval::new(Duration::from_millis(millis)).unwrap());
    assert_eq!(longest_step(interval(200)), Duration::from_secs(1));
    assert_eq!(longest_step(interval(5_000)), Duration::from_secs(10));
    assert_eq!(longest_step(None), Duration::from_secs(1));
    let mut stream = Stream::of(2);
    stream.batch(0, &[at(10), at(5)]);
    assert_eq!(stream.batch(3_600 * SECOND, &[at(20), QUIET]).1, Some(1), "an hour counts one second");
}

#[test]
fn when_all_are_idle_w_grows_by_the_counted_step_and_never_jumps() {
    let mut stream = Stream::of(2);
    assert_eq!(stream.batch(0, &[at(100), at(10)]).0, Some(8 * SECOND));
    for second in 1..=2 {
        assert_eq!(stream.batch(second * SECOND, &[QUIET, QUIET]).0, Some(8 * SECOND));
    }
    assert_eq!(stream.batch(3 * SECOND, &[QUIET, QUIET]), (Some(9 * SECOND), None), "not to 98 s");
    assert_eq!(stream.batch(3_250, &[QUIET, QUIET]).0, Some(9_250));
    assert_eq!(stream.batch(900 * SECOND, &[QUIET, QUIET]).0, Some(10_250), "a long step counts one second");
}

#[test]
fn without_a_timeout_nobody_falls_idle_and_w_does_not_grow() {
    let mut stream = Stream::new(vec![rule(2, None)], &[0, 0], longest_step(None));
    stream.batch(0, &[at(10), at(5)]);
    for second in 1..50 {
        assert_eq!(stream.batch(second * SECOND, &[at(10), QUIET]), (Some(3 * SECOND), Some(1)));
    }
    assert_eq!(stream.batch(50 * SECOND, &[(Ended, None), (Ended, None)]).0, Some(3 * SECOND));
}

#[test]
fn a_plan_that_reads_nothing_is_due_when_a_partition_falls_idle_or_a_step_would_be_lost() {
    let mut stream = Stream::of(1);
    let place = stream.places[0].clone();
    let due = |stream: &Stream, standing| stream.idleness.due(&[(place.clone(), standing)]);
    assert!(
        due(&stream, AtEnd).is_some_and(|due| due < BatchTime(0)),
        "silence is counted from a first plan"
    );
    stream.batch(0, &[QUIET]);
    assert_eq!(due(&stream, AtEnd), Some(BatchTime(SECOND)));
    stream.batch(SECOND, &[QUIET]);
    stream.batch(1_700, &[QUIET]);
    stream.batch(2_600, &[QUIET]);
    assert_eq!(due(&stream, AtEnd), Some(BatchTime(3 * SECOND)), "0.4 s are left");
    assert_eq!(due(&stream, Reads), None);
    assert_eq!(due(&stream, Ended), Some(BatchTime(2_600)), "at once");
    stream.batch(3 * SECOND, &[QUIET]);
    assert_eq!(due(&stream, AtEnd), None, "all are idle: no silence is left to count");
}

#[test]
fn once_all_are_idle_plans_are_due_that_let_w_grow() {
    let mut stream = Stream::of(2);
    let grows = |stream: &Stream, first, second| {
        stream.idleness.grows(&[(stream.places[0].clone(), first), (stream.places[1].clone(), second)])
    };
    assert_eq!(grows(&stream, AtEnd, AtEnd), None, "nothing is known yet");
    stream.batch(0, &[at(10), at(10)]);
    for second in 1..=3 {
        assert_eq!(grows(&stream, AtEnd, AtEnd), None, "silent, but not for long enough");
        stream.batch(second * SECOND, &[QUIET, QUIET]);
    }
    assert_eq!(grows(&stream, AtEnd, AtEnd), Some(BatchTime(4 * SECOND)), "by the longest step that counts");
    assert_eq!(grows(&stream, AtEnd, CatchesUp), None, "there is a batch to come anyway");
    let untimed = Idleness::new(vec![None], longest_step(None));
    assert_eq!(untimed.grows(&[(stream.places[0].clone(), AtEnd)]), None);
    let endless = Idleness::new(vec![rule(2, None)], longest_step(None));
    assert_eq!(endless.grows(&[(stream.places[0].clone(), AtEnd)]), None);
}

#[test]
fn where_all_fall_idle_at_once_w_is_what_those_that_told_a_time_had_reached() {
    let mut stream = Stream::of(3);
    stream.batch(0, &[at(10), QUIET, at(30)]);
    for second in 1..=2 {
        assert_eq!(stream.batch(second * SECOND, &[QUIET; 3]), (None, Some(1)));
    }
    assert_eq!(stream.batch(3 * SECOND, &[QUIET; 3]), (Some(8 * SECOND), None));
    assert_eq!(stream.batch(4 * SECOND, &[QUIET; 3]), (Some(9 * SECOND), None));
}

#[test]
fn a_partition_whose_records_tell_no_time_holds_no_longer_than_a_silent_one() {
    let mut stream = Stream::of(2);
    assert_eq!(stream.batch(0, &[at(10), UNTOLD]), (None, Some(1)));
    assert_eq!(stream.batch(SECOND, &[at(11), QUIET]), (None, Some(1)));
    assert_eq!(stream.batch(2 * SECOND, &[at(12), UNTOLD]), (None, Some(1)));
    assert_eq!(stream.batch(3 * SECOND, &[at(13), UNTOLD]), (Some(11 * SECOND), Some(0)));
    assert_eq!(stream.batch(4 * SECOND, &[QUIET, UNTOLD]), (Some(11 * SECOND), Some(0)));
    assert_eq!(stream.batch(5 * SECOND, &[QUIET, UNTOLD]).1, Some(0));
    assert_eq!(stream.batch(6 * SECOND, &[QUIET, UNTOLD]), (Some(12 * SECOND), None), "nobody holds");
    assert_eq!(stream.batch(7 * SECOND, &[at(30), at(20)]), (Some(18 * SECOND), Some(1)), "it holds again");
}

#[test]
fn while_there_is_more_to_read_a_partition_without_times_holds() {
    let mut stream = Stream::of(2);
    stream.batch(0, &[at(10), (Reads, None)]);
    for second in 1..20 {
        let row = if second % 2 == 0 { (Reads, None) } else { UNTOLD };
        assert_eq!(stream.batch(second * SECOND, &[at(10), row]), (None, Some(1)), "at {second} s");
    }
}
