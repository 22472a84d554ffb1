//! Finds processes that a killed labrun left behind, by the mark in their environment.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// What every started process carries in its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The run that it was started for.
    pub run: String,
    /// The labrun that started it: its pid and start time, so that a reused pid is not taken for
    /// it.
    pub owner: String,
}

const RUN: &str = "LABRUN_RUN";
const OWNER: &str = "LABRUN_OWNER";

impl Mark {
    /// The mark of this labrun for the run `run`.
    pub fn of_this_process(run: &str) -> Self {
        let pid = std::process::id();
        let started = start_time(pid).unwrap_or(0);
        Self {
            run: run.to_owned(),
            owner: format!("{pid}-{started}"),
        }
    }

    /// The environment that carries it.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [(RUN, self.run.clone()), (OWNER, self.owner.clone())]
    }
}

/// A process whose labrun is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its pid.
    pub pid: u32,
    /// The run that it was started for.
    pub run: String,
    /// Its command line, shortened.
    pub command: String,
}

/// All leftovers that this user can see.
pub fn find() -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Processes that end meanwhile, and those of other users, cannot be read: not ours.
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
            continue;
        };
        let (Some(run), Some(owner)) = (value(&environment, RUN), value(&environment, OWNER))
        else {
            continue;
        };
        if !owner_lives(&owner) {
            found.push(Leftover {
                pid,
                run,
                command: command_line(pid),
            });
        }
    }
    found.sort_by_key(|left| left.pid);
    Ok(found)
}

/// Kills it. Whether it was there still is of no interest: it is gone after.
pub fn remove(left: &Leftover) {
    if let Some(pid) = Pid::from_raw(left.pid.cast_signed()) {
        let _gone = kill_process(pid, Signal::KILL);
    }
}

/// Whether the labrun that `owner` names is still running.
pub fn owner_lives(owner: &str) -> bool {
    let Some((pid, started)) = owner.split_once('-') else {
        return false;
    };
    let (Ok(pid), Ok(started)) = (pid.parse(), started.parse::<u64>()) else {
        return false;
    };
    start_time(pid) == Some(started)
}

/// Start time of a process since boot, in clock ticks: field 22 of `/proc/<pid>/stat` (proc(5)).
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name stands in parentheses and may hold spaces; fields count on after it.
    let after_name = &stat[stat.rfind(')')? + 2..];
    after_name.split(' ').nth(19)?.parse().ok()
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
    text.chars().take(100).collect::<String>().trim().to_owned()
}
