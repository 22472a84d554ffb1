//! Copies a container's output into files while it runs: stdout and stderr apart.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures::StreamExt as _;

use super::daemon::status;

/// Where a container's output and its use of the machine go.
#[derive(Clone, Debug)]
pub(crate) struct LogFiles {
    /// Log of the container's standard output.
    pub stdout: PathBuf,
    /// Log of the container's standard error.
    pub stderr: PathBuf,
    /// What it used of the machine, one JSON object a line.
    pub stats: PathBuf,
}

/// The open files of one container.
#[derive(Debug)]
pub(super) struct Copier {
    stdout: (PathBuf, File),
    stderr: (PathBuf, File),
}

/// Opens a file to append to.
pub(super) fn appended(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening `{}`", path.display()))
}

impl Copier {
    /// Opens both logs for appending.
    pub(super) fn open(files: &LogFiles) -> Result<Self> {
        Ok(Self {
            stdout: (files.stdout.clone(), appended(&files.stdout)?),
            stderr: (files.stderr.clone(), appended(&files.stderr)?),
        })
    }

    /// Copies until the container ends. Where the daemon goes away meanwhile, it is asked again
    /// from there on. The lines of one second may come twice.
    pub(super) async fn follow(mut self, docker: Docker, id: String) -> Result<()> {
        let mut since = 0;
        loop {
            let options = LogsOptions {
                follow: true,
                stdout: true,
                stderr: true,
                since,
                tail: "all".to_owned(),
                ..LogsOptions::default()
            };
            let mut output = docker.logs(&id, Some(options));
            loop {
                match output.next().await {
                    Some(Ok(part)) => self.write(&part)?,
                    None => return Ok(()),
                    Some(Err(error)) if status(&error).is_some() => return Ok(()),
                    Some(Err(_broken)) => break,
                }
            }
            since = now_s();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn write(&mut self, part: &LogOutput) -> Result<()> {
        let (path, file) = match part {
            LogOutput::StdErr { .. } => &mut self.stderr,
            _ => &mut self.stdout,
        };
        file.write_all(part.as_ref())
            .with_context(|| format!("writing `{}`", path.display()))
    }
}

/// Seconds since 1970, as the daemon's log is asked for.
fn now_s() -> i32 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i32::try_from(now.as_secs()).unwrap_or(i32::MAX)
}
