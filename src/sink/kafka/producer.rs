//! One idempotent librdkafka producer: records in, acknowledgements counted, all on the caller's thread.
//!
//! It deliberately decides nothing: partitions, bytes and times are given, and what a failure means is said above.
//! It calls librdkafka's C functions because rust-rdkafka has no batches and its `poll` and `flush` wait out their
//! whole step (100 ms a flush), where waiting on the event queue ends with the first acknowledgement.
#![expect(unsafe_code, reason = "librdkafka's batch and event functions are C; every call is in this file")]

use std::ffi::{CStr, CString, c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaRespErr;

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::refusal::{Complaint, ask_patiently};
use crate::kafka::token::{LoggedIn, Tokens};
use crate::kafka::{Cluster, explain};
use crate::sink::encode::RecordHeader as Header;
use crate::time::BatchTime;

/// The longest wait for an event: librdkafka wakes the queue at each acknowledgement, so this bounds only how late
/// a full queue is noticed to have room again, and a cancelled delivery that it is.
const STEP_MS: c_int = 1;

/// librdkafka copies key and value: with the message's own allocation, so it costs one `memcpy`, and no buffer of
/// ours has to outlive a time-out.
const COPY: c_int = native::RD_KAFKA_MSG_F_COPY;

/// The record's own partition is used, not one for the whole call.
const OWN_PARTITION: c_int = native::RD_KAFKA_MSG_F_PARTITION;

/// A record to send.
pub(super) struct Record<'a> {
    pub(super) partition: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

/// Why a record was not delivered.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) code: RDKafkaErrorCode,
    pub(super) bytes: usize,
}

/// What became of the records sent since the last [`Producer::settle`].
#[derive(Debug, Default)]
pub(super) struct Account {
    /// How many the cluster has.
    pub(super) acknowledged: usize,
    pub(super) failures: Failures,
}

/// The records that failed: the first of them, or of those that are too large the largest, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub(super) first: Option<Failure>,
    pub(super) count: usize,
}

impl Failures {
    fn add(&mut self, message: &native::rd_kafka_message_t, topic: *mut native::rd_kafka_topic_t) {
        self.count += 1;
        let failure = || Failure {
            topic: name_of(topic),
            partition: message.partition,
            code: message.err.into(),
            bytes: message.len + message.key_len,
        };
        let first = self.first.get_or_insert_with(failure);
        // The small ones of a batch that is refused fail with the one for which it is.
        if first.code == RDKafkaErrorCode::MessageSizeTooLarge && message.len + message.key_len > first.bytes
        {
            let failure = failure();
            if failure.code == first.code {
                *first = failure;
            }
        }
    }

    /// Whether anything has failed.
    pub(super) fn any(&self) -> bool {
        self.count > 0
    }
}

fn name_of(topic: *mut native::rd_kafka_topic_t) -> String {
    if topic.is_null() {
        return String::new();
    }
    // SAFETY: not null, and a topic that its client keeps; its name lives as long.
    unsafe { CStr::from_ptr(native::rd_kafka_topic_name(topic)) }.to_string_lossy().into_owned()
}

/// A native object and the function that frees it.
pub(super) struct Handle<T> {
    raw: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

// SAFETY: librdkafka's topics, queues and events may be used and freed by any thread.
unsafe impl<T> Send for Handle<T> {}

impl<T> Handle<T> {
    pub(super) fn new(raw: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw, free })
    }

    pub(super) fn ptr(&self) -> *mut T {
        self.raw.as_ptr()
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        // SAFETY: `raw` came from the function that pairs with `free`, and is freed only here.
        unsafe { (self.free)(self.ptr()) }
    }
}

/// What there is to write to.
pub(super) struct Topics {
    /// The names of all topics, the cluster's own among them.
    pub(super) names: Vec<String>,
    /// The number of partitions of the one asked for, if it exists.
    pub(super) partitions: Option<i32>,
}

/// Why it is not known what there is to write to.
pub(super) enum Unanswered {
    /// The question was called off.
    CalledOff,
    /// Nobody answered, or not well; with the reason.
    Failed(Complaint),
}

impl Unanswered {
    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(Complaint::new(RDKafkaErrorCode::Unknown, reason))
    }
}

