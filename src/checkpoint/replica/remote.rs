//! A replica in any store that the crate `object_store` knows and that has put-if-absent.
//!
//! It deliberately is not used for directories: see [`LocalReplica`](super::LocalReplica) for what that store lacks. A
//! remote store is durable when it answers; whether it really refuses to put twice is what the probe finds out.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Error as StoreError, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};

use super::{Key, Put, Replica, ReplicaError, ReplicaErrorKind, Reply, takes};
use crate::checkpoint::container::MAX_OBJECT;

/// A replica below a path of an object store.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use object_store::memory::InMemory;
/// use object_store::path::Path;
/// use tidemill::checkpoint::replica::contract::wait;
/// use tidemill::checkpoint::replica::{Key, ObjectStoreReplica, Put, Replica};
/// let replica = ObjectStoreReplica::new("memory:app", Arc::new(InMemory::new()), Path::from("app"));
/// assert_eq!(wait(replica.put_new(&Key::job(), Bytes::from_static(b"mine")))?, Put::Created);
/// assert_eq!(wait(replica.put_new(&Key::job(), Bytes::from_static(b"mine")))?, Put::Exists);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub struct ObjectStoreReplica {
    url: String,
    store: Arc<dyn ObjectStore>,
    root: Path,
}

impl ObjectStoreReplica {
    /// What is below `root` in `store`, which people call `url`.
    pub fn new(url: impl Into<String>, store: Arc<dyn ObjectStore>, root: Path) -> Self {
        Self { url: url.into(), store, root }
    }

    fn path(&self, key: &Key) -> Path {
        key.as_str().split('/').filter(|part| !part.is_empty()).fold(self.root.clone(), Path::join)
    }

    /// The key of an object of ours.
    fn key(&self, path: &Path) -> Option<Key> {
        let parts: Vec<_> = path.prefix_match(&self.root)?.collect();
        let text: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        text.join("/").parse().ok().filter(Key::is_object)
    }

    async fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<Put, ReplicaError> {
        takes(&self.url, key, &bytes)?;
        match self.store.put_opts(&self.path(key), PutPayload::from_bytes(bytes), mode.into()).await {
            Ok(_) => Ok(Put::Created),
            Err(StoreError::AlreadyExists { .. }) => Ok(Put::Exists),
            Err(error) => Err(self.failed("put", key, error)),
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, ReplicaError> {
        match self.read_some(key, None).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("get", key, error)),
        }
    }

    /// The object's bytes; of one that is too long, what shows that it is.
    async fn read_some(&self, key: &Key, range: Option<GetRange>) -> Result<Bytes, StoreError> {
        const LIMIT: u64 = MAX_OBJECT as u64 + 1;
        let bounded = range.is_some();
        let options = GetOptions { range, ..GetOptions::default() };
        let found = self.store.get_opts(&self.path(key), options).await?;
        if bounded || found.meta.size <= LIMIT {
            return found.bytes().await;
        }
        Box::pin(self.read_some(key, Some(GetRange::Bounded(0..LIMIT)))).await
    }

    async fn collect(&self, prefix: &Key) -> Result<Vec<(Key, u64)>, ReplicaError> {
        let objects = self.store.list(Some(&self.path(prefix))).try_collect::<Vec<_>>().await;
        let objects = objects.map_err(|error| self.failed("list", prefix, error))?;
        let known = objects.iter().filter_map(|object| Some((self.key(&object.location)?, object.size)));
        let mut found: Vec<(Key, u64)> = known.filter(|(key, _)| key.is_below(prefix)).collect();
        found.sort();
        Ok(found)
    }

    async fn remove(&self, key: &Key) -> Result<(), ReplicaError> {
        takes(&self.url, key, &[])?;
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", key, error)),
        }
    }

    fn failed(&self, what: &str, key: &Key, error: StoreError) -> ReplicaError {
        let (kind, help) = meaning(&error);
        let failed = ReplicaError::new(kind, format!("could not {what} {key} at {}: {error}", self.url));
        help.into_iter().fold(failed, ReplicaError::help).caused_by(error)
    }
}

fn meaning(error: &StoreError) -> (ReplicaErrorKind, Option<&'static str>) {
    match error {
        StoreError::PermissionDenied { .. } => (
            ReplicaErrorKind::Denied,
            Some("give these credentials the right to read, write, list and delete there"),
        ),
        StoreError::Unauthenticated { .. } => (ReplicaErrorKind::Denied, Some("check the credentials")),
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            (ReplicaErrorKind::Other, Some("a replica needs put-if-absent; choose a store that has it"))
        }
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            (ReplicaErrorKind::Other, None)
        }
        _ => (ReplicaErrorKind::Unavailable, None),
    }
}

impl fmt::Debug for ObjectStoreReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStoreReplica({})", self.url)
    }
}

impl Replica for ObjectStoreReplica {
    fn url(&self) -> &str {
        &self.url
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        let key = key.clone();
        Box::pin(async move { self.put(&key, bytes, PutMode::Create).await })
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        let key = key.clone();
        Box::pin(async move { self.put(&key, bytes, PutMode::Overwrite).await.map(drop) })
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        let key = key.clone();
        Box::pin(async move { if key.is_object() { self.read(&key).await } else { Ok(None) } })
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        let prefix = prefix.clone();
        Box::pin(async move { self.collect(&prefix).await })
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        let key = key.clone();
        Box::pin(async move { self.remove(&key).await })
    }
}
