//! Finds what a killed labrun left behind: processes by the mark in their environment, shared
//! memory and scratch folders by the owner in their names.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::proc_stat::ProcStat;

/// What every started process carries in its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The run that it was started for.
    pub run: String,
    /// The labrun that started it: its pid, its start time, so that a reused pid is not taken for
    /// it, and its PID namespace, outside which the pid means another process.
    pub owner: String,
}

const RUN: &str = "LABRUN_RUN";
const OWNER: &str = "LABRUN_OWNER";
/// What all processes of one started command carry besides.
pub const GROUP: &str = "LABRUN_GROUP";
/// What the names of shared memory begin with.
const SHARED_MEMORY: &str = "labrun_";
/// What the names of scratch folders begin with.
const SCRATCH: &str = "labrun-scratch-";

impl Mark {
    /// The mark of this labrun for the run `run`.
    pub fn of_this_process(run: &str) -> Self {
        let pid = std::process::id();
        let started = start_time(pid).unwrap_or(0);
        Self {
            run: run.to_owned(),
            owner: format!("{pid}-{started}-{}", pid_namespace()),
        }
    }

    /// The environment that carries it.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [(RUN, self.run.clone()), (OWNER, self.owner.clone())]
    }
}

/// Name of an LMCache server's shared memory.
pub fn shared_memory_name(mark: &Mark, port: u16) -> String {
    format!("{SHARED_MEMORY}{}_{port}", mark.owner)
}

/// Name of the folder of a server's secrets in memory.
pub fn secrets_name(mark: &Mark, server: &str) -> String {
    format!("{SHARED_MEMORY}{}_secrets-{server}", mark.owner)
}

/// Name of the folder of a server's metrics in memory.
pub fn metrics_name(mark: &Mark, server: &str) -> String {
    format!("{SHARED_MEMORY}{}_metrics-{server}", mark.owner)
}

/// Name of the scratch folder of a run's server, in a folder that runs share.
pub fn scratch_name(mark: &Mark, server: u32) -> String {
    format!("{SCRATCH}{}_{server}", mark.owner)
}

/// Something whose labrun is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A process.
    Process {
        /// Its pid.
        pid: u32,
        /// The run that it was started for.
        run: String,
        /// Its command line, shortened.
        command: String,
    },
    /// The shared memory of an LMCache server, or a disk tier's folder.
    Files(PathBuf),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, run, command } => {
                write!(f, "process {pid} of run `{run}`: {command}")
            }
            Self::Files(path) => write!(f, "`{}`", path.display()),
        }
    }
}

/// All leftovers that this user can see; those of `scratch` where it is not empty.
pub fn find(scratch: &Path) -> Result<Vec<Leftover>> {
    let mut found = processes()?;
    found.extend(files(Path::new("/dev/shm"), SHARED_MEMORY));
    if !scratch.as_os_str().is_empty() {
        found.extend(files(scratch, SCRATCH));
    }
    Ok(found)
}

fn processes() -> Result<Vec<Leftover>> {
    let entries = fs::read_dir("/proc").context("reading /proc")?;
    let mut found = Vec::new();
    for (pid, environment) in environments(entries) {
        let (Some(run), Some(owner)) = (value(&environment, RUN), value(&environment, OWNER))
        else {
            continue;
        };
        if is_gone(&owner) {
            let command = command_line(pid);
            found.push((pid, Leftover::Process { pid, run, command }));
        }
    }
    found.sort_by_key(|(pid, _)| *pid);
    Ok(found.into_iter().map(|(_, left)| left).collect())
}

/// Every process whose environment can be read. Those that end meanwhile, and those of other users,
/// cannot: they are not ours.
fn environments(entries: fs::ReadDir) -> impl Iterator<Item = (u32, Vec<u8>)> {
    entries.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, fs::read(format!("/proc/{pid}/environ")).ok()?))
    })
}

/// Living processes that carry `group` ([`GROUP`]), wherever they went: a profiler starts its agent
/// and the server in sessions of their own.
fn carriers(group: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    environments(entries)
        .filter(|(_, environment)| value(environment, GROUP).as_deref() == Some(group))
        .map(|(pid, _)| pid)
        .filter(|pid| start_time(*pid).is_some())
        .collect()
}

/// Kills at once every process that carries `group`.
pub fn kill_carriers(group: &str) {
    signal(&carriers(group), Signal::KILL);
}

