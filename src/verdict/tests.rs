mod compression;
mod connectors;
mod edges;
mod ledgers;
mod own_tiers;
mod stores;

use std::time::Duration;

use super::account::{CachedTokens, EngineAccount};
use super::causes::Documents;
use super::facts::{ClaimedBy, LoadClaim};
use super::failures::Failure;
use super::log_counts::LogCounts;
use super::text::Sight;
use super::*;
use crate::plan::state::CacheState;
use crate::plan::tier::TierKind;
use crate::plan::verdict_spec::{TextRule, VerdictSpec};
use crate::record::schema::{VerdictStatus, Witness};
use crate::server::kv_size::KvBytes;
use crate::units::Bounds;

/// Two canaries of a model that sees its prompt.
fn canaries(answered: u32, same: u32, from_cache: u32) -> Canaries {
    Canaries {
        asked: 2,
        answered,
        same,
        from_cache,
        scored: answered,
        distance: 0.0,
        sight: Sight {
            tolerance: 0.1,
            altered: 2,
            altered_changed: 2,
        },
    }
}

/// The prompts of [`proven`] in a pass that nothing is served in.
const ALL_COMPUTED: BySource = BySource {
    computed_tokens: 10_320.0,
    gpu_tokens: 0.0,
    external_tokens: 0.0,
};

/// A cpu tier that served 10 requests of 1000 expected tokens, proven three ways.
fn proven() -> Facts {
    Facts {
        limits: VerdictSpec::default(),
        simulated: false,
        state: CacheState::Tier,
        tier: TierKind::Cpu,
        survives_restart: false,
        probe: None,
        logs: LogCounts::default(),
        causes: Causes::default(),
        page_cache: None,
        stores: Stores::Finished,
        pcie_tx_bytes: None,
        pcie_method: None,
        stored_tokens: None,
        disk_write_bytes: None,
        redis_write_bytes: None,
        ok: 10,
        failed: 0,
        first_failure: None,
        by_source: Some(BySource {
            computed_tokens: 320.0,
            gpu_tokens: 0.0,
            external_tokens: 10_000.0,
        }),
        sources_unknown: String::new(),
        counted: Counted::default(),
        expected_hit_tokens: 10_000.0,
        shared_tokens: 10_100.0,
        repeated_tokens: 0.0,
        wrong_prompt_length: 0,
        account: None,
        connector: None,
        engine: EngineAccount::default(),
        kv: KvBytes {
            device: Some(Bounds::exact(100.0)),
            stored: Some(Bounds::exact(100.0)),
        },
        serializer: None,
        serialized: None,
        fastest_load: None,
        fastest_answer: None,
        host_link: None,
        tier_link: None,
        pcie_rx_bytes: Some(Bounds::exact(1_050_000.0)),
        disk_read_bytes: Some(0.0),
        redis_read_bytes: None,
        canaries: Some(canaries(2, 2, 2)),
        canaries_in_load: None,
        in_load: 0,
        counted_in_load: None,
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Facts), status: VerdictStatus, reason: &str) {
    let mut facts = proven();
    change(&mut facts);
    let verdict = judge(&facts);
    assert_eq!(verdict.status, status, "{verdict:?}");
    assert!(verdict.reasons[0].contains(reason), "{verdict:?}");
}

#[test]
fn three_witnesses_that_agree_are_valid() {
    check(|_| {}, VerdictStatus::Valid, "expected tokens");
    assert_eq!(judge(&proven()).reasons.len(), 3);
}

#[test]
fn hits_without_bytes_or_with_other_text_are_invalid() {
    check(
        |f| f.pcie_rx_bytes = Some(Bounds::exact(9.0)),
        VerdictStatus::Invalid,
        "not loaded",
    );
    check(
        |f| {
            f.canaries = Some(canaries(2, 1, 2));
        },
        VerdictStatus::Invalid,
        "1 of 2 canary answers changed",
    );
    check(
        |f| f.tier = TierKind::Disk,
        VerdictStatus::Invalid,
        "RAM answered for the disk",
    );
}

#[test]
fn a_missing_witness_is_inconclusive() {
    check(
        |f| f.pcie_rx_bytes = None,
        VerdictStatus::Inconclusive,
        "not proven",
    );
    check(
        |f| f.canaries = None,
        VerdictStatus::Inconclusive,
        "no canary",
    );
    check(
        |f| (f.by_source, f.sources_unknown) = (None, "/metrics answered 401".to_owned()),
        VerdictStatus::Inconclusive,
        "answered 401",
    );
    check(
        |f| f.tier = TierKind::Redis,
        VerdictStatus::Inconclusive,
        "Redis",
    );
}

#[test]
fn the_tiers_own_account_stands_in_for_bytes_of_ram() {
    let account = |ram_tokens| {
        Some(TierAccount {
            ram_tokens,
            second_tokens: 0.0,
        })
    };
    let without_bytes = |f: &mut Facts, tokens| {
        f.pcie_rx_bytes = None;
        f.account = account(tokens);
    };
    check(
        |f| without_bytes(f, 10_000.0),
        VerdictStatus::Valid,
        "expected",
    );
    check(
        |f| without_bytes(f, 10.0),
        VerdictStatus::Invalid,
        "LMCache's own account",
    );
}

#[test]
fn the_wrong_cache_is_invalid() {
    let mix = |gpu_tokens, external_tokens| {
        Some(BySource {
            computed_tokens: 320.0,
            gpu_tokens,
            external_tokens,
        })
    };
    check(
        |f| f.by_source = mix(5_000.0, 5_000.0),
        VerdictStatus::Invalid,
        "GPU prefix cache",
    );
    check(
        |f| f.by_source = mix(0.0, 100.0),
        VerdictStatus::Invalid,
        "served 100 of 10000",
    );
    let cold = |f: &mut Facts| {
        f.state = CacheState::Cold;
        f.by_source = mix(0.0, 5_000.0);
    };
    check(cold, VerdictStatus::Invalid, "in a cold pass");
    check(
        |f| f.tier = TierKind::Baseline,
        VerdictStatus::Invalid,
        "this tier has none",
    );
}

