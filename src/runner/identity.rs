//! Everything that decides a cell's result, by name. Two cells with equal identities may stand
//! for each other; where they differ, the names show in what.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;

use crate::config::Settings;
use crate::matrix::Cell;
use crate::secret;
use crate::{bounded, server};

/// Values by name: `plan.run.seed`, `rendered.lmcache.yaml`, `version.vllm`.
pub(crate) type Identity = BTreeMap<String, String>;

/// Stands for the folder of chunks, which differs between runs and decides nothing.
const SCRATCH: &str = "<run>/scratch";

/// Works out identities of cells, as far as they are known before their servers start.
#[derive(Debug)]
pub(crate) struct Identities<'a> {
    settings: &'a Settings,
    plan_folder: &'a Path,
    /// Docker is asked on it.
    runtime: Handle,
    /// What cells of one server share, by server key: it is read from files.
    servers: RefCell<HashMap<Arc<str>, Identity>>,
    /// Hashes of the workloads' files, by path.
    files: RefCell<HashMap<String, String>>,
}

impl<'a> Identities<'a> {
    /// For cells of one plan. `plan_folder` is where files that workloads name are looked up.
    pub(crate) fn new(settings: &'a Settings, plan_folder: &'a Path, runtime: Handle) -> Self {
        Self {
            settings,
            plan_folder,
            runtime,
            servers: RefCell::default(),
            files: RefCell::default(),
        }
    }

    /// The identity of `cell`.
    pub(crate) fn of(&self, cell: &Cell) -> Result<Identity> {
        let mut identity = cell.inputs();
        let known = self.servers.borrow().get(&cell.server_key).cloned();
        let server = match known {
            Some(known) => known,
            None => {
                let read = of_server(cell, self.settings, &self.runtime)?;
                let key = Arc::clone(&cell.server_key);
                self.servers.borrow_mut().insert(key, read.clone());
                read
            }
        };
        identity.extend(server);
        if let Some(path) = cell.workload.kind.path() {
            identity.insert("workload.file".to_owned(), self.hash_of_file(path)?);
        }
        Ok(identity)
    }

    fn hash_of_file(&self, name: &str) -> Result<String> {
        if let Some(known) = self.files.borrow().get(name) {
            return Ok(known.clone());
        }
        let path = self.plan_folder.join(name);
        let mut hasher = blake3::Hasher::new();
        bounded::open(&path)
            .and_then(|file| hasher.update_reader(file).map(drop))
            .with_context(|| format!("reading the workload's file `{}`", path.display()))?;
        let hash = hasher.finalize().to_hex()[..16].to_owned();
        self.files
            .borrow_mut()
            .insert(name.to_owned(), hash.clone());
        Ok(hash)
    }
}

fn of_server(cell: &Cell, settings: &Settings, runtime: &Handle) -> Result<Identity> {
    let mut identity = server::facts::of(cell, settings, runtime);
    if let Some(rendered) = server::rendered(cell, settings, Path::new(SCRATCH))? {
        let name = format!("rendered.{}", rendered.file_name);
        identity.insert(name, short_hash(rendered.text.as_bytes()));
    }
    for (name, value) in &settings.env {
        if !secret::name::is_secret(name) {
            identity.insert(format!("env.{name}"), value.clone());
        }
    }
    Ok(identity)
}

fn short_hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}

/// One hash over all names and values.
pub(crate) fn hash(identity: &Identity) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, value) in identity {
        for part in [name, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// What differs between the identity of a finished cell and what the cell would be now, one line
/// a value. A name that only the finished one has was learned from its running server, unless it
/// is a value of the plan; one that is empty now is known to have no value.
pub(crate) fn changes(finished: &Identity, now: &Identity) -> Vec<String> {
    let mut changes = Vec::new();
    let shown = |value: &str| match value {
        "" => "(none)".to_owned(),
        value => value.to_owned(),
    };
    for (name, new) in now {
        let old = finished.get(name).map_or("", String::as_str);
        if old != new {
            changes.push(format!("{name}: {} -> {}", shown(old), shown(new)));
        }
    }
    let known_before = ["plan.", "env.", "rendered.", "workload."];
    for (name, old) in finished {
        if !now.contains_key(name) && known_before.iter().any(|known| name.starts_with(known)) {
            changes.push(format!("{name}: {old} -> (none)"));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(pairs: &[(&str, &str)]) -> Identity {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn changes_name_the_value_before_and_after() {
        let finished = identity(&[
            ("plan.run.seed", "42"),
            ("plan.run.warmup", "1"),
            ("version.server", "1.0"),
            ("version.vllm", "0.24.0"),
        ]);
        let now = identity(&[
            ("plan.model", "m"),
            ("plan.run.seed", "43"),
            ("version.vllm", "0.25.0"),
        ]);
        assert_eq!(
            changes(&finished, &now),
            [
                "plan.model: (none) -> m",
                "plan.run.seed: 42 -> 43",
                "version.vllm: 0.24.0 -> 0.25.0",
                "plan.run.warmup: 1 -> (none)",
            ]
        );
        assert!(changes(&now, &now).is_empty());
        let none_told = identity(&[("version.server", "")]);
        assert!(changes(&identity(&[]), &none_told).is_empty());
        assert_eq!(
            changes(&identity(&[("version.server", "1.0")]), &none_told),
            ["version.server: 1.0 -> (none)"]
        );
    }

    #[test]
    fn the_hash_tells_names_from_values() {
        let (a, b) = (identity(&[("ab", "c")]), identity(&[("a", "bc")]));
        assert_ne!(hash(&a), hash(&b));
        assert_eq!(hash(&a), hash(&a.clone()));
    }
}
