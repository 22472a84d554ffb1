use super::*;
use crate::aggregate::fixture::{Bench, realistic, rows_of};
use crate::plan::state::CacheState;
use crate::record::schema::Phase;

/// Lines and columns of a terminal that everybody has.
const LINES: usize = 24;
const COLUMNS: usize = 80;

fn screen_of(run: &crate::record::reader::RunData) -> String {
    let mut report = Report::of(run, "quickstart").unwrap();
    report.scope.span_s = Some(67.2);
    let text = report.screen("results/quickstart/20261130-101500-3f9c", 80);
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(COLUMNS), "{text}");
    assert!(
        text.lines().count() < LINES,
        "a prompt needs the last line\n{text}"
    );
    text
}

#[test]
fn the_answer_fits_a_screen_and_ends_with_where_the_report_is() {
    insta::assert_snapshot!(screen_of(&realistic()));
}

#[test]
fn failures_are_grouped_by_cause() {
    let mut bench = Bench::new();
    for length in [512, 1024, 4096] {
        for tier in ["baseline", "cpu"] {
            bench.cell(tier, length, 1, 1).failed(
                Phase::Launch,
                "pulling `vllm/vllm-openai:nope`: no such image",
            );
        }
    }
    let text = screen_of(&bench.run());
    assert!(
        text.contains("6 cells failed in launch: pulling `vllm/vllm-openai:nope`"),
        "{text}"
    );
    assert_eq!(text.matches("no such").count(), 1, "{text}");
}

#[test]
fn a_headline_never_comes_from_what_is_not_proven() {
    let mut bench = Bench::new();
    let rows = |ms: f64| rows_of(&[ms, ms + 1.0, ms + 2.0, ms + 3.0], 0);
    bench
        .cell("baseline", 1024, 1, 1)
        .pass(CacheState::Tier, &rows(100.0));
    bench
        .cell("cpu", 1024, 1, 1)
        .pass(CacheState::Tier, &rows(5.0))
        .verdict(VerdictStatus::Invalid, "hits claimed, nothing was loaded");
    let text = screen_of(&bench.run());
    assert!(text.contains("1 of 2 passes proven, SIMULATED"), "{text}");
    assert!(text.contains("1 pass invalid: hits claimed"), "{text}");
    assert!(!text.contains("use it") && !text.contains("20x"), "{text}");
}

#[test]
fn many_lengths_are_thinned_out() {
    assert_eq!(spread(3, 5), [0, 1, 2]);
    assert_eq!(spread(9, 3), [0, 4, 8]);
    assert_eq!(spread(9, 1), [8]);
}
