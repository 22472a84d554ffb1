//! Bottlenecks of passes that are made up.

use super::*;
use crate::telemetry::sample::SeriesKey;

fn seen(rows: &[(Series, &str, f64, f64)]) -> Vec<Summary> {
    let summary = |&(series, device, mean, max): &(_, &str, f64, f64)| Summary {
        key: SeriesKey {
            series,
            device: device.into(),
        },
        samples: 20,
        late: 0,
        slowed: 0,
        every_s: None,
        mean: Some(mean),
        max: Some(max),
        near_max: mean / max,
        total: None,
        bounds: None,
        covered: 1.0,
    };
    rows.iter().map(summary).collect()
}

fn named(rows: &[(Series, &str, f64, f64)]) -> Bottleneck {
    of_pass(&seen(rows), None, Some("nvme0n1"))
}

#[test]
fn the_client_comes_before_everything() {
    let rows = seen(&[(Series::GpuSmActive, "0", 99.0, 100.0)]);
    let found = of_pass(&rows, Some("the load thread used 95 % of a core"), None);
    assert_eq!(found.name, "client");
    assert!(found.reasons[0].contains("95 %"));
}

#[test]
fn a_busy_disk_with_an_idle_gpu_is_the_disk() {
    let mut rows = vec![
        (Series::GpuSmActive, "0", 12.0, 80.0),
        (Series::DiskBusy, "nvme0n1", 93.0, 100.0),
        (Series::DiskRead, "nvme0n1", 850e6, 910e6),
        (Series::DiskBusy, "sda", 99.0, 100.0),
        (Series::ServerStorageRead, "vllm", 850e6, 910e6),
        (Series::ServerStorageWrite, "vllm", 0.0, 0.0),
        (Series::ServerProcesses, "vllm", 3.0, 3.0),
        (Series::EngineWaiting, "", 3.0, 7.0),
        (Series::EngineRunning, "", 1.0, 1.0),
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
    // Somebody else uses the disk: the server read hardly anything.
    rows[4] = (Series::ServerStorageRead, "vllm", 1e6, 910e6);
    assert_eq!(named(&rows).name, "queue");
    // Another part of it does.
    rows.push((Series::ServerStorageRead, "lmcache", 850e6, 910e6));
    rows.push((Series::ServerStorageWrite, "lmcache", 0.0, 0.0));
    rows.push((Series::ServerProcesses, "lmcache", 1.0, 1.0));
    assert_eq!(named(&rows).name, "disk");
    // What it does may not be read: that is not nothing.
    rows.retain(|row| (row.0, row.1) != (Series::ServerStorageRead, "lmcache"));
    assert_eq!(named(&rows).name, "disk");
}

#[test]
fn compute_is_named_by_its_sms_and_only_without_them_by_kernels() {
    let decoding = [
        (Series::GpuSmActive, "0", 30.0, 60.0),
        (Series::GpuUtilization, "0", 99.0, 100.0),
    ];
    assert_eq!(named(&decoding).name, "nothing busy");
    assert_eq!(named(&decoding[1..]).name, "compute");
    let busy = named(&[(Series::GpuSmActive, "0", 88.0, 99.0)]);
    assert_eq!(busy.name, "compute");
    assert!(busy.reasons[0].contains("88 % of its SMs"));
}

#[test]
fn pcie_is_judged_against_its_link() {
    let mut rows = [
        (Series::GpuPcieRxGpm, "0", 45e9, 52e9),
        (Series::GpuPcieGeneration, "0", 5.0, 5.0),
        (Series::GpuPcieWidth, "0", 16.0, 16.0),
        (Series::GpuSmActive, "0", 40.0, 90.0),
    ];
    let found = named(&rows);
    assert_eq!(found.name, "pcie");
    assert!(found.reasons[0].contains("45.0 of 63.0 GB/s"), "{found:?}");
    // The link is read once a second or less often: two readings of it are enough.
    let mut short = seen(&rows);
    for (samples, name) in [(2, "pcie"), (1, "nothing busy")] {
        for link in &mut short[1..3] {
            link.samples = samples;
        }
        assert_eq!(of_pass(&short, None, None).name, name);
    }
    // It rested whenever it was read: it cannot have carried that.
    rows[1] = (Series::GpuPcieGeneration, "0", 1.0, 1.0);
    assert_ne!(named(&rows).name, "pcie");
    rows[1] = (Series::GpuPcieGeneration, "0", 5.0, 5.0);
    rows[0].2 = 5e9;
    assert_eq!(named(&rows).name, "nothing busy");
}

#[test]
fn redis_is_named_by_its_core_or_by_what_it_sends() {
    let slow = [
        (Series::RedisCpu, "r", 96.0, 100.0),
        (Series::RedisRead, "r", 280e6, 900e6),
        (Series::GpuSmActive, "0", 5.0, 50.0),
    ];
    let found = named(&slow);
    assert_eq!(found.name, "redis");
    assert!(found.reasons[0].contains("280 MB/s"));
    let idle = [
        (Series::RedisCpu, "r", 96.0, 100.0),
        (Series::RedisRead, "r", 1e3, 9e3),
    ];
    assert_eq!(named(&idle).name, "nothing busy");
    let far = [(Series::NetworkRx, "eth0", 110e6, 118e6)];
    assert_eq!(named(&far).name, "network");
    // Steady, and hardly anything to a link of 100 Gbit/s; much to one of 1 Gbit/s.
    let wide = [far[0], (Series::NetworkLink, "eth0", 12.5e9, 12.5e9)];
    assert_eq!(named(&wide).name, "nothing busy");
    // Nothing carries more than its link: its reading is wrong.
    let wrong = [far[0], (Series::NetworkLink, "eth0", 1.25e6, 1.25e6)];
    assert_eq!(named(&wrong).name, "network");
    let narrow = [far[0], (Series::NetworkLink, "eth0", 125e6, 125e6)];
    let found = named(&narrow);
    assert_eq!(found.name, "network");
    assert!(found.reasons[0].contains("its link 125 MB/s"), "{found:?}");
    let near = [(Series::NetworkRx, "lo", 110e6, 118e6)];
    assert_eq!(named(&near).name, "nothing busy", "loopback is no network");
    let container = [(Series::NetworkRx, "veth5a1", 110e6, 118e6)];
    assert_eq!(
        named(&container).name,
        "nothing busy",
        "nor is a container's end"
    );
}

#[test]
fn the_network_of_redis_is_the_interface_on_the_way_to_it() {
    let rows = [
        (Series::RedisCpu, "r", 30.0, 40.0),
        (Series::RedisRead, "r", 110e6, 300e6),
        (Series::RedisWrite, "r", 1e6, 9e6),
        (Series::NetworkRx, "eth0", 70e6, 500e6),
        (Series::NetworkRx, "eth1", 116e6, 118e6),
        (Series::NetworkRedisRx, "eth1", 116e6, 118e6),
        (Series::NetworkRedisTx, "eth1", 2e6, 9e6),
        (Series::NetworkRx, "eth2", 117e6, 117e6),
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
        (Series::SimulatedDiskRead, "", 850e6, 900e6),
        (Series::DiskBusy, "nvme0n1", 99.0, 100.0),
        (Series::GpuUtilization, "0", 99.0, 100.0),
    ]);
    assert_eq!(found.name, "disk");
    assert!(
        found.reasons[0].contains("simulated disk read"),
        "{found:?}"
    );
    let over_pcie = named(&[
        (Series::SimulatedRedisRead, "", 280e6, 400e6),
        (Series::SimulatedRedisWrite, "", 11e6, 11e6),
        (Series::SimulatedPcieRx, "", 280e6, 290e6),
    ]);
    assert_eq!(
        over_pcie.name, "redis",
        "a trickle that is steady is no limit"
    );
    let from_ram = named(&[(Series::SimulatedPcieRx, "", 30e9, 40e9)]);
    assert_eq!(from_ram.name, "pcie");
}

