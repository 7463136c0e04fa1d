//! The replicated log: what a job must remember, as write-once objects on several replicas.
//!
//! It deliberately knows bytes, places and positions, not what state means, and neither sources nor sinks.
//!
//! # What it promises
//! With one replica a crash of the process, or of the machine's power, and with N replicas the loss of any N − W of them,
//! loses nothing that was acknowledged. Of two drivers that both think that they run the job, only one gets anything
//! acknowledged. A byte that has changed is found and never believed. Where that cannot be held, an error says so before
//! anything is put out.
//!
//! # How a driver uses it
//! 1. [`Checkpoint::new`] with the job's replicas, and [`probe`](Checkpoint::probe), which refuses places that are no
//!    replicas.
//! 2. [`take_over`](Checkpoint::take_over), by which every start begins, the first of a job too. It gives a [`TakeOver`]:
//!    what was [adopted](TakeOver::adopted) of the driver before, as a [`Standing`]. The last batch that is done is its
//!    [`committed`](Standing::committed) one; of the [next](Standing::next_batch) there may be a
//!    [plan](Standing::plan), which is to be followed, and [attempts](Standing::attempts), which are decided: the sink may
//!    have published the output of one of them. Whatever they name, [`get_chunk`](TakeOver::get_chunk) reads.
//! 3. [`start`](TakeOver::start), which gives a [`Log`]. Only then is the sink initialised, which fences older drivers'
//!    producers, and its marker read. It says which attempt was published: that is committed, and not sent again.
//! 4. Batch by batch, each call returning once its entry is decided:
//!    PLAN before anything is fetched, chunks and PREPARE before the sink's transaction is opened, COMMIT after the sink has
//!    committed.
//!    The PLAN of the next batch may [ride](Entry::riding) with a COMMIT. A COMMIT names the PREPARE that it completes by the
//!    position that [`append`](Log::append) gave. Now and then, [`collect`](Log::collect).
//! 5. After an error of the sink, every hour, and when the log [wants it](Log::wants_roll): [`roll`](Log::roll), which gives
//!    a [`TakeOver`] again. Silent for a third of the lease, the driver appends a [NOOP](Entry::noop), so that others see that
//!    it lives. At the end, [`close`](Log::close).
//!
//! An error of kind [`Fenced`](crate::error::ErrorKind::Fenced), from whichever call, says that another driver runs the job
//! now: this one ends. Failing replicas are no errors: calls wait until enough of them work, and a [`Report`] says for which.
//!
//! ```
//! use std::sync::Arc;
//! use tidemill::checkpoint::replica::{MemoryReplica, Replica};
//! use tidemill::checkpoint::runtime::{Runtime, here};
//! use tidemill::checkpoint::{Checkpoint, Content, Entry, Settings};
//! use tidemill::time::BatchId;
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! let replicas = ["memory:a", "memory:b", "memory:c"].map(|url| Arc::new(MemoryReplica::new(url)) as Arc<dyn Replica>);
//! let open = || {
//!     let surroundings = Arc::new(Runtime::new(runtime.handle().clone()));
//!     Checkpoint::new(&replicas, Settings::new("sums", here()), surroundings, Arc::new(|_report| {}))
//! };
//! runtime.block_on(async {
//!     let (checkpoint, batch) = (open()?, BatchId(0));
//!     checkpoint.probe().await?;
//!     let takeover = checkpoint.take_over().await?;
//!     assert!(takeover.adopted().is_none(), "the job's first start");
//!     let log = takeover.start(Content::default(), &[]).await?;
//!
//!     log.append(Entry::plan(batch, "readings[0] 0..5")).await?;
//!     let state = log.put_chunk(b"sum = 15").await?;
//!     let prepare = log.append(Entry::prepare(batch, "digest", vec![state])).await?;
//!     // Here the sink publishes.
//!     log.append(Entry::commit(batch, prepare, "digest").riding(Entry::plan(batch.next(), "readings[0] 5..8"))).await?;
//!     log.close().await?;
//!
//!     let takeover = open()?.take_over().await?;
//!     let standing = takeover.adopted().map(|adopted| adopted.standing.clone()).unwrap_or_default();
//!     let next = standing.next_batch();
//!     assert_eq!(next, BatchId(1));
//!     assert_eq!(standing.plan(next).map(|plan| &plan.payload[..]), Some(&b"readings[0] 5..8"[..]));
//!     assert_eq!(standing.attempts(next).count(), 0, "it was planned and never prepared");
//!     assert_eq!(takeover.get_chunk(&state).await?, &b"sum = 15"[..]);
//!     Ok::<(), tidemill::error::Error>(())
//! })?;
//! # Ok::<(), tidemill::error::Error>(())
//! ```
//!
//! # How it is made
//! From the bottom up: [`id`] has the names, [`container`] is the form of every object, [`replica`] is one copy of the
//! checkpoint, [`job`] is the file that says whose it is, and [`probe`] tells whether a place can be a replica. [`entry`],
//! [`start`] and [`chunk`] are what a log holds, [`standing`] is what still counts of it, and [`quorum`] counts votes. Of a
//! take-over, `panel` knows who the replicas are, `claim` and `walk` end older epochs, `adopt` reads the newest, and
//! `verdict` says whether that is enough. Of a running log, `state` is all that it knows, `lane` brings a replica up to
//! date, and `collect` removes what nobody reads any more. All of it runs over [`surroundings`], so that the code that runs
//! in production is the code that a simulation drives through its schedules.

mod adopt;
mod backlog;
pub mod chunk;
mod claim;
mod codec;
mod collect;
pub mod container;
pub mod entry;
mod failure;
mod fetch;
mod first;
pub mod id;
pub mod job;
mod lane;
mod lease;
mod ledger;
pub mod log;
pub mod members;
pub mod open;
mod panel;
pub mod probe;
mod progress;
pub mod quorum;
pub mod recover;
pub mod repair;
pub mod replica;
pub mod report;
mod round;
#[doc(hidden)]
pub mod rules;
pub mod runtime;
pub mod secret;
pub mod settings;
mod shared;
mod slot;
pub mod standing;
pub mod start;
mod state;
pub mod surroundings;
mod takeover;
mod timed;
mod verdict;
mod walk;

pub use chunk::ChunkRef;
pub use entry::{Entry, EntryKind, Position, Record};
pub use log::Log;
pub use open::{Adopted, Checkpoint, TakeOver};
pub use report::Report;
pub use settings::{Settings, Standby};
pub use standing::{Committed, Standing};
pub use start::Content;
