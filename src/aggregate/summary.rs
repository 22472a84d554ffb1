//! One row a cell and cache state.

use anyhow::Result;

use crate::aggregate::energy::{self, joules};
use crate::aggregate::limit::limit;
use crate::aggregate::memory::Memory;
use crate::aggregate::parts::{Carrier, Parts};
use crate::aggregate::place::{Place, tier_order};
use crate::aggregate::samples::{Passes, Samples};
use crate::aggregate::slo::{Service, Slo};
use crate::evidence::Evidence;
use crate::matrix::Coordinates;
use crate::metric::Metric;
use crate::plan::state::CacheState;
use crate::record::reader::RunData;
use crate::record::schema::{CellRecord, Counts, PassRecord, Source, VerdictStatus};
use crate::stats::Summary;

/// All passes of a run in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryTable {
    /// One row a cell and cache state, by coordinates.
    pub rows: Vec<SummaryRow>,
    /// Cells that could not be measured to their end, by coordinates. Their finished passes are
    /// in `rows` all the same.
    pub failed: Vec<FailedCell>,
    /// What a reader should know of the whole, one sentence each.
    pub notes: Vec<String>,
}

/// One cell in one cache state.
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryRow {
    /// The cell's id.
    pub cell: String,
    /// Where it lies in the matrix.
    pub coordinates: Coordinates,
    /// What was warm when the clock started.
    pub state: CacheState,
    /// Simulated or measured.
    pub source: Source,
    /// The model that was asked for.
    pub model: String,
    /// Whether the declared tier served.
    pub verdict: VerdictStatus,
    /// The verdict's first reason.
    pub reason: Option<String>,
    /// What became of its requests.
    pub counts: Counts,
    /// Length of the pass, seconds.
    pub duration_s: f64,
    /// Time to first token.
    pub ttft: Summary,
    /// Gaps between tokens.
    pub itl: Summary,
    /// Time per output token.
    pub tpot: Summary,
    /// End to end.
    pub e2e: Summary,
    /// How late the client sent.
    pub lateness: Summary,
    /// Ok requests a second.
    pub requests_per_s: Option<f64>,
    /// Prompt tokens a second; absent when the server did not count the tokens of some request.
    pub input_tokens_per_s: Option<f64>,
    /// Output tokens a second; absent when the server did not count the tokens of some request.
    pub output_tokens_per_s: Option<f64>,
    /// Prompt and output tokens a second; absent when one of them is.
    pub total_tokens_per_s: Option<f64>,
    /// Cached prompt tokens a request, mean.
    pub cached_tokens_mean: Option<f64>,
    /// Prompt tokens a request, mean.
    pub prompt_tokens_mean: Option<f64>,
    /// Energy of all GPUs over the pass by output tokens; absent where it was not sampled.
    pub energy_j_per_token: Option<f64>,
    /// Energy of all GPUs over the pass by ok requests; absent where it was not sampled.
    pub energy_j_per_request: Option<f64>,
    /// What it had room for, and what came from its tier.
    pub(crate) memory: Memory,
    /// Largest drift of a log-probability of a canary's answer; absent where none is known.
    pub drift_nats: Option<f64>,
    /// How it stands to the objectives; absent without any.
    pub service: Option<Service>,
    /// Where its time to the first token went; absent where the engine did not time it.
    pub(crate) parts: Option<Parts>,
    /// What limited it.
    pub bottleneck: Option<String>,
    /// The latencies that are another tool's summary, without single requests.
    pub imported: Vec<Metric>,
}

impl SummaryRow {
    /// One of its latencies; `None` for a metric that is not a latency.
    pub fn latency(&self, metric: Metric) -> Option<&Summary> {
        match metric {
            Metric::Ttft => Some(&self.ttft),
            Metric::Itl => Some(&self.itl),
            Metric::Tpot => Some(&self.tpot),
            Metric::E2e => Some(&self.e2e),
            Metric::Lateness => Some(&self.lateness),
            _ => None,
        }
    }
}

/// A cell that could not be measured to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedCell {
    /// The cell's id.
    pub cell: String,
    /// Where it lies in the matrix.
    pub coordinates: Coordinates,
    /// What happened, in a sentence.
    pub what: String,
}

/// Sums up each pass of each cell of a run.
pub fn summarize(run: &RunData) -> Result<SummaryTable> {
    summarize_under(run, &[])
}

/// Sums up each pass of each cell of a run, under objectives.
pub(crate) fn summarize_under(run: &RunData, slos: &[Slo]) -> Result<SummaryTable> {
    Ok(summarize_passes(run, &Passes::gather(run, slos)?, slos))
}

