//! Values that a detector makes nothing of: counted while it works, and told once.
//!
//! It deliberately takes a null now and then for what it is, a value that is missing: told are values that are there and no
//! numbers, and columns in which nothing but null comes.

use std::ops::AddAssign;

use arrow::array::{Array, Float64Array};

use crate::error::{Error, in_thousands};

/// So many values are enough to say that there is none but null.
const ENOUGH: u64 = 1_000;

/// Of the values that a detector was given since the start, those without a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unscored {
    values: u64,
    nulls: u64,
    /// NaN and the infinities.
    refused: u64,
}

impl AddAssign for Unscored {
    fn add_assign(&mut self, other: Self) {
        self.values += other.values;
        self.nulls += other.nulls;
        self.refused += other.refused;
    }
}

impl Unscored {
    /// Takes in the values of one column.
    pub(crate) fn count(&mut self, values: &Float64Array) {
        self.values += values.len() as u64;
        self.nulls += values.null_count() as u64;
        // What lies under a null is mostly zero; only where something does not look so is it asked row by row.
        if values.values().iter().any(|value| !value.is_finite()) {
            self.refused += values.iter().flatten().filter(|value| !value.is_finite()).count() as u64;
        }
    }

    /// What there is to be said about `columns`, if there is.
    pub(crate) fn warning(&self, columns: &[String]) -> Option<Error> {
        let (values, columns) = (in_thousands(self.values), columns.join(", "));
        if self.refused > 0 {
            let refused = in_thousands(self.refused);
            let text = format!(
                "of {values} values of {columns} {refused} are NaN or infinite: they have no score and are not learnt"
            );
            return Some(
                Error::data(text)
                    .help("look where they come from, or leave them out with .filter(~col(…).is_nan())"),
            );
        }
        (self.values >= ENOUGH && self.nulls == self.values).then(|| {
            let text = format!("all of {values} values of {columns} are null: no row has a score");
            Error::data(text).help("check the column's name and type at the source, and how it is computed")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(values: Vec<Option<f64>>) -> Option<String> {
        let mut unscored = Unscored::default();
        unscored.count(&Float64Array::from(values));
        unscored.warning(&["x".to_owned()]).map(|warning| warning.to_string())
    }

    #[test]
    fn a_value_that_is_no_number_is_told_and_a_null_now_and_then_is_not() {
        assert_eq!(text(vec![Some(1.0), None, Some(2.0)]), None);
        let found = text(vec![Some(1.0), Some(f64::NAN), None, Some(f64::INFINITY)]).unwrap();
        assert!(found.starts_with("of 4 values of x 2 are NaN or infinite"), "{found}");
    }

    #[test]
    fn a_column_of_nulls_alone_is_told_once_there_are_many() {
        assert_eq!(text(vec![None; 999]), None);
        assert!(text(vec![None; 1_000]).unwrap().starts_with("all of 1,000 values of x are null"));
    }
}
