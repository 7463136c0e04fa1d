//! What the Rust benchmarks share: taking the time of both sides, and the line of JSON that each figure is.
//!
//! It deliberately judges nothing: what a figure is to reach stands in its line, for a reader of the table. Processor
//! time is what Linux counts, in hundredths of a second, so it is averaged over the rounds; peak memory is the whole
//! process's so far, with the other side's.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at a mistake, and prints")]

use serde_json::{Value, json};
use tidemill::time::{Clock, SystemClock};

/// What the rounds of one side took.
#[derive(Default)]
pub(crate) struct Rounds {
    pub(crate) seconds: Vec<f64>,
    pub(crate) cpu_seconds: f64,
}

impl Rounds {
    /// Does `work` and adds what it took.
    pub(crate) fn measure<T>(&mut self, clock: &SystemClock, work: impl FnOnce() -> T) -> T {
        let (start, cpu) = (clock.elapsed(), cpu_seconds());
        let done = work();
        self.cpu_seconds += cpu_seconds() - cpu;
        self.seconds.push(clock.elapsed().saturating_sub(start).as_secs_f64());
        done
    }

    /// Seconds of the median round.
    fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().unwrap()
    }

    /// Processor seconds of the mean round.
    fn cpu(&self) -> f64 {
        self.cpu_seconds / self.seconds.len() as f64
    }
}

/// One row of the table.
pub(crate) struct Figure<'a> {
    pub(crate) name: &'a str,
    pub(crate) unit: &'a str,
    /// What the seconds of the median round are in that unit.
    pub(crate) value: &'a dyn Fn(f64) -> f64,
    pub(crate) ours: &'a Rounds,
    /// The side compared with, and what it is.
    pub(crate) theirs: Option<(&'a Rounds, &'a str)>,
    /// What is to be reached; empty where nothing is.
    pub(crate) reach: &'a str,
    /// What else there is to say: an object.
    pub(crate) details: Value,
}

impl Figure<'_> {
    /// Prints the line.
    pub(crate) fn print(self) {
        let ours = (self.value)(self.ours.median());
        let theirs = self.theirs.map(|(rounds, _)| (self.value)(rounds.median()));
        let mut line = json!({
            "figure": self.name,
            "unit": self.unit,
            "ours": ours,
            "theirs": theirs,
            "against": self.theirs.map_or("", |(_, what)| what),
            "reach": self.reach,
            "ratio": theirs.map(|theirs| ours / theirs),
            "cpu_s": self.ours.cpu(),
            "peak_mib": peak_mib(),
        });
        if let (Value::Object(line), Value::Object(details)) = (&mut line, self.details) {
            line.extend(details);
        }
        println!("{line}");
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    peak.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1_024.0
}
