//! Chunks: pieces of state, received records and output, each under a name that no other chunk ever has.
//!
//! It deliberately knows nothing of what is in them. A chunk is named by its epoch and the hash of its content; so that two
//! chunks with the same bytes are not one, a running number goes with the content. Were they one, a collector that has
//! found the first to be garbage could remove the second, which is not: a request to delete may arrive late.

use bytes::{BufMut, Bytes, BytesMut};

use crate::checkpoint::container::{self, Damaged, Expected, Header, Kind, MAX_PAYLOAD, Place};
use crate::checkpoint::id::{ChunkHash, DriverId, Epoch, Index, JobId};
use crate::checkpoint::secret::CheckpointKey;
use crate::error::{Error, ErrorKind, Result, in_bytes};

/// The most bytes that a chunk may have.
pub const MAX_CHUNK: usize = MAX_PAYLOAD - TRAILER;

/// The running number behind the content.
const TRAILER: usize = size_of::<u64>();

/// Shorter chunks are not compressed: it would take longer than it saves.
const SHORTEST_COMPRESSED: usize = 4_096;

/// A chunk's name, and how long the object is that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkRef {
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// The hash of its content and of the number behind it.
    pub hash: ChunkHash,
    /// How many bytes its object has: one of another length is damaged.
    pub length: u64,
}

impl ChunkRef {
    pub(super) fn place(&self) -> Place {
        Place::Chunk(self.epoch, self.hash)
    }
}

/// The object for `content`, and its name.
pub(super) fn seal(
    (job, epoch, writer): (JobId, Epoch, DriverId),
    number: u64,
    content: &[u8],
    secret: Option<&CheckpointKey>,
) -> Result<(ChunkRef, Bytes)> {
    if content.len() > MAX_CHUNK {
        let (most, found) = (in_bytes(MAX_CHUNK as u64), in_bytes(content.len() as u64));
        return Err(Error::new(ErrorKind::Internal, format!("a chunk has at most {most}, found {found}")));
    }
    let mut payload = BytesMut::with_capacity(content.len() + TRAILER);
    payload.put_slice(content);
    payload.put_u64_le(number);
    let header = Header { kind: Kind::Chunk, job, epoch, index: Index(0), writer };
    let seal = if content.len() < SHORTEST_COMPRESSED { container::seal } else { container::seal_compressed };
    let bytes = seal(&header, &payload, secret);
    Ok((ChunkRef { epoch, hash: ChunkHash::of(&payload), length: bytes.len() as u64 }, bytes))
}

/// The content of the chunk that `bytes` are the object of.
pub(super) fn open(
    bytes: &Bytes,
    job: JobId,
    chunk: &ChunkRef,
    secret: Option<&CheckpointKey>,
) -> std::result::Result<Bytes, Damaged> {
    let found = bytes.len() as u64;
    if found != chunk.length {
        return Err(Damaged::Length { expected: chunk.length, found });
    }
    let object = container::open(bytes, &Expected { job, place: chunk.place() }, secret)?;
    let content = object.payload.len().checked_sub(TRAILER);
    content.map(|length| object.payload.slice(..length)).ok_or(Damaged::Field("running number"))
}
