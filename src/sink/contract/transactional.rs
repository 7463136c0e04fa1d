//! What every sink must do that publishes batches with a marker, as checks that any implementation can be put through.
//!
//! The place is the [`Fixture`]'s: [`Fixture::arrived`] must show what is published, and nothing that is merely written.
//! It deliberately asks nothing of a cluster that only a fault would show; those checks belong to each sink's own tests.

use std::ops::Range;

use super::{Fixture, delivery, must, rows, same, schema};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::sink::marker::{Epoch, Marker, Owner};
use crate::sink::outputs::{Outputs, PreparedBatch};
use crate::sink::{Delivery, Sink};

/// Runs every check.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn check(fixture: &mut dyn Fixture) {
    knows_nothing_of_a_blank_place(fixture);
    tells_outputs_apart_and_nothing_else(fixture);
    shows_a_batch_once_it_is_published_and_not_before(fixture);
    remembers_what_was_published_last(fixture);
    publishes_a_marker_alone(fixture);
    takes_nothing_before_it_is_initialised(fixture);
    lets_one_of_two_drivers_publish(fixture, First::Newer);
    lets_one_of_two_drivers_publish(fixture, First::Older);
    tells_the_truth_when_a_publishing_is_given_up(fixture);
    refuses_a_schema_and_closes_at_any_time(fixture);
}

/// One driver, with its sink.
struct Driver {
    sink: Box<dyn Sink>,
    outputs: Outputs,
    epoch: Epoch,
}

impl Driver {
    /// A sink that is opened, and takes the place over if it can.
    fn new(fixture: &mut dyn Fixture, epoch: u64) -> (Self, Option<Marker>) {
        let mut driver = Self::opened(fixture, epoch);
        let marker = driver.init().unwrap_or_else(|error| fail(&format!("init failed: {error}")));
        (driver, marker)
    }

    fn opened(fixture: &mut dyn Fixture, epoch: u64) -> Self {
        let mut sink = fixture.sink();
        let outputs = Outputs::of(&mut [&mut *sink]).ok().filter(Outputs::have_leader);
        let outputs = outputs.unwrap_or_else(|| fail("the sink does not publish"));
        must(outputs.open(&mut [&mut *sink], &[schema()], &Cancel::default()), "open");
        Self { sink, outputs, epoch: Epoch(epoch) }
    }

    fn init(&mut self) -> Result<Option<Marker>> {
        let owner = Owner { job: JOB.to_owned(), epoch: self.epoch };
        self.outputs.init(&mut [&mut *self.sink], &owner, &Cancel::default())
    }

    fn prepare(&mut self, delivery: &Delivery) -> PreparedBatch {
        let deliveries = std::slice::from_ref(delivery);
        let prepared = self.outputs.prepare(&mut [&mut *self.sink], deliveries, self.epoch);
        prepared.unwrap_or_else(|error| fail(&format!("prepare failed: {error}")))
    }

    fn publish(&mut self, batch: &PreparedBatch) -> Result<()> {
        self.publish_until(batch, &Cancel::default())
    }

    fn publish_until(&mut self, batch: &PreparedBatch, cancel: &Cancel) -> Result<()> {
        self.outputs.publish(&mut [&mut *self.sink], batch, &[], cancel).map(drop)
    }

    fn deliver(&mut self, batch: u64, rows: Range<i64>) -> Marker {
        let prepared = self.prepare(&delivery(batch, rows));
        must(self.publish(&prepared), "publish");
        *prepared.marker()
    }

    fn close(mut self) {
        must(self.sink.close(), "close");
    }
}

/// The job that all drivers of the suite are of.
const JOB: &str = "00000000-0000-4000-8000-000000000000";

fn fail(what: &str) -> ! {
    panic!("{what}")
}

/// A place where nothing was published has no marker. Must come first.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn knows_nothing_of_a_blank_place(fixture: &mut dyn Fixture) {
    let (driver, marker) = Driver::new(fixture, 1);
    assert_eq!(marker, None, "a blank place has a marker");
    driver.close();
}

