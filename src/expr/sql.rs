//! SQL text to an expression, without a schema: columns are taken as written and looked up when it is bound.
//!
//! Scalar expressions and aggregates over them, with FILTER if wanted: windows, subqueries, placeholders and the other
//! clauses of aggregates are refused with what to use instead.
//! It deliberately normalises no identifier, so `Temp` and `temp` are two columns.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DataFusionError, TableReference, plan_err};
use datafusion_expr::expr::Alias;
use datafusion_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion_expr::{
    AggregateUDF, BinaryExpr, Expr, HigherOrderUDF, Operator, ScalarUDF, TableSource, WindowUDF,
};
use datafusion_sql::parser::DFParserBuilder;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{self, Expr as Ast, visit_expressions};

use crate::error::{Error, Result};
use crate::expr::aggregate;
use crate::expr::functions;
use crate::types::parse_type;

/// The tree that `text` stands for, or everything that is wrong with it.
pub(super) fn parse(text: &str) -> Result<Expr, Vec<Error>> {
    let parsed = DFParserBuilder::new(text).build().and_then(|mut parser| parser.parse_into_expr());
    let ast::ExprWithAlias { expr, alias } = parsed.map_err(|error| vec![syntax_error(text, error)])?;
    let survey = Survey::of(text, &expr);
    if !survey.mistakes.is_empty() {
        return Err(survey.mistakes);
    }
    let tree = plan(expr, &survey.columns).map_err(|error| vec![plan_error(text, error)])?;
    Ok(match alias {
        Some(name) => Expr::Alias(Alias::new(tree, None::<&str>, name.value)),
        None => tree,
    })
}

fn plan(ast: Ast, columns: &[String]) -> datafusion_common::Result<Expr> {
    let provider = Provider { options: ConfigOptions::default(), planners: functions::planners() };
    // The places tell quoted names from bare ones, see `is_quoted`.
    let options =
        ParserOptions { enable_ident_normalization: false, collect_spans: true, ..ParserOptions::default() };
    let planner = SqlToRel::new_with_options(&provider, options.with_map_string_types_to_utf8view(false));
    let tree = planner.sql_to_expr(ast, &names_only(columns)?, &mut PlannerContext::new())?;
    Ok(tree.transform_up(|node| Ok(rounded_down(every_row(without_alias(node)))))?.data)
}

/// `%` is the operator of expressions, whose rest has the sign of the divisor.
fn rounded_down(node: Transformed<Expr>) -> Transformed<Expr> {
    match node.data {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Modulo, right }) => {
            Transformed::yes(functions::modulo(*left, *right))
        }
        data => Transformed { data, ..node },
    }
}

/// `count(*)` has no argument.
fn every_row(node: Transformed<Expr>) -> Transformed<Expr> {
    match node.data {
        Expr::AggregateFunction(mut call) if call.params.args.iter().any(is_wildcard) => {
            call.params.args.clear();
            Transformed::yes(Expr::AggregateFunction(call))
        }
        data => Transformed { data, ..node },
    }
}

#[expect(deprecated, reason = "the SQL planner still gives the star of count(*) this form")]
fn is_wildcard(argument: &Expr) -> bool {
    matches!(argument, Expr::Wildcard { .. })
}

/// The planner names a function that is called by its second name; such names are of no use inside a tree.
fn without_alias(node: Expr) -> Transformed<Expr> {
    match node {
        Expr::Alias(alias) => Transformed::yes(*alias.expr),
        other => Transformed::no(other),
    }
}

/// A schema that knows the names and nothing of the types: the planner insists on finding what it reads.
fn names_only(columns: &[String]) -> datafusion_common::Result<DFSchema> {
    let fields: Vec<Field> = columns.iter().map(|name| Field::new(name, DataType::Null, true)).collect();
    DFSchema::try_from(Schema::new(fields))
}

fn syntax_error(text: &str, error: DataFusionError) -> Error {
    let root = error.find_root().strip_backtrace();
    let reason =
        root.trim_start_matches("SQL error: ").trim_start_matches("ParserError(\"").trim_end_matches("\")");
    Error::config(format!("expected an SQL expression, found {text:?} ({reason})"))
        .help("write it as after WHERE, text in single quotes: t > 80 AND status = 'ok'")
        .caused_by(error)
}

fn plan_error(text: &str, error: DataFusionError) -> Error {
    Error::config(format!("the SQL expression {text:?} has a part that is not offered here"))
        .help(
            "expressions take operators, CASE, CAST and functions of one row; what lies inside of a column is read in \
             Python, say col(\"at\")[\"lat\"]",
        )
        .caused_by(error)
}

/// What an expression names, and what in it is refused.
struct Survey<'a> {
    text: &'a str,
    columns: Vec<String>,
    mistakes: Vec<Error>,
}

impl<'a> Survey<'a> {
    fn of(text: &'a str, ast: &Ast) -> Self {
        let mut survey = Self { text, columns: Vec::new(), mistakes: Vec::new() };
        let visited: ControlFlow<()> = visit_expressions(ast, |node| {
            survey.node(node);
            ControlFlow::Continue(())
        });
        debug_assert!(visited.is_continue(), "the visitor never breaks");
        survey
    }

