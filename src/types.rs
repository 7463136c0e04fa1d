//! The names of types, as users write them: `int64`, `timestamp[us, Europe/Rome]`, `list<string>`; to Arrow and back.
//!
//! Names are Arrow's own and pyarrow's. It deliberately knows no SQL names (`BIGINT`, `VARCHAR`): those belong to the
//! SQL parser, which asks here first.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, FieldRef, Fields, IntervalUnit,
    TimeUnit,
};

use crate::error::{Error, Result, nearest};

/// The types that are a word, with the word that stands for each first.
const SIMPLE: &[(&str, DataType)] = &[
    ("bool", DataType::Boolean),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float16", DataType::Float16),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("string", DataType::Utf8),
    ("large_string", DataType::LargeUtf8),
    ("string_view", DataType::Utf8View),
    ("binary", DataType::Binary),
    ("large_binary", DataType::LargeBinary),
    ("binary_view", DataType::BinaryView),
    ("date32", DataType::Date32),
    ("date64", DataType::Date64),
    ("null", DataType::Null),
    ("month_interval", DataType::Interval(IntervalUnit::YearMonth)),
    ("day_time_interval", DataType::Interval(IntervalUnit::DayTime)),
    ("month_day_nano_interval", DataType::Interval(IntervalUnit::MonthDayNano)),
];

/// Further words that are understood, and what they mean.
const ALIASES: &[(&str, &str)] =
    &[("date", "date32"), ("utf8", "string"), ("boolean", "bool"), ("bytes", "binary")];

/// What other libraries and languages call a type: not understood, but answered with our name. An edit distance would
/// lead from `int` to `int8`.
const FOREIGN: &[(&str, &str)] = &[
    ("float", "float64"),
    ("double", "float64"),
    ("f64", "float64"),
    ("number", "float64"),
    ("real", "float32"),
    ("f32", "float32"),
    ("int", "int64"),
    ("integer", "int64"),
    ("long", "int64"),
    ("bigint", "int64"),
    ("i64", "int64"),
    ("i32", "int32"),
    ("short", "int16"),
    ("smallint", "int16"),
    ("byte", "int8"),
    ("tinyint", "int8"),
    ("uint", "uint64"),
    ("str", "string"),
    ("text", "string"),
    ("varchar", "string"),
    ("char", "string"),
    ("object", "string"),
    ("datetime", "timestamp[us]"),
    ("datetime64", "timestamp[us]"),
    ("time", "time64[us]"),
    ("timedelta", "duration[us]"),
    ("timedelta64", "duration[us]"),
    ("blob", "binary"),
    ("bytearray", "binary"),
    ("varbinary", "binary"),
    ("array", "list<T>"),
];

/// The types that take something in brackets, as they are shown in errors.
const COMPOSED: &[&str] = &[
    "timestamp[s|ms|us|ns]",
    "timestamp[unit, zone]",
    "duration[unit]",
    "time32[s|ms]",
    "time64[us|ns]",
    "decimal(precision, scale)",
    "list<T>",
    "map<K, V>",
    "struct<name: T, ...>",
];

/// The first words of the types in [`COMPOSED`].
const COMPOSED_WORDS: &[&str] =
    &["timestamp", "duration", "time32", "time64", "decimal", "list", "map", "struct"];

/// The type that `name` stands for.
///
/// ```
/// use arrow::datatypes::{DataType, TimeUnit};
/// use tidemill::types::{parse_type, type_name};
/// let kind = parse_type("timestamp[us, Europe/Rome]").unwrap();
/// assert_eq!(kind, DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Rome".into())));
/// assert_eq!(type_name(&kind), "timestamp[us, Europe/Rome]");
/// assert!(parse_type("flot64").unwrap_err().to_string().contains("did you mean \"float64\""));
/// ```
pub fn parse_type(name: &str) -> Result<DataType> {
    Reader { whole: name, rest: name, offered: None }.whole_type()
}

/// As [`parse_type`], where errors show `offered` as the types that there are.
pub fn parse_type_among(name: &str, offered: &str) -> Result<DataType> {
    Reader { whole: name, rest: name, offered: Some(offered) }.whole_type()
}

