//! Finds everything that is wrong with an expression, and gives the rest its types.
//!
//! It goes through the tree from the leaves up; where a part is wrong it goes on beside it, so that one look shows all
//! mistakes and none of them twice. DataFusion types what is right; it would also accept what a person rarely means
//! (text read as a number, a number as a bool), and that is refused here. It deliberately changes no meaning.

use arrow::array::StringArray;
use arrow::compute::can_cast_types;
use arrow::compute::kernels::regexp::regexp_is_match_scalar;
use arrow::datatypes::{DataType, Schema};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use datafusion_common::{Column, DFSchema, DataFusionError, ScalarValue, Span};
use datafusion_expr::expr::{Case, InList, ScalarFunction};
use datafusion_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable, Like, Operator};
use datafusion_optimizer::analyzer::type_coercion::TypeCoercionRewriter;

use crate::error::{Error, Result, nearest};
use crate::expr::aggregate::misplaced;
use crate::expr::functions::{arities, syntax};
use crate::expr::literal::{Fit, Rounding, fit, fit_number, is_text};
use crate::expr::moments::{Side, compared, computed};
use crate::expr::nested::is_into_nested;
use crate::expr::text::Text;
use crate::types::type_name;

/// The expression with every type settled, or all its mistakes.
pub(super) fn check(tree: &Expr, schema: &DFSchema) -> Result<Expr, Vec<Error>> {
    let mut checker = Checker { schema, mistakes: Vec::new() };
    match checker.visit(tree.clone()) {
        Some(typed) if checker.mistakes.is_empty() => Ok(typed),
        _ => Err(checker.mistakes),
    }
}

/// The names of the columns that a tree reads, each once.
pub(super) fn column_names(tree: &Expr) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let walked = tree.apply(|node| {
        if let Expr::Column(column) = node
            && !names.contains(&column.name)
        {
            names.push(column.name.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the visitor never fails");
    names
}

/// What kinds of values may be compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Number,
    Text,
    Bool,
    Bytes,
    Moment,
    TimeOfDay,
    Span,
    Nothing,
    Other,
}

impl Family {
    fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Null => Self::Nothing,
            DataType::Boolean => Self::Bool,
            text if is_text(text) => Self::Text,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Self::Bytes,
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Self::Moment,
            DataType::Time32(_) | DataType::Time64(_) => Self::TimeOfDay,
            DataType::Duration(_) | DataType::Interval(_) => Self::Span,
            DataType::Dictionary(_, values) => Self::of(values),
            number if number.is_numeric() => Self::Number,
            _ => Self::Other,
        }
    }

    fn compares_with(self, other: Self) -> bool {
        self == other || self == Self::Nothing || other == Self::Nothing
    }
}

/// Refuses a comparison with null: it is null itself, whatever the other side, and so a filter by it keeps no row.
fn no_null(side: &Expr, written: &Expr) -> Result<()> {
    match side {
        Expr::Literal(value, _) if value.is_null() => {
            let text =
                format!("nothing equals null, nor is it more or less: {} is true for no row", Text(written));
            Err(Error::schema(text)
                .help("ask with .is_null() or .is_not_null(), in SQL with IS NULL or IS NOT NULL"))
        }
        _ => Ok(()),
    }
}

/// What computes with the numbers of lists.
const OF_NUMBERS: [&str; 10] = [
    "array_add",
    "array_avg",
    "array_distance",
    "array_normalize",
    "array_product",
    "array_scale",
    "array_subtract",
    "array_sum",
    "cosine_distance",
    "inner_product",
];

struct Checker<'a> {
    schema: &'a DFSchema,
    mistakes: Vec<Error>,
}

