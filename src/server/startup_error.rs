//! Why a server ended before it was ready, by its own log.
//!
//! vLLM raises in a worker. Its front process then reports only that something failed above, so
//! that the first exception of a start is the one that counts.

use crate::foreign::without_colours;

/// How a known exception begins, and what to do about it.
const KNOWN: [(&str, &str); 1] = [(
    "CPU Offloading is currently only supported on CUDA-alike",
    "vLLM's own offloading copies with CUDA or XPU and has nothing for a CPU: remove the tier \
     `native`, or run on a GPU",
)];

/// The first exception in `log`, as it was raised, with what to do where that is known.
pub(crate) fn first_exception(log: &str) -> Option<String> {
    let raised = log
        .lines()
        .find_map(|line| exception(&without_colours(line)))?;
    let known = KNOWN
        .iter()
        .find(|(beginning, _)| raised.contains(beginning));
    Some(match known {
        Some((_, advice)) => format!("{raised} ({advice})"),
        None => raised,
    })
}

/// `ValueError: why` of a line that ends a traceback, behind whatever prefix a logger gave it.
fn exception(line: &str) -> Option<String> {
    let text = match line.split_once("] ") {
        Some((_, rest)) if line.starts_with('(') || line.starts_with('[') => rest,
        _ => line,
    };
    let (name, why) = text.split_once(": ")?;
    let is_name = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
    let is_exception = ["Error", "Exception"].iter().any(|end| name.ends_with(end));
    (is_name && is_exception && !why.trim().is_empty()).then(|| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_exception_is_reported_and_not_its_consequences() {
        let log = "(Worker pid=7) ERROR 11-24 13:59:01 [multiproc_executor.py:1063] Traceback (most \
                   recent call last):\n\
                   (Worker pid=7) ERROR 11-24 13:59:01 [multiproc_executor.py:1063]   File \"x.py\"\n\
                   (Worker pid=7) ERROR 11-24 13:59:01 [multiproc_executor.py:1063]     raise Exception(\n\
                   (Worker pid=7) ERROR 11-24 13:59:01 [multiproc_executor.py:1063] Exception: CPU \
                   Offloading is currently only supported on CUDA-alike and XPU GPUs\n\
                   RuntimeError: Engine core initialization failed. See root cause above.\n";
        let shown = first_exception(log).unwrap();
        assert!(shown.starts_with("Exception: CPU Offloading is"), "{shown}");
        assert!(shown.contains("remove the tier `native`"), "{shown}");
    }

    #[test]
    fn any_exception_is_quoted_and_ordinary_lines_are_not() {
        let log = "INFO 11-24 [x.py:3] Error: none\nWARNING: a: b\n\
                   (APIServer pid=1)   Error in y: z\nvalue_error: no\n\
                   pydantic.ValidationError: 1 error\n";
        assert_eq!(
            first_exception(log).as_deref(),
            Some("pydantic.ValidationError: 1 error")
        );
        assert_eq!(first_exception("all is well\n"), None);
    }
}
