//! Chunks of every released form, kept as files: they are read for ever, and written again they are the same bytes.
//!
//! `TIDEMILL_WRITE_GOLDEN=1 cargo test --test engine golden` writes those that there are not yet, for a new form; a file
//! that is there is never written over.

use std::path::{Path, PathBuf};

use tidemill::exec::Engine;
use tidemill::exec::capture::CapturedChunks;
use tidemill::exec::local::LocalEngine;
use tidemill::exec::manifest::{Manifest, OnStateChange};
use tidemill::exec::resume::Archive;
use tidemill::state::chunk::{Kind, VERSION};
use tidemill::time::{BatchId, EventTime};

use crate::capture::archive::{Lengths, Store};
use crate::capture::job::{AGGREGATES, Job, Reads, text};

const ROWS: [(&str, f64); 7] = [
    ("pump-1", 1.5),
    ("pump-2", -2.0),
    ("", 0.25),
    ("pump-1", 9.0),
    ("größe", 4.0),
    ("pump-2", 0.0),
    ("x", 1e9),
];

/// A job after two batches, and what was captured after each: a snapshot and a delta.
struct Played {
    job: Job,
    engine: LocalEngine,
    store: Store,
    manifest: Manifest,
    captured: Vec<CapturedChunks>,
}

fn played(reads: Reads) -> Played {
    let job = Job::of(&["k"], reads);
    let engine = job.engine(1);
    let (store, mut manifest, mut captured) =
        (Store::new(Lengths::LargeSnapshots), Manifest::new(8), Vec::new());
    for (batch, rows) in [(0, &ROWS[..]), (1, &ROWS[2..4])] {
        job.push(rows);
        job.run_next(&engine);
        for capture in engine.capture(&manifest).unwrap() {
            let chunks = capture.encode(BatchId(batch)).unwrap();
            store.keep(&mut manifest, &chunks);
            captured.push(chunks);
        }
    }
    Played { job, engine, store, manifest, captured }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/state-{VERSION}"))
}

/// A file's name for what a state is of.
fn file(reads: Reads, kind: Kind) -> PathBuf {
    let of = match reads {
        Reads::Detect => "ewma".to_owned(),
        Reads::Windows(call) => {
            let letters =
                call.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
            letters
                .collect::<String>()
                .split('-')
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("-")
        }
    };
    folder().join(format!("{of}.{}", format!("{kind:?}").to_lowercase()))
}

fn golden(path: &Path, found: &[u8]) -> Vec<u8> {
    if !path.exists() && std::env::var_os("TIDEMILL_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(path, found).unwrap();
    }
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn all() -> impl Iterator<Item = Reads> {
    std::iter::once(Reads::Detect).chain(AGGREGATES.map(Reads::Windows))
}

#[test]
fn state_is_written_as_it_always_was() {
    for reads in all() {
        for captured in played(reads).captured {
            let path = file(reads, captured.heading.kind);
            let found = &captured.chunks[0].bytes;
            assert!(golden(&path, found) == *found, "{} is written otherwise now", path.display());
        }
    }
}

#[test]
fn state_of_every_released_form_is_taken_back_and_goes_on() {
    for reads in all() {
        let Played { job, engine, store, manifest, captured } = played(reads);
        // The files in the place of what was written just now.
        for (capture, saved) in captured.iter().zip(&manifest.operators().next().unwrap().1.captures) {
            let path = file(reads, capture.heading.kind);
            store.overwrite(&saved.chunks[0].name, golden(&path, &capture.chunks[0].bytes));
        }
        let moved = job.engine(3);
        let matched =
            moved.resume(Archive { manifest: &manifest, chunks: &store }, OnStateChange::Fail).unwrap();
        assert_eq!(matched.notes(), Vec::<String>::new());
        assert_eq!(engine.snapshot().unwrap(), moved.snapshot().unwrap());
        job.push(&ROWS);
        let closing = Some(EventTime::END);
        let task = job.next_task(closing);
        let [expected, found] = [&engine, &moved].map(|engine| text(&Job::step(engine, &task, closing)));
        assert!(!expected.is_empty());
        assert_eq!(expected, found);
    }
}
