//! The log, in the wording of vLLM and LMCache.

#[cfg(test)]
use std::sync::{Arc, Mutex, PoisonError};
use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::sim::engine::LogEvent;

const GIB: f64 = 1_073_741_824.0;
const ADAPTER: &str = "vllm_v1_adapter.py:1461:lmcache.integration.vllm.vllm_v1_adapter";
const CACHE_ENGINE: &str = "cache_engine.py:561:lmcache.v1.cache_engine";

/// Where the log goes.
#[derive(Clone, Debug, Default)]
pub(crate) enum LogSink {
    /// Standard error, like vLLM.
    #[default]
    Stderr,
    /// A buffer in memory.
    #[cfg(test)]
    Memory(Arc<Mutex<String>>),
}

/// The process that a log line is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// Lines without a prefix.
    Process,
    ApiServer,
    EngineCore,
}

#[derive(Clone, Debug)]
pub(super) struct Log {
    sink: LogSink,
    pid: u32,
}

impl Log {
    pub(super) fn new(sink: LogSink) -> Self {
        Self {
            sink,
            pid: std::process::id(),
        }
    }

    /// A line as it is.
    pub(super) fn line(&self, speaker: Speaker, text: &str) {
        let pid = self.pid;
        let line = match speaker {
            Speaker::Process => format!("{text}\n"),
            Speaker::ApiServer => format!("(APIServer pid={pid}) {text}\n"),
            Speaker::EngineCore => format!("(EngineCore pid={pid}) {text}\n"),
        };
        match &self.sink {
            // Keep serving: a log that cannot be written does not matter here.
            LogSink::Stderr => drop(std::io::stderr().lock().write_all(line.as_bytes())),
            #[cfg(test)]
            LogSink::Memory(memory) => {
                memory
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&line);
            }
        }
    }

    /// A line of vLLM's logger.
    pub(super) fn vllm(&self, speaker: Speaker, level: &str, source: &str, text: &str) {
        let now = Stamp::now();
        let (_, month, day) = now.date;
        let (hour, minute, second) = now.time();
        let at = format!("{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
        self.line(speaker, &format!("{level} {at} [{source}] {text}"));
    }

    /// A line of LMCache's logger.
    pub(super) fn lmcache(&self, level: &str, source: &str, text: &str) {
        let now = Stamp::now();
        let (year, month, day) = now.date;
        let (hour, minute, second) = now.time();
        let ms = now.of_day.subsec_millis();
        let at = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02},{ms:03}");
        self.line(
            Speaker::EngineCore,
            &format!("[{at}] LMCache {level}: {text} ({source})"),
        );
    }

    /// uvicorn's lines when it starts to accept connections.
    pub(super) fn started(&self) {
        for line in [
            "INFO:     Started server process",
            "INFO:     Waiting for application startup.",
            "INFO:     Application startup complete.",
        ] {
            self.line(Speaker::ApiServer, line);
        }
    }

    /// What the engine reports.
    pub(super) fn engine(&self, event: &LogEvent) {
        let (level, text, source) = wording(event);
        self.lmcache(level, source, &text);
    }
}

fn wording(event: &LogEvent) -> (&'static str, String, &'static str) {
    match event {
        LogEvent::Lookup {
            name,
            total,
            computed,
            hit,
            need,
        } => {
            let text = format!(
                "Reqid: {name}, Total tokens {total}, Inference Engine computed tokens: \
                 {computed}, LMCache hit tokens: {hit}, need to load: {need}"
            );
            ("INFO", text, ADAPTER)
        }
        LogEvent::LookupTimeout => {
            let text = "Timeout occurred for rank 0, recreating all sockets".to_owned();
            (
                "ERROR",
                text,
                "zmq_transport.py:112:lmcache.v1.rpc.zmq_transport",
            )
        }
        LogEvent::Retrieved {
            name,
            tokens,
            size_bytes,
            cost_us,
        } => {
            let (gib, ms, speed) = rate(*size_bytes, *cost_us);
            let text = format!(
                "[req_id={name}] Retrieved {tokens} out of {tokens} required tokens (from \
                 {tokens} total tokens). size: {gib:.4} gb, cost {ms:.4} ms, throughput: \
                 {speed:.4} GB/s;"
            );
            ("INFO", text, CACHE_ENGINE)
        }
        LogEvent::Stored {
            name,
            tokens,
            size_bytes,
            copy_us,
            put_us,
        } => {
            let (gib, ms, speed) = rate(*size_bytes, copy_us + put_us);
            let (copy_ms, put_ms) = (*copy_us as f64 / 1e3, *put_us as f64 / 1e3);
            let text = format!(
                "[req_id={name}] Stored {tokens} out of total {tokens} tokens. size: {gib:.4} \
                 GB, cost {ms:.4} ms, throughput: {speed:.4} GB/s; offload_time: {copy_ms:.4} \
                 ms, put_time: {put_ms:.4} ms"
            );
            ("INFO", text, CACHE_ENGINE)
        }
        LogEvent::StoreTruncated { chunks } => {
            let text = format!(
                "Local cpu memory under pressure so choosing to store only  {chunks} total \
                 chunks of KV cache."
            );
            ("WARNING", text, CACHE_ENGINE)
        }
        LogEvent::Unhealthy => {
            let text = "LMCache is unhealthy, skipping store operation".to_owned();
            ("WARNING", text, CACHE_ENGINE)
        }
    }
}

/// Size in GiB, time in ms, GiB/s: LMCache divides by 1024^3 and writes GB.
fn rate(size_bytes: u64, us: u64) -> (f64, f64, f64) {
    let gib = size_bytes as f64 / GIB;
    (gib, us as f64 / 1e3, gib / (us.max(1) as f64 / 1e6))
}

/// A point in time, UTC.
struct Stamp {
    date: (u64, u64, u64),
    of_day: Duration,
}

impl Stamp {
    fn now() -> Self {
        Self::at(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        )
    }

    fn at(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs();
        let whole_days = Duration::from_secs(seconds / 86_400 * 86_400);
        let of_day = since_epoch.saturating_sub(whole_days);
        Self {
            date: civil(seconds / 86_400),
            of_day,
        }
    }

    fn time(&self) -> (u64, u64, u64) {
        let seconds = self.of_day.as_secs();
        (seconds / 3_600, seconds / 60 % 60, seconds % 60)
    }
}

/// Year, month and day of a day since 1970-01-01, in years that start in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// A number with thousands commas.
pub(super) fn commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_numbers_are_written_like_vllm_does() {
        let stamp = Stamp::at(Duration::from_millis(1_795_492_298_007));
        assert_eq!(stamp.date, (2026, 11, 24));
        assert_eq!(stamp.time(), (3, 51, 38));
        assert_eq!(
            Stamp::at(Duration::from_secs(951_782_400)).date,
            (2000, 2, 29)
        );
        assert_eq!(commas(224_816), "224,816");
        assert_eq!(
            (commas(7), commas(1_000_000)),
            ("7".to_owned(), "1,000,000".to_owned())
        );
    }

    #[test]
    fn lmcache_lines_have_its_wording() {
        let name = "cmpl-bd89-0-1".to_owned();
        let event = LogEvent::Retrieved {
            name,
            tokens: 5_120,
            size_bytes: 671_088_640,
            cost_us: 14_513,
        };
        let (_, text, _) = wording(&event);
        assert_eq!(
            text,
            "[req_id=cmpl-bd89-0-1] Retrieved 5120 out of 5120 required tokens (from 5120 total \
             tokens). size: 0.6250 gb, cost 14.5130 ms, throughput: 43.0648 GB/s;"
        );
    }
}
