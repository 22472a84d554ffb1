//! Where the time to the first token went, from what a pass recorded. What is not known stays absent, and
//! is unexplained: the parts and what they do not explain always sum to the mean.

use crate::evidence::Evidence;
use crate::plan::server::LmcacheMode;
use crate::plan::state::CacheState;
use crate::plan::tier::BASELINE;
use crate::record::schema::{CellRecord, PassRecord};

/// Loads and stores are timed by another clock than a prefill: they may seem this much longer than what
/// holds them.
const CLOCKS: f64 = 1.05;

/// One part of the time to the first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Waiting in the engine's queue.
    Queue,
    /// Loading from the tier.
    Load,
    /// The prefill without loads and stores.
    Compute,
    /// Storing into the tier.
    Store,
    /// The prefill where others run in it that load and store too: nobody timed which part is whose.
    Batch,
    /// Between the client and the server.
    Network,
    /// The API server, and its way to the engine and back: its own time to the first token without the
    /// engine's.
    Frontend,
    /// What no part explains.
    Unexplained,
}

impl Part {
    /// All of them; what they do not explain last.
    pub(crate) const ALL: [Self; 8] = [
        Self::Queue,
        Self::Load,
        Self::Compute,
        Self::Store,
        Self::Batch,
        Self::Network,
        Self::Frontend,
        Self::Unexplained,
    ];

    /// Its word in tables and figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Load => "load",
            Self::Compute => "compute",
            Self::Store => "store",
            Self::Batch => "batch",
            Self::Network => "network",
            Self::Frontend => "frontend",
            Self::Unexplained => "unexplained",
        }
    }

    /// Its column in files.
    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::Queue => "ttft_queue_ms",
            Self::Load => "ttft_load_ms",
            Self::Compute => "ttft_compute_ms",
            Self::Store => "ttft_store_ms",
            Self::Batch => "ttft_batch_ms",
            Self::Network => "ttft_network_ms",
            Self::Frontend => "ttft_frontend_ms",
            Self::Unexplained => "ttft_unexplained_ms",
        }
    }
}

/// The parts of the mean time to the first token, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parts {
    /// The mean itself, of every request that the engine timed.
    pub ttft_ms: f64,
    /// In the order of [`Part::ALL`], without the last; absent where it is not known.
    known: [Option<f64>; 7],
    /// Whether the queue may hold loads, or parts of them, that nobody timed.
    pub queue_holds_loads: bool,
}

impl Parts {
    /// The parts of one pass. Its measured requests have the mean `ttft_ms`; the engine's means are of canaries
    /// within the load too, and so is the mean that they are parts of, where the record has it. `None` where the engine timed neither its queue nor
    /// its prefills.
    pub(crate) fn of(cell: &CellRecord, pass: &PassRecord, ttft_ms: Option<f64>) -> Option<Self> {
        let of = |evidence: Evidence| pass.evidence.get(evidence.name()).copied();
        let ttft_ms = of(Evidence::ClientTtftMeanMs).or(ttft_ms)?;
        let queue = of(Evidence::QueueTimeMeanMs);
        let prefill = of(Evidence::PrefillTimeMeanMs);
        queue.or(prefill)?;
        let served = of(Evidence::ServerTtftMeanMs);
        let network = served.map(|served| ttft_ms - served);
        // Its two clocks are apart, and each of them is right: between them lies what is outside the engine.
        let engine = queue.zip(prefill).map(|(queue, prefill)| queue + prefill);
        let frontend = served.zip(engine).map(|(served, engine)| served - engine);
        let times = Transfers::of(cell, pass);
        let (queue, load, prefill, store) = match (cell.server.lmcache, times) {
            _ if cell.coordinates.tier == BASELINE => (queue, Some(0.0), prefill, Some(0.0)),
            (Some(LmcacheMode::InProcess), Transfers { load, store }) => {
                match within(prefill, load, store) {
                    Some(own) => (queue, load, Some(own), store),
                    // The clocks contradict each other, or one of them is missing.
                    None if load.zip(store).is_some() => (queue, None, None, None),
                    None => (queue, load, None, store),
                }
            }
            // A server of its own loads while the request waits, and stores behind the answer.
            (Some(LmcacheMode::MultiProcess), Transfers { load, .. }) => {
                match within(queue, load, Some(0.0)) {
                    Some(waited) => (Some(waited), load, prefill, None),
                    None => (queue, None, prefill, None),
                }
            }
            (None, Transfers { load, .. }) => (queue, load, prefill, None),
        };
        let (compute, batch) = if shares_its_prefill(cell, pass, times) {
            (None, prefill)
        } else {
            (prefill, prefill.map(|_| 0.0))
        };
        let [network, frontend] = [network, frontend].map(|part| part.filter(|ms| *ms >= 0.0));
        Some(Self {
            ttft_ms,
            known: [queue, load, compute, store, batch, network, frontend],
            queue_holds_loads: loads_in_queue(cell, pass),
        })
    }

