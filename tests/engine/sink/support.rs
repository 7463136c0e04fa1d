//! A Kafka to test against: librdkafka's mock, or the broker that `TIDEMILL_TEST_KAFKA` names.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::broker;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::metadata::MetadataTopic;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};
use tidemill::kafka::Cluster;

const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Kafka {
    pub(super) servers: String,
    pub(super) mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

/// A record as it came out of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) partition: i32,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) time: Option<i64>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Kafka {
    pub(super) fn mock() -> Self {
        let mock = MockCluster::new(1).unwrap();
        Self { servers: mock.bootstrap_servers(), mock: Some(mock) }
    }

    /// The real broker; none where there is none to test against, which under CI is a failure.
    pub(super) fn real() -> Option<Self> {
        broker::real().map(|servers| Self { servers, mock: None })
    }

    pub(super) fn topic(&self, partitions: i32) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sink-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match &self.mock {
            Some(mock) => mock.create_topic(&name, partitions, 1).unwrap(),
            None => self.create(&name, partitions),
        }
        name
    }

    fn create(&self, name: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        // Batches of tests are of a time long past: retention would take them while they are read.
        let topic = topic.set("retention.ms", "-1");
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        block_on(admin.create_topics([&topic], &options)).unwrap().remove(0).unwrap();
        // A topic just made is answered for before its broker has heard of it.
        let ask = || admin.inner().fetch_metadata(None, TIMEOUT).unwrap();
        let is_led = |found: &MetadataTopic| found.partitions().iter().all(|one| one.leader() >= 0);
        let all = usize::try_from(partitions).unwrap();
        let is_there =
            |found: &MetadataTopic| found.name() == name && found.partitions().len() == all && is_led(found);
        while !ask().topics().iter().any(is_there) {}
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.servers);
        client
    }

    pub(super) fn cluster(&self, config: &[(&str, &str)]) -> Cluster {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Cluster { config: config.collect::<BTreeMap<_, _>>(), ..Cluster::at(&*self.servers) }
    }

    /// Everything in the topic, partition by partition.
    pub(super) fn read(&self, topic: &str) -> Vec<Got> {
        let mut client = self.client();
        client.set("group.id", "reader").set("enable.auto.commit", "false").set("check.crcs", "true");
        // A fetch that waits at the end of one partition would hold up the next for half a second.
        client.set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = client.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
        let partitions =
            metadata.topics()[0].partitions().iter().map(rdkafka::metadata::MetadataPartition::id);
        partitions.flat_map(|partition| read_partition(&consumer, topic, partition)).collect()
    }
}

impl Kafka {
    /// Everything in the topic that is committed, partition by partition, once nothing is open any more: a commit is
    /// decided before all partitions have heard of it.
    pub(super) fn read_committed(&self, topic: &str) -> Vec<Got> {
        let consumer: BaseConsumer =
            self.client().set("isolation.level", "read_uncommitted").create().unwrap();
        let stable: BaseConsumer = self.client().set("isolation.level", "read_committed").create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
        for partition in metadata.topics()[0].partitions() {
            let end = |of: &BaseConsumer| of.fetch_watermarks(topic, partition.id(), TIMEOUT).unwrap().1;
            while end(&stable) < end(&consumer) {}
        }
        self.read_stable(topic)
    }

    /// The same up to the first record that may still be aborted.
    pub(super) fn read_stable(&self, topic: &str) -> Vec<Got> {
        let mut client = self.client();
        client.set("group.id", "reader").set("enable.auto.commit", "false").set("fetch.wait.max.ms", "10");
        client.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = client.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
        let partitions =
            metadata.topics()[0].partitions().iter().map(rdkafka::metadata::MetadataPartition::id);
        partitions.flat_map(|partition| read_to_end(&consumer, topic, partition)).collect()
    }

    /// The offset that a group has committed for a partition, and the text beside it.
    pub(super) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<(i64, String)> {
        let mut client = self.client();
        client.set("group.id", group).set("isolation.level", "read_committed");
        let consumer: BaseConsumer = client.create().unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition);
        let answer = consumer.committed_offsets(asked, TIMEOUT).unwrap();
        let found = answer.find_partition(topic, partition).unwrap();
        match found.offset() {
            Offset::Offset(offset) => Some((offset, found.metadata().to_owned())),
            _ => None,
        }
    }
}

fn read_to_end(consumer: &BaseConsumer, topic: &str, partition: i32) -> Vec<Got> {
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let mut read = Vec::new();
    loop {
        match consumer.poll(TIMEOUT).unwrap() {
            Ok(message) => read.push(got(&message)),
            Err(KafkaError::PartitionEOF(_)) => return read,
            Err(error) => panic!("{error}"),
        }
    }
}

fn read_partition(consumer: &BaseConsumer, topic: &str, partition: i32) -> Vec<Got> {
    let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT).unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Offset(low)).unwrap();
    consumer.assign(&from).unwrap();
    (low..high).map(|_| got(&consumer.poll(TIMEOUT).unwrap().unwrap())).collect()
}

fn got(message: &impl Message) -> Got {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Got {
        partition: message.partition(),
        key: message.key().map(text),
        value: message.payload().map(text),
        time: message.timestamp().to_millis(),
        headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future that another thread completes.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
