//! The start of a driver over a checkpoint: take over, look at what the place of the outputs kept, and go on from there.
//!
//! Every start is a take-over, the first one too. What becomes of a batch whose end nobody saw follows from the marker
//! alone: it deliberately never guesses.

use std::sync::Arc;

use crate::cancel::Cancel;
use crate::checkpoint::entry::{Position, Record};
use crate::checkpoint::standing::Standing;
use crate::checkpoint::start::Content;
use crate::driver::durable::Durability;
use crate::driver::durable::keeper::Keeper;
use crate::driver::durable::payload::{Decided, decode_plan};
use crate::driver::durable::publisher::Publisher;
use crate::driver::memory::Memory;
use crate::driver::{Job, JobSink};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Positions;
use crate::exec::manifest::Manifest;
use crate::exec::resume::Archive;
use crate::ingest::Bound;
use crate::plan::SourceId;
use crate::sink::Sink;
use crate::sink::marker::{Epoch, Marker, Owner};
use crate::sink::outputs::Outputs;

/// What a driver goes on with.
pub(crate) struct Resumed {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) publisher: Publisher,
    /// What the driver before remembered; none at the first start.
    pub(crate) memory: Option<Memory>,
}

/// What is adopted of the batches before.
enum Past {
    /// No batch was ever committed.
    Nothing,
    /// Nothing is open behind this batch.
    Committed(Decided),
    /// This batch was published, and its COMMIT is missing.
    Published(Decided, Position),
}

/// Takes the job's checkpoint over, opens its sinks, and gives its operators back what they remembered.
pub(super) fn resume(job: &mut Job, durability: &Durability, cancel: &Cancel) -> Result<Resumed> {
    let runtime = durability.runtime.handle();
    let schemas: Vec<_> = job.sinks.iter().map(|sink| Arc::clone(&sink.schema)).collect();
    let mut sinks = sinks_of(&mut job.sinks);
    let outputs = Outputs::of(&mut sinks)?;
    outputs.open(&mut sinks, &schemas, cancel)?;
    let over = runtime.block_on(durability.checkpoint.take_over())?;
    if let Some(adopted) = over.adopted() {
        expect_job(&job.name, &adopted.content.payload)?;
    }
    let owner = Owner { job: over.job().to_string(), epoch: Epoch(over.epoch().0) };
    let standing = over.adopted().map(|adopted| adopted.standing.clone()).unwrap_or_default();
    let log =
        runtime.block_on(over.start(Content { payload: job.name.clone().into(), names: Vec::new() }, &[]))?;
    let fresh = Manifest::new(durability.shards);
    let within = (runtime.clone(), cancel.clone());
    let keeper = Keeper::new(log, within, job.engine.groups(), fresh.clone(), durability.lease);
    let found = outputs.init(&mut sinks, &owner, cancel)?;
    let past = adopt(&standing, found.filter(|_| outputs.have_leader()), &outputs, &keeper)?;
    if let Past::Published(decided, position) = &past {
        let batch = outputs.restore(&mut sinks, decided.marker, &decided.records)?;
        outputs.follow(&mut sinks, &batch, cancel)?;
        keeper.commit(&decided.marker, *position)?;
    }
    outputs.collect(&mut sinks)?;
    let (Past::Committed(decided) | Past::Published(decided, _)) = past else {
        if let Some(plan) = standing.plan(standing.next_batch()) {
            begin_as_planned(job, &decode_plan(&plan.payload)?);
        }
        job.engine.resume(Archive { manifest: &fresh, chunks: &*keeper }, durability.on_change)?;
        let publisher = Publisher::new(Arc::clone(&keeper), outputs, None);
        return Ok(Resumed { keeper, publisher, memory: None });
    };
    let archive = Archive { manifest: &decided.manifest, chunks: &*keeper };
    let matched = job.engine.resume(archive, durability.on_change)?;
    matched.notes().iter().for_each(|note| log::warn!("{note}"));
    keeper.go_on_with(matched.manifest);
    let publisher = Publisher::new(Arc::clone(&keeper), outputs, decided.after());
    Ok(Resumed { keeper, publisher, memory: Some(decided.memory) })
}

/// That the checkpoint is this job's, and not that of another one which somebody has named by mistake.
fn expect_job(name: &str, kept: &[u8]) -> Result<()> {
    if kept == name.as_bytes() {
        return Ok(());
    }
    let kept = String::from_utf8_lossy(kept);
    let message =
        format!("the checkpoint was expected to be that of the job {name:?}, found that of {kept:?}");
    Err(Error::new(ErrorKind::Checkpoint, message).help(format!(
        "give each job a checkpoint of its own; where it is the same job under another name, pass name={kept:?}"
    )))
}

/// A first batch that was planned and never came to an end: the sources start where it would have, and not where what is
/// the latest record by now is.
fn begin_as_planned(job: &mut Job, positions: &[(SourceId, Positions)]) {
    for (id, positions) in positions {
        if let Some(source) = job.sources.get_mut(id.0) {
            source.starting = Bound::Offsets(positions.clone());
        }
    }
}

/// What `standing` comes to, where the place of the outputs keeps `found`.
fn adopt(standing: &Standing, found: Option<Marker>, outputs: &Outputs, keeper: &Keeper) -> Result<Past> {
    let committed = standing.committed.as_ref().and_then(|committed| committed.prepare.as_ref());
    let committed = committed.map(decode).transpose()?;
    let expected = committed.as_ref().and_then(Decided::after);
    if !outputs.have_leader() || found == expected {
        return Ok(committed.map_or(Past::Nothing, Past::Committed));
    }
    for prepare in &standing.prepares {
        let decided = decode(prepare)?;
        if decided.publishes && Some(decided.marker) == found {
            return Ok(Past::Published(decided, prepare.at));
        }
    }
    keeper.ask()?; // deposed drivers see the marker of who deposed them
    Err(foreign(found, expected))
}

fn decode(prepare: &Record) -> Result<Decided> {
    Decided::decode(&prepare.entry.payload)
        .map_err(|error| error.at(format!("batch {}", prepare.entry.batch)))
}

fn foreign(found: Option<Marker>, expected: Option<Marker>) -> Error {
    let shown =
        |marker: Option<Marker>| marker.map_or_else(|| "none".to_owned(), |marker| marker.to_string());
    let message = format!(
        "the outputs were expected to be as the checkpoint has them, with the marker {}, found the marker {}",
        shown(expected),
        shown(found)
    );
    Error::new(ErrorKind::Checkpoint, message).help(
        "another job has written there under this one's name, the marker was deleted, or the checkpoint is an older copy; \
         what is missing or there twice cannot be told: start with a new checkpoint once that is settled",
    )
}

fn sinks_of(sinks: &mut [JobSink]) -> Vec<&mut dyn Sink> {
    sinks.iter_mut().map(|sink| &mut *sink.sink as &mut dyn Sink).collect()
}
