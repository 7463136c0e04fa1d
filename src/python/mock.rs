//! A broker inside the process and a plain producer, for demonstrations.
//!
//! The broker is librdkafka's own mock cluster: the real protocol on a loopback port, records in memory only.
//! Neither is for production, and neither is part of the engine.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use pyo3::prelude::*;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::error::{Error, ErrorKind, Result};
use crate::kafka::{Cluster, explain};
use crate::python::gil;
use crate::python::units::Span;

/// How long a full queue or an unsent record is polled for before it is looked at again.
const POLL: Duration = Duration::from_millis(1);

/// How long a record may be on its way before it counts as lost: less than the demonstration's last wait, so that
/// a broker that has gone is told as what it is.
const DELIVERY: Duration = Duration::from_secs(8);

/// How long a broker may take to make a topic before it counts as not there.
const ANSWER: Duration = Duration::from_secs(10);

/// Kafka brokers inside this process, on loopback ports.
///
/// Args:
///     brokers: how many; 1 by default.
///
/// They keep 5 MiB a partition, in memory, and end with the process or with `close`.
#[pyclass(frozen, module = "tidemill._native")]
pub(crate) struct MockBroker {
    /// The client that owns the mock cluster; taken out by `close`, on whichever thread.
    owner: Mutex<Option<BaseProducer>>,
    servers: String,
}

#[pymethods]
impl MockBroker {
    #[new]
    #[pyo3(signature = (brokers = 1))]
    fn new(brokers: u32) -> PyResult<Self> {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", brokers.to_string());
        let owner: BaseProducer = config.create().map_err(refused)?;
        let servers = owner.client().mock_cluster().map(|cluster| cluster.bootstrap_servers());
        let servers = servers.ok_or_else(|| Error::internal("librdkafka made no mock cluster"))?;
        Ok(Self { owner: Mutex::new(Some(owner)), servers })
    }

    /// Where it listens: `host:port`, several separated by commas.
    #[getter]
    fn bootstrap_servers(&self) -> &str {
        &self.servers
    }

    /// Makes a topic.
    fn create_topic(&self, name: &str, partitions: i32) -> PyResult<()> {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = owner.as_ref().and_then(|owner| owner.client().mock_cluster());
        let cluster = cluster.ok_or_else(|| Error::source("the mock broker has been closed"))?;
        Ok(cluster.create_topic(name, partitions, 1).map_err(refused)?)
    }

    /// Ends the brokers; their records are gone.
    fn close(&self, py: Python<'_>) {
        gil::release(py, || drop(self.owner.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}

/// Counts the records that did not arrive, and keeps the first reason.
#[derive(Default)]
struct Deliveries {
    lost: Mutex<Lost>, // written while the producer polls, read by its owner; held for a count
}

#[derive(Default)]
struct Lost {
    records: u64,
    reason: Option<KafkaError>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((reason, _)) = result {
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.records += 1;
            lost.reason.get_or_insert_with(|| reason.clone());
        }
    }
}

impl Deliveries {
    /// An error where records were lost since it was last asked.
    fn check(&self) -> Result<()> {
        let lost = std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(reason) = lost.reason else { return Ok(()) };
        let text = format!("{} records did not arrive, the first because of: {reason}", lost.records);
        Err(Error::sink(text).caused_by(reason))
    }
}

/// A plain Kafka producer.
///
/// Args:
///     `bootstrap_servers`: `host:port`, several separated by commas.
///     timeout: how long a record may be on its way before it counts as lost; 8 s by default.
///
/// A record that is lost is told by the next `send` or `flush`.
#[pyclass(frozen, module = "tidemill._native")]
pub(crate) struct DemoProducer {
    /// Taken out by `close`; every other use is short and polls without the GIL.
    producer: Mutex<Option<BaseProducer<Deliveries>>>,
    servers: String,
}

#[pymethods]
impl DemoProducer {
    #[new]
    #[pyo3(signature = (bootstrap_servers, timeout = None))]
    fn new(bootstrap_servers: &str, timeout: Option<Span>) -> PyResult<Self> {
        let timeout = timeout.map_or(DELIVERY, |span| span.0).as_millis().to_string();
        let mut config = client(bootstrap_servers);
        config.set("linger.ms", "5").set("acks", "1").set("partitioner", "murmur2_random");
        config.set("message.timeout.ms", timeout);
        let producer = config.create_with_context(Deliveries::default()).map_err(refused)?;
        Ok(Self { producer: Mutex::new(Some(producer)), servers: bootstrap_servers.to_owned() })
    }

    /// Makes a topic with the broker's default replication, and says whether it is new: one that exists already is left
    /// as it is.
    fn create_topic(&self, py: Python<'_>, name: &str, partitions: i32) -> PyResult<bool> {
        Ok(gil::release(py, || create_topic(&self.servers, name, partitions))?)
    }

    /// Hands over (key, value) pairs; waits only while the local queue is full.
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 makes an owned list of Python's")]
    fn send(&self, py: Python<'_>, topic: &str, records: Vec<(Vec<u8>, Vec<u8>)>) -> PyResult<()> {
        let send = |producer: &BaseProducer<Deliveries>| {
            records.iter().try_for_each(|(key, value)| send_one(producer, topic, key, value))?;
            producer.context().check()
        };
        Ok(gil::release(py, || self.with(send))?)
    }

    /// Waits until all is sent, `timeout` at most, and says how many records are not.
    fn flush(&self, py: Python<'_>, timeout: Span) -> PyResult<i32> {
        let flush = |producer: &BaseProducer<Deliveries>| {
            // A flush that runs out of time is no error: what is left is the answer.
            let _ = producer.flush(timeout.0);
            producer.context().check()?;
            Ok(producer.in_flight_count())
        };
        Ok(gil::release(py, || self.with(flush))?)
    }

    /// Ends the producer; what has not been sent is lost.
    fn close(&self, py: Python<'_>) {
        gil::release(py, || drop(self.producer.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}

impl DemoProducer {
    fn with<T>(&self, work: impl FnOnce(&BaseProducer<Deliveries>) -> Result<T>) -> Result<T> {
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        producer.as_ref().map_or_else(|| Err(Error::sink("the producer has been closed")), work)
    }
}

fn client(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

fn send_one(producer: &BaseProducer<Deliveries>, topic: &str, key: &[u8], value: &[u8]) -> Result<()> {
    let mut record = BaseRecord::to(topic).key(key).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
            Err((error, _)) => return Err(refused(error)),
        }
        producer.poll(POLL);
    }
}

fn create_topic(servers: &str, name: &str, partitions: i32) -> Result<bool> {
    let admin: AdminClient<DefaultClientContext> = client(servers).create().map_err(refused)?;
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let unreachable = |error| {
        explain(&error, ErrorKind::Source, format!("topic {name:?} cannot be made"), &Cluster::at(servers))
    };
    let made = block_on(admin.create_topics([&topic], &options)).map_err(unreachable)?;
    match made.into_iter().find_map(std::result::Result::err) {
        None => Ok(true),
        Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(false),
        Some((topic, code)) => Err(Error::source(format!("topic {topic:?} was not made: {code}"))),
    }
}

/// Waits for the one future that librdkafka's admin client gives; its own thread wakes us, no runtime is needed.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn refused(error: KafkaError) -> Error {
    Error::source(error.to_string()).caused_by(error)
}
