//! The container of every object: what it is, where it belongs, and proof that no byte of it has changed.
//!
//! It deliberately does no I/O and knows nothing of what a payload means. [`open`] hands out a payload only once every
//! byte of the object has been verified; nothing is decoded, decompressed or believed before. Bytes may come from
//! anyone: whatever they are, `open` does not panic, and allocates little more than [`MAX_PAYLOAD`].
//!
//! # Format 1 (numbers little-endian)
//!
//! ```text
//! at   length
//!  0        8   TIDEMILL
//!  8        2   format version
//! 10        1   kind
//! 11        1   encoding of the payload: 0 as it is, 1 one zstd frame
//! 12        4   0
//! 16       16   job
//! 32        8   epoch
//! 40        8   index; 0 for claims and chunks
//! 48       16   writer
//! 64        8   length of the payload here
//! 72        8   length of the payload once it is decompressed
//! 80        8   name of the checkpoint key; 0 without one
//! 88        4   0
//! 92        4   CRC32C of the 92 bytes before
//! 96        …   payload
//!  …       32   BLAKE3 of header and payload, keyed where there is a key
//!  …        8   LLIMEDIT
//! ```
//!
//! The first ten bytes, and the CRC at 92, stay where they are in every later version: so a newer object is told from a
//! damaged one.

use std::fmt;

use bytes::Bytes;

pub use super::id::{ChunkHash, DriverId, Epoch, Incarnation, Index, JobId};
pub use super::secret::CheckpointKey;

/// The most bytes that a payload may have, once it is decompressed.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// How much longer an object is than its payload.
pub const OVERHEAD: usize = HEADER + HASH + MAGIC.len();

/// The most bytes that an object may have; no replica takes a longer one.
pub const MAX_OBJECT: usize = MAX_PAYLOAD + OVERHEAD;

const MAGIC: &[u8; 8] = b"TIDEMILL";
const END: &[u8; 8] = b"LLIMEDIT";
const FORMAT: u16 = 1;
const HEADER: usize = 96;
const HASH: usize = blake3::OUT_LEN;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Who owns an epoch.
    Claim,
    /// The first entry of an epoch's log: all that a driver needs to go on.
    Start,
    /// The ranges of a batch.
    Plan,
    /// The decided outcome of a batch, before its output is committed.
    Prepare,
    /// A batch that is done.
    Commit,
    /// Positions and state, of a stream that delivers at least once.
    Checkpoint,
    /// A sign of life.
    Noop,
    /// A replica that votes again.
    Readmit,
    /// The stream was stopped on purpose.
    Stopped,
    /// The end of an epoch's log on one replica: nothing may follow.
    Seal,
    /// A piece of state, received records or output, named by its hash.
    Chunk,
}

/// Every kind with the byte that stands for it, for ever.
const KINDS: [(Kind, u8); 11] = [
    (Kind::Claim, 1),
    (Kind::Start, 2),
    (Kind::Plan, 3),
    (Kind::Prepare, 4),
    (Kind::Commit, 5),
    (Kind::Checkpoint, 6),
    (Kind::Noop, 7),
    (Kind::Readmit, 8),
    (Kind::Stopped, 9),
    (Kind::Seal, 10),
    (Kind::Chunk, 11),
];

impl Kind {
    fn byte(self) -> u8 {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, byte)| *byte)
    }

    fn of(byte: u8) -> Option<Self> {
        KINDS.iter().find(|(_, known)| *known == byte).map(|(kind, _)| *kind)
    }

    /// Whether such an object stands in a slot of the log.
    pub fn is_entry(self) -> bool {
        !matches!(self, Self::Claim | Self::Chunk)
    }
}

/// What an object says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// The job that it belongs to.
    pub job: JobId,
    /// The epoch that it belongs to.
    pub epoch: Epoch,
    /// Its slot in the epoch's log; 0 for a claim and a chunk.
    pub index: Index,
    /// Who wrote it.
    pub writer: DriverId,
}

/// Where an object stands, below a replica's incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The claim of an epoch.
    Claim(Epoch),
    /// A slot of an epoch's log.
    Slot(Epoch, Index),
    /// A chunk.
    Chunk(Epoch, ChunkHash),
}

/// What an object that is read from a place must say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The job.
    pub job: JobId,
    /// The place that it was read from.
    pub place: Place,
}

/// A verified object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it says of itself.
    pub header: Header,
    /// Its payload, decompressed: a view of the object's bytes where it was not compressed.
    pub payload: Bytes,
}

