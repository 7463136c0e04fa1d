//! `detect`: a detector's scores beside the rows of a keyed stream.
//!
//! It joins two parts that do not know each other: the table that gives each key a slot, and the detector's states,
//! numbered by slot. It deliberately scores nothing itself.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};

use crate::detect::pipeline::STATE_VERSION;
use crate::detect::{DetectSpec, Scores, States};
use crate::error::{Error, Result};
use crate::exec::StateSize;
use crate::exec::capture::Copied;
use crate::exec::keyed::{KeyedOperator, no_snapshot};
use crate::exec::unscored::Unscored;
use crate::state::chunk::Kind;
use crate::state::form::{Layout, StateForm};
use crate::state::key::Keys;
use crate::state::rows::Rows;
use crate::state::snapshot::{restore, snapshot};
use crate::state::table::KeyTable;
use crate::state::touched::Touched;

/// The operator of one shard.
pub struct DetectOperator {
    spec: DetectSpec,
    inputs: Vec<usize>,
    schema: SchemaRef,
    table: KeyTable,
    states: Box<dyn States>,
    unscored: Unscored,
    /// The keys that came since the last capture; none before the first.
    touched: Option<Touched>,
    slots: Vec<u32>, // of the rows at hand; kept from batch to batch for its memory
}

impl DetectOperator {
    /// An operator without state, over rows of the schema `input`.
    pub fn new(spec: DetectSpec, input: &SchemaRef) -> Result<Self> {
        if let Some(error) = spec.check(input).into_iter().next() {
            return Err(error.at("detect"));
        }
        let inputs = spec.columns.iter().map(|name| input.index_of(name)).collect::<Result<_, _>>()?;
        let states = spec.detector.start(spec.columns.len(), spec.accepted())?;
        let schema = output_schema(input, &spec);
        let (table, unscored) = (KeyTable::default(), Unscored::default());
        Ok(Self { spec, inputs, schema, table, states, unscored, touched: None, slots: Vec::new() })
    }

    /// The schema of its output: the input's columns, and those that it adds.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn features(&self, rows: &RecordBatch) -> Result<Vec<Float64Array>> {
        self.inputs.iter().map(|index| feature(rows, *index)).collect()
    }

    fn output(&self, rows: &RecordBatch, scores: Scores) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        columns.extend([
            Arc::new(scores.score) as ArrayRef,
            Arc::new(scores.p_value),
            Arc::new(scores.is_anomaly),
        ]);
        if self.spec.columns.len() > 1 {
            columns.push(Arc::new(feature_names(
                &self.spec.columns,
                scores.top_feature.as_ref(),
                rows.num_rows(),
            )));
        }
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

impl KeyedOperator for DetectOperator {
    fn apply(&mut self, rows: &RecordBatch, keys: &Keys) -> Result<RecordBatch> {
        if keys.len() != rows.num_rows() {
            let (keys, rows) = (keys.len(), rows.num_rows());
            return Err(
                Error::internal(format!("one key a row was expected, found {keys} for {rows}")).at("detect")
            );
        }
        let features = self.features(rows)?;
        for values in &features {
            self.unscored.count(values);
        }
        self.table.slots(keys, &mut self.slots)?;
        if let Some(touched) = &mut self.touched {
            touched.mark(&self.slots);
        }
        let scores = self.states.update(&self.slots, &features)?;
        self.output(rows, scores)
    }

    fn size(&self) -> StateSize {
        let bytes = self.table.bytes() + self.states.bytes();
        StateSize { entries: self.table.len() as u64, bytes: bytes as u64, windows: 0 }
    }

    fn unscored(&self) -> Unscored {
        self.unscored
    }

    fn snapshot(&self) -> Result<RecordBatch> {
        snapshot(&self.table, &self.states.to_arrow()?)
    }

    fn restore(&mut self, snapshot: &RecordBatch) -> Result<()> {
        let (table, states) = restore(snapshot)?;
        let states = self.spec.detector.restore(self.spec.columns.len(), self.spec.accepted(), &states)?;
        (self.table, self.states, self.touched) = (table, states, None);
        Ok(())
    }

    fn capture(&mut self, kind: Kind) -> Result<Copied> {
        let slots = match (kind, &mut self.touched) {
            (Kind::Delta, Some(touched)) => touched.take(),
            (Kind::Delta, None) => return Err(no_snapshot()),
            (Kind::Snapshot, touched) => {
                *touched = Some(Touched::default());
                self.table.all_slots()
            }
        };
        Ok(Copied::Keys(self.table.copied(&slots)?, self.states.copied(&slots)?))
    }

    fn load(&mut self, form: &StateForm, rows: &Rows) -> Result<()> {
        let (table, states) = rows.to_table(form)?;
        let states = self.spec.detector.restore(self.spec.columns.len(), self.spec.accepted(), &states)?;
        (self.table, self.states, self.touched) = (table, states, Some(Touched::default()));
        Ok(())
    }
}

/// What the state of `spec` is, over keys of the text `keys`.
pub(crate) fn state_form(spec: &DetectSpec, keys: &str) -> Result<StateForm> {
    let states = spec.detector.start(spec.columns.len(), spec.accepted())?.to_arrow()?.schema();
    let version = states.metadata().get(STATE_VERSION).map_or("0", String::as_str);
    let detector = format!("{} {version}", spec.detector.name());
    let of = spec.columns.join(", ");
    let aspects = [("operator", "detect"), ("keys", keys), ("of", &of), ("detector", &detector)];
    Ok(StateForm::new(Layout::Keys, states, aspects))
}

fn output_schema(input: &SchemaRef, spec: &DetectSpec) -> SchemaRef {
    let added = spec.output_fields().into_iter().map(Arc::new);
    let fields: Vec<_> = input.fields().iter().cloned().chain(added).collect();
    Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()))
}

fn feature(rows: &RecordBatch, index: usize) -> Result<Float64Array> {
    let column = rows.columns().get(index).ok_or_else(|| {
        Error::internal(format!("a column {index} was expected, found {}", rows.num_columns()))
    })?;
    Ok(compute::cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

fn feature_names(columns: &[String], top: Option<&UInt32Array>, rows: usize) -> StringArray {
    let name = |number: u32| columns.get(number as usize).map(String::as_str);
    match top {
        Some(top) => top.iter().map(|number| number.and_then(name)).collect(),
        None => StringArray::new_null(rows),
    }
}
