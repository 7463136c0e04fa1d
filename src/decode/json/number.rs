//! JSON numbers: one parser of their form, and exact conversions to every width.
//!
//! It deliberately rounds nothing that should be whole: an integer column takes any spelling of a whole number
//! (`1.0`, `1e3`, `10e-1`) and no other. Floats are rounded correctly, to the nearest.

#![expect(
    clippy::inline_always,
    reason = "keeps the cursor in registers: storing and reloading it is most of what a step costs"
)]

use crate::decode::bad::Expected;
use crate::decode::json::cursor::Cursor;

/// Digits that a `u64` holds whatever they are.
const EXACT_DIGITS: usize = 19;

/// A number as it stands in the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    negative: bool,
    /// The digits before and after the point, as one integer; meaningless unless `exact`.
    mantissa: u64,
    /// The power of ten that the mantissa is to be multiplied by.
    exponent: i64,
    /// Whether all digits fit the mantissa.
    exact: bool,
    text: &'a [u8],
}

impl<'a> Number<'a> {
    /// Steps over a number of JSON's form.
    #[inline(always)]
    pub(super) fn read(input: &mut Cursor<'a>) -> Result<Self, Expected> {
        let start = input.at();
        let negative = input.eat(b'-');
        let mut mantissa = Mantissa(0);
        let shape = Shape::read(input, &mut mantissa)?;
        let exact = shape.digits <= EXACT_DIGITS;
        Ok(Self { negative, mantissa: mantissa.0, exponent: shape.exponent, exact, text: input.since(start) })
    }

    /// The value, if it is whole and an `N` holds it.
    #[inline(always)]
    pub(super) fn whole<N: TryFrom<u64> + TryFrom<i64>>(&self) -> Option<N> {
        let magnitude = match (self.exact, self.exponent) {
            (true, 0) => self.mantissa,
            _ => self.whole_slowly()?,
        };
        if self.negative {
            return N::try_from(0i64.checked_sub_unsigned(magnitude)?).ok();
        }
        N::try_from(magnitude).ok()
    }

    /// The absolute value of a number that is written with a fraction, an exponent or very many digits.
    #[inline(never)]
    fn whole_slowly(&self) -> Option<u64> {
        u64::try_from(self.whole_times(0)?).ok()
    }

