//! Bytes that telemetry saw move during a pass, where it saw them for the whole of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::facts::LinkLimit;
use crate::series::{Pcie, Series, Source};
use crate::telemetry::nvml::pcie::link_bytes_per_s;
use crate::telemetry::summary::{Summary, total, total_bounds};
use crate::units::Bounds;

/// By how much the payload that a method counts errs, against known copies on an H100 and an H200.
const METHOD_ERROR: f64 = 0.02;

/// Least share of a pass that readings must cover for their sum to be relied on.
const MIN_COVER: f64 = 0.95;

/// The total of a series where readings cover all of its time: a sum over a part is no sum of it.
pub(crate) fn whole_total(summary: &Summary) -> Option<f64> {
    summary.total.filter(|_| summary.covered >= MIN_COVER)
}

/// What saw the bytes over PCIe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PcieMethod {
    /// GPM, between two samples.
    #[default]
    Gpm,
    /// NVML's 32-bit counters.
    NvmlCounters,
    /// Both: the GPUs answer different ones.
    Mixed,
}

impl PcieMethod {
    /// The name in ledgers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gpm => "gpm",
            Self::NvmlCounters => "nvml-counters",
            Self::Mixed => "gpm+nvml-counters",
        }
    }
}

/// Bytes over the PCIe links of the server's GPUs during one pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PcieBytes {
    /// Into the GPUs.
    pub rx_bytes: Bounds,
    /// Out of the GPUs.
    pub tx_bytes: Bounds,
    /// How they were read: `gpm`, `nvml-counters`, or both, where GPUs answer different ones.
    pub method: PcieMethod,
}

impl PcieBytes {
    /// The sums of a pass's readings over all `gpus` that are to be watched; `None` where one of
    /// them has none.
    pub(crate) fn of(summaries: &[Summary], gpus: usize) -> Option<Self> {
        let on_gpus = summaries
            .iter()
            .filter(|one| one.key.series.source() == Source::Gpu);
        let devices: BTreeSet<_> = on_gpus.map(|one| &one.key.device).collect();
        if devices.len() < gpus {
            return None;
        }
        let mut all: Option<Self> = None;
        for device in devices {
            let own = Self::of_one(summaries, device)?;
            all = Some(all.map_or(own, |sum| sum.and(own)));
        }
        all
    }

    fn of_one(summaries: &[Summary], device: &str) -> Option<Self> {
        let own = summaries.iter().filter(|one| &*one.key.device == device);
        let own: Vec<Summary> = own.cloned().collect();
        let methods = [
            (PcieMethod::Gpm, Pcie::GPM_PAYLOAD),
            (PcieMethod::NvmlCounters, Pcie::COUNTERS_PAYLOAD),
        ];
        methods.into_iter().find_map(|(method, pcie)| {
            let bytes = |series| {
                let found = total_bounds(&own, series, MIN_COVER)?;
                Some(found.widened(METHOD_ERROR))
            };
            Some(Self {
                rx_bytes: bytes(pcie.rx)?,
                tx_bytes: bytes(pcie.tx)?,
                method,
            })
        })
    }

    /// Which GPUs' bytes are not known because readings came late or were put off: such gaps hide what
    /// moved in them. `None` where nothing was lost.
    pub(crate) fn lost(summaries: &[Summary]) -> Option<String> {
        let best = |device: &Arc<str>| {
            let own = summaries.iter().filter(|one| &one.key.device == device);
            let methods = [Pcie::GPM_PAYLOAD.rx, Pcie::COUNTERS_PAYLOAD.rx];
            own.filter(|one| methods.contains(&one.key.series))
                .max_by(|a, b| a.covered.total_cmp(&b.covered))
        };
        let devices: BTreeSet<_> = summaries.iter().map(|one| &one.key.device).collect();
        let lost = devices.into_iter().filter_map(best).filter_map(|one| {
            let Summary {
                covered,
                samples,
                late,
                slowed,
                ..
            } = one;
            let is_lost = *covered < MIN_COVER && late + slowed > 0;
            is_lost.then(|| {
                format!(
                    "GPU {}: {:.0} % of the time ({samples} readings, {late} late, {slowed} put off)",
                    one.key.device,
                    covered * 100.0
                )
            })
        });
        let lost: Vec<String> = lost.collect();
        (!lost.is_empty()).then(|| {
            format!(
                "bytes over PCIe were read for too little of the pass to prove its loads: {}. Raise \
                 `telemetry.budget_percent`, or leave the machine more CPU time",
                lost.join("; ")
            )
        })
    }

