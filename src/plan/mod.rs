//! What to do, as inert data: operators in a graph, checked before anything runs.
//!
//! A [`Plan`] grows by [`Plan::add`] as a script calls the methods of its streams. It deliberately runs nothing:
//! [`Plan::check`] finds every mistake that can be seen before start, and `exec` compiles what it returns.

mod aggregate;
mod check;
mod dead_letters;
mod event_time;
mod explain;
mod names;
mod prune;
mod sample;
mod unknown;

pub(crate) use aggregate::{AggregateCall, Aggregation, LATE_REASON, WINDOW_START};
pub use aggregate::{AggregateSpec, Emit, WindowSpec};
pub use check::Checked;
pub(crate) use check::list_element;
pub use dead_letters::DeadLetterHeaders;
pub use event_time::ComputedTime;
pub use sample::{SampleSpec, Seed};

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::decode::{EventTimeSpec, Format, Metadata, OnBad};
use crate::detect::DetectSpec;
use crate::error::{Error, Result};
use crate::expr::Expression;
use crate::offset::{OffsetRange, Partition};
use crate::time::{BatchId, BatchTime, EventTime};

/// An operator's place in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// A source's place in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub usize);

/// Where the user's script called an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSite {
    /// The script.
    pub file: String,
    /// The line of it, from 1.
    pub line: u32,
}

impl fmt::Display for CallSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How a source's payloads become columns, as the user said it.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// The source's name, for errors and progress.
    pub name: String,
    /// The payloads' format.
    pub format: Format,
    /// The columns taken from around the payload.
    pub metadata: Vec<Metadata>,
    /// What bad records do.
    pub on_bad: OnBad,
    /// The column that tells when a record happened.
    pub event_time: Option<EventTimeSpec>,
}

/// A named expression: a column of `select` or `with_columns`.
#[derive(Clone, Debug)]
pub struct Named {
    /// The column's name.
    pub name: String,
    /// Its value.
    pub expression: Expression,
}

/// What a function over batches gets beside the rows.
#[derive(Clone, Debug)]
pub struct BatchInfo {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// W(n-1).
    pub watermark: Option<EventTime>,
    /// The partition, or after an exchange the shard; none where all rows of a batch come together.
    pub partition: Option<Partition>,
    /// What the batch read.
    pub ranges: Arc<[OffsetRange]>,
}

/// A function from a batch to a batch: the user's Python, behind a trait so that the core never names Python.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{RecordBatch, UInt64Array};
/// use arrow::datatypes::{DataType, Field, Schema};
/// use tidemill::error::Result;
/// use tidemill::plan::{BatchFunction, BatchInfo, FunctionSchema, Operator};
///
/// #[derive(Debug)]
/// struct BatchNumber;
///
/// impl BatchFunction for BatchNumber {
///     fn call(&self, rows: RecordBatch, info: &BatchInfo) -> Result<RecordBatch> {
///         let numbers = UInt64Array::from(vec![info.batch.0; rows.num_rows()]);
///         Ok(RecordBatch::try_from_iter([("batch", Arc::new(numbers) as _)])?)
///     }
/// }
///
/// let added = Arc::new(Schema::new(vec![Field::new("batch", DataType::UInt64, false)]));
/// let (function, schema) = (Arc::new(BatchNumber), FunctionSchema::Adds(added));
/// let operator = Operator::MapBatches { function, schema, reads: None, label: "batch_number".to_owned() };
/// assert_eq!(operator.name(), "batch_number");
/// ```
pub trait BatchFunction: Send + Sync + fmt::Debug {
    /// Transforms the rows of one partition of one batch. The result has the declared columns: all of them for
    /// [`FunctionSchema::Same`] and [`FunctionSchema::Exactly`], only the added ones, one row for each row
    /// given, for [`FunctionSchema::Adds`].
    fn call(&self, rows: RecordBatch, info: &BatchInfo) -> Result<RecordBatch>;
}

/// What a sink asks of the rows it is to take: the sink's own rules, behind a trait so that the plan never names a
/// sink.
pub trait Demand: Send + Sync + fmt::Debug {
    /// Every mistake that rows of `schema`, keyed by `keys` where they are, would be to the sink; none where it can take
    /// them. Nothing is connected for it.
    fn check(&self, schema: &Schema, keys: Option<&[String]>) -> Vec<Error>;

    /// What `explain()` shows of the output, for rows keyed by `keys` where they are; by default its number alone.
    fn label(&self, _keys: Option<&[String]>) -> String {
        String::new()
    }
}

