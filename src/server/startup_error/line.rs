//! One line of a server's log, without what loggers put before the text.

/// How grave its logger calls a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grade {
    /// Debug, information and warnings: no reason to end.
    Ordinary,
    /// An error.
    Error,
    /// No logger wrote it: Python's tracebacks, argparse.
    Plain,
}

/// A line without prefixes. Its indentation stays: it tells a traceback's frames from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// By its logger.
    pub grade: Grade,
    /// What it says.
    pub text: &'a str,
}

impl<'a> Line<'a> {
    /// Reads `line`, which has no colours any more.
    pub(super) fn read(line: &'a str) -> Self {
        let text = without_process(line.trim_end());
        let (grade, text) = of_vllm(text)
            .or_else(|| of_lmcache(text))
            .or_else(|| of_uvicorn(text))
            .unwrap_or_else(|| (Grade::Plain, without_place(text)));
        // What the engine's process logged, its front process may log again.
        Self {
            grade,
            text: without_process(text),
        }
    }
}

/// `text` of `(APIServer pid=31) text`.
fn without_process(line: &str) -> &str {
    let mut text = line;
    while let Some((name, rest)) = text.strip_prefix('(').and_then(|t| t.split_once(')')) {
        if !name.contains(" pid=") {
            break;
        }
        text = rest.strip_prefix(' ').unwrap_or(rest);
    }
    text
}

fn grade(word: &str) -> Option<Grade> {
    match word {
        "DEBUG" | "INFO" | "WARNING" => Some(Grade::Ordinary),
        "ERROR" | "CRITICAL" => Some(Grade::Error),
        _ => None,
    }
}

/// vLLM's own: `ERROR 11-24 13:59:01 [core.py:515] text`.
fn of_vllm(line: &str) -> Option<(Grade, &str)> {
    let (word, rest) = line.split_once(' ')?;
    let grade = grade(word)?;
    let is_dated = rest.starts_with(|c: char| c.is_ascii_digit());
    let (before, text) = rest.split_once("] ").or_else(|| rest.split_once(']'))?;
    (is_dated && before.contains('[')).then_some((grade, text))
}

/// LMCache's: `[2026-11-24 05:01:02,345] LMCache ERROR: text (file.py:12:module)`.
fn of_lmcache(line: &str) -> Option<(Grade, &str)> {
    let (_, rest) = line.strip_prefix('[')?.split_once("] LMCache ")?;
    let (word, text) = rest.split_once(": ")?;
    let end = text.rfind(" (").filter(|_| text.ends_with(')'));
    Some((grade(word)?, end.map_or(text, |end| &text[..end])))
}

/// uvicorn's: `ERROR:    text`.
fn of_uvicorn(line: &str) -> Option<(Grade, &str)> {
    let (word, text) = line.split_once(':')?;
    Some((grade(word)?, text.trim_start()))
}

/// `text` of `[x.py:1] text`.
fn without_place(line: &str) -> &str {
    let place = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "));
    place.map_or(line, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefixes_of_every_logger_are_taken_off() {
        for (line, grade, text) in [
            (
                "(APIServer pid=31)   Value error, no",
                Grade::Plain,
                "  Value error, no",
            ),
            (
                "(EngineCore pid=7) ERROR 11-24 13:59:01 [core.py:515] ValueError: no",
                Grade::Error,
                "ValueError: no",
            ),
            (
                "(EngineCore_DP0 pid=7) ERROR 11-24 13:59:01 [x.py:9] (Worker pid=8) OSError: no",
                Grade::Error,
                "OSError: no",
            ),
            (
                "INFO 11-24 13:59:01 [x.py:3] Error: none",
                Grade::Ordinary,
                "Error: none",
            ),
            (
                "[2026-11-24 05:01:02,345] LMCache ERROR: no room (a.py:12:lmcache.a)",
                Grade::Error,
                "no room",
            ),
            (
                "ERROR:    [Errno 98] in use",
                Grade::Error,
                "[Errno 98] in use",
            ),
            ("INFO:     Started", Grade::Ordinary, "Started"),
            (
                "[multiproc.py:492] ValueError: no",
                Grade::Plain,
                "ValueError: no",
            ),
            ("ValueError: a [b] c", Grade::Plain, "ValueError: a [b] c"),
            ("(no process) text", Grade::Plain, "(no process) text"),
        ] {
            assert_eq!(Line::read(line), Line { grade, text }, "{line}");
        }
    }
}
