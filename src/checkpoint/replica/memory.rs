//! A replica in memory, for tests and simulations.
//!
//! It deliberately outlives nothing: clones are handles of the same replica, and the last one takes it along.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Key, Put, Replica, ReplicaError, Reply, takes};
use crate::checkpoint::container::MAX_OBJECT;

/// A replica in memory.
#[derive(Clone)]
pub struct MemoryReplica {
    url: String,
    /// Taken for one look or one change, never across an await.
    objects: Arc<Mutex<BTreeMap<Key, Bytes>>>,
}

impl MemoryReplica {
    /// One without objects, which people call `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), objects: Arc::default() }
    }

    /// Puts whatever bytes at `key`, or removes what is there, as no request can: a disk that forgot or changed them.
    pub fn tamper(&self, key: &Key, bytes: Option<Bytes>) {
        let mut objects = self.lock();
        match bytes {
            Some(bytes) => objects.insert(key.clone(), bytes),
            None => objects.remove(key),
        };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: &Key, bytes: Bytes) -> Result<Put, ReplicaError> {
        takes(&self.url, key, &bytes)?;
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        objects.insert(key.clone(), bytes);
        Ok(Put::Created)
    }
}

impl fmt::Debug for MemoryReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryReplica({})", self.url)
    }
}

impl Replica for MemoryReplica {
    fn url(&self) -> &str {
        &self.url
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        let key = key.clone();
        Box::pin(async move { self.put(&key, bytes) }) // done when the reply is awaited, as with any other
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        let key = key.clone();
        Box::pin(async move {
            takes(&self.url, &key, &bytes)?;
            self.lock().insert(key, bytes);
            Ok(())
        })
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        let key = key.clone();
        Box::pin(async move {
            let found = self.lock().get(&key).cloned();
            Ok(found.map(|bytes| bytes.slice(..bytes.len().min(MAX_OBJECT + 1))))
        })
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        let prefix = prefix.clone();
        Box::pin(async move {
            let objects = self.lock();
            let from = objects.range(prefix.clone()..);
            let near = from.take_while(|(key, _)| key.as_str().starts_with(prefix.as_str()));
            let below = near.filter(|(key, _)| key.is_below(&prefix));
            Ok(below.map(|(key, bytes)| (key.clone(), bytes.len() as u64)).collect())
        })
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        let key = key.clone();
        Box::pin(async move {
            takes(&self.url, &key, &[])?;
            self.lock().remove(&key);
            Ok(())
        })
    }
}
