//! Opening a checkpoint: from a list of replicas to a running log.
//!
//! It deliberately does in two steps what could be one. First an epoch is claimed and the past adopted; then the driver
//! looks at what was adopted, and may refuse it; and only its START makes the epoch real.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::adopt::Chunks;
use crate::checkpoint::backlog::Held;
use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::entry::{Entry, Position};
use crate::checkpoint::fetch::{Source, fetch_chunk};
use crate::checkpoint::id::{DriverId, Epoch, Index, JobId};
use crate::checkpoint::lane::{self, Core};
use crate::checkpoint::log::Log;
use crate::checkpoint::members::Change;
use crate::checkpoint::panel::{Pace, Panel, Seat};
use crate::checkpoint::progress::{Health, Progress};
use crate::checkpoint::quorum::{MAX_VOTERS, Voters};
use crate::checkpoint::replica::Replica;
use crate::checkpoint::report::{Report, Reporter};
use crate::checkpoint::round::{self, Asked};
use crate::checkpoint::settings::{Common, Settings};
use crate::checkpoint::shared::Shared;
use crate::checkpoint::slot::{Sealer, Slot};
use crate::checkpoint::standing::Standing;
use crate::checkpoint::start::{Content, Start};
use crate::checkpoint::state::State;
use crate::checkpoint::surroundings::{Surroundings, random_bytes};
use crate::checkpoint::takeover::{Loss, Owned, Purpose, Stop, attempt};
use crate::checkpoint::{claim, collect, failure, lease, probe};
use crate::error::{Error, Result};

/// A job's replicas, and how to use them.
#[derive(Clone)]
pub struct Checkpoint {
    panel: Panel,
    common: Common,
}

impl Checkpoint {
    /// The checkpoint on these replicas; nothing is asked of them yet.
    pub fn new(
        replicas: &[Arc<dyn Replica>],
        settings: Settings,
        surroundings: Arc<dyn Surroundings>,
        reporter: Reporter,
    ) -> Result<Self> {
        if replicas.is_empty() || replicas.len() > MAX_VOTERS {
            let found = replicas.len();
            return Err(Error::config(format!("a checkpoint has 1 to {MAX_VOTERS} replicas, found {found}")));
        }
        let common = Common::new(settings, surroundings, reporter);
        Ok(Self { panel: Panel::new(replicas, &common), common })
    }

    /// Finds out by trying whether every replica can be one; a driver asks before it takes over for the first time.
    ///
    /// One that does not answer, is full or cannot be written now is no reason not to go on: it may be again.
    ///
    /// # Errors
    /// Where a place can never be a replica, which it names: it lets a second writer put what the first has put, or does
    /// not give back, list or remove what was put.
    pub async fn probe(&self) -> Result<()> {
        let Self { panel: Panel { seats, .. }, common } = self;
        let driver = DriverId::from_random(random_bytes(&*common.surroundings));
        let question = |seat: &'_ Seat| probe(Arc::clone(&seat.replica), driver);
        let questions = seats.iter().map(question).collect();
        let enough = |answers: &[Option<Result<()>>]| answers.iter().flatten().count() > seats.len() / 2;
        let answers = round::ask(questions, &*common.surroundings, common.settings.grace, enough).await;
        let mut errors = answers.into_iter().flatten().filter_map(Result::err);
        errors.find(|error| !error.is_retriable()).map_or(Ok(()), Err)
    }

    /// Claims an epoch and adopts what was decided before; other drivers of the job can decide nothing any more.
    ///
    /// Waits for as long as too few replicas answer, and while another driver runs where that was asked for.
    ///
    /// # Errors
    /// Where another driver runs; where too many replicas are gone for good; where the list of replicas is not that of the
    /// voters; where a new job cannot be told from a lost one. Each says what was found and what to do, and none is worth
    /// trying again without doing it.
    pub async fn take_over(&self) -> Result<TakeOver> {
        lease::wait_for_others(&self.panel, &self.common).await?;
        self.own(Purpose { own: None, chunks: Chunks::Read, change: Change::None, loss: Loss::Refuse }).await
    }

