//! Which pane a moment falls into, and which windows a pane belongs to.
//!
//! A pane is the longest stretch of time that every window covers wholly or not at all: the greatest common divisor of
//! length and slide. A row is kept once, in its pane, however many windows overlap there. This file is arithmetic on the
//! ticks of one column and deliberately holds no state.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use arrow::datatypes::{DataType, TimeUnit};

use crate::error::{Error, Result, in_thousands};
use crate::time::{EventTime, ticks_a_second};
use crate::types::type_name;

/// Windows as the user said them: half-open, aligned to the epoch in UTC but for `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowShape {
    /// How long a window is.
    pub length: Duration,
    /// From the start of one to the start of the next; the length, where they do not overlap.
    pub slide: Duration,
    /// How far the starts are moved from multiples of the slide.
    pub offset: Duration,
}

impl fmt::Display for WindowShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.length)?;
        if self.slide != self.length {
            write!(f, " every {:?}", self.slide)?;
        }
        if self.offset.is_zero() { Ok(()) } else { write!(f, " offset {:?}", self.offset) }
    }
}

/// The number of a pane: 0 begins at the epoch, or `offset` after it.
pub type PaneNumber = i64;

/// Windows over a column of timestamps in one unit.
///
/// ```
/// use std::time::Duration;
/// use arrow::datatypes::TimeUnit;
/// use tidemill::state::window::{WindowShape, Windows};
///
/// let (length, slide) = (Duration::from_secs(10), Duration::from_secs(5));
/// let shape = WindowShape { length, slide, offset: Duration::ZERO };
/// let windows = Windows::new(shape, TimeUnit::Millisecond)?;
/// let pane = windows.pane_of(12_345);
/// let starts: Vec<i64> = windows.of_pane(pane).map(|window| windows.start(window)).collect();
/// assert_eq!(starts, [5_000, 10_000]);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    unit: TimeUnit,
    pane: i64,   // ticks
    offset: i64, // ticks
    length: i64, // panes
    slide: i64,  // panes
}

impl Windows {
    /// The windows of `shape` over timestamps in `unit`, of which all lengths must be whole numbers.
    pub fn new(shape: WindowShape, unit: TimeUnit) -> Result<Self> {
        let length = positive("length", ticks("length", shape.length, unit)?)?;
        let slide = positive("slide", ticks("slide", shape.slide, unit)?)?;
        if slide > length {
            let message = format!(
                "a window's slide is at most its length ({:?}), found {:?}: rows in between would be in no window",
                shape.length, shape.slide
            );
            return Err(Error::config(message).help("make the slide shorter, or filter the rows before"));
        }
        bearable(shape, length, slide)?;
        let pane = greatest_common_divisor(length, slide);
        let offset = ticks("offset", shape.offset, unit)?.rem_euclid(slide);
        Ok(Self { unit, pane, offset, length: length / pane, slide: slide / pane })
    }

    /// The pane that a moment falls into.
    #[inline]
    pub fn pane_of(&self, tick: i64) -> PaneNumber {
        tick.saturating_sub(self.offset).div_euclid(self.pane)
    }

    /// The ticks of a pane.
    pub fn ticks_of(&self, pane: PaneNumber) -> Range<i64> {
        let start = pane.saturating_mul(self.pane).saturating_add(self.offset);
        start..start.saturating_add(self.pane)
    }

    /// The numbers of the windows that cover a pane.
    pub fn of_pane(&self, pane: PaneNumber) -> Range<i64> {
        let before = pane.saturating_sub(self.length).div_euclid(self.slide);
        before.saturating_add(1)..pane.div_euclid(self.slide).saturating_add(1)
    }

    /// The panes of a window.
    pub fn panes_of(&self, window: i64) -> Range<PaneNumber> {
        let start = window.saturating_mul(self.slide);
        start..start.saturating_add(self.length)
    }

