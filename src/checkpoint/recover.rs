//! Going on after more replicas are lost than the log can bear, because somebody accepts the loss.
//!
//! It deliberately never happens by itself. What it gives up is anything that was decided on the replicas that are gone and
//! on none that is left: batches that were done may be done again, and their output may be there twice. The replicas that
//! are given up do not vote any more, so they can do no harm if they come back.

use crate::checkpoint::entry::Position;
use crate::checkpoint::members::restart;
use crate::checkpoint::open::Checkpoint;
use crate::checkpoint::quorum::Voters;
use crate::error::{Error, Result};

/// What was kept, and what may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The first slot that was not found whole: what may have been decided from here on is lost.
    pub until: Position,
    /// The numbers of the replicas that were given up.
    pub gone: Vec<u32>,
    /// Who votes from now on.
    pub voters: Voters,
}

impl Checkpoint {
    /// Makes the replicas that answer the only ones, with what they have. Somebody has accepted that this may lose batches.
    ///
    /// # Errors
    /// Where a driver runs, and where no START is whole on any replica.
    pub async fn recover_accepting_loss(&self) -> Result<Recovered> {
        let takeover = self.take_over_rest().await?;
        let (Some(adopted), Some(old)) = (takeover.adopted(), takeover.old_voters()) else {
            return Err(Error::config("no replica holds a START: there is nothing to recover"));
        };
        let voters = takeover.voters().clone();
        let gone = old.members().iter().filter(|voter| !voters.contains(voter.incarnation));
        let recovered =
            Recovered { until: adopted.until, gone: gone.map(|voter| voter.number).collect(), voters };
        restart(takeover).await?;
        Ok(recovered)
    }
}
