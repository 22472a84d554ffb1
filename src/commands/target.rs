//! Which plan is run, and into which folder: a new one, or one of an earlier attempt.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{MAX_PLAN_BYTES, load_plan};
use crate::bounded;
use crate::cli::RunArgs;
use crate::config::Config;
use crate::matrix::Matrix;
use crate::matrix::shard::Shard;
use crate::plan::Plan;
use crate::record::reader::read_manifest;
use crate::recorder::manifest::{Target, run_id};
use crate::units::WallClock;

/// Finds the plan and the folder that `args` mean.
pub fn target(args: &RunArgs, started: WallClock) -> Result<Target> {
    let Some(path) = &args.plan else {
        bail!("no plan: name a TOML file, such as `labrun plans/quickstart.toml`");
    };
    if path.is_dir() {
        return continued(args, path, started);
    }
    let (plan, matrix) = load_plan(path)?;
    let config = Config::load(args.config.as_deref())?;
    let id = run_id(&plan, args.shard, started);
    let runs = config.settings.paths.results.join(&plan.name);
    let latest = || args.resume.then(|| latest_run(&runs, args.shard)).flatten();
    let folder = args.out.clone().or_else(latest);
    Ok(Target {
        folder: folder.unwrap_or_else(|| runs.join(&id)),
        plan,
        matrix,
        config,
        config_file: args.config.clone(),
        shard: args.shard,
        anonymous: args.anonymous,
        id,
    })
}

/// A run's folder was named: its own plan is run again.
fn continued(args: &RunArgs, folder: &Path, started: WallClock) -> Result<Target> {
    let name = folder.display();
    let Some(manifest) = read_manifest(folder) else {
        bail!("`{name}` is a folder without `manifest.json`: no plan and no run");
    };
    if !args.resume {
        bail!("`{name}` is a run; continue it with `labrun run --resume {name}`");
    }
    if args.out.as_ref().is_some_and(|out| out != folder) {
        bail!("`{name}` is continued where it is; leave --out away");
    }
    let kept = folder.join("plan.toml");
    let text = bounded::read(&kept, MAX_PLAN_BYTES)
        .with_context(|| format!("reading the run's plan `{}`", kept.display()))?;
    // Files that the plan names are looked up beside it, where it stood at the time.
    let text_of = |key: &str| manifest["plan"][key].as_str().unwrap_or_default();
    let original = Path::new(text_of("folder"))
        .join(Path::new(text_of("file")).file_name().unwrap_or_default());
    let file = if text_of("folder").is_empty() {
        kept
    } else {
        original
    };
    let plan = Plan::parse(&text, &file.display().to_string())?;
    let matrix = Matrix::expand(&plan)?;
    let used = manifest["config_file"].as_str().map(PathBuf::from);
    let config_file = args.config.clone().or(used);
    let config = Config::load(config_file.as_deref())?;
    let shard = serde_json::from_value(manifest["shard"].clone()).unwrap_or(None);
    if args.shard.is_some() && args.shard != shard {
        bail!("`{name}` is another part of its matrix; leave --shard away to continue it");
    }
    Ok(Target {
        id: run_id(&plan, shard, started),
        shard,
        anonymous: args.anonymous || manifest["anonymous"] == true,
        folder: folder.to_owned(),
        plan,
        matrix,
        config,
        config_file,
    })
}

/// The latest run of this part under `runs`: folders' names begin with the time.
fn latest_run(runs: &Path, shard: Option<Shard>) -> Option<PathBuf> {
    let wanted = serde_json::json!(shard);
    let is_that =
        |path: &PathBuf| read_manifest(path).is_some_and(|manifest| manifest["shard"] == wanted);
    let mut found: Vec<PathBuf> = std::fs::read_dir(runs)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_that)
        .collect();
    found.sort();
    found.pop()
}