/// The digest of an output is the same for the same rows in the same batch, however they come in chunks, and another for
/// others. Preparing shows nothing.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn tells_outputs_apart_and_nothing_else(fixture: &mut dyn Fixture) {
    let before = fixture.arrived();
    let (mut driver, _) = Driver::new(fixture, 2);
    let batch = delivery(1, 0..3_000);
    let digest = driver.prepare(&batch).marker().digest;
    assert_eq!(driver.prepare(&batch).marker().digest, digest, "the same rows have another digest");
    let slices = batch.rows.iter().flat_map(|rows| {
        let (half, all) = (rows.num_rows() / 3, rows.num_rows());
        [rows.slice(0, half), rows.slice(half, all - half)]
    });
    let cut = Delivery { rows: slices.collect(), ..batch };
    assert_eq!(
        driver.prepare(&cut).marker().digest,
        digest,
        "rows that are cut elsewhere have another digest"
    );
    for other in [delivery(1, 1..3_001), delivery(1, 0..2_999), delivery(1, 0..0), delivery(2, 0..3_000)] {
        let found = driver.prepare(&other).marker().digest;
        assert_ne!(found, digest, "other rows, or another batch, have the same digest");
    }
    driver.close();
    same(&fixture.arrived(), &before, "after batches that were only prepared");
}

/// A batch is there when `publish` returns: all of it, after those before; and nothing of it was there until then.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn shows_a_batch_once_it_is_published_and_not_before(fixture: &mut dyn Fixture) {
    let mut expected = fixture.arrived();
    let (mut driver, _) = Driver::new(fixture, 3);
    for (batch, numbers) in [(1, 0..1), (2, 1..50), (4, 50..5_050), (5, 5_050..5_051)] {
        let prepared = driver.prepare(&delivery(batch, numbers.clone()));
        same(&fixture.arrived(), &expected, "when a batch was prepared");
        must(driver.publish(&prepared), "publish");
        expected.extend(rows(numbers));
        same(&fixture.arrived(), &expected, "when publish had returned");
    }
    driver.close();
    same(&fixture.arrived(), &expected, "after close");
}

/// The next driver finds the marker of the batch that was published last, and goes on after it.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn remembers_what_was_published_last(fixture: &mut dyn Fixture) {
    let (mut driver, _) = Driver::new(fixture, 4);
    driver.deliver(10, 0..10);
    let last = driver.deliver(11, 10..20);
    driver.prepare(&delivery(12, 20..30));
    driver.close();
    let mut expected = fixture.arrived();
    let (mut next, marker) = Driver::new(fixture, 5);
    assert_eq!(marker, Some(last), "the marker is not that of the batch that was published last");
    let last = next.deliver(12, 30..40);
    next.epoch = Epoch(6);
    let marker = next.init().unwrap_or_else(|error| fail(&format!("a second init failed: {error}")));
    assert_eq!(marker, Some(last), "the marker after a second init of the same sink");
    next.close();
    expected.extend(rows(30..40));
    same(&fixture.arrived(), &expected, "after a batch of the next driver");
}

/// A marker that is published alone, or once more, brings no row.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn publishes_a_marker_alone(fixture: &mut dyn Fixture) {
    let before = fixture.arrived();
    let (mut driver, _) = Driver::new(fixture, 7);
    let last = driver.deliver(20, 0..0);
    for _ in 0..2 {
        let renewed = driver.outputs.renew(&mut [&mut *driver.sink], &last, &Cancel::default());
        must(renewed, "renew");
    }
    driver.close();
    let (driver, marker) = Driver::new(fixture, 8);
    assert_eq!(marker, Some(last), "the marker of a batch without rows");
    driver.close();
    same(&fixture.arrived(), &before, "after markers without rows");
}

/// A sink that has not taken the place over publishes nothing.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn takes_nothing_before_it_is_initialised(fixture: &mut dyn Fixture) {
    let before = fixture.arrived();
    let mut driver = Driver::opened(fixture, 9);
    let prepared = driver.prepare(&delivery(30, 0..10));
    assert!(driver.publish(&prepared).is_err(), "a batch was published without init");
    driver.close();
    same(&fixture.arrived(), &before, "after publishing without init");
}

