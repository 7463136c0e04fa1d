//! sum: of integers exact and never wrapped round, of floats in the order in which rows and partials come.
//!
//! It deliberately corrects no rounding (no Kahan): the caller fixes the order, and so the bits.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType, Field, Float64Type, Int64Type,
    UInt64Type,
};

use crate::aggregate::column::{bytes_of, check, check_slots, each, gathered, primitive, retyped, validity};
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::{Error, Result};
use crate::types::type_name;

/// How many digits more a sum of decimals may have than its terms, as in DataFusion.
const MORE_DIGITS: u8 = 10;

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let takes = "one column of numbers (of decimals those of at most 38 digits) or durations";
    let argument = call.only_argument(takes)?;
    let data_type = sum_type(argument.data_type()).ok_or_else(|| call.misfit(takes))?;
    Ok(Arc::new(Sum(call.result(data_type, true))))
}

/// The type of the sum of values of a type.
fn sum_type(data_type: &DataType) -> Option<DataType> {
    Some(match widened(data_type)? {
        DataType::Decimal128(precision, scale) => {
            DataType::Decimal128((precision + MORE_DIGITS).min(DECIMAL128_MAX_PRECISION), scale)
        }
        other => other,
    })
}

/// The widest type of a kind of numbers, or durations as they are; none of what has no sum.
pub(super) fn widened(data_type: &DataType) -> Option<DataType> {
    match data_type {
        number if number.is_signed_integer() => Some(DataType::Int64),
        number if number.is_unsigned_integer() => Some(DataType::UInt64),
        number if number.is_floating() => Some(DataType::Float64),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => Some(DataType::Decimal128(*precision, *scale)),
        DataType::Duration(_) => Some(data_type.clone()),
        _ => None,
    }
}

#[derive(Debug)]
struct Sum(Field);

impl Function for Sum {
    fn field(&self) -> Field {
        self.0.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("sum", summed_in(self.0.data_type()), true)]
    }

    fn form(&self) -> Option<&'static str> {
        Some("sum 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        let data_type = self.0.data_type().clone();
        Ok(match data_type {
            DataType::UInt64 => Box::new(Sums::<UInt64Type, Decimal128Type>::new(data_type)),
            DataType::Float64 => Box::new(Sums::<Float64Type, Float64Type>::new(data_type)),
            DataType::Decimal128(..) => Box::new(Sums::<Decimal128Type, Decimal128Type>::new(data_type)),
            _ => Box::new(Sums::<Int64Type, Decimal128Type>::new(data_type)),
        })
    }
}

/// The type in which a sum of this type is held: integers so wide that what is on the way to a sum which fits never
/// fails it, in whatever order its terms come.
fn summed_in(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Float64 | DataType::Decimal128(..) => data_type.clone(),
        _ => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
    }
}

/// A number that sums are made of.
pub(super) trait Term: Copy + fmt::Debug + Send {
    /// What changes no sum.
    const NOTHING: Self;

    /// The sum, and whether it has wrapped round.
    fn plus(self, other: Self) -> (Self, bool);
}

impl Term for i128 {
    const NOTHING: Self = 0;

    #[inline]
    fn plus(self, other: Self) -> (Self, bool) {
        self.overflowing_add(other)
    }
}

impl Term for f64 {
    /// Added to it, -0.0 stays -0.0.
    const NOTHING: Self = -0.0;

    #[inline]
    fn plus(self, other: Self) -> (Self, bool) {
        (self + other, false)
    }
}

/// Sums of values of type `V`, held as type `T`.
#[derive(Debug)]
struct Sums<V, T: ArrowPrimitiveType> {
    data_type: DataType,
    totals: Vec<T::Native>,
    /// Whether there was any term; a sum of nothing is null.
    is_set: Vec<bool>,
    values: PhantomData<fn() -> V>,
}

impl<V, T: ArrowPrimitiveType<Native: Term>> Sums<V, T> {
    fn new(data_type: DataType) -> Self {
        Self { data_type, totals: Vec::new(), is_set: Vec::new(), values: PhantomData }
    }

    fn add<A: ArrowPrimitiveType<Native: Into<T::Native>>>(
        &mut self,
        slots: &[u32],
        terms: &PrimitiveArray<A>,
    ) -> Result<()> {
        let mut overflows = false;
        each(slots, terms, |slot, term| {
            if let (Some(sum), Some(is_set)) = (self.totals.get_mut(slot), self.is_set.get_mut(slot)) {
                let (total, overflow) = sum.plus(term.into());
                *sum = total;
                *is_set = true;
                overflows |= overflow;
            }
        });
        if overflows { Err(overflow(&self.data_type)) } else { Ok(()) }
    }
}

fn overflow(data_type: &DataType) -> Error {
    Error::data(format!("a sum does not fit into {}", type_name(data_type)))
        .help("cast the column to float64, or integers to decimal(38, 0), before it is summed")
}

impl<V, T> Accumulator for Sums<V, T>
where
    V: ArrowPrimitiveType<Native: Into<T::Native>> + fmt::Debug,
    T: ArrowPrimitiveType<Native: Term> + fmt::Debug,
{
    fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.totals.len());
        self.totals.resize(slots, T::Native::NOTHING);
        self.is_set.resize(slots, false);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.totals.len())?;
        self.add(slots, &primitive::<V>(arguments, 0, &self.data_type)?)
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.totals.len())?;
        self.add(slots, &primitive::<T>(state, 0, &summed_in(&self.data_type))?)
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        check_slots(slots, self.totals.len())?;
        let sums = gathered(&self.totals, slots);
        let sums = PrimitiveArray::<T>::new(sums.into(), Some(validity(&self.is_set, slots)));
        Ok(vec![retyped(Arc::new(sums), &summed_in(&self.data_type))?])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        fitted(&self.state(slots)?.swap_remove(0), &self.data_type)
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.totals) + bytes_of(&self.is_set)
    }
}

/// Sums as the type in which they are given; an error where one does not fit.
fn fitted(sums: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let Some(wide) = sums.as_primitive_opt::<Decimal128Type>() else { return Ok(Arc::clone(sums)) };
    let too_large = |_| overflow(data_type);
    match data_type {
        DataType::Decimal128(precision, scale) => {
            let check = |sum| Decimal128Type::validate_decimal_precision(sum, *precision, *scale);
            wide.iter().flatten().try_for_each(check).map_err(|_| overflow(data_type))?;
            Ok(Arc::clone(sums))
        }
        DataType::UInt64 => {
            Ok(Arc::new(wide.try_unary::<_, UInt64Type, _>(u64::try_from).map_err(too_large)?))
        }
        _ => {
            let narrow = wide.try_unary::<_, Int64Type, _>(i64::try_from).map_err(too_large)?;
            retyped(Arc::new(narrow), data_type)
        }
    }
}
