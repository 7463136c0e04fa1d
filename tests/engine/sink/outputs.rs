//! How several sinks publish together, on a place in memory that goes wrong as a test scripts it.

use std::ops::Range;

use arrow::datatypes::SchemaRef;
use tidemill::cancel::Cancel;
use tidemill::error::{ErrorKind, Result};
use tidemill::kafka::Cluster;
use tidemill::sink::Sink;
use tidemill::sink::callback::{CallbackSink, EmptyBatches};
use tidemill::sink::contract::{self, Breakable, Broken, Fixture, Row, delivery, schema};
use tidemill::sink::files::{FileFormat, FileSink, FileSinkSettings};
use tidemill::sink::kafka::{KafkaSink, KafkaSinkSettings};
use tidemill::sink::marker::{Epoch, Marker, Owner};
use tidemill::sink::outputs::{Outputs, PreparedBatch, Role};
use tidemill::sink::pprint::PrintSink;
use tidemill::sink::scripted::{Fault, ScriptedPlace, ScriptedSink, Step};

struct Memory(ScriptedPlace);

impl Fixture for Memory {
    fn sink(&mut self) -> Box<dyn Sink> {
        Box::new(ScriptedSink::new(&self.0))
    }

    fn arrived(&mut self) -> Vec<Row> {
        self.0.committed().iter().flat_map(|one| &one.rows).flat_map(super::rows_of).collect()
    }

    fn refused(&self) -> Option<SchemaRef> {
        None
    }

    fn set_broken(&mut self, broken: Broken) -> Breakable {
        if broken == Broken::Yes {
            self.0.fail_next(Step::Send, Fault::Lost);
        }
        Breakable::Yes
    }
}

#[test]
fn the_scripted_sink_keeps_both_contracts() {
    contract::transactional::check(&mut Memory(ScriptedPlace::default()));
    contract::check(&mut Memory(ScriptedPlace::default()));
}

/// One driver with one scripted sink.
struct Driver {
    sink: ScriptedSink,
    outputs: Outputs,
    epoch: u64,
}

impl Driver {
    fn new(mut sink: ScriptedSink, epoch: u64) -> Self {
        let outputs = Outputs::of(&mut [&mut sink]).unwrap();
        Self { sink, outputs, epoch }
    }

    /// One that has taken the place over, and the marker that it has found there.
    fn on(place: &ScriptedPlace, epoch: u64) -> (Self, Option<Marker>) {
        let mut driver = Self::new(ScriptedSink::new(place), epoch);
        let marker = driver.take_over().unwrap();
        (driver, marker)
    }

    fn take_over(&mut self) -> Result<Option<Marker>> {
        let owner = Owner { job: "job".to_owned(), epoch: Epoch(self.epoch) };
        self.outputs.init(&mut [&mut self.sink], &owner, &Cancel::default())
    }

    fn prepare(&mut self, batch: u64, rows: Range<i64>) -> PreparedBatch {
        self.outputs.prepare(&mut [&mut self.sink], &[delivery(batch, rows)], Epoch(self.epoch)).unwrap()
    }

    fn publish(&mut self, batch: &PreparedBatch) -> Result<()> {
        self.outputs.publish(&mut [&mut self.sink], batch, &[], &Cancel::default()).map(drop)
    }
}

