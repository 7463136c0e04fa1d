//! Runs fused steps over a chunk of rows, from one barrier to the next.
//!
//! A filter only marks rows; marked rows are gathered once, at the first step that computes something or at the
//! barrier. It deliberately knows neither threads nor shards: it is given the state of its slot and leaves what
//! it made in a [`Mailbox`].

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::FilterBuilder;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::error::{Error, Result};
use crate::exec::aggregate::place::Placer;
use crate::exec::explode::Explosion;
use crate::exec::keyed::ShardOperator;
use crate::exec::mailbox::Mailbox;
use crate::exec::program::{Column, Moves, Port, Program, Step, StepKind};
use crate::exec::provenance::Sampler;
use crate::exec::{BatchContext, Slot};
use crate::expr::Predicate;
use crate::state::key::{KeyEncoder, Keys};

/// The stateful operators of one shard, by their number in the program; none before the first exchange.
pub(crate) type Operators = Vec<ShardOperator>;

/// Rows on their way: a batch, which of its rows are meant (all, where none says so), and their keys, where known.
pub(crate) struct Rows {
    pub(crate) batch: RecordBatch,
    selection: Option<BooleanBuffer>,
    pub(crate) keys: Option<Keys>,
}

impl Rows {
    /// All rows of `batch`.
    pub(crate) fn all(batch: RecordBatch) -> Self {
        Self { batch, selection: None, keys: None }
    }

    /// All rows of `batch`, whose keys are known.
    pub(crate) fn keyed(batch: RecordBatch, keys: Option<Keys>) -> Self {
        Self { batch, selection: None, keys }
    }

    /// Of all rows, those that `mask` marks; none where it marks none.
    fn marked(self, mask: BooleanBuffer) -> Option<Self> {
        let count = mask.count_set_bits();
        let all = count == self.batch.num_rows();
        let keys = self.keys.filter(|_| all);
        (count > 0).then_some(Self { batch: self.batch, selection: (!all).then_some(mask), keys })
    }

    /// Another view of the same rows and their keys.
    fn share(&self) -> Self {
        Self { batch: self.batch.clone(), selection: self.selection.clone(), keys: self.keys.clone() }
    }

    /// The marked rows of `columns`, gathered.
    fn gather(self, columns: Vec<ArrayRef>, schema: &SchemaRef) -> Result<RecordBatch> {
        match self.selection {
            None => batch_of(schema, columns, self.batch.num_rows()),
            Some(selection) => {
                let count = selection.count_set_bits();
                let filter = FilterBuilder::new(&BooleanArray::new(selection, None)).optimize().build();
                let gathered: Result<Vec<ArrayRef>, _> =
                    columns.iter().map(|column| filter.filter(column)).collect();
                batch_of(schema, gathered?, count)
            }
        }
    }

    /// Gathers the marked rows; rows that all are marked stay as they are, with their keys.
    pub(crate) fn dense(self) -> Result<Self> {
        if self.selection.is_none() {
            return Ok(self);
        }
        let (columns, schema) = (self.batch.columns().to_vec(), self.batch.schema());
        self.gather(columns, &schema).map(Self::all)
    }
}

/// One run of the steps behind a barrier, for the rows of one slot.
pub(crate) struct Run<'a> {
    pub(crate) program: &'a Program,
    pub(crate) context: &'a BatchContext,
    pub(crate) slot: &'a Slot,
    pub(crate) operators: &'a mut Operators,
    pub(crate) mailbox: &'a mut Mailbox,
}

