//! Chunks that are not what they should be: each is an error that says both sides, and none is a panic.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema};
use fastrand::Rng;
use tidemill::error::{Error, ErrorKind};
use tidemill::exec::Engine;
use tidemill::exec::capture::CapturedChunks;
use tidemill::exec::manifest::{Manifest, OnStateChange};
use tidemill::exec::resume::Archive;
use tidemill::state::chunk::{Chunk, Kind, write_within};
use tidemill::state::form::{Layout, StateForm};
use tidemill::state::group::KeyGroup;
use tidemill::time::BatchId;
use xxhash_rust::xxh3::xxh3_64;

use crate::capture::archive::{Lengths, Store};
use crate::capture::job::{AGGREGATES, Job, Reads};

fn all() -> Range<KeyGroup> {
    KeyGroup(0)..KeyGroup(KeyGroup::COUNT)
}

/// The captures of a job after some batches.
fn captured(job: &Job, batches: usize) -> Vec<CapturedChunks> {
    let engine = job.engine(1);
    let tasks = job.tasks(40);
    for (place, task) in tasks.iter().enumerate().take(batches) {
        Job::step(&engine, task, Job::closing(&tasks, place));
    }
    let captures = engine.capture(&Manifest::new(job.shards)).unwrap();
    captures.into_iter().map(|capture| capture.encode(BatchId(5)).unwrap()).collect()
}

/// One whose state is of columns of many types.
fn any_captured(random: &mut Rng) -> CapturedChunks {
    loop {
        let mut all = captured(&Job::random(random), 3);
        if let Some(captured) = all.pop().filter(|captured| captured.chunks[0].rows > 3) {
            return captured;
        }
    }
}

fn read(bytes: &[u8], form: &StateForm) -> Result<usize, Error> {
    let chunk = Chunk::open(Buffer::from(bytes))?;
    form.expect(&chunk.heading().form)?;
    Ok(chunk.read(form, &all())?.iter().map(tidemill::state::rows::Rows::len).sum())
}

