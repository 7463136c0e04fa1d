//! librdkafka's calls for transactions, made safe: one function a call.
//!
//! rust-rdkafka's own commit polls in steps of 100 ms before it commits, and its offsets want a consumer. This file
//! deliberately decides nothing: what is tried again, and what an error means, is said above.
#![expect(unsafe_code, reason = "librdkafka's calls for transactions and for a group's offsets are C")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::producer::{Handle, Producer};
use crate::kafka::Cluster;
use crate::kafka::settings::Role;
use crate::kafka::token::{LoggedIn, Tokens};

/// Why a call was refused.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) code: RDKafkaErrorCode,
    pub(super) reason: String,
    pub(super) next: Next,
}

/// What librdkafka says may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The same call, which goes on with what it has begun.
    SameCall,
    /// An abort of the transaction.
    Abort,
    /// Nothing with this producer.
    Nothing,
}

impl Refused {
    /// One of this crate's own.
    pub(super) fn new(code: RDKafkaErrorCode, reason: impl Into<String>, next: Next) -> Self {
        Self { code, reason: reason.into(), next }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// An offset that a group has committed, with the text beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) metadata: String,
}

/// Offsets to be committed.
pub(super) struct Offsets(TopicPartitionList);

impl Offsets {
    pub(super) fn new() -> Self {
        Self(TopicPartitionList::new())
    }

    /// Adds one, with a text beside it.
    pub(super) fn add(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        metadata: &str,
    ) -> Result<(), Refused> {
        let mut element = self.0.add_partition(topic, partition);
        element.set_metadata(metadata);
        element.set_offset(Offset::Offset(offset)).map_err(|error| invalid(&error))
    }
}

fn invalid(error: &KafkaError) -> Refused {
    Refused::new(RDKafkaErrorCode::InvalidArgument, error.to_string(), Next::Nothing)
}

impl Producer {
    /// Fences all older producers of the same id, and ends what they have begun. Called again it goes on.
    pub(super) fn init_transactions(&self, wait: Duration) -> Result<(), Refused> {
        // SAFETY: the client is alive.
        done(unsafe { native::rd_kafka_init_transactions(self.native(), millis(wait)) })
    }

    /// Begins a transaction.
    pub(super) fn begin(&self) -> Result<(), Refused> {
        // SAFETY: the client is alive.
        done(unsafe { native::rd_kafka_begin_transaction(self.native()) })
    }

    /// Adds a group's offsets to the transaction; waits until the group's coordinator has them.
    pub(super) fn send_offsets(&self, group: &str, offsets: &Offsets, wait: Duration) -> Result<(), Refused> {
        let group = c_text(group)?;
        // SAFETY: `group` is a C string that is copied.
        let group = unsafe { native::rd_kafka_consumer_group_metadata_new(group.as_ptr()) };
        let group = Handle::new(group, native::rd_kafka_consumer_group_metadata_destroy);
        let group = group.ok_or_else(|| missing("a group's metadata"))?;
        let (client, offsets) = (self.native(), offsets.0.ptr());
        // SAFETY: client, list and group are alive, and both are copied.
        done(unsafe {
            native::rd_kafka_send_offsets_to_transaction(client, offsets, group.ptr(), millis(wait))
        })
    }

    /// Commits. Called again it goes on.
    pub(super) fn commit(&self, wait: Duration) -> Result<(), Refused> {
        // SAFETY: the client is alive.
        done(unsafe { native::rd_kafka_commit_transaction(self.native(), millis(wait)) })
    }

    /// Aborts. Called again it goes on, once the reports of what is thrown away have been taken.
    pub(super) fn abort(&self, wait: Duration) -> Result<(), Refused> {
        // SAFETY: the client is alive.
        done(unsafe { native::rd_kafka_abort_transaction(self.native(), millis(wait)) })
    }

