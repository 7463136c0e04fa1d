//! Which rows have a place in a window, in which pane, and why the others have none.
//!
//! A row has none whose event time is null or too far in the future, or whose every window has ended by W(n-1). Nor has
//! one so near the ends of its column's type that a window over it would begin before the first moment there is, which
//! counts as late, or end after the last, which is in the future: such windows would all look alike. That is
//! a function of the row, the batch's time and the watermark alone, so that the rows that are aggregated and those of
//! `.late` are told apart in two places and never disagree.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type};

use crate::error::{Error, Result};
use crate::exec::BatchContext;
use crate::state::window::{PaneNumber, Windows};
use crate::time::EventTime;

/// Finds each row's place in windows over one column.
#[derive(Clone, Debug)]
pub(crate) struct Placer {
    pub(crate) windows: Windows,
    /// The column of event times.
    pub(crate) on: usize,
    /// A time later than the batch's by more than this is not believed.
    pub(crate) max_future: Duration,
}

/// Why a row has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Null,
    Future,
    Late,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Future => "future",
            Self::Late => "late",
        })
    }
}

/// The rows that have a place, and their panes.
pub(crate) struct Placed {
    pub(crate) batch: RecordBatch,
    pub(crate) panes: Panes,
    /// How many rows came too late.
    pub(crate) late: u64,
}

/// The pane of each row.
pub(crate) enum Panes {
    One(PaneNumber),
    Each(Vec<PaneNumber>),
}

/// What is too early and too late, in ticks.
#[derive(Clone, Copy)]
struct Limits {
    earliest: i64,
    latest: i64,
    ended: Option<i64>,
}

impl Placer {
    /// The rows of `batch` that have a place.
    pub(crate) fn place(&self, batch: RecordBatch, context: &BatchContext) -> Result<Placed> {
        let (ticks, limits) = (self.ticks(&batch)?, self.limits(context));
        if let Some(panes) = self.whole(&ticks, limits) {
            return Ok(Placed { batch, panes, late: 0 });
        }
        let reasons: Vec<Option<Reason>> = ticks.iter().map(|tick| self.reason(tick, limits)).collect();
        let late = reasons.iter().filter(|reason| **reason == Some(Reason::Late)).count();
        let placed = BooleanArray::new(reasons.iter().map(Option::is_none).collect(), None);
        let batch = compute::filter_record_batch(&batch, &placed)?;
        let panes = self.panes(self.ticks(&batch)?.values());
        Ok(Placed { batch, panes: Panes::Each(panes), late: late as u64 })
    }

    /// The rows of `batch` that have no place, each with the reason.
    pub(crate) fn outcasts(
        &self,
        batch: &RecordBatch,
        context: &BatchContext,
    ) -> Result<(BooleanBuffer, ArrayRef)> {
        let (ticks, limits) = (self.ticks(batch)?, self.limits(context));
        let reasons: Vec<Option<Reason>> = ticks.iter().map(|tick| self.reason(tick, limits)).collect();
        let texts: StringArray =
            reasons.iter().map(|reason| reason.map(|reason| reason.to_string())).collect();
        Ok((reasons.iter().map(Option::is_some).collect(), Arc::new(texts)))
    }

    /// The panes of all rows, where each has a place.
    fn whole(&self, ticks: &Int64Array, limits: Limits) -> Option<Panes> {
        if ticks.null_count() > 0 {
            return None;
        }
        let (first, last) = (compute::min(ticks)?, compute::max(ticks)?);
        // Panes follow one another as their ticks do: what holds for the earliest row holds for all.
        if self.reason(Some(first), limits).or(self.reason(Some(last), limits)).is_some() {
            return None;
        }
        let pane = self.windows.pane_of(first);
        if pane == self.windows.pane_of(last) {
            return Some(Panes::One(pane));
        }
        Some(Panes::Each(self.panes(ticks.values())))
    }

    /// Neighbouring rows mostly share a pane, and a comparison costs less than a division.
    fn panes(&self, ticks: &[i64]) -> Vec<PaneNumber> {
        let (mut pane, mut range) = (0, 0..0);
        let pane_of = |tick: &i64| {
            if !range.contains(tick) {
                pane = self.windows.pane_of(*tick);
                range = self.windows.ticks_of(pane);
            }
            pane
        };
        ticks.iter().map(pane_of).collect()
    }

    fn reason(&self, tick: Option<i64>, limits: Limits) -> Option<Reason> {
        let Some(tick) = tick else { return Some(Reason::Null) };
        if tick > limits.latest {
            return Some(Reason::Future);
        }
        if tick < limits.earliest {
            return Some(Reason::Late);
        }
        let end = || self.windows.last_end(self.windows.pane_of(tick));
        limits.ended.filter(|ended| end() <= *ended).map(|_| Reason::Late)
    }

    fn limits(&self, context: &BatchContext) -> Limits {
        let latest = self.windows.tick(EventTime::from(context.time).plus(self.max_future));
        let (earliest, last) = self.windows.placeable().into_inner();
        let latest = latest.min(last);
        Limits { earliest, latest, ended: context.watermark.map(|watermark| self.windows.tick(watermark)) }
    }

    fn ticks(&self, batch: &RecordBatch) -> Result<Int64Array> {
        Ok(ticks(batch, self.on)?.as_primitive::<Int64Type>().clone())
    }
}

/// A column of timestamps as plain numbers, without a copy.
pub(crate) fn ticks(batch: &RecordBatch, column: usize) -> Result<ArrayRef> {
    let lost = || Error::internal("the event-time column is missing");
    let array = batch.columns().get(column).ok_or_else(lost)?;
    match array.data_type() {
        DataType::Timestamp(..) => Ok(compute::cast(array, &DataType::Int64)?),
        other => Err(Error::internal(format!("the event-time column is {other}, not a timestamp"))),
    }
}
