//! The sinks of a job with a checkpoint, on their one thread: prepare, publish, commit, show.
//!
//! A batch is encoded before it is decided, and what is published are those bytes. It deliberately holds one batch: the
//! next is prepared once this one is committed.

use std::any::Any;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::checkpoint::entry::Position;
use crate::driver::durable::keeper::Keeper;
use crate::driver::durable::payload::Decided;
use crate::driver::memory::Memory;
use crate::error::{Error, Result};
use crate::sink::marker::Marker;
use crate::sink::outputs::{Outputs, PreparedBatch, Role};
use crate::sink::{Delivery, Sink};
use crate::time::BatchId;

/// A batch that is decided and not committed.
struct Open {
    deliveries: Vec<Delivery>,
    prepared: PreparedBatch,
    position: Position,
    _hold: Option<Box<dyn Any + Send>>, // the rows' memory
}

/// Publishes decided batches.
pub(crate) struct Publisher {
    keeper: Arc<Keeper>,
    outputs: Outputs,
    /// What the place keeps now.
    marker: Option<Marker>,
    open: Option<Open>,
}

impl Publisher {
    pub(super) fn new(keeper: Arc<Keeper>, outputs: Outputs, marker: Option<Marker>) -> Self {
        Self { keeper, outputs, marker, open: None }
    }

    /// Encodes a batch and decides it: its state, its output, and what the driver remembers.
    pub(crate) fn prepare(
        &mut self,
        sinks: &mut [&mut dyn Sink],
        deliveries: Vec<Delivery>,
        memory: Memory,
        hold: Option<Box<dyn Any + Send>>,
    ) -> Result<()> {
        let prepared = self.outputs.prepare(sinks, &deliveries, self.keeper.epoch())?;
        let batch = memory.batch;
        let decided = Decided {
            manifest: self.keeper.state_after(batch)?,
            memory,
            marker: *prepared.marker(),
            publishes: prepared.publishes(),
            before: self.marker,
            records: prepared.records(),
        };
        let position = self.keeper.prepare(batch, &decided)?;
        self.open = Some(Open { deliveries, prepared, position, _hold: hold });
        Ok(())
    }

    /// The deliveries of the batch that is open, to the sinks that are given them before they are committed, or after.
    pub(crate) fn deliveries(&self, role: Role) -> Result<Vec<(usize, Delivery)>> {
        let open = self.open.as_ref().ok_or_else(nothing_open)?;
        let numbered = open.deliveries.iter().enumerate();
        Ok(numbered
            .filter(|(index, _)| self.outputs.role(*index) == role)
            .map(|(i, d)| (i, d.clone()))
            .collect())
    }

    /// The batch that is open, and the numbers of the sinks that publish rows of it, with how many.
    pub(crate) fn publishing(&self) -> Result<(BatchId, Vec<(usize, u64)>)> {
        let open = self.open.as_ref().ok_or_else(nothing_open)?;
        let rows = |delivery: &Delivery| delivery.rows.iter().map(|rows| rows.num_rows() as u64).sum();
        let publishes =
            |index: usize| matches!(self.outputs.role(index), Role::Leads | Role::Joins | Role::Follows);
        let numbered = open.deliveries.iter().map(rows).enumerate();
        let outputs = numbered.filter(|(index, rows)| *rows > 0 && publishes(*index)).collect();
        Ok((open.prepared.marker().batch, outputs))
    }

    /// Publishes the batch that is open, with its marker.
    pub(crate) fn publish(&mut self, sinks: &mut [&mut dyn Sink], cancel: &Cancel) -> Result<()> {
        let open = self.open.as_ref().ok_or_else(nothing_open)?;
        if !open.prepared.publishes() {
            return Ok(());
        }
        let published = self.outputs.publish(sinks, &open.prepared, &[], cancel)?;
        published.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        self.marker = Some(*open.prepared.marker());
        Ok(())
    }

    /// Makes safe that the batch that is open is done. Its rows stay for whoever shows them.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let open = self.open.as_ref().ok_or_else(nothing_open)?;
        self.keeper.commit(open.prepared.marker(), open.position)
    }

    /// Lets the batch go.
    pub(crate) fn done(&mut self) {
        self.open = None;
    }

    /// Says that the stream ends, so that the next driver need not wait to see whether this one lives.
    pub(crate) fn stop(&self) {
        self.keeper.stop();
    }
}

fn nothing_open() -> Error {
    Error::internal("a batch is published that was not prepared")
}
