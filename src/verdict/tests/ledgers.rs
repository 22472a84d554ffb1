//! The legs of a pass, the rows of its ledger, and its figures.

use super::*;
use crate::evidence::Evidence;
use crate::plan::adapter::Adapter;
use crate::record::way::Way;
use crate::verdict::legs::{Carried, Leg, are_judged, of_pass};

fn facts(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = proven();
    facts.pcie_rx_bytes = None;
    // What the GPU has is not what the tier stores.
    facts.kv.device = Some(Bounds::exact(50.0));
    change(&mut facts);
    facts
}

/// The legs by path, with the tokens that went each way.
fn paths(change: impl FnOnce(&mut Facts)) -> Vec<(Way, f64)> {
    let legs = of_pass(&facts(change)).into_iter();
    legs.map(|leg| (leg.path, leg.tokens)).collect()
}

fn account(f: &mut Facts, tier: TierKind, ram_tokens: f64, second_tokens: f64) {
    f.tier = tier;
    f.account = Some(TierAccount {
        ram_tokens,
        second_tokens,
    });
}

fn cold(f: &mut Facts, tier: TierKind) {
    (f.state, f.tier) = (CacheState::Cold, tier);
    f.stored_tokens = Some(500.0);
}

#[test]
fn a_pass_has_the_legs_that_somebody_could_see() {
    let (ram, second) = (Way::LmcacheRam, Way::LmcacheSecondLayer);
    assert_eq!(paths(|_| {}), [], "nobody saw any");
    let pcie = |f: &mut Facts| f.pcie_rx_bytes = Some(Bounds::exact(9.0));
    assert_eq!(paths(pcie), [(Way::PcieRx, 10_000.0)]);
    let all_ram = |f: &mut Facts| account(f, TierKind::Cpu, 10_000.0, 0.0);
    assert_eq!(paths(all_ram), [(ram, 10_000.0)]);
    let both = |f: &mut Facts| account(f, TierKind::Cpu, 10_000.0, 5.0);
    assert_eq!(paths(both), [(ram, 10_000.0), (second, 0.0)]);
    let none = |f: &mut Facts| account(f, TierKind::Cpu, 0.0, 0.0);
    assert_eq!(paths(none), [(ram, 10_000.0)], "it should have served");
    let split = |f: &mut Facts| account(f, TierKind::CpuDisk, 6000.0, 4000.0);
    assert_eq!(paths(split), [(ram, 6000.0), (second, 4000.0)]);
    let surplus = |f: &mut Facts| account(f, TierKind::CpuDisk, 12_000.0, 10.0);
    assert_eq!(paths(surplus), [(ram, 12_000.0), (second, 0.0)]);
    assert_eq!(paths(|f| cold(f, TierKind::Cpu)), []);
    let stores = |f: &mut Facts| {
        cold(f, TierKind::Redis);
        f.pcie_tx_bytes = Some(Bounds::exact(9.0));
    };
    assert_eq!(
        paths(stores),
        [(Way::RedisWrite, 500.0), (Way::PcieTx, 500.0)]
    );
    let baseline = |f: &mut Facts| {
        cold(f, TierKind::Baseline);
        f.pcie_tx_bytes = Some(Bounds::exact(9.0));
    };
    assert_eq!(paths(baseline), [], "it has no tier");
    let native = |f: &mut Facts| {
        cold(f, TierKind::Native);
        f.engine.store_bytes = Some(1e6);
        f.pcie_tx_bytes = Some(Bounds::exact(9.0));
    };
    assert_eq!(
        paths(native),
        [(Way::PcieTx, 10_000.0)],
        "bytes by their size"
    );
}

#[test]
fn counters_of_a_real_machine_err_and_simulated_ones_do_not() {
    for (simulated, low, method) in [(true, 1e6, "simulated"), (false, 0.98e6, "proc-io")] {
        let facts = facts(|f| {
            (f.tier, f.simulated) = (TierKind::Disk, simulated);
            f.disk_read_bytes = Some(1e6);
        });
        let leg = &of_pass(&facts)[0];
        assert_eq!(leg.carried, Carried::Bytes(Bounds { low, high: 1e6 }));
        assert_eq!(leg.method, method);
    }
}

