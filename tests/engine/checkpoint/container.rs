//! The container: what is opened is what was sealed, at its place, and nothing else is ever opened.
//!
//! `TIDEMILL_MUTANTS=100000 cargo test --test engine checkpoint::container` tries more.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemill::checkpoint::container::{
    CheckpointKey, ChunkHash, Damaged, DriverId, Epoch, Expected, Header, Index, JobId, Kind, MAX_PAYLOAD,
    OVERHEAD, Place, open, seal, seal_compressed,
};

use super::memory::at_its_height;
use super::mutants::{Dice, Outcome, check, check_any, objects, reseal};

const MUTANTS: u64 = 5_000;

fn mutants() -> u64 {
    std::env::var("TIDEMILL_MUTANTS")
        .map_or(MUTANTS, |count| count.parse().expect("TIDEMILL_MUTANTS is a number"))
}

const JOB: JobId = JobId(0x0011_2233_4455_4677_8899_aabb_ccdd_eeff);

fn header(kind: Kind, index: u64) -> Header {
    Header { kind, job: JOB, epoch: Epoch(3), index: Index(index), writer: DriverId(0xfe) }
}

fn slot(index: u64) -> Expected {
    Expected { job: JOB, place: Place::Slot(Epoch(3), Index(index)) }
}

fn key(text: &str) -> CheckpointKey {
    CheckpointKey::new(text).unwrap()
}

#[test]
fn what_was_sealed_is_opened() {
    let owners = key("the owner's own long text");
    for secret in [None, Some(&owners)] {
        for content in [&b""[..], b"x", &vec![7; 100_000]] {
            for bytes in [
                seal(&header(Kind::Plan, 4), content, secret),
                seal_compressed(&header(Kind::Plan, 4), content, secret),
            ] {
                let object = open(&bytes, &slot(4), secret).unwrap();
                assert_eq!((object.header, &object.payload[..]), (header(Kind::Plan, 4), content));
            }
        }
    }
}

#[test]
fn every_kind_stands_where_it_belongs_and_nowhere_else() {
    let content = b"content";
    let places = [
        Place::Claim(Epoch(3)),
        Place::Slot(Epoch(3), Index(0)),
        Place::Chunk(Epoch(3), ChunkHash::of(content)),
    ];
    let entries = [
        Kind::Start,
        Kind::Plan,
        Kind::Prepare,
        Kind::Commit,
        Kind::Checkpoint,
        Kind::Noop,
        Kind::Readmit,
        Kind::Stopped,
        Kind::Seal,
    ];
    let kinds = entries.map(|kind| (kind, 1)).into_iter().chain([(Kind::Claim, 0), (Kind::Chunk, 2)]);
    for (kind, home) in kinds {
        let bytes = seal(&header(kind, 0), content, None);
        for (at, place) in places.into_iter().enumerate() {
            let found = open(&bytes, &Expected { job: JOB, place }, None);
            assert_eq!(found.is_ok(), at == home, "{kind:?} at {place:?}: {found:?}");
        }
    }
}

#[test]
fn an_object_of_another_place_is_named() {
    let bytes = seal(&header(Kind::Plan, 4), b"", None);
    let found = |expected: Expected| open(&bytes, &expected, None).unwrap_err().to_string();
    let elsewhere = |place| found(Expected { job: JOB, place });
    assert_eq!(elsewhere(Place::Slot(Epoch(3), Index(5))), "it belongs elsewhere: its index is 4, not 5");
    assert_eq!(elsewhere(Place::Slot(Epoch(2), Index(4))), "it belongs elsewhere: its epoch is 3, not 2");
    assert_eq!(
        found(Expected { job: JobId(1), ..slot(4) }),
        format!("it belongs elsewhere: its job is {JOB}, not {}", JobId(1))
    );
    let chunk = seal(&header(Kind::Chunk, 0), b"one", None);
    let other = Expected { job: JOB, place: Place::Chunk(Epoch(3), ChunkHash::of(b"two")) };
    let error = open(&chunk, &other, None).unwrap_err();
    assert!(matches!(error, Damaged::Place { field: "content's hash", .. }), "{error}");
}

#[test]
fn what_is_not_there_and_what_is_too_much_is_told_by_length() {
    let bytes = seal(&header(Kind::Plan, 4), &[1; 1_000], None);
    let found = |bytes: Bytes| open(&bytes, &slot(4), None).unwrap_err();
    let lengths = |found| Damaged::Length { expected: 1_136, found };
    assert_eq!(found(bytes.slice(..1_135)), lengths(1_135));
    assert_eq!(found(bytes.slice(..OVERHEAD)), lengths(136));
    assert_eq!(found(bytes.slice(..10)), Damaged::Length { expected: 136, found: 10 });
    assert_eq!(found(Bytes::from([&bytes[..], b"x"].concat())), lengths(1_137));
    assert_eq!(found(Bytes::new()), Damaged::Length { expected: 136, found: 0 });
    assert_eq!(found(Bytes::from(vec![0; 1_136])), Damaged::Mark);
}

