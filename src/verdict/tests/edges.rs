//! Values at the very edge of a rule, and what must not be said.

use super::*;
use crate::verdict::causes::Failures;

/// All reasons of the proven facts after `change`, and the status.
fn judged(change: impl FnOnce(&mut Facts)) -> (VerdictStatus, String) {
    let mut facts = proven();
    change(&mut facts);
    let verdict = judge(&facts);
    (verdict.status, verdict.reasons.join("\n"))
}

fn sources(computed_tokens: f64, gpu_tokens: f64, external_tokens: f64) -> BySource {
    BySource {
        computed_tokens,
        gpu_tokens,
        external_tokens,
    }
}

fn cold(f: &mut Facts) {
    f.state = CacheState::Cold;
    f.by_source = Some(sources(10_320.0, 0.0, 0.0));
}

fn on_gpu(f: &mut Facts) {
    f.state = CacheState::Gpu;
    f.by_source = Some(sources(320.0, 10_000.0, 0.0));
}

/// A native tier with 10,000 tokens from its RAM, none computed.
fn whole_native(f: &mut Facts) {
    native(f);
    f.by_source = Some(sources(0.0, 0.0, 10_000.0));
}

type Change = fn(&mut Facts);

/// What is just enough, or not yet too much: none of it is held against a pass.
const JUST_GOOD: [(&str, Change); 19] = [
    ("failed", |f| (f.ok, f.failed) = (98, 2)),
    ("served", |f| {
        f.by_source = Some(sources(1320.0, 0.0, 9000.0));
    }),
    ("stray", |f| {
        f.by_source = Some(sources(0.0, 100.0, 9900.0));
    }),
    ("repeated", |f| {
        f.by_source = Some(sources(0.0, 300.0, 9700.0));
        f.repeated_tokens = 200.0;
    }),
    ("probe of the GPU", |f| {
        on_gpu(f);
        f.probe = Some(probed(1000.0, 900.0, 0.0));
    }),
    ("sent", |f| {
        f.counted.server_prompt_tokens = Some(1011.0);
        f.counted.sent_prompt_tokens = Some(1000.0);
    }),
    ("more cached", |f| {
        f.by_source = Some(sources(0.0, 0.0, 10_000.0));
        f.counted.cached_tokens = 10_101.0;
    }),
    ("more cached, a token an answer", |f| {
        f.by_source = Some(sources(0.0, 0.0, 10_000.0));
        (f.ok, f.counted.cached_tokens) = (500, 10_501.0);
    }),
    ("fewer cached", |f| {
        f.by_source = Some(sources(0.0, 0.0, 10_000.0));
        f.counted.all_cached_tokens = Some(9899.0);
    }),
    ("by tier", |f| {
        whole_native(f);
        f.engine.cached.as_mut().unwrap().ram_tokens = 10_101.0;
    }),
    ("by tier, a token an answer", |f| {
        whole_native(f);
        f.ok = 500;
        f.engine.cached.as_mut().unwrap().ram_tokens = 10_501.0;
    }),
    ("behind RAM", |f| {
        whole_native(f);
        let cached = f.engine.cached.as_mut().unwrap();
        (cached.ram_tokens, cached.behind_tokens) = (9900.0, 100.0);
    }),
    ("own account", |f| {
        native(f);
        f.kv.stored = Some(Bounds::exact(90.0));
        f.pcie_rx_bytes = Some(Bounds::exact(0.9e6));
    }),
    ("as fast as the link", |f| {
        claims(f, 10.0, 1.0);
    }),
    ("in no time", |f| claims(f, 10.0, 0.0)),
    ("a control without a canary", |f| {
        control(f);
        f.canaries = None;
    }),
    ("one token of a control", |f| {
        control(f);
        f.by_source = Some(sources(10_000.0, 0.0, 1.0));
    }),
    ("no canary within the load", |f| {
        f.canaries_in_load = Some(canaries(0, 0, 0));
    }),
    ("a baseline that stores nothing", |f| {
        f.tier = TierKind::Baseline;
        f.by_source = Some(sources(10_320.0, 0.0, 0.0));
        f.stores = Stores::Unfinished {
            waited: Duration::from_secs(1),
        };
    }),
];

fn control(f: &mut Facts) {
    (f.expected_hit_tokens, f.shared_tokens) = (0.0, 0.0);
    f.by_source = Some(sources(10_000.0, 0.0, 0.0));
}

