//! Expressions as Python builds them: one class round a tree, and the few functions that make trees.
//!
//! The public class with its operators, methods and documentation is `tidemill.expressions.Expr`, a subclass. It
//! deliberately checks nothing: mistakes wait in the tree until it is bound, so that all are reported at once.

use datafusion_common::ScalarValue;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};

use crate::error::Error;
use crate::expr::{Expression, FunctionInfo, aggregate_names, function_info, function_names};
use crate::types::parse_type;

/// An inert expression.
#[pyclass(frozen, subclass, from_py_object, module = "tidemill._native")]
#[derive(Clone, Debug)]
pub(crate) struct Expr(pub(crate) Expression);

#[pymethods]
impl Expr {
    /// The same expression, as the class that is asked for.
    #[new]
    fn new(inner: &Self) -> Self {
        inner.clone()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    /// The name that it gives a column by itself.
    #[getter]
    fn output_name(&self) -> Option<String> {
        self.0.output_name()
    }

    /// The names of the columns that it reads.
    #[getter]
    fn columns(&self) -> Vec<String> {
        self.0.columns()
    }
}

/// The column of this name.
#[pyfunction]
pub(crate) fn expr_col(name: String) -> Expr {
    Expr(Expression::col(name))
}

/// The expression that SQL text stands for.
#[pyfunction]
pub(crate) fn expr_sql(text: &str) -> Expr {
    Expr(Expression::sql(text))
}

/// A literal; `type_name` says what a number or text stands for (a timestamp in microseconds, a decimal).
#[pyfunction]
#[pyo3(signature = (value, type_name=None))]
pub(crate) fn expr_lit(value: &Bound<'_, PyAny>, type_name: Option<&str>) -> PyResult<Expr> {
    let value = scalar(value)?;
    let Some(type_name) = type_name else { return Ok(Expr(Expression::lit(value))) };
    let cast = value.cast_to(&parse_type(type_name)?);
    let cast = cast.map_err(|error| {
        Error::config(format!("expected a literal of type {type_name}, found {value}")).caused_by(error)
    })?;
    Ok(Expr(Expression::lit(cast)))
}

fn scalar(value: &Bound<'_, PyAny>) -> PyResult<ScalarValue> {
    if value.is_none() {
        Ok(ScalarValue::Null)
    } else if value.is_instance_of::<PyBool>() {
        Ok(ScalarValue::from(value.extract::<bool>()?))
    } else if value.is_instance_of::<PyInt>() {
        integer(value)
    } else if value.is_instance_of::<PyFloat>() {
        Ok(ScalarValue::from(value.extract::<f64>()?))
    } else if value.is_instance_of::<PyString>() {
        Ok(ScalarValue::from(value.extract::<String>()?))
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        Ok(ScalarValue::Binary(Some(bytes.as_bytes().to_vec())))
    } else {
        let found = value.get_type().fully_qualified_name()?;
        Err(PyTypeError::new_err(format!("a literal cannot be a {found}")))
    }
}

fn integer(value: &Bound<'_, PyAny>) -> PyResult<ScalarValue> {
    match (value.extract::<i64>(), value.extract::<u64>()) {
        (Ok(signed), _) => Ok(ScalarValue::from(signed)),
        (_, Ok(unsigned)) => Ok(ScalarValue::from(unsigned)),
        _ => Err(Error::config(format!("expected an integer of at most 64 bits, found {value}")).into()),
    }
}

/// An operator over its operands.
#[pyfunction]
pub(crate) fn expr_operator(operator: &str, operands: Vec<Expr>) -> PyResult<Expr> {
    let mut operands: Vec<Expression> = operands.into_iter().map(|operand| operand.0).collect();
    if operator == "in" {
        let values = operands.split_off(operands.len().min(1));
        let value = operands.pop().ok_or_else(|| unknown_operator(operator))?;
        return Ok(Expr(value.is_in(values)));
    }
    let made = match <[Expression; 1]>::try_from(operands) {
        Ok([operand]) => unary(operator, operand),
        Err(operands) => match <[Expression; 2]>::try_from(operands) {
            Ok([left, right]) => binary(operator, left, right),
            Err(operands) => match <[Expression; 3]>::try_from(operands) {
                Ok([value, low, high]) if operator == "between" => Some(value.between(low, high)),
                _ => None,
            },
        },
    };
    made.map(Expr).ok_or_else(|| unknown_operator(operator))
}

fn unary(operator: &str, operand: Expression) -> Option<Expression> {
    Some(match operator {
        "-" => -operand,
        "~" => !operand,
        "is null" => operand.is_null(),
        "is not null" => operand.is_not_null(),
        _ => return None,
    })
}

fn binary(operator: &str, left: Expression, right: Expression) -> Option<Expression> {
    Some(match operator {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        "/" => left / right,
        "//" => left.floor_divide(right),
        "%" => left.modulo(right),
        "**" => left.power(right),
        "&" => left & right,
        "|" => left | right,
        "==" => left.equal(right),
        "!=" => left.not_equal(right),
        "<" => left.lt(right),
        "<=" => left.lt_eq(right),
        ">" => left.gt(right),
        ">=" => left.gt_eq(right),
        _ => return None,
    })
}

fn unknown_operator(operator: &str) -> PyErr {
    PyValueError::new_err(format!("{operator:?} is no operator of so many operands"))
}

/// A function of the registry.
#[pyfunction]
pub(crate) fn expr_function(name: &str, arguments: Vec<Expr>) -> Expr {
    let arguments = arguments.into_iter().map(|argument| argument.0).collect();
    Expr(Expression::function(name, arguments))
}

/// An aggregate function over the rows of a group.
#[pyfunction]
pub(crate) fn expr_aggregate(name: &str, arguments: Vec<Expr>, distinct: bool) -> Expr {
    let arguments = arguments.into_iter().map(|argument| argument.0).collect();
    Expr(if distinct {
        Expression::aggregate_distinct(name, arguments)
    } else {
        Expression::aggregate(name, arguments)
    })
}

/// An aggregate over the rows for which a condition is true.
#[pyfunction]
pub(crate) fn expr_filter(aggregate: Expr, condition: Expr) -> Expr {
    Expr(aggregate.0.filter(condition.0))
}

/// The value of the first branch whose condition is true.
#[pyfunction]
#[pyo3(signature = (branches, otherwise=None))]
pub(crate) fn expr_when(branches: Vec<(Expr, Expr)>, otherwise: Option<Expr>) -> Expr {
    let branches = branches.into_iter().map(|(condition, value)| (condition.0, value.0)).collect();
    Expr(Expression::when(branches, otherwise.map(|value| value.0)))
}

/// The value converted to another type; where it cannot be, an error if `strict`, else null.
#[pyfunction]
pub(crate) fn expr_cast(value: Expr, type_name: &str, strict: bool) -> PyResult<Expr> {
    let data_type = parse_type(type_name)?;
    let value = value.0;
    Ok(Expr(if strict { value.cast(data_type) } else { value.try_cast(data_type) }))
}

/// The value under another name.
#[pyfunction]
pub(crate) fn expr_alias(value: Expr, name: String) -> Expr {
    Expr(value.0.alias(name))
}

/// The names of all functions.
#[pyfunction]
pub(crate) fn expr_function_names() -> Vec<String> {
    function_names()
}

/// The names of all aggregates.
#[pyfunction]
pub(crate) fn expr_aggregate_names() -> Vec<&'static str> {
    aggregate_names().to_vec()
}

