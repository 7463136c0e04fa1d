//! Event times that lie in another age, all of them: most often a unit that is not the declared one.
//!
//! It deliberately corrects none: milliseconds and seconds are told apart by what time it is, and a job that reads old
//! records must not depend on that.

use std::time::Duration;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, TimeUnit};

use crate::decode::doubts::{BATCHES, Look, RECORDS};
use crate::decode::json::members;
use crate::decode::schema::{Projection, date_unit};
use crate::decode::{DecodeSpec, EventTimeSpec, Format};
use crate::error::{Error, Result, in_thousands};
use crate::time::{BatchTime, EventTime, ticks_a_second};
use crate::types::type_name;

/// Seconds read as milliseconds, and milliseconds as microseconds, lie in the first weeks of 1970: times before this
/// moment, 1980, are looked at.
const DAWN: EventTime = EventTime(315_532_800_000_000);
/// How old a time may be that another unit would make of a number, and how far ahead, to be taken for what was meant.
const OLDEST: Duration = Duration::from_hours(20 * 365 * 24);
const NEWEST: Duration = Duration::from_hours(48);
/// Of ten rows so many make it nearly all.
const NEARLY_ALL: u64 = 9;

const UNITS: [TimeUnit; 4] =
    [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];

/// What the rows of a chunk told of event time.
pub(in crate::decode) struct Told<'a> {
    pub(in crate::decode) array: &'a ArrayRef,
    /// Rows whose time is not believed, since it is too far ahead.
    pub(in crate::decode) future: u64,
    /// The largest time that is.
    pub(in crate::decode) largest: Option<EventTime>,
}

/// How the event times of a source were of late.
#[derive(Debug)]
pub(super) struct Times {
    column: String,
    data_type: DataType,
    unit: TimeUnit,
    /// What a number counts in the records.
    numbers: TimeUnit,
    max_future: Duration,
    batch: Batch,
    run: Run,
    settled: bool,
}

/// The batch at hand.
#[derive(Debug, Default)]
struct Batch {
    timed: u64,
    future: u64,
    past: u64,
    sample: Option<Sample>,
}

/// Batches of doubtful times, one after the other.
#[derive(Debug, Default)]
struct Run {
    records: u64,
    batches: u64,
}

/// A record with a doubtful time, and what it was read as.
#[derive(Debug)]
struct Sample {
    record: Vec<u8>,
    moment: EventTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Future,
    Past,
}

impl Times {
    /// None where the times are the broker's, whose unit is known.
    pub(super) fn new(
        time: &EventTimeSpec,
        spec: &DecodeSpec,
        projection: &Projection,
    ) -> Result<Option<Self>> {
        let Some((_, field)) = projection.find(&time.column) else { return Ok(None) };
        let DataType::Timestamp(unit, _) = field.data_type() else { return Ok(None) };
        let declared = if let Format::Json(schema) = &spec.format { date_unit(schema)? } else { None };
        Ok(Some(Self {
            column: time.column.clone(),
            data_type: field.data_type().clone(),
            unit: *unit,
            numbers: declared.unwrap_or(*unit),
            max_future: time.max_future,
            batch: Batch::default(),
            run: Run::default(),
            settled: false,
        }))
    }

    pub(super) fn look(&mut self, look: &Look<'_>) {
        let Some(told) = &look.told else { return };
        if self.settled {
            return;
        }
        let timed = (told.array.len() - told.array.null_count()) as u64;
        let past = if told.largest.is_some_and(|time| time < DAWN) { timed - told.future } else { 0 };
        self.batch.timed += timed;
        self.batch.future += told.future;
        self.batch.past += past;
        if self.batch.sample.is_none() && timed > 0 && is_nearly_all(told.future.max(past), timed) {
            self.batch.sample = self.sample(look, told);
        }
    }

    /// Of the middle of a chunk that is nearly all doubtful: the first row may be the one that is not.
    fn sample(&self, look: &Look<'_>, told: &Told<'_>) -> Option<Sample> {
        let valid = |row: &usize| told.array.is_valid(*row);
        let row = (told.array.len() / 2..told.array.len()).chain(0..told.array.len() / 2).find(valid)?;
        let one = arrow::compute::cast(&told.array.slice(row, 1), &DataType::Int64).ok()?;
        let ticks = one.as_any().downcast_ref::<arrow::array::Int64Array>()?.iter().next()??;
        Some(Sample { record: look.record(row)?, moment: EventTime::of_ticks(ticks, self.unit) })
    }

