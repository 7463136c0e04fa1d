//! Tokens for a cluster's logins (OAUTHBEARER): got from elsewhere on a thread of their own, and renewed in time.
//!
//! Whoever gives them may take seconds or fail, so it is never asked on a thread that moves records, nor on one of
//! librdkafka's. One thread serves all clients of a source or sink. It deliberately does not look into a token: what it
//! means is between its giver and the cluster.
#![expect(unsafe_code, reason = "librdkafka takes a token with extensions by a C function only")]

use std::ffi::{CString, c_char};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::types::{RDKafka, RDKafkaRespErr};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::kafka::secret::Secret;
use crate::time::{BatchTime, Clock, SystemClock};

/// How long after a failure the provider is asked again.
const RETRY: Duration = Duration::from_secs(10);

/// A token is renewed once this part of its life is over: early enough that a provider may fail now and then.
const RENEWAL: f64 = 0.8;

/// What shows who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The token itself.
    pub value: Secret,
    /// How long it is good for, from when it was given.
    pub lifetime: Duration,
    /// Whose it is, for librdkafka's log; may be empty.
    pub principal: String,
    /// What is told to the cluster beside it: names of letters only, and their values.
    pub extensions: Vec<(String, String)>,
}

/// Whoever gives tokens.
pub trait TokenProvider: Send + Sync + fmt::Debug {
    /// A new token; called on a thread of its own, never twice at once.
    fn token(&self) -> Result<Token>;

    /// The same number for providers that are the same: two sources with one provider are of one cluster.
    fn identity(&self) -> usize;
}

