//! Canonical bytes and the stable hash of each row's key.
//!
//! The same key has the same bytes and the same hash in every version, on every machine and in every width of its
//! columns' types: state is found again by them, and a checkpoint's key groups are made from them. This file
//! deliberately stores no keys; that is the [`KeyTable`](crate::state::table::KeyTable).
//!
//! # The encoding, version 1
//!
//! A value is a tag and its payload, a key is its values one after another, and so no two different keys of one
//! schema have the same bytes:
//!
//! | value | tag | payload |
//! |---|---|---|
//! | integer that fits 64 bits with sign | 1 | 8 bytes, little-endian |
//! | larger unsigned integer | 2 | 8 bytes, little-endian |
//! | boolean | 3 | 0 or 1 |
//! | float | 4 | 8 bytes of its `f64`, little-endian; −0 is 0, and all NaN are one |
//! | string | 5 | length in 4 bytes, little-endian, then UTF-8 |
//! | binary | 6 | length in 4 bytes, little-endian, then the bytes |
//! | date | 7 | days since the epoch, 8 bytes, little-endian |
//! | timestamp | 8 | seconds since the epoch in 8 bytes, nanoseconds in 4, little-endian, of whatever unit and zone |
//! | null | 255 | none |
//!
//! A key of **one** column leaves out the tag (and the length) of a string and of an integer that fits 64 bits: its
//! bytes are then those that stand in the column already, and nothing is copied. That stays unambiguous, since 255
//! is never a UTF-8 byte and neither a null nor a larger integer has 8 bytes.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Float64Array, Int64Array,
    RecordBatch, StringArray, StringViewArray, UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt64Type,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result, nearest};
use crate::state::group::KeyGroup;

/// The version of the encoding, written into every snapshot.
pub const ENCODING_VERSION: u32 = 1;

const NULL: &[u8] = &[255];
const MILLIS_PER_DAY: i64 = 86_400_000;

// `Keys::get` lends out the bytes of an integer column as they stand in memory.
const _: () =
    assert!(cfg!(target_endian = "little"), "keys are little-endian, as every supported machine is");

/// Makes the keys of batches of one schema.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{RecordBatch, StringArray};
/// use tidemill::state::key::KeyEncoder;
///
/// let devices = Arc::new(StringArray::from(vec![Some("pump-1"), None]));
/// let rows = RecordBatch::try_from_iter_with_nullable([("device", devices as _, true)])?;
/// let keys = KeyEncoder::new(&rows.schema(), &["device"])?.encode(&rows)?;
/// assert_eq!(keys.get(0), b"pump-1");
/// assert_ne!(keys.hash(0), keys.hash(1));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyEncoder {
    columns: Vec<KeyColumn>,
}

#[derive(Clone, Debug)]
struct KeyColumn {
    name: String,
    class: Class,
}

/// The types that are alike as keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Boolean,
    Integer,
    Float,
    Text,
    Binary,
    Date,
    Timestamp,
}

impl Class {
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean => Some(Self::Boolean),
            integer if integer.is_integer() => Some(Self::Integer),
            float if float.is_floating() => Some(Self::Float),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Text),
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Some(Self::Binary),
            DataType::Date32 | DataType::Date64 => Some(Self::Date),
            DataType::Timestamp(..) => Some(Self::Timestamp),
            DataType::Dictionary(_, values) => Self::of(values),
            _ => None,
        }
    }
}

impl KeyEncoder {
    /// An encoder of these columns, in this order.
    pub fn new(schema: &Schema, columns: &[impl AsRef<str>]) -> Result<Self> {
        if columns.is_empty() {
            return Err(Error::config("a key has at least one column, found none")
                .help("name one: key_by(\"device\")"));
        }
        let columns = columns.iter().map(|name| key_column(schema, name.as_ref())).collect::<Result<_>>()?;
        Ok(Self { columns })
    }

    /// The encoder of the one key that all rows share.
    pub fn of_all() -> Self {
        Self { columns: Vec::new() }
    }

