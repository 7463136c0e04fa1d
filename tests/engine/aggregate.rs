//! Aggregates: what they compute, that partials add up to the whole, and that a state is all that there is to keep.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, TimeUnit, UInt64Type};
use datafusion_common::ScalarValue;
use fastrand::Rng;
use tidemill::aggregate::{Accumulator, Aggregate, Scope, names};
use tidemill::error::{Error, ErrorKind};
use tidemill::expr::aggregate_names;

fn field(data_type: DataType) -> Field {
    Field::new("x", data_type, true)
}

fn aggregate(name: &str, types: &[DataType], literals: &[ScalarValue]) -> Aggregate {
    let fields: Vec<Field> = types.iter().cloned().map(field).collect();
    Aggregate::new(name, &fields, literals, false, Scope::Window)
        .unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

fn distinct(name: &str, data_type: DataType) -> Aggregate {
    Aggregate::new(name, &[field(data_type)], &[], true, Scope::Window).unwrap()
}

fn refused(name: &str, types: &[DataType], literals: &[ScalarValue]) -> Error {
    let fields: Vec<Field> = types.iter().cloned().map(field).collect();
    Aggregate::new(name, &fields, literals, false, Scope::Window).expect_err(name)
}

/// The result over all rows in one slot.
fn whole(aggregate: &Aggregate, columns: &[ArrayRef]) -> ArrayRef {
    let mut states = aggregate.accumulator().unwrap();
    states.grow(1);
    states.update(&vec![0; columns[0].len()], columns).unwrap();
    states.evaluate(&[0]).unwrap()
}

fn floats(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn ints(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn float(result: &ArrayRef) -> Option<f64> {
    result.as_primitive::<Float64Type>().iter().next().unwrap()
}

fn int(result: &ArrayRef) -> Option<i64> {
    result.as_primitive::<Int64Type>().iter().next().unwrap()
}

/// Random values of a type, some of them null.
fn column(random: &mut Rng, data_type: &DataType, rows: usize) -> ArrayRef {
    let none = |random: &mut Rng| random.u8(..8) == 0;
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let value = |random: &mut Rng| match random.u8(..40) {
                0 => f64::NAN,
                1 => -f64::NAN,
                2 => -0.0,
                _ => f64::from(random.i32(-1000..1000)) / 8.0,
            };
            let values: Float64Array = (0..rows).map(|_| (!none(random)).then(|| value(random))).collect();
            cast(&values, data_type).unwrap()
        }
        DataType::Boolean => {
            Arc::new((0..rows).map(|_| (!none(random)).then(|| random.bool())).collect::<BooleanArray>())
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::Utf8View => {
            let text = |random: &mut Rng| format!("text {}", random.u8(..30));
            let values: StringArray = (0..rows).map(|_| (!none(random)).then(|| text(random))).collect();
            cast(&values, data_type).unwrap()
        }
        DataType::Dictionary(_, values) => cast(&column(random, values, rows), data_type).unwrap(),
        DataType::List(_) => {
            let lists =
                (0..rows).map(|_| (!none(random)).then(|| vec![Some(random.i32(..9)); random.usize(..3)]));
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))
        }
        _ => {
            let values: Int64Array = (0..rows).map(|_| (!none(random)).then(|| random.i64(0..100))).collect();
            let time = matches!(data_type, DataType::Date32 | DataType::Time32(_));
            let values: ArrayRef = Arc::new(values);
            let values = if time { cast(&values, &DataType::Int32).unwrap() } else { values };
            cast(&values, data_type).unwrap()
        }
    }
}

fn every_type() -> Vec<DataType> {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut types = ordered_types();
    types.extend([dictionary, DataType::new_list(DataType::Int32, true)]);
    types
}

fn numeric_types() -> Vec<DataType> {
    vec![
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(10, 2),
        DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Float64)),
    ]
}

fn ordered_types() -> Vec<DataType> {
    let mut types = numeric_types();
    types.extend([
        DataType::Decimal256(50, 3),
        DataType::Decimal64(10, 1),
        DataType::Boolean,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::Date32,
        DataType::Date64,
        DataType::Time32(TimeUnit::Second),
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Millisecond, Some("Europe/Rome".into())),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Duration(TimeUnit::Millisecond),
    ]);
    types
}

