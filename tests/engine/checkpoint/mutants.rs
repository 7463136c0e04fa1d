//! Objects changed in every way that chance, a disk or an attacker might change them, all drawn from bytes.
//!
//! [`check`] is the body of the fuzz target too. It deliberately panics at the first mutant that passes as whole.

use bytes::Bytes;
use tidemill::checkpoint::container::{
    CheckpointKey, ChunkHash, Damaged, DriverId, Epoch, Expected, Header, Index, JobId, Kind, MAX_PAYLOAD,
    Object, Place, open, seal, seal_compressed,
};

/// Where the parts of the header are, as the format says.
const FIELDS: [(usize, usize); 12] = [
    (0, 8),
    (8, 2),
    (10, 1),
    (11, 1),
    (12, 4),
    (16, 16),
    (32, 8),
    (40, 8),
    (48, 16),
    (64, 8),
    (72, 8),
    (80, 8),
];
const STORED: usize = 64;
const UNCOMPRESSED: usize = 72;
const CRC: usize = 92;
const HEADER: usize = 96;
const TRAILER: usize = 40;

/// Draws choices from bytes; when they run out, every choice is the first.
pub(crate) struct Dice<'a>(std::slice::Iter<'a, u8>);

impl<'a> Dice<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.iter())
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | self.0.next().copied().map_or(0, u64::from))
    }

    pub(crate) fn below(&mut self, sides: usize) -> usize {
        usize::try_from(self.number() % sides as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.byte()).collect()
    }
}

/// An object, and where it belongs.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) bytes: Bytes,
    pub(crate) expected: Expected,
    pub(crate) key: Option<CheckpointKey>,
}

/// Some of each kind: short and long, compressed and not, with a key and without.
pub(crate) fn objects() -> Vec<Sealed> {
    bomb(); // made now, so that it is not counted for the mutant that is the first to use it
    let mut objects = Vec::new();
    let contents: [Vec<u8>; 5] =
        [vec![], b"{}".to_vec(), noise(700), vec![0; 3_000], b"state of a job, ".repeat(50)];
    for key in [None, Some(CheckpointKey::new("a key that only the owner has").unwrap())] {
        for (at, content) in contents.iter().enumerate() {
            let places = [
                (Kind::Claim, Place::Claim(Epoch(at as u64))),
                (Kind::Plan, Place::Slot(Epoch(1), Index(at as u64))),
                (Kind::Commit, Place::Slot(Epoch(2), Index(at as u64))),
                (Kind::Seal, Place::Slot(Epoch(3), Index(at as u64))),
                (Kind::Chunk, Place::Chunk(Epoch(2), ChunkHash::of(content))),
            ];
            objects.extend(places.map(|(kind, place)| sealed(kind, place, content, key.clone())));
        }
    }
    objects
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut dice = fastrand_like(7);
    (0..length).map(|_| dice()).collect()
}

/// A generator of its own, since the fuzzer's crate has no other.
fn fastrand_like(seed: u64) -> impl FnMut() -> u8 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32).to_le_bytes()[0]
    }
}

fn sealed(kind: Kind, place: Place, content: &[u8], key: Option<CheckpointKey>) -> Sealed {
    let (epoch, index) = match place {
        Place::Slot(epoch, index) => (epoch, index),
        Place::Claim(epoch) | Place::Chunk(epoch, _) => (epoch, Index(0)),
    };
    let job = JobId(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
    let header = Header { kind, job, epoch, index, writer: DriverId(42) };
    let bytes = seal_compressed(&header, content, key.as_ref());
    Sealed { bytes, expected: Expected { job, place }, key }
}

/// Draws a mutant, opens it, and panics where it passes for what it is not.
pub(crate) fn check(dice: &mut Dice<'_>, objects: &[Sealed]) -> Outcome {
    let sealed = &objects[dice.below(objects.len())];
    let other = &objects[dice.below(objects.len())];
    match dice.below(4) {
        0 => judge_damaged(sealed, spliced(dice, &sealed.bytes, &other.bytes)),
        1 => moved(sealed, other),
        2 => judge_forged(sealed, forged(dice, &sealed.bytes)),
        _ => judge_damaged(sealed, hurt(dice, &sealed.bytes)),
    }
}

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It is what it was.
    Same,
    /// It was found.
    Found,
    /// Its writer knew all that there is to know: it is another object, sealed as it should be.
    Another,
}

/// Bytes that were not made by a writer: only those that are as they were may pass.
fn judge_damaged(sealed: &Sealed, mutant: Vec<u8>) -> Outcome {
    let same = mutant == sealed.bytes;
    let found = open(&Bytes::from(mutant), &sealed.expected, sealed.key.as_ref());
    assert_eq!(found.is_ok(), same, "a mutant was taken for whole: {found:?}");
    if same { Outcome::Same } else { Outcome::Found }
}

/// An object that is whole, read from the place of another.
fn moved(from: &Sealed, to: &Sealed) -> Outcome {
    let same = from.bytes == to.bytes;
    let found = open(&from.bytes, &to.expected, to.key.as_ref());
    assert_eq!(found.is_ok(), same, "an object was taken for another: {found:?}");
    if same { Outcome::Same } else { Outcome::Found }
}

/// Bytes with checksums that were made anew, by somebody without the key: never with a key, and without one only what is
/// sealed in one piece, at its place.
fn judge_forged(sealed: &Sealed, mutant: Vec<u8>) -> Outcome {
    let bytes = Bytes::from(mutant);
    let found = open(&bytes, &sealed.expected, sealed.key.as_ref());
    match found {
        Err(_) => Outcome::Found,
        Ok(_) if bytes == sealed.bytes => Outcome::Same,
        Ok(object) => {
            assert!(sealed.key.is_none(), "sealed without the key, and taken for genuine");
            judge_sound(&object, &bytes, &sealed.expected);
            Outcome::Another
        }
    }
}

