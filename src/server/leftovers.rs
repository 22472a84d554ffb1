//! Finds what a killed labrun left behind: processes by the mark in their environment, shared
//! memory and scratch folders by the owner in their names.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::alive;
use super::owner::{self, Fate};
use super::proc_stat::ProcStat;

/// What every started process carries in its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The run that it was started for.
    pub run: String,
    /// The labrun that started it, as [`owner`] names it.
    pub owner: String,
}

/// Memory that is shared with no disk.
pub(crate) const MEMORY: &str = "/dev/shm";

const RUN: &str = "LABRUN_RUN";
const OWNER: &str = "LABRUN_OWNER";
/// What all processes of one started command carry besides.
pub(crate) const GROUP: &str = "LABRUN_GROUP";
/// What the names of shared memory begin with.
const SHARED_MEMORY: &str = "labrun_";
/// What begins the names of the memory that vLLM shares, for an engine that labrun has named.
const ENGINE_MEMORY: &str = "vllm_offload_labrun_";
/// What the names of files end with that show until when a labrun lived.
const ALIVE: &str = "_alive";
/// What the names of scratch folders begin with.
const SCRATCH: &str = "labrun-scratch-";

impl Mark {
    /// The mark of this labrun for the run `run`.
    pub fn of_this_process(run: &str) -> Self {
        Self {
            run: run.to_owned(),
            owner: owner::of_this_process(),
        }
    }

    /// The environment that carries it.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [(RUN, self.run.clone()), (OWNER, self.owner.clone())]
    }
}

/// Name of the file that shows until when a labrun lived.
pub(super) fn alive_name(mark: &Mark) -> String {
    format!("{SHARED_MEMORY}{}{ALIVE}", mark.owner)
}

/// Name of an LMCache server's shared memory.
pub(crate) fn shared_memory_name(mark: &Mark, port: u16) -> String {
    format!("{SHARED_MEMORY}{}_{port}", mark.owner)
}

/// Name of the folder of a server's secrets in memory.
pub(crate) fn secrets_name(mark: &Mark, server: &str) -> String {
    format!("{SHARED_MEMORY}{}_secrets-{server}", mark.owner)
}

/// Name of the folder of a server's private files in memory.
pub(crate) fn private_name(mark: &Mark, server: &str) -> String {
    format!("{SHARED_MEMORY}{}_private-{server}", mark.owner)
}

/// Name of the folder of a server's metrics in memory.
pub(crate) fn metrics_name(mark: &Mark, server: &str) -> String {
    format!("{SHARED_MEMORY}{}_metrics-{server}", mark.owner)
}

/// Name of the scratch folder of a run's server, in a folder that runs share.
pub(crate) fn scratch_name(mark: &Mark, server: u32) -> String {
    format!("{SCRATCH}{}_{server}", mark.owner)
}

/// Something whose labrun is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// A process that still runs.
    Process {
        pid: u32,
        /// The run that it was started for.
        run: String,
        /// Its command line, shortened.
        command: String,
    },
    /// The shared memory of an LMCache server, or a disk tier's folder.
    Files(PathBuf),
    /// A disk tier's folder, or a process, that may be somebody's.
    Doubtful {
        /// What it is.
        of: Box<Self>,
        /// What speaks against its removal.
        why: &'static str,
        /// Whether a person may say that it can go: it is not known to be another machine's.
        may_go: bool,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, run, command } => {
                write!(f, "process {pid} of run `{run}`: {command}")
            }
            Self::Files(path) => write!(f, "`{}`", path.display()),
            Self::Doubtful { of, why, .. } => write!(f, "{of}: {why}"),
        }
    }
}

