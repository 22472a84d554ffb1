//! TOML text to a valid plan, or to all its problems. No I/O: it takes text and a name.

pub mod axes;
mod check;
pub mod docker_spec;
pub mod lmcache_keys;
pub mod load_spec;
pub mod pace;
pub mod problem;
pub mod profile_spec;
pub mod reader;
pub mod run;
pub mod secret;
pub mod server;
mod shape;
pub mod sim_spec;
pub mod state;
pub mod tier;
pub mod value;
pub mod verdict_spec;
pub mod workload_spec;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toml::de::DeTable;

use axes::Axes;
use load_spec::LoadSpec;
use problem::{PlanProblems, Problem};
use profile_spec::ProfileSpec;
use reader::{Problems, TableReader};
use run::RunSpec;
use server::ServerSpec;
use tier::TierSpec;
use value::string;
use verdict_spec::VerdictSpec;
use workload_spec::WorkloadSpec;

/// All values of a plan for one point of its further axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// The model that requests name.
    pub model: String,
    /// `[run]`.
    pub run: RunSpec,
    /// `[load]`.
    pub load: LoadSpec,
    /// `[verdict]`.
    #[serde(default)]
    pub verdict: VerdictSpec,
    /// `[server]`.
    pub server: ServerSpec,
    /// Every tier, built-in ones included, by name.
    pub tiers: BTreeMap<String, TierSpec>,
    /// Every workload, by label.
    pub workloads: BTreeMap<String, WorkloadSpec>,
}

/// One point of the further axes, with the plan's values there.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// The further axes' values, by key, as they are shown.
    pub extra: BTreeMap<String, String>,
    /// The values.
    pub resolved: Arc<Resolved>,
}

/// A plan that is valid. [`Plan::parse`] is the only way to get one.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The plan's name, a slug that names its results folder.
    pub name: String,
    /// The file it came from, as the user named it.
    pub file: String,
    /// Its text, frozen into the run.
    pub text: String,
    /// The axes.
    pub axes: Axes,
    /// One variant for each point of the further axes; one in all where there are none.
    pub variants: Vec<Variant>,
}

/// A plan's root, read once: the axes and the values.
struct Document {
    name: String,
    axes: Axes,
    resolved: Option<Resolved>,
}

impl Plan {
    /// Reads `text`, which came from `file`.
    pub fn parse(text: &str, file: &str) -> Result<Self, PlanProblems> {
        let failed = |problems: Vec<Problem>| PlanProblems {
            file: file.to_owned(),
            text: text.to_owned(),
            problems,
        };
        let problems = Problems::default();
        let document = read_document(text, &problems);
        let Some(Document {
            name,
            axes,
            resolved: Some(resolved),
        }) = document
        else {
            return Err(failed(problems.into_sorted()));
        };
        // Too many points would take for ever to read; the problem is reported already.
        if shape::cells(&axes, resolved.run.repeats.get()) > shape::MOST_CELLS {
            return Err(failed(problems.into_sorted()));
        }
        let variants = read_variants(text, &axes, resolved, &problems);
        if !problems.is_empty() {
            return Err(failed(problems.into_sorted()));
        }
        Ok(Self {
            name,
            file: file.to_owned(),
            text: text.to_owned(),
            axes,
            variants,
        })
    }
}

fn read_document(text: &str, problems: &Problems) -> Option<Document> {
    let (document, errors) = DeTable::parse_recoverable(text);
    add_syntax_problems(text, &errors, problems);
    if !errors.is_empty() {
        // What follows a syntax error is guesswork; its problems would mislead.
        return None;
    }
    let root = TableReader::new("", document.get_ref(), 0..0, problems);
    Some(read_root(&root))
}

/// Reports what the TOML parser says, up to the first error that may be the cause of the next.
fn add_syntax_problems(text: &str, errors: &[toml::de::Error], problems: &Problems) {
    let mut errors: Vec<(Range<usize>, &str)> = errors
        .iter()
        .map(|error| (error.span().unwrap_or(0..0), error.message()))
        .collect();
    errors.sort_by_key(|(span, _)| span.start);
    for (index, (span, message)) in errors.into_iter().enumerate() {
        let Some(key) = text
            .get(span.clone())
            .filter(|_| message == "duplicate key")
        else {
            if index == 0 {
                problems.add(span, message, "");
            }
            return;
        };
        let is_header = text[..span.start].ends_with(['[', '.']);
        let hint = "remove one, or put all its keys into one";
        problems.add(span, format!("`{key}` stands twice in one table"), hint);
        if is_header {
            return;
        }
    }
}

