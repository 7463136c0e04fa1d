//! The loop: tells the machine what happened, performs what it answers, and sleeps until something happens.
//!
//! It deliberately decides nothing. It wakes by answers, by the bell (sources, a clock moved by hand, a stop) and
//! by the time that the machine asked for, never by a fixed sleep.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::cancel::Cancel;
use crate::driver::durable::runtime::LogRuntime;
use crate::driver::durable::{DurableJob, Resumed};
use crate::driver::listeners::Listeners;
use crate::driver::log::{Entry, Log};
use crate::driver::machine::{Command, EmptyBatches, Input, Machine, Moment, Settings, SourceSettings};
use crate::driver::running::{Bell, Running, Shared, Woken};
use crate::driver::watermark::EventTimeRule;
use crate::driver::workers::{
    Answer, Ask, Keeping, SinkWork, Threads, Workers, guarded, hand, source_place, spawn,
};
use crate::driver::{Job, JobSource, Stop};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::exec::{Engine, MapTask, Mapped, Reduced};
use crate::time::{BatchId, BatchTime, Clock, Waker};

/// Starts the threads of a stream, and its loop last.
pub(crate) fn start(job: Job, log: Box<dyn Log>) -> Result<Running> {
    let keeping = Keeping { log, keeper: None, publisher: None, cancel: Cancel::default() };
    // The ticks count from this call and not from when the loop gets to run: a clock moved by hand right after it
    // has moved past the start.
    let machine = Machine::new(settings(&job), job.clock.now());
    start_with(job, keeping, machine, None)
}

/// The same, going on from a checkpoint.
pub(crate) fn start_durable(durable: DurableJob) -> Result<Running> {
    let DurableJob { job, resumed: Resumed { keeper, publisher, memory }, cancel, runtime } = durable;
    let (settings, now) = (settings(&job), job.clock.now());
    let machine = match &memory {
        Some(memory) => Machine::resumed(settings, now, memory),
        None => Machine::new(settings, now),
    };
    let log = Box::new(Arc::clone(&keeper));
    let keeping = Keeping { log, keeper: Some(keeper), publisher: Some(publisher), cancel };
    start_with(job, keeping, machine.remembering(), Some(runtime))
}

fn start_with(
    mut job: Job,
    keeping: Keeping,
    machine: Machine,
    runtime: Option<LogRuntime>,
) -> Result<Running> {
    check(&job)?;
    let durable = keeping.keeper.is_some();
    let bell = Bell::new();
    let shared = Arc::new(Shared::new(Arc::clone(&bell)));
    let mut threads = Threads::default();
    let listeners = Arc::new(Listeners::start(std::mem::take(&mut job.listeners), &mut threads)?);
    let workers = Workers::start(&mut job, keeping, &mut threads, &bell, &listeners)?;
    shared.lock().threads = threads.ids();
    subscribe(&job, &bell);
    let sources = job.sources.iter().map(|source| source.source.name().to_owned()).collect();
    let Job { engine, clock, .. } = job;
    let (mapped, reduced) = (HashMap::new(), HashMap::new());
    let published = Arc::clone(&shared);
    let run = Loop {
        machine,
        workers,
        listeners,
        sources,
        engine,
        clock,
        shared: published,
        mapped,
        reduced,
        durable,
        tasks: HashMap::new(),
        timer: None,
        told: Vec::new(),
    };
    let published = Arc::clone(&shared);
    let thread = spawn("tidemill-driver", move || published.end(to_the_end(run, threads, runtime)))?;
    Ok(Running::new(shared, thread))
}

fn check(job: &Job) -> Result<()> {
    if job.sources.is_empty() {
        let message = format!("expected at least one source in job {}, found none", job.name);
        return Err(Error::config(message).help("add one, say with ctx.kafka(...)"));
    }
    Ok(())
}

fn settings(job: &Job) -> Settings {
    let always = job.sinks.iter().any(|sink| sink.sink.wants_empty());
    Settings {
        sources: job.sources.iter().map(source_settings).collect(),
        trigger: job.trigger,
        limits: job.limits,
        empty: if always { EmptyBatches::Always } else { EmptyBatches::WhenDue },
        at_end: job.at_end,
    }
}

fn source_settings(source: &JobSource) -> SourceSettings {
    let rule = |delay| EventTimeRule { delay, idle_timeout: source.idle_timeout };
    SourceSettings {
        name: source.source.name().to_owned(),
        starting: source.starting.clone(),
        ending: source.ending.clone(),
        event_time: source.watermark.map(rule),
        max_rate: source.max_rate_per_partition,
        on_loss: source.source.on_loss(),
    }
}

