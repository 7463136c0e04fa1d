//! A replica that fails rather than not answer: every request ends within a time.
//!
//! It deliberately takes nothing back: a request that was given up may still be done.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::checkpoint::replica::{Key, Put, Replica, ReplicaError, ReplicaErrorKind, Reply};
use crate::checkpoint::settings::Common;
use crate::checkpoint::surroundings::Task;

/// A replica, and for how long it may take to answer.
#[derive(Debug)]
pub(super) struct Timed {
    replica: Arc<dyn Replica>,
    common: Common,
}

impl Timed {
    pub(super) fn new(replica: Arc<dyn Replica>, common: Common) -> Self {
        Self { replica, common }
    }

    fn within<'a, T: 'a>(&'a self, reply: Reply<'a, T>) -> Reply<'a, T> {
        let end = self.common.surroundings.sleep(self.common.settings.request);
        Box::pin(Within { reply, end, url: self.replica.url() })
    }
}

/// A request, and the end of its time.
struct Within<'a, T> {
    reply: Reply<'a, T>,
    end: Task,
    url: &'a str,
}

impl<T> Future for Within<'_, T> {
    type Output = Result<T, ReplicaError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = self.reply.as_mut().poll(context) {
            return Poll::Ready(answer);
        }
        self.end.as_mut().poll(context).map(|()| {
            let message = format!("{} did not answer in time", self.url);
            Err(ReplicaError::new(ReplicaErrorKind::Unavailable, message))
        })
    }
}

impl Replica for Timed {
    fn url(&self) -> &str {
        self.replica.url()
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        self.within(self.replica.put_new(key, bytes))
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        self.within(self.replica.overwrite(key, bytes))
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        self.within(self.replica.get(key))
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        self.within(self.replica.list(prefix))
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        self.within(self.replica.delete(key))
    }
}
