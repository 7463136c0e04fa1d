//! Columns of lists, structs and maps: each holds the columns of what stands in it, to any depth that a schema names.
//!
//! A value fits as a whole or leaves nothing behind, and of a key that comes twice the last one counts, at every depth.
//! Maps are read in one pass in which no key may come twice; where one does, the whole column's value is read once more,
//! with a look at the keys of each map before its values: so hostile keys cost a walk a level, and no retry within a
//! retry. It deliberately keeps no path while it reads: where a value does not fit is found by reading it once more,
//! which only a record that is told pays for.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, GenericListArray, MapArray, OffsetSizeTrait, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

use crate::decode::json::columns::{Care, Column, Misfit, NullRows, Nulls, Strings, new_column, timestamps};
use crate::decode::json::cursor::{Cursor, Escapes, RawString};
use crate::decode::json::text::unescape;
use crate::decode::json::walk;
use crate::error::{Error, Result};
use crate::types::type_name;

/// How deep a schema may nest: a record may not nest deeper, and columns are read by recursion.
const MAX_DEPTH: u32 = walk::MAX_DEPTH - 2;

/// Up to so many keys of one object are compared with each other, more are hashed.
const FEW_KEYS: usize = 16;

/// A member of a schema that JSON cannot be read into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// Where in the column it is, from the outside in; empty where it is the column itself.
    path: String,
    found: String,
}

impl Unreadable {
    fn of(data_type: &DataType) -> Self {
        Self { path: String::new(), found: type_name(data_type) }
    }

    fn within(self, step: &str) -> Self {
        Self { path: joined(step, &self.path), ..self }
    }

    /// The column `name`, and the way from there.
    pub(super) fn place(&self, name: &str) -> String {
        joined(name, &self.path)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)
    }
}

/// `step`, and what follows it in a path.
pub(super) fn joined(step: &str, path: &str) -> String {
    if path.is_empty() { step.to_owned() } else { format!("{step}.{path}") }
}

/// An empty column of `data_type`, nested or not, in a record's own object. Numbers in timestamps, at any depth, count
/// `numbers`, or else their type's own unit.
pub(super) fn column_of(
    data_type: &DataType,
    numbers: Option<TimeUnit>,
) -> Result<Box<dyn Column>, Unreadable> {
    column_below(data_type, Within { above: 0, numbers })
}

/// What holds for all values in a list, struct or map.
#[derive(Clone, Copy, Debug)]
struct Within {
    /// How many lists and objects they stand in, the record's own aside.
    above: u32,
    numbers: Option<TimeUnit>,
}

impl Within {
    fn deeper(self) -> Self {
        Self { above: self.above + 1, ..self }
    }
}

fn column_below(data_type: &DataType, within: Within) -> Result<Box<dyn Column>, Unreadable> {
    if within.above > MAX_DEPTH {
        let found = format!("more than {MAX_DEPTH} levels of lists and structs");
        return Err(Unreadable { path: String::new(), found });
    }
    Ok(match (data_type, within.numbers) {
        (DataType::List(item), _) => Box::new(Lists::<i32>::new(item, within.deeper())?),
        (DataType::LargeList(item), _) => Box::new(Lists::<i64>::new(item, within.deeper())?),
        (DataType::Struct(fields), _) => Box::new(Structs::new(fields, within.deeper())?),
        (DataType::Map(entries, _), _) => Box::new(Maps::new(data_type, entries, within.deeper())?),
        (DataType::Timestamp(unit, _), Some(numbers)) => timestamps(data_type, *unit, numbers),
        (flat, _) => new_column(flat).ok_or_else(|| Unreadable::of(flat))?,
    })
}

/// Where a value does not fit, and what would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Fault {
    /// The way from the column's value to the value that does not fit, as in `3.value`; empty for the value itself.
    pub(super) path: String,
    /// The byte where that starts, counted from where the column's value does.
    pub(super) at: usize,
    /// What fits there, in words that follow "expected".
    pub(super) expects: String,
}

impl Fault {
    fn within(self, step: &str, at: usize) -> Self {
        Self { path: joined(step, &self.path), at: self.at + at, ..self }
    }
}

/// The values in a list, struct or map.
#[derive(Debug)]
struct Inner {
    column: Box<dyn Column>,
    nulls: Nulls,
}

