//! The columns of a key again, from its canonical bytes.
//!
//! A table keeps bytes only; whoever emits keys asks for their values here. A value comes back in the one form that all
//! equal keys share: −0 as 0, every NaN as the same. It deliberately reads nothing but what
//! [`KeyEncoder`](crate::state::key::KeyEncoder) wrote.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Array, Decimal256Array, Float64Builder, Int64Builder,
    LargeListArray, NullArray, StringBuilder, StructArray, UInt64Builder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit, i256};

use crate::error::{Error, Result};
use crate::state::canonical::NULL;
use crate::state::class::{Class, item, plain};
use crate::time::ticks_a_second;

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
    Null(usize),
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Unsigned(UInt64Builder),
    Float(Float64Builder),
    /// Unscaled numbers in the scale of the type.
    Decimal {
        values: Vec<Option<i256>>,
        scale: i8,
    },
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Int64Builder),
    Time(Int64Builder),
    Ticks {
        ticks: Int64Builder,
        per_second: i64,
    },
    List {
        lengths: Vec<usize>,
        items: Box<Column>,
        is_set: Vec<bool>,
    },
    Struct {
        fields: Vec<Column>,
        is_set: Vec<bool>,
    },
}

impl Column {
    fn new(field: &FieldRef) -> Result<Self> {
        let found = plain(field.data_type());
        let lost = || Error::internal(format!("a key of type {found} was never made"));
        Ok(match Class::of(found).map_err(|_| lost())? {
            Class::Null => Self::Null(0),
            Class::Boolean => Self::Boolean(BooleanBuilder::new()),
            Class::Integer if found == &DataType::UInt64 => Self::Unsigned(UInt64Builder::new()),
            Class::Integer => Self::Integer(Int64Builder::new()),
            Class::Float => Self::Float(Float64Builder::new()),
            Class::Decimal => Self::Decimal { values: Vec::new(), scale: scale(found).ok_or_else(lost)? },
            Class::Text => Self::Text(StringBuilder::new()),
            Class::Binary => Self::Binary(BinaryBuilder::new()),
            Class::Date => Self::Date(Int64Builder::new()),
            Class::Time => Self::Time(Int64Builder::new()),
            Class::Timestamp | Class::Duration => {
                let per_second = ticks_a_second(unit(found).ok_or_else(lost)?);
                Self::Ticks { ticks: Int64Builder::new(), per_second }
            }
            Class::List(_) => {
                let items = Box::new(Self::new(item(found).ok_or_else(lost)?)?);
                Self::List { lengths: Vec::new(), items, is_set: Vec::new() }
            }
            Class::Struct(_) => {
                let fields = fields(found)?.iter().map(Self::new).collect::<Result<_>>()?;
                Self::Struct { fields, is_set: Vec::new() }
            }
        })
    }