#[test]
fn a_missing_and_a_wrong_key_are_told_from_damage() {
    let (owner, other) = (key("the owner's own long text"), key("somebody else's long text"));
    let keyed = seal(&header(Kind::Plan, 4), b"content", Some(&owner));
    let plain = seal(&header(Kind::Plan, 4), b"content", None);
    let found = |bytes: &Bytes, key| open(bytes, &slot(4), key).unwrap_err();
    assert_eq!(found(&keyed, None), Damaged::KeyMissing);
    assert_eq!(found(&keyed, Some(&other)), Damaged::KeyDiffers);
    assert_eq!(found(&plain, Some(&owner)), Damaged::KeyAbsent);
    assert!(
        [Damaged::KeyMissing, Damaged::KeyDiffers, Damaged::KeyAbsent]
            .iter()
            .all(Damaged::is_unreadable_here)
    );
    let forged = Bytes::from(reseal(keyed.to_vec()));
    assert_eq!(found(&forged, Some(&owner)), Damaged::Hash, "a hash without the key");
    assert!(!Damaged::Hash.is_unreadable_here());
}

#[test]
fn a_later_format_is_told_from_damage() {
    let mut later = seal(&header(Kind::Plan, 4), b"content", None).to_vec();
    later[8] = 2;
    assert_eq!(open(&Bytes::from(later.clone()), &slot(4), None), Err(Damaged::Header), "a bit that flipped");
    let found = open(&Bytes::from(reseal(later)), &slot(4), None).unwrap_err();
    assert_eq!(found, Damaged::Format(2));
    assert!(found.is_unreadable_here() && found.to_string().contains("upgrade tidemill"), "{found}");
}

#[test]
fn a_header_that_says_what_none_says_is_refused() {
    let bytes = seal(&header(Kind::Plan, 4), b"content", None);
    let forged = |at: usize, byte: u8| {
        let mut forged = bytes.to_vec();
        forged[at] = byte;
        open(&Bytes::from(reseal(forged)), &slot(4), None).unwrap_err()
    };
    assert_eq!([forged(10, 0), forged(10, 12)], [Damaged::Field("kind"), Damaged::Field("kind")]);
    assert_eq!(forged(11, 2), Damaged::Field("encoding"));
    assert_eq!(
        [forged(12, 1), forged(91, 1)],
        [Damaged::Field("reserved part"), Damaged::Field("reserved part")]
    );
    assert_eq!(forged(72, 8), Damaged::Field("uncompressed length"));
    assert_eq!(forged(11, 1), Damaged::Frame, "no frame");
}

#[test]
fn every_bit_of_an_object_counts() {
    for sealed in objects() {
        for at in 0..sealed.bytes.len() * 8 {
            let mut mutant = sealed.bytes.to_vec();
            mutant[at / 8] ^= 1 << (at % 8);
            let found = open(&Bytes::from(mutant), &sealed.expected, sealed.key.as_ref());
            assert!(found.is_err(), "bit {at} of {:?}", sealed.expected);
        }
    }
}

#[test]
fn every_cut_is_found() {
    for sealed in objects() {
        for length in 0..sealed.bytes.len() {
            let found = open(&sealed.bytes.slice(..length), &sealed.expected, sealed.key.as_ref());
            assert!(found.is_err(), "the first {length} bytes of {:?}", sealed.expected);
        }
    }
}

/// Errors have short texts; an object's content is at most as long as its header says.
const SLACK: usize = 4_096;

#[test]
fn every_mutant_is_found_within_bounded_memory() {
    let objects = objects();
    let mut outcomes = BTreeMap::<Outcome, u64>::new();
    for seed in 0..mutants() {
        let draws = draws(seed);
        // What the test itself draws is far below the limit.
        let (outcome, most) = at_its_height(|| check(&mut Dice::new(&draws), &objects));
        assert!(most <= MAX_PAYLOAD + (1 << 20), "mutant {seed} took {most} bytes");
        *outcomes.entry(outcome).or_default() += 1;
    }
    let found = outcomes.get(&Outcome::Found).copied().unwrap_or(0);
    assert!(found * 10 >= mutants() * 9, "most mutants must differ: {outcomes:?}");
    assert!(
        outcomes.contains_key(&Outcome::Another),
        "no forger succeeded, or the forging is too weak: {outcomes:?}"
    );
}

fn draws(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..400).map(|_| random.u8(..)).collect()
}

#[test]
fn any_bytes_are_met_without_panic() {
    let objects = objects();
    for (seed, length) in (0..2_000).zip((0..400).cycle()) {
        let draws = draws(seed);
        check_any(&draws[..length], &objects);
        let marked = [b"TIDEMILL\x01\0", &draws[..length], b"LLIMEDIT"].concat();
        check_any(&marked, &objects);
    }
}