    /// The first window that ends after `tick`.
    pub fn first_ending_after(&self, tick: i64) -> i64 {
        let [tick, pane, offset] = [tick, self.pane, self.offset].map(i128::from);
        let [length, slide] = [self.length, self.slide].map(i128::from);
        let number = (tick - offset - length * pane).div_euclid(slide * pane) + 1;
        i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
    }

    /// The first window from `from` on that covers any of `panes`. To go on behind it each time is to visit these
    /// windows alone, however many others lie between.
    ///
    /// ```
    /// # use std::{collections::BTreeMap, time::Duration};
    /// # use arrow::datatypes::TimeUnit;
    /// # use tidemill::state::window::{WindowShape, Windows};
    /// let (length, slide) = (Duration::from_secs(10), Duration::from_secs(5));
    /// let windows = Windows::new(WindowShape { length, slide, offset: Duration::ZERO }, TimeUnit::Second)?;
    /// let panes = BTreeMap::from([(3, "early"), (1_000_000, "late")]);
    /// assert_eq!(windows.next_over(0, &panes), Some(2));
    /// assert_eq!(windows.next_over(4, &panes), Some(999_999));
    /// assert_eq!(windows.next_over(1_000_001, &panes), None);
    /// # Ok::<(), tidemill::error::Error>(())
    /// ```
    pub fn next_over<T>(&self, from: i64, panes: &BTreeMap<PaneNumber, T>) -> Option<i64> {
        let (pane, _) = panes.range(self.panes_of(from).start..).next()?;
        Some(self.of_pane(*pane).start.max(from))
    }

    /// The ticks of which every window begins and ends at a tick that there is.
    pub fn placeable(&self) -> RangeInclusive<i64> {
        let length = self.length.saturating_mul(self.pane);
        i64::MIN.saturating_add(length).saturating_add(self.offset)..=i64::MAX.saturating_sub(length)
    }

    /// Where a window starts, in ticks.
    pub fn start(&self, window: i64) -> i64 {
        self.ticks_of(window.saturating_mul(self.slide)).start
    }

    /// Where a window ends, in ticks: the first that it does not cover.
    pub fn end(&self, window: i64) -> i64 {
        self.start(window).saturating_add(self.length * self.pane)
    }

    /// Where the last window ends that covers `pane`.
    pub fn last_end(&self, pane: PaneNumber) -> i64 {
        self.end(pane.div_euclid(self.slide))
    }

    /// How many panes a window has.
    pub fn panes_a_window(&self) -> i64 {
        self.length
    }

    /// Whether no two windows overlap.
    pub fn are_tumbling(&self) -> bool {
        self.length == self.slide
    }

    /// `time` in ticks, rounded down: a window that ends at or before it has ended.
    pub fn tick(&self, time: EventTime) -> i64 {
        time.ticks(self.unit)
    }
}

/// The windows that rows have come to and that have not ended, as runs of neighbouring numbers.
///
/// Windows open by panes and end in order, so a set costs what it has gaps and not what it has windows.
///
/// ```
/// use tidemill::state::window::OpenWindows;
///
/// let mut open = OpenWindows::default();
/// open.add(3..7);
/// open.add(5..9);
/// open.add(20..21);
/// assert_eq!(open.count(), 7);
/// open.end_before(6);
/// assert_eq!(open.count(), 4);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenWindows(BTreeMap<i64, i64>); // where a run starts, and its end

