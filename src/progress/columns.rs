//! Cells and phases in words that fit a line of 80 columns.

use crate::load::{Outcome, RequestRecord};
use crate::matrix::Coordinates;
use crate::plan::state::CacheState;
use crate::record::schema::{CellOutcome, Phase, VerdictStatus};
use crate::report::number::brief;
use crate::runner::result::{CellResult, Pass, Work};
use crate::stats::quantile;
use crate::units::grouped;

/// How wide the coordinates of a run's cells are, and which of them vary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    label: Option<usize>,
    tier: usize,
    length: usize,
    concurrency: usize,
    has_repeats: bool,
    has_gen_lens: bool,
}

/// Whether `all` differ in what `of` takes from each.
pub(super) fn varies<T: PartialEq>(all: &[Coordinates], of: impl Fn(&Coordinates) -> T) -> bool {
    let mut each = all.iter().map(of);
    let first = each.next();
    each.any(|one| Some(one) != first)
}

/// The values of further axes, each behind the last word of its key: `chunk_size 256`.
pub(super) fn further(at: &Coordinates) -> impl Iterator<Item = String> {
    at.extra.iter().map(|(key, value)| {
        let last = key.rsplit('.').next().unwrap_or(key);
        format!("{last} {value}")
    })
}

impl Columns {
    /// Those of the cells of `work`.
    pub(super) fn of(work: Work<'_>) -> Self {
        let cells = work.todo.iter().filter_map(|&at| work.matrix.cells.get(at));
        Self::over(&cells.map(|cell| cell.coordinates).collect::<Vec<_>>())
    }

    fn over(all: &[Coordinates]) -> Self {
        let widest = |text: &dyn Fn(&Coordinates) -> String| {
            let widths = all.iter().map(|at| text(at).chars().count());
            widths.max().unwrap_or(0)
        };
        let label = |at: &Coordinates| at.label.clone();
        Self {
            label: varies(all, label).then(|| widest(&label)),
            tier: widest(&|at| at.tier.clone()),
            length: widest(&|at| grouped(at.prompt_len)),
            concurrency: widest(&|at| at.concurrency.to_string()),
            has_repeats: varies(all, |at| at.repeat.to_string()),
            has_gen_lens: varies(all, |at| at.gen_len.to_string()),
        }
    }

    /// `rag  redis  1,024 tokens  x4  r2`, each coordinate in its column.
    pub(super) fn cell(&self, at: &Coordinates) -> String {
        let mut text = String::new();
        if let Some(width) = self.label {
            text.push_str(&format!("{:<width$}  ", at.label));
        }
        text.push_str(&format!(
            "{:<tier$}  {:>length$} tokens  x{:<concurrency$}",
            at.tier,
            grouped(at.prompt_len),
            at.concurrency.to_string(),
            tier = self.tier,
            length = self.length,
            concurrency = self.concurrency,
        ));
        if self.has_gen_lens {
            text.push_str(&format!("  gen {}", at.gen_len));
        }
        for value in further(at) {
            text.push_str(&format!("  {value}"));
        }
        if self.has_repeats {
            text.push_str(&format!("  r{}", at.repeat));
        }
        text
    }
}

/// A phase in words: `filling the tier`.
pub(super) fn doing(phase: Phase, state: Option<CacheState>, server: &str) -> String {
    match (phase, state) {
        (Phase::Launch | Phase::Ready, Some(CacheState::Restart)) => format!("restarting {server}"),
        (Phase::Launch | Phase::Ready, _) => format!("starting {server}"),
        (Phase::Warm, None) => "warming up".to_owned(),
        (Phase::Warm, Some(CacheState::Cold)) => "emptying the caches".to_owned(),
        (Phase::Warm, Some(CacheState::Gpu)) => "filling the GPU's cache".to_owned(),
        (Phase::Warm, Some(CacheState::Tier | CacheState::Restart)) => {
            "filling the tier".to_owned()
        }
        (Phase::Load, Some(state)) => format!("measuring {}", state.title()),
        (Phase::Load, None) => "measuring".to_owned(),
        (Phase::Verify, _) => "checking".to_owned(),
        (Phase::Stop, _) => format!("stopping {server}"),
    }
}

