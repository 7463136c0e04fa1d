//! first and last: the value of the row that came first or last, or whose order is the smallest or the largest.
//!
//! As in SQL the row decides and not the value: it deliberately skips no null. Who wants the last value that there
//! was filters first.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, PrimitiveArray};
use arrow::datatypes::{DataType, Field, Int64Type};

use crate::aggregate::cells::{Cells, cells};
use crate::aggregate::column::{argument, bytes_of, check, check_slots, gathered, primitive, validity};
use crate::aggregate::log::NOWHERE;
use crate::aggregate::{Accumulator, Call, Function, own_name};
use crate::error::Result;

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let argument = call.only_argument("one column")?;
    let end = if own_name(call.name) == Some("first") { End::First } else { End::Last };
    let field = call.result(argument.data_type().clone(), true);
    Ok(Arc::new(Position { field, end, order: Order::Arrival }))
}

#[derive(Clone, Copy, Debug)]
enum End {
    First,
    Last,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// The rows' own, which stands in for any order in which all are equal.
    Arrival,
    /// That of the last argument.
    Column,
}

#[derive(Clone, Debug)]
struct Position {
    field: Field,
    end: End,
    order: Order,
}

impl Function for Position {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![self.field.clone(), Field::new("order", DataType::Int64, true)]
    }

    fn form(&self) -> Option<&'static str> {
        Some("position 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Positions {
            data_type: self.field.data_type().clone(),
            end: self.end,
            order: self.order,
            orders: Vec::new(),
            is_set: Vec::new(),
            rows: Vec::new(),
            values: cells(self.field.data_type()),
        }))
    }

    fn ordered(&self) -> Option<Arc<dyn Function>> {
        Some(Arc::new(Self { order: Order::Column, ..self.clone() }))
    }

    fn is_ordered(&self) -> bool {
        matches!(self.order, Order::Column)
    }
}

#[derive(Debug)]
struct Positions {
    data_type: DataType,
    end: End,
    order: Order,
    orders: Vec<i64>,
    /// Whether there was any row.
    is_set: Vec<bool>,
    /// During a call the row that a slot takes its value from, and nowhere between calls.
    rows: Vec<u32>,
    values: Box<dyn Cells>,
}

impl Positions {
    fn take(&mut self, slots: &[u32], values: &ArrayRef, orders: &PrimitiveArray<Int64Type>) -> Result<()> {
        let mut touched = Vec::new();
        for (row, slot) in (0_u32..).zip(slots) {
            let Some(order) = orders.values().get(row as usize) else { continue };
            if orders.is_valid(row as usize) {
                self.offer(*slot, row, *order, &mut touched);
            }
        }
        let rows = gathered(&self.rows, &touched);
        for slot in &touched {
            if let Some(row) = self.rows.get_mut(*slot as usize) {
                *row = NOWHERE;
            }
        }
        self.values.put(&touched, values, &rows)
    }

    #[inline]
    fn offer(&mut self, slot: u32, row: u32, order: i64, touched: &mut Vec<u32>) {
        let at = slot as usize;
        let held = (self.orders.get_mut(at), self.is_set.get_mut(at), self.rows.get_mut(at));
        let (Some(held), Some(is_set), Some(held_row)) = held else { return };
        let better = match self.end {
            End::First => order < *held,
            End::Last => order >= *held,
        };
        if better || !*is_set {
            *held = order;
            *is_set = true;
            if *held_row == NOWHERE {
                touched.push(slot);
            }
            *held_row = row;
        }
    }
}

impl Accumulator for Positions {
    fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.orders.len());
        self.orders.resize(slots, 0);
        self.is_set.resize(slots, false);
        self.rows.resize(slots, NOWHERE);
        self.values.grow(slots);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.orders.len())?;
        let orders = match self.order {
            Order::Arrival => Int64Array::from(vec![0; slots.len()]),
            Order::Column => primitive::<Int64Type>(arguments, 1, &DataType::Int64)?,
        };
        self.take(slots, &argument(arguments, 0, &self.data_type)?, &orders)
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.orders.len())?;
        let orders = primitive::<Int64Type>(state, 1, &DataType::Int64)?;
        self.take(slots, &argument(state, 0, &self.data_type)?, &orders)
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let values = self.evaluate(slots)?;
        let orders =
            Int64Array::new(gathered(&self.orders, slots).into(), Some(validity(&self.is_set, slots)));
        Ok(vec![values, Arc::new(orders)])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.orders.len())?;
        self.values.get(slots)
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.orders) + bytes_of(&self.is_set) + bytes_of(&self.rows) + self.values.bytes()
    }
}