pub(crate) fn summarize_passes(run: &RunData, passes: &Passes, slos: &[Slo]) -> SummaryTable {
    let none = Samples::none();
    let mut rows = Vec::new();
    for (at, cell) in run.cells.iter().enumerate() {
        for pass in &cell.passes {
            let samples = passes.get(at, pass.state).unwrap_or(&none);
            rows.push(row(cell, pass, samples, slos));
        }
    }
    rows.sort_by(|a, b| order(&a.coordinates, a.state).cmp(&order(&b.coordinates, b.state)));
    let mut failed: Vec<_> = run.cells.iter().filter_map(failed_cell).collect();
    failed.sort_by(|a, b| {
        order(&a.coordinates, CacheState::Cold).cmp(&order(&b.coordinates, CacheState::Cold))
    });
    let mut notes = mismatches(run, passes);
    notes.extend(run.cells.iter().flat_map(|cell| {
        cell.warnings
            .iter()
            .map(move |warning| format!("cell `{}`: {warning}", cell.id))
    }));
    SummaryTable {
        rows,
        failed,
        notes,
    }
}

fn row(cell: &CellRecord, pass: &PassRecord, samples: &Samples, slos: &[Slo]) -> SummaryRow {
    let rate = |count: Option<u64>| per_second(count, pass.duration_s);
    let parts = Parts::of(cell, pass, samples.summary(Metric::Ttft).mean);
    SummaryRow {
        cell: cell.id.clone(),
        coordinates: cell.coordinates.clone(),
        state: pass.state,
        source: cell.source,
        model: cell.model.clone(),
        verdict: pass.verdict.status,
        reason: cell.reason(&pass.verdict),
        counts: pass.counts,
        duration_s: pass.duration_s,
        ttft: samples.summary(Metric::Ttft),
        itl: samples.summary(Metric::Itl),
        tpot: samples.summary(Metric::Tpot),
        e2e: samples.summary(Metric::E2e),
        lateness: samples.summary(Metric::Lateness),
        requests_per_s: rate(Some(pass.counts.ok)),
        input_tokens_per_s: rate(samples.prompt_tokens),
        output_tokens_per_s: rate(samples.output_tokens),
        total_tokens_per_s: rate(
            samples
                .prompt_tokens
                .zip(samples.output_tokens)
                .map(|(prompt, output)| prompt + output),
        ),
        cached_tokens_mean: samples.cached_tokens_mean,
        prompt_tokens_mean: samples.prompt_tokens_mean,
        energy_j_per_token: energy::each(joules(pass), samples.output_tokens),
        energy_j_per_request: energy::each(joules(pass), Some(pass.counts.ok)),
        memory: Memory::of(cell, pass),
        drift_nats: pass
            .evidence
            .get(Evidence::CanaryDistanceNats.name())
            .copied(),
        service: (!slos.is_empty()).then(|| Service::of(slos, samples, pass.duration_s)),
        bottleneck: limit(
            parts.as_ref(),
            pass.bottleneck.as_ref(),
            Carrier::of(cell, pass),
        ),
        parts,
        imported: samples.imported.keys().copied().collect(),
    }
}

/// A count over a duration; absent for a pass of no length.
pub(super) fn per_second(count: Option<u64>, duration_s: f64) -> Option<f64> {
    count
        .filter(|_| duration_s > 0.0)
        .map(|count| count as f64 / duration_s)
}

fn order(at: &Coordinates, state: CacheState) -> impl Ord + '_ {
    (Place::of(at, state), tier_order(&at.tier), at.repeat)
}

fn failed_cell(cell: &CellRecord) -> Option<FailedCell> {
    let what = cell.outcome.failure()?;
    Some(FailedCell {
        cell: cell.id.clone(),
        coordinates: cell.coordinates.clone(),
        what,
    })
}

/// Where the counts of `cell.json` and `requests.parquet` differ: a record that contradicts itself
/// must not be read as if it were sound.
fn mismatches(run: &RunData, passes: &Passes) -> Vec<String> {
    let none = Samples::none();
    let mut notes = Vec::new();
    for (at, cell) in run.cells.iter().enumerate() {
        for PassRecord { state, counts, .. } in &cell.passes {
            let read = passes.get(at, *state).unwrap_or(&none).counts;
            if read != *counts {
                notes.push(format!(
                    "cell `{}`, {state}: the record has {}, its request rows have {}",
                    cell.id,
                    spell(*counts),
                    spell(read)
                ));
            }
        }
    }
    notes
}

