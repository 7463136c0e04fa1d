//! How a client proves who it is and makes sure of whom it talks to: TLS, and a login by password or token.
//!
//! It deliberately opens no connection: it checks what can be seen beforehand (files, names, a password that would go
//! over an open line) and says it in librdkafka's settings. What the cluster then says of it is explained in
//! [`refusal`](crate::kafka::refusal).

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rdkafka::ClientConfig;

use crate::error::{Error, Result, nearest};
use crate::kafka::secret::Secret;
use crate::kafka::token::TokenProvider;

/// What a connection is protected by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS, with a client certificate where the cluster wants one.
    Tls(Tls),
    /// A login, over TLS but where its user insists.
    Sasl(Sasl),
}

/// Whether what would let others listen or answer in the broker's place may be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Insecure {
    /// It is an error.
    #[default]
    Refused,
    /// Its user has said that nobody else is on the line.
    Allowed,
}

/// Certificates or a key: in a file, or as they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file's path; of certificate authorities also a folder's, as OpenSSL's `c_rehash` makes it.
    File(String),
    /// The text itself, from `-----BEGIN` on.
    Text(Secret),
}

/// TLS: the broker's certificate and host name are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who may vouch for a broker's certificate; none asks the system's own.
    pub ca: Option<Pem>,
    /// The client's certificate, with those between it and its authority.
    pub certificate: Option<Pem>,
    /// The certificate's private key; none where `certificate` holds it too.
    pub key: Option<Pem>,
    /// What the key is encrypted with.
    pub key_password: Option<Secret>,
    /// Whether the checks may be turned off by `config`.
    pub insecure: Insecure,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// What is shown.
    pub login: Login,
    /// What protects the line; none leaves it open.
    pub tls: Option<Tls>,
    /// Whether the line may be open.
    pub insecure: Insecure,
}

/// What a login shows.
#[derive(Clone)]
pub enum Login {
    /// A name and a password.
    Password {
        /// How the password is shown.
        mechanism: Mechanism,
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token, got from elsewhere again and again.
    Token(Arc<dyn TokenProvider>),
}

/// How a password is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// As it is.
    Plain,
    /// By a proof that does not tell it.
    ScramSha256,
    /// The same with a longer hash.
    ScramSha512,
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// The mechanism of Kafka's name for it.
    ///
    /// ```
    /// use tidemill::kafka::security::Mechanism;
    /// assert_eq!(Mechanism::named("scram-sha-512").unwrap(), Mechanism::ScramSha512);
    /// let error = Mechanism::named("SCRAM-SHA-521").unwrap_err();
    /// assert!(error.to_string().ends_with("did you mean \"SCRAM-SHA-512\"?"));
    /// ```
    pub fn named(name: &str) -> Result<Self> {
        if let Some(found) = Self::ALL.into_iter().find(|one| one.name().eq_ignore_ascii_case(name)) {
            return Ok(found);
        }
        let names = Self::ALL.map(Self::name);
        let error = Error::config(format!("mechanism is one of {}; found {name:?}", names.join(", ")));
        Err(match name.to_ascii_uppercase().as_str() {
            "OAUTHBEARER" => error.help("tokens: tm.Sasl.oauth(function)"),
            "GSSAPI" | "KERBEROS" => {
                error.help("Kerberos is not built in; does the cluster offer SCRAM or TLS?")
            }
            _ => match nearest(name, names) {
                Some(near) => error.help(format!("did you mean {near:?}?")),
                None => error,
            },
        })
    }

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Login {
    /// Kafka's name of how it is shown.
    pub(crate) fn mechanism(&self) -> &'static str {
        match self {
            Self::Password { mechanism, .. } => mechanism.name(),
            Self::Token(_) => "OAUTHBEARER",
        }
    }

    fn set(&self, client: &mut ClientConfig) {
        client.set("sasl.mechanisms", self.mechanism());
        if let Self::Password { username, password, .. } = self {
            client.set("sasl.username", username);
            client.set("sasl.password", password.expose());
        }
    }

    fn mistakes(&self) -> Vec<Error> {
        let Self::Password { username, password, .. } = self else { return Vec::new() };
        let named = [("username", username.as_str()), ("password", password.expose())];
        named.into_iter().filter_map(|(name, text)| unusable(name, text)).collect()
    }
}

