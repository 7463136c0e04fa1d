//! Every other aggregate: DataFusion's, with its state as one row a slot.
//!
//! DataFusion's accumulators give up their state to be read. So a slot's state is kept in its Arrow form, and taking
//! rows in means: gather the states of the slots that have some, merge them into a fresh accumulator, update it, and
//! put back what it says. A state is then never more than what a checkpoint holds, and going on after one gives the
//! same bits. It deliberately takes no function by name that is not in its list: a new version may bring others.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, new_empty_array};
use arrow::compute::{concat, take, take_arrays};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, FieldRef, Schema,
};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate::all_default_aggregate_functions;
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion_physical_expr::expressions::{Column, Literal};

use crate::aggregate::collect::{Keep, computed, needs_all_values};
use crate::aggregate::column::{argument, check, check_slots};
use crate::aggregate::log::{NOWHERE, Numbered, Numbering, Rows, nulls};
use crate::aggregate::quantile;
use crate::aggregate::{Accumulator, Call, Function, Scope, unknown};
use crate::error::{Error, Result};

/// Whether what a function's state says is all that it knows, so that a window may keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Faithful,
    /// And that it means what its columns say, so that it may outlive the process: no version of DataFusion could have
    /// another. This is its name and version.
    Pinned(&'static str),
    /// Good for the partials of one batch.
    OfABatch,
}

/// The functions, each with the name that DataFusion knows it by.
const FUNCTIONS: &[(&str, &str, State)] = &[
    ("any_value", "any_value", State::Pinned("any value 1")),
    ("approx_median", "approx_median", State::Faithful),
    ("approx_percentile_cont", "approx_percentile_cont", State::Faithful),
    ("approx_percentile_cont_with_weight", "approx_percentile_cont_with_weight", State::Faithful),
    ("approx_quantile", "approx_percentile_cont", State::Faithful),
    ("bit_and", "bit_and", State::Pinned("bits 1")),
    ("bit_or", "bit_or", State::Pinned("bits 1")),
    ("bit_xor", "bit_xor", State::Pinned("bits 1")),
    ("bool_and", "bool_and", State::Pinned("truth 1")),
    ("bool_or", "bool_or", State::Pinned("truth 1")),
    ("median", "median", State::Faithful),
    ("nth_value", "nth_value", State::OfABatch),
    ("percentile_cont", "percentile_cont", State::Faithful),
    ("quantile_cont", "percentile_cont", State::Faithful),
    ("string_agg", "string_agg", State::Faithful),
];

/// Those that DataFusion checks the arguments of, and [`quantile`] computes.
const QUANTILES: &[&str] = &["approx_median", "approx_percentile_cont"];

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, ..)| *name)
}

/// The function, its values kept where it needs them all.
pub(super) fn function(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    if needs_all_values(call.name) { computed(call, Keep::All) } else { merged(call) }
}

/// The function, by DataFusion's state.
pub(super) fn merged(call: &Call<'_>) -> Result<Arc<dyn Function>> {
    let found = FUNCTIONS.iter().find(|(name, ..)| *name == call.name);
    let (_, inner, state) = found.ok_or_else(|| unknown(call.name))?;
    if call.scope == Scope::Window && *state == State::OfABatch {
        return Err(not_windowed(call.name));
    }
    let all = all_default_aggregate_functions();
    let function = all.into_iter().find(|function| function.name() == *inner);
    let function = function.ok_or_else(|| unknown(call.name))?;
    let mut bound = Bound::new(call, &taken(call)?, function).map_err(|error| misfit(call, error))?;
    bound.form = if let State::Pinned(form) = state { Some(form) } else { None };
    let own = if QUANTILES.contains(inner) { quantile::function(&bound.field, call.literals) } else { None };
    Ok(own.unwrap_or_else(|| Arc::new(bound)))
}

