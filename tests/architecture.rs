//! Placeholder replaced by the table of layers.
fn main() {}
