//! The probe: a place that cannot be a replica is refused by name, with what to do.

use std::sync::Arc;

use bytes::Bytes;
use tidemill::checkpoint::container::DriverId;
use tidemill::checkpoint::probe::probe;
use tidemill::checkpoint::replica::contract::wait;
use tidemill::checkpoint::replica::faulty::{Fault, FaultyReplica};
use tidemill::checkpoint::replica::full::FullReplica;
use tidemill::checkpoint::replica::read_only::ReadOnlyReplica;
use tidemill::checkpoint::replica::{
    Key, LocalReplica, MemoryReplica, Put, Replica, ReplicaErrorKind, Reply,
};
use tidemill::error::Error;

use super::replicas::Folder;

const DRIVER: DriverId = DriverId(7);

fn memory() -> Arc<MemoryReplica> {
    Arc::new(MemoryReplica::new("memory:test"))
}

fn refused(replica: &dyn Replica) -> Error {
    let error = wait(probe(replica, DRIVER)).unwrap_err();
    assert!(error.to_string().contains("replica memory:test"), "it names no replica: {error}");
    error
}

#[test]
fn a_replica_is_fit_and_nothing_is_left_behind() {
    let folder = Folder::new("probe");
    let local = LocalReplica::open(folder.path()).unwrap();
    let memory = memory();
    let replicas: [&dyn Replica; 2] = [&local, &*memory];
    for replica in replicas {
        for _ in 0..2 {
            wait(probe(replica, DRIVER)).unwrap();
            assert_eq!(wait(replica.list(&Key::root())).unwrap(), []);
        }
    }
}

#[test]
fn a_lost_answer_makes_no_replica_unfit() {
    let replica = FaultyReplica::scripted(memory(), [Fault::AnswerLost, Fault::RequestLost]);
    wait(probe(&replica, DRIVER)).unwrap();
}

#[test]
fn what_may_be_fit_later_is_told_from_what_never_will() {
    let full = refused(&FullReplica::new(memory(), 3));
    assert!(full.is_retriable() && full.to_string().contains("make room"), "{full}");
    let read_only = refused(&ReadOnlyReplica::new(memory()));
    assert!(read_only.is_retriable() && read_only.to_string().contains("can only be read"), "{read_only}");
    let down = Fault::Refused(ReplicaErrorKind::Unavailable);
    assert!(refused(&FaultyReplica::new(memory(), move |_| down)).is_retriable());
}

/// A way in which a store is no replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfit {
    IgnoresTheCondition,
    LastWriterWinsInSilence,
    ListsLate,
    KeepsWhatIsDeleted,
}

#[derive(Debug)]
struct Store(Arc<MemoryReplica>, Unfit);

impl Replica for Store {
    fn url(&self) -> &str {
        self.0.url()
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        let key = key.clone();
        Box::pin(async move {
            let there = self.0.get(&key).await?.is_some();
            match self.1 {
                Unfit::IgnoresTheCondition => self.0.overwrite(&key, bytes).await.map(|()| Put::Created),
                Unfit::LastWriterWinsInSilence => self
                    .0
                    .overwrite(&key, bytes)
                    .await
                    .map(|()| if there { Put::Exists } else { Put::Created }),
                _ => self.0.put_new(&key, bytes).await,
            }
        })
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        self.0.overwrite(key, bytes)
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        self.0.get(key)
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        match self.1 {
            Unfit::ListsLate => Box::pin(async { Ok(Vec::new()) }),
            _ => self.0.list(prefix),
        }
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        match self.1 {
            Unfit::KeepsWhatIsDeleted => Box::pin(async { Ok(()) }),
            _ => self.0.delete(key),
        }
    }
}

#[test]
fn a_store_that_cannot_be_a_replica_is_refused_for_good() {
    let expected = [
        (Unfit::IgnoresTheCondition, "put-if-absent"),
        (Unfit::LastWriterWinsInSilence, "does not give back what was put"),
        (Unfit::ListsLate, "does not list what was put"),
        (Unfit::KeepsWhatIsDeleted, "still has what was deleted"),
    ];
    for (unfit, text) in expected {
        let store = Store(memory(), unfit);
        let error = refused(&store);
        assert!(!error.is_retriable() && error.to_string().contains(text), "{unfit:?}: {error}");
        let left = wait(store.0.list(&Key::root())).unwrap();
        assert!(left.is_empty() || unfit == Unfit::KeepsWhatIsDeleted, "{unfit:?} left {left:?}");
    }
}
