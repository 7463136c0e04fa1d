//! Which of librdkafka's own settings a user may give in `config`, beside what the arguments say.
//!
//! It deliberately knows no setting that is a matter of taste or speed: those are librdkafka's to judge. Refused is what
//! runs foreign code, what switches a check of the other side off, what shows a secret to whoever listens, and what an
//! argument decides already.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::kafka::security::{Insecure, Security, Tls, open_line};

/// Settings that load or run what is named in them: whoever can write a configuration file could run code.
const RUNS_CODE: [(&str, &str); 5] = [
    ("ssl.engine.location", "it loads any library into this process"),
    ("ssl.engine.id", "it loads any library into this process"),
    ("ssl.providers", "it loads any library into this process"),
    ("sasl.kerberos.kinit.cmd", "it is a command that a shell runs"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "it makes tokens that prove nothing"),
];

/// What the names of the settings begin with that load librdkafka's plugins.
const PLUGINS: &str = "plugin.";

/// Settings that switch a check of the broker off, with the value that does so.
const SWITCHES_OFF: [(&str, &str); 2] =
    [("enable.ssl.certificate.verification", "false"), ("ssl.endpoint.identification.algorithm", "none")];

/// What a client does with records: librdkafka warns of each setting that is the other kind's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It reads them.
    Consumer,
    /// It writes them.
    Producer,
}

/// librdkafka's settings that consumers alone take, as its CONFIGURATION.md lists them.
const CONSUMERS: [&str; 31] = [
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "check.crcs",
    "consume.callback.max.messages",
    "coordinator.query.interval.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "offset.store.method",
    "offset.store.path",
    "offset.store.sync.interval.ms",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];

/// Those that producers alone take.
const PRODUCERS: [&str; 26] = [
    "acks",
    "batch.num.messages",
    "batch.size",
    "compression.codec",
    "compression.level",
    "compression.type",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "linger.ms",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "produce.offset.report",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queuing.strategy",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "sticky.partitioning.linger.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Whether a client of this role takes a setting: a source's are its sink's too, and each client is given its own.
pub(crate) fn is_for(role: Role, name: &str) -> bool {
    let others: &[&str] = match role {
        Role::Consumer => &PRODUCERS,
        Role::Producer => &CONSUMERS,
    };
    !others.contains(&name)
}

/// Every mistake in `config`, beside `security` where that is given. No value that may be a secret is shown.
pub(crate) fn mistakes(config: &BTreeMap<String, String>, security: Option<&Security>) -> Vec<Error> {
    let nul = config.iter().filter(|(_, value)| value.contains('\0'));
    let nul = nul.map(|(name, _)| Error::config(format!("{name} is text, found one with a NUL byte")));
    let code = config.keys().filter_map(|name| Some((name, runs_code(name)?))).map(|(name, why)| {
        Error::config(format!("config sets {name}, which is refused: {why}")).help("leave it out")
    });
    let twice = security.into_iter().flat_map(|security| twice(config, security));
    let open = if security.is_none() { open(config).or_else(|| unheeded(config)) } else { None };
    let insecure = security.and_then(Security::tls).map(|tls| tls.insecure).unwrap_or_default();
    let off = if insecure == Insecure::Refused { switched_off(config) } else { Vec::new() };
    nul.chain(code).chain(twice).chain(open).chain(off).chain(secret_endpoint(config)).collect()
}

/// Why a setting runs foreign code, where it does.
fn runs_code(name: &str) -> Option<&'static str> {
    if name.starts_with(PLUGINS) {
        return Some("it loads any library into this process");
    }
    RUNS_CODE.iter().find(|(found, _)| *found == name).map(|(_, why)| *why)
}

/// Whether a setting is about who a client is and whom it talks to.
pub(crate) fn is_security(name: &str) -> bool {
    let begins = ["security.", "ssl.", "sasl.", "enable.ssl.", "enable.sasl.", "https."];
    begins.iter().any(|begin| name.starts_with(begin))
}

