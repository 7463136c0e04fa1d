//! collect: all values of a slot, in order of arrival; and what can only be computed from all values.
//!
//! A value costs its own bytes and four more. It deliberately skips no null, as SQL's `array_agg`; and it never
//! orders values: what asks for another order sorts the list.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{filter, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};

use crate::aggregate::column::{argument, bytes_of, canonical, check, check_slots};
use crate::aggregate::log::{Log, NOWHERE, nulls, single};
use crate::aggregate::{Accumulator, Aggregate, Call, Function, own_name};
use crate::error::{Error, Result};

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let argument = call.only_argument("one column")?;
    let keep = if call.distinct { Keep::Distinct } else { Keep::All };
    let lists = Lists::new(argument.data_type(), keep)?;
    Ok(Arc::new(Collect { field: call.result(lists.data_type(), true), lists }))
}

/// The function over the distinct values of its argument; none where it makes no difference, or is made here.
pub(super) fn distinct(call: &Call<'_>) -> Result<Option<Arc<dyn Function>>> {
    const INDIFFERENT: &[&str] = &[
        "min",
        "max",
        "first",
        "first_value",
        "last",
        "last_value",
        "bool_and",
        "bool_or",
        "bit_and",
        "bit_or",
        "approx_distinct",
        "any_value",
        "collect",
        "array_agg",
    ];
    if INDIFFERENT.contains(&call.name) {
        return Ok(None);
    }
    computed(call, Keep::Distinct).map(Some)
}

/// A function that is computed from all its values when it is read.
pub(super) fn computed(call: &Call<'_>, keep: Keep) -> Result<Arc<dyn Function>> {
    let [argument] = call.arguments else {
        return Err(call.misfit(match keep {
            Keep::All => crate::aggregate::datafusion::takes(call.name),
            Keep::Distinct => "one column where only distinct values count",
        }));
    };
    let inner = Call { distinct: false, scope: crate::aggregate::Scope::Batch, ..*call };
    let inner = crate::aggregate::plain_function(&inner)?;
    let lists = Lists::new(argument.data_type(), keep)?;
    Ok(Arc::new(Computed { inner: Aggregate { name: call.name.to_owned(), function: inner }, lists }))
}

/// Which values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    All,
    /// Of equal ones the first.
    Distinct,
}

#[derive(Debug)]
struct Collect {
    field: Field,
    lists: Lists,
}

impl Function for Collect {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        self.lists.state_fields()
    }

    fn keeps_values(&self) -> bool {
        true
    }

    fn form(&self) -> Option<&'static str> {
        Some(self.lists.form())
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Collected { values: self.lists.column()?, inner: None }))
    }
}

#[derive(Debug)]
struct Computed {
    inner: Aggregate,
    lists: Lists,
}

impl Function for Computed {
    fn field(&self) -> Field {
        self.inner.field()
    }

    fn state_fields(&self) -> Vec<Field> {
        self.lists.state_fields()
    }

    fn keeps_values(&self) -> bool {
        true
    }

    fn form(&self) -> Option<&'static str> {
        Some(self.lists.form())
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Collected { values: self.lists.column()?, inner: Some(self.inner.clone()) }))
    }
}

/// What lists of values are made of.
#[derive(Debug)]
struct Lists {
    item: FieldRef,
    keep: Keep,
}

impl Lists {
    fn new(item: &DataType, keep: Keep) -> Result<Self> {
        if keep == Keep::Distinct {
            RowConverter::new(vec![SortField::new(item.clone())])?;
        }
        Ok(Self { item: Arc::new(Field::new_list_field(item.clone(), true)), keep })
    }

    fn data_type(&self) -> DataType {
        DataType::List(Arc::clone(&self.item))
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("values", self.data_type(), false)]
    }

    fn form(&self) -> &'static str {
        match self.keep {
            Keep::All => "values 1",
            Keep::Distinct => "distinct values 1",
        }
    }

    fn column(&self) -> Result<Values> {
        let seen = match self.keep {
            Keep::All => None,
            Keep::Distinct => Some(Seen::new(self.item.data_type())?),
        };
        Ok(Values {
            item: Arc::clone(&self.item),
            log: Log::default(),
            previous: Vec::new(),
            last: Vec::new(),
            seen,
        })
    }
}

/// The values of all slots in one log, those of a slot linked from the last to the first.
#[derive(Debug)]
struct Values {
    item: FieldRef,
    log: Log,
    previous: Vec<u32>,
    last: Vec<u32>,
    seen: Option<Seen>,
}

impl Values {
    fn add(&mut self, slots: &[u32], values: ArrayRef) -> Result<()> {
        let Some(seen) = &mut self.seen else { return self.append(slots, values) };
        let is_new = seen.add(slots, &values)?;
        let kept: Vec<u32> =
            slots.iter().zip(is_new.values()).filter_map(|(slot, new)| new.then_some(*slot)).collect();
        self.append(&kept, filter(&values, &is_new)?)
    }

    fn append(&mut self, slots: &[u32], values: ArrayRef) -> Result<()> {
        let start = self.log.push(vec![values])?;
        for (slot, position) in slots.iter().zip(start..) {
            if let Some(last) = self.last.get_mut(*slot as usize) {
                self.previous.push(std::mem::replace(last, position));
            }
        }
        Ok(())
    }

