//! Payloads that are one record of CSV each (RFC 4180), read by their place or by the names in a line before.
//!
//! A line is split once, and a field that nobody reads is stepped over. Values are those of the JSON decoder, by the
//! same code, so that a column means the same in both; it deliberately has no types of its own.

mod line;

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field as Declared, FieldRef, Schema};

use crate::csv::{Dialect, Header};
use crate::decode::bad::Expected;
use crate::decode::csv::line::{Field, Form, Lines};
use crate::decode::each::{self, Records};
use crate::decode::json::columns::{Column, Misfit, new_column};
use crate::decode::utf8::{self, Utf8};
use crate::decode::{Kept, OnBad};
use crate::error::{Error, Result};
use crate::raw::RawChunk;
use crate::types::type_name;

pub use crate::decode::json::columns::SUPPORTED;

/// Refuses a field that CSV cannot be read into.
pub(super) fn check_supported(field: &Declared) -> Result<()> {
    new_slot(field).map(|_| ())
}

fn new_slot(field: &Declared) -> Result<Slot> {
    let column = new_column(field.data_type()).ok_or_else(|| {
        let (name, found) = (field.name(), type_name(field.data_type()));
        Error::config(format!("column {name:?}: expected a type that CSV can be read into, found {found}"))
            .help(format!("use one of {SUPPORTED}"))
    })?;
    let nulls = if field.is_nullable() { Nulls::Allowed } else { Nulls::Refused };
    Ok(Slot { name: field.name().clone(), nulls, column })
}

/// A column that is read.
#[derive(Debug)]
struct Slot {
    name: String,
    nulls: Nulls,
    column: Box<dyn Column>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nulls {
    Allowed,
    Refused,
}

/// Why a record is bad.
#[derive(Debug)]
pub(super) enum Bad {
    /// It is not one record of CSV in UTF-8.
    Syntax { at: usize, expected: Expected },
    /// It has another number of fields than there are columns; `at` is the first too many, or the end.
    Fields { at: usize, found: usize },
    /// The field that starts at `at` does not fit the column that is read from it.
    Misfit { at: usize, slot: usize },
}

impl From<(usize, Expected)> for Bad {
    fn from((at, expected): (usize, Expected)) -> Self {
        Self::Syntax { at, expected }
    }
}

/// Which column each field of a line is, if it is one that is read.
type Places = Vec<Option<usize>>;

/// The decoder of CSV payloads.
#[derive(Debug)]
pub(super) struct CsvPayloads {
    slots: Vec<Slot>,
    names: HashMap<Vec<u8>, usize>,
    places: Places,
    /// The line of names that `places` was learnt from, its end included; empty before the first.
    header: Vec<u8>,
    dialect: Dialect,
    /// The text of a field whose doubled quotes were made single.
    single: Vec<u8>,
    on_bad: OnBad,
}

impl CsvPayloads {
    /// A decoder of `read`, which are some of the columns of `schema`.
    pub(super) fn new(schema: &Schema, read: &[FieldRef], dialect: &Dialect, on_bad: OnBad) -> Result<Self> {
        let slots = read.iter().map(|field| new_slot(field)).collect::<Result<Vec<_>>>()?;
        let place = |name: &String| slots.iter().position(|slot| slot.name == *name);
        let places = schema.fields().iter().map(|field| place(field.name())).collect();
        let names = slots.iter().enumerate().map(|(place, slot)| (slot.name.clone().into_bytes(), place));
        let names = names.collect();
        let (header, dialect, single) = (Vec::new(), dialect.clone(), Vec::new());
        Ok(Self { slots, names, places, header, dialect, single, on_bad })
    }

    pub(super) fn decode(&mut self, chunk: &RawChunk) -> Result<(Kept, Vec<ArrayRef>)> {
        self.slots.iter_mut().for_each(|slot| slot.column.reserve(chunk.len()));
        let on_bad = self.on_bad;
        let kept = each::decode(self, chunk, on_bad)?;
        let arrays = self.slots.iter_mut().map(|slot| slot.column.finish()).collect::<Result<_>>()?;
        Ok((kept, arrays))
    }

    /// Steps over the line of names, and learns which field is which where it is another than the last.
    fn names(&mut self, payload: &[u8], lines: &mut Lines<'_>) -> Result<(), Bad> {
        if self.header.is_empty() || !payload.starts_with(&self.header) {
            self.learn(payload, lines)?;
        }
        lines.begin(self.header.len());
        Ok(())
    }

