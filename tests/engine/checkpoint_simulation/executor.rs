//! One thread, one clock that jumps, and every order of things decided by a seed.
//!
//! It deliberately knows neither replicas nor drivers, but that tasks belong to someone who may be paused, and who may be
//! gone from one moment to the next. What has been sent is on its way, whatever becomes of the sender.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Milliseconds since the world began.
pub(crate) type Moment = u64;

/// Whose tasks: a driver's number.
pub(crate) type Owner = usize;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Act<W> = Box<dyn FnOnce(&mut W, &Sim<W>) + Send>;

/// A handle of the simulation: the clock, what is to come, and the world `W` in which it comes.
pub(crate) struct Sim<W>(Arc<Shared<W>>);

struct Shared<W> {
    agenda: Mutex<Agenda<W>>,
    world: Mutex<W>,
    woken: Arc<Mutex<Vec<usize>>>,
}

struct Agenda<W> {
    now: Moment,
    made: u64,
    due: BinaryHeap<Reverse<Due<W>>>,
    new: Vec<(Owner, Task)>,
    stopped: bool,
}

struct Due<W> {
    at: Moment,
    /// Breaks ties: at first by chance, then by order.
    tie: (u32, u64),
    what: What<W>,
}

enum What<W> {
    Act(Act<W>),
    Ring(Arc<Bell>),
}

impl<W> PartialEq for Due<W> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.tie) == (other.at, other.tie)
    }
}

impl<W> Eq for Due<W> {}

impl<W> PartialOrd for Due<W> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<W> Ord for Due<W> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.tie).cmp(&(other.at, other.tie))
    }
}

impl<W> Clone for Sim<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: Send + 'static> Sim<W> {
    pub(crate) fn new(world: W) -> Self {
        let agenda = Agenda { now: 0, made: 0, due: BinaryHeap::new(), new: Vec::new(), stopped: false };
        Self(Arc::new(Shared { agenda: Mutex::new(agenda), world: Mutex::new(world), woken: Arc::default() }))
    }

    pub(crate) fn world<R>(&self, look: impl FnOnce(&mut W) -> R) -> R {
        look(&mut lock(&self.0.world))
    }

    pub(crate) fn now(&self) -> Moment {
        lock(&self.0.agenda).now
    }

    pub(crate) fn spawn(&self, owner: Owner, task: Task) {
        lock(&self.0.agenda).new.push((owner, task));
    }

    /// Has `act` happen after `delay`.
    pub(crate) fn after(&self, delay: Moment, act: impl FnOnce(&mut W, &Self) + Send + 'static) {
        self.push(delay, 0, What::Act(Box::new(act)));
    }

    /// A future that ends after `delay`. `tie` decides which of several that end at once is first.
    pub(crate) fn sleep(&self, delay: Moment, tie: u32) -> Rung {
        let bell = Arc::new(Bell::default());
        self.push(delay, tie, What::Ring(Arc::clone(&bell)));
        Rung(bell)
    }

    fn push(&self, delay: Moment, tie: u32, what: What<W>) {
        let mut agenda = lock(&self.0.agenda);
        agenda.made += 1;
        let due = Due { at: agenda.now + delay, tie: (tie, agenda.made), what };
        agenda.due.push(Reverse(due));
    }

    /// Nothing happens after this.
    pub(crate) fn stop(&self) {
        lock(&self.0.agenda).stopped = true;
    }
}

/// Rings once.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Relaxed);
        let waiting = lock(&self.waker).take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Ends when the bell rings.
pub(crate) struct Rung(Arc<Bell>);

impl Rung {
    pub(crate) fn by(bell: &Arc<Bell>) -> Self {
        Self(Arc::clone(bell))
    }
}

impl Future for Rung {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.rung.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *lock(&self.0.waker) = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Rung {
    /// Nobody is woken for what nobody waits for any more: most timers are of requests that have long been answered.
    fn drop(&mut self) {
        lock(&self.0.waker).take();
    }
}

struct TaskWaker {
    task: usize,
    queued: AtomicBool,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.woken).push(self.task);
        }
    }
}