/// The arguments as the function takes them: the mean of two decimals has one digit more than they, which DataFusion's
/// median would drop.
fn taken(call: &Call<'_>) -> Result<Vec<Field>> {
    let wider = |field: &Field| {
        if call.name != "median" || !field.data_type().is_decimal() {
            return Ok(field.clone());
        }
        let wider = one_digit_more(field.data_type()).ok_or_else(|| {
            call.misfit("one column of numbers, of decimals those of at most 75 digits")
                .help("cast it to float64, or to a decimal of fewer digits, first")
        })?;
        Ok(field.clone().with_data_type(wider))
    };
    call.arguments.iter().map(wider).collect()
}

/// The decimal type with a further digit behind the point; none where there is no such type.
fn one_digit_more(data_type: &DataType) -> Option<DataType> {
    match *data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
            if precision < DECIMAL128_MAX_PRECISION =>
        {
            Some(DataType::Decimal128(precision + 1, scale + 1))
        }
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale)
            if precision < DECIMAL256_MAX_PRECISION =>
        {
            Some(DataType::Decimal256(precision + 1, scale + 1))
        }
        _ => None,
    }
}

fn not_windowed(name: &str) -> Error {
    let windowed = FUNCTIONS.iter().filter(|(_, _, state)| *state != State::OfABatch).map(|(name, ..)| *name);
    let own = crate::aggregate::OWN.iter().flat_map(|(_, names)| names.iter().copied());
    let mut windowed: Vec<&str> = own.chain(windowed).collect();
    windowed.sort_unstable();
    Error::config(format!("{name} works within a batch only, and not in a window"))
        .help(format!("in a window there are {}", windowed.join(", ")))
}

fn misfit(call: &Call<'_>, error: DataFusionError) -> Error {
    call.misfit(takes(call.name)).caused_by(error)
}

/// What a function takes, in words that follow "takes". DataFusion's own words name clauses that are refused here.
pub(super) fn takes(name: &str) -> &'static str {
    match name {
        "any_value" => "one column",
        "approx_percentile_cont" | "approx_quantile" | "percentile_cont" | "quantile_cont" => {
            "one column of numbers, and a constant from 0 to 1"
        }
        "approx_percentile_cont_with_weight" => {
            "a column of numbers, one of weights, and a constant from 0 to 1"
        }
        "bit_and" | "bit_or" | "bit_xor" => "one column of integers",
        "bool_and" | "bool_or" => "one column of bool, such as a comparison",
        "nth_value" => "one column, and the position of the value, from 1",
        "string_agg" => "one column of text, and the constant text that goes between",
        "corr" | "covar" | "covar_pop" | "covar_samp" => "two columns of numbers",
        name if name.starts_with("regr_") => "two columns of numbers",
        _ => "one column of numbers",
    }
}

/// A function of DataFusion with its arguments.
#[derive(Clone, Debug)]
struct Bound {
    field: Field,
    expression: AggregateFunctionExpr,
    /// The types of the argument columns.
    arguments: Vec<DataType>,
    /// What they are converted to.
    columns: Vec<DataType>,
    literals: Vec<ScalarValue>,
    state: Vec<Field>,
    form: Option<&'static str>,
    /// The result of nothing, in one row: it may be null or not, and that of a group without rows differs at times.
    of_nothing: ArrayRef,
}

impl Bound {
    fn new(call: &Call<'_>, taken: &[Field], function: Arc<AggregateUDF>) -> Result<Self, DataFusionError> {
        let literals = call.literals.iter().map(|value| Field::new("literal", value.data_type(), true));
        let fields: Vec<FieldRef> = taken.iter().cloned().chain(literals).map(Arc::new).collect();
        let types: Vec<DataType> = fields_with_udf(&fields, function.as_ref())?
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let columns: Vec<DataType> = types.iter().take(call.arguments.len()).cloned().collect();
        let pairs = call.literals.iter().zip(types.iter().skip(columns.len()));
        let literals =
            pairs.map(|(value, data_type)| value.cast_to(data_type)).collect::<Result<Vec<_>, _>>()?;
        let expression = expression(call.name, function, &columns, &literals)?;
        let of_nothing = expression.create_accumulator()?.evaluate()?.to_array()?;
        let state = expression.state_fields()?;
        let state = state.iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let field = Field::new(call.name, result_type(expression.field().data_type()), true);
        let arguments = call.arguments.iter().map(|field| field.data_type().clone()).collect();
        Ok(Self { field, expression, arguments, columns, literals, state, form: None, of_nothing })
    }
}

