//! Which offsets a batch reads, limit by limit.

use std::time::Duration;

use tidemill::driver::Limits;
use tidemill::driver::planning::{Draft, Pace, Planner, SourceRule};
use tidemill::driver::watermark::Standing;
use tidemill::error::ErrorKind;
use tidemill::event::Positions;
use tidemill::exec::PartitionReport;
use tidemill::ingest::{Head, Loss, LossCause, OnLoss};
use tidemill::offset::{Offset, TopicPartition};
use tidemill::plan::SourceId;
use tidemill::time::BatchTime;

const SOURCE: SourceId = SourceId(0);
const PACE: Pace = Pace { first: Duration::from_secs(1), longest: Duration::from_secs(2) };

fn at(partition: usize) -> TopicPartition {
    TopicPartition::new("readings", i32::try_from(partition).unwrap())
}

fn heads(bounds: &[(i64, i64)]) -> Vec<Head> {
    let head = |(number, (earliest, stable)): (usize, &(i64, i64))| Head {
        at: at(number),
        topic_id: Some([1; 16]),
        earliest: Offset(*earliest),
        stable: Offset(*stable),
        leader_epoch: None,
    };
    bounds.iter().enumerate().map(head).collect()
}

fn positions(offsets: &[i64]) -> Positions {
    offsets.iter().enumerate().map(|(number, offset)| (at(number), Offset(*offset))).collect()
}

fn planner(max_records: u64, max_rate: Option<f64>, starting: &[i64], ending: Option<&[i64]>) -> Planner {
    let on_loss = OnLoss::Fail;
    let rule = SourceRule { name: "readings".to_owned(), bounded: ending.is_some(), max_rate, on_loss };
    let mut planner =
        Planner::new(vec![rule], Limits { max_records, max_memory: 1 << 40, back_pressure: None }, PACE);
    planner.follow(SOURCE, &positions(starting), ending.map(positions).as_ref());
    planner
}

fn ranges(draft: &Draft) -> Vec<(i64, i64)> {
    draft.ranges[0].1.iter().map(|range| (range.from.0, range.until.0)).collect()
}

/// Plans and adopts a batch.
fn plan(planner: &mut Planner, millis: i64) -> Vec<(i64, i64)> {
    let draft = planner.draft(BatchTime(millis), BatchTime(millis));
    planner.adopt(&draft);
    ranges(&draft)
}

fn learn(planner: &mut Planner, partition: usize, bytes: u64) {
    let report =
        PartitionReport { source: SOURCE, at: at(partition), records: 10, bytes, max_event_time: None };
    planner.learn(&[report]);
}

#[test]
fn a_batch_reads_from_where_the_last_one_ended_up_to_the_last_stable_offset() {
    let mut planner = planner(1_000, None, &[5, 0], None);
    planner.observe(SOURCE, &heads(&[(0, 9), (0, 0)])).unwrap();
    assert_eq!(plan(&mut planner, 0), [(5, 9), (0, 0)], "empty ranges are named too");
    assert_eq!(plan(&mut planner, 1), [(9, 9), (0, 0)]);
    planner.observe(SOURCE, &heads(&[(0, 12), (0, 2)])).unwrap();
    assert_eq!(plan(&mut planner, 2), [(9, 12), (0, 2)]);
}

#[test]
fn a_position_beyond_the_end_waits_for_it() {
    let mut planner = planner(1_000, None, &[50], None);
    planner.observe(SOURCE, &heads(&[(0, 20)])).unwrap();
    assert_eq!(plan(&mut planner, 0), [(50, 50)]);
}

#[test]
fn max_records_is_split_by_lag_and_nobody_starves() {
    let mut planner = planner(100, None, &[0, 0, 0], None);
    planner.observe(SOURCE, &heads(&[(0, 9_000), (0, 1_000), (0, 1)])).unwrap();
    let read = plan(&mut planner, 0);
    assert_eq!(read.iter().map(|range| range.1).sum::<i64>(), 100);
    assert_eq!(read[2], (0, 1));
    assert!(read[0].1 > 80 && read[1].1 >= 9, "{read:?}");
}

