//! Carries events to the listeners, each on its own thread, so that a slow one never holds a batch.
//!
//! It deliberately does not wait: a listener that falls behind misses the oldest of what it has not heard, and is
//! told how much.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::driver::Listener;
use crate::driver::workers::{Threads, guarded};
use crate::error::Result;
use crate::event::Event;

/// So many events wait for a listener: minutes of batches, and a few megabytes at most.
const WAITING: usize = 1_024;

/// The listeners of one stream; they hear nothing more once nobody is left who could tell them.
pub(crate) struct Listeners {
    queues: Vec<Arc<Queue>>,
}

impl Listeners {
    /// Starts a thread for each listener.
    pub(crate) fn start(listeners: Vec<Listener>, threads: &mut Threads) -> Result<Self> {
        let mut queues = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let queue = Arc::new(Queue::default());
            queues.push(Arc::clone(&queue));
            threads.spawn("tidemill-events", move || hear(listener, &queue))?;
            threads.calls_listener();
        }
        Ok(Self { queues })
    }

    /// Tells all of them; returns at once.
    pub(crate) fn tell(&self, event: &Event) {
        for queue in &self.queues {
            queue.push(event.clone());
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.close();
        }
    }
}

/// A listener that panics hears no more; the stream is not its hostage.
fn hear(mut listener: Listener, queue: &Queue) {
    while let Some(event) = queue.pop() {
        let heard = guarded(|| {
            listener(&event);
            Ok(())
        });
        if let Err(error) = heard {
            log::error!("a listener failed and will not be called again: {error}");
            return;
        }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>, // filled by the driver's loop, emptied by the listener's thread; held for a push or a pop
    filled: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    missed: u64,
    closed: bool,
}

impl Queue {
    fn push(&self, event: Event) {
        self.lock().push(event);
        self.filled.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// The next event; none once the stream has ended and everything has been heard.
    fn pop(&self) -> Option<Event> {
        let waits = |state: &mut State| state.events.is_empty() && state.missed == 0 && !state.closed;
        let state = self.filled.wait_while(self.lock(), waits);
        state.unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, event: Event) {
        if self.events.len() >= WAITING
            && let Some(oldest) = self.events.iter().position(may_be_missed)
        {
            self.events.remove(oldest);
            self.missed += 1;
        }
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.missed) {
            0 => self.events.pop_front(),
            missed => Some(Event::Missed(missed)),
        }
    }
}

/// Beginning, failure and end come once each and are always heard.
fn may_be_missed(event: &Event) -> bool {
    use Event::{BatchStarted, Completed, OutputCompleted, OutputStarted, Planned, SourceFailed, Warning};
    matches!(
        event,
        Planned { .. }
            | BatchStarted { .. }
            | OutputStarted(_)
            | OutputCompleted(..)
            | Completed(_)
            | SourceFailed(..)
            | Warning(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::time::BatchId;

    #[test]
    fn a_slow_listener_misses_the_oldest_and_is_told_how_many() {
        let queue = Queue::default();
        queue.push(Event::Started(BatchId(0)));
        for n in 0..WAITING + 9 {
            queue.push(Event::Warning(Error::source(n.to_string())));
        }
        queue.push(Event::Stopped);
        queue.close();
        let heard: Vec<Event> = std::iter::from_fn(|| queue.pop()).collect();
        assert!(matches!(heard.first(), Some(Event::Missed(11))), "{:?}", heard.first());
        assert!(matches!(heard.get(1), Some(Event::Started(_))));
        assert!(matches!(heard.get(2), Some(Event::Warning(error)) if error.message() == "11"));
        assert!(matches!(heard.last(), Some(Event::Stopped)));
        assert_eq!(heard.len(), WAITING + 1);
    }
}