    fn and(self, other: Self) -> Self {
        let is_same = self.method == other.method;
        Self {
            rx_bytes: self.rx_bytes + other.rx_bytes,
            tx_bytes: self.tx_bytes + other.tx_bytes,
            method: if is_same {
                self.method
            } else {
                PcieMethod::Mixed
            },
        }
    }

    /// The same with what left the GPUs until the tier had stored everything; `None` where that is
    /// not known.
    pub(crate) fn with_stores(self, until_stored: &[Summary], gpus: usize) -> Option<Self> {
        Some(Self {
            tx_bytes: Self::of(until_stored, gpus)?.tx_bytes,
            ..self
        })
    }
}

/// Bytes over the network interface on the way to the tier's Redis during one pass, all that it
/// carried and headers included.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RedisNetwork {
    /// The interface.
    pub interface: Arc<str>,
    /// From Redis.
    pub rx_bytes: f64,
    /// To Redis.
    pub tx_bytes: f64,
}

impl RedisNetwork {
    /// The sums of a pass's readings; `None` over the loopback, which carries both ways at once and
    /// the load too.
    pub(crate) fn of(summaries: &[Summary]) -> Option<Self> {
        let bytes = |series| total(summaries, series, MIN_COVER);
        let mut all = summaries.iter();
        let on_the_way = all.find(|summary| summary.key.series == Series::NetworkRedisRx)?;
        let interface = Arc::clone(&on_the_way.key.device);
        (&*interface != "lo").then_some(())?;
        Some(Self {
            interface,
            rx_bytes: bytes(Series::NetworkRedisRx)?,
            tx_bytes: bytes(Series::NetworkRedisTx)?,
        })
    }
}

/// What the PCIe links of all watched GPUs carry one way together; `None` where one of them has no
/// reading, or only those of a link at rest.
fn host_link(summaries: &[Summary], gpus: usize) -> Option<LinkLimit> {
    let largest = |series: Series| -> BTreeMap<&str, u32> {
        let own = summaries.iter().filter(|one| one.key.series == series);
        own.filter_map(|one| Some((&*one.key.device, one.max? as u32)))
            .collect()
    };
    let (generations, widths) = (
        largest(Series::GpuPcieGeneration),
        largest(Series::GpuPcieWidth),
    );
    if gpus == 0 || generations.len() < gpus {
        return None;
    }
    let mut bytes_per_s = 0.0;
    let mut links = BTreeSet::new();
    for (device, generation) in generations {
        let width = *widths.get(device).filter(|width| **width > 0)?;
        // A link at rest runs at an older generation's speed.
        (generation >= MIN_AWAKE_GENERATION).then_some(())?;
        bytes_per_s += link_bytes_per_s(generation, width);
        links.insert(format!("PCIe generation {generation}, {width} lanes"));
    }
    let mut source = links.into_iter().collect::<Vec<_>>().join("; ");
    if gpus > 1 {
        source.push_str(&format!(", {gpus} GPUs"));
    }
    Some(LinkLimit {
        bytes_per_s,
        source,
    })
}

/// What the link to the tier's Redis or to its disk carries each way, where the machine states it.
fn tier_link(summaries: &[Summary], tier_disk: Option<&str>) -> Option<LinkLimit> {
    let device_of = |series: Series| {
        let mut all = summaries.iter();
        all.find(|one| one.key.series == series)
            .map(|one| &*one.key.device)
    };
    let link = |series: Series, device: &str, what: &str| {
        let mut links = summaries.iter().filter(|one| one.key.series == series);
        let own = links.find(|one| &*one.key.device == device)?;
        Some(LinkLimit {
            bytes_per_s: own.max?,
            source: format!("the link of {what} {device}, by sysfs"),
        })
    };
    if let Some(interface) = device_of(Series::NetworkRedisRx) {
        return link(Series::NetworkLink, interface, "the interface");
    }
    link(Series::DiskLink, tier_disk?, "the disk")
}

