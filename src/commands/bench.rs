//! `labrun bench`: one load against a server that runs, or this machine's floor.

mod table;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use console::Term;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{ExitStatus, print, say, width};
use crate::aggregate::SummaryRow;
use crate::cli::BenchArgs;
use crate::config::Config;
use crate::load::{
    Endpoint, LoadOptions, LoadOutcome, Progress, RequestRecord, drive, open_files, selftest,
};
use crate::matrix::Coordinates;
use crate::metric::Metric;
use crate::plan::load_spec::{Arrival, LoadSpec, Stop as LoadStop};
use crate::plan::server::Launcher;
use crate::plan::state::CacheState;
use crate::plan::workload_spec::{EndpointKind, PromptForm, WorkloadKind, WorkloadSpec};
use crate::record::reader::RunData;
use crate::record::schema::{
    CellOutcome, CellRecord, FORMAT, ServerRecord, Verdict, VerdictStatus,
};
use crate::recorder::client_floor;
use crate::recorder::rows::request_rows;
use crate::report::Report;
use crate::runner::record::{pass_record, source_of_version};
use crate::runner::result::{Pass, PassTelemetry};
use crate::runner::stop::Stop;
use crate::server::control::{self, Control};
use crate::units::{Concurrency, GenLen, MAX_SECONDS, PromptLen, Repeat, RequestCount, Seed};
use crate::verdict::answers::first_failure;
use crate::workload::{self, Schedule, Workload};

/// Runs one load and prints its table, or its JSON.
pub(super) fn bench(args: &BenchArgs, runtime: &Runtime) -> Result<ExitStatus> {
    if args.calibrate {
        let floor = runtime.block_on(selftest::calibrate())?;
        print(&format!("{}\n", serde_json::to_string_pretty(&floor)?))?;
        let results = Config::load(None)?.settings.paths.results;
        let stored = client_floor::store(&floor, &results)?;
        say(&format!(
            "stored in {}; manifests of runs contain it",
            stored.display()
        ));
        return Ok(ExitStatus::Success);
    }
    let Some(url) = &args.url else {
        bail!("no server: name its URL, such as `labrun bench http://127.0.0.1:8000 --model m`");
    };
    let Some(model) = &args.model else {
        bail!("no model: name it with --model, as the server does under /v1/models");
    };
    let shape = Shape::of(args)?;
    let measured = runtime.block_on(measure(args, url, model, &shape))?;
    show(args, model, &shape, measured)
}

/// The arguments, checked.
struct Shape {
    workload: WorkloadSpec,
    load: LoadSpec,
    at: Coordinates,
    requests: RequestCount,
    seed: Seed,
    vocabulary: std::ops::Range<u32>,
}

impl Shape {
    fn of(args: &BenchArgs) -> Result<Self> {
        let none = |name: &str| format!("--{name} must be at least 1");
        check_sizes(args)?;
        let kind = if args.shared_prefix {
            WorkloadKind::SharedPrefix {
                documents: None,
                questions_per_document: None,
                question_len: None,
            }
        } else {
            WorkloadKind::Unique
        };
        let endpoint = if args.chat {
            EndpointKind::Chat
        } else {
            EndpointKind::Completions
        };
        let as_text = args.text || args.chat;
        let arrival = match args.rate_rps {
            None => Arrival::Closed,
            Some(rate_rps) if (1e-6..=1e9).contains(&rate_rps) => Arrival::Poisson { rate_rps },
            Some(rate) => bail!(
                "invalid `--rate-rps {rate}`: expected requests per second, from 0.000001 to 1e9"
            ),
        };
        let stop = match args.for_s {
            None => LoadStop::Count,
            Some(seconds) if seconds > 0.0 && seconds <= MAX_SECONDS => {
                LoadStop::CountOrTime { seconds }
            }
            Some(seconds) => bail!(
                "invalid `--for-s {seconds:e}`: expected seconds above 0 and up to {MAX_SECONDS:e}"
            ),
        };
        let [first, last] = args.prompt_token_ids[..] else {
            bail!("--prompt-token-ids takes FIRST,LAST");
        };
        Ok(Self {
            workload: WorkloadSpec {
                kind,
                endpoint,
                prompt: if as_text {
                    PromptForm::Text
                } else {
                    PromptForm::TokenIds
                },
            },
            load: LoadSpec {
                arrival,
                stop,
                ..LoadSpec::default()
            },
            at: Coordinates {
                label: args.label.clone(),
                tier: args.tier.clone(),
                prompt_len: PromptLen::new(args.prompt_len).with_context(|| none("prompt-len"))?,
                gen_len: GenLen::new(args.gen_len).with_context(|| none("gen-len"))?,
                concurrency: Concurrency::new(args.concurrency)
                    .with_context(|| none("concurrency"))?,
                repeat: Repeat::new(1).context("one is not zero")?,
                extra: BTreeMap::new(),
            },
            requests: RequestCount::new(args.requests).with_context(|| none("requests"))?,
            seed: Seed(args.seed.unwrap_or_else(new_seed)),
            vocabulary: first..last.saturating_add(1),
        })
    }