fn read_root(root: &TableReader<'_>) -> Document {
    let name = root.require("name", slug);
    let model = root.require("model", string);
    let matrix = section(root, "matrix");
    let axes = matrix.as_ref().map(Axes::read).unwrap_or_default();
    let run_table = root.table("run");
    let run = RunSpec::read(run_table.as_ref());
    let load = root
        .table("load")
        .as_ref()
        .map(LoadSpec::read)
        .unwrap_or_default();
    let verdict = VerdictSpec::read(root.table("verdict").as_ref());
    let mut server = section(root, "server").as_ref().and_then(ServerSpec::read);
    if let (Some(table), Some(server)) = (root.table("profile"), server.as_mut()) {
        server.profile = Some(ProfileSpec::read(&table, server));
    }
    let tier_table = root.table("tier");
    let tiers = tier::read_all(tier_table.as_ref());
    let workload_table = root.table("workload");
    let workloads = read_workloads(workload_table.as_ref());
    root.finish();
    check::Parts {
        matrix: matrix.as_ref(),
        run: run_table.as_ref(),
        tier: tier_table.as_ref(),
        workload: workload_table.as_ref(),
        axes: &axes,
        run_spec: &run,
        server_spec: server.as_ref(),
        tiers: &tiers,
        workloads: &workloads,
        problems: root.problems(),
    }
    .check();
    let resolved = match (model, server) {
        (Some(model), Some(server)) => Some(Resolved {
            model: model.value,
            run,
            load,
            verdict,
            server,
            tiers,
            workloads,
        }),
        _ => None,
    };
    Document {
        name: name.map(|found| found.value).unwrap_or_default(),
        axes,
        resolved,
    }
}

fn section<'t>(root: &TableReader<'t>, key: &str) -> Option<TableReader<'t>> {
    if root.value(key).is_none() {
        root.problem(format!("[{key}] is missing"), format!("add [{key}]"));
    }
    root.table(key)
}

fn read_workloads(table: Option<&TableReader<'_>>) -> BTreeMap<String, WorkloadSpec> {
    let mut all = BTreeMap::new();
    let Some(table) = table else { return all };
    for key in table.keys() {
        check::name(table.problems(), "workload", &key);
        let Some(reader) = table.table(&key.value) else {
            continue;
        };
        let Some(workload) = WorkloadSpec::read(&reader) else {
            continue;
        };
        all.insert(key.value, workload);
    }
    all
}

/// A name that can name a folder: letters, digits, `-`, `_` and `.`, not beginning with a dot.
fn slug(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let expected = "letters, digits, `-`, `_` and `.`, not beginning with `.`, 100 at most";
    let text = string(value)?;
    let fits = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits && !text.starts_with('.') && text.len() <= 100 {
        Ok(text)
    } else {
        Err(expected.to_owned())
    }
}

/// Reads the plan again for each point of the further axes, with that point's values put in.
fn read_variants(text: &str, axes: &Axes, resolved: Resolved, problems: &Problems) -> Vec<Variant> {
    if axes.extra.is_empty() {
        return vec![Variant {
            extra: BTreeMap::new(),
            resolved: Arc::new(resolved),
        }];
    }
    let mut variants = Vec::new();
    let mut points: Vec<Vec<usize>> = vec![Vec::new()];
    for axis in &axes.extra {
        points = points
            .iter()
            .flat_map(|point| {
                (0..axis.values.len()).map(|index| [point.as_slice(), &[index]].concat())
            })
            .collect();
    }
    for point in points {
        let Ok(mut document) = toml::from_str::<toml::Table>(text) else {
            continue;
        };
        let mut extra = BTreeMap::new();
        for (axis, &index) in axes.extra.iter().zip(&point) {
            let value = &axis.values[index].value;
            extra.insert(axis.key.clone(), axes::shown(value));
            if let Err(message) = put(&mut document, &axis.key, value) {
                problems.add(axis.span.clone(), message, "name a key of the plan");
            }
        }
        let inner = Problems::default();
        let changed = toml::to_string(&document).unwrap_or_default();
        let read = read_document(&changed, &inner).and_then(|document| document.resolved);
        let found = inner.into_sorted();
        let span = axes.extra[0].span.clone();
        for problem in found {
            // It is there without this point's values too, and has its own place there.
            if problems.holds(&problem.message) {
                continue;
            }
            let is_secret = problem.message.contains(secret::PLANS_ARE_KEPT);
            let at = extra.iter().map(|(key, value)| {
                if is_secret {
                    format!("a value of {key}")
                } else {
                    format!("{key} = {value}")
                }
            });
            let at = at.collect::<Vec<_>>().join(", ");
            problems.add(
                span.clone(),
                format!("at {at}: {}", problem.message),
                problem.hint,
            );
        }
        if let Some(resolved) = read {
            variants.push(Variant {
                extra,
                resolved: Arc::new(resolved),
            });
        }
    }
    variants
}

/// Puts `value` at the dotted `key`, making tables on the way.
fn put(document: &mut toml::Table, key: &str, value: &Value) -> Result<(), String> {
    let value: toml::Value =
        serde_json::from_value(value.clone()).map_err(|_| format!("axis `{key}` holds a null"))?;
    let mut parts = key.split('.').peekable();
    let mut table = document;
    while let Some(part) = parts.next() {
        if part == "matrix" || part.is_empty() {
            return Err(format!("axis `{key}` cannot name the matrix itself"));
        }
        if parts.peek().is_none() {
            table.insert(part.to_owned(), value);
            return Ok(());
        }
        let next = table
            .entry(part.to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let Some(next) = next.as_table_mut() else {
            return Err(format!(
                "axis `{key}` goes through `{part}`, which is not a table"
            ));
        };
        table = next;
    }
    Err(format!("axis `{key}` names nothing"))
}

#[cfg(test)]
mod tests;
