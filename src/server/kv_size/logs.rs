//! KV bytes per token as the servers log it.

use super::{Source, Statement};
use crate::units::Bounds;

const GIB: f64 = (1_u64 << 30) as f64;

/// What the engine's start log states: `Available KV cache memory: 25.61 GiB` divided by
/// `GPU KV cache size: 209,776 tokens` (vLLM from 0.24; `CPU KV cache size` and
/// `Explicitly set (1.0/20.34) GiB for KV cache` of its CPU build).
///
/// With tensor or pipeline parallelism each rank logs its own memory, and the tokens are those
/// that fit on every rank; the ranks' memories add up. With `--num-gpu-blocks-override` the tokens are
/// those of the blocks that were asked for, and `Overriding num_gpu_blocks=27543 with
/// num_gpu_blocks_override=8192` states how many would have fitted into the memory.
pub(crate) fn engine(log: &str) -> Option<Statement> {
    let Start {
        memory_gib,
        roundings,
        tokens,
        blocks,
    } = Start::last_of(log);
    let tokens = tokens.filter(|tokens| *tokens > 0.0)?;
    if memory_gib <= 0.0 {
        return None;
    }
    let tokens = match blocks {
        Some(Overridden { fitting, used }) => tokens / used * fitting,
        None => tokens,
    };
    // The tokens are what fits into whole blocks: one more block of 16 might almost have fitted.
    let low = (memory_gib - roundings) * GIB / (tokens + BLOCK_TOKENS);
    let high = (memory_gib + roundings) * GIB / tokens;
    let bytes = Bounds { low, high };
    Some(Statement {
        source: Source::EngineLog,
        device: Some(bytes),
        stored: Some(bytes),
    })
}

/// Tokens of KV that the engine has room for, by the last start in its log; of several ranks the least.
pub(crate) fn engine_tokens(log: &str) -> Option<f64> {
    Start::last_of(log).tokens.filter(|tokens| *tokens > 0.0)
}

/// What one start of the engine logs of its room for KV.
#[derive(Clone, Copy, Debug, Default)]
struct Start {
    /// Memory of all ranks.
    memory_gib: f64,
    /// By so much it may have been rounded.
    roundings: f64,
    /// The least of any rank.
    tokens: Option<f64>,
    /// The blocks, where the plan says how many.
    blocks: Option<Overridden>,
}

/// Blocks of KV of an engine that was told how many to use.
#[derive(Clone, Copy, Debug)]
struct Overridden {
    /// As many fit into the memory.
    fitting: f64,
    /// As many are used.
    used: f64,
}

impl Overridden {
    fn of(line: &str) -> Option<Self> {
        let fitting = number_after(line, "Overriding num_gpu_blocks=")?;
        let used = number_after(line, "num_gpu_blocks_override=")?;
        (fitting > 0.0 && used > 0.0).then_some(Self { fitting, used })
    }
}

impl Start {
    /// The last start in `log`: a server that is started again writes on in the same file.
    fn last_of(log: &str) -> Self {
        let mut start = Self::default();
        for line in log.lines() {
            if let Some((gib, rounding)) = memory(line) {
                // The ranks log their memory before the engine logs the tokens: this is another start.
                if start.tokens.is_some() {
                    start = Self::default();
                }
                start.memory_gib += gib;
                start.roundings += rounding;
            } else if let Some(blocks) = Overridden::of(line) {
                start.blocks = Some(blocks);
            } else if let Some(size) = kv_tokens(line) {
                start.tokens = Some(start.tokens.map_or(size, |least| least.min(size)));
            }
        }
        start
    }
}

fn kv_tokens(line: &str) -> Option<f64> {
    let gpu = number_after(line, "GPU KV cache size: ");
    gpu.or_else(|| number_after(line, "CPU KV cache size: "))
}

/// Tokens of vLLM's default block.
const BLOCK_TOKENS: f64 = 16.0;

/// KV memory in GiB that `line` states, and half of its last digit.
fn memory(line: &str) -> Option<(f64, f64)> {
    let text = if let Some((_, rest)) = line.split_once("Available KV cache memory: ") {
        rest.split_once(" GiB")?.0
    } else {
        // The part before the slash is what was set.
        let (_, rest) = line.split_once("Explicitly set (")?;
        let (set, rest) = rest.split_once('/')?;
        rest.split_once(") GiB for KV cache")?;
        set
    };
    let gib: f64 = text.trim().parse().ok().filter(|gib: &f64| *gib > 0.0)?;
    Some((gib, half_of_last_digit(text)))
}

