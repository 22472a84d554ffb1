use super::*;
use crate::sim::request::Save;

#[test]
fn only_full_chunks_are_stored_unless_configured_otherwise() {
    let mut lab = Lab::new(CPU, |_| ());
    lab.run(prompt(0, 1_000), 1);
    assert_eq!(lab.bytes().pcie_tx, 768 * KV);
    let mut lab = Lab::new(Some("save_unfull_chunk: true"), |_| ());
    let [_, _, tier] = lab.passes(&prompt(0, 1_000));
    assert_eq!(lab.bytes().pcie_tx, 1_000 * KV);
    assert_eq!(
        tier.cached, 999,
        "the whole prompt hit, so its last token is computed"
    );
    let mut lab = Lab::new(Some("save_decode_cache: true"), |_| ());
    lab.run(prompt(0, 500), 100);
    assert_eq!(
        lab.bytes().pcie_tx,
        512 * KV,
        "the chunk that the answer completed"
    );
}

#[test]
fn skipping_the_save_stores_nothing_and_tags_are_private() {
    let mut lab = Lab::new(CPU, |_| ());
    let mut request = SimRequest::plain(0, prompt(0, 600), 1);
    request.save = Save::Skip;
    lab.run_all(vec![request.clone()]);
    assert_eq!(lab.bytes().pcie_tx, 0);
    request.save = Save::Store;
    request.tier_namespace = 5;
    lab.run_all(vec![request.clone()]);
    assert!(lab.engine.reset_prefix_cache());
    request.tier_namespace = 6;
    assert_eq!(lab.run_all(vec![request.clone()])[0].cached, 0);
    assert!(lab.engine.reset_prefix_cache());
    request.tier_namespace = 5;
    request.cache_salt = 9;
    assert_eq!(
        lab.run_all(vec![request])[0].cached,
        512,
        "tiers do not know the salt"
    );
}

#[test]
fn the_tier_loads_what_the_gpu_lacks() {
    let mut lab = Lab::new(CPU, small(8_192));
    let long = prompt(0, 5_120);
    lab.run(long.clone(), 1);
    lab.run(prompt(100_000, 4_000), 1); // evicts the end of the first prompt
    lab.log.clear();
    let seen = lab.run(long, 1);
    let LogEvent::Lookup {
        computed,
        hit,
        need,
        total,
        ..
    } = &lab.log[0]
    else {
        panic!("{:?}", lab.log)
    };
    assert!((1_000..5_120).contains(computed), "{computed}");
    assert_eq!((*total, *hit, *need), (5_120, 5_120, 5_119 - computed));
    assert_eq!(seen.cached, 5_119);
    let LogEvent::Retrieved { tokens, .. } = &lab.log[1] else {
        panic!("{:?}", lab.log)
    };
    assert_eq!(
        *tokens,
        5_120 - computed / 256 * 256,
        "whole chunks are loaded"
    );
}

#[test]
fn short_loads_can_be_skipped() {
    let mut lab = Lab::new(Some("min_retrieve_tokens: 2000"), |_| ());
    let [_, _, tier] = lab.passes(&prompt(0, 1_056));
    assert_eq!(tier.cached, 0);
    assert_eq!(lab.bytes().pcie_rx, 0);
}

#[test]
fn storing_makes_the_cold_pass_slower_and_loading_beats_computing() {
    let mut plain = Lab::new(None, |_| ());
    let baseline = plain.run(prompt(0, 5_152), 4).ttft_us;
    let mut lab = Lab::new(CPU, |_| ());
    let [cold, gpu, tier] = lab.passes(&prompt(0, 5_152));
    let stored_us = 5_120 * KV / 40_000;
    assert!(
        cold.ttft_us > baseline + stored_us,
        "{} against {baseline}",
        cold.ttft_us
    );
    assert!(gpu.ttft_us < tier.ttft_us && tier.ttft_us < baseline / 2);
}

#[test]
fn a_load_blocks_the_other_requests_too() {
    let mut lab = Lab::new(DISK, |_| ());
    lab.passes(&prompt(0, 5_152));
    assert!(lab.engine.reset_prefix_cache());
    let requests = vec![
        SimRequest::plain(0, prompt(50_000, 32), 64),
        SimRequest::plain(0, prompt(0, 5_152), 1),
    ];
    let seen = lab.run_all(requests);
    let longest = seen[0]
        .at_us
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap();
    assert!(
        longest > 600_000,
        "a decode waits for the disk load: {longest} us"
    );
}

