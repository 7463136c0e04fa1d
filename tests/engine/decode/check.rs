//! The decoder against the model: the same payloads, row by row, under both policies and several projections.
//!
//! [`documents`] is the body of the fuzz target too. It deliberately panics at the first difference.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Float32Type, Float64Type, Int64Type, Schema, TimeUnit, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use tidemill::decode::{DecodeSpec, Decoded, Decoder, Format, OnBad};
use tidemill::error::Result;
use tidemill::offset::TopicPartition;
use tidemill::raw::{Bytes, RawChunk};
use tidemill::time::BatchTime;

use super::documents::{Dice, payload};
use super::model::{Cell, Row, row};

/// A column of every type that JSON is read into, at several depths.
pub(crate) fn every_field() -> Vec<Field> {
    let list = |item: Field| DataType::List(Arc::new(item));
    let item = |data_type| Field::new("item", data_type, true);
    let stamp = DataType::Timestamp(TimeUnit::Millisecond, None);
    let reading = DataType::Struct(
        vec![Field::new("value", DataType::Float64, true), Field::new("at", stamp, true)].into(),
    );
    let point = vec![
        Field::new("x", DataType::Float64, true),
        Field::new("y", DataType::Int32, false),
        Field::new("label", DataType::Utf8, true),
        Field::new("readings", list(Field::new("item", reading.clone(), false)), true),
    ];
    let entries = vec![Field::new("key", DataType::Utf8, false), Field::new("value", reading.clone(), true)];
    let entries = Field::new("entries", DataType::Struct(entries.into()), false);
    let mut all = fields();
    all.extend([
        Field::new("tags", list(item(DataType::Utf8)), true),
        Field::new("grid", list(item(list(item(DataType::Int16)))), true),
        Field::new("readings", list(item(reading)), true),
        Field::new("point", DataType::Struct(point.into()), true),
        Field::new("named", DataType::Map(Arc::new(entries), false), true),
    ]);
    all
}

