//! Which columns there are, which of them are decoded, and which of those are seen.
//!
//! It deliberately knows no bytes: names and types go in, places come out.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use crate::decode::{DecodeSpec, Format, Metadata};
use crate::decode::{csv, json};
use crate::error::{Error, Result, nearest};

/// Every column that a source can have: the format's fields, then those of `metadata` as `kafka_…`.
///
/// ```
/// use tidemill::decode::{Format, Metadata, full_schema};
/// let schema = full_schema(&Format::Raw, &[Metadata::Key, Metadata::Offset])?;
/// let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
/// assert_eq!(names, ["value", "kafka_key", "kafka_offset"]);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub fn full_schema(format: &Format, metadata: &[Metadata]) -> Result<SchemaRef> {
    let mut fields = match format {
        Format::Json(schema) | Format::Csv(schema, _) => schema.fields().to_vec(),
        Format::Text => vec![Arc::new(Field::new("value", DataType::Utf8, true))],
        Format::Raw => vec![Arc::new(Field::new("value", DataType::Binary, true))],
    };
    let mistakes = match format {
        Format::Json(schema) => json_mistakes(schema),
        Format::Csv(schema, _) => csv_mistakes(schema),
        Format::Text | Format::Raw => Vec::new(),
    };
    mistakes.into_iter().next().map_or(Ok(()), Err)?;
    fields.extend(metadata.iter().map(|metadata| Arc::new(metadata.field())));
    check_unique(&fields)?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Why JSON records cannot be read as these columns, a mistake for each that is none.
pub fn json_mistakes(schema: &Schema) -> Vec<Error> {
    schema.fields().iter().filter_map(|field| json::check_supported(field).err()).collect()
}

/// Why records of CSV cannot be read as these columns, a mistake for each that is none.
pub fn csv_mistakes(schema: &Schema) -> Vec<Error> {
    schema.fields().iter().filter_map(|field| csv::check_supported(field).err()).collect()
}

/// The key under which a JSON schema's metadata says what numbers in its timestamps count. It is a matter of how records
/// are written and of no column: the schema of a batch is made anew, without it.
const DATE_UNIT: &str = "tidemill.date_unit";

/// The same columns of JSON, with numbers in timestamps that count `unit` whatever the column's own is: `"s"`, `"ms"`,
/// `"us"` or `"ns"`.
///
/// ```
/// use arrow::datatypes::{Schema, TimeUnit};
/// use tidemill::decode::{date_unit, with_date_unit};
/// let schema = with_date_unit(&Schema::empty(), "s")?;
/// assert_eq!(date_unit(&schema)?, Some(TimeUnit::Second));
/// assert!(with_date_unit(&schema, "seconds").is_err());
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub fn with_date_unit(schema: &Schema, unit: &str) -> Result<Schema> {
    unit_of(unit)?;
    let mut metadata = schema.metadata().clone();
    metadata.insert(DATE_UNIT.to_owned(), unit.to_owned());
    Ok(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// What numbers in the timestamps of a JSON schema count; none where each column's own unit says so.
pub fn date_unit(schema: &Schema) -> Result<Option<TimeUnit>> {
    schema.metadata().get(DATE_UNIT).map(|unit| unit_of(unit)).transpose()
}

fn unit_of(name: &str) -> Result<TimeUnit> {
    match name {
        "s" => Ok(TimeUnit::Second),
        "ms" => Ok(TimeUnit::Millisecond),
        "us" => Ok(TimeUnit::Microsecond),
        "ns" => Ok(TimeUnit::Nanosecond),
        other => Err(Error::config(format!("date_unit is \"s\", \"ms\", \"us\" or \"ns\", found {other:?}"))),
    }
}

fn check_unique(fields: &[FieldRef]) -> Result<()> {
    let mut names = HashSet::new();
    match fields.iter().find(|field| !names.insert(field.name())) {
        None => Ok(()),
        Some(twice) => {
            let message =
                format!("expected every column to have its own name, found {:?} twice", twice.name());
            Err(Error::config(message)
                .help("rename the field of the schema, or leave out that part of metadata=(…)"))
        }
    }
}

/// Where a decoded column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The payload: this one of the fields that are decoded from it.
    Payload(usize),
    /// The record around it.
    Metadata(Metadata),
}

/// Whether a decoded column is seen in the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visibility {
    Shown,
    /// Decoded for its event times only.
    Hidden,
}

