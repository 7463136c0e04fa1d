//! Two columns at once: corr, covar and the regr functions, from the moments of pairs, kept without cancellation.
//!
//! Pairs come in by Welford's rule, partials by that of Chan and others (1979), since sums of squares of what is far from
//! zero (times, counters, positions) have no digit left for how it varies. Of a pair with a null nothing is taken. It
//! deliberately keeps no pair.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};

use crate::aggregate::column::{bytes_of, check, check_slots, primitive};
use crate::aggregate::moments::Moment;
use crate::aggregate::{Accumulator, Call, Function};
use crate::error::Result;

/// What a function makes of the moments; null where there are too few pairs, or a column does not vary.
type Measure = fn(&Pairs) -> Option<f64>;

/// The functions by their names. As in SQL the regr functions take y first.
const MEASURES: &[(&str, Measure)] = &[
    ("corr", |pairs| pairs.varied(pairs.both_vary()).map(Pairs::correlation)),
    ("covar", |pairs| over(pairs.xy, pairs.count() - 1)),
    ("covar_pop", |pairs| over(pairs.xy, pairs.count())),
    ("covar_samp", |pairs| over(pairs.xy, pairs.count() - 1)),
    ("regr_avgx", |pairs| pairs.of_any(pairs.x.mean)),
    ("regr_avgy", |pairs| pairs.of_any(pairs.y.mean)),
    ("regr_intercept", |pairs| pairs.slope().map(|slope| pairs.y.mean - slope * pairs.x.mean)),
    ("regr_r2", |pairs| Some(pairs.varied(pairs.both_vary())?.correlation().powi(2))),
    ("regr_slope", Pairs::slope),
    ("regr_sxx", |pairs| pairs.of_any(pairs.x.squares())),
    ("regr_sxy", |pairs| pairs.of_any(pairs.xy)),
    ("regr_syy", |pairs| pairs.of_any(pairs.y.squares())),
];

const COUNT: &str = "regr_count";

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    MEASURES.iter().map(|(name, _)| *name).chain([COUNT])
}

/// The function of this name, where it is one of these.
pub(super) fn function(call: &Call<'_>) -> Option<Result<Arc<dyn Function>>> {
    let measure = MEASURES.iter().find(|(name, _)| *name == call.name).map(|(_, measure)| *measure);
    if measure.is_none() && call.name != COUNT {
        return None;
    }
    let are_numbers = call.arguments.iter().all(|argument| argument.data_type().is_numeric());
    if call.arguments.len() != 2 || !call.literals.is_empty() || !are_numbers {
        return Some(Err(call.misfit("two columns of numbers")));
    }
    let data_type = if measure.is_some() { DataType::Float64 } else { DataType::UInt64 };
    let order = if call.name.starts_with("regr_") { Order::YFirst } else { Order::XFirst };
    Some(Ok(Arc::new(OfPairs { field: call.result(data_type, measure.is_some()), measure, order })))
}

#[derive(Clone, Copy, Debug)]
enum Order {
    XFirst,
    YFirst,
}

#[derive(Clone, Debug)]
struct OfPairs {
    field: Field,
    /// None counts the pairs.
    measure: Option<Measure>,
    order: Order,
}

impl Function for OfPairs {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        let moment = |name: &str| Field::new(name, DataType::Float64, false);
        let count = Field::new("count", DataType::Int64, false);
        std::iter::once(count).chain(["x", "y", "xx", "yy", "xy"].map(moment)).collect()
    }

    fn form(&self) -> Option<&'static str> {
        Some("pairs 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(PairColumn { function: self.clone(), slots: Vec::new() }))
    }
}

/// The moments of either side, and the sum of the products of their deviations.
#[derive(Clone, Copy, Debug, Default)]
struct Pairs {
    x: Moment,
    y: Moment,
    xy: f64,
}

impl Pairs {
    #[inline]
    fn add(&mut self, x: f64, y: f64) {
        let before = x - self.x.mean;
        self.x.add(x);
        self.y.add(y);
        self.xy += before * (y - self.y.mean);
    }

    fn merge(&mut self, other: Self) {
        let apart = (other.x.mean - self.x.mean) * (other.y.mean - self.y.mean);
        self.xy = match (self.count() as f64, other.count() as f64) {
            // Also what keeps the bits: an empty side changes nothing.
            (_, 0.0) => self.xy,
            (0.0, _) => other.xy,
            (own, others) => self.xy + other.xy + apart * own * (others / (own + others)),
        };
        self.x.merge(other.x);
        self.y.merge(other.y);
    }

