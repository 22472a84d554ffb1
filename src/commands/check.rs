//! `labrun check`: whether a stack answers from its tiers what it answers without them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::launcher::Machine;
use super::plan_source::Source;
use super::run::{Ending, measure};
use super::target::fresh;
use super::{ExitStatus, MAX_PLAN_BYTES, ad_hoc, print, say, width};
use crate::bounded;
use crate::check::StackCheck;
use crate::check::ladder::{Wish, check_plan};
use crate::check::pairs::{Checked, Compatibility, Pair, Pairs};
use crate::cli::{AdHocArgs, ChangeArgs, CheckArgs, RunArgs};
use crate::config::Config;
use crate::matrix::file_name::file_name;
use crate::plan::text::Setting;
use crate::record::reader::read_run;
use crate::recorder::writer::{make_folder, write_synced};
use crate::units::WallClock;
use crate::verify::verify;

/// Checks one stack, or those of a file.
pub(super) fn check(args: &CheckArgs, runtime: &Runtime) -> Result<ExitStatus> {
    match &args.pairs {
        Some(file) => several(args, file, runtime),
        None => one(args, runtime),
    }
}

fn one(args: &CheckArgs, runtime: &Runtime) -> Result<ExitStatus> {
    let stack = Stack {
        changes: args.changes.clone(),
        config: args.config.clone(),
        tiers: args.tier.clone(),
        out: args.out.clone(),
    };
    let (folder, check, status) = stack.check(args, runtime)?;
    let Some(check) = check else {
        say("nothing was measured");
        return Ok(status);
    };
    if args.json {
        print(&json(&check)?)?;
    } else {
        print(&check.terminal(width()))?;
        say(&format!(
            "\nwritten to {}: check.html, check.md, check.json; the evidence is in report.html",
            folder.display()
        ));
    }
    Ok(status_of(check.is_right(), status))
}

/// Interruptions stay what they are; otherwise what was found decides.
fn status_of(is_right: bool, run: ExitStatus) -> ExitStatus {
    match run {
        ExitStatus::Interrupted => run,
        _ if is_right => ExitStatus::Success,
        _ => ExitStatus::CellsFailed,
    }
}

/// Checks each stack of `file`, and writes the table of all.
fn several(args: &CheckArgs, file: &Path, runtime: &Runtime) -> Result<ExitStatus> {
    let name = file.display().to_string();
    let text = bounded::read(file, MAX_PLAN_BYTES).with_context(|| format!("reading `{name}`"))?;
    let pairs = Pairs::parse(&text, &name)?;
    let Some(out) = &args.out else {
        bail!("name a folder for the checks of several stacks with --out");
    };
    if out.exists() {
        bail!(
            "`{}` exists already; name a new folder with --out",
            out.display()
        );
    }
    let beside = file.parent().unwrap_or(Path::new("."));
    let stacks = pairs
        .pair
        .iter()
        .map(|pair| OneOf::of(pair, args, beside, out))
        .collect::<Result<Vec<_>>>()?;
    let mut all = Compatibility { stacks: Vec::new() };
    for (pair, stack) in pairs.pair.iter().zip(stacks) {
        let found = match stack {
            OneOf::Checked(found) => Ok(*found),
            OneOf::ToCheck(stack) => {
                say(&format!("checking {}", pair.name));
                stack.check(args, runtime)
            }
        };
        let checked = match found {
            Ok((_, _, ExitStatus::Interrupted)) => return Ok(ExitStatus::Interrupted),
            Ok((folder, check, _)) => Checked {
                name: pair.name.clone(),
                error: check.is_none().then(|| "nothing was measured".to_owned()),
                check,
                folder: Some(folder),
            },
            Err(error) => Checked {
                name: pair.name.clone(),
                check: None,
                error: Some(format!("{error:#}")),
                folder: None,
            },
        };
        all.stacks.push(checked);
    }
    make_folder(out)?;
    write_synced(&out.join("compatibility.json"), json(&all)?.as_bytes())?;
    write_synced(&out.join("compatibility.md"), all.markdown().as_bytes())?;
    print(&all.terminal(width()))?;
    say(&format!("\nwritten to {}: compatibility.md", out.display()));
    Ok(status_of(all.is_right(), ExitStatus::Success))
}

/// The folder of a check, what was found in it, and how its run ended.
type Found = (PathBuf, Option<StackCheck>, ExitStatus);

