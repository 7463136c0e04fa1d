//! State captured, kept as chunks and taken back: a stream that goes on from it shows no difference.

mod archive;
mod golden;
mod hostile;
mod job;
mod matching;

use arrow::array::{Array, AsArray, RecordBatch};
use fastrand::Rng;
use tidemill::exec::capture::Capture;
use tidemill::exec::local::LocalEngine;
use tidemill::exec::manifest::{Manifest, OnStateChange};
use tidemill::exec::resume::Archive;
use tidemill::exec::{Engine, MapTask};
use tidemill::state::chunk::Kind;
use tidemill::time::BatchId;

use crate::capture::archive::{Lengths, Store};
use crate::capture::job::{Job, Reads, text};

/// What one seed of the property is played with.
struct Play {
    job: Job,
    tasks: Vec<MapTask>,
    executors: usize,
    lengths: Lengths,
}

impl Play {
    fn new(random: &mut Rng) -> Self {
        let job = Job::random(random);
        let tasks = job.tasks(random.i64(10..60));
        let executors = random.choice([1, 1, 3]).unwrap();
        // Where snapshots are said to be large, many deltas follow each; where all are as they are, snapshots come often.
        let lengths = random.choice([Lengths::True, Lengths::LargeSnapshots]).unwrap();
        Self { job, tasks, executors, lengths }
    }

    /// Plays all batches with every one captured, and the stream stopped and started elsewhere now and then.
    fn play(&self, random: &mut Rng, seed: u64) {
        let expected = self.job.engine(1);
        let mut engine = self.job.engine(self.executors);
        let (store, mut manifest) = (Store::new(self.lengths), Manifest::new(self.job.shards));
        let (mut deltas, mut restarts) = (0, 0);
        for place in 0..self.tasks.len() {
            let task = &self.tasks[place];
            let closing = Job::closing(&self.tasks, place);
            let [whole, found] = [&expected, &engine].map(|engine| text(&Job::step(engine, task, closing)));
            assert_eq!(whole, found, "seed {seed}, batch {place}");
            deltas += keep(&store, &mut manifest, &engine, task.batch);
            if random.u8(..6) == 0 {
                restarts += 1;
                engine = self.elsewhere(random, &store, &mut manifest);
                let context = format!("seed {seed}, after batch {place}");
                same_state(&expected, &engine, &context);
                same_tables(&engine, &store, &manifest, &context);
            }
        }
        let enough = deltas > 0 || self.tasks.len() < 3 || matches!(self.lengths, Lengths::True);
        assert!(enough, "seed {seed}: no delta in {} batches, {restarts} starts", self.tasks.len());
    }

    /// Another engine, with one or several executors, that goes on from what is kept; the manifest goes there as bytes.
    fn elsewhere(&self, random: &mut Rng, store: &Store, manifest: &mut Manifest) -> LocalEngine {
        *manifest = Manifest::decode(&manifest.encode()).unwrap();
        let engine = self.job.engine(random.choice([1, 3]).unwrap());
        let archive = Archive { manifest, chunks: store };
        let matched = engine.resume(archive, OnStateChange::Fail).unwrap();
        assert_eq!((&matched.manifest, matched.notes()), (&*manifest, Vec::new()));
        engine
    }
}

/// Captures, keeps and folds; says how many deltas there were.
fn keep(store: &Store, manifest: &mut Manifest, engine: &LocalEngine, batch: BatchId) -> usize {
    let mut deltas = 0;
    for capture in engine.capture(manifest).unwrap() {
        deltas += usize::from(capture.kind() == Kind::Delta);
        store.keep(manifest, &capture.encode(batch).unwrap());
    }
    for fold in manifest.folds(&engine.executor_groups()) {
        let folded = fold.folded(store).unwrap();
        manifest.replace(&fold, store.put(&folded));
    }
    deltas
}

