//! Expressions: what they mean, which mistakes they report, and what a batch that they fail on says.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, DurationMicrosecondArray, DurationMillisecondArray,
    Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampSecondArray, UInt8Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use datafusion_common::ScalarValue;
use tidemill::error::{Error, ErrorKind};
use tidemill::expr::{
    Bound, Expression, Split, aggregate_column, aggregate_names, function_info, function_names, split_all,
};
use tidemill::time::BatchTime;

/// 2026-01-02T03:04:05Z
const NOW: BatchTime = BatchTime(1_767_323_045_000);

fn batch() -> RecordBatch {
    let zone = "Europe/Rome";
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(vec![Some(7), Some(-7), None]))),
        ("n", Arc::new(Int64Array::from(vec![2, 2, 2]))),
        ("small", Arc::new(Int32Array::from(vec![1, 2, 3]))),
        ("byte", Arc::new(UInt8Array::from(vec![1, 2, 255]))),
        ("t", Arc::new(Float64Array::from(vec![Some(80.5), Some(79.0), None]))),
        ("f", Arc::new(Float32Array::from(vec![80.1, 80.5, 81.0]))),
        ("s", Arc::new(StringArray::from(vec![Some("ok"), Some("Bad"), None]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![1_767_225_600_000, 1_767_225_600_001, 0]))),
        (
            "rome",
            Arc::new(TimestampMillisecondArray::from(vec![1_767_225_600_000, 0, 0]).with_timezone(zone)),
        ),
        ("Temp", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("a.b", Arc::new(Int64Array::from(vec![4, 5, 6]))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn bound(expression: &Expression) -> Bound {
    expression.bind(&batch().schema()).unwrap_or_else(|errors| panic!("{expression}: {errors:?}"))
}

fn value(expression: &Expression) -> ArrayRef {
    bound(expression).evaluate(&batch(), NOW).unwrap_or_else(|error| panic!("{expression}: {error:?}"))
}

/// The value of every row as text; null as a dash.
fn shown(expression: &Expression) -> Vec<String> {
    values_shown(&value(expression))
}

fn values_shown(value: &ArrayRef) -> Vec<String> {
    let options = arrow::util::display::FormatOptions::default().with_null("-");
    let formatter = arrow::util::display::ArrayFormatter::try_new(value, &options).unwrap();
    (0..value.len()).map(|row| formatter.value(row).to_string()).collect()
}

fn sql(text: &str) -> Vec<String> {
    shown(&Expression::sql(text))
}

fn mistakes(expression: &Expression) -> Vec<Error> {
    expression.bind(&batch().schema()).expect_err(&expression.to_string())
}

fn only_mistake(expression: &Expression) -> Error {
    let mistakes = mistakes(expression);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    mistakes[0].clone()
}

fn failure(expression: &Expression) -> Error {
    bound(expression).evaluate(&batch(), NOW).expect_err(&expression.to_string())
}

fn col(name: &str) -> Expression {
    Expression::col(name)
}

fn lit(value: i64) -> Expression {
    Expression::lit(value)
}

#[test]
fn comparisons_and_logic_follow_three_valued_logic() {
    assert_eq!(sql("t > 80"), ["true", "false", "-"]);
    assert_eq!(sql("t > 80 OR flag"), ["true", "false", "-"]);
    assert_eq!(sql("flag AND NULL"), ["-", "false", "-"]);
    assert_eq!(sql("NOT flag"), ["false", "true", "-"]);
    assert_eq!(sql("t IS NULL"), ["false", "false", "true"]);
    assert_eq!(sql("s IS NOT NULL AND s <> 'ok'"), ["false", "true", "false"]);
    assert_eq!(sql("i BETWEEN 0 AND 7"), ["true", "false", "-"]);
    assert_eq!(sql("s IN ('ok', 'good')"), ["true", "false", "-"]);
    assert_eq!(shown(&col("i").is_in(vec![lit(7), lit(8)])), ["true", "false", "-"]);
    assert_eq!(shown(&(col("t").gt(lit(80)) | col("i").lt(lit(0)))), ["true", "true", "-"]);
}

#[test]
fn literals_take_the_type_of_the_column_beside_them() {
    assert_eq!(sql("i > 6.5"), ["true", "false", "-"]);
    assert_eq!(sql("small >= 2"), ["false", "true", "true"]);
    assert_eq!(sql("f = 80.1"), ["true", "false", "false"], "80.1 means the nearest float32");
    assert_eq!(sql("f > 80.5"), ["false", "false", "true"]);
    assert_eq!(sql("i = '7'"), ["true", "false", "-"]);
    assert_eq!(value(&Expression::sql("f * 1.8")).data_type(), &DataType::Float32);
}

#[test]
fn times_compare_with_iso_text_which_is_utc_without_a_zone() {
    assert_eq!(sql("ts = '2026-01-01'"), ["true", "false", "false"]);
    assert_eq!(sql("ts > '2026-01-01T00:00:00'"), ["false", "true", "false"]);
    assert_eq!(sql("ts > '2026-01-01T01:00:00+01:00'"), ["false", "true", "false"]);
    assert_eq!(sql("rome = '2026-01-01T00:00:00'"), ["true", "false", "false"]);
    assert_eq!(
        sql("ts >= '2026-01-01T00:00:00.0005'"),
        ["false", "true", "false"],
        "no rounding to the column's unit"
    );
    assert_eq!(sql("'2025-12-31T23:59:59.9995' < ts"), ["true", "true", "false"]);
    assert_eq!(
        sql("ts BETWEEN '2026-01-01T00:00:00.0005' AND '2026-01-01T00:00:00.0015'"),
        ["false", "true", "false"]
    );
    let never = only_mistake(&Expression::sql("ts = '2026-01-01T00:00:00.0005'"));
    assert!(never.to_string().contains("expected a timestamp[ms]"), "{never}");
    assert_eq!(sql("'2026-01-01' <= ts"), ["true", "true", "false"]);
    assert_eq!(sql("ts BETWEEN '1970-01-01' AND '2026-01-01'"), ["true", "false", "true"]);
    assert_eq!(sql("ts IN ('2026-01-01')"), ["true", "false", "false"]);
    assert_eq!(sql("ts < '9999-12-31'"), ["true", "true", "true"], "beyond what nanoseconds can hold");
    let error = only_mistake(&Expression::sql("ts > 'yesterday'"));
    assert!(error.to_string().contains("expected a timestamp[ms], found 'yesterday'"), "{error}");
}

#[test]
fn times_are_computed_with() {
    assert_eq!(value(&Expression::sql("ts - ts")).data_type(), &DataType::Duration(TimeUnit::Millisecond));
    assert_eq!(sql("ts + INTERVAL '1 day' > '2026-01-02'"), ["false", "true", "false"]);
    let hour = Expression::lit(datafusion_common::ScalarValue::DurationMicrosecond(Some(3_600_000_000)));
    assert_eq!(
        shown(&(col("ts") + hour.clone()).gt(Expression::lit("2026-01-01T01:00:00"))),
        ["false", "true", "false"]
    );
    assert_eq!(shown(&(col("ts") - col("ts")).lt(hour)), ["true", "true", "true"]);
    assert_eq!(sql("date_part('year', ts)"), ["2026", "2026", "1970"]);
    assert_eq!(sql("EXTRACT(hour FROM ts)"), ["0", "0", "0"]);
    assert_eq!(sql("date_part('hour', rome)"), ["1", "1", "1"]);
}

#[test]
fn slash_is_true_division_and_floor_division_rounds_down() {
    assert_eq!(sql("i / n"), ["3.5", "-3.5", "-"]);
    assert_eq!(sql("i / 0"), ["inf", "-inf", "-"]);
    assert_eq!(shown(&col("i").floor_divide(col("n"))), ["3", "-4", "-"]);
    assert_eq!(shown(&col("i").modulo(col("n"))), ["1", "1", "-"]);
    assert_eq!(shown(&col("i").modulo(lit(-2))), ["-1", "-1", "-"]);
    assert_eq!(sql("i % n"), ["1", "1", "-"], "one sign, one meaning");
    assert_eq!(Expression::sql("(i + 1) % n * 2").to_string(), "(i + 1) % n * 2");
    assert_eq!(sql("CAST(i AS decimal(10, 1)) % 2.5"), ["2.0", "0.5", "-"]);
    assert_eq!(sql("i % -2.5"), ["-0.5", "-2.0", "-"]);
    assert_eq!(shown(&col("t").floor_divide(lit(2))), ["40.0", "39.0", "-"]);
    assert_eq!(shown(&(-col("t")).modulo(lit(2))), ["1.5", "1.0", "-"]);
    assert_eq!(shown(&col("i").power(lit(2))), ["49.0", "49.0", "-"]);
    assert_eq!(value(&col("small").floor_divide(lit(2))).data_type(), &DataType::Int64);
}

#[test]
fn a_sign_that_means_two_things_is_refused() {
    let error = only_mistake(&Expression::sql("n ^ 2 > 3"));
    assert!(error.is_config() && error.to_string().contains("write power(x, y)"), "{error}");
    assert_eq!(sql("power(n, 3)"), ["8.0", "8.0", "8.0"]);
}

#[test]
fn functions_of_floats_answer_as_ieee_754_says_and_never_fail() {
    for (text, expected) in [
        ("sqrt(i)", ["2.6457513110645907", "NaN", "-"]),
        ("sqrt(-1.0)", ["NaN"; 3]),
        ("sqrt(-f)", ["NaN"; 3]),
        ("power(n - 2, -1)", ["inf"; 3]),
        ("pow(i, 0.5)", ["2.6457513110645907", "NaN", "-"]),
        ("power(t, 1e6)", ["inf", "inf", "-"]),
        ("ln(i)", ["1.9459101490553132", "NaN", "-"]),
        ("log10(n - 2)", ["-inf"; 3]),
        ("log2(-n)", ["NaN"; 3]),
        ("log(-2, n)", ["NaN"; 3]),
        ("log(n - 2)", ["-inf"; 3]),
        ("log(CAST(-n AS decimal(10, 2)))", ["NaN"; 3]),
        ("acos(n)", ["NaN"; 3]),
        ("asin(-n)", ["NaN"; 3]),
        ("acosh(n - 2)", ["NaN"; 3]),
        ("atanh(n)", ["NaN"; 3]),
        ("atanh(n - 1)", ["inf"; 3]),
        ("cot(n - 2)", ["inf"; 3]),
        ("exp(t * 100)", ["inf", "inf", "-"]),
        ("cbrt(-8 * small)", ["-2.0", "-2.5198420997897464", "-2.8844991406148166"]),
        ("tan(CAST('inf' AS float64))", ["NaN"; 3]),
        ("signum(CAST('nan' AS float64))", ["NaN"; 3]),
        ("round(CAST('inf' AS float64), 2)", ["inf"; 3]),
        ("floor(CAST('nan' AS float64))", ["NaN"; 3]),
        ("trunc(CAST('-inf' AS float64), 3)", ["-inf"; 3]),
    ] {
        assert_eq!(sql(text), expected, "{text}");
    }
    assert_eq!(value(&Expression::sql("sqrt(f)")).data_type(), &DataType::Float32);
    assert!(function_info("sqrt").unwrap().description.contains("square root"));
    assert!(function_names().iter().any(|name| name == "pow"));
}

#[test]
fn functions_of_integers_fail_with_a_data_error_where_they_have_no_answer() {
    for text in [
        "factorial(i)",
        "factorial(n + 19)",
        "gcd(i - i - 9223372036854775807 - 1, 0)",
        "lcm(i + 9223372036854775000, 9223372036854775783)",
        "abs(i - i - 9223372036854775807 - 1)",
        "chr(i)",
    ] {
        let error = failure(&Expression::sql(text));
        assert!(error.is_data(), "{text}: {error:?}");
        assert!(error.to_string().contains(&Expression::sql(text).to_string()), "{error}");
    }
}

#[test]
fn parsers_have_a_form_that_gives_null() {
    assert_eq!(sql("try_to_timestamp_micros(s)"), ["-"; 3]);
    assert_eq!(sql("try_to_date(s, '%d.%m.%Y')"), ["-"; 3]);
    let mixed = "CASE WHEN i = 7 THEN '2026-11-21T10:00:00Z' ELSE s END";
    assert_eq!(sql(&format!("try_to_timestamp_micros({mixed})")), ["2026-11-21T10:00:00", "-", "-"]);
    assert_eq!(sql(&format!("try_to_date({mixed})")), ["2026-11-21", "-", "-"]);
    assert_eq!(sql("try_to_timestamp('31.12.2026', '%d.%m.%Y')"), ["2026-12-31T00:00:00"; 3]);
    let strict = failure(&Expression::sql("to_timestamp_micros(s)"));
    assert!(strict.is_data() && strict.to_string().contains("strict=False"), "{strict}");
    let strict = failure(&Expression::sql("to_date(s, '%d.%m.%Y')"));
    assert!(strict.is_data() && strict.to_string().contains("strict=False"), "{strict}");
}

#[test]
fn bad_text_among_much_good_is_found_by_halves() {
    let texts: Vec<Option<String>> = (0..10_000_i32)
        .map(|row| match row % 1_000 {
            13 => Some("yesterday".to_owned()),
            14 => None,
            _ => Some(format!("2026-11-21T10:00:{:02}Z", row % 60)),
        })
        .collect();
    let rows: ArrayRef = Arc::new(StringArray::from(texts.clone()));
    let batch = RecordBatch::try_from_iter([("s", rows)]).unwrap();
    let parsed = Expression::sql("try_to_timestamp_micros(s)").bind(&batch.schema()).unwrap();
    let parsed = parsed.evaluate(&batch, NOW).unwrap();
    let parsed = parsed.as_primitive::<TimestampMicrosecondType>();
    for ((row, text), seconds) in texts.iter().enumerate().zip((0..60).cycle()) {
        let good = text.as_ref().is_some_and(|text| text != "yesterday");
        let expected = good.then_some(1_795_255_200_000_000 + seconds * 1_000_000);
        assert_eq!(parsed.is_valid(row).then(|| parsed.value(row)), expected, "{row}");
    }
}

/// Moments and lengths of time, in units that differ.
fn moments() -> RecordBatch {
    let columns: [(&str, ArrayRef); 7] = [
        ("d", Arc::new(Date32Array::from(vec![Some(0), Some(20_000), None]))),
        ("ms", Arc::new(TimestampMillisecondArray::from(vec![1_500, 0, -1]))),
        ("us", Arc::new(TimestampMicrosecondArray::from(vec![500_001, 0, -1]))),
        ("utc", Arc::new(TimestampMillisecondArray::from(vec![1_500, 0, 0]).with_timezone("UTC"))),
        ("rome", Arc::new(TimestampSecondArray::from(vec![1, 0, 0]).with_timezone("Europe/Rome"))),
        ("long", Arc::new(DurationMillisecondArray::from(vec![1_500, 36 * 3_600_000, -1]))),
        ("fine", Arc::new(DurationMicrosecondArray::from(vec![1, 2_000, 0]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn duration(milliseconds: i64) -> Expression {
    Expression::lit(ScalarValue::DurationMicrosecond(Some(milliseconds * 1_000)))
}

#[test]
fn moments_and_lengths_of_time_are_computed_as_polars_does() {
    let (batch, day) = (moments(), 86_400_000);
    let unit = |unit| DataType::Timestamp(unit, None);
    for (expression, data_type, expected) in [
        (col("d") + duration(day), DataType::Date32, ["1970-01-02", "2024-10-05", "-"]),
        (col("d") - duration(day / 2), DataType::Date32, ["1969-12-31", "2024-10-03", "-"]),
        (duration(day * 3 / 2) + col("d"), DataType::Date32, ["1970-01-02", "2024-10-05", "-"]),
        (col("d") + col("long"), DataType::Date32, ["1970-01-01", "2024-10-05", "-"]),
        (col("d") - col("d"), DataType::Duration(TimeUnit::Millisecond), ["0", "0", "-"]),
        (
            col("ms") + duration(500),
            unit(TimeUnit::Millisecond),
            ["1970-01-01T00:00:02", "1970-01-01T00:00:00.500", "1970-01-01T00:00:00.499"],
        ),
        (
            col("ms") - col("fine"),
            unit(TimeUnit::Microsecond),
            ["1970-01-01T00:00:01.499999", "1969-12-31T23:59:59.998", "1969-12-31T23:59:59.999"],
        ),
        (
            Expression::lit(ScalarValue::DurationMicrosecond(Some(1))) + col("ms"),
            unit(TimeUnit::Microsecond),
            ["1970-01-01T00:00:01.500001", "1970-01-01T00:00:00.000001", "1969-12-31T23:59:59.999001"],
        ),
        (col("ms") - col("us"), DataType::Duration(TimeUnit::Microsecond), ["999999", "0", "-999"]),
        (col("utc") - col("ms"), DataType::Duration(TimeUnit::Millisecond), ["0", "0", "1"]),
        (col("utc") - col("rome"), DataType::Duration(TimeUnit::Millisecond), ["500", "0", "0"]),
        (col("ms") - col("d"), DataType::Duration(TimeUnit::Millisecond), ["1500", "-1728000000000", "-"]),
        (
            col("long") + col("fine"),
            DataType::Duration(TimeUnit::Microsecond),
            ["1500001", "129600002000", "-1000"],
        ),
        (col("long") / duration(1_000), DataType::Float64, ["1.5", "129600.0", "-0.001"]),
        ((col("ms") - col("utc")).gt(duration(-1)), DataType::Boolean, ["true", "true", "false"]),
        (col("long").gt(col("fine")), DataType::Boolean, ["true", "true", "false"]),
    ] {
        let bound =
            expression.bind(&batch.schema()).unwrap_or_else(|found| panic!("{expression}: {found:?}"));
        let found = bound.evaluate(&batch, NOW).unwrap();
        assert_eq!((found.data_type(), bound.field().data_type()), (&data_type, &data_type), "{expression}");
        let is_length = matches!(found.data_type(), DataType::Duration(_));
        let found = if is_length { cast(&found, &DataType::Int64).unwrap() } else { found };
        assert_eq!(values_shown(&found), expected, "{expression}");
    }
}

#[test]
fn what_has_no_meaning_for_moments_is_refused_with_what_has() {
    for expression in [
        col("ms") + col("ms"),
        col("d") + col("ms"),
        col("ms") * duration(1),
        duration(1) - col("ms"),
        col("d") / col("d"),
    ] {
        let found = expression.bind(&moments().schema()).unwrap_err();
        assert_eq!(found.len(), 1, "{expression}");
        assert!(
            found[0].to_string().contains("the difference of two moments is a length of time"),
            "{}",
            found[0]
        );
    }
    let far =
        RecordBatch::try_from_iter([("d", Arc::new(Date32Array::from(vec![i32::MAX])) as ArrayRef)]).unwrap();
    let later = (col("d") + duration(86_400_000)).bind(&far.schema()).unwrap();
    assert!(later.evaluate(&far, NOW).unwrap_err().is_data());
}

#[test]
fn integer_overflow_and_division_by_zero_are_data_errors() {
    let failing = [
        (col("i") + lit(i64::MAX), "overflows"),
        (col("i") * lit(i64::MAX), "overflows"),
        (-(col("i").coalesce(vec![lit(0)]) + lit(i64::MIN + 7)), "overflows"),
        (col("i").floor_divide(lit(0)), "divides an integer by zero"),
        (col("i").modulo(lit(0)), "divides an integer by zero"),
        (Expression::sql("i % 0"), "divides an integer by zero"),
    ];
    for (expression, expected) in failing {
        let error = failure(&expression);
        assert!(error.is_data(), "{error:?}");
        assert!(error.to_string().contains(&expression.to_string()), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = only_mistake(&(lit(i64::MAX) + lit(1)));
    assert!(error.is_config() && error.to_string().contains("overflows"), "{error}");
}

#[test]
fn negation_keeps_small_integers_and_reaches_below_unsigned_ones() {
    assert_eq!(shown(&-col("small")), ["-1", "-2", "-3"]);
    assert_eq!(shown(&-col("byte")), ["-1", "-2", "-255"]);
    assert_eq!(shown(&-col("t")), ["-80.5", "-79.0", "-"]);
    assert_eq!(value(&-col("small")).data_type(), &DataType::Int32);
    assert_eq!(sql("-1 + i"), ["6", "-8", "-"]);
}

#[test]
fn casts_fail_the_batch_and_try_casts_give_null() {
    assert_eq!(shown(&col("s").try_cast(DataType::Int64)), ["-", "-", "-"]);
    assert_eq!(shown(&col("i").cast(DataType::Utf8)), ["7", "-7", "-"]);
    let error = failure(&col("s").cast(DataType::Int64));
    assert!(error.is_data(), "{error:?}");
    assert!(
        error.to_string().contains("CAST(s AS int64)") && error.to_string().contains("strict=False"),
        "{error}"
    );
    assert_eq!(value(&Expression::sql("CAST(i AS float32)")).data_type(), &DataType::Float32);
    assert_eq!(
        value(&Expression::sql("small::int8")).data_type(),
        &DataType::Int8,
        "Arrow's int8, of 8 bits"
    );
    assert_eq!(value(&Expression::sql("CAST(small AS BIGINT)")).data_type(), &DataType::Int64);
    let error = only_mistake(&col("flag").cast(DataType::Date32));
    assert!(error.to_string().contains("bool cannot be cast to date32"), "{error}");
}

#[test]
fn the_value_of_a_branch_is_computed_only_where_it_is_taken() {
    let zero = col("small").equal(lit(2));
    let divisor = Expression::when(vec![(zero.clone(), lit(0))], Some(lit(1)));
    let guarded = Expression::when(vec![(zero, lit(-1))], Some(col("n").floor_divide(divisor)));
    assert_eq!(shown(&guarded), ["2", "-1", "2"]);
    assert_eq!(sql("CASE WHEN t > 80 THEN 'hot' WHEN t IS NULL THEN 'none' END"), ["hot", "-", "none"]);
    assert_eq!(shown(&col("t").fill_null(lit(0))), ["80.5", "79.0", "0.0"]);
    assert_eq!(sql("coalesce(s, 'none')"), ["ok", "Bad", "none"]);
}

#[test]
fn column_names_keep_their_case() {
    assert_eq!(sql("Temp + 1"), ["2", "3", "4"]);
    assert_eq!(sql("\"a.b\" + 1"), ["5", "6", "7"]);
    assert_eq!(shown(&(col("a.b") + lit(1))), ["5", "6", "7"]);
    let error = only_mistake(&Expression::sql("temp > 1"));
    assert!(error.to_string().contains("did you mean \"Temp\"?"), "{error}");
    let error = only_mistake(&Expression::sql("a.b > 1"));
    assert!(error.to_string().contains("double quotes, \"a.b\";"), "{error}");
}

#[test]
fn all_mistakes_of_one_expression_come_at_once_and_none_twice() {
    let expression = (col("temprature").gt(lit(1)) & (col("s") + lit(1)).gt(lit(2)))
        | Expression::function("lowr", vec![col("s")])
        | Expression::function("lower", vec![col("s"), col("s")]).equal(Expression::lit("x"));
    let mistakes = mistakes(&expression);
    let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 4, "{said:#?}");
    assert!(said[0].contains("there is no function lowr; did you mean lower?"), "{said:#?}");
    assert!(said[1].contains("there is no column \"temprature\"; the columns are i, n"), "{said:#?}");
    assert!(said[2].contains("+ does not take string and int64 in s + 1"), "{said:#?}");
    assert!(said[3].contains("lower takes 1 arguments, found 2; it is called as lower(str)"), "{said:#?}");
    assert_eq!(mistakes[1].kind(), ErrorKind::Schema);
    assert_eq!(mistakes[0].kind(), ErrorKind::Config);
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let wrong = [
        ("i > 'abc'", "expected a int64, found 'abc' in i > 'abc'"),
        ("s > 5", "string and int64 cannot be compared in s > 5"),
        ("flag = 1", "bool and int64 cannot be compared"),
        ("i AND flag", "expected bool, found i of type int64"),
        ("NOT s", "expected bool, found s of type string"),
        ("flag + 1", "+ does not take bool and int64"),
        ("s * 2", "* does not take string and int64"),
        ("ts + 1", "+ does not take timestamp[ms] and int64"),
        ("ts + ts", "+ does not take timestamp[ms] and timestamp[ms]"),
        ("-s", "expected a number, found s of type string"),
        ("coalesce(i, 'x')", "expected values of one type, found int64 and string"),
        ("CASE WHEN flag THEN 1 ELSE 'x' END", "expected values of one type, found int64 and string"),
        ("CASE WHEN i THEN 1 END", "expected bool, found i of type int64"),
        ("i LIKE 'a%'", "expected string, found i of type int64"),
        ("i IN (1, 'x')", "expected a int64, found 'x'"),
        ("i BETWEEN 1 AND 'x'", "expected a int64, found 'x'"),
        ("abs(s)", "abs does not take (string) in abs(s)"),
        ("date_trunc('hour')", "date_trunc takes 2 arguments, found 1"),
        ("sqrt()", "sqrt takes 1 arguments, found 0"),
    ];
    for (text, expected) in wrong {
        let error = only_mistake(&Expression::sql(text));
        assert!(error.is_config(), "{text}: {error:?}");
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert!(!error.to_string().contains("DataFusion"), "{text}: {error}");
    }
}

#[test]
fn sql_that_is_no_scalar_expression_is_refused() {
    let wrong = [
        ("t >", "expected an SQL expression, found \"t >\""),
        ("", "expected an SQL expression"),
        ("t > 1; DROP TABLE x", "expected an SQL expression"),
        ("sum(t) > 5", "found sum(t), which needs many rows"),
        ("t > (SELECT max(t) FROM batch)", "a subquery"),
        ("i IN (SELECT 1)", "a subquery"),
        ("EXISTS (SELECT 1)", "a subquery"),
        ("row_number() OVER (ORDER BY t) = 1", "an expression sees one row"),
        ("t > $1", "placeholder $1"),
        ("random() > 0.5", "always gives the same for the same row"),
    ];
    for (text, expected) in wrong {
        let errors = mistakes(&Expression::sql(text));
        assert!(errors.iter().any(|error| error.to_string().contains(expected)), "{text}: {errors:?}");
        assert!(errors.iter().all(Error::is_config), "{text}: {errors:?}");
    }
    let two = mistakes(&Expression::sql("lowr(s) = 'x' AND uper(s) = 'x'"));
    assert_eq!(two.len(), 2, "{two:?}");
}

#[test]
fn functions_that_differ_from_call_to_call_are_refused() {
    for name in ["random", "uuid", "RANDOM"] {
        let error = only_mistake(&Expression::function(name, vec![]));
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!function_names().contains(&name.to_lowercase()));
    }
}

#[test]
fn every_listed_function_can_be_looked_up_and_described() {
    let names = function_names();
    assert!(names.len() > 100, "{}", names.len());
    for name in &names {
        assert!(Expression::function(name, vec![]).mistakes().is_empty(), "{name}");
        assert!(!function_info(name).unwrap().syntax.is_empty(), "{name}");
    }
    assert!(names.is_sorted());
}

#[test]
fn now_is_the_time_of_the_batch_and_follows_it() {
    let passed = bound(&Expression::sql("now() > '2026-01-02T03:04:04Z'"));
    for (time, expected) in [(NOW, true), (BatchTime(NOW.0 - 2_000), false), (NOW, true)] {
        let value = passed.evaluate(&batch(), time).unwrap();
        assert_eq!(value.as_boolean().value(0), expected, "{time:?}");
        assert_eq!(value.len(), 3);
    }
    assert_eq!(sql("current_date()"), ["2026-01-02"; 3]);
    assert_eq!(sql("ts < current_timestamp"), ["true", "true", "true"]);
    assert_eq!(sql("to_char(now(), '%H:%M:%S')"), ["03:04:05"; 3]);
}

#[test]
fn constants_fill_every_row_also_of_batches_without_rows_or_columns() {
    assert_eq!(sql("1 + 1"), ["2", "2", "2"]);
    let empty = batch().slice(0, 0);
    assert_eq!(bound(&Expression::sql("1 + 1")).evaluate(&empty, NOW).unwrap().len(), 0);
    assert_eq!(bound(&Expression::sql("i + 1")).evaluate(&empty, NOW).unwrap().len(), 0);
    assert_eq!(shown(&Expression::lit(datafusion_common::ScalarValue::Null)), ["-", "-", "-"]);
}

#[test]
fn a_bound_expression_says_its_column_and_what_it_reads() {
    let expression = Expression::sql("t * 2 + i AS doubled");
    let bound = bound(&expression);
    assert_eq!(bound.field().name(), "doubled");
    assert_eq!(bound.field().data_type(), &DataType::Float64);
    assert!(bound.field().is_nullable());
    assert_eq!(bound.columns(), [0, 4]);
    assert_eq!(bound.as_column(), None);
    assert_eq!(expression.columns(), ["t", "i"]);
    assert_eq!(expression.output_name().as_deref(), Some("doubled"));
    let renamed = col("ts").alias("when");
    assert_eq!(renamed.as_column(), Some("ts"));
    assert_eq!(renamed.bind(&batch().schema()).unwrap().as_column(), Some(8));
    assert_eq!(col("ts").gt(lit(1)).output_name(), None);
}

#[test]
fn text_functions_give_strings_never_views() {
    let functions =
        ["lower(s)", "substr(s, 1, 1)", "trim(s)", "split_part(s, 'k', 1)", "reverse(s)", "s || s", "s + s"];
    for text in functions {
        let expression = Expression::sql(text);
        assert_eq!(value(&expression).data_type(), &DataType::Utf8, "{text}");
        assert_eq!(bound(&expression).field().data_type(), &DataType::Utf8, "{text}");
    }
    assert_eq!(sql("s + '!'"), ["ok!", "Bad!", "-"]);
    assert_eq!(sql("upper(SUBSTRING(s FROM 1 FOR 1))"), ["O", "B", "-"]);
}

#[test]
fn an_expression_reads_as_it_was_written() {
    let texts = [
        "t > 80 AND status = 'ok'",
        "(a OR b) AND NOT c",
        "a - (b - c) * 2",
        "-(a + b)",
        "x IS NOT NULL",
        "(a > b) IS NULL",
        "x IN (1, 2)",
        "x NOT BETWEEN 1 AND 2",
        "s LIKE 'it''s%'",
        "CASE WHEN a > 1 THEN 'x' ELSE 'y' END",
        "CAST(a AS float32)",
        "lower(s)",
        "\"a b\" <> 1.5",
        "a + 1 AS b",
    ];
    for text in texts {
        assert_eq!(Expression::sql(text).to_string(), text);
    }
}

fn selected(text: &str, selection: Option<&[bool]>) -> Result<Vec<bool>, Error> {
    let predicate = Expression::sql(text).bind_predicate(&batch().schema()).unwrap();
    let selection = selection.map(|bits| BooleanBuffer::from(bits.to_vec()));
    predicate.evaluate_selection(&batch(), selection.as_ref(), NOW).map(|bits| bits.iter().collect())
}

#[test]
fn null_is_not_true_in_a_predicate() {
    assert_eq!(selected("t > 70", None).unwrap(), [true, true, false]);
    assert_eq!(selected("NULL", None).unwrap(), [false, false, false]);
    assert_eq!(selected("true", None).unwrap(), [true, true, true]);
    assert_eq!(selected("t > 70", Some(&[false, true, true])).unwrap(), [false, true, false]);
}

#[test]
fn a_predicate_does_not_look_at_rows_that_are_gone_where_looking_could_fail() {
    let error = selected("100 % (small - 2) = 0", None).unwrap_err();
    assert!(error.is_data() && error.to_string().contains("divides an integer by zero"), "{error:?}");
    assert_eq!(selected("100 % (small - 2) = 0", Some(&[true, false, true])).unwrap(), [true, false, true]);
    assert_eq!(
        selected("100 % (small - 2) = 0", Some(&[false, false, false])).unwrap(),
        [false, false, false]
    );
    assert_eq!(selected("small <> 2 AND 100 % (small - 2) = 0", None).unwrap(), [true, false, true]);
    assert_eq!(selected("CAST(s AS int64) > 1 AND t > 0", Some(&[false, false, true])).unwrap(), [false; 3]);
}

#[test]
fn a_predicate_must_be_a_condition() {
    let errors = Expression::sql("t + 1").bind_predicate(&batch().schema()).unwrap_err();
    assert!(
        errors[0].to_string().contains("expected a condition (bool), found t + 1 of type float64"),
        "{errors:?}"
    );
    let predicate = Expression::sql("t > 1 AND flag").bind_predicate(&batch().schema()).unwrap();
    assert_eq!(predicate.columns(), [4, 7]);
}

#[test]
fn sparse_and_dense_selections_agree() {
    let rows = 10_000;
    let numbers = Int64Array::from_iter_values(0..rows);
    let batch = RecordBatch::try_from_iter([("i", Arc::new(numbers) as ArrayRef)]).unwrap();
    let predicate = Expression::sql("i > 5000 AND i % 3 = 0").bind_predicate(&batch.schema()).unwrap();
    let all = predicate.evaluate_selection(&batch, None, NOW).unwrap();
    for step in [1, 2, 7, 100, 3000] {
        let selection: BooleanBuffer = (0..rows).map(|row| row % step == 0).collect();
        let found = predicate.evaluate_selection(&batch, Some(&selection), NOW).unwrap();
        assert_eq!(found, &all & &selection, "every {step}th row");
    }
}

#[test]
fn a_tree_too_deep_for_the_stack_is_a_mistake_and_no_crash() {
    let sum = |terms: usize| (1..terms).fold(col("t"), |sum, _| sum + col("t"));
    assert_eq!(shown(&sum(150))[1], "11850.0");
    let error = only_mistake(&sum(100_000));
    assert!(error.to_string().contains("at most 200 levels"), "{error}");
    let negated = (0..100_000).fold(col("flag"), |flag, _| !flag);
    assert!(negated.bind(&batch().schema()).is_err());
    let nested = format!("{}t{}", "(".repeat(5000), ")".repeat(5000));
    assert!(Expression::sql(&nested).bind(&batch().schema()).is_err());
}

#[test]
fn one_bound_expression_serves_many_threads() {
    let passed = Arc::new(bound(&Expression::sql("now() > ts AND t > 0")));
    std::thread::scope(|scope| {
        for offset in 0..4 {
            let passed = Arc::clone(&passed);
            scope.spawn(move || {
                let value = passed.evaluate(&batch(), BatchTime(NOW.0 + offset)).unwrap();
                assert!(value.as_boolean().value(0));
            });
        }
    });
}

#[test]
fn numbers_keep_their_exact_values() {
    assert_eq!(value(&Expression::sql("i + 1")).as_primitive::<Int64Type>().value(0), 8);
    let sum = value(&Expression::sql("t + 0.25"));
    assert!((sum.as_primitive::<Float64Type>().value(0) - 80.75).abs() < f64::EPSILON);
    assert_eq!(shown(&lit(i64::MAX).equal(col("i"))), ["false", "false", "-"]);
    assert_eq!(value(&col("byte").modulo(Expression::lit(2_u8))).data_type(), &DataType::UInt8);
}

fn texts(split: &Split) -> Vec<&str> {
    split.calls.iter().map(|call| call.text.as_str()).collect()
}

fn split_mistake(expression: &Expression, keys: &[&str]) -> Error {
    let mistakes = expression.split_aggregates(keys).expect_err(&expression.to_string());
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    mistakes[0].clone()
}

#[test]
fn aggregates_come_out_of_an_expression_and_equal_ones_are_one_call() {
    let expression = Expression::sql("(sum(n) + AVG(t * 2)) / (count(*) + sum(n)) AS m");
    let split = expression.split_aggregates(&["s"]).unwrap();
    assert_eq!(texts(&split), ["sum(n)", "avg(t * 2)", "count(*)"]);
    assert_eq!(split.result.to_string(), "(sum(n) + avg(t * 2)) / (count(*) + sum(n)) AS m");
    assert_eq!(split.result.output_name().as_deref(), Some("m"));
    assert_eq!(split.calls[1].arguments[0].to_string(), "t * 2");
    assert!(split.calls[2].arguments.is_empty());
}

#[test]
fn aggregates_are_written_as_trees_too_and_mean_the_same() {
    let tree = (Expression::aggregate("Mean", vec![col("t")]) + Expression::lit(1)).alias("m");
    assert_eq!(tree.to_string(), Expression::sql("mean(t) + 1 AS m").to_string());
    let unique = Expression::aggregate_distinct("count", vec![col("s")]);
    assert_eq!(unique.to_string(), "count(DISTINCT s)");
    let split = Expression::sql("count(distinct s)").split_aggregates(&["s"; 0]).unwrap();
    assert!(split.calls[0].distinct);
    assert_eq!(texts(&split), [unique.to_string()]);
    assert!(tree.has_aggregate() && !col("t").has_aggregate());
    assert_eq!(Expression::sql("sum(t)").output_name(), None);
    assert_eq!(tree.columns(), ["t"]);
}

#[test]
fn constants_after_an_argument_are_parameters_of_the_aggregate() {
    let split = Expression::sql("top_k(t, 3)").split_aggregates(&["s"; 0]).unwrap();
    assert_eq!(split.calls[0].arguments.len(), 1);
    assert_eq!(split.calls[0].literals, [ScalarValue::from(3_i64)]);
    let split = Expression::sql("count(1)").split_aggregates(&["s"; 0]).unwrap();
    assert_eq!((split.calls[0].arguments.len(), split.calls[0].literals.len()), (1, 0));
    let split = Expression::sql("corr(t, n)").split_aggregates(&["s"; 0]).unwrap();
    assert_eq!(split.calls[0].arguments.len(), 2);
}

#[test]
fn calls_are_shared_among_several_expressions_and_each_has_a_column_of_its_own() {
    let expressions = [Expression::sql("max(t) - min(t)"), Expression::sql("max(t)"), col("s")];
    let (calls, made) = split_all(&expressions, &["s"]).unwrap();
    assert_eq!(calls.iter().map(|call| call.text.as_str()).collect::<Vec<_>>(), ["max(t)", "min(t)"]);
    let results: Vec<String> = made.iter().map(ToString::to_string).collect();
    assert_eq!(results, ["max(t) - min(t)", "max(t)", "s"]);
    let read: Vec<Vec<String>> = made.iter().map(Expression::columns).collect();
    let (largest, smallest) = (aggregate_column(0, "max(t)"), aggregate_column(1, "min(t)"));
    assert_eq!(read, [vec![largest.clone(), smallest], vec![largest], vec!["s".into()]]);
}

#[test]
fn a_column_beside_an_aggregate_is_a_key_or_a_mistake() {
    let expression = col("n") + Expression::aggregate("sum", vec![col("t")]);
    assert!(expression.split_aggregates(&["n"]).is_ok());
    let error = split_mistake(&expression, &["s"]);
    assert_eq!(error.kind(), ErrorKind::Config);
    let expected = "the column \"n\" in n + sum(t) is neither a key (they are s) nor within an aggregate";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.to_string().contains("last(n)"), "{error}");
}

#[test]
fn an_aggregate_within_an_aggregate_is_a_mistake() {
    let nested = Expression::aggregate("sum", vec![Expression::aggregate("mean", vec![col("t")])]);
    assert!(split_mistake(&nested, &[]).to_string().contains("within an aggregate in sum(mean(t))"));
}

#[test]
fn a_condition_goes_with_its_call_and_tells_calls_apart() {
    let expression = Expression::sql("sum(n) FILTER (WHERE t > 1) / sum(n) + sum(n) FILTER (WHERE t > 1)");
    let split = expression.split_aggregates(&["s"]).unwrap();
    assert_eq!(texts(&split), ["sum(n) FILTER (WHERE t > 1)", "sum(n)"]);
    assert_eq!(split.calls[0].filter.as_ref().unwrap().to_string(), "t > 1");
    assert!(split.calls[1].filter.is_none());
    assert_eq!(expression.columns(), ["n", "t"]);
    let named = Expression::sql("count(*) AS c").filter(Expression::sql("t > 1 AS hot"));
    assert_eq!(named.to_string(), "count(*) FILTER (WHERE t > 1) AS c");
    let twice =
        Expression::aggregate("count", vec![]).filter(Expression::sql("n = 1 OR n = 2")).filter(col("b"));
    assert_eq!(twice.to_string(), "count(*) FILTER (WHERE (n = 1 OR n = 2) AND b)");
}

#[test]
fn a_filter_wants_an_aggregate_before_it_and_one_row_within() {
    let mistake = |aggregate: Expression| split_mistake(&aggregate.filter(Expression::sql("t > 1")), &[]);
    assert!(mistake(col("t")).to_string().contains("as in col(\"t\").sum().filter(...)"));
    assert!(mistake(Expression::sql("t + 1")).to_string().contains("as in (t + 1).sum().filter(...)"));
    assert!(mistake(Expression::sql("sum(t) + 1")).to_string().contains("a filter of its own"));
    assert!(mistake(Expression::aggregate("summ", vec![])).to_string().contains("did you mean sum?"));
    let nested = Expression::sql("sum(t) FILTER (WHERE t > avg(t))");
    assert!(split_mistake(&nested, &[]).to_string().contains("sees one row"));
}

#[test]
fn mistakes_in_an_expression_are_told_when_it_is_split() {
    let unknown = Expression::aggregate("summ", vec![col("t")]);
    assert!(split_mistake(&unknown, &[]).to_string().contains("did you mean sum?"));
    let scalar = Expression::function("sum", vec![col("t")]);
    assert!(split_mistake(&scalar, &[]).to_string().contains("needs many rows"));
}

#[test]
fn an_aggregate_among_rows_is_a_mistake_that_names_its_place() {
    for text in ["sum(t)", "t > avg(t)", "coalesce(count(*), 0)"] {
        let error = only_mistake(&Expression::sql(text));
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("an aggregate has its place in agg(...)"), "{error}");
    }
    let condition = Expression::sql("max(t) > 3");
    assert_eq!(condition.bind_predicate(&batch().schema()).unwrap_err().len(), 1);
}

#[test]
fn clauses_of_aggregates_are_refused_with_what_to_write_instead() {
    let clauses = [
        ("abs(t) FILTER (WHERE n > 1)", "only an aggregate has FILTER"),
        ("collect(t ORDER BY n)", "arguments alone"),
        ("first_value(t) IGNORE NULLS", "arguments alone"),
        ("percentile_cont(0.5) WITHIN GROUP (ORDER BY t)", "arguments alone"),
        ("sum(*)", "only count takes *"),
        ("sum(t) OVER ()", "use window(...)"),
    ];
    for (text, help) in clauses {
        let error = only_mistake(&Expression::sql(text));
        assert!(error.to_string().contains(help), "{text}: {error}");
    }
}

#[test]
fn no_name_is_both_a_function_and_an_aggregate() {
    let functions = function_names();
    let both: Vec<_> = aggregate_names().iter().filter(|name| functions.iter().any(|f| f == *name)).collect();
    assert!(both.is_empty(), "{both:?}");
}
