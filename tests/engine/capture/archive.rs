//! A place where chunks are kept, in memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::buffer::Buffer;
use tidemill::error::{Error, ErrorKind, Result};
use tidemill::exec::Epoch;
use tidemill::exec::capture::CapturedChunks;
use tidemill::exec::manifest::{ChunkName, Manifest, Saved};
use tidemill::exec::resume::ChunkSource;
use tidemill::state::chunk::Kind;

/// What is told of how long chunks are: the policy goes by it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lengths {
    True,
    LargeSnapshots,
}

/// Chunks by name.
pub(super) struct Store {
    chunks: Mutex<HashMap<ChunkName, Vec<u8>>>,
    next: AtomicU64,
    lengths: Lengths,
}

impl Store {
    pub(super) fn new(lengths: Lengths) -> Self {
        Self { chunks: Mutex::default(), next: AtomicU64::new(0), lengths }
    }

    /// Keeps the chunks of a capture.
    pub(super) fn put(&self, captured: &CapturedChunks) -> Saved {
        let name = |bytes: &Vec<u8>| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_le_bytes());
            let longer = match (self.lengths, captured.heading.kind) {
                (Lengths::LargeSnapshots, Kind::Snapshot) => 1 << 30,
                _ => 0,
            };
            let name = ChunkName { epoch: Epoch(3), hash, length: bytes.len() as u64 + longer };
            self.chunks.lock().unwrap().insert(name, bytes.clone());
            name
        };
        let names: Vec<ChunkName> = captured.chunks.iter().map(|chunk| name(&chunk.bytes)).collect();
        Saved::new(captured, &names).unwrap()
    }

    /// Keeps the chunks of a capture, and has the manifest name them.
    pub(super) fn keep(&self, manifest: &mut Manifest, captured: &CapturedChunks) {
        manifest.add(&captured.heading.operator, &captured.heading.form, self.put(captured));
    }

    /// Puts other bytes in the place of a chunk's.
    pub(super) fn overwrite(&self, name: &ChunkName, bytes: Vec<u8>) {
        self.chunks.lock().unwrap().insert(*name, bytes);
    }

    pub(super) fn bytes(&self, name: &ChunkName) -> Vec<u8> {
        self.chunks.lock().unwrap()[name].clone()
    }
}

impl ChunkSource for Store {
    fn get(&self, name: &ChunkName) -> Result<Buffer> {
        let lost = || Error::new(ErrorKind::Checkpoint, "there is no such chunk");
        Ok(self.chunks.lock().unwrap().get(name).cloned().ok_or_else(lost)?.into())
    }
}
