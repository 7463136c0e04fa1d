//! `job.json` and the paths of objects: one form each, and nothing else is read.

use tidemill::checkpoint::container::{ChunkHash, Epoch, Incarnation, Index, JobId, Place};
use tidemill::checkpoint::job::{JobFile, MAX_JOB_FILE};
use tidemill::checkpoint::replica::Key;

fn file() -> JobFile {
    JobFile {
        job: JobId(0x0011_2233_4455_4677_8899_aabb_ccdd_eeff),
        name: "alarms \"of\" hall 7, ü".to_owned(),
        replica: 2,
        incarnation: Incarnation(0x0f11_2233_4455_4677_8899_aabb_ccdd_eeff),
        replicas: 3,
        quorum: 2,
    }
}

const GOLDEN: &str = r#"{
  "format": 1,
  "job": "00112233-4455-4677-8899-aabbccddeeff",
  "name": "alarms \"of\" hall 7, ü",
  "replica": 2,
  "incarnation": "0f112233-4455-4677-8899-aabbccddeeff",
  "replicas": 3,
  "quorum": 2,
  "checksum": "bb1585f955f85c62957f645b61664d59"
}
"#;

#[test]
fn a_job_file_is_read_as_it_was_written() {
    let bytes = file().to_bytes().unwrap();
    assert_eq!(String::from_utf8(bytes.clone()).unwrap(), GOLDEN);
    assert_eq!(JobFile::read(&bytes).unwrap(), file());
}

#[test]
fn every_changed_byte_of_a_job_file_is_found() {
    let bytes = file().to_bytes().unwrap();
    for at in 0..bytes.len() {
        for flip in 1..=255_u8 {
            let mut mutant = bytes.clone();
            mutant[at] ^= flip;
            assert!(JobFile::read(&mutant).is_err(), "byte {at} with {flip:#x}");
        }
        assert!(JobFile::read(&bytes[..at]).is_err(), "cut to {at} bytes");
    }
    assert!(JobFile::read(&[&bytes[..], b"\n"].concat()).is_err());
}

#[test]
fn a_job_file_that_says_too_much_or_too_little_is_refused() {
    let text = String::from_utf8(file().to_bytes().unwrap()).unwrap();
    let refused = |text: &str| JobFile::read(text.as_bytes()).unwrap_err().to_string();
    for (what, mutant) in [
        ("a field more", text.replace("\"quorum\": 2,", "\"quorum\": 2,\n  \"path\": \"/etc\",")),
        ("a field twice", text.replace("\"quorum\": 2,", "\"quorum\": 2,\n  \"quorum\": 2,")),
        ("a field less", text.replace("  \"quorum\": 2,\n", "")),
        ("a number as text", text.replace("\"quorum\": 2", "\"quorum\": \"2\"")),
        ("other numbers", text.replace("\"quorum\": 2", "\"quorum\": 3")),
        ("a deep one", "[".repeat(3_000)),
        ("a long one", text.clone() + &" ".repeat(MAX_JOB_FILE)),
        ("nothing", String::new()),
    ] {
        let error = refused(&mutant);
        assert!(error.starts_with("job.json is damaged or not ours: "), "{what}: {error}");
    }
    let later = refused("{\"format\": 2, \"whatever\": [1, 2]}");
    assert!(later.contains("format 2") && later.contains("upgrade tidemill"), "{later}");
}

#[test]
fn a_job_file_that_makes_no_sense_is_neither_written_nor_read() {
    let wrong = [
        JobFile { name: String::new(), ..file() },
        JobFile { name: "a\nb".to_owned(), ..file() },
        JobFile { name: "x".repeat(201), ..file() },
        JobFile { replica: 0, ..file() },
        JobFile { quorum: 1, ..file() },
        JobFile { quorum: 4, ..file() },
        JobFile { replica: 1, replicas: 4, quorum: 2, ..file() },
        JobFile { replicas: 0, quorum: 0, ..file() },
    ];
    for file in wrong {
        assert!(file.to_bytes().is_err(), "{file:?}");
    }
    assert!(JobFile { replicas: u32::MAX, quorum: u32::MAX, ..file() }.to_bytes().is_ok());
    assert!(
        JobFile { replica: 4, ..file() }.to_bytes().is_ok(),
        "a replica that came after another had gone"
    );
}

#[test]
fn every_key_is_read_from_its_text_and_knows_its_place() {
    let incarnation = Incarnation(5);
    let hash = ChunkHash::of(b"content");
    let places = [
        Place::Claim(Epoch(1)),
        Place::Slot(Epoch(u64::MAX), Index(0)),
        Place::Slot(Epoch(1), Index(u64::MAX)),
        Place::Chunk(Epoch(0), hash),
    ];
    for place in places {
        let key = Key::of(incarnation, &place);
        assert_eq!(key.as_str().parse::<Key>().unwrap(), key);
        assert_eq!(key.place(), Some((incarnation, place)));
        assert!(
            key.is_object() && key.is_below(&Key::incarnation(incarnation)) && key.is_below(&Key::root())
        );
        assert!(key.is_below(&key.parent().unwrap()) && !key.is_below(&key));
        assert!(!key.is_below(&Key::incarnation(Incarnation(6))));
    }
    let prefixes = [
        Key::probes(),
        Key::incarnation(incarnation),
        Key::claims(incarnation),
        Key::logs(incarnation),
        Key::log(incarnation, Epoch(7)),
        Key::chunks(incarnation),
        Key::chunks_of(incarnation, Epoch(7)),
    ];
    for prefix in prefixes {
        assert_eq!(prefix.as_str().parse::<Key>().unwrap(), prefix);
        assert!(!prefix.is_object() && prefix.place().is_none());
    }
    assert!(!Key::root().is_object() && Key::root().parent().is_none());
}

#[test]
fn no_other_text_is_a_key() {
    let incarnation = Incarnation(5);
    let slot = Key::of(incarnation, &Place::Slot(Epoch(1), Index(2)));
    let chunk = Key::of(incarnation, &Place::Chunk(Epoch(1), ChunkHash::of(b"content")));
    let wrong = [
        String::new(),
        "/".to_owned(),
        "..".to_owned(),
        ".".to_owned(),
        "job.json/..".to_owned(),
        "/job.json".to_owned(),
        "job.json/".to_owned(),
        "job.json#1".to_owned(),
        "#staging".to_owned(),
        "probe/..".to_owned(),
        format!("/{slot}"),
        format!("{slot}/"),
        format!("{slot}/0"),
        format!("./{slot}"),
        format!("{slot}\0"),
        format!("{incarnation}//log"),
        format!("{incarnation}/../{slot}"),
        format!("{incarnation}/log/1/2"),
        format!("{incarnation}/log/{:020}/{:021}", 1, 2),
        format!("{incarnation}/log/99999999999999999999"),
        format!("{incarnation}/log/+0000000000000000001"),
        format!("{incarnation}/claim/{:020}/x", 1),
        format!("{incarnation}/other/{:020}", 1),
        chunk.as_str().to_uppercase(),
        chunk.as_str().replace("/data/", "/log/"),
        chunk.as_str().replace('/', "\\"),
        format!("{chunk}0"),
    ];
    for text in wrong {
        assert!(text.parse::<Key>().is_err(), "{text:?}");
    }
    assert_eq!(Key::root().child(".."), None);
    let two_parts = "00000000000000000001/00000000000000000002";
    assert_eq!(Key::logs(incarnation).child(two_parts), None);
    assert_eq!(Key::log(incarnation, Epoch(1)).child("00000000000000000002"), Some(slot));
}
