//! Aggregate functions as columns of state, one row a slot: updated, merged and read, and never emptied by reading.
//!
//! Of an [`Aggregate`] the state has one Arrow form, which is the partial of a chunk, the pane of a window and the
//! checkpoint in one: [`Accumulator::state`] gives it, [`Accumulator::merge`] takes it back, and what goes on from
//! there gives the same bits as what was never interrupted. It deliberately knows neither keys nor windows nor
//! threads: the caller says which slot a row belongs to, and merges partials in an order of its own that never
//! depends on timing.
//!
//! | file | functions | state of a slot |
//! |---|---|---|
//! | [`count`] | count | the count |
//! | [`sum`] | sum | the sum |
//! | [`mean`] | mean, avg | count and sum |
//! | [`moments`] | var, stddev | count, mean, sum of squared deviations |
//! | [`extremum`] | min, max | the value |
//! | [`position`] | first, last | the value and its order |
//! | [`top_k`] | `top_k` | the values, the largest first |
//! | [`distinct`] | `approx_distinct` | few hashes, or a `HyperLogLog` |
//! | [`quantile`] | `approx_quantile`, `approx_median` | a t-digest, and the values that are not in it yet |
//! | [`collect`] | collect; what needs all values: median, `distinct` | the values, in order of arrival |
//! | [`datafusion`] | every other one of DataFusion | as DataFusion says |
//!
//! NaN is larger than every other number and equal to itself, as in expressions.

mod cells;
mod collect;
mod column;
mod count;
mod datafusion;
mod distinct;
mod extremum;
mod log;
mod mean;
mod moments;
mod pairs;
mod position;
mod quantile;
mod sketches;
mod sum;
mod top_k;

use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion_common::ScalarValue;

use crate::error::{Error, Result, nearest};
use crate::types::type_name;

/// Where an aggregate is to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Over the rows of one batch: its state lives as long as the batch.
    Batch,
    /// Over the rows of a window: its state is kept from batch to batch, and in checkpoints.
    Window,
}

/// An aggregate function bound to the types of its arguments.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Float64Array};
/// use arrow::datatypes::{DataType, Field, Float64Type};
/// use tidemill::aggregate::{Aggregate, Scope};
/// let t = Field::new("t", DataType::Float64, true);
/// let mean = Aggregate::new("mean", &[t], &[], false, Scope::Window).unwrap();
/// let values: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(5.0), None, Some(7.0)]));
/// let mut partial = mean.accumulator().unwrap();
/// partial.grow(2);
/// partial.update(&[0, 1, 1, 1], &[values]).unwrap();
/// let mut pane = mean.accumulator().unwrap();
/// pane.grow(1);
/// pane.merge(&[0, 0], &partial.state(&[0, 1]).unwrap()).unwrap();
/// assert_eq!(partial.evaluate(&[1, 0]).unwrap().as_primitive::<Float64Type>().values(), &[6.0, 1.0]);
/// assert_eq!(pane.evaluate(&[0]).unwrap().as_primitive::<Float64Type>().values(), &[13.0 / 3.0]);
/// ```
#[derive(Clone, Debug)]
pub struct Aggregate {
    name: String,
    function: Arc<dyn Function>,
}

/// The states of an aggregate, one a slot.
///
/// Slots are numbers from 0; those that were not made by [`Self::grow`] are an internal error. After any other error
/// the states are of no more use.
pub trait Accumulator: Send + fmt::Debug {
    /// Makes slots, so that there are `0..slots`; new ones are empty, and there never become fewer.
    fn grow(&mut self, slots: usize);

    /// Takes rows in: row `i` of the arguments goes to slot `slots[i]`. Nulls are skipped where SQL skips them.
    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()>;

    /// Takes states in: row `i` goes to slot `slots[i]`, after what is there; a slot may come several times, in order.
    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()>;

    /// The states of these slots, in this order, as [`Aggregate::state_fields`] says.
    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>>;

