//! `top_k`: the k largest values that are not null, the largest first.
//!
//! It deliberately keeps equal values as often as they come, and no row beside the value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortColumn, SortOptions, concat, lexsort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::ScalarValue;

use crate::aggregate::collect::flattened;
use crate::aggregate::column::{ORDERED, argument, canonical, check, is_ordered};
use crate::aggregate::log::{Numbered, Numbering, Rows, single};
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::Result;

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let takes = format!("one column of {ORDERED}, and how many values, at least 1");
    let ([argument], [k]) = (call.arguments, call.literals) else { return Err(call.misfit(&takes)) };
    let k = count(k).filter(|_| is_ordered(argument.data_type())).ok_or_else(|| call.misfit(&takes))?;
    let item = Arc::new(Field::new_list_field(argument.data_type().clone(), true));
    Ok(Arc::new(TopK { field: call.result(DataType::List(Arc::clone(&item)), true), item, k }))
}

fn count(literal: &ScalarValue) -> Option<usize> {
    match literal.cast_to(&DataType::UInt32) {
        Ok(ScalarValue::UInt32(Some(k))) if k > 0 && literal.data_type().is_integer() => Some(k as usize),
        _ => None,
    }
}

#[derive(Debug)]
struct TopK {
    field: Field,
    item: FieldRef,
    k: usize,
}

impl Function for TopK {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("values", self.field.data_type().clone(), true)]
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        let none = arrow::array::new_null_array(self.field.data_type(), 1);
        Ok(Box::new(Largest {
            item: Arc::clone(&self.item),
            k: self.k,
            numbering: Numbering::default(),
            lists: Rows::new(vec![none]),
        }))
    }
}

#[derive(Debug)]
struct Largest {
    item: FieldRef,
    k: usize,
    numbering: Numbering,
    lists: Rows,
}

impl Largest {
    fn take(&mut self, slots: &[u32], values: &ArrayRef) -> Result<()> {
        let Numbered { slots, mut numbers } = self.numbering.number(slots);
        let held = single(self.lists.get(&slots)?)?;
        let of_held: Vec<u32> = (0_u32..).take(slots.len()).collect();
        let (of_held, held) = flattened(&of_held, held.as_list::<i32>())?;
        numbers.extend(of_held);
        let all = concat(&[&canonical(values), &held])?;
        let largest = self.largest(slots.len(), numbers, &all)?;
        self.lists.put(&slots, vec![Arc::new(largest)])
    }

    /// For each number a list of its largest values; null where there is none.
    fn largest(&self, count: usize, numbers: Vec<u32>, values: &ArrayRef) -> Result<ListArray> {
        let descending = SortOptions { descending: true, nulls_first: false };
        let numbers: ArrayRef = Arc::new(UInt32Array::from(numbers));
        let order = lexsort_to_indices(
            &[
                SortColumn { values: Arc::clone(&numbers), options: None },
                SortColumn { values: Arc::clone(values), options: Some(descending) },
            ],
            None,
        )?;
        let numbers = numbers.as_primitive::<arrow::datatypes::UInt32Type>();
        let mut lengths = vec![0; count];
        let kept = order.values().iter().copied().filter(|row| {
            let row = *row as usize;
            let length = numbers.values().get(row).and_then(|number| lengths.get_mut(*number as usize));
            let keeps = |length: &&mut usize| values.is_valid(row) && **length < self.k;
            length.filter(keeps).map(|length| *length += 1).is_some()
        });
        let kept = UInt32Array::from(kept.collect::<Vec<u32>>());
        let is_set = lengths.iter().map(|length| *length > 0).collect::<NullBuffer>();
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(ListArray::new(Arc::clone(&self.item), offsets, take(values, &kept, None)?, Some(is_set)))
    }
}

impl Accumulator for Largest {
    fn grow(&mut self, slots: usize) {
        self.numbering.grow(slots);
        self.lists.grow(slots);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.lists.len())?;
        self.take(slots, &argument(arguments, 0, self.item.data_type())?)
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.lists.len())?;
        let lists = argument(state, 0, &DataType::List(Arc::clone(&self.item)))?;
        let (slots, values) = flattened(slots, lists.as_list::<i32>())?;
        self.take(&slots, &values)
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.lists.get(slots)
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        single(self.lists.get(slots)?)
    }

    fn bytes(&self) -> usize {
        self.numbering.bytes() + self.lists.bytes()
    }
}