impl Inner {
    fn new(field: &Field, within: Within) -> Result<Self, Unreadable> {
        Ok(Self { column: column_below(field.data_type(), within)?, nulls: Nulls::of(field) })
    }

    fn len(&self) -> usize {
        self.column.len()
    }

    /// Appends the value that starts here, which may be null. Where it does not fit, the cursor stays.
    #[inline]
    fn read(&mut self, input: &mut Cursor<'_>, care: Care) -> Result<(), Misfit> {
        match self.column.read_with(input.rest(), care) {
            Ok(bytes) => input.skip(bytes),
            Err(Misfit) if self.nulls == Nulls::Allowed => {
                input.literal("null")?;
                self.column.null();
            }
            Err(Misfit) => return Err(Misfit),
        }
        Ok(())
    }

    /// Appends what a value that is missing is.
    fn missing(&mut self) -> Result<(), Misfit> {
        if self.nulls == Nulls::Refused {
            return Err(Misfit);
        }
        self.column.null();
        Ok(())
    }

    /// Why the value that `rest` starts with does not fit; none where it does.
    fn fault(&mut self, rest: &[u8]) -> Option<Fault> {
        let rows = self.len();
        let read = self.read(&mut Cursor::new(rest), Care::Careful);
        self.column.truncate(rows);
        read.is_err().then(|| {
            let mut fault = self.column.fault(rest);
            if fault.path.is_empty() && self.nulls == Nulls::Refused {
                fault.expects.push_str(", not null,");
            }
            fault
        })
    }
}

/// Whether another value follows in an object or array, or `close` ends it.
fn follows(input: &mut Cursor<'_>, close: u8) -> Result<bool, Misfit> {
    input.whitespace();
    if input.eat(close) {
        return Ok(false);
    }
    input.expect(b',', "a comma")?;
    input.whitespace();
    Ok(true)
}

/// Steps over the bracket that opens, and over the one that closes if nothing is between them.
fn opens(input: &mut Cursor<'_>, open: u8, close: u8) -> Result<bool, Misfit> {
    input.expect(open, "a bracket")?;
    input.whitespace();
    Ok(!input.eat(close))
}

/// Steps over a key up to its value.
fn key<'a>(input: &mut Cursor<'a>) -> Result<RawString<'a>, Misfit> {
    let key = input.string()?;
    colon(input)?;
    Ok(key)
}

fn colon(input: &mut Cursor<'_>) -> Result<(), Misfit> {
    input.whitespace();
    input.expect(b':', "a colon")?;
    input.whitespace();
    Ok(())
}

/// The text of a key; none where it holds half a surrogate pair.
fn text_of(key: RawString<'_>) -> Option<Vec<u8>> {
    if key.escapes == Escapes::None {
        return Some(key.body.to_vec());
    }
    let mut text = Vec::new();
    unescape(key.body, &mut text).ok()?;
    Some(text)
}

/// A key's text, if it has one, and where its value starts.
type KeyAt = (Option<Vec<u8>>, usize);

/// Every key of the object that `rest` starts with, and where its value does; and where the object ends.
fn members(rest: &[u8], above: u32) -> Result<(Vec<KeyAt>, usize), Misfit> {
    let (mut input, mut found) = (Cursor::new(rest), Vec::new());
    let mut more = opens(&mut input, b'{', b'}')?;
    while more {
        let key = key(&mut input)?;
        found.push((text_of(key), input.at()));
        walk::below(&mut input, above)?;
        more = follows(&mut input, b'}')?;
    }
    Ok((found, input.at()))
}

/// Where each list or map ends among the values of all, and which are null.
#[derive(Debug, Default)]
struct Ends {
    ends: Vec<usize>,
    nulls: NullRows,
}

impl Ends {
    fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where the next one begins.
    fn last(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    fn push(&mut self, end: usize) {
        self.ends.push(end);
    }

    fn null(&mut self) {
        self.nulls.push(self.ends.len());
        self.ends.push(self.last());
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.nulls.truncate(rows);
    }

    fn reserve(&mut self, rows: usize) {
        self.ends.reserve(rows);
    }

    fn finish<O: OffsetSizeTrait>(&mut self) -> Result<(OffsetBuffer<O>, Option<NullBuffer>)> {
        let nulls = self.nulls.finish(self.ends.len());
        O::from_usize(self.last()).ok_or_else(too_many_values)?; // no end is larger
        let ends = self.ends.drain(..).map(O::usize_as);
        let offsets: Vec<O> = std::iter::once(O::zero()).chain(ends).collect();
        Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), nulls))
    }
}

