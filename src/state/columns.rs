//! The columns of state as bytes and back, and which types can be columns of state that is kept.
//!
//! The form is our own, so that a reader of any version knows each type that it may meet, and one that it does not know
//! is an error and no panic. It deliberately leaves out the metadata of fields, which no state depends on, and the types
//! whose Arrow form holds more than their values: dictionaries, views, runs, unions.

use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION,
    DataType, Field, FieldRef, Fields, IntervalUnit, Schema, TimeUnit,
};

use crate::error::Result;
use crate::types::type_name;
use crate::wire::{Reader, Writer};

/// Lists in lists, and structs in structs, no deeper than this.
const DEEPEST: usize = 32;

/// The fewest bytes of a field: the length of its name, its type, whether it may be null.
const LEAST_FIELD: usize = 6;

/// The columns that cannot be kept, as `name type`.
pub fn unstorable(schema: &Schema) -> Vec<String> {
    let named = |field: &&FieldRef| !is_storable(field.data_type(), 0);
    let text = |field: &FieldRef| format!("{} {}", field.name(), type_name(field.data_type()));
    schema.fields().iter().filter(named).map(text).collect()
}

fn is_storable(data_type: &DataType, depth: usize) -> bool {
    let inner = |field: &FieldRef| depth < DEEPEST && is_storable(field.data_type(), depth + 1);
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => inner(item),
        DataType::Struct(fields) => fields.iter().all(inner),
        DataType::Dictionary(..)
        | DataType::RunEndEncoded(..)
        | DataType::Union(..)
        | DataType::Utf8View
        | DataType::BinaryView
        | DataType::ListView(_)
        | DataType::LargeListView(_) => false,
        _ => true,
    }
}

/// Writes the names, types and nullability of columns. Those of [`unstorable`] are written as nulls, which no reader takes
/// for them.
pub fn write(schema: &Schema, out: &mut Writer) {
    write_fields(schema.fields(), out);
}

fn write_fields(fields: &Fields, out: &mut Writer) {
    out.count(fields.len());
    fields.iter().for_each(|field| write_field(field, out));
}

fn write_field(field: &Field, out: &mut Writer) {
    out.text(field.name());
    write_type(field.data_type(), out);
    out.u8(u8::from(field.is_nullable()));
}

/// The types without parameters, each under the number that stands for it.
const PLAIN: [(u8, DataType); 20] = [
    (0, DataType::Null),
    (1, DataType::Boolean),
    (2, DataType::Int8),
    (3, DataType::Int16),
    (4, DataType::Int32),
    (5, DataType::Int64),
    (6, DataType::UInt8),
    (7, DataType::UInt16),
    (8, DataType::UInt32),
    (9, DataType::UInt64),
    (10, DataType::Float16),
    (11, DataType::Float32),
    (12, DataType::Float64),
    (13, DataType::Utf8),
    (14, DataType::LargeUtf8),
    (15, DataType::Binary),
    (16, DataType::LargeBinary),
    (17, DataType::Date32),
    (18, DataType::Date64),
    (19, DataType::Interval(IntervalUnit::MonthDayNano)),
];

const FIXED_SIZE_BINARY: u8 = 32;
const TIME32: u8 = 33;
const TIME64: u8 = 34;
const TIMESTAMP: u8 = 35;
const DURATION: u8 = 36;
const DECIMAL32: u8 = 37;
const DECIMAL64: u8 = 38;
const DECIMAL128: u8 = 39;
const DECIMAL256: u8 = 40;
const LIST: u8 = 41;
const LARGE_LIST: u8 = 42;
const FIXED_SIZE_LIST: u8 = 43;
const STRUCT: u8 = 44;
const MAP: u8 = 45;
const INTERVAL: u8 = 46;

