//! Rows as CSV (RFC 4180), one record a row and no line break behind it.
//!
//! Values are written as in JSON, without the quotes around text, so that both formats read alike. A field is quoted
//! where it holds a delimiter, a quote or a line break, or would be taken for null. It deliberately knows no nested
//! values: they have no form in CSV that another program would understand.

use arrow::array::{Array, ArrayRef, AsArray, LargeStringArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow_json::writer::{NullableEncoder, make_encoder};
use arrow_json::{EncoderOptions, StructMode};

use super::json::options;
use super::{ByteRows, is_text, names};
use crate::csv::{Dialect, Header};
use crate::error::{Error, Result};

/// Some columns of a row as a record of CSV.
#[derive(Debug)]
pub(crate) struct CsvEncoder {
    columns: Vec<(usize, FieldRef)>,
    dialect: Dialect,
    /// The line of names, its end included.
    names: Vec<u8>,
    options: EncoderOptions,
}

impl CsvEncoder {
    /// A record a row, with the values of `columns` in their order.
    pub(crate) fn new(schema: &Schema, columns: &[usize], dialect: &Dialect) -> Result<Self> {
        if columns.is_empty() {
            return Err(Error::schema("CSV needs at least one column, found none").help("select() one"));
        }
        let fields: Vec<FieldRef> = schema.project(columns)?.fields.iter().cloned().collect();
        let options = options(StructMode::ObjectOnly);
        fields.iter().try_for_each(|field| check(schema, field, &options))?;
        let mut header = Vec::new();
        push_record(fields.iter().map(|field| Some(field.name().as_bytes())), dialect, &mut header);
        header.push(b'\n');
        let columns = columns.iter().copied().zip(fields).collect();
        Ok(Self { columns, dialect: dialect.clone(), names: header, options })
    }

    /// Appends the record of each row, each behind its own line of names where the dialect has one.
    pub(crate) fn encode(&self, rows: &RecordBatch, out: &mut ByteRows) -> Result<()> {
        let names = if self.dialect.header() == Header::Present { self.names.as_slice() } else { b"" };
        let mut values = self.values(rows)?;
        for row in 0..rows.num_rows() {
            out.push_with(|bytes| {
                bytes.extend_from_slice(names);
                push_record(values.iter_mut().map(|values| values.text(row)), &self.dialect, bytes);
            });
        }
        Ok(())
    }

    /// Appends the records as the lines of a file, behind one line of names where the dialect has one. No line is empty,
    /// since readers skip such: where a record of one field would be, its null is quoted.
    pub(crate) fn encode_lines(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        if self.dialect.header() == Header::Present {
            out.extend_from_slice(&self.names);
        }
        let mut values = self.values(rows)?;
        for row in 0..rows.num_rows() {
            let start = out.len();
            push_record(values.iter_mut().map(|values| values.text(row)), &self.dialect, out);
            if out.len() == start {
                out.extend_from_slice(&[self.dialect.quote(); 2]);
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn values<'a>(&'a self, rows: &'a RecordBatch) -> Result<Vec<Values<'a>>> {
        let columns = self.columns.iter();
        columns.map(|(column, field)| Values::new(rows.column(*column), field, &self.options)).collect()
    }
}

fn check(schema: &Schema, field: &FieldRef, options: &EncoderOptions) -> Result<()> {
    let empty = arrow::array::new_empty_array(field.data_type());
    let written = !is_nested(field.data_type()) && Values::new(&empty, field, options).is_ok();
    if written {
        return Ok(());
    }
    let (name, found) = (field.name(), field.data_type());
    Err(Error::schema(format!(
        "column {name:?} of {found} cannot be written as CSV; the columns are {}",
        names(schema)
    ))
    .help("leave it out with select, cast it, or use format Json"))
}

fn is_nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_nested(values),
        other => other.is_nested(),
    }
}

/// The values of one column, as text.
enum Values<'a> {
    Text(LargeStringArray),
    /// In JSON's words; the last of them.
    Other(NullableEncoder<'a>, Vec<u8>),
}

impl<'a> Values<'a> {
    fn new(array: &'a ArrayRef, field: &'a FieldRef, options: &'a EncoderOptions) -> Result<Self> {
        if is_text(field.data_type()) {
            let texts = cast(array, &DataType::LargeUtf8)?;
            return Ok(Self::Text(texts.as_string::<i64>().clone()));
        }
        Ok(Self::Other(make_encoder(field, array, options)?, Vec::new()))
    }

    /// The text of the value in `row`; none where it is null, or a number that JSON lacks.
    fn text(&mut self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Text(texts) => texts.is_valid(row).then(|| texts.value(row).as_bytes()),
            Self::Other(encoder, _) if encoder.is_null(row) => None,
            Self::Other(encoder, json) => {
                json.clear();
                encoder.encode(row, json);
                match json.as_slice() {
                    [b'"', text @ .., b'"'] => Some(text),
                    b"null" => None,
                    bare => Some(bare),
                }
            }
        }
    }
}

fn push_record<'a>(fields: impl Iterator<Item = Option<&'a [u8]>>, dialect: &Dialect, out: &mut Vec<u8>) {
    for (place, field) in fields.enumerate() {
        if place > 0 {
            out.push(dialect.delimiter());
        }
        match field {
            None => out.extend_from_slice(dialect.null().as_bytes()),
            Some(text) => push_field(text, dialect, out),
        }
    }
}

