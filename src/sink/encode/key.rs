//! Keys of records: the text of one column, or a JSON array of several.
//!
//! It deliberately decides nothing about partitions: equal values give equal bytes, and the sink hashes those.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::Schema;

use super::json::JsonEncoder;
use super::{ByteRows, column, is_bytes, push_bytes};
use crate::error::Result;

/// What the key of a record is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySpec {
    /// None.
    #[default]
    Null,
    /// These columns. One is written as its text (strings and binary as they are, a null as a null key), several as
    /// a JSON array of their values.
    Columns(Vec<String>),
}

/// Rows to keys.
#[derive(Debug)]
pub(crate) enum KeyEncoder {
    Null,
    Bytes(usize),
    Text { column: usize, json: JsonEncoder },
    Array(JsonEncoder),
}

impl KeyEncoder {
    /// An encoder for rows of `schema`; refused where a column is missing or has no text.
    pub(crate) fn new(schema: &Schema, spec: &KeySpec) -> Result<Self> {
        let KeySpec::Columns(names) = spec else {
            return Ok(Self::Null);
        };
        let columns = names.iter().map(|name| column(schema, name)).collect::<Result<Vec<_>>>()?;
        match columns.as_slice() {
            [] => Ok(Self::Null),
            [one] if is_bytes(schema.field(*one).data_type()) => Ok(Self::Bytes(*one)),
            [one] => Ok(Self::Text { column: *one, json: JsonEncoder::arrays(schema, columns)? }),
            _ => JsonEncoder::arrays(schema, columns).map(Self::Array),
        }
    }

    /// Appends the key of each row.
    pub(crate) fn encode(&self, rows: &RecordBatch, out: &mut ByteRows) -> Result<()> {
        match self {
            Self::Null => (0..rows.num_rows()).for_each(|_| out.push(None)),
            Self::Bytes(column) => push_bytes(rows.column(*column), out)?,
            Self::Text { column, json } => push_text(rows, rows.column(*column), json, out)?,
            Self::Array(json) => json.encode(rows, out)?,
        }
        Ok(())
    }
}

/// Appends the text of each value: its JSON form without the brackets of the array and, where there are, quotes.
fn push_text(rows: &RecordBatch, column: &ArrayRef, json: &JsonEncoder, out: &mut ByteRows) -> Result<()> {
    let mut arrays = ByteRows::default();
    json.encode(rows, &mut arrays)?;
    let nulls = column.logical_nulls();
    for row in 0..rows.num_rows() {
        let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        out.push(arrays.get(row).filter(|_| !is_null).map(bare));
    }
    Ok(())
}

fn bare(array: &[u8]) -> &[u8] {
    let inner = array.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]")).unwrap_or(array);
    inner.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, DictionaryArray, Int64Array, RecordBatch, StringArray,
        TimestampMillisecondArray,
    };
    use arrow::datatypes::Int32Type;

    use super::{KeyEncoder, KeySpec};
    use crate::sink::encode::ByteRows;

    fn rows() -> RecordBatch {
        let words: DictionaryArray<Int32Type> = vec![Some("x"), None].into_iter().collect();
        let time = TimestampMillisecondArray::from(vec![0, 1]).with_timezone("UTC");
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("device", Arc::new(StringArray::from(vec!["a\"1", "b"])), true),
            ("site", Arc::new(Int64Array::from(vec![Some(-7), None])), true),
            ("word", Arc::new(words), true),
            ("on", Arc::new(BooleanArray::from(vec![true, false])), true),
            ("time", Arc::new(time), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    fn keys(columns: &[&str]) -> Vec<Option<String>> {
        let spec = KeySpec::Columns(columns.iter().map(|name| (*name).to_owned()).collect());
        let encoder = KeyEncoder::new(&rows().schema(), &spec).unwrap();
        let mut out = ByteRows::default();
        encoder.encode(&rows(), &mut out).unwrap();
        (0..2).map(|row| out.get(row).map(|key| String::from_utf8(key.to_vec()).unwrap())).collect()
    }

    fn texts(first: &str, second: Option<&str>) -> Vec<Option<String>> {
        vec![Some(first.to_owned()), second.map(str::to_owned)]
    }

    #[test]
    fn one_column_is_its_text_and_a_null_is_no_key() {
        assert_eq!(keys(&["device"]), texts("a\"1", Some("b")));
        assert_eq!(keys(&["site"]), texts("-7", None));
        assert_eq!(keys(&["word"]), texts("x", None));
        assert_eq!(keys(&["on"]), texts("true", Some("false")));
        assert_eq!(keys(&["time"]), texts("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00.001Z")));
    }

    #[test]
    fn several_columns_are_a_json_array() {
        assert_eq!(keys(&["device", "site"]), texts(r#"["a\"1",-7]"#, Some(r#"["b",null]"#)));
        assert_eq!(keys(&["site", "device"]), texts(r#"[-7,"a\"1"]"#, Some(r#"[null,"b"]"#)));
    }

    #[test]
    fn no_column_is_no_key() {
        assert_eq!(keys(&[]), [None, None]);
    }

    #[test]
    fn a_missing_column_is_named_with_the_nearest() {
        let spec = KeySpec::Columns(vec!["devise".to_owned()]);
        let error = KeyEncoder::new(&rows().schema(), &spec).unwrap_err();
        assert!(error.is_config() && error.to_string().ends_with("did you mean \"device\"?"), "{error}");
    }
}