/// Why bytes are not the object that was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damaged {
    /// It is not as long as it says, or shorter than any object.
    Length {
        /// How long it should be; at least so long, where nothing tells how long.
        expected: u64,
        /// How long it is.
        found: u64,
    },
    /// It does not begin or end as every object does.
    Mark,
    /// The header's checksum does not match.
    Header,
    /// The header is whole, and says something that no header says.
    Field(&'static str),
    /// The hash of header and payload does not match.
    Hash,
    /// The object belongs to another place.
    Place {
        /// What differs.
        field: &'static str,
        /// What the place asks for.
        expected: String,
        /// What the object says.
        found: String,
    },
    /// The frame does not decompress to the length that the header says.
    Frame,
    /// It is of a later format: perhaps whole, but not for this version of the library.
    Format(u16),
    /// It was sealed with a checkpoint key, and none was given.
    KeyMissing,
    /// It was sealed without a checkpoint key, and one was given: anyone may have written it.
    KeyAbsent,
    /// It was sealed with another checkpoint key than the one that was given.
    KeyDiffers,
}

impl Damaged {
    /// Whether the object may be whole, and the reader lacks what it takes to tell: the key, or a later version. Such an
    /// object must not be repaired.
    pub fn is_unreadable_here(&self) -> bool {
        matches!(self, Self::Format(_) | Self::KeyMissing | Self::KeyAbsent | Self::KeyDiffers)
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => write!(f, "it has {found} bytes where {expected} are due"),
            Self::Mark => f.write_str("it does not begin and end as an object of a checkpoint does"),
            Self::Header => f.write_str("its header's checksum does not match"),
            Self::Field(field) => write!(f, "its header is whole, but its {field} is none that exists"),
            Self::Hash => f.write_str("its hash does not match"),
            Self::Place { field, expected, found } => {
                write!(f, "it belongs elsewhere: its {field} is {found}, not {expected}")
            }
            Self::Frame => f.write_str("its payload does not decompress to the length that its header says"),
            Self::Format(found) => write!(
                f,
                "it is of format {found}, and this version reads formats up to {FORMAT}; upgrade tidemill"
            ),
            Self::KeyMissing => f.write_str("it was sealed with a key; pass checkpoint_key"),
            Self::KeyAbsent => f.write_str(
                "it was sealed without a key, so anyone may have written it; leave checkpoint_key out to read it",
            ),
            Self::KeyDiffers => f.write_str("it was sealed with another key; pass that one as checkpoint_key"),
        }
    }
}

impl std::error::Error for Damaged {}

/// The object with `payload` as it is.
///
/// ```
/// use tidemill::checkpoint::container::*;
/// let header = Header { kind: Kind::Noop, job: JobId(7), epoch: Epoch(1), index: Index(3), writer: DriverId(9) };
/// let bytes = seal(&header, b"still here", None);
/// let expected = Expected { job: JobId(7), place: Place::Slot(Epoch(1), Index(3)) };
/// let object = open(&bytes, &expected, None).unwrap();
/// assert_eq!((object.header, &object.payload[..]), (header, &b"still here"[..]));
///
/// let elsewhere = Expected { job: JobId(7), place: Place::Slot(Epoch(1), Index(4)) };
/// assert_eq!(open(&bytes, &elsewhere, None).unwrap_err().to_string(), "it belongs elsewhere: its index is 3, not 4");
/// ```
pub fn seal(header: &Header, payload: &[u8], secret: Option<&CheckpointKey>) -> Bytes {
    enclose(header, Encoding::Plain, payload, payload.len(), secret)
}

/// The object with `payload` compressed, where that makes it shorter.
///
/// The bytes may differ from one version of zstd to the next: whoever puts an object again keeps its bytes.
///
/// ```
/// use tidemill::checkpoint::container::*;
/// let content = [7; 10_000];
/// let header = Header { kind: Kind::Chunk, job: JobId(7), epoch: Epoch(1), index: Index(0), writer: DriverId(9) };
/// let bytes = seal_compressed(&header, &content, None);
/// assert!(bytes.len() < 1_000);
/// let expected = Expected { job: JobId(7), place: Place::Chunk(Epoch(1), ChunkHash::of(&content)) };
/// assert_eq!(&open(&bytes, &expected, None).unwrap().payload[..], content);
/// ```
pub fn seal_compressed(header: &Header, payload: &[u8], secret: Option<&CheckpointKey>) -> Bytes {
    // What is longer could not be opened, and no replica takes it: it is left as it is, for that error.
    let compressed = (payload.len() <= MAX_PAYLOAD).then(|| zstd::bulk::compress(payload, ZSTD_LEVEL));
    match compressed {
        Some(Ok(frame)) if frame.len() < payload.len() => {
            enclose(header, Encoding::Zstd, &frame, payload.len(), secret)
        }
        _ => seal(header, payload, secret),
    }
}

