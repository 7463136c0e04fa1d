//! The handle of a running log: one driver's epoch, from its START to the next.
//!
//! It deliberately holds no rule of the protocol: it puts entries and chunks into the state, waits until they are decided,
//! and the lanes do the rest. Dropping it ends its tasks; what was put into it and is not decided may still come to be.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::chunk::{self, ChunkRef};
use crate::checkpoint::entry::{Entry, Position, Record};
use crate::checkpoint::failure;
use crate::checkpoint::id::{Epoch, Index, JobId};
use crate::checkpoint::lane::Core;
use crate::checkpoint::open::{Checkpoint, TakeOver};
use crate::checkpoint::state::State;
use crate::error::Result;

/// A running log: what is appended to it outlives its driver.
///
/// Its methods may be called from several tasks at once; entries stand in the order in which [`append`](Self::append) was
/// first polled. All wait for as long as it takes: where too few replicas work, the log pauses, tells the reporter which ones
/// it waits for, and goes on by itself. A future that is dropped takes nothing back: the entry or chunk may still come to be.
///
/// # Errors
/// What ends the log ends every call, now and later, with the same error. It is of one of these kinds:
/// * [`Fenced`](crate::error::ErrorKind::Fenced): a later driver has taken over. This one must end, and put nothing out.
/// * [`Checkpoint`](crate::error::ErrorKind::Checkpoint): too many replicas have been emptied, exchanged or damaged for this
///   epoch, or a chunk is nowhere. Another epoch may be able to go on: [`roll`](Self::roll) finds out. Also where this
///   driver has rolled, and another task of it still uses the log before.
/// * [`Internal`](crate::error::ErrorKind::Internal): the driver has named a chunk that was collected, or a PREPARE that is
///   not open. This one ends the call alone.
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

    /// Appends an entry; returns once W voters have it, and all before it, and all chunks that it names. The others catch up
    /// in the background.
    ///
    /// The position of a PREPARE is what its COMMIT refers to.
    pub async fn append(&self, entry: Entry) -> Result<Position> {
        let index = self.core.state.change(|state| state.append(|index| self.object(index, entry)))?;
        self.core.state.until(|state| state.outcome(index.0)).await?;
        Ok(self.core.at(index.0))
    }

    fn object(&self, index: Index, entry: Entry) -> (Record, Bytes) {
        let at = self.core.at(index.0);
        let bytes = self.core.sealer().seal_entry(at, &entry);
        (Record { at, entry }, bytes)
    }

    /// Appends that the stream was stopped on purpose, and ends the log: the next driver need not wait to see whether this
    /// one lives.
    pub async fn close(self) -> Result<()> {
        self.append(Entry::stopped()).await.map(drop)
    }

    /// Waits until every voter that works has everything that was appended, and not W alone.
    pub async fn catch_up(&self) -> Result<()> {
        self.core.state.until(|state| state.caught_up()).await
    }

    /// Puts a chunk of at most [`MAX_CHUNK`](chunk::MAX_CHUNK) bytes; returns once W voters have it. It is kept at least
    /// until an entry that names it no longer counts; so one that no entry will ever name stays until the driver's epoch ends.
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
            let (fetched, all) = self.core.fetch_chunk(chunk).await;
            if let Some((bytes, content)) = fetched.copy {
                self.core.repair_chunk(chunk, &bytes, &fetched.damaged).await;
                return Ok(content);
            }
            if let Some((url, why)) = fetched.unreadable {
                return Err(failure::unreadable_chunk(&url, chunk, &why));
            }
            if fetched.failed.is_empty() && all {
                self.core.no_chunk(chunk).await.map_or(Ok(()), Err)?;
            }
            waits.wait(&*self.core.common.surroundings).await;
        }
    }

    /// Whether it is time to [`roll`](Self::roll): to take in a replica again, or because the epoch's log is long.
    pub fn wants_roll(&self) -> bool {
        self.core.state.look(State::wants_roll)
    }

    /// The replicas that can take no more entries of this epoch, though they answer: they were emptied or exchanged, or an
    /// object in their log is damaged.
    pub fn parked(&self) -> Vec<String> {
        self.core.state.look(State::parked)
    }

    /// Goes on in a new epoch, and ends this log. A driver does so every hour, when the log [wants it](Self::wants_roll), and
    /// after any error of a sink: its memory is good where what is adopted is what it remembers, and else is to be restored.
    ///
    /// # Errors
    /// One of kind `Fenced` where a later driver has claimed an epoch: then this one must end.
    pub async fn roll(&self) -> Result<TakeOver> {
        if self.core.state.look(State::is_fenced) {
            self.core.state.look(State::must_go_on)?;
        }
        self.core.state.change(State::close);
        self.checkpoint.roll_from(self.core.job, self.core.epoch).await
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