/// The same chunk with the sums of its heading and of its last part made right again, as one who means harm would.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    const ENTRY: usize = 36;
    let number = |bytes: &[u8], at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte))
    };
    if bytes.len() < 14 {
        return bytes;
    }
    let end = number(&bytes, 10, 4) + 14;
    if end < 14 + ENTRY || end + 8 > bytes.len() {
        return bytes;
    }
    // The index ends the heading: of each part its place, its length, and at last its sum.
    let (at, length) = (number(&bytes, end - ENTRY + 8, 8), number(&bytes, end - ENTRY + 16, 8));
    if let Some(sum) = bytes.get(at..at.saturating_add(length)).map(xxh3_64) {
        bytes[end - 8..end].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = xxh3_64(&bytes[..end]);
    bytes[end..end + 8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn mutant(random: &mut Rng, bytes: &[u8], from: usize) -> Vec<u8> {
    let mut mutant = bytes.to_vec();
    match random.u8(..8) {
        0 => mutant.truncate(random.usize(..bytes.len())),
        1 => mutant.extend((0..random.usize(1..40)).map(|_| random.u8(..))),
        _ => {
            for _ in 0..random.usize(1..6) {
                let at = random.usize(from..bytes.len());
                mutant[at] = match random.u8(..3) {
                    0 => random.u8(..),
                    1 => [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
                    _ => mutant[at] ^ 1 << random.u8(..8),
                };
            }
        }
    }
    mutant
}

#[test]
fn every_changed_bit_is_found() {
    let mut random = Rng::with_seed(31);
    for _ in 0..8 {
        let captured = any_captured(&mut random);
        let (bytes, form) = (&captured.chunks[0].bytes, &captured.heading.form);
        let rows = read(bytes, form).unwrap();
        for _ in 0..300 {
            let mutant = mutant(&mut random, bytes, 0);
            match read(&mutant, form) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}"),
                // Between the heading and the first part there are bytes that mean nothing.
                Ok(found) => assert_eq!(found, rows),
            }
        }
    }
}

#[test]
fn what_was_changed_with_its_sums_is_refused_or_read_and_never_a_panic() {
    let mut random = Rng::with_seed(32);
    for _ in 0..12 {
        let captured = any_captured(&mut random);
        let (bytes, form) = (&captured.chunks[0].bytes, &captured.heading.form);
        for _ in 0..400 {
            let mutant = mutant(&mut random, bytes, 14);
            if let Err(error) = read(&summed(mutant), form) {
                assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
            }
        }
    }
}

#[test]
fn a_state_made_of_changed_chunks_is_refused_or_taken_and_never_a_panic() {
    let mut random = Rng::with_seed(33);
    for round in 0..10 {
        let call = AGGREGATES[(round * 7) % AGGREGATES.len()];
        let job = Job::of(&["k"], if round % 3 == 0 { Reads::Detect } else { Reads::Windows(call) });
        let engine = job.engine(1);
        job.push(&[("a", 1.0), ("b", 2.0), ("c", 2.5), ("a", 3.0), ("d", 0.5)]);
        job.run_next(&engine);
        let (store, mut manifest) = (Store::new(Lengths::True), Manifest::new(job.shards));
        for capture in engine.capture(&manifest).unwrap() {
            store.keep(&mut manifest, &capture.encode(BatchId(0)).unwrap());
        }
        let name = *manifest.chunks().first().unwrap();
        let good = store.bytes(&name);
        let fresh = job.engine(1);
        for _ in 0..60 {
            store.overwrite(&name, summed(mutant(&mut random, &good, 300)));
            let archive = Archive { manifest: &manifest, chunks: &store };
            let _ = fresh.resume(archive, OnStateChange::Fail);
        }
    }
}

#[test]
fn another_version_magic_operator_kind_or_form_says_both_sides() {
    let job = Job::of(&["k"], Reads::Detect);
    let engine = job.engine(1);
    job.push(&[("a", 1.0)]);
    job.run_next(&engine);
    let capture = engine.capture(&Manifest::new(8)).unwrap().pop().unwrap();
    let captured = capture.encode(BatchId(0)).unwrap();
    let bytes = &captured.chunks[0].bytes;
    let newer = [&bytes[..8], &[2, 0], &bytes[10..]].concat();
    let error = Chunk::open(newer.into()).unwrap_err().to_string();
    assert!(
        error.starts_with("state in version 1 was expected, found version 2; restore it with the"),
        "{error}"
    );
    let other = [b"tm-other".as_slice(), &bytes[8..]].concat();
    let error = Chunk::open(other.into()).unwrap_err().to_string();
    assert!(error.starts_with("a chunk of state was expected, found other bytes"), "{error}");
    let chunk = Chunk::open(bytes.clone().into()).unwrap();
    let form = &captured.heading.form;
    chunk.expect(Kind::Snapshot, "detect v by k", form).unwrap();
    let error = chunk.expect(Kind::Snapshot, "agg by k", form).unwrap_err().to_string();
    assert_eq!(error, "state of the operator \"agg by k\" was expected, found that of \"detect v by k\"");
    let error = chunk.expect(Kind::Delta, "detect v by k", form).unwrap_err().to_string();
    assert!(error.starts_with("a delta was expected, found a snapshot"), "{error}");
    let columns = Arc::new(Schema::new(vec![Field::new("mean", DataType::Float32, false)]));
    let other = StateForm::new(Layout::Keys, columns, [("operator", "detect")]);
    let error = chunk.expect(Kind::Snapshot, "detect v by k", &other).unwrap_err().to_string();
    assert!(
        error.starts_with("state of this form was expected: operator: detect; columns: mean float32; found:")
    );
}

#[test]
fn a_large_state_is_several_chunks_of_which_an_owner_reads_its_own() {
    let mut random = Rng::with_seed(34);
    let captured = any_captured(&mut random);
    let form = &captured.heading.form;
    let whole = Chunk::open(captured.chunks[0].bytes.clone().into()).unwrap().read(form, &all()).unwrap();
    let least = captured.chunks[0].bytes.len() / 3 + 3_000;
    let chunks = write_within(&captured.heading, &all(), &whole, least).unwrap();
    assert!(chunks.len() > 1, "{} chunks", chunks.len());
    assert!(chunks.iter().all(|chunk| chunk.bytes.len() <= least));
    assert_eq!((chunks[0].groups.start, chunks.last().unwrap().groups.end), (all().start, all().end));
    for (shard, shards) in [(0, 1), (1, 8), (7, 8), (2, 5)] {
        let own = KeyGroup::of_shard(shard, shards);
        let needed =
            chunks.iter().filter(|chunk| chunk.groups.start < own.end && own.start < chunk.groups.end);
        let mut rows = Vec::new();
        for chunk in needed {
            rows.extend(Chunk::open(chunk.bytes.clone().into()).unwrap().read(form, &own).unwrap());
        }
        let keys = |rows: &[tidemill::state::rows::Rows]| -> Vec<Vec<u8>> {
            let keys =
                rows.iter().flat_map(|rows| rows.batch().column(0).as_binary::<i32>().iter().flatten());
            keys.map(<[u8]>::to_vec).collect()
        };
        let expected: Vec<_> = whole.iter().map(|rows| rows.of_groups(&own)).collect();
        assert_eq!(keys(&rows), keys(&expected), "shard {shard} of {shards}");
        assert!(rows.iter().flat_map(tidemill::state::rows::Rows::groups).all(|group| own.contains(&group)));
    }
}

#[test]
fn the_state_of_a_key_that_no_chunk_can_hold_is_an_error_that_says_so() {
    let job = Job::of(&["k"], Reads::Windows("collect(v)"));
    let engine = job.engine(1);
    job.push(&(0..4_000).map(|n| ("a", f64::from(n))).collect::<Vec<_>>());
    job.run_next(&engine);
    let capture = engine.capture(&Manifest::new(8)).unwrap().pop().unwrap();
    let captured = capture.encode(BatchId(0)).unwrap();
    let form = &captured.heading.form;
    let rows = Chunk::open(captured.chunks[0].bytes.clone().into()).unwrap().read(form, &all()).unwrap();
    let error = write_within(&captured.heading, &all(), &rows, 20_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(error.to_string().starts_with("the state of one key was expected to fit a chunk of"), "{error}");
}

#[test]
fn a_chunk_that_lies_anywhere_in_memory_is_read() {
    let mut random = Rng::with_seed(35);
    let captured = any_captured(&mut random);
    let (bytes, form) = (&captured.chunks[0].bytes, &captured.heading.form);
    let rows = read(bytes, form).unwrap();
    let shifted = Buffer::from([&[0], bytes.as_slice()].concat()).slice(1);
    let chunk = Chunk::open(shifted).unwrap();
    let found = chunk.read(form, &all()).unwrap();
    assert_eq!(found.iter().map(|rows| rows.batch().column(0).len()).sum::<usize>(), rows);
}