    /// What is sent, in a line. The seed repeats it.
    fn heading(&self, model: &str) -> String {
        let arrival = match self.load.arrival {
            Arrival::Poisson { rate_rps } => format!("{rate_rps} requests/s"),
            _ => format!("{} in flight", self.at.concurrency),
        };
        format!(
            "{model}: prompts of {} tokens, {} generated, {arrival}; --seed {} sends the same again",
            self.at.prompt_len, self.at.gen_len, self.seed.0
        )
    }

    /// Connections at once, where they have a bound.
    fn streams(&self) -> u32 {
        match self.load.arrival {
            Arrival::Closed => self.at.concurrency.get().min(self.requests.get()),
            _ => 0,
        }
    }

    fn workload<'a>(&'a self, model: &'a str) -> Workload<'a> {
        Workload {
            spec: &self.workload,
            label: &self.at.label,
            model,
            prompt_len: self.at.prompt_len,
            gen_len: self.at.gen_len,
            concurrency: self.at.concurrency,
            requests: self.requests,
            arrival: self.load.arrival,
            seed: self.seed,
            vocab: self.vocabulary.clone(),
            chunk_tokens: crate::plan::tier::DEFAULT_CHUNK_TOKENS,
            file: None,
        }
    }
}

/// A seed that was not used before: with that of an earlier load, the server would answer from its cache.
fn new_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000_000
}

/// The most tokens of a prompt or an answer.
const MAX_TOKENS: u32 = 10_000_000;
/// The most connections.
const MAX_CONCURRENCY: u32 = 100_000;
/// The most requests.
const MAX_REQUESTS: u32 = 10_000_000;
/// The most tokens of all prompts: they are built before the first is sent.
const MAX_PROMPT_TOKENS: u64 = 2_000_000_000;

/// Fails where a number is larger than a load's memory would hold.
fn check_sizes(args: &BenchArgs) -> Result<()> {
    for (name, number, most) in [
        ("prompt-len", args.prompt_len, MAX_TOKENS),
        ("gen-len", args.gen_len, MAX_TOKENS),
        ("concurrency", args.concurrency, MAX_CONCURRENCY),
        ("num-requests", args.requests, MAX_REQUESTS),
        ("warmup", args.warmup, MAX_REQUESTS),
    ] {
        ensure!(
            number <= most,
            "invalid `--{name} {number}`: at most {most} is possible"
        );
    }
    let requests = u64::from(args.requests.max(args.warmup));
    ensure!(
        requests * u64::from(args.prompt_len) <= MAX_PROMPT_TOKENS,
        "{requests} requests of {} tokens are more prompt tokens than the {MAX_PROMPT_TOKENS} that \
         fit: lower --num-requests or --prompt-len",
        args.prompt_len
    );
    Ok(())
}

/// One load, and what is known of the server.
struct Measured {
    schedule: Arc<Schedule>,
    load: LoadOutcome,
    version: Option<String>,
    interrupted: bool,
}

