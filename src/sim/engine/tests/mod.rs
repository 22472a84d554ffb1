mod tiers;

use super::*;
use crate::sim::request::Sampling;

/// An engine and its clock.
struct Lab {
    engine: Engine,
    now_us: u64,
    next_id: u64,
    log: Vec<LogEvent>,
}

/// What the client of a request saw.
#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    tokens: Vec<u32>,
    at_us: Vec<u64>,
    ttft_us: u64,
    cached: u32,
}

impl Lab {
    fn new(yaml: Option<&str>, change: impl FnOnce(&mut SimSpec)) -> Self {
        let mut spec = SimSpec::default();
        change(&mut spec);
        let offload = yaml.map(|yaml| OffloadConfig::from_yaml(yaml).unwrap().offload);
        let prefix_caching = PrefixCaching::Enabled;
        let engine = Engine::new(EngineConfig {
            spec,
            prefix_caching,
            offload,
        });
        Self {
            engine,
            now_us: 0,
            next_id: 0,
            log: Vec::new(),
        }
    }

    /// Submits all at once and waits for all.
    fn run_all(&mut self, requests: Vec<SimRequest>) -> Vec<Seen> {
        let first = self.next_id;
        let mut seen = vec![Seen::default(); requests.len()];
        let start_us = self.now_us;
        for mut request in requests {
            request.id = self.next_id;
            self.next_id += 1;
            self.engine.submit(request, start_us).unwrap();
        }
        while let Some(at_us) = self.engine.next_event_us() {
            self.now_us = at_us;
            for emission in self.engine.advance(at_us) {
                match emission.event {
                    EngineEvent::Log(event) => self.log.push(event),
                    EngineEvent::Token(token) => {
                        let seen = &mut seen[(token.request - first) as usize];
                        if seen.tokens.is_empty() {
                            seen.ttft_us = emission.at_us - start_us;
                            seen.cached = token.cached_tokens;
                        }
                        seen.tokens.push(token.token);
                        seen.at_us.push(emission.at_us);
                    }
                }
            }
        }
        seen
    }

    fn run(&mut self, prompt: Vec<u32>, max_tokens: u32) -> Seen {
        self.run_all(vec![SimRequest::plain(0, prompt, max_tokens)])
            .remove(0)
    }

    /// The same prompt cold, from the GPU, and after a reset.
    fn passes(&mut self, prompt: &[u32]) -> [Seen; 3] {
        let cold = self.run(prompt.to_vec(), 8);
        let gpu = self.run(prompt.to_vec(), 8);
        self.now_us += 60_000_000;
        assert!(self.engine.reset_prefix_cache());
        self.engine.drop_page_cache();
        [cold, gpu, self.run(prompt.to_vec(), 8)]
    }

    fn bytes(&mut self) -> PhysicalBytes {
        self.engine.physical_bytes(self.now_us + 3_600_000_000)
    }
}

fn prompt(start: u32, tokens: u32) -> Vec<u32> {
    (start..start + tokens).collect()
}

fn small(tokens: u64) -> impl FnOnce(&mut SimSpec) {
    move |spec| spec.gpu_kv_tokens = tokens
}

const CPU: Option<&str> = Some("max_local_cpu_size: 30");
const DISK: Option<&str> = Some(
    "local_cpu: false\nmax_local_cpu_size: 30\nlocal_disk: /d\nmax_local_disk_size: 60\n\
     extra_config: {use_odirect: true}",
);
const KV: u64 = 131_072;

#[test]
fn a_long_prompt_is_computed_in_chunks_of_the_budget() {
    let mut lab = Lab::new(None, |_| ());
    lab.run(prompt(0, 20_000), 1);
    let steps = &lab.engine.stats.iteration_tokens;
    // 8192 + 8192 + 3616, counted in the buckets up to 8192 and up to 4096.
    let bounds = [8_192.0, 4_096.0].map(|bound| {
        let index = steps
            .bounds
            .iter()
            .position(|other| *other >= bound)
            .unwrap();
        steps.counts[index]
    });
    assert_eq!(bounds, [2, 1], "{steps:?}");
    assert_eq!(steps.sum as u64, 20_000);
}

