//! The one table of failures: which line of a log means which failure, who writes it, and what
//! helps.
//!
//! Some failures show in no counter: a put that timed out, a lookup that gave up, a store without
//! memory. The wording is that of LMCache 0.4.5 to 0.5.6 and vLLM 0.24 to 0.33.

#[cfg(test)]
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::plan::tier::TierKind;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Failure {
    /// LMCache runs without its engine, or skips its work.
    Degraded,
    /// The memory through which stores go was full.
    BufferFull,
    /// A store did not reach the second layer.
    StoreFailed,
    /// LMCache's server did not answer, and what it should store or load was skipped.
    ServerLost,
    /// A lookup timed out and was counted as a miss.
    LookupTimedOut,
    /// KV that a lookup had found was not loaded.
    LoadFailed,
    /// A put to or a get from the remote store failed.
    RemoteFailed,
    /// A read or a write of the tier's files failed.
    FileFailed,
}

impl Failure {
    /// All of them, the more telling first.
    pub(crate) const ALL: [Self; 8] = [
        Self::Degraded,
        Self::BufferFull,
        Self::StoreFailed,
        Self::ServerLost,
        Self::LookupTimedOut,
        Self::LoadFailed,
        Self::RemoteFailed,
        Self::FileFailed,
    ];

    /// What happened, after a number: `2 stores were cut short for want of memory`.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Degraded => "reports that LMCache runs in degraded mode",
            Self::BufferFull => "stores were cut short for want of memory",
            Self::StoreFailed => "stores did not reach the tier's second layer",
            Self::ServerLost => {
                "stores or loads were skipped, for the LMCache server did not answer"
            }
            Self::LookupTimedOut => "lookups of the tier timed out and were counted as misses",
            Self::LoadFailed => "loads failed of KV that a lookup had found",
            Self::RemoteFailed => "puts or gets of the remote store failed",
            Self::FileFailed => "reads or writes of the tier's files failed",
        }
    }

    /// Whether it can keep KV from being stored while the tier is filled.
    pub(crate) fn hits_stores(self) -> bool {
        !matches!(self, Self::LookupTimedOut | Self::LoadFailed)
    }

    /// Whether it can keep stored KV from being loaded.
    pub(crate) fn hits_loads(self) -> bool {
        !matches!(self, Self::BufferFull | Self::StoreFailed)
    }

    /// Why a tier of `kind` served too little, with what helps; `ram_gib` is its memory.
    pub(crate) fn cause(self, kind: TierKind, ram_gib: Option<f64>) -> String {
        match self {
            Self::Degraded => "LMCache runs in degraded mode (see its log)".to_owned(),
            Self::BufferFull => {
                let buffer = match kind {
                    TierKind::Cpu => "the tier's RAM",
                    tier if tier.is_vllms_own() => "vLLM's RAM for offloading",
                    _ => "the write buffer",
                };
                let size = ram_gib.map_or(String::new(), |gib| format!(" of {gib} GiB"));
                format!("{buffer}{size} was full (raise `max_local_cpu_size`)")
            }
            Self::StoreFailed => {
                "the second layer refused stores (see LMCache's log; is there room?)".to_owned()
            }
            Self::ServerLost => {
                "the LMCache server did not answer in time (see its log; lower `concurrency`)"
                    .to_owned()
            }
            Self::LookupTimedOut => {
                "lookups timed out (raise `lookup_timeout_ms`; is the store behind slow?)"
                    .to_owned()
            }
            Self::LoadFailed => {
                "KV that a lookup had found was gone or unreadable at the load (see LMCache's log; \
                 raise `max_local_cpu_size`)"
                    .to_owned()
            }
            Self::RemoteFailed => {
                "the remote store failed (see LMCache's log and the store's own)".to_owned()
            }
            Self::FileFailed => {
                "the tier's files failed (is `paths.scratch` full, does it know O_DIRECT?)"
                    .to_owned()
            }
        }
    }
}

/// Who writes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// LMCache, wherever it runs.
    Lmcache,
    /// LMCache's server alone. In the engine's process the same words end well: there LMCache
    /// evicts and tries again.
    Server,
    /// vLLM itself.
    Engine,
}

impl Writer {
    #[cfg(test)]
    fn name(self) -> &'static str {
        match self {
            Self::Lmcache => "LMCache",
            Self::Server => "LMCache's server",
            Self::Engine => "vLLM",
        }
    }
}

