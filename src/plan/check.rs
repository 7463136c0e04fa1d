//! Everything that can be known before start: the columns of each operator, and all mistakes at once.
//!
//! It deliberately keeps going after a mistake: wherever the columns are known all the same (a wrong filter changes
//! none, a wrong column has a name), what follows is still checked, and one error names all mistakes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use crate::decode::{EventTimeSpec, dead_letter_schema, full_schema};
use crate::detect::DetectSpec;
use crate::error::{Error, Result};
use crate::expr::unknown_column;
use crate::plan::sample::hidden_name;
use crate::plan::unknown::{self, any_unknown, bind_anyway, is_unknown};
use crate::plan::{FunctionSchema, Named, Node, NodeId, Operator, OutputId, Plan, SourceId, SourceSpec};
use crate::state::key::KeyEncoder;
use crate::types::type_name;

/// A plan without mistakes, and what is known of each of its operators.
#[derive(Clone, Debug)]
pub struct Checked {
    pub(crate) plan: Plan,
    streams: Vec<Stream>,
}

/// What is known of an operator's rows.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) schema: SchemaRef,
    /// The columns by which the rows are exchanged, where they are.
    pub(super) keys: Option<Vec<String>>,
    /// The event-time column of the sources, where it is still there unchanged.
    pub(super) event_time: Option<TimeColumn>,
    /// Where they are not: what ended the exchange by key that there was.
    pub(super) ended: Option<String>,
}

/// The event-time column of a stream's sources, under its name here.
#[derive(Clone, Debug)]
pub(super) struct TimeColumn {
    pub(super) column: String,
    pub(super) standing: Standing,
    pub(super) max_future: Duration,
    /// What another source of these rows has for it. Whose a row is shows nowhere behind a union.
    pub(super) other_max_future: Option<Duration>,
}

/// Whether a source's event time is what the source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Right,
    /// It names no column that could be it, which was told at the source: whatever column a window is on may be meant.
    Mistaken,
}

impl TimeColumn {
    /// The column that a source says, of the rows that it made of it.
    fn said(column: String, max_future: Duration, made: &Stream) -> Self {
        let found = made.schema.field_with_name(&column);
        let right = found.is_ok_and(|field| matches!(field.data_type(), DataType::Timestamp(..)));
        let standing = if right { Standing::Right } else { Standing::Mistaken };
        Self { column, standing, max_future, other_max_future: None }
    }
}

impl Stream {
    pub(super) fn new(schema: SchemaRef, keys: Option<Vec<String>>) -> Self {
        Self { schema, keys, event_time: None, ended: None }
    }

    /// The event time, where it is known to be wrong.
    pub(super) fn mistaken_time(&self) -> Option<&TimeColumn> {
        self.event_time.as_ref().filter(|time| time.standing == Standing::Mistaken)
    }
}

impl Checked {
    /// The columns of `node`'s rows.
    pub fn schema(&self, node: NodeId) -> Result<&SchemaRef> {
        self.stream(node).map(|stream| &stream.schema)
    }

    /// The columns by which `node`'s rows are keyed, if they are.
    pub fn keys(&self, node: NodeId) -> Result<Option<&[String]>> {
        self.stream(node).map(|stream| stream.keys.as_deref())
    }

    /// The rows that an output takes: the operator that makes them.
    pub fn output(&self, output: OutputId) -> Result<NodeId> {
        let mut outputs =
            self.plan.nodes.iter().filter_map(|node| match (&node.operator, &node.inputs[..]) {
                (Operator::Output(id), [input]) if *id == output => Some(*input),
                _ => None,
            });
        outputs.next().ok_or_else(|| Error::internal(format!("the plan has no output {}", output.0)))
    }

    /// The plan that was checked.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn stream(&self, node: NodeId) -> Result<&Stream> {
        self.streams
            .get(node.0)
            .ok_or_else(|| Error::internal(format!("the plan has no operator {}", node.0)))
    }
}

