//! How a Kafka cluster is reached: client settings and error mapping, shared by the Kafka source and sink.
//!
//! It deliberately neither reads nor writes records; it is the one place that decides how librdkafka is set up
//! and the one place that turns its errors into this crate's.

mod address;
mod certificate;
pub(crate) mod refusal;
pub mod secret;
pub mod security;
pub(crate) mod settings;
pub mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result, nearest};

use security::{Login, Security};
use settings::{Role, is_for};
use token::Tokens;

/// A cluster, as the user named it.
#[derive(Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// Further librdkafka settings, by their own names.
    pub config: BTreeMap<String, String>,
    /// What the connections are protected by; where there is none, what `config` says.
    pub security: Option<Security>,
}

impl Cluster {
    /// The cluster at `bootstrap_servers`, with no further settings.
    ///
    /// ```
    /// use tidemill::kafka::Cluster;
    /// assert_eq!(Cluster::at("localhost:9092").to_string(), "localhost:9092");
    /// ```
    pub fn at(bootstrap_servers: impl Into<String>) -> Self {
        Self { bootstrap_servers: bootstrap_servers.into(), config: BTreeMap::new(), security: None }
    }

    /// The same cluster, protected by `security` in place of what it was.
    ///
    /// ```
    /// use tidemill::kafka::Cluster;
    /// use tidemill::kafka::security::{Security, Tls};
    /// let cluster = Cluster::at("localhost:9093").secured_by(Security::Tls(Tls::default()));
    /// assert!(cluster.security.is_some());
    /// ```
    #[must_use]
    pub fn secured_by(mut self, security: Security) -> Self {
        self.config.retain(|name, _| !settings::is_security(name));
        self.security = Some(security);
        self
    }

    /// Whether one of the addresses is the other's too, so that it is the same cluster.
    ///
    /// ```
    /// use tidemill::kafka::Cluster;
    /// assert!(Cluster::at("a:9092,b:9092").shares_address(&Cluster::at("b:9092")));
    /// assert!(!Cluster::at("a:9092").shares_address(&Cluster::at("a:9093")));
    /// ```
    pub fn shares_address(&self, other: &Self) -> bool {
        let of = |cluster: &Self| -> Vec<String> {
            cluster.bootstrap_servers.split(',').map(|one| one.trim().to_ascii_lowercase()).collect()
        };
        let theirs = of(other);
        of(self).iter().any(|address| theirs.contains(address))
    }

    /// The settings of a client of the cluster: those that all share, and of the user's those that its role takes.
    pub(crate) fn client(&self, role: Role) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.bootstrap_servers);
        client.set("client.id", "tidemill");
        // Half of it, too, is how long librdkafka waits between two connections of any kind; at the default of 100 ms each
        // client spends 50 ms between the bootstrap server and the first broker that it learns of.
        client.set("reconnect.backoff.ms", "20");
        for (name, value) in self.config.iter().filter(|(name, _)| is_for(role, name)) {
            client.set(name, value);
        }
        if let Some(security) = &self.security {
            security.set(&mut client);
        }
        client
    }

    /// The tokens that its clients log in with, where they do; an error where none comes within `patience`, or
    /// before `cancel` is set.
    pub(crate) fn tokens(&self, patience: Duration, cancel: &Cancel) -> Result<Option<Tokens>> {
        match self.security.as_ref().and_then(Security::login) {
            Some(Login::Token(provider)) => Tokens::start(provider, patience, cancel).map(Some),
            _ => Ok(None),
        }
    }

    /// Who logs in, for a message.
    pub(crate) fn user(&self) -> String {
        let name = match self.security.as_ref().and_then(Security::login) {
            Some(Login::Password { username, .. }) => Some(username),
            Some(Login::Token(_)) => None,
            None => self.config.get("sasl.username"),
        };
        name.map_or_else(|| "this user".to_owned(), |name| format!("user {name:?}"))
    }

    /// How he does, for a message.
    pub(crate) fn mechanism(&self) -> &str {
        let config = |name: &str| self.config.get(name).map(String::as_str);
        let login = self.security.as_ref().and_then(Security::login).map(Login::mechanism);
        login.or(config("sasl.mechanisms")).or(config("sasl.mechanism")).unwrap_or("no mechanism")
    }

    /// An error for each setting of the user's that one of `reserved`, or an argument, decides otherwise: it would
    /// have no effect, or break what tidemill promises. So is what is insecure, and what is missing for security.
    pub(crate) fn refuse(&self, reserved: &[Reserved]) -> Vec<Error> {
        let reserved = ADDRESS.iter().chain(reserved).filter_map(|setting| setting.refused(&self.config));
        let security = self.security.iter().flat_map(Security::mistakes);
        let addresses = address::mistakes(&self.bootstrap_servers);
        addresses
            .into_iter()
            .chain(reserved)
            .chain(security)
            .chain(settings::mistakes(&self.config, self.security.as_ref()))
            .collect()
    }
}

