//! One run: what goes wrong when, and the last driver, which must come to its end when nothing goes wrong any more.
//!
//! It deliberately draws no mishap before its time has come, since what can go wrong depends on what there is.

use std::collections::BTreeMap;

use tidemill::checkpoint::settings::Standby;

use super::checker::Violation;
use super::executor::{Executor, Moment, Sim};
use super::sabotage::Sabotage;
use super::scripts::Script;
use super::world::World;

/// How long the last driver may take once nothing goes wrong any more.
const TO_END: Moment = 60_000;

/// How long after the last line of a script nothing goes wrong any more.
const AFTERMATH: Moment = 2_000;

/// What a run is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) replicas: usize,
    pub(crate) sabotage: Option<Sabotage>,
    /// What goes wrong, and when; drawn from the seed where none is given.
    pub(crate) script: Option<Script>,
}

/// What became of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    /// Words for what happened, for the count of how rich the schedules are.
    pub(crate) seen: BTreeMap<&'static str, u64>,
    pub(crate) trace: Vec<String>,
}

/// Runs one seed to its end.
pub(crate) fn run(plan: Plan) -> Outcome {
    play(plan, false)
}

/// The same with a trace.
pub(crate) fn replay(plan: Plan) -> Outcome {
    play(plan, true)
}

fn play(plan: Plan, traced: bool) -> Outcome {
    let world = World::new(plan, traced);
    let sim = Sim::new(world);
    let quiet = schedule(&sim, plan.script);
    let mut executor = Executor::new(sim.clone(), plan.seed ^ 0x5eed);
    executor.run(quiet + TO_END);
    drop(executor);
    sim.world(World::judge)
}

/// Draws up when something goes wrong; tells when it is over.
fn schedule(sim: &Sim<World>, script: Option<Script>) -> Moment {
    sim.after(0, |world, sim| {
        world.start(sim, Standby::Depose, None);
    });
    let quiet = match script {
        Some(script) => follow(sim, script),
        None => draw(sim),
    };
    sim.after(quiet, |world, sim| {
        world.now = sim.now();
        world.heal();
        start_last(world, sim);
    });
    watch(sim);
    quiet
}

fn draw(sim: &Sim<World>) -> Moment {
    let (mishaps, quiet) = sim.world(|world| {
        let quiet = world.random.u64(300..2_500);
        let mishaps: Vec<Moment> =
            (0..world.random.usize(2..24)).map(|_| world.random.u64(0..quiet)).collect();
        (mishaps, quiet)
    });
    for at in mishaps {
        sim.after(at, |world, sim| {
            world.now = sim.now();
            if let Some(mishap) = world.draw() {
                world.befall(sim, mishap);
            }
        });
    }
    quiet
}

fn follow(sim: &Sim<World>, script: Script) -> Moment {
    for (at, mishap) in script {
        sim.after(*at, |world, sim| {
            world.now = sim.now();
            world.befall(sim, *mishap);
        });
    }
    script.last().map_or(0, |(at, _)| at + AFTERMATH)
}

fn start_last(world: &mut World, sim: &Sim<World>) {
    world.last = Some(world.start(sim, Standby::Depose, Some(3)));
}

/// Ends the run when there is nothing more to see.
fn watch(sim: &Sim<World>) {
    sim.after(50, |world, sim| {
        world.now = sim.now();
        if world.finished || world.checker.violation.is_some() {
            sim.stop();
            return;
        }
        if std::mem::take(&mut world.deposed) {
            start_last(world, sim);
        }
        watch(sim);
    });
}