#[test]
fn no_success_and_wrong_lengths_are_invalid() {
    check(|f| f.ok = 0, VerdictStatus::Invalid, "no request succeeded");
    check(
        |f| f.wrong_prompt_length = 1,
        VerdictStatus::Invalid,
        "in 1 of 10 requests",
    );
}

#[test]
fn states_without_a_tier_need_no_canary() {
    let cold = |f: &mut Facts| {
        f.state = CacheState::Cold;
        f.canaries = None;
        f.by_source = Some(ALL_COMPUTED);
    };
    check(cold, VerdictStatus::Valid, "every prompt was computed");
}

#[test]
fn a_canary_that_failed_or_was_computed_again_proves_nothing() {
    let canaries = |answered, from_cache| Some(canaries(answered, answered, from_cache));
    check(
        |f| f.canaries = canaries(0, 0),
        VerdictStatus::Inconclusive,
        "2 of 2 canaries were not answered",
    );
    check(
        |f| f.canaries = canaries(2, 1),
        VerdictStatus::Inconclusive,
        "1 of 2 canaries were computed again",
    );
    let baseline = |f: &mut Facts| {
        f.tier = TierKind::Baseline;
        f.by_source = Some(ALL_COMPUTED);
        f.canaries = canaries(2, 0);
    };
    check(baseline, VerdictStatus::Valid, "computed again");
}

#[test]
fn answers_that_cannot_change_prove_nothing() {
    let sight = |altered, altered_changed, tolerance| {
        move |f: &mut Facts| {
            let canaries = f.canaries.as_mut().unwrap();
            canaries.sight = Sight {
                tolerance,
                altered,
                altered_changed,
            };
        }
    };
    let inconclusive = VerdictStatus::Inconclusive;
    check(sight(3, 0, 0.1), inconclusive, "dummy weights?");
    check(sight(0, 0, 0.1), inconclusive, "prove nothing");
    let noisy = sight(3, 0, f64::INFINITY);
    check(noisy, inconclusive, "the same question asked twice differs");
    check(sight(3, 1, 0.1), VerdictStatus::Valid, "expected tokens");
    let changed = |f: &mut Facts| {
        sight(3, 0, 0.1)(f);
        f.canaries.as_mut().unwrap().same = 1;
    };
    check(changed, VerdictStatus::Invalid, "canary answers changed");
    let baseline = |f: &mut Facts| {
        sight(3, 0, 0.1)(f);
        f.tier = TierKind::Baseline;
        f.by_source = Some(ALL_COMPUTED);
    };
    check(baseline, VerdictStatus::Valid, "computed again");
}

#[test]
fn facts_of_canaries_come_back_from_json() {
    let mut facts = proven();
    facts.canaries = Some(Canaries {
        distance: f64::INFINITY,
        ..canaries(2, 1, 1)
    });
    let json = serde_json::to_string(&facts).unwrap();
    let again: Facts = serde_json::from_str(&json).unwrap();
    assert_eq!(again, facts);
}

#[test]
fn answers_within_the_load_convict_too() {
    let within = |answered, same| {
        move |f: &mut Facts| f.canaries_in_load = Some(canaries(answered, same, 0))
    };
    let changed = "1 of 2 canary answers within the load changed";
    check(within(2, 1), VerdictStatus::Invalid, changed);
    check(within(2, 2), VerdictStatus::Valid, "expected tokens");
    check(within(0, 0), VerdictStatus::Valid, "expected tokens");
    let mut facts = proven();
    within(2, 2)(&mut facts);
    let same = "2 of 2 canary answers within the load stayed the same";
    let reasons = judge(&facts).reasons;
    assert!(reasons.iter().any(|one| one == same), "{reasons:?}");
}

#[test]
fn noise_that_hides_another_document_blinds_the_answers_within_the_load() {
    let noisy = |f: &mut Facts| {
        let mut within = canaries(2, 2, 0);
        within.sight = Sight {
            tolerance: 9.0,
            altered_changed: 0,
            ..within.sight
        };
        f.canaries_in_load = Some(within);
    };
    let blind = "within the load the text witness is blind";
    let numbers = "differs as much as behind another document (0 of 2 changed by more than 9.000)";
    check(noisy, VerdictStatus::Inconclusive, blind);
    check(noisy, VerdictStatus::Inconclusive, numbers);
    // A single one is as blind.
    let single = move |f: &mut Facts| {
        noisy(f);
        let within = f.canaries_in_load.as_mut().unwrap();
        (within.asked, within.answered, within.same) = (1, 1, 1);
        f.canaries.as_mut().unwrap().sight.altered_changed = 1;
    };
    check(single, VerdictStatus::Inconclusive, blind);
    let optional = move |f: &mut Facts| {
        noisy(f);
        f.limits.text = TextRule::Optional;
    };
    check(
        optional,
        VerdictStatus::Valid,
        "text optional: within the load",
    );
    // Nothing to say where nobody answered, and nothing new where the quiet server shows that the model is blind.
    let unanswered = move |f: &mut Facts| {
        noisy(f);
        let within = f.canaries_in_load.as_mut().unwrap();
        (within.answered, within.same) = (0, 0);
    };
    let model = move |f: &mut Facts| {
        noisy(f);
        f.canaries.as_mut().unwrap().sight.altered_changed = 0;
    };
    let unasked = move |f: &mut Facts| {
        noisy(f);
        f.canaries = None;
    };
    for change in [&unanswered as &dyn Fn(&mut Facts), &model, &unasked] {
        let mut facts = proven();
        change(&mut facts);
        let reasons = judge(&facts).reasons;
        let is_named = reasons.iter().any(|reason| reason.contains(blind));
        assert!(!is_named, "{reasons:?}");
    }
}

