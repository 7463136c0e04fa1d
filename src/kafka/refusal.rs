//! Why a cluster and a client do not come together: what librdkafka complains of, in words that say what to do.
//!
//! librdkafka tells that a certificate was not believed, and not why. So it is connected to once more, without any
//! login, to see the certificate and OpenSSL's own reason. It deliberately decides nothing: nothing that was refused is
//! let pass here.
#![expect(unsafe_code, reason = "librdkafka shows a certificate to a C function only")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::{RDKafka, RDKafkaType};

use crate::error::{Error, ErrorKind};
use crate::kafka::certificate::Certificate;
use crate::kafka::settings::Role;
use crate::kafka::{Cluster, is_passing};

/// The first wait for an answer; each further one is twice as long. A refusal counts from the second on: a cluster of
/// several brokers may have one that is ill.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// How long nobody is told that there is no answer: longer than a connection to the other side of the world takes.
const SILENT: Duration = Duration::from_millis(2_500);

/// How long a look at a broker's certificate may take.
const LOOK: Duration = Duration::from_secs(3);
const LOOKS: u32 = 30;

/// What librdkafka said of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) code: RDKafkaErrorCode,
    pub(crate) reason: String,
    how: Told,
}

/// How librdkafka said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    AsError,
    /// Of a broker that hangs up: no error, since one that is restarted does so too. It tells something only to who has
    /// never come through.
    InLog,
}

/// Without how long it took and in which state of librdkafka's own.
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.rsplit_once(" (after ").map_or(&*self.reason, |(reason, _)| reason))
    }
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The broker does not take the login.
    Login,
    /// The identity provider that librdkafka asks gives no token.
    NoToken,
    /// The broker's certificate is not believed.
    Certificate,
    /// The broker wants a certificate of the client's, or another one.
    ClientCertificate,
    /// The broker speaks TLS, the client does not.
    SpeaksTls,
    /// The client speaks TLS, the broker does not.
    SpeaksPlain,
    /// The broker wants another login, or none.
    OtherLogin,
    /// The broker wants a login.
    WantsLogin,
    /// Some other failure of TLS.
    Tls,
}

impl Complaint {
    pub(crate) fn new(code: RDKafkaErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), how: Told::AsError }
    }

    /// The one that says more: that all brokers are down follows each reason why.
    pub(crate) fn keep(self, last: &mut Option<Self>) {
        if self.code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some(self);
        }
    }

    /// What a line of librdkafka's log tells, where it is that a broker hangs up.
    pub(crate) fn of_log(facility: &str, text: &str) -> Option<Self> {
        let reason = text.split_once("]: ").map_or(text, |(_, reason)| reason).to_owned();
        let hangs_up = reason.contains("Disconnected") && !reason.contains("handshake");
        let code = RDKafkaErrorCode::BrokerTransportFailure;
        (facility == "FAIL" && hangs_up).then_some(Self { code, reason, how: Told::InLog })
    }

    /// Whether waiting will not help, after an answer has been waited for for so long at once.
    fn is_refusal(&self, waited: Duration) -> bool {
        let surely = if self.how == Told::InLog { FIRST_WAIT * 2 } else { FIRST_WAIT };
        waited > surely && self.refusal().is_some()
    }

    fn refusal(&self) -> Option<Refusal> {
        let says = |text: &str| self.reason.contains(text);
        let is_tls =
            self.code == RDKafkaErrorCode::SSL || says("SSL handshake failed") || says("SSL routines");
        let hung_up = self.how == Told::InLog;
        match self.code {
            _ if hung_up && says("in state UP") => Some(Refusal::WantsLogin),
            _ if hung_up && says("state APIVERSION_QUERY") && !says("ssl://") => Some(Refusal::SpeaksTls),
            _ if hung_up => None,
            _ if says("Failed to acquire SASL OAUTHBEARER token") => Some(Refusal::NoToken),
            _ if says("connecting to a PLAINTEXT broker listener?") || says("wrong version number") => {
                Some(Refusal::SpeaksPlain)
            }
            _ if is_tls && (says("could not be verified") || says("certificate verify failed")) => {
                Some(Refusal::Certificate)
            }
            _ if is_tls && CLIENT_CERTIFICATE.iter().any(|alert| says(alert)) => {
                Some(Refusal::ClientCertificate)
            }
            _ if is_tls => Some(Refusal::Tls),
            _ if says("state AUTH_HANDSHAKE") || says("Illegal SASL state") => Some(Refusal::OtherLogin),
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Some(Refusal::Login)
            }
            RDKafkaErrorCode::UnsupportedSASLMechanism => Some(Refusal::OtherLogin),
            _ => None,
        }
    }
}

