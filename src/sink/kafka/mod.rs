//! A sink that writes rows as records to a Kafka topic: at least once, in order within a partition.
//!
//! It deliberately keeps nothing back between batches: `deliver` returns when the cluster has acknowledged every
//! record of the batch. Retries are librdkafka's own, within its delivery time-out; the idempotent producer keeps
//! them from doubling or reordering records.

mod encoder;
mod explain;
mod once;
mod partitioner;
mod producer;
mod transaction;
mod transactor;

use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use rdkafka::ClientConfig;

use self::encoder::Encoder;
use self::explain::{Explainer, no_answer};
use self::once::Once;
pub use self::partitioner::Partitioner;
use self::producer::{Connection, Producer, Record, TopicNumber, Unanswered};
use super::encode::{HeaderReader, HeaderSpec, KeyEncoder, KeySpec, OutputFormat, Records, ValueEncoder};
use super::transactional::Part;
use super::{Delivery, Sink, opening_given_up};
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::refusal;
use crate::kafka::settings::Role;
use crate::kafka::{Cluster, Reserved, no_such_topic};
use crate::time::BatchTime;

/// So many rows are encoded and handed over at once: enough that a call's cost is spread, few enough that the first
/// are on their way while the next are encoded, and that their bytes stay in the cache.
const ENCODE_ROWS: usize = 4_096;

/// How long `open` waits for the cluster to name its topics.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes of records that wait to be sent or acknowledged, which the stream's own budget of memory does not see: a
/// request has a megabyte, so that these keep every partition's connection busy; librdkafka's own limit is a gigabyte.
const QUEUE_BYTES: u64 = 64 << 20;

/// How large a record may be for all that the client minds: what the topic takes is the cluster's to say. librdkafka's own
/// million is less than the brokers' default, so that a record which was read could not be written as it is. It fits
/// [`QUEUE_BYTES`].
const LARGEST_RECORD: &str = "60000000";

/// What librdkafka is told where the user says nothing.
const DEFAULTS: [(&str, &str); 7] = [
    ("message.max.bytes", LARGEST_RECORD),
    // So long that a small batch travels as one request a partition. With 0 the first few records travel alone, and
    // librdkafka turns round and round until they are acknowledged (it sends nothing while five messages of a partition
    // are on their way, and does not sleep while some wait): on two cores shared with the broker that took a fifth more
    // CPU, and at 100,000 records a second 10 ms at the median and 480 at p99, for 7 and 39. Of 50 rows alone 0 makes
    // 0.7 ms where this makes 1.7; below a millisecond librdkafka waits one, since it sleeps in whole ones.
    ("linger.ms", "1"),
    // The default of 100,000 makes a large batch wait for room again and again.
    ("queue.buffering.max.messages", "500000"),
    // As the Java client's; librdkafka's own five minutes would hold a failed stream up.
    ("delivery.timeout.ms", "120000"),
    // A broker that is back is found within a second; the default waits up to ten.
    ("reconnect.backoff.max.ms", "1000"),
    ("retry.backoff.ms", "20"),
    ("socket.keepalive.enable", "true"),
];

/// Which time a record carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordTime {
    /// That of the batch: the same however often the batch is delivered.
    #[default]
    Batch,
    /// That of sending: rows without headers then go out through `rd_kafka_produce_batch`, which has no place for
    /// another.
    Sending,
}

/// Where and how rows are written.
#[derive(Clone, Debug)]
pub struct KafkaSinkSettings {
    /// The cluster.
    pub cluster: Cluster,
    /// The topic, which must exist.
    pub topic: String,
    /// What the records' keys are.
    pub key: KeySpec,
    /// What their values are.
    pub value: OutputFormat,
    /// What their headers are.
    pub headers: HeaderSpec,
    /// How a key chooses its partition.
    pub partitioner: Partitioner,
    /// Which time they carry.
    pub time: RecordTime,
}

impl KafkaSinkSettings {
    /// JSON to `topic`, with no key and no headers.
    pub fn new(cluster: Cluster, topic: impl Into<String>) -> Self {
        Self {
            cluster,
            topic: topic.into(),
            key: KeySpec::default(),
            value: OutputFormat::default(),
            headers: HeaderSpec::default(),
            partitioner: Partitioner::default(),
            time: RecordTime::default(),
        }
    }

