//! CSV and text against a model of each: hostile documents drawn from seeds, counted exactly, row by row.
//!
//! The model of CSV reads a character at a time and copies every field. It deliberately shares nothing with the
//! decoder but the types of its result.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Field, Schema};
use tidemill::csv::{Dialect, Header};
use tidemill::decode::{DecodeSpec, Decoder, Format, OnBad};
use tidemill::time::BatchTime;

use super::check::{cells, check_dead, chunk, fields, shown};
use super::documents::Dice;
use super::model::{Cell, Row, bare};
use super::{bytes_of, thousands};

/// A field of a line: its text, and whether it was quoted.
type Piece = (String, bool);

/// The fields of the first line of `text`, and what is behind that line's end, where there is an end.
fn line<'a>(text: &'a str, dialect: &Dialect) -> Option<(Vec<Piece>, Option<&'a str>)> {
    let (delimiter, quote) = (char::from(dialect.delimiter()), char::from(dialect.quote()));
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let (mut piece, mut quoted) = (String::new(), false);
        if let Some(inside) = rest.strip_prefix(quote) {
            (rest, quoted) = (inside, true);
            loop {
                let c = rest.chars().next()?;
                rest = &rest[c.len_utf8()..];
                match c {
                    c if c == quote && rest.starts_with(quote) => rest = &rest[1..],
                    c if c == quote => break,
                    _ => {}
                }
                piece.push(c);
            }
        } else {
            while let Some(c) = rest.chars().next().filter(|c| ![delimiter, quote, '\r', '\n'].contains(c)) {
                piece.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        pieces.push((piece, quoted));
        if let Some(behind) = rest.strip_prefix(delimiter) {
            rest = behind;
            continue;
        }
        return match rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')) {
            None => rest.is_empty().then_some((pieces, None)),
            behind => Some((pieces, behind)),
        };
    }
}

/// What a payload becomes, when `read` is read of the columns in `all`.
fn row(payload: Option<&[u8]>, all: &[Field], read: &[Field], dialect: &Dialect) -> Row {
    let Some(payload) = payload else { return Row::Tombstone };
    record(payload, all, read, dialect).map_or(Row::Bad, Row::Good)
}

fn record(payload: &[u8], all: &[Field], read: &[Field], dialect: &Dialect) -> Option<Vec<Cell>> {
    let mut text = std::str::from_utf8(payload).ok()?;
    let mut names: Vec<String> = all.iter().map(|field| field.name().clone()).collect();
    if dialect.header() == Header::Present {
        let (first, rest) = line(text, dialect)?;
        text = rest?;
        names = first.into_iter().map(|(name, _)| name).collect();
        let twice = |field: &Field| names.iter().filter(|name| *name == field.name()).count() > 1;
        (!read.iter().any(twice)).then_some(())?;
    }
    let (pieces, rest) = line(text, dialect)?;
    (rest.unwrap_or_default().is_empty() && pieces.len() == names.len()).then_some(())?;
    let cells = read.iter().map(|field| {
        let piece = names.iter().position(|name| name == field.name()).map(|place| &pieces[place]);
        match piece.filter(|(text, quoted)| *quoted || text != dialect.null()) {
            None => field.is_nullable().then_some(Cell::Null),
            Some((text, _)) => bare(text, field.data_type()),
        }
    });
    cells.collect()
}

/// Values that fit one type or another, and some that fit none.
const VALUES: [&str; 44] = [
    "",
    "0",
    "-1",
    "7",
    "127",
    "128",
    "65535",
    "1.0",
    "1e3",
    "0.1",
    "-0.0",
    "1e400",
    "01",
    "+1",
    ".5",
    "1.",
    "true",
    "false",
    "True",
    "null",
    "NULL",
    "2024-02-29",
    "2023-02-29",
    "2024-02-29T12:00:00Z",
    "2024-02-29 12:00:00.5",
    "1709208000000",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "é",
    "a",
    "a,b",
    "a;b",
    "a \"word\"",
    "it's",
    "two\nlines",
    "two\r\nlines",
    " 7",
    "7 ",
    "text that is longer than sixteen bytes",
    "12.345",
    "0.0001",
    "YQ==",
    "YQ",
];

fn written(text: &str, always: bool, dialect: &Dialect) -> String {
    let (delimiter, quote) = (char::from(dialect.delimiter()), char::from(dialect.quote()));
    if always || text.contains([delimiter, quote, '\r', '\n']) {
        return format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}")));
    }
    text.to_owned()
}

