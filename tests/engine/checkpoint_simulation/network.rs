//! Requests and answers that are late, lost, or done twice.
//!
//! It deliberately does not know what is asked for. A request is on its way from the moment it is made: that its sender is
//! paused, gives up or dies makes no difference to it.

use std::sync::{Arc, Mutex, PoisonError};

use super::executor::{Bell, Moment, Rung, Sim};
use super::world::World;

/// How bad the network is, for one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// How often something goes wrong with a request.
    pub(crate) trouble: f64,
    /// The longest that a request takes each way when nothing is wrong.
    pub(crate) latency: Moment,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) const FAIR: Self = Self { trouble: 0.0, latency: 4 };
}

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// When it is done; never, where it is lost on its way.
    done: Option<Moment>,
    /// When it is done once more.
    again: Option<Moment>,
    /// How long after it was done, or was not, an answer comes; never, where there is none.
    answer: Option<Moment>,
    /// Whether the answer says what came of it, or only that something went wrong.
    told: bool,
}

impl Fate {
    fn draw(random: &mut fastrand::Rng, weather: Weather) -> Self {
        let quick = |random: &mut fastrand::Rng| random.u64(0..=weather.latency);
        let fine = Self { done: Some(quick(random)), again: None, answer: Some(quick(random)), told: true };
        if random.f64() >= weather.trouble {
            return fine;
        }
        let late = *random.choice(&[300, 900, 1_500, 5_000, 20_000]).unwrap();
        let late = random.u64(late / 3..=late);
        match random.u32(0..100) {
            0..15 => Self { done: None, told: false, ..fine },
            15..30 => Self { done: None, answer: None, ..fine },
            30..50 => Self { told: false, ..fine },
            50..65 => Self { answer: None, ..fine },
            65..75 => Self { again: Some(late), ..fine },
            75..90 => Self { done: Some(late), ..fine }, // it may be long given up by then
            _ => Self { answer: Some(late), ..fine },
        }
    }
}

/// An answer, and the bell that rings when it is there.
struct Cell<T> {
    bell: Arc<Bell>,
    told: Mutex<Told<T>>,
}

/// What the asker was told.
enum Told<T> {
    NotYet,
    /// That something went wrong.
    Trouble,
    Answer(T),
}

impl<T> Cell<T> {
    fn tell(&self, answer: Option<T>) {
        self.set(answer.map_or(Told::Trouble, Told::Answer));
        self.bell.ring();
    }

    fn take(&self) -> Option<T> {
        match self.set(Told::NotYet) {
            Told::Answer(answer) => Some(answer),
            Told::NotYet | Told::Trouble => None,
        }
    }

    fn set(&self, told: Told<T>) -> Told<T> {
        std::mem::replace(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner), told)
    }
}

/// Sends a request; `None` says that something went wrong and nobody knows how far it came.
pub(crate) async fn request<T: Send + 'static>(
    sim: Sim<World>,
    work: impl Fn(&mut World, Moment) -> T + Send + Sync + 'static,
) -> Option<T> {
    let fate = sim.world(|world| Fate::draw(&mut world.random, world.weather));
    let cell = Arc::new(Cell { bell: Arc::new(Bell::default()), told: Mutex::new(Told::NotYet) });
    let work = Arc::new(work);
    let asked = sim.now();
    if let Some(again) = fate.again {
        let work = Arc::clone(&work);
        sim.after(again, move |world, sim| {
            world.now = sim.now();
            drop(work(world, asked));
        });
    }
    let teller = Arc::clone(&cell);
    match fate.done {
        Some(done) => sim.after(done, move |world, sim| {
            world.now = sim.now();
            let answer = Some(work(world, asked)).filter(|_| fate.told);
            if let Some(back) = fate.answer {
                sim.after(back, move |_, _| teller.tell(answer));
            }
        }),
        None => {
            if let Some(back) = fate.answer {
                sim.after(back, move |_, _| teller.tell(None));
            }
        }
    }
    Rung::by(&cell.bell).await;
    cell.take()
}
