//! `--fail-on`: what makes a diff fail.
//!
//! ```text
//! RULE    = WHAT OP CHANGE [ "where" FILTER { "," FILTER } ]
//! WHAT    = MEASURE | "geomean(" MEASURE ")"        ttft_p50, output_tokens_per_s, ...
//! OP      = ">" | ">=" | "<" | "<="
//! CHANGE  = [ "+" | "-" ] NUMBER "%"                the change from A to B
//! FILTER  = KEY "=" VALUE                           tier=cpu, state=tier-hit, prompt_len=1024, an axis
//! ```
//!
//! A rule on cells fires where a change that is named (not `~`) satisfies it, and where a cell that
//! it is about can no longer be judged: it is missing or left out on B. A rule on the geometric
//! mean fires on its value.

use std::fmt;

use crate::diff::{CellKey, Diff, LeftOut, Measure, Outcome};
use crate::plan::axes::LABEL_ALIAS;
use crate::plan::only::shown_axis;
use crate::plan::state::CacheState;

/// Which way a change is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// One condition under which a diff fails.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// As the user wrote it.
    pub text: String,
    /// The number that the rule is about.
    pub measure: Measure,
    geomean: bool,
    bound: Bound,
    percent: f64,
    filters: Vec<(String, String)>,
}

/// What is wrong with a rule, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleError {
    text: String,
    /// The first letter that is wrong, from 0, in letters.
    at: usize,
    length: usize,
    message: String,
    hint: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marks = "^".repeat(self.length.max(1));
        write!(
            f,
            "--fail-on: {} at column {}\n  | {}\n  | {:at$}{marks} {}",
            self.message,
            self.at + 1,
            self.text,
            "",
            self.hint,
            at = self.at
        )
    }
}

impl std::error::Error for RuleError {}

/// Why a rule fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fired {
    /// The rule, as it was written.
    pub rule: String,
    /// On what and why, in words.
    pub why: String,
}

impl Rule {
    /// Reads a rule.
    pub(crate) fn parse(text: &str) -> Result<Self, RuleError> {
        Reader::new(text).rule()
    }

    /// Everything that makes `diff` fail by this rule. A rule about nothing that both sides have
    /// fires too: a gate that sees nothing must not stand open.
    pub(crate) fn check(&self, diff: &Diff) -> Vec<Fired> {
        let fired = |why: String| Fired {
            rule: self.text.clone(),
            why,
        };
        if self.geomean {
            let Some(overall) = diff.overall.get(&self.measure) else {
                return vec![fired(format!("no cell on both sides has {}", self.measure))];
            };
            let change = (overall.b / overall.a - 1.0) * 100.0;
            let cells = overall.cells;
            let why = format!("the geometric mean of {cells} cells changed by {change:+.1} %");
            return self.holds(change).then(|| fired(why)).into_iter().collect();
        }
        let mut all = Vec::new();
        let (mut judged, mut about) = (0, 0);
        for row in diff.rows.iter().filter(|row| self.concerns(&row.key)) {
            about += 1;
            let Some(number) = row.numbers.get(&self.measure) else {
                continue;
            };
            judged += usize::from(number.outcome != Outcome::Untested);
            let change = number.ratio.map(|ratio| (ratio - 1.0) * 100.0);
            let named = matches!(number.outcome, Outcome::Better | Outcome::Worse);
            if let Some(change) = change.filter(|change| named && self.holds(*change)) {
                all.push(fired(format!("{}: {change:+.1} %", row.key)));
            }
        }
        let gone = diff.missing.iter().map(|key| (key, "missing".to_owned()));
        // What A could not show either was not lost.
        let lost = |left: &&LeftOut| {
            let in_a = |other: &LeftOut| other.side == 0 && other.whole && other.key == left.key;
            left.whole && left.side == 1 && !diff.left_out.iter().any(in_a)
        };
        let left_out = diff.left_out.iter().filter(lost);
        let left_out = left_out.map(|left| (&left.key, left.reason.clone()));
        for (key, why) in gone.chain(left_out).filter(|(key, _)| self.concerns(key)) {
            all.push(fired(format!(
                "{key}: cannot be judged: {why} in {}",
                diff.names[1]
            )));
        }
        if all.is_empty() && judged == 0 {
            all.push(fired(format!(
                "cannot be judged: of {about} cells that it is about, none has samples enough of {}",
                self.measure
            )));
        }
        all
    }