    /// The digits of the mantissa, leading zeros included.
    fn digits(&self) -> impl DoubleEndedIterator<Item = i128> + use<'a> {
        let end = self.text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(self.text.len());
        let mantissa = self.text.get(..end).unwrap_or_default();
        mantissa.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| i128::from(byte - b'0'))
    }

    /// The absolute value times ten to the power of `shift`, if that is whole.
    fn whole_times(&self, shift: i8) -> Option<i128> {
        let written = self.digits().count();
        let zeros = self.digits().rev().take_while(|digit| *digit == 0).count();
        if zeros == written {
            return Some(0);
        }
        let power = self.exponent.saturating_add_unsigned(zeros as u64).saturating_add(shift.into());
        let power = 10i128.checked_pow(u32::try_from(power).ok()?)?;
        joined(self.digits().take(written - zeros))?.checked_mul(power)
    }

    /// The value times ten to the power of `shift`, rounded down, if an `i64` holds it. It is exact whatever the number of
    /// digits: no float is on the way.
    #[inline(never)]
    pub(super) fn floored(&self, shift: i8) -> Option<i64> {
        let exponent = self.exponent.saturating_add(shift.into());
        let (whole, rest) =
            if self.exact { split(self.mantissa, exponent)? } else { self.split_slowly(exponent)? };
        let whole = if self.negative { -whole - i128::from(rest) } else { whole };
        i64::try_from(whole).ok()
    }

    /// As [`split`], of more digits than a mantissa holds.
    fn split_slowly(&self, exponent: i64) -> Option<(i128, bool)> {
        if self.digits().all(|digit| digit == 0) {
            return Some((0, false));
        }
        let point = exponent.saturating_add_unsigned(self.digits().count() as u64);
        let before = usize::try_from(point).unwrap_or_default();
        let has_rest = self.digits().skip(before).any(|digit| digit != 0);
        let whole = joined(self.digits().chain(std::iter::repeat(0)).take(before))?;
        Some((whole, has_rest))
    }

    /// The value times ten to the power of `scale`, if that is whole and has at most `precision` digits: what a decimal
    /// holds. It is never rounded.
    #[inline(never)]
    pub(super) fn scaled(&self, precision: u8, scale: i8) -> Option<i128> {
        let value = self.whole_times(scale)?;
        let value = Some(value).filter(|value| *value < 10i128.pow(precision.into()))?;
        Some(if self.negative { -value } else { value })
    }

    /// The nearest `f64`, if the number is within its range.
    #[inline]
    pub(super) fn to_f64(self) -> Option<f64> {
        const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
        let power = POWERS_F64.get(usize::try_from(self.exponent.unsigned_abs()).ok()?);
        match power {
            Some(power) if self.exact && self.mantissa <= EXACT => {
                // Signed: that is one instruction, and the mantissa is far from the sign.
                let value = self.mantissa.cast_signed() as f64;
                let value = if self.exponent < 0 { value / power } else { value * power };
                Some(if self.negative { -value } else { value })
            }
            _ => lexical_core::parse::<f64>(self.text).ok().filter(|value| value.is_finite()),
        }
    }

    /// The nearest `f32`, if the number is within its range. Never by way of `f64`, which would round twice.
    #[inline]
    pub(super) fn to_f32(self) -> Option<f32> {
        const EXACT: u64 = 1 << f32::MANTISSA_DIGITS;
        let power = POWERS_F32.get(usize::try_from(self.exponent.unsigned_abs()).ok()?);
        match power {
            Some(power) if self.exact && self.mantissa <= EXACT => {
                let value = self.mantissa as f32;
                let value = if self.exponent < 0 { value / power } else { value * power };
                Some(if self.negative { -value } else { value })
            }
            _ => lexical_core::parse::<f32>(self.text).ok().filter(|value| value.is_finite()),
        }
    }
}

/// The number that decimal digits make.
fn joined(mut digits: impl Iterator<Item = i128>) -> Option<i128> {
    digits.try_fold(0i128, |value, digit| value.checked_mul(10)?.checked_add(digit))
}

/// `mantissa` times ten to the power of `exponent`: what stands before the point, and whether anything is behind it.
fn split(mantissa: u64, exponent: i64) -> Option<(i128, bool)> {
    let power = exponent.unsigned_abs().try_into().ok().and_then(|power| 10u64.checked_pow(power));
    match (exponent < 0, power) {
        _ if mantissa == 0 => Some((0, false)),
        (false, power) => i128::from(mantissa).checked_mul(power?.into()).map(|whole| (whole, false)),
        (true, Some(power)) => Some((i128::from(mantissa / power), !mantissa.is_multiple_of(power))),
        (true, None) => Some((0, true)), // no mantissa has as many digits
    }
}

/// Steps over a number that nobody reads.
#[inline(always)]
pub(super) fn walk(input: &mut Cursor<'_>) -> Result<(), Expected> {
    input.eat(b'-');
    Shape::read(input, &mut Ignored).map(|_| ())
}

/// What there is of a number beside its sign and its digits.
#[derive(Clone, Copy, Debug)]
struct Shape {
    digits: usize,
    exponent: i64,
}

impl Shape {
    /// Reads what follows the sign.
    #[inline(always)]
    fn read(input: &mut Cursor<'_>, sink: &mut impl Digits) -> Result<Self, Expected> {
        match input.eight().and_then(Short::new) {
            Some(short) => {
                input.skip(short.len);
                sink.push(short.word, short.digits);
                Ok(Self { digits: short.digits, exponent: short.exponent })
            }
            None => Self::read_long(input, sink),
        }
    }