/// What is asked on a thread comes back with the connection that was asked by.
type Answer = (Connection, Result<Topics, Complaint>);

/// A client without a topic yet. The queue stands before the client because it must be freed before it.
pub(super) struct Connection {
    events: Handle<native::rd_kafka_queue_t>,
    client: LoggedIn<BaseProducer>,
    address: String,
    tokens: Option<Tokens>,
    last_error: Option<Complaint>,
    hung_up: Option<Complaint>,
}

impl Connection {
    /// A client with the settings of `config` for `cluster`; connects in the background.
    pub(super) fn new(
        config: &ClientConfig,
        cluster: &Cluster,
        patience: Duration,
        cancel: &Cancel,
    ) -> Result<Self> {
        let tokens = cluster.tokens(patience, cancel)?;
        let mut config = config.clone();
        if (config.log_level as i32) < RDKafkaLogLevel::Info as i32 {
            config.set_log_level(RDKafkaLogLevel::Info); // lines that tell of brokers that hang up
        }
        let client: Result<BaseProducer, KafkaError> = config.create();
        let client = client
            .map_err(|error| explain(&error, ErrorKind::Sink, "no Kafka producer can be made", cluster))?;
        let client = LoggedIn::new(client, tokens.as_ref());
        // SAFETY: the client is alive; the queue is a reference of its own.
        let events = unsafe { native::rd_kafka_queue_get_main(client.client().native_ptr()) };
        let events = Handle::new(events, native::rd_kafka_queue_destroy);
        let events = events.ok_or_else(|| Error::internal("a Kafka producer without a main queue"))?;
        let address = cluster.bootstrap_servers.clone();
        Ok(Self { events, client, address, tokens, last_error: None, hung_up: None })
    }

