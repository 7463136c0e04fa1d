//! Rows by the values of some columns, and the directories that stand for those values: `day=2026-11-21/`, as Hive
//! names them and every reader of data sets understands.
//!
//! It deliberately bounds the number of directories by nothing: a column with many values makes many small files, one
//! a value and batch, and its user sees that at once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::slices;
use crate::error::{Error, Result};
use crate::sink::encode;

/// Stands for null, as in Hive; also for the empty text, which a path has no room for.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Which columns become directories, and which stay.
#[derive(Debug)]
pub(super) struct Hive {
    by: Vec<Key>,
    left: Vec<usize>,
}

/// A column that is a directory.
#[derive(Debug)]
struct Key {
    /// As it stands in a path.
    name: String,
    place: usize,
    data_type: DataType,
}

/// A row: the number of its chunk, and its place in that.
type Row = (usize, usize);

/// The rows of one directory.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// Below the sink's own; empty for that itself.
    pub(super) directory: PathBuf,
    rows: Rows<'a>,
}

#[derive(Debug)]
enum Rows<'a> {
    /// All rows of the chunks.
    All(&'a [RecordBatch]),
    /// These rows of the chunks, which lack the columns that are directories.
    These(Rc<Vec<RecordBatch>>, Vec<Row>),
}

impl Hive {
    /// The columns `names` of `schema` as directories; all mistakes where they cannot be.
    pub(super) fn new(schema: &Schema, names: &[String]) -> Result<Self, Vec<Error>> {
        let (mut by, mut mistakes) = (Vec::new(), Vec::new());
        for (number, name) in names.iter().enumerate() {
            match key(schema, name, names.get(..number).unwrap_or_default()) {
                Ok(key) => by.push(key),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let is_left = |place: &usize| !by.iter().any(|key: &Key| key.place == *place);
        let left: Vec<usize> = (0..schema.fields().len()).filter(is_left).collect();
        if left.is_empty() && !by.is_empty() && mistakes.is_empty() {
            let message = "partition_by names every column, and leaves none for the files";
            mistakes.push(Error::schema(message).help("leave one out of partition_by"));
        }
        if mistakes.is_empty() { Ok(Self { by, left }) } else { Err(mistakes) }
    }

    /// The columns of the files.
    pub(super) fn left(&self, schema: &Schema) -> SchemaRef {
        let fields: Vec<_> =
            self.left.iter().filter_map(|place| schema.fields().get(*place).cloned()).collect();
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
    }

    /// The rows by directory, in the order in which each directory first comes; within one as they came.
    pub(super) fn pieces<'a>(&self, chunks: &'a [RecordBatch]) -> Result<Vec<Piece<'a>>> {
        if self.by.is_empty() {
            return Ok(vec![Piece { directory: PathBuf::new(), rows: Rows::All(chunks) }]);
        }
        let mut groups = Groups::new(&self.by)?;
        for (number, chunk) in chunks.iter().enumerate() {
            groups.add(number, chunk)?;
        }
        let left: Vec<_> = chunks.iter().map(|chunk| chunk.project(&self.left)).collect::<Result<_, _>>()?;
        let left = Rc::new(left);
        let piece = |(directory, rows)| Piece { directory, rows: Rows::These(Rc::clone(&left), rows) };
        Ok(groups.found.into_iter().map(piece).collect())
    }
}

impl Piece<'_> {
    /// The rows, at most `size` at a time.
    pub(super) fn slices(&self, size: usize) -> Box<dyn Iterator<Item = Result<RecordBatch>> + '_> {
        match &self.rows {
            Rows::All(chunks) => Box::new(chunks.iter().flat_map(move |chunk| slices(chunk, size)).map(Ok)),
            Rows::These(chunks, rows) => {
                let chunks: Vec<&RecordBatch> = chunks.iter().collect();
                Box::new(rows.chunks(size).map(move |rows| Ok(interleave_record_batch(&chunks, rows)?)))
            }
        }
    }
}

/// The rows of a batch, sorted into directories.
struct Groups<'a> {
    by: &'a [Key],
    converter: RowConverter,
    known: HashMap<Box<[u8]>, usize>,
    found: Vec<(PathBuf, Vec<Row>)>,
}

impl<'a> Groups<'a> {
    fn new(by: &'a [Key]) -> Result<Self> {
        let fields = by.iter().map(|key| SortField::new(key.data_type.clone())).collect();
        let converter = RowConverter::new(fields)?;
        Ok(Self { by, converter, known: HashMap::new(), found: Vec::new() })
    }

