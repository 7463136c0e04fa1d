//! State taken back from chunks: each shard reads what its key groups are in, all shards at once.
//!
//! A chunk that several shards need is fetched once, and let go once the last of them has read it, so that little more is
//! held than the state itself. It deliberately does not know where chunks come from, and trusts none of them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::buffer::Buffer;
use arrow::record_batch::RecordBatch;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::error::{Error, ErrorKind, Result};
use crate::exec::capture::CapturedChunks;
use crate::exec::manifest::{ChunkName, Fold, Kept, Manifest, Saved};
use crate::exec::program::Program;
use crate::exec::shard::{Shard, Shards};
use crate::state::chunk::{Chunk, Heading, Kind, write};
use crate::state::form::StateForm;
use crate::state::group::KeyGroup;
use crate::state::rows::{Dropped, Layer, Rows, fold};

/// Where chunks are kept.
pub trait ChunkSource: Sync {
    /// The bytes of a chunk, as they were put there.
    fn get(&self, name: &ChunkName) -> Result<Buffer>;
}

/// State that is kept: which chunks, and where.
#[derive(Clone, Copy)]
pub struct Archive<'a> {
    /// Which chunks.
    pub manifest: &'a Manifest,
    /// Where they are.
    pub chunks: &'a dyn ChunkSource,
}

impl Archive<'_> {
    /// All that an operator remembers, as one table in the order of key groups, panes and keys.
    pub fn state(&self, operator: &str) -> Result<RecordBatch> {
        let names = || {
            self.manifest.operators().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
        };
        let kept = self.manifest.operator(operator).ok_or_else(|| {
            Error::config(format!("there is no operator \"{operator}\" in the checkpoint"))
                .help(format!("there are {}", names()))
        })?;
        let fetches = Fetches::new(*self, self.shards());
        let rows = self.shards().map(|groups| fetches.rows(operator, kept, &groups));
        Ok(Rows::concat(&kept.form, &rows.collect::<Result<Vec<_>>>()?)?.batch().clone())
    }

    /// The key groups of each shard.
    fn shards(&self) -> impl Iterator<Item = Range<KeyGroup>> + use<> {
        let shards = self.manifest.shards();
        (0..shards).map(move |shard| KeyGroup::of_shard(shard, shards))
    }

    /// The shards of these numbers with their state, made in parallel by the threads that it is called on.
    pub(crate) fn load(self, program: &Program, shards: Range<usize>) -> Result<Shards> {
        let count = self.manifest.shards();
        let groups = |shard| KeyGroup::of_shard(shard, count);
        let fetches = Fetches::new(self, shards.clone().map(groups));
        let load = |number| {
            let mut shard = Shard::load(program, number, None)?;
            for (spec, operator) in program.operators.iter().zip(&mut shard.operators) {
                let kept = spec.form.as_ref().and_then(|_| self.manifest.operator(&spec.name));
                let Some(kept) = kept else { continue };
                let at = |error: Error| error.at(format!("state of the operator \"{}\"", spec.name));
                let rows = fetches.rows(&spec.name, kept, &groups(number)).map_err(at)?;
                operator.load(&kept.form, &rows).map_err(at)?;
            }
            Ok((number, shard))
        };
        shards.into_par_iter().map(load).collect()
    }
}

impl Fold {
    /// The deltas as one.
    pub fn folded(&self, chunks: &dyn ChunkSource) -> Result<CapturedChunks> {
        let lost = || Error::internal("there are no deltas to be folded");
        let newest = self.captures.last().ok_or_else(lost)?;
        let layer = |saved: &Saved| {
            let chunks = saved
                .chunks
                .iter()
                .map(|chunk| open(chunks, &chunk.name, saved.kind, &self.operator, &self.form));
            layer_of(&self.form, &chunks.collect::<Result<Vec<_>>>()?, &newest.groups)
        };
        let layers = self.captures.iter().map(layer).collect::<Result<Vec<_>>>()?;
        let Layer { rows, dropped } = fold(&self.form, &layers)?;
        let (operator, form) = (self.operator.clone(), self.form.clone());
        let heading = Heading { kind: Kind::Delta, operator, form, batch: newest.batch, dropped };
        let chunks = write(&heading, &newest.groups, &rows)?;
        Ok(CapturedChunks { heading, groups: newest.groups.clone(), chunks })
    }
}

