//! Lists taken apart: a row for each element, in order, the other columns repeated.
//!
//! A row whose list is null or empty stays, as one with a null. Rows are made in pieces of about a chunk, so that long
//! lists take no more memory at a time than short ones. It deliberately goes one level deep: lists of lists become
//! lists.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};

use crate::error::{Error, Result};
use crate::exec::pipeline::batch_of;
use crate::exec::provenance::{of_elements, provenances};
use crate::plan::list_element;
use crate::raw::CHUNK_ROWS;

/// Which columns are taken apart, and what is kept of the rows.
#[derive(Debug)]
pub(crate) struct Explosion {
    /// The lists, by their places in the input.
    pub(crate) lists: Vec<usize>,
    pub(crate) kept: Vec<Place>,
}

/// Where a column of the result comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// A column of the input, repeated.
    Input(usize),
    /// The elements of this one of the lists.
    Elements(usize),
    /// Where each element comes from: which one it is, of the row whose provenance is in this column.
    Provenance(usize),
}

impl Explosion {
    /// What `batch` becomes, in rows of `schema`.
    pub(crate) fn pieces<'a>(&'a self, batch: &'a RecordBatch, schema: &'a SchemaRef) -> Result<Pieces<'a>> {
        let lists = self.lists.iter().map(|place| list(batch, *place)).collect::<Result<_>>()?;
        Ok(Pieces { explosion: self, batch, schema, lists, next: 0 })
    }
}

/// The pieces of what a batch becomes, in order.
pub(crate) struct Pieces<'a> {
    explosion: &'a Explosion,
    batch: &'a RecordBatch,
    schema: &'a SchemaRef,
    lists: Vec<ListArray>,
    /// The row of the input that comes next.
    next: usize,
}

impl Pieces<'_> {
    /// The next piece; none where all rows are taken apart.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut piece = Piece::default();
        while self.next < self.batch.num_rows() && piece.rows.len() < CHUNK_ROWS {
            piece.push(self.next, &self.elements(self.next)?)?;
            self.next += 1;
        }
        if piece.rows.is_empty() { Ok(None) } else { self.gather(piece).map(Some) }
    }

    /// Where the elements of `row` lie in each list.
    fn elements(&self, row: usize) -> Result<Vec<Range<usize>>> {
        let ranges: Vec<Range<usize>> = self.lists.iter().map(|list| range(list, row)).collect();
        let first = ranges.first().map_or(0, Range::len);
        match ranges.iter().enumerate().find(|(_, range)| range.len() != first) {
            None => Ok(ranges),
            Some((other, range)) => {
                let (one, other, found) = (self.name(0), self.name(other), range.len());
                let text = format!(
                    "explode needs lists of equal length in each row, found {first} in {one:?} and {found} in {other:?}"
                );
                Err(Error::data(text).help("explode one after the other, or filter such rows out before"))
            }
        }
    }

    /// The name of this one of the lists.
    fn name(&self, list: usize) -> String {
        let place = self.explosion.lists.get(list);
        let field = place.and_then(|place| self.batch.schema_ref().fields().get(*place));
        field.map_or_else(String::new, |field| field.name().clone())
    }

    fn gather(&self, piece: Piece) -> Result<RecordBatch> {
        let count = piece.rows.len();
        let rows = UInt32Array::from(piece.rows);
        let elements: Vec<UInt32Array> = piece.elements.into_iter().map(UInt32Array::from).collect();
        let column = |place: &Place| match place {
            Place::Input(place) => {
                let column = self.batch.columns().get(*place).ok_or_else(lost)?;
                Ok(take(column, &rows, None)?)
            }
            Place::Elements(list) => {
                let (list, places) = self.lists.get(*list).zip(elements.get(*list)).ok_or_else(lost)?;
                Ok(take(list.values(), places, None)?)
            }
            Place::Provenance(place) => {
                Ok(Arc::new(of_elements(provenances(self.batch, *place)?, rows.values())) as ArrayRef)
            }
        };
        let columns = self.explosion.kept.iter().map(column).collect::<Result<Vec<ArrayRef>>>()?;
        batch_of(self.schema, columns, count)
    }
}

/// Rows in the making: of which row of the input each is, and which element of each list it has.
#[derive(Default)]
struct Piece {
    rows: Vec<u32>,
    elements: Vec<Vec<Option<u32>>>,
}

impl Piece {
    fn push(&mut self, row: usize, ranges: &[Range<usize>]) -> Result<()> {
        let row = small(row)?;
        self.elements.resize_with(ranges.len(), Vec::new);
        let count = ranges.first().map_or(0, Range::len).max(1);
        self.rows.extend(std::iter::repeat_n(row, count));
        for (elements, range) in self.elements.iter_mut().zip(ranges) {
            let (from, until) = (small(range.start)?, small(range.end)?);
            if from == until {
                elements.push(None);
            }
            elements.extend((from..until).map(Some));
        }
        Ok(())
    }
}

fn small(place: usize) -> Result<u32> {
    u32::try_from(place).map_err(|_| Error::internal("a chunk has too many elements in its lists"))
}

/// Where the elements of `row` lie; nowhere where its list is null, whatever lies there.
fn range(list: &ListArray, row: usize) -> Range<usize> {
    let bound = |row: usize| list.value_offsets().get(row).and_then(|end| usize::try_from(*end).ok());
    let bounds = bound(row).zip(bound(row + 1)).filter(|_| list.is_valid(row));
    bounds.map_or(0..0, |(from, until)| from..until)
}

fn list(batch: &RecordBatch, place: usize) -> Result<ListArray> {
    let array = batch.columns().get(place).ok_or_else(lost)?;
    let item = list_element(array.data_type()).ok_or_else(lost)?;
    let lists = cast(array, &DataType::List(Arc::clone(item)))?;
    lists.as_list_opt().cloned().ok_or_else(lost)
}

fn lost() -> Error {
    Error::internal("a column that explode reads was pruned, or is no list")
}
