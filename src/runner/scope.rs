//! What a run may use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::identity::Identities;
use super::stop::Stop;
use crate::config::Settings;
use crate::server::leftovers::Mark;

/// What a run may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunScope<'a> {
    /// The machine's settings.
    pub settings: &'a Settings,
    /// The mark that started processes carry.
    pub mark: &'a Mark,
    /// The run's folder; servers keep their logs under it while they live.
    pub folder: &'a Path,
    /// The plan's folder; files that it names are looked up there.
    pub plan_folder: &'a Path,
    /// What decides the results of its cells.
    pub identities: &'a Identities<'a>,
    /// How the run is stopped.
    pub stop: &'a Stop,
    /// When the run began, which all offsets count from.
    pub epoch: Instant,
    /// The problems that were seen before the start, by the cells' ids.
    pub foretold: &'a BTreeMap<String, Vec<String>>,
    /// Warnings of telemetry that were made already.
    pub warned: &'a Warned,
}

/// Warnings that a run makes once, however many of its cells have cause to.
#[derive(Debug, Default)]
pub(crate) struct Warned(Mutex<BTreeSet<String>>);

impl Warned {
    /// Whether `text` comes for the first time.
    pub(super) fn first(&self, text: &str) -> bool {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        texts.insert(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_once_in_a_run() {
        let warned = Warned::default();
        assert!(warned.first("no GPU") && !warned.first("no GPU") && warned.first("other"));
    }
}
