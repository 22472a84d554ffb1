use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::plan::state::CacheState;
use crate::record::schema::{Phase, VerdictStatus};

/// Three tiers at one place, with numbers to check by hand: each request ends 30 ms after its
/// first token and has 1030 prompt tokens and 4 output tokens; each pass lasts 2 s.
fn small() -> Bench {
    let mut bench = Bench::new();
    let tier = CacheState::Tier;
    bench
        .cell("baseline", 1024, 8, 1)
        .pass(tier, &rows_of(&[100.0, 110.0, 120.0, 130.0], 0));
    bench
        .cell("cpu", 1024, 8, 1)
        .pass(tier, &rows_of(&[20.0, 22.0, 28.0, 30.0], 1));
    bench
        .cell("disk", 1024, 8, 1)
        .pass(tier, &rows_of(&[40.0, 44.0], 0))
        .verdict(VerdictStatus::Invalid, "the page cache answered");
    bench
        .cell("redis", 1024, 8, 1)
        .failed(Phase::Ready, "no answer in 300 s");
    bench
}

fn report(bench: &Bench) -> Report {
    Report::of(&bench.run(), "long_context").unwrap()
}

#[test]
fn the_terminal_shows_everything_that_fits() {
    insta::assert_snapshot!(report(&small()).terminal(100).trim_end());
}

#[test]
fn every_table_shows_a_tier_that_no_text_proves() {
    let mut bench = Bench::new();
    let tier = CacheState::Tier;
    let times = rows_of(&[100.0, 110.0, 120.0, 130.0], 0);
    bench.cell("baseline", 1024, 8, 1).pass(tier, &times);
    bench
        .cell("cpu", 1024, 8, 1)
        .pass(tier, &rows_of(&[20.0, 22.0, 28.0, 30.0], 1))
        .verdict(VerdictStatus::Valid, "text optional: blind");
    let report = report(&bench);
    for text in [report.terminal(120), report.markdown()] {
        assert!(
            text.contains("text optional: no text proves this tier"),
            "{text}"
        );
        assert!(text.contains("text optional: blind"), "{text}");
    }
    let tiers = crate::aggregate::tiers(&report.comparison);
    assert_eq!(tiers[1].text_optional, 1);
    assert!(report.summary_csv().contains("text optional: blind"));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [80, 100, 120] {
        for line in report(&small()).terminal(width).lines() {
            assert!(
                line.chars().count() <= usize::from(width),
                "{width}: {line}"
            );
        }
    }
}

#[test]
fn markdown_has_headline_tables_figures_notes_and_glossary() {
    let text = report(&small()).markdown();
    let (body, glossary) = text.split_once("\n## Glossary\n\n").unwrap();
    assert_eq!(glossary, super::glossary());
    insta::assert_snapshot!(body.trim_end());
}

#[test]
fn files_are_stable_and_leave_out_what_is_not_known() {
    insta::assert_snapshot!(report(&small()).summary_csv().trim_end());
    insta::assert_snapshot!(report(&small()).comparison_csv().trim_end());
}

#[test]
fn further_axes_are_columns_by_their_key() {
    let run = small().run();
    let mut cells = run.cells.clone();
    for cell in &mut cells {
        cell.coordinates
            .extra
            .insert("server.args.x".to_owned(), "7".to_owned());
    }
    let report = Report::of(&RunData { cells, ..run }, "x").unwrap();
    assert!(
        report
            .summary_csv()
            .starts_with("label,gen_len,server.args.x,state,")
    );
    assert!(report.summary_csv().contains("\nlong_context,4,7,tier,"));
    assert!(report.comparison_csv().contains("\nlong_context,4,7,tier,"));
    assert!(
        report
            .markdown()
            .contains("gen_len 4, server.args.x 7, concurrency 8")
    );
}

#[test]
fn a_run_without_passes_has_a_report_and_no_figures() {
    let mut bench = Bench::new();
    bench
        .cell("cpu", 1024, 1, 1)
        .failed(Phase::Launch, "no such image");
    let report = report(&bench);
    assert_eq!(report.drawings().unwrap(), []);
    assert!(
        report
            .markdown()
            .contains("- cell `cpu-p1024-c1-r1` failed in launch: no such image")
    );
    assert!(
        report
            .terminal(80)
            .contains("Not measured to the end, 1 cell: cpu-p1024-c1-r1.")
    );
    assert!(
        self::report(&Bench::new())
            .terminal(80)
            .starts_with("Nothing to compare")
    );
}

#[test]
fn figures_come_as_twins() {
    let drawings = report(&small()).drawings().unwrap();
    let names: Vec<_> = drawings
        .iter()
        .map(|drawing| drawing.name.as_str())
        .collect();
    assert!(
        names.starts_with(&["comparison_ttft", "comparison_e2e"]),
        "{names:?}"
    );
    for drawing in &drawings {
        let [(name, png), _] = drawing.files().unwrap();
        assert_eq!(name, format!("{}.png", drawing.name));
        assert!(png.starts_with(b"\x89PNG") && drawing.svg.starts_with("<svg"));
        assert!(drawing.svg.contains("simulated"), "{}", drawing.name);
    }
    let svg = |at: usize| drawings[at].svg.as_str();
    assert!(svg(0).contains("Time to first token") && !svg(0).contains("End-to-end"));
    assert!(svg(1).contains("End-to-end latency") && svg(1).contains("sim-8b"));
}

#[test]
fn figures_leave_controls_to_the_tables() {
    let mut bench = small();
    bench
        .cell("cpu", 4096, 8, 1)
        .labelled("control-no-reuse")
        .pass(CacheState::Tier, &rows_of(&[20.0, 22.0], 0));
    let report = report(&bench);
    let drawings = report.drawings().unwrap();
    assert!(!drawings.is_empty());
    for drawing in drawings {
        assert!(!drawing.svg.contains("control"), "{}", drawing.name);
    }
    assert!(report.markdown().contains("control-no-reuse"));
}
