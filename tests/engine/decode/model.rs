//! The paragraph on records and types, word for word and as slowly as it likes: the oracle of the decoder's tests.
//!
//! It shares no line with the decoder. It recurses, copies and works on text where the decoder would count, so that
//! each rule can be read off; it is deliberately no decoder that anybody should use.

use arrow::datatypes::{DataType, Field, TimeUnit};

/// One value of a column, told without its width.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Bool(bool),
    Int(i128),
    /// The bits of an `f64`, so that -0.0 differs from 0.0.
    Double(u64),
    /// The bits of an `f32`.
    Single(u32),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Struct(Vec<Cell>),
    Map(Vec<(Cell, Cell)>),
}

/// What a record becomes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Row {
    Tombstone,
    Bad,
    Good(Vec<Cell>),
}

/// What a payload becomes, when `fields` are read.
pub(crate) fn row(payload: Option<&[u8]>, fields: &[Field]) -> Row {
    let Some(payload) = payload else { return Row::Tombstone };
    let Some(Json::Object(members)) = parse(payload) else { return Row::Bad };
    of_members(&members, fields.iter()).map_or(Row::Bad, Row::Good)
}

type Members = [(Option<String>, Json)];

/// The cells of the fields that `members` have; of a key that comes twice the last one counts.
fn of_members<'a>(members: &Members, fields: impl Iterator<Item = &'a Field>) -> Option<Vec<Cell>> {
    let last = |name: &String| members.iter().rev().find(|(key, _)| key.as_ref() == Some(name));
    fields.map(|field| within(last(field.name()).map(|(_, value)| value), field)).collect()
}

/// The cell that a value makes in `field`, where there is one.
fn within(value: Option<&Json>, field: &Field) -> Option<Cell> {
    match value.map_or(Some(Cell::Null), |value| cell(value, field.data_type())) {
        Some(Cell::Null) if !field.is_nullable() => None,
        cell => cell,
    }
}

/// The entries of a map: each key where it first comes, with the last of its values.
fn entries(members: &Members, value_field: &Field) -> Option<Cell> {
    let keys = members.iter().map(|(key, _)| key.as_ref()).collect::<Option<Vec<_>>>()?;
    let first = keys.iter().enumerate().filter(|(place, key)| !keys[..*place].contains(key));
    let entry = |(_, key): (usize, &&String)| {
        let last =
            members.iter().rev().find(|(other, _)| other.as_ref() == Some(*key)).map(|(_, value)| value);
        Some((Cell::Text((*key).clone()), within(last, value_field)?))
    };
    first.map(entry).collect::<Option<Vec<_>>>().map(Cell::Map)
}

enum Json {
    Null,
    Bool(bool),
    Number(String),
    /// None where it holds half a surrogate pair.
    Text(Option<String>),
    Object(Vec<(Option<String>, Json)>),
    Array(Vec<Json>),
}