/// What LMCache logs of its stores and loads in vLLM's own process:
/// `Stored 8192 out of total 8192 tokens. size: 1.0000 GB` and
/// `Retrieved 512 out of 512 required tokens (from 544 total tokens). size: 0.0625 gb` (its GB are
/// GiB). The line of the most tokens is the most exact.
pub(crate) fn lmcache(log: &str) -> Option<Statement> {
    let lines = log.lines().filter_map(sized);
    let (tokens, gib, rounding) = lines.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let bytes = Bounds::within(gib * GIB / tokens, rounding * GIB / tokens);
    Some(Statement {
        source: Source::LmcacheLog,
        device: None,
        stored: Some(bytes),
    })
}

/// Tokens and GiB of a line, and half of the last digit.
fn sized(line: &str) -> Option<(f64, f64, f64)> {
    let moved = number_after(line, "Stored ").or_else(|| number_after(line, "Retrieved "));
    let tokens = moved?;
    let (_, rest) = line.split_once(" size: ")?;
    let text = rest.split(' ').next()?;
    let gib: f64 = text.parse().ok()?;
    (tokens > 0.0 && gib > 0.0).then_some((tokens, gib, half_of_last_digit(text)))
}

/// The whole number, thousands separators allowed, behind `before` in `line`.
fn number_after(line: &str, before: &str) -> Option<f64> {
    let (_, rest) = line.split_once(before)?;
    let digits: String = rest
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ',')
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

