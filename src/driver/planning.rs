//! Which offsets a batch reads: from the positions reached to what is there, within every limit.
//!
//! It follows each partition from batch to batch and asks nobody: heads, sizes and times are given to it. It
//! deliberately does not decide when a batch is due.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::driver::Limits;
use crate::driver::memory::Memory;
use crate::driver::share::{Claim, share};
use crate::driver::watermark::{Place, Standing};
use crate::error::{Error, Result};
use crate::event::Positions;
use crate::exec::PartitionReport;
use crate::ingest::{Head, Loss, LossCause, OnLoss, data_loss, shrunk};
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::plan::SourceId;
use crate::time::BatchTime;

/// A partition of which no record has been seen may have records of any size: so many are tried first.
const UNKNOWN_RECORDS: u64 = 10_000;

/// What a record is taken to have until one has been seen of any partition, in bytes: where memory is short for so many
/// partitions, fewer are tried. Hardly a topic has larger ones in the mean, and a first batch that is too small costs one
/// batch, where one that is too large fails at each start.
const UNKNOWN_SIZE: u64 = 64 * 1_024;

/// How many batches a partition's record size is remembered for.
const SIZE_HISTORY: usize = 16;

/// Records may be this much larger than the largest mean seen before memory runs short.
const SIZE_MARGIN: u64 = 2;

/// Two batches are in flight at once, so that each may plan with this part of the memory.
const BATCHES_IN_MEMORY: u64 = 2;

/// How a source is to be planned.
#[derive(Clone, Debug)]
pub struct SourceRule {
    /// The name, for errors.
    pub name: String,
    /// Whether it is read to an end that was resolved at start.
    pub bounded: bool,
    /// At most this many records a second and partition.
    pub max_rate: Option<f64>,
    /// What becomes of it where records are gone.
    pub on_loss: OnLoss,
}

/// How time counts for the rates.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What the first batch is taken to span.
    pub first: Duration,
    /// At most this much of the time between two batches adds to what a partition may bring.
    pub longest: Duration,
}

/// What a batch would read, before anything is decided.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The batch's time.
    pub time: BatchTime,
    /// Up to when the rates allow for it.
    paced: BatchTime,
    /// What it reads of each source, empty ranges included.
    pub ranges: Vec<(SourceId, Vec<OffsetRange>)>,
    /// How each partition stands in it.
    pub standings: Vec<(Place, Standing)>,
}

impl Draft {
    /// Whether it reads nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.iter().flat_map(|(_, ranges)| ranges).all(OffsetRange::is_empty)
    }

    /// How many offsets it reads.
    pub fn records(&self) -> u64 {
        self.ranges.iter().flat_map(|(_, ranges)| ranges).map(OffsetRange::len).sum()
    }

    /// The partitions of which nothing is left to read after it.
    pub fn at_end(&self, planner: &Planner) -> Vec<Place> {
        let ranges =
            self.ranges.iter().flat_map(|(source, ranges)| ranges.iter().map(|range| (*source, range)));
        let places = ranges.map(|(source, range)| ((source, range.at.clone()), range.until));
        places
            .filter(|(place, until)| planner.end_of(place) == Some(*until))
            .map(|(place, _)| place)
            .collect()
    }
}

/// One partition as it is followed.
#[derive(Clone, Debug)]
struct Followed {
    position: Offset,
    ending: Option<Offset>,
    head: Option<Head>,
    topic_id: Option<[u8; 16]>, // that was remembered, until there is a head
    sizes: VecDeque<u64>,       // mean bytes a record, of the batches that brought any
    allowance: f64,             // records that the rate allows, as of the plan before
}

impl Followed {
    fn starting(position: Offset, ending: Option<Offset>) -> Self {
        Self { position, ending, head: None, topic_id: None, sizes: VecDeque::new(), allowance: 0.0 }
    }

    /// Where reading has to stop for now.
    fn end(&self) -> Offset {
        let stable = self.head.as_ref().map_or(self.position, |head| head.stable);
        self.ending.map_or(stable, |ending| ending.min(stable)).max(self.position)
    }

