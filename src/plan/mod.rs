//! TOML text to a valid plan, or to all its problems. No I/O: it takes text and a name.

pub(crate) mod adapter;
pub(crate) mod axes;
mod check;
pub(crate) mod connector;
mod control;
pub(crate) mod docker_spec;
pub(crate) mod keys;
pub(crate) mod lmcache_keys;
pub(crate) mod load_spec;
pub(crate) mod models;
pub(crate) mod only;
pub(crate) mod pace;
pub(crate) mod placeholder;
pub(crate) mod problem;
pub(crate) mod profile_spec;
pub(crate) mod reader;
pub(crate) mod run;
pub(crate) mod secret;
pub(crate) mod serializer;
pub(crate) mod server;
mod shape;
pub(crate) mod sim_spec;
pub(crate) mod state;
pub(crate) mod text;
pub(crate) mod tier;
pub(crate) mod value;
mod variants;
pub(crate) mod verdict_spec;
mod vllm_tier;
pub(crate) mod workload_spec;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
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

impl Resolved {
    /// How many canaries each load has: on real servers one, where the plan says nothing. Simulated
    /// answers follow from the prompt, and canaries that are never asked in quiet prove nothing.
    pub(crate) fn canaries_in_load(&self) -> u32 {
        let is_real = !self.server.is_simulated();
        let default = u32::from(is_real && self.run.canaries > 0);
        self.run.canaries_in_load.unwrap_or(default)
    }
}

/// One point of the further axes, with the plan's values there.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// The further axes' values, by key, as they are shown.
    pub extra: BTreeMap<String, String>,
    /// The plan's values at this point of the further axes.
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
        let failed = |mut problems: Vec<Problem>| {
            let secrets = secret::by_form(text, &problems);
            problems.extend(secrets);
            problems.sort_by_key(|problem| problem.span.start);
            PlanProblems {
                file: file.to_owned(),
                text: text.to_owned(),
                problems,
            }
        };
        let problems = Problems::default();
        let (document, errors) = DeTable::parse_recoverable(text);
        add_syntax_problems(text, &errors, &problems);
        if !errors.is_empty() {
            // What follows a syntax error is guesswork; its problems would mislead.
            return Err(failed(problems.into_sorted()));
        }
        let Document {
            name,
            axes,
            resolved: Some(resolved),
        } = read_document(document.get_ref(), file, &problems)
        else {
            return Err(failed(problems.into_sorted()));
        };
        // Too many points would take for ever to read; the problem is reported already.
        if shape::cells(&axes, resolved.run.repeats.get()) > shape::MAX_CELLS {
            return Err(failed(problems.into_sorted()));
        }
        let variants = variants::read(document.get_ref(), file, &axes, resolved, &problems);
        if !problems.is_empty() || !secret::by_form(text, &[]).is_empty() {
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

    /// The plan's folder, where files that it names are looked up.
    pub fn folder(&self) -> &Path {
        Path::new(&self.file).parent().unwrap_or(Path::new("."))
    }

    /// Where the value stands that these keys lead to, as a byte range of the text; empty where it
    /// does not stand there.
    pub fn span_of(&self, keys: &[&str]) -> Range<usize> {
        let Ok(document) = DeTable::parse(&self.text) else {
            return 0..0;
        };
        let mut table = Some(document.get_ref());
        let mut span = 0..0;
        for key in keys {
            let Some(value) = table.and_then(|table| table.get(*key)) else {
                return 0..0;
            };
            span = value.span();
            table = value.get_ref().as_table();
        }
        span
    }
}

/// Reports the TOML parser's errors, up to the first one that may be the cause of the next.
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

