//! Rows as JSON text, by arrow-json's encoders.
//!
//! It deliberately writes only two types itself, through arrow-json's own hook: timestamps in UTC, because their
//! general formatter takes ten times as long as the rest of a row, and binary, which is base64 here as it is when
//! read, where arrow-json has hexadecimal digits.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow_json::writer::{NullableEncoder, make_encoder};
use arrow_json::{Encoder, EncoderFactory, EncoderOptions, StructMode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::text::{Zone, push_timestamp};
use super::{ByteRows, names};
use crate::error::{Error, Result};
use crate::types::type_name;

/// Some columns of a row as a JSON object, or as a JSON array.
#[derive(Debug)]
pub(crate) struct JsonEncoder {
    columns: Vec<usize>,
    field: FieldRef,
    options: EncoderOptions,
}

impl JsonEncoder {
    /// An object a row, with the names of `columns`.
    pub(crate) fn objects(schema: &Schema, columns: Vec<usize>) -> Result<Self> {
        Self::new(schema, columns, StructMode::ObjectOnly)
    }

    /// An array a row, with the values of `columns` in their order.
    pub(crate) fn arrays(schema: &Schema, columns: Vec<usize>) -> Result<Self> {
        Self::new(schema, columns, StructMode::ListOnly)
    }

    fn new(schema: &Schema, columns: Vec<usize>, mode: StructMode) -> Result<Self> {
        let options = options(mode);
        let fields: Fields = schema.project(&columns)?.fields;
        fields.iter().try_for_each(|field| check(schema, field, &options))?;
        let field = Arc::new(Field::new_struct("row", fields, false));
        Ok(Self { columns, field, options })
    }

    /// Appends the JSON text of each row.
    pub(crate) fn encode(&self, rows: &RecordBatch, out: &mut ByteRows) -> Result<()> {
        self.encode_with(rows, b"", out)
    }

    /// Appends the JSON text of each row and a line feed.
    pub(crate) fn encode_lines(&self, rows: &RecordBatch, out: &mut ByteRows) -> Result<()> {
        self.encode_with(rows, b"\n", out)
    }

    fn encode_with(&self, rows: &RecordBatch, end: &[u8], out: &mut ByteRows) -> Result<()> {
        let rows = StructArray::from(rows.project(&self.columns)?);
        let mut encoder = make_encoder(&self.field, &rows, &self.options)?;
        for row in 0..rows.len() {
            out.push_with(|bytes| {
                encoder.encode(row, bytes);
                bytes.extend_from_slice(end);
            });
        }
        Ok(())
    }
}

/// How arrow-json writes for us.
pub(super) fn options(mode: StructMode) -> EncoderOptions {
    EncoderOptions::default()
        .with_explicit_nulls(true)
        .with_struct_mode(mode)
        .with_encoder_factory(Arc::new(OurTypes))
}

/// Whether arrow-json has an encoder for the column: asked before the stream starts, with no rows.
fn check(schema: &Schema, field: &FieldRef, options: &EncoderOptions) -> Result<()> {
    let empty = arrow::array::new_empty_array(field.data_type());
    let encoder = make_encoder(field, &empty, options).map(drop);
    encoder.map_err(|error| {
        let (name, found) = (field.name(), type_name(field.data_type()));
        Error::schema(format!(
            "column {name:?} of {found} cannot be written as JSON; the columns are {}",
            names(schema)
        ))
        .help("leave it out with select, or cast it")
        .caused_by(error)
    })
}

/// The types that are written here.
#[derive(Debug)]
struct OurTypes;

impl EncoderFactory for OurTypes {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Timestamp(unit, zone) => match Zone::of(zone.as_deref()) {
                Some(zone) => Box::new(Moments { values: moments(array, *unit), unit: *unit, zone }),
                None => return Ok(None),
            },
            data_type if data_type.is_binary() => Box::new(Base64(binary(array)?)),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Moments {
    values: ScalarBuffer<i64>,
    unit: TimeUnit,
    zone: Zone,
}

impl Encoder for Moments {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.values.get(row).copied().unwrap_or_default();
        out.push(b'"');
        push_timestamp(value, self.unit, self.zone, out);
        out.push(b'"');
    }
}

fn moments(array: &dyn Array, unit: TimeUnit) -> ScalarBuffer<i64> {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values().clone(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values().clone(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values().clone(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values().clone(),
    }
}

struct Base64(arrow::array::LargeBinaryArray);

impl Encoder for Base64 {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(STANDARD.encode(self.0.value(row)).as_bytes());
        out.push(b'"');
    }
}

fn binary(array: &dyn Array) -> Result<arrow::array::LargeBinaryArray, ArrowError> {
    Ok(cast(array, &DataType::LargeBinary)?.as_binary::<i64>().clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatch,
        StringArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::{DataType, Field, Int32Type, IntervalUnit, Schema, UnionFields, UnionMode};

    use super::JsonEncoder;
    use crate::sink::encode::ByteRows;

    fn encoded(columns: Vec<(&str, ArrayRef)>) -> Vec<String> {
        let rows = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        );
        let rows = rows.unwrap();
        let all = (0..rows.num_columns()).collect();
        let encoder = JsonEncoder::objects(&rows.schema(), all).unwrap();
        let mut out = ByteRows::default();
        encoder.encode(&rows, &mut out).unwrap();
        (0..rows.num_rows()).map(|row| String::from_utf8(out.get(row).unwrap().to_vec()).unwrap()).collect()
    }

    #[test]
    fn numbers_that_json_lacks_and_missing_values_are_null() {
        let floats = Float64Array::from(vec![Some(1.5), Some(f64::NAN), Some(f64::INFINITY), None]);
        let ints = Int64Array::from(vec![Some(i64::MIN), None, Some(0), Some(7)]);
        let rows = encoded(vec![("x", Arc::new(floats)), ("n", Arc::new(ints))]);
        assert_eq!(
            rows,
            [
                r#"{"x":1.5,"n":-9223372036854775808}"#,
                r#"{"x":null,"n":null}"#,
                r#"{"x":null,"n":0}"#,
                r#"{"x":null,"n":7}"#
            ]
        );
    }

    #[test]
    fn text_is_escaped_and_names_too() {
        let text = StringArray::from(vec!["a\"b\\c\n\u{1}", "日本"]);
        let rows = encoded(vec![("a\"", Arc::new(text))]);
        assert_eq!(rows, [r#"{"a\"":"a\"b\\c\n\u0001"}"#, r#"{"a\"":"日本"}"#]);
    }

    #[test]
    fn timestamps_are_iso_8601_with_their_zone() {
        let naive = TimestampMillisecondArray::from(vec![Some(1_700_000_000_250), None]);
        let utc = naive.clone().with_timezone("UTC");
        let rome = naive.clone().with_timezone("+01:00");
        let rows = encoded(vec![("n", Arc::new(naive)), ("u", Arc::new(utc)), ("r", Arc::new(rome))]);
        let first = r#"{"n":"2023-11-14T22:13:20.250","u":"2023-11-14T22:13:20.250Z","r":"2023-11-14T23:13:20.250+01:00"}"#;
        assert_eq!(rows, [first, r#"{"n":null,"u":null,"r":null}"#]);
    }

    #[test]
    fn binary_is_base64_dictionaries_are_their_values_and_lists_are_arrays() {
        let bytes = BinaryArray::from(vec![&b"\x00\xff"[..], b""]);
        let words: DictionaryArray<Int32Type> = vec![Some("on"), None].into_iter().collect();
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
        let rows = encoded(vec![("b", Arc::new(bytes)), ("w", Arc::new(words)), ("l", Arc::new(lists))]);
        assert_eq!(rows, [r#"{"b":"AP8=","w":"on","l":[1,null]}"#, r#"{"b":"","w":null,"l":null}"#]);
    }

    #[test]
    fn a_type_without_a_json_form_is_refused_before_any_row() {
        let union = DataType::Union(
            UnionFields::try_new([0], [Field::new("i", DataType::Interval(IntervalUnit::DayTime), true)])
                .unwrap(),
            UnionMode::Dense,
        );
        let schema =
            Schema::new(vec![Field::new("ok", DataType::Int8, true), Field::new("odd", union, true)]);
        let error = JsonEncoder::objects(&schema, vec![0, 1]).unwrap_err();
        assert!(error.is_config() && error.to_string().contains("\"odd\""), "{error}");
    }
}