impl Checker<'_> {
    /// The node with its types settled; none where it, or a part of it, is wrong.
    fn visit(&mut self, node: Expr) -> Option<Expr> {
        let written = node.clone();
        let mut known = true;
        let visited = node.map_children(|child| {
            let visited = self.visit(child.clone());
            known &= visited.is_some();
            Ok(visited.map_or_else(|| Transformed::no(child), Transformed::yes))
        });
        let node = visited.ok().filter(|_| known)?.data;
        match self.node(node, &written) {
            Ok(typed) => Some(typed),
            Err(Some(mistake)) => {
                self.mistakes.push(mistake);
                None
            }
            Err(None) => None,
        }
    }

    /// An error without a mistake means that the mistake has been told before.
    fn node(&self, node: Expr, written: &Expr) -> Result<Expr, Option<Error>> {
        if matches!(node, Expr::Placeholder(_)) {
            return Err(None);
        }
        let node = self.rules(node, written)?;
        let mut coercion = TypeCoercionRewriter::new(self.schema);
        let typed = coercion.f_up(node.clone()).map(|typed| typed.data);
        let typed = typed.and_then(|typed| typed.get_type(self.schema).map(|_| typed));
        typed.map_err(|error| Some(self.untyped(&node, written, error)))
    }

    /// What is asked of a node before DataFusion types it.
    fn rules(&self, node: Expr, written: &Expr) -> Result<Expr> {
        match node {
            Expr::Column(column) if !self.schema.has_column(&column) => {
                let unknown = if is_quoted(&column) { unknown_quoted } else { unknown_column };
                Err(unknown(self.schema.as_arrow(), &column.name))
            }
            Expr::BinaryExpr(binary) => self.binary(binary, written),
            Expr::Between(between) => self.between(between, written),
            Expr::InList(list) => self.in_list(list, written),
            Expr::Like(like) => self.like(like, written),
            Expr::Case(case) => self.case(case, written),
            Expr::Not(inner) => self.bool_operand(&inner, written).map(|()| Expr::Not(inner)),
            Expr::Negative(inner) => self.negative(*inner, written),
            Expr::Cast(cast) => {
                self.castable(&cast.expr, cast.field.data_type(), written).map(|()| Expr::Cast(cast))
            }
            Expr::TryCast(cast) => {
                self.castable(&cast.expr, cast.field.data_type(), written).map(|()| Expr::TryCast(cast))
            }
            Expr::ScalarFunction(call) => self.call(call, written),
            Expr::AggregateFunction(_) => Err(misplaced(written)),
            other => Ok(other),
        }
    }

    fn type_of(&self, node: &Expr) -> Result<DataType> {
        let typed = node.get_type(self.schema);
        typed.map_err(|error| {
            Error::schema(format!("the type of {} is not known", Text(node))).caused_by(error)
        })
    }

    fn binary(&self, binary: BinaryExpr, written: &Expr) -> Result<Expr> {
        let BinaryExpr { left, op, right } = binary;
        if let Some(word) = word_for(op) {
            self.no_conditions(&left, &right, word, written)?;
        }
        if is_regex(op) {
            compiles(&right, written)?;
        }
        if op.is_logic_operator() {
            self.bool_operand(&left, written)?;
            self.bool_operand(&right, written)?;
        } else if is_comparison(op) {
            return self.comparison(*left, op, *right, written);
        } else if is_arithmetic(op) {
            return self.arithmetic(*left, op, *right, written);
        }
        Ok(binary_of(*left, op, *right))
    }

    fn comparison(&self, left: Expr, op: Operator, right: Expr, written: &Expr) -> Result<Expr> {
        if !matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom) {
            [&left, &right].into_iter().try_for_each(|side| no_null(side, written))?;
        }
        let rounding = if matches!(left, Expr::Literal(..)) {
            op.swap().map(rounding_for)
        } else {
            Some(rounding_for(op))
        };
        let rounding = rounding.unwrap_or(Rounding::Exact);
        let (left, right) =
            self.fitted(left, right, |value, target| fit(value, target, rounding), written)?;
        self.comparable(&left, &right, written)?;
        let (left_type, right_type) = (self.type_of(&left)?, self.type_of(&right)?);
        let (left, right) =
            (Side { value: left, data_type: left_type }, Side { value: right, data_type: right_type });
        let (left, right) = compared(left, right);
        Ok(binary_of(left, op, right))
    }

    fn comparable(&self, left: &Expr, right: &Expr, written: &Expr) -> Result<()> {
        let (left, right) = (self.type_of(left)?, self.type_of(right)?);
        if Family::of(&left).compares_with(Family::of(&right)) {
            return Ok(());
        }
        let (left, right) = (type_name(&left), type_name(&right));
        Err(Error::schema(format!("{left} and {right} cannot be compared in {}", Text(written)))
            .help(format!("convert one side, say with cast({left:?})")))
    }

    fn arithmetic(&self, left: Expr, op: Operator, right: Expr, written: &Expr) -> Result<Expr> {
        let (left, right) = self.fitted(left, right, fit_number, written)?;
        let (left_type, right_type) = (self.type_of(&left)?, self.type_of(&right)?);
        let families = (Family::of(&left_type), Family::of(&right_type));
        match (families, op) {
            ((Family::Text, Family::Text), Operator::Plus) => {
                Ok(binary_of(left, Operator::StringConcat, right))
            }
            _ if !computes(families) => Err(not_computed(op, &left_type, &right_type, written)),
            ((Family::Moment | Family::Span, _) | (_, Family::Moment | Family::Span), _) => {
                moment_arithmetic(left, left_type, op, right, right_type, written)
            }
            _ if op == Operator::Divide && left_type.is_integer() && right_type.is_integer() => {
                Ok(binary_of(as_float(left), op, as_float(right)))
            }
            _ => folded(binary_of(left, op, right), written),
        }
    }

    /// Both sides, a literal in the type of the column beside it.
    fn fitted(
        &self,
        left: Expr,
        right: Expr,
        rule: impl Fn(&ScalarValue, &DataType) -> Fit,
        written: &Expr,
    ) -> Result<(Expr, Expr)> {
        match (&left, &right) {
            (Expr::Literal(..), Expr::Literal(..)) => Ok((left, right)),
            (_, Expr::Literal(value, _)) => {
                let target = self.type_of(&left)?;
                fitting(rule(value, &target), &right, &target, written).map(|right| (left, right))
            }
            (Expr::Literal(value, _), _) => {
                let target = self.type_of(&right)?;
                fitting(rule(value, &target), &left, &target, written).map(|left| (left, right))
            }
            _ => Ok((left, right)),
        }
    }

    fn between(&self, between: Between, written: &Expr) -> Result<Expr> {
        [&between.low, &between.high].into_iter().try_for_each(|side| no_null(side, written))?;
        let (value, low) = self.fitted(
            *between.expr,
            *between.low,
            |value, target| fit(value, target, Rounding::Up),
            written,
        )?;
        self.comparable(&value, &low, written)?;
        let (value, high) =
            self.fitted(value, *between.high, |value, target| fit(value, target, Rounding::Down), written)?;
        self.comparable(&value, &high, written)?;
        Ok(Expr::Between(Between::new(Box::new(value), between.negated, Box::new(low), Box::new(high))))
    }

    fn in_list(&self, list: InList, written: &Expr) -> Result<Expr> {
        list.list.iter().try_for_each(|item| no_null(item, written))?;
        let target = self.type_of(&list.expr)?;
        let mut items = Vec::with_capacity(list.list.len());
        for item in list.list {
            let item = match &item {
                Expr::Literal(value, _) => {
                    fitting(fit(value, &target, Rounding::Exact), &item, &target, written)?
                }
                _ => item,
            };
            self.comparable(&list.expr, &item, written)?;
            items.push(item);
        }
        Ok(Expr::InList(InList::new(list.expr, items, list.negated)))
    }

    fn like(&self, like: Like, written: &Expr) -> Result<Expr> {
        for side in [&like.expr, &like.pattern] {
            let found = self.type_of(side)?;
            if !matches!(Family::of(&found), Family::Text | Family::Nothing) {
                return Err(expected(side, "string", &found, written));
            }
        }
        Ok(Expr::Like(like))
    }

    fn case(&self, case: Case, written: &Expr) -> Result<Expr> {
        for (condition, _) in &case.when_then_expr {
            match &case.expr {
                None => self.bool_operand(condition, written)?,
                Some(value) => self.comparable(value, condition, written)?,
            }
        }
        let values = case.when_then_expr.iter().map(|(_, value)| value.as_ref());
        self.one_family(values.chain(case.else_expr.as_deref()), written)?;
        Ok(Expr::Case(case))
    }

    /// DataFusion would turn a mixture of numbers and text into text without a word.
    fn one_family<'b>(&self, values: impl Iterator<Item = &'b Expr>, written: &Expr) -> Result<()> {
        let mut first: Option<DataType> = None;
        for value in values {
            let found = self.type_of(value)?;
            match &first {
                _ if found.is_null() => {}
                None => first = Some(found),
                Some(first) if Family::of(first).compares_with(Family::of(&found)) => {}
                Some(first) => {
                    let (first, found) = (type_name(first), type_name(&found));
                    let message = format!(
                        "expected values of one type, found {first} and {found} in {}",
                        Text(written)
                    );
                    return Err(Error::schema(message).help("convert them to one type with cast"));
                }
            }
        }
        Ok(())
    }

    fn bool_operand(&self, operand: &Expr, written: &Expr) -> Result<()> {
        let found = self.type_of(operand)?;
        match Family::of(&found) {
            Family::Bool | Family::Nothing => Ok(()),
            _ => {
                Err(expected(operand, "bool", &found, written)
                    .help("compare it with something, say with > 0"))
            }
        }
    }

    /// Conditions are joined by words in SQL: the signs of other languages work on bits and text here.
    fn no_conditions(&self, left: &Expr, right: &Expr, word: &str, written: &Expr) -> Result<()> {
        let families = (Family::of(&self.type_of(left)?), Family::of(&self.type_of(right)?));
        if families != (Family::Bool, Family::Bool) {
            return Ok(());
        }
        let text = format!("conditions are joined by {word}, found {}", Text(written));
        Err(Error::schema(text).help(format!("write {word} between them")))
    }

    /// As a difference, because the kernel for the sign alone wraps round at the smallest integer.
    fn negative(&self, inner: Expr, written: &Expr) -> Result<Expr> {
        let found = self.type_of(&inner)?;
        match Family::of(&found) {
            Family::Number if found.is_unsigned_integer() => {
                let signed = Expr::Cast(Cast::new(Box::new(inner), DataType::Int64));
                Ok(binary_of(zero(&DataType::Int64)?, Operator::Minus, signed))
            }
            Family::Number if found.is_signed_integer() => match inner {
                Expr::Literal(..) => Ok(Expr::Negative(Box::new(inner))),
                column => Ok(binary_of(zero(&found)?, Operator::Minus, column)),
            },
            Family::Number | Family::Nothing | Family::Span => Ok(Expr::Negative(Box::new(inner))),
            _ => Err(expected(&inner, "a number", &found, written)),
        }
    }

    fn castable(&self, inner: &Expr, target: &DataType, written: &Expr) -> Result<()> {
        let found = self.type_of(inner)?;
        if can_cast_types(&found, target) {
            return Ok(());
        }
        let (found, target) = (type_name(&found), type_name(target));
        Err(Error::schema(format!("{found} cannot be cast to {target} in {}", Text(written))))
    }

    fn call(&self, call: ScalarFunction, written: &Expr) -> Result<Expr> {
        let (name, count) = (call.func.name(), call.args.len());
        if let Some(counts) = arities(&call.func.signature().type_signature)
            && !counts.contains(&count)
        {
            let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
            let error =
                Error::schema(format!("{name} takes {} arguments, found {count}", counts.join(" or ")));
            return Err(with_syntax(error, &call));
        }
        if let (true, [_, pattern, ..]) = (takes_pattern(name, count), &call.args[..]) {
            compiles(pattern, written)?;
        }
        if matches!(name, "coalesce" | "nvl" | "nvl2" | "nullif" | "greatest" | "least") {
            let same = if name == "nvl2" { call.args.get(1..) } else { Some(call.args.as_slice()) };
            self.one_family(same.unwrap_or_default().iter(), written)?;
        }
        if OF_NUMBERS.contains(&name) {
            call.args.iter().try_for_each(|list| self.no_texts(list, written))?;
        }
        Ok(Expr::ScalarFunction(call))
    }

    /// Refuses lists of texts, which DataFusion would read as numbers, and fail at the first that is none.
    fn no_texts(&self, list: &Expr, written: &Expr) -> Result<()> {
        let found = self.type_of(list)?;
        match &found {
            DataType::List(item) | DataType::LargeList(item) if is_text(item.data_type()) => {
                Err(expected(list, "a list of numbers", &found, written))
            }
            _ => Ok(()),
        }
    }

    /// What DataFusion could not type, in our words.
    fn untyped(&self, node: &Expr, written: &Expr, cause: DataFusionError) -> Error {
        let error = match node {
            Expr::ScalarFunction(call) => {
                let found: Vec<String> = call.args.iter().map(|argument| self.shown_type(argument)).collect();
                let (found, name) = (found.join(", "), call.func.name());
                if let DataFusionError::Plan(why) = cause.find_root()
                    && is_into_nested(name)
                {
                    return Error::schema(format!("{why} in {}", Text(written)));
                }
                let shown = operator_of(name).unwrap_or(name);
                let error = Error::schema(format!("{shown} does not take ({found}) in {}", Text(written)));
                if shown == name {
                    with_syntax(error, call)
                } else {
                    error.help("convert one side with cast")
                }
            }
            Expr::BinaryExpr(binary) => {
                let (left, right) = (self.shown_type(&binary.left), self.shown_type(&binary.right));
                let message = format!("{} does not take {left} and {right} in {}", binary.op, Text(written));
                Error::schema(message).help("convert one side with cast")
            }
            _ => Error::schema(format!("the types in {} do not fit each other", Text(written))),
        };
        error.caused_by(cause)
    }

    fn shown_type(&self, node: &Expr) -> String {
        node.get_type(self.schema).map_or_else(|_| "?".to_owned(), |data_type| type_name(&data_type))
    }
}

