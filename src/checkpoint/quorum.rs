//! Who votes, and how many votes make a decision.
//!
//! It deliberately asks nobody: it counts. N voters; an entry is decided once W of them have it; a reader must have
//! heard F = N - W + 1 of them, so that it has met at least one of any W; an epoch belongs to whoever has claimed it on a
//! majority.

use std::collections::BTreeSet;

use crate::checkpoint::id::Incarnation;
use crate::error::{Error, Result};

/// The most voters of a job: more make it slower and no safer.
pub const MAX_VOTERS: usize = 32;

/// A replica that votes: its number, and what is on it. A replica that was wiped has another incarnation and is another
/// voter, so nothing that it once acknowledged and has lost is ever counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Voter {
    /// What people call it: its place in the list of replicas when it was taken in.
    pub number: u32,
    /// What is on it.
    pub incarnation: Incarnation,
}

/// All voters, in the order of their numbers, and W.
///
/// ```
/// use tidemill::checkpoint::id::Incarnation;
/// use tidemill::checkpoint::quorum::{Voter, Voters};
/// let members = (1..=5).map(|number| Voter { number, incarnation: Incarnation(number.into()) });
/// let voters = Voters::new(members, None)?;
/// assert_eq!((voters.len(), voters.write(), voters.read(), voters.majority()), (5, 3, 3, 3));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voters {
    members: Vec<Voter>,
    write: usize,
}

impl Voters {
    /// These voters, and W: a majority unless given.
    pub fn new(members: impl IntoIterator<Item = Voter>, write: Option<usize>) -> Result<Self> {
        let mut members: Vec<Voter> = members.into_iter().collect();
        members.sort_unstable();
        let count = members.len();
        let write = write.unwrap_or(count / 2 + 1);
        if count > MAX_VOTERS || write > count || 2 * write <= count {
            let message = format!(
                "an entry must be written to more than half of 1 to {MAX_VOTERS} replicas, and at most to all, found {write} of {count}"
            );
            return Err(Error::config(message));
        }
        let incarnations: BTreeSet<Incarnation> = members.iter().map(|voter| voter.incarnation).collect();
        let numbers: BTreeSet<u32> = members.iter().map(|voter| voter.number).collect();
        if incarnations.len() < count || numbers.len() < count {
            return Err(Error::config("two of the replicas are the same").help("name each replica once"));
        }
        Ok(Self { members, write })
    }

    /// The voters, in the order of their numbers.
    pub fn members(&self) -> &[Voter] {
        &self.members
    }

    /// N.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody votes, which is never so.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// W: an entry that so many have is decided.
    pub fn write(&self) -> usize {
        self.write
    }

    /// F: who has heard so many has met at least one of any W.
    pub fn read(&self) -> usize {
        self.len() + 1 - self.write
    }

    /// How many make a claim hold: two claims of one epoch cannot both have so many.
    pub fn majority(&self) -> usize {
        self.len() / 2 + 1
    }

    /// Whether `incarnation` votes.
    pub fn contains(&self, incarnation: Incarnation) -> bool {
        self.members.iter().any(|voter| voter.incarnation == incarnation)
    }

    /// How many of the voters are as `is` says.
    pub fn count(&self, is: impl Fn(Incarnation) -> bool) -> usize {
        self.members.iter().filter(|voter| is(voter.incarnation)).count()
    }

    /// The same voters, all of whom must have what is to be decided.
    #[must_use]
    pub fn unanimous(&self) -> Self {
        Self { members: self.members.clone(), write: self.len() }
    }

    /// The same voters, but for one that is there under a new incarnation.
    #[must_use]
    pub fn readmitted(&self, number: u32, incarnation: Incarnation) -> Self {
        let renew = |voter: &Voter| {
            if voter.number == number { Voter { number, incarnation } } else { *voter }
        };
        Self { members: self.members.iter().map(renew).collect(), write: self.write }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(count: u32, write: Option<usize>) -> Result<Voters> {
        Voters::new(
            (1..=count).map(|number| Voter { number, incarnation: Incarnation(number.into()) }),
            write,
        )
    }

    #[test]
    fn any_that_are_read_meet_any_that_are_written() {
        for count in 1..=9_usize {
            for write in count / 2 + 1..=count {
                let voters = voters(u32::try_from(count).unwrap(), Some(write)).unwrap();
                assert_eq!(voters.read() + voters.write(), count + 1);
                assert!(2 * voters.majority() > count);
            }
        }
    }

    #[test]
    fn half_is_not_enough_and_more_than_all_is_too_many() {
        assert!(voters(4, Some(2)).is_err_and(|error| error.is_config()));
        assert!(voters(3, Some(4)).is_err_and(|error| error.is_config()));
        assert!(voters(0, None).is_err());
        assert!(voters(33, None).is_err());
    }

    #[test]
    fn a_replica_that_is_named_twice_is_refused() {
        let twice = [0, 1].map(|number| Voter { number, incarnation: Incarnation(7) });
        assert!(Voters::new(twice, None).is_err());
    }
}