    /// The results of these slots, in this order, as [`Aggregate::field`] says.
    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef>;

    /// The bytes that the states occupy, unused capacity included.
    fn bytes(&self) -> usize;
}

/// What a family of functions says of one of them.
trait Function: fmt::Debug + Send + Sync {
    /// Its type, and whether it may be null.
    fn field(&self) -> Field;

    /// The columns of its state.
    fn state_fields(&self) -> Vec<Field>;

    /// The name and version of its state, where that is our own. Whoever changes what a state means raises the version:
    /// golden files of each are among the tests.
    fn form(&self) -> Option<&'static str>;

    /// States of no slot yet.
    fn accumulator(&self) -> Result<Box<dyn Accumulator>>;

    /// The same by a column of order, for first and last alone.
    fn ordered(&self) -> Option<Arc<dyn Function>> {
        None
    }

    /// Whether its last argument is the order.
    fn is_ordered(&self) -> bool {
        false
    }

    /// Whether a state grows with each value that comes in.
    fn keeps_values(&self) -> bool {
        false
    }
}

/// What a function is called with.
struct Call<'a> {
    /// In lower case, as written otherwise.
    name: &'a str,
    arguments: &'a [Field],
    literals: &'a [ScalarValue],
    distinct: bool,
    scope: Scope,
}

/// The own functions under all their names; the name that stands for the function is first in its line.
const OWN: &[(&str, &[&str])] = &[
    ("count", &["count"]),
    ("sum", &["sum"]),
    ("mean", &["mean", "avg"]),
    ("min", &["min"]),
    ("max", &["max"]),
    ("var", &["var", "var_samp", "var_sample"]),
    ("var_pop", &["var_pop", "var_population"]),
    ("stddev", &["stddev", "stddev_samp"]),
    ("stddev_pop", &["stddev_pop"]),
    ("first", &["first", "first_value"]),
    ("last", &["last", "last_value"]),
    ("top_k", &["top_k"]),
    ("approx_distinct", &["approx_distinct"]),
    ("collect", &["collect", "array_agg"]),
];

impl Aggregate {
    /// The aggregate of this name (in any case) over columns with the fields `arguments`; `literals` are the constant
    /// parameters that follow them, such as the k of `top_k`.
    pub fn new(
        name: &str,
        arguments: &[Field],
        literals: &[ScalarValue],
        distinct: bool,
        scope: Scope,
    ) -> Result<Self> {
        let name = name.to_lowercase();
        let arguments: Vec<Field> = arguments.iter().map(column::plain).collect();
        let call = Call { name: &name, arguments: &arguments, literals, distinct, scope };
        let function = function(&call)?;
        Ok(Self { name, function })
    }

    /// The type of the result, and whether it may be null; its name is the function's.
    pub fn field(&self) -> Field {
        self.function.field()
    }

    /// The function's name in lower case, as it was called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns of the state: a partial, a pane and a checkpoint have them alike.
    pub fn state_fields(&self) -> Vec<Field> {
        self.function.state_fields()
    }

    /// Whether the order of rows decides, so that [`Self::with_order`] has a meaning: first and last.
    pub fn takes_order(&self) -> bool {
        self.function.is_ordered() || self.function.ordered().is_some()
    }

    /// Whether [`Self::with_order`] was called: the last column given to [`Accumulator::update`] is then the order.
    pub fn is_ordered(&self) -> bool {
        self.function.is_ordered()
    }

    /// Whether a state grows with each value that comes in, so that its result costs as much as the values do.
    pub fn keeps_values(&self) -> bool {
        self.function.keeps_values()
    }

    /// First and last by the smallest and largest value of a further argument column, a time or an int64; of equal
    /// ones the first and the last to arrive, and rows without one never. Other aggregates stay as they are.
    ///
    /// Without it, first and last go by the order of arrival.
    #[must_use]
    pub fn with_order(self) -> Self {
        match self.function.ordered() {
            Some(function) => Self { function, ..self },
            None => self,
        }
    }