fn parse(payload: &[u8]) -> Option<Json> {
    let mut parser = Parser { text: std::str::from_utf8(payload).ok()?.as_bytes(), at: 0 };
    parser.space();
    let value = parser.value(1)?;
    parser.space();
    (parser.at == payload.len()).then_some(value)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn take(&mut self, word: &str) -> Option<()> {
        let found = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found.then_some(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        match self.peek() {
            b'{' | b'[' if depth > 128 => None,
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => Some(Json::Text(self.string()?)),
            b't' => self.take("true").map(|()| Json::Bool(true)),
            b'f' => self.take("false").map(|()| Json::Bool(false)),
            b'n' => self.take("null").map(|()| Json::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        let mut members = Vec::new();
        self.take("{")?;
        self.space();
        if self.take("}").is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.take(":")?;
            self.space();
            members.push((key, self.value(depth + 1)?));
            self.space();
            if self.take("}").is_some() {
                return Some(Json::Object(members));
            }
            self.take(",")?;
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        let mut items = Vec::new();
        self.take("[")?;
        self.space();
        if self.take("]").is_some() {
            return Some(Json::Array(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take("]").is_some() {
                return Some(Json::Array(items));
            }
            self.take(",")?;
        }
    }

    /// Goes by UTF-16 units, as JSON's escapes do. None of it where it is no string, none inside where it has no text.
    #[expect(clippy::option_option, reason = "no string, and a string without text, are told apart")]
    fn string(&mut self) -> Option<Option<String>> {
        self.take("\"")?;
        let mut text = String::new();
        let mut whole = true;
        let mut units: Vec<u16> = Vec::new();
        loop {
            let byte = *self.text.get(self.at)?;
            if byte == b'\\' && self.text.get(self.at + 1) == Some(&b'u') {
                let digits = std::str::from_utf8(self.text.get(self.at + 2..self.at + 6)?).ok()?;
                digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
                units.push(u16::from_str_radix(digits, 16).ok()?);
                self.at += 6;
                continue;
            }
            match String::from_utf16(&units) {
                Ok(escaped) => text.push_str(&escaped),
                Err(_) => whole = false,
            }
            units.clear();
            match byte {
                b'"' => break,
                b'\\' => {
                    let place =
                        br#""\/bfnrt"#.iter().position(|letter| self.text.get(self.at + 1) == Some(letter))?;
                    text.push(['"', '\\', '/', '\u{8}', '\u{c}', '\n', '\r', '\t'][place]);
                    self.at += 2;
                }
                0..0x20 => return None,
                _ => {
                    let plain = self.text[self.at..]
                        .iter()
                        .take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20));
                    let plain = &self.text[self.at..self.at + plain.count()];
                    text.push_str(std::str::from_utf8(plain).unwrap());
                    self.at += plain.len();
                }
            }
        }
        self.at += 1;
        Some(whole.then_some(text))
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<Json> {
        let start = self.at;
        let _ = self.take("-");
        if self.take("0").is_none() {
            self.digits()?;
        }
        if self.take(".").is_some() {
            self.digits()?;
        }
        if self.take("e").or_else(|| self.take("E")).is_some() {
            let _ = self.take("+").or_else(|| self.take("-"));
            self.digits()?;
        }
        Some(Json::Number(String::from_utf8(self.text[start..self.at].to_vec()).unwrap()))
    }
}

/// The cell that `value` makes in a column of `data_type`; none where it does not fit.
fn cell(value: &Json, data_type: &DataType) -> Option<Cell> {
    use DataType::{
        Binary, Boolean, Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, List,
        Map, Struct, Timestamp, UInt8, UInt16, UInt32, UInt64, Utf8,
    };
    match (value, data_type) {
        (Json::Null, _) => Some(Cell::Null),
        (Json::Array(items), List(field)) => {
            items.iter().map(|item| within(Some(item), field)).collect::<Option<Vec<_>>>().map(Cell::List)
        }
        (Json::Object(members), Struct(fields)) => {
            of_members(members, fields.iter().map(AsRef::as_ref)).map(Cell::Struct)
        }
        (Json::Object(members), Map(of, _)) => match of.data_type() {
            Struct(fields) => entries(members, fields.get(1)?),
            _ => None,
        },
        (Json::Bool(value), Boolean) => Some(Cell::Bool(*value)),
        (Json::Text(text), Utf8 | LargeUtf8) => text.clone().map(Cell::Text),
        (Json::Text(text), Timestamp(unit, _)) => timestamp(text.as_ref()?, *unit).map(Cell::Int),
        (Json::Text(text), Binary) => base64(text.as_ref()?).map(Cell::Bytes),
        (Json::Number(text), Decimal128(precision, scale)) => {
            let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
            // An exponent that overflows decides alone, whatever the scale.
            let scaled = exponent.parse::<i64>().map(|exponent| exponent.saturating_add(i64::from(*scale)));
            let exponent = scaled.map_or(exponent.to_owned(), |exponent| exponent.to_string());
            let value = whole(&format!("{mantissa}e{exponent}"))?;
            (value.abs() < 10i128.pow((*precision).into())).then_some(Cell::Int(value))
        }
        (Json::Text(text), Date32) => date(text.as_ref()?).map(Cell::Int),
        (Json::Number(text), Float32) => finite(f64::from(text.parse::<f32>().ok()?))
            .and_then(|()| Some(Cell::Single(text.parse::<f32>().ok()?.to_bits()))),
        (Json::Number(text), Float64) => {
            let value = text.parse::<f64>().ok()?;
            finite(value).map(|()| Cell::Double(value.to_bits()))
        }
        (Json::Number(text), _) => {
            let bits = match data_type {
                Int8 => -128..=127,
                Int16 => i128::from(i16::MIN)..=i128::from(i16::MAX),
                Int32 | Date32 => i128::from(i32::MIN)..=i128::from(i32::MAX),
                Int64 | Timestamp(..) => i128::from(i64::MIN)..=i128::from(i64::MAX),
                UInt8 => 0..=255,
                UInt16 => 0..=i128::from(u16::MAX),
                UInt32 => 0..=i128::from(u32::MAX),
                UInt64 => 0..=i128::from(u64::MAX),
                _ => return None,
            };
            let value = match data_type {
                Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _) => {
                    floored(text)
                }
                _ => whole(text),
            };
            value.filter(|value| bits.contains(value)).map(Cell::Int)
        }
        _ => None,
    }
}

/// The bytes of base64 with its padding, six bits at a time; bits that stand for none must be zero.
fn base64(text: &str) -> Option<Vec<u8>> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let body = text.trim_end_matches('=');
    (text.len().is_multiple_of(4) && text.len() - body.len() < 3).then_some(())?;
    let bits: String =
        body.chars().map(|c| Some(format!("{:06b}", LETTERS.find(c)?))).collect::<Option<_>>()?;
    let (whole, rest) = bits.split_at(bits.len() / 8 * 8);
    (rest.bytes().all(|bit| bit == b'0') && rest.len() < 6).then_some(())?;
    (0..whole.len()).step_by(8).map(|at| u8::from_str_radix(&whole[at..at + 8], 2).ok()).collect()
}

fn finite(value: f64) -> Option<()> {
    value.is_finite().then_some(())
}

/// The value of a number that is whole and has at most thirty digits.
fn whole(text: &str) -> Option<i128> {
    let (sign, before, after) = parts(text)?;
    (!after).then_some(sign * before)
}

/// The value of a number, rounded down.
fn floored(text: &str) -> Option<i128> {
    let (sign, before, after) = parts(text)?;
    Some(sign * before - i128::from(sign < 0 && after))
}

/// The sign, what stands before the point, at most thirty digits, and whether anything is behind it: moves the point and
/// looks at what is left.
fn parts(text: &str) -> Option<(i128, i128, bool)> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{before}{after}");
    if digits.bytes().all(|digit| digit == b'0') {
        return Some((sign, 0, false));
    }
    // An exponent that overflows moves the point beyond every digit, one way or the other.
    let away = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
    let point =
        before.len() as i64 + exponent.parse::<i64>().unwrap_or(away).clamp(i64::MIN / 2, i64::MAX / 2);
    let zeros = digits.bytes().take_while(|digit| *digit == b'0').count() as i64;
    if point < 0 {
        return Some((sign, 0, true));
    }
    if point - zeros > 30 {
        return None;
    }
    let padded = format!("{digits}{}", "0".repeat((point as usize).saturating_sub(digits.len())));
    let (left, right) = padded.split_at(point as usize);
    let left = left.trim_start_matches('0');
    let after = right.bytes().any(|digit| digit != b'0');
    Some((sign, left.parse::<i128>().unwrap_or(0), after))
}

/// The days from the epoch to a date, counted year by year and month by month.
fn date(text: &str) -> Option<i128> {
    (shape(text) == "9999-99-99").then_some(())?;
    let (year, month, day) = (number(&text[..4]), number(&text[5..7]), number(&text[8..]));
    let leap = |year: i128| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month - 1).ok()?)?;
    (1..=length).contains(&day).then_some(())?;
    let days_of = |year| if leap(year) { 366 } else { 365 };
    let years: i128 = (1970..year).map(days_of).sum::<i128>() - (year..1970).map(days_of).sum::<i128>();
    Some(years + lengths[..(month - 1) as usize].iter().sum::<i128>() + day - 1)
}

