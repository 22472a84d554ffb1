//! Bottlenecks of passes that are made up.

use super::*;
use crate::telemetry::sample::{SeriesKey, Unit};

fn seen(rows: &[(&'static str, &str, &'static str, f64, f64)]) -> Vec<Summary> {
    let summary = |&(source, device, metric, mean, max): &(_, &str, _, f64, f64)| Summary {
        key: SeriesKey {
            source,
            device: device.into(),
            metric,
        },
        unit: Unit::Percent,
        samples: 20,
        late: 0,
        slowed: 0,
        every_s: None,
        mean: Some(mean),
        max: Some(max),
        near_max: mean / max,
        total: None,
        covered: 1.0,
    };
    rows.iter().map(summary).collect()
}

fn named(rows: &[(&'static str, &str, &'static str, f64, f64)]) -> Bottleneck {
    of_pass(&seen(rows), None, Some("nvme0n1"))
}

#[test]
fn the_client_comes_before_everything() {
    let rows = seen(&[("gpu", "0", "sm_active", 99.0, 100.0)]);
    let found = of_pass(&rows, Some("the load thread used 95 % of a core"), None);
    assert_eq!(found.name, "client");
    assert!(found.reasons[0].contains("95 %"));
}

#[test]
fn a_busy_disk_with_an_idle_gpu_is_the_disk() {
    let mut rows = vec![
        ("gpu", "0", "sm_active", 12.0, 80.0),
        ("disk", "nvme0n1", "busy", 93.0, 100.0),
        ("disk", "nvme0n1", "read", 850e6, 910e6),
        ("disk", "sda", "busy", 99.0, 100.0),
        ("server", "vllm", "storage_read", 850e6, 910e6),
        ("server", "vllm", "storage_write", 0.0, 0.0),
        ("server", "vllm", "processes", 3.0, 3.0),
        ("engine", "", "waiting", 3.0, 7.0),
        ("engine", "", "running", 1.0, 1.0),
    ];
    let found = named(&rows);
    assert_eq!(found.name, "disk");
    assert!(
        found.reasons[0].contains("nvme0n1 was busy for 93 %")
            && found.reasons[0].contains("850 MB/s (at most 910)"),
        "{found:?}"
    );
    assert!(
        found
            .reasons
            .iter()
            .any(|r| r.contains("3.0 requests waited in the engine (at most 7)"))
    );
    // Somebody else keeps the disk busy: the server read nothing.
    rows[4] = ("server", "vllm", "storage_read", 0.0, 0.0);
    assert_eq!(named(&rows).name, "queue");
    // Another part of it does.
    rows.push(("server", "lmcache", "storage_read", 850e6, 910e6));
    rows.push(("server", "lmcache", "storage_write", 0.0, 0.0));
    rows.push(("server", "lmcache", "processes", 1.0, 1.0));
    assert_eq!(named(&rows).name, "disk");
    // What it does may not be read: that is not nothing.
    rows.retain(|row| (row.1, row.2) != ("lmcache", "storage_read"));
    assert_eq!(named(&rows).name, "disk");
}

#[test]
fn compute_is_named_by_its_sms_and_only_without_them_by_kernels() {
    let decoding = [
        ("gpu", "0", "sm_active", 30.0, 60.0),
        ("gpu", "0", "utilization", 99.0, 100.0),
    ];
    assert_eq!(named(&decoding).name, "unknown");
    assert_eq!(named(&decoding[1..]).name, "compute");
    let busy = named(&[("gpu", "0", "sm_active", 88.0, 99.0)]);
    assert_eq!(busy.name, "compute");
    assert!(busy.reasons[0].contains("88 % of its SMs"));
}

#[test]
fn pcie_is_judged_against_its_link() {
    let mut rows = [
        ("gpu", "0", "pcie_rx_gpm", 45e9, 52e9),
        ("gpu", "0", "pcie_generation", 5.0, 5.0),
        ("gpu", "0", "pcie_width", 16.0, 16.0),
        ("gpu", "0", "sm_active", 40.0, 90.0),
    ];
    let found = named(&rows);
    assert_eq!(found.name, "pcie");
    assert!(found.reasons[0].contains("45.0 of 63.0 GB/s"), "{found:?}");
    // The link is read once a second or less often: two readings of it are enough.
    let mut short = seen(&rows);
    for (samples, name) in [(2, "pcie"), (1, "unknown")] {
        for link in &mut short[1..3] {
            link.samples = samples;
        }
        assert_eq!(of_pass(&short, None, None).name, name);
    }
    // It rested whenever it was read: it cannot have carried that.
    rows[1] = ("gpu", "0", "pcie_generation", 1.0, 1.0);
    assert_ne!(named(&rows).name, "pcie");
    rows[1] = ("gpu", "0", "pcie_generation", 5.0, 5.0);
    rows[0].3 = 5e9;
    assert_eq!(named(&rows).name, "unknown");
}

