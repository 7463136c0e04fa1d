//! An expression (tree or SQL text) bound to a schema.

/// An expression.
#[derive(Clone, Debug)]
pub struct Expression;
