//! Watches a submission: what Slurm has, what ended and how, what is submitted again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::accounts::{Accounts, TaskState, accounts as read_accounts};
use super::fate::Fate;
use super::slurm;
use super::submission::{Folder, Submission};
use crate::recorder::lock::LOCK_FILE;
use crate::server::log::tail;

/// Lines of a task's log that a failure quotes.
const TAIL_LINES: usize = 10;

/// Submits what is not in the queue and not finished, until all is. Looks every `poll`, submits a
/// shard that was lost `resubmit` times again, and reports each change to `say`. Returns the run
/// folders of all shards. Each of them ran.
pub(crate) fn watch(
    folder: &Folder,
    submission: Submission,
    resubmit: u32,
    poll: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<PathBuf>> {
    say(&format!(
        "{} shards in {}; Ctrl-C leaves them running, and {} watches again",
        submission.shards,
        folder.path().display(),
        folder.resume_hint()
    ));
    let mut watch = Watch {
        folder,
        submission,
        most: 1 + resubmit,
        own: BTreeMap::new(),
        seen: BTreeSet::new(),
        gone_since: BTreeMap::new(),
        finished: BTreeSet::new(),
        cancelled: BTreeMap::new(),
    };
    let mut last_line = String::new();
    loop {
        let (states, all_known) = watch.queue();
        if all_known {
            watch.settle(&states, say)?;
        }
        let line = watch.progress_line(&states);
        if line != last_line {
            say(&line);
            last_line = line;
        }
        if watch.is_over() {
            return watch.end();
        }
        std::thread::sleep(poll);
    }
}

/// A submission that is watched.
struct Watch<'a> {
    folder: &'a Folder,
    submission: Submission,
    /// How often a shard is submitted at most while it is watched.
    most: u32,
    /// How often each was submitted since the watch began.
    own: BTreeMap<u32, u32>,
    /// Shards that were seen alive since then.
    seen: BTreeSet<u32>,
    /// Since when undecided shards are in no queue.
    gone_since: BTreeMap<u32, Instant>,
    finished: BTreeSet<u32>,
    /// Shards that are not submitted again, with the reason.
    cancelled: BTreeMap<u32, String>,
}

