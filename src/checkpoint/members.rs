//! Which replica is which voter, who is taken in again, and how the voters are changed.
//!
//! It deliberately has no way of its own to make a change safe. Every change is a START that names the new voters, and that
//! is decided only once W of the old and W of the new ones have it; whoever reads an undecided one counts both. A replica
//! that is taken in again, because it was emptied or exchanged, is such a change too: under another incarnation it is
//! another voter, with an empty log, which is what a replica that is far behind has.

use crate::checkpoint::entry::Entry;
use crate::checkpoint::failure;
use crate::checkpoint::first::{put_job_file, rank};
use crate::checkpoint::id::{Epoch, Incarnation, JobId};
use crate::checkpoint::job::JobFile;
use crate::checkpoint::open::{Checkpoint, TakeOver};
use crate::checkpoint::panel::{Found, Panel, Seat};
use crate::checkpoint::quorum::{Voter, Voters};
use crate::checkpoint::report::Report;
use crate::checkpoint::settings::Common;
use crate::checkpoint::surroundings::random_bytes;
use crate::error::{Error, Result};

/// What is to become of the voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the replicas that were given are those that vote, and those that were emptied are taken in again.
    None,
    /// The replica at this URL, which does not vote yet, will.
    Add {
        /// Its URL.
        url: String,
    },
    /// The replica with this number will not vote any more.
    Remove {
        /// Its number.
        number: u32,
    },
    /// The replica at this URL, which does not vote yet, will, in the place of the one with this number.
    Replace {
        /// The number of the one that goes.
        number: u32,
        /// The URL of the one that comes.
        url: String,
    },
}

impl Checkpoint {
    /// Changes the voters while no driver runs. The replicas of this checkpoint are the old ones, as far as they are there,
    /// and the one that comes. Returns once W of the old and W of the new voters have the change, and every new one that
    /// works has all that counts.
    ///
    /// # Errors
    /// Where a driver runs; where there is no such replica; where too few of the old or the new ones are there.
    pub async fn change_voters(&self, change: Change) -> Result<Voters> {
        let takeover = self.take_over_to(change).await?;
        let voters = takeover.voters().clone();
        restart(takeover).await?;
        Ok(voters)
    }
}

/// Starts an epoch that says what the one before said, and stops the stream in it.
pub(super) async fn restart(takeover: TakeOver) -> Result<()> {
    let Some(adopted) = takeover.adopted() else {
        return Err(Error::config("the job was never started: it has no replicas to change"));
    };
    let content = adopted.content.clone();
    let log = takeover.start(content, &[]).await?;
    log.append(Entry::stopped()).await?;
    log.catch_up().await
}

/// The voters from the next START on. What must be put on a replica for that is put there.
pub(super) async fn next_voters(
    panel: &mut Panel,
    voters: &Voters,
    change: &Change,
    (job, epoch): (JobId, Epoch),
    common: &Common,
) -> Result<Voters> {
    match change {
        Change::None => {
            must_be_all(panel, voters)?;
            Ok(readmit(panel, voters, (job, epoch), common).await)
        }
        Change::Add { url } => {
            let number = first_free(voters);
            let newcomer = take_in(panel, url, number, (job, voters), common).await?;
            Voters::new(voters.members().iter().copied().chain([newcomer]), common.settings.write)
        }
        Change::Remove { number } => {
            must_vote(voters, *number)?;
            let rest = voters.members().iter().copied().filter(|voter| voter.number != *number);
            Voters::new(rest, common.settings.write)
        }
        Change::Replace { number, url } => {
            must_vote(voters, *number)?;
            let newcomer = take_in(panel, url, *number, (job, voters), common).await?;
            Ok(voters.readmitted(*number, newcomer.incarnation))
        }
    }
}

fn first_free(voters: &Voters) -> u32 {
    let taken = |number: &u32| voters.members().iter().any(|voter| voter.number == *number);
    (1..=u32::MAX).find(|number| !taken(number)).unwrap_or(u32::MAX)
}

/// The list of replicas is a wish, START rules.
fn must_be_all(panel: &Panel, voters: &Voters) -> Result<()> {
    let (given, count) = (panel.seats.len(), voters.len());
    if given != count {
        let strangers = panel.urls(|seat| stranger(seat, voters));
        let which = if strangers.is_empty() {
            "one that votes is not in the list".to_owned()
        } else {
            format!("{} does not vote", strangers.join(", "))
        };
        return Err(failure::difference(given, count, &which));
    }
    Ok(())
}