/// Sources and clocks outlive the stream and keep their wakers: these hold nothing of it, and do nothing once it
/// has ended.
fn subscribe(job: &Job, bell: &Arc<Bell>) {
    let waker = |ring: fn(&Bell)| -> Waker {
        let bell: Weak<Bell> = Arc::downgrade(bell);
        Arc::new(move || {
            if let Some(bell) = bell.upgrade() {
                ring(&bell);
            }
        })
    };
    job.clock.subscribe(waker(|bell| bell.ring(Bell::CLOCK)));
    for source in &job.sources {
        source.source.subscribe(waker(Bell::ring_for_records));
    }
}

/// Runs the loop; then lets go of everything that feeds a thread, and waits for the threads, whatever happened.
fn to_the_end(mut run: Loop, threads: Threads, runtime: Option<LogRuntime>) -> Result<()> {
    let outcome = guarded(|| run.run());
    if outcome.is_err() {
        run.cancel_all(); // after a defect in the loop itself some may still be at work
    }
    drop(run);
    threads.join();
    drop(runtime); // nobody waits for the log any more
    outcome
}

struct Loop {
    machine: Machine,
    workers: Workers,
    listeners: Arc<Listeners>,
    sources: Vec<String>,
    engine: Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    mapped: HashMap<BatchId, Mapped>, // rows between two commands: at most two batches
    reduced: HashMap<BatchId, Reduced>,
    /// Whether what batches come to is made safe before they are delivered, by who delivers them.
    durable: bool,
    tasks: HashMap<BatchId, Arc<MapTask>>, // reduced and not prepared yet
    timer: Option<BatchTime>,
    told: Vec<Input>, // by commands that were answered where they were performed
}

/// Whether the loop goes on.
enum Next {
    More,
    End(Option<Error>),
}

impl Loop {
    fn run(&mut self) -> Result<()> {
        let mut inputs = vec![Input::Start];
        loop {
            for input in inputs {
                if let Next::End(error) = self.feed(input)? {
                    return error.map_or(Ok(()), Err);
                }
            }
            inputs = self.sleep();
        }
    }

    fn feed(&mut self, input: Input) -> Result<Next> {
        // The time of day first: kept from running in between, the two look as if the clock had been set back, and at the
        // next look as if it had been set right. The other way round it would never be set right.
        let now = self.clock.now();
        let moment = Moment { now, elapsed: self.clock.elapsed() };
        for command in self.machine.handle(moment, input) {
            if let Command::Finish(error) = command {
                return Ok(Next::End(error));
            }
            self.perform(command)?;
        }
        Ok(Next::More)
    }

    /// Waits until something happens.
    fn sleep(&mut self) -> Vec<Input> {
        if !self.told.is_empty() {
            return std::mem::take(&mut self.told);
        }
        loop {
            let heard = self.heard();
            if !heard.is_empty() {
                return heard;
            }
            if let Ok(answer) = self.workers.answers.try_recv() {
                return vec![self.keep(answer)];
            }
            let wait = self.timer.and_then(|time| self.clock.sleep_until(time));
            if self.shared.bell.wait(wait) == Woken::TimedOut {
                self.timer = None; // it was asked for once: a time that is past would have this turn round until the next
                return vec![Input::Due];
            }
        }
    }

    fn heard(&self) -> Vec<Input> {
        let reasons = self.shared.bell.reasons();
        let inputs = [
            (Bell::GRACEFUL, Input::Stop(Stop::Graceful)),
            (Bell::NOW, Input::Stop(Stop::Now)),
            (Bell::SOURCE, Input::Woken),
            (Bell::CLOCK, Input::Due),
        ];
        inputs.into_iter().filter(|(reason, _)| reasons & reason != 0).map(|(_, input)| input).collect()
    }

    /// Keeps the rows of an answer, and tells the machine the rest.
    fn keep(&mut self, answer: Answer) -> Input {
        match answer {
            Answer::Input(input) => input,
            Answer::Mapped(batch, mut mapped) => {
                self.warn(mapped.warnings.drain(..));
                let input =
                    Input::Mapped { batch, partitions: mapped.partitions.clone(), counts: mapped.counts };
                self.mapped.insert(batch, mapped);
                input
            }
            Answer::Reduced(batch, mut reduced) => {
                self.warn(reduced.warnings.drain(..));
                let input = Input::Reduced { batch, state: reduced.state, counts: reduced.counts };
                self.reduced.insert(batch, reduced);
                input
            }
        }
    }