    /// Asks the cluster what topics there are, and gives the connection back with the answer.
    ///
    /// librdkafka's question cannot be called off, and one that is asked again every few milliseconds never gets the
    /// answer of a broker that is slow: so it is asked on a thread of its own, which a cancel leaves behind with the
    /// connection.
    pub(super) fn topics(
        self,
        topic: &str,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<(Self, Topics), Unanswered> {
        let (cancelled, called_off) = bounded(1); // a cancel comes once
        let _guard = cancel.on_cancel(Arc::new(move || {
            let _ = cancelled.try_send(()); // nobody may be there to hear it any more
        }));
        let answered = self.ask_apart(topic.to_owned(), timeout)?;
        let answer = select! {
            recv(called_off) -> _ => return Err(Unanswered::CalledOff),
            recv(answered) -> answer => answer,
        };
        let (connection, topics) =
            answer.map_err(|_| Unanswered::failed("the thread that asked has panicked"))?;
        topics.map(|topics| (connection, topics)).map_err(Unanswered::Failed)
    }

    /// Asks on a thread of its own, which keeps the connection for as long as it waits.
    fn ask_apart(mut self, topic: String, timeout: Duration) -> Result<Receiver<Answer>, Unanswered> {
        let (answer, answered) = bounded(1); // room for the one answer, so that nobody need be there to take it
        let ask = move || {
            let topics = self.ask(&topic, timeout);
            drop(answer.send((self, topics)));
        };
        let asking = Builder::new().name("tidemill-topics".to_owned()).spawn(ask);
        let failed = |error| Unanswered::failed(format!("no thread can be started: {error}"));
        asking.map(|_| answered).map_err(failed)
    }

    /// All topics are asked for, not the one: naming it might create it.
    fn ask(&mut self, topic: &str, timeout: Duration) -> Result<Topics, Complaint> {
        let address = self.address.clone();
        let (metadata, complaint) = ask_patiently(timeout, &address, |wait| {
            let metadata = self.client.client().fetch_metadata(None, wait);
            while self.next_event(0).is_some() {}
            (metadata, self.last_error.as_ref().or(self.hung_up.as_ref()).cloned())
        });
        let metadata = metadata.map_err(|error| {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            complaint.unwrap_or_else(|| Complaint::new(code, error.to_string()))
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.and_then(|found| i32::try_from(found.partitions().len()).ok());
        let names = metadata.topics().iter().map(|found| found.name().to_owned());
        Ok(Topics { names: names.collect(), partitions: partitions.filter(|count| *count > 0) })
    }

    /// A producer without a topic yet.
    pub(super) fn producer(self) -> Producer {
        Producer { topics: Vec::new(), connection: self, unsettled: 0, account: Account::default() }
    }

    /// The next event, if one comes in time; errors of the connection are kept on the way, and what librdkafka logs
    /// goes to the log.
    fn next_event(&mut self, wait_ms: c_int) -> Option<Handle<native::rd_kafka_event_t>> {
        // SAFETY: the queue is alive; the event is ours.
        let event = unsafe { native::rd_kafka_queue_poll(self.events.ptr(), wait_ms) };
        let event = Handle::new(event, native::rd_kafka_event_destroy)?;
        // SAFETY: the event is alive.
        match unsafe { native::rd_kafka_event_type(event.ptr()) } {
            native::RD_KAFKA_EVENT_ERROR => self.take_error(&event),
            native::RD_KAFKA_EVENT_LOG => self.pass_on(&event),
            _ => {}
        }
        Some(event)
    }

    /// As rust-rdkafka does it for the clients that it polls itself.
    fn pass_on(&mut self, event: &Handle<native::rd_kafka_event_t>) {
        let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the event is alive, and a log line, for which the call fills in all three.
        let failed = unsafe {
            native::rd_kafka_event_log(event.ptr(), &raw mut facility, &raw mut text, &raw mut level)
        };
        if failed != 0 || facility.is_null() || text.is_null() {
            return;
        }
        // SAFETY: not null, C strings by librdkafka's word, and as long alive as the event.
        let (facility, text) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(text)) };
        let (facility, text) = (facility.to_string_lossy(), text.to_string_lossy());
        log::log!(target: "librdkafka", level_of(level), "librdkafka: {facility} {text}");
        self.hung_up = Complaint::of_log(&facility, &text).or(self.hung_up.take());
    }

    fn take_error(&mut self, event: &Handle<native::rd_kafka_event_t>) {
        // SAFETY: the event is alive, and its text, which may be missing, is as long as it is.
        let text = unsafe { native::rd_kafka_event_error_string(event.ptr()) };
        if !text.is_null() {
            // SAFETY: not null, and a C string by librdkafka's word.
            let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
            log::warn!("Kafka producer: {text}");
            // SAFETY: the event is alive.
            let code = unsafe { native::rd_kafka_event_error(event.ptr()) }.into();
            Complaint::new(code, text).keep(&mut self.last_error);
        }
    }
}

/// librdkafka's levels are those of syslog.
fn level_of(level: c_int) -> log::Level {
    match level {
        ..=3 => log::Level::Error,
        4 => log::Level::Warn,
        5 | 6 => log::Level::Info,
        _ => log::Level::Debug,
    }
}

/// Which of a producer's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicNumber(usize);

/// A producer for a few topics, which stand before the client because they must be freed before it.
pub(super) struct Producer {
    topics: Vec<Handle<native::rd_kafka_topic_t>>,
    connection: Connection,
    unsettled: usize,
    account: Account,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("unsettled", &self.unsettled)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// Adds `topic`, which must exist: librdkafka asks for it by name, and that might create it.
    pub(super) fn add_topic(&mut self, topic: &str) -> Result<TopicNumber> {
        let refused =
            |reason: &dyn fmt::Display| Error::config(format!("no producer for topic {topic:?}: {reason}"));
        let name = CString::new(topic).map_err(|error| refused(&error))?;
        // SAFETY: the client is alive, and `name` is a C string that librdkafka copies.
        let topic = unsafe { native::rd_kafka_topic_new(self.native(), name.as_ptr(), ptr::null_mut()) };
        let topic = Handle::new(topic, native::rd_kafka_topic_destroy);
        self.topics.push(topic.ok_or_else(|| refused(&"librdkafka refuses the name"))?);
        Ok(TopicNumber(self.topics.len() - 1))
    }

    /// For the calls in `transaction`; valid as long as the producer is.
    pub(super) fn native(&self) -> *mut native::rd_kafka_t {
        self.connection.client.client().native_ptr()
    }

