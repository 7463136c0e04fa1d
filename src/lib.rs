//! **tidemill**: Spark Streaming's model without the JVM and without a cluster to run first.
//!
//! A live stream becomes a sequence of small immutable Arrow tables, one per batch interval, that Rust operators
//! transform in parallel, that detectors and Python models score, and that sinks deliver.
//!
//! # The way of a batch
//!
//! ```text
//!         clock tick n, or records have arrived
//!             │
//!   driver ───┤  PLAN n: an offset range per source partition, and the batch time
//!             ▼
//!         ingest          raw columns: payload, key, timestamp, headers        one thread a client handle
//!             ▼
//!         decode          bytes → typed Arrow columns, only those that somebody reads
//!             ▼
//!         exec: stage 0   stateless operators, fused, and partial aggregates   on the thread that took the chunk
//!             ▼
//!         exchange        rows → shards by key group                           gathered once, never serialised
//!             ▼
//!         exec: stage 1…  keyed operators and window panes, each shard's own   rayon, one task a shard
//!             ▼
//!         sinks           the rows of the batch, in order, on one delivery thread
//!             ▼
//!         events          what happened, to listeners and `progress`
//! ```
//!
//! A batch flows in chunks of 16,384 rows or 4 MiB. A chunk is fetched, decoded and taken through stage 0 by one
//! thread, while it is in that core's cache; the only barriers are the exchange and a user's Python function. While
//! batch n is reduced and delivered, batch n + 1 is fetched, decoded and taken through stage 0.
//!
//! # Invariants
//!
//! * **A batch is decided before it is read.** The driver plans exactly `[from, until)` of every partition; nothing
//!   else of the outside world (no clock, no order of arrival) enters a batch's computation.
//! * **Same plans and same state, same bits**, with any number of threads and executors: chunks are cut by row
//!   count from the start of the range, rows wait at barriers by slot ([`exec::Slot`]) and leave in the order of
//!   slots, and a key's shard follows from a hash that never changes.
//! * **Event time is told by the rows.** W(n) follows from the plans and from the times in batches up to n; windows end by
//!   it ([`driver::watermark`], [`state::window`]), and what came too late is a function of the row and W(n-1).
//! * **Rows and state move by value.** No operator can reach a source, a sink or the clock.
//! * **The driver is a pure state machine**: events in, commands out. A thin loop performs the commands, so the same
//!   driver runs in production and under a seeded simulation.
//! * **Memory is bounded** by `max_memory`: what the clients read ahead, the chunks at hand, and the rows of all
//!   batches in flight.
//! * **Imports go downwards only**, in the order of the list below; `tests/architecture.rs` holds the table.
//!
//! # Modules, bottom to top
//!
//! Words (leaves, no I/O): [`error`], [`types`], [`time`], [`cancel`], [`offset`], [`provenance`], [`raw`],
//! [`event`], [`wire`].
//! Meaning (pure functions over Arrow): [`aggregate`], [`expr`], [`decode`], [`state`], [`detect`], [`plan`].
//! Edges (I/O): [`kafka`], and over it [`ingest`] and [`sink`], which never meet; and [`checkpoint`], the replicated log,
//! which knows bytes and places and neither sources, sinks nor what state means.
//! Work: [`exec`], whose ingest threads own the fetchers of `ingest`; nothing else of it meets I/O.
//! Order (the one place that knows everyone): [`driver`].
//! Faces: [`context`], and, with the feature `python`, `python`.

pub mod cancel;
pub mod csv;
pub mod error;
pub mod event;
pub mod offset;
pub mod provenance;
pub mod raw;
pub mod time;
pub mod types;
pub mod wire;

pub mod aggregate;
pub mod decode;
pub mod detect;
pub mod expr;
pub mod plan;
pub mod state;

pub mod checkpoint;
pub mod ingest;
pub mod kafka;
pub mod sink;

pub mod exec;

pub mod driver;

pub mod context;
#[cfg(feature = "python")]
mod python;
