//! The ingest thread's half of the source: it waits for records, and finds out what has become of those that do not come.
//!
//! It deliberately decides nothing about ranges that are not its own: what is lost of them is told, and who plans goes by
//! what is there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::ingest::kafka::client::Client;
use crate::ingest::kafka::lane::{Failed, Lanes, Turn};
use crate::ingest::kafka::native::{self, Answer, Ask};
use crate::ingest::kafka::signal::Signal;
use crate::ingest::kafka::silence::{News, Silence};
use crate::ingest::kafka::{Extent, GONE_PATIENCE, KafkaSettings, Shared, is_missing};
use crate::ingest::{ChunkSink, Fetcher, Loss, LossCause, shrunk};
use crate::offset::{Offset, OffsetRange, TopicPartition};

/// Reads through a client of its own.
pub(super) struct KafkaFetcher {
    pub(super) lanes: Arc<Mutex<Lanes>>, // held while fetching; the planner looks ahead between fetches
    pub(super) signal: Arc<Signal>,
    pub(super) client: Arc<Client>,
    pub(super) shared: Arc<Shared>,
}

impl Fetcher for KafkaFetcher {
    fn fetch(&mut self, ranges: &[OffsetRange], cancel: &Cancel, sink: &mut ChunkSink<'_>) -> Result<()> {
        self.share_anew()?;
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.settle(ranges).map_err(|error| self.shared.explain(&error, "partitions cannot be fetched"))?;
        lanes.begin(ranges);
        let mut open: Vec<&OffsetRange> = ranges.iter().collect();
        let mut silence = Silence::default();
        let _woken = cancel.on_cancel(self.signal.waker());
        while !cancel.is_cancelled() {
            let turn = match lanes.turn(&mut open, sink) {
                Ok(turn) => turn,
                Err(error) => self.heal(error, &mut lanes, &mut open, sink)?,
            };
            match turn {
                Turn::Done | Turn::Moved => self.records_came(&mut silence, ranges),
                Turn::Empty => self.wait(&mut silence, &mut lanes, &mut open, sink)?,
            }
            if turn == Turn::Done || open.is_empty() {
                drop(self.client.take_complaint()); // of what has healed
                return Ok(());
            }
        }
        Ok(())
    }
}