/// Every aggregate with every type that it takes, and columns of arguments.
fn cases() -> Vec<(Aggregate, Vec<DataType>)> {
    let number = DataType::Float64;
    let mut cases: Vec<(Aggregate, Vec<DataType>)> = vec![(aggregate("count", &[], &[]), vec![])];
    let mut add = |name: &str, types: &[DataType], literals: &[ScalarValue]| {
        cases.push((aggregate(name, types, literals), types.to_vec()));
    };
    for data_type in numeric_types() {
        let names = ["sum", "mean", "var", "var_pop", "stddev", "stddev_pop", "median", "approx_median"];
        for name in names {
            add(name, std::slice::from_ref(&data_type), &[]);
        }
        add("approx_quantile", &[data_type], &[ScalarValue::from(0.9)]);
    }
    for data_type in [DataType::Duration(TimeUnit::Second), DataType::Timestamp(TimeUnit::Second, None)] {
        add("mean", &[data_type], &[]);
    }
    for data_type in ordered_types() {
        for name in ["min", "max", "approx_distinct"] {
            add(name, std::slice::from_ref(&data_type), &[]);
        }
        add("top_k", &[data_type], &[ScalarValue::from(3_i64)]);
    }
    for data_type in every_type() {
        let names = ["count", "first", "last", "collect", "any_value"];
        for name in names {
            add(name, std::slice::from_ref(&data_type), &[]);
        }
    }
    let pairs = ["corr", "covar", "covar_pop", "regr_slope", "regr_intercept", "regr_count", "regr_r2"];
    let more = ["regr_avgx", "regr_avgy", "regr_sxx", "regr_syy", "regr_sxy"];
    for name in pairs.iter().chain(&more) {
        add(name, &[number.clone(), number.clone()], &[]);
    }
    for name in ["bool_and", "bool_or"] {
        add(name, &[DataType::Boolean], &[]);
    }
    for name in ["bit_and", "bit_or", "bit_xor"] {
        add(name, &[DataType::Int32], &[]);
    }
    add("string_agg", &[DataType::Utf8], &[ScalarValue::from(", ")]);
    add("percentile_cont", &[DataType::Float64], &[ScalarValue::from(0.25)]);
    add(
        "approx_percentile_cont_with_weight",
        &[DataType::Float64, DataType::Float64],
        &[ScalarValue::from(0.5)],
    );
    for name in ["count", "sum", "mean", "var", "median", "collect", "bit_xor", "min"] {
        cases.push((distinct(name, DataType::Int32), vec![DataType::Int32]));
    }
    for name in ["count", "collect"] {
        cases.push((distinct(name, DataType::Utf8), vec![DataType::Utf8]));
    }
    let order = DataType::Timestamp(TimeUnit::Millisecond, None);
    for name in ["first", "last"] {
        for data_type in [DataType::Float64, DataType::Utf8] {
            let ordered = aggregate(name, std::slice::from_ref(&data_type), &[]).with_order();
            cases.push((ordered, vec![data_type, order.clone()]));
        }
    }
    cases
}

/// What is compared with a tolerance: floats that are sums, in which the places of brackets show.
fn is_close(left: &ArrayRef, right: &ArrayRef) -> bool {
    if left.data_type() != &DataType::Float64 || left.data_type() != right.data_type() {
        return left == right;
    }
    let pairs = left.as_primitive::<Float64Type>().iter().zip(right.as_primitive::<Float64Type>());
    pairs.into_iter().all(|pair| match pair {
        (Some(left), Some(right)) => {
            (left.is_nan() && right.is_nan())
                || (left - right).abs() <= 1e-12 * left.abs().max(right.abs()).max(1.0)
        }
        (left, right) => left.is_none() && right.is_none(),
    })
}

/// A sketch of partials is another sketch than that of the whole.
fn is_approximate(name: &str) -> bool {
    name.starts_with("approx") && name != "approx_distinct"
}

fn rows_of(columns: &[ArrayRef], from: usize, to: usize) -> Vec<ArrayRef> {
    columns.iter().map(|column| column.slice(from, to - from)).collect()
}

#[test]
fn partials_merged_in_order_equal_the_whole() {
    const ROWS: usize = 600;
    const SLOTS: u32 = 7;
    let mut random = Rng::with_seed(1);
    for (aggregate, types) in cases() {
        let name = format!("{} {types:?}", aggregate.name());
        let columns: Vec<ArrayRef> = types.iter().map(|kind| column(&mut random, kind, ROWS)).collect();
        let slots: Vec<u32> = (0..ROWS).map(|_| random.u32(..SLOTS - 1)).collect();
        let all: Vec<u32> = (0..SLOTS).collect();
        let mut whole = aggregate.accumulator().unwrap();
        whole.grow(SLOTS as usize);
        whole.update(&slots, &columns).unwrap();
        let mut merged = aggregate.accumulator().unwrap();
        merged.grow(SLOTS as usize);
        let mut from = 0;
        while from < ROWS {
            let to = (from + random.usize(1..200)).min(ROWS);
            let mut partial = aggregate.accumulator().unwrap();
            partial.grow(SLOTS as usize);
            let middle = random.usize(from..=to);
            partial.update(&slots[from..middle], &rows_of(&columns, from, middle)).unwrap();
            partial.update(&slots[middle..to], &rows_of(&columns, middle, to)).unwrap();
            merged.merge(&all, &partial.state(&all).unwrap()).unwrap();
            from = to;
        }
        let (whole, merged) = (whole.evaluate(&all).unwrap(), merged.evaluate(&all).unwrap());
        assert_eq!(whole.data_type(), aggregate.field().data_type(), "{name}");
        assert!(
            is_approximate(aggregate.name()) || is_close(&whole, &merged),
            "{name}\n{whole:?}\n{merged:?}"
        );
    }
}

#[test]
fn a_state_taken_out_and_merged_goes_on_with_the_same_bits() {
    let mut random = Rng::with_seed(2);
    for (aggregate, types) in cases() {
        let name = format!("{} {types:?}", aggregate.name());
        let all = [0, 1, 2, 3];
        let fresh = || {
            let mut states = aggregate.accumulator().unwrap();
            states.grow(4);
            states
        };
        let (mut steady, mut restored) = (fresh(), fresh());
        for _ in 0..6 {
            let rows = random.usize(1..80);
            let columns: Vec<ArrayRef> = types.iter().map(|kind| column(&mut random, kind, rows)).collect();
            let slots: Vec<u32> = (0..rows).map(|_| random.u32(..3)).collect();
            let mut next = fresh();
            next.merge(&all, &restored.state(&all).unwrap()).unwrap();
            restored = next;
            steady.update(&slots, &columns).unwrap();
            restored.update(&slots, &columns).unwrap();
            assert_eq!(steady.state(&all).unwrap(), restored.state(&all).unwrap(), "{name}");
        }
        assert_eq!(&steady.evaluate(&all).unwrap(), &restored.evaluate(&all).unwrap(), "{name}");
    }
}