    fn add(&mut self, number: usize, chunk: &RecordBatch) -> Result<()> {
        let columns: Vec<ArrayRef> = self.by.iter().map(|key| Arc::clone(chunk.column(key.place))).collect();
        let keys = self.converter.convert_columns(&columns)?;
        for (row, key) in keys.iter().enumerate() {
            let group = match self.known.get(key.as_ref()) {
                Some(group) => *group,
                None => self.begin(key.as_ref(), &columns, row)?,
            };
            if let Some((_, rows)) = self.found.get_mut(group) {
                rows.push((number, row));
            }
        }
        Ok(())
    }

    fn begin(&mut self, key: &[u8], columns: &[ArrayRef], row: usize) -> Result<usize> {
        let names = self.by.iter().zip(columns);
        let parts = names.map(|(key, column)| Ok(format!("{}={}", key.name, text(column, row)?)));
        let group = self.found.len();
        self.found.push((parts.collect::<Result<_>>()?, Vec::new()));
        self.known.insert(key.into(), group);
        Ok(group)
    }
}

fn key(schema: &Schema, name: &str, before: &[String]) -> Result<Key> {
    let place = encode::column(schema, name).map_err(|error| error.at("partition_by"))?;
    if before.iter().any(|other| other == name) {
        return Err(Error::schema(format!("partition_by names the column {name:?} twice")));
    }
    let data_type = schema.field(place).data_type().clone();
    if !is_nameable(&data_type) {
        let message = format!(
            "partition_by takes columns of text, whole numbers, decimals, dates, times or bool, found {name:?} of {data_type}"
        );
        return Err(
            Error::schema(message).help("add a column with its text or its day, say, and partition by that")
        );
    }
    Ok(Key { name: escaped(name), place, data_type })
}

/// Whether a value of the type makes a name that reads back as the same value.
fn is_nameable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_nameable(values),
        DataType::Boolean | DataType::Date32 | DataType::Timestamp(..) => true,
        other => other.is_string() || other.is_integer() || other.is_decimal(),
    }
}

fn text(column: &ArrayRef, row: usize) -> Result<String> {
    if column.is_null(row) {
        return Ok(NULL.to_owned());
    }
    let text = ArrayFormatter::try_new(column, &FormatOptions::default())?.value(row).try_to_string()?;
    Ok(if text.is_empty() { NULL.to_owned() } else { escaped(&text) })
}

/// Every byte that is not a letter, a digit or one of `-_.` as `%2F`: what a path, a URL and Hive all leave alone.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};

    use super::Hive;

    fn chunk(names: Vec<Option<&str>>) -> RecordBatch {
        let rows = Int64Array::from_iter_values(0..i64::try_from(names.len()).unwrap());
        let days = Date32Array::from(vec![20_778; names.len()]);
        let columns: [(&str, ArrayRef, bool); 3] = [
            ("day", Arc::new(days), true),
            ("row", Arc::new(rows), true),
            ("a b", Arc::new(StringArray::from(names)), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    fn by(names: &[&str], rows: &RecordBatch) -> Result<Hive, String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let texts =
            |mistakes: Vec<_>| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Hive::new(&rows.schema(), &names).map_err(texts)
    }

    #[test]
    fn rows_go_to_the_directory_of_their_values_in_the_order_in_which_they_came() {
        let chunks = [chunk(vec![Some("a/b"), None, Some("é=")]), chunk(vec![Some("a/b"), Some("")])];
        let hive = by(&["day", "a b"], &chunks[0]).unwrap();
        let pieces = hive.pieces(&chunks).unwrap();
        let found: Vec<_> = pieces
            .iter()
            .map(|piece| {
                let rows = piece.slices(1).map(|rows| rows.unwrap()).collect::<Vec<_>>();
                assert_eq!(rows[0].num_columns(), 1);
                (piece.directory.to_str().unwrap(), rows.len())
            })
            .collect();
        let expected = [
            ("day=2026-11-21/a%20b=a%2Fb", 2),
            ("day=2026-11-21/a%20b=__HIVE_DEFAULT_PARTITION__", 1),
            ("day=2026-11-21/a%20b=%C3%A9%3D", 1),
            ("day=2026-11-21/a%20b=__HIVE_DEFAULT_PARTITION__", 1),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_cannot_be_a_directory_is_refused() {
        let rows = chunk(vec![None]);
        assert!(by(&["dat"], &rows).unwrap_err().contains("did you mean \"day\"?"));
        assert!(by(&["day", "day"], &rows).unwrap_err().contains("twice"));
        assert!(by(&["day", "a b", "row"], &rows).unwrap_err().contains("leaves none for the files"));
    }
}