    /// Appends a key of one column, of which strings and integers stand without their tag.
    fn append_alone(&mut self, key: &[u8]) -> Result<()> {
        match self {
            Self::Text(text) if key != NULL => text.append_value(utf8(key)?),
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
        if take(key, 1)? == NULL {
            self.append_null();
            return Ok(());
        }
        match self {
            Self::Null(_) => return Err(Error::internal("a key of no type has a value")),
            Self::Boolean(values) => values.append_value(take(key, 1)? == [1]),
            Self::Integer(values) | Self::Date(values) | Self::Time(values) => {
                values.append_value(integer(take(key, 8)?)?);
            }
            Self::Unsigned(values) => values.append_value(integer(take(key, 8)?)?.cast_unsigned()),
            Self::Float(values) => {
                values.append_value(f64::from_bits(integer(take(key, 8)?)?.cast_unsigned()));
            }
            Self::Decimal { values, scale } => values.push(Some(decimal(key, *scale)?)),
            Self::Text(values) => values.append_value(utf8(sized(key)?)?),
            Self::Binary(values) => values.append_value(sized(key)?),
            Self::Ticks { ticks, per_second } => {
                let (seconds, nanos) = (integer(take(key, 8)?)?, length(take(key, 4)?)?);
                let below = i64::from(nanos) / (1_000_000_000 / *per_second);
                ticks.append_value(seconds.saturating_mul(*per_second).saturating_add(below));
            }
            Self::List { lengths, items, is_set } => {
                let length = length(take(key, 4)?)?;
                (0..length).try_for_each(|_| items.append(key))?;
                lengths.push(length as usize);
                is_set.push(true);
            }
            Self::Struct { fields, is_set } => {
                fields.iter_mut().try_for_each(|field| field.append(key))?;
                is_set.push(true);
            }
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::Null(rows) => *rows += 1,
            Self::Boolean(values) => values.append_null(),
            Self::Integer(values)
            | Self::Date(values)
            | Self::Time(values)
            | Self::Ticks { ticks: values, .. } => values.append_null(),
            Self::Unsigned(values) => values.append_null(),
            Self::Float(values) => values.append_null(),
            Self::Decimal { values, .. } => values.push(None),
            Self::Text(values) => values.append_null(),
            Self::Binary(values) => values.append_null(),
            Self::List { lengths, is_set, .. } => {
                lengths.push(0);
                is_set.push(false);
            }
            Self::Struct { fields, is_set } => {
                fields.iter_mut().for_each(Self::append_null);
                is_set.push(false);
            }
        }
    }

    fn finish(self, data_type: &DataType) -> Result<ArrayRef> {
        let found = plain(data_type);
        let made: ArrayRef = match self {
            Self::Null(rows) => Arc::new(NullArray::new(rows)),
            Self::Boolean(mut values) => Arc::new(values.finish()),
            Self::Integer(mut values) | Self::Ticks { ticks: mut values, .. } => Arc::new(values.finish()),
            Self::Date(mut values) => {
                let days = compute::cast(&values.finish(), &DataType::Int32)?;
                compute::cast(&days, &DataType::Date32)?
            }
            Self::Time(mut values) => {
                compute::cast(&values.finish(), &DataType::Time64(TimeUnit::Nanosecond))?
            }
            Self::Unsigned(mut values) => Arc::new(values.finish()),
            Self::Float(mut values) => Arc::new(values.finish()),
            Self::Decimal { values, .. } => decimals(values, found)?,
            Self::Text(mut values) => Arc::new(values.finish()),
            Self::Binary(mut values) => Arc::new(values.finish()),
            Self::List { lengths, items, is_set } => lists(lengths, *items, is_set, found)?,
            Self::Struct { fields: columns, is_set } => structs(columns, is_set, fields(found)?)?,
        };
        if made.data_type() == data_type { Ok(made) } else { Ok(compute::cast(&made, data_type)?) }
    }
}

/// Decimals of 256 bits, or of as many as the type has.
fn decimals(values: Vec<Option<i256>>, data_type: &DataType) -> Result<ArrayRef> {
    let short = || values.iter().map(|value| value.and_then(i256::to_i128));
    Ok(match data_type {
        DataType::Decimal256(precision, scale) => {
            let made: Decimal256Array = values.into_iter().collect();
            Arc::new(made.with_precision_and_scale(*precision, *scale)?)
        }
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => {
            let made: Decimal128Array = short().collect();
            Arc::new(made.with_precision_and_scale(*precision, *scale)?)
        }
        other => return Err(Error::internal(format!("a decimal was made as a key of type {other}"))),
    })
}

fn lists(lengths: Vec<usize>, items: Column, is_set: Vec<bool>, data_type: &DataType) -> Result<ArrayRef> {
    let lost = || Error::internal(format!("a list was made as a key of type {data_type}"));
    let item = item(data_type).ok_or_else(lost)?;
    let (offsets, nulls) = (OffsetBuffer::from_lengths(lengths), NullBuffer::from(is_set));
    let items = items.finish(item.data_type())?;
    Ok(Arc::new(LargeListArray::try_new(Arc::clone(item), offsets, items, Some(nulls))?))
}

fn structs(columns: Vec<Column>, is_set: Vec<bool>, fields: &Fields) -> Result<ArrayRef> {
    let rows = is_set.len();
    let columns = columns.into_iter().zip(fields).map(|(column, field)| column.finish(field.data_type()));
    let (columns, nulls) = (columns.collect::<Result<_>>()?, Some(NullBuffer::from(is_set)));
    Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, rows)?))
}

fn scale(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        _ => None,
    }
}

fn unit(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, _) | DataType::Duration(unit) => Some(*unit),
        _ => None,
    }
}

fn fields(data_type: &DataType) -> Result<&Fields> {
    match data_type {
        DataType::Struct(fields) => Ok(fields),
        other => Err(Error::internal(format!("a struct was made as a key of type {other}"))),
    }
}

/// The number at the front of `key`, unscaled as a type with this scale has it.
fn decimal(key: &mut &[u8], scale: i8) -> Result<i256> {
    let beyond = || Error::internal("a decimal key does not fit its type");
    let written = take(key, 2)?.try_into().map(i16::from_le_bytes).map_err(|_| cut_short())?;
    let count = take(key, 1)?.first().copied().map_or(0, usize::from);
    let bytes = take(key, count)?;
    let is_negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
    let mut whole = [if is_negative { 0xff } else { 0 }; 32];
    whole.get_mut(..count).ok_or_else(beyond)?.copy_from_slice(bytes);
    let unscaled = i256::from_le_bytes(whole);
    if unscaled == i256::ZERO {
        return Ok(unscaled);
    }
    let zeros = u32::try_from(i16::from(scale) - written).map_err(|_| beyond())?;
    let power = i256::from_i128(10).checked_pow(zeros).ok_or_else(beyond)?;
    unscaled.checked_mul(power).ok_or_else(beyond)
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