#[test]
fn whatever_happens_to_a_commit_the_next_marker_tells_whether_it_was() {
    for (step, fault, is_there) in [
        (Step::Send, Fault::Lost, false),
        (Step::Send, Fault::AnswerLost, false),
        (Step::Send, Fault::Late, false),
        (Step::Commit, Fault::Lost, false),
        (Step::Commit, Fault::AnswerLost, true),
        (Step::Commit, Fault::Late, false),
    ] {
        let place = ScriptedPlace::default();
        let (mut driver, _) = Driver::on(&place, 1);
        let batch = driver.prepare(0, 0..3);
        place.fail_next(step, fault);
        let error = driver.publish(&batch).unwrap_err();
        assert!(error.needs_take_over(), "{step:?} {fault:?}: {error}");
        assert!(driver.publish(&batch).is_err(), "{step:?} {fault:?}: a producer was kept");
        driver.epoch = 2;
        let marker = driver.take_over().unwrap();
        assert_eq!(marker, is_there.then_some(*batch.marker()), "{step:?} {fault:?}");
        place.deliver_late();
        assert_eq!(place.rows().len(), if is_there { 3 } else { 0 }, "{step:?} {fault:?}");
        let batch = driver.prepare(1, 3..5);
        driver.publish(&batch).unwrap();
        assert_eq!(place.marker(), Some(*batch.marker()));
    }
}

/// What the careless sink is for: a driver that goes on with it shows batch 1 with rows of batch 0, or half of it.
#[test]
fn a_producer_that_is_kept_lets_a_late_commit_end_the_next_transaction() {
    let place = ScriptedPlace::default();
    let mut driver = Driver::new(ScriptedSink::new(&place).careless(), 1);
    driver.take_over().unwrap();
    place.fail_next(Step::Commit, Fault::Late);
    let first = driver.prepare(0, 0..3);
    driver.publish(&first).unwrap_err();
    let second = driver.prepare(1, 3..5);
    driver.publish(&second).unwrap();
    assert_eq!(place.rows(), [0, 1, 2, 3, 4], "the first batch is there, and its marker never was");
    assert_eq!(place.committed().len(), 1);
}

#[test]
fn a_late_init_fences_whoever_is_there_when_it_arrives() {
    let place = ScriptedPlace::default();
    let mut older = Driver::new(ScriptedSink::new(&place), 1);
    place.fail_next(Step::Init, Fault::Late);
    assert!(older.take_over().unwrap_err().needs_take_over());
    let (mut newer, marker) = Driver::on(&place, 2);
    assert_eq!(marker, None);
    place.deliver_late();
    let batch = newer.prepare(0, 0..3);
    let error = newer.publish(&batch).unwrap_err();
    assert!(error.is_fenced() && error.needs_take_over(), "{error}");
}

#[test]
fn a_stranger_that_takes_the_place_over_aborts_what_is_open() {
    let place = ScriptedPlace::default();
    let (mut driver, _) = Driver::on(&place, 1);
    place.fail_next(Step::Commit, Fault::Lost);
    let batch = driver.prepare(0, 0..3);
    driver.publish(&batch).unwrap_err();
    assert!(place.has_open());
    place.fence();
    assert!(!place.has_open() && place.rows().is_empty());
    place.fail_next(Step::Marker, Fault::Lost);
    assert!(driver.take_over().is_err());
}

fn kafka(topic: &str, servers: &str, linger: Option<&str>) -> KafkaSink {
    let mut cluster = Cluster::at(servers);
    cluster.config.extend(linger.map(|linger| ("linger.ms".to_owned(), linger.to_owned())));
    KafkaSink::new(KafkaSinkSettings::new(cluster, topic))
}

fn roles(sinks: &mut [&mut dyn Sink]) -> Result<Vec<Role>> {
    let outputs = Outputs::of(sinks)?;
    Ok((0..sinks.len()).map(|index| outputs.role(index)).collect())
}

