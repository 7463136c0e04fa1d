//! Keys are the same in every version and on every machine, and keyed state survives being moved.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its assertions do")]
#![expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "few rows")]

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type, IntervalUnit, Schema, TimeUnit, i256};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill::error::ErrorKind;
use tidemill::state::group::KeyGroup;
use tidemill::state::key::{KeyEncoder, Keys};
use tidemill::state::snapshot::{merge, restore, snapshot, split};
use tidemill::state::table::KeyTable;
use tidemill::state::values::KeyDecoder;

fn rows(columns: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| Field::new(format!("c{index}"), column.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn keys(columns: Vec<ArrayRef>) -> Keys {
    let names: Vec<String> = (0..columns.len()).map(|index| format!("c{index}")).collect();
    let rows = rows(columns);
    KeyEncoder::new(&rows.schema(), &names).unwrap().encode(&rows).unwrap()
}

fn key(column: impl Array + 'static) -> (Vec<u8>, u64) {
    let keys = keys(vec![Arc::new(column)]);
    (keys.get(0).to_vec(), keys.hash(0))
}

/// The hashes come from another implementation of XXH3 over bytes written out by hand: a change here would orphan
/// the state of every stream that runs.
#[test]
fn bytes_and_hashes_of_single_keys_never_change() {
    assert_eq!(key(StringArray::from(vec!["pump-1"])), (b"pump-1".to_vec(), 0x3077_36e5_7993_044f));
    assert_eq!(key(StringArray::from(vec![""])), (vec![], 0x2d06_8005_38d3_94c2));
    assert_eq!(key(StringArray::from(vec![None::<&str>])), (vec![255], 0xd6bc_ec3c_6b29_d72e));
    assert_eq!(key(StringArray::from(vec!["a".repeat(300)])), (vec![b'a'; 300], 0xc1d1_7581_d8eb_7e21));
    assert_eq!(key(Int64Array::from(vec![-1])), (vec![255; 8], 0x5111_c7e4_7d78_4413));
    assert_eq!(key(Int64Array::from(vec![None])), (vec![255], 0xd6bc_ec3c_6b29_d72e));
    assert_eq!(
        key(UInt64Array::from(vec![u64::MAX])),
        ([vec![2], vec![255; 8]].concat(), 0x5195_7c45_5b8e_6c65)
    );
    let before_epoch = TimestampMillisecondArray::from(vec![-1_500]).with_timezone("Europe/Rome");
    assert_eq!(key(before_epoch).1, 0x1752_0504_2324_5ad0);
    assert_eq!(key(Date32Array::from(vec![-1])).1, 0x2bed_73b2_09ea_372e);
}

#[test]
fn bytes_and_hash_of_a_key_of_several_columns_never_change() {
    let keys = keys(vec![
        Arc::new(StringArray::from(vec!["pump-1"])),
        Arc::new(Int16Array::from(vec![42])),
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(Date32Array::from(vec![None])),
        Arc::new(Float32Array::from(vec![1.5])),
    ]);
    let mut expected = b"\x05\x06\0\0\0pump-1\x01\x2a\0\0\0\0\0\0\0\x03\x01\xff\x04".to_vec();
    expected.extend(1.5_f64.to_le_bytes());
    assert_eq!(keys.get(0), expected);
    assert_eq!(keys.hash(0), 0xcbbd_2fc8_ff82_ff8e);
}

#[test]
fn integers_are_alike_in_every_width() {
    let expected = key(Int64Array::from(vec![42]));
    assert_eq!(expected.1, 0xd5a6_f8c8_38df_27c8);
    let others = [
        key(Int8Array::from(vec![42])),
        key(Int16Array::from(vec![42])),
        key(Int32Array::from(vec![42])),
        key(UInt8Array::from(vec![42])),
        key(UInt16Array::from(vec![42])),
        key(UInt32Array::from(vec![42])),
        key(UInt64Array::from(vec![42])),
        key(UInt64Array::from(vec![42, u64::MAX])),
    ];
    assert!(others.iter().all(|other| *other == expected), "{others:?}");
}

#[test]
fn strings_are_alike_in_every_layout() {
    let expected = key(StringArray::from(vec!["a key of more than twelve bytes"]));
    let text = "a key of more than twelve bytes";
    assert_eq!(key(LargeStringArray::from(vec![text])), expected);
    assert_eq!(key(StringViewArray::from(vec![text])), expected);
    assert_eq!(key([text].into_iter().collect::<DictionaryArray<Int32Type>>()), expected);
}

#[test]
fn binary_values_are_alike_in_every_layout() {
    let expected = key(BinaryArray::from(vec![b"\xff\0".as_slice()]));
    assert_eq!(expected.0, b"\x06\x02\0\0\0\xff\0");
    assert_eq!(key(LargeBinaryArray::from(vec![b"\xff\0".as_slice()])), expected);
    assert_eq!(key(BinaryViewArray::from(vec![b"\xff\0".as_slice()])), expected);
    assert_eq!(key(FixedSizeBinaryArray::try_from_iter([b"\xff\0"].into_iter()).unwrap()), expected);
}

#[test]
fn instants_and_days_are_alike_in_every_unit() {
    let expected = key(TimestampSecondArray::from(vec![-2]));
    assert_eq!(key(TimestampMillisecondArray::from(vec![-2_000])), expected);
    assert_eq!(key(TimestampMicrosecondArray::from(vec![-2_000_000])), expected);
    assert_eq!(key(TimestampNanosecondArray::from(vec![-2_000_000_000])), expected);
    assert_eq!(key(Date64Array::from(vec![-1])), key(Date32Array::from(vec![-1])));
}

#[test]
fn floats_have_one_zero_and_one_nan() {
    assert_eq!(key(Float64Array::from(vec![-0.0])), key(Float64Array::from(vec![0.0])));
    assert_eq!(key(Float64Array::from(vec![-f64::NAN])), key(Float64Array::from(vec![f64::NAN])));
    assert_eq!(key(Float32Array::from(vec![0.5])), key(Float64Array::from(vec![0.5])));
    assert_ne!(key(Float64Array::from(vec![None])), key(Float64Array::from(vec![f64::NAN])));
}

#[test]
fn keys_go_with_their_rows() {
    let all = keys(vec![Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("d")]))]);
    let taken = all.take(&UInt32Array::from(vec![3, 1])).unwrap();
    assert_eq!((taken.get(0), taken.get(1)), (b"d".as_slice(), [255].as_slice()));
    assert_eq!(taken.hashes(), [all.hash(3), all.hash(1)]);
    let middle = all.slice(1, 2);
    assert_eq!((middle.len(), middle.get(1), middle.hash(0)), (2, b"".as_slice(), all.hash(1)));
}

