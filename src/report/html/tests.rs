use serde_json::json;

use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::plan::state::CacheState;
use crate::record::schema::{CellOutcome, LedgerRow, Phase, Source, VerdictStatus};
use crate::report::timeline::page::tests::strips;

const EVIL: &str = "<script>alert(1)</script>";

fn bench() -> Bench {
    let mut bench = Bench::new();
    let tier = CacheState::Tier;
    for length in [1024, 4096] {
        bench
            .cell("baseline", length, 8, 1)
            .pass(tier, &rows_of(&[100.0, 110.0, 120.0, 130.0], 0));
        bench
            .cell("cpu", length, 8, 1)
            .pass(tier, &rows_of(&[20.0, 22.0, 28.0, 30.0], 1));
    }
    bench
        .cell("disk", 1024, 8, 1)
        .pass(tier, &rows_of(&[40.0, 44.0], 0))
        .verdict(VerdictStatus::Invalid, "the page cache answered");
    bench
}

fn page(report: &Report, facts: &[RunFacts]) -> String {
    let drawings = report.drawings().unwrap();
    let timelines = &mut Timelines::default();
    report.html(facts, &drawings, timelines).unwrap().report
}

#[test]
fn evidence_that_is_too_much_for_the_page_stands_in_pages_that_the_rows_lead_to() {
    let run = bench().run();
    let report = Report::of(&run, "t").unwrap();
    let html = |evidence_bytes| {
        let timelines = &mut Timelines::default();
        within((PAGE_BYTES, evidence_bytes), &report, &[], &[], timelines).unwrap()
    };
    let whole = html(EVIDENCE_BYTES);
    assert_eq!(whole.pages, []);
    assert!(whole.report.contains("<details id=\"cell-4\">"));
    assert!(
        whole
            .report
            .contains("href=\"#cell-4\" class=\"verdict invalid\"")
    );
    let paged = html(100);
    assert!(paged.report.len() < whole.report.len());
    assert!(!paged.report.contains("<details id=\"cell-4\">"));
    let [(name, page)] = &paged.pages[..] else {
        panic!("{:?}", paged.pages)
    };
    assert_eq!(name, "evidence/cells-1.html");
    assert!(page.contains("<details id=\"cell-4\">") && page.contains("cells 1 to 5"));
    for link in [
        "href=\"evidence&#x2f;cells-1.html#cell-4\" class=\"verdict invalid\"",
        "1 to 5</a>",
        "1 of them failed or are not valid",
    ] {
        assert!(paged.report.contains(link), "{link}");
    }
}

#[test]
fn a_figure_of_thousands_of_points_stands_in_the_page_as_pixels() {
    let report = Report::of(&bench().run(), "t").unwrap();
    let mut drawings = report.drawings().unwrap();
    let small = figures(&drawings).unwrap();
    assert!(small.iter().all(|figure| figure.svg.starts_with("<svg")));
    drawings[0].svg.push_str(&" ".repeat(MAX_SVG_BYTES));
    let large = figures(&drawings).unwrap();
    let picture = "<img src=\"data:image/png;base64,iVBORw0KGgo";
    assert!(large[0].svg.starts_with(picture));
    assert!(large[0].svg.len() < MAX_SVG_BYTES && large[1].svg.starts_with("<svg"));
}

#[test]
fn timelines_take_the_room_that_the_page_leaves_and_the_others_are_named() {
    let run = bench().run();
    let report = Report::of(&run, "t").unwrap();
    let drawn = |page_bytes: usize, strip_bytes: usize| {
        let mut timelines = strips(run.cells.len(), strip_bytes);
        let page = within(
            (page_bytes, EVIDENCE_BYTES),
            &report,
            &[],
            &[],
            &mut timelines,
        )
        .unwrap()
        .report;
        assert!(!page.contains("<!-- timeline -->"), "a place is empty");
        let inline = page.matches("<details class=\"timeline\">").count();
        let files = timelines.files().map(|(name, _)| name.to_owned());
        (page, inline, files.collect::<Vec<_>>())
    };
    let (page, inline, files) = drawn(PAGE_BYTES, 100);
    assert_eq!((inline, files.len()), (5, 0));
    assert!(!page.contains("timelines are in this page"));
    // Of five with 200 kB each, the least room holds two; with a larger page four fit.
    for (page_bytes, fit) in [(0, 2), (1_000_000, 4)] {
        let (page, inline, files) = drawn(page_bytes, 200_000);
        assert_eq!((inline, files.len()), (fit, 5 - fit));
        assert!(page.contains(&format!("{fit} of 5 timelines are in this page")));
        for file in files {
            let remark = format!("left out for the page&#x27;s size: figures&#x2f;{file}");
            assert!(page.contains(&remark), "{remark}");
        }
    }
}

fn facts(plan: &str) -> RunFacts {
    RunFacts {
        name: "long_context".to_owned(),
        plan: Some(plan.to_owned()),
        manifest: serde_json::from_value(
            json!({"run": "r1", "settings": {"hf_token": "hf_secret"}}),
        )
        .unwrap(),
    }
}

