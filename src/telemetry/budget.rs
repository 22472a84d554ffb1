//! When samplers read, and what they may cost together.
//!
//! Each sampler reads on a grid of its interval. All samplers together may use a part of one core. While
//! they use more, the costliest of those that can wait is read half as often. Once there is room again,
//! it is read twice as often. A reading at the edge of a phase is never put off, and no gap is longer
//! than its sampler can bear, whatever that costs. Nothing here reads a clock: tests need none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Part of the budget that readings in turn may use. The rest is for starting samplers and for
/// readings at the edges of phases.
const IN_TURN: f64 = 0.8;

/// What all samplers may use, and what each of them uses.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Shares of one core.
    share: f64,
    members: Mutex<Vec<Option<Member>>>,
}

/// What one sampler costs, and how often it reads.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// CPU time of its last two readings.
    costs: [Duration; 2],
    /// Time between two readings as it was set.
    interval: Duration,
    /// Longest time between two readings that it can bear.
    longest: Duration,
    /// Time between two readings now.
    every: Duration,
}

impl Member {
    const NEW: Self = Self {
        costs: [Duration::ZERO; 2],
        interval: Duration::ZERO,
        longest: Duration::ZERO,
        every: Duration::ZERO,
    };

    /// Shares of one core that it uses, by the cheaper of its last two readings: one delayed reading
    /// slows no sampler.
    fn share(&self) -> f64 {
        let cost = self.costs[0].min(self.costs[1]);
        cost.as_secs_f64() / self.every.as_secs_f64().max(1e-6)
    }

    fn can_wait(&self) -> bool {
        !self.every.is_zero() && self.every * 2 <= self.longest
    }

    fn is_slowed(&self) -> bool {
        self.every > self.interval
    }
}

/// Slows the costliest of `members` until all together use no more than `share`, or gives the one that
/// was slowed most a part of it back where there is room.
fn balance(share: f64, members: &mut [Option<Member>]) {
    let used =
        |members: &[Option<Member>]| members.iter().flatten().map(Member::share).sum::<f64>();
    if used(members) <= share {
        let room = share - used(members);
        let slowed = members.iter_mut().flatten().filter(|one| one.is_slowed());
        let may_return = slowed.filter(|one| one.share() <= room);
        if let Some(one) =
            may_return.max_by_key(|one| one.every.as_nanos() / one.interval.as_nanos())
        {
            one.every /= 2;
        }
        return;
    }
    while used(members) > share {
        let can_wait = members.iter_mut().flatten().filter(|one| one.can_wait());
        let Some(costliest) = can_wait.max_by(|a, b| a.share().total_cmp(&b.share())) else {
            return;
        };
        costliest.every *= 2;
    }
}

impl Budget {
    /// `percent` of one core; 0 means no limit.
    pub(crate) fn new(percent: f64) -> Self {
        let limited = percent > 0.0;
        let share = percent / 100.0 * IN_TURN;
        Self {
            share: if limited { share } else { f64::INFINITY },
            members: Mutex::default(),
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Option<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more sampler, whose first turn is at `now`. It leaves when its turns are dropped.
    pub(crate) fn join(self: &Arc<Self>, now: Duration) -> Turns {
        let mut members = self.members();
        let free = members.iter().position(Option::is_none);
        let place = free.unwrap_or(members.len());
        if place == members.len() {
            members.push(None);
        }
        members[place] = Some(Member::NEW);
        Turns {
            budget: Arc::clone(self),
            place,
            planned: now,
            last: None,
            is_put_off: false,
        }
    }

    /// Accounts for a reading of the member at `place` that used `cpu`. Returns the time to its next.
    fn spend(
        &self,
        place: usize,
        cpu: Duration,
        (interval, longest): (Duration, Duration),
    ) -> Duration {
        let mut members = self.members();
        let Some(own) = &mut members[place] else {
            return interval;
        };
        own.costs = [cpu, own.costs[0]];
        if (own.interval, own.longest) != (interval, longest) {
            (own.interval, own.longest, own.every) = (interval, longest, interval);
        }
        balance(self.share, &mut members);
        members[place].map_or(interval, |own| own.every)
    }
}

/// The turns of one sampler.
#[derive(Debug)]
pub(crate) struct Turns {
    budget: Arc<Budget>,
    place: usize,
    planned: Duration,
    /// When the last reading began.
    last: Option<Duration>,
    /// Whether the next turn was put off to stay within the budget.
    is_put_off: bool,
}

/// One reading under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// When it began.
    pub began: Duration,
    /// Whether it began later than it was to.
    pub late: bool,
    /// Whether it was put off to stay within the budget.
    pub slowed: bool,
    in_turn: bool,
}

impl Turns {
    /// When the next turn is.
    pub(crate) fn planned(&self) -> Duration {
        self.planned
    }

    /// A reading begins at `began`, in its turn or at the edge of a phase. `interval` is the time
    /// between two readings as it was set.
    pub(crate) fn begin(&mut self, began: Duration, in_turn: bool, interval: Duration) -> Reading {
        let gap = self.last.map(|last| began.saturating_sub(last));
        self.last = Some(began);
        Reading {
            began,
            late: in_turn && began.saturating_sub(self.planned) > interval / 2,
            slowed: self.is_put_off && gap.is_some_and(|gap| gap > interval * 3 / 2),
            in_turn,
        }
    }