    fn backlog(&self) -> u64 {
        u64::try_from(self.end().0 - self.position.0).unwrap_or(0)
    }

    fn has_ended(&self) -> bool {
        self.ending.is_some_and(|ending| self.position >= ending)
    }

    fn record_size(&self) -> Option<u64> {
        self.sizes.iter().copied().max()
    }
}

/// Follows every partition of every source.
#[derive(Clone, Debug)]
pub struct Planner {
    rules: Vec<SourceRule>,
    limits: Limits,
    allowed: Option<u64>,
    pace: Pace,
    begun: Option<BatchTime>, // when rates were first asked for
    last: Option<BatchTime>,
    followed: BTreeMap<Place, Followed>,
}

impl Planner {
    /// Follows nothing yet.
    pub fn new(rules: Vec<SourceRule>, limits: Limits, pace: Pace) -> Self {
        Self { rules, limits, allowed: None, pace, begun: None, last: None, followed: BTreeMap::new() }
    }

    /// Rates count from `now` on, beside what the first batch is taken to span; asking again changes nothing. Where they are
    /// so low that a batch would read nothing, the time until one reads something counts too.
    pub fn begin(&mut self, now: BatchTime) {
        self.begun.get_or_insert(now);
    }

    /// Holds the batches from here on to so many records; none: to what the limits say.
    pub fn allow(&mut self, records: Option<u64>) {
        self.allowed = records;
    }

    /// Begins to follow `source` at `starting`, up to `ending` where it is bounded. A partition of a bounded
    /// source without an ending was not there when the ending was asked for: nothing of it is read.
    pub fn follow(&mut self, source: SourceId, starting: &Positions, ending: Option<&Positions>) {
        for (at, position) in starting {
            let ending = ending.map(|ending| offset_of(ending, at).unwrap_or(*position));
            self.followed.insert((source, at.clone()), Followed::starting(*position, ending));
        }
    }

    /// What was remembered of the partitions of `source`, which are followed already: of which topics they are, and how large
    /// their records.
    pub fn recall(&mut self, source: SourceId, memory: &Memory) {
        for (place, known) in memory.places.iter().filter(|((of, _), _)| *of == source) {
            let Some(followed) = self.followed.get_mut(place) else { continue };
            followed.topic_id = known.topic_id;
            let newest = known.sizes.len().saturating_sub(SIZE_HISTORY);
            followed.sizes = known.sizes.iter().skip(newest).copied().collect();
        }
    }

    /// Has `memory` take in what it knows beside the positions, which are those of a batch.
    pub fn remember(&self, memory: &mut Memory) {
        for (place, followed) in &self.followed {
            let known = memory.place(place);
            known.topic_id = followed.head.as_ref().map_or(followed.topic_id, |head| head.topic_id);
            known.sizes = followed.sizes.iter().copied().collect();
        }
    }

    /// Takes in what a source says of its partitions. New ones are followed from their beginning; records that are
    /// gone before they were read, and partitions that are gone or are others by the same name, are an error, or
    /// skipped and given back where the source's rule says so. Of those:
    ///
    /// * what retention took: reading goes on with the first offset that is there;
    /// * a partition that is gone is let go; one of its name that comes later is followed as any new one;
    /// * a topic that was made again is read from its beginning;
    /// * a log that has become shorter is read on from its new end, since all before that had been read; where nothing
    ///   tells whether the topic was made again, from its beginning.
    pub fn observe(&mut self, source: SourceId, heads: &[Head]) -> Result<Vec<Loss>> {
        let on_loss = self.rules.get(source.0).map_or(OnLoss::Fail, |rule| rule.on_loss);
        let mut losses = match on_loss {
            OnLoss::Fail => self.check_present(source, heads).map(|()| Vec::new())?,
            OnLoss::Skip => self.let_go(source, heads),
        };
        let bounded = self.rules.get(source.0).is_some_and(|rule| rule.bounded);
        for head in heads {
            let place = (source, head.at.clone());
            if !bounded {
                let fresh = || Followed::starting(head.earliest, None);
                self.followed.entry(place.clone()).or_insert_with(fresh);
            }
            if let Some(followed) = self.followed.get_mut(&place) {
                if let Some(gone) = Gone::seen(followed, head) {
                    match on_loss {
                        OnLoss::Fail => return Err(gone.error(followed, head)),
                        OnLoss::Skip => losses.push(gone.skip(followed, head)),
                    }
                }
                followed.head = Some(head.clone());
            }
        }
        Ok(losses)
    }