#[test]
fn states_have_the_announced_types_and_slots_are_read_in_any_order() {
    let mut random = Rng::with_seed(3);
    for (aggregate, types) in cases() {
        let name = format!("{} {types:?}", aggregate.name());
        let columns: Vec<ArrayRef> = types.iter().map(|kind| column(&mut random, kind, 50)).collect();
        let mut states = aggregate.accumulator().unwrap();
        assert!(states.state(&[]).unwrap().iter().all(Array::is_empty), "{name}");
        states.grow(5);
        states.grow(2);
        let slots: Vec<u32> = (0..50).map(|_| random.u32(..3)).collect();
        states.update(&slots, &columns).unwrap();
        let order = [4, 1, 0, 1];
        let state = states.state(&order).unwrap();
        let fields = aggregate.state_fields();
        assert_eq!(state.len(), fields.len(), "{name}");
        for (column, field) in state.iter().zip(&fields) {
            assert_eq!(column.data_type(), field.data_type(), "{name}");
            assert!(field.is_nullable() || column.null_count() == 0, "{name}");
        }
        let results = states.evaluate(&[0, 1, 2, 3, 4]).unwrap();
        let some = states.evaluate(&order).unwrap();
        let picked = take(&results, &UInt32Array::from(order.to_vec()), None).unwrap();
        assert_eq!(&some, &picked, "{name}");
        assert!(aggregate.field().is_nullable() || results.null_count() == 0, "{name}");
        assert!(states.bytes() > 0, "{name}");
    }
}

#[test]
fn a_slot_comes_several_times_in_one_merge_in_order() {
    for (aggregate, types) in cases() {
        let name = format!("{} {types:?}", aggregate.name());
        let mut random = Rng::with_seed(4);
        let columns: Vec<ArrayRef> = types.iter().map(|kind| column(&mut random, kind, 60)).collect();
        let slots: Vec<u32> = (0..60).map(|row| row / 20).collect();
        let mut parts = aggregate.accumulator().unwrap();
        parts.grow(4);
        parts.update(&slots, &columns).unwrap();
        let merged = |calls: &[&[u32]]| {
            let mut states = aggregate.accumulator().unwrap();
            states.grow(1);
            for call in calls {
                states.merge(&vec![0; call.len()], &parts.state(call).unwrap()).unwrap();
            }
            states.evaluate(&[0]).unwrap()
        };
        let (at_once, one_by_one) = (merged(&[&[3, 0, 1, 2]]), merged(&[&[3], &[0], &[1], &[2]]));
        assert!(is_approximate(aggregate.name()) || is_close(&at_once, &one_by_one), "{name}");
    }
}

/// The plainest way to say it.
fn model(name: &str, values: &[Option<f64>]) -> Option<f64> {
    let some: Vec<f64> = values.iter().copied().flatten().collect();
    let count = some.len() as f64;
    let mean = some.iter().sum::<f64>() / count;
    let squares: f64 = some.iter().map(|value| (value - mean).powi(2)).sum();
    match name {
        "first" => values[0],
        "last" => *values.last().unwrap(),
        _ if some.is_empty() => None,
        "sum" => Some(some.iter().sum()),
        "mean" => Some(mean),
        "min" => some.iter().copied().reduce(f64::min),
        "max" => some.iter().copied().reduce(f64::max),
        "var_pop" => Some(squares / count),
        "stddev_pop" => Some((squares / count).sqrt()),
        _ if some.len() < 2 => None,
        "var" => Some(squares / (count - 1.0)),
        "stddev" => Some((squares / (count - 1.0)).sqrt()),
        _ => panic!("no model of {name}"),
    }
}

#[test]
fn the_common_functions_equal_their_plain_definition() {
    let mut random = Rng::with_seed(5);
    let names = ["sum", "mean", "min", "max", "var", "var_pop", "stddev", "stddev_pop", "first", "last"];
    for name in names {
        for rows in [1, 2, 3, 10, 1000] {
            let value = |random: &mut Rng| (random.u8(..4) > 0).then(|| 1e3 + random.f64());
            let values: Vec<Option<f64>> = (0..rows).map(|_| value(&mut random)).collect();
            let found = whole(&aggregate(name, &[DataType::Float64], &[]), &[floats(&values)]);
            let expected = floats(&[model(name, &values)]);
            let close = match (float(&found), float(&expected)) {
                (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
                (found, expected) => found == expected,
            };
            assert!(close, "{name} of {rows}: {found:?}, expected {expected:?}");
        }
    }
}

#[test]
fn an_empty_group_counts_zero_and_is_null_otherwise() {
    for (aggregate, types) in cases() {
        let mut states = aggregate.accumulator().unwrap();
        states.grow(1);
        let result = states.evaluate(&[0]).unwrap();
        match aggregate.name() {
            "count" => assert_eq!(int(&result), Some(0)),
            "approx_distinct" | "regr_count" => assert_eq!(result.as_primitive::<UInt64Type>().value(0), 0),
            name => assert!(result.is_null(0), "{name} {types:?}: {result:?}"),
        }
    }
}

fn decimals(values: &[Option<i128>], precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
}

/// The result over one column in one slot.
fn over(name: &str, column: &ArrayRef) -> ArrayRef {
    whole(&aggregate(name, &[column.data_type().clone()], &[]), &[Arc::clone(column)])
}

#[test]
fn the_mean_of_integers_and_decimals_is_exact_and_rounded_once() {
    const BIG: i64 = 1 << 62;
    let cancelling = ints(&[Some(BIG), Some(-BIG), None, Some(1)]);
    assert_eq!(float(&over("mean", &cancelling)), Some(1.0 / 3.0));
    let odd = ints(&[Some((1 << 53) + 1), Some((1 << 53) + 1), Some((1 << 53) + 2)]);
    assert_eq!(float(&over("mean", &odd)), Some(((1_i64 << 53) + 2) as f64), "(2^53 + 1) and a third");
    let largest: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX; 3]));
    assert_eq!(float(&over("mean", &largest)), Some(u64::MAX as f64));
    let ten = 10_i128.pow(37);
    let cancelling = decimals(&[Some(ten), Some(-ten), Some(1)], 38, 10);
    assert_eq!(float(&over("mean", &cancelling)), Some(1.0 / 3e10));
    assert_eq!(float(&over("mean", &decimals(&[Some(1), Some(2)], 5, 1))), Some(0.15));
    assert_eq!(float(&over("mean", &decimals(&[Some(1), Some(2)], 5, -2))), Some(150.0));
    assert_eq!(float(&over("mean", &decimals(&[Some(0)], 38, 30))), Some(0.0));
}

