//! The script of a Slurm array, and the calls of `sbatch` and `squeue`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::accounts::TaskState;
use crate::config::Slurm;

/// What one task of the array runs.
#[derive(Clone, Debug)]
pub(crate) struct Job<'a> {
    /// Name of the plan, part of the job's name.
    pub name: &'a str,
    /// Path of this program.
    pub labrun: PathBuf,
    pub plan: PathBuf,
    /// Settings of the machine.
    pub config: Option<PathBuf>,
    /// Where paths that are not absolute begin.
    pub working_folder: PathBuf,
    /// Where scripts, logs and exit codes are.
    pub folder: PathBuf,
    /// Where each shard has its run folder.
    pub shards_folder: PathBuf,
    /// How many shards there are.
    pub shards: u32,
}

/// How long before a time limit Slurm sends SIGTERM, to leave time for stopping the current cell.
const WARN_BEFORE_S: u32 = 60;

impl Job<'_> {
    /// The batch script. The array's indices are given to `sbatch`.
    pub(crate) fn script(&self, slurm: &Slurm) -> String {
        let mut lines = vec![
            "#!/bin/bash".to_owned(),
            format!("#SBATCH --job-name=labrun-{}", self.name),
            format!("#SBATCH --output={}/shard-%a.log", self.folder.display()),
            "#SBATCH --open-mode=append".to_owned(),
            "#SBATCH --ntasks=1".to_owned(),
            format!("#SBATCH --signal=B:TERM@{WARN_BEFORE_S}"),
        ];
        for (name, value) in [
            ("partition", slurm.partition.clone()),
            ("account", slurm.account.clone()),
            ("time", slurm.time.clone()),
            ("gpus", count(slurm.gpus)),
            ("cpus-per-task", count(slurm.cpus)),
        ] {
            if !value.is_empty() {
                lines.push(format!("#SBATCH --{name}={value}"));
            }
        }
        lines.extend(slurm.args.iter().map(|arg| format!("#SBATCH {arg}")));
        let config = self.config.as_ref().map_or_else(String::new, |config| {
            format!(" --config {}", quoted(config))
        });
        let (folder, shards) = (quoted(&self.folder), quoted(&self.shards_folder));
        lines.extend([
            String::new(),
            "shard=$SLURM_ARRAY_TASK_ID".to_owned(),
            format!("cd {}", quoted(&self.working_folder)),
            format!(
                "{} run {} --shard \"$shard/{}\" --out {shards}/\"$shard\" --resume --quiet{config} &",
                quoted(&self.labrun),
                quoted(&self.plan),
                self.shards
            ),
            "labrun=$!".to_owned(),
            // Slurm signals the script alone.
            "trap 'kill -TERM \"$labrun\"' TERM".to_owned(),
            "wait \"$labrun\"; code=$?".to_owned(),
            "while kill -0 \"$labrun\" 2> /dev/null; do wait \"$labrun\"; code=$?; done".to_owned(),
            format!("echo \"$code\" > {folder}/.exit-\"$shard\""),
            format!("mv {folder}/.exit-\"$shard\" {folder}/exit-\"$shard\""),
            "exit \"$code\"".to_owned(),
            String::new(),
        ]);
        lines.join("\n")
    }
}

