//! A process group that labrun started and therefore stops, on every path.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::leftovers::{self, Mark};
use crate::record::schema::ContainerRecord;

/// Longest wait for killed processes to be gone; one in an uninterruptible read takes its time.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// How long the helpers of a leader that ended may tidy up: Python's resource tracker removes vLLM's
/// shared memory only when all that used it are gone.
const TIDY_LIMIT: Duration = Duration::from_secs(2);

/// Distinguishes the groups that this labrun started.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// How a server ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// How it ended, for example "exited with code 1".
    pub how: String,
    /// Its containers, as they ended.
    pub containers: Vec<ContainerRecord>,
    /// Warnings for the cell.
    pub warnings: Vec<String>,
}

impl Stopped {
    /// A server without containers that ended as `how` describes.
    pub fn new(how: impl Into<String>) -> Self {
        Self {
            how: how.into(),
            ..Self::default()
        }
    }
}

/// A child that leads a process group of its own, with its output in a log file.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    name: String,
    child: Child,
    group: Option<Pid>,
    /// What all its processes carry in their environment, also those that left the group.
    carried: String,
    /// Open as long as labrun runs, where it is piped: a child that watches it ends with labrun.
    /// (Waiting for a child would close it.)
    _stdin: Option<ChildStdin>,
}

impl ProcessGroup {
    /// Starts `command`, both its outputs appended to `log`. The child and all that it starts carry
    /// `mark` in their environment, by which they are found again if labrun is killed.
    pub(crate) fn start(
        name: impl Into<String>,
        mut command: Command,
        log: &Path,
        mark: &Mark,
    ) -> Result<Self> {
        let name = name.into();
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening the log `{}`", log.display()))?;
        let program = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let carried = format!("{}-{number}", mark.owner);
        let mut child = command
            .process_group(0)
            .envs(mark.environment())
            .env(leftovers::GROUP, &carried)
            .stdout(Stdio::from(file.try_clone()?))
            .stderr(Stdio::from(file))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}: `{program}`"))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self {
            name,
            _stdin: child.stdin.take(),
            child,
            group,
            carried,
        })
    }

    /// Its process id, which is its group's too.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Resolves when the leader ends by itself.
    pub(crate) async fn exited(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("{} {}", self.name, end_message(status)),
            Err(error) => format!("{} could not be waited for: {error}", self.name),
        }
    }

    /// Stops the whole group: polite, then forced after `grace` or when `at_once` is cancelled.
    pub(crate) async fn stop(mut self, grace: Duration, at_once: CancellationToken) -> Stopped {
        self.signal(Signal::TERM);
        let began = Instant::now();
        let ended = tokio::select! {
            ended = self.child.wait() => Some(ended),
            () = tokio::time::sleep(grace) => None,
            () = at_once.cancelled() => None,
        };
        let ended_politely = ended.is_some();
        let how = match ended {
            Some(Ok(status)) => end_message(status),
            Some(Err(error)) => format!("could not be waited for: {error}"),
            None => {
                self.signal(Signal::KILL);
                match self.child.wait().await {
                    Ok(_) => format!("killed after {:.1} s", began.elapsed().as_secs_f64()),
                    Err(error) => format!("could not be waited for: {error}"),
                }
            }
        };
        if ended_politely {
            tokio::select! {
                () = self.wait_until_empty(TIDY_LIMIT) => {}
                () = at_once.cancelled() => {}
            }
        }
        // What the leader left behind in its group (vLLM's engine, its workers) goes too.
        self.signal(Signal::KILL);
        self.wait_until_empty(GONE_LIMIT).await;
        self.end_those_who_left(ended_politely).await;
        self.group = None;
        Stopped::new(how)
    }

    /// Ends what left the group: a profiler puts the server into a session of its own.
    async fn end_those_who_left(&self, politely: bool) {
        let carried = self.carried.clone();
        let end = move || leftovers::end_carriers(&carried, politely, GONE_LIMIT);
        // It fails only where the runtime ends: then Drop kills what is left.
        let _ended = tokio::task::spawn_blocking(end).await;
    }

    /// Killed processes take a moment to be gone: until then they hold ports and GPU memory.
    async fn wait_until_empty(&self, limit: Duration) {
        let Some(group) = self.group else { return };
        let leader = group.as_raw_nonzero().get().cast_unsigned();
        let began = Instant::now();
        while began.elapsed() < limit && leftovers::group_lives(leader) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Fails only when no process of the group is left, which is what is wanted.
            let _gone = kill_process_group(group, signal);
        }
    }
}

impl Drop for ProcessGroup {
    /// The backstop for a panic or a cancelled task: nothing of the group survives.
    fn drop(&mut self) {
        if self.group.is_some() {
            self.signal(Signal::KILL);
            leftovers::kill_carriers(&self.carried);
        }
    }
}