#[test]
fn changed_answers_name_operations_that_did_not_load() {
    let words = "LMCache's compiled operations did not load";
    for (same, status) in [(1, VerdictStatus::Invalid), (2, VerdictStatus::Valid)] {
        for is_without in [false, true] {
            let mut facts = proven();
            facts.canaries = Some(canaries(2, same, 2));
            facts.logs.without_compiled_ops = is_without;
            let verdict = judge(&facts);
            assert_eq!(verdict.status, status, "{verdict:?}");
            let is_said = verdict.reasons.iter().any(|one| one.contains(words));
            let is_due = is_without && status == VerdictStatus::Invalid;
            assert_eq!(is_said, is_due, "{verdict:?}");
        }
    }
}

#[test]
fn a_single_canary_is_a_witness() {
    let single = |f: &mut Facts| {
        let mut one = canaries(1, 1, 1);
        one.asked = 1;
        (one.sight.altered, one.sight.altered_changed) = (1, 1);
        (f.canaries, f.canaries_in_load) = (Some(one), Some(one));
    };
    let mut facts = proven();
    single(&mut facts);
    let verdict = judge(&facts);
    assert_eq!(verdict.status, VerdictStatus::Valid, "{verdict:?}");
    for words in [
        "1 of 1 canary answers stayed the same",
        "1 of 1 canary answers within the load stayed the same",
    ] {
        let is_said = verdict.reasons.iter().any(|one| one.contains(words));
        assert!(is_said, "{words}: {verdict:?}");
    }
}

#[test]
fn text_is_optional_where_the_plan_says_so_and_still_convicts() {
    let optional = |change: fn(&mut Facts)| {
        move |f: &mut Facts| {
            f.limits.text = TextRule::Optional;
            change(f);
        }
    };
    let blind = |f: &mut Facts| f.canaries.as_mut().unwrap().sight.altered_changed = 0;
    let mut facts = proven();
    optional(blind)(&mut facts);
    let verdict = judge(&facts);
    assert_eq!(verdict.status, VerdictStatus::Valid, "{verdict:?}");
    assert!(verdict.reasons[0].starts_with("text optional: "));
    check(
        optional(|f| f.canaries = None),
        VerdictStatus::Valid,
        "text optional: no canary",
    );
    let changed = |f: &mut Facts| f.canaries.as_mut().unwrap().same = 1;
    check(
        optional(changed),
        VerdictStatus::Invalid,
        "canary answers changed",
    );
}

#[test]
fn no_success_says_what_failed_first() {
    let failed = |f: &mut Facts| {
        f.ok = 0;
        f.first_failure = Some("http-400: too long".into());
    };
    check(
        failed,
        VerdictStatus::Invalid,
        "no request succeeded; first: http-400: too long",
    );
}

#[test]
fn what_a_pass_repeats_itself_is_no_stray_hit() {
    let turns = |f: &mut Facts, state, repeated_tokens| {
        f.state = state;
        f.repeated_tokens = repeated_tokens;
        f.by_source = Some(BySource {
            computed_tokens: 320.0,
            gpu_tokens: 5_000.0,
            external_tokens: 0.0,
        });
    };
    check(
        |f| turns(f, CacheState::Cold, 5_000.0),
        VerdictStatus::Valid,
        "but for 5000 tokens that the pass repeats itself",
    );
    check(
        |f| turns(f, CacheState::Cold, 1_000.0),
        VerdictStatus::Invalid,
        "in a cold pass",
    );
}

#[test]
fn a_workload_that_shares_nothing_is_a_control() {
    let control = |f: &mut Facts, external_tokens| {
        f.expected_hit_tokens = 0.0;
        f.shared_tokens = 0.0;
        f.by_source = Some(BySource {
            computed_tokens: 10_000.0,
            gpu_tokens: 0.0,
            external_tokens,
        });
    };
    check(|f| control(f, 0.0), VerdictStatus::Valid, "shares nothing");
    check(
        |f| control(f, 512.0),
        VerdictStatus::Inconclusive,
        "should share none",
    );
    let too_short = |f: &mut Facts| {
        control(f, 0.0);
        f.shared_tokens = 1_000.0;
    };
    check(too_short, VerdictStatus::Invalid, "fill one chunk");
}

fn probed(expected_tokens: f64, gpu_tokens: f64, external_tokens: f64) -> Probe {
    Probe {
        expected_tokens,
        sources: BySource {
            computed_tokens: 40.0,
            gpu_tokens,
            external_tokens,
        },
    }
}

#[test]
fn a_probe_that_finds_another_place_says_that_the_state_was_not_reached() {
    check(
        |f| f.probe = Some(probed(768.0, 768.0, 0.0)),
        VerdictStatus::Invalid,
        "served 0 of 768 tokens of a probe, and the GPU prefix cache, which was not cleared, 768",
    );
    check(
        |f| f.probe = Some(probed(768.0, 0.0, 768.0)),
        VerdictStatus::Valid,
        "expected",
    );
    let cold = |f: &mut Facts, external_tokens| {
        f.state = CacheState::Cold;
        f.probe = Some(probed(0.0, 0.0, external_tokens));
        f.by_source = Some(ALL_COMPUTED);
    };
    check(
        |f| cold(f, 0.0),
        VerdictStatus::Valid,
        "every prompt was computed",
    );
    check(
        |f| cold(f, 256.0),
        VerdictStatus::Invalid,
        "the cache state `cold` was not reached",
    );
}

