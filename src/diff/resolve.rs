//! Finds what a user means by a side of a diff: a folder, a run's id, a git revision.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::compact::{Compact, FILES};
use super::{Side, provenance};
use crate::record::manifest::Manifest;
use crate::record::named::{all_runs, listed, run_called};
use crate::record::reader::read_run;
use crate::record::whole;
use crate::text_file;

/// Where sides are looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    /// The results folder.
    pub results: &'a Path,
    /// The plan, where a revision has tables of several.
    pub plan: Option<&'a str>,
}

/// What a word names.
enum Named {
    /// A run's folder.
    Run(PathBuf),
    /// A folder with the tables of `labrun keep`.
    Tables(PathBuf),
    /// A commit's full hash.
    Commit(String),
}

impl Named {
    /// The side; `meant` is the plan that is taken where a commit has the tables of several.
    fn side(&self, word: &str, places: Places<'_>, meant: Option<&str>) -> Result<Side> {
        match self {
            Self::Run(folder) => side_of_run(word, folder),
            Self::Tables(folder) => side_of_tables(word, folder),
            Self::Commit(commit) => side_of_commit(word, commit, places, meant),
        }
    }
}

/// The two sides that `a` and `b` name. Where a revision has the tables of several plans and none
/// is named, the other side decides: a run or folder by its own plan, a revision by the one plan
/// that both have or whose tables differ.
pub(crate) fn both_sides(a: &str, b: &str, places: Places<'_>) -> Result<(Side, Side)> {
    let (named_a, named_b) = (find(a, places)?, find(b, places)?);
    let plan = |side: &Side| side.facts.get("plan.name").cloned();
    if let (Named::Commit(before), Named::Commit(after)) = (&named_a, &named_b) {
        let meant = common_plan(before, after, places)?;
        let side_a = named_a.side(a, places, meant.as_deref())?;
        return Ok((side_a, named_b.side(b, places, meant.as_deref())?));
    }
    if let Named::Commit(_) = named_a {
        let side_b = named_b.side(b, places, None)?;
        return Ok((named_a.side(a, places, plan(&side_b).as_deref())?, side_b));
    }
    let side_a = named_a.side(a, places, None)?;
    let side_b = named_b.side(b, places, plan(&side_a).as_deref())?;
    Ok((side_a, side_b))
}

/// What `word` names.
fn find(word: &str, places: Places<'_>) -> Result<Named> {
    let path = Path::new(word);
    if path.join("cells").is_dir() {
        return Ok(Named::Run(path.to_owned()));
    }
    if path.join(FILES[0]).is_file() {
        return Ok(Named::Tables(path.to_owned()));
    }
    if path.is_dir() {
        bail!(
            "`{word}` holds neither a run (`cells`) nor stored tables (`{}`)",
            FILES[0]
        );
    }
    // Several runs may begin with what is a commit's hash.
    let run = run_called(word, places.results);
    if let Ok(Some(run)) = run {
        return Ok(Named::Run(run));
    }
    match (commit(word)?, run) {
        (Some(commit), _) => Ok(Named::Commit(commit)),
        (None, Err(several)) => Err(several),
        (None, Ok(_)) => bail!(
            "`{word}` is neither a run folder, nor a run below `{}`, nor a git revision",
            places.results.display()
        ),
    }
}

/// The one plan whose stored tables two commits both have, or the one of these whose tables are not
/// the same; none where that is not exactly one.
fn common_plan(before: &str, after: &str, places: Places<'_>) -> Result<Option<String>> {
    let other = tables_at(after, places)?;
    let mut common = tables_at(before, places)?;
    common.retain(|folder| other.contains(folder));
    if common.len() > 1 {
        let mut changed = Vec::new();
        for folder in common {
            let tree = |commit: &str| git(&["rev-parse", &format!("{commit}:{folder}")]);
            if tree(before)? != tree(after)? {
                changed.push(folder);
            }
        }
        common = changed;
    }
    Ok(match common.as_slice() {
        [folder] => folder.rsplit('/').next().map(str::to_owned),
        _ => None,
    })
}

/// The run's side, with the facts of its manifest and plan.
pub(crate) fn side_of_run(word: &str, folder: &Path) -> Result<Side> {
    let run = read_run(folder)?.whole()?;
    let mut origin = format!("the run `{}`, {} cells", folder.display(), run.cells.len());
    if let Some(lack) = whole::lack(folder) {
        origin.push_str(&format!(" (not whole: {lack})"));
    }
    Side::of_run(word, origin, &run, facts(folder)?)
}

