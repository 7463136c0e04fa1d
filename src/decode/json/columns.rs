//! Columns under construction: one JSON value at a time is read straight into its place.
//!
//! A column deliberately knows nothing of records: it appends a value or refuses it, and forgets its last rows when
//! told to. A further type is a further [`Column`], made in [`new_column`].

#![expect(clippy::inline_always, reason = "keeps the cursor in registers, as in its own file")]

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, GenericBinaryArray, GenericStringArray, OffsetSizeTrait,
    PrimitiveArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::decode::bad::Expected;
use crate::decode::json::cursor::{Cursor, Escapes};
use crate::decode::json::nested::Fault;
use crate::decode::json::number::Number;
use crate::decode::json::text::{LoneSurrogate, unescape};
use crate::decode::json::timestamp::{Moment, parse_date};
use crate::error::{Error, Result};
use crate::types::type_name;

macro_rules! flat_types {
    () => {
        "bool, int8 to int64, uint8 to uint64, float32, float64, string, large_string, binary, large_binary, \
         decimal(precision, scale) up to 38 digits, date32, and timestamp[s|ms|us|ns] with or without a zone"
    };
}

/// The flat types that JSON and CSV are read into, for errors.
pub const FLAT: &str = flat_types!();

/// The types that JSON is read into, for errors.
pub const SUPPORTED: &str =
    concat!(flat_types!(), "; and of any of these list<T>, map<string, T> and, for a struct, a dict");

/// A value does not fit a column; or it is no value at all, which walking over it will tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Misfit;

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

/// Whether a column, or the values in a list, struct or map, may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nulls {
    Allowed,
    Refused,
}

impl Nulls {
    pub(super) fn of(field: &Field) -> Self {
        if field.is_nullable() { Self::Allowed } else { Self::Refused }
    }
}

/// How a value is read that may have others in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Care {
    /// In one pass, which refuses a map with a key that comes twice.
    Quick,
    /// By a look at all keys of a map before its values, for what the quick way refuses.
    Careful,
}

/// The values of one column so far.
pub(in crate::decode) trait Column: Debug + Send {
    /// Appends the value that `rest` starts with, which is not `null`, and says how many bytes it takes. Appends
    /// nothing where it does not fit. No cursor is passed, but what fits registers: by way of memory it cost as much
    /// as the reading.
    fn read(&mut self, rest: &[u8]) -> Result<usize, Misfit>;

    /// As [`read`](Self::read), and takes what that refuses because a key comes twice somewhere within. What is nested
    /// passes the care on, and never asks twice: a retry at each level would double the work with every one.
    fn read_with(&mut self, rest: &[u8], _care: Care) -> Result<usize, Misfit> {
        self.read(rest)
    }

    /// Appends the value that `text`, the start of `rest`, stands for where no quotes tell text from numbers. What
    /// follows it in `rest` continues no number; it is there because looking at eight bytes needs eight. Lists and
    /// structs have no such text.
    fn text(&mut self, _text: &[u8], _rest: &[u8]) -> Result<(), Misfit> {
        Err(Misfit)
    }

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

    /// Where the value that `rest` starts with, which does not fit, does not: further in, where it is a nested one.
    fn fault(&mut self, rest: &[u8]) -> Fault {
        let inside = self.fault_inside(rest).ok().flatten();
        inside.unwrap_or_else(|| Fault { path: String::new(), at: 0, expects: self.expects() })
    }

    /// The first value within the one that `rest` starts with that does not fit; none where it is that one itself.
    fn fault_inside(&mut self, _rest: &[u8]) -> Result<Option<Fault>, Misfit> {
        Ok(None)
    }
}

