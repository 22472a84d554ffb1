//! What the simulator pretends to be: the machine, the model and what goes wrong.
//!
//! The defaults are the calibrated machine: measured on an H100 80GB, vLLM 0.24.0, LMCache 0.4.7,
//! with the geometry of Llama-3-8B in bf16 (see `docs/simulator-calibration.md`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest prompt and answer together that a simulated model takes, tokens.
pub(crate) const MODEL_LEN: u64 = 131_072;

/// A machine and a model for the simulator, with the faults to act out.
///
/// Bandwidths are in GB/s with 1 GB = 10^9 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimSpec {
    /// What goes wrong. Empty: nothing.
    pub faults: Vec<Fault>,
    /// Requests served normally before `exit-mid-load` or `stall` strikes.
    pub fault_after_requests: u32,
    /// `http-500` and `cut-stream` hit every n-th request.
    pub fault_every_requests: u32,
    /// Delay that `store-lags` adds before stored KV can be found, ms.
    pub store_lag_ms: u64,
    /// Time from start to the first accepted connection, ms.
    pub start_ms: u64,
    /// Seed of everything that looks random: generated text, stale memory.
    pub seed: u64,

    /// GPU KV cache, tokens.
    pub gpu_kv_tokens: u64,
    /// KV bytes a token: 2 x layers x KV heads x head size x bytes of the data type.
    pub kv_bytes_per_token: u64,
    /// GPU KV block, tokens.
    pub block_size: u32,
    /// Token budget of a scheduler step, tokens.
    pub max_num_batched_tokens: u32,
    /// Most requests in a scheduler step, requests.
    pub max_num_seqs: u32,
    /// Vocabulary: token ids below this are accepted, ids.
    pub vocab_size: u32,

    /// Shortest possible step: reading the weights once, us.
    pub weights_us: f64,
    /// Fixed part of a compute-bound step, us.
    pub step_fixed_us: f64,
    /// Compute for a token of a step, us.
    pub token_us: f64,
    /// Attention for a million query-key pairs of a prefill, us.
    pub attention_us_per_mpair: f64,
    /// Decode: reading a thousand tokens of attended context, us.
    pub decode_us_per_kilotoken: f64,
    /// Decode: each sequence beyond the first, us.
    pub decode_us_per_seq: f64,
    /// Latency of a request outside the engine (HTTP, tokenizer, IPC); does not occupy it, us.
    pub request_latency_us: f64,
    /// API server work for a request; requests in hand share the API server, us.
    pub frontend_us_per_request: f64,
    /// API server work for a prompt token, shared likewise, us.
    pub frontend_us_per_token: f64,

    /// Tier lookup: fixed part, blocks the scheduler, us.
    pub lookup_us: f64,
    /// Tier lookup: each prompt token (hashing), us.
    pub lookup_us_per_token: f64,
    /// Tier store: fixed part in each step that stores, us.
    pub store_us: f64,
    /// Tier store: handing a token to a disk or Redis writer, us.
    pub store_submit_us_per_token: f64,
    /// Tier store: fixed part of handing a step's chunks to a disk or Redis writer, us.
    pub store_submit_us: f64,
    /// Tier load: fixed part for a request, us.
    pub load_us: f64,
    /// Host to device (load), GB/s.
    pub pcie_load_gb_per_s: f64,
    /// Device to host (store), GB/s.
    pub pcie_store_gb_per_s: f64,

    /// Disk read, GB/s.
    pub disk_read_gb_per_s: f64,
    /// Disk write, GB/s. Assumed: the calibrated machine wrote through its page cache.
    pub disk_write_gb_per_s: f64,
    /// First byte of a disk read, us.
    pub disk_latency_us: f64,
    /// Disk tier answered by the page cache, GB/s.
    pub page_cache_gb_per_s: f64,
    /// Page cache for the disk tier, GiB.
    pub page_cache_gib: f64,
    /// Redis GET, GB/s.
    pub redis_read_gb_per_s: f64,
    /// Redis SET, GB/s.
    pub redis_write_gb_per_s: f64,
    /// Redis EXISTS of a chunk, and the first byte of a GET, us.
    pub redis_latency_us: f64,
    /// Capacity of the Redis server, GiB.
    pub redis_gib: f64,
    /// How often the LMCache counters are published, ms. Real LMCache: 10,000. 0: at once.
    pub lmcache_metrics_interval_ms: u64,
}

