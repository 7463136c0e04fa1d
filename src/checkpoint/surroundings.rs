//! What the protocol needs of the world besides replicas: time, chance, tasks, and who else runs on this machine.
//!
//! It deliberately names no runtime. The protocol is written once, over this trait and [`Replica`](super::replica::Replica),
//! so that the code that runs in production is the code that a seeded simulation drives through its schedules. No safety
//! rests on any answer given here: a clock that jumps or a timer that is late costs time, and nothing else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Work that goes on beside its maker.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Time, chance and tasks.
pub trait Surroundings: Send + Sync + fmt::Debug {
    /// Ends once `time` has passed.
    fn sleep(&self, time: Duration) -> Task;

    /// Runs `task` to its end, beside the caller. It ends by itself soon after the log that it works for is dropped.
    fn spawn(&self, task: Task);

    /// A random number, from a source that no two drivers share: drivers and incarnations are named by it.
    fn random(&self) -> u64;

    /// Whether the process is surely gone: it ran on this machine since its last boot, and runs no more.
    fn is_gone(&self, whereabouts: &Whereabouts) -> bool;
}

/// Where a driver runs, as its claim tells others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The machine's name.
    pub host: String,
    /// What the machine's system calls the time since it was started.
    pub boot: String,
    /// The process.
    pub pid: u32,
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// Sixteen random bytes.
pub(super) fn random_bytes(surroundings: &dyn Surroundings) -> [u8; 16] {
    let halves = (u128::from(surroundings.random()) << 64) | u128::from(surroundings.random());
    halves.to_be_bytes()
}

/// Longer and longer waits between attempts at the same thing, never the same for two drivers.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackOff {
    attempts: u32,
    first: Duration,
    most: Duration,
}

impl BackOff {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self { attempts: 0, first, most }
    }

    /// Begins anew: the last attempt succeeded.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Waits before the next attempt: half of the wait is chance.
    pub(super) async fn wait(&mut self, surroundings: &dyn Surroundings) {
        let whole = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.most);
        self.attempts += 1;
        let half = whole / 2;
        let share = (surroundings.random() % 1_024) as f64 / 1_024.0;
        surroundings.sleep(half + half.mul_f64(share)).await;
    }
}