/// An empty column of a flat `data_type`; none where JSON cannot be read into it, or the type is nested.
pub(in crate::decode) fn new_column(data_type: &DataType) -> Option<Box<dyn Column>> {
    Some(match data_type {
        DataType::Boolean => Fixed::boxed(Boolean),
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
        DataType::Decimal128(precision, scale) => {
            primitive::<Decimal128Type, _>(data_type, Decimal { precision: *precision, scale: *scale })
        }
        DataType::Binary => Box::new(Base64::<i32>(Strings::new())),
        DataType::LargeBinary => Box::new(Base64::<i64>(Strings::new())),
        DataType::Date32 => primitive::<Date32Type, _>(data_type, Days),
        DataType::Timestamp(unit, _) => timestamps(data_type, *unit, *unit),
        _ => return None,
    })
}

/// An empty column of timestamps in `unit`, whose numbers count `numbers`.
pub(super) fn timestamps(data_type: &DataType, unit: TimeUnit, numbers: TimeUnit) -> Box<dyn Column> {
    let read = Instants { unit, numbers };
    match unit {
        TimeUnit::Second => primitive::<TimestampSecondType, _>(data_type, read),
        TimeUnit::Millisecond => primitive::<TimestampMillisecondType, _>(data_type, read),
        TimeUnit::Microsecond => primitive::<TimestampMicrosecondType, _>(data_type, read),
        TimeUnit::Nanosecond => primitive::<TimestampNanosecondType, _>(data_type, read),
    }
}

/// How one kind of values is read from JSON.
trait Read<N>: Debug + Send {
    fn read(&self, input: &mut Cursor<'_>) -> Result<N, Misfit>;

    /// Reads what stands there without quotes; how far tells whether it is all.
    #[inline(always)]
    fn bare(&self, _text: &[u8], input: &mut Cursor<'_>) -> Result<N, Misfit> {
        self.read(input)
    }

    fn expects(&self, data_type: &DataType) -> String;
}

#[derive(Debug)]
struct Whole;

impl<N: TryFrom<u64> + TryFrom<i64>> Read<N> for Whole {
    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<N, Misfit> {
        Number::read(input)?.whole().ok_or(Misfit)
    }

    fn expects(&self, data_type: &DataType) -> String {
        format!("a whole number within {}", type_name(data_type))
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
        format!("a number within {}", type_name(data_type))
    }
}

impl Read<f32> for Float {
    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<f32, Misfit> {
        Number::read(input)?.to_f32().ok_or(Misfit)
    }

    fn expects(&self, data_type: &DataType) -> String {
        format!("a number within {}", type_name(data_type))
    }
}

/// A number that fits without rounding.
#[derive(Debug)]
struct Decimal {
    precision: u8,
    scale: i8,
}

impl Read<i128> for Decimal {
    fn read(&self, input: &mut Cursor<'_>) -> Result<i128, Misfit> {
        Number::read(input)?.scaled(self.precision, self.scale).ok_or(Misfit)
    }

    fn expects(&self, data_type: &DataType) -> String {
        format!("a number that {} holds without rounding", type_name(data_type))
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

    fn bare(&self, text: &[u8], input: &mut Cursor<'_>) -> Result<i32, Misfit> {
        written(parse_date(text), text, input)
    }

    fn expects(&self, _: &DataType) -> String {
        "a date such as \"2024-02-29\", or a whole number of days since the epoch".to_owned()
    }
}

#[derive(Debug)]
struct Instants {
    unit: TimeUnit,
    /// What a number counts.
    numbers: TimeUnit,
}

impl Instants {
    /// A number in the column's own unit that is whole takes the short way: it is the common one.
    #[inline(always)]
    fn number(&self, number: Number<'_>) -> Result<i64, Misfit> {
        if self.numbers == self.unit
            && let Some(ticks) = number.whole()
        {
            return Ok(ticks);
        }
        self.rounded(number).ok_or(Misfit)
    }

