//! The Kafka sink where batches are published exactly once: one transaction a batch, with output, marker and offsets.
//!
//! The marker is an offset: of the group `tidemill-{job}`, for the first partition of the leader's topic, the number of
//! the batch, with the marker's text beside it. So it is committed and aborted with the output by Kafka itself. It
//! deliberately keeps no producer after an error: the next init makes a new one, which fences the old.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use rdkafka::ClientConfig;

use super::encoder::Encoder;
use super::transactor::{Encoded, Identity, Initialised, Order, Transactor};
use super::{ENCODE_ROWS, KafkaSink, KafkaSinkSettings, METADATA_TIMEOUT, config, connected};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::kafka::Cluster;
use crate::sink::Delivery;
use crate::sink::digest::Digester;
use crate::sink::marker::{Marker, Owner};
use crate::sink::transactional::{Prepared, Publication, Published, Publishing, Transactional};

/// After how long the cluster aborts a transaction by itself, unless the user says so or batches take longer.
const TRANSACTION_TIMEOUT: Duration = Duration::from_mins(1);

/// So many times the slowest publishing so far a transaction may take.
const SLACK: u32 = 4;

/// What librdkafka is told of a transactional producer where the user says nothing. At the defaults a transaction that
/// begins while the one before is still being completed waits for 100 ms.
const DEFAULTS: [(&str, &str); 3] = [
    ("retry.backoff.ms", "1"),
    ("retry.backoff.max.ms", "20"),
    // Else it is what `retry.backoff.ms` is, and a topic without a leader is asked for a thousand times a second.
    ("topic.metadata.refresh.fast.interval.ms", "20"),
];

/// So many outputs are kept for their memory: one is published while the next is encoded.
const SPARE: usize = 2;

/// What there is between `open` and `close`.
#[derive(Debug)]
pub(super) struct Once {
    encoder: Encoder,
    spare: Vec<Arc<Encoded>>,
    /// None before `init`, after an error, and in a sink that joins another.
    transactor: Option<Transactor>,
    slowest: Duration,
}

impl Once {
    /// How many partitions the topic has.
    pub(super) fn partitions(&self) -> i32 {
        self.encoder.partitions()
    }

    fn encode(&mut self, settings: &KafkaSinkSettings, delivery: &Delivery) -> Result<Arc<Encoded>> {
        let mut encoded = self.room(settings);
        encoded.time = settings.time.of(delivery);
        let mut first = 0;
        for chunk in &delivery.rows {
            for start in (0..chunk.num_rows()).step_by(ENCODE_ROWS) {
                let rows = chunk.slice(start, ENCODE_ROWS.min(chunk.num_rows() - start));
                self.encoder.append(delivery.batch, &rows, first, &mut encoded.records)?;
                first += rows.num_rows() as u64;
            }
            if delivery.cancel.is_cancelled() {
                return Err(delivery.given_up("its rows were being encoded"));
            }
        }
        let encoded = Arc::new(encoded);
        self.spare.push(Arc::clone(&encoded));
        Ok(encoded)
    }

    /// Room for an output: that of an earlier one which nobody holds any more, if there is one.
    fn room(&mut self, settings: &KafkaSinkSettings) -> Encoded {
        let free = self.spare.iter().position(|spare| Arc::strong_count(spare) == 1);
        let free = free.and_then(|free| Arc::into_inner(self.spare.swap_remove(free)));
        if self.spare.len() >= SPARE {
            self.spare.remove(0); // still held by somebody
        }
        if let Some(mut free) = free {
            free.records.clear();
            return free;
        }
        Encoded { topic: settings.topic.clone(), time: None, records: self.encoder.records() }
    }
}

impl KafkaSink {
    fn once(&mut self) -> Result<&mut Once> {
        self.once.as_mut().ok_or_else(|| Error::internal("a batch for a sink that is not open"))
    }

