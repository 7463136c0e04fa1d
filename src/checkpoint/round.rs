//! One question to several replicas at once, and how long to wait for those that are slow.
//!
//! It deliberately counts no votes: `enough` says when the answers do, and then the others have a little longer, since
//! one more answer now may save a repair later.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::checkpoint::surroundings::Surroundings;

/// An answer on its way.
pub(super) type Asked<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The questions asked, and the answers so far.
struct Round<'a, T> {
    asked: Vec<Option<Asked<'a, T>>>,
    answers: Vec<Option<T>>,
}

impl<T> Round<'_, T> {
    /// Takes what has come; says whether all has.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        for (asked, answer) in self.asked.iter_mut().zip(&mut self.answers) {
            let polled = asked.as_mut().map(|future| future.as_mut().poll(context));
            if let Some(Poll::Ready(found)) = polled {
                (*asked, *answer) = (None, Some(found));
            }
        }
        self.asked.iter().all(Option::is_none)
    }
}

/// Waits until all have answered, or `enough` have and `grace` is over. Gives the answers in the order of the questions.
pub(super) async fn ask<T>(
    questions: Vec<Asked<'_, T>>,
    surroundings: &dyn Surroundings,
    grace: Duration,
    enough: impl Fn(&[Option<T>]) -> bool,
) -> Vec<Option<T>> {
    let answers = questions.iter().map(|_| None).collect();
    let mut round = Round { asked: questions.into_iter().map(Some).collect(), answers };
    let ready = |ready: bool| if ready { Poll::Ready(()) } else { Poll::Pending };
    poll_fn(|context| ready(round.poll(context) || enough(&round.answers))).await;
    if round.asked.iter().any(Option::is_some) {
        let mut over = surroundings.sleep(grace);
        poll_fn(|context| ready(round.poll(context) || over.as_mut().poll(context).is_ready())).await;
    }
    round.answers
}