/// How a cell ended.
pub(super) struct CellEnd {
    /// `cold 30 ms  tier hit 76 ms  proven`.
    pub words: String,
    /// Why it failed or is not proven: what it concerns, and the reason.
    pub causes: Vec<(String, String)>,
}

/// How `result` ended.
pub(super) fn outcome(result: &CellResult) -> CellEnd {
    let mut words: Vec<String> = result.passes.iter().map(pass).collect();
    let mut causes = Vec::new();
    for pass in &result.passes {
        let verdict = &pass.verdict;
        if verdict.status != VerdictStatus::Valid {
            let reason = result.record.reason(verdict).unwrap_or_default();
            let of = format!("{} {}: ", pass.state.title(), verdict.status.name());
            causes.push((of, reason));
        }
    }
    match &result.record.outcome {
        CellOutcome::Completed if causes.is_empty() => words.push("proven".to_owned()),
        CellOutcome::Completed => words.push("NOT PROVEN".to_owned()),
        CellOutcome::Aborted { .. } => {
            // What was cut short proves nothing, for a reason that everybody knows.
            causes.clear();
            words.push("interrupted, discarded".to_owned());
        }
        CellOutcome::Failed { phase, error, .. } => {
            words.push(format!("FAILED in {}", phase.name()));
            causes.push((String::new(), error.clone()));
        }
    }
    CellEnd {
        words: words.join("  "),
        causes,
    }
}

/// The median time to the first token of the requests that were answered, milliseconds.
pub(super) fn median_ms(pass: &Pass) -> Option<f64> {
    let is_ok = |record: &&RequestRecord| record.outcome == Outcome::Ok;
    let answered = pass.load.records.iter().filter(is_ok);
    let mut ttft_ms: Vec<f64> = answered
        .filter_map(|record| Some(record.ttft()?.as_secs_f64() * 1e3))
        .collect();
    ttft_ms.sort_by(f64::total_cmp);
    quantile(&ttft_ms, 0.5)
}

/// `cold 30 ms`, with what became of requests that were not answered.
fn pass(pass: &Pass) -> String {
    let state = pass.state.title();
    let mut text = match median_ms(pass) {
        Some(median) => format!("{state} {}", brief(median)),
        None => format!("{state} -"),
    };
    let counts = pass.load.counts();
    let lost = counts.failed + counts.unfinished;
    if lost > 0 {
        text.push_str(&format!(" ({lost} of {} not answered)", counts.sent));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

    fn at(tier: &str, prompt_len: u32, concurrency: u32) -> Coordinates {
        Coordinates {
            label: "rag".to_owned(),
            tier: tier.to_owned(),
            prompt_len: PromptLen::new(prompt_len).unwrap(),
            gen_len: GenLen::new(8).unwrap(),
            concurrency: Concurrency::new(concurrency).unwrap(),
            repeat: Repeat::new(1).unwrap(),
            extra: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn cells_stand_below_each_other_and_what_does_not_vary_is_left_out() {
        let cells = [at("baseline", 512, 1), at("cpu", 16_384, 16)];
        let columns = Columns::over(&cells);
        let lines = cells.each_ref().map(|cell| columns.cell(cell));
        assert_eq!(
            lines,
            [
                "baseline     512 tokens  x1 ",
                "cpu       16,384 tokens  x16"
            ]
        );
        let labelled = Coordinates {
            label: "chat".to_owned(),
            repeat: Repeat::new(2).unwrap(),
            ..at("cpu", 512, 1)
        };
        let columns = Columns::over(&[at("cpu", 512, 1), labelled.clone()]);
        assert_eq!(columns.cell(&labelled), "chat  cpu  512 tokens  x1  r2");
    }

    #[test]
    fn phases_are_words_of_a_reader() {
        let words = |phase, state| doing(phase, state, "vLLM");
        assert_eq!(words(Phase::Ready, None), "starting vLLM");
        assert_eq!(
            words(Phase::Warm, Some(CacheState::Tier)),
            "filling the tier"
        );
        assert_eq!(words(Phase::Load, Some(CacheState::Cold)), "measuring cold");
        assert_eq!(words(Phase::Verify, Some(CacheState::Cold)), "checking");
        assert_eq!(
            words(Phase::Launch, Some(CacheState::Restart)),
            "restarting vLLM"
        );
    }
}
