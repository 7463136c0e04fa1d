//! One shard: the state of its keys, and the stages behind an exchange over its rows.
//!
//! It deliberately holds no rows between batches, only operators; a shard is taken over, with its state, by
//! whoever owns it in the next epoch.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::exec::exchange::{Split, gather};
use crate::exec::keyed::ShardOperator;
use crate::exec::mailbox::Mailbox;
use crate::exec::pipeline::{Operators, Rows, Run};
use crate::exec::program::{Moves, OperatorSpec, Program};
use crate::exec::{BatchContext, Slot, StateSize};

/// The stateful operators of one shard.
pub(crate) struct Shard {
    pub(crate) number: usize,
    pub(crate) operators: Operators,
}

impl Shard {
    /// The shard with `state`, one snapshot an operator; without any where there is none.
    pub(crate) fn load(program: &Program, number: usize, state: Option<&[RecordBatch]>) -> Result<Self> {
        let mut operators: Operators =
            program.operators.iter().map(OperatorSpec::build).collect::<Result<_>>()?;
        if let Some(state) = state {
            expect_count(operators.len(), state.len())?;
            operators
                .iter_mut()
                .zip(state)
                .try_for_each(|(operator, snapshot)| operator.restore(snapshot))?;
        }
        Ok(Self { number, operators })
    }

    /// Runs what lies behind the exchange `place` over the rows that `splits` bring to this shard.
    pub(crate) fn run(
        &mut self,
        program: &Program,
        context: &BatchContext,
        place: usize,
        splits: &[&Split],
        shards: usize,
    ) -> Result<Mailbox> {
        let lost = || Error::internal("an exchange is missing from the program");
        let exchange = program.exchanges.get(place).ok_or_else(lost)?;
        let (slot, mut mailbox) = (Slot::Shard(place, self.number), Mailbox::new(shards));
        let arrived = match &exchange.moves {
            Moves::Rows(_) => gather(splits.iter().copied(), self.number),
            Moves::Partials(_, operator) => self.aggregate(*operator, splits, context),
        };
        for rows in arrived.map_err(|error| program.locate(exchange.node, error))? {
            let operators = &mut self.operators;
            let mut run = Run { program, context, slot: &slot, operators, mailbox: &mut mailbox };
            run.push(&exchange.ports, rows)?;
        }
        Ok(mailbox)
    }

    /// Merges what `splits` bring to this shard, in order; what the batch then comes to.
    fn aggregate(&mut self, operator: usize, splits: &[&Split], context: &BatchContext) -> Result<Vec<Rows>> {
        let lost = || Error::internal("an operator is missing from its shard");
        let operator = self.operators.get_mut(operator).ok_or_else(lost)?.aggregate()?;
        for (rows, keys) in splits.iter().filter_map(|split| split.shard(self.number)) {
            operator.merge(&rows, &keys)?;
        }
        Ok(operator.close(context)?.into_iter().map(Rows::all).collect())
    }

    /// A snapshot of each operator.
    pub(crate) fn snapshot(&self) -> Result<Vec<RecordBatch>> {
        self.operators.iter().map(ShardOperator::snapshot).collect()
    }

    /// The size of each operator's state.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = StateSize> {
        self.operators.iter().map(ShardOperator::size)
    }
}

/// Shards by number.
pub(crate) type Shards = BTreeMap<usize, Shard>;

fn expect_count(operators: usize, snapshots: usize) -> Result<()> {
    if operators == snapshots {
        return Ok(());
    }
    Err(Error::internal(format!("the state of {snapshots} operators cannot be restored into {operators}")))
}
