//! `labrun report` on runs that are made up: objectives, several runs, many cells.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use labrun::internals::{
    CacheState, Point, Points, Series, SeriesKey,
    schema::{
        CellOutcome, CellRecord, Counts, FORMAT, LedgerRow, PassRecord, RequestOutcome, RequestRow,
        ServerRecord, Source, Verdict, VerdictStatus,
    },
    write_parquet, write_telemetry,
};

use crate::support::Lab;

const TIERS: [(&str, f64); 4] = [
    ("baseline", 0.12),
    ("cpu", 0.012),
    ("disk", 0.035),
    ("redis", 0.3),
];

/// A run folder of simulated cells: 4 tiers, these lengths and concurrencies, `repeats` times, each
/// cold and from the tier, 24 requests of 16 tokens a pass.
fn run_folder(folder: &Path, lengths: &[u32], concurrencies: &[u32], repeats: u32) -> u32 {
    let mut position = 0;
    for (tier, per_token_ms) in TIERS {
        for &prompt_len in lengths {
            for &concurrency in concurrencies {
                for repeat in 1..=repeats {
                    position += 1;
                    let coordinates = serde_json::json!({
                        "label": "rag", "tier": tier, "prompt_len": prompt_len, "gen_len": 16,
                        "concurrency": concurrency, "repeat": repeat,
                    });
                    let at = |per_token_ms: f64| {
                        20.0 + per_token_ms * f64::from(prompt_len) * f64::from(concurrency).sqrt()
                    };
                    let cold = requests(CacheState::Cold, at(0.12), position);
                    let warm = requests(CacheState::Tier, at(per_token_ms), position);
                    let record = CellRecord {
                        format: FORMAT,
                        id: format!("rag-{tier}-p{prompt_len}-c{concurrency}-r{repeat}"),
                        position,
                        part: None,
                        coordinates: serde_json::from_value(coordinates).unwrap(),
                        tier_kind: None,
                        identity: BTreeMap::new(),
                        machine: BTreeMap::new(),
                        source: Source::Simulated,
                        model: "sim".to_owned(),
                        outcome: CellOutcome::Completed,
                        server: ServerRecord::default(),
                        passes: vec![pass(CacheState::Cold), pass(CacheState::Tier)],
                        warnings: vec![],
                        files: BTreeMap::new(),
                    };
                    write(folder, &record, &[cold, warm].concat());
                }
            }
        }
    }
    position
}

fn write(folder: &Path, record: &CellRecord, rows: &[RequestRow]) {
    let cell = folder.join("cells").join(&record.id);
    std::fs::create_dir_all(&cell).unwrap();
    let json = serde_json::to_vec(record).unwrap();
    std::fs::write(cell.join("cell.json"), json).unwrap();
    write_parquet(rows, &cell.join("requests.parquet")).unwrap();
    write_telemetry(&telemetry(), &cell.join("telemetry.parquet")).unwrap();
}

/// Ten series of 4 s, each read every 10 ms and never twice the same.
fn telemetry() -> Points {
    let names = [
        Series::GpuPcieRxCounters,
        Series::GpuPcieTxCounters,
        Series::GpuSmActive,
        Series::DiskRead,
        Series::DiskWrite,
        Series::RedisRead,
        Series::RedisWrite,
        Series::EngineRunning,
        Series::EngineWaiting,
        Series::CpuBusy,
    ];
    let series = |salt: u64| {
        let point = |at: u64| Point {
            at: Duration::from_millis(at * 10),
            span: Duration::from_millis(10),
            value: ((at * 7919 + salt * 104_729) % 1009) as f64 * 1e6,
            late: false,
            slowed: false,
        };
        (1..=400).map(point).collect()
    };
    let key = |series| SeriesKey {
        series,
        device: "".into(),
    };
    let keys = names.into_iter().map(key);
    keys.zip(0..).map(|(key, at)| (key, series(at))).collect()
}

