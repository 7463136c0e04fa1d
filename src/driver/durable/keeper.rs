//! What a running driver keeps: state as chunks after each batch, and entries in the log.
//!
//! It is used by several of the stream's threads at once, each of which waits for the log where it has to. It deliberately
//! decides nothing: which batch is prepared when is the machine's business, and what is adopted at a start is
//! [`resume`](super::resume)'s.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arrow::buffer::Buffer;
use tokio::runtime::Handle;

use crate::cancel::Cancel;
use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::entry::{Entry as Slot, Position};
use crate::checkpoint::id::{ChunkHash, Epoch as LogEpoch};
use crate::checkpoint::log::Log as ReplicatedLog;
use crate::driver::durable::payload::{Decided, encode_commit, encode_plan};
use crate::driver::log::{Entry, Log};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::capture::CapturedChunks;
use crate::exec::manifest::{ChunkName, Manifest, Saved};
use crate::exec::resume::ChunkSource;
use crate::exec::{Engine, Epoch, ExecutorGroups};
use crate::sink::marker::{self, Marker};
use crate::time::BatchId;

/// A driver that has been silent for this part of the lease says that it lives.
const SILENCE: u32 = 3;

/// After so many batches what no entry names any more is removed.
const COLLECTED: u64 = 64;

/// How long the end waits for the log.
const FAREWELL: Duration = Duration::from_secs(2);

/// How soon whoever waits for the log hears that the stream is to end at once.
const LOOK: Duration = Duration::from_millis(100);

/// The log of a running driver, and the state that it has put there.
pub(crate) struct Keeper {
    log: ReplicatedLog,
    runtime: Handle,
    cancel: Cancel,
    groups: ExecutorGroups,
    /// Grows with each capture; held while one is put.
    manifest: Mutex<Manifest>,
    /// The state after batches that have been reduced and not prepared: at most two.
    kept: Mutex<BTreeMap<BatchId, Manifest>>,
    /// How many entries were appended: who watches sees whether it is silent.
    appended: AtomicU64,
}

impl Keeper {
    /// Of a log that has been started, with the state that is kept there.
    pub(super) fn new(
        log: ReplicatedLog,
        (runtime, cancel): (Handle, Cancel),
        groups: ExecutorGroups,
        manifest: Manifest,
        lease: Duration,
    ) -> Arc<Self> {
        let (manifest, kept, appended) = (Mutex::new(manifest), Mutex::default(), AtomicU64::default());
        let keeper = Arc::new(Self { log, runtime, cancel, groups, manifest, kept, appended });
        keeper.runtime.spawn(say_that_it_lives(Arc::downgrade(&keeper), lease / SILENCE));
        keeper
    }

    /// The driver's term, as the sinks know it.
    pub(super) fn epoch(&self) -> marker::Epoch {
        marker::Epoch(self.log.epoch().0)
    }

    /// From here on, state is captured on top of `manifest`.
    pub(super) fn go_on_with(&self, manifest: Manifest) {
        *lock(&self.manifest) = manifest;
    }

    /// Copies what the operators remember after `batch` and before the next, and puts it into the log.
    pub(crate) fn capture(&self, engine: &dyn Engine, batch: BatchId) -> Result<()> {
        let mut manifest = lock(&self.manifest);
        for capture in engine.capture(&manifest)? {
            let captured = capture.encode(batch)?;
            let saved = self.put(&captured)?;
            manifest.add(&captured.heading.operator, &captured.heading.form, saved);
        }
        for fold in manifest.folds(&self.groups) {
            let folded = fold.folded(self)?;
            manifest.replace(&fold, self.put(&folded)?);
        }
        lock(&self.kept).insert(batch, manifest.clone());
        Ok(())
    }

    fn put(&self, captured: &CapturedChunks) -> Result<Saved> {
        let mut names = Vec::with_capacity(captured.chunks.len());
        for chunk in &captured.chunks {
            names.push(name_of(self.wait(self.log.put_chunk(&chunk.bytes))?));
        }
        Saved::new(captured, &names)
    }

    /// The state after `batch`; asked for once.
    pub(super) fn state_after(&self, batch: BatchId) -> Result<Manifest> {
        let lost = || Error::internal(format!("batch {batch} is prepared and its state was not kept"));
        lock(&self.kept).remove(&batch).ok_or_else(lost)
    }

