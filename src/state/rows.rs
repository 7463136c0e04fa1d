//! Rows of state in order, and how what was captured later lies over what was captured before.
//!
//! Rows stand by key group, pane and key, each key (in each pane) once; that order depends on nothing but the state, so
//! that the same state is the same rows. A [`Layer`] is what one capture holds: rows, and the panes that are gone.
//! Layers are folded: of each row the last stands, and whole layers give whole layers, in whatever groups they are folded.
//! It deliberately knows no bytes; these are [`chunk`](crate::state::chunk)'s.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
    UInt64Array,
};
use arrow::compute::{concat_batches, interleave, take, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef, UInt64Type};

use crate::error::{Error, ErrorKind, Result};
use crate::state::form::{Layout, StateForm};
use crate::state::group::KeyGroup;
use crate::state::key::hash_of;
use crate::state::table::{CopiedKeys, KeyTable};
use crate::state::window::PaneNumber;

/// Rows of state in order.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Of the keys, one a row.
    hashes: UInt64Array,
    /// The columns of [`StateForm::columns`].
    batch: RecordBatch,
    layout: Layout,
}

/// The states of some slots of one pane, in the order of its keys.
pub type PaneStates = (PaneNumber, CopiedKeys, Vec<ArrayRef>);

impl Rows {
    fn new(form: &StateForm, hashes: UInt64Array, batch: RecordBatch) -> Result<Self> {
        if hashes.len() != batch.num_rows() {
            let (hashes, rows) = (hashes.len(), batch.num_rows());
            return Err(Error::internal(format!(
                "a hash for each of {rows} rows was expected, found {hashes}"
            )));
        }
        Ok(Self { hashes, batch, layout: form.layout() })
    }

    /// The rows of keys that were copied out of a table, whose states `of` gives in an order of their places.
    pub fn of_keys(
        form: &StateForm,
        keys: &CopiedKeys,
        of: impl FnOnce(&[u32]) -> Result<RecordBatch>,
    ) -> Result<Self> {
        let order = keys.order();
        let states = of(&order)?;
        let order = UInt32Array::from(order);
        let mut columns = vec![take(&keys.keys, &order, None)?];
        columns.extend(states.columns().iter().cloned());
        let hashes = take(&keys.hashes, &order, None)?.as_primitive().clone();
        Self::new(form, hashes, RecordBatch::try_new(form.columns(), columns)?)
    }

    /// The rows of several panes, whose numbers ascend.
    pub fn of_panes(form: &StateForm, panes: &[PaneStates]) -> Result<Self> {
        if panes.is_empty() {
            return Ok(Self::none(form));
        }
        let mut order: Vec<(KeyGroup, (usize, usize))> = Vec::new();
        for (number, (_, keys, _)) in panes.iter().enumerate() {
            let group = |place: &u32| KeyGroup::of(keys.hashes.value(*place as usize));
            order.extend(keys.order().iter().map(|place| (group(place), (number, *place as usize))));
        }
        order.sort_by_key(|(group, _)| *group); // stable: panes, and keys within them, stay in order
        let places: Vec<(usize, usize)> = order.into_iter().map(|(_, place)| place).collect();
        let numbers = panes.iter().map(|(pane, keys, _)| Arc::new(repeated(*pane, keys.len())) as ArrayRef);
        let keys = panes.iter().map(|(_, keys, _)| Arc::new(keys.keys.clone()) as ArrayRef);
        let mut columns = vec![gather(keys, &places)?, gather(numbers, &places)?];
        for column in 0..form.states().fields().len() {
            columns
                .push(gather(panes.iter().filter_map(|(.., states)| states.get(column).cloned()), &places)?);
        }
        let hash =
            |(pane, row): &(usize, usize)| panes.get(*pane).map_or(0, |(_, keys, _)| keys.hashes.value(*row));
        let hashes = places.iter().map(hash).collect::<Vec<u64>>().into();
        Self::new(form, hashes, RecordBatch::try_new(form.columns(), columns)?)
    }

    /// No rows.
    pub fn none(form: &StateForm) -> Self {
        Self {
            hashes: Vec::<u64>::new().into(),
            batch: RecordBatch::new_empty(form.columns()),
            layout: form.layout(),
        }
    }

