//! Dead letters in a plan: who takes those of a source, and the headers that say where each came from.
//!
//! What a dead letter is, `decode` says. Here it is only seen to that none is lost unseen, and deliberately before the
//! start: a job that keeps dead letters for nobody would drop them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, ListArray, RecordBatch, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::decode::{OnBad, dead_letter_schema};
use crate::error::{Error, Result};
use crate::plan::check::Stream;
use crate::plan::{
    BatchFunction, BatchInfo, CallSite, Checked, FunctionSchema, Node, NodeId, Operator, Plan, SourceId,
};

impl Plan {
    /// Adds the dead letters of the source at `node`; an error where `node` is none that keeps them.
    pub fn add_dead_letters(&mut self, node: NodeId, site: Option<CallSite>) -> Result<NodeId> {
        let Operator::Source(source) = self.node(node)?.operator else {
            let name = self.node(node)?.operator.name();
            return Err(Error::config(format!(
                "dead letters are a source's, and this stream is made by {name}"
            ))
            .help("ask the stream for them that ctx.kafka(...) returned"));
        };
        self.dead_letter_stream(source)?;
        Ok(self.add(Operator::DeadLetters(source), vec![node], site))
    }

    pub(super) fn dead_letter_stream(&self, id: SourceId) -> Result<Stream> {
        let lost = || Error::internal(format!("the plan has no source {}", id.0));
        let source = self.sources.get(id.0).ok_or_else(lost)?;
        let does = match source.on_bad {
            OnBad::DeadLetter => return Ok(Stream::new(dead_letter_schema(), None)),
            OnBad::Drop => "drops bad records",
            OnBad::Fail => "fails at a bad record",
        };
        Err(Error::config(format!("the source {:?} {does}, and so has no dead letters", source.name))
            .help("pass on_bad=\"dead_letter\" to it"))
    }

    /// The sources whose dead letters come to no output, each as a mistake.
    pub(super) fn lost_dead_letters(&self) -> Vec<Error> {
        let live = self.live();
        let takes = |source: SourceId| {
            self.iter().any(|(id, node)| {
                matches!(node.operator, Operator::DeadLetters(of) if of == source) && live.contains(&id)
            })
        };
        let lost = |node: &Node| {
            let Operator::Source(id) = node.operator else { return None };
            let source = self.sources.get(id.0).filter(|source| source.on_bad == OnBad::DeadLetter)?;
            (!takes(id)).then(|| node.locate(untaken(&source.name)))
        };
        self.nodes.iter().filter_map(lost).collect()
    }
}

fn untaken(source: &str) -> Error {
    let text =
        format!("the source {source:?} has on_bad=\"dead_letter\", and no output takes its dead letters");
    Error::config(text).help(
        "give them one, say .dead_letters.to_files(\"dead\"), or pass on_bad=tm.DeadLetters(topic=\"...\") or \
         on_bad=tm.DeadLetters(path=\"...\"); on_bad=\"drop\" only counts bad records",
    )
}

impl Checked {
    /// The operators that take the dead letters of the source at `source`, and lead to an output.
    pub(crate) fn dead_letter_readers(&self, source: NodeId) -> Vec<NodeId> {
        let live = self.live();
        let reads = |node: &Node| {
            matches!(node.operator, Operator::DeadLetters(_)) && node.inputs.first() == Some(&source)
        };
        let readers = self.plan().iter().filter(|(id, node)| reads(node) && live.contains(id));
        readers.map(|(id, _)| id).collect()
    }
}

/// Makes the headers with which a dead letter goes back to Kafka: its own, then where it came from and why.
///
/// ```
/// use tidemill::plan::{DeadLetterHeaders, Operator};
/// let operator = DeadLetterHeaders::operator();
/// assert_eq!(operator.name(), "dead_letter_headers");
/// ```
#[derive(Debug)]
pub struct DeadLetterHeaders;

/// Each header that is added, and the column that it is the text of.
const ADDED: [(&str, &str); 6] = [
    ("tidemill.reason", "reason"),
    ("tidemill.topic", "kafka_topic"),
    ("tidemill.partition", "kafka_partition"),
    ("tidemill.offset", "kafka_offset"),
    ("tidemill.timestamp", "kafka_timestamp"),
    ("tidemill.position", "position"),
];

impl DeadLetterHeaders {
    /// The column that is added.
    pub const COLUMN: &'static str = "headers";

    /// The operator, over dead letters with their columns.
    pub fn operator() -> Operator {
        Operator::MapBatches {
            function: Arc::new(Self),
            schema: FunctionSchema::Adds(headers_schema()),
            reads: None,
            label: "dead_letter_headers".to_owned(),
        }
    }
}

/// The type of headers is that of the column `kafka_headers`.
fn headers_schema() -> SchemaRef {
    let schema = dead_letter_schema();
    let headers = schema.fields().iter().filter(|field| field.name() == "kafka_headers");
    let renamed = headers.map(|field| Field::clone(field).with_name(DeadLetterHeaders::COLUMN));
    Arc::new(Schema::new(renamed.collect::<Vec<_>>()))
}

impl BatchFunction for DeadLetterHeaders {
    fn call(&self, rows: RecordBatch, _: &BatchInfo) -> Result<RecordBatch> {
        let own = column(&rows, "kafka_headers")?;
        let added =
            ADDED.iter().map(|(header, name)| Ok((*header, cast(column(&rows, name)?, &DataType::Utf8)?)));
        let added = added.collect::<Result<Vec<_>>>()?;
        let added: Vec<Added<'_>> =
            added.iter().map(|(name, texts)| Added { name, texts: texts.as_string() }).collect();
        let headers: ArrayRef = Arc::new(headers(own.as_list(), &added)?);
        Ok(RecordBatch::try_new(headers_schema(), vec![headers])?)
    }
}

/// A header of every row.
struct Added<'a> {
    name: &'a str,
    texts: &'a StringArray,
}

/// Of each row its own headers, then those that are added.
fn headers(own: &ListArray, added: &[Added<'_>]) -> Result<ListArray> {
    let (mut names, mut values, mut lengths) = (StringBuilder::new(), BinaryBuilder::new(), Vec::new());
    for row in 0..own.len() {
        let entries = own.value(row);
        let entries = entries.as_struct();
        names.append_array(entries.column(0).as_string())?;
        values.append_array(entries.column(1).as_binary())?;
        for header in added {
            names.append_value(header.name);
            values.append_option(header.texts.is_valid(row).then(|| header.texts.value(row)));
        }
        lengths.push(entries.len() + added.len());
    }
    let DataType::List(item) = own.data_type() else { return Err(lost_headers()) };
    let DataType::Struct(fields) = item.data_type() else { return Err(lost_headers()) };
    let columns: Vec<ArrayRef> = vec![Arc::new(names.finish()), Arc::new(values.finish())];
    let entries = Arc::new(StructArray::try_new(fields.clone(), columns, None)?);
    let ends = OffsetBuffer::from_lengths(lengths);
    Ok(ListArray::try_new(Arc::clone(item) as FieldRef, ends, entries, None)?)
}

fn lost_headers() -> Error {
    Error::internal("expected headers to be a list of structs, found another type")
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    let lost = || Error::internal(format!("expected dead letters with the column {name:?}, found none"));
    rows.column_by_name(name).ok_or_else(lost)
}
