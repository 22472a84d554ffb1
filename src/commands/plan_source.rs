//! From what the command line names to a plan: its text read, changed by flags, completed by what this
//! machine has, and frozen. What runs is what that text says.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::launcher::{self, Machine};
use super::{MAX_PLAN_BYTES, workload_files};
use crate::bounded;
use crate::cli::ChangeArgs;
use crate::config::Settings;
use crate::matrix::Matrix;
use crate::plan::only::Narrowed;
use crate::plan::server::LAUNCHER_MISSING;
use crate::plan::text::PlanText;
use crate::plan::{Plan, name_of_file};
use crate::workload::files::Files;

/// A plan's text as its author wrote it.
#[derive(Debug)]
pub(super) struct Source {
    /// What problems call it: the file's name, as it was typed.
    pub file: String,
    /// The text.
    pub text: String,
}

/// A plan that is ready to run.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The plan, with the text that is frozen into the run.
    pub plan: Plan,
    /// Its cells.
    pub matrix: Matrix,
    /// What is known of the files that its workloads name.
    pub files: Files,
    /// What labrun chose or added, for people.
    pub notes: Vec<String>,
}

impl Source {
    /// Reads the file at `path`; `-` is standard input.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let text = if file == "-" {
            standard_input().context("reading the plan from standard input")?
        } else {
            bounded::read(path, MAX_PLAN_BYTES)
                .with_context(|| format!("reading the plan `{file}`"))?
        };
        Ok(Self { file, text })
    }

    /// The plan with the changes of these flags. `machine` looks for a launcher where the plan names
    /// none.
    pub(super) fn load(
        &self,
        changes: &ChangeArgs,
        settings: &Settings,
        machine: impl FnOnce(&Settings) -> Machine,
    ) -> Result<Loaded> {
        let Some(mut text) = PlanText::new(&self.text) else {
            let plan = Plan::parse(&self.text, &self.file)?;
            return loaded(plan, Vec::new());
        };
        for setting in &changes.set {
            text.set(setting)
                .map_err(|why| anyhow!("`--set {setting}` cannot be: {why}"))?;
        }
        let author = text.text(&[]);
        let (notes, why) = complete(&mut text, &self.file, || machine(settings));
        self.check(&author, why.as_deref())?;
        let plan = Plan::parse(&text.text(&changes.flags()), &self.file)?;
        if changes.only.is_empty() {
            return loaded(plan, notes);
        }
        self.part(text, &plan, changes, notes)
    }

    /// Reports the problems of the author's text, in its own lines. `why` tells why no launcher could be
    /// chosen; without it one was.
    fn check(&self, author: &str, why: Option<&str>) -> Result<()> {
        match Plan::parse(author, &self.file) {
            Ok(plan) => Matrix::expand(&plan).map(drop)?,
            Err(mut problems) => {
                for problem in &mut problems.problems {
                    if let (LAUNCHER_MISSING, Some(why)) = (problem.message.as_str(), why) {
                        problem.message = format!("{LAUNCHER_MISSING}, and {why}");
                    }
                }
                let all = &mut problems.problems;
                all.retain(|problem| problem.message != LAUNCHER_MISSING);
                if !all.is_empty() {
                    return Err(problems.into());
                }
            }
        }
        Ok(())
    }

    /// The part of `plan` that `--only` chooses.
    fn part(
        &self,
        mut text: PlanText,
        plan: &Plan,
        changes: &ChangeArgs,
        mut notes: Vec<String>,
    ) -> Result<Loaded> {
        let narrowed = Narrowed::of(&changes.only, &plan.axes);
        let narrowed = narrowed.map_err(|why| anyhow!("--only: {why}"))?;
        text.narrow(&narrowed);
        if narrowed.keeps_baseline {
            notes.push("tier `baseline` stays: the chosen tiers are compared with it".to_owned());
        }
        let plan = Plan::parse(&text.text(&changes.flags()), &self.file)?;
        loaded(plan, notes)
    }
}

/// Adds to a plan what its author left out, so that the frozen text says it. Returns what was chosen,
/// for people, and why no launcher could be.
fn complete(
    text: &mut PlanText,
    file: &str,
    machine: impl FnOnce() -> Machine,
) -> (Vec<String>, Option<String>) {
    let is_short = leaves_out_defaults(text);
    if !text.has(&["name"])
        && let Some(name) = name_of_file(file)
    {
        text.add(&["name"], name, "the file's name");
    }
    let mut notes = Vec::new();
    let mut unknown = None;
    match launcher::complete(text, machine) {
        Ok(chosen) => notes.extend(chosen),
        Err(why) => unknown = Some(why),
    }
    if is_short && text.add_baseline() {
        notes.push(
            "tier `baseline` is added: the others are compared with it (to leave it out, exclude it: \
             `[[matrix.exclude]]` with `tier = \"baseline\"`)"
                .to_owned(),
        );
    }
    (notes, unknown)
}

/// Whether the author left out what has a default. A plan that says everything is measured as it
/// stands.
fn leaves_out_defaults(text: &PlanText) -> bool {
    let said: [&[&str]; 4] = [
        &["name"],
        &["matrix", "gen_len"],
        &["matrix", "concurrency"],
        &["server"],
    ];
    said.iter().any(|keys| !text.has(keys))
}

fn loaded(plan: Plan, notes: Vec<String>) -> Result<Loaded> {
    let matrix = Matrix::expand(&plan)?;
    let files = workload_files::read(&plan, &matrix)?;
    Ok(Loaded {
        plan,
        matrix,
        files,
        notes,
    })
}

fn standard_input() -> Result<String> {
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(MAX_PLAN_BYTES + 1);
    input.read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= MAX_PLAN_BYTES, "it is too long");
    Ok(text)
}