    /// Rows with these columns, which are believed once it is seen that they stand in order, each once, and that their keys
    /// belong to `groups`.
    pub(super) fn checked(form: &StateForm, batch: RecordBatch, groups: &Range<KeyGroup>) -> Result<Self> {
        let keys = batch.columns().first().and_then(|keys| keys.as_binary_opt::<i32>());
        let keys = keys.ok_or_else(|| Error::internal("rows of state begin with their keys"))?;
        let hashes: Vec<u64> = (0..keys.len()).map(|row| hash_of(keys.value(row))).collect();
        let rows = Self::new(form, hashes.into(), batch)?;
        rows.check(groups)?;
        Ok(rows)
    }

    fn check(&self, groups: &Range<KeyGroup>) -> Result<()> {
        let view = View::of(self);
        let mut before = None;
        for row in 0..self.len() {
            let place = view.place(row);
            if !groups.contains(&place.0) {
                let (from, until) = (groups.start, groups.end);
                return Err(damaged(format!(
                    "row {row}: keys of the groups {from} to {until} were expected, found one of group {}",
                    place.0
                )));
            }
            if before.is_some_and(|before| before >= place) {
                return Err(damaged(format!(
                    "row {row}: rows in the order of key group, pane and key were expected, found others"
                )));
            }
            before = Some(place);
        }
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns of [`StateForm::columns`].
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// The key group of each row.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = KeyGroup> {
        self.hashes.values().iter().map(|hash| KeyGroup::of(*hash))
    }

    /// Those of these rows that belong to `groups`, without a copy.
    #[must_use]
    pub fn of_groups(&self, groups: &Range<KeyGroup>) -> Self {
        let before = |end: KeyGroup| self.hashes.values().partition_point(|hash| KeyGroup::of(*hash) < end);
        let (first, end) = (before(groups.start), before(groups.end));
        self.slice(first, end.saturating_sub(first))
    }

    /// `length` rows from `offset`, without a copy.
    ///
    /// # Panics
    /// Where there are not that many rows.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            hashes: self.hashes.slice(offset, length),
            batch: self.batch.slice(offset, length),
            layout: self.layout,
        }
    }

    /// Rows that follow each other, as one.
    pub fn concat(form: &StateForm, parts: &[Self]) -> Result<Self> {
        if let [one] = parts {
            return Ok(one.clone());
        }
        let batch = concat_batches(&form.columns(), parts.iter().map(|part| &part.batch))?;
        let hashes: Vec<u64> = parts.iter().flat_map(|part| part.hashes.values()).copied().collect();
        Self::new(form, hashes.into(), batch)
    }

    /// An error unless the rows of each of these stand after those before.
    pub fn expect_in_order(parts: &[Self]) -> Result<()> {
        let mut before = None;
        for rows in parts.iter().filter(|rows| !rows.is_empty()) {
            let view = View::of(rows);
            if before.is_some_and(|before| before >= view.place(0)) {
                return Err(damaged(
                    "parts in the order of their rows were expected, found others".to_owned(),
                ));
            }
            before = Some(view.place(rows.len() - 1));
        }
        Ok(())
    }

    fn keys(&self) -> &BinaryArray {
        self.batch.column(0).as_binary()
    }

    /// A table of the keys, and the states with one row a slot: of rows without panes.
    pub fn to_table(&self, form: &StateForm) -> Result<(KeyTable, RecordBatch)> {
        self.expect_layout(Layout::Keys)?;
        let table = KeyTable::of_distinct(self.keys(), self.hashes.values())?;
        let columns = self.batch.columns().iter().skip(1).cloned().collect();
        let rows = RecordBatchOptions::new().with_row_count(Some(self.len()));
        Ok((table, RecordBatch::try_new_with_options(Arc::clone(form.states()), columns, &rows)?))
    }

    /// Of each pane a table of its keys, and their states with one row a slot.
    pub fn to_panes(&self) -> Result<Vec<(PaneNumber, KeyTable, Vec<ArrayRef>)>> {
        self.expect_layout(Layout::Panes)?;
        let mut rows: BTreeMap<PaneNumber, Vec<u32>> = BTreeMap::new();
        for (row, pane) in (0_u32..).zip(View::of(self).panes.unwrap_or_default()) {
            rows.entry(*pane).or_default().push(row);
        }
        let of_pane = |(pane, rows): (PaneNumber, Vec<u32>)| {
            let rows = UInt32Array::from(rows);
            let own = take_record_batch(&self.batch, &rows)?;
            let hashes = take(&self.hashes, &rows, None)?;
            let keys = own.column(0).as_binary::<i32>();
            let table = KeyTable::of_distinct(keys, hashes.as_primitive::<UInt64Type>().values())?;
            Ok((pane, table, own.columns().iter().skip(2).cloned().collect()))
        };
        rows.into_iter().map(of_pane).collect()
    }

    fn expect_layout(&self, layout: Layout) -> Result<()> {
        if self.layout == layout {
            return Ok(());
        }
        Err(damaged(format!("rows by {layout:?} were expected, found rows by {:?}", self.layout)))
    }
}

