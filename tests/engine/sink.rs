//! Sinks: the contract suite over each of them, and what each alone promises.

mod exactly_once;
mod files;
mod kafka;
mod outputs;
mod support;
mod wrong;

use std::io::Write;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arrow::array::{AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use tidemill::cancel::Cancel;
use tidemill::error::Error;
use tidemill::sink::callback::{CallbackSink, EmptyBatches};
use tidemill::sink::channel::{Batches, Next, channel};
use tidemill::sink::contract::{self, Breakable, Broken, Fixture, Row, delivery};
use tidemill::sink::pprint::PrintSink;
use tidemill::sink::table::{Keep, Table, TableSink};
use tidemill::sink::{Delivery, Sink};
use tidemill::time::BatchTime;

/// Long enough that a test which waits so long has failed.
const FOREVER: Duration = Duration::from_mins(1);

/// The rows of a batch, by their columns `row` and `text`.
fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let texts = batch.column(1).as_string::<i32>().iter();
    let numbers = batch.column(0).as_primitive::<Int64Type>().values().iter().copied();
    numbers.zip(texts.map(|text| text.map(str::to_owned))).collect()
}

/// A place in memory, which fails on demand.
#[derive(Clone, Default)]
struct Place {
    rows: Arc<Mutex<Vec<Row>>>,
    broken: Arc<Mutex<Option<Error>>>,
}

impl Place {
    fn take(&self, delivery: &Delivery) -> Result<(), Error> {
        let broken = self.broken.lock().unwrap().clone();
        if let Some(error) = broken {
            return Err(error);
        }
        self.rows.lock().unwrap().extend(delivery.rows.iter().flat_map(rows_of));
        Ok(())
    }

    fn set(&self, broken: Broken) {
        *self.broken.lock().unwrap() = (broken == Broken::Yes).then(|| Error::user("the place is closed"));
    }
}

struct Callback {
    place: Place,
    empty: EmptyBatches,
}

impl Fixture for Callback {
    fn sink(&mut self) -> Box<dyn Sink> {
        let place = self.place.clone();
        Box::new(CallbackSink::from_fn("callback", self.empty, move |delivery| place.take(delivery)))
    }

    fn arrived(&mut self) -> Vec<Row> {
        self.place.rows.lock().unwrap().clone()
    }

    fn refused(&self) -> Option<SchemaRef> {
        None
    }

    fn set_broken(&mut self, broken: Broken) -> Breakable {
        self.place.set(broken);
        Breakable::Yes
    }
}

#[test]
fn the_callback_sink_keeps_the_contract() {
    for empty in [EmptyBatches::Skip, EmptyBatches::Deliver] {
        contract::check(&mut Callback { place: Place::default(), empty });
    }
}

#[test]
fn a_callbacks_error_comes_back_as_it_is() {
    let mut sink = CallbackSink::from_fn("mine", EmptyBatches::Skip, |_| Err(Error::user("no").at("here")));
    let error = sink.deliver(&delivery(1, 0..1)).unwrap_err();
    assert_eq!(error.to_string(), "no (here)");
}

/// A loop on a thread of its own that writes what it gets into a place.
struct Loop(Place);

impl Fixture for Loop {
    fn sink(&mut self) -> Box<dyn Sink> {
        let (sink, batches) = channel("loop", EmptyBatches::Skip);
        let place = self.0.clone();
        thread::spawn(move || read_all(batches, &place));
        Box::new(sink)
    }

    fn arrived(&mut self) -> Vec<Row> {
        self.0.rows.lock().unwrap().clone()
    }

    fn refused(&self) -> Option<SchemaRef> {
        None
    }

    fn set_broken(&mut self, _: Broken) -> Breakable {
        Breakable::No
    }
}

fn read_all(mut batches: Batches, place: &Place) {
    while let Next::Batch(delivery) = batches.next(FOREVER) {
        place.take(&delivery).unwrap();
    }
}

#[test]
fn the_channel_sink_keeps_the_contract() {
    contract::check(&mut Loop(Place::default()));
}

/// Delivers two batches on a thread, and tells when each delivery has returned.
fn deliver_two() -> (Batches, mpsc::Receiver<u64>, thread::JoinHandle<()>) {
    let (mut sink, batches) = channel("loop", EmptyBatches::Skip);
    let (done, returned) = mpsc::channel();
    let thread = thread::spawn(move || {
        for batch in [1, 2] {
            sink.deliver(&delivery(batch, 0..3)).unwrap();
            done.send(batch).unwrap();
        }
        sink.close().unwrap();
    });
    (batches, returned, thread)
}

