//! The functions that expressions may call: DataFusion's scalar functions, those of lists and maps too (two of them with the answers of float
//! arithmetic, and its parsers in a lenient form too), the two divisions of Python, and the ways into lists and structs.
//!
//! A batch that is computed again must give the same rows, so functions that give another value at every call are
//! refused. It deliberately keeps no registry of its own: the list is built where it is asked for, which costs
//! microseconds and happens only while a plan is made.

use std::sync::Arc;

use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{Expr, ScalarUDF, TypeSignature, Volatility};

use crate::error::{Error, Result, nearest};
use crate::expr::aggregate::is_aggregate;
use crate::expr::arithmetic::{FloorDivide, FloorMod};
use crate::expr::lenient::Lenient;
use crate::expr::math::{Power, Sqrt};
use crate::expr::nested::{Item, ItemCount, Member};

/// What people write of SQL's window functions, and would otherwise be told is unknown.
const OF_WINDOWS: &[&str] = &["row_number", "lag", "lead", "rank", "dense_rank", "ntile"];

/// Functions of DataFusion's that are left out: a number in a record would be the length of what they make.
const OF_ANY_LENGTH: &[&str] = &["array_repeat", "array_resize", "generate_series", "range"];

/// Every function, volatile ones included.
fn all() -> impl Iterator<Item = Arc<ScalarUDF>> {
    let own = [
        ScalarUDF::new_from_impl(FloorDivide::default()),
        ScalarUDF::new_from_impl(FloorMod::default()),
        ScalarUDF::new_from_impl(Member::default()),
        ScalarUDF::new_from_impl(Item::default()),
        ScalarUDF::new_from_impl(ItemCount::default()),
        ScalarUDF::new_from_impl(Sqrt::default()),
        ScalarUDF::new_from_impl(Power::default()),
    ];
    let of_lists = datafusion_functions_nested::all_default_nested_functions().into_iter();
    let of_lists = of_lists.filter(|function| !OF_ANY_LENGTH.contains(&function.name()));
    let theirs: Vec<_> = datafusion_functions::all_default_functions().into_iter().chain(of_lists).collect();
    let lenient: Vec<ScalarUDF> =
        theirs.iter().filter_map(Lenient::of).map(ScalarUDF::new_from_impl).collect();
    let replaced: Vec<String> = own.iter().map(|function| function.name().to_owned()).collect();
    let theirs =
        theirs.into_iter().filter(move |function| !replaced.iter().any(|name| name == function.name()));
    theirs.chain(own.into_iter().chain(lenient).map(Arc::new))
}

fn is_called(function: &ScalarUDF, name: &str) -> bool {
    function.name() == name || function.aliases().iter().any(|alias| alias == name)
}

/// The function of this name, letters compared without case.
pub(super) fn lookup(name: &str) -> Result<Arc<ScalarUDF>> {
    let lower = name.to_lowercase();
    match all().find(|function| is_called(function, &lower)) {
        Some(function) if function.signature().volatility == Volatility::Volatile => Err(volatile(name)),
        Some(function) => Ok(function),
        None => Err(unknown(name, &lower)),
    }
}

fn volatile(name: &str) -> Error {
    Error::config(format!("expected a function that always gives the same for the same row, found {name}"))
        .help("a batch that is computed again must give the same rows; use a map_batches function with its own seed")
}

fn unknown(name: &str, lower: &str) -> Error {
    let many_rows =
        || Error::config(format!("expected a function of one row, found {name}, which needs many rows"));
    if is_aggregate(lower) {
        return many_rows().help("it is an aggregate: write it as one, in agg(...)");
    }
    if OF_WINDOWS.contains(&lower) {
        return many_rows().help("use group_by(...).agg(...), or window(...) before it");
    }
    let error = Error::config(format!("there is no function {name}"));
    let names = function_names();
    match nearest(lower, names.iter().map(String::as_str)) {
        Some(near) => error.help(format!("did you mean {near}?")),
        None => error.help("tm.functions lists those that there are"),
    }
}

/// The names of all functions that an expression may call, sorted, aliases included.
///
/// ```
/// let names = tidemill::expr::function_names();
/// assert!(names.iter().any(|name| name == "date_trunc"));
/// assert!(!names.iter().any(|name| name == "random"));
/// ```
pub fn function_names() -> Vec<String> {
    let allowed = all().filter(|function| function.signature().volatility != Volatility::Volatile);
    let all_names = |function: Arc<ScalarUDF>| {
        std::iter::once(function.name().to_owned()).chain(function.aliases().to_vec()).collect::<Vec<_>>()
    };
    let mut names: Vec<String> = allowed.flat_map(all_names).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What there is to know about a function, for `help()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its name, or the alias that was asked for.
    pub name: String,
    /// How it is called.
    pub syntax: String,
    /// What it gives.
    pub description: String,
    /// Its arguments: name and meaning.
    pub arguments: Vec<(String, String)>,
}

/// What there is to know about the function of this name.
pub fn function_info(name: &str) -> Result<FunctionInfo> {
    let function = lookup(name)?;
    let Some(documentation) = function.documentation() else {
        let syntax = format!("{name}(...)");
        return Ok(FunctionInfo {
            name: name.to_owned(),
            syntax,
            description: String::new(),
            arguments: Vec::new(),
        });
    };
    Ok(FunctionInfo {
        name: name.to_owned(),
        syntax: documentation.syntax_example.clone(),
        description: documentation.description.trim().to_owned(),
        arguments: documentation.arguments.clone().unwrap_or_default(),
    })
}

/// What division rounded down leaves, as `%` in an expression.
pub(super) fn modulo(left: Expr, right: Expr) -> Expr {
    let function = Arc::new(ScalarUDF::new_from_impl(FloorMod::default()));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![left, right]))
}

/// The numbers of arguments that a function takes; none where it decides by itself.
pub(super) fn arities(signature: &TypeSignature) -> Option<Vec<usize>> {
    match signature {
        TypeSignature::OneOf(variants) => {
            let counts: Option<Vec<Vec<usize>>> = variants.iter().map(arities).collect();
            let mut counts = counts?.concat();
            counts.sort_unstable();
            counts.dedup();
            Some(counts)
        }
        TypeSignature::Exact(types) => Some(vec![types.len()]),
        TypeSignature::Coercible(types) => Some(vec![types.len()]),
        TypeSignature::Uniform(count, _)
        | TypeSignature::Numeric(count)
        | TypeSignature::String(count)
        | TypeSignature::Comparable(count)
        | TypeSignature::Any(count) => Some(vec![*count]),
        TypeSignature::Nullary => Some(vec![0]),
        _ => None,
    }
}

/// How a function is called, as its documentation says.
pub(super) fn syntax(function: &ScalarUDF) -> Option<&str> {
    function.documentation().map(|documentation| documentation.syntax_example.as_str())
}

/// The planners that turn SQL's own forms (`EXTRACT`, `SUBSTRING`, `POSITION`) into functions.
pub(super) fn planners() -> Vec<Arc<dyn datafusion_expr::planner::ExprPlanner>> {
    vec![
        Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
        Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
    ]
}
