//! What every sink must do, as checks that any implementation can be put through.
//!
//! It deliberately knows no sink: a [`Fixture`] makes sinks that write to one place, and says what has arrived there.
//! Rows carry their number in the column `row`, so that order, loss and repetition can be seen, and a text that follows
//! from it, so that rows which were mixed up can.

pub mod transactional;

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Delivery, Sink};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::time::{BatchId, BatchTime};

/// A place that sinks under test write to.
pub trait Fixture {
    /// A sink that writes to the place; not yet opened.
    fn sink(&mut self) -> Box<dyn Sink>;

    /// All rows that have arrived at the place so far, in order of arrival.
    fn arrived(&mut self) -> Vec<Row>;

    /// A schema that the sink must refuse; none where it takes every one.
    fn refused(&self) -> Option<SchemaRef>;

    /// Makes deliveries fail from now on (`Broken::Yes`) or succeed again. Says whether this can be done at all.
    fn set_broken(&mut self, broken: Broken) -> Breakable;
}

/// Whether deliveries to the place fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// They fail.
    Yes,
    /// They succeed.
    No,
}

/// Whether a place can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakable {
    /// It can.
    Yes,
    /// Nothing that a test can do makes it fail.
    No,
}

/// A row of the suite, as it has arrived: its number and its text, which may be null.
pub type Row = (i64, Option<String>);

/// The columns of the suite's rows: `row` int64 and `text` string.
pub fn schema() -> SchemaRef {
    let fields = vec![Field::new("row", DataType::Int64, false), Field::new("text", DataType::Utf8, true)];
    Arc::new(Schema::new(fields))
}

/// Batch `batch` with the rows numbered `rows`, in chunks of at most 1,000.
pub fn delivery(batch: u64, rows: Range<i64>) -> Delivery {
    let numbers: Vec<i64> = rows.collect();
    let from = Offset(numbers.first().copied().unwrap_or(0));
    let until = Offset(numbers.last().map_or(from.0, |last| last + 1));
    Delivery {
        batch: BatchId(batch),
        time: BatchTime(1_700_000_000_000 + i64::try_from(batch).unwrap_or(0) * 1_000),
        watermark: None,
        ranges: Arc::from([OffsetRange::new(TopicPartition::new("contract", 0), from, until)]),
        schema: schema(),
        rows: numbers.chunks(1_000).filter_map(chunk).collect(),
        cancel: Cancel::default(),
    }
}

fn chunk(numbers: &[i64]) -> Option<RecordBatch> {
    let text: StringArray = numbers.iter().map(|row| text_of(*row)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(numbers.to_vec())), Arc::new(text)];
    RecordBatch::try_new(schema(), columns).ok()
}

fn text_of(row: i64) -> Option<String> {
    (row % 3 != 0).then(|| format!("row {row}"))
}

fn rows(numbers: Range<i64>) -> impl Iterator<Item = Row> {
    numbers.map(|row| (row, text_of(row)))
}

/// Runs every check.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn check(fixture: &mut dyn Fixture) {
    has_one_name(fixture);
    refuses_a_schema_before_any_delivery(fixture);
    tells_the_truth_when_its_opening_is_cancelled(fixture);
    delivers_whole_batches_in_order(fixture);
    takes_rows_that_are_parts_of_others(fixture);
    keeps_what_it_said_was_safe_when_nobody_closes_it(fixture);
    works_on_whatever_thread_it_is(fixture);
    takes_a_batch_again(fixture);
    honours_its_word_on_empty_batches(fixture);
    says_so_when_a_delivery_fails(fixture);
    says_so_when_the_place_is_broken_from_the_start(fixture);
    tells_the_truth_when_it_is_cancelled(fixture);
    closes_at_any_time(fixture);
}

/// A sink has a name before it is opened, and keeps it.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn has_one_name(fixture: &mut dyn Fixture) {
    let mut sink = fixture.sink();
    let name = sink.name().to_owned();
    assert!(!name.is_empty(), "a sink without a name: errors could not say whose they are");
    must(sink.open(&schema(), &Cancel::default()), "open");
    assert_eq!(sink.name(), name, "the name after open");
    must(sink.close(), "close");
    assert_eq!(sink.name(), name, "the name after close");
}

/// A schema that the sink cannot take is refused by `open`, as a configuration error, with nothing written.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn refuses_a_schema_before_any_delivery(fixture: &mut dyn Fixture) {
    let Some(refused) = fixture.refused() else { return };
    let before = fixture.arrived();
    let mut sink = fixture.sink();
    let error = sink.open(&refused, &Cancel::default()).err();
    assert!(error.as_ref().is_some_and(crate::error::Error::is_config), "open took {refused:?}: {error:?}");
    must(sink.close(), "close after a refused open");
    assert_eq!(fixture.arrived(), before, "a refused open wrote rows");
}