impl Plan {
    /// Finds every mistake that can be seen before start; one error names them all, each with its operator and
    /// the line of the script.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use arrow::datatypes::{DataType, Field, Schema};
    /// use tidemill::decode::{Format, OnBad};
    /// use tidemill::expr::Expression;
    /// use tidemill::plan::{CallSite, Operator, Plan, SourceSpec};
    ///
    /// let spec = SourceSpec {
    ///     name: "readings".to_owned(),
    ///     format: Format::Json(Arc::new(Schema::new(vec![Field::new("temp", DataType::Float64, true)]))),
    ///     metadata: vec![],
    ///     on_bad: OnBad::Fail,
    ///     event_time: None,
    /// };
    /// let mut plan = Plan::default();
    /// let source = plan.add_source(spec);
    /// let readings = plan.add(Operator::Source(source), vec![], None);
    /// let site = CallSite { file: "job.py".to_owned(), line: 7 };
    /// plan.add(Operator::Filter(Expression::sql("tmep > 90")), vec![readings], Some(site));
    /// let mistake = plan.check().unwrap_err().to_string();
    /// assert!(mistake.contains("did you mean \"temp\"?"), "{mistake}");
    /// assert!(mistake.contains("in filter, job.py:7"), "{mistake}");
    /// ```
    pub fn check(&self) -> Result<Checked> {
        self.check_with(self.lost_dead_letters())
    }

    /// The same for a part of a plan: the rest may have what this lacks.
    pub(crate) fn check_part(&self) -> Result<Checked> {
        self.check_with(Vec::new())
    }

