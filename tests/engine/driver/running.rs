//! The loop on real threads: what overlaps, what stops it, what fails it, and that it gives everything back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill::driver::{JobSink, Running, Stop, Trigger, Waited, start};
use tidemill::error::{Error, ErrorKind};
use tidemill::event::{Event, Totals};
use tidemill::offset::{Offset, TopicPartition};
use tidemill::time::{BatchId, BatchTime, Clock, Interval, ManualClock, Waker};

use super::fakes::{FakeEngine, Fixture, Gate, LONG, Stage, Step, schema};

const PHASES: [Step; 3] = [Step::Map, Step::Reduce, Step::Deliver];

fn ends(running: &Running) {
    assert_eq!(running.wait(Some(LONG)).expect("the stream ends well"), Waited::Ended);
}

fn fails(running: &Running) -> Error {
    running.wait(Some(LONG)).expect_err("the stream fails")
}

/// Waits at `step` of batch `batch` until the gate is opened, or until the map is cancelled.
fn hold(stage: &Arc<Stage>, step: Step, batch: u64) -> Arc<Gate> {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    stage.hook(move |at, of| {
        if at == step && of == Some(BatchId(batch)) {
            held.pass();
        }
        Ok(())
    });
    gate
}

fn interval(millis: u64) -> Trigger {
    Trigger::Interval(Interval::new(Duration::from_millis(millis)).unwrap())
}

#[test]
fn available_now_drains_in_bounded_batches_and_ends_by_itself() {
    let fixture = Fixture::new(&[25, 0, 3]);
    let running = start(fixture.job(Trigger::AvailableNow)).unwrap();
    ends(&running);
    let delivered = fixture.stage.delivered();
    assert!(delivered.iter().all(|(_, rows)| rows.len() <= 10), "{delivered:?}");
    assert_eq!(fixture.stage.offsets().len(), 28);
    let reached = [25, 0, 3].into_iter().enumerate();
    let reached: Vec<_> =
        reached.map(|(n, end)| (TopicPartition::new("t", i32::try_from(n).unwrap()), Offset(end))).collect();
    assert_eq!(fixture.source.told(), Some(reached));
    assert!(matches!(fixture.stage.events().first(), Some(Event::Started(BatchId(0)))));
    assert!(matches!(fixture.stage.events().last(), Some(Event::Stopped)));
    assert_eq!((fixture.stage.count(Step::Open), fixture.stage.count(Step::Close)), (1, 1));
}

#[test]
fn available_now_over_an_empty_topic_ends_without_a_batch() {
    let fixture = Fixture::new(&[0, 0]);
    ends(&start(fixture.job(Trigger::AvailableNow)).unwrap());
    assert_eq!(fixture.stage.count(Step::Map), 0);
}

#[test]
fn an_ending_ends_the_stream_under_every_trigger() {
    for trigger in [Trigger::AsSoonAsPossible, Trigger::AvailableNow, interval(100)] {
        let fixture = Fixture::new(&[4]);
        let mut job = fixture.job(trigger);
        job.sources[0].ending = Some(tidemill::ingest::Bound::Latest);
        let running = start(job).unwrap();
        fixture.clock.advance(Duration::from_millis(100));
        ends(&running);
        assert_eq!(fixture.stage.offsets(), [0, 1, 2, 3], "{trigger:?}");
    }
}

#[test]
fn as_soon_as_possible_wakes_when_the_source_says_so_while_the_clock_stands() {
    let fixture = Fixture::new(&[0]);
    let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    for batch in 0..5 {
        fixture.source.push(2);
        fixture.stage.wait_until("two more", |stage| stage.offsets().len() == 2 * (batch + 1));
    }
    running.stop(Stop::Graceful);
    ends(&running);
    assert_eq!(fixture.stage.offsets(), (0..10).collect::<Vec<i64>>());
}

