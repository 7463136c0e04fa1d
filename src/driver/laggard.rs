//! Finds the partition whose clock is behind: its records keep coming, and tell times that are long past in all others.
//!
//! It deliberately moves nothing: the watermark waits for such a partition, as it waits for a backlog, since from the
//! records alone nobody can tell which of the two clocks is right. It says once who is waited for.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::driver::memory::Memory;
use crate::driver::watermark::{Place, Silence, Watermark};
use crate::error::Error;
use crate::offset::TopicPartition;
use crate::time::EventTime;

/// Below this no distance is told, however small the watermark's delay: partitions are read in turns.
const LEAST: Duration = Duration::from_mins(1);
/// So many of the watermark's delays are no lateness any more.
const DELAYS: u32 = 10;
/// So many batches with its records have to agree: in one of them it may just have caught up.
const BATCHES: u32 = 3;

/// Follows who holds the watermark.
#[derive(Clone, Debug, Default)]
pub struct Laggard {
    suspect: Option<(Place, u32)>,
    /// Who has been told of, until it is no longer behind.
    told: Option<Place>,
}

/// A holder that is far behind.
struct Distance {
    holder: Place,
    at: EventTime,
    others: EventTime,
}

impl Laggard {
    /// Goes on from what was remembered.
    pub fn resumed(memory: &Memory) -> Self {
        Self { suspect: memory.suspect.clone(), told: memory.told.clone() }
    }

    /// Has `memory` take in what it knows.
    pub fn remember(&self, memory: &mut Memory) {
        (memory.suspect, memory.told) = (self.suspect.clone(), self.told.clone());
    }

    /// Takes in the batch that `watermark` was just advanced by, with the partitions that told a time in it.
    pub fn look(
        &mut self,
        watermark: &Watermark,
        silence: &Silence,
        told: &BTreeSet<&Place>,
    ) -> Option<Error> {
        let Some(distance) = distance(watermark, silence) else {
            (self.suspect, self.told) = (None, None);
            return None;
        };
        let is_told = self.told.as_ref() == Some(&distance.holder);
        // A backlog is no clock that is behind, and a partition without records will be idle.
        if is_told || silence.behind.contains(&distance.holder) || !told.contains(&distance.holder) {
            return None;
        }
        let before = self.suspect.take().filter(|(place, _)| *place == distance.holder);
        let batches = before.map_or(0, |(_, batches)| batches) + 1;
        self.suspect = Some((distance.holder.clone(), batches));
        if batches < BATCHES {
            return None;
        }
        self.told = Some(distance.holder.clone());
        Some(distance.error())
    }
}

/// How far the holder is behind the middle one of the others that are waited for; none where that is not far.
fn distance(watermark: &Watermark, silence: &Silence) -> Option<Distance> {
    let holder = watermark.holder()?.clone();
    let at = watermark.largest(&holder)?;
    let others = silence.awake.iter().filter(|place| **place != holder);
    let mut others: Vec<EventTime> = others.filter_map(|place| watermark.largest(place)).collect();
    others.sort_unstable();
    let middle = *others.get(others.len().checked_sub(1)? / 2)?;
    let far = (watermark.delay(&holder)? * DELAYS).max(LEAST);
    (middle.minus(far) > at).then_some(Distance { holder, at, others: middle })
}

impl Distance {
    fn error(&self) -> Error {
        let TopicPartition { topic, partition } = &self.holder.1;
        let seconds = self.others.0.saturating_sub(self.at.0).unsigned_abs() / 1_000_000;
        let message = format!(
            "the watermark waits for topic {:?}, partition {partition}, whose records keep coming with old times: its newest \
             is {}, the others are at {}, {} later; until then no window closes",
            topic.as_str(),
            self.at,
            self.others,
            span(seconds),
        );
        Error::source(message).help(
            "if the clock of whoever writes there is behind, set it right, or have its records written to the partitions of \
             others, beside which they are late alone; ctx.progress.watermark_holder says who is waited for",
        )
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