/// Links at rest fall back to generation 1 or 2.
const MIN_AWAKE_GENERATION: u32 = 3;

/// What telemetry saw move during one pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moved {
    /// Over PCIe.
    pub pcie: Option<PcieBytes>,
    /// To and from the tier's Redis.
    pub network: Option<RedisNetwork>,
    /// What the links between host and GPUs can carry.
    pub host_link: Option<LinkLimit>,
    /// What the link to the tier's Redis or disk can carry.
    pub tier_link: Option<LinkLimit>,
}

impl Moved {
    /// What the readings of a pass come to, where `gpus` GPUs are to be watched and the disk tier is
    /// on `tier_disk`.
    pub(crate) fn of(summaries: &[Summary], gpus: usize, tier_disk: Option<&str>) -> Self {
        Self {
            pcie: PcieBytes::of(summaries, gpus),
            network: RedisNetwork::of(summaries),
            host_link: host_link(summaries, gpus),
            tier_link: tier_link(summaries, tier_disk),
        }
    }

    /// Takes in what moved until the tier had stored what the pass left; `None` where nothing is
    /// watched.
    pub(crate) fn add_stores(&mut self, until_stored: Option<&[Summary]>, gpus: usize) {
        if let Some(until_stored) = until_stored {
            self.pcie = self
                .pcie
                .and_then(|pcie| pcie.with_stores(until_stored, gpus));
            self.network = RedisNetwork::of(until_stored);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::sample::SeriesKey;

    fn rate(series: Series, device: &str, total: f64, covered: f64) -> Summary {
        Summary {
            key: SeriesKey {
                series,
                device: device.into(),
            },
            samples: 10,
            late: 0,
            slowed: 0,
            every_s: None,
            mean: Some(1.0),
            max: Some(1.0),
            near_max: 1.0,
            total: Some(total),
            bounds: Some(Bounds::exact(total)),
            covered,
        }
    }

    const RX: Series = Pcie::GPM_PAYLOAD.rx;
    const TX: Series = Pcie::GPM_PAYLOAD.tx;

    /// Both sums, with what the method errs around them.
    #[track_caller]
    fn assert_about(found: PcieBytes, rx: f64, tx: f64) {
        for (bytes, sum) in [(found.rx_bytes, rx), (found.tx_bytes, tx)] {
            assert!((bytes.middle() - sum).abs() < 1e-9, "{bytes:?} {sum}");
            assert!((bytes.high - bytes.low - 2.0 * METHOD_ERROR * sum).abs() < 1e-9);
        }
    }

    #[test]
    fn pcie_bytes_are_summed_over_gpus_and_known_only_for_a_whole_pass() {
        let whole = [
            rate(RX, "0", 100.0, 0.99),
            rate(RX, "1", 20.0, 1.0),
            rate(TX, "0", 5.0, 1.0),
            rate(TX, "1", 1.0, 1.0),
        ];
        let found = PcieBytes::of(&whole, 2).unwrap();
        assert_about(found, 120.0, 6.0);
        assert_eq!(found.method.name(), "gpm");
        assert_eq!(PcieBytes::of(&whole, 3), None, "a third GPU is silent");
        assert_eq!(PcieBytes::of(&whole[..3], 2), None, "one lacks a way");
        let with_disk = [
            &whole[..1],
            &whole[2..3],
            &[rate(Series::DiskBusy, "d", 1.0, 1.0)],
        ];
        let with_disk = with_disk.concat();
        assert!(PcieBytes::of(&with_disk, 1).is_some());
        assert_eq!(PcieBytes::of(&with_disk, 2), None, "a disk is no GPU");
        let torn = [rate(RX, "0", 100.0, 0.94), rate(TX, "0", 5.0, 1.0)];
        assert_eq!(PcieBytes::of(&torn, 1), None);
        let sampled = [Pcie::THROUGHPUT.rx, Pcie::THROUGHPUT.tx];
        let sampled = sampled.map(|series| rate(series, "0", 1.0, 1.0));
        let found = PcieBytes::of(&sampled, 1);
        assert_eq!(found, None, "a sampled throughput is never relied on");
    }

    #[test]
    fn lost_readings_are_reported_only_where_they_cost_the_witness() {
        let torn = |late, slowed| Summary {
            late,
            slowed,
            ..rate(RX, "0", 100.0, 0.62)
        };
        let lost = PcieBytes::lost(&[torn(1, 3)]).unwrap();
        assert!(
            lost.contains("GPU 0: 62 % of the time (10 readings, 1 late, 3 put off)"),
            "{lost}"
        );
        for one in [torn(1, 0), torn(0, 1)] {
            assert!(PcieBytes::lost(&[one]).is_some(), "either costs it");
        }
        assert_eq!(
            PcieBytes::lost(&[torn(0, 0)]),
            None,
            "it was not read at all"
        );
        // Read less often, and all of the pass is known.
        let slowed = Summary {
            slowed: 9,
            ..rate(RX, "0", 100.0, 0.99)
        };
        assert_eq!(PcieBytes::lost(&[slowed]), None);
        // Just enough of it is.
        let enough = Summary {
            covered: MIN_COVER,
            ..torn(1, 3)
        };
        assert_eq!(PcieBytes::lost(&[enough]), None);
        // Neither another GPU nor another series of it stands for what was lost.
        let on_another = Summary {
            key: rate(RX, "1", 0.0, 0.0).key,
            ..torn(1, 3)
        };
        let power = rate(Series::GpuPower, "1", 9.0, 1.0);
        let lost = PcieBytes::lost(&[rate(RX, "0", 100.0, 1.0), on_another, power]).unwrap();
        assert!(
            lost.contains("GPU 1: 62 %") && !lost.contains("GPU 0"),
            "{lost}"
        );
        // Another method answers for the whole pass.
        let counters = rate(Pcie::COUNTERS_PAYLOAD.rx, "0", 100.0, 1.0);
        assert_eq!(PcieBytes::lost(&[torn(1, 3), counters]), None);
    }

    #[test]
    fn a_total_counts_where_readings_cover_its_time() {
        assert_eq!(whole_total(&rate(RX, "0", 7.0, MIN_COVER)), Some(7.0));
        assert_eq!(whole_total(&rate(RX, "0", 7.0, 0.94)), None);
    }

    #[test]
    fn stores_that_end_after_the_pass_are_taken_in() {
        let pass = [rate(RX, "0", 100.0, 1.0), rate(TX, "0", 5.0, 1.0)];
        let later = [rate(RX, "0", 100.0, 1.0), rate(TX, "0", 50.0, 1.0)];
        let mut moved = Moved::of(&pass, 1, None);
        moved.add_stores(None, 1);
        assert_about(moved.pcie.unwrap(), 100.0, 5.0);
        moved.add_stores(Some(&later), 1);
        assert_about(moved.pcie.unwrap(), 100.0, 50.0);
        assert_eq!(moved.network, None);
        moved.add_stores(Some(&later[..1]), 1);
        assert_eq!(moved.pcie, None, "what was stored is not known");
        let to_redis = |sent| {
            [
                rate(Series::NetworkRedisRx, "eth0", 3.0, 1.0),
                rate(Series::NetworkRedisTx, "eth0", sent, 1.0),
            ]
        };
        let mut moved = Moved::of(&to_redis(5.0), 0, None);
        moved.add_stores(Some(&to_redis(50.0)), 0);
        assert_eq!(moved.network.map(|seen| seen.tx_bytes), Some(50.0));
    }

    #[test]
    fn each_gpu_is_read_by_its_own_method() {
        let counters = |series, total| rate(series, "1", total, 1.0);
        let mixed = [
            rate(RX, "0", 100.0, 1.0),
            rate(TX, "0", 5.0, 1.0),
            counters(Pcie::COUNTERS_PAYLOAD.rx, 20.0),
            counters(Pcie::COUNTERS_PAYLOAD.tx, 1.0),
        ];
        let found = PcieBytes::of(&mixed, 2).unwrap();
        assert_about(found, 120.0, 6.0);
        assert_eq!(found.method.name(), "gpm+nvml-counters");
        let silent = rate(Series::GpuPower, "1", 9.0, 1.0);
        let one = [mixed[0].clone(), mixed[1].clone(), silent];
        assert_eq!(PcieBytes::of(&one, 2), None, "half of it is not the whole");
    }

    #[test]
    fn links_add_up_and_one_at_rest_counts_for_nothing() {
        let level = |series, device: &str, value| Summary {
            max: Some(value),
            ..rate(series, device, 0.0, 1.0)
        };
        let link = |device: &str, generation| {
            [
                level(Series::GpuPcieGeneration, device, generation),
                level(Series::GpuPcieWidth, device, 16.0),
            ]
        };
        let one = host_link(&link("0", 5.0), 1).unwrap();
        assert!((one.bytes_per_s - 63.0e9).abs() < 0.1e9, "{one:?}");
        assert_eq!(one.source, "PCIe generation 5, 16 lanes");
        let two = [link("0", 5.0), link("1", 4.0)].concat();
        let both = host_link(&two, 2).unwrap();
        assert!((both.bytes_per_s - 94.5e9).abs() < 0.1e9, "{both:?}");
        assert_eq!(
            both.source,
            "PCIe generation 4, 16 lanes; PCIe generation 5, 16 lanes, 2 GPUs"
        );
        assert_eq!(host_link(&two, 3), None, "one is silent");
        assert_eq!(host_link(&link("0", 2.0), 1), None, "at rest");
        assert!(
            host_link(&link("0", 3.0), 1).is_some(),
            "the oldest that is awake"
        );
        let mut lanes = link("0", 5.0);
        lanes[1].max = Some(0.0);
        assert_eq!(host_link(&lanes, 1), None, "of no lanes");
        lanes[1].max = Some(1.0);
        assert!(host_link(&lanes, 1).is_some(), "of one");
        assert_eq!(host_link(&[], 0), None);
    }

    #[test]
    fn the_link_of_the_tiers_own_way_is_its_limit() {
        let level = |series, device: &str, value| Summary {
            max: Some(value),
            ..rate(series, device, 0.0, 1.0)
        };
        let links = [
            level(Series::NetworkLink, "eth0", 1.25e9),
            level(Series::NetworkLink, "eth1", 12.5e9),
            level(Series::DiskLink, "nvme0n1", 7.9e9),
        ];
        let disk = tier_link(&links, Some("nvme0n1")).unwrap();
        assert!((disk.bytes_per_s - 7.9e9).abs() < 1.0, "{disk:?}");
        assert!(disk.source.contains("the disk nvme0n1"), "{disk:?}");
        assert_eq!(tier_link(&links, Some("dm-0")), None, "it states none");
        assert_eq!(tier_link(&links, None), None, "no tier on a disk");
        let over = |device: &str| {
            let mut all = links.to_vec();
            all.push(rate(Series::NetworkRedisRx, device, 9.0, 1.0));
            tier_link(&all, None).map(|link| link.bytes_per_s)
        };
        assert_eq!(over("eth1"), Some(12.5e9));
        assert_eq!(over("lo"), None, "memory has no link");
    }

    #[test]
    fn stores_behind_the_answers_belong_to_the_pass() {
        let pass = [rate(RX, "0", 9.0, 1.0), rate(TX, "0", 5.0, 1.0)];
        let pass = PcieBytes::of(&pass, 1).unwrap();
        let until_stored = [rate(RX, "0", 70.0, 1.0), rate(TX, "0", 50.0, 1.0)];
        let found = pass.with_stores(&until_stored, 1).unwrap();
        assert_about(found, 9.0, 50.0);
        let torn = [rate(RX, "0", 70.0, 1.0), rate(TX, "0", 50.0, 0.5)];
        assert_eq!(pass.with_stores(&torn, 1), None);
    }

    #[test]
    fn the_way_to_redis_is_distinguished_from_other_interfaces() {
        let of = |device: &str, covered| {
            RedisNetwork::of(&[
                rate(Series::NetworkRx, "eth1", 7.0, 1.0),
                rate(Series::NetworkRedisRx, device, 30.0, covered),
                rate(Series::NetworkRedisTx, device, 4.0, covered),
            ])
        };
        let found = of("eth0", 1.0).unwrap();
        assert_eq!(
            (&*found.interface, found.rx_bytes, found.tx_bytes),
            ("eth0", 30.0, 4.0)
        );
        assert!(of("eth0", MIN_COVER).is_some(), "just enough of it");
        assert_eq!(of("eth0", 0.94), None);
        assert_eq!(of("lo", 1.0), None, "it carries the load too");
    }
}
