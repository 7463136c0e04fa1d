//! What librdkafka offers and its Rust crate does not wrap: batches from a partition's own queue, offsets with
//! leader epochs, topic ids, and a commit that ends in time.
//!
//! The only file of the source with `unsafe`. It deliberately decides nothing: each function is one call of
//! librdkafka, made safe.
#![expect(unsafe_code, reason = "librdkafka is called directly where its Rust crate has no safe call for it")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use rdkafka::bindings as rd;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use crate::cancel::Cancel;
use crate::ingest::kafka::client::Client;
use crate::ingest::kafka::signal::Signal;
use crate::offset::{Offset, TopicPartition};

/// A message that librdkafka has handed over: a record, the news of a partition's end, or an error.
///
/// It is given back to librdkafka when dropped, and must not outlive the client it came from.
pub(super) struct Message(NonNull<rd::rd_kafka_message_t>);

// SAFETY: librdkafka lets a message be read and destroyed on any thread; nothing else holds this pointer.
unsafe impl Send for Message {}

/// What a [`Message`] is.
pub(super) enum Kind {
    Record,
    EndOfPartition,
    Failure(RDKafkaErrorCode),
}

impl Message {
    fn raw(&self) -> &rd::rd_kafka_message_t {
        // SAFETY: the pointer came from librdkafka and is valid until `drop` gives it back.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.raw().err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Kind::Record,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => Kind::EndOfPartition,
            error => Kind::Failure(error.into()),
        }
    }

    /// The record's offset; of the end of a partition the offset that comes next.
    #[inline]
    pub(super) fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// The bytes of its key and payload.
    pub(super) fn value_bytes(&self) -> usize {
        let message = self.raw();
        message.key_len + message.len
    }

    #[inline]
    pub(super) fn key(&self) -> Option<&[u8]> {
        let message = self.raw();
        // SAFETY: of a record librdkafka says where its key lies, or null; it lives as long as the message.
        unsafe { bytes(message.key, message.key_len) }
    }

    /// Only of a record: of anything else the payload is the text of the error.
    #[inline]
    pub(super) fn payload(&self) -> Option<&[u8]> {
        let message = self.raw();
        // SAFETY: as for the key.
        unsafe { bytes(message.payload, message.len) }
    }

    /// Milliseconds since the epoch; −1 where there is none.
    #[inline]
    pub(super) fn timestamp(&self) -> i64 {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid and `kind` is where librdkafka may write.
        unsafe { rd::rd_kafka_message_timestamp(self.0.as_ptr(), &raw mut kind) }
    }

    /// The text that librdkafka gives with an error.
    pub(super) fn reason(&self) -> String {
        // SAFETY: the message is valid; librdkafka answers with a string that lives as long, or null.
        unsafe { text(rd::rd_kafka_message_errstr(self.0.as_ptr())) }
    }

    /// Calls `each` with the name and value of every header.
    pub(super) fn for_each_header<E>(
        &self,
        mut each: impl FnMut(&str, Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is valid; on success `headers` belongs to the message and lives as long.
        let found = unsafe { rd::rd_kafka_message_headers(self.0.as_ptr(), &raw mut headers) };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        for index in 0.. {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `headers` is valid, and the three places are ours to be written.
            let got = unsafe {
                rd::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut len)
            };
            if got != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            // SAFETY: name and value belong to `headers`; the value is `len` bytes long, or null.
            let (name, value) = unsafe { (text(name), bytes(value.cast_mut(), len)) };
            each(&name, value)?;
        }
        Ok(())
    }
}

