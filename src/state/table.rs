//! Keys to dense slot numbers: where the state of a key stands in an operator's columns.
//!
//! Slots are numbered 0, 1, 2, … in the order in which keys first came; a slot is never given up. This file
//! deliberately holds no state: the columns are the operator's, with one row a slot.

use arrow::array::{BinaryArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;

use crate::error::{Error, Result};
use crate::state::group::KeyGroup;
use crate::state::key::{Form, Keys, null_key};

/// Every key that was seen, with its slot. Where the same key may have several slots, a tag tells them apart.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Int64Array, RecordBatch};
/// use tidemill::state::key::KeyEncoder;
/// use tidemill::state::table::KeyTable;
///
/// let rows = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![7, 9, 7])) as _)])?;
/// let keys = KeyEncoder::new(&rows.schema(), &["id"])?.encode(&rows)?;
/// let (mut table, mut slots) = (KeyTable::default(), Vec::new());
/// table.slots(&keys, &mut slots)?;
/// assert_eq!(slots, [0, 1, 0]);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyTable<T = ()> {
    index: HashTable<u32>,
    entries: Vec<Entry<T>>,
    arena: Vec<u8>, // the bytes of all keys, in order of slots
}

impl<T> Default for KeyTable<T> {
    fn default() -> Self {
        Self { index: HashTable::new(), entries: Vec::new(), arena: Vec::new() }
    }
}

/// What tells the slots of one key apart.
pub trait Tag: Copy + Eq {
    /// Spreads the hash of a key, so that the slots of one key lie apart in the index.
    fn spread(self, hash: u64) -> u64;
}

impl Tag for () {
    #[inline]
    fn spread(self, hash: u64) -> u64 {
        hash
    }
}

impl Tag for i64 {
    /// Fibonacci hashing: neighbouring numbers land far apart.
    #[inline]
    fn spread(self, hash: u64) -> u64 {
        hash ^ self.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The hash is kept: it settles nearly all comparisons, and growing the index reads no key.
#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    hash: u64,
    start: usize,
    length: u32,
    tag: T,
}

impl KeyTable {
    /// Puts the slot of each row's key into `slots`, which is emptied first; a key not seen before gets the next.
    pub fn slots(&mut self, keys: &Keys, slots: &mut Vec<u32>) -> Result<()> {
        self.tagged_slots(keys, std::iter::repeat(()), slots)
    }

    /// Takes in the keys of `other`; `slots` are then those that they have here, in the order of theirs there.
    pub fn absorb(&mut self, other: &Self, slots: &mut Vec<u32>) -> Result<()> {
        self.absorb_entries(other, other.entries.iter(), slots)
    }

    /// Takes in the keys in the slots `there` of `other`; `slots` are then those that they have here, in this order.
    pub fn absorb_some(&mut self, other: &Self, there: &[u32], slots: &mut Vec<u32>) -> Result<()> {
        let entries = there.iter().filter_map(|slot| other.entries.get(*slot as usize));
        self.absorb_entries(other, entries, slots)
    }

    fn absorb_entries<'a>(
        &mut self,
        other: &Self,
        entries: impl Iterator<Item = &'a Entry<()>>,
        slots: &mut Vec<u32>,
    ) -> Result<()> {
        slots.clear();
        for entry in entries {
            slots.push(self.slot(entry.hash, entry.key(&other.arena))?);
        }
        Ok(())
    }

    /// The keys that are in both: their slots here, and in `other`. It costs what the smaller of them has.
    pub fn common(&self, other: &Self) -> (Vec<u32>, Vec<u32>) {
        if self.len() <= other.len() {
            return self.found_in(other);
        }
        let (there, here) = other.found_in(self);
        (here, there)
    }

    fn found_in(&self, other: &Self) -> (Vec<u32>, Vec<u32>) {
        let there = |entry: &Entry<()>| other.find(entry.hash, entry.key(&self.arena));
        (0..).zip(&self.entries).filter_map(|(slot, entry)| Some((slot, there(entry)?))).unzip()
    }

    /// Whether the key in the slot `there` of `other` is here too.
    pub fn has_key_of(&self, other: &Self, there: u32) -> bool {
        let entry = other.entries.get(there as usize);
        entry.is_some_and(|entry| self.find(entry.hash, entry.key(&other.arena)).is_some())
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let same = |slot: &u32| {
            self.entries
                .get(*slot as usize)
                .is_some_and(|entry| entry.hash == hash && entry.key(&self.arena) == key)
        };
        self.index.find(hash, same).copied()
    }

    /// The slot of one key, a new one if need be.
    pub(super) fn slot(&mut self, hash: u64, key: &[u8]) -> Result<u32> {
        self.tagged_slot(hash, key, ())
    }
}

