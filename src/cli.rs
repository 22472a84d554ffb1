//! The command line: clap types only.

mod check;
mod examples;
mod init;
mod reference;
mod results;
mod run;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::aggregate::Slos;
use crate::config::PcieMethod;
use crate::plan::problem::nearest;
use crate::report::Price;

pub(crate) use check::CheckArgs;
pub(crate) use init::{InitArgs, InitWorkload};
pub(crate) use run::{AdHocArgs, ChangeArgs, PlanArgs, RunArgs};

pub(crate) use reference::{CompletionsArgs, KeysArgs, ManArgs, SchemaArgs, SchemaOf};
pub(crate) use results::{
    AllowWhat, DiffArgs, DiffFormat, ExportArgs, ExportFormat, ImportArgs, KeepArgs, LsArgs,
    OpenArgs, ShowArgs, VerifyArgs,
};

/// Measure what KV-cache offloading to each tier buys, and prove that the tier served.
#[derive(Debug, Parser)]
#[command(name = "labrun", version, args_conflicts_with_subcommands = true)]
#[command(
    arg_required_else_help = true,
    after_help = "Exit codes: 0 good, 1 a cell failed or is invalid, 2 usage or plan error, \
                        3 a rule of `diff --fail-on` fired, 130 interrupted."
)]
pub(crate) struct Cli {
    /// The command; without one, labrun runs the plan.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// `labrun PLAN` is short for `labrun run PLAN`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The groups of the help. A command that no group names stands under "More".
const GROUPS: [(&str, &[&str]); 6] = [
    ("Start", &["init", "doctor", "plan", "keys"]),
    ("Measure", &["run", "check", "bench", "sim", "telemetry"]),
    (
        "Read",
        &["ls", "show", "open", "report", "diff", "verify", "plot"],
    ),
    ("Keep", &["keep", "export", "import"]),
    ("Machines", &["clean", "merge", "submit"]),
    ("Editors and shells", &["schema", "completions", "man"]),
];

const EXAMPLES: &str = "\
Examples:
  labrun plans/quickstart.toml               run a plan
  labrun init my.toml                        write a plan for this machine
  labrun plan plans/long_context.toml        show what it would run
  labrun diff RUN_A RUN_B                    compare two runs";

impl Cli {
    /// Reads the command line `arguments`; the first one is the program.
    pub(crate) fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let mut command = definition();
        if let Some(word) = arguments.get(1).and_then(|word| word.to_str()) {
            refuse_unknown(&command, word)?;
        }
        let matches = command.try_get_matches_from_mut(arguments);
        // clap suggests `-- --flag` for every unknown flag, which no command takes.
        let matches = matches.map_err(|mut error| {
            error.remove(ContextKind::Suggested);
            error
        })?;
        Self::from_arg_matches(&matches)
    }
}

/// Refuses a first argument that is neither a command nor a file, such as a misspelt command.
fn refuse_unknown(command: &clap::Command, word: &str) -> Result<(), clap::Error> {
    let is_path = word.contains(['/', '.']) || Path::new(word).exists();
    let names: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    if word.starts_with('-') || is_path || word == "help" || names.contains(&word) {
        return Ok(());
    }
    let hint = match nearest(word, names.iter().copied()) {
        Some(near) => format!("did you mean `labrun {near}`?"),
        None => "`labrun --help` lists the commands".to_owned(),
    };
    let message = format!("no command or plan `{word}`: {hint}\n");
    Err(clap::Error::raw(ErrorKind::InvalidSubcommand, message))
}