/// What SQL writes for an operator that joins conditions in other languages.
fn word_for(op: Operator) -> Option<&'static str> {
    match op {
        Operator::BitwiseAnd => Some("AND"),
        Operator::BitwiseOr | Operator::StringConcat => Some("OR"),
        _ => None,
    }
}

fn is_regex(op: Operator) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
}

/// Whether the second of `count` arguments is a regular expression by itself: flags behind it may change how it is read.
fn takes_pattern(function: &str, count: usize) -> bool {
    match function {
        "regexp_like" | "regexp_match" | "regexp_count" | "regexp_instr" => count == 2,
        "regexp_replace" => count == 3,
        _ => false,
    }
}

/// A constant pattern that is none would fail the first batch that has rows.
fn compiles(pattern: &Expr, written: &Expr) -> Result<()> {
    let Expr::Literal(value, _) = pattern else { return Ok(()) };
    let Some(Some(pattern)) = value.try_as_str() else { return Ok(()) };
    let nothing = StringArray::from(vec![""]);
    let Err(error) = regexp_is_match_scalar(&nothing, pattern, None) else { return Ok(()) };
    let told = error.to_string();
    let reason = told.lines().find_map(|line| line.strip_prefix("error: "));
    let text = format!("expected a regular expression, found {pattern:?} in {}", Text(written));
    let text = reason.map_or_else(|| text.clone(), |reason| format!("{text} ({reason})"));
    let help = "they are those of Rust's regex; a backslash before a sign takes it as it is, and str.contains() looks for \
                text as it is";
    Err(Error::config(text).help(help).caused_by(error))
}

