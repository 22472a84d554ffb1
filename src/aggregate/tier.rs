//! What each tier bought over all places, and how much of it is proven: the first thing to read.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{
    BASELINE, Clarity, Comparison, ComparisonRow, Contrast, Pool, Standing, tier_order,
};
use crate::plan::state::CacheState;
use crate::record::schema::{Source, VerdictStatus};
use crate::stats::geomean;

/// One tier in one cache state, over all places.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TierRow {
    /// The tier's name.
    pub tier: String,
    /// Which cache was warm.
    pub state: CacheState,
    /// `Simulated` as soon as one part is.
    pub source: Source,
    /// Places where it was measured, by verdict.
    pub verdicts: BTreeMap<VerdictStatus, usize>,
    /// Of these, those that are valid without text, as the plan allows.
    pub text_optional: usize,
    /// Of these, those that may be compared with the baseline.
    pub compared: usize,
    /// Of these, those where the time to first token differs by more than the requests' scatter.
    pub clear: usize,
    /// Of the median time to first token.
    pub ttft: Option<Gain>,
    /// Of the median end-to-end latency.
    pub e2e: Option<Gain>,
    /// Of the output throughput.
    pub output: Option<Gain>,
    /// Bottlenecks of its passes, most frequent first, with how many places each.
    pub bottlenecks: Vec<(String, usize)>,
}

/// Speedups over places: their geometric mean and their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Gain {
    /// Geometric mean of the speedups.
    pub mean: f64,
    /// The smallest speedup.
    pub low: f64,
    /// The largest speedup.
    pub high: f64,
}

impl Gain {
    fn of(rows: &[&ComparisonRow], pick: impl Fn(&ComparisonRow) -> &Contrast) -> Option<Self> {
        let speedups: Vec<f64> = rows.iter().filter_map(|row| pick(row).speedup).collect();
        Some(Self {
            mean: geomean(&speedups)?,
            low: speedups.iter().copied().fold(f64::INFINITY, f64::min),
            high: speedups.iter().copied().fold(0.0, f64::max),
        })
    }
}

/// Every tier in every state, the baseline among them: by state, then tier.
pub(crate) fn tiers(comparison: &Comparison) -> Vec<TierRow> {
    let mut all: BTreeSet<(CacheState, (usize, &str))> = BTreeSet::new();
    for pool in &comparison.pools {
        all.insert((pool.place.state, tier_order(&pool.tier)));
    }
    all.into_iter()
        .map(|(state, (_, tier))| row(comparison, state, tier))
        .collect()
}

fn row(comparison: &Comparison, state: CacheState, tier: &str) -> TierRow {
    let pools: Vec<&Pool> = comparison
        .pools
        .iter()
        .filter(|pool| pool.place.state == state && pool.tier == tier)
        .collect();
    let compared: Vec<&ComparisonRow> = comparison
        .rows
        .iter()
        .filter(|row| row.place.state == state && row.tier == tier && tier != BASELINE)
        .filter(|row| row.standing == Standing::Compared)
        .collect();
    let mut verdicts = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for pool in &pools {
        *verdicts.entry(pool.verdict).or_default() += 1;
        if let Some(bottleneck) = &pool.bottleneck {
            *counts.entry(bottleneck).or_default() += 1;
        }
    }
    let mut bottlenecks: Vec<_> = counts
        .into_iter()
        .map(|(name, places)| (name.to_owned(), places))
        .collect();
    bottlenecks.sort_by_key(|(_, places)| std::cmp::Reverse(*places));
    let clear = |row: &&&ComparisonRow| row.ttft.clarity == Clarity::Clear;
    TierRow {
        tier: tier.to_owned(),
        state,
        source: pools
            .iter()
            .map(|pool| pool.source)
            .max()
            .unwrap_or(Source::Measured),
        verdicts,
        text_optional: pools.iter().filter(|pool| pool.is_textless()).count(),
        compared: compared.len(),
        clear: compared.iter().filter(clear).count(),
        ttft: Gain::of(&compared, |row| &row.ttft),
        e2e: Gain::of(&compared, |row| &row.e2e),
        output: Gain::of(&compared, |row| &row.output),
        bottlenecks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::compare;
    use crate::aggregate::fixture::{Bench, rows_of};
    use crate::record::schema::Bottleneck;

    #[test]
    fn a_tier_is_summed_up_from_what_may_be_compared() {
        let mut bench = Bench::new();
        let state = CacheState::Tier;
        for (length, ttft) in [(1024, 50.0), (4096, 200.0), (8192, 400.0)] {
            bench
                .cell("baseline", length, 1, 1)
                .pass(state, &rows_of(&[ttft; 4], 0));
        }
        for (length, status) in [
            (1024, VerdictStatus::Valid),
            (4096, VerdictStatus::Valid),
            (8192, VerdictStatus::Invalid),
        ] {
            bench
                .cell("cpu", length, 1, 1)
                .pass(state, &rows_of(&[25.0; 4], 0))
                .verdict(status, "seen");
        }
        let mut run = bench.run();
        for cell in &mut run.cells {
            cell.passes[0].bottleneck = Some(Bottleneck {
                name: if cell.position < 3 { "compute" } else { "pcie" }.to_owned(),
                reasons: vec![],
            });
        }
        let rows = tiers(&compare(&run).unwrap());
        assert_eq!(rows.len(), 2);
        let (baseline, cpu) = (&rows[0], &rows[1]);
        assert_eq!((baseline.tier.as_str(), baseline.ttft), (BASELINE, None));
        assert_eq!(
            baseline.bottlenecks,
            [("compute".to_owned(), 2), ("pcie".to_owned(), 1)]
        );
        // 2 and 8 times as fast: the geometric mean is 4. The invalid 16 is not in it.
        let gain = cpu.ttft.unwrap();
        assert!((gain.mean - 4.0).abs() < 1e-12, "{gain:?}");
        assert_eq!((gain.low, gain.high), (2.0, 8.0));
        assert_eq!((cpu.compared, cpu.clear), (2, 2));
        assert_eq!(cpu.verdicts[&VerdictStatus::Valid], 2);
        assert_eq!(cpu.verdicts[&VerdictStatus::Invalid], 1);
    }
}
