//! Taking over: from the claim of an epoch to all that its driver needs to know before it appends START.
//!
//! It deliberately appends nothing to its own log. Every start of a driver is one: the first of a job, one after a crash,
//! one while another driver still runs, and a driver's own roll to a new epoch. An attempt that meets a replica that fails
//! is begun anew, with another epoch; so an attempt needs no step back.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::checkpoint::adopt::{Adopter, Adoption, Chunks};
use crate::checkpoint::claim::{self, Claimed};
use crate::checkpoint::failure;
use crate::checkpoint::first::{self, NotYet};
use crate::checkpoint::id::{DriverId, Epoch, Incarnation, JobId};
use crate::checkpoint::members::{Change, next_voters};
use crate::checkpoint::panel::{Found, Panel, Question, Seat, must_be};
use crate::checkpoint::quorum::Voters;
use crate::checkpoint::settings::Common;
use crate::checkpoint::surroundings::random_bytes;
use crate::checkpoint::verdict::{self, Verdict};
use crate::checkpoint::walk::{Scan, Sealed, Unsealed, open_log};
use crate::error::{Error, Result};

/// Why an attempt did not come to its end.
pub(super) enum Stop {
    /// It never will.
    Error(Error),
    /// The next may.
    Again(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

type Attempted<T> = std::result::Result<T, Stop>;

/// What a take-over is for.
#[derive(Clone, Debug)]
pub(super) struct Purpose {
    /// The job, and the newest epoch that is this driver's own: a later one is another's, and ends the attempt. None for a
    /// new driver.
    pub(super) own: Option<(JobId, Epoch)>,
    pub(super) chunks: Chunks,
    pub(super) change: Change,
    pub(super) loss: Loss,
}

/// What to do where too many replicas are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Refuse: something that was decided may be gone with them.
    Refuse,
    /// Go on with what there is: somebody has been told what that means, and wants it.
    Accept,
}

/// An epoch that is claimed, all older ones being sealed.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) panel: Panel,
    pub(super) job: JobId,
    pub(super) epoch: Epoch,
    pub(super) writer: DriverId,
    /// The claim, for replicas that do not have it yet.
    pub(super) claim: Bytes,
    pub(super) voters: Voters,
    pub(super) before: Vec<Voters>,
    /// None at the first start.
    pub(super) adoption: Option<Adoption>,
}

/// Claims an epoch and adopts what was decided before it.
pub(super) async fn attempt(mut panel: Panel, common: &Common, purpose: &mut Purpose) -> Attempted<Owned> {
    panel.identify().await;
    panel.must_differ()?;
    let job = job_of(&mut panel, common, purpose).await?;
    let epoch = next_epoch(&mut panel, purpose).await?;
    let writer = DriverId::from_random(random_bytes(&*common.surroundings));
    let claim = claim::object((job, epoch, writer), &common.settings.whereabouts, common.secret());
    let mut attempt = Attempt { panel, common, job, epoch, writer, claimed: Vec::new(), scans: Vec::new() };
    attempt.claim(&claim).await?;
    purpose.own = purpose.own.map(|_| (job, epoch));
    let adoption = attempt.adopt(purpose).await?;
    let (voters, before) = match &adoption {
        None => attempt.first_voters().await?,
        Some(adoption) if purpose.loss == Loss::Accept => (attempt.rest_of(adoption)?, Vec::new()),
        Some(adoption) => attempt.voters_after(adoption, &purpose.change).await?,
    };
    let Attempt { panel, .. } = attempt;
    Ok(Owned { panel, job, epoch, writer, claim, voters, before, adoption })
}

/// Whose checkpoint this is; where it is nobody's yet, it becomes this driver's.
async fn job_of(panel: &mut Panel, common: &Common, purpose: &Purpose) -> Attempted<JobId> {
    if let Some((job, _)) = purpose.own {
        panel.silence_others(job);
        return Ok(job);
    }
    if let Some(job) = panel.job()? {
        return Ok(job);
    }
    match first::must_be_whole(panel) {
        Ok(whole) => whole.map_err(|NotYet(why)| Stop::Again(why))?,
        Err(error) => return Err(confirmed(panel, error).await),
    }
    first::name_job(panel, common).await?.map_err(|NotYet(why)| Stop::Again(why))
}

