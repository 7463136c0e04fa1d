//! An expression as short text, as it would be written in SQL: for `explain()` and for errors.
//!
//! Parentheses stand only where they are needed. It deliberately promises no text that can be parsed again: a
//! reader is meant to recognise what was written.

use std::fmt::{self, Display, Formatter};

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::expr::{AggregateFunction, Case, InList, ScalarFunction};
use datafusion_expr::{Between, BinaryExpr, Expr, Like, Operator};

use crate::expr::aggregate::call_of;
use crate::types::type_name;

/// How tightly `NOT` binds, between `AND` and the comparisons; the scale is that of DataFusion's operators.
const NOT: u8 = 12;
/// How tightly comparisons bind.
const COMPARISON: u8 = 20;
/// How tightly an operand of unary minus must bind.
const UNARY: u8 = 60;

/// Shows an expression.
pub(super) struct Text<'a>(pub(super) &'a Expr);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write(f, self.0)
    }
}

fn write(f: &mut Formatter<'_>, expr: &Expr) -> fmt::Result {
    match expr {
        Expr::Column(column) => write_name(f, &column.name),
        Expr::Literal(value, _) => write_literal(f, value),
        Expr::Alias(alias) => {
            write(f, &alias.expr)?;
            f.write_str(" AS ")?;
            write_name(f, &alias.name)
        }
        Expr::BinaryExpr(binary) => write_binary(f, binary),
        Expr::Not(inner) => prefixed(f, "NOT ", inner, NOT),
        Expr::Negative(inner) => prefixed(f, "-", inner, UNARY),
        Expr::IsNull(inner) => suffixed(f, inner, " IS NULL"),
        Expr::IsNotNull(inner) => suffixed(f, inner, " IS NOT NULL"),
        Expr::Between(between) => write_between(f, between),
        Expr::InList(list) => write_in(f, list),
        Expr::Like(like) => write_like(f, like),
        Expr::Case(case) => write_case(f, case),
        Expr::Cast(cast) => write_cast(f, "CAST", &cast.expr, cast.field.data_type()),
        Expr::TryCast(cast) => write_cast(f, "TRY_CAST", &cast.expr, cast.field.data_type()),
        Expr::ScalarFunction(call) => write_call(f, call),
        Expr::AggregateFunction(call) => write_aggregate(f, call),
        Expr::Placeholder(placeholder) => f.write_str(&placeholder.id),
        other => other.human_display().fmt(f),
    }
}

fn write_name(f: &mut Formatter<'_>, name: &str) -> fmt::Result {
    if let Some(call) = call_of(name) {
        return f.write_str(call);
    }
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if plain && name.chars().next().is_some_and(|c| !c.is_numeric()) {
        return f.write_str(name);
    }
    write!(f, "\"{}\"", name.replace('"', "\"\""))
}

fn write_literal(f: &mut Formatter<'_>, value: &ScalarValue) -> fmt::Result {
    match value {
        value if value.is_null() => f.write_str("NULL"),
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => {
            write!(f, "'{}'", text.replace('\'', "''"))
        }
        ScalarValue::Float64(Some(number)) => write!(f, "{number:?}"),
        ScalarValue::Float32(Some(number)) => write!(f, "{number:?}"),
        value if value.data_type().is_temporal() => match value.cast_to(&DataType::Utf8) {
            Ok(ScalarValue::Utf8(Some(text))) => write!(f, "'{text}'"),
            _ => value.fmt(f),
        },
        other => other.fmt(f),
    }
}

fn write_binary(f: &mut Formatter<'_>, binary: &BinaryExpr) -> fmt::Result {
    let own = binary.op.precedence();
    // The right side of what is not associative needs parentheses at equal strength: a - (b - c).
    let right = match binary.op {
        Operator::And | Operator::Or | Operator::Plus | Operator::Multiply | Operator::StringConcat => own,
        _ => own + 1,
    };
    operand(f, &binary.left, own)?;
    let symbol = if binary.op == Operator::NotEq { "<>".to_owned() } else { binary.op.to_string() };
    write!(f, " {symbol} ")?;
    operand(f, &binary.right, right)
}

/// Writes an operand, in parentheses where it binds more loosely than `strength`.
fn operand(f: &mut Formatter<'_>, expr: &Expr, strength: u8) -> fmt::Result {
    if strength_of(expr) >= strength {
        return write(f, expr);
    }
    f.write_str("(")?;
    write(f, expr)?;
    f.write_str(")")
}

