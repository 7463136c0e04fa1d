//! A compiled plan: fused steps between barriers, as inert data.
//!
//! `compile` makes it, `pipeline` runs its steps, `executor` decides when; nothing runs here.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::decode::{DecodeSpec, Decoder};
use crate::detect::DetectSpec;
use crate::error::{Error, Result};
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::operator::AggregateOperator;
use crate::exec::aggregate::place::Placer;
use crate::exec::detect::DetectOperator;
use crate::exec::explode::Explosion;
use crate::exec::keyed::ShardOperator;
use crate::exec::provenance::{Lineage, Sampler};
use crate::expr::{Bound, Predicate};
use crate::plan::{BatchFunction, NodeId, OutputId, Plan, SourceId};
use crate::state::form::StateForm;
use crate::state::key::KeyEncoder;

/// Where the rows of a step go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Step(usize),
    Function(usize),
    Exchange(usize),
    Output(OutputId),
}

/// A compiled plan.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) sources: Vec<SourceProgram>,
    pub(crate) steps: Vec<Step>,
    pub(crate) functions: Vec<FunctionStep>,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) operators: Vec<OperatorSpec>,
    plan: Plan,
}

/// How a source's chunks become rows, and where these go.
#[derive(Debug)]
pub(crate) struct SourceProgram {
    pub(crate) id: SourceId,
    pub(crate) name: String,
    pub(crate) decode: DecodeSpec,
    pub(crate) ports: Vec<Port>,
    pub(crate) dead: Option<DeadProgram>,
    pub(crate) timed: Option<TimedProgram>,
}

impl SourceProgram {
    /// What makes its rows, and its dead letters where somebody reads them.
    pub(crate) fn decoder(&self) -> Result<Decoder> {
        let decoder = Decoder::new(self.decode.clone())?;
        match &self.dead {
            Some(dead) => decoder.with_dead_letters(&dead.columns),
            None => Ok(decoder),
        }
    }
}

/// Which columns of its dead letters are read, and where these go.
#[derive(Debug)]
pub(crate) struct DeadProgram {
    pub(crate) columns: Vec<String>,
    pub(crate) ports: Vec<Port>,
}

/// How the event time of a source's rows is computed, and where the rows go that have it as a column.
#[derive(Debug)]
pub(crate) struct TimedProgram {
    pub(crate) node: NodeId,
    pub(crate) time: Bound,
    pub(crate) max_future: Duration,
    /// The decoded columns that are read of those rows; `None` is the time.
    pub(crate) columns: Vec<Option<usize>>,
    pub(crate) schema: SchemaRef,
    pub(crate) ports: Vec<Port>,
}

/// One fused step over a chunk of rows.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) node: NodeId,
    pub(crate) kind: StepKind,
    pub(crate) schema: SchemaRef,
    pub(crate) ports: Vec<Port>,
}

#[derive(Debug)]
pub(crate) enum StepKind {
    /// Keeps the rows for which the predicate holds, and of them these columns.
    Filter(Predicate, Vec<usize>),
    /// Makes each column anew or passes it on.
    Project(Vec<Column>),
    /// Takes lists apart.
    Explode(Explosion),
    /// Keeps the rows that are drawn, then makes each column anew or passes it on.
    Sample(Sampler, Vec<Column>),
    /// Runs the keyed operator of this number, then keeps these columns.
    Keyed(usize, KeyEncoder, Vec<usize>),
    /// Keeps the rows that have no place in these windows, and of them these columns; `None` is the reason.
    Late(Placer, Vec<Option<usize>>),
}

/// Where a column of a projection comes from.
#[derive(Debug)]
pub(crate) enum Column {
    Input(usize),
    Computed(Box<Bound>),
    /// Where the rows come from.
    Provenance(Lineage),
}

/// A user's function: a barrier at which the rows of a slot come together.
#[derive(Debug)]
pub(crate) struct FunctionStep {
    pub(crate) node: NodeId,
    pub(crate) function: Arc<dyn BatchFunction>,
    /// The stage after which its input is complete.
    pub(crate) stage: usize,
    pub(crate) input: SchemaRef,
    pub(crate) shape: FunctionShape,
    pub(crate) schema: SchemaRef,
    pub(crate) ports: Vec<Port>,
}

/// What a function is given and what becomes of its result.
#[derive(Debug)]
pub(crate) enum FunctionShape {
    /// It is given these columns; of its result, those are kept. Where the rows that it is given tell where they come
    /// from, in the column `provenance`, so do those that it makes.
    Replaces { given: Vec<usize>, result: SchemaRef, kept: Vec<usize>, provenance: Option<usize> },
    /// It is given these columns; of the input and its result side by side, those are kept.
    Appends { given: Vec<usize>, added: SchemaRef, kept: Vec<Side> },
}