async fn measure(args: &BenchArgs, url: &str, model: &str, shape: &Shape) -> Result<Measured> {
    open_files::check(shape.streams())?;
    let server = control::Endpoint::new(url, model)?.with_key_of_environment();
    let mut endpoint = Endpoint::parse(url)?;
    if let Some(key) = &server.api_key {
        endpoint = endpoint.with_api_key(key.secret().to_owned());
    }
    let control = Control::new(server)?;
    let version = control.version().await.unwrap_or_else(|error| {
        say(&format!(
            "warning: the server does not report its version: {error:#}"
        ));
        None
    });
    refuse_another_model(&control, url).await?;
    let workload = shape.workload(model);
    let tokenize = |body: Bytes| {
        let control = control.clone();
        async move {
            control
                .tokenize(body)
                .await
                .map_err(|error| format!("{error:#}"))
        }
    };
    let pass = workload::Pass::State(CacheState::Cold);
    let schedule = Arc::new(workload.build_text(pass, tokenize).await?);
    let stop = Stop::default();
    let signals = stop.on_signals(say)?;
    let mut options = LoadOptions::from(&shape.load);
    options.kill = stop.at_once.clone();
    if args.warmup > 0 {
        let warmup = workload
            .build_text(workload::Pass::Warmup(args.warmup), tokenize)
            .await?;
        send(&Arc::new(warmup), &endpoint, &options, &stop.polite).await?;
    }
    let load = send(&schedule, &endpoint, &options, &stop.polite).await?;
    signals.abort();
    Ok(Measured {
        schedule,
        load,
        version,
        interrupted: stop.requested(),
    })
}

/// Fails where the server lists its models and the one that was named is not among them: every request
/// would be refused. A server without such a list is taken at its word.
async fn refuse_another_model(control: &Control, url: &str) -> Result<()> {
    let models = control.models().await.unwrap_or_default();
    let refusal = (!models.is_empty()).then(|| control.not_among(&models));
    match refusal.flatten() {
        Some(why) => bail!("the server at {url} has another model: {why}; name it with --model"),
        None => Ok(()),
    }
}

async fn send(
    schedule: &Arc<Schedule>,
    endpoint: &Endpoint,
    options: &LoadOptions,
    polite: &CancellationToken,
) -> Result<LoadOutcome> {
    let progress = Arc::new(Progress::default());
    let shown = Arc::clone(&progress);
    let total = schedule.requests.len();
    let load = drive(Arc::clone(schedule), endpoint, options, polite, &progress);
    tokio::pin!(load);
    let terminal = Term::stderr();
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(200));
    loop {
        tokio::select! {
            outcome = &mut load => {
                if terminal.is_term() {
                    drop(terminal.clear_line());
                }
                return Ok(outcome?);
            }
            _ = tick.tick() => if terminal.is_term() {
                let seen = shown.snapshot();
                let ended = seen.ok + seen.failed + seen.unfinished;
                drop(terminal.clear_line());
                drop(terminal.write_str(&format!("{ended}/{total} ({} failed)", seen.failed)));
            },
        }
    }
}

/// The pass of one load. It proves nothing about any tier.
fn unproven(schedule: Arc<Schedule>, load: LoadOutcome) -> Pass {
    Pass {
        state: CacheState::Cold,
        started: std::time::Duration::ZERO,
        schedule,
        load,
        verdict: Verdict {
            status: VerdictStatus::Inconclusive,
            reasons: vec!["`bench` looks at one load and proves no tier".to_owned()],
            witnesses: BTreeMap::new(),
        },
        basis: None,
        evidence: BTreeMap::new(),
        telemetry: PassTelemetry::default(),
        ledger: Vec::new(),
    }
}