fn strength_of(expr: &Expr) -> u8 {
    match expr {
        Expr::BinaryExpr(binary) => binary.op.precedence(),
        Expr::Not(_) => NOT,
        Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::Between(_) | Expr::InList(_) | Expr::Like(_) => {
            COMPARISON
        }
        Expr::Alias(_) => 0,
        Expr::ScalarFunction(call) if sign_of(call).is_some() => Operator::Divide.precedence(),
        _ => u8::MAX,
    }
}

fn prefixed(f: &mut Formatter<'_>, sign: &str, inner: &Expr, strength: u8) -> fmt::Result {
    f.write_str(sign)?;
    operand(f, inner, strength)
}

fn suffixed(f: &mut Formatter<'_>, inner: &Expr, suffix: &str) -> fmt::Result {
    operand(f, inner, COMPARISON + 1)?;
    f.write_str(suffix)
}

fn write_between(f: &mut Formatter<'_>, between: &Between) -> fmt::Result {
    operand(f, &between.expr, COMPARISON + 1)?;
    f.write_str(if between.negated { " NOT BETWEEN " } else { " BETWEEN " })?;
    operand(f, &between.low, COMPARISON + 1)?;
    f.write_str(" AND ")?;
    operand(f, &between.high, COMPARISON + 1)
}

fn write_in(f: &mut Formatter<'_>, list: &InList) -> fmt::Result {
    operand(f, &list.expr, COMPARISON + 1)?;
    f.write_str(if list.negated { " NOT IN (" } else { " IN (" })?;
    write_list(f, &list.list)?;
    f.write_str(")")
}

fn write_like(f: &mut Formatter<'_>, like: &Like) -> fmt::Result {
    operand(f, &like.expr, COMPARISON + 1)?;
    let not = if like.negated { " NOT" } else { "" };
    write!(f, "{not} {} ", if like.case_insensitive { "ILIKE" } else { "LIKE" })?;
    operand(f, &like.pattern, COMPARISON + 1)
}

fn write_case(f: &mut Formatter<'_>, case: &Case) -> fmt::Result {
    f.write_str("CASE")?;
    if let Some(value) = &case.expr {
        f.write_str(" ")?;
        write(f, value)?;
    }
    for (condition, value) in &case.when_then_expr {
        write!(f, " WHEN {} THEN {}", Text(condition), Text(value))?;
    }
    if let Some(otherwise) = &case.else_expr {
        write!(f, " ELSE {}", Text(otherwise))?;
    }
    f.write_str(" END")
}

fn write_cast(f: &mut Formatter<'_>, word: &str, inner: &Expr, data_type: &DataType) -> fmt::Result {
    write!(f, "{word}({} AS {})", Text(inner), type_name(data_type))
}

fn write_call(f: &mut Formatter<'_>, call: &ScalarFunction) -> fmt::Result {
    if let (Some(sign), [left, right]) = (sign_of(call), call.args.as_slice()) {
        return write_rounded_down(f, left, sign, right);
    }
    write!(f, "{}(", call.func.name())?;
    write_list(f, &call.args)?;
    f.write_str(")")
}

/// How Python writes a division that rounds down. SQL has no `//`; its `%` is the same one here.
fn sign_of(call: &ScalarFunction) -> Option<&'static str> {
    match call.func.name() {
        "floor_divide" => Some("//"),
        "floor_mod" => Some("%"),
        _ => None,
    }
}

fn write_rounded_down(f: &mut Formatter<'_>, left: &Expr, sign: &str, right: &Expr) -> fmt::Result {
    let own = Operator::Divide.precedence();
    operand(f, left, own)?;
    write!(f, " {sign} ")?;
    operand(f, right, own + 1)
}

fn write_aggregate(f: &mut Formatter<'_>, call: &AggregateFunction) -> fmt::Result {
    write!(f, "{}(", call.func.name())?;
    f.write_str(if call.params.distinct { "DISTINCT " } else { "" })?;
    match call.params.args.as_slice() {
        [] if call.func.name() == "count" => f.write_str("*")?,
        arguments => write_list(f, arguments)?,
    }
    f.write_str(")")?;
    match &call.params.filter {
        Some(condition) => write!(f, " FILTER (WHERE {})", Text(condition)),
        None => Ok(()),
    }
}

fn write_list(f: &mut Formatter<'_>, items: &[Expr]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { ", " })?;
        write(f, item)?;
    }
    Ok(())
}