/// The error, unless the replicas are not what they were when they were looked at: those that were blank may have become the
/// job's since. Who falls silent just now might say so.
async fn confirmed(panel: &mut Panel, error: Error) -> Stop {
    let before: Vec<(Found, bool)> =
        panel.seats.iter().map(|seat| (seat.found.clone(), seat.silent)).collect();
    panel.identify().await;
    let differs = |(seat, (found, silent)): (&Seat, &(Found, bool))| {
        if seat.silent { !silent } else { seat.found != *found }
    };
    if panel.seats.iter().zip(&before).any(differs) {
        return Stop::Again("the replicas are not what they were a moment ago".into());
    }
    Stop::Error(error)
}

/// The epoch after the latest that any replica has seen.
async fn next_epoch(panel: &mut Panel, purpose: &Purpose) -> Attempted<Epoch> {
    let latest = latest(panel).await;
    let Some(latest) = latest else { return Err(Stop::Again("no replica tells its epochs".into())) };
    match purpose.own {
        Some((_, own)) if latest > own => Err(failure::deposed(own, latest).into()),
        _ => Ok(Epoch(latest.0 + 1)),
    }
}

async fn latest(panel: &mut Panel) -> Option<Epoch> {
    let answers = panel.ask(ask_latest, |_| true).await;
    panel.hear(answers).into_iter().flatten().max()
}

fn ask_latest(seat: &Seat) -> Question<'_, Epoch> {
    let incarnation = seat.incarnation()?;
    Some(Box::pin(claim::latest(&*seat.replica, incarnation)))
}

struct Attempt<'a> {
    panel: Panel,
    common: &'a Common,
    job: JobId,
    epoch: Epoch,
    writer: DriverId,
    /// The incarnations on which the claim is this driver's.
    claimed: Vec<Incarnation>,
    /// From the newest epoch down.
    scans: Vec<Scan>,
}