/// The operator of Python that a function stands for.
fn operator_of(function: &str) -> Option<&'static str> {
    match function {
        "floor_divide" => Some("//"),
        "floor_mod" => Some("%"),
        _ => None,
    }
}

fn with_syntax(error: Error, call: &ScalarFunction) -> Error {
    match syntax(&call.func) {
        Some(syntax) => error.help(format!("it is called as {syntax}")),
        None => error,
    }
}

fn expected(operand: &Expr, wanted: &str, found: &DataType, written: &Expr) -> Error {
    let found = type_name(found);
    let text = Text(written);
    Error::schema(format!("expected {wanted}, found {} of type {found} in {text}", Text(operand)))
}

fn not_computed(op: Operator, left: &DataType, right: &DataType, written: &Expr) -> Error {
    let (left, right) = (type_name(left), type_name(right));
    Error::schema(format!("{op} does not take {left} and {right} in {}", Text(written)))
        .help("convert one side with cast; + joins two strings")
}

fn fitting(fit: Fit, literal: &Expr, target: &DataType, written: &Expr) -> Result<Expr> {
    match fit {
        Fit::Same => Ok(literal.clone()),
        Fit::Becomes(value) => Ok(Expr::Literal(value, None)),
        Fit::Misfit => {
            let target = type_name(target);
            let message = format!("expected a {target}, found {} in {}", Text(literal), Text(written));
            Err(Error::schema(message).help("write a value of that type, or cast the column"))
        }
    }
}

