//! Runs made up for tests, whose numbers can be checked by hand.

use std::collections::BTreeMap;

use crate::matrix::Coordinates;
use crate::plan::state::CacheState;
use crate::record::frame::tests::{failed_row, good_row};
use crate::record::reader::RunData;
use crate::record::schema::{
    CellOutcome, CellRecord, Counts, FORMAT, MetricSummary, PassRecord, Phase, RequestOutcome,
    RequestRow, ServerRecord, Source, Verdict, VerdictStatus,
};
use crate::series::Series;
use crate::units::{Concurrency, GenLen, PromptLen, Repeat};

/// A run that grows cell by cell.
pub(crate) struct Bench(Vec<(CellRecord, Vec<RequestRow>)>);

/// The cell that was added last.
pub(crate) struct LastCell<'a>(&'a mut CellRecord, &'a mut Vec<RequestRow>);

impl Bench {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a completed, simulated cell without passes.
    pub(crate) fn cell(
        &mut self,
        tier: &str,
        prompt_len: u32,
        concurrency: u32,
        repeat: u32,
    ) -> LastCell<'_> {
        let position = u32::try_from(self.0.len() + 1).unwrap();
        let record = CellRecord {
            format: FORMAT,
            id: format!("{tier}-p{prompt_len}-c{concurrency}-r{repeat}"),
            position,
            part: None,
            coordinates: Coordinates {
                label: "long_context".to_owned(),
                tier: tier.to_owned(),
                prompt_len: PromptLen::new(prompt_len).unwrap(),
                gen_len: GenLen::new(4).unwrap(),
                concurrency: Concurrency::new(concurrency).unwrap(),
                repeat: Repeat::new(repeat).unwrap(),
                extra: BTreeMap::new(),
            },
            tier_kind: None,
            identity: BTreeMap::new(),
            machine: BTreeMap::new(),
            source: Source::Simulated,
            model: "sim-8b".to_owned(),
            outcome: CellOutcome::Completed,
            server: ServerRecord::default(),
            passes: vec![],
            warnings: vec![],
            files: BTreeMap::new(),
        };
        self.0.push((record, Vec::new()));
        let (record, rows) = self.0.last_mut().unwrap();
        LastCell(record, rows)
    }

    pub(crate) fn run(&self) -> RunData {
        RunData::new(self.0.clone()).unwrap()
    }
}

impl LastCell<'_> {
    /// Gives the cell another label, and an id to match.
    pub(crate) fn labelled(self, label: &str) -> Self {
        label.clone_into(&mut self.0.coordinates.label);
        self.0.id = format!("{label}-{}", self.0.id);
        self
    }

    /// Puts the cell at a value of a further axis, and gives it an id to match.
    pub(crate) fn on_axis(self, key: &str, value: &str) -> Self {
        let extra = &mut self.0.coordinates.extra;
        extra.insert(key.to_owned(), value.to_owned());
        self.0.id = format!("{}-{value}", self.0.id);
        self
    }

    /// Gives the cell a value of its plan.
    pub(crate) fn planned(self, name: &str, value: &str) -> Self {
        self.0.identity.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds a valid pass of 2 s with these requests.
    pub(crate) fn pass(self, state: CacheState, rows: &[RequestRow]) -> Self {
        let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count() as u64;
        self.0.passes.push(PassRecord {
            state,
            started_s: 0.0,
            duration_s: 2.0,
            corpus: String::new(),
            counts: Counts {
                sent: rows.len() as u64,
                ok: count(RequestOutcome::Ok),
                failed: count(RequestOutcome::Failed),
                unfinished: count(RequestOutcome::Unfinished),
            },
            errors: BTreeMap::new(),
            verdict: Verdict {
                status: VerdictStatus::Valid,
                reasons: vec!["all seen".to_owned()],
                witnesses: BTreeMap::new(),
            },
            evidence: BTreeMap::new(),
            client: BTreeMap::new(),
            ledger: Vec::new(),
            telemetry: Vec::new(),
            bottleneck: None,
        });
        self.1
            .extend(rows.iter().cloned().map(|row| RequestRow { state, ..row }));
        self
    }

    /// Changes the verdict of the last pass.
    pub(crate) fn verdict(self, status: VerdictStatus, reason: &str) -> Self {
        let pass = self.0.passes.last_mut().unwrap();
        pass.verdict = Verdict {
            status,
            reasons: vec![reason.to_owned()],
            witnesses: BTreeMap::new(),
        };
        self
    }

    /// Gives the last pass this verdict.
    pub(crate) fn judged(self, verdict: Verdict) -> Self {
        self.0.passes.last_mut().unwrap().verdict = verdict;
        self
    }

    pub(crate) fn failed(self, phase: Phase, error: &str) -> Self {
        self.0.outcome = CellOutcome::Failed {
            phase,
            error: error.to_owned(),
            log_tail: vec![],
        };
        self
    }

    pub(crate) fn source(self, source: Source) -> Self {
        self.0.source = source;
        self
    }
}