/// How a broker says that it does not take a client's certificate, or misses it.
const CLIENT_CERTIFICATE: [&str; 6] = [
    "alert certificate required",
    "alert bad certificate",
    "alert unknown ca",
    "alert certificate unknown",
    "alert certificate expired",
    "client SSL authentication might be required",
];

/// Asks with growing patience, `patience` in all, until `ask` has an answer or says, by what librdkafka last complained
/// of, that there will be none: librdkafka itself would wait to the end for a broker that has refused at once.
pub(crate) fn ask_patiently<T>(
    patience: Duration,
    address: &str,
    mut ask: impl FnMut(Duration) -> (KafkaResult<T>, Option<Complaint>),
) -> (KafkaResult<T>, Option<Complaint>) {
    let mut left = patience;
    let mut step = FIRST_WAIT.min(patience);
    let mut rest = step; // of a step, which is asked in two where somebody is to be told in between
    let mut silent = SILENT.min(patience);
    loop {
        let wait = if silent.is_zero() { rest } else { rest.min(silent) };
        (left, rest) = (left.saturating_sub(wait), rest.saturating_sub(wait));
        let (answer, complaint) = ask(wait);
        let waited = if rest.is_zero() { step } else { wait };
        let is_late = |error: &KafkaError| error.rdkafka_error_code().is_some_and(is_passing);
        let is_refused = complaint.as_ref().is_some_and(|complaint| complaint.is_refusal(waited));
        match &answer {
            Err(error) if is_late(error) && !left.is_zero() && !is_refused => {}
            _ => return (answer, complaint),
        }
        if !silent.is_zero() && wait == silent {
            tell_of_waiting(patience.saturating_sub(left), left, complaint.as_ref(), address);
        }
        silent = silent.saturating_sub(wait);
        if rest.is_zero() {
            step = (step * 2).min(left);
            rest = step;
        }
    }
}

/// Who has given a wrong address would else see nothing until the patience is at its end.
fn tell_of_waiting(waited: Duration, left: Duration, complaint: Option<&Complaint>, address: &str) {
    let (waited, left) = (waited.as_secs_f64(), left.as_secs_f64());
    let reason = complaint.map(|complaint| format!(" ({complaint})")).unwrap_or_default();
    log::warn!(
        target: "tidemill::kafka",
        "Kafka at {address} has not answered for {waited:.1} s{reason}; it is tried for {left:.1} s more"
    );
}

/// The error of a refusal; none where `complaint` is none.
pub(crate) fn explain(
    complaint: &Complaint,
    kind: ErrorKind,
    what: impl fmt::Display,
    cluster: &Cluster,
) -> Option<Error> {
    let refusal = complaint.refusal()?;
    let (found, help) = match refusal {
        Refusal::Login => (
            format!(
                "the cluster refuses the login of {} by {}: {complaint}",
                cluster.user(),
                cluster.mechanism()
            ),
            LOGIN.to_owned(),
        ),
        Refusal::Certificate => not_believed(complaint, cluster),
        other => (said(other, complaint), advice(other).to_owned()),
    };
    Some(Error::new(kind, format!("{what}: {found} (Kafka at {cluster})")).help(help))
}

const LOGIN: &str = "check the user name, the password (or token) and the mechanism, and that the cluster knows the user by this mechanism";

fn said(refusal: Refusal, complaint: &Complaint) -> String {
    let expected = match refusal {
        Refusal::SpeaksTls => "expected a broker without TLS, found one that seems to speak TLS at this port",
        Refusal::SpeaksPlain => "expected a broker that speaks TLS, found none at this port",
        Refusal::ClientCertificate => {
            "the cluster wants a certificate of this client, and does not take what it was shown"
        }
        Refusal::OtherLogin => "the cluster does not take this kind of login at this port",
        Refusal::NoToken => "no token can be had",
        Refusal::WantsLogin => {
            "expected an answer, found that the broker hangs up on a client without a login"
        }
        Refusal::Login | Refusal::Certificate | Refusal::Tls => "no TLS connection comes about",
    };
    format!("{expected}: {complaint}")
}

