//! What the samplers may cost together, and how they divide it.
//!
//! All of them share a part of one core. As long as they ask for less, each reads as often as the
//! settings say. Where they ask for more (calls of NVML cost several times as much under load), those
//! that cost most are slowed first: no sampler gets more than a level at which all together fit. A
//! sampler that must read often (a counter that wraps) keeps what that takes, and the others get the
//! rest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Part of the budget that is divided: what is left is for the start of samplers and for readings at
/// the edges of phases, which are never put off.
const DIVIDED: f64 = 0.8;
/// What a sampler did not use is its own for this long.
const CREDIT: Duration = Duration::from_secs(1);
/// Weight of the newest reading in the mean of what a reading costs.
const NEWEST: f64 = 0.125;
/// Most that one reading counts for in that mean, in means: one that was held up tells little of the
/// next, and what costs more from now on has raised the mean after a few.
const MOST_COUNTED: f64 = 8.0;
/// Of the first readings, while caches and clocks are cold, the cheapest tells what the next costs.
const COLD: u64 = 4;
/// No gap is longer than this many intervals, unless readings cost so much on the mean: what one
/// reading cost more than others is paid for by several gaps.
const MOST_SKIPPED: f64 = 5.0;
/// Readings in a row for which the budget must be too small before that is said.
const PATIENCE: u32 = 20;

/// What one sampler asks for, as shares of a core.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    /// At the interval that was set.
    wanted: f64,
    /// At the longest interval that it can bear.
    least: f64,
}

/// A share of one core, divided among the samplers that joined.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    members: Mutex<Vec<Option<Demand>>>,
}

impl Budget {
    /// `percent` of one core; 0 is no limit.
    pub fn new(percent: f64) -> Self {
        let limited = percent > 0.0;
        Self {
            share: if limited {
                percent / 100.0 * DIVIDED
            } else {
                f64::INFINITY
            },
            members: Mutex::default(),
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Option<Demand>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more sampler, whose clock stands at `now`. It leaves when its pace is dropped.
    pub fn join(self: &Arc<Self>, now: Duration) -> Pace {
        let mut members = self.members();
        let free = members.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            members.push(None);
            members.len() - 1
        });
        members[place] = Some(Demand::default());
        Pace {
            budget: Arc::clone(self),
            place,
            cost_s: 0.0,
            readings: 0,
            paid_s: now.as_secs_f64(),
            longest_s: 0.0,
            short: 0,
        }
    }

    /// Sets what the member at `place` asks for; says what it gets, and whether all together get
    /// too little because of it.
    fn ask(&self, place: usize, demand: Demand) -> (f64, bool) {
        if self.share.is_infinite() {
            return (f64::INFINITY, false);
        }
        let mut members = self.members();
        members[place] = Some(demand);
        let all = || members.iter().flatten();
        let given = divide(self.share, all, demand);
        let least: f64 = all().map(|member| member.least).sum();
        let is_largest = all().all(|member| member.least <= demand.least);
        (given, least > self.share && is_largest)
    }
}

/// The part of `share` for one of `all` that asks for `mine`: where they ask for more than there is,
/// what it wants up to a level that is the same for all, but never less than it needs.
fn divide<'a, I>(share: f64, all: impl Fn() -> I, mine: Demand) -> f64
where
    I: Iterator<Item = &'a Demand>,
{
    let at = |level: f64, of: &Demand| level.min(of.wanted).max(of.least);
    let wanted: f64 = all().map(|of| of.wanted.max(of.least)).sum();
    if wanted <= share {
        // Nobody is slowed; what is left makes up for a reading that cost more than the mean.
        return mine.wanted.max(mine.least) + (share - wanted);
    }
    let (mut low, mut high) = (0.0, share);
    for _ in 0..40 {
        let level = f64::midpoint(low, high);
        let sum: f64 = all().map(|of| at(level, of)).sum();
        if sum > share {
            high = level;
        } else {
            low = level;
        }
    }
    at(low, &mine)
}

/// When one sampler may read again.
#[derive(Debug)]
pub struct Pace {
    budget: Arc<Budget>,
    place: usize,
    /// Mean CPU time of a reading, seconds.
    cost_s: f64,
    readings: u64,
    /// Until when what was used is paid for, seconds on the recording's clock.
    paid_s: f64,
    /// Longest gap to the next reading, seconds.
    longest_s: f64,
    /// Readings in a row for which the budget was too small because of this sampler.
    short: u32,
}

