//! Keys to dense slot numbers: where the state of a key stands in an operator's columns.
//!
//! Slots are numbered 0, 1, 2, … in the order in which keys first came; a slot is never given up. This file
//! deliberately holds no state: the columns are the operator's, with one row a slot.

use arrow::array::BinaryArray;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;

use crate::error::{Error, Result};
use crate::state::group::KeyGroup;
use crate::state::key::{Form, Keys, null_key};

/// Every key that was seen, with its slot.
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
#[derive(Clone, Debug, Default)]
pub struct KeyTable {
    index: HashTable<u32>,
    entries: Vec<Entry>,
    arena: Vec<u8>, // the bytes of all keys, in order of slots
}

/// The hash is kept: it settles nearly all comparisons, and growing the index reads no key.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    start: usize,
    length: u32,
}

impl KeyTable {
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
        self.index.allocation_size() + self.entries.capacity() * size_of::<Entry>() + self.arena.capacity()
    }

    /// Puts the slot of each row's key into `slots`, which is emptied first; a key not seen before gets the next.
    pub fn slots(&mut self, keys: &Keys, slots: &mut Vec<u32>) -> Result<()> {
        slots.clear();
        slots.reserve(keys.len());
        let hashes = keys.hashes().iter().copied();
        match keys.form() {
            Form::Text(array) => self.fill(hashes.zip(array.iter().map(text)), slots),
            Form::View(array) => self.fill(hashes.zip(array.iter().map(text)), slots),
            Form::Packed(array) => {
                self.fill(hashes.zip(array.iter().map(|key| key.unwrap_or(null_key()))), slots)
            }
            Form::Integer(array) => self.fill_integers(hashes.zip(array), slots),
        }
    }

    fn fill<'a>(&mut self, rows: impl Iterator<Item = (u64, &'a [u8])>, slots: &mut Vec<u32>) -> Result<()> {
        for (hash, key) in rows {
            slots.push(self.slot(hash, key)?);
        }
        Ok(())
    }

    /// The bytes of integers live for a row only; read from their column's buffer they cost a bounds check more each.
    fn fill_integers(
        &mut self,
        rows: impl Iterator<Item = (u64, Option<i64>)>,
        slots: &mut Vec<u32>,
    ) -> Result<()> {
        for (hash, key) in rows {
            slots.push(match key {
                Some(key) => self.slot(hash, &key.to_le_bytes())?,
                None => self.slot(hash, null_key())?,
            });
        }
        Ok(())
    }

    /// The slot of one key, a new one if need be.
    #[inline]
    pub(super) fn slot(&mut self, hash: u64, key: &[u8]) -> Result<u32> {
        let Self { index, entries, arena } = self;
        let same = |slot: &u32| {
            entries.get(*slot as usize).is_some_and(|entry| entry.hash == hash && entry.key(arena) == key)
        };
        match index.entry(hash, same, |slot| entries.get(*slot as usize).map_or(0, |entry| entry.hash)) {
            Place::Occupied(place) => Ok(*place.get()),
            Place::Vacant(place) => {
                let (slot, length) = (next_slot(entries.len())?, length_of(key)?);
                place.insert(slot);
                entries.push(Entry { hash, start: arena.len(), length });
                arena.extend_from_slice(key);
                Ok(slot)
            }
        }
    }

    /// The key in a slot; none where no key has it.
    pub fn key(&self, slot: u32) -> Option<&[u8]> {
        self.entries.get(slot as usize).map(|entry| entry.key(&self.arena))
    }

    /// The hash of the key in a slot; none where no key has it.
    pub fn hash(&self, slot: u32) -> Option<u64> {
        self.entries.get(slot as usize).map(|entry| entry.hash)
    }

    /// All slots by key group, and within a group by the bytes of the key: an order that does not depend on which
    /// key came first.
    pub fn sorted(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..).take(self.len()).collect();
        order.sort_unstable_by_key(|slot| (self.hash(*slot).map(KeyGroup::of), self.key(*slot)));
        order
    }

    /// The keys in these slots, in this order.
    pub(super) fn keys(&self, slots: &[u32]) -> Result<BinaryArray> {
        if i32::try_from(self.arena.len()).is_err() {
            let message =
                format!("the keys of one snapshot were expected to fit 2 GiB, found {} B", self.arena.len());
            return Err(Error::memory_limit(message).help("use more shards or shorter keys"));
        }
        Ok(slots.iter().map(|slot| self.key(*slot)).collect())
    }
}

impl Entry {
    #[inline]
    fn key(self, arena: &[u8]) -> &[u8] {
        arena.get(self.start..self.start + self.length as usize).unwrap_or_default()
    }
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
