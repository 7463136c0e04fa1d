//! Where rows wait at a barrier: by the barrier and by the slot that they come from.
//!
//! Within a slot they lie in the order in which they came, and slots are taken in their own order: so neither
//! the number of threads nor the order of arrival shows in a result. It deliberately bounds nothing: it counts the
//! bytes that lie here, and whoever has put rows in asks the budget for what they have become.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::event::Counts;
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::partial::Partial;
use crate::exec::exchange::Split;
use crate::exec::{BatchContext, Slot};
use crate::plan::OutputId;

/// What came to one barrier, by slot.
pub(crate) type Waiting<T> = BTreeMap<Slot, Vec<T>>;

/// The rows of one batch that wait at barriers.
#[derive(Debug)]
pub(crate) struct Mailbox {
    shards: usize,
    functions: BTreeMap<usize, Waiting<RecordBatch>>,
    exchanges: BTreeMap<usize, Waiting<Split>>,
    partials: BTreeMap<usize, BTreeMap<Slot, (Arc<AggregateStep>, Partial)>>,
    outputs: BTreeMap<OutputId, Waiting<RecordBatch>>,
    bytes: u64,
    counts: Counts,
}

impl Mailbox {
    /// An empty mailbox of a job with `shards` shards.
    pub(crate) fn new(shards: usize) -> Self {
        let (functions, exchanges, outputs) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (partials, counts) = (BTreeMap::new(), Counts::default());
        Self { shards, functions, exchanges, partials, outputs, bytes: 0, counts }
    }

    /// The number of shards to which exchanged rows go.
    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    /// The bytes of everything that waits, or has gone on to an exchange.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn put_function(&mut self, function: usize, slot: &Slot, rows: RecordBatch) {
        self.bytes += bytes_of(&rows);
        put(self.functions.entry(function).or_default(), slot, rows);
    }

    pub(crate) fn put_exchange(&mut self, exchange: usize, slot: &Slot, rows: Split) {
        self.bytes += rows.bytes();
        put(self.exchanges.entry(exchange).or_default(), slot, rows);
    }

    /// Aggregates rows into the partial of their slot.
    pub(crate) fn put_partial(
        &mut self,
        exchange: usize,
        slot: &Slot,
        step: &Arc<AggregateStep>,
        rows: RecordBatch,
        context: &BatchContext,
    ) -> Result<()> {
        let slots = self.partials.entry(exchange).or_default();
        let (_, partial) = if let Some(there) = slots.get_mut(slot) {
            there
        } else {
            let empty = Partial::new(step)?;
            self.bytes += empty.bytes();
            slots.entry(slot.clone()).or_insert((Arc::clone(step), empty))
        };
        let before = partial.bytes();
        self.counts.late += partial.add(step, rows, context)?;
        // It may have become smaller: some states drop rows that are dead.
        self.bytes = self.bytes + partial.bytes() - before;
        Ok(())
    }

    /// Readies every partial for its exchange: no more rows come to it in this stage.
    pub(crate) fn finish_partials(&mut self) -> Result<()> {
        for (exchange, slots) in std::mem::take(&mut self.partials) {
            for (slot, (step, partial)) in slots {
                self.bytes -= partial.bytes();
                let split = partial.finish(&step, self.shards)?;
                self.put_exchange(exchange, &slot, split);
            }
        }
        Ok(())
    }

    /// What was counted since it was last asked.
    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    pub(crate) fn put_output(&mut self, output: OutputId, slot: &Slot, rows: RecordBatch) {
        self.bytes += bytes_of(&rows);
        put(self.outputs.entry(output).or_default(), slot, rows);
    }

    /// Takes what waits at a function.
    pub(crate) fn take_function(&mut self, function: usize) -> Waiting<RecordBatch> {
        let waiting = self.functions.remove(&function).unwrap_or_default();
        self.bytes -= waiting.values().flatten().map(bytes_of).sum::<u64>();
        waiting
    }

    /// Takes what waits at all exchanges.
    pub(crate) fn take_exchanges(&mut self) -> BTreeMap<usize, Waiting<Split>> {
        std::mem::take(&mut self.exchanges)
    }

    /// Takes what waits at the outputs.
    pub(crate) fn take_outputs(&mut self) -> Vec<(OutputId, Slot, Vec<RecordBatch>)> {
        let outputs = std::mem::take(&mut self.outputs).into_iter();
        outputs
            .flat_map(|(id, waiting)| waiting.into_iter().map(move |(slot, rows)| (id, slot, rows)))
            .collect()
    }

    /// Puts in everything that `other` holds, behind what is there.
    pub(crate) fn absorb(&mut self, mut other: Self) -> Result<()> {
        other.finish_partials()?;
        merge(&mut self.functions, other.functions);
        merge(&mut self.exchanges, other.exchanges);
        merge(&mut self.outputs, other.outputs);
        self.bytes += other.bytes;
        self.counts += other.counts;
        Ok(())
    }
}

/// The bytes of a batch's own rows; a slice counts what it shows, not the buffers that it shares.
pub(crate) fn bytes_of(rows: &RecordBatch) -> u64 {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default() as u64;
    rows.columns().iter().map(bytes).sum()
}

fn put<T>(waiting: &mut Waiting<T>, slot: &Slot, rows: T) {
    match waiting.get_mut(slot) {
        Some(there) => there.push(rows),
        None => drop(waiting.insert(slot.clone(), vec![rows])),
    }
}

fn merge<K: Ord, T>(into: &mut BTreeMap<K, Waiting<T>>, from: BTreeMap<K, Waiting<T>>) {
    for (place, waiting) in from {
        let there = into.entry(place).or_default();
        for (slot, rows) in waiting {
            there.entry(slot).or_default().extend(rows);
        }
    }
}