/// A load of `tokens` in `seconds` over a link of 1,000 bytes a second.
fn claims(f: &mut Facts, tokens: f64, seconds: f64) {
    f.fastest_load = Some(LoadClaim {
        tokens,
        seconds,
        by: ClaimedBy::LmcacheLog,
    });
    f.host_link = Some(LinkLimit {
        bytes_per_s: 1000.0,
        source: "x".to_owned(),
    });
}

#[test]
fn what_is_just_enough_is_valid() {
    for (what, change) in JUST_GOOD {
        let (status, reasons) = judged(change);
        assert_eq!(status, VerdictStatus::Valid, "{what}: {reasons}");
    }
}

/// What is a little beyond the edge, and the words of the reason.
const JUST_BAD: [(&str, VerdictStatus, Change); 10] = [
    (
        "1 of 2 requests failed; first: unfinished",
        VerdictStatus::Inconclusive,
        |f| (f.ok, f.failed) = (1, 1),
    ),
    (
        "the server served 1,012 prompt tokens, this load sent 1,000",
        VerdictStatus::Invalid,
        |f| {
            f.counted.server_prompt_tokens = Some(1012.0);
            f.counted.sent_prompt_tokens = Some(1000.0);
        },
    ),
    (
        "1 tokens of a probe came from",
        VerdictStatus::Invalid,
        |f| {
            cold(f);
            f.probe = Some(probed(0.0, 1.0, 0.0));
        },
    ),
    ("no canary was asked", VerdictStatus::Inconclusive, |f| {
        f.canaries = Some(Canaries {
            asked: 0,
            ..canaries(0, 0, 0)
        });
    }),
    (
        "48 % of the prompt tokens came",
        VerdictStatus::Invalid,
        |f| {
            f.by_source = Some(sources(320.0, 5000.0, 5000.0));
        },
    ),
    (
        "no byte counter of the server's disk reads",
        VerdictStatus::Inconclusive,
        |f| {
            f.tier = TierKind::Disk;
            f.disk_read_bytes = None;
        },
    ),
    (
        "LMCache's log claims 11 tokens",
        VerdictStatus::Invalid,
        |f| {
            claims(f, 11.0, 1.0);
        },
    ),
    (
        "a request's time to first token",
        VerdictStatus::Invalid,
        |f| {
            claims(f, 11.0, 1.0);
            f.fastest_load.as_mut().unwrap().by = ClaimedBy::FirstToken;
        },
    ),
    ("the pass as a whole claims", VerdictStatus::Invalid, |f| {
        claims(f, 11.0, 1.0);
        f.fastest_load.as_mut().unwrap().by = ClaimedBy::WholePass;
    }),
    (
        "and the GPU prefix cache, which was not cleared, 1",
        VerdictStatus::Invalid,
        |f| {
            f.probe = Some(probed(768.0, 1.0, 0.0));
        },
    ),
];

#[test]
fn what_is_just_too_much_is_named() {
    for (words, expected, change) in JUST_BAD {
        let (status, reasons) = judged(change);
        assert_eq!(status, expected, "{words}: {reasons}");
        assert!(reasons.contains(words), "{words}: {reasons}");
    }
}

#[test]
fn a_reason_says_no_more_than_was_seen() {
    let all: [(&str, Change); 10] = [
        ("no canary was asked", |f| {
            (f.expected_hit_tokens, f.canaries) = (0.0, None);
        }),
        ("0 of 0 requests", |f| f.ok = 0),
        ("5 of 5 requests failed", |f| (f.ok, f.failed) = (0, 5)),
        ("not cleared", |f| f.probe = Some(probed(768.0, 0.5, 0.0))),
        ("but for", cold),
        ("moved from the GPU", |f| {
            cold(f);
            f.stored_tokens = Some(10_000.0);
            f.pcie_tx_bytes = Some(Bounds::exact(1_050_000.0));
        }),
        ("reports that", |f| {
            f.logs.degraded = true;
            f.logs.failures = [(Failure::Degraded, 1)].into();
        }),
        ("within the load", |f| {
            f.canaries_in_load = Some(canaries(0, 0, 0));
        }),
        ("because", |f| {
            f.by_source = Some(sources(5320.0, 0.0, 5000.0));
            // They keep nothing from being loaded.
            f.logs.failures = [(Failure::BufferFull, 1), (Failure::StoreFailed, 1)].into();
        }),
        ("documents", |f| {
            f.by_source = Some(sources(5320.0, 0.0, 5000.0));
            f.causes.documents = Some(Documents { missed: 0, of: 7 });
        }),
    ];
    for (words, change) in all {
        let (_, reasons) = judged(change);
        assert!(!reasons.contains(words), "{words}: {reasons}");
    }
}

