//! Which partition a record goes to, decided here so that every language and every attempt decides alike.
//!
//! It deliberately does not ask which partitions have a leader: a record that moves because a broker was down would
//! leave its key's order, and a batch that is delivered again would not come to the same place.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::time::BatchId;

/// How a key chooses its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Partitioner {
    /// As the Java client's default: topics that Java programs write stay co-partitioned with ours.
    #[default]
    Murmur2,
}

/// So many rows without key stay together: a small batch is one request to one broker, as with Java's sticky
/// partitioner, and a large one still spreads evenly.
const STICKY_ROWS: u64 = 256;

impl Partitioner {
    /// The partition of a record with key `key`, out of `partitions`.
    ///
    /// ```
    /// use tidemill::sink::kafka::Partitioner;
    /// assert_eq!(Partitioner::Murmur2.partition(b"21", 5), 0);
    /// ```
    pub fn partition(self, key: &[u8], partitions: i32) -> i32 {
        match self {
            Self::Murmur2 => (murmur2(key) & i32::MAX) % partitions.max(1),
        }
    }
}

/// The partition of a row without key: a hash of the batch and the row's run, the same however often it is sent.
pub(super) fn keyless(batch: BatchId, row: u64, partitions: i32) -> i32 {
    let hash = xxh3_64_with_seed(&(row / STICKY_ROWS).to_le_bytes(), batch.0);
    let count = u64::from(partitions.max(1).unsigned_abs());
    i32::try_from(hash % count).unwrap_or(0)
}

/// The mixing constants of `MurmurHash2`, and the seed that the Java client gives it.
const M: u32 = 0x5bd1_e995;
const SEED: u32 = 0x9747_b28c;

/// `org.apache.kafka.common.utils.Utils.murmur2`, in Java's signed arithmetic.
fn murmur2(data: &[u8]) -> i32 {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let words = data.chunks_exact(4);
    let rest = words.remainder();
    let mixed = words.fold(SEED ^ length, |hash, word| {
        let word = word.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte));
        let k = word.wrapping_mul(M);
        hash.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M)
    });
    finish(tail(mixed, rest)).cast_signed()
}

fn tail(hash: u32, rest: &[u8]) -> u32 {
    match rest {
        [] => hash,
        rest => {
            (hash ^ rest.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte))).wrapping_mul(M)
        }
    }
}

fn finish(hash: u32) -> u32 {
    let hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::{keyless, murmur2};
    use crate::time::BatchId;

    #[test]
    fn murmur2_gives_the_java_clients_own_test_vectors() {
        let golden: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in golden {
            assert_eq!(murmur2(key), hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn rows_without_key_go_to_the_same_place_again_and_spread() {
        let of = |batch| (0..100_000_u64).map(|row| keyless(BatchId(batch), row, 4)).collect::<Vec<_>>();
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let rows = of(7);
        for partition in 0..4 {
            let share = rows.iter().filter(|at| **at == partition).count();
            assert!((15_000..35_000).contains(&share), "partition {partition} got {share} of 100,000");
        }
    }
}