fn read_document(document: &DeTable<'_>, file: &str, problems: &Problems) -> Document {
    control::refuse(document, problems);
    let root = &TableReader::new("", document, 0..0, problems);
    let name = read_name(root, file);
    let model = root.require("model", check::model);
    let matrix = read_matrix(root);
    let defined = keys_of(document, "workload");
    let axes = matrix.as_ref().map(|matrix| Axes::read(matrix, &defined));
    let axes = axes.unwrap_or_default();
    let run_table = root.table("run");
    let run = RunSpec::read(run_table.as_ref());
    let load = root
        .table("load")
        .as_ref()
        .map(LoadSpec::read)
        .unwrap_or_default();
    let verdict = VerdictSpec::read(root.table("verdict").as_ref());
    let mut server = read_server(root);
    if let (Some(table), Some(server)) = (root.table("profile"), server.as_mut()) {
        server.profile = Some(ProfileSpec::read(&table, server));
    }
    let tier_table = root.table("tier");
    let tiers = tier::read_all(tier_table.as_ref());
    let workload_table = root.table("workload");
    let workloads = read_workloads(workload_table.as_ref());
    finish(root);
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
        (Some(model), Some(mut server)) => {
            models::fit_simulator(&mut server, &model.value, document);
            Some(Resolved {
                model: model.value,
                run,
                load,
                verdict,
                server,
                tiers,
                workloads,
            })
        }
        _ => None,
    };
    Document {
        name: name.unwrap_or_default(),
        axes,
        resolved,
    }
}

/// `name`, or else one made of the file's.
fn read_name(root: &TableReader<'_>, file: &str) -> Option<String> {
    if root.value("name").is_some() {
        return root.read("name", slug).map(|located| located.value);
    }
    let name = name_of_file(file);
    if name.is_none() {
        root.problem(
            format!("`name` is missing in the plan, and none can be made of `{file}`"),
            "add `name = \"...\"`",
        );
    }
    name
}

fn read_matrix<'t>(root: &TableReader<'t>) -> Option<TableReader<'t>> {
    if root.value("matrix").is_none() {
        root.problem(
            "[matrix] is missing",
            "add [matrix] with `tier = [...]` and `prompt_len = [...]`",
        );
    }
    root.table("matrix")
}

fn read_server(root: &TableReader<'_>) -> Option<ServerSpec> {
    if root.value("server").is_none() {
        server::ask_for_launcher(root);
    }
    ServerSpec::read(&root.table("server")?)
}

/// Reports unknown keys of the plan; an axis belongs into its table.
fn finish(root: &TableReader<'_>) {
    root.finish_with(|key| {
        let is_axis = axes::NAMES.contains(&key);
        is_axis.then(|| format!("it is an axis: put `{key} = [...]` into [matrix]"))
    });
}

/// The keys of the table `name`, in the order of the text.
fn keys_of(document: &DeTable<'_>, name: &str) -> Vec<String> {
    let table = document
        .get(name)
        .and_then(|item| item.get_ref().as_table());
    let keys = table.into_iter().flat_map(|table| table.keys());
    keys.map(|key| key.get_ref().to_string()).collect()
}

/// Every workload by label. A plan without any has the one that [`axes::DEFAULT_LABEL`] names.
fn read_workloads(table: Option<&TableReader<'_>>) -> BTreeMap<String, WorkloadSpec> {
    let mut all = BTreeMap::new();
    let Some(table) = table.filter(|table| !table.keys().is_empty()) else {
        all.insert(axes::DEFAULT_LABEL.to_owned(), WorkloadSpec::default());
        return all;
    };
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

/// The longest name of a plan, characters.
const MAX_NAME_CHARS: usize = 100;

/// A plan's name made of its file's; `None` where nothing of it can stand in a name.
pub(crate) fn name_of_file(file: &str) -> Option<String> {
    let stem = Path::new(file).file_stem()?.to_string_lossy();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = stem
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .take(MAX_NAME_CHARS)
        .collect();
    let name = name.trim_start_matches(['.', '-']).trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

/// A name that can name a folder: letters, digits, `-`, `_` and `.`, beginning with neither `.` nor `-`.
fn slug(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let expected =
        "letters, digits, `-`, `_` and `.`, beginning with neither `.` nor `-`, 100 at most";
    let text = string(value)?;
    let fits = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits && !text.starts_with(['.', '-']) && text.len() <= MAX_NAME_CHARS {
        Ok(text)
    } else {
        Err(expected.to_owned())
    }
}

#[cfg(test)]
mod tests;
