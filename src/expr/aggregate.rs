//! Aggregates inside expressions: how they are written, and how they are taken out again.
//!
//! `sum(x) / count(*)` is two calls and one projection over what they give; [`split_all`] separates them. What an
//! aggregate computes and which types it takes is deliberately not known here: a call is a name with arguments.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, ScalarValue, not_impl_err};
use datafusion_expr::expr::{AggregateFunction, Alias};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, BinaryExpr, Expr, Operator, Signature, Volatility,
};

use crate::error::{Error, Result, nearest};
use crate::expr::Expression;
use crate::expr::text::Text;

/// The names of all aggregates, sorted.
const NAMES: &[&str] = &[
    "any_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "approx_quantile",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "collect",
    "corr",
    "count",
    "covar",
    "covar_pop",
    "covar_samp",
    "first",
    "first_value",
    "last",
    "last_value",
    "max",
    "mean",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
    "quantile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "top_k",
    "var",
    "var_pop",
    "var_population",
    "var_samp",
    "var_sample",
];

/// The names of all aggregates that an expression may hold, sorted, second names included.
pub fn aggregate_names() -> &'static [&'static str] {
    NAMES
}

/// What sets the name of a result apart from those that users give, and its number from its text.
const RESULT: char = '\u{1f}';

/// The name of the column with the result of call number `index` of a [`Split`], which is written as `text`. Shown in
/// an expression, it is the text alone.
pub fn aggregate_column(index: usize, text: &str) -> String {
    format!("{RESULT}{index}{RESULT}{text}")
}

/// The call whose result has this name, as it was written; none where it is any other column.
pub(super) fn call_of(column: &str) -> Option<&str> {
    column.strip_prefix(RESULT)?.split_once(RESULT).map(|(_, text)| text)
}

/// An aggregate as it was written.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its name, in lower case.
    pub name: String,
    /// What is computed for each row first.
    pub arguments: Vec<Expression>,
    /// The constants that follow the arguments, such as the k of `top_k`.
    pub literals: Vec<ScalarValue>,
    /// Whether equal values count once.
    pub distinct: bool,
    /// The condition of FILTER: rows for which it is not true are as if they were not there.
    pub filter: Option<Expression>,
    /// As it would be written in SQL.
    pub text: String,
}

/// An expression over aggregates, taken apart.
#[derive(Clone, Debug)]
pub struct Split {
    /// The aggregates, each once however often it is written.
    pub calls: Vec<Call>,
    /// The expression over the key columns and the columns named by [`aggregate_column`], one a call.
    pub result: Expression,
}

/// Takes several expressions apart, equal calls among all of them shared; the expressions that are left come in the
/// same order. Outside aggregates they may read the columns `keys` alone.
///
/// ```
/// use tidemill::expr::{Expression, split_all};
/// let expressions = [Expression::sql("sum(x) / count(*) AS mean"), Expression::sql("count(*)")];
/// let (calls, results) = split_all(&expressions, &["device"]).unwrap();
/// assert_eq!(calls.iter().map(|call| call.text.as_str()).collect::<Vec<_>>(), ["sum(x)", "count(*)"]);
/// assert_eq!(results[0].to_string(), "sum(x) / count(*) AS mean");
/// assert_eq!(results[1].columns().len(), 1);
/// ```
pub fn split_all<K: AsRef<str>>(
    expressions: &[Expression],
    keys: &[K],
) -> Result<(Vec<Call>, Vec<Expression>), Vec<Error>> {
    let mut splitter = Splitter { found: Vec::new(), mistakes: Vec::new() };
    let results: Vec<Expression> =
        expressions.iter().map(|expression| splitter.expression(expression, keys)).collect();
    if !splitter.mistakes.is_empty() {
        return Err(splitter.mistakes);
    }
    Ok((splitter.found.into_iter().map(call).collect(), results))
}

impl Expression {
    /// An aggregate by its name in any case, over these arguments; none of them means every row, as in `count(*)`.
    ///
    /// It has its place in `agg`: bound to the columns of rows it is a mistake.
    ///
    /// ```
    /// use tidemill::expr::Expression;
    /// let mean = Expression::aggregate("mean", vec![Expression::col("t")]);
    /// assert_eq!((mean + Expression::lit(1)).to_string(), "mean(t) + 1");
    /// assert_eq!(Expression::aggregate("count", vec![]).to_string(), "count(*)");
    /// ```
    pub fn aggregate(name: &str, arguments: Vec<Self>) -> Self {
        Self::aggregated(name, arguments, false)
    }

    /// As [`Self::aggregate`], equal values counting once.
    pub fn aggregate_distinct(name: &str, arguments: Vec<Self>) -> Self {
        Self::aggregated(name, arguments, true)
    }

