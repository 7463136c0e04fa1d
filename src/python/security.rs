//! What protects a connection, from Python's words to the core's; and the user's function that gives tokens.
//!
//! A secret that has come in is never given back to Python, nor shown. It deliberately checks only what a value is: what
//! goes together, and what is in the files, is the core's business.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDateTime, PyString};
use pyo3::{PyTraverseError, PyVisit};

use crate::error::{Error, Result};
use crate::kafka::secret::Secret;
use crate::kafka::security::{Insecure, Login, Mechanism, Pem, Sasl, Security as Core, Tls, open_line};
use crate::kafka::token::{Token, TokenProvider};
use crate::python::context::Context;
use crate::python::error::from_user;
use crate::python::functions::Callable;
use crate::python::gil;
use crate::python::units::Span;

/// A number of seconds that is no time to live but a time of day: thirty years.
const MOMENT: f64 = 1e9;

/// TLS, or a login.
#[pyclass(frozen, module = "tidemill._native")]
pub(crate) struct Security(Kind);

enum Kind {
    /// All that the core takes as it is.
    Core(Core),
    /// A login by the tokens that this function gives.
    Token { function: Py<PyAny>, name: String, tls: Option<Tls>, insecure: Insecure },
}

#[pymethods]
impl Security {
    #[staticmethod]
    fn tls(
        ca: Option<PemArgument>,
        certificate: Option<PemArgument>,
        key: Option<PemArgument>,
        key_password: &Bound<'_, PyAny>,
        allow_insecure: bool,
    ) -> PyResult<Self> {
        let key_password =
            (!key_password.is_none()).then(|| secret("key_password", key_password)).transpose()?;
        let pem = |argument: Option<PemArgument>| argument.map(|argument| argument.0);
        let insecure = insecure(allow_insecure);
        let tls = Tls { ca: pem(ca), certificate: pem(certificate), key: pem(key), key_password, insecure };
        Ok(Self(Kind::Core(Core::Tls(tls))))
    }

    #[staticmethod]
    fn password(
        mechanism: &Bound<'_, PyAny>,
        username: &Bound<'_, PyAny>,
        password: &Bound<'_, PyAny>,
        tls: Option<&Self>,
        allow_insecure: bool,
    ) -> PyResult<Self> {
        let mechanism = Mechanism::named(&text("mechanism", mechanism)?)?;
        let (username, password) = (text("username", username)?, secret("password", password)?);
        let login = Login::Password { mechanism, username, password };
        let sasl = Sasl { login, tls: tls_of(tls)?, insecure: insecure(allow_insecure) };
        let security = Core::Sasl(sasl);
        match Error::of_all(security.login_mistakes()) {
            Some(mistakes) => Err(mistakes.into()),
            None => Ok(Self(Kind::Core(security))),
        }
    }

    /// A login by the tokens that `function` gives.
    #[staticmethod]
    fn oauth(function: &Bound<'_, PyAny>, tls: Option<&Self>, allow_insecure: bool) -> PyResult<Self> {
        if !function.is_callable() {
            let text =
                format!("tm.Sasl.oauth() takes a function that gives a token, found {}", kind(function));
            return Err(Error::config(text)
                .help("a token alone would expire: pass lambda: (token, \"1h\")")
                .into());
        }
        let name = function.getattr("__qualname__").and_then(|name| name.extract::<String>());
        let name = name.unwrap_or_else(|_| kind(function));
        let (function, tls, insecure) = (function.clone().unbind(), tls_of(tls)?, insecure(allow_insecure));
        if tls.is_none() && insecure == Insecure::Refused {
            return Err(open_line("OAUTHBEARER").into());
        }
        Ok(Self(Kind::Token { function, name, tls, insecure }))
    }

    fn __repr__(&self) -> String {
        let (login, tls) = match &self.0 {
            Kind::Core(Core::Tls(tls)) => return shown_tls(tls),
            Kind::Core(Core::Sasl(sasl)) => (shown_login(&sasl.login), sasl.tls.as_ref()),
            Kind::Token { name, tls, .. } => (format!("Sasl.oauth({name}"), tls.as_ref()),
        };
        let tls = tls.map_or_else(|| "None, allow_insecure=True".to_owned(), shown_tls);
        format!("{login}, tls={tls})")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        match &self.0 {
            Kind::Token { function, .. } => visit.call(function),
            Kind::Core(_) => Ok(()),
        }
    }
}

impl Security {
    /// What the core takes, with the function where `context` keeps all functions.
    pub(crate) fn core(&self, py: Python<'_>, context: &Context) -> Core {
        match &self.0 {
            Kind::Core(core) => core.clone(),
            Kind::Token { function, name, tls, insecure } => {
                let identity = function.as_ptr() as usize;
                let function = context.keep(function.clone_ref(py));
                let provider = PythonTokens { function, name: name.clone(), identity };
                let login = Login::Token(Arc::new(provider));
                Core::Sasl(Sasl { login, tls: tls.clone(), insecure: *insecure })
            }
        }
    }
}

fn insecure(allowed: bool) -> Insecure {
    if allowed { Insecure::Allowed } else { Insecure::Refused }
}

fn tls_of(security: Option<&Security>) -> Result<Option<Tls>> {
    match security {
        None => Ok(None),
        Some(Security(Kind::Core(Core::Tls(tls)))) => Ok(Some(tls.clone())),
        Some(_) => Err(Error::config("tls is tm.Tls(...) or None, found a tm.Sasl")),
    }
}