/// The same rows of state in every shard, and the same bytes of them.
fn same_state(expected: &LocalEngine, found: &LocalEngine, context: &str) {
    let [expected, found] = [expected, found].map(|engine| engine.snapshot().unwrap());
    assert_eq!(expected, found, "{context}");
    let bytes = |states: &[(usize, Vec<RecordBatch>)]| -> Vec<Vec<u8>> {
        states.iter().flat_map(|(_, batches)| batches).map(ipc).collect()
    };
    assert!(bytes(&expected) == bytes(&found), "{context}: the rows are the same, and not their bytes");
}

fn ipc(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

/// What the archive says of each operator is what the engine has.
fn same_tables(engine: &LocalEngine, store: &Store, manifest: &Manifest, context: &str) {
    let archive = Archive { manifest, chunks: store };
    for (place, (name, form)) in engine.remembers().iter().enumerate() {
        let Some(_) = manifest.operator(name) else { continue };
        let table = archive.state(name).unwrap();
        assert_eq!(table.schema(), form.columns(), "{context}");
        let rows: usize = engine.snapshot().unwrap().iter().map(|(_, states)| states[place].num_rows()).sum();
        assert_eq!(table.num_rows(), rows, "{context}: {name}");
    }
}

#[test]
fn a_stream_that_goes_on_elsewhere_shows_no_difference() {
    for seed in 0..40 {
        let mut random = Rng::with_seed(seed);
        Play::new(&mut random).play(&mut random, seed);
    }
}

#[test]
fn the_same_state_is_the_same_chunks_whoever_made_it() {
    let mut random = Rng::with_seed(77);
    for _ in 0..5 {
        let job = Job::random(&mut random);
        let tasks = job.tasks(30);
        let chunks = [(1, 4), (1, 1)].map(|(executors, threads)| {
            let engine = job.engine_of(executors, threads);
            for (place, task) in tasks.iter().enumerate().take(tasks.len() / 2) {
                Job::step(&engine, task, Job::closing(&tasks, place));
            }
            let captures = engine.capture(&Manifest::new(job.shards)).unwrap();
            captures.into_iter().map(|capture| capture.encode(BatchId(9)).unwrap()).collect::<Vec<_>>()
        });
        assert!(chunks[0].iter().any(|one| one.chunks.iter().any(|chunk| chunk.rows > 0)));
        assert_eq!(chunks[0], chunks[1]);
    }
}

#[test]
fn what_was_not_touched_is_in_no_delta() {
    let job = Job::of(&["k"], Reads::Detect);
    let engine = job.engine(1);
    let (store, mut manifest) = (Store::new(Lengths::LargeSnapshots), Manifest::new(job.shards));
    let keep = |manifest: &mut Manifest, batch: u64| -> Vec<u64> {
        let rows = engine.capture(manifest).unwrap().into_iter().map(|capture| {
            let encoded = capture.encode(BatchId(batch)).unwrap();
            store.keep(manifest, &encoded);
            encoded.chunks.iter().map(|chunk| chunk.rows).sum()
        });
        rows.collect()
    };
    job.push(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]);
    job.run_next(&engine);
    assert_eq!(keep(&mut manifest, 0), [3], "all at first");
    job.push(&[("b", 2.5), ("b", 2.6), ("d", 1.0)]);
    job.run_next(&engine);
    assert_eq!(keep(&mut manifest, 1), [2], "those that came");
    assert_eq!(keep(&mut manifest, 2), Vec::<u64>::new(), "nothing came");
    let table = Archive { manifest: &manifest, chunks: &store }.state("detect v by k").unwrap();
    let keys: Vec<&[u8]> = table.column(0).as_binary::<i32>().iter().flatten().collect();
    assert_eq!((keys.len(), table.column(0).null_count()), (4, 0));
}

