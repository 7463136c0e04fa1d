//! A replica with little room.
//!
//! It deliberately counts what it was given and not what is there: objects of others take no room.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Key, Put, Replica, ReplicaError, ReplicaErrorKind, Reply};

/// A replica that takes so many bytes and no more, until room is made.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use tidemill::checkpoint::replica::contract::wait;
/// use tidemill::checkpoint::replica::full::FullReplica;
/// use tidemill::checkpoint::replica::{Key, MemoryReplica, Put, Replica, ReplicaErrorKind};
/// let replica = FullReplica::new(Arc::new(MemoryReplica::new("memory:a")), 3);
/// let put = || wait(replica.put_new(&Key::job(), Bytes::from_static(b"long")));
/// assert!(put().is_err_and(|error| error.kind() == ReplicaErrorKind::Full));
/// replica.make_room(1);
/// assert_eq!(put()?, Put::Created);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub struct FullReplica {
    inner: Arc<dyn Replica>,
    /// The bytes that still fit; taken for one sum, never across an await.
    room: Mutex<u64>,
}

impl FullReplica {
    /// `inner`, which takes `room` bytes more.
    pub fn new(inner: Arc<dyn Replica>, room: u64) -> Self {
        Self { inner, room: Mutex::new(room) }
    }

    /// Lets it take so many bytes more.
    pub fn make_room(&self, bytes: u64) {
        let mut room = self.lock();
        *room = room.saturating_add(bytes);
    }

    /// Leaves no room.
    pub fn fill(&self) {
        *self.lock() = 0;
    }

    /// Takes the room that an object needs.
    fn reserve(&self, bytes: u64) -> Result<(), ReplicaError> {
        let mut room = self.lock();
        let left = room.checked_sub(bytes).ok_or_else(|| {
            let message =
                format!("{} has room for {} bytes, and was asked to put {bytes}", self.url(), *room);
            ReplicaError::new(ReplicaErrorKind::Full, message).help("make room there").undone()
        })?;
        *room = left;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FullReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FullReplica({:?})", self.inner)
    }
}

impl Replica for FullReplica {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        let key = key.clone();
        Box::pin(async move {
            let length = bytes.len() as u64;
            self.reserve(length)?;
            let put = self.inner.put_new(&key, bytes).await;
            if !matches!(put, Ok(Put::Created)) {
                self.make_room(length); // nothing was taken, as far as anyone knows
            }
            put
        })
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        let key = key.clone();
        Box::pin(async move {
            self.reserve(bytes.len() as u64)?;
            self.inner.overwrite(&key, bytes).await
        })
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        self.inner.get(key)
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        self.inner.list(prefix)
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        self.inner.delete(key)
    }
}