    fn check_with(&self, mut mistakes: Vec<Error>) -> Result<Checked> {
        let mut streams = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            streams.push(self.check_node(node, &streams, &mut mistakes));
        }
        mistakes.extend(self.name_mistakes());
        if mistakes.is_empty() && self.outputs.is_empty() {
            mistakes.push(no_output());
        }
        match Error::of_all(mistakes) {
            Some(error) => Err(error),
            None => Ok(Checked { plan: self.clone(), streams: streams.into_iter().flatten().collect() }),
        }
    }

    /// The columns of `node`'s rows, or the mistakes that lead up to it.
    pub fn schema(&self, node: NodeId) -> Result<SchemaRef> {
        let (mut streams, mut mistakes) = (Vec::with_capacity(node.0 + 1), Vec::new());
        let leading = self.leading_to(node);
        for (place, node) in self.nodes.iter().enumerate().take(node.0 + 1) {
            let stream = leading.contains(&place).then(|| self.check_node(node, &streams, &mut mistakes));
            streams.push(stream.flatten());
        }
        let lost = || Error::internal(format!("the plan has no operator {}", node.0));
        match Error::of_all(mistakes) {
            Some(error) => Err(error),
            None => streams.pop().flatten().map(|stream| stream.schema).ok_or_else(lost),
        }
    }

    /// The places of `node` and of all operators whose rows come to it.
    fn leading_to(&self, node: NodeId) -> HashSet<usize> {
        let mut leading = HashSet::from([node.0]);
        for (place, node) in self.nodes.iter().enumerate().take(node.0 + 1).rev() {
            if leading.contains(&place) {
                leading.extend(node.inputs.iter().map(|input| input.0));
            }
        }
        leading
    }

    /// Checks one operator over the streams before it; none where they are not known, or its own columns are not.
    fn check_node(
        &self,
        node: &Node,
        before: &[Option<Stream>],
        mistakes: &mut Vec<Error>,
    ) -> Option<Stream> {
        let inputs: Option<Vec<&Stream>> =
            node.inputs.iter().map(|input| before.get(input.0).and_then(Option::as_ref)).collect();
        let inputs = inputs?;
        let stream = self.operator_stream(node, &inputs).or_else(|found| {
            mistakes.extend(found.into_iter().map(|mistake| node.locate(mistake)));
            let anyway = match node.operator {
                Operator::Source(id) => self.untimed_source(id),
                _ => in_spite_of_mistakes(&node.operator, &inputs),
            };
            anyway.ok_or(())
        });
        let stream = stream.ok()?;
        mistakes.extend(hidden_name(&stream, &inputs).map(|mistake| node.locate(mistake)));
        let (ended, event_time) = (node.ended(&inputs, &stream), self.event_time(node, &inputs, &stream));
        Some(Stream { event_time, ended, ..stream })
    }

    fn operator_stream(&self, node: &Node, inputs: &[&Stream]) -> Result<Stream, Vec<Error>> {
        match (&node.operator, inputs) {
            (Operator::Source(id), []) => self.source_stream(*id).map_err(one),
            (Operator::DeadLetters(id), [_]) => self.dead_letter_stream(*id).map_err(one),
            (Operator::EventTime(time), [input]) => self.timed(node, time, input),
            (Operator::Union, [first, others @ ..]) => union(first, others),
            (Operator::Filter(predicate), [input]) => {
                unknown::bind_predicate(predicate, &input.schema).map(|()| Stream::clone(input))
            }
            (Operator::Select(columns), [input]) => {
                Ok(selected(columns, unknown::bind_all(columns, &input.schema)?, input))
            }
            (Operator::WithColumns(columns), [input]) => {
                widened(columns, &unknown::bind_all(columns, &input.schema)?, input)
            }
            (Operator::Drop(names), [input]) => drop_columns(names, input),
            (Operator::Rename(names), [input]) => rename(names, input),
            (Operator::Explode(names), [input]) => explode(names, input),
            (Operator::Sample(spec), [input]) => spec.stream(input),
            (Operator::MapBatches { schema, reads, .. }, [input]) => {
                function(schema, reads.as_deref(), input)
            }
            (Operator::Repartition(_), [input]) => Ok(Stream { keys: None, ..Stream::clone(input) }),
            (Operator::KeyBy(keys), [input]) => key_by(keys, input),
            (Operator::Detect(spec), [input]) => detect(spec, input),
            (Operator::Aggregate(spec), [input]) => unknown::aggregate(spec, input),
            (Operator::Late(spec), [input]) => unknown::late(spec, input),
            (Operator::Output(id), [input]) => self.output_stream(*id, input),
            (operator, inputs) => {
                let message = format!("{} does not take {} inputs", operator.name(), inputs.len());
                Err(one(Error::internal(message)))
            }
        }
    }

    fn source_stream(&self, id: SourceId) -> Result<Stream> {
        let lost = || Error::internal(format!("the plan has no source {}", id.0));
        let spec = self.sources.get(id.0).ok_or_else(lost)?;
        let schema = full_schema(&spec.format, &spec.metadata)?;
        check_event_time(spec, &schema)?;
        Ok(Stream::new(schema, None))
    }

    /// The rows of a source whose event time alone is wrong; the column that it names is of unknown type, where there is
    /// one.
    fn untimed_source(&self, id: SourceId) -> Option<Stream> {
        let spec = self.sources.get(id.0)?;
        let schema = full_schema(&spec.format, &spec.metadata).ok()?;
        let stream = Stream::new(schema, None);
        Some(unknown::hiding(
            &stream,
            &spec.event_time.iter().map(|time| time.column.clone()).collect::<Vec<_>>(),
        ))
    }

    fn output_stream(&self, id: OutputId, input: &Stream) -> Result<Stream, Vec<Error>> {
        // A sink knows no columns of unknown type, and would take them for what they are not.
        let demand = self.outputs.get(id.0).and_then(Option::as_ref).filter(|_| !any_unknown(&input.schema));
        let mistakes = demand.map(|demand| demand.check(&input.schema, input.keys.as_deref()));
        match mistakes {
            Some(mistakes) if !mistakes.is_empty() => Err(mistakes),
            _ => Ok(Stream::clone(input)),
        }
    }
}

impl Plan {
    /// The event-time column of the rows that `node` makes, where it is one of `inputs`' under whatever name.
    fn event_time(&self, node: &Node, inputs: &[&Stream], made: &Stream) -> Option<TimeColumn> {
        if let Operator::Source(id) = &node.operator {
            let EventTimeSpec { column, max_future } = self.sources.get(id.0)?.event_time.clone()?;
            return Some(TimeColumn::said(column, max_future, made));
        }
        if let Operator::EventTime(time) = &node.operator {
            return Some(TimeColumn::said(time.column.name.clone(), time.max_future, made));
        }
        let (first, others) = inputs.split_first()?;
        if !node.operator.makes_rows_anew()
            && let Some(mistaken) = inputs.iter().find_map(|input| input.mistaken_time())
        {
            return Some(mistaken.clone());
        }
        let before = first.event_time.as_ref()?;
        let same =
            |other: &&Stream| other.event_time.as_ref().is_some_and(|other| other.column == before.column);
        let column = node.operator.name_of(&before.column).filter(|_| others.iter().all(same))?;
        let max_future = before.max_future;
        let of_all = std::iter::once(first).chain(others).filter_map(|stream| stream.event_time.as_ref());
        let mut of_all =
            of_all.flat_map(|time| std::iter::once(time.max_future).chain(time.other_max_future));
        let other_max_future = of_all.find(|other| *other != max_future);
        Some(TimeColumn { column, standing: before.standing, max_future, other_max_future })
    }
}