    fn aggregated(name: &str, arguments: Vec<Self>, distinct: bool) -> Self {
        let Some(function) = lookup(name) else {
            let arguments = arguments.into_iter().flat_map(|argument| argument.mistakes);
            let mistakes = std::iter::once(unknown(name)).chain(arguments).collect();
            return Self { mistakes, ..Self::leaf(super::unknown(format!("{name}(...)"))) };
        };
        Self::over(arguments, |trees| {
            let trees = trees.into_iter().map(super::unaliased).collect();
            Expr::AggregateFunction(AggregateFunction::new_udf(function, trees, distinct, None, vec![], None))
        })
    }

    /// The aggregate over only those rows of a group for which `condition` is true; null is not true. A second
    /// condition narrows the first.
    ///
    /// The group itself is there all the same: its sum of no rows is null, its count 0.
    ///
    /// ```
    /// use tidemill::expr::Expression;
    /// let fine = Expression::aggregate("sum", vec![Expression::col("x")]).filter(Expression::sql("status = 'ok'"));
    /// assert_eq!(fine.to_string(), "sum(x) FILTER (WHERE status = 'ok')");
    /// assert_eq!(Expression::sql("sum(x) FILTER (WHERE status = 'ok')").to_string(), fine.to_string());
    /// ```
    #[must_use]
    pub fn filter(self, condition: Self) -> Self {
        let mistake = unfilterable(&self.tree);
        let mut made = Self::over(vec![self, condition], |trees| match <[Expr; 2]>::try_from(trees) {
            Ok([aggregate, condition]) => filtered(aggregate, super::unaliased(condition)),
            Err(_) => super::unknown("filter"),
        });
        made.mistakes.extend(mistake);
        made
    }

    /// Whether there is an aggregate anywhere in it.
    pub fn has_aggregate(&self) -> bool {
        has_aggregate(&self.tree)
    }

    /// Takes the aggregates out of it; see [`split_all`].
    ///
    /// ```
    /// use tidemill::expr::Expression;
    /// let split = Expression::sql("sum(x) / count(*)").split_aggregates(&["device"]).unwrap();
    /// assert_eq!(split.calls[0].name, "sum");
    /// assert_eq!(split.calls[1].text, "count(*)");
    /// assert_eq!(split.result.to_string(), "sum(x) / count(*)");
    /// ```
    pub fn split_aggregates<K: AsRef<str>>(&self, keys: &[K]) -> Result<Split, Vec<Error>> {
        let (calls, mut results) = split_all(std::slice::from_ref(self), keys)?;
        let result =
            results.pop().ok_or_else(|| vec![Error::internal("an expression was split into none")])?;
        Ok(Split { calls, result })
    }
}

struct Splitter {
    found: Vec<AggregateFunction>,
    mistakes: Vec<Error>,
}

impl Splitter {
    fn expression<K: AsRef<str>>(&mut self, expression: &Expression, keys: &[K]) -> Expression {
        self.mistakes.extend(expression.mistakes.iter().cloned());
        let is_key = |name: &String| keys.iter().any(|key| key.as_ref() == name);
        let strays = outside(&expression.tree).into_iter().filter(|name| !is_key(name));
        self.mistakes.extend(strays.map(|name| stray(&name, &expression.tree, keys)));
        let result = expression.tree.clone().transform_down(|node| Ok(self.node(node)));
        let Ok(result) = result.map(|result| result.data) else { return expression.clone() };
        Expression { tree: result, depth: expression.depth, mistakes: Vec::new() }
    }

    fn node(&mut self, node: Expr) -> Transformed<Expr> {
        match node {
            Expr::AggregateFunction(call) => {
                if call.params.args.iter().any(has_aggregate) {
                    self.mistakes.push(nested(&call));
                }
                if call.params.filter.as_deref().is_some_and(has_aggregate) {
                    self.mistakes.push(nested_condition(&call));
                }
                let text = Text(&Expr::AggregateFunction(call.clone())).to_string();
                let name = aggregate_column(self.index_of(call), &text);
                Transformed::yes(Expr::Column(Column::new_unqualified(name)))
            }
            other => Transformed::no(other),
        }
    }

    fn index_of(&mut self, call: AggregateFunction) -> usize {
        self.found.iter().position(|found| *found == call).unwrap_or_else(|| {
            self.found.push(call);
            self.found.len() - 1
        })
    }
}

