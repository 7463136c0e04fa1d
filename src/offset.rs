//! Topics, partitions, offsets and the ranges of them that a batch reads.
//!
//! It deliberately knows nothing of Kafka: any source that numbers its records has these.

use std::fmt;
use std::sync::Arc;

/// A topic's name; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(pub Arc<str>);

impl Topic {
    /// The topic called `name`.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition's number within its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record's place within its partition, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition of it.
    pub partition: Partition,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: Topic::new(topic), partition: Partition(partition) }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// The records `[from, until)` of one partition: what a batch reads of it, holes included.
///
/// ```
/// use tidemill::offset::{Offset, OffsetRange, TopicPartition};
/// let range = OffsetRange::new(TopicPartition::new("readings", 0), Offset(5), Offset(8));
/// assert_eq!((range.len(), range.to_string().as_str()), (3, "readings[0] 5..8"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    /// Where.
    pub at: TopicPartition,
    /// The first offset read.
    pub from: Offset,
    /// The first offset not read.
    pub until: Offset,
}

impl OffsetRange {
    /// The records `[from, until)` of `at`.
    pub fn new(at: TopicPartition, from: Offset, until: Offset) -> Self {
        Self { at, from, until }
    }

    /// How many offsets it spans; compaction and transaction markers may leave fewer records.
    pub fn len(&self) -> u64 {
        u64::try_from(self.until.0.saturating_sub(self.from.0)).unwrap_or(0)
    }

    /// Whether it spans no offset.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}..{}", self.at, self.from, self.until)
    }
}