    /// Follows no more what is gone, and says what was still to be read of it.
    fn let_go(&mut self, source: SourceId, heads: &[Head]) -> Vec<Loss> {
        let mut losses = Vec::new();
        self.followed.retain(|(of, at), followed| {
            let is_gone = *of == source && !heads.iter().any(|head| head.at == *at);
            if is_gone && !followed.has_ended() {
                let (from, until, cause) = (followed.position, followed.end(), LossCause::Deleted);
                losses.push(Loss { at: at.clone(), from, until, cause });
            }
            !is_gone
        });
        losses
    }

    fn check_present(&self, source: SourceId, heads: &[Head]) -> Result<()> {
        let known = self.followed.iter().filter(|((of, _), followed)| *of == source && !followed.has_ended());
        let gone = known.map(|((_, at), _)| at).find(|at| !heads.iter().any(|head| head.at == **at));
        let Some(at) = gone else { return Ok(()) };
        let name = self.rules.get(source.0).map_or("", |rule| rule.name.as_str());
        let message = format!("expected partition {at} in source {name}, found it gone");
        Err(Error::data_loss(message)
            .help("start again once the topic is there, or without it; on_data_loss=\"skip\" lets go what is gone")
            .at(at.to_string()))
    }

    /// What a batch at `time` would read, when it is `now`: small batches that follow each other without ticks have times
    /// ahead of the clock, and what the rates allow goes by the clock.
    pub fn draft(&self, time: BatchTime, now: BatchTime) -> Draft {
        let paced = time.min(now);
        let counts = self.counts(paced);
        let mut ranges: Vec<_> = (0..self.rules.len()).map(|source| (SourceId(source), Vec::new())).collect();
        let mut standings = Vec::with_capacity(counts.len());
        for ((place, followed), count) in self.followed.iter().zip(counts) {
            let until = Offset(followed.position.0.saturating_add_unsigned(count));
            if let Some((_, ranges)) = ranges.get_mut(place.0.0) {
                ranges.push(OffsetRange::new(place.1.clone(), followed.position, until));
            }
            standings.push((place.clone(), standing(followed, count)));
        }
        Draft { time, paced, ranges, standings }
    }

    /// Makes `draft` the next batch: the one after it reads on from where it ends.
    pub fn adopt(&mut self, draft: &Draft) {
        let elapsed = self.elapsed(draft.paced);
        self.last = Some(draft.paced);
        for (source, ranges) in &draft.ranges {
            let rate = self.rules.get(source.0).and_then(|rule| rule.max_rate);
            for range in ranges {
                let Some(followed) = self.followed.get_mut(&(*source, range.at.clone())) else { continue };
                followed.position = range.until;
                if let Some(rate) = rate {
                    followed.allowance = allowance(followed, rate, elapsed, self.pace) - range.len() as f64;
                }
            }
        }
    }

    /// Learns from a mapped batch how large records are.
    pub fn learn(&mut self, reports: &[PartitionReport]) {
        for report in reports.iter().filter(|report| report.records > 0) {
            let Some(followed) = self.followed.get_mut(&(report.source, report.at.clone())) else { continue };
            if followed.sizes.len() == SIZE_HISTORY {
                followed.sizes.pop_front();
            }
            followed.sizes.push_back(report.bytes.div_ceil(report.records).max(1));
        }
    }

    /// Whether every source is bounded and has been read to its end.
    pub fn has_ended(&self) -> bool {
        self.rules.iter().all(|rule| rule.bounded) && self.followed.values().all(Followed::has_ended)
    }