impl Run<'_> {
    /// Has `rows` go to each of `ports`.
    pub(crate) fn push(&mut self, ports: &[Port], rows: Rows) -> Result<()> {
        let Some((last, others)) = ports.split_last() else { return Ok(()) };
        for port in others {
            self.enter(*port, rows.share())?;
        }
        self.enter(*last, rows)
    }

    fn enter(&mut self, port: Port, rows: Rows) -> Result<()> {
        match port {
            Port::Step(place) => self.step(place, rows),
            Port::Function(place) => {
                let batch = rows.dense()?.batch;
                self.mailbox.put_function(place, self.slot, batch);
                Ok(())
            }
            Port::Exchange(place) => {
                let batch = rows.dense()?.batch;
                self.exchange(place, batch)
            }
            Port::Output(output) => {
                let batch = rows.dense()?.batch;
                self.mailbox.put_output(output, self.slot, batch);
                Ok(())
            }
        }
    }

    fn exchange(&mut self, place: usize, batch: RecordBatch) -> Result<()> {
        let lost = || Error::internal("an exchange is missing from the program");
        let exchange = self.program.exchanges.get(place).ok_or_else(lost)?;
        match &exchange.moves {
            Moves::Rows(rows) => {
                let split = rows.split(&batch, self.mailbox.shards())?;
                self.mailbox.put_exchange(place, self.slot, split);
                Ok(())
            }
            Moves::Partials(step, _) => self
                .mailbox
                .put_partial(place, self.slot, step, batch, self.context)
                .map_err(|error| self.program.locate(exchange.node, error)),
        }
    }

    fn step(&mut self, place: usize, rows: Rows) -> Result<()> {
        let program = self.program;
        let lost = || Error::internal("a step is missing from the program");
        let step = program.steps.get(place).ok_or_else(lost)?;
        let made = match &step.kind {
            StepKind::Explode(explosion) => return self.explode(step, explosion, rows),
            StepKind::Filter(predicate, kept) => self.filter(step, predicate, kept, rows),
            StepKind::Sample(sampler, columns) => self.sample(step, sampler, columns, rows),
            StepKind::Project(columns) => self.project(step, columns, rows),
            StepKind::Keyed(operator, encoder, kept) => {
                self.keyed(step, *operator, encoder, kept, rows).map(Some)
            }
            StepKind::Late(placer, columns) => self.late(step, placer, columns, rows),
        };
        match made.map_err(|error| program.locate(step.node, error))? {
            Some(rows) => self.push(&step.ports, rows),
            None => Ok(()),
        }
    }

    /// Pushes the rows with their lists taken apart, a piece at a time.
    fn explode(&mut self, step: &Step, explosion: &Explosion, rows: Rows) -> Result<()> {
        let (program, batch) = (self.program, rows.dense()?.batch);
        let mut pieces = explosion.pieces(&batch, &step.schema)?;
        while let Some(piece) = pieces.next().map_err(|error| program.locate(step.node, error))? {
            self.push(&step.ports, Rows::all(piece))?;
        }
        Ok(())
    }

    /// Marks the rows for which `predicate` holds; nothing where it holds for none.
    fn filter(&self, step: &Step, predicate: &Predicate, kept: &[usize], rows: Rows) -> Result<Option<Rows>> {
        let mask = predicate.evaluate_selection(&rows.batch, rows.selection.as_ref(), self.context.time)?;
        let Some(rows) = rows.marked(mask) else { return Ok(None) };
        let batch = batch_of(&step.schema, pick(&rows.batch, kept)?, rows.batch.num_rows())?;
        Ok(Some(Rows { batch, ..rows }))
    }

    /// Marks the rows that are drawn; nothing where none is.
    fn sample(&self, step: &Step, sampler: &Sampler, columns: &[Column], rows: Rows) -> Result<Option<Rows>> {
        let mask = sampler.kept(&rows.batch, rows.selection.as_ref())?;
        rows.marked(mask).map_or(Ok(None), |rows| self.project(step, columns, rows))
    }

    /// Marks the rows that have no place in the placer's windows; nothing where all have one.
    fn late(
        &self,
        step: &Step,
        placer: &Placer,
        columns: &[Option<usize>],
        rows: Rows,
    ) -> Result<Option<Rows>> {
        let rows = rows.dense()?;
        let (outcasts, reasons) = placer.outcasts(&rows.batch, self.context)?;
        if outcasts.count_set_bits() == 0 {
            return Ok(None);
        }
        let column = |place: &Option<usize>| match place {
            Some(place) => nth(&rows.batch, *place),
            None => Ok(Arc::clone(&reasons)),
        };
        let made: Result<Vec<ArrayRef>> = columns.iter().map(column).collect();
        let marked = Rows { batch: rows.batch.clone(), selection: Some(outcasts), keys: None };
        Ok(Some(Rows::all(marked.gather(made?, &step.schema)?)))
    }

    fn project(&self, step: &Step, columns: &[Column], rows: Rows) -> Result<Option<Rows>> {
        let computes = columns.iter().any(|column| !matches!(column, Column::Input(_)));
        let rows = if computes { rows.dense()? } else { rows };
        let made: Result<Vec<ArrayRef>> =
            columns.iter().map(|column| self.column(column, &rows.batch)).collect();
        let batch = batch_of(&step.schema, made?, rows.batch.num_rows())?;
        Ok(Some(Rows { batch, ..rows }))
    }

    fn column(&self, column: &Column, batch: &RecordBatch) -> Result<ArrayRef> {
        match column {
            Column::Input(place) => nth(batch, *place),
            Column::Computed(expression) => expression.evaluate(batch, self.context.time),
            Column::Provenance(lineage) => lineage.column(batch, self.context),
        }
    }

    fn keyed(
        &mut self,
        step: &Step,
        operator: usize,
        encoder: &KeyEncoder,
        kept: &[usize],
        rows: Rows,
    ) -> Result<Rows> {
        let rows = rows.dense()?;
        let keys = match rows.keys {
            Some(keys) => keys,
            None => encoder.encode(&rows.batch)?,
        };
        let lost = || Error::internal("a keyed operator met rows outside its shards");
        let state = self.operators.get_mut(operator).ok_or_else(lost)?;
        let made = state.keyed()?.apply(&rows.batch, &keys)?;
        let batch = batch_of(&step.schema, pick(&made, kept)?, made.num_rows())?;
        Ok(Rows::keyed(batch, Some(keys)))
    }
}

/// A batch of `columns`, also where there are rows but no columns.
pub(crate) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The columns of `batch` at `places`.
pub(crate) fn pick(batch: &RecordBatch, places: &[usize]) -> Result<Vec<ArrayRef>> {
    places.iter().map(|place| nth(batch, *place)).collect()
}

fn nth(batch: &RecordBatch, place: usize) -> Result<ArrayRef> {
    let lost = || Error::internal(format!("a batch of {} columns has none at {place}", batch.num_columns()));
    batch.columns().get(place).cloned().ok_or_else(lost)
}