#[test]
fn a_shortfall_without_a_known_cause_ends_with_its_numbers() {
    let (_, reasons) = judged(|f| {
        f.by_source = Some(sources(5320.0, 0.0, 5000.0));
        f.causes.fill = Failures::new();
    });
    let first = reasons.lines().next().unwrap();
    assert_eq!(first, "the connector served 5000 of 10000 expected tokens");
}

#[test]
fn the_page_cache_is_a_reason_only_where_a_disk_was_to_be_read() {
    let disk = |state, tier| {
        let change = move |f: &mut Facts| {
            (f.state, f.tier) = (state, tier);
            f.page_cache = Some(PageCache::Direct);
        };
        judged(change).1.contains("O_DIRECT")
    };
    for (state, tier, expected) in [
        (CacheState::Tier, TierKind::Disk, true),
        (CacheState::Tier, TierKind::CpuDisk, true),
        (CacheState::Tier, TierKind::Cpu, false),
        (CacheState::Cold, TierKind::Disk, false),
        (CacheState::Gpu, TierKind::CpuDisk, false),
        // It does not survive one here.
        (CacheState::Restart, TierKind::Disk, false),
    ] {
        assert_eq!(disk(state, tier), expected, "{state} {tier:?}");
    }
    let (_, reasons) = judged(|f| {
        (f.state, f.tier, f.survives_restart) = (CacheState::Restart, TierKind::Disk, true);
        f.page_cache = Some(PageCache::Direct);
    });
    assert!(reasons.contains("O_DIRECT"), "{reasons}");
    let (_, reasons) = judged(|f| {
        f.tier = TierKind::Disk;
        f.page_cache = Some(PageCache::Dropped { files: 3 });
    });
    assert!(
        reasons.contains("page cache of 3 files was dropped"),
        "{reasons}"
    );
}

#[test]
fn the_worst_finding_of_a_witness_is_what_it_shows_alone() {
    let mut facts = proven();
    facts.tier = TierKind::Disk;
    facts.probe = Some(probed(768.0, 768.0, 0.0));
    facts.page_cache = Some(PageCache::Direct);
    let alone = judge(&facts).witnesses;
    assert_eq!(alone[&Witness::State], VerdictStatus::Invalid);
    // Whichever comes first.
    let mut facts = proven();
    facts.canaries_in_load = Some(canaries(2, 1, 0));
    let alone = judge(&facts).witnesses;
    assert_eq!(alone[&Witness::Text], VerdictStatus::Invalid);
}

#[test]
fn what_a_comparison_of_answers_rests_on_is_in_brackets() {
    let text = |change: fn(&mut Canaries)| {
        let (_, reasons) = judged(|f| change(f.canaries.as_mut().unwrap()));
        let mut lines = reasons.lines().map(str::to_owned);
        lines.find(|line| line.contains("canary answers")).unwrap()
    };
    let end = "another chunk in the document changed 2 of 2";
    for (change, expected) in [
        (
            (|c| c.scored = 0) as fn(&mut Canaries),
            "2 of 2 canary answers stayed the same; text only: the server gave no log-probabilities",
        ),
        (
            |c| c.distance = 0.05,
            "2 of 2 canary answers stayed the same; log-probabilities within 0.050, tolerance 0.100",
        ),
        (
            |c| (c.same, c.distance) = (1, f64::INFINITY),
            "1 of 2 canary answers changed: the loaded cache is not what was stored; other text, \
             beyond a tolerance of 0.100 in log-probability",
        ),
    ] {
        assert_eq!(text(change), format!("{expected}; {end}"));
    }
}

#[test]
fn all_prompt_tokens_are_those_of_every_source() {
    let total = sources(1.0, 20.0, 300.0).total();
    assert!((total - 321.0).abs() < 1e-9, "{total}");
}