impl Default for SimSpec {
    fn default() -> Self {
        Self {
            faults: Vec::new(),
            fault_after_requests: 4,
            fault_every_requests: 4,
            store_lag_ms: 5_000,
            start_ms: 200,
            seed: 0,
            gpu_kv_tokens: 224_816,
            kv_bytes_per_token: 131_072,
            block_size: 16,
            max_num_batched_tokens: 8_192,
            max_num_seqs: 256,
            vocab_size: 128_256,
            weights_us: 6_330.0,
            step_fixed_us: 2_000.0,
            token_us: 19.4,
            attention_us_per_mpair: 1_080.0,
            decode_us_per_kilotoken: 18.0,
            decode_us_per_seq: 150.0,
            request_latency_us: 8_500.0,
            frontend_us_per_request: 1_000.0,
            frontend_us_per_token: 1.8,
            lookup_us: 1_500.0,
            lookup_us_per_token: 0.2,
            store_us: 4_500.0,
            store_submit_us_per_token: 1.1,
            store_submit_us: 3_000.0,
            load_us: 300.0,
            pcie_load_gb_per_s: 45.0,
            pcie_store_gb_per_s: 40.0,
            disk_read_gb_per_s: 1.0,
            disk_write_gb_per_s: 1.0,
            disk_latency_us: 10_000.0,
            page_cache_gb_per_s: 20.0,
            page_cache_gib: 64.0,
            redis_read_gb_per_s: 0.296,
            redis_write_gb_per_s: 1.3,
            redis_latency_us: 500.0,
            redis_gib: 32.0,
            lmcache_metrics_interval_ms: 0,
        }
    }
}

impl SimSpec {
    /// Everything that makes this spec impossible to simulate; empty when it is sound.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in self.floats() {
            if !value.is_finite() || value <= 0.0 {
                problems.push(format!("`{name}` is {value}; give a finite number above 0"));
            }
        }
        for (name, value) in self.counts() {
            if value == 0 {
                problems.push(format!("`{name}` is 0; give at least 1"));
            }
        }
        if u64::from(self.block_size) > self.gpu_kv_tokens {
            problems.push(format!(
                "`gpu_kv_tokens` is {}, less than one block of {} tokens; give at least one block",
                self.gpu_kv_tokens, self.block_size
            ));
        }
        if self.max_num_seqs > self.max_num_batched_tokens {
            problems.push(format!(
                "`max_num_seqs` is {}, above `max_num_batched_tokens` {}; lower it, for each \
                 decoding request takes one token of the budget",
                self.max_num_seqs, self.max_num_batched_tokens
            ));
        }
        problems
    }

    /// Whether `fault` is to be acted out.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn floats(&self) -> [(&'static str, f64); 26] {
        [
            ("weights_us", self.weights_us),
            ("step_fixed_us", self.step_fixed_us),
            ("token_us", self.token_us),
            ("attention_us_per_mpair", self.attention_us_per_mpair),
            ("decode_us_per_kilotoken", self.decode_us_per_kilotoken),
            ("decode_us_per_seq", self.decode_us_per_seq),
            ("request_latency_us", self.request_latency_us),
            ("frontend_us_per_request", self.frontend_us_per_request),
            ("frontend_us_per_token", self.frontend_us_per_token),
            ("lookup_us", self.lookup_us),
            ("lookup_us_per_token", self.lookup_us_per_token),
            ("store_us", self.store_us),
            ("store_submit_us_per_token", self.store_submit_us_per_token),
            ("store_submit_us", self.store_submit_us),
            ("load_us", self.load_us),
            ("pcie_load_gb_per_s", self.pcie_load_gb_per_s),
            ("pcie_store_gb_per_s", self.pcie_store_gb_per_s),
            ("disk_read_gb_per_s", self.disk_read_gb_per_s),
            ("disk_write_gb_per_s", self.disk_write_gb_per_s),
            ("disk_latency_us", self.disk_latency_us),
            ("page_cache_gb_per_s", self.page_cache_gb_per_s),
            ("page_cache_gib", self.page_cache_gib),
            ("redis_read_gb_per_s", self.redis_read_gb_per_s),
            ("redis_write_gb_per_s", self.redis_write_gb_per_s),
            ("redis_latency_us", self.redis_latency_us),
            ("redis_gib", self.redis_gib),
        ]
    }

    fn counts(&self) -> [(&'static str, u64); 8] {
        [
            ("fault_after_requests", u64::from(self.fault_after_requests)),
            ("fault_every_requests", u64::from(self.fault_every_requests)),
            ("gpu_kv_tokens", self.gpu_kv_tokens),
            ("kv_bytes_per_token", self.kv_bytes_per_token),
            ("block_size", u64::from(self.block_size)),
            (
                "max_num_batched_tokens",
                u64::from(self.max_num_batched_tokens),
            ),
            ("max_num_seqs", u64::from(self.max_num_seqs)),
            ("vocab_size", u64::from(self.vocab_size)),
        ]
    }
}

