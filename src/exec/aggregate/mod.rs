//! Aggregation by key, within a batch or within windows of event time, in two stages.
//!
//! Before the exchange the rows of each slot become a [`Partial`](partial::Partial): one state for each pane and key,
//! made while a chunk is in the cache. Behind it an [`AggregateOperator`](operator::AggregateOperator) merges the
//! partials of a shard into its panes, and emits windows when the watermark passes their end. The state columns are the
//! same in a partial, in a pane and in a snapshot. It deliberately computes no aggregate itself: that is
//! [`aggregate`](crate::aggregate)'s.

mod changes;
mod emission;
pub(crate) mod operator;
pub(crate) mod pane;
pub(crate) mod partial;
pub(crate) mod place;
mod sliding;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::aggregate::Aggregate;
use crate::error::Result;
use crate::exec::aggregate::pane::Accumulators;
use crate::exec::aggregate::place::Placer;
use crate::expr::Bound;
use crate::plan::Emit;
use crate::state::key::KeyEncoder;
use crate::state::values::KeyDecoder;
use crate::time::BatchTime;

/// The name under which the schema of states says in which form they are.
const STATE_KEY: &str = "tidemill.aggregate_state";
const STATE_VERSION: &str = "1";
const PANE: &str = "pane";

/// An aggregation bound to the columns of its input.
#[derive(Debug)]
pub(crate) struct AggregateStep {
    pub(crate) encoder: KeyEncoder,
    pub(crate) decoder: KeyDecoder,
    pub(crate) window: Option<WindowStep>,
    pub(crate) calls: Vec<CallStep>,
    /// Window, keys and the result of each call.
    pub(crate) output: SchemaRef,
}

/// The windows of an aggregation.
#[derive(Debug)]
pub(crate) struct WindowStep {
    pub(crate) placer: Placer,
    /// The type of the event-time column, and so of a window's start and end.
    pub(crate) data_type: DataType,
    pub(crate) emit: Emit,
}

/// One call of an aggregate function.
#[derive(Debug)]
pub(crate) struct CallStep {
    pub(crate) aggregate: Aggregate,
    pub(crate) arguments: Vec<Bound>,
    /// The event-time column, where the function goes by it.
    pub(crate) order: Option<usize>,
}

impl CallStep {
    /// The values of its arguments in each row of `batch`.
    fn arguments(&self, batch: &RecordBatch, time: BatchTime) -> Result<Vec<ArrayRef>> {
        let mut values: Vec<ArrayRef> =
            self.arguments.iter().map(|argument| argument.evaluate(batch, time)).collect::<Result<_>>()?;
        if let Some(order) = self.order {
            values.push(place::ticks(batch, order)?);
        }
        Ok(values)
    }
}

impl AggregateStep {
    /// No group yet.
    pub(crate) fn accumulators(&self) -> Result<Accumulators> {
        Accumulators::new(&self.calls)
    }

    /// The columns of the states of all calls, in order.
    pub(crate) fn states(&self) -> SchemaRef {
        let fields: Vec<FieldRef> = self.calls.iter().zip(0..).flat_map(state_fields).collect();
        let version = [(STATE_KEY.to_owned(), STATE_VERSION.to_owned())];
        Arc::new(Schema::new_with_metadata(fields, version.into()))
    }

    /// The columns of a partial: the pane, then the states.
    pub(crate) fn partial(&self) -> SchemaRef {
        let states = self.states();
        let pane = Arc::new(Field::new(PANE, DataType::Int64, false));
        let fields: Vec<FieldRef> = std::iter::once(pane).chain(states.fields().iter().cloned()).collect();
        Arc::new(Schema::new_with_metadata(fields, states.metadata().clone()))
    }
}

/// The fields of a call's state, named apart from those of the other calls.
fn state_fields((call, number): (&CallStep, usize)) -> Vec<FieldRef> {
    let named = |field: Field| {
        let name = format!("{number}.{}", field.name());
        Arc::new(field.with_name(name).with_nullable(true))
    };
    call.aggregate.state_fields().into_iter().map(named).collect()
}
