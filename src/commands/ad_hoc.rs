//! A run without a plan file: flags to the text of a plan, which is read like any other.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use toml_edit::Value;

use super::plan_source::Source;
use crate::cli::AdHocArgs;
use crate::plan::name_of_file;
use crate::plan::server::Launcher;

/// The plan's name, and what its problems call its text.
const NAME: &str = "adhoc";
const FILE: &str = "the command line";

/// The plan that flags describe.
///
/// # Errors
/// Where they do not describe one.
pub(super) fn source(args: &AdHocArgs) -> Result<Source> {
    let missing: Vec<&str> = [
        ("--model", args.model.is_none()),
        ("--tier", args.tier.is_empty()),
        ("--prompt-len", args.prompt_len.is_empty()),
    ]
    .into_iter()
    .filter_map(|(flag, is_missing)| is_missing.then_some(flag))
    .collect();
    if missing.len() == 3 && args.given().is_empty() {
        bail!(
            "no plan: name a TOML file, such as `labrun plans/quickstart.toml`, write one with \
             `labrun init`, or describe a run with --model, --tier and --prompt-len"
        );
    }
    if !missing.is_empty() {
        bail!(
            "no plan, and without one {} must be given too, such as `labrun run --model \
             Qwen/Qwen2.5-7B-Instruct --tier cpu,disk --prompt-len 4k,16k`",
            missing.join(" and ")
        );
    }
    let saved = args.save.as_ref().map(|path| path.display().to_string());
    Ok(Source {
        text: text(args),
        file: saved.unwrap_or_else(|| FILE.to_owned()),
    })
}

/// Refuses flags that describe a run beside the plan `file`.
pub(super) fn refuse_beside(file: &Path, args: &AdHocArgs) -> Result<()> {
    let given = args.given();
    let Some((flag, instead)) = given.first() else {
        return Ok(());
    };
    let flags: Vec<&str> = given.iter().map(|(flag, _)| *flag).collect();
    let changes: Vec<String> = given
        .iter()
        .filter_map(|(_, instead)| instead.clone())
        .map(|change| format!("`{change}`"))
        .collect();
    let plan = file.display();
    if instead.is_none() && given.len() == 1 {
        bail!("{flag} is for a run without a plan, and `{plan}` is one already");
    }
    bail!(
        "{} describe a run without a plan; to change a value of `{plan}`, use {}",
        flags.join(", "),
        changes.join(" ")
    )
}

/// Writes the plan's text to the file that `--save` names.
pub(super) fn save(args: &AdHocArgs, source: &Source) -> Result<()> {
    let Some(path) = &args.save else {
        return Ok(());
    };
    write_new(path, &source.text)
}

/// Writes a new file; one that is there stays.
pub(super) fn write_new(path: &Path, text: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).open(path);
    if let Err(error) = &opened
        && error.kind() == std::io::ErrorKind::AlreadyExists
    {
        bail!(
            "`{}` exists, and labrun does not overwrite it: name another file, or remove it",
            path.display()
        );
    }
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("writing `{}`", path.display()))
}

fn text(args: &AdHocArgs) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let list = |key: &str, values: &[u32]| {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        if values.is_empty() {
            return String::new();
        }
        format!("{key} = [{}]\n", values.join(", "))
    };
    let saved = args.save.as_ref();
    let name = saved.and_then(|path| name_of_file(&path.display().to_string()));
    let mut text = format!(
        "name = {}\nmodel = {}\n",
        quoted(&name.unwrap_or_else(|| NAME.to_owned())),
        quoted(args.model.as_deref().unwrap_or_default())
    );
    let tiers: Vec<String> = args.tier.iter().map(|tier| quoted(tier.trim())).collect();
    text.push_str(&format!("\n[matrix]\ntier = [{}]\n", tiers.join(", ")));
    text.push_str(&list("prompt_len", &args.prompt_len));
    text.push_str(&list("gen_len", &args.gen_len));
    text.push_str(&list("concurrency", &args.concurrency));
    if args.requests.is_some() || args.seed.is_some() {
        text.push_str("\n[run]\n");
    }
    for (key, value) in [
        ("requests", args.requests.map(u64::from)),
        ("seed", args.seed),
    ] {
        if let Some(value) = value {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    if let Some(label) = &args.label {
        let kind = "kind = \"shared-prefix\" # a document, then a fresh question";
        text.push_str(&format!("\n[workload.{}]\n{kind}\n", quoted(label)));
    }
    let server = [
        ("launcher", args.launcher.map(Launcher::name)),
        ("url", args.url.as_deref()),
        ("image", args.image.as_deref()),
    ];
    if server.iter().any(|(_, value)| value.is_some()) {
        text.push_str("\n[server]\n");
    }
    for (key, value) in server {
        if let Some(value) = value {
            text.push_str(&format!("{key} = {}\n", quoted(value)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use crate::plan::Plan;

    fn seed() -> AdHocArgs {
        AdHocArgs {
            model: Some("meta-llama/Llama \"3\"".to_owned()),
            tier: vec!["disk".to_owned(), " cpu".to_owned()],
            prompt_len: vec![5000],
            gen_len: vec![100],
            label: Some("long_context".to_owned()),
            ..AdHocArgs::default()
        }
    }

    #[test]
    fn flags_are_the_text_of_a_plan() {
        let full = AdHocArgs {
            concurrency: vec![1, 8],
            requests: Some(24),
            seed: Some(7),
            launcher: Some(Launcher::Process),
            ..seed()
        };
        let source = source(&full).unwrap();
        assert_eq!(
            source.text,
            "name = \"adhoc\"\nmodel = 'meta-llama/Llama \"3\"'\n\n[matrix]\ntier = [\"disk\", \"cpu\"]\n\
             prompt_len = [5000]\ngen_len = [100]\nconcurrency = [1, 8]\n\n[run]\nrequests = 24\nseed = 7\n\n\
             [workload.\"long_context\"]\nkind = \"shared-prefix\" # a document, then a fresh question\n\n\
             [server]\nlauncher = \"process\"\n"
        );
        let plan = Plan::parse(&source.text, &source.file).unwrap();
        assert_eq!(plan.variants[0].resolved.model, "meta-llama/Llama \"3\"");
        assert_eq!(Matrix::expand(&plan).unwrap().cells.len(), 4);
    }

    #[test]
    fn what_is_missing_and_what_stands_beside_a_plan_is_refused() {
        let refused = source(&AdHocArgs::default()).unwrap_err().to_string();
        assert!(
            refused.starts_with("no plan: name a TOML file"),
            "{refused}"
        );
        let some = AdHocArgs {
            model: None,
            tier: Vec::new(),
            ..seed()
        };
        let refused = source(&some).unwrap_err().to_string();
        assert!(
            refused.contains("--model and --tier must be given too"),
            "{refused}"
        );
        let beside = |args| {
            refuse_beside(Path::new("x.toml"), &args)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            beside(seed()),
            "--model, --tier, --prompt-len, --gen-len, --label describe a run without a plan; to change a \
             value of `x.toml`, use `--set model=meta-llama/Llama \"3\"` `--only tier=disk, cpu` \
             `--set matrix.prompt_len=[5000]` `--set matrix.gen_len=[100]` `--only label=long_context`"
        );
        let save = AdHocArgs {
            save: Some("y.toml".into()),
            ..AdHocArgs::default()
        };
        assert_eq!(
            beside(save),
            "--save is for a run without a plan, and `x.toml` is one already"
        );
        assert!(refuse_beside(Path::new("x"), &AdHocArgs::default()).is_ok());
    }
}