fn repeated(pane: PaneNumber, rows: usize) -> Int64Array {
    Int64Array::from_value(pane, rows)
}

/// The values at `places` of some arrays, of which there is one at least.
fn gather(arrays: impl Iterator<Item = ArrayRef>, places: &[(usize, usize)]) -> Result<ArrayRef> {
    let arrays: Vec<ArrayRef> = arrays.collect();
    let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    Ok(interleave(&arrays, places)?)
}

/// Where a row stands among all rows.
type Standing<'a> = (KeyGroup, PaneNumber, &'a [u8]);

/// The columns by which rows are in order.
struct View<'a> {
    hashes: &'a [u64],
    panes: Option<&'a [i64]>,
    keys: &'a BinaryArray,
}

impl<'a> View<'a> {
    fn of(rows: &'a Rows) -> Self {
        let panes = rows.batch.columns().get(1).filter(|_| rows.layout == Layout::Panes);
        let panes = panes.and_then(|panes| panes.as_primitive_opt::<Int64Type>());
        let panes = panes.map(|panes| panes.values().as_ref());
        Self { hashes: rows.hashes.values(), panes, keys: rows.keys() }
    }

    #[inline]
    fn place(&self, row: usize) -> Standing<'a> {
        let group = self.hashes.get(row).map_or(KeyGroup(0), |hash| KeyGroup::of(*hash));
        (group, self.pane(row), self.keys.value(row))
    }

    #[inline]
    fn pane(&self, row: usize) -> PaneNumber {
        self.panes.and_then(|panes| panes.get(row)).copied().unwrap_or_default()
    }
}

/// Panes that are gone, as runs of neighbouring numbers, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped(Vec<Range<PaneNumber>>);

impl Dropped {
    /// These panes, in any order.
    pub fn new(mut panes: Vec<PaneNumber>) -> Self {
        panes.sort_unstable();
        Self::of_runs(panes.into_iter().map(|pane| pane..pane.saturating_add(1)).collect())
    }

    /// The panes in these runs, which begin in ascending order.
    fn of_runs(sorted: Vec<Range<PaneNumber>>) -> Self {
        let mut runs: Vec<Range<PaneNumber>> = Vec::new();
        for run in sorted {
            match runs.last_mut() {
                Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
                _ => runs.push(run),
            }
        }
        Self(runs)
    }

    /// Runs that were written down: an error unless they ascend and lie apart.
    pub(super) fn checked(runs: Vec<Range<PaneNumber>>) -> Result<Self> {
        let is_run = |run: &Range<PaneNumber>| run.start < run.end;
        let apart = |pair: &[Range<PaneNumber>]| matches!(pair, [a, b] if a.end < b.start);
        if runs.iter().all(is_run) && runs.windows(2).all(apart) {
            return Ok(Self(runs));
        }
        Err(damaged("panes that are gone were expected as ascending runs, found others".to_owned()))
    }

    /// The runs.
    pub fn runs(&self) -> &[Range<PaneNumber>] {
        &self.0
    }

    /// Whether none is gone.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this pane is gone.
    pub fn contains(&self, pane: PaneNumber) -> bool {
        let after = self.0.partition_point(|run| run.start <= pane);
        after.checked_sub(1).and_then(|last| self.0.get(last)).is_some_and(|run| pane < run.end)
    }

