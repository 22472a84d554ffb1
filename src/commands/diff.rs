//! `labrun diff`: two sides, and what differs between them.

use anyhow::{Result, bail};

use super::{ExitStatus, print, say, width};
use crate::cli::{AllowWhat, DiffArgs, DiffFormat};
use crate::config::Config;
use crate::diff::resolve::{Places, both_sides};
use crate::diff::rule::{Fired, Rule};
use crate::diff::{Allow, Measure, Options, Shown, compare};

/// Compares two sides and prints what differs.
pub(super) fn diff(args: &DiffArgs) -> Result<ExitStatus> {
    let rules = args
        .fail_on
        .iter()
        .map(|text| Rule::parse(text))
        .collect::<Result<Vec<_>, _>>()?;
    let options = options(args, &rules)?;
    let config = Config::load(args.config.as_deref())?;
    let places = Places {
        results: &config.settings.paths.results,
        plan: args.plan.as_deref(),
    };
    let (a, b) = both_sides(&args.a, &args.b, places)?;
    let diff = compare(&a, &b, &options)?;
    let fired: Vec<Fired> = rules.iter().flat_map(|rule| rule.check(&diff)).collect();
    print(&match args.format {
        DiffFormat::Text => diff.terminal(&fired, width()),
        DiffFormat::Markdown => diff.markdown(&fired),
        DiffFormat::Json => serde_json::to_string_pretty(&diff.json(&fired))? + "\n",
        DiffFormat::Csv => diff.csv(),
        DiffFormat::Html => diff.html(&fired),
    })?;
    if !fired.is_empty() {
        say(&format!("{} of --fail-on", counted(fired.len())));
        return Ok(ExitStatus::Regression);
    }
    if diff.rows.is_empty() {
        say("no cell could be compared");
        return Ok(ExitStatus::Usage);
    }
    Ok(ExitStatus::Success)
}

fn counted(findings: usize) -> String {
    if findings == 1 {
        "1 finding".to_owned()
    } else {
        format!("{findings} findings")
    }
}

fn options(args: &DiffArgs, rules: &[Rule]) -> Result<Options> {
    let mut measures = Vec::new();
    for name in &args.measure {
        match Measure::from_name(name) {
            Some(measure) => measures.push(measure),
            None if name == "all" => measures.extend(Measure::all()),
            None => {
                let names: Vec<_> = Measure::all().iter().map(ToString::to_string).collect();
                bail!(
                    "no measure `{name}`; there are {}, or `all`",
                    names.join(", ")
                );
            }
        }
    }
    if measures.is_empty() {
        measures.extend(Measure::DEFAULT);
    }
    measures.extend(rules.iter().map(|rule| rule.measure));
    let mut seen = std::collections::BTreeSet::new();
    measures.retain(|measure| seen.insert(*measure));
    let allowed = |what| args.force || args.allow.contains(&what);
    Ok(Options {
        measures,
        allow: Allow {
            model: allowed(AllowWhat::Model),
            source: allowed(AllowWhat::Source),
            inconclusive: allowed(AllowWhat::Inconclusive),
            invalid: allowed(AllowWhat::Invalid),
        },
        shown: if args.all { Shown::All } else { Shown::Changed },
    })
}