/// Our name for what other libraries and languages call `word`, where it is a common one.
///
/// ```
/// assert_eq!(tidemill::types::our_name("Double"), Some("float64"));
/// assert_eq!(tidemill::types::our_name("bool"), Some("bool"));
/// assert_eq!(tidemill::types::our_name("quux"), None);
/// ```
pub fn our_name(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let aliases = FOREIGN.iter().chain(ALIASES).find(|(alias, _)| *alias == word).map(|(_, name)| *name);
    aliases.or_else(|| SIMPLE.iter().map(|(name, _)| *name).find(|name| *name == word))
}

/// The name of a type, such that [`parse_type`] gives the same type back.
///
/// Types that have no name here (unions, dictionaries, …) are shown in Arrow's own notation.
pub fn type_name(data_type: &DataType) -> String {
    if let Some((name, _)) = SIMPLE.iter().find(|(_, simple)| simple == data_type) {
        return (*name).to_owned();
    }
    match data_type {
        DataType::Timestamp(unit, None) => format!("timestamp[{}]", unit_name(*unit)),
        DataType::Timestamp(unit, Some(zone)) => format!("timestamp[{}, {zone}]", unit_name(*unit)),
        DataType::Duration(unit) => format!("duration[{}]", unit_name(*unit)),
        DataType::Time32(unit) => format!("time32[{}]", unit_name(*unit)),
        DataType::Time64(unit) => format!("time64[{}]", unit_name(*unit)),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision}, {scale})")
        }
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::Map(entries, _) => map_name(entries),
        DataType::Struct(fields) => format!("struct<{}>", field_names(fields).join(", ")),
        other => other.to_string(),
    }
}