fn too_many_values() -> Error {
    Error::data("expected less than 2 billion values in the lists of one chunk, found more")
        .help("declare the column as a large list of pyarrow's, or ask for smaller batches")
}

/// JSON's arrays.
#[derive(Debug)]
struct Lists<O> {
    field: FieldRef,
    items: Inner,
    ends: Ends,
    width: PhantomData<fn() -> O>,
}

impl<O> Lists<O> {
    fn new(item: &FieldRef, within: Within) -> Result<Self, Unreadable> {
        let items = Inner::new(item, within).map_err(|wrong| wrong.within("[]"))?;
        Ok(Self { field: Arc::clone(item), items, ends: Ends::default(), width: PhantomData })
    }

    fn elements(&mut self, input: &mut Cursor<'_>, care: Care) -> Result<(), Misfit> {
        let mut more = opens(input, b'[', b']')?;
        while more {
            self.items.read(input, care)?;
            more = follows(input, b']')?;
        }
        Ok(())
    }
}

impl<O: OffsetSizeTrait> Column for Lists<O> {
    fn read(&mut self, rest: &[u8]) -> Result<usize, Misfit> {
        self.read_with(rest, Care::Quick)
    }

    fn read_with(&mut self, rest: &[u8], care: Care) -> Result<usize, Misfit> {
        let mut input = Cursor::new(rest);
        if self.elements(&mut input, care).is_err() {
            self.items.column.truncate(self.ends.last());
            return Err(Misfit);
        }
        self.ends.push(self.items.len());
        Ok(input.at())
    }

    fn null(&mut self) {
        self.ends.null();
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.items.column.truncate(self.ends.last());
    }

    fn reserve(&mut self, rows: usize) {
        self.ends.reserve(rows);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let (offsets, nulls) = self.ends.finish::<O>()?;
        let items = self.items.column.finish()?;
        Ok(Arc::new(GenericListArray::try_new(Arc::clone(&self.field), offsets, items, nulls)?))
    }

    fn expects(&self) -> String {
        "an array".to_owned()
    }

    /// The first item of the array that `rest` starts with which does not fit.
    fn fault_inside(&mut self, rest: &[u8]) -> Result<Option<Fault>, Misfit> {
        let mut input = Cursor::new(rest);
        let (mut more, mut place) = (opens(&mut input, b'[', b']')?, 0_usize);
        while more {
            let at = input.at();
            if let Some(fault) = self.items.fault(input.rest()) {
                return Ok(Some(fault.within(&place.to_string(), at)));
            }
            walk::value(&mut input)?;
            more = follows(&mut input, b']')?;
            place += 1;
        }
        Ok(None)
    }
}

/// JSON's objects, of the members that the schema names.
#[derive(Debug)]
struct Structs {
    fields: Fields,
    members: Vec<Inner>,
    places: HashMap<Vec<u8>, usize>,
    rows: usize,
    nulls: NullRows,
    /// The members of the object under way whose value does not fit.
    misfits: Vec<usize>,
    /// How many lists and objects a member's value stands in, the record's own aside.
    above: u32,
}

impl Structs {
    fn new(fields: &Fields, within: Within) -> Result<Self, Unreadable> {
        let inner = |field: &FieldRef| {
            Inner::new(field, within).map_err(|wrong: Unreadable| wrong.within(field.name()))
        };
        let members = fields.iter().map(inner).collect::<Result<Vec<_>, _>>()?;
        let names = fields.iter().enumerate();
        let places: HashMap<_, _> =
            names.map(|(place, field)| (field.name().clone().into_bytes(), place)).collect();
        if places.len() < fields.len() {
            return Err(Unreadable {
                path: String::new(),
                found: "a struct with a name that comes twice".to_owned(),
            });
        }
        let (fields, nulls) = (fields.clone(), NullRows::default());
        Ok(Self { fields, members, places, rows: 0, nulls, misfits: Vec::new(), above: within.above })
    }