/// `0.005` for `25.61`: by so much a number may have been rounded.
fn half_of_last_digit(text: &str) -> f64 {
    let decimals = text.split_once('.').map_or(0, |(_, digits)| digits.len());
    0.5 * 0.1_f64.powi(i32::try_from(decimals).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_with_a_restart_has_the_size_of_one_start() {
        let start = "Explicitly set (2.0/23.54) GiB for KV cache on node 0.\n\
                     CPU KV cache size: 524,288 tokens\n";
        let twice = [start, "Stored 256 tokens\n", start].concat();
        assert_eq!(engine(&twice), engine(start));
        let ranks = "Available KV cache memory: 10.00 GiB\nAvailable KV cache memory: 10.00 GiB\n\
                     GPU KV cache size: 81,920 tokens\n";
        assert_eq!(engine(&[ranks, ranks].concat()), engine(ranks));
    }

    #[test]
    fn a_start_with_other_memory_replaces_the_one_before_it() {
        let start = |gib: &str, tokens: &str| {
            format!(
                "Available KV cache memory: {gib} GiB\nAvailable KV cache memory: {gib} GiB\n\
                 GPU KV cache size: {tokens} tokens\nGPU KV cache size: {tokens} tokens\n"
            )
        };
        let (small, large) = (start("5.00", "40,960"), start("10.00", "81,920"));
        for (first, last, tokens) in [(&small, &large, 81_920.0), (&large, &small, 40_960.0)] {
            let log = format!("{first}{last}");
            assert_eq!(engine_tokens(&log), Some(tokens));
            assert_eq!(engine(&log), engine(last));
        }
        let ranks = "GPU KV cache size: 81,920 tokens\nGPU KV cache size: 81,904 tokens\n";
        assert_eq!(engine_tokens(ranks), Some(81_904.0));
        assert_eq!(engine_tokens("nothing"), None);
    }

    #[test]
    fn the_engine_states_memory_and_tokens() {
        let log = "(EngineCore pid=1226) INFO 11-29 04:39:48 [gpu_worker.py:560] Available KV cache memory: 25.61 GiB\n\
                   (EngineCore pid=1226) INFO 11-29 04:39:48 [kv_cache_utils.py:1] GPU KV cache size: 209,776 tokens\n";
        let bytes = engine(log).unwrap().device.unwrap();
        assert!(bytes.low < 131_072.0 && 131_072.0 < bytes.high, "{bytes:?}");
        assert!((bytes.high - bytes.low) / bytes.low < 0.001, "{bytes:?}");
    }

    #[test]
    fn the_memory_is_that_of_the_blocks_that_fit_and_not_of_those_that_are_used() {
        let start = |gib: f64, fitting: u64, used: u64| {
            format!(
                "(EngineCore pid=7) INFO 11-30 22:40:54 [gpu_worker.py:560] Available KV cache memory: {gib} GiB\n\
                 (EngineCore pid=7) INFO 11-30 22:40:54 [kv_cache_utils.py:2115] Overriding num_gpu_blocks={fitting} \
                 with num_gpu_blocks_override={used}\n\
                 (EngineCore pid=7) INFO 11-30 22:40:54 [kv_cache_utils.py:2177] GPU KV cache size: {} tokens\n",
                crate::units::grouped(16 * used)
            )
        };
        // As vLLM 0.26 logged it on an H200, and more blocks than fit.
        for (gib, fitting, used) in [
            (53.8, 27_543, 8192),
            (53.41, 27_343, 8192),
            (1.0, 512, 1024),
        ] {
            let log = start(gib, fitting, used);
            let bytes = engine(&log).unwrap().device.unwrap();
            assert!(bytes.low < 131_072.0 && 131_072.0 < bytes.high, "{bytes:?}");
            assert_eq!(engine_tokens(&log), Some(16.0 * used as f64));
            // The next start was not told how many.
            let free = "Available KV cache memory: 25.61 GiB\nGPU KV cache size: 209,776 tokens\n";
            assert_eq!(engine(&format!("{log}{free}")), engine(free));
        }
    }

    #[test]
    fn the_cpu_build_states_it_in_one_line_each() {
        let log = "(Worker pid=1) INFO [cpu_worker.py:260] Explicitly set (1.0/20.34) GiB for KV cache on node 0.\n\
                   (EngineCore pid=2) INFO [kv_cache_utils.py:2327] CPU KV cache size: 524,288 tokens, Maximum concurrency for 8,192 tokens per request: 64.00x\n";
        let bytes = engine(log).unwrap().device.unwrap();
        assert!(bytes.low < 2_048.0 && 2_048.0 < bytes.high, "{bytes:?}");
    }

    #[test]
    fn the_memories_of_ranks_add_up() {
        let rank = |rank: u32| {
            format!("(Worker_TP{rank} pid=1) INFO [x] Available KV cache memory: 10.00 GiB\n")
        };
        let log = format!("{}{}GPU KV cache size: 163,840 tokens\n", rank(0), rank(1));
        let bytes = engine(&log).unwrap().device.unwrap();
        assert!(bytes.low < 131_072.0 && 131_072.0 < bytes.high, "{bytes:?}");
    }

    #[test]
    fn what_is_not_logged_is_unknown() {
        for log in [
            "",
            "GPU KV cache size: 209,776 tokens",
            "Available KV cache memory: 25.61 GiB",
            "GPU KV cache usage: 3.3%",
            "Available KV cache memory: -1.0 GiB\nGPU KV cache size: 16 tokens",
            "Available KV cache memory: 25.61 GiB\nGPU KV cache size: 0 tokens",
        ] {
            assert_eq!(engine(log), None, "{log}");
        }
        let loaded = "Retrieved 16384 out of 16384 required tokens (from 16416 total tokens). size: 2.0000 gb, cost 24 ms";
        let bytes = lmcache(loaded).unwrap().stored.unwrap();
        assert!((bytes.middle() - 131_072.0).abs() < 1.0, "{bytes:?}");
        assert_eq!(lmcache("Stored 8192 tokens in 0.287 seconds"), None);
        assert_eq!(
            lmcache("Stored 0 out of total 0 tokens. size: 0.0000 GB"),
            None
        );
    }

    #[test]
    fn the_longest_store_is_the_most_exact() {
        let log = "LMCache INFO: [req_id=a] Stored 256 out of total 256 tokens. size: 0.0312 GB, cost 1 ms\n\
                   LMCache INFO: [req_id=b] Stored 8,192 out of total 8192 tokens. size: 1.0000 gb, cost 35 ms\n";
        let statement = lmcache(log).unwrap();
        let bytes = statement.stored.unwrap();
        assert!((bytes.middle() - 131_072.0).abs() < 1.0, "{bytes:?}");
        assert!(bytes.high - bytes.low < 20.0, "{bytes:?}");
        assert_eq!(statement.device, None);
    }
}
