//! A transactional producer on a thread of its own: librdkafka's calls wait, some of them for ever, so that whoever
//! asks watches the clock and leaves thread and producer behind where no answer comes.
//!
//! Each call into librdkafka is a short one that is made again until it is done, so that a cancel is heard in between. It
//! deliberately tries nothing a second time that may have had an effect: after an error the producer is good for nothing
//! more, and what it has left open is ended by the next one's init. (librdkafka has no KIP-890: an answer that is late for
//! one transaction of a producer could otherwise end the next.)

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use super::explain::Explainer;
use super::hand_over;
use super::producer::{Connection, Producer, TopicNumber};
use super::transaction::{Committed, GroupReader, Next, Offsets, Refused};
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::{Cluster, explain, explain_code, is_passing};
use crate::sink::encode::Records;
use crate::sink::marker::Marker;
use crate::sink::transactional::{GroupOffsets, Published};
use crate::time::{BatchTime, Clock, SystemClock};

/// How long one call waits before it is made again; it ends with the answer, so that this costs nothing.
const STEP: Duration = Duration::from_millis(100);

/// The same for an abort, between whose calls the reports of what was thrown away are taken.
const ABORT_STEP: Duration = Duration::from_millis(10);

/// How long is waited after a refusal that came at once and may pass.
const PAUSE: Duration = Duration::from_millis(20);

/// How long an init may take, a cluster's restart included.
const INIT_PATIENCE: Duration = Duration::from_mins(2);

/// How long a transaction that has failed is tried to be aborted, so that its readers need not wait for its time-out.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a commit that was begun is waited for after a cancel: whether it is there should be known if it can be.
const COMMIT_PATIENCE: Duration = Duration::from_secs(1);

/// So much longer than the thread's own limit is waited before it is left behind: by then a call of librdkafka's hangs.
const WATCHDOG: Duration = Duration::from_secs(10);

/// The same after a cancel; longer than an abort is tried.
const CANCELLED_PATIENCE: Duration = Duration::from_secs(3);

/// How long a close waits for the producer to be gone.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The output of one sink, as it is sent.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) topic: String,
    pub(super) time: Option<BatchTime>,
    pub(super) records: Records,
}

/// Who a transactional producer is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// The same for all drivers of the job, so that each fences those before it.
    pub(super) transactional_id: String,
    /// The group whose offset is the marker.
    pub(super) group: String,
    /// The topic to whose first partition the marker belongs.
    pub(super) topic: String,
    /// After how long the cluster aborts a transaction by itself.
    pub(super) timeout: Duration,
}

/// What is to appear as one.
pub(super) struct Order {
    pub(super) outputs: Vec<Arc<Encoded>>,
    pub(super) marker: Marker,
    pub(super) offsets: Vec<GroupOffsets>,
    pub(super) cancel: Cancel,
}

/// How an init has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Initialised {
    /// The place is taken over; this is its marker.
    Marker(Option<Marker>),
    /// The cluster takes no producer whose transactions may last so long.
    TimeoutRefused,
}

enum Work {
    Init(Cancel),
    Publish(Order),
}

enum Done {
    Initialised(Initialised),
    Published(Published, Duration),
}

/// The way to the thread.
pub(super) struct Transactor {
    work: Sender<Work>,
    answers: Receiver<Result<Done>>,
    ended: Receiver<()>, // nothing is ever sent: it is heard that the thread has dropped the sender
    timeout: Duration,
}

