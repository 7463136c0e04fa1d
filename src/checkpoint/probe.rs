//! Whether a place can be a replica, found out by trying.
//!
//! It deliberately trusts no store's word: some answer a conditional put as if they had heard the condition. Durability
//! cannot be seen from here; that a directory can be synced, the first put shows.

use bytes::Bytes;

use super::id::DriverId;
use super::replica::{Key, Put, PutOrEqual, Replica, put_or_equal};
use crate::error::{Error, ErrorKind, Result};

/// Creates an object twice, reads, lists and removes it.
///
/// # Errors
/// That name the replica. One that may be fit once it is back is [retriable](Error::is_retriable); any other is not fit.
///
/// ```
/// use tidemill::checkpoint::id::DriverId;
/// use tidemill::checkpoint::probe::probe;
/// use tidemill::checkpoint::replica::MemoryReplica;
/// use tidemill::checkpoint::replica::contract::wait;
/// wait(probe(&MemoryReplica::new("memory:a"), DriverId(7)))?;
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub async fn probe(replica: &dyn Replica, driver: DriverId) -> Result<()> {
    let key = Key::probe(driver);
    let found = try_all(replica, &key).await.map_err(|error| error.at(format!("replica {}", replica.url())));
    if found.is_err() {
        let _ = replica.delete(&key).await; // the error at hand says more than that of the tidying up
    }
    found
}

async fn try_all(replica: &dyn Replica, key: &Key) -> Result<()> {
    let first = Bytes::from(format!("{key}: the first writer's"));
    let second = Bytes::from(format!("{key}: the second writer's"));
    if put_or_equal(replica, key, first.clone()).await? != PutOrEqual::Stored {
        return Err(unfit("has other bytes under a name that is new", "is something else writing there?"));
    }
    if replica.put_new(key, second).await? == Put::Created {
        return Err(unfit(
            "let a second writer put what the first had put",
            "a replica needs put-if-absent: switch conditional writes on, or choose another store",
        ));
    }
    let found = replica.get(key).await?;
    if found.as_ref() != Some(&first) {
        return Err(unfit("does not give back what was put", "choose another store"));
    }
    let listed = replica.list(&Key::probes()).await?;
    if !listed.contains(&(key.clone(), first.len() as u64)) {
        return Err(unfit("does not list what was put", "a replica needs listings that are up to date"));
    }
    replica.delete(key).await?;
    match replica.get(key).await? {
        None => Ok(()),
        Some(_) => Err(unfit("still has what was deleted", "is it a store of versions? choose another")),
    }
}

fn unfit(what: &str, help: &str) -> Error {
    Error::new(ErrorKind::Checkpoint, format!("the place cannot be a replica of the checkpoint: it {what}"))
        .help(help)
}