#[test]
fn a_false_hit_moves_no_byte_and_changes_the_text() {
    let mut lab = Lab::new(CPU, |spec| spec.faults = vec![Fault::FalseHit]);
    let [cold, gpu, tier] = lab.passes(&prompt(0, 2_080));
    assert_eq!(gpu.tokens, cold.tokens, "the GPU's own hits are good");
    assert_ne!(tier.tokens, cold.tokens);
    assert_eq!(tier.cached, 2_048, "usage reports the hit");
    assert_eq!(
        lab.engine.stats.external_transfer, 2_048,
        "so do the counters"
    );
    assert_eq!(lab.bytes().pcie_rx, 0);
    assert!(
        !lab.log
            .iter()
            .any(|event| matches!(event, LogEvent::Retrieved { .. }))
    );
    assert!(
        tier.ttft_us < cold.ttft_us / 2,
        "it looks like a great success"
    );
}

#[test]
fn kv_in_the_wrong_place_moves_every_byte_and_changes_the_text() {
    let mut lab = Lab::new(CPU, |spec| spec.faults = vec![Fault::WrongPlace]);
    let [cold, gpu, tier] = lab.passes(&prompt(0, 2_080));
    assert_eq!(gpu.tokens, cold.tokens);
    assert_ne!(tier.tokens, cold.tokens);
    assert_eq!(lab.bytes().pcie_rx, 2_048 * KV);
}

#[test]
fn stale_blocks_are_right_until_something_overwrites_them() {
    let mut lab = Lab::new(CPU, |spec| {
        spec.faults = vec![Fault::StaleBlocks];
        spec.gpu_kv_tokens = 8_192;
    });
    let [cold, _, tier] = lab.passes(&prompt(0, 2_080));
    assert_eq!(
        tier.tokens, cold.tokens,
        "the GPU still has what was not loaded"
    );
    for short in 0..8_192 / 240 {
        lab.run(prompt(50_000 + 255 * short, 255), 1);
    }
    assert!(lab.engine.reset_prefix_cache());
    let tier = lab.run(prompt(0, 2_080), 8);
    assert_eq!(
        tier.cached, 2_048,
        "prompts below a chunk evict nothing from the tier"
    );
    assert_ne!(tier.tokens, cold.tokens);
}

#[test]
fn a_blind_model_answers_the_same_behind_any_document() {
    let mut lab = Lab::new(CPU, |spec| spec.faults = vec![Fault::BlindModel]);
    let mut other = prompt(50_000, 2_080);
    *other.last_mut().unwrap() = 2_079;
    let answer = lab.run(prompt(0, 2_080), 8).tokens;
    assert_eq!(lab.run(other, 8).tokens, answer);
    assert_ne!(
        lab.run(prompt(9, 2_080), 8).tokens,
        answer,
        "but for the last token"
    );
}

#[test]
fn a_degraded_lmcache_costs_a_time_out_and_gives_nothing() {
    let mut lab = Lab::new(CPU, |spec| spec.faults = vec![Fault::Degraded]);
    let [cold, _, tier] = lab.passes(&prompt(0, 1_056));
    assert!(cold.ttft_us > 3_000_000 && tier.ttft_us > 3_000_000);
    assert_eq!((tier.cached, lab.bytes()), (0, PhysicalBytes::default()));
    assert!(lab.log.contains(&LogEvent::Unhealthy) && lab.log.contains(&LogEvent::LookupTimeout));
}

#[test]
fn lagging_stores_are_missed_by_the_next_pass() {
    let mut lab = Lab::new(CPU, |spec| {
        spec.faults = vec![Fault::StoreLags];
        spec.store_lag_ms = 120_000;
    });
    let [_, _, tier] = lab.passes(&prompt(0, 1_056));
    assert_eq!(tier.cached, 0);
    lab.now_us += 120_000_000;
    assert!(lab.engine.reset_prefix_cache());
    assert_eq!(lab.run(prompt(0, 1_056), 1).cached, 1_024);
}
