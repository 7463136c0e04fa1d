//! Who holds the watermark back by a clock that is behind: told once, and no backlog is taken for it.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill::driver::laggard::Laggard;
use tidemill::driver::watermark::{EventTimeRule, Idleness, Place, Standing, Watermark, longest_step};
use tidemill::offset::TopicPartition;
use tidemill::plan::SourceId;
use tidemill::time::{BatchTime, EventTime};

use Standing::{AtEnd, CatchesUp, Reads};

/// What a partition does in a batch; its largest event time in seconds where it has one.
type Row = (Standing, Option<i64>);

/// A source of partitions with a delay of 2 s and a time-out of 3 s, a batch a second.
struct Stream {
    places: Vec<Place>,
    idleness: Idleness,
    watermark: Watermark,
    laggard: Laggard,
    batch: i64,
}

impl Stream {
    fn of(partitions: i32) -> Self {
        let rule =
            EventTimeRule { delay: Duration::from_secs(2), idle_timeout: Some(Duration::from_secs(3)) };
        let rules = vec![Some(rule)];
        Self {
            places: (0..partitions).map(|n| (SourceId(0), TopicPartition::new("t", n))).collect(),
            idleness: Idleness::new(rules.clone(), longest_step(None)),
            watermark: Watermark::new(rules),
            laggard: Laggard::default(),
            batch: 0,
        }
    }

    fn batch(&mut self, rows: &[Row]) -> Option<String> {
        let standings: Vec<_> = self.places.iter().cloned().zip(rows.iter().map(|row| row.0)).collect();
        let silence = self.idleness.plan(BatchTime(1_000 * self.batch), &standings);
        self.batch += 1;
        let told = self.places.iter().zip(rows);
        let told: Vec<_> =
            told.filter_map(|(place, row)| Some((place, EventTime(row.1? * 1_000_000)))).collect();
        self.watermark.advance(&silence, told.iter().copied());
        let told: BTreeSet<&Place> = told.iter().map(|(place, _)| *place).collect();
        self.laggard.look(&self.watermark, &silence, &told).map(|error| error.to_string())
    }
}

fn at(second: i64) -> Row {
    (CatchesUp, Some(second))
}

#[test]
fn a_clock_that_is_behind_is_told_in_the_third_batch_and_once() {
    let mut stream = Stream::of(3);
    let told: Vec<_> = (0..6).map(|n| stream.batch(&[at(4_000 + n), at(100 + n), at(4_001 + n)])).collect();
    assert_eq!(told.iter().flatten().count(), 1, "{told:?}");
    let text = told[2].as_ref().unwrap();
    assert!(
        text.starts_with(
            "the watermark waits for topic \"t\", partition 1, whose records keep coming with old times: its newest is \
             1970-01-01 00:01:42 UTC, the others are at 1970-01-01 01:06:42 UTC, 65 min later"
        ),
        "{text}"
    );
}

#[test]
fn it_is_told_again_after_it_was_right_for_a_while() {
    let mut stream = Stream::of(2);
    let mut round = |from: i64| {
        let behind = (0..3).filter_map(|n| stream.batch(&[at(from + 4_000 + n), at(from + n)])).count();
        stream.batch(&[at(from + 4_010), at(from + 4_010)]);
        behind
    };
    assert_eq!((round(0), round(10_000)), (1, 1));
}

#[test]
fn a_backlog_a_silence_and_a_small_distance_are_not_told() {
    let mut stream = Stream::of(2);
    let told = (0..6).find_map(|n| stream.batch(&[at(4_000 + n), (Reads, Some(n))]));
    assert_eq!(told, None, "it has more to read");
    let mut stream = Stream::of(2);
    stream.batch(&[at(4_000), at(1)]);
    assert_eq!((0..2).find_map(|n| stream.batch(&[at(4_000 + n), (AtEnd, None)])), None, "it will be idle");
    let mut stream = Stream::of(2);
    assert_eq!((0..6).find_map(|n| stream.batch(&[at(60 + n), at(n)])), None, "a minute is not far");
}

#[test]
fn one_partition_that_is_ahead_of_all_is_not_blamed_on_the_slowest() {
    let mut stream = Stream::of(4);
    let told = (0..6).find_map(|n| stream.batch(&[at(3_000 + n), at(10 + n), at(11 + n), at(12 + n)]));
    assert_eq!(told, None);
}
