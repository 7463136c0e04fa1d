//! Literals take the type of the column that they meet: text becomes a time or a number, a float a float32.
//!
//! Without this the column would be converted to the literal's type instead, in every batch. It deliberately never
//! changes what a comparison means: a moment between two ticks of its column's unit is rounded to the side that
//! leaves the comparison true for the same rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::ScalarValue;

/// What a literal becomes beside a column of some type.
#[derive(Debug)]
pub(super) enum Fit {
    /// It stays as it is.
    Same,
    /// It becomes this.
    Becomes(ScalarValue),
    /// Its text cannot be read as a value of the type.
    Misfit,
}

/// To which tick of the column's unit a moment between two of them goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// The one before: right for what is compared with `>` or `<=`.
    Down,
    /// The one after: right for what is compared with `>=` or `<`.
    Up,
    /// None: such a moment equals no value of the column.
    Exact,
}

/// Whether a type is text.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The literal, as a value of the type that it is compared with.
pub(super) fn fit(literal: &ScalarValue, target: &DataType, rounding: Rounding) -> Fit {
    match (literal, target) {
        (ScalarValue::Utf8(Some(text)), DataType::Timestamp(..)) => text_as_timestamp(text, target, rounding),
        (ScalarValue::Utf8(Some(text)), _) if reads_text(target) => match literal_of(text, target) {
            Some(value) => Fit::Becomes(value),
            None => Fit::Misfit,
        },
        (_, DataType::Float32) => fit_number(literal, target),
        (_, DataType::Timestamp(..)) => timestamp_as(literal, target, rounding),
        (_, DataType::Duration(unit)) => duration_as(literal, *unit, rounding),
        _ => Fit::Same,
    }
}

/// The literal, as a number of the type that it is computed with.
pub(super) fn fit_number(literal: &ScalarValue, target: &DataType) -> Fit {
    match (literal, target) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float that a person wrote means the nearest float32"
        )]
        (ScalarValue::Float64(Some(value)), DataType::Float32) => {
            Fit::Becomes(ScalarValue::Float32(Some(*value as f32)))
        }
        _ => Fit::Same,
    }
}

fn reads_text(target: &DataType) -> bool {
    target.is_numeric() || target.is_temporal() || matches!(target, DataType::Boolean)
}

fn literal_of(text: &str, target: &DataType) -> Option<ScalarValue> {
    let text = ScalarValue::from(text.trim());
    text.cast_to(target).ok().filter(|value| !value.is_null())
}

fn text_as_timestamp(text: &str, target: &DataType, rounding: Rounding) -> Fit {
    let utc = |unit| DataType::Timestamp(unit, Some(Arc::from("UTC")));
    // Microseconds are for the years that nanoseconds in 64 bits cannot hold.
    let parsed = [TimeUnit::Nanosecond, TimeUnit::Microsecond]
        .into_iter()
        .find_map(|unit| literal_of(text, &utc(unit)));
    parsed.map_or(Fit::Misfit, |value| timestamp_as(&value, target, rounding))
}

/// The timestamp in the unit and zone of `target`; without a zone it is UTC.
fn timestamp_as(literal: &ScalarValue, target: &DataType, rounding: Rounding) -> Fit {
    let is_moment = matches!(literal.data_type(), DataType::Timestamp(..));
    let (DataType::Timestamp(unit, zone), Some(nanoseconds), true) =
        (target, nanoseconds(literal), is_moment)
    else {
        return Fit::Same;
    };
    let Some(ticks) = ticks(nanoseconds, nanoseconds_of(*unit), rounding) else { return Fit::Misfit };
    let (ticks, zone) = (Some(ticks), zone.clone());
    Fit::Becomes(match unit {
        TimeUnit::Second => ScalarValue::TimestampSecond(ticks, zone),
        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(ticks, zone),
        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(ticks, zone),
        TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(ticks, zone),
    })
}

/// The length of time in `unit`.
fn duration_as(literal: &ScalarValue, unit: TimeUnit, rounding: Rounding) -> Fit {
    if !matches!(literal.data_type(), DataType::Duration(_)) {
        return Fit::Same;
    }
    let ticks = nanoseconds(literal).and_then(|nanos| ticks(nanos, nanoseconds_of(unit), rounding));
    if ticks.is_none() {
        return Fit::Same; // compared, or computed, in the finer unit
    }
    Fit::Becomes(match unit {
        TimeUnit::Second => ScalarValue::DurationSecond(ticks),
        TimeUnit::Millisecond => ScalarValue::DurationMillisecond(ticks),
        TimeUnit::Microsecond => ScalarValue::DurationMicrosecond(ticks),
        TimeUnit::Nanosecond => ScalarValue::DurationNanosecond(ticks),
    })
}

/// A moment or a length of time, in nanoseconds.
fn nanoseconds(literal: &ScalarValue) -> Option<i128> {
    let (unit, value) = match literal {
        ScalarValue::TimestampSecond(value, _) | ScalarValue::DurationSecond(value) => {
            (TimeUnit::Second, value)
        }
        ScalarValue::TimestampMillisecond(value, _) | ScalarValue::DurationMillisecond(value) => {
            (TimeUnit::Millisecond, value)
        }
        ScalarValue::TimestampMicrosecond(value, _) | ScalarValue::DurationMicrosecond(value) => {
            (TimeUnit::Microsecond, value)
        }
        ScalarValue::TimestampNanosecond(value, _) | ScalarValue::DurationNanosecond(value) => {
            (TimeUnit::Nanosecond, value)
        }
        _ => return None,
    };
    value.map(|value| i128::from(value) * nanoseconds_of(unit))
}

fn ticks(nanoseconds: i128, size: i128, rounding: Rounding) -> Option<i64> {
    let down = nanoseconds.div_euclid(size);
    let between = nanoseconds.rem_euclid(size) != 0;
    let ticks = match rounding {
        Rounding::Exact if between => return None,
        Rounding::Up if between => down + 1,
        _ => down,
    };
    i64::try_from(ticks).ok()
}

fn nanoseconds_of(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}
