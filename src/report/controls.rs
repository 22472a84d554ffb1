//! The results of the controls, in a sentence each.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{Comparison, ControlOutcome, ControlResult};
use crate::report::number::times;

/// One sentence a control and point of the further axes: whether a tier wins where it cannot, and
/// the speedup of each.
pub(super) fn lines(comparison: &Comparison) -> Vec<String> {
    let mut controls: BTreeMap<_, Vec<&ControlOutcome>> = BTreeMap::new();
    for one in &comparison.controls {
        let key = (&one.place.label, &one.place.extra);
        controls.entry(key).or_default().push(one);
    }
    let line = |((label, extra), outcomes): ((&String, &BTreeMap<String, String>), Vec<_>)| {
        let axes: Vec<_> = extra
            .iter()
            .map(|(key, value)| format!(", {key} {value}"))
            .collect();
        format!(
            "Control `{label}`{}: {}; TTFT against the baseline: {}.",
            axes.concat(),
            verdict(&outcomes),
            each_tier(&outcomes)
        )
    };
    controls.into_iter().map(line).collect()
}

fn verdict(outcomes: &[&ControlOutcome]) -> String {
    let of = |wanted: fn(&ControlResult) -> bool| -> Vec<&str> {
        let tiers = outcomes.iter().filter(|one| wanted(&one.result));
        let tiers: BTreeSet<_> = tiers.map(|one| one.tier.as_str()).collect();
        tiers.into_iter().collect()
    };
    let wins = of(|result| matches!(result, ControlResult::Win(_)));
    let inconclusive = of(|result| matches!(result, ControlResult::Inconclusive(_)));
    if !wins.is_empty() {
        return format!(
            "{} appears FASTER where offloading cannot help, and its comparisons are withheld",
            wins.join(", ")
        );
    }
    match inconclusive.as_slice() {
        [] => "no tier appears faster where offloading cannot help".to_owned(),
        some => format!("no result for {}", some.join(", ")),
    }
}

/// `cpu 1.02x (cold), 0.98x (tier hit); disk unknown (cold: ...)`.
fn each_tier(outcomes: &[&ControlOutcome]) -> String {
    let mut tiers: Vec<(&str, Vec<String>)> = Vec::new();
    for one in outcomes {
        let state = one.place.state;
        let result = match &one.result {
            ControlResult::NoWin(speedup) | ControlResult::Win(speedup) => {
                format!("{} ({})", times(*speedup), state.title())
            }
            ControlResult::Inconclusive(why) => format!("unknown ({}: {why})", state.title()),
        };
        match tiers.iter_mut().find(|(tier, _)| *tier == one.tier) {
            Some((_, all)) => all.push(result),
            None => tiers.push((&one.tier, vec![result])),
        }
    }
    let tiers = tiers.into_iter();
    let tiers: Vec<_> = tiers
        .map(|(tier, results)| format!("{tier} {}", results.join(", ")))
        .collect();
    tiers.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::compare;
    use crate::aggregate::fixture::{Bench, rows_of};
    use crate::matrix::controls::{FITS_GPU, NO_REUSE};
    use crate::plan::state::CacheState::{Cold, Gpu, Tier};
    use crate::record::schema::VerdictStatus;
    use crate::report::Report;
    use crate::report::timeline::Timelines;

    fn around(ms: f64) -> Vec<f64> {
        (0..12).map(|at| ms + f64::from(at)).collect()
    }

    /// A comparison at one place, and controls on which cpu wins or not.
    fn bench(cpu_without_reuse_ms: f64) -> Bench {
        let mut bench = Bench::new();
        for (tier, ms) in [("baseline", 200.0), ("cpu", 100.0), ("disk", 150.0)] {
            bench
                .cell(tier, 1024, 1, 1)
                .pass(Tier, &rows_of(&around(ms), 0));
        }
        for (tier, ms) in [
            ("baseline", 200.0),
            ("cpu", cpu_without_reuse_ms),
            ("disk", 200.0),
        ] {
            let no_reuse = bench.cell(tier, 512, 1, 1).labelled(NO_REUSE);
            let rows = rows_of(&around(ms), 0);
            let no_reuse = no_reuse.pass(Cold, &rows).pass(Tier, &rows);
            if tier == "disk" {
                no_reuse.verdict(VerdictStatus::Invalid, "the page cache answered");
            }
            let fits = bench.cell(tier, 512, 1, 1).labelled(FITS_GPU);
            fits.pass(Gpu, &rows_of(&around(20.0), 0));
        }
        bench
    }

    #[test]
    fn each_control_is_one_sentence_with_its_outcome() {
        let sentences = lines(&compare(&bench(198.0).run()).unwrap());
        assert_eq!(
            sentences,
            [
                "Control `control-fits-gpu`: no tier appears faster where offloading cannot help; TTFT \
                 against the baseline: cpu 1.00x (GPU hit); disk 1.00x (GPU hit).",
                "Control `control-no-reuse`: no result for disk; TTFT against the baseline: \
                 cpu 1.01x (cold), 1.01x (tier hit); disk 1.00x (cold), unknown (tier hit: disk is \
                 invalid: the page cache answered).",
            ]
        );
        let sentences = lines(&compare(&bench(100.0).run()).unwrap());
        let wins = "cpu appears FASTER where offloading cannot help, and its comparisons are withheld; TTFT against \
                    the baseline: cpu 1.95x (cold), 1.95x (tier hit); disk ";
        assert!(sentences[1].contains(wins), "{}", sentences[1]);
    }

    #[test]
    fn the_terminal_has_the_sentences_and_the_files_the_rows() {
        let report = Report::of(&bench(198.0).run(), "t").unwrap();
        let shown = report.terminal(200);
        assert_eq!(shown.matches("control-no-reuse").count(), 1, "{shown}");
        assert_eq!(shown.matches("control-fits-gpu").count(), 1, "{shown}");
        assert!(
            shown.contains("not shown: 9 rows of controls; report.html has them"),
            "{shown}"
        );
        assert!(!shown.contains("a control"), "{shown}");
        let timelines = &mut Timelines::default();
        let html = report.html(&[], &[], timelines).unwrap().report;
        for text in [report.summary_csv(), report.comparison_csv(), html] {
            assert!(text.matches("control-no-reuse").count() >= 4);
            assert!(text.matches("control-fits-gpu").count() >= 2);
        }
    }

    #[test]
    fn a_run_without_controls_has_no_line_about_them() {
        let mut bench = Bench::new();
        for tier in ["baseline", "cpu"] {
            bench
                .cell(tier, 1024, 1, 1)
                .pass(Tier, &rows_of(&around(10.0), 0));
        }
        let report = Report::of(&bench.run(), "t").unwrap();
        assert!(!report.terminal(100).to_lowercase().contains("control"));
    }
}
