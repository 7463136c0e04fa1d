//! `approx_quantile`, `approx_median`: a t-digest a slot, and before it the values that are not in it yet.
//!
//! Values wait until they are many and go into the digest together: sorted once and merged once, each costs what a sort
//! of few costs, where a digest that is merged for a handful of rows is mostly copied and allocated. The
//! quantile of few values is then exact: before [`WAITING`] have come there is no digest. The digest itself (Dunning and
//! Ertl, 2019) is DataFusion's; this file deliberately has no arithmetic of its own beside it but for NaN, which the digest
//! would spread over its centroids: it is counted apart, as larger than every number.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion_common::ScalarValue;
use datafusion_functions_aggregate_common::tdigest::{Centroid, DEFAULT_MAX_SIZE, TDigest};

use crate::aggregate::column::{allocated, argument, bytes_of, check, check_slots, each, primitive};
use crate::aggregate::sketches::{Sketch, Sketches};
use crate::aggregate::{Accumulator, Function};
use crate::error::{Error, Result};

/// So many values of a slot wait before they go into its digest. With half as many, groups of some hundred rows a batch
/// took in half as many rows a second, since more partials had to be merged as digests; it costs 2 KiB a slot.
const WAITING: usize = 256;

/// The function whose result has this field, where it is a float; `literals` are the quantile (0.5 without one) and
/// the size of the digest.
pub(super) fn function(field: &Field, literals: &[ScalarValue]) -> Option<Arc<dyn Function>> {
    if !field.data_type().is_floating() {
        return None;
    }
    let part = literals.first().map_or(Some(0.5), |value| match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(part)) => part,
        _ => None,
    })?;
    let size =
        literals.get(1).map_or(Some(DEFAULT_MAX_SIZE), |value| match value.cast_to(&DataType::UInt32) {
            Ok(ScalarValue::UInt32(size)) => size.map(|size| size as usize),
            _ => None,
        })?;
    Some(Arc::new(Quantile { field: field.clone(), part, size }))
}

#[derive(Clone, Debug)]
struct Quantile {
    field: Field,
    /// From 0 to 1.
    part: f64,
    /// About how many centroids a digest has.
    size: usize,
}

impl Function for Quantile {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        let list = |name| Field::new(name, DataType::List(item()), false);
        let number = |name| Field::new(name, DataType::Float64, true);
        let nans = Field::new("nans", DataType::Int64, false);
        vec![list("means"), list("weights"), number("min"), number("max"), list("waiting"), nans]
    }

    fn form(&self) -> Option<&'static str> {
        Some("t-digest 1")
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Quantiles { function: self.clone(), slots: Sketches::new() }))
    }
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float64, true))
}

/// What is known of the values of one slot.
#[derive(Clone, Debug, Default)]
struct Held {
    /// Of all values but those that wait; none of few values. Boxed, since most slots of many have few.
    digest: Option<Box<TDigest>>,
    /// Fewer than [`WAITING`], in order of arrival.
    waiting: Vec<f64>,
    nans: i64,
}

impl Held {
    #[inline]
    fn add(&mut self, value: f64, size: usize) {
        if value.is_nan() {
            self.nans += 1;
            return;
        }
        self.waiting.push(value);
        if self.waiting.len() >= WAITING {
            self.condense(size);
        }
    }

    /// Has nothing wait.
    fn condense(&mut self, size: usize) {
        self.waiting.sort_unstable_by(f64::total_cmp);
        let merged = match &self.digest {
            Some(digest) => digest.merge_sorted_f64(&self.waiting),
            None => TDigest::new(size).merge_sorted_f64(&self.waiting),
        };
        self.digest = Some(Box::new(merged));
        self.waiting.clear();
    }