impl OpenWindows {
    /// Takes in the windows of these numbers.
    pub fn add(&mut self, numbers: Range<i64>) {
        let (mut start, mut end) = (numbers.start, numbers.end);
        while let Some((first, last)) = self.0.range(..=end).next_back().map(|(first, last)| (*first, *last))
            && last >= start
        {
            self.0.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        if start < end {
            self.0.insert(start, end);
        }
    }

    /// Takes in all windows of `other`.
    pub fn extend(&mut self, other: &Self) {
        other.0.iter().for_each(|(start, end)| self.add(*start..*end));
    }

    /// Lets the windows before `number` go.
    pub fn end_before(&mut self, number: i64) {
        while let Some(first) = self.0.first_entry()
            && *first.key() < number
        {
            let end = first.remove();
            self.add(number..end);
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(start, end)| end.abs_diff(*start)).sum()
    }
}

/// In so many windows a row may be; a day that slides by a second has 86,400.
///
/// A row costs one update whatever the windows, and small panes cost nothing by themselves. But every window that a key
/// has a row in is put together and is a row of the result: a single row in 3,600,000 windows (an hour that slides by
/// milliseconds) made as many, in 76 s of a debug build, 21 µs each.
const MOST_WINDOWS_A_ROW: u32 = 100_000;

fn bearable(shape: WindowShape, length: i64, slide: i64) -> Result<()> {
    let windows = length.unsigned_abs().div_ceil(slide.unsigned_abs());
    let most = u64::from(MOST_WINDOWS_A_ROW);
    if windows <= most {
        return Ok(());
    }
    let (windows, most) = (in_thousands(windows), in_thousands(most));
    let message = format!(
        "a row is in at most {most} windows, and in windows of {:?} every {:?} it would be in {windows}, each of which is a \
         row of the result",
        shape.length, shape.slide
    );
    let (longer, shorter) = (shape.length / MOST_WINDOWS_A_ROW, shape.slide * MOST_WINDOWS_A_ROW);
    Err(Error::config(message)
        .help(format!("slide by {longer:?} or more, or take windows of {shorter:?} or less")))
}

fn ticks(what: &str, duration: Duration, unit: TimeUnit) -> Result<i64> {
    let tick = 1_000_000_000 / ticks_a_second(unit).unsigned_abs();
    let (tick, nanos) = (u128::from(tick), duration.as_nanos());
    match i64::try_from(nanos / tick) {
        Ok(ticks) if nanos.is_multiple_of(tick) => Ok(ticks),
        Ok(_) => Err(Error::config(format!(
            "a window's {what} is a whole number of ticks of its column ({}), found {duration:?}",
            type_name(&DataType::Timestamp(unit, None))
        ))
        .help("declare the column in a finer unit, say timestamp[ms]")),
        Err(_) => Err(Error::config(format!("a window's {what} of {duration:?} is beyond all timestamps"))),
    }
}

fn positive(what: &str, ticks: i64) -> Result<i64> {
    if ticks > 0 {
        return Ok(ticks);
    }
    Err(Error::config(format!("a window's {what} is longer than zero, found zero"))
        .help("pass, say, \"10s\""))
}

fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(length: u64, slide: u64, offset: u64) -> Windows {
        let [length, slide, offset] = [length, slide, offset].map(Duration::from_millis);
        Windows::new(WindowShape { length, slide, offset }, TimeUnit::Millisecond).unwrap()
    }

    #[test]
    fn every_moment_is_in_exactly_the_windows_that_cover_it() {
        for (length, slide, offset) in [(10, 10, 0), (10, 5, 0), (10, 4, 3), (7, 3, 2), (60, 1, 0), (6, 4, 5)]
        {
            let windows = windows(length, slide, offset);
            for tick in -50..50 {
                let pane = windows.pane_of(tick);
                assert!(windows.ticks_of(pane).contains(&tick));
                let covering = (-120..70).filter(|w| windows.start(*w) <= tick && tick < windows.end(*w));
                assert_eq!(covering.collect::<Vec<_>>(), windows.of_pane(pane).collect::<Vec<_>>());
                assert_eq!(
                    Some(windows.last_end(pane)),
                    windows.of_pane(pane).last().map(|w| windows.end(w))
                );
                assert!(windows.of_pane(pane).all(|w| windows.panes_of(w).contains(&pane)));
            }
        }
    }