#[test]
fn a_slice_of_an_integer_column_has_its_own_keys() {
    let column = Int64Array::from(vec![1, 2, 3]).slice(1, 2);
    let keys = keys(vec![Arc::new(column)]);
    assert_eq!(
        (keys.get(0), keys.slice(1, 1).get(0)),
        (2_i64.to_le_bytes().as_slice(), 3_i64.to_le_bytes().as_slice())
    );
}

#[test]
fn keys_of_several_batches_join_even_where_their_forms_differ() {
    let small = keys(vec![Arc::new(UInt64Array::from(vec![1, 2]))]);
    let large = keys(vec![Arc::new(UInt64Array::from(vec![Some(1), Some(u64::MAX), None]))]);
    let joined = Keys::concat(&[small.clone(), large.clone()]).unwrap();
    let expected: Vec<&[u8]> =
        [0, 1].map(|row| small.get(row)).into_iter().chain([0, 1, 2].map(|row| large.get(row))).collect();
    assert_eq!((0..5).map(|row| joined.get(row)).collect::<Vec<_>>(), expected);
    assert_eq!(joined.get(0), joined.get(2));
    assert_eq!(joined.hashes(), [small.hashes(), large.hashes()].concat());
    assert!(Keys::concat(&[]).unwrap().is_empty());
}