#[test]
fn a_mean_of_partials_that_cancel_each_other_is_exact() {
    let mean = aggregate("mean", &[DataType::Int64], &[]);
    let partials = ints(&[Some(1 << 62), Some(1 - (1 << 62)), Some(1)]);
    let (mut parts, mut merged) = (mean.accumulator().unwrap(), mean.accumulator().unwrap());
    parts.grow(3);
    parts.update(&[0, 1, 2], &[partials]).unwrap();
    merged.grow(1);
    merged.merge(&[0, 0, 0], &parts.state(&[0, 1, 2]).unwrap()).unwrap();
    assert_eq!(float(&merged.evaluate(&[0]).unwrap()), Some(2.0 / 3.0));
}

#[test]
fn a_mean_of_decimals_whose_sum_is_out_of_reach_is_a_data_error() {
    let most = Some(10_i128.pow(38) - 1);
    let column = decimals(&[most, most], 38, 0);
    let mut states = aggregate("mean", &[column.data_type().clone()], &[]).accumulator().unwrap();
    states.grow(1);
    let error = states.update(&[0, 0], &[column]).unwrap_err();
    assert!(error.is_data() && error.to_string().contains("cast the column to float64"), "{error:?}");
}

#[test]
fn the_mean_of_times_is_a_time_rounded_towards_the_epoch() {
    let durations: ArrayRef = Arc::new(DurationMillisecondArray::from(vec![Some(-1), None, Some(-2)]));
    let expected: ArrayRef = Arc::new(DurationMillisecondArray::from(vec![-1]));
    assert_eq!(&over("mean", &durations), &expected);
    let latest: ArrayRef =
        Arc::new(TimestampNanosecondArray::from(vec![i64::MAX, i64::MAX]).with_timezone("Europe/Rome"));
    assert_eq!(&over("mean", &latest), &latest.slice(0, 1));
    for data_type in [DataType::Date32, DataType::Time64(TimeUnit::Microsecond)] {
        let error = refused("mean", &[data_type], &[]).to_string();
        assert!(error.contains("durations or timestamps") && error.contains("cast it first"), "{error}");
    }
    assert!(refused("mean", &[DataType::Decimal256(50, 1)], &[]).to_string().contains("at most 38 digits"));
}

#[test]
fn the_median_of_decimals_keeps_the_half_between_two() {
    let column = decimals(&[Some(100), Some(101), None], 10, 2);
    assert_eq!(&over("median", &column), &decimals(&[Some(1005)], 11, 3));
    let distinct = whole(&distinct("median", column.data_type().clone()), &[Arc::clone(&column)]);
    assert_eq!(&distinct, &decimals(&[Some(1005)], 11, 3));
    let most = 10_i128.pow(38) - 1;
    let widest = over("median", &decimals(&[Some(most), Some(most - 1)], 38, 0));
    assert_eq!(widest.data_type(), &DataType::Decimal256(39, 1));
    let exact = "99999999999999999999999999999999999998.5";
    assert_eq!(arrow::util::display::array_value_to_string(&widest, 0).unwrap(), exact);
    let error = refused("median", &[DataType::Decimal256(76, 0)], &[]);
    assert_eq!(error.kind(), ErrorKind::Schema);
    let error = error.to_string();
    assert!(error.contains("median(decimal(76, 0))") && error.contains("fewer digits"), "{error}");
}

#[test]
fn variance_survives_a_large_mean() {
    let values: Vec<Option<f64>> = (0..1000).map(|row| Some(1e9 + f64::from(row % 2))).collect();
    let found = float(&whole(&aggregate("var_pop", &[DataType::Float64], &[]), &[floats(&values)])).unwrap();
    assert!((found - 0.25).abs() < 1e-6, "{found}");
}

#[test]
fn nan_is_larger_than_all_numbers_whatever_its_sign() {
    let values = floats(&[Some(1.0), Some(-f64::NAN), Some(f64::INFINITY), Some(-1.0)]);
    let of = |name: &str| whole(&aggregate(name, &[DataType::Float64], &[]), &[Arc::clone(&values)]);
    assert_eq!(float(&of("min")), Some(-1.0));
    assert!(float(&of("max")).unwrap().is_nan());
    let top =
        whole(&aggregate("top_k", &[DataType::Float64], &[ScalarValue::from(2_i64)]), &[Arc::clone(&values)]);
    let top = top.as_list::<i32>().value(0);
    let top = top.as_primitive::<Float64Type>().values();
    assert!(top[0].is_nan());
    assert_eq!(top[1].to_bits(), f64::INFINITY.to_bits());
    let only = floats(&[Some(-f64::NAN)]);
    assert!(float(&whole(&aggregate("min", &[DataType::Float64], &[]), &[only])).unwrap().is_nan());
}

#[test]
fn integers_sum_to_the_widest_of_their_kind() {
    let kinds = [
        (DataType::Int8, DataType::Int64),
        (DataType::UInt16, DataType::UInt64),
        (DataType::Float32, DataType::Float64),
        (DataType::Decimal128(10, 2), DataType::Decimal128(20, 2)),
        (DataType::Duration(TimeUnit::Second), DataType::Duration(TimeUnit::Second)),
    ];
    for (from, to) in kinds {
        assert_eq!(aggregate("sum", &[from], &[]).field().data_type(), &to);
    }
}

