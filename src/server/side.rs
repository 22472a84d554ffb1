//! The side processes of a connector's tier: started before vLLM, one after the other, each once the one
//! before is ready.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::command_line::quoted;
use super::connector::Side;
use super::group::ProcessGroup;
use super::leftovers::Mark;
use crate::config::Settings;
use crate::plan::connector::Ready;

/// Between two looks whether it is ready.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for one answer to that question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Name of the log of the side process called `name`.
pub(crate) fn log_name(name: &str) -> String {
    format!("side-{name}.log")
}

/// The name of the side process whose log has the file name `log`.
pub(crate) fn of_log(log: &str) -> Option<&str> {
    log.strip_prefix("side-")?.strip_suffix(".log")
}

/// What is needed to start them.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// What labrun reads of this machine.
    pub settings: Settings,
    /// The mark that they carry.
    pub mark: Mark,
    /// Where their logs are.
    pub folder: PathBuf,
}

/// One that runs.
#[derive(Debug)]
pub(super) struct Running {
    process: ProcessGroup,
}

impl Running {
    /// Starts `side`.
    pub(super) fn start(side: &Side, with: &Start) -> Result<Self> {
        let name = format!("the side process `{}`", side.name);
        let log = with.folder.join(log_name(&side.name));
        let command = side.line.command(&with.settings);
        let process = ProcessGroup::start(name, command, &log, &with.mark)?;
        Ok(Self { process })
    }

    /// Its process id.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Resolves when it ends by itself.
    pub(super) async fn exited(&mut self) -> String {
        self.process.exited().await
    }

    /// Stops it.
    pub(super) async fn stop(self, grace: Duration, at_once: CancellationToken) {
        self.process.stop(grace, at_once).await;
    }
}

/// Waits until `side` is ready, whose log is at `log` and began at `from`.
///
/// # Errors
/// What is still missing when its time is over.
pub(super) async fn until_ready(side: &Side, log: &Path, from: u64) -> Result<(), String> {
    let limit = side.spec.ready_timeout;
    let began = Instant::now();
    loop {
        let Some(missing) = missing(&side.spec.ready, log, from).await else {
            return Ok(());
        };
        if began.elapsed() >= limit {
            return Err(format!(
                "the side process `{}` was not ready after {} s: {missing} (raise its \
                 `ready_timeout_s`, or correct what shows that it is ready)",
                side.name,
                limit.as_secs()
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is still missing; `None` once it is ready.
async fn missing(ready: &Ready, log: &Path, from: u64) -> Option<String> {
    match ready {
        Ready::Port(port) => {
            let address = format!("127.0.0.1:{port}");
            let opened = tokio::time::timeout(ANSWER_LIMIT, TcpStream::connect(&address)).await;
            let is_open = opened.is_ok_and(|opened| opened.is_ok());
            (!is_open).then(|| format!("nothing listens at {address}"))
        }
        Ready::Url(url) => {
            let asked = async {
                let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT);
                let client = client.tls_certs_only([]).build()?;
                client.get(url).send().await
            };
            match asked.await {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("{url} answered {}", answer.status().as_u16())),
                Err(_) => Some(format!("{url} does not answer")),
            }
        }
        Ready::Line(line) => {
            let written = read_from(log, from).unwrap_or_default();
            (!written.contains(line.as_str())).then(|| format!("its log does not say `{line}`"))
        }
    }
}

/// The length of the log at `path` now.
pub(super) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

fn read_from(path: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The most of a log in which the line is looked for.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// A shell's lines that start it in the background and wait until it is ready.
pub(super) fn shell(side: &Side) -> String {
    let command = side.line.shell();
    let until = |test: &str| format!("until {test}; do sleep 1; done");
    match &side.spec.ready {
        Ready::Port(port) => {
            let open = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null");
            format!("{command} &\n{}", until(&open))
        }
        Ready::Url(url) => {
            let answers = format!("curl -fso /dev/null {}", quoted(url));
            format!("{command} &\n{}", until(&answers))
        }
        Ready::Line(line) => {
            let says = format!("grep -qF -- {} \"$log\"", quoted(line));
            format!(
                "log=$(mktemp)\n{command} >\"$log\" 2>&1 &\n{}",
                until(&says)
            )
        }
    }
}