#[test]
fn a_wrong_key_column_is_named() {
    let schema = Schema::new(vec![
        Field::new("device", DataType::Utf8, true),
        Field::new("tags", DataType::new_list(map(), true), true),
        Field::new("every", DataType::Interval(IntervalUnit::MonthDayNano), true),
    ]);
    let text = |columns: &[&str]| KeyEncoder::new(&schema, columns).unwrap_err().to_string();
    assert!(text(&["devise"]).ends_with("found the columns device, tags, every; did you mean \"device\"?"));
    assert!(text(&["tags"]).starts_with(
        "the column \"tags\" of type list<map<string, int64>> cannot be a key: the entries of a map have no order"
    ));
    assert!(text(&["every"]).contains("cast it to a duration"));
    assert!(text(&[]).starts_with("a key has at least one column, found none"));
}

fn map() -> DataType {
    let entry = [("keys", DataType::Utf8), ("values", DataType::Int64)];
    let entry = entry.map(|(name, data_type)| Field::new(name, data_type, name == "values"));
    DataType::Map(Arc::new(Field::new_struct("entries", entry.to_vec(), false)), false)
}

#[test]
fn bytes_of_decimals_times_and_nested_keys_never_change() {
    let decimal = |unscaled: i128, scale| {
        key(Decimal128Array::from(vec![unscaled]).with_precision_and_scale(20, scale).unwrap()).0
    };
    assert_eq!(decimal(1_50, 2), [9, 1, 0, 1, 15]);
    assert_eq!(decimal(-1_280, 1), [9, 0, 0, 1, 128]);
    assert_eq!(decimal(128, 0), [9, 0, 0, 2, 128, 0]);
    assert_eq!(decimal(1_000, 0), [9, 0xfd, 0xff, 1, 1]);
    assert_eq!(decimal(0, 5), [9, 0, 0, 1, 0]);
    let noon = 43_200_000_000_000_i64.to_le_bytes();
    assert_eq!(key(Time32SecondArray::from(vec![43_200])).0, [[10].as_slice(), &noon].concat());
    let back = [[11].as_slice(), &(-2_i64).to_le_bytes(), &500_000_000_u32.to_le_bytes()].concat();
    assert_eq!(key(DurationMillisecondArray::from(vec![-1_500])).0, back);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
    assert_eq!(key(list).0, b"\x0c\x02\0\0\0\x01\x01\0\0\0\0\0\0\0\xff");
    let fields = [("a", Arc::new(BooleanArray::from(vec![true])) as ArrayRef, true)];
    assert_eq!(
        key(StructArray::from(RecordBatch::try_from_iter_with_nullable(fields).unwrap())).0,
        [13, 3, 1]
    );
    assert_eq!(key(NullArray::new(1)).0, [255]);
}

#[test]
fn decimals_are_alike_in_every_width_and_scale() {
    let expected = key(Decimal128Array::from(vec![-12_500]).with_precision_and_scale(10, 3).unwrap());
    let of = |array: ArrayRef| {
        let keys = keys(vec![array]);
        (keys.get(0).to_vec(), keys.hash(0))
    };
    assert_eq!(
        of(Arc::new(Decimal32Array::from(vec![-125]).with_precision_and_scale(5, 1).unwrap())),
        expected
    );
    assert_eq!(
        of(Arc::new(Decimal64Array::from(vec![-1_250]).with_precision_and_scale(9, 2).unwrap())),
        expected
    );
    let wide = Decimal256Array::from(vec![i256::from_i128(-125_000_000)]);
    assert_eq!(of(Arc::new(wide.with_precision_and_scale(60, 7).unwrap())), expected);
}

