//! Stage four: one alarm an event, not one a point.
//!
//! A score is loud where it exceeds every score of the key's last `quiet` points. It deliberately does not touch
//! the score itself, which stays comparable from point to point.
//!
//! The exact maximum of a sliding window needs the window. A ring of sixteen block maxima needs 144 bytes a key,
//! and forgets a block at a time: with the usual 150 it covers the last 144 to 152 points.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float64Array, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, UInt32Type};

use crate::detect::pipeline::{column, damaged};
use crate::error::Result;

const BLOCKS: usize = 16;

/// How a number of points is divided into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Points a block.
    block: u32,
    /// Blocks that are remembered beside the one being filled.
    blocks: u32,
}

impl Shape {
    /// The shape whose cover, `block * blocks` to one block less a point more, lies nearest round `quiet`.
    fn of(quiet: u32) -> Self {
        let least = (quiet / 16).max(1);
        let fit = |block: u32| {
            let blocks = (quiet.saturating_sub((block - 1) / 2) + block / 2) / block;
            Self { block, blocks: blocks.clamp(1, 16) }
        };
        let off = |shape: &Self| (2 * shape.block * shape.blocks + shape.block - 1).abs_diff(2 * quiet);
        [fit(least), fit(least + 1)].into_iter().min_by_key(off).unwrap_or(Self { block: 1, blocks: 1 })
    }
}

/// The last scores of one key, as maxima of blocks; nothing seen is minus infinity.
#[derive(Clone, Copy, Debug)]
struct Window {
    open: f64,
    filled: u32,
    oldest: u32,
    closed: [f64; BLOCKS],
}

impl Window {
    const EMPTY: Self =
        Self { open: f64::NEG_INFINITY, filled: 0, oldest: 0, closed: [f64::NEG_INFINITY; BLOCKS] };

    fn largest(&self) -> f64 {
        self.closed.iter().fold(self.open, |largest, score| largest.max(*score))
    }

    #[inline]
    fn add(&mut self, score: f64, shape: Shape) {
        self.open = self.open.max(score);
        self.filled += 1;
        if self.filled >= shape.block {
            self.close(shape);
        }
    }

    fn close(&mut self, shape: Shape) {
        if let Some(oldest) = self.closed.get_mut(self.oldest as usize) {
            *oldest = self.open;
        }
        self.oldest = (self.oldest + 1) % shape.blocks;
        (self.open, self.filled) = (f64::NEG_INFINITY, 0);
    }

    /// The same loudness in blocks of another shape: all that was heard counts as heard just now.
    fn condensed(&self) -> Self {
        Self { open: self.largest(), ..Self::EMPTY }
    }
}

/// What the last scores of each key were.
#[derive(Clone, Debug)]
pub struct Loud {
    quiet: u32,
    shape: Shape,
    windows: Vec<Window>,
}

impl Loud {
    /// The bytes of state a key.
    pub const BYTES_PER_KEY: usize = size_of::<Window>();

    /// Windows of `quiet` points, of no key yet; with 0 every score is loud.
    pub fn new(quiet: u32) -> Self {
        Self { quiet, shape: Shape::of(quiet), windows: Vec::new() }
    }

    /// The points that an alarm must exceed.
    pub fn quiet(&self) -> u32 {
        self.quiet
    }

    /// Makes the windows of new slots.
    pub fn grow(&mut self, keys: usize) {
        if keys > self.windows.len() {
            self.windows.resize(keys, Window::EMPTY);
        }
    }

    /// The windows in these slots, numbered by their places here.
    pub(super) fn copied(&self, slots: &[u32]) -> Self {
        let window = |slot: &u32| self.windows.get(*slot as usize).copied().unwrap_or(Window::EMPTY);
        Self { windows: slots.iter().map(window).collect(), ..Self::new(self.quiet) }
    }

    /// The bytes that the windows occupy.
    pub fn bytes(&self) -> usize {
        self.windows.capacity() * size_of::<Window>()
    }

    /// Where a score is an alarm: its probability is below `threshold`, and it is loud. Scores that are NaN are no
    /// alarm and count in no window.
    pub fn alarms(
        &mut self,
        slots: &[u32],
        scores: &[f64],
        p_values: &[f64],
        threshold: f64,
    ) -> BooleanBuffer {
        let (quiet, shape) = (self.quiet, self.shape);
        let mut rows = slots.iter().zip(scores).zip(p_values);
        BooleanBuffer::collect_bool(slots.len(), |_| {
            let Some(((slot, score), p_value)) = rows.next() else { return false };
            let Some(window) = self.windows.get_mut(*slot as usize) else { return false };
            if score.is_nan() {
                return false;
            }
            // Few points are improbable, so the ring is rarely searched.
            let alarm = *p_value < threshold && (quiet == 0 || *score > window.largest());
            window.add(*score, shape);
            alarm
        })
    }

