//! A librdkafka client as the source needs it: it reads what it is told to and joins no group.
//!
//! It deliberately keeps no offsets: where reading starts is said of every partition.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::Level;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafka;

use crate::ingest::kafka::native;
use crate::ingest::kafka::signal::Signal;
use crate::offset::{Offset, TopicPartition};

/// Keeps what librdkafka last complained of, and passes it on to the log.
#[derive(Default)]
pub(super) struct Context {
    complaint: Mutex<Option<String>>, // written while events are served, read where an error is explained
}

impl ClientContext for Context {
    fn stats(&self, _: Statistics) {}

    /// A connection that fails is told by [`ClientContext::error`] too, which says when it matters.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let level = match level {
            _ if ["FAIL", "ERROR"].contains(&facility) => Level::Debug,
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => Level::Error,
            RDKafkaLogLevel::Warning => Level::Warn,
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => Level::Info,
            RDKafkaLogLevel::Debug => Level::Debug,
        };
        log::log!(target: "tidemill::ingest::kafka", level, "{facility} {text}");
    }

    /// librdkafka heals by itself from what it reports here: it is news, and a failure only to who waits in vain.
    fn error(&self, error: KafkaError, reason: &str) {
        log::info!(target: "tidemill::ingest::kafka", "{error}: {reason}");
        *self.complaint() = Some(reason.to_owned());
    }
}

impl Context {
    fn complaint(&self) -> MutexGuard<'_, Option<String>> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConsumerContext for Context {}

/// One client handle: its own threads and its own connections.
pub(super) struct Client {
    consumer: BaseConsumer<Context>,
}

impl Client {
    pub(super) fn new(config: &ClientConfig) -> KafkaResult<Self> {
        Ok(Self { consumer: BaseConsumer::from_config_and_context(config, Context::default())? })
    }

    /// One that raises `signal` when there is something to be served.
    pub(super) fn with_signal(config: &ClientConfig, signal: &Arc<Signal>) -> KafkaResult<Self> {
        let mut client = Self::new(config)?;
        let waker = signal.waker();
        client.consumer.set_nonempty_callback(move || waker());
        Ok(client)
    }

    /// For the calls in [`native`]; valid as long as the client is.
    pub(super) fn native(&self) -> *mut RDKafka {
        self.consumer.client().native_ptr()
    }

    /// Passes on the log lines and errors that have come up.
    pub(super) fn serve(&self) {
        for _ in 0..native::waiting_events(self) {
            drop(self.consumer.poll(Duration::ZERO));
        }
    }

    /// What librdkafka last complained of, and forgets it.
    pub(super) fn take_complaint(&self) -> Option<String> {
        self.serve();
        self.consumer.context().complaint().take()
    }

    /// What librdkafka last complained of since it was last asked to forget it.
    pub(super) fn complaint(&self) -> Option<String> {
        self.consumer.context().complaint().clone()
    }

    /// Asks the cluster for the partitions of `topic`, or of all topics, and their leaders.
    pub(super) fn topics(
        &self,
        topic: Option<&str>,
        timeout: Duration,
    ) -> KafkaResult<Vec<(String, Vec<i32>)>> {
        let metadata = self.consumer.fetch_metadata(topic, timeout)?;
        let partitions = |topic: &rdkafka::metadata::MetadataTopic| {
            topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()
        };
        let exist = metadata.topics().iter().filter(|topic| topic.error().is_none());
        Ok(exist.map(|topic| (topic.name().to_owned(), partitions(topic))).collect())
    }

    /// What the group has committed for `partitions`, those without a commit left out.
    pub(super) fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> KafkaResult<Vec<(TopicPartition, Offset)>> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            list.add_partition(at.topic.as_str(), at.partition.0);
        }
        let committed = self.consumer.committed_offsets(list, timeout)?;
        let known = committed.elements().into_iter().filter_map(|element| match element.offset() {
            rdkafka::Offset::Offset(offset) => {
                Some((TopicPartition::new(element.topic(), element.partition()), Offset(offset)))
            }
            _ => None,
        });
        Ok(known.collect())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}
