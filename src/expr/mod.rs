//! An expression (tree or SQL text) bound to a schema.

pub mod types;

/// An expression.
#[derive(Clone, Debug)]
pub struct Expression;
