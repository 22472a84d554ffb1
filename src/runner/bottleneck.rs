//! Names what held a pass back, from what was seen, with the numbers behind it.
//!
//! Nothing is inferred from the plan: a resource is named where it was busy for most of the pass,
//! by its own account or against the most that it was seen to carry.

use crate::telemetry::nvml::pcie::link_bytes_per_s;
use crate::telemetry::summary::Summary;

/// What held a pass back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// `compute`, `pcie`, `disk`, `redis`, `network`, `queue`, `client` or `unknown`.
    pub name: &'static str,
    /// Why, one sentence each, with numbers.
    pub reasons: Vec<String>,
}

/// A resource that was busy for less than this share of the pass did not hold it back.
const BUSY_SHARE: f64 = 0.6;
/// Fewer readings than this say nothing of a pass.
const LEAST_SAMPLES: u64 = 4;
/// Less traffic than this holds nobody back, bytes a second.
const LEAST_RATE: f64 = 10e6;
/// Requests waiting in the engine that make a queue.
const QUEUE: f64 = 1.0;

/// One resource and how busy it was.
struct Candidate {
    name: &'static str,
    share: f64,
    reason: String,
}

/// Names the bottleneck of a pass. `client` says why the client itself was too slow, if it was.
pub fn of_pass(
    summaries: &[Summary],
    client: Option<&str>,
    tier_disk: Option<&str>,
) -> Bottleneck {
    if let Some(why) = client {
        return Bottleneck {
            name: "client",
            reasons: vec![format!("the client was the limit: {why}")],
        };
    }
    let simulated = summaries
        .iter()
        .any(|summary| summary.key.source == "simulated");
    let seen = Seen { summaries };
    let mut candidates = if simulated {
        // What this machine's disk and GPU did is not what the simulator pretends.
        seen.simulated()
    } else {
        seen.measured(tier_disk)
    };
    candidates.sort_by(|a, b| b.share.total_cmp(&a.share));
    let queue = seen.queue();
    let others = |skip: usize| candidates.iter().skip(skip).map(|other| other.reason.clone());
    match candidates.first() {
        Some(first) if first.share >= BUSY_SHARE => {
            let mut reasons = vec![first.reason.clone()];
            reasons.extend(others(1));
            reasons.extend(queue.map(|(_, reason)| reason));
            Bottleneck {
                name: first.name,
                reasons,
            }
        }
        _ => {
            let is_queue = queue.as_ref().is_some_and(|(waiting, _)| *waiting >= QUEUE);
            let mut reasons: Vec<String> = queue.map(|(_, reason)| reason).into_iter().collect();
            reasons.extend(others(0));
            if !is_queue {
                let percent = BUSY_SHARE * 100.0;
                reasons.push(format!(
                    "nothing that was watched was busy for {percent:.0} % of the pass"
                ));
            }
            Bottleneck {
                name: if is_queue { "queue" } else { "unknown" },
                reasons,
            }
        }
    }
}

/// The summaries of one pass.
struct Seen<'a> {
    summaries: &'a [Summary],
}

