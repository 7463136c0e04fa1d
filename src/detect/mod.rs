//! Online detectors: columns and state in, scores and state out.
//!
//! A detector deliberately knows neither streams nor brokers nor keys: it is given the number of the state that a
//! row belongs to. Every detector passes the suite in [`contract`].

/// What `detect` was asked to do.
#[derive(Clone, Debug)]
pub struct DetectSpec {
    /// The feature columns.
    pub columns: Vec<String>,
    /// Put before the names of the columns that it adds.
    pub prefix: String,
}
