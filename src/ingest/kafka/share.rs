//! What a fetcher may hold of each partition: its budget, cut up between librdkafka's queues and the lanes.
//!
//! It deliberately measures nothing: it says how much to whoever holds messages. What a compressed fetch unpacks to
//! is known when it is there, and counts from then on.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

/// What librdkafka keeps for a message beside its bytes: one allocation that would hold any kind of its news. Of small
/// messages it is most of what a queue takes, and librdkafka's own limit in bytes does not count it.
pub(super) const MESSAGE_OVERHEAD: usize = 1024;

const KIB: usize = 1024;

/// A fetch of more brings no more records a second, and comes later.
const FETCH: usize = KIB * KIB;

/// As many messages as a partition needs to have waiting, so that its lane never waits for the broker: twice what the
/// fastest takes between two fetches. More gains nothing, and costs a kibibyte each that is out of the cache by the time
/// it is read: 100,000 of them took 4 % to 9 % more of the processor.
const QUEUED: usize = 20_000;

/// The bytes of which a partition may hold five times as many.
///
/// librdkafka fills its queue up to one, and exceeds it by one fetch, of another. A lane looks ahead up to one, and
/// what it takes last is at most all that the queue holds, of two more; the queue then fills anew. The lanes of one
/// source share its partitions, and each counts all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    bytes: usize,
    budget: usize,
    /// So many partitions are counted with.
    partitions: usize,
}

/// A setting by which a client's memory is decided.
struct Setting {
    names: &'static [&'static str],
    default: usize,
    most: usize,
}

/// A setting of the user's that is larger than the share allows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) name: &'static str,
    pub(super) wanted: usize,
    pub(super) granted: usize,
}

impl Share {
    /// That of each of `partitions` in `budget` bytes; what a queue needs to work at all is not denied.
    pub(super) fn of(budget: usize, partitions: usize) -> Self {
        let bytes = (budget / (5 * partitions.max(1))).clamp(64 * KIB, KIB * KIB * KIB);
        Self { bytes, budget, partitions }
    }

    /// What is left for each of so many partitions, where they are more than are counted with and get less for it. It
    /// counts with yet more of them: a client has its settings for life, and topics that match a pattern may come one
    /// after the other.
    pub(super) fn among(self, partitions: usize) -> Option<Self> {
        let grown = Self::of(self.budget, partitions.next_power_of_two());
        (partitions > self.partitions && grown.bytes < self.bytes).then_some(grown)
    }

    /// How many partitions it counts with.
    pub(super) fn partitions(self) -> usize {
        self.partitions
    }

    /// The bytes that a look ahead may hold of a partition.
    pub(super) fn look_ahead(self) -> usize {
        self.bytes
    }

    /// Sets in `config` what decides how much its client holds: what `user` has set where that is less, and what the
    /// share allows where it is more; says where it was.
    pub(super) fn limit(self, config: &mut ClientConfig, user: &BTreeMap<String, String>) -> Vec<Cut> {
        self.settings().iter().filter_map(|setting| setting.limit(config, user)).collect()
    }

    fn settings(self) -> [Setting; 3] {
        let (messages, kibibytes) = (self.bytes / MESSAGE_OVERHEAD, self.bytes / KIB);
        [
            Setting { names: &["queued.max.messages.kbytes"], default: kibibytes, most: kibibytes },
            Setting { names: &["queued.min.messages"], default: QUEUED.min(messages), most: messages },
            Setting {
                names: &["fetch.message.max.bytes", "max.partition.fetch.bytes"],
                default: FETCH.min(self.bytes),
                most: self.bytes,
            },
        ]
    }
}

impl Setting {
    fn limit(&self, config: &mut ClientConfig, user: &BTreeMap<String, String>) -> Option<Cut> {
        let mut own = self.names.iter().filter_map(|name| Some((*name, user.get(*name)?))).peekable();
        if own.peek().is_none() {
            let name = self.names.first()?;
            config.set(*name, self.default.to_string());
        }
        // What is no number librdkafka refuses, by its name.
        let cut = own.filter_map(|(name, value)| {
            let wanted = value.trim().parse().ok().filter(|wanted| *wanted > self.most)?;
            config.set(name, self.most.to_string());
            Some(Cut { name, wanted, granted: self.most })
        });
        cut.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = KIB * KIB;

    fn limited(user: &[(&str, &str)]) -> (ClientConfig, Vec<Cut>) {
        let user = user.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut config = ClientConfig::new();
        for (name, value) in &user {
            let (name, value): (&String, &String) = (name, value);
            config.set(name, value);
        }
        let cut = Share::of(80 * MIB, 4).limit(&mut config, &user);
        (config, cut)
    }

    #[test]
    fn what_a_partition_holds_comes_from_the_budget() {
        let (config, cut) = limited(&[]);
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("4096"));
        assert_eq!(config.get("fetch.message.max.bytes"), Some("1048576"));
        assert_eq!(config.get("queued.min.messages"), Some("4096"));
        assert_eq!((cut, Share::of(80 * MIB, 4).look_ahead()), (vec![], 4 * MIB));
    }

    #[test]
    fn what_the_user_sets_counts_up_to_the_budget_and_no_further() {
        let (config, cut) =
            limited(&[("queued.max.messages.kbytes", "1048576"), ("queued.min.messages", "7")]);
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("4096"));
        assert_eq!(config.get("queued.min.messages"), Some("7"));
        let name = "queued.max.messages.kbytes";
        assert_eq!(cut, [Cut { name, wanted: 1_048_576, granted: 4_096 }]);
    }

    #[test]
    fn a_setting_by_its_other_name_is_the_same_setting() {
        let (config, cut) = limited(&[("max.partition.fetch.bytes", "50000000")]);
        assert_eq!(config.get("max.partition.fetch.bytes"), Some("4194304"));
        assert_eq!((config.get("fetch.message.max.bytes"), cut.len()), (None, 1));
    }

    #[test]
    fn what_is_no_number_is_left_for_librdkafka_to_refuse() {
        let (config, cut) = limited(&[("queued.max.messages.kbytes", "plenty")]);
        assert_eq!((config.get("queued.max.messages.kbytes"), cut), (Some("plenty"), vec![]));
    }

    #[test]
    fn more_partitions_get_less_each_and_more_of_them_are_counted_with() {
        let share = Share::of(80 * MIB, 4);
        assert_eq!((share.among(4), share.among(1)), (None, None));
        let grown = share.among(5).unwrap();
        assert_eq!((grown.partitions(), grown.look_ahead()), (8, 2 * MIB));
        assert_eq!(grown.among(8), None);
        assert_eq!(grown.among(9), Some(Share::of(80 * MIB, 16)));
        assert_eq!(Share::of(0, 1).among(100), None, "there is nothing to take away");
    }

    #[test]
    fn a_budget_of_nothing_still_lets_records_through() {
        assert_eq!(Share::of(0, 0).look_ahead(), 64 * KIB);
    }
}
