//! The command line: clap types only.

mod results;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::aggregate::Slos;
use crate::config::PcieMethod;
use crate::matrix::shard::Shard;
use crate::recorder::resume::Retry;

pub use results::{
    AllowWhat, DiffArgs, DiffFormat, ExportArgs, ExportFormat, ImportArgs, KeepArgs,
};

/// Measures what KV-cache offloading to each tier buys, and proves that the tier served.
#[derive(Debug, Parser)]
#[command(name = "labrun", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit codes: 0 good, 1 a cell failed or is invalid, 2 usage or plan error, \
                        3 a regression by `diff --fail-on`, 130 interrupted."
)]
pub struct Cli {
    /// What to do; without it, the plan is run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// `labrun PLAN` is short for `labrun run PLAN`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run every cell of a plan and write tables and figures.
    Run(RunArgs),
    /// Show the matrix, the rendered files and the server commands; touch nothing.
    Plan(PlanArgs),
    /// Write the tables, figures and report of a run again, or of several runs together.
    Report(ReportArgs),
    /// Say what differs between two runs, and whether it is more than noise.
    Diff(DiffArgs),
    /// Write a run's small tables to <results>/<plan>/, to be committed.
    Keep(KeepArgs),
    /// Write a run for other tools.
    Export(ExportArgs),
    /// Make a run of other tools' results, to be compared.
    Import(ImportArgs),
    /// Draw TTFT and E2E from `metrics_*.csv` files, the earlier lab's or labrun's.
    Plot(PlotArgs),
    /// Send one load to a server that runs and print its table.
    Bench(BenchArgs),
    /// Serve the simulator: an OpenAI-compatible server without a GPU. All it answers is simulated.
    Sim(SimArgs),
    /// Record this machine's telemetry (GPUs, PCIe bytes, disks, CPU) for a while, without a load.
    Telemetry(TelemetryArgs),
    /// Join the run folders of shards into one.
    Merge(MergeArgs),
    /// Run a plan on a cluster, a shard a task, and join the shards.
    Submit(SubmitArgs),
    /// List and remove servers that a killed run left behind.
    Clean(CleanArgs),
    /// Say whether this machine is fit for a run, and what to mend.
    Doctor(DoctorArgs),
}

/// Arguments of `labrun run`.
#[derive(Args, Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct RunArgs {
    /// The plan, a TOML file; with --resume also a run's folder.
    pub plan: Option<PathBuf>,
    /// Continue: what is finished and still what the plan asks for is kept. Without --out or a run's
    /// folder, the latest run of the plan.
    #[arg(long)]
    pub resume: bool,
    /// Which finished cells --resume measures again.
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "failed",
        requires = "resume"
    )]
    pub retry: Retry,
    /// Run only this part of the matrix; `labrun merge` joins the parts.
    #[arg(long, value_name = "INDEX/COUNT")]
    pub shard: Option<Shard>,
    /// Stop at the first cell that failed or is invalid.
    #[arg(long, conflicts_with = "max_failures")]
    pub fail_fast: bool,
    /// Stop when more cells than this failed or are invalid.
    #[arg(long, value_name = "COUNT")]
    pub max_failures: Option<u32>,
    /// Leave the host's name and the user's paths out of the manifest.
    #[arg(long)]
    pub anonymous: bool,
    /// The run's folder [default: <results>/<plan>/<time>-<short hash>].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Settings of this machine, over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say nothing but errors; the tables are written all the same.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Arguments of `labrun plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// The plan, a TOML file.
    pub plan: PathBuf,
    /// Settings of this machine, over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// A run's folder; of several, cells at equal coordinates count as repeats.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// A latency to keep, LATENCY[_PERCENTILE]=LIMIT, several parted by commas: `ttft=500ms` for
    /// each request, `e2e_p99=2s` for a pass as a whole. Latencies: ttft, tpot, itl, e2e.
    #[arg(long, value_name = "SLO")]
    pub slo: Vec<Slos>,
    /// Where to write [default: the run's folder; needed for several].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Arguments of `labrun plot`.
#[derive(Args, Clone, Debug)]
pub struct PlotArgs {
    /// Files to read; `*` and `?` stand for any characters of a file's name.
    #[arg(long, value_name = "GLOB", required = true, num_args = 1..)]
    pub input: Vec<String>,
    /// What the figures' names begin with.
    #[arg(long, value_name = "PREFIX", default_value = "comparison")]
    pub output_prefix: String,
}

/// Arguments of `labrun sim`.
#[derive(Args, Clone, Debug)]
pub struct SimArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// Port to listen on.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// The model that it says it serves.
    #[arg(long, default_value = "sim")]
    pub model: String,
    /// What it pretends to be: a JSON file of [server.sim] keys.
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,
    /// A fault to show; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub fault: Vec<String>,
    /// An LMCache configuration: the tier.
    #[arg(long, value_name = "FILE")]
    pub lmcache_config: Option<PathBuf>,
    /// Offload to this much RAM as vLLM itself does, GiB.
    #[arg(long, value_name = "GIB")]
    pub kv_offloading_size: Option<f64>,
    /// Keep nothing of earlier prompts on the GPU.
    #[arg(long)]
    pub no_enable_prefix_caching: bool,
    /// The vLLM version that it claims to be, with `+labrun-sim` behind it [default: 0.32.0].
    #[arg(long, value_name = "VERSION")]
    pub vllm_version: Option<String>,
    /// Leave what the Redis tier holds in the Redis of the LMCache configuration when told to stop, and
    /// begin with what is there.
    #[arg(long)]
    pub keep_redis: bool,
    /// Stop when standard input ends.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Arguments of `labrun bench`.