#[test]
fn a_batch_has_the_time_of_its_tick_and_missed_ticks_are_skipped() {
    let fixture = Fixture::new(&[3]);
    let running = start(fixture.job(interval(100))).unwrap();
    fixture.clock.advance(Duration::from_millis(50));
    fixture.stage.wait_until("the first batch", |stage| stage.completed() == 1);
    fixture.source.push(1);
    fixture.clock.advance(Duration::from_millis(350));
    fixture.stage.wait_until("the second batch", |stage| stage.completed() == 2);
    running.stop(Stop::Graceful);
    ends(&running);
    let times: Vec<i64> = fixture.stage.events().iter().filter_map(planned_time).collect();
    assert_eq!(times, [1_000_000_100, 1_000_000_400]);
}

fn planned_time(event: &Event) -> Option<i64> {
    match event {
        Event::Planned { time, .. } => Some(time.0),
        _ => None,
    }
}

#[test]
fn the_next_batch_is_mapped_and_reduced_while_one_is_delivered_but_none_is_planned_beyond_it() {
    let fixture = Fixture::new(&[100]);
    let gate = hold(&fixture.stage, Step::Deliver, 0);
    let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    fixture.stage.wait_for(Step::Deliver, 0);
    fixture.stage.wait_for(Step::Reduce, 1);
    assert!(!fixture.stage.has_begun(Step::Deliver, 1) && !fixture.stage.has_begun(Step::Map, 2));
    gate.open();
    fixture.stage.wait_for(Step::Deliver, 9);
    running.stop(Stop::Graceful);
    ends(&running);
    assert_eq!(fixture.stage.offsets(), (0..100).collect::<Vec<i64>>());
}

/// A clock that counts how often somebody looked at it, and how often somebody would have slept until a time past.
#[derive(Debug)]
struct Watched {
    clock: Arc<ManualClock>,
    looks: AtomicUsize,
    in_vain: AtomicUsize,
}

impl Clock for Watched {
    fn now(&self) -> BatchTime {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.clock.now()
    }

    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    fn sleep_until(&self, time: BatchTime) -> Option<Duration> {
        let wait = self.clock.sleep_until(time);
        self.in_vain.fetch_add(usize::from(wait == Some(Duration::ZERO)), Ordering::SeqCst);
        wait
    }

    fn subscribe(&self, waker: Waker) {
        self.clock.subscribe(waker);
    }
}

#[test]
fn the_driver_sleeps_while_a_slow_sink_holds_both_batches() {
    const RINGS: usize = 50;
    let fixture = Fixture::new(&[100]);
    let gate = hold(&fixture.stage, Step::Deliver, 0);
    let (looks, in_vain) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let watched = Arc::new(Watched { clock: Arc::clone(&fixture.clock), looks, in_vain });
    let mut job = fixture.job(interval(100));
    job.clock = Arc::clone(&watched) as _;
    let running = start(job).unwrap();
    for (step, batch) in [(Step::Deliver, 0), (Step::Reduce, 1)] {
        fixture.clock.advance(Duration::from_millis(100));
        fixture.stage.wait_for(step, batch);
    }
    for _ in 0..RINGS {
        let seen = watched.looks.load(Ordering::SeqCst);
        fixture.clock.advance(Duration::ZERO);
        while watched.looks.load(Ordering::SeqCst) == seen {
            std::thread::yield_now();
        }
    }
    let in_vain = watched.in_vain.load(Ordering::SeqCst);
    assert!(in_vain < RINGS, "it looked at a time that had passed {in_vain} times");
    gate.open();
    running.stop(Stop::Graceful);
    ends(&running);
}

#[test]
fn a_graceful_stop_in_each_phase_finishes_what_is_planned() {
    for phase in PHASES {
        let fixture = Fixture::new(&[15]);
        let gate = hold(&fixture.stage, phase, 0);
        let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
        fixture.stage.wait_for(phase, 0);
        running.stop(Stop::Graceful);
        running.stop(Stop::Graceful);
        gate.open();
        ends(&running);
        let planned = fixture.stage.events().iter().filter_map(planned_time).count();
        assert_eq!(fixture.stage.delivered().len(), planned, "{phase:?}");
        assert_eq!(
            fixture.source.told().unwrap()[0].1.0,
            i64::try_from(fixture.stage.offsets().len()).unwrap(),
            "{phase:?}"
        );
        assert_eq!(fixture.stage.count(Step::Close), 1);
    }
}

