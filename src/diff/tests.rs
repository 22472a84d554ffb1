use super::judge::Basis;
use super::rule::Rule;
use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::plan::state::CacheState;
use crate::record::reader::RunData;
use crate::record::schema::{Source, VerdictStatus};

/// Five repeats of two tiers, `cpu` slower by `factor` than it is at 1.
fn run(factor: f64) -> RunData {
    let mut bench = Bench::new();
    for repeat in 1..=5 {
        for (tier, base) in [("baseline", 200.0), ("cpu", 50.0 * factor)] {
            let shift = 1.0 + 0.004 * f64::from(repeat * 7 % 5);
            let rows: Vec<f64> = (0..8)
                .map(|at| base * shift * (1.0 + 0.01 * f64::from(at)))
                .collect();
            bench
                .cell(tier, 1024, 1, repeat)
                .pass(CacheState::Tier, &rows_of(&rows, 0));
        }
    }
    bench.run()
}

fn side(name: &str, run: &RunData) -> Side {
    let facts = [("driver".to_owned(), format!("of {name}"))];
    Side::of_run(name, "made up".to_owned(), run, facts.into_iter().collect()).unwrap()
}

fn options() -> Options {
    Options {
        measures: Measure::DEFAULT.to_vec(),
        allow: Allow::default(),
        shown: Shown::All,
    }
}

fn changed() -> Options {
    Options {
        shown: Shown::Changed,
        ..options()
    }
}

#[test]
fn equal_runs_take_one_line_that_says_how_small_a_change_would_have_been_seen() {
    let diff = compare(&side("a", &run(1.0)), &side("b", &run(1.0)), &changed()).unwrap();
    let text = diff.terminal(&[], 200);
    let first = text.lines().next().unwrap();
    let opening =
        "No change in 8 numbers tested; least change that would have been seen: ttft_p50 0.";
    assert!(first.starts_with(opening), "{text}");
    assert!(!text.contains("less is better"), "no table:\n{text}");
    let hidden = "Not shown: 8 numbers without a change that could be named; --all shows them.";
    assert!(text.contains(hidden), "{text}");
    assert!(text.contains("What the numbers rest on differs"), "{text}");
    for text in [diff.markdown(&[]), diff.html(&[])] {
        assert!(text.contains("No change in 8 numbers tested"), "{text}");
    }
    let all = compare(&side("a", &run(1.0)), &side("b", &run(1.0)), &options()).unwrap();
    let text = all.terminal(&[], 200);
    assert!(
        text.contains("less is better") && !text.contains("Not shown"),
        "{text}"
    );
}

#[test]
fn rows_that_changed_stand_alone_above_the_mean_of_all() {
    let diff = compare(&side("a", &run(1.0)), &side("b", &run(1.2)), &changed()).unwrap();
    let text = diff.terminal(&[], 200);
    let first = text.lines().next().unwrap();
    assert!(
        first.contains(" of 8 numbers changed: 0 better, "),
        "{text}"
    );
    let table = text.split("less is better").nth(1).unwrap();
    let table = table.split("p over").next().unwrap();
    assert!(
        table.contains("cpu") && !table.contains("baseline"),
        "{text}"
    );
    assert!(table.contains("geomean of 2"), "{text}");
    assert_eq!(diff.json(&[])["rows"].as_array().unwrap().len(), 2);
}

#[test]
fn what_cannot_be_tested_is_not_called_equal() {
    let one = |factor: f64| {
        let mut bench = Bench::new();
        bench.cell("cpu", 1024, 1, 1).pass(
            CacheState::Tier,
            &rows_of(&[factor * 100.0, factor * 101.0], 0),
        );
        bench.run()
    };
    let diff = compare(&side("a", &one(1.0)), &side("b", &one(3.0)), &changed()).unwrap();
    let text = diff.terminal(&[], 200);
    assert!(
        text.starts_with("Whether anything changed is not known"),
        "{text}"
    );
    assert!(
        text.contains("+200.0%?"),
        "shown, as nothing else is:\n{text}"
    );
}

fn ttft() -> Measure {
    Measure::from_name("ttft_p50").unwrap()
}