impl Pace {
    /// Accounts for a reading that ended at `now` and used `cpu`. `interval` is the time between two
    /// readings as it was set, `longest` the most that it may become.
    pub fn spend(&mut self, now: Duration, cpu: Duration, interval: Duration, longest: Duration) {
        let cost_s = cpu.as_secs_f64();
        self.readings += 1;
        // The first reading opens files and finds its way: it tells nothing of the next.
        self.cost_s = match self.readings {
            0..=2 => cost_s,
            3..=COLD => self.cost_s.min(cost_s),
            _ => {
                let counted_s = cost_s.min(self.cost_s * MOST_COUNTED);
                self.cost_s + (counted_s - self.cost_s) * NEWEST
            }
        };
        let at = |every: Duration| self.cost_s / every.as_secs_f64().max(1e-6);
        let demand = Demand {
            wanted: at(interval),
            least: at(longest.max(interval)),
        };
        let (share, is_short) = self.budget.ask(self.place, demand);
        self.short = if is_short { self.short + 1 } else { 0 };
        if self.readings == 1 {
            return;
        }
        let share = share.max(1e-9);
        let steady_s = if self.readings > COLD {
            self.cost_s / share * 2.0
        } else {
            0.0
        };
        self.longest_s = (interval.as_secs_f64() * MOST_SKIPPED).max(steady_s);
        let now_s = now.as_secs_f64();
        let from_s = self.paid_s.max(now_s - CREDIT.as_secs_f64());
        // One reading that was held up is no reason to slow down for long.
        let most_s = now_s + longest.as_secs_f64();
        self.paid_s = (from_s + cost_s / share).min(most_s);
    }

    /// The first tick at or after `planned` that is paid for, on the grid of `interval`, but no later
    /// than `longest` after the reading at `last`.
    pub fn next(
        &self,
        planned: Duration,
        last: Duration,
        (interval, longest): (Duration, Duration),
    ) -> Duration {
        let ticks = |time_s: f64| time_s / interval.as_secs_f64().max(1e-6);
        // A tick that is paid for but for a rounding error is.
        let paid_s = self.paid_s.min(last.as_secs_f64() + self.longest_s);
        let wanted = (ticks(paid_s - planned.as_secs_f64()) - 1e-6).ceil();
        let bearable = (last + longest).saturating_sub(planned);
        let most = (ticks(bearable.as_secs_f64()) + 1e-6).floor();
        let skipped = wanted.min(most).max(0.0) as u32;
        planned + interval.saturating_mul(skipped)
    }