/// What several chunks of one capture hold of `groups`.
fn layer_of(form: &StateForm, chunks: &[Arc<Chunk>], groups: &Range<KeyGroup>) -> Result<Layer> {
    let mut layer = Layer { rows: Vec::new(), dropped: Dropped::default() };
    for chunk in chunks {
        layer.rows.extend(chunk.read(form, groups)?);
        layer.dropped = layer.dropped.union(&chunk.heading().dropped);
    }
    Rows::expect_in_order(&layer.rows)?;
    Ok(layer)
}

fn open(
    chunks: &dyn ChunkSource,
    name: &ChunkName,
    kind: Kind,
    operator: &str,
    form: &StateForm,
) -> Result<Arc<Chunk>> {
    let chunk = Chunk::open(chunks.get(name)?)?;
    chunk.expect(kind, operator, form)?;
    Ok(Arc::new(chunk))
}

/// The chunks that several shards need, each fetched when the first of them does.
struct Fetches<'a> {
    archive: Archive<'a>,
    of: HashMap<ChunkName, Mutex<Fetch>>, // by shards at once; who waits wants the same chunk
}

/// A chunk, and how many shards are still to read it.
#[derive(Default)]
struct Fetch {
    left: usize,
    chunk: Option<Arc<Chunk>>,
}

impl<'a> Fetches<'a> {
    /// For the shards with these key groups.
    fn new(archive: Archive<'a>, shards: impl Iterator<Item = Range<KeyGroup>>) -> Self {
        let mut of: HashMap<ChunkName, Mutex<Fetch>> = HashMap::new();
        for groups in shards {
            // What is wrong with the layers is told to whoever reads them.
            let layers =
                archive.manifest.operators().flat_map(|(_, kept)| kept.layers(&groups).unwrap_or_default());
            for name in layers.flat_map(|saved| needed(saved, &groups)) {
                let fetch = of.entry(name).or_default();
                fetch.get_mut().unwrap_or_else(PoisonError::into_inner).left += 1;
            }
        }
        Self { archive, of }
    }

    /// What an operator remembers of the keys of one shard.
    fn rows(&self, operator: &str, kept: &Kept, groups: &Range<KeyGroup>) -> Result<Rows> {
        let mut layers = Vec::new();
        for saved in kept.layers(groups)? {
            let chunks = needed(saved, groups).map(|name| self.get(&name, saved, operator, kept));
            layers.push(layer_of(&kept.form, &chunks.collect::<Result<Vec<_>>>()?, groups)?);
        }
        match fold(&kept.form, &layers)?.rows.pop() {
            Some(rows) => Ok(rows),
            None => Ok(Rows::none(&kept.form)),
        }
    }

    fn get(&self, name: &ChunkName, saved: &Saved, operator: &str, kept: &Kept) -> Result<Arc<Chunk>> {
        let lost = || Error::internal("a chunk is needed that nobody counted");
        let fetch = self.of.get(name).ok_or_else(lost)?;
        let mut fetch = fetch.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = match fetch.chunk.take() {
            Some(chunk) => chunk,
            None => open(self.archive.chunks, name, saved.kind, operator, &kept.form)?,
        };
        expect_batch(&chunk, saved)?;
        fetch.left = fetch.left.saturating_sub(1);
        if fetch.left > 0 {
            fetch.chunk = Some(Arc::clone(&chunk));
        }
        Ok(chunk)
    }
}

fn expect_batch(chunk: &Chunk, saved: &Saved) -> Result<()> {
    let found = chunk.heading().batch;
    if found == saved.batch {
        return Ok(());
    }
    let message = format!("state as of batch {} was expected, found that of batch {found}", saved.batch);
    Err(Error::new(ErrorKind::Checkpoint, message))
}

/// The chunks of a capture that rows of `groups` may be in; together its chunks cover all of its groups.
fn needed<'a>(saved: &'a Saved, groups: &'a Range<KeyGroup>) -> impl Iterator<Item = ChunkName> + 'a {
    let is_needed = |own: &Range<KeyGroup>| own.start < groups.end && groups.start < own.end;
    saved.chunks.iter().filter(move |chunk| is_needed(&chunk.groups)).map(|chunk| chunk.name)
}
