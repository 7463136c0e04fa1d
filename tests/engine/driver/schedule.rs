//! When batches are due: the machine alone, fed by hand.

use std::time::Duration;

use tidemill::driver::log::EntryKind;
use tidemill::driver::machine::{Command, Input, Task};
use tidemill::driver::watermark::EventTimeRule;
use tidemill::driver::{Stop, Trigger};
use tidemill::error::{Error, ErrorKind};
use tidemill::event::{Counts, Event};
use tidemill::ingest::Bound;
use tidemill::offset::{Offset, TopicPartition};
use tidemill::time::BatchId;

use super::hand::{Hand, asks, interval, planned, wakes};

#[test]
fn with_an_interval_nothing_is_asked_or_planned_before_the_tick() {
    let mut hand = Hand::new(interval(500), None);
    let began = hand.begin();
    assert_eq!((asks(&began), wakes(&began)), (false, Some(500)));
    assert!(!asks(&hand.at(499, Input::Woken)));
    hand.records = 3;
    assert!(asks(&hand.at(500, Input::Due)));
    hand.now = 510;
    assert_eq!(planned(&hand.heads()), Some(500), "the batch's time is the tick");
}

#[test]
fn a_tick_without_records_writes_nothing_and_waits_for_the_next() {
    let mut hand = Hand::new(interval(500), None);
    hand.begin();
    hand.at(500, Input::Due);
    let commands = hand.heads();
    assert_eq!((planned(&commands), wakes(&commands)), (None, Some(1_000)));
}

#[test]
fn a_batch_that_is_late_has_the_time_of_the_last_tick_and_the_ones_between_are_skipped() {
    let mut hand = Hand::new(interval(500), None);
    hand.begin();
    hand.records = 3;
    hand.at(500, Input::Due);
    assert_eq!(planned(&hand.heads()), Some(500));
    hand.records = 6;
    assert!(asks(&hand.at(2_300, Input::Due)));
    assert_eq!(planned(&hand.heads()), Some(2_000));
}

#[test]
fn a_batch_planned_ahead_waits_for_the_map_before_it_and_a_third_for_the_commit() {
    let mut hand = Hand::new(interval(500), None);
    hand.begin();
    for (tick, records) in [(500, 3), (1_000, 6)] {
        hand.records = records;
        hand.at(tick, Input::Due);
        assert_eq!(planned(&hand.heads()), Some(tick));
    }
    let early = hand.tell(Input::Recorded(BatchId(1), EntryKind::Plan));
    assert!(!early.iter().any(|command| matches!(command, Command::Map(_))));
    hand.records = 9;
    assert!(!asks(&hand.at(1_500, Input::Due)), "one is ahead already");
    assert!(asks(&hand.finish(0)), "COMMIT makes room at once, without waiting for a tick");
    assert_eq!(planned(&hand.heads()), Some(1_500));
}

#[test]
fn batch_times_increase_even_while_the_clock_stands_or_goes_back() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    hand.records = 3;
    assert!(asks(&hand.begin()));
    assert_eq!(planned(&hand.heads()), Some(10));
    hand.records = 6;
    hand.finish(0);
    hand.tell(Input::Woken);
    assert_eq!(planned(&hand.heads()), Some(11));
    hand.records = 9;
    hand.finish(1);
    assert!(asks(&hand.at(3, Input::Woken)));
    assert_eq!(planned(&hand.heads()), Some(12));
}

#[test]
fn a_clock_that_is_set_back_by_an_hour_holds_no_batch_up() {
    const HOUR: i64 = 3_600_000;
    for trigger in [interval(500), Trigger::AsSoonAsPossible] {
        let mut hand = Hand::new(trigger, None);
        if asks(&hand.begin()) {
            hand.heads();
        }
        let (mut warnings, mut times) = (0, Vec::new());
        for (batch, tick) in [500, 1_000, 1_500].into_iter().enumerate() {
            hand.set_back = if batch > 0 { HOUR } else { 0 };
            hand.records += 3;
            let commands = hand.at(tick, Input::Due);
            warnings +=
                commands.iter().filter(|command| matches!(command, Command::Emit(Event::Warning(_)))).count();
            times.extend(planned(&if asks(&commands) { hand.heads() } else { commands }));
            hand.finish(batch as u64);
        }
        assert_eq!((times, warnings), (vec![500, 1_000, 1_500], 1), "{trigger:?}");
        assert!(hand.wakes.expect("it looks again") <= 2_000 - HOUR, "in the time of day: {:?}", hand.wakes);
    }
}

#[test]
fn heads_that_do_not_move_are_asked_for_every_hundred_milliseconds() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    hand.begin();
    assert_eq!(wakes(&hand.heads()), Some(110));
    assert!(asks(&hand.at(110, Input::Due)));
    assert_eq!(wakes(&hand.heads()), Some(210));
    assert!(asks(&hand.at(130, Input::Woken)), "a source's own word is sooner");
}