#[test]
fn a_probe_that_the_tier_dropped_speaks_for_no_document_of_the_pass() {
    // On the H200 the 64 GiB of `native` held the twelve documents of the pass and not the probe, which was
    // stored before them: all counters, bytes and answers were those of a tier hit.
    let has = |facts: &Facts, text: &str| {
        let verdict = judge(facts);
        let found = verdict.reasons.iter().any(|reason| reason.contains(text));
        assert!(found, "{text}: {verdict:?}");
        verdict.status
    };
    for external_tokens in [0.0, 512.0] {
        let mut facts = proven();
        facts.probe = Some(probed(768.0, 0.0, external_tokens));
        let status = has(&facts, "tokens of a probe, and gave back those of the pass");
        assert_eq!(status, VerdictStatus::Valid);
        // It excuses nothing: what the pass did not get, or what the GPU still had, stays a fault.
        let expected = facts.expected_hit_tokens;
        facts.by_source = Some(BySource {
            computed_tokens: expected,
            gpu_tokens: 0.0,
            external_tokens: facts.limits.served_share * expected - 1.0,
        });
        let status = has(&facts, "the cache state `tier hit` was not reached");
        assert_eq!(status, VerdictStatus::Invalid);
        let mut facts = proven();
        facts.probe = Some(probed(768.0, 768.0 - external_tokens, external_tokens));
        assert_eq!(has(&facts, "not cleared"), VerdictStatus::Invalid);
        // What the pass asks for a second time comes from the tier also where the first was computed.
        let mut facts = proven();
        facts.probe = Some(probed(768.0, 0.0, external_tokens));
        facts.repeated_tokens = 10_000.0;
        let status = has(&facts, "the cache state `tier hit` was not reached");
        assert_eq!(status, VerdictStatus::Invalid);
    }
}

#[test]
fn what_is_served_at_a_second_visit_makes_up_for_no_first_one() {
    for (missed, repeated_tokens, status, reason) in [
        (
            1,
            10_000.0,
            VerdictStatus::Valid,
            "10000 of 10000 expected tokens",
        ),
        (
            2,
            10_000.0,
            VerdictStatus::Invalid,
            "at a second visit: 2 of 10 documents were not served whole",
        ),
        // Without repeats the counters show the same, and are exact.
        (
            2,
            0.0,
            VerdictStatus::Valid,
            "10000 of 10000 expected tokens",
        ),
    ] {
        check(
            |f| {
                f.repeated_tokens = repeated_tokens;
                f.causes.documents = Some(Documents { missed, of: 10 });
            },
            status,
            reason,
        );
    }
}

#[test]
fn a_probe_came_back_from_nine_tenths_of_it_on() {
    for (external_tokens, is_short) in [(900.0, false), (899.0, true)] {
        let mut facts = proven();
        facts.probe = Some(probed(1000.0, 0.0, external_tokens));
        let reasons = judge(&facts).reasons;
        let found = reasons.iter().any(|reason| reason.contains("of a probe"));
        assert_eq!(found, is_short, "{external_tokens}: {reasons:?}");
    }
}

#[test]
fn a_tier_that_was_still_storing_proves_nothing() {
    let stores = Stores::Unfinished {
        waited: Duration::from_secs(7),
    };
    let reason = "still storing when the pass began, after 7 s";
    check(|f| f.stores = stores, VerdictStatus::Inconclusive, reason);
    // Nothing is served in a cold pass: its times stand.
    let mut facts = proven();
    facts.state = CacheState::Cold;
    facts.stores = stores;
    facts.by_source = Some(ALL_COMPUTED);
    let verdict = judge(&facts);
    assert_eq!(verdict.status, VerdictStatus::Valid, "{verdict:?}");
    let late = |reason: &String| reason.contains("still storing 7 s after the pass");
    assert!(verdict.reasons.iter().any(late), "{verdict:?}");
}

#[test]
fn a_restart_is_judged_by_what_survives_it() {
    let restart = |f: &mut Facts, survives, external_tokens| {
        f.state = CacheState::Restart;
        f.survives_restart = survives;
        f.probe = Some(probed(768.0, 0.0, if survives { 768.0 } else { 0.0 }));
        f.by_source = Some(BySource {
            computed_tokens: 10_320.0 - external_tokens,
            gpu_tokens: 0.0,
            external_tokens,
        });
    };
    let lost = "does not survive a restart";
    check(|f| restart(f, false, 0.0), VerdictStatus::Valid, lost);
    check(|f| restart(f, false, 9_000.0), VerdictStatus::Invalid, lost);
    check(
        |f| restart(f, true, 10_000.0),
        VerdictStatus::Valid,
        "expected",
    );
    check(
        |f| restart(f, true, 0.0),
        VerdictStatus::Invalid,
        "served 0 of 10000",
    );
}

#[test]
fn failures_in_the_logs_make_no_pass_valid() {
    let log = |f: &mut Facts, text: &str| {
        f.logs = LogCounts::of(&format!("[x] LMCache ERROR: {text}"));
    };
    let put = "batched put error: Timeout writing to socket";
    check(
        |f| log(f, put),
        VerdictStatus::Inconclusive,
        "1 puts or gets",
    );
    let degraded = "System will operate in degraded mode (recompute).";
    check(
        |f| log(f, degraded),
        VerdictStatus::Invalid,
        "degraded mode",
    );
    // A pass that no tier serves is measured all the same.
    let mut facts = proven();
    log(&mut facts, put);
    facts.state = CacheState::Cold;
    facts.by_source = Some(ALL_COMPUTED);
    let cold = judge(&facts);
    assert_eq!(cold.status, VerdictStatus::Valid, "{cold:?}");
    let is_named = |reason: &String| reason.contains("1 puts or gets");
    assert!(cold.reasons.iter().any(is_named), "{cold:?}");
}

#[test]
fn failures_beyond_the_planned_share_settle_nothing() {
    check(
        |f| f.failed = 5,
        VerdictStatus::Inconclusive,
        "5 of 15 requests failed",
    );
    let allowed = |f: &mut Facts| {
        f.failed = 5;
        f.limits.failed_share = 0.5;
    };
    check(allowed, VerdictStatus::Valid, "expected");
}

