//! An expression over the columns of one schema, ready to be evaluated batch after batch.
//!
//! What can be computed once is computed when it is bound. It deliberately takes whole batches only: which rows
//! count is said by a selection, and a predicate looks at no other row where looking could fail.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::temporal_conversions::timestamp_ms_to_datetime;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::utils::split_conjunction_owned;
use datafusion_expr::{ColumnarValue, Expr, ExprSchemable, Operator, Volatility};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
    TryCastExpr,
};

use crate::error::{Error, Result};
use crate::expr::Expression;
use crate::expr::check::{check, column_names};
use crate::expr::lenient::STRICT;
use crate::time::BatchTime;
use crate::types::{in_our_words, type_name};

/// Where fewer than one row in this many is left, copying those rows costs less than looking at all.
const SPARSE: usize = 16;

/// An expression bound to the columns of a schema.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{AsArray, Float64Array, RecordBatch};
/// use arrow::datatypes::Float64Type;
/// use tidemill::expr::Expression;
/// use tidemill::time::BatchTime;
/// let batch = RecordBatch::try_from_iter([("c", Arc::new(Float64Array::from(vec![20.0, 30.0])) as _)]).unwrap();
/// let fahrenheit = Expression::sql("c * 1.8 + 32 AS f").bind(&batch.schema()).unwrap();
/// let values = fahrenheit.evaluate(&batch, BatchTime(0)).unwrap();
/// assert_eq!(values.as_primitive::<Float64Type>().values(), &[68.0, 86.0]);
/// assert_eq!(fahrenheit.field().name(), "f");
/// ```
#[derive(Debug)]
pub struct Bound {
    text: String,
    field: Field,
    column: Option<usize>,
    part: Part,
}

/// A condition bound to the columns of a schema.
///
/// The sides of a top-level AND are looked at from left to right, the right one only for rows for which the left one is
/// true wherever looking could fail: `n <> 0 AND 100 % n = 1` never divides by zero.
#[derive(Debug)]
pub struct Predicate {
    text: String,
    columns: Vec<usize>,
    parts: Vec<Part>,
}

impl Bound {
    pub(super) fn new(expression: &Expression, schema: &Schema) -> Result<Self, Vec<Error>> {
        let names = df_schema(schema)?;
        let typed = typed(expression, &names)?;
        let text = expression.to_string();
        let name = expression.output_name().unwrap_or_else(|| text.clone());
        let one = |error: Error| vec![error];
        let part = Part::new(typed.clone(), schema, &text).map_err(one)?;
        let field = field_of(&name, &typed, &names, &text).map_err(one)?;
        let column = expression.as_column().and_then(|name| schema.index_of(name).ok());
        let field = match column {
            Some(index) => schema.field(index).clone().with_name(name),
            None => field,
        };
        Ok(Self { text, field, column, part })
    }

    /// The name, type and nullability of what it gives.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The columns that it reads, by their place in the schema, in ascending order.
    pub fn columns(&self) -> &[usize] {
        &self.part.columns
    }

    /// The column that it passes on unchanged, if it is no more than that.
    pub fn as_column(&self) -> Option<usize> {
        self.column
    }

    /// Its value for every row of `batch`, which has the schema that it was bound to.
    pub fn evaluate(&self, batch: &RecordBatch, time: BatchTime) -> Result<ArrayRef> {
        if let Some(column) = self.column.and_then(|index| batch.columns().get(index)) {
            return Ok(Arc::clone(column));
        }
        let input = self.part.input(batch, &self.text)?;
        let value = self.part.evaluate(&input, time, &self.text)?;
        value.into_array(batch.num_rows()).map_err(|error| failed(&self.text, error))
    }
}

impl Predicate {
    pub(super) fn new(expression: &Expression, schema: &Schema) -> Result<Self, Vec<Error>> {
        let names = df_schema(schema)?;
        let typed = typed(expression, &names)?;
        let text = expression.to_string();
        let found = data_type_of(&typed, &names, &text).map_err(|error| vec![error])?;
        if !matches!(found, DataType::Boolean | DataType::Null) {
            let found = format!("expected a condition (bool), found {text} of type {}", type_name(&found));
            return Err(vec![Error::schema(found).help("compare it with something, say with > 0")]);
        }
        let parts = split_conjunction_owned(without_alias(typed)).into_iter();
        let parts: Vec<Part> = parts
            .map(|part| Part::new(part, schema, &text))
            .collect::<Result<_>>()
            .map_err(|error| vec![error])?;
        let mut columns: Vec<usize> = parts.iter().flat_map(|part| part.columns.iter().copied()).collect();
        columns.sort_unstable();
        columns.dedup();
        Ok(Self { text, columns, parts })
    }

