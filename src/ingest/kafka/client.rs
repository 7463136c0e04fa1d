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
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::{RDKafka, RDKafkaRespErr};

use crate::ingest::kafka::native;
use crate::ingest::kafka::signal::Signal;
use crate::kafka::refusal::{Complaint, ask_patiently};
use crate::kafka::token::{LoggedIn, Tokens};
use crate::offset::{Offset, TopicPartition};

/// Keeps what librdkafka last complained of, and passes it on to the log.
#[derive(Default)]
pub(super) struct Context {
    hung_up: Mutex<Option<Complaint>>, // as the other, and looked at only before the first answer
    complaint: Mutex<Option<Complaint>>, // written while events are served, read where an error is explained
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
        if let Some(complaint) = Complaint::of_log(facility, text) {
            *self.hung_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(complaint);
        }
    }

    /// librdkafka heals by itself from what it reports here: it is news, and a failure only to who waits in vain.
    fn error(&self, error: KafkaError, reason: &str) {
        log::info!(target: "tidemill::ingest::kafka", "{error}: {reason}");
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        Complaint::new(code, reason).keep(&mut self.complaint());
    }
}

impl Context {
    fn complaint(&self) -> MutexGuard<'_, Option<Complaint>> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConsumerContext for Context {}

/// With the lines that tell of brokers that hang up; which lines are wanted in the log is the log's to decide.
fn talkative(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    if (config.log_level as i32) < RDKafkaLogLevel::Info as i32 {
        config.set_log_level(RDKafkaLogLevel::Info);
    }
    config
}

/// Topics by name, with the numbers of their partitions.
pub(super) type Topics = Vec<(String, Vec<i32>)>;

/// One client handle: its own threads and its own connections.
pub(super) struct Client {
    consumer: LoggedIn<BaseConsumer<Context>>,
}

impl Client {
    /// One with these settings, that logs in with `tokens` where there are any.
    pub(super) fn new(config: &ClientConfig, tokens: Option<&Tokens>) -> KafkaResult<Self> {
        let consumer = BaseConsumer::from_config_and_context(&talkative(config), Context::default())?;
        Ok(Self { consumer: LoggedIn::new(consumer, tokens) })
    }

    /// One that raises `signal` when there is something to be served.
    pub(super) fn with_signal(
        config: &ClientConfig,
        tokens: Option<&Tokens>,
        signal: &Arc<Signal>,
    ) -> KafkaResult<Self> {
        let mut consumer = BaseConsumer::from_config_and_context(&talkative(config), Context::default())?;
        let waker = signal.waker();
        consumer.set_nonempty_callback(move || waker());
        Ok(Self { consumer: LoggedIn::new(consumer, tokens) })
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
    pub(super) fn take_complaint(&self) -> Option<Complaint> {
        self.serve();
        self.consumer.context().complaint().take()
    }

    /// What librdkafka last complained of since it was last asked to forget it.
    pub(super) fn complaint(&self) -> Option<Complaint> {
        self.consumer.context().complaint().clone()
    }

    /// Asks a cluster for its topics that may not be there, or refuse this client; with what librdkafka said of it.
    pub(super) fn first_topics(
        &self,
        patience: Duration,
        address: &str,
    ) -> (KafkaResult<Topics>, Option<Complaint>) {
        ask_patiently(patience, address, |wait| {
            let topics = self.topics(None, wait);
            self.serve();
            let context = self.consumer.context();
            let hung_up = || context.hung_up.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (topics, self.complaint().or_else(hung_up))
        })
    }

    /// Whether the cluster says that this user may not see `topic`: it is then in no list of topics.
    pub(super) fn is_forbidden(&self, topic: &str, timeout: Duration) -> bool {
        let Ok(metadata) = self.consumer.fetch_metadata(Some(topic), timeout) else { return false };
        let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        metadata.topics().iter().any(|topic| topic.error() == Some(forbidden))
    }

    /// Asks the cluster for the partitions of `topic`, or of all topics, and their leaders.
    pub(super) fn topics(&self, topic: Option<&str>, timeout: Duration) -> KafkaResult<Topics> {
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