    /// Every mistake that rows of `schema` would be to this sink: columns that are not there or have the wrong type, each
    /// named with what it was to be. Nothing is connected for it.
    ///
    /// ```
    /// use arrow::datatypes::Schema;
    /// use tidemill::kafka::Cluster;
    /// use tidemill::sink::encode::KeySpec;
    /// use tidemill::sink::kafka::KafkaSinkSettings;
    /// let cluster = Cluster::at("localhost:9092");
    /// let mut settings = KafkaSinkSettings::new(cluster, "alerts");
    /// assert!(settings.check(&Schema::empty()).is_empty());
    /// settings.key = KeySpec::Columns(vec!["device".to_owned()]);
    /// assert_eq!(settings.check(&Schema::empty()).len(), 1);
    /// ```
    pub fn check(&self, schema: &Schema) -> Vec<Error> {
        let settings = self.cluster.refuse(&RESERVED);
        let settings = settings.into_iter().map(|error| error.at(self.sink_name()));
        let headers = HeaderReader::new(schema, &self.headers);
        let beside = headers.as_ref().ok().and_then(HeaderReader::column);
        // Without its column of headers it is not known which columns are left for the value.
        let only =
            matches!(self.value, OutputFormat::Raw { column: None } | OutputFormat::Text { column: None });
        let known = headers.is_ok() || !only;
        let value = known.then(|| ValueEncoder::new(schema, &self.value, beside)).transpose();
        let key = KeyEncoder::new(schema, &self.key);
        let found = [("key", key.err()), ("value", value.err()), ("headers", headers.err())];
        let place = |role: &str| format!("{role} of {}", self.sink_name());
        let columns = found.into_iter().filter_map(|(role, error)| error.map(|error| error.at(place(role))));
        settings.chain(columns).collect()
    }

    fn sink_name(&self) -> String {
        format!("to_kafka({})", self.topic)
    }
}

/// Writes rows to a topic.
///
/// ```
/// use rdkafka::mocking::MockCluster;
/// use tidemill::cancel::Cancel;
/// use tidemill::kafka::Cluster;
/// use tidemill::sink::kafka::{KafkaSink, KafkaSinkSettings};
/// use tidemill::sink::{Sink, contract};
///
/// let broker = MockCluster::new(1).unwrap(); // a broker within this process
/// broker.create_topic("alerts", 3, 1).unwrap();
/// let cluster = Cluster::at(broker.bootstrap_servers());
/// let mut sink = KafkaSink::new(KafkaSinkSettings::new(cluster, "alerts"));
/// sink.open(&contract::schema(), &Cancel::default())?;
/// assert_eq!(sink.partitions(), Some(3));
/// sink.deliver(&contract::delivery(0, 0..100))?; // returns when the broker has all of them
/// sink.close()?;
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Debug)]
pub struct KafkaSink {
    name: String,
    settings: KafkaSinkSettings,
    open: Option<Open>,
    once: Option<Once>,
}

/// What there is between `open` and `close`.
#[derive(Debug)]
struct Open {
    producer: Producer,
    topic: TopicNumber,
    encoder: Encoder,
    records: Records,
}

impl KafkaSink {
    /// A sink with these settings; nothing is connected before [`Sink::open`].
    pub fn new(settings: KafkaSinkSettings) -> Self {
        Self { name: settings.sink_name(), settings, open: None, once: None }
    }

    /// How many partitions the topic has, once the sink is open.
    pub fn partitions(&self) -> Option<i32> {
        let once = self.once.as_ref().map(Once::partitions);
        self.open.as_ref().map(|open| open.encoder.partitions()).or(once)
    }
}

impl Sink for KafkaSink {
    fn name(&self) -> &str {
        &self.name
    }

    /// Tells all mistakes that [`KafkaSinkSettings::check`] finds; connects, and reads the topic's partition count.
    fn open(&mut self, schema: &SchemaRef, cancel: &Cancel) -> Result<()> {
        Error::of_all(self.settings.check(schema)).map_or(Ok(()), Err)?;
        self.open = Some(Open::new(&self.settings, schema, cancel)?);
        Ok(())
    }