#[test]
fn a_dropped_pane_stays_dropped() {
    let job = Job::of(&["k"], Reads::Windows("count(*)"));
    let engine = job.engine(1);
    let (store, mut manifest) = (Store::new(Lengths::LargeSnapshots), Manifest::new(job.shards));
    let mut windows = Vec::new();
    for (batch, watermark) in [(0, 0), (1, 0), (2, 5_000), (3, 5_000)] {
        job.push_at(&[("a", 2_000 * batch), ("b", 2_000 * batch + 10)]);
        job.run_next_until(&engine, watermark);
        for capture in engine.capture(&manifest).unwrap() {
            store.keep(&mut manifest, &capture.encode(BatchId(batch.unsigned_abs())).unwrap());
        }
        let moved = job.engine(3);
        moved.resume(Archive { manifest: &manifest, chunks: &store }, OnStateChange::Fail).unwrap();
        assert_eq!(engine.snapshot().unwrap(), moved.snapshot().unwrap(), "batch {batch}");
        windows.push(moved.snapshot().unwrap().iter().map(|(_, states)| states[0].num_rows()).sum::<usize>());
    }
    assert_eq!(windows, [2, 4, 2, 4], "rows in panes that are open");
}

#[test]
fn a_delta_needs_a_snapshot_before_it() {
    let job = Job::of(&["k"], Reads::Detect);
    let engine = job.engine(1);
    job.push(&[("a", 1.0)]);
    job.run_next(&engine);
    let (store, mut manifest) = (Store::new(Lengths::LargeSnapshots), Manifest::new(job.shards));
    for capture in engine.capture(&manifest).unwrap() {
        store.keep(&mut manifest, &capture.encode(BatchId(0)).unwrap());
    }
    let error = job.engine(1).capture(&manifest).unwrap_err();
    assert!(error.to_string().contains("no snapshot was taken"), "{error}");
}

#[test]
fn many_small_deltas_are_folded() {
    let job = Job::of(&["k"], Reads::Detect);
    let engine = job.engine(1);
    let (store, mut manifest) = (Store::new(Lengths::LargeSnapshots), Manifest::new(job.shards));
    let mut most = 0;
    for batch in 0..300 {
        job.push(&[
            (["a", "b", "c", "d"][batch % 4], batch as f64),
            (if batch == 0 { "z" } else { "a" }, 1.0),
        ]);
        job.run_next(&engine);
        for capture in engine.capture(&manifest).unwrap() {
            store.keep(&mut manifest, &capture.encode(BatchId(batch as u64)).unwrap());
        }
        for fold in manifest.folds(&engine.executor_groups()) {
            manifest.replace(&fold, store.put(&fold.folded(&store).unwrap()));
        }
        let (_, kept) = manifest.operators().next().unwrap();
        most = most.max(kept.captures.len());
    }
    assert!((30..45).contains(&most), "{most} captures were followed at once");
    let moved = job.engine(3);
    moved.resume(Archive { manifest: &manifest, chunks: &store }, OnStateChange::Fail).unwrap();
    assert_eq!(engine.snapshot().unwrap(), moved.snapshot().unwrap());
}

#[test]
fn a_changed_setting_keeps_the_state_and_is_captured_whole() {
    let job = Job::of(&["k"], Reads::Detect);
    let engine = job.engine(1);
    let (store, mut manifest) = (Store::new(Lengths::LargeSnapshots), Manifest::new(job.shards));
    job.push(&[("a", 1.0), ("b", 2.0)]);
    job.run_next(&engine);
    for capture in engine.capture(&manifest).unwrap() {
        store.keep(&mut manifest, &capture.encode(BatchId(0)).unwrap());
    }
    let louder = job.with_quiet(7).engine(1);
    louder.resume(Archive { manifest: &manifest, chunks: &store }, OnStateChange::Fail).unwrap();
    let captures = louder.capture(&manifest).unwrap();
    assert_eq!(captures.iter().map(Capture::kind).collect::<Vec<_>>(), [Kind::Snapshot]);
    for capture in captures {
        store.keep(&mut manifest, &capture.encode(BatchId(1)).unwrap());
    }
    let again = job.with_quiet(7).engine(3);
    again.resume(Archive { manifest: &manifest, chunks: &store }, OnStateChange::Fail).unwrap();
    assert_eq!(louder.snapshot().unwrap(), again.snapshot().unwrap());
}