    /// The same by the driver of `epoch`, while no other is newer.
    pub(super) async fn roll_from(&self, job: JobId, epoch: Epoch) -> Result<TakeOver> {
        let (own, chunks) = (Some((job, epoch)), Chunks::Trusted);
        self.own(Purpose { own, chunks, change: Change::None, loss: Loss::Refuse }).await
    }

    /// The same to change the voters, offline: no other driver may run.
    pub(super) async fn take_over_to(&self, change: Change) -> Result<TakeOver> {
        lease::wait_for_others(&self.panel, &self.common).await?;
        self.own(Purpose { own: None, chunks: Chunks::Read, change, loss: Loss::Refuse }).await
    }

    /// The same with what is left, however little that is.
    pub(super) async fn take_over_rest(&self) -> Result<TakeOver> {
        lease::wait_for_others(&self.panel, &self.common).await?;
        self.own(Purpose { own: None, chunks: Chunks::Read, change: Change::None, loss: Loss::Accept }).await
    }

    async fn own(&self, mut purpose: Purpose) -> Result<TakeOver> {
        let mut waits = self.common.back_off();
        let mut panel = self.panel.clone();
        loop {
            match attempt(panel.clone(), &self.common, &mut purpose).await {
                Ok(owned) => return Ok(TakeOver { checkpoint: self.clone(), owned }),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Again(why)) => self.common.report(Report::TryingAgain { why }),
            }
            waits.wait(&*self.common.surroundings).await;
            panel.pace = Pace::Patient; // perhaps it is one of the slow ones that is needed
        }
    }
}

fn probe(replica: Arc<dyn Replica>, driver: DriverId) -> Asked<'static, Result<()>> {
    Box::pin(async move { probe::probe(&*replica, driver).await })
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({})", self.panel.urls(|_| true).join(", "))
    }
}

/// An epoch that is claimed but not started: the time to look at what was adopted, and to restore it.
///
/// Nothing can be decided in older epochs any more; and to give it up, by dropping it, harms nobody.
#[derive(Debug)]
pub struct TakeOver {
    checkpoint: Checkpoint,
    owned: Owned,
}

/// What was adopted of the epoch before.
#[derive(Clone, Copy, Debug)]
pub struct Adopted<'a> {
    /// The first slot that was not.
    pub until: Position,
    /// What still counts: the last COMMIT, and every PLAN and PREPARE that is open.
    pub standing: &'a Standing,
    /// What the driver before said of itself in its START.
    pub content: &'a Content,
}

impl TakeOver {
    /// Whose checkpoint it is.
    pub fn job(&self) -> JobId {
        self.owned.job
    }

    /// The epoch that will be started.
    pub fn epoch(&self) -> Epoch {
        self.owned.epoch
    }

    /// Who voted until now; none at the first start of a job.
    pub(super) fn old_voters(&self) -> Option<&Voters> {
        self.owned.adoption.as_ref().map(|adoption| &adoption.start.voters)
    }

    /// Who votes from START on.
    pub fn voters(&self) -> &Voters {
        &self.owned.voters
    }