    /// Returns when every record has been acknowledged by all in-sync replicas. Where one fails, the others of the
    /// batch that were on their way may have been written; so may all of one that is cancelled.
    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Error::internal("delivery to a sink that is not open"));
        };
        let sent = open.send(&self.settings, delivery);
        // Also where encoding failed half-way: what was handed over must not show up in the next batch's account.
        let account = open.producer.settle(&delivery.cancel);
        sent?;
        let (acknowledged, rows) = (account.acknowledged, delivery.num_rows());
        if account.failures.any() {
            let explainer = Explainer { producer: &open.producer, cluster: &self.settings.cluster };
            return Err(explainer.failures(&account.failures, rows));
        }
        if acknowledged < rows {
            let found = format!("Kafka had acknowledged {acknowledged} of {rows} rows");
            return Err(delivery.given_up(found));
        }
        Ok(())
    }

    fn part(&mut self) -> Part<'_> {
        Part::Publishes(self)
    }

    /// Gives the connections and threads back. Nothing waits to be sent: every delivery ends with its last answer.
    fn close(&mut self) -> Result<()> {
        self.open = None;
        self.once = None;
        Ok(())
    }
}

impl Open {
    fn new(settings: &KafkaSinkSettings, schema: &SchemaRef, cancel: &Cancel) -> Result<Self> {
        let (encoder, connection) = connected(settings, schema, cancel)?;
        let mut producer = connection.producer();
        let topic = producer.add_topic(&settings.topic)?;
        let records = encoder.records();
        Ok(Self { producer, topic, encoder, records })
    }

    /// Encodes the rows and hands them to the producer; ends early where the producer has seen a failure, and where it
    /// is cancelled.
    fn send(&mut self, settings: &KafkaSinkSettings, delivery: &Delivery) -> Result<()> {
        let time = settings.time.of(delivery);
        let mut first = 0;
        for chunk in &delivery.rows {
            for start in (0..chunk.num_rows()).step_by(ENCODE_ROWS) {
                if !self.producer.goes_on(&delivery.cancel) {
                    return Ok(());
                }
                let rows = chunk.slice(start, ENCODE_ROWS.min(chunk.num_rows() - start));
                self.records.clear();
                self.encoder.append(delivery.batch, &rows, first, &mut self.records)?;
                hand_over(&mut self.producer, self.topic, &self.records, time, &delivery.cancel);
                first += rows.num_rows() as u64;
            }
        }
        Ok(())
    }
}

/// An encoder for rows of `schema`, and a connection by which the topic was found.
fn connected(
    settings: &KafkaSinkSettings,
    schema: &SchemaRef,
    cancel: &Cancel,
) -> Result<(Encoder, Connection)> {
    let encoder = Encoder::new(settings, schema)?;
    let connection =
        Connection::new(&config(&settings.cluster)?, &settings.cluster, METADATA_TIMEOUT, cancel)?;
    let (connection, partitions) = partitions(connection, settings, cancel)?;
    Ok((encoder.spread_over(partitions), connection))
}

impl RecordTime {
    /// The time that the records of a delivery carry; none where that is the time of sending.
    fn of(self, delivery: &Delivery) -> Option<BatchTime> {
        match self {
            Self::Batch => Some(delivery.time),
            Self::Sending => None,
        }
    }
}

/// Hands records to the producer, and takes what has been acknowledged meanwhile.
fn hand_over(
    producer: &mut Producer,
    topic: TopicNumber,
    records: &Records,
    time: Option<BatchTime>,
    cancel: &Cancel,
) {
    let record =
        |row| Record { partition: records.partition(row), key: records.key(row), value: records.value(row) };
    if time.is_none() && records.has_no_headers() {
        for start in (0..records.len()).step_by(ENCODE_ROWS) {
            let rows = start..records.len().min(start + ENCODE_ROWS);
            producer.send_batch(topic, rows.map(record), cancel);
        }
        return;
    }
    let mut headers = Vec::new();
    for row in 0..records.len() {
        records.read_headers(row, &mut headers);
        producer.send(topic, &record(row), time, &headers, cancel);
        if row % ENCODE_ROWS == ENCODE_ROWS - 1 {
            producer.tend();
        }
    }
    producer.tend();
}

/// What the sink's promise rests on.
const RESERVED: [Reserved; 4] = [
    Reserved { name: "acks", is: ACKS, instead: "leave it out: every in-sync replica acknowledges" },
    Reserved {
        name: "request.required.acks",
        is: ACKS,
        instead: "leave it out: every in-sync replica acknowledges",
    },
    Reserved {
        name: "enable.idempotence",
        is: &["true"],
        instead: "leave it out: without it a record that is sent again comes twice, or out of order",
    },
    Reserved {
        name: "transactional.id",
        is: &[],
        instead: "leave it out: where a stream publishes by transactions, the id is its own",
    },
];

