//! The event times of a batch's rows: the largest that is believed, and how many are missing or in the future.
//!
//! It deliberately removes no row and knows no watermark; both are decided further up.

use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use crate::decode::EventTimeSpec;
use crate::decode::doubts::Told;
use crate::decode::schema::Projection;
use crate::error::{Error, Result};
use crate::event::Counts;
use crate::time::{BatchTime, EventTime};
use crate::types::type_name;

#[derive(Debug)]
pub(super) struct EventTimes {
    place: usize,
    max_future: Duration,
}

impl EventTimes {
    pub(super) fn new(spec: &EventTimeSpec, projection: &Projection) -> Result<Self> {
        let column = projection.find(&spec.column);
        let (place, field) = column.ok_or_else(|| Error::internal("the event-time column is not decoded"))?;
        match field.data_type() {
            DataType::Timestamp(..) => Ok(Self { place, max_future: spec.max_future }),
            other => {
                let message = format!("expected the event-time column {:?} to be a timestamp", spec.column);
                Err(Error::config(format!("{message}, found {}", type_name(other)))
                    .help("declare it as, say, \"timestamp[ms]\""))
            }
        }
    }

    /// What the rows told, for whoever doubts it.
    pub(super) fn told<'a>(
        &self,
        arrays: &'a [ArrayRef],
        future: u64,
        largest: Option<EventTime>,
    ) -> Option<Told<'a>> {
        Some(Told { array: arrays.get(self.place)?, future, largest })
    }

    /// Counts the rows without and with a future time into `counts`; the largest of the other times.
    pub(super) fn observe(
        &self,
        arrays: &[ArrayRef],
        time: BatchTime,
        counts: &mut Counts,
    ) -> Result<Option<EventTime>> {
        let array =
            arrays.get(self.place).ok_or_else(|| Error::internal("the event-time column is missing"))?;
        believed(array, self.max_future, time, counts)
    }
}

/// Counts the nulls of `times`, and those later than `time` by more than `max_future`, into `counts`; the largest of
/// the others.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use arrow::array::{ArrayRef, TimestampMillisecondArray};
/// use tidemill::decode::believed;
/// use tidemill::event::Counts;
/// use tidemill::time::{BatchTime, EventTime};
///
/// let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![Some(1_000), None, Some(9_000)]));
/// let mut counts = Counts::default();
/// let largest = believed(&times, Duration::from_secs(1), BatchTime(5_000), &mut counts)?;
/// assert_eq!(largest, Some(EventTime(1_000_000)));
/// assert_eq!((counts.without_time, counts.future), (1, 1));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub fn believed(
    times: &ArrayRef,
    max_future: Duration,
    time: BatchTime,
    counts: &mut Counts,
) -> Result<Option<EventTime>> {
    let DataType::Timestamp(unit, _) = times.data_type() else {
        return Err(Error::internal(format!("event times are {}", type_name(times.data_type()))));
    };
    let limit = EventTime::from(time).plus(max_future);
    let (ticks, nulls) = (cast(times, &DataType::Int64)?, times.nulls());
    let mut largest = None;
    for (row, value) in ticks.as_primitive::<Int64Type>().values().iter().enumerate() {
        let moment = EventTime::of_ticks(*value, *unit);
        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            counts.without_time += 1;
        } else if moment > limit {
            counts.future += 1;
        } else {
            largest = largest.max(Some(moment));
        }
    }
    Ok(largest)
}
