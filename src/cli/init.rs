//! Arguments of `labrun init`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::plan::server::Launcher;

/// Arguments of `labrun init`.
#[derive(Args, Clone, Debug)]
pub(crate) struct InitArgs {
    /// File to write; it must not exist.
    #[arg(default_value = "plan.toml")]
    pub file: PathBuf,
    /// Model, as a plan names it [default: the one used last in Hugging Face's cache].
    #[arg(long)]
    pub model: Option<String>,
    /// Tiers to compare with the baseline, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "cpu,disk")]
    pub tiers: Vec<String>,
    /// What the prompts look like.
    #[arg(long, default_value = "rag")]
    pub workload: InitWorkload,
    /// How servers are started [default: what this machine has].
    #[arg(long)]
    pub launcher: Option<Launcher>,
    /// Settings of this machine; they take precedence over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What the prompts of a new plan look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InitWorkload {
    /// A long document, then a fresh question.
    Rag,
    /// Sessions of many turns behind a long prompt of instructions and tools.
    Agent,
    /// Conversations whose history grows with each turn.
    Chat,
}

impl InitWorkload {
    /// The label of the workload.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rag => "rag",
            Self::Agent => "agent",
            Self::Chat => "chat",
        }
    }
}
