//! What the driver itself has to remember so that a stream goes on elsewhere as if it had never stopped: plain values, as
//! bytes and back.
//!
//! It is as of one batch: how far event time had come by it, how silent each partition had been in its plan, what was read up
//! to it. Sources are found again by name, so that others may come and go. The state of operators is deliberately not here
//! (that is [`manifest`](crate::exec::manifest)'s), nor is anything that a new start finds out by itself: heads, ends, rates.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::driver::watermark::{Place, Silent};
use crate::error::Result;
use crate::event::{Counts, Positions, Totals};
use crate::offset::{Offset, TopicPartition};
use crate::plan::SourceId;
use crate::time::{BatchId, BatchTime, EventTime};
use crate::wire::{Reader, Writer};

/// The version of the form that is written, and the only one that is read.
const VERSION: u16 = 1;

/// The fewest bytes of a place, of a text and of a size.
const LEAST_PLACE: usize = 17;
const LEAST_TEXT: usize = 4;
const SIZE: usize = 8;

/// What the driver remembers of a stream, as of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The batch.
    pub batch: BatchId,
    /// Its time: the next has a later one.
    pub time: BatchTime,
    /// W(n).
    pub watermark: Option<EventTime>,
    /// How many windows were open after it.
    pub open_windows: u64,
    /// What all batches up to it have counted.
    pub totals: Totals,
    /// The names of the sources, in the order of their numbers.
    pub sources: Vec<String>,
    /// What is known of each partition.
    pub places: BTreeMap<Place, PlaceMemory>,
    /// The partition that seemed to hold the watermark far back, and in how many batches.
    pub suspect: Option<(Place, u32)>,
    /// The partition of which that was told.
    pub told: Option<Place>,
}

/// What is known of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceMemory {
    /// The first offset that was not read; none of a partition that is there no more.
    pub position: Option<Offset>,
    /// The topic's own identity, where it is told.
    pub topic_id: Option<[u8; 16]>,
    /// The mean bytes a record of the last batches that brought any, the oldest first.
    pub sizes: Vec<u64>,
    /// The largest event time that it has told.
    pub largest: Option<EventTime>,
    /// For how long it has told no time that could be believed.
    pub untold: Option<Duration>,
    /// How silent it has been.
    pub silent: Option<Silent>,
}

impl Memory {
    /// What is known of a partition, to be added to.
    pub(crate) fn place(&mut self, place: &Place) -> &mut PlaceMemory {
        self.places.entry(place.clone()).or_default()
    }

    /// Whether anything was read of a source.
    pub(crate) fn knows(&self, source: SourceId) -> bool {
        self.places.iter().any(|((of, _), known)| *of == source && known.position.is_some())
    }

    /// Where reading of a source goes on.
    pub(crate) fn positions(&self, source: SourceId) -> Positions {
        let own = self.places.iter().filter(|((of, _), _)| *of == source);
        own.filter_map(|((_, at), known)| Some((at.clone(), known.position?))).collect()
    }

    /// The same for the sources of these names: what is known of others is let go. Of several of one name, the first is
    /// that which was the first before.
    #[must_use]
    pub fn of_sources(&self, names: &[String]) -> Self {
        let mut numbers: BTreeMap<SourceId, SourceId> = BTreeMap::new();
        for (number, name) in names.iter().enumerate() {
            let before = self.sources.iter().zip(0..).filter(|(known, _)| *known == name);
            let free =
                before.map(|(_, before)| SourceId(before)).find(|before| !numbers.contains_key(before));
            numbers.extend(free.map(|before| (before, SourceId(number))));
        }
        let now = |(source, at): &Place| Some((*numbers.get(source)?, at.clone()));
        let places =
            self.places.iter().filter_map(|(place, known)| Some((now(place)?, known.clone()))).collect();
        let suspect = self.suspect.as_ref().and_then(|(place, batches)| Some((now(place)?, *batches)));
        let told = self.told.as_ref().and_then(now);
        Self { sources: names.to_vec(), places, suspect, told, ..self.clone() }
    }