#[test]
fn sources_that_wake_all_the_time_do_not_keep_the_stream_from_planning() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    hand.begin();
    hand.records = 5;
    hand.tell(Input::Woken);
    hand.now += 5_000; // and the answer takes longer than heads stay fresh
    assert!(planned(&hand.heads()).is_some());
}

#[test]
fn a_backlog_is_planned_from_fresh_heads_without_asking_again() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    hand.begin();
    hand.records = 250;
    assert!(planned(&hand.heads()).is_some());
    let next = (hand.tell(Input::Recorded(BatchId(0), EntryKind::Plan)), BatchId(0));
    let mapped = Input::Mapped { batch: next.1, partitions: Vec::new(), counts: Counts::default() };
    let mapped = hand.tell(mapped);
    assert!(planned(&mapped).is_some() && !asks(&mapped), "as soon as the one before has been mapped");
}

#[test]
fn what_arrives_behind_a_batch_in_flight_gathers_until_that_is_done_or_for_a_little_while() {
    let arrives_behind_the_first = || {
        let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
        hand.begin();
        hand.records = 50;
        assert!(planned(&hand.heads()).is_some());
        hand.records = 60;
        hand.tell(Input::Recorded(BatchId(0), EntryKind::Plan));
        hand.tell(Input::Mapped { batch: BatchId(0), partitions: Vec::new(), counts: Counts::default() });
        assert!(!asks(&hand.at(12, Input::Woken)), "the first is in flight, and took all there was");
        hand
    };
    let mut done = arrives_behind_the_first();
    assert!(asks(&done.finish(0)), "it is done");
    let mut slow = arrives_behind_the_first();
    assert_eq!(slow.wakes, Some(15));
    assert!(asks(&slow.at(15, Input::Due)), "it takes its time");
    assert!(planned(&slow.heads()).is_some(), "and is not waited for");
}

#[test]
fn what_arrives_behind_an_answer_of_nothing_new_is_asked_for_when_it_has_gathered() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    hand.begin();
    hand.records = 50;
    assert!(planned(&hand.heads()).is_some());
    hand.tell(Input::Recorded(BatchId(0), EntryKind::Plan));
    hand.tell(Input::Mapped { batch: BatchId(0), partitions: Vec::new(), counts: Counts::default() });
    hand.tell(Input::Woken);
    assert!(asks(&hand.at(15, Input::Due)));
    assert!(planned(&hand.heads()).is_none(), "a wake for what the batch had taken");
    assert!(asks(&hand.tell(Input::Woken)), "and one for more: the time to gather was that of the batch");
}

#[test]
fn what_arrives_while_the_sources_answer_that_there_is_nothing_is_asked_for_at_once() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    assert!(asks(&hand.begin()));
    hand.tell(Input::Woken);
    assert!(planned(&hand.heads()).is_none());
    assert_eq!(hand.wakes, Some(hand.now + 1));
    assert!(asks(&hand.at(hand.now + 1, Input::Due)));
}

#[test]
fn sources_that_cannot_be_asked_are_asked_ever_more_seldom_with_one_warning() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    hand.begin();
    let (mut steps, mut warnings) = (Vec::new(), 0);
    for _ in 0..8 {
        let commands = hand.tell(Input::Failed(Task::Heads, Error::source("broker gone").retriable()));
        warnings +=
            commands.iter().filter(|command| matches!(command, Command::Emit(Event::Warning(_)))).count();
        let wake = wakes(&commands).expect("it asks again");
        assert!(!asks(&hand.tell(Input::Woken)), "not before its time");
        steps.push(wake - hand.now);
        assert!(asks(&hand.at(wake, Input::Due)));
    }
    assert_eq!((steps, warnings), (vec![100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000], 1));
    hand.records = 1;
    assert!(planned(&hand.heads()).is_some());
}

#[test]
fn empty_batches_are_written_until_every_partition_is_idle_and_no_window_is_open() {
    let rule = EventTimeRule { delay: Duration::ZERO, idle_timeout: Some(Duration::from_secs(2)) };
    for (trigger, expected) in [
        (interval(500), [500, 1_500, 2_500, 3_500, 4_500]),
        (Trigger::AsSoonAsPossible, [10, 1_010, 2_010, 3_010, 4_010]),
    ] {
        let times = Hand::new(trigger, Some(rule)).empty_batches(|_| 0);
        assert_eq!(times, expected[..3], "{trigger:?}");
        let times = Hand::new(trigger, Some(rule)).empty_batches(|batch| u64::from(batch < 4));
        assert_eq!(times, expected, "{trigger:?}: the fifth batch closed the last window");
    }
}