    /// The columns that it reads, by their place in the schema, in ascending order.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Which rows of `batch` it is true for, among those in `selection` (all, where there is none). Null is not true.
    pub fn evaluate_selection(
        &self,
        batch: &RecordBatch,
        selection: Option<&BooleanBuffer>,
        time: BatchTime,
    ) -> Result<BooleanBuffer> {
        let mut selected = selection.cloned();
        for part in &self.parts {
            let next = part.select(batch, selected.as_ref(), time, &self.text)?;
            selected = Some(next);
        }
        Ok(selected.unwrap_or_else(|| BooleanBuffer::new_set(batch.num_rows())))
    }
}

/// One compiled expression, over only the columns that it reads.
#[derive(Debug)]
struct Part {
    columns: Vec<usize>,
    schema: SchemaRef,
    names: DFSchema,
    program: Program,
    fallible: bool,
}

/// How an expression is evaluated.
#[derive(Debug)]
enum Program {
    /// Always in the same way.
    Fixed(Arc<dyn PhysicalExpr>),
    /// It asks for the time, which is a constant of each batch.
    Timed {
        tree: Expr,
        /// Behind a lock because the chunks of one batch are evaluated on several threads, and the first of them
        /// compiles for all; it is held for a look or for one compilation, never while rows are computed.
        current: Mutex<Option<(BatchTime, Arc<dyn PhysicalExpr>)>>,
    },
}

impl Part {
    fn new(tree: Expr, schema: &Schema, text: &str) -> Result<Self> {
        let mut columns: Vec<usize> =
            column_names(&tree).iter().filter_map(|name| schema.index_of(name).ok()).collect();
        columns.sort_unstable();
        let schema = Arc::new(schema.project(&columns)?);
        let names = DFSchema::try_from(Arc::clone(&schema)).map_err(|error| failed(text, error))?;
        let compiled = compile(&tree, &names, BatchTime(0)).map_err(|error| failed(text, error))?;
        let fallible = can_fail(&compiled, &schema);
        let program = if asks_for_time(&tree) {
            Program::Timed { tree, current: Mutex::new(None) }
        } else {
            Program::Fixed(compiled)
        };
        Ok(Self { columns, schema, names, program, fallible })
    }

    /// The columns that it reads.
    fn input(&self, batch: &RecordBatch, text: &str) -> Result<RecordBatch> {
        let columns = self.columns.iter().filter_map(|index| batch.columns().get(*index)).cloned().collect();
        self.rows(columns, batch.num_rows(), text)
    }

