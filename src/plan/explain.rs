//! A checked plan as text: what `explain()` shows.
//!
//! It deliberately says only what is true of every run of the plan; times and figures are in the progress.

use std::fmt::Write;

use arrow::datatypes::{FieldRef, Schema};

use crate::error::Result;
use crate::plan::{AggregateSpec, Checked, Emit, FunctionSchema, Named, Node, Operator, OutputId, Seed};
use crate::types::type_name;

impl Checked {
    /// One line an operator: its number, its inputs, what it does, where an exchange or a barrier lies, and the
    /// columns that somebody reads of it.
    pub fn explain(&self) -> Result<String> {
        let pruned = self.pruned()?;
        let mut text = String::new();
        for ((id, node), schema) in self.plan().iter().zip(&pruned) {
            let inputs: Vec<String> = node.inputs.iter().map(|input| format!("#{}", input.0)).collect();
            let from = if inputs.is_empty() { String::new() } else { format!(" <- {}", inputs.join(", ")) };
            let _ = write!(text, "#{}{from}  {}", id.0, self.describe(node));
            match node.operator {
                Operator::Output(_) => text.push('\n'),
                _ => {
                    let _ = write!(text, "\n      columns: {}\n", columns(schema));
                }
            }
        }
        Ok(text)
    }

    fn describe(&self, node: &Node) -> String {
        let what = match &node.operator {
            Operator::Source(id) => {
                let name = self.plan().sources.get(id.0).map_or("", |source| source.name.as_str());
                format!("source {name}")
            }
            Operator::DeadLetters(_) => "dead_letters".to_owned(),
            Operator::EventTime(time) => format!(
                "with_event_time {}, watermark {:?} behind [before all filters]",
                expressions(std::slice::from_ref(&time.column)),
                time.delay
            ),
            Operator::Filter(predicate) => format!("filter {predicate}"),
            Operator::Select(named) => format!("select {}", expressions(named)),
            Operator::WithColumns(named) => format!("with_columns {}", expressions(named)),
            Operator::Drop(names) => format!("drop {}", names.join(", ")),
            Operator::Explode(names) => format!("explode {}", names.join(", ")),
            Operator::Sample(spec) => {
                let own = if matches!(spec.seed, Seed::Own(_)) { ", its own" } else { "" };
                format!("sample {} [seed {}{own}]", spec.fraction, spec.seed.value())
            }
            Operator::Rename(names) => {
                let pairs: Vec<String> = names.iter().map(|(old, new)| format!("{old} -> {new}")).collect();
                format!("rename {}", pairs.join(", "))
            }
            Operator::MapBatches { schema, label, .. } => {
                format!("{label} [one call a partition]{}", adds(schema))
            }
            Operator::Repartition(parts) => {
                let over = parts.map_or_else(|| "all".to_owned(), |parts| format!("{parts} of the"));
                format!("repartition [over {over} shards]")
            }
            Operator::KeyBy(keys) => format!("key_by {} [exchange by key group]", keys.join(", ")),
            Operator::Detect(spec) => {
                format!("detect {} with {}", spec.columns.join(", "), spec.detector.name())
            }
            Operator::Aggregate(spec) => aggregation(spec),
            Operator::Late(spec) => format!("late for windows of {} on {}", spec.shape, spec.on),
            Operator::Union => "union".to_owned(),
            Operator::Output(id) => self.output_of(*id, node),
        };
        match &node.site {
            Some(site) => format!("{what}  ({site})"),
            None => what,
        }
    }
}

impl Checked {
    fn output_of(&self, id: OutputId, node: &Node) -> String {
        let keys = node.inputs.first().and_then(|input| self.keys(*input).ok().flatten());
        let demand = self.plan().outputs.get(id.0).and_then(Option::as_ref);
        match demand.map(|demand| demand.label(keys)).filter(|label| !label.is_empty()) {
            Some(label) => format!("output {}: {label} [at least once]", id.0),
            None => format!("output {} [at least once]", id.0),
        }
    }
}

fn aggregation(spec: &AggregateSpec) -> String {
    let window = spec.window.as_ref().map(|window| {
        let when = match window.emit {
            Emit::Final => "when they end",
            Emit::Updates => "at each change",
        };
        format!(" in windows of {} on {}, {when}", window.shape, window.on)
    });
    let keys = if spec.keys.is_empty() { String::new() } else { format!(" by {}", spec.keys.join(", ")) };
    let (window, results) = (window.unwrap_or_default(), expressions(&spec.columns));
    format!("agg {results}{keys}{window} [partials, exchange by key group]")
}

fn columns(schema: &Schema) -> String {
    let described = |field: &FieldRef| format!("{}: {}", field.name(), type_name(field.data_type()));
    let columns: Vec<String> = schema.fields().iter().map(described).collect();
    columns.join(", ")
}

fn expressions(named: &[Named]) -> String {
    let columns: Vec<String> =
        named.iter().map(|column| format!("{} = {}", column.name, column.expression)).collect();
    columns.join(", ")
}

fn adds(schema: &FunctionSchema) -> String {
    match schema {
        FunctionSchema::Adds(added) => format!(" adds {}", columns(added)),
        FunctionSchema::Same | FunctionSchema::Exactly(_) => String::new(),
    }
}