#[test]
fn a_sum_that_overflows_is_a_data_error_that_says_what_to_do() {
    let columns: [ArrayRef; 3] = [
        ints(&[Some(i64::MAX), Some(1)]),
        Arc::new(UInt64Array::from(vec![u64::MAX, 1])),
        Arc::new(
            Decimal128Array::from(vec![10_i128.pow(38) - 1, 1]).with_precision_and_scale(38, 0).unwrap(),
        ),
    ];
    for column in columns {
        let sum = aggregate("sum", &[column.data_type().clone()], &[]);
        let mut states = sum.accumulator().unwrap();
        states.grow(1);
        let error = states.update(&[0, 0], &[column]).and_then(|()| states.evaluate(&[0])).unwrap_err();
        assert!(error.is_data(), "{error:?}");
        assert!(error.to_string().contains("cast the column to float64"), "{error}");
    }
}

#[test]
fn merged_sums_overflow_where_their_sum_does_and_not_on_the_way() {
    let sum = aggregate("sum", &[DataType::Int64], &[]);
    let part = |values: &[Option<i64>]| {
        let mut states = sum.accumulator().unwrap();
        states.grow(1);
        states.update(&vec![0; values.len()], &[ints(values)]).unwrap();
        states.state(&[0]).unwrap()
    };
    let mut states = sum.accumulator().unwrap();
    states.grow(1);
    states.merge(&[0], &part(&[Some(i64::MIN), Some(-1)])).unwrap();
    let error = states.evaluate(&[0]).unwrap_err();
    assert!(error.is_data(), "{error:?}");
    states.merge(&[0], &part(&[Some(1)])).unwrap();
    assert_eq!(states.evaluate(&[0]).unwrap().as_primitive::<Int64Type>().value(0), i64::MIN);
}

#[test]
fn first_and_last_keep_nulls_and_go_by_arrival() {
    let values = ints(&[None, Some(1), Some(2), None]);
    let of = |name: &str, values: &ArrayRef| {
        int(&whole(&aggregate(name, &[DataType::Int64], &[]), &[Arc::clone(values)]))
    };
    assert_eq!(of("first", &values), None);
    assert_eq!(of("last", &values), None);
    assert_eq!(of("first_value", &values.slice(1, 2)), Some(1));
    assert_eq!(of("last_value", &values.slice(0, 3)), Some(2));
}

#[test]
fn first_and_last_by_order_take_ties_by_arrival_and_no_row_without_order() {
    let values: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e"]));
    let order: ArrayRef =
        Arc::new(TimestampMillisecondArray::from(vec![Some(5), Some(3), Some(3), Some(5), None]));
    for (name, expected) in [("first", "b"), ("last", "d")] {
        let ordered = aggregate(name, &[DataType::Utf8], &[]).with_order();
        assert!(ordered.takes_order() && ordered.is_ordered());
        let found = whole(&ordered, &[Arc::clone(&values), Arc::clone(&order)]);
        assert_eq!(found.as_string::<i32>().value(0), expected, "{name}");
        let backwards =
            |array: &ArrayRef| take(array, &UInt32Array::from(vec![4, 3, 2, 1, 0]), None).unwrap();
        let expected = if name == "first" { "c" } else { "a" };
        let found = whole(&ordered, &[backwards(&values), backwards(&order)]);
        assert_eq!(found.as_string::<i32>().value(0), expected, "{name} backwards");
    }
    assert!(!aggregate("sum", &[DataType::Int64], &[]).with_order().takes_order());
}

#[test]
fn order_holds_across_partials_in_any_order_of_merging() {
    let last = aggregate("last", &[DataType::Int64], &[]).with_order();
    let partial = |value: i64, order: i64| {
        let mut states = last.accumulator().unwrap();
        states.grow(1);
        states.update(&[0], &[ints(&[Some(value)]), ints(&[Some(order)])]).unwrap();
        states.state(&[0]).unwrap()
    };
    let mut states = last.accumulator().unwrap();
    states.grow(1);
    states.merge(&[0], &partial(7, 100)).unwrap();
    states.merge(&[0], &partial(8, 50)).unwrap();
    assert_eq!(int(&states.evaluate(&[0]).unwrap()), Some(7));
}

#[test]
fn top_k_gives_the_largest_descending_and_collect_gives_all_in_order() {
    let values = ints(&[Some(3), None, Some(9), Some(1), Some(9)]);
    let list = |result: ArrayRef| result.as_list::<i32>().value(0);
    let top = aggregate("top_k", &[DataType::Int64], &[ScalarValue::from(3_i64)]);
    assert_eq!(&list(whole(&top, &[Arc::clone(&values)])), &ints(&[Some(9), Some(9), Some(3)]));
    let all = aggregate("collect", &[DataType::Int64], &[]);
    assert_eq!(&list(whole(&all, &[Arc::clone(&values)])), &values);
    let once = distinct("array_agg", DataType::Int64);
    assert_eq!(&list(whole(&once, &[values])), &ints(&[Some(3), None, Some(9), Some(1)]));
}