#[test]
fn an_ending_is_never_passed_and_a_partition_there_has_ended() {
    let mut planner = planner(1_000, None, &[0, 3], Some(&[4, 3]));
    planner.observe(SOURCE, &heads(&[(0, 10), (0, 10)])).unwrap();
    let draft = planner.draft(BatchTime(0), BatchTime(0));
    let standings: Vec<Standing> = draft.standings.iter().map(|(_, standing)| *standing).collect();
    assert_eq!(
        (ranges(&draft), standings),
        (vec![(0, 4), (3, 3)], vec![Standing::CatchesUp, Standing::Ended])
    );
    assert!(!planner.has_ended());
    planner.adopt(&draft);
    assert!(planner.has_ended());
}

#[test]
fn a_new_partition_starts_at_its_beginning_unless_the_source_is_bounded() {
    let mut open = planner(1_000, None, &[7], None);
    open.observe(SOURCE, &heads(&[(0, 7), (2, 5)])).unwrap();
    assert_eq!(plan(&mut open, 0), [(7, 7), (2, 5)]);
    let mut bounded = planner(1_000, None, &[0], Some(&[7]));
    bounded.observe(SOURCE, &heads(&[(0, 7), (0, 5)])).unwrap();
    assert_eq!(plan(&mut bounded, 0), [(0, 7)], "it was not there when the ending was asked for");
}