/// The command line's definition, with the commands in groups.
pub fn definition() -> clap::Command {
    let command = examples::add(Cli::command());
    let about_of = |name: &str| {
        let about = command
            .find_subcommand(name)
            .and_then(clap::Command::get_about);
        about.map(ToString::to_string).unwrap_or_default()
    };
    let grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .filter(|name| !grouped(name))
        .collect();
    let groups = GROUPS.iter().copied().chain([("More", others.as_slice())]);
    let mut text = String::new();
    for (title, names) in groups.filter(|(_, names)| !names.is_empty()) {
        text.push_str(&format!("{title}:\n"));
        for name in names {
            text.push_str(&format!("  {name:<12} {}\n", about_of(name)));
        }
        text.push('\n');
    }
    command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{EXAMPLES}\n\n{text}\
         Arguments:\n{{positionals}}\n\nOptions:\n{{options}}{{after-help}}"
    ))
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run every cell of a plan and write tables and figures.
    Run(Box<RunArgs>),
    /// Show the matrix, the rendered files and the server commands; change nothing.
    Plan(PlanArgs),
    /// Check whether a stack answers from each tier what it answers without it.
    Check(Box<CheckArgs>),
    /// List the runs below the results folder: when, plan, cells, proven, headline.
    Ls(LsArgs),
    /// Show a run's answer, its tables or one of its cells.
    Show(ShowArgs),
    /// Open a run's report.html in the browser.
    Open(OpenArgs),
    /// Write the tables, figures and report of a run again, or of several runs together.
    Report(ReportArgs),
    /// Show what changed between two runs, and whether it is more than noise.
    Diff(DiffArgs),
    /// Judge a run again from its files, and list what differs from its record.
    Verify(VerifyArgs),
    /// Write a run's small tables to <results>/<plan>/, for git.
    Keep(KeepArgs),
    /// Write a run for other tools.
    Export(ExportArgs),
    /// Turn results of other tools into a run, to compare them.
    Import(ImportArgs),
    /// Draw TTFT and E2E from `metrics_*.csv` files.
    Plot(PlotArgs),
    /// Send one load to a running server and print its table.
    Bench(BenchArgs),
    /// Serve the simulator: an OpenAI-compatible server without a GPU. Its answers are simulated.
    Sim(SimArgs),
    /// Record this machine's telemetry (GPUs, PCIe bytes, disks, CPU) without a load.
    Telemetry(TelemetryArgs),
    /// Join the run folders of shards into one.
    Merge(MergeArgs),
    /// Run a plan on a Slurm cluster, one shard per task, and join the shards.
    Submit(SubmitArgs),
    /// List and remove servers that a killed run left behind.
    Clean(CleanArgs),
    /// Check whether this machine is fit for a run, and show how to fix it.
    Doctor(DoctorArgs),
    /// Explain the keys of a plan: type, unit, default, meaning, example.
    Keys(KeysArgs),
    /// Print the JSON Schema of plans or settings, for editors.
    Schema(SchemaArgs),
    /// Print the completion script of a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, or write the pages of all commands.
    Man(ManArgs),
    /// Write a commented plan that fits this machine.
    Init(InitArgs),
}

