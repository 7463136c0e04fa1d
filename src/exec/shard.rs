//! One shard: the state of its keys, and the stages behind an exchange over its rows.
//!
//! It deliberately holds no rows between batches, only operators; a shard is taken over, with its state, by
//! whoever owns it in the next epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::exec::aggregate::operator::AggregateOperator;
use crate::exec::budget::Budget;
use crate::exec::capture::Copied;
use crate::exec::exchange::{Split, gather};
use crate::exec::keyed::ShardOperator;
use crate::exec::mailbox::Mailbox;
use crate::exec::pipeline::{Operators, Rows, Run};
use crate::exec::program::{Exchange, Moves, OperatorSpec, Program};
use crate::exec::room::Room;
use crate::exec::{BatchContext, OperatorState, Slot};
use crate::state::chunk::Kind;

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

    /// Runs what lies behind the exchange `place` over the rows that `splits` bring to this shard. What it made, and how
    /// many bytes of it have been asked for.
    pub(crate) fn run(
        &mut self,
        program: &Program,
        context: &BatchContext,
        place: usize,
        splits: &[&Split],
        memory: &Memory<'_>,
    ) -> Result<(Mailbox, u64)> {
        let lost = || Error::internal("an exchange is missing from the program");
        let exchange = program.exchanges.get(place).ok_or_else(lost)?;
        let located = |error| program.locate(exchange.node, error);
        let slot = Slot::Shard(place, self.number);
        let mut made =
            Made { program, context, slot, memory, mailbox: Mailbox::new(memory.shards), asked: 0 };
        match &exchange.moves {
            Moves::Rows(_) => {
                for rows in gather(splits.iter().copied(), self.number).map_err(located)? {
                    made.push(exchange, &mut self.operators, rows)?;
                }
            }
            Moves::Partials(_, operator) => {
                self.merge(*operator, splits, memory.room).map_err(located)?;
                while let Some(rows) = self.next_rows(*operator, context, memory.room).map_err(located)? {
                    made.push(exchange, &mut self.operators, Rows::all(rows))?;
                    made.ask(exchange).map_err(located)?;
                }
            }
        }
        Ok((made.mailbox, made.asked))
    }

    /// Merges what `splits` bring to this shard, in order.
    fn merge(&mut self, operator: usize, splits: &[&Split], room: &Room) -> Result<()> {
        let operator = aggregate(&mut self.operators, operator)?;
        let own = splits.iter().filter_map(|split| split.shard(self.number));
        own.into_iter().try_for_each(|(rows, keys)| operator.merge(&rows, &keys, room))
    }

    /// The next of what the batch comes to.
    fn next_rows(
        &mut self,
        operator: usize,
        context: &BatchContext,
        room: &Arc<Room>,
    ) -> Result<Option<RecordBatch>> {
        aggregate(&mut self.operators, operator)?.next_rows(context, room)
    }

    /// A snapshot of each operator.
    pub(crate) fn snapshot(&self) -> Result<Vec<RecordBatch>> {
        self.operators.iter().map(ShardOperator::snapshot).collect()
    }

    /// A copy of what the operator at `place` remembers, or of what of it changed.
    pub(crate) fn capture(&mut self, place: usize, kind: Kind) -> Result<Copied> {
        let lost = || Error::internal("an operator is missing from its shard");
        self.operators.get_mut(place).ok_or_else(lost)?.capture(kind)
    }

    /// Adds the size of each operator's state to its place in `sums`.
    pub(crate) fn add_sizes(&self, sums: &mut [OperatorState]) {
        self.operators.iter().zip(sums).for_each(|(operator, sum)| operator.add_size(sum));
    }
}

/// Whom a shard asks for memory, and how many shards there are.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    pub(crate) budget: &'a Budget,
    pub(crate) room: &'a Arc<Room>,
    pub(crate) cancel: &'a Cancel,
    pub(crate) shards: usize,
}

/// What a shard makes of a batch.
struct Made<'a> {
    program: &'a Program,
    context: &'a BatchContext,
    slot: Slot,
    memory: &'a Memory<'a>,
    mailbox: Mailbox,
    asked: u64,
}

impl Made<'_> {
    fn push(&mut self, exchange: &Exchange, operators: &mut Operators, rows: Rows) -> Result<()> {
        let Self { program, context, slot, mailbox, .. } = self;
        Run { program, context, slot, operators, mailbox }.push(&exchange.ports, rows)
    }

    /// Asks for what has been made of the results of windows so far, before more of them are made: a few rows can end
    /// windows of any number of keys.
    fn ask(&mut self, exchange: &Exchange) -> Result<()> {
        let more = self.mailbox.bytes().saturating_sub(self.asked);
        self.asked += more;
        match &exchange.moves {
            Moves::Partials(step, _) if step.window.is_some() => {
                self.memory.budget.reserve_results(self.context.batch, more, self.memory.cancel)
            }
            _ => self.memory.budget.reserve(self.context.batch, more, self.memory.cancel, EXCHANGE),
        }
    }
}

/// Where rows are that nobody else asked for.
pub(crate) const EXCHANGE: &str = "an exchange";

fn aggregate(operators: &mut Operators, place: usize) -> Result<&mut AggregateOperator> {
    let lost = || Error::internal("an operator is missing from its shard");
    operators.get_mut(place).ok_or_else(lost)?.aggregate()
}

/// Shards by number.
pub(crate) type Shards = BTreeMap<usize, Shard>;

fn expect_count(operators: usize, snapshots: usize) -> Result<()> {
    if operators == snapshots {
        return Ok(());
    }
    Err(Error::internal(format!("the state of {snapshots} operators cannot be restored into {operators}")))
}