#[test]
fn too_few_readings_name_nothing() {
    let mut rows = seen(&[(Series::GpuSmActive, "0", 99.0, 100.0)]);
    rows[0].samples = 2;
    let found = of_pass(&rows, None, None);
    assert_eq!(found.name, "too short to tell");
    assert!(found.reasons[0].contains("too short to judge"), "{found:?}");
    rows[0] = seen(&[(Series::GpuSmActive, "0", 9.0, 100.0)]).remove(0);
    let idle = of_pass(&rows, None, None);
    assert!(
        idle.reasons
            .last()
            .unwrap()
            .contains("nothing that was watched")
    );
    assert_eq!(of_pass(&[], None, None).name, "nothing busy");
}

type Row = (Series, &'static str, f64, f64);

/// What was seen, and the bottleneck by it.
const EDGES: [(&[Row], &str); 20] = [
    (&[(Series::GpuSmActive, "0", 60.0, 100.0)], "compute"),
    (&[(Series::GpuSmActive, "0", 59.0, 100.0)], "nothing busy"),
    (
        &[
            (Series::DiskBusy, "nvme0n1", 60.0, 100.0),
            (Series::DiskRead, "nvme0n1", 850e6, 900e6),
        ],
        "disk",
    ),
    (
        &[
            (Series::DiskBusy, "nvme0n1", 59.0, 100.0),
            (Series::DiskRead, "nvme0n1", 850e6, 900e6),
        ],
        "nothing busy",
    ),
    (
        &[
            (Series::RedisCpu, "r", 60.0, 100.0),
            (Series::RedisRead, "r", 280e6, 900e6),
        ],
        "redis",
    ),
    (
        &[
            (Series::RedisCpu, "r", 59.0, 100.0),
            (Series::RedisRead, "r", 280e6, 900e6),
        ],
        "nothing busy",
    ),
    (&[(Series::EngineWaiting, "", 1.0, 2.0)], "queue"),
    // Its CPU is more than a core: not busier than all of a GPU.
    (
        &[
            (Series::GpuSmActive, "0", 100.0, 100.0),
            (Series::RedisCpu, "r", 120.0, 120.0),
            (Series::RedisRead, "r", 280e6, 290e6),
        ],
        "compute",
    ),
    (
        &[
            (Series::RedisCpu, "r", 96.0, 100.0),
            (Series::RedisRead, "r", 5e6, 9e6),
            (Series::RedisWrite, "r", 5e6, 9e6),
        ],
        "redis",
    ),
    (
        &[
            (Series::DiskBusy, "nvme0n1", 93.0, 100.0),
            (Series::DiskRead, "nvme0n1", 5e6, 9e6),
            (Series::DiskWrite, "nvme0n1", 5e6, 9e6),
        ],
        "disk",
    ),
    (
        &[
            (Series::DiskBusy, "nvme0n1", 9.0, 100.0),
            (Series::DiskRead, "nvme0n1", 850e6, 900e6),
        ],
        "nothing busy",
    ),
    (
        &[
            (Series::DiskBusy, "sda", 93.0, 100.0),
            (Series::DiskRead, "sda", 850e6, 900e6),
        ],
        "nothing busy",
    ),
    (&[(Series::NetworkRx, "eth0", 60e6, 61e6)], "network"),
    (&[(Series::NetworkRx, "eth0", 59e6, 59e6)], "nothing busy"),
    // The link of another interface bounds nothing here.
    (
        &[
            (Series::NetworkRx, "eth0", 110e6, 118e6),
            (Series::NetworkLink, "eth1", 12.5e9, 12.5e9),
        ],
        "network",
    ),
    (&[(Series::SimulatedDiskRead, "", 10e6, 11e6)], "disk"),
    // No more than twice what Redis delivers goes on over PCIe.
    (
        &[
            (Series::SimulatedRedisRead, "", 20e6, 400e6),
            (Series::SimulatedPcieRx, "", 40e6, 41e6),
        ],
        "nothing busy",
    ),
    (
        &[
            (Series::SimulatedRedisRead, "", 20e6, 400e6),
            (Series::SimulatedPcieTx, "", 41e6, 42e6),
        ],
        "pcie",
    ),
    (
        &[
            (Series::GpuPcieRxGpm, "0", 45e9, 52e9),
            (Series::GpuPcieWidth, "0", 16.0, 16.0),
        ],
        "nothing busy",
    ),
    (
        &[
            (Series::GpuPcieRxGpm, "0", 45e9, 52e9),
            (Series::GpuPcieGeneration, "0", 5.0, 5.0),
        ],
        "nothing busy",
    ),
];

#[test]
fn what_is_just_busy_enough_is_named() {
    for (rows, expected) in EDGES {
        assert_eq!(named(rows).name, expected, "{rows:?}");
    }
}

#[test]
fn a_link_may_seem_to_carry_a_little_more_than_it_can() {
    let rows = |share| {
        [
            (
                Series::GpuPcieRxGpm,
                "0",
                link_bytes_per_s(5, 16) * share,
                99e9,
            ),
            (Series::GpuPcieGeneration, "0", 5.0, 5.0),
            (Series::GpuPcieWidth, "0", 16.0, 16.0),
        ]
    };
    assert_eq!(named(&rows(MAX_SHARE)).name, "pcie");
    assert_eq!(named(&rows(1.2)).name, "nothing busy");
}

#[test]
fn reasons_name_the_link_and_the_queue_where_they_mean_something() {
    let reasons = |rows: &[Row]| named(rows).reasons.join("; ");
    let network = |mean, link| {
        reasons(&[
            (Series::NetworkRx, "eth0", mean, mean),
            (Series::NetworkLink, "eth0", link, link),
        ])
    };
    let link = "and its link";
    assert!(network(120e6, 125e6).contains(link));
    assert!(
        network(100e6 * MAX_SHARE, 100e6).contains(link),
        "just possible"
    );
    assert!(!network(110e6, 1.25e6).contains(link), "impossible");
    assert!(!network(110e6, 125e6).contains("on the way"));
    let link_unknown = [
        (Series::GpuPcieRxGpm, "0", 1e9, 2e9),
        (Series::GpuPcieWidth, "0", 16.0, 16.0),
    ];
    assert!(!reasons(&link_unknown).contains("PCIe"));
    let waited = |mean| reasons(&[(Series::EngineWaiting, "", mean, 1.0)]);
    assert!(waited(0.1).contains("waited in the engine"));
    assert!(!waited(0.099).contains("waited in the engine"));
}

#[test]
fn a_pass_is_too_short_by_the_readings_that_would_show_its_limit() {
    let rows = |samples| {
        let mut rows = seen(&[
            (Series::GpuSmActive, "0", 9.0, 100.0),
            (Series::RedisCpu, "r", 9.0, 100.0),
        ]);
        rows[0].samples = samples;
        rows
    };
    for (samples, expected) in [(3, "too short to tell"), (4, "nothing busy")] {
        assert_eq!(of_pass(&rows(samples), None, None).name, expected);
    }
}

#[test]
fn readings_of_the_engine_or_of_a_disk_show_how_short_a_pass_was() {
    for series in [Series::EngineRunning, Series::DiskRead] {
        let mut rows = seen(&[(series, "", 1.0, 1.0)]);
        rows[0].samples = 3;
        let found = of_pass(&rows, None, None);
        assert_eq!(found.name, "too short to tell", "{series:?}");
    }
}

/// The first reason of `rows`, of whichever disk.
fn first_reason(rows: &[Row]) -> String {
    of_pass(&seen(rows), None, None).reasons.remove(0)
}

#[test]
fn of_several_the_busiest_is_named() {
    let disk = first_reason(&[
        (Series::DiskBusy, "sda", 70.0, 99.0),
        (Series::DiskRead, "sda", 850e6, 900e6),
        (Series::DiskBusy, "sdb", 93.0, 94.0),
        (Series::DiskRead, "sdb", 850e6, 900e6),
        (Series::DiskBusy, "sdc", 80.0, 99.0),
        (Series::DiskRead, "sdc", 850e6, 900e6),
    ]);
    assert!(disk.contains("the disk sdb was busy for 93 %"), "{disk}");
    let link = [
        (Series::GpuPcieGeneration, "0", 5.0, 5.0),
        (Series::GpuPcieWidth, "0", 16.0, 16.0),
    ];
    let most = |way: Pcie, rx: f64, tx: f64| {
        let ways = [(way.rx, "0", rx, 52e9), (way.tx, "0", tx, 52e9)];
        first_reason(&[&link[..], &ways].concat())
    };
    for way in [Pcie::GPM, Pcie::COUNTERS] {
        assert!(most(way, 45e9, 9e9).contains("PCIe into the GPU carried 45.0 of"));
        assert!(most(way, 9e9, 45e9).contains("PCIe out of the GPU carried 45.0 of"));
    }
    let network = first_reason(&[
        (Series::NetworkRx, "eth0", 70e6, 100e6),
        (Series::NetworkTx, "eth1", 110e6, 118e6),
        (Series::NetworkRx, "eth2", 80e6, 100e6),
    ]);
    assert!(
        network.contains("eth1 carried 110 MB/s, at most 118"),
        "{network}"
    );
    let simulated = |read: f64, written: f64| {
        first_reason(&[
            (Series::SimulatedDiskRead, "", read, 900e6),
            (Series::SimulatedDiskWrite, "", written, 900e6),
        ])
    };
    let read = simulated(850e6, 700e6);
    assert!(
        read.contains("disk read: 0.85 GB/s on average, 0.90 at most"),
        "{read}"
    );
    let written = simulated(700e6, 850e6);
    assert!(written.contains("disk write: 0.85 GB/s"), "{written}");
}

#[test]
fn a_reason_has_every_number_in_its_unit() {
    for (rows, expected) in [
        (
            &[
                (Series::DiskBusy, "nvme0n1", 93.0, 100.0),
                (Series::DiskRead, "nvme0n1", 850e6, 910e6),
                (Series::DiskWrite, "nvme0n1", 40e6, 50e6),
            ][..],
            "the disk nvme0n1 was busy for 93 % of the time: read 850 MB/s (at most 910), written 40 MB/s \
             (at most 50)",
        ),
        (
            &[
                (Series::GpuPcieRxGpm, "0", 45e9, 52e9),
                // It rested at times.
                (Series::GpuPcieGeneration, "0", 3.0, 5.0),
                (Series::GpuPcieWidth, "0", 16.0, 16.0),
            ][..],
            "PCIe into the GPU carried 45.0 of 63.0 GB/s (generation 5, 16 lanes): 71 %",
        ),
        (
            &[
                (Series::RedisCpu, "r", 96.0, 100.0),
                (Series::RedisRead, "r", 280e6, 900e6),
                (Series::RedisWrite, "r", 20e6, 900e6),
                (Series::NetworkRedisRx, "eth1", 300e6, 900e6),
                (Series::NetworkRedisTx, "eth1", 25e6, 900e6),
            ][..],
            "Redis sent 280 MB/s and received 20 MB/s, and used 96 % of a core; the interface on the way, \
             eth1, carried 300 MB/s from there and 25 MB/s to it",
        ),
        (
            &[(Series::SimulatedDiskRead, "", 800e6, 1e9)][..],
            "simulated disk read: 0.80 GB/s on average, 1.00 at most, at least half of that for 80 % of the \
             time",
        ),
        (
            &[
                (Series::NetworkRx, "eth0", 100e6, 110e6),
                (Series::NetworkLink, "eth0", 50e6, 125e6),
            ][..],
            "the network interface eth0 carried 100 MB/s, at most 110, and its link 125 MB/s",
        ),
        (
            &[(Series::GpuSmActive, "0", 88.0, 99.0)][..],
            "the GPU computed: 88 % of its SMs had work",
        ),
    ] {
        assert_eq!(named(rows).reasons[0], expected);
    }
    let nothing = "nothing that was watched was busy for 60 % of the pass";
    assert_eq!(named(&[]).reasons, [nothing]);
}

#[test]
fn what_is_not_the_limit_is_a_reason_all_the_same() {
    let few = [
        (Series::GpuSmActive, "0", 30.0, 60.0),
        (Series::EngineWaiting, "", 0.5, 2.0),
    ];
    let found = named(&few);
    assert_eq!(found.name, "nothing busy", "half a request is no queue");
    assert!(found.reasons[1].contains("30 % of its SMs"), "{found:?}");
}