#[test]
fn times_durations_and_lists_are_alike_in_every_unit_and_layout() {
    let expected = key(Time32SecondArray::from(vec![59]));
    assert_eq!(key(Time32MillisecondArray::from(vec![59_000])), expected);
    assert_eq!(key(Time64MicrosecondArray::from(vec![59_000_000])), expected);
    assert_eq!(key(Time64NanosecondArray::from(vec![59_000_000_000])), expected);
    let expected = key(DurationSecondArray::from(vec![i64::MIN]));
    assert_ne!(key(DurationMillisecondArray::from(vec![i64::MIN])), expected);
    assert_eq!(
        key(DurationMillisecondArray::from(vec![-7_000])),
        key(DurationNanosecondArray::from(vec![-7_000_000_000]))
    );
    let lists = || [Some(vec![Some(5), None])];
    let expected = key(ListArray::from_iter_primitive::<Int32Type, _, _>(lists()));
    assert_eq!(key(LargeListArray::from_iter_primitive::<Int32Type, _, _>(lists())), expected);
    assert_eq!(key(FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(lists(), 2)), expected);
    assert_eq!(key(ListArray::from_iter_primitive::<Int8Type, _, _>([Some(vec![Some(5), None])])), expected);
}

/// A type of keys, of parts too.
fn any_type(random: &mut fastrand::Rng, depth: usize) -> DataType {
    let unit = random.choice([TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Nanosecond]).unwrap();
    let part = |random: &mut fastrand::Rng| any_type(random, depth - 1);
    match random.u8(..if depth == 0 { 13 } else { 17 }) {
        0 => DataType::Boolean,
        1 => random.choice([DataType::Int8, DataType::UInt64, DataType::Int64]).unwrap(),
        2 => random.choice([DataType::Float32, DataType::Float64]).unwrap(),
        3 => random.choice([DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View]).unwrap(),
        4 => random.choice([DataType::Binary, DataType::BinaryView, DataType::FixedSizeBinary(2)]).unwrap(),
        5 => random.choice([DataType::Date32, DataType::Date64]).unwrap(),
        6 => random
            .choice([DataType::Time32(TimeUnit::Second), DataType::Time64(TimeUnit::Microsecond)])
            .unwrap(),
        7 => DataType::Timestamp(unit, random.bool().then(|| "Europe/Rome".into())),
        8 => DataType::Duration(unit),
        9 => random.choice([DataType::Decimal32(5, 2), DataType::Decimal64(12, -1)]).unwrap(),
        10 => random.choice([DataType::Decimal128(30, 4), DataType::Decimal256(60, 30)]).unwrap(),
        11 => DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8)),
        12 => DataType::Null,
        13 => DataType::new_list(part(random), true),
        14 => DataType::new_large_list(part(random), true),
        15 => DataType::new_fixed_size_list(part(random), 2, true),
        _ => {
            let fields = [("a", part(random)), ("b", part(random))];
            DataType::Struct(
                fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec().into(),
            )
        }
    }
}