fn must_vote(voters: &Voters, number: u32) -> Result<()> {
    let numbers: Vec<String> = voters.members().iter().map(|voter| voter.number.to_string()).collect();
    if voters.members().iter().any(|voter| voter.number == number) {
        return Ok(());
    }
    Err(Error::config(format!("there is no replica {number}; there are {}", numbers.join(", "))))
}

/// One that answers, whose content is known, and that does not vote.
fn stranger(seat: &Seat, voters: &Voters) -> bool {
    let elsewhere = |job: &JobFile| !voters.contains(job.incarnation);
    seat.is_empty() || (!seat.silent && seat.job().is_some_and(elsewhere))
}

/// Takes in again the replicas that were emptied or exchanged, as far as it is clear whose place they have.
async fn readmit(
    panel: &mut Panel,
    voters: &Voters,
    (job, epoch): (JobId, Epoch),
    common: &Common,
) -> Voters {
    let mut next = voters.clone();
    for (place, number) in places_to_fill(panel, voters) {
        // Who fails now stays out until the epoch is rolled.
        if let Some(incarnation) = settle(panel, place, number, (job, voters), common).await {
            next = next.readmitted(number, incarnation);
            let url = panel.urls(|seat| seat.incarnation() == Some(incarnation)).concat();
            common.report(Report::Readmitted { url, epoch });
        }
    }
    next
}

/// The places of strangers, each with the number of a voter that is nowhere. While a replica does not answer, nobody knows
/// which voter it is: then a stranger gets the number that its place in the list says, or none.
fn places_to_fill(panel: &Panel, voters: &Voters) -> Vec<(usize, u32)> {
    let known = |incarnation| {
        panel.seats.iter().any(|seat| seat.job().is_some_and(|job| job.incarnation == incarnation))
    };
    let vacant = voters.members().iter().filter(|voter| !known(voter.incarnation)).map(|voter| voter.number);
    let vacant: Vec<u32> = vacant.collect();
    let strangers = panel.seats.iter().enumerate().filter(|(_, seat)| stranger(seat, voters));
    let strangers: Vec<usize> = strangers.map(|(place, _)| place).collect();
    if strangers.len() == vacant.len() {
        return strangers.into_iter().zip(vacant).collect();
    }
    let own = |place: usize| Some((place, rank(panel, place))).filter(|(_, number)| vacant.contains(number));
    strangers.into_iter().filter_map(own).collect()
}

/// Makes a replica one of the job's, if it is not; tells under which incarnation.
async fn settle(
    panel: &mut Panel,
    place: usize,
    number: u32,
    (job, voters): (JobId, &Voters),
    common: &Common,
) -> Option<Incarnation> {
    let seat = panel.seats.get_mut(place)?;
    if seat.job().is_none() {
        let file = JobFile {
            job,
            name: common.settings.name.clone(),
            replica: number,
            incarnation: Incarnation::from_random(random_bytes(&*common.surroundings)),
            replicas: u32::try_from(voters.len()).unwrap_or(u32::MAX),
            quorum: u32::try_from(voters.write()).unwrap_or(u32::MAX),
        };
        match put_job_file(&*seat.replica, &file).await {
            Ok(found) => seat.found = found,
            Err(error) => panel.silence(place, &error.to_string()),
        }
    }
    let seat = panel.seats.get(place)?;
    seat.job().filter(|file| file.job == job && !seat.silent).map(|file| file.incarnation)
}

async fn take_in(
    panel: &mut Panel,
    url: &str,
    number: u32,
    (job, voters): (JobId, &Voters),
    common: &Common,
) -> Result<Voter> {
    let place = panel.seats.iter().position(|seat| seat.url() == url);
    let place =
        place.ok_or_else(|| Error::config(format!("{url} is not among the replicas that were given")))?;
    let free =
        panel.seats.get(place).is_some_and(|seat| stranger(seat, voters) && seat.found != Found::Orphaned);
    if !free {
        return Err(Error::config(format!(
            "{url} cannot become a voter: it is one already, or not empty, or silent"
        )));
    }
    let settled = settle(panel, place, number, (job, voters), common).await;
    let incarnation = settled.ok_or_else(|| Error::config(format!("{url} did not take its job.json")))?;
    Ok(Voter { number, incarnation })
}
