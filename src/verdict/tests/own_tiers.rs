//! Tiers that vLLM serves itself with files, or by its simple connector.

use super::*;

/// Files behind RAM that served what [`proven`] has, by the disk's bytes and by vLLM's account.
fn files(f: &mut Facts) {
    native(f);
    f.tier = TierKind::NativeFs;
    f.survives_restart = true;
    f.page_cache = Some(PageCache::Direct);
    f.disk_read_bytes = Some(1e6);
    f.engine.cached = None;
}

fn with(change: fn(&mut Facts)) -> impl Fn(&mut Facts) {
    move |f: &mut Facts| {
        files(f);
        change(f);
    }
}

#[test]
fn files_behind_vllms_ram_are_proven_by_the_bytes_of_the_disk() {
    check(files, VerdictStatus::Valid, "expected tokens");
    check(
        with(|f| f.state = CacheState::Restart),
        VerdictStatus::Valid,
        "expected tokens",
    );
    check(
        with(|f| f.disk_read_bytes = Some(1e4)),
        VerdictStatus::Invalid,
        "RAM answered for the disk",
    );
    check(
        with(|f| f.disk_read_bytes = None),
        VerdictStatus::Inconclusive,
        "no byte counter of the server's disk reads",
    );
    check(
        with(|f| f.engine.load_bytes = Some(0.5e6)),
        VerdictStatus::Invalid,
        "loaded by vLLM's own account for",
    );
}

#[test]
fn tokens_that_the_engine_counts_from_ram_are_not_from_files() {
    let of = |ram_tokens: f64, behind_tokens: f64| {
        move |f: &mut Facts| {
            files(f);
            f.engine.cached = Some(CachedTokens {
                gpu_tokens: 0.0,
                ram_tokens,
                behind_tokens,
                unnamed_tokens: 0.0,
            });
        }
    };
    check(of(0.0, 10_000.0), VerdictStatus::Valid, "expected tokens");
    check(
        of(6_000.0, 4_000.0),
        VerdictStatus::Invalid,
        "6,000 of 10,000 tokens from its RAM, and files alone were to serve",
    );
}

#[test]
fn what_vllm_took_from_the_gpu_in_a_cold_pass_must_be_in_files() {
    let cold = |written: f64, cascaded: Option<f64>| {
        move |f: &mut Facts| {
            files(f);
            f.state = CacheState::Cold;
            f.canaries = None;
            f.by_source = Some(BySource {
                computed_tokens: 10_320.0,
                gpu_tokens: 0.0,
                external_tokens: 0.0,
            });
            f.engine.store_bytes = Some(1e6);
            f.engine.second_write_bytes = cascaded;
            f.disk_write_bytes = Some(written);
        }
    };
    check(cold(1e6, None), VerdictStatus::Valid, "computed");
    check(cold(0.4e6, None), VerdictStatus::Invalid, "stored was not");
    // It drops stores to a folder that is too slow, and says so.
    check(cold(0.4e6, Some(0.4e6)), VerdictStatus::Valid, "computed");
}

#[test]
fn the_simple_connector_without_bytes_is_proven_by_nothing() {
    let simple = |kind: TierKind, pcie: Option<f64>| {
        move |f: &mut Facts| {
            f.tier = kind;
            f.disk_read_bytes = Some(1e6);
            f.pcie_rx_bytes = pcie.map(Bounds::exact);
        }
    };
    let ram = TierKind::Simple;
    check(simple(ram, Some(1e6)), VerdictStatus::Valid, "expected");
    check(
        simple(ram, None),
        VerdictStatus::Inconclusive,
        "no PCIe byte counter covers the whole pass, and the tier has no account",
    );
    check(
        simple(TierKind::SimpleDisk, None),
        VerdictStatus::Valid,
        "expected",
    );
}
