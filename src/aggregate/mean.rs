//! mean: count and sum, divided when they are read.
//!
//! Integers, decimals, durations and timestamps are summed exactly in 128 bits, so that what is left of large values that
//! cancel each other is right, and their quotient is rounded once. It deliberately corrects no rounding between floats
//! (no Kahan), as [`sum`](super::sum) does not.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, Float64Array, Int64Array, PrimitiveArray};
use arrow::datatypes::{
    ArrowNativeType, DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, Float64Type, Int64Type,
    UInt64Type, i256,
};

use crate::aggregate::column::{bytes_of, check, check_slots, each, gathered, primitive, retyped};
use crate::aggregate::sum::{Term, widened};
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::{Error, Result};
use crate::types::type_name;

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let takes = "one column of numbers (of decimals those of at most 38 digits), durations or timestamps";
    let argument = call.only_argument(takes)?;
    let values = summed_as(argument.data_type()).ok_or_else(|| call.misfit(takes))?;
    let result = if values.is_temporal() { values.clone() } else { DataType::Float64 };
    Ok(Arc::new(Mean { field: call.result(result, true), values }))
}

/// The type that values of a type are brought to before they are summed.
fn summed_as(data_type: &DataType) -> Option<DataType> {
    if matches!(data_type, DataType::Timestamp(..)) { Some(data_type.clone()) } else { widened(data_type) }
}

#[derive(Clone, Debug)]
struct Mean {
    field: Field,
    values: DataType,
}

impl Function for Mean {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        let sum = if self.values.is_floating() { f64::TYPE } else { i128::TYPE };
        vec![Field::new("count", DataType::Int64, false), Field::new("sum", sum, false)]
    }

    fn form(&self) -> Option<&'static str> {
        Some("mean 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(match self.values {
            DataType::Float64 => Box::new(Means::<Float64Type, f64>::new(&self.values)),
            DataType::UInt64 => Box::new(Means::<UInt64Type, i128>::new(&self.values)),
            DataType::Decimal128(..) => Box::new(Means::<Decimal128Type, i128>::new(&self.values)),
            _ => Box::new(Means::<Int64Type, i128>::new(&self.values)),
        })
    }
}

/// What values are summed in.
trait Total: Term + ArrowNativeType {
    /// The column that sums stand in.
    type Column: ArrowPrimitiveType<Native = Self>;

    const TYPE: DataType;

    /// The means of `values` by their counts and sums; that of none is null.
    fn means(rows: impl Iterator<Item = (i64, Self)>, values: &DataType) -> Result<ArrayRef>;
}

impl Total for f64 {
    type Column = Float64Type;

    const TYPE: DataType = DataType::Float64;

    fn means(rows: impl Iterator<Item = (i64, Self)>, _: &DataType) -> Result<ArrayRef> {
        let means = rows.map(|(count, sum)| (count > 0).then(|| sum / count as f64));
        Ok(Arc::new(means.collect::<Float64Array>()))
    }
}

impl Total for i128 {
    type Column = Decimal128Type;

    const TYPE: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

    fn means(rows: impl Iterator<Item = (i64, Self)>, values: &DataType) -> Result<ArrayRef> {
        if values.is_temporal() {
            // Between values of 64 bits there is their mean.
            let mean = |(count, sum): (i64, Self)| i64::try_from(sum.checked_div(count.into())?).ok();
            return retyped(Arc::new(rows.map(mean).collect::<Int64Array>()), values);
        }
        let scale = if let DataType::Decimal128(_, scale) = values { *scale } else { 0 };
        let means = rows.map(|(count, sum)| (count > 0).then(|| mean(sum, count, scale)));
        Ok(Arc::new(means.collect::<Float64Array>()))
    }
}

/// The mean of what is counted in units of 10 to the minus `scale`.
fn mean(sum: i128, count: i64, scale: i8) -> f64 {
    let units = i256::from_i128(10).wrapping_pow(scale.max(0).unsigned_abs().into());
    let mean = quotient(i256::from_i128(sum), units.wrapping_mul(i256::from(count)));
    mean * 10_f64.powi(-i32::from(scale.min(0)))
}

