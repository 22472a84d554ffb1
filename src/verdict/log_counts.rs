//! The lines that LMCache and vLLM wrote to the servers' logs during a pass, counted.
//!
//! [`super::failures`] has the table of those that mean a failure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::failures::{Failure, LINES, Writer};
use crate::foreign::without_colours;

/// LMCache's lines of one pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LogCounts {
    /// "Stored" lines, their tokens and their time.
    pub stored: Moved,
    /// "Retrieved" lines, their tokens and their time.
    pub retrieved: Moved,
    /// Lines that mean a failure, by what they mean.
    pub failures: BTreeMap<Failure, u64>,
    /// It started without its engine, or reported itself unhealthy.
    pub degraded: bool,
    /// Keys of its configuration that it did not know, and ignored.
    pub unknown_keys: Vec<String>,
    /// The value in `Using O_DIRECT for disk I/O`, where it wrote that line.
    pub direct_io: Option<bool>,
    /// Its compiled operations did not load, as happens to a build for another torch, and torch's stand in
    /// for them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_compiled_ops: bool,
}

/// Lines of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moved {
    /// How many.
    pub lines: u64,
    /// Tokens in them.
    pub tokens: f64,
    /// Time in them, ms.
    pub cost_ms: f64,
}

impl LogCounts {
    /// Counts the lines of `text` that LMCache wrote, and vLLM's failures: a server may echo its
    /// requests beside them.
    pub(crate) fn of(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines() {
            let line = without_colours(line);
            if let Some(message) = Message::of(&line) {
                counts.add(message);
            }
        }
        counts
    }

    /// How many lines mean `failure`.
    pub(crate) fn count(&self, failure: Failure) -> u64 {
        self.failures.get(&failure).copied().unwrap_or(0)
    }

    /// Whether it shows that LMCache logs what it stores and loads. Where it does not, what is not
    /// in the log is unknown: its level may leave these lines out.
    pub(crate) fn reports_tokens(&self) -> bool {
        self.stored.lines + self.retrieved.lines > 0
    }

    /// What the log of the server's `start` says of every pass.
    pub(crate) fn inherit(&mut self, start: &Self) {
        self.degraded |= start.degraded;
        self.without_compiled_ops |= start.without_compiled_ops;
    }

    fn add(&mut self, message: Message<'_>) {
        let line = message.text;
        let failed = LINES
            .iter()
            .find(|known| message.is_by(known.writer) && known.is_in(line));
        if let Some(known) = failed {
            *self.failures.entry(known.failure).or_default() += 1;
            self.degraded |= known.failure == Failure::Degraded;
        }
        if message.by == By::Engine {
            return;
        }
        if let Some((_, rest)) = line.split_once("Unknown configuration key: ") {
            let key = rest.split_whitespace().next().unwrap_or_default();
            self.unknown_keys.push(key.to_owned());
        }
        if let Some((_, rest)) = line.split_once("Using O_DIRECT for disk I/O: ") {
            self.direct_io = Some(rest.starts_with("True"));
        }
        self.without_compiled_ops |= line.contains("compiled extension not found");
        self.stored.add(line, "Stored ");
        self.retrieved.add(line, "Retrieved ");
    }
}

/// The levels of Python's logging.
const LEVELS: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// LMCache in a process of vLLM's.
    Adapter,
    /// LMCache in a process of its own, as far as the line shows.
    Server,
    /// vLLM, of a failure.
    Engine,
}

/// The message of a line.
#[derive(Clone, Copy, Debug)]
struct Message<'l> {
    text: &'l str,
    by: By,
}

impl<'l> Message<'l> {
    /// The message of a line that LMCache wrote: `[time] LMCache INFO: message`, or by vLLM's logger
    /// from a file of LMCache's connector, `INFO 11-24 10:00:00 [lmcache_mp_connector.py:12] message`;
    /// from another file only a failure of vLLM's. vLLM writes the process before it,
    /// `(EngineCore pid=1) `.
    fn of(line: &'l str) -> Option<Self> {
        let mut line = line.trim_start();
        let mut by = By::Server;
        while let Some(process) = line.strip_prefix('(') {
            line = process.split_once(')')?.1.trim_start();
            by = By::Adapter;
        }
        let (level, text) = if let Some(stamped) = line.strip_prefix('[') {
            let (_, rest) = stamped.split_once("] ")?;
            rest.strip_prefix("LMCache ")?.split_once(':')?
        } else {
            let (level, rest) = line.split_once(' ')?;
            let (time, rest) = rest.split_once('[')?;
            let (source, text) = rest.split_once("] ")?;
            let is_time = time
                .chars()
                .all(|c| c.is_ascii_digit() || "-: ".contains(c));
            by = if source.contains("lmcache") {
                By::Adapter
            } else {
                By::Engine
            };
            let is_failure = ["WARNING", "ERROR", "CRITICAL"].contains(&level);
            if !is_time || (by == By::Engine && !is_failure) {
                return None;
            }
            (level, text)
        };
        LEVELS.contains(&level).then_some(Self { text, by })
    }