impl Operator {
    /// The name under which a column of the input is there unchanged in the output; none where it is not.
    fn name_of(&self, name: &str) -> Option<String> {
        let renames = |column: &&Named| column.expression.as_column() == Some(name);
        match self {
            Self::Select(columns) => columns.iter().find(renames).map(|column| column.name.clone()),
            Self::WithColumns(columns) if columns.iter().any(|column| column.name == name) => None,
            Self::Drop(names) | Self::Explode(names) if names.iter().any(|gone| gone == name) => None,
            Self::Rename(names) => Some(new_name(name, names).to_owned()),
            _ if self.makes_rows_anew() => None,
            _ => Some(name.to_owned()),
        }
    }

    /// Whether no column of its output is one of its input's, for all that is known.
    fn makes_rows_anew(&self) -> bool {
        matches!(
            self,
            Self::MapBatches { schema: FunctionSchema::Same | FunctionSchema::Exactly(_), .. }
                | Self::Aggregate(_)
                | Self::DeadLetters(_)
        )
    }
}

/// The rows of a wrong operator where they are known all the same. Whoever would guess at a column here would have
/// the next operators accused of a mistake that is not theirs.
fn in_spite_of_mistakes(operator: &Operator, inputs: &[&Stream]) -> Option<Stream> {
    let [input] = inputs else { return None };
    let there = |names: &[String]| {
        names.iter().filter(|name| find(&input.schema, name).is_ok()).cloned().collect::<Vec<_>>()
    };
    match operator {
        Operator::Filter(_) | Operator::Sample(_) | Operator::Output(_) => Some(Stream::clone(input)),
        Operator::DeadLetters(_) => Some(Stream::new(dead_letter_schema(), None)),
        Operator::EventTime(time) => time.anyway(input),
        Operator::Drop(names) => drop_columns(&there(names), input).ok(),
        Operator::Rename(names) => {
            let there = names.iter().filter(|(old, _)| find(&input.schema, old).is_ok());
            rename(&there.cloned().collect::<Vec<_>>(), input).ok()
        }
        Operator::Explode(names) => Some(exploded(names, input)),
        Operator::Select(columns) => Some(selected(columns, bind_anyway(columns, &input.schema), input)),
        Operator::WithColumns(columns) => widened(columns, &bind_anyway(columns, &input.schema), input).ok(),
        Operator::Aggregate(spec) => unknown::aggregate_anyway(spec, input),
        Operator::MapBatches { schema, .. } => function(schema, None, input).ok(),
        Operator::Repartition(_) => Some(Stream { keys: None, ..Stream::clone(input) }),
        Operator::KeyBy(keys) => Some(Stream::new(Arc::clone(&input.schema), Some(there(keys)))),
        // Keyed from here on: one key_by before the first detector serves those after it too.
        Operator::Detect(spec) => {
            let keyed = Stream { keys: Some(input.keys.clone().unwrap_or_default()), ..Stream::clone(input) };
            append(&keyed, &spec.output_fields().into()).ok()
        }
        Operator::Source(_) | Operator::Union | Operator::Late(_) => None,
    }
}

impl Node {
    /// What ended the exchange by key of `inputs`, this operator or one before it; none where `stream` is keyed, or
    /// nothing ever was.
    fn ended(&self, inputs: &[&Stream], stream: &Stream) -> Option<String> {
        if stream.keys.is_some() {
            return None;
        }
        let here = |keys: Vec<String>| {
            let site = self.site.as_ref().map(|site| format!(", {site}")).unwrap_or_default();
            format!("the keying by {} ended in {}{site}", keys.join(", "), self.operator.name())
        };
        let keys = |input: &Stream| input.keys.clone().filter(|keys| !keys.is_empty());
        inputs.iter().find_map(|input| keys(input).map(here).or_else(|| input.ended.clone()))
    }

