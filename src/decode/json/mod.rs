//! Payloads that are one JSON object each, read in a single pass that is led by the schema.
//!
//! One pass does everything, exactly: syntax, duplicates, escapes, every spelling of a number. What makes it fast are
//! short cuts, each of which proves that it applies or leaves the value to the exact way: keys are compared with the
//! order of the records before ([`prediction`]), UTF-8 is checked over whole buffers, bytes and digits are looked at
//! eight at a time, and columns that nobody reads are walked over but not built. There is deliberately no second
//! parser to fall back to, which could answer differently.

pub(super) mod columns;
mod cursor;
mod infer;
mod members;
mod nested;
mod number;
mod prediction;
mod text;
mod timestamp;
mod walk;

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, FieldRef, TimeUnit};

use crate::decode::bad::{self, Bad, Expected};
use crate::decode::json::columns::{Care, Column, Misfit, Nulls};
use crate::decode::json::cursor::{Cursor, Escapes, RawString};
use crate::decode::json::prediction::{Prediction, Progress, Target};
use crate::decode::utf8::{self, Utf8};
use crate::decode::{Kept, OnBad};
use crate::error::{Error, Result};
use crate::raw::RawChunk;

pub use crate::decode::json::columns::SUPPORTED;
pub use crate::decode::json::infer::{Inference, Inferred};
pub(super) use crate::decode::json::members::members;

/// Refuses a field that JSON cannot be read into.
pub(super) fn check_supported(field: &Field) -> Result<()> {
    new_slot(0, field, None).map(|_| ())
}

fn new_slot(place: usize, field: &Field, numbers: Option<TimeUnit>) -> Result<Slot> {
    let column = nested::column_of(field.data_type(), numbers).map_err(|wrong| {
        let name = wrong.place(field.name());
        Error::config(format!("column {name:?}: expected a type that JSON can be read into, found {wrong}"))
            .help(format!("use one of {SUPPORTED}"))
    })?;
    let nulls = Nulls::of(field);
    let bit = u32::try_from(place).ok().and_then(|place| 1u64.checked_shl(place)).unwrap_or_default();
    Ok(Slot { name: field.name().clone(), nulls, column, bit })
}

/// A column that is read.
#[derive(Debug)]
struct Slot {
    name: String,
    nulls: Nulls,
    column: Box<dyn Column>,
    /// Its bit in [`Record::seen`]; none beyond the 64th column.
    bit: u64,
}

/// The decoder of JSON payloads.
#[derive(Debug)]
pub(super) struct JsonPayloads {
    slots: Vec<Slot>,
    places: HashMap<Vec<u8>, usize>,
    /// What [`Record::seen`] is where every column surely has a value; none where the columns are too many to tell.
    complete: Option<u64>,
    prediction: Prediction,
    record: Record,
    on_bad: OnBad,
}

/// What is known of the record under way.
#[derive(Debug, Default)]
struct Record {
    /// The row that it will be.
    row: usize,
    /// The columns that have a value already, one bit each; those beyond the 64th never have one here.
    seen: u64,
    /// The columns whose value does not fit, and where it starts.
    misfits: Vec<(usize, usize)>,
}

impl Record {
    fn begin(&mut self, row: usize) {
        self.row = row;
        self.seen = 0;
        self.misfits.clear();
    }

    /// Notes that a value of the column with this bit comes; whether it is surely the first.
    #[inline]
    fn is_first(&mut self, bit: u64) -> bool {
        let seen = self.seen;
        self.seen |= bit;
        self.seen != seen
    }
}

impl JsonPayloads {
    /// A decoder of `fields`; numbers in timestamps count `numbers`, or else each column's own unit.
    pub(super) fn new(fields: &[FieldRef], numbers: Option<TimeUnit>, on_bad: OnBad) -> Result<Self> {
        let slots = fields.iter().enumerate().map(|(place, field)| new_slot(place, field, numbers));
        let slots = slots.collect::<Result<Vec<_>>>()?;
        let complete = slots.iter().try_fold(0, |seen, slot| (slot.bit != 0).then_some(seen | slot.bit));
        let places = slots.iter().enumerate().map(|(place, slot)| (slot.name.clone().into_bytes(), place));
        let places = places.collect();
        let (prediction, record) = (Prediction::default(), Record::default());
        Ok(Self { slots, places, complete, prediction, record, on_bad })
    }

