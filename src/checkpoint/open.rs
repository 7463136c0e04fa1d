//! Opening a checkpoint: from a list of replicas to a running log.
//!
//! It deliberately does in two steps what could be one. First an epoch is claimed and the past adopted; then the driver
//! looks at what was adopted, and may refuse it; and only its START makes the epoch real.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::adopt::Chunks;
use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::entry::Position;
use crate::checkpoint::fetch::{Source, fetch_chunk};
use crate::checkpoint::id::{Epoch, Index, JobId};
use crate::checkpoint::lane::{self, Core};
use crate::checkpoint::log::Log;
use crate::checkpoint::members::Change;
use crate::checkpoint::panel::{Panel, Seat};
use crate::checkpoint::quorum::{MAX_VOTERS, Voters};
use crate::checkpoint::replica::Replica;
use crate::checkpoint::report::{Report, Reporter};
use crate::checkpoint::settings::{Common, Settings};
use crate::checkpoint::shared::Shared;
use crate::checkpoint::slot::{Sealer, Slot};
use crate::checkpoint::standing::Standing;
use crate::checkpoint::start::{Content, Start};
use crate::checkpoint::state::{Health, Held, Lane, State};
use crate::checkpoint::surroundings::Surroundings;
use crate::checkpoint::takeover::{Loss, Owned, Purpose, Stop, attempt};
use crate::checkpoint::{collect, failure, lease};
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

    /// Claims an epoch and adopts what was decided before; other drivers of the job can decide nothing any more.
    ///
    /// Waits for as long as too few replicas answer, and while another driver runs where that was asked for.
    ///
    /// # Errors
    /// Where another driver runs; where too many replicas are gone for good; where the list of replicas is not that of the
    /// voters; where a new job cannot be told from a lost one.
    pub async fn take_over(&self) -> Result<TakeOver> {
        lease::wait_for_others(&self.panel, &self.common).await?;
        self.own(Purpose { own: None, chunks: Chunks::Read, change: Change::None, loss: Loss::Refuse }).await
    }

    /// The same by the driver of `epoch`, while no other is newer.
    pub(super) async fn roll_from(&self, epoch: Epoch) -> Result<TakeOver> {
        let (own, chunks) = (Some(epoch), Chunks::Trusted);
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
        loop {
            match attempt(self.panel.clone(), &self.common, &mut purpose).await {
                Ok(owned) => return Ok(TakeOver { checkpoint: self.clone(), owned }),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Again(why)) => self.common.report(Report::TryingAgain { why }),
            }
            waits.wait(&*self.common.surroundings).await;
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({})", self.panel.urls(|_| true).join(", "))
    }
}

/// An epoch that is claimed but not started: the time to look at what was adopted.
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

    /// What was adopted; none at the first start of a job.
    pub fn adopted(&self) -> Option<Adopted<'_>> {
        let adoption = self.owned.adoption.as_ref()?;
        let (until, standing, content) = (adoption.until, &adoption.standing, &adoption.start.content);
        Some(Adopted { until, standing, content })
    }

    /// Reads a chunk that what was adopted names.
    pub async fn get_chunk(&self, chunk: &ChunkRef) -> Result<Bytes> {
        let at_hand = self.owned.adoption.as_ref().and_then(|adoption| adoption.chunks.get(chunk));
        if let Some(content) = at_hand {
            return Ok(content.clone());
        }
        let (panel, common) = (&self.owned.panel, &self.checkpoint.common);
        let source = |(place, seat): (usize, &'_ Seat)| {
            let incarnation = seat.job()?.incarnation;
            Some((place, Arc::clone(&seat.replica), incarnation))
        };
        let seats: Vec<_> = panel.seats.iter().enumerate().filter_map(source).collect();
        let sources: Vec<Source<'_>> = seats
            .iter()
            .map(|(place, replica, incarnation)| Source { place: *place, replica: &**replica, incarnation: *incarnation })
            .collect();
        let mut waits = common.back_off();
        loop {
            let fetched = fetch_chunk(&sources, chunk, self.owned.job, common).await;
            match fetched.copy {
                Some((_, content)) => return Ok(content),
                None if fetched.failed.is_empty() => return Err(failure::no_chunk(&format!("chunk {}", chunk.hash))),
                None => waits.wait(&*common.surroundings).await,
            }
        }
    }

    /// Appends START, and a NOOP, which proves to whoever comes that START was decided; returns once it is, too. Else a replica
    /// that is lost just then could leave START in doubt, and with it what it changes: who votes. `keep` are chunks that are to stay though nothing adopted names them.
    ///
    /// # Errors
    /// One of kind `Fenced` where a later driver was faster.
    pub async fn start(self, content: Content, keep: &[ChunkRef]) -> Result<Log> {
        let Self { checkpoint, owned } = self;
        let common = checkpoint.common.clone();
        let core = Arc::new(running(owned, content, &common));
        let log = Log { core: Arc::clone(&core), checkpoint };
        lane::start(&core);
        collect::start(&core, keep);
        core.state.until(|state| state.outcome(0)).await?;
        log.noop().await?;
        common.report(Report::TookOver { epoch: core.epoch });
        Ok(log)
    }
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

fn lane_of(seat: &Seat, deciders: &[Voters]) -> Lane {
    let votes = |incarnation| deciders.iter().any(|voters| voters.contains(incarnation));
    let incarnation = seat.incarnation().filter(|incarnation| votes(*incarnation));
    // Who answers and does not vote gets nothing; who does not answer is asked again who it is.
    let health = if incarnation.is_some() || seat.silent { Health::Works } else { Health::Parked };
    Lane::new(seat.url().to_owned(), incarnation, health)
}
