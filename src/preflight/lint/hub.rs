//! Models that their hub gives to those alone who accepted their terms.

use std::path::Path;

use super::Severity;
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::server::Launcher;
use crate::preflight::services;
use crate::server::facts;

/// How the names of gated models begin.
const GATED: [&str; 6] = [
    "meta-llama/",
    "google/gemma",
    "mistralai/",
    "CohereLabs/",
    "CohereForAI/",
    "nvidia/Llama",
];

/// Whether the model called `name` is fetched with a token only.
pub(crate) fn is_gated(name: &str) -> bool {
    GATED.iter().any(|beginning| name.starts_with(beginning))
}

/// Whether the server of `cell` will fetch a gated model.
pub(crate) fn fetches_gated(cell: &Cell, settings: &Settings) -> bool {
    let server = &cell.resolved.server;
    let fetches = matches!(server.launcher, Launcher::Process | Launcher::Docker);
    fetches
        && !server.is_simulated()
        && is_gated(&cell.resolved.model)
        && !Path::new(&cell.resolved.model).is_dir()
        && facts::model_path(cell, settings).is_none()
}

/// A gated model, and no token.
pub(super) fn check(cell: &Cell, settings: &Settings, add: &mut impl FnMut(Severity, String)) {
    if fetches_gated(cell, settings) && services::token_place().is_none() {
        let message = format!(
            "`{}` is a gated model: accept its terms at huggingface.co and put HF_TOKEN=... into `.env`, \
             or take one that is not, such as `Qwen/Qwen2.5-7B-Instruct`",
            cell.resolved.model
        );
        add(Severity::Note, message);
    }
}