    /// Connects as the job's producer; none where the cluster takes no transactions that last so long.
    fn initialised(
        &self,
        owner: &Owner,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<Option<(Transactor, Option<Marker>)>> {
        let identity = Identity {
            // One producer a job, the first of the first executor's: whatever outputs a later driver has, it fences this.
            transactional_id: format!("tidemill-{}-0-0", owner.job),
            group: format!("tidemill-{}", owner.job),
            topic: self.settings.topic.clone(),
            timeout,
        };
        let cluster = &self.settings.cluster;
        let config = transactional(cluster, &identity)?;
        let transactor = Transactor::start(&config, cluster, identity, METADATA_TIMEOUT, cancel)?;
        match transactor.init(cancel)? {
            Initialised::Marker(marker) => Ok(Some((transactor, marker))),
            Initialised::TimeoutRefused => Ok(None),
        }
    }
}

impl Transactional for KafkaSink {
    fn open(&mut self, schema: &SchemaRef, cancel: &Cancel) -> Result<()> {
        Error::of_all(self.settings.check(schema)).map_or(Ok(()), Err)?;
        let (encoder, connection) = connected(&self.settings, schema, cancel)?;
        drop(connection); // the producer has an id, which is not known yet
        self.once = Some(Once { encoder, spare: Vec::new(), transactor: None, slowest: Duration::ZERO });
        Ok(())
    }

    fn publishing(&self) -> Publishing {
        Publishing::Appends
    }

    fn place(&self) -> String {
        format!("topic {} at {}", self.settings.topic, self.settings.cluster)
    }

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.settings.cluster)
    }

    /// One producer serves all topics of a cluster that are to be reached in the same way.
    fn joins(&self, leader: &dyn Transactional) -> bool {
        let leader: &dyn Any = leader;
        leader.downcast_ref::<Self>().is_some_and(|leader| leader.settings.cluster == self.settings.cluster)
    }

    /// Has the cluster end what older producers of the job have begun, and only then reads the marker.
    fn init(&mut self, owner: &Owner, cancel: &Cancel) -> Result<Option<Marker>> {
        let slowest = {
            let once = self.once()?;
            once.transactor = None;
            once.slowest
        };
        let base = base_timeout(&self.settings.cluster)?;
        for timeout in timeouts(base, slowest) {
            if let Some((transactor, marker)) = self.initialised(owner, timeout, cancel)? {
                self.once()?.transactor = Some(transactor);
                return Ok(marker);
            }
        }
        Err(too_long(base, &self.settings.cluster))
    }

    fn prepare(&mut self, delivery: &Delivery) -> Result<Prepared> {
        let Some(once) = &mut self.once else {
            return Err(Error::internal("a batch for a sink that is not open"));
        };
        let encoded = once.encode(&self.settings, delivery)?;
        let mut digester = Digester::new("tidemill records 1");
        digester.text(&self.name);
        digester.text(&encoded.topic);
        digester.number(delivery.batch.0);
        digester.numbers(encoded.time.iter().map(|time| time.0.cast_unsigned()));
        encoded.records.digest(&mut digester);
        Ok(Prepared::new(digester.finish(), delivery.num_rows() as u64, encoded))
    }

    /// Any error leaves the producer behind: another one must be made by [`Transactional::init`].
    fn publish(&mut self, publication: &Publication<'_>) -> Result<Published> {
        let once = self.once()?;
        let transactor = once.transactor.take().ok_or_else(|| {
            Error::internal(
                "publishing to Kafka without a producer: init comes first, and again after an error",
            )
        })?;
        let outputs = publication.outputs.iter().map(|output| output.content()).collect::<Result<_>>()?;
        let (published, took) = transactor.publish(Order {
            outputs,
            marker: *publication.marker,
            offsets: publication.offsets.to_vec(),
            cancel: publication.cancel.clone(),
        })?;
        once.slowest = once.slowest.max(took);
        once.transactor = Some(transactor);
        Ok(published)
    }
}

impl Drop for Once {
    /// What was published is committed, so that nothing is lost by not waiting for long.
    fn drop(&mut self) {
        if let Some(transactor) = self.transactor.take() {
            transactor.close();
        }
    }
}