    fn object(&mut self, input: &mut Cursor<'_>, care: Care) -> Result<(), Misfit> {
        self.misfits.clear();
        let (mut more, mut next) = (opens(input, b'{', b'}')?, 0);
        while more {
            let key = key(input)?;
            match self.place_of(key, next) {
                Some(place) => {
                    self.member(place, input, care)?;
                    next = place + 1;
                }
                None => walk::below(input, self.above)?,
            }
            more = follows(input, b'}')?;
        }
        self.fill()
    }

    /// The member that `key` names: mostly the one that follows the last.
    fn place_of(&self, key: RawString<'_>, next: usize) -> Option<usize> {
        if key.escapes == Escapes::Some {
            return self.places.get(&text_of(key)?).copied();
        }
        match self.fields.get(next) {
            Some(field) if field.name().as_bytes() == key.body => Some(next),
            _ => self.places.get(key.body).copied(),
        }
    }

    /// Reads a member's value, in place of an earlier one of the same key.
    fn member(&mut self, place: usize, input: &mut Cursor<'_>, care: Care) -> Result<(), Misfit> {
        let Some(member) = self.members.get_mut(place) else { return Err(Misfit) };
        if member.len() > self.rows {
            member.column.truncate(self.rows);
        }
        if !self.misfits.is_empty() {
            self.misfits.retain(|misfit| *misfit != place);
        }
        if member.read(input, care).is_err() {
            self.misfits.push(place);
            walk::below(input, self.above)?;
        }
        Ok(())
    }

    /// Appends nulls where the object has no value; an object with a value that does not fit is a misfit.
    fn fill(&mut self) -> Result<(), Misfit> {
        if !self.misfits.is_empty() {
            return Err(Misfit);
        }
        let mut missing = self.members.iter_mut().filter(|member| member.len() == self.rows);
        missing.try_for_each(Inner::missing)
    }
}

impl Column for Structs {
    fn read(&mut self, rest: &[u8]) -> Result<usize, Misfit> {
        self.read_with(rest, Care::Quick)
    }

    fn read_with(&mut self, rest: &[u8], care: Care) -> Result<usize, Misfit> {
        let mut input = Cursor::new(rest);
        if self.object(&mut input, care).is_err() {
            self.members.iter_mut().for_each(|member| member.column.truncate(self.rows));
            return Err(Misfit);
        }
        self.rows += 1;
        Ok(input.at())
    }

    fn null(&mut self) {
        self.members.iter_mut().for_each(|member| member.column.null());
        self.nulls.push(self.rows);
        self.rows += 1;
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
        self.members.iter_mut().for_each(|member| member.column.truncate(rows));
        self.nulls.truncate(rows);
    }

    fn reserve(&mut self, rows: usize) {
        self.members.iter_mut().for_each(|member| member.column.reserve(rows));
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let rows = std::mem::take(&mut self.rows);
        let nulls = self.nulls.finish(rows);
        let members = self.members.iter_mut().map(|member| member.column.finish());
        let members = members.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), members, nulls, rows)?))
    }

    fn expects(&self) -> String {
        "an object".to_owned()
    }

    /// The first member of the object that `rest` starts with whose last value does not fit, or that is missing.
    fn fault_inside(&mut self, rest: &[u8]) -> Result<Option<Fault>, Misfit> {
        let (found, end) = members(rest, self.above)?;
        let mut values = vec![None; self.members.len()];
        for (key, at) in found {
            let place = key.and_then(|key| self.places.get(&key).copied());
            if let Some(value) = place.and_then(|place| values.get_mut(place)) {
                *value = Some(at);
            }
        }
        let members = self.members.iter_mut().zip(self.fields.iter()).zip(values);
        let faults = members.filter_map(|((member, field), at)| {
            let start = at.unwrap_or(end);
            let value = if at.is_some() { rest.get(start..)? } else { b"null" };
            Some(member.fault(value)?.within(field.name(), start))
        });
        Ok(faults.min_by_key(|fault| fault.at))
    }
}

/// JSON's objects, of members that no schema names: their keys, and values of one type.
#[derive(Debug)]
struct Maps {
    entries: FieldRef,
    inner: Fields,
    keys: Strings<i32>,
    values: Inner,
    ends: Ends,
    above: u32,
}

