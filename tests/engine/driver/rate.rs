//! Back-pressure: the estimate equals the sequences recorded from Spark's own, and the machine plans by it.

use std::time::Duration;

use serde_json::Value;
use tidemill::driver::log::{Entry, EntryKind};
use tidemill::driver::machine::{Command, Input};
use tidemill::driver::{BackPressure, Limits, PidRateEstimator, Trigger};
use tidemill::event::{Counts, Event};
use tidemill::exec::{PartitionReport, StateSize};
use tidemill::ingest::Bound;
use tidemill::offset::{OffsetRange, TopicPartition};
use tidemill::plan::SourceId;
use tidemill::time::{BatchId, BatchTime};

use super::hand::{Hand, asks, interval};

/// Recorded from `PIDRateEstimator` of Spark Streaming 4.3: of each update time, records, work and delay.
const RECORDED: &str = include_str!("spark_rate.json");

fn cases() -> Vec<Value> {
    serde_json::from_str(RECORDED).unwrap()
}

fn settings(case: &Value) -> BackPressure {
    let parameter = |name: &str| case["params"][name].as_f64().unwrap();
    BackPressure {
        proportional: parameter("proportional"),
        integral: parameter("integral"),
        derivative: parameter("derivative"),
        min_rate: parameter("min_rate"),
        initial_rate: None,
    }
}

fn recorded_interval(case: &Value) -> Duration {
    Duration::from_millis(case["params"]["batch_interval_ms"].as_u64().unwrap())
}

/// What is below nothing there cannot be said here: it teaches as little as nothing.
fn millis(value: &Value) -> u64 {
    u64::try_from(value.as_i64().unwrap()).unwrap_or(0)
}

#[test]
fn estimates_are_those_of_spark() {
    let recorded = cases().into_iter().filter(|case| case["raises"].is_null()).collect::<Vec<_>>();
    assert!(recorded.len() > 20, "found {}", recorded.len());
    for case in recorded {
        let mut estimator = PidRateEstimator::new(settings(&case), recorded_interval(&case));
        let update = |update: &Value| {
            let [work, delay] = [&update[2], &update[3]].map(|value| Duration::from_millis(millis(value)));
            estimator.estimate(BatchTime(update[0].as_i64().unwrap()), millis(&update[1]), work, delay)
        };
        let estimates: Vec<Option<f64>> = case["inputs"].as_array().unwrap().iter().map(update).collect();
        // As text: `serde_json` reads numbers to within a last digit.
        let exact = |output: &Value| output.as_str().map(|text| text.parse().unwrap());
        let expected: Vec<Option<f64>> = case["outputs"].as_array().unwrap().iter().map(exact).collect();
        assert_eq!(estimates, expected, "{}", case["name"]);
    }
}

#[test]
fn what_spark_refuses_is_refused() {
    let refused =
        cases().into_iter().filter(|case| !case["raises"].is_null() && !recorded_interval(case).is_zero());
    let refused: Vec<Value> = refused.collect();
    assert!(refused.len() > 3, "found {}", refused.len());
    for case in refused {
        assert!(settings(&case).check().is_err(), "{}", case["name"]);
    }
}

/// A stream whose batches are worked off at a rate that the test sets.
struct Worked {
    hand: Hand,
    next: u64,
    said: Vec<Command>,       // by the machine, and not done yet
    limits: Vec<Option<f64>>, // what was told of each batch
    delays: Vec<Duration>,    // from its plan to its end
}

impl Worked {
    fn new(trigger: Trigger, back_pressure: Option<BackPressure>, records: i64) -> Self {
        let limits = Limits { max_records: 1_000_000, max_memory: 1 << 40, back_pressure };
        let mut hand = Hand::limited(limits, Bound::Earliest, trigger, None);
        let said = hand.begin();
        hand.records = records;
        Self { hand, next: 0, said, limits: Vec::new(), delays: Vec::new() }
    }

    /// The records of the next batches, each of which takes what `rate` records a second take.
    fn batches(&mut self, count: usize, rate: u64) -> Vec<u64> {
        (0..count).map(|_| self.batch(rate)).collect()
    }