/// State compresses well and is written often.
const ZSTD_LEVEL: i32 = 1;

/// Verifies that `bytes` are the whole object that is `expected`.
pub fn open(bytes: &Bytes, expected: &Expected, secret: Option<&CheckpointKey>) -> Result<Object, Damaged> {
    let parts = Parts::of(bytes)?;
    let head = Head::read(parts.head)?;
    head.fits(parts.payload.len())?;
    parts.verify(head.key, secret)?;
    head.header.stands_at(expected)?;
    let payload = head.decompressed(bytes.slice_ref(parts.payload))?;
    names_content(expected.place, &payload)?;
    Ok(Object { header: head.header, payload })
}

/// How a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Zstd,
}

impl Encoding {
    fn byte(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Plain, Self::Zstd].into_iter().find(|encoding| encoding.byte() == byte)
    }
}

fn enclose(
    header: &Header,
    encoding: Encoding,
    stored: &[u8],
    uncompressed: usize,
    secret: Option<&CheckpointKey>,
) -> Bytes {
    let mut bytes = Vec::with_capacity(stored.len() + OVERHEAD);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[header.kind.byte(), encoding.byte(), 0, 0, 0, 0]);
    bytes.extend_from_slice(&header.job.0.to_be_bytes()); // in the order in which a UUID is written
    bytes.extend_from_slice(&header.epoch.0.to_le_bytes());
    bytes.extend_from_slice(&header.index.0.to_le_bytes());
    bytes.extend_from_slice(&header.writer.0.to_be_bytes());
    bytes.extend_from_slice(&(stored.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(uncompressed as u64).to_le_bytes());
    bytes.extend_from_slice(&secret.map_or(0, CheckpointKey::id).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.extend_from_slice(stored);
    let hash = hash(&bytes, secret);
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(END);
    Bytes::from(bytes)
}

fn hash(bytes: &[u8], secret: Option<&CheckpointKey>) -> blake3::Hash {
    let mut hasher = secret.map_or_else(blake3::Hasher::new, CheckpointKey::hasher);
    hasher.update(bytes).finalize()
}

/// The parts of an object, by the length that it has.
struct Parts<'a> {
    head: &'a [u8; HEADER],
    payload: &'a [u8],
    /// Header and payload.
    hashed: &'a [u8],
    hash: &'a [u8; HASH],
    end: &'a [u8; END.len()],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let parts = || {
            let (rest, end) = bytes.split_last_chunk()?;
            let (hashed, hash) = rest.split_last_chunk()?;
            let (head, payload) = hashed.split_first_chunk()?;
            Some(Self { head, payload, hashed, hash, end })
        };
        parts().ok_or(Damaged::Length { expected: OVERHEAD as u64, found: bytes.len() as u64 })
    }

    /// Whether the hash is that of header and payload, and the object ends behind it as it should.
    fn verify(&self, key: u64, secret: Option<&CheckpointKey>) -> Result<(), Damaged> {
        match (key, secret) {
            (0, Some(_)) => return Err(Damaged::KeyAbsent),
            (1.., None) => return Err(Damaged::KeyMissing),
            (1.., Some(secret)) if secret.id() != key => return Err(Damaged::KeyDiffers),
            _ => {}
        }
        if self.end != END {
            return Err(Damaged::Mark);
        }
        // The comparison takes the same time wherever they differ.
        let matches = hash(self.hashed, secret) == blake3::Hash::from_bytes(*self.hash);
        if matches { Ok(()) } else { Err(Damaged::Hash) }
    }
}

/// A header whose checksum matches.
struct Head {
    header: Header,
    encoding: Encoding,
    stored: u64,
    uncompressed: u64,
    key: u64,
}

impl Head {
    fn read(bytes: &[u8; HEADER]) -> Result<Self, Damaged> {
        if !bytes.starts_with(MAGIC) {
            return Err(Damaged::Mark);
        }
        let (checked, crc) = bytes.split_last_chunk::<4>().ok_or(Damaged::Header)?;
        if crc32c::crc32c(checked) != u32::from_le_bytes(*crc) {
            return Err(Damaged::Header);
        }
        Self::read_fields(Fields(checked)).unwrap_or(Err(Damaged::Header))
    }