fn write_type(data_type: &DataType, out: &mut Writer) {
    if let Some((number, _)) = PLAIN.iter().find(|(_, plain)| plain == data_type) {
        return out.u8(*number);
    }
    match data_type {
        DataType::FixedSizeBinary(size) => tagged(FIXED_SIZE_BINARY, out).i32(*size),
        DataType::Time32(unit) => tagged(TIME32, out).u8(unit_number(*unit)),
        DataType::Time64(unit) => tagged(TIME64, out).u8(unit_number(*unit)),
        DataType::Duration(unit) => tagged(DURATION, out).u8(unit_number(*unit)),
        DataType::Timestamp(unit, zone) => {
            tagged(TIMESTAMP, out).u8(unit_number(*unit));
            out.option(zone.as_deref(), Writer::text);
        }
        DataType::Interval(IntervalUnit::YearMonth) => tagged(INTERVAL, out).u8(0),
        DataType::Interval(IntervalUnit::DayTime) => tagged(INTERVAL, out).u8(1),
        DataType::Decimal32(precision, scale) => decimal(DECIMAL32, *precision, *scale, out),
        DataType::Decimal64(precision, scale) => decimal(DECIMAL64, *precision, *scale, out),
        DataType::Decimal128(precision, scale) => decimal(DECIMAL128, *precision, *scale, out),
        DataType::Decimal256(precision, scale) => decimal(DECIMAL256, *precision, *scale, out),
        DataType::List(item) => write_field(item, tagged(LIST, out)),
        DataType::LargeList(item) => write_field(item, tagged(LARGE_LIST, out)),
        DataType::FixedSizeList(item, size) => {
            tagged(FIXED_SIZE_LIST, out).i32(*size);
            write_field(item, out);
        }
        DataType::Struct(fields) => write_fields(fields, tagged(STRUCT, out)),
        DataType::Map(entries, sorted) => {
            tagged(MAP, out).u8(u8::from(*sorted));
            write_field(entries, out);
        }
        _ => out.u8(0),
    }
}

fn tagged(tag: u8, out: &mut Writer) -> &mut Writer {
    out.u8(tag);
    out
}

fn decimal(tag: u8, precision: u8, scale: i8, out: &mut Writer) {
    tagged(tag, out).u8(precision);
    out.i8(scale);
}

fn unit_number(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

/// The columns that [`write()`] wrote.
pub fn read(from: &mut Reader<'_>) -> Result<Schema> {
    Ok(Schema::new(read_fields(from, 0)?))
}

fn read_fields(from: &mut Reader<'_>, depth: usize) -> Result<Fields> {
    let count = from.count(LEAST_FIELD)?;
    (0..count).map(|_| read_field(from, depth)).collect()
}

fn read_field(from: &mut Reader<'_>, depth: usize) -> Result<FieldRef> {
    if depth > DEEPEST {
        return Err(from.wrong(format!("types no deeper than {DEEPEST} were expected")));
    }
    let name = from.text()?.to_owned();
    let data_type = read_type(from, depth)?;
    let nullable = read_flag(from)?;
    Ok(Arc::new(Field::new(name, data_type, nullable)))
}

fn read_flag(from: &mut Reader<'_>) -> Result<bool> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(from.wrong(format!("0 or 1 was expected, found {other}"))),
    }
}

fn read_type(from: &mut Reader<'_>, depth: usize) -> Result<DataType> {
    let tag = from.u8()?;
    if let Some((_, plain)) = PLAIN.iter().find(|(number, _)| *number == tag) {
        return Ok(plain.clone());
    }
    Ok(match tag {
        FIXED_SIZE_BINARY => DataType::FixedSizeBinary(read_size(from)?),
        TIME32 => match read_unit(from)? {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
            unit => return Err(from.wrong(format!("a coarser unit was expected, found {unit:?}"))),
        },
        TIME64 => match read_unit(from)? {
            unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond) => DataType::Time64(unit),
            unit => return Err(from.wrong(format!("a finer unit was expected, found {unit:?}"))),
        },
        TIMESTAMP => {
            let unit = read_unit(from)?;
            DataType::Timestamp(unit, from.option(Reader::text)?.map(Arc::from))
        }
        DURATION => DataType::Duration(read_unit(from)?),
        INTERVAL if read_flag(from)? => DataType::Interval(IntervalUnit::DayTime),
        INTERVAL => DataType::Interval(IntervalUnit::YearMonth),
        DECIMAL32 => read_decimal(from, DECIMAL32_MAX_PRECISION, DataType::Decimal32)?,
        DECIMAL64 => read_decimal(from, DECIMAL64_MAX_PRECISION, DataType::Decimal64)?,
        DECIMAL128 => read_decimal(from, DECIMAL128_MAX_PRECISION, DataType::Decimal128)?,
        DECIMAL256 => read_decimal(from, DECIMAL256_MAX_PRECISION, DataType::Decimal256)?,
        LIST => DataType::List(read_field(from, depth + 1)?),
        LARGE_LIST => DataType::LargeList(read_field(from, depth + 1)?),
        FIXED_SIZE_LIST => {
            let size = read_size(from)?;
            DataType::FixedSizeList(read_field(from, depth + 1)?, size)
        }
        STRUCT => DataType::Struct(read_fields(from, depth + 1)?),
        MAP => {
            let sorted = read_flag(from)?;
            DataType::Map(read_entries(from, depth + 1)?, sorted)
        }
        other => return Err(from.wrong(format!("a type of this version was expected, found number {other}"))),
    })
}

