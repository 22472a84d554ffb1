//! The command line: clap types only.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures what KV-cache offloading to each tier buys, and proves that the tier served.
#[derive(Debug, Parser)]
#[command(name = "labrun", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit codes: 0 good, 1 a cell failed or is invalid, 2 usage or plan error, \
                        130 interrupted."
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
    /// Write the tables and figures of a run again.
    Report(ReportArgs),
    /// Draw TTFT and E2E from `metrics_*.csv` files, the earlier lab's or labrun's.
    Plot(PlotArgs),
    /// Serve the simulator: an OpenAI-compatible server without a GPU. All it answers is simulated.
    Sim(SimArgs),
    /// List and remove servers that a killed run left behind.
    Clean(CleanArgs),
}

/// Arguments of `labrun run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The plan, a TOML file.
    pub plan: Option<PathBuf>,
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
    /// A run's folder.
    pub run: PathBuf,
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
    /// Stop when standard input ends.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Arguments of `labrun clean`.
#[derive(Args, Clone, Debug)]
pub struct CleanArgs {
    /// List only.
    #[arg(long)]
    pub dry_run: bool,
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
