//! Arguments of the commands that explain labrun.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `labrun keys`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  labrun keys                the sections
  labrun keys workload       the keys of [workload.NAME]
  labrun keys question_len   one key
  labrun keys settings       the settings of --config, with their defaults")]
pub(crate) struct KeysArgs {
    /// Section (`run`, `server.sim`, ...), key, or `settings`.
    pub section: Option<String>,
    /// Print the whole reference as Markdown: docs/plan.md.
    #[arg(long, conflicts_with = "section")]
    pub markdown: bool,
}

/// Arguments of `labrun schema`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  labrun schema > plan.schema.json

A plan that begins with `#:schema ./plan.schema.json` is then completed and checked by editors: in VS Code by \
the extension Even Better TOML.")]
pub(crate) struct SchemaArgs {
    /// File that the schema describes.
    #[arg(value_enum, default_value = "plan")]
    pub of: SchemaOf,
}

/// What `labrun schema` describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// Plans.
    Plan,
    /// Settings of a machine (--config).
    Settings,
}

/// Arguments of `labrun completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  labrun completions bash > ~/.local/share/bash-completion/completions/labrun
  labrun completions zsh > \"${fpath[1]}/_labrun\"
  labrun completions fish > ~/.config/fish/completions/labrun.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `labrun man`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  labrun man | man -l -
  labrun man --out ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write the pages of all commands to this folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