#[test]
fn top_k_is_what_sorting_gives_for_any_k_in_any_order_of_values() {
    let mut random = Rng::with_seed(5);
    for k in [1_u32, 2, 3, 10, 1_000] {
        let top = aggregate("top_k", &[DataType::Int64], &[ScalarValue::from(i64::from(k))]);
        for order in ["random", "up", "down", "equal"] {
            let mut values: Vec<i64> = (0..3_000).map(|_| random.i64(-500..500)).collect();
            values.extend([i64::MIN, i64::MAX, i64::MIN]);
            match order {
                "up" => values.sort_unstable(),
                "down" => values.sort_unstable_by(|a, b| b.cmp(a)),
                "equal" => values.fill(i64::MIN),
                _ => {}
            }
            let found = whole(&top, &[ints(&values.iter().copied().map(Some).collect::<Vec<_>>())]);
            values.sort_unstable_by(|a, b| b.cmp(a));
            let expected = ints(&values.into_iter().take(k as usize).map(Some).collect::<Vec<_>>());
            assert_eq!(&found.as_list::<i32>().value(0), &expected, "{k} {order}");
        }
    }
}

/// The part of `values` that lies below `found`, ties counted by half.
fn rank(values: &[f64], found: f64) -> f64 {
    let part = |is: fn(&f64, &f64) -> bool| values.iter().filter(|value| is(value, &found)).count() as f64;
    f64::midpoint(part(|value, found| value < found), part(|value, found| value <= found))
        / values.len() as f64
}

#[test]
fn quantiles_are_near_the_truth_whatever_the_order_and_the_partials() {
    let mut random = Rng::with_seed(6);
    let shapes: [fn(f64) -> f64; 3] = [|u| u, |u| -(1.0 - u).ln(), |u| (1.0 / (1.0 - u)).powi(2)];
    for (shape, rows, merges) in shapes.into_iter().flat_map(|shape| [(shape, 3_000, 1), (shape, 60_000, 40)])
    {
        let mut values: Vec<f64> = (0..rows).map(|_| shape(random.f64())).collect();
        if rows > 10_000 {
            values.sort_by(f64::total_cmp); // the hardest order: each partial sees a stretch of its own
        }
        for q in [0.001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999] {
            let quantile = aggregate("approx_quantile", &[DataType::Float64], &[ScalarValue::from(q)]);
            let mut merged = quantile.accumulator().unwrap();
            merged.grow(1);
            for part in values.chunks(rows / merges) {
                let mut partial = quantile.accumulator().unwrap();
                partial.grow(1);
                let column = floats(&part.iter().copied().map(Some).collect::<Vec<_>>());
                partial.update(&vec![0; part.len()], &[column]).unwrap();
                merged.merge(&[0], &partial.state(&[0]).unwrap()).unwrap();
            }
            let off = (rank(&values, float(&merged.evaluate(&[0]).unwrap()).unwrap()) - q).abs();
            // A t-digest is the more exact the nearer it is to either end.
            assert!(off < 0.04 * (q * (1.0 - q)).sqrt().max(0.02), "{q} of {rows}: {off}");
        }
    }
}

#[test]
fn quantiles_of_few_values_do_not_depend_on_their_order_or_partials() {
    let mut random = Rng::with_seed(7);
    let quantile = aggregate("approx_quantile", &[DataType::Float64], &[ScalarValue::from(0.75)]);
    let mut values: Vec<Option<f64>> = (0..200).map(|_| Some(random.f64())).collect();
    let expected = whole(&quantile, &[floats(&values)]);
    for _ in 0..20 {
        random.shuffle(&mut values);
        let mut merged = quantile.accumulator().unwrap();
        merged.grow(1);
        for part in values.chunks(random.usize(1..200)) {
            let mut partial = quantile.accumulator().unwrap();
            partial.grow(1);
            partial.update(&vec![0; part.len()], &[floats(part)]).unwrap();
            merged.merge(&[0], &partial.state(&[0]).unwrap()).unwrap();
        }
        assert_eq!(&merged.evaluate(&[0]).unwrap(), &expected);
    }
}

#[test]
fn nan_is_the_largest_of_a_quantile_and_spoils_no_other_nor_does_an_infinity() {
    let values: Vec<Option<f64>> =
        (0..1_000).map(|n| Some(if n < 100 { f64::NAN } else { f64::from(n) })).collect();
    let of = |q: f64| {
        let quantile = aggregate("approx_quantile", &[DataType::Float64], &[ScalarValue::from(q)]);
        float(&whole(&quantile, &[floats(&values)])).unwrap()
    };
    assert!((of(0.45) - 550.0).abs() < 10.0, "{}", of(0.45));
    assert!((of(0.899) - 999.0).abs() < 3.0, "{}", of(0.899));
    assert!(of(0.95).is_nan() && of(1.0).is_nan());
    let only = aggregate("approx_median", &[DataType::Float64], &[]);
    assert!(float(&whole(&only, &[floats(&[Some(-f64::NAN)])])).unwrap().is_nan());
    assert_eq!(float(&whole(&only, &[floats(&[None])])), None);
    let endless = [1.0, 2.0, 3.0, f64::INFINITY, f64::INFINITY].map(Some);
    assert_eq!(float(&whole(&only, &[floats(&endless)])), Some(3.0));
}

#[test]
fn distinct_counts_equal_values_once() {
    let values = ints(&[Some(3), None, Some(3), Some(4), None]);
    assert_eq!(int(&whole(&distinct("count", DataType::Int64), &[Arc::clone(&values)])), Some(2));
    assert_eq!(int(&whole(&distinct("sum", DataType::Int64), &[Arc::clone(&values)])), Some(7));
    assert_eq!(int(&whole(&distinct("max", DataType::Int64), &[values])), Some(4));
}

#[test]
fn sketches_are_near_the_truth() {
    let values = floats(&(0..10_000).map(|value| Some(f64::from(value * 7919 % 10_000))).collect::<Vec<_>>());
    let quantile = aggregate("approx_quantile", &[DataType::Float64], &[ScalarValue::from(0.99)]);
    let found = float(&whole(&quantile, &[Arc::clone(&values)])).unwrap();
    assert!((found - 9_900.0).abs() < 30.0, "{found}");
    let count = whole(&aggregate("approx_distinct", &[DataType::Float64], &[]), &[Arc::clone(&values)]);
    let count = count.as_primitive::<UInt64Type>().value(0);
    assert!(count.abs_diff(10_000) < 300, "{count}");
    let median = whole(&aggregate("median", &[DataType::Float64], &[]), &[values]);
    assert_eq!(float(&median), Some(4_999.5));
}

