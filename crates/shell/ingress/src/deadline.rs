//! A deadline that moves with each request and passes almost never, on a timer that is set once for many of them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Setting and taking away a timer costs more than a request has to spare, so a set one stays: it goes off too early,
/// and is then moved to the deadline that holds by that time.
#[derive(Default)]
pub struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Ready once `until` has passed; wakes the task by then.
    pub fn poll(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

/// The timer of one HTTP/1 connection: hyper asks for one deadline at a time, that of the next request's headers.
#[derive(Clone, Default)]
pub struct OneTimer(Arc<Mutex<Deadline>>);

struct Until {
    timer: OneTimer,
    until: Instant,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.0.lock().unwrap_or_else(PoisonError::into_inner).poll(cx, self.until)
    }
}

impl hyper::rt::Sleep for Until {}

impl hyper::rt::Timer for OneTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Until { timer: self.clone(), until: deadline.into() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moves_both_ways_and_passes_in_time() {
        let (begun, mut deadline) = (Instant::now(), Deadline::default());
        let second = |number| begun + Duration::from_secs(number);
        for until in [60, 70, 5].map(second) {
            let polled = poll_fn(|cx| Poll::Ready(deadline.poll(cx, until))).await;
            assert!(polled.is_pending(), "{:?}", until - begun);
        }
        poll_fn(|cx| deadline.poll(cx, second(5))).await;
        assert_eq!(begun.elapsed().as_secs(), 5);
        // Set for 60 again, but the request of that time is over: the next one has its own whole time.
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx, second(60)))).await.is_pending());
        poll_fn(|cx| deadline.poll(cx, second(90))).await;
        assert_eq!(begun.elapsed().as_secs(), 90);
    }
}
