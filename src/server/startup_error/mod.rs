//! Why a server ended before it was ready, by its own log.
//!
//! vLLM raises in a worker, and its front process then reports only that something failed above: the
//! first exception of a start is the one that counts, unless a later one is known better.

mod known;
mod line;

use std::fmt;

use crate::foreign::{shortened, visible, without_colours};
use line::{Grade, Line};

/// What vLLM's front process says when its engine ended.
const ENGINE_FAILED: &str = "Engine core initialization failed";
/// How it ends where it knows no exit code of the engine.
const NO_EXIT_CODE: &str = "Failed core proc(s): {}";
/// What a process that ended without a word suggests: the kernel's kill leaves none.
const KILLED: &str = "the kernel may have ended it for want of memory: `dmesg` tells, and `labrun doctor` shows \
                      the limit";
/// Most of a reason that is quoted.
const MAX_REASON_CHARS: usize = 500;
/// Lines behind a pydantic error in which its reason stands.
const PYDANTIC_LINES: usize = 12;

/// What stands before the path of the log at the end of a message.
pub(crate) const LOG_IS_AT: &str = "; log: ";

/// Why a server ended, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    /// The server's own words, on one line.
    pub what: String,
    /// What to do, one sentence without a full stop; absent where nothing is known.
    pub advice: Option<String>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.advice {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

/// The reason in `log` for which a server ended: one that is known, else the first exception, else what
/// argparse refused, else the last line that is no information. `None` where the log has none of them.
pub(crate) fn cause(log: &str) -> Option<Cause> {
    let plain: Vec<_> = log.lines().map(without_colours).collect();
    let lines: Vec<Line<'_>> = plain.iter().map(|line| Line::read(line)).collect();
    of_reasons(&reasons(&lines)).or_else(|| {
        let what = last_words(&lines)?;
        Some(Cause { what, advice: None })
    })
}

/// What `log` states as a reason for which a server that still runs does not answer: an exception, as above.
pub(crate) fn raised(log: &str) -> Option<Cause> {
    let plain: Vec<_> = log.lines().map(without_colours).collect();
    let lines: Vec<Line<'_>> = plain.iter().map(|line| Line::read(line)).collect();
    of_reasons(&reasons(&lines))
}

fn of_reasons(reasons: &[String]) -> Option<Cause> {
    let known = reasons
        .iter()
        .find_map(|what| Some((what.clone(), known::advice(what)?)));
    if let Some((what, advice)) = known {
        let advice = Some(advice);
        return Some(Cause { what, advice });
    }
    let first = reasons.iter().find(|what| !is_consequence(what));
    let what = first.or_else(|| reasons.first()).cloned()?;
    let is_silent = |what: &String| what.contains(ENGINE_FAILED) && what.ends_with(NO_EXIT_CODE);
    let is_silent = reasons.iter().all(is_silent);
    let advice =
        is_silent.then(|| format!("{KILLED}; then lower `max_local_cpu_size` of the tier"));
    Some(Cause { what, advice })
}

/// What the signal that ended a server suggests, where its log states nothing.
pub(crate) fn of_signal(how: &str) -> Option<String> {
    how.contains("signal 9").then(|| format!(" ({KILLED})"))
}

/// Whether `what` only reports that another process failed.
fn is_consequence(what: &str) -> bool {
    [
        "See root cause above",
        "See stack trace for root cause",
        ENGINE_FAILED,
    ]
    .iter()
    .any(|mark| what.contains(mark))
}

/// Every reason that the lines state, in their order.
fn reasons(lines: &[Line<'_>]) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut source = "";
    for (at, line) in lines.iter().enumerate() {
        if line.grade == Grade::Ordinary {
            continue;
        }
        let text = line.text.trim_end();
        let trimmed = text.trim_start();
        let is_marker = trimmed.chars().all(|c| "^~ ".contains(c));
        if text.starts_with("    ") && !is_marker && !trimmed.starts_with("File ") {
            source = trimmed;
        }
        let reason = if is_pydantic(text) {
            pydantic(&lines[at + 1..]).or_else(|| exception(text))
        } else {
            exception(text)
                .or_else(|| bare_exception(text, source))
                .or_else(|| refused(text))
                .or_else(|| {
                    // uvicorn and LMCache log their reasons without an exception.
                    let is_error = line.grade == Grade::Error && known::advice(text).is_some();
                    is_error.then(|| trimmed.to_owned())
                })
                .or_else(|| killed(text))
        };
        reasons.extend(reason.map(|reason| readable(&reason)));
    }
    reasons
}

fn readable(reason: &str) -> String {
    visible(&shortened(reason.trim(), MAX_REASON_CHARS)).into_owned()
}

fn is_exception_name(name: &str) -> bool {
    let is_name = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
    let is_exception = ["Error", "Exception"].iter().any(|end| name.ends_with(end));
    is_name && is_exception && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// `ValueError: why` of a line that ends a traceback.
fn exception(text: &str) -> Option<String> {
    let (name, why) = text.split_once(": ")?;
    (is_exception_name(name) && !why.trim().is_empty()).then(|| text.to_owned())
}

/// An exception without a reason, with the source line that raised it.
fn bare_exception(text: &str, source: &str) -> Option<String> {
    let name = text.trim_end_matches(':');
    (is_exception_name(name) && !source.is_empty()).then(|| format!("{name} at `{source}`"))
}

fn is_pydantic(text: &str) -> bool {
    text.contains("ValidationError: ") && text.contains("validation error")
}

/// The reason behind `ValidationError: 1 validation error for ModelConfig`, in one of the next lines.
fn pydantic(next: &[Line<'_>]) -> Option<String> {
    let next = next
        .iter()
        .take(PYDANTIC_LINES)
        .map(|line| line.text.trim());
    let reason = next
        .filter(|text| !text.is_empty())
        .find(|text| text.contains(" [type=") || text.starts_with("Value error, "))?;
    let reason = reason.split(" [type=").next().unwrap_or(reason);
    let reason = reason.strip_prefix("Value error, ").unwrap_or(reason);
    Some(reason.to_owned())
}

/// What argparse refused: `vllm serve: error: unrecognized arguments: --x`.
fn refused(text: &str) -> Option<String> {
    let (program, why) = text.split_once(": error: ")?;
    let is_program = program.split(' ').count() <= 3
        && program
            .chars()
            .all(|c| c.is_ascii_lowercase() || " -_.".contains(c));
    (is_program && !why.trim().is_empty()).then(|| why.trim().to_owned())
}

/// The shell's or the C library's last word.
fn killed(text: &str) -> Option<String> {
    let marks = [
        "error while loading shared libraries",
        "Segmentation fault",
        "terminate called after throwing",
    ];
    marks
        .iter()
        .any(|mark| text.contains(mark))
        .then(|| text.to_owned())
}

/// The last line that is no information.
fn last_words(lines: &[Line<'_>]) -> Option<String> {
    let mut last = lines
        .iter()
        .rev()
        .filter(|line| line.grade != Grade::Ordinary && !line.text.trim().is_empty());
    last.next().map(|line| readable(line.text))
}

#[cfg(test)]
mod tests;
