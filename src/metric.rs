//! The one table of what is measured. Column names, table heads, figure axes and the glossary are
//! all read from here, so a number has one name, one unit and one definition everywhere.

use std::fmt::Write as _;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Thousandths of a second.
    Milliseconds,
    /// Requests per second of the pass.
    RequestsPerSecond,
    /// Tokens per second of the pass.
    TokensPerSecond,
    /// Tokens, as the server counted them.
    Tokens,
    /// A number of requests.
    Requests,
    /// Energy by tokens.
    JoulesPerToken,
    /// Energy by requests.
    JoulesPerRequest,
    /// Hundredths.
    Percent,
    /// 1,048,576 bytes by requests.
    MebibytesPerRequest,
    /// Natural logarithms of a probability.
    Nats,
}

impl Unit {
    /// The sign beside a number.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::RequestsPerSecond => "req/s",
            Self::TokensPerSecond => "tok/s",
            Self::Tokens => "tokens",
            Self::Requests => "requests",
            Self::JoulesPerToken => "J/token",
            Self::JoulesPerRequest => "J/request",
            Self::Percent => "%",
            Self::MebibytesPerRequest => "MiB/request",
            Self::Nats => "nats",
        }
    }
}

/// Which direction is an improvement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Better {
    /// Less is better, as with times.
    Lower,
    /// More is better, as with throughput.
    Higher,
    /// Neither: it describes what was done.
    Neither,
}

impl Better {
    /// The word used in the glossary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
            Self::Neither => "-",
        }
    }
}

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Time to first token.
    Ttft,
    /// Inter-token latency, all gaps.
    Itl,
    /// Time per output token, one a request.
    Tpot,
    /// End-to-end latency.
    E2e,
    /// How late the client sent.
    Lateness,
    /// Time to set up a connection.
    Connect,
    /// Finished requests a second.
    RequestThroughput,
    /// Requests a second that meet the objectives.
    Goodput,
    /// Prompt tokens a second.
    InputThroughput,
    /// Output tokens a second.
    OutputThroughput,
    /// Prompt and output tokens a second.
    TotalThroughput,
    /// Prompt tokens of a request.
    PromptTokens,
    /// Prompt tokens of a request that came from a cache.
    CachedTokens,
    /// Output tokens of a request.
    OutputTokens,
    /// Energy by output tokens.
    Energy,
    /// Energy by requests.
    RequestEnergy,
    /// Tokens of KV that the GPU holds.
    GpuCapacity,
    /// Tokens of KV that the tier holds.
    TierCapacity,
    /// Prompt tokens that came from the tier.
    TierHits,
    /// Bytes that came from the tier.
    TierBytes,
    /// How far answers are from those that were computed.
    Drift,
    /// Requests that were begun.
    Sent,
    /// Requests whose whole answer arrived.
    Ok,
    /// Requests that ended with an error.
    Failed,
    /// Requests that were cut off by the end of the pass.
    Unfinished,
}

/// What is to be known about a metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// The column's name in files, unit last.
    pub column: &'static str,
    /// The short name in table heads.
    pub short: &'static str,
    /// The full name, as on a figure's axis.
    pub title: &'static str,
    /// The unit of its values.
    pub unit: Unit,
    /// Which direction is an improvement.
    pub better: Better,
    /// Exactly what is measured, in a sentence or two.
    pub definition: &'static str,
}

macro_rules! spec {
    ($column:literal, $short:literal, $title:literal, $unit:ident, $better:ident, $definition:literal) => {
        &Spec {
            column: $column,
            short: $short,
            title: $title,
            unit: Unit::$unit,
            better: Better::$better,
            definition: $definition,
        }
    };
}

impl Metric {
    /// Every metric, in the glossary's order.
    pub const ALL: [Metric; 25] = [
        Self::Ttft,
        Self::Itl,
        Self::Tpot,
        Self::E2e,
        Self::Lateness,
        Self::Connect,
        Self::RequestThroughput,
        Self::Goodput,
        Self::InputThroughput,
        Self::OutputThroughput,
        Self::TotalThroughput,
        Self::PromptTokens,
        Self::CachedTokens,
        Self::OutputTokens,
        Self::Energy,
        Self::RequestEnergy,
        Self::GpuCapacity,
        Self::TierCapacity,
        Self::TierHits,
        Self::TierBytes,
        Self::Drift,
        Self::Sent,
        Self::Ok,
        Self::Failed,
        Self::Unfinished,
    ];

