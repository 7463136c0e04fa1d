//! Division and remainder rounded down, as in Python; DataFusion has only those that round towards zero.
//!
//! A quotient deliberately takes no decimals: it would have no agreed scale. A remainder has that of its arguments.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use datafusion_common::{Result, exec_err, plan_err, utils::take_function_args};
use datafusion_expr::type_coercion::binary::{binary_numeric_coercion, decimal_coercion};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

macro_rules! floor_function {
    ($type:ident, $name:literal, $integer:ident, $float:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, PartialEq, Eq, Hash)]
        pub(super) struct $type(Signature);

        impl Default for $type {
            fn default() -> Self {
                Self(Signature::user_defined(Volatility::Immutable))
            }
        }

        impl ScalarUDFImpl for $type {
            fn name(&self) -> &str {
                $name
            }

            fn signature(&self) -> &Signature {
                &self.0
            }

            fn return_type(&self, types: &[DataType]) -> Result<DataType> {
                let [left, _] = take_function_args($name, types)?;
                Ok(left.clone())
            }

            fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
                common_type($name, types)
            }

            fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
                let [left, right] = take_function_args($name, &arguments.args)?;
                let (left, right) =
                    (left.to_array(arguments.number_rows)?, right.to_array(arguments.number_rows)?);
                let (left, right) = (left.as_ref(), right.as_ref());
                let result = match left.data_type() {
                    DataType::Int8 => pairwise::<Int8Type>(left, right, $integer),
                    DataType::Int16 => pairwise::<Int16Type>(left, right, $integer),
                    DataType::Int32 => pairwise::<Int32Type>(left, right, $integer),
                    DataType::Int64 => pairwise::<Int64Type>(left, right, $integer),
                    DataType::UInt8 => pairwise::<UInt8Type>(left, right, $integer),
                    DataType::UInt16 => pairwise::<UInt16Type>(left, right, $integer),
                    DataType::UInt32 => pairwise::<UInt32Type>(left, right, $integer),
                    DataType::UInt64 => pairwise::<UInt64Type>(left, right, $integer),
                    DataType::Float32 => pairwise::<Float32Type>(left, right, |a, b| {
                        Ok(nearest_float32($float(a.into(), b.into())))
                    }),
                    DataType::Float64 => pairwise::<Float64Type>(left, right, |a, b| Ok($float(a, b))),
                    DataType::Decimal128(..) => pairwise::<Decimal128Type>(left, right, $integer),
                    DataType::Decimal256(..) => pairwise::<Decimal256Type>(left, right, $integer),
                    other => return exec_err!("{} does not take {other}", $name),
                };
                Ok(ColumnarValue::Array(result?))
            }
        }
    };
}

floor_function!(FloorDivide, "floor_divide", divide_integers, divide_floats, "The quotient, rounded down.");
floor_function!(
    FloorMod,
    "floor_mod",
    modulo_integers,
    modulo_floats,
    "The remainder, with the divisor's sign."
);

/// The type in which two numbers are divided.
fn common_type(name: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    let [left, right] = take_function_args(name, types)?;
    let divisible = |data_type: &DataType| {
        data_type.is_null()
            || data_type.is_integer()
            || matches!(data_type, DataType::Float32 | DataType::Float64)
    };
    if name == "floor_mod" && [left, right].into_iter().any(DataType::is_decimal) {
        return common_decimal(left, right);
    }
    if !divisible(left) || !divisible(right) {
        return plan_err!("{name} takes integers and floats, not {left} and {right}");
    }
    let common = match (left.is_null(), right.is_null()) {
        (true, true) => Some(DataType::Float64),
        (true, false) => Some(right.clone()),
        (false, true) => Some(left.clone()),
        (false, false) => binary_numeric_coercion(left, right),
    };
    match common {
        Some(common) if divisible(&common) => Ok(vec![common.clone(), common]),
        // Only int64 with uint64 has no common integer; floats hold both, rounded.
        _ => Ok(vec![DataType::Float64, DataType::Float64]),
    }
}

/// The decimal in which both can be written; a float makes floats of both.
fn common_decimal(left: &DataType, right: &DataType) -> Result<Vec<DataType>> {
    let both = |data_type: DataType| vec![data_type.clone(), data_type];
    if [left, right].into_iter().any(DataType::is_floating) {
        return Ok(both(DataType::Float64));
    }
    let common = decimal_coercion(left, right);
    let held = common.filter(|common| matches!(common, DataType::Decimal128(..) | DataType::Decimal256(..)));
    held.map_or_else(
        || plan_err!("floor_mod takes decimals and integers, not {left} and {right}"),
        |common| Ok(both(common)),
    )
}

fn pairwise<T: ArrowPrimitiveType>(
    left: &dyn Array,
    right: &dyn Array,
    operation: impl Fn(T::Native, T::Native) -> Result<T::Native, ArrowError>,
) -> Result<ArrayRef> {
    let result = try_binary::<_, _, _, T>(left.as_primitive::<T>(), right.as_primitive::<T>(), operation)?;
    Ok(Arc::new(result.with_data_type(left.data_type().clone())))
}

fn divide_integers<N: ArrowNativeTypeOp>(dividend: N, divisor: N) -> Result<N, ArrowError> {
    let quotient = dividend.div_checked(divisor)?;
    let rest = dividend.sub_wrapping(quotient.mul_wrapping(divisor));
    Ok(if leans_up(rest, divisor) { quotient.sub_wrapping(N::ONE) } else { quotient })
}

fn modulo_integers<N: ArrowNativeTypeOp>(dividend: N, divisor: N) -> Result<N, ArrowError> {
    // Checked for a divisor of zero alone: the least integer by -1 leaves no rest, though its quotient does not fit.
    let rest =
        if divisor.is_zero() { dividend.mod_checked(divisor)? } else { dividend.mod_wrapping(divisor) };
    Ok(if leans_up(rest, divisor) { rest.add_wrapping(divisor) } else { rest })
}

/// Whether rounding towards zero went up: the rest and the divisor have opposite signs.
fn leans_up<N: ArrowNativeTypeOp>(rest: N, divisor: N) -> bool {
    !rest.is_zero() && rest.is_lt(N::ZERO) != divisor.is_lt(N::ZERO)
}

#[expect(clippy::cast_possible_truncation, reason = "the result of two float32 is a float32")]
fn nearest_float32(value: f64) -> f32 {
    value as f32
}

fn divide_floats(dividend: f64, divisor: f64) -> f64 {
    (dividend / divisor).floor()
}

fn modulo_floats(dividend: f64, divisor: f64) -> f64 {
    let rest = dividend % divisor;
    if rest != 0.0 && (rest < 0.0) != (divisor < 0.0) { rest + divisor } else { rest }
}