    /// What was adopted: what is done, and what was planned or prepared and is not. None at the first start of a job.
    pub fn adopted(&self) -> Option<Adopted<'_>> {
        let adoption = self.owned.adoption.as_ref()?;
        let (until, standing, content) = (adoption.until, &adoption.standing, &adoption.start.content);
        Some(Adopted { until, standing, content })
    }

    /// Reads a chunk that what was adopted names. Waits for as long as it takes.
    ///
    /// # Errors
    /// Where no replica has it whole, though all that may have it answer; where a later driver has collected it, of kind
    /// [`Fenced`](crate::error::ErrorKind::Fenced).
    pub async fn get_chunk(&self, chunk: &ChunkRef) -> Result<Bytes> {
        let at_hand = self.owned.adoption.as_ref().and_then(|adoption| adoption.chunks.get(chunk));
        if let Some(content) = at_hand {
            return Ok(content.clone());
        }
        let Owned { job, epoch, panel, .. } = &self.owned;
        let (mut panel, common) = (panel.clone(), &self.checkpoint.common);
        let mut waits = common.back_off();
        loop {
            let sources = sources(&panel);
            let fetched = fetch_chunk(&sources, chunk, *job, common).await;
            let nowhere = fetched.is_nowhere() && panel.silent() == 0;
            if let Some((_, content)) = fetched.copy {
                return Ok(content);
            }
            if let Some((url, why)) = fetched.unreadable {
                return Err(failure::unreadable_chunk(&url, chunk, &why));
            }
            if nowhere {
                let error = claim::deposed_or(failure::no_chunk(chunk), *epoch, &sources).await;
                error.map_or(Ok(()), Err)?;
            }
            waits.wait(&*common.surroundings).await;
            panel.identify_anew().await;
        }
    }

    /// Appends START, and returns once it is decided: from here on this driver may put something out.
    ///
    /// `content` is what the driver says of itself; `keep` are chunks that are to stay though nothing that was adopted names
    /// them, those of savepoints. A NOOP comes after START, which proves to whoever takes over that START was decided: else a
    /// replica that is lost just then could leave it in doubt, and with it what it changes, which is who votes.
    ///
    /// # Errors
    /// One of kind [`Fenced`](crate::error::ErrorKind::Fenced) where a later driver was faster.
    pub async fn start(self, content: Content, keep: &[ChunkRef]) -> Result<Log> {
        let Self { checkpoint, owned } = self;
        let common = checkpoint.common.clone();
        let core = Arc::new(running(owned, content, &common));
        let log = Log { core: Arc::clone(&core), checkpoint };
        lane::start(&core);
        collect::start(&core, keep);
        core.state.until(|state| state.outcome(0)).await?;
        log.append(Entry::noop()).await?;
        common.report(Report::TookOver { epoch: core.epoch });
        Ok(log)
    }
}

/// Every replica of which it is known what it was, though it may have fallen silent since.
fn sources(panel: &Panel) -> Vec<Source<'_>> {
    let seats = panel.seats.iter().enumerate();
    let known = seats.filter_map(|(place, seat)| Some((place, &*seat.replica, seat.job()?.incarnation)));
    known.map(|(place, replica, incarnation)| Source { place, replica, incarnation }).collect()
}

/// The log that begins with START.
fn running(owned: Owned, content: Content, common: &Common) -> Core {
    let Owned { panel, job, epoch, writer, claim, voters, before, adoption } = owned;
    let (adopted, standing) = match adoption {
        Some(adoption) => (Some(adoption.until), adoption.standing),
        None => (None, Standing::default()),
    };
    let standing = Standing { stopped: false, ..standing };
    let start = Start { voters, before, adopted, standing, content };
    let deciders: Vec<Voters> = start.deciders().cloned().collect();
    let (names, standing) = (start.names().into_iter().collect(), start.standing.clone());
    let at = Position { epoch, index: Index(0) };
    let bytes = Sealer { job, writer, secret: common.secret() }.seal(at, &Slot::Start(Box::new(start)));
    let lanes = panel.seats.iter().map(|seat| lane_of(seat, &deciders)).collect();
    let (rules, backlog) = (common.rules(), common.settings.backlog);
    let start = (Held { bytes, names }, standing);
    let state = State::new(epoch, (rules, backlog), deciders, lanes, start);
    let replicas = panel.seats.iter().map(|seat| Arc::clone(&seat.replica)).collect();
    Core { common: common.clone(), job, epoch, writer, claim, replicas, state: Shared::new(state) }
}

fn lane_of(seat: &Seat, deciders: &[Voters]) -> Progress {
    let votes = |incarnation| deciders.iter().any(|voters| voters.contains(incarnation));
    let incarnation = seat.incarnation().filter(|incarnation| votes(*incarnation));
    // Who answers and does not vote gets nothing; who does not answer is asked again who it is.
    let health = if incarnation.is_some() || seat.silent { Health::Works } else { Health::Parked };
    Progress::new(seat.url().to_owned(), incarnation, health)
}