impl KafkaFetcher {
    /// Holds less of each partition from here on, where there are more of them than its client counts with: by a new
    /// client, since one never changes its settings. What was read ahead is read again.
    fn share_anew(&mut self) -> Result<()> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = self.shared.count.load(Ordering::Relaxed);
        let Some(share) = lanes.share().among(partitions) else { return Ok(()) };
        let client = self.shared.fetching_client(share, &self.signal)?;
        lanes.anew(Arc::clone(&client), share);
        self.client = client;
        log::info!(
            target: "tidemill::ingest::kafka",
            "{}: {partitions} partitions are read by now; what is read ahead of each is cut to {} KiB, so that all of \
             it still fits in max_memory",
            self.shared.settings.name,
            share.look_ahead() / 1_024
        );
        Ok(())
    }

    fn records_came(&self, silence: &mut Silence, ranges: &[OffsetRange]) {
        let Some(News::Over(lasted)) = silence.something_came(|| self.shared.clock.elapsed()) else { return };
        let (name, seconds) = (&self.shared.settings.name, lasted.as_secs());
        log::info!(
            target: "tidemill::ingest::kafka",
            "{name}: records come again after {seconds} s ({})",
            named(ranges.iter())
        );
    }

    /// Waits for librdkafka to have something, for a cancel, or until it is time to look whether the silence will last:
    /// librdkafka says nothing for half a minute of a topic that was deleted, and nothing ever of a log that ends early.
    fn wait(
        &self,
        silence: &mut Silence,
        lanes: &mut Lanes,
        open: &mut Vec<&OffsetRange>,
        sink: &mut ChunkSink<'_>,
    ) -> Result<()> {
        self.client.serve();
        let now = self.shared.clock.elapsed();
        if let Some(news) = silence.nothing_came(now) {
            if !self.shared.skips() {
                self.shared.gone(GONE_PATIENCE).map_or(Ok(()), Err)?;
            }
            self.look_for_ends(silence, lanes, open, sink)?;
            if let (News::Silent(lasted), false) = (news, open.is_empty()) {
                self.tell_of_silence(lasted, open);
            }
        }
        if !open.is_empty() {
            self.signal.wait(Some(silence.next_look(now)));
        }
        Ok(())
    }

    /// Ends the ranges whose logs end before they do by now, or are gone: nothing would ever come of them. Where nobody
    /// answers there is nothing to know, and that is what the silence is told of.
    fn look_for_ends(
        &self,
        silence: &mut Silence,
        lanes: &mut Lanes,
        open: &mut Vec<&OffsetRange>,
        sink: &mut ChunkSink<'_>,
    ) -> Result<()> {
        let all: Vec<TopicPartition> = open.iter().map(|range| range.at.clone()).collect();
        let ends =
            |of: &[TopicPartition]| native::list_offsets(&self.shared.client, of, Ask::Latest, GONE_PATIENCE);
        match ends(&all) {
            Ok(answers) => {
                let short = |answer: &Answer| {
                    open.iter().any(|range| range.at == answer.at && range.until > answer.offset)
                };
                let short: Vec<Answer> = answers.into_iter().filter(short).collect();
                for Answer { at, offset, .. } in short {
                    if silence.is_short_again(&at) {
                        self.look_at_end(&at, Some(offset), lanes, open, sink)?;
                    }
                }
            }
            Err(error) if is_missing(&error) && self.shared.skips() => {
                for at in all {
                    let is_gone = ends(std::slice::from_ref(&at)).is_err_and(|error| is_missing(&error));
                    if is_gone {
                        self.look_at_end(&at, None, lanes, open, sink)?;
                    }
                }
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Ends the range of `at`, whose log ends before it, or is gone.
    fn look_at_end(
        &self,
        at: &TopicPartition,
        end: Option<Offset>,
        lanes: &mut Lanes,
        open: &mut Vec<&OffsetRange>,
        sink: &mut ChunkSink<'_>,
    ) -> Result<()> {
        let Some(range) = open.iter().copied().find(|range| range.at == *at) else { return Ok(()) };
        let seen = lanes.seen(at).unwrap_or(range.from);
        let cause = match end {
            Some(end) if !self.shared.skips() => return Err(shrunk(at, seen, end)),
            Some(_) => LossCause::Shrunk,
            None => LossCause::Deleted,
        };
        self.let_go(range, seen, cause, lanes, open, sink)
    }

    /// Reads on behind what is gone where that is to be skipped; else the error.
    fn heal(
        &self,
        error: Error,
        lanes: &mut Lanes,
        open: &mut Vec<&OffsetRange>,
        sink: &mut ChunkSink<'_>,
    ) -> Result<Turn> {
        let failed = error.cause::<Failed>().filter(|failed| self.shared.skips() && failed.may_be_loss());
        let Some(Failed { at, seen, .. }) = failed else { return Err(self.explain(error)) };
        let Some(range) = open.iter().copied().find(|range| range.at == *at) else {
            return Err(self.explain(error));
        };
        let next = match self.shared.extent(at) {
            Ok(Extent { first, .. }) if *seen < first => Ok(first),
            Ok(Extent { end, .. }) if *seen <= end => Ok(*seen),
            Ok(_) => Err(LossCause::Shrunk),
            Err(error) if is_missing(&error) => Err(LossCause::Deleted),
            Err(_) => Ok(*seen), // nobody answers: librdkafka will say again what it has found
        };
        match next {
            Ok(next) if next < range.until => {
                let (at, from, cause) = (at.clone(), *seen, LossCause::Retention);
                self.shared.lose(Loss { at, from, until: next, cause });
                let restarted = lanes.restart(&range.at, next);
                restarted.map_err(|error| self.shared.explain(&error, "partitions cannot be fetched"))?;
            }
            Ok(_) => self.let_go(range, *seen, LossCause::Retention, lanes, open, sink)?,
            Err(cause) => self.let_go(range, *seen, cause, lanes, open, sink)?,
        }
        Ok(if open.is_empty() { Turn::Done } else { Turn::Moved })
    }

    /// Ends `range` with what has been read of it, before `seen`.
    fn let_go(
        &self,
        range: &OffsetRange,
        seen: Offset,
        cause: LossCause,
        lanes: &mut Lanes,
        open: &mut Vec<&OffsetRange>,
        sink: &mut ChunkSink<'_>,
    ) -> Result<()> {
        self.shared.lose(Loss { at: range.at.clone(), from: seen, until: range.until, cause });
        open.retain(|other| other.at != range.at);
        lanes.finish(&range.at, sink)
    }

    fn tell_of_silence(&self, lasted: Duration, open: &[&OffsetRange]) {
        let KafkaSettings { name, cluster, .. } = &self.shared.settings;
        let seconds = lasted.as_secs();
        let complaint = self.client.complaint();
        let complaint = complaint.map(|complaint| complaint.reason);
        let complaint = complaint.as_deref().unwrap_or("no connection has failed: the broker may hang");
        log::warn!(
            target: "tidemill::ingest::kafka",
            "{name}: nothing has come for {seconds} s of {}, though records are there: {complaint} (Kafka at {cluster}); \
             check that the broker runs and can be reached from this machine; reading goes on by itself when it does",
            named(open.iter().copied())
        );
    }

    /// Offsets that are out of range are a loss, and only the cluster knows which offsets there are.
    fn explain(&self, error: Error) -> Error {
        let Some(Failed { code, at, seen, offset, reason }) = error.cause::<Failed>() else { return error };
        match code {
            RDKafkaErrorCode::BadCompression
            | RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::NotImplemented => {
                let TopicPartition { topic, partition } = at;
                let (name, cluster) = (&self.shared.settings.name, &self.shared.settings.cluster);
                let text = format!(
                    "{name}: topic {topic} partition {partition}: a batch of records that begins at offset {offset} cannot be \
                     unpacked: {reason} (Kafka at {cluster})"
                );
                Error::source(text).help(DAMAGED).at(at.to_string())
            }
            RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::LogTruncation => self.shared.out_of_range(at, *seen),
            code => {
                let what = format!("{at} at offset {seen} cannot be read");
                self.shared.explain(&KafkaError::MessageConsumption(*code), &what)
            }
        }
    }
}

/// What to do where a batch is not what its producer wrote, or is packed in a way that this client does not know. Nothing
/// skips it: how far it goes stands in what cannot be read.
const DAMAGED: &str = "records compressed with gzip, snappy, lz4 and zstd can be read; look at the batch with \
                       kafka-dump-log.sh, which tells its codec and its last offset; where the disk of a broker is \
                       damaged, have the partition led by another replica; to go on without the batch, start again \
                       behind it: starting={partition: offset}";

/// Partitions by name, and from where on they are read.
fn named<'a>(ranges: impl Iterator<Item = &'a OffsetRange>) -> String {
    let names: Vec<String> = ranges.map(ToString::to_string).collect();
    names.join(", ")
}