    fn rows(&self, columns: Vec<ArrayRef>, rows: usize, text: &str) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(|error| {
            Error::internal(format!("{text} met a batch of another schema than it was bound to"))
                .caused_by(error)
        })
    }

    /// Only the selected rows of the columns that it reads.
    fn selected_input(
        &self,
        batch: &RecordBatch,
        selection: &BooleanBuffer,
        text: &str,
    ) -> Result<RecordBatch> {
        let mask = BooleanArray::new(selection.clone(), None);
        let columns = self.columns.iter().filter_map(|index| batch.columns().get(*index));
        let columns = columns.map(|column| filter(column, &mask)).collect::<Result<_, _>>()?;
        self.rows(columns, selection.count_set_bits(), text)
    }

    fn evaluate(&self, input: &RecordBatch, time: BatchTime, text: &str) -> Result<ColumnarValue> {
        let evaluated = match &self.program {
            Program::Fixed(compiled) => compiled.evaluate(input),
            Program::Timed { tree, current } => {
                self.at(tree, current, time).and_then(|compiled| compiled.evaluate(input))
            }
        };
        evaluated.map_err(|error| failed(text, error))
    }

    fn at(
        &self,
        tree: &Expr,
        current: &Mutex<Option<(BatchTime, Arc<dyn PhysicalExpr>)>>,
        time: BatchTime,
    ) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((compiled_for, compiled)) = current.as_ref()
            && *compiled_for == time
        {
            return Ok(Arc::clone(compiled));
        }
        let compiled = compile(tree, &self.names, time)?;
        *current = Some((time, Arc::clone(&compiled)));
        Ok(compiled)
    }

    fn select(
        &self,
        batch: &RecordBatch,
        selection: Option<&BooleanBuffer>,
        time: BatchTime,
        text: &str,
    ) -> Result<BooleanBuffer> {
        let rows = batch.num_rows();
        let Some(selection) = selection else {
            return self.truth(&self.input(batch, text)?, time, text);
        };
        let selected = selection.count_set_bits();
        if selected == 0 {
            return Ok(selection.clone());
        }
        if selected == rows || (!self.fallible && selected >= rows / SPARSE) {
            return Ok(&self.truth(&self.input(batch, text)?, time, text)? & selection);
        }
        let input = self.selected_input(batch, selection, text)?;
        Ok(scattered(selection, &self.truth(&input, time, text)?))
    }

    /// For which rows it is true; null is not.
    fn truth(&self, input: &RecordBatch, time: BatchTime, text: &str) -> Result<BooleanBuffer> {
        let value = self.evaluate(input, time, text)?;
        let array = value.into_array(input.num_rows()).map_err(|error| failed(text, error))?;
        let Some(values) = array.as_boolean_opt() else {
            return Ok(BooleanBuffer::new_unset(input.num_rows()));
        };
        Ok(match values.nulls() {
            Some(nulls) => values.values() & nulls.inner(),
            None => values.values().clone(),
        })
    }
}

/// The selection, without those of its rows for which `kept`, one bit for each of them, is false.
fn scattered(selection: &BooleanBuffer, kept: &BooleanBuffer) -> BooleanBuffer {
    let mut builder = BooleanBufferBuilder::new(selection.len());
    builder.append_n(selection.len(), false);
    for (row, _) in selection.set_indices().zip(kept.iter()).filter(|(_, kept)| *kept) {
        builder.set_bit(row, true);
    }
    builder.finish()
}

fn df_schema(schema: &Schema) -> Result<DFSchema, Vec<Error>> {
    DFSchema::try_from(schema.clone()).map_err(|error| {
        vec![Error::schema("expected columns of different names, found two of the same").caused_by(error)]
    })
}

fn typed(expression: &Expression, schema: &DFSchema) -> Result<Expr, Vec<Error>> {
    let mut mistakes = expression.mistakes.clone();
    match check(&expression.tree, schema) {
        Ok(typed) if mistakes.is_empty() => Ok(typed),
        Ok(_) => Err(mistakes),
        Err(more) => {
            mistakes.extend(more);
            Err(mistakes)
        }
    }
}

fn without_alias(tree: Expr) -> Expr {
    match tree {
        Expr::Alias(alias) => *alias.expr,
        other => other,
    }
}

fn field_of(name: &str, tree: &Expr, schema: &DFSchema, text: &str) -> Result<Field> {
    let nullable = tree.nullable(schema).map_err(|error| failed(text, error))?;
    Ok(Field::new(name, data_type_of(tree, schema, text)?, nullable))
}

fn data_type_of(tree: &Expr, schema: &DFSchema, text: &str) -> Result<DataType> {
    let found = tree.get_type(schema).map_err(|error| failed(text, error))?;
    Ok(without_views(found))
}

/// Some functions give views of strings; a stream's strings have one type, so that filters do not change a schema.
fn without_views(data_type: DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other,
    }
}

fn asks_for_time(tree: &Expr) -> bool {
    tree.exists(|node| match node {
        Expr::ScalarFunction(call) => Ok(call.func.signature().volatility == Volatility::Stable),
        _ => Ok(false),
    })
    .unwrap_or(true)
}

