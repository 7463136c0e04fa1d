//! min and max: the smallest and the largest value that is not null.
//!
//! Of equal values it deliberately matters not which one came first: they are alike to the last bit, and so is NaN.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, PrimitiveArray, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field};

use crate::aggregate::cells::{Cells, cells};
use crate::aggregate::column::{
    ORDERED, Ordered, argument, bytes_of, check, check_slots, each, gathered, is_ordered, physical,
    primitive, retyped, validity,
};
use crate::aggregate::log::{NOWHERE, Numbering};
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::Result;

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let takes = format!("one column of {ORDERED}");
    let data_type = call.only_argument(&takes)?.data_type();
    if !is_ordered(data_type) {
        return Err(call.misfit(&takes));
    }
    let wanted = if call.name == "min" { Ordering::Less } else { Ordering::Greater };
    Ok(Arc::new(Extremum { field: call.result(data_type.clone(), true), wanted }))
}

#[derive(Debug)]
struct Extremum {
    field: Field,
    /// How a value compares with the one that it replaces.
    wanted: Ordering,
}

impl Function for Extremum {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![self.field.clone()]
    }

    fn form(&self) -> Option<&'static str> {
        Some("extremum 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        let data_type = self.field.data_type();
        let fixed = physical!(data_type, T => match self.wanted {
            Ordering::Less => Of::boxed(Fixed::<T, false>::new(data_type.clone())),
            _ => Of::boxed(Fixed::<T, true>::new(data_type.clone())),
        });
        Ok(fixed.unwrap_or_else(|| Of::boxed(Any::new(data_type.clone(), self.wanted))))
    }
}

/// The extreme of each slot. It is its own state: rows, states and results are all values.
trait Extremes: fmt::Debug + Send {
    fn grow(&mut self, slots: usize);

    /// Takes values in, whether they are rows or extremes themselves.
    fn take(&mut self, slots: &[u32], columns: &[ArrayRef]) -> Result<()>;

    fn get(&self, slots: &[u32]) -> Result<ArrayRef>;

    fn bytes(&self) -> usize;
}

/// Extremes as an accumulator.
#[derive(Debug)]
struct Of<E>(E);

impl<E: Extremes + 'static> Of<E> {
    fn boxed(extremes: E) -> Box<dyn Accumulator> {
        Box::new(Self(extremes))
    }
}

impl<E: Extremes> Accumulator for Of<E> {
    fn grow(&mut self, slots: usize) {
        self.0.grow(slots);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        self.0.take(slots, arguments)
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.0.take(slots, state)
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.0.get(slots)?])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        self.0.get(slots)
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// The extremes of values of a fixed width.
#[derive(Debug)]
struct Fixed<T: ArrowPrimitiveType, const LARGEST: bool> {
    data_type: DataType,
    /// Where there was no value, the one that every other replaces.
    extremes: Vec<T::Native>,
    is_set: Vec<bool>,
}

impl<T: ArrowPrimitiveType<Native: Ordered>, const LARGEST: bool> Fixed<T, LARGEST> {
    fn new(data_type: DataType) -> Self {
        Self { data_type, extremes: Vec::new(), is_set: Vec::new() }
    }
}

impl<T: ArrowPrimitiveType<Native: Ordered> + fmt::Debug, const LARGEST: bool> Extremes
    for Fixed<T, LARGEST>
{
    fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.extremes.len());
        let farthest = if LARGEST { T::Native::MIN_TOTAL_ORDER } else { T::Native::MAX_TOTAL_ORDER };
        self.extremes.resize(slots, farthest);
        self.is_set.resize(slots, false);
    }

    fn take(&mut self, slots: &[u32], columns: &[ArrayRef]) -> Result<()> {
        check(slots, columns, self.extremes.len())?;
        let values = primitive::<T>(columns, 0, &self.data_type)?;
        each(slots, &values, |slot, value| {
            let value = value.canonical();
            if let (Some(extreme), Some(is_set)) = (self.extremes.get_mut(slot), self.is_set.get_mut(slot)) {
                let better = if LARGEST { value.is_gt(*extreme) } else { value.is_lt(*extreme) };
                *extreme = if better { value } else { *extreme };
                *is_set = true;
            }
        });
        Ok(())
    }

    fn get(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.extremes.len())?;
        let extremes = gathered(&self.extremes, slots);
        let extremes = PrimitiveArray::<T>::new(extremes.into(), Some(validity(&self.is_set, slots)));
        retyped(Arc::new(extremes), &self.data_type)
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.extremes) + bytes_of(&self.is_set)
    }
}

/// The extremes of values of any type that Arrow can compare.
#[derive(Debug)]
struct Any {
    data_type: DataType,
    wanted: Ordering,
    slots: usize,
    numbering: Numbering,
    extremes: Box<dyn Cells>,
}

impl Any {
    fn new(data_type: DataType, wanted: Ordering) -> Self {
        let extremes = cells(&data_type);
        Self { data_type, wanted, slots: 0, numbering: Numbering::default(), extremes }
    }

    /// For each number the row that is best among these.
    fn best(&self, numbers: &[u32], count: usize, values: &ArrayRef) -> Result<Vec<u32>> {
        let compare = make_comparator(values, values, SortOptions::default())?;
        let mut best = vec![NOWHERE; count];
        for (number, row) in numbers.iter().zip(0_u32..) {
            if let Some(best) = best.get_mut(*number as usize)
                && values.is_valid(row as usize)
                && (*best == NOWHERE || compare(row as usize, *best as usize) == self.wanted)
            {
                *best = row;
            }
        }
        Ok(best)
    }
}

impl Extremes for Any {
    fn grow(&mut self, slots: usize) {
        self.slots = slots.max(self.slots);
        self.numbering.grow(slots);
        self.extremes.grow(slots);
    }

    fn take(&mut self, slots: &[u32], columns: &[ArrayRef]) -> Result<()> {
        check(slots, columns, self.slots)?;
        let values = argument(columns, 0, &self.data_type)?;
        let numbered = self.numbering.number(slots);
        let best = self.best(&numbered.numbers, numbered.slots.len(), &values)?;
        let held = self.extremes.get(&numbered.slots)?;
        let against = make_comparator(&values, &held, SortOptions::default())?;
        let better = |(number, row): &(usize, u32)| {
            *row != NOWHERE && (held.is_null(*number) || against(*row as usize, *number) == self.wanted)
        };
        let winners = best.into_iter().enumerate().filter(better);
        let winners = winners.filter_map(|(number, row)| Some((*numbered.slots.get(number)?, row)));
        let (slots, rows): (Vec<u32>, Vec<u32>) = winners.unzip();
        self.extremes.put(&slots, &values, &rows)
    }

    fn get(&self, slots: &[u32]) -> Result<ArrayRef> {
        self.extremes.get(slots)
    }

    fn bytes(&self) -> usize {
        self.numbering.bytes() + self.extremes.bytes()
    }
}