impl Drop for Message {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the pointer is ours, and this is the last use of it.
        unsafe { rd::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// # Safety
/// `data` is null, or `len` bytes lie there that stay as they are for as long as `'a`.
#[inline]
unsafe fn bytes<'a>(data: *mut c_void, len: usize) -> Option<&'a [u8]> {
    let data = NonNull::new(data.cast::<u8>())?;
    // SAFETY: what the caller promises.
    Some(unsafe { slice::from_raw_parts(data.as_ptr(), len) })
}

/// # Safety
/// `text` is null or a C string.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: what the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Messages on their way from librdkafka: a buffer that is used again and again.
pub(super) struct Batch(Vec<*mut rd::rd_kafka_message_t>);

// SAFETY: the pointers in it are owned like a `Message`, and it is only used through `&mut`.
unsafe impl Send for Batch {}

impl Batch {
    /// A buffer for up to `size` messages at once.
    pub(super) fn new(size: usize) -> Self {
        Self(Vec::with_capacity(size))
    }

    /// The messages taken last, in order.
    fn drain(&mut self) -> Taken<'_> {
        Taken(self.0.drain(..))
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        drop(self.drain());
    }
}

/// Messages that have been taken; those that are left when it is dropped are given back.
pub(super) struct Taken<'a>(vec::Drain<'a, *mut rd::rd_kafka_message_t>);

impl Iterator for Taken<'_> {
    type Item = Message;

    #[inline]
    fn next(&mut self) -> Option<Message> {
        self.0.next().and_then(NonNull::new).map(Message)
    }
}

impl ExactSizeIterator for Taken<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// So many messages are let go at once when a partition is: a queue holds thousands.
const LEFT: usize = 1_024;

/// One partition of one client: it is fetched from `start` on, until this is dropped. What has been fetched of it and not
/// been taken lies in its queue.
///
/// One queue a partition, and not one for all: what a batch does not want of a partition then stays with
/// librdkafka, which counts it and stops fetching, and a partition that is ahead never hides one that is behind.
///
/// librdkafka's simple consumer, and not an assignment of its group consumer: that one looks for the coordinator of a
/// group which is never joined, over a connection of its own, and takes a tenth of a second to be closed.
pub(super) struct PartitionQueue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    topic: NonNull<rd::rd_kafka_topic_t>,
    partition: i32,
    _signal: Arc<Signal>, // librdkafka's callback holds its address
    _client: Arc<Client>, // a queue must not outlive its client
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// The queue of `at`, which raises `signal` whenever something comes into it while it is empty.
    pub(super) fn new(
        client: &Arc<Client>,
        at: &TopicPartition,
        signal: &Arc<Signal>,
    ) -> Result<Self, KafkaError> {
        let name = c_name(at.topic.as_str())?;
        let partition = at.partition.0;
        // SAFETY: the client is alive, and the name is a C string for the length of the call.
        let topic = unsafe { rd::rd_kafka_topic_new(client.native(), name.as_ptr(), ptr::null_mut()) };
        let topic = NonNull::new(topic).ok_or_else(last_error)?;
        // SAFETY: as above.
        let queue = unsafe { rd::rd_kafka_queue_get_partition(client.native(), name.as_ptr(), partition) };
        let Some(queue) = NonNull::new(queue) else {
            // SAFETY: the handle is ours, and this is the last use of it.
            unsafe { rd::rd_kafka_topic_destroy(topic.as_ptr()) };
            return Err(KafkaError::Seek(format!("{at} has no queue")));
        };
        let opaque = Arc::as_ptr(signal).cast_mut().cast::<c_void>();
        // SAFETY: the queue is valid. The signal lives until `drop` takes the callback away, which waits for a callback
        // under way since both hold the queue's lock.
        unsafe { rd::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(raise), opaque) };
        Ok(Self { queue, topic, partition, _signal: Arc::clone(signal), _client: Arc::clone(client) })
    }

    /// Starts to fetch it, with the record at `from` or the first after it.
    pub(super) fn start(&self, from: Offset) -> Result<(), KafkaError> {
        // SAFETY: the topic's handle is valid.
        let failed = unsafe { rd::rd_kafka_consume_start(self.topic.as_ptr(), self.partition, from.0) };
        if failed == 0 { Ok(()) } else { Err(last_error()) }
    }

    /// Fetches it anew, with the record at `from` or the first after it.
    pub(super) fn restart(&self, from: Offset) -> Result<(), KafkaError> {
        self.stop();
        self.start(from)
    }

    /// Fetches it no more. What was fetched and not taken goes with it: librdkafka keeps a partition's queue as long as the
    /// client, and nothing of this start may be taken for the next.
    fn stop(&self) {
        // SAFETY: the topic is valid. A partition that was not started is stopped too; the call waits for an answer of
        // librdkafka's own thread, and for no broker.
        unsafe {
            rd::rd_kafka_consume_stop(self.topic.as_ptr(), self.partition);
        }
        let mut batch = Batch::new(LEFT);
        while self.take(LEFT, &mut batch).count() > 0 {}
    }

    /// Takes up to `max` messages that are there now, by way of `batch`; never waits.
    pub(super) fn take<'a>(&self, max: usize, batch: &'a mut Batch) -> Taken<'a> {
        drop(batch.drain());
        let max = max.min(batch.0.capacity());
        // SAFETY: `batch` has room for `max` pointers; librdkafka writes that many at most and says how many, and
        // with time-out 0 it does not wait. An error is a negative number: nothing has been written then.
        unsafe {
            let taken = rd::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, batch.0.as_mut_ptr(), max);
            batch.0.set_len(usize::try_from(taken).unwrap_or(0).min(max));
        }
        batch.drain()
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is valid.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
        }
        self.stop();
        // SAFETY: as above, and this is the last use of them.
        unsafe {
            rd::rd_kafka_queue_destroy(self.queue.as_ptr());
            rd::rd_kafka_topic_destroy(self.topic.as_ptr());
        }
    }
}