fn show(args: &BenchArgs, model: &str, shape: &Shape, measured: Measured) -> Result<ExitStatus> {
    let Measured {
        schedule,
        load,
        version,
        interrupted,
    } = measured;
    let counts = load.counts();
    let warnings = load.warnings();
    let first_failure = first_failure(&load);
    let pass = unproven(schedule, load);
    let record = cell_record(model, shape, &pass, version);
    let run = RunData::new(vec![(record.clone(), request_rows(&pass))])?;
    let report = Report::of(&run, "bench")?;
    let row = report
        .summary()
        .rows
        .first()
        .context("a load has one row")?;
    if args.json {
        print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&as_json(&record, row, (shape.seed, &warnings)))?
        ))?;
    } else {
        if counts.ok > 0 {
            print(&table::text(row, &shape.heading(model), width()))?;
        }
        say(&format!(
            "sent {} = ok {} + failed {} + unfinished {}",
            counts.sent, counts.ok, counts.failed, counts.unfinished
        ));
    }
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    let cached: u64 = pass
        .load
        .records
        .iter()
        .filter_map(RequestRecord::cached_tokens)
        .map(u64::from)
        .sum();
    if cached > 0 && !args.shared_prefix {
        say(&format!(
            "warning: the server answered {cached} prompt tokens from a cache, though no two prompts \
             share anything: it has seen this seed before; leave --seed out"
        ));
    }
    if interrupted {
        say("interrupted");
        return Ok(ExitStatus::Interrupted);
    }
    if let Some(failure) = first_failure {
        say(&format!(
            "error: {} of {} requests failed; first: {failure}",
            counts.failed, counts.sent
        ));
        return Ok(ExitStatus::CellsFailed);
    }
    Ok(ExitStatus::Success)
}

fn cell_record(model: &str, shape: &Shape, pass: &Pass, version: Option<String>) -> CellRecord {
    CellRecord {
        format: FORMAT,
        id: shape.at.slug(),
        position: 1,
        part: None,
        coordinates: shape.at.clone(),
        tier_kind: None,
        identity: BTreeMap::new(),
        machine: BTreeMap::new(),
        source: source_of_version(version.as_deref()),
        model: model.to_owned(),
        outcome: CellOutcome::Completed,
        server: ServerRecord {
            launcher: Some(Launcher::External),
            version,
            ..ServerRecord::default()
        },
        passes: vec![pass_record(pass)],
        warnings: Vec::new(),
        files: BTreeMap::new(),
    }
}

/// One load as JSON: the columns of `summary.csv`, and the client's measures of itself.
fn as_json(record: &CellRecord, row: &SummaryRow, (seed, warnings): (Seed, &[String])) -> Value {
    let pass = &record.passes[0];
    let mut latencies = serde_json::Map::new();
    for metric in [
        Metric::Ttft,
        Metric::Itl,
        Metric::Tpot,
        Metric::E2e,
        Metric::Lateness,
    ] {
        if let Some(summary) = row.latency(metric) {
            latencies.insert(
                metric.spec().column.to_owned(),
                json!({
                    "n": summary.n, "mean": summary.mean, "p50": summary.p50,
                    "p90": summary.p90, "p99": summary.p99,
                }),
            );
        }
    }
    json!({
        "source": record.source,
        "model": record.model,
        "server_version": record.server.version,
        "coordinates": record.coordinates,
        "seed": seed.0,
        "corpus": pass.corpus,
        "duration_s": pass.duration_s,
        "counts": pass.counts,
        "errors": pass.errors,
        "latencies": latencies,
        "requests_per_s": row.requests_per_s,
        "output_tokens_per_s": row.output_tokens_per_s,
        "total_tokens_per_s": row.total_tokens_per_s,
        "prompt_tokens_mean": row.prompt_tokens_mean,
        "cached_tokens_mean": row.cached_tokens_mean,
        "client": pass.client,
        "warnings": warnings,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Wrapped {
        #[command(flatten)]
        args: BenchArgs,
    }

    #[test]
    fn numbers_that_no_memory_holds_are_refused() {
        let refusal = |flags: &[&str]| {
            let line = [&["bench", "http://127.0.0.1:1"], flags].concat();
            check_sizes(&Wrapped::parse_from(line).args).map_err(|error| error.to_string())
        };
        assert_eq!(refusal(&[]), Ok(()));
        let most = u32::MAX.to_string();
        for flag in [
            "--num-requests",
            "--concurrency",
            "--prompt-len",
            "--gen-len",
            "--warmup",
        ] {
            let error = refusal(&[flag, &most]).unwrap_err();
            assert!(error.contains(flag), "{error}");
        }
        let both = ["--num-requests", "1000000", "--prompt-len", "1000000"];
        assert!(refusal(&both).unwrap_err().contains("prompt tokens"));
    }
}
