//! What a run needs, looked at before anything is started or written.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use tokio::runtime::Runtime;

use super::externals::Externals;
use super::plan::{check_rendering, distinct_servers};
use super::say;
use crate::cli::RunArgs;
use crate::preflight::lint::{self, Finding, Severity};
use crate::preflight::{Needs, start};
use crate::recorder::manifest::Target;
use crate::server;

/// Looks at the plan, the programs, the containers and the servers that run already, and prints every
/// problem.
///
/// # Errors
/// Where there is a problem and --force is not given.
pub(super) fn check(
    target: &Target,
    externals: &Externals,
    args: &RunArgs,
    runtime: &Runtime,
) -> Result<()> {
    let settings = &target.config.settings;
    check_rendering(&target.matrix, settings)?;
    let mut problems = BTreeSet::new();
    let mut found = Vec::new();
    let mut add = |message: String| {
        if problems.insert(message.clone()) {
            found.push(message);
        }
    };
    for cell in distinct_servers(&target.matrix) {
        if let Err(error) = server::check_programs(&cell, settings) {
            add(format!("{error:#}"));
        }
    }
    let is_problem = |one: &Finding| one.severity == Severity::Problem;
    let lint = lint::lint(&target.matrix, settings, &target.files);
    lint.into_iter()
        .filter(is_problem)
        .for_each(|one| add(one.message));
    let needs = Needs::of(&target.matrix, settings);
    runtime
        .block_on(start::problems(&target.matrix, settings, &needs))
        .into_iter()
        // Of a run that goes on, cells may be finished whose server is gone.
        .chain(externals.unreachable().filter(|_| !args.resume))
        .for_each(&mut add);
    for message in &found {
        say(&format!("problem: {message}"));
    }
    match (found.len(), args.force) {
        (0, _) | (_, true) => Ok(()),
        (1, _) => bail!("1 problem; nothing was run (--force runs in spite of it)"),
        (count, _) => bail!("{count} problems; nothing was run (--force runs in spite of them)"),
    }
}
