//! Columns whose type a mistake has hidden. Their names are known, and so is all else of what follows: it is still
//! checked, but for what depends on such a column.
//!
//! Only a plan with a mistake has such columns. It deliberately never runs one: nothing outside the check meets them.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use crate::error::Error;
use crate::expr::Expression;
use crate::plan::check::{Standing, Stream, TimeColumn, distinct, find, find_all};
use crate::plan::{AggregateSpec, Named, WindowSpec};

/// The mark of such a column, in the field's metadata: it stays with the field under whatever name.
const MARK: &str = "tidemill.unknown";

/// A column of which only the name is known.
pub(super) fn unknown(name: &str) -> FieldRef {
    let mark = [(MARK.to_owned(), String::new())];
    Arc::new(Field::new(name, DataType::Null, true).with_metadata(mark.into()))
}

/// Whether only the name of a column is known.
pub(super) fn is_unknown(field: &Field) -> bool {
    field.metadata().contains_key(MARK)
}

/// Whether only the name of some column is known.
pub(super) fn any_unknown(schema: &Schema) -> bool {
    schema.fields().iter().any(|field| is_unknown(field))
}

fn is_unknown_in(schema: &Schema, name: &str) -> bool {
    schema.field_with_name(name).is_ok_and(is_unknown)
}

/// Whether the value of `expression` depends on a column whose type is not known.
fn reads_unknown(expression: &Expression, schema: &Schema) -> bool {
    expression.columns().iter().any(|name| is_unknown_in(schema, name))
}