impl Maps {
    fn new(whole: &DataType, entries: &FieldRef, within: Within) -> Result<Self, Unreadable> {
        let DataType::Struct(inner) = entries.data_type() else { return Err(Unreadable::of(whole)) };
        let (Some(key), Some(value)) = (inner.first(), inner.get(1)) else {
            return Err(Unreadable::of(whole));
        };
        if *key.data_type() != DataType::Utf8 {
            let found = format!("{}, whose keys are no strings", type_name(whole));
            return Err(Unreadable { path: String::new(), found });
        }
        let values = Inner::new(value, within).map_err(|wrong| wrong.within("*"))?;
        let (entries, inner) = (Arc::clone(entries), inner.clone());
        Ok(Self { entries, inner, keys: Strings::new(), values, ends: Ends::default(), above: within.above })
    }

    fn forget(&mut self) {
        let end = self.ends.last();
        self.keys.truncate(end);
        self.values.column.truncate(end);
    }

    /// Reads an object whose keys all differ.
    fn object(&mut self, rest: &[u8]) -> Result<usize, Misfit> {
        let input = &mut Cursor::new(rest);
        let mut more = opens(input, b'{', b'}')?;
        while more {
            let bytes = self.keys.read(input.rest())?;
            input.skip(bytes);
            colon(input)?;
            self.values.read(input, Care::Quick)?;
            more = follows(input, b'}')?;
        }
        if all_differ(self.keys.texts_from(self.ends.last())) { Ok(input.at()) } else { Err(Misfit) }
    }

    /// Reads an object of which keys may come twice: a key stands where it came first, with the last value that it has,
    /// and no other is looked at.
    #[inline(never)]
    fn last_of_each(&mut self, rest: &[u8]) -> Result<usize, Misfit> {
        let (found, end) = members(rest, self.above)?;
        for (key, at) in last_values(found)? {
            self.keys.text(&key, &key)?;
            let value = rest.get(at..).unwrap_or_default();
            self.values.read(&mut Cursor::new(value), Care::Careful)?;
        }
        Ok(end)
    }
}

/// The keys in the order in which they first come, and where the last value of each starts.
fn last_values(found: Vec<KeyAt>) -> Result<Vec<(Vec<u8>, usize)>, Misfit> {
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut last: Vec<(Vec<u8>, usize)> = Vec::new();
    for (key, at) in found {
        let key = key.ok_or(Misfit)?;
        if let Some(known) = places.get(&key).and_then(|place| last.get_mut(*place)) {
            known.1 = at;
            continue;
        }
        places.insert(key.clone(), last.len());
        last.push((key, at));
    }
    Ok(last)
}

/// Whether all texts differ.
fn all_differ<'a>(mut texts: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> bool {
    if texts.len() > FEW_KEYS {
        let mut known = HashSet::with_capacity(texts.len());
        return texts.all(|text| known.insert(text));
    }
    let mut rest = texts.clone();
    texts.all(|text| {
        rest.next();
        rest.clone().all(|other| other != text)
    })
}

impl Column for Maps {
    fn read(&mut self, rest: &[u8]) -> Result<usize, Misfit> {
        self.read_with(rest, Care::Quick)
    }

    fn read_with(&mut self, rest: &[u8], care: Care) -> Result<usize, Misfit> {
        let bytes = match care {
            Care::Quick => self.object(rest),
            Care::Careful => self.last_of_each(rest),
        };
        match bytes {
            Ok(_) => self.ends.push(self.values.len()),
            Err(Misfit) => self.forget(),
        }
        bytes
    }

    fn null(&mut self) {
        self.ends.null();
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.forget();
    }

    fn reserve(&mut self, rows: usize) {
        self.ends.reserve(rows);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let (offsets, nulls) = self.ends.finish::<i32>()?;
        let (keys, values) = (self.keys.finish()?, self.values.column.finish()?);
        let entries = StructArray::try_new(self.inner.clone(), vec![keys, values], None)?;
        Ok(Arc::new(MapArray::try_new(Arc::clone(&self.entries), offsets, entries, nulls, false)?))
    }

    fn expects(&self) -> String {
        "an object".to_owned()
    }

    fn fault_inside(&mut self, rest: &[u8]) -> Result<Option<Fault>, Misfit> {
        for (key, at) in last_values(members(rest, self.above)?.0)? {
            if let Some(fault) = self.values.fault(rest.get(at..).unwrap_or_default()) {
                return Ok(Some(fault.within(&String::from_utf8_lossy(&key), at)));
            }
        }
        Ok(None)
    }
}
