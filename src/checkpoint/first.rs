//! The first start: a job gets its name, and every replica its `job.json`.
//!
//! It deliberately needs all replicas, and all of them without a START: of fewer, one could be the last copy of a job that
//! the others have lost. Nothing else is put anywhere before every replica has its `job.json`, and the first START must
//! reach all of them: so a replica without any START proves that no batch of the job was ever decided.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::checkpoint::id::{Incarnation, JobId};
use crate::checkpoint::job::JobFile;
use crate::checkpoint::panel::{Found, Named, Panel, Seat};
use crate::checkpoint::quorum::{Voter, Voters};
use crate::checkpoint::replica::{Key, PutOrEqual, Replica, ReplicaError, ReplicaErrorKind, put_or_equal};
use crate::checkpoint::settings::Common;
use crate::checkpoint::surroundings::random_bytes;
use crate::checkpoint::{failure, panel};
use crate::error::{Error, Result};

/// Why it is not done yet: a replica failed.
pub(super) struct NotYet(pub(super) String);

/// Gives the job a name and every blank replica its `job.json`. All replicas answer.
///
/// Two drivers may do so at once: the first replica, in the order of the URLs, decides whose name it is.
pub(super) async fn name_job(
    panel: &mut Panel,
    common: &Common,
) -> Result<std::result::Result<JobId, NotYet>> {
    let mut job = panel.job()?;
    let voters = panel.seats.len();
    let write = common.settings.write.unwrap_or(voters / 2 + 1);
    for place in by_url(panel) {
        let number = rank(panel, place);
        let Some(seat) = panel.seats.get_mut(place) else { continue };
        let blank = JobFile {
            job: job.unwrap_or_else(|| JobId::from_random(random_bytes(&*common.surroundings))),
            name: common.settings.name.clone(),
            replica: number,
            incarnation: Incarnation::from_random(random_bytes(&*common.surroundings)),
            replicas: u32::try_from(voters).unwrap_or(u32::MAX),
            quorum: u32::try_from(write).unwrap_or(u32::MAX),
        };
        match settle(seat, blank).await {
            Ok(found) => job = job.or(Some(found)),
            Err(error) => return Ok(Err(NotYet(error.to_string()))),
        }
    }
    let job = panel.job()?; // whoever else was at it may have named another
    Ok(job.ok_or_else(|| NotYet("no replica took its job.json".into())))
}

/// Gives the replica its `job.json`, unless it has one; tells whose it is.
async fn settle(seat: &mut Seat, blank: JobFile) -> std::result::Result<JobId, ReplicaError> {
    if seat.job().is_none() {
        seat.found = put_job_file(&*seat.replica, &blank).await?;
    }
    Ok(seat.job().map_or(blank.job, |job| job.job))
}

/// Puts a `job.json` on a replica, unless there is one; tells what is there then.
pub(super) async fn put_job_file(
    replica: &dyn Replica,
    file: &JobFile,
) -> std::result::Result<Found, ReplicaError> {
    let unwritable = |error: Error| ReplicaError::new(ReplicaErrorKind::Other, error.to_string());
    let bytes = Bytes::from(file.to_bytes().map_err(unwritable)?);
    match put_or_equal(replica, &Key::job(), bytes.clone()).await? {
        PutOrEqual::Stored => Ok(Found::Job(Named { file: file.clone(), bytes })),
        PutOrEqual::Other(_) => panel::identify(replica).await,
    }
}

fn by_url(panel: &Panel) -> Vec<usize> {
    let mut places: Vec<usize> = (0..panel.seats.len()).collect();
    places.sort_by_key(|place| panel.seats.get(*place).map(|seat| seat.url().to_owned()));
    places
}

/// The place of a replica among all, from 1, in the order of the URLs: the same for every driver.
pub(super) fn rank(panel: &Panel, place: usize) -> u32 {
    let rank = by_url(panel).iter().position(|other| *other == place);
    rank.and_then(|rank| u32::try_from(rank + 1).ok()).unwrap_or(u32::MAX)
}

/// The voters of a job that has no START yet: all replicas. Their numbers are those of their files, or, where disks were
/// exchanged before the job began and two have the same, anew in the order of the URLs.
pub(super) fn voters(panel: &Panel, common: &Common) -> Result<Voters> {
    let files: Vec<(usize, &JobFile)> =
        panel.seats.iter().enumerate().filter_map(|(place, seat)| Some((place, seat.job()?))).collect();
    let numbers: BTreeSet<u32> = files.iter().map(|(_, file)| file.replica).collect();
    let distinct = numbers.len() == files.len();
    let voter = |(place, file): &(usize, &JobFile)| {
        let number = if distinct { file.replica } else { rank(panel, *place) };
        Voter { number, incarnation: file.incarnation }
    };
    Voters::new(files.iter().map(voter), common.settings.write)
}

/// Whether this may be a first start: no replica has a START. It is one where all answer.
pub(super) fn must_be_whole(panel: &Panel) -> Result<std::result::Result<(), NotYet>> {
    let damaged = panel.urls(|seat| !seat.silent && matches!(seat.found, Found::Orphaned | Found::Damaged));
    let silent = panel.urls(|seat| seat.silent);
    let hesitates = panel.seats.iter().any(|seat| seat.silent && seat.found != Found::Unknown);
    if silent.is_empty() {
        return if damaged.is_empty() { Ok(Ok(())) } else { Err(failure::no_job_file(&damaged)) };
    }
    // Who has just answered will again; and where there surely was a job, those that do not answer may know it.
    if silent.len() == panel.seats.len() || hesitates || !damaged.is_empty() {
        return Ok(Err(NotYet(format!("{} does not answer", silent.join(", ")))));
    }
    Err(failure::cannot_tell(&panel.urls(|seat| !seat.silent), &silent))
}
