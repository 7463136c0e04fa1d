//! Aggregation by key, within a batch or within windows of event time, in two stages.
//!
//! Before the exchange the rows of each slot become a [`Partial`](partial::Partial): one state for each pane and key,
//! made while a chunk is in the cache. Behind it an [`AggregateOperator`](operator::AggregateOperator) merges the
//! partials of a shard into its panes, and emits windows when the watermark passes their end. The state columns are the
//! same in a partial, in a pane and in a snapshot. It deliberately computes no aggregate itself: that is
//! [`aggregate`](crate::aggregate)'s.

pub(crate) mod calls;
mod changes;
mod emission;
pub(crate) mod operator;
pub(crate) mod pane;
pub(crate) mod partial;
pub(crate) mod place;
mod sliding;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::aggregate::Aggregate;
use crate::error::Result;
use crate::exec::aggregate::calls::Calls;
use crate::exec::aggregate::pane::Accumulators;
use crate::exec::aggregate::place::Placer;
use crate::plan::{AggregateCall, Emit, WindowSpec};
use crate::state::form::{Layout, StateForm};
use crate::state::key::KeyEncoder;
use crate::state::values::KeyDecoder;
use crate::types::type_name;

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
    pub(crate) calls: Calls,
    /// Made once, as they are needed for each partition of each batch.
    pub(crate) schemas: StateSchemas,
    /// Window, keys and the result of each call.
    pub(crate) output: SchemaRef,
    /// What is remembered from batch to batch: of windows alone.
    pub(crate) form: Option<StateForm>,
}

/// The windows of an aggregation.
#[derive(Debug)]
pub(crate) struct WindowStep {
    pub(crate) placer: Placer,
    /// The type of the event-time column, and so of a window's start and end.
    pub(crate) data_type: DataType,
    pub(crate) emit: Emit,
}

impl AggregateStep {
    /// No group yet.
    pub(crate) fn accumulators(&self) -> Result<Accumulators> {
        Accumulators::new(&self.calls)
    }
}

/// What the state of `spec` is: the pane that a row belongs to means something in these windows alone, and a state in this
/// call.
pub(crate) fn state_form(
    window: &WindowSpec,
    on: &DataType,
    keys: &str,
    calls: &[AggregateCall],
    states: &SchemaRef,
) -> StateForm {
    let own = |name: &str, value: String| (name.to_owned(), value);
    let window = format!("{} on {} {}", window.shape, window.on, type_name(on));
    let mut aspects =
        vec![own("operator", "agg".to_owned()), own("keys", keys.to_owned()), own("window", window)];
    let call = |(number, call): (usize, &AggregateCall)| {
        (number.to_string(), format!("{} as {}", call.text, call.aggregate.form().unwrap_or("none")))
    };
    aspects.extend(calls.iter().enumerate().map(call));
    StateForm::new(Layout::Panes, Arc::clone(states), aspects)
}

/// The columns of the states of all calls, in order; and those of a partial, which are the pane and then the states.
#[derive(Debug)]
pub(crate) struct StateSchemas {
    pub(crate) states: SchemaRef,
    pub(crate) partial: SchemaRef,
}

impl StateSchemas {
    /// The columns for the states of `calls`.
    pub(crate) fn of(calls: &Calls) -> Self {
        let states: Vec<FieldRef> = calls.aggregates().zip(0..).flat_map(state_fields).collect();
        let pane = Arc::new(Field::new(PANE, DataType::Int64, false));
        let partial: Vec<FieldRef> = std::iter::once(pane).chain(states.iter().cloned()).collect();
        let versioned = |fields| {
            let version = [(STATE_KEY.to_owned(), STATE_VERSION.to_owned())];
            Arc::new(Schema::new_with_metadata(fields, version.into()))
        };
        Self { states: versioned(states), partial: versioned(partial) }
    }
}

/// The fields of a call's state, named apart from those of the other calls.
fn state_fields((aggregate, number): (&Aggregate, usize)) -> Vec<FieldRef> {
    let named = |field: Field| {
        let name = format!("{number}.{}", field.name());
        Arc::new(field.with_name(name).with_nullable(true))
    };
    aggregate.state_fields().into_iter().map(named).collect()
}
