//! A job that has changed: its state is found again by name and form, and what is not is said.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use tidemill::detect::ewma::Ewma;
use tidemill::error::ErrorKind;
use tidemill::exec::capture::CapturedChunks;
use tidemill::exec::manifest::{ChunkName, Manifest, OnStateChange, Saved, SavedChunk};
use tidemill::exec::resume::Archive;
use tidemill::exec::{Engine, Epoch, check_kept};
use tidemill::plan::{Emit, Operator};
use tidemill::state::chunk::Kind;
use tidemill::state::form::{Layout, StateForm};
use tidemill::state::group::KeyGroup;
use tidemill::time::BatchId;

use crate::capture::archive::{Lengths, Store};
use crate::capture::job::{Job, Reads, detect, windows};

fn form(of: &str) -> StateForm {
    let columns = Schema::new(vec![Field::new("0.sum", DataType::Float64, true)]);
    StateForm::new(Layout::Panes, Arc::new(columns), [("keys", "k text"), ("0", of)])
}

fn groups(start: u16, end: u16) -> Range<KeyGroup> {
    KeyGroup(start)..KeyGroup(end)
}

fn saved(kind: Kind, batch: u64, own: Range<KeyGroup>, length: u64) -> Saved {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&batch.to_le_bytes());
    hash[8..10].copy_from_slice(&own.start.0.to_le_bytes());
    let name = ChunkName { epoch: Epoch(1), hash, length };
    let chunks = vec![SavedChunk { groups: own.clone(), rows: 1, name }];
    Saved { kind, batch: BatchId(batch), groups: own, chunks }
}

fn manifest(captures: impl IntoIterator<Item = Saved>) -> Manifest {
    let mut manifest = Manifest::new(8);
    captures.into_iter().for_each(|saved| manifest.add("means", &form("sum(v)"), saved));
    manifest
}

fn all() -> Range<KeyGroup> {
    groups(0, 1024)
}

fn wants(manifest: &Manifest, own: &Range<KeyGroup>) -> Kind {
    manifest.wants("means", &form("sum(v)"), own)
}

#[test]
fn a_snapshot_is_due_when_what_changed_is_more_than_half_of_it() {
    let mut manifest = Manifest::new(8);
    assert_eq!(wants(&manifest, &all()), Kind::Snapshot, "there is none");
    manifest.add("means", &form("sum(v)"), saved(Kind::Snapshot, 0, all(), 1_000));
    for (batch, length) in [(1, 300), (2, 200)] {
        assert_eq!(wants(&manifest, &all()), Kind::Delta, "before batch {batch}");
        manifest.add("means", &form("sum(v)"), saved(Kind::Delta, batch, all(), length));
    }
    assert_eq!(wants(&manifest, &all()), Kind::Delta, "half");
    manifest.add("means", &form("sum(v)"), saved(Kind::Delta, 3, all(), 1));
    assert_eq!(wants(&manifest, &all()), Kind::Snapshot, "more than half");
    manifest.add("means", &form("sum(v)"), saved(Kind::Snapshot, 4, all(), 1_000));
    assert_eq!(wants(&manifest, &all()), Kind::Delta);
    assert_eq!(manifest.operator("means").unwrap().captures.len(), 1, "what was replaced is let go");
}

#[test]
fn each_executor_has_its_own_share_of_what_another_captured() {
    let deltas = [saved(Kind::Delta, 1, groups(0, 512), 400), saved(Kind::Delta, 2, groups(512, 1024), 100)];
    let mut manifest = manifest([saved(Kind::Snapshot, 0, all(), 1_000)].into_iter().chain(deltas));
    assert_eq!(wants(&manifest, &groups(0, 512)), Kind::Snapshot, "400 of 500");
    assert_eq!(wants(&manifest, &groups(512, 1024)), Kind::Delta, "100 of 500");
    manifest.add("means", &form("sum(v)"), saved(Kind::Snapshot, 3, groups(0, 512), 500));
    let kept: Vec<u64> =
        manifest.operator("means").unwrap().captures.iter().map(|saved| saved.batch.0).collect();
    assert_eq!(kept, [0, 2, 3], "the old snapshot is still the upper half's");
    let batches = |own| {
        let layers = manifest.operator("means").unwrap().layers(&own).unwrap();
        layers.iter().map(|saved| saved.batch.0).collect::<Vec<_>>()
    };
    assert_eq!((batches(groups(0, 128)), batches(groups(896, 1024))), (vec![3], vec![0, 2]));
    manifest.add("means", &form("sum(v)"), saved(Kind::Snapshot, 4, groups(512, 1024), 500));
    assert_eq!(manifest.operator("means").unwrap().captures.len(), 2);
}

