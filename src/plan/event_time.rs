//! An event time that an expression computes of a source's records, where no column of theirs is one.
//!
//! It belongs to the source and not to what is made of its rows: it is computed as the records are decoded, of all of
//! them and before any filter, so that the watermark depends on the records alone. Where it stands in a script is checked
//! here; it is deliberately computed elsewhere, in `exec`.

use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};

use crate::error::Error;
use crate::plan::check::{Stream, widened};
use crate::plan::unknown::{self, bind_anyway, hiding, is_unknown};
use crate::plan::{Checked, Named, Node, NodeId, Operator, Plan, SourceId};
use crate::types::type_name;

/// When a record of a source happened, as an expression says.
///
/// ```
/// use std::time::Duration;
/// use tidemill::expr::Expression;
/// use tidemill::plan::{ComputedTime, Named, Operator};
///
/// let expression = Expression::sql("to_timestamp_millis(seconds * 1000)");
/// let column = Named { name: "ts".to_owned(), expression };
/// let time = ComputedTime { column, delay: Duration::from_secs(5), max_future: Duration::from_secs(3_600) };
/// assert_eq!(Operator::EventTime(time).name(), "with_event_time");
/// ```
#[derive(Clone, Debug)]
pub struct ComputedTime {
    /// The column that it becomes, and its value: a timestamp.
    pub column: Named,
    /// How far the watermark stays behind the largest.
    pub delay: Duration,
    /// A time later than the batch time by more than this moves no watermark.
    pub max_future: Duration,
}

impl ComputedTime {
    fn columns(&self) -> &[Named] {
        std::slice::from_ref(&self.column)
    }

    fn wrong_type(&self, made: &SchemaRef) -> Option<Error> {
        let field = made.fields().first().filter(|field| !is_unknown(field))?;
        if matches!(field.data_type(), DataType::Timestamp(..)) {
            return None;
        }
        let found = type_name(field.data_type());
        let text = format!("an event time is a timestamp, and {} is {found}", self.column.expression);
        Some(Error::schema(text).help(
            "convert it, say with .cast(\"timestamp[ms]\") where a number counts milliseconds, or with .str.to_datetime() \
             where it is text",
        ))
    }

    /// The rows in spite of mistakes in it: what is no timestamp is of unknown type.
    pub(super) fn anyway(&self, input: &Stream) -> Option<Stream> {
        let made = bind_anyway(self.columns(), &input.schema);
        let stream = widened(self.columns(), &made, input).ok()?;
        let wrong = self.wrong_type(&made).map(|_| self.column.name.clone());
        Some(hiding(&stream, &wrong.into_iter().collect::<Vec<_>>()))
    }
}

impl Plan {
    /// The source's columns and the time, or all that is wrong with it.
    pub(super) fn timed(
        &self,
        node: &Node,
        time: &ComputedTime,
        input: &Stream,
    ) -> Result<Stream, Vec<Error>> {
        let mut mistakes: Vec<Error> = self.misplaced(node).into_iter().collect();
        match unknown::bind_all(time.columns(), &input.schema) {
            Ok(made) => {
                mistakes.extend(time.wrong_type(&made));
                if mistakes.is_empty() { widened(time.columns(), &made, input) } else { Err(mistakes) }
            }
            Err(found) => {
                mistakes.extend(found);
                Err(mistakes)
            }
        }
    }

    /// Why this cannot be the place where a source's event time is said.
    fn misplaced(&self, node: &Node) -> Option<Error> {
        let input = node.inputs.first().and_then(|input| self.nodes.get(input.0))?;
        let Operator::Source(source) = input.operator else {
            let text = format!(
                "with_event_time says when the records of a source happened, and this stream is made by {}",
                input.operator.name()
            );
            return Some(Error::config(text).help(
                "call it on what ctx.kafka(…) returned, before anything else: the watermark goes by all records, whatever is \
                 filtered later",
            ));
        };
        let spec = self.sources.get(source.0)?;
        if let Some(told) = &spec.event_time {
            let text = format!("the source {:?} has event_time=\"{}\" already", spec.name, told.column);
            return Some(Error::config(text).help("say it in one of the two places"));
        }
        // What leads to no output is never run, and may have been tried out in a notebook.
        let live = self.live();
        let of_source = |(id, other): &(NodeId, &Node)| {
            matches!(other.operator, Operator::EventTime(_))
                && other.inputs == node.inputs
                && live.contains(id)
        };
        let mut others = self.iter().filter(of_source).map(|(_, other)| other);
        let first = others.next()?;
        if std::ptr::eq(first, node) || !others.any(|other| std::ptr::eq(other, node)) {
            return None;
        }
        let text = format!("the source {:?} has an event time by with_event_time already", spec.name);
        Some(
            Error::config(text)
                .help("a source has one watermark: make all of its windows from one such stream"),
        )
    }
}

impl Checked {
    /// The event time that is computed of the records of `source`, where somebody reads its rows, and its place.
    pub(crate) fn computed_time(&self, source: SourceId) -> Option<(NodeId, &ComputedTime)> {
        let live = self.live();
        let is_source = |node: &NodeId| {
            let node = self.plan().nodes.get(node.0);
            node.is_some_and(|node| matches!(node.operator, Operator::Source(id) if id == source))
        };
        self.plan().iter().find_map(|(id, node)| match &node.operator {
            Operator::EventTime(time) if live.contains(&id) && node.inputs.first().is_some_and(is_source) => {
                Some((id, time))
            }
            _ => None,
        })
    }
}