    /// The keys of the rows of `batch`.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Keys> {
        let values = self.columns.iter().map(|column| column.values(batch)).collect::<Result<Vec<_>>>()?;
        let form = match <[Values; 1]>::try_from(values) {
            Ok([Values::Text(array)]) => Form::Text(array),
            Ok([Values::View(array)]) => Form::View(array),
            Ok([Values::Integer(array)]) => Form::Integer(array),
            Ok([one]) => Form::Packed(pack(batch.num_rows(), |row, out| one.append_alone(row, out))?),
            Err(values) => Form::Packed(pack(batch.num_rows(), |row, out| {
                for column in &values {
                    column.append(row, out);
                }
            })?),
        };
        Ok(Keys::new(form))
    }
}

fn key_column(schema: &Schema, name: &str) -> Result<KeyColumn> {
    let Some((_, field)) = schema.column_with_name(name) else {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let error = Error::schema(format!(
            "a key column named \"{name}\" was expected, found the columns {}",
            names().collect::<Vec<_>>().join(", ")
        ));
        return Err(match nearest(name, names()) {
            Some(near) => error.help(format!("did you mean \"{near}\"?")),
            None => error,
        });
    };
    let class = Class::of(field.data_type()).ok_or_else(|| {
        Error::schema(format!("column \"{name}\" of type {} cannot be a key", field.data_type()))
            .help("keys are booleans, integers, floats, strings, binary, dates and timestamps; cast the column first")
    })?;
    Ok(KeyColumn { name: name.to_owned(), class })
}

impl KeyColumn {
    fn values(&self, batch: &RecordBatch) -> Result<Values> {
        let array = batch.column_by_name(&self.name).ok_or_else(|| {
            Error::internal(format!(
                "a batch without its key column \"{}\" came to the key encoder",
                self.name
            ))
        })?;
        let plain = match array.data_type() {
            DataType::Dictionary(_, values) => compute::cast(array, values)?,
            _ => array.clone(),
        };
        match (Class::of(plain.data_type()), self.class) {
            (Some(found), expected) if found == expected => Values::new(&plain, found),
            _ => Err(Error::schema(format!(
                "key column \"{}\" was expected as {:?}, found {}",
                self.name,
                self.class,
                array.data_type()
            ))),
        }
    }
}

/// One key column in the one type of its class.
enum Values {
    Boolean(BooleanArray),
    Integer(Int64Array),
    Unsigned(UInt64Array),
    Float(Float64Array),
    Text(StringArray),
    View(StringViewArray),
    Binary(BinaryViewArray),
    Date(Int64Array),
    Timestamp { ticks: Int64Array, per_second: i64 },
}

impl Values {
    fn new(array: &ArrayRef, class: Class) -> Result<Self> {
        let cast = |to: &DataType| compute::cast(array, to);
        Ok(match class {
            Class::Boolean => Self::Boolean(array.as_boolean().clone()),
            Class::Integer => return integers(array),
            Class::Float => Self::Float(cast(&DataType::Float64)?.as_primitive::<Float64Type>().clone()),
            Class::Text if array.data_type() == &DataType::Utf8 => {
                Self::Text(array.as_string::<i32>().clone())
            }
            Class::Text => Self::View(cast(&DataType::Utf8View)?.as_string_view().clone()),
            Class::Binary => Self::Binary(cast(&DataType::BinaryView)?.as_binary_view().clone()),
            Class::Date => Self::Date(days(array)),
            Class::Timestamp => return timestamps(array),
        })
    }

    /// Appends the value with its tag.
    fn append(&self, row: usize, out: &mut Vec<u8>) {
        if self.array().is_null(row) {
            return out.extend(NULL);
        }
        match self {
            Self::Integer(array) => tagged(1, &array.value(row).to_le_bytes(), out),
            Self::Unsigned(array) => append_unsigned(array.value(row), out),
            Self::Boolean(array) => tagged(3, &[u8::from(array.value(row))], out),
            Self::Float(array) => tagged(4, &one_form(array.value(row)).to_le_bytes(), out),
            Self::Text(array) => sized(5, array.value(row).as_bytes(), out),
            Self::View(array) => sized(5, array.value(row).as_bytes(), out),
            Self::Binary(array) => sized(6, array.value(row), out),
            Self::Date(array) => tagged(7, &array.value(row).to_le_bytes(), out),
            Self::Timestamp { ticks, per_second } => append_timestamp(ticks.value(row), *per_second, out),
        }
    }