    fn node(&mut self, node: &Ast) {
        match node {
            Ast::Identifier(name) => self.column(&name.value),
            Ast::CompoundIdentifier(parts) => self.dotted(parts),
            Ast::Function(call) => self.call(call),
            Ast::Subquery(_) | Ast::InSubquery { .. } | Ast::Exists { .. } => self.refuse(
                "a subquery",
                "an expression sees one row; join streams with the methods of the stream instead",
            ),
            Ast::Value(value) => self.value(&value.value),
            Ast::UnaryOp { op: ast::UnaryOperator::BitwiseNot, .. } => self.refuse("~", "write NOT"),
            Ast::BinaryOp { op: ast::BinaryOperator::PGOverlap, .. } => self.refuse("&&", "write AND"),
            Ast::BinaryOp { op: ast::BinaryOperator::BitwiseXor, .. } => {
                self.refuse("^, which is a power to some and bits to others", "write power(x, y)");
            }
            Ast::BinaryOp { left, op, .. } if is_comparison(op) => self.chained(left, node),
            _ => {}
        }
    }

    /// `t > 3 & n > 4` is one too: in SQL `&` binds closer than a comparison, as it does in Python.
    fn chained(&mut self, left: &Ast, whole: &Ast) {
        if matches!(left, Ast::BinaryOp { op, .. } if is_comparison(op)) {
            let help =
                "write AND, OR and NOT for &, | and ~, and x BETWEEN low AND high for low <= x <= high";
            self.refuse(&format!("two comparisons in a row, {whole}"), help);
        }
    }

    fn column(&mut self, name: &str) {
        if !self.columns.iter().any(|known| known == name) {
            self.columns.push(name.to_owned());
        }
    }

    fn dotted(&mut self, parts: &[ast::Ident]) {
        let name: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
        let name = name.join(".");
        self.refuse(
            &name,
            &format!(
                "a column whose name has a dot is written in double quotes, \"{name}\"; what lies inside of a column is \
                 read in Python, say col(\"at\")[\"lat\"]"
            ),
        );
    }

    fn call(&mut self, call: &ast::Function) {
        let name = call.name.to_string();
        if call.over.is_some() {
            return self.refuse(
                &format!("{name}(...) OVER"),
                "an expression sees one row; use window(...) of the stream",
            );
        }
        if aggregate::is_aggregate(&name) {
            return self.aggregate(&name, call);
        }
        if call.filter.is_some() {
            let help = "only an aggregate has FILTER; for one row write CASE WHEN condition THEN value END";
            self.refuse(&format!("{name}(...) FILTER"), help);
        }
        if let Err(mistake) = functions::lookup(&name) {
            self.mistakes.push(mistake.at(format!("in the SQL expression {:?}", self.text)));
        }
    }

    fn aggregate(&mut self, name: &str, call: &ast::Function) {
        let ast::FunctionArguments::List(list) = &call.args else {
            return self.refuse(name, &format!("write its arguments in parentheses, as in {name}(x)"));
        };
        let has_clauses =
            !list.clauses.is_empty() || call.null_treatment.is_some() || !call.within_group.is_empty();
        if has_clauses {
            let help = "write arguments alone: first and last go by event time, approx_quantile(x, 0.9) takes no order";
            self.refuse(&format!("{name}(...) with a clause of order or nulls"), help);
        }
        let is_star = |argument: &ast::FunctionArg| {
            matches!(argument, ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard))
        };
        if list.args.iter().any(is_star) && !(name.eq_ignore_ascii_case("count") && list.args.len() == 1) {
            self.refuse(
                &format!("{name}(*)"),
                &format!("only count takes *: write a column, as in {name}(x)"),
            );
        }
    }

    fn value(&mut self, value: &ast::Value) {
        if let ast::Value::Placeholder(name) = value {
            self.refuse(
                &format!("the placeholder {name}"),
                "put the value itself there, with an f-string or tm.lit",
            );
        }
    }

    fn refuse(&mut self, found: &str, help: &str) {
        let error =
            Error::config(format!("expected columns, literals and functions of one row, found {found}"));
        self.mistakes.push(error.help(help).at(format!("in the SQL expression {:?}", self.text)));
    }
}

fn is_comparison(op: &ast::BinaryOperator) -> bool {
    use ast::BinaryOperator as Op;
    matches!(op, Op::Gt | Op::Lt | Op::GtEq | Op::LtEq | Op::Eq | Op::NotEq)
}

/// What the SQL planner may know: functions and types, no tables.
struct Provider {
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl ContextProvider for Provider {
    fn get_table_source(&self, name: TableReference) -> datafusion_common::Result<Arc<dyn TableSource>> {
        plan_err!("expressions know no tables, found {name}")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(ArrowTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        functions::lookup(name).ok()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        aggregate::lookup(name)
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        functions::function_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        aggregate::aggregate_names().iter().map(ToString::to_string).collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Arrow's names for types win over SQL's: `int8` has 8 bits, not 8 bytes.
#[derive(Debug)]
struct ArrowTypes;

impl TypePlanner for ArrowTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> datafusion_common::Result<Option<FieldRef>> {
        let named = parse_type(&sql_type.to_string()).ok();
        Ok(named.map(|data_type| Arc::new(Field::new("", data_type, true))))
    }
}
