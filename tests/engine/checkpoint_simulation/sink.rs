//! A sink with transactions, fencing and a marker, as a broker has them.
//!
//! It deliberately has a broker's old fault: a request to end a transaction does not say which one it means, so that one
//! which comes late ends the next. Only a new producer is safe from it.

use std::collections::BTreeSet;
use std::fmt;

use super::executor::Sim;
use super::network::request;
use super::world::World;

/// What a batch comes to: a hash over all that went into it.
pub(crate) type Digest = u64;

/// One row of a batch's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) batch: u64,
    pub(crate) number: u64,
    pub(crate) digest: Digest,
}

/// Which batch was published last, and which attempt at it.
pub(crate) type Marker = Option<(u64, Digest)>;

/// What the broker has.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    producer: u64,
    open: Vec<Row>,
    open_marker: Marker,
    seen: BTreeSet<u64>,
    pub(crate) rows: Vec<Row>,
    pub(crate) marker: Marker,
}

/// Why the sink did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkError {
    /// Another producer has taken over.
    Fenced,
    /// Nobody knows whether it was done.
    TimedOut,
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A producer's way to the broker.
#[derive(Clone)]
pub(crate) struct Producer {
    sim: Sim<World>,
    id: u64,
}

/// How long a driver waits for the broker.
const PATIENCE: u64 = 400;

async fn ask<T: Send + 'static>(
    sim: &Sim<World>,
    work: impl Fn(&mut Broker) -> Result<T, SinkError> + Send + Sync + 'static,
) -> Result<T, SinkError> {
    let number = sim.world(|world| world.random.u64(..));
    let answer = request(sim.clone(), move |world, _| {
        // A request that arrives twice is done once: connections and producers number what they send.
        if world.broker.seen.insert(number) { work(&mut world.broker) } else { Err(SinkError::TimedOut) }
    });
    let mut answer = Box::pin(answer);
    let mut end = sim.sleep(PATIENCE, 0);
    std::future::poll_fn(|context| {
        use std::future::Future as _;
        if let std::task::Poll::Ready(answer) = answer.as_mut().poll(context) {
            return std::task::Poll::Ready(answer.unwrap_or(Err(SinkError::TimedOut)));
        }
        std::pin::Pin::new(&mut end).poll(context).map(|()| Err(SinkError::TimedOut))
    })
    .await
}

impl Producer {
    /// A new producer; every older one is fenced, and its open transaction undone.
    pub(crate) async fn init(sim: &Sim<World>) -> Result<Self, SinkError> {
        let id = ask(sim, |broker| {
            broker.producer += 1;
            broker.open.clear();
            broker.open_marker = None;
            Ok(broker.producer)
        });
        Ok(Self { sim: sim.clone(), id: id.await? })
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Broker) -> T + Send + Sync + 'static,
    ) -> Result<T, SinkError> {
        let id = self.id;
        ask(
            &self.sim,
            move |broker| if broker.producer == id { Ok(work(broker)) } else { Err(SinkError::Fenced) },
        )
        .await
    }

    /// Adds a row to the open transaction.
    pub(crate) async fn add(&self, row: Row) -> Result<(), SinkError> {
        self.ask(move |broker| broker.open.push(row)).await
    }

    /// Adds the marker to the open transaction.
    pub(crate) async fn mark(&self, batch: u64, digest: Digest) -> Result<(), SinkError> {
        self.ask(move |broker| broker.open_marker = Some((batch, digest))).await
    }

    /// Commits whatever transaction is open.
    pub(crate) async fn end(&self) -> Result<(), SinkError> {
        self.ask(|broker| {
            broker.rows.append(&mut broker.open);
            broker.marker = broker.open_marker.take().or(broker.marker);
        })
        .await
    }

    /// Undoes whatever transaction is open.
    pub(crate) async fn abort(&self) -> Result<(), SinkError> {
        self.ask(|broker| {
            broker.open.clear();
            broker.open_marker = None;
        })
        .await
    }

    /// The marker, of transactions that are committed.
    pub(crate) async fn marker(&self) -> Result<Marker, SinkError> {
        ask(&self.sim, |broker| Ok(broker.marker)).await
    }
}
