//! Why rows are not written, in words that say what to do.
//!
//! It deliberately decides nothing: whoever asks has seen a failure, and goes on or ends by its own rules.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::producer::{Failure, Failures, Producer};
use super::{LARGEST_RECORD, METADATA_TIMEOUT};
use crate::error::{Error, ErrorKind};
use crate::kafka::refusal::{self, Complaint};
use crate::kafka::{Cluster, explain_code};

/// What there is to ask about a failure.
#[derive(Clone, Copy)]
pub(super) struct Explainer<'a> {
    pub(super) producer: &'a Producer,
    pub(super) cluster: &'a Cluster,
}

impl Explainer<'_> {
    /// Why some of `rows` rows were not written.
    pub(super) fn failures(self, failures: &Failures, rows: usize) -> Error {
        let Some(first) = &failures.first else {
            return Error::internal("a delivery failed without a failure");
        };
        let (count, code) = (failures.count, first.code);
        if let Some(error) = self.refused(code, &format!("{count} of {rows} rows are not written")) {
            return error;
        }
        let place = format!("{}[{}]", first.topic, first.partition);
        let error = match code {
            code if has_ended(code) => self.fatal(&format!("{count} of {rows} rows are not written")),
            RDKafkaErrorCode::MessageSizeTooLarge => self.too_large(first, &place),
            RDKafkaErrorCode::MessageTimedOut => Error::sink(format!(
                "Kafka acknowledged nothing within delivery.timeout.ms: {count} of {rows} rows failed, the first for \
                 {place}"
            ))
            .help(self.complaint()),
            code => {
                let what = format!("Kafka refused {count} of {rows} rows, the first for {place}");
                explain_code(code, ErrorKind::Sink, what, self.cluster)
            }
        };
        error.caused_by(KafkaError::MessageProduction(code))
    }

    /// Why nothing was acknowledged, where the cluster or the giver of tokens has refused.
    fn refused(self, code: RDKafkaErrorCode, what: &str) -> Option<Error> {
        if code != RDKafkaErrorCode::MessageTimedOut {
            return None;
        }
        self.unreached(what)
    }

    /// Why the cluster does not answer, where it has said so, or the giver of tokens has.
    pub(super) fn unreached(self, what: &str) -> Option<Error> {
        if let Some(failure) = self.producer.token_failure() {
            return Some(failure.at(what.to_owned()));
        }
        refusal::explain(self.producer.last_error()?, ErrorKind::Sink, what, self.cluster)
    }

    /// What ended the producer itself: librdkafka tells it once, and of the rows only that it has ended.
    fn fatal(self, what: &str) -> Error {
        match self.producer.last_error() {
            Some(said) => explain_code(said.code, ErrorKind::Sink, format!("{what}: {said}"), self.cluster),
            None => explain_code(RDKafkaErrorCode::Fatal, ErrorKind::Sink, what, self.cluster),
        }
    }

    /// What to do about silence, with what the connection itself says where it says anything.
    fn complaint(self) -> String {
        let said = self.producer.last_error();
        let said = said.map(|said| format!(" (the connection says: {said})")).unwrap_or_default();
        format!(
            "check that the brokers are up and reachable{said}; until then the rows were sent again and again"
        )
    }

    fn too_large(self, first: &Failure, place: &str) -> Error {
        let bytes = first.bytes;
        let limit = self.cluster.config.get("message.max.bytes").map_or(LARGEST_RECORD, String::as_str);
        Error::sink(format!(
            "a record of {bytes} bytes for {place} is larger than the producer's limit of {limit} bytes \
             (message.max.bytes) or the topic's own (max.message.bytes)"
        ))
        .help(
            "write fewer or shorter columns, or raise the limit that it passes; a topic that takes less than a megabyte \
             takes batches of records no larger: config={\"batch.size\": ...} makes them so; the rows come again",
        )
    }
}

/// Whether a row failed since the producer has ended: before it was handed over, or thrown away after that.
fn has_ended(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fatal | Code::PurgeQueue | Code::PurgeInflight)
}

/// Nobody has said which topics there are.
pub(super) fn no_answer(servers: &str, reason: &Complaint) -> Error {
    Error::sink(format!("no Kafka broker at {servers} answered within {METADATA_TIMEOUT:?}: {reason}"))
        .help("check bootstrap_servers, and that the brokers are up")
        .retriable()
}
