use super::*;
use crate::aggregate::fixture::{Bench, rows_of};
use crate::plan::state::CacheState;
use crate::record::schema::VerdictStatus;

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
        .failed("ready", "no answer in 300 s");
    bench
}

fn report(bench: &Bench) -> Report {
    Report::of(&bench.run(), "long_context").unwrap()
}

/// Lines as they stand, less the code's own indent; a dot keeps the indent of the text.
fn dedented(text: &str) -> String {
    text.lines()
        .map(|line| line.trim_start().trim_start_matches('.'))
        .collect::<Vec<_>>()
        .join("\n")
}

#[track_caller]
fn same(got: &str, expected: &str) {
    let got = got.trim_end();
    assert!(
        got == dedented(expected.trim()),
        "got:\n{got}\n\nexpected:\n{}",
        dedented(expected.trim())
    );
}

#[test]
fn the_terminal_shows_everything_that_fits() {
    same(
        &report(&small()).terminal(100),
        r"
        Simulated: at 1024 prompt tokens with only the tier warm (long_context, 8 requests at once, 4
        .  generated tokens), the median time to first token was 115 ms without a tier; cpu 25.0 ms (speedup
        .  4.60x, end to end 2.64x, 1 of 5 requests of cpu not answered).
        Left out, 1 of 2 rows: disk is invalid: the page cache answered (1).
        Not measured to the end, 1 cell: redis-p1024-c8-r1.
        .
        Each tier against the baseline
        Simulated: these numbers come from the built-in simulator, not from hardware.
        source simulated, label long_context, gen_len 4, concurrency 8
        .
        .                      TTFT p50  TTFT p50            E2E p50
        .                          base      tier  TTFT p50     base  E2E p50  ok/sent  ok/sent
        . state  prompt  tier        ms        ms   speedup       ms  speedup     base     tier  notes
        ──────────────────────────────────────────────────────────────────────────────────────────────
        . tier     1024  cpu      115.0      25.0     4.60x    145.0    2.64x      4/4      4/5  [1]
        . tier     1024  disk     115.0      42.0         -    145.0        -      4/4      2/2  [2]
        not shown at this width: E2E p50 tier ms, out tok/s speedup, out tok/s base, out tok/s tier, cached
        .  tokens tier, TTFT p50 diff ms, E2E p50 diff ms, out tok/s diff
        base is `baseline` at equal coordinates, all repeats pooled; speedup above 1 is better: base / tier
        .  for latencies, tier / base for throughput
        [1] some requests failed or did not finish; the values are of the ok ones
        [2] no ratio: disk is invalid: the page cache answered
        .
        Every cell and cache state
        Simulated: these numbers come from the built-in simulator, not from hardware.
        source simulated, model sim-8b, label long_context, gen_len 4, concurrency 8, repeat 1
        .
        .                                             TTFT  TTFT    ITL    E2E
        .                                              p50   p90    p50    p50
        . state  prompt  tier      verdict  ok/sent     ms    ms     ms     ms  req/s  out tok/s  notes
        ───────────────────────────────────────────────────────────────────────────────────────────────
        . tier     1024  baseline  valid        4/4  115.0     -  10.00  145.0   2.00       8.00
        . tier     1024  cpu       valid        4/5   25.0     -  10.00   55.0   2.00       8.00  [1]
        . tier     1024  disk      invalid      2/2   42.0     -  10.00   72.0   1.00       4.00  [2]
        not shown at this width: TTFT p99 ms, E2E p90 ms, cached tokens, ITL p99 ms, TPOT p50 ms, E2E p99
        .  ms, TPOT p99 ms, all tok/s, prompt tokens, TTFT p95 ms, in tok/s, E2E p95 ms
        `-` for p90 of TTFT, E2E: too few samples, needs 10, has 2 to 4
        `-` for p95 of TTFT, E2E: too few samples, needs 20, has 2 to 4
        `-` for p99 of TTFT, ITL, TPOT, E2E: too few samples, needs 100, has 2 to 12
        [1] some requests failed or did not finish; latencies and throughput are of the ok ones
        [2] invalid: the page cache answered
        cell `redis-p1024-c8-r1` failed at ready: no answer in 300 s
        ",
    );
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
    same(
        body,
        r"
        # long_context
        .
        **Simulated: these numbers come from the built-in simulator, not from hardware.**
        .
        - Simulated: at 1024 prompt tokens with only the tier warm (long_context, 8 requests at once, 4 generated tokens), the median time to first token was 115 ms without a tier; cpu 25.0 ms (speedup 4.60x, end to end 2.64x, 1 of 5 requests of cpu not answered).
        - Left out, 1 of 2 rows: disk is invalid: the page cache answered (1).
        - Not measured to the end, 1 cell: redis-p1024-c8-r1.
        .
        ## Each tier against the baseline
        .
        **Simulated: these numbers come from the built-in simulator, not from hardware.**
        .
        source simulated, label long_context, gen_len 4, concurrency 8
        .
        | state | prompt | tier | TTFT p50 base ms | TTFT p50 tier ms | TTFT p50 diff ms | TTFT p50 speedup | E2E p50 base ms | E2E p50 tier ms | E2E p50 diff ms | E2E p50 speedup | out tok/s base | out tok/s tier | out tok/s diff | out tok/s speedup | cached tokens tier | ok/sent base | ok/sent tier | notes |
        |:--|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|:--|
        | tier | 1024 | cpu | 115.0 | 25.0 | -90.0 | 4.60x | 145.0 | 55.0 | -90.0 | 2.64x | 8.00 | 8.00 | +0.00 | 1.00x | 0 | 4/4 | 4/5 | [1] |
        | tier | 1024 | disk | 115.0 | 42.0 | - | - | 145.0 | 72.0 | - | - | 8.00 | 4.00 | - | - | 0 | 4/4 | 2/2 | [2] |
        .
        - base is `baseline` at equal coordinates, all repeats pooled; speedup above 1 is better: base / tier for latencies, tier / base for throughput
        - [1] some requests failed or did not finish; the values are of the ok ones
        - [2] no ratio: disk is invalid: the page cache answered
        .
        ## Figures
        .
        ![Time to first token](figures/comparison_ttft.png)
        .
        ![End-to-end latency](figures/comparison_e2e.png)
        .
        ## Every cell and cache state
        .
        **Simulated: these numbers come from the built-in simulator, not from hardware.**
        .
        source simulated, model sim-8b, label long_context, gen_len 4, concurrency 8, repeat 1
        .
        | state | prompt | tier | verdict | ok/sent | TTFT p50 ms | TTFT p90 ms | TTFT p95 ms | TTFT p99 ms | ITL p50 ms | ITL p99 ms | TPOT p50 ms | TPOT p99 ms | E2E p50 ms | E2E p90 ms | E2E p95 ms | E2E p99 ms | req/s | in tok/s | out tok/s | all tok/s | prompt tokens | cached tokens | notes |
        |:--|--:|:--|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|:--|
        | tier | 1024 | baseline | valid | 4/4 | 115.0 | - | - | - | 10.00 | - | 10.0 | - | 145.0 | - | - | - | 2.00 | 2060 | 8.00 | 2068 | 1030 | 0 |  |
        | tier | 1024 | cpu | valid | 4/5 | 25.0 | - | - | - | 10.00 | - | 10.0 | - | 55.0 | - | - | - | 2.00 | 2060 | 8.00 | 2068 | 1030 | 0 | [1] |
        | tier | 1024 | disk | invalid | 2/2 | 42.0 | - | - | - | 10.00 | - | 10.0 | - | 72.0 | - | - | - | 1.00 | 1030 | 4.00 | 1034 | 1030 | 0 | [2] |
        .
        - `-` for p90 of TTFT, E2E: too few samples, needs 10, has 2 to 4
        - `-` for p95 of TTFT, E2E: too few samples, needs 20, has 2 to 4
        - `-` for p99 of TTFT, ITL, TPOT, E2E: too few samples, needs 100, has 2 to 12
        - [1] some requests failed or did not finish; latencies and throughput are of the ok ones
        - [2] invalid: the page cache answered
        .
        ## Notes
        .
        - cell `redis-p1024-c8-r1` failed at ready: no answer in 300 s
        ",
    );
}