#[test]
fn thresholds_are_the_plans() {
    let short = |f: &mut Facts, served_share| {
        f.limits.served_share = served_share;
        f.expected_hit_tokens = 12_000.0;
    };
    check(
        |f| short(f, 0.9),
        VerdictStatus::Invalid,
        "served 10000 of 12000",
    );
    check(
        |f| short(f, 0.8),
        VerdictStatus::Valid,
        "served 10000 of 12000",
    );
    let moved = |f: &mut Facts, moved_share| {
        native(f);
        f.limits.moved_share = moved_share;
        f.pcie_rx_bytes = Some(Bounds::exact(0.6e6));
    };
    let short = "vLLM counts 1,000,000 bytes that its offloading loaded, 600,000 moved";
    check(|f| moved(f, 0.5), VerdictStatus::Valid, "expected tokens");
    let mut facts = proven();
    moved(&mut facts, 0.7);
    let reasons = judge(&facts).reasons;
    assert!(reasons.iter().any(|one| one.contains(short)), "{reasons:?}");
}

#[test]
fn a_pass_of_the_gpu_cache_is_judged_by_what_that_served() {
    let served = |f: &mut Facts, gpu_tokens| {
        f.state = CacheState::Gpu;
        f.by_source = Some(BySource {
            computed_tokens: 10_320.0 - gpu_tokens,
            gpu_tokens,
            external_tokens: 0.0,
        });
    };
    for (tokens, status) in [
        (10_000.0, VerdictStatus::Valid),
        (100.0, VerdictStatus::Invalid),
    ] {
        let reason = format!("the GPU cache served {tokens} of 10000 expected tokens");
        check(|f| served(f, tokens), status, &reason);
    }
}

/// Counts that agree with [`proven`]: 10 requests of 1032 prompt and 8 output tokens.
fn agreeing() -> Counted {
    Counted {
        answered_prompt_tokens: Some(10_320.0),
        sent_prompt_tokens: Some(10_320.0),
        server_prompt_tokens: Some(10_320.0),
        answered_output_tokens: Some(80.0),
        most_output_tokens: Some(80.0),
        server_output_tokens: Some(80.0),
        cached_tokens: 10_000.0,
        all_cached_tokens: Some(10_000.0),
        running_max: Some(8.0),
        in_flight: Some(8),
        ..Counted::default()
    }
}

#[test]
fn counts_that_agree_and_counts_that_are_unknown_contradict_nothing() {
    check(
        |f| f.counted = agreeing(),
        VerdictStatus::Valid,
        "expected tokens",
    );
    check(
        |f| {
            f.counted = Counted {
                server_prompt_tokens: None,
                server_output_tokens: None,
                // Some answers have no cached tokens in their usage.
                cached_tokens: 3000.0,
                all_cached_tokens: None,
                running_max: None,
                in_flight: None,
                ..agreeing()
            };
        },
        VerdictStatus::Valid,
        "expected tokens",
    );
    // Of one request that failed the server read the prompt, and generated a part.
    check(
        |f| {
            f.counted = Counted {
                answered_prompt_tokens: Some(9288.0),
                answered_output_tokens: Some(72.0),
                server_output_tokens: Some(75.0),
                ..agreeing()
            };
        },
        VerdictStatus::Valid,
        "expected tokens",
    );
}

