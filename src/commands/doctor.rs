//! `labrun doctor`: is this machine fit for a run?

use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{ExitStatus, load_plan, print, width};
use crate::cli::DoctorArgs;
use crate::config::Config;
use crate::preflight::{Level, Line, Needs, examine, worst};

/// Examines the machine and prints how to fix it.
pub fn doctor(args: &DoctorArgs, runtime: &Runtime) -> Result<ExitStatus> {
    let config = Config::load(args.config.as_deref())?;
    let needs = match &args.plan {
        Some(plan) => Needs::of(&load_plan(plan)?.1),
        None => Needs::default(),
    };
    let image = args.image.as_deref();
    let lines = runtime.block_on(examine(&config.settings, &needs, image));
    let worst = worst(&lines);
    if args.json {
        let all = json!({"worst": worst, "lines": lines});
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else {
        print(&table(&lines))?;
    }
    Ok(match worst {
        Level::Good | Level::Warning => ExitStatus::Success,
        Level::Error => ExitStatus::CellsFailed,
    })
}

fn table(lines: &[Line]) -> String {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width());
    for line in lines {
        let mut message = line.message.clone();
        if !line.fix.is_empty() {
            message.push_str(&format!("\n-> {}", line.fix));
        }
        table.add_row([line.level.name(), line.topic, &message]);
    }
    let count = |level| lines.iter().filter(|line| line.level == level).count();
    let (warnings, errors) = (count(Level::Warning), count(Level::Error));
    let rows: Vec<String> = table.lines().map(|row| row.trim_end().to_owned()).collect();
    format!(
        "{}\n{} good, {warnings} warnings, {errors} errors\n",
        rows.join("\n"),
        count(Level::Good)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_level_its_topic_and_the_fix() {
        let line = |topic, level, message: &str, fix: &str| Line {
            topic,
            level,
            message: message.to_owned(),
            fix: fix.to_owned(),
        };
        let lines = [
            line("clock", Level::Good, "tsc, in steps of 0.02 µs", ""),
            line("GPU", Level::Warning, "no NVML", "install NVIDIA's driver"),
            line("memory", Level::Error, "2.0 GiB available", "free memory"),
        ];
        let rows = [
            " good     clock   tsc, in steps of 0.02 µs",
            " warning  GPU     no NVML",
            "                  -> install NVIDIA's driver",
            " error    memory  2.0 GiB available",
            "                  -> free memory",
            "1 good, 1 warnings, 1 errors\n",
        ];
        assert_eq!(table(&lines), rows.join("\n"));
    }
}
