//! Sources: where records come from, as exact ranges of offsets.
//!
//! A source neither decodes nor stores nor plans: the driver decides which ranges a batch reads, and a source
//! yields exactly those, as [`RawChunk`]s. Two halves share the work. A [`Source`] answers questions (what is
//! there, which offset is meant) and is asked by the driver's planner; a [`Fetcher`] moves the bytes and is owned
//! by one ingest thread. Every source passes the suite in [`contract`].

pub mod contract;
mod cutter;
mod deal;
pub mod kafka;
pub mod scripted;

use std::fmt;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::event::Positions;
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::raw::{RawChunk, RawColumns};
use crate::time::Waker;

pub use deal::deal;

/// What a source knows of one partition at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The partition.
    pub at: TopicPartition,
    /// The topic's own identity: another one means that the topic was deleted and made again.
    pub topic_id: Option<[u8; 16]>,
    /// The first offset still there.
    pub earliest: Offset,
    /// The first offset that may not be read yet: the end, or the first of an open transaction.
    pub stable: Offset,
    /// The leader's epoch, where known.
    pub leader_epoch: Option<i32>,
}

/// What becomes of a source whose records are gone before they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// The stream ends with an error that names them.
    #[default]
    Fail,
    /// They are skipped, counted and told of, and reading goes on with what is there.
    Skip,
}

/// Offsets that will not be read any more, since what was there is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The partition.
    pub at: TopicPartition,
    /// The first that is lost.
    pub from: Offset,
    /// The first that is not known to be lost.
    pub until: Offset,
    /// What has become of them.
    pub cause: LossCause,
}

/// What has become of records that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// Retention has removed them.
    Retention,
    /// The topic is gone, or the partition of it.
    Deleted,
    /// The topic was deleted and made again.
    Recreated,
    /// The log ends before them: a broker has lost what it had, or the topic was made again where ids are not told.
    Shrunk,
}

impl Loss {
    /// How many offsets are lost; those of transaction markers count too.
    ///
    /// ```
    /// use tidemill::ingest::{Loss, LossCause};
    /// use tidemill::offset::{Offset, TopicPartition};
    /// let at = TopicPartition::new("readings", 0);
    /// let loss = Loss { at, from: Offset(5), until: Offset(8), cause: LossCause::Retention };
    /// assert_eq!(loss.offsets(), 3);
    /// assert!(loss.warning().to_string().starts_with("topic readings partition 0: 3 offsets are lost, from 5 until 8"));
    /// ```
    pub fn offsets(&self) -> u64 {
        u64::try_from(self.until.0 - self.from.0).unwrap_or(0)
    }

    /// What is told of it where reading goes on.
    pub fn warning(&self) -> Error {
        let Self { at: TopicPartition { topic, partition }, from, until, cause } = self;
        let (why, next) = match cause {
            LossCause::Retention => (
                "retention removed them before they were read",
                "keep records for longer (retention.ms, retention.bytes), or have the job keep up",
            ),
            LossCause::Deleted => (
                "the topic is gone, or the partition of it",
                "it is read no more; a topic of this name that is made later is read from its beginning",
            ),
            LossCause::Recreated => {
                ("the topic was deleted and made again", "the new one is read from its beginning")
            }
            LossCause::Shrunk => (
                "the log ends before them",
                "look whether brokers have lost what they had (unclean.leader.election.enable)",
            ),
        };
        let lost = self.offsets();
        let message = format!(
            "topic {topic} partition {partition}: {lost} offsets are lost, from {from} until {until}: {why}; reading goes \
             on since on_data_loss is \"skip\""
        );
        Error::data_loss(message).help(next).at(self.at.to_string())
    }
}

/// Where reading starts or ends.
///
/// ```
/// use tidemill::ingest::scripted::ScriptedSource;
/// use tidemill::ingest::{Bound, Source};
/// let source = ScriptedSource::new("readings");
/// source.push(0, None, Some(b"a"), 1_000);
/// source.push(0, None, Some(b"b"), 2_000);
/// let offset = |bound| source.resolve(&bound).map(|positions| positions[0].1.0);
/// assert_eq!(offset(Bound::Earliest)?, 0);
/// assert_eq!(offset(Bound::Timestamp(1_500))?, 1);
/// assert_eq!(offset(Bound::Latest)?, 2);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The first offset still there.
    Earliest,
    /// The last stable offset, as it is now.
    Latest,
    /// The first record at or after this time, in milliseconds since the epoch; the end where there is none.
    Timestamp(i64),
    /// These offsets; every partition of the source must be named.
    Offsets(Positions),
    /// What the consumer group has committed; `fallback` where it has not.
    Committed {
        /// Where the partitions of a topic without any committed offset start. A single partition without one was added
        /// since, and starts at its beginning.
        fallback: Box<Bound>,
    },
}

impl Bound {
    /// Whether it names offsets that were known before, and that the log may have no more or not yet.
    pub fn is_remembered(&self) -> bool {
        matches!(self, Self::Offsets(_) | Self::Committed { .. })
    }
}

