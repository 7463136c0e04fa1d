//! What the driver remembers: a stream that goes on from it finds the same watermark, the next batch and its place.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use tidemill::driver::Trigger;
use tidemill::driver::laggard::Laggard;
use tidemill::driver::log::{Entry, EntryKind};
use tidemill::driver::machine::{Command, Input, Purpose};
use tidemill::driver::memory::{Memory, PlaceMemory};
use tidemill::driver::planning::{Pace, Planner, SourceRule};
use tidemill::driver::watermark::{EventTimeRule, Idleness, Place, Standing, Watermark};
use tidemill::driver::{BackPressure, Limits};
use tidemill::event::{Counts, Event};
use tidemill::exec::{PartitionReport, StateSize};
use tidemill::ingest::{Head, OnLoss};
use tidemill::offset::{Offset, TopicPartition};
use tidemill::plan::SourceId;
use tidemill::time::{BatchId, BatchTime, EventTime};

use super::hand::{Hand, interval};

const LONGEST: Duration = Duration::from_secs(1);

/// What follows plans and batches, all together.
#[derive(Clone)]
struct Followed {
    idleness: Idleness,
    watermark: Watermark,
    laggard: Laggard,
}

impl Followed {
    fn new(rules: &[Option<EventTimeRule>]) -> Self {
        let (idleness, laggard) = (Idleness::new(rules.to_vec(), LONGEST), Laggard::default());
        Self { idleness, watermark: Watermark::new(rules.to_vec()), laggard }
    }

    /// Another that goes on from what is written down of it.
    fn elsewhere(&self, rules: &[Option<EventTimeRule>], sources: &[String]) -> Self {
        let mut memory = Memory { sources: sources.to_vec(), ..Memory::default() };
        self.idleness.remember(&mut memory);
        self.watermark.remember(&mut memory);
        self.laggard.remember(&mut memory);
        let memory = Memory::decode(&memory.encode()).unwrap();
        Self {
            idleness: Idleness::resumed(rules.to_vec(), LONGEST, &memory),
            watermark: Watermark::resumed(rules.to_vec(), &memory),
            laggard: Laggard::resumed(&memory),
        }
    }

    fn batch(&mut self, time: i64, standings: &[(Place, Standing)], times: &[(Place, EventTime)]) -> String {
        let silence = self.idleness.plan(BatchTime(time), standings);
        let due = self.idleness.due(standings); // before the first plan after a start, one is due at once
        let value = self.watermark.advance(&silence, times.iter().map(|(place, time)| (place, *time)));
        let told: BTreeSet<&Place> = times.iter().map(|(place, _)| place).collect();
        let warning = self.laggard.look(&self.watermark, &silence, &told);
        let waits = due.map(|due| due.0.max(time) - time);
        format!("{value:?} {:?} {silence:?} {warning:?} {waits:?}", self.watermark.holder())
    }
}

fn any_standing(random: &mut Rng) -> Standing {
    use Standing::{AtEnd, CatchesUp, Ended, Lags, Reads};
    random.choice([AtEnd, AtEnd, AtEnd, CatchesUp, CatchesUp, Reads, Lags, Ended]).unwrap()
}

#[test]
fn watermark_idleness_and_laggard_go_on_as_if_they_had_never_stopped() {
    for seed in 0..300 {
        let mut random = Rng::with_seed(seed);
        let rule = |random: &mut Rng| EventTimeRule {
            delay: Duration::from_secs(random.u64(..3)),
            idle_timeout: (random.u8(..4) > 0).then(|| Duration::from_secs(random.u64(1..4))),
        };
        let rules: Vec<Option<EventTimeRule>> =
            (0..2).map(|_| (random.u8(..6) > 0).then(|| rule(&mut random))).collect();
        let sources = ["a", "b"].map(str::to_owned);
        let place = |number: i32| (SourceId(usize::from(number > 2)), TopicPartition::new("t", number));
        let places: Vec<Place> = (0..5).map(place).collect();
        let (mut steady, mut time) = (Followed::new(&rules), 0_i64);
        let mut moved = steady.clone();
        let behind = random.u8(..2) * 3;
        for batch in 0..40 {
            // The time in between does not count: to the one that never stopped none has passed.
            if random.u8(..5) == 0 {
                moved = moved.elsewhere(&rules, &sources);
            } else if batch > 0 {
                time += random.i64(1..1_500);
            }
            let standings: Vec<(Place, Standing)> =
                places.iter().map(|place| (place.clone(), any_standing(&mut random))).collect();
            let tells = |standing: Standing| matches!(standing, Standing::CatchesUp | Standing::Reads);
            let told = standings.iter().filter(|(_, standing)| tells(*standing) && random.u8(..5) > 0);
            let lag = |place: &Place| if place.1.partition.0 == 0 { i64::from(behind) * 3_600 } else { 0 };
            let mut times = Vec::new();
            for (place, _) in told.collect::<Vec<_>>() {
                let seconds = 100_000 + batch - lag(place) + random.i64(-3..3);
                times.push((place.clone(), EventTime(seconds * 1_000_000)));
            }
            let [expected, found] =
                [&mut steady, &mut moved].map(|followed| followed.batch(time, &standings, &times));
            assert_eq!(expected, found, "seed {seed}, batch {batch}");
        }
    }
}

