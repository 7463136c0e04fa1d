//! Columns under construction: one JSON value at a time is read straight into its place.
//!
//! A column deliberately knows nothing of records: it appends a value or refuses it, and forgets its last rows when
//! told to. A further type is a further [`Column`], made in [`new_column`].

#![expect(clippy::inline_always, reason = "keeps the cursor in registers, as in its own file")]

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, GenericStringArray, NullBufferBuilder, OffsetSizeTrait, PrimitiveArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::decode::bad::Expected;
use crate::decode::json::cursor::{Cursor, Escapes};
use crate::decode::json::number::Number;
use crate::decode::json::text::{LoneSurrogate, unescape};
use crate::decode::json::timestamp::{Moment, parse_date};
use crate::error::{Error, Result};

/// The types that [`new_column`] makes, for errors.
pub(super) const SUPPORTED: &str = "bool, int8 to int64, uint8 to uint64, float32, float64, string, large_string, \
                                    date32, and timestamp[s|ms|us|ns] with or without a zone";

/// A value does not fit a column; or it is no value at all, which walking over it will tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misfit;

impl From<Expected> for Misfit {
    fn from(_: Expected) -> Self {
        Self
    }
}

impl From<LoneSurrogate> for Misfit {
    fn from(_: LoneSurrogate) -> Self {
        Self
    }
}

/// The values of one column so far.
pub(super) trait Column: Debug + Send {
    /// Appends the value that starts at `at` of `bytes`, which is not `null`, and says where it ends. Appends nothing
    /// where it does not fit. The cursor comes and goes in its parts, which fit registers: by way of memory it cost
    /// as much as the reading.
    fn read(&mut self, bytes: &[u8], at: usize) -> Result<usize, Misfit>;

    /// Appends a null.
    fn null(&mut self);

    /// How many rows there are.
    fn len(&self) -> usize;

    /// Forgets all rows after the first `rows`.
    fn truncate(&mut self, rows: usize);

    /// Makes room for `rows` rows.
    fn reserve(&mut self, rows: usize);

    /// The array of all rows; the column is empty afterwards.
    fn finish(&mut self) -> Result<ArrayRef>;

    /// What fits, in words that follow "expected".
    fn expects(&self) -> String;
}

/// An empty column of `data_type`; none where JSON cannot be read into it.
pub(super) fn new_column(data_type: &DataType) -> Option<Box<dyn Column>> {
    Some(match data_type {
        DataType::Boolean => Box::new(Booleans::new()),
        DataType::Utf8 => Box::new(Strings::<i32>::new()),
        DataType::LargeUtf8 => Box::new(Strings::<i64>::new()),
        DataType::Int8 => primitive::<Int8Type, _>(data_type, Whole),
        DataType::Int16 => primitive::<Int16Type, _>(data_type, Whole),
        DataType::Int32 => primitive::<Int32Type, _>(data_type, Whole),
        DataType::Int64 => primitive::<Int64Type, _>(data_type, Whole),
        DataType::UInt8 => primitive::<UInt8Type, _>(data_type, Whole),
        DataType::UInt16 => primitive::<UInt16Type, _>(data_type, Whole),
        DataType::UInt32 => primitive::<UInt32Type, _>(data_type, Whole),
        DataType::UInt64 => primitive::<UInt64Type, _>(data_type, Whole),
        DataType::Float32 => primitive::<Float32Type, _>(data_type, Float),
        DataType::Float64 => primitive::<Float64Type, _>(data_type, Float),
        DataType::Date32 => primitive::<Date32Type, _>(data_type, Days),
        DataType::Timestamp(unit, _) => timestamps(data_type, *unit),
        _ => return None,
    })
}