/// Ends every process that carries `group`, politely for a moment where it is `polite`; one that is
/// killed may take as long as `limit` to be gone.
pub fn end_carriers(group: &str, polite: bool, limit: Duration) {
    let pids = carriers(group);
    if pids.is_empty() {
        return;
    }
    if polite {
        signal(&pids, Signal::TERM);
        wait_for_end(&pids, POLITE);
    }
    // Also what was started meanwhile.
    let pids = carriers(group);
    signal(&pids, Signal::KILL);
    wait_for_end(&pids, limit);
}

fn files(folder: &Path, prefix: &str) -> Vec<Leftover> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(prefix));
            owner
                .and_then(|rest| rest.split('_').next())
                .is_some_and(is_gone)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.into_iter().map(Leftover::Files).collect()
}

/// How long processes may take to end politely, so that they remove what is theirs.
const POLITE: Duration = Duration::from_secs(3);

/// Removes them: processes politely, then by force; then files.
pub fn remove(found: &[Leftover]) {
    let pids: Vec<u32> = found
        .iter()
        .filter_map(|left| match left {
            Leftover::Process { pid, .. } => Some(*pid),
            Leftover::Files(_) => None,
        })
        .collect();
    signal(&pids, Signal::TERM);
    wait_for_end(&pids, POLITE);
    signal(&pids, Signal::KILL);
    for left in found {
        if let Leftover::Files(path) = left {
            let _gone = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
        }
    }
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids
        .iter()
        .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
    {
        // One that is gone by now is what is wanted.
        let _gone = kill_process(pid, signal);
    }
}

fn wait_for_end(pids: &[u32], limit: Duration) {
    let began = Instant::now();
    while began.elapsed() < limit && pids.iter().any(|pid| start_time(*pid).is_some()) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the labrun that `owner` names is known to be gone. One of another PID namespace cannot be
/// known from here.
pub fn is_gone(owner: &str) -> bool {
    let mut parts = owner.split('-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let started = parts.next().and_then(|started| started.parse::<u64>().ok());
    let (Some(pid), Some(started)) = (pid, started) else {
        return false;
    };
    parts.next() == Some(pid_namespace().as_str()) && start_time(pid) != Some(started)
}

/// The number of this process's PID namespace (`pid:[4026531836]`, namespaces(7)).
fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect();
    digits(&link.to_string_lossy())
}

/// Whether any process of the group led by `leader` still runs.
pub fn group_lives(leader: u32) -> bool {
    ProcStat::all().any(|(_, stat)| stat.group == leader && stat.lives)
}

/// Start time of a process that runs, clock ticks since boot.
fn start_time(pid: u32) -> Option<u64> {
    ProcStat::read(pid)
        .filter(|stat| stat.lives)
        .map(|stat| stat.started)
}

fn value(environment: &[u8], name: &str) -> Option<String> {
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let entry = std::str::from_utf8(entry).ok()?;
        entry
            .strip_prefix(name)?
            .strip_prefix('=')
            .map(str::to_owned)
    })
}

fn command_line(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&raw).replace('\0', " ");
    let short: String = text.chars().take(100).collect();
    short.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An owner that cannot live: the pid is above the kernel's highest.
    fn gone_owner() -> String {
        format!("4194304-1-{}", pid_namespace())
    }

    #[test]
    fn only_an_owner_of_this_namespace_can_be_known_to_be_gone() {
        let mark = Mark::of_this_process("run");
        assert_eq!(mark.environment()[0], ("LABRUN_RUN", "run".to_owned()));
        assert!(!is_gone(&mark.owner));
        assert!(is_gone(&gone_owner()));
        assert!(!is_gone("4194304-1-7"), "another namespace");
        assert!(!is_gone("nonsense"));
    }

    #[test]
    fn folders_of_a_dead_owner_are_found_and_removed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let gone = Mark {
            run: "r".into(),
            owner: gone_owner(),
        };
        let old = dir.path().join(scratch_name(&gone, 3));
        let living = dir
            .path()
            .join(scratch_name(&Mark::of_this_process("r"), 1));
        for folder in [&old, &living, &dir.path().join("labrun-scratch-x")] {
            fs::create_dir_all(folder.join("chunks")).unwrap();
        }
        let found = files(dir.path(), SCRATCH);
        assert_eq!(found, [Leftover::Files(old.clone())]);
        remove(&found);
        assert!(!old.exists() && living.exists());
    }
}