#[test]
fn a_capture_that_is_not_of_whole_shards_is_refused() {
    let manifest = manifest([saved(Kind::Snapshot, 0, groups(0, 100), 10)]);
    let kept = manifest.operator("means").unwrap();
    let error = kept.layers(&groups(0, 128)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(error.to_string().starts_with("captures of whole shards were expected"), "{error}");
}

#[test]
fn a_delta_without_its_snapshot_is_refused() {
    let manifest = manifest([saved(Kind::Delta, 1, all(), 10)]);
    let error = manifest.operator("means").unwrap().layers(&groups(0, 128)).unwrap_err();
    assert!(error.to_string().contains("a snapshot of the key groups"), "{error}");
    assert_eq!(wants(&manifest, &all()), Kind::Snapshot);
}

#[test]
fn a_manifest_is_read_as_it_was_written_and_nothing_else_is() {
    let manifest =
        manifest([saved(Kind::Snapshot, 0, all(), 1_000), saved(Kind::Delta, 1, groups(0, 512), 400)]);
    let bytes = manifest.encode();
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    for length in 0..bytes.len() {
        assert_eq!(Manifest::decode(&bytes[..length]).unwrap_err().kind(), ErrorKind::Checkpoint);
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(Manifest::decode(&longer).unwrap_err().to_string().starts_with("the end was expected"));
    let newer = [&[2_u8, 0], &bytes[2..]].concat();
    let error = Manifest::decode(&newer).unwrap_err().to_string();
    assert!(error.starts_with("version 1 was expected, found 2; restore it with the version"), "{error}");
    let mut random = fastrand::Rng::with_seed(21);
    for _ in 0..20_000 {
        let mut mutant = bytes.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..mutant.len());
            mutant[at] = random.u8(..);
        }
        if let Err(error) = Manifest::decode(&mutant) {
            assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
        }
    }
}

#[test]
fn a_name_for_each_chunk_is_asked_for() {
    let job = Job::of(&["k"], Reads::Detect);
    let engine = job.engine(1);
    let capture = engine.capture(&Manifest::new(8)).unwrap().pop().unwrap();
    let captured: CapturedChunks = capture.encode(BatchId(0)).unwrap();
    assert!(Saved::new(&captured, &[]).is_err());
}

#[test]
fn operators_may_come_and_go_and_that_is_said() {
    let manifest = manifest([saved(Kind::Snapshot, 0, all(), 1_000)]);
    let other = [("others".to_owned(), form("sum(v)"))];
    let matched = manifest.matched(8, &other, OnStateChange::Fail).unwrap();
    assert_eq!(
        matched.notes(),
        [
            "\"others\": not in the checkpoint, begins without state",
            "\"means\": in the checkpoint but not in the job, its state is let go"
        ]
    );
    assert_eq!(matched.manifest.operators().count(), 0);
    let same = [("means".to_owned(), form("sum(v)"))];
    let matched = manifest.matched(8, &same, OnStateChange::Fail).unwrap();
    assert_eq!((matched.notes(), matched.manifest), (Vec::new(), manifest));
}

#[test]
fn a_changed_form_is_an_error_with_both_and_the_way_out() {
    let manifest = manifest([saved(Kind::Snapshot, 0, all(), 1_000)]);
    let changed = [("means".to_owned(), form("sum(w)"))];
    let error = manifest.matched(8, &changed, OnStateChange::Fail).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    for part in [
        "the state of the operator \"means\" has changed: the checkpoint has keys: k text; 0: sum(v); columns: pane int64, \
         0.sum float64; the job has keys: k text; 0: sum(w); columns:",
        "on_state_change=\"reset\"",
    ] {
        assert!(error.to_string().contains(part), "{part} is not in {error}");
    }
    let matched = manifest.matched(8, &changed, OnStateChange::Reset).unwrap();
    assert_eq!(matched.reset, ["means"]);
    assert_eq!(matched.manifest.operators().count(), 0);
}

#[test]
fn another_number_of_shards_is_refused() {
    let error = manifest([]).matched(16, &[], OnStateChange::Reset).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(
        error.to_string().starts_with("8 shards were expected, as at the job's first checkpoint, found 16")
    );
}

