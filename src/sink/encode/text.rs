//! Moments as ISO 8601 text, digit by digit.
//!
//! It deliberately knows no zone but UTC: the others are rare, and arrow formats them.

use arrow::datatypes::TimeUnit;

/// What follows a moment's digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Nothing: the column has no zone.
    Unsaid,
    /// `Z`.
    Utc,
}

impl Zone {
    /// The zone of a timestamp column; `None` where it is another than UTC.
    pub(crate) fn of(name: Option<&str>) -> Option<Self> {
        match name {
            None => Some(Self::Unsaid),
            Some("UTC" | "Etc/UTC" | "Z" | "+00:00" | "+0000" | "+00") => Some(Self::Utc),
            Some(_) => None,
        }
    }
}

const DAY_SECONDS: i64 = 86_400;

/// Appends `2023-11-14T22:13:20.250Z`. Digits of the second stand in threes, as many as are needed; years beyond four
/// digits have a sign, as ISO 8601 says.
pub(crate) fn push_timestamp(value: i64, unit: TimeUnit, zone: Zone, out: &mut Vec<u8>) {
    let scale = per_second(unit);
    let (seconds, fraction) = (value.div_euclid(scale), value.rem_euclid(scale));
    push_date(seconds.div_euclid(DAY_SECONDS), out);
    out.push(b'T');
    push_clock(seconds.rem_euclid(DAY_SECONDS), out);
    push_fraction(fraction * (1_000_000_000 / scale), out);
    if zone == Zone::Utc {
        out.push(b'Z');
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Appends the date that is `days` after 1970-01-01, as `YYYY-MM-DD`.
fn push_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    if !(0..=9_999).contains(&year) {
        out.push(if year < 0 { b'-' } else { b'+' });
    }
    push_digits(year.abs(), 4, out);
    out.push(b'-');
    push_digits(month, 2, out);
    out.push(b'-');
    push_digits(day, 2, out);
}

/// Year, month and day of a day number: Howard Hinnant's `civil_from_days`, in which years begin in March so that the
/// leap day is the last, and an era is the 400 years after which the calendar repeats.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends the time of day as `HH:MM:SS`.
fn push_clock(seconds: i64, out: &mut Vec<u8>) {
    push_digits(seconds / 3_600, 2, out);
    out.push(b':');
    push_digits(seconds / 60 % 60, 2, out);
    out.push(b':');
    push_digits(seconds % 60, 2, out);
}

fn push_fraction(nanos: i64, out: &mut Vec<u8>) {
    let (value, digits) = match nanos {
        0 => return,
        nanos if nanos % 1_000_000 == 0 => (nanos / 1_000_000, 3),
        nanos if nanos % 1_000 == 0 => (nanos / 1_000, 6),
        nanos => (nanos, 9),
    };
    out.push(b'.');
    push_digits(value, digits, out);
}

/// Appends a number that is not negative, with zeros in front up to `width` digits.
fn push_digits(value: i64, width: usize, out: &mut Vec<u8>) {
    let (start, mut rest) = (out.len(), value);
    while rest > 0 || out.len() - start < width {
        out.push(b'0' + u8::try_from(rest % 10).unwrap_or(0));
        rest /= 10;
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{TimestampMicrosecondArray, TimestampNanosecondArray};
    use arrow::datatypes::TimeUnit;
    use arrow::util::display::array_value_to_string;

    use super::{Zone, push_timestamp};

    fn text(value: i64, unit: TimeUnit) -> String {
        let mut out = Vec::new();
        push_timestamp(value, unit, Zone::Utc, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn moments_are_written_as_arrow_writes_them() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..100_000 {
            let value = random.i64(-62_135_596_800_000_000..253_402_300_800_000_000);
            let arrow = TimestampMicrosecondArray::from(vec![value]).with_timezone("UTC");
            assert_eq!(
                text(value, TimeUnit::Microsecond),
                array_value_to_string(&arrow, 0).unwrap(),
                "{value}"
            );
        }
    }

    #[test]
    fn the_edges_of_the_calendar_hold() {
        assert_eq!(text(0, TimeUnit::Second), "1970-01-01T00:00:00Z");
        assert_eq!(text(-1, TimeUnit::Millisecond), "1969-12-31T23:59:59.999Z");
        assert_eq!(text(951_782_400, TimeUnit::Second), "2000-02-29T00:00:00Z");
        assert_eq!(text(253_402_300_800, TimeUnit::Second), "+10000-01-01T00:00:00Z");
        let least = TimestampNanosecondArray::from(vec![i64::MIN]).with_timezone("UTC");
        assert_eq!(text(i64::MIN, TimeUnit::Nanosecond), array_value_to_string(&least, 0).unwrap());
        assert!(text(i64::MAX, TimeUnit::Second).starts_with("+292277026596-12-04T"));
    }
}