fn is_comparison(op: Operator) -> bool {
    op.supports_propagation()
        || matches!(op, Operator::NotEq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom)
}

/// How a moment on the right of `op` is rounded.
fn rounding_for(op: Operator) -> Rounding {
    match op {
        Operator::Gt | Operator::LtEq => Rounding::Down,
        Operator::GtEq | Operator::Lt => Rounding::Up,
        _ => Rounding::Exact,
    }
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

/// Whether arithmetic over two families can make sense; which of it does, DataFusion knows.
fn computes((left, right): (Family, Family)) -> bool {
    let refuses = |family| matches!(family, Family::Text | Family::Bool | Family::Bytes | Family::Other);
    let mixes = matches!((left, right), (Family::Number, Family::Moment) | (Family::Moment, Family::Number));
    !refuses(left) && !refuses(right) && !mixes
}

/// Moments and lengths of time; what has no meaning is refused.
fn moment_arithmetic(
    left: Expr,
    left_type: DataType,
    op: Operator,
    right: Expr,
    right_type: DataType,
    written: &Expr,
) -> Result<Expr> {
    let families = (Family::of(&left_type), Family::of(&right_type));
    let meaningless = match (families, op) {
        ((Family::Moment, Family::Moment), op) => op != Operator::Minus,
        ((Family::Moment, Family::Span), op) => !matches!(op, Operator::Plus | Operator::Minus),
        ((Family::Span, Family::Moment), op) => op != Operator::Plus,
        _ => false,
    };
    if meaningless {
        let (left, right) = (type_name(&left_type), type_name(&right_type));
        let error = Error::schema(format!("{op} does not take {left} and {right} in {}", Text(written)));
        return Err(error.help(
            "the difference of two moments is a length of time, and a moment plus or minus a length of time is a moment",
        ));
    }
    let (left, right) =
        (Side { value: left, data_type: left_type }, Side { value: right, data_type: right_type });
    folded(computed(left, op, right), written)
}

fn binary_of(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

fn as_float(inner: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(inner), DataType::Float64))
}