/// Numbers that are all different, `rows` of them.
fn different(rows: u64) -> Vec<u64> {
    (0..rows).map(|row| row.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

fn distinct_states(parts: &[&[u64]]) -> Box<dyn Accumulator> {
    let approx = aggregate("approx_distinct", &[DataType::UInt64], &[]);
    let mut merged = approx.accumulator().unwrap();
    merged.grow(1);
    for part in parts {
        let mut partial = approx.accumulator().unwrap();
        partial.grow(1);
        partial.update(&vec![0; part.len()], &[Arc::new(UInt64Array::from(part.to_vec()))]).unwrap();
        merged.merge(&[0], &partial.state(&[0]).unwrap()).unwrap();
    }
    merged
}

fn distinct_of(states: &dyn Accumulator) -> u64 {
    states.evaluate(&[0]).unwrap().as_primitive::<UInt64Type>().value(0)
}

#[test]
fn few_different_values_are_counted_exactly_and_many_within_three_standard_errors() {
    for rows in [0, 1, 100, 256] {
        let twice = [different(rows), different(rows)].concat();
        assert_eq!(distinct_of(distinct_states(&[&twice]).as_ref()), rows);
    }
    for rows in [257, 1_000, 5_000, 20_000, 100_000, 2_000_000] {
        let found = distinct_of(distinct_states(&[&different(rows)]).as_ref());
        let off = found.abs_diff(rows) as f64 / rows as f64;
        assert!(off < 3.0 * 1.04 / 128.0, "{rows}: {found}");
    }
}

#[test]
fn what_is_known_of_different_values_depends_on_neither_order_nor_partials() {
    let mut random = Rng::with_seed(8);
    for rows in [10, 256, 257, 1_000, 30_000] {
        let mut values = different(rows);
        let expected = distinct_states(&[&values]).state(&[0]).unwrap();
        for _ in 0..5 {
            random.shuffle(&mut values);
            let parts: Vec<&[u64]> = values.chunks(random.usize(1..=values.len())).collect();
            assert_eq!(distinct_states(&parts).state(&[0]).unwrap(), expected, "{rows}");
        }
    }
}

#[test]
fn few_different_values_of_many_groups_take_few_bytes() {
    const GROUPS: u32 = 10_000;
    let mut states = aggregate("approx_distinct", &[DataType::UInt64], &[]).accumulator().unwrap();
    states.grow(GROUPS as usize);
    for value in 0..5 {
        let slots: Vec<u32> = (0..GROUPS).collect();
        states.update(&slots, &[Arc::new(UInt64Array::from(vec![value; GROUPS as usize]))]).unwrap();
    }
    assert!(states.bytes() < 200 * GROUPS as usize, "{} bytes a group", states.bytes() / GROUPS as usize);
}

#[test]
fn floats_are_counted_as_distinct_whatever_their_sign_and_nan_once() {
    let values =
        floats(&[Some(-1.5), Some(-2.5), Some(1.5), Some(f64::NAN), Some(-f64::NAN), None, Some(1.5)]);
    let count = whole(&aggregate("approx_distinct", &[DataType::Float64], &[]), &[Arc::clone(&values)]);
    assert_eq!(count.as_primitive::<UInt64Type>().value(0), 4);
    assert_eq!(int(&whole(&distinct("count", DataType::Float64), &[values])), Some(4));
}

#[test]
fn quantiles_of_integers_are_floats() {
    let quantile = aggregate("approx_quantile", &[DataType::Int32], &[ScalarValue::from(0.5)]);
    assert_eq!(quantile.field().data_type(), &DataType::Float64);
}

#[test]
fn many_updates_keep_the_rows_that_are_replaced_few() {
    for (name, literals) in
        [("max", vec![]), ("top_k", vec![ScalarValue::from(2_i64)]), ("any_value", vec![])]
    {
        let aggregate = aggregate(name, &[DataType::Utf8], &literals);
        let mut states = aggregate.accumulator().unwrap();
        states.grow(100);
        let slots: Vec<u32> = (0..100).collect();
        let mut bytes = Vec::new();
        for round in 0..200 {
            let values: ArrayRef =
                Arc::new(StringArray::from_iter_values((0..100).map(|_| format!("{round:05}"))));
            states.update(&slots, &[values]).unwrap();
            bytes.push(states.bytes());
        }
        let (early, late) = (bytes[..20].iter().max(), bytes[100..].iter().max());
        let late = *late.unwrap() as f64;
        assert!(late < 3.0 * *early.unwrap() as f64 + 4096.0 * 100.0, "{name}: {early:?} {late}");
    }
}

#[test]
fn what_is_wrong_is_told_before_any_row() {
    let error = refused("sun", &[DataType::Int64], &[]);
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("did you mean sum?"), "{error}");
    let error = refused("sum", &[DataType::Utf8], &[]);
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("sum takes one column of numbers"), "{error}");
    assert!(error.to_string().contains("found sum(string)"), "{error}");
    let error = refused("MEAN", &[DataType::Boolean], &[]);
    assert!(error.to_string().contains("mean takes one column of numbers"), "{error}");
    assert!(error.to_string().contains(".cast(\"int64\")"), "{error}");
    assert!(
        refused("max", &[DataType::new_list(DataType::Int8, true)], &[]).to_string().contains("list<int8>")
    );
    assert!(
        refused("top_k", &[DataType::Int8], &[ScalarValue::from(0_i64)]).to_string().contains("at least 1")
    );
    assert!(refused("corr", &[DataType::Utf8], &[]).is_config());
    let error = refused("approx_quantile", &[DataType::Float64], &[ScalarValue::from(1.5)]);
    assert!(error.to_string().contains("and a constant from 0 to 1"), "{error}");
}