#[test]
fn a_change_is_named_and_what_did_not_change_is_not() {
    let diff = compare(&side("a", &run(1.0)), &side("b", &run(1.2)), &options()).unwrap();
    let of = |tier: &str| {
        let row = diff.rows.iter().find(|row| row.key.tier == tier).unwrap();
        row.numbers[&ttft()].clone()
    };
    let (cpu, baseline) = (of("cpu"), of("baseline"));
    assert_eq!(
        (cpu.outcome, baseline.outcome),
        (Outcome::Worse, Outcome::Same)
    );
    assert!((cpu.ratio.unwrap() - 1.2).abs() < 1e-9);
    assert!((cpu.p.unwrap() - 2.0 / 252.0).abs() < 1e-12, "{cpu:?}");
    assert_eq!(
        (cpu.basis, cpu.repeats, cpu.n),
        (Basis::Repeats, (5, 5), (40, 40))
    );
    let overall = diff.overall[&ttft()];
    assert!((overall.b / overall.a - 1.2_f64.sqrt()).abs() < 1e-9);
    assert_eq!((overall.cells, overall.better, overall.worse), (2, 0, 1));
    // The noise floor is shown beside it.
    assert!(
        cpu.floor.unwrap() > 0.005 && cpu.floor.unwrap() < 0.05,
        "{cpu:?}"
    );
}

