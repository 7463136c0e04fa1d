//! How long the parts of a batch took, from the moments at which they began and ended.
//!
//! It measures by a time that never goes back, and reads no clock itself.

use std::time::Duration;

use crate::event::Progress;

/// The moments of one batch, on a clock that never goes back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    planned: Duration,
    mapping: Duration,
    mapped: Duration,
    reducing: Duration,
    reduced: Duration,
    delivering: Duration,
    delivered: Duration,
}

impl Timing {
    /// A batch planned at `at`.
    pub(crate) fn planned(at: Duration) -> Self {
        Self { planned: at, ..Self::default() }
    }

    /// Its map begins.
    pub(crate) fn mapping(&mut self, at: Duration) {
        self.mapping = at;
    }

    /// Its map has ended.
    pub(crate) fn mapped(&mut self, at: Duration) {
        self.mapped = at;
    }

    /// Its reduce begins.
    pub(crate) fn reducing(&mut self, at: Duration) {
        self.reducing = at;
    }

    /// Its reduce has ended.
    pub(crate) fn reduced(&mut self, at: Duration) {
        self.reduced = at;
    }

    /// Its delivery begins.
    pub(crate) fn delivering(&mut self, at: Duration) {
        self.delivering = at;
    }

    /// Its delivery has ended.
    pub(crate) fn delivered(&mut self, at: Duration) {
        self.delivered = at;
    }

    /// Writes the figures of a batch that is done at `now` and spans `span` of batch time.
    pub(crate) fn write(&self, progress: &mut Progress, now: Duration, span: Duration) {
        progress.scheduling_delay = self.mapping.saturating_sub(self.planned);
        progress.map_time = self.mapped.saturating_sub(self.mapping);
        progress.reduce_time = self.reduced.saturating_sub(self.reducing);
        progress.deliver_time = self.delivered.saturating_sub(self.delivering);
        progress.total_delay = now.saturating_sub(self.planned);
        progress.input_rate = rate(progress.counts.records, span);
        progress.processing_rate = rate(progress.counts.records, now.saturating_sub(self.mapping));
    }
}

/// Records a second; zero where no time has passed, rather than infinite.
fn rate(records: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { records as f64 / span.as_secs_f64() }
}