#[test]
fn what_a_window_cannot_keep_works_within_a_batch() {
    let literals = [ScalarValue::from(2_i64)];
    let error = refused("nth_value", &[DataType::Int64], &literals);
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("within a batch only") && error.to_string().contains("approx_quantile"),
        "{error}"
    );
    let second =
        Aggregate::new("nth_value", &[field(DataType::Int64)], &literals, false, Scope::Batch).unwrap();
    assert_eq!(int(&whole(&second, &[ints(&[Some(5), Some(6), Some(7)])])), Some(6));
}

#[test]
fn slots_that_were_never_made_and_rows_without_slots_are_refused() {
    for (aggregate, types) in cases() {
        let name = format!("{} {types:?}", aggregate.name());
        let columns: Vec<ArrayRef> = types.iter().map(|kind| new_null_array(kind, 1)).collect();
        let mut states = aggregate.accumulator().unwrap();
        states.grow(1);
        let error = states.update(&[1], &columns).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{name}");
        assert_eq!(states.evaluate(&[1]).unwrap_err().kind(), ErrorKind::Internal, "{name}");
        assert_eq!(states.state(&[1]).unwrap_err().kind(), ErrorKind::Internal, "{name}");
        if !columns.is_empty() {
            assert_eq!(states.update(&[0, 0], &columns).unwrap_err().kind(), ErrorKind::Internal, "{name}");
        }
    }
}

#[test]
fn expressions_and_aggregates_know_the_same_names() {
    assert_eq!(names(), aggregate_names());
}

#[test]
fn every_aggregate_of_the_library_is_offered_or_left_out_on_purpose() {
    let offered: BTreeSet<&str> = names().into_iter().collect();
    for function in datafusion_functions_aggregate::all_default_aggregate_functions() {
        let left_out = function.name() == "grouping";
        assert_ne!(offered.contains(function.name()), left_out, "{}", function.name());
        for alias in function.aliases() {
            assert!(offered.contains(alias.as_str()), "{alias}");
        }
    }
}

#[test]
fn chunks_of_one_array_count_what_they_hold() {
    let all = aggregate("collect", &[DataType::Int64], &[]);
    let mut states: Box<dyn Accumulator> = all.accumulator().unwrap();
    states.grow(1);
    let mut parts: Vec<ArrayRef> = Vec::new();
    for start in 0..50_i64 {
        parts.push(ints(&(start * 10..start * 10 + 10).map(Some).collect::<Vec<_>>()));
        states.update(&[0; 10], &parts[parts.len() - 1..]).unwrap();
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    assert_eq!(&states.evaluate(&[0]).unwrap().as_list::<i32>().value(0), &concat(&parts).unwrap());
    assert!(states.bytes() < 500 * 8 * 4, "{}", states.bytes());
}

#[test]
fn a_variance_beyond_float64_is_infinite_or_unknown_and_never_below_zero() {
    for name in ["var", "var_pop", "stddev", "stddev_pop"] {
        let aggregate = aggregate(name, &[DataType::Float64], &[]);
        let apart = float(&whole(&aggregate, &[floats(&[Some(1e200), Some(-1e200)])])).unwrap();
        assert!(apart.is_infinite() && apart > 0.0, "{name}: {apart}");
        let beyond = float(&whole(&aggregate, &[floats(&[Some(1.7e308), Some(-1.7e308)])])).unwrap();
        assert!(beyond.is_nan(), "{name}: {beyond}");
    }
}

#[test]
fn pairs_merged_into_none_keep_their_bits() {
    let covariance = aggregate("covar", &[DataType::Float64, DataType::Float64], &[]);
    let mut partial = covariance.accumulator().unwrap();
    partial.grow(1);
    let (x, y) = (floats(&[Some(1.0), Some(2.0)]), floats(&[Some(-3.0), Some(-3.0)]));
    partial.update(&[0, 0], &[x, y]).unwrap();
    let state = partial.state(&[0]).unwrap();
    let mut merged = covariance.accumulator().unwrap();
    merged.grow(1);
    merged.merge(&[0], &state).unwrap();
    for (merged, partial) in merged.state(&[0]).unwrap().iter().zip(&state) {
        assert_eq!(merged.to_data().buffers()[0].as_slice(), partial.to_data().buffers()[0].as_slice());
    }
}

#[test]
fn the_quantile_of_few_values_is_that_of_numpy() {
    let values = |values: &[f64]| floats(&values.iter().copied().map(Some).collect::<Vec<_>>());
    for (part, list, expected) in [
        (0.5, &[-1546.0, 14.4, 695.0, 1085.7][..], 354.7),
        (0.5, &[-962.0, 169.5, 288.0, 1120.0], 228.75),
        (0.25, &[3.0, 1.0, 2.0], 1.5),
        (0.9, &[5.0], 5.0),
        (1.0, &[1.0, f64::INFINITY], f64::INFINITY),
        (0.5, &[f64::INFINITY, f64::INFINITY], f64::INFINITY),
        (0.5, &[-1.7e308, 1.7e308], 0.0),
        (0.5, &[1.0, 2.0, f64::NAN], 2.0),
    ] {
        let quantile =
            aggregate("approx_quantile", &[DataType::Float64], &[ScalarValue::Float64(Some(part))]);
        let found = float(&whole(&quantile, &[values(list)])).unwrap();
        assert!(
            (found - expected).abs() < 1e-12 || found.to_bits() == expected.to_bits(),
            "{list:?}: {found}"
        );
    }
}