impl Watch<'_> {
    /// The states of the shards in their latest jobs, and whether every queue could be asked.
    fn queue(&self) -> (BTreeMap<u32, TaskState>, bool) {
        let jobs = &self.submission.jobs;
        let (mut states, mut all_known) = (BTreeMap::new(), true);
        for job in jobs.values().collect::<BTreeSet<_>>() {
            match slurm::queue(job) {
                Some(queued) => {
                    let latest = queued.into_iter();
                    states.extend(latest.filter(|(shard, _)| jobs.get(shard) == Some(job)));
                }
                None => all_known = false,
            }
        }
        (states, all_known)
    }

    fn is_settled(&self, shard: u32) -> bool {
        self.finished.contains(&shard) || self.cancelled.contains_key(&shard)
    }

    fn is_over(&self) -> bool {
        self.finished.len() + self.cancelled.len() == self.submission.shards as usize
    }

    fn progress_line(&self, states: &BTreeMap<u32, TaskState>) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for state in states.values().filter(|state| state.lives()) {
            *counts.entry(state.name()).or_default() += 1;
        }
        if !self.cancelled.is_empty() {
            counts.insert("CANCELLED", self.cancelled.len());
        }
        let counts = counts
            .iter()
            .map(|(state, count)| format!(", {count} {}", state.to_lowercase()));
        format!(
            "{} of {} shards finished{}",
            self.finished.len(),
            self.submission.shards,
            counts.collect::<String>()
        )
    }

    /// Decides on shards that are alive in no queue: finished, or to be submitted (again).
    fn settle(
        &mut self,
        states: &BTreeMap<u32, TaskState>,
        say: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let mut again = Vec::new();
        let mut accounts = BTreeMap::new();
        for shard in 1..=self.submission.shards {
            let state = states.get(&shard);
            if state.is_some_and(TaskState::lives) {
                self.seen.insert(shard);
                self.gone_since.remove(&shard);
                continue;
            }
            if self.is_settled(shard) {
                continue;
            }
            if !self.submission.submitted.contains_key(&shard) {
                again.push(shard);
                continue;
            }
            if let Some(fate) = self.fate(shard, state, &mut accounts) {
                self.gone_since.remove(&shard);
                if self.is_lost(shard, fate, say)? {
                    again.push(shard);
                }
            }
        }
        self.submit(&again)
    }

    /// What became of a shard; `None` while that is still open.
    fn fate(
        &mut self,
        shard: u32,
        queued: Option<&TaskState>,
        accounts: &mut BTreeMap<String, Accounts>,
    ) -> Option<Fate> {
        let traces = self.folder.traces(shard);
        if let Some(fate) = traces.fate() {
            return Some(fate);
        }
        let job = self
            .submission
            .jobs
            .get(&shard)
            .cloned()
            .unwrap_or_default();
        let accounts = accounts
            .entry(job)
            .or_insert_with_key(|job| read_accounts(job));
        let since = self.gone_since.entry(shard).or_insert_with(Instant::now);
        traces.fate_by(shard, queued, accounts, since.elapsed())
    }

    /// Records a fate. Returns whether the shard is to be submitted again.
    fn is_lost(&mut self, shard: u32, fate: Fate, say: &mut dyn FnMut(&str)) -> Result<bool> {
        let own = self.own.get(&shard).copied().unwrap_or(0);
        let how = match fate {
            Fate::Finished => {
                self.finished.insert(shard);
                return Ok(false);
            }
            Fate::Refused => bail!("shard {shard} cannot run:\n{}", self.log(shard)),
            // The user watches again, although it was cancelled before: it shall run after all.
            Fate::Cancelled(how) if own == 0 && !self.seen.contains(&shard) => how,
            Fate::Cancelled(how) => {
                say(&format!("shard {shard} is not submitted again: {how}"));
                self.cancelled.insert(shard, how);
                return Ok(false);
            }
            Fate::Lost(how) => how,
        };
        ensure!(
            own < self.most,
            "shard {shard} was lost {own} times: {how}\n{}",
            self.log(shard)
        );
        say(&format!(
            "shard {shard} was lost: {how}; submitting it again"
        ));
        Ok(true)
    }

    /// The last lines that a shard wrote.
    fn log(&self, shard: u32) -> String {
        let log = self.folder.submit().join(format!("shard-{shard}.log"));
        tail(&log, TAIL_LINES).join("\n")
    }

    fn submit(&mut self, shards: &[u32]) -> Result<()> {
        if shards.is_empty() {
            return Ok(());
        }
        for &shard in shards {
            // Slurm reports that the task is gone. labrun alone could not judge a lock of another
            // machine.
            let lock = self.folder.shard(shard).join(LOCK_FILE);
            for stale in [self.folder.exit_file(shard), lock] {
                remove_if_there(&stale)?;
            }
        }
        let job = slurm::submit(&self.folder.submit().join("job.sh"), shards)?;
        for &shard in shards {
            self.submission.jobs.insert(shard, job.clone());
            *self.submission.submitted.entry(shard).or_default() += 1;
            *self.own.entry(shard).or_default() += 1;
        }
        self.folder.write(&self.submission)
    }

    /// The run folders of the shards, if all of them ran.
    fn end(&self) -> Result<Vec<PathBuf>> {
        if let Some((shard, how)) = self.cancelled.first_key_value() {
            let others = match self.cancelled.len() {
                1 => String::new(),
                more => format!(", and {} more", more - 1),
            };
            bail!(
                "shard {shard} did not run: {how}{others}; {} submits them again",
                self.folder.resume_hint()
            );
        }
        let shards = 1..=self.submission.shards;
        Ok(shards.map(|shard| self.folder.shard(shard)).collect())
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing `{}`", path.display()))
        }
        _ => Ok(()),
    }
}
