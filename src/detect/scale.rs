//! Stage one: what a detector may see of a value.
//!
//! Values that are not finite become NaN, the pipeline's "none": they get no score, are not learnt and count in no
//! window. Huge ones are brought to a bound. It deliberately knows no state: a detector that scales by what it has
//! seen does so in the units of its own score.

use arrow::array::{Array, Float64Array};

/// Larger magnitudes are brought to this one: the square of a difference of two values is then still finite, and so
/// is every sum of squares.
pub const LARGEST: f64 = 1e150;

/// Puts what a detector may see of `values` into `out`, which is emptied first.
///
/// ```
/// use arrow::array::Float64Array;
/// use tidemill::detect::scale::{LARGEST, believable};
/// let mut out = Vec::new();
/// believable(&Float64Array::from(vec![Some(20.5), Some(f64::NAN), None, Some(-1e300)]), &mut out);
/// assert!(out[0] == 20.5 && out[1].is_nan() && out[2].is_nan() && out[3] == -LARGEST);
/// ```
pub fn believable(values: &Float64Array, out: &mut Vec<f64>) {
    out.clear();
    match values.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => out.extend(values.values().iter().map(|value| bounded(*value))),
        Some(_) => out.extend(values.iter().map(|value| value.map_or(f64::NAN, bounded))),
    }
}

#[inline]
fn bounded(value: f64) -> f64 {
    if value.is_finite() { value.clamp(-LARGEST, LARGEST) } else { f64::NAN }
}
