//! The canonical bytes of one value: each value of a key column with its tag.
//!
//! The table of tags is in [`key`](crate::state::key). Columns are brought into one type a class first, so that the same
//! value has the same bytes in every width, unit and layout. It deliberately reads nothing back; that is
//! [`values`](crate::state::values).

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Decimal128Array, Decimal256Array, Float64Array,
    Int64Array, LargeListArray, NullArray, StringArray, StringViewArray, StructArray, UInt64Array,
};
use arrow::compute;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal256Type, Field, Float64Type, Int64Type, TimeUnit, UInt64Type,
    i256,
};

use crate::error::{Error, Result};
use crate::state::class::{Class, item, plain};
use crate::time::ticks_a_second;

pub(super) const NULL: &[u8] = &[255];
const MILLIS_PER_DAY: i64 = 86_400_000;

/// One key column in the one type of its class.
pub(super) enum Values {
    Null(NullArray),
    Boolean(BooleanArray),
    Integer(Int64Array),
    Unsigned(UInt64Array),
    Float(Float64Array),
    Decimal(Decimal128Array),
    WideDecimal(Decimal256Array),
    Text(StringArray),
    View(StringViewArray),
    Binary(BinaryViewArray),
    Date(Int64Array),
    /// Nanoseconds since midnight.
    Time(Int64Array),
    Ticks {
        kind: Ticks,
        ticks: Int64Array,
        per_second: i64,
    },
    List(LargeListArray, Box<Values>),
    Struct(StructArray, Vec<Values>),
}

/// What is counted in ticks of a unit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ticks {
    Timestamp = 8,
    Duration = 11,
}

impl Values {
    /// The values of a column whose type has a class.
    pub(super) fn new(array: &ArrayRef) -> Result<Self> {
        let found = plain(array.data_type());
        if found != array.data_type() {
            return Self::new(&compute::cast(array, found)?);
        }
        let no_key = || Error::internal(format!("a key was expected, found {found}"));
        let cast = |to: &DataType| compute::cast(array, to);
        Ok(match Class::of(found).map_err(|_| no_key())? {
            Class::Null => Self::Null(NullArray::new(array.len())),
            Class::Boolean => Self::Boolean(array.as_boolean().clone()),
            Class::Integer => return integers(array),
            Class::Float => Self::Float(cast(&DataType::Float64)?.as_primitive::<Float64Type>().clone()),
            Class::Decimal => return decimals(array),
            Class::Text => return texts(array),
            Class::Binary => Self::Binary(cast(&DataType::BinaryView)?.as_binary_view().clone()),
            Class::Date => Self::Date(days(array)),
            Class::Time => Self::Time(ticks(&cast(&DataType::Time64(TimeUnit::Nanosecond))?)?),
            Class::Timestamp | Class::Duration => return in_ticks(array),
            Class::List(_) => return lists(array),
            Class::Struct(_) => {
                let fields = array.as_struct().columns().iter().map(Self::new).collect::<Result<_>>()?;
                Self::Struct(array.as_struct().clone(), fields)
            }
        })
    }

    /// Appends the value with its tag.
    pub(super) fn append(&self, row: usize, out: &mut Vec<u8>) {
        if self.array().is_null(row) {
            return out.extend(NULL);
        }
        match self {
            Self::Null(_) => out.extend(NULL),
            Self::Integer(array) => tagged(1, &array.value(row).to_le_bytes(), out),
            Self::Unsigned(array) => append_unsigned(array.value(row), out),
            Self::Boolean(array) => tagged(3, &[u8::from(array.value(row))], out),
            Self::Float(array) => tagged(4, &one_form(array.value(row)).to_le_bytes(), out),
            Self::Text(array) => sized(5, array.value(row).as_bytes(), out),
            Self::View(array) => sized(5, array.value(row).as_bytes(), out),
            Self::Binary(array) => sized(6, array.value(row), out),
            Self::Date(array) => tagged(7, &array.value(row).to_le_bytes(), out),
            Self::Decimal(array) => append_decimal(array.value(row), array.scale(), out),
            Self::WideDecimal(array) => append_wide_decimal(array.value(row), array.scale(), out),
            Self::Time(array) => tagged(10, &array.value(row).to_le_bytes(), out),
            Self::Ticks { kind, ticks, per_second } => {
                append_ticks(*kind, ticks.value(row), *per_second, out);
            }
            Self::List(lists, items) => append_list(lists, items, row, out),
            Self::Struct(_, fields) => {
                out.push(13);
                for field in fields {
                    field.append(row, out);
                }
            }
        }
    }