fn shown_tls(tls: &Tls) -> String {
    let pem = |name: &str, pem: &Option<Pem>| pem.as_ref().map(|pem| format!("{name}={pem:?}"));
    let password = tls.key_password.as_ref().map(|password| format!("key_password='{password}'"));
    let allowed = (tls.insecure == Insecure::Allowed).then(|| "allow_insecure=True".to_owned());
    let named =
        [pem("ca", &tls.ca), pem("certificate", &tls.certificate), pem("key", &tls.key), password, allowed];
    format!("Tls({})", named.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn shown_login(login: &Login) -> String {
    match login {
        Login::Password { mechanism, username, password } => {
            format!("Sasl({:?}, username={username:?}, password='{password}'", mechanism.name())
        }
        Login::Token(provider) => format!("Sasl.oauth({provider:?}"),
    }
}

/// What kind of value it is, and not which: it may be a secret.
fn kind(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string())
}

fn text(name: &str, value: &Bound<'_, PyAny>) -> Result<String> {
    value.extract::<String>().map_err(|_| {
        let error = Error::config(format!("{name} is text, found {}", kind(value)));
        if value.is_none() {
            return error.help("where it comes from the environment, is the variable set there?");
        }
        error.help("decode bytes, and call .get_secret_value() or the like on a wrapper")
    })
}

fn secret(name: &str, value: &Bound<'_, PyAny>) -> Result<Secret> {
    Ok(Secret::new(text(name, value)?))
}

/// A path, or the PEM text itself.
pub(crate) struct PemArgument(Pem);

impl<'py> FromPyObject<'_, 'py> for PemArgument {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            let text = String::from_utf8_lossy(bytes.as_bytes()).into_owned();
            return Ok(Self(Pem::Text(Secret::new(text))));
        }
        if let Ok(text) = value.extract::<String>() {
            let is_pem = text.trim_start().starts_with("-----BEGIN");
            return Ok(Self(if is_pem { Pem::Text(Secret::new(text)) } else { Pem::File(text) }));
        }
        let refused = || {
            let text =
                format!("ca, certificate and key are a file's path or PEM text, found {}", kind(&value));
            Error::config(text)
        };
        let path: PathBuf = value.extract().map_err(|_| refused())?;
        Ok(Self(Pem::File(path.to_string_lossy().into_owned())))
    }
}

/// Tokens from a function of the user's.
struct PythonTokens {
    function: Callable,
    name: String,
    identity: usize,
}

impl fmt::Debug for PythonTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl TokenProvider for PythonTokens {
    fn token(&self) -> Result<Token> {
        let given = gil::attach(|py| {
            let given = self.function.get(py)?.bind(py).call0().and_then(|given| token_of(&given));
            given.map_err(|raised| from_user(py, raised))
        });
        given.map_err(|error| error.at(format!("in {}(), given to tm.Sasl.oauth()", self.name)))
    }

    fn identity(&self) -> usize {
        self.identity
    }
}

/// A pair of token and lifetime, or a `tm.Token`.
fn token_of(given: &Bound<'_, PyAny>) -> PyResult<Token> {
    if let Ok((value, lifetime)) = given.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() {
        let (value, lifetime) = (secret("a token", &value)?, lifetime_of(&lifetime)?);
        return Ok(Token { value, lifetime, principal: String::new(), extensions: Vec::new() });
    }
    let attribute = |name: &str| given.getattr(name).map_err(|_| not_a_token(given));
    let extensions = attribute("extensions")?.call_method0("items")?.try_iter()?;
    let extension = |item: PyResult<Bound<'_, PyAny>>| -> PyResult<(String, String)> {
        let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item?.extract()?;
        Ok((text("an extension's name", &name)?, text("an extension's value", &value)?))
    };
    Ok(Token {
        value: secret("a token", &attribute("value")?)?,
        lifetime: lifetime_of(&attribute("lifetime")?)?,
        principal: text("principal", &attribute("principal")?)?,
        extensions: extensions.map(extension).collect::<PyResult<_>>()?,
    })
}

fn not_a_token(given: &Bound<'_, PyAny>) -> PyErr {
    let what = if given.is_instance_of::<PyString>() { "a text alone".to_owned() } else { kind(given) };
    Error::config(format!(
        "the function given to tm.Sasl.oauth() returns a token and its lifetime, found {what}"
    ))
    .help("return (token, \"5m\"), or tm.Token(token, \"5m\", extensions={...})")
    .into()
}

/// A length of time from now on; or the moment when it ends.
fn lifetime_of(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    if value.is_instance_of::<PyDateTime>() {
        let zone = value.getattr("tzinfo")?;
        if zone.is_none() {
            let text = "a token's lifetime ends at a datetime with a time zone, found one without";
            return Err(Error::config(text)
                .help("pass, say, datetime.fromtimestamp(seconds, timezone.utc)")
                .into());
        }
        let now = value.get_type().call_method1("now", (zone,))?;
        let left: f64 = value.sub(now)?.call_method0("total_seconds")?.extract()?;
        return Ok(Duration::from_secs_f64(left.max(0.0)));
    }
    let seconds = if value.is_instance_of::<PyBool>() { None } else { value.extract::<f64>().ok() };
    if seconds.is_some_and(|seconds| seconds >= MOMENT) {
        let text = "a token's lifetime is a length of time from now on, found a number that looks like a time of day";
        let help = "pass datetime.fromtimestamp(seconds, timezone.utc); milliseconds have to be divided by 1000 first";
        return Err(Error::config(text).help(help).into());
    }
    Ok(value.extract::<Span>()?.0)
}
