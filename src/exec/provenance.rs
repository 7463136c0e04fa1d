//! Where rows come from, on their way through the operators, and the samples that are drawn by it.
//!
//! A row's provenance is a column like any other here, and the last one, where an operator behind asks for it. It is
//! deliberately told by what a row was made of, and never by how many rows came before it in a batch, but for what a
//! user's function made of fewer rows or of more.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef, UInt64Type};

use crate::decode::Metadata;
use crate::error::{Error, Result};
use crate::exec::BatchContext;
use crate::provenance::{Descent, Draw, Provenance};
use crate::state::key::KeyEncoder;

/// Whether this is the column that tells where rows come from.
pub(crate) fn is_provenance(field: &Field) -> bool {
    field.name() == Metadata::Provenance.name()
}

/// Whether rows with these columns tell where they come from.
pub(crate) fn traces(schema: &Schema) -> bool {
    schema.fields().last().is_some_and(|field| is_provenance(field))
}

/// The columns, and last where each row comes from.
pub(crate) fn tracing(schema: &Schema) -> SchemaRef {
    let hidden = FieldRef::from(Metadata::Provenance.field());
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([hidden]).collect::<Vec<_>>()))
}

/// The columns without where each row comes from: those that users see.
pub(crate) fn shown(schema: &Schema) -> SchemaRef {
    let shown = schema.fields().iter().filter(|field| !is_provenance(field)).cloned();
    Arc::new(Schema::new(shown.collect::<Vec<_>>()))
}

/// How an operator's rows come to tell where they come from.
#[derive(Debug)]
pub(crate) enum Lineage {
    /// Each from the row of the input whose provenance is in this column, in this way, with this number.
    Row(usize, Descent, u64),
    /// Each from its key, which in windows has their start: whatever its batch, it stands for the same thing.
    Window(KeyEncoder),
    /// Each from its key and its batch.
    Batch(KeyEncoder),
}

impl Lineage {
    /// The provenances of the rows that are made of `batch`.
    pub(crate) fn column(&self, batch: &RecordBatch, context: &BatchContext) -> Result<ArrayRef> {
        let of = |made: UInt64Array| Ok(Arc::new(made) as ArrayRef);
        match self {
            Self::Row(place, descent, number) => {
                let rows = provenances(batch, *place)?;
                of(rows.unary(|row| Provenance(row).by(*descent, *number).0))
            }
            Self::Window(encoder) => of(encoder.encode(batch)?.hashes().to_vec().into()),
            Self::Batch(encoder) => {
                let keys = encoder.encode(batch)?;
                let in_batch = |hash: &u64| Provenance(*hash).by(Descent::Batch, context.batch.0).0;
                of(keys.hashes().iter().map(in_batch).collect::<Vec<_>>().into())
            }
        }
    }
}

/// The provenances in a column.
pub(crate) fn provenances(batch: &RecordBatch, place: usize) -> Result<&UInt64Array> {
    let column = batch.columns().get(place).and_then(|column| column.as_primitive_opt::<UInt64Type>());
    column.ok_or_else(|| Error::internal("the rows that a sample reads do not tell where they come from"))
}

/// The provenances of what a function made of `given`: of the row in the same place where as many came back, else each
/// from the first row and its place among them.
pub(crate) fn of_result(given: &UInt64Array, made: usize) -> UInt64Array {
    if made == given.len() {
        return given.clone();
    }
    let first = Provenance(given.values().first().copied().unwrap_or_default());
    (0..made as u64).map(|place| first.by(Descent::Result, place).0).collect::<Vec<_>>().into()
}

/// The provenances of the elements of lists: `rows` says for each from which row of the input it comes, and those of one
/// row follow each other.
pub(crate) fn of_elements(given: &UInt64Array, rows: &[u32]) -> UInt64Array {
    let (mut last, mut number) = (None, 0);
    let element = |row: &u32| {
        number = if last == Some(*row) { number + 1 } else { 0 };
        last = Some(*row);
        let from = given.values().get(*row as usize).copied().unwrap_or_default();
        Provenance(from).by(Descent::Element, number).0
    };
    rows.iter().map(element).collect::<Vec<_>>().into()
}

/// A sample, bound to the column of provenances.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub(crate) draw: Draw,
    pub(crate) place: usize,
}

impl Sampler {
    /// The rows that are kept, of those that `selection` marks.
    pub(crate) fn kept(
        &self,
        batch: &RecordBatch,
        selection: Option<&BooleanBuffer>,
    ) -> Result<BooleanBuffer> {
        let rows = provenances(batch, self.place)?.values();
        let marked = |row: usize| selection.is_none_or(|selection| selection.value(row));
        let drawn = |row: usize| rows.get(row).is_some_and(|row| self.draw.keeps(Provenance(*row)));
        Ok(BooleanBuffer::collect_bool(rows.len(), |row| marked(row) && drawn(row)))
    }
}
