//! mean: count and sum, divided when they are read.
//!
//! It deliberately computes in float64 whatever the type: an average of integers is no integer.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};

use crate::aggregate::column::{bytes_of, check, check_slots, each, gathered, primitive};
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::Result;

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let takes = "one column of numbers";
    let argument = call.only_argument(takes)?;
    if !argument.data_type().is_numeric() {
        return Err(call.misfit(takes));
    }
    Ok(Arc::new(Mean(call.result(DataType::Float64, true))))
}

#[derive(Debug)]
struct Mean(Field);

impl Function for Mean {
    fn field(&self) -> Field {
        self.0.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("count", DataType::Int64, false), Field::new("sum", DataType::Float64, false)]
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Means::default()))
    }
}

#[derive(Debug, Default)]
struct Means {
    counts: Vec<i64>,
    sums: Vec<f64>,
}

impl Accumulator for Means {
    fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.sums.len());
        self.counts.resize(slots, 0);
        self.sums.resize(slots, 0.0);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.sums.len())?;
        let values = primitive::<Float64Type>(arguments, 0, &DataType::Float64)?;
        each(slots, &values, |slot, value| {
            if let (Some(count), Some(sum)) = (self.counts.get_mut(slot), self.sums.get_mut(slot)) {
                *count += 1;
                *sum += value;
            }
        });
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.sums.len())?;
        let counts = primitive::<Int64Type>(state, 0, &DataType::Int64)?;
        let sums = primitive::<Float64Type>(state, 1, &DataType::Float64)?;
        for ((slot, rows), value) in slots.iter().zip(counts.values()).zip(sums.values()) {
            let slot = *slot as usize;
            if let (Some(count), Some(sum)) = (self.counts.get_mut(slot), self.sums.get_mut(slot)) {
                *count += rows;
                *sum += value;
            }
        }
        Ok(())
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        check_slots(slots, self.sums.len())?;
        Ok(vec![
            Arc::new(Int64Array::from(gathered(&self.counts, slots))),
            Arc::new(Float64Array::from(gathered(&self.sums, slots))),
        ])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.sums.len())?;
        let counts = gathered(&self.counts, slots).into_iter();
        let means = counts.zip(gathered(&self.sums, slots));
        let means = means.map(|(count, sum)| (count > 0).then(|| sum / count as f64));
        Ok(Arc::new(means.collect::<Float64Array>()))
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.counts) + bytes_of(&self.sums)
    }
}