fn timestamp(text: &str, unit: TimeUnit) -> Option<i128> {
    let (day, rest) = text.split_at_checked(10)?;
    let seconds = date(day)? * 86_400;
    let (time, zone) = match rest.split_at_checked(1) {
        None => ("00:00", ""),
        Some(("T" | "t" | " ", rest)) => rest.split_at(rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len())),
        Some(_) => return None,
    };
    let (clock, fraction) =
        time.split_once('.').map_or((time, None), |(clock, digits)| (clock, Some(digits)));
    let seconds = seconds + seconds_of(clock, fraction)? - zone_seconds(zone)?;
    let nanos = format!("{:0<9}", fraction.unwrap_or_default());
    let total = seconds * 1_000_000_000 + number(&nanos[..9]);
    let nanos_a_unit = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    let value = total.div_euclid(nanos_a_unit);
    i64::try_from(value).is_ok().then_some(value)
}

/// The second of the day; a fraction needs seconds, and at least one digit.
fn seconds_of(clock: &str, fraction: Option<&str>) -> Option<i128> {
    let valid = match fraction {
        None => ["99:99", "99:99:99"].contains(&shape(clock).as_str()),
        Some(digits) => {
            shape(clock) == "99:99:99"
                && !digits.is_empty()
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
    };
    valid.then_some(())?;
    let second = if clock.len() == 8 { number(&clock[6..]) } else { 0 };
    let (hour, minute) = (number(&clock[..2]), number(&clock[3..5]));
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3_600 + minute * 60 + second)
}

fn zone_seconds(zone: &str) -> Option<i128> {
    if ["", "Z", "z"].contains(&zone) {
        return Some(0);
    }
    (["+99", "+9999", "+99:99"].contains(&shape(&zone.replacen('-', "+", 1)).as_str())).then_some(())?;
    let digits = format!("{:0<4}", zone[1..].replace(':', ""));
    let (hours, minutes) = (number(&digits[..2]), number(&digits[2..]));
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// The text with every digit as 9.
fn shape(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_digit() {
                '9'
            } else if c == '9' {
                '?'
            } else {
                c
            }
        })
        .collect()
}

fn number(digits: &str) -> i128 {
    digits.parse().unwrap()
}

/// The cell that text without quotes around it makes: text where that fits, else the number or the word that it spells.
pub(crate) fn bare(text: &str, data_type: &DataType) -> Option<Cell> {
    let spelled = || {
        let scalar = text.starts_with(|c: char| c == '-' || c.is_ascii_digit() || c == 't' || c == 'f');
        let whole = !text.ends_with(|c: char| c.is_ascii_whitespace());
        cell(&parse(text.as_bytes()).filter(|_| scalar && whole)?, data_type)
    };
    cell(&Json::Text(Some(text.to_owned())), data_type).or_else(spelled)
}