fn advice(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::SpeaksTls => {
            "pass security=tm.Tls(), or tm.Sasl(...) where the cluster wants a login; or name the port without TLS"
        }
        Refusal::SpeaksPlain => "name the port at which the cluster speaks TLS, or leave TLS out",
        Refusal::ClientCertificate => {
            "pass tm.Tls(certificate=..., key=...) with a certificate that has not expired and whose authority the \
             cluster knows"
        }
        Refusal::OtherLogin => {
            "check the mechanism, and whether this port wants a login at all: tm.Sasl(...) is with one, tm.Tls() without"
        }
        Refusal::NoToken => "check the token endpoint's address, and the client's id and secret",
        Refusal::WantsLogin => {
            "pass security=tm.Sasl(...), or name the port at which the cluster wants no login"
        }
        Refusal::Login | Refusal::Certificate | Refusal::Tls => {
            "check that the port speaks TLS, and the certificates at both ends"
        }
    }
}

/// What is wrong with the broker's certificate, and what to do.
fn not_believed(complaint: &Complaint, cluster: &Cluster) -> (String, String) {
    let Some(Seen { broker, code, certificate }) = look(cluster) else {
        return (said(Refusal::Tls, complaint), advice(Refusal::Tls).to_owned());
    };
    let host = broker.rsplit_once(':').map_or(broker.as_str(), |(host, _)| host);
    let (expected, help) = reason(code, host, cluster);
    (format!("expected {expected}, found {certificate} at {broker}"), help)
}

/// OpenSSL's numbers of what may be wrong.
fn reason(code: c_int, host: &str, cluster: &Cluster) -> (String, String) {
    let tls = cluster.security.as_ref().and_then(|security| security.tls());
    let own = tls.is_some_and(|tls| tls.ca.is_some())
        || cluster.config.keys().any(|name| name.starts_with("ssl.ca."));
    match code {
        9 => ("a certificate that is good by now".into(), "look at the clocks of this machine and of the broker".into()),
        10 => ("a certificate that has not expired".into(), "have the broker's certificate renewed, and look at this machine's clock".into()),
        23 => ("a certificate that was not revoked".into(), "have the broker's certificate renewed".into()),
        62 | 64 => (
            format!("a certificate for the host {host:?}"),
            "name the broker in bootstrap_servers by a host of its certificate, and have it advertise that host \
             (advertised.listeners); or have the certificate made for the host it has"
                .into(),
        ),
        2 | 18..=21 => {
            let whom = if own { "that ca= vouches for" } else { "that this system's authorities vouch for" };
            let help = "pass the certificate of the authority that issued it: tm.Tls(ca=\"ca.pem\")";
            (format!("a certificate {whom}"), help.into())
        }
        other => (
            format!("a certificate that OpenSSL takes (it gives the error {other})"),
            "have the broker's certificate renewed".into(),
        ),
    }
}

/// A certificate that was not believed.
struct Seen {
    broker: String,
    code: c_int,
    certificate: Certificate,
}

/// Keeps what the look sees; written on librdkafka's thread.
#[derive(Default)]
struct Look(Mutex<Option<Seen>>);