#[test]
fn a_stop_at_once_cancels_the_map() {
    let fixture = Fixture::new(&[5]);
    let stage = Arc::clone(&fixture.stage);
    fixture.stage.hook(move |at, _| {
        if at != Step::Map {
            return Ok(());
        }
        stage.wait_until("cancel", Stage::cancelled);
        Err(Error::source("gave up"))
    });
    let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    fixture.stage.wait_for(Step::Map, 0);
    running.stop(Stop::Now);
    ends(&running);
    assert_eq!((fixture.stage.count(Step::Reduce), fixture.stage.count(Step::Close)), (0, 1));
}

#[test]
fn no_stop_waits_for_a_source_that_does_not_answer() {
    let cases = [Step::Heads, Step::Resolve].map(|step| [(step, Stop::Now), (step, Stop::Graceful)]);
    for (step, stop) in cases.into_iter().flatten() {
        let fixture = Fixture::new(&[5]);
        let gate = Arc::new(Gate::default());
        let held = Arc::clone(&gate);
        fixture.stage.hook(move |at, _| {
            if at == step {
                held.pass();
            }
            Ok(())
        });
        let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
        fixture.stage.wait_until("the question", |stage| stage.count(step) > 0);
        running.stop(stop);
        ends(&running);
        let (opened, closed) = (fixture.stage.count(Step::Open), fixture.stage.count(Step::Close));
        assert_eq!(opened, closed, "only what was opened is closed, and it may not have been begun");
        assert!(running.begun().is_ok());
        gate.open();
    }
}

#[test]
fn no_stop_waits_for_a_sink_that_is_opening_and_the_next_is_not_asked_to() {
    for stop in [Stop::Graceful, Stop::Now] {
        let fixture = Fixture::new(&[5]);
        fixture.stage.until_cancelled(Step::Open);
        let mut job = fixture.job(Trigger::AsSoonAsPossible);
        job.sinks.push(JobSink { sink: Box::new(fixture.sink(true)), schema: schema() });
        let running = start(job).unwrap();
        fixture.stage.wait_until("the opening", |stage| stage.count(Step::Open) > 0);
        running.stop(stop);
        ends(&running);
        assert!(running.begun().is_ok() && running.error().is_none());
        assert_eq!((fixture.stage.count(Step::Open), fixture.stage.count(Step::Close)), (1, 0));
    }
}

#[test]
fn a_source_that_refuses_the_start_does_not_wait_for_a_sink_that_is_opening() {
    let fixture = Fixture::new(&[5]);
    fixture.stage.until_cancelled(Step::Open);
    fixture.stage.hook(|at, _| if at == Step::Resolve { Err(Error::source("away")) } else { Ok(()) });
    let failed = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    assert_eq!(fails(&failed).message(), "away");
}

#[test]
fn a_sink_that_gives_up_its_opening_unasked_fails_the_stream() {
    let fixture = Fixture::new(&[5]);
    fixture.stage.hook(|at, _| if at == Step::Open { Err(Error::cancelled("no")) } else { Ok(()) });
    assert!(fails(&start(fixture.job(Trigger::AsSoonAsPossible)).unwrap()).is_cancelled());
}

#[test]
fn a_stream_has_begun_once_its_sinks_are_open_and_its_positions_are_known() {
    let fixture = Fixture::new(&[5]);
    let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    running.begun().unwrap();
    assert_eq!((fixture.stage.count(Step::Open), fixture.stage.count(Step::Resolve)), (1, 1));
    fixture.stage.hook(|at, _| if at == Step::Resolve { Err(Error::source("away")) } else { Ok(()) });
    let failed = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    assert_eq!(failed.begun().unwrap_err().message(), "away");
}