/// Whether an object that was opened is what its place asks for.
fn judge_sound(object: &Object, bytes: &Bytes, expected: &Expected) {
    assert_eq!(object.header.job, expected.job);
    assert!(object.payload.len() <= MAX_PAYLOAD);
    let again = seal(&object.header, &object.payload, None);
    assert_eq!(open(&again, expected, None).as_ref(), Ok(object), "what was opened can be sealed");
    let plain = bytes[11] == 0;
    assert!(!plain || again == *bytes, "the same content has the same bytes");
}

/// One to three bits, bytes, cuts, additions or moves.
fn hurt(dice: &mut Dice<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut mutant = bytes.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(mutant.len().max(1));
        match dice.below(7) {
            _ if mutant.is_empty() => mutant = dice.bytes(200),
            0 => mutant[at] ^= 1 << dice.below(8),
            1 => mutant.truncate(at),
            2 => mutant.extend(dice.bytes(64)),
            3 => drop(mutant.drain(..at)),
            4 => mutant[at..].fill(0), // as after a loss of power
            5 => {
                let with = dice.below(mutant.len());
                mutant.swap(at, with);
            }
            _ => mutant[at] = dice.byte(),
        }
    }
    mutant
}

/// Parts of one object in another.
fn spliced(dice: &mut Dice<'_>, one: &[u8], other: &[u8]) -> Vec<u8> {
    let parts = |bytes: &[u8]| {
        let end = bytes.len() - TRAILER;
        [bytes[..HEADER].to_vec(), bytes[HEADER..end].to_vec(), bytes[end..].to_vec()]
    };
    let (one_parts, other_parts) = (parts(one), parts(other));
    match dice.below(8) {
        0 => other.to_vec(),
        7 => [one, other].concat(),
        which => (0..3)
            .flat_map(|part| if which & (1 << part) == 0 { &one_parts[part] } else { &other_parts[part] })
            .copied()
            .collect(),
    }
}

/// Numbers that a reader might believe.
const HUGE: [u64; 8] = [
    0,
    1,
    1 << 20,
    MAX_PAYLOAD as u64,
    MAX_PAYLOAD as u64 + 1,
    1 << 40,
    u64::MAX - 135, // with what an object has around its payload, exactly 0
    u64::MAX,
];

/// A field of the header, or a payload, of the forger's choice, with checksums to match.
fn forged(dice: &mut Dice<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut mutant = bytes.to_vec();
    for _ in 0..=dice.below(2) {
        match dice.below(6) {
            0 => put_number(&mut mutant, STORED, HUGE[dice.below(HUGE.len())]),
            1 => put_number(&mut mutant, UNCOMPRESSED, HUGE[dice.below(HUGE.len())]),
            2 => mutant[11] ^= 1, // compressed or not
            3 => replace_payload(dice, &mut mutant),
            4 => {
                let (from, length) = FIELDS[dice.below(FIELDS.len())];
                mutant[from + dice.below(length)] = dice.byte();
            }
            _ => put_number(&mut mutant, 80, dice.number()), // the key's name
        }
    }
    reseal(mutant)
}

fn put_number(object: &mut [u8], at: usize, number: u64) {
    object[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn replace_payload(dice: &mut Dice<'_>, object: &mut Vec<u8>) {
    let payload = match dice.below(4) {
        0 => dice.bytes(300),
        1 => zstd::bulk::compress(&dice.bytes(300), 1).unwrap(),
        2 => bomb(),
        _ => [zstd::bulk::compress(&[1; 100], 1).unwrap(), dice.bytes(30)].concat(),
    };
    let end = object.len() - TRAILER;
    put_number(object, STORED, payload.len() as u64);
    let length = [payload.len(), 100, MAX_PAYLOAD][dice.below(3)];
    put_number(object, UNCOMPRESSED, length as u64);
    object.splice(HEADER..end, payload);
}

/// A few thousand bytes that decompress to more than any object may have.
fn bomb() -> Vec<u8> {
    static BOMB: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BOMB.get_or_init(|| zstd::bulk::compress(&vec![0; 2 * MAX_PAYLOAD], 1).unwrap()).clone()
}

/// The CRC and the hash that the bytes ask for, where they are long enough to have any.
pub(crate) fn reseal(mut object: Vec<u8>) -> Vec<u8> {
    if object.len() < HEADER + TRAILER {
        return object;
    }
    let crc = crc32c::crc32c(&object[..CRC]);
    object[CRC..HEADER].copy_from_slice(&crc.to_le_bytes());
    let end = object.len() - TRAILER;
    let hash = blake3::hash(&object[..end]);
    object[end..end + 32].copy_from_slice(hash.as_bytes());
    object
}

/// Whatever bytes, as if they had been read from a replica.
pub(crate) fn check_any(bytes: &[u8], objects: &[Sealed]) {
    for sealed in [&objects[0], &objects[4]] {
        let found = open(&Bytes::copy_from_slice(bytes), &sealed.expected, None);
        if let Ok(object) = found {
            judge_sound(&object, &Bytes::copy_from_slice(bytes), &sealed.expected);
        }
        let forged = open(&Bytes::from(reseal(bytes.to_vec())), &sealed.expected, None);
        let _: Result<Object, Damaged> = forged; // it may even be well made; it must not panic
    }
}