fn push_field(text: &[u8], dialect: &Dialect, out: &mut Vec<u8>) {
    let (delimiter, quote) = (dialect.delimiter(), dialect.quote());
    let bare =
        memchr::memchr3(delimiter, quote, b'\n', text).is_none() && memchr::memchr(b'\r', text).is_none();
    if bare && text != dialect.null().as_bytes() {
        return out.extend_from_slice(text);
    }
    out.push(quote);
    for byte in text {
        if *byte == quote {
            out.push(quote);
        }
        out.push(*byte);
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, DictionaryArray, Float64Array, Int64Array,
        ListArray, RecordBatch, StringArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::{Field, Int32Type, Schema};

    use super::CsvEncoder;
    use crate::csv::{Dialect, Header};
    use crate::sink::encode::ByteRows;

    fn encoded(columns: Vec<(&str, ArrayRef)>, dialect: &Dialect) -> Vec<String> {
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let all: Vec<usize> = (0..rows.num_columns()).collect();
        let mut out = ByteRows::default();
        CsvEncoder::new(&rows.schema(), &all, dialect).unwrap().encode(&rows, &mut out).unwrap();
        (0..rows.num_rows()).map(|row| String::from_utf8(out.get(row).unwrap().to_vec()).unwrap()).collect()
    }

    #[test]
    fn values_of_every_kind_are_written_as_in_json_without_its_quotes() {
        let words: DictionaryArray<Int32Type> = vec![Some("x"), None].into_iter().collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("n", Arc::new(Int64Array::from(vec![Some(-7), None]))),
            ("x", Arc::new(Float64Array::from(vec![1.5, f64::NAN]))),
            ("text", Arc::new(StringArray::from(vec!["a\\b", "é"]))),
            ("word", Arc::new(words)),
            ("day", Arc::new(Date32Array::from(vec![0, 1]))),
            ("ts", Arc::new(TimestampMillisecondArray::from(vec![0, 1]).with_timezone("UTC"))),
            ("bytes", Arc::new(BinaryArray::from(vec![&b"\xff"[..], b""]))),
        ];
        assert_eq!(
            encoded(columns, &Dialect::default()),
            [
                "true,-7,1.5,a\\b,x,1970-01-01,1970-01-01T00:00:00Z,/w==",
                ",,,é,,1970-01-02,1970-01-01T00:00:00.001Z,\"\""
            ]
        );
    }

    #[test]
    fn what_would_be_taken_for_something_else_is_quoted() {
        let text: ArrayRef =
            Arc::new(StringArray::from(vec![Some("a,b"), Some("\"q\""), Some("l\nm\r"), Some(""), None]));
        assert_eq!(
            encoded(vec![("t", Arc::clone(&text))], &Dialect::default()),
            ["\"a,b\"", "\"\"\"q\"\"\"", "\"l\nm\r\"", "\"\"", ""]
        );
        let null = Dialect::new(";", "'", Header::Absent, "0").unwrap();
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), None, Some(2), Some(3)]));
        assert_eq!(
            encoded(vec![("t", text), ("n", numbers)], &null),
            ["a,b;'0'", "\"q\";1", "'l\nm\r';0", ";2", "0;3"]
        );
    }

    #[test]
    fn a_line_of_names_stands_before_each_record() {
        let dialect = Dialect::new(",", "\"", Header::Present, "").unwrap();
        let ones: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        assert_eq!(
            encoded(vec![("a,b", Arc::clone(&ones)), ("c", ones)], &dialect),
            ["\"a,b\",c\n1,1", "\"a,b\",c\n2,2"]
        );
    }

    #[test]
    fn a_file_has_one_line_of_names_and_no_empty_lines() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a\nb"), None, Some("")]));
        let rows = RecordBatch::try_from_iter_with_nullable([("t,t", text, true)]).unwrap();
        let lines =
            |header| String::from_utf8(crate::sink::encode::csv_rows(&rows, header).unwrap()).unwrap();
        assert_eq!(lines(Header::Present), "\"t,t\"\n\"a\nb\"\n\"\"\n\"\"\n");
        assert_eq!(lines(Header::Absent), "\"a\nb\"\n\"\"\n\"\"\n");
    }

    #[test]
    fn nested_values_and_no_columns_are_refused_with_a_way_out() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
        let schema = Schema::new(vec![Field::new("l", arrow::array::Array::data_type(&list).clone(), true)]);
        let refused = CsvEncoder::new(&schema, &[0], &Dialect::default()).unwrap_err().to_string();
        assert!(refused.contains("\"l\"") && refused.contains("use format Json"), "{refused}");
        assert!(CsvEncoder::new(&schema, &[], &Dialect::default()).is_err());
    }
}
