//! START, the first entry of an epoch's log: who votes, and all that a driver needs to go on.
//!
//! It deliberately refers to no older epoch but by what it carries: once it is decided, older logs may go.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::codec::Coded;
use crate::checkpoint::entry::Position;
use crate::checkpoint::quorum::{Voter, Voters};
use crate::checkpoint::standing::Standing;

/// What the driver says of itself in START: operators, schemas, versions. The log carries it and reads nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// What the driver wrote.
    pub payload: Bytes,
    /// The chunks that it names.
    pub names: Vec<ChunkRef>,
}

/// The first entry of an epoch's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Who votes on the entries after this one.
    pub voters: Voters,
    /// On whom this START must be decided besides: the voters before a change. At the first start all voters, so that a
    /// replica without any START proves that the job never began.
    pub before: Vec<Voters>,
    /// How much of the log before was adopted: all slots before this one; none at the first start.
    pub adopted: Option<Position>,
    /// What of it still counts.
    pub standing: Standing,
    /// What the driver says of itself.
    pub content: Content,
}

impl Start {
    /// All sets of voters on which it must be decided.
    pub fn deciders(&self) -> impl Iterator<Item = &Voters> {
        std::iter::once(&self.voters).chain(&self.before)
    }

    /// The chunks that it names.
    pub fn names(&self) -> BTreeSet<ChunkRef> {
        let mut names = self.standing.names();
        names.extend(&self.content.names);
        names
    }
}

impl Coded for Voter {
    fn put_into(&self, out: &mut BytesMut) {
        self.number.put_into(out);
        self.incarnation.put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        Some(Self { number: u32::take_from(from)?, incarnation: Coded::take_from(from)? })
    }
}

impl Coded for Voters {
    fn put_into(&self, out: &mut BytesMut) {
        self.members().to_vec().put_into(out);
        (self.write() as u64).put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        let members = Vec::<Voter>::take_from(from)?;
        let write = usize::try_from(u64::take_from(from)?).ok()?;
        Self::new(members, Some(write)).ok()
    }
}

impl Coded for Content {
    fn put_into(&self, out: &mut BytesMut) {
        self.payload.put_into(out);
        self.names.put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        Some(Self { payload: Bytes::take_from(from)?, names: Vec::take_from(from)? })
    }
}

impl Coded for Start {
    fn put_into(&self, out: &mut BytesMut) {
        self.voters.put_into(out);
        self.before.put_into(out);
        self.adopted.put_into(out);
        self.standing.put_into(out);
        self.content.put_into(out);
    }

    fn take_from(from: &mut Bytes) -> Option<Self> {
        let (voters, before) = (Voters::take_from(from)?, Vec::take_from(from)?);
        let (adopted, standing) = (Option::take_from(from)?, Standing::take_from(from)?);
        Some(Self { voters, before, adopted, standing, content: Content::take_from(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::codec::{decode, encode};
    use crate::checkpoint::id::{ChunkHash, Epoch, Incarnation, Index};

    #[test]
    fn a_start_is_read_as_it_was_written() {
        let members = (0..3).map(|number| Voter { number, incarnation: Incarnation(number.into()) });
        let voters = Voters::new(members, None).unwrap();
        let chunk = ChunkRef { epoch: Epoch(1), hash: ChunkHash::of(b"c"), length: 9 };
        let start = Start {
            before: vec![voters.unanimous()],
            voters,
            adopted: Some(Position { epoch: Epoch(1), index: Index(2) }),
            standing: Standing::default(),
            content: Content { payload: Bytes::from_static(b"operators"), names: vec![chunk] },
        };
        assert_eq!(start.names(), BTreeSet::from([chunk]));
        assert_eq!(decode::<Start>(encode(&start)), Some(start));
    }
}