/// A stack of a file.
enum OneOf {
    /// Its check is finished.
    Checked(Box<Found>),
    ToCheck(Stack),
}

impl OneOf {
    /// # Errors
    /// Where a finished check cannot be read.
    fn of(pair: &Pair, args: &CheckArgs, beside: &Path, out: &Path) -> Result<Self> {
        let Some(run) = &pair.run else {
            return Ok(Self::ToCheck(Stack::of(pair, args, beside, out)?));
        };
        let folder = beside.join(run);
        let reading = || format!("reading `run` of `{}`", pair.name);
        let mut data = read_run(&folder).with_context(reading)?;
        verify(&folder)
            .with_context(reading)?
            .judge_again(&mut data.cells);
        let check = StackCheck::of(&data);
        Ok(Self::Checked(Box::new((
            folder,
            check,
            ExitStatus::Success,
        ))))
    }
}

/// One stack to check.
struct Stack {
    changes: ChangeArgs,
    config: Option<PathBuf>,
    tiers: Vec<String>,
    out: Option<PathBuf>,
}

impl Stack {
    /// The stack of `pair`, whose run goes to a folder of its own under `out`.
    fn of(pair: &Pair, args: &CheckArgs, beside: &Path, out: &Path) -> Result<Self> {
        let mut changes = args.changes.clone();
        for (key, value) in &pair.set {
            let setting: Result<Setting, _> = format!("{key}={value}").parse();
            changes.set.push(setting.map_err(|why| {
                anyhow::anyhow!(
                    "`set` of the stack `{}`: `{key}` cannot be: {why}",
                    pair.name
                )
            })?);
        }
        let tiers = if pair.tiers.is_empty() {
            &args.tier
        } else {
            &pair.tiers
        };
        let config = pair.config.as_ref().map(|config| beside.join(config));
        Ok(Self {
            changes,
            config: config.or_else(|| args.config.clone()),
            tiers: tiers.clone(),
            out: Some(out.join(file_name(&pair.name))),
        })
    }

    /// Runs the check and reads what was found.
    fn check(&self, args: &CheckArgs, runtime: &Runtime) -> Result<Found> {
        let started = WallClock::now();
        let config = Config::load(self.config.as_deref())?;
        let source = source(args)?;
        let loaded = source.load(&self.changes, &config.settings, Machine::look)?;
        let wish = Wish {
            tiers: self.tiers.clone(),
            prompt_lens: args.prompt_len.clone(),
            concurrency: args.concurrency.clone(),
            rounds: args.rounds,
        };
        let text = check_plan(&loaded.plan, &wish)?;
        let run = RunArgs {
            out: self.out.clone(),
            config: self.config.clone(),
            changes: self.changes.clone(),
            quiet: args.json,
            ..RunArgs::default()
        };
        let target = fresh(&text, &loaded.plan.file, &run, started)?;
        let folder = target.folder.clone();
        let status = measure(&run, &target, started, (runtime, Ending::Silent))?;
        let check = StackCheck::of(&read_run(&folder)?);
        if let Some(check) = &check {
            write(&folder, check)?;
        }
        Ok((folder, check, status))
    }
}

/// The plan that is named, or that flags describe.
fn source(args: &CheckArgs) -> Result<Source> {
    if let Some(plan) = &args.plan {
        return Source::read(plan);
    }
    ad_hoc::source(&AdHocArgs {
        model: args.model.clone(),
        tier: args.tier.clone(),
        prompt_len: match args.prompt_len.as_slice() {
            [] => vec![LONGEST_TOKENS],
            asked => asked.to_vec(),
        },
        launcher: args.launcher,
        image: args.image.clone(),
        ..AdHocArgs::default()
    })
}

/// The longest prompt where neither a plan nor a flag names one, tokens.
const LONGEST_TOKENS: u32 = 8192;

fn write(folder: &Path, check: &StackCheck) -> Result<()> {
    for (name, text) in [
        ("check.json", json(check)?),
        ("check.md", check.markdown()),
        ("check.html", check.html()?),
    ] {
        let path = folder.join(name);
        let text = crate::secret::mask(&text).into_owned();
        write_synced(&path, text.as_bytes())
            .with_context(|| format!("writing `{}`", path.display()))?;
    }
    Ok(())
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}
