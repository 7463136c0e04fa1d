//! What the columns of state share: walking over rows, reading slots out, and types that are alike in memory.
//!
//! It deliberately holds no state itself.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, PrimitiveArray, make_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type};

use crate::error::{Error, Result};

/// The field with the type that values have once they are neither dictionary ids nor views.
pub(super) fn plain(field: &Field) -> Field {
    field.clone().with_data_type(plain_type(field.data_type()))
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// The column of an argument or of a state, in the type that is expected.
pub(super) fn argument(columns: &[ArrayRef], index: usize, expected: &DataType) -> Result<ArrayRef> {
    let found = columns.get(index).ok_or_else(|| {
        Error::internal(format!("an aggregate needs column {index}, found {} columns", columns.len()))
    })?;
    if found.data_type() == expected {
        return Ok(Arc::clone(found));
    }
    Ok(cast(found, expected)?)
}

/// The column of an argument or of a state as primitives of type `T`; another unit of time is taken by its ticks.
pub(super) fn primitive<T: ArrowPrimitiveType>(
    columns: &[ArrayRef],
    index: usize,
    expected: &DataType,
) -> Result<PrimitiveArray<T>> {
    let found = argument(columns, index, expected)?;
    if let Some(found) = found.as_primitive_opt::<T>() {
        return Ok(found.clone());
    }
    let data = found.to_data().into_builder().data_type(T::DATA_TYPE).build()?;
    Ok(PrimitiveArray::from(data))
}

/// The same values under a type that is alike in memory.
pub(super) fn retyped(array: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type {
        return Ok(array);
    }
    Ok(make_array(array.to_data().into_builder().data_type(data_type.clone()).build()?))
}

/// Refuses rows of which there are not as many as slots, and slots that were never made; what follows may rely on it.
pub(super) fn check(slots: &[u32], columns: &[ArrayRef], made: usize) -> Result<()> {
    if let Some(column) = columns.iter().find(|column| column.len() != slots.len()) {
        let (rows, slots) = (column.len(), slots.len());
        return Err(Error::internal(format!("an aggregate got {rows} rows for {slots} slots")));
    }
    check_slots(slots, made)
}

/// Refuses slots that were never made.
pub(super) fn check_slots(slots: &[u32], made: usize) -> Result<()> {
    match slots.iter().max() {
        Some(largest) if *largest as usize >= made => {
            Err(Error::internal(format!("an aggregate has {made} slots, found slot {largest}")))
        }
        _ => Ok(()),
    }
}

/// Gives each value that is not null to `take`, with its slot, from the first row to the last.
pub(super) fn each<T: ArrowPrimitiveType>(
    slots: &[u32],
    array: &PrimitiveArray<T>,
    mut take: impl FnMut(usize, T::Native),
) {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            for (slot, value) in slots.iter().zip(array.values()) {
                take(*slot as usize, *value);
            }
        }
        Some(nulls) => {
            for row in nulls.valid_indices() {
                if let (Some(slot), Some(value)) = (slots.get(row), array.values().get(row)) {
                    take(*slot as usize, *value);
                }
            }
        }
    }
}

/// The values of these slots.
pub(super) fn gathered<T: Copy>(values: &[T], slots: &[u32]) -> Vec<T> {
    slots.iter().filter_map(|slot| values.get(*slot as usize)).copied().collect()
}

/// Which of these slots are not null.
pub(super) fn validity(is_set: &[bool], slots: &[u32]) -> NullBuffer {
    let bits = slots.iter().map(|slot| is_set.get(*slot as usize).copied().unwrap_or_default());
    NullBuffer::new(bits.collect::<BooleanBuffer>())
}

/// The bytes that a vector occupies.
pub(super) fn bytes_of<T>(values: &Vec<T>) -> usize {
    values.capacity() * size_of::<T>()
}

/// The bytes that a small vector or box takes of the heap: an allocator rounds up and keeps its own note beside, which
/// counts where there is one a slot.
pub(super) fn allocated(bytes: usize) -> usize {
    const STEP: usize = 16;
    const NOTE: usize = 8;
    if bytes == 0 { 0 } else { (bytes + NOTE).next_multiple_of(STEP).max(2 * STEP) }
}

/// Runs `$body` with `$kind` as the Arrow type that holds values of `$data_type`, if it is one of a fixed width.
macro_rules! physical {
    ($data_type:expr, $kind:ident => $body:expr) => {{
        use arrow::datatypes as a;
        use arrow::datatypes::DataType as D;
        match $data_type {
            D::Int8 => Some({
                type $kind = a::Int8Type;
                $body
            }),
            D::Int16 => Some({
                type $kind = a::Int16Type;
                $body
            }),
            D::Int32 | D::Date32 | D::Time32(_) => Some({
                type $kind = a::Int32Type;
                $body
            }),
            D::Int64 | D::Date64 | D::Time64(_) | D::Timestamp(..) | D::Duration(_) => Some({
                type $kind = a::Int64Type;
                $body
            }),
            D::UInt8 => Some({
                type $kind = a::UInt8Type;
                $body
            }),
            D::UInt16 => Some({
                type $kind = a::UInt16Type;
                $body
            }),
            D::UInt32 => Some({
                type $kind = a::UInt32Type;
                $body
            }),
            D::UInt64 => Some({
                type $kind = a::UInt64Type;
                $body
            }),
            D::Float16 => Some({
                type $kind = a::Float16Type;
                $body
            }),
            D::Float32 => Some({
                type $kind = a::Float32Type;
                $body
            }),
            D::Float64 => Some({
                type $kind = a::Float64Type;
                $body
            }),
            D::Decimal128(..) => Some({
                type $kind = a::Decimal128Type;
                $body
            }),
            _ => None,
        }
    }};
}
pub(super) use physical;

/// Whether values of a type have an order that people agree on.
pub(super) fn is_ordered(data_type: &DataType) -> bool {
    let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8);
    let is_bytes =
        matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_));
    let is_interval = matches!(data_type, DataType::Interval(_));
    data_type.is_numeric()
        || (data_type.is_temporal() && !is_interval)
        || is_text
        || is_bytes
        || matches!(data_type, DataType::Boolean)
}

/// What [`is_ordered`] admits, in words.
pub(super) const ORDERED: &str = "numbers, times, strings, bytes or bools";

/// A number with one NaN, which is larger than all others, so that the order of arrival never decides.
pub(super) trait Ordered: ArrowNativeTypeOp {
    fn canonical(self) -> Self {
        self
    }
}

macro_rules! ordered {
    (integers: $($integer:ty),*; floats: $($float:ty),*) => {
        $(impl Ordered for $integer {})*
        $(impl Ordered for $float {
            #[inline]
            fn canonical(self) -> Self {
                if self.is_nan() { <$float>::NAN } else { self }
            }
        })*
    };
}

ordered!(integers: i8, i16, i32, i64, u8, u16, u32, u64, i128; floats: half::f16, f32, f64);

/// The values with one NaN.
pub(super) fn canonical(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float16 => {
            Arc::new(values.as_primitive::<Float16Type>().unary::<_, Float16Type>(Ordered::canonical))
        }
        DataType::Float32 => {
            Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(Ordered::canonical))
        }
        DataType::Float64 => {
            Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(Ordered::canonical))
        }
        _ => Arc::clone(values),
    }
}