    fn perform(&mut self, command: Command) -> Result<()> {
        let workers = &self.workers;
        match command {
            Command::OpenSinks => hand(&workers.sinks, SinkWork::Open),
            Command::CloseSinks => hand(&workers.sinks, SinkWork::Close),
            Command::Resolve(questions) => hand(&workers.ask, Ask::Bounds(questions)),
            Command::AskHeads => {
                self.shared.bell.asks();
                hand(&workers.ask, Ask::Heads)
            }
            Command::Record(Entry::Prepare { batch, .. }) if self.durable => self.prepare(batch),
            Command::Record(Entry::Commit { batch }) if self.durable => {
                hand(&workers.sinks, SinkWork::Commit(batch))
            }
            Command::Record(entry) => {
                self.told.extend(self.workers.log.record(entry)?);
                Ok(())
            }
            Command::Map(task) => {
                self.listeners.tell(&Event::BatchStarted { batch: task.batch, at: self.clock.now() });
                hand(&workers.map, task)
            }
            Command::Reduce(task, watermark) => {
                let mapped = taken(&mut self.mapped, task.batch)?;
                if self.durable {
                    self.tasks.insert(task.batch, Arc::clone(&task));
                }
                hand(&workers.reduce, (task, mapped, watermark))
            }
            Command::Deliver(task) if self.durable => hand(&workers.sinks, SinkWork::Publish(task.batch)),
            Command::Deliver(task) => {
                let reduced = taken(&mut self.reduced, task.batch)?;
                hand(&workers.sinks, SinkWork::Deliver(task, reduced))
            }
            Command::Acknowledge(positions) => hand(&workers.acknowledge, positions),
            Command::WakeAt(time) => {
                self.timer = time;
                Ok(())
            }
            Command::Emit(event) => {
                self.emit(&event);
                Ok(())
            }
            Command::CancelMap => {
                self.engine.cancel();
                Ok(())
            }
            Command::CancelAll => {
                self.cancel_all();
                Ok(())
            }
            Command::Discard(batch) => {
                self.mapped.remove(&batch);
                self.reduced.remove(&batch);
                self.tasks.remove(&batch);
                Ok(())
            }
            Command::Finish(_) => Ok(()),
        }
    }

    /// Hands what a batch comes to, and what is remembered as of it, to who makes that safe and delivers it.
    fn prepare(&mut self, batch: BatchId) -> Result<()> {
        let lost = || Error::internal(format!("nothing is remembered as of batch {batch}"));
        let memory = Box::new(self.machine.memory(batch).ok_or_else(lost)?);
        let (task, reduced) = (taken(&mut self.tasks, batch)?, taken(&mut self.reduced, batch)?);
        hand(&self.workers.sinks, SinkWork::Prepare(task, reduced, memory))
    }

    fn cancel_all(&self) {
        // The sinks first: whoever sees the engine cancelled may count on no further delivery.
        self.workers.cancel.cancel();
        self.engine.cancel();
    }

    /// Tells what the engine warns of: it is about records, and nothing that the machine decides by.
    fn warn(&self, warnings: impl Iterator<Item = Error>) {
        warnings.for_each(|warning| self.emit(&Event::Warning(warning)));
    }

    /// What it tells is there to be looked at before a listener hears of it.
    fn emit(&self, event: &Event) {
        self.publish(event);
        let mut events = self.of_sources(event);
        let place = if matches!(event, Event::Started(_)) { 0 } else { events.len() };
        events.insert(place, event.clone());
        for event in &events {
            self.listeners.tell(event);
        }
    }

    /// What an event says of single sources: of a start they follow it, else they come before it.
    fn of_sources(&self, event: &Event) -> Vec<Event> {
        let sources = self.sources.iter().cloned();
        match event {
            Event::Started(_) => sources.map(Event::SourceStarted).collect(),
            Event::Warning(error) | Event::Failed(error) => {
                let failed = sources.filter(|name| error.places().contains(&source_place(name)));
                failed.map(|name| Event::SourceFailed(name, error.clone())).collect()
            }
            Event::Stopped => sources.map(Event::SourceStopped).collect(),
            _ => Vec::new(),
        }
    }

    fn publish(&self, event: &Event) {
        match event {
            Event::Completed(progress) => {
                log::debug!("{progress}");
                self.shared.lock().progress = Some(Arc::clone(progress));
            }
            Event::Warning(error) => log::warn!("{error}"),
            Event::Failed(error) => self.shared.lock().error = Some(error.clone()),
            Event::Stopped => {
                let open = self.shared.lock().progress.as_ref().map_or(0, |last| last.open_windows);
                if !self.durable {
                    tell_of(open); // else the next start goes on with them
                }
            }
            Event::Started(_) => self.shared.begin(),
            _ => {}
        }
    }
}

/// A user who misses results finds here why.
fn tell_of(open_windows: u64) {
    if open_windows > 0 {
        log::warn!(
            "the stream has ended with {open_windows} windows still open: their results were not emitted; a stream that \
             goes on from the offsets committed to its group lacks the rows that were in them: let it start from before \
             them"
        );
    }
}

/// The rows that a command needs; the machine asks for them once, after they came.
fn taken<T>(held: &mut HashMap<BatchId, T>, batch: BatchId) -> Result<T> {
    let missing = || Error::internal(format!("expected to hold the rows of batch {batch}, found none"));
    held.remove(&batch).ok_or_else(missing)
}