    /// What is finer than the unit is rounded down, as it is of text; but seconds with a fraction in a column of whole
    /// seconds are a column that was declared too coarse.
    #[inline(never)]
    fn rounded(&self, number: Number<'_>) -> Option<i64> {
        let is_own = self.numbers == self.unit;
        let fits = !is_own || self.unit != TimeUnit::Second;
        fits.then(|| number.floored(digits(self.unit) - digits(self.numbers)))?
    }
}

/// How many digits behind the point of a second a unit has.
fn digits(unit: TimeUnit) -> i8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

impl Read<i64> for Instants {
    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<i64, Misfit> {
        match input.peek() {
            Some(b'"') => {
                input.lend(|input| with_text(input, |text| Moment::parse(text)?.to_unit(self.unit)))
            }
            _ => self.number(Number::read(input)?),
        }
    }

    fn bare(&self, text: &[u8], input: &mut Cursor<'_>) -> Result<i64, Misfit> {
        let Some(value) = Moment::parse(text).and_then(|moment| moment.to_unit(self.unit)) else {
            return self.number(Number::read(input)?);
        };
        input.skip(text.len());
        Ok(value)
    }

    fn expects(&self, data_type: &DataType) -> String {
        let text = "ISO 8601 text such as \"2024-02-29T12:00:00Z\"";
        let name = type_name(data_type);
        match (self.unit, self.numbers) {
            (TimeUnit::Second, TimeUnit::Second) => format!(
                "{text}, or a whole number (with a fraction, as of time.time(), declare timestamp[us] and pass \
                 date_unit=\"s\" to tm.Json), within {name}"
            ),
            (unit, numbers) if unit == numbers => format!("{text}, or a number, within {name}"),
            (_, numbers) => format!("{text}, or a number of {}, within {name}", plural(numbers)),
        }
    }
}

/// The unit's name, of several.
fn plural(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "seconds",
        TimeUnit::Millisecond => "milliseconds",
        TimeUnit::Microsecond => "microseconds",
        TimeUnit::Nanosecond => "nanoseconds",
    }
}

/// A value that was parsed from all of `text`, or else the whole number that stands there: no text is both.
fn written<N: TryFrom<u64> + TryFrom<i64>>(
    parsed: Option<N>,
    text: &[u8],
    input: &mut Cursor<'_>,
) -> Result<N, Misfit> {
    let Some(value) = parsed else { return Whole.read(input) };
    input.skip(text.len());
    Ok(value)
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

/// The rows of a column that are null. A list, and no bitmap, until the column is finished: so a value, unlike a null,
/// costs nothing here, and a column without a null has no bitmap, whatever was rolled back on the way.
#[derive(Debug, Default)]
pub(super) struct NullRows(Vec<usize>);

impl NullRows {
    pub(super) fn push(&mut self, row: usize) {
        self.0.push(row);
    }

    /// Forgets the rows from `rows` on.
    pub(super) fn truncate(&mut self, rows: usize) {
        let kept = self.0.partition_point(|row| *row < rows);
        self.0.truncate(kept);
    }

    /// The bitmap of all `rows` rows; there is no null afterwards.
    pub(super) fn finish(&mut self, rows: usize) -> Option<NullBuffer> {
        if self.0.is_empty() {
            return None;
        }
        let mut valid = BooleanBufferBuilder::new(rows);
        valid.append_n(rows, true);
        self.0.drain(..).for_each(|row| valid.set_bit(row, false));
        Some(NullBuffer::new(valid.finish()))
    }
}

/// Values of one width each.
#[derive(Debug)]
struct Fixed<K: Kind> {
    values: Vec<K::Value>,
    nulls: NullRows,
    kind: K,
}

/// What values of one width are: how they are read, and what array they make.
trait Kind: Debug + Send {
    type Value: Default + Debug + Send;

    /// Reads a value, which is not `null`.
    fn read(&self, input: &mut Cursor<'_>) -> Result<Self::Value, Misfit>;

    /// Reads what stands there without quotes; how far tells whether it is all.
    #[inline(always)]
    fn bare(&self, _text: &[u8], input: &mut Cursor<'_>) -> Result<Self::Value, Misfit> {
        self.read(input)
    }

    fn array(&self, values: Vec<Self::Value>, nulls: Option<NullBuffer>) -> Result<ArrayRef>;

    /// What fits, in words that follow "expected".
    fn expects(&self) -> String;
}

impl<K: Kind + 'static> Fixed<K> {
    fn boxed(kind: K) -> Box<dyn Column> {
        Box::new(Self { values: Vec::new(), nulls: NullRows::default(), kind })
    }
}

impl<K: Kind> Column for Fixed<K> {
    fn read(&mut self, rest: &[u8]) -> Result<usize, Misfit> {
        let mut input = Cursor::new(rest);
        self.values.push(self.kind.read(&mut input)?);
        Ok(input.at())
    }

    fn text(&mut self, text: &[u8], rest: &[u8]) -> Result<(), Misfit> {
        let mut input = Cursor::new(rest);
        let value = self.kind.bare(text, &mut input)?;
        if input.at() != text.len() {
            return Err(Misfit);
        }
        self.values.push(value);
        Ok(())
    }

    fn null(&mut self) {
        self.nulls.push(self.values.len());
        self.values.push(K::Value::default());
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
        let nulls = self.nulls.finish(self.values.len());
        self.kind.array(std::mem::take(&mut self.values), nulls)
    }

    fn expects(&self) -> String {
        self.kind.expects()
    }
}

/// Numbers of one width, and what is stored as such.
#[derive(Debug)]
struct Primitive<T, R> {
    read: R,
    data_type: DataType,
    width: PhantomData<fn() -> T>,
}

fn primitive<T: ArrowPrimitiveType + Debug, R: Read<T::Native> + 'static>(
    data_type: &DataType,
    read: R,
) -> Box<dyn Column> {
    Fixed::boxed(Primitive::<T, R> { read, data_type: data_type.clone(), width: PhantomData })
}

impl<T: ArrowPrimitiveType + Debug, R: Read<T::Native>> Kind for Primitive<T, R> {
    type Value = T::Native;

    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<T::Native, Misfit> {
        self.read.read(input)
    }