    fn topic(&self, number: TopicNumber) -> *mut native::rd_kafka_topic_t {
        self.topics.get(number.0).map_or(ptr::null_mut(), Handle::ptr)
    }

    /// Hands records to librdkafka in one call; each is stamped with the time of the call, because the call has no
    /// place for another. Waits while the queue is full; stops at the first failure, and where it is cancelled.
    pub(super) fn send_batch<'a>(
        &mut self,
        topic: TopicNumber,
        records: impl Iterator<Item = Record<'a>>,
        cancel: &Cancel,
    ) {
        let mut messages: Vec<_> = records.map(|record| message(&record)).collect();
        let mut rest = messages.as_mut_slice();
        while !rest.is_empty() && self.goes_on(cancel) {
            let until = self.enqueue(topic, rest);
            rest = rest.split_at_mut_checked(until).map_or(&mut [], |(_, later)| later);
            self.serve(if rest.is_empty() { 0 } else { STEP_MS });
        }
    }

    /// One call; says how many messages are done with, be they taken or refused.
    fn enqueue(&mut self, topic: TopicNumber, messages: &mut [native::rd_kafka_message_t]) -> usize {
        let (first, count) = (messages.as_mut_ptr(), c_int::try_from(messages.len()).unwrap_or(c_int::MAX));
        let (topic, flags) = (self.topic(topic), COPY | OWN_PARTITION);
        // SAFETY: the topic is alive; `first` points to `count` messages, whose keys and values are alive and are copied.
        let taken = unsafe { native::rd_kafka_produce_batch(topic, 0, flags, first, count) };
        self.unsettled += usize::try_from(taken).unwrap_or(0);
        let full =
            messages.iter().position(|message| message.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL);
        let until = full.unwrap_or(messages.len());
        let refused = messages.iter().take(until).filter(|message| is_error(message.err));
        refused.for_each(|message| self.account.failures.add(message, topic));
        until
    }

    /// Whether more may be sent.
    pub(super) fn goes_on(&self, cancel: &Cancel) -> bool {
        !self.account.failures.any() && !cancel.is_cancelled()
    }

    /// Hands one record to librdkafka, with its own time and headers. Waits while the queue is full; does nothing
    /// after a failure, and where it is cancelled.
    pub(super) fn send(
        &mut self,
        topic: TopicNumber,
        record: &Record<'_>,
        time: Option<BatchTime>,
        headers: &[Header<'_>],
        cancel: &Cancel,
    ) {
        let mut message = message(record);
        while self.goes_on(cancel) {
            message.err = self.produce(topic, &message, time, headers);
            match message.err {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    self.unsettled += 1;
                    return;
                }
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL => self.serve(STEP_MS),
                _ => self.account.failures.add(&message, self.topic(topic)),
            }
        }
    }