#[test]
fn record_sizes_and_topics_are_recalled_and_another_topic_by_the_same_name_is_found() {
    let rule = |on_loss| SourceRule { name: "r".to_owned(), bounded: false, max_rate: None, on_loss };
    let limits = Limits { max_records: 1_000_000, max_memory: 100_000, back_pressure: None::<BackPressure> };
    let pace = Pace { first: LONGEST, longest: LONGEST };
    let at = TopicPartition::new("t", 0);
    let head = |id: u8| Head {
        at: at.clone(),
        topic_id: Some([id; 16]),
        earliest: Offset(0),
        stable: Offset(100_000),
        leader_epoch: None,
    };
    let source = SourceId(0);
    let mut planner = Planner::new(vec![rule(OnLoss::Fail)], limits, pace);
    planner.follow(source, &vec![(at.clone(), Offset(5))], None);
    planner.observe(source, &[head(1)]).unwrap();
    let report = PartitionReport { source, at: at.clone(), records: 10, bytes: 5_000, max_event_time: None };
    planner.learn(&[report]);
    let mut memory = Memory { sources: vec!["r".to_owned()], ..Memory::default() };
    planner.remember(&mut memory);
    let memory = Memory::decode(&memory.encode()).unwrap();
    let known = &memory.places[&(source, at.clone())];
    assert_eq!(known, &PlaceMemory { topic_id: Some([1; 16]), sizes: vec![500], ..PlaceMemory::default() });
    let resumed = |on_loss| {
        let mut planner = Planner::new(vec![rule(on_loss)], limits, pace);
        planner.follow(source, &vec![(at.clone(), Offset(5))], None);
        planner.recall(source, &memory);
        planner
    };
    let mut same = resumed(OnLoss::Fail);
    same.observe(source, &[head(1)]).unwrap();
    let draft = |planner: &Planner| planner.draft(BatchTime(0), BatchTime(0)).ranges[0].1[0].len();
    assert_eq!(draft(&same), draft(&planner), "as much is read as fits by the sizes known");
    let error = resumed(OnLoss::Fail).observe(source, &[head(2)]).unwrap_err();
    assert!(error.to_string().contains("was deleted and made again"), "{error}");
    let mut skipping = resumed(OnLoss::Skip);
    assert_eq!(skipping.observe(source, &[head(2)]).unwrap().len(), 1);
}

fn rule() -> EventTimeRule {
    EventTimeRule { delay: Duration::from_secs(2), idle_timeout: Some(Duration::from_secs(3)) }
}

/// Sees a batch through until its memory may be asked for, and then to its end.
fn remembered(hand: &mut Hand, batch: u64, seconds: i64, windows: u64) -> Memory {
    let id = BatchId(batch);
    assert_eq!(hand.memory(batch), None, "not before it has been reduced");
    hand.tell(Input::Recorded(id, EntryKind::Plan));
    let report = PartitionReport {
        source: SourceId(0),
        at: TopicPartition::new("t", 0),
        records: 3,
        bytes: 300,
        max_event_time: Some(EventTime(seconds * 1_000_000)),
    };
    let counts = Counts { records: 3, ..Counts::default() };
    hand.tell(Input::Mapped { batch: id, partitions: vec![report], counts });
    let state = StateSize { windows, ..StateSize::default() };
    hand.tell(Input::Reduced { batch: id, state, counts: Counts { output_rows: 1, ..Counts::default() } });
    let memory = hand.memory(batch).unwrap();
    hand.tell(Input::Recorded(id, EntryKind::Prepare));
    hand.tell(Input::Delivered(id));
    hand.tell(Input::Recorded(id, EntryKind::Commit));
    memory
}

fn at_tick(hand: &mut Hand, tick: i64, records: i64) -> Vec<Command> {
    hand.records = records;
    hand.at(tick, Input::Due);
    hand.heads()
}