#[test]
fn legs_are_judged_where_the_tier_was_to_serve_or_to_have_stored() {
    let late = Stores::Unfinished {
        waited: Duration::ZERO,
    };
    for (state, stores, expected) in [
        (CacheState::Cold, Stores::Finished, true),
        (CacheState::Cold, late, false),
        (CacheState::Gpu, Stores::Finished, false),
        (CacheState::Tier, Stores::Finished, true),
        (CacheState::Restart, Stores::Finished, false),
    ] {
        let facts = facts(|f| (f.state, f.stores) = (state, stores));
        assert_eq!(are_judged(&facts), expected, "{state}");
    }
}

#[test]
fn each_leg_is_named_by_its_way() {
    for (path, words) in [
        (Way::DiskRead, "read from disk"),
        (Way::DiskWrite, "written to disk"),
        (Way::RedisRead, "read from Redis"),
        (Way::RedisWrite, "written to Redis"),
        (Way::PcieRx, "moved to the GPU over PCIe"),
        (Way::PcieTx, "moved from the GPU over PCIe"),
        (Way::LmcacheRam, "from RAM"),
        (Way::EngineLoad, "loaded by vLLM's own account"),
        (Way::LmcacheLoad, "loaded to the GPU"),
        (Way::LmcacheSecondLayer, "from the second layer"),
    ] {
        let leg = Leg {
            is_smaller: false,
            path,
            tokens: 1.0,
            needed: None,
            carried: Carried::Tokens(0.9),
            method: "gpm",
        };
        let (status, reason) = leg.judge(0.9).unwrap();
        assert_eq!(status, VerdictStatus::Valid, "just enough");
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn the_ledger_has_a_row_a_leg() {
    let rows = ledger::rows(&facts(|f| {
        account(f, TierKind::Cpu, 9000.0, 0.0);
        f.pcie_rx_bytes = Some(Bounds {
            low: 1e6,
            high: 1.2e6,
        });
    }));
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| (row.path, row.expected_bytes, row.moved_bytes, row.method))
        .collect();
    let row = |path: &str, moved, method: &str| {
        (path.to_owned(), Some(1e6), Some(moved), method.to_owned())
    };
    let expected = [
        row("pcie-rx", 1.1e6, "gpm"),
        row("lmcache-ram", 0.9e6, "lmcache-account"),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn what_a_cold_pass_stored_is_counted_on_its_way_to_the_tier() {
    for (tier, path, moved) in [
        (TierKind::Disk, Way::DiskWrite, 100.0),
        (TierKind::CpuDisk, Way::DiskWrite, 100.0),
        (TierKind::Redis, Way::RedisWrite, 200.0),
        (TierKind::Adapter(Adapter::Valkey), Way::ValkeyWrite, 200.0),
    ] {
        let facts = facts(|f| {
            cold(f, tier);
            f.simulated = true;
            (f.disk_read_bytes, f.redis_read_bytes) = (Some(8.0), Some(9.0));
            (f.disk_write_bytes, f.redis_write_bytes) = (Some(100.0), Some(200.0));
        });
        let rows = ledger::rows(&facts).into_iter();
        let rows: Vec<_> = rows
            .map(|row| (row.path, row.expected_bytes, row.moved_bytes))
            .collect();
        let expected = (path.to_string(), Some(500.0 * 100.0), Some(moved));
        assert_eq!(rows, [expected], "{tier:?}");
    }
}

#[test]
fn the_interface_stands_beside_the_legs_of_redis() {
    let network = moved::RedisNetwork {
        interface: "eth0".into(),
        rx_bytes: 7.0,
        tx_bytes: 3.0,
    };
    let facts = facts(|f| {
        f.tier = TierKind::Redis;
        f.redis_read_bytes = Some(5.0);
    });
    let paths = |network| {
        let rows = ledger::rows_beside(&facts, network).into_iter();
        rows.map(|row| row.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(Some(&network)), ["redis-read", "network-rx"]);
    assert_eq!(paths(None), ["redis-read"]);
}

/// Facts of which most figures are known.
fn full() -> Facts {
    facts(|f| {
        f.by_source = Some(BySource {
            computed_tokens: 20.0,
            gpu_tokens: 100.0,
            external_tokens: 400.0,
        });
        f.logs.stored = log_counts::Moved {
            lines: 4,
            tokens: 40.0,
            cost_ms: 10.0,
        };
        f.logs.retrieved = log_counts::Moved {
            lines: 1,
            tokens: 9.0,
            cost_ms: 3.0,
        };
        account(f, TierKind::CpuDisk, 6.0, 5.0);
        f.probe = Some(probed(30.0, 7.0, 11.0));
        f.engine.cached = Some(CachedTokens {
            gpu_tokens: 1.0,
            ram_tokens: 2.0,
            behind_tokens: 3.0,
            unnamed_tokens: 4.0,
        });
        f.canaries.as_mut().unwrap().sight.altered_changed = 1;
        f.engine.loaded_tokens = Some(8.0);
        f.causes.fill = [(Failure::BufferFull, 3), (Failure::LoadFailed, 5)].into();
        f.causes.documents = Some(Documents { missed: 1, of: 2 });
        f.counted.server_prompt_tokens = Some(77.0);
        f.canaries_in_load = Some(Canaries {
            sight: Sight {
                tolerance: f64::INFINITY,
                ..canaries(2, 2, 2).sight
            },
            asked: 3,
            ..canaries(2, 1, 0)
        });
    })
}

#[test]
fn figures_are_those_that_are_known() {
    let figures = measures::of_facts(&full());
    for (evidence, expected) in [
        (Evidence::ComputedTokens, Some(20.0)),
        (Evidence::GpuCacheTokens, Some(100.0)),
        (Evidence::ExternalTokens, Some(400.0)),
        (Evidence::ExpectedHitTokens, Some(10_000.0)),
        (Evidence::SharedTokens, Some(10_100.0)),
        (Evidence::HitsPerRequestTokens, Some(50.0)),
        (Evidence::LmcacheRamTokens, Some(6.0)),
        (Evidence::LmcacheSecondLayerTokens, Some(5.0)),
        (Evidence::ProbeExpectedTokens, Some(30.0)),
        (Evidence::ProbeGpuTokens, Some(7.0)),
        (Evidence::ProbeExternalTokens, Some(11.0)),
        (Evidence::CachedRamTokens, Some(2.0)),
        (Evidence::CachedBehindTokens, Some(3.0)),
        (Evidence::CachedUnnamedTokens, Some(4.0)),
        (Evidence::LogStoredTokens, Some(40.0)),
        (Evidence::TierStoreMeanMs, Some(2.5)),
        (Evidence::LogRetrievedTokens, Some(9.0)),
        // A server of its own, which counts what it loaded, does not time the loads.
        (Evidence::TierLoadMeanMs, None),
        (Evidence::LmcacheLoadedTokens, Some(8.0)),
        (Evidence::FillFailures, Some(3.0)),
        (Evidence::DocumentsMissed, Some(1.0)),
        (Evidence::ServerPromptTokens, Some(77.0)),
        (Evidence::ServerOutputTokens, None),
        (Evidence::CanariesAsked, Some(2.0)),
        (Evidence::CanariesAltered, Some(2.0)),
        (Evidence::CanariesAlteredChanged, Some(1.0)),
        (Evidence::CanaryToleranceNats, Some(0.1)),
        (Evidence::InLoadCanaries, Some(3.0)),
        (Evidence::InLoadCanariesAnswered, Some(2.0)),
        (Evidence::InLoadCanariesSame, Some(1.0)),
        (Evidence::InLoadToleranceNats, None),
    ] {
        assert_eq!(figures.get(&evidence).copied(), expected, "{evidence:?}");
    }
    let transfers = measures::of_transfers(&full().logs);
    let expected = [(Evidence::TierStores, 4.0), (Evidence::TierLoads, 1.0)];
    assert_eq!(transfers, expected.into());
}

#[test]
fn figures_of_bytes_are_each_of_their_own_way() {
    let bytes = facts(|f| {
        (f.pcie_rx_bytes, f.pcie_tx_bytes) = (Some(Bounds::exact(1.0)), Some(Bounds::exact(2.0)));
        (f.disk_read_bytes, f.disk_write_bytes) = (Some(3.0), Some(4.0));
        (f.redis_read_bytes, f.redis_write_bytes) = (Some(5.0), Some(6.0));
        (f.engine.load_bytes, f.engine.store_bytes) = (Some(7.0), Some(8.0));
        f.engine.second_read_bytes = Some(9.0);
        f.engine.second_write_bytes = Some(10.0);
        f.engine.staged_bytes = Some(11.0);
        (f.counted.running_max, f.counted.server_output_tokens) = (Some(12.0), Some(13.0));
        f.causes.documents = Some(Documents { missed: 1, of: 14 });
    });
    let figures = measures::of_facts(&bytes);
    for (evidence, expected) in [
        (Evidence::PcieRxBytes, 1.0),
        (Evidence::PcieTxBytes, 2.0),
        (Evidence::DiskReadBytes, 3.0),
        (Evidence::DiskWriteBytes, 4.0),
        (Evidence::RedisReadBytes, 5.0),
        (Evidence::RedisWriteBytes, 6.0),
        (Evidence::OffloadLoadBytes, 7.0),
        (Evidence::OffloadStoreBytes, 8.0),
        (Evidence::OffloadSecondReadBytes, 9.0),
        (Evidence::OffloadSecondWriteBytes, 10.0),
        (Evidence::LmcacheStagedBytes, 11.0),
        (Evidence::RunningMaxRequests, 12.0),
        (Evidence::ServerOutputTokens, 13.0),
        (Evidence::Documents, 14.0),
        (Evidence::KvBytesPerToken, 100.0),
    ] {
        assert_eq!(figures.get(&evidence), Some(&expected), "{evidence:?}");
    }
    let on_gpu = measures::of_facts(&facts(|f| f.kv.stored = None));
    assert_eq!(on_gpu.get(&Evidence::KvBytesPerToken), Some(&50.0));
}

#[test]
fn a_log_in_the_engine_times_loads_and_a_server_s_does_not() {
    let of = |loaded: Option<f64>| {
        let measured = measures::of_facts(&facts(|f| {
            f.logs.retrieved.lines = 2;
            f.logs.retrieved.cost_ms = 6.0;
            f.engine.loaded_tokens = loaded;
        }));
        measured.get(&Evidence::TierLoadMeanMs).copied()
    };
    assert_eq!(of(None), Some(3.0));
    assert_eq!(of(Some(8.0)), None);
}

#[test]
fn figures_of_nothing_are_absent() {
    let one = measures::of_facts(&facts(|f| f.ok = 1));
    assert!(one.contains_key(&Evidence::HitsPerRequestTokens));
    let none = measures::of_transfers(&LogCounts::default());
    assert!(none.is_empty(), "{none:?}");
    let none = measures::of_facts(&facts(|f| f.ok = 0));
    for evidence in [
        Evidence::HitsPerRequestTokens,
        Evidence::LogStoredTokens,
        Evidence::LogRetrievedTokens,
        Evidence::TierLoadMeanMs,
        Evidence::LmcacheRamTokens,
        Evidence::ProbeGpuTokens,
    ] {
        assert!(!none.contains_key(&evidence), "{evidence:?}");
    }
}
