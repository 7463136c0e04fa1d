//! The columns that JSON records seem to have, from a sample of them: types for `tm.Json()`, to be pasted and kept.
//!
//! It deliberately guesses nothing that the sample does not show: a name without a value, or with values that no one
//! type holds, is left out, and said to be.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use crate::decode::json::cursor::{Cursor, Escapes, RawString};
use crate::decode::json::number::Number;
use crate::decode::json::text::unescape;
use crate::decode::json::timestamp::{Moment, parse_date};
use crate::decode::json::walk;
use crate::decode::schema::{date_unit, with_date_unit};
use crate::decode::utf8;
use crate::error::{Error, Result};
use crate::types::type_name;

/// A sample of records.
///
/// ```
/// use tidemill::decode::Inference;
/// let mut sample = Inference::default();
/// sample.add(br#"{"device": "a-1", "t": 20, "at": "2026-11-21T08:00:00Z"}"#);
/// sample.add(br#"{"device": null, "t": 20.5, "tags": ["x"]}"#);
/// let found = sample.columns(None)?;
/// assert_eq!(found.literal(), r#"{"device": "string", "t": "float64", "at": "timestamp[us, UTC]", "tags": "list<string>"}"#);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Inference {
    shape: Members,
    records: usize,
    bad: usize,
}

/// The columns that a sample has.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// Their names and types; with the [`date_unit`] of numbers in the event time, where those have fractions.
    pub schema: Arc<Schema>,
    /// The names that are no columns, each with the reason.
    pub left_out: Vec<(String, String)>,
    /// How many records were looked at.
    pub records: usize,
}

impl Inferred {
    /// The schema as Python has it: a dict of names and types, nested dicts and lists where there are structs.
    pub fn literal(&self) -> String {
        members_literal(self.schema.fields())
    }

    /// The format as Python has it, to be pasted.
    ///
    /// ```
    /// use tidemill::decode::Inference;
    /// let mut sample = Inference::default();
    /// sample.add(br#"{"ts": 1763712000.25}"#);
    /// let found = sample.columns(Some("ts"))?;
    /// assert_eq!(found.format(), r#"tm.Json({"ts": "timestamp[us]"}, date_unit="s")"#);
    /// # Ok::<(), tidemill::error::Error>(())
    /// ```
    pub fn format(&self) -> String {
        match date_unit(&self.schema) {
            Ok(Some(unit)) => format!("tm.Json({}, date_unit=\"{}\")", self.literal(), unit_name(unit)),
            _ => format!("tm.Json({})", self.literal()),
        }
    }
}

fn members_literal(fields: &arrow::datatypes::Fields) -> String {
    let members =
        fields.iter().map(|field| format!("{}: {}", quoted(field.name()), type_literal(field.data_type())));
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

fn type_literal(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(fields) => members_literal(fields),
        DataType::List(item) if holds_struct(item.data_type()) => {
            format!("[{}]", type_literal(item.data_type()))
        }
        other => quoted(&type_name(other)),
    }
}

fn holds_struct(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(_) => true,
        DataType::List(item) => holds_struct(item.data_type()),
        _ => false,
    }
}

/// Text as Python and JSON both write it.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        control if control.is_control() => format!("\\u{:04x}", u32::from(control)),
        other => other.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// What has been seen of the values of one name.
#[derive(Clone, Debug, Default, PartialEq)]
enum Shape {
    /// Nothing but null.
    #[default]
    Nothing,
    Bool,
    Whole(Whole),
    /// Some with a fraction or an exponent; the largest.
    Number(f64),
    Date,
    Moment(Precision, Zones),
    Text,
    List(Box<Shape>),
    Object(Members),
    /// What no one type holds, in words.
    Mixed(String),
}

/// Whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Whole {
    min: i128,
    max: i128,
}

/// How fine the fractions of seconds are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Micros,
    Nanos,
}

/// Whether any of the moments names its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Zones {
    None,
    Some,
}

/// The names in an object, in the order in which they first came.
#[derive(Clone, Debug, Default, PartialEq)]
struct Members {
    shapes: Vec<(String, Shape)>,
    /// Where each name is among them.
    places: HashMap<String, usize>,
}

impl Members {
    /// What is known of `name`; nothing yet, where it is new.
    fn shape(&mut self, name: String) -> Option<&mut Shape> {
        let place = *self.places.entry(name).or_insert_with_key(|name| {
            self.shapes.push((name.clone(), Shape::Nothing));
            self.shapes.len() - 1
        });
        self.shapes.get_mut(place).map(|(_, shape)| shape)
    }

