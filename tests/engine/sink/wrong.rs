//! The contract suite itself: each of its checks finds the sink that breaks what it asks for, and passes one that does not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill::cancel::Cancel;
use tidemill::error::{Error, Result};
use tidemill::sink::contract::{self, Breakable, Broken, Fixture, Row};
use tidemill::sink::{Delivery, Sink};

use super::rows_of;

/// What a sink does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Its name is another once it is open.
    Renamed,
    /// It takes the columns of a chunk from their very beginning, whatever part of them the chunk is.
    WholeColumns,
    /// It drops the texts.
    Texts,
    /// What it has taken is there once it is closed, and not before.
    SafeAtClose,
    /// What it has taken is gone when it is dropped open.
    GoneWithoutClose,
    /// It works on the thread that has opened it alone.
    OneThread,
    /// A batch that comes again is there twice for each time.
    Doubled,
    /// It hides that the place is broken when it is opened, and takes what comes.
    Silent,
    /// An empty batch is a row.
    RowOfNothing,
    /// It fails when it is closed a second time.
    ClosesOnce,
    /// It says that rows are safe though it was asked to give up and has not taken them.
    Liar,
}

#[derive(Clone, Default)]
struct Place {
    rows: Arc<Mutex<Vec<Row>>>,
    broken: Arc<Mutex<bool>>,
}

struct Wrong {
    place: Place,
    fault: Fault,
}

impl Fixture for Wrong {
    fn sink(&mut self) -> Box<dyn Sink> {
        let (place, fault) = (self.place.clone(), self.fault);
        Box::new(WrongSink { place, fault, held: Vec::new(), last: None, state: State::New })
    }

    fn arrived(&mut self) -> Vec<Row> {
        self.place.rows.lock().unwrap().clone()
    }

    fn refused(&self) -> Option<SchemaRef> {
        None
    }

    fn set_broken(&mut self, broken: Broken) -> Breakable {
        *self.place.broken.lock().unwrap() = broken == Broken::Yes;
        Breakable::Yes
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    /// By which thread, and whether the place was broken then.
    Open(ThreadId, bool),
    Closed,
}

#[derive(Debug)]
struct WrongSink {
    place: Place,
    fault: Fault,
    held: Vec<Row>,
    last: Option<u64>,
    state: State,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a place")
    }
}

impl WrongSink {
    fn take(&mut self, rows: Vec<Row>) {
        if self.fault == Fault::SafeAtClose {
            self.held.extend(rows);
        } else {
            self.place.rows.lock().unwrap().extend(rows);
        }
    }

    fn rows(&self, chunk: &RecordBatch) -> Vec<Row> {
        let mut rows = rows_of(chunk);
        match self.fault {
            Fault::WholeColumns if chunk.num_rows() < 300 => {
                let first = rows[0].0 / 1_000 * 1_000;
                rows = (first..).zip(rows).map(|(number, (_, text))| (number, text)).collect();
            }
            Fault::Texts => rows.iter_mut().for_each(|(_, text)| *text = None),
            _ => {}
        }
        rows
    }
}

impl Sink for WrongSink {
    fn name(&self) -> &str {
        match self.fault {
            Fault::Renamed if self.state != State::New => "opened",
            _ => "wrong",
        }
    }

    fn open(&mut self, schema: &SchemaRef, _: &Cancel) -> Result<()> {
        assert_eq!(*schema, contract::schema());
        let broken = *self.place.broken.lock().unwrap();
        self.state = State::Open(thread::current().id(), broken);
        Ok(())
    }

    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        let State::Open(thread, was_broken) = self.state else { return Err(Error::sink("not open")) };
        if *self.place.broken.lock().unwrap() {
            let hides = self.fault == Fault::Silent && was_broken;
            return if hides { Ok(()) } else { Err(Error::sink("the place is broken")) };
        }
        if self.fault == Fault::OneThread && thread != thread::current().id() {
            return Err(Error::sink("another thread"));
        }
        if self.fault == Fault::Liar && delivery.cancel.is_cancelled() {
            return Ok(());
        }
        let mut rows: Vec<Row> = delivery.rows.iter().flat_map(|chunk| self.rows(chunk)).collect();
        if self.fault == Fault::Doubled && self.last == Some(delivery.batch.0) {
            rows.extend(rows.clone());
        }
        if self.fault == Fault::RowOfNothing && rows.is_empty() {
            rows.push((0, None));
        }
        self.last = Some(delivery.batch.0);
        self.take(rows);
        Ok(())
    }

    fn wants_empty(&self) -> bool {
        true
    }

    fn close(&mut self) -> Result<()> {
        self.place.rows.lock().unwrap().append(&mut self.held);
        if self.fault == Fault::ClosesOnce && self.state == State::Closed {
            return Err(Error::sink("closed already"));
        }
        self.state = State::Closed;
        Ok(())
    }
}

impl Drop for WrongSink {
    fn drop(&mut self) {
        if self.fault == Fault::GoneWithoutClose && self.state != State::Closed {
            self.place.rows.lock().unwrap().clear();
        }
    }
}

type Check = fn(&mut dyn Fixture);

/// Whether a sink with this fault gets through a check.
fn passes(check: Check, fault: Fault) -> bool {
    let mut fixture = Wrong { place: Place::default(), fault };
    catch_unwind(AssertUnwindSafe(|| check(&mut fixture))).is_ok()
}

#[test]
fn each_check_of_the_contract_finds_who_breaks_it() {
    let checks: [(Fault, Check); 11] = [
        (Fault::Renamed, contract::has_one_name),
        (Fault::WholeColumns, contract::takes_rows_that_are_parts_of_others),
        (Fault::Texts, contract::delivers_whole_batches_in_order),
        (Fault::SafeAtClose, contract::delivers_whole_batches_in_order),
        (Fault::GoneWithoutClose, contract::keeps_what_it_said_was_safe_when_nobody_closes_it),
        (Fault::OneThread, contract::works_on_whatever_thread_it_is),
        (Fault::Doubled, contract::takes_a_batch_again),
        (Fault::Silent, contract::says_so_when_the_place_is_broken_from_the_start),
        (Fault::RowOfNothing, contract::honours_its_word_on_empty_batches),
        (Fault::ClosesOnce, contract::closes_at_any_time),
        (Fault::Liar, contract::tells_the_truth_when_it_is_cancelled),
    ];
    assert!(passes(contract::check, Fault::None), "nothing is wrong with it");
    for (fault, check) in checks {
        assert!(passes(check, Fault::None), "the check that is to find {fault:?}");
        assert!(!passes(check, fault), "{fault:?} was not found");
        assert!(!passes(contract::check, fault), "{fault:?} was not found by all checks");
    }
}