    /// Takes in what another sketch knows; into an empty one as it is, so that going on from there gives the same bits.
    fn merge(&mut self, other: Self, size: usize) {
        if let Some(theirs) = other.digest {
            if !self.waiting.is_empty() {
                self.condense(size);
            }
            self.digest = Some(match self.digest.take() {
                Some(own) => Box::new(TDigest::merge_digests([own.as_ref(), theirs.as_ref()])),
                None => theirs,
            });
        }
        self.nans += other.nans;
        other.waiting.into_iter().for_each(|value| self.add(value, size));
    }

    /// About the value below which a `part` lies; none of no values.
    fn quantile(&self, part: f64) -> Option<f64> {
        let mut waiting = self.waiting.clone();
        waiting.sort_unstable_by(f64::total_cmp);
        let Some(digest) = &self.digest else { return exact(&waiting, self.nans, part) };
        let digest = digest.merge_sorted_f64(&waiting);
        let (count, all) = (digest.count(), digest.count() + self.nans as f64);
        Some(if part * all <= count { estimate(&digest, part * all / count) } else { f64::NAN })
    }
}

impl Sketch for Held {
    fn heap(&self) -> usize {
        let digest = self.digest.as_ref();
        let digest = digest.map_or(0, |digest| {
            let own = size_of::<TDigest>();
            allocated(own) + allocated(digest.size().saturating_sub(own))
        });
        allocated(bytes_of(&self.waiting)) + digest
    }
}

/// Beside an infinity nothing lies between two centroids, and the digest says NaN: then it is the centroid itself.
fn estimate(digest: &TDigest, part: f64) -> f64 {
    let found = digest.estimate_quantile(part);
    if !found.is_nan() {
        return found;
    }
    let (rank, mut below) = (part * digest.count(), 0.0);
    let reaches = |centroid: &&Centroid| {
        below += centroid.weight();
        below >= rank
    };
    digest.centroids().iter().find(reaches).map_or(found, Centroid::mean)
}

/// The quantile of these sorted values and of NaNs behind them, on the line between the two nearest, as NumPy and SQL's
/// `percentile_cont` have it.
fn exact(sorted: &[f64], nans: i64, part: f64) -> Option<f64> {
    let last = (sorted.len() as f64 + nans as f64 - 1.0).max(0.0);
    let place = part.clamp(0.0, 1.0) * last;
    let nan = (nans > 0).then_some(f64::NAN);
    let value = |place: f64| sorted.get(index(place)).copied().or(nan);
    let (below, above) = (value(place.floor())?, value(place.ceil())?);
    let way = place - place.floor();
    let apart = above - below;
    Some(match way {
        0.0 => below,
        _ if apart.is_finite() => below + apart * way,
        // Infinities have no difference, nor the two ends of all floats.
        _ => below * (1.0 - way) + above * way,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below a length")]
fn index(place: f64) -> usize {
    place as usize
}

#[derive(Debug)]
struct Quantiles {
    function: Quantile,
    slots: Sketches<Held>,
}

impl Accumulator for Quantiles {
    fn grow(&mut self, slots: usize) {
        self.slots.grow(slots);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.slots.len())?;
        let values = primitive::<Float64Type>(arguments, 0, &DataType::Float64)?;
        let size = self.function.size;
        each(slots, &values, |slot, value| self.slots.change(slot, |sketch| sketch.add(value, size)));
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.slots.len())?;
        let size = self.function.size;
        let states = States::new(state, size)?;
        for (row, slot) in slots.iter().enumerate() {
            let other = states.sketch(row)?;
            self.slots.change(*slot as usize, |sketch| sketch.merge(other, size));
        }
        Ok(())
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        check_slots(slots, self.slots.len())?;
        let digests = || self.slots.of(slots).map(|sketch| sketch.digest.as_deref());
        let centroids = |digest: Option<&TDigest>| digest.map(|digest| digest.centroids().to_vec());
        let centroids = || digests().map(move |digest| centroids(digest).unwrap_or_default());
        let min: Float64Array = digests().map(|digest| digest.map(TDigest::min)).collect();
        let max: Float64Array = digests().map(|digest| digest.map(TDigest::max)).collect();
        let nans: Int64Array = self.slots.of(slots).map(|sketch| Some(sketch.nans)).collect();
        Ok(vec![
            lists(centroids().map(|all| all.iter().map(Centroid::mean).collect::<Vec<_>>()))?,
            lists(centroids().map(|all| all.iter().map(Centroid::weight).collect::<Vec<_>>()))?,
            Arc::new(min),
            Arc::new(max),
            lists(self.slots.of(slots).map(|sketch| &sketch.waiting))?,
            Arc::new(nans),
        ])
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.slots.len())?;
        let Quantile { part, field, .. } = &self.function;
        let found: Float64Array = self.slots.of(slots).map(|sketch| sketch.quantile(*part)).collect();
        Ok(cast(&found, field.data_type())?)
    }

    fn bytes(&self) -> usize {
        self.slots.bytes()
    }
}