    /// Makes what a batch comes to safe; where it stands.
    pub(super) fn prepare(&self, batch: BatchId, decided: &Decided) -> Result<Position> {
        let names = decided.manifest.chunks().into_iter().map(|name| reference(&name)).collect();
        self.append(Slot::prepare(batch, decided.encode(), names))
    }

    /// Makes safe that a batch is done, and which attempt it was.
    pub(super) fn commit(&self, marker: &Marker, prepare: Position) -> Result<()> {
        self.append(Slot::commit(marker.batch, prepare, encode_commit(marker)))?;
        if marker.batch.0.is_multiple_of(COLLECTED) {
            self.collect()?;
        }
        Ok(())
    }

    /// Removes the chunks that nothing needs any more. Nobody puts one meanwhile: it would be named by nothing yet.
    fn collect(&self) -> Result<()> {
        let manifest = lock(&self.manifest);
        let mut names = manifest.chunks();
        lock(&self.kept).values().for_each(|kept| names.extend(kept.chunks()));
        let keep: Vec<ChunkRef> = names.iter().map(reference).collect();
        self.wait(self.log.collect(&keep)).map(drop)
    }

    /// Asks whether this driver still counts.
    pub(super) fn ask(&self) -> Result<()> {
        self.append(Slot::noop()).map(drop)
    }

    /// Says that the stream was stopped on purpose. Where that cannot be said, the next driver waits for a lease.
    pub(super) fn stop(&self) {
        let stopped = self
            .runtime
            .block_on(async { tokio::time::timeout(FAREWELL, self.log.append(Slot::stopped())).await });
        if !matches!(stopped, Ok(Ok(_))) {
            log::debug!("the checkpoint could not be told that the stream has stopped");
        }
    }

    /// Waits for the log, until the stream is to end at once.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                match tokio::time::timeout(LOOK, &mut work).await {
                    Ok(done) => return done,
                    Err(_) if self.cancel.is_cancelled() => return Err(given_up()),
                    Err(_) => {}
                }
            }
        })
    }

    fn append(&self, entry: Slot) -> Result<Position> {
        self.appended.fetch_add(1, Ordering::Relaxed); // nothing else is read by it
        self.wait(self.log.append(entry))
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Cancelled, "the checkpoint was waited for when the stream was stopped at once")
        .help("what was not committed is done again at the next start")
}

/// Says so each time that nothing was appended for `silence`, until the driver is gone.
async fn say_that_it_lives(keeper: Weak<Keeper>, silence: Duration) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(silence).await;
        let Some(keeper) = keeper.upgrade() else { return };
        let appended = keeper.appended.load(Ordering::Relaxed);
        if appended == seen && keeper.log.append(Slot::noop()).await.is_err() {
            return; // whoever appends next hears it
        }
        seen = appended;
    }
}

impl ChunkSource for Keeper {
    fn get(&self, name: &ChunkName) -> Result<Buffer> {
        let bytes = self.wait(self.log.get_chunk(&reference(name)))?;
        Ok(Buffer::from(bytes.to_vec()))
    }
}

/// The PLANs of a running driver.
impl Log for Arc<Keeper> {
    fn append(&mut self, entry: &Entry) -> Result<()> {
        match entry {
            Entry::Plan { batch, .. } => {
                Keeper::append(self, Slot::plan(*batch, encode_plan(entry))).map(drop)
            }
            Entry::Prepare { .. } | Entry::Commit { .. } => {
                Err(Error::internal("what a batch comes to is made safe by who publishes it"))
            }
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("log", &self.log).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A chunk of the log, as a manifest names it.
pub(super) fn name_of(chunk: ChunkRef) -> ChunkName {
    ChunkName { epoch: Epoch(chunk.epoch.0), hash: chunk.hash.0, length: chunk.length }
}

/// A chunk that a manifest names, as the log knows it.
pub(super) fn reference(name: &ChunkName) -> ChunkRef {
    ChunkRef { epoch: LogEpoch(name.epoch.0), hash: ChunkHash(name.hash), length: name.length }
}