fn requests(state: CacheState, ttft_ms: f64, salt: u32) -> Vec<RequestRow> {
    let row = |request: u32| {
        let ttft_ms = ttft_ms * (0.8 + 0.02 * f64::from((request * 7 + salt) % 24));
        let gaps_ms: Vec<f64> = (0..15)
            .map(|at| 6.0 + f64::from((at * 5 + request) % 11))
            .collect();
        let e2e_ms = ttft_ms + gaps_ms.iter().sum::<f64>();
        RequestRow {
            state,
            request,
            intended_ms: 0.0,
            sent_ms: 0.1,
            lateness_ms: 0.1,
            connect_ms: None,
            ttft_ms: Some(ttft_ms),
            e2e_ms: Some(e2e_ms),
            tpot_ms: Some((e2e_ms - ttft_ms) / 15.0),
            gaps_ms,
            prompt_len: 1024,
            gen_len: 16,
            prompt_tokens: Some(1024),
            cached_tokens: Some(0),
            output_tokens: Some(16),
            frames: 16,
            coalesced_frames: 0,
            token_events: Some(16),
            outcome: RequestOutcome::Ok,
            error: None,
            http_status: Some(200),
        }
    };
    (0..24).map(row).collect()
}

fn pass(state: CacheState) -> PassRecord {
    // As many figures as a real pass has.
    let named = |stem: &str, count: u32| {
        let names = (0..count).map(|at| (format!("{stem}_{at}_tokens"), 123_456.0));
        names.collect::<BTreeMap<_, _>>()
    };
    let ledger = LedgerRow {
        path: "pcie-rx".to_owned(),
        tokens: 24_576.0,
        expected_bytes: Some(1.4e9),
        moved_bytes: Some(1.4e9),
        method: "simulated".to_owned(),
    };
    PassRecord {
        state,
        started_s: 0.0,
        duration_s: 4.0,
        corpus: String::new(),
        counts: Counts {
            sent: 24,
            ok: 24,
            failed: 0,
            unfinished: 0,
        },
        errors: BTreeMap::new(),
        verdict: Verdict {
            status: VerdictStatus::Valid,
            reasons: vec!["the connector served all expected tokens".to_owned()],
            witnesses: BTreeMap::new(),
        },
        evidence: named("some_counter_of_the_engine", 24),
        client: named("something_of_the_client", 8),
        ledger: vec![ledger.clone(), ledger],
        telemetry: vec![],
        bottleneck: None,
    }
}

