//! The one error of the crate: what was expected, what was found, where, and what to do.
//!
//! It is opaque: callers ask with predicates ([`Error::is_data`], [`Error::kind`]) and never match on an
//! internal enum. It deliberately knows nothing of Python, Kafka or Arrow; the edges turn their own errors into
//! this one, and keep the original as its [`source`](std::error::Error::source).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, in the words that the Python exception classes carry too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting or a plan is wrong; nothing has run.
    Config,
    /// A column is missing or has the wrong type.
    Schema,
    /// A record's content cannot be what the schema says.
    Data,
    /// A source cannot be read.
    Source,
    /// A sink cannot be written.
    Sink,
    /// Records that the plan named are gone from the source.
    DataLoss,
    /// One batch alone needs more memory than `max_memory` grants.
    MemoryLimit,
    /// The checkpoint cannot be read or written.
    Checkpoint,
    /// A later driver has taken over.
    Fenced,
    /// A user's own function failed; the cause is the user's exception.
    User,
    /// Work was given up because that was asked for: no failure, but not done either.
    Cancelled,
    /// An invariant of this crate does not hold: a defect, worth reporting.
    Internal,
}

/// An error with its place and its remedy.
///
/// ```
/// use tidemill::error::Error;
/// let error = Error::config("batch_interval must be positive, found 0 ms").help("pass, say, \"500ms\"");
/// assert!(error.is_config());
/// assert_eq!(error.to_string(), "batch_interval must be positive, found 0 ms; pass, say, \"500ms\"");
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    help: Option<String>,
    places: Vec<String>,
    cause: Option<Cause>,
    again: Again,
}

/// What may be tried after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Nothing,
    SameCall,
    TakeOver,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {$(
        #[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        }
    )*};
}

impl Error {
    /// An error of `kind` that says what was expected and what was found.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner {
            kind,
            message,
            help: None,
            places: Vec::new(),
            cause: None,
            again: Again::Nothing,
        }))
    }

    constructors! {
        config => Config, schema => Schema, data => Data, source => Source, sink => Sink,
        data_loss => DataLoss, memory_limit => MemoryLimit, fenced => Fenced, user => User, cancelled => Cancelled,
        internal => Internal,
    }

    /// One error for all `mistakes`: the only one as it is, several as a numbered list; none for none.
    pub fn of_all(mut mistakes: Vec<Self>) -> Option<Self> {
        match mistakes.len() {
            0 | 1 => mistakes.pop(),
            count => {
                let lines =
                    mistakes.iter().enumerate().map(|(i, mistake)| format!("\n  {}. {mistake}", i + 1));
                let message = format!("{count} mistakes, found before start:{}", lines.collect::<String>());
                mistakes.first().map(|first| Self::new(first.kind(), message))
            }
        }
    }

    /// Adds what to do about it, shown after the message.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Adds where it happened (operator, batch, partition, line of the script), innermost first.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.places.push(place.into());
        self
    }

    /// Keeps the error that brought this one about.
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.cause = Some(Arc::new(cause));
        self
    }

    /// Says that the same call may succeed later.
    #[must_use]
    pub fn retriable(mut self) -> Self {
        self.0.again = Again::SameCall;
        self
    }

    /// Says that what was called is good for nothing more, and that a take-over may heal it: a new epoch, whose own
    /// look at the outside world tells what has become of the call.
    ///
    /// ```
    /// use tidemill::error::Error;
    /// let error = Error::sink("the answer to the commit was lost").take_over();
    /// assert!(error.needs_take_over() && !error.is_retriable());
    /// ```
    #[must_use]
    pub fn take_over(mut self) -> Self {
        self.0.again = Again::TakeOver;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without places.
    pub fn message(&self) -> String {
        match &self.0.help {
            Some(help) => format!("{}; {help}", self.0.message),
            None => self.0.message.clone(),
        }
    }

    /// Where it happened, innermost first.
    pub fn places(&self) -> &[String] {
        &self.0.places
    }

    /// The cause, if it is an `E`: how a Python exception finds its way back to its caller.
    pub fn cause<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.cause.as_deref().and_then(|cause| cause.downcast_ref::<E>())
    }

    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        self.0.again == Again::SameCall
    }

    /// Whether nothing but a take-over may heal this: the same call must not be made again.
    pub fn needs_take_over(&self) -> bool {
        self.0.again == Again::TakeOver
    }

    /// Whether a record's content is at fault.
    pub fn is_data(&self) -> bool {
        self.kind() == ErrorKind::Data
    }

    /// Whether a setting or the plan is at fault.
    pub fn is_config(&self) -> bool {
        matches!(self.kind(), ErrorKind::Config | ErrorKind::Schema)
    }

    /// Whether work was given up because that was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.kind() == ErrorKind::Cancelled
    }

    /// Whether a later driver has taken over.
    pub fn is_fenced(&self) -> bool {
        self.kind() == ErrorKind::Fenced
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match self.places() {
            [] => Ok(()),
            places => write!(f, " ({})", places.join(", ")),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())?;
        match &self.0.cause {
            Some(cause) => write!(f, " [caused by: {cause}]"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::data(error.to_string()).caused_by(error)
    }
}

/// A number of bytes as people read it, and exactly.
///
/// ```
/// use tidemill::error::in_bytes;
/// assert_eq!(in_bytes(350_464), "342.2 KiB (350,464 bytes)");
/// assert_eq!(in_bytes(64 << 20), "64 MiB (67,108,864 bytes)");
/// assert_eq!(in_bytes(1_000), "1,000 bytes");
/// ```
pub fn in_bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let exact = format!("{} bytes", in_thousands(count));
    let times = UNITS.iter().zip(1_u32..).take_while(|(_, power)| count >> (10 * power) > 0).last();
    let Some((unit, power)) = times else { return exact };
    let rounded = format!("{:.1}", count as f64 / 1024_f64.powi(power.cast_signed()));
    format!("{} {unit} ({exact})", rounded.trim_end_matches(".0"))
}

/// A number with its digits in threes.
///
/// ```
/// assert_eq!(tidemill::error::in_thousands(1_234_567), "1,234,567");
/// ```
pub fn in_thousands(count: u64) -> String {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at_checked(first).unwrap_or((&digits, ""));
    let threes = tail.as_bytes().chunks(3).map(String::from_utf8_lossy).map(Cow::into_owned);
    let parts: Vec<String> = (first > 0).then(|| head.to_owned()).into_iter().chain(threes).collect();
    parts.join(",")
}

/// The nearest of `candidates` to `name`, for "did you mean"; none when nothing is near.
///
/// ```
/// use tidemill::error::nearest;
/// assert_eq!(nearest("temprature", ["device", "temperature"]), Some("temperature"));
/// assert_eq!(nearest("pressure", ["device", "temperature"]), None);
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = name.chars().count().div_ceil(3).max(1);
    let scored = candidates.into_iter().map(|candidate| (difference(name, candidate), candidate));
    scored
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// How far two names lie apart; a name that merely goes on is near, however long the rest.
fn difference(a: &str, b: &str) -> usize {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let goes_on = short.len() >= 3 && long.to_lowercase().starts_with(&short.to_lowercase());
    if goes_on { 1 } else { distance(a, b) }
}

/// The number of edits (Levenshtein, letters compared without case) between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (1..=b.len()).collect(); // without the first column, which is the row's number
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let (mut diagonal, mut left) = (i, i + 1);
        for (y, above) in b.iter().zip(&mut row) {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = *above;
            left = substituted.min(left + 1).min(*above + 1);
            *above = left;
        }
    }
    row.last().copied().unwrap_or_else(|| a.chars().count())
}
