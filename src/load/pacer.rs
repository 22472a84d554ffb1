//! When each request is to be sent. A pure state machine: the caller passes the time and the ends of
//! requests, and asks what to do next.
//!
//! Closed loop, open loop, sessions and trace replay differ only in the start rules of the
//! schedule, so there is one loop for all of them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::workload::{Schedule, Start};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send this request now; it was to be sent at `intended`.
    Send { index: usize, intended: Duration },
    /// Nothing before this instant, unless a request ends first.
    WaitUntil(Duration),
    /// Nothing until a request ends.
    WaitForEnd,
    /// All was sent and has ended.
    Finished,
}

/// The state of one load.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Requests with a known instant.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
    /// Requests that wait for a slot, in planned order.
    for_slot: VecDeque<usize>,
    /// Since when each free slot is free.
    free_slots: VecDeque<Duration>,
    requests: Vec<Request>,
    in_flight: usize,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Request {
    /// The request that follows this one's end, and how long after it.
    successor: Option<(usize, Duration)>,
    /// It holds a slot, which its successor inherits.
    slot: Slot,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    None,
    Taken,
}

impl Pacer {
    pub(crate) fn new(schedule: &Schedule) -> Self {
        let mut pacer = Self {
            due: BinaryHeap::new(),
            for_slot: VecDeque::new(),
            free_slots: std::iter::repeat_n(Duration::ZERO, schedule.slots as usize).collect(),
            requests: vec![Request::default(); schedule.requests.len()],
            in_flight: 0,
            stopped: false,
        };
        for (index, request) in schedule.requests.iter().enumerate() {
            match request.start {
                Start::Slot => pacer.for_slot.push_back(index),
                Start::At(instant) => pacer.due.push(Reverse((instant, index))),
                Start::After { request, think } => {
                    pacer.requests[request as usize].successor = Some((index, think));
                }
            }
        }
        pacer
    }

    /// What to do at `now`.
    pub(crate) fn next(&mut self, now: Duration) -> Next {
        if !self.stopped {
            match self.due.peek() {
                Some(Reverse((instant, index))) if *instant <= now => {
                    let (intended, index) = (*instant, *index);
                    self.due.pop();
                    return self.send(index, intended);
                }
                _ => {}
            }
            if let (Some(index), Some(free_since)) = (
                self.for_slot.front().copied(),
                self.free_slots.front().copied(),
            ) {
                self.for_slot.pop_front();
                self.free_slots.pop_front();
                self.requests[index].slot = Slot::Taken;
                return self.send(index, free_since);
            }
            if let Some(Reverse((instant, _))) = self.due.peek() {
                return Next::WaitUntil(*instant);
            }
        }
        if self.in_flight > 0 {
            Next::WaitForEnd
        } else {
            Next::Finished
        }
    }

    fn send(&mut self, index: usize, intended: Duration) -> Next {
        self.in_flight += 1;
        Next::Send { index, intended }
    }

    /// Request `index` ended at `now`, well or not.
    pub(crate) fn ended(&mut self, index: usize, now: Duration) {
        self.in_flight -= 1;
        let Request { successor, slot } = self.requests[index];
        match successor {
            Some((next, think)) => {
                self.requests[next].slot = slot;
                self.due.push(Reverse((now + think, next)));
            }
            None if slot == Slot::Taken => self.free_slots.push_back(now),
            None => {}
        }
    }

    /// Stops sending: requests in flight may still end.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::testing::schedule;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn send(index: usize, intended_ms: u64) -> Next {
        Next::Send {
            index,
            intended: ms(intended_ms),
        }
    }

    #[test]
    fn a_closed_loop_sends_when_a_slot_is_free() {
        let mut pacer = Pacer::new(&schedule(2, [Start::Slot; 3]));
        assert_eq!(pacer.next(ms(0)), send(0, 0));
        assert_eq!(pacer.next(ms(0)), send(1, 0));
        assert_eq!(pacer.next(ms(1)), Next::WaitForEnd);
        pacer.ended(1, ms(50));
        assert_eq!(
            pacer.next(ms(52)),
            send(2, 50),
            "intended when the slot was free, not later"
        );
        pacer.ended(0, ms(60));
        assert_eq!(pacer.next(ms(60)), Next::WaitForEnd);
        pacer.ended(2, ms(70));
        assert_eq!(pacer.next(ms(70)), Next::Finished);
    }

    #[test]
    fn an_open_loop_sends_on_time_whatever_is_in_flight() {
        let mut pacer = Pacer::new(&schedule(0, [Start::At(ms(10)), Start::At(ms(5))]));
        assert_eq!(pacer.next(ms(0)), Next::WaitUntil(ms(5)));
        assert_eq!(
            pacer.next(ms(30)),
            send(1, 5),
            "late, and its intended instant stays"
        );
        assert_eq!(pacer.next(ms(30)), send(0, 10));
        assert_eq!(pacer.next(ms(30)), Next::WaitForEnd);
    }

    #[test]
    fn a_session_keeps_its_slot_while_it_thinks() {
        let after = Start::After {
            request: 0,
            think: ms(100),
        };
        let mut pacer = Pacer::new(&schedule(1, [Start::Slot, after, Start::Slot]));
        assert_eq!(pacer.next(ms(0)), send(0, 0));
        pacer.ended(0, ms(20));
        assert_eq!(
            pacer.next(ms(20)),
            Next::WaitUntil(ms(120)),
            "request 2 has no slot yet"
        );
        assert_eq!(pacer.next(ms(121)), send(1, 120));
        pacer.ended(1, ms(150));
        assert_eq!(pacer.next(ms(150)), send(2, 150));
    }

    #[test]
    fn nothing_is_sent_after_a_stop() {
        let mut pacer = Pacer::new(&schedule(1, [Start::Slot, Start::Slot, Start::At(ms(1))]));
        assert_eq!(pacer.next(ms(0)), send(0, 0));
        pacer.stop();
        assert_eq!(pacer.next(ms(5)), Next::WaitForEnd);
        pacer.ended(0, ms(9));
        assert_eq!(pacer.next(ms(9)), Next::Finished);
    }
}
