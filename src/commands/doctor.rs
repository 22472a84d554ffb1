//! `labrun doctor`: is this machine fit for a run?

use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::json;

use super::{ExitStatus, load_plan, print, runtime, width};
use crate::cli::DoctorArgs;
use crate::config::Config;
use crate::preflight::{Level, Line, Needs, examine, worst};

/// Examines the machine and says what to mend.
pub fn doctor(args: &DoctorArgs) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let needs = match &args.plan {
        Some(plan) => Needs::of(&load_plan(plan)?.1),
        None => Needs::default(),
    };
    let image = args.image.as_deref();
    let lines = runtime()?.block_on(examine(&config.settings, &needs, image));
    let worst = worst(&lines);
    if args.json {
        let all = json!({"worst": worst, "lines": lines});
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else {
        print(&table(&lines))?;
    }
    Ok(match worst {
        Level::Good | Level::Warning => ExitStatus::Success,
        Level::Bad => ExitStatus::CellsFailed,
    })
}

fn table(lines: &[Line]) -> String {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width());
    for line in lines {
        let mut says = line.says.clone();
        if !line.mend.is_empty() {
            says.push_str(&format!("\n-> {}", line.mend));
        }
        table.add_row([line.level.name(), line.topic, &says]);
    }
    let count = |level| lines.iter().filter(|line| line.level == level).count();
    let (warnings, bad) = (count(Level::Warning), count(Level::Bad));
    let rows: Vec<String> = table.lines().map(|row| row.trim_end().to_owned()).collect();
    format!(
        "{}\n{} good, {warnings} warnings, {bad} bad\n",
        rows.join("\n"),
        count(Level::Good)
    )
}