impl<T: Tag> KeyTable<T> {
    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key has been seen.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes that the table occupies, unused capacity included.
    pub fn bytes(&self) -> usize {
        self.index.allocation_size() + self.entries.capacity() * size_of::<Entry<T>>() + self.arena.capacity()
    }

    /// Puts the slot of each row's key and tag into `slots`, which is emptied first; one not seen before gets the next.
    pub fn tagged_slots(
        &mut self,
        keys: &Keys,
        tags: impl Iterator<Item = T>,
        slots: &mut Vec<u32>,
    ) -> Result<()> {
        slots.clear();
        slots.reserve(keys.len());
        let rows = keys.hashes().iter().copied().zip(tags);
        match keys.form() {
            Form::Text(array) => self.fill(rows.zip(array.iter().map(text)), slots),
            Form::View(array) => self.fill(rows.zip(array.iter().map(text)), slots),
            Form::Packed(array) => {
                self.fill(rows.zip(array.iter().map(|key| key.unwrap_or(null_key()))), slots)
            }
            Form::Integer(array) => self.fill_integers(rows.zip(array), slots),
        }
    }

    fn fill<'a>(
        &mut self,
        rows: impl Iterator<Item = ((u64, T), &'a [u8])>,
        slots: &mut Vec<u32>,
    ) -> Result<()> {
        for ((hash, tag), key) in rows {
            slots.push(self.tagged_slot(hash, key, tag)?);
        }
        Ok(())
    }

    /// The bytes of integers live for a row only; read from their column's buffer they cost a bounds check more each.
    fn fill_integers(
        &mut self,
        rows: impl Iterator<Item = ((u64, T), Option<i64>)>,
        slots: &mut Vec<u32>,
    ) -> Result<()> {
        for ((hash, tag), key) in rows {
            slots.push(match key {
                Some(key) => self.tagged_slot(hash, &key.to_le_bytes(), tag)?,
                None => self.tagged_slot(hash, null_key(), tag)?,
            });
        }
        Ok(())
    }

    #[inline]
    fn tagged_slot(&mut self, hash: u64, key: &[u8], tag: T) -> Result<u32> {
        let Self { index, entries, arena } = self;
        let same = |slot: &u32| {
            entries
                .get(*slot as usize)
                .is_some_and(|entry| entry.hash == hash && entry.tag == tag && entry.key(arena) == key)
        };
        let spread = |slot: &u32| entries.get(*slot as usize).map_or(0, |entry| entry.tag.spread(entry.hash));
        match index.entry(tag.spread(hash), same, spread) {
            Place::Occupied(place) => Ok(*place.get()),
            Place::Vacant(place) => {
                let (slot, length) = (next_slot(entries.len())?, length_of(key)?);
                place.insert(slot);
                entries.push(Entry { hash, start: arena.len(), length, tag });
                arena.extend_from_slice(key);
                Ok(slot)
            }
        }
    }

    /// The tag in a slot; none where no key has it.
    pub fn tag(&self, slot: u32) -> Option<T> {
        self.entries.get(slot as usize).map(|entry| entry.tag)
    }

    /// The key in a slot; none where no key has it.
    pub fn key(&self, slot: u32) -> Option<&[u8]> {
        self.entries.get(slot as usize).map(|entry| entry.key(&self.arena))
    }

    /// The hash of the key in a slot; none where no key has it.
    pub fn hash(&self, slot: u32) -> Option<u64> {
        self.entries.get(slot as usize).map(|entry| entry.hash)
    }

    /// All slots, in the order in which their keys came.
    pub fn all_slots(&self) -> Vec<u32> {
        (0..).take(self.len()).collect()
    }

    /// All slots by key group, and within a group by the bytes of the key: an order that does not depend on which
    /// key came first.
    pub fn sorted(&self) -> Vec<u32> {
        let mut order = self.all_slots();
        self.sort(&mut order);
        order
    }

    /// Puts these slots in the order of [`Self::sorted`].
    ///
    /// The group and the first bytes of a key settle nearly every comparison: in one number beside its slot they are
    /// sorted in the cache, where looking up entry and key each time would miss it twice a comparison.
    pub fn sort(&self, slots: &mut [u32]) {
        let ranked = |slot: &u32| (self.rank(*slot), *slot);
        let mut order: Vec<(u64, u32)> = slots.iter().map(ranked).collect();
        order.sort_unstable_by(|(a, left), (b, right)| {
            a.cmp(b).then_with(|| self.key(*left).cmp(&self.key(*right)))
        });
        slots.iter_mut().zip(order).for_each(|(slot, (_, sorted))| *slot = sorted);
    }

    fn rank(&self, slot: u32) -> u64 {
        rank_of(self.hash(slot).unwrap_or_default(), self.key(slot).unwrap_or_default())
    }

