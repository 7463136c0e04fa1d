//! The replicas that were given, who each of them is, and which of them answer.
//!
//! It deliberately does not say who votes: START does. A replica is known by what its `job.json` says, never by its URL or
//! its place in a list, so disks may be mounted elsewhere and lists may be in any order.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::failure;
use crate::checkpoint::id::{Incarnation, JobId};
use crate::checkpoint::job::JobFile;
use crate::checkpoint::replica::{Key, Replica, ReplicaError, ReplicaErrorKind};
use crate::checkpoint::report::Report;
use crate::checkpoint::round::{self, Asked};
use crate::checkpoint::settings::Common;
use crate::checkpoint::timed::Timed;
use crate::error::{Error, Result};

/// What a replica turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Not known yet.
    Unknown,
    /// One that says whose it is.
    Job(Named),
    /// There is nothing.
    Blank,
    /// There are objects, and no `job.json`.
    Orphaned,
    /// Its `job.json` is damaged: nothing is known of it, and it is not blank.
    Damaged,
}

/// A `job.json`, and the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) file: JobFile,
    pub(super) bytes: Bytes,
}

/// A replica that was given.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) replica: Arc<dyn Replica>,
    pub(super) found: Found,
    /// Whether it has failed to answer since it was asked first.
    pub(super) silent: bool,
}

impl Seat {
    pub(super) fn url(&self) -> &str {
        self.replica.url()
    }

    /// What is on it, where it is known and answers.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.job().filter(|_| !self.silent).map(|job| job.incarnation)
    }

    /// What its `job.json` says.
    pub(super) fn job(&self) -> Option<&JobFile> {
        self.named().map(|named| &named.file)
    }

    /// The same with its bytes.
    pub(super) fn named(&self) -> Option<&Named> {
        match &self.found {
            Found::Job(named) => Some(named),
            _ => None,
        }
    }

    /// Whether it answers, and may be taken in again: its content is gone, whatever it was.
    pub(super) fn is_empty(&self) -> bool {
        !self.silent && matches!(self.found, Found::Blank | Found::Orphaned)
    }
}

/// Finds out what a replica is.
pub(super) async fn identify(replica: &dyn Replica) -> Result<Found, ReplicaError> {
    if let Some(bytes) = replica.get(&Key::job()).await? {
        return Ok(read(&bytes));
    }
    if replica.list(&Key::root()).await?.iter().all(|(key, _)| key.is_below(&Key::probes())) {
        return Ok(Found::Blank);
    }
    // Another driver may have begun the job since.
    Ok(replica.get(&Key::job()).await?.map_or(Found::Orphaned, |bytes| read(&bytes)))
}

/// Makes sure that a replica is still what it was: asked after something was done there, it proves that it was done on that
/// replica, and not on what was mounted, or left, in its place.
///
/// Without it, a driver that does not know that a disk was emptied would take it for a voter: it would believe that the log
/// there is empty, or that an entry is safe there which a SEAL, that went with the rest, was to keep out.
///
/// `known` is its `job.json` as it was read last, where it was; gives it as it is.
pub(super) async fn must_be(
    replica: &dyn Replica,
    incarnation: Incarnation,
    known: &Bytes,
) -> Result<Bytes, ReplicaError> {
    let bytes = replica.get(&Key::job()).await?.unwrap_or_default();
    if bytes == *known && !known.is_empty() {
        return Ok(bytes);
    }
    match read(&bytes) {
        Found::Job(named) if named.file.incarnation == incarnation => Ok(bytes),
        _ => {
            let message = format!("{} is not the replica that it was", replica.url());
            Err(ReplicaError::new(ReplicaErrorKind::Unavailable, message))
        }
    }
}

fn read(bytes: &Bytes) -> Found {
    let named = |file| Found::Job(Named { file, bytes: bytes.clone() });
    JobFile::read(bytes).map_or(Found::Damaged, named)
}

/// A question to a replica; none where nobody knows what is on it.
pub(super) type Question<'p, T> = Option<Asked<'p, Result<T, ReplicaError>>>;

/// What the replicas answered, each with its place.
pub(super) type Answers<T> = Vec<(usize, Option<Result<T, ReplicaError>>)>;

/// All replicas that were given.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) seats: Vec<Seat>,
    pub(super) pace: Pace,
    common: Common,
}

/// Whether to wait for replicas that are slower than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// A little, once a majority has answered.
    Hurried,
    /// Until they answer or fail.
    Patient,
}

impl Panel {
    pub(super) fn new(replicas: &[Arc<dyn Replica>], common: &Common) -> Self {
        let seat = |replica: &Arc<dyn Replica>| Seat {
            replica: Arc::new(Timed::new(Arc::clone(replica), common.clone())),
            found: Found::Unknown,
            silent: false,
        };
        let seats = replicas.iter().map(seat).collect();
        Self { seats, pace: Pace::Hurried, common: common.clone() }
    }