    /// Whether there is something to read, whatever the limits say.
    pub fn has_backlog(&self) -> bool {
        self.followed.values().any(|followed| followed.backlog() > 0)
    }

    /// How far `range`, which has been read, stays behind what is there now.
    pub fn lag(&self, source: SourceId, range: &OffsetRange) -> u64 {
        let followed = self.followed.get(&(source, range.at.clone()));
        let stable = followed.and_then(|followed| followed.head.as_ref()).map(|head| head.stable);
        stable.map_or(0, |stable| u64::try_from(stable.0 - range.until.0).unwrap_or(0))
    }

    fn end_of(&self, place: &Place) -> Option<Offset> {
        self.followed.get(place).map(Followed::end)
    }

    /// How many offsets of each partition fit all limits, in the order of `followed`.
    fn counts(&self, time: BatchTime) -> Vec<u64> {
        let elapsed = self.elapsed(time);
        let claim = |((source, _), followed): (&Place, &Followed)| {
            let backlog = followed.backlog();
            let rated =
                self.rules.get(source.0).and_then(|rule| rule.max_rate).map_or(backlog, |rate| {
                    backlog.min(whole(allowance(followed, rate, elapsed, self.pace)))
                });
            let tried = if followed.sizes.is_empty() { rated.min(UNKNOWN_RECORDS) } else { rated };
            Claim { wants: tried, weight: backlog }
        };
        let claims: Vec<Claim> = self.followed.iter().map(claim).collect();
        let most =
            self.allowed.map_or(self.limits.max_records, |allowed| allowed.min(self.limits.max_records));
        self.within_memory(share(most, &claims))
    }

    /// Scales `counts` down to what the records' sizes leave room for; every partition keeps at least one record,
    /// since one that never fits must fail with its name and not stand still.
    fn within_memory(&self, counts: Vec<u64>) -> Vec<u64> {
        let unknown = self.followed.values().filter_map(Followed::record_size).max().unwrap_or(UNKNOWN_SIZE);
        let size =
            |followed: &Followed| followed.record_size().unwrap_or(unknown).saturating_mul(SIZE_MARGIN);
        let bytes = |(followed, count): (&Followed, &u64)| u128::from(size(followed)) * u128::from(*count);
        let total: u128 = self.followed.values().zip(&counts).map(bytes).sum();
        let room = u128::from(self.limits.max_memory / BATCHES_IN_MEMORY);
        if total <= room {
            return counts;
        }
        let scale =
            |count: u64| u64::try_from(u128::from(count) * room / total).unwrap_or(count).max(1).min(count);
        counts.into_iter().map(scale).collect()
    }

    fn elapsed(&self, time: BatchTime) -> Duration {
        let since_begun = || self.begun.map_or(Duration::ZERO, |begun| time.since(begun));
        self.last.map_or_else(|| self.pace.first + since_begun(), |last| time.since(last))
    }
}

fn standing(followed: &Followed, count: u64) -> Standing {
    match (count, followed.backlog()) {
        (1.., backlog) if count >= backlog => Standing::CatchesUp,
        (1.., _) => Standing::Reads,
        (0, 1..) => Standing::Lags,
        (0, 0) if followed.has_ended() => Standing::Ended,
        (0, 0) => Standing::AtEnd,
    }
}