#[test]
fn a_stop_at_once_drops_a_batch_that_no_sink_has_and_finishes_one_that_a_sink_may_have() {
    for (phase, rows) in [(Step::Reduce, 0), (Step::Deliver, 5)] {
        let fixture = Fixture::new(&[5]);
        let gate = hold(&fixture.stage, phase, 0);
        let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
        fixture.stage.wait_for(phase, 0);
        running.stop(Stop::Now);
        assert!(matches!(running.wait(Some(Duration::ZERO)), Ok(Waited::TimedOut)));
        gate.open();
        ends(&running);
        assert_eq!(fixture.stage.offsets().len(), rows, "{phase:?}");
        assert_eq!(fixture.source.told().is_some(), rows > 0, "{phase:?}");
    }
}

#[test]
fn a_delivery_that_a_stop_at_once_ends_is_no_failure_and_its_batch_is_neither_committed_nor_told() {
    let fixture = Fixture::new(&[5]);
    fixture.stage.until_cancelled(Step::Deliver);
    let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    fixture.stage.wait_for(Step::Deliver, 0);
    running.stop(Stop::Now);
    ends(&running);
    assert_eq!((fixture.stage.offsets().len(), fixture.stage.completed()), (0, 0));
    assert!(fixture.source.told().is_none() && running.error().is_none());
    let events = fixture.stage.events();
    let told = events.iter().any(|event| matches!(event, Event::Warning(error) if error.is_cancelled()));
    assert!(told, "{events:?}");
    assert_eq!(fixture.stage.count(Step::Close), 1);
}

#[test]
fn a_graceful_stop_cancels_no_delivery_and_a_stop_at_once_after_it_does() {
    let fixture = Fixture::new(&[5]);
    fixture.stage.until_cancelled(Step::Deliver);
    let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    fixture.stage.wait_for(Step::Deliver, 0);
    running.stop(Stop::Graceful);
    assert!(matches!(running.wait(Some(Duration::from_millis(1))), Ok(Waited::TimedOut)));
    running.stop(Stop::Now);
    ends(&running);
}

#[test]
fn a_sink_that_gives_up_unasked_fails_the_stream() {
    let fixture = Fixture::new(&[5]);
    fixture.stage.hook(|at, _| if at == Step::Deliver { Err(Error::cancelled("no")) } else { Ok(()) });
    assert!(fails(&start(fixture.job(Trigger::AsSoonAsPossible)).unwrap()).is_cancelled());
}

#[test]
fn a_sink_that_was_not_given_the_batch_before_a_stop_at_once_is_not_given_it_after() {
    let fixture = Fixture::new(&[5]);
    let gate = hold(&fixture.stage, Step::Deliver, 0);
    let mut job = fixture.job(Trigger::AsSoonAsPossible);
    job.sinks.push(JobSink { sink: Box::new(fixture.sink(true)), schema: schema() });
    let running = start(job).unwrap();
    fixture.stage.wait_for(Step::Deliver, 0);
    running.stop(Stop::Now);
    fixture.stage.wait_until("cancel", Stage::cancelled);
    gate.open();
    ends(&running);
    assert_eq!((fixture.stage.count(Step::Deliver), fixture.stage.count(Step::Close)), (1, 2));
    assert!(fixture.source.told().is_none());
}

#[test]
fn a_stop_at_once_cancels_what_the_sources_are_being_told() {
    let fixture = Fixture::new(&[5]);
    fixture.stage.until_cancelled(Step::Acknowledge);
    let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    fixture.stage.wait_until("the telling", |stage| stage.count(Step::Acknowledge) > 0);
    running.stop(Stop::Now);
    ends(&running);
    assert_eq!(fixture.stage.count(Step::Acknowledge), 1, "it is not tried again");
}

