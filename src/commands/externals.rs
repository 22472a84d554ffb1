//! Versions of servers that run already. Their owner may have replaced one since cells were
//! measured on it: each is asked before its finished cells count.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use tokio::runtime::Runtime;

use crate::matrix::{Cell, Matrix};
use crate::plan::server::Launcher;
use crate::runner::identity::{Identities, Identity};
use crate::server::external;

/// Answers of the external servers of a matrix, by URL.
#[derive(Debug, Default)]
pub(super) struct Externals {
    /// Versions; empty for a server that reports none.
    versions: BTreeMap<String, String>,
    /// Why a server could not be asked.
    silent: BTreeMap<String, String>,
    /// Those of them that cannot be reached at all.
    unreachable: BTreeSet<String>,
}

impl Externals {
    /// Asks every server of `matrix` that runs already, once. One that does not answer is not an
    /// error here: all its cells may be finished.
    pub(super) fn ask(matrix: &Matrix, runtime: &Runtime) -> Self {
        let mut asked = Self::default();
        let is_external = |cell: &Cell| cell.resolved.server.launcher == Launcher::External;
        let by_url = matrix.cells.iter().filter(is_external);
        let by_url: BTreeMap<String, Cell> = by_url
            .map(|cell| (cell.resolved.server.url.clone(), cell))
            .collect();
        for (url, cell) in by_url {
            match runtime.block_on(external::version(&cell)) {
                Ok(version) => asked.versions.insert(url, version.unwrap_or_default()),
                Err(error) => {
                    if external::is_unreachable(&error) {
                        asked.unreachable.insert(url.clone());
                    }
                    asked.silent.insert(url, format!("{error:#}"))
                }
            };
        }
        asked
    }

    /// The identity of `cell`, with the version of its server.
    pub(super) fn identity(&self, cell: &Cell, identities: &Identities<'_>) -> Result<Identity> {
        let mut identity = identities.of(cell)?;
        if let Some(version) = self.versions.get(&cell.resolved.server.url) {
            identity.insert("version.server".to_owned(), version.clone());
        }
        Ok(identity)
    }

    /// A sentence for each server that cannot be reached.
    pub(super) fn unreachable(&self) -> impl Iterator<Item = String> {
        let silent = self.silent.iter();
        let unreachable = silent.filter(|(url, _)| self.unreachable.contains(*url));
        unreachable.map(|(url, why)| {
            format!(
                "the server at {url} does not answer ({why}): start it, or change `url` in [server]"
            )
        })
    }

    /// Fails where the server of one of `cells` cannot be reached.
    pub(super) fn refuse_unreachable(&self, mut cells: impl Iterator<Item = Cell>) -> Result<()> {
        let unreachable = cells.find(|cell| self.unreachable.contains(&cell.resolved.server.url));
        match unreachable.and_then(|_| self.unreachable().next()) {
            Some(why) => bail!(why),
            None => Ok(()),
        }
    }

    /// A line for each server that could not be asked.
    pub(super) fn doubts(&self) -> impl Iterator<Item = String> {
        self.silent.iter().map(|(url, why)| {
            format!(
                "{url} does not report its version ({why}): cells measured on it are retained, \
                 but nothing shows that it is the same server"
            )
        })
    }
}
