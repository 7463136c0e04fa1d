//! Columns that no record has: most often a name that is misspelt.
//!
//! It deliberately looks at the first records only: once a column has had a value its name is right, and a sensor that
//! falls silent later is no mistake.

use arrow::array::Array;

use crate::decode::doubts::{BATCHES, Look, RECORDS};
use crate::decode::json::members;
use crate::error::{Error, in_thousands, nearest};
use crate::time::BatchTime;

/// Shorter names resemble each other by chance.
const TELLING: usize = 4;
/// So many of a record's keys are shown.
const SHOWN: usize = 12;

/// And of each so many characters: a record may hold anything.
const LONGEST: usize = 60;

/// Which columns have had a value yet.
#[derive(Debug)]
pub(super) struct Columns {
    names: Vec<String>,
    found: Vec<bool>,
    records: u64,
    batches: u64,
    last: Option<BatchTime>,
    /// The first record and the last of the first chunk.
    samples: Vec<Vec<u8>>,
    settled: bool,
}

/// The keys of the records at hand, each once, and the names that lie in objects below.
#[derive(Default)]
struct Keys {
    top: Vec<String>,
    below: Vec<(String, String)>,
}

impl Columns {
    pub(super) fn new(names: Vec<String>) -> Self {
        let (found, settled) = (vec![false; names.len()], names.is_empty());
        Self { names, found, records: 0, batches: 0, last: None, samples: Vec::new(), settled }
    }

    pub(super) fn look(&mut self, look: &Look<'_>) {
        let rows = look.rows.len();
        if self.settled || rows == 0 {
            return;
        }
        for (found, array) in self.found.iter_mut().zip(look.payload) {
            *found |= array.null_count() < rows;
        }
        self.settled = self.found.iter().all(|found| *found);
        self.records += rows as u64;
        if self.last != Some(look.time) {
            self.batches += 1;
            self.last = Some(look.time);
        }
        if self.samples.is_empty() {
            self.samples.extend([0, rows - 1].iter().filter_map(|row| look.record(*row)));
        }
    }

    pub(super) fn judge(&mut self) -> Option<Error> {
        if self.settled || self.records == 0 {
            return None;
        }
        let keys = Keys::of(&self.samples);
        let is_enough = self.records >= RECORDS || self.batches >= BATCHES;
        let missing: Vec<&str> = self.missing().filter(|name| !keys.has(name)).collect();
        let is_plain = missing.iter().any(|name| self.is_plain(name, &keys));
        if missing.is_empty() || !(is_enough || is_plain) {
            self.settled = is_enough;
            return None;
        }
        let error = self.error(&missing, &keys);
        self.settled = true;
        Some(error)
    }

    fn missing(&self) -> impl Iterator<Item = &str> {
        let pairs = self.names.iter().zip(&self.found);
        pairs.filter(|(_, found)| !**found).map(|(name, _)| name.as_str())
    }

    /// Whether few records are enough: what was meant stands there.
    fn is_plain(&self, name: &str, keys: &Keys) -> bool {
        let near = || self.near(name, keys).is_some() && name.chars().count() >= TELLING;
        keys.path(name).is_some() || near()
    }

    /// The key that resembles `name` and is no column of its own.
    fn near<'a>(&self, name: &str, keys: &'a Keys) -> Option<&'a str> {
        let free = keys.top.iter().filter(|key| !self.names.contains(key));
        nearest(name, free.map(String::as_str))
    }

    fn error(&self, missing: &[&str], keys: &Keys) -> Error {
        let (what, are) = match missing {
            [one] => (format!("the column {one:?}"), "it is null in every row"),
            several => (format!("the columns {}", quoted(several.iter())), "they are null in every row"),
        };
        let mut shown = quoted(keys.top.iter().take(SHOWN));
        if keys.top.len() > SHOWN {
            shown.push_str(", …");
        }
        let records = in_thousands(self.records);
        let message =
            format!("no record so far ({records} looked at) has {what}: {are}; a record has {shown}");
        let hints: Vec<String> = missing.iter().filter_map(|name| self.hint(name, missing, keys)).collect();
        let error = Error::schema(message);
        if hints.is_empty() {
            return error.help("names count letter by letter: check those of the schema");
        }
        error.help(hints.join("; "))
    }

    fn hint(&self, name: &str, missing: &[&str], keys: &Keys) -> Option<String> {
        if let Some((object, inner)) = keys.path(name) {
            return Some(format!(
                "{inner:?} lies inside of {object:?}: declare it there, {{{object:?}: {{{inner:?}: …}}}}, and read it as \
                 col({object:?})[{inner:?}]"
            ));
        }
        let near = self.near(name, keys)?;
        let what = if missing.len() > 1 { format!(" for {name:?}") } else { String::new() };
        Some(format!("did you mean {near:?}{what}?"))
    }
}

impl Keys {
    fn of(records: &[Vec<u8>]) -> Self {
        let mut keys = Self::default();
        for (key, value) in records.iter().flat_map(|record| members(record)) {
            if keys.has(&key) {
                continue;
            }
            keys.below.extend(members(value).into_iter().map(|(below, _)| (key.clone(), below)));
            keys.top.push(key);
        }
        keys
    }

    fn has(&self, name: &str) -> bool {
        self.top.iter().any(|key| key == name)
    }

    /// The object and the key in it that `name` means, as a path or as the key alone.
    fn path(&self, name: &str) -> Option<(&str, &str)> {
        let means = |(object, below): &&(String, String)| {
            below == name
                || name.strip_prefix(object.as_str()).and_then(|rest| rest.strip_prefix('.')) == Some(below)
        };
        self.below.iter().find(means).map(|(object, below)| (object.as_str(), below.as_str()))
    }
}

fn quoted(names: impl Iterator<Item = impl AsRef<str>>) -> String {
    let short = |name: &str| name.chars().take(LONGEST).collect::<String>();
    names.map(|name| format!("{:?}", short(name.as_ref()))).collect::<Vec<_>>().join(", ")
}