#[test]
fn the_rows_of_a_batch_that_is_given_up_are_let_go_at_once_and_those_of_one_delivered_with_it() {
    let fixture = Fixture::new(&[100]);
    let gate = hold(&fixture.stage, Step::Deliver, 1);
    let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    fixture.stage.wait_for(Step::Freed, 0);
    fixture.stage.wait_for(Step::Deliver, 1);
    fixture.stage.wait_for(Step::Reduce, 2);
    running.stop(Stop::Now);
    fixture.stage.wait_for(Step::Freed, 2);
    assert!(!fixture.stage.has_begun(Step::Freed, 1), "its delivery still needs them");
    gate.open();
    ends(&running);
    fixture.stage.wait_for(Step::Freed, 1);
}

#[test]
fn a_failure_in_each_phase_stops_the_stream_and_keeps_what_was_before_it() {
    for phase in PHASES {
        let fixture = Fixture::new(&[100]);
        fixture.stage.hook(move |at, batch| match (at == phase, batch) {
            (true, Some(BatchId(2))) => Err(Error::user("boom")),
            _ => Ok(()),
        });
        let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
        let error = fails(&running);
        assert_eq!((error.kind(), error.message()), (ErrorKind::User, "boom".to_owned()));
        assert!(error.places().contains(&"batch 2".to_owned()), "{error}");
        assert_eq!(fixture.stage.offsets(), (0..20).collect::<Vec<i64>>(), "{phase:?}");
        assert_eq!(fixture.source.told().unwrap()[0].1, Offset(20), "{phase:?}");
        assert_eq!(fixture.stage.count(Step::Close), 1);
        assert_eq!(
            fixture.stage.events().iter().filter(|event| matches!(event, Event::Failed(_))).count(),
            1
        );
        assert!(running.error().is_some() && !running.is_running());
        assert_eq!(fails(&running).message(), "boom", "it may be asked again");
    }
}

#[test]
fn a_failure_before_the_first_batch_is_the_streams_error() {
    for (step, place) in
        [(Step::Open, "sink kept"), (Step::Resolve, "source fake"), (Step::Heads, "source fake")]
    {
        let fixture = Fixture::new(&[5]);
        fixture
            .stage
            .hook(move |at, _| if at == step { Err(Error::config("no such topic")) } else { Ok(()) });
        let error = fails(&start(fixture.job(Trigger::AsSoonAsPossible)).unwrap());
        assert_eq!(error.to_string(), format!("no such topic ({place})"));
        // Where the source refuses first, the sink is not asked any more.
        let opened = if step == Step::Open { 0 } else { fixture.stage.count(Step::Open) };
        assert_eq!(fixture.stage.count(Step::Close), opened, "only what was opened");
    }
}

#[test]
fn a_panic_in_each_step_is_an_error_and_never_a_hang() {
    for step in
        [Step::Open, Step::Resolve, Step::Heads, Step::Map, Step::Reduce, Step::Deliver, Step::Acknowledge]
    {
        let fixture = Fixture::new(&[5]);
        fixture.stage.hook(move |at, _| if at == step { panic!("a defect in {at:?}") } else { Ok(()) });
        let error = fails(&start(fixture.job(Trigger::AsSoonAsPossible)).unwrap());
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::Internal, format!("a panic: a defect in {step:?}"))
        );
    }
}

#[test]
fn a_failing_close_is_reported_unless_something_failed_before() {
    let fixture = Fixture::new(&[5]);
    fixture.stage.hook(|at, _| if at == Step::Close { Err(Error::sink("cannot flush")) } else { Ok(()) });
    assert_eq!(
        fails(&start(fixture.job(Trigger::AvailableNow)).unwrap()).to_string(),
        "cannot flush (sink kept)"
    );
    let fixture = Fixture::new(&[5]);
    fixture.stage.hook(|at, _| match at {
        Step::Close => Err(Error::sink("cannot flush")),
        Step::Reduce => Err(Error::user("first")),
        _ => Ok(()),
    });
    assert_eq!(fails(&start(fixture.job(Trigger::AvailableNow)).unwrap()).message(), "first");
}

