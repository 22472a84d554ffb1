//! Slurm's accounting (`sacct`): states of tasks, also of those that left the queue long ago.

use std::process::Command;

/// Job states after which a task does not run any more (squeue(1), JOB STATE CODES).
const ENDED: [&str; 12] = [
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "RECONFIG_FAIL",
    "REVOKED",
    "TIMEOUT",
];

/// The state of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskState {
    /// As Slurm prints it: `RUNNING`, `CANCELLED by 1000`.
    pub text: String,
    /// Exit code of its script; absent where it was killed, has not ended, or Slurm does not report it.
    pub exit_code: Option<u32>,
}

impl TaskState {
    /// A state as Slurm prints it, with an exit code where there is one.
    pub(super) fn new(text: &str, exit_code: Option<u32>) -> Self {
        let mut state = Self {
            text: text.trim().to_owned(),
            exit_code,
        };
        if state.name() == "COMPLETED" {
            state.exit_code = Some(0);
        }
        state
    }

    /// The state alone, in one word.
    pub(super) fn name(&self) -> &str {
        let word = self.text.split(' ').next().unwrap_or_default();
        word.trim_end_matches('+')
    }

    /// Whether it waits, runs, or will run again.
    pub(super) fn lives(&self) -> bool {
        !ENDED.contains(&self.name())
    }
}

/// What the accounts of a cluster report about one job.
#[derive(Clone, Debug)]
pub(super) enum Accounts {
    /// The cluster has none, or this machine cannot read them.
    None,
    /// They cannot be asked just now.
    Silent,
    /// Job ids, which may stand for several tasks (`12_[3-4]`), with their states.
    Of(Vec<(String, TaskState)>),
}

impl Accounts {
    /// The state of `shard`. A task's own row is newer than a row of the range that it was part of.
    pub(super) fn of(&self, shard: u32) -> Option<&TaskState> {
        let Self::Of(rows) = self else { return None };
        let own = format!("_{shard}");
        let row = rows.iter().rfind(|(id, _)| id.ends_with(&own));
        let row = row.or_else(|| rows.iter().rfind(|(id, _)| covers(id, shard)));
        row.map(|(_, state)| state)
    }
}

/// Asks `sacct` about `job`.
pub(super) fn accounts(job: &str) -> Accounts {
    let asked = Command::new("sacct")
        .args(["--noheader", "--allocations", "--parsable2"])
        .args(["--format=JobID,State,ExitCode", "--jobs", job])
        .output();
    let Ok(output) = asked else {
        return Accounts::None;
    };
    if output.status.success() {
        return Accounts::Of(parse(&String::from_utf8_lossy(&output.stdout)));
    }
    if String::from_utf8_lossy(&output.stderr).contains("disabled") {
        Accounts::None
    } else {
        Accounts::Silent
    }
}

/// Lines such as `12_3|FAILED|1:0`, the last being exit code and signal.
fn parse(text: &str) -> Vec<(String, TaskState)> {
    let row = |line: &str| {
        let mut fields = line.trim().split('|');
        let (id, state) = (fields.next()?, fields.next()?);
        let ended_by = fields.next().and_then(|field| field.split_once(':'));
        let exit_code = match ended_by {
            // A task that did not end by itself has `0:0` here too.
            Some((code, "0")) if state == "FAILED" => code.parse().ok(),
            _ => None,
        };
        Some((id.to_owned(), TaskState::new(state, exit_code)))
    };
    text.lines().filter_map(row).collect()
}

/// Whether the tasks of an id such as `12_[1,3-5,8-20:4%2]` include `shard`.
fn covers(id: &str, shard: u32) -> bool {
    let inside = id
        .split_once("_[")
        .and_then(|(_, rest)| rest.strip_suffix(']'));
    let tasks = inside.and_then(|inside| inside.split('%').next());
    tasks.is_some_and(|tasks| tasks.split(',').any(|range| is_in(range, shard)))
}

/// Whether a task number, or a range of them with or without a step, includes `shard`.
fn is_in(range: &str, shard: u32) -> bool {
    let (range, step) = range.split_once(':').unwrap_or((range, "1"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse(), last.parse(), step.parse::<u32>()) {
        (Ok(first), Ok(last), Ok(step @ 1..)) => {
            (first..=last).contains(&shard) && (shard - first).is_multiple_of(step)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One array whose tasks ended in different ways, in sacct's form (Slurm 22.05).
    const ROWS: &str = "12_1|COMPLETED|0:0\n12_2|FAILED|1:0\n12_3|FAILED|0:9\n\
                        12_4|CANCELLED by 1000|0:0\n12_5|TIMEOUT|0:0\n12_6|NODE_FAIL|1:0\n\
                        12_7|OUT_OF_MEMORY|0:125\n12_8|RUNNING|0:0\n12_11|CANCELLED by 0|0:0\n\
                        12_[9,11-12%4]|PENDING|0:0\n";

    #[test]
    fn accounts_report_how_each_task_ended() {
        let accounts = Accounts::Of(parse(ROWS));
        let state_of = |shard| {
            let state = accounts.of(shard)?;
            Some((state.name(), state.lives(), state.exit_code))
        };
        assert_eq!(state_of(1), Some(("COMPLETED", false, Some(0))));
        assert_eq!(state_of(2), Some(("FAILED", false, Some(1))));
        assert_eq!(state_of(3), Some(("FAILED", false, None)), "by a signal");
        assert_eq!(state_of(4), Some(("CANCELLED", false, None)));
        assert_eq!(state_of(5), Some(("TIMEOUT", false, None)));
        assert_eq!(state_of(6), Some(("NODE_FAIL", false, None)));
        assert_eq!(state_of(7), Some(("OUT_OF_MEMORY", false, None)));
        assert_eq!(state_of(8), Some(("RUNNING", true, None)));
        assert_eq!(state_of(9), Some(("PENDING", true, None)));
        assert_eq!(state_of(10), None);
        assert_eq!(
            state_of(11),
            Some(("CANCELLED", false, None)),
            "its own row"
        );
        assert_eq!(state_of(12), Some(("PENDING", true, None)));
        assert_eq!(accounts.of(4).unwrap().text, "CANCELLED by 1000");
    }

    #[test]
    fn an_id_may_stand_for_ranges_with_steps() {
        let of = |id: &str| {
            (1..=12)
                .filter(|&task| covers(id, task))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("7_[3-4]"), [3, 4]);
        assert_eq!(of("7_[1,3-5,8-12:2%2]"), [1, 3, 4, 5, 8, 10, 12]);
        assert_eq!(of("7_[2]"), [2]);
        for none in ["7", "7_", "7_[]", "7_[a-b]", "7_[5-2]", "7_[1-9:0]"] {
            assert!(of(none).is_empty(), "{none}");
        }
    }
}
