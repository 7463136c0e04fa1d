//! What a place remembers of the batch that was published there last, and whose it is.
//!
//! A marker is kept by the same act that publishes the output, so that it is there if and only if the output is. It
//! deliberately says nothing of state: whoever holds the PREPAREs of a job finds there which of them it names.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::digest::Digest;
use crate::error::{Error, Result};
use crate::time::BatchId;

/// A marker that is older than this is published once more: a cluster forgets what nobody has renewed for days.
pub const RENEWAL: Duration = Duration::from_hours(12);

/// A driver's term; a later driver of the same job has a larger one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who publishes: a job, and which of its drivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The job's UUID, as text.
    pub job: String,
    /// The driver's term.
    pub epoch: Epoch,
}

/// The batch that was published last, by which driver, and what its output was.
///
/// ```
/// use tidemill::sink::digest::Digest;
/// use tidemill::sink::marker::{Epoch, Marker};
/// use tidemill::time::BatchId;
/// let marker = Marker { batch: BatchId(7), epoch: Epoch(2), digest: Digest::of(b"output") };
/// assert!(marker.to_string().starts_with("tm1:7:2:"));
/// assert_eq!(marker.to_string().parse::<Marker>()?, marker);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marker {
    /// The batch.
    pub batch: BatchId,
    /// The driver that published it.
    pub epoch: Epoch,
    /// The digest of all its output.
    pub digest: Digest,
}

/// What a marker's text begins with; another number is another form of it.
const FORM: &str = "tm1";

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORM}:{}:{}:{}", self.batch, self.epoch, self.digest)
    }
}

impl FromStr for Marker {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        read(text).ok_or_else(|| {
            let message = format!("a marker is {FORM}:batch:epoch:digest, found {text:?}");
            Error::sink(message).help("a newer tidemill has written it, or something that is none")
        })
    }
}

fn read(text: &str) -> Option<Marker> {
    let mut parts = text.split(':');
    let form = parts.next()?;
    let (batch, epoch) = (number(parts.next()?)?, number(parts.next()?)?);
    let digest = parts.next()?.parse().ok()?;
    let is_whole = form == FORM && parts.next().is_none();
    is_whole.then_some(Marker { batch: BatchId(batch), epoch: Epoch(epoch), digest })
}

/// Numbers have one way to be written: neither a sign nor a zero before them.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::Marker;
    use crate::sink::digest::Digest;

    #[test]
    fn what_is_no_marker_is_none() {
        let digest = Digest::of(b"a");
        assert!(format!("tm1:0:0:{digest}").parse::<Marker>().is_ok());
        for wrong in ["tm2:0:0:D", "tm1:00:0:D", "tm1:0:+1:D", "tm1:0:D", "tm1:0:0:D:", "tm1:0:0:", "", "D"] {
            let text = wrong.replace('D', &digest.to_string());
            assert!(text.parse::<Marker>().is_err(), "{text}");
        }
    }
}
