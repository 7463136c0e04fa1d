//! What the log's own work runs on: a runtime with one thread, for as long as its stream.
//!
//! It deliberately is ended by its owner, and never by the work on it: a runtime that is dropped by a task of its own
//! would wait for itself.

use std::fmt;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot::{Sender, channel};

use crate::error::{Error, Result};

/// A runtime of one thread, which ends when this is dropped.
pub struct LogRuntime {
    handle: Handle,
    end: Option<Sender<()>>, // nothing is ever sent: it is heard that this is gone
    thread: Option<JoinHandle<()>>,
}

impl LogRuntime {
    /// Starts the thread.
    pub fn start() -> Result<Self> {
        let refused =
            |cause| Error::internal("the thread of the checkpoint cannot be started").caused_by(cause);
        let runtime = Builder::new_current_thread().enable_time().build().map_err(refused)?;
        let handle = runtime.handle().clone();
        let (end, ended) = channel();
        let work = move || drop(runtime.block_on(ended));
        let thread = std::thread::Builder::new().name("tidemill-replicas".to_owned()).spawn(work);
        Ok(Self { handle, end: Some(end), thread: Some(thread.map_err(refused)?) })
    }

    /// By which work is given to it, and waited for from other threads.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for LogRuntime {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join()); // what it runs is the log's, which answers for its panics itself
        }
    }
}

impl fmt::Debug for LogRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogRuntime")
    }
}