fn timestamps(data_type: &DataType, unit: TimeUnit) -> Box<dyn Column> {
    match unit {
        TimeUnit::Second => primitive::<TimestampSecondType, _>(data_type, Instants(unit)),
        TimeUnit::Millisecond => primitive::<TimestampMillisecondType, _>(data_type, Instants(unit)),
        TimeUnit::Microsecond => primitive::<TimestampMicrosecondType, _>(data_type, Instants(unit)),
        TimeUnit::Nanosecond => primitive::<TimestampNanosecondType, _>(data_type, Instants(unit)),
    }
}

/// How one kind of values is read from JSON.
trait Read<N>: Debug + Send {
    fn read(&self, input: &mut Cursor<'_>) -> Result<N, Misfit>;
    fn expects(&self, data_type: &DataType) -> String;
}

#[derive(Debug)]
struct Whole;

impl<N: TryFrom<i128>> Read<N> for Whole {
    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<N, Misfit> {
        let whole = Number::read(input)?.whole().ok_or(Misfit)?;
        N::try_from(whole).map_err(|_| Misfit)
    }

    fn expects(&self, data_type: &DataType) -> String {
        format!("a whole number within {data_type}")
    }
}

#[derive(Debug)]
struct Float;

impl Read<f64> for Float {
    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<f64, Misfit> {
        Number::read(input)?.to_f64().ok_or(Misfit)
    }

    fn expects(&self, data_type: &DataType) -> String {
        format!("a number within {data_type}")
    }
}

impl Read<f32> for Float {
    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<f32, Misfit> {
        Number::read(input)?.to_f32().ok_or(Misfit)
    }

    fn expects(&self, data_type: &DataType) -> String {
        format!("a number within {data_type}")
    }
}

#[derive(Debug)]
struct Days;

impl Read<i32> for Days {
    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<i32, Misfit> {
        match input.peek() {
            Some(b'"') => input.lend(|input| with_text(input, parse_date)),
            _ => Whole.read(input),
        }
    }

    fn expects(&self, _: &DataType) -> String {
        "a date such as \"2024-02-29\", or a whole number of days since the epoch".to_owned()
    }
}

#[derive(Debug)]
struct Instants(TimeUnit);

impl Read<i64> for Instants {
    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<i64, Misfit> {
        match input.peek() {
            Some(b'"') => input.lend(|input| with_text(input, |text| Moment::parse(text)?.to_unit(self.0))),
            _ => Whole.read(input),
        }
    }

    fn expects(&self, data_type: &DataType) -> String {
        format!("ISO 8601 text such as \"2024-02-29T12:00:00Z\", or a whole number, within {data_type}")
    }
}

/// What `parse` makes of the text of the string that starts here.
#[inline(never)]
fn with_text<T>(input: &mut Cursor<'_>, parse: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, Misfit> {
    let string = input.string()?;
    if string.escapes == Escapes::None {
        return parse(string.body).ok_or(Misfit);
    }
    let mut text = Vec::new();
    unescape(string.body, &mut text)?;
    parse(&text).ok_or(Misfit)
}

/// A bitmap without a null is no bitmap: equal rows make equal arrays, whatever was rolled back on the way.
fn finish_nulls(nulls: &mut NullBufferBuilder) -> Option<NullBuffer> {
    nulls.finish().filter(|nulls| nulls.null_count() > 0)
}

/// Numbers of one width, and what is stored as such.
#[derive(Debug)]
struct Primitives<T: ArrowPrimitiveType, R> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
    read: R,
    data_type: DataType,
    width: PhantomData<fn() -> T>,
}

fn primitive<T: ArrowPrimitiveType + Debug, R: Read<T::Native> + 'static>(
    data_type: &DataType,
    read: R,
) -> Box<dyn Column> {
    Box::new(Primitives::<T, R> {
        values: Vec::new(),
        nulls: NullBufferBuilder::new(0),
        read,
        data_type: data_type.clone(),
        width: PhantomData,
    })
}

