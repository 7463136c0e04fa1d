//! The replicated log under seeded schedules: three drivers at once, and everything that may go wrong with them.
//!
//! `TIDEMILL_SEEDS=1000000 cargo test --test engine checkpoint_simulation` runs more, `TIDEMILL_FIRST_SEED=500000` others, and
//! `TIDEMILL_SEED=17` that one alone. Seeds that fail are named, the first with the end of its trace.

mod checker;
mod disk;
mod driver;
mod executor;
mod mishap;
mod network;
mod sabotage;
mod schedule;
mod scripts;
mod sink;
mod surroundings;
mod world;

use sabotage::{ALL, Hunt};
use schedule::{Plan, replay, run};
use scripts::HARD;

/// How many schedules the suite runs, over all numbers of replicas.
const SEEDS: u64 = 20_000;

/// How many of the schedules that fail are named.
const SHOWN: usize = 40;

/// In so many schedules all of these are seen, where there is more than one replica: what never happens is not tested.
const MANY: usize = 1_000;
const SEEN: [&str; 12] = [
    "a chunk that is removed",
    "a crash",
    "a disk that is emptied",
    "a driver that is fenced",
    "a driver that stops",
    "a pause",
    "a repair",
    "a slot that is removed",
    "an object that is damaged",
    "disks that are exchanged",
    "report: paused",
    "report: readmitted",
];

/// With so many seeds each script is run.
const TIMES: u64 = 100;

/// In so many schedules each sabotage must do harm; most do in the first few.
const HUNTED: u64 = 10_000;

const REPLICAS: [usize; 3] = [1, 3, 5];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a seed is a number"))
}

/// The seeds to run with so many replicas.
fn seeds() -> std::ops::Range<u64> {
    if let Some(seed) = number("TIDEMILL_SEED") {
        return seed..seed + 1;
    }
    let first = number("TIDEMILL_FIRST_SEED").unwrap_or(0);
    first..first + number("TIDEMILL_SEEDS").unwrap_or(SEEDS) / REPLICAS.len() as u64
}

fn hold(replicas: usize) {
    let mut seen = std::collections::BTreeMap::new();
    let mut broken = Vec::new();
    for seed in seeds() {
        let outcome = run(Plan { seed, replicas, sabotage: None, script: None });
        for (word, count) in outcome.seen {
            *seen.entry(word).or_insert(0) += count;
        }
        broken.extend(outcome.violation.map(|violation| (seed, violation.what)));
    }
    if replicas > 1 && seeds().count() >= MANY {
        let unseen: Vec<&str> = SEEN.into_iter().filter(|word| !seen.contains_key(word)).collect();
        assert!(unseen.is_empty(), "no schedule has {unseen:?}");
    }
    if let Some((seed, _)) = broken.first() {
        let trace = replay(Plan { seed: *seed, replicas, sabotage: None, script: None }).trace.join("\n");
        let shown: Vec<String> =
            broken.iter().take(SHOWN).map(|(seed, what)| format!("seed {seed}: {what:.200}")).collect();
        panic!("{replicas} replicas, {} schedules broken\n{trace}\n{}", broken.len(), shown.join("\n"));
    }
}

#[test]
fn one_replica_holds() {
    hold(1);
}

#[test]
fn three_replicas_hold() {
    hold(3);
}

#[test]
fn five_replicas_hold() {
    hold(5);
}

#[test]
fn scripts_hold() {
    for (number, script) in HARD.into_iter().enumerate() {
        for seed in 0..TIMES {
            let plan = Plan { seed, replicas: 3, sabotage: None, script: Some(script) };
            let violation = run(plan).violation;
            assert!(
                violation.is_none(),
                "script {number}, seed {seed}: {violation:?}\n{}",
                replay(plan).trace.join("\n")
            );
        }
    }
}

#[test]
fn every_sabotaged_log_is_caught() {
    for how in ALL {
        let Hunt { replicas, harm, script } = how.hunt();
        let plan = |seed, sabotage| Plan { seed, replicas, sabotage, script };
        let is_caught = |seed: &u64| {
            let violation = run(plan(*seed, Some(how))).violation;
            violation.is_some_and(|violation| violation.fault == harm)
        };
        let caught = (0..HUNTED).find(is_caught);
        let Some(seed) = caught else { panic!("{how:?} does no harm in {HUNTED} schedules") };
        println!("{how:?} is caught with seed {seed}");
        let sound = run(plan(seed, None)).violation;
        assert!(sound.is_none(), "seed {seed} breaks the log without {how:?} too: {sound:?}");
    }
}
