//! When a sampler reads: on a grid of its interval, at the edges of phases, and less often where the
//! budget asks for that. Knows no clock, so that it can be tested without one.

use std::time::Duration;

use super::budget::Pace;

/// The turns of one sampler.
#[derive(Debug)]
pub struct Turns {
    pace: Pace,
    planned: Duration,
    /// When the last reading began.
    last: Option<Duration>,
    /// Whether the next turn was put off to stay within the budget.
    is_put_off: bool,
}

/// One reading under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When it began.
    pub began: Duration,
    /// Whether it began later than it was to.
    pub late: bool,
    /// Whether it was put off to stay within the budget.
    pub slowed: bool,
    in_turn: bool,
}

impl Turns {
    /// The first turn is at `now`.
    pub fn new(pace: Pace, now: Duration) -> Self {
        Self {
            pace,
            planned: now,
            last: None,
            is_put_off: false,
        }
    }

    /// When the next turn is.
    pub fn planned(&self) -> Duration {
        self.planned
    }

    /// A reading begins at `began`, in its turn or not.
    pub fn begin(&mut self, began: Duration, in_turn: bool, interval: Duration) -> Reading {
        let gap = self.last.map(|last| began.saturating_sub(last));
        self.last = Some(began);
        Reading {
            began,
            late: in_turn && began.saturating_sub(self.planned) > interval / 2,
            slowed: self.is_put_off && gap.is_some_and(|gap| gap > interval * 3 / 2),
            in_turn,
        }
    }

    /// `reading` ended at `now` and used `cpu`; the next comes after `interval`, or `longest` at most.
    pub fn end(
        &mut self,
        reading: Reading,
        now: Duration,
        cpu: Duration,
        (interval, longest): (Duration, Duration),
    ) {
        self.pace.spend(now, cpu, interval, longest);
        let next = if reading.in_turn {
            next_tick(self.planned, interval, now)
        } else {
            // The edge of a phase begins the grid anew: nothing is read twice for it.
            reading.began + interval
        };
        self.planned = self.pace.next(next, reading.began, (interval, longest));
        self.is_put_off = self.planned > next;
    }

    /// Whether the budget is too small for long already because this sampler cannot read less often.
    /// True once.
    pub fn fall_short(&mut self) -> bool {
        self.pace.falls_short()
    }
}