fn read_size(from: &mut Reader<'_>) -> Result<i32> {
    match from.i32()? {
        size @ 0.. => Ok(size),
        size => Err(from.wrong(format!("a size of 0 or more was expected, found {size}"))),
    }
}

fn read_unit(from: &mut Reader<'_>) -> Result<TimeUnit> {
    Ok(match from.u8()? {
        0 => TimeUnit::Second,
        1 => TimeUnit::Millisecond,
        2 => TimeUnit::Microsecond,
        3 => TimeUnit::Nanosecond,
        other => return Err(from.wrong(format!("a unit of time was expected, found number {other}"))),
    })
}

fn read_decimal(from: &mut Reader<'_>, most: u8, of: fn(u8, i8) -> DataType) -> Result<DataType> {
    let (precision, scale) = (from.u8()?, from.i8()?);
    if precision == 0 || precision > most || scale > most.cast_signed() {
        return Err(from.wrong(format!("at most {most} digits were expected, found {precision} and {scale}")));
    }
    Ok(of(precision, scale))
}

/// A map's entries are a struct of a key and a value.
fn read_entries(from: &mut Reader<'_>, depth: usize) -> Result<FieldRef> {
    let entries = read_field(from, depth)?;
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Ok(entries),
        other => Err(from.wrong(format!("a map's entries were expected, found {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn all() -> Schema {
        let item = |data_type| Arc::new(Field::new_list_field(data_type, true));
        let entry = Fields::from(vec![
            Field::new("keys", DataType::Utf8, false),
            Field::new("values", DataType::Int64, true),
        ]);
        let mut types: Vec<DataType> = PLAIN.iter().map(|(_, plain)| plain.clone()).collect();
        types.extend([
            DataType::FixedSizeBinary(3),
            DataType::Time32(TimeUnit::Millisecond),
            DataType::Time64(TimeUnit::Nanosecond),
            DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Rome".into())),
            DataType::Timestamp(TimeUnit::Second, None),
            DataType::Duration(TimeUnit::Millisecond),
            DataType::Interval(IntervalUnit::DayTime),
            DataType::Interval(IntervalUnit::YearMonth),
            DataType::Decimal32(9, -2),
            DataType::Decimal64(18, 3),
            DataType::Decimal128(38, 0),
            DataType::Decimal256(76, 76),
            DataType::List(item(DataType::LargeList(item(DataType::Boolean)))),
            DataType::FixedSizeList(item(DataType::Float64), 16),
            DataType::Struct(entry.clone()),
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry), false)), false),
        ]);
        let field = |(number, data_type)| Field::new(format!("c{number}"), data_type, number % 2 == 0);
        Schema::new(types.into_iter().enumerate().map(field).collect::<Vec<_>>())
    }

    fn bytes(schema: &Schema) -> Vec<u8> {
        let mut out = Writer::default();
        write(schema, &mut out);
        out.into_bytes()
    }

    #[test]
    fn every_type_that_can_be_kept_is_read_as_it_was_written() {
        assert_eq!(unstorable(&all()), Vec::<String>::new());
        assert_eq!(read(&mut Reader::new("columns", &bytes(&all()))).unwrap(), all());
    }

    #[test]
    fn types_that_hold_more_than_their_values_cannot_be_kept() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let nested = DataType::new_list(DataType::Utf8View, true);
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", dictionary, true),
            Field::new("c", nested, true),
        ]);
        let named = unstorable(&schema);
        assert!(
            named.len() == 2 && named[0].starts_with("b ") && named[1].starts_with("c list<"),
            "{named:?}"
        );
    }

    #[test]
    fn bytes_that_are_no_columns_are_refused() {
        let whole = bytes(&all());
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..20_000 {
            let mut mutant = whole.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..mutant.len());
                mutant[at] = random.u8(..);
            }
            mutant.truncate(random.usize(..=mutant.len()));
            if let Err(error) = read(&mut Reader::new("columns", &mutant)) {
                assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
            }
        }
        let deep =
            [1, 0, 0, 0, 0, 0, 0, 0].into_iter().chain([LIST, 0, 0, 0, 0].repeat(100)).collect::<Vec<_>>();
        let error = read(&mut Reader::new("columns", &deep)).unwrap_err();
        assert!(error.to_string().starts_with("types no deeper than 32"), "{error}");
    }
}