/// Arguments of `labrun report`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReportArgs {
    /// Runs: folder, run id or the start of one, `latest` or `latest:PLAN`. Cells at equal
    /// coordinates of several runs count as repeats.
    #[arg(required = true)]
    pub runs: Vec<String>,
    /// Latency objective, LATENCY[_PERCENTILE]=LIMIT, separated by commas: `ttft=500ms` for each
    /// request, `e2e_p99=2s` for a whole pass. Latencies: ttft, tpot, itl, e2e.
    #[arg(long, value_name = "SLO")]
    pub slo: Vec<Slos>,
    /// What an hour of the server costs: the report shows what a million generated tokens cost, with and
    /// without each tier.
    #[arg(long, value_name = "PRICE")]
    pub price_per_hour: Option<Price>,
    /// Output folder [default: the run folder; required for several runs].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the long tables, not the answer alone.
    #[arg(long)]
    pub tables: bool,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun plot`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlotArgs {
    /// CSV files to read; `*` and `?` match characters of a file name.
    #[arg(long, value_name = "GLOB", required = true, num_args = 1..)]
    pub input: Vec<String>,
    /// Prefix of the figures' file names.
    #[arg(long, value_name = "PREFIX", default_value = "comparison")]
    pub output_prefix: String,
}

/// Arguments of `labrun sim`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SimArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// Port to listen on.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Model name to serve.
    #[arg(long, default_value = "sim")]
    pub model: String,
    /// JSON file that describes the simulated machine (keys of [server.sim]).
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,
    /// Fault to simulate; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub fault: Vec<String>,
    /// LMCache configuration: the tier.
    #[arg(long, value_name = "FILE")]
    pub lmcache_config: Option<PathBuf>,
    /// RAM for vLLM's own offloading, GiB.
    #[arg(long, value_name = "GIB")]
    pub kv_offloading_size: Option<f64>,
    /// Who offloads to that RAM.
    #[arg(long, value_name = "NAME", value_parser = ["native"], hide = true)]
    pub kv_offloading_backend: Option<String>,
    /// vLLM's own tiers, as `vllm serve` takes them: the connector and its settings.
    #[arg(long, value_name = "JSON")]
    pub kv_transfer_config: Option<String>,
    /// Disable the GPU prefix cache.
    #[arg(long)]
    pub no_enable_prefix_caching: bool,
    /// vLLM version to report; `+labrun-sim` is appended [default: 0.32.0].
    #[arg(long, value_name = "VERSION")]
    pub vllm_version: Option<String>,
    /// When stopped, leave the Redis tier's chunks in the Redis of the LMCache configuration; load them
    /// at the start.
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
pub(crate) struct BenchArgs {
    /// Server, http://HOST:PORT or https://HOST. OPENAI_API_KEY is sent if it is set.
    pub url: Option<String>,
    /// Model, as the server names it under /v1/models.
    #[arg(long)]
    pub model: Option<String>,
    /// Tier label shown in the table (not verified).
    #[arg(long, default_value = "external")]
    pub tier: String,
    /// Workload label shown in the table.
    #[arg(long, default_value = "bench")]
    pub label: String,
    /// Prompt length, tokens.
    #[arg(long, default_value_t = 512)]
    pub prompt_len: u32,
    /// Generated tokens per request.
    #[arg(long, default_value_t = 64)]
    pub gen_len: u32,
    /// Requests in flight (closed loop).
    #[arg(long, default_value_t = 1)]
    pub concurrency: u32,
    /// Number of requests.
    #[arg(long, alias = "num-requests", default_value_t = 100)]
    pub requests: u32,
    /// Random seed [default: a new one each time, which is printed].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Open loop: Poisson arrivals at this many requests per second, instead of --concurrency.
    #[arg(long, alias = "rate", value_name = "REQUESTS_PER_S")]
    pub rate_rps: Option<f64>,
    /// Stop sending after this many seconds.
    #[arg(long, alias = "duration-s", value_name = "SECONDS")]
    pub for_s: Option<f64>,
    /// Warm-up requests of the same shape on other text, before the measurement.
    #[arg(long, default_value_t = 0)]
    pub warmup: u32,
    /// Prompts of a document and a fresh question, instead of prompts that share nothing.
    #[arg(long)]
    pub shared_prefix: bool,
    /// Use /v1/chat/completions, with text prompts.
    #[arg(long)]
    pub chat: bool,
    /// Send prompts as text, with lengths verified through /tokenize, instead of token ids.
    #[arg(long)]
    pub text: bool,
    /// Range of token ids in prompts.
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
    /// Measure only the client's own limits on this machine.
    #[arg(long)]
    pub calibrate: bool,
}

/// Arguments of `labrun telemetry`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TelemetryArgs {
    /// Length of the recording.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub seconds: f64,
    /// Output folder for telemetry.parquet, pcie_stats.csv, disk_io_stats.csv and summary.json.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only this GPU; may be repeated [default: all].
    #[arg(long, value_name = "INDEX")]
    pub gpu: Vec<u32>,
    /// How PCIe traffic is measured [default: `telemetry.pcie` of the settings].
    #[arg(long, value_name = "METHOD")]
    pub pcie: Option<PcieMethod>,
    /// Write NVML's raw answers to a file, one per line.
    #[arg(long, value_name = "FILE", hide = true)]
    pub record_replay: Option<PathBuf>,
    /// Settings of this machine; they take precedence over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun doctor`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// Check against this plan: anything it requires that is missing is an error instead of a warning.
    pub plan: Option<PathBuf>,
    /// Image to check: its CUDA against the driver, and whether it sees a GPU [default: the plan's].
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Changes to the plan.
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// Print JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Settings of this machine; they take precedence over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun merge`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MergeArgs {
    /// Folder to create.
    pub out: PathBuf,
    /// Run folders of the shards of one plan.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Join them even if cells of the plan are missing.
    #[arg(long)]
    pub allow_missing: bool,
}

/// Arguments of `labrun submit`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SubmitArgs {
    /// Plan (TOML file); with --resume the folder of the submission.
    pub plan: PathBuf,
    /// Submit an array of Slurm jobs, each with the resources of [slurm] in the settings.
    #[arg(long)]
    pub slurm: bool,
    /// Number of shards.
    #[arg(long, value_name = "COUNT", required_unless_present = "resume")]
    pub shards: Option<u32>,
    /// Watch an earlier submission and submit lost shards again.
    #[arg(long)]
    pub resume: bool,
    /// Run folder [default: <results>/<plan>/<time>-<short hash>].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Settings of the machines; they take precedence over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Slurm's --partition.
    #[arg(long)]
    pub partition: Option<String>,
    /// Slurm's --account.
    #[arg(long)]
    pub account: Option<String>,
    /// Slurm's --time for each shard.
    #[arg(long)]
    pub time: Option<String>,
    /// Slurm's --gpus for each shard.
    #[arg(long)]
    pub gpus: Option<u32>,
    /// Time between two checks of the queue.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub poll_s: f64,
}

/// Arguments of `labrun clean`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CleanArgs {
    /// List what would be removed; remove nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Also remove what may belong to somebody else, without asking: folders from before this machine's
    /// last start, and processes of which nothing shows that a run started them.
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Settings of this machine; they name the scratch folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
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