    /// What has ended the producer for good, where something has.
    pub(super) fn fatal_error(&self) -> Option<Refused> {
        let mut reason: [c_char; 512] = [0; 512];
        // SAFETY: the client is alive, and the buffer is as long as is said; it is ended by a zero.
        let code = unsafe { native::rd_kafka_fatal_error(self.native(), reason.as_mut_ptr(), reason.len()) };
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: as above.
        let reason = unsafe { text(reason.as_ptr()) };
        Some(Refused::new(code.into(), reason, Next::Nothing))
    }
}

/// A client that reads a group's offsets, and joins no group.
///
/// A producer could ask as well, but librdkafka (2.12) looks for the asking client's own group when the coordinator is not
/// found at once, and a producer has none: the process would end there.
pub(super) struct GroupReader {
    client: LoggedIn<BaseConsumer>,
    group: String,
}

impl GroupReader {
    /// Connects in the background.
    pub(super) fn new(cluster: &Cluster, group: &str, tokens: Option<&Tokens>) -> Result<Self, KafkaError> {
        let mut config = cluster.client(Role::Consumer);
        config.set("group.id", group).set("enable.auto.commit", "false");
        let client: BaseConsumer = config.create()?;
        Ok(Self { client: LoggedIn::new(client, tokens), group: group.to_owned() })
    }

    fn native(&self) -> *mut native::rd_kafka_t {
        self.client.client().native_ptr()
    }

    /// Every offset that a group has committed, in transactions too; an error that may pass where one of these is open.
    pub(super) fn committed(&self, wait: Duration) -> Result<Vec<Committed>, Refused> {
        // SAFETY: the client is alive.
        let queue = unsafe { native::rd_kafka_queue_new(self.native()) };
        let queue = Handle::new(queue, native::rd_kafka_queue_destroy);
        let queue = queue.ok_or_else(|| missing("a queue"))?;
        self.ask_for_offsets(&queue, wait)?;
        // A little longer than the request's own time-out, so that its error is the one that is seen.
        let limit = millis(wait.saturating_add(Duration::from_millis(500)));
        // SAFETY: the queue is alive; the event is ours.
        let event = unsafe { native::rd_kafka_queue_poll(queue.ptr(), limit) };
        let event = Handle::new(event, native::rd_kafka_event_destroy);
        let event = event.ok_or_else(|| {
            Refused::new(RDKafkaErrorCode::OperationTimedOut, "no answer in time", Next::SameCall)
        })?;
        read_offsets(&event)
    }

    fn ask_for_offsets(
        &self,
        queue: &Handle<native::rd_kafka_queue_t>,
        wait: Duration,
    ) -> Result<(), Refused> {
        use native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS as OPERATION;
        let client = self.native();
        // SAFETY: the client is alive.
        let options = unsafe { native::rd_kafka_AdminOptions_new(client, OPERATION) };
        let options = Handle::new(options, native::rd_kafka_AdminOptions_destroy);
        let options = options.ok_or_else(|| missing("options"))?;
        // SAFETY: the options are alive; of a refusal, which only numbers out of range meet, the code is enough.
        unsafe {
            native::rd_kafka_AdminOptions_set_request_timeout(
                options.ptr(),
                millis(wait),
                ptr::null_mut(),
                0,
            );
        };
        // Without it, the offset before an open transaction would be told, as if that were never to be committed.
        // SAFETY: the options are alive.
        done(unsafe { native::rd_kafka_AdminOptions_set_require_stable_offsets(options.ptr(), 1) })?;
        let group = c_text(&self.group)?;
        // SAFETY: `group` is a C string that is copied; null means all partitions.
        let request = unsafe { native::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), ptr::null()) };
        let request = Handle::new(request, native::rd_kafka_ListConsumerGroupOffsets_destroy);
        let request = request.ok_or_else(|| missing("a request"))?;
        let mut requests = [request.ptr()];
        // SAFETY: one request, the options and the queue are alive; what is needed of them is copied.
        unsafe {
            native::rd_kafka_ListConsumerGroupOffsets(
                client,
                requests.as_mut_ptr(),
                1,
                options.ptr(),
                queue.ptr(),
            );
        }
        Ok(())
    }
}