impl Attempt<'_> {
    async fn claim(&mut self, claim: &Bytes) -> Attempted<()> {
        let epoch = self.epoch;
        let answers = self.panel.ask(|seat| ask_claim(seat, epoch, claim), |_| true).await;
        let answers = self.panel.hear(answers);
        let count = |what| answers.iter().flatten().filter(|answer| **answer == what).count();
        if count(Claimed::Taken) > 0 && 2 * count(Claimed::Ours) <= self.panel.seats.len() {
            return Err(Stop::Again(format!("another driver has claimed epoch {epoch}")));
        }
        let ours =
            self.panel.seats.iter().zip(&answers).filter(|(_, answer)| **answer == Some(Claimed::Ours));
        self.claimed = ours.filter_map(|(seat, _)| seat.incarnation()).collect();
        Ok(())
    }

    /// Goes down to the newest epoch with a START, and adopts what is there. None where there never was one.
    async fn adopt(&mut self, purpose: &Purpose) -> Attempted<Option<Adoption>> {
        let chunks = purpose.chunks;
        let mut below = self.epoch.0;
        while below > 1 {
            below -= 1;
            let scan = self.seal(Epoch(below)).await?;
            self.scans.push(scan);
            let Some(scan) = self.scans.last_mut() else { break };
            let mut adopter = Adopter { common: self.common, panel: &mut self.panel, job: self.job, chunks };
            if let Some(adoption) = adopter.adopt(scan).await? {
                if purpose.loss == Loss::Refuse {
                    self.must_be_sound(&adoption).await?;
                }
                return Ok(Some(adoption));
            }
        }
        Ok(None)
    }

    async fn seal(&mut self, epoch: Epoch) -> Attempted<Scan> {
        let (ours, common) = ((self.job, self.writer), self.common);
        let answers = self.panel.ask(|seat| ask_seal(seat, epoch, ours, common), |_| true).await;
        let answers = self.panel.hear(answers);
        let mut logs = BTreeMap::new();
        for (place, answer) in answers.into_iter().enumerate() {
            match answer {
                Some(Ok(log)) => drop(logs.insert(place, log)),
                Some(Err(error)) => return Err(error.into()),
                None => {}
            }
        }
        Ok(Scan::new(epoch, logs, common.rules()))
    }

    /// Whether enough replicas are known, and the claim holds among those that vote.
    async fn must_be_sound(&mut self, adoption: &Adoption) -> Attempted<()> {
        let deciders = &adoption.deciders;
        let rules = self.common.rules();
        match verdict::known(&self.panel, &self.scans, deciders, rules) {
            Verdict::Sound => {}
            Verdict::Wait(why) => return Err(Stop::Again(why)),
            Verdict::Lost(why) => return Err(self.lost(failure::lost(&why)).await),
        }
        match verdict::writable(&self.panel, deciders) {
            Verdict::Sound => {}
            Verdict::Wait(why) => return Err(Stop::Again(why)),
            Verdict::Lost(why) if deciders.len() > 1 => {
                return Err(self.lost(failure::cut_short(&why)).await);
            }
            Verdict::Lost(why) => return Err(self.lost(failure::lost(&why)).await),
        }
        let holds =
            |voters: &Voters| voters.count(|voter| self.claimed.contains(&voter)) >= voters.majority();
        if deciders.iter().all(holds) {
            return Ok(());
        }
        Err(Stop::Again(format!("epoch {} could not be claimed on a majority", self.epoch)))
    }

    /// The error, unless another driver was at work meanwhile: what is missing, its collector has removed.
    async fn lost(&mut self, error: Error) -> Stop {
        let stop = confirmed(&mut self.panel, error).await;
        let latest = latest(&mut self.panel).await;
        if let Some(latest) = latest.filter(|latest| *latest > self.epoch) {
            return failure::deposed(self.epoch, latest).into();
        }
        if self.panel.seats.iter().any(|seat| seat.silent && seat.job().is_some()) {
            return Stop::Again("a replica that may know of another driver does not answer".into());
        }
        stop
    }

    /// The voters of the first START, which must reach them all.
    async fn first_voters(&mut self) -> Attempted<(Voters, Vec<Voters>)> {
        match first::must_be_whole(&self.panel) {
            Ok(whole) => whole.map_err(|NotYet(why)| Stop::Again(why))?,
            Err(error) => return Err(self.lost(error).await),
        }
        if self.panel.seats.iter().any(|seat| seat.found == Found::Blank) {
            first::name_job(&mut self.panel, self.common).await?.map_err(|NotYet(why)| Stop::Again(why))?;
            return Err(Stop::Again("the first start was cut short, and goes on".into()));
        }
        let voters = first::voters(&self.panel, self.common)?;
        if self.scans.iter().any(|scan| !scan.unknown.is_empty()) {
            return Err(self.lost(failure::lost("its START is damaged")).await);
        }
        let unanimous = voters.unanimous();
        if voters.count(|voter| self.claimed.contains(&voter)) < voters.len() {
            return Err(Stop::Again(format!("epoch {} could not be claimed on all replicas", self.epoch)));
        }
        Ok((voters, vec![unanimous]))
    }

    /// The voters that are left, where the others are given up.
    fn rest_of(&self, adoption: &Adoption) -> Attempted<Voters> {
        let voters = adoption.start.voters.members().iter().copied();
        let left = voters.filter(|voter| self.claimed.contains(&voter.incarnation));
        Ok(Voters::new(left, None)?)
    }

    async fn voters_after(
        &mut self,
        adoption: &Adoption,
        change: &Change,
    ) -> Attempted<(Voters, Vec<Voters>)> {
        let old = &adoption.start.voters;
        let voters = next_voters(&mut self.panel, old, change, (self.job, self.epoch), self.common).await?;
        let before = adoption.deciders.iter().filter(|set| **set != voters).cloned().collect();
        Ok((voters, before))
    }
}

fn ask_claim<'s>(seat: &'s Seat, epoch: Epoch, claim: &Bytes) -> Question<'s, Claimed> {
    let (incarnation, named, claim) = (seat.incarnation()?, seat.named()?, claim.clone());
    Some(Box::pin(async move {
        let claimed = claim::put(&*seat.replica, incarnation, epoch, claim).await?;
        must_be(&*seat.replica, incarnation, &named.bytes).await.map(|_| claimed)
    }))
}

fn ask_seal<'s>(
    seat: &'s Seat,
    epoch: Epoch,
    ours: (JobId, DriverId),
    common: &'s Common,
) -> Question<'s, Result<Sealed>> {
    let (log, named) = (open_log(seat, ours, common.secret())?, seat.named()?);
    Some(Box::pin(async move {
        match log.seal(epoch).await {
            Ok(sealed) => must_be(log.replica, log.incarnation, &named.bytes).await.map(|_| Ok(sealed)),
            Err(Unsealed::Replica(error)) => Err(error),
            Err(Unsealed::Unreadable(at, why)) => {
                let what = format!("slot {} of epoch {}", at.index, at.epoch);
                Ok(Err(failure::unreadable(log.replica.url(), &what, &why)))
            }
        }
    }))
}
