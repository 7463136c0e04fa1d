//! count: how many rows there are, or how many of them are not null.
//!
//! It deliberately looks at no value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type};

use crate::aggregate::column::{bytes_of, check, check_slots, each, gathered, primitive};
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::Result;

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    match (call.arguments, call.literals) {
        ([] | [_], []) => Ok(Arc::new(Count(call.result(DataType::Int64, false)))),
        _ => Err(call.misfit("nothing or one column")),
    }
}

#[derive(Debug)]
struct Count(Field);

impl Function for Count {
    fn field(&self) -> Field {
        self.0.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("count", DataType::Int64, false)]
    }

    fn form(&self) -> Option<&'static str> {
        Some("count 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Counts::default()))
    }
}

#[derive(Debug, Default)]
struct Counts(Vec<i64>);

impl Counts {
    fn add(&mut self, slot: usize, rows: i64) {
        if let Some(count) = self.0.get_mut(slot) {
            *count += rows;
        }
    }
}

impl Accumulator for Counts {
    fn grow(&mut self, slots: usize) {
        self.0.resize(slots.max(self.0.len()), 0);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.0.len())?;
        match arguments.first().and_then(Array::logical_nulls) {
            Some(nulls) if nulls.null_count() > 0 => {
                nulls
                    .valid_indices()
                    .filter_map(|row| slots.get(row))
                    .for_each(|slot| self.add(*slot as usize, 1));
            }
            _ => slots.iter().for_each(|slot| self.add(*slot as usize, 1)),
        }
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.0.len())?;
        each(slots, &primitive::<Int64Type>(state, 0, &DataType::Int64)?, |slot, rows| self.add(slot, rows));
        Ok(())
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(slots)?])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.0.len())?;
        Ok(Arc::new(Int64Array::from(gathered(&self.0, slots))))
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.0)
    }
}