    /// The fields before the checksum; none where there are too few bytes, which there never are.
    fn read_fields(mut fields: Fields<'_>) -> Option<Result<Self, Damaged>> {
        let _magic: [u8; 8] = fields.take()?;
        let format = u16::from_le_bytes(fields.take()?);
        if format != FORMAT {
            return Some(Err(Damaged::Format(format)));
        }
        let [kind, encoding] = fields.take()?;
        let zero: [u8; 4] = fields.take()?;
        let (job, epoch) = (u128::from_be_bytes(fields.take()?), u64::from_le_bytes(fields.take()?));
        let (index, writer) = (u64::from_le_bytes(fields.take()?), u128::from_be_bytes(fields.take()?));
        let (stored, uncompressed) = (u64::from_le_bytes(fields.take()?), u64::from_le_bytes(fields.take()?));
        let (key, last) = (u64::from_le_bytes(fields.take()?), fields.take()?);
        let read = || {
            let kind = Kind::of(kind).ok_or(Damaged::Field("kind"))?;
            let encoding = Encoding::of(encoding).ok_or(Damaged::Field("encoding"))?;
            if [zero, last] != [[0; 4]; 2] {
                return Err(Damaged::Field("reserved part"));
            }
            let (epoch, index) = (Epoch(epoch), Index(index));
            let header = Header { kind, job: JobId(job), epoch, index, writer: DriverId(writer) };
            Ok(Self { header, encoding, stored, uncompressed, key })
        };
        Some(read())
    }

    /// Whether its lengths are those of an object with `payload` bytes of payload.
    fn fits(&self, payload: usize) -> Result<(), Damaged> {
        let found = payload as u64;
        if self.stored != found {
            let whole = |payload: u64| payload.saturating_add(OVERHEAD as u64);
            return Err(Damaged::Length { expected: whole(self.stored), found: whole(found) });
        }
        let sound = match self.encoding {
            Encoding::Plain => self.uncompressed == self.stored,
            Encoding::Zstd => self.uncompressed <= MAX_PAYLOAD as u64,
        };
        if sound { Ok(()) } else { Err(Damaged::Field("uncompressed length")) }
    }

    /// The payload as it was given; only for an object that has been verified.
    fn decompressed(&self, stored: Bytes) -> Result<Bytes, Damaged> {
        match self.encoding {
            Encoding::Plain => Ok(stored),
            Encoding::Zstd => decompress(&stored, self.uncompressed),
        }
    }
}

/// The fields of a header, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

impl Header {
    /// Whether it is the header of an object at that place.
    fn stands_at(&self, expected: &Expected) -> Result<(), Damaged> {
        let (epoch, index) = match expected.place {
            Place::Slot(epoch, index) => (epoch, index),
            Place::Claim(epoch) | Place::Chunk(epoch, _) => (epoch, Index(0)),
        };
        same("job", &expected.job, &self.job)?;
        same("epoch", &epoch, &self.epoch)?;
        same("index", &index, &self.index)?;
        let right_kind = match expected.place {
            Place::Claim(_) => self.kind == Kind::Claim,
            Place::Slot(..) => self.kind.is_entry(),
            Place::Chunk(..) => self.kind == Kind::Chunk,
        };
        if right_kind { Ok(()) } else { Err(wrong_kind(expected.place, self.kind)) }
    }
}

fn wrong_kind(place: Place, found: Kind) -> Damaged {
    let expected = match place {
        Place::Claim(_) => "Claim",
        Place::Slot(..) => "that of an entry",
        Place::Chunk(..) => "Chunk",
    };
    Damaged::Place { field: "kind", expected: expected.to_owned(), found: format!("{found:?}") }
}

fn same<T: PartialEq + fmt::Display>(field: &'static str, expected: &T, found: &T) -> Result<(), Damaged> {
    if expected == found {
        return Ok(());
    }
    Err(Damaged::Place { field, expected: expected.to_string(), found: found.to_string() })
}

/// The content of a frame, which must have exactly `length` bytes, no more than any payload: what the frame says of its
/// length is not asked.
fn decompress(frame: &[u8], length: u64) -> Result<Bytes, Damaged> {
    let length = usize::try_from(length).map_err(|_| Damaged::Frame)?;
    let mut content = Vec::with_capacity(length);
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(|_| Damaged::Frame)?;
    decompressor.decompress_to_buffer(frame, &mut content).map_err(|_| Damaged::Frame)?;
    if content.len() == length { Ok(Bytes::from(content)) } else { Err(Damaged::Frame) }
}

/// A chunk's name is the hash of its content.
fn names_content(place: Place, content: &[u8]) -> Result<(), Damaged> {
    match place {
        Place::Chunk(_, hash) => same("content's hash", &hash, &ChunkHash::of(content)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, HEADER};

    #[test]
    fn the_fields_fill_the_header() {
        let lengths = [8, 2, 2, 4, 16, 8, 8, 16, 8, 8, 8, 4];
        assert_eq!(lengths.iter().sum::<usize>() + 4, HEADER);
        assert_eq!(Fields(&[1, 2, 3]).take::<4>(), None);
    }
}