/// What the output of a function over batches looks like.
#[derive(Clone, Debug)]
pub enum FunctionSchema {
    /// As the input.
    Same,
    /// The input's columns and these; the function returns only these.
    Adds(SchemaRef),
    /// Exactly this.
    Exactly(SchemaRef),
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub enum Operator {
    /// The rows of a source.
    Source(SourceId),
    /// The bad records of a source, which is its only input, with the columns of
    /// [`dead_letter_schema`](crate::decode::dead_letter_schema).
    DeadLetters(SourceId),
    /// The rows of a source, which is its only input, and the time when each happened.
    EventTime(ComputedTime),
    /// Keeps the rows for which the predicate is true.
    Filter(Expression),
    /// Exactly these columns.
    Select(Vec<Named>),
    /// The input's columns, and these, in place where the name exists.
    WithColumns(Vec<Named>),
    /// All columns but these.
    Drop(Vec<String>),
    /// The columns under other names: (old, new).
    Rename(Vec<(String, String)>),
    /// One row for each element of these lists; one with a null where they are null or empty.
    Explode(Vec<String>),
    /// A random part of the rows; made by [`Plan::add_sample`].
    Sample(SampleSpec),
    /// The rows of all inputs, which have the same columns.
    Union,
    /// A user's function over the rows of each partition.
    MapBatches {
        /// The function.
        function: Arc<dyn BatchFunction>,
        /// Its result's columns.
        schema: FunctionSchema,
        /// The columns that it is given, all of them such as a matrix of numbers is made of; none means all of the
        /// input, of whatever type. Only a function that adds columns may name them.
        reads: Option<Vec<String>>,
        /// What `explain()` shows.
        label: String,
    },
    /// The rows dealt evenly to so many shards, or to all, whatever partition they come from.
    Repartition(Option<NonZeroUsize>),
    /// The rows exchanged by key: all rows of a key come to one shard.
    KeyBy(Vec<String>),
    /// A detector per key; its input is keyed.
    Detect(DetectSpec),
    /// The rows of a batch or of each window, aggregated by key.
    Aggregate(AggregateSpec),
    /// The rows that have no place in windows like these: too late, too early, or without a time.
    Late(WindowSpec),
    /// Rows leave the plan here; the sink of this number takes them.
    Output(OutputId),
}

/// An output's place in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputId(pub usize);

impl Operator {
    /// The name of the method that made it, for errors and `explain()`.
    pub fn name(&self) -> &str {
        match self {
            Self::Source(_) => "source",
            Self::DeadLetters(_) => "dead_letters",
            Self::EventTime(_) => "with_event_time",
            Self::Filter(_) => "filter",
            Self::Select(_) => "select",
            Self::WithColumns(_) => "with_columns",
            Self::Drop(_) => "drop",
            Self::Rename(_) => "rename",
            Self::Explode(_) => "explode",
            Self::Sample(_) => "sample",
            Self::Union => "union",
            Self::MapBatches { label, .. } => label,
            Self::Repartition(_) => "repartition",
            Self::KeyBy(_) => "key_by",
            Self::Detect(_) => "detect",
            Self::Aggregate(_) => "agg",
            Self::Late(_) => "late",
            Self::Output(_) => "output",
        }
    }
}

/// An operator with its inputs and its place in the user's script.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub operator: Operator,
    /// Whose rows it takes.
    pub inputs: Vec<NodeId>,
    /// The line that made it.
    pub site: Option<CallSite>,
    /// The name that the user gave it; none where its place is to name it.
    pub name: Option<String>,
}

/// A graph of operators, in the order in which the script made them.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use tidemill::decode::{Format, OnBad};
/// use tidemill::expr::Expression;
/// use tidemill::plan::{Named, Operator, Plan, SourceSpec};
///
/// let spec = SourceSpec {
///     name: "readings".to_owned(),
///     format: Format::Json(Arc::new(Schema::new(vec![Field::new("t", DataType::Float64, true)]))),
///     metadata: vec![],
///     on_bad: OnBad::Fail,
///     event_time: None,
/// };
/// let mut plan = Plan::default();
/// let source = plan.add_source(spec);
/// let readings = plan.add(Operator::Source(source), vec![], None);
/// let fahrenheit = Named { name: "f".to_owned(), expression: Expression::sql("t * 1.8 + 32") };
/// let both = plan.add(Operator::WithColumns(vec![fahrenheit]), vec![readings], None);
/// plan.add_output(both, None);
/// let checked = plan.check()?;
/// let names: Vec<_> = checked.schema(both)?.fields().iter().map(|field| field.name().as_str()).collect();
/// assert_eq!(names, ["t", "f"]);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The sources.
    pub sources: Vec<SourceSpec>,
    /// The operators; inputs come before those that read them.
    pub nodes: Vec<Node>,
    /// The outputs, each with what it asks of its rows; none takes any.
    pub outputs: Vec<Option<Arc<dyn Demand>>>,
}

impl Plan {
    /// Adds a source; its rows come from an [`Operator::Source`].
    pub fn add_source(&mut self, spec: SourceSpec) -> SourceId {
        self.sources.push(spec);
        SourceId(self.sources.len() - 1)
    }

    /// Adds an operator over the rows of `inputs`, which must have been added before.
    pub fn add(&mut self, operator: Operator, inputs: Vec<NodeId>, site: Option<CallSite>) -> NodeId {
        self.nodes.push(Node { operator, inputs, site, name: None });
        NodeId(self.nodes.len() - 1)
    }

    /// Gives an operator the name by which its state is found again; [`Checked::state_names`] says all of them.
    pub fn name(&mut self, node: NodeId, name: impl Into<String>) {
        if let Some(node) = self.nodes.get_mut(node.0) {
            node.name = Some(name.into());
        }
    }

    /// Adds an output that takes any rows, for those of `input`.
    pub fn add_output(&mut self, input: NodeId, site: Option<CallSite>) -> OutputId {
        self.add_demanding_output(input, None, site)
    }

    /// Adds an output for the rows of `input`, which are checked against what it asks of them.
    pub fn add_demanding_output(
        &mut self,
        input: NodeId,
        demand: Option<Arc<dyn Demand>>,
        site: Option<CallSite>,
    ) -> OutputId {
        let output = OutputId(self.outputs.len());
        self.outputs.push(demand);
        self.add(Operator::Output(output), vec![input], site);
        output
    }

    /// The operators with their places, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(place, node)| (NodeId(place), node))
    }

    /// The operator at `node`.
    pub fn node(&self, node: NodeId) -> Result<&Node> {
        let missing =
            || Error::internal(format!("the plan has {} operators, none at {}", self.nodes.len(), node.0));
        self.nodes.get(node.0).ok_or_else(missing)
    }
}