    /// `reading` ended at `now` and used `cpu`. The next comes after `interval`, or after `longest` at
    /// most.
    pub(crate) fn end(
        &mut self,
        reading: Reading,
        now: Duration,
        cpu: Duration,
        (interval, longest): (Duration, Duration),
    ) {
        let every = self.budget.spend(self.place, cpu, (interval, longest));
        self.is_put_off = every > interval;
        self.planned = if reading.in_turn {
            next_tick(self.planned, every, now)
        } else {
            // The edge of a phase begins the grid anew: nothing is read twice for it.
            reading.began + every
        };
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.budget.members()[self.place] = None;
    }
}

/// The next tick after `now` on the grid of `every` that `planned` lies on: ticks that were missed are
/// not made up for.
fn next_tick(planned: Duration, every: Duration, now: Duration) -> Duration {
    let behind = now.saturating_sub(planned).as_nanos() / every.as_nanos().max(1);
    let steps = u32::try_from(behind).unwrap_or(u32::MAX - 1) + 1;
    planned.saturating_add(every.saturating_mul(steps))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn member(cost_us: u64, interval_ms: u64, longest_ms: u64) -> Member {
        Member {
            costs: [Duration::from_micros(cost_us); 2],
            interval: ms(interval_ms),
            longest: ms(longest_ms),
            every: ms(interval_ms),
        }
    }

    fn used(members: &[Option<Member>]) -> f64 {
        members.iter().flatten().map(Member::share).sum()
    }

    proptest! {
        #[test]
        fn together_they_fit_or_none_can_wait_any_longer(
            costs in prop::collection::vec((1_u64..20_000, 20_u64..2000, 1_u64..40), 1..9),
            share in 0.001_f64..0.05,
        ) {
            let members = costs.iter().map(|&(cost, interval, times)| {
                Some(member(cost, interval, interval * times))
            });
            let before: Vec<_> = members.collect();
            let mut after = before.clone();
            balance(share, &mut after);
            let can_wait = after.iter().flatten().any(Member::can_wait);
            prop_assert!(used(&after) <= share || !can_wait);
            for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
                prop_assert!(after.every <= after.longest, "{after:?}");
                prop_assert!(after.every >= before.interval, "{after:?}");
            }
            // No more was slowed than had to be: the last step was needed.
            if used(&before) <= share {
                prop_assert!(after.iter().flatten().all(|one| !one.is_slowed()));
            }
            // What was decided stays, as long as readings cost the same.
            let decided: Vec<_> = after.iter().flatten().map(|one| one.every).collect();
            let over = used(&after) > share;
            balance(share, &mut after);
            balance(share, &mut after);
            let again: Vec<_> = after.iter().flatten().map(|one| one.every).collect();
            prop_assert!(used(&after) <= share || over);
            prop_assert!(decided.iter().zip(&again).all(|(one, next)| next <= one));
        }

        #[test]
        fn when_calls_are_cheap_again_everyone_reads_as_often_as_was_set(
            costs in prop::collection::vec((100_u64..20_000, 20_u64..2000), 1..9),
        ) {
            let mut all: Vec<_> = costs
                .iter()
                .map(|&(cost, interval)| Some(member(cost, interval, 60_000)))
                .collect();
            balance(0.008, &mut all);
            for one in all.iter_mut().flatten() {
                one.costs = [Duration::ZERO; 2];
            }
            for _ in 0..200 {
                balance(0.008, &mut all);
            }
            prop_assert!(all.iter().flatten().all(|one| one.every == one.interval));
        }
    }

    #[test]
    fn the_costliest_is_slowed_and_the_cheap_are_not() {
        // 0.15 %, 0.5 % and 1 % of a core, of which 0.8 % are allowed.
        let mut all = [
            member(300, 200, 5000),
            member(1000, 200, 5000),
            member(2000, 200, 5000),
        ]
        .map(Some);
        balance(0.008, &mut all);
        let every: Vec<_> = all.iter().flatten().map(|one| one.every).collect();
        assert_eq!(every, [ms(200), ms(400), ms(800)]);
        // A counter that wraps cannot wait: the others do.
        let mut all = [member(1000, 20, 39), member(1000, 200, 5000)].map(Some);
        balance(0.008, &mut all);
        let every: Vec<_> = all.iter().flatten().map(|one| one.every).collect();
        assert_eq!(every, [ms(20), ms(3200)]);
    }

    /// A sampler of the tests' own: its intervals, and what a reading costs at a time.
    struct Costly {
        intervals: (Duration, Duration),
        cost: fn(Duration) -> Duration,
    }

    /// Lets `samplers` share one percent of a core until `end` of a clock of the test's own.
    fn play(samplers: &[Costly], end: Duration) -> Vec<Vec<(Reading, Duration)>> {
        let budget = Arc::new(Budget::new(1.0));
        let join = |_: &Costly| (budget.join(Duration::ZERO), Vec::new());
        let mut all: Vec<_> = samplers.iter().map(join).collect();
        loop {
            let due = |(_, (turns, _)): &(usize, &(Turns, Vec<_>))| turns.planned();
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
            seen.push((reading, cpu));
        }
    }