    fn is_by(self, writer: Writer) -> bool {
        match self.by {
            By::Adapter => writer == Writer::Lmcache,
            By::Server => matches!(writer, Writer::Lmcache | Writer::Server),
            By::Engine => writer == Writer::Engine,
        }
    }
}

/// A count as it may be written: `3072`, `3,072` or `3_072`.
fn count(text: &str) -> Option<f64> {
    let word = text.split_whitespace().next()?;
    let digits = word.replace([',', '_'], "");
    digits
        .parse()
        .ok()
        .filter(|count: &f64| count.is_finite() && *count >= 0.0)
}

impl Moved {
    /// `... Stored 1024 out of total 1024 tokens. ... cost 5.6 ms` in-process,
    /// `Stored 1024 tokens in 0.006 seconds` in multi-process mode.
    fn add(&mut self, line: &str, verb: &str) {
        let Some((_, rest)) = line.split_once(verb) else {
            return;
        };
        let Some(tokens) = count(rest).filter(|_| rest.contains("tokens")) else {
            return;
        };
        self.lines += 1;
        self.tokens += tokens;
        let ms = rest.split_once(" cost ").and_then(|(_, cost)| count(cost));
        let seconds = || {
            let (_, time) = rest.split_once(" tokens in ")?;
            Some(count(time)? * 1e3)
        };
        self.cost_ms += ms.or_else(seconds).unwrap_or(0.0);
    }
}