    /// Those of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut runs = [self.0.as_slice(), &other.0].concat();
        runs.sort_by_key(|run| run.start);
        Self::of_runs(runs)
    }
}

/// What one capture holds of some key groups.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Rows that follow each other: they replace those of the layers before it.
    pub rows: Vec<Rows>,
    /// The panes that were gone before these rows came.
    pub dropped: Dropped,
}

/// One layer for all of `layers`, which are in the order in which they were captured.
pub fn fold(form: &StateForm, layers: &[Layer]) -> Result<Layer> {
    if let [only] = layers {
        let rows = vec![Rows::concat(form, &only.rows)?];
        return Ok(Layer { rows, dropped: only.dropped.clone() });
    }
    let pieces: Vec<&Rows> = layers.iter().flat_map(|layer| &layer.rows).collect();
    let views: Vec<View<'_>> = pieces.iter().map(|rows| View::of(rows)).collect();
    let mut next = 0;
    let mut lines = Vec::with_capacity(layers.len());
    for layer in layers {
        let of_piece = |(number, rows): (usize, &Rows)| (0..rows.len()).map(move |row| (number, row));
        let places = (next..).zip(&layer.rows).flat_map(of_piece).collect();
        next += layer.rows.len();
        lines.push(Line { places, dropped: layer.dropped.clone() });
    }
    let line = folded(lines, &views);
    let rows = gather_rows(form, &pieces, &line.places)?;
    Ok(Layer { rows: vec![rows], dropped: line.dropped })
}

/// A layer whose rows are elsewhere: the number of their piece, and of the row in it.
struct Line {
    places: Vec<(usize, usize)>,
    dropped: Dropped,
}

/// Neighbours two by two, until one is left: each row is looked at a logarithmic number of times.
fn folded(mut lines: Vec<Line>, views: &[View<'_>]) -> Line {
    while lines.len() > 1 {
        let mut pairs = lines.into_iter();
        lines = Vec::new();
        while let Some(older) = pairs.next() {
            lines.push(match pairs.next() {
                Some(newer) => laid_over(older, newer, views),
                None => older,
            });
        }
    }
    lines.pop().unwrap_or(Line { places: Vec::new(), dropped: Dropped::default() })
}

fn laid_over(older: Line, newer: Line, views: &[View<'_>]) -> Line {
    let dropped = older.dropped.union(&newer.dropped);
    let view = |place: &(usize, usize)| views.get(place.0);
    let standing = |place: &(usize, usize)| view(place).map(|view| view.place(place.1));
    let is_gone =
        |place: &(usize, usize)| view(place).is_some_and(|view| newer.dropped.contains(view.pane(place.1)));
    let mut places = Vec::with_capacity(older.places.len() + newer.places.len());
    let mut olds =
        older.places.into_iter().filter(|place| newer.dropped.is_empty() || !is_gone(place)).peekable();
    for new in newer.places {
        let at = standing(&new);
        while let Some(old) = olds.peek() {
            match standing(old).cmp(&at) {
                Ordering::Less => places.extend(olds.next()),
                Ordering::Equal => drop(olds.next()),
                Ordering::Greater => break,
            }
        }
        places.push(new);
    }
    places.extend(olds);
    Line { places, dropped }
}

fn gather_rows(form: &StateForm, pieces: &[&Rows], places: &[(usize, usize)]) -> Result<Rows> {
    if pieces.is_empty() {
        return Ok(Rows::none(form));
    }
    let hash = |(piece, row): &(usize, usize)| pieces.get(*piece).map_or(0, |rows| rows.hashes.value(*row));
    let hashes: Vec<u64> = places.iter().map(hash).collect();
    let columns = |column: usize| pieces.iter().map(move |rows| Arc::clone(rows.batch.column(column)));
    let schema: SchemaRef = form.columns();
    let gathered = (0..schema.fields().len()).map(|column| gather(columns(column), places));
    let batch = RecordBatch::try_new(schema, gathered.collect::<Result<_>>()?)?;
    Rows::new(form, hashes.into(), batch)
}

pub(super) fn damaged(message: String) -> Error {
    Error::new(ErrorKind::Checkpoint, message).at("rows of state")
}