/// Strings are of one type in a stream.
fn result_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

fn expression(
    name: &str,
    function: Arc<AggregateUDF>,
    columns: &[DataType],
    literals: &[ScalarValue],
) -> Result<AggregateFunctionExpr, DataFusionError> {
    let named = columns.iter().enumerate().map(|(index, data_type)| (index, index.to_string(), data_type));
    let fields: Vec<Field> =
        named.clone().map(|(_, name, data_type)| Field::new(name, data_type.clone(), true)).collect();
    let columns = named.map(|(index, name, _)| Arc::new(Column::new(&name, index)) as Arc<dyn PhysicalExpr>);
    let literals =
        literals.iter().map(|value| Arc::new(Literal::new(value.clone())) as Arc<dyn PhysicalExpr>);
    AggregateExprBuilder::new(function, columns.chain(literals).collect())
        .schema(Arc::new(Schema::new(fields)))
        .alias(name)
        .build()
}

type Groups = Box<dyn GroupsAccumulator>;

/// An accumulator of no group yet.
fn groups(expression: &AggregateFunctionExpr) -> Result<Groups, DataFusionError> {
    if expression.groups_accumulator_supported() {
        return expression.create_groups_accumulator();
    }
    let expression = expression.clone();
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || expression.create_accumulator())))
}

/// The arrays that an accumulator sees: the columns, and the literals in every row.
fn with_literals(
    mut columns: Vec<ArrayRef>,
    literals: &[ScalarValue],
    rows: usize,
) -> Result<Vec<ArrayRef>, DataFusionError> {
    for literal in literals {
        columns.push(literal.to_array_of_size(rows)?);
    }
    Ok(columns)
}

impl Function for Bound {
    fn field(&self) -> Field {
        self.field.clone()
    }

    fn state_fields(&self) -> Vec<Field> {
        self.state.clone()
    }

    fn form(&self) -> Option<&'static str> {
        self.form
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        // The state of nothing is nulls, whatever DataFusion gives for it: one row serves all slots.
        let none = nulls(self.state.iter().map(Field::data_type));
        Ok(Box::new(Merged {
            function: self.clone(),
            numbering: Numbering::default(),
            states: Rows::new(none),
        }))
    }
}

impl Bound {
    /// The columns of arguments in the types that DataFusion takes.
    fn arguments(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let plain =
            self.arguments.iter().enumerate().map(|(index, data_type)| argument(columns, index, data_type));
        plain.zip(&self.columns).map(|(column, data_type)| argument(&[column?], 0, data_type)).collect()
    }

    /// The states in the types that were announced: nested fields differ in their names at times.
    fn conformed(&self, state: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let types = self.state.iter().map(Field::data_type).enumerate();
        types.map(|(index, data_type)| argument(state, index, data_type)).collect()
    }

    fn failed(&self, error: DataFusionError) -> Error {
        let name = self.field.name();
        Error::data(format!("{name} failed: {}", error.find_root().message())).caused_by(error)
    }
}

/// The states of a function of DataFusion.
struct Merged {
    function: Bound,
    numbering: Numbering,
    states: Rows,
}

impl fmt::Debug for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merged").field("function", &self.function.field.name()).finish_non_exhaustive()
    }
}

impl Merged {
    /// An accumulator with the states of these slots in it, each under its place among them.
    fn opened(&self, slots: &[u32]) -> Result<Groups> {
        let mut groups = groups(&self.function.expression).map_err(|error| self.function.failed(error))?;
        let held = slots.iter().enumerate().filter(|(_, slot)| self.states.has(**slot));
        let (numbers, held): (Vec<usize>, Vec<u32>) = held.unzip();
        let states = self.states.get(&held)?;
        if !held.is_empty() {
            let merged = groups.merge_batch(&states, &numbers, slots.len());
            merged.map_err(|error| self.function.failed(error))?;
        }
        Ok(groups)
    }

