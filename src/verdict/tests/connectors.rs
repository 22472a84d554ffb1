//! Tiers of connectors that labrun does not know: what the plan names to watch is to have carried all.

use super::*;
use crate::evidence::Evidence;
use crate::record::way::Way;

/// A tier of connector `Foreign` that served what [`proven`] has; `change` says what is watched.
fn foreign(change: impl Fn(&mut ConnectorFacts)) -> impl Fn(&mut Facts) {
    move |f: &mut Facts| {
        let mut connector = ConnectorFacts {
            name: "Foreign".to_owned(),
            ..ConnectorFacts::default()
        };
        change(&mut connector);
        f.tier = TierKind::Connector;
        f.connector = Some(connector);
    }
}

fn counter(grew: Option<f64>) -> CounterGrowth {
    let name = "my_total".to_owned();
    CounterGrowth { name, grew }
}

fn exactly(bytes: f64) -> PortBytes {
    PortBytes {
        bytes,
        is_at_least: false,
    }
}

fn port(received: Option<f64>, sent: Option<f64>) -> PortFacts {
    PortFacts {
        received: received.map(exactly),
        sent: sent.map(exactly),
        unread: "no connection to port 6500 was seen".to_owned(),
    }
}

#[test]
fn files_of_a_connector_are_read_past_the_page_cache() {
    let watched = foreign(|it| it.disk = true);
    let direct = |f: &mut Facts| {
        watched(f);
        f.disk_read_bytes = Some(1e6);
        f.page_cache = Some(PageCache::Direct);
    };
    let mut facts = proven();
    direct(&mut facts);
    let reasons = judge(&facts).reasons;
    let is_named = |reason: &String| reason.contains("the disk is read with O_DIRECT");
    assert!(reasons.iter().any(is_named), "{reasons:?}");
    let unwatched = foreign(|it| it.pcie = true);
    let mut facts = proven();
    unwatched(&mut facts);
    facts.page_cache = Some(PageCache::Direct);
    let reasons = judge(&facts).reasons;
    assert!(!reasons.iter().any(is_named), "{reasons:?}");
}

#[test]
fn a_watched_leg_that_carried_all_is_valid_and_one_that_falls_short_is_not() {
    for (moved, status, reason) in [
        (Some(1e6), VerdictStatus::Valid, "expected tokens"),
        (Some(1e4), VerdictStatus::Invalid, "MiB of KV: "),
        (
            None,
            VerdictStatus::Inconclusive,
            "of connector `Foreign` is not proven: no",
        ),
    ] {
        let by_disk = foreign(|it| it.disk = true);
        let disk = |f: &mut Facts| {
            by_disk(f);
            f.disk_read_bytes = moved;
        };
        check(disk, status, reason);
        let by_redis = foreign(|it| it.redis = true);
        let redis = |f: &mut Facts| {
            by_redis(f);
            f.redis_read_bytes = moved;
        };
        check(redis, status, reason);
        let by_port = foreign(|it| it.port = Some(port(moved, None)));
        let reason_of_port = match moved {
            None => "is not proven: no connection to port 6500 was seen",
            Some(_) => reason,
        };
        check(by_port, status, reason_of_port);
        let by_pcie = foreign(|it| it.pcie = true);
        let pcie = |f: &mut Facts| {
            by_pcie(f);
            f.pcie_rx_bytes = moved.map(Bounds::exact);
        };
        check(pcie, status, reason);
        let by_counter = foreign(|it| it.loaded_bytes = Some(counter(moved)));
        let reason = match moved {
            None => "the counter `my_total` is not exposed, or fell",
            Some(_) => reason,
        };
        check(by_counter, status, reason);
    }
}