    pub(super) fn decode(&mut self, chunk: &RawChunk) -> Result<(Kept, Vec<ArrayRef>)> {
        for slot in &mut self.slots {
            slot.column.truncate(0); // what a chunk that failed has left
            slot.column.reserve(chunk.len());
        }
        // No record with half a character at either end is a JSON object.
        let utf8 = utf8::check_together(&chunk.payloads);
        let mut kept = Kept::with_capacity(chunk.len());
        for (row, payload) in chunk.payloads.iter().enumerate() {
            match payload.map(|payload| self.record(payload, utf8, kept.rows.len())) {
                None => kept.tombstones += 1,
                Some(Ok(())) => kept.rows.push(row),
                Some(Err(bad)) => self.refuse(bad, chunk, row, &mut kept)?,
            }
        }
        let arrays = self.slots.iter_mut().map(|slot| slot.column.finish()).collect::<Result<_>>()?;
        Ok((kept, arrays))
    }

    /// Removes every trace of a bad record; what becomes of it is for [`bad::settle`] to say.
    #[inline(never)]
    fn refuse(&mut self, bad: Bad, chunk: &RawChunk, row: usize, kept: &mut Kept) -> Result<()> {
        self.slots.iter_mut().for_each(|slot| slot.column.truncate(kept.rows.len()));
        let payload = chunk.payloads.get(row).unwrap_or_default();
        bad::settle(self.on_bad, chunk, row, kept, || self.expected(bad, payload))
    }

    /// Where the record goes wrong, and what would have fitted there.
    fn expected(&mut self, bad: Bad, payload: &[u8]) -> (usize, String) {
        match bad {
            Bad::Syntax { at, expected } => (at, expected.0.to_owned()),
            Bad::Misfit { at, column } => {
                let slot = self.slots.get_mut(column);
                slot.map_or_else(Default::default, |slot| slot.expected(at, payload))
            }
        }
    }

    /// Reads one record into `row` of all columns.
    #[inline]
    fn record(&mut self, payload: &[u8], utf8: Utf8, row: usize) -> Result<(), Bad> {
        if utf8 == Utf8::Unchecked {
            utf8::check(payload).map_err(|(at, expected)| Bad::Syntax { at, expected })?;
        }
        self.record.begin(row);
        let mut input = Cursor::new(payload);
        self.object(&mut input).map_err(|expected| Bad::Syntax { at: input.at(), expected })?;
        if self.complete != Some(self.record.seen) {
            self.fill(payload.len());
        }
        match self.record.misfits.first() {
            None => Ok(()),
            Some((column, at)) => Err(Bad::Misfit { at: *at, column: *column }),
        }
    }

    /// Appends nulls where the record, `end` bytes long, has no value.
    #[inline(never)]
    fn fill(&mut self, end: usize) {
        for (place, slot) in self.slots.iter_mut().enumerate() {
            if slot.column.len() == self.record.row
                && !self.record.misfits.iter().any(|misfit| misfit.0 == place)
            {
                slot.null(place, end, &mut self.record);
            }
        }
    }

    #[inline]
    fn object(&mut self, input: &mut Cursor<'_>) -> Result<(), Expected> {
        input.whitespace();
        if input.peek() != Some(b'{') {
            return Err(Expected("a JSON object"));
        }
        self.members(input)?;
        input.whitespace();
        if input.peek().is_some() {
            return Err(Expected("nothing after the object"));
        }
        Ok(())
    }

    /// Reads from the opening brace to behind the closing one. The cursor is a copy, which never has an
    /// address and so stays in registers.
    #[inline]
    fn members(&mut self, input: &mut Cursor<'_>) -> Result<(), Expected> {
        let mut own = *input;
        let mut progress = Progress::default();
        let result = loop {
            match self.member(&mut progress, &mut own) {
                Ok(Next::Member) => {}
                Ok(Next::Ended) => break Ok(()),
                Err(expected) => break Err(expected),
            }
        };
        *input = own;
        self.prediction.settle(&progress);
        result
    }

    /// Reads the brace or comma that stands here, and the key and the value behind it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "keeps the cursor in registers")]
    fn member(&mut self, progress: &mut Progress, input: &mut Cursor<'_>) -> Result<Next, Expected> {
        let target = match self.prediction.follow(progress, input) {
            Some(target) => target,
            None => match input.lend(|input| self.unpredicted(progress, input))? {
                Some(target) => target,
                None => return Ok(Next::Ended),
            },
        };
        match target.and_then(|place| Some((place, self.slots.get_mut(place)?))) {
            Some((place, slot)) => slot.read(place, input, &mut self.record)?,
            None => walk::value(input)?,
        }
        next(input)
    }