#[test]
fn objectives_are_columns_and_a_wrong_one_is_pointed_at() {
    let lab = Lab::new();
    run_folder(&lab.path("run"), &[1024], &[1], 1);
    let ended = lab
        .labrun(&[
            "report",
            "run",
            "--tables",
            "--slo",
            "ttft_p90=100ms,tpot=1s",
        ])
        .expect_code(0);
    assert!(ended.stdout.contains("goodput"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("broken: TTFT p90 <= 100 ms"),
        "{}",
        ended.stdout
    );
    let html = lab.read("run/report.html");
    assert!(html.contains("TTFT p90 &lt;= 100 ms; TPOT &lt;= 1000 ms"));
    let csv = lab.read("run/summary.csv");
    let head: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let at = head
        .iter()
        .position(|name| *name == "goodput_per_s")
        .unwrap();
    let warm_cpu = csv
        .lines()
        .find(|line| line.contains(",tier,1,1024,cpu,"))
        .unwrap();
    // 24 requests in 4 s.
    assert_eq!(warm_cpu.split(',').nth(at), Some("6.000"));
    // The baseline computes its 1024 tokens in more than the objective.
    assert!(
        ended
            .stdout
            .contains("goodput: requests per second that meet TTFT p90 <= 100 ms and")
    );
    let csv = lab.read("run/comparison.csv");
    let head: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let at = head
        .iter()
        .position(|name| name.starts_with("goodput_per_s_baseline"));
    let warm_cpu = csv
        .lines()
        .find(|line| line.contains(",tier,1,1024,cpu,"))
        .unwrap();
    let fields: Vec<&str> = warm_cpu.split(',').skip(at.unwrap()).take(3).collect();
    assert_eq!(fields, ["0.000", "6.000", "6.000"]);
    assert!(html.contains("no ratio of goodput: the baseline&#x27;s is 0"));

    let before = lab.files("run");
    let ended = lab
        .labrun(&["report", "run", "--slo", "ttft_p99=fast"])
        .expect_code(2);
    assert!(
        ended.stderr.contains("column 10: the limit is a time"),
        "{}",
        ended.stderr
    );
    assert_eq!(lab.files("run"), before);
}

#[test]
fn several_runs_are_reported_together() {
    let lab = Lab::new();
    run_folder(&lab.path("a"), &[1024], &[1], 1);
    run_folder(&lab.path("b"), &[1024], &[1], 1);
    let ended = lab.labrun(&["report", "a", "b"]).expect_code(2);
    assert!(ended.stderr.contains("--out"), "{}", ended.stderr);
    lab.labrun(&["report", "a", "b", "--out", "both"])
        .expect_code(0);
    let csv = lab.read("both/comparison.csv");
    // 48 requests a side: those of both runs.
    assert!(
        csv.lines()
            .any(|line| line.contains(",cpu,simulated,compared,,48,48,48,48,")),
        "{csv}"
    );
    assert!(
        lab.read("both/report.html")
            .contains("<title>a + b (simulated)</title>")
    );
    assert!(!lab.path("a/report.html").exists());
    // Cells of both have the same ids; each run's longest has a figure of its own.
    for name in ["", "_2"] {
        let figure = format!("both/figures/timeline_rag-cpu-p1024-c1-r1{name}.svg");
        assert!(lab.path(&figure).exists(), "{figure}");
    }
}

#[test]
fn each_cell_has_its_timeline_and_one_that_cannot_be_read_is_named() {
    let lab = Lab::new();
    run_folder(&lab.path("run"), &[1024], &[1], 1);
    let damaged = lab.path("run/cells/rag-cpu-p1024-c1-r1/telemetry.parquet");
    std::fs::write(damaged, "no Parquet").unwrap();
    lab.labrun(&["report", "run"]).expect_code(0);
    let html = lab.read("run/report.html");
    let drawn =
        html.matches("<summary>Timeline: TTFT, PCIe, disk, Redis, GPU, requests in the engine<");
    assert_eq!(drawn.count(), 3);
    assert!(html.contains("rag-disk-p1024-c1-r1\"><rect"), "its name");
    assert!(
        html.contains("no timeline: cannot read"),
        "why there is none"
    );
    assert!(
        lab.path("run/figures/timeline_rag-disk-p1024-c1-r1.svg")
            .exists()
    );
    assert!(
        !lab.path("run/figures/timeline_rag-cpu-p1024-c1-r1.svg")
            .exists()
    );
}

#[test]
#[ignore = "needs a release build to be quick"]
fn report_of_200_cells_is_small() {
    let lab = Lab::new();
    let cells = run_folder(
        &lab.path("run"),
        &[512, 1024, 2048, 4096, 8192],
        &[1, 2, 4, 8, 16],
        2,
    );
    assert_eq!(cells, 200);
    let began = std::time::Instant::now();
    lab.labrun(&["report", "run"]).expect_code(0);
    let took = began.elapsed();
    let bytes = lab.read("run/report.html").len();
    println!(
        "a report of 200 cells: {:.1} s, {:.2} MB",
        took.as_secs_f64(),
        bytes as f64 / 1e6
    );
    assert!(bytes < 5_000_000, "{bytes} bytes");
    let html = lab.read("run/report.html");
    let inline = html.matches("<details class=\"timeline\">").count();
    assert!(html.contains(&format!("{inline} of 200 timelines are in this page")));
    let rest = html.split("left out for the page&#x27;s size: ").skip(1);
    let left_out: Vec<&str> = rest.filter_map(|rest| rest.split('<').next()).collect();
    // One of each tier and prompt length at least.
    assert!(inline >= 20 && inline + left_out.len() == 200, "{inline}");
    for file in left_out {
        let svg = lab.read(&format!("run/{}", file.replace("&#x2f;", "/")));
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>"));
    }
    if let Some(keep) = std::env::var_os("LABRUN_KEEP_REPORT") {
        std::fs::copy(lab.path("run/report.html"), keep).unwrap();
    }
}
