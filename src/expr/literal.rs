//! Literals take the type of the column that they meet: text becomes a time or a number, a float a float32.
//!
//! Without this the column would be converted to the literal's type instead, in every batch. It deliberately never
//! changes what a comparison means: a literal that its column's type cannot hold exactly is left as it is.

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

/// Whether a type is text.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The literal, as a value of the type that it is compared with.
pub(super) fn fit(literal: &ScalarValue, target: &DataType) -> Fit {
    match (literal, target) {
        (ScalarValue::Utf8(Some(text)), DataType::Timestamp(..)) => text_as_timestamp(text, target),
        (ScalarValue::Utf8(Some(text)), _) if reads_text(target) => match literal_of(text, target) {
            Some(value) => Fit::Becomes(value),
            None => Fit::Misfit,
        },
        (_, DataType::Float32) => fit_number(literal, target),
        (_, DataType::Timestamp(..)) => timestamp_as(literal, target).map_or(Fit::Same, Fit::Becomes),
        _ => Fit::Same,
    }
}

/// The literal, as a number of the type that it is computed with.
pub(super) fn fit_number(literal: &ScalarValue, target: &DataType) -> Fit {
    match (literal, target) {
        #[expect(clippy::cast_possible_truncation, reason = "a float that a person wrote means the nearest float32")]
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

fn text_as_timestamp(text: &str, target: &DataType) -> Fit {
    let utc = |unit| DataType::Timestamp(unit, Some(Arc::from("UTC")));
    // Microseconds are for the years that nanoseconds in 64 bits cannot hold.
    let parsed = [TimeUnit::Nanosecond, TimeUnit::Microsecond].into_iter().find_map(|unit| literal_of(text, &utc(unit)));
    match parsed {
        Some(value) => Fit::Becomes(timestamp_as(&value, target).unwrap_or(value)),
        None => Fit::Misfit,
    }
}

/// The timestamp in the unit and zone of `target`, if that holds it exactly; without a zone it is UTC.
fn timestamp_as(literal: &ScalarValue, target: &DataType) -> Option<ScalarValue> {
    let DataType::Timestamp(unit, zone) = target else { return None };
    let (from, value) = match literal {
        ScalarValue::TimestampSecond(Some(value), _) => (TimeUnit::Second, *value),
        ScalarValue::TimestampMillisecond(Some(value), _) => (TimeUnit::Millisecond, *value),
        ScalarValue::TimestampMicrosecond(Some(value), _) => (TimeUnit::Microsecond, *value),
        ScalarValue::TimestampNanosecond(Some(value), _) => (TimeUnit::Nanosecond, *value),
        _ => return None,
    };
    let nanoseconds = i128::from(value) * nanoseconds_of(from);
    let size = nanoseconds_of(*unit);
    if nanoseconds % size != 0 {
        return None;
    }
    let value = Some(i64::try_from(nanoseconds / size).ok()?);
    Some(match unit {
        TimeUnit::Second => ScalarValue::TimestampSecond(value, zone.clone()),
        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(value, zone.clone()),
        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(value, zone.clone()),
        TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(value, zone.clone()),
    })
}

fn nanoseconds_of(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}
