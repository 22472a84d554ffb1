//! Arguments of `labrun run` and `labrun plan`.

use std::path::PathBuf;

use clap::Args;

use crate::matrix::shard::Shard;
use crate::plan::only::{Selection, tokens};
use crate::plan::server::Launcher;
use crate::plan::text::Setting;
use crate::recorder::resume::Retry;
use crate::report::Price;

/// Arguments of `labrun run`.
#[derive(Args, Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct RunArgs {
    /// Plan (TOML file, `-` for standard input); with --resume also a run: its folder, its id or the
    /// start of one, `latest` or `latest:PLAN`.
    pub plan: Option<PathBuf>,
    /// Changes to the plan.
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// Show what would run, as `labrun plan` does; change nothing.
    #[arg(long, conflicts_with = "resume")]
    pub dry_run: bool,
    /// Continue a run: measure only cells that are missing, failed or changed. Of a plan without --out,
    /// its latest run.
    #[arg(long)]
    pub resume: bool,
    /// Finished cells that --resume measures again.
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "failed",
        requires = "resume"
    )]
    pub retry: Retry,
    /// Run only this shard of the matrix; `labrun merge` joins the shards.
    #[arg(long, value_name = "INDEX/COUNT")]
    pub shard: Option<Shard>,
    /// Stop after the first failed or invalid cell.
    #[arg(long, conflicts_with = "max_failures")]
    pub fail_fast: bool,
    /// Stop when more than COUNT cells failed or are invalid.
    #[arg(long, value_name = "COUNT")]
    pub max_failures: Option<u32>,
    /// Go on when servers of two cells in a row fail to start for the same reason.
    #[arg(long)]
    pub keep_going: bool,
    /// Run in spite of problems that labrun sees before the start.
    #[arg(long)]
    pub force: bool,
    /// Leave the host name and the user's paths out of the manifest.
    #[arg(long)]
    pub anonymous: bool,
    /// Run folder [default: <results>/<plan>/<time>-<short hash>].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Settings of this machine; they take precedence over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What an hour of the server costs: the report shows what a million generated tokens cost, with and
    /// without each tier.
    #[arg(long, value_name = "PRICE")]
    pub price_per_hour: Option<Price>,
    /// Print the long tables at the end, not the answer alone.
    #[arg(long)]
    pub tables: bool,
    /// Print only errors, and the run's folder on stdout; the files are written as usual.
    #[arg(long, short)]
    pub quiet: bool,
    /// What is measured, without a plan.
    #[command(flatten)]
    pub ad_hoc: AdHocArgs,
}

/// Arguments of `labrun plan`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlanArgs {
    /// Plan (TOML file, `-` for standard input).
    pub plan: PathBuf,
    /// Changes to the plan.
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// List every cell, in the order of the run.
    #[arg(long)]
    pub cells: bool,
    /// Print each server's command with its environment, and its rendered files.
    #[arg(long)]
    pub commands: bool,
    /// Print JSON.
    #[arg(long, conflicts_with_all = ["cells", "commands"])]
    pub json: bool,
    /// Settings of this machine; they take precedence over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What changes a plan without changing its file.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ChangeArgs {
    /// Set one value of the plan, such as `run.requests=8` or `server.args.max-model-len=32768`; may be
    /// repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<Setting>,
    /// Measure a part of the matrix, such as `tier=cpu,prompt_len=4096`. The baseline stays beside other
    /// tiers, which are compared with it.
    #[arg(long, value_name = "AXIS=VALUE")]
    pub only: Vec<Selection>,
}

impl ChangeArgs {
    /// The flags as they were typed.
    pub(crate) fn flags(&self) -> Vec<String> {
        let set = self.set.iter().map(|setting| format!("--set {setting}"));
        set.chain(self.only.iter().map(|only| format!("--only {only}")))
            .collect()
    }
}

/// What is measured, without a plan. Lists are separated by commas.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Without a plan")]
pub(crate) struct AdHocArgs {
    /// Model, as a plan names it. With --tier and --prompt-len, labrun runs without a plan.
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Tiers, such as `cpu,disk`. The baseline is added.
    #[arg(long, value_name = "TIERS", value_delimiter = ',')]
    pub tier: Vec<String>,
    /// Prompt lengths, tokens: `4096,16384`, or `4k,16k` (4k is 4,096).
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', value_parser = tokens)]
    pub prompt_len: Vec<u32>,
    /// Generated tokens per request [default: 100].
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', value_parser = tokens)]
    pub gen_len: Vec<u32>,
    /// Requests in flight, such as `1,8` [default: 1].
    #[arg(long, value_name = "COUNT", value_delimiter = ',')]
    pub concurrency: Vec<u32>,
    /// Requests per cell and cache state.
    #[arg(long, alias = "num-requests", value_name = "COUNT")]
    pub requests: Option<u32>,
    /// Random seed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Name of the workload, whose prompts are a document and a fresh question [default: rag].
    #[arg(long)]
    pub label: Option<String>,
    /// How servers are started [default: what this machine has].
    #[arg(long)]
    pub launcher: Option<Launcher>,
    /// A server that runs already, http://HOST:PORT.
    #[arg(long)]
    pub url: Option<String>,
    /// Image of vLLM's containers.
    #[arg(long)]
    pub image: Option<String>,
    /// Also write the plan to this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

impl AdHocArgs {
    /// The flags that were given, each with the flag that changes the same in a plan, if there is one.
    pub(crate) fn given(&self) -> Vec<(&'static str, Option<String>)> {
        let list = |key: &str, values: &[u32]| {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            format!("--set {key}=[{}]", values.join(","))
        };
        let text = |key: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("--set {key}={value}"))
        };
        let lens = |key: &str, values: &[u32]| (!values.is_empty()).then(|| list(key, values));
        let number =
            |key: &str, value: Option<u64>| value.map(|value| format!("--set {key}={value}"));
        let tiers = (!self.tier.is_empty()).then(|| format!("--only tier={}", self.tier.join(",")));
        let label = self
            .label
            .as_ref()
            .map(|label| format!("--only label={label}"));
        let launcher = self.launcher.map(|launcher| launcher.name().to_owned());
        let all = [
            ("--model", text("model", &self.model)),
            ("--tier", tiers),
            ("--prompt-len", lens("matrix.prompt_len", &self.prompt_len)),
            ("--gen-len", lens("matrix.gen_len", &self.gen_len)),
            (
                "--concurrency",
                lens("matrix.concurrency", &self.concurrency),
            ),
            (
                "--requests",
                number("run.requests", self.requests.map(u64::from)),
            ),
            ("--seed", number("run.seed", self.seed)),
            ("--label", label),
            ("--launcher", text("server.launcher", &launcher)),
            ("--url", text("server.url", &self.url)),
            ("--image", text("server.image", &self.image)),
        ];
        let given = all.into_iter().filter(|(_, instead)| instead.is_some());
        let save = self.save.iter().map(|_| ("--save", None));
        given.chain(save).collect()
    }
}