    #[inline(always)]
    fn read_long(input: &mut Cursor<'_>, sink: &mut impl Digits) -> Result<Self, Expected> {
        let whole = whole_digits(input, sink)?;
        let (mut fraction, mut exponent) = (0, 0i64);
        if input.eat(b'.') {
            fraction = digits(input, sink);
            if fraction == 0 {
                return Err(Expected("a digit after the decimal point"));
            }
        }
        if let Some(b'e' | b'E') = input.peek() {
            exponent = input.lend(read_exponent)?;
        }
        let exponent = exponent.saturating_sub_unsigned(fraction as u64);
        Ok(Self { digits: whole + fraction, exponent })
    }
}

/// A number without an exponent that ends within eight bytes, read out of one word: most numbers are.
#[derive(Clone, Copy, Debug)]
struct Short {
    /// The digits as [`Digits::push`] takes them, without the point.
    word: u64,
    digits: usize,
    exponent: i64,
    /// The bytes that it takes.
    len: usize,
}

impl Short {
    /// The number that `text` starts with, the first byte lowest; none where its end is not seen, where it has an
    /// exponent, and where it is no number.
    #[inline(always)]
    fn new(text: u64) -> Option<Self> {
        let word = text ^ ZEROS;
        let ends = beyond_nine(word);
        let whole = first_mark(ends)?;
        let leading_zero = text & 0xff == u64::from(b'0') && whole > 8;
        if whole == 0 || leading_zero {
            return None;
        }
        if byte_at(text, whole) == b'.' {
            return Self::with_fraction(text, word, whole, first_mark(ends & (ends - 1))?);
        }
        Self::at(text, whole, word << (64 - whole), whole, 0)
    }

    /// The number whose point is the bit `point` of the word, and whose end the bit `end`: the digits behind the
    /// point move up to those before it.
    #[inline(always)]
    fn with_fraction(text: u64, word: u64, point: u32, end: u32) -> Option<Self> {
        let fraction = end - point - 8;
        if fraction == 0 {
            return None;
        }
        let before = (1 << point) - 1;
        let digits = (word & before) | ((word >> 8) & !before);
        Self::at(text, end, digits << (72 - end), end - 8, -i64::from(fraction / 8))
    }

    /// The number that ends at the bit `end` of `text`, unless an exponent follows there.
    #[inline(always)]
    fn at(text: u64, end: u32, word: u64, digits: u32, exponent: i64) -> Option<Self> {
        let more = byte_at(text, end) | 0x20 == b'e';
        (!more).then_some(Self { word, digits: digits as usize / 8, exponent, len: end as usize / 8 })
    }
}

/// Takes the digits of a number, up to eight at a time.
trait Digits {
    /// `count` digits follow; they lie in the top bytes of `word`, the first of them lowest, with zeros below.
    fn push(&mut self, word: u64, count: usize);
}

/// All digits as one integer, which wraps where they are too many for it.
struct Mantissa(u64);

impl Digits for Mantissa {
    #[inline]
    fn push(&mut self, word: u64, count: usize) {
        let power = POWERS_U64.get(count).copied().unwrap_or_default();
        self.0 = self.0.wrapping_mul(power).wrapping_add(eight_digits(word));
    }
}

/// The digits are only stepped over.
struct Ignored;

impl Digits for Ignored {
    #[inline]
    fn push(&mut self, _: u64, _: usize) {}
}

/// The digits before the point: a zero alone, or any that do not start with one.
#[inline(always)]
fn whole_digits(input: &mut Cursor<'_>, sink: &mut impl Digits) -> Result<usize, Expected> {
    match input.peek() {
        Some(b'0') => {
            input.skip(1);
            Ok(1)
        }
        Some(b'1'..=b'9') => Ok(digits(input, sink)),
        _ => Err(Expected("a digit")),
    }
}