/// A column of every flat type.
pub(crate) fn fields() -> Vec<Field> {
    let stamp = |name, unit, zone: Option<&str>| {
        Field::new(name, DataType::Timestamp(unit, zone.map(Into::into)), true)
    };
    vec![
        Field::new("flag", DataType::Boolean, true),
        Field::new("tiny", DataType::Int8, true),
        Field::new("small", DataType::Int16, true),
        Field::new("int", DataType::Int32, true),
        Field::new("long", DataType::Int64, true),
        Field::new("byte", DataType::UInt8, true),
        Field::new("word", DataType::UInt16, true),
        Field::new("uint", DataType::UInt32, true),
        Field::new("ulong", DataType::UInt64, true),
        Field::new("single", DataType::Float32, true),
        Field::new("double", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("wide", DataType::LargeUtf8, true),
        Field::new("day", DataType::Date32, true),
        stamp("sec", TimeUnit::Second, None),
        stamp("milli", TimeUnit::Millisecond, Some("UTC")),
        stamp("micro", TimeUnit::Microsecond, Some("+02:00")),
        stamp("nano", TimeUnit::Nanosecond, None),
        Field::new("price", DataType::Decimal128(20, 3), true),
        Field::new("blob", DataType::Binary, true),
        Field::new("must", DataType::Int64, false),
    ]
}

/// Draws payloads from `data`, and compares what they become.
pub(crate) fn documents(data: &[u8]) {
    let mut dice = Dice::new(data);
    let read = dice.below(4);
    let mut payloads = Vec::new();
    while !dice.is_empty() && payloads.len() < 64 {
        payloads.push(payload(&mut dice));
    }
    compare(&payloads, &projection(read));
}

/// All columns, or every third, or none.
pub(crate) fn projection(choice: usize) -> Vec<Field> {
    let all = every_field();
    match choice {
        0 | 1 => all,
        2 => all.into_iter().step_by(3).collect(),
        _ => Vec::new(),
    }
}

/// Compares what `payloads` become when `read` is read of a column of every type.
pub(crate) fn compare(payloads: &[Option<Vec<u8>>], read: &[Field]) -> Expectation {
    compare_within(payloads, &every_field(), read)
}

/// Compares what `payloads` become when `read` is read of the columns `all`: twice with one decoder, which has learnt
/// the second time.
pub(crate) fn compare_within(payloads: &[Option<Vec<u8>>], all: &[Field], read: &[Field]) -> Expectation {
    let rows: Vec<Row> = payloads.iter().map(|payload| row(payload.as_deref(), read)).collect();
    let expected = Expectation::new(&rows);
    let chunk = chunk(payloads);
    let mut drop = decoder(all, read, OnBad::Drop);
    for _ in 0..2 {
        expected.check(payloads, &drop.decode(&chunk, BatchTime(0)).unwrap());
    }
    let mut fail = decoder(all, read, OnBad::Fail);
    for _ in 0..2 {
        expected.check_failing(payloads, &rows, fail.decode(&chunk, BatchTime(0)));
    }
    let bad: Vec<usize> = (0..rows.len()).filter(|row| rows[*row] == Row::Bad).collect();
    check_dead(|on_bad| decoder(all, read, on_bad), payloads, &bad);
    expected
}

/// Decodes `payloads` under every policy with what `new` makes: the rows in `bad`, and no others, are dead letters, each
/// equal to its payload, and the first is told as the error tells it that fails the chunk.
pub(crate) fn check_dead(new: impl Fn(OnBad) -> Decoder, payloads: &[Option<Vec<u8>>], bad: &[usize]) {
    let chunk = chunk(payloads);
    let columns = ["value", "reason", "position", "kafka_offset"].map(str::to_owned);
    let mut keeping = new(OnBad::DeadLetter).with_dead_letters(&columns).unwrap();
    let dropped = new(OnBad::Drop).decode(&chunk, BatchTime(0)).unwrap();
    for _ in 0..2 {
        let decoded = keeping.decode(&chunk, BatchTime(0)).unwrap();
        assert_eq!(cells(&decoded.batch), cells(&dropped.batch), "{}", shown(payloads));
        assert_eq!(decoded.counts, dropped.counts);
        let letters: Vec<Letter> = decoded.dead.iter().flat_map(letters).collect();
        assert_eq!(letters.len(), bad.len(), "{}", shown(payloads));
        for (letter, row) in letters.iter().zip(bad) {
            let payload = payloads[*row].as_deref().unwrap();
            assert_eq!((letter.value.as_slice(), letter.offset), (payload, 100 + *row as i64));
            assert!(letter.reason.starts_with("expected "), "{}", letter.reason);
        }
        let error = new(OnBad::Fail).decode(&chunk, BatchTime(0)).err();
        assert_eq!(error.is_some(), !letters.is_empty());
        for (letter, error) in letters.iter().zip(error) {
            let place = format!("byte {} of {}", letter.position, letter.value.len());
            assert!(error.places().contains(&place), "{error}: {place}");
            assert!(error.to_string().contains(&format!("bad record: {};", letter.reason)), "{error}");
        }
    }
}

/// A dead letter of one chunk.
struct Letter {
    value: Vec<u8>,
    reason: String,
    position: i64,
    offset: i64,
}

fn letters(dead: &RecordBatch) -> Vec<Letter> {
    let (value, reason) = (dead.column(0).as_binary::<i32>(), dead.column(1).as_string::<i32>());
    let number = |column: usize| dead.column(column).as_primitive::<Int64Type>();
    let letter = |row| Letter {
        value: value.value(row).to_vec(),
        reason: reason.value(row).to_owned(),
        position: number(2).value(row),
        offset: number(3).value(row),
    };
    (0..dead.num_rows()).map(letter).collect()
}

pub(crate) fn chunk(payloads: &[Option<Vec<u8>>]) -> RawChunk {
    RawChunk {
        at: TopicPartition::new("readings", 3),
        offsets: (100..100 + payloads.len() as i64).collect(),
        payloads: Bytes::copied(payloads.iter().map(Option::as_deref)),
        keys: None,
        timestamps: None,
        headers: None,
    }
}

pub(crate) fn decoder(all: &[Field], read: &[Field], on_bad: OnBad) -> Decoder {
    let columns = Some(read.iter().map(|field| field.name().clone()).collect());
    let format = Format::Json(Arc::new(Schema::new(all.to_vec())));
    Decoder::new(DecodeSpec { format, metadata: Vec::new(), on_bad, event_time: None, columns }).unwrap()
}

/// What the model says of a chunk.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Expectation {
    pub(crate) good: Vec<Vec<Cell>>,
    pub(crate) bad: u64,
    pub(crate) tombstones: u64,
}

