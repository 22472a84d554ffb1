//! `labrun clean`: removes servers that a killed run left behind.

use std::io::IsTerminal as _;

use anyhow::{Result, bail};
use console::Term;
use tokio::runtime::Runtime;

use super::{ExitStatus, print, say};
use crate::cli::CleanArgs;
use crate::config::Config;
use crate::matrix::Matrix;
use crate::plan::server::Launcher;
use crate::server::docker::daemon::{self, Daemon};
use crate::server::docker::sweep;
use crate::server::leftovers::{self, Leftover, Mark};

/// Lists and removes leftovers.
pub(super) fn clean(args: &CleanArgs, runtime: &Runtime) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let remove = !args.dry_run;
    // Containers first: processes and files belong to them.
    let mut lines = match (daemon::may_be_there(), in_docker(remove, runtime)) {
        (_, Ok(lines)) => lines,
        (false, Err(_)) => Vec::new(),
        (true, Err(error)) => {
            say(&format!("not looked for in Docker: {error:#}"));
            Vec::new()
        }
    };
    let leftovers = leftovers::find(&config.settings.paths.scratch)?;
    let (mut doubtful, mut sure): (Vec<_>, Vec<_>) = leftovers
        .into_iter()
        .partition(|left| matches!(left, Leftover::Doubtful { .. }));
    if remove {
        doubtful.retain(|left| {
            let may_go = matches!(left, Leftover::Doubtful { may_go: true, .. });
            let goes = may_go && (args.yes || ask(left));
            if goes {
                sure.push(left.clone());
            }
            !goes
        });
        leftovers::remove(&sure);
    }
    lines.extend(sure.iter().map(ToString::to_string));
    let did = if remove { "removed" } else { "would remove" };
    for line in &lines {
        print(&format!("{did} {line}\n"))?;
    }
    for left in &doubtful {
        let may_go = matches!(left, Leftover::Doubtful { may_go: true, .. });
        let how = if may_go {
            "; `labrun clean --yes` removes it"
        } else {
            ""
        };
        print(&format!("left {left}{how}\n"))?;
    }
    if lines.is_empty() && doubtful.is_empty() {
        print("nothing was left behind\n")?;
    }
    Ok(ExitStatus::Success)
}

/// Asks whether `left` can go, where somebody can answer.
fn ask(left: &Leftover) -> bool {
    let terminal = Term::stderr();
    if !terminal.is_term() || !std::io::stdin().is_terminal() {
        return false;
    }
    say(&format!("remove {left}? [y/N]"));
    let answer = terminal.read_line().unwrap_or_default();
    answer.trim().eq_ignore_ascii_case("y")
}

/// Before a run in Docker, removes containers of killed runs: they would take its GPU and memory.
pub(super) fn before_run(matrix: &Matrix, runtime: &Runtime) {
    if uses_docker(matrix) {
        // Where Docker does not answer, each of its cells fails with that reason.
        for left in in_docker(true, runtime).unwrap_or_default() {
            say(&format!("removed {left}"));
        }
    }
}

/// After a run in Docker, removes containers that could not be removed when their cell ended: Docker
/// did not answer then.
pub(super) async fn after_run(matrix: &Matrix, mark: &Mark) {
    if !uses_docker(matrix) {
        return;
    }
    let removed = match Daemon::connect().await {
        Ok(daemon) => sweep::remove_own(&daemon, mark, &[]).await,
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        say(&format!(
            "containers may be left behind: {error:#}; `labrun clean` removes them"
        ));
    }
}

fn uses_docker(matrix: &Matrix) -> bool {
    let mut launchers = matrix
        .cells
        .iter()
        .map(|cell| cell.resolved.server.launcher);
    launchers.any(|launcher| launcher == Launcher::Docker)
}

/// What labruns that are gone left in Docker, a line each; removed if `remove`.
fn in_docker(remove: bool, runtime: &Runtime) -> Result<Vec<String>> {
    runtime.block_on(async {
        let daemon = Daemon::connect().await?;
        daemon.check_is_local()?;
        let orphans = sweep::find_orphans(&daemon).await?;
        if remove && let Err(error) = sweep::remove(&daemon, &orphans).await {
            bail!("{error:#}; run `labrun clean` again");
        }
        Ok(orphans.iter().map(ToString::to_string).collect())
    })
}
