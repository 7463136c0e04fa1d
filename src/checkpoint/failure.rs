//! The named errors of the log: what was found, where, and what to do.
//!
//! It deliberately decides nothing: who finds that the log cannot go on takes its error from here, so that the texts are
//! in one place and say the same things in the same words.

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::container::Damaged;
use crate::checkpoint::id::{Epoch, JobId};
use crate::checkpoint::surroundings::Whereabouts;
use crate::error::{Error, ErrorKind};

fn checkpoint(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Checkpoint, message)
}

/// A later driver has taken over.
pub(super) fn fenced(epoch: Epoch, how: &str) -> Error {
    let message = format!("a later driver has taken over from epoch {epoch}: {how}");
    Error::new(ErrorKind::Fenced, message)
        .help("this driver must end; nothing that it was told is decided is lost")
}

/// This driver has gone on in another epoch, or has closed the log.
pub(super) fn closed(epoch: Epoch) -> Error {
    checkpoint(format!(
        "the log of epoch {epoch} is over: this driver has rolled to another, or has closed it"
    ))
}

/// A later driver has claimed an epoch.
pub(super) fn deposed(epoch: Epoch, latest: Epoch) -> Error {
    fenced(epoch, &format!("epoch {latest} is claimed"))
}

/// Another driver runs, or did a moment ago.
pub(super) fn running(who: &Whereabouts, epoch: Epoch) -> Error {
    checkpoint(format!("the job is being run by {who}, in epoch {epoch}"))
        .help("stop it first; if it has just died, try again in a moment")
}

/// The start of a new job cannot be told from the loss of an old one.
pub(super) fn cannot_tell(blank: &[String], silent: &[String]) -> Error {
    let (blank, silent) = (blank.join(", "), silent.join(", "));
    let message = format!(
        "cannot tell a new job from a lost one: {blank} never held a START, and {silent} does not answer"
    );
    checkpoint(message).help("bring all replicas up for the first start")
}

/// Objects without the file that says whose they are.
pub(super) fn no_job_file(urls: &[String]) -> Error {
    let urls = urls.join(", ");
    checkpoint(format!(
        "{urls} holds a checkpoint whose job.json is missing or damaged, and no replica is whole"
    ))
    .help("put a copy back, or give empty directories for a new job")
}

/// The replicas belong to different jobs.
pub(super) fn other_job(url: &str, found: JobId, expected: JobId) -> Error {
    checkpoint(format!("{url} belongs to job {found}, the replicas before it to job {expected}"))
        .help("name the replicas of one job, or give an empty directory")
}

/// The list of replicas is not that of the voters.
pub(super) fn difference(given: usize, voters: usize, which: &str) -> Error {
    checkpoint(format!("{given} replicas are given, and the job has {voters}: {which}")).help(
        "name the same replicas; to change how many there are is not offered yet, but with a new checkpoint",
    )
}

/// Too many replicas are gone for good.
pub(super) fn lost(what: &str) -> Error {
    checkpoint(format!("the checkpoint cannot be read as a whole: {what}")).help(
        "bring back the replicas that are missing, or a copy of them; to go on with less is not offered yet, but with a new \
         checkpoint, from positions of your choice",
    )
}

/// A START that must reach more than W of its own voters did not, and cannot.
pub(super) fn cut_short(gone: &str) -> Error {
    checkpoint(format!("a START that changes who votes, or the first of the job, was cut short: {gone}"))
        .help("bring back the replicas that are missing; if the job never did a batch, empty all of them and start anew")
}

/// An object is whole, but not for this reader.
pub(super) fn unreadable(url: &str, what: &str, why: &Damaged) -> Error {
    checkpoint(format!("{what} on {url} cannot be read: {why}"))
}

/// A chunk is whole, but not for this reader.
pub(super) fn unreadable_chunk(url: &str, chunk: &ChunkRef, why: &Damaged) -> Error {
    unreadable(url, &format!("chunk {} of epoch {}", chunk.hash, chunk.epoch), why)
}

/// A chunk is nowhere to be found whole.
pub(super) fn no_chunk(chunk: &ChunkRef) -> Error {
    lost(&format!("chunk {} of epoch {} is whole on no replica", chunk.hash, chunk.epoch))
}

/// A running log has lost too many of its replicas.
pub(super) fn run_down(which: &[String]) -> Error {
    let which = which.join(", ");
    checkpoint(format!("{which} can take no more entries of this epoch: emptied, exchanged or damaged"))
        .help("start again: the replica is taken in again where the others have what it takes")
}
