//! Canonical bytes and the stable hash of each row's key.
//!
//! The same key has the same bytes and the same hash in every version, on every machine and in every width of its
//! columns' types: state is found again by them, and a checkpoint's key groups are made from them. This file
//! deliberately stores no keys; that is the [`KeyTable`](crate::state::table::KeyTable).
//!
//! # The encoding, version 1
//!
//! Any type can be a key but those of which it is open when two values are equal: maps, intervals and unions. A
//! dictionary, or runs, are as the values that they stand for.
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
//! | decimal | 9 | scale in 2 bytes, length in 1, then the unscaled number: two's complement, little-endian, no byte more than it needs, without zeros at its end |
//! | time of day | 10 | nanoseconds since midnight, 8 bytes, little-endian, of whatever unit |
//! | duration | 11 | as a timestamp |
//! | list | 12 | how many values in 4 bytes, little-endian, then each with its tag |
//! | struct | 13 | the fields' values, each with its tag |
//! | null | 255 | none |
//!
//! A key of **one** column leaves out the tag (and the length) of a string and of an integer that fits 64 bits: its
//! bytes are then those that stand in the column already, and nothing is copied. That stays unambiguous, since 255
//! is never a UTF-8 byte and neither a null nor a larger integer has 8 bytes.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, StringViewArray,
    UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Schema};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result, nearest};
use crate::state::canonical::{NULL, Values};
use crate::state::class::{Class, Unfit};
use crate::state::group::KeyGroup;
use crate::types::type_name;

/// The version of the encoding, written into every snapshot.
pub const ENCODING_VERSION: u32 = 1;

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

    /// The columns and what is alike in them, as `device text, site integer`: keys of the same text have the same bytes.
    ///
    /// ```
    /// use arrow::datatypes::{DataType, Field, Schema};
    /// use tidemill::state::key::KeyEncoder;
    /// let fields = [("device", DataType::Utf8View), ("site", DataType::Int16)];
    /// let schema = Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec());
    /// assert_eq!(KeyEncoder::new(&schema, &["device", "site"])?.text(), "device text, site integer");
    /// # Ok::<(), tidemill::error::Error>(())
    /// ```
    pub fn text(&self) -> String {
        let column = |column: &KeyColumn| format!("{} {}", column.name, column.class);
        self.columns.iter().map(column).collect::<Vec<_>>().join(", ")
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
    let class = Class::of(field.data_type()).map_err(|Unfit { why, help }| {
        let data_type = type_name(field.data_type());
        Error::schema(format!("the column \"{name}\" of type {data_type} cannot be a key: {why}")).help(help)
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
        match Class::of(array.data_type()) {
            Ok(found) if found == self.class => Values::new(array),
            _ => Err(Error::schema(format!(
                "key column \"{}\" was expected as {:?}, found {}",
                self.name,
                self.class,
                type_name(array.data_type())
            ))),
        }
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
