//! A topic for a benchmark, made through librdkafka's admin client.
//!
//! It deliberately has no async runtime: a benchmark waits for each answer.
#![expect(clippy::unwrap_used, reason = "a benchmark ends at a mistake")]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

/// As many as the readings' topic has.
pub(crate) const PARTITIONS: i32 = 4;

/// Makes `topic`; the broker answers when it is there.
pub(crate) fn create(servers: &str, topic: &str) {
    let wanted = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    let made = wait(admin(servers).create_topics([&wanted], &options())).unwrap();
    for topic in made {
        topic.unwrap();
    }
}

/// A client for requests about topics.
pub(crate) fn admin(servers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", servers).create().unwrap()
}

/// The broker answers when it is done.
pub(crate) fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an answer.
pub(crate) fn wait<T>(answer: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut answer, mut context) = (pin!(answer), Context::from_waker(&waker));
    loop {
        match answer.as_mut().poll(&mut context) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}
