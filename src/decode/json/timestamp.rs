//! ISO 8601 text → a moment, and a moment in a column's unit.
//!
//! It takes the forms that programs write: `YYYY-MM-DD`, then optionally `T` or a space, `HH:MM[:SS[.fraction]]` and
//! a zone, `Z`, `±HH`, `±HHMM` or `±HH:MM`. It deliberately leaves out weeks, ordinal dates, years outside
//! 0000…9999, 24:00 and leap seconds, for which a column of this type has no place. Without a zone, text is UTC.

use arrow::datatypes::TimeUnit;

const SECONDS_A_DAY: i64 = 86_400;
const NANOS_A_SECOND: u32 = 1_000_000_000;

/// A point in time: whole seconds since the epoch, rounded down, and the nanoseconds after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    seconds: i64,
    nanos: u32,
}

impl Moment {
    /// The moment that `text` tells.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (date, rest) = text.split_first_chunk::<10>()?;
        let midnight = i64::from(date_of(date)?) * SECONDS_A_DAY;
        let (second, nanos, zone) = match rest {
            [] => (0, 0, rest),
            [b'T' | b't' | b' ', time @ ..] => time_of_day(time)?,
            _ => return None,
        };
        Some(Self { seconds: midnight + second - offset(zone)?, nanos })
    }

    /// The number that stands for it in a column of `unit`, rounded down; `None` outside the column's range.
    pub(super) fn to_unit(self, unit: TimeUnit) -> Option<i64> {
        let per_second = match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => NANOS_A_SECOND,
        };
        // In 128 bits: the first second of the range of nanoseconds overflows before its nanoseconds are added.
        let parts = i128::from(self.seconds) * i128::from(per_second)
            + i128::from(self.nanos / (NANOS_A_SECOND / per_second));
        i64::try_from(parts).ok()
    }
}

/// The days since the epoch of a date alone.
pub(super) fn parse_date(text: &[u8]) -> Option<i32> {
    date_of(text.try_into().ok()?)
}

fn date_of(text: &[u8; 10]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text else { return None };
    let year = two(y1, y2)? * 100 + two(y3, y4)?;
    let (month, day) = (two(m1, m2)?, two(d1, d2)?);
    let valid = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    valid.then(|| days_since_epoch(year, month, day))
}

fn days_in(year: i32, month: i32) -> i32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the civil calendar, by eras of 400 years that begin on 1 March (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
fn days_since_epoch(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The second of the day, the nanoseconds after it, and the text behind them.
fn time_of_day(text: &[u8]) -> Option<(i64, u32, &[u8])> {
    let (hour_minute, rest) = text.split_first_chunk::<5>()?;
    let [h1, h2, b':', m1, m2] = *hour_minute else { return None };
    let minutes = clock(h1, h2, m1, m2)?;
    let [b':', s1, s2, rest @ ..] = rest else { return Some((minutes * 60, 0, rest)) };
    let second = two(*s1, *s2).filter(|second| *second < 60)?;
    let (nanos, rest) = match rest {
        [b'.', rest @ ..] => fraction(rest)?,
        _ => (0, rest),
    };
    Some((minutes * 60 + i64::from(second), nanos, rest))
}

/// The minutes that an hour of the day and a minute of the hour make.
fn clock(h1: u8, h2: u8, m1: u8, m2: u8) -> Option<i64> {
    let hour = two(h1, h2).filter(|hour| *hour < 24)?;
    let minute = two(m1, m2).filter(|minute| *minute < 60)?;
    Some(i64::from(hour * 60 + minute))
}

/// The nanoseconds of a decimal fraction; digits beyond the ninth are dropped.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, rest) = text.split_at_checked(digits).filter(|(digits, _)| !digits.is_empty())?;
    let padded = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    Some((padded.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0')), rest))
}

/// How many seconds a zone's clocks are ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, minutes) = match *zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2] => (sign, clock(h1, h2, b'0', b'0')?),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => (sign, clock(h1, h2, m1, m2)?),
        _ => return None,
    };
    match sign {
        b'+' => Some(minutes * 60),
        b'-' => Some(-minutes * 60),
        _ => None,
    }
}

fn two(tens: u8, ones: u8) -> Option<i32> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| i32::from(byte - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str) -> Option<i64> {
        Moment::parse(text.as_bytes())?.to_unit(TimeUnit::Nanosecond)
    }

    #[test]
    fn the_forms_that_programs_write_are_read() {
        const NOON: i64 = 1_709_208_000_000_000_000; // 2024-02-29 12:00 UTC
        let forms =
            ["2024-02-29T12:00Z", "2024-02-29 12:00:00", "2024-02-29t12:00:00.000z", "2024-02-29T12:00"];
        let zones = ["2024-02-29T14:30:00+02:30", "2024-02-29T07:00-0500", "2024-03-01T11:00:00.0+23"];
        for text in forms.into_iter().chain(zones) {
            assert_eq!(nanos(text), Some(NOON), "{text}");
        }
        assert_eq!(nanos("2024-02-29"), Some(NOON - 43_200_000_000_000));
        assert_eq!(nanos("1970-01-01T00:00:00.1234567899Z"), Some(123_456_789));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        let days =
            ["2023-02-29", "1900-02-29", "2024-13-01", "2024-00-01", "2024-04-31", "2024-01-00", "24-01-01"];
        let times =
            ["2024-01-01T", "2024-01-01T24:00", "2024-01-01T12:60", "2024-01-01T12:00:60", "2024-01-01T12"];
        let ends = [
            "2024-01-01T12:00:00.",
            "2024-01-01T12:00.5",
            "2024-01-01T12:00 Z",
            "2024-01-01Z",
            "2024-01-01T12:00+24",
        ];
        for text in days.into_iter().chain(times).chain(ends) {
            assert_eq!(Moment::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_finer_fraction_is_rounded_down_before_the_epoch_too() {
        let moment = Moment::parse(b"1969-12-31T23:59:59.9999Z").unwrap();
        assert_eq!(moment.to_unit(TimeUnit::Second), Some(-1));
        assert_eq!(moment.to_unit(TimeUnit::Millisecond), Some(-1));
        assert_eq!(moment.to_unit(TimeUnit::Microsecond), Some(-100));
    }

    #[test]
    fn the_whole_range_of_nanoseconds_is_read_and_nothing_beyond() {
        assert_eq!(nanos("1677-09-21T00:12:43.145224192"), Some(i64::MIN));
        assert_eq!(nanos("1677-09-21T00:12:43.145224191"), None);
        assert_eq!(nanos("2262-04-11T23:47:16.854775807"), Some(i64::MAX));
        assert_eq!(nanos("2262-04-11T23:47:16.854775808"), None);
    }

    #[test]
    fn every_day_of_the_calendar_follows_the_day_before() {
        let mut expected = days_since_epoch(1970, 1, 1);
        assert_eq!(expected, 0);
        for (year, month) in (1970..2400).flat_map(|year| (1..=12).map(move |month| (year, month))) {
            for day in 1..=days_in(year, month) {
                assert_eq!(days_since_epoch(year, month, day), expected);
                expected += 1;
            }
        }
        assert_eq!(days_since_epoch(0, 1, 1), -719_528);
    }
}