    /// The memory as bytes.
    ///
    /// ```
    /// use tidemill::driver::memory::Memory;
    /// let memory = Memory::default();
    /// assert_eq!(Memory::decode(&memory.encode())?, memory);
    /// # Ok::<(), tidemill::error::Error>(())
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(VERSION);
        out.u64(self.batch.0);
        out.i64(self.time.0);
        out.option(self.watermark, |out, time| out.i64(time.0));
        out.u64(self.open_windows);
        write_totals(&self.totals, &mut out);
        out.count(self.sources.len());
        self.sources.iter().for_each(|name| out.text(name));
        let topics = self.topics();
        out.count(topics.len());
        for topic in topics.keys() {
            out.text(topic);
        }
        out.count(self.places.len());
        for (place, known) in &self.places {
            write_place(place, &topics, &mut out);
            known.write(&mut out);
        }
        out.option(self.suspect.as_ref(), |out, (place, batches)| {
            write_place(place, &topics, out);
            out.u32(*batches);
        });
        out.option(self.told.as_ref(), |out, place| write_place(place, &topics, out));
        out.into_bytes()
    }

    /// The topics in alphabetical order, with their numbers: each is written once, however many partitions it has.
    fn topics(&self) -> BTreeMap<String, u32> {
        let suspect = self.suspect.iter().map(|(place, _)| place);
        let places = self.places.keys().chain(suspect).chain(&self.told);
        let mut topics: BTreeMap<String, u32> =
            places.map(|(_, at)| (at.topic.as_str().to_owned(), 0)).collect();
        topics.values_mut().zip(0..).for_each(|(number, place)| *number = place);
        topics
    }

    /// The memory that [`Self::encode`] made bytes of. Whatever does not fit is an error of kind
    /// [`ErrorKind::Checkpoint`](crate::error::ErrorKind::Checkpoint).
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Reader::new("the driver's memory", bytes);
        let version = from.u16()?;
        if version != VERSION {
            return Err(from
                .wrong(format!("version {VERSION} was expected, found version {version}"))
                .help("restore it with the version of tidemill that wrote it"));
        }
        let (batch, time) = (BatchId(from.u64()?), BatchTime(from.i64()?));
        let watermark = from.option(|from| from.i64().map(EventTime))?;
        let open_windows = from.u64()?;
        let totals = read_totals(&mut from)?;
        let sources = read_texts(&mut from)?;
        let names = Names { sources: sources.len(), topics: read_texts(&mut from)? };
        let mut places = BTreeMap::new();
        for _ in 0..from.count(LEAST_PLACE)? {
            let place = names.read_place(&mut from)?;
            if places.insert(place, PlaceMemory::read(&mut from)?).is_some() {
                return Err(from.wrong("each partition once was expected, found one again"));
            }
        }
        let suspect = from.option(|from| Ok((names.read_place(from)?, from.u32()?)))?;
        let told = from.option(|from| names.read_place(from))?;
        from.end()?;
        Ok(Self { batch, time, watermark, open_windows, totals, sources, places, suspect, told })
    }
}