#[test]
fn every_format_is_marked_simulated_and_lists_what_differs() {
    let diff = compare(&side("a", &run(1.0)), &side("b", &run(1.2)), &options()).unwrap();
    let fired = Rule::parse("ttft_p50 > 5%").unwrap().check(&diff);
    let json = diff.json(&fired);
    for text in [
        diff.terminal(&fired, 100),
        diff.markdown(&fired),
        diff.html(&fired),
    ] {
        for expected in [
            "Simulated: these numbers",
            "+20.0%",
            "~",
            "of a",
            "of b",
            "geomean",
            "5+5",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(
            text.contains("long_context cpu tier-hit p1024 g4 c1: +20.0 %"),
            "{text}"
        );
    }
    assert_eq!(json["rows"][0]["source"], "simulated");
    assert_eq!(json["rows"][1]["measures"]["ttft_p50"]["outcome"], "worse");
    assert_eq!(json["provenance"][0]["a"], "of a");
    assert_eq!(json["failed"][0]["rule"], "ttft_p50 > 5%");
    let csv = crate::csv_table::Table::parse(&diff.csv()).unwrap();
    assert_eq!(csv.rows.len(), 2 * 4);
    let sources = csv.rows.iter().map(|row| row.get("source"));
    assert!(sources.eq([Some("simulated"); 8]));
}

#[test]
fn what_cannot_be_compared_is_refused_unless_it_is_allowed() {
    let mut other = run(1.0);
    for cell in &mut other.cells {
        cell.model = "other".to_owned();
        cell.source = Source::Measured;
    }
    let (a, b) = (side("a", &run(1.0)), side("b", &other));
    let message = compare(&a, &b, &options()).unwrap_err().to_string();
    assert_eq!(
        message,
        "the model differs: `a` is sim-8b, `b` is other (--allow model compares them all the same); \
         the source differs: `a` is simulated, `b` is measured (--allow source compares them all the \
         same)"
    );
    let allow = Allow {
        model: true,
        source: true,
        ..Allow::default()
    };
    let diff = compare(&a, &b, &Options { allow, ..options() }).unwrap();
    assert_eq!(diff.rows.len(), 2);
    assert!(diff.rows.iter().all(|row| row.source == Source::Simulated));
}

#[test]
fn only_valid_cells_enter_and_lost_ones_make_a_rule_fire() {
    let mut spoiled = run(1.0);
    for cell in spoiled
        .cells
        .iter_mut()
        .filter(|cell| cell.coordinates.tier == "cpu")
    {
        cell.passes[0].verdict.status = VerdictStatus::Invalid;
        cell.passes[0].verdict.reasons = vec!["nothing was loaded".to_owned()];
    }
    let (a, b) = (side("a", &run(1.0)), side("b", &spoiled));
    let diff = compare(&a, &b, &options()).unwrap();
    assert_eq!(diff.rows.len(), 1);
    assert_eq!(
        (
            diff.left_out[0].reason.as_str(),
            diff.left_out[0].side,
            diff.left_out[0].whole
        ),
        ("invalid: nothing was loaded", 1, true)
    );
    let why = |rule: &str, diff: &Diff| -> Vec<String> {
        let fired = Rule::parse(rule).unwrap().check(diff);
        fired.into_iter().map(|fired| fired.why).collect()
    };
    let lost =
        "long_context cpu tier-hit p1024 g4 c1: cannot be judged: invalid: nothing was loaded in b";
    assert_eq!(why("ttft_p50 > 5%", &diff), [lost]);
    assert!(why("ttft_p50 > 5% where tier=baseline", &diff).is_empty());
    // What was not valid before either was not lost.
    let neither = compare(&b, &b, &options()).unwrap();
    assert!(why("ttft_p50 > 5%", &neither).is_empty());
    let none = "cannot be judged: of 0 cells that it is about, none has samples enough of ttft_p50";
    assert_eq!(why("ttft_p50 > 5% where tier=redis", &diff), [none]);

    let allow = Allow {
        invalid: true,
        ..Allow::default()
    };
    let diff = compare(&a, &b, &Options { allow, ..options() }).unwrap();
    assert_eq!((diff.rows.len(), diff.left_out.len()), (2, 0));
}

#[test]
fn cells_of_one_side_are_listed() {
    let mut fewer = side("b", &run(1.0));
    let key = fewer.cells.keys().next().unwrap().clone();
    let trials = fewer.cells.remove(&key).unwrap();
    let mut elsewhere = key.clone();
    elsewhere.tier = "disk".to_owned();
    fewer.cells.insert(elsewhere.clone(), trials);
    let diff = compare(&side("a", &run(1.0)), &fewer, &options()).unwrap();
    assert_eq!(
        (diff.missing.as_slice(), diff.new.as_slice()),
        ([key].as_slice(), [elsewhere].as_slice())
    );
    let text = diff.terminal(&[], 100);
    assert!(
        text.contains("only in A (1):\n- long_context baseline tier-hit p1024 g4 c1"),
        "{text}"
    );
}

#[test]
fn stored_tables_give_the_same_diff_as_the_runs() {
    let (a, b) = (side("a", &run(1.0)), side("b", &run(1.2)));
    let stored = |side: &Side| {
        let compact = compact::Compact::of(side).unwrap();
        compact.read(&side.name, side.origin.clone()).unwrap()
    };
    let whole = compare(&a, &b, &options()).unwrap();
    let small = compare(&stored(&a), &stored(&b), &options()).unwrap();
    assert_eq!(whole.terminal(&[], 120), small.terminal(&[], 120));
}

#[test]
fn one_repeat_is_tested_over_requests_and_the_output_notes_it() {
    let one = |factor: f64| {
        let mut bench = Bench::new();
        let rows: Vec<f64> = (0..12).map(|at| factor * (100.0 + f64::from(at))).collect();
        bench
            .cell("cpu", 1024, 1, 1)
            .pass(CacheState::Tier, &rows_of(&rows, 0));
        bench.run()
    };
    let diff = compare(&side("a", &one(1.0)), &side("b", &one(1.5)), &options()).unwrap();
    let judged = &diff.rows[0].numbers[&ttft()];
    assert_eq!(
        (judged.basis, judged.outcome),
        (Basis::Requests, Outcome::Worse)
    );
    assert!(judged.floor.is_none() && judged.intervals.0.is_some());
    let text = diff.terminal(&[], 100);
    assert!(
        text.contains("p over requests: one repeat a side"),
        "{text}"
    );
    // A rate has one value a repeat: it cannot be tested, and its outcome shows that.
    let rate = &diff.rows[0].numbers[&Measure::from_name("output_tokens_per_s").unwrap()];
    assert_eq!((rate.outcome, rate.p), (Outcome::Untested, None));
}