/// What stands in a run's manifest and plan.
fn facts(folder: &Path) -> Result<BTreeMap<String, String>> {
    let manifest = Manifest::read(folder)?.unwrap_or_default();
    let plan = text_file::read(&folder.join("plan.toml")).unwrap_or_default();
    let plan: toml::Table = plan
        .parse()
        .with_context(|| format!("reading `{}`", folder.join("plan.toml").display()))?;
    Ok(provenance::facts(
        &manifest.known()?,
        &serde_json::to_value(plan)?,
    ))
}

/// The stored tables, each file as `read` gives it.
fn compact(read: impl FnMut(&str) -> Result<String>) -> Result<Compact> {
    let [cells, measures, samples, provenance] = FILES.map(read);
    Ok(Compact {
        cells: cells?,
        measures: measures?,
        samples: samples?,
        provenance: provenance?,
    })
}

fn side_of_tables(word: &str, folder: &Path) -> Result<Side> {
    let read = |name: &str| text_file::read(&folder.join(name));
    let compact = compact(read)?;
    let origin = format!("the tables in `{}`", folder.display());
    compact
        .read(word, origin)
        .with_context(|| format!("reading the tables in `{}`", folder.display()))
}

/// The side of a commit; `meant` is the plan that is taken where there are tables of several.
fn side_of_commit(
    word: &str,
    commit: &str,
    places: Places<'_>,
    meant: Option<&str>,
) -> Result<Side> {
    let mut tables = tables_at(commit, places)?;
    let of_plan = |folder: &String| folder.rsplit('/').next() == meant;
    if let Some(folder) = tables.iter().find(|folder| of_plan(folder)) {
        tables = vec![folder.clone()];
    }
    let short = &commit[..commit.len().min(10)];
    match tables.as_slice() {
        [] => {}
        [folder] => {
            let read = |name: &str| git(&["show", &format!("{commit}:{folder}/{name}")]);
            let compact = compact(read)?;
            let origin = format!("`{folder}` at commit {short}");
            return compact
                .read(word, origin.clone())
                .with_context(|| format!("reading {origin}"));
        }
        several => {
            let names: Vec<&str> = several
                .iter()
                .filter_map(|f| f.rsplit('/').next())
                .collect();
            bail!(
                "commit {short} has the tables of {}; name one with --plan",
                names.join(", ")
            );
        }
    }
    let of_commit = |run: &PathBuf| {
        let manifest = Manifest::read(run).ok().flatten();
        manifest.is_some_and(|manifest| manifest.plan_commit() == Some(commit))
    };
    let made: Vec<PathBuf> = all_runs(places.results)
        .into_iter()
        .filter(of_commit)
        .collect();
    match made.as_slice() {
        [] => bail!(
            "commit {short} has no tables below `{}`, and no run there was made at it; `labrun keep RUN` \
             makes tables to commit",
            places.results.display()
        ),
        [run] => side_of_run(word, run),
        several => bail!(
            "several runs were made at commit {short}, name one: {}",
            listed(several)
        ),
    }
}

/// The folders with stored tables below the results folder at a commit.
fn tables_at(commit: &str, places: Places<'_>) -> Result<Vec<String>> {
    let inside = in_repository(places.results)?;
    let names = git(&["ls-tree", "-r", "--name-only", "--full-tree", commit])?;
    let folder = |name: &str| -> Option<String> {
        let folder = name.strip_suffix(FILES[0])?.strip_suffix('/')?;
        let below = Path::new(folder).strip_prefix(&inside).ok()?;
        let plan = below.file_name()?.to_str()?;
        let wanted = places.plan.is_none_or(|wanted| wanted == plan);
        wanted.then(|| folder.to_owned())
    };
    Ok(names.lines().filter_map(folder).collect())
}

/// The results folder as the repository names it.
fn in_repository(results: &Path) -> Result<PathBuf> {
    if results.is_absolute() {
        let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?.trim());
        let inside = results.strip_prefix(&top).map(Path::to_owned);
        return inside.with_context(|| {
            format!(
                "`{}` is not in the repository `{}`",
                results.display(),
                top.display()
            )
        });
    }
    let prefix = git(&["rev-parse", "--show-prefix"])?;
    let mut inside = PathBuf::new();
    for part in Path::new(prefix.trim()).join(results).components() {
        match part {
            Component::ParentDir => {
                inside.pop();
            }
            Component::CurDir => {}
            other => inside.push(other),
        }
    }
    Ok(inside)
}

/// The commit that `word` names, where this is a repository and it names one.
fn commit(word: &str) -> Result<Option<String>> {
    if word.starts_with('-') || word.is_empty() {
        bail!("`{word}` is not a git revision");
    }
    let wanted = format!("{word}^{{commit}}");
    let output = Command::new("git")
        .args(["rev-parse", "--verify", "--quiet", &wanted])
        .output();
    Ok(match output {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => None,
    })
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .context("starting git")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("`git {}`: {}", arguments.join(" "), message.trim());
    }
    String::from_utf8(output.stdout).context("git printed no text")
}
