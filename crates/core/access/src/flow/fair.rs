//! Fair queuing inside one priority level: a flow gets a few of the queues, and the queue that had least goes next.

use std::collections::VecDeque;

/// Somebody who waits for a seat.
pub trait Waiter {
    /// Nobody waits any more.
    fn is_gone(&self) -> bool;
}

/// What happens to a request that comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It has a seat.
    Runs,
    /// Its waiter was put into a queue.
    Waits,
    /// Every queue that its flow may use is full, or the level has none.
    Refused,
}

#[derive(Debug)]
struct Queue<W> {
    waiting: VecDeque<W>,
    /// Virtual time at which its next request starts: each one served moves it on.
    start: u64,
}

/// The requests of one priority level that run and wait.
#[derive(Debug)]
pub struct Level<W> {
    queues: Vec<Queue<W>>,
    hand: usize,
    queue_max: usize,
    running: usize,
    waiting: usize,
    /// Virtual time: when the request that was seated last began.
    now: u64,
}

impl<W: Waiter> Level<W> {
    /// A level with `queues` queues of at most `queue_max` waiters, of which a flow may use `hand`.
    pub fn new(queues: usize, hand: usize, queue_max: usize) -> Self {
        let queue = || Queue { waiting: VecDeque::new(), start: 0 };
        Self {
            queues: std::iter::repeat_with(queue).take(queues).collect(),
            hand: hand.clamp(1, queues.max(1)),
            queue_max,
            running: 0,
            waiting: 0,
            now: 0,
        }
    }

    pub fn running(&self) -> usize {
        self.running
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Seats, queues or refuses a request of a flow; `limit` are the seats that the level may use now.
    pub fn arrive(&mut self, flow: u64, limit: usize, waiter: impl FnOnce() -> W) -> Arrival {
        if self.waiting == 0 && self.running < limit {
            self.running += 1;
            return Arrival::Runs;
        }
        let Some(at) = self.shortest(flow) else { return Arrival::Refused };
        if self.queues[at].waiting.len() >= self.queue_max {
            self.forget(at);
        }
        if self.queues[at].waiting.len() >= self.queue_max {
            return Arrival::Refused;
        }
        let now = self.now;
        let queue = &mut self.queues[at];
        if queue.waiting.is_empty() {
            // What a queue did not use while it was empty is lost.
            queue.start = queue.start.max(now);
        }
        queue.waiting.push_back(waiter());
        self.waiting += 1;
        Arrival::Waits
    }

    /// A request ended.
    pub fn finish(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// The waiters that get a seat now, each already counted as running.
    pub fn seat(&mut self, limit: usize) -> Vec<W> {
        let mut seated = Vec::new();
        while self.waiting > 0 && self.running < limit {
            let fullest = self.queues.iter().enumerate().filter(|(_, queue)| !queue.waiting.is_empty());
            let Some((at, _)) = fullest.min_by_key(|(_, queue)| queue.start) else { break };
            let queue = &mut self.queues[at];
            let Some(waiter) = queue.waiting.pop_front() else { break };
            self.waiting -= 1;
            if waiter.is_gone() {
                continue;
            }
            self.now = queue.start;
            queue.start += 1;
            self.running += 1;
            seated.push(waiter);
        }
        seated
    }

    /// Drops those who wait no more.
    fn forget(&mut self, at: usize) {
        let queue = &mut self.queues[at].waiting;
        let before = queue.len();
        queue.retain(|waiter| !waiter.is_gone());
        self.waiting -= before - queue.len();
    }

    /// The shortest of the queues that a flow may use. Two flows seldom share all of theirs, so that one that fills its
    /// own leaves room for the other.
    fn shortest(&self, flow: u64) -> Option<usize> {
        let mut left: Vec<usize> = Vec::with_capacity(self.hand);
        let mut rest = flow;
        for dealt in 0..self.hand.min(self.queues.len()) {
            let choices = (self.queues.len() - dealt) as u64;
            let mut card = (rest % choices) as usize;
            rest = (rest / choices) ^ rest.rotate_left(17);
            // Cards below it that were dealt before are not counted.
            left.sort_unstable();
            for taken in &left {
                if card >= *taken {
                    card += 1;
                }
            }
            left.push(card);
        }
        left.into_iter().min_by_key(|at| self.queues[*at].waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str, bool);

    impl Waiter for Named {
        fn is_gone(&self) -> bool {
            self.1
        }
    }

    /// Two flows that share no queue.
    fn two_flows(level: &Level<Named>) -> (u64, u64) {
        let own = level.shortest(1);
        (1, (2..1000).find(|flow| level.shortest(*flow) != own).unwrap())
    }

    #[test]
    fn a_busy_flow_does_not_hold_up_a_quiet_one() {
        let mut level = Level::new(16, 1, 50);
        let (busy, quiet) = two_flows(&level);
        assert_eq!(level.arrive(busy, 1, || Named("", false)), Arrival::Runs);
        for _ in 0..20 {
            assert_eq!(level.arrive(busy, 1, || Named("busy", false)), Arrival::Waits);
        }
        for _ in 0..3 {
            assert_eq!(level.arrive(quiet, 1, || Named("quiet", false)), Arrival::Waits);
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            level.finish();
            order.extend(level.seat(1).into_iter().map(|waiter| waiter.0));
            assert_eq!(level.running(), 1);
        }
        assert_eq!(order.iter().filter(|name| **name == "quiet").count(), 3, "{order:?}");
    }

    #[test]
    fn full_queues_refuse_and_those_who_left_make_room() {
        let mut level = Level::new(1, 1, 2);
        assert_eq!(level.arrive(1, 1, || Named("", false)), Arrival::Runs);
        assert_eq!(level.arrive(1, 1, || Named("gone", true)), Arrival::Waits);
        assert_eq!(level.arrive(1, 1, || Named("here", false)), Arrival::Waits);
        assert_eq!(level.arrive(1, 1, || Named("next", false)), Arrival::Waits);
        assert_eq!(level.arrive(1, 1, || Named("more", false)), Arrival::Refused);
        assert_eq!(level.waiting(), 2);
        level.finish();
        assert_eq!(level.seat(2).into_iter().map(|waiter| waiter.0).collect::<Vec<_>>(), ["here", "next"]);
        // A level without queues refuses at once.
        let mut level: Level<Named> = Level::new(0, 0, 0);
        assert_eq!(level.arrive(1, 1, || Named("", false)), Arrival::Runs);
        assert_eq!(level.arrive(1, 1, || Named("", false)), Arrival::Refused);
    }

    #[test]
    fn hands_are_of_different_queues() {
        let level: Level<Named> = Level::new(8, 3, 1);
        for flow in [0, 1, u64::MAX, 12345] {
            assert!(level.shortest(flow).is_some_and(|at| at < 8));
        }
    }
}