struct Running {
    owner: Owner,
    task: Task,
    waker: Arc<TaskWaker>,
}

/// Polls tasks and lets time pass.
pub(crate) struct Executor<W> {
    sim: Sim<W>,
    random: fastrand::Rng,
    tasks: BTreeMap<usize, Running>,
    made: usize,
    ready: Vec<usize>,
    paused: BTreeSet<Owner>,
    held: Vec<usize>,
}

/// What becomes of an owner's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Pause(Owner),
    Resume(Owner),
    Crash(Owner),
}

/// A world that gives orders.
pub(crate) trait Orders {
    fn take_orders(&mut self) -> Vec<Order>;
}

impl<W: Orders + Send + 'static> Executor<W> {
    pub(crate) fn new(sim: Sim<W>, seed: u64) -> Self {
        Self {
            sim,
            random: fastrand::Rng::with_seed(seed),
            tasks: BTreeMap::new(),
            made: 0,
            ready: Vec::new(),
            paused: BTreeSet::new(),
            held: Vec::new(),
        }
    }

    /// Goes on until somebody stops it, or `end` is reached, or nothing is left to do. Says whether it was stopped.
    pub(crate) fn run(&mut self, end: Moment) -> bool {
        loop {
            self.settle();
            let next = {
                let mut agenda = lock(&self.sim.0.agenda);
                if agenda.stopped {
                    return true;
                }
                let Some(Reverse(due)) = agenda.due.pop() else { return false };
                if due.at > end {
                    return false;
                }
                agenda.now = due.at;
                due.what
            };
            match next {
                What::Ring(bell) => bell.ring(),
                What::Act(act) => act(&mut lock(&self.sim.0.world), &self.sim),
            }
            self.obey();
        }
    }

    /// Polls whoever has been woken, in an order that chance decides, until nobody is.
    fn settle(&mut self) {
        loop {
            self.adopt();
            let woken = std::mem::take(&mut *lock(&self.sim.0.woken));
            self.ready.extend(woken);
            if self.ready.is_empty() {
                return;
            }
            let pick = if self.ready.len() == 1 { 0 } else { self.random.usize(0..self.ready.len()) };
            let task = self.ready.swap_remove(pick);
            self.poll(task);
            self.obey();
        }
    }

    fn adopt(&mut self) {
        let new = std::mem::take(&mut lock(&self.sim.0.agenda).new);
        for (owner, task) in new {
            let id = self.made;
            self.made += 1;
            let woken = Arc::clone(&self.sim.0.woken);
            let waker = Arc::new(TaskWaker { task: id, queued: AtomicBool::new(true), woken });
            self.tasks.insert(id, Running { owner, task, waker });
            self.ready.push(id);
        }
    }

    fn poll(&mut self, id: usize) {
        let Some(running) = self.tasks.get_mut(&id) else { return };
        if self.paused.contains(&running.owner) {
            self.held.push(id);
            return;
        }
        running.waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&running.waker));
        let polled = running.task.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            self.tasks.remove(&id);
        }
    }

    fn obey(&mut self) {
        let orders = self.sim.world(W::take_orders);
        for order in orders {
            match order {
                Order::Pause(owner) => drop(self.paused.insert(owner)),
                Order::Resume(owner) => {
                    self.paused.remove(&owner);
                    self.ready.append(&mut self.held); // those of others are held again
                }
                Order::Crash(owner) => {
                    self.paused.remove(&owner);
                    let gone: Vec<usize> = self
                        .tasks
                        .iter()
                        .filter(|(_, task)| task.owner == owner)
                        .map(|(id, _)| *id)
                        .collect();
                    for id in gone {
                        drop(self.tasks.remove(&id));
                    }
                }
            }
        }
    }
}