    fn holds(&self, change: f64) -> bool {
        match self.bound {
            Bound::Above => change > self.percent,
            Bound::AtLeast => change >= self.percent,
            Bound::Below => change < self.percent,
            Bound::AtMost => change <= self.percent,
        }
    }

    fn concerns(&self, key: &CellKey) -> bool {
        self.filters
            .iter()
            .all(|(name, value)| key.get(name).as_deref() == Some(value))
    }
}

struct Reader<'a> {
    text: &'a str,
    letters: Vec<char>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            letters: text.chars().collect(),
            at: 0,
        }
    }

    fn error(&self, from: usize, message: &str, hint: &str) -> RuleError {
        RuleError {
            text: self.text.to_owned(),
            at: from,
            length: self.at.saturating_sub(from),
            message: message.to_owned(),
            hint: hint.to_owned(),
        }
    }

    fn blank(&mut self) {
        while self.letters.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, mut wanted: impl FnMut(char) -> bool) -> String {
        let from = self.at;
        while self.letters.get(self.at).is_some_and(|c| wanted(*c)) {
            self.at += 1;
        }
        self.letters[from..self.at].iter().collect()
    }

    fn word(&mut self) -> String {
        self.take(|c| c.is_alphanumeric() || c == '_')
    }

    fn rule(mut self) -> Result<Rule, RuleError> {
        self.blank();
        let mut from = self.at;
        let mut name = self.word();
        let geomean = name == "geomean" && self.letters.get(self.at) == Some(&'(');
        if geomean {
            self.at += 1;
            from = self.at;
            name = self.word();
        }
        let Some(measure) = Measure::from_name(&name) else {
            return Err(self.error(from, &format!("no measure `{name}`"), &nearest(&name)));
        };
        if geomean && self.take(|c| c == ')').is_empty() {
            return Err(self.error(self.at, "no `)`", "geomean(MEASURE)"));
        }
        let bound = self.bound()?;
        let percent = self.percent()?;
        let filters = self.filters()?;
        if geomean && !filters.is_empty() {
            let hint = "the geometric mean is over all cells";
            return Err(self.error(0, "`where` does not go with geomean", hint));
        }
        Ok(Rule {
            text: self.text.trim().to_owned(),
            measure,
            geomean,
            bound,
            percent,
            filters,
        })
    }

    fn bound(&mut self) -> Result<Bound, RuleError> {
        self.blank();
        let from = self.at;
        match self.take(|c| "<>=".contains(c)).as_str() {
            ">" => Ok(Bound::Above),
            ">=" => Ok(Bound::AtLeast),
            "<" => Ok(Bound::Below),
            "<=" => Ok(Bound::AtMost),
            _ => Err(self.error(from, "no comparison", "one of > >= < <=")),
        }
    }

    fn percent(&mut self) -> Result<f64, RuleError> {
        self.blank();
        let from = self.at;
        let number = self.take(|c| c.is_ascii_digit() || "+-.".contains(c));
        let Ok(percent) = number.parse::<f64>() else {
            return Err(self.error(
                from,
                "no number",
                "a change in percent, such as 5% or -2.5%",
            ));
        };
        self.blank();
        if self.take(|c| c == '%').len() != 1 {
            return Err(self.error(self.at, "no `%`", "changes are in percent: 5%"));
        }
        Ok(percent)
    }

    fn filters(&mut self) -> Result<Vec<(String, String)>, RuleError> {
        self.blank();
        let mut filters = Vec::new();
        if self.at == self.letters.len() {
            return Ok(filters);
        }
        let from = self.at;
        if self.take(|c| !c.is_whitespace()) != "where" {
            return Err(self.error(from, "something after the rule", "where KEY=VALUE"));
        }
        loop {
            self.blank();
            let from = self.at;
            let key = match self.take(|c| c != '=' && c != ',').trim() {
                LABEL_ALIAS => "label".to_owned(),
                key => key.to_owned(),
            };
            let known = CellKey::KEYS.contains(&key.as_str()) || key.contains('.');
            if !known {
                let known = CellKey::KEYS.map(shown_axis);
                let hint = format!("one of {}, or an axis", known.join(", "));
                return Err(self.error(from, &format!("no coordinate `{key}`"), &hint));
            }
            if self.take(|c| c == '=').len() != 1 {
                return Err(self.error(self.at, "no `=`", "KEY=VALUE"));
            }
            let value = self.take(|c| c != ',').trim().to_owned();
            let state = CacheState::from_name(&value).filter(|_| key == "state");
            let value = state.map_or(value, |state| state.name().to_owned());
            filters.push((key, value));
            if self.take(|c| c == ',').is_empty() {
                return Ok(filters);
            }
        }
    }
}