#[test]
fn a_refused_acknowledge_is_one_warning_and_is_tried_once_more_at_the_end() {
    let fixture = Fixture::new(&[35]);
    fixture
        .stage
        .hook(|at, _| if at == Step::Acknowledge { Err(Error::source("live members")) } else { Ok(()) });
    let running = start(fixture.job(Trigger::AvailableNow)).unwrap();
    ends(&running);
    let warnings = fixture.stage.events().iter().filter(|event| matches!(event, Event::Warning(_))).count();
    assert_eq!((warnings, fixture.stage.offsets().len()), (1, 35));
    assert!(fixture.stage.count(Step::Acknowledge) >= 2);
}

#[test]
fn a_stop_from_within_a_delivery_takes_effect_after_the_batch_and_waiting_there_is_an_error() {
    let fixture = Fixture::new(&[5]);
    let handle: Arc<Mutex<Option<Arc<Running>>>> = Arc::default();
    let (inside, told) = (Arc::clone(&handle), Arc::new(Mutex::new(None)));
    let tell = Arc::clone(&told);
    let ready = Arc::new(Gate::default());
    let started = Arc::clone(&ready);
    fixture.stage.hook(move |at, _| {
        if at == Step::Deliver {
            started.pass();
            let running = inside.lock().unwrap().clone().unwrap();
            running.stop(Stop::Graceful);
            *tell.lock().unwrap() = Some(running.wait(None));
        }
        Ok(())
    });
    let running = Arc::new(start(fixture.job(Trigger::AsSoonAsPossible)).unwrap());
    *handle.lock().unwrap() = Some(Arc::clone(&running));
    ready.open();
    ends(&running);
    handle.lock().unwrap().take();
    assert_eq!(fixture.stage.offsets(), [0, 1, 2, 3, 4]);
    let waited = told.lock().unwrap().take().unwrap();
    assert!(waited.expect_err("waiting for oneself").is_config());
}

#[test]
fn the_last_handle_may_be_dropped_by_a_delivery() {
    let fixture = Fixture::new(&[5]);
    let handle: Arc<Mutex<Option<Running>>> = Arc::default();
    let inside = Arc::clone(&handle);
    let ready = Arc::new(Gate::default());
    let started = Arc::clone(&ready);
    fixture.stage.hook(move |at, _| {
        if at == Step::Deliver {
            started.pass();
            drop(inside.lock().unwrap().take());
        }
        Ok(())
    });
    *handle.lock().unwrap() = Some(start(fixture.job(Trigger::AsSoonAsPossible)).unwrap());
    ready.open();
    fixture
        .stage
        .wait_until("the end", |stage| stage.events().iter().any(|event| matches!(event, Event::Stopped)));
    assert_eq!(fixture.stage.offsets().len(), 5);
}

#[test]
fn a_slow_listener_holds_neither_a_batch_nor_the_end() {
    let fixture = Fixture::new(&[100]);
    let gate = Arc::new(Gate::default());
    let mut job = fixture.job(Trigger::AvailableNow);
    let held = Arc::clone(&gate);
    job.listeners.push(Box::new(move |_| held.pass()));
    job.listeners.push(Box::new(|_| panic!("a listener's own defect")));
    let running = start(job).unwrap();
    fixture.stage.wait_until("all batches", |stage| stage.offsets().len() == 100);
    ends(&running);
    gate.open();
}

#[test]
fn the_same_source_may_be_started_again_and_reads_the_same() {
    let fixture = Fixture::new(&[12]);
    for round in 1..=3 {
        ends(&start(fixture.job(Trigger::AvailableNow)).unwrap());
        assert_eq!(fixture.stage.offsets().len(), 12 * round);
    }
    fixture.source.push(1);
}

#[test]
fn two_streams_in_one_process_do_not_disturb_each_other() {
    let (one, other) = (Fixture::new(&[40]), Fixture::new(&[40]));
    let gate = hold(&one.stage, Step::Map, 0);
    let held = start(one.job(Trigger::AvailableNow)).unwrap();
    ends(&start(other.job(Trigger::AvailableNow)).unwrap());
    assert!(held.is_running() && one.stage.offsets().is_empty());
    gate.open();
    ends(&held);
    assert_eq!(one.stage.offsets(), other.stage.offsets());
}

