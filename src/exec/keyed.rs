//! What an operator with state per key is to the stage that runs it.
//!
//! It deliberately says nothing of threads or shards: a stage gives each shard its own operator, and calls it with
//! the shard's rows in order.

use arrow::array::RecordBatch;

use crate::error::{Error, Result};
use crate::exec::aggregate::operator::AggregateOperator;
use crate::exec::capture::Copied;
use crate::exec::unscored::Unscored;
use crate::exec::{OperatorState, StateSize};
use crate::state::chunk::Kind;
use crate::state::form::StateForm;
use crate::state::key::Keys;
use crate::state::rows::Rows;

/// An operator with state per key, over the keys of one shard.
pub trait KeyedOperator: Send {
    /// The output of these rows; the state then is that after them. Keys are those of the rows, one a row.
    fn apply(&mut self, rows: &RecordBatch, keys: &Keys) -> Result<RecordBatch>;

    /// How much state there is.
    fn size(&self) -> StateSize;

    /// The values that it could make nothing of, since it was made.
    fn unscored(&self) -> Unscored {
        Unscored::default()
    }

    /// All state, sorted by key group and key.
    fn snapshot(&self) -> Result<RecordBatch>;

    /// Replaces all state by that of a snapshot; after an error it is as it was.
    fn restore(&mut self, snapshot: &RecordBatch) -> Result<()>;

    /// A copy of all state, or of what has changed since the last copy; changes are noted from the first on.
    fn capture(&mut self, kind: Kind) -> Result<Copied>;

    /// Replaces all state by `rows`, which are of the form `form`; changes are noted from here on. After an error it is as
    /// it was.
    fn load(&mut self, form: &StateForm, rows: &Rows) -> Result<()>;
}

/// A delta without a snapshot before it would be one since nobody knows when.
pub(crate) fn no_snapshot() -> Error {
    Error::internal("a delta of a state was asked for of which no snapshot was taken")
}

/// An operator of a shard, by the way in which it is called.
pub(crate) enum ShardOperator {
    /// It is given rows, and answers with rows.
    Keyed(Box<dyn KeyedOperator>),
    /// It is given partials, and answers once a batch.
    Aggregate(Box<AggregateOperator>),
}

impl ShardOperator {
    /// The operator as one over rows.
    pub(crate) fn keyed(&mut self) -> Result<&mut dyn KeyedOperator> {
        match self {
            Self::Keyed(operator) => Ok(&mut **operator),
            Self::Aggregate(_) => Err(Error::internal("rows came to an operator over partials")),
        }
    }

    /// The operator as one over partials.
    pub(crate) fn aggregate(&mut self) -> Result<&mut AggregateOperator> {
        match self {
            Self::Aggregate(operator) => Ok(operator),
            Self::Keyed(_) => Err(Error::internal("partials came to an operator over rows")),
        }
    }

    /// Adds how much state there is to `sum`.
    pub(crate) fn add_size(&self, sum: &mut OperatorState) {
        match self {
            Self::Keyed(operator) => {
                let size = operator.size();
                sum.entries += size.entries;
                sum.bytes += size.bytes;
                sum.unscored += operator.unscored();
            }
            Self::Aggregate(operator) => operator.add_size(sum),
        }
    }

    /// All state, sorted by key group.
    pub(crate) fn snapshot(&self) -> Result<RecordBatch> {
        match self {
            Self::Keyed(operator) => operator.snapshot(),
            Self::Aggregate(operator) => operator.snapshot(),
        }
    }

    /// A copy of all state, or of what has changed since the last copy.
    pub(crate) fn capture(&mut self, kind: Kind) -> Result<Copied> {
        match self {
            Self::Keyed(operator) => operator.capture(kind),
            Self::Aggregate(operator) => operator.capture(kind),
        }
    }

    /// Replaces all state by `rows`.
    pub(crate) fn load(&mut self, form: &StateForm, rows: &Rows) -> Result<()> {
        match self {
            Self::Keyed(operator) => operator.load(form, rows),
            Self::Aggregate(operator) => operator.load(rows),
        }
    }

    /// Replaces all state by that of a snapshot; after an error it is as it was.
    pub(crate) fn restore(&mut self, snapshot: &RecordBatch) -> Result<()> {
        match self {
            Self::Keyed(operator) => operator.restore(snapshot),
            Self::Aggregate(operator) => operator.restore(snapshot),
        }
    }
}