    /// The lists of these slots, and how long they are.
    fn lists(&self, slots: &[u32]) -> Result<ListArray> {
        check_slots(slots, self.last.len())?;
        let mut positions: Vec<u32> = Vec::new();
        let mut lengths = Vec::with_capacity(slots.len());
        for slot in slots {
            let start = positions.len();
            let last = self.last.get(*slot as usize).copied().unwrap_or(NOWHERE);
            positions.extend(
                std::iter::successors(Some(last), |at| self.previous.get(*at as usize).copied())
                    .take_while(|at| *at != NOWHERE),
            );
            positions.get_mut(start..).unwrap_or_default().reverse();
            lengths.push(positions.len() - start);
        }
        if i32::try_from(positions.len()).is_err() {
            return Err(Error::memory_limit("lists of more than 2,147,483,647 values together"));
        }
        let values = single(self.log.gather(&positions, &nulls([self.item.data_type()]))?)?;
        Ok(ListArray::new(Arc::clone(&self.item), OffsetBuffer::from_lengths(lengths), values, None))
    }

    fn bytes(&self) -> usize {
        let seen = self.seen.as_ref().map_or(0, Seen::bytes);
        self.log.bytes() + bytes_of(&self.previous) + bytes_of(&self.last) + seen
    }
}

/// Which values a slot has had.
#[derive(Debug)]
struct Seen {
    converter: RowConverter,
    /// A slot's number and the bytes of a value.
    keys: HashSet<Box<[u8]>>,
    key_bytes: usize,
}

impl Seen {
    fn new(item: &DataType) -> Result<Self> {
        let converter = RowConverter::new(vec![SortField::new(item.clone())])?;
        Ok(Self { converter, keys: HashSet::new(), key_bytes: 0 })
    }

    /// Which of these values are new to their slots.
    fn add(&mut self, slots: &[u32], values: &ArrayRef) -> Result<BooleanArray> {
        let rows = self.converter.convert_columns(&[canonical(values)])?;
        let is_new = slots.iter().zip(&rows).map(|(slot, row)| {
            let key: Box<[u8]> = slot.to_le_bytes().into_iter().chain(row.as_ref().iter().copied()).collect();
            let bytes = key.len();
            let is_new = self.keys.insert(key);
            self.key_bytes += if is_new { bytes } else { 0 };
            is_new
        });
        Ok(is_new.map(Some).collect())
    }

    fn bytes(&self) -> usize {
        self.key_bytes + self.keys.capacity() * (size_of::<Box<[u8]>>() + 1) + self.converter.size()
    }
}

/// The values of slots, and perhaps what is computed from them.
#[derive(Debug)]
struct Collected {
    values: Values,
    inner: Option<Aggregate>,
}

impl Accumulator for Collected {
    fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.values.last.len());
        self.values.last.resize(slots, NOWHERE);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.values.last.len())?;
        let values = argument(arguments, 0, self.values.item.data_type())?;
        self.values.add(slots, values)
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.values.last.len())?;
        let lists = argument(state, 0, &DataType::List(Arc::clone(&self.values.item)))?;
        let (slots, values) = flattened(slots, lists.as_list::<i32>())?;
        self.values.add(&slots, values)
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(self.values.lists(slots)?)])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let lists = self.values.lists(slots)?;
        let Some(inner) = &self.inner else {
            let is_set = lists.offsets().lengths().map(|length| length > 0).collect::<NullBuffer>();
            let (item, offsets, values, _) = lists.into_parts();
            return Ok(Arc::new(ListArray::new(item, offsets, values, Some(is_set))));
        };
        let numbers: Vec<u32> = (0_u32..).take(slots.len()).collect();
        let (rows, values) = flattened(&numbers, &lists)?;
        let mut computed = inner.accumulator()?;
        computed.grow(slots.len());
        computed.update(&rows, &[values])?;
        computed.evaluate(&numbers)
    }

    fn bytes(&self) -> usize {
        self.values.bytes()
    }
}

/// The values of lists one after the other, each with its list's slot.
pub(super) fn flattened(slots: &[u32], lists: &ListArray) -> Result<(Vec<u32>, ArrayRef)> {
    let filled =
        |row: usize| if lists.is_valid(row) { lists.value_length(row).unsigned_abs() as usize } else { 0 };
    let repeated = slots.iter().enumerate().flat_map(|(row, slot)| std::iter::repeat_n(*slot, filled(row)));
    let repeated: Vec<u32> = repeated.collect();
    let (first, last) = (lists.offsets().first(), lists.offsets().last());
    let start = first.map_or(0, |first| first.unsigned_abs() as usize);
    let end = last.map_or(0, |last| last.unsigned_abs() as usize);
    if end - start == repeated.len() {
        return Ok((repeated, lists.values().slice(start, end - start)));
    }
    // A null list may hide values.
    let rows = (0..lists.len()).filter(|row| lists.is_valid(*row));
    let offsets = rows.filter_map(|row| Some((lists.offsets().get(row)?, lists.offsets().get(row + 1)?)));
    let indices: UInt32Array =
        offsets.flat_map(|(from, to)| from.unsigned_abs()..to.unsigned_abs()).collect::<Vec<_>>().into();
    Ok((repeated, take(lists.values(), &indices, None)?))
}

/// Whether `name` is computed from all values, so that [`computed`] makes it.
pub(super) fn needs_all_values(name: &str) -> bool {
    own_name(name).is_none() && matches!(name, "median" | "percentile_cont" | "quantile_cont" | "string_agg")
}