/// Says what is wrong with a text of a login, and never the text.
fn unusable(name: &str, text: &str) -> Option<Error> {
    let found = match text {
        "" => "an empty one",
        _ if text.contains('\0') => "one with a NUL byte",
        _ => return None,
    };
    Some(Error::config(format!("tm.Sasl() needs a {name}, found {found}")).help(format!(
        "where it comes from the environment or a file, make sure that it is set there; the {name} is never shown"
    )))
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Password { mechanism, username, password },
                Self::Password { mechanism: other_mechanism, username: other_name, password: other_password },
            ) => (mechanism, username, password) == (other_mechanism, other_name, other_password),
            (Self::Token(provider), Self::Token(other)) => provider.identity() == other.identity(),
            _ => false,
        }
    }
}

impl Eq for Login {}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { mechanism, username, password } => {
                write!(f, "{}(username={username:?}, password={password})", mechanism.name())
            }
            Self::Token(_) => f.write_str("OAUTHBEARER"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{path:?}"),
            Self::Text(_) => f.write_str("<PEM>"),
        }
    }
}

impl Security {
    /// The TLS of it, where there is any.
    pub fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Tls(tls) => Some(tls),
            Self::Sasl(sasl) => sasl.tls.as_ref(),
        }
    }

    /// The login of it, where there is any.
    pub fn login(&self) -> Option<&Login> {
        match self {
            Self::Tls(_) => None,
            Self::Sasl(sasl) => Some(&sasl.login),
        }
    }

    /// Every mistake that can be seen without a connection.
    ///
    /// ```
    /// use tidemill::kafka::secret::Secret;
    /// use tidemill::kafka::security::{Insecure, Login, Mechanism, Sasl, Security};
    /// let password = Secret::new("hunter2");
    /// let login = Login::Password { mechanism: Mechanism::Plain, username: "alice".into(), password };
    /// let security = Security::Sasl(Sasl { login, tls: None, insecure: Insecure::Refused });
    /// let mistake = security.mistakes().remove(0).to_string();
    /// assert!(mistake.starts_with("PLAIN over an open line would show the password to whoever listens"));
    /// ```
    pub fn mistakes(&self) -> Vec<Error> {
        let tls = self.tls().map(Tls::mistakes).unwrap_or_default();
        self.login_mistakes().into_iter().chain(tls).collect()
    }

    /// Those of the login, for which no file is looked at.
    pub fn login_mistakes(&self) -> Vec<Error> {
        let Self::Sasl(sasl) = self else { return Vec::new() };
        let is_open = sasl.tls.is_none() && sasl.insecure == Insecure::Refused;
        let line = is_open.then(|| open_line(sasl.login.mechanism()));
        sasl.login.mistakes().into_iter().chain(line).collect()
    }

    pub(crate) fn set(&self, client: &mut ClientConfig) {
        let protocol = match self {
            Self::Tls(_) => "ssl",
            Self::Sasl(Sasl { tls: Some(_), .. }) => "sasl_ssl",
            Self::Sasl(Sasl { tls: None, .. }) => "sasl_plaintext",
        };
        client.set("security.protocol", protocol);
        if let Some(tls) = self.tls() {
            tls.set(client);
        }
        if let Some(login) = self.login() {
            login.set(client);
        }
    }
}

/// Why a login over an open line is refused, and what to do.
pub(crate) fn open_line(mechanism: &str) -> Error {
    let shown = match mechanism {
        "PLAIN" => "would show the password to whoever listens",
        "OAUTHBEARER" => "would show the token to whoever listens",
        _ => "lets whoever listens guess the password at leisure, and change what is read and written",
    };
    Error::config(format!("{mechanism} over an open line {shown}")).help(
        "use TLS, tls=tm.Tls(), at the port where the cluster speaks it; or, where nobody else is on the line, pass \
         security=tm.Sasl(..., tls=None, allow_insecure=True)",
    )
}

impl Tls {
    fn set(&self, client: &mut ClientConfig) {
        match &self.ca {
            Some(ca) => ca.set(client, "ssl.ca.location", "ssl.ca.pem"),
            // OpenSSL is built in, and so does not know where the system keeps its certificates.
            None => drop(client.set("ssl.ca.location", "probe")),
        }
        if let Some(certificate) = &self.certificate {
            certificate.set(client, "ssl.certificate.location", "ssl.certificate.pem");
            self.key.as_ref().unwrap_or(certificate).set(client, "ssl.key.location", "ssl.key.pem");
        }
        if let Some(password) = &self.key_password {
            client.set("ssl.key.password", password.expose());
        }
    }