#[test]
fn decoding_goes_on_while_others_are_prefilled() {
    let mut lab = Lab::new(None, |_| ());
    let requests = vec![
        SimRequest::plain(0, prompt(0, 32), 64),
        SimRequest::plain(0, prompt(50_000, 40_000), 2),
    ];
    let seen = lab.run_all(requests);
    let gaps: Vec<u64> = seen[0]
        .at_us
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    let slow = gaps.iter().filter(|gap| **gap > 100_000).count();
    assert!(
        (4..=6).contains(&slow),
        "one slow gap a prefill step, not all at the end: {gaps:?}"
    );
}

#[test]
fn the_prefix_cache_shares_full_blocks_and_never_the_last_token() {
    let mut lab = Lab::new(None, |_| ());
    lab.run(prompt(0, 1_024), 1);
    assert_eq!(lab.run(prompt(0, 1_024), 1).cached, 1_008);
    assert_eq!(lab.run(prompt(0, 1_030), 1).cached, 1_024);
    let mut other = prompt(0, 1_024);
    other[20] = 9;
    assert_eq!(
        lab.run(other, 1).cached,
        16,
        "only the block before the change"
    );
    let mut salted = SimRequest::plain(0, prompt(0, 1_024), 1);
    salted.cache_salt = 7;
    assert_eq!(lab.run_all(vec![salted])[0].cached, 0);
    assert_eq!(lab.engine.stats.prefix_hits, 1_008 + 1_024 + 16);
}

#[test]
fn prefix_caching_can_be_off() {
    let mut lab = Lab::new(CPU, |_| ());
    lab.engine.prefix_caching = PrefixCaching::Disabled;
    lab.run(prompt(0, 1_056), 1);
    assert_eq!(
        lab.run(prompt(0, 1_056), 1).cached,
        1_024,
        "from the tier, every time"
    );
    assert_eq!(lab.engine.stats.prefix_queries, 0);
    assert_eq!(lab.engine.stats.external_transfer, 1_024);
}

#[test]
fn the_gpu_evicts_the_least_recently_used_prefix() {
    let mut lab = Lab::new(None, small(1_024));
    lab.run(prompt(0, 400), 1);
    lab.run(prompt(1_000, 400), 1);
    lab.run(prompt(0, 400), 1);
    lab.run(prompt(2_000, 400), 1);
    assert_eq!(lab.run(prompt(0, 400), 1).cached, 384, "used since");
    assert!(
        lab.run(prompt(1_000, 400), 1).cached < 384,
        "its end was evicted first"
    );
}

#[test]
fn requests_wait_when_the_pool_is_full_and_all_finish() {
    let mut lab = Lab::new(None, small(2_048));
    let request = |start| SimRequest::plain(0, prompt(start, 1_500), 4);
    let seen = lab.run_all(vec![request(0), request(10_000), request(20_000)]);
    assert!(
        seen[1].at_us[0] > *seen[0].at_us.last().unwrap(),
        "only one fits"
    );
    assert!(seen.iter().all(|seen| seen.tokens.len() == 4));
    assert_eq!(lab.engine.pool.free(), lab.engine.pool.len());
}

#[test]
fn a_preempted_request_continues_with_the_same_text() {
    let requests = || {
        (0..4)
            .map(|i| SimRequest::plain(0, prompt(i * 1_000, 200), 200))
            .collect::<Vec<_>>()
    };
    let mut roomy = Lab::new(None, |_| ());
    let expected = roomy.run_all(requests());
    let mut tight = Lab::new(None, small(1_024));
    let seen = tight.run_all(requests());
    assert!(tight.engine.stats.preemptions > 0);
    for (seen, expected) in seen.iter().zip(&expected) {
        assert_eq!(seen.tokens, expected.tokens);
    }
    assert_eq!(tight.engine.stats.prompt_tokens, 800, "counted once");
}

#[test]
fn the_text_is_the_same_computed_cached_and_loaded() {
    for yaml in [
        None,
        CPU,
        DISK,
        Some("local_cpu: false\nremote_url: redis://h:1"),
    ] {
        let mut lab = Lab::new(yaml, |_| ());
        let [cold, gpu, tier] = lab.passes(&prompt(0, 2_000));
        assert_eq!(
            (&gpu.tokens, &tier.tokens),
            (&cold.tokens, &cold.tokens),
            "{yaml:?}"
        );
        let from_tier = if yaml.is_some() { 1_792 } else { 0 };
        assert_eq!(
            (cold.cached, gpu.cached, tier.cached),
            (0, 1_984, from_tier),
            "{yaml:?}"
        );
    }
    let mut lab = Lab::new(None, |_| ());
    let one = lab.run(prompt(0, 100), 8);
    assert_ne!(
        one.tokens,
        lab.run(prompt(1, 100), 8).tokens,
        "another prompt, another text"
    );
}

