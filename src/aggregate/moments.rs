//! var and stddev: count, mean and the sum of squared deviations, kept without cancellation.
//!
//! Rows come in by Welford's rule, partials by that of Chan and others (1979): what rounding leaves depends on where
//! batches were cut, by some parts in 10¹⁵ of the variance. It deliberately keeps no higher moments.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};

use crate::aggregate::column::{bytes_of, check, check_slots, each, primitive};
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::Result;

pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let takes = "one column of numbers";
    let argument = call.only_argument(takes)?;
    if !argument.data_type().is_numeric() {
        return Err(call.misfit(takes));
    }
    let measure = match crate::aggregate::own_name(call.name) {
        Some("var_pop") => Measure { lost: 0, root: Root::None },
        Some("stddev") => Measure { lost: 1, root: Root::Square },
        Some("stddev_pop") => Measure { lost: 0, root: Root::Square },
        _ => Measure { lost: 1, root: Root::None },
    };
    Ok(Arc::new(Moments { field: call.result(DataType::Float64, true), measure }))
}

#[derive(Clone, Copy, Debug)]
enum Root {
    None,
    Square,
}

/// What is made of the moments.
#[derive(Clone, Copy, Debug)]
struct Measure {
    /// The degrees of freedom that the estimate of the mean costs: 1 of a sample, 0 of a population.
    lost: i64,
    root: Root,
}

impl Measure {
    fn of(self, moments: Moment) -> Option<f64> {
        let freedom = moments.count - self.lost;
        let variance = (freedom > 0).then(|| moments.squares() / freedom as f64)?;
        Some(match self.root {
            Root::None => variance,
            Root::Square => variance.sqrt(),
        })
    }
}

#[derive(Debug)]
struct Moments {
    field: Field,
    measure: Measure,
}

impl Function for Moments {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![
            Field::new("count", DataType::Int64, false),
            Field::new("mean", DataType::Float64, false),
            Field::new("squares", DataType::Float64, false),
        ]
    }

    fn form(&self) -> Option<&'static str> {
        Some("moments 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(MomentColumn { measure: self.measure, moments: Vec::new() }))
    }
}

/// The first two moments of some values. One row and not three columns: all three change with every value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub(super) count: i64,
    pub(super) mean: f64,
    squares: f64,
}

impl Moment {
    pub(super) fn new(count: i64, mean: f64, squares: f64) -> Self {
        Self { count, mean, squares }
    }

    /// The sum of squared deviations. Below zero it gets only where a mean has left float64 on the way, and nothing is
    /// known any more.
    pub(super) fn squares(self) -> f64 {
        if self.squares < 0.0 { f64::NAN } else { self.squares }
    }

    #[inline]
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    pub(super) fn merge(&mut self, other: Self) {
        // Also what keeps the bits: an empty side changes nothing.
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other;
            return;
        }
        let (own, others) = (self.count as f64, other.count as f64);
        let apart = other.mean - self.mean;
        let share = others / (own + others);
        self.count += other.count;
        self.mean += apart * share;
        self.squares += other.squares + apart * apart * own * share;
    }
}

#[derive(Debug)]
struct MomentColumn {
    measure: Measure,
    moments: Vec<Moment>,
}

impl MomentColumn {
    fn rows(&self, slots: &[u32]) -> Result<impl Iterator<Item = Moment> + Clone> {
        check_slots(slots, self.moments.len())?;
        Ok(slots.iter().filter_map(|slot| self.moments.get(*slot as usize)).copied())
    }
}

impl Accumulator for MomentColumn {
    fn grow(&mut self, slots: usize) {
        self.moments.resize(slots.max(self.moments.len()), Moment::default());
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.moments.len())?;
        let values = primitive::<Float64Type>(arguments, 0, &DataType::Float64)?;
        each(slots, &values, |slot, value| {
            if let Some(moment) = self.moments.get_mut(slot) {
                moment.add(value);
            }
        });
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.moments.len())?;
        let counts = primitive::<Int64Type>(state, 0, &DataType::Int64)?;
        let means = primitive::<Float64Type>(state, 1, &DataType::Float64)?;
        let squares = primitive::<Float64Type>(state, 2, &DataType::Float64)?;
        let rows = counts.values().iter().zip(means.values()).zip(squares.values());
        for (slot, ((count, mean), squares)) in slots.iter().zip(rows) {
            if let Some(moment) = self.moments.get_mut(*slot as usize) {
                moment.merge(Moment::new(*count, *mean, *squares));
            }
        }
        Ok(())
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let rows = self.rows(slots)?;
        let counts: Vec<i64> = rows.clone().map(|moment| moment.count).collect();
        let means: Vec<f64> = rows.clone().map(|moment| moment.mean).collect();
        let squares: Vec<f64> = rows.map(|moment| moment.squares).collect();
        Ok(vec![
            Arc::new(Int64Array::from(counts)),
            Arc::new(Float64Array::from(means)),
            Arc::new(Float64Array::from(squares)),
        ])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let measures = self.rows(slots)?.map(|moment| self.measure.of(moment));
        Ok(Arc::new(measures.collect::<Float64Array>()))
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.moments)
    }
}
