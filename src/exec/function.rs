//! The barrier before a user's function: the rows of a slot come together, and the function is called once.
//!
//! It deliberately checks what the function gave back before anything else sees it: a wrong shape is the
//! user's to mend, and the error says so.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::exec::pipeline::{Rows, Run, batch_of, pick};
use crate::exec::program::{FunctionShape, FunctionStep, Side};
use crate::exec::provenance::{of_result, provenances};
use crate::exec::{BatchContext, Slot};
use crate::offset::Partition;
use crate::plan::BatchInfo;
use crate::types::type_name;

impl FunctionStep {
    /// Calls the function over all rows of the run's slot and has what it made go on.
    pub(crate) fn run(&self, run: &mut Run<'_>, rows: &[RecordBatch]) -> Result<()> {
        let batch = concat_batches(&self.input, rows)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let made = self.call(&batch, &info(run.context, run.slot));
        let made = made.map_err(|error| run.program.locate(self.node, error.at(run.slot.to_string())))?;
        run.push(&self.ports, Rows::all(made))
    }

    fn call(&self, batch: &RecordBatch, info: &BatchInfo) -> Result<RecordBatch> {
        match &self.shape {
            FunctionShape::Replaces { given, result, kept, provenance } => {
                let made = self.function.call(batch.project(given)?, info)?;
                expect_schema(result, &made)?;
                let mut columns = pick(&made, kept)?;
                if let Some(place) = provenance {
                    columns.push(Arc::new(of_result(provenances(batch, *place)?, made.num_rows())));
                }
                batch_of(&self.schema, columns, made.num_rows())
            }
            FunctionShape::Appends { given, added, kept } => {
                let made = self.function.call(batch.project(given)?, info)?;
                expect_schema(added, &made)?;
                expect_rows(batch, &made)?;
                let side = |side: &Side| match side {
                    Side::Input(place) => pick(batch, &[*place]),
                    Side::Added(place) => pick(&made, &[*place]),
                };
                let columns: Result<Vec<_>> = kept.iter().map(side).collect();
                batch_of(&self.schema, columns?.concat(), batch.num_rows())
            }
        }
    }
}

fn info(context: &BatchContext, slot: &Slot) -> BatchInfo {
    let partition = match slot {
        Slot::Partition(_, at) => at.partition,
        Slot::Shard(_, shard) => Partition(i32::try_from(*shard).unwrap_or(i32::MAX)),
    };
    BatchInfo {
        batch: context.batch,
        time: context.time,
        watermark: context.watermark,
        partition: Some(partition),
        ranges: Arc::clone(&context.ranges),
    }
}

fn expect_schema(expected: &SchemaRef, made: &RecordBatch) -> Result<()> {
    let found = made.schema();
    let same = expected.fields().len() == found.fields().len()
        && expected
            .fields()
            .iter()
            .zip(found.fields())
            .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
    if same {
        return Ok(());
    }
    let message =
        format!("expected the columns ({}), the function returned ({})", list(expected), list(&found));
    Err(Error::schema(message).help("declare what it returns with schema= or adds="))
}

fn expect_rows(given: &RecordBatch, made: &RecordBatch) -> Result<()> {
    if given.num_rows() == made.num_rows() {
        return Ok(());
    }
    let message = format!(
        "a function that adds columns returns a row for each row given: it was given {}, and returned {}",
        given.num_rows(),
        made.num_rows()
    );
    Err(Error::schema(message).help("declare all columns with schema= if it drops or adds rows"))
}

fn list(schema: &Schema) -> String {
    let described = |field: &FieldRef| format!("{}: {}", field.name(), type_name(field.data_type()));
    let columns: Vec<String> = schema.fields().iter().map(described).collect();
    columns.join(", ")
}
