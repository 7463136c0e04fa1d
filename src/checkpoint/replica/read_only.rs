//! A replica that can be read and not written, for as long as that is wanted.
//!
//! It deliberately refuses before it asks: what it says is undone has not reached the replica behind it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::{Key, Put, Replica, ReplicaError, ReplicaErrorKind, Reply};

/// Whether a replica can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It can be read and written.
    Write,
    /// It can only be read.
    ReadOnly,
}

/// A replica that cannot be written.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use tidemill::checkpoint::replica::contract::wait;
/// use tidemill::checkpoint::replica::read_only::ReadOnlyReplica;
/// use tidemill::checkpoint::replica::{Key, MemoryReplica, Replica, ReplicaErrorKind};
/// let replica = ReadOnlyReplica::new(Arc::new(MemoryReplica::new("memory:a")));
/// let put = wait(replica.put_new(&Key::job(), Bytes::new()));
/// assert!(put.is_err_and(|error| error.kind() == ReplicaErrorKind::ReadOnly));
/// assert_eq!(wait(replica.get(&Key::job()))?, None);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub struct ReadOnlyReplica {
    inner: Arc<dyn Replica>,
    writable: AtomicBool,
}

impl ReadOnlyReplica {
    /// `inner`, which cannot be written for now.
    pub fn new(inner: Arc<dyn Replica>) -> Self {
        Self { inner, writable: AtomicBool::new(false) }
    }

    /// Lets it be written, or not, from now on.
    pub fn set(&self, access: Access) {
        self.writable.store(access == Access::Write, Ordering::SeqCst);
    }

    fn is_writable(&self) -> Result<(), ReplicaError> {
        if self.writable.load(Ordering::SeqCst) {
            return Ok(());
        }
        let message = format!("{} can only be read", self.url());
        Err(ReplicaError::new(ReplicaErrorKind::ReadOnly, message).help("let it be written again").undone())
    }
}

impl fmt::Debug for ReadOnlyReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadOnlyReplica({:?})", self.inner)
    }
}

impl Replica for ReadOnlyReplica {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        let key = key.clone();
        Box::pin(async move {
            self.is_writable()?;
            self.inner.put_new(&key, bytes).await
        })
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        let key = key.clone();
        Box::pin(async move {
            self.is_writable()?;
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
        let key = key.clone();
        Box::pin(async move {
            self.is_writable()?;
            self.inner.delete(&key).await
        })
    }
}