/// The names of the columns that are read beside the aggregates, each once.
fn outside(tree: &Expr) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let walked = tree.apply(|node| {
        if let Expr::Column(column) = node
            && !names.contains(&column.name)
        {
            names.push(column.name.clone());
        }
        let is_call = matches!(node, Expr::AggregateFunction(_));
        Ok(if is_call { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(walked.is_ok(), "the visitor never fails");
    names
}

fn stray<K: AsRef<str>>(name: &str, written: &Expr, keys: &[K]) -> Error {
    let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
    let keys =
        if keys.is_empty() { "there are none".to_owned() } else { format!("they are {}", keys.join(", ")) };
    let text = Text(written);
    Error::config(format!(
        "the column \"{name}\" in {text} is neither a key ({keys}) nor within an aggregate"
    ))
    .help(format!("aggregate it, say with last({name}), or group by it"))
}

fn nested(call: &AggregateFunction) -> Error {
    let text = Text(&Expr::AggregateFunction(call.clone())).to_string();
    Error::config(format!("there is an aggregate within an aggregate in {text}"))
        .help("aggregate in two steps: one agg after the other")
}

fn nested_condition(call: &AggregateFunction) -> Error {
    let text = Text(&Expr::AggregateFunction(call.clone())).to_string();
    Error::config(format!("the condition of a filter sees one row, found an aggregate in that of {text}"))
        .help("aggregate in two steps: one agg after the other, and filter between them")
}

/// The aggregate with a condition, or with a further one.
fn filtered(aggregate: Expr, condition: Expr) -> Expr {
    match aggregate {
        Expr::Alias(alias) => {
            Expr::Alias(Alias { expr: Box::new(filtered(*alias.expr, condition)), ..alias })
        }
        Expr::AggregateFunction(mut call) => {
            let condition = match call.params.filter.take() {
                Some(first) => Expr::BinaryExpr(BinaryExpr::new(first, Operator::And, Box::new(condition))),
                None => condition,
            };
            call.params.filter = Some(Box::new(condition));
            Expr::AggregateFunction(call)
        }
        other => super::unknown(format!("{}.filter(...)", Text(&other))),
    }
}

/// The mistake of a filter on what is no aggregate; none where the mistake lies within it.
fn unfilterable(tree: &Expr) -> Option<Error> {
    let help = match tree {
        Expr::AggregateFunction(_) | Expr::Placeholder(_) => return None,
        Expr::Alias(alias) => return unfilterable(&alias.expr),
        Expr::Column(column) => first_aggregate(&format!("col({:?})", column.name)),
        tree if has_aggregate(tree) => {
            "give each aggregate in it a filter of its own, as in col(\"x\").sum().filter(...) / count()"
                .to_owned()
        }
        tree => first_aggregate(&format!("({})", Text(tree))),
    };
    let message = format!("expected an aggregate before filter, found {}", Text(tree));
    Some(Error::config(message).help(help))
}

fn first_aggregate(value: &str) -> String {
    format!("aggregate first, as in {value}.sum().filter(...); filter of a stream keeps whole rows")
}

fn call(function: AggregateFunction) -> Call {
    let text = Text(&Expr::AggregateFunction(function.clone())).to_string();
    let name = function.func.name().to_owned();
    let params = function.params;
    // A constant alone is an argument, as in count(1).
    let constants = params.args.iter().skip(1).rev().take_while(|tree| matches!(tree, Expr::Literal(..)));
    let arguments = params.args.len() - constants.count();
    let (mut columns, mut literals) = (Vec::new(), Vec::new());
    for (index, tree) in params.args.into_iter().enumerate() {
        match tree {
            Expr::Literal(value, _) if index >= arguments => literals.push(value),
            tree => columns.push(Expression::leaf(tree)),
        }
    }
    let filter = params.filter.map(|condition| Expression::leaf(*condition));
    Call { name, arguments: columns, literals, distinct: params.distinct, filter, text }
}

fn has_aggregate(tree: &Expr) -> bool {
    tree.exists(|node| Ok(matches!(node, Expr::AggregateFunction(_)))).unwrap_or(false)
}

/// Whether a name, in any case, is that of an aggregate.
pub(super) fn is_aggregate(name: &str) -> bool {
    NAMES.contains(&name.to_lowercase().as_str())
}

/// The aggregate of this name, letters compared without case.
pub(super) fn lookup(name: &str) -> Option<Arc<AggregateUDF>> {
    let name = name.to_lowercase();
    let name = NAMES.iter().copied().find(|known| *known == name)?;
    Some(Arc::new(AggregateUDF::new_from_impl(Named::new(name))))
}

fn unknown(name: &str) -> Error {
    let error = Error::config(format!("there is no aggregate {name}"));
    let all = NAMES.join(", ");
    match nearest(name, NAMES.iter().copied()) {
        Some(near) => error.help(format!("did you mean {near}? There are {all}")),
        None => error.help(format!("there are {all}")),
    }
}

/// The mistake of an aggregate among what sees one row.
pub(super) fn misplaced(written: &Expr) -> Error {
    let text = Text(written).to_string();
    Error::config(format!("expected an expression of one row, found {text}, which needs many rows"))
        .help(format!("an aggregate has its place in agg(...), as in group_by(...).agg(name={text})"))
}

/// Stands for an aggregate in a tree: a name, and nothing that could be computed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Named {
    name: &'static str,
    signature: Signature,
}

impl Named {
    fn new(name: &'static str) -> Self {
        Self { name, signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Named {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> datafusion_common::Result<DataType> {
        Ok(DataType::Null)
    }

    fn accumulator(
        &self,
        _arguments: AccumulatorArgs<'_>,
    ) -> datafusion_common::Result<Box<dyn Accumulator>> {
        not_impl_err!("{} stands for an aggregate and computes nothing", self.name)
    }
}
