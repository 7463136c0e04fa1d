//! Key groups: the 1024 units in which keys are dealt to shards and state is handed from owner to owner.
//!
//! A group is a function of the key's hash alone, so it is the same in every version and on every machine. This
//! file deliberately does not know who owns a group.

use std::fmt;
use std::ops::Range;

/// One of the [`KeyGroup::COUNT`] groups of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyGroup(pub u16);

impl KeyGroup {
    /// The number of key groups: fixed, since every checkpoint is indexed by it.
    pub const COUNT: u16 = 1024;

    /// The group of a key with this hash.
    ///
    /// It is taken from bits 32 to 41. A hash table of a shard finds its buckets by the lowest bits and tells
    /// entries apart by the highest seven; a shard owns neighbouring groups, so a group in either end would fix
    /// bits that the table needs, and its buckets would crowd.
    ///
    /// ```
    /// use tidemill::state::group::KeyGroup;
    /// assert_eq!(KeyGroup::of(5 << 32), KeyGroup(5));
    /// ```
    pub fn of(hash: u64) -> Self {
        Self(u16::try_from((hash >> 32) % u64::from(Self::COUNT)).unwrap_or_default())
    }

    /// The shard that works on this group, where the groups are dealt to `shards` shards in equal runs.
    ///
    /// ```
    /// use tidemill::state::group::KeyGroup;
    /// assert_eq!(KeyGroup(0).shard_of(8), 0);
    /// assert_eq!(KeyGroup(1023).shard_of(8), 7);
    /// ```
    pub fn shard_of(self, shards: usize) -> usize {
        usize::from(self.0) * shards / usize::from(Self::COUNT)
    }

    /// The groups of one of `shards` shards: exactly those that [`KeyGroup::shard_of`] sends there.
    ///
    /// ```
    /// use tidemill::state::group::KeyGroup;
    /// assert_eq!(KeyGroup::of_shard(1, 8), KeyGroup(128)..KeyGroup(256));
    /// ```
    pub fn of_shard(shard: usize, shards: usize) -> Range<Self> {
        let first = |shard: usize| {
            let group = (shard * usize::from(Self::COUNT)).div_ceil(shards.max(1));
            Self(u16::try_from(group).unwrap_or(Self::COUNT).min(Self::COUNT))
        };
        first(shard)..first(shard + 1)
    }
}

impl fmt::Display for KeyGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::KeyGroup;

    #[test]
    fn every_group_belongs_to_the_range_of_its_shard() {
        for shards in [1, 2, 3, 7, 8, 100, 1024, 3000] {
            for group in (0..KeyGroup::COUNT).map(KeyGroup) {
                assert!(
                    KeyGroup::of_shard(group.shard_of(shards), shards).contains(&group),
                    "{group} of {shards}"
                );
            }
        }
    }

    #[test]
    fn a_group_is_bits_32_to_41_of_the_hash() {
        assert_eq!(KeyGroup::of(0xdead_be87_0000_1234), KeyGroup(0x287));
        assert_eq!(KeyGroup::of(u64::MAX), KeyGroup(1023));
    }
}