    /// One part; what none explains is always known.
    pub(crate) fn get(&self, part: Part) -> Option<f64> {
        match part {
            Part::Unexplained => Some(self.ttft_ms - self.known.iter().flatten().sum::<f64>()),
            part => self.known[part as usize],
        }
    }

    /// The part that is more than half of the mean.
    pub(crate) fn largest(&self) -> Option<Part> {
        let is_most = |part: &Part| self.get(*part).is_some_and(|ms| ms > 0.5 * self.ttft_ms);
        Part::ALL.into_iter().find(is_most)
    }

    /// Several passes taken together, each with the number of its requests. A part that one of them does
    /// not know is not known.
    pub(crate) fn pooled(each: &[(Option<Self>, u64)]) -> Option<Self> {
        let each: Option<Vec<(Self, f64)>> = each
            .iter()
            .map(|(parts, requests)| Some(((*parts)?, *requests as f64)))
            .collect();
        let each = each.filter(|each| !each.is_empty())?;
        let all: f64 = each.iter().map(|(_, weight)| weight).sum();
        if all <= 0.0 {
            return None;
        }
        let mean = |of: &dyn Fn(&Self) -> Option<f64>| -> Option<f64> {
            let weighed = each.iter().map(|(parts, weight)| Some(of(parts)? * weight));
            weighed.sum::<Option<f64>>().map(|sum| sum / all)
        };
        Some(Self {
            ttft_ms: mean(&|parts| Some(parts.ttft_ms))?,
            known: [0, 1, 2, 3, 4, 5, 6].map(|at| mean(&|parts| parts.known[at])),
            queue_holds_loads: each.iter().any(|(parts, _)| parts.queue_holds_loads),
        })
    }
}

/// Whether requests wait in the queue for what comes from the tier: vLLM's own offloading times no loads, and
/// LMCache's server not what it fetches from a disk or Redis first.
fn loads_in_queue(cell: &CellRecord, pass: &PassRecord) -> bool {
    let external = pass.evidence.get(Evidence::ExternalTokens.name());
    cell.coordinates.tier != BASELINE
        && cell.server.lmcache != Some(LmcacheMode::InProcess)
        && external.is_none_or(|tokens| *tokens > 0.0)
}

/// Whether other requests may load and store in the prefill of one: LMCache does both in the engine's step,
/// which all requests of a batch wait for.
fn shares_its_prefill(cell: &CellRecord, pass: &PassRecord, times: Transfers) -> bool {
    let most = pass.evidence.get(Evidence::RunningMaxRequests.name());
    let is_alone = cell.coordinates.concurrency.get() == 1 && most.is_none_or(|most| *most <= 1.0);
    let moves = |ms: Option<f64>| ms.is_none_or(|ms| ms > 0.0);
    cell.coordinates.tier != BASELINE
        && cell.server.lmcache == Some(LmcacheMode::InProcess)
        && !is_alone
        && (moves(times.load) || moves(times.store))
}