/// Lists of floats.
fn lists(rows: impl Iterator<Item = impl AsRef<[f64]>> + Clone) -> Result<ArrayRef> {
    let lengths: Vec<usize> = rows.clone().map(|row| row.as_ref().len()).collect();
    if i32::try_from(lengths.iter().sum::<usize>()).is_err() {
        return Err(Error::memory_limit("the quantiles of one shard hold more than 2,147,483,647 values")
            .help("use more shards or shorter windows"));
    }
    let mut values = Vec::with_capacity(lengths.iter().sum());
    rows.for_each(|row| values.extend_from_slice(row.as_ref()));
    let values: ArrayRef = Arc::new(Float64Array::from(values));
    Ok(Arc::new(ListArray::new(item(), OffsetBuffer::from_lengths(lengths), values, None)))
}

/// The columns of states.
struct States {
    means: ListArray,
    weights: ListArray,
    min: Float64Array,
    max: Float64Array,
    waiting: ListArray,
    nans: Int64Array,
    size: usize,
}

impl States {
    fn new(state: &[ArrayRef], size: usize) -> Result<Self> {
        let lists = |index| -> Result<ListArray> {
            Ok(argument(state, index, &DataType::List(item()))?.as_list::<i32>().clone())
        };
        let number = |index| primitive::<Float64Type>(state, index, &DataType::Float64);
        Ok(Self {
            means: lists(0)?,
            weights: lists(1)?,
            min: number(2)?,
            max: number(3)?,
            waiting: lists(4)?,
            nans: primitive::<Int64Type>(state, 5, &DataType::Int64)?,
            size,
        })
    }

    fn sketch(&self, row: usize) -> Result<Held> {
        let (means, weights) = (floats(&self.means, row), floats(&self.weights, row));
        let nans = if self.nans.is_valid(row) { self.nans.value(row) } else { 0 };
        let digest = if means.is_empty() { None } else { Some(self.digest(row, &means, &weights)?) };
        Ok(Held { digest: digest.map(Box::new), waiting: floats(&self.waiting, row), nans })
    }

    fn digest(&self, row: usize, means: &[f64], weights: &[f64]) -> Result<TDigest> {
        let pairs = means.iter().zip(weights);
        let centroids = pairs.clone().map(|(mean, weight)| Centroid::new(*mean, *weight)).collect();
        // The digest keeps a sum that no quantile asks for. Weights are whole numbers: their sum is exact.
        let sum = pairs.map(|(mean, weight)| mean * weight).sum();
        let (count, max, min) = (weights.iter().sum(), self.max.value(row), self.min.value(row));
        let digest = TDigest::try_from_parts(self.size, sum, count, max, min, centroids);
        digest.map_err(|error| Error::internal("the state of a quantile is no t-digest").caused_by(error))
    }
}

fn floats(lists: &ListArray, row: usize) -> Vec<f64> {
    if lists.is_null(row) {
        return Vec::new();
    }
    lists.value(row).as_primitive::<Float64Type>().values().to_vec()
}
