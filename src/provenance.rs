//! Where a row comes from, as one number: by it a sample keeps a row or drops it, in every run alike.
//!
//! It follows from the record (topic, partition and offset) and from what operators made of that, and deliberately from
//! nothing else: no batch boundary, no thread and no executor shows in it. The hash is XXH3, which is frozen, so a
//! sample is the same in every version and on every machine.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::offset::TopicPartition;

/// Where a row comes from.
///
/// ```
/// use tidemill::offset::TopicPartition;
/// use tidemill::provenance::{Descent, Provenance};
///
/// let records = Provenance::of_partition(&TopicPartition::new("readings", 3));
/// let (seventh, eighth) = (records.of_record(7), records.of_record(8));
/// assert_ne!(seventh, eighth);
/// assert_ne!(seventh.by(Descent::Element, 0), seventh, "an element of a row's list is another row");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Provenance(pub u64);

/// How a row was made of the one that it comes from. Each way has numbers of its own, so that rows that came different
/// ways are kept or dropped independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// It has this one of the elements of a list.
    Element = 1,
    /// It passed a union, as a row of this one of its inputs.
    Input = 2,
    /// It passed a sample: the next one, of whatever seed, draws anew.
    Sample = 3,
    /// It is this one of the rows that a function made of its batch, of which this is the first.
    Result = 4,
    /// It is the result of its key in this batch.
    Batch = 5,
}

impl Provenance {
    /// Where the records of a partition come from.
    pub fn of_partition(at: &TopicPartition) -> Self {
        Self(xxh3_64_with_seed(at.topic.as_str().as_bytes(), u64::from(at.partition.0.cast_unsigned())))
    }

    /// Of all records of a partition, the one at this offset.
    #[must_use]
    pub fn of_record(self, offset: i64) -> Self {
        Self(xxh3_64_with_seed(&offset.to_le_bytes(), self.0))
    }

    /// What a row comes from that was made of this one, in this way, with this number.
    #[must_use]
    pub fn by(self, descent: Descent, number: u64) -> Self {
        let bytes = ((u128::from(number) << 8) | u128::from(descent as u8)).to_le_bytes();
        Self(xxh3_64_with_seed(bytes.get(..9).unwrap_or(&bytes), self.0)) // the others are zeros
    }
}

/// Which rows a sample keeps: of all rows about a fraction, each or not whatever the others.
///
/// ```
/// use tidemill::provenance::{Draw, Provenance};
/// let draw = Draw::new(0.25, 7);
/// let kept = (0..10_000).filter(|record| draw.keeps(Provenance(0).of_record(*record))).count();
/// assert!((2_400..2_600).contains(&kept), "{kept}");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    seed: u64,
    /// Rows whose hash is below this are kept: one more than any hash where all are.
    below: u128,
}

/// As many values as a hash can have.
const HASHES: f64 = 18_446_744_073_709_551_616.0;

impl Draw {
    /// The fraction is from 0 to 1; what lies beyond counts as the nearer of them.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float is cast to the nearest number that there is, and never beyond 2⁶⁴ here"
    )]
    pub fn new(fraction: f64, seed: i64) -> Self {
        Self { seed: seed.cast_unsigned(), below: (fraction.min(1.0) * HASHES) as u128 }
    }

    /// Whether a row that comes from there is kept.
    pub fn keeps(&self, row: Provenance) -> bool {
        u128::from(xxh3_64_with_seed(&row.0.to_le_bytes(), self.seed)) < self.below
    }
}
