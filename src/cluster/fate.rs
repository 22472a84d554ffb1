//! What became of a shard that Slurm does not run any more. Pure.

use std::time::Duration;

use super::accounts::{Accounts, TaskState};

/// How long the accounts may be behind the queue: the controller sends them ended tasks after a while.
const ACCOUNTS_LAG: Duration = Duration::from_secs(30);

/// What a shard left in its folders.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traces {
    /// Exit code that its script wrote; absent where it was killed, or the file is not visible here yet.
    pub exit_code: Option<u32>,
    /// Whether the manifest of its run says that all cells were measured.
    pub finished: bool,
}

/// What became of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// All its cells ran, well or not.
    Finished,
    /// It cannot run at all.
    Refused,
    /// A user or an administrator cancelled it.
    Cancelled(String),
    /// It ended before its cells had run.
    Lost(String),
}

impl Traces {
    /// The fate that is certain from these alone, whatever Slurm reports.
    pub(super) fn fate(self) -> Option<Fate> {
        match self.exit_code? {
            2 => Some(Fate::Refused),
            _ if self.finished => Some(Fate::Finished),
            _ => None,
        }
    }

    /// The fate by what the queue still knows of the end of `shard` and by the accounts. `None` while it is
    /// still open. The shard left every queue `gone_for` ago.
    pub(super) fn fate_by(
        self,
        shard: u32,
        queued: Option<&TaskState>,
        accounts: &Accounts,
        gone_for: Duration,
    ) -> Option<Fate> {
        let reported = accounts.of(shard);
        let ended = reported.filter(|state| !state.lives()).or(queued);
        let is_final =
            ended.is_some() || matches!(accounts, Accounts::None) || gone_for >= ACCOUNTS_LAG;
        is_final.then(|| self.fate_with(ended.or(reported)))
    }

    /// The fate with the state that Slurm reports, if it reports one.
    fn fate_with(self, slurm: Option<&TaskState>) -> Fate {
        let exit_code = self.exit_code.or(slurm.and_then(|state| state.exit_code));
        if let Some(fate) = (Self { exit_code, ..self }).fate() {
            return fate;
        }
        let source = slurm.map_or_else(String::new, |state| format!(" (Slurm: {})", state.text));
        match slurm.map_or("", TaskState::name) {
            "CANCELLED" => Fate::Cancelled(format!("it was cancelled{source}")),
            "OUT_OF_MEMORY" => Fate::Lost(format!(
                "it was killed for its memory{source}; `args = [\"--mem=...\"]` in [slurm] asks for more"
            )),
            "TIMEOUT" => Fate::Lost(format!("its time was over{source}; --time gives it more")),
            _ => Fate::Lost(match exit_code {
                Some(code) => format!("it ended with exit code {code}{source}"),
                None => format!("it was killed{source}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(exit_code: Option<u32>, finished: bool, slurm: &str, code: Option<u32>) -> Fate {
        let state = TaskState::new(slurm, code);
        Traces {
            exit_code,
            finished,
        }
        .fate_with(Some(&state).filter(|_| !slurm.is_empty()))
    }

    #[test]
    fn what_the_script_wrote_is_believed_first() {
        assert_eq!(fate(Some(0), true, "", None), Fate::Finished);
        assert_eq!(fate(Some(1), true, "NODE_FAIL", None), Fate::Finished);
        assert_eq!(fate(Some(2), false, "FAILED", Some(2)), Fate::Refused);
        let lost = Fate::Lost("it ended with exit code 130 (Slurm: PREEMPTED)".to_owned());
        assert_eq!(fate(Some(130), false, "PREEMPTED", None), lost);
        let killed = Fate::Lost("it was killed".to_owned());
        assert_eq!(fate(None, true, "", None), killed, "by an earlier attempt");
    }

    #[test]
    fn slurm_is_believed_where_the_script_wrote_nothing() {
        assert_eq!(fate(None, true, "COMPLETED", Some(0)), Fate::Finished);
        assert_eq!(fate(None, true, "FAILED", Some(1)), Fate::Finished);
        assert_eq!(fate(None, false, "FAILED", Some(2)), Fate::Refused);
        for (slurm, expected) in [
            ("FAILED", "it was killed (Slurm: FAILED)"),
            ("NODE_FAIL", "it was killed (Slurm: NODE_FAIL)"),
            (
                "TIMEOUT",
                "its time was over (Slurm: TIMEOUT); --time gives it more",
            ),
            (
                "OUT_OF_MEMORY",
                "it was killed for its memory (Slurm: OUT_OF_MEMORY); `args = [\"--mem=...\"]` in \
                 [slurm] asks for more",
            ),
        ] {
            let lost = Fate::Lost(expected.to_owned());
            assert_eq!(fate(None, false, slurm, None), lost);
        }
    }

    #[test]
    fn accounts_that_are_behind_the_queue_are_waited_for_a_while() {
        let of = |state: &str| Accounts::Of(vec![("7_1".to_owned(), TaskState::new(state, None))]);
        let fate = |queued: &str, accounts: &Accounts, gone_s| {
            let queued = TaskState::new(queued, None);
            let queued = Some(&queued).filter(|state| !state.text.is_empty());
            let gone_for = Duration::from_secs(gone_s);
            Traces::default().fate_by(1, queued, accounts, gone_for)
        };
        let killed = |how: &str| Some(Fate::Lost(format!("it was killed{how}")));
        assert_eq!(fate("", &Accounts::None, 0), killed(""), "no accounts");
        for behind in [Accounts::Silent, Accounts::Of(Vec::new())] {
            assert_eq!(fate("", &behind, 29), None);
            assert_eq!(fate("", &behind, 30), killed(""));
            assert_eq!(fate("FAILED", &behind, 0), killed(" (Slurm: FAILED)"));
        }
        assert_eq!(fate("", &of("RUNNING"), 29), None);
        assert_eq!(fate("", &of("RUNNING"), 30), killed(" (Slurm: RUNNING)"));
        assert_eq!(fate("", &of("NODE_FAIL"), 0), killed(" (Slurm: NODE_FAIL)"));
        let cancelled = Fate::Cancelled("it was cancelled (Slurm: CANCELLED by 7)".to_owned());
        assert_eq!(fate("CANCELLED", &of("CANCELLED by 7"), 0), Some(cancelled));
    }

    #[test]
    fn what_was_cancelled_is_not_lost() {
        let cancelled = Fate::Cancelled("it was cancelled (Slurm: CANCELLED by 1000)".to_owned());
        for exit_code in [None, Some(130)] {
            assert_eq!(fate(exit_code, false, "CANCELLED by 1000", None), cancelled);
        }
        assert_eq!(
            fate(Some(0), true, "CANCELLED by 1000", None),
            Fate::Finished
        );
    }
}
