//! A replica whose requests fail, come late, come twice, or lose their answers, as a script says.
//!
//! It deliberately has neither clock nor dice: a request that is slow is one that is polled more often, and the script
//! is told which request it is about, so that a test with a seed has the same faults each time.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Key, Put, Replica, ReplicaError, ReplicaErrorKind, Reply};

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done and answered.
    None,
    /// It is refused, surely undone, with an error of this kind.
    Refused(ReplicaErrorKind),
    /// It does not arrive; whoever asked cannot know.
    RequestLost,
    /// It is done, and whoever asked cannot know.
    AnswerLost,
    /// As if it had not arrived; but it is done all the same, after so many further requests.
    Late(u32),
    /// It arrives twice, and the second answer is the one that comes back.
    Twice,
    /// It is polled so many times before it is done.
    SlowRequest(u32),
    /// It is done at once, and polled so many times before its answer is there.
    SlowAnswer(u32),
}

/// A request, as scripts see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How many came before it.
    pub number: u64,
    /// What is asked.
    pub verb: Verb,
    /// The key or, of [`Verb::List`], the prefix.
    pub key: Key,
}

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// [`Replica::put_new`].
    PutNew,
    /// [`Replica::overwrite`].
    Overwrite,
    /// [`Replica::get`].
    Get,
    /// [`Replica::list`].
    List,
    /// [`Replica::delete`].
    Delete,
}

/// A replica with faults.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use tidemill::checkpoint::replica::contract::wait;
/// use tidemill::checkpoint::replica::faulty::{Fault, FaultyReplica, Request};
/// use tidemill::checkpoint::replica::{Key, MemoryReplica, Put, PutOrEqual, Replica, put_or_equal};
/// let first_answer_lost = |request: &Request| if request.number == 0 { Fault::AnswerLost } else { Fault::None };
/// let replica = FaultyReplica::new(Arc::new(MemoryReplica::new("memory:a")), first_answer_lost);
/// let stored = wait(put_or_equal(&replica, &Key::job(), Bytes::from_static(b"mine")))?;
/// assert_eq!(stored, PutOrEqual::Stored);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub struct FaultyReplica {
    inner: Arc<dyn Replica>,
    /// Taken to ask the script, never across an await.
    state: Mutex<State>,
}

struct State {
    script: Box<dyn FnMut(&Request) -> Fault + Send>,
    requests: u64,
    /// Writes that are under way, with the number of the request before which they arrive.
    late: Vec<(u64, Write)>,
}

/// A request that changes something.
#[derive(Clone)]
enum Write {
    PutNew(Key, Bytes),
    Overwrite(Key, Bytes),
    Delete(Key),
}

impl FaultyReplica {
    /// `inner` with the faults that `script` tells, request by request.
    pub fn new(inner: Arc<dyn Replica>, script: impl FnMut(&Request) -> Fault + Send + 'static) -> Self {
        let state = State { script: Box::new(script), requests: 0, late: Vec::new() };
        Self { inner, state: Mutex::new(state) }
    }

    /// `inner` with `faults` for its first requests, one after the other, and none after them.
    pub fn scripted(inner: Arc<dyn Replica>, faults: impl IntoIterator<Item = Fault>) -> Self {
        let mut faults = faults.into_iter().collect::<Vec<_>>().into_iter();
        Self::new(inner, move |_| faults.next().unwrap_or(Fault::None))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of the request; those that were late and are due arrive before it.
    async fn next(&self, verb: Verb, key: &Key) -> Fault {
        let (fault, due) = self.lock().next(verb, key);
        for write in due {
            let _ = self.perform(write).await; // nobody waits for the answer any more
        }
        fault
    }

    async fn perform(&self, write: Write) -> Result<Put, ReplicaError> {
        match write {
            Write::PutNew(key, bytes) => self.inner.put_new(&key, bytes).await,
            Write::Overwrite(key, bytes) => self.inner.overwrite(&key, bytes).await.map(|()| Put::Created),
            Write::Delete(key) => self.inner.delete(&key).await.map(|()| Put::Created),
        }
    }

    async fn write(&self, verb: Verb, key: &Key, write: Write) -> Result<Put, ReplicaError> {
        let fault = self.next(verb, key).await;
        match fault {
            Fault::Late(requests) => self.lock().postpone(requests, write.clone()),
            Fault::Twice => drop(self.perform(write.clone()).await),
            _ => {}
        }
        self.with(fault, key, || Box::pin(self.perform(write.clone()))).await
    }

    async fn read<'a, T>(
        &'a self,
        verb: Verb,
        key: &Key,
        ask: impl Fn() -> Reply<'a, T> + Send,
    ) -> Result<T, ReplicaError> {
        let fault = self.next(verb, key).await;
        self.with(fault, key, ask).await
    }

    async fn with<'a, T>(
        &'a self,
        fault: Fault,
        key: &Key,
        ask: impl Fn() -> Reply<'a, T> + Send,
    ) -> Result<T, ReplicaError> {
        match fault {
            Fault::None | Fault::Twice => ask().await,
            Fault::Refused(kind) => Err(self.failed(kind, "refused", key).undone()),
            Fault::RequestLost | Fault::Late(_) => {
                Err(self.failed(ReplicaErrorKind::Unavailable, "lost", key))
            }
            Fault::AnswerLost => {
                drop(ask().await);
                Err(self.failed(ReplicaErrorKind::Unavailable, "lost", key))
            }
            Fault::SlowRequest(polls) => {
                Polls(polls).await;
                ask().await
            }
            Fault::SlowAnswer(polls) => {
                let answer = ask().await;
                Polls(polls).await;
                answer
            }
        }
    }

    fn failed(&self, kind: ReplicaErrorKind, how: &str, key: &Key) -> ReplicaError {
        ReplicaError::new(
            kind,
            format!("a request for {key:?} to {} was {how}, as the test's script says", self.url()),
        )
    }
}

impl State {
    fn next(&mut self, verb: Verb, key: &Key) -> (Fault, Vec<Write>) {
        let request = Request { number: self.requests, verb, key: key.clone() };
        self.requests += 1;
        let fault = (self.script)(&request);
        let (due, late) =
            std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= request.number);
        self.late = late;
        let due: Vec<(u64, Write)> = due;
        (fault, due.into_iter().map(|(_, write)| write).collect())
    }

    fn postpone(&mut self, requests: u32, write: Write) {
        self.late.push((self.requests + u64::from(requests), write));
    }
}

/// Ready after being polled so many times; whoever polls is asked to do so again at once.
struct Polls(u32);

impl Future for Polls {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for FaultyReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyReplica({:?})", self.inner)
    }
}

impl Replica for FaultyReplica {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        let key = key.clone();
        Box::pin(async move { self.write(Verb::PutNew, &key, Write::PutNew(key.clone(), bytes)).await })
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        let key = key.clone();
        Box::pin(async move {
            self.write(Verb::Overwrite, &key, Write::Overwrite(key.clone(), bytes)).await.map(drop)
        })
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        let key = key.clone();
        Box::pin(async move { self.read(Verb::Get, &key, || self.inner.get(&key)).await })
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        let prefix = prefix.clone();
        Box::pin(async move { self.read(Verb::List, &prefix, || self.inner.list(&prefix)).await })
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        let key = key.clone();
        Box::pin(async move { self.write(Verb::Delete, &key, Write::Delete(key.clone())).await.map(drop) })
    }
}
