//! Which columns each operator must yield, so that nothing is decoded or copied that nobody reads.
//!
//! It works backwards from the outputs and deliberately changes no operator: `exec` binds each one to the columns
//! that are left.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};

use crate::error::Result;
use crate::plan::check::new_name;
use crate::plan::{AggregateSpec, Checked, FunctionSchema, Named, Node, NodeId, Operator, Plan};

/// For each operator, the names of the columns that somebody reads of it.
type Needed = Vec<HashSet<String>>;

impl Checked {
    /// The columns of each operator that somebody reads, in the order of its schema.
    pub(crate) fn pruned(&self) -> Result<Vec<SchemaRef>> {
        let mut needed: Needed = vec![HashSet::new(); self.plan().nodes.len()];
        let live = self.live();
        for (id, node) in self.plan().iter().rev().filter(|(id, _)| live.contains(id)) {
            let own = needed.get(id.0).cloned().unwrap_or_default();
            for input in &node.inputs {
                let reads = self.reads(node, *input, &own)?;
                needed.get_mut(input.0).into_iter().for_each(|set| set.extend(reads.iter().cloned()));
            }
        }
        self.plan().iter().zip(needed).map(|((id, _), names)| Ok(keep(self.schema(id)?, &names))).collect()
    }

    /// The operators that lead to an output; the others are never run.
    pub(crate) fn live(&self) -> HashSet<NodeId> {
        self.plan().live()
    }

    /// The columns of `input` that `node` reads when `own` of its columns are needed.
    fn reads(&self, node: &Node, input: NodeId, own: &HashSet<String>) -> Result<HashSet<String>> {
        let schema = self.schema(input)?;
        let inputs_of = |names: &HashSet<String>| names.iter().filter(|n| has(schema, n)).cloned().collect();
        Ok(match &node.operator {
            Operator::Source(_) | Operator::DeadLetters(_) => HashSet::new(),
            Operator::Drop(_) | Operator::Union | Operator::Sample(_) | Operator::Repartition(_) => {
                own.clone()
            }
            Operator::Filter(predicate) => with(own.clone(), predicate.columns()),
            Operator::Select(columns) => expressions(columns, own),
            Operator::WithColumns(columns) => {
                let kept =
                    own.iter().filter(|name| !columns.iter().any(|column| column.name == **name)).cloned();
                with(kept.collect(), expressions(columns, own))
            }
            // The watermark needs it, whoever reads the column.
            Operator::EventTime(time) => {
                let kept = own.iter().filter(|name| **name != time.column.name).cloned().collect();
                with(kept, time.column.expression.columns())
            }
            Operator::Rename(names) => {
                let needed = |name: &String| own.contains(new_name(name, names));
                all(schema).into_iter().filter(needed).collect()
            }
            Operator::MapBatches { schema: FunctionSchema::Adds(_), reads: Some(reads), .. } => {
                with(inputs_of(own), reads.iter().cloned())
            }
            Operator::MapBatches { .. } | Operator::Output(_) => all(schema),
            Operator::KeyBy(names) | Operator::Explode(names) => with(own.clone(), names.iter().cloned()),
            Operator::Aggregate(spec) => inputs_of(&aggregated(spec)),
            Operator::Late(spec) => with(inputs_of(own), [spec.on.clone()]),
            Operator::Detect(spec) => {
                let keys = self.keys(input)?.unwrap_or_default().iter().cloned();
                with(with(inputs_of(own), spec.columns.iter().cloned()), keys)
            }
        })
    }
}

impl Plan {
    /// The operators that lead to an output.
    pub(super) fn live(&self) -> HashSet<NodeId> {
        let mut live = HashSet::new();
        for (id, node) in self.iter().rev() {
            if matches!(node.operator, Operator::Output(_)) || live.contains(&id) {
                live.insert(id);
                live.extend(node.inputs.iter().copied());
            }
        }
        live
    }
}

fn has(schema: &Schema, name: &str) -> bool {
    schema.field_with_name(name).is_ok()
}

fn all(schema: &Schema) -> HashSet<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

fn with(mut names: HashSet<String>, more: impl IntoIterator<Item = String>) -> HashSet<String> {
    names.extend(more);
    names
}

/// The columns that an aggregation reads: all, whoever reads its results, since what it remembers must not depend on that.
fn aggregated(spec: &AggregateSpec) -> HashSet<String> {
    let on = spec.window.iter().map(|window| window.on.clone());
    let read = spec.columns.iter().flat_map(|column| column.expression.columns());
    on.chain(read).chain(spec.keys.iter().cloned()).collect()
}

/// The columns that those of `columns` read that are needed.
fn expressions(columns: &[Named], needed: &HashSet<String>) -> HashSet<String> {
    let wanted = columns.iter().filter(|column| needed.contains(&column.name));
    wanted.flat_map(|column| column.expression.columns()).collect()
}

fn keep(schema: &Schema, names: &HashSet<String>) -> SchemaRef {
    let fields: Vec<FieldRef> =
        schema.fields().iter().filter(|field| names.contains(field.name())).cloned().collect();
    Arc::new(Schema::new(fields))
}
