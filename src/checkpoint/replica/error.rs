//! What a replica could not do: which kind of failure, where, what to do, and what is known of the outcome.
//!
//! It deliberately decides nothing: whether to wait, to go on without the replica or to stop is the log's business.

use std::fmt;
use std::io;

use crate::error::{Error, ErrorKind};

/// Why a replica did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplicaErrorKind {
    /// It cannot be reached, is too slow, or its disk fails.
    Unavailable,
    /// It has no room.
    Full,
    /// It can be read only.
    ReadOnly,
    /// This process has not the right to.
    Denied,
    /// Anything else: a request that no replica takes, or a store that cannot be one.
    Other,
}

/// A request that failed. Its outcome is unknown, so that it may yet be done, unless
/// [`is_undone`](ReplicaError::is_undone).
///
/// ```
/// use tidemill::checkpoint::replica::{ReplicaError, ReplicaErrorKind};
/// let error = ReplicaError::new(ReplicaErrorKind::Full, "/disk1/app has no room").help("make room");
/// assert!(error.is_retriable() && !error.is_undone());
/// assert_eq!(error.to_string(), "/disk1/app has no room; make room");
/// ```
#[derive(Clone)]
pub struct ReplicaError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ReplicaErrorKind,
    error: Error,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Undone,
}

impl ReplicaError {
    /// A failure of `kind` that says what was expected, what was found, and where. Its outcome is unknown.
    pub fn new(kind: ReplicaErrorKind, message: impl Into<String>) -> Self {
        let error = Error::new(ErrorKind::Checkpoint, message);
        let error = if kind == ReplicaErrorKind::Other { error } else { error.retriable() };
        Self(Box::new(Inner { kind, error, outcome: Outcome::Unknown }))
    }

    /// What the system refused when it was asked to `what` at `place`, and what to do about it.
    pub fn of_system(what: &str, place: &str, error: &io::Error) -> Self {
        let (kind, help) = meaning(error.kind());
        let failed = Self::new(kind, format!("could not {what} {place}: {error}"));
        let failed = help.into_iter().fold(failed, Self::help);
        failed.caused_by(io::Error::from(error.kind()))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.error = self.0.error.help(help);
        self
    }

    /// Keeps the error that brought this one about.
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.error = self.0.error.caused_by(cause);
        self
    }

    /// Says that the request was surely not done, and will not be.
    #[must_use]
    pub fn undone(mut self) -> Self {
        self.0.outcome = Outcome::Undone;
        self
    }

    /// Says that the outcome is unknown.
    #[must_use]
    pub fn in_doubt(mut self) -> Self {
        self.0.outcome = Outcome::Unknown;
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ReplicaErrorKind {
        self.0.kind
    }

    /// Whether the same request may succeed later.
    pub fn is_retriable(&self) -> bool {
        self.0.error.is_retriable()
    }

    /// Whether the request was surely not done, and will not be; the outcome of any other is unknown.
    pub fn is_undone(&self) -> bool {
        self.0.outcome == Outcome::Undone
    }
}

/// A disk that fails for a while, and one that was pulled out, are down, not gone: their replicas may come back.
fn meaning(kind: io::ErrorKind) -> (ReplicaErrorKind, Option<&'static str>) {
    use ReplicaErrorKind::{Denied, Full, Other, ReadOnly, Unavailable};
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (Full, Some("make room there; the stream goes on by itself"))
        }
        io::ErrorKind::FileTooLarge => (Full, Some("raise the limit on a file's size (ulimit -f)")),
        io::ErrorKind::ReadOnlyFilesystem => {
            (ReadOnly, Some("mount it for writing; a system does so after an error of the disk, see its log"))
        }
        io::ErrorKind::PermissionDenied => (Denied, Some("give this user the right to write there")),
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => (
            Other,
            Some("a replica's file system needs hard links and fsync, also of directories; choose another"),
        ),
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            (Other, Some("something else stands there; give the replica a directory of its own"))
        }
        _ => (Unavailable, None),
    }
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.error.fmt(f)
    }
}

impl fmt::Debug for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())
    }
}

impl std::error::Error for ReplicaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.error.source()
    }
}

impl From<ReplicaError> for Error {
    fn from(error: ReplicaError) -> Self {
        error.0.error
    }
}