impl<T: ArrowPrimitiveType + Debug, R: Read<T::Native>> Column for Primitives<T, R> {
    fn read(&mut self, bytes: &[u8], at: usize) -> Result<usize, Misfit> {
        let mut input = Cursor::at_byte(bytes, at);
        self.values.push(self.read.read(&mut input)?);
        self.nulls.append_non_null();
        Ok(input.at())
    }

    fn null(&mut self) {
        self.values.push(T::Native::default());
        self.nulls.append_null();
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.nulls.truncate(rows);
    }

    fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let values = ScalarBuffer::from(std::mem::take(&mut self.values));
        let array = PrimitiveArray::<T>::try_new(values, finish_nulls(&mut self.nulls))?;
        Ok(Arc::new(array.with_data_type(self.data_type.clone())))
    }

    fn expects(&self) -> String {
        self.read.expects(&self.data_type)
    }
}

#[derive(Debug)]
struct Booleans {
    values: Vec<bool>,
    nulls: NullBufferBuilder,
}

impl Booleans {
    fn new() -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }
}

impl Column for Booleans {
    fn read(&mut self, bytes: &[u8], at: usize) -> Result<usize, Misfit> {
        let mut input = Cursor::at_byte(bytes, at);
        let value = input.peek() == Some(b't');
        input.literal(if value { "true" } else { "false" })?;
        self.values.push(value);
        self.nulls.append_non_null();
        Ok(input.at())
    }

    fn null(&mut self) {
        self.values.push(false);
        self.nulls.append_null();
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.nulls.truncate(rows);
    }

    fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let values = BooleanBuffer::from(std::mem::take(&mut self.values));
        Ok(Arc::new(BooleanArray::new(values, finish_nulls(&mut self.nulls))))
    }

    fn expects(&self) -> String {
        "true or false".to_owned()
    }
}

/// Text, each value after the last in one buffer.
#[derive(Debug)]
struct Strings<O> {
    text: Vec<u8>,
    /// Where each value ends in `text`.
    ends: Vec<usize>,
    nulls: NullBufferBuilder,
    width: PhantomData<fn() -> O>,
}

impl<O> Strings<O> {
    fn new() -> Self {
        Self { text: Vec::new(), ends: Vec::new(), nulls: NullBufferBuilder::new(0), width: PhantomData }
    }

    /// Where the last value ends.
    fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    #[inline(never)]
    fn unescape(&mut self, body: &[u8]) -> Result<(), Misfit> {
        let done = unescape(body, &mut self.text);
        if done.is_err() {
            self.text.truncate(self.end());
        }
        Ok(done?)
    }
}

impl<O: OffsetSizeTrait> Column for Strings<O> {
    fn read(&mut self, bytes: &[u8], at: usize) -> Result<usize, Misfit> {
        let mut input = Cursor::at_byte(bytes, at);
        let string = input.string()?;
        match string.escapes {
            Escapes::None => self.text.extend_from_slice(string.body),
            Escapes::Some => self.unescape(string.body)?,
        }
        self.ends.push(self.text.len());
        self.nulls.append_non_null();
        Ok(input.at())
    }

    fn null(&mut self) {
        self.ends.push(self.text.len());
        self.nulls.append_null();
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.text.truncate(self.end());
        self.nulls.truncate(rows);
    }

    fn reserve(&mut self, rows: usize) {
        self.ends.reserve(rows);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(O::zero());
        for end in self.ends.drain(..) {
            offsets.push(O::from_usize(end).ok_or_else(too_much_text)?);
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        // The next chunk will hold about as much.
        let room = Vec::with_capacity(self.text.len());
        let text = std::mem::replace(&mut self.text, room);
        let array = GenericStringArray::try_new(offsets, text.into(), finish_nulls(&mut self.nulls))?;
        Ok(Arc::new(array))
    }

    fn expects(&self) -> String {
        "a string".to_owned()
    }
}

fn too_much_text() -> Error {
    Error::data("expected less than 2 GiB of text in a string column of one chunk, found more")
        .help("declare the column as large_string")
}
