//! Tiers that store KV smaller than it is, or unreadable to others.

use super::*;
use crate::plan::serializer::{Returns, Serializer};

/// A disk tier behind an LMCache server that stores by `name`, and served what [`proven`] has.
fn stored_by(f: &mut Facts, name: &str, returns: Returns) {
    f.tier = TierKind::Disk;
    f.page_cache = Some(PageCache::Direct);
    f.disk_read_bytes = Some(0.25e6);
    // A quarter of what the GPU takes.
    f.serialized = Some(Bounds::exact(25.0));
    f.serializer = Some(Serializer {
        name: name.to_owned(),
        returns,
    });
}

fn lossy(change: impl Fn(&mut Facts)) -> impl Fn(&mut Facts) {
    move |f: &mut Facts| {
        stored_by(f, "fp8", Returns::Near);
        change(f);
    }
}

/// Canaries of which one is beyond `tolerance`, or all within it.
fn drifted(same: u32, tolerance: f64) -> Canaries {
    Canaries {
        distance: 0.3,
        sight: Sight {
            tolerance,
            altered: 2,
            altered_changed: 2,
        },
        ..canaries(2, same, 2)
    }
}

#[test]
fn answers_that_a_loss_changed_settle_nothing_without_a_stated_tolerance() {
    let by_design = "1 of 2 canary answers changed, which `fp8` may do by design: state by how much in \
                     `text_tolerance` of [verdict]";
    let changed = |f: &mut Facts| f.canaries = Some(drifted(1, 0.1));
    check(lossy(changed), VerdictStatus::Inconclusive, by_design);
    let optional = |f: &mut Facts| {
        changed(f);
        f.limits.text = TextRule::Optional;
    };
    check(lossy(optional), VerdictStatus::Inconclusive, by_design);
    let within = |f: &mut Facts| {
        f.canaries_in_load = Some(drifted(1, 0.1));
    };
    check(
        lossy(within),
        VerdictStatus::Inconclusive,
        "canary answers within the load changed, which `fp8` may do by design",
    );
    let unchanged = |f: &mut Facts| f.canaries = Some(drifted(2, 0.4));
    check(lossy(unchanged), VerdictStatus::Valid, "expected tokens");
    // What was not answered has not changed.
    let one_of_two = |f: &mut Facts| {
        f.canaries = Some(Canaries {
            answered: 1,
            ..drifted(0, 0.1)
        });
    };
    check(lossy(one_of_two), VerdictStatus::Inconclusive, by_design);
    let unanswered = |f: &mut Facts| {
        f.canaries = Some(Canaries {
            answered: 1,
            ..drifted(1, 0.1)
        });
    };
    check(
        lossy(unanswered),
        VerdictStatus::Inconclusive,
        "1 of 2 canaries were not answered",
    );
    let restarted = |f: &mut Facts| {
        changed(f);
        (f.state, f.survives_restart) = (CacheState::Restart, true);
    };
    check(lossy(restarted), VerdictStatus::Inconclusive, by_design);
}

#[test]
fn a_stated_tolerance_decides_and_the_reason_has_it() {
    let stated = |same: u32| {
        lossy(move |f: &mut Facts| {
            f.limits.text_tolerance = Some(0.5);
            f.canaries = Some(drifted(same, 0.5));
        })
    };
    let mut within = proven();
    stated(2)(&mut within);
    let within = judge(&within);
    assert_eq!(within.status, VerdictStatus::Valid, "{within:?}");
    let expected = "log-probabilities within 0.300, tolerance 0.500, of the plan";
    assert!(
        within.reasons.iter().any(|one| one.contains(expected)),
        "{within:?}"
    );
    check(
        stated(1),
        VerdictStatus::Invalid,
        "1 of 2 canary answers changed: the loaded cache is not what was stored",
    );
    let blind = lossy(|f: &mut Facts| {
        f.limits.text_tolerance = Some(0.5);
        let mut canaries = drifted(2, 0.5);
        canaries.sight.altered_changed = 0;
        f.canaries = Some(canaries);
    });
    check(
        blind,
        VerdictStatus::Inconclusive,
        "no answer behind another document differs by more than the `text_tolerance` of 0.500",
    );
}

#[test]
fn a_stated_tolerance_is_blamed_for_no_other_blindness() {
    let blind = |tolerance: f64, altered: u32| {
        lossy(move |f: &mut Facts| {
            f.limits.text_tolerance = Some(0.5);
            let mut canaries = drifted(2, tolerance);
            (canaries.sight.altered, canaries.sight.altered_changed) = (altered, 0);
            f.canaries = Some(canaries);
        })
    };
    for (tolerance, altered, reason) in [
        (0.5, 1, "the `text_tolerance` of 0.500 (0 of 1)"),
        (0.5, 0, "no canary was answered behind an altered document"),
        // The noise is larger.
        (0.6, 2, "the same question asked twice differs as much"),
    ] {
        check(
            blind(tolerance, altered),
            VerdictStatus::Inconclusive,
            reason,
        );
    }
}

#[test]
fn where_nothing_is_lost_or_loaded_changed_answers_are_invalid() {
    let sealed = |f: &mut Facts| {
        stored_by(f, "aesgcm", Returns::Same);
        f.disk_read_bytes = Some(1e6);
        f.limits.text_tolerance = Some(0.5);
    };
    check(sealed, VerdictStatus::Valid, "expected tokens");
    let changed = |f: &mut Facts| {
        sealed(f);
        f.canaries = Some(drifted(1, 0.1));
    };
    // The plan's tolerance is not of a tier that returns what it took.
    check(
        changed,
        VerdictStatus::Invalid,
        "tolerance 0.100; another chunk",
    );
    check(changed, VerdictStatus::Invalid, "is not what was stored");
    let from_gpu = lossy(|f: &mut Facts| {
        f.state = CacheState::Gpu;
        f.by_source = Some(BySource {
            computed_tokens: 320.0,
            gpu_tokens: 10_000.0,
            external_tokens: 0.0,
        });
        f.canaries = Some(drifted(1, 0.1));
    });
    check(from_gpu, VerdictStatus::Invalid, "is not what was stored");
}

#[test]
fn storage_is_judged_by_the_tiers_own_size_and_the_gpu_by_the_full_one() {
    check(lossy(|_| ()), VerdictStatus::Valid, "expected tokens");
    check(
        lossy(|f| f.disk_read_bytes = Some(0.1e6)),
        VerdictStatus::Invalid,
        "RAM answered for the disk",
    );
    check(
        lossy(|f| f.kv.stored = None),
        VerdictStatus::Inconclusive,
        "no source states the KV bytes per token",
    );
    check(
        lossy(|f| f.serialized = None),
        VerdictStatus::Inconclusive,
        "the tier stores KV smaller than it is, and labrun sees no size of what it stored",
    );
    check(
        lossy(|f| f.pcie_rx_bytes = Some(Bounds::exact(0.25e6))),
        VerdictStatus::Invalid,
        "the hits were not loaded",
    );
}