/// A detector and windows, after a filter where `condition` says one.
fn scored(condition: Option<&str>, call: &'static str) -> Job {
    Job::planned(|plan, rows| {
        let rows = match condition {
            Some(text) => {
                let condition = tidemill::expr::Expression::sql(text);
                plan.add(Operator::Filter(condition), vec![rows], None)
            }
            None => rows,
        };
        let scores = detect(plan, rows, &["k"], Ewma::default());
        plan.add_output(scores, None);
        let sums = windows(plan, rows, &["k"], &[call], [2_000, 2_000], Emit::Final);
        plan.add_output(sums, None);
    })
}

#[test]
fn a_changed_filter_keeps_the_state_and_a_changed_aggregate_does_not() {
    let before = scored(None, "sum(v)");
    let engine = before.engine(1);
    before.push(&[("a", 1.0), ("b", 2.0)]);
    before.run_next(&engine);
    let (store, mut manifest) = (Store::new(Lengths::True), Manifest::new(8));
    for capture in engine.capture(&manifest).unwrap() {
        store.keep(&mut manifest, &capture.encode(BatchId(0)).unwrap());
    }
    let archive = Archive { manifest: &manifest, chunks: &store };
    let filtered = scored(Some("v > 1.5"), "sum(v)").engine(3);
    filtered.resume(archive, OnStateChange::Fail).unwrap();
    assert_eq!(engine.snapshot().unwrap(), filtered.snapshot().unwrap());
    let other = scored(None, "sum(n)").engine(1);
    let error = other.resume(archive, OnStateChange::Fail).unwrap_err();
    assert!(error.to_string().contains("\"agg by k\" has changed"), "{error}");
    let matched = other.resume(archive, OnStateChange::Reset).unwrap();
    assert_eq!(matched.reset, ["agg by k"]);
    let rows = |place: usize| -> usize {
        other.snapshot().unwrap().iter().map(|(_, states)| states[place].num_rows()).sum()
    };
    assert_eq!((rows(0), rows(1)), (2, 0), "the detector's state stays");
}

#[test]
fn names_follow_from_place_and_keys_or_are_the_users() {
    let job = Job::planned(|plan, rows| {
        for call in ["sum(v)", "count(*)"] {
            let sums = windows(plan, rows, &["k", "site"], &[call], [2_000, 2_000], Emit::Final);
            plan.add_output(sums, None);
        }
        let all = windows(plan, rows, &[], &["count(*)"], [2_000, 2_000], Emit::Final);
        plan.add_output(all, None);
        let scores = detect(plan, rows, &["k"], Ewma::default());
        plan.name(scores, "temperature");
        plan.add_output(scores, None);
    });
    let names = job.plan.check().unwrap().state_names().unwrap();
    let names: Vec<&str> = names.values().map(String::as_str).collect();
    assert_eq!(names, ["agg by k, site", "agg by k, site #2", "agg", "temperature"]);
    let remembered: Vec<String> = job.engine(1).remembers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(remembered, names);
}

#[test]
fn two_operators_of_one_name_are_refused() {
    let job = Job::planned(|plan, rows| {
        for _ in 0..2 {
            let scores = detect(plan, rows, &["k"], Ewma::default());
            plan.name(scores, "scores");
            plan.add_output(scores, None);
        }
    });
    let error = job.plan.check().unwrap_err();
    assert!(error.is_config());
    assert!(
        error.to_string().starts_with("each operator has a name of its own, found two called \"scores\"")
    );
}

#[test]
fn state_that_cannot_be_written_down_is_named_before_start() {
    let job = Job::planned(|plan, rows| {
        let calls = ["approx_percentile_cont_with_weight(v, n, 0.5)", "sum(v)"];
        let found = windows(plan, rows, &["k"], &calls, [2_000, 2_000], Emit::Final);
        plan.add_output(found, None);
    });
    let error = check_kept(&job.plan.check().unwrap()).unwrap_err();
    assert!(error.is_config(), "{error:?}");
    for part in [
        "approx_percentile_cont_with_weight(v, n, 0.5) cannot be checkpointed yet",
        "use another aggregate",
        "in agg",
    ] {
        assert!(error.to_string().contains(part), "{part} is not in {error}");
    }
    assert!(!error.to_string().contains("sum(v)"), "{error}");
    check_kept(&Job::of(&["k"], Reads::Windows("approx_quantile(v, 0.5)")).plan.check().unwrap()).unwrap();
}
