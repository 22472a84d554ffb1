//! `labrun clean`: removes servers that a killed run left behind.

use anyhow::{Result, bail};

use super::{ExitStatus, print, runtime, say};
use crate::cli::CleanArgs;
use crate::config::Config;
use crate::matrix::Matrix;
use crate::plan::server::Launcher;
use crate::server::docker::daemon::{self, Daemon};
use crate::server::docker::sweep;
use crate::server::leftovers::{self, Mark};

/// Lists and removes leftovers.
pub fn clean(args: &CleanArgs) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let remove = !args.dry_run;
    // Containers first: they hold what processes and files are for.
    let mut lines = match (daemon::may_be_there(), in_docker(remove)) {
        (_, Ok(lines)) => lines,
        (false, Err(_)) => Vec::new(),
        (true, Err(error)) => {
            say(&format!("not looked for in Docker: {error:#}"));
            Vec::new()
        }
    };
    let found = leftovers::find(&config.settings.paths.scratch)?;
    if remove {
        leftovers::remove(&found);
    }
    lines.extend(found.iter().map(ToString::to_string));
    let did = if remove { "removed" } else { "would remove" };
    for line in &lines {
        print(&format!("{did} {line}\n"))?;
    }
    if lines.is_empty() {
        print("nothing was left behind\n")?;
    }
    Ok(ExitStatus::Success)
}

/// Before a run in Docker: what killed runs left there would take the GPU and the memory of this one.
pub fn before_run(matrix: &Matrix) {
    if uses_docker(matrix) {
        // Where Docker does not answer, each of its cells says so.
        for left in in_docker(true).unwrap_or_default() {
            say(&format!("removed {left}"));
        }
    }
}

/// After a run in Docker: what could not be removed when its cell ended, because Docker did not
/// answer then.
pub async fn after_run(matrix: &Matrix, mark: &Mark) {
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

/// What labruns that are gone left in Docker, a line each; removed where `remove` says so.
pub fn in_docker(remove: bool) -> Result<Vec<String>> {
    runtime()?.block_on(async {
        let daemon = Daemon::connect().await?;
        daemon.check_is_local()?;
        let found = sweep::find_orphans(&daemon).await?;
        if remove && let Err(error) = sweep::remove(&daemon, &found).await {
            bail!("{error:#}; run `labrun clean` again");
        }
        Ok(found.iter().map(ToString::to_string).collect())
    })
}