fn spell(counts: Counts) -> String {
    let Counts {
        sent,
        ok,
        failed,
        unfinished,
    } = counts;
    format!("{sent} sent = {ok} ok + {failed} failed + {unfinished} unfinished")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::fixture::{Bench, rows_of};
    use crate::record::schema::Phase;

    #[test]
    fn only_ok_requests_enter_latencies_and_throughput() {
        let mut bench = Bench::new();
        bench
            .cell("cpu", 1024, 1, 1)
            .pass(CacheState::Cold, &rows_of(&[10.0, 20.0, 60.0], 1));
        let table = summarize(&bench.run()).unwrap();
        let row = &table.rows[0];
        assert_eq!(
            (row.counts.sent, row.counts.ok, row.counts.failed),
            (4, 3, 1)
        );
        assert_eq!(
            (row.ttft.n, row.ttft.p50, row.ttft.mean),
            (3, Some(20.0), Some(30.0))
        );
        assert_eq!(row.ttft.p90, None);
        // Each request has gaps of 5, 10 and 15 ms: nine in all.
        assert_eq!(
            (row.itl.n, row.itl.p50, row.itl.mean),
            (9, Some(10.0), Some(10.0))
        );
        assert_eq!((row.tpot.n, row.e2e.p50), (3, Some(50.0)));
        // 3 requests of 1030 + 4 tokens in 2 s.
        assert_eq!(row.requests_per_s, Some(1.5));
        assert_eq!(row.output_tokens_per_s, Some(6.0));
        assert_eq!(row.total_tokens_per_s, Some(1551.0));
        assert_eq!(
            (row.prompt_tokens_mean, row.cached_tokens_mean),
            (Some(1030.0), Some(0.0))
        );
        assert!(table.notes.is_empty(), "{:?}", table.notes);
    }

    #[test]
    fn a_missing_token_count_leaves_the_sum_out_rather_than_too_low() {
        let mut rows = rows_of(&[10.0, 20.0], 0);
        rows[0].prompt_tokens = None;
        let mut bench = Bench::new();
        bench.cell("cpu", 1024, 1, 1).pass(CacheState::Cold, &rows);
        let row = summarize(&bench.run()).unwrap().rows.remove(0);
        assert_eq!(row.output_tokens_per_s, Some(4.0));
        assert_eq!(row.total_tokens_per_s, None);
        assert_eq!(row.prompt_tokens_mean, Some(1030.0));
    }

    #[test]
    fn rows_are_sorted_by_coordinates_not_by_when_they_ran() {
        let mut bench = Bench::new();
        for (tier, repeat) in [("cpu", 2), ("redis", 1), ("baseline", 1), ("cpu", 1)] {
            bench
                .cell(tier, 1024, 1, repeat)
                .pass(CacheState::Tier, &rows_of(&[1.0], 0))
                .pass(CacheState::Cold, &rows_of(&[1.0], 0));
        }
        let table = summarize(&bench.run()).unwrap();
        let order: Vec<_> = table
            .rows
            .iter()
            .map(|row| {
                format!(
                    "{} {} {}",
                    row.state, row.coordinates.tier, row.coordinates.repeat
                )
            })
            .collect();
        assert_eq!(
            order[..4],
            [
                "cold baseline 1",
                "cold cpu 1",
                "cold cpu 2",
                "cold redis 1"
            ]
        );
        assert_eq!(order[4], "tier baseline 1");
    }

    #[test]
    fn a_pass_without_ok_requests_and_a_failed_cell_are_shown() {
        let mut bench = Bench::new();
        bench
            .cell("cpu", 1024, 1, 1)
            .pass(CacheState::Cold, &rows_of(&[], 2));
        bench
            .cell("disk", 1024, 1, 1)
            .failed(Phase::Ready, "no answer in 300 s");
        let table = summarize(&bench.run()).unwrap();
        assert_eq!((table.rows.len(), table.rows[0].ttft.n), (1, 0));
        assert_eq!(table.rows[0].requests_per_s, Some(0.0));
        assert_eq!(table.failed[0].what, "failed in ready: no answer in 300 s");
    }

    #[test]
    fn a_record_that_contradicts_itself_is_noted() {
        let mut bench = Bench::new();
        bench
            .cell("cpu", 1024, 1, 1)
            .pass(CacheState::Cold, &rows_of(&[1.0, 2.0], 0));
        let mut run = bench.run();
        run.cells[0].passes[0].counts.sent = 3;
        run.cells[0].passes[0].counts.unfinished = 1;
        assert_eq!(
            summarize(&run).unwrap().notes,
            [
                "cell `cpu-p1024-c1-r1`, cold: the record has 3 sent = 2 ok + 0 failed + 1 unfinished, \
              its request rows have 2 sent = 2 ok + 0 failed + 0 unfinished"
            ]
        );
    }
}