/// What is left of `whole` without `load` and `store`; `None` where one is unknown, or they cannot be a
/// part of it.
fn within(whole: Option<f64>, load: Option<f64>, store: Option<f64>) -> Option<f64> {
    let (whole, inside) = (whole?, load? + store?);
    (inside <= whole * CLOCKS).then(|| (whole - inside).max(0.0))
}

/// Loads and stores a request, milliseconds.
#[derive(Clone, Copy)]
struct Transfers {
    load: Option<f64>,
    store: Option<f64>,
}

impl Transfers {
    fn of(cell: &CellRecord, pass: &PassRecord) -> Self {
        let of = |evidence: Evidence| pass.evidence.get(evidence.name()).copied();
        let is_logged = of(Evidence::StoredTokens).is_some()
            || of(Evidence::TierLoadMeanMs).is_some()
            || of(Evidence::TierStoreMeanMs).is_some();
        let (loads, stores) = (of(Evidence::TierLoads), of(Evidence::TierStores));
        let requests = requests(pass) * ranks(cell);
        let each = |mean: Option<f64>, lines: Option<f64>| match (mean, lines) {
            (Some(mean), Some(lines)) if requests > 0.0 => Some(mean * lines / requests),
            // Its log has lines of the other kind, and none of this one.
            (None, _) if is_logged => Some(0.0),
            _ => None,
        };
        let none_came = of(Evidence::ExternalTokens).is_some_and(|tokens| tokens <= 0.0);
        let mean_load = of(Evidence::TierLoadMeanMs);
        // labrun 0.1 did not count the loads: where the tier is what answers, there is one a request.
        let is_of_tier = matches!(pass.state, CacheState::Tier | CacheState::Restart);
        let load = match each(mean_load, loads) {
            _ if none_came => Some(0.0),
            None if loads.is_none() && is_of_tier => mean_load,
            load => load,
        };
        Self {
            load,
            store: each(of(Evidence::TierStoreMeanMs), stores),
        }
    }
}

/// Requests that the engine answered in the pass, those that no statistic has among them.
fn requests(pass: &PassRecord) -> f64 {
    let canaries = pass.evidence.get(Evidence::InLoadCanaries.name());
    pass.counts.ok as f64 + canaries.copied().unwrap_or(0.0)
}

/// Each rank of the engine loads its share of every request, and logs it.
fn ranks(cell: &CellRecord) -> f64 {
    let of = |argument: &str| {
        let value = cell.identity.get(&format!("plan.server.args.{argument}"));
        value.and_then(|value| value.parse::<f64>().ok())
    };
    let ranks = ["tensor-parallel-size", "pipeline-parallel-size"].map(of);
    ranks.into_iter().flatten().product::<f64>().max(1.0)
}

/// What carried the loads of a pass, by the bytes that were seen to move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Carrier {
    /// `disk`, `redis`, `network` or `pcie`.
    pub name: &'static str,
    /// While a load went on.
    pub bytes_per_s: f64,
}

impl Carrier {
    /// The slowest way that at least half of the loaded bytes went; `None` where bytes or times are not
    /// known.
    pub(crate) fn of(cell: &CellRecord, pass: &PassRecord) -> Option<Self> {
        let of = |evidence: Evidence| pass.evidence.get(evidence.name()).copied();
        let loaded = of(Evidence::ExternalTokens)? * of(Evidence::KvBytesPerToken)?;
        let load_s = Transfers::of(cell, pass).load? * requests(pass) / 1e3;
        let ways = [
            ("redis", Evidence::RedisReadBytes),
            ("network", Evidence::PortReadBytes),
            ("disk", Evidence::DiskReadBytes),
            ("pcie", Evidence::PcieRxBytes),
        ];
        let carried = |(name, evidence)| Some((name, of(evidence)?));
        let way = ways
            .into_iter()
            .filter_map(carried)
            .find(|(_, bytes)| *bytes > 0.0 && *bytes >= 0.5 * loaded);
        let (name, bytes) = way.filter(|_| load_s > 0.0)?;
        Some(Self {
            name,
            bytes_per_s: bytes / load_s,
        })
    }
}

#[cfg(test)]
mod tests;