#[test]
fn topics_of_one_cluster_are_published_as_one_and_files_follow() {
    let mut files = FileSink::new(FileSinkSettings::new("out"));
    let (mut alerts, mut late) = (kafka("alerts", "a:9092", None), kafka("late", "a:9092", None));
    let mut shown = PrintSink::new(Box::new(std::io::sink()), 10);
    let mut called = CallbackSink::from_fn("called", EmptyBatches::Skip, |_| Ok(()));
    let mut sinks: [&mut dyn Sink; 5] = [&mut files, &mut alerts, &mut shown, &mut late, &mut called];
    let found = roles(&mut sinks).unwrap();
    assert_eq!(found, [Role::Follows, Role::Leads, Role::Shows, Role::Joins, Role::AtLeastOnce]);
    let outputs = Outputs::of(&mut sinks).unwrap();
    assert!(outputs.take_offsets_of(&mut sinks, &Cluster::at("b:9092,a:9092")));
    assert!(!outputs.take_offsets_of(&mut sinks, &Cluster::at("b:9092")));
    assert_eq!(roles(&mut [&mut files, &mut shown]).unwrap(), [Role::Leads, Role::Shows]);
    assert!(!Outputs::of(&mut [&mut shown]).unwrap().have_leader());
}

#[test]
fn two_transactions_a_batch_are_refused_with_what_to_do() {
    for (servers, linger) in [("b:9092", None), ("a:9092", Some("7"))] {
        let (mut alerts, mut late) = (kafka("alerts", "a:9092", None), kafka("late", servers, linger));
        let error = roles(&mut [&mut alerts, &mut late]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        for part in ["topic alerts at a:9092", &format!("topic late at {servers}"), "at_least_once"] {
            assert!(error.to_string().contains(part), "{part} is not in {error}");
        }
    }
}

#[test]
fn one_directory_for_two_outputs_is_refused() {
    let [mut one, mut two] = ["out", "./out"].map(|path| FileSink::new(FileSinkSettings::new(path)));
    let error = roles(&mut [&mut one, &mut two]).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("a directory of its own"), "{error}");
}

/// Two sinks of one place, and one that follows them, all on one driver.
#[test]
fn a_batch_of_several_sinks_appears_as_one_and_what_follows_is_put_again_by_who_takes_over() {
    let (place, folder) = (ScriptedPlace::default(), super::files::Place::new(FileFormat::default()));
    let (mut one, mut two) = (ScriptedSink::new(&place), ScriptedSink::new(&place));
    let mut files = FileSink::new(folder.settings.clone());
    let mut sinks: [&mut dyn Sink; 3] = [&mut one, &mut two, &mut files];
    let (outputs, cancel) = (Outputs::of(&mut sinks).unwrap(), Cancel::default());
    let owner = |epoch| Owner { job: "job".to_owned(), epoch: Epoch(epoch) };
    outputs.open(&mut sinks, &[schema(), schema(), schema()], &cancel).unwrap();
    outputs.init(&mut sinks, &owner(1), &cancel).unwrap();
    let deliveries = [delivery(0, 0..3), delivery(0, 3..5), delivery(0, 0..10)];
    let batch = outputs.prepare(&mut sinks, &deliveries, Epoch(1)).unwrap();
    place.fail_next(Step::Commit, Fault::AnswerLost);
    outputs.publish(&mut sinks, &batch, &[], &cancel).unwrap_err();
    assert_eq!((place.rows(), folder.published()), (vec![0, 1, 2, 3, 4], vec![]));

    let marker = outputs.init(&mut sinks, &owner(2), &cancel).unwrap();
    assert_eq!(marker, Some(*batch.marker()));
    let restored = outputs.restore(&mut sinks, marker.unwrap(), &batch.records()).unwrap();
    for _ in 0..2 {
        outputs.follow(&mut sinks, &restored, &cancel).unwrap();
        assert_eq!(folder.published(), (0..10).collect::<Vec<_>>());
    }
    let next =
        outputs.prepare(&mut sinks, &[delivery(1, 0..0), delivery(1, 0..0), delivery(1, 10..12)], Epoch(2));
    let next = next.unwrap();
    assert!(next.publishes());
    outputs.publish(&mut sinks, &next, &[], &cancel).unwrap();
    assert_eq!(folder.published(), (0..12).collect::<Vec<_>>());
    assert_eq!(place.marker(), Some(*next.marker()), "a batch whose rows all follow has a marker too");
}