/// `text` of Arrow's own, such as the cause of an error, with the names of types as users write them; what stands in
/// single quotes is a value and left as it is.
///
/// ```
/// use tidemill::types::in_our_words;
/// assert_eq!(in_our_words("Cannot cast 'Int64' to Int64"), "Cannot cast 'Int64' to int64");
/// ```
pub fn in_our_words(text: &str) -> String {
    let named =
        |part: &str| part.split_inclusive(|c: char| !c.is_alphanumeric()).map(renamed).collect::<String>();
    let text = text.replace("Can't ", "cannot "); // no quotation mark
    let parts = text.split('\'').enumerate();
    let parts = parts.map(|(place, part)| if place % 2 == 0 { named(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("'")
}

/// A word and what ends it.
fn renamed(piece: &str) -> String {
    let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
    let ours = match word {
        "Decimal128" | "Decimal256" => Some("decimal"),
        _ => SIMPLE.iter().find(|(_, simple)| simple.to_string() == word).map(|(name, _)| *name),
    };
    match (ours, piece.strip_prefix(word)) {
        (Some(name), Some(end)) => name.to_owned() + end,
        _ => piece.to_owned(),
    }
}

fn map_name(entries: &FieldRef) -> String {
    match entries.data_type() {
        DataType::Struct(fields) => {
            let parts: Vec<String> = fields.iter().map(|field| type_name(field.data_type())).collect();
            format!("map<{}>", parts.join(", "))
        }
        other => format!("map<{other}>"),
    }
}

fn field_names(fields: &Fields) -> Vec<String> {
    fields.iter().map(|field| format!("{}: {}", field.name(), type_name(field.data_type()))).collect()
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// Reads a type's name from left to right.
struct Reader<'a> {
    whole: &'a str,
    rest: &'a str,
    /// The types that there are, for errors; none for all.
    offered: Option<&'a str>,
}

impl<'a> Reader<'a> {
    fn whole_type(mut self) -> Result<DataType> {
        let parsed = self.data_type()?;
        match self.rest.trim() {
            "" => Ok(parsed),
            left => Err(self.error(format!("expected the end of the type, found \"{left}\""))),
        }
    }

    fn data_type(&mut self) -> Result<DataType> {
        let word = self.word();
        match word.to_ascii_lowercase().as_str() {
            "timestamp" => self.bracketed("timestamp[ms]", '[', ']', Self::timestamp),
            "duration" => {
                self.bracketed("duration[ms]", '[', ']', |reader| Ok(DataType::Duration(reader.unit()?)))
            }
            "time32" => self.bracketed("time32[ms]", '[', ']', Self::time32),
            "time64" => self.bracketed("time64[us]", '[', ']', Self::time64),
            "decimal" | "decimal128" => self.bracketed("decimal(10, 2)", '(', ')', Self::decimal),
            "list" => self.bracketed("list<int64>", '<', '>', Self::list),
            "map" => self.bracketed("map<string, int64>", '<', '>', Self::map),
            "struct" => self.bracketed("struct<x: int64>", '<', '>', Self::structure),
            simple => self.simple(word, simple),
        }
    }

    fn simple(&self, word: &str, lower: &str) -> Result<DataType> {
        let name = ALIASES.iter().find(|(alias, _)| *alias == lower).map_or(lower, |(_, name)| *name);
        let found = SIMPLE.iter().find(|(simple, _)| *simple == name);
        found.map(|(_, data_type)| data_type.clone()).ok_or_else(|| self.unknown(word))
    }

    fn timestamp(&mut self) -> Result<DataType> {
        let unit = self.unit()?;
        let zone = if self.takes(',') { Some(self.zone()?) } else { None };
        Ok(DataType::Timestamp(unit, zone))
    }

    fn time32(&mut self) -> Result<DataType> {
        match self.unit()? {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Ok(DataType::Time32(unit)),
            _ => Err(self.error("expected \"s\" or \"ms\" in time32; use time64 for \"us\" and \"ns\"")),
        }
    }

    fn time64(&mut self) -> Result<DataType> {
        match self.unit()? {
            unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond) => Ok(DataType::Time64(unit)),
            _ => Err(self.error("expected \"us\" or \"ns\" in time64; use time32 for \"s\" and \"ms\"")),
        }
    }

    fn decimal(&mut self) -> Result<DataType> {
        let precision: u8 = self.number("a precision")?;
        let scale: i8 = if self.takes(',') { self.number("a scale")? } else { 0 };
        if precision == 0 || precision > DECIMAL256_MAX_PRECISION || i16::from(scale) > i16::from(precision) {
            let limits =
                format!("expected a precision of 1 to {DECIMAL256_MAX_PRECISION} and a scale within it");
            return Err(self.error(format!("{limits}, found ({precision}, {scale})")));
        }
        if precision <= DECIMAL128_MAX_PRECISION {
            return Ok(DataType::Decimal128(precision, scale));
        }
        Ok(DataType::Decimal256(precision, scale))
    }

    fn list(&mut self) -> Result<DataType> {
        Ok(DataType::new_list(self.data_type()?, true))
    }

    fn map(&mut self) -> Result<DataType> {
        let keys = Field::new("key", self.data_type()?, false);
        self.expect(',')?;
        let values = Field::new("value", self.data_type()?, true);
        let entries = DataType::Struct(Fields::from(vec![keys, values]));
        Ok(DataType::Map(Arc::new(Field::new("entries", entries, false)), false))
    }

    fn structure(&mut self) -> Result<DataType> {
        let mut fields = Vec::new();
        while !self.rest.trim_start().starts_with('>') {
            let name = self.word();
            self.expect(':')?;
            fields.push(Field::new(name, self.data_type()?, true));
            if !self.takes(',') {
                break;
            }
        }
        Ok(DataType::Struct(Fields::from(fields)))
    }

    fn unit(&mut self) -> Result<TimeUnit> {
        match self.word() {
            "s" => Ok(TimeUnit::Second),
            "ms" => Ok(TimeUnit::Millisecond),
            "us" => Ok(TimeUnit::Microsecond),
            "ns" => Ok(TimeUnit::Nanosecond),
            other => Err(self.error(format!("expected a unit of s, ms, us or ns, found \"{other}\""))),
        }
    }

    fn zone(&mut self) -> Result<Arc<str>> {
        let end = self.rest.find(']').unwrap_or(self.rest.len());
        let (zone, rest) = self.rest.split_at(end);
        self.rest = rest;
        let zone = zone.trim();
        match zone.parse::<Tz>() {
            Ok(_) => Ok(zone.into()),
            Err(error) => {
                let found = format!("expected a time zone, found \"{zone}\"");
                Err(self.error(found).help("use UTC, +02:00 or a name such as Europe/Rome").caused_by(error))
            }
        }
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let word = self.word();
        word.parse().map_err(|_| self.error(format!("expected {what}, found \"{word}\"")))
    }

    fn bracketed(
        &mut self,
        example: &str,
        open: char,
        close: char,
        inner: impl FnOnce(&mut Self) -> Result<DataType>,
    ) -> Result<DataType> {
        self.expect(open).map_err(|error| error.help(format!("write it as, say, \"{example}\"")))?;
        let parsed = inner(self)?;
        self.expect(close)?;
        Ok(parsed)
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let end = rest.find(|c| !of_word(c)).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        word
    }

    fn takes(&mut self, wanted: char) -> bool {
        match self.rest.trim_start().strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        if self.takes(wanted) {
            return Ok(());
        }
        let found = match self.rest.trim_start().chars().next() {
            Some(found) => format!("\"{found}\""),
            None => "the end".to_owned(),
        };
        Err(self.error(format!("expected \"{wanted}\", found {found}")))
    }

    fn error(&self, what: impl AsRef<str>) -> Error {
        Error::schema(format!("in the type \"{}\": {}", self.whole, what.as_ref()))
    }

    fn unknown(&self, word: &str) -> Error {
        let words = || SIMPLE.iter().map(|(name, _)| *name).chain(COMPOSED_WORDS.iter().copied());
        let shown = self.offered.map_or_else(every_type, str::to_owned);
        let error = self.error(format!("expected a type, found \"{word}\""));
        match (our_name(word), nearest(word, words())) {
            (Some(ours), _) => error.help(format!("use \"{ours}\"; there are {shown}")),
            (None, Some(near)) => error.help(format!("did you mean \"{near}\"? There are {shown}")),
            (None, None) => error.help(format!("there are {shown}")),
        }
    }
}

fn every_type() -> String {
    let shown = SIMPLE.iter().map(|(name, _)| *name).chain(COMPOSED.iter().copied());
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_types_and_back() {
        let names = [
            "bool",
            "int8",
            "uint64",
            "float32",
            "string",
            "large_string",
            "binary",
            "date32",
            "timestamp[s]",
            "timestamp[ms, UTC]",
            "timestamp[us, Europe/Rome]",
            "timestamp[ns, +02:00]",
            "duration[us]",
            "time32[ms]",
            "time64[ns]",
            "decimal(10, 2)",
            "decimal(60, 5)",
            "list<int64>",
            "map<string, list<float64>>",
            "list<struct<key: string, value: binary>>",
            "struct<a: int8, b: decimal(3, -1)>",
            "struct<>",
        ];
        for name in names {
            assert_eq!(type_name(&parse_type(name).unwrap()), name);
        }
    }

    #[test]
    fn spaces_case_and_aliases_do_not_matter() {
        assert_eq!(parse_type(" Date ").unwrap(), DataType::Date32);
        assert_eq!(parse_type("INT64").unwrap(), DataType::Int64);
        assert_eq!(parse_type("decimal(10,2)").unwrap(), DataType::Decimal128(10, 2));
        assert_eq!(parse_type("map<string,int8>").unwrap(), parse_type("map< string , int8 >").unwrap());
        assert_eq!(
            parse_type("timestamp[us,Europe/Rome]").unwrap(),
            DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Rome".into()))
        );
    }

    #[test]
    fn mistakes_say_what_was_expected_what_was_found_and_what_exists() {
        let wrong = [
            ("float", "found \"float\"; use \"float64\""),
            ("INT", "use \"int64\""),
            ("list<str>", "in the type \"list<str>\": expected a type, found \"str\"; use \"string\""),
            ("datetime64[ns]", "use \"timestamp[us]\""),
            ("flot64", "expected a type, found \"flot64\"; did you mean \"float64\""),
            ("quux", "there are bool, int8"),
            ("", "expected a type, found \"\""),
            ("timestamp", "expected \"[\", found the end"),
            ("timestamp[min]", "expected a unit of s, ms, us or ns, found \"min\""),
            ("timestamp[ms, Europe/Roma]", "expected a time zone, found \"Europe/Roma\""),
            ("decimal(0, 0)", "expected a precision of 1 to 76"),
            ("decimal(5, 7)", "a scale within it, found (5, 7)"),
            ("decimal(x)", "expected a precision, found \"x\""),
            ("list<int64", "expected \">\", found the end"),
            ("map<string>", "expected \",\", found \">\""),
            ("int64 null", "expected the end of the type, found \"null\""),
            ("time32[ns]", "use time64"),
        ];
        for (name, expected) in wrong {
            let error = parse_type(name).unwrap_err();
            assert!(error.is_config(), "{error}");
            assert!(error.to_string().contains(expected), "{name}: {error}");
        }
    }
    #[test]
    fn every_foreign_name_leads_to_a_type_and_is_none() {
        for (word, ours) in FOREIGN {
            assert!(parse_type(word).is_err(), "{word}");
            assert!(parse_type(&ours.replace('T', "int8")).is_ok(), "{ours}");
        }
    }
}