    #[inline(always)]
    fn bare(&self, text: &[u8], input: &mut Cursor<'_>) -> Result<T::Native, Misfit> {
        self.read.bare(text, input)
    }

    fn array(&self, values: Vec<T::Native>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let array = PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), nulls)?;
        Ok(Arc::new(array.with_data_type(self.data_type.clone())))
    }

    fn expects(&self) -> String {
        self.read.expects(&self.data_type)
    }
}

#[derive(Debug)]
struct Boolean;

impl Kind for Boolean {
    type Value = bool;

    #[inline(always)]
    fn read(&self, input: &mut Cursor<'_>) -> Result<bool, Misfit> {
        let value = input.peek() == Some(b't');
        input.literal(if value { "true" } else { "false" })?;
        Ok(value)
    }

    fn array(&self, values: Vec<bool>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls)))
    }

    fn expects(&self) -> String {
        "true or false".to_owned()
    }
}

/// Text up to this long is copied without a call.
const SHORT: usize = 16;

/// Text, each value after the last in one buffer.
#[derive(Debug)]
pub(super) struct Strings<O> {
    text: Vec<u8>,
    /// Where each value ends in `text`.
    ends: Vec<usize>,
    nulls: NullRows,
    width: PhantomData<fn() -> O>,
}

impl<O> Strings<O> {
    pub(super) fn new() -> Self {
        Self { text: Vec::new(), ends: Vec::new(), nulls: NullRows::default(), width: PhantomData }
    }

