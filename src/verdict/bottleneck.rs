//! Names what slowed a pass down, from what was seen, with the numbers behind it.
//!
//! Nothing is inferred from the plan: a resource is named where it was busy for most of the pass,
//! by its own account or against the most that it was seen to carry.

use crate::record::schema::Bottleneck;
use crate::series::{Pcie, Series, Source};
use crate::telemetry::nvml::pcie::link_bytes_per_s;
use crate::telemetry::summary::Summary;

/// A resource that was busy for less than this share of the pass did not slow it down.
const BUSY_SHARE: f64 = 0.6;
/// Fewer readings than this do not show what a pass did.
const MIN_SAMPLES: u64 = 4;
/// A link cannot carry more than this share of what it can; readings err by less.
const MAX_SHARE: f64 = 1.1;
/// Less traffic than this slows nobody down, bytes a second.
const MIN_RATE: f64 = 10e6;
/// Requests waiting in the engine that make a queue.
const QUEUE: f64 = 1.0;

/// One resource and how busy it was.
struct Candidate {
    name: &'static str,
    share: f64,
    reason: String,
}

/// A way that bytes went, and how many a second.
struct Way {
    rate: f64,
    candidate: Candidate,
}

/// Names the bottleneck of a pass. `client` is why the client itself was too slow, if it was.
pub(crate) fn of_pass(
    summaries: &[Summary],
    client: Option<&str>,
    tier_disk: Option<&str>,
) -> Bottleneck {
    if let Some(why) = client {
        return Bottleneck {
            name: "client".to_owned(),
            reasons: vec![format!("the client was the limit: {why}")],
        };
    }
    let simulated = summaries
        .iter()
        .any(|summary| summary.key.series.source() == Source::Simulated);
    let seen = Seen { summaries };
    let mut candidates = if simulated {
        // What this machine's disk and GPU did is not what the simulator pretends.
        seen.simulated()
    } else {
        seen.measured(tier_disk)
    };
    candidates.sort_by(|a, b| b.share.total_cmp(&a.share));
    let queue = seen.queue();
    let others = |skip: usize| {
        candidates
            .iter()
            .skip(skip)
            .map(|other| other.reason.clone())
    };
    match candidates.first() {
        Some(first) if first.share >= BUSY_SHARE => {
            let mut reasons = vec![first.reason.clone()];
            reasons.extend(others(1));
            reasons.extend(queue.map(|(_, reason)| reason));
            Bottleneck {
                name: first.name.to_owned(),
                reasons,
            }
        }
        _ => {
            let is_queue = queue.as_ref().is_some_and(|(waiting, _)| *waiting >= QUEUE);
            let mut reasons: Vec<String> = queue.map(|(_, reason)| reason).into_iter().collect();
            reasons.extend(others(0));
            let name = if is_queue {
                "queue"
            } else {
                let (name, reason) = seen.nothing();
                reasons.push(reason);
                name
            };
            Bottleneck {
                name: name.to_owned(),
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
    fn of(&self, series: Series) -> impl Iterator<Item = &Summary> {
        self.read_at_least(MIN_SAMPLES, series)
    }

    fn read_at_least(&self, samples: u64, series: Series) -> impl Iterator<Item = &Summary> {
        self.summaries
            .iter()
            .filter(move |summary| summary.key.series == series)
            .filter(move |summary| summary.samples >= samples)
    }

    fn mean(&self, series: Series) -> Option<f64> {
        let means = self.of(series).filter_map(|summary| summary.mean);
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
        let busier = |name, ways: [(Series, &str); 2]| {
            let ways = ways.map(|(series, way)| self.against_most(name, series, way));
            ways.into_iter()
                .flatten()
                .max_by(|a, b| a.rate.total_cmp(&b.rate))
        };
        let disk = busier(
            "disk",
            [
                (Series::SimulatedDiskRead, "simulated disk read"),
                (Series::SimulatedDiskWrite, "simulated disk write"),
            ],
        );
        let redis = busier(
            "redis",
            [
                (Series::SimulatedRedisRead, "simulated redis read"),
                (Series::SimulatedRedisWrite, "simulated redis write"),
            ],
        );
        let behind: Vec<Way> = [disk, redis].into_iter().flatten().collect();
        // PCIe carries on what a disk or Redis delivers: it is the limit only of what comes from RAM.
        let delivered = behind.iter().map(|way| way.rate).fold(0.0, f64::max);
        let pcie = busier(
            "pcie",
            [
                (Pcie::SIMULATED.rx, "simulated pcie rx"),
                (Pcie::SIMULATED.tx, "simulated pcie tx"),
            ],
        )
        .filter(|pcie| pcie.rate > 2.0 * delivered);
        let ways = behind.into_iter().chain(pcie);
        ways.map(|way| way.candidate).collect()
    }

    /// GPM counts how many SMs had work; without it there is only the share of time that any kernel
    /// ran, which decoding alone drives to 100.
    fn compute(&self) -> Option<Candidate> {
        let (percent, what) = match self.mean(Series::GpuSmActive) {
            Some(percent) => (percent, "of its SMs had work"),
            None => (
                self.mean(Series::GpuUtilization)?,
                "of the time a kernel ran",
            ),
        };
        Some(Candidate {
            name: "compute",
            share: percent / 100.0,
            reason: format!("the GPU computed: {percent:.0} % {what}"),
        })
    }

    fn pcie(&self) -> Option<Candidate> {
        // A link is read seldom: once where a pass begins and once where it ends is enough.
        let largest = |series| {
            let found = self.read_at_least(2, series);
            let found = found.filter_map(|summary| summary.max);
            found.reduce(f64::max).unwrap_or(0.0) as u32
        };
        let (generation, width) = (
            largest(Series::GpuPcieGeneration),
            largest(Series::GpuPcieWidth),
        );
        if generation == 0 || width == 0 {
            return None;
        }
        let most = link_bytes_per_s(generation, width);
        let ways = [
            ("into", Pcie::GPM.rx),
            ("into", Pcie::COUNTERS.rx),
            ("out of", Pcie::GPM.tx),
            ("out of", Pcie::COUNTERS.tx),
        ];
        let busiest = ways
            .into_iter()
            .filter_map(|(way, series)| Some((way, self.mean(series)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        let (way, rate) = busiest;
        let share = rate / most;
        // A link that rests is slower: read at rest only, it does not bound what was carried.
        if share > MAX_SHARE {
            return None;
        }
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

    /// The tier's disk where there is one, else the busiest of those that the server can use.
    fn disk(&self, tier_disk: Option<&str>) -> Option<Candidate> {
        let is_wanted =
            |summary: &&Summary| tier_disk.is_none_or(|disk| disk == &*summary.key.device);
        let busiest = self
            .of(Series::DiskBusy)
            .filter(is_wanted)
            .max_by(|a, b| a.mean.unwrap_or(0.0).total_cmp(&b.mean.unwrap_or(0.0)))?;
        let percent = busiest.mean?;
        let of_disk = |series| {
            let same = |summary: &&Summary| summary.key.device == busiest.key.device;
            let found = self.of(series).find(same);
            found.map_or((0.0, 0.0), |summary| {
                (summary.mean.unwrap_or(0.0), summary.max.unwrap_or(0.0))
            })
        };
        let (read, most_read) = of_disk(Series::DiskRead);
        let (written, most_written) = of_disk(Series::DiskWrite);
        // Where the server's own bytes are known, another's work is not its bottleneck.
        if self.own_storage().unwrap_or(read + written) < MIN_RATE {
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

    /// What all parts of the server read and wrote, bytes a second; `None` where one is not known.
    fn own_storage(&self) -> Option<f64> {
        let parts = self.of(Series::ServerProcesses).count();
        let mut sum = 0.0;
        for series in [Series::ServerStorageRead, Series::ServerStorageWrite] {
            let means = self.of(series).filter_map(|summary| summary.mean);
            let means: Vec<f64> = means.collect();
            if means.is_empty() || means.len() < parts {
                return None;
            }
            sum += means.iter().sum::<f64>();
        }
        Some(sum)
    }

    /// Redis serves with one thread: its CPU is its limit, or what was seen to go through it.
    fn redis(&self) -> Option<Candidate> {
        let cpu = self.mean(Series::RedisCpu)?;
        let read = self.mean(Series::RedisRead).unwrap_or(0.0);
        let written = self.mean(Series::RedisWrite).unwrap_or(0.0);
        if read + written < MIN_RATE {
            return None;
        }
        let ways = [
            (Series::RedisRead, "redis read"),
            (Series::RedisWrite, "redis write"),
        ];
        let ways = ways.map(|(series, way)| self.against_most("redis", series, way));
        let busiest = ways.into_iter().flatten().map(|way| way.candidate.share);
        let share = busiest.fold(cpu / 100.0, f64::max).min(1.0);
        Some(Candidate {
            name: "redis",
            share,
            reason: format!(
                "Redis sent {:.0} MB/s and received {:.0} MB/s, and used {cpu:.0} % of a core{}",
                read / 1e6,
                written / 1e6,
                self.way_to_redis()
            ),
        })
    }

    /// Over which interface Redis is reached, where that is known.
    fn way_to_redis(&self) -> String {
        let Some(rx) = self.of(Series::NetworkRedisRx).next() else {
            return String::new();
        };
        let tx = self.mean(Series::NetworkRedisTx).unwrap_or(0.0);
        format!(
            "; the interface on the way, {}, carried {:.0} MB/s from there and {:.0} MB/s to it",
            rx.key.device,
            rx.mean.unwrap_or(0.0) / 1e6,
            tx / 1e6
        )
    }

    /// The interface on the way to the tier's Redis where there is one, else the busiest that leaves
    /// this machine.
    fn network(&self) -> Option<Candidate> {
        let redis = self.of(Series::NetworkRedisRx).next();
        let redis = redis.map(|summary| &summary.key.device);
        let wanted = |summary: &&Summary| {
            let device = &summary.key.device;
            redis.is_none_or(|redis| redis == device) && !is_inside(device)
        };
        let rx = self.of(Series::NetworkRx).filter(wanted);
        let tx = self.of(Series::NetworkTx).filter(wanted);
        let role = if redis.is_some() {
            " on the way to Redis"
        } else {
            ""
        };
        let link = |device: &str| {
            let links = self.of(Series::NetworkLink);
            let mut own = links.filter(|summary| &*summary.key.device == device);
            own.find_map(|summary| summary.max)
        };
        rx.chain(tx)
            .filter_map(|summary| {
                let (mean, most) = (summary.mean?, summary.max?);
                let link = link(&summary.key.device).filter(|link| mean <= link * MAX_SHARE);
                let of_link = link.map_or(String::new(), |link| {
                    format!(", and its link {:.0} MB/s", link / 1e6)
                });
                // A gigabit is 125 MB/s: less than half of that is no load for any network.
                (mean >= 60e6).then(|| Candidate {
                    name: "network",
                    // Where the link's speed is unknown, the most that it was seen to carry stands for it.
                    share: link.map_or(summary.near_max, |link| mean / link),
                    reason: format!(
                        "the network interface {}{role} carried {:.0} MB/s, at most {:.0}{of_link}",
                        summary.key.device,
                        mean / 1e6,
                        most / 1e6
                    ),
                })
            })
            .max_by(|a, b| a.share.total_cmp(&b.share))
    }

    /// A way that is known only by what went through it: for how much of the time it carried at
    /// least half of the most that it was seen to carry.
    fn against_most(&self, name: &'static str, series: Series, way: &str) -> Option<Way> {
        let summary = self.of(series).next()?;
        let (mean, most) = (summary.mean?, summary.max?);
        (mean >= MIN_RATE).then(|| Way {
            rate: mean,
            candidate: Candidate {
                name,
                share: summary.near_max,
                reason: format!(
                    "{way}: {:.2} GB/s on average, {:.2} at most, at least half of that \
                     for {:.0} % of the time",
                    mean / 1e9,
                    most / 1e9,
                    summary.near_max * 100.0
                ),
            },
        })
    }

    /// Why nothing can be named: in a word and in a sentence.
    fn nothing(&self) -> (&'static str, String) {
        let all = self.summaries.iter();
        let read = all
            .filter(|one| {
                let source = one.key.series.source();
                matches!(source, Source::Engine | Source::Gpu | Source::Disk)
            })
            .map(|summary| summary.samples)
            .max();
        match read {
            Some(read) if read < MIN_SAMPLES => (
                "too short to tell",
                format!("the pass was too short to judge: at most {read} readings of anything"),
            ),
            _ => (
                "nothing busy",
                format!(
                    "nothing that was watched was busy for {:.0} % of the pass",
                    BUSY_SHARE * 100.0
                ),
            ),
        }
    }

    /// Requests that waited in the engine on average, with the sentence.
    fn queue(&self) -> Option<(f64, String)> {
        let waiting = self
            .mean(Series::EngineWaiting)
            .filter(|mean| *mean >= 0.1)?;
        let running = self.mean(Series::EngineRunning).unwrap_or(0.0);
        let most = self.of(Series::EngineWaiting).next()?.max?;
        let reason = format!(
            "{waiting:.1} requests waited in the engine (at most {most:.0}) and {running:.1} ran, on \
             average"
        );
        Some((waiting, reason))
    }
}

/// Whether an interface leads nowhere but to this machine and its containers.
fn is_inside(interface: &str) -> bool {
    let virtual_ones = ["veth", "br-", "docker", "virbr", "cni"];
    interface == "lo" || virtual_ones.iter().any(|kind| interface.starts_with(kind))
}

#[cfg(test)]
mod tests;