/// Steps over digits; how many there are.
#[inline(always)]
fn digits(input: &mut Cursor<'_>, sink: &mut impl Digits) -> usize {
    let start = input.at();
    while let Some(word) = input.eight() {
        let word = word ^ ZEROS;
        let count = beyond_nine(word).trailing_zeros() as usize / 8;
        if count > 0 {
            sink.push(word << (64 - 8 * count), count);
            input.skip(count);
        }
        if count < 8 {
            return input.at() - start;
        }
    }
    while let Some(digit @ b'0'..=b'9') = input.peek() {
        sink.push(u64::from(digit - b'0') << 56, 1);
        input.skip(1);
    }
    input.at() - start
}

/// Eight times the digit zero: what it is taken from becomes digits from 0 to 9, and anything else more.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The bit at which the first marked byte starts.
#[inline(always)]
fn first_mark(marks: u64) -> Option<u32> {
    (marks != 0).then(|| marks.trailing_zeros() - 7)
}

/// The byte of `word` that starts at bit `at`.
#[inline(always)]
fn byte_at(word: u64, at: u32) -> u8 {
    let [byte, ..] = (word >> at).to_le_bytes();
    byte
}

/// Marks, by its top bit, each byte of `word` that is more than nine.
#[inline(always)]
fn beyond_nine(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    (((word & LOW) + 0x7676_7676_7676_7676) | word) & !LOW
}