    #[inline(never)]
    fn learn(&mut self, payload: &[u8], lines: &mut Lines<'_>) -> Result<(), Bad> {
        self.header.clear(); // what is learnt below counts only when all of it was
        self.places.clear();
        while let Some(field) = next(lines)? {
            let (name, _) = single(&field, self.dialect.quote(), &mut self.single);
            let place = self.names.get(name).copied();
            if place.is_some() && self.places.contains(&place) {
                return Err((field.at, Expected("each column once in the line of names")).into());
            }
            self.places.push(place);
        }
        let line = payload.get(..lines.at()).unwrap_or_default();
        if !line.ends_with(b"\n") {
            return Err((payload.len(), Expected("a record behind the line of names")).into());
        }
        self.header.extend_from_slice(line);
        Ok(())
    }

    /// Reads the fields of a line into the next row of their columns; the first that does not fit, if one does not.
    fn fields(&mut self, lines: &mut Lines<'_>) -> Result<Option<Bad>, Bad> {
        let (mut found, mut misfit, mut beyond) = (0, None, None);
        while let Some(field) = next(lines)? {
            match self.places.get(found) {
                Some(Some(slot)) => {
                    let slot = *slot;
                    if self.value(slot, &field).is_err() {
                        misfit.get_or_insert(Bad::Misfit { at: field.at, slot });
                    }
                }
                Some(None) => {}
                None => drop(beyond.get_or_insert(field.at)),
            }
            found += 1;
        }
        if found != self.places.len() {
            return Err(Bad::Fields { at: beyond.unwrap_or_else(|| lines.at()), found });
        }
        Ok(misfit)
    }

    /// Reads one field into the next row of its column.
    #[inline]
    fn value(&mut self, slot: usize, field: &Field<'_>) -> Result<(), Misfit> {
        let slot = self.slots.get_mut(slot).ok_or(Misfit)?;
        if field.form == Form::Bare && field.text == self.dialect.null().as_bytes() {
            return slot.null();
        }
        let (text, rest) = single(field, self.dialect.quote(), &mut self.single);
        slot.column.text(text, rest)
    }

    /// Appends nulls where no field is named for a column.
    fn fill(&mut self, row: usize, end: usize) -> Option<Bad> {
        let missing = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.column.len() == row);
        let mut refused = missing.filter_map(|(place, slot)| slot.null().is_err().then_some(place));
        refused.next().map(|slot| Bad::Misfit { at: end, slot })
    }
}

fn next<'a>(lines: &mut Lines<'a>) -> Result<Option<Field<'a>>, Bad> {
    lines.field().map_err(|expected| Bad::Syntax { at: lines.at(), expected })
}

/// The text of a field, and what follows it; with doubled quotes made single in `out`.
#[inline]
fn single<'a>(field: &Field<'a>, quote: u8, out: &'a mut Vec<u8>) -> (&'a [u8], &'a [u8]) {
    if field.form != Form::Doubled {
        return (field.text, field.rest);
    }
    out.clear();
    let mut rest = field.text;
    while let Some(at) = memchr::memchr(quote, rest) {
        let (text, quotes) = rest.split_at_checked(at + 1).unwrap_or((rest, &[]));
        out.extend_from_slice(text);
        rest = quotes.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    (out.as_slice(), out.as_slice())
}

impl Slot {
    fn null(&mut self) -> Result<(), Misfit> {
        match self.nulls {
            Nulls::Allowed => self.column.null(),
            Nulls::Refused => return Err(Misfit),
        }
        Ok(())
    }

    fn expects(&self) -> String {
        let nulls = if self.nulls == Nulls::Refused { ", not null," } else { "" };
        format!("{}{nulls} in column {:?}", self.column.expects(), self.name)
    }
}

impl Records for CsvPayloads {
    type Bad = Bad;

    fn record(&mut self, payload: &[u8], known: Utf8, row: usize) -> Result<(), Bad> {
        utf8::check_whole(payload, known)?;
        let mut lines = Lines::new(payload, &self.dialect);
        let named = self.dialect.header() == Header::Present;
        if named {
            self.names(payload, &mut lines)?;
        }
        let misfit = self.fields(&mut lines)?;
        if lines.at() != payload.len() {
            return Err((lines.at(), Expected("nothing behind the record's line")).into());
        }
        let misfit = misfit.or_else(|| if named { self.fill(row, payload.len()) } else { None });
        misfit.map_or(Ok(()), Err)
    }

    fn truncate(&mut self, rows: usize) {
        self.slots.iter_mut().for_each(|slot| slot.column.truncate(rows));
    }

    fn explain(&self, bad: &Bad) -> (usize, String) {
        match bad {
            Bad::Syntax { at, expected } => (*at, expected.0.to_owned()),
            Bad::Fields { at, found } => {
                let columns = self.places.len();
                let plural = if columns == 1 { "" } else { "s" };
                (*at, format!("a record of {columns} field{plural} (this has {found})"))
            }
            Bad::Misfit { at, slot } => (*at, self.slots.get(*slot).map_or_else(String::new, Slot::expects)),
        }
    }
}