#[test]
fn a_batch_counts_as_delivered_when_the_loop_comes_back() {
    let (mut batches, returned, thread) = deliver_two();
    assert!(matches!(batches.next(FOREVER), Next::Batch(delivery) if delivery.batch.0 == 1));
    assert_eq!(returned.try_recv(), Err(mpsc::TryRecvError::Empty));
    assert!(matches!(batches.next(FOREVER), Next::Batch(delivery) if delivery.batch.0 == 2));
    assert_eq!(returned.recv(), Ok(1));
    assert_eq!(returned.try_recv(), Err(mpsc::TryRecvError::Empty));
    assert!(matches!(batches.next(FOREVER), Next::Ended));
    assert_eq!(returned.recv(), Ok(2));
    thread.join().unwrap();
}

#[test]
fn leaving_the_loop_lets_the_stream_go_on() {
    let (mut batches, returned, thread) = deliver_two();
    assert!(matches!(batches.next(FOREVER), Next::Batch(_)));
    drop(batches);
    assert_eq!(returned.iter().collect::<Vec<_>>(), [1, 2]);
    thread.join().unwrap();
}

#[test]
fn a_cancelled_delivery_does_not_wait_for_the_loop_to_come_back() {
    let (mut sink, mut batches) = channel("loop", EmptyBatches::Skip);
    let batch = delivery(1, 0..3);
    let cancel = batch.cancel.clone();
    let delivering = thread::spawn(move || sink.deliver(&batch));
    assert!(matches!(batches.next(FOREVER), Next::Batch(_)));
    cancel.cancel();
    let error = delivering.join().unwrap().unwrap_err();
    assert!(error.is_cancelled() && error.to_string().contains("has not come back"), "{error}");
    assert!(matches!(batches.next(FOREVER), Next::Ended));
}

#[test]
fn a_loop_that_waits_in_steps_is_told_that_there_is_nothing_yet() {
    let (sink, mut batches) = channel("loop", EmptyBatches::Skip);
    assert!(matches!(batches.next(Duration::ZERO), Next::Pending));
    drop(sink);
    assert!(matches!(batches.next(Duration::ZERO), Next::Ended));
}

/// A file that is shared with the test, and that can be full.
#[derive(Clone, Default)]
struct Paper {
    text: Arc<Mutex<Vec<u8>>>,
    full: Arc<Mutex<bool>>,
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if *self.full.lock().unwrap() {
            return Err(std::io::Error::other("paper is full"));
        }
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

impl Fixture for Paper {
    fn sink(&mut self) -> Box<dyn Sink> {
        Box::new(PrintSink::new(Box::new(self.clone()), usize::MAX))
    }

    fn arrived(&mut self) -> Vec<Row> {
        let text = self.text();
        let cells =
            text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|')?.split_once('|'));
        let shown = |text: &str| Some(text.trim().to_owned()).filter(|text| text != "null");
        cells.filter_map(|(row, text)| Some((row.trim().parse().ok()?, shown(text)))).collect()
    }

    fn refused(&self) -> Option<SchemaRef> {
        None
    }