    pub(super) fn judge(&mut self, time: BatchTime) -> Option<Error> {
        let batch = std::mem::take(&mut self.batch);
        if self.settled || batch.timed == 0 {
            return None;
        }
        let written = batch.sample.as_ref().and_then(|sample| self.written(sample));
        let fit = written.as_deref().and_then(|text| self.fit(text, time));
        let Some(age) = batch.age().filter(|age| *age == Age::Future || fit.is_some()) else {
            self.run = Run::default();
            return None;
        };
        self.run.records += batch.timed;
        self.run.batches += 1;
        let is_enough = self.run.records >= RECORDS || self.run.batches >= BATCHES;
        if fit.is_none() && !is_enough {
            return None;
        }
        self.settled = true;
        Some(self.error(age, batch.sample.as_ref(), written.as_deref(), fit))
    }

    /// The number in the record, as it stands there; none where the time is text, or the broker's.
    fn written(&self, sample: &Sample) -> Option<String> {
        let found = members(&sample.record).into_iter().rev().find(|(key, _)| *key == self.column);
        let text = std::str::from_utf8(found?.1).ok()?.to_owned();
        text.starts_with(|first: char| first.is_ascii_digit()).then_some(text)
    }

    /// The unit in which the number is a time of these years.
    fn fit(&self, written: &str, time: BatchTime) -> Option<TimeUnit> {
        let value: f64 = written.parse().ok()?;
        let now = time.0 as f64 / 1e3;
        let age = |unit: &TimeUnit| now - value / ticks_a_second(*unit) as f64;
        let is_recent = |unit: &TimeUnit| (-NEWEST.as_secs_f64()..OLDEST.as_secs_f64()).contains(&age(unit));
        UNITS.into_iter().find(is_recent).filter(|unit| *unit != self.numbers)
    }

    fn error(
        &self,
        age: Age,
        sample: Option<&Sample>,
        written: Option<&str>,
        fit: Option<TimeUnit>,
    ) -> Error {
        let records = in_thousands(self.run.records);
        let (column, type_name) = (&self.column, type_name(&self.data_type));
        let where_to = match age {
            Age::Future => format!(
                "are more than max_future ({:?}) ahead of the batch: they go into no window and move no watermark",
                self.max_future
            ),
            Age::Past => "lie in the first years after 1970".to_owned(),
        };
        let shown = sample.map_or_else(String::new, |sample| {
            let moment = sample.moment;
            let value = written
                .map_or_else(String::new, |text| format!(" {text}, read as {}s,", name_of(self.numbers)));
            format!("; {column:?} is, say,{value} {moment} ({type_name})")
        });
        let message = format!("(nearly) all event times of late ({records} looked at) {where_to}{shown}");
        Error::schema(message).help(self.remedy(written, fit))
    }

    fn remedy(&self, written: Option<&str>, fit: Option<TimeUnit>) -> String {
        let Some(unit) = fit else {
            return "look at the clock of whoever writes them, or raise max_future".to_owned();
        };
        let (looks, name) = (name_of(unit), short(unit));
        let is_whole = written.is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        if is_whole && self.numbers == self.unit {
            return format!("it looks like {looks}s: declare {:?} as \"timestamp[{name}]\"", self.column);
        }
        format!(
            "it looks like {looks}s: declare {:?} as \"timestamp[us]\" and pass date_unit=\"{name}\" to tm.Json",
            self.column
        )
    }
}

impl Batch {
    fn age(&self) -> Option<Age> {
        if is_nearly_all(self.future, self.timed) {
            return Some(Age::Future);
        }
        is_nearly_all(self.past, self.timed).then_some(Age::Past)
    }
}

fn is_nearly_all(part: u64, all: u64) -> bool {
    part * 10 >= all * NEARLY_ALL
}

/// The unit's name; with an s, of several.
fn name_of(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "second",
        TimeUnit::Millisecond => "millisecond",
        TimeUnit::Microsecond => "microsecond",
        TimeUnit::Nanosecond => "nanosecond",
    }
}

fn short(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}
