//! One copy of the checkpoint: write-once objects under keys, as bytes.
//!
//! It deliberately verifies nothing, orders nothing and counts no votes: what bytes mean is the container's business,
//! which replica must have what, and when, is the log's. [`contract`] is what every replica must do.

pub mod contract;
mod error;
mod key;
mod local;
mod memory;
mod put;
mod remote;
mod url;

pub mod disk;
pub mod faulty;
pub mod full;
pub mod read_only;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::checkpoint::container::MAX_OBJECT;
use crate::error::in_bytes;

pub use error::{ReplicaError, ReplicaErrorKind};
pub use key::Key;
pub use local::LocalReplica;
pub use memory::MemoryReplica;
pub use put::{PutOrEqual, put_or_equal};
pub use remote::ObjectStoreReplica;
pub use url::open_url;

/// What a replica answers, when it does.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, ReplicaError>> + Send + 'a>>;

/// What came of put-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object was not there, and is now.
    Created,
    /// An object was there, perhaps the same, and is as it was.
    Exists,
}

/// One copy of the checkpoint: write-once objects under keys, as bytes.
///
/// A future that is dropped leaves its request's outcome unknown. What a replica has told once is so for good: an
/// object that `put_new`, `get` or `list` said is there outlives a loss of power, whoever put it.
pub trait Replica: Send + Sync + fmt::Debug {
    /// What people call it.
    fn url(&self) -> &str;

    /// Puts an object where none is, whole or not at all; durable when the answer is there, also where that is
    /// [`Put::Exists`]. An object of more than [`MAX_OBJECT`] bytes is refused.
    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put>;

    /// Replaces an object, whole or not at all, durably: only for the repair of a damaged one, with the valid bytes that
    /// another replica has.
    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()>;

    /// The object; none says that it is surely absent. Of one that is longer than any object may be, only so much comes
    /// that it cannot be taken for a whole one.
    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>>;

    /// The keys below `prefix` and the lengths of their objects, sorted. `prefix` is taken by whole parts.
    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>>;

    /// Removes an object; that it is not there is fine. A loss of power may bring it back.
    fn delete(&self, key: &Key) -> Reply<'_, ()>;
}

/// Refuses what no replica takes: bytes at a key of several objects, and more of them than an object may have.
fn takes(url: &str, key: &Key, bytes: &[u8]) -> Result<(), ReplicaError> {
    let refuse = |message| Err(ReplicaError::new(ReplicaErrorKind::Other, message).undone());
    if !key.is_object() {
        return refuse(format!("{url} was asked to write {key:?}, which is no object's"));
    }
    if bytes.len() > MAX_OBJECT {
        let found = in_bytes(bytes.len() as u64);
        let most = in_bytes(MAX_OBJECT as u64);
        return refuse(format!("{url} was asked to put {found} at {key}; an object has at most {most}"));
    }
    Ok(())
}