/// A line that means a failure: its words, of which `*` stands for any others.
pub(super) struct Line {
    pub(super) words: &'static str,
    pub(super) writer: Writer,
    pub(super) failure: Failure,
}

const fn line(words: &'static str, writer: Writer, failure: Failure) -> Line {
    Line {
        words,
        writer,
        failure,
    }
}

const fn lmcache(words: &'static str, failure: Failure) -> Line {
    line(words, Writer::Lmcache, failure)
}

pub(super) const LINES: [Line; 34] = [
    lmcache("will operate in degraded mode", Failure::Degraded),
    lmcache(
        "Failed to initialize LMCacheManager components",
        Failure::Degraded,
    ),
    lmcache("LMCache is unhealthy", Failure::Degraded),
    lmcache("Local cpu memory under pressure so", Failure::BufferFull),
    lmcache(
        "No eviction candidates found in local cpu backend",
        Failure::BufferFull,
    ),
    line(
        "Failed to allocate memory block",
        Writer::Server,
        Failure::BufferFull,
    ),
    lmcache("Failed to allocate memory for", Failure::BufferFull),
    lmcache("Failed to allocate memory during", Failure::BufferFull),
    lmcache("Pinned host allocation failed", Failure::BufferFull),
    lmcache("Memory allocation failed", Failure::BufferFull),
    line(
        "Failed to batched allocate",
        Writer::Server,
        Failure::BufferFull,
    ),
    lmcache("Store task * failed for keys", Failure::StoreFailed),
    lmcache("FSL2Adapter failed to store", Failure::StoreFailed),
    lmcache("FSL2Adapter store task * failed", Failure::StoreFailed),
    lmcache("Dropping store for request", Failure::StoreFailed),
    lmcache("LMCache server is unhealthy", Failure::ServerLost),
    lmcache("LOOKUP to * timed out", Failure::LookupTimedOut),
    lmcache("QUERY_PREFETCH_STATUS * timed out", Failure::LookupTimedOut),
    lmcache("Timeout occurred for rank", Failure::LookupTimedOut),
    lmcache("batched_async_contains timed out", Failure::LookupTimedOut),
    lmcache("Some keys not found during retrieve", Failure::LoadFailed),
    lmcache("Failed to read prefetched object", Failure::LoadFailed),
    lmcache(
        "L1 reservations failed with out-of-memory",
        Failure::LoadFailed,
    ),
    lmcache("FSL2Adapter failed to load", Failure::LoadFailed),
    lmcache("Bypassing LMCache for request", Failure::LoadFailed),
    lmcache(
        "The number of retrieved tokens is less than the expected number",
        Failure::LoadFailed,
    ),
    line("KV load failure", Writer::Engine, Failure::LoadFailed),
    lmcache("batched put error", Failure::RemoteFailed),
    lmcache("batched get error", Failure::RemoteFailed),
    lmcache("get blocking timeout", Failure::RemoteFailed),
    lmcache("batched_get_non_blocking timed out", Failure::RemoteFailed),
    lmcache("Failed to O_DIRECT", Failure::FileFailed),
    lmcache("File not found on disk", Failure::FileFailed),
    line("block I/O failed", Writer::Engine, Failure::FileFailed),
];

impl Line {
    /// Whether `message` has the words, in this order.
    pub(super) fn is_in(&self, message: &str) -> bool {
        let mut rest = message;
        self.words.split(" * ").all(|part| {
            let found = rest.split_once(part);
            rest = found.map_or("", |(_, after)| after);
            found.is_some()
        })
    }
}