/// The entry point of a fuzzer: any log, whose counts are numbers.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let counts = LogCounts::of(&String::from_utf8_lossy(data));
    for moved in [counts.stored, counts.retrieved] {
        assert!(moved.tokens >= 0.0 && moved.cost_ms >= 0.0);
        assert!(moved.lines > 0 || moved.tokens == 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_modes_are_counted() {
        let counts = LogCounts::of(
            "(EngineCore pid=1) \u{1b}[32m[x] LMCache INFO:\u{1b}[0m [req_id=a] Stored 1024 out of \
             total 1024 tokens. size: 0.1250 GB, cost 5.6131 ms, throughput: 22.2 GB/s; \
             offload_time: 4.4 ms, put_time: 1.0 ms (cache_engine.py:561)\n\
             [x] LMCache INFO: [req_id=b] Retrieved 512 out of 512 required tokens (from 512 total \
             tokens). size: 0.1 gb, cost 151.5 ms, throughput: 0.8 GB/s; (cache_engine.py)\n\
             [x] LMCache INFO: Retrieved 1024 tokens in 0.006 seconds (engine_driven.py:514)\n",
        );
        assert_eq!((counts.stored.lines, counts.stored.tokens), (1, 1024.0));
        assert!((counts.stored.cost_ms - 5.6131).abs() < 1e-9);
        assert_eq!(
            (counts.retrieved.lines, counts.retrieved.tokens),
            (2, 1536.0)
        );
        assert!((counts.retrieved.cost_ms - 157.5).abs() < 1e-9);
        assert!(!counts.degraded && counts.unknown_keys.is_empty());
    }

    /// A line of LMCache 0.5.6 with vLLM 0.33 on an H200.
    #[test]
    fn operations_that_did_not_load_are_known_from_the_start_on() {
        let start = LogCounts::of(
            "[2026-12-01 11:19:13,489] LMCache WARNING: lmcache.cuda_ops compiled extension not found; \
             CudaDeviceOps stays on the torch baseline for all ops. (device_ops.py:128:lmcache.v1)\n",
        );
        assert!(start.without_compiled_ops);
        let mut pass = LogCounts::of("[x] LMCache INFO: Retrieved 1024 tokens in 0.006 seconds\n");
        assert!(!pass.without_compiled_ops);
        pass.inherit(&start);
        assert!(pass.without_compiled_ops && !pass.degraded);
    }

    #[test]
    fn what_went_wrong_is_counted_by_kind() {
        let counts = LogCounts::of(
            "[x] LMCache ERROR: Failed to initialize LMCacheManager components: x. System will operate \
             in degraded mode (recompute).\n\
             [x] LMCache WARNING: Unknown configuration key: chunk_sise (source: file: /a.yaml)\n\
             (Worker pid=7) [x] LMCache ERROR: Timeout occurred for rank 0, recreating all sockets\n\
             [x] LMCache WARNING: batched put error: Timeout writing to socket\n\
             [x] LMCache WARNING: Local cpu memory under pressure so choosing to store only  3 total \
             chunks\n\
             [x] LMCache INFO: Using O_DIRECT for disk I/O: False (local_disk_backend.py:151)\n\
             [x] LMCache WARNING: LMCache is unhealthy, skipping store operation\n",
        );
        assert!(counts.degraded, "however often it says so");
        assert_eq!(counts.unknown_keys, ["chunk_sise"]);
        let failures = [
            Failure::Degraded,
            Failure::BufferFull,
            Failure::LookupTimedOut,
            Failure::RemoteFailed,
        ];
        let expected = failures.into_iter().zip([2, 1, 1, 1]);
        assert_eq!(counts.failures, expected.collect());
        assert_eq!(counts.direct_io, Some(false));
        let direct =
            "[x] LMCache INFO: Using O_DIRECT for disk I/O: True (local_disk_backend.py:151)";
        assert_eq!(LogCounts::of(direct).direct_io, Some(true));
    }

    #[test]
    fn only_lines_of_lmcache_count() {
        for (line, timeouts) in [
            (
                "[2026-11-24 10:00:00,123] LMCache ERROR: batched_async_contains timed out",
                1,
            ),
            (
                "(EngineCore pid=1) [x] LMCache WARNING: Timeout occurred for rank 0",
                1,
            ),
            (
                "WARNING 11-24 10:00:00 [lmcache_mp_connector.py:12] Timeout occurred for rank 0",
                1,
            ),
            (
                "(APIServer pid=9) INFO 11-24 10:00:00 [logger.py:39] Received request cmpl-1: prompt: \
                 '[x] LMCache ERROR: Timeout occurred for rank 0', params: x",
                0,
            ),
            ("Timeout occurred for rank 0", 0),
            ("ERROR: Timeout occurred for rank 0", 0),
            ("[x] LMCacheX ERROR: Timeout occurred for rank 0", 0),
            ("[x] LMCache wrote: Timeout occurred for rank 0", 0),
            ("INFO prompt [lmcache] Timeout occurred for rank 0", 0),
            ("(no end", 0),
            ("", 0),
        ] {
            let counts = LogCounts::of(line);
            assert_eq!(counts.count(Failure::LookupTimedOut), timeouts, "{line}");
        }
    }

    #[test]
    fn counts_may_have_separators_and_what_is_not_one_is_passed_over() {
        for (count, tokens) in [
            ("3072", Some(3072.0)),
            ("3,072", Some(3072.0)),
            ("1,003,072", Some(1_003_072.0)),
            ("3_072", Some(3072.0)),
            ("0", Some(0.0)),
            ("NaN", None),
            ("-1", None),
            ("inf", None),
            ("many", None),
        ] {
            let line =
                format!("[x] LMCache INFO: Retrieved {count} out of {count} required tokens");
            let counts = LogCounts::of(&line);
            let seen = counts.reports_tokens().then_some(counts.retrieved);
            assert_eq!(seen.map(|moved| moved.tokens), tokens, "{count}");
            assert!(
                seen.is_none_or(|moved| moved.cost_ms.abs() < 1e-9),
                "of no time"
            );
        }
        let files = "[x] LMCache INFO: Stored 5 files\n";
        assert!(!LogCounts::of(files).reports_tokens());
        let silenced = "[x] LMCache WARNING: Timeout occurred for rank 0\nINFO: 200 OK\n";
        assert!(!LogCounts::of(silenced).reports_tokens());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_and_none_in_a_prompt_counts(text in "\\PC{0,80}") {
            let _any = LogCounts::of(&text);
            let echoed = format!("INFO 11-24 10:00:00 [logger.py:39] Received request c: prompt: {text:?}");
            proptest::prop_assert_eq!(LogCounts::of(&echoed), LogCounts::default());
        }
    }
}