/// Good requests with these times to first token, then `failed` refused ones.
pub(crate) fn rows_of(ttft_ms: &[f64], failed: u32) -> Vec<RequestRow> {
    let mut rows: Vec<_> = (0..)
        .zip(ttft_ms)
        .map(|(at, ttft)| good_row(at, *ttft))
        .collect();
    let first = u32::try_from(rows.len()).unwrap();
    rows.extend((first..first + failed).map(failed_row));
    rows
}

/// A GPU's telemetry over a pass, as an integral: `power` or `energy`, joules.
pub(crate) fn gpu_total(device: &str, series: Series, joules: f64) -> MetricSummary {
    MetricSummary {
        source: series.source().name().to_owned(),
        device: device.to_owned(),
        metric: series.name().to_owned(),
        unit: String::new(),
        samples: 20,
        every_s: None,
        slowed: 0,
        mean: None,
        max: None,
        total: Some(joules),
    }
}

/// A run as large as a real one: four tiers, three prompt lengths, two concurrencies, two states,
/// one invalid cell and one inconclusive one.
pub(crate) fn realistic() -> RunData {
    let mut bench = Bench::new();
    for (tier, per_token_ms, fixed_ms) in [
        ("baseline", 0.12, 18.0),
        ("cpu", 0.012, 22.0),
        ("disk", 0.035, 30.0),
        ("redis", 0.05, 26.0),
    ] {
        for prompt_len in [1024, 5120, 16384] {
            for concurrency in [1, 8] {
                let cell = bench.cell(tier, prompt_len, concurrency, 1);
                let rows = |per_token_ms: f64| {
                    scattered(fixed_ms + per_token_ms * f64::from(prompt_len), concurrency)
                };
                let cell = cell
                    .pass(CacheState::Cold, &rows(0.125))
                    .pass(CacheState::Tier, &rows(per_token_ms));
                match (tier, prompt_len, concurrency) {
                    ("redis", 16384, 8) => {
                        cell.verdict(VerdictStatus::Invalid, "hits claimed, nothing was loaded")
                    }
                    ("disk", 5120, 1) => cell.verdict(
                        VerdictStatus::Inconclusive,
                        "the page cache may have answered",
                    ),
                    _ => cell,
                };
            }
        }
    }
    bench.run()
}

/// 24 requests around a time to first token, the slower the more at once.
fn scattered(ttft_ms: f64, concurrency: u32) -> Vec<RequestRow> {
    let load = 1.0 + f64::from(concurrency - 1) * 0.35;
    let ttft: Vec<_> = (0..24)
        .map(|at| ttft_ms * load * (0.8 + 0.025 * f64::from(at * 7 % 24)))
        .collect();
    let mut rows = rows_of(&ttft, 0);
    for row in &mut rows {
        row.e2e_ms = row.ttft_ms.map(|ttft| ttft + 900.0 * load.sqrt());
    }
    rows
}