#[test]
fn a_lower_bound_of_a_ports_bytes_proves_where_it_is_enough_and_never_convicts() {
    let exact = Some(Bounds::exact(100.0));
    let between = Some(Bounds {
        low: 50.0,
        high: 100.0,
    });
    for (bytes, size, status, reason) in [
        (1e6, exact, VerdictStatus::Valid, "expected tokens"),
        // The protocol's own words are taken off before it is compared.
        (0.93e6, exact, VerdictStatus::Valid, "expected tokens"),
        (
            0.91e6,
            exact,
            VerdictStatus::Inconclusive,
            "at least 1 MiB read from the port for 1 MiB of KV: a connection was closed, and its last bytes \
             were not seen",
        ),
        (
            0.0,
            exact,
            VerdictStatus::Inconclusive,
            "at least 0 MiB read from the port for 1 MiB of KV: a connection",
        ),
        // It must be enough for the largest size that is possible.
        (
            0.6e6,
            between,
            VerdictStatus::Inconclusive,
            "at least 1 MiB read from the port for",
        ),
        (1e6, between, VerdictStatus::Valid, "expected tokens"),
        (
            0.0,
            None,
            VerdictStatus::Inconclusive,
            "at least 0 MiB read from the port for 10000 tokens: a connection",
        ),
    ] {
        let watched = foreign(move |it| {
            let received = PortBytes {
                bytes,
                is_at_least: true,
            };
            it.port = Some(PortFacts {
                received: Some(received),
                ..port(None, None)
            });
        });
        let change = |f: &mut Facts| {
            watched(f);
            f.pcie_rx_bytes = None;
            f.kv.stored = size;
        };
        check(change, status, reason);
        let mut facts = proven();
        change(&mut facts);
        if size.is_some() {
            let rows = ledger::rows(&facts);
            assert_eq!(
                (rows[0].path.as_str(), rows[0].method.as_str()),
                ("port-read", "tcp-info")
            );
            assert_eq!(rows[0].moved_bytes, Some(0.98 * bytes));
        }
    }
}

#[test]
fn what_was_lost_of_a_ports_stores_convicts_nobody() {
    for (is_at_least, status) in [
        (false, VerdictStatus::Invalid),
        (true, VerdictStatus::Valid),
    ] {
        let stores = foreign(move |it| {
            let sent = PortBytes {
                bytes: 1e5,
                is_at_least,
            };
            it.port = Some(PortFacts {
                sent: Some(sent),
                ..port(None, None)
            });
            it.stored_bytes = Some(counter(Some(1e6)));
        });
        let cold = |f: &mut Facts| {
            stores(f);
            f.state = CacheState::Cold;
            f.by_source = Some(ALL_COMPUTED);
        };
        let reason = match status {
            VerdictStatus::Valid => "every prompt was computed",
            _ => "MiB written to the port for 1 MiB of KV: what was counted as stored was not",
        };
        check(cold, status, reason);
    }
}

#[test]
fn the_bytes_of_a_port_are_among_the_numbers_beside_the_verdict() {
    let mut facts = proven();
    foreign(|it| it.port = Some(port(Some(5.0), Some(6.0))))(&mut facts);
    let measures = measures::of_facts(&facts);
    assert_eq!(
        measures[&Evidence::PortReadBytes].to_bits(),
        5.0_f64.to_bits()
    );
    assert_eq!(
        measures[&Evidence::PortWriteBytes].to_bits(),
        6.0_f64.to_bits()
    );
    foreign(|it| it.port = Some(port(None, None)))(&mut facts);
    assert!(!measures::of_facts(&facts).contains_key(&Evidence::PortReadBytes));
}

#[test]
fn facts_of_before_ports_are_read() {
    let older = r#"{"name":"Foreign","disk":true,"redis":false,"pcie":false,"loaded_bytes":null,
                    "stored_bytes":null,"hit_tokens":null}"#;
    let facts: ConnectorFacts = serde_json::from_str(older).unwrap();
    assert_eq!(facts.port, None);
    assert!(!serde_json::to_string(&facts).unwrap().contains("port"));
    let watched = ConnectorFacts {
        port: Some(port(Some(5.0), None)),
        ..facts
    };
    let stored = serde_json::to_string(&watched).unwrap();
    assert_eq!(
        serde_json::from_str::<ConnectorFacts>(&stored).unwrap(),
        watched
    );
}

#[test]
fn what_nobody_watches_is_inconclusive_by_name_whatever_else_moved() {
    let unseen = "nothing that labrun can read shows what connector `Foreign` loaded: name a folder, a Redis, \
                  a port or a counter under `watch` of its tier";
    check(foreign(|_| {}), VerdictStatus::Inconclusive, unseen);
    // Bytes that the plan does not name are of another tier.
    let nothing = foreign(|_| {});
    let busy = |f: &mut Facts| {
        nothing(f);
        f.disk_read_bytes = Some(1e6);
        f.redis_read_bytes = Some(1e6);
        f.engine.load_bytes = Some(1e6);
        f.account = Some(TierAccount {
            ram_tokens: 10_000.0,
            second_tokens: 0.0,
        });
    };
    check(busy, VerdictStatus::Inconclusive, unseen);
    // Hits are lookups, and no bytes.
    let hits = foreign(|it| it.hit_tokens = Some(counter(Some(10_000.0))));
    check(hits, VerdictStatus::Inconclusive, unseen);
}