    /// Appends the value as a key of one column: integers without their tag.
    fn append_alone(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Unsigned(array) if array.is_valid(row) && i64::try_from(array.value(row)).is_ok() => {
                out.extend(array.value(row).to_le_bytes());
            }
            _ => self.append(row, out),
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Boolean(array) => array,
            Self::Integer(array) | Self::Date(array) | Self::Timestamp { ticks: array, .. } => array,
            Self::Unsigned(array) => array,
            Self::Float(array) => array,
            Self::Text(array) => array,
            Self::View(array) => array,
            Self::Binary(array) => array,
        }
    }
}

fn integers(array: &ArrayRef) -> Result<Values> {
    if let Some(unsigned) = array.as_primitive_opt::<UInt64Type>()
        && compute::max(unsigned).is_some_and(|largest| i64::try_from(largest).is_err())
    {
        return Ok(Values::Unsigned(unsigned.clone()));
    }
    Ok(Values::Integer(compute::cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone()))
}

fn days(array: &ArrayRef) -> Int64Array {
    match array.as_primitive_opt::<Date64Type>() {
        Some(millis) => millis.unary(|millis| millis.div_euclid(MILLIS_PER_DAY)),
        None => array.as_primitive::<Date32Type>().unary(i64::from),
    }
}

fn timestamps(array: &ArrayRef) -> Result<Values> {
    let (ticks, per_second) = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            (array.as_primitive::<TimestampSecondType>().reinterpret_cast(), 1)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            (array.as_primitive::<TimestampMillisecondType>().reinterpret_cast(), 1_000)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(), 1_000_000)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            (array.as_primitive::<TimestampNanosecondType>().reinterpret_cast(), 1_000_000_000)
        }
        other => return Err(Error::internal(format!("a timestamp was expected as a key, found {other}"))),
    };
    Ok(Values::Timestamp { ticks, per_second })
}

fn tagged(tag: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(payload);
}

fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    // An Arrow value of 4 GiB or more cannot come here: its column would not have been decoded.
    tagged(tag, &u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes(), out);
    out.extend_from_slice(bytes);
}

fn append_unsigned(value: u64, out: &mut Vec<u8>) {
    tagged(if i64::try_from(value).is_ok() { 1 } else { 2 }, &value.to_le_bytes(), out);
}

fn append_timestamp(ticks: i64, per_second: i64, out: &mut Vec<u8>) {
    let nanos = ticks.rem_euclid(per_second) * (1_000_000_000 / per_second);
    tagged(8, &ticks.div_euclid(per_second).to_le_bytes(), out);
    out.extend(u32::try_from(nanos).unwrap_or_default().to_le_bytes());
}

fn one_form(value: f64) -> f64 {
    if value.is_nan() {
        f64::from_bits(0x7ff8_0000_0000_0000)
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}

fn pack(rows: usize, append: impl Fn(usize, &mut Vec<u8>)) -> Result<BinaryArray> {
    let mut bytes = Vec::with_capacity(rows * 16);
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0_i32);
    for row in 0..rows {
        append(row, &mut bytes);
        offsets.push(i32::try_from(bytes.len()).map_err(|_| {
            Error::memory_limit(format!(
                "the keys of one batch were expected to fit 2 GiB, row {row} is beyond"
            ))
            .help("plan smaller batches with max_records")
        })?);
    }
    Ok(BinaryArray::try_new(OffsetBuffer::new(offsets.into()), bytes.into(), None)?)
}

/// The keys of the rows of a batch, and their hashes.
///
/// They are made once, where rows are dealt to shards, and go with the rows from then on.
#[derive(Clone, Debug)]
pub struct Keys {
    form: Form,
    hashes: UInt64Array,
}

/// Where the bytes of the keys stand: in the user's own column where there is one string or integer.
#[derive(Clone, Debug)]
pub(super) enum Form {
    Text(StringArray),
    View(StringViewArray),
    Integer(Int64Array),
    Packed(BinaryArray),
}

impl Form {
    fn array(&self) -> &dyn Array {
        match self {
            Self::Text(array) => array,
            Self::View(array) => array,
            Self::Integer(array) => array,
            Self::Packed(array) => array,
        }
    }

