//! Courtesy: a new driver looks whether another one runs before it deposes it.
//!
//! It deliberately keeps nobody safe. Two drivers that never look at each other lose nothing and double nothing: claims
//! and SEALs see to that. Looking saves a running job from a second start by mistake.

use std::time::Duration;

use crate::checkpoint::claim;
use crate::checkpoint::container::Place;
use crate::checkpoint::entry::{EntryKind, Position};
use crate::checkpoint::failure;
use crate::checkpoint::id::{Epoch, Incarnation, Index, JobId};
use crate::checkpoint::panel::{Panel, Seat};
use crate::checkpoint::replica::{Key, Replica, ReplicaError};
use crate::checkpoint::report::Report;
use crate::checkpoint::secret::CheckpointKey;
use crate::checkpoint::settings::{Common, Standby};
use crate::checkpoint::slot::{self, Slot};
use crate::checkpoint::surroundings::Whereabouts;
use crate::error::Result;

/// How often a driver is looked at while its lease runs.
const LOOKS: u32 = 4;

/// What the replicas show of the newest driver.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    epoch: Epoch,
    /// How long its log is on the replica where it is longest.
    length: u64,
    who: Option<Whereabouts>,
    /// Whether it said that it stopped on purpose.
    stopped: bool,
}

/// Waits until no other driver runs, or says that one does.
pub(super) async fn wait_for_others(panel: &Panel, common: &Common) -> Result<()> {
    if common.settings.standby == Standby::Depose {
        return Ok(());
    }
    while let Some(first) = look(panel, common).await {
        if is_gone(&first, common) || stands_still(&first, panel, common).await {
            break;
        }
        let who = first.who.clone().unwrap_or_else(unknown);
        if common.settings.standby == Standby::Refuse {
            return Err(failure::running(&who, first.epoch));
        }
        common.report(Report::StandingBy { who });
    }
    Ok(())
}

fn unknown() -> Whereabouts {
    Whereabouts { host: "a machine unknown".into(), boot: String::new(), pid: 0 }
}

fn is_gone(sighting: &Sighting, common: &Common) -> bool {
    sighting.stopped || sighting.who.as_ref().is_some_and(|who| common.surroundings.is_gone(who))
}

/// Whether nothing happens for one lease.
async fn stands_still(first: &Sighting, panel: &Panel, common: &Common) -> bool {
    let lease = common.settings.lease;
    let step = (lease / LOOKS).max(Duration::from_millis(1));
    for _ in 0..LOOKS {
        common.surroundings.sleep(step).await;
        // A replica that has just failed shows less, not more: only what is newer counts.
        let newer = |seen: &Sighting| (seen.epoch, seen.length) > (first.epoch, first.length);
        if look(panel, common).await.is_some_and(|seen| newer(&seen)) {
            return false;
        }
    }
    true
}

/// The newest driver that any replica shows; none where there is no sign of one.
async fn look(panel: &Panel, common: &Common) -> Option<Sighting> {
    let mut panel = panel.clone();
    panel.identify().await;
    let job = panel.job().ok().flatten()?;
    let answers = panel.ask(|seat| Some(Box::pin(look_at(seat, job, common.secret()))), |_| true).await;
    let seen: Vec<Sighting> = panel.hear(answers).into_iter().flatten().flatten().collect();
    let newest = seen.iter().max_by_key(|sighting| (sighting.epoch, sighting.length))?.clone();
    let mut of_epoch = seen.into_iter().filter(|sighting| sighting.epoch == newest.epoch);
    let who = of_epoch.find_map(|sighting| sighting.who);
    Some(Sighting { who, ..newest })
}

async fn look_at(
    seat: &Seat,
    job: JobId,
    secret: Option<&CheckpointKey>,
) -> std::result::Result<Option<Sighting>, ReplicaError> {
    let Some(incarnation) = seat.incarnation() else { return Ok(None) };
    let replica = &*seat.replica;
    let epoch = claim::latest(replica, incarnation).await?;
    if epoch == Epoch(0) {
        return Ok(None);
    }
    let who = claim::owner(replica, incarnation, (job, epoch), secret).await?;
    let last = last_slot(replica, incarnation, epoch).await?;
    let stopped = match last {
        Some(index) => is_stopped(replica, incarnation, (job, Position { epoch, index }), secret).await?,
        None => false,
    };
    Ok(Some(Sighting { epoch, length: last.map_or(0, |index| index.0 + 1), who, stopped }))
}

async fn last_slot(
    replica: &dyn Replica,
    incarnation: Incarnation,
    epoch: Epoch,
) -> std::result::Result<Option<Index>, ReplicaError> {
    let listed = replica.list(&Key::log(incarnation, epoch)).await?;
    let index = |key: &Key| match key.place() {
        Some((_, Place::Slot(_, index))) => Some(index),
        _ => None,
    };
    Ok(listed.iter().filter_map(|(key, _)| index(key)).max())
}

async fn is_stopped(
    replica: &dyn Replica,
    incarnation: Incarnation,
    (job, at): (JobId, Position),
    secret: Option<&CheckpointKey>,
) -> std::result::Result<bool, ReplicaError> {
    let found = replica.get(&Key::of(incarnation, &at.place())).await?;
    let slot = found.and_then(|bytes| slot::open(&bytes, job, at, secret).ok());
    Ok(matches!(slot, Some(Slot::Entry(entry)) if entry.kind == EntryKind::Stopped))
}