impl Transactor {
    /// Connects, in the background, and starts the thread.
    pub(super) fn start(
        config: &ClientConfig,
        cluster: &Cluster,
        identity: Identity,
        patience: Duration,
        cancel: &Cancel,
    ) -> Result<Self> {
        let producer = Connection::new(config, cluster, patience, cancel)?.producer();
        let timeout = identity.timeout;
        let (cluster, clock) = (cluster.clone(), SystemClock::new());
        let (topics, refusing) = (Vec::new(), BTreeSet::new());
        let mut worker = Worker { producer, cluster, identity, topics, refusing, clock };
        let (work, orders) = bounded(1); // the next is given after the answer
        let (answer, answers) = bounded(1); // room for the one answer, so that nobody need be there to take it
        let (end, ended) = bounded(0);
        let run = move || {
            let _end: Sender<()> = end;
            for work in orders {
                if answer.send(worker.perform(work)).is_err() {
                    return;
                }
            }
        };
        let thread = Builder::new().name("tidemill-transaction".to_owned()).spawn(run);
        thread.map_err(|cause| {
            Error::internal(
                "expected to start a thread for transactions, found that the system gives no more",
            )
            .caused_by(cause)
        })?;
        Ok(Self { work, answers, ended, timeout })
    }

    /// Fences older producers, and reads the marker.
    pub(super) fn init(&self, cancel: &Cancel) -> Result<Initialised> {
        match self.call(Work::Init(cancel.clone()), INIT_PATIENCE, cancel)? {
            Done::Initialised(initialised) => Ok(initialised),
            Done::Published(..) => Err(Error::internal("an init was answered as a batch")),
        }
    }

    /// One transaction; says how long it took.
    pub(super) fn publish(&self, order: Order) -> Result<(Published, Duration)> {
        let cancel = order.cancel.clone();
        match self.call(Work::Publish(order), self.timeout, &cancel)? {
            Done::Published(published, took) => Ok((published, took)),
            Done::Initialised(_) => Err(Error::internal("a batch was answered as an init")),
        }
    }

    /// Waits a little for the thread to end, which it does once nobody can ask it for anything.
    pub(super) fn close(self) {
        let Self { work, ended, .. } = self;
        drop(work);
        let _ = ended.recv_timeout(CLOSE_PATIENCE); // what hangs is left behind
    }

    /// Asks the thread, which has a limit of its own; where even that is over, a call of librdkafka's hangs.
    fn call(&self, work: Work, limit: Duration, cancel: &Cancel) -> Result<Done> {
        let (wake, cancelled) = bounded(1); // a cancel comes once
        let _guard = cancel.on_cancel(Arc::new(move || {
            let _ = wake.try_send(()); // nobody may be there to hear it any more
        }));
        self.work.send(work).map_err(|_| panicked())?;
        select! {
            recv(self.answers) -> answer => return answer.map_err(|_| panicked())?,
            recv(cancelled) -> _ => {}
            default(limit.saturating_add(WATCHDOG)) => return Err(hangs(limit)),
        }
        match self.answers.recv_timeout(CANCELLED_PATIENCE) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(panicked()),
            Err(RecvTimeoutError::Timeout) => Err(Error::cancelled(
                "the transaction was given up because the stream was stopped at once, and Kafka had not answered",
            )
            .take_over()),
        }
    }
}

impl fmt::Debug for Transactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactor").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn panicked() -> Error {
    Error::internal("expected an answer of the thread for transactions, found that it has panicked")
}

fn hangs(limit: Duration) -> Error {
    Error::sink(format!("Kafka's client has not come back from a transaction within {limit:?}")).take_over()
}

/// What the thread has.
struct Worker {
    producer: Producer,
    cluster: Cluster,
    identity: Identity,
    topics: Vec<(String, TopicNumber)>,
    /// Groups that take no offsets from here.
    refusing: BTreeSet<String>,
    clock: SystemClock,
}

/// Until when something is tried.
#[derive(Clone, Copy)]
struct Until<'a> {
    deadline: Duration,
    cancel: &'a Cancel,
}

/// How a transaction has failed.
enum Failed {
    /// A call was refused.
    At(&'static str, Refused),
    /// This group takes no offsets.
    Group(String, Refused),
    /// Records were refused, or librdkafka itself.
    Otherwise(Error),
    /// It was given up.
    Cancelled(String),
}

impl Worker {
    fn perform(&mut self, work: Work) -> Result<Done> {
        match work {
            Work::Init(cancel) => self.init(&cancel).map(Done::Initialised),
            Work::Publish(order) => {
                let began = self.clock.elapsed();
                let published = self.publish(&order)?;
                Ok(Done::Published(published, self.clock.elapsed().saturating_sub(began)))
            }
        }
    }

