//! One value a slot, of any type: plain vectors for what has a fixed width, rows of Arrow arrays for the rest.
//!
//! It deliberately decides nothing: which row's value a slot takes is settled by its user.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;

use crate::aggregate::column::{bytes_of, check_slots, gathered, physical, primitive, retyped, validity};
use crate::aggregate::log::{Rows, nulls, single};
use crate::error::Result;

/// One value a slot, null at first.
pub(super) trait Cells: fmt::Debug + Send {
    fn grow(&mut self, slots: usize);

    /// Slot `slots[i]` takes the value of row `rows[i]`; no slot comes twice.
    fn put(&mut self, slots: &[u32], values: &ArrayRef, rows: &[u32]) -> Result<()>;

    /// The values of these slots.
    fn get(&self, slots: &[u32]) -> Result<ArrayRef>;

    fn bytes(&self) -> usize;
}

/// Cells for values of a type.
pub(super) fn cells(data_type: &DataType) -> Box<dyn Cells> {
    let fixed = physical!(data_type, T => Box::new(Fixed::<T>::new(data_type.clone())) as Box<dyn Cells>);
    fixed.unwrap_or_else(|| Box::new(Any(Rows::new(nulls([data_type])))))
}

#[derive(Debug)]
struct Fixed<T: ArrowPrimitiveType> {
    data_type: DataType,
    values: Vec<T::Native>,
    is_set: Vec<bool>,
}

impl<T: ArrowPrimitiveType> Fixed<T> {
    fn new(data_type: DataType) -> Self {
        Self { data_type, values: Vec::new(), is_set: Vec::new() }
    }
}

impl<T: ArrowPrimitiveType + fmt::Debug> Cells for Fixed<T> {
    fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.values.len());
        self.values.resize(slots, T::Native::default());
        self.is_set.resize(slots, false);
    }

    fn put(&mut self, slots: &[u32], values: &ArrayRef, rows: &[u32]) -> Result<()> {
        let values = primitive::<T>(std::slice::from_ref(values), 0, &self.data_type)?;
        for (slot, row) in slots.iter().zip(rows) {
            let (slot, row) = (*slot as usize, *row as usize);
            let cell = (self.values.get_mut(slot), self.is_set.get_mut(slot), values.values().get(row));
            if let (Some(cell), Some(is_set), Some(value)) = cell {
                *cell = *value;
                *is_set = values.is_valid(row);
            }
        }
        Ok(())
    }

    fn get(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.values.len())?;
        let values = gathered(&self.values, slots);
        let values = PrimitiveArray::<T>::new(values.into(), Some(validity(&self.is_set, slots)));
        retyped(Arc::new(values), &self.data_type)
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.values) + bytes_of(&self.is_set)
    }
}

#[derive(Debug)]
struct Any(Rows);

impl Cells for Any {
    fn grow(&mut self, slots: usize) {
        self.0.grow(slots);
    }

    fn put(&mut self, slots: &[u32], values: &ArrayRef, rows: &[u32]) -> Result<()> {
        let values = take(values, &UInt32Array::from(rows.to_vec()), None)?;
        self.0.put(slots, vec![values])
    }

    fn get(&self, slots: &[u32]) -> Result<ArrayRef> {
        single(self.0.get(slots)?)
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}