    fn mistakes(&self) -> Vec<Error> {
        let ca = self.ca.as_ref().and_then(|ca| ca.lacks("ca", CERTIFICATE).err());
        let certificate =
            self.certificate.as_ref().and_then(|pem| pem.lacks("certificate", CERTIFICATE).err());
        let alone = match (&self.certificate, &self.key, &self.key_password) {
            (None, Some(_), _) => Some(("a certificate", "a key alone")),
            (None, None, Some(_)) => Some(("a certificate and its key", "a key_password alone")),
            _ => None,
        };
        let alone = alone.map(|(expected, found)| {
            Error::config(format!("tm.Tls() needs {expected}, found {found}")).help(
                "pass certificate= and key=, or, where the cluster wants no client certificate, neither",
            )
        });
        let key = if certificate.is_none() { self.key_mistake() } else { None };
        ca.into_iter().chain(certificate).chain(alone).chain(key).collect()
    }

    fn key_mistake(&self) -> Option<Error> {
        let pem = self.key.as_ref().or(self.certificate.as_ref())?;
        let text = match pem.lacks("key", PRIVATE_KEY) {
            Ok(text) => text,
            Err(error) => return Some(error),
        };
        let encrypted =
            text.lines().any(|line| line.starts_with("-----BEGIN ENCRYPTED") || line.contains(",ENCRYPTED"));
        let locked = encrypted && self.key_password.is_none();
        locked.then(|| {
            Error::config("key: expected key_password, since the key is encrypted, found none")
                .help("pass key_password=, or a key without a password")
        })
    }
}

/// What a PEM text must hold, and in the words of an error.
type Content = (&'static str, &'static str);
const CERTIFICATE: Content = ("CERTIFICATE-----", "certificates in PEM");
const PRIVATE_KEY: Content = ("PRIVATE KEY-----", "a private key in PEM");

impl Pem {
    fn set(&self, client: &mut ClientConfig, file: &str, text: &str) {
        match self {
            Self::File(path) => client.set(file, path),
            Self::Text(pem) => client.set(text, pem.expose()),
        };
    }

    /// The text, or an error that says what `argument` should hold. A folder is left to OpenSSL.
    fn lacks(&self, argument: &str, (marker, expected): Content) -> Result<String> {
        let bytes = match self {
            Self::Text(text) => text.expose().as_bytes().to_vec(),
            Self::File(path) if Path::new(path).is_dir() && argument == "ca" => return Ok(String::new()),
            Self::File(path) => fs::read(path).map_err(|cause| {
                Error::config(format!(
                    "{argument}: expected a file of {expected}, found that {path:?} cannot be read: {cause}"
                ))
                .help("check the path; a relative one counts from where the job was started")
            })?,
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.contains(marker) && !text.contains(END_OF_LINE) {
            return Ok(text);
        }
        let found = found(&bytes, &text);
        let error = Error::config(format!("{argument}: expected {expected}, found {found} in {self:?}"));
        Err(error.help(remedy(found)))
    }
}

const KEYSTORE: &str = "a Java keystore";
const ONE_LINE: &str = "one line, in which the ends of lines are written as \\n";
const END_OF_LINE: &str = "\\n";
const BINARY: &str = "binary data (DER or PKCS#12)";

/// What kind of file it is instead.
fn found(bytes: &[u8], text: &str) -> &'static str {
    match bytes {
        [] => "nothing",
        [0xfe, 0xed, 0xfe, 0xed, ..] => KEYSTORE,
        [0x30, ..] => BINARY,
        _ if text.contains(END_OF_LINE) => ONE_LINE,
        _ if text.contains(PRIVATE_KEY.0) => "only a private key",
        _ if text.contains(CERTIFICATE.0) => "only certificates",
        _ => "something else",
    }
}