    fn merge(mut self, others: Self) -> Self {
        for (name, other) in others.shapes {
            if let Some(shape) = self.shape(name) {
                *shape = std::mem::take(shape).merge(other);
            }
        }
        self
    }
}

impl Shape {
    fn word(&self) -> &'static str {
        match self {
            Self::Nothing => "null",
            Self::Bool => "true or false",
            Self::Whole(_) | Self::Number(_) => "a number",
            Self::Date | Self::Moment(..) | Self::Text => "text",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
            Self::Mixed(_) => "several kinds",
        }
    }

    fn merge(self, other: Self) -> Self {
        use Shape::{Date, List, Mixed, Moment, Nothing, Number, Object, Text, Whole};
        match (self, other) {
            (Nothing, shape) | (shape, Nothing) | (shape @ Mixed(_), _) | (_, shape @ Mixed(_)) => shape,
            (Whole(a), Whole(b)) => Whole(self::Whole { min: a.min.min(b.min), max: a.max.max(b.max) }),
            (Whole(whole), Number(number)) | (Number(number), Whole(whole)) => {
                Number(number.max(whole.max as f64))
            }
            (Number(a), Number(b)) => Number(a.max(b)),
            (Moment(fine, zones), Moment(other, others)) => Moment(fine.max(other), zones.max(others)),
            (Date, moment @ Moment(..)) | (moment @ Moment(..), Date) => moment,
            (Date | Moment(..), Text) | (Text, Date | Moment(..)) => Text,
            (List(a), List(b)) => List(Box::new(a.merge(*b))),
            (Object(a), Object(b)) => Object(a.merge(b)),
            (a, b) if a == b => a,
            (a, b) => Mixed(format!("{} in some records, {} in others", a.word(), b.word())),
        }
    }

    /// The type that holds all that was seen, or why there is none; what is left out below is added to `left_out`.
    fn data_type(&self, path: &str, left_out: &mut Vec<(String, String)>) -> Result<DataType, String> {
        Ok(match self {
            Self::Nothing => return Err("null in all of them".to_owned()),
            Self::Mixed(why) => return Err(why.clone()),
            Self::Bool => DataType::Boolean,
            Self::Whole(whole) => whole.data_type(),
            Self::Number(_) => DataType::Float64,
            Self::Date => DataType::Date32,
            Self::Moment(precision, zones) => moment(*precision, *zones),
            Self::Text => DataType::Utf8,
            Self::List(item) if **item == Self::Nothing => return Err("no array with an item".to_owned()),
            Self::List(item) => DataType::new_list(item.data_type(path, left_out)?, true),
            Self::Object(members) => {
                let fields = fields_of(members, path, left_out);
                if fields.is_empty() {
                    return Err("no object with a member that has a type".to_owned());
                }
                DataType::Struct(fields.into())
            }
        })
    }
}

impl Whole {
    fn data_type(self) -> DataType {
        if i64::try_from(self.min).is_ok() && i64::try_from(self.max).is_ok() {
            DataType::Int64
        } else if u64::try_from(self.min).is_ok() && u64::try_from(self.max).is_ok() {
            DataType::UInt64
        } else {
            DataType::Float64
        }
    }
}

