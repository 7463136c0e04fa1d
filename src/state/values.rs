//! The columns of a key again, from its canonical bytes.
//!
//! A table keeps bytes only; whoever emits keys asks for their values here. A value comes back in the one form that all
//! equal keys share: −0 as 0, every NaN as the same. It deliberately reads nothing but what
//! [`KeyEncoder`](crate::state::key::KeyEncoder) wrote.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, UInt64Builder,
};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef, TimeUnit};

use crate::error::{Error, Result};
use crate::state::key::{Class, null_key};

/// Makes columns of keys whose columns were these.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, RecordBatch, StringArray};
/// use tidemill::state::key::KeyEncoder;
/// use tidemill::state::values::KeyDecoder;
///
/// let devices: ArrayRef = Arc::new(StringArray::from(vec![Some("pump-1"), None]));
/// let rows = RecordBatch::try_from_iter_with_nullable([("device", devices.clone(), true)])?;
/// let keys = KeyEncoder::new(&rows.schema(), &["device"])?.encode(&rows)?;
/// let decoder = KeyDecoder::new(rows.schema().fields().to_vec());
/// assert_eq!(decoder.decode([keys.get(0), keys.get(1)])?, [devices]);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyDecoder {
    fields: Vec<FieldRef>,
}

impl KeyDecoder {
    /// A decoder of keys that were made of columns of these types, in this order.
    pub fn new(fields: Vec<FieldRef>) -> Self {
        Self { fields }
    }

    /// The columns of these keys, one row a key.
    pub fn decode<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let mut columns = self.fields.iter().map(Column::new).collect::<Result<Vec<_>>>()?;
        let alone = columns.len() == 1;
        for key in keys {
            let mut rest = key;
            for column in &mut columns {
                if alone { column.append_alone(key)? } else { column.append(&mut rest)? }
            }
        }
        columns
            .into_iter()
            .zip(&self.fields)
            .map(|(column, field)| column.finish(field.data_type()))
            .collect()
    }
}

/// A column on its way back, in the one type of its class.
enum Column {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Unsigned(UInt64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Int64Builder),
    Timestamp { ticks: Int64Builder, per_second: i64 },
}

impl Column {
    fn new(field: &FieldRef) -> Result<Self> {
        let lost = || Error::internal(format!("a key of type {} was never made", field.data_type()));
        Ok(match Class::of(field.data_type()).ok_or_else(lost)? {
            Class::Boolean => Self::Boolean(BooleanBuilder::new()),
            Class::Integer if plain(field.data_type()) == &DataType::UInt64 => {
                Self::Unsigned(UInt64Builder::new())
            }
            Class::Integer => Self::Integer(Int64Builder::new()),
            Class::Float => Self::Float(Float64Builder::new()),
            Class::Text => Self::Text(StringBuilder::new()),
            Class::Binary => Self::Binary(BinaryBuilder::new()),
            Class::Date => Self::Date(Int64Builder::new()),
            Class::Timestamp => Self::Timestamp {
                ticks: Int64Builder::new(),
                per_second: per_second(plain(field.data_type())),
            },
        })
    }

    /// Appends a key of one column, of which strings and integers stand without their tag.
    fn append_alone(&mut self, key: &[u8]) -> Result<()> {
        match self {
            Self::Text(text) if key != null_key() => text.append_value(utf8(key)?),
            Self::Integer(values) if key.len() == 8 => values.append_value(integer(key)?),
            Self::Unsigned(values) if key.len() == 8 => values.append_value(integer(key)?.cast_unsigned()),
            _ => {
                let mut rest = key;
                self.append(&mut rest)?;
            }
        }
        Ok(())
    }

    /// Appends the value at the front of `key`, and takes it away there.
    fn append(&mut self, key: &mut &[u8]) -> Result<()> {
        if take(key, 1)? == null_key() {
            self.append_null();
            return Ok(());
        }
        match self {
            Self::Boolean(values) => values.append_value(take(key, 1)? == [1]),
            Self::Integer(values) | Self::Date(values) => values.append_value(integer(take(key, 8)?)?),
            Self::Unsigned(values) => values.append_value(integer(take(key, 8)?)?.cast_unsigned()),
            Self::Float(values) => {
                values.append_value(f64::from_bits(integer(take(key, 8)?)?.cast_unsigned()));
            }
            Self::Text(values) => values.append_value(utf8(sized(key)?)?),
            Self::Binary(values) => values.append_value(sized(key)?),
            Self::Timestamp { ticks, per_second } => {
                let (seconds, nanos) = (integer(take(key, 8)?)?, length(take(key, 4)?)?);
                let below = i64::from(nanos) / (1_000_000_000 / *per_second);
                ticks.append_value(seconds.saturating_mul(*per_second).saturating_add(below));
            }
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::Boolean(values) => values.append_null(),
            Self::Integer(values) | Self::Date(values) | Self::Timestamp { ticks: values, .. } => {
                values.append_null();
            }
            Self::Unsigned(values) => values.append_null(),
            Self::Float(values) => values.append_null(),
            Self::Text(values) => values.append_null(),
            Self::Binary(values) => values.append_null(),
        }
    }

    fn finish(self, data_type: &DataType) -> Result<ArrayRef> {
        let made: ArrayRef = match self {
            Self::Boolean(mut values) => Arc::new(values.finish()),
            Self::Integer(mut values) | Self::Timestamp { ticks: mut values, .. } => {
                Arc::new(values.finish())
            }
            Self::Date(mut values) => return days(&values.finish(), data_type),
            Self::Unsigned(mut values) => Arc::new(values.finish()),
            Self::Float(mut values) => Arc::new(values.finish()),
            Self::Text(mut values) => Arc::new(values.finish()),
            Self::Binary(mut values) => Arc::new(values.finish()),
        };
        if made.data_type() == data_type { Ok(made) } else { Ok(compute::cast(&made, data_type)?) }
    }
}

fn days(days: &arrow::array::Int64Array, data_type: &DataType) -> Result<ArrayRef> {
    let days = compute::cast(days, &DataType::Int32)?;
    Ok(compute::cast(&compute::cast(&days, &DataType::Date32)?, data_type)?)
}

/// The type itself, or that of a dictionary's values.
fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

fn per_second(data_type: &DataType) -> i64 {
    match data_type {
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000_000,
        _ => 1,
    }
}

fn take<'a>(key: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (taken, rest) = key.split_at_checked(count).ok_or_else(cut_short)?;
    *key = rest;
    Ok(taken)
}

fn sized<'a>(key: &mut &'a [u8]) -> Result<&'a [u8]> {
    let count = length(take(key, 4)?)?;
    take(key, count as usize)
}

fn integer(bytes: &[u8]) -> Result<i64> {
    bytes.try_into().map(i64::from_le_bytes).map_err(|_| cut_short())
}

fn length(bytes: &[u8]) -> Result<u32> {
    bytes.try_into().map(u32::from_le_bytes).map_err(|_| cut_short())
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| Error::internal("a text key is not UTF-8").caused_by(error))
}

fn cut_short() -> Error {
    Error::internal("a key ends before its last column")
}