#[test]
fn dropping_the_handle_gives_back_threads_engine_source_and_sinks() {
    let fixture = Fixture::new(&[50]);
    let mut job = fixture.job(Trigger::AsSoonAsPossible);
    let engine = Arc::new(FakeEngine(Arc::clone(&fixture.stage)));
    job.engine = Arc::clone(&engine) as _;
    let running = start(job).unwrap();
    fixture.stage.wait_for(Step::Deliver, 0);
    drop(running);
    assert_eq!(Arc::strong_count(&engine), 1);
    assert_eq!(Arc::strong_count(&fixture.source), 1);
    assert_eq!(fixture.stage.count(Step::Close), 1);
}

#[test]
fn a_sink_that_wants_empty_batches_gets_one_a_tick_and_others_get_none() {
    let fixture = Fixture::new(&[0]);
    let mut job = fixture.job(interval(100));
    let quiet = Arc::new(Stage::default());
    job.sinks.push(JobSink {
        sink: Box::new(super::fakes::FakeSink { stage: Arc::clone(&quiet), wants_empty: false }),
        schema: schema(),
    });
    job.sinks[0].sink = Box::new(fixture.sink(true));
    let running = start(job).unwrap();
    for batch in 0..3 {
        fixture.clock.advance(Duration::from_millis(100));
        fixture.stage.wait_until("an empty batch", |stage| stage.completed() > batch);
    }
    running.stop(Stop::Graceful);
    ends(&running);
    assert_eq!((fixture.stage.count(Step::Deliver), quiet.count(Step::Deliver)), (3, 0));
}

#[test]
fn progress_tells_what_the_batch_did() {
    let fixture = Fixture::new(&[25]);
    let mut job = fixture.job(interval(100));
    job.sources[0].watermark = Some(Duration::from_secs(3));
    let running = start(job).unwrap();
    assert!(running.progress().is_none());
    fixture.clock.advance(Duration::from_millis(100));
    fixture.stage.wait_until("a batch", |stage| stage.completed() == 1);
    let progress = running.progress().unwrap();
    assert_eq!((progress.batch, progress.counts.records, progress.counts.output_rows), (BatchId(0), 10, 10));
    assert_eq!(progress.lag, [(TopicPartition::new("t", 0), 15)]);
    assert_eq!(progress.watermark.map(|watermark| watermark.0), Some(7_000_000));
    assert_eq!(progress.watermark_holder, Some(TopicPartition::new("t", 0)));
    assert_eq!((progress.state_entries, progress.state_bytes), (3, 24));
    assert!(
        (progress.input_rate - 100.0).abs() < 1e-9,
        "10 records in 100 ms, found {}",
        progress.input_rate
    );
    assert_eq!(progress.totals, Totals { batches: 1, counts: progress.counts });
    fixture.clock.advance(Duration::from_millis(100));
    fixture.stage.wait_until("another batch", |stage| stage.completed() == 2);
    let totals = running.progress().unwrap().totals;
    assert_eq!((totals.batches, totals.counts.records, totals.counts.output_rows), (2, 20, 20));
}

#[test]
fn a_job_without_sources_is_refused_before_anything_starts() {
    let fixture = Fixture::new(&[]);
    let mut job = fixture.job(Trigger::AvailableNow);
    job.sources.clear();
    assert!(start(job).err().is_some_and(|error| error.is_config()));
    assert_eq!(fixture.stage.count(Step::Open), 0);
}

#[test]
fn a_partition_that_appears_is_read_from_its_beginning() {
    let fixture = Fixture::new(&[2]);
    let running = start(fixture.job(Trigger::AsSoonAsPossible)).unwrap();
    fixture.stage.wait_until("the first", |stage| stage.completed() == 1);
    fixture.source.add_partition(3);
    fixture.stage.wait_until("the new ones", |stage| stage.offsets().len() == 5);
    drop(running);
    assert_eq!(fixture.stage.offsets(), [0, 1, 0, 1, 2]);
}
