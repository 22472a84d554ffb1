//! Answers of control routes, read up to a limit.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::prom::Scrape;
use crate::foreign::{shortened, visible};
use crate::secret;

/// Longest body of an answer, bytes: `/tokenize` of a million tokens fits.
const BODY_BYTES: usize = 16 << 20;

/// Longest exposition of metrics, bytes. It is read line by line, never as a whole.
const METRICS_BYTES: usize = 64 << 20;

/// Longest line of an exposition, bytes.
const LINE_BYTES: usize = 1 << 20;

/// Most bytes of an exposition that labrun stores.
const SERIES_BYTES: usize = 16 << 20;

/// Characters of an answer that a message shows.
const SHOWN_CHARS: usize = 300;

/// The whole answer to one request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Reads the body of what `route` answers.
    pub(super) async fn read(route: &str, mut answer: reqwest::Response) -> Result<Self> {
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            ensure!(
                body.len() + chunk.len() <= BODY_BYTES,
                "{route} answered more than {} MiB",
                BODY_BYTES >> 20
            );
            body.extend_from_slice(&chunk);
        }
        Ok(Self { status, body })
    }

    /// The answer, unless its status is an error.
    pub(super) fn success(self, route: &str) -> Result<Self> {
        match self.status {
            200..300 => Ok(self),
            status => bail!("{route} answered {status}: {}", self.head()),
        }
    }

    /// Its JSON; `null` where the body is not JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Its beginning, for messages. Secrets are masked before the cut: half of one would not be recognized.
    pub(super) fn head(&self) -> String {
        let begin = &self.body[..self.body.len().min(4_000)];
        let begin = secret::mask(String::from_utf8_lossy(begin).trim()).into_owned();
        visible(&shortened(&begin, SHOWN_CHARS)).into_owned()
    }
}

/// The lines of an exposition with series of vLLM, LMCache or the simulator, and those `also` named.
/// Comments, buckets and the series of others are skipped, however many they are. `None` where the
/// body has no series at all.
pub(super) async fn series(
    route: &str,
    also: &[String],
    mut answer: reqwest::Response,
) -> Result<Option<String>> {
    let mut lines = Lines::of(also);
    let mut read = 0;
    while let Some(chunk) = answer.chunk().await? {
        read += chunk.len();
        ensure!(
            read <= METRICS_BYTES,
            "{route} answered more than {} MiB",
            METRICS_BYTES >> 20
        );
        lines.feed(route, &chunk)?;
    }
    lines.end_line(route)?;
    Ok(lines.has_series.then_some(lines.series))
}

#[derive(Debug, Default)]
struct Lines<'a> {
    /// Names of series that are read besides those of vLLM, LMCache and the simulator.
    also: &'a [String],
    line: Vec<u8>,
    series: String,
    /// Whether any line named a series.
    has_series: bool,
}

impl<'a> Lines<'a> {
    fn of(also: &'a [String]) -> Self {
        Self {
            also,
            ..Self::default()
        }
    }

    fn feed(&mut self, route: &str, mut bytes: &[u8]) -> Result<()> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.extend(route, &bytes[..end])?;
            self.end_line(route)?;
            bytes = &bytes[end + 1..];
        }
        self.extend(route, bytes)
    }

    fn extend(&mut self, route: &str, bytes: &[u8]) -> Result<()> {
        ensure!(
            self.line.len() + bytes.len() <= LINE_BYTES,
            "a line of {route} is longer than {} MiB",
            LINE_BYTES >> 20
        );
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, route: &str) -> Result<()> {
        let text = String::from_utf8_lossy(&self.line);
        self.has_series |= !self.has_series && !Scrape::parse(&text).is_empty();
        if is_read(self.line.trim_ascii_start(), self.also) {
            self.series.push_str(&text);
            self.series.push('\n');
        }
        self.line.clear();
        ensure!(
            self.series.len() <= SERIES_BYTES,
            "{route} names more than {} MiB of series of vLLM and LMCache",
            SERIES_BYTES >> 20
        );
        Ok(())
    }
}

/// Whether labrun reads the series of a line, or it is one that was `also` named.
fn is_read(line: &[u8], also: &[String]) -> bool {
    let name = line
        .iter()
        .position(|byte| matches!(byte, b'{' | b' ' | b'\t'))
        .map_or(line, |end| &line[..end]);
    let is_known = [&b"vllm:"[..], b"lmcache", b"labrun"]
        .iter()
        .any(|of| name.starts_with(of));
    is_known && !name.ends_with(b"_bucket") || also.iter().any(|one| name == one.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series_of(parts: &[&str]) -> Result<String> {
        let mut lines = Lines::default();
        for part in parts {
            lines.feed("/metrics", part.as_bytes())?;
        }
        lines.end_line("/metrics")?;
        Ok(lines.series)
    }

    #[test]
    fn only_series_that_are_read_are_stored_however_they_are_cut() {
        let text = "# HELP vllm:a b\nvllm:a_total{m=\"x y\"} 1\npython_gc 2\r\n\
                    vllm:b_bucket{le=\"1\"} 3\nlmcache_mp_c 4\nlabrun_sim_d 5";
        let expected = "vllm:a_total{m=\"x y\"} 1\nlmcache_mp_c 4\nlabrun_sim_d 5\n";
        assert_eq!(series_of(&[text]).unwrap(), expected);
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(series_of(&bytes).unwrap(), expected);
    }

    #[test]
    fn a_series_that_was_named_is_read_too_and_no_other_that_begins_like_it() {
        let also = ["other_a_total".to_owned()];
        let mut lines = Lines::of(&also);
        let text = b"other_a_total{m=\"x\"} 1\nother_a_total 2\nother_a_total_b 3\nother_a 4\n";
        lines.feed("/metrics", text).unwrap();
        assert_eq!(lines.series, "other_a_total{m=\"x\"} 1\nother_a_total 2\n");
    }

    #[test]
    fn a_line_or_series_without_an_end_is_refused() {
        let long = "x".repeat(LINE_BYTES + 1);
        let error = series_of(&[&long]).unwrap_err().to_string();
        assert_eq!(error, "a line of /metrics is longer than 1 MiB");
        let many = format!("vllm:a{{b=\"{}\"}} 1\n", "x".repeat(1 << 19)).repeat(33);
        let error = series_of(&[&many]).unwrap_err().to_string();
        assert!(error.contains("more than 16 MiB of series"), "{error}");
        assert_eq!(series_of(&[&many.replace("vllm", "other")]).unwrap(), "");
    }

    #[test]
    fn what_is_shown_of_an_answer_acts_on_no_terminal() {
        let answer = Answer {
            status: 500,
            body: b"\x1b[31mno\n".to_vec(),
        };
        assert_eq!(answer.head(), "\\x1b[31mno");
        let error = answer.success("/x").unwrap_err().to_string();
        assert_eq!(error, "/x answered 500: \\x1b[31mno");
    }
}
