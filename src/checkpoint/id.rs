//! The numbers and names that the objects of a checkpoint carry: who wrote them, and where they belong.
//!
//! It deliberately draws no random number: whoever makes a new name passes the randomness in, so that a simulation
//! has the same names each time.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

macro_rules! uuids {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// A new one, from random bytes: a UUID of version 4.
            #[must_use]
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(version_4(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let found = read_uuid(text).map(Self);
                found.ok_or_else(|| unreadable($what, "a UUID in lower case with its hyphens", text))
            }
        }
    )*};
}

uuids! {
    /// A job, from its first start to its last; restoring a savepoint makes another job.
    ///
    /// ```
    /// use tidemill::checkpoint::id::JobId;
    /// let job = JobId::from_random([0xff; 16]);
    /// assert_eq!(job.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    /// assert_eq!(job.to_string().parse::<JobId>()?, job);
    /// assert!("FFFFFFFF-ffff-4fff-bfff-ffffffffffff".parse::<JobId>().is_err());
    /// # Ok::<(), tidemill::error::Error>(())
    /// ```
    JobId, "job";
    /// One driver: one start of one process.
    DriverId, "driver";
    /// What is on a replica since it was last made a voter. A replica that was wiped and taken in again has another, so
    /// that what it once acknowledged and has lost is never counted.
    Incarnation, "incarnation";
}

/// A driver's term. A later driver has a larger one; objects of different epochs never share a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The number of a slot within an epoch's log, from 0, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The BLAKE3 hash of a chunk's content, before compression: the same bytes have the same one whoever wrote them.
///
/// ```
/// use tidemill::checkpoint::id::ChunkHash;
/// let hash = ChunkHash::of(b"state");
/// assert_eq!(hash.to_string().parse::<ChunkHash>()?, hash);
/// assert_ne!(hash, ChunkHash::of(b"State"));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkHash(pub [u8; 32]);

impl ChunkHash {
    /// The hash of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

impl fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkHash({self})")
    }
}

impl FromStr for ChunkHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = read_hash(text).map(Self);
        found.ok_or_else(|| unreadable("chunk", "64 hexadecimal digits in lower case", text))
    }
}

/// Sets what tells a UUID of version 4 from others.
fn version_4(bytes: [u8; 16]) -> u128 {
    const VERSION: (u128, u128) = (0xf << 76, 0x4 << 76);
    const VARIANT: (u128, u128) = (0x3 << 62, 0x2 << 62);
    let number = u128::from_be_bytes(bytes);
    (number & !VERSION.0 & !VARIANT.0) | VERSION.1 | VARIANT.1
}

/// Where the hyphens of a UUID stand.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

fn write_uuid(number: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let half = |from: u32| u64::try_from((number >> from) & u128::from(u64::MAX)).unwrap_or_default();
    let (high, low) = (half(64), half(0));
    let (first, second, third) = (high >> 32, (high >> 16) & 0xffff, high & 0xffff);
    write!(f, "{first:08x}-{second:04x}-{third:04x}-{:04x}-{:012x}", low >> 48, low & 0xffff_ffff_ffff)
}

fn read_uuid(text: &str) -> Option<u128> {
    let read = |number: u128, (place, byte): (usize, u8)| match (HYPHENS.contains(&place), byte) {
        (true, b'-') => Some(number),
        (true, _) => None,
        (false, byte) => Some((number << 4) | u128::from(digit(byte)?)),
    };
    if text.len() == 36 { text.bytes().enumerate().try_fold(0, read) } else { None }
}

fn read_hash(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(hash)
}

/// One way to write each name: upper case would be a second.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn unreadable(what: &str, expected: &str, found: &str) -> Error {
    Error::new(ErrorKind::Checkpoint, format!("the name of a {what} is {expected}, found {found:?}"))
}