    fn produce(
        &self,
        topic: TopicNumber,
        message: &native::rd_kafka_message_t,
        time: Option<BatchTime>,
        headers: &[Header<'_>],
    ) -> RDKafkaRespErr {
        use native::rd_kafka_vtype_t as tag;
        let headers = native_headers(headers);
        // SAFETY: the tags and the types of the arguments after them are those of rdkafka.h; key and value are
        // alive and are copied. Headers belong to librdkafka where it takes the message, and to us where not.
        let error = unsafe {
            native::rd_kafka_producev(
                self.native(),
                tag::RD_KAFKA_VTYPE_RKT,
                self.topic(topic),
                tag::RD_KAFKA_VTYPE_PARTITION,
                message.partition,
                tag::RD_KAFKA_VTYPE_MSGFLAGS,
                COPY,
                tag::RD_KAFKA_VTYPE_VALUE,
                message.payload,
                message.len,
                tag::RD_KAFKA_VTYPE_KEY,
                message.key,
                message.key_len,
                tag::RD_KAFKA_VTYPE_TIMESTAMP,
                time.map_or(0, |time| time.0),
                tag::RD_KAFKA_VTYPE_HEADERS,
                headers.as_ref().map_or(ptr::null_mut(), Handle::ptr),
                tag::RD_KAFKA_VTYPE_END,
            )
        };
        if !is_error(error) {
            std::mem::forget(headers);
        }
        error
    }

    /// Takes what the cluster has acknowledged so far, without waiting.
    pub(super) fn tend(&mut self) {
        self.serve(0);
    }

    /// Waits until every record sent has been acknowledged or has failed, and says which. The wait ends by
    /// librdkafka's own `delivery.timeout.ms`, which reports each record that it gives up; or by `cancel`, which gives
    /// up all that are left: the producer is then good for nothing more.
    pub(super) fn settle(&mut self, cancel: &Cancel) -> Account {
        while self.unsettled > 0 && !cancel.is_cancelled() {
            self.serve(STEP_MS);
        }
        if self.unsettled > 0 {
            self.purge();
        }
        std::mem::take(&mut self.account)
    }

    /// Has librdkafka forget what waits to be sent or answered, and waits for nothing: its threads may be looking for a
    /// broker's name for seconds. What has gone out may still be written by the cluster.
    fn purge(&mut self) {
        self.serve(0);
        let all = native::RD_KAFKA_PURGE_F_QUEUE | native::RD_KAFKA_PURGE_F_INFLIGHT;
        let client = self.native();
        // SAFETY: the client is alive. The call fails only for flags that do not exist.
        unsafe { native::rd_kafka_purge(client, all | native::RD_KAFKA_PURGE_F_NON_BLOCKING) };
    }

    /// What the connection last complained of.
    pub(super) fn last_error(&self) -> Option<&Complaint> {
        self.connection.last_error.as_ref()
    }

    /// What the client logs in with, where it does.
    pub(super) fn tokens(&self) -> Option<&Tokens> {
        self.connection.tokens.as_ref()
    }

    /// Why no token can be had, where that is so.
    pub(super) fn token_failure(&self) -> Option<Error> {
        self.connection.tokens.as_ref().and_then(Tokens::failure)
    }

    /// Takes all events there are, waiting for the first.
    fn serve(&mut self, wait_ms: c_int) {
        let mut wait = wait_ms;
        while let Some(event) = self.connection.next_event(wait) {
            self.take_reports(&event);
            wait = 0;
        }
    }

    /// Counts the delivery reports of an event; other events have none.
    fn take_reports(&mut self, event: &Handle<native::rd_kafka_event_t>) {
        loop {
            // SAFETY: the event is alive, and its messages are as long as it is.
            let Some(message) = (unsafe { native::rd_kafka_event_message_next(event.ptr()).as_ref() }) else {
                return;
            };
            self.unsettled = self.unsettled.saturating_sub(1);
            if is_error(message.err) {
                self.account.failures.add(message, message.rkt);
            } else {
                self.account.acknowledged += 1;
            }
        }
    }
}

fn is_error(code: RDKafkaRespErr) -> bool {
    code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// The message as librdkafka wants it: it points at the record's bytes, which must be alive when it is handed over.
fn message(record: &Record<'_>) -> native::rd_kafka_message_t {
    let (payload, len) = pointer(record.value);
    let (key, key_len) = pointer(record.key);
    native::rd_kafka_message_t {
        err: RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: ptr::null_mut(),
        partition: record.partition,
        payload,
        len,
        key,
        key_len,
        offset: 0,
        _private: ptr::null_mut(),
    }
}

/// A null pointer for null: an empty value has a length of zero and a pointer.
fn pointer(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast(), bytes.len()))
}

fn native_headers(headers: &[Header<'_>]) -> Option<Handle<native::rd_kafka_headers_t>> {
    if headers.is_empty() {
        return None;
    }
    // SAFETY: no precondition.
    let list = unsafe { native::rd_kafka_headers_new(headers.len()) };
    let list = Handle::new(list, native::rd_kafka_headers_destroy)?;
    for (name, value) in headers {
        let (value, len) = pointer(*value);
        // SAFETY: name and value are alive, their lengths are given, and both are copied.
        unsafe {
            native::rd_kafka_header_add(
                list.ptr(),
                name.as_ptr().cast(),
                signed(name.len()),
                value,
                signed(len),
            )
        };
    }
    Some(list)
}

fn signed(len: usize) -> isize {
    isize::try_from(len).unwrap_or(isize::MAX)
}