#[test]
fn seeds_choose_the_text_only_when_sampling() {
    let mut lab = Lab::new(None, |_| ());
    let mut request = SimRequest::plain(0, prompt(0, 100), 8);
    let greedy = lab.run_all(vec![request.clone()]).remove(0).tokens;
    request.sampling = Sampling::Seeded(1);
    let one = lab.run_all(vec![request.clone()]).remove(0).tokens;
    assert_eq!(lab.run_all(vec![request.clone()]).remove(0).tokens, one);
    request.sampling = Sampling::Seeded(2);
    let two = lab.run_all(vec![request]).remove(0).tokens;
    assert!(one != two && one != greedy);
}

#[test]
fn a_refused_reset_keeps_the_cache() {
    let mut lab = Lab::new(None, |spec| spec.faults = vec![Fault::ResetRefused]);
    lab.run(prompt(0, 100), 1);
    assert!(!lab.engine.reset_prefix_cache());
    assert_eq!(lab.run(prompt(0, 100), 1).cached, 96);
}

#[test]
fn a_stalled_engine_never_answers() {
    let mut lab = Lab::new(None, |spec| {
        spec.faults = vec![Fault::Stall];
        spec.fault_after_requests = 1;
    });
    assert_eq!(lab.run(prompt(0, 100), 4).tokens.len(), 4);
    assert!(lab.run(prompt(0, 100), 4).tokens.is_empty());
    assert_eq!(lab.engine.next_event_us(), None);
    assert_eq!(lab.engine.unfinished(), 1);
}

#[test]
fn an_aborted_request_gives_its_blocks_back() {
    let mut lab = Lab::new(None, |_| ());
    lab.engine
        .submit(SimRequest::plain(0, prompt(0, 1_000), 1_000), 0)
        .unwrap();
    lab.engine.advance(50_000);
    assert!(!lab.engine.reset_prefix_cache(), "blocks are in use");
    assert!(lab.engine.stats().kv_usage > 0.0 && lab.engine.stats().running == 1);
    lab.engine.abort(0);
    assert!(lab.engine.reset_prefix_cache());
    (lab.now_us, lab.next_id) = (60_000, 1);
    assert_eq!(
        lab.run(prompt(0, 100), 4).tokens.len(),
        4,
        "the engine goes on"
    );
}

#[test]
fn what_can_never_run_is_refused() {
    let mut lab = Lab::new(None, small(1_024));
    let error = lab
        .engine
        .submit(SimRequest::plain(0, prompt(0, 1_024), 1), 0)
        .unwrap_err();
    assert_eq!(
        error,
        SubmitError::TooLong {
            prompt: 1_024,
            capacity: 1_024
        }
    );
    let error = lab
        .engine
        .submit(SimRequest::plain(0, Vec::new(), 1), 0)
        .unwrap_err();
    assert_eq!(error, SubmitError::Empty);
    let seen = lab.run(prompt(0, 1_000), 500);
    assert_eq!(seen.tokens.len(), 24, "as many as the cache has room for");
}

#[test]
fn the_same_input_gives_the_same_run_whatever_the_steps_of_the_clock() {
    let requests = || {
        (0..8)
            .map(|i| SimRequest::plain(0, prompt(i * 7, 3_000), 20))
            .collect::<Vec<_>>()
    };
    let seen = Lab::new(DISK, |_| ()).run_all(requests());
    assert_eq!(Lab::new(DISK, |_| ()).run_all(requests()), seen);
    let mut coarse = Lab::new(DISK, |_| ());
    for (id, mut request) in requests().into_iter().enumerate() {
        request.id = id as u64;
        coarse.engine.submit(request, 0).unwrap();
    }
    for emission in coarse.engine.advance(u64::MAX) {
        if let EngineEvent::Token(token) = emission.event {
            assert!(seen[token.request as usize].at_us.contains(&emission.at_us));
        }
    }
}