fn compile(
    tree: &Expr,
    schema: &DFSchema,
    time: BatchTime,
) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let now = timestamp_ms_to_datetime(time.0).map(|moment| moment.and_utc());
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_query_execution_start_time(now)
        .build();
    let declared = tree.get_type(schema)?;
    // A constant part that always fails stays as it is: it may stand in a branch that no row takes.
    let simple = ExprSimplifier::new(context).simplify(tree.clone()).unwrap_or_else(|_| tree.clone());
    let context = PhysicalPlanningContext::default();
    let compiled =
        datafusion_physical_expr::create_physical_expr(&simple, schema, &ExecutionProps::new(), &context)?;
    with_type(checked(compiled)?, schema.as_arrow(), &without_views(declared))
}

fn with_type(
    compiled: Arc<dyn PhysicalExpr>,
    schema: &Schema,
    wanted: &DataType,
) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    if compiled.data_type(schema)? == *wanted {
        return Ok(compiled);
    }
    datafusion_physical_expr::expressions::cast(compiled, schema, wanted.clone())
}

/// Arithmetic that fails where it would wrap round.
fn checked(compiled: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    compiled
        .transform_up(|node| match node.downcast_ref::<BinaryExpr>() {
            Some(binary) if can_wrap(*binary.op()) => {
                let checked = binary.clone().with_fail_on_overflow(true);
                Ok(Transformed::yes(Arc::new(checked) as Arc<dyn PhysicalExpr>))
            }
            _ => Ok(Transformed::no(node)),
        })
        .data()
}

fn can_wrap(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
}

/// Whether some row could make it fail; where that is not known, it could.
fn can_fail(compiled: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let mut fallible = false;
    let walked = compiled.apply(|node| {
        fallible |= !never_fails(node, schema);
        Ok(if fallible { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    fallible || walked.is_err()
}

fn never_fails(node: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    if let Some(binary) = node.downcast_ref::<BinaryExpr>() {
        let floats = || node.data_type(schema).is_ok_and(|found| found.is_floating());
        let arithmetic =
            matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide);
        return binary.op().is_logic_operator()
            || binary.op().supports_propagation()
            || is_inequality(*binary.op())
            || (arithmetic && floats());
    }
    if let Some(cast) = node.downcast_ref::<CastExpr>() {
        let from = cast.expr().data_type(schema);
        return from.is_ok_and(|from| from.is_numeric())
            && node.data_type(schema).is_ok_and(|to| to.is_floating());
    }
    node.is::<Column>()
        || node.is::<Literal>()
        || node.is::<NotExpr>()
        || node.is::<IsNullExpr>()
        || node.is::<IsNotNullExpr>()
        || node.is::<InListExpr>()
        || node.is::<LikeExpr>()
        || node.is::<TryCastExpr>()
}

fn is_inequality(op: Operator) -> bool {
    matches!(op, Operator::NotEq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom)
}

/// What went wrong while rows were computed, in our words.
fn failed(text: &str, error: DataFusionError) -> Error {
    let told = match error.find_root() {
        DataFusionError::ArrowError(inner, _) => arrow_failure(text, inner),
        other => {
            let told = Error::data(format!("{text} failed: {}", in_our_words(other.message().as_ref())));
            if parses(text) { told.help(LENIENT) } else { told }
        }
    };
    told.caused_by(error)
}

/// What to do where text, or a number, is not what it should be.
const LENIENT: &str = "cast(…, strict=False) and to_datetime(…, strict=False) give null for such values; in SQL they are \
                       TRY_CAST(…) and try_to_timestamp(…)";

/// Whether the expression reads text by a function that has a lenient form.
fn parses(text: &str) -> bool {
    STRICT.iter().any(|name| text.contains(&format!("{name}(")))
}

fn arrow_failure(text: &str, error: &ArrowError) -> Error {
    match error {
        ArrowError::DivideByZero => Error::data(format!("{text} divides an integer by zero"))
            .help("filter those rows out first, or divide as floats with /, which gives an infinity"),
        ArrowError::ArithmeticOverflow(what) => Error::data(format!("{text} overflows ({what})"))
            .help("cast to a wider type, such as float64, first"),
        ArrowError::CastError(what) | ArrowError::ParseError(what) => {
            Error::data(format!("a value cannot be converted in {text} ({})", in_our_words(what)))
                .help(LENIENT)
        }
        other => Error::data(format!("{text} failed: {}", in_our_words(&other.to_string()))),
    }
}
