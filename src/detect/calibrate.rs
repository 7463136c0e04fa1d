//! Stage three: from a score to the probability of a score as high where nothing is anomalous.
//!
//! It deliberately decides nothing: an alarm is the threshold's matter.

use std::f64::consts::FRAC_1_SQRT_2;

use arrow::array::ArrayRef;
use arrow::datatypes::Field;

use crate::error::Result;

/// Turns scores into probabilities, with whatever it keeps of each key for it: nothing, unless it says otherwise.
pub trait Calibrate: Send {
    /// Makes the states of new slots, so that there are `keys`.
    fn grow(&mut self, _keys: usize) {}

    /// The state as columns, one row a slot.
    fn columns(&self) -> Result<Vec<(Field, ArrayRef)>> {
        Ok(Vec::new())
    }

    /// The bytes that the states occupy, unused capacity included.
    fn bytes(&self) -> usize {
        0
    }

    /// What it keeps of the keys in these slots, numbered by their places here.
    #[must_use]
    fn copied(&self, slots: &[u32]) -> Self
    where
        Self: Sized;

    /// Puts the probability of each score into `out`, which is emptied first; NaN where the score is.
    fn p_values(&mut self, slots: &[u32], scores: &[f64], out: &mut Vec<f64>);
}

/// Scores that are standard deviations: the tail of the normal distribution.
///
/// The probability is exact to about 12 digits down to 1e-300 and never 0, so that its logarithm is finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormalTail {
    /// A score is a distance from the mean, in either direction.
    Both,
    /// A score is signed; only what lies above the mean is anomalous.
    Upper,
}

impl NormalTail {
    /// The probability of a score of `z` or more.
    ///
    /// ```
    /// use tidemill::detect::calibrate::NormalTail;
    /// assert!((NormalTail::Both.p_value(1.959_963_984_540_054) - 0.05).abs() < 1e-15);
    /// assert_eq!(NormalTail::Upper.p_value(0.0), 0.5);
    /// ```
    #[inline]
    pub fn p_value(self, z: f64) -> f64 {
        // One minus the error function would be 0 from 8 standard deviations on; the complement is not.
        let both = libm::erfc(z * FRAC_1_SQRT_2);
        let p = match self {
            Self::Both => both,
            Self::Upper => 0.5 * both,
        };
        if p < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { p }
    }
}

impl Calibrate for NormalTail {
    fn copied(&self, _: &[u32]) -> Self {
        *self
    }

    fn p_values(&mut self, _: &[u32], scores: &[f64], out: &mut Vec<f64>) {
        out.clear();
        out.extend(scores.iter().map(|z| self.p_value(*z)));
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these are exact")]
mod tests {
    use super::NormalTail;

    /// Of 50 digits, from mpmath: `erfc(z / sqrt(2))`.
    const REFERENCE: [(f64, f64); 11] = [
        (0.0, 1.0),
        (0.5, 0.617_075_077_451_973_8),
        (1.0, 0.317_310_507_862_914_1),
        (1.959_963_984_540_054, 0.050_000_000_000_000_02),
        (3.290_526_731_491_896, 0.000_999_999_999_999_996_5),
        (5.0, 5.733_031_437_583_878e-7),
        (8.0, 1.244_192_114_854_356_8e-15),
        (10.0, 1.523_970_604_832_105e-23),
        (20.0, 5.507_248_237_212_467e-89),
        (30.0, 9.813_427_854_296_374e-198),
        (37.0, 1.145_114_244_504_915_4e-299),
    ];

    #[test]
    fn the_tail_is_exact_to_its_end() {
        for (z, p) in REFERENCE {
            let relative = (NormalTail::Both.p_value(z) / p - 1.0).abs();
            assert!(relative < 1e-12, "z = {z}: {relative:e} off");
            assert!((NormalTail::Upper.p_value(z) / (p / 2.0) - 1.0).abs() < 1e-12, "z = {z}, upper");
        }
    }

    #[test]
    fn a_probability_is_never_zero_and_none_stays_none() {
        assert_eq!(NormalTail::Both.p_value(1e9), f64::MIN_POSITIVE);
        assert_eq!(NormalTail::Upper.p_value(-1e9), 1.0);
        assert!(NormalTail::Both.p_value(f64::NAN).is_nan());
    }
}