    /// The name and version of its state, where it may be kept beyond the process; none where its state is another
    /// library's, and may change with that.
    ///
    /// ```
    /// use arrow::datatypes::{DataType, Field};
    /// use tidemill::aggregate::{Aggregate, Scope};
    /// let field = Field::new("t", DataType::Float64, true);
    /// let mean = Aggregate::new("mean", &[field], &[], false, Scope::Window).unwrap();
    /// assert_eq!(mean.form(), Some("mean 1"));
    /// ```
    pub fn form(&self) -> Option<&'static str> {
        self.function.form()
    }

    /// States of no slot yet.
    pub fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        self.function.accumulator()
    }
}

fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    if call.distinct
        && let Some(function) = collect::distinct(call)?
    {
        return Ok(function);
    }
    if own_name(call.name).is_some() {
        return plain_function(call);
    }
    pairs::function(call).unwrap_or_else(|| datafusion::function(call))
}

/// The function as its own file has it, whatever `distinct` says.
fn plain_function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    match own_name(call.name) {
        Some("count") => count::function(call),
        Some("sum") => sum::function(call),
        Some("mean") => mean::function(call),
        Some("min" | "max") => extremum::function(call),
        Some("var" | "var_pop" | "stddev" | "stddev_pop") => moments::function(call),
        Some("first" | "last") => position::function(call),
        Some("top_k") => top_k::function(call),
        Some("approx_distinct") => distinct::function(call),
        Some("collect") => collect::function(call),
        _ => datafusion::merged(call),
    }
}

/// The name that stands for an own function.
fn own_name(name: &str) -> Option<&'static str> {
    OWN.iter().find(|(_, names)| names.contains(&name)).map(|(own, _)| *own)
}

/// The names of all aggregates, sorted, second names included.
///
/// ```
/// let names = tidemill::aggregate::names();
/// assert!(["mean", "avg", "top_k", "approx_quantile", "corr"].iter().all(|name| names.contains(name)));
/// ```
pub fn names() -> Vec<&'static str> {
    let own = OWN.iter().flat_map(|(_, names)| names.iter().copied());
    let mut names: Vec<&'static str> = own.chain(pairs::names()).chain(datafusion::names()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The error for a name that no aggregate has.
fn unknown(name: &str) -> Error {
    let names = names();
    let error = Error::config(format!("there is no aggregate {name}"));
    let all = names.join(", ");
    match nearest(name, names) {
        Some(near) => error.help(format!("did you mean {near}? There are {all}")),
        None => error.help(format!("there are {all}")),
    }
}

impl Call<'_> {
    /// The only argument, where there is nothing else.
    fn only_argument(&self, takes: &str) -> Result<&Field> {
        match (self.arguments, self.literals) {
            ([argument], []) => Ok(argument),
            _ => Err(self.misfit(takes)),
        }
    }

    /// The error for arguments that it does not take; `takes` says which it does.
    fn misfit(&self, takes: &str) -> Error {
        let types = self.arguments.iter().map(|field| type_name(field.data_type()));
        let found: Vec<String> = types.chain(self.literals.iter().map(ToString::to_string)).collect();
        let name = self.name;
        let error = Error::schema(format!("{name} takes {takes}, found {name}({})", found.join(", ")));
        match self.arguments {
            [argument] if argument.data_type() == &DataType::Boolean && takes.contains("number") => {
                error.help("cast it first: .cast(\"int64\") makes 1 of true and 0 of false")
            }
            [argument] if argument.data_type().is_temporal() && takes.contains("timestamps") => error
                .help("cast it first: .cast(\"timestamp[ms]\") of a date, .cast(\"int64\") of a time of day"),
            _ => error,
        }
    }

    fn result(&self, data_type: DataType, nullable: bool) -> Field {
        Field::new(self.name, data_type, nullable)
    }
}