#[test]
fn everything_that_is_watched_must_agree() {
    let both = |disk: Option<f64>, hits: f64| {
        let named = foreign(move |it| {
            it.disk = true;
            it.redis = true;
            it.hit_tokens = Some(counter(Some(hits)));
        });
        move |f: &mut Facts| {
            named(f);
            f.redis_read_bytes = Some(1e6);
            f.disk_read_bytes = disk;
        }
    };
    check(
        both(Some(1e6), 10_000.0),
        VerdictStatus::Valid,
        "expected tokens",
    );
    check(
        both(None, 10_000.0),
        VerdictStatus::Inconclusive,
        "no byte counter of the disk reads",
    );
    check(
        both(Some(1e6), 100.0),
        VerdictStatus::Invalid,
        "the connector's own counter: 100 tokens found for 10000",
    );
}

#[test]
fn a_restart_is_judged_by_what_the_plan_says_of_it() {
    for (outlives, reason) in [(true, "the connector served"), (false, "came from a cache")] {
        let served = foreign(|it| it.pcie = true);
        let restarted = |f: &mut Facts| {
            served(f);
            f.state = CacheState::Restart;
            f.survives_restart = outlives;
        };
        let status = if outlives {
            VerdictStatus::Valid
        } else {
            VerdictStatus::Invalid
        };
        check(restarted, status, reason);
    }
}

#[test]
fn what_a_connector_counts_as_stored_must_have_been_written() {
    for (written, status) in [(1e6, VerdictStatus::Valid), (1e5, VerdictStatus::Invalid)] {
        let stores = foreign(|it| {
            it.disk = true;
            it.stored_bytes = Some(counter(Some(1e6)));
        });
        let cold = |f: &mut Facts| {
            stores(f);
            f.state = CacheState::Cold;
            f.by_source = Some(BySource {
                computed_tokens: 10_320.0,
                gpu_tokens: 0.0,
                external_tokens: 0.0,
            });
            f.disk_write_bytes = Some(written);
        };
        let reason = match status {
            VerdictStatus::Valid => "every prompt was computed",
            _ => "what was counted as stored was not",
        };
        check(cold, status, reason);
    }
}

#[test]
fn only_what_is_watched_of_a_connector_must_have_been_written() {
    for (disk, redis, has_port, expected) in [
        (false, false, false, &[][..]),
        (true, false, false, &[Way::DiskWrite][..]),
        (false, true, false, &[Way::RedisWrite][..]),
        (false, false, true, &[Way::PortWrite][..]),
        (true, true, false, &[Way::DiskWrite, Way::RedisWrite][..]),
        (true, false, true, &[Way::DiskWrite, Way::PortWrite][..]),
    ] {
        let stores = foreign(|it| {
            (it.disk, it.redis) = (disk, redis);
            it.port = has_port.then(|| port(Some(1e6), Some(0.0)));
            it.stored_bytes = Some(counter(Some(1e6)));
        });
        let mut facts = proven();
        stores(&mut facts);
        facts.state = CacheState::Cold;
        (facts.disk_write_bytes, facts.redis_write_bytes) = (Some(0.0), Some(0.0));
        // What is read besides is no store.
        (facts.disk_read_bytes, facts.redis_read_bytes) = (Some(1e6), Some(1e6));
        let legs = legs::of_pass(&facts);
        let ways: Vec<Way> = legs.iter().map(|leg| leg.path).collect();
        assert_eq!(ways, expected);
        for leg in legs {
            let (status, reason) = leg.judge(0.9).unwrap();
            assert_eq!(status, VerdictStatus::Invalid, "{reason}");
        }
    }
}

#[test]
fn only_pcie_that_the_plan_names_is_missed() {
    for (named, lacks) in [(true, true), (false, false)] {
        let mut facts = proven();
        foreign(|it| it.pcie = named)(&mut facts);
        facts.pcie_rx_bytes = None;
        assert_eq!(facts.lacks_pcie(), lacks);
    }
}