    /// The form of an array that came out of a kernel which keeps the type.
    fn like(array: &ArrayRef) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string().clone()),
            DataType::Utf8View => Self::View(array.as_string_view().clone()),
            DataType::Int64 => Self::Integer(array.as_primitive().clone()),
            DataType::Binary => Self::Packed(array.as_binary().clone()),
            other => return Err(Error::internal(format!("keys are never held as {other}"))),
        })
    }

    fn hashes(&self) -> UInt64Array {
        match self {
            Self::Text(array) => {
                array.iter().map(|key| key.map_or(NULL, str::as_bytes)).map(xxh3_64).collect()
            }
            Self::View(array) => {
                array.iter().map(|key| key.map_or(NULL, str::as_bytes)).map(xxh3_64).collect()
            }
            Self::Integer(array) => array.iter().map(hash_of_integer).collect(),
            Self::Packed(array) => array.iter().map(|key| xxh3_64(key.unwrap_or(NULL))).collect(),
        }
    }
}

fn hash_of_integer(key: Option<i64>) -> u64 {
    key.map_or_else(|| xxh3_64(NULL), |key| xxh3_64(&key.to_le_bytes()))
}

impl Keys {
    fn new(form: Form) -> Self {
        let hashes = form.hashes();
        Self { form, hashes }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The canonical bytes of a row's key.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn get(&self, row: usize) -> &[u8] {
        match &self.form {
            form if form.array().is_null(row) => NULL,
            Form::Text(array) => array.value(row).as_bytes(),
            Form::View(array) => array.value(row).as_bytes(),
            Form::Integer(array) => array.values().inner().get(row * 8..row * 8 + 8).unwrap_or(NULL),
            Form::Packed(array) => array.value(row),
        }
    }

    /// The hash of a row's key: XXH3, 64 bits, of its bytes.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn hash(&self, row: usize) -> u64 {
        self.hashes.value(row)
    }

    /// The hashes of all rows.
    pub fn hashes(&self) -> &[u64] {
        self.hashes.values()
    }

    /// The key groups of all rows.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = KeyGroup> {
        self.hashes().iter().map(|hash| KeyGroup::of(*hash))
    }

    /// The keys of these rows, in this order.
    pub fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let form = Form::like(&compute::take(self.form.array(), rows, None)?)?;
        let hashes = compute::take(&self.hashes, rows, None)?.as_primitive().clone();
        Ok(Self { form, hashes })
    }

    /// The keys of `length` rows from `offset`, without a copy.
    ///
    /// # Panics
    /// Where there are not that many rows.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        let form = match &self.form {
            Form::Text(array) => Form::Text(array.slice(offset, length)),
            Form::View(array) => Form::View(array.slice(offset, length)),
            Form::Integer(array) => Form::Integer(array.slice(offset, length)),
            Form::Packed(array) => Form::Packed(array.slice(offset, length)),
        };
        Self { form, hashes: self.hashes.slice(offset, length) }
    }

    /// The keys of several batches, one after another.
    pub fn concat(parts: &[Self]) -> Result<Self> {
        let hashes: Vec<&dyn Array> = parts.iter().map(|part| &part.hashes as &dyn Array).collect();
        if hashes.is_empty() {
            return Ok(Self::new(Form::Packed(pack(0, |_, _| ())?)));
        }
        let hashes = compute::concat(&hashes)?.as_primitive().clone();
        Ok(Self { form: concat_forms(parts)?, hashes })
    }

    /// Keys as a table gave them, with their hashes.
    pub(super) fn canonical(keys: BinaryArray, hashes: UInt64Array) -> Self {
        Self { form: Form::Packed(keys), hashes }
    }

    pub(super) fn form(&self) -> &Form {
        &self.form
    }

    fn packed(&self) -> Result<BinaryArray> {
        pack(self.len(), |row, out| out.extend_from_slice(self.get(row)))
    }
}

/// Batches of one column may still differ in form: larger integers are packed, and strings come in two layouts.
fn concat_forms(parts: &[Keys]) -> Result<Form> {
    let arrays: Vec<&dyn Array> = parts.iter().map(|part| part.form.array()).collect();
    if arrays.windows(2).all(|pair| matches!(pair, [a, b] if a.data_type() == b.data_type())) {
        return Form::like(&compute::concat(&arrays)?);
    }
    let packed = parts.iter().map(Keys::packed).collect::<Result<Vec<_>>>()?;
    let arrays: Vec<&dyn Array> = packed.iter().map(|array| array as &dyn Array).collect();
    Form::like(&compute::concat(&arrays)?)
}

/// The hash of a key's bytes.
pub(super) fn hash_of(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The bytes of the null key.
pub(super) fn null_key() -> &'static [u8] {
    NULL
}