    /// The texts of the rows from `row` on.
    pub(super) fn texts_from(&self, row: usize) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        let start = row.checked_sub(1).and_then(|row| self.ends.get(row)).copied().unwrap_or_default();
        let ends = self.ends.get(row..).unwrap_or_default();
        ends.iter().enumerate().map(move |(place, end)| {
            let start = place.checked_sub(1).and_then(|place| ends.get(place)).copied().unwrap_or(start);
            self.text.get(start..*end).unwrap_or_default()
        })
    }

    /// Where the last value ends.
    fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Appends `body`, the start of `text`. A short one is copied as the sixteen bytes that it lies in, and cut: that
    /// is two instructions, where a copy of any length is a call.
    #[inline(always)]
    fn append(&mut self, body: &[u8], text: &[u8]) {
        match text.first_chunk::<SHORT>() {
            Some(chunk) if body.len() <= SHORT => {
                let end = self.text.len() + body.len();
                self.text.extend_from_slice(chunk);
                self.text.truncate(end);
            }
            _ => self.text.extend_from_slice(body),
        }
    }

    /// What an array of all values is made of; the column is empty afterwards.
    fn parts(&mut self) -> Result<(OffsetBuffer<O>, Buffer, Option<NullBuffer>)>
    where
        O: OffsetSizeTrait,
    {
        O::from_usize(self.end()).ok_or_else(too_much_text)?; // no end is larger than the last
        let nulls = self.nulls.finish(self.ends.len());
        let ends = self.ends.drain(..).map(O::usize_as);
        let offsets: Vec<O> = std::iter::once(O::zero()).chain(ends).collect();
        // The next chunk will hold about as much.
        let room = Vec::with_capacity(self.text.len());
        let text = std::mem::replace(&mut self.text, room);
        Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), text.into(), nulls))
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
    fn read(&mut self, rest: &[u8]) -> Result<usize, Misfit> {
        let mut input = Cursor::new(rest);
        let string = input.string()?;
        match string.escapes {
            Escapes::None => self.append(string.body, rest.get(1..).unwrap_or_default()),
            Escapes::Some => self.unescape(string.body)?,
        }
        self.ends.push(self.text.len());
        Ok(input.at())
    }

    fn text(&mut self, text: &[u8], rest: &[u8]) -> Result<(), Misfit> {
        self.append(text, rest);
        self.ends.push(self.text.len());
        Ok(())
    }

    fn null(&mut self) {
        self.nulls.push(self.ends.len());
        self.ends.push(self.text.len());
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
        let (offsets, text, nulls) = self.parts()?;
        Ok(Arc::new(GenericStringArray::try_new(offsets, text, nulls)?))
    }

    fn expects(&self) -> String {
        "a string".to_owned()
    }
}

/// Bytes, which JSON and CSV have as base64 with its padding (RFC 4648).
#[derive(Debug)]
struct Base64<O>(Strings<O>);

impl<O: OffsetSizeTrait> Column for Base64<O> {
    fn read(&mut self, rest: &[u8]) -> Result<usize, Misfit> {
        let mut input = Cursor::new(rest);
        let string = input.string()?;
        if string.escapes == Escapes::None {
            self.text(string.body, string.body)?;
        } else {
            let mut text = Vec::new();
            unescape(string.body, &mut text)?;
            self.text(&text, &text)?;
        }
        Ok(input.at())
    }

    fn text(&mut self, text: &[u8], _: &[u8]) -> Result<(), Misfit> {
        let Self(values) = self;
        if STANDARD.decode_vec(text, &mut values.text).is_err() {
            values.text.truncate(values.end()); // what it has appended before it found the mistake
            return Err(Misfit);
        }
        values.ends.push(values.text.len());
        Ok(())
    }

    fn null(&mut self) {
        self.0.null();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows);
    }

    fn reserve(&mut self, rows: usize) {
        self.0.reserve(rows);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let (offsets, bytes, nulls) = self.0.parts()?;
        Ok(Arc::new(GenericBinaryArray::try_new(offsets, bytes, nulls)?))
    }

    fn expects(&self) -> String {
        "base64 text with its padding".to_owned()
    }
}

fn too_much_text() -> Error {
    Error::data("expected less than 2 GiB of text or bytes in a column of one chunk, found more")
        .help("declare the column as large_string or large_binary")
}
