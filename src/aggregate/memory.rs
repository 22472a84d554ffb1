//! How much KV the GPU and a tier hold, and how much of the prompts came from the tier.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::plan::server::LmcacheMode;
use crate::plan::tier::{TierKind, TierSpec};
use crate::record::schema::{CellRecord, PassRecord};
use crate::record::way::Way;

const MIB: f64 = 1_048_576.0;

/// What one pass had room for, and what came from its tier. What is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// Tokens of KV that the GPU holds.
    pub gpu_tokens: Option<f64>,
    /// What the tier holds by its settings, bytes.
    pub tier_bytes: Option<f64>,
    /// The same in tokens.
    pub tier_tokens: Option<f64>,
    /// Prompt tokens that came from the tier, percent of all.
    pub hit_percent: Option<f64>,
    /// What moved from the tier, MiB a request.
    pub moved_mib: Option<f64>,
}

impl Memory {
    pub(super) fn of(cell: &CellRecord, pass: &PassRecord) -> Self {
        let of = |evidence: Evidence| pass.evidence.get(evidence.name()).copied();
        let gpu_tokens = of(Evidence::GpuKvTokens);
        let Some(tier) = tier(cell) else {
            return Self {
                gpu_tokens,
                ..Self::default()
            };
        };
        let mode = cell.server.lmcache.unwrap_or(LmcacheMode::InProcess);
        let number = |name: &str| cell.identity.get(name)?.parse::<f64>().ok();
        let capacity = tier.capacity_bytes(mode, number("plan.server.sim.redis_gib"));
        let tier_bytes = capacity.map(|(_, bytes)| bytes);
        let token_bytes = of(Evidence::KvBytesPerToken).filter(|bytes| *bytes > 0.0);
        let prompts = [
            Evidence::ComputedTokens,
            Evidence::GpuCacheTokens,
            Evidence::ExternalTokens,
        ];
        let all: Option<f64> = prompts.into_iter().map(of).sum();
        let share = of(Evidence::ExternalTokens).zip(all.filter(|all| *all > 0.0));
        Self {
            gpu_tokens,
            tier_bytes,
            tier_tokens: tier_bytes
                .zip(token_bytes)
                .map(|(all, one)| (all / one).floor()),
            hit_percent: share.map(|(from_tier, all)| 100.0 * from_tier / all),
            moved_mib: moved_mib(pass),
        }
    }
}

fn moved_mib(pass: &PassRecord) -> Option<f64> {
    let rows = pass.ledger.iter();
    let moved = rows
        .filter(|row| Way::named(&row.path).is_some_and(Way::is_load))
        .filter_map(|row| row.moved_bytes)
        .reduce(f64::max)?;
    (pass.counts.ok > 0).then(|| moved / MIB / pass.counts.ok as f64)
}

/// The tier as the plan described it; `None` for the baseline, and for a cell without a plan.
fn tier(cell: &CellRecord) -> Option<TierSpec> {
    let is_planned = cell.identity.contains_key("plan.tier.kind");
    let kind = cell
        .kind_of_tier()
        .filter(|kind| *kind != TierKind::Baseline && is_planned)?;
    let mut tier = TierSpec::new(kind.name(), kind);
    for (name, value) in &cell.identity {
        if let Some(key) = name.strip_prefix("plan.tier.settings.")
            && let Ok(number) = value.parse::<f64>()
        {
            tier.settings.insert(key.to_owned(), Value::from(number));
        }
    }
    Some(tier)
}

#[cfg(test)]
mod tests {
    use crate::aggregate::fixture::{Bench, rows_of};
    use crate::aggregate::summarize;
    use crate::plan::state::CacheState;
    use crate::record::schema::LedgerRow;

    use super::Memory;

    /// A pass of four requests on a tier of 5 GiB, with KV of 131,072 bytes a token.
    fn memory(tier: &str, planned: &[(&str, &str)], evidence: &[(&str, f64)]) -> Memory {
        let ways = [
            ("pcie-rx", Some(400.0)),
            ("pcie-tx", Some(9e9)),
            ("disk-read", None),
        ];
        memory_of(tier, planned, evidence, &ways)
    }

    /// The same, where `ways` carried so many MiB.
    fn memory_of(
        tier: &str,
        planned: &[(&str, &str)],
        evidence: &[(&str, f64)],
        ways: &[(&str, Option<f64>)],
    ) -> Memory {
        let mut bench = Bench::new();
        let mut cell = bench.cell(tier, 1024, 1, 1);
        for (name, value) in planned {
            cell = cell.planned(name, value);
        }
        cell.pass(CacheState::Tier, &rows_of(&[1.0; 4], 0));
        let mut run = bench.run();
        let pass = &mut run.cells[0].passes[0];
        let evidence = evidence
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        pass.evidence.extend(evidence);
        for (path, moved_mib) in ways {
            pass.ledger.push(LedgerRow {
                path: (*path).to_owned(),
                tokens: 0.0,
                expected_bytes: None,
                moved_bytes: moved_mib.map(|mib| mib * 1_048_576.0),
                method: "gpm".to_owned(),
            });
        }
        summarize(&run).unwrap().rows[0].memory
    }

    const EVIDENCE: [(&str, f64); 5] = [
        ("gpu_kv_tokens", 224_816.0),
        ("kv_bytes_per_token", 131_072.0),
        ("computed_tokens", 100.0),
        ("gpu_cache_tokens", 0.0),
        ("external_tokens", 300.0),
    ];

    #[test]
    fn a_tier_holds_its_size_by_the_kv_of_a_token() {
        let kind = ("plan.tier.kind", "cpu");
        let default = memory("cpu", &[kind], &EVIDENCE);
        assert_eq!(default.gpu_tokens, Some(224_816.0));
        assert_eq!(default.tier_tokens, Some(40_960.0), "5 GiB by default");
        assert_eq!(
            (default.hit_percent, default.moved_mib),
            (Some(75.0), Some(100.0))
        );
        let size = ("plan.tier.settings.max_local_cpu_size", "1");
        assert_eq!(
            memory("cpu", &[kind, size], &EVIDENCE).tier_tokens,
            Some(8_192.0)
        );
    }

    #[test]
    fn what_came_from_any_tier_is_in_the_table_and_what_went_to_it_is_not() {
        for (tier, path, shown) in [
            ("valkey", "valkey-read", Some(100.0)),
            ("native", "engine-load", Some(100.0)),
            ("cpu", "lmcache-load", Some(100.0)),
            ("valkey", "valkey-write", None),
            ("connector", "connector-load", Some(100.0)),
        ] {
            let kind = ("plan.tier.kind", tier);
            let memory = memory_of(tier, &[kind], &EVIDENCE, &[(path, Some(400.0))]);
            assert_eq!(memory.moved_mib, shown, "{path}");
        }
    }

    #[test]
    fn what_is_not_known_is_absent_and_not_0() {
        let kind = ("plan.tier.kind", "cpu");
        let nothing = memory("cpu", &[kind], &[]);
        assert_eq!((nothing.gpu_tokens, nothing.tier_tokens), (None, None));
        assert_eq!(nothing.hit_percent, None);
        let redis = memory("redis", &[("plan.tier.kind", "redis")], &EVIDENCE);
        assert_eq!(redis.tier_bytes, None, "a real Redis knows no bound");
        let baseline = memory("baseline", &[("plan.tier.kind", "baseline")], &EVIDENCE);
        assert_eq!((baseline.tier_tokens, baseline.hit_percent), (None, None));
        assert_eq!(memory("cpu", &[], &EVIDENCE).tier_tokens, None, "imported");
    }
}