#[test]
fn a_length_is_not_believed_before_it_is_verified() {
    let bytes = seal(&header(Kind::Plan, 4), &[1; 1_000], None);
    for (at, number) in [(64, u64::MAX), (64, 1 << 40), (72, u64::MAX), (72, 1 << 40), (64, u64::MAX - 135)] {
        let mut forged = bytes.to_vec();
        forged[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let forged = Bytes::from(reseal(forged));
        let (found, most) = at_its_height(|| open(&forged, &slot(4), None));
        assert!(found.is_err() && most <= SLACK, "{number} at {at}: {found:?}, {most} bytes");
    }
}

#[test]
fn a_frame_is_not_believed_beyond_the_length_of_the_header() {
    let bomb = zstd::bulk::compress(&vec![0; 3 * MAX_PAYLOAD], 1).unwrap();
    for length in [0, 100, MAX_PAYLOAD, MAX_PAYLOAD + 1, usize::MAX] {
        let mut forged = seal(&header(Kind::Plan, 4), &bomb, None).to_vec();
        forged[11] = 1;
        forged[72..80].copy_from_slice(&(length as u64).to_le_bytes());
        let forged = Bytes::from(reseal(forged));
        let (found, most) = at_its_height(|| open(&forged, &slot(4), None));
        let granted = if length <= MAX_PAYLOAD { length } else { 0 };
        assert!(found.is_err() && most <= granted + SLACK, "{length}: {found:?}, {most} bytes");
    }
}

#[test]
fn a_frame_has_exactly_the_length_of_the_header() {
    let frame = zstd::bulk::compress(&[5; 100], 1).unwrap();
    for (length, fits) in [(99_u64, false), (100, true), (101, false), (1_000, false)] {
        let mut forged = seal(&header(Kind::Plan, 4), &frame, None).to_vec();
        forged[11] = 1;
        forged[72..80].copy_from_slice(&length.to_le_bytes());
        let found = open(&Bytes::from(reseal(forged)), &slot(4), None);
        assert_eq!(found.is_ok(), fits, "{length}: {found:?}");
    }
}

#[test]
fn a_payload_that_is_not_compressed_is_not_copied() {
    let bytes = seal(&header(Kind::Plan, 4), &vec![1; 10_000_000], None);
    let (object, most) = at_its_height(|| open(&bytes, &slot(4), None).unwrap());
    assert_eq!(object.payload.len(), 10_000_000);
    assert!(most <= SLACK, "{most} bytes");
}

/// The bytes of format 1, for ever: a change here is a new format, and reading this one stays.
const GOLDEN_PLAIN: &str = "
544944454d494c4c010003000000000000112233445546778899aabbccddeeff
03000000000000000400000000000000000000000000000000000000000000fe
1200000000000000120000000000000000000000000000000000000041afc120
7768617420626174636820342072656164734de42e0375b8a159ac23db41a0ca
30ce7fea9c66d5a619cd7b87ea0195fed6b64c4c494d45444954";
const GOLDEN_KEYED: &str = "
544944454d494c4c010003000000000000112233445546778899aabbccddeeff
03000000000000000400000000000000000000000000000000000000000000fe
120000000000000012000000000000001b0055491155868e000000009c538089
776861742062617463682034207265616473338b59f10781b3b153f7bfdb0a1a
3b1a675988b667534b0bf6f30ec9f0090e734c4c494d45444954";
/// Only read: another version of zstd may write other bytes.
const GOLDEN_COMPRESSED: &str = "
544944454d494c4c01000b010000000000112233445546778899aabbccddeeff
03000000000000000000000000000000000000000000000000000000000000fe
1500000000000000c800000000000000000000000000000000000000551f9cc9
28b52ffd20c8650000287469636b2001004050450b729c319ce5b2cca8a825ef
4af3a750a0b5ab17dab5afc7b4e00193246b68d7db4c4c494d45444954";

fn golden(hex: &str) -> Bytes {
    let digits: String = hex.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<String> = digits.chunks(32).map(<[String]>::concat).collect();
    lines.join("\n")
}

#[test]
fn the_bytes_of_format_1_stay_as_they_are() {
    let owner = key("the owner's own long text");
    let content = b"what batch 4 reads";
    let same = |sealed: Bytes, golden_bytes: &str, secret: Option<&CheckpointKey>| {
        assert_eq!(hex(&sealed), hex(&golden(golden_bytes)));
        assert_eq!(&open(&golden(golden_bytes), &slot(4), secret).unwrap().payload[..], content);
    };
    same(seal(&header(Kind::Plan, 4), content, None), GOLDEN_PLAIN, None);
    same(seal(&header(Kind::Plan, 4), content, Some(&owner)), GOLDEN_KEYED, Some(&owner));
}

#[test]
fn a_compressed_object_of_format_1_is_read() {
    let content = b"tick ".repeat(40);
    let place = Place::Chunk(Epoch(3), ChunkHash::of(&content));
    let object = open(&golden(GOLDEN_COMPRESSED), &Expected { job: JOB, place }, None);
    let now = seal_compressed(&header(Kind::Chunk, 0), &content, None);
    let object = object.unwrap_or_else(|error| panic!("{error}; it would be written so now:\n{}", hex(&now)));
    assert_eq!(&object.payload[..], content);
}
