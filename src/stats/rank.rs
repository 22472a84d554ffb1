//! Whether two samples differ by more than their own scatter.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rand::seq::SliceRandom as _;

use crate::stats::normal;
use crate::units::Seed;

/// Additions that the exact distribution may take: 49 against 49 values, a tenth of a second.
const EXACT_COST: usize = 30_000_000;

/// Values up to which tied samples, too large for the exact distribution, are permuted; beyond,
/// the normal approximation is as good.
const PERMUTED_VALUES: usize = 1000;

/// Random permutations of larger samples with ties.
const PERMUTATIONS: u32 = 10_000;

/// The result of the rank test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RankTest {
    /// U of the first sample: over all pairs, how often its value is the larger one, ties half.
    pub u: f64,
    /// The two-sided probability of a U at least this far out, if both samples came from one
    /// distribution: twice the smaller tail.
    pub p: f64,
    /// How P was computed.
    pub method: RankMethod,
}

/// How the probability of a rank test was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RankMethod {
    /// All arrangements counted.
    Exact,
    /// All arrangements counted, with the ties that there are.
    ExactTied,
    /// Arrangements drawn at random, seeded: large samples with ties.
    Permuted,
    /// The normal approximation with correction for ties and continuity: very large samples.
    Normal,
}

/// [`mann_whitney`], but `None` when a sample has fewer than 4 values.
pub(crate) fn rank_test(first: &[f64], second: &[f64]) -> Option<RankTest> {
    if first.len().min(second.len()) < 4 {
        return None;
    }
    mann_whitney(first, second)
}

/// The Mann-Whitney U test: Mann & Whitney, "On a Test of Whether one of Two Random Variables is
/// Stochastically Larger than the Other", Annals of Mathematical Statistics 18(1), 1947. `None`
/// for an empty sample.
///
/// Exact where the samples are small enough to count every arrangement of their ranks, ties and
/// all; else by permutation where there are ties, or by the normal approximation (as R's
/// `wilcox.test(exact = FALSE)`). It assumes that values are independent; requests of one pass
/// share a server, so P over requests is a guard against reading noise, not proof.
pub(crate) fn mann_whitney(first: &[f64], second: &[f64]) -> Option<RankTest> {
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let ranks = Ranks::of(first, second);
    let u = ranks.u();
    if ranks.tie_term > 0.0 && ranks.all_equal() {
        return Some(RankTest {
            u,
            p: 1.0,
            method: RankMethod::ExactTied,
        });
    }
    let tied = ranks.tie_term > 0.0;
    let (p, method) = if ranks.cost() <= EXACT_COST {
        let method = if tied {
            RankMethod::ExactTied
        } else {
            RankMethod::Exact
        };
        (ranks.exact(), method)
    } else if tied && ranks.doubled.len() <= PERMUTED_VALUES {
        (ranks.permuted(), RankMethod::Permuted)
    } else {
        (ranks.approximate(), RankMethod::Normal)
    };
    Some(RankTest { u, p, method })
}

/// The ranks of two samples taken together.
struct Ranks {
    /// Twice the rank of each value, whole also for ties; those of the first sample first.
    doubled: Vec<usize>,
    /// How many are of the first sample.
    first: usize,
    /// Sum of `t^3 - t` over groups of `t` equal values.
    tie_term: f64,
}

impl Ranks {
    fn of(first: &[f64], second: &[f64]) -> Self {
        let pooled: Vec<f64> = first.iter().chain(second).copied().collect();
        let mut order: Vec<usize> = (0..pooled.len()).collect();
        order.sort_by(|a, b| pooled[*a].total_cmp(&pooled[*b]));
        let mut doubled = vec![0; pooled.len()];
        let (mut tie_term, mut before) = (0.0, 0);
        for tied in order.chunk_by(|a, b| pooled[*a].total_cmp(&pooled[*b]).is_eq()) {
            for at in tied {
                doubled[*at] = 2 * before + tied.len() + 1;
            }
            let size = tied.len() as f64;
            tie_term += size.powi(3) - size;
            before += tied.len();
        }
        Self {
            doubled,
            first: first.len(),
            tie_term,
        }
    }

    fn all_equal(&self) -> bool {
        self.doubled.iter().all(|rank| *rank == self.doubled[0])
    }

    /// Twice the rank sum of the first sample.
    fn sum(&self) -> usize {
        self.doubled[..self.first].iter().sum()
    }

