//! The plan's values that decide what a cell measures, by name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Cell;
use crate::plan::Resolved;
use crate::plan::run::RunSpec;
use crate::plan::tier::TierSpec;
use crate::plan::workload_spec::WorkloadSpec;

/// Keys of `[run]` that decide how much is run and when to stop, and change no cell.
const RUN_ONLY: [&str; 3] = ["controls", "repeats", "pace"];

/// Keys of `[server]` that decide whether a cell fails, and not what it measures.
const SERVER_ONLY: [&str; 2] = ["ready_timeout", "stop_grace"];

/// The values of a cell of `tier` and `workload`.
pub(crate) fn of(resolved: &Resolved, tier: &TierSpec, workload: &WorkloadSpec) -> Value {
    // What is left out decides as much as what is written, and none was never named.
    let in_load = Some(resolved.canaries_in_load()).filter(|count| *count > 0);
    let mut run = json!(RunSpec {
        canaries_in_load: in_load,
        ..resolved.run.clone()
    });
    remove(&mut run, &RUN_ONLY);
    let mut server = json!(resolved.server);
    remove(&mut server, &SERVER_ONLY);
    if !resolved.server.is_simulated() {
        remove(&mut server, &["sim"]);
    }
    json!({
        "model": resolved.model,
        "run": run,
        "load": resolved.load,
        "verdict": resolved.verdict,
        "server": server,
        "tier": tier,
        "workload": workload,
    })
}

fn remove(table: &mut Value, keys: &[&str]) {
    if let Value::Object(table) = table {
        for key in keys {
            table.remove(*key);
        }
    }
}

impl Cell {
    /// The plan's values that decide what this cell measures, by dotted name: `plan.run.seed`.
    pub fn inputs(&self) -> BTreeMap<String, String> {
        let mut named = BTreeMap::new();
        let values = of(&self.resolved, &self.tier, &self.workload);
        flatten("plan", &values, &mut named);
        named
    }
}

/// Every value in `value` by its dotted name under `name`, which may be empty. A name without a
/// value is left out: an earlier version did not know it.
pub(crate) fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(table) => {
            let outer = if name.is_empty() {
                String::new()
            } else {
                format!("{name}.")
            };
            for (key, value) in table {
                flatten(&format!("{outer}{key}"), value, into);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(into.insert(name.to_owned(), text.clone())),
        other => drop(into.insert(name.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use crate::matrix::Matrix;
    use crate::plan::Plan;

    /// What a cell's identity says of its canaries within the load.
    fn in_load(launcher: &str, key: &str) -> Option<String> {
        let text = format!(
            "name = \"t\"\nmodel = \"m\"\n[matrix]\ntier = [\"cpu\"]\nprompt_len = [1024]\n\
             gen_len = [4]\nconcurrency = [1]\nlabel = [\"rag\"]\n[run]\n{key}\n[workload.rag]\n\
             kind = \"shared-prefix\"\n[server]\nlauncher = \"{launcher}\"\n"
        );
        let plan = Plan::parse(&text, "t.toml").unwrap();
        let cell = Matrix::expand(&plan).unwrap().cells.first().unwrap();
        cell.inputs().remove("plan.run.canaries_in_load")
    }

    #[test]
    fn canaries_within_the_load_are_named_by_what_is_sent_and_none_as_ever() {
        let one = Some("1".to_owned());
        for (launcher, key, expected) in [
            ("process", "", one.clone()),
            ("process", "canaries_in_load = 1", one.clone()),
            ("process", "canaries_in_load = 0", None),
            ("process", "canaries = 0", None),
            ("sim", "", None),
            ("sim", "canaries_in_load = 0", None),
            ("sim", "canaries_in_load = 1", one),
        ] {
            assert_eq!(in_load(launcher, key), expected, "{launcher}, {key}");
        }
    }
}