    /// The keys in these slots, with their hashes, for another table.
    pub fn keys_of(&self, slots: &[u32]) -> Result<Keys> {
        let hashes = slots.iter().filter_map(|slot| self.hash(*slot)).collect();
        Ok(Keys::canonical(self.keys(slots)?, hashes))
    }

    /// The keys in these slots, in this order.
    pub(super) fn keys(&self, slots: &[u32]) -> Result<BinaryArray> {
        let lengths =
            slots.iter().filter_map(|slot| self.entries.get(*slot as usize)).map(|entry| entry.length);
        let bytes: usize = lengths.map(|length| length as usize).sum();
        if i32::try_from(bytes).is_err() {
            let message = format!("the keys of one snapshot were expected to fit 2 GiB, found {bytes} B");
            return Err(Error::memory_limit(message).help("use more shards or shorter keys"));
        }
        let (mut offsets, mut values) = (Vec::with_capacity(slots.len() + 1), Vec::with_capacity(bytes));
        offsets.push(0);
        for slot in slots {
            values.extend_from_slice(self.key(*slot).unwrap_or_default());
            offsets.push(i32::try_from(values.len()).unwrap_or(i32::MAX));
        }
        Ok(BinaryArray::try_new(OffsetBuffer::new(offsets.into()), values.into(), None)?)
    }

    /// The keys in these slots and their hashes, as they are now.
    pub fn copied(&self, slots: &[u32]) -> Result<CopiedKeys> {
        let hash = |slot: &u32| self.hash(*slot).unwrap_or_default();
        let hashes: Vec<u64> = slots.iter().map(hash).collect();
        Ok(CopiedKeys { keys: self.keys(slots)?, hashes: hashes.into() })
    }
}

impl KeyTable {
    /// The table of these keys, none of which comes twice, in slots 0, 1, 2, …
    pub(super) fn of_distinct(keys: &BinaryArray, hashes: &[u64]) -> Result<Self> {
        let mut table = Self {
            index: HashTable::with_capacity(hashes.len()),
            entries: Vec::with_capacity(hashes.len()),
            arena: Vec::with_capacity(keys.value_data().len()),
        };
        for (row, hash) in hashes.iter().enumerate() {
            let key = keys.value(row);
            let (slot, length) = (next_slot(table.entries.len())?, length_of(key)?);
            table.entries.push(Entry { hash: *hash, start: table.arena.len(), length, tag: () });
            table.arena.extend_from_slice(key);
            let Self { index, entries, .. } = &mut table;
            let spread = |slot: &u32| entries.get(*slot as usize).map_or(0, |entry| entry.hash);
            index.insert_unique(*hash, slot, spread);
        }
        Ok(table)
    }
}

/// Keys that were copied out of a table, to be put in order while the table goes on.
#[derive(Clone, Debug)]
pub struct CopiedKeys {
    pub(super) keys: BinaryArray,
    pub(super) hashes: UInt64Array,
}

impl CopiedKeys {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Their places by key group, and within a group by the bytes of the key.
    pub fn order(&self) -> Vec<u32> {
        let key = |place: u32| self.keys.value(place as usize);
        let ranked = |(place, hash): (u32, &u64)| (rank_of(*hash, key(place)), place);
        let mut order: Vec<(u64, u32)> = (0..).zip(self.hashes.values()).map(ranked).collect();
        order.sort_unstable_by(|(a, left), (b, right)| a.cmp(b).then_with(|| key(*left).cmp(key(*right))));
        order.into_iter().map(|(_, place)| place).collect()
    }
}

impl<T: Copy> Entry<T> {
    #[inline]
    fn key(self, arena: &[u8]) -> &[u8] {
        arena.get(self.start..self.start + self.length as usize).unwrap_or_default()
    }
}

/// The group, and as much of the key's beginning as fits behind it.
fn rank_of(hash: u64, key: &[u8]) -> u64 {
    const GROUP_BITS: u32 = KeyGroup::COUNT.ilog2();
    let mut beginning = [0; 8];
    beginning.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    u64::from(KeyGroup::of(hash).0) << (u64::BITS - GROUP_BITS) | u64::from_be_bytes(beginning) >> GROUP_BITS
}

fn text(key: Option<&str>) -> &[u8] {
    key.map_or(null_key(), str::as_bytes)
}

fn next_slot(keys: usize) -> Result<u32> {
    u32::try_from(keys).map_err(|_| {
        Error::memory_limit("a shard was expected to hold at most 4,294,967,296 keys, one more came")
            .help("use more shards")
    })
}

fn length_of(key: &[u8]) -> Result<u32> {
    u32::try_from(key.len()).map_err(|_| {
        Error::data(format!("a key was expected to be shorter than 4 GiB, found {} B", key.len()))
    })
}