/// An opening that is asked to give up succeeds all the same, or says that it was given up and fails in no other way; it
/// can be closed after that, and the next sink opens.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn tells_the_truth_when_its_opening_is_cancelled(fixture: &mut dyn Fixture) {
    let before = fixture.arrived();
    let (mut sink, cancel) = (fixture.sink(), Cancel::default());
    cancel.cancel();
    if let Err(error) = sink.open(&schema(), &cancel) {
        assert!(error.is_cancelled(), "an opening that was cancelled failed: {error}");
    }
    must(sink.close(), "close after an opening that was cancelled");
    must(opened(fixture).close(), "close of the sink after it");
    same(&fixture.arrived(), &before, "after an opening that was cancelled");
}

/// When `deliver` returns, the rows of that batch are there, after those of the batches before: all of them, in order.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn delivers_whole_batches_in_order(fixture: &mut dyn Fixture) {
    let mut expected = fixture.arrived();
    let mut sink = opened(fixture);
    for (batch, numbers) in [(1, 0..1), (2, 1..50), (3, 50..5_050), (4, 5_050..5_051)] {
        must(sink.deliver(&delivery(batch, numbers.clone())), "deliver");
        expected.extend(rows(numbers));
        same(&fixture.arrived(), &expected, "when deliver had returned");
    }
    must(sink.close(), "close");
    same(&fixture.arrived(), &expected, "after close");
}

/// A chunk's columns may be parts of larger ones, and begin in the middle of a byte of those that say which values are
/// null: what stands before and behind them is no row of the batch.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn takes_rows_that_are_parts_of_others(fixture: &mut dyn Fixture) {
    let (mut expected, whole) = (fixture.arrived(), delivery(5, 6_000..7_500));
    let parts = |chunk: &RecordBatch| [chunk.slice(3, 1), chunk.slice(13, 290), chunk.slice(499, 1)];
    let batch = Delivery { rows: whole.rows.iter().flat_map(parts).collect(), ..whole };
    let mut sink = opened(fixture);
    must(sink.deliver(&batch), "deliver parts of chunks");
    must(sink.close(), "close");
    for chunk in [6_000, 7_000] {
        expected.extend(rows(chunk + 3..chunk + 4));
        expected.extend(rows(chunk + 13..chunk + 303));
        expected.extend(rows(chunk + 499..chunk + 500));
    }
    same(&fixture.arrived(), &expected, "after parts of chunks");
}

/// Rows that were said to be safe are there though the sink is never closed, as in a crash, and the next one opens.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn keeps_what_it_said_was_safe_when_nobody_closes_it(fixture: &mut dyn Fixture) {
    let mut expected = fixture.arrived();
    let mut sink = opened(fixture);
    must(sink.deliver(&delivery(6, 8_000..8_100)), "deliver");
    drop(sink);
    expected.extend(rows(8_000..8_100));
    same(&fixture.arrived(), &expected, "when the sink was gone without being closed");
    must(opened(fixture).close(), "close of the sink after it");
}

/// It may be opened on one thread, delivered to on another and closed on a third.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn works_on_whatever_thread_it_is(fixture: &mut dyn Fixture) {
    let mut expected = fixture.arrived();
    let mut sink = opened(fixture);
    thread::scope(|scope| {
        scope.spawn(|| must(sink.deliver(&delivery(7, 8_100..8_200)), "deliver")).join().ok()
    });
    thread::scope(|scope| scope.spawn(|| must(sink.close(), "close")).join().ok());
    expected.extend(rows(8_100..8_200));
    same(&fixture.arrived(), &expected, "when other threads had delivered and closed");
}

/// The same batch may come again, to the same sink or to the next one: at least once. Each of its rows is there then, and
/// no more often than it came.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn takes_a_batch_again(fixture: &mut dyn Fixture) {
    let (batch, before) = (delivery(9, 9_000..9_010), fixture.arrived().len());
    for _ in 0..2 {
        let mut sink = opened(fixture);
        must(sink.deliver(&batch), "deliver");
        must(sink.deliver(&batch), "deliver again");
        must(sink.close(), "close");
    }
    let arrived = fixture.arrived();
    has_all(&arrived, 9_000..9_010);
    let more = arrived.len() - before;
    assert!(more <= 40, "ten rows came four times, and {more} have arrived");
}