impl fmt::Debug for PartitionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartitionQueue")
    }
}

/// Why the last call on this thread failed, of those that do not say it themselves.
fn last_error() -> KafkaError {
    // SAFETY: it reads a number of this thread.
    KafkaError::MessageConsumption(unsafe { rd::rd_kafka_last_error() }.into())
}

/// Called by librdkafka's threads, which must not be kept: raising a signal is short.
unsafe extern "C" fn raise(_: *mut rd::rd_kafka_t, signal: *mut c_void) {
    // SAFETY: `signal` is what `PartitionQueue::new` gave, and its `Arc` is held while the callback is enabled.
    unsafe { &*signal.cast::<Signal>() }.raise();
}

/// Which offset to ask a partition's leader for.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    Earliest,
    /// The last stable offset of a client that reads committed records only, else the end.
    Latest,
    /// The first record at or after this time, in milliseconds since the epoch.
    Since(i64),
}

/// What a partition's leader has answered.
pub(super) struct Answer {
    pub(super) at: TopicPartition,
    /// Negative where no record fits.
    pub(super) offset: Offset,
    pub(super) leader_epoch: Option<i32>,
}

/// Asks the leaders of `partitions`, one request a broker.
pub(super) fn list_offsets(
    client: &Client,
    partitions: &[TopicPartition],
    ask: Ask,
    timeout: Duration,
) -> Result<Vec<Answer>, KafkaError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let time = match ask {
        Ask::Earliest => -2, // the protocol's own marks in the place of a time
        Ask::Latest => -1,
        Ask::Since(time) => time.max(0),
    };
    let list = Partitions::new(partitions.iter().map(|at| (at, time)))?;
    // SAFETY: client and list are valid; the call blocks for the time-out at most and writes into the list.
    let error = unsafe { rd::rd_kafka_offsets_for_times(client.native(), list.0.ptr(), millis(timeout)) };
    check(error).map_err(KafkaError::OffsetFetch)?;
    list.answers()
}

/// The ends of `partitions`, open transactions included, whatever the client may read.
pub(super) fn ends(
    client: &Arc<Client>,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<(TopicPartition, Offset)>, KafkaError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let latest = -1; // the protocol's own mark in the place of a time
    let list = Partitions::new(partitions.iter().map(|at| (at, latest)))?;
    let answers = Answers::new(client);
    // SAFETY: client, list and queue are valid; librdkafka copies list and options. A null error buffer of length 0 is
    // allowed.
    unsafe {
        let kind = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
        let options = rd::rd_kafka_AdminOptions_new(client.native(), kind);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
        rd::rd_kafka_ListOffsets(client.native(), list.0.ptr(), options, answers.0.as_ptr());
        rd::rd_kafka_AdminOptions_destroy(options);
    }
    let late = KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut);
    let event = answers.poll(timeout).ok_or(late)?;
    check(event.error()).map_err(KafkaError::OffsetFetch)?;
    Ok(event.ends())
}

