//! Functions that read text, in a form that gives null for text that cannot be read: `try_to_timestamp` beside
//! `to_timestamp`, and so on.
//!
//! They read nothing themselves: the rows that the function fails for are found by halves, so that good rows cost what they
//! do there, and a bad one some calls more. Deliberately only parsers have this form: a null in the place of an overflow
//! would hide a mistake.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The functions that have a lenient form.
pub(super) const STRICT: &[&str] = &[
    "to_date",
    "to_time",
    "to_timestamp",
    "to_timestamp_seconds",
    "to_timestamp_millis",
    "to_timestamp_micros",
    "to_timestamp_nanos",
    "to_unixtime",
];

/// A function that gives null where another fails.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Lenient {
    name: String,
    strict: Arc<ScalarUDF>,
    signature: Signature,
}

impl Lenient {
    /// The lenient form of `strict`, where it has one.
    pub(super) fn of(strict: &Arc<ScalarUDF>) -> Option<Self> {
        let name = strict.name();
        STRICT.contains(&name).then(|| Self {
            name: format!("try_{name}"),
            strict: Arc::clone(strict),
            // The zone of the session, by which its result might change, is always the same here.
            signature: Signature { volatility: Volatility::Immutable, ..strict.signature().clone() },
        })
    }

    fn rows(&self, arguments: &ScalarFunctionArgs, rows: Range<usize>) -> Result<Vec<ArrayRef>> {
        let count = rows.len();
        let sliced = |argument: &ColumnarValue| match argument {
            ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(rows.start, count)),
            scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
        };
        let part = ScalarFunctionArgs {
            args: arguments.args.iter().map(sliced).collect(),
            number_rows: count,
            ..arguments.clone()
        };
        match self.strict.invoke_with_args(part).and_then(|made| made.into_array(count)) {
            Ok(made) => Ok(vec![made]),
            Err(_) if count <= 1 => Ok(vec![new_null_array(arguments.return_field.data_type(), count)]),
            Err(_) => {
                let middle = rows.start + count / 2;
                let mut made = self.rows(arguments, rows.start..middle)?;
                made.extend(self.rows(arguments, middle..rows.end)?);
                Ok(made)
            }
        }
    }
}

impl ScalarUDFImpl for Lenient {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.strict.return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.strict.coerce_types(types)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let made = self.rows(&arguments, 0..arguments.number_rows)?;
        let made: Vec<&dyn Array> = made.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&made)?))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.strict.documentation()
    }
}