fn twice(config: &BTreeMap<String, String>, security: &Security) -> Vec<Error> {
    let argument = if security.login().is_some() { "tm.Sasl(...)" } else { "tm.Tls(...)" };
    let decided = config.keys().filter(|name| is_decided(name, security.tls()));
    let error = |name: &String| {
        Error::config(format!("config sets {name}, and so does security={argument}"))
            .help("leave it out of config and say it there, or leave security= out")
    };
    decided.map(error).collect()
}

/// What is left to `config` is how TLS is spoken, and a keystore where no certificate is given otherwise.
fn is_decided(name: &str, tls: Option<&Tls>) -> bool {
    let keystore = name.starts_with("ssl.keystore.");
    let files = ["ssl.ca.", "ssl.certificate.", "ssl.key."].iter().any(|begin| name.starts_with(begin));
    name == "security.protocol"
        || name.starts_with("sasl.")
        || files
        || (keystore && tls.is_none_or(|tls| tls.certificate.is_some()))
}

/// A login that does not say how, one over an open line, and one by tokens that nobody gives.
fn open(config: &BTreeMap<String, String>) -> Option<Error> {
    let get = |name: &str| config.get(name).map(String::as_str);
    let protocol = get("security.protocol").unwrap_or_default().to_ascii_lowercase();
    let Some(mechanism) = get("sasl.mechanisms").or(get("sasl.mechanism")) else {
        return protocol.starts_with("sasl_").then(|| no_mechanism(&protocol));
    };
    let mechanism = mechanism.to_ascii_uppercase();
    if protocol == "sasl_plaintext" && mechanism != "GSSAPI" {
        return Some(open_line(&mechanism));
    }
    let is_served = get("sasl.oauthbearer.method").is_some_and(|method| method.eq_ignore_ascii_case("oidc"));
    (mechanism == "OAUTHBEARER" && !is_served).then(|| {
        Error::config("config sets sasl.mechanisms to OAUTHBEARER, and nobody gives the tokens")
            .help("pass security=tm.Sasl.oauth(function), or set sasl.oauthbearer.method to oidc with what it needs")
    })
}

/// What is there for a login or for TLS, where the protocol has neither: librdkafka would connect without, and say nothing.
fn unheeded(config: &BTreeMap<String, String>) -> Option<Error> {
    let protocol = config.get("security.protocol").map_or("plaintext", String::as_str).to_ascii_lowercase();
    let has = |begins: &[&str]| {
        config.keys().find(|name| begins.iter().any(|begin| name.starts_with(begin))).map(String::as_str)
    };
    let login = has(&["sasl.mechanism", "sasl.username", "sasl.password"]);
    let login =
        login.filter(|_| !protocol.starts_with("sasl")).map(|name| (name, "nobody logs in", "SASL_SSL"));
    let files = has(&["ssl.ca.", "ssl.certificate.", "ssl.key.", "ssl.keystore."]);
    let files =
        files.filter(|_| !protocol.ends_with("ssl")).map(|name| (name, "nothing is encrypted", "SSL"));
    let (name, so, protocols) = login.or(files)?;
    let text =
        format!("config sets {name}, and security.protocol is {}: {so}", protocol.to_ascii_uppercase());
    Some(Error::config(text).help(format!("set security.protocol to {protocols} too, or leave {name} out")))
}

/// librdkafka would take Kerberos, which is not built in.
fn no_mechanism(protocol: &str) -> Error {
    let text = format!(
        "config sets security.protocol to {}, and no sasl.mechanism says how to log in",
        protocol.to_ascii_uppercase()
    );
    Error::config(text).help(
        "pass security=tm.Sasl(\"SCRAM-SHA-512\", username=..., password=...) in place of it, with the mechanism that the \
         cluster offers, or set sasl.mechanism, sasl.username and sasl.password too",
    )
}

