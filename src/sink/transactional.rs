//! The side of a sink that makes exactly once possible: a batch's output and a marker of it appear as one, or not at all.
//!
//! ```text
//! open ── init ── marker ── decide          once an epoch: init ends what older drivers have begun, then the marker tells
//!                             │
//!          prepare(n) ── PREPARE n ── publish(n) ── COMMIT n        once a batch
//! ```
//!
//! A batch is encoded once, before it is decided; what is published are those bytes. This file deliberately knows no
//! log: whoever has one decides, by the marker, what becomes of a batch whose publishing nobody has seen the end of.
//! Every such sink passes the suite in [`contract::transactional`](super::contract::transactional).

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::Delivery;
use super::digest::Digest;
use super::marker::{Marker, Owner};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::event::Positions;
use crate::kafka::Cluster;

/// How a sink takes part where batches are decided by a log.
#[derive(Debug)]
pub enum Part<'a> {
    /// It publishes what is decided, once.
    Publishes(&'a mut dyn Transactional),
    /// It is given a batch before it is decided for good, and so perhaps again.
    AtLeastOnce,
    /// It shows a batch to somebody, once it is decided for good.
    Shows,
}

/// What becomes of a batch that is published a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// It would be there twice: only the marker tells that it is there.
    Appends,
    /// Nothing: it is put where it belongs if it is not there.
    Puts,
}

/// A sink that publishes whole batches together with a marker.
///
/// An error of [`publish`](Self::publish) says nothing of whether the batch is there. Where it
/// [needs a take-over](Error::needs_take_over), the sink takes nothing more before an [`init`](Self::init) for a new
/// epoch, whose marker tells.
pub trait Transactional: Any + Send + fmt::Debug {
    /// Checks that rows of `schema` can be taken and gets ready to [`prepare`](Self::prepare) them, in place of
    /// [`Sink::open`](super::Sink::open) and as that does. Nothing is published by another driver's leave yet.
    fn open(&mut self, schema: &SchemaRef, cancel: &Cancel) -> Result<()>;

    /// What becomes of a batch that is published a second time.
    fn publishing(&self) -> Publishing;

    /// Where it publishes to, for errors; two sinks that name one place are one too many.
    fn place(&self) -> String;

    /// The Kafka cluster that it writes to, where it does: the offsets of a source there belong into its transactions.
    fn cluster(&self) -> Option<&Cluster> {
        None
    }

    /// Whether `leader` can publish what this one has prepared, by the same act as its own.
    fn joins(&self, _leader: &dyn Transactional) -> bool {
        false
    }

    /// Takes the place over for `owner`: whatever an older driver has begun there is ended, and it can publish no more.
    /// Only then is the marker read that this gives; none where nothing was ever published. Called once an epoch.
    fn init(&mut self, owner: &Owner, cancel: &Cancel) -> Result<Option<Marker>>;

    /// Encodes a batch, or writes it where nobody sees it; nothing of it is there for others yet. The digest is a function
    /// of the rows in their order, of the batch and of its time, and of nothing else.
    fn prepare(&mut self, delivery: &Delivery) -> Result<Prepared>;

    /// A batch that another driver has prepared, from what its [`Prepared::record`] says.
    fn restore(&mut self, _record: &[u8]) -> Result<Prepared> {
        Err(Error::internal(format!("{} cannot publish what another driver has prepared", self.place())))
    }

    /// Publishes a batch and its marker as one.
    fn publish(&mut self, publication: &Publication<'_>) -> Result<Published>;

    /// Removes what older drivers have prepared and never published. Called when no such batch can be published any more.
    fn collect(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A batch as one sink would publish it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What tells this output from another.
    pub digest: Digest,
    /// How many rows it has.
    pub rows: u64,
    /// What another driver needs to publish it; empty where none can.
    pub record: Vec<u8>,
    content: Arc<dyn Any + Send + Sync>,
}

impl Prepared {
    /// An output whose `content` its own sink knows.
    pub fn new<T: Any + Send + Sync>(digest: Digest, rows: u64, content: Arc<T>) -> Self {
        Self { digest, rows, record: Vec::new(), content }
    }

    /// The same, with what another driver needs to publish it.
    #[must_use]
    pub fn with_record(mut self, record: Vec<u8>) -> Self {
        self.record = record;
        self
    }

    /// The content, as the sink that prepared it knows it.
    pub fn content<T: Any + Send + Sync>(&self) -> Result<Arc<T>> {
        let content = Arc::clone(&self.content).downcast();
        content.map_err(|_| Error::internal("a batch is published by a sink that has not prepared it"))
    }
}

/// What is to appear as one.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The output: the leader's own, then those of the sinks that join it. None where a marker is only renewed.
    pub outputs: &'a [&'a Prepared],
    /// The marker that is kept with it.
    pub marker: &'a Marker,
    /// The offsets that sources of the same cluster have reached with this batch.
    pub offsets: &'a [GroupOffsets],
    /// Asks for it to be given up.
    pub cancel: &'a Cancel,
}

/// How far a consumer group has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffsets {
    /// The group.
    pub group: String,
    /// Of each partition, the offset that it reads next.
    pub positions: Positions,
}

/// A batch is published.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// What went wrong without harm, such as a group that takes no offsets.
    pub warnings: Vec<Error>,
}
