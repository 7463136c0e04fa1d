//! Claims: who owns an epoch.
//!
//! It deliberately proves little: that no other driver owns the same epoch. That an older driver can do no more harm is
//! the SEALs' business. A claim stands on a replica before anything else of its epoch does, so who lists the claims knows
//! all epochs that the replica has seen; and no claim is ever removed.

use bytes::{Bytes, BytesMut};

use crate::checkpoint::codec::{Coded, decode, encode};
use crate::checkpoint::container::{self, Expected, Header, Kind, Place};
use crate::checkpoint::failure;
use crate::checkpoint::fetch::Source;
use crate::checkpoint::id::{DriverId, Epoch, Incarnation, Index, JobId};
use crate::checkpoint::replica::{Key, PutOrEqual, Replica, ReplicaError, put_or_equal};
use crate::checkpoint::secret::CheckpointKey;
use crate::checkpoint::surroundings::Whereabouts;
use crate::error::Error;

/// What came of a claim on one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// It is there.
    Ours,
    /// Another driver's was there first, or something that cannot be read.
    Taken,
}

impl Coded for Whereabouts {
    fn put_into(&self, out: &mut BytesMut) {
        self.host.put_into(out);
        self.boot.put_into(out);
        self.pid.put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        Some(Self {
            host: Coded::take_from(from)?,
            boot: Coded::take_from(from)?,
            pid: Coded::take_from(from)?,
        })
    }
}

/// The object that says that `writer`, who runs there, owns `epoch`.
pub(super) fn object(
    (job, epoch, writer): (JobId, Epoch, DriverId),
    whereabouts: &Whereabouts,
    secret: Option<&CheckpointKey>,
) -> Bytes {
    let header = Header { kind: Kind::Claim, job, epoch, index: Index(0), writer };
    container::seal(&header, &encode(whereabouts), secret)
}

/// Puts a claim on a replica, unless one is there.
pub(super) async fn put(
    replica: &dyn Replica,
    incarnation: Incarnation,
    epoch: Epoch,
    claim: Bytes,
) -> Result<Claimed, ReplicaError> {
    let key = Key::of(incarnation, &Place::Claim(epoch));
    match put_or_equal(replica, &key, claim).await? {
        PutOrEqual::Stored => Ok(Claimed::Ours),
        PutOrEqual::Other(_) => Ok(Claimed::Taken),
    }
}

/// The latest epoch that a replica has seen; 0 before the first.
pub(super) async fn latest(replica: &dyn Replica, incarnation: Incarnation) -> Result<Epoch, ReplicaError> {
    let claims = replica.list(&Key::claims(incarnation)).await?;
    let epoch = |key: &Key| match key.place() {
        Some((_, Place::Claim(epoch))) => Some(epoch),
        _ => None,
    };
    Ok(claims.iter().filter_map(|(key, _)| epoch(key)).max().unwrap_or_default())
}

/// Where the driver runs that owns `epoch`; none where its claim is not there or cannot be read.
pub(super) async fn owner(
    replica: &dyn Replica,
    incarnation: Incarnation,
    (job, epoch): (JobId, Epoch),
    secret: Option<&CheckpointKey>,
) -> Result<Option<Whereabouts>, ReplicaError> {
    let place = Place::Claim(epoch);
    let found = replica.get(&Key::of(incarnation, &place)).await?;
    let opened = found.and_then(|bytes| container::open(&bytes, &Expected { job, place }, secret).ok());
    Ok(opened.and_then(|object| decode(object.payload)))
}

/// The error, unless another driver has claimed a later epoch than this one's: then what is missing was removed by that
/// driver's collector, and this driver has been deposed. None while somebody does not answer, who might say so.
pub(super) async fn deposed_or(error: Error, epoch: Epoch, sources: &[Source<'_>]) -> Option<Error> {
    let mut sure = true;
    for source in sources {
        match latest(source.replica, source.incarnation).await {
            Ok(latest) if latest > epoch => return Some(failure::deposed(epoch, latest)),
            Ok(_) => {}
            Err(_) => sure = false,
        }
    }
    sure.then_some(error)
}