    fn until<'a>(&self, patience: Duration, cancel: &'a Cancel) -> Until<'a> {
        Until { deadline: self.clock.elapsed().saturating_add(patience), cancel }
    }

    fn left(&self, until: Until<'_>) -> Duration {
        until.deadline.saturating_sub(self.clock.elapsed())
    }

    /// Makes a call again and again, until it is done, refused for good, too late or given up.
    fn persist<T>(
        &mut self,
        until: Until<'_>,
        step: Duration,
        mut call: impl FnMut(&Producer, Duration) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        loop {
            let answer = call(&self.producer, step.min(self.left(until)));
            self.producer.tend();
            match answer {
                Err(refused) if refused.next == Next::SameCall => {
                    if self.left(until).is_zero() || until.cancel.is_cancelled() {
                        return Err(refused);
                    }
                    if refused.code != RDKafkaErrorCode::OperationTimedOut {
                        until.cancel.wait_timeout(PAUSE);
                    }
                }
                answer => return answer,
            }
        }
    }

    fn init(&mut self, cancel: &Cancel) -> Result<Initialised> {
        let until = self.until(INIT_PATIENCE, cancel);
        let fenced = self.persist(until, STEP, Producer::init_transactions);
        if let Err(refused) = fenced {
            return match self.cause(&refused).code {
                RDKafkaErrorCode::InvalidTransactionTimeout => Ok(Initialised::TimeoutRefused),
                _ => Err(self.not_initialised("no transactional producer can be had", &refused, cancel)),
            };
        }
        let reader = GroupReader::new(&self.cluster, &self.identity.group, self.producer.tokens());
        let what = "no client can be made that reads the marker";
        let reader = reader.map_err(|error| explain(&error, ErrorKind::Sink, what, &self.cluster))?;
        let step = Duration::from_secs(10); // it is a request of its own each time
        let committed = self.persist(until, step, |_, wait| reader.committed(wait));
        match committed {
            Ok(committed) => newest(&committed).map(Initialised::Marker),
            Err(refused) => {
                Err(self.not_initialised("the marker of the last batch cannot be read", &refused, cancel))
            }
        }
    }

    fn not_initialised(&self, what: &str, refused: &Refused, cancel: &Cancel) -> Error {
        if cancel.is_cancelled() {
            return Error::cancelled("the place was not taken over because the stream was stopped at once");
        }
        self.explain(what, refused)
    }

    /// One transaction. A group that takes no offsets is left out, with a warning.
    fn publish(&mut self, order: &Order) -> Result<Published> {
        let until = self.until(self.identity.timeout, &order.cancel);
        let mut warnings = Vec::new();
        loop {
            let failed = match self.attempt(order, until) {
                Ok(()) => return Ok(Published { warnings }),
                Err(failed) => failed,
            };
            let aborted = self.abort(&order.cancel);
            match failed {
                Failed::Group(group, refused) if aborted => {
                    warnings.push(self.group_refuses(&group, &refused));
                    self.refusing.insert(group);
                }
                failed => return Err(self.failure(failed)),
            }
        }
    }

    fn attempt(&mut self, order: &Order, until: Until<'_>) -> Result<(), Failed> {
        self.producer.begin().map_err(|refused| Failed::At("no transaction can be begun", refused))?;
        self.send(order)?;
        // While the records are on their way: the group's coordinator and the partitions' leaders work side by side.
        self.send_marker(&order.marker, until)?;
        self.send_offsets(&order.offsets, until)?;
        self.settle(order)?;
        self.commit(until)
    }

    fn send(&mut self, order: &Order) -> Result<(), Failed> {
        for output in &order.outputs {
            let topic = self.topic(&output.topic).map_err(Failed::Otherwise)?;
            hand_over(&mut self.producer, topic, &output.records, output.time, &order.cancel);
        }
        Ok(())
    }

    fn topic(&mut self, name: &str) -> Result<TopicNumber> {
        if let Some((_, number)) = self.topics.iter().find(|(known, _)| known == name) {
            return Ok(*number);
        }
        let number = self.producer.add_topic(name)?;
        self.topics.push((name.to_owned(), number));
        Ok(number)
    }

    fn send_marker(&mut self, marker: &Marker, until: Until<'_>) -> Result<(), Failed> {
        const WHAT: &str = "the marker of the batch cannot be added to the transaction";
        let mut offsets = Offsets::new();
        let batch = i64::try_from(marker.batch.0).unwrap_or(i64::MAX);
        let (topic, group) = (&self.identity.topic, &self.identity.group);
        let added = offsets.add(topic, 0, batch, &marker.to_string());
        let sent = added.and_then(|()| self.producer.send_offsets(group, &offsets, self.left(until)));
        sent.map_err(|refused| Failed::At(WHAT, refused))
    }

    fn send_offsets(&mut self, groups: &[GroupOffsets], until: Until<'_>) -> Result<(), Failed> {
        for GroupOffsets { group, positions } in groups {
            if self.refusing.contains(group) || positions.is_empty() {
                continue;
            }
            let mut offsets = Offsets::new();
            let added = positions
                .iter()
                .try_for_each(|(at, offset)| offsets.add(at.topic.as_str(), at.partition.0, offset.0, ""));
            let sent = added.and_then(|()| self.producer.send_offsets(group, &offsets, self.left(until)));
            sent.map_err(|refused| match refused.code {
                code if is_of_group(code) => Failed::Group(group.clone(), refused),
                _ => Failed::At("the offsets of a source cannot be added to the transaction", refused),
            })?;
        }
        Ok(())
    }

    /// Polls by itself, in steps of a millisecond, until all records are acknowledged: librdkafka's own flush would look
    /// every ten milliseconds.
    fn settle(&mut self, order: &Order) -> Result<(), Failed> {
        let rows: usize = order.outputs.iter().map(|output| output.records.len()).sum();
        let account = self.producer.settle(&order.cancel);
        if account.failures.any() {
            let explainer = Explainer { producer: &self.producer, cluster: &self.cluster };
            let (error, first) = (explainer.failures(&account.failures, rows), account.failures.first);
            let heals = first.is_none_or(|first| may_heal(first.code));
            return Err(Failed::Otherwise(if heals { error.take_over() } else { error }));
        }
        if account.acknowledged < rows || order.cancel.is_cancelled() {
            let acknowledged = account.acknowledged;
            return Err(Failed::Cancelled(format!(
                "Kafka had acknowledged {acknowledged} of {rows} rows, and they were not committed"
            )));
        }
        Ok(())
    }

    fn commit(&mut self, until: Until<'_>) -> Result<(), Failed> {
        let mut committed = self.persist(until, STEP, Producer::commit);
        if until.cancel.is_cancelled() && matches!(&committed, Err(refused) if refused.next == Next::SameCall)
        {
            let never = Cancel::default();
            let patience = self.until(COMMIT_PATIENCE, &never);
            committed = self.persist(patience, STEP, Producer::commit);
        }
        committed.map_err(|refused| match refused.next {
            Next::SameCall if until.cancel.is_cancelled() => {
                Failed::Cancelled("the commit was sent, and Kafka had not answered".to_owned())
            }
            _ => Failed::At("the transaction cannot be committed", refused),
        })
    }

    /// Ends a transaction that has failed, if that can be done soon; says whether it is ended. A commit that was sent
    /// cannot be undone, and is left alone by librdkafka itself.
    fn abort(&mut self, cancel: &Cancel) -> bool {
        if self.producer.fatal_error().is_some() {
            return false;
        }
        let never = Cancel::default();
        let patience = if cancel.is_cancelled() { ABORT_PATIENCE / 2 } else { ABORT_PATIENCE };
        let until = self.until(patience, &never);
        self.persist(until, ABORT_STEP, Producer::abort).is_ok()
    }

    fn failure(&self, failed: Failed) -> Error {
        match failed {
            Failed::At(what, refused) => self.explain(what, &refused),
            Failed::Group(group, refused) => {
                self.explain(&format!("offsets cannot be committed to group {group:?}"), &refused)
            }
            Failed::Otherwise(error) => match self.producer.fatal_error() {
                Some(fatal) => self.explain("rows are not written", &fatal),
                None => error,
            },
            Failed::Cancelled(found) => {
                let message = "the transaction was given up because the stream was stopped at once";
                Error::cancelled(format!("{message}: {found}")).take_over()
            }
        }
    }

    /// What is behind a refusal: of a producer that has ended, what ended it.
    fn cause(&self, refused: &Refused) -> Refused {
        self.producer.fatal_error().unwrap_or_else(|| refused.clone())
    }

    fn explain(&self, what: &str, refused: &Refused) -> Error {
        let cause = self.cause(refused);
        if is_fence(cause.code) {
            return self.fenced(&cause);
        }
        let explainer = Explainer { producer: &self.producer, cluster: &self.cluster };
        if is_passing(cause.code)
            && let Some(error) = explainer.unreached(what)
        {
            return error;
        }
        let error = explain_code(cause.code, ErrorKind::Sink, format!("{what}: {cause}"), &self.cluster);
        if may_heal(cause.code) { error.take_over() } else { error }
    }

    /// A producer is fenced by another of its id, and by the cluster itself where its transaction took too long: so this
    /// alone does not say that the job has another driver.
    fn fenced(&self, cause: &Refused) -> Error {
        let Identity { transactional_id, timeout, .. } = &self.identity;
        let message = format!(
            "another producer has taken over the transactional id {transactional_id}, or a transaction lasted longer than \
             {timeout:?}: {cause} (Kafka at {})",
            self.cluster
        );
        Error::fenced(message).help("see whether the same job runs elsewhere").take_over()
    }

    fn group_refuses(&self, group: &str, refused: &Refused) -> Error {
        let what = format!("offsets cannot be committed to group {group:?} with the batch: {refused}");
        explain_code(refused.code, ErrorKind::Source, what, &self.cluster)
    }
}