#[test]
fn a_machine_goes_on_with_the_next_batch_from_where_each_partition_was_read_to() {
    let mut hand = Hand::remembering(interval(500), Some(rule()));
    hand.begin();
    at_tick(&mut hand, 500, 3);
    remembered(&mut hand, 0, 100, 1);
    at_tick(&mut hand, 1_000, 7);
    let memory = remembered(&mut hand, 1, 200, 4);
    assert_eq!((memory.batch, memory.time, memory.open_windows), (BatchId(1), BatchTime(1_000), 4));
    assert_eq!((memory.totals.batches, memory.totals.counts.records), (2, 6));
    assert_eq!(memory.watermark, Some(EventTime(198_000_000)));
    let memory = Memory::decode(&memory.encode()).unwrap();

    let (mut next, began) = Hand::resumed(&memory, interval(500), Some(rule()), 7_300);
    let asked = began.iter().find_map(|command| match command {
        Command::Resolve(questions) => {
            Some(questions.iter().map(|question| question.purpose).collect::<Vec<_>>())
        }
        _ => None,
    });
    assert_eq!(asked.unwrap(), [Purpose::Limit], "where it starts is known");
    next.tell(Input::Resolved(vec![vec![(TopicPartition::new("t", 0), Offset(9))]]));
    let planned = at_tick(&mut next, 7_500, 9);
    let plan = planned.iter().find_map(|command| match command {
        Command::Record(Entry::Plan { batch, time, ranges, .. }) => {
            Some((*batch, *time, ranges[0].1[0].from))
        }
        _ => None,
    });
    assert_eq!(plan, Some((BatchId(2), BatchTime(7_500), Offset(7))));
    let mapping = next.tell(Input::Recorded(BatchId(2), EntryKind::Plan));
    let watermark = mapping.iter().find_map(|command| match command {
        Command::Map(task) => Some(task.watermark),
        _ => None,
    });
    assert_eq!(watermark, Some(memory.watermark));
    let later = remembered_from_mapped(&mut next, 2);
    assert_eq!((later.totals.batches, later.totals.counts.records), (3, 9));
}

/// The rest of [`remembered`] for a batch whose plan is safe.
fn remembered_from_mapped(hand: &mut Hand, batch: u64) -> Memory {
    let batch = BatchId(batch);
    let counts = Counts { records: 3, ..Counts::default() };
    hand.tell(Input::Mapped { batch, partitions: Vec::new(), counts });
    hand.tell(Input::Reduced { batch, state: StateSize::default(), counts: Counts::default() });
    hand.memory(batch.0).unwrap()
}

#[test]
fn a_memory_is_as_of_its_batch_whatever_is_planned_and_mapped_ahead() {
    let mut hand = Hand::remembering(interval(500), Some(rule()));
    hand.begin();
    at_tick(&mut hand, 500, 3);
    let of = |batch: u64, seconds: i64| {
        let at = TopicPartition::new("t", 0);
        let max_event_time = Some(EventTime(seconds * 1_000_000));
        let report = PartitionReport { source: SourceId(0), at, records: 3, bytes: 300, max_event_time };
        let counts = Counts { records: 3, ..Counts::default() };
        Input::Mapped { batch: BatchId(batch), partitions: vec![report], counts }
    };
    hand.tell(Input::Recorded(BatchId(0), EntryKind::Plan));
    hand.tell(of(0, 100));
    at_tick(&mut hand, 1_000, 7);
    hand.tell(Input::Recorded(BatchId(1), EntryKind::Plan));
    hand.tell(of(1, 900));
    hand.tell(Input::Reduced { batch: BatchId(0), state: StateSize::default(), counts: Counts::default() });
    let memory = hand.memory(0).unwrap();
    let known = &memory.places[&(SourceId(0), TopicPartition::new("t", 0))];
    assert_eq!((memory.time, memory.watermark), (BatchTime(500), Some(EventTime(98_000_000))));
    assert_eq!((known.position, known.largest), (Some(Offset(3)), Some(EventTime(100_000_000))));
    assert_eq!((memory.totals.batches, memory.totals.counts.records), (1, 3));
}

#[test]
fn a_stream_that_goes_on_where_the_clock_is_behind_says_so_and_its_batches_have_later_times() {
    let mut hand = Hand::remembering(Trigger::AsSoonAsPossible, None);
    hand.records = 3;
    hand.begin();
    hand.heads();
    let memory = Memory { time: BatchTime(3_600_000), ..remembered(&mut hand, 0, 1, 0) };
    let (mut next, began) = Hand::resumed(&memory, Trigger::AsSoonAsPossible, None, 1_000);
    let warned = began.iter().any(|command| {
        matches!(command, Command::Emit(Event::Warning(error)) if error.to_string().contains("was set back by 3599.0s"))
    });
    assert!(warned, "{began:?}");
    next.records = 5;
    next.tell(Input::Resolved(vec![vec![(TopicPartition::new("t", 0), Offset(5))]]));
    let planned = next.heads().iter().find_map(|command| match command {
        Command::Record(Entry::Plan { time, .. }) => Some(*time),
        _ => None,
    });
    assert_eq!(planned, Some(BatchTime(3_600_001)));
}

#[test]
fn nothing_is_noted_unless_it_is_asked_for() {
    let mut hand = Hand::new(interval(500), Some(rule()));
    hand.begin();
    at_tick(&mut hand, 500, 3);
    let batch = BatchId(0);
    hand.tell(Input::Recorded(batch, EntryKind::Plan));
    hand.tell(Input::Mapped { batch, partitions: Vec::new(), counts: Counts::default() });
    hand.tell(Input::Reduced { batch, state: StateSize::default(), counts: Counts::default() });
    assert_eq!(hand.memory(0), None);
}