#[test]
fn a_start_beyond_the_end_of_the_log_is_data_loss_and_one_at_its_end_is_not() {
    for bound in [Bound::Offsets(Vec::new()), Bound::Committed { fallback: Box::new(Bound::Earliest) }] {
        let at = |offset| vec![(TopicPartition::new("t", 0), Offset(offset))];
        let mut hand = Hand::starting(bound.clone(), Trigger::AsSoonAsPossible, None);
        assert!(asks(&hand.tell(Input::Resolved(vec![at(10), at(10)]))));
        let mut hand = Hand::starting(bound, Trigger::AsSoonAsPossible, None);
        let commands = hand.tell(Input::Resolved(vec![at(1_000), at(10)]));
        let [Command::Emit(Event::Failed(error)), Command::CloseSinks] = commands.as_slice() else {
            panic!("{commands:?}")
        };
        assert_eq!(error.kind(), ErrorKind::DataLoss);
        assert!(error.to_string().contains("t partition 0: wanted offset 1000, but the log ends at 10"));
    }
}

#[test]
fn what_is_gone_is_skipped_with_a_warning_and_counted_in_the_next_batch() {
    let at = |offset| vec![(TopicPartition::new("t", 0), Offset(offset))];
    let committed = Bound::Committed { fallback: Box::new(Bound::Earliest) };
    let mut hand = Hand::skipping(committed, Trigger::AsSoonAsPossible);
    // Committed 1,000 of a log that ends at 10 and begins at 3.
    let commands = hand.tell(Input::Resolved(vec![at(1_000), at(10), at(3)]));
    let warned = |commands: &[Command]| {
        let warning = |command: &Command| match command {
            Command::Emit(Event::Warning(error)) => Some(error.to_string()),
            _ => None,
        };
        commands.iter().filter_map(warning).collect::<Vec<_>>()
    };
    assert!(warned(&commands)[0].contains("t partition 0: 0 offsets are lost, from 1000 until 1000"));
    hand.records = 10;
    hand.earliest = 5;
    let commands = hand.heads();
    assert!(warned(&commands)[0].contains("2 offsets are lost, from 3 until 5: retention removed them"));
    let ranges = |commands: &[Command]| {
        commands.iter().find_map(|command| match command {
            Command::Emit(Event::Planned { ranges, .. }) => Some(ranges.clone()),
            _ => None,
        })
    };
    assert_eq!(ranges(&commands).unwrap()[0].to_string(), "t[0] 5..10");
    let commands = hand.finish(0);
    let completed = commands.iter().find_map(|command| match command {
        Command::Emit(Event::Completed(progress)) => Some(progress.counts.lost),
        _ => None,
    });
    assert_eq!(completed, Some(2));
}

#[test]
fn a_stop_while_starting_ends_without_a_batch() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    let commands = hand.tell(Input::Stop(Stop::Graceful));
    assert!(matches!(commands.as_slice(), [Command::CloseSinks]), "{commands:?}");
    let commands = hand.begin();
    assert!(commands.is_empty(), "an answer that nobody waits for: {commands:?}");
    let commands = hand.tell(Input::Closed);
    assert!(
        matches!(commands.as_slice(), [Command::Emit(Event::Stopped), Command::Finish(None)]),
        "{commands:?}"
    );
}

fn resolves(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::Resolve(_)))
}

#[test]
fn a_start_is_tried_again_while_what_the_sources_lack_passes_by_itself() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    let mut warnings = 0;
    for _ in 0..4 {
        let commands = hand.tell(Input::Failed(Task::Resolve, Error::source("no leader").retriable()));
        warnings +=
            commands.iter().filter(|command| matches!(command, Command::Emit(Event::Warning(_)))).count();
        let wake = wakes(&commands).expect("it tries again");
        assert!(!resolves(&hand.tell(Input::Woken)), "not before its time");
        assert!(resolves(&hand.at(wake, Input::Due)));
    }
    assert_eq!(warnings, 1);
    assert!(asks(&hand.begin()), "and goes on as if nothing had been");
}

#[test]
fn a_start_that_is_refused_or_fails_for_long_fails_the_stream() {
    let fails = |hand: &mut Hand, error: Error| {
        let commands = hand.tell(Input::Failed(Task::Resolve, error));
        commands.iter().any(|command| matches!(command, Command::Emit(Event::Failed(_))))
    };
    let mut refused = Hand::new(Trigger::AsSoonAsPossible, None);
    assert!(fails(&mut refused, Error::source("no such topic")));
    let mut lasting = Hand::new(Trigger::AsSoonAsPossible, None);
    let lacks = || Error::source("no leader").retriable();
    assert!(!fails(&mut lasting, lacks()));
    assert!(resolves(&lasting.at(30_020, Input::Due)));
    assert!(fails(&mut lasting, lacks()));
}

#[test]
fn a_stop_while_a_start_is_to_be_tried_again_ends_the_stream() {
    let mut hand = Hand::new(Trigger::AsSoonAsPossible, None);
    hand.tell(Input::Failed(Task::Resolve, Error::source("no leader").retriable()));
    let commands = hand.tell(Input::Stop(Stop::Graceful));
    assert!(commands.iter().any(|command| matches!(command, Command::CloseSinks)), "{commands:?}");
}
