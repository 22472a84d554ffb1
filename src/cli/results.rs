//! Arguments of the commands that read results.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::plan::state::CacheState;
use crate::record::schema::Source;

/// Arguments of `labrun diff`.
#[derive(Args, Clone, Debug)]
#[command(after_help = DIFF_HELP)]
pub struct DiffArgs {
    /// Before: a run's folder, a run's id, a folder of kept tables, or a git revision.
    pub a: String,
    /// After.
    pub b: String,
    /// A number to compare, such as ttft_p99; may be repeated. `all` is every one.
    #[arg(long, value_name = "NAME")]
    pub measure: Vec<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    pub format: DiffFormat,
    /// Exit with 3 where this holds, such as 'ttft_p50 > 5%'; may be repeated.
    #[arg(long, value_name = "RULE")]
    pub fail_on: Vec<String>,
    /// Compare what would be refused, or left out; may be repeated.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub allow: Vec<AllowWhat>,
    /// Allow everything.
    #[arg(long)]
    pub force: bool,
    /// Which plan's tables, where a revision has those of several.
    #[arg(long, value_name = "NAME")]
    pub plan: Option<String>,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

const DIFF_HELP: &str = "\
A git revision is read with git, without touching the work tree: the tables that `labrun keep` put \
below the results folder, else a run whose manifest names that commit.

A rule is `MEASURE > 5%`, `MEASURE < -5%` (also >= and <=), on the change from A to B, with ` where \
tier=cpu, state=tier` behind it for some cells only, or on `geomean(MEASURE)`. It fires on changes that \
stand out of the noise, and on cells that B lost.

Exit codes: 0 compared, 2 nothing to compare or refused, 3 a rule fired.";

/// How a diff is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiffFormat {
    /// Tables for a terminal.
    Text,
    /// Markdown, for a pull request.
    Markdown,
    /// JSON, with everything in it.
    Json,
    /// One row a cell and number.
    Csv,
    /// One page that needs nothing else.
    Html,
}

/// What `--allow` lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AllowWhat {
    /// Different models.
    Model,
    /// Simulated beside measured.
    Source,
    /// Cells of which nothing proves that the tier served.
    Inconclusive,
    /// Cells of which something proves that it did not.
    Invalid,
}

/// Arguments of `labrun keep`.
#[derive(Args, Clone, Debug)]
pub struct KeepArgs {
    /// A run's folder or id.
    pub run: String,
    /// Also of a run that did not finish, or lacks cells.
    #[arg(long)]
    pub partial: bool,
    /// Where the tables go [default: <results>/<plan>].
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `labrun export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// A run's folder or id.
    pub run: String,
    /// For whom.
    #[arg(long, value_enum)]
    pub format: ExportFormat,
    /// Where the files go [default: <run>/export].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Settings of this machine; they name the results folder.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What a run is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One JSON a cell and state, as `vllm bench serve --save-result --save-detailed` writes it.
    VllmBench,
    /// One row a request, all cells in one file.
    Csv,
}

/// Arguments of `labrun import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// Results of `vllm bench serve` (JSON), or `metrics_*.csv` of the earlier lab or of labrun.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The folder of the run that is made.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The tier, where a file does not say.
    #[arg(long, default_value = "baseline")]
    pub tier: String,
    /// The label, where a file does not say.
    #[arg(long, default_value = "imported")]
    pub label: String,
    /// The model, where a file does not say.
    #[arg(long)]
    pub model: Option<String>,
    /// The cache state, where a file does not say.
    #[arg(long, value_enum, default_value = "cold")]
    pub state: StateWord,
    /// Requests in flight, where a file does not say.
    #[arg(long)]
    pub concurrency: Option<u32>,
    /// Whether the numbers come from hardware, where a file does not say.
    #[arg(long, value_enum, default_value = "measured")]
    pub source: SourceWord,
}

/// A cache state on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateWord {
    /// Nothing was cached.
    Cold,
    /// The GPU prefix cache was warm.
    Gpu,
    /// Only the tier was warm.
    Tier,
    /// Only the tier, after a restart.
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