/// A topic's name as librdkafka takes it: without a NUL, which no topic's name can hold.
fn c_name(topic: &str) -> Result<CString, KafkaError> {
    let refused = |_| KafkaError::Subscription(format!("{topic:?} cannot be a topic's name: it holds a NUL"));
    CString::new(topic).map_err(refused)
}

/// A list of partitions as librdkafka takes it.
struct Partitions(TopicPartitionList);

impl Partitions {
    fn new<'a>(entries: impl Iterator<Item = (&'a TopicPartition, i64)>) -> Result<Self, KafkaError> {
        let list = Self(TopicPartitionList::new());
        for (at, offset) in entries {
            let topic = c_name(at.topic.as_str())?;
            // SAFETY: the list is valid, librdkafka copies the name and answers with the new element.
            unsafe {
                let element =
                    rd::rd_kafka_topic_partition_list_add(list.0.ptr(), topic.as_ptr(), at.partition.0);
                (*element).offset = offset;
            }
        }
        Ok(list)
    }

    fn elements(&self) -> &[rd::rd_kafka_topic_partition_t] {
        // SAFETY: the list is valid and holds `cnt` elements; nobody changes it while it is borrowed.
        unsafe {
            let list = &*self.0.ptr();
            array(list.elems, usize::try_from(list.cnt).unwrap_or(0))
        }
    }

    fn answers(&self) -> Result<Vec<Answer>, KafkaError> {
        self.elements().iter().map(answer).collect()
    }
}

fn answer(element: &rd::rd_kafka_topic_partition_t) -> Result<Answer, KafkaError> {
    check(element.err).map_err(KafkaError::OffsetFetch)?;
    // SAFETY: the element is part of a valid list, and its topic is a C string.
    let (topic, epoch) = unsafe {
        (text(element.topic), rd::rd_kafka_topic_partition_get_leader_epoch(ptr::from_ref(element)))
    };
    let at = TopicPartition::new(&topic, element.partition);
    Ok(Answer { at, offset: Offset(element.offset), leader_epoch: (epoch >= 0).then_some(epoch) })
}

/// The offset after the last message, transaction markers included, that was taken of `at` since it was started;
/// `None` before the first.
pub(super) fn position(client: &Client, at: &TopicPartition) -> Option<i64> {
    let list = Partitions::new(std::iter::once((at, -1))).ok()?;
    // SAFETY: client and list are valid; the call does not wait and writes into the list.
    let error = unsafe { rd::rd_kafka_position(client.native(), list.0.ptr()) };
    check(error).ok()?;
    list.elements().first().map(|element| element.offset).filter(|offset| *offset >= 0)
}

/// How many log lines and errors wait to be served.
pub(super) fn waiting_events(client: &Client) -> usize {
    // SAFETY: the client is valid.
    usize::try_from(unsafe { rd::rd_kafka_outq_len(client.native()) }).unwrap_or(0)
}

/// Commits `positions` to the client's group and waits for the answer, for `timeout` at most, and for `grace` at most
/// once `cancel` is set: librdkafka's own blocking commit waits without end for a group coordinator that is gone.
pub(super) fn commit(
    client: &Arc<Client>,
    positions: &[(TopicPartition, Offset)],
    timeout: Duration,
    cancel: &Cancel,
    grace: Duration,
) -> Result<(), KafkaError> {
    if positions.is_empty() {
        return Ok(());
    }
    let list = Partitions::new(positions.iter().map(|(at, offset)| (at, offset.0)))?;
    let queue = Answers::new(client);
    // SAFETY: client, list and queue are valid; librdkafka copies the list, and the answer goes to the queue.
    let error = unsafe {
        rd::rd_kafka_commit_queue(client.native(), list.0.ptr(), queue.0.as_ptr(), None, ptr::null_mut())
    };
    check(error).map_err(KafkaError::ConsumerCommit)?;
    let answer = Arc::new(Awaited { answers: queue, _client: Arc::clone(client) });
    let Some(event) = answer.within(timeout, cancel, grace) else {
        return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut));
    };
    check(event.error()).map_err(KafkaError::ConsumerCommit)?;
    let each = event.partitions().iter().try_for_each(|element| check(element.err));
    each.map_err(KafkaError::ConsumerCommit)
}