/// Few different values of a type, some of them null.
fn any_column(random: &mut fastrand::Rng, data_type: &DataType, rows: usize) -> ArrayRef {
    let nulls =
        |random: &mut fastrand::Rng| -> NullBuffer { (0..rows).map(|_| random.u8(..5) > 0).collect() };
    match data_type {
        DataType::Null => new_null_array(data_type, rows),
        DataType::List(item) | DataType::LargeList(item) => {
            let lengths: Vec<usize> = (0..rows).map(|_| random.usize(..3)).collect();
            let items = any_column(random, item.data_type(), lengths.iter().sum());
            let nulls = Some(nulls(random));
            match data_type {
                DataType::List(_) => {
                    Arc::new(ListArray::new(item.clone(), OffsetBuffer::from_lengths(lengths), items, nulls))
                }
                _ => Arc::new(LargeListArray::new(
                    item.clone(),
                    OffsetBuffer::from_lengths(lengths),
                    items,
                    nulls,
                )),
            }
        }
        DataType::FixedSizeList(item, size) => {
            let items = any_column(random, item.data_type(), rows * size.unsigned_abs() as usize);
            Arc::new(FixedSizeListArray::new(item.clone(), *size, items, Some(nulls(random))))
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| any_column(random, field.data_type(), rows)).collect();
            Arc::new(StructArray::new(fields.clone(), columns, Some(nulls(random))))
        }
        DataType::Float32 | DataType::Float64 => {
            let value = |random: &mut fastrand::Rng| random.choice([0.0, -0.0, f64::NAN, -f64::NAN, 1.5]);
            let values: Float64Array =
                (0..rows).map(|_| value(random).filter(|_| random.u8(..5) > 0)).collect();
            cast(&values, data_type).unwrap()
        }
        DataType::Boolean => {
            let value = |random: &mut fastrand::Rng| (random.u8(..5) > 0).then(|| random.bool());
            Arc::new((0..rows).map(|_| value(random)).collect::<BooleanArray>())
        }
        _ => {
            let value = |random: &mut fastrand::Rng| (random.u8(..5) > 0).then(|| random.i64(10..14));
            let numbers: ArrayRef = Arc::new((0..rows).map(|_| value(random)).collect::<Int64Array>());
            let steps = by_way_of(data_type).iter().chain([data_type]);
            steps.fold(numbers, |values, step| cast(&values, step).unwrap())
        }
    }
}

/// What integers are cast to first, on their way to a type.
fn by_way_of(data_type: &DataType) -> &'static [DataType] {
    match data_type {
        DataType::Date32 | DataType::Time32(_) => &[DataType::Int32],
        DataType::Date64 => &[DataType::Int32, DataType::Date32],
        DataType::Binary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            &[DataType::Utf8, DataType::Binary]
        }
        DataType::Dictionary(..) => &[DataType::Utf8],
        _ => &[],
    }
}

/// A value as it is written for people; of floats the one form that equal keys share.
fn shown(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::new().with_null("null");
    let shown = ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string();
    shown.replace("-0.0", "0.0")
}

#[test]
fn keys_of_any_types_are_told_apart_and_come_back_as_they_were() {
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..400 {
        let types: Vec<DataType> = (0..random.usize(1..4)).map(|_| any_type(&mut random, 2)).collect();
        let columns: Vec<ArrayRef> =
            types.iter().map(|kind| any_column(&mut random, kind, 60).slice(3, 50)).collect();
        let (fields, keys) = (rows(columns.clone()).schema().fields().to_vec(), keys(columns.clone()));
        let decoded = KeyDecoder::new(fields).decode((0..50).map(|row| keys.get(row))).unwrap();
        let mut seen = std::collections::HashMap::new();
        for row in 0..50 {
            let texts = |columns: &[ArrayRef]| -> Vec<String> {
                columns.iter().map(|column| shown(column, row)).collect()
            };
            let written = texts(&columns);
            assert_eq!(texts(&decoded), written, "round {round}: {types:?}");
            assert_eq!(
                seen.entry(written).or_insert(keys.get(row)),
                &keys.get(row),
                "round {round}: {types:?}"
            );
        }
        let different: std::collections::HashSet<_> = seen.values().collect();
        assert_eq!(different.len(), seen.len(), "round {round}: {types:?}");
        assert!(decoded.iter().zip(&types).all(|(column, kind)| column.data_type() == kind));
    }
}

type Tuple = (Option<String>, Option<i64>, Option<Vec<u8>>);

fn of_tuples(tuples: &[Tuple]) -> Keys {
    keys(vec![
        Arc::new(tuples.iter().map(|tuple| tuple.0.as_deref()).collect::<StringArray>()),
        Arc::new(tuples.iter().map(|tuple| tuple.1).collect::<Int64Array>()),
        Arc::new(tuples.iter().map(|tuple| tuple.2.as_deref()).collect::<BinaryArray>()),
    ])
}