/// What may have been meant.
fn nearest(name: &str) -> String {
    let names: Vec<String> = Measure::all().iter().map(ToString::to_string).collect();
    let near = names
        .iter()
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    match near {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!("one of {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(Rule::parse(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn plans_and_files_name_states_and_workloads_in_their_own_words() {
        let filters = |filter: &str| {
            let rule = Rule::parse(&format!("ttft_p50 > 5% where {filter}"));
            rule.unwrap().filters
        };
        let new = filters("workload=rag, state=tier-hit");
        assert_eq!(new, filters("label=rag, state=tier"));
        assert_eq!(new[1], ("state".to_owned(), "tier".to_owned()));
    }

    #[test]
    fn reads_every_form() {
        let rule = Rule::parse(" ttft_p50>5% ").unwrap();
        assert_eq!((rule.text.as_str(), rule.percent), ("ttft_p50>5%", 5.0));
        assert!(rule.holds(5.1) && !rule.holds(5.0));
        let rule = Rule::parse("output_tokens_per_s <= -2.5 % where tier=cpu, server.args.x = a b");
        let rule = rule.unwrap();
        assert!(rule.holds(-2.5) && !rule.holds(-2.4));
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(
            rule.filters,
            [pair("tier", "cpu"), pair("server.args.x", "a b")]
        );
        assert!(Rule::parse("geomean(e2e_p50) >= +1%").unwrap().geomean);
    }

    #[test]
    fn errors_point_at_the_column() {
        refused(
            "ttf_p50 > 5%",
            "--fail-on: no measure `ttf_p50` at column 1\n  | ttf_p50 > 5%\n  | ^^^^^^^ did you mean \
             `ttft_p50`?",
        );
        refused(
            "ttft_p50 = 5%",
            "--fail-on: no comparison at column 10\n  | ttft_p50 = 5%\n  |          ^ one of > >= < <=",
        );
        refused(
            "ttft_p50 > 5",
            "--fail-on: no `%` at column 13\n  | ttft_p50 > 5\n  |             ^ changes are in \
             percent: 5%",
        );
        refused(
            "ttft_p50 > five%",
            "--fail-on: no number at column 12\n  | ttft_p50 > five%\n  |            ^ a change in \
             percent, such as 5% or -2.5%",
        );
        refused(
            "ttft_p50 > 5% where teir=cpu",
            "--fail-on: no coordinate `teir` at column 21\n  | ttft_p50 > 5% where teir=cpu\n  |                     \
             ^^^^ one of workload, tier, state, concurrency, prompt_len, gen_len, or an axis",
        );
        refused(
            "ttft_p50 > 5% now",
            "--fail-on: something after the rule at column 15\n  | ttft_p50 > 5% now\n  |               ^^^ where \
             KEY=VALUE",
        );
    }
}