    /// Asks every replica that has not fallen silent. Waits for all, or, in a hurry, for a majority of answers that
    /// `count` and a little longer. The answers are to be [heard](Self::hear).
    pub(super) async fn ask<'p, T: Send>(
        &'p self,
        question: impl Fn(&'p Seat) -> Question<'p, T>,
        count: impl Fn(&T) -> bool + Send + Sync,
    ) -> Answers<T> {
        let majority = self.seats.len() / 2 + 1;
        let counts =
            |answer: &&Option<Result<T, ReplicaError>>| matches!(answer, Some(Ok(answer)) if count(answer));
        let enough = |answers: &[Option<Result<T, ReplicaError>>]| {
            self.pace == Pace::Hurried && answers.iter().filter(counts).count() >= majority
        };
        let talking = self.seats.iter().enumerate().filter(|(_, seat)| !seat.silent);
        let (asked, questions): (Vec<usize>, Vec<_>) =
            talking.filter_map(|(place, seat)| question(seat).map(|question| (place, question))).unzip();
        let (surroundings, grace) = (&*self.common.surroundings, self.common.settings.grace);
        let answers = round::ask(questions, surroundings, grace, enough).await;
        asked.into_iter().zip(answers).collect()
    }

    /// The answers, by place. Who failed falls silent, and so does who was too slow.
    pub(super) fn hear<T>(&mut self, answers: Answers<T>) -> Vec<Option<T>> {
        let mut all: Vec<Option<T>> = self.seats.iter().map(|_| None).collect();
        for (place, answer) in answers {
            let answer = self.heard(place, answer);
            all.splice(place..=place, [answer]);
        }
        all
    }

    fn heard<T>(&mut self, place: usize, answer: Option<Result<T, ReplicaError>>) -> Option<T> {
        match answer {
            Some(Ok(answer)) => return Some(answer),
            Some(Err(error)) => self.silence(place, &error.to_string()),
            None => self.silence(place, "it is slower than the others"),
        }
        None
    }

    /// Takes note that a replica does not answer.
    pub(super) fn silence(&mut self, place: usize, error: &str) {
        let Some(seat) = self.seats.get_mut(place) else { return };
        seat.silent = true;
        let (url, error) = (seat.url().to_owned(), error.to_owned());
        self.common.report(Report::Failing { url, error });
    }

    /// Finds out who they are. Where most are blank, it waits for all: a slow one may know that the job is not new.
    pub(super) async fn identify(&mut self) {
        let known = |found: &Found| matches!(found, Found::Job(_));
        let answers = self.ask(|seat| Some(Box::pin(identify(&*seat.replica))), known).await;
        let found = self.hear(answers);
        for (seat, found) in self.seats.iter_mut().zip(found) {
            seat.found = found.unwrap_or(Found::Unknown);
        }
    }

    /// The same, of those too that have not answered before.
    pub(super) async fn identify_anew(&mut self) {
        self.pace = Pace::Patient;
        self.seats.iter_mut().for_each(|seat| seat.silent = false);
        self.identify().await;
    }

    /// The job that they belong to; none where none of them belongs to any.
    pub(super) fn job(&self) -> Result<Option<JobId>> {
        let mut jobs = self.seats.iter().filter_map(|seat| Some((seat.url(), seat.job()?.job)));
        let Some((_, job)) = jobs.next() else { return Ok(None) };
        match jobs.find(|(_, other)| *other != job) {
            Some((url, other)) => Err(failure::other_job(url, other, job)),
            None => Ok(Some(job)),
        }
    }

    /// Those of another job do not count: a driver that runs goes on without a replica that was taken from under it.
    pub(super) fn silence_others(&mut self, job: JobId) {
        for place in 0..self.seats.len() {
            if self.seats.get(place).and_then(Seat::job).is_some_and(|file| file.job != job) {
                self.silence(place, "it belongs to another job");
            }
        }
    }

    /// The place at which an incarnation is found, where it answers.
    pub(super) fn place_of(&self, incarnation: Incarnation) -> Option<usize> {
        self.seats.iter().position(|seat| seat.incarnation() == Some(incarnation))
    }

    /// How many do not answer.
    pub(super) fn silent(&self) -> usize {
        self.seats.iter().filter(|seat| seat.silent).count()
    }

    /// The URLs of those that are as `is` says.
    pub(super) fn urls(&self, is: impl Fn(&Seat) -> bool) -> Vec<String> {
        self.seats.iter().filter(|seat| is(seat)).map(|seat| seat.url().to_owned()).collect()
    }

    /// Two of them must not be the same.
    pub(super) fn must_differ(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        match self.seats.iter().find(|seat| seat.job().is_some_and(|job| !seen.insert(job.incarnation))) {
            None => Ok(()),
            Some(twice) => {
                let message = format!("{} is the same replica as another of the list", twice.url());
                Err(Error::config(message).help("name each replica once"))
            }
        }
    }
}