/// Batches without rows are offered only to a sink that wants them, and bring no row.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn honours_its_word_on_empty_batches(fixture: &mut dyn Fixture) {
    let before = fixture.arrived();
    let mut sink = opened(fixture);
    assert_eq!(sink.wants_empty(), sink.wants_empty(), "wants_empty must not change");
    if sink.wants_empty() {
        must(sink.deliver(&delivery(20, 0..0)), "deliver an empty batch");
    }
    must(sink.close(), "close");
    same(&fixture.arrived(), &before, "after an empty batch");
}

/// A delivery that fails is an error, never a silent loss; once the place is back, the batch can be delivered.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn says_so_when_a_delivery_fails(fixture: &mut dyn Fixture) {
    let mut sink = opened(fixture);
    if fixture.set_broken(Broken::Yes) == Breakable::No {
        return must(sink.close(), "close");
    }
    let batch = delivery(30, 30_000..30_100);
    let error = sink.deliver(&batch).err();
    assert!(error.is_some(), "deliver said that the rows were safe while the place refused them");
    must(sink.close(), "close after a failed delivery");
    fixture.set_broken(Broken::No);
    let mut again = opened(fixture);
    must(again.deliver(&batch), "deliver after the place is back");
    has_all(&fixture.arrived(), 30_000..30_100);
    must(again.close(), "close");
}

/// Where nothing can be written from the start, either the opening says so or the first delivery does; the sink can be
/// closed after that, and once the place is back, the next one delivers.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn says_so_when_the_place_is_broken_from_the_start(fixture: &mut dyn Fixture) {
    must(opened(fixture).close(), "close"); // the place is there
    if fixture.set_broken(Broken::Yes) == Breakable::No {
        return;
    }
    let (mut sink, batch) = (fixture.sink(), delivery(35, 35_000..35_100));
    let outcome = sink.open(&schema(), &Cancel::default()).and_then(|()| sink.deliver(&batch));
    assert!(outcome.is_err(), "open and deliver said that the rows were safe while the place refused them");
    must(sink.close(), "close after the place was found broken");
    fixture.set_broken(Broken::No);
    let mut again = opened(fixture);
    must(again.deliver(&batch), "deliver after the place is back");
    must(again.close(), "close");
    has_all(&fixture.arrived(), 35_000..35_100);
}

/// A delivery that is asked to give up says that the rows are safe only where they are, and fails in no other way; it
/// can be closed after that, and the next sink takes the batch.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn tells_the_truth_when_it_is_cancelled(fixture: &mut dyn Fixture) {
    let mut sink = opened(fixture);
    let batch = delivery(40, 40_000..45_000);
    batch.cancel.cancel();
    match sink.deliver(&batch) {
        Ok(()) => has_all(&fixture.arrived(), 40_000..45_000),
        Err(error) => assert!(error.is_cancelled(), "a delivery that was cancelled failed: {error}"),
    }
    must(sink.close(), "close after a delivery that was cancelled");
    let mut again = opened(fixture);
    must(again.deliver(&delivery(40, 40_000..45_000)), "deliver after a delivery that was cancelled");
    has_all(&fixture.arrived(), 40_000..45_000);
    must(again.close(), "close");
}

/// `close` succeeds before `open`, after it, and a second time, and writes nothing.
///
/// # Panics
/// Where the sink breaks the contract.
pub fn closes_at_any_time(fixture: &mut dyn Fixture) {
    let before = fixture.arrived();
    must(fixture.sink().close(), "close before open");
    let mut sink = opened(fixture);
    must(sink.close(), "close");
    must(sink.close(), "close a second time");
    same(&fixture.arrived(), &before, "after close");
}

fn opened(fixture: &mut dyn Fixture) -> Box<dyn Sink> {
    let mut sink = fixture.sink();
    must(sink.open(&schema(), &Cancel::default()), "open");
    sink
}

fn must(result: Result<()>, what: &str) {
    let error = result.err();
    assert!(error.is_none(), "{what} failed: {error:?}");
}

fn same(found: &[Row], expected: &[Row], when: &str) {
    let differs = found.iter().zip(expected).find(|(found, expected)| found != expected);
    let (rows, wanted) = (found.len(), expected.len());
    assert!(
        found == expected,
        "{when}: {rows} rows, expected {wanted}; the first that differs, and what was expected there: {differs:?}"
    );
}

fn has_all(found: &[Row], numbers: Range<i64>) {
    let missing = rows(numbers).find(|row| !found.contains(row));
    assert!(missing.is_none(), "row {missing:?} has not arrived");
}