impl Expectation {
    fn new(rows: &[Row]) -> Self {
        let mut expected = Self::default();
        for row in rows {
            match row {
                Row::Good(cells) => expected.good.push(cells.clone()),
                Row::Bad => expected.bad += 1,
                Row::Tombstone => expected.tombstones += 1,
            }
        }
        expected
    }

    fn check(&self, payloads: &[Option<Vec<u8>>], decoded: &Decoded) {
        let good = cells(&decoded.batch);
        let found = (good.len(), decoded.counts.bad, decoded.counts.tombstones);
        assert_eq!(found, (self.good.len(), self.bad, self.tombstones), "{}", shown(payloads));
        for (found, expected) in good.iter().zip(&self.good) {
            assert_eq!(found, expected, "{}", shown(payloads));
        }
        assert_eq!(decoded.counts.records, payloads.len() as u64);
    }

    /// The first bad record fails the chunk, and is named.
    fn check_failing(&self, payloads: &[Option<Vec<u8>>], rows: &[Row], result: Result<Decoded>) {
        match (rows.iter().position(|row| *row == Row::Bad), result) {
            (None, Ok(decoded)) => self.check(payloads, &decoded),
            (Some(first), Err(error)) => {
                assert!(error.is_data());
                let place = format!("topic \"readings\", partition 3, offset {}", 100 + first);
                assert!(error.places().contains(&place), "{error} at {first}: {}", shown(payloads));
            }
            (first, result) => panic!("first bad {first:?}, found {result:?}: {}", shown(payloads)),
        }
    }
}

pub(crate) fn shown(payloads: &[Option<Vec<u8>>]) -> String {
    let lines = payloads.iter().enumerate().map(|(row, payload)| match payload {
        None => format!("{row}: tombstone\n"),
        Some(payload) => format!("{row}: {}\n", payload[..payload.len().min(2_000)].escape_ascii()),
    });
    lines.collect()
}

pub(crate) fn cells(batch: &RecordBatch) -> Vec<Vec<Cell>> {
    let columns: Vec<Vec<Cell>> = batch.columns().iter().map(column).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

fn column(array: &ArrayRef) -> Vec<Cell> {
    let each = |cell: &dyn Fn(usize) -> Cell| {
        (0..array.len()).map(|row| if array.is_null(row) { Cell::Null } else { cell(row) }).collect()
    };
    let as_type = |data_type| cast(array, &data_type).unwrap();
    match array.data_type() {
        DataType::Boolean => each(&|row| Cell::Bool(array.as_boolean().value(row))),
        DataType::Float32 => {
            each(&|row| Cell::Single(array.as_primitive::<Float32Type>().value(row).to_bits()))
        }
        DataType::Float64 => {
            each(&|row| Cell::Double(array.as_primitive::<Float64Type>().value(row).to_bits()))
        }
        DataType::Utf8 => each(&|row| Cell::Text(array.as_string::<i32>().value(row).to_owned())),
        DataType::LargeUtf8 => each(&|row| Cell::Text(array.as_string::<i64>().value(row).to_owned())),
        DataType::UInt64 => each(&|row| Cell::Int(array.as_primitive::<UInt64Type>().value(row).into())),
        DataType::Decimal128(..) => each(&|row| Cell::Int(array.as_primitive::<Decimal128Type>().value(row))),
        DataType::Binary => each(&|row| Cell::Bytes(array.as_binary::<i32>().value(row).to_vec())),
        DataType::List(_) => each(&|row| Cell::List(column(&array.as_list::<i32>().value(row)))),
        DataType::Struct(_) => {
            let members: Vec<Vec<Cell>> = array.as_struct().columns().iter().map(column).collect();
            each(&|row| Cell::Struct(members.iter().map(|member| member[row].clone()).collect()))
        }
        DataType::Map(..) => each(&|row| {
            let entries = array.as_map().value(row);
            let keys = column(entries.column(0)).into_iter();
            Cell::Map(keys.zip(column(entries.column(1))).collect())
        }),
        DataType::Date32 => {
            let days = as_type(DataType::Int32);
            let days = cast(&days, &DataType::Int64).unwrap();
            each(&|row| Cell::Int(days.as_primitive::<Int64Type>().value(row).into()))
        }
        _ => {
            let whole = as_type(DataType::Int64);
            each(&|row| Cell::Int(whole.as_primitive::<Int64Type>().value(row).into()))
        }
    }
}