/// How many records the rate allows by now. Fractions are kept from batch to batch, so that a low rate is met
/// exactly and not rounded to nothing; what was left unused is worth no more than the longest step.
fn allowance(followed: &Followed, rate: f64, elapsed: Duration, pace: Pace) -> f64 {
    let most = (rate * pace.longest.as_secs_f64()).max(1.0);
    (followed.allowance + rate * elapsed.as_secs_f64()).min(most)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, as is wanted")]
fn whole(records: f64) -> u64 {
    records.max(0.0) as u64
}

/// That no partition starts beyond the end of its log: its records would be awaited for ever, without a word.
pub(crate) fn check_there(starting: &Positions, ends: &Positions) -> Result<()> {
    let Some((at, from, end)) = beyond(starting, ends).next() else { return Ok(()) };
    let message = format!(
        "topic {} partition {}: wanted offset {from}, but the log ends at {end}",
        at.topic, at.partition
    );
    let help = "the topic may have lost records or been made again; start at an offset that is there, or with \
                starting=\"earliest\" or \"latest\"";
    Err(Error::data_loss(message).help(help).at(at.to_string()))
}

/// What has become of records that a partition was still to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone(LossCause);

impl Gone {
    /// What `head` tells of records that are gone.
    fn seen(followed: &Followed, head: &Head) -> Option<Self> {
        if followed.has_ended() {
            return None;
        }
        let before = followed.head.as_ref();
        let id = before.map_or(followed.topic_id, |before| before.topic_id);
        if id.is_some_and(|before| head.topic_id.is_some_and(|now| now != before)) {
            return Some(Self(LossCause::Recreated));
        }
        // A first head may be older than a position that is right.
        let shrinks = before.is_some_and(|before| head.stable < before.stable);
        if shrinks && head.stable < followed.position {
            return Some(Self(LossCause::Shrunk));
        }
        (followed.position < head.earliest).then_some(Self(LossCause::Retention))
    }

    fn error(self, followed: &Followed, head: &Head) -> Error {
        match self.0 {
            LossCause::Shrunk => shrunk(&head.at, followed.position, head.stable),
            LossCause::Recreated | LossCause::Deleted => {
                let message =
                    format!("topic {} was deleted and made again while it was being read", head.at.topic);
                Error::data_loss(message)
                    .help("start again to read the new one; on_data_loss=\"skip\" does so by itself")
                    .at(head.at.to_string())
            }
            LossCause::Retention => data_loss(&head.at, followed.position, head.earliest),
        }
    }

    /// Has `followed` read on with what is there.
    fn skip(self, followed: &mut Followed, head: &Head) -> Loss {
        let from = followed.position;
        let (next, until) = match self.0 {
            LossCause::Retention => (head.earliest, head.earliest),
            LossCause::Shrunk if head.topic_id.is_some() => (head.stable.max(head.earliest), followed.end()),
            LossCause::Shrunk | LossCause::Recreated | LossCause::Deleted => (head.earliest, followed.end()),
        };
        let most = followed.ending.unwrap_or(Offset(i64::MAX));
        if self.0 != LossCause::Retention {
            // An end that was resolved in the log before means nothing in this one: what is there now is read.
            followed.ending = followed.ending.map(|_| head.stable.max(next));
            followed.sizes.clear();
        }
        followed.position = followed.ending.map_or(next, |ending| next.min(ending));
        Loss { at: head.at.clone(), from, until: until.min(most).max(from), cause: self.0 }
    }
}

/// Has each partition that would start beyond the end of its log start at its beginning: the topic has most likely been
/// made again since the offset was remembered. With what is told of each.
pub(crate) fn restart(starting: &mut Positions, ends: &Positions, beginnings: &Positions) -> Vec<Loss> {
    let losses: Vec<Loss> = beyond(starting, ends)
        .map(|(at, from, _)| Loss { at: at.clone(), from, until: from, cause: LossCause::Shrunk })
        .collect();
    for (at, from) in starting.iter_mut().filter(|(at, _)| losses.iter().any(|loss| loss.at == *at)) {
        *from = offset_of(beginnings, at).unwrap_or(*from);
    }
    losses
}

/// The partitions that start beyond the end of their log, with both.
fn beyond<'a>(
    starting: &'a Positions,
    ends: &'a Positions,
) -> impl Iterator<Item = (&'a TopicPartition, Offset, Offset)> {
    let found = |(at, from): &'a (TopicPartition, Offset)| {
        offset_of(ends, at).filter(|end| from > end).map(|end| (at, *from, end))
    };
    starting.iter().filter_map(found)
}

fn offset_of(positions: &Positions, wanted: &TopicPartition) -> Option<Offset> {
    positions.iter().find(|(at, _)| at == wanted).map(|(_, offset)| *offset)
}