/// A column of the input, or one of those that a function added.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Input(usize),
    Added(usize),
}

/// A barrier at which rows go to the shard of their key.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// From 1: one more than the latest stage of its inputs.
    pub(crate) stage: usize,
    pub(crate) moves: Moves,
    pub(crate) ports: Vec<Port>,
    pub(crate) node: NodeId,
}

/// What an exchange moves.
#[derive(Debug)]
pub(crate) enum Moves {
    /// The rows themselves.
    Rows(RowExchange),
    /// Their aggregates: the partials of each slot, which the operator of this number merges.
    Partials(Arc<AggregateStep>, usize),
}

/// Which columns of the rows are moved, and by which key.
#[derive(Debug)]
pub(crate) struct RowExchange {
    pub(crate) columns: Vec<usize>,
    /// Of the columns that are moved.
    pub(crate) schema: SchemaRef,
    /// Of the rows as they come: their keys need not be among the columns that are moved.
    pub(crate) encoder: KeyEncoder,
    /// Over how many shards the keys are spread; none means all.
    pub(crate) parts: Option<NonZeroUsize>,
}

/// A stateful operator, of which every shard of its exchange has one.
#[derive(Debug)]
pub(crate) struct OperatorSpec {
    pub(crate) node: NodeId,
    pub(crate) kind: OperatorKind,
    /// By which its state is found again.
    pub(crate) name: String,
    /// What its state is; none where it remembers nothing from batch to batch.
    pub(crate) form: Option<StateForm>,
    /// Of what it remembers, what cannot be written down.
    pub(crate) unkept: Vec<String>,
}

/// What it is made of.
#[derive(Debug)]
pub(crate) enum OperatorKind {
    Detect(DetectSpec, SchemaRef),
    Aggregate(Arc<AggregateStep>),
}

impl OperatorSpec {
    /// The operator without any state.
    pub(crate) fn build(&self) -> Result<ShardOperator> {
        Ok(match &self.kind {
            OperatorKind::Detect(spec, schema) => {
                ShardOperator::Keyed(Box::new(DetectOperator::new(spec.clone(), schema)?))
            }
            OperatorKind::Aggregate(step) => {
                ShardOperator::Aggregate(Box::new(AggregateOperator::new(Arc::clone(step))))
            }
        })
    }

    /// An error where it remembers what cannot be written down, saying which.
    fn check_kept(&self) -> Result<()> {
        let Some(form) = &self.form else { return Ok(()) };
        let columns = form.unstorable();
        if !self.unkept.is_empty() {
            let message = format!(
                "{} cannot be checkpointed yet: the state is another library's and may change with it",
                self.unkept.join(", ")
            );
            return Err(Error::config(message).help(
                "use another aggregate, such as approx_quantile over float64, or leave checkpoint= out",
            ));
        }
        if columns.is_empty() {
            return Ok(());
        }
        let message = format!(
            "state of these columns cannot be checkpointed yet: {}; dictionaries, views, runs and unions are not written down",
            columns.join(", ")
        );
        Err(Error::config(message).help("cast the column to its plain type before, or leave checkpoint= out"))
    }
}

impl TimedProgram {
    /// The rows of `decoded`, whose event times are `times`.
    pub(crate) fn rows(&self, decoded: &RecordBatch, times: &ArrayRef) -> Result<RecordBatch> {
        let lost = || Error::internal("a column beside an event time was pruned");
        let column = |place: &Option<usize>| match place {
            None => Ok(Arc::clone(times)),
            Some(place) => decoded.columns().get(*place).cloned().ok_or_else(lost),
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(decoded.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

impl Program {
    /// An error that names every operator that remembers what cannot be written down.
    pub(crate) fn check_kept(&self) -> Result<()> {
        let mistake = |operator: &OperatorSpec| {
            operator.check_kept().err().map(|error| self.locate(operator.node, error))
        };
        match Error::of_all(self.operators.iter().filter_map(mistake).collect()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// No step yet.
    pub(crate) fn new(plan: Plan) -> Self {
        let (sources, steps, functions) = (Vec::new(), Vec::new(), Vec::new());
        Self { sources, steps, functions, exchanges: Vec::new(), operators: Vec::new(), plan }
    }

    /// The last stage: 0 where no exchange is.
    pub(crate) fn last_stage(&self) -> usize {
        self.exchanges.iter().map(|exchange| exchange.stage).max().unwrap_or(0)
    }

    /// Says where in the user's script an operator that failed was written.
    pub(crate) fn locate(&self, node: NodeId, error: Error) -> Error {
        match self.plan.node(node) {
            Ok(node) => node.locate(error),
            Err(lost) => lost,
        }
    }
}