/// The offsets that an answer names.
fn read_offsets(event: &Handle<native::rd_kafka_event_t>) -> Result<Vec<Committed>, Refused> {
    // SAFETY: the event is alive; its text, which may be missing, lives as long.
    let (code, reason) = unsafe {
        (native::rd_kafka_event_error(event.ptr()), text(native::rd_kafka_event_error_string(event.ptr())))
    };
    answered(code, &reason)?;
    // SAFETY: the event is alive; it has no result where it answers something else.
    let result = unsafe { native::rd_kafka_event_ListConsumerGroupOffsets_result(event.ptr()) };
    if result.is_null() {
        return Err(missing("an answer about offsets"));
    }
    let mut count = 0;
    // SAFETY: the result lives as long as the event.
    let groups = unsafe { native::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count) };
    if groups.is_null() || count == 0 {
        return Err(missing("the group in an answer about its offsets"));
    }
    // SAFETY: there is at least one, alive as long as the event; its error is its own.
    let (group, error) = unsafe { (*groups, native::rd_kafka_group_result_error(*groups)) };
    if !error.is_null() {
        // SAFETY: not null, and not ours to free.
        return Err(unsafe { refused(error) });
    }
    // SAFETY: the group lives as long as the event.
    let list = unsafe { native::rd_kafka_group_result_partitions(group) };
    // SAFETY: null, or a list that lives as long as the event, whose `cnt` elements lie one after the other.
    let elements = unsafe {
        match list.as_ref() {
            Some(list) if !list.elems.is_null() => {
                slice::from_raw_parts(list.elems, usize::try_from(list.cnt).unwrap_or(0))
            }
            _ => &[],
        }
    };
    elements.iter().filter(|element| element.offset >= 0 || is_error(element.err)).map(committed).collect()
}

fn committed(element: &native::rd_kafka_topic_partition_t) -> Result<Committed, Refused> {
    answered(element.err, "the group's offsets are not settled")?;
    let metadata = if element.metadata.is_null() {
        String::new()
    } else {
        // SAFETY: not null, and so long.
        let bytes = unsafe { slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) };
        String::from_utf8_lossy(bytes).into_owned()
    };
    // SAFETY: a partition's topic is a C string.
    let topic = unsafe { text(element.topic) };
    Ok(Committed { topic, partition: element.partition, offset: element.offset, metadata })
}

fn answered(code: RDKafkaRespErr, reason: &str) -> Result<(), Refused> {
    if !is_error(code) {
        return Ok(());
    }
    let code = RDKafkaErrorCode::from(code);
    let next = match code {
        RDKafkaErrorCode::UnstableOffsetCommit => Next::SameCall,
        code if crate::kafka::is_passing(code) => Next::SameCall,
        _ => Next::Nothing,
    };
    Err(Refused::new(code, format!("{reason} ({code})"), next))
}

fn is_error(code: RDKafkaRespErr) -> bool {
    code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// The outcome of a call, whose error is freed here.
fn done(error: *mut native::rd_kafka_error_t) -> Result<(), Refused> {
    match Handle::new(error, native::rd_kafka_error_destroy) {
        None => Ok(()),
        // SAFETY: the error is alive.
        Some(error) => Err(unsafe { refused(error.ptr()) }),
    }
}

/// # Safety
/// `error` is an error that is alive.
unsafe fn refused(error: *const native::rd_kafka_error_t) -> Refused {
    // SAFETY: what the caller promises; the text lives as long as the error.
    unsafe {
        let next = if native::rd_kafka_error_is_fatal(error) != 0 {
            Next::Nothing
        } else if native::rd_kafka_error_txn_requires_abort(error) != 0 {
            Next::Abort
        } else if native::rd_kafka_error_is_retriable(error) != 0 {
            Next::SameCall
        } else {
            Next::Nothing
        };
        let code = native::rd_kafka_error_code(error).into();
        Refused::new(code, text(native::rd_kafka_error_string(error)), next)
    }
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

fn c_text(text: &str) -> Result<CString, Refused> {
    let refused = |_| Refused::new(RDKafkaErrorCode::InvalidArgument, "a NUL byte in a name", Next::Nothing);
    CString::new(text).map_err(refused)
}

fn missing(what: &str) -> Refused {
    Refused::new(RDKafkaErrorCode::Fail, format!("expected {what} of librdkafka, found none"), Next::Nothing)
}

fn millis(wait: Duration) -> c_int {
    c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX)
}