/// The settings of a transactional producer.
fn transactional(cluster: &Cluster, identity: &Identity) -> Result<ClientConfig> {
    let mut settings = config(cluster)?;
    for (name, value) in DEFAULTS {
        if !cluster.config.contains_key(name) {
            settings.set(name, value);
        }
    }
    let timeout = identity.timeout.as_millis();
    for name in ["delivery.timeout.ms", "message.timeout.ms"] {
        // librdkafka wants records given up before their transaction is.
        let given = settings.get(name).and_then(|millis| millis.parse::<u128>().ok());
        if given.is_some_and(|given| given > timeout) {
            settings.set(name, timeout.to_string());
        }
    }
    settings.set("transactional.id", &identity.transactional_id);
    settings.set("transaction.timeout.ms", timeout.to_string());
    Ok(settings)
}

/// After how long a transaction may be aborted at the earliest: what the user says, if that is more than ours.
fn base_timeout(cluster: &Cluster) -> Result<Duration> {
    let Some(given) = cluster.config.get("transaction.timeout.ms") else {
        return Ok(TRANSACTION_TIMEOUT);
    };
    let millis = given.parse().map_err(|_| {
        let message = format!("transaction.timeout.ms is a number of milliseconds, found {given:?}");
        Error::config(message).help("leave it out, or give, say, 120000")
    })?;
    Ok(Duration::from_millis(millis).max(TRANSACTION_TIMEOUT))
}

/// The time-outs to try, the longest first: a cluster has a maximum, which it tells by refusing.
fn timeouts(base: Duration, slowest: Duration) -> Vec<Duration> {
    let wanted = (1..=SLACK).rev().map(|times| (slowest * times).max(base));
    let mut timeouts: Vec<Duration> = wanted.chain([base]).collect();
    timeouts.dedup();
    timeouts
}

fn too_long(base: Duration, cluster: &Cluster) -> Error {
    let millis = base.as_millis();
    let message = format!(
        "transactions need a time-out (transaction.timeout.ms) of {millis} ms at least, found that the cluster takes none so \
         long (Kafka at {cluster})"
    );
    Error::config(message).help(
        "raise transaction.max.timeout.ms of the brokers, or give a shorter transaction.timeout.ms, of 60000 or more",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Identity, base_timeout, timeouts, transactional};
    use crate::kafka::Cluster;

    fn cluster(settings: &[(&str, &str)]) -> Cluster {
        let config = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Cluster { config: config.collect(), ..Cluster::at("localhost:1") }
    }

    fn made(settings: &[(&str, &str)], names: &[&str]) -> Vec<String> {
        let timeout = Duration::from_mins(1);
        let identity =
            Identity { transactional_id: "id".into(), group: "g".into(), topic: "t".into(), timeout };
        let config = transactional(&cluster(settings), &identity).unwrap();
        names.iter().map(|name| config.get(name).unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn records_are_given_up_before_their_transaction_and_the_user_may_have_it_sooner() {
        assert_eq!(made(&[], &["delivery.timeout.ms", "transaction.timeout.ms"]), ["60000", "60000"]);
        assert_eq!(made(&[("delivery.timeout.ms", "5000")], &["delivery.timeout.ms"]), ["5000"]);
        assert_eq!(made(&[("message.timeout.ms", "900000")], &["message.timeout.ms"]), ["60000"]);
    }

    #[test]
    fn the_pause_before_another_try_is_short_unless_the_user_says_otherwise() {
        assert_eq!(made(&[], &["retry.backoff.ms", "retry.backoff.max.ms"]), ["1", "20"]);
        assert_eq!(made(&[("retry.backoff.ms", "70")], &["retry.backoff.ms"]), ["70"]);
    }

    #[test]
    fn a_transaction_may_take_four_times_the_slowest_and_less_where_the_cluster_says_so() {
        let (base, second) = (Duration::from_mins(1), Duration::from_secs(1));
        assert_eq!(timeouts(base, Duration::ZERO), [base]);
        assert_eq!(timeouts(base, 10 * second), [base]);
        assert_eq!(
            timeouts(base, 100 * second),
            [4, 3, 2, 1].map(|times| times * 100 * second).into_iter().chain([base]).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_users_own_time_out_counts_where_it_is_longer() {
        let base = |given: &str| base_timeout(&cluster(&[("transaction.timeout.ms", given)]));
        assert_eq!(base("120000").unwrap(), Duration::from_mins(2));
        assert_eq!(base("1000").unwrap(), Duration::from_mins(1));
        assert!(base("soon").unwrap_err().is_config());
    }
}