    fn largest_gap(seen: &[(Reading, Duration)], from: Duration, to: Duration) -> Duration {
        let inside =
            |pair: &&[(Reading, Duration)]| pair[0].0.began >= from && pair[1].0.began <= to;
        let gaps = seen.windows(2).filter(inside);
        gaps.map(|pair| pair[1].0.began.saturating_sub(pair[0].0.began))
            .max()
            .unwrap()
    }

    #[test]
    fn under_load_all_together_stay_below_the_budget_and_then_recover() {
        // Readings cost four times as much from 10 to 20 s, as NVML's do while a GPU copies.
        let is_loaded = |now: Duration| (ms(10_000)..ms(20_000)).contains(&now);
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
        let loaded = seen
            .iter()
            .flatten()
            .filter(|(one, _)| is_loaded(one.began));
        let cpu: Duration = loaded.map(|(_, cpu)| *cpu).sum();
        let percent = cpu.as_secs_f64() / 10.0 * 100.0;
        // Unlimited it would be 2.15 %.
        assert!((0.4..1.0).contains(&percent), "{percent} % under load");
        assert!(largest_gap(&seen[0], ms(10_500), ms(20_000)) >= ms(800));
        assert_eq!(largest_gap(&seen[1], ms(0), ms(40_000)), ms(200));
        // What was read less often is marked, and nothing else is.
        let slowed = seen[0].iter().filter(|(one, _)| one.slowed);
        assert!(slowed.clone().count() > 5);
        assert!(slowed.clone().all(|(one, _)| one.began > ms(10_000)));
        assert!(seen.iter().flatten().all(|(one, _)| !one.late));
        assert_eq!(largest_gap(&seen[0], ms(25_000), ms(40_000)), ms(200));
    }

    #[test]
    fn one_delayed_reading_slows_no_sampler() {
        let delayed = Costly {
            intervals: (ms(200), ms(5000)),
            cost: |now| {
                if now == ms(3000) || now.is_zero() {
                    ms(50)
                } else {
                    Duration::from_micros(200)
                }
            },
        };
        let seen = play(&[delayed], ms(10_000));
        assert_eq!(largest_gap(&seen[0], ms(0), ms(10_000)), ms(200));
    }

    #[test]
    fn a_counter_that_wraps_is_read_in_time_whatever_it_costs() {
        let counters = Costly {
            intervals: (ms(20), ms(41)),
            cost: |_| ms(1),
        };
        let gauges = Costly {
            intervals: (ms(200), ms(30_000)),
            cost: |_| ms(2),
        };
        let seen = play(&[counters, gauges], ms(60_000));
        assert_eq!(largest_gap(&seen[0], ms(0), ms(60_000)), ms(40));
        assert!(largest_gap(&seen[1], ms(0), ms(60_000)) <= ms(30_000));
    }

    #[test]
    fn an_edge_is_never_put_off_and_begins_the_grid_anew() {
        let budget = Arc::new(Budget::new(1.0));
        let mut turns = budget.join(ms(0));
        let intervals = (ms(100), ms(5000));
        for (at, in_turn) in [(0, true), (100, true), (130, false)] {
            let reading = turns.begin(ms(at), in_turn, intervals.0);
            assert!(!reading.slowed, "{reading:?}");
            turns.end(reading, ms(at + 3), ms(3), intervals);
        }
        // 3 ms every 400 ms are less than 0.8 %.
        assert_eq!(turns.planned(), ms(530));
        let reading = turns.begin(turns.planned(), true, intervals.0);
        assert!(reading.slowed && !reading.late);
    }

    #[test]
    fn a_sampler_that_left_costs_nothing_and_without_a_limit_none_is_slowed() {
        let intervals = (ms(100), ms(5000));
        let spend = |turns: &mut Turns, cpu| {
            for _ in 0..3 {
                let at = turns.planned();
                let reading = turns.begin(at, true, intervals.0);
                turns.end(reading, at, cpu, intervals);
            }
        };
        let budget = Arc::new(Budget::new(1.0));
        let mut left = budget.join(ms(0));
        spend(&mut left, ms(100));
        assert!(left.planned() > ms(1000));
        drop(left);
        let mut stays = budget.join(ms(0));
        spend(&mut stays, Duration::from_micros(500));
        assert_eq!(stays.planned(), ms(300));
        let mut free = Arc::new(Budget::new(0.0)).join(ms(0));
        spend(&mut free, ms(5000));
        assert_eq!(free.planned(), ms(300));
    }

    #[test]
    fn missed_ticks_are_not_made_up_for() {
        assert_eq!(next_tick(ms(100), ms(20), ms(100)), ms(120));
        assert_eq!(next_tick(ms(100), ms(20), ms(119)), ms(120));
        assert_eq!(next_tick(ms(100), ms(20), ms(171)), ms(180));
        assert_eq!(next_tick(ms(100), ms(20), ms(0)), ms(120));
    }
}