/// All leftovers that this user can see; those of `scratch` where it is not empty.
pub(crate) fn find(scratch: &Path) -> Result<Vec<Leftover>> {
    let mut found = processes()?;
    found.extend(files(Path::new(MEMORY), SHARED_MEMORY));
    found.extend(files(Path::new(MEMORY), ENGINE_MEMORY));
    if !scratch.as_os_str().is_empty() {
        found.extend(scratch_folders(scratch));
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
        let Some(stat) = ProcStat::read(pid).filter(|stat| stat.lives) else {
            continue;
        };
        if owner::is_gone(&owner) && owner::can_own(&owner, stat.started) {
            let command = command_line(pid);
            let left = Leftover::Process { pid, run, command };
            found.push((pid, stat, owner, left));
        }
    }
    // Parents first, but for pids that began anew: what a server of labrun's starts is labrun's.
    found.sort_by_key(|(pid, stat, ..)| (stat.started, *pid));
    let mut sure = BTreeSet::new();
    let mut all = Vec::new();
    for (pid, stat, owner, left) in found {
        let last = alive::last_ticks(&alive_file(&owner));
        let is_own = last.is_some_and(|last| stat.started <= last);
        if is_own || sure.contains(&stat.parent) {
            sure.insert(pid);
            all.push((pid, left));
        } else {
            let why = match last {
                Some(_) => "it carries labrun's mark, and began when that labrun was gone",
                None => "it carries labrun's mark, and nothing shows when that labrun ended",
            };
            let of = Box::new(left);
            let may_go = true;
            all.push((pid, Leftover::Doubtful { of, why, may_go }));
        }
    }
    all.sort_by_key(|(pid, _)| *pid);
    Ok(all.into_iter().map(|(_, left)| left).collect())
}

fn alive_file(owner: &str) -> PathBuf {
    Path::new(MEMORY).join(format!("{SHARED_MEMORY}{owner}{ALIVE}"))
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
pub(crate) fn kill_carriers(group: &str) {
    signal(&carriers(group), Signal::KILL);
}

/// Ends every process that carries `group`, politely for a moment where it is `polite`; one that is
/// killed may take as long as `limit` to be gone.
pub(crate) fn end_carriers(group: &str, polite: bool, limit: Duration) {
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
    let gone =
        owned(folder, prefix).filter(|(path, of)| owner::is_gone(of) && !is_alive_file(path));
    sorted(gone.map(|(path, _)| Leftover::Files(path)))
}

fn is_alive_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(ALIVE))
}

/// Removes the files of labruns that are gone and of which no process is left: nothing needs them.
fn forget_ends() {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    let owners: BTreeSet<String> = environments(entries)
        .filter_map(|(_, environment)| value(&environment, OWNER))
        .collect();
    for (path, of) in owned(Path::new(MEMORY), SHARED_MEMORY) {
        if is_alive_file(&path) && owner::is_gone(&of) && !owners.contains(&of) {
            let _absent = fs::remove_file(path);
        }
    }
}

/// The folders of disk tiers in `folder`, which several machines may share.
fn scratch_folders(folder: &Path) -> Vec<Leftover> {
    let found = owned(folder, SCRATCH).filter_map(|(path, of)| {
        let (why, may_go) = match owner::fate(&of) {
            Fate::MayLive => return None,
            Fate::Gone => return Some(Leftover::Files(path)),
            Fate::EarlierBoot => ("it was made before this machine's last start", true),
            Fate::UnknownMachine => ("it does not name the machine that made it", true),
            Fate::OtherMachine => ("another machine made it; run `labrun clean` there", false),
        };
        let of = Box::new(Leftover::Files(path));
        Some(Leftover::Doubtful { of, why, may_go })
    });
    sorted(found)
}

/// What in `folder` has an owner in its name, after `prefix`.
fn owned(folder: &Path, prefix: &str) -> impl Iterator<Item = (PathBuf, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let name = entry.file_name();
        let of = name.to_str()?.strip_prefix(prefix)?.split('_').next()?;
        Some((entry.path(), of.to_owned()))
    })
}

fn sorted(found: impl Iterator<Item = Leftover>) -> Vec<Leftover> {
    let mut found: Vec<Leftover> = found.collect();
    found.sort_by_key(ToString::to_string);
    found
}

/// How long processes may take to end politely and remove their own files.
const POLITE: Duration = Duration::from_secs(3);

