//! Labels of everything that labrun makes in Docker. Only they identify it later.

use std::collections::HashMap;

use super::super::leftovers::Mark;

/// Label of the run.
pub(crate) const RUN: &str = "labrun.run";
/// Label of the cell.
pub(crate) const CELL: &str = "labrun.cell";
/// Label of the labrun that made it.
pub(crate) const OWNER: &str = "labrun.owner";
/// Label of its version.
pub(crate) const VERSION: &str = "labrun.version";
/// Label of what it is.
pub(crate) const ROLE: &str = "labrun.role";

/// The labels of what is made for one cell.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    run: String,
    cell: String,
    owner: String,
}

impl Labels {
    /// For `cell` of the run of `mark`.
    pub(crate) fn new(mark: &Mark, cell: &str) -> Self {
        Self {
            run: mark.run.clone(),
            cell: cell.to_owned(),
            owner: mark.owner.clone(),
        }
    }

    /// All of them, for a part in this role.
    pub(crate) fn of(&self, role: &str) -> HashMap<String, String> {
        [
            (RUN, self.run.as_str()),
            (CELL, &self.cell),
            (OWNER, &self.owner),
            (VERSION, env!("CARGO_PKG_VERSION")),
            (ROLE, role),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}