/// The float64 that is nearest to a quotient, where the divisor is positive and of at most 190 bits.
fn quotient(dividend: i256, divisor: i256) -> f64 {
    if let (Some(dividend), Some(divisor)) = (as_float(dividend), as_float(divisor)) {
        return dividend / divisor;
    }
    let bits = |number: i256| 256 - number.leading_zeros().cast_signed();
    let shifted = |number: i256, by: i32| number << u8::try_from(by).unwrap_or(0);
    let size = dividend.wrapping_abs();
    let shift = 64 + bits(divisor) - bits(size);
    let (size, divisor) = (shifted(size, shift), shifted(divisor, -shift));
    // It has 64 bits or 65, of which a float64 keeps 53: the last one may as well say that something follows.
    let follows = size.wrapping_rem(divisor) != i256::ZERO;
    let whole = size.wrapping_div(divisor).as_i128() | i128::from(follows);
    let found = whole as f64 * 2_f64.powi(-shift);
    if dividend.is_negative() { -found } else { found }
}

/// The same number, where a float64 has it.
fn as_float(number: i256) -> Option<f64> {
    let number = number.to_i128()?;
    (number.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS).then_some(number as f64)
}

#[derive(Debug)]
struct Means<V, S> {
    values: DataType,
    counts: Vec<i64>,
    sums: Vec<S>,
    kind: PhantomData<fn() -> V>,
}

impl<V, S: Total> Means<V, S> {
    fn new(values: &DataType) -> Self {
        Self { values: values.clone(), counts: Vec::new(), sums: Vec::new(), kind: PhantomData }
    }

    /// Adds the sum of so many values to those of a slot; says whether it has wrapped round.
    #[inline]
    fn add(&mut self, slot: usize, values: i64, term: S) -> bool {
        let (Some(count), Some(sum)) = (self.counts.get_mut(slot), self.sums.get_mut(slot)) else {
            return false;
        };
        let (total, overflows) = sum.plus(term);
        *count += values;
        *sum = total;
        overflows
    }

    /// Only decimals of nearly 38 digits come so far.
    fn fits(&self, overflows: bool) -> Result<()> {
        if !overflows {
            return Ok(());
        }
        let values = type_name(&self.values);
        Err(Error::data(format!("the sum behind a mean of {values} does not fit into 128 bits"))
            .help("cast the column to float64 before its mean is taken"))
    }
}

impl<V, S> Accumulator for Means<V, S>
where
    V: ArrowPrimitiveType<Native: Into<S>> + fmt::Debug,
    S: Total,
{
    fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.sums.len());
        self.counts.resize(slots, 0);
        self.sums.resize(slots, S::NOTHING);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.sums.len())?;
        let values = primitive::<V>(arguments, 0, &self.values)?;
        let mut overflows = false;
        each(slots, &values, |slot, value| overflows |= self.add(slot, 1, value.into()));
        self.fits(overflows)
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.sums.len())?;
        let counts = primitive::<Int64Type>(state, 0, &DataType::Int64)?;
        let sums = primitive::<S::Column>(state, 1, &S::TYPE)?;
        let mut overflows = false;
        for ((slot, count), sum) in slots.iter().zip(counts.values()).zip(sums.values()) {
            overflows |= self.add(*slot as usize, *count, *sum);
        }
        self.fits(overflows)
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        check_slots(slots, self.sums.len())?;
        let sums = PrimitiveArray::<S::Column>::new(gathered(&self.sums, slots).into(), None);
        Ok(vec![
            Arc::new(Int64Array::from(gathered(&self.counts, slots))),
            retyped(Arc::new(sums), &S::TYPE)?,
        ])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.sums.len())?;
        let counts = gathered(&self.counts, slots).into_iter();
        S::means(counts.zip(gathered(&self.sums, slots)), &self.values)
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.counts) + bytes_of(&self.sums)
    }
}