#[test]
fn redis_is_named_by_its_core_or_by_what_it_sends() {
    let slow = [
        ("redis", "r", "cpu", 96.0, 100.0),
        ("redis", "r", "read", 280e6, 900e6),
        ("gpu", "0", "sm_active", 5.0, 50.0),
    ];
    let found = named(&slow);
    assert_eq!(found.name, "redis");
    assert!(found.reasons[0].contains("280 MB/s"));
    let idle = [
        ("redis", "r", "cpu", 96.0, 100.0),
        ("redis", "r", "read", 1e3, 9e3),
    ];
    assert_eq!(named(&idle).name, "unknown");
    let far = [("network", "eth0", "rx", 110e6, 118e6)];
    assert_eq!(named(&far).name, "network");
    // Steady, and hardly anything to a link of 100 Gbit/s; much to one of 1 Gbit/s.
    let wide = [far[0], ("network", "eth0", "link", 12.5e9, 12.5e9)];
    assert_eq!(named(&wide).name, "unknown");
    // Nothing carries more than its link: what it tells is not so.
    let wrong = [far[0], ("network", "eth0", "link", 1.25e6, 1.25e6)];
    assert_eq!(named(&wrong).name, "network");
    let narrow = [far[0], ("network", "eth0", "link", 125e6, 125e6)];
    let found = named(&narrow);
    assert_eq!(found.name, "network");
    assert!(found.reasons[0].contains("its link 125 MB/s"), "{found:?}");
    let near = [("network", "lo", "rx", 110e6, 118e6)];
    assert_eq!(named(&near).name, "unknown", "loopback is no network");
    let container = [("network", "veth5a1", "rx", 110e6, 118e6)];
    assert_eq!(
        named(&container).name,
        "unknown",
        "nor is a container's end"
    );
}

#[test]
fn the_network_of_redis_is_the_interface_on_the_way_to_it() {
    let rows = [
        ("redis", "r", "cpu", 30.0, 40.0),
        ("redis", "r", "read", 110e6, 300e6),
        ("redis", "r", "write", 1e6, 9e6),
        ("network", "eth0", "rx", 70e6, 500e6),
        ("network", "eth1", "rx", 116e6, 118e6),
        ("network", "eth1", "redis_rx", 116e6, 118e6),
        ("network", "eth1", "redis_tx", 2e6, 9e6),
        ("network", "eth2", "rx", 117e6, 117e6),
    ];
    let found = named(&rows);
    assert_eq!(found.name, "network", "{found:?}");
    assert!(
        found.reasons[0].contains("eth1 on the way to Redis carried 116 MB/s"),
        "{found:?}"
    );
    let redis = &found.reasons[1];
    assert!(
        redis.contains("on the way, eth1, carried 116 MB/s"),
        "{redis}"
    );
    assert!(!format!("{found:?}").contains("eth2"), "it leads elsewhere");
}

#[test]
fn a_simulated_server_is_judged_by_what_it_pretends() {
    let found = named(&[
        ("simulated", "", "disk_read", 850e6, 900e6),
        ("disk", "nvme0n1", "busy", 99.0, 100.0),
        ("gpu", "0", "utilization", 99.0, 100.0),
    ]);
    assert_eq!(found.name, "disk");
    assert!(
        found.reasons[0].contains("simulated disk read"),
        "{found:?}"
    );
    let over_pcie = named(&[
        ("simulated", "", "redis_read", 280e6, 400e6),
        ("simulated", "", "redis_write", 11e6, 11e6),
        ("simulated", "", "pcie_rx_simulated", 280e6, 290e6),
    ]);
    assert_eq!(
        over_pcie.name, "redis",
        "a trickle that is steady is no limit"
    );
    let from_ram = named(&[("simulated", "", "pcie_rx_simulated", 30e9, 40e9)]);
    assert_eq!(from_ram.name, "pcie");
}

#[test]
fn too_few_readings_name_nothing() {
    let mut rows = seen(&[("gpu", "0", "sm_active", 99.0, 100.0)]);
    rows[0].samples = 2;
    let found = of_pass(&rows, None, None);
    assert_eq!(found.name, "unknown");
    assert!(found.reasons[0].contains("too short to tell"), "{found:?}");
    rows[0] = seen(&[("gpu", "0", "sm_active", 9.0, 100.0)]).remove(0);
    let idle = of_pass(&rows, None, None);
    assert!(
        idle.reasons
            .last()
            .unwrap()
            .contains("nothing that was watched")
    );
    assert_eq!(of_pass(&[], None, None).name, "unknown");
}
