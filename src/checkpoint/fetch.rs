//! Finding one whole copy of an object among replicas, and noticing the damaged ones on the way.
//!
//! It deliberately repairs nothing: whether a copy may be replaced depends on what else is known of it.

use bytes::Bytes;

use crate::checkpoint::chunk::{self, ChunkRef};
use crate::checkpoint::container::{Damaged, Place};
use crate::checkpoint::id::{Incarnation, JobId};
use crate::checkpoint::replica::{Key, Replica, ReplicaError};
use crate::checkpoint::report::Report;
use crate::checkpoint::settings::Common;

/// A replica that may have a copy, and its place among others.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) place: usize,
    pub(super) replica: &'a dyn Replica,
    pub(super) incarnation: Incarnation,
}

/// What came of looking for a copy.
#[derive(Debug)]
pub(super) struct Fetched<T> {
    /// The object's bytes, and what they mean.
    pub(super) copy: Option<(Bytes, T)>,
    /// Where there was something else.
    pub(super) damaged: Vec<usize>,
    /// Who did not answer.
    pub(super) failed: Vec<(usize, ReplicaError)>,
    /// Where there was something that this reader cannot judge.
    pub(super) unreadable: Option<(String, Damaged)>,
}

impl<T> Fetched<T> {
    /// Whether nobody has it whole, of those who were asked.
    pub(super) fn is_nowhere(&self) -> bool {
        self.copy.is_none() && self.failed.is_empty()
    }
}

/// Looks for a copy at `place`, on one replica after the other, until `open` finds one whole.
pub(super) async fn fetch<T>(
    sources: &[Source<'_>],
    place: Place,
    common: &Common,
    open: impl Fn(&Bytes) -> Result<T, Damaged>,
) -> Fetched<T> {
    let mut fetched = Fetched { copy: None, damaged: Vec::new(), failed: Vec::new(), unreadable: None };
    for source in sources {
        let bytes = match source.replica.get(&Key::of(source.incarnation, &place)).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) => {
                fetched.failed.push((source.place, error));
                continue;
            }
        };
        match open(&bytes) {
            Ok(meaning) => {
                fetched.copy = Some((bytes, meaning));
                break;
            }
            Err(why) if why.is_unreadable_here() => {
                fetched.unreadable = Some((source.replica.url().to_owned(), why));
            }
            Err(why) => {
                fetched.damaged.push(source.place);
                let (url, why) = (source.replica.url().to_owned(), why.to_string());
                common.report(Report::Damaged { url, place, why });
            }
        }
    }
    fetched
}

/// Looks for a chunk, and gives its content.
pub(super) async fn fetch_chunk(
    sources: &[Source<'_>],
    chunk: &ChunkRef,
    job: JobId,
    common: &Common,
) -> Fetched<Bytes> {
    fetch(sources, chunk.place(), common, |bytes| chunk::open(bytes, job, chunk, common.secret())).await
}