/// What is wrong with an expression of unknown type all the same.
fn check_names(expression: &Expression, schema: &Schema) -> Result<(), Vec<Error>> {
    let missing = find_all(schema, &expression.columns()).err().unwrap_or_default();
    let mistakes: Vec<Error> = expression.mistakes().iter().cloned().chain(missing).collect();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// The column that `column` makes; of unknown type where it depends on one that is.
pub(super) fn bind(column: &Named, schema: &Schema) -> Result<FieldRef, Vec<Error>> {
    if reads_unknown(&column.expression, schema) {
        return check_names(&column.expression, schema).map(|()| unknown(&column.name));
    }
    let bound = column.expression.bind(schema)?;
    Ok(Arc::new(bound.field().clone().with_name(&column.name)))
}

/// The columns that `columns` make, or every mistake in them.
pub(super) fn bind_all(columns: &[Named], schema: &Schema) -> Result<SchemaRef, Vec<Error>> {
    let (mut fields, mut mistakes) = (Vec::new(), Vec::new());
    for column in columns {
        match bind(column, schema) {
            Ok(field) => fields.push(field),
            Err(found) => mistakes.extend(found),
        }
    }
    if mistakes.is_empty() { distinct(fields) } else { Err(mistakes) }
}

/// Whether `predicate` is a condition over such rows.
pub(super) fn bind_predicate(predicate: &Expression, schema: &Schema) -> Result<(), Vec<Error>> {
    if reads_unknown(predicate, schema) {
        return check_names(predicate, schema);
    }
    predicate.bind_predicate(schema).map(drop)
}

/// The columns that `columns` make in spite of mistakes: a wrong one, or one that comes twice, is of unknown type.
pub(super) fn bind_anyway(columns: &[Named], schema: &Schema) -> SchemaRef {
    let mut fields: Vec<FieldRef> = Vec::new();
    for column in columns {
        match fields.iter_mut().find(|field| *field.name() == column.name) {
            Some(twice) => *twice = unknown(&column.name),
            None => fields.push(bind(column, schema).unwrap_or_else(|_| unknown(&column.name))),
        }
    }
    Arc::new(Schema::new(fields))
}

/// The columns with a type for each: `data_type`, which the next operator asks for, where it is not known.
pub(super) fn assuming(schema: &Schema, data_type: &DataType) -> Schema {
    let assumed = |field: &FieldRef| {
        if is_unknown(field) {
            Arc::new(Field::new(field.name(), data_type.clone(), true))
        } else {
            Arc::clone(field)
        }
    };
    Schema::new(schema.fields().iter().map(assumed).collect::<Vec<_>>())
}

/// The columns of `spec`'s result; of unknown type what depends on such.
pub(super) fn aggregate(spec: &AggregateSpec, input: &Stream) -> Result<Stream, Vec<Error>> {
    let depends = |column: &Named| reads_unknown(&column.expression, &input.schema);
    let names = |column: &&Named| check_names(&column.expression, &input.schema).err();
    let mut mistakes: Vec<Error> = spec
        .columns
        .iter()
        .filter(|column| depends(column))
        .filter_map(|column| names(&column))
        .flatten()
        .collect();
    match aggregate_without(spec, depends, input) {
        Ok(stream) if mistakes.is_empty() => Ok(stream),
        Ok(_) => Err(mistakes),
        Err(found) => {
            mistakes.extend(found);
            Err(mistakes)
        }
    }
}

/// The columns of `spec`'s result in spite of mistakes in it: keys and results that are wrong are of unknown type.
pub(super) fn aggregate_anyway(spec: &AggregateSpec, input: &Stream) -> Option<Stream> {
    let wrong_time = spec.window.iter().filter(|window| window.bind(input).is_err()).map(|window| &window.on);
    let hidden: Vec<String> = wrong_time.cloned().collect();
    let missing = spec.keys.iter().chain(&hidden).filter(|name| find(&input.schema, name).is_err());
    let fields = input.schema.fields().iter().cloned().chain(missing.map(|name| unknown(name)));
    let schema = distinct(fields.collect()).ok()?;
    let input = hiding(&Stream { schema, ..Stream::clone(input) }, &hidden);
    let wrong = |column: &Named| {
        let alone = AggregateSpec { columns: vec![column.clone()], ..spec.clone() };
        reads_unknown(&column.expression, &input.schema) || aggregate(&alone, &input).is_err()
    };
    aggregate_without(spec, wrong, &input).ok()
}

/// The columns of `spec`'s result, those of unknown type unlooked at.
fn aggregate_without(
    spec: &AggregateSpec,
    hidden: impl Fn(&Named) -> bool,
    input: &Stream,
) -> Result<Stream, Vec<Error>> {
    // Something that is right in every aggregation stands where nothing can be said.
    let shown = |column: &Named| {
        let stand_in = hidden(column).then(|| Expression::aggregate("count", Vec::new()));
        Named { expression: stand_in.unwrap_or_else(|| column.expression.clone()), ..column.clone() }
    };
    let columns = spec.columns.iter().map(shown).collect();
    let stream = AggregateSpec { columns, ..spec.clone() }.stream(&assumed(input, spec.window.as_ref()))?;
    let untimed = spec.window.as_ref().is_some_and(|window| is_untimed(window, input));
    let bounds = stream.schema.fields().iter().take(if untimed { 2 } else { 0 }).map(|field| field.name());
    let results = spec.columns.iter().filter(|column| hidden(column)).map(|column| &column.name);
    let keys = spec.keys.iter().filter(|key| is_unknown_in(&input.schema, key));
    Ok(hiding(&stream, &bounds.chain(results).chain(keys).cloned().collect::<Vec<_>>()))
}

/// The rows without a place in `window`; what was of unknown type still is.
pub(super) fn late(window: &WindowSpec, input: &Stream) -> Result<Stream, Vec<Error>> {
    let stream = window.late(&assumed(input, Some(window)))?;
    let unknown = input.schema.fields().iter().filter(|field| is_unknown(field)).map(|field| field.name());
    let on = is_untimed(window, input).then_some(&window.on);
    Ok(hiding(&stream, &unknown.chain(on).cloned().collect::<Vec<_>>()))
}

/// Whether nothing can be said of the column that a window is on: its type is hidden, or the source's event time is
/// wrong, and this is the column that it names, or the one that was meant there.
fn is_untimed(window: &WindowSpec, input: &Stream) -> bool {
    let meant = |time: &TimeColumn| time.column == window.on || find(&input.schema, &window.on).is_ok();
    is_unknown_in(&input.schema, &window.on) || input.mistaken_time().is_some_and(meant)
}

/// The rows as an aggregation asks for them, wherever their types are not known.
fn assumed(input: &Stream, window: Option<&WindowSpec>) -> Stream {
    let mut stream = Stream::clone(input);
    if let Some(window) = window.filter(|window| is_untimed(window, input)) {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        let time = Arc::new(Field::new(&window.on, time, true));
        let others = input.schema.fields().iter().filter(|field| *field.name() != window.on).cloned();
        stream.schema = Arc::new(Schema::new(others.chain([time]).collect::<Vec<_>>()));
        let (column, standing, max_future) = (window.on.clone(), Standing::Right, Duration::ZERO);
        stream.event_time = Some(TimeColumn { column, standing, max_future, other_max_future: None });
    }
    stream.schema = Arc::new(assuming(&stream.schema, &DataType::Utf8));
    stream
}

/// The rows with columns of unknown type.
pub(super) fn hiding(stream: &Stream, names: &[String]) -> Stream {
    let hidden = |field: &FieldRef| {
        if names.contains(field.name()) { unknown(field.name()) } else { Arc::clone(field) }
    };
    let fields: Vec<FieldRef> = stream.schema.fields().iter().map(hidden).collect();
    Stream { schema: Arc::new(Schema::new(fields)), ..Stream::clone(stream) }
}