/// An answer that is waited for until it is cancelled. The queue stands before the client because it must be freed
/// before it, also by a waker that is the last to hold it.
struct Awaited {
    answers: Answers,
    _client: Arc<Client>,
}

impl Awaited {
    /// The answer, if it comes within `timeout`, or within `grace` once `cancel` is set.
    fn within(self: Arc<Self>, timeout: Duration, cancel: &Cancel, grace: Duration) -> Option<Event> {
        let woken = Arc::clone(&self);
        let _guard = cancel.on_cancel(Arc::new(move || woken.answers.interrupt()));
        let answer = self.answers.poll(timeout);
        if answer.is_none() && cancel.is_cancelled() { self.answers.poll(grace) } else { answer }
    }
}

/// A topic as its cluster describes it.
pub(super) struct Description {
    pub(super) name: String,
    pub(super) id: [u8; 16],
    pub(super) partitions: Vec<i32>,
}

/// A question for the partitions and ids of topics, whose answer may be taken later. The queue stands before the
/// client because it must be freed before it.
pub(super) struct Describing {
    answers: Answers,
    _client: Arc<Client>,
}

impl Describing {
    /// Asks about `topics`; librdkafka gives up after `timeout`, and says so.
    pub(super) fn ask(
        client: &Arc<Client>,
        topics: &[String],
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let answers = Answers::new(client);
        describe_topics(client, topics, timeout, &answers)?;
        Ok(Self { answers, _client: Arc::clone(client) })
    }

    /// The answer, if it comes within `wait`; topics that do not exist are left out of it.
    pub(super) fn answer(&self, wait: Duration) -> Option<Result<Vec<Description>, KafkaError>> {
        let event = self.answers.poll(wait)?;
        Some(check(event.error()).map_err(KafkaError::MetadataFetch).and_then(|()| event.descriptions()))
    }
}

/// Asks for the partitions and ids of `topics` and waits for the answer, for `timeout` at most.
pub(super) fn describe(
    client: &Arc<Client>,
    topics: &[String],
    timeout: Duration,
) -> Result<Vec<Description>, KafkaError> {
    let late = KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
    Describing::ask(client, topics, timeout)?.answer(timeout).unwrap_or(Err(late))
}

fn describe_topics(
    client: &Client,
    topics: &[String],
    timeout: Duration,
    answers: &Answers,
) -> Result<(), KafkaError> {
    let names = topics.iter().map(|name| c_name(name)).collect::<Result<Vec<CString>, KafkaError>>()?;
    let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: all pointers are valid for the calls, librdkafka copies names and options, and what it made for us
    // is destroyed here. A null error buffer of length 0 is allowed.
    unsafe {
        let wanted = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let kind = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = rd::rd_kafka_AdminOptions_new(client.native(), kind);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
        rd::rd_kafka_DescribeTopics(client.native(), wanted, options, answers.0.as_ptr());
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_TopicCollection_destroy(wanted);
    }
    Ok(())
}

