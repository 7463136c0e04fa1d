//! The driver's machine in a seeded world where every command may end late, out of order, or in failure.
//!
//! `TIDEMILL_SEEDS=100000 cargo test --test engine driver_simulation` runs more; a failing seed is printed with
//! the end of its trace.

mod checker;
mod sabotage;
mod world;

use sabotage::{ALL, Sabotaged};
use world::run;

const SEEDS: u64 = 2_000;

/// What traces must show now and then, or the world is too kind.
const WORDS: [&str; 10] = [
    "Completed",
    "CancelMap",
    "CancelAll",
    "the sink gave up",
    "the opening gave up",
    "Failed(",
    "DataLoss",
    "Finish(None)",
    "Finish(Some",
    "Warning",
];

fn seeds() -> u64 {
    std::env::var("TIDEMILL_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("TIDEMILL_SEEDS is a number"))
}

#[test]
fn batches_complete_once_and_in_order_whatever_happens() {
    for seed in 0..seeds() {
        if let Err(violation) = run(seed, |machine| Box::new(machine)) {
            panic!("seed {seed}: {}", violation.0);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        let trace = || run(seed, |machine| Box::new(machine)).expect("this seed holds");
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

#[test]
fn the_world_sees_every_kind_of_end() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..SEEDS {
        let trace = run(seed, |machine| Box::new(machine)).expect("this seed holds");
        for word in WORDS {
            let found = trace.iter().any(|line| line.contains(word));
            *seen.entry(word).or_insert(0) += u32::from(found);
        }
    }
    assert!(seen.values().all(|count| *count >= 3), "{seen:?}");
}

#[test]
fn every_sabotaged_driver_is_caught() {
    for how in ALL {
        let caught =
            (0..300).find(|seed| run(*seed, |machine| Box::new(Sabotaged { machine, how })).is_err());
        assert!(caught.is_some(), "{how:?} passes as right");
    }
}
