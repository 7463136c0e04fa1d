//! Notices that nothing comes of records that are there to be read, and that they come again.
//!
//! It deliberately neither knows why nor ends anything: librdkafka heals by itself, so whoever waits is told once, and
//! told again when it is over.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::offset::TopicPartition;

/// How long nothing may come before it is told: longer than a broker takes to restart under a leader's hand-over,
/// shorter than a user looks at a stream that stands still.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a fetch has been waiting in vain.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Duration>,
    looked: Option<Duration>,
    is_told: bool,
    /// The partitions whose logs ended too early at the last look.
    short: BTreeSet<TopicPartition>,
}

/// What is to be told, with how long it has lasted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Silent(Duration),
    /// Nothing has come since it was told: whether there is still something to come is worth another look.
    Still,
    Over(Duration),
}

impl Silence {
    /// Nothing is there at `now`.
    pub(super) fn nothing_came(&mut self, now: Duration) -> Option<News> {
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(self.looked.unwrap_or(since)) < PATIENCE {
            return None;
        }
        self.looked = Some(now);
        let is_told = std::mem::replace(&mut self.is_told, true);
        Some(if is_told { News::Still } else { News::Silent(now.saturating_sub(since)) })
    }

    /// Records have come at `now`, or the end of what was asked for.
    pub(super) fn something_came(&mut self, now: impl FnOnce() -> Duration) -> Option<News> {
        let since = self.since.take()?;
        self.looked = None;
        self.short.clear();
        std::mem::take(&mut self.is_told).then(|| News::Over(now().saturating_sub(since)))
    }

    /// Whether `at`, whose log ends too early, did so at the look before: an end that is on its way is given time to come.
    pub(super) fn is_short_again(&mut self, at: &TopicPartition) -> bool {
        !self.short.insert(at.clone())
    }

    /// How long until it is to be looked at again.
    pub(super) fn next_look(&self, now: Duration) -> Duration {
        (self.looked.or(self.since).unwrap_or(now) + PATIENCE).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_silence_is_told_once_and_so_is_its_end() {
        let mut silence = Silence::default();
        assert_eq!(silence.nothing_came(at(100)), None);
        assert_eq!((silence.nothing_came(at(104)), silence.next_look(at(104))), (None, at(1)));
        assert_eq!(silence.nothing_came(at(106)), Some(News::Silent(at(6))));
        assert_eq!((silence.nothing_came(at(107)), silence.next_look(at(107))), (None, at(4)));
        assert_eq!(silence.nothing_came(at(200)), Some(News::Still));
        assert_eq!(silence.something_came(|| at(210)), Some(News::Over(at(110))));
        assert_eq!(silence.something_came(|| at(211)), None);
    }

    #[test]
    fn a_short_wait_is_no_silence_and_the_next_counts_anew() {
        let mut silence = Silence::default();
        silence.nothing_came(at(0));
        assert_eq!(silence.something_came(|| at(4)), None);
        assert_eq!(silence.nothing_came(at(6)), None);
        assert_eq!(silence.next_look(at(6)), PATIENCE);
    }
}