impl Look {
    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the client itself says is known already.
impl ClientContext for Look {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn stats(&self, _: Statistics) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

/// Connects once more, without a login, until a certificate is not believed; none where that does not happen again.
fn look(cluster: &Cluster) -> Option<Seen> {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config.set("bootstrap.servers", &cluster.bootstrap_servers).set("security.protocol", "ssl");
    let given = cluster.client(Role::Consumer);
    for name in ["ssl.ca.location", "ssl.ca.pem", "ssl.crl.location", "broker.address.family"] {
        if let Some(value) = given.get(name) {
            config.set(name, value);
        }
    }
    let native = config.create_native_config().ok()?;
    // SAFETY: the configuration is alive. The function gets the context's address, which the client sets and keeps.
    unsafe { rd::rd_kafka_conf_set_ssl_cert_verify_cb(native.ptr(), Some(see)) };
    let client = Client::new(&config, native, RDKafkaType::RD_KAFKA_PRODUCER, Look::default()).ok()?;
    for _ in 0..LOOKS {
        if client.fetch_metadata(None, LOOK / LOOKS).is_ok() {
            break;
        }
        let seen = client.context().seen().take();
        if seen.is_some() {
            return seen;
        }
    }
    None
}

/// Called by librdkafka's threads for each certificate of a broker; takes none that OpenSSL does not.
unsafe extern "C" fn see(
    _: *mut RDKafka,
    broker: *const c_char,
    _: i32,
    code: *mut c_int,
    _: c_int,
    der: *const c_char,
    size: usize,
    _: *mut c_char,
    _: usize,
    look: *mut c_void,
) -> c_int {
    // SAFETY: all are valid for the call, by librdkafka's word; `look` is the context of `look()`'s client.
    let (broker, code, der, look) = unsafe {
        (CStr::from_ptr(broker), *code, slice::from_raw_parts(der.cast::<u8>(), size), &*look.cast::<Look>())
    };
    if code == 0 {
        return 1;
    }
    let certificate = Certificate::read(der);
    let broker = broker.to_string_lossy();
    let broker = broker.split('/').next().unwrap_or_default().to_owned(); // behind it stands librdkafka's own number
    look.seen().get_or_insert(Seen { broker, code, certificate });
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(code: RDKafkaErrorCode, reason: &str) -> Complaint {
        Complaint::new(code, reason)
    }

    #[test]
    fn each_complaint_says_what_to_do() {
        use RDKafkaErrorCode as Code;
        for (code, reason, expected) in [
            (Code::Authentication, "invalid credentials with SASL mechanism PLAIN", "check the user name"),
            (
                Code::SSL,
                "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
                "leave TLS out",
            ),
            (
                Code::BrokerTransportFailure,
                "error:0A00045C:SSL routines::tlsv13 alert certificate required",
                "certificate=..., key=...",
            ),
            (
                Code::Authentication,
                "mechanism handshake failed (after 1ms in state AUTH_HANDSHAKE)",
                "check the mechanism",
            ),
            (Code::SSL, "SSL handshake failed: something else", "check that the port speaks TLS"),
        ] {
            let error =
                explain(&complaint(code, reason), ErrorKind::Source, "x", &Cluster::at("k:1")).unwrap();
            let text = error.to_string();
            let said = reason.split(" (after").next().unwrap();
            assert!(text.contains(expected) && text.contains(said) && text.contains("k:1"), "{text}");
        }
        let away = complaint(Code::BrokerTransportFailure, "Connection refused");
        assert!(!away.is_refusal(Duration::from_secs(10)));
    }

    #[test]
    fn a_broker_that_hangs_up_is_given_a_little_longer_to_answer_after_all() {
        let text = "[thrd:k:1/bootstrap]: k:1/bootstrap: Disconnected: closed (after 3ms in state UP)";
        let complaint = Complaint::of_log("FAIL", text).unwrap();
        assert!(complaint.reason.starts_with("k:1/bootstrap: Disconnected"), "{complaint}");
        assert!(!complaint.is_refusal(FIRST_WAIT * 2) && complaint.is_refusal(FIRST_WAIT * 4));
        let help = |complaint: &Complaint| {
            explain(complaint, ErrorKind::Source, "x", &Cluster::at("k:1")).unwrap().to_string()
        };
        assert!(help(&complaint).contains("security=tm.Sasl(...)"));
        let open = Complaint::of_log("FAIL", &text.replace("UP", "APIVERSION_QUERY")).unwrap();
        assert!(help(&open).contains("security=tm.Tls()"));
        assert_eq!(
            Complaint::new(complaint.code, &*complaint.reason).refusal(),
            None,
            "of a running job it is no news"
        );
        assert_eq!(Complaint::of_log("FAIL", "[thrd:x]: x: Connection refused"), None);
        assert_eq!(Complaint::of_log("CONNECT", text), None);
    }

    #[test]
    fn that_all_brokers_are_down_does_not_hide_why() {
        let mut last = None;
        let down = || complaint(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        down().keep(&mut last);
        assert_eq!(last, Some(down()));
        let why = complaint(RDKafkaErrorCode::Authentication, "invalid credentials");
        why.clone().keep(&mut last);
        down().keep(&mut last);
        assert_eq!(last, Some(why));
    }

    /// How long an answer that never comes is waited for, in milliseconds.
    fn waits(answer: &KafkaError, complaint: Option<&Complaint>) -> Vec<u128> {
        let mut waits = Vec::new();
        let (answered, _) = ask_patiently(Duration::from_secs(10), "k:1", |wait| {
            waits.push(wait.as_millis());
            (Err::<(), _>(answer.clone()), complaint.cloned())
        });
        assert!(answered.is_err());
        waits
    }

    #[test]
    fn an_answer_is_waited_for_with_growing_patience_and_no_longer_than_it_takes_to_be_refused() {
        let late = KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
        assert_eq!(waits(&late, None), [500, 1_000, 1_000, 1_000, 4_000, 2_500]);
        let away = complaint(RDKafkaErrorCode::BrokerTransportFailure, "Connection refused");
        assert_eq!(waits(&late, Some(&away)).len(), 6);
        let refused = complaint(RDKafkaErrorCode::Authentication, "invalid credentials");
        assert_eq!(waits(&late, Some(&refused)), [500, 1_000]);
        let forbidden = KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed);
        assert_eq!(waits(&forbidden, None), [500]);
    }
}