    /// Says where in the user's script a mistake was made.
    pub(crate) fn locate(&self, error: Error) -> Error {
        match &self.site {
            Some(site) => error.at(format!("in {}, {site}", self.operator.name())),
            None => error.at(format!("in {}", self.operator.name())),
        }
    }
}

pub(super) fn one(error: Error) -> Vec<Error> {
    vec![error]
}

fn no_output() -> Error {
    Error::config("nothing is done with any stream: the job has no output")
        .help("call pprint(), foreach_batch(fn), to_kafka(topic) or iterate over a stream")
}

fn check_event_time(spec: &SourceSpec, schema: &Schema) -> Result<()> {
    let Some(event_time) = &spec.event_time else { return Ok(()) };
    let found = find(schema, &event_time.column);
    let argument = |error: Error| error.at(format!("event_time=\"{}\"", event_time.column));
    match found.map_err(argument)?.data_type() {
        DataType::Timestamp(_, _) => Ok(()),
        other => {
            let message = format!(
                "event_time must name a timestamp column, \"{}\" is {}",
                event_time.column,
                type_name(other)
            );
            let help = "declare it, say, as \"timestamp[ms]\"";
            let numbers = ", and pass date_unit=\"s\" to tm.Json where its numbers count seconds";
            let numbers = if other.is_numeric() { numbers } else { "" };
            Err(Error::schema(message).help(format!("{help}{numbers}")))
        }
    }
}

/// The field called `name`, or an error that lists those that exist and the nearest.
pub(super) fn find<'a>(schema: &'a Schema, name: &str) -> Result<&'a FieldRef> {
    schema.fields().iter().find(|field| field.name() == name).ok_or_else(|| unknown_column(schema, name))
}

