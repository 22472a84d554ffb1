//! Problems of a plan: where, what, and what to do. All are reported at once.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::secret::mask_line;
use crate::secret;

/// Problems beyond these are counted: each shows its place in the whole text.
const MAX_SHOWN: usize = 100;

/// One thing that is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the text, as a byte range.
    pub span: Range<usize>,
    /// What is wrong, lowercase, no full stop.
    pub message: String,
    /// What to do about it; empty if the message is enough.
    pub hint: String,
    /// Whether the text at its place may be shown.
    pub kind: ProblemKind,
}

impl Problem {
    /// One whose place in the text may be shown.
    pub fn new(span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            hint: hint.into(),
            kind: ProblemKind::Plain,
        }
    }
}

/// Whether the text that a problem points at may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// It may.
    Plain,
    /// It holds a secret: its line is shown masked.
    Secret,
}

/// Every problem of one plan, with the text that they point into.
#[derive(Clone, Debug)]
pub struct PlanProblems {
    /// The file, as the user named it.
    pub file: String,
    /// Its text.
    pub text: String,
    /// At least one, in the order of the text.
    pub problems: Vec<Problem>,
}

impl PlanProblems {
    /// Problems of another file, whose lines are shown without what their strings say: it may hold
    /// secrets.
    pub fn masked(file: &str, text: &str, problems: Vec<Problem>) -> Self {
        let lines = problems.iter().map(|problem| problem.span.start);
        Self {
            file: file.to_owned(),
            text: lines.fold(text.to_owned(), |text, at| mask_line(&text, at)),
            problems,
        }
    }

    /// The text with the lines masked that hold a secret: no problem may show one.
    fn text_without_secrets(&self) -> String {
        let secrets = self
            .problems
            .iter()
            .filter(|problem| problem.kind == ProblemKind::Secret);
        let text = secrets.fold(self.text.clone(), |text, problem| {
            mask_line(&text, problem.span.start)
        });
        // A syntax error may stand in the line of a secret, and another line may repeat one.
        secret::blank(&text).into_owned()
    }

    /// The problems as a person reads them: file, line, column, the line itself and a hint.
    pub fn render(&self, renderer: &Renderer) -> String {
        let mut out = String::new();
        let text = self.text_without_secrets();
        for problem in self.problems.iter().take(MAX_SHOWN) {
            let start = problem.span.start.min(text.len());
            let end = problem.span.end.clamp(start, text.len());
            let snippet = Snippet::source(&text).path(&self.file).annotation(
                AnnotationKind::Primary
                    .span(start..end)
                    .label(secret::mask(&problem.hint)),
            );
            let title = Level::ERROR.primary_title(secret::mask(&problem.message));
            out.push_str(&renderer.render(&[title.element(snippet)]));
            out.push_str("\n\n");
        }
        let count = self.problems.len();
        if count > MAX_SHOWN {
            out.push_str(&format!("and {} more\n\n", count - MAX_SHOWN));
        }
        let noun = if count == 1 { "problem" } else { "problems" };
        out.push_str(&format!(
            "{count} {noun} in `{}`; nothing was run",
            self.file
        ));
        out
    }
}

impl fmt::Display for PlanProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl std::error::Error for PlanProblems {}

/// The candidate nearest to `word`, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let normal = |s: &str| s.to_lowercase().replace(['-', '_'], "");
    let wanted = normal(word);
    candidates
        .into_iter()
        .map(|candidate| (likeness(&wanted, &normal(candidate)), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// 0 to 1. Jaro-Winkler is blind to swapped letters of short words, so one swap counts as near; and it
/// likes words that begin alike, so `version` would be near to `verdict`.
fn likeness(a: &str, b: &str) -> f64 {
    let edits = strsim::damerau_levenshtein(a, b);
    let longest = a.len().max(b.len());
    if edits == 1 && a.len() > 2 || is_within(a, b) {
        return strsim::jaro_winkler(a, b).max(0.8);
    }
    if edits > (longest / 3).max(2) {
        return 0.0;
    }
    strsim::jaro_winkler(a, b)
}

/// Whether one word is part of the other, and more than half of it.
fn is_within(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    short.len() * 2 > long.len() && long.contains(short)
}

/// A longer list of valid names is cut to the nearest few.
const MAX_LISTED: usize = 40;
const MAX_NEAREST: usize = 5;

/// `did you mean ...?`, or the valid names.
pub(crate) fn suggestion(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if candidates.is_empty() => "nothing is valid here".to_owned(),
        None if candidates.len() > MAX_LISTED => {
            let mut nearest = candidates.to_vec();
            let likeness = |name: &&str| strsim::jaro_winkler(word, name);
            nearest.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
            let others = candidates.len() - MAX_NEAREST;
            format!(
                "nearest: {} (and {others} more)",
                list(&nearest[..MAX_NEAREST])
            )
        }
        None => format!("valid: {}", list(candidates)),
    }
}

/// Names in backticks, separated by commas.
pub(crate) fn list(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_ignores_case_and_separators_and_refuses_the_far() {
        let keys = ["prompt_len", "gen_len", "tier"];
        assert_eq!(nearest("promt_len", keys), Some("prompt_len"));
        assert_eq!(nearest("Gen-Len", keys), Some("gen_len"));
        assert_eq!(nearest("zzz", keys), None);
        assert_eq!(
            nearest("version", ["verdict"]),
            None,
            "three edits of seven letters"
        );
        assert_eq!(nearest("num_requests", ["requests"]), Some("requests"));
    }

    #[test]
    fn beyond_a_hundred_problems_the_rest_is_counted() {
        let problems = PlanProblems {
            file: "x.toml".into(),
            text: "a\n".repeat(130),
            problems: (0..130)
                .map(|at| Problem::new(at * 2..at * 2 + 1, "wrong", ""))
                .collect(),
        };
        let shown = problems.to_string();
        assert_eq!(shown.matches("error: wrong").count(), 100);
        assert!(
            shown.ends_with("and 30 more\n\n130 problems in `x.toml`; nothing was run"),
            "{shown}"
        );
    }

    #[test]
    fn a_problem_shows_file_line_column_and_hint() {
        let text = "name = \"x\"\n[matrix]\ntyer = []\n";
        let at = text.find("tyer").unwrap();
        let problems = PlanProblems {
            file: "plans/x.toml".into(),
            text: text.into(),
            problems: vec![Problem::new(
                at..at + 4,
                "unknown key `tyer` in [matrix]",
                "did you mean `tier`?",
            )],
        };
        let shown = problems.to_string();
        assert!(
            shown.contains("error: unknown key `tyer` in [matrix]"),
            "{shown}"
        );
        assert!(shown.contains("plans/x.toml:3:1"), "{shown}");
        assert!(shown.contains("did you mean `tier`?"), "{shown}");
        assert!(shown.contains("1 problem in `plans/x.toml`"), "{shown}");
    }
}