    fn u(&self) -> f64 {
        let n = self.first as f64;
        self.sum() as f64 / 2.0 - n * (n + 1.0) / 2.0
    }

    fn smaller(&self) -> usize {
        self.first.min(self.doubled.len() - self.first)
    }

    /// Additions that [`Self::exact`] takes, about.
    fn cost(&self) -> usize {
        let (all, small) = (self.doubled.len(), self.smaller());
        all.saturating_mul(small).saturating_mul(2 * all * small) / 2
    }

    /// Counts, over every choice of as many of the ranks as the smaller sample has, how often
    /// each sum comes: the distribution given the ties.
    fn exact(&self) -> f64 {
        let size = self.smaller();
        let of_smaller: usize = if size == self.first {
            self.sum()
        } else {
            self.doubled[self.first..].iter().sum()
        };
        let counts = if self.tie_term > 0.0 {
            let mut ranks = self.doubled.clone();
            ranks.sort_unstable();
            ways(&ranks, size).into()
        } else {
            untied(size, self.doubled.len())
        };
        let total: f64 = counts.iter().sum();
        let low: f64 = counts[..=of_smaller].iter().sum();
        let high: f64 = counts[of_smaller..].iter().sum();
        (2.0 * low.min(high) / total).min(1.0)
    }

    fn permuted(&self) -> f64 {
        let mut rng = Seed(42).derive("rank test").rng();
        let mut ranks = self.doubled.clone();
        let seen = self.sum();
        let (mut low, mut high) = (1_u32, 1_u32); // what was seen is one arrangement
        for _ in 0..PERMUTATIONS {
            let (drawn, _) = ranks.partial_shuffle(&mut rng, self.first);
            let sum: usize = drawn.iter().sum();
            low += u32::from(sum <= seen);
            high += u32::from(sum >= seen);
        }
        (2.0 * f64::from(low.min(high)) / f64::from(PERMUTATIONS + 1)).min(1.0)
    }

    fn approximate(&self) -> f64 {
        let total = self.doubled.len() as f64;
        let (n, m) = (self.first as f64, total - self.first as f64);
        let variance = n * m / 12.0 * (total + 1.0 - self.tie_term / (total * (total - 1.0)));
        let distance = ((self.u() - n * m / 2.0).abs() - 0.5).max(0.0);
        normal::two_sided(distance / variance.sqrt())
    }
}

/// Distributions by the number of ranks that are chosen and of all.
type Distributions = BTreeMap<(usize, usize), Arc<[f64]>>;

/// The distributions without ties that were counted already: a report asks for the same few again and
/// again.
static UNTIED: Mutex<Distributions> = Mutex::new(BTreeMap::new());

/// [`ways`] of the ranks 2, 4, ... 2 `all`.
fn untied(size: usize, all: usize) -> Arc<[f64]> {
    let known = || UNTIED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(counts) = known().get(&(size, all)) {
        return Arc::clone(counts);
    }
    let ranks: Vec<usize> = (1..=all).map(|rank| 2 * rank).collect();
    let counts: Arc<[f64]> = ways(&ranks, size).into();
    known().insert((size, all), Arc::clone(&counts));
    counts
}

/// In how many ways `size` of `ranks`, which are ascending, sum to 0, 1, 2, ...
fn ways(ranks: &[usize], size: usize) -> Vec<f64> {
    let largest: usize = ranks[ranks.len() - size..].iter().sum();
    // ways[k][s]: choices of k ranks among those seen that sum to s.
    let mut ways = vec![vec![0.0_f64; largest + 1]; size + 1];
    ways[0][0] = 1.0;
    let mut reach = vec![0_usize; size + 1];
    for (seen, rank) in ranks.iter().enumerate() {
        for k in (1..=size.min(seen + 1)).rev() {
            let (fewer, more) = ways.split_at_mut(k);
            let last = reach[k - 1].min(largest - rank);
            let (fewer, more) = (&fewer[k - 1][..=last], &mut more[0][*rank..=rank + last]);
            for (more, fewer) in more.iter_mut().zip(fewer) {
                *more += fewer;
            }
            reach[k] = reach[k].max(last + rank);
        }
    }
    ways.swap_remove(size)
}

/// The probability by the normal approximation alone.
#[cfg(test)]
pub(super) fn normal_p(first: &[f64], second: &[f64]) -> f64 {
    Ranks::of(first, second).approximate()
}

#[cfg(test)]
mod tests;