/// The table as Markdown: a row a line.
#[cfg(test)]
pub(super) fn failures_markdown() -> String {
    let mut text = String::from(
        "| words in a log | written by | what it means | as the cause of a shortfall |\n\
         |:--|:--|:--|:--|\n",
    );
    for one in &LINES {
        let (who, what) = (one.writer.name(), one.failure.what());
        let cause = one.failure.cause(TierKind::Disk, None);
        let _ = writeln!(text, "| `{}` | {who} | {what} | {cause} |", one.words);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::log_counts::LogCounts;

    /// Lines as they were captured, or by the format string where no capture has one.
    const WRITTEN: &[(&str, Failure)] = &[
        // Captured: LMCache 0.5.6, multi-process, an H200.
        (
            "[2026-11-29 04:09:37,888] LMCache WARNING: Failed to batched allocate 32 memory blocks \
             of size 33554432 because no enough memory is available (short by 32 blocks) \
             (memory_management.py:1540:lmcache.v1.memory_management)",
            Failure::BufferFull,
        ),
        // Captured: LMCache 0.5.6, in-process, without a GPU.
        (
            "[2026-11-24 03:55:32,910] LMCache ERROR: Failed to initialize LMCacheManager \
             components: Traceback (most recent call last):",
            Failure::Degraded,
        ),
        (
            "(EngineCore pid=25857) [2026-11-24 03:56:02,101] LMCache ERROR: Timeout occurred for \
             rank 0, recreating all sockets. Error: Resource temporarily unavailable \
             (zmq_transport.py:121:lmcache.v1.rpc.zmq_transport)",
            Failure::LookupTimedOut,
        ),
        // By their format strings.
        (
            "[x] LMCache ERROR: x. System will operate in degraded mode (recompute).",
            Failure::Degraded,
        ),
        (
            "(EngineCore pid=1) [x] LMCache WARNING: LMCache is unhealthy, skipping store operation",
            Failure::Degraded,
        ),
        (
            "(EngineCore pid=1) [x] LMCache WARNING: Local cpu memory under pressure so choosing to \
             store only  3 total chunks of KV cache.",
            Failure::BufferFull,
        ),
        (
            "(EngineCore pid=1) [x] LMCache WARNING: No eviction candidates found in local cpu \
             backend. Local cpu memory is under pressure. Waiting for 0.1 seconds before retrying.",
            Failure::BufferFull,
        ),
        (
            "[x] LMCache WARNING: Failed to allocate memory block of size 33554432 because no memory \
             is available",
            Failure::BufferFull,
        ),
        (
            "[x] LMCache ERROR: Failed to allocate memory for key k",
            Failure::BufferFull,
        ),
        (
            "(EngineCore pid=1) [x] LMCache WARNING: Failed to allocate memory during remote receive",
            Failure::BufferFull,
        ),
        (
            "[x] LMCache WARNING: Pinned host allocation failed",
            Failure::BufferFull,
        ),
        (
            "[x] LMCache WARNING: Memory allocation failed during fetch",
            Failure::BufferFull,
        ),
        (
            "[x] LMCache WARNING: Store task 7 to adapter 0 failed for keys: [k]",
            Failure::StoreFailed,
        ),
        (
            "[x] LMCache ERROR: FSL2Adapter failed to store /kv/a.data",
            Failure::StoreFailed,
        ),
        (
            "[x] LMCache ERROR: FSL2Adapter store task 7 failed",
            Failure::StoreFailed,
        ),
        (
            "(EngineCore pid=1) [x] LMCache WARNING: Dropping store for request cmpl-1 while the \
             server is unhealthy; reporting it as completed so its blocks are unpinned",
            Failure::StoreFailed,
        ),
        (
            "(EngineCore pid=1) [x] LMCache WARNING: LMCache server is unhealthy — entering \
             degraded mode",
            Failure::ServerLost,
        ),
        (
            "(EngineCore pid=1) [x] LMCache WARNING: LOOKUP to tcp://127.0.0.1:5555 timed out after \
             300.0s. Marking server as unhealthy.",
            Failure::LookupTimedOut,
        ),
        (
            "(EngineCore pid=1) [x] LMCache WARNING: QUERY_PREFETCH_STATUS to tcp://127.0.0.1:5555 \
             timed out. Marking unhealthy.",
            Failure::LookupTimedOut,
        ),
        (
            "[x] LMCache ERROR: batched_async_contains timed out",
            Failure::LookupTimedOut,
        ),
        (
            "[x] LMCache ERROR: Some keys not found during retrieve!",
            Failure::LoadFailed,
        ),
        (
            "[x] LMCache ERROR: Failed to read prefetched object k from L1 storage: gone",
            Failure::LoadFailed,
        ),
        (
            "[x] LMCache WARNING: prefetch: 12 L1 reservations failed with out-of-memory; L1 may be \
             under memory pressure",
            Failure::LoadFailed,
        ),
        (
            "[x] LMCache ERROR: FSL2Adapter failed to load /kv/a.data",
            Failure::LoadFailed,
        ),
        (
            "WARNING 11-29 04:09:37 [lmcache_mp_connector.py:1281] Bypassing LMCache for request \
             cmpl-1 after a failed async KV load; the prompt will be recomputed locally.",
            Failure::LoadFailed,
        ),
        (
            "(EngineCore pid=1) [x] LMCache ERROR: Request cmpl-1The number of retrieved tokens is \
             less than the expected number of tokens! This should not happen!",
            Failure::LoadFailed,
        ),
        (
            "(EngineCore pid=1) ERROR 11-29 04:09:37 [scheduler.py:2192] Failing 1 request(s) due to \
             KV load failure (failure_policy=fail, 21376 tokens affected). Request IDs: {'a'}",
            Failure::LoadFailed,
        ),
        (
            "(EngineCore pid=1) WARNING 11-29 04:09:37 [scheduler.py:2201] Recovered from KV load \
             failure: 1 request(s) rescheduled (1024 tokens affected).",
            Failure::LoadFailed,
        ),
        (
            "(EngineCore pid=1) [x] LMCache WARNING: batched put error: Timeout writing to socket",
            Failure::RemoteFailed,
        ),
        (
            "[x] LMCache WARNING: batched get error: Timeout reading from socket",
            Failure::RemoteFailed,
        ),
        (
            "[x] LMCache WARNING: get blocking timeout, trigger cancel and return None",
            Failure::RemoteFailed,
        ),
        (
            "[x] LMCache WARNING: batched_get_non_blocking timed out",
            Failure::RemoteFailed,
        ),
        (
            "[x] LMCache ERROR: Failed to O_DIRECT write /kv/a.pt",
            Failure::FileFailed,
        ),
        (
            "(EngineCore pid=1) ERROR 11-30 12:09:37 [thread_pool.py:169] Job 3 block I/O failed: \
             [Errno 28] No space left on device",
            Failure::FileFailed,
        ),
        (
            "[x] LMCache WARNING: File not found on disk: /kv/a.pt",
            Failure::FileFailed,
        ),
    ];

    #[test]
    fn each_line_is_counted_as_its_failure_and_no_row_of_the_table_is_idle() {
        for (text, failure) in WRITTEN {
            let counts = LogCounts::of(text);
            assert_eq!(counts.failures, [(*failure, 1)].into(), "{text}");
        }
        for one in &LINES {
            assert!(
                WRITTEN.iter().any(|(text, _)| one.is_in(text)),
                "no line for `{}`",
                one.words
            );
        }
    }

    #[test]
    fn words_of_a_line_count_together_and_in_their_order() {
        for text in [
            "Store task 7 to adapter 0 is done",
            "it failed for keys: [k]",
            "failed for keys: [k] of Store task 7",
        ] {
            let counts = LogCounts::of(&format!("[x] LMCache WARNING: {text}"));
            assert!(counts.failures.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_full_pool_in_the_engines_process_is_no_failure() {
        let line = "LMCache WARNING: Failed to batched allocate 32 memory blocks of size 33554432";
        let in_process = LogCounts::of(&format!("(EngineCore pid=1) [x] {line}"));
        assert!(in_process.failures.is_empty(), "it evicts and tries again");
        let server = LogCounts::of(&format!("[x] {line}"));
        assert_eq!(server.count(Failure::BufferFull), 1);
    }

    #[test]
    fn words_of_vllm_count_only_from_vllm_and_as_failures_only() {
        for line in [
            "INFO 11-29 04:09:37 [logger.py:39] Received request c: prompt: 'KV load failure'",
            "[x] LMCache WARNING: KV load failure",
            "WARNING 11-29 04:09:37 [scheduler.py:2201] LMCache is unhealthy",
        ] {
            assert!(LogCounts::of(line).failures.is_empty(), "{line}");
        }
    }

    #[test]
    fn a_cause_names_the_buffer_of_its_tier_and_what_helps() {
        let cause = |kind, gib| Failure::BufferFull.cause(kind, gib);
        assert_eq!(
            cause(TierKind::Disk, Some(10.0)),
            "the write buffer of 10 GiB was full (raise `max_local_cpu_size`)"
        );
        assert!(cause(TierKind::Cpu, None).starts_with("the tier's RAM was full"));
        assert!(
            cause(TierKind::Native, Some(2.5)).contains("vLLM's RAM for offloading of 2.5 GiB")
        );
        for failure in Failure::ALL {
            let cause = failure.cause(TierKind::Redis, None);
            assert!(cause.ends_with(')'), "{cause} has no advice");
        }
    }

    #[test]
    fn the_table_in_the_docs_is_this_table() {
        let docs = include_str!("../../docs/verdicts.md");
        assert!(
            docs.contains(&failures_markdown()),
            "docs/verdicts.md must have:\n{}",
            failures_markdown()
        );
    }
}