/// A librdkafka setting that is not the user's to choose.
pub(crate) struct Reserved {
    /// librdkafka's name of it.
    pub(crate) name: &'static str,
    /// What it may be set to all the same, since that is what it is: the first, and other words for it.
    pub(crate) is: &'static [&'static str],
    /// Where its user says what he wants, or why it cannot be had.
    pub(crate) instead: &'static str,
}

impl Reserved {
    /// Sets in `client` what each of `reserved` is, of those that are anything.
    pub(crate) fn set(reserved: &[Self], client: &mut ClientConfig) {
        for (setting, value) in reserved.iter().filter_map(|setting| Some((setting, setting.is.first()?))) {
            client.set(setting.name, *value);
        }
    }

    fn refused(&self, config: &BTreeMap<String, String>) -> Option<Error> {
        let found = config.get(self.name).filter(|found| !self.is.contains(&found.as_str()))?;
        let text = format!("{} is not set in config, found {found:?}", self.name);
        Some(Error::config(text).help(self.instead))
    }
}

/// The address, which is an argument wherever a cluster is named.
const ADDRESS: [Reserved; 2] = [
    Reserved { name: "bootstrap.servers", is: &[], instead: "pass bootstrap_servers" },
    Reserved { name: "metadata.broker.list", is: &[], instead: "pass bootstrap_servers" },
];

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bootstrap_servers)
    }
}

/// Shows which settings there are and none of their values: some are passwords.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.config.keys().map(String::as_str).collect();
        f.debug_struct("Cluster")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("config", &names)
            .field("security", &self.security)
            .finish()
    }
}

/// Says in this crate's words that `what` (for example "topic readings cannot be read") failed on `cluster`;
/// `kind` is [`ErrorKind::Source`] or [`ErrorKind::Sink`], and gives way to [`ErrorKind::Config`] where a setting
/// is at fault. No secret of the cluster's settings is in it, be it displayed, debugged or asked for its causes.
pub(crate) fn explain(
    error: &KafkaError,
    kind: ErrorKind,
    what: impl fmt::Display,
    cluster: &Cluster,
) -> Error {
    // Without a cause: the original carries the value, and whoever prints the causes of an error would print it.
    if let KafkaError::ClientConfig(_, reason, name, value) = error {
        return refused_setting(name, value, reason);
    }
    if let KafkaError::ClientCreation(reason) = error {
        let error = Error::config(format!("{what}: {reason} (Kafka at {cluster})"));
        return if reason.contains("ssl.key") || reason.contains("ssl.keystore") {
            error.help(UNUSABLE_KEY)
        } else {
            error
        };
    }
    match code_of(error) {
        Some(code) => explain_code(code, kind, what, cluster).caused_by(error.clone()),
        None => Error::new(kind, format!("{what}: {error} (Kafka at {cluster})")).caused_by(error.clone()),
    }
}

const UNUSABLE_KEY: &str = "check that the key belongs to the certificate, and the key's password";

/// The error's code; rdkafka tells none for an administrator's request, though it has one.
fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    if let KafkaError::AdminOp(code) = error { Some(*code) } else { error.rdkafka_error_code() }
}

/// [`explain`] for a bare error code.
pub(crate) fn explain_code(
    code: RDKafkaErrorCode,
    kind: ErrorKind,
    what: impl fmt::Display,
    cluster: &Cluster,
) -> Error {
    let error = Error::new(kind, format!("{what}: {code} (Kafka at {cluster})"));
    let error = match (forbidden(code, cluster), remedy(code)) {
        (Some(help), _) => error.help(help),
        (None, Some(help)) => error.help(help),
        (None, None) => error,
    };
    if is_passing(code) { error.retriable() } else { error }
}

/// Never shows the value of its own accord, since a mistyped name does not tell that it is a password's; librdkafka's
/// reason is shown unless it repeats what may be one.
fn refused_setting(name: &str, value: &str, reason: &str) -> Error {
    let secret = ["sasl", "ssl", "password", "secret", "key", "token", "jaas", "pem"];
    let may_be_secret = secret.iter().any(|word| name.contains(word));
    let repeats = may_be_secret && !value.is_empty() && reason.contains(value);
    let reason = if repeats { "it does not take this value" } else { reason };
    Error::config(format!("librdkafka refuses the setting {name}: {reason}"))
        .help("see librdkafka's CONFIGURATION.md for the settings that there are")
}

/// So many topics are named in an error.
const NAMED_TOPICS: usize = 20;