    /// Reads a key the exact way, and learns its lead; none where the object holds nothing and has been stepped over.
    #[inline(never)]
    fn unpredicted(
        &mut self,
        progress: &mut Progress,
        input: &mut Cursor<'_>,
    ) -> Result<Option<Target>, Expected> {
        if empty_object(input) {
            return Ok(None);
        }
        let start = input.at();
        input.skip(1);
        input.whitespace();
        let key = input.string()?;
        input.whitespace();
        input.expect(b':', "a colon after a key")?;
        input.whitespace();
        let target = self.place_of(key);
        self.prediction.learn(progress, input.since(start), target);
        Ok(Some(target))
    }

    /// The column that `key` names. Half a surrogate pair is in no column's name.
    fn place_of(&self, key: RawString<'_>) -> Target {
        if key.escapes == Escapes::None {
            return self.places.get(key.body).copied();
        }
        let mut text = Vec::new();
        text::unescape(key.body, &mut text).ok()?;
        self.places.get(text.as_slice()).copied()
    }
}

impl Slot {
    /// Reads the value that starts here into the record's row, in place of an earlier one of the same key.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "keeps the cursor in registers")]
    fn read(&mut self, place: usize, input: &mut Cursor<'_>, record: &mut Record) -> Result<(), Expected> {
        if !record.is_first(self.bit) {
            self.forget(place, record);
        }
        match self.column.read(input.rest()) {
            Ok(bytes) => input.skip(bytes),
            Err(Misfit) => input.lend(|input| self.unusual(place, input, record))?,
        }
        Ok(())
    }

    /// Forgets what the record under way has said of this column.
    #[inline(never)]
    fn forget(&mut self, place: usize, record: &mut Record) {
        self.column.truncate(record.row);
        record.misfits.retain(|misfit| misfit.0 != place);
    }

    /// Reads a value that stands behind whitespace, or is null, or asks for care, or does not fit.
    #[inline(never)]
    fn unusual(&mut self, place: usize, input: &mut Cursor<'_>, record: &mut Record) -> Result<(), Expected> {
        input.whitespace();
        let start = input.at();
        if input.peek() == Some(b'n') {
            input.literal("null")?;
            self.null(place, start, record);
            return Ok(());
        }
        if let Ok(bytes) = self.column.read_with(input.rest(), Care::Careful) {
            input.skip(bytes);
            return Ok(());
        }
        record.misfits.push((place, start));
        walk::value(input)
    }

    /// Where the value at `at`, which does not fit, does not, and what would have.
    fn expected(&mut self, at: usize, payload: &[u8]) -> (usize, String) {
        let fault = self.column.fault(payload.get(at..).unwrap_or_default());
        let nulls = if fault.path.is_empty() && self.nulls == Nulls::Refused { ", not null," } else { "" };
        let name = nested::joined(&self.name, &fault.path);
        (at + fault.at, format!("{}{nulls} in column {name:?}", fault.expects))
    }

    fn null(&mut self, place: usize, at: usize, record: &mut Record) {
        match self.nulls {
            Nulls::Allowed => self.column.null(),
            Nulls::Refused => record.misfits.push((place, at)),
        }
    }
}

/// What stands at the cursor behind a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The comma before another member.
    Member,
    /// Whatever follows the object.
    Ended,
}

/// Steps from the end of a value to the comma behind it, or over the closing brace.
#[inline(always)]
#[expect(clippy::inline_always, reason = "keeps the cursor in registers")]
fn next(input: &mut Cursor<'_>) -> Result<Next, Expected> {
    match input.peek() {
        Some(b',') => Ok(Next::Member),
        _ => input.lend(closing),
    }
}

#[inline(never)]
fn closing(input: &mut Cursor<'_>) -> Result<Next, Expected> {
    input.whitespace();
    match input.peek() {
        Some(b',') => return Ok(Next::Member),
        _ => input.expect(b'}', "a comma or the closing brace of an object")?,
    }
    Ok(Next::Ended)
}

/// Steps over an object that holds nothing; otherwise the cursor stays where it is.
fn empty_object(input: &mut Cursor<'_>) -> bool {
    let start = input.at();
    let opened = input.eat(b'{');
    input.whitespace();
    let empty = opened && input.eat(b'}');
    if !empty {
        input.move_to(start);
    }
    empty
}