    /// The columns of the state, one row a slot.
    pub(super) fn columns(&self) -> Result<Vec<(Field, ArrayRef)>> {
        let float =
            |read: fn(&Window) -> f64| Arc::new(self.windows.iter().map(read).collect::<Float64Array>()) as _;
        let count =
            |read: fn(&Window) -> u32| Arc::new(self.windows.iter().map(read).collect::<UInt32Array>()) as _;
        let maxima: Float64Array = self.windows.iter().flat_map(|window| window.closed).collect();
        let closed = FixedSizeListArray::try_new(item(), 16, Arc::new(maxima), None)?;
        Ok(vec![
            (Field::new("loud_open", DataType::Float64, false), float(|window| window.open)),
            (Field::new("loud_filled", DataType::UInt32, false), count(|window| window.filled)),
            (Field::new("loud_oldest", DataType::UInt32, false), count(|window| window.oldest)),
            (Field::new("loud_closed", closed.data_type().clone(), false), Arc::new(closed)),
        ])
    }

    /// The state as [`Loud::columns`] gave it, from windows of `before` points.
    pub(super) fn restore(quiet: u32, before: u32, states: &RecordBatch) -> Result<Self> {
        let open = column(states, "loud_open", &DataType::Float64)?;
        let filled = column(states, "loud_filled", &DataType::UInt32)?;
        let oldest = column(states, "loud_oldest", &DataType::UInt32)?;
        let closed = column(states, "loud_closed", &DataType::FixedSizeList(item(), 16))?;
        let maxima = closed.as_fixed_size_list().values().as_primitive::<Float64Type>();
        let (open, filled) = (open.as_primitive::<Float64Type>(), filled.as_primitive::<UInt32Type>());
        let numbers = filled.values().iter().zip(oldest.as_primitive::<UInt32Type>().values());
        let blocks = maxima.values().as_chunks::<BLOCKS>().0;
        let windows = open.values().iter().zip(numbers).zip(blocks);
        let windows = windows.map(|((open, (filled, oldest)), closed)| Window {
            open: *open,
            filled: *filled,
            oldest: *oldest,
            closed: *closed,
        });
        Self::of_windows(quiet, before, windows.collect())
    }

    fn of_windows(quiet: u32, before: u32, windows: Vec<Window>) -> Result<Self> {
        let shape = Shape::of(before);
        if windows.iter().any(|window| window.filled >= shape.block || window.oldest >= shape.blocks) {
            return Err(damaged(format!(
                "a window of {before} points was expected to fit {shape:?}, found beyond it"
            )));
        }
        let same = Shape::of(quiet) == shape;
        let windows = if same { windows } else { windows.iter().map(Window::condensed).collect() };
        Ok(Self { windows, ..Self::new(quiet) })
    }
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float64, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The points before an alarm's own that a score must exceed, by trying each distance.
    fn cover(quiet: u32) -> (u32, u32) {
        let mut covers = Vec::new();
        for before in 0..64 {
            let heard = |distance: u32| {
                let mut loud = Loud::new(quiet);
                loud.grow(1);
                let mut scores = vec![0.0; before];
                scores.push(9.0);
                scores.extend(vec![0.0; distance as usize - 1]);
                scores.push(5.0);
                let rows = scores.len();
                !loud.alarms(&vec![0; rows], &scores, &vec![0.0; rows], 0.5).value(rows - 1)
            };
            covers.push((1..1_000).take_while(|distance| heard(*distance)).max().unwrap_or(0));
        }
        (*covers.iter().min().unwrap(), *covers.iter().max().unwrap())
    }

    #[test]
    fn a_hundred_and_fifty_points_are_covered_within_a_block() {
        assert_eq!(cover(150), (144, 152));
    }

    #[test]
    fn few_points_are_covered_exactly() {
        for quiet in 1..=16 {
            assert_eq!(cover(quiet), (quiet, quiet));
        }
    }

    #[test]
    fn any_number_of_points_is_covered_within_a_tenth() {
        for quiet in 17..3_000 {
            let Shape { block, blocks } = Shape::of(quiet);
            let (least, most) = (block * blocks, block * blocks + block - 1);
            assert!(f64::from(least) >= 0.9 * f64::from(quiet) - 1.0, "{quiet}: {least} to {most}");
            assert!(f64::from(most) <= 1.1 * f64::from(quiet) + 1.0, "{quiet}: {least} to {most}");
        }
    }

    #[test]
    fn without_quiet_every_improbable_point_is_an_alarm() {
        let mut loud = Loud::new(0);
        loud.grow(1);
        let alarms = loud.alarms(&[0, 0, 0], &[5.0, 4.0, 3.0], &[1e-4, 1e-4, 0.5], 1e-3);
        assert_eq!(alarms.iter().collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn no_score_counts_in_no_window() {
        let mut loud = Loud::new(1);
        loud.grow(1);
        let alarms = loud.alarms(&[0, 0, 0], &[5.0, f64::NAN, 4.0], &[0.0, f64::NAN, 0.0], 1e-3);
        assert_eq!(alarms.iter().collect::<Vec<_>>(), [true, false, false]);
    }
}