    #[test]
    fn a_walk_visits_the_windows_over_panes_that_end_in_between_and_no_others() {
        for (length, slide, offset) in [(10, 10, 0), (10, 4, 3), (7, 3, 2), (60, 1, 0), (6, 4, 5)] {
            let windows = windows(length, slide, offset);
            for panes in [vec![], vec![-30, -29, -3], vec![0, 1, 2, 50, 51, 400], vec![7]] {
                let panes: BTreeMap<i64, i64> = panes.into_iter().map(|pane| (pane, pane)).collect();
                let over = |w: &i64| panes.keys().any(|pane| windows.panes_of(*w).contains(pane));
                for before in [-200, -11, 0, 3, 29, 300] {
                    let all = (-300..500).filter(|w| windows.end(*w) > before).filter(over);
                    let mut walk = Vec::new();
                    let mut from = windows.first_ending_after(before);
                    while let Some(number) = windows.next_over(from, &panes) {
                        walk.push(number);
                        from = number + 1;
                    }
                    assert_eq!(walk, all.collect::<Vec<_>>(), "{length} {slide} {offset} after {before}");
                }
            }
        }
    }

    #[test]
    fn every_window_of_a_placeable_tick_is_a_stretch_of_its_own() {
        for windows in [windows(10, 10, 0), windows(10, 4, 3), windows(60, 1, 0)] {
            let (first, last) = windows.placeable().into_inner();
            for tick in [first, first + 1, last - 1, last] {
                for window in windows.of_pane(windows.pane_of(tick)) {
                    assert_eq!(windows.end(window) - windows.start(window), windows.length * windows.pane);
                    assert!((windows.start(window)..windows.end(window)).contains(&tick));
                }
            }
        }
    }

    #[test]
    fn open_windows_are_a_set_of_numbers() {
        let (mut open, mut plain) = (OpenWindows::default(), std::collections::BTreeSet::new());
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2_000 {
            let start = random.i64(-50..50);
            if random.u8(0..4) == 0 {
                open.end_before(start);
                plain.retain(|number| *number >= start);
            } else {
                let end = start + random.i64(0..6);
                open.add(start..end);
                plain.extend(start..end);
            }
            assert_eq!(open.count(), plain.len() as u64);
            let mut both = OpenWindows::default();
            both.add(0..9);
            both.extend(&open);
            assert_eq!(
                both.count(),
                (0..9).chain(plain.iter().copied()).collect::<std::collections::BTreeSet<_>>().len() as u64
            );
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let windows = windows(10, 5, 3);
        for tick in [i64::MIN, i64::MAX] {
            let _ = windows.last_end(windows.pane_of(tick));
            let _ = windows.panes_of(windows.first_ending_after(tick));
        }
    }

    #[test]
    fn a_watermark_within_a_tick_has_not_reached_its_end() {
        assert_eq!(windows(10, 10, 0).tick(EventTime(10_999)), 10);
        assert_eq!(windows(10, 10, 0).tick(EventTime(-1)), -1);
    }

    #[test]
    fn a_row_in_more_windows_than_anybody_can_read_is_refused_with_what_to_do() {
        let milliseconds = |length, slide| {
            let [length, slide] = [length, slide].map(Duration::from_millis);
            Windows::new(WindowShape { length, slide, offset: Duration::ZERO }, TimeUnit::Millisecond)
        };
        let error = milliseconds(3_600_000, 1).unwrap_err();
        assert!(error.is_config());
        for told in
            ["at most 100,000 windows", "in 3,600,000", "slide by 36ms or more", "windows of 100s or less"]
        {
            assert!(error.to_string().contains(told), "{error}");
        }
        assert!(milliseconds(3_600_000, 36).is_ok());
        assert!(milliseconds(86_400_000, 1_000).is_ok());
    }

    #[test]
    fn a_slide_longer_than_the_length_is_refused() {
        let (length, slide) = (Duration::from_secs(1), Duration::from_secs(2));
        let shape = WindowShape { length, slide, offset: Duration::ZERO };
        let error = Windows::new(shape, TimeUnit::Second).unwrap_err();
        assert!(error.to_string().contains("at most its length (1s), found 2s"), "{error}");
    }
}
