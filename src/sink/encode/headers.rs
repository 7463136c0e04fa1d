//! Headers of records: the same for all, from a column, or both.
//!
//! It deliberately takes one shape of column, the one in which the Kafka source hands headers out.

use arrow::array::{Array, AsArray, BinaryArray, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};

use super::column;
use crate::error::{Error, Result};
use crate::types::type_name;

/// Which headers a record gets: the constant ones first, then those of the row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderSpec {
    /// Headers of every record.
    pub constant: Vec<(String, Vec<u8>)>,
    /// A column of `list<struct<key: string, value: binary>>`; it is then not part of the value.
    pub column: Option<String>,
}

/// Rows to headers.
#[derive(Debug)]
pub(crate) struct HeaderReader {
    constant: Vec<(String, Vec<u8>)>,
    column: Option<usize>,
}

impl HeaderReader {
    /// A reader for rows of `schema`; refused where the column is missing or has another type.
    pub(crate) fn new(schema: &Schema, spec: &HeaderSpec) -> Result<Self> {
        let column = spec.column.as_deref().map(|name| column(schema, name)).transpose()?;
        if let Some(field) =
            column.map(|column| schema.field(column)).filter(|field| !is_headers(field.data_type()))
        {
            let (name, found) = (field.name(), type_name(field.data_type()));
            let expected = "list<struct<key: string, value: binary>>";
            return Err(Error::schema(format!("headers column {name:?} must be {expected}, found {found}"))
                .help("kafka_headers, which metadata=(\"headers\",) adds, is of that type"));
        }
        Ok(Self { constant: spec.constant.clone(), column })
    }

    /// The place of the column that holds headers.
    pub(crate) fn column(&self) -> Option<usize> {
        self.column
    }

    /// The headers that every record has.
    pub(crate) fn constant(&self) -> &[(String, Vec<u8>)] {
        &self.constant
    }

    /// The headers that a chunk's rows have of their own; none where no row has any.
    pub(crate) fn of<'a>(&self, rows: &'a RecordBatch) -> Option<HeaderLists<'a>> {
        let rows = rows.column(self.column?).as_list_opt::<i32>()?;
        let entries = rows.values().as_struct_opt()?;
        let (names, values) = (entries.columns().first()?, entries.columns().get(1)?);
        Some(HeaderLists { rows, names: names.as_string_opt()?, values: values.as_binary_opt()? })
    }
}

fn is_headers(found: &DataType) -> bool {
    let DataType::List(entry) = found else {
        return false;
    };
    let DataType::Struct(fields) = entry.data_type() else {
        return false;
    };
    let types: Vec<_> = fields.iter().map(|field| field.data_type()).collect();
    types == [&DataType::Utf8, &DataType::Binary]
}

/// The headers that a chunk's rows have of their own.
pub(crate) struct HeaderLists<'a> {
    rows: &'a ListArray,
    names: &'a StringArray,
    values: &'a BinaryArray,
}

impl<'a> HeaderLists<'a> {
    /// Those of `row`.
    pub(crate) fn of(&self, row: usize) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let offsets = self.rows.value_offsets();
        let bounds = offsets.get(row).zip(offsets.get(row + 1)).filter(|_| self.rows.is_valid(row));
        let (from, until) = bounds.map_or((0, 0), |(from, until)| (*from, *until));
        let entries = usize::try_from(from).unwrap_or(0)..usize::try_from(until).unwrap_or(0);
        let (names, values) = (self.names, self.values);
        entries.map(move |entry| (names.value(entry), values.is_valid(entry).then(|| values.value(entry))))
    }
}