#[test]
fn retention_that_overtakes_the_position_is_data_loss_with_all_its_names() {
    let mut planner = planner(1_000, None, &[5], None);
    let error = planner.observe(SOURCE, &heads(&[(8, 20)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    let text = error.to_string();
    for named in ["readings", "partition 0", "wanted offset 5", "available is 8"] {
        assert!(text.contains(named), "{named} in {text}");
    }
}

#[test]
fn retention_behind_a_partition_that_has_ended_is_no_loss() {
    let mut planner = planner(1_000, None, &[5], Some(&[5]));
    planner.observe(SOURCE, &heads(&[(8, 20)])).unwrap();
}

#[test]
fn a_partition_that_vanishes_and_a_topic_made_again_are_errors() {
    let mut gone = planner(1_000, None, &[0, 0], None);
    let error = gone.observe(SOURCE, &heads(&[(0, 1)])).unwrap_err();
    assert!(error.to_string().contains("readings[1]"), "{error}");
    let mut again = planner(1_000, None, &[0], None);
    again.observe(SOURCE, &heads(&[(0, 9)])).unwrap();
    let mut other = heads(&[(0, 9)]);
    other[0].topic_id = Some([2; 16]);
    assert!(again.observe(SOURCE, &other).unwrap_err().to_string().contains("made again"));
}

/// A planner that skips what is gone, with heads as they were before it went.
fn skipping(starting: &[i64], ending: Option<&[i64]>, before: &[(i64, i64)]) -> Planner {
    let on_loss = OnLoss::Skip;
    let rule = SourceRule { name: "readings".to_owned(), bounded: ending.is_some(), max_rate: None, on_loss };
    let limits = Limits { max_records: 1_000, max_memory: 1 << 40, back_pressure: None };
    let mut planner = Planner::new(vec![rule], limits, PACE);
    planner.follow(SOURCE, &positions(starting), ending.map(positions).as_ref());
    assert_eq!(planner.observe(SOURCE, &heads(before)).unwrap(), []);
    planner
}

fn loss(from: i64, until: i64, cause: LossCause) -> Loss {
    Loss { at: at(0), from: Offset(from), until: Offset(until), cause }
}

fn made_again(bounds: &[(i64, i64)]) -> Vec<Head> {
    heads(bounds).into_iter().map(|head| Head { topic_id: Some([2; 16]), ..head }).collect()
}

fn without_ids(bounds: &[(i64, i64)]) -> Vec<Head> {
    heads(bounds).into_iter().map(|head| Head { topic_id: None, ..head }).collect()
}

#[test]
fn what_retention_took_is_skipped_and_counted_and_no_more_than_that() {
    let mut open = skipping(&[5], None, &[(0, 20)]);
    let lost = open.observe(SOURCE, &heads(&[(8, 20)])).unwrap();
    assert_eq!(lost, [loss(5, 8, LossCause::Retention)]);
    assert_eq!(plan(&mut open, 0), [(8, 20)]);
    assert_eq!(open.observe(SOURCE, &heads(&[(20, 20)])).unwrap(), [], "all of it had been read");
    let mut bounded = skipping(&[5], Some(&[7]), &[(0, 20)]);
    let lost = bounded.observe(SOURCE, &heads(&[(8, 20)])).unwrap();
    assert_eq!((lost, bounded.has_ended()), (vec![loss(5, 7, LossCause::Retention)], true));
}

#[test]
fn a_partition_that_is_gone_is_let_go_and_one_that_comes_again_is_new() {
    let mut planner = skipping(&[5], None, &[(0, 20)]);
    assert_eq!(planner.observe(SOURCE, &[]).unwrap(), [loss(5, 20, LossCause::Deleted)]);
    assert_eq!(planner.observe(SOURCE, &[]).unwrap(), [], "it is told once");
    assert_eq!(plan(&mut planner, 0), []);
    planner.observe(SOURCE, &made_again(&[(0, 3)])).unwrap();
    assert_eq!(plan(&mut planner, 1), [(0, 3)]);
    let mut bounded = skipping(&[5], Some(&[15]), &[(0, 20)]);
    assert_eq!(bounded.observe(SOURCE, &[]).unwrap(), [loss(5, 15, LossCause::Deleted)]);
    assert!(bounded.has_ended());
}

#[test]
fn a_topic_that_was_made_again_is_read_from_its_beginning() {
    let mut planner = skipping(&[5], None, &[(0, 20)]);
    let lost = planner.observe(SOURCE, &made_again(&[(0, 300)])).unwrap();
    assert_eq!(lost, [loss(5, 20, LossCause::Recreated)]);
    assert_eq!(plan(&mut planner, 0), [(0, 300)]);
    let mut bounded = skipping(&[5], Some(&[20]), &[(0, 20)]);
    bounded.observe(SOURCE, &made_again(&[(0, 3)])).unwrap();
    assert_eq!(plan(&mut bounded, 0), [(0, 3)]);
    assert!(bounded.has_ended());
}

#[test]
fn a_log_that_has_become_shorter_is_read_on_from_its_end_and_from_its_beginning_where_ids_are_not_told() {
    let mut planner = skipping(&[10], None, &[(0, 20)]);
    assert_eq!(planner.observe(SOURCE, &heads(&[(0, 12)])).unwrap(), [], "nothing that was read is gone");
    assert_eq!(planner.observe(SOURCE, &heads(&[(0, 8)])).unwrap(), [loss(10, 12, LossCause::Shrunk)]);
    planner.observe(SOURCE, &heads(&[(0, 9)])).unwrap();
    assert_eq!(plan(&mut planner, 0), [(8, 9)]);
    let mut nameless = skipping(&[10], None, &[(0, 20)]);
    nameless.observe(SOURCE, &without_ids(&[(0, 20)])).unwrap();
    nameless.observe(SOURCE, &without_ids(&[(0, 8)])).unwrap();
    assert_eq!(plan(&mut nameless, 0), [(0, 8)]);
    let mut failing = planner_at(10);
    failing.observe(SOURCE, &heads(&[(0, 20)])).unwrap();
    let error = failing.observe(SOURCE, &heads(&[(0, 8)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(error.to_string().contains("partition 0: wanted offset 10, but its records end at 8"), "{error}");
}

fn planner_at(position: i64) -> Planner {
    planner(1_000, None, &[position], None)
}

#[test]
fn a_rate_is_met_exactly_over_time_and_saves_up_no_more_than_the_longest_step() {
    let mut planner = planner(1_000_000, Some(2.5), &[0], None);
    planner.observe(SOURCE, &heads(&[(0, 1_000)])).unwrap();
    assert_eq!(plan(&mut planner, 0), [(0, 2)], "the first batch spans a second");
    let read: Vec<_> = (1..=40).map(|tick| plan(&mut planner, tick * 100)[0].1).collect();
    assert_eq!(read.last(), Some(&12), "five seconds of 2.5, the first included");
    assert_eq!(plan(&mut planner, 1_000_000), [(12, 17)], "two seconds at most");
    let mut slow = self::planner(10, Some(0.01), &[0], None);
    slow.observe(SOURCE, &heads(&[(0, 9)])).unwrap();
    let read: i64 =
        (0..200).map(|second| plan(&mut slow, second * 1_000)[0]).map(|(from, until)| until - from).sum();
    assert_eq!(read, 2, "a rate below one record a step is still met");
}

#[test]
fn a_rate_so_low_that_no_batch_would_read_anything_is_met_although_empty_batches_are_not_adopted() {
    // What comes in 20.9 s, with what the first batch is taken to span.
    for (rate, expected) in [(0.5, 10), (5.0, 104)] {
        let mut planner = planner(10, Some(rate), &[0], None);
        planner.observe(SOURCE, &heads(&[(0, 1_000)])).unwrap();
        let mut read: i64 = 0;
        for millis in (0..20_000).step_by(100) {
            planner.begin(BatchTime(millis));
            let draft = planner.draft(BatchTime(millis), BatchTime(millis));
            if !draft.is_empty() {
                planner.adopt(&draft);
                read += ranges(&draft).iter().map(|(from, until)| until - from).sum::<i64>();
            }
        }
        assert_eq!(read, expected, "{rate} a second");
    }
}

#[test]
fn batches_whose_times_run_ahead_of_the_clock_bring_no_more_than_the_rate_allows() {
    let mut planner = planner(50, Some(1_000.0), &[0], None);
    planner.observe(SOURCE, &heads(&[(0, 1_000_000)])).unwrap();
    let mut read = plan(&mut planner, 0)[0].1;
    for batch in 1..=400 {
        let draft = planner.draft(BatchTime(batch), BatchTime(batch / 4)); // four batches a millisecond
        planner.adopt(&draft);
        read += ranges(&draft).iter().map(|(from, until)| until - from).sum::<i64>();
    }
    assert_eq!(read, 1_100, "the first batch's second, and 100 ms of the clock");
}

#[test]
fn a_partition_held_back_by_its_rate_lags_and_is_not_at_its_end() {
    let mut planner = planner(1_000, Some(0.5), &[0, 0], None);
    planner.observe(SOURCE, &heads(&[(0, 9), (0, 0)])).unwrap();
    let draft = planner.draft(BatchTime(0), BatchTime(0));
    let standings: Vec<Standing> = draft.standings.iter().map(|(_, standing)| *standing).collect();
    assert_eq!(standings, [Standing::Lags, Standing::AtEnd]);
    assert_eq!(draft.at_end(&planner), [(SOURCE, at(1))]);
}

#[test]
fn a_partition_without_history_is_tried_with_ten_thousand_records() {
    let mut planner = planner(1_000_000, None, &[0, 0], None);
    planner.observe(SOURCE, &heads(&[(0, 50_000), (0, 50_000)])).unwrap();
    assert_eq!(plan(&mut planner, 0), [(0, 10_000), (0, 10_000)]);
    learn(&mut planner, 0, 1_000);
    assert_eq!(plan(&mut planner, 1), [(10_000, 50_000), (10_000, 20_000)]);
}

#[test]
fn memory_bounds_a_batch_by_twice_the_largest_mean_of_the_last_sixteen_batches() {
    let rule =
        SourceRule { name: "readings".to_owned(), bounded: false, max_rate: None, on_loss: OnLoss::Fail };
    let limits = Limits { max_records: 1_000_000, max_memory: 400_000, back_pressure: None };
    let mut planner = Planner::new(vec![rule], limits, PACE);
    planner.follow(SOURCE, &positions(&[0]), None);
    planner.observe(SOURCE, &heads(&[(0, 1_000_000)])).unwrap();
    let count = |planner: &Planner| ranges(&planner.draft(BatchTime(0), BatchTime(0)))[0].1;
    learn(&mut planner, 0, 10_000); // a mean of 1,000 bytes: 2,000 a record, of the 200,000 for one of two batches
    assert_eq!(count(&planner), 100);
    (0..15).for_each(|_| learn(&mut planner, 0, 1_000));
    assert_eq!(count(&planner), 100, "the large ones are still among the last sixteen");
    learn(&mut planner, 0, 1_000);
    assert_eq!(count(&planner), 1_000);
    learn(&mut planner, 0, 10_000_000_000);
    assert_eq!(count(&planner), 1, "one that never fits is planned alone, and fails with its name");
}
