//! A small driver over the real log: PLAN, PREPARE, sink, COMMIT, and all of a take-over, as checkpoint's rules say.
//!
//! It deliberately computes something different in every attempt, so that whoever mistakes one attempt for another is
//! found out; and now and then nothing that is to be published.

use tidemill::checkpoint::chunk::ChunkRef;
use tidemill::checkpoint::entry::{Entry, Position, Record};
use tidemill::checkpoint::log::Log;
use tidemill::checkpoint::open::{Checkpoint, TakeOver};
use tidemill::checkpoint::standing::Standing;
use tidemill::checkpoint::start::Content;
use tidemill::error::Error;
use tidemill::time::BatchId;

use super::checker::{Fault, numbers, payload};
use super::executor::{Owner, Sim};
use super::sabotage::Sabotage;
use super::sink::{Digest, Marker, Producer, Row, SinkError};
use super::world::World;

/// How a driver came to its end.
#[derive(Debug)]
pub(crate) enum End {
    /// It was to do so many batches, and did.
    Done,
    /// The log ended it.
    Failed(Error),
    /// The marker in the sink is neither what the log says nor what it allows.
    Foreign(Marker),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What becomes of an epoch.
enum Next {
    /// An error of the sink, or a whim: take over again.
    Roll,
}

/// A driver.
pub(crate) struct Driver {
    pub(crate) sim: Sim<World>,
    pub(crate) owner: Owner,
    pub(crate) checkpoint: Checkpoint,
    /// After so many batches it ends; never, where none is given.
    pub(crate) batches: Option<u64>,
    pub(crate) done: u64,
}

/// What a stream remembers between batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// The next batch.
    batch: u64,
    digest: Digest,
    chunks: Vec<ChunkRef>,
    /// The marker that the sink should have.
    marker: Marker,
}

/// A batch that is decided.
#[derive(Clone, Debug)]
struct Decided {
    at: Position,
    batch: u64,
    digest: Digest,
    publishes: bool,
    chunks: Vec<ChunkRef>,
}

impl Decided {
    fn of(prepare: &Record) -> Self {
        let numbers = numbers(&prepare.entry.payload);
        let (batch, chunks) = (prepare.entry.batch.0, prepare.entry.names.clone());
        Self { at: prepare.at, batch, digest: numbers[1], publishes: numbers[2] == 1, chunks }
    }
}

impl State {
    fn of(standing: &Standing) -> Self {
        let Some(committed) = &standing.committed else { return Self::default() };
        let commit = numbers(&committed.commit.entry.payload);
        let marker = (commit[1] == 1).then_some((commit[2], commit[3]));
        let chunks = committed.prepare.iter().flat_map(|prepare| prepare.entry.names.clone()).collect();
        Self { batch: committed.commit.entry.batch.0 + 1, digest: commit[0], chunks, marker }
    }

    fn after(&self, decided: &Decided) -> Self {
        let marker = if decided.publishes { Some((decided.batch, decided.digest)) } else { self.marker };
        Self { batch: decided.batch + 1, digest: decided.digest, chunks: decided.chunks.clone(), marker }
    }
}

/// One epoch of a driver.
struct Running<'a> {
    driver: &'a mut Driver,
    log: Log,
    producer: Option<Producer>,
    state: State,
    plans: Vec<(u64, u64)>,
}

type Step<T> = Result<Result<T, Next>, End>;

impl Driver {
    pub(crate) async fn drive(mut self) {
        let end = match self.epochs().await {
            Ok(()) => End::Done,
            Err(end) => end,
        };
        let owner = self.owner;
        self.sim.clone().world(|world| world.ended(owner, &end));
    }

    async fn epochs(&mut self) -> Result<(), End> {
        let mut takeover = self.checkpoint.take_over().await?;
        let mut memory = None;
        loop {
            let (mut running, standing) = self.begin(takeover, memory.as_ref()).await?;
            let outcome = running.run(&standing).await?;
            let Running { log, state, .. } = running;
            match outcome {
                Ok(()) => {
                    let epoch = log.epoch();
                    let at = self.issue(epoch, Entry::stopped());
                    log.close().await?;
                    self.sim.world(|world| world.checker.acknowledged(at));
                    return Ok(());
                }
                Err(Next::Roll) => takeover = log.roll().await?,
            }
            memory = Some(state);
        }
    }

    fn issue(&self, epoch: tidemill::checkpoint::id::Epoch, entry: Entry) -> Position {
        self.sim.world(|world| world.checker.issues(epoch, entry))
    }

    fn chance(&self, probability: f64) -> bool {
        self.sim.world(|world| world.random.f64() < probability)
    }

    fn random(&self) -> u64 {
        self.sim.world(|world| world.random.u64(..))
    }

