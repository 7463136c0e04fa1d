//! Arithmetic of moments and lengths of time, as Polars has it: which types it is done in, and what it gives.
//!
//! DataFusion would cut a length of time to the unit of the moment beside it, and count a difference of days in numbers;
//! here nothing is cut, and a difference is a length of time. What has no meaning (the sum of two moments) is deliberately
//! left alone, to be refused by whoever knows the words of the user.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::ScalarValue;
use datafusion_expr::{BinaryExpr, Cast, Expr, Operator};

use crate::expr::literal::{Fit, Rounding, fit};

/// One side of an operator, and its type.
pub(super) struct Side {
    pub(super) value: Expr,
    pub(super) data_type: DataType,
}

/// What `left op right` is computed as; itself, where it is no arithmetic of moments or needs nothing of this file.
pub(super) fn computed(left: Side, op: Operator, right: Side) -> Expr {
    use DataType::{Date32, Date64, Duration, Timestamp};
    use Operator::{Divide, Minus, Plus};
    match (&left.data_type, op, &right.data_type) {
        (Date32 | Date64, Plus | Minus, Duration(_)) => moved_day(left, op, right),
        (Duration(_), Plus, Date32 | Date64) => moved_day(right, op, left),
        (Timestamp(unit, _), Plus | Minus, Duration(other)) if unit != other => moved(left, op, right),
        (Duration(other), Plus, Timestamp(unit, _)) if unit != other => moved(right, op, left),
        (Date32 | Date64, Minus, Date32 | Date64) => difference(left, right, TimeUnit::Millisecond),
        (Date32 | Date64, Minus, Timestamp(unit, _)) | (Timestamp(unit, _), Minus, Date32 | Date64) => {
            let unit = *unit;
            difference(left, right, unit)
        }
        (Timestamp(one, zone), Minus, Timestamp(other, other_zone)) if (one, zone) != (other, other_zone) => {
            difference_of_moments(left, right)
        }
        (Duration(one), Plus | Minus, Duration(other)) if one != other => {
            let (left, right) = in_one_unit(left, right);
            binary(left, op, right)
        }
        (Duration(_), Divide, Duration(_)) => {
            let (left, right) = in_one_unit(left, right);
            binary(number(left), op, number(right))
        }
        _ => binary(left.value, op, right.value),
    }
}

/// Both sides of a comparison; lengths of time in the finer of their units.
pub(super) fn compared(left: Side, right: Side) -> (Expr, Expr) {
    match (&left.data_type, &right.data_type) {
        (DataType::Duration(one), DataType::Duration(other)) if one != other => in_one_unit(left, right),
        _ => (left.value, right.value),
    }
}

/// A day, so many days later or earlier: hours that do not make one are cut off, as in Polars.
fn moved_day(day: Side, op: Operator, by: Side) -> Expr {
    let by = coarsest(by);
    let midnight = cast(day.value, &DataType::Timestamp(unit_of(&by.data_type), None));
    cast(binary(midnight, op, by.value), &day.data_type)
}

/// A moment, so much later or earlier, in its own unit where that holds the length of time, else in the finer.
fn moved(moment: Side, op: Operator, by: Side) -> Expr {
    let own = unit_of(&moment.data_type);
    let by = fitted(by, &DataType::Duration(own));
    let unit = finer(own, unit_of(&by.data_type));
    binary(with_unit(moment, unit), op, with_unit(by, unit))
}

fn difference_of_moments(left: Side, right: Side) -> Expr {
    let (left_type, right_type) = (left.data_type.clone(), right.data_type.clone());
    let (left, right) = (fitted(left, &right_type), fitted(right, &left_type));
    let unit = finer(unit_of(&left.data_type), unit_of(&right.data_type));
    difference(left, right, unit)
}

/// The length of time between two moments, whatever their zones: a moment without one is UTC.
fn difference(left: Side, right: Side, unit: TimeUnit) -> Expr {
    let instant = DataType::Timestamp(unit, None);
    binary(cast(left.value, &instant), Operator::Minus, cast(right.value, &instant))
}

fn in_one_unit(left: Side, right: Side) -> (Expr, Expr) {
    let (left_type, right_type) = (left.data_type.clone(), right.data_type.clone());
    let (left, right) = (fitted(left, &right_type), fitted(right, &left_type));
    let unit = finer(unit_of(&left.data_type), unit_of(&right.data_type));
    (with_unit(left, unit), with_unit(right, unit))
}

/// A literal in the type of what it meets, where it is a value of it.
fn fitted(side: Side, target: &DataType) -> Side {
    let Expr::Literal(value, _) = &side.value else { return side };
    match fit(value, target, Rounding::Exact) {
        Fit::Becomes(value) => Side { data_type: value.data_type(), value: Expr::Literal(value, None) },
        Fit::Same | Fit::Misfit => side,
    }
}

/// A literal length of time in the coarsest unit that holds it: dates go further than timestamps in fine units.
fn coarsest(side: Side) -> Side {
    let Expr::Literal(value, _) = &side.value else { return side };
    let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond];
    let held =
        units.into_iter().find_map(|unit| match fit(value, &DataType::Duration(unit), Rounding::Exact) {
            Fit::Becomes(value) => Some(value),
            Fit::Same | Fit::Misfit => None,
        });
    let literal =
        |value: ScalarValue| Side { data_type: value.data_type(), value: Expr::Literal(value, None) };
    held.map_or(side, literal)
}

fn with_unit(side: Side, unit: TimeUnit) -> Expr {
    match side.data_type {
        DataType::Timestamp(_, zone) => cast(side.value, &DataType::Timestamp(unit, zone)),
        _ => cast(side.value, &DataType::Duration(unit)),
    }
}

fn unit_of(data_type: &DataType) -> TimeUnit {
    match data_type {
        DataType::Timestamp(unit, _) | DataType::Duration(unit) => *unit,
        _ => TimeUnit::Millisecond,
    }
}

fn finer(one: TimeUnit, other: TimeUnit) -> TimeUnit {
    one.max(other)
}

fn number(value: Expr) -> Expr {
    cast(cast(value, &DataType::Int64), &DataType::Float64)
}

fn cast(value: Expr, data_type: &DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(value), data_type.clone()))
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}