#[derive(Clone, Debug)]
struct Column {
    field: FieldRef,
    origin: Origin,
    visibility: Visibility,
}

/// The columns that are decoded, in declared order.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl Projection {
    pub(super) fn new(spec: &DecodeSpec) -> Result<Self> {
        let full = full_schema(&spec.format, &spec.metadata)?;
        let shown = spec.columns.iter().flatten();
        let timed = spec.event_time.iter().map(|time| &time.column);
        shown.chain(timed).try_for_each(|name| check_known(name, &full))?;
        let columns = decoded_columns(spec, &full);
        let shown = columns.iter().filter(|column| column.visibility == Visibility::Shown);
        let schema = Arc::new(Schema::new(shown.map(|column| Arc::clone(&column.field)).collect::<Vec<_>>()));
        Ok(Self { columns, schema })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The fields to be decoded from the payload, in the order that [`Origin::Payload`] counts.
    pub(super) fn payload_fields(&self) -> Vec<FieldRef> {
        let payload = self.columns.iter().filter(|column| matches!(column.origin, Origin::Payload(_)));
        payload.map(|column| Arc::clone(&column.field)).collect()
    }

    pub(super) fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.columns.iter().map(|column| &column.origin)
    }

    pub(super) fn reads(&self, metadata: Metadata) -> bool {
        self.origins().any(|origin| *origin == Origin::Metadata(metadata))
    }

    /// The place of the decoded column `name`, and its field.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &Field)> {
        let place = self.columns.iter().position(|column| column.field.name() == name)?;
        Some((place, self.columns.get(place)?.field.as_ref()))
    }

    /// Of the arrays of all decoded columns, those that are seen.
    pub(super) fn visible(&self, arrays: Vec<ArrayRef>) -> Vec<ArrayRef> {
        let pairs = self.columns.iter().zip(arrays);
        pairs.filter(|(column, _)| column.visibility == Visibility::Shown).map(|(_, array)| array).collect()
    }
}

fn decoded_columns(spec: &DecodeSpec, full: &Schema) -> Vec<Column> {
    let payload_fields = full.fields().len() - spec.metadata.len();
    let metadata = spec.metadata.iter().copied().map(Origin::Metadata);
    let origins = (0..payload_fields).map(Origin::Payload).chain(metadata);
    let mut columns: Vec<Column> = full
        .fields()
        .iter()
        .zip(origins)
        .filter_map(|(field, origin)| {
            let visibility = visibility(spec, field.name())?;
            Some(Column { field: Arc::clone(field), origin, visibility })
        })
        .collect();
    let payload = columns.iter_mut().filter(|column| matches!(column.origin, Origin::Payload(_)));
    payload.enumerate().for_each(|(index, column)| column.origin = Origin::Payload(index));
    columns
}

fn visibility(spec: &DecodeSpec, name: &str) -> Option<Visibility> {
    let shown = spec.columns.as_ref().is_none_or(|columns| columns.iter().any(|column| column == name));
    let timed = spec.event_time.as_ref().is_some_and(|time| time.column == name);
    match (shown, timed) {
        (true, _) => Some(Visibility::Shown),
        (false, true) => Some(Visibility::Hidden),
        (false, false) => None,
    }
}

fn check_known(name: &str, full: &Schema) -> Result<()> {
    let names: Vec<&str> = full.fields().iter().map(|field| field.name().as_str()).collect();
    if names.contains(&name) {
        return Ok(());
    }
    let error = Error::config(format!("unknown column {name:?}; the source has {}", names.join(", ")));
    Err(match nearest(name, names.iter().copied()) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None => error.help("add it to the source's schema, or its part of the record to metadata=(…)"),
    })
}