    /// Restores what was adopted, and starts the epoch.
    async fn begin(
        &mut self,
        takeover: TakeOver,
        memory: Option<&State>,
    ) -> Result<(Running<'_>, Standing), End> {
        let standing = takeover.adopted().map(|adopted| adopted.standing.clone()).unwrap_or_default();
        let state = State::of(&standing);
        if memory.is_none_or(|memory| memory.digest != state.digest) {
            self.restore(&takeover, &state, &standing).await?;
        }
        let names = takeover.adopted().map(|adopted| adopted.content.names.clone()).unwrap_or_default();
        let content = Content { payload: payload(&[self.owner as u64]), names: names.clone() };
        self.sim.world(|world| {
            let adopted = takeover.adopted().map(|adopted| (adopted.until, adopted.standing));
            world.begins(self.owner, takeover.epoch(), adopted, names);
        });
        let epoch = takeover.epoch();
        let proof = self.issue(epoch, Entry::noop());
        let log = takeover.start(content, &[]).await?;
        self.sim.world(|world| world.started(self.owner, epoch, proof));
        let plans =
            standing.plans.iter().map(|plan| (plan.entry.batch.0, numbers(&plan.entry.payload)[0])).collect();
        Ok((Running { driver: self, log, producer: None, state, plans }, standing))
    }

    async fn restore(&self, takeover: &TakeOver, state: &State, standing: &Standing) -> Result<(), End> {
        let open = standing.prepares.iter().flat_map(|prepare| &prepare.entry.names);
        for chunk in state.chunks.iter().chain(open) {
            let content = takeover.get_chunk(chunk).await?;
            self.sim.world(|world| world.checker.chunk_read(chunk, &content));
        }
        Ok(())
    }
}

