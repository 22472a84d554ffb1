//! Stores that only an LMCache server reaches.

use super::*;
use crate::plan::adapter::Adapter;

/// A `store` that served what [`proven`] has, by LMCache's account.
fn store(store: Adapter) -> impl Fn(&mut Facts) {
    move |f: &mut Facts| {
        f.tier = TierKind::Adapter(store);
        f.survives_restart = true;
        f.pcie_rx_bytes = None;
        f.account = Some(TierAccount {
            ram_tokens: 0.0,
            second_tokens: 10_000.0,
        });
    }
}

fn with(adapter: Adapter, change: fn(&mut Facts)) -> impl Fn(&mut Facts) {
    move |f: &mut Facts| {
        store(adapter)(f);
        change(f);
    }
}

#[test]
fn valkey_is_proven_by_the_bytes_that_it_counts() {
    let served = |bytes: Option<f64>| {
        move |f: &mut Facts| {
            store(Adapter::Valkey)(f);
            f.redis_read_bytes = bytes;
        }
    };
    check(served(Some(1e6)), VerdictStatus::Valid, "expected tokens");
    check(
        served(Some(1e4)),
        VerdictStatus::Invalid,
        "the hits were not loaded",
    );
    check(
        served(None),
        VerdictStatus::Inconclusive,
        "no byte counter of Valkey could be read",
    );
}

#[test]
fn what_lmcache_stored_in_valkey_must_have_been_written_to_it() {
    for (written, status, reason) in [
        (1e6, VerdictStatus::Valid, "every prompt was computed"),
        (1e5, VerdictStatus::Invalid, "MiB written to Valkey for"),
    ] {
        let cold = |f: &mut Facts| {
            store(Adapter::Valkey)(f);
            f.state = CacheState::Cold;
            f.by_source = Some(BySource {
                computed_tokens: 10_320.0,
                gpu_tokens: 0.0,
                external_tokens: 0.0,
            });
            f.stored_tokens = Some(10_000.0);
            f.redis_write_bytes = Some(written);
        };
        check(cold, status, reason);
    }
}

#[test]
fn s3_and_mooncake_are_proven_by_lmcaches_account_of_them_and_by_no_other_tiers() {
    for (adapter, name) in [(Adapter::S3, "S3"), (Adapter::Mooncake, "Mooncake")] {
        check(store(adapter), VerdictStatus::Valid, "expected tokens");
        check(
            with(adapter, |f| f.account = None),
            VerdictStatus::Inconclusive,
            &format!("LMCache has no account of what {name} served"),
        );
        let from_ram = |f: &mut Facts| {
            f.account = Some(TierAccount {
                ram_tokens: 10_000.0,
                second_tokens: 0.0,
            });
        };
        check(
            with(adapter, from_ram),
            VerdictStatus::Invalid,
            "0 tokens from the second layer for 10000",
        );
        check(
            with(adapter, |f| f.state = CacheState::Restart),
            VerdictStatus::Valid,
            "expected tokens",
        );
    }
}