/// The value of eight digits, the first of them lowest: neighbours are joined to pairs, fours and the whole.
#[inline]
fn eight_digits(digits: u64) -> u64 {
    let pairs = (digits.wrapping_mul(1 + (10 << 8)) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(1 + (100 << 16)) >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(1 + (10_000 << 32)) >> 32
}

/// Steps over an exponent, and says its value, saturated: far beyond what any type holds.
#[inline(never)]
fn read_exponent(input: &mut Cursor<'_>) -> Result<i64, Expected> {
    input.skip(1);
    let negative = input.eat(b'-');
    if !negative {
        input.eat(b'+');
    }
    let start = input.at();
    let mut value = 0i64;
    while let Some(digit @ b'0'..=b'9') = input.peek() {
        value = value.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
        input.skip(1);
    }
    match input.at() - start {
        0 => Err(Expected("a digit in the exponent")),
        _ => Ok(if negative { -value } else { value }),
    }
}

/// What up to eight digits move those before them up by.
const POWERS_U64: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The powers of ten that `f64` holds exactly: one multiplication or division by them rounds correctly.
const POWERS_F64: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The powers of ten that `f32` holds exactly.
const POWERS_F32: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number<'_> {
        let mut input = Cursor::new(text.as_bytes());
        let number = Number::read(&mut input).unwrap();
        assert_eq!(input.at(), text.len(), "{text}");
        number
    }

    fn whole(text: &str) -> Option<i128> {
        let (unsigned, signed) = (number(text).whole::<u64>(), number(text).whole::<i64>());
        unsigned.map(i128::from).or(signed.map(i128::from))
    }

    #[test]
    fn every_spelling_of_a_whole_number_is_whole() {
        let spellings =
            ["1000", "1e3", "1E+3", "1000.0", "1.000e3", "10000e-1", "100000000000000000000000e-20"];
        for text in spellings {
            assert_eq!(whole(text), Some(1_000), "{text}");
        }
        assert_eq!(whole("0e99999999999999999999999"), Some(0));
        assert_eq!(whole("-0.0"), Some(0));
        assert_eq!(whole("18446744073709551615"), Some(i128::from(u64::MAX)));
        assert_eq!(whole("-9223372036854775808"), Some(i128::from(i64::MIN)));
    }

    #[test]
    fn other_numbers_are_not_whole_or_not_in_range() {
        for text in
            ["0.1", "15e-1", "1e-1", "1e20", "18446744073709551616", "1e99999999999999999999", "1e-99999"]
        {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn floats_are_rounded_to_the_nearest() {
        for text in ["0.1", "9007199254740993", "1e22", "1e23", "-0.0", "123456789012345678901e-5", "5e-324"]
        {
            let expected: f64 = text.parse().unwrap();
            assert_eq!(number(text).to_f64().map(f64::to_bits), Some(expected.to_bits()), "{text}");
            let expected: f32 = text.parse().unwrap();
            assert_eq!(number(text).to_f32().map(f32::to_bits), Some(expected.to_bits()), "{text}");
        }
        assert_eq!(number("1e309").to_f64(), None);
        assert_eq!(number("1e39").to_f32(), None);
    }

    #[test]
    fn a_whole_number_beyond_its_type_is_refused() {
        assert_eq!((number("127").whole::<i8>(), number("128").whole::<i8>()), (Some(127), None));
        assert_eq!((number("-128").whole::<i8>(), number("-129").whole::<i8>()), (Some(-128), None));
        assert_eq!((number("-0").whole::<u8>(), number("-1").whole::<u8>()), (Some(0), None));
        assert_eq!(number("9223372036854775808").whole::<i64>(), None);
        assert_eq!(number("-9223372036854775809").whole::<i64>(), None);
    }

    #[test]
    fn the_short_way_reads_what_the_long_way_reads() {
        const LETTERS: &[u8] = b"07.eE,-";
        let texts = 0..LETTERS.len().pow(7);
        let text = |index: usize| {
            let letter = |place: u32| LETTERS[index / LETTERS.len().pow(place) % LETTERS.len()];
            (0..7).map(letter).chain(*b",}       ").collect::<Vec<u8>>()
        };
        let read = |text: &[u8], read: fn(&mut Cursor<'_>, &mut Mantissa) -> Result<Shape, Expected>| {
            let (mut input, mut mantissa) = (Cursor::new(text), Mantissa(0));
            let shape = read(&mut input, &mut mantissa).ok()?;
            Some((input.at(), mantissa.0, shape.digits, shape.exponent))
        };
        let mut numbers = 0;
        for text in texts.map(text) {
            let short = read(&text, Shape::read);
            assert_eq!(short, read(&text, Shape::read_long), "{}", text.escape_ascii());
            numbers += usize::from(short.is_some());
        }
        assert!(numbers > 10_000, "{numbers}");
    }

    #[test]
    fn a_number_is_moved_by_powers_of_ten_and_rounded_down_exactly() {
        let floored = |text, shift| number(text).floored(shift);
        for (text, shift, expected) in [
            ("1732233600.123456", 6, 1_732_233_600_123_456),
            ("1732233600.1234567", 6, 1_732_233_600_123_456), // one digit more than a float tells apart
            ("-0.5", 0, -1),
            ("-1.000", 0, -1),
            ("-0.0", 3, 0),
            ("1.5e3", 0, 1_500),
            ("1732233600123456789", -9, 1_732_233_600),
            ("-1732233600123456789", -9, -1_732_233_601),
            ("1e-99999", 6, 0),
            ("-1e-99999", 6, -1),
            ("0e99999", 6, 0),
            ("0.00000000000000000000000000000", 9, 0),
            ("1732233600.12345678999999999999999999", 9, 1_732_233_600_123_456_789),
            ("-1732233600.00000000000000000000000001", 0, -1_732_233_601),
            ("9223372036854775807.9999999999999999", 0, i64::MAX),
            ("-9223372036854775807.0000000000000001", 0, i64::MIN),
        ] {
            assert_eq!(floored(text, shift), Some(expected), "{text} by {shift}");
        }
        for (text, shift) in [
            ("9223372036854775808", 0),
            ("9223372036854775807", 1),
            ("1e99999", 0),
            ("-9223372036854775808.5", 0),
        ] {
            assert_eq!(floored(text, shift), None, "{text} by {shift}");
        }
    }

    #[test]
    fn what_is_no_json_number_is_refused() {
        for text in ["", "-", "+1", ".5", "1.", "1e", "1e+", "NaN", "Infinity", "-Infinity"] {
            assert!(Number::read(&mut Cursor::new(text.as_bytes())).is_err(), "{text}");
        }
    }
}