    /// Whether the budget is too small for long already because this sampler cannot read less often.
    /// True once.
    pub fn falls_short(&mut self) -> bool {
        if self.short < PATIENCE {
            return false;
        }
        self.short = 0;
        true
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.budget.members()[self.place] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(wanted: f64, least: f64) -> Demand {
        Demand { wanted, least }
    }

    fn divided(share: f64, all: &[Demand]) -> Vec<f64> {
        all.iter()
            .map(|mine| divide(share, || all.iter(), *mine))
            .collect()
    }

    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found_one, expected_one) in found.iter().zip(expected) {
            assert!(
                (found_one - expected_one).abs() < 1e-6,
                "{found:?}, not {expected:?}"
            );
        }
    }

    #[test]
    fn the_costly_are_slowed_and_the_cheap_are_not() {
        // Together 16 of 9: the cheap one gets what it wants, the others the same.
        let all = [demand(1.0, 0.1), demand(5.0, 0.1), demand(10.0, 0.1)];
        assert_near(&divided(9.0, &all), &[1.0, 4.0, 4.0]);
        // One that must read often keeps what that takes.
        let all = [demand(1.0, 0.1), demand(7.0, 6.0), demand(10.0, 0.1)];
        assert_near(&divided(9.0, &all), &[1.0, 6.0, 2.0]);
        // Enough for all: what is left is for a reading that costs more than others.
        let all = [demand(1.0, 0.1), demand(2.0, 0.1)];
        assert_near(&divided(9.0, &all), &[7.0, 8.0]);
    }

    #[test]
    fn where_the_needs_alone_are_too_much_the_others_get_their_least() {
        let all = [demand(2.0, 0.1), demand(20.0, 12.0)];
        assert_near(&divided(9.0, &all), &[0.1, 12.0]);
        let budget = Arc::new(Budget::new(1.0));
        let ms = Duration::from_millis;
        let mut gauges = budget.join(ms(0));
        let mut counters = budget.join(ms(0));
        let mut said = (0, 0);
        for tick in 0..60 {
            gauges.spend(ms(tick * 200), ms(1), ms(200), ms(30_000));
            counters.spend(ms(tick * 20), ms(1), ms(20), ms(40));
            said.0 += u32::from(gauges.falls_short());
            said.1 += u32::from(counters.falls_short());
        }
        assert_eq!(said.0, 0, "it is not the gauges that cannot wait");
        assert!(said.1 > 0);
    }

    #[test]
    fn a_tick_is_skipped_until_it_is_paid_for_but_not_beyond_the_longest_gap() {
        let ms = Duration::from_millis;
        let budget = Arc::new(Budget::new(1.0 / DIVIDED));
        let mut pace = budget.join(ms(0));
        // The first reading is its start.
        pace.spend(ms(0), ms(50), ms(100), ms(5000));
        assert_eq!(pace.next(ms(100), ms(0), (ms(100), ms(5000))), ms(100));
        // 3 ms at one percent of a core are paid for after 300 ms.
        pace.spend(ms(0), ms(3), ms(100), ms(5000));
        assert_eq!(pace.next(ms(100), ms(0), (ms(100), ms(5000))), ms(300));
        assert_eq!(pace.next(ms(100), ms(0), (ms(100), ms(250))), ms(200));
        assert_eq!(pace.next(ms(400), ms(300), (ms(100), ms(5000))), ms(400));
    }

    #[test]
    fn readings_that_cost_more_at_first_or_once_leave_no_long_gaps() {
        let ms = Duration::from_millis;
        let us = Duration::from_micros;
        let intervals = (ms(200), ms(5000));
        let budget = Arc::new(Budget::new(1.0));
        let mut all: Vec<Pace> = (0..6).map(|_| budget.join(ms(0))).collect();
        let mut planned = vec![ms(0); all.len()];
        let mut gaps = Vec::new();
        for tick in 0..1000 {
            let now = ms(tick * 20);
            for (pace, planned) in all.iter_mut().zip(&mut planned) {
                if *planned > now {
                    continue;
                }
                // Six at 1 ms a second, but for the cold start, and one reading of 30 ms at 10 s.
                let cost = us(match tick {
                    0..=20 => 2000,
                    500..=509 => 30_000,
                    _ => 200,
                });
                pace.spend(now, cost, intervals.0, intervals.1);
                let next = pace.next(now + intervals.0, now, intervals);
                gaps.push((now, next.saturating_sub(now)));
                *planned = next;
            }
        }
        let longest = gaps.iter().map(|(_, gap)| *gap).max().unwrap();
        assert_eq!(longest, ms(1000), "{gaps:?}");
        let slowed = gaps.iter().filter(|(_, gap)| *gap > intervals.0);
        assert!(slowed.clone().count() > 20);
        let is_near = |at: Duration| at <= ms(4000) || (ms(10_000)..=ms(16_000)).contains(&at);
        assert!(slowed.clone().all(|(at, _)| is_near(*at)), "{gaps:?}");
    }

    #[test]
    fn who_left_takes_nothing_and_no_limit_slows_nobody() {
        let ms = Duration::from_millis;
        let budget = Arc::new(Budget::new(1.0 / DIVIDED));
        let mut left = budget.join(ms(0));
        left.spend(ms(0), ms(100), ms(100), ms(200));
        drop(left);
        let mut pace = budget.join(ms(0));
        pace.spend(ms(0), ms(1), ms(100), ms(5000));
        assert_eq!(pace.next(ms(100), ms(0), (ms(100), ms(5000))), ms(100));
        let mut free = Arc::new(Budget::new(0.0)).join(ms(0));
        free.spend(ms(0), ms(5000), ms(100), ms(5000));
        assert_eq!(free.next(ms(100), ms(0), (ms(100), ms(5000))), ms(100));
    }
}