/// Which of two drivers publishes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The one that came later.
    Newer,
    /// The one that was replaced.
    Older,
}

/// Of two drivers that publish the same batch one succeeds, and that batch is there; the other is told, once and for all,
/// to take over, which it can.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn lets_one_of_two_drivers_publish(fixture: &mut dyn Fixture, first: First) {
    let base = if first == First::Newer { 10 } else { 20 };
    let (mut older, _) = Driver::new(fixture, base);
    older.deliver(base, 0..10);
    let (mut newer, _) = Driver::new(fixture, base + 1);
    let mut expected = fixture.arrived();
    let of_older = older.prepare(&delivery(base + 1, 10..20));
    let of_newer = newer.prepare(&delivery(base + 1, 100..110));
    let mut drivers = [(&mut older, &of_older, 10..20), (&mut newer, &of_newer, 100..110)];
    if first == First::Newer {
        drivers.reverse();
    }
    let mut winner = None;
    for (driver, batch, numbers) in drivers {
        match driver.publish(batch) {
            Ok(()) => {
                assert_eq!(winner, None, "both drivers have published batch {}", base + 1);
                winner = Some(*batch.marker());
                expected.extend(rows(numbers));
            }
            Err(error) => is_over(driver, batch, &error),
        }
    }
    assert!(winner.is_some(), "neither driver has published");
    same(&fixture.arrived(), &expected, "after two drivers have published");
    older.epoch = Epoch(base + 2);
    let marker = older.init().unwrap_or_else(|error| fail(&format!("no init after an error: {error}")));
    assert_eq!(marker, winner, "the marker is not that of the driver that succeeded");
    older.close();
    newer.close();
}

fn is_over(driver: &mut Driver, batch: &PreparedBatch, error: &Error) {
    assert!(error.needs_take_over(), "the driver that was too late is not told to take over: {error}");
    assert!(driver.publish(batch).is_err(), "a sink goes on after an error without init");
}

/// A publishing that is asked to give up is there as a whole or not at all, fails in no other way, and the marker tells
/// which.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn tells_the_truth_when_a_publishing_is_given_up(fixture: &mut dyn Fixture) {
    let (mut driver, _) = Driver::new(fixture, 30);
    let last = driver.deliver(40, 0..10);
    let mut expected = fixture.arrived();
    let (batch, cancel) = (driver.prepare(&delivery(41, 10..5_010)), Cancel::default());
    cancel.cancel();
    let published = driver.publish_until(&batch, &cancel);
    if let Err(error) = &published {
        assert!(error.is_cancelled(), "a publishing that was cancelled failed: {error}");
    }
    driver.close();
    let (driver, marker) = Driver::new(fixture, 31);
    let is_there = marker == Some(*batch.marker());
    assert!(is_there || marker == Some(last), "the marker is of another batch: {marker:?}");
    assert!(is_there || published.is_err(), "a batch that publish has told to be there is not");
    if is_there {
        expected.extend(rows(10..5_010));
    }
    driver.close();
    same(&fixture.arrived(), &expected, "after a publishing that was given up");
}

/// A schema that the sink cannot take is refused, and the sink can be closed at any time.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn refuses_a_schema_and_closes_at_any_time(fixture: &mut dyn Fixture) {
    let before = fixture.arrived();
    if let Some(refused) = fixture.refused() {
        let mut sink = fixture.sink();
        let opened = Outputs::of(&mut [&mut *sink])
            .and_then(|outputs| outputs.open(&mut [&mut *sink], &[refused], &Cancel::default()));
        assert!(opened.is_err_and(|error| error.is_config()), "open took a schema that is to be refused");
        must(sink.close(), "close after a refused open");
    }
    Driver::opened(fixture, 50).close();
    let (mut driver, _) = Driver::new(fixture, 51);
    must(driver.sink.close(), "close");
    driver.close();
    same(&fixture.arrived(), &before, "after close");
}