impl Seen<'_> {
    fn of<'b>(
        &'b self,
        source: &'b str,
        metric: &'b str,
    ) -> impl Iterator<Item = &'b Summary> + 'b {
        self.summaries
            .iter()
            .filter(move |summary| summary.key.source == source && summary.key.metric == metric)
            .filter(|summary| summary.samples >= LEAST_SAMPLES)
    }

    fn mean(&self, source: &str, metric: &str) -> Option<f64> {
        let means = self.of(source, metric).filter_map(|summary| summary.mean);
        means.reduce(f64::max)
    }

    fn measured(&self, tier_disk: Option<&str>) -> Vec<Candidate> {
        let mut all = Vec::new();
        all.extend(self.compute());
        all.extend(self.pcie());
        all.extend(self.disk(tier_disk));
        all.extend(self.redis());
        all.extend(self.network());
        all
    }

    fn simulated(&self) -> Vec<Candidate> {
        [
            ("pcie", "pcie_rx_simulated"),
            ("pcie", "pcie_tx_simulated"),
            ("disk", "disk_read"),
            ("disk", "disk_write"),
            ("redis", "redis_read"),
            ("redis", "redis_write"),
        ]
        .into_iter()
        .filter_map(|(name, metric)| self.against_most(name, "simulated", metric))
        .collect()
    }

    /// GPM tells how many SMs had work; without it there is only the share of time that any kernel
    /// ran, which decoding alone drives to 100.
    fn compute(&self) -> Option<Candidate> {
        let (percent, what) = match self.mean("gpu", "sm_active") {
            Some(percent) => (percent, "of its SMs had work"),
            None => (self.mean("gpu", "utilization")?, "of the time a kernel ran"),
        };
        Some(Candidate {
            name: "compute",
            share: percent / 100.0,
            reason: format!("the GPU computed: {percent:.0} % {what}"),
        })
    }

    fn pcie(&self) -> Option<Candidate> {
        let largest = |metric: &str| {
            let found = self.of("gpu", metric).filter_map(|summary| summary.max);
            found.reduce(f64::max).unwrap_or(0.0) as u32
        };
        let (generation, width) = (largest("pcie_generation"), largest("pcie_width"));
        if generation == 0 || width == 0 {
            return None;
        }
        let most = link_bytes_per_s(generation, width);
        let ways = [
            ("into", "pcie_rx_gpm"),
            ("into", "pcie_rx_counters"),
            ("out of", "pcie_tx_gpm"),
            ("out of", "pcie_tx_counters"),
        ];
        let busiest = ways
            .into_iter()
            .filter_map(|(way, metric)| Some((way, self.mean("gpu", metric)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        let (way, rate) = busiest;
        let share = rate / most;
        Some(Candidate {
            name: "pcie",
            share,
            reason: format!(
                "PCIe {way} the GPU carried {:.1} of {:.1} GB/s (generation {generation}, {width} \
                 lanes): {:.0} %",
                rate / 1e9,
                most / 1e9,
                share * 100.0
            ),
        })
    }

    /// The tier's disk where there is one, else the busiest that the server can have kept busy.
    fn disk(&self, tier_disk: Option<&str>) -> Option<Candidate> {
        let is_wanted = |summary: &&Summary| tier_disk.is_none_or(|disk| disk == &*summary.key.device);
        let busiest = self
            .of("disk", "busy")
            .filter(is_wanted)
            .max_by(|a, b| a.mean.unwrap_or(0.0).total_cmp(&b.mean.unwrap_or(0.0)))?;
        let percent = busiest.mean?;
        let of_disk = |metric: &str| {
            let same = |summary: &&Summary| summary.key.device == busiest.key.device;
            let found = self.of("disk", metric).find(same);
            found.map_or((0.0, 0.0), |summary| {
                (summary.mean.unwrap_or(0.0), summary.max.unwrap_or(0.0))
            })
        };
        let (read, most_read) = of_disk("read");
        let (written, most_written) = of_disk("write");
        // Where the server's own bytes are known, another's work is not its bottleneck.
        let own = ["storage_read", "storage_write"].map(|metric| self.mean("server", metric));
        let own = match own {
            [None, None] => read + written,
            [read, written] => read.unwrap_or(0.0) + written.unwrap_or(0.0),
        };
        if own < LEAST_RATE {
            return None;
        }
        Some(Candidate {
            name: "disk",
            share: percent / 100.0,
            reason: format!(
                "the disk {} was busy for {percent:.0} % of the time: read {:.0} MB/s (at most \
                 {:.0}), written {:.0} MB/s (at most {:.0})",
                busiest.key.device,
                read / 1e6,
                most_read / 1e6,
                written / 1e6,
                most_written / 1e6
            ),
        })
    }

    /// Redis serves with one thread: its CPU is its limit, or what was seen to go through it.
    fn redis(&self) -> Option<Candidate> {
        let cpu = self.mean("redis", "cpu")?;
        let read = self.mean("redis", "read").unwrap_or(0.0);
        let written = self.mean("redis", "write").unwrap_or(0.0);
        if read + written < LEAST_RATE {
            return None;
        }
        let ways = ["read", "write"].map(|metric| self.against_most("redis", "redis", metric));
        let busiest = ways.into_iter().flatten().map(|way| way.share);
        let share = busiest.fold(cpu / 100.0, f64::max).min(1.0);
        Some(Candidate {
            name: "redis",
            share,
            reason: format!(
                "Redis sent {:.0} MB/s and received {:.0} MB/s, and used {cpu:.0} % of a core",
                read / 1e6,
                written / 1e6
            ),
        })
    }

    fn network(&self) -> Option<Candidate> {
        let outside = |summary: &&Summary| &*summary.key.device != "lo";
        let rx = self.of("network", "rx").filter(outside);
        let tx = self.of("network", "tx").filter(outside);
        rx.chain(tx)
            .filter_map(|summary| {
                let (mean, most) = (summary.mean?, summary.max?);
                // A gigabit is 125 MB/s: less than half of that is no load for any network.
                (mean >= 60e6).then(|| Candidate {
                    name: "network",
                    share: mean / most,
                    reason: format!(
                        "the network interface {} carried {:.0} MB/s, at most {:.0}",
                        summary.key.device,
                        mean / 1e6,
                        most / 1e6
                    ),
                })
            })
            .max_by(|a, b| a.share.total_cmp(&b.share))
    }

    /// A way that is known only by what went through it: near its own most for how much of the time.
    fn against_most(
        &self,
        name: &'static str,
        source: &str,
        metric: &str,
    ) -> Option<Candidate> {
        let summary = self.of(source, metric).next()?;
        let (mean, most) = (summary.mean?, summary.max?);
        (mean >= LEAST_RATE).then(|| Candidate {
            name,
            share: mean / most,
            reason: format!(
                "{source} {}: {:.2} GB/s on average, {:.2} at most",
                metric.replace('_', " "),
                mean / 1e9,
                most / 1e9
            ),
        })
    }

    /// Requests that waited in the engine on average, with the sentence.
    fn queue(&self) -> Option<(f64, String)> {
        let waiting = self.mean("engine", "waiting")?;
        let running = self.mean("engine", "running").unwrap_or(0.0);
        let reason = format!(
            "{waiting:.1} requests waited in the engine and {running:.1} ran, on average"
        );
        Some((waiting, reason))
    }
}

#[cfg(test)]
mod tests {
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
            mean: Some(mean),
            max: Some(max),
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
            ("server", "", "storage_read", 850e6, 910e6),
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
        assert!(found.reasons.iter().any(|r| r.contains("3.0 requests waited")));
        // Somebody else keeps the disk busy: the server read nothing.
        rows[4] = ("server", "", "storage_read", 0.0, 0.0);
        assert_eq!(named(&rows).name, "queue");
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
        let near = [("network", "lo", "rx", 110e6, 118e6)];
        assert_eq!(named(&near).name, "unknown", "loopback is no network");
    }

    #[test]
    fn a_simulated_server_is_judged_by_what_it_pretends() {
        let found = named(&[
            ("simulated", "", "disk_read", 850e6, 900e6),
            ("disk", "nvme0n1", "busy", 99.0, 100.0),
            ("gpu", "0", "utilization", 99.0, 100.0),
        ]);
        assert_eq!(found.name, "disk");
        assert!(found.reasons[0].contains("simulated disk read"), "{found:?}");
    }

    #[test]
    fn too_few_readings_name_nothing() {
        let mut rows = seen(&[("gpu", "0", "sm_active", 99.0, 100.0)]);
        rows[0].samples = 2;
        let found = of_pass(&rows, None, None);
        assert_eq!(found.name, "unknown");
        assert!(found.reasons[0].contains("nothing that was watched"));
        assert_eq!(of_pass(&[], None, None).name, "unknown");
    }
}
