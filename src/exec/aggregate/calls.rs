//! The calls of an aggregation, bound to the columns of its input: what each is given of a batch.
//!
//! A call with a condition sees only the rows for which it is true, and its arguments are computed for those rows alone,
//! so that `sum(100 / n) FILTER (WHERE n <> 0)` never divides by zero. Calls with the same condition share one look at it
//! and one copy of the rows. It deliberately holds no state.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;

use crate::aggregate::{Accumulator, Aggregate};
use crate::error::{Error, Result};
use crate::exec::aggregate::place;
use crate::expr::{Bound, Expression, Predicate};
use crate::plan::AggregateCall;
use crate::time::BatchTime;

/// The calls of an aggregation, in order.
#[derive(Debug)]
pub(crate) struct Calls {
    calls: Vec<CallStep>,
    /// Each condition once, however many calls have it.
    filters: Vec<FilterStep>,
}

/// One call of an aggregate function.
#[derive(Debug)]
struct CallStep {
    aggregate: Aggregate,
    arguments: Vec<Bound>,
    /// The event-time column, where the function goes by it.
    order: Option<usize>,
    /// The place of its condition, where it has one.
    filter: Option<usize>,
}

/// A condition, and the columns that the calls behind it are bound to.
#[derive(Debug)]
struct FilterStep {
    predicate: Predicate,
    columns: Vec<usize>,
}

/// The rows that pass a condition, and the slots that they belong to.
struct Passed {
    batch: RecordBatch,
    slots: Vec<u32>,
}

impl Calls {
    /// The calls over the columns of `source`, of which `on` is the event time.
    pub(crate) fn bind(calls: &[AggregateCall], source: &Schema, on: Option<usize>) -> Result<Self> {
        let (mut bound, mut filters, mut conditions) = (Vec::new(), Vec::new(), Vec::new());
        for call in calls {
            let Some(condition) = &call.filter else {
                bound.push(CallStep::bind(call, source, on, None)?);
                continue;
            };
            let known = conditions.iter().position(|known: &&Expression| known.is_same(condition));
            let filter = known.unwrap_or(conditions.len());
            if known.is_none() {
                conditions.push(condition);
                filters.push(FilterStep::bind(condition, calls, source, on)?);
            }
            let columns = filters.get(filter).map(|filter| filter.columns.as_slice()).unwrap_or_default();
            let on = on.and_then(|on| columns.iter().position(|column| *column == on));
            bound.push(CallStep::bind(call, &source.project(columns)?, on, Some(filter))?);
        }
        Ok(Self { calls: bound, filters })
    }

    /// The functions, in order.
    pub(super) fn aggregates(&self) -> impl Iterator<Item = &Aggregate> {
        self.calls.iter().map(|call| &call.aggregate)
    }

    /// Gives the rows of `batch` to the states of each call; row `i` goes to the slot `slots[i]`.
    pub(super) fn update(
        &self,
        states: &mut [Box<dyn Accumulator>],
        slots: &[u32],
        batch: &RecordBatch,
        time: BatchTime,
    ) -> Result<()> {
        let passed = self.filters.iter().map(|filter| filter.pass(batch, slots, time));
        let passed = passed.collect::<Result<Vec<_>>>()?;
        for (call, states) in self.calls.iter().zip(states) {
            match call.filter.and_then(|filter| passed.get(filter)) {
                Some(rows) => states.update(&rows.slots, &call.values(&rows.batch, time)?)?,
                None => states.update(slots, &call.values(batch, time)?)?,
            }
        }
        Ok(())
    }
}

impl CallStep {
    fn bind(call: &AggregateCall, source: &Schema, on: Option<usize>, filter: Option<usize>) -> Result<Self> {
        let bind = |argument: &Expression| argument.bind(source).map_err(first);
        let arguments = call.arguments.iter().map(bind).collect::<Result<_>>()?;
        let order = on.filter(|_| call.aggregate.takes_order());
        let aggregate = call.aggregate.clone();
        let aggregate = if order.is_some() { aggregate.with_order() } else { aggregate };
        Ok(Self { aggregate, arguments, order, filter })
    }

    /// The values of its arguments in each row of `batch`.
    fn values(&self, batch: &RecordBatch, time: BatchTime) -> Result<Vec<ArrayRef>> {
        let values = self.arguments.iter().map(|argument| argument.evaluate(batch, time));
        let mut values = values.collect::<Result<Vec<_>>>()?;
        if let Some(order) = self.order {
            values.push(place::ticks(batch, order)?);
        }
        Ok(values)
    }
}

impl FilterStep {
    /// The condition, with the columns that those of `calls` need that have it.
    fn bind(
        condition: &Expression,
        calls: &[AggregateCall],
        source: &Schema,
        on: Option<usize>,
    ) -> Result<Self> {
        let has_it = |call: &&AggregateCall| call.filter.as_ref().is_some_and(|own| own.is_same(condition));
        let mut columns = BTreeSet::new();
        for call in calls.iter().filter(has_it) {
            columns.extend(on.filter(|_| call.aggregate.takes_order()));
            for name in call.arguments.iter().flat_map(Expression::columns) {
                columns.insert(source.index_of(&name)?);
            }
        }
        let predicate = condition.bind_predicate(source).map_err(first)?;
        Ok(Self { predicate, columns: columns.into_iter().collect() })
    }

    fn pass(&self, batch: &RecordBatch, slots: &[u32], time: BatchTime) -> Result<Passed> {
        let passing = self.predicate.evaluate_selection(batch, None, time)?;
        let batch = batch.project(&self.columns)?;
        if passing.count_set_bits() == batch.num_rows() {
            return Ok(Passed { batch, slots: slots.to_vec() });
        }
        let slots = passing.set_indices().filter_map(|row| slots.get(row)).copied().collect();
        Ok(Passed { batch: filter_record_batch(&batch, &BooleanArray::new(passing, None))?, slots })
    }
}

fn first(mistakes: Vec<Error>) -> Error {
    let lost = || Error::internal("an aggregate failed to bind without a reason");
    mistakes.into_iter().next().unwrap_or_else(lost)
}