/// Short values of few letters, tags among them: what an ambiguous encoding would mix up.
fn any_tuple(random: &mut fastrand::Rng) -> Tuple {
    let bytes = |random: &mut fastrand::Rng| -> Option<Vec<u8>> {
        let length = random.usize(..4);
        random.bool().then(|| (0..length).map(|_| random.choice([0, 1, 5, 6, 127]).unwrap()).collect())
    };
    let text = bytes(random).map(|bytes| String::from_utf8(bytes).unwrap());
    let number = random.bool().then(|| random.choice([0, 1, 5, 255, -1]).unwrap());
    (text, number, bytes(random).map(|bytes| bytes.iter().map(|byte| byte * 2 + 1).collect()))
}

#[test]
fn different_keys_have_different_bytes() {
    let mut random = fastrand::Rng::with_seed(2);
    let tuples: Vec<Tuple> = (0..3_000).map(|_| any_tuple(&mut random)).collect();
    let keys = of_tuples(&tuples);
    let mut seen = std::collections::HashMap::new();
    for (row, tuple) in tuples.iter().enumerate() {
        assert_eq!(seen.entry(keys.get(row)).or_insert(tuple), &tuple);
    }
    assert_eq!(seen.len(), tuples.iter().collect::<std::collections::HashSet<_>>().len());
}

#[test]
fn null_is_no_value_of_any_type() {
    let texts = StringArray::from(vec![None, Some(""), Some("\u{ff}"), Some("\0")]);
    let numbers = UInt64Array::from(vec![None, Some(0), Some(255), Some(u64::MAX)]);
    let bytes = BinaryArray::from(vec![None, Some(b"".as_slice()), Some(b"\xff"), Some(b"\0")]);
    for column in [Arc::new(texts) as ArrayRef, Arc::new(numbers), Arc::new(bytes)] {
        let keys = keys(vec![column]);
        assert!((1..4).all(|row| keys.get(row) != keys.get(0) && keys.hash(row) != keys.hash(0)));
    }
}

#[test]
fn a_table_numbers_keys_as_a_map_does() {
    let mut random = fastrand::Rng::with_seed(3);
    let (mut table, mut slots) = (KeyTable::default(), Vec::new());
    let mut model = std::collections::HashMap::new();
    for _ in 0..40 {
        let batch: Vec<i64> = (0..random.usize(..300)).map(|_| random.i64(..2_000)).collect();
        table.slots(&keys(vec![Arc::new(Int64Array::from(batch.clone()))]), &mut slots).unwrap();
        let number = |key| {
            let next = model.len() as u32;
            *model.entry(key).or_insert(next)
        };
        assert_eq!(slots, batch.into_iter().map(number).collect::<Vec<_>>());
    }
    assert_eq!(table.len(), model.len());
    assert!(model.into_iter().all(|(key, slot): (i64, u32)| table.key(slot) == Some(&key.to_le_bytes())));
}

/// A table of these keys, with the number of each key's first coming as its state.
fn state(names: &[&str]) -> (KeyTable, RecordBatch) {
    let (mut table, mut slots) = (KeyTable::default(), Vec::new());
    table.slots(&keys(vec![Arc::new(StringArray::from(names.to_vec()))]), &mut slots).unwrap();
    let lengths: Int64Array =
        (0..table.len()).map(|slot| table.key(slot as u32).unwrap().len() as i64).collect();
    let metadata = [("version".to_owned(), "1".to_owned())].into();
    let schema = Schema::new_with_metadata(vec![Field::new("length", DataType::Int64, false)], metadata);
    let states = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(lengths)]).unwrap();
    (table, states)
}

const NAMES: [&str; 6] = ["pump-1", "pump-22", "fan", "", "engine-room", "x"];

