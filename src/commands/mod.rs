//! One file a subcommand: wires modules, writes files, chooses the exit status.

mod ad_hoc;
mod bench;
mod check;
mod clean;
mod completions;
mod diff;
mod doctor;
mod exchange;
mod externals;
mod init;
mod keep;
mod keys;
mod launcher;
mod ls;
mod merge;
mod open;
mod plan;
mod plan_source;
mod plot;
mod preflight;
mod report;
mod run;
mod same_failure;
mod show;
mod sim;
mod submit;
mod target;
mod telemetry;
mod verify;
mod workload_files;

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use annotate_snippets::Renderer;
use anyhow::{Context as _, Result};
use console::Term;
use tokio::runtime::{Builder, Runtime};

use crate::bounded;
use crate::cli::{Cli, Command};
use crate::config::{Config, dot_env};
use crate::plan::problem::PlanProblems;
use crate::record::named::run_folder;
use crate::record::redact;
use crate::secret;

/// The most bytes of a plan.
const MAX_PLAN_BYTES: u64 = 16 << 20;
/// The most bytes of a `.env`.
const MAX_DOT_ENV_BYTES: u64 = 1 << 20;

/// The exit code of what a signal ended.
const INTERRUPTED: u8 = 130;

/// How labrun ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Everything succeeded.
    Success,
    /// A cell failed or is invalid.
    CellsFailed,
    /// Wrong usage, or a wrong plan.
    Usage,
    /// A rule of `diff --fail-on` fired.
    Regression,
    /// Stopped by a signal.
    Interrupted,
}

impl ExitStatus {
    /// The status of a command line that clap did not accept. Help and version are successes.
    pub fn of_clap(error: &clap::Error) -> Self {
        if error.use_stderr() {
            Self::Usage
        } else {
            Self::Success
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(match status {
            ExitStatus::Success => 0,
            ExitStatus::CellsFailed => 1,
            ExitStatus::Usage => 2,
            ExitStatus::Regression => 3,
            ExitStatus::Interrupted => INTERRUPTED,
        })
    }
}

/// Runs the command; errors are printed here, once.
pub(crate) fn main(cli: Cli) -> ExitStatus {
    let done = prepare(&cli).and_then(|()| {
        let is_sim = matches!(cli.command, Some(Command::Sim(_)));
        let runtime = runtime(is_sim)?;
        let done = dispatch(cli, &runtime);
        if is_sim {
            // Standard input is read by a blocking thread that nothing can wake.
            runtime.shutdown_background();
        }
        done
    });
    done.unwrap_or_else(|error| {
        complain(&error);
        ExitStatus::Usage
    })
}

/// Lets no panic show a secret: its message may quote whatever was being read.
pub(crate) fn mask_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or_default();
        if redact::text(message) == message {
            before(panic);
        } else {
            let at = panic.location().map(ToString::to_string);
            say(&format!(
                "labrun panicked at {}: {message}",
                at.unwrap_or_default()
            ));
        }
    }));
}

/// What every command needs, before any thread is started.
fn prepare(cli: &Cli) -> Result<()> {
    let needs_settings = match &cli.command {
        Some(Command::Report(args)) => !args.runs.iter().all(|run| is_run(run)),
        Some(Command::Plot(_) | Command::Merge(_) | Command::Sim(_)) => false,
        _ => true,
    };
    if needs_settings {
        read_dot_env()?;
    }
    secret::remember_environment();
    // Fails only when one is installed already, which serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    Ok(())
}

fn dispatch(cli: Cli, runtime: &Runtime) -> Result<ExitStatus> {
    match cli.command {
        None => run::run(&cli.run, runtime),
        Some(Command::Run(args)) => run::run(&args, runtime),
        Some(Command::Plan(args)) => plan::plan(&args),
        Some(Command::Check(args)) => check::check(&args, runtime),
        Some(Command::Ls(args)) => ls::ls(&args),
        Some(Command::Show(args)) => show::show(&args),
        Some(Command::Open(args)) => open::open(&args),
        Some(Command::Report(args)) => report::report(&args),
        Some(Command::Diff(args)) => diff::diff(&args),
        Some(Command::Verify(args)) => verify::verify(&args),
        Some(Command::Keep(args)) => keep::keep(&args),
        Some(Command::Export(args)) => exchange::export(&args),
        Some(Command::Import(args)) => exchange::import(&args),
        Some(Command::Plot(args)) => plot::plot(&args),
        Some(Command::Sim(args)) => sim::sim(&args, runtime),
        Some(Command::Bench(args)) => bench::bench(&args, runtime),
        Some(Command::Telemetry(args)) => telemetry::telemetry(&args, runtime),
        Some(Command::Merge(args)) => merge::merge(&args),
        Some(Command::Submit(args)) => submit::submit(&args),
        Some(Command::Clean(args)) => clean::clean(&args, runtime),
        Some(Command::Doctor(args)) => doctor::doctor(&args, runtime),
        Some(Command::Keys(args)) => keys::keys(&args),
        Some(Command::Schema(args)) => keys::schema(&args),
        Some(Command::Completions(args)) => completions::completions(&args),
        Some(Command::Man(args)) => completions::man(&args),
        Some(Command::Init(args)) => init::init(&args),
    }
}