    fn set_broken(&mut self, broken: Broken) -> Breakable {
        *self.full.lock().unwrap() = broken == Broken::Yes;
        Breakable::Yes
    }
}

#[test]
fn the_print_sink_keeps_the_contract() {
    contract::check(&mut Paper::default());
}

fn printed(time: i64, rows: Vec<RecordBatch>, shown: usize) -> String {
    let paper = Paper::default();
    let mut sink = PrintSink::new(Box::new(paper.clone()), shown);
    sink.deliver(&Delivery { time: BatchTime(time), rows, ..delivery(1, 0..0) }).unwrap();
    paper.text()
}

fn readings() -> Vec<RecordBatch> {
    let chunk = |devices: Vec<Option<&str>>, temperatures: Vec<f64>| {
        let columns: [(&str, arrow::array::ArrayRef, bool); 2] = [
            ("device", Arc::new(StringArray::from(devices)), true),
            ("temp", Arc::new(Float64Array::from(temperatures)), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    };
    vec![chunk(vec![Some("press"), None], vec![1.5, 20.0]), chunk(vec![Some("lathe")], vec![-3.25])]
}

#[test]
fn a_batch_is_printed_under_its_time_as_a_table() {
    let expected = "\
-------------------------------------------
Time: 2023-11-14 22:13:21
-------------------------------------------
+--------+-------+
| device | temp  |
+--------+-------+
| press  | 1.5   |
| null   | 20.0  |
| lathe  | -3.25 |
+--------+-------+

";
    assert_eq!(printed(1_700_000_001_000, readings(), 3), expected);
}

#[test]
fn rows_beyond_the_first_n_are_an_ellipsis() {
    let expected = "\
-------------------------------------------
Time: 2023-11-14 22:13:20.500000
-------------------------------------------
+--------+------+
| device | temp |
+--------+------+
| press  | 1.5  |
| null   | 20.0 |
+--------+------+
...

";
    assert_eq!(printed(1_700_000_000_500, readings(), 2), expected);
}

#[test]
fn no_rows_and_no_room_print_as_in_spark() {
    let head = "-------------------------------------------\nTime: 2023-11-14 22:13:21\n\
                -------------------------------------------\n";
    assert_eq!(printed(1_700_000_001_000, vec![], 10), format!("{head}\n"));
    assert_eq!(printed(1_700_000_001_000, readings(), 0), format!("{head}...\n\n"));
}

#[test]
fn batches_without_rows_are_printed_only_on_demand() {
    let sink = || PrintSink::new(Box::new(Paper::default()), 10);
    assert!(!sink().wants_empty());
    assert!(sink().with_empty(EmptyBatches::Deliver).wants_empty());
}

#[test]
fn a_title_stands_beside_the_time() {
    let paper = Paper::default();
    let mut sink = PrintSink::new(Box::new(paper.clone()), 0).titled(Some("hot".to_owned()));
    sink.deliver(&Delivery { time: BatchTime(1_700_000_001_000), ..delivery(1, 0..0) }).unwrap();
    assert!(paper.text().contains("\nTime: 2023-11-14 22:13:21 (hot)\n"), "{}", paper.text());
}

struct InMemory(Table);

impl Fixture for InMemory {
    fn sink(&mut self) -> Box<dyn Sink> {
        Box::new(TableSink::new("table", self.0.clone()))
    }

    fn arrived(&mut self) -> Vec<Row> {
        self.0.snapshot().rows.iter().flat_map(rows_of).collect()
    }

    fn refused(&self) -> Option<SchemaRef> {
        None
    }

    fn set_broken(&mut self, _: Broken) -> Breakable {
        Breakable::No
    }
}

fn last(rows: usize) -> Keep {
    Keep::Last(rows.try_into().unwrap())
}

fn kept(table: &Table) -> Vec<i64> {
    let rows = table.snapshot().rows;
    rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn filled(keep: Keep, deliveries: &[std::ops::Range<i64>]) -> Table {
    let table = Table::new(keep);
    let mut sink = TableSink::new("table", table.clone());
    sink.open(&contract::schema(), &Cancel::default()).unwrap();
    for (batch, rows) in (0..).zip(deliveries) {
        sink.deliver(&delivery(batch, rows.clone())).unwrap();
    }
    table
}

/// `rows` rows in batches of `size`.
fn in_batches(rows: i64, size: usize) -> Vec<std::ops::Range<i64>> {
    let numbers: Vec<i64> = (0..rows).collect();
    numbers.chunks(size).map(|batch| batch[0]..batch[batch.len() - 1] + 1).collect()
}

#[test]
fn the_table_sink_keeps_the_contract() {
    for keep in [Keep::All, last(1_000_000)] {
        contract::check(&mut InMemory(Table::new(keep)));
    }
}

#[test]
fn a_table_keeps_the_last_rows_in_order_whatever_the_batches() {
    for size in [1, 7, 999, 1_000, 2_500] {
        let deliveries = in_batches(5_000, size);
        for limit in [1, 999, 1_000, 1_001, 4_999, 5_000, 5_001] {
            let table = filled(last(limit), &deliveries);
            let first = 5_000 - i64::try_from(limit.min(5_000)).unwrap();
            assert_eq!(kept(&table), (first..5_000).collect::<Vec<_>>(), "{limit} rows, batches of {size}");
            assert_eq!(table.snapshot().delivered, 5_000);
        }
    }
}

#[test]
fn a_table_of_small_batches_has_few_chunks() {
    let deliveries = in_batches(20_000, 1);
    let table = filled(Keep::All, &deliveries);
    assert_eq!(kept(&table).len(), 20_000);
    let chunks = table.snapshot().rows.len();
    assert!(chunks < 30, "{chunks} chunks");
}

#[test]
fn a_table_lets_go_of_the_memory_of_what_it_pushed_out() {
    let table = filled(last(10), &in_batches(1_000, 1_000));
    let held: usize = table.snapshot().rows.iter().map(RecordBatch::get_array_memory_size).sum();
    let whole: usize = delivery(0, 0..1_000).rows.iter().map(RecordBatch::get_array_memory_size).sum();
    assert!(held * 10 < whole, "{held} of {whole} bytes are held for 10 of 1,000 rows");
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let table = filled(last(3), &in_batches(3, 3));
    let before = table.snapshot();
    TableSink::new("table", table.clone()).deliver(&delivery(1, 3..5)).unwrap();
    assert_eq!((before.num_rows(), before.delivered), (3, 3));
    assert_eq!(kept(&table), [2, 3, 4]);
    table.clear();
    assert_eq!((table.snapshot().num_rows(), table.snapshot().delivered), (0, 0));
}