fn switched_off(config: &BTreeMap<String, String>) -> Vec<Error> {
    let is_off = |name: &str, off: &str| config.get(name).is_some_and(|value| is_same(value, off));
    let off = SWITCHES_OFF.iter().filter(|(name, off)| is_off(name, off));
    let error = |(name, off): &(&str, &str)| {
        let text =
            format!("config sets {name} to {off}: anyone on the way could then take the broker's place");
        Error::config(text).help(
            "name the authority of the broker's certificate, security=tm.Tls(ca=\"ca.pem\"), and the broker by a name that \
             is in it; or, where nobody else is on the line, pass tm.Tls(allow_insecure=True) beside the setting",
        )
    };
    off.map(error).collect()
}

/// librdkafka reads several words as false.
fn is_same(value: &str, off: &str) -> bool {
    let words: &[&str] = if off == "false" { &["false", "f", "0"] } else { &[] };
    value.eq_ignore_ascii_case(off) || words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

fn secret_endpoint(config: &BTreeMap<String, String>) -> Option<Error> {
    let address = config.get("sasl.oauthbearer.token.endpoint.url")?;
    let has_secret =
        config.keys().any(|name| name.starts_with("sasl.oauthbearer.client") && name.ends_with("secret"));
    let is_open = address.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case("http://"));
    (has_secret && is_open).then(|| {
        Error::config("config sets sasl.oauthbearer.token.endpoint.url to an http:// address, which would show the client's secret")
            .help("use https://")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::secret::Secret;
    use crate::kafka::security::{Login, Mechanism, Pem, Sasl};

    fn config(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn texts(settings: &[(&str, &str)], security: Option<&Security>) -> Vec<String> {
        mistakes(&config(settings), security).iter().map(Error::to_string).collect()
    }

    fn sasl() -> Security {
        let (username, password) = ("alice".to_owned(), Secret::new("hunter2"));
        let login = Login::Password { mechanism: Mechanism::Plain, username, password };
        Security::Sasl(Sasl { login, tls: Some(Tls::default()), insecure: Insecure::Refused })
    }

    #[test]
    fn a_client_is_given_the_settings_of_its_kind_and_those_of_both() {
        assert!(is_for(Role::Consumer, "fetch.wait.max.ms") && !is_for(Role::Producer, "fetch.wait.max.ms"));
        assert!(is_for(Role::Producer, "linger.ms") && !is_for(Role::Consumer, "linger.ms"));
        for both in ["bootstrap.servers", "sasl.password", "message.max.bytes", "no.such.setting"] {
            assert!(is_for(Role::Consumer, both) && is_for(Role::Producer, both), "{both}");
        }
        assert!(!CONSUMERS.iter().any(|name| PRODUCERS.contains(name)));
    }

    #[test]
    fn what_runs_code_is_refused_with_why() {
        for (name, why) in RUNS_CODE {
            let found = texts(&[(name, "anything")], None);
            assert_eq!(found, [format!("config sets {name}, which is refused: {why}; leave it out")]);
        }
    }

    #[test]
    fn harmless_security_settings_go_on_working() {
        let settings = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "alice"),
            ("sasl.password", "hunter2"),
            ("ssl.ca.location", "/etc/ca.pem"),
            ("ssl.endpoint.identification.algorithm", "https"),
            ("enable.ssl.certificate.verification", "true"),
        ];
        assert!(texts(&settings, None).is_empty());
        assert!(texts(&[("ssl.cipher.suites", "X"), ("ssl.crl.location", "y")], Some(&sasl())).is_empty());
        assert!(texts(&[("ssl.keystore.location", "client.p12")], Some(&sasl())).is_empty());
    }

    #[test]
    fn a_login_over_an_open_line_is_refused_however_it_is_written() {
        for (protocol, mechanism) in [
            ("SASL_PLAINTEXT", "PLAIN"),
            ("sasl_plaintext", "scram-sha-256"),
            ("Sasl_Plaintext", "OAUTHBEARER"),
        ] {
            for name in ["sasl.mechanism", "sasl.mechanisms"] {
                let found = texts(&[("security.protocol", protocol), (name, mechanism)], None);
                assert!(
                    found[0].contains("over an open line") && found[0].contains("allow_insecure=True"),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn a_login_that_does_not_say_how_is_refused() {
        for protocol in ["SASL_SSL", "sasl_plaintext"] {
            let found = texts(&[("security.protocol", protocol), ("sasl.username", "alice")], None);
            assert!(found.len() == 1 && found[0].contains("no sasl.mechanism says how"), "{found:?}");
        }
        assert!(texts(&[("security.protocol", "ssl")], None).is_empty());
    }

    #[test]
    fn what_the_protocol_has_no_use_for_is_told() {
        let found = texts(&[("sasl.mechanism", "PLAIN"), ("sasl.password", "hunter2")], None);
        assert_eq!(
            found,
            [
                "config sets sasl.mechanism, and security.protocol is PLAINTEXT: nobody logs in; set security.protocol to \
              SASL_SSL too, or leave sasl.mechanism out"
            ]
        );
        let found = texts(&[("security.protocol", "Ssl"), ("sasl.username", "alice")], None);
        assert!(found[0].contains("security.protocol is SSL: nobody logs in"), "{found:?}");
        let found = texts(&[("ssl.ca.location", "ca.pem")], None);
        assert!(found[0].contains("security.protocol is PLAINTEXT: nothing is encrypted"), "{found:?}");
        assert!(texts(&[("ssl.ca.location", "ca.pem"), ("security.protocol", "ssl")], None).is_empty());
    }

    #[test]
    fn a_check_that_is_switched_off_needs_a_word_more() {
        for (name, value) in [
            ("enable.ssl.certificate.verification", "false"),
            ("enable.ssl.certificate.verification", "0"),
            ("ssl.endpoint.identification.algorithm", "NONE"),
        ] {
            assert!(texts(&[(name, value)], None)[0].contains("take the broker's place"));
            assert_eq!(texts(&[(name, value)], Some(&sasl())).len(), 1);
            let allowed = Security::Tls(Tls { insecure: Insecure::Allowed, ..Tls::default() });
            assert!(texts(&[(name, value)], Some(&allowed)).is_empty());
        }
    }

    #[test]
    fn what_both_say_is_an_error_that_names_both_and_no_value() {
        let settings = [("sasl.password", "hunter3"), ("security.protocol", "ssl"), ("ssl.ca.location", "x")];
        let found = texts(&settings, Some(&sasl()));
        assert_eq!(found.len(), 3);
        assert!(
            found[0].starts_with("config sets sasl.password, and so does security=tm.Sasl(...)"),
            "{found:?}"
        );
        assert!(!found.join(" ").contains("hunter"));
        let pem = Pem::File("client.pem".to_owned());
        let tls = Security::Tls(Tls { certificate: Some(pem), ..Tls::default() });
        assert!(texts(&[("ssl.keystore.location", "x")], Some(&tls))[0].contains("security=tm.Tls(...)"));
    }

    #[test]
    fn tokens_that_nobody_gives_or_that_cost_the_secret_are_refused() {
        let nobody = [("security.protocol", "sasl_ssl"), ("sasl.mechanisms", "OAUTHBEARER")];
        assert!(texts(&nobody, None)[0].contains("tm.Sasl.oauth(function)"));
        let endpoint = "sasl.oauthbearer.token.endpoint.url";
        let open = [(endpoint, "HTTP://idp/token"), ("sasl.oauthbearer.client.secret", "hunter2")];
        let found = texts(&open, None);
        assert!(found[0].contains("use https://") && !found[0].contains("hunter2"), "{found:?}");
    }

    #[test]
    fn a_nul_byte_is_told_without_the_value() {
        let found = texts(&[("client.id", "ti\0de")], None);
        assert_eq!(found, ["client.id is text, found one with a NUL byte"]);
        let found = texts(&[("sasl.password", "hun\0ter2")], None);
        assert!(found.iter().all(|text| !text.contains("hun") && !text.contains("ter2")), "{found:?}");
    }
}
