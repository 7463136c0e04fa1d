//! An expression (a tree, or SQL text) and what it becomes once bound to the columns of a schema.
//!
//! An [`Expression`] is inert: it is built without knowing any column, and every mistake in it waits until
//! [`Expression::bind`], which reports all of them at once. A [`Bound`] expression is evaluated batch by batch. Parsing, typing and evaluation are DataFusion's; what is settled here is the meaning of operators and the
//! wording of mistakes. It deliberately knows no windows or subqueries: an expression sees one row. An aggregate may stand
//! in one all the same; [`split_all`] takes it out, and what is left sees one row a group.
//!
//! What a reader may not expect:
//! * Column names are case-sensitive, also in SQL text.
//! * `/` is true division: of two integers it gives float64, and by zero an infinity. [`Expression::floor_divide`] and
//!   [`Expression::modulo`] round down, as in Python, and so does `%` in SQL text: one sign, one meaning. `^` means a power to
//!   some and bits to others, and is refused there.
//! * Integer arithmetic never wraps round: overflow, and integer division by zero, fail the batch with a data error. Float
//!   arithmetic and functions of floats never fail: they give NaN and infinities, as IEEE 754 says.
//! * A literal takes the type of the column it meets: `'2026-01-01'` that of a timestamp (UTC where it has no zone), a
//!   float that of a float32. Text in a column is never read as a number: that needs a cast.
//! * NaN is larger than every other number and equal to itself, as in sorting.

mod aggregate;
mod arithmetic;
mod bound;
mod check;
mod functions;
mod lenient;
mod literal;
mod math;
mod moments;
mod nested;
mod sql;
mod text;

use std::fmt;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Neg, Not, Sub};

use arrow::datatypes::DataType;
use datafusion_common::{Column, ScalarValue};
use datafusion_expr::expr::{Alias, Case, InList, Placeholder, ScalarFunction};
use datafusion_expr::{Between, BinaryExpr, Cast, Expr, Operator, TryCast};

use crate::error::{Error, Result};

pub use aggregate::{Call, Split, aggregate_column, aggregate_names, split_all};
pub use bound::{Bound, Predicate};
pub(crate) use check::unknown_column;
pub use functions::{FunctionInfo, function_info, function_names};

/// How deep a tree may grow: planning recurses, and a thread's stack must hold it.
const MAX_DEPTH: usize = 200;
/// The depth of what has been cut off: it grows no further, and its mistake is told once.
const CUT_OFF: usize = usize::MAX;

/// A value for each row, computed from its columns; nothing is known of the columns yet.
///
/// ```
/// use tidemill::expr::Expression;
/// let hot = Expression::col("t").gt(Expression::lit(80)) & Expression::col("status").equal(Expression::lit("ok"));
/// assert_eq!(hot.to_string(), "t > 80 AND status = 'ok'");
/// assert_eq!(hot.columns(), ["t", "status"]);
/// assert_eq!(Expression::sql("t > 80 AND status = 'ok'").to_string(), hot.to_string());
/// ```
#[derive(Clone, Debug)]
pub struct Expression {
    tree: Expr,
    depth: usize,
    mistakes: Vec<Error>,
}

/// Stands where a part is wrong, so that the rest can still be checked.
fn unknown(text: impl Into<String>) -> Expr {
    Expr::Placeholder(Placeholder::new_with_field(text.into(), None))
}

macro_rules! comparisons {
    ($($name:ident: $operator:ident, $text:literal;)*) => {$(
        #[doc = concat!("Whether this is `", $text, "` the other; null where either is null.")]
        #[must_use]
        pub fn $name(self, other: Self) -> Self {
            self.binary(Operator::$operator, other)
        }
    )*};
}

impl Expression {
    fn leaf(tree: Expr) -> Self {
        Self { tree, depth: 1, mistakes: Vec::new() }
    }

    fn wrong(text: &str, mistake: Error) -> Self {
        Self { tree: unknown(text), depth: 1, mistakes: vec![mistake] }
    }

