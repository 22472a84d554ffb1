//! Which plan is run, and into which folder: a new one, or one of an earlier attempt.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::launcher::Machine;
use super::plan_source::{Loaded, Source};
use super::{MAX_PLAN_BYTES, ad_hoc, say, workload_files};
use crate::bounded;
use crate::cli::RunArgs;
use crate::config::Config;
use crate::matrix::Matrix;
use crate::matrix::shard::Shard;
use crate::plan::Plan;
use crate::record::manifest::Manifest;
use crate::record::named::{is_latest, run_called};
use crate::recorder::manifest::{Target, run_id};
use crate::units::WallClock;

/// Finds the plan and the folder that `args` name.
pub(super) fn target(args: &RunArgs, started: WallClock) -> Result<Target> {
    if let Some(folder) = folder_to_continue(args)? {
        return continued(args, &folder, started);
    }
    let source = source(args)?;
    let config = Config::load(args.config.as_deref())?;
    let Loaded {
        plan,
        matrix,
        files,
        notes,
    } = source.load(&args.changes, &config.settings, Machine::look)?;
    ad_hoc::save(&args.ad_hoc, &source)?;
    if !args.quiet {
        for note in &notes {
            say(note);
        }
    }
    let id = run_id(&plan, args.shard, started);
    let flags = args.changes.flags();
    let runs = config.settings.paths.results.join(&plan.name);
    let latest = || args.resume.then(|| latest_run(&runs, args.shard, &flags));
    let folder = args.out.clone().or_else(|| latest().flatten());
    if let Some(folder) = folder.as_ref().filter(|_| args.resume) {
        refuse_another_part(folder, &flags)?;
    }
    Ok(Target {
        flags,
        folder: folder.unwrap_or_else(|| runs.join(&id)),
        plan,
        matrix,
        files,
        config,
        config_file: args.config.clone(),
        shard: args.shard,
        anonymous: args.anonymous,
        id,
    })
}

/// The run folder that is named: by its path, or with --resume as every command names runs.
fn folder_to_continue(args: &RunArgs) -> Result<Option<PathBuf>> {
    let Some(path) = &args.plan else {
        return Ok(None);
    };
    if path.is_dir() {
        return Ok(Some(path.clone()));
    }
    let word = path.to_string_lossy();
    if !args.resume || path.exists() || word == "-" {
        return Ok(None);
    }
    let config = Config::load(args.config.as_deref())?;
    let results = &config.settings.paths.results;
    let run = run_called(&word, results)?;
    if run.is_none() && is_latest(&word) {
        bail!(
            "no run to continue: there is no `{word}` below `{}`",
            results.display()
        );
    }
    Ok(run)
}

/// A new run of the plan `text`, which `file` is the place of.
pub(super) fn fresh(text: &str, file: &str, args: &RunArgs, started: WallClock) -> Result<Target> {
    let config = Config::load(args.config.as_deref())?;
    let plan = Plan::parse(text, file)?;
    let matrix = Matrix::expand(&plan)?;
    let files = workload_files::read(&plan, &matrix)?;
    let id = run_id(&plan, None, started);
    let runs = config.settings.paths.results.join(&plan.name);
    Ok(Target {
        flags: args.changes.flags(),
        folder: args.out.clone().unwrap_or_else(|| runs.join(&id)),
        plan,
        matrix,
        files,
        config,
        config_file: args.config.clone(),
        shard: None,
        anonymous: args.anonymous,
        id,
    })
}

/// The text of the plan that is named, or that flags describe.
pub(super) fn source(args: &RunArgs) -> Result<Source> {
    match &args.plan {
        Some(path) if path.is_dir() => {
            bail!("`{}` is a folder, and no plan", path.display())
        }
        Some(path) => {
            ad_hoc::refuse_beside(path, &args.ad_hoc)?;
            Source::read(path)
        }
        None if args.resume && args.out.is_none() => {
            bail!("nothing to continue: name a run, its plan or `latest` after --resume")
        }
        None => ad_hoc::source(&args.ad_hoc),
    }
}

/// A run's folder was named: its own plan is run again.
fn continued(args: &RunArgs, folder: &Path, started: WallClock) -> Result<Target> {
    let name = folder.display();
    let Some(manifest) = Manifest::read(folder)? else {
        bail!("`{name}` is a folder without `manifest.json`: no plan and no run");
    };
    if !args.resume {
        bail!("`{name}` is a run; continue it with `labrun run --resume {name}`");
    }
    if args.out.as_ref().is_some_and(|out| out != folder) {
        bail!("`{name}` is continued where it is; leave --out away");
    }
    if let Some(flag) = args.changes.flags().first() {
        bail!(
            "`{name}` is continued with its own plan; leave `{flag}` away, or run the plan with it into a \
             new folder"
        );
    }
    ad_hoc::refuse_beside(folder, &args.ad_hoc)?;
    let stored = folder.join("plan.toml");
    let text = bounded::read(&stored, MAX_PLAN_BYTES)
        .with_context(|| format!("reading the run's plan `{}`", stored.display()))?;
    // Files that the plan names are looked up beside it, where it stood at the time.
    let named = manifest.plan.file.as_deref().unwrap_or_default();
    let named = Path::new(named).file_name().unwrap_or_default();
    let file = match &manifest.plan.folder {
        Some(folder) => folder.join(named),
        None => stored,
    };
    let plan = Plan::parse(&text, &file.display().to_string())?;
    let matrix = Matrix::expand(&plan)?;
    let files = workload_files::read(&plan, &matrix)?;
    let config_file = args.config.clone().or(manifest.config_file);
    let config = Config::load(config_file.as_deref())?;
    let shard = manifest.shard;
    if args.shard.is_some() && args.shard != shard {
        bail!("`{name}` is another part of its matrix; leave --shard away to continue it");
    }
    Ok(Target {
        id: run_id(&plan, shard, started),
        flags: manifest.plan.flags,
        shard,
        anonymous: args.anonymous || manifest.anonymous,
        folder: folder.to_owned(),
        plan,
        matrix,
        files,
        config,
        config_file,
    })
}

/// Refuses to continue a run of another part of the matrix: what is not asked for would be moved away.
fn refuse_another_part(folder: &Path, flags: &[String]) -> Result<()> {
    let only = |flags: &[String]| -> Vec<String> {
        let only = flags.iter().filter(|flag| flag.starts_with("--only"));
        only.cloned().collect()
    };
    let Some(manifest) = Manifest::read(folder)? else {
        return Ok(());
    };
    let (own, asked) = (only(&manifest.plan.flags), only(flags));
    if own == asked || asked.is_empty() {
        return Ok(());
    }
    bail!(
        "`{}` holds another part of the matrix than `{}`; name another folder with --out",
        folder.display(),
        asked.join(" ")
    )
}

/// The latest run of this part, with these changes, under `runs`: folders' names begin with the time.
fn latest_run(runs: &Path, shard: Option<Shard>, flags: &[String]) -> Option<PathBuf> {
    let is_that = |path: &PathBuf| {
        let manifest = Manifest::read(path).ok().flatten();
        manifest.is_some_and(|manifest| manifest.shard == shard && manifest.plan.flags == flags)
    };
    let mut parts: Vec<PathBuf> = std::fs::read_dir(runs)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_that)
        .collect();
    parts.sort();
    parts.pop()
}