/// The marker of the last batch: of the group's offsets the largest, since the topic that it belongs to may have been
/// another one.
fn newest(committed: &[Committed]) -> Result<Option<Marker>> {
    let mut newest = None;
    for offset in committed {
        let Committed { topic, partition, offset, metadata } = offset;
        let read = |error: Error| error.at(format!("the group's offset for {topic}[{partition}]"));
        let marker: Marker = metadata.parse().map_err(read)?;
        if i64::try_from(marker.batch.0) != Ok(*offset) {
            let message = format!("expected a marker of batch {offset}, found {metadata:?}");
            return Err(read(Error::sink(message)));
        }
        newest = newest.max(Some(marker));
    }
    Ok(newest)
}

/// Whether a producer was fenced.
fn is_fence(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// Whether it is the group of a source, and no more than that, which takes no offsets.
fn is_of_group(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::UnknownMemberId
            | Code::IllegalGeneration
            | Code::FencedInstanceId
            | Code::FencedMemberEpoch
            | Code::StaleMemberEpoch
            | Code::GroupAuthorizationFailed
            | Code::RebalanceInProgress
    )
}

/// Whether another attempt, by a new producer, may fare better.
fn may_heal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    !matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::UnsupportedFeature
            | Code::UnsupportedVersion
            | Code::UnsupportedForMessageFormat
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::InvalidTransactionTimeout
            | Code::UnknownTopic
    )
}