#[test]
fn nothing_of_a_run_is_taken_for_markup() {
    let mut run = bench().run();
    for cell in &mut run.cells {
        cell.coordinates.label = EVIL.to_owned();
        EVIL.clone_into(&mut cell.model);
        cell.warnings = vec![EVIL.to_owned()];
        cell.passes[0].verdict.reasons = vec![EVIL.to_owned()];
        cell.outcome = CellOutcome::Failed {
            phase: Phase::Load,
            error: EVIL.to_owned(),
            log_tail: vec![EVIL.to_owned()],
        };
        cell.id = format!("{EVIL}{}", cell.position);
    }
    let report = Report::of(&run, EVIL).unwrap();
    let page = page(&report, &[facts(EVIL)]);
    assert!(page.contains("&lt;script&gt;"));
    assert!(!page.contains(EVIL));
    // One script, the page's own, and it alone may run.
    assert_eq!(page.matches("<script").count(), 1);
    let (_, nonce) = page.split_once("script-src 'nonce-").unwrap();
    let (nonce, _) = nonce.split_once('\'').unwrap();
    assert!(page.contains(&format!("<script nonce=\"{nonce}\">")));
}

#[test]
fn the_page_needs_nothing_else_and_hides_secrets() {
    let report = Report::of(&bench().run(), "t").unwrap();
    let plan = "url = \"redis://me:s3cret@10.0.0.1:6379\"";
    let page = page(&report, &[facts(plan)]);
    for outside in ["http://", "https://", "src=\"", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains("s3cret") && !page.contains("hf_secret"));
    assert!(page.contains("redis:&#x2f;&#x2f;***@10.0.0.1:6379"));
}

#[test]
fn the_answer_comes_first_with_each_tiers_gain_and_whether_it_is_proven() {
    let mut run = bench().run();
    let pass = &mut run.cells[1].passes[0];
    pass.ledger = vec![LedgerRow {
        path: "pcie-rx".to_owned(),
        tokens: 4096.0,
        expected_bytes: Some(4096.0 * 1024.0),
        moved_bytes: Some(4096.0 * 1024.0),
        method: "nvml-counters".to_owned(),
    }];
    pass.bottleneck = Some(crate::record::schema::Bottleneck {
        name: "pcie".to_owned(),
        reasons: vec!["PCIe at 92 %".to_owned()],
    });
    let report = Report::of(&run, "t").unwrap();
    let page = page(&report, &[facts("")]);
    let (_, answer) = page.split_once("<section id=\"answer\">").unwrap();
    let (answer, rest) = answer.split_once("</section>").unwrap();
    for expected in [
        "<b>cpu: use it at every measured length (4.6x at 4,096 tokens)</b>",
        "<b>disk: no answer: no pass of it is proven",
        "4.6x 25 ms",
        "not proven",
        "limit: pcie",
    ] {
        assert!(answer.contains(expected), "{expected} in {answer}");
    }
    for expected in [
        "4.60x",
        "1,024 or fewer",
        "2 of 2, 2 of 2 clear",
        "0 of 1, 1 invalid",
        "pcie (1)",
        "pcie-rx",
        "4.0 MiB",
        "1.00",
        "nvml-counters",
        "PCIe at 92 %",
        "the page cache answered",
    ] {
        assert!(rest.contains(expected), "{expected}");
    }
}

#[test]
fn simulated_numbers_are_marked_everywhere_and_measured_ones_are_not() {
    let report = Report::of(&bench().run(), "t").unwrap();
    let simulated = page(&report, &[facts("")]);
    assert!(simulated.contains("<title>t (simulated)</title>"));
    assert!(simulated.contains("class=\"badge simulated\">simulated<"));
    // At the top and at the end; each figure and each cell has the word beside it.
    let banner = "Simulated: these numbers come from";
    assert_eq!(simulated.matches(banner).count(), 2);
    let (_, cells) = simulated.split_once("<section id=\"evidence\">").unwrap();
    let marked = cells
        .matches("<span class=\"small\">simulated</span>")
        .count();
    assert_eq!(marked, report.cells.len());
    let mut run = bench().run();
    for cell in &mut run.cells {
        cell.source = Source::Measured;
    }
    let measured = page(&Report::of(&run, "t").unwrap(), &[facts("")]);
    let (before, _) = measured.split_once("<section id=\"glossary\">").unwrap();
    let (_, body) = before.split_once("</style>").unwrap();
    assert!(!body.to_lowercase().contains("simulated"));
}

#[test]
fn two_hundred_cells_fit_into_five_megabytes() {
    let mut bench = Bench::new();
    let ttft: Vec<f64> = (0..24).map(|at| 20.0 + f64::from(at * 7 % 24)).collect();
    for tier in ["baseline", "cpu", "disk", "redis"] {
        for length in [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
            for concurrency in [1, 2, 4, 8, 16] {
                bench
                    .cell(tier, length, concurrency, 1)
                    .pass(CacheState::Cold, &rows_of(&ttft, 0))
                    .pass(CacheState::Tier, &rows_of(&ttft, 0));
            }
        }
    }
    let mut run = bench.run();
    assert_eq!(run.cells.len(), 200);
    for pass in run.cells.iter_mut().flat_map(|cell| &mut cell.passes) {
        // As many figures as a real pass has.
        for at in 0..30 {
            pass.evidence
                .insert(format!("some_counter_of_the_engine_{at}_tokens"), 123_456.0);
        }
    }
    let report = Report::of(&run, "t").unwrap();
    let bytes = page(&report, &[facts("")]).len();
    assert!(bytes < 5_000_000, "{bytes} bytes");
}