/// How a function is called, what it gives, and its arguments with their meanings.
type Described = (String, String, Vec<(String, String)>);

/// What there is to know about a function.
#[pyfunction]
pub(crate) fn expr_function_info(name: &str) -> PyResult<Described> {
    let FunctionInfo { syntax, description, arguments, .. } = function_info(name)?;
    Ok((syntax, description, arguments))
}

/// Adds the class and the functions of this file to the extension module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Expr>()?;
    module.add_function(wrap_pyfunction!(expr_col, module)?)?;
    module.add_function(wrap_pyfunction!(expr_sql, module)?)?;
    module.add_function(wrap_pyfunction!(expr_lit, module)?)?;
    module.add_function(wrap_pyfunction!(expr_operator, module)?)?;
    module.add_function(wrap_pyfunction!(expr_function, module)?)?;
    module.add_function(wrap_pyfunction!(expr_aggregate, module)?)?;
    module.add_function(wrap_pyfunction!(expr_filter, module)?)?;
    module.add_function(wrap_pyfunction!(expr_when, module)?)?;
    module.add_function(wrap_pyfunction!(expr_cast, module)?)?;
    module.add_function(wrap_pyfunction!(expr_alias, module)?)?;
    module.add_function(wrap_pyfunction!(expr_function_names, module)?)?;
    module.add_function(wrap_pyfunction!(expr_aggregate_names, module)?)?;
    module.add_function(wrap_pyfunction!(expr_function_info, module)?)?;
    Ok(())
}