impl Running<'_> {
    /// Does batches until it is to stop, or to take over again.
    async fn run(&mut self, standing: &Standing) -> Step<()> {
        if let Err(next) = self.open_sink(standing).await? {
            return Ok(Err(next));
        }
        while self.driver.batches.is_none_or(|batches| self.driver.done < batches) {
            if let Err(next) = self.batch().await? {
                return Ok(Err(next));
            }
            self.driver.done += 1;
            if let Err(next) = self.between().await? {
                return Ok(Err(next));
            }
        }
        Ok(Ok(()))
    }

    async fn append(&mut self, entry: Entry) -> Result<Position, End> {
        let expected = self.driver.issue(self.log.epoch(), entry.clone());
        let at = self.log.append(entry).await?;
        self.driver.sim.world(|world| {
            world.checker.rule(Fault::Believed, at == expected, || {
                format!("an entry is at {at:?}, expected at {expected:?}")
            });
            world.checker.acknowledged(at);
        });
        Ok(at)
    }

    /// Fences older producers, and finds out what the last one did.
    async fn open_sink(&mut self, standing: &Standing) -> Step<()> {
        let Ok(marker) = self.new_producer().await else { return Ok(Err(Next::Roll)) };
        if marker == self.state.marker {
            return self.publish_again(standing).await;
        }
        let held = |prepare: &&Record| {
            let decided = Decided::of(prepare);
            marker == Some((decided.batch, decided.digest)) && decided.batch == self.state.batch
        };
        if let Some(prepare) = standing.prepares.iter().find(held) {
            self.commit(&Decided::of(prepare)).await?;
            return Ok(Ok(()));
        }
        self.append(Entry::noop()).await?;
        Err(End::Foreign(marker))
    }

    async fn new_producer(&mut self) -> Result<Marker, SinkError> {
        let producer = Producer::init(&self.driver.sim).await?;
        let marker = producer.marker().await?;
        self.producer = Some(producer);
        Ok(marker)
    }

    /// A batch that is decided may be published again, or decided anew.
    async fn publish_again(&mut self, standing: &Standing) -> Step<()> {
        let next = self.state.batch;
        let open = standing.prepares.iter().rfind(|prepare| prepare.entry.batch.0 == next);
        match open.map(Decided::of).filter(|_| self.driver.chance(0.5)) {
            Some(decided) => {
                // A later driver may have committed another attempt, without output, and so have left no trace in the sink.
                // An entry that is decided after the producer was made proves that its producers come after this one.
                self.append(Entry::noop()).await?;
                self.finish(&decided).await
            }
            None => Ok(Ok(())),
        }
    }

    async fn batch(&mut self) -> Step<()> {
        let batch = self.state.batch;
        let seed = self.plan(batch).await?;
        let decided = self.prepare(batch, seed).await?;
        self.finish(&decided).await
    }

    /// Plans the batch, unless it is; tells what its PLAN says.
    async fn plan(&mut self, batch: u64) -> Result<u64, End> {
        if let Some((_, seed)) = self.plans.iter().find(|(planned, _)| *planned == batch) {
            return Ok(*seed);
        }
        let seed = self.driver.random();
        self.append(plan(batch, seed)).await?;
        self.plans.push((batch, seed));
        Ok(seed)
    }

    async fn prepare(&mut self, batch: u64, seed: u64) -> Result<Decided, End> {
        let attempt = self.driver.random();
        let digest =
            self.state.digest.wrapping_mul(31).wrapping_add(seed).wrapping_mul(31).wrapping_add(attempt) | 1;
        let publishes = self.driver.chance(0.75);
        let mut chunks = self.state.chunks.clone();
        if chunks.len() >= 3 {
            chunks.clear(); // a snapshot
        }
        // Deltas are often the same: their names must differ all the same.
        let content = payload(&[if self.driver.chance(0.5) { 7 } else { digest }]);
        let chunk = self.log.put_chunk(&content).await?;
        self.driver.sim.world(|world| world.checker.chunk_put(chunk, content));
        chunks.push(chunk);
        let numbers = payload(&[self.state.digest, digest, u64::from(publishes), seed]);
        let at = self.append(Entry::prepare(BatchId(batch), numbers, chunks.clone())).await?;
        Ok(Decided { at, batch, digest, publishes, chunks })
    }

    async fn finish(&mut self, decided: &Decided) -> Step<()> {
        if decided.publishes && self.publish(decided).await?.is_err() {
            return Ok(Err(Next::Roll));
        }
        self.commit(decided).await?;
        Ok(Ok(()))
    }

    async fn publish(&mut self, decided: &Decided) -> Step<()> {
        let sabotage = self.driver.sim.world(|world| world.sabotage);
        loop {
            let Some(producer) = self.producer.clone() else { return Ok(Err(Next::Roll)) };
            let Err(error) = transaction(&producer, decided).await else { return Ok(Ok(())) };
            match sabotage {
                Some(Sabotage::SameProducer) if error == SinkError::TimedOut => {
                    if producer.abort().await.is_err() {
                        return Ok(Err(Next::Roll));
                    }
                    match producer.marker().await {
                        Ok(marker) if marker == Some((decided.batch, decided.digest)) => return Ok(Ok(())),
                        Ok(marker) if marker == self.state.marker => {}
                        _ => return Ok(Err(Next::Roll)),
                    }
                }
                Some(Sabotage::SinkInitialisedAgain) => match self.new_producer().await {
                    Ok(marker) if marker == Some((decided.batch, decided.digest)) => return Ok(Ok(())),
                    Ok(marker) if marker == self.state.marker => {}
                    _ => return Ok(Err(Next::Roll)),
                },
                _ => return Ok(Err(Next::Roll)),
            }
        }
    }

    async fn commit(&mut self, decided: &Decided) -> Result<(), End> {
        let after = self.state.after(decided);
        let (has, batch, digest) = after.marker.map_or((0, 0, 0), |(batch, digest)| (1, batch, digest));
        let numbers = payload(&[decided.digest, has, batch, digest]);
        let mut entry = Entry::commit(BatchId(decided.batch), decided.at, numbers);
        let next = decided.batch + 1;
        let planned = self.plans.iter().any(|(planned, _)| *planned == next);
        if !planned && self.driver.chance(0.5) {
            let seed = self.driver.random();
            entry = entry.riding(plan(next, seed));
            self.plans.push((next, seed));
        }
        self.append(entry).await?;
        self.state = after;
        Ok(())
    }

    /// What a driver does besides.
    async fn between(&mut self) -> Step<()> {
        let sim = self.driver.sim.clone();
        let (what, wait) = sim.world(|world| (world.random.u32(0..100), world.random.u64(0..40)));
        match what {
            0..15 => self.collect().await?,
            15..20 => drop(self.append(Entry::noop()).await?),
            20..23 => drop(self.log.scrub().await?),
            23..28 => return Ok(Err(Next::Roll)),
            28..34 => _ = self.plan(self.state.batch).await?,
            _ => {}
        }
        if self.log.wants_roll() {
            return Ok(Err(Next::Roll));
        }
        sim.sleep(wait, 0).await;
        Ok(Ok(()))
    }

    async fn collect(&mut self) -> Result<(), End> {
        // The log appends an entry of its own where there is something to remove.
        let expected = self.driver.issue(self.log.epoch(), Entry::noop());
        let removed = self.log.collect(&[]).await;
        let at_once = self.driver.sim.world(|world| world.sabotage) == Some(Sabotage::CollectsAtOnce);
        if at_once || matches!(removed, Ok(0)) {
            self.driver.sim.world(|world| world.checker.takes_back(expected));
        }
        removed?;
        Ok(())
    }
}

async fn transaction(producer: &Producer, decided: &Decided) -> Result<(), SinkError> {
    let Decided { batch, digest, .. } = *decided;
    for number in 0..2 {
        producer.add(Row { batch, number, digest }).await?;
    }
    producer.mark(batch, digest).await?;
    producer.end().await
}

fn plan(batch: u64, seed: u64) -> Entry {
    Entry::plan(BatchId(batch), payload(&[seed]))
}

/// All that a driver needs.
pub(crate) fn spawn(sim: &Sim<World>, owner: Owner, checkpoint: Checkpoint, batches: Option<u64>) {
    let driver = Driver { sim: sim.clone(), owner, checkpoint, batches, done: 0 };
    sim.spawn(owner, Box::pin(driver.drive()));
}