/// Prints an error on stderr: a plan's problems with the plan's lines, others with their causes.
fn complain(error: &anyhow::Error) {
    let text = match error.downcast_ref::<PlanProblems>() {
        Some(problems) if Term::stderr().features().colors_supported() => {
            // Its colours are labrun's own, and the renderer writes out what others wrote.
            let text = problems.render(&Renderer::styled());
            drop(Term::stderr().write_line(&secret::mask(&text)));
            return;
        }
        Some(problems) => problems.to_string(),
        None => {
            let mut text = format!("error: {error}");
            for cause in error.chain().skip(1) {
                text.push_str(&format!("\n  caused by: {cause}"));
            }
            text
        }
    };
    say(&text);
}

/// A line on stderr, fit to be shown. Nothing can be done if nobody listens.
fn say(text: &str) {
    drop(Term::stderr().write_line(&redact::text(text)));
}

/// Text on stdout, fit to be shown: what a user may pipe.
fn print(text: &str) -> Result<()> {
    let text = redact::text(text);
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `labrun plan x.toml | head` is not an error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        // A terminal that is gone.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(()),
        written => written.context("writing to standard output"),
    }
}

/// Columns of the terminal on stdout, or a readable width for a file.
fn width() -> u16 {
    let (_, columns) = Term::stdout().size_checked().unwrap_or((0, 120));
    columns.clamp(80, 200)
}

/// The one runtime of this process. A load and each sampler have threads of their own; two workers serve
/// control routes, waiting and signals. The simulator shares the machine with the client that measures
/// it, and gets one thread.
fn runtime(is_sim: bool) -> Result<Runtime> {
    let mut builder = if is_sim {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    if !is_sim {
        builder.worker_threads(2);
    }
    let runtime = builder.enable_all().build();
    runtime.context("starting the runtime")
}

/// Whether `word` is a run's folder.
fn is_run(word: &str) -> bool {
    Path::new(word).join("cells").is_dir()
}

/// The run that `word` means. The settings, which name the results folder, are read only for a word that is
/// no folder.
fn run_named(word: &str, config: Option<&Path>) -> Result<PathBuf> {
    if is_run(word) {
        return Ok(PathBuf::from(word));
    }
    let config = Config::load(config)?;
    run_folder(word, &config.settings.paths.results)
}

/// A path as a command takes it, whatever it begins with.
fn as_argument(path: &Path) -> String {
    let dash = path.as_os_str().as_encoded_bytes().starts_with(b"-");
    let here = if dash { "./" } else { "" };
    format!("{here}{}", path.display())
}

/// Reads `.env` of the working folder, and of no other, into the environment. Variables that are set
/// already stay.
fn read_dot_env() -> Result<()> {
    let path = Path::new(".env");
    let device = |path: &Path| std::fs::metadata(path).ok().map(|file| file.rdev());
    // A container's `.env` is hidden by `/dev/null` in its place.
    if !path.exists() || device(path) == device(Path::new("/dev/null")) {
        return Ok(());
    }
    let text = bounded::read(path, MAX_DOT_ENV_BYTES).context("reading `.env`")?;
    let set = dot_env::parse(&text, |name| std::env::var(name).ok()).map_err(|bad| {
        anyhow::anyhow!(
            "`.env:{}` cannot be read: expected {}",
            bad.line,
            bad.expected
        )
    })?;
    for (name, value) in set {
        if std::env::var_os(&name).is_none() {
            // SAFETY: no other thread runs yet; every command is called after this.
            unsafe { std::env::set_var(name, value) };
        }
    }
    Ok(())
}