    /// Its row of the table.
    #[rustfmt::skip] // one row a metric
    pub const fn spec(self) -> &'static Spec {
        match self {
            Self::Ttft => spec!("ttft_ms", "TTFT", "Time to first token", Milliseconds, Lower,
                "From the write of the request to the arrival of its first output token. Connection set-up and lateness are not in it."),
            Self::Itl => spec!("itl_ms", "ITL", "Inter-token latency", Milliseconds, Lower,
                "Time between the arrivals of successive frames that carried tokens; every gap of every request is one sample, so a request with many tokens weighs more."),
            Self::Tpot => spec!("tpot_ms", "TPOT", "Time per output token", Milliseconds, Lower,
                "(E2E - TTFT) / (output tokens - 1), one value a request; absent for requests of one token. An average within the request: stalls that ITL shows are smoothed away."),
            Self::E2e => spec!("e2e_ms", "E2E", "End-to-end latency", Milliseconds, Lower,
                "From the write of the request to the arrival of its last output token."),
            Self::Lateness => spec!("lateness_ms", "late", "Send lateness", Milliseconds, Lower,
                "From the intended send time to the real one, connection set-up taken out. A property of the client; never part of TTFT."),
            Self::Connect => spec!("connect_ms", "connect", "Connection set-up", Milliseconds, Lower,
                "Connection set-up before the send; absent where a connection was reused. Never part of TTFT."),
            Self::RequestThroughput => spec!("requests_per_s", "req/s", "Request throughput", RequestsPerSecond, Higher,
                "Ok requests divided by the pass's duration (first intended send to last arrival)."),
            Self::Goodput => spec!("goodput_per_s", "goodput", "Goodput", RequestsPerSecond, Higher,
                "Ok requests that meet every objective on single requests (`--slo ttft=500ms`), divided by the pass's duration; 0 for a pass that breaks an objective on the pass as a whole (`--slo ttft_p99=500ms`), absent for one with too few requests to decide. An unanswered request counts as one that took for ever. Against the baseline, repeats are pooled: each is checked against the objectives on its own, their good requests are divided by the sum of their durations."),
            Self::InputThroughput => spec!("input_tokens_per_s", "in tok/s", "Input token throughput", TokensPerSecond, Higher,
                "Prompt tokens of ok requests divided by the pass's duration. Those that came from a cache count in full."),
            Self::OutputThroughput => spec!("output_tokens_per_s", "out tok/s", "Output token throughput", TokensPerSecond, Higher,
                "Output tokens of ok requests divided by the pass's duration."),
            Self::TotalThroughput => spec!("total_tokens_per_s", "all tok/s", "Total token throughput", TokensPerSecond, Higher,
                "Prompt and output tokens of ok requests divided by the pass's duration. Prompt tokens that came from a cache count in full."),
            Self::PromptTokens => spec!("prompt_tokens", "prompt", "Prompt tokens a request", Tokens, Neither,
                "Prompt tokens as the server counted them, mean over ok requests."),
            Self::CachedTokens => spec!("cached_tokens", "cached", "Hit tokens a request", Tokens, Neither,
                "Prompt tokens that the server reported as cached (GPU or tier), mean over ok requests. A claim of the server: the verdict shows whether it is believed."),
            Self::OutputTokens => spec!("output_tokens", "output", "Output tokens a request", Tokens, Neither,
                "Output tokens as the server counted them, mean over ok requests."),
            Self::Energy => spec!("energy_j_per_token", "energy", "Energy a token", JoulesPerToken, Lower,
                "Energy of all GPUs over the pass (their own counter, else the integral of their power), divided by the output tokens of ok requests. It includes the energy of reading the prompts, and of idling between requests."),
            Self::RequestEnergy => spec!("energy_j_per_request", "J/req", "Energy a request", JoulesPerRequest, Lower,
                "Energy of all GPUs over the pass, divided by the ok requests."),
            Self::GpuCapacity => spec!("gpu_kv_tokens", "GPU holds", "Tokens that the GPU holds", Tokens, Neither,
                "Tokens of KV that the engine has room for, by its start log."),
            Self::TierCapacity => spec!("tier_kv_tokens", "tier holds", "Tokens that the tier holds", Tokens, Neither,
                "The tier's size by its settings, divided by the KV bytes of a token. The tier may hold what the GPU holds too. Empty: it knows no bound, or the KV size is not known."),
            Self::TierHits => spec!("tier_hit_percent", "tier hits", "Prompt tokens from the tier", Percent, Neither,
                "Prompt tokens that came through the connector, of all prompt tokens of the pass, by the engine's counters."),
            Self::TierBytes => spec!("tier_mib_per_request", "MiB/req", "Bytes from the tier a request", MebibytesPerRequest, Neither,
                "Bytes that were seen to move from the tier towards the GPU, on the way of the ledger that carried most, divided by the ok requests."),
            Self::Drift => spec!("drift_nats", "drift", "Largest drift of a log-probability", Nats, Lower,
                "Largest difference of a log-probability between a canary's answer in this state and its first one, which was computed. Noise of the engine is in it; more is the price of a tier that stores KV with a loss. Empty: the text is another, or no log-probabilities came."),
            Self::Sent => spec!("sent", "sent", "Requests sent", Requests, Neither,
                "Requests that were begun. Sent = ok + failed + unfinished."),
            Self::Ok => spec!("ok", "ok", "Requests answered", Requests, Higher,
                "Requests whose whole answer arrived. Only these enter latencies and throughput."),
            Self::Failed => spec!("failed", "failed", "Requests failed", Requests, Lower,
                "Requests that ended with an error."),
            Self::Unfinished => spec!("unfinished", "unfinished", "Requests unfinished", Requests, Lower,
                "Requests still in flight when the pass was ended."),
        }
    }

    /// The column of one statistic of this metric, unit last: `p50` of `ttft_ms` is `ttft_p50_ms`.
    pub fn column_of(self, statistic: &str) -> String {
        let column = self.spec().column;
        match column.strip_suffix("_ms") {
            Some(stem) => format!("{stem}_{statistic}_ms"),
            None => format!("{column}_{statistic}"),
        }
    }
}