/// The next tick after `now` on the grid of `interval` that `planned` lies on: ticks that were
/// missed are not made up for.
fn next_tick(planned: Duration, interval: Duration, now: Duration) -> Duration {
    let behind = now.saturating_sub(planned).as_nanos() / interval.as_nanos().max(1);
    let steps = u32::try_from(behind).unwrap_or(u32::MAX - 1) + 1;
    planned.saturating_add(interval.saturating_mul(steps))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::budget::Budget;
    use super::*;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    /// A sampler of the tests' own: the interval, the longest that it bears, and what a reading costs
    /// at a time.
    struct Costly {
        intervals: (Duration, Duration),
        cost: fn(Duration) -> Duration,
    }

    /// What came of one sampler.
    #[derive(Debug, Default)]
    struct Seen {
        at: Vec<Reading>,
        cpu: Duration,
    }

    impl Seen {
        fn largest_gap(&self, from: Duration, to: Duration) -> Duration {
            let inside = |pair: &&[Reading]| pair[0].began >= from && pair[1].began <= to;
            let gaps = self.at.windows(2).filter(inside);
            gaps.map(|pair| pair[1].began.saturating_sub(pair[0].began))
                .max()
                .unwrap()
        }
    }

    /// Lets `samplers` share one percent of a core until `end` of a clock of the test's own.
    fn play(samplers: &[Costly], end: Duration) -> Vec<Seen> {
        let budget = Arc::new(Budget::new(1.0));
        let start = Duration::ZERO;
        let join = |_: &Costly| (Turns::new(budget.join(start), start), Seen::default());
        let mut all: Vec<_> = samplers.iter().map(join).collect();
        loop {
            let due = |(_, (turns, _)): &(usize, &(Turns, Seen))| turns.planned();
            let (place, _) = all.iter().enumerate().min_by_key(due).unwrap();
            let (turns, seen) = &mut all[place];
            let now = turns.planned();
            if now >= end {
                return all.into_iter().map(|(_, seen)| seen).collect();
            }
            let Costly { intervals, cost } = &samplers[place];
            let reading = turns.begin(now, true, intervals.0);
            let cpu = cost(now);
            turns.end(reading, now + cpu, cpu, *intervals);
            seen.cpu += cpu;
            seen.at.push(reading);
        }
    }

    fn percent(all: &[Seen], of: Duration) -> f64 {
        let cpu: Duration = all.iter().map(|seen| seen.cpu).sum();
        cpu.as_secs_f64() / of.as_secs_f64() * 100.0
    }

    #[test]
    fn cheap_samplers_keep_their_intervals() {
        let cheap = |interval| Costly {
            intervals: (ms(interval), ms(5000)),
            cost: |_| Duration::from_micros(100),
        };
        let seen = play(&[cheap(200), cheap(200), cheap(1000)], ms(10_000));
        for (seen, interval) in seen.iter().zip([200, 200, 1000]) {
            assert_eq!(seen.largest_gap(ms(0), ms(10_000)), ms(interval));
            assert!(seen.at.iter().all(|reading| !reading.slowed));
        }
    }

    #[test]
    fn under_load_all_together_stay_below_the_budget_and_the_costly_are_slowed() {
        // Readings cost four times as much from 10 to 20 s, as NVML's do while a GPU copies.
        let loaded = |now: Duration| (ms(10_000)..ms(20_000)).contains(&now);
        assert!(loaded(ms(15_000)));
        let gauges = Costly {
            intervals: (ms(200), ms(30_000)),
            cost: |now| {
                let loaded = (ms(10_000)..ms(20_000)).contains(&now);
                Duration::from_micros(if loaded { 4000 } else { 1000 })
            },
        };
        let host = Costly {
            intervals: (ms(200), ms(5000)),
            cost: |_| Duration::from_micros(300),
        };
        let seen = play(&[gauges, host], ms(40_000));
        // One percent would be 400 ms; without the budget they would take 560 ms.
        let share = percent(&seen, ms(40_000));
        assert!(share < 0.9 && share > 0.6, "{share} %");
        let loaded_cpu = |seen: &Seen, cost_us: u64| {
            let inside = seen.at.iter().filter(|reading| loaded(reading.began));
            inside.count() as f64 * cost_us as f64 / 1e6
        };
        let share = (loaded_cpu(&seen[0], 4000) + loaded_cpu(&seen[1], 300)) / 10.0 * 100.0;
        assert!(share < 1.0, "{share} % under load");
        assert!(seen[0].largest_gap(ms(10_000), ms(20_000)) > ms(400));
        assert_eq!(seen[1].largest_gap(ms(0), ms(40_000)), ms(200));
        // What was read less often says so, and nothing else does.
        let slowed = seen[0].at.iter().filter(|reading| reading.slowed);
        assert!(slowed.clone().count() > 10);
        assert!(slowed.clone().all(|reading| reading.began > ms(10_000)));
        assert!(seen[0].at.iter().all(|reading| !reading.late));
        // Calls became cheap again.
        assert_eq!(seen[0].largest_gap(ms(25_000), ms(40_000)), ms(200));
    }

    #[test]
    fn a_counter_that_wraps_is_never_read_later_than_it_can_bear() {
        let counters = Costly {
            intervals: (ms(20), ms(41)),
            cost: |_| ms(1),
        };
        let gauges = Costly {
            intervals: (ms(200), ms(30_000)),
            cost: |_| ms(2),
        };
        let seen = play(&[counters, gauges], ms(60_000));
        assert_eq!(seen[0].largest_gap(ms(0), ms(60_000)), ms(40));
        // The gauges are dropped but for a reading now and then.
        let late = seen[1].at.iter().filter(|r| r.began > ms(10_000));
        assert!(late.count() <= 3, "{:?}", seen[1].at);
    }

    #[test]
    fn a_reading_at_an_edge_is_never_put_off_and_is_paid_for_after_it() {
        let budget = Arc::new(Budget::new(1.0));
        let mut turns = Turns::new(budget.join(ms(0)), ms(0));
        let intervals = (ms(100), ms(5000));
        for (at, in_turn) in [(0, true), (50, false)] {
            let reading = turns.begin(ms(at), in_turn, intervals.0);
            turns.end(reading, ms(at + 9), ms(9), intervals);
        }
        // 9 ms at 0.8 % are paid for after a second, but at first no gap is longer than five
        // intervals; the first reading is its start.
        assert_eq!(turns.planned(), ms(550));
        let reading = turns.begin(turns.planned(), true, intervals.0);
        assert!(reading.slowed && !reading.late);
    }

    #[test]
    fn missed_ticks_are_not_made_up_for() {
        assert_eq!(next_tick(ms(100), ms(20), ms(100)), ms(120));
        assert_eq!(next_tick(ms(100), ms(20), ms(119)), ms(120));
        assert_eq!(next_tick(ms(100), ms(20), ms(171)), ms(180));
        assert_eq!(next_tick(ms(100), ms(20), ms(0)), ms(120));
    }
}