fn end_message(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(15)) => "terminated".to_owned(),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::proc_stat::ProcStat;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    fn alive(pid: &str) -> bool {
        ProcStat::read(pid.trim().parse().unwrap()).is_some_and(|stat| stat.lives)
    }

    async fn first_line(path: &Path) -> String {
        for _ in 0..200 {
            if let Ok(text) = std::fs::read_to_string(path)
                && text.ends_with('\n')
            {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was written to {}", path.display());
    }

    #[tokio::test]
    async fn a_group_that_ignores_the_polite_signal_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let script = "trap '' TERM; sleep 100 & echo $!; wait; wait";
        let group =
            ProcessGroup::start("test", shell(script), &log, &Mark::of_this_process("t")).unwrap();
        let child = first_line(&log).await;
        assert!(alive(&child));
        let stopped = group
            .stop(Duration::from_millis(200), CancellationToken::new())
            .await;
        assert!(stopped.how.starts_with("killed"), "{stopped:?}");
        assert!(!alive(&child), "the child of the group survived");
    }

    #[tokio::test]
    async fn helpers_of_a_leader_that_ended_may_tidy_up_for_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let (log, tidy) = (dir.path().join("log"), dir.path().join("tidy"));
        // As Python's resource tracker: it outlives the leader, deaf to the polite signal.
        let script = "(trap '' TERM; echo up; read end; sleep 0.2; echo > \"$TIDY\") < \"$PIPE\" & \
                      exec 9> \"$PIPE\"; exec sleep 100";
        let pipe = dir.path().join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .await
                .unwrap()
                .success()
        );
        let mut command = shell(script);
        command.env("TIDY", &tidy).env("PIPE", &pipe);
        let mark = Mark::of_this_process("t");
        let group = ProcessGroup::start("test", command, &log, &mark).unwrap();
        first_line(&log).await;
        let stopped = group
            .stop(Duration::from_secs(60), CancellationToken::new())
            .await;
        assert_eq!(stopped.how, "terminated");
        assert!(tidy.exists());
    }

    #[tokio::test]
    async fn what_left_the_group_ends_with_it_on_every_path() {
        let dir = tempfile::tempdir().unwrap();
        let mark = Mark::of_this_process("t");
        // As nsys does: the server in a session of its own, which a signal to the group misses.
        let script = "setsid sh -c 'echo $$; exec sleep 100' & wait";
        for path in ["stop", "at once", "drop"] {
            let log = dir.path().join(path);
            let group = ProcessGroup::start("test", shell(script), &log, &mark).unwrap();
            let left = first_line(&log).await;
            let at_once = CancellationToken::new();
            match path {
                "stop" => drop(group.stop(Duration::from_secs(60), at_once).await),
                "at once" => {
                    at_once.cancel();
                    drop(group.stop(Duration::from_secs(60), at_once).await);
                }
                _ => {
                    drop(group);
                    let began = std::time::Instant::now();
                    while alive(&left) && began.elapsed() < Duration::from_secs(10) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
            assert!(!alive(&left), "{path}");
        }
    }

    #[tokio::test]
    async fn a_second_wish_does_not_wait_for_the_grace() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let script = "trap '' TERM; echo up; while :; do sleep 1; done";
        let mark = Mark::of_this_process("t");
        let group = ProcessGroup::start("test", shell(script), &log, &mark).unwrap();
        first_line(&log).await;
        let at_once = CancellationToken::new();
        at_once.cancel();
        let stopped = group.stop(Duration::from_secs(3600), at_once).await;
        assert!(stopped.how.starts_with("killed"), "{stopped:?}");
    }

    #[tokio::test]
    async fn an_early_exit_is_reported_with_its_code() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mark = Mark::of_this_process("t");
        let mut group = ProcessGroup::start("test", shell("exit 3"), &log, &mark).unwrap();
        assert_eq!(group.exited().await, "test exited with code 3");
    }

    #[tokio::test]
    async fn a_dropped_group_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mark = Mark::of_this_process("t");
        let group = ProcessGroup::start("test", shell("echo $$; sleep 100"), &log, &mark).unwrap();
        let pid = first_line(&log).await;
        drop(group);
        for _ in 0..100 {
            if !alive(&pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it survived");
    }

    #[tokio::test]
    async fn marked_processes_of_a_dead_owner_are_found_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mark = Mark {
            run: "gone-run".into(),
            owner: crate::server::owner::gone(),
        };
        let script = "trap '' TERM; echo up; while :; do sleep 1; done";
        let mut group = ProcessGroup::start("test", shell(script), &log, &mark).unwrap();
        first_line(&log).await;
        let mut ours = leftovers::find(Path::new("")).unwrap();
        ours.retain(|left| left.to_string().contains("gone-run"));
        assert!(!ours.is_empty());
        let removed = tokio::task::spawn_blocking(move || leftovers::remove(&ours));
        assert!(group.exited().await.contains("signal 9"));
        removed.await.unwrap();
    }
}