/// Removes them: processes politely, then by force; then files. What is doubtful
/// goes only with a person's consent: the caller has asked.
pub(crate) fn remove(found: &[Leftover]) {
    let found = || {
        found.iter().filter_map(|left| match left {
            Leftover::Doubtful {
                of, may_go: true, ..
            } => Some(of.as_ref()),
            Leftover::Doubtful { .. } => None,
            sure => Some(sure),
        })
    };
    let pids: Vec<u32> = found()
        .filter_map(|left| match left {
            Leftover::Process { pid, .. } => Some(*pid),
            Leftover::Files(_) | Leftover::Doubtful { .. } => None,
        })
        .collect();
    signal(&pids, Signal::TERM);
    wait_for_end(&pids, POLITE);
    signal(&pids, Signal::KILL);
    for left in found() {
        let Leftover::Files(path) = left else {
            continue;
        };
        // A link is removed itself, not what it leads to.
        let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        let _gone = if is_folder {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
    }
    forget_ends();
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

/// Whether any process of the group led by `leader` still runs.
pub(crate) fn group_lives(leader: u32) -> bool {
    ProcStat::all().any(|(_, stat)| stat.group == leader && stat.lives)
}

/// Start time of a process that runs, clock ticks since boot.
pub(super) fn start_time(pid: u32) -> Option<u64> {
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

    #[test]
    fn the_mark_is_in_the_environment() {
        let mark = Mark::of_this_process("run");
        assert_eq!(mark.environment()[0], ("LABRUN_RUN", "run".to_owned()));
        assert_eq!(mark.environment()[1], ("LABRUN_OWNER", mark.owner));
    }

    #[test]
    fn folders_of_a_dead_owner_are_removed_and_what_may_be_another_machines_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mark = |owner: String| Mark {
            run: "r".into(),
            owner,
        };
        let folder = |owner: String, server| dir.path().join(scratch_name(&mark(owner), server));
        let gone = owner::gone();
        let earlier = gone.rsplit_once('-').unwrap().0.to_owned();
        let (host, boot) = gone.rsplit_once('-').unwrap().1.split_at(10);
        let other_host = format!("{earlier}-{}{boot}", "0".repeat(10));
        let other_boot = format!("{earlier}-{host}{}", "0".repeat(10));
        let old = folder(gone.clone(), 3);
        let living = folder(owner::of_this_process(), 1);
        let doubtful = [folder(earlier, 2), folder(other_boot, 2)];
        let elsewhere = folder(other_host, 2);
        let strange = dir.path().join("labrun-scratch-x");
        let all = [
            &old,
            &living,
            &doubtful[0],
            &doubtful[1],
            &elsewhere,
            &strange,
        ];
        for folder in all {
            fs::create_dir_all(folder.join("chunks")).unwrap();
        }
        let found = scratch_folders(dir.path());
        let sure: Vec<_> = found
            .iter()
            .filter(|left| matches!(left, Leftover::Files(_)))
            .cloned()
            .collect();
        assert_eq!(sure, [Leftover::Files(old.clone())]);
        remove(&sure);
        assert!(!old.exists() && all[1..].iter().all(|folder| folder.exists()));
        // A person agreed to the removal.
        remove(&found);
        assert!(living.exists() && elsewhere.exists() && strange.exists());
        assert!(doubtful.iter().all(|folder| !folder.exists()));
    }

    #[test]
    fn memory_of_an_engine_whose_labrun_is_gone_is_left_over() {
        let of = |owner: &str| format!("{ENGINE_MEMORY}{owner}_8000.mmap");
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join(of(&owner::gone()));
        for path in [&gone, &dir.path().join(of(&owner::of_this_process()))] {
            fs::write(path, "kv").unwrap();
        }
        let found = files(dir.path(), ENGINE_MEMORY);
        assert_eq!(found, [Leftover::Files(gone)]);
    }

    #[test]
    fn a_link_with_a_dead_owners_name_is_removed_and_not_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("precious");
        fs::create_dir_all(target.join("chunks")).unwrap();
        let mark = Mark {
            run: "r".into(),
            owner: owner::gone(),
        };
        let link = dir.path().join(scratch_name(&mark, 1));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        remove(&scratch_folders(dir.path()));
        assert!(!link.is_symlink() && target.join("chunks").exists());
    }
}