    /// Appends the value as a key of one column: integers without their tag.
    pub(super) fn append_alone(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Unsigned(array) if array.is_valid(row) && i64::try_from(array.value(row)).is_ok() => {
                out.extend(array.value(row).to_le_bytes());
            }
            _ => self.append(row, out),
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Null(array) => array,
            Self::Boolean(array) => array,
            Self::Integer(array) | Self::Date(array) | Self::Time(array) => array,
            Self::Ticks { ticks, .. } => ticks,
            Self::Unsigned(array) => array,
            Self::Float(array) => array,
            Self::Decimal(array) => array,
            Self::WideDecimal(array) => array,
            Self::Text(array) => array,
            Self::View(array) => array,
            Self::Binary(array) => array,
            Self::List(lists, _) => lists,
            Self::Struct(rows, _) => rows,
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

/// Of whatever width, with the scale that the type has.
fn decimals(array: &ArrayRef) -> Result<Values> {
    if let Some(wide) = array.as_primitive_opt::<Decimal256Type>() {
        return Ok(Values::WideDecimal(wide.clone()));
    }
    let (precision, scale) = match array.data_type() {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => (*precision, *scale),
        other => return Err(Error::internal(format!("a decimal was expected as a key, found {other}"))),
    };
    let array = compute::cast(array, &DataType::Decimal128(precision, scale))?;
    Ok(Values::Decimal(array.as_primitive().clone()))
}

fn texts(array: &ArrayRef) -> Result<Values> {
    Ok(match array.as_string_opt::<i32>() {
        Some(texts) => Values::Text(texts.clone()),
        None => Values::View(compute::cast(array, &DataType::Utf8View)?.as_string_view().clone()),
    })
}

fn days(array: &ArrayRef) -> Int64Array {
    match array.as_primitive_opt::<Date64Type>() {
        Some(millis) => millis.unary(|millis| millis.div_euclid(MILLIS_PER_DAY)),
        None => array.as_primitive::<Date32Type>().unary(i64::from),
    }
}

fn ticks(array: &ArrayRef) -> Result<Int64Array> {
    Ok(compute::cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn in_ticks(array: &ArrayRef) -> Result<Values> {
    let (kind, unit) = match array.data_type() {
        DataType::Timestamp(unit, _) => (Ticks::Timestamp, *unit),
        DataType::Duration(unit) => (Ticks::Duration, *unit),
        other => return Err(Error::internal(format!("ticks were expected as a key, found {other}"))),
    };
    Ok(Values::Ticks { kind, ticks: ticks(array)?, per_second: ticks_a_second(unit) })
}

fn lists(array: &ArrayRef) -> Result<Values> {
    let lost = || Error::internal(format!("a list was expected as a key, found {}", array.data_type()));
    let item = item(array.data_type()).ok_or_else(lost)?;
    let nullable = Field::new_list_field(item.data_type().clone(), true);
    let lists = compute::cast(array, &DataType::LargeList(nullable.into()))?;
    let lists = lists.as_list_opt::<i64>().ok_or_else(lost)?.clone();
    let items = Values::new(lists.values())?;
    Ok(Values::List(lists, Box::new(items)))
}

fn tagged(tag: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(payload);
}

fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    tagged(tag, &length(bytes.len()), out);
    out.extend_from_slice(bytes);
}

/// An Arrow value of 4 Gi or more cannot come here: its column would not have been decoded.
fn length(of: usize) -> [u8; 4] {
    u32::try_from(of).unwrap_or(u32::MAX).to_le_bytes()
}

fn append_unsigned(value: u64, out: &mut Vec<u8>) {
    tagged(if i64::try_from(value).is_ok() { 1 } else { 2 }, &value.to_le_bytes(), out);
}

fn append_ticks(kind: Ticks, ticks: i64, per_second: i64, out: &mut Vec<u8>) {
    let nanos = ticks.rem_euclid(per_second) * (1_000_000_000 / per_second);
    tagged(kind as u8, &ticks.div_euclid(per_second).to_le_bytes(), out);
    out.extend(u32::try_from(nanos).unwrap_or_default().to_le_bytes());
}

fn append_list(lists: &LargeListArray, items: &Values, row: usize, out: &mut Vec<u8>) {
    let bound = |at: usize| lists.offsets().get(at).and_then(|at| usize::try_from(*at).ok()).unwrap_or(0);
    let range = bound(row)..bound(row + 1);
    tagged(12, &length(range.len()), out);
    for item in range {
        items.append(item, out);
    }
}

/// 1.50 and 1.5 are one value: what ends in zeros is written without them.
fn append_decimal(unscaled: i128, scale: i8, out: &mut Vec<u8>) {
    let (mut unscaled, mut scale) = (unscaled, i16::from(scale));
    // Nearly all fit, and a division of 128 bits costs several of 64.
    if let Ok(mut short) = i64::try_from(unscaled) {
        while short != 0 && short % 10 == 0 {
            (short, scale) = (short / 10, scale - 1);
        }
        unscaled = i128::from(short);
    }
    while unscaled != 0 && unscaled % 10 == 0 {
        (unscaled, scale) = (unscaled / 10, scale - 1);
    }
    append_stripped(&unscaled.to_le_bytes(), scale, out);
}

fn append_wide_decimal(unscaled: i256, scale: i8, out: &mut Vec<u8>) {
    let ten = i256::from_i128(10);
    let (mut unscaled, mut scale) = (unscaled, i16::from(scale));
    while unscaled != i256::ZERO && unscaled.wrapping_rem(ten) == i256::ZERO {
        (unscaled, scale) = (unscaled.wrapping_div(ten), scale - 1);
    }
    append_stripped(&unscaled.to_le_bytes(), scale, out);
}

/// Zero has one scale, and no number more bytes than it needs with its sign.
fn append_stripped(unscaled: &[u8], scale: i16, out: &mut Vec<u8>) {
    let is_negative = unscaled.last().is_some_and(|top| top & 0x80 != 0);
    let filler = if is_negative { 0xff } else { 0 };
    let mut bytes = unscaled;
    while let [rest @ .., next, top] = bytes
        && *top == filler
        && (next & 0x80 != 0) == is_negative
    {
        bytes = unscaled.get(..=rest.len()).unwrap_or_default();
    }
    let scale = if bytes == [0] { 0 } else { scale };
    tagged(9, &scale.to_le_bytes(), out);
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
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