/// Says that `missing` is not among the topics that are `there`, with the nearest of them as the remedy, or `remedy`
/// where none is near. Topics of the cluster itself, whose names begin with two underscores, are not named.
pub(crate) fn no_such_topic<'a>(
    kind: ErrorKind,
    missing: &str,
    there: impl IntoIterator<Item = &'a str>,
    cluster: &Cluster,
    remedy: &str,
) -> Error {
    let mut names: Vec<&str> = there.into_iter().filter(|name| !name.starts_with("__")).collect();
    names.sort_unstable();
    let help = nearest(missing, names.iter().copied())
        .map_or_else(|| remedy.to_owned(), |near| format!("did you mean {near:?}?"));
    let more = match names.len().saturating_sub(NAMED_TOPICS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.truncate(NAMED_TOPICS);
    let listed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let message = format!("topic {missing:?} does not exist at {cluster}; there are: {listed}{more}");
    Error::new(kind, message).help(help)
}

/// What to do where the cluster knows who asks, and that he may not.
fn forbidden(code: RDKafkaErrorCode, cluster: &Cluster) -> Option<String> {
    use RDKafkaErrorCode as Code;
    let right = match code {
        Code::TopicAuthorizationFailed => "the right to read (or write) and describe the topic",
        Code::GroupAuthorizationFailed => "the right to read the consumer group",
        Code::ClusterAuthorizationFailed => {
            "the right to write with an idempotent producer (IdempotentWrite)"
        }
        Code::TransactionalIdAuthorizationFailed => "the right to write with the transactional id",
        _ => return None,
    };
    Some(format!("have {} granted {right} (an ACL of the cluster), or log in as another", cluster.user()))
}

fn remedy(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    match code {
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut => {
            Some(
                "check bootstrap_servers, and that a broker listens there and can be reached from this machine",
            )
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            Some("check the topic's name, or create it first")
        }
        Code::MessageSizeTooLarge => Some(
            "raise max.message.bytes of the topic and message.max.bytes of the client, or send less in one message",
        ),
        Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress => {
            Some("the group has live members elsewhere: use a group_id of this stream's own")
        }
        _ => None,
    }
}

/// Whether the same call may succeed later without anyone changing anything.
pub(crate) fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::ReplicaNotAvailable
            | Code::BrokerNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::WaitingForCoordinator
            | Code::Retry
            | Code::RebalanceInProgress
            | Code::KafkaStorageError
            | Code::UnknownMemberId
            | Code::IllegalGeneration
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_broker_is_named_with_a_remedy_and_may_be_tried_again() {
        let cluster = Cluster::at("nowhere:9092");
        for error in [
            KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure),
            KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut),
        ] {
            let error = explain(&error, ErrorKind::Source, "the topics cannot be listed", &cluster);
            let text = error.to_string();
            assert!(text.contains("nowhere:9092") && text.contains("check bootstrap_servers"), "{text}");
            assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::Source, true));
        }
    }

    #[test]
    fn a_refused_setting_is_a_config_error_that_keeps_secrets() {
        let mut cluster = Cluster::at("localhost:9092");
        cluster.config.insert("security.protocol".into(), "nonsense".into());
        let refused = cluster.client(Role::Producer).create_native_config().err().unwrap();
        let error = explain(&refused, ErrorKind::Sink, "the sink cannot be opened", &cluster);
        assert!(error.is_config() && error.to_string().contains("\"nonsense\""), "{error}");
    }

    #[test]
    fn no_value_that_may_be_secret_is_shown_whichever_way_the_error_is_printed() {
        for (name, value) in
            [("sasl.pasword", "hunter2"), ("my.setting", "hunter2"), ("sasl.oauthbearer.method", "hunter2")]
        {
            let mut cluster = Cluster::at("localhost:9092");
            cluster.config.insert(name.into(), value.into());
            let refused = cluster.client(Role::Producer).create_native_config().err().unwrap();
            let error = explain(&refused, ErrorKind::Sink, "the sink cannot be opened", &cluster);
            let text = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
            assert!(error.is_config() && text.contains(name) && !text.contains(value), "{text}");
        }
        let error = refused_setting("sasl.password", "hunter2", "no \"hunter2\"");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_setting_that_is_not_the_users_is_refused_with_what_to_do_unless_it_is_what_it_would_be_anyhow() {
        let reserved = [Reserved { name: "acks", is: &["all", "-1"], instead: "leave it out" }];
        let mut cluster = Cluster::at("localhost:9092");
        cluster.config.insert("acks".into(), "-1".into());
        cluster.config.insert("linger.ms".into(), "7".into());
        assert!(cluster.refuse(&reserved).is_empty());
        cluster.config.insert("acks".into(), "1".into());
        cluster.config.insert("bootstrap.servers".into(), "elsewhere:9092".into());
        let texts: Vec<String> = cluster.refuse(&reserved).iter().map(Error::to_string).collect();
        assert_eq!(
            texts,
            [
                "bootstrap.servers is not set in config, found \"elsewhere:9092\"; pass bootstrap_servers",
                "acks is not set in config, found \"1\"; leave it out",
            ]
        );
    }

    #[test]
    fn debugging_a_cluster_shows_no_value_of_a_setting() {
        let mut cluster = Cluster::at("localhost:9092");
        cluster.config.insert("sasl.password".into(), "hunter2".into());
        let text = format!("{cluster:?}");
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }
}