/// A word that tables use besides the metrics, and what it means.
pub(crate) const WORDS: [(&str, &str); 13] = [
    (
        "p50, p90, p95, p99",
        "Quantiles by definition 7 of Hyndman & Fan (1996), the default of R, NumPy and polars: with `h = (n - 1) q`, the straight line between the sorted values at `floor(h)` and `floor(h) + 1`, counted from 0. A quantile that the samples cannot support is not printed: p50 needs 2, p10 and p90 need 10, p95 needs 20, p99 needs 100 (`1 / (1 - q)`: with fewer, no sample is expected beyond it).",
    ),
    ("mean, max", "Arithmetic mean; largest value."),
    (
        "n, ok/sent",
        "Samples: ok requests, for ITL gaps. Of the requests that were begun, those that were answered.",
    ),
    (
        "interval",
        "95 %, in brackets. Of a median by order statistics (David & Nagaraja 2003, 7.1), needs 6 samples; where there are repeats, by a seeded bootstrap that draws repeats and then requests within them. Of a throughput or a goodput, by a bootstrap over 3 or more repeats. Of a speedup, from those of its two parts on the log scale (Zou & Donner 2008). Requests of one pass share a server: an interval from one repeat is a lower bound of the doubt.",
    ),
    (
        "speedup",
        "Above 1 is better: baseline / tier for latencies and energy, tier / baseline for throughput and goodput, at equal coordinates and in the same cache state, repeats pooled; none where the baseline's goodput is 0. Over several places: the geometric mean.",
    ),
    (
        "`~`",
        "The difference may be noise: Mann-Whitney U over the requests of both sides, p >= 0.05.",
    ),
    (
        "verdict",
        "`valid`: counters, bytes and text agree that the tier that is credited did serve. `invalid`: they show that it did not. `inconclusive`: they do not settle it. Only valid passes enter a speedup or a headline.",
    ),
    (
        "break-even",
        "The prompt length at which the tier's median TTFT equals the baseline's: the log of the speedup on a straight line over the log of the length, between two measured lengths.",
    ),
    (
        "ledger",
        "Bytes that had to move for the hits that were counted, against bytes that were seen to move.",
    ),
    (
        "bottleneck",
        "What limited a pass. Where one part of its TTFT is more than half, that part: `queue`, `load`, `compute`, `store`, `batch`, `network` or `frontend`, with what carried it (`load from disk`), or `unexplained`: more than half lies in none of them. Else what telemetry saw busy: `compute`, `pcie`, `disk`, `redis`, `network`, `queue` or `client`. `mixed`: no part is more than half. `nothing busy`, `too short to tell`: neither is known.",
    ),
    (
        "parts of TTFT",
        "Means of a pass that sum to its mean TTFT: `queue` (waiting in the engine), `load` (from the tier), `compute` (the prefill without loads and stores), `store` (into the tier, while the prefill waits), `batch` (in place of `compute` where others in the same prefill load and store too), `network` (between client and server), `frontend` (the API server: HTTP, tokenizer, its way to the engine and back) and `unexplained` (each part that is not known). Empty: not known.",
    ),
    (
        "cold, GPU hit, tier hit, after restart",
        "What was warm when the clock started: nothing; the GPU's prefix cache; only the tier; only the tier, after the server was started again. In files `cold`, `gpu`, `tier`, `restart`.",
    ),
    (
        "simulated",
        "The number comes from the built-in simulator and predicts nothing about any hardware.",
    ),
];

