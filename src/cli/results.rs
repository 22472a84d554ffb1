//! Arguments of the commands that read results.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::plan::state::CacheState;
use crate::record::schema::Source;

/// Arguments of `labrun ls`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LsArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun show`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SHOW_HELP)]
pub(crate) struct ShowArgs {
    /// Run folder, run id or the start of one, `latest` or `latest:PLAN`.
    #[arg(default_value = "latest")]
    pub run: String,
    /// A cell, by its id or a part of it: what its verdicts rest on, and where its time went.
    pub cell: Option<String>,
    /// Print the long tables as well: each tier against the baseline, and every cell and cache state.
    #[arg(long, conflicts_with = "cell")]
    pub tables: bool,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

const SHOW_HELP: &str = "\
Examples:
  labrun show                                the run that began last
  labrun show latest:quickstart --tables     its long tables
  labrun show latest disk-p3104              one of its cells

labrun reads the run's files and writes nothing.";

/// Arguments of `labrun open`.
#[derive(Args, Clone, Debug)]
pub(crate) struct OpenArgs {
    /// Run folder, run id or the start of one, `latest` or `latest:PLAN`.
    #[arg(default_value = "latest")]
    pub run: String,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun diff`.
#[derive(Args, Clone, Debug)]
#[command(after_help = DIFF_HELP)]
pub(crate) struct DiffArgs {
    /// Side A, the baseline of the comparison: a run as for `show`, stored tables or a git revision.
    pub a: String,
    /// Side B, compared with A.
    pub b: String,
    /// Measure to compare, for example ttft_p99; may be repeated. `all` compares all.
    #[arg(long, value_name = "NAME")]
    pub measure: Vec<String>,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    pub format: DiffFormat,
    /// Show numbers without a change too. JSON and CSV always have them.
    #[arg(long)]
    pub all: bool,
    /// Exit with 3 if this rule fires, for example 'ttft_p50 > 5%'; may be repeated.
    #[arg(long, value_name = "RULE")]
    pub fail_on: Vec<String>,
    /// Compare what is refused or left out by default; may be repeated.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub allow: Vec<AllowWhat>,
    /// Allow everything.
    #[arg(long)]
    pub force: bool,
    /// Plan to use when the revision contains tables for more than one plan.
    #[arg(long, value_name = "NAME")]
    pub plan: Option<String>,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

const DIFF_HELP: &str = "\
A git revision is read with git; the work tree does not change. labrun reads the tables that `labrun \
keep` wrote to the results folder, or else a run whose manifest names that commit.

A rule is `MEASURE > 5%` or `MEASURE < -5%` (also >= and <=), on the change from A to B. Append ` where \
tier=cpu, state=tier-hit` to restrict it to some cells, or use `geomean(MEASURE)`. A rule fires on changes \
that are larger than the noise, and on cells that are missing in B.

Exit codes: 0 compared, 2 nothing to compare or refused, 3 a rule fired.";

/// Arguments of `labrun verify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = VERIFY_HELP)]
pub(crate) struct VerifyArgs {
    /// Run folder, run id or the start of one, `latest`, `latest:PLAN`, or the folder of one cell.
    pub run: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

const VERIFY_HELP: &str = "\
Example:
  labrun verify results/quickstart/20261129-101500-3f9c

labrun reads the run's files alone. It compares every file with the hash in its record, counts the numbers \
of each pass again from its requests and telemetry, judges it by the rules of this labrun, and makes the \
tables again. Runs of labrun 0.1 have no hashes: their numbers are checked and judged.

Exit codes: 0 nothing differs, 1 something differs, 2 no run.";

/// How a diff is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiffFormat {
    /// Tables for a terminal.
    Text,
    /// Markdown, for a pull request.
    Markdown,
    /// JSON, with all data.
    Json,
    /// CSV, one row per cell and measure.
    Csv,
    /// One self-contained page.
    Html,
}

/// What `--allow` lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AllowWhat {
    /// Different models.
    Model,
    /// Simulated numbers with measured ones.
    Source,
    /// Cells for which nothing proves that the tier served.
    Inconclusive,
    /// Cells for which something proves that it did not.
    Invalid,
}

/// Arguments of `labrun keep`.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeepArgs {
    /// Run folder, run id or the start of one, `latest` or `latest:PLAN`.
    pub run: String,
    /// Also for a run that did not finish, or lacks cells.
    #[arg(long)]
    pub partial: bool,
    /// Output folder [default: <results>/<plan>].
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun export`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExportArgs {
    /// Run folder, run id or the start of one, `latest` or `latest:PLAN`.
    pub run: String,
    /// Output format.
    #[arg(long, value_enum)]
    pub format: ExportFormat,
    /// Output folder [default: <run>/export].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What a run is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One JSON file per cell and state, as `vllm bench serve --save-result --save-detailed` writes it.
    VllmBench,
    /// One row per request, all cells in one file.
    Csv,
}

/// Arguments of `labrun import`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ImportArgs {
    /// Results of `vllm bench serve` (JSON), or `metrics_*.csv` files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Folder of the new run.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Tier, if a file does not name one.
    #[arg(long, default_value = "baseline")]
    pub tier: String,
    /// Workload label, if a file does not name one.
    #[arg(long, default_value = "imported")]
    pub label: String,
    /// Model, if a file does not name one.
    #[arg(long)]
    pub model: Option<String>,
    /// Cache state, if a file does not name one.
    #[arg(long, value_enum, default_value = "cold")]
    pub state: StateWord,
    /// Requests in flight, if a file does not name them.
    #[arg(long)]
    pub concurrency: Option<u32>,
    /// Tokens of each prompt, if a JSON result has only their mean.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_len: Option<u32>,
    /// Tokens asked for in each answer, if a JSON result has only their mean: answers may have
    /// ended early.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub gen_len: Option<u32>,
    /// Whether the numbers come from hardware, if a file does not say so.
    #[arg(long, value_enum, default_value = "measured")]
    pub source: SourceWord,
}

/// A cache state on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateWord {
    /// Nothing was cached.
    Cold,
    /// The GPU prefix cache was warm.
    #[value(name = "gpu-hit", alias = "gpu")]
    Gpu,
    /// Only the tier was warm.
    #[value(name = "tier-hit", alias = "tier")]
    Tier,
    /// Only the tier was warm.
    #[value(name = "after-restart", alias = "restart")]
    Restart,
}

impl From<StateWord> for CacheState {
    fn from(word: StateWord) -> Self {
        match word {
            StateWord::Cold => Self::Cold,
            StateWord::Gpu => Self::Gpu,
            StateWord::Tier => Self::Tier,
            StateWord::Restart => Self::Restart,
        }
    }
}

/// Where numbers come from, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceWord {
    /// Hardware.
    Measured,
    /// A simulator.
    Simulated,
}

impl From<SourceWord> for Source {
    fn from(word: SourceWord) -> Self {
        match word {
            SourceWord::Measured => Self::Measured,
            SourceWord::Simulated => Self::Simulated,
        }
    }
}