#[derive(Args, Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct BenchArgs {
    /// The server, http://HOST:PORT or https://HOST. OPENAI_API_KEY is sent where it is set.
    pub url: Option<String>,
    /// The model, as the server names it.
    #[arg(long)]
    pub model: Option<String>,
    /// A word for the table: what the server offloads to.
    #[arg(long, default_value = "external")]
    pub tier: String,
    /// A word for the table: what the load is.
    #[arg(long, default_value = "bench")]
    pub label: String,
    /// Prompt length, tokens.
    #[arg(long, default_value_t = 512)]
    pub prompt_len: u32,
    /// Generated tokens a request.
    #[arg(long, default_value_t = 64)]
    pub gen_len: u32,
    /// Requests in flight (closed loop).
    #[arg(long, default_value_t = 1)]
    pub concurrency: u32,
    /// Requests in all.
    #[arg(long, default_value_t = 100)]
    pub num_requests: u32,
    /// The root of all that is random.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Open loop: Poisson arrivals at this many requests a second, instead of `--concurrency`.
    #[arg(long, value_name = "PER_S")]
    pub rate: Option<f64>,
    /// Send nothing more after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub duration_s: Option<f64>,
    /// Requests of the same shape on other text, before anything is measured.
    #[arg(long, default_value_t = 0)]
    pub warmup: u32,
    /// Prompts that begin with a document of their own and end in a question, instead of prompts
    /// that share nothing.
    #[arg(long)]
    pub shared_prefix: bool,
    /// Use /v1/chat/completions, with text.
    #[arg(long)]
    pub chat: bool,
    /// Write prompts as text, its length verified through /tokenize, instead of token ids.
    #[arg(long)]
    pub text: bool,
    /// Token ids that prompts are made of.
    #[arg(
        long,
        value_name = "FIRST,LAST",
        value_delimiter = ',',
        default_value = "1000,30000"
    )]
    pub prompt_token_ids: Vec<u32>,
    /// Print JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Measure what the client can do on this machine, and nothing else.
    #[arg(long)]
    pub calibrate: bool,
}

/// Arguments of `labrun telemetry`.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// How long, unless interrupted before.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub seconds: f64,
    /// Write telemetry.parquet, pcie_stats.csv, disk_io_stats.csv and summary.json here.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only this GPU; may be repeated [default: all].
    #[arg(long, value_name = "INDEX")]
    pub gpu: Vec<u32>,
    /// How bytes over PCIe are told [default: `telemetry.pcie` of the settings].
    #[arg(long, value_name = "METHOD")]
    pub pcie: Option<PcieMethod>,
    /// Keep NVML's raw answers in a file, one a line.
    #[arg(long, value_name = "FILE", hide = true)]
    pub record_replay: Option<PathBuf>,
    /// Settings of this machine, over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// A plan: what it needs is bad where it is missing, not only a warning.
    pub plan: Option<PathBuf>,
    /// An image to look at: its CUDA against the driver, and whether it sees a GPU [default: the plan's].
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Print JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Settings of this machine, over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun merge`.
#[derive(Args, Clone, Debug)]
pub struct MergeArgs {
    /// The folder to make.
    pub out: PathBuf,
    /// Run folders of one plan.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Join them even if cells of the plan are in none of them.
    #[arg(long)]
    pub allow_missing: bool,
}

/// Arguments of `labrun submit`.
#[derive(Args, Clone, Debug)]
pub struct SubmitArgs {
    /// The plan, a TOML file; with --resume the folder of what was submitted.
    pub plan: PathBuf,
    /// As an array of Slurm jobs. [slurm] of the settings says what each asks for.
    #[arg(long)]
    pub slurm: bool,
    /// Into how many shards the matrix is split.
    #[arg(long, value_name = "COUNT", required_unless_present = "resume")]
    pub shards: Option<u32>,
    /// Watch what was submitted; submit again what was lost.
    #[arg(long)]
    pub resume: bool,
    /// The run's folder [default: <results>/<plan>/<time>-<short hash>].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Settings of the machines, over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Slurm's --partition.
    #[arg(long)]
    pub partition: Option<String>,
    /// Slurm's --account.
    #[arg(long)]
    pub account: Option<String>,
    /// Slurm's --time, of each shard.
    #[arg(long)]
    pub time: Option<String>,
    /// Slurm's --gpus, of each shard.
    #[arg(long)]
    pub gpus: Option<u32>,
    /// Time between two looks at the queue.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub poll_s: f64,
}

/// Arguments of `labrun clean`.
#[derive(Args, Clone, Debug)]
pub struct CleanArgs {
    /// List only.
    #[arg(long)]
    pub dry_run: bool,
    /// Remove also what may be somebody's, without asking: folders of this machine before its last start.
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Settings of this machine, over the built-in defaults; they name the scratch folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bare_plan_is_a_run() {
        let cli = Cli::parse_from(["labrun", "plans/x.toml", "--out", "o"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.run.plan, Some(PathBuf::from("plans/x.toml")));
        assert_eq!(cli.run.out, Some(PathBuf::from("o")));
        let cli = Cli::parse_from(["labrun", "run", "x.toml"]);
        assert!(matches!(cli.command, Some(Command::Run(args)) if args.plan.is_some()));
    }
}
