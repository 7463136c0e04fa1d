//! The paths of objects below a replica's root: only our own, made of parts whose form is fixed.
//!
//! It deliberately knows no directories and no separators but `/`. Nothing that comes from outside ever becomes a part
//! of a path: a [`Key`] is made from numbers, or read from a text that must be exactly what those numbers give.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::checkpoint::container::Place;
use crate::checkpoint::id::{ChunkHash, DriverId, Epoch, Incarnation, Index};
use crate::error::{Error, ErrorKind};

/// A path below a replica's root: that of an object, or one that several objects begin with. Ordered as their texts.
///
/// ```
/// use tidemill::checkpoint::container::{Epoch, Incarnation, Index, Place};
/// use tidemill::checkpoint::replica::Key;
/// let key = Key::of(Incarnation(10), &Place::Slot(Epoch(3), Index(0)));
/// let text = "00000000-0000-0000-0000-00000000000a/log/00000000000000000003/00000000000000000000";
/// assert_eq!(key.as_str(), text);
/// assert_eq!(text.parse::<Key>()?, key);
/// assert_eq!(key.place(), Some((Incarnation(10), Place::Slot(Epoch(3), Index(0)))));
/// for wrong in ["", "/job.json", "../job.json", "job.json/", "log/3/0", "JOB.json", "probe/1"] {
///     assert!(wrong.parse::<Key>().is_err(), "{wrong}");
/// }
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// What a key stands for.
enum Name {
    Prefix,
    Object(Option<(Incarnation, Place)>),
}

/// Enough for any `u64`, so that keys are in the order of their numbers.
const DIGITS: usize = 20;

impl Key {
    /// What every key begins with; not the key of an object, and never the result of reading a text.
    pub fn root() -> Self {
        Self(Arc::from(""))
    }

    /// `job.json`, which says whose checkpoint this is.
    pub fn job() -> Self {
        Self(Arc::from("job.json"))
    }

    /// What the probes' objects begin with.
    pub fn probes() -> Self {
        Self(Arc::from("probe"))
    }

    /// The object that a driver's probe makes and removes.
    pub fn probe(driver: DriverId) -> Self {
        Self(format!("probe/{driver}").into())
    }

    /// What the objects of an incarnation begin with.
    pub fn incarnation(incarnation: Incarnation) -> Self {
        Self(incarnation.to_string().into())
    }

    /// What an incarnation's claims begin with.
    pub fn claims(incarnation: Incarnation) -> Self {
        Self(format!("{incarnation}/claim").into())
    }

    /// What the slots of all epochs begin with.
    pub fn logs(incarnation: Incarnation) -> Self {
        Self(format!("{incarnation}/log").into())
    }

    /// What the slots of one epoch begin with.
    pub fn log(incarnation: Incarnation, epoch: Epoch) -> Self {
        Self(format!("{incarnation}/log/{:020}", epoch.0).into())
    }

    /// What the chunks of all epochs begin with.
    pub fn chunks(incarnation: Incarnation) -> Self {
        Self(format!("{incarnation}/data").into())
    }

    /// What the chunks of one epoch begin with.
    pub fn chunks_of(incarnation: Incarnation, epoch: Epoch) -> Self {
        Self(format!("{incarnation}/data/{:020}", epoch.0).into())
    }

    /// The object at `place`.
    pub fn of(incarnation: Incarnation, place: &Place) -> Self {
        Self(Arc::from(match place {
            Place::Claim(epoch) => format!("{incarnation}/claim/{:020}", epoch.0),
            Place::Slot(epoch, index) => format!("{incarnation}/log/{:020}/{:020}", epoch.0, index.0),
            Place::Chunk(epoch, hash) => format!("{incarnation}/data/{:020}/{hash}", epoch.0),
        }))
    }

    /// The incarnation and the place of the object that it is the key of; none for `job.json`, a probe's object, and
    /// what several objects begin with.
    pub fn place(&self) -> Option<(Incarnation, Place)> {
        match read(&self.0) {
            Some(Name::Object(place)) => place,
            _ => None,
        }
    }

    /// Whether it is the key of an object, and not what several begin with.
    pub fn is_object(&self) -> bool {
        matches!(read(&self.0), Some(Name::Object(_)))
    }

    /// Whether it is the key of something below `prefix`; by whole parts, so that `log/1` does not begin `log/10`.
    pub fn is_below(&self, prefix: &Self) -> bool {
        let rest = self.0.strip_prefix(&*prefix.0);
        rest.is_some_and(|rest| rest.starts_with('/') || (prefix.0.is_empty() && !rest.is_empty()))
    }

    /// What it begins with, one part shorter; none for the root.
    pub fn parent(&self) -> Option<Self> {
        let parent = self.0.rsplit_once('/').map_or("", |(parent, _)| parent);
        (!self.0.is_empty()).then(|| Self(parent.into()))
    }

    /// The key one part longer, where there is such a key.
    pub fn child(&self, name: &str) -> Option<Self> {
        if name.contains('/') {
            return None;
        }
        let text = if self.0.is_empty() { name.to_owned() } else { format!("{self}/{name}") };
        text.parse().ok()
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn read(text: &str) -> Option<Name> {
    let parts: Vec<&str> = text.split('/').take(5).collect();
    match *parts.as_slice() {
        ["job.json"] => Some(Name::Object(None)),
        ["probe"] => Some(Name::Prefix),
        ["probe", driver] => driver.parse::<DriverId>().ok().map(|_| Name::Object(None)),
        [incarnation, ref rest @ ..] => read_below(incarnation.parse().ok()?, rest),
        [] => None,
    }
}

fn read_below(incarnation: Incarnation, parts: &[&str]) -> Option<Name> {
    let place = match *parts {
        [] | ["claim" | "log" | "data"] => return Some(Name::Prefix),
        ["log" | "data", epoch] => return number(epoch).map(|_| Name::Prefix),
        ["claim", epoch] => Place::Claim(Epoch(number(epoch)?)),
        ["log", epoch, index] => Place::Slot(Epoch(number(epoch)?), Index(number(index)?)),
        ["data", epoch, hash] => Place::Chunk(Epoch(number(epoch)?), hash.parse::<ChunkHash>().ok()?),
        _ => return None,
    };
    Some(Name::Object(Some((incarnation, place))))
}

fn number(text: &str) -> Option<u64> {
    let digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || {
            Error::new(
                ErrorKind::Checkpoint,
                format!("{text:?} is not the path of an object of a checkpoint"),
            )
        };
        read(text).map(|_| Self(text.into())).ok_or_else(unknown)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}