impl Token {
    /// What the cluster would refuse, or librdkafka would repeat in its own error.
    fn check(&self) -> Result<()> {
        let value = self.value.expose();
        if value.is_empty() || !is_visible(value) {
            let found = if value.is_empty() { "an empty one" } else { "one with other characters" };
            return Err(Error::config(format!("a token is visible ASCII text, found {found}")));
        }
        if self.lifetime.is_zero() {
            return Err(Error::config("a token has some time to live, found one that has expired")
                .help("return one that is good for a minute or more, and look at this machine's clock"));
        }
        let odd = self.extensions.iter().find(|(name, value)| !is_extension(name) || !is_visible(value));
        if let Some((name, _)) = odd {
            let text = format!(
                "a token's extension has a name of letters, other than \"auth\", and a visible text; found {name:?}"
            );
            return Err(Error::config(text));
        }
        if self.principal.contains('\0') {
            return Err(Error::config("a token's principal is a name, found one with a NUL byte"));
        }
        Ok(())
    }
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn is_extension(name: &str) -> bool {
    !name.is_empty() && name != "auth" && name.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// A token as librdkafka takes it, and until when it is good.
struct Issued {
    value: CString,
    principal: CString,
    extensions: Vec<CString>,
    until: BatchTime,
}

impl Issued {
    fn new(token: &Token, now: BatchTime) -> Result<Self> {
        let c_text = |text: &str| {
            CString::new(text).map_err(|_| Error::config("a token holds no NUL byte, found one that does"))
        };
        let extensions = token.extensions.iter().flat_map(|(name, value)| [c_text(name), c_text(value)]);
        Ok(Self {
            value: c_text(token.value.expose())?,
            principal: c_text(&token.principal)?,
            extensions: extensions.collect::<Result<_>>()?,
            until: now.plus(token.lifetime),
        })
    }
}

/// The tokens of one source or sink, for as long as this is there.
pub(crate) struct Tokens(Arc<Shared>);

struct Shared {
    provider: Arc<dyn TokenProvider>,
    clock: SystemClock,  // librdkafka goes by the machine's own time
    state: Mutex<State>, // held for a look and for handing a token over, never while the provider is asked
    changed: Condvar,    // a token, a failure, the end, or a cancel while the first is waited for
}

#[derive(Default)]
struct State {
    issued: Option<Issued>,
    /// Why there is no newer one.
    failure: Option<Error>,
    clients: Vec<Native>,
    has_ended: bool,
}

/// A client that is alive: it leaves the list before it is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Native(NonNull<RDKafka>);

// SAFETY: librdkafka's clients may be used from any thread.
unsafe impl Send for Native {}
// SAFETY: as above.
unsafe impl Sync for Native {}

impl Tokens {
    /// Asks `provider` for a token, and again whenever one is about to expire; an error where none comes within
    /// `patience`, or before `cancel` is set: whoever gives them cannot be called off, and is left behind.
    pub(crate) fn start(
        provider: &Arc<dyn TokenProvider>,
        patience: Duration,
        cancel: &Cancel,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            provider: Arc::clone(provider),
            clock: SystemClock::new(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let tokens = Self(Arc::clone(&shared));
        let thread = Builder::new().name("tidemill-token".to_owned()).spawn(move || shared.run());
        thread.map_err(|cause| {
            Error::internal("expected to start a thread for tokens, found that the system gives no more")
                .caused_by(cause)
        })?;
        tokens.await_first(patience, cancel)?;
        Ok(tokens)
    }

    fn await_first(&self, patience: Duration, cancel: &Cancel) -> Result<()> {
        let shared = Arc::clone(&self.0);
        let _guard = cancel.on_cancel(Arc::new(move || {
            drop(shared.state()); // else this might come between the look at the flag and the wait
            shared.changed.notify_all();
        }));
        let waits =
            |state: &mut State| state.issued.is_none() && state.failure.is_none() && !cancel.is_cancelled();
        let state = self.0.state();
        let waited = self.0.changed.wait_timeout_while(state, patience, waits);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        match (&state.issued, &state.failure) {
            (Some(_), _) => Ok(()),
            (None, Some(failure)) => Err(failure.clone()),
            (None, None) if cancel.is_cancelled() => Err(Error::cancelled(
                "expected a token, found that the stream was stopped before there was one",
            )),
            (None, None) => Err(Error::user(format!(
                "expected a token within {} s, found that the function given to tm.Sasl.oauth() has not returned",
                patience.as_secs()
            ))
            .help("give its own requests a time-out, and see what it waits for")),
        }
    }

    /// Why there is no token that is still good, where there is none.
    pub(crate) fn failure(&self) -> Option<Error> {
        let state = self.0.state();
        let is_good = state.issued.as_ref().is_some_and(|issued| issued.until > self.0.clock.now());
        if is_good { None } else { state.failure.clone() }
    }

    /// Gives `client` the token there is, and each that comes, until what this returns is dropped.
    ///
    /// # Safety
    /// `client` is valid until then.
    unsafe fn serve(&self, client: *mut RDKafka) -> Option<Served> {
        let client = NonNull::new(client).map(Native)?;
        let mut state = self.0.state();
        if let Some(issued) = &state.issued {
            client.set(issued);
        }
        state.clients.push(client);
        Some(Served { shared: Arc::clone(&self.0), client })
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.0.state().has_ended = true;
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of the thread.
    fn run(&self) {
        loop {
            let given = self.provider.token().and_then(|token| token.check().map(|()| token));
            let pause = match given {
                Ok(token) => self.take(&token),
                Err(failure) => Err(failure),
            };
            let pause = pause.unwrap_or_else(|failure| self.note(failure));
            let state = self.state();
            let waited = self.changed.wait_timeout_while(state, pause, |state| !state.has_ended);
            if waited.unwrap_or_else(PoisonError::into_inner).0.has_ended {
                return;
            }
        }
    }

    /// Hands a token on, and says when it must be renewed.
    fn take(&self, token: &Token) -> Result<Duration> {
        let issued = Issued::new(token, self.clock.now())?;
        let mut state = self.state();
        state.clients.iter().for_each(|client| client.set(&issued));
        state.issued = Some(issued);
        state.failure = None;
        self.changed.notify_all();
        log::debug!(target: "tidemill::kafka", "a new token, good for {:?}", token.lifetime);
        Ok(token.lifetime.mul_f64(RENEWAL))
    }

    /// Keeps a failure, and says when the provider is asked again.
    fn note(&self, failure: Error) -> Duration {
        let mut state = self.state();
        if state.issued.is_some() && !state.has_ended {
            log::warn!(
                target: "tidemill::kafka",
                "the token for Kafka could not be renewed: {failure}; it is asked for again every {} s, and the job fails \
                 when the token it has expires",
                RETRY.as_secs()
            );
        }
        state.failure = Some(failure);
        self.changed.notify_all();
        let left = state.issued.as_ref().map(|issued| issued.until.since(self.clock.now()));
        // Once more before it expires, however short its life.
        left.map_or(RETRY, |left| RETRY.min((left / 2).max(Duration::from_millis(100))))
    }
}

impl Native {
    /// librdkafka copies all of it, and waits for nothing. What it could refuse has been checked: its own words would
    /// repeat the token.
    fn set(self, issued: &Issued) {
        let mut extensions: Vec<*const c_char> = issued.extensions.iter().map(|text| text.as_ptr()).collect();
        let mut said = [0; 512];
        // SAFETY: the client is alive as long as it is in the list, whose lock is held; the texts live through the call.
        let code = unsafe {
            rd::rd_kafka_oauthbearer_set_token(
                self.0.as_ptr(),
                issued.value.as_ptr(),
                issued.until.0,
                issued.principal.as_ptr(),
                extensions.as_mut_ptr(),
                extensions.len(),
                said.as_mut_ptr(),
                said.len(),
            )
        };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            log::warn!(target: "tidemill::kafka", "librdkafka does not take the token: {code:?}");
        }
    }
}

/// A client of librdkafka's that owns its handle, and so keeps it where it is until it is dropped.
pub(crate) trait Owner {
    /// The handle.
    fn handle(&self) -> *mut RDKafka;
}

impl<C: ConsumerContext> Owner for BaseConsumer<C> {
    fn handle(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

impl<C: ProducerContext> Owner for BaseProducer<C> {
    fn handle(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

/// A client that gets the tokens it logs in with, where it does. Never changed for another, since the tokens are for this
/// one; the fields stand in the order in which they must go.
pub(crate) struct LoggedIn<C> {
    _served: Option<Served>,
    client: C,
}

impl<C: Owner> LoggedIn<C> {
    pub(crate) fn new(client: C, tokens: Option<&Tokens>) -> Self {
        // SAFETY: the handle is the client's own, which is dropped after what is served.
        let served = tokens.and_then(|tokens| unsafe { tokens.serve(client.handle()) });
        Self { _served: served, client }
    }
}

impl<C> Deref for LoggedIn<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.client
    }
}

/// A client that gets tokens; it must be dropped before the client is.
struct Served {
    shared: Arc<Shared>,
    client: Native,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shared.state().clients.retain(|client| *client != self.client);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crossbeam_channel::{Receiver, bounded};

    use super::*;

    fn token(value: &str) -> Token {
        let lifetime = Duration::from_hours(1);
        Token { value: Secret::new(value), lifetime, principal: String::new(), extensions: Vec::new() }
    }

    /// Gives the texts in turn; a failure for an empty one.
    #[derive(Debug)]
    struct Script(Vec<&'static str>, AtomicUsize, Duration);

    impl TokenProvider for Script {
        fn token(&self) -> Result<Token> {
            let asked = self.1.fetch_add(1, Ordering::SeqCst);
            match self.0.get(asked).or(self.0.last()) {
                Some(&"") | None => Err(Error::user("no token today")),
                Some(value) => Ok(Token { lifetime: self.2, ..token(value) }),
            }
        }

        fn identity(&self) -> usize {
            0
        }
    }

    fn script(values: &[&'static str], lifetime: Duration) -> Arc<dyn TokenProvider> {
        Arc::new(Script(values.to_vec(), AtomicUsize::new(0), lifetime))
    }

    const LIMIT: Duration = Duration::from_mins(1);

    fn start(provider: &Arc<dyn TokenProvider>) -> Result<Tokens> {
        Tokens::start(provider, LIMIT, &Cancel::default())
    }

    /// Has the stream stopped as soon as it is asked, and answers once the test lets it.
    #[derive(Debug)]
    struct Slow(Cancel, Receiver<()>);

    impl TokenProvider for Slow {
        fn token(&self) -> Result<Token> {
            self.0.cancel();
            let _ = self.1.recv();
            Ok(token("late"))
        }

        fn identity(&self) -> usize {
            0
        }
    }

    #[test]
    fn a_cancel_leaves_behind_a_provider_that_does_not_answer() {
        let cancel = Cancel::default();
        let (_answers, answered) = bounded(0); // never sent to: it ends with the test
        let slow: Arc<dyn TokenProvider> = Arc::new(Slow(cancel.clone(), answered));
        let error = Tokens::start(&slow, Duration::from_hours(1), &cancel).unwrap_err();
        assert!(error.is_cancelled(), "{error}");
    }

    #[test]
    fn the_first_failure_is_the_start_s() {
        let error = start(&script(&[""], LIMIT)).unwrap_err();
        assert_eq!(error.to_string(), "no token today");
    }

    #[test]
    fn a_failure_counts_once_the_token_has_expired() {
        let tokens = start(&script(&["a", ""], Duration::from_millis(50))).unwrap();
        while tokens.failure().is_none() {
            std::thread::yield_now();
        }
        let tokens = start(&script(&["a", ""], LIMIT)).unwrap();
        tokens.0.note(Error::user("later"));
        assert!(tokens.failure().is_none());
    }

    #[test]
    fn a_failure_is_followed_by_another_question_before_the_token_expires() {
        let tokens = start(&script(&["a"], LIMIT)).unwrap();
        let pause = tokens.0.take(&Token { lifetime: Duration::from_secs(10), ..token("b") }).unwrap();
        assert_eq!(pause, Duration::from_secs(8));
        assert!(tokens.0.note(Error::user("no")) <= Duration::from_secs(5));
        tokens.0.take(&token("c")).unwrap();
        assert_eq!(tokens.0.note(Error::user("no")), RETRY);
    }

    #[test]
    fn what_librdkafka_would_refuse_is_refused_without_showing_it() {
        let named = |name: &str| vec![(name.to_owned(), "x".to_owned())];
        let wrong = [
            token(""),
            token("hunter2\u{e9}"),
            Token { lifetime: Duration::ZERO, ..token("hunter2") },
            Token { extensions: named("auth"), ..token("hunter2") },
            Token { extensions: named("pool_id"), ..token("hunter2") },
        ];
        for token in wrong {
            let error = token.check().unwrap_err();
            assert!(error.is_config() && !format!("{error:?}").contains("hunter2"), "{error}");
        }
        assert!(Token { extensions: named("identityPoolId"), ..token("a") }.check().is_ok());
    }

    #[test]
    fn a_token_is_never_printed() {
        assert!(!format!("{:?}", token("hunter2")).contains("hunter2"));
    }
}