    fn batch(&mut self, rate: u64) -> u64 {
        while planned_records(&self.said).is_none() {
            self.said = if asks(&self.said) {
                self.hand.heads()
            } else {
                let now = self.hand.now + 10;
                self.hand.at(now, Input::Due)
            };
        }
        let records = planned_records(&self.said).unwrap();
        self.finish(records, records * 1_000 / rate);
        records
    }

    fn finish(&mut self, records: u64, millis: u64) {
        let batch = BatchId(self.next);
        self.next += 1;
        let counts = Counts { records, ..Counts::default() };
        let at = TopicPartition::new("t", 0);
        let report =
            PartitionReport { source: SourceId(0), at, records, bytes: records, max_event_time: None };
        self.said = self.hand.tell(Input::Recorded(batch, EntryKind::Plan));
        self.hand.now += i64::try_from(millis).unwrap();
        for input in [
            Input::Mapped { batch, partitions: vec![report], counts },
            Input::Reduced { batch, state: StateSize::default(), counts: Counts::default() },
            Input::Recorded(batch, EntryKind::Prepare),
            Input::Delivered(batch),
            Input::Recorded(batch, EntryKind::Commit),
        ] {
            self.said.extend(self.hand.tell(input));
        }
        let told = self.said.iter().find_map(|command| match command {
            Command::Emit(Event::Completed(progress)) => Some((progress.rate_limit, progress.total_delay)),
            _ => None,
        });
        let (limit, delay) = told.expect("the batch is done");
        self.limits.push(limit);
        self.delays.push(delay);
    }
}

fn planned_records(commands: &[Command]) -> Option<u64> {
    commands.iter().find_map(|command| match command {
        Command::Record(Entry::Plan { ranges, .. }) => {
            Some(ranges.iter().flat_map(|(_, ranges)| ranges).map(OffsetRange::len).sum())
        }
        _ => None,
    })
}

#[test]
fn batches_of_a_stream_that_cannot_keep_up_come_to_take_their_interval_and_follow_what_gets_faster() {
    let mut stream = Worked::new(interval(1_000), Some(BackPressure::default()), 100_000);
    assert_eq!(stream.batches(4, 2_000), [10_000, 2_000, 2_000, 2_000]);
    assert_eq!(stream.batches(3, 20_000), [2_000, 20_000, 20_000]);
    assert_eq!(stream.batches(2, 20_000), [20_000, 20_000]);
    assert_eq!(stream.limits.first(), Some(&Some(2_000.0)));
    stream.hand.records += 500;
    assert_eq!(stream.batches(1, 20_000), [2_500], "what was left, and all that is there");
    assert_eq!(stream.limits.last(), Some(&None), "it keeps up again");
    let seconds: Vec<f64> = stream.delays.iter().map(Duration::as_secs_f64).collect();
    let first = [5.0, 1.0, 1.0, 1.0]; // as long as the interval from the second batch on
    assert_eq!(seconds, [&first[..], &[0.1, 1.0, 1.0, 1.0, 1.0, 0.125]].concat());
}

#[test]
fn a_stream_that_reads_ten_times_faster_than_it_works_settles_at_its_interval_however_long_it_lasts() {
    const RATE: u64 = 1_000; // of 10 times as many that come
    let mut stream = Worked::new(interval(1_000), Some(BackPressure::default()), 20_000);
    let mut largest = 0;
    for _ in 0..200 {
        let records = stream.batch(RATE);
        stream.hand.records += 10_000;
        largest = largest.max(records);
    }
    assert_eq!(largest, 10_000, "what is tried of a partition that nothing is known of");
    let second = Duration::from_secs(1);
    assert_eq!(
        stream.delays.split_off(1),
        vec![second; 199],
        "and never more, though it falls behind for ever"
    );
    assert_eq!(stream.limits, vec![Some(1_000.0); 200]);
    assert_eq!(stream.batches(3, 10 * RATE), [1_000, 10_000, 10_000], "what got faster is followed at once");
}

#[test]
fn without_back_pressure_or_ticks_the_other_limits_alone_hold() {
    let all = [10_000, 90_000];
    assert_eq!(Worked::new(interval(1_000), None, 100_000).batches(2, 2_000), all);
    let back_pressure = Some(BackPressure::default());
    assert_eq!(Worked::new(Trigger::AvailableNow, back_pressure, 100_000).batches(2, 2_000), all);
}