    /// Gives each slot that has no state the first of these as it is: to merge a sketch into nothing would change it,
    /// and what goes on after a checkpoint with it. The rows that are left, and their slots.
    fn adopt(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(Vec<u32>, Vec<u32>)> {
        let (mut adopted, mut left) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        let Numbered { slots: distinct, numbers } = self.numbering.number(slots);
        let mut is_taken: Vec<bool> = distinct.iter().map(|slot| self.states.has(*slot)).collect();
        for (row, (slot, number)) in (0_u32..).zip(slots.iter().zip(numbers)) {
            if state.iter().all(|column| column.is_null(row as usize)) {
                continue;
            }
            let Some(is_taken) = is_taken.get_mut(number as usize) else { continue };
            let to = if *is_taken { &mut left } else { &mut adopted };
            to.0.push(row);
            to.1.push(*slot);
            *is_taken = true;
        }
        let (rows, slots) = adopted;
        self.states.put(&slots, take_arrays(state, &UInt32Array::from(rows), None)?)?;
        Ok(left)
    }

    fn closed(&mut self, slots: &[u32], mut groups: Groups) -> Result<()> {
        let state = groups.state(EmitTo::All).map_err(|error| self.function.failed(error))?;
        let state = self.function.conformed(&state)?;
        self.states.put(slots, state)
    }

    fn take(
        &mut self,
        rows: &[u32],
        with: impl FnOnce(&mut Groups, &[usize], usize) -> Result<(), DataFusionError>,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let Numbered { slots, numbers } = self.numbering.number(rows);
        let numbers: Vec<usize> = numbers.into_iter().map(|number| number as usize).collect();
        let mut groups = self.opened(&slots)?;
        with(&mut groups, &numbers, slots.len()).map_err(|error| self.function.failed(error))?;
        self.closed(&slots, groups)
    }
}

impl Accumulator for Merged {
    fn grow(&mut self, slots: usize) {
        self.numbering.grow(slots);
        self.states.grow(slots);
    }

    fn update(&mut self, slots: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        check(slots, arguments, self.states.len())?;
        let columns = self.function.arguments(arguments)?;
        let values = with_literals(columns, &self.function.literals, slots.len());
        let values = values.map_err(|error| self.function.failed(error))?;
        self.take(slots, |groups, numbers, count| groups.update_batch(&values, numbers, None, count))
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        check(slots, state, self.states.len())?;
        let state = self.function.conformed(state)?;
        let (rows, slots) = self.adopt(slots, &state)?;
        let state = take_arrays(&state, &UInt32Array::from(rows), None)?;
        self.take(&slots, |groups, numbers, count| groups.merge_batch(&state, numbers, count))
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.states.get(slots)
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        check_slots(slots, self.states.len())?;
        let held: Vec<u32> = slots.iter().copied().filter(|slot| self.states.has(*slot)).collect();
        let mut groups = self.opened(&held)?;
        let nothing = || Ok(new_empty_array(self.function.field.data_type()));
        let results = if held.is_empty() { nothing() } else { groups.evaluate(EmitTo::All) };
        let results = results.map_err(|error| self.function.failed(error))?;
        let results = [results, Arc::clone(&self.function.of_nothing)];
        let results: Vec<ArrayRef> = (0..2)
            .map(|index| argument(&results, index, self.function.field.data_type()))
            .collect::<Result<_>>()?;
        let all = concat(&results.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        let mut next = 0_u32;
        let of_nothing = u32::try_from(held.len()).unwrap_or(NOWHERE);
        let rows = slots.iter().map(|slot| {
            let row = if self.states.has(*slot) { next } else { of_nothing };
            next += u32::from(self.states.has(*slot));
            row
        });
        Ok(take(&all, &UInt32Array::from(rows.collect::<Vec<u32>>()), None)?)
    }

    fn bytes(&self) -> usize {
        self.numbering.bytes() + self.states.bytes()
    }
}