/// All in-sync replicas, as librdkafka lets it be written.
const ACKS: &[&str] = &["all", "-1"];

/// The client's settings: ours first, then the user's, then what the sink's promise rests on.
fn config(cluster: &Cluster) -> Result<ClientConfig> {
    let mut config = cluster.client(Role::Producer);
    // The two are one setting: given under one name, it must not be set under the other.
    let has_time_out = config.get("message.timeout.ms").is_some();
    for (name, value) in DEFAULTS {
        if config.get(name).is_none() && !(has_time_out && name == "delivery.timeout.ms") {
            config.set(name, value);
        }
    }
    if config.get("queue.buffering.max.kbytes").is_none() {
        config.set("queue.buffering.max.kbytes", queue_kbytes(&config).to_string());
    }
    let endless =
        ["delivery.timeout.ms", "message.timeout.ms"].into_iter().find(|name| config.get(name) == Some("0"));
    if let Some(name) = endless {
        let message = format!("{name} must be finite for to_kafka, found 0, which waits for ever");
        return Err(Error::config(message).help("leave it out, or give milliseconds"));
    }
    Reserved::set(&RESERVED, &mut config);
    Ok(config)
}

/// The queue's bound, or where records may be larger than that, room for one: one that finds none even in an empty queue
/// would wait for ever.
fn queue_kbytes(config: &ClientConfig) -> u64 {
    let largest = config.get("message.max.bytes").and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
    QUEUE_BYTES.max(largest).div_ceil(1_024)
}

/// The topic's partition count; an error that names what there is where it does not exist.
fn partitions(
    connection: Connection,
    settings: &KafkaSinkSettings,
    cancel: &Cancel,
) -> Result<(Connection, i32)> {
    let topic = &settings.topic;
    let (connection, found) =
        connection.topics(topic, METADATA_TIMEOUT, cancel).map_err(|why| unanswered(settings, &why))?;
    let names = found.names.iter().map(String::as_str);
    let remedy = match settings.cluster.security {
        Some(_) => format!(
            "create it first, since to_kafka creates no topics; or have {} granted the right to write and describe it",
            settings.cluster.user()
        ),
        None => "create it first: to_kafka creates no topics".to_owned(),
    };
    let missing = || no_such_topic(ErrorKind::Sink, topic, names, &settings.cluster, &remedy);
    let partitions = found.partitions.ok_or_else(missing)?;
    Ok((connection, partitions))
}

fn unanswered(settings: &KafkaSinkSettings, why: &Unanswered) -> Error {
    let (name, servers) = (settings.sink_name(), &settings.cluster.bootstrap_servers);
    let complaint = match why {
        Unanswered::CalledOff => {
            return opening_given_up(format!("no Kafka broker at {servers} had answered yet"));
        }
        Unanswered::Failed(complaint) => complaint,
    };
    let what = format!("{name}: the cluster cannot be reached");
    refusal::explain(complaint, ErrorKind::Sink, what, &settings.cluster)
        .unwrap_or_else(|| no_answer(servers, complaint))
}

#[cfg(test)]
mod tests {
    use super::config;
    use crate::kafka::Cluster;

    /// The queue's bound in KiB with these settings of the user's.
    fn queue(settings: &[(&str, &str)]) -> String {
        let config_of = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings = settings.iter().map(config_of).collect();
        let cluster = Cluster { config: settings, ..Cluster::at("localhost:1") };
        config(&cluster).unwrap().get("queue.buffering.max.kbytes").unwrap().to_owned()
    }

    #[test]
    fn what_only_a_consumer_takes_is_not_the_producers() {
        let settings = ["fetch.wait.max.ms", "session.timeout.ms", "linger.ms"];
        let settings = settings.into_iter().map(|name| (name.to_owned(), "7".to_owned())).collect();
        let made = config(&Cluster { config: settings, ..Cluster::at("localhost:1") }).unwrap();
        let found = ["fetch.wait.max.ms", "session.timeout.ms", "linger.ms"].map(|name| made.get(name));
        assert_eq!(found, [None, None, Some("7")]);
    }

    #[test]
    fn the_queue_is_bounded_has_room_for_the_largest_record_and_is_the_users_to_set() {
        assert_eq!(queue(&[]), "65536");
        assert_eq!(queue(&[("message.max.bytes", "104857600")]), "102400");
        assert_eq!(queue(&[("queue.buffering.max.kbytes", "7")]), "7");
    }
}
