//! A sink that hands every batch to a function: the base of `foreach_batch`.
//!
//! It deliberately adds nothing to the call: whether the rows are safe is for the function to say, and an error of
//! it fails the batch as it is.

use std::fmt;

use arrow::datatypes::SchemaRef;

use super::{Delivery, Sink};
use crate::cancel::Cancel;
use crate::error::Result;

/// What is done with each batch.
pub trait BatchHandler: Send + fmt::Debug {
    /// Takes a batch; its rows are safe when it returns.
    fn handle(&mut self, delivery: &Delivery) -> Result<()>;
}

/// Whether batches without rows are handed over too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyBatches {
    /// No.
    #[default]
    Skip,
    /// Yes.
    Deliver,
}

/// A sink that calls a [`BatchHandler`] once a batch, in order.
#[derive(Debug)]
pub struct CallbackSink {
    name: String,
    handler: Box<dyn BatchHandler>,
    empty: EmptyBatches,
}

impl CallbackSink {
    /// A sink called `name` that calls `handler`.
    pub fn new(name: impl Into<String>, handler: Box<dyn BatchHandler>, empty: EmptyBatches) -> Self {
        Self { name: name.into(), handler, empty }
    }

    /// A sink called `name` that calls a closure.
    ///
    /// ```
    /// use tidemill::sink::Sink;
    /// use tidemill::sink::callback::{CallbackSink, EmptyBatches};
    /// let sink = CallbackSink::from_fn("count", EmptyBatches::Skip, |batch| {
    ///     assert!(batch.num_rows() > 0);
    ///     Ok(())
    /// });
    /// assert_eq!((sink.name(), sink.wants_empty()), ("count", false));
    /// ```
    pub fn from_fn(
        name: impl Into<String>,
        empty: EmptyBatches,
        function: impl FnMut(&Delivery) -> Result<()> + Send + 'static,
    ) -> Self {
        Self::new(name, Box::new(Closure(function)), empty)
    }
}

impl Sink for CallbackSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, _: &SchemaRef, _: &Cancel) -> Result<()> {
        Ok(())
    }

    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        self.handler.handle(delivery)
    }

    fn wants_empty(&self) -> bool {
        self.empty == EmptyBatches::Deliver
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

struct Closure<F>(F);

impl<F> fmt::Debug for Closure<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<F: FnMut(&Delivery) -> Result<()> + Send> BatchHandler for Closure<F> {
    fn handle(&mut self, delivery: &Delivery) -> Result<()> {
        (self.0)(delivery)
    }
}