pub(super) fn find_all(schema: &Schema, names: &[String]) -> Result<(), Vec<Error>> {
    let mistakes: Vec<Error> = names.iter().filter_map(|name| find(schema, name).err()).collect();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// The schema of `fields`; a name that comes twice is a mistake.
pub(super) fn distinct(fields: Vec<FieldRef>) -> Result<SchemaRef, Vec<Error>> {
    let mut seen = HashSet::new();
    let twice: Vec<Error> = fields
        .iter()
        .filter(|field| !seen.insert(field.name().as_str()))
        .map(|field| taken(field.name()))
        .collect();
    if twice.is_empty() { Ok(Arc::new(Schema::new(Fields::from(fields)))) } else { Err(twice) }
}

fn taken(name: &str) -> Error {
    Error::config(format!("the column \"{name}\" would exist twice"))
        .help("rename one of them, with .alias(…), rename({…}) or another prefix")
}

/// `columns` of the input, which make `schema`. A key is one still where it may be there unchanged.
fn selected(columns: &[Named], schema: SchemaRef, input: &Stream) -> Stream {
    let unchanged = |column: &Named| column.expression.as_column() == Some(&column.name);
    let hidden = |name: &str| schema.field_with_name(name).is_ok_and(is_unknown);
    let kept =
        |key: &String| columns.iter().any(|column| column.name == *key && (unchanged(column) || hidden(key)));
    let keys = keys_if(input, kept);
    Stream::new(schema, keys)
}

/// The input's columns and `new`, which `columns` make, in place where the name exists.
pub(super) fn widened(columns: &[Named], new: &SchemaRef, input: &Stream) -> Result<Stream, Vec<Error>> {
    let replaced = |field: &FieldRef| new.field_with_name(field.name()).ok().map(|new| Arc::new(new.clone()));
    let mut fields: Vec<FieldRef> = input
        .schema
        .fields()
        .iter()
        .map(|field| replaced(field).unwrap_or_else(|| Arc::clone(field)))
        .collect();
    let added = new.fields().iter().filter(|field| input.schema.field_with_name(field.name()).is_err());
    fields.extend(added.cloned());
    let kept = |key: &String| !columns.iter().any(|column| column.name == *key);
    Ok(Stream::new(distinct(fields)?, keys_if(input, kept)))
}

fn drop_columns(names: &[String], input: &Stream) -> Result<Stream, Vec<Error>> {
    find_all(&input.schema, names)?;
    let kept = input.schema.fields().iter().filter(|field| !names.contains(field.name())).cloned();
    Ok(Stream::new(distinct(kept.collect())?, keys_if(input, |key| !names.contains(key))))
}

fn rename(names: &[(String, String)], input: &Stream) -> Result<Stream, Vec<Error>> {
    let old: Vec<String> = names.iter().map(|(old, _)| old.clone()).collect();
    find_all(&input.schema, &old)?;
    let fields: Vec<FieldRef> = input.schema.fields().iter().map(|field| renamed(field, names)).collect();
    let keys =
        input.keys.as_ref().map(|keys| keys.iter().map(|key| new_name(key, names).to_owned()).collect());
    Ok(Stream::new(distinct(fields)?, keys))
}

/// The name that `name` has after renaming.
pub(crate) fn new_name<'a>(name: &'a str, names: &'a [(String, String)]) -> &'a str {
    names.iter().find(|(old, _)| old == name).map_or(name, |(_, new)| new)
}

fn renamed(field: &FieldRef, names: &[(String, String)]) -> FieldRef {
    Arc::new(Field::clone(field).with_name(new_name(field.name(), names)))
}

fn union(first: &Stream, others: &[&Stream]) -> Result<Stream, Vec<Error>> {
    let mistakes: Vec<Error> = others.iter().filter_map(|other| same_columns(first, other).err()).collect();
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let nullable = |field: &FieldRef| {
        let other =
            |other: &&Stream| other.schema.field_with_name(field.name()).is_ok_and(Field::is_nullable);
        field.is_nullable() || others.iter().any(other)
    };
    let known = |field: &FieldRef| {
        let mut same = std::iter::once(first).chain(others.iter().copied()).filter_map(|stream| {
            stream.schema.fields().iter().find(|other| other.name() == field.name() && !is_unknown(other))
        });
        same.next().map_or_else(|| Field::clone(field), |known| Field::clone(known))
    };
    let fields: Vec<FieldRef> = first
        .schema
        .fields()
        .iter()
        .map(|field| Arc::new(known(field).with_nullable(nullable(field))) as FieldRef)
        .collect();
    Ok(Stream::new(distinct(fields)?, None))
}

fn explode(names: &[String], input: &Stream) -> Result<Stream, Vec<Error>> {
    if names.is_empty() {
        let error = Error::config("explode needs at least one column, found none");
        return Err(one(error.help("name the columns of lists")));
    }
    find_all(&input.schema, names)?;
    let mistakes: Vec<Error> = names.iter().filter_map(|name| no_list(&input.schema, name)).collect();
    if mistakes.is_empty() { Ok(exploded(names, input)) } else { Err(mistakes) }
}

/// Why a column is not one that can be exploded.
fn no_list(schema: &Schema, name: &str) -> Option<Error> {
    let field = schema.field_with_name(name).ok().filter(|field| !is_unknown(field))?;
    if list_element(field.data_type()).is_some() {
        return None;
    }
    let found = type_name(field.data_type());
    let error = Error::schema(format!("explode takes lists apart, and \"{name}\" is {found}"));
    Some(error.help("name columns of lists alone: the others are repeated"))
}

/// The element type of a list; none where the type is no list's.
pub(crate) fn list_element(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

/// The columns with the elements of these in place of the lists; what is no list becomes a column of unknown type.
fn exploded(names: &[String], input: &Stream) -> Stream {
    let column = |field: &FieldRef| match list_element(field.data_type()) {
        _ if !names.contains(field.name()) => Arc::clone(field),
        None => unknown::unknown(field.name()),
        Some(item) => Arc::new(Field::new(field.name(), item.data_type().clone(), true)),
    };
    let fields: Vec<FieldRef> = input.schema.fields().iter().map(column).collect();
    Stream::new(Arc::new(Schema::new(fields)), keys_if(input, |key| !names.contains(key)))
}

/// Whether two streams have the same columns, in any order.
fn same_columns(first: &Stream, other: &Stream) -> Result<()> {
    let kind = |field: &FieldRef| {
        if is_unknown(field) { "unknown".to_owned() } else { type_name(field.data_type()) }
    };
    let describe = |stream: &Stream| {
        let described = |field: &FieldRef| format!("{}: {}", field.name(), kind(field));
        let mut columns: Vec<String> = stream.schema.fields().iter().map(described).collect();
        columns.sort();
        columns.join(", ")
    };
    let agree = |field: &FieldRef| {
        let other = other.schema.field_with_name(field.name());
        other.is_ok_and(|other| {
            is_unknown(field) || is_unknown(other) || field.data_type() == other.data_type()
        })
    };
    let (expected, found) = (describe(first), describe(other));
    if first.schema.fields().len() == other.schema.fields().len() && first.schema.fields().iter().all(agree) {
        return Ok(());
    }
    let message =
        format!("union needs streams with the same columns, the first has ({expected}), another ({found})");
    Err(Error::schema(message).help("bring them into one shape with select(…)"))
}

fn function(schema: &FunctionSchema, reads: Option<&[String]>, input: &Stream) -> Result<Stream, Vec<Error>> {
    numeric(&input.schema, reads.unwrap_or_default())?;
    match schema {
        FunctionSchema::Same => Ok(Stream::new(Arc::clone(&input.schema), None)),
        FunctionSchema::Exactly(schema) => Ok(Stream::new(Arc::clone(schema), None)),
        FunctionSchema::Adds(added) => append(input, added.fields()),
    }
}

/// What a matrix may be made of: a boolean counts as 0 or 1, a time by its unit.
fn numeric(schema: &Schema, names: &[String]) -> Result<(), Vec<Error>> {
    let mistakes: Vec<Error> = names.iter().filter_map(|name| number(schema, name).err()).collect();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

fn number(schema: &Schema, name: &str) -> Result<()> {
    let field = find(schema, name)?;
    let data_type = field.data_type();
    if is_unknown(field)
        || data_type.is_numeric()
        || data_type.is_temporal()
        || matches!(data_type, DataType::Boolean | DataType::Null)
    {
        return Ok(());
    }
    let message = format!("a model is given numbers, and \"{name}\" is {}", type_name(data_type));
    Err(Error::schema(message).help("leave it out, or make a number of it before, in with_columns(…)"))
}

/// The input's columns and `added`; the rows stay keyed as they were.
fn append(input: &Stream, added: &Fields) -> Result<Stream, Vec<Error>> {
    let fields = input.schema.fields().iter().chain(added).cloned().collect();
    Ok(Stream::new(distinct(fields)?, input.keys.clone()))
}

fn key_by(keys: &[String], input: &Stream) -> Result<Stream, Vec<Error>> {
    if keys.is_empty() {
        return Err(one(
            Error::config("key_by needs at least one column, found none").help("name the key columns")
        ));
    }
    find_all(&input.schema, keys)?;
    KeyEncoder::new(&unknown::assuming(&input.schema, &DataType::Utf8), keys).map_err(one)?;
    Ok(Stream::new(Arc::clone(&input.schema), Some(keys.to_vec())))
}

fn detect(spec: &DetectSpec, input: &Stream) -> Result<Stream, Vec<Error>> {
    let mut mistakes: Vec<Error> = keyed(input).err().into_iter().collect();
    mistakes.extend(match find_all(&input.schema, &spec.columns) {
        Ok(()) => spec.check(&unknown::assuming(&input.schema, &DataType::Float64)),
        Err(missing) => missing,
    });
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    append(input, &spec.output_fields().into())
}

fn keyed(input: &Stream) -> Result<()> {
    match (&input.keys, &input.ended) {
        (Some(_), _) => Ok(()),
        (None, None) => Err(Error::config("detect works per key, and this stream has none")
            .help("call key_by(column, …) before it")),
        (None, Some(ended)) => Err(Error::config(format!("detect works per key, and {ended}"))
            .help("keep the key columns as they are until detect, or call key_by(column, …) after that")),
    }
}

/// The input's keys, where each of them is still there unchanged.
fn keys_if(input: &Stream, kept: impl Fn(&String) -> bool) -> Option<Vec<String>> {
    input.keys.clone().filter(|keys| keys.iter().all(kept))
}