fn count(number: u32) -> String {
    if number == 0 {
        String::new()
    } else {
        number.to_string()
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Submits `script` for the shards `indices`; the job's id.
pub(super) fn submit(script: &Path, indices: &[u32]) -> Result<String> {
    let array = indices.iter().map(u32::to_string).collect::<Vec<_>>();
    let mut command = Command::new("sbatch");
    command
        .arg("--parsable")
        .arg(format!("--array={}", array.join(",")))
        .arg(script);
    let output = command
        .output()
        .context("starting `sbatch`; is Slurm installed here?")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("`sbatch` refused the job: {}", message.trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let id = job_id(&text).with_context(|| {
        let shown: String = text.chars().take(300).collect();
        format!(
            "`sbatch --parsable` answered no job id, but `{}`; the job may be queued: see `squeue --me`",
            shown.trim()
        )
    })?;
    Ok(id.to_owned())
}

/// The job's id, `ID` or `ID;CLUSTER`: the last line that looks like one. A site may print a banner
/// before or behind it.
fn job_id(text: &str) -> Option<&str> {
    text.lines().rev().find_map(|line| {
        let (id, cluster) = line.trim().split_once(';').unwrap_or((line.trim(), "-"));
        let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        let is_cluster = !cluster.is_empty() && !cluster.contains(char::is_whitespace);
        (is_id && is_cluster).then_some(id)
    })
}

/// The states of the tasks of `job` by shard, as far as Slurm's controller knows them: those that are
/// in its queue, and for a while (`MinJobAge`) those that ended. `None` where it cannot be asked just
/// now.
pub(super) fn queue(job: &str) -> Option<BTreeMap<u32, TaskState>> {
    let output = Command::new("squeue")
        .args(["--noheader", "--array", "--states=all"])
        .args(["--format=%K %T", "--jobs", job])
        .output()
        .ok()?;
    let message = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Some(parse_queue(&String::from_utf8_lossy(&output.stdout)));
    }
    // What ended a while ago is not known any more.
    message.contains("Invalid job id").then(BTreeMap::new)
}

fn parse_queue(text: &str) -> BTreeMap<u32, TaskState> {
    let task = |line: &str| {
        let (index, state) = line.trim().split_once(' ')?;
        Some((index.parse().ok()?, TaskState::new(state, None)))
    };
    text.lines().filter_map(task).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_asks_for_what_the_settings_say_and_for_nothing_else() {
        let slurm = Slurm {
            partition: "gpu".to_owned(),
            account: String::new(),
            gpus: 1,
            cpus: 0,
            time: "2:00:00".to_owned(),
            args: vec!["--exclusive".to_owned()],
            resubmit: 1,
        };
        let job = Job {
            name: "t",
            labrun: "/opt/lab run".into(),
            plan: "/p/it's.toml".into(),
            config: None,
            working_folder: "/w".into(),
            folder: "/r/submit".into(),
            shards_folder: "/r/shards".into(),
            shards: 4,
        };
        let script = job.script(&slurm);
        for line in [
            "#SBATCH --partition=gpu",
            "#SBATCH --gpus=1",
            "#SBATCH --time=2:00:00",
            "#SBATCH --exclusive",
            r#"'/opt/lab run' run '/p/it'\''s.toml' --shard "$shard/4" --out '/r/shards'/"$shard" --resume --quiet &"#,
        ] {
            assert!(script.lines().any(|found| found == line), "{script}");
        }
        assert!(
            !script.contains("--account") && !script.contains("--cpus"),
            "{script}"
        );
    }

    #[test]
    fn a_banner_is_not_part_of_the_jobs_id() {
        for (text, id) in [
            ("4242\n", Some("4242")),
            ("4242;cluster\n", Some("4242")),
            ("Welcome to the cluster\n4242\n", Some("4242")),
            ("2 nodes are down\n2026\n\n4242;alpha\r\n", Some("4242")),
            ("4242\nHave a nice day; ask for help\n", Some("4242")),
            ("4242;\n", None),
            ("sbatch: queued as 4242\n", None),
            ("", None),
        ] {
            assert_eq!(job_id(text), id, "{text}");
        }
    }

    #[test]
    fn the_queue_separates_tasks_that_live_from_those_that_ended() {
        let queue = parse_queue("1 RUNNING\n2 PENDING\n 3 COMPLETING\n4 FAILED\nN/A RUNNING\n");
        let states: Vec<_> = queue
            .iter()
            .map(|(shard, state)| (*shard, state.lives(), state.text.as_str()))
            .collect();
        assert_eq!(
            states,
            [
                (1, true, "RUNNING"),
                (2, true, "PENDING"),
                (3, true, "COMPLETING"),
                (4, false, "FAILED")
            ]
        );
    }
}
