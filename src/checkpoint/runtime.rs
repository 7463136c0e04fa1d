//! The surroundings of production: the machine's time and chance, and a tokio runtime's tasks.
//!
//! It deliberately is all that the log has of tokio; tests have surroundings of their own.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::checkpoint::surroundings::{Surroundings, Task, Whereabouts};

/// A tokio runtime, and the machine that it runs on.
#[derive(Clone, Debug)]
pub struct Runtime {
    handle: Handle,
}

impl Runtime {
    /// Tasks run on the runtime of `handle`, which needs its timers enabled.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

impl Surroundings for Runtime {
    fn sleep(&self, time: Duration) -> Task {
        let _inside = self.handle.enter(); // whoever polls it may be outside
        Box::pin(tokio::time::sleep(time))
    }

    fn spawn(&self, task: Task) {
        drop(self.handle.spawn(task)); // it ends by itself
    }

    fn random(&self) -> u64 {
        // Keyed by the system's own randomness, and differently each time.
        RandomState::new().build_hasher().finish()
    }

    fn is_gone(&self, whereabouts: &Whereabouts) -> bool {
        let here = here();
        if whereabouts.host != here.host || here.host.is_empty() || here.boot.is_empty() {
            return false;
        }
        whereabouts.boot != here.boot || !fs::exists(format!("/proc/{}", whereabouts.pid)).unwrap_or(true)
    }
}

/// Where this process runs. On systems that do not tell, host and boot are empty, and nobody is ever taken for gone.
pub fn here() -> Whereabouts {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    Whereabouts {
        host: read("/proc/sys/kernel/hostname"),
        boot: read("/proc/sys/kernel/random/boot_id"),
        pid: std::process::id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_is_not_gone_and_one_elsewhere_may_run() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let surroundings = Runtime::new(runtime.handle().clone());
        assert!(!surroundings.is_gone(&here()));
        let elsewhere = Whereabouts { host: "another".into(), ..here() };
        assert!(!surroundings.is_gone(&elsewhere));
        assert_ne!(surroundings.random(), surroundings.random());
    }
}
