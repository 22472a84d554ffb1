//! Finds the run that a word on the command line means: a folder, an id, the start of one, `latest` or
//! `latest:PLAN`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use chrono::{DateTime, FixedOffset};

use super::manifest::Manifest;

/// Most runs that an error names.
const MAX_NAMED: usize = 5;

/// The word for the run that began last.
const LATEST: &str = "latest";

/// Whether `word` asks for the run that began last, of all or of one plan.
pub(crate) fn is_latest(word: &str) -> bool {
    word == LATEST || word.starts_with("latest:")
}

/// The run that `word` means. Errors name the runs that there are.
pub(crate) fn run_folder(word: &str, results: &Path) -> Result<PathBuf> {
    let path = Path::new(word);
    if path.join("cells").is_dir() {
        return Ok(path.to_owned());
    }
    if let Some(run) = run_called(word, results)? {
        return Ok(run);
    }
    if path.is_dir() {
        bail!("`{word}` is not a run folder: it has no `cells`");
    }
    let all = by_start(all_runs(results));
    let known = if all.is_empty() {
        "there is none".to_owned()
    } else {
        format!("the latest are {}", listed(&all))
    };
    bail!(
        "`{word}` is neither a run folder nor a run below `{}`: {known}",
        results.display()
    );
}

/// The run below `results` that `word` means by its id, the start of its id, or as the latest; `None` where
/// there is none. Fails where several have that id, or begin so.
pub(crate) fn run_called(word: &str, results: &Path) -> Result<Option<PathBuf>> {
    let plan = word.strip_prefix("latest:");
    if is_latest(word) {
        let mut runs = all_runs(results);
        runs.retain(|run| plan.is_none_or(|plan| is_of_plan(run, plan)));
        return Ok(by_start(runs).into_iter().next());
    }
    if word.is_empty() || word.contains(['/', '\\']) || word.starts_with('.') {
        return Ok(None);
    }
    let called = |is_it: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        let mut runs = all_runs(results);
        runs.retain(|run| is_it(&name_of(run)));
        runs
    };
    let mut exact = called(&|name| name == word);
    if exact.len() > 1 {
        bail!("several runs are called `{word}`: {}", listed(&exact));
    }
    if let Some(run) = exact.pop() {
        return Ok(Some(run));
    }
    let mut begin = called(&|name| name.starts_with(word));
    if begin.len() > 1 {
        bail!(
            "{} runs begin with `{word}`: {}",
            begin.len(),
            listed(&by_start(begin))
        );
    }
    Ok(begin.pop())
}

fn is_of_plan(run: &Path, plan: &str) -> bool {
    let manifest = Manifest::read(run).ok().flatten();
    match manifest.and_then(|manifest| manifest.plan.name) {
        Some(name) => name == plan,
        None => run.parent().is_some_and(|folder| folder.ends_with(plan)),
    }
}

/// Every run folder below `results`, at most two levels down, in the order of their names.
pub(crate) fn all_runs(results: &Path) -> Vec<PathBuf> {
    let children = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    };
    let (is_run, plans): (Vec<_>, Vec<_>) = children(results)
        .into_iter()
        .partition(|path| path.join("cells").is_dir());
    let inner = plans.iter().flat_map(|plan| children(plan));
    let inner = inner.filter(|path| path.join("cells").is_dir());
    let mut all: Vec<PathBuf> = is_run.into_iter().chain(inner).collect();
    all.sort();
    all
}

/// `runs`, the one that began last first. One without a time is as old as can be.
pub(crate) fn by_start(mut runs: Vec<PathBuf>) -> Vec<PathBuf> {
    runs.sort_by_cached_key(|run| std::cmp::Reverse((started(run), name_of(run))));
    runs
}

fn started(run: &Path) -> Option<DateTime<FixedOffset>> {
    let manifest = Manifest::read(run).ok().flatten()?;
    DateTime::parse_from_rfc3339(&manifest.started_at?).ok()
}

fn name_of(run: &Path) -> String {
    let name = run.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The first runs of `paths`, and how many more there are.
pub(crate) fn listed(paths: &[PathBuf]) -> String {
    let mut names: Vec<String> = paths
        .iter()
        .take(MAX_NAMED)
        .map(|path| format!("`{}`", path.display()))
        .collect();
    if paths.len() > MAX_NAMED {
        names.push(format!("and {} more", paths.len() - MAX_NAMED));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(results: &Path, place: &str, plan: &str, started_at: &str) -> PathBuf {
        let folder = results.join(place);
        std::fs::create_dir_all(folder.join("cells")).unwrap();
        let manifest = serde_json::json!({
            "plan": {"name": plan}, "started_at": started_at, "format": 1,
        });
        std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
        folder
    }

    #[test]
    fn a_run_is_a_folder_an_id_the_start_of_one_or_the_latest() {
        let results = tempfile::tempdir().unwrap();
        let at = results.path();
        let old = run(at, "rag/20260101-aa11", "rag", "2026-01-01T00:00:00+00:00");
        let new = run(at, "rag/20260102-bb22", "rag", "2026-01-02T00:00:00+00:00");
        let chat = run(at, "mine", "chat", "2026-01-03T00:00:00+00:00");
        let find = |word: &str| run_folder(word, at).map_err(|error| error.to_string());
        assert_eq!(find(old.to_str().unwrap()), Ok(old.clone()));
        assert_eq!(find("20260101-aa11"), Ok(old.clone()));
        assert_eq!(find("20260102"), Ok(new.clone()));
        assert_eq!(find("latest"), Ok(chat.clone()), "by time, not by name");
        assert_eq!(find("latest:rag"), Ok(new.clone()));
        assert_eq!(find("latest:chat"), Ok(chat));
        let several = find("2026010").unwrap_err();
        let both = format!(
            "2 runs begin with `2026010`: `{}`, `{}`",
            new.display(),
            old.display()
        );
        assert_eq!(several, both);
        for word in ["2027", "latest:none", "nothing", ""] {
            let refusal = find(word).unwrap_err();
            assert!(refusal.contains("the latest are `"), "{refusal}");
        }
        let refusal = find(at.join("rag").to_str().unwrap()).unwrap_err();
        assert!(refusal.ends_with("is not a run folder: it has no `cells`"));
    }

    #[test]
    fn where_there_is_no_run_the_error_says_so() {
        let results = tempfile::tempdir().unwrap();
        let refusal = run_folder("latest", results.path())
            .unwrap_err()
            .to_string();
        assert!(refusal.ends_with("there is none"), "{refusal}");
    }
}