#[test]
fn counts_that_contradict_each_other_are_not_valid_and_both_are_named() {
    type Change = fn(&mut Counted);
    let cases: [(Change, VerdictStatus, [&str; 2]); 11] = [
        (
            |c| c.server_prompt_tokens = Some(13_536.0),
            VerdictStatus::Invalid,
            ["13,536", "10,320"],
        ),
        (
            |c| c.server_prompt_tokens = Some(5160.0),
            VerdictStatus::Invalid,
            ["5,160", "10,320"],
        ),
        (
            |c| c.running_max = Some(14.0),
            VerdictStatus::Invalid,
            ["14", "8"],
        ),
        (
            |c| c.server_output_tokens = Some(1600.0),
            VerdictStatus::Invalid,
            ["1,600", "80"],
        ),
        (
            |c| c.answered_output_tokens = Some(4000.0),
            VerdictStatus::Invalid,
            ["4,000", "80"],
        ),
        (
            |c| c.too_long = Some((1000, 8)),
            VerdictStatus::Invalid,
            ["1,000", "8"],
        ),
        (
            |c| c.more_events = Some((9, 4)),
            VerdictStatus::Invalid,
            ["9", "4"],
        ),
        (
            |c| c.too_cached = Some((5000, 1032)),
            VerdictStatus::Invalid,
            ["5,000", "1,032"],
        ),
        (
            |c| c.cached_tokens = 50_000.0,
            VerdictStatus::Inconclusive,
            ["50,000", "10,000"],
        ),
        (
            |c| (c.cached_tokens, c.all_cached_tokens) = (5000.0, Some(5000.0)),
            VerdictStatus::Inconclusive,
            ["5,000", "10,000"],
        ),
        (
            |c| c.fallen = Some("x fell from 12 to 3".to_owned()),
            VerdictStatus::Inconclusive,
            ["12", "3"],
        ),
    ];
    for (change, status, numbers) in cases {
        let mut facts = proven();
        facts.counted = agreeing();
        change(&mut facts.counted);
        let verdict = judge(&facts);
        assert_eq!(verdict.status, status, "{verdict:?}");
        for number in numbers {
            assert!(verdict.reasons[0].contains(number), "{verdict:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_traffic_of_others_is_valid(others in 1u32..1_000_000, share in 0.02f64..10.0) {
        let mut facts = proven();
        facts.counted = agreeing();
        let more = f64::from(others).max(share * 10_320.0) + 110.0;
        facts.counted.server_prompt_tokens = Some(10_320.0 + more);
        proptest::prop_assert_eq!(judge(&facts).status, VerdictStatus::Invalid);
    }
}

#[test]
fn bytes_over_pcie_are_wanted_only_where_they_are_the_witness() {
    let lacks = |change: fn(&mut Facts)| {
        let mut facts = proven();
        facts.pcie_rx_bytes = None;
        change(&mut facts);
        facts.lacks_pcie()
    };
    assert!(lacks(|_| {}));
    assert!(!lacks(|f| f.pcie_rx_bytes = Some(Bounds::exact(1.0))));
    assert!(!lacks(|f| f.engine.load_bytes = Some(1.0)));
    assert!(lacks(|f| f.engine.store_bytes = Some(1.0)));
    assert!(!lacks(|f| f.state = CacheState::Cold));
    let restarted = |survives: bool| {
        let mut facts = proven();
        (facts.state, facts.survives_restart) = (CacheState::Restart, survives);
        facts.pcie_rx_bytes = None;
        facts.lacks_pcie()
    };
    assert!(restarted(true));
    assert!(!restarted(false));
    assert!(!lacks(|f| f.tier = TierKind::Disk));
    assert!(!lacks(|f| f.tier = TierKind::Baseline));
    let account = TierAccount {
        ram_tokens: 1.0,
        second_tokens: 0.0,
    };
    let mut facts = proven();
    (facts.pcie_rx_bytes, facts.account) = (None, Some(account));
    assert!(!facts.lacks_pcie());
}

/// The disk tier of vLLM 0.26 with LMCache 0.5.2 on an H200: all bytes came from the disk, and half
/// of them reached the GPU.
#[test]
fn a_leg_that_falls_short_is_invalid_whichever_it_is() {
    let disk = |disk: f64, gpu: Option<f64>| {
        move |f: &mut Facts| {
            f.tier = TierKind::Disk;
            f.disk_read_bytes = Some(disk);
            f.pcie_rx_bytes = gpu.map(Bounds::exact);
        }
    };
    check(disk(1e6, Some(1e6)), VerdictStatus::Valid, "expected");
    check(
        disk(1e6, Some(0.53e6)),
        VerdictStatus::Invalid,
        "moved to the GPU",
    );
    check(
        disk(1e4, Some(1e6)),
        VerdictStatus::Invalid,
        "RAM answered for the disk",
    );
    check(disk(1e6, None), VerdictStatus::Valid, "expected");
    let cold = |stored: f64, written: f64| {
        move |f: &mut Facts| {
            f.state = CacheState::Cold;
            f.tier = TierKind::Disk;
            f.canaries = None;
            f.by_source = Some(ALL_COMPUTED);
            f.stored_tokens = Some(stored);
            f.disk_write_bytes = Some(written);
        }
    };
    check(cold(1e4, 1e6), VerdictStatus::Valid, "computed");
    check(cold(1e4, 0.5e6), VerdictStatus::Invalid, "stored was not");
}

#[test]
fn nothing_moved_is_invalid_even_where_the_size_is_unknown() {
    let unsized_disk = |read: f64| {
        move |f: &mut Facts| {
            f.tier = TierKind::Disk;
            f.kv = KvBytes::default();
            f.pcie_rx_bytes = None;
            f.disk_read_bytes = Some(read);
        }
    };
    check(
        unsized_disk(0.0),
        VerdictStatus::Invalid,
        "0 MiB read from disk for 10000 tokens",
    );
    check(
        unsized_disk(1e9),
        VerdictStatus::Inconclusive,
        "kv_bytes_per_token",
    );
    // Readings that may mean nothing, and may mean much, do not convict.
    let coarse = |f: &mut Facts| {
        f.kv = KvBytes::default();
        let (low, high) = (0.0, 1e9);
        f.pcie_rx_bytes = Some(Bounds { low, high });
    };
    check(coarse, VerdictStatus::Inconclusive, "kv_bytes_per_token");
}

#[test]
fn a_load_faster_than_the_link_is_invalid() {
    let claim = |seconds: f64| {
        move |f: &mut Facts| {
            f.kv.stored = Some(Bounds::exact(131_072.0));
            f.pcie_rx_bytes = Some(Bounds::exact(1.3e9));
            f.fastest_load = Some(LoadClaim {
                tokens: 16_384.0,
                seconds,
                by: ClaimedBy::LmcacheLog,
            });
            f.host_link = Some(LinkLimit {
                bytes_per_s: 63e9,
                source: "PCIe generation 5, 16 lanes".into(),
            });
        }
    };
    let words = "LMCache's log claims 16384 tokens in 25.6 ms, 83.9 GB/s of KV";
    check(claim(0.0256), VerdictStatus::Invalid, words);
    check(claim(0.0400), VerdictStatus::Valid, "expected");
    // It convicts by the least that the tokens can take.
    let perhaps_smaller = |f: &mut Facts| {
        claim(0.0256)(f);
        let (low, high) = (65_536.0, 131_072.0);
        f.kv.stored = Some(Bounds { low, high });
    };
    check(perhaps_smaller, VerdictStatus::Valid, "expected");
    let restarted = |f: &mut Facts| {
        claim(0.0256)(f);
        (f.state, f.survives_restart) = (CacheState::Restart, true);
    };
    check(restarted, VerdictStatus::Invalid, "83.9 GB/s of KV");
    // An LMCache server times how long it takes to hand the copies to the GPU; its answers still count.
    let served = |f: &mut Facts| {
        claim(0.0256)(f);
        f.engine.loaded_tokens = Some(81_920.0);
    };
    check(served, VerdictStatus::Valid, "expected");
    let answered = |f: &mut Facts| {
        served(f);
        f.fastest_answer = f.fastest_load.map(|load| LoadClaim {
            by: ClaimedBy::FirstToken,
            ..load
        });
    };
    let words = "a request's time to first token claims 16384 tokens in 25.6 ms";
    check(answered, VerdictStatus::Invalid, words);
    // A cold pass loads nothing.
    let cold = |f: &mut Facts| {
        claim(0.0256)(f);
        f.state = CacheState::Cold;
        f.by_source = Some(ALL_COMPUTED);
    };
    check(cold, VerdictStatus::Valid, "every prompt was computed");
}

/// LMCache 0.5.6's disk tier in multi-process mode on an H200: its write buffer of 10 GiB was full.
#[test]
fn a_shortfall_names_its_cause_and_what_helps() {
    let short = |f: &mut Facts| {
        f.tier = TierKind::Disk;
        f.by_source = Some(BySource {
            computed_tokens: 16_576.0,
            gpu_tokens: 0.0,
            external_tokens: 81_920.0,
        });
        f.expected_hit_tokens = 98_304.0;
        f.causes.ram_gib = Some(10.0);
        f.causes.documents = Some(Documents { missed: 1, of: 6 });
    };
    let served = "the connector served 81920 of 98304 expected tokens: 1 of 6 documents was not";
    check(
        |f| {
            short(f);
            f.causes.fill = [(Failure::BufferFull, 2)].into();
        },
        VerdictStatus::Invalid,
        &format!(
            "{served} stored whole, because the write buffer of 10 GiB was full (raise \
             `max_local_cpu_size`)"
        ),
    );
    // What the fill's lookups and the pass's own stores met explains nothing.
    check(
        |f| {
            short(f);
            f.causes.fill = [(Failure::LookupTimedOut, 2), (Failure::BufferFull, 0)].into();
            f.logs.failures = [(Failure::BufferFull, 9)].into();
        },
        VerdictStatus::Invalid,
        &format!("{served} served whole"),
    );
    check(
        |f| {
            short(f);
            f.causes.documents = None;
            f.causes.fill = [(Failure::StoreFailed, 1)].into();
            f.logs.failures = [(Failure::LookupTimedOut, 3)].into();
        },
        VerdictStatus::Invalid,
        "expected tokens, because the second layer refused stores (see LMCache's log; is there \
         room?), and lookups timed out",
    );
    // A tier that served all the same is valid.
    check(
        |f| f.causes.fill = [(Failure::BufferFull, 2)].into(),
        VerdictStatus::Valid,
        "expected tokens",
    );
}

#[test]
fn a_load_faster_than_the_way_to_its_disk_or_redis_is_invalid() {
    let claim = |tier: TierKind, seconds: f64| {
        move |f: &mut Facts| {
            f.tier = tier;
            f.kv.stored = Some(Bounds::exact(131_072.0));
            f.disk_read_bytes = Some(1.4e9);
            f.redis_read_bytes = Some(1.4e9);
            f.pcie_rx_bytes = Some(Bounds::exact(1.4e9));
            f.fastest_answer = Some(LoadClaim {
                tokens: 16_384.0,
                seconds,
                by: ClaimedBy::WholePass,
            });
            f.tier_link = Some(LinkLimit {
                bytes_per_s: 1.25e9,
                source: "the link of eth0".into(),
            });
        }
    };
    let impossible = "2.1 GB/s of KV, and the link carries 1.2 GB/s at most (the link of eth0)";
    for tier in [TierKind::Redis, TierKind::Disk] {
        check(claim(tier, 1.0), VerdictStatus::Invalid, impossible);
        check(claim(tier, 1.8), VerdictStatus::Valid, "expected");
        // LMCache's log times the last step alone: it bounds nothing behind RAM.
        let by_log = |f: &mut Facts| {
            claim(tier, 1.8)(f);
            (f.fastest_load, f.fastest_answer) = (f.fastest_answer, None);
            f.fastest_load = f.fastest_load.map(|load| LoadClaim {
                seconds: 0.1,
                ..load
            });
        };
        check(by_log, VerdictStatus::Valid, "expected");
    }
    let ram = |f: &mut Facts| claim(TierKind::Cpu, 1.0)(f);
    check(ram, VerdictStatus::Valid, "expected");
    let cold = |f: &mut Facts| {
        claim(TierKind::Redis, 1.0)(f);
        f.state = CacheState::Restart;
        f.by_source = Some(ALL_COMPUTED);
        f.canaries = None;
    };
    check(cold, VerdictStatus::Valid, "does not survive a restart");
}

/// The log of LMCache 0.5.6's server during the cold pass of a disk tier on an H200, and the numbers
/// of the pass behind it: two stores found no room in a write buffer of 10 GiB.
#[test]
fn the_recorded_disk_cell_of_an_h200_names_its_full_buffer() {
    let log = LogCounts::of(include_str!("../../tests/data/h200_mp_disk_cold.log"));
    assert_eq!(log.count(Failure::BufferFull), 2);
    assert_eq!(log.stored.lines, 16);
    let recorded = |f: &mut Facts| {
        f.tier = TierKind::Disk;
        f.ok = 6;
        f.by_source = Some(BySource {
            computed_tokens: 16_576.0,
            gpu_tokens: 0.0,
            external_tokens: 81_920.0,
        });
        f.expected_hit_tokens = 98_304.0;
        f.shared_tokens = 98_304.0;
        f.causes = Causes {
            fill: log.failures.clone(),
            ram_gib: Some(10.0),
            documents: Some(Documents { missed: 1, of: 6 }),
        };
        f.kv.stored = Some(Bounds::exact(131_072.0));
        f.disk_read_bytes = Some(10_737_418_240.0);
        f.pcie_rx_bytes = Some(Bounds::exact(10_942_920_649.0));
    };
    check(
        recorded,
        VerdictStatus::Invalid,
        "the connector served 81920 of 98304 expected tokens: 1 of 6 documents was not stored \
         whole, because the write buffer of 10 GiB was full (raise `max_local_cpu_size`)",
    );
}

/// The native tier that [`proven`] would be, by vLLM's own account alone.
fn native(f: &mut Facts) {
    f.tier = TierKind::Native;
    f.pcie_rx_bytes = None;
    f.engine.load_bytes = Some(1e6);
    f.engine.cached = Some(CachedTokens {
        gpu_tokens: 0.0,
        ram_tokens: 10_000.0,
        behind_tokens: 0.0,
        unnamed_tokens: 0.0,
    });
}

#[test]
fn vllms_own_account_proves_its_own_tier_and_no_other() {
    check(native, VerdictStatus::Valid, "expected tokens");
    let with = |change: fn(&mut Facts)| {
        move |f: &mut Facts| {
            native(f);
            change(f);
        }
    };
    let invalid = VerdictStatus::Invalid;
    check(
        with(|f| f.engine.load_bytes = Some(0.8e6)),
        invalid,
        "loaded by vLLM's own account for",
    );
    check(
        with(|f| f.pcie_rx_bytes = Some(Bounds::exact(0.5e6))),
        invalid,
        "the hits were not loaded",
    );
    check(
        with(|f| f.engine.load_bytes = None),
        VerdictStatus::Inconclusive,
        "the load is not proven",
    );
    // Another connector's bytes prove nothing of LMCache.
    check(
        with(|f| f.tier = TierKind::Cpu),
        VerdictStatus::Inconclusive,
        "the load is not proven",
    );
}

#[test]
fn bytes_that_vllm_counts_must_have_moved_whatever_the_size() {
    check(
        |f| {
            native(f);
            f.kv = KvBytes::default();
            f.pcie_rx_bytes = Some(Bounds::exact(0.8e6));
        },
        VerdictStatus::Invalid,
        "vLLM counts 1,000,000 bytes that its offloading loaded, 800,000 moved",
    );
    let mut facts = proven();
    native(&mut facts);
    facts.pcie_rx_bytes = Some(Bounds::within(1e6, 0.2e6));
    let reasons = judge(&facts).reasons;
    let is_said = reasons.iter().any(|one| one.contains("vLLM counts"));
    assert!(!is_said, "it may all have moved: {reasons:?}");
    let cold = |moved: f64| {
        move |f: &mut Facts| {
            native(f);
            f.state = CacheState::Cold;
            f.canaries = None;
            f.kv = KvBytes::default();
            f.engine = EngineAccount::default();
            f.engine.store_bytes = Some(1e6);
            f.pcie_tx_bytes = Some(Bounds::exact(moved));
            f.by_source = Some(ALL_COMPUTED);
        }
    };
    check(cold(0.95e6), VerdictStatus::Valid, "computed");
    check(cold(0.8e6), VerdictStatus::Invalid, "stored was not");
}

#[test]
fn tokens_by_tier_that_contradict_the_others_are_not_valid() {
    let cached = |change: fn(&mut CachedTokens)| {
        move |f: &mut Facts| {
            native(f);
            let mut tokens = f.engine.cached.unwrap();
            change(&mut tokens);
            f.engine.cached = Some(tokens);
        }
    };
    let open = VerdictStatus::Inconclusive;
    check(
        cached(|c| c.ram_tokens = 5_000.0),
        open,
        "5,000 tokens from a connector by tier, and 10,000 by source",
    );
    check(
        cached(|c| c.gpu_tokens = 3_000.0),
        open,
        "3,000 tokens from the GPU cache by tier, and 0 by source",
    );
    check(
        cached(|c| (c.ram_tokens, c.behind_tokens) = (4_000.0, 6_000.0)),
        VerdictStatus::Invalid,
        "6,000 of 10,000 tokens from a tier behind its RAM",
    );
    // An engine may compute a prompt's last token again.
    check(
        cached(|c| c.ram_tokens = 10_010.0),
        VerdictStatus::Valid,
        "expected",
    );
}

#[test]
fn only_a_pass_that_its_tier_is_to_serve_has_another_layer() {
    let other = |state: CacheState, survives: bool, tier: TierKind| {
        let mut facts = proven();
        native(&mut facts);
        (facts.state, facts.survives_restart, facts.tier) = (state, survives, tier);
        facts.engine.cached = facts.engine.cached.map(|cached| CachedTokens {
            ram_tokens: 4_000.0,
            behind_tokens: 6_000.0,
            ..cached
        });
        let reasons = judge(&facts).reasons.join("\n");
        reasons.contains("a tier behind its RAM") || reasons.contains("files alone were to serve")
    };
    let (native, files) = (TierKind::Native, TierKind::NativeFs);
    for (state, survives, tier, expected) in [
        (CacheState::Tier, true, native, true),
        (CacheState::Restart, true, native, true),
        (CacheState::Cold, true, native, false),
        (CacheState::Gpu, true, native, false),
        (CacheState::Tier, true, files, true),
        (CacheState::Restart, true, files, true),
        (CacheState::Restart, false, files, false),
    ] {
        assert_eq!(other(state, survives, tier), expected, "{state} {tier:?}");
    }
}

#[test]
fn what_a_pass_repeats_itself_may_come_from_ram_before_files() {
    let repeats = |repeated_tokens: f64| {
        move |f: &mut Facts| {
            native(f);
            (f.tier, f.repeated_tokens) = (TierKind::NativeFs, repeated_tokens);
            f.disk_read_bytes = Some(1e6);
            f.engine.cached = f.engine.cached.map(|cached| CachedTokens {
                ram_tokens: 4_000.0,
                behind_tokens: 6_000.0,
                ..cached
            });
        }
    };
    check(repeats(4_000.0), VerdictStatus::Valid, "expected tokens");
    check(
        repeats(1_000.0),
        VerdictStatus::Invalid,
        "3,000 of 10,000 tokens from its RAM",
    );
}

#[test]
fn what_lmcaches_server_loaded_is_a_leg() {
    let loaded = |tokens: f64| move |f: &mut Facts| f.engine.loaded_tokens = Some(tokens);
    check(loaded(9_100.0), VerdictStatus::Valid, "expected");
    check(
        loaded(8_900.0),
        VerdictStatus::Invalid,
        "LMCache's own account: 8900 tokens loaded to the GPU for 10000",
    );
}

#[test]
fn each_witness_is_recorded_with_what_it_shows_alone() {
    let mut facts = proven();
    facts.pcie_rx_bytes = Some(Bounds::exact(9.0));
    facts.logs = LogCounts::of("[x] LMCache ERROR: batched get error: x");
    let shown = judge(&facts).witnesses;
    let expected = [
        (Witness::Counters, VerdictStatus::Valid),
        (Witness::Bytes, VerdictStatus::Invalid),
        (Witness::Text, VerdictStatus::Valid),
        (Witness::Logs, VerdictStatus::Inconclusive),
    ];
    assert_eq!(shown, expected.into());
}
