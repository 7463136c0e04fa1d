//! `top_k`: the k largest values that are not null, the largest first.
//!
//! It deliberately keeps equal values as often as they come, and no row beside the value.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, ListArray, PrimitiveArray, UInt32Array,
    new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortColumn, SortOptions, concat, lexsort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::ScalarValue;

use crate::aggregate::collect::flattened;
use crate::aggregate::column::{
    ORDERED, Ordered, argument, bytes_of, canonical, check, check_slots, each, is_ordered, physical,
    primitive, retyped,
};
use crate::aggregate::log::{Numbered, Numbering, Rows, single};
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::{Error, Result};

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

    fn form(&self) -> Option<&'static str> {
        Some("top k 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        let (item, k) = (&self.item, self.k);
        let fixed = physical!(item.data_type(), T => {
            Box::new(Fixed::<T>::new(Arc::clone(item), k)) as Box<dyn Accumulator>
        });
        Ok(fixed.unwrap_or_else(|| Box::new(Any::new(Arc::clone(item), k))))
    }
}

/// The largest of values of a fixed width.
///
/// A slot holds up to 2 k values in no order, and when they are 2 k, the k smaller ones go: a value costs a
/// comparison with its slot's floor, which nearly all of many fail, and what passes costs a constant, whatever k is and
/// in whatever order values come. A heap costs log k there, and a sorted list k.
#[derive(Debug)]
struct Fixed<T: ArrowPrimitiveType> {
    item: FieldRef,
    k: usize,
    /// What a value must exceed, where a slot has k values: the smallest that was left when values went.
    floors: Vec<T::Native>,
    values: Vec<Vec<T::Native>>,
    /// How many values there is room for in all slots; counted as it grows, since slots may be very many.
    room: usize,
}

impl<T: ArrowPrimitiveType<Native: Ordered>> Fixed<T> {
    fn new(item: FieldRef, k: usize) -> Self {
        Self { item, k, floors: Vec::new(), values: Vec::new(), room: 0 }
    }

    fn take(&mut self, slots: &[u32], values: &PrimitiveArray<T>) {
        each(slots, values, |slot, value| {
            let value = value.canonical();
            if self.floors.get(slot).is_some_and(|floor| value.is_ge(*floor)) {
                self.offer(slot, value);
            }
        });
    }

    fn offer(&mut self, slot: usize, value: T::Native) {
        let (Some(floor), Some(values)) = (self.floors.get_mut(slot), self.values.get_mut(slot)) else {
            return;
        };
        if value.is_eq(*floor) && values.len() >= self.k {
            return;
        }
        let room = values.capacity();
        values.push(value);
        self.room += values.capacity() - room;
        if values.len() == 2 * self.k {
            let (_, smallest, _) = values.select_nth_unstable_by(self.k - 1, |a, b| b.compare(*a));
            *floor = *smallest;
            values.truncate(self.k);
        }
    }

    /// Puts the largest values of a slot into `sorted`, the largest first.
    fn sort(&self, slot: u32, sorted: &mut Vec<T::Native>) {
        sorted.clear();
        sorted.extend(self.values.get(slot as usize).into_iter().flatten());
        sorted.sort_unstable_by(|a, b| b.compare(*a));
        sorted.truncate(self.k);
    }
}

impl<T: ArrowPrimitiveType<Native: Ordered> + fmt::Debug> Accumulator for Fixed<T> {
    fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.values.len());
        self.floors.resize(slots, T::Native::MIN_TOTAL_ORDER);
        self.values.resize(slots, Vec::new());
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.values.len())?;
        self.take(slots, &primitive::<T>(arguments, 0, self.item.data_type())?);
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.values.len())?;
        let (slots, values) = values_of(&self.item, slots, state)?;
        self.take(&slots, &primitive::<T>(&[values], 0, self.item.data_type())?);
        Ok(())
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(slots)?])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.values.len())?;
        let (mut values, mut lengths) = (Vec::new(), Vec::with_capacity(slots.len()));
        let mut sorted = Vec::new();
        for slot in slots {
            self.sort(*slot, &mut sorted);
            lengths.push(sorted.len());
            values.extend_from_slice(&sorted);
        }
        let values = PrimitiveArray::<T>::new(values.into(), None);
        Ok(Arc::new(lists(&self.item, lengths, retyped(Arc::new(values), self.item.data_type())?)?))
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.floors) + bytes_of(&self.values) + self.room * size_of::<T::Native>()
    }
}

/// Lists of these lengths; null where there is nothing.
fn lists(item: &FieldRef, lengths: Vec<usize>, values: ArrayRef) -> Result<ListArray> {
    if i32::try_from(values.len()).is_err() {
        return Err(Error::memory_limit("lists of more than 2,147,483,647 values together"));
    }
    let is_set = lengths.iter().map(|length| *length > 0).collect::<NullBuffer>();
    Ok(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), values, Some(is_set)))
}

/// The values of the lists that are states, each with its list's slot.
fn values_of(item: &FieldRef, slots: &[u32], state: &[ArrayRef]) -> Result<(Vec<u32>, ArrayRef)> {
    let lists = argument(state, 0, &DataType::List(Arc::clone(item)))?;
    flattened(slots, lists.as_list::<i32>())
}

/// The largest of values of any type that Arrow can sort.
#[derive(Debug)]
struct Any {
    item: FieldRef,
    k: usize,
    numbering: Numbering,
    lists: Rows,
}

impl Any {
    fn new(item: FieldRef, k: usize) -> Self {
        let none = new_null_array(&DataType::List(Arc::clone(&item)), 1);
        Self { item, k, numbering: Numbering::default(), lists: Rows::new(vec![none]) }
    }

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
        lists(&self.item, lengths, take(values, &kept, None)?)
    }
}

impl Accumulator for Any {
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
        let (slots, values) = values_of(&self.item, slots, state)?;
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