#[test]
fn files_are_stable_and_leave_out_what_is_not_known() {
    same(
        &report(&small()).summary_csv(),
        r"
        label,gen_len,state,concurrency,prompt_len,tier,repeat,cell,model,source,verdict,reason,sent,ok,failed,unfinished,duration_s,ttft_n,ttft_mean_ms,ttft_p50_ms,ttft_p90_ms,ttft_p95_ms,ttft_p99_ms,ttft_max_ms,ttft_p50_low_ms,ttft_p50_high_ms,itl_n,itl_mean_ms,itl_p50_ms,itl_p90_ms,itl_p95_ms,itl_p99_ms,itl_max_ms,tpot_n,tpot_mean_ms,tpot_p50_ms,tpot_p90_ms,tpot_p95_ms,tpot_p99_ms,tpot_max_ms,tpot_p50_low_ms,tpot_p50_high_ms,e2e_n,e2e_mean_ms,e2e_p50_ms,e2e_p90_ms,e2e_p95_ms,e2e_p99_ms,e2e_max_ms,e2e_p50_low_ms,e2e_p50_high_ms,late_n,lateness_mean_ms,lateness_p50_ms,lateness_p90_ms,lateness_p95_ms,lateness_p99_ms,lateness_max_ms,lateness_p50_low_ms,lateness_p50_high_ms,requests_per_s,input_tokens_per_s,output_tokens_per_s,total_tokens_per_s,prompt_tokens_mean,cached_tokens_mean,energy_j_per_token,goodput_per_s,slo_broken,bottleneck
        long_context,4,tier,8,1024,baseline,1,baseline-p1024-c8-r1,sim-8b,simulated,valid,all seen,4,4,0,0,2.000,4,115.000,115.000,,,,130.000,,,12,10.000,10.000,15.000,,,15.000,4,10.000,10.000,,,,10.000,,,4,145.000,145.000,,,,160.000,,,4,0.250,0.250,,,,0.250,,,2.000,2060.000,8.000,2068.000,1030.000,0.000,,,,
        long_context,4,tier,8,1024,cpu,1,cpu-p1024-c8-r1,sim-8b,simulated,valid,all seen,5,4,1,0,2.000,4,25.000,25.000,,,,30.000,,,12,10.000,10.000,15.000,,,15.000,4,10.000,10.000,,,,10.000,,,4,55.000,55.000,,,,60.000,,,4,0.250,0.250,,,,0.250,,,2.000,2060.000,8.000,2068.000,1030.000,0.000,,,,
        long_context,4,tier,8,1024,disk,1,disk-p1024-c8-r1,sim-8b,simulated,invalid,the page cache answered,2,2,0,0,2.000,2,42.000,42.000,,,,44.000,,,6,10.000,10.000,,,,15.000,2,10.000,10.000,,,,10.000,,,2,72.000,72.000,,,,74.000,,,2,0.250,0.250,,,,0.250,,,1.000,1030.000,4.000,1034.000,1030.000,0.000,,,,
        ",
    );
    same(
        &report(&small()).comparison_csv(),
        r"
        label,gen_len,state,concurrency,prompt_len,tier,source,standing,reason,baseline_sent,baseline_ok,tier_sent,tier_ok,ttft_p50_baseline_ms,ttft_p50_tier_ms,ttft_p50_difference_ms,ttft_p50_speedup,ttft_p50_speedup_low,ttft_p50_speedup_high,ttft_p50_clarity,e2e_p50_baseline_ms,e2e_p50_tier_ms,e2e_p50_difference_ms,e2e_p50_speedup,e2e_p50_speedup_low,e2e_p50_speedup_high,e2e_p50_clarity,output_tokens_per_s_baseline,output_tokens_per_s_tier,output_tokens_per_s_difference,output_tokens_per_s_speedup,output_tokens_per_s_speedup_low,output_tokens_per_s_speedup_high,energy_j_per_token_baseline,energy_j_per_token_tier,energy_j_per_token_difference,energy_j_per_token_speedup,energy_j_per_token_speedup_low,energy_j_per_token_speedup_high,goodput_per_s_baseline,goodput_per_s_tier,goodput_per_s_difference,goodput_per_s_speedup,goodput_per_s_speedup_low,goodput_per_s_speedup_high,cached_tokens_mean_tier
        long_context,4,tier,8,1024,cpu,simulated,compared,,4,4,5,4,115.000,25.000,-90.000,4.600,,,clear,145.000,55.000,-90.000,2.636,,,clear,8.000,8.000,0.000,1.000,,,,,,,,,,,,,,,0.000
        long_context,4,tier,8,1024,disk,simulated,withheld,disk is invalid: the page cache answered,4,4,2,2,115.000,42.000,,,,,untested,145.000,72.000,,,,,untested,8.000,4.000,,,,,,,,,,,,,,,,,0.000
        ",
    );
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
        .failed("launch", "no such image");
    let report = report(&bench);
    assert_eq!(report.drawings().unwrap(), []);
    assert!(
        report
            .markdown()
            .contains("- cell `cpu-p1024-c1-r1` failed at launch: no such image")
    );
    assert!(
        report
            .terminal(80)
            .contains("Not measured to the end, 1 cell: cpu-p1024-c1-r1.")
    );
    assert!(
        self::report(&Bench::new())
            .terminal(80)
            .starts_with("No tier besides the baseline")
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
