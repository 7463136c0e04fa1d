//! Put-if-absent that knows its own bytes again: what a writer needs where answers get lost.
//!
//! It deliberately does not wait between its attempts, since it has no clock; a caller that can wait asks again.

use bytes::Bytes;

use super::{Key, Put, Replica, ReplicaError, ReplicaErrorKind};

/// What stands at a key after an attempt to put something there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOrEqual {
    /// Our bytes.
    Stored,
    /// Other bytes; whole or not, the caller finds out.
    Other(Bytes),
}

/// How often a request is made whose outcome stays unknown.
const ATTEMPTS: usize = 3;

/// Puts `bytes` at `key` where nothing is, and tells whether they are there then.
///
/// A request whose outcome is unknown is made again with the same key and the same bytes: whether it was done the first
/// or the second time, or both, the same stands there.
///
/// # Errors
/// The last attempt's, when none was answered. Its outcome is unknown, unless it says otherwise and no attempt before
/// it is in doubt.
///
/// ```
/// use bytes::Bytes;
/// use tidemill::checkpoint::replica::contract::wait;
/// use tidemill::checkpoint::replica::{Key, MemoryReplica, PutOrEqual, put_or_equal};
/// let replica = MemoryReplica::new("memory:a");
/// let put = |bytes| wait(put_or_equal(&replica, &Key::job(), Bytes::from_static(bytes))).unwrap();
/// assert_eq!(put(b"mine"), PutOrEqual::Stored);
/// assert_eq!(put(b"mine"), PutOrEqual::Stored);
/// assert_eq!(put(b"theirs"), PutOrEqual::Other(Bytes::from_static(b"mine")));
/// ```
pub async fn put_or_equal(
    replica: &dyn Replica,
    key: &Key,
    bytes: Bytes,
) -> Result<PutOrEqual, ReplicaError> {
    let mut in_doubt = None;
    for _ in 0..ATTEMPTS {
        match attempt(replica, key, &bytes).await {
            Ok(outcome) => return Ok(outcome),
            // Nothing came of this attempt, but an earlier one may yet arrive.
            Err(error) if error.is_undone() || !error.is_retriable() => return Err(in_doubt.unwrap_or(error)),
            Err(error) => in_doubt = Some(error),
        }
    }
    Err(in_doubt.unwrap_or_else(|| never_answered(replica, key)))
}

async fn attempt(replica: &dyn Replica, key: &Key, bytes: &Bytes) -> Result<PutOrEqual, ReplicaError> {
    match replica.put_new(key, bytes.clone()).await? {
        Put::Created => Ok(PutOrEqual::Stored),
        // Our bytes may be there, from a start before this one, whatever a failed look says of itself.
        Put::Exists => match replica.get(key).await.map_err(ReplicaError::in_doubt)? {
            Some(found) if found == *bytes => Ok(PutOrEqual::Stored),
            Some(found) => Ok(PutOrEqual::Other(found)),
            None => Err(vanished(replica, key)),
        },
    }
}

fn vanished(replica: &dyn Replica, key: &Key) -> ReplicaError {
    let url = replica.url();
    let message = format!("{url} said that {key} exists, and then that it does not");
    ReplicaError::new(ReplicaErrorKind::Unavailable, message).help("is somebody deleting the checkpoint?")
}

fn never_answered(replica: &dyn Replica, key: &Key) -> ReplicaError {
    ReplicaError::new(ReplicaErrorKind::Unavailable, format!("{} did not take {key}", replica.url()))
}