fn zero(data_type: &DataType) -> Result<Expr> {
    let zero = ScalarValue::new_zero(data_type);
    let zero = zero.map_err(|error| Error::internal("an integer type has no zero").caused_by(error))?;
    Ok(Expr::Literal(zero, None))
}

fn overflows(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ArrowError(inner, _)
        if matches!(inner.as_ref(), arrow::error::ArrowError::ArithmeticOverflow(_)))
}

/// Two literals are computed here, where overflow is seen; folding them later would wrap round.
fn folded(node: Expr, written: &Expr) -> Result<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &node else { return Ok(node) };
    let (Expr::Literal(left, _), Expr::Literal(right, _)) = (left.as_ref(), right.as_ref()) else {
        return Ok(node);
    };
    let computed = match op {
        Operator::Plus => left.add_checked(right),
        Operator::Minus => left.sub_checked(right),
        Operator::Multiply => left.mul_checked(right),
        _ => return Ok(node),
    };
    match computed {
        Ok(value) => Ok(Expr::Literal(value, None)),
        Err(error) if overflows(&error) => {
            Err(Error::config(format!("{} overflows", Text(written))).caused_by(error))
        }
        // Literals of two types: they are typed first, and cannot overflow once they are floats.
        Err(_) => Ok(node),
    }
}

/// Whether SQL text has this column in double quotes: it is longer there than its name.
fn is_quoted(column: &Column) -> bool {
    let length = |span: Span| span.end.column.saturating_sub(span.start.column);
    let written = column.spans.first().map(length);
    written.is_some_and(|written| written > column.name.chars().count() as u64)
}

/// As [`unknown_column`], where the name may be meant as text.
fn unknown_quoted(schema: &Schema, name: &str) -> Error {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let near = nearest(name, names).map(|near| format!("did you mean \"{near}\"? ")).unwrap_or_default();
    let text = name.replace('\'', "''");
    unknown_column(schema, name)
        .help(format!("{near}Double quotes are for names of columns; for text write '{text}'"))
}

/// The error for a column that does not exist: those that do, and the nearest name.
pub(crate) fn unknown_column(schema: &Schema, name: &str) -> Error {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let error = Error::schema(format!("there is no column \"{name}\"; the columns are {}", names.join(", ")));
    match nearest(name, names) {
        Some(near) => error.help(format!("did you mean \"{near}\"?")),
        None if is_no_name(name) => error.help(format!(
            "text names a column here: an expression in SQL is tm.sql_expr({name:?}), text as it is tm.lit({name:?})"
        )),
        None => error,
    }
}

/// Whether somebody may have meant more than a column's name.
fn is_no_name(name: &str) -> bool {
    name.contains(|c: char| !(c.is_alphanumeric() || "_-.:/".contains(c)))
}