/// The unit that puts so many of it since the epoch into this century.
fn unit_of(largest: f64) -> Option<TimeUnit> {
    const SECOND_OF_2000: f64 = 946_684_800.0;
    const SECOND_OF_2100: f64 = 4_102_444_800.0;
    let units = [
        (1e0, TimeUnit::Second),
        (1e3, TimeUnit::Millisecond),
        (1e6, TimeUnit::Microsecond),
        (1e9, TimeUnit::Nanosecond),
    ];
    let fits =
        |(scale, _): &(f64, TimeUnit)| (SECOND_OF_2000 * scale..SECOND_OF_2100 * scale).contains(&largest);
    units.into_iter().find(fits).map(|(_, unit)| unit)
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// A unit in which little is lost of fractions of `unit`: what clocks tell goes to the microsecond.
fn finer(unit: TimeUnit) -> TimeUnit {
    match unit {
        TimeUnit::Second | TimeUnit::Millisecond => TimeUnit::Microsecond,
        TimeUnit::Microsecond | TimeUnit::Nanosecond => TimeUnit::Nanosecond,
    }
}

fn moment(precision: Precision, zones: Zones) -> DataType {
    let unit = match precision {
        Precision::Micros => TimeUnit::Microsecond,
        Precision::Nanos => TimeUnit::Nanosecond,
    };
    DataType::Timestamp(unit, (zones == Zones::Some).then(|| "UTC".into()))
}

fn fields_of(members: &Members, path: &str, left_out: &mut Vec<(String, String)>) -> Vec<Field> {
    let mut fields = Vec::new();
    for (name, shape) in &members.shapes {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match shape.data_type(&path, left_out) {
            Ok(data_type) => fields.push(Field::new(name, data_type, true)),
            Err(why) => left_out.push((path, why)),
        }
    }
    fields
}

impl Inference {
    /// Looks at a record. One that is no JSON object is counted and shows nothing.
    pub fn add(&mut self, payload: &[u8]) {
        match members_of(payload) {
            Some(members) => {
                self.records += 1;
                self.shape = std::mem::take(&mut self.shape).merge(members);
            }
            None => self.bad += 1,
        }
    }

    /// The columns of all that was looked at. Numbers in the column `event_time` are read as the times since the epoch
    /// that they seem to be, in a finer unit where they have fractions.
    pub fn columns(&self, event_time: Option<&str>) -> Result<Inferred> {
        if self.records == 0 {
            return Err(self.nothing(&[]));
        }
        let mut left_out = Vec::new();
        let mut fields = fields_of(&self.shape, "", &mut left_out);
        if fields.is_empty() {
            return Err(self.nothing(&left_out));
        }
        let time = event_time.and_then(|name| Some((name, self.time_since_epoch(name)?)));
        if let Some((name, (unit, _))) = time
            && let Some(field) = fields.iter_mut().find(|field| field.name() == name)
        {
            field.set_data_type(DataType::Timestamp(unit, None));
        }
        let schema = Schema::new(fields);
        let schema = match time {
            // No other timestamp is told by numbers, so that the unit means this one alone.
            Some((_, (_, Some(numbers)))) => with_date_unit(&schema, unit_name(numbers))?,
            _ => schema,
        };
        Ok(Inferred { schema: Arc::new(schema), left_out, records: self.records })
    }

    /// The unit of the times that the numbers called `name` are, and what they count, where they count another one.
    fn time_since_epoch(&self, name: &str) -> Option<(TimeUnit, Option<TimeUnit>)> {
        let (_, shape) = self.shape.shapes.iter().find(|(known, _)| known == name)?;
        match shape {
            Shape::Whole(whole) => Some((unit_of(whole.max as f64)?, None)),
            Shape::Number(largest) => {
                let unit = unit_of(*largest)?;
                Some((finer(unit), Some(unit)))
            }
            _ => None,
        }
    }

    fn nothing(&self, left_out: &[(String, String)]) -> Error {
        let why: Vec<String> = left_out.iter().map(|(path, why)| format!("{path:?} is {why}")).collect();
        let found = match (self.records, self.bad) {
            (0, 0) => "no record is there yet".to_owned(),
            (0, bad) => format!("none of {bad} records is a JSON object"),
            (records, _) if why.is_empty() => format!("no value in {records} records has a type"),
            (records, _) => format!("no column of {records} records has one type: {}", why.join("; ")),
        };
        Error::config(format!("tm.Json() needs records from which to tell the columns, but {found}"))
            .help("pass the columns, say tm.Json({\"device\": \"string\", \"ts\": \"timestamp[ms]\"})")
    }
}

/// The members of a record; none where it is no JSON object.
fn members_of(payload: &[u8]) -> Option<Members> {
    utf8::check(payload).ok()?;
    let mut input = Cursor::new(payload);
    input.whitespace();
    if input.peek() != Some(b'{') {
        return None;
    }
    let mut walked = input;
    walk::value(&mut walked).ok()?; // from here on the syntax is right, and the depth bounded
    walked.whitespace();
    if walked.peek().is_some() {
        return None;
    }
    match shape_of(&mut input)? {
        Shape::Object(members) => Some(members),
        _ => None,
    }
}

/// The shape of the value that starts here, which has the right syntax.
fn shape_of(input: &mut Cursor<'_>) -> Option<Shape> {
    match input.peek()? {
        b'{' => object(input),
        b'[' => array(input),
        b'"' => Some(text(input.string().ok()?)),
        b't' => input.literal("true").ok().map(|()| Shape::Bool),
        b'f' => input.literal("false").ok().map(|()| Shape::Bool),
        b'n' => input.literal("null").ok().map(|()| Shape::Nothing),
        _ => number(input),
    }
}

fn number(input: &mut Cursor<'_>) -> Option<Shape> {
    let start = input.at();
    let number = Number::read(input).ok()?;
    let text = std::str::from_utf8(input.since(start)).ok()?;
    let float = || Some(Shape::Number(text.parse().ok()?));
    if text.contains(['.', 'e', 'E']) {
        return float();
    }
    let value = number.whole::<i64>().map(i128::from).or_else(|| number.whole::<u64>().map(i128::from));
    value.map_or_else(float, |value| Some(Shape::Whole(Whole { min: value, max: value })))
}

fn array(input: &mut Cursor<'_>) -> Option<Shape> {
    let mut items = Shape::Nothing;
    let mut more = opens(input, b']');
    while more {
        items = items.merge(shape_of(input)?);
        more = follows(input, b']');
    }
    Some(Shape::List(Box::new(items)))
}

fn object(input: &mut Cursor<'_>) -> Option<Shape> {
    let mut members = Members::default();
    let mut more = opens(input, b'}');
    while more {
        let key = string_of(input.string().ok()?);
        input.whitespace();
        input.eat(b':');
        input.whitespace();
        let shape = shape_of(input)?;
        if let Some(known) = key.and_then(|name| members.shape(name)) {
            *known = shape; // of a key that comes twice the last one counts
        }
        more = follows(input, b'}');
    }
    Some(Shape::Object(members))
}

fn opens(input: &mut Cursor<'_>, close: u8) -> bool {
    input.skip(1);
    input.whitespace();
    !input.eat(close)
}

fn follows(input: &mut Cursor<'_>, close: u8) -> bool {
    input.whitespace();
    let more = !input.eat(close);
    if more {
        input.eat(b',');
        input.whitespace();
    }
    more
}

/// None where it holds half a surrogate pair, which no text has.
fn string_of(string: RawString<'_>) -> Option<String> {
    if string.escapes == Escapes::None {
        return String::from_utf8(string.body.to_vec()).ok();
    }
    let mut text = Vec::new();
    unescape(string.body, &mut text).ok()?;
    String::from_utf8(text).ok()
}

fn text(string: RawString<'_>) -> Shape {
    let Some(text) = string_of(string) else { return Shape::Text };
    let bytes = text.as_bytes();
    if parse_date(bytes).is_some() {
        return Shape::Date;
    }
    match Moment::parse(bytes) {
        Some(moment) => of_moment(moment, &text),
        None => Shape::Text,
    }
}

fn of_moment(moment: Moment, text: &str) -> Shape {
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let fine = digits > 6 && moment.to_unit(TimeUnit::Nanosecond).is_some();
    let precision = if fine { Precision::Nanos } else { Precision::Micros };
    let behind_date = text.get(10..).unwrap_or_default();
    let zoned = behind_date.contains(['Z', 'z', '+', '-']);
    Shape::Moment(precision, if zoned { Zones::Some } else { Zones::None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inferred(records: &[&str], event_time: Option<&str>) -> Inferred {
        let mut sample = Inference::default();
        for record in records {
            sample.add(record.as_bytes());
        }
        sample.columns(event_time).unwrap()
    }

    #[test]
    fn every_column_has_the_narrowest_type_that_holds_all_its_values() {
        for (values, expected) in [
            (["1", "2.5"], r#""float64""#),
            (["1", "-9223372036854775808"], r#""int64""#),
            (["1", "18446744073709551615"], r#""uint64""#),
            (["-1", "18446744073709551615"], r#""float64""#),
            (["1", "123456789012345678901234567890"], r#""float64""#),
            (["20.0", "1"], r#""float64""#),
            (["null", "true"], r#""bool""#),
            (["\"2026-11-21\"", "null"], r#""date32""#),
            (["\"2026-11-21\"", "\"2026-11-21T08:00:00\""], r#""timestamp[us]""#),
            (["\"2026-11-21T08:00:00Z\"", "\"2026-11-21 08:00\""], r#""timestamp[us, UTC]""#),
            (["\"2026-11-21T08:00:00.123456789+02:00\"", "null"], r#""timestamp[ns, UTC]""#),
            (["\"2026-11-21\"", "\"soon\""], r#""string""#),
            (["[]", "[1, null]"], r#""list<int64>""#),
            (["[[1]]", "[[2.5], []]"], r#""list<list<float64>>""#),
            ([r#"{"a": 1}"#, r#"{"b c": "x", "a": null}"#], r#"{"a": "int64", "b c": "string"}"#),
            ([r#"[{"a": 1}]"#, r#"[{"b": {"c": true}}, {}]"#], r#"[{"a": "int64", "b": {"c": "bool"}}]"#),
        ] {
            let records = values.map(|value| format!("{{\"x\": {value}}}"));
            let found = inferred(&records.each_ref().map(String::as_str), None);
            assert_eq!(found.literal(), format!("{{\"x\": {expected}}}"), "{values:?}");
            assert!(found.left_out.is_empty() && found.records == 2);
        }
    }

    #[test]
    fn what_no_type_holds_is_left_out_and_told() {
        let found = inferred(
            &[
                r#"{"a": 1, "b": null, "c": [], "d": {"e": {}, "f": 1}, "g": 1}"#,
                r#"{"a": "x", "g": [1]}"#,
                "nonsense",
            ],
            None,
        );
        assert_eq!(found.literal(), r#"{"d": {"f": "int64"}}"#);
        let told: Vec<String> = found.left_out.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        assert_eq!(
            told,
            [
                "a: a number in some records, text in others",
                "b: null in all of them",
                "c: no array with an item",
                "d.e: no object with a member that has a type",
                "g: a number in some records, an array in others",
            ]
        );
    }

    #[test]
    fn numbers_of_the_event_time_are_times_in_the_unit_of_this_century() {
        for (number, expected) in [
            ("1763712000", "timestamp[s]"),
            ("1763712000000", "timestamp[ms]"),
            ("1763712000000000", "timestamp[us]"),
            ("1763712000000000000", "timestamp[ns]"),
            ("7", "int64"),
        ] {
            let record = format!("{{\"ts\": {number}, \"n\": {number}}}");
            let found = inferred(&[&record], Some("ts"));
            assert_eq!(found.literal(), format!("{{\"ts\": \"{expected}\", \"n\": \"int64\"}}"));
        }
    }

    #[test]
    fn fractions_in_the_event_time_are_kept_by_a_finer_unit() {
        for (numbers, expected) in [
            (["1763712000.25", "1763712001"], r#"tm.Json({"ts": "timestamp[us]"}, date_unit="s")"#),
            (["1763712000", "1.76371200125e9"], r#"tm.Json({"ts": "timestamp[us]"}, date_unit="s")"#),
            (["1763712000000.5", "1.0"], r#"tm.Json({"ts": "timestamp[us]"}, date_unit="ms")"#),
            (["1763712000000000.5", "null"], r#"tm.Json({"ts": "timestamp[ns]"}, date_unit="us")"#),
            (["0.5", "7"], r#"tm.Json({"ts": "float64"})"#),
        ] {
            let records = numbers.map(|number| format!("{{\"ts\": {number}}}"));
            let found = inferred(&records.each_ref().map(String::as_str), Some("ts"));
            assert_eq!(found.format(), expected, "{numbers:?}");
            assert!(!inferred(&records.each_ref().map(String::as_str), None).format().contains("date_unit"));
        }
    }

    #[test]
    fn without_a_record_the_way_out_is_told() {
        let mut sample = Inference::default();
        assert!(sample.columns(None).unwrap_err().to_string().contains("no record is there yet"));
        sample.add(b"[1]");
        sample.add(b"{\"a\": 1} x");
        sample.add(b"{\"a\": \"\xff\"}");
        let error = sample.columns(None).unwrap_err().to_string();
        assert!(
            error.contains("none of 3 records is a JSON object") && error.contains("tm.Json({"),
            "{error}"
        );
        sample.add(b"{\"a\": null}");
        let error = sample.columns(None).unwrap_err().to_string();
        assert!(
            error.contains("no column of 1 records has one type: \"a\" is null in all of them"),
            "{error}"
        );
        sample.add(b"{\"a\": 1}");
        sample.add(b"{\"a\": \"x\"}");
        let error = sample.columns(None).unwrap_err().to_string();
        assert!(error.contains("\"a\" is a number in some records, text in others"), "{error}");
    }

    #[test]
    fn names_are_written_so_that_python_reads_them() {
        let found = inferred(&["{\"a\\\"b\\n\": 1}"], None);
        assert_eq!(found.literal(), "{\"a\\\"b\\u000a\": \"int64\"}");
    }
}