/// One thing that goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Loading takes twenty times `start_ms`.
    SlowStart,
    /// The process ends with an error half way through loading.
    ExitWhileLoading,
    /// The process ends with an error after `fault_after_requests` requests.
    ExitMidLoad,
    /// After `fault_after_requests` requests no token comes any more; `/health` stays good.
    Stall,
    /// Every `fault_every_requests`-th request is answered with status 500.
    #[serde(rename = "http-500")]
    Http500,
    /// Every `fault_every_requests`-th stream breaks after its first tokens.
    CutStream,
    /// Counters and usage report tier hits, but nothing is loaded: the text changes.
    FalseHit,
    /// Every KV block that the tier loads goes to the place of its neighbour: the text changes.
    WrongPlace,
    /// Nothing is loaded, though bytes move: a block is right where the GPU still has its old
    /// content somewhere, and stale where that was overwritten.
    StaleBlocks,
    /// Answers depend on the last token alone, as those of dummy weights: no text ever changes.
    BlindModel,
    /// The page cache answers for the disk tier, whatever is configured: no disk byte moves.
    PageCacheDisk,
    /// Host memory answers for the disk tier: KV stays in RAM although `local_cpu` is false.
    RamAnswersForDisk,
    /// Loads give the GPU half of the KV: half of the bytes move.
    HalfLoaded,
    /// Loads are reported as done at once, faster than any link.
    ImpossibleSpeed,
    /// Every `fault_every_requests`-th store finds no memory, and the log says so.
    FullWriteBuffer,
    /// Stores are counted and logged, and nothing is stored.
    SilentStoreFailure,
    /// What was stored is found only `store_lag_ms` later.
    StoreLags,
    /// `/reset_prefix_cache` never succeeds.
    ResetRefused,
    /// `/reset_prefix_cache` answers that it succeeded, and clears nothing.
    ResetIgnored,
    /// LMCache failed to start: nothing is cached and every request waits for a lookup time-out.
    Degraded,
}

impl Fault {
    /// Every fault, in the order of the documentation.
    pub const ALL: [Self; 20] = [
        Self::SlowStart,
        Self::ExitWhileLoading,
        Self::ExitMidLoad,
        Self::Stall,
        Self::Http500,
        Self::CutStream,
        Self::FalseHit,
        Self::WrongPlace,
        Self::StaleBlocks,
        Self::BlindModel,
        Self::PageCacheDisk,
        Self::RamAnswersForDisk,
        Self::HalfLoaded,
        Self::ImpossibleSpeed,
        Self::FullWriteBuffer,
        Self::SilentStoreFailure,
        Self::StoreLags,
        Self::ResetRefused,
        Self::ResetIgnored,
        Self::Degraded,
    ];

    /// The name used in plans.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SlowStart => "slow-start",
            Self::ExitWhileLoading => "exit-while-loading",
            Self::ExitMidLoad => "exit-mid-load",
            Self::Stall => "stall",
            Self::Http500 => "http-500",
            Self::CutStream => "cut-stream",
            Self::FalseHit => "false-hit",
            Self::WrongPlace => "wrong-place",
            Self::StaleBlocks => "stale-blocks",
            Self::BlindModel => "blind-model",
            Self::PageCacheDisk => "page-cache-disk",
            Self::RamAnswersForDisk => "ram-answers-for-disk",
            Self::HalfLoaded => "half-loaded",
            Self::ImpossibleSpeed => "impossible-speed",
            Self::FullWriteBuffer => "full-write-buffer",
            Self::SilentStoreFailure => "silent-store-failure",
            Self::StoreLags => "store-lags",
            Self::ResetRefused => "reset-refused",
            Self::ResetIgnored => "reset-ignored",
            Self::Degraded => "degraded",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of an unknown fault.
#[derive(Debug, thiserror::Error)]
#[error("unknown simulator fault `{name}`; use one of: {}", Fault::ALL.map(Fault::name).join(", "))]
pub struct UnknownFault {
    name: String,
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let fault = Self::ALL.into_iter().find(|fault| fault.name() == name);
        fault.ok_or_else(|| UnknownFault {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_serde_and_from_str_agree() {
        for fault in Fault::ALL {
            let json = serde_json::to_string(&fault).unwrap();
            assert_eq!(json, format!("\"{fault}\""));
            assert_eq!(fault.name().parse::<Fault>().unwrap(), fault);
        }
        let error = "slow".parse::<Fault>().unwrap_err().to_string();
        assert!(error.contains("slow-start"), "{error}");
    }

    #[test]
    fn the_default_is_sound_and_partial_specs_fill_up() {
        assert_eq!(SimSpec::default().problems(), Vec::<String>::new());
        let spec: SimSpec =
            serde_json::from_str(r#"{"faults":["false-hit"],"start_ms":1}"#).unwrap();
        assert!(spec.has(Fault::FalseHit) && spec.start_ms == 1);
        assert_eq!(spec.block_size, SimSpec::default().block_size);
        assert!(serde_json::from_str::<SimSpec>(r#"{"start":1}"#).is_err());
    }

    #[test]
    fn impossible_numbers_are_named() {
        let spec = SimSpec {
            disk_read_gb_per_s: f64::NAN,
            weights_us: 0.0,
            block_size: 0,
            max_num_seqs: 9_000,
            ..SimSpec::default()
        };
        let problems = spec.problems().join("\n");
        for name in [
            "disk_read_gb_per_s",
            "weights_us",
            "block_size",
            "max_num_seqs",
        ] {
            assert!(problems.contains(name), "{name} is missing in: {problems}");
        }
    }
}