/// A queue of its own for the answer to one request.
struct Answers(NonNull<rd::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used and freed by any thread.
unsafe impl Send for Answers {}
// SAFETY: they have a lock of their own, so that one thread may wake another that waits.
unsafe impl Sync for Answers {}

impl Answers {
    fn new(client: &Client) -> Self {
        // SAFETY: the client is valid; librdkafka ends the process where memory runs out, so it is never null.
        Self(unsafe { NonNull::new_unchecked(rd::rd_kafka_queue_new(client.native())) })
    }

    fn poll(&self, timeout: Duration) -> Option<Event> {
        // SAFETY: the queue is valid.
        NonNull::new(unsafe { rd::rd_kafka_queue_poll(self.0.as_ptr(), millis(timeout)) }).map(Event)
    }

    /// Ends the wait of [`Answers::poll`] under way, or the next one.
    fn interrupt(&self) {
        // SAFETY: the queue is valid.
        unsafe { rd::rd_kafka_queue_yield(self.0.as_ptr()) }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // SAFETY: the queue is ours; an answer that is still to come keeps its own reference to it.
        unsafe { rd::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// An answer of librdkafka.
struct Event(NonNull<rd::rd_kafka_event_t>);

impl Event {
    fn error(&self) -> RDKafkaRespErr {
        // SAFETY: the event is valid.
        unsafe { rd::rd_kafka_event_error(self.0.as_ptr()) }
    }

    fn partitions(&self) -> &[rd::rd_kafka_topic_partition_t] {
        // SAFETY: the event is valid; its list, where it has one, lives as long and holds `cnt` elements.
        unsafe {
            let list = rd::rd_kafka_event_topic_partition_list(self.0.as_ptr());
            list.as_ref().map_or(&[], |list| array(list.elems, usize::try_from(list.cnt).unwrap_or(0)))
        }
    }

    /// Of an answer about offsets, those that are known.
    fn ends(&self) -> Vec<(TopicPartition, Offset)> {
        // SAFETY: the event is valid, and is the answer to a ListOffsets, or the result is null; result and elements live
        // as long as the event.
        let elements: Vec<&rd::rd_kafka_topic_partition_t> = unsafe {
            let result = rd::rd_kafka_event_ListOffsets_result(self.0.as_ptr());
            if result.is_null() {
                return Vec::new();
            }
            let mut count = 0;
            let infos = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            let element =
                |info: &*const _| rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*info).as_ref();
            array(infos, count).iter().filter_map(element).collect()
        };
        let known = elements.into_iter().filter_map(|element| answer(element).ok());
        known.map(|answer| (answer.at, answer.offset)).collect()
    }

    fn descriptions(&self) -> Result<Vec<Description>, KafkaError> {
        // SAFETY: the event is valid, and is the answer to a DescribeTopics, or the result is null; result and
        // descriptions live as long as the event.
        unsafe {
            let result = rd::rd_kafka_event_DescribeTopics_result(self.0.as_ptr());
            if result.is_null() {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::Fail));
            }
            let mut count = 0;
            let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            array(topics, count).iter().filter_map(|topic| description(*topic).transpose()).collect()
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours, and this is the last use of it.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// None where the topic does not exist.
///
/// # Safety
/// `topic` is a valid description.
unsafe fn description(
    topic: *const rd::rd_kafka_TopicDescription_t,
) -> Result<Option<Description>, KafkaError> {
    // SAFETY: what the caller promises; everything asked of the description lives as long as it.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            match check(rd::rd_kafka_error_code(error)) {
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(None),
                answer => answer.map_err(KafkaError::MetadataFetch)?,
            }
        }
        let mut count = 0;
        let partitions = rd::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let number = |partition: &*const _| rd::rd_kafka_TopicPartitionInfo_partition(*partition);
        Ok(Some(Description {
            name: text(rd::rd_kafka_TopicDescription_name(topic)),
            id: id(rd::rd_kafka_TopicDescription_topic_id(topic)),
            partitions: array(partitions, count).iter().map(number).collect(),
        }))
    }
}

/// # Safety
/// `uuid` is valid.
unsafe fn id(uuid: *const rd::rd_kafka_Uuid_t) -> [u8; 16] {
    // SAFETY: what the caller promises.
    let (high, low) = unsafe {
        (rd::rd_kafka_Uuid_most_significant_bits(uuid), rd::rd_kafka_Uuid_least_significant_bits(uuid))
    };
    (u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned())).to_be_bytes()
}

/// # Safety
/// `data` is null, or `len` elements lie there for as long as `'a`.
unsafe fn array<'a, T>(data: *mut T, len: usize) -> &'a [T] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: what the caller promises.
    unsafe { slice::from_raw_parts(data, len) }
}

fn check(error: RDKafkaRespErr) -> Result<(), RDKafkaErrorCode> {
    match error {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(error.into()),
    }
}

fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_librdkafka_cannot_take_is_an_error_and_not_left_out() {
        let (good, bad) = (TopicPartition::new("good", 0), TopicPartition::new("b\0d", 0));
        let list = Partitions::new([&good, &bad].into_iter().map(|at| (at, 0)));
        let error = list.err().unwrap().to_string();
        assert!(error.contains(r#""b\0d" cannot be a topic's name"#), "{error}");
        assert_eq!(Partitions::new(std::iter::once((&good, 0))).unwrap().elements().len(), 1);
    }
}