    /// A node over `parts`; their mistakes come along.
    fn over(parts: Vec<Self>, build: impl FnOnce(Vec<Expr>) -> Expr) -> Self {
        let depth = parts.iter().map(|part| part.depth).max().unwrap_or_default().saturating_add(1);
        let (trees, mistakes): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|part| (part.tree, part.mistakes)).unzip();
        Self { tree: build(trees), depth, mistakes: mistakes.concat() }.limited()
    }

    fn wrap(self, build: impl FnOnce(Box<Expr>) -> Expr) -> Self {
        let depth = self.depth.saturating_add(1);
        Self { tree: build(Box::new(self.tree)), depth, mistakes: self.mistakes }.limited()
    }

    fn limited(mut self) -> Self {
        if self.depth <= MAX_DEPTH {
            return self;
        }
        if self.depth != CUT_OFF {
            let mistake =
                Error::config(format!("an expression nests at most {MAX_DEPTH} levels deep, found more"));
            let help = "use is_in for many values, or compute parts of it with with_columns first";
            self.mistakes.push(mistake.help(help));
        }
        Self { tree: unknown("..."), depth: CUT_OFF, ..self }
    }

    fn binary(self, operator: Operator, other: Self) -> Self {
        Self::over(vec![self, other], |parts| {
            let mut parts = parts.into_iter();
            match (parts.next(), parts.next()) {
                (Some(left), Some(right)) => {
                    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), operator, Box::new(right)))
                }
                _ => unknown(operator.to_string()),
            }
        })
    }

    /// The column of this name, exactly as written.
    pub fn col(name: impl Into<String>) -> Self {
        Self::leaf(Expr::Column(Column::new_unqualified(name)))
    }

    /// The same value in every row.
    pub fn lit(value: impl Into<ScalarValue>) -> Self {
        Self::leaf(Expr::Literal(value.into(), None))
    }

    /// An expression written in SQL, such as `t > 80 AND status = 'ok'`, with `AS name` if wanted. What is wrong with the
    /// text is kept, and told with all else that is wrong with a plan.
    ///
    /// ```
    /// use tidemill::expr::Expression;
    /// let hot = Expression::sql("t * 1.8 + 32 > 190 AS hot");
    /// assert_eq!((hot.output_name().as_deref(), hot.columns()), (Some("hot"), vec!["t".to_owned()]));
    /// assert_eq!(Expression::sql("t >").mistakes().len(), 1);
    /// ```
    pub fn sql(text: &str) -> Self {
        match sql::parse(text) {
            Ok(tree) => Self::leaf(tree),
            Err(mistakes) => Self { tree: unknown(text), depth: 1, mistakes },
        }
    }

    /// A function of the registry, by its name in any case; [`function_names`] lists them.
    pub fn function(name: &str, arguments: Vec<Self>) -> Self {
        match functions::lookup(name) {
            Ok(function) => {
                Self::over(arguments, |trees| Expr::ScalarFunction(ScalarFunction::new_udf(function, trees)))
            }
            Err(mistake) => {
                let arguments = arguments.into_iter().flat_map(|argument| argument.mistakes);
                let mistakes = std::iter::once(mistake).chain(arguments).collect();
                Self { mistakes, ..Self::leaf(unknown(format!("{name}(...)"))) }
            }
        }
    }

    /// The value of the first branch whose condition is true; `otherwise` (null by default) where none is. A value is
    /// computed only for the rows that take it.
    pub fn when(branches: Vec<(Self, Self)>, otherwise: Option<Self>) -> Self {
        if branches.is_empty() {
            return Self::wrong("when", Error::config("when needs a condition and a value, found none"));
        }
        let has_otherwise = otherwise.is_some();
        let parts = branches.into_iter().flat_map(|(condition, value)| [condition, value]).chain(otherwise);
        Self::over(parts.collect(), |mut trees| {
            let otherwise = if has_otherwise { trees.pop().map(Box::new) } else { None };
            let mut trees = trees.into_iter().map(Box::new);
            let branches = std::iter::from_fn(|| Some((trees.next()?, trees.next()?))).collect();
            Expr::Case(Case::new(None, branches, otherwise))
        })
    }

    comparisons! {
        equal: Eq, "=";
        not_equal: NotEq, "<>";
        lt: Lt, "<";
        lt_eq: LtEq, "<=";
        gt: Gt, ">";
        gt_eq: GtEq, ">=";
    }

    /// Division rounded down, as Python's `//`; of integers an integer, and an error where the divisor is 0.
    #[must_use]
    pub fn floor_divide(self, other: Self) -> Self {
        Self::function("floor_divide", vec![self, other])
    }

    /// What [`Self::floor_divide`] leaves, with the sign of the divisor, as Python's `%`.
    #[must_use]
    pub fn modulo(self, other: Self) -> Self {
        Self::function("floor_mod", vec![self, other])
    }

    /// This to the power of the other, always in float64.
    #[must_use]
    pub fn power(self, other: Self) -> Self {
        Self::function("power", vec![self, other])
    }

    /// Converted to `data_type`; a value that cannot be fails the batch.
    #[must_use]
    pub fn cast(self, data_type: DataType) -> Self {
        self.wrap(|tree| Expr::Cast(Cast::new(tree, data_type)))
    }

    /// Converted to `data_type`; null where a value cannot be.
    #[must_use]
    pub fn try_cast(self, data_type: DataType) -> Self {
        self.wrap(|tree| Expr::TryCast(TryCast::new(tree, data_type)))
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(self) -> Self {
        self.wrap(Expr::IsNull)
    }

    /// Whether it is not null.
    #[must_use]
    pub fn is_not_null(self) -> Self {
        self.wrap(Expr::IsNotNull)
    }

    /// Whether it is the float that is no number; null where it is null.
    #[must_use]
    pub fn is_nan(self) -> Self {
        Self::function("isnan", vec![self])
    }

    /// The first of this and the others that is not null.
    #[must_use]
    pub fn coalesce(self, others: Vec<Self>) -> Self {
        Self::function("coalesce", std::iter::once(self).chain(others).collect())
    }

    /// This, and `value` where it is null.
    #[must_use]
    pub fn fill_null(self, value: Self) -> Self {
        self.coalesce(vec![value])
    }

    /// Whether it equals one of `values`.
    #[must_use]
    pub fn is_in(self, values: Vec<Self>) -> Self {
        Self::over(std::iter::once(self).chain(values).collect(), |trees| {
            let mut trees = trees.into_iter();
            match trees.next() {
                Some(value) => Expr::InList(InList::new(Box::new(value), trees.collect(), false)),
                None => unknown("in"),
            }
        })
    }

    /// Whether it lies between `low` and `high`, both included.
    #[must_use]
    pub fn between(self, low: Self, high: Self) -> Self {
        Self::over(vec![self, low, high], |trees| match <[Expr; 3]>::try_from(trees) {
            Ok([value, low, high]) => {
                Expr::Between(Between::new(Box::new(value), false, Box::new(low), Box::new(high)))
            }
            Err(_) => unknown("between"),
        })
    }

    /// The same value under another name.
    #[must_use]
    pub fn alias(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.wrap(|tree| Expr::Alias(Alias::new(unaliased(*tree), None::<&str>, name)))
    }

    /// The name that it gives a column by itself: its alias, or that of a bare column.
    pub fn output_name(&self) -> Option<String> {
        match &self.tree {
            Expr::Alias(alias) => Some(alias.name.clone()),
            Expr::Column(column) => Some(column.name.clone()),
            _ => None,
        }
    }

    /// The name of the column that it passes on unchanged, perhaps under another name.
    pub fn as_column(&self) -> Option<&str> {
        match &self.tree {
            Expr::Column(column) => Some(&column.name),
            Expr::Alias(alias) => match alias.expr.as_ref() {
                Expr::Column(column) => Some(&column.name),
                _ => None,
            },
            _ => None,
        }
    }

    /// The names of the columns that it reads, each once, in the order in which they appear.
    pub fn columns(&self) -> Vec<String> {
        check::column_names(&self.tree)
    }

    /// Whether it says the same as `other`, so that one computation can stand for both.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.tree == other.tree
    }

    /// The mistakes that show before any column is known: wrong SQL, unknown functions.
    pub fn mistakes(&self) -> &[Error] {
        &self.mistakes
    }

    /// Binds it to the columns of `schema`, or says everything that is wrong with it.
    ///
    /// ```
    /// use arrow::datatypes::{DataType, Field, Schema};
    /// use tidemill::expr::Expression;
    /// let schema = Schema::new(vec![Field::new("temperature", DataType::Float64, true)]);
    /// let wrong = Expression::sql("temprature > 80 AND temperature = 'hot'").bind(&schema).unwrap_err();
    /// assert_eq!(wrong.len(), 2);
    /// assert!(wrong[0].to_string().contains("did you mean \"temperature\"?"));
    /// ```
    pub fn bind(&self, schema: &arrow::datatypes::Schema) -> Result<Bound, Vec<Error>> {
        Bound::new(self, schema)
    }

    /// As [`Self::bind`], for a condition: it must be a bool.
    pub fn bind_predicate(&self, schema: &arrow::datatypes::Schema) -> Result<Predicate, Vec<Error>> {
        Predicate::new(self, schema)
    }
}

/// An alias counts only at the top, where it names a column.
fn unaliased(tree: Expr) -> Expr {
    match tree {
        Expr::Alias(alias) => unaliased(*alias.expr),
        other => other,
    }
}

/// As it would be written in SQL.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::Text(&self.tree).fmt(f)
    }
}

macro_rules! operators {
    ($($trait:ident, $name:ident: $operator:ident;)*) => {$(
        impl $trait for Expression {
            type Output = Self;

            fn $name(self, other: Self) -> Self {
                self.binary(Operator::$operator, other)
            }
        }
    )*};
}

operators! {
    Add, add: Plus;
    Sub, sub: Minus;
    Mul, mul: Multiply;
    Div, div: Divide;
    BitAnd, bitand: And;
    BitOr, bitor: Or;
}

impl Neg for Expression {
    type Output = Self;

    fn neg(self) -> Self {
        self.wrap(Expr::Negative)
    }
}

impl Not for Expression {
    type Output = Self;

    fn not(self) -> Self {
        self.wrap(Expr::Not)
    }
}
