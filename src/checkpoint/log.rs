//! The handle of a running log: one driver's epoch, from its START to the next.
//!
//! It deliberately holds no rule of the protocol: it puts entries and chunks into the state, waits until they are decided,
//! and the lanes do the rest. Dropping it ends its tasks; what was put into it and is not decided may still come to be.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::chunk::{self, ChunkRef};
use crate::checkpoint::entry::{Entry, EntryKind, Position, Record};
use crate::checkpoint::failure;
use crate::checkpoint::id::{Epoch, Index, JobId};
use crate::checkpoint::lane::Core;
use crate::checkpoint::open::{Checkpoint, TakeOver};
use crate::checkpoint::slot::Slot;
use crate::checkpoint::state::State;
use crate::error::Result;
use crate::time::BatchId;

/// A running log: what is appended to it outlives its driver.
///
/// Its methods may be called from several tasks at once; entries stand in the order in which [`append`](Self::append) was
/// first polled. All wait for as long as it takes: where too few replicas work, the log pauses and goes on by itself. They
/// fail with an error of kind [`Fenced`](crate::error::ErrorKind::Fenced) once a later driver has taken over.
pub struct Log {
    pub(super) core: Arc<Core>,
    pub(super) checkpoint: Checkpoint,
}

impl Log {
    /// Whose log it is.
    pub fn job(&self) -> JobId {
        self.core.job
    }

    /// The driver's epoch.
    pub fn epoch(&self) -> Epoch {
        self.core.epoch
    }

    /// Appends an entry; returns once W voters have it, and all before it, and all chunks that it names.
    pub async fn append(&self, entry: Entry) -> Result<Position> {
        let index = self.core.state.change(|state| state.append(|index| self.object(index, entry)))?;
        self.core.state.until(|state| state.outcome(index.0)).await?;
        Ok(self.core.at(index.0))
    }

    fn object(&self, index: Index, entry: Entry) -> (Record, Bytes) {
        let at = self.core.at(index.0);
        let slot = Slot::Entry(entry);
        let bytes = self.core.sealer().seal(at, &slot);
        let Slot::Entry(entry) = slot else { unreachable!("it was made three lines above") };
        (Record { at, entry }, bytes)
    }

    /// Appends an entry that says nothing: a sign of life, or the question whether this driver still counts.
    pub async fn noop(&self) -> Result<Position> {
        self.append(Entry::new(EntryKind::Noop, BatchId::default(), Bytes::new())).await
    }

    /// Appends that the stream was stopped on purpose: the next driver need not wait to see whether this one lives.
    pub async fn stop(&self) -> Result<Position> {
        self.append(Entry::new(EntryKind::Stopped, BatchId::default(), Bytes::new())).await
    }

    /// Waits until every voter that works has everything that was appended, and not W alone.
    pub async fn catch_up(&self) -> Result<()> {
        self.core.state.until(|state| state.caught_up()).await
    }

    /// Puts a chunk; returns once W voters have it. It is kept until an entry that names it has come and gone.
    pub async fn put_chunk(&self, content: &[u8]) -> Result<ChunkRef> {
        let Core { job, epoch, writer, common, state, .. } = &*self.core;
        let number = state.quietly(State::next_chunk_number);
        let (chunk, bytes) = chunk::seal((*job, *epoch, *writer), number, content, common.secret())?;
        state.change(|state| state.add_chunk(chunk, bytes))?;
        state.until(|state| state.chunk_outcome(&chunk)).await?;
        Ok(chunk)
    }

    /// Reads a chunk; a copy that is damaged is repaired from one that is whole.
    pub async fn get_chunk(&self, chunk: &ChunkRef) -> Result<Bytes> {
        let mut waits = self.core.common.back_off();
        loop {
            self.core.state.look(State::must_go_on)?;
            let fetched = self.core.fetch_chunk(chunk).await;
            if let Some((bytes, content)) = fetched.copy {
                self.core.repair_chunk(chunk, &bytes, &fetched.damaged).await;
                return Ok(content);
            }
            let what = format!("chunk {} of epoch {}", chunk.hash, chunk.epoch);
            if let Some((url, why)) = fetched.unreadable {
                return Err(failure::unreadable(&url, &what, &why));
            }
            if fetched.failed.is_empty() && !self.core.state.look(State::anyone_missing) {
                return Err(failure::no_chunk(&what));
            }
            waits.wait(&*self.core.common.surroundings).await;
        }
    }

    /// The replicas that can take no more entries of this epoch, though they answer: they were emptied or exchanged, or an
    /// object in their log is damaged. [`roll`](Self::roll) takes them in again.
    pub fn parked(&self) -> Vec<String> {
        self.core.state.look(State::parked)
    }

    /// Goes on in a new epoch, and ends this log. A driver does so now and then, when a replica is to be taken in again, and
    /// after any error of a sink: its memory is good where what is adopted is what it remembers.
    ///
    /// # Errors
    /// One of kind `Fenced` where a later driver has claimed an epoch: then this one must end.
    pub async fn roll(&self) -> Result<TakeOver> {
        if self.core.state.look(State::is_fenced) {
            self.core.state.look(State::must_go_on)?;
        }
        self.core.state.change(State::close);
        self.checkpoint.roll_from(self.core.epoch).await
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.core.state.change(State::close);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({} of job {})", self.core.epoch, self.core.job)
    }
}