/// The glossary as Markdown: a row a metric, then the other words.
pub(crate) fn glossary_markdown() -> String {
    let mut text =
        String::from("| metric | column | unit | better | definition |\n|:--|:--|:--|:--|:--|\n");
    for metric in Metric::ALL {
        let spec = metric.spec();
        let _ = writeln!(
            text,
            "| {} ({}) | `{}` | {} | {} | {} |",
            spec.title,
            spec.short,
            spec.column,
            spec.unit.sign(),
            spec.better.name(),
            spec.definition
        );
    }
    text.push_str("\n| word | meaning |\n|:--|:--|\n");
    for (word, meaning) in WORDS {
        let _ = writeln!(text, "| {word} | {meaning} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn statistics_keep_the_unit_last() {
        assert_eq!(Metric::Ttft.column_of("p50"), "ttft_p50_ms");
        assert_eq!(Metric::CachedTokens.column_of("mean"), "cached_tokens_mean");
    }

    #[test]
    fn every_time_is_in_milliseconds_and_its_name_ends_so() {
        for metric in Metric::ALL {
            let spec = metric.spec();
            assert_eq!(
                spec.unit == Unit::Milliseconds,
                spec.column.ends_with("_ms"),
                "{metric:?}"
            );
        }
    }

    #[test]
    fn the_glossary_has_each_metric_once_with_its_definition() {
        let columns: BTreeSet<_> = Metric::ALL
            .iter()
            .map(|metric| metric.spec().column)
            .collect();
        assert_eq!(columns.len(), Metric::ALL.len());
        let glossary = glossary_markdown();
        assert_eq!(
            glossary.lines().count(),
            2 + Metric::ALL.len() + 3 + WORDS.len()
        );
        assert!(glossary.contains(
            "| Time to first token (TTFT) | `ttft_ms` | ms | lower | From the write of the request \
             to the arrival of its first output token."
        ));
    }

    #[test]
    fn the_glossary_in_the_docs_is_this_one() {
        let docs = include_str!("../docs/glossary.md");
        let (_, tables) = docs.split_once("\n\n").unwrap();
        assert!(
            tables == glossary_markdown(),
            "docs/glossary.md should hold, after its heading:\n\n{}",
            glossary_markdown()
        );
    }
}