/// As the place from which reading goes on: "from the latest record on".
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("the earliest record"),
            Self::Latest => f.write_str("the latest record"),
            Self::Timestamp(millis) => write!(f, "the first record of {millis} ms since 1970 or later"),
            Self::Offsets(_) => f.write_str("the offsets given"),
            Self::Committed { fallback } => write!(f, "the group's offsets (without one, {fallback})"),
        }
    }
}

/// What the planner asks of a place where records come from.
pub trait Source: Send + Sync + fmt::Debug {
    /// The name it has in errors and progress.
    fn name(&self) -> &str;

    /// Every partition there is now, new ones included, in order of topic and partition. May be a little old (for
    /// Kafka 100 ms), but never behind what has arrived at the fetchers; an error may be retriable.
    fn heads(&self) -> Result<Vec<Head>>;

    /// The offset of each partition that `bound` means now.
    fn resolve(&self, bound: &Bound) -> Result<Positions>;

    /// A new way to the records, for one ingest thread; `budget` is how many bytes it may hold back.
    fn fetcher(&self, columns: RawColumns, budget: usize) -> Result<Box<dyn Fetcher>>;

    /// Tells the outside world what has been processed (a consumer group's offsets), best effort: a refusal is
    /// returned, reported as a warning, and never fails a batch. Once `cancel` is set it waits no longer than an
    /// answer takes that is on its way.
    fn acknowledge(&self, positions: &Positions, cancel: &Cancel) -> Result<()>;

    /// What becomes of the stream where its records are gone before they were read.
    fn on_loss(&self) -> OnLoss {
        OnLoss::Fail
    }

    /// What fetches have found gone since this was last asked, of a source that skips it.
    fn take_losses(&self) -> Vec<Loss> {
        Vec::new()
    }

    /// Asks for `waker` to be called when records may have arrived. Where records arrive at the fetchers, as from
    /// Kafka, nothing calls it for a partition that no fetch has named yet: one with an empty range is enough.
    fn subscribe(&self, waker: Waker);
}

/// Takes chunks as they arrive; an error ends the fetch and comes back from it.
pub type ChunkSink<'a> = dyn FnMut(RawChunk) -> Result<()> + 'a;

/// Moves records from a source into a batch; owned and driven by one thread.
pub trait Fetcher: Send {
    /// Yields exactly the records of `ranges`, each partition's in order of offset, cut into chunks counted from
    /// the start of its range ([`crate::raw::CHUNK_ROWS`], [`crate::raw::CHUNK_BYTES`]). Partitions interleave as they arrive.
    ///
    /// `ranges` name every partition that belongs to this fetcher, an empty range where a batch reads nothing of
    /// it; what was read beyond `until` is kept for the next call. Returns when every range is done, a named
    /// error where one cannot be, and early (without error) once `cancel` is set.
    fn fetch(&mut self, ranges: &[OffsetRange], cancel: &Cancel, sink: &mut ChunkSink<'_>) -> Result<()>;
}

/// The error of a source whose records from `wanted` on are gone; `available` is the first still there.
pub(crate) fn data_loss(at: &TopicPartition, wanted: Offset, available: Offset) -> Error {
    let gone = available.0.saturating_sub(wanted.0);
    let TopicPartition { topic, partition } = at;
    let message = format!(
        "topic {topic} partition {partition}: wanted offset {wanted}, but the first one available is {available}: \
         {gone} offsets are lost"
    );
    let help = "retention removed them before they were read: keep records for longer (retention.ms, \
                retention.bytes), or start again with starting=\"earliest\" or on_data_loss=\"skip\" to go \
                on without them";
    Error::data_loss(message).help(help).at(at.to_string())
}

/// The error of a source whose log ends at `end`, before `wanted`, up to which it had been read.
pub(crate) fn shrunk(at: &TopicPartition, wanted: Offset, end: Offset) -> Error {
    let TopicPartition { topic, partition } = at;
    let message =
        format!("topic {topic} partition {partition}: wanted offset {wanted}, but its records end at {end}");
    let help = "the topic was deleted and made again, or its log was cut after a broker's loss: start from \"earliest\", or \
                go on without what is gone with on_data_loss=\"skip\"";
    Error::data_loss(message).help(help).at(at.to_string())
}

/// The offsets that `wanted` names for the partitions `there`, in that order; an error where one is not named
/// or where one is named that does not exist.
pub(crate) fn named_offsets(source: &str, there: &[TopicPartition], wanted: &Positions) -> Result<Positions> {
    if let Some((stranger, _)) = wanted.iter().find(|(at, _)| !there.contains(at)) {
        let known: Vec<String> = there.iter().map(ToString::to_string).collect();
        let message =
            format!("{source}: an offset is given for {stranger}, which is not one of {}", known.join(", "));
        return Err(Error::config(message));
    }
    let offset =
        |at: &TopicPartition| wanted.iter().find(|(named, _)| named == at).map(|(_, offset)| *offset);
    let missing = |at: &TopicPartition| {
        Error::config(format!("{source}: offsets are given, but none for {at}")).help("name every partition")
    };
    there.iter().map(|at| offset(at).map(|offset| (at.clone(), offset)).ok_or_else(|| missing(at))).collect()
}
