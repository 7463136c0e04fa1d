//! Notices partitions whose last stable offset stands still, and so those that an open transaction may hold back.
//!
//! It deliberately asks nobody: it is told where partitions stand, says of which the end is worth asking for, and what
//! that tells. An end that moves while nothing more may be read looks to whoever waits like a topic that is empty.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ingest::Head;
use crate::offset::{Offset, TopicPartition};

/// How long a last stable offset stands still before its partition's end is asked for, and between two such questions:
/// longer than transactions last that are meant to, so that those are not told of, and shorter than the minute after
/// which a broker ends those of producers that have died.
const PATIENCE: Duration = Duration::from_secs(20);

/// Follows the last stable offsets of all partitions.
#[derive(Debug, Default)]
pub(super) struct Held {
    still: BTreeMap<TopicPartition, Still>,
    asked: Option<Duration>,
}

#[derive(Debug)]
struct Still {
    stable: Offset,
    since: Duration,
    is_told: bool,
}

/// What is to be told of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Records lie behind the last stable offset, where they may not be read.
    Held { stable: Offset, end: Offset, lasted: Duration },
    /// They may be read by now.
    Free { lasted: Duration },
}

impl Held {
    /// Takes in where partitions stand at `now`; says which of those that were told of have moved.
    pub(super) fn observe<'a>(
        &mut self,
        heads: impl Iterator<Item = &'a Head>,
        now: Duration,
    ) -> Vec<(TopicPartition, News)> {
        let mut news = Vec::new();
        for Head { at, stable, .. } in heads {
            let fresh = Still { stable: *stable, since: now, is_told: false };
            let Some(still) = self.still.get_mut(at) else {
                self.still.insert(at.clone(), fresh);
                continue;
            };
            if still.stable == *stable {
                continue;
            }
            if still.is_told {
                news.push((at.clone(), News::Free { lasted: now.saturating_sub(still.since) }));
            }
            *still = fresh;
        }
        news
    }

    /// The partitions whose ends are worth asking for at `now`; none as long as the last answer is new.
    pub(super) fn doubtful(&mut self, now: Duration) -> Vec<TopicPartition> {
        if self.asked.is_some_and(|asked| now.saturating_sub(asked) < PATIENCE) {
            return Vec::new();
        }
        let stand = |still: &Still| !still.is_told && now.saturating_sub(still.since) >= PATIENCE;
        let doubtful: Vec<TopicPartition> =
            self.still.iter().filter(|(_, still)| stand(still)).map(|(at, _)| at.clone()).collect();
        if !doubtful.is_empty() {
            self.asked = Some(now);
        }
        doubtful
    }

    /// What the ends tell of a partition, once.
    pub(super) fn judge(&mut self, at: &TopicPartition, end: Offset, now: Duration) -> Option<News> {
        let still = self.still.get_mut(at).filter(|still| !still.is_told && end > still.stable)?;
        still.is_told = true;
        Some(News::Held { stable: still.stable, end, lasted: now.saturating_sub(still.since) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(stable: i64) -> Head {
        let (at, earliest) = (at(), Offset(0));
        Head { at, topic_id: None, earliest, stable: Offset(stable), leader_epoch: None }
    }

    fn at() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_stands_still_before_its_end_is_told_once_and_so_is_that_it_moves() {
        let mut held = Held::default();
        assert_eq!(held.observe([head(5)].iter(), seconds(0)), []);
        assert_eq!(held.doubtful(seconds(19)), []);
        held.observe([head(5)].iter(), seconds(21));
        assert_eq!(held.doubtful(seconds(21)), [at()]);
        let (stable, end, lasted) = (Offset(5), Offset(9), seconds(21));
        assert_eq!(held.judge(&at(), end, seconds(21)), Some(News::Held { stable, end, lasted }));
        assert_eq!((held.doubtful(seconds(99)), held.judge(&at(), end, seconds(99))), (vec![], None));
        let free = News::Free { lasted: seconds(100) };
        assert_eq!(held.observe([head(9)].iter(), seconds(100)), [(at(), free)]);
        assert_eq!(held.observe([head(10)].iter(), seconds(101)), []);
    }

    #[test]
    fn a_partition_that_is_read_to_its_end_is_asked_for_now_and_then_and_never_told() {
        let mut held = Held::default();
        held.observe([head(5)].iter(), seconds(0));
        assert_eq!(held.doubtful(seconds(20)), [at()]);
        assert_eq!(held.judge(&at(), Offset(5), seconds(20)), None);
        assert_eq!(held.doubtful(seconds(30)), []);
        assert_eq!(held.doubtful(seconds(40)), [at()]);
    }
}