impl PlaceMemory {
    fn write(&self, out: &mut Writer) {
        out.option(self.position, |out, offset| out.i64(offset.0));
        out.option(self.topic_id, |out, id| out.plain(&id));
        out.count(self.sizes.len());
        self.sizes.iter().for_each(|size| out.u64(*size));
        out.option(self.largest, |out, time| out.i64(time.0));
        out.option(self.untold, write_duration);
        out.option(self.silent, |out, silent| match silent {
            Silent::Forever => out.u8(0),
            Silent::For(sum) => {
                out.u8(1);
                write_duration(out, sum);
            }
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let position = from.option(|from| from.i64().map(Offset))?;
        let topic_id = from.option(|from| {
            let id = from.plain(16)?;
            id.try_into().map_err(|_| from.wrong("an identity of 16 bytes was expected"))
        })?;
        let count = from.count(SIZE)?;
        let sizes = (0..count).map(|_| from.u64()).collect::<Result<_>>()?;
        let largest = from.option(|from| from.i64().map(EventTime))?;
        let untold = from.option(read_duration)?;
        let silent = from.option(|from| match from.u8()? {
            0 => Ok(Silent::Forever),
            1 => read_duration(from).map(Silent::For),
            other => Err(from.wrong(format!("a kind of silence was expected, found number {other}"))),
        })?;
        Ok(Self { position, topic_id, sizes, largest, untold, silent })
    }
}

/// What places are written with: the number of sources, and the topics by their numbers.
struct Names {
    sources: usize,
    topics: Vec<String>,
}

impl Names {
    fn read_place(&self, from: &mut Reader<'_>) -> Result<Place> {
        let (source, topic, partition) = (from.u32()? as usize, from.u32()? as usize, from.i32()?);
        match self.topics.get(topic) {
            Some(topic) if source < self.sources => {
                Ok((SourceId(source), TopicPartition::new(topic, partition)))
            }
            _ => {
                Err(from
                    .wrong(format!("a source and a topic were expected, found numbers {source} and {topic}")))
            }
        }
    }
}

fn write_place((source, at): &Place, topics: &BTreeMap<String, u32>, out: &mut Writer) {
    out.u32(u32::try_from(source.0).unwrap_or(u32::MAX));
    out.u32(topics.get(at.topic.as_str()).copied().unwrap_or(u32::MAX));
    out.i32(at.partition.0);
}

fn read_texts(from: &mut Reader<'_>) -> Result<Vec<String>> {
    let count = from.count(LEAST_TEXT)?;
    (0..count).map(|_| from.text().map(ToOwned::to_owned)).collect()
}

fn write_duration(out: &mut Writer, duration: Duration) {
    out.u64(duration.as_secs());
    out.u32(duration.subsec_nanos());
}

fn read_duration(from: &mut Reader<'_>) -> Result<Duration> {
    let (seconds, nanos) = (from.u64()?, from.u32()?);
    if nanos >= 1_000_000_000 {
        return Err(from.wrong(format!("a part of a second was expected, found {nanos} ns")));
    }
    Ok(Duration::new(seconds, nanos))
}

/// The counts in the order in which they are written.
fn counts(counts: &mut Counts) -> [&mut u64; 9] {
    let Counts { records, bytes, bad, tombstones, without_time, future, late, output_rows, lost } = counts;
    [records, bytes, bad, tombstones, without_time, future, late, output_rows, lost]
}

fn write_totals(totals: &Totals, out: &mut Writer) {
    let Totals { batches, counts: mut all } = *totals;
    out.u64(batches);
    for count in counts(&mut all) {
        out.u64(*count);
    }
}

fn read_totals(from: &mut Reader<'_>) -> Result<Totals> {
    let mut totals = Totals { batches: from.u64()?, ..Totals::default() };
    for count in counts(&mut totals.counts) {
        *count = from.u64()?;
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn place(source: usize, topic: &str, partition: i32) -> Place {
        (SourceId(source), TopicPartition::new(topic, partition))
    }

    fn memory() -> Memory {
        let known = PlaceMemory {
            position: Some(Offset(7)),
            topic_id: Some([9; 16]),
            sizes: vec![120, 130],
            largest: Some(EventTime(-5)),
            untold: Some(Duration::from_millis(1_500)),
            silent: Some(Silent::For(Duration::from_secs(3))),
        };
        let ended = PlaceMemory { silent: Some(Silent::Forever), ..PlaceMemory::default() };
        Memory {
            batch: BatchId(41),
            time: BatchTime(1_700_000_000_000),
            watermark: Some(EventTime(1)),
            open_windows: 3,
            totals: Totals { batches: 40, counts: Counts { records: 5, lost: 2, ..Counts::default() } },
            sources: vec!["readings".to_owned(), "alarms".to_owned()],
            places: BTreeMap::from([(place(0, "r", 0), known), (place(1, "a", 2), ended)]),
            suspect: Some((place(1, "a", 2), 2)),
            told: Some(place(0, "gone", 5)),
        }
    }

    #[test]
    fn a_memory_is_read_as_it_was_written() {
        assert_eq!(Memory::decode(&memory().encode()).unwrap(), memory());
    }

    #[test]
    fn bytes_that_are_no_memory_are_refused() {
        let bytes = memory().encode();
        for length in 0..bytes.len() {
            assert_eq!(Memory::decode(&bytes[..length]).unwrap_err().kind(), ErrorKind::Checkpoint);
        }
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..20_000 {
            let mut mutant = bytes.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..mutant.len());
                mutant[at] = random.u8(..);
            }
            if let Err(error) = Memory::decode(&mutant) {
                assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
            }
        }
        let error = Memory::decode(&[9, 0]).unwrap_err().to_string();
        assert!(
            error.starts_with("version 1 was expected, found version 9; restore it with the version"),
            "{error}"
        );
    }

    #[test]
    fn sources_are_found_again_by_name() {
        let names = ["new", "alarms", "alarms"].map(str::to_owned);
        let found = memory().of_sources(&names);
        assert_eq!(found.places.keys().collect::<Vec<_>>(), [&place(1, "a", 2)]);
        assert_eq!((found.suspect, found.told), (Some((place(1, "a", 2), 2)), None));
        assert_eq!(memory().of_sources(&memory().sources), memory());
    }
}