fn payload(dice: &mut Dice<'_>, all: &[Field], dialect: &Dialect) -> Option<Vec<u8>> {
    if dice.below(24) == 23 {
        return None;
    }
    let delimiter = char::from(dialect.delimiter()).to_string();
    let present: Vec<&Field> =
        all.iter().filter(|_| dialect.header() == Header::Absent || dice.below(3) < 2).collect();
    let mut text = String::new();
    if dialect.header() == Header::Present {
        let names: Vec<String> =
            present.iter().map(|field| written(field.name(), dice.below(5) == 4, dialect)).collect();
        text = names.join(&delimiter) + ["\n", "\r\n"][dice.below(2)];
    }
    let values: Vec<String> = present.iter().map(|field| value(dice, field, dialect)).collect();
    text += &values.join(&delimiter);
    text += ["", "", "\n", "\r\n"][dice.below(4)];
    let mut bytes = text.into_bytes();
    if dice.below(4) == 3 {
        hurt(dice, &mut bytes);
    }
    Some(bytes)
}

/// Mostly one that fits.
fn value(dice: &mut Dice<'_>, field: &Field, dialect: &Dialect) -> String {
    let fitting: Vec<&str> =
        VALUES.into_iter().filter(|text| bare(text, field.data_type()).is_some()).collect();
    let text = match dice.below(64) {
        63 => VALUES[dice.below(VALUES.len())],
        62 if field.is_nullable() => return dialect.null().to_owned(),
        _ => fitting[dice.below(fitting.len())],
    };
    written(text, dice.below(8) == 7 || text == dialect.null(), dialect)
}

fn hurt(dice: &mut Dice<'_>, document: &mut Vec<u8>) {
    let at = dice.below(document.len().max(1)).min(document.len());
    match dice.below(4) {
        0 => document.truncate(at),
        1 if !document.is_empty() => drop(document.remove(at)),
        2 if !document.is_empty() => document[at] = dice.below(256) as u8,
        _ => document.insert(at, b",;\"'\r\n\x00e0-"[dice.below(10)]),
    }
}

fn dialects() -> [Dialect; 3] {
    [
        Dialect::default(),
        Dialect::new(";", "'", Header::Absent, "NULL").unwrap(),
        Dialect::new(",", "\"", Header::Present, "").unwrap(),
    ]
}

fn decoder(format: Format, columns: Option<Vec<String>>, on_bad: OnBad) -> Decoder {
    Decoder::new(DecodeSpec { format, metadata: Vec::new(), on_bad, event_time: None, columns }).unwrap()
}

/// Decodes 1,000 documents under both policies; how many were good, bad and tombstones.
fn compare(seed: u64) -> [u64; 3] {
    let dialect = &dialects()[seed as usize % 3];
    let all: Vec<Field> = fields().into_iter().step_by(1 + seed as usize % 2).collect();
    let read: Vec<Field> =
        all.iter().skip(seed as usize % 5).step_by(1 + seed as usize % 4).cloned().collect();
    let bytes = bytes_of(seed, 200_000);
    let mut dice = Dice::new(&bytes);
    let payloads: Vec<_> = (0..1_000).map(|_| payload(&mut dice, &all, dialect)).collect();
    assert!(!dice.is_empty(), "documents drawn from no bytes are all the same");
    let rows: Vec<Row> =
        payloads.iter().map(|payload| row(payload.as_deref(), &all, &read, dialect)).collect();
    let count = |wanted: fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count() as u64;
    let counts = [
        count(|row| matches!(row, Row::Good(_))),
        count(|row| *row == Row::Bad),
        count(|row| *row == Row::Tombstone),
    ];
    let format = Format::Csv(Arc::new(Schema::new(all)), dialect.clone());
    let columns: Vec<String> = read.iter().map(|field| field.name().clone()).collect();
    let mut drop = decoder(format.clone(), Some(columns.clone()), OnBad::Drop);
    let decoded = drop.decode(&chunk(&payloads), BatchTime(0)).unwrap();
    let found = [decoded.batch.num_rows() as u64, decoded.counts.bad, decoded.counts.tombstones];
    let mut found_cells = cells(&decoded.batch).into_iter();
    for (row, payload) in rows.iter().zip(&payloads) {
        if let Row::Good(expected) = row {
            assert_eq!(
                found_cells.next().as_ref(),
                Some(expected),
                "{}",
                shown(std::slice::from_ref(payload))
            );
        }
    }
    assert_eq!(found, counts);
    let bad: Vec<usize> = (0..rows.len()).filter(|row| rows[*row] == Row::Bad).collect();
    check_dead(|on_bad| decoder(format.clone(), Some(columns.clone()), on_bad), &payloads, &bad);
    let first = rows.iter().position(|row| *row == Row::Bad);
    let failed = decoder(format, Some(columns), OnBad::Fail).decode(&chunk(&payloads), BatchTime(0));
    let place = first.map(|first| format!("topic \"readings\", partition 3, offset {}", 100 + first));
    let named = failed.err().map(|error| error.places().to_vec());
    assert_eq!(named.is_some(), place.is_some());
    assert!(named.unwrap_or_default().contains(&place.unwrap_or_default()) || first.is_none());
    counts
}

