//! Arguments of `labrun check`.

use std::path::PathBuf;

use clap::Args;

use super::run::ChangeArgs;
use crate::plan::only::tokens;
use crate::plan::server::Launcher;

/// Arguments of `labrun check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CHECK_HELP)]
pub(crate) struct CheckArgs {
    /// Plan (TOML file) whose model, server and tiers are checked; or --model and --tier.
    pub plan: Option<PathBuf>,
    /// Changes to the plan.
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// Model, without a plan.
    #[arg(long, value_name = "MODEL", conflicts_with = "plan")]
    pub model: Option<String>,
    /// Tiers to check, such as `cpu,disk,native` [default: the plan's].
    #[arg(long, value_name = "TIERS", value_delimiter = ',')]
    pub tier: Vec<String>,
    /// Prompt lengths, tokens [default: from two chunks to the longest that the server takes].
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', value_parser = tokens)]
    pub prompt_len: Vec<u32>,
    /// Requests in flight [default: 1, and the plan's most, 8 at least, on the longest prompts].
    #[arg(long, value_name = "COUNT", value_delimiter = ',')]
    pub concurrency: Vec<u32>,
    /// How often each place is checked; after a restart once.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// How servers are started, without a plan [default: what this machine has].
    #[arg(long, conflicts_with = "plan")]
    pub launcher: Option<Launcher>,
    /// Image of vLLM's containers, without a plan.
    #[arg(long, conflicts_with = "plan")]
    pub image: Option<String>,
    /// File that names several stacks ([[pair]] with `name`, and `config`, `tiers`, `set`, or `run` of a
    /// finished check); each is checked.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub pairs: Option<PathBuf>,
    /// Run folder; with --pairs the folder of all of them [default: <results>/<plan>-check/...].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Settings of this machine; they take precedence over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

const CHECK_HELP: &str = "\
Examples:
  labrun check plans/long_context.toml
  labrun check --model Qwen/Qwen2.5-7B-Instruct --tier cpu,disk,native

labrun fills each tier, asks again from it, and says of each tier, prompt length and load whether the \
answers are those that were computed: right, WRONG, not loaded, or cannot tell. Speed is not measured.

Exit codes: 0 every place is right, 1 one is not, 2 nothing was measured.";