fn remedy(found: &str) -> &'static str {
    match found {
        KEYSTORE => {
            "convert it: keytool -importkeystore -srckeystore store.jks -destkeystore store.p12 -deststoretype PKCS12, \
             then openssl pkcs12 -in store.p12 -out store.pem"
        }
        BINARY => {
            "convert it: openssl pkcs12 -in store.p12 -out store.pem, or openssl x509 -inform DER -in one.der -out one.pem"
        }
        ONE_LINE => "put true ends of lines there: text.replace(\"\\\\n\", \"\\n\")",
        _ => {
            "PEM is text that begins with -----BEGIN; ca and certificate hold certificates, key the private key"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        let password = Secret::new("hunter2");
        Login::Password { mechanism: Mechanism::ScramSha512, username: "alice".to_owned(), password }
    }

    fn set(security: &Security) -> ClientConfig {
        let mut client = ClientConfig::new();
        security.set(&mut client);
        client
    }

    #[test]
    fn tls_checks_the_broker_by_the_systems_authorities_unless_others_are_named() {
        let client = set(&Security::Tls(Tls::default()));
        assert_eq!(
            (client.get("security.protocol"), client.get("ssl.ca.location")),
            (Some("ssl"), Some("probe"))
        );
        let ca = Some(Pem::Text(Secret::new("-----BEGIN CERTIFICATE-----")));
        let client = set(&Security::Tls(Tls { ca, ..Tls::default() }));
        assert!(client.get("ssl.ca.pem").is_some() && client.get("ssl.ca.location").is_none());
    }

    #[test]
    fn a_certificate_that_holds_its_key_needs_no_other_file() {
        let pem = Pem::Text(Secret::new("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----"));
        let tls = Tls { certificate: Some(pem), ..Tls::default() };
        assert!(tls.mistakes().is_empty());
        let client = set(&Security::Tls(tls));
        assert_eq!(client.get("ssl.key.pem"), client.get("ssl.certificate.pem"));
    }

    #[test]
    fn a_login_goes_over_tls_and_over_an_open_line_only_where_that_is_allowed() {
        let over = |tls, insecure| Security::Sasl(Sasl { login: login(), tls, insecure });
        let sure = over(Some(Tls::default()), Insecure::Refused);
        assert!(sure.mistakes().is_empty());
        assert_eq!(set(&sure).get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(set(&sure).get("sasl.mechanisms"), Some("SCRAM-SHA-512"));
        let allowed = over(None, Insecure::Allowed);
        assert!(allowed.mistakes().is_empty());
        assert_eq!(set(&allowed).get("security.protocol"), Some("sasl_plaintext"));
        let refused = over(None, Insecure::Refused).mistakes();
        assert!(refused.iter().any(|error| error.to_string().contains("allow_insecure=True")), "{refused:?}");
    }

    #[test]
    fn what_is_no_pem_is_named_with_what_it_is_and_how_to_convert_it() {
        for (bytes, found, remedy) in [
            (&b"\xfe\xed\xfe\xed\0"[..], "a Java keystore", "keytool"),
            (&b"\x30\x82\x01"[..], "binary data", "openssl pkcs12"),
            (&b""[..], "nothing", "PEM is text"),
            (&b"-----BEGIN PRIVATE KEY-----"[..], "only a private key", "PEM is text"),
        ] {
            let file = std::env::temp_dir().join(format!("tidemill-{}-{}", std::process::id(), bytes.len()));
            fs::write(&file, bytes).unwrap();
            let ca = Some(Pem::File(file.to_string_lossy().into_owned()));
            let text = Tls { ca, ..Tls::default() }.mistakes().remove(0).to_string();
            fs::remove_file(file).unwrap();
            assert!(text.contains(found) && text.contains(remedy), "{text}");
        }
    }

    #[test]
    fn a_missing_file_and_a_lone_key_are_told_at_once() {
        let nowhere = |name: &str| Some(Pem::File(format!("/nowhere/{name}.pem")));
        let tls = Tls { ca: nowhere("ca"), key: nowhere("key"), ..Tls::default() };
        let texts: Vec<String> = tls.mistakes().iter().map(Error::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].contains("\"/nowhere/ca.pem\" cannot be read"), "{texts:?}");
        assert!(texts[1].contains("needs a certificate, found a key alone"), "{texts:?}");
    }

    #[test]
    fn an_encrypted_key_needs_its_password() {
        let pem = |text: &str| Some(Pem::Text(Secret::new(text)));
        let mut tls = Tls {
            certificate: pem("-----BEGIN CERTIFICATE-----"),
            key: pem("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
            ..Tls::default()
        };
        assert!(tls.mistakes()[0].to_string().contains("expected key_password"));
        tls.key_password = Some(Secret::new("hunter2"));
        assert!(tls.mistakes().is_empty());
    }

    #[test]
    fn a_login_shows_its_name_and_never_its_password() {
        let security = Security::Sasl(Sasl { login: login(), tls: None, insecure: Insecure::Allowed });
        let text = format!("{security:?}");
        assert!(text.contains("alice") && !text.contains("hunter2"), "{text}");
        for password in ["", "hun\0ter2"] {
            let (mechanism, username) = (Mechanism::Plain, "alice".to_owned());
            let login = Login::Password { mechanism, username, password: Secret::new(password) };
            let text = login.mistakes()[0].to_string();
            assert!(text.contains("needs a password") && !text.contains("ter2"), "{text}");
        }
    }
}