#[test]
fn the_same_state_gives_the_same_snapshot_whatever_came_first() {
    let (table, states) = state(&NAMES);
    let (other_table, other_states) =
        state(&["x", "x", "fan", "engine-room", "", "pump-22", "fan", "pump-1"]);
    let first = snapshot(&table, &states).unwrap();
    assert_eq!(first, snapshot(&other_table, &other_states).unwrap());
    let groups = first.column(0).as_primitive::<arrow::datatypes::UInt16Type>();
    assert!(groups.values().is_sorted());
}

#[test]
fn a_restored_table_finds_the_same_state() {
    let (table, states) = state(&NAMES);
    let saved = snapshot(&table, &states).unwrap();
    let (restored, restored_states) = restore(&saved).unwrap();
    assert_eq!(restored_states.schema(), states.schema());
    let lengths = restored_states.column(0).as_primitive::<arrow::datatypes::Int64Type>();
    for (slot, length) in lengths.values().iter().enumerate() {
        assert_eq!(restored.key(slot as u32).unwrap().len() as i64, *length);
    }
    assert_eq!(snapshot(&restored, &restored_states).unwrap(), saved);
}

#[test]
fn no_state_has_a_snapshot_too() {
    let (table, states) = state(&[]);
    let (restored, states) = restore(&snapshot(&table, &states).unwrap()).unwrap();
    assert!(restored.is_empty() && states.num_rows() == 0);
}

#[test]
fn a_snapshot_is_dealt_out_by_key_groups_and_put_together_again() {
    let names: Vec<String> = (0..500).map(|number| format!("device-{number}")).collect();
    let (table, states) = state(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let whole = snapshot(&table, &states).unwrap();
    let mut parts: Vec<RecordBatch> =
        (0..3).map(|shard| split(&whole, &KeyGroup::of_shard(shard, 3)).unwrap()).collect();
    assert!(parts.iter().all(|part| part.num_rows() > 100));
    assert!(parts.iter().all(|part| restore(part).is_ok()));
    parts.reverse();
    assert_eq!(merge(&parts).unwrap(), whole);
    assert!(merge(&[whole.clone(), parts[0].clone()]).unwrap_err().to_string().contains("overlap"));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let (table, states) = state(&NAMES);
    let good = snapshot(&table, &states).unwrap();
    let with = |index: usize, column: ArrayRef| {
        let mut columns = good.columns().to_vec();
        columns[index] = column;
        RecordBatch::try_new(good.schema(), columns).unwrap()
    };
    let reversed =
        arrow::compute::take_record_batch(&good, &UInt32Array::from(vec![5, 4, 3, 2, 1, 0])).unwrap();
    let doubled =
        arrow::compute::concat_batches(&good.schema(), [&good.slice(0, 1), &good.slice(0, 1)]).unwrap();
    let unversioned = good.clone().with_schema(Arc::new(Schema::new(good.schema().fields().clone())));
    let damaged = [
        with(0, Arc::new(UInt16Array::from(vec![0; 6]))),
        with(1, Arc::new(UInt64Array::from(vec![0; 6]))),
        with(2, Arc::new(BinaryArray::from(vec![b"pump-1".as_slice(); 6]))),
        reversed,
        doubled,
        good.project(&[1, 2, 3]).unwrap(),
    ];
    for snapshot in damaged {
        let error = restore(&snapshot).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
    }
    // Arrow refuses a schema without the metadata, or we do.
    assert!(unversioned.is_err() || restore(&unversioned.unwrap()).is_err());
}

#[test]
fn every_byte_of_a_table_is_counted() {
    let names: Vec<String> = (0..10_000).map(|number| format!("device-{number:05}")).collect();
    let (table, _) = state(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let least = 10_000 * (12 + 24 + 4);
    assert!((least..=3 * least).contains(&table.bytes()), "{} B", table.bytes());
}