    fn count(&self) -> i64 {
        self.x.count
    }

    fn both_vary(&self) -> bool {
        self.x.squares() > 0.0 && self.y.squares() > 0.0
    }

    /// These, where there are two and `varies`, or what it is cannot be said.
    fn varied(&self, varies: bool) -> Option<&Self> {
        let is_unknown = self.x.squares().is_nan() || self.y.squares().is_nan();
        (self.count() > 1 && (varies || is_unknown)).then_some(self)
    }

    /// Rounding may leave it beyond 1.
    fn correlation(&self) -> f64 {
        (self.xy / (self.x.squares().sqrt() * self.y.squares().sqrt())).clamp(-1.0, 1.0)
    }

    fn slope(&self) -> Option<f64> {
        self.varied(self.x.squares() > 0.0).map(|pairs| pairs.xy / pairs.x.squares())
    }

    fn of_any(&self, moment: f64) -> Option<f64> {
        (self.count() > 0).then_some(moment)
    }
}

fn over(moment: f64, freedom: i64) -> Option<f64> {
    (freedom > 0).then(|| moment / freedom as f64)
}

#[derive(Debug)]
struct PairColumn {
    function: OfPairs,
    slots: Vec<Pairs>,
}

impl PairColumn {
    fn rows(&self, slots: &[u32]) -> Result<impl Iterator<Item = &Pairs> + Clone> {
        check_slots(slots, self.slots.len())?;
        Ok(slots.iter().filter_map(|slot| self.slots.get(*slot as usize)))
    }
}

impl Accumulator for PairColumn {
    fn grow(&mut self, slots: usize) {
        self.slots.resize(slots.max(self.slots.len()), Pairs::default());
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.slots.len())?;
        let (first, second) = match self.function.order {
            Order::XFirst => (0, 1),
            Order::YFirst => (1, 0),
        };
        let x = primitive::<Float64Type>(arguments, first, &DataType::Float64)?;
        let y = primitive::<Float64Type>(arguments, second, &DataType::Float64)?;
        for (slot, pair) in slots.iter().zip(x.iter().zip(y.iter())) {
            if let ((Some(x), Some(y)), Some(pairs)) = (pair, self.slots.get_mut(*slot as usize)) {
                pairs.add(x, y);
            }
        }
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.slots.len())?;
        let counts = primitive::<Int64Type>(state, 0, &DataType::Int64)?;
        let moment = |column| primitive::<Float64Type>(state, column, &DataType::Float64);
        let (x, y) = (moment(1)?, moment(2)?);
        let (xx, yy, xy) = (moment(3)?, moment(4)?, moment(5)?);
        let means = counts.values().iter().zip(x.values()).zip(y.values());
        let products = xx.values().iter().zip(yy.values()).zip(xy.values());
        for (slot, (((count, x), y), ((xx, yy), xy))) in slots.iter().zip(means.zip(products)) {
            if let Some(pairs) = self.slots.get_mut(*slot as usize) {
                let (x, y) = (Moment::new(*count, *x, *xx), Moment::new(*count, *y, *yy));
                pairs.merge(Pairs { x, y, xy: *xy });
            }
        }
        Ok(())
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let rows = self.rows(slots)?;
        let moment = |of: fn(&Pairs) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(rows.clone().map(of)))
        };
        let counts = Int64Array::from_iter_values(rows.clone().map(Pairs::count));
        Ok(vec![
            Arc::new(counts),
            moment(|pairs| pairs.x.mean),
            moment(|pairs| pairs.y.mean),
            moment(|pairs| pairs.x.squares()),
            moment(|pairs| pairs.y.squares()),
            moment(|pairs| pairs.xy),
        ])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let rows = self.rows(slots)?;
        let counts = || UInt64Array::from_iter_values(rows.clone().map(|pairs| pairs.count().unsigned_abs()));
        let measured = |measure| Arc::new(rows.clone().map(measure).collect::<Float64Array>()) as ArrayRef;
        Ok(self.function.measure.map_or_else(|| Arc::new(counts()) as ArrayRef, measured))
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.slots)
    }
}