#[test]
fn a_hundred_thousand_hostile_records_of_csv_are_counted_and_kept_exactly() {
    let mut total = [0; 3];
    for seed in 0..thousands() {
        total.iter_mut().zip(compare(seed)).for_each(|(total, count)| *total += count);
    }
    assert_eq!(total.iter().sum::<u64>(), thousands() * 1_000);
    assert!(total[0] > 10_000 && total[1] > 10_000 && total[2] > 1_000, "{total:?}");
}

#[test]
fn a_hundred_thousand_hostile_texts_are_counted_and_kept_exactly() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..thousands() {
        let mut random = fastrand::Rng::with_seed(seed);
        let text = "plain é 日本 😀 ".repeat(8).into_bytes();
        let payloads: Vec<_> = (0..1_000)
            .map(|_| {
                let from = random.usize(..text.len());
                let mut payload = text[from..random.usize(from..text.len())].to_vec();
                let hurt = random.u8(..4) == 0 && !payload.is_empty();
                payload.iter_mut().take(usize::from(hurt)).for_each(|byte| *byte = random.u8(..));
                Some(payload)
            })
            .collect();
        let decoded =
            decoder(Format::Text, None, OnBad::Drop).decode(&chunk(&payloads), BatchTime(0)).unwrap();
        let valid = payloads.iter().flatten().filter_map(|payload| std::str::from_utf8(payload).ok());
        assert!(decoded.batch.column(0).as_string::<i32>().iter().flatten().eq(valid));
        let is_bad =
            |row: &usize| std::str::from_utf8(payloads[*row].as_deref().unwrap_or_default()).is_err();
        let bad_rows: Vec<usize> = (0..payloads.len()).filter(is_bad).collect();
        check_dead(|on_bad| decoder(Format::Text, None, on_bad), &payloads, &bad_rows);
        (good, bad) = (good + decoded.batch.num_rows(), bad + decoded.counts.bad);
    }
    assert_eq!(good as u64 + bad, thousands() * 1_000);
    assert!(good > 10_000 && bad > 10_000, "{good} {bad}");
}

/// The error of the one record, read as a: int64, b: string.
fn error(text: &str, dialect: &Dialect) -> String {
    let schema = Schema::new(vec![super::long("a"), Field::new("b", arrow::datatypes::DataType::Utf8, true)]);
    let mut decoder = decoder(Format::Csv(Arc::new(schema), dialect.clone()), None, OnBad::Fail);
    decoder.decode(&super::lines(&[text]), BatchTime(0)).unwrap_err().to_string()
}

#[test]
fn a_bad_record_of_csv_is_told_with_its_place() {
    for (text, expected) in [
        ("warm,x", "expected a whole number within int64 in column \"a\", found `warm,x`"),
        ("1", "expected a record of 2 fields (this has 1), found the end of the record"),
        ("1,x,y,z", "expected a record of 2 fields (this has 4), found `y,z`"),
        ("1,\"x", "expected the closing quote of a field, found the end of the record"),
        ("1,\"x\"y", "expected a delimiter or the end behind a closing quote, found `y`"),
        ("1,x\n2,y", "expected nothing behind the record's line, found `2,y`"),
        ("1,x\"y", "expected quotes around a field with a quote or carriage return, found `\"y`"),
    ] {
        let error = error(text, &Dialect::default());
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("topic \"readings\", partition 3, offset 100"), "{error}");
    }
    assert!(error("1,x,y,z", &Dialect::default()).contains("byte 4 of 7"));
    let named = &dialects()[2];
    assert!(error("a,b", named).contains("expected a record behind the line of names"));
    assert!(error("a,b,a\n1,x,2", named).contains("expected each column once in the line of names"));
}

#[test]
fn names_that_change_from_record_to_record_are_followed() {
    let schema = Schema::new(vec![super::long("a"), super::long("b")]);
    let mut by_name = decoder(Format::Csv(Arc::new(schema), dialects()[2].clone()), None, OnBad::Drop);
    let texts = ["a,b\n1,2", "a,b\n1,2", "b,x,a\n2,?,1", "a,a\n1,1", "b,a\n2,1\n", "a\n1"];
    let decoded = by_name.decode(&super::lines(&texts), BatchTime(0)).unwrap();
    let expected = [(1, Some(2)), (1, Some(2)), (1, Some(2)), (1, Some(2)), (1, None)];
    let expected: Vec<Vec<Cell>> =
        expected.into_iter().map(|(a, b)| vec![Cell::Int(a), b.map_or(Cell::Null, Cell::Int)]).collect();
    assert_eq!((cells(&decoded.batch), decoded.counts.bad), (expected, 1));
}
