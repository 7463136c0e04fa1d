//! The functions of floats with the answers of IEEE 754, in place of those of DataFusion's that fail.
//!
//! One value of a live stream must not end a job where float arithmetic has an answer: the square root of a negative
//! number is NaN, as NumPy and Polars say, and 0 to a negative power is an infinity. Functions of integers have no such
//! value; they still fail, and deliberately stay DataFusion's.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::kernels::arity::{binary, unary};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion_common::{Result, exec_err, utils::take_function_args};
use datafusion_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

macro_rules! float_function {
    ($type:ident, $name:ident, $values:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, PartialEq, Eq, Hash)]
        pub(super) struct $type(Arc<ScalarUDF>); // DataFusion's, which says all but the values

        impl Default for $type {
            fn default() -> Self {
                Self(datafusion_functions::math::$name())
            }
        }

        impl ScalarUDFImpl for $type {
            fn name(&self) -> &str {
                self.0.name()
            }

            fn aliases(&self) -> &[String] {
                self.0.aliases()
            }

            fn signature(&self) -> &Signature {
                self.0.signature()
            }

            fn return_type(&self, types: &[DataType]) -> Result<DataType> {
                self.0.return_type(types)
            }

            fn documentation(&self) -> Option<&Documentation> {
                self.0.documentation()
            }

            fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
                let arrays = arguments.args.iter().map(|argument| argument.to_array(arguments.number_rows));
                $values(arrays.collect::<Result<Vec<_>>>()?).map(ColumnarValue::Array)
            }
        }
    };
}

float_function!(Sqrt, sqrt, roots, "The square root; of a negative number NaN.");
float_function!(
    Power,
    power,
    powers,
    "A power in float64: of 0 to a negative exponent an infinity, of a negative base to a broken one NaN."
);

fn roots(arguments: Vec<ArrayRef>) -> Result<ArrayRef> {
    let [of] = take_function_args("sqrt", arguments)?;
    Ok(match of.data_type() {
        DataType::Float32 => {
            Arc::new(unary::<_, _, Float32Type>(of.as_primitive::<Float32Type>(), f32::sqrt))
        }
        DataType::Float64 => {
            Arc::new(unary::<_, _, Float64Type>(of.as_primitive::<Float64Type>(), f64::sqrt))
        }
        other => return exec_err!("sqrt does not take {other}"),
    })
}

fn powers(arguments: Vec<ArrayRef>) -> Result<ArrayRef> {
    let [base, exponent] = take_function_args("power", arguments)?;
    let of_floats = |array: &ArrayRef| array.as_primitive_opt::<Float64Type>().cloned();
    let (base, exponent) = (of_floats(&base), of_floats(&exponent));
    let (Some(base), Some(exponent)) = (base, exponent) else {
        return exec_err!("power takes float64 alone");
    };
    let powers: Float64Array = binary(&base, &exponent, f64::powf)?;
    Ok(Arc::new(powers))
}
